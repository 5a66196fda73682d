package systemtest

// A site is an installation with an environment of its own. A process is a
// command that runs there, perhaps as another user or with other accounts.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// A site is an installation: an environment whose directories are the test's own.
type site struct {
	t       testing.TB
	dir     string
	env     map[string]string
	foreign bool // its server runs as another user
}

// newSite returns one without control files, with db as its MySQL.
func newSite(t testing.TB, db *mariadb.DB) *site {
	t.Helper()
	readSources()
	dir := t.TempDir()
	s := &site{t: t, dir: dir, env: map[string]string{
		"INFIFODIR": filepath.Join(dir, "run"), "FIFOTMPDIR": filepath.Join(dir, "tmp"), "CONTROLDIR": filepath.Join(dir, "control"),
		"ASSIGNDIR": filepath.Join(dir, "users"), "DEFAULT_DOMAIN": "example.com", "TZ": "UTC", "PATH": os.Getenv("PATH"),
		"GORACE": "atexit_sleep_ms=0"}} // else the race detector makes every command's end last a second
	for _, name := range []string{"tmp", "control", "users"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if db != nil {
		s.env["MYSQL_SOCKET"], s.env["MYSQL_PASSWD"] = db.Socket, "secret"
	}
	return s
}

// goldenSite returns one with the golden control files.
func goldenSite(t testing.TB, db *mariadb.DB) *site {
	t.Helper()
	s := newSite(t, nil)
	s.env["CONTROLDIR"] = mariadbtest.Control(t, db)
	return s
}

// getenv is the environment of clients within this program. Where there is a
// user indimail, root's clients give it their reply FIFOs. With this mode a
// server that runs as another user can answer all the same.
func (s *site) getenv(name string) string {
	if s.foreign && name == "FIFO_MODE" {
		return "0666"
	}
	return s.env[name]
}

// control writes a control file.
func (s *site) control(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.env["CONTROLDIR"], name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// fifo returns the path of a request FIFO.
func (s *site) fifo(name string) string { return filepath.Join(s.env["INFIFODIR"], name) }

// client returns a client of the site's server. It waits longer than others do:
// a slow machine is no fault.
func (s *site) client() *inlookup.Client { return s.short(answerTime) }

// directory returns the typed questions to the site's server.
func (s *site) directory() inlookup.Directory { return inlookup.Directory{Resolver: s.client()} }

// text asks one of the server's extensions.
func (s *site) text(q inlookup.Query) string {
	s.t.Helper()
	a, err := s.client().Resolve(context.Background(), q)
	text, err2 := a.Text()
	if err != nil || err2 != nil {
		s.t.Fatalf("%v: %v, %v", q.Type, err, err2)
	}
	return text
}

// counts returns the counters that the server's status text shows, by name and label.
func (s *site) counts() map[string]float64 {
	s.t.Helper()
	counts := make(map[string]float64)
	for line := range strings.Lines(s.text(inlookup.Query{Type: inlookup.TypeStatus})) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			counts[strings.TrimPrefix(name, "inlookup_")], _ = strconv.ParseFloat(value, 64)
		}
	}
	return counts
}

// command returns a command, one of ours or another, with the site's environment.
func (s *site) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	if name == "inlookup" || name == "inquerytest" {
		cmd.Path, cmd.Err = filepath.Join(bin, name), nil
	}
	for _, key := range slices.Sorted(maps.Keys(s.env)) {
		cmd.Env = append(cmd.Env, key+"="+s.env[key])
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dieWithParent != nil {
		dieWithParent(cmd.SysProcAttr)
	}
	return cmd
}

// run runs a command to its end.
func (s *site) run(name string, args ...string) (status int, stdout, stderr string) {
	s.t.Helper()
	return s.runCommand(s.command(name, args...))
}

func (s *site) runCommand(cmd *exec.Cmd) (status int, stdout, stderr string) {
	s.t.Helper()
	p := s.startCommand(cmd)
	return p.wait(), p.stdout.String(), p.stderr.String()
}

// A process is a command that runs.
type process struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when it has ended
}

// An output is a file: what the command has written is there at once, which a pipe and its reader would not promise.
type output struct{ *os.File }

