package systemtest

// The process: its signals, its exit status, and the FIFOs that it makes and leaves.

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// passwd asks for a password and reports errors as one.
func passwd(t testing.TB, d inlookup.Directory, email string) string {
	t.Helper()
	entry, err := d.Passwd(t.Context(), email)
	if err != nil {
		t.Errorf("%s: %v", email, err)
	}
	return entry.Passwd.Reveal()
}

func TestHangup(t *testing.T) {
	db := database(t)
	addUser(t, db, "hup", "example.com", "old")
	s := goldenSite(t, db)
	p := s.serve()
	d := s.directory()
	if got := passwd(t, d, "hup@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	setPasswd(t, db, "hup", "example.com", "new")
	if got := passwd(t, d, "hup@example.com"); got != "old" {
		t.Fatalf("password %q: this test tests nothing without a cache", got)
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the new password after SIGHUP", func() bool {
		return passwd(t, d, "hup@example.com") == "new"
	})
}

// A file that is wrong changes nothing, and is named with its line. When it is right again, all
// files are in force.
func TestHangupFaultyFile(t *testing.T) {
	db := database(t)
	addUser(t, db, "hup", "example.com", "old")
	s := goldenSite(t, db)
	p := s.serve()
	d := s.directory()
	passwd(t, d, "hup@example.com")
	setPasswd(t, db, "hup", "example.com", "new")
	right := make(map[string]string)
	for _, name := range []string{"host.mysql", "mcdinfo"} {
		text, err := os.ReadFile(filepath.Join(s.env["CONTROLDIR"], name))
		if err != nil {
			t.Fatal(err)
		}
		right[name] = string(text)
	}

	s.control("mcdinfo", strings.ReplaceAll(right["mcdinfo"], "192.0.2.25", "192.0.2.77"))
	s.control("host.mysql", "# a comment\nlocalhost:indimail:secret:a-port\n")
	p.signal(syscall.SIGHUP)
	fault := filepath.Join(s.env["CONTROLDIR"], "host.mysql") + ":2: want host:"
	eventually(t, "an error that names file and line", func() bool {
		return strings.Contains(p.stderr.String(), fault)
	})
	eventually(t, "the cache is dropped all the same", func() bool {
		return passwd(t, d, "hup@example.com") == "new"
	})
	route := func() string {
		route, err := d.Host(t.Context(), "user@example.com")
		if err != nil {
			t.Error(err)
		}
		return route
	}
	if got := route(); got != "example.com:192.0.2.25:2525" {
		t.Errorf("by the old mcdinfo: %s", got)
	}

	s.control("host.mysql", right["host.mysql"])
	p.signal(syscall.SIGHUP)
	eventually(t, "the new mcdinfo", func() bool { return route() == "example.com:192.0.2.77:2525" })
	if strings.Contains(p.stderr.String(), "secret") {
		t.Errorf("the password is in the log:\n%s", p.stderr.String())
	}
}

// An entry of mcdinfo that is incomplete keeps nothing from being in force: questions about its
// domain are errors.
func TestHangupIncompleteEntry(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve()
	c := s.client()
	path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "192.0.2.26", "192.0.2.78")
	lines := strings.Count(changed, "\n")
	s.control("mcdinfo", changed+"domain far.example.net 0\nserver 127.0.0.1\n")
	p.signal(syscall.SIGHUP)
	warning := fmt.Sprintf("warning: %s:%d: ", path, lines+1)
	eventually(t, warning, func() bool { return strings.Contains(p.stderr.String(), warning) })
	eventually(t, "its domain is an error", func() bool {
		return show(t, c, "1 user@far.example.net") == "unavailable"
	})
	// Its address has changed in mcdinfo, and not in host_table.
	all(t, c, "the new mcdinfo", map[string]string{
		"1 user@example.com":       "active",
		"1 duser@dist.example.net": "unavailable",
	})
	if strings.Contains(p.stderr.String(), "stays as it was") {
		t.Errorf("an incomplete entry is taken for an error:\n%s", p.stderr.String())
	}
}

