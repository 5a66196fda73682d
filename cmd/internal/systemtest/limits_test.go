package systemtest

// Values that mean nothing, and too few descriptors or too little memory: the
// server says so at once, and counts what it cannot do.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// With CACHE_TTL=0 nothing is kept: the next question is asked again, and while
// the database is away there is no answer.
func TestNothingKept(t *testing.T) {
	t.Parallel()
	db := database(t)
	addUser(t, db, "none", "example.com", "old")
	for _, value := range []string{"0", "0s"} {
		g := newGate(t, "127.0.0.1:0", db)
		s := newSite(t, nil)
		s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = "127.0.0.1", g.port(), "secret"
		s.env["CACHE_TTL"] = value
		s.serve()
		c := s.short(patience)
		const asked = "3 none@example.com"
		setPasswd(t, db, "none", "example.com", "old")
		if got := show(t, c, asked); got != "none@example.com old 0" {
			t.Fatal(got)
		}
		setPasswd(t, db, "none", "example.com", "new")
		if got := show(t, c, asked); got != "none@example.com new 0" {
			t.Errorf("CACHE_TTL=%s: %s", value, got)
		}
		if n := s.counts()[`cache_entries{kind="present"}`]; n != 0 {
			t.Errorf("CACHE_TTL=%s: %v entries", value, n)
		}
		g.close()
		if got := show(t, c, asked); got != "unavailable" {
			t.Errorf("CACHE_TTL=%s, without the database: %s", value, got)
		}
	}
	s := goldenSite(t, db)
	s.env["CACHE_NEGATIVE_TTL"] = "0"
	s.serve()
	show(t, s.short(patience), "1 nobody@example.com")
	if n := s.counts()[`cache_entries{kind="absent"}`]; n != 0 {
		t.Errorf("CACHE_NEGATIVE_TTL=0: %v entries", n)
	}
}

// What does not fit is a warning and the default, for the server and for its check: no variable
// stops a server that the C program would not be stopped by.
func TestValuesOfTheCProgram(t *testing.T) {
	t.Parallel()
	db := database(t)
	settings := [][2]string{
		{"MAX_BTREE_COUNT", "-1"}, {"MAX_BTREE_COUNT", "x"}, {"USE_BTREE", "x"}, {"USE_BTREE", "yes"},
		{"CACHE_SIZE", "99999999999999999999"}, {"CACHE_SIZE", "-1"}, {"CACHE_SIZE", "x"},
		{"CACHE_SIZE", "1e3"}, {"CACHE_STALE", "25h"},
	}
	// In nanoseconds each of the numbers is out of range. The first comes to 0.29 s in 64 bits.
	seconds := []string{"18446744074", "9223372037", "99999999999999999999", "-1", "-1s", "3000000h",
		"1e3", "x", "10min"}
	for _, name := range []string{"CACHE_TTL", "CACHE_NEGATIVE_TTL", "CACHE_STALE"} {
		for _, value := range seconds {
			settings = append(settings, [2]string{name, value})
		}
	}
	for _, setting := range settings {
		name, value := setting[0], setting[1]
		s := newSite(t, db)
		s.env[name] = value
		status, lines := s.check()
		if status != 0 || !regexp.MustCompile(`(?m)^warning  cache +`+name+`: `).MatchString(lines) {
			t.Errorf("%s=%s: -t exits %d\n%s", name, value, status, lines)
		}
		log := s.serve().startLines()
		if !strings.Contains(log, "inlookup: warning: "+name+": ") {
			t.Errorf("%s=%s: no warning\n%s", name, value, log)
		}
		const asked = "1 over@example.com"
		all(t, s.client(), name+"="+value, map[string]string{asked: "over quota"})
		if n := s.counts()[`cache_entries{kind="present"}`]; n != 1 {
			t.Errorf("%s=%s: %v entries, want the cache on and no limit", name, value, n)
		}
	}
}

// refuses starts a server that is to end at once, with 111 and without a FIFO. It
// returns what the server said, or what it did instead.
func (s *site) refuses() string {
	s.t.Helper()
	p := s.start("inlookup")
	runs := false
	eventually(s.t, "the server runs or has ended", func() bool {
		runs = exists(s.fifo("infifo"))
		select {
		case <-p.done:
			return true
		default:
			return runs
		}
	})
	if runs {
		p.cmd.Process.Kill()
		return "the server runs"
	}
	if status := p.wait(); status != 111 {
		return fmt.Sprint("exit ", status)
	}
	return p.stderr.String()
}

