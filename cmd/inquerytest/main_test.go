package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // as the golden transcript was made
	os.Exit(testmain.Run(m, 0, nil))
}

// A fake is a Resolver that is a function.
type fake func(inlookup.Query) (inlookup.Answer, error)

func (f fake) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) { return f(q) }

// A setting is what a run depends on besides its arguments.
type setting struct {
	mysql inlookup.Resolver // what stands for MySQL itself
	env   map[string]string
	stdin io.Reader
}

// program returns a program for this setting that writes to these.
func (s setting) program(stdout, stderr io.Writer) *program {
	mysql := func() inlookup.Resolver { return s.mysql }
	return &program{
		getenv:  func(name string) string { return s.env[name] },
		stdin:   s.stdin,
		out:     bufio.NewWriter(stdout),
		stderr:  stderr,
		fromEnv: mysql,
		mysql:   mysql,
	}
}

// run runs the program and returns what it did.
func (s setting) run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return s.runContext(ctx, args...)
}

func (s setting) runContext(ctx context.Context, args ...string) (int, string, string) {
	var stdout, stderr bytes.Buffer
	status := s.program(&stdout, &stderr).run(ctx, args)
	return status, stdout.String(), stderr.String()
}

// environment returns one whose FIFOs are in a directory of the test's own.
func environment(t *testing.T) map[string]string {
	dir := t.TempDir()
	return map[string]string{"INFIFODIR": dir, "FIFOTMPDIR": dir, "SYSCONFDIR": dir, "ASSIGNDIR": dir}
}

