package systemtest

// What the server tells a service manager.

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager listens as a service manager does.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func told(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	l.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1000)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal("nothing is told:", err)
	}
	return string(b[:n])
}

// notToldLine matches what the server says of a manager that cannot be told.
var notToldLine = regexp.MustCompile(`warning|READY|STOPPING|NOTIFY_SOCKET`)

func TestManagerIsTold(t *testing.T) {
	t.Parallel()
	alone := newSite(t, nil).serve()
	alone.terminate()
	if got := alone.stderr.String(); notToldLine.MatchString(got) {
		t.Errorf("without a manager: stderr %q", got)
	}
	names := []string{filepath.Join(t.TempDir(), "notify")}
	if exists("/proc/self") { // Linux has abstract names, which are in no directory
		names = append(names, "@inlookup"+strconv.Itoa(os.Getpid()))
	}
	for _, name := range names {
		s := newSite(t, nil)
		s.env["NOTIFY_SOCKET"] = name
		l := manager(t, name)
		p := s.start("inlookup", "-i", "500")
		if got := told(t, l); got != "READY=1" || !exists(s.fifo("infifo.500")) {
			t.Errorf("%s: %q, the last FIFO there: %v", name, got, exists(s.fifo("infifo.500")))
		}
		p.signal(syscall.SIGHUP) // tells nothing
		p.signal(syscall.SIGTERM)
		if got := told(t, l); got != "STOPPING=1" {
			t.Errorf("%s: %q", name, got)
		}
		if status := p.wait(); status != 0 || notToldLine.MatchString(p.stderr.String()) {
			t.Errorf("%s: exit %d, stderr %q", name, status, p.stderr.String())
		}
	}
}

// A manager that cannot be told, or does not read, costs a warning.
func TestDeafManagerIsAWarning(t *testing.T) {
	t.Parallel()
	full := filepath.Join(t.TempDir(), "full")
	manager(t, full)
	fill, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: full, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		fill.SetWriteDeadline(time.Now().Add(time.Second))
		_, err = fill.Write([]byte("full"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("this system does not wait for room: %v", err)
	}
	for _, name := range []string{full, filepath.Join(t.TempDir(), "missing")} {
		s := newSite(t, nil)
		s.env["NOTIFY_SOCKET"] = name
		p := s.serve()
		p.terminate()
		if got := p.stderr.String(); !strings.Contains(got, "warning: ") || !strings.Contains(got, "READY=1") || !strings.Contains(got, "STOPPING=1") || !strings.Contains(got, name) {
			t.Errorf("stderr %q", got)
		}
	}
}
