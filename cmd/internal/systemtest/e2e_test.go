package systemtest

// The tests of this directory run the built commands, ours and inquerytest, over real FIFOs against a private
// MariaDB. This file holds what they share: a site is an installation with an environment of its own, a process is a
// command that runs there, a reply is the reply FIFO of a client that behaves as the C programs do.
//
// Nothing here sleeps for luck: whatever takes time is asked for again until it is so, or until a deadline says that
// it never will be. Tests that count what MariaDB was asked run one after the other; those that mostly wait are
// parallel, which with Go's testing means after all the others.

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
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

const patience = 20 * time.Second // for what must happen at some time

var bin string // directory of the built commands

// operations says that the tests of operations run too, by the build tag ops.
var operations bool

func TestMain(m *testing.M) {
	time.Local = time.UTC // as the golden transcripts were made
	parallel := 6
	if raceEnabled { // everything takes some ten times as long, and clients do not wait longer
		parallel = 0
	}
	os.Exit(testmain.Run(m, parallel, setUp))
}

// setUp builds the commands, and returns what ends the shared MariaDB.
func setUp() (tearDown func(), err error) {
	if bin, err = os.MkdirTemp("", "bin"); err != nil {
		return nil, err
	}
	args := []string{"build", "-ldflags=-w", "-o", bin} // without DWARF: half the time to link
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../inlookup", "../../inquerytest")...)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %v\n%s", build, err, out)
	}
	return shared.stop, nil
}

// shared is the MariaDB of all tests that neither stop it nor change golden rows for good.
var shared sharedDB

type sharedDB struct {
	once sync.Once
	dir  string
	db   *mariadb.DB
	err  error
}

func (s *sharedDB) start(golden string) {
	if s.dir, s.err = os.MkdirTemp("", "inlookup"); s.err != nil {
		return
	}
	s.db, s.err = mariadb.StartWith(context.Background(), s.dir, mariadbtest.Small...)
	if s.err != nil {
		return
	}
	s.err = errors.Join(s.db.Exec(mariadb.Schema), s.db.Load(filepath.Join(golden, "data.sql")))
}

func (s *sharedDB) stop() {
	if s.db != nil {
		s.db.Stop()
	}
}

