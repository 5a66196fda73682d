package systemtest

// inlookup -t: what it says about configurations that are right and wrong, and that it changes nothing.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
)

var checkLine = regexp.MustCompile(`^(ok      |warning |wrong   ) [A-Za-z_.]+ +[^ ].*\n$`)

// check runs inlookup -t and returns its exit status and its lines.
func (s *site) check(args ...string) (status int, lines string) {
	s.t.Helper()
	status, stdout, stderr := s.run("inlookup", append([]string{"-t"}, args...)...)
	if stderr != "" {
		s.t.Errorf("stderr %q", stderr)
	}
	for line := range strings.Lines(stdout) {
		if !checkLine.MatchString(line) {
			s.t.Errorf("line %q", line)
		}
	}
	for _, passwd := range []string{"secret", "hunter2"} {
		if strings.Contains(stdout, passwd) {
			s.t.Errorf("a password is printed:\n%s", stdout)
		}
	}
	return status, stdout
}

// snapshot lists all below dir with modes, sizes and times, but for what these tests write there themselves.
func snapshot(t *testing.T, dir string) (list string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir || strings.HasPrefix(d.Name(), "output") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			list += fmt.Sprintln(path, info.Mode(), info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestCheckOfARightSite(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	before := snapshot(t, s.dir) + snapshot(t, s.env["CONTROLDIR"])
	status, lines := s.check()
	if status != 0 || strings.Contains(lines, "\nwrong") {
		t.Errorf("exit %d\n%s", status, lines)
	}
	for _, want := range []string{"ok       mcdinfo ", "ok       assign       absent", "users, ", "relay, ", "aliases, ", "limits, ",
		"alias domains, ", "distributed users, ", "ports, ", "is absent: the server will make it"} {
		if !strings.Contains(lines, want) {
			t.Errorf("not there: %s\n%s", want, lines)
		}
	}
	if after := snapshot(t, s.dir) + snapshot(t, s.env["CONTROLDIR"]); after != before {
		t.Errorf("it changed something: before\n%s\nafter\n%s", before, after)
	}
}

// Beside a live server: it is named, and does not notice.
func TestCheckBesideAServer(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	before := snapshot(t, s.env["INFIFODIR"])
	status, lines := s.check("-i", "3")
	if before != snapshot(t, s.env["INFIFODIR"]) || status != 0 || !strings.Contains(lines, s.fifo("infifo.3")+" is absent") {
		t.Errorf("exit %d\n%s", status, lines)
	}
	if want := fmt.Sprintf("process %d (inlookup) serves it", p.cmd.Process.Pid); exists("/proc/locks") && strings.Count(lines, want) != 2 {
		t.Errorf("not twice: %s\n%s", want, lines)
	}
	if a, err := s.ask("infifo.2", inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}); a.Code() != 3 || err != nil {
		t.Errorf("the server: %x, %v", a, err)
	}
	p.cmd.Process.Kill()
	<-p.done
	if status, lines = s.check("-i", "2"); status != 0 || strings.Count(lines, "no Go server holds it") != 2 {
		t.Errorf("after kill -9: exit %d\n%s", status, lines)
	}
}

// A checkTest is a site that is not as it should be, or is though it may not look so.
type checkTest struct {
	name    string
	prepare func(*site)
	status  int    // -1: 100 or 111
	want    string // a regular expression for exactly one line
}

// variable sets a variable of the environment.
func variable(name, value string) func(*site) {
	return func(s *site) { s.env[name] = value }
}

// controlFile writes a control file with a mode.
func controlFile(name, text string, mode os.FileMode) func(*site) {
	return func(s *site) {
		s.control(name, text)
		if err := os.Chmod(filepath.Join(s.env["CONTROLDIR"], name), mode); err != nil {
			s.t.Fatal(err)
		}
	}
}

// fifoDirectory makes the directory of the request FIFOs with a mode, and in it what make makes.
func fifoDirectory(mode os.FileMode, make func(path string) error) func(*site) {
	return func(s *site) {
		dir := s.env["INFIFODIR"]
		err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, mode), make(s.fifo("infifo")))
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// checks runs inlookup -t at a site for each test. A subject other than database has one line.
func checks(t *testing.T, tests []checkTest) {
	t.Helper()
	db := database(t)
	for _, test := range tests {
		s := newSite(t, db)
		test.prepare(s)
		before := snapshot(t, s.dir)
		status, lines := s.check()
		either := test.status < 0 && (status == 100 || status == 111)
		if status != test.status && !either {
			t.Errorf("%s: exit %d, want %d\n%s", test.name, status, test.status, lines)
		}
		found := regexp.MustCompile("(?m)^"+test.want).FindAllString(lines, -1)
		if len(found) != 1 {
			t.Errorf("%s: %d times %s\n%s", test.name, len(found), test.want, lines)
			continue
		}
		subject := strings.Fields(found[0])[1]
		if subject != "database" && strings.Count(lines, " "+subject+" ") != 1 {
			t.Errorf("%s: not one line about %s\n%s", test.name, subject, lines)
		}
		if snapshot(t, s.dir) != before {
			t.Errorf("%s: it changed something", test.name)
		}
	}
}

const checkEntry = "domain example.com 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport 1\nuse_ssl 0\n" +
	"database indimail\nuser indimail\npass hunter2\n"

func TestCheckReadableFiles(t *testing.T) {
	t.Parallel()
	const advice = `: holds a password and everyone can read it: chgrp indimail \S+ && chmod 640 /`
	checks(t, []checkTest{
		{"host.mysql", controlFile("host.mysql", "localhost:indimail:secret\n", 0o644), 0,
			`warning +host.mysql +/\S+/host.mysql` + advice + `\S+/host.mysql$`},
		{"without a password", controlFile("host.mysql", "# localhost\nlocalhost\n", 0o644), 0,
			`warning +host.mysql .*` + advice},
		{"host.cntrl", controlFile("host.cntrl", "localhost:indimail:hunter2\n", 0o604), 100,
			`warning +host.cntrl .*` + advice},
		{"mcdinfo", controlFile("mcdinfo", checkEntry, 0o644), 111, `warning +mcdinfo .*` + advice},
		{"by its group", controlFile("host.mysql", "localhost:indimail:secret\n", 0o640), 0,
			`ok +host.mysql .*mode 0640$`},
		{"hostip", controlFile("hostip", "192.0.2.1\n", 0o644), 0, `ok +hostip .*mode 0644$`},
	})
}

func TestCheckFiles(t *testing.T) {
	t.Parallel()
	checks(t, []checkTest{
		{"smtproutes without a colon", controlFile("smtproutes", "example.com\n", 0o644), 0,
			`ok +smtproutes `},
		{"a blank in host.mysql", controlFile("host.mysql", "local host:indimail:hunter2\n", 0o600), 100,
			`wrong +host.mysql +/.*/host.mysql:1: want host:`},
		{"no port in host.mysql", controlFile("host.mysql", "localhost:indimail:hunter2:x\n", 0o600), 100,
			`warning +host.mysql +/.*/host.mysql:1: want a port`},
		{"no CONTROLDIR", variable("CONTROLDIR", "/nowhere"), 0,
			`warning +CONTROLDIR .*/nowhere.*no such file`},
		{"short timeoutread", controlFile("timeoutread", "3\n", 0o644), 0,
			`warning +timeoutread .*3 s.*want at least 4`},
		{"long timeoutread", controlFile("timeoutread", "4\n", 0o644), 0, `ok +timeoutread `},
		{"no timeoutread", controlFile("timeoutread", "0\n", 0o644), 0,
			`warning +timeoutread +/.*/timeoutread:1: want seconds`},
		{"words in timeoutread", controlFile("timeoutread", "hunter2\n", 0o644), 0,
			`warning +timeoutread +/.*/timeoutread:1: want seconds`},
		{"words behind timeoutread", controlFile("timeoutread", "5 seconds\n", 0o644), 0,
			`ok +timeoutread +/.*/timeoutread, mode`},
		{"a directory as timeoutread", func(s *site) {
			if err := os.Mkdir(filepath.Join(s.env["CONTROLDIR"], "timeoutread"), 0o755); err != nil {
				s.t.Fatal(err)
			}
		}, 0, `warning +timeoutread .*directory: 4 seconds are used`},
	})
}

func TestCheckVariables(t *testing.T) {
	t.Parallel()
	checks(t, []checkTest{
		{"wrong variable", variable("RELAY_CLEAR_MINUTES", "hunter2"), 0,
			`warning +environment +RELAY_CLEAR_MINUTES: want a number; it counts as 30$`},
		{"wrong host", variable("MYSQL_HOST", "db hunter2"), 100,
			`wrong +environment +MYSQL_HOST: want host:`},
		{"then nothing is asked", variable("MYSQL_HOST", "db hunter2"), 100,
			`warning +database +not asked`},
		{"wrong cache", variable("CACHE_TTL", "hunter2"), 0, `warning +cache +CACHE_TTL: want seconds`},
		{"FIFO_MODE in words", variable("FIFO_MODE", "hunter2"), 0,
			`warning +FIFO_MODE +want an octal mode: 0660 is used`},
		{"FIFO_MODE 0444", variable("FIFO_MODE", "0444"), 100, `wrong +FIFO_MODE +0444: .*want 0660`},
		{"FIFO_MODE 0", variable("FIFO_MODE", "0"), 100, `wrong +FIFO_MODE +0000: .*want 0660`},
		{"no directory of control files", variable("CONTROLDIR", "/nowhere/control"), 0,
			`warning +CONTROLDIR +stat /nowhere/control: .*set it to the directory of the control files`},
		{"no directory of assign", variable("ASSIGNDIR", "/nowhere/users"), 0,
			`warning +ASSIGNDIR +stat /nowhere/users: .*set it to the directory of the file assign`},
		{"no cache", variable("USE_BTREE", "0"), 0, `ok +cache +none`},
		{"FIFO_MODE for all", variable("FIFO_MODE", "666"), 0, `warning +FIFO_MODE +0666: everyone`},
		{"FIFO_MODE for none", variable("FIFO_MODE", "060"), 100, `wrong +FIFO_MODE +0060: .*want 0660`},
		{"REPLYDIR relative", variable("REPLYDIR", "tmp"), 100, `wrong +environment +REPLYDIR: want an absolute`},
		{"REPLYDIR missing", variable("REPLYDIR", "/nowhere/"), 100,
			`wrong +REPLYDIR .*no such file.*no client will get an answer`},
		{"REPLYDIR right", func(s *site) { s.env["REPLYDIR"] = s.env["FIFOTMPDIR"] }, 0,
			`ok +REPLYDIR +/`},
		{"REPLYDIR not set", variable("REPLYDIR", ""), 0,
			`warning +REPLYDIR +not set: anyone who can ask can stop the answers`},
	})
	s := newSite(t, nil)
	for _, args := range [][]string{{"-t", "-demo"}, {"-demo=serve", "-t"}, {"-t", "extra"}} {
		status, stdout, stderr := s.run("inlookup", args...)
		if status != 100 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
}

func TestCheckDatabases(t *testing.T) {
	t.Parallel()
	away := variable("MYSQL_SOCKET", "/nowhere")
	checks(t, []checkTest{
		{"no such table", variable("MYSQL_TABLE", "nosuch"), 100,
			`wrong +database +indimail on localhost: users, .*nosuch.*fix its name in MYSQL_TABLE`},
		{"a table that can be missing", variable("RELAY_TABLE", "nosuch"), 0,
			`warning +database +indimail on localhost: relay, .*: table nosuch is missing, or the ` +
				`account has no right on it: it counts as empty; if it is there, GRANT SELECT on it`},
		{"no such column", variable("MYSQL_TABLE", "valias"), 100,
			`wrong +database +indimail on localhost: users, .*add the column`},
		{"wrong password", variable("MYSQL_PASSWD", "hunter2"), 100,
			`wrong +database .*access denied to the default user: fix user or password there .*MYSQL_PASSWD`},
		{"no such database", variable("MYSQL_DATABASE", "nosuch"), 100,
			`wrong +database +nosuch on localhost: connecting, .*([Aa]ccess denied|Unknown database)`},
		// A machine without DNS cannot tell.
		{"no such host", variable("MYSQL_HOST", "nosuch.invalid"), 111,
			`wrong +database +indimail on nosuch.invalid: connecting, `},
		{"database away", away, 111,
			`wrong +database +indimail on localhost: connecting, .*/nowhere.*is MySQL running there`},
		{"database of a store away", controlFile("mcdinfo", checkEntry, 0o600), 111,
			`wrong +database +indimail on 127.0.0.1: connecting, .*is MySQL running there`},
		{"away, and wrong besides", func(s *site) { away(s); s.env["FIFO_MODE"] = "0" }, 100,
			`wrong +FIFO_MODE +0000`},
		{"wrong besides, and away", func(s *site) { away(s); s.env["REPLYDIR"] = "x" }, 100,
			`wrong +database .*/nowhere`},
	})
}

func TestCheckFIFOs(t *testing.T) {
	t.Parallel()
	nothing := func(string) error { return nil }
	file := func(path string) error { return os.WriteFile(path, nil, 0o666) }
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	below := func(path string) func(*site) {
		return func(s *site) {
			s.control("file", "")
			s.env["INFIFODIR"] = s.env["CONTROLDIR"] + path
		}
	}
	checks(t, []checkTest{
		{"directory is a file", below("/file"), 100, `wrong +directory .*/file: not a directory`},
		{"directory below a file", below("/file/d"), 100, `wrong +directory .*/file/d.*not a directory`},
		{"directory for all", fifoDirectory(0o777, nothing), 0,
			`warning +directory .*mode 0777: anyone can put another FIFO`},
		{"a right directory", fifoDirectory(0o775, nothing), 0,
			`ok +directory .*owner \S+ \(uid \d+\), mode 0775$`},
		{"a file in the way", fifoDirectory(0o775, file), 100,
			`wrong +FIFO .*/infifo: it is no FIFO: move it away`},
		{"a FIFO of another mode", fifoDirectory(0o775, fifo), 0,
			`warning +FIFO .*mode 0600: no Go server holds it, and the server will change its mode to 0660`},
	})
	if os.Geteuid() != 0 {
		return // nobody else can make a FIFO of another user
	}
	foreign := func(path string) error {
		return errors.Join(syscall.Mkfifo(path, 0o660), os.Chmod(path, 0o660), os.Lchown(path, nobody, nobody))
	}
	checks(t, []checkTest{
		{"a FIFO of another user", fifoDirectory(0o775, foreign), 0,
			`warning +FIFO .*/infifo, owner .*\(uid ` + strconv.Itoa(nobody) + `\), mode 0660: unless this is the server's user`},
	})
}

// With the rights of the server's user: what root may do does not count.
func TestCheckRights(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.asNobody()
	s.env["INFIFODIR"] = filepath.Join(s.dir, "missing", "run")
	s.env["MYSQL_SOCKET"] = s.dir + "/none"
	expect := func(status int, wants ...string) {
		t.Helper()
		p := s.commandAs(nobody, []uint32{nobody}, "inlookup", "-t")
		if got := p.wait(); got != status {
			t.Errorf("exit %d, want %d", got, status)
		}
		for _, want := range append(wants, `ok +user .*\(uid `+strconv.Itoa(nobody)+`\)`) {
			if !regexp.MustCompile("(?m)^" + want).MatchString(p.stdout.String()) {
				t.Errorf("not there: %s\n%s", want, p.stdout.String())
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect(100, `wrong +directory .*missing/run is absent and cannot be made in `+s.dir+`: permission denied`)
	must(os.MkdirAll(s.env["INFIFODIR"], 0o755))
	expect(100, `wrong +directory .*owner root \(uid 0\), mode 0755: the server cannot make a FIFO in it`)
	must(os.Chown(s.env["INFIFODIR"], nobody, nobody))
	expect(111, `ok +directory .*mode 0755`, `ok +FIFO .* is absent`)
	must(syscall.Mkfifo(s.fifo("infifo"), 0o660))
	expect(100, `wrong +FIFO .*owner root.*the server cannot open it: remove it`)
	must(os.Chmod(s.fifo("infifo"), 0o666)) // it can be opened, and its mode cannot be changed
	expect(111, `warning +FIFO .*owner root.*no Go server holds it, and the server cannot change its mode to 0660`)
	must(os.Chown(s.fifo("infifo"), nobody, nobody))
	expect(111, `warning +FIFO .*will change its mode to 0660`)
	s.control("mcdinfo", "192.0.2.1\n") // root's, mode 0600
	expect(100, `wrong +mcdinfo .*permission denied`)

	// The server itself says who may not.
	p := s.commandAs(nobody, []uint32{nobody}, "inlookup")
	if status, want := p.wait(), regexp.MustCompile(`mcdinfo: permission denied to .*uid `+strconv.Itoa(nobody)+`.*inlookup -t`); status != 111 || !want.MatchString(p.stderr.String()) {
		t.Errorf("exit %d, %q", status, p.stderr.String())
	}
}