func (o output) String() string {
	text, err := os.ReadFile(o.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *site) output() output {
	s.t.Helper()
	f, err := os.CreateTemp(s.dir, "output")
	if err != nil {
		s.t.Fatal(err)
	}
	return output{f}
}

// start starts one of our commands.
func (s *site) start(name string, args ...string) *process {
	s.t.Helper()
	return s.startCommand(s.command(name, args...))
}

// startCommand starts a command, which ends when the test does.
func (s *site) startCommand(cmd *exec.Cmd) *process {
	s.t.Helper()
	p := &process{s.t, cmd, s.output(), s.output(), make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.stdout.File
	}
	cmd.Stderr = p.stderr.File
	err := cmd.Start()
	p.stdout.Close()
	p.stderr.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.done
		if text := p.stderr.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
			s.t.Errorf("%v:\n%s", cmd.Args, text)
		} else if s.t.Failed() && text != "" {
			s.t.Logf("%v: %v\n%s", cmd.Args, cmd.ProcessState, text)
		}
	})
	return p
}

// wait waits for the end and returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%v does not end\n%s", p.cmd.Args, p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// terminate stops a server as supervise does, which must end well.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		p.t.Errorf("exit %d after SIGTERM\n%s", status, p.stderr.String())
	}
}

// serve starts inlookup and returns when it answers. It is terminated when the test ends, if it was not before.
func (s *site) serve(args ...string) *process {
	s.t.Helper()
	p := s.start("inlookup", args...)
	s.t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			p.terminate()
		}
	})
	s.answers(p)
	return p
}

// answers waits until the server answers a question that needs no database and
// that no statistics count. One client waits: one that gave up would be counted.
func (s *site) answers(p *process) {
	s.t.Helper()
	c := s.client()
	eventually(s.t, "the server answers", func() bool {
		select {
		case <-p.done:
			s.t.Fatalf("the server ended: %v\n%s", p.cmd.ProcessState, p.stderr.String())
		default:
		}
		_, err := c.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeExplain})
		return err == nil
	})
}

// eventually waits until so is true.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	within(t, patience, what, so)
}