// SIGHUP during lookups: the C server crashed at 15 of 20.
func TestHangupUnderLoad(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	asked := make([]int, 8)
	for i := range asked {
		c := s.client()
		askers.Go(func() {
			for ctx.Err() == nil {
				for _, r := range goldenRows(t) {
					if a, err := c.Resolve(context.Background(), r.query); !a.Equal(r.answer) || err != nil {
						t.Errorf("%v of %s: %x, %v", r.query.Type, r.query.Email, a, err)
					}
					asked[i]++
				}
			}
		})
	}
	for i := range 20 {
		flushed := s.counts()["cache_flushed_total"]
		p.signal([]os.Signal{syscall.SIGUSR1, syscall.SIGINT}[i%2])
		eventually(t, "a cache that holds something is dropped", func() bool {
			p.signal(syscall.SIGHUP)
			return s.counts()["cache_flushed_total"] > flushed
		})
	}
	cancel()
	askers.Wait()
	t.Logf("%d questions", asked)
}

// A signal that comes while the server starts must not end it: hooks send them whenever they like.
func TestSignalAtStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	p := s.start("inlookup", "-i", "1000")
	eventually(t, "the first of 1000 FIFOs", func() bool { return exists(s.fifo("infifo.1")) })
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2} {
		p.signal(sig)
	}
	eventually(t, "the last of 1000 FIFOs", func() bool {
		select {
		case <-p.done:
			t.Fatalf("a signal at the start: %v", p.cmd.ProcessState) // it tells which
		default:
		}
		return exists(s.fifo("infifo.1000"))
	})
	s.answers(p)
	p.terminate()
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	db := database(t)
	mustExec(t, db, "CREATE USER interrupt@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON indimail.* TO interrupt@localhost", "DROP USER interrupt@localhost")
	addUser(t, db, "int", "example.com", "old")
	s := newSite(t, db)
	s.env["MYSQL_USER"] = "interrupt"
	p := s.serve()
	d := s.directory()
	if got := passwd(t, d, "int@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	old := connections(t, db, "interrupt")
	if len(old) == 0 {
		t.Fatal("no connections")
	}
	setPasswd(t, db, "int", "example.com", "new")
	hits := s.counts()["cache_hits_total"]
	p.signal(syscall.SIGINT)
	n := 0
	eventually(t, "a new connection after SIGINT", func() bool {
		n++
		passwd(t, d, "user@example.com")
		if status, err := d.Status(t.Context(), fmt.Sprintf("fresh%d@example.com", n)); status != inlookup.StatusAbsent || err != nil {
			t.Errorf("%v, %v", status, err)
		}
		return slices.ContainsFunc(connections(t, db, "interrupt"), func(id int) bool { return !slices.Contains(old, id) })
	})
	if got := passwd(t, d, "int@example.com"); got != "old" {
		t.Errorf("password %q: the cache shall stay", got)
	}
	if now := s.counts()["cache_hits_total"]; now <= hits {
		t.Errorf("%v hits, %v before SIGINT", now, hits)
	}
	eventually(t, "the old connections are closed", func() bool {
		return !slices.ContainsFunc(connections(t, db, "interrupt"), func(id int) bool { return slices.Contains(old, id) })
	})
}

