package systemtest

// What the tests of waits, floods and leftovers share: a caller, which is a
// client that asks as fast as it is answered.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
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
