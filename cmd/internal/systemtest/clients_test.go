package systemtest

// Clients as the C programs are: they write requests into the FIFO themselves. A
// reply is the reply FIFO of one question, a caller asks one after the other.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

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

// A reply is the reply FIFO of a client that does as the C programs do: open to read alone, without waiting.
type reply struct {
	path string
	fd   int
}

var replyNumber struct {
	sync.Mutex
	n int
}

// newReply makes one in dir, to the end of the test.
func newReply(t testing.TB, dir string) *reply {
	t.Helper()
	replyNumber.Lock()
	replyNumber.n++
	r := &reply{path: filepath.Join(dir, strconv.Itoa(replyNumber.n))}
	replyNumber.Unlock()
	if err := makeFIFO(r.path); err != nil {
		t.Fatal(&fs.PathError{Op: "mkfifo", Path: r.path, Err: err})
	}
	var err error
	if r.fd, err = syscall.Open(r.path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0); err != nil {
		t.Fatal(&fs.PathError{Op: "open", Path: r.path, Err: err})
	}
	t.Cleanup(func() { syscall.Close(r.fd) })
	return r
}

var errNoAnswer = errors.New("no answer")

// read returns all that comes until the server closes the FIFO.
func (r *reply) read(limit time.Duration) (answer []byte, err error) {
	deadline := time.Now().Add(limit)
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.Read(r.fd, buf)
		switch {
		case n > 0:
			answer = append(answer, buf[:n]...)
		case n == 0 && len(answer) > 0:
			return answer, nil
		case err != nil && err != syscall.EAGAIN && err != syscall.EINTR:
			return answer, err
		case time.Now().After(deadline):
			return answer, errNoAnswer
		default:
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// drain returns what is there now, and whether a writer has it open.
func (r *reply) drain() (got []byte, open bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := syscall.Read(r.fd, buf)
		if n <= 0 {
			return got, err == syscall.EAGAIN
		}
		got = append(got, buf[:n]...)
	}
}

// frame returns a request as the C programs write it.
func frame(typ inlookup.Type, email, reply, ip string) []byte {
	body := fmt.Appendf([]byte{byte(typ), 0}, "%s\x00%s\x00%s\x00", email, reply, ip)
	return append(binary.NativeEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// send writes b into the request FIFO at path, with one write.
func send(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.Write(b); err != nil || n != len(b) {
		t.Fatalf("%d of %d bytes written: %v", n, len(b), err)
	}
}

// ask asks over the request FIFO of that name as a C client does.
func (s *site) ask(name string, q inlookup.Query) (inlookup.Answer, error) {
	s.t.Helper()
	r := newReply(s.t, s.env["FIFOTMPDIR"])
	defer os.Remove(r.path)
	send(s.t, s.fifo(name), frame(q.Type, q.Email, r.path, q.IP))
	b, err := r.read(patience)
	return inlookup.WireAnswer(string(b)), err
}

// stopped reports whether every thread of a process stands still, where the kernel tells.
func stopped(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if _, state, ok := strings.Cut(string(text), ") "); err == nil && ok && state[0] != 'T' {
			return false
		}
	}
	return err == nil
}

// freePort returns a TCP port on which nobody listens at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// reachable reports whether somebody reads the FIFO or, for the name tcp, listens on the port.
func reachable(fifo, port string) bool {
	if filepath.Base(fifo) == "tcp" {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}