func TestStatistics(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve()
	c := s.client()
	for _, q := range []inlookup.Query{{Type: 1, Email: "user@example.com"}, {Type: 1, Email: "user@example.com"}, {Type: 1, Email: "missing@example.com"},
		{Type: 2, Email: "user@example.com", IP: "192.0.2.10"}, {Type: 3, Email: "user@example.com"}, {Type: 3, Email: "over@example.com"},
		{Type: 4, Email: "user@example.com"}, {Type: 5, Email: "alias@example.com"}, {Type: 6, Email: "example.com"}, {Type: 7, Email: "alias.example.org"},
		{Type: inlookup.TypeStatus}, {Type: inlookup.TypeExplain, Email: "user@example.com", IP: "1"}, {Type: inlookup.TypeFlush, Email: "no.example"}} {
		if _, err := c.Resolve(t.Context(), q); err != nil {
			t.Fatalf("%v: %v", q, err)
		}
	}
	const (
		first = "User:Relay:Password:Limit:Alias:Host:Domain 3 1 2 1 1 1 1 Cached Nodes 8"
		rest  = "Queries: 10\nSeconds: [0-9]+\\.[0-9]+\nQuery/Sec = [0-9]+\\.[0-9]+\n"
		stamp = "[0-9T:+Z-]+\n"
	)
	format := regexp.MustCompile("^" + first + "\nStart Time: " + stamp + "End +Time: " + stamp + rest + "$")
	p.signal(syscall.SIGUSR1)
	eventually(t, "statistics", func() bool { return strings.Contains(p.stdout.String(), "Query/Sec") })
	if got := p.stdout.String(); !format.MatchString(got) {
		t.Errorf("SIGUSR1:\n%s\nwant\n%s", got, format)
	}
	p.terminate()
	if got := p.stdout.String(); strings.Count(got, first+"\n") != 2 || !format.MatchString(got[strings.LastIndex(got, first):]) {
		t.Errorf("SIGUSR1 and SIGTERM:\n%s\nwant twice\n%s", got, format)
	}
}

// written returns all that the server has written. Lines leave in blocks, some time after they
// were made. So this asks for statistics, which come after them.
func (p *process) written() string {
	p.t.Helper()
	const last = "Query/Sec"
	before := strings.Count(p.stdout.String(), last)
	p.signal(syscall.SIGUSR1)
	eventually(p.t, "statistics", func() bool { return strings.Count(p.stdout.String(), last) > before })
	return p.stdout.String()
}

// linesOf returns the lines about one request FIFO.
func linesOf(fifo, text string) (lines string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, fifo+"->") {
			lines += line
		}
	}
	return lines
}

// askTwice asks a question of each type twice over infifo.2, and returns the debug lines for that.
func (s *site) askTwice() (want string) {
	s.t.Helper()
	names := map[inlookup.Type]string{1: "User Query", 2: "Relay Query", 3: "Password Query",
		4: "Host Query", 5: "Alias Query", 6: "Domain Limits Query", 7: "Domain Query"}
	for typ := inlookup.TypeUser; typ <= inlookup.TypeDomain; typ++ {
		for _, hit := range []bool{false, true} {
			email, ip, shown := "user@example.com", "", "N/A"
			if typ == inlookup.TypeRelay {
				ip, shown = "192.0.2.10", "192.0.2.10"
			}
			r := newReply(s.t, s.env["FIFOTMPDIR"])
			b := frame(typ, email, r.path, ip)
			send(s.t, s.fifo("infifo.2"), b)
			if _, err := r.read(patience); err != nil {
				s.t.Fatal(err)
			}
			want += fmt.Sprintf("infifo.2->%s, Bytes %d, Query ['%s'], User %s, RemoteIp %s\n",
				r.path, len(b)-4, names[typ], email, shown)
			if hit && typ != inlookup.TypeRelay {
				want += fmt.Sprintf("infifo.2->%s, cache hit\n", r.path)
			}
		}
	}
	return want
}

