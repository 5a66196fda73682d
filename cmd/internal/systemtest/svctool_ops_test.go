//go:build ops

package systemtest

// IndiMail's service as its svctool makes it: supervise, the run file with FIFOs made before, -v,
// both outputs to multilog, and clients of another group.

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
)

func TestServiceAsSvctoolMakesIt(t *testing.T) {
	db := database(t)
	lastLogin(t, db)
	s := newService(t, db)
	s.ours()
	logs := filepath.Join(s.dir, "log")
	supervise := s.startCommand(s.namespace("", "/bin/sh", "-c",
		fmt.Sprintf("supervise %s 2>&1 | multilog t %s", s.path, logs)))
	down := func() {
		s.shell("svc -dx /service/inlookup.infifo")
		supervise.wait()
	}
	t.Cleanup(down) // before supervise is killed, lest what it started stays
	s.ready()
	for i := 1; i <= 5; i++ {
		fifo := fmt.Sprintf("%s/run/inlookup/infifo.%d", s.dir, i)
		owned(t, fifo, qmaildUser, indimailGroup, fs.ModeNamedPipe|0o660)
	}
	owned(t, s.dir+"/run/inlookup", indimailUser, qmailGroup, fs.ModeDir|0o770)
	askAll(t, s)

	current := func() string {
		text, err := os.ReadFile(filepath.Join(logs, "current"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for typ := inlookup.TypeUser; typ <= inlookup.TypeDomain; typ++ {
		want := fmt.Sprintf("Query ['%v'], User user@example.com, RemoteIp ", typ)
		eventually(t, "the log has "+want, func() bool { return strings.Contains(current(), want) })
	}
	eventually(t, "the log has a line of standard error", func() bool {
		return strings.Contains(current(), " users loaded in ")
	})
	askAll(t, s) // the second time from memory
	eventually(t, "the log has a hit", func() bool {
		return strings.Contains(current(),
			", cache hit\n")
	})
	down()
	if !s.empty() {
		t.Error("FIFOs are left")
	}
	if log := current(); !statisticsLine.MatchString(log) || strings.Contains(log, "$5$") {
		t.Errorf("no statistics in the log, or a hash of a password:\n%s", log)
	}
}

// askAll asks the seven questions, as a client of another group that may use the FIFOs.
func askAll(t *testing.T, s *service) {
	t.Helper()
	asked := 0
	for _, c := range goldenCommands(t) {
		if !slices.Contains(c.args, "user@example.com") {
			continue
		}
		groups := []int{clientGroup, qmailGroup, indimailGroup}
		status, stdout, stderr := s.runCommand(s.asked().namespaceAs(clientUser, groups, "inquerytest",
			c.args...))
		if status != c.status || stdout != c.stdout {
			t.Errorf("%q: exit %d, want %d, stdout %q, want %q, stderr %q", c.args, status, c.status, stdout,
				c.stdout, stderr)
		}
		asked++
	}
	if asked < 7 {
		t.Errorf("%d questions asked, want 7", asked)
	}
	left, err := filepath.Glob(s.dir + "/run/inquery/*")
	if err != nil || len(left) > 0 {
		t.Errorf("reply FIFOs are left: %v, %v", left, err)
	}
}
