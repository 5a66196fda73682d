package main_test

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

func TestCheckRight(t *testing.T) {
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
func TestCheckLive(t *testing.T) {
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
	if status, lines = s.check("-i", "2"); status != 0 || strings.Count(lines, "nobody serves it") != 2 {
		t.Errorf("after kill -9: exit %d\n%s", status, lines)
	}
}

func TestCheckWrong(t *testing.T) {
	t.Parallel()
	db := database(t)
	const entry = "domain example.com 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport 1\nuse_ssl 0\ndatabase indimail\nuser indimail\npass hunter2\n"
	set := func(name, value string) func(*site) { return func(s *site) { s.env[name] = value } }
	file := func(name, text string, mode os.FileMode) func(*site) {
		return func(s *site) {
			s.control(name, text)
			if err := os.Chmod(filepath.Join(s.env["CONTROLDIR"], name), mode); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	fifodir := func(mode os.FileMode, make func(path string) error) func(*site) {
		return func(s *site) {
			for _, err := range []error{os.Mkdir(s.env["INFIFODIR"], 0o755), os.Chmod(s.env["INFIFODIR"], mode), make(s.fifo("infifo"))} {
				if err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	nothing := func(string) error { return nil }
	for name, test := range map[string]struct {
		prepare func(*site)
		status  int
		want    string // a regular expression for one line
	}{
		"readable host.mysql":      {file("host.mysql", "localhost:indimail:hunter2\n", 0o644), 100, `wrong +host.mysql .*mode 0644, holds a password and is readable by all: chmod o-r /`},
		"readable, no password":    {file("host.mysql", "# localhost\nlocalhost:indimail\n", 0o644), 0, `ok +host.mysql .*mode 0644$`},
		"readable host.cntrl":      {file("host.cntrl", "localhost:indimail:hunter2\n", 0o604), 100, `wrong +host.cntrl .*readable by all`},
		"readable mcdinfo":         {file("mcdinfo", entry, 0o644), 100, `wrong +mcdinfo .*readable by all`},
		"group may read":           {file("host.mysql", "localhost:indimail:hunter2\n", 0o640), 0, `ok +host.mysql .*mode 0640$`},
		"malformed mcdinfo":        {file("mcdinfo", "domain example.com 0\n\nfarce hunter2\n", 0o600), 100, `wrong +mcdinfo +/.*/mcdinfo:3: want`},
		"then nothing is asked":    {file("mcdinfo", "domain example.com 2\n", 0o600), 100, `warning +database +not asked`},
		"malformed assign":         {file("../users/assign", "+example.com\n", 0o644), 100, `wrong +assign +/.*/assign:1: `},
		"malformed smtproutes":     {file("smtproutes", "example.com\n", 0o644), 100, `wrong +smtproutes +/.*/smtproutes:1: `},
		"no CONTROLDIR":            {set("CONTROLDIR", "/nowhere"), 0, `warning +CONTROLDIR .*/nowhere.*no such file`},
		"wrong variable":           {set("RELAY_CLEAR_MINUTES", "half"), 100, `wrong +environment +RELAY_CLEAR_MINUTES: .*half`},
		"wrong cache":              {set("CACHE_TTL", "soon"), 100, `wrong +cache +CACHE_TTL: .*soon`},
		"no cache":                 {set("USE_BTREE", "0"), 0, `ok +cache +none`},
		"short timeoutread":        {file("timeoutread", "3\n", 0o644), 0, `warning +timeoutread .*3 s.*want 4 at least`},
		"long timeoutread":         {file("timeoutread", "4\n", 0o644), 0, `ok +timeoutread `},
		"no timeoutread":           {file("timeoutread", "0\n", 0o644), 100, `wrong +timeoutread +/.*/timeoutread:1: want seconds`},
		"no such table":            {set("RELAY_TABLE", "nosuch"), 100, `wrong +database +indimail on localhost: relay, .*nosuch.*put its name right in .*RELAY_TABLE`},
		"no such column":           {set("MYSQL_TABLE", "valias"), 100, `wrong +database +indimail on localhost: users, .*add the column`},
		"wrong password":           {set("MYSQL_PASSWD", "hunter2"), 100, `wrong +database .*Access denied.*MYSQL_PASSWD`},
		"no such database":         {set("MYSQL_DATABASE", "nosuch"), 100, `wrong +database +nosuch on localhost: users, .*(Access denied|Unknown database)`},
		"no such host":             {set("MYSQL_HOST", "nosuch.invalid"), -1, `wrong +database +indimail on nosuch.invalid: users, `}, // a machine without DNS cannot tell
		"database away":            {set("MYSQL_SOCKET", "/nowhere"), 111, `wrong +database +indimail on localhost: users, .*/nowhere.*is MySQL running there`},
		"database of a store away": {file("mcdinfo", entry, 0o600), 111, `wrong +database +indimail on 127.0.0.1: users, .*is MySQL running there`},
		"away, and wrong besides":  {func(s *site) { s.env["MYSQL_SOCKET"], s.env["FIFO_MODE"] = "/nowhere", "rw" }, 100, `wrong +FIFO_MODE .*"rw"`},
		"wrong besides, and away":  {func(s *site) { s.env["MYSQL_SOCKET"] = "/nowhere"; s.control("timeoutread", "x") }, 100, `wrong +database .*/nowhere`},
		"FIFO_MODE for all":        {set("FIFO_MODE", "666"), 0, `warning +FIFO_MODE +0666: everybody`},
		"FIFO_MODE for none":       {set("FIFO_MODE", "060"), 100, `wrong +FIFO_MODE +0060: .*want 0660`},
		"directory is a file":      {func(s *site) { s.control("file", ""); s.env["INFIFODIR"] = s.env["CONTROLDIR"] + "/file" }, 100, `wrong +directory .*/file: not a directory`},
		"directory below a file":   {func(s *site) { s.control("file", ""); s.env["INFIFODIR"] = s.env["CONTROLDIR"] + "/file/d" }, 100, `wrong +directory .*/file/d.*not a directory`},
		"directory for all":        {fifodir(0o777, nothing), 0, `warning +directory .*mode 0777: everybody`},
		"a right directory":        {fifodir(0o775, nothing), 0, `ok +directory .*owner \S+ \(uid \d+\), mode 0775$`},
		"a file in the way":        {fifodir(0o775, func(path string) error { return os.WriteFile(path, nil, 0o666) }), 100, `wrong +FIFO .*/infifo: is no FIFO: move it away`},
		"a FIFO of another mode":   {fifodir(0o775, func(path string) error { return syscall.Mkfifo(path, 0o600) }), 0, `warning +FIFO .*mode 0600: nobody serves it, and the server will change its mode to 0660`},
		"REPLYDIR relative":        {set("REPLYDIR", "tmp"), 100, `wrong +REPLYDIR +tmp: want a path`},
		"REPLYDIR missing":         {set("REPLYDIR", "/nowhere/"), 100, `wrong +REPLYDIR .*no such file.*no client will get an answer`},
		"REPLYDIR right":           {func(s *site) { s.env["REPLYDIR"] = s.env["FIFOTMPDIR"] }, 0, `ok +REPLYDIR +/`},
	} {
		s := newSite(t, db)
		test.prepare(s)
		before := snapshot(t, s.dir)
		status, lines := s.check()
		want := regexp.MustCompile("(?m)^" + test.want)
		if status != test.status && (test.status >= 0 || status != 100 && status != 111) || len(want.FindAllString(lines, -1)) != 1 {
			t.Errorf("%s: exit %d, want %d and once %s\n%s", name, status, test.status, want, lines)
		}
		if subject := strings.Fields(want.FindString(lines) + " - -")[1]; subject != "database" && strings.Count(lines, " "+subject+" ") != 1 {
			t.Errorf("%s: not one line about %s\n%s", name, subject, lines)
		}
		if snapshot(t, s.dir) != before {
			t.Errorf("%s: it changed something", name)
		}
	}
	s := newSite(t, nil)
	for _, args := range [][]string{{"-t", "-demo"}, {"-demo=serve", "-t"}, {"-t", "extra"}} {
		if status, stdout, stderr := s.run("inlookup", args...); status != 100 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
}

// nobody is a user without rights.
const nobody = 65534

// asNobody has commands of s run without rights, and lets them get at what they need.
func (s *site) asNobody() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("SKIP: only root can start a command as another user")
	}
	for _, dir := range []string{bin, s.dir, filepath.Dir(s.dir)} { // the last one is the test's own, too
		if err := os.Chmod(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.give("control", nobody)
	s.give("users", nobody)
	s.give("tmp", nobody) // root's reply FIFOs get its group, else such a server could not answer them
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
	expect(100, `wrong +directory .*missing/run is absent and may not be made in `+s.dir+`: permission denied`)
	must(os.MkdirAll(s.env["INFIFODIR"], 0o755))
	expect(100, `wrong +directory .*owner root \(uid 0\), mode 0755: the server may not make a FIFO in it`)
	must(os.Chown(s.env["INFIFODIR"], nobody, nobody))
	expect(111, `ok +directory .*mode 0755`, `ok +FIFO .* is absent`)
	must(syscall.Mkfifo(s.fifo("infifo"), 0o660))
	expect(100, `wrong +FIFO .*owner root.*the server may not take it over`)
	must(os.Chmod(s.fifo("infifo"), 0o666)) // it may be opened, but not given its mode
	expect(100, `wrong +FIFO .*owner root.*the server may not take it over`)
	must(os.Chown(s.fifo("infifo"), nobody, nobody))
	expect(111, `warning +FIFO .*will change its mode to 0660`)
	s.control("hostip", "192.0.2.1\n") // root's, mode 0600
	expect(100, `wrong +hostip .*permission denied`)

	// The server itself says who may not.
	p := s.commandAs(nobody, []uint32{nobody}, "inlookup")
	if status, want := p.wait(), regexp.MustCompile(`hostip: permission denied to .*uid `+strconv.Itoa(nobody)+`.*inlookup -t`); status != 111 || !want.MatchString(p.stderr.String()) {
		t.Errorf("exit %d, %q", status, p.stderr.String())
	}
}