func TestDebugLines(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	s.askTwice()
	if got := p.written(); strings.Contains(got, "->") {
		t.Fatalf("without SIGUSR2: %q", got)
	}
	s.text(inlookup.Query{Type: inlookup.TypeFlush})
	asked := 0
	isOn := func() bool { // asks over the other FIFO
		asked++
		email := fmt.Sprintf("on%d", asked)
		s.ask("infifo.1", inlookup.Query{Type: inlookup.TypeRelay, Email: email, IP: "192.0.2.1"})
		return strings.Contains(p.written(), "User "+email+", RemoteIp 192.0.2.1\n")
	}
	p.signal(syscall.SIGUSR2)
	eventually(t, "debug lines after SIGUSR2", isOn)
	want := s.askTwice()
	if got := linesOf("infifo.2", p.written()); got != want {
		t.Errorf("debug lines\n%swant\n%s", got, want)
	}
	p.signal(syscall.SIGUSR2)
	eventually(t, "no more debug lines", func() bool { return !isOn() })
	if strings.Contains(p.stdout.String()+p.stderr.String(), "UserHash") {
		t.Error("a password hash is logged")
	}
}

// A question makes one line, whatever the client writes.
func TestDebugLineOfHostileAddress(t *testing.T) {
	s := newSite(t, nil)
	p := s.serve("-v")
	s.ask("infifo", inlookup.Query{Type: inlookup.TypeUser, Email: "x\nUser:Relay:Password\x1b[2J@example.com"})
	got := p.written()
	begin := strings.LastIndex(got, "infifo->") // behind that of the start
	if begin < 0 {
		t.Fatalf("no debug line: %q", got)
	}
	line, rest, _ := strings.Cut(got[begin:], "\n")
	if strings.Contains(line, "\x1b") || !strings.HasPrefix(rest, "User:Relay:Password:Limit:") {
		t.Errorf("debug lines %q", got)
	}
}

// What was asked before SIGTERM is answered, then the FIFOs are gone.
func TestTerminate(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	p.signal(syscall.SIGSTOP)
	rows := goldenRows(t)
	replies := make([]*reply, len(rows))
	for i, r := range rows {
		replies[i] = newReply(t, s.env["FIFOTMPDIR"])
		send(t, s.fifo([]string{"infifo.1", "infifo.2"}[i%2]), r.to(replies[i].path))
	}
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	for i, r := range rows {
		if got, err := replies[i].read(5 * time.Second); string(got) != r.answer.Wire() || err != nil {
			t.Errorf("%v of %s: %x, %v, want %x", r.query.Type, r.query.Email, got, err, r.answer)
		}
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit %d", status)
	}
	if left, err := os.ReadDir(s.env["INFIFODIR"]); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, args := range []string{"-z", "-i", "-i -c", "-i -c 3600", "-c", "-c -v", "-f", "extra", "-v extra", "--nothing", "-i 1 -- -i"} {
		status, stdout, stderr := s.run("inlookup", strings.Fields(args)...)
		if status != 100 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "inlookup: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
	for _, arg := range []string{"-h", "-help", "--help"} {
		status, stdout, stderr := s.run("inlookup", arg)
		if status != 0 || !strings.Contains(stdout, "usage: inlookup [-f infifo] [-i instances] [-c seconds] [-v]") || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", arg, status, stdout, stderr)
		}
	}
}

// What is wrong with the configuration is said at the start, with file and line.
func TestFaultyConfiguration(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, text, want string }{
		{"host.mysql", "\nlocal host:user:secret:3306\n", "host.mysql:2:"},
		{"REPLYDIR", "tmp", "REPLYDIR:"},
		{"FIFO_MODE", "0444", "FIFO_MODE: 0444: "},
		{"FIFO_MODE", "0", "FIFO_MODE: 0000: "},
		{"FIFO_MODE", "0888", "FIFO_MODE: 0000: "},
	} {
		s := newSite(t, nil)
		s.configure(settings{test.name: test.text}, strings.NewReplacer())
		s.refusesToStart(test.name+" "+test.text, test.want)
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo", "smtproutes", "../users/assign"} {
		s := newSite(t, nil)
		path := filepath.Join(s.env["CONTROLDIR"], name)
		if err := os.Mkdir(path, 0o755); err != nil { // so that root cannot read it either
			t.Fatal(err)
		}
		s.refusesToStart("unreadable "+name, path)
	}
}