// serve serves r on the FIFO that env names, to the end of the test.
func serve(t *testing.T, env map[string]string, r inlookup.Resolver) {
	t.Helper()
	s := &inlookup.Server{Resolver: r, Getenv: func(name string) string { return env[name] }}
	s.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		return fmt.Sprintf("%v, %q, %q\n\n", q.Type, q.Email, q.IP), nil
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func fifos(t *testing.T, dir string) []string {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// oneLine checks that a message is one line that begins with our name and says
// want.
func oneLine(t *testing.T, stderr, want string) {
	t.Helper()
	one := strings.HasPrefix(stderr, "inquerytest: ") && strings.Count(stderr, "\n") == 1
	if !one || !strings.Contains(stderr, want) {
		t.Errorf("stderr %q, want one line with %q", stderr, want)
	}
}

var wrongUsage = []struct{ args, want string }{
	{"", "-q is missing"},
	{"u@example.com", "-q is missing"},
	{"-q 0 u@example.com", "-q 0: there is no such type"},
	{"-q 8 u@example.com", "-q 8: there is no such type"},
	{"-q 01 u@example.com", "-q 01: there is no such type"},
	{"-q", "flag needs an argument: -q"},
	{"-z", "not defined: -z"},
	{"-q 1", "address is missing"},
	{"-q 1 ''", "address is missing"},
	{"-q 1 u@example.com 192.0.2.1 more", `unexpected argument "more"`},
	{"-q 2 u@example.com", "asks about an IP address"},
	{"-q 2 u@example.com ''", "asks about an IP address"},
	{"-q 1 u@example.com -v", "-v comes after the address"},
	{"u@example.com -q 1", "-q comes after the address"},
	{"-F u@example.com -q 1", "-F and -q exclude each other"},
	{"-F u@example.com -s", "-F and -s exclude each other"},
	{"-F u@example.com example.org", `unexpected argument "example.org"`},
	{"-F", "flag needs an argument: -F"},
	{"-s u@example.com", `unexpected argument "u@example.com"`},
	{"-s -x", "-s and -x exclude each other"},
	{"-s -n 3", "-n and -s exclude each other"},
	{"-watch -s", "-s and -watch exclude each other"},
	{"-watch u@example.com", `unexpected argument "u@example.com"`},
	{"-listen 127.0.0.1:9177", "-listen needs -s"},
	{"-s -listen 9177", "-listen 9177: want address:port"},
	{"-s -listen 127.0.0.1:", "-listen 127.0.0.1:: want address:port"},
	{"-x u@example.com", "-q is missing"},
	{"-x -n 3 -q 1 u@example.com", "-x asks once"},
	{"-n x -q 1 u@example.com", "invalid value \"x\" for flag -n"},
	{"-n 0 -q 1 u@example.com", "-n 0: want 1 to"},
	{"-p 0 -q 1 u@example.com", "-p 0: want 1 to"},
	{"-u -1 -q 1 u%d@example.com", "-u -1: want 1 to"},
	{"-u 5 -q 1 u@example.com", "-u 5 has no effect"},
	{"-V u@example.com", `unexpected argument "u@example.com"`},
	{"-V -q 1", "-V and -q exclude each other"},
	{"-c 60 -q 1 u@example.com", "-c needs -compare"},
	{"-compare ''", "-compare needs the FIFO"},
	{"-compare mysql -q 1", "-compare and -q exclude each other"},
	{"-compare mysql -n 5", "-compare and -n exclude each other"},
	{"-compare mysql u@example.com", `unexpected argument "u@example.com"`},
	{"-compare mysql -p 0", "-p 0: want 1 to"},
	{"-compare mysql -c 0", "-c 0: want seconds"},
	{"-compare mysql", "both sides are MySQL itself"},
}

func TestUsage(t *testing.T) {
	s := setting{mysql: fake(func(inlookup.Query) (inlookup.Answer, error) {
		t.Error("asked")
		return inlookup.Answer{}, errors.New("asked")
	})}
	for _, test := range wrongUsage {
		args := strings.Fields(strings.ReplaceAll(test.args, "''", "\x00"))
		for i := range args {
			args[i] = strings.Trim(args[i], "\x00")
		}
		status, stdout, stderr := s.run(t, args...)
		if status != exitUsage || stdout != "" {
			t.Errorf("%s: exit %d, stdout %q", test.args, status, stdout)
		}
		oneLine(t, stderr, test.want)
	}
}

func TestHelp(t *testing.T) {
	status, stdout, stderr := setting{}.run(t, "-h")
	if status != exitOK || stderr != "" {
		t.Errorf("exit %d, stderr %q", status, stderr)
	}
	for _, want := range []string{
		"Examples:", "Environment:", "/run/indimail/inlookup if that\n", "QUERY_CACHE",
		"Exit status", "-q user user@example.com",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the help does not say %q", want)
		}
	}
	for _, q := range questions {
		if !strings.Contains(stdout, fmt.Sprintf("%d %s", q.typ, q.name)) {
			t.Errorf("the help does not say %d %s", q.typ, q.name)
		}
	}
	for line := range strings.Lines(stdout) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

// The question that each command line asks.
func TestQuery(t *testing.T) {
	const u = "u@example.com"
	for _, test := range []struct {
		args string
		want inlookup.Query
	}{
		{"-q 1 u@example.com", inlookup.Query{Type: inlookup.TypeUser, Email: u}},
		{"-q passwd u@example.com", inlookup.Query{Type: inlookup.TypePasswd, Email: u}},
		{
			"-q relay u@example.com 192.0.2.1",
			inlookup.Query{Type: inlookup.TypeRelay, Email: u, IP: "192.0.2.1"},
		},
		{"-q 3 u@example.com 192.0.2.1", inlookup.Query{Type: inlookup.TypePasswd, Email: u}},
		{"-q 1 -- -u@example.com", inlookup.Query{Type: inlookup.TypeUser, Email: "-" + u}},
		{"-x -q host u@example.com", inlookup.Query{Type: inlookup.TypeExplain, Email: u, IP: "4"}},
		{"-x -q 2 u@example.com", inlookup.Query{Type: inlookup.TypeExplain, Email: u, IP: "2"}},
		{"-F example.com", inlookup.Query{Type: inlookup.TypeFlush, Email: "example.com"}},
		{"-F=", inlookup.Query{Type: inlookup.TypeFlush}},
		{"-s -v", inlookup.Query{Type: inlookup.TypeStatus}},
	} {
		o, err := parse(strings.Fields(test.args))
		if err != nil || o.query != test.want {
			t.Errorf("%s: %+v, %v", test.args, o, err)
		}
	}
}

func TestFaults(t *testing.T) {
	const email = "u@example.com"
	unavailable, tooLong, invalid := inlookup.ErrUnavailable, inlookup.ErrTooLong, inlookup.ErrInvalid
	entry := func(text string) inlookup.Answer {
		return inlookup.NewData(inlookup.TypePasswd, "PWSTRUCT="+text)
	}
	for _, test := range []struct {
		answer inlookup.Answer
		err    error
		status int
		want   string
	}{
		{inlookup.Answer{}, fmt.Errorf("%w: no route to host", unavailable), exitFault, "unavailable: no route to host"},
		{inlookup.Answer{}, fmt.Errorf("%w: a request of 5000 bytes", tooLong), exitUsage, "message too long"},
		{inlookup.Answer{}, fmt.Errorf("%w: NUL in an address", invalid), exitUsage, "NUL in an address"},
		{inlookup.Answer{}, fmt.Errorf("%w: %w", unavailable, invalid), exitFault, "unavailable"},
		{inlookup.Answer{}, errors.New("two\nlines"), exitFault, "two lines"},
		{inlookup.NewAnswer(0), nil, exitFault, "lookup unavailable"},
		{entry("x:$5$secret:1"), nil, exitFault, "MySQL itself: invalid message"},
		{entry("No such user u@example.com"), nil, exitNo, "no such address"},
	} {
		s := setting{mysql: fake(func(inlookup.Query) (inlookup.Answer, error) {
			return test.answer, test.err
		})}
		status, stdout, stderr := s.run(t, "-q", "3", email)
		if status != test.status || stdout != "" || strings.Contains(stderr, "secret") {
			t.Errorf("%q, %v: exit %d, stdout %q", test.answer, test.err, status, stdout)
		}
		oneLine(t, stderr, test.want)
		oneLine(t, stderr, `password entry of "u@example.com": `)
	}
}

func TestVersion(t *testing.T) {
	status, stdout, stderr := setting{}.run(t, "-V")
	words := strings.Fields(stdout)
	if status != exitOK || len(words) != 2 || words[0] != "inquerytest" || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputFails(t *testing.T) {
	var stderr bytes.Buffer
	status := setting{}.program(fullDisk{}, &stderr).run(t.Context(), []string{"-h"})
	if status != exitFault {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr.String(), "standard output: no space left")
}

func TestNobodyListens(t *testing.T) {
	env := environment(t)
	client := new(inlookup.Client)
	s := setting{mysql: client, env: env}
	for _, test := range []struct{ args, want string }{
		{"-q 1 u@example.com", "(start it, or unset QUERY_CACHE to ask MySQL itself)"},
		{"-i= -q 1 u@example.com", "(start it, or leave out -i and unset QUERY_CACHE"},
		{"-n 10 -q 1 u@example.com", "is inlookup running?"},
		{"-s", "(start it)"},
		{"-F=", "(start it)"},
		{"-x -q 1 u@example.com", "(start it)"},
		{"-s -i infifo", "(start it)"},
	} {
		status, stdout, stderr := s.run(t, strings.Fields(test.args)...)
		if status != exitFault || stdout != "" {
			t.Errorf("%s: exit %d, stdout %q", test.args, status, stdout)
		}
		oneLine(t, stderr, test.want)
		oneLine(t, stderr, "no server listens on "+env["INFIFODIR"]+"/infifo")
	}
	if left := fifos(t, env["INFIFODIR"]); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A question must never be written into a file that is not a FIFO.
func TestNoFIFO(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setting{env: map[string]string{"INFIFO": file}}
	for _, infifo := range []string{"", file} {
		status, _, stderr := s.run(t, "-q", "1", "-i", infifo, "u@example.com")
		if status != exitFault {
			t.Errorf("exit %d", status)
		}
		oneLine(t, stderr, file+" is not a FIFO")
	}
	for _, path := range []string{filepath.Dir(file), file + "/below"} { // no question of rights
		status, _, stderr := s.run(t, "-q", "1", "-i", path, "u@example.com")
		if status != exitFault {
			t.Errorf("exit %d", status)
		}
		oneLine(t, stderr, "directory: name another FIFO (-i, INFIFO)")
	}
	if b, _ := os.ReadFile(file); string(b) != "keep" {
		t.Errorf("the file is now %q", b)
	}
}

func TestListener(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) {
		path := filepath.Join(dir, name)
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	listen("one")
	listen("many.2")
	for _, stale := range []string{"many", "many.1", "none"} {
		if err := syscall.Mkfifo(filepath.Join(dir, stale), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name, env, want string
		nobody          bool
	}{
		{"one", "", "one", false},
		{"", "one", "one", false},
		{"many", "one", "many.2", false},
		{"none", "", "none", true},
		{"", "", "infifo", true},
		{dir + "/one", "many", "one", false},
		{dir + "/absent", "many", "absent", true},
	} {
		p := &program{getenv: func(name string) string {
			return map[string]string{"FIFODIR": dir, "INFIFO": test.env}[name]
		}}
		got, err := p.listener(test.name)
		right := err == nil && !test.nobody || errors.Is(err, errNobody) && test.nobody
		if got != filepath.Join(dir, test.want) || !right {
			t.Errorf("-i %q, INFIFO=%q: %s, %v", test.name, test.env, got, err)
		}
	}
}

// With -i and no server there, one is started for the question, and a line says
// so. Its MySQL is away here: the reason must reach the user. Nothing may be
// left behind, except what was there.
func TestOwnServer(t *testing.T) {
	for _, path := range []string{"own", "made/for/own"} {
		env := environment(t)
		dir := env["INFIFODIR"]
		env["MYSQL_HOST"], env["MYSQL_SOCKET"] = "localhost", filepath.Join(dir, "no.socket")
		s := setting{env: env}
		fifo := filepath.Join(dir, path)
		status, stdout, stderr := s.run(t, "-q", "1", "-i", fifo, "u@example.com")
		if status != exitFault || stdout != "" {
			t.Errorf("exit %d, stdout %q", status, stdout)
		}
		first, second, _ := strings.Cut(stderr, "\n")
		oneLine(t, first+"\n", fifo+": this call starts a server of its own")
		oneLine(t, second, "no.socket")
		if strings.Count(second, "lookup unavailable") != 1 {
			t.Errorf("said twice: %s", second)
		}
		if left := fifos(t, dir); left != nil {
			t.Errorf("left behind: %v", left)
		}
	}
}

// Where the own server cannot listen, the directories it made go too.
func TestOwnServerCannotListen(t *testing.T) {
	env := environment(t)
	env["REPLYDIR"] = "relative" // which Listen refuses
	dir := env["INFIFODIR"]
	status, _, stderr := setting{env: env}.run(t, "-q", "1", "-i", dir+"/a/own", "u@example.com")
	if status != exitFault || !strings.Contains(stderr, "REPLYDIR") || fifos(t, dir) != nil {
		t.Errorf("exit %d, stderr %q, left %v", status, stderr, fifos(t, dir))
	}
	name := strings.Repeat("x", 300) // too long, but its directory can be made
	delete(env, "REPLYDIR")
	status, _, stderr = setting{env: env}.run(t, "-q", "1", "-i", dir+"/a/"+name, "u@example.com")
	if status != exitFault || fifos(t, dir) != nil {
		t.Errorf("exit %d, stderr %q, left %v", status, stderr, fifos(t, dir))
	}
}

// A FIFO for the answer that cannot be made is the fault of FIFOTMPDIR. Nobody
// was asked, so no log is named.
func TestReplyDirectory(t *testing.T) {
	env := environment(t)
	serve(t, env, fake(func(inlookup.Query) (inlookup.Answer, error) {
		return inlookup.NewAnswer(0), nil
	}))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(env["INFIFODIR"], "missing"), file} {
		env["FIFOTMPDIR"] = dir
		for _, args := range []string{"-i= -q 1 u@example.com", "-s", "-i= -n 1 -q 1 u@example.com"} {
			status, _, stderr := setting{env: env}.run(t, strings.Fields(args)...)
			if status == exitOK || strings.Contains(stderr, "log of") {
				t.Errorf("%s: exit %d, stderr %q", args, status, stderr)
			}
			oneLine(t, stderr, "FIFOTMPDIR names the directory for this FIFO, here "+dir+": ")
			if strings.Contains(stderr, "inquery.") {
				t.Errorf("a name that is another one each time: %s", stderr)
			}
		}
	}
	for name, text := range map[string]string{"FIFOTMPDIR": "relative", "FIFO_MODE": "0444"} {
		env["FIFOTMPDIR"] = env["INFIFODIR"]
		env[name] = text
		status, _, stderr := setting{env: env}.run(t, "-i=", "-q", "1", "u@example.com")
		if status != exitFault || strings.Contains(stderr, "log of") {
			t.Errorf("%s: exit %d, stderr %q", name, status, stderr)
		}
		oneLine(t, stderr, name+": ")
		delete(env, name)
	}
}

// Control-C is the reason, and no log tells more.
func TestInterrupted(t *testing.T) {
	env := environment(t)
	ctx, cancel := context.WithCancel(t.Context())
	serve(t, env, fake(func(inlookup.Query) (inlookup.Answer, error) {
		cancel()
		<-t.Context().Done()
		return inlookup.Answer{}, nil
	}))
	s := setting{env: env, mysql: fake(func(inlookup.Query) (inlookup.Answer, error) {
		return inlookup.Answer{}, fmt.Errorf("%w: %w", inlookup.ErrUnavailable, ctx.Err())
	})}
	for _, args := range []string{"-i= -q 1 u@example.com", "-q 1 u@example.com"} {
		status, _, stderr := s.runContext(ctx, strings.Fields(args)...)
		if status != exitFault {
			t.Errorf("exit %d", status)
		}
		oneLine(t, stderr, `status of "u@example.com": interrupted`)
	}
}

// hangingFIFO makes a FIFO as the server's one, which nobody reads from.
func hangingFIFO(t *testing.T, env map[string]string) (fd int) {
	t.Helper()
	path := filepath.Join(env["INFIFODIR"], "infifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	control := filepath.Join(env["SYSCONFDIR"], "control")
	if err := os.Mkdir(control, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(control, "timeoutread"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fd
}

// No answer in time: the line says what the client can do about it.
func TestSilence(t *testing.T) {
	env := environment(t)
	hangingFIFO(t, env)
	env["FIFO_MODE"] = "0600"
	dir := t.TempDir()
	const group = 60107
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(dir, -1, group), os.Chmod(dir, 0o770|os.ModeSetgid)); err != nil {
			t.Fatal(err)
		}
	}
	env["FIFOTMPDIR"] = dir
	for _, args := range []string{"-i= -q 1 u@example.com", "-s"} {
		status, _, stderr := setting{env: env}.run(t, strings.Fields(args)...)
		if status != exitFault || strings.Contains(stderr, "log of") {
			t.Errorf("%s: exit %d", args, status)
		}
		oneLine(t, stderr, ": no answer in 1 s. Either the server on "+env["INFIFODIR"]+
			"/infifo answers only into its REPLYDIR, or has no right to write into this FIFO (in "+dir+
			", group "+replyGroup(dir)+", mode 0600): set FIFOTMPDIR to the server's REPLYDIR, or to a "+
			"directory with a group of the server; or it ")
		oneLine(t, stderr, "; or it hangs. Its log says more")
		const c = "; or it is the C program, which knows no -F, -s and -x; "
		if isStatus := args == "-s"; isStatus != strings.Contains(stderr, c) || strings.Contains(stderr, "context") {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	if os.Geteuid() == 0 {
		if g := replyGroup(dir); g != "indimail" && g != fmt.Sprint(group) {
			t.Errorf("a directory of group %d gives FIFOs of group %s", group, g)
		}
	}
}

// A FIFO without room: the server does not read, and has nothing in its log.
func TestNoRoom(t *testing.T) {
	env := environment(t)
	fd := hangingFIFO(t, env)
	var err error
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	status, _, stderr := setting{env: env}.run(t, "-i=", "-q", "1", "u@example.com")
	if status != exitFault || strings.Contains(stderr, "log of") {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "infifo: context deadline exceeded: "+
		"the FIFO is full, and its server does not read it")
}

func TestOwnServerConfiguration(t *testing.T) {
	env := environment(t)
	control := filepath.Join(env["SYSCONFDIR"], "control")
	if err := os.Mkdir(control, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(control, "host.mysql")
	if err := os.WriteFile(file, []byte("local host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := setting{env: env}.run(t, "-q", "1", "-i", "own", "u@example.com")
	if status != exitFault {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "host.mysql:1")
}

func TestVerbose(t *testing.T) {
	env := environment(t)
	answer := fake(func(inlookup.Query) (inlookup.Answer, error) {
		return inlookup.NewAnswer(0), nil
	})
	serve(t, env, answer)
	server := "the server on " + env["INFIFODIR"] + "/infifo"
	for _, test := range []struct {
		args []string
		whom string
	}{
		{[]string{"-v", "-q", "1", "u@example.com"}, "MySQL itself"},
		{[]string{"-v", "-q", "1", "-i", "", "u@example.com"}, server},
		{[]string{"-v", "-q", "1", "-i", "infifo", "u@example.com"}, server},
	} {
		status, stdout, stderr := setting{mysql: answer, env: env}.run(t, test.args...)
		lines := slices.Collect(strings.Lines(stderr))
		want := "u@example.com has all services enabled\n"
		if status != exitOK || stdout != want || len(lines) != 2 {
			t.Fatalf("%v: exit %d, stdout %q, stderr %q", test.args, status, stdout, stderr)
		}
		oneLine(t, lines[0], `User Query, "u@example.com", asked of `+test.whom)
		oneLine(t, lines[1], "answered after ")
	}
}
