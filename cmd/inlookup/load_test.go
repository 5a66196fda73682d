package main_test

// What tests under load share: how they write a request, and what a process holds.

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// atLeast sets max to d if it is smaller.
func atLeast(max *atomic.Int64, d time.Duration) {
	for old := max.Load(); int64(d) > old && !max.CompareAndSwap(old, int64(d)); old = max.Load() {
	}
}

// writeRequest writes a request with one write that is all or nothing. It waits for room.
func writeRequest(path string, b []byte) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		if _, err = syscall.Write(fd, b); err != syscall.EAGAIN || time.Now().After(deadline) {
			return err
		}
	}
}

// A usage is what a process holds. Of a process that keeps secrets the kernel
// shows its files to root alone; to others known is false.
type usage struct {
	known                        bool
	files, sockets, threads, rss int // files without sockets; rss in KiB
}

// used reads it where the kernel tells.
func used(pid int) (u usage) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fd")
	u.known = err == nil
	for _, fd := range fds {
		if to, err := os.Readlink(dir + "fd/" + fd.Name()); strings.HasPrefix(to, "socket:") {
			u.sockets++
		} else if err == nil {
			u.files++
		}
	}
	status, _ := os.ReadFile(dir + "status")
	for line := range strings.Lines(string(status)) {
		f := append(strings.Fields(line), "", "")
		switch n, _ := strconv.Atoi(f[1]); f[0] {
		case "Threads:":
			u.threads = n
		case "VmRSS:":
			u.rss = n
		}
	}
	return u
}

func (u usage) String() string {
	files := "files not shown"
	if u.known {
		files = fmt.Sprintf("%d files, %d sockets", u.files, u.sockets)
	}
	return fmt.Sprintf("%s, %d threads, %.1f MiB", files, u.threads, float64(u.rss)/1024)
}
