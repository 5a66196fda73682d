package systemtest

// Too few descriptors or too little memory: the server says so at once, and counts
// what it cannot do.

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
func TestFewDescriptorsAreAWarning(t *testing.T) {
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
func TestUnopenedRepliesAreCounted(t *testing.T) {
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
func TestAddressSpaceAsDocumented(t *testing.T) {
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