// database returns the shared MariaDB with the golden rows.
func database(t testing.TB) *mariadb.DB {
	t.Helper()
	golden := mariadbtest.Golden(t)
	shared.once.Do(func() { shared.start(golden) })
	if errors.Is(shared.err, mariadb.ErrNotInstalled) {
		testmain.Missing(t, shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.db
}

// A counter reads MariaDB's counters of what it was sent, over one connection of its own.
type counter struct {
	t    testing.TB
	conn *sql.Conn
}

func newCounter(t testing.TB, db *mariadb.DB) *counter {
	t.Helper()
	conn, err := db.SQL().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &counter{t, conn}
}

func (c *counter) read(name string) (n int) {
	c.t.Helper()
	if err := c.conn.QueryRowContext(c.t.Context(), "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(new(string), &n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// selects returns how many SELECTs MariaDB has executed. Its own query is a SHOW, which is none.
func (c *counter) selects() int { return c.read("Com_select") }

// questions returns how many statements of any kind it has executed, its own query not counted.
func (c *counter) questions() func() int {
	first := c.read("Questions")
	return func() int { return c.read("Questions") - first - 1 }
}

// mustExec changes rows, and changes them back when the test ends.
func mustExec(t testing.TB, db *mariadb.DB, script, undo string) {
	t.Helper()
	if err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
	if undo != "" {
		t.Cleanup(func() {
			if err := db.Exec(undo); err != nil {
				t.Error(err)
			}
		})
	}
}

// addUser adds name@domain with that password.
func addUser(t testing.TB, db *mariadb.DB, name, domain, passwd string) {
	t.Helper()
	if _, err := db.SQL().Exec("INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)"+
		" VALUES (?,?,?,1,0,'A User','/home/mail/user','NOQUOTA')", name, domain, passwd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.SQL().Exec("DELETE FROM indimail WHERE pw_name=? AND pw_domain=?", name, domain) })
}

func setPasswd(t testing.TB, db *mariadb.DB, name, domain, passwd string) {
	t.Helper()
	if _, err := db.SQL().Exec("UPDATE indimail SET pw_passwd=? WHERE pw_name=? AND pw_domain=?", passwd, name, domain); err != nil {
		t.Fatal(err)
	}
}

// lastLogin has user@example.com log in.
func lastLogin(t testing.TB, db *mariadb.DB) {
	t.Helper()
	mustExec(t, db, "INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos) VALUES "+
		"('user','example.com','imap','192.0.2.10',1,'')", "DELETE FROM lastauth")
}

// readSources reads the directories of what setUp built. go test gives an old
// result again while nothing changed that a test read.
var readSources = sync.OnceFunc(func() {
	for _, dir := range []string{"../../inlookup", "../../inquerytest", "../build"} {
		os.ReadDir(dir)
	}
})

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

// client returns a client of the site's server, to the end of the test.
func (s *site) client() *inlookup.Client {
	c := &inlookup.Client{Getenv: s.getenv}
	return c
}

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

// dieWithParent has a child killed when these tests end without their cleanup; nil where that cannot be had.
var dieWithParent func(*syscall.SysProcAttr)

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

// answers waits until the server answers a question that needs no database and that no statistics count.
func (s *site) answers(p *process) {
	s.t.Helper()
	c := &inlookup.Client{Getenv: s.getenv, Timeout: time.Second}
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

// A reply is the reply FIFO of a client that does as the C programs do: open to read alone, without waiting.
type reply struct {
	path string
	fd   int
}

var replyNumber struct {
	sync.Mutex
	n int
}

// newReply makes one in dir, to the end of the test.
func newReply(t testing.TB, dir string) *reply {
	t.Helper()
	replyNumber.Lock()
	replyNumber.n++
	r := &reply{path: filepath.Join(dir, strconv.Itoa(replyNumber.n))}
	replyNumber.Unlock()
	if err := makeFIFO(r.path); err != nil {
		t.Fatal(&fs.PathError{Op: "mkfifo", Path: r.path, Err: err})
	}
	var err error
	if r.fd, err = syscall.Open(r.path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0); err != nil {
		t.Fatal(&fs.PathError{Op: "open", Path: r.path, Err: err})
	}
	t.Cleanup(func() { syscall.Close(r.fd) })
	return r
}

var errNoAnswer = errors.New("no answer")

// read returns all that comes until the server closes the FIFO.
func (r *reply) read(limit time.Duration) (answer []byte, err error) {
	deadline := time.Now().Add(limit)
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.Read(r.fd, buf)
		switch {
		case n > 0:
			answer = append(answer, buf[:n]...)
		case n == 0 && len(answer) > 0:
			return answer, nil
		case err != nil && err != syscall.EAGAIN && err != syscall.EINTR:
			return answer, err
		case time.Now().After(deadline):
			return answer, errNoAnswer
		default:
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// drain returns what is there now, and whether a writer has it open.
func (r *reply) drain() (got []byte, open bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.Read(r.fd, buf)
		if n <= 0 {
			return got, err == syscall.EAGAIN
		}
		got = append(got, buf[:n]...)
	}
}

// frame returns a request as the C programs write it.
func frame(typ inlookup.Type, email, reply, ip string) []byte {
	body := fmt.Appendf([]byte{byte(typ), 0}, "%s\x00%s\x00%s\x00", email, reply, ip)
	return append(binary.NativeEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// send writes b into the request FIFO at path, with one write.
func send(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Write(b); err != nil || n != len(b) {
		t.Fatalf("%d of %d bytes written: %v", n, len(b), err)
	}
}

// ask asks over the request FIFO of that name as a C client does.
func (s *site) ask(name string, q inlookup.Query) (inlookup.Answer, error) {
	s.t.Helper()
	r := newReply(s.t, s.env["FIFOTMPDIR"])
	defer os.Remove(r.path)
	send(s.t, s.fifo(name), frame(q.Type, q.Email, r.path, q.IP))
	b, err := r.read(4 * time.Second)
	return inlookup.WireAnswer(string(b)), err
}

// exists reports whether there is something at path.
func exists(path string) bool { _, err := os.Lstat(path); return err == nil }
