package inlookup

import (
	"context"
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
		skip(t, "not root")
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
		skip(t, err)
	}
	err := s.Listen()
	syscall.Setfsuid(0)
	if err != nil {
		t.Fatal(err)
	}
	if mode := modeOf(t, path); mode != fs.ModeNamedPipe|0o666 {
		skip(t, "the mode could be changed:", mode)
	}
	warning := b.String()
	if !strings.Contains(warning, path) || strings.Count(warning, "warning") != 1 {
		t.Errorf("%q", warning)
	}
	for _, f := range s.fifos {
		f.stop()
		syscall.Close(f.fd)
	}
}

// TestMayReplyTo: root answers only where others than the owner may read or write as well.
func TestMayReplyTo(t *testing.T) {
	s := new(Server)
	s.own.Store(&[]*requestFIFO{{id: fileID{dev: 7, ino: 1}}, {id: fileID{dev: 8, ino: 2}}})
	for _, c := range []struct {
		kind, mode   uint32
		dev, ino     uint64
		user, asRoot bool
	}{
		{syscall.S_IFIFO, 0o600, 1, 1, true, false},
		{syscall.S_IFIFO, 0o711, 1, 1, true, false},
		{syscall.S_IFIFO, 0o000, 1, 1, true, false},
		{syscall.S_IFIFO, 0o640, 1, 1, true, true},
		{syscall.S_IFIFO, 0o604, 1, 1, true, true},
		{syscall.S_IFIFO, 0o660, 1, 1, true, true},
		{syscall.S_IFIFO, 0o620, 1, 1, true, true},
		{syscall.S_IFIFO, 0o602, 1, 1, true, true},
		{syscall.S_IFIFO, 0o666, 1, 1, true, true},
		{syscall.S_IFIFO, 0o666, 7, 1, false, false}, // the server's own
		{syscall.S_IFIFO, 0o666, 8, 2, false, false},
		{syscall.S_IFIFO, 0o666, 7, 2, true, true}, // the same number on another device
		{syscall.S_IFREG, 0o666, 1, 1, false, false},
		{syscall.S_IFCHR, 0o666, 1, 1, false, false},
		{syscall.S_IFSOCK, 0o666, 1, 1, false, false},
		{syscall.S_IFDIR, 0o777, 1, 1, false, false},
		{syscall.S_IFLNK, 0o777, 1, 1, false, false},
	} {
		var st syscall.Stat_t
		st.Mode = c.kind | c.mode
		st.Dev = c.dev
		st.Ino = c.ino
		for _, s.asRoot = range []bool{false, true} {
			want := c.user
			if s.asRoot {
				want = c.asRoot
			}
			if got := s.mayReplyTo(&st); got != want {
				t.Errorf("%+v, as root %v: %v", c, s.asRoot, got)
			}
		}
	}
}

// TestServeUnreadable: a FIFO that cannot be read ends Serve, with an error that names it.
func TestServeUnreadable(t *testing.T) {
	dir := t.TempDir()
	s := &Server{Resolver: echo, Instances: 2, Getenv: environment("INFIFODIR", dir)}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	directory, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	f := s.fifos[1]
	if err := syscall.Dup3(int(directory.Fd()), f.fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	err = s.Serve(context.Background())
	if !errors.Is(err, syscall.EISDIR) || !strings.Contains(err.Error(), f.path) {
		t.Errorf("%v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestRequestCutByTheBuffer: a client can have the pipe hold more than one read takes. A request
// that is cut at the end of a read is answered with the next.
func TestRequestCutByTheBuffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	mkfifo(t, path, 0o660)
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	const setPipeSize = 1031 // F_SETPIPE_SZ
	_, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), setPipeSize, pipeMax)
	if errno != 0 {
		skip(t, errno)
	}
	frame := Query{Type: TypeUser, Email: strings.Repeat("u", 1000)}.frame(t, "/nowhere")
	if readSize%len(frame) == 0 {
		t.Fatalf("no frame of %d bytes is cut", len(frame))
	}
	n := 2*readSize/len(frame) + 1
	for range n {
		if _, err := syscall.Write(fd, frame); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", filepath.Dir(path))}
	_, stop := serve(t, s)
	eventually(t, "all is read", func() bool {
		now := s.Stats()
		return now.Refused > 0 || now.Queries[TypeUser] == uint64(n)
	})
	stop()
	if now := s.Stats(); now.Refused > 0 || now.Queries[TypeUser] != uint64(n) {
		t.Errorf("%d of %d requests, %d bytes refused", now.Queries[TypeUser], n, now.Refused)
	}
}
