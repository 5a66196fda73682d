package inlookup

import (
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// TestForeignFIFO: a FIFO whose mode this user cannot change is served all the same, with a
// warning. For that, root becomes another user as far as files go, on one thread.
func TestForeignFIFO(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP: not root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "infifo")
	mkfifo(t, path, 0o666)
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	var b safeBuffer
	s := &Server{Resolver: echo, Log: log.New(&b, "", 0)}
	s.Getenv = environment("INFIFODIR", dir, "FIFO_MODE", "600")
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(nobody); err != nil {
		t.Skip(err)
	}
	err := s.Listen()
	syscall.Setfsuid(0)
	if err != nil {
		t.Fatal(err)
	}
	if mode := modeOf(t, path); mode != fs.ModeNamedPipe|0o666 {
		t.Skip("SKIP: the mode could be changed: ", mode)
	}
	warning := b.String()
	if !strings.Contains(warning, path) || strings.Count(warning, "warning") != 1 {
		t.Errorf("%q", warning)
	}
	for _, f := range s.fifos {
		f.stop()
		f.close()
	}
}
