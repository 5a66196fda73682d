package systemtest

// Too few descriptors or too little memory: the server says so at once, and counts
// what it cannot do.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
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
	// Until this line its own questions may take all descriptors.
	if text := p.startLines(); !strings.Contains(text, "warning") || !tooFew.MatchString(text) {
		t.Errorf("no warning: %q", text)
	}
	s.answers(p)
	c := s.short(patience)
	for range 50 {
		if a, err := c.Resolve(t.Context(), hit); err != nil || a.Code() != hitCode {
			t.Errorf("code %d, %v", a.Code(), err)
		}
	}
	p.terminate()
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
