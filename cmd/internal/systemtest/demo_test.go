package systemtest

// The demo, when it is interrupted: it is quiet and leaves nothing.

import (
	"bufio"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestInterruptedDemoLeavesNothing ends the demo at several moments. It must be quiet and leave
// nothing behind.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	database(t) // or skip
	moments := map[string]syscall.Signal{
		"A private MariaDB runs": syscall.SIGINT,
		"The same again":         syscall.SIGTERM,
		"MariaDB is killed":      syscall.SIGHUP,
	}
	for moment, sig := range moments {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			temporary := t.TempDir()
			s.env["TMPDIR"] = temporary
			cmd := s.command("inlookup", "-demo")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd.Stdout = w
			p := s.startCommand(cmd)
			w.Close()
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				if strings.Contains(lines.Text(), moment) {
					break
				}
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() { // what it still says must not block it
			}
			if status := p.wait(); status != 0 {
				t.Errorf("exit %d", status)
			}
			if text := p.stderr.String(); text != "" {
				t.Errorf("on standard error: %s", text)
			}
			if left, _ := os.ReadDir(temporary); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