// refusesToStart expects a server to end at once, with 111 and an error that says want.
func (s *site) refusesToStart(what, want string) {
	s.t.Helper()
	status, stdout, stderr := s.run("inlookup")
	said := strings.Contains(stderr, want) && !strings.Contains(stderr, "secret")
	if status != 111 || stdout != "" || !said {
		s.t.Errorf("%s: exit %d, stdout %q, stderr %q, want %s", what, status, stdout, stderr, want)
	}
	if exists(s.fifo("infifo")) {
		s.t.Errorf("%s: a FIFO is left", what)
	}
}

// A line that the C program takes, and that is of no use here, is a warning with file and line:
// the server starts.
func TestFaultyLines(t *testing.T) {
	t.Parallel()
	const entry = "domain example.com 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport 3306\nuse_ssl 0\n" +
		"database indimail\nuser indimail\n"
	const complete = entry + "pass secret\n"
	for _, test := range []struct{ name, text, want string }{
		{"mcdinfo", "server 127.0.0.1\n", "mcdinfo:1: "},
		{"mcdinfo", "# comment\n\ndomain example.com 2\n", "mcdinfo:3: "},
		{"mcdinfo", entry + "pass\n", "mcdinfo:1: "},
		{"mcdinfo", entry + "user indimail\n", "mcdinfo:8: "},
		{"mcdinfo", entry + "pass secret\ndomain example.org 0\n", "mcdinfo:9: "},
		{"mcdinfo", strings.Replace(complete, "3306", "many", 1), "mcdinfo:4: "},
		{"mcdinfo", strings.Replace(complete, "3306", "65536", 1), "mcdinfo:4: "},
		{"mcdinfo", strings.Replace(complete, "use_ssl 0", "use_ssl maybe", 1), "mcdinfo:5: "},
		{"host.mysql", "localhost:user:secret:port\n", "host.mysql:1: "},
		{"host.mysql", "localhost:user:secret:3306:tls\n", "host.mysql:1: "},
		{"host.mysql", "localhost:user:secret:3306:ssl:more\n", "host.mysql:1: "},
		{"host.cntrl", "localhost:user:secret:99999\n", "host.cntrl:1: "},
		{"host.cntrl", "# comment\nlocalhost:user:secret:3306:no\n", "host.cntrl:2: "},
		{"MYSQL_HOST", "localhost:user:secret:port", "MYSQL_HOST: "},
		{"MYSQL_VPORT", "secret", "MYSQL_VPORT: "},
		{"FIFO_MODE", "secret", "FIFO_MODE: "},
		{"CACHE_TTL", "secret", "CACHE_TTL: "},
		{"CACHE_NEGATIVE_TTL", "secret", "CACHE_NEGATIVE_TTL: "},
		{"CACHE_STALE", "25h", "CACHE_STALE: "},
		{"CACHE_SIZE", "secret", "CACHE_SIZE: "},
		{"RELAY_CLEAR_MINUTES", "secret", "RELAY_CLEAR_MINUTES: "},
		{"smtproutes", "# comment\nexample.org:192.0.2.1:smtp\n", "smtproutes:2: "},
		{"smtproutes", "example.com:192.0.2.1:65536 user secret\n", "smtproutes:1: "},
		{"qmtproutes", "example.com:192.0.2.1:-1\n", "qmtproutes:1: "},
		{"hostip", "nonsense\n", "hostip:1: "},
		{"../users/assign", "+example.com-:example.com:1:1:/home/mail:-::\n+example.org-:example.org\n.\n", "assign:2: "},
		{"MAX_BTREE_COUNT", "secret", "MAX_BTREE_COUNT: "},
		{"USE_BTREE", "secret", "USE_BTREE: "},
	} {
		s := newSite(t, nil)
		s.configure(settings{test.name: test.text}, strings.NewReplacer())
		p := s.serve()
		log := p.startLines()
		if !regexp.MustCompile(`(?m)^inlookup: warning: .*` + test.want).MatchString(log) {
			t.Errorf("%s %q: no warning of %s\n%s", test.name, test.text, test.want, log)
		}
		if strings.Contains(log, "secret") {
			t.Errorf("%s %q: the password is in the log\n%s", test.name, test.text, log)
		}
		p.terminate()
	}
}