func within(t testing.TB, limit time.Duration, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exists reports whether there is something at path.
func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// resolver returns a MySQL that asks directly by the site's environment.
func (s *site) resolver() *inlookup.MySQL {
	mysql := &inlookup.MySQL{Getenv: s.getenv}
	s.t.Cleanup(func() { mysql.Close() })
	return mysql
}

// A lookup is MySQL in the test's own process, with what it logs.
type lookup struct {
	inlookup.Directory
	mysql *inlookup.MySQL
	log   *lines
}

// lookup returns one for the site, to the end of the test.
func (s *site) lookup() *lookup {
	l := &lines{}
	m := &inlookup.MySQL{Getenv: s.getenv, Log: log.New(l, "", 0)}
	s.t.Cleanup(func() { m.Close() })
	return &lookup{inlookup.Directory{Resolver: m}, m, l}
}

// lines is a log that several goroutines can write to.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// short is the Client of a question that may fail. It is its own, so that a
// test needs nothing of Client but Resolve.
func (s *site) short(timeout time.Duration) *inlookup.Client {
	return &inlookup.Client{Getenv: s.getenv, Timeout: timeout}
}

// configure writes settings to a site: a name in capitals is a variable, any other a control file.
func (s *site) configure(settings map[string]string, fill *strings.Replacer) {
	s.t.Helper()
	for name, value := range settings {
		value = fill.Replace(value)
		if name == strings.ToUpper(name) {
			s.env[name] = value
		} else {
			s.control(name, value)
		}
	}
}

type settings = map[string]string

// nobody is a user without rights.
const nobody = 65534

// asNobody has commands of s run without rights, and lets them get at what they need.
func (s *site) asNobody() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		testmain.Skip(s.t, "only root can start a command as another user")
	}
	for _, dir := range []string{bin, s.dir, filepath.Dir(s.dir)} { // the last one is the test's own, too
		if err := os.Chmod(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.give("control", nobody)
	s.give("users", nobody)
	s.give("tmp", nobody) // the reply FIFOs of callers get its group
	s.foreign = true
}

// give gives a directory of the site to a user, and to what is made in it the group of the same number.
func (s *site) give(name string, uid int) (path string) {
	s.t.Helper()
	path = filepath.Join(s.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o777|os.ModeSticky|os.ModeSetgid)); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// commandAs returns a command with that user and those groups, the first of which is the user's own.
func (s *site) commandAs(uid int, groups []uint32, name string, args ...string) *process {
	s.t.Helper()
	cmd := s.command(name, args...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: groups[0], Groups: groups[1:]}
	return s.startCommand(cmd)
}

// startLines returns what the server has logged when it has said what it serves.
func (p *process) startLines() string {
	p.t.Helper()
	eventually(p.t, "the line of the start", func() bool {
		return strings.Contains(p.stderr.String(), " serves ")
	})
	return p.stderr.String()
}

// The accounts. No user has the number of its group.
const (
	indimailUser, indimailGroup = 60101, 60102
	qmaildUser, qmailGroup      = 60103, 60104
	clientUser, clientGroup     = 60105, 60106

	passwdFile = "root:x:0:0:root:/root:/bin/sh\n" +
		"indimail:x:60101:60102:IndiMail:/nonexistent:/bin/false\n" +
		"qmaild:x:60103:60104:qmail:/nonexistent:/bin/false\n" +
		"client:x:60105:60106:A mail program:/nonexistent:/bin/false\n"
	groupFile = "root:x:0:\nindimail:x:60102:\nqmail:x:60104:\nclients:x:60106:\nqcerts:x:60107:\n"
)

// accounts has the site's commands that run in a namespace see these accounts. It needs root.
func (s *site) accounts() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		testmain.Skip(s.t, "only root can lay other accounts over /etc/passwd")
	}
	testmain.Need(s.t, "util-linux mount", "unshare", "mount", "setpriv")
	for name, text := range map[string]string{"passwd": passwdFile, "group": groupFile} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, dir := range []string{bin, s.dir, filepath.Dir(s.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Chmod(s.env["FIFOTMPDIR"], 0o777|os.ModeSticky); err != nil {
		s.t.Fatal(err)
	}
	if status, _, stderr := s.runCommand(s.namespace("", "true")); status != 0 {
		testmain.Skip(s.t, "no mount namespace here:", stderr)
	}
}

// namespace returns a command that runs where the accounts are. The preparation is shell commands
// that come before it.
func (s *site) namespace(preparation, name string, args ...string) *exec.Cmd {
	script := "mount --bind " + s.dir + "/passwd /etc/passwd\n" +
		"mount --bind " + s.dir + "/group /etc/group\n" + preparation + "\n" + `exec "$@"`
	if name == "inlookup" || name == "inquerytest" {
		name = filepath.Join(bin, name)
	}
	return s.command("unshare", append([]string{"-m", "/bin/sh", "-ec", script, "sh", name},
		args...)...)
}

// namespaceAs returns a command that runs there as a user with these groups, the first its own.
func (s *site) namespaceAs(uid int, groups []int, name string, args ...string) *exec.Cmd {
	if name == "inlookup" || name == "inquerytest" {
		name = filepath.Join(bin, name)
	}
	var list []string
	for _, group := range groups {
		list = append(list, strconv.Itoa(group))
	}
	all := []string{"--reuid", strconv.Itoa(uid), "--regid", list[0], "--groups",
		strings.Join(list, ","), name}
	return s.namespace("", "setpriv", append(all, args...)...)
}

// installationSite returns a site with the installation's control files, its assign, and the
// directories that assign names.
func installationSite(t testing.TB, db *mariadb.DB) *site {
	t.Helper()
	s := newSite(t, nil)
	s.env["CONTROLDIR"] = mariadbtest.ControlOf(t, db, installed(t, "control"))
	domains := filepath.Join(s.dir, "domains")
	for _, domain := range []string{
		"example.com", "dist.example.net", "local.example.net", "dist2.example.net",
	} {
		if err := os.MkdirAll(filepath.Join(domains, domain), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := os.Symlink(
		filepath.Join(domains, "example.com"), filepath.Join(domains, "alias2.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	assign, err := os.ReadFile(installed(t, "assign"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(assign), "@DOMAINS@", domains)
	path := filepath.Join(s.env["ASSIGNDIR"], "assign")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// listing describes all in dir: name, mode, size, times, content.
func listing(t *testing.T, dir string) (text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		text += fmt.Sprint(e.Name(), " ", info.Mode(), " ", info.Size(), " ", st.Ino, " ", st.Nlink)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			text += fmt.Sprintf(" %v %q %v", info.ModTime(), b, err)
		}
		text += "\n"
	}
	return text
}

// ownControl gives control files to a user, and lets it get at them and at the
// shared database's socket.
func (s *site) ownControl(dir string, uid, gid int) {
	s.t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, uid, gid))
	})
	for _, dir := range []string{dir, filepath.Dir(dir), filepath.Dir(shared.db.Socket)} {
		err = errors.Join(err, os.Chmod(dir, 0o755))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
