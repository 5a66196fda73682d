//go:build ops

package systemtest

// What tests under load share: how they write a request, what a process holds,
// how long questions take, and a flood, which is a process that asks and waits
// for nothing.

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

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

// hits returns how many times the callers together were answered from the cache
// within that time.
func hits(t testing.TB, callers []*caller, length time.Duration) int {
	t.Helper()
	var group sync.WaitGroup
	var n atomic.Int64
	end := time.Now().Add(length)
	for _, c := range callers {
		group.Go(func() {
			for time.Now().Before(end) {
				code, _, err := c.ask(hit)
				if err != nil || code != hitCode {
					t.Errorf("a hit: code %d, %v", code, err)
					return
				}
				n.Add(1)
			}
		})
	}
	group.Wait()
	return int(n.Load())
}

// misses asks n questions for users who do not exist, and returns what each
// took. It asks fewer if they take longer than the limit.
func (s *site) misses(c *caller, domain string, n int, limit time.Duration) []time.Duration {
	s.t.Helper()
	var took []time.Duration
	for end := time.Now().Add(limit); len(took) < n && time.Now().Before(end); {
		q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@" + domain}
		start := time.Now()
		code, _, err := c.ask(q)
		if err != nil || code != int(inlookup.StatusAbsent) {
			s.t.Errorf("%s: code %d, %v, want absent", q.Email, code, err)
			return append(took, patience)
		}
		took = append(took, time.Since(start))
	}
	return took
}

var userNumber atomic.Int64

// newUser returns a name that nobody asked for before.
func newUser() string { return fmt.Sprintf("new%d", userNumber.Add(1)) }

func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func mean(values []time.Duration) (sum time.Duration) {
	for _, d := range values {
		sum += d
	}
	return sum / time.Duration(max(len(values), 1))
}

// A flood is this program again, in a process of its own, which is told what to
// send by its environment.
const floodVariable = "INLOOKUP_FLOOD"

func init() {
	f := strings.Split(os.Getenv(floodVariable), "\t")
	if len(f) == 5 {
		floodMain(f[0], f[1], inlookup.Type(f[2][0]), f[3], f[4])
	}
}

// floodMain sends the same question as fast as the request FIFO takes it, until
// it is killed. A # in the address becomes another number each time.
func floodMain(request, reply string, typ inlookup.Type, email, ip string) {
	answers, err := os.OpenFile(reply, os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go io.Copy(io.Discard, answers)
	fd, err := syscall.Open(request, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		b := frame(typ, strings.ReplaceAll(email, "#", strconv.Itoa(n)), reply, ip)
		if _, err := syscall.Write(fd, b); err != nil && err != syscall.EINTR {
			os.Exit(0) // the server has gone
		}
	}
}

// flood starts one, which is stopped and continued by signals.
func (s *site) flood(name string, q inlookup.Query) *process {
	s.t.Helper()
	program, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	replyNumber.Lock()
	replyNumber.n++
	reply := filepath.Join(s.env["FIFOTMPDIR"], "flood"+strconv.Itoa(replyNumber.n))
	replyNumber.Unlock()
	if err := makeFIFO(reply); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.Remove(reply) })
	cmd := exec.Command(program)
	text := []string{s.fifo(name), reply, string(rune(q.Type)), q.Email, q.IP}
	cmd.Env = append(os.Environ(), floodVariable+"="+strings.Join(text, "\t"))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dieWithParent != nil {
		dieWithParent(cmd.SysProcAttr)
	}
	return s.startCommand(cmd)
}
