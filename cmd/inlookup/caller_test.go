package main_test

// What the tests of waits, floods and leftovers share: a caller, which is a
// client that asks as fast as it is answered, and a flood, which is a process
// that asks and waits for nothing.

import (
	"encoding/binary"
	"errors"
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

// short is the Client of a question that may fail. It is its own, so that a
// test needs nothing of Client but Resolve.
func (s *site) short(timeout time.Duration) *inlookup.Client {
	return &inlookup.Client{Getenv: s.getenv, Timeout: timeout}
}

// makeFIFO makes one of mode 0660, whatever the umask: a server that runs as root
// answers no FIFO that its owner alone may write to.
func makeFIFO(path string) error {
	return errors.Join(syscall.Mkfifo(path, 0o660), os.Chmod(path, 0o660))
}

// A caller asks one question after the other. It keeps its reply FIFO, and
// writes into the request FIFO as the C programs do: it waits for room.
type caller struct {
	request string // path of the request FIFO
	path    string // of reply
	reply   *os.File
}

// newCaller returns one that asks over the request FIFO of that name.
func (s *site) newCaller(name string) *caller {
	s.t.Helper()
	replyNumber.Lock()
	replyNumber.n++
	number := replyNumber.n
	replyNumber.Unlock()
	path := filepath.Join(s.env["FIFOTMPDIR"], "caller"+strconv.Itoa(number))
	if err := makeFIFO(path); err != nil {
		s.t.Fatal(err)
	}
	reply, err := os.OpenFile(path, os.O_RDWR, 0) // a writer of its own: it never sees an end
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		reply.Close()
		os.Remove(path)
	})
	return &caller{s.fifo(name), path, reply}
}

// ask returns the code and the data of the answer. After an error the caller is
// of no more use, since the answer may come late.
func (c *caller) ask(q inlookup.Query) (code int, data string, err error) {
	fd, err := syscall.Open(c.request, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	_, err = syscall.Write(fd, frame(q.Type, q.Email, c.path, q.IP))
	syscall.Close(fd)
	if err != nil {
		return 0, "", err
	}
	c.reply.SetReadDeadline(time.Now().Add(patience))
	var header [4]byte
	if _, err := io.ReadFull(c.reply, header[:]); err != nil {
		return 0, "", fmt.Errorf("%v of %.40s: %w", q.Type, q.Email, err)
	}
	code = int(int32(binary.NativeEndian.Uint32(header[:])))
	if code <= 0 || q.Type == inlookup.TypeUser || q.Type == inlookup.TypeRelay {
		return code, "", nil
	}
	text := make([]byte, code)
	_, err = io.ReadFull(c.reply, text)
	return code, string(text), err
}

// hit is a question that needs no database once it is in the cache, and its code.
var hit = inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}

const hitCode = int(inlookup.StatusOverQuota)

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