// limited returns our command under limits of its own, as ulimit(1) sets them:
// the hard ones too, since the Go runtime raises soft ones of descriptors.
func (s *site) limited(limits string, args ...string) *process {
	s.t.Helper()
	words := append([]string{"-c", limits + ` && exec "$@"`, "sh", filepath.Join(bin, "inlookup")}, args...)
	return s.startCommand(s.command("sh", words...))
}

var tooFew = regexp.MustCompile(`(?i)(descriptor|files)`)

// With 20 descriptors the server warns, and so does its check; what it can, it
// answers, and what it cannot it counts.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	check := s.limited("ulimit -n 20", "-t")
	check.wait()
	if !regexp.MustCompile(`(?im)^warning .*(descriptor|files)`).MatchString(check.stdout.String()) {
		t.Errorf("-t gives no warning:\n%s", check.stdout.String())
	}
	if _, lines := s.check(); regexp.MustCompile(`(?im)^warning .*descriptor`).MatchString(lines) {
		t.Errorf("-t warns without a cause:\n%s", lines)
	}
	p := s.limited("ulimit -n 20", "-v")
	s.answers(p)
	if text := p.startLines(); !strings.Contains(text, "warning") || !tooFew.MatchString(text) {
		t.Errorf("no warning: %q", text)
	}
	c := s.short(patience)
	for range 50 {
		if a, err := c.Resolve(t.Context(), hit); err != nil || a.Code() != hitCode {
			t.Errorf("code %d, %v", a.Code(), err)
		}
	}
	p.terminate()
}

// Replies that find no descriptor are counted.
func TestRepliesUnopened(t *testing.T) {
	t.Parallel()
	testmain.Need(t, "util-linux", "prlimit")
	if os.Geteuid() != 0 {
		testmain.Skip(t, "only root changes the limits of a process that keeps secrets")
	}
	s := goldenSite(t, database(t))
	p := s.serve()
	pid := strconv.Itoa(p.cmd.Process.Pid)
	c := s.short(patience)
	if a, err := c.Resolve(t.Context(), hit); err != nil || a.Code() != hitCode {
		t.Fatalf("code %d, %v", a.Code(), err)
	}
	descriptors := func(n string) {
		t.Helper()
		if status, _, stderr := s.run("prlimit", "--pid", pid, "--nofile="+n+":"); status != 0 {
			t.Fatalf("prlimit: exit %d, %s", status, stderr)
		}
	}
	before := s.counts()["replies_unopened_total"]
	descriptors("3")
	const lost = 5
	var replies []*reply
	for range lost {
		r := newReply(t, s.env["FIFOTMPDIR"])
		send(t, s.fifo("infifo"), frame(hit.Type, hit.Email, r.path, ""))
		replies = append(replies, r)
	}
	// Its output is open already, so the statistics tell when it has read them all.
	eventually(t, "the server has read what was asked", func() bool {
		p.signal(syscall.SIGUSR1)
		return strings.Contains(p.stdout.String(), fmt.Sprintf("Domain %d 0 0", 1+lost))
	})
	within(t, patience, "the server stands again", func() bool {
		descriptors("1000")
		_, err := c.Resolve(t.Context(), hit)
		return err == nil
	})
	n := s.counts()["replies_unopened_total"] - before
	answered := 0
	for _, r := range replies {
		if got, _ := r.drain(); len(got) > 0 {
			answered++
		}
	}
	if n == 0 || int(n)+answered != lost {
		t.Errorf("%d questions: %d answered, %v counted as unopened", lost, answered, n)
	}
}

// A Go program reserves more address space than it ever uses, and dies before
// its first line when it may not. So this is documented, with a figure, and the
// figure holds.
func TestAddressSpace(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		testmain.Skip(t, "the race detector takes as much as there is")
	}
	s := goldenSite(t, database(t))
	p := s.limited(fmt.Sprintf("ulimit -v %d", 2<<20), "-i", "2") // 2 GiB
	s.answers(p)
	c := s.short(patience)
	for i := range 200 {
		q := inlookup.Query{Type: inlookup.TypeUser, Email: fmt.Sprintf("space%d@example.com", i)}
		if a, err := c.Resolve(t.Context(), q); err != nil || a.Code() != int(inlookup.StatusAbsent) {
			t.Fatalf("code %d, %v", a.Code(), err)
		}
	}
	p.terminate()
	for _, limits := range []string{"ulimit -v 48828", "ulimit -d 48828"} { // softlimit -m 50000000
		p := s.limited(limits)
		if status := p.wait(); status == 0 || exists(s.fifo("infifo")) {
			t.Errorf("%s: exit %d", limits, status)
		}
	}
	manual, err := os.ReadFile("../../inlookup/inlookup.8")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(manual), "softlimit") {
		t.Error("inlookup.8 does not say how much address space the programs need")
	}
}
