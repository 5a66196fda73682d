//go:build ops

package systemtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// The unit, looked at by systemd's own program.
func TestMetricsUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../inlookup/inlookup-metrics.service")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		testmain.Skip(t, "systemd-analyze is not installed: apt-get install systemd")
	}
	server, err := os.ReadFile("../../inlookup/inlookup.service")
	if err != nil {
		t.Fatal(err)
	}
	// Replies go where the server answers. Its unit makes that directory anew at each start, so
	// this one may see all of /run.
	_, dir, _ := strings.Cut(string(server), " REPLYDIR=")
	dir = strings.Fields(dir + " none")[0]
	for _, want := range []string{"\nEnvironment=INFIFODIR=/run/indimail/inlookup FIFOTMPDIR=" + dir + "\n", "\nReadWritePaths=/run\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the unit has no %q", want)
		}
	}
	page, err := os.ReadFile("../../inlookup/doc/BEYOND.md") // what asks over TCP is a client too
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if strings.Contains(line, "QUERY_CACHE=1 ") && !strings.Contains(line, " FIFOTMPDIR="+dir) {
			t.Errorf("BEYOND.md: replies go elsewhere: %s", line)
		}
	}
	s := newSite(t, nil)
	unit := filepath.Join(s.dir, "inlookup-metrics.service")
	here := strings.ReplaceAll(string(text), "/usr/local/lib/inlookup", bin)
	if err := os.WriteFile(unit, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--no-pager", "--offline=true", "--threshold=20", unit},
	} {
		status, stdout, stderr := s.run("systemd-analyze", args...)
		if status != 0 || args[0] == "verify" && strings.Contains(stdout+stderr, "inlookup-metrics") {
			t.Errorf("%s: exit %d\n%s%s", args[0], status, stdout, stderr)
		}
	}
}