// A second server on the same FIFO is refused, and the first one does not notice.
func TestHeldFIFO(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	s.serve("-i", "2")
	for _, args := range [][]string{{"-i", "2"}, {"-f", s.fifo("infifo.2")}, {"-f", "infifo.1"}} {
		status, stdout, stderr := s.run("inlookup", args...)
		if status != 111 || stdout != "" || !strings.Contains(stderr, s.fifo("infifo.")) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
	if a, err := s.ask("infifo.2", inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}); a.Code() != 3 || err != nil {
		t.Errorf("the first server: %x, %v", a, err)
	}
	file := filepath.Join(s.dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := s.run("inlookup", "-f", file)
	if text, err := os.ReadFile(file); status != 111 || !strings.Contains(stderr, file) || string(text) != "precious" || err != nil {
		t.Errorf("-f file: exit %d, stderr %q, the file %q, %v", status, stderr, text, err)
	}
}

// A client chooses among the instances evenly.
func TestInstances(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "3", "-v")
	for name, want := range map[string]bool{"infifo": false, "infifo.1": true, "infifo.2": true, "infifo.3": true, "infifo.4": false} {
		if exists(s.fifo(name)) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	d := s.directory()
	const asked = 300
	for range asked {
		if status, err := d.Status(t.Context(), "over@example.com"); status != inlookup.StatusOverQuota || err != nil {
			t.Fatalf("%v, %v", status, err)
		}
	}
	counts, total := make(map[string]int), 0
	lines := bufio.NewScanner(strings.NewReader(p.written()))
	for lines.Scan() {
		if name, _, _ := strings.Cut(lines.Text(), "->"); strings.Contains(lines.Text(), "User over@example.com") {
			counts[name]++
			total++
		}
	}
	for _, name := range []string{"infifo.1", "infifo.2", "infifo.3"} {
		if counts[name] <= 50 { // of 100: a standard deviation is 8
			t.Errorf("%d of %d questions over %s", counts[name], asked, name)
		}
	}
	if total != asked {
		t.Errorf("%d of %d questions in debug lines", total, asked)
	}
	p.terminate()
	if left, err := filepath.Glob(s.fifo("*")); left != nil || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// With one instance the FIFO is NAME alone, and clients find it.
func TestOneInstance(t *testing.T) {
	t.Parallel()
	for _, infifo := range []string{"", "name", "path"} {
		s := goldenSite(t, database(t))
		want := s.fifo("infifo")
		switch infifo {
		case "name":
			s.env["INFIFO"], want = "other", s.fifo("other")
		case "path":
			want = filepath.Join(s.dir, "far", "away", "fifo")
			s.env["INFIFO"] = want
		}
		p := s.serve("-i", "1")
		s.env["QUERY_CACHE"] = "1"
		if status, stdout, stderr := s.run("inquerytest", "-q", "1", "over@example.com"); status != 0 ||
			stdout != "over@example.com is Overquota on this domain (#5.2.2)\n" {
			t.Errorf("INFIFO=%s: exit %d, stdout %q, stderr %q", s.env["INFIFO"], status, stdout, stderr)
		}
		if !exists(want) || exists(want+".1") {
			t.Errorf("%s: %v, %s.1: %v", want, exists(want), want, exists(want+".1"))
		}
		p.terminate()
		if exists(want) {
			t.Errorf("%s is left", want)
		}
	}
}

// After kill -9 the FIFOs lie there, without a reader.
func TestRestartAfterKill(t *testing.T) {
	t.Parallel()
	for _, instances := range [][2]string{{"1", "1"}, {"3", "3"}, {"3", "2"}, {"3", "1"}, {"1", "3"}} {
		s := goldenSite(t, database(t))
		p := s.serve("-i", instances[0])
		p.cmd.Process.Kill()
		<-p.done
		if left, _ := filepath.Glob(s.fifo("*")); len(left) == 0 {
			t.Fatal("no FIFO is left: this test tests nothing")
		}
		if _, err := s.directory().Status(t.Context(), "over@example.com"); err == nil {
			t.Error("an answer from a dead server")
		}
		p = s.start("inlookup", "-i", instances[1])
		d := s.directory()
		var err error
		deadline := time.Now().Add(5 * time.Second)
		for time.Now().Before(deadline) {
			var status inlookup.Status
			if status, err = d.Status(t.Context(), "over@example.com"); err == nil {
				if status != inlookup.StatusOverQuota {
					t.Errorf("status %v", status)
				}
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("killed with -i %s, restarted with -i %s: %v", instances[0], instances[1], err)
		}
		p.terminate()
		for i := range 3 {
			if name := fmt.Sprint("infifo.", i+1); instances[0] <= instances[1] && exists(s.fifo(name)) {
				t.Errorf("%v: %s is left", instances, name)
			}
		}
	}
}

// Modes do not depend on the umask, nor on what lies there already.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		umask, mode, old string
		want             os.FileMode
	}{
		{"077", "", "", 0o660},
		{"000", "", "", 0o660},
		{"077", "622", "", 0o622},
		{"022", "0666", "", 0o666},
		{"022", "", "0600", 0o660},
		{"022", "0640", "0666", 0o640},
	} {
		s := newSite(t, nil)
		s.env["INFIFODIR"] = filepath.Join(s.dir, "missing", "both")
		if test.old != "" {
			if out, err := exec.Command("sh", "-c", `mkdir -p "$1" && mkfifo "$1/infifo" && chmod "$2" "$1/infifo"`, "sh", s.env["INFIFODIR"], test.old).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
		}
		if test.mode != "" {
			s.env["FIFO_MODE"] = test.mode
		}
		p := s.startCommand(s.command("/bin/sh", "-c", "umask "+test.umask+`; exec "$0"`, filepath.Join(bin, "inlookup")))
		s.answers(p)
		if st, err := os.Lstat(s.fifo("infifo")); err != nil || st.Mode() != os.ModeNamedPipe|test.want {
			t.Errorf("%+v: %v, %v", test, st.Mode(), err)
		}
		for _, dir := range []string{s.env["INFIFODIR"], filepath.Dir(s.env["INFIFODIR"])} {
			if st, err := os.Stat(dir); test.old == "" && (err != nil || st.Mode().Perm() != 0o775) {
				t.Errorf("%+v: directory %v, %v", test, st.Mode(), err)
			}
		}
		p.terminate()
	}
}

// A file that holds a password and that all may read deserves a warning; the password is in none.
func TestReadableByAll(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	for _, name := range []string{"host.mysql", "mcdinfo"} {
		if err := os.Chmod(filepath.Join(s.env["CONTROLDIR"], name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log := s.serve().startLines()
	for name, want := range map[string]bool{
		"host.mysql": true, "mcdinfo": true, "host.cntrl": false, "smtproutes": false,
	} {
		path := filepath.Join(s.env["CONTROLDIR"], name)
		if got := strings.Contains(log, "warning: "+path+": "); got != want {
			t.Errorf("a warning about %s: %v", name, got)
		}
		if got := strings.Contains(log, "chgrp indimail "+path+" && chmod 640 "+path+"\n"); got != want {
			t.Errorf("advice about %s: %v", name, got)
		}
	}
	if strings.Contains(log, "secret") {
		t.Error("the password is in the log")
	}
}
