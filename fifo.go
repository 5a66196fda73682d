package inlookup

// Both ends of a FIFO: make one, find one, read frames from it, deliver a
// reply into it.
//
// The request FIFO is a byte stream into which anybody with the right to write
// may put anything. What keeps it usable is one promise of the kernel: a
// write(2) of at most PIPE_BUF bytes is never mixed with another (pipe(7)). So
// an honest frame lies in the stream in one piece, and frames() finds it by
// trying every byte as the first of a frame. Skipping from frame to frame would
// be quicker by some 50 ns a frame, and wrong: junk made to look like a frame
// that reaches into the next one would swallow it.
//
// The reply FIFO is a path that anybody may have named. Here the rule is to do
// nothing to it that could hurt its owner: it is opened without following a
// link and without waiting, checked to be a FIFO, written once and closed; it is
// never created and never unlinked.
//
// All of this is system calls on bare descriptors. os.File would put the
// runtime's poller between the pipe and its reader, a second thread that must
// wake before the first (measured: 0.8 of the answers a second).

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fifoPath applies the rules for INFIFO: a name that begins with / or . is a
// path, any other lies in the directory of request FIFOs.
func fifoPath(e environ, name string) (path string, relative bool) {
	if name == "" {
		name = e.get("INFIFO", "infifo")
	}
	if name[0] == '/' || name[0] == '.' {
		return name, false
	}
	return filepath.Join(e.get("INFIFODIR", e.get("FIFODIR", "/var/indimail/inquery")), name), true
}

// requestPaths returns the FIFOs on which a client may ask: of a relative name
// its instances NAME.1, NAME.2 and so on, of a path, or where there are no
// instances, the path itself.
func requestPaths(e environ, name string) (paths []string) {
	path, relative := fifoPath(e, name)
	for i := 1; relative; i++ {
		instance := path + "." + strconv.Itoa(i)
		if _, err := os.Lstat(instance); err != nil {
			break
		}
		paths = append(paths, instance)
	}
	if paths == nil {
		paths = []string{path}
	}
	return paths
}

// A request is a frame taken apart. Its slices lie in the reader's buffer.
type request struct {
	typ              Type
	email, reply, ip []byte
}

// minRequest is the length word of a frame with three empty strings.
const minRequest = 5

// parseRequest takes b for the beginning of a frame. It returns the size of the
// frame, 0 if b is none, and -1 if b ends before that can be told.
func parseRequest(b []byte) (r request, size int) {
	if len(b) < headerSize {
		return r, -1
	}
	n := binary.NativeEndian.Uint32(b)
	if n < minRequest || n > maxRequest-headerSize {
		return r, 0
	}
	if len(b) > 4 && !Type(b[4]).known() || len(b) > 5 && b[5] != 0 {
		return r, 0
	}
	if uint32(len(b)-headerSize) < n {
		return r, -1
	}
	body := b[6 : headerSize+n]
	email := bytes.IndexByte(body, 0)
	reply := email + 1 + bytes.IndexByte(body[email+1:], 0)
	if email < 0 || reply <= email || bytes.IndexByte(body[reply+1:], 0) != len(body)-reply-2 {
		return r, 0
	}
	r = request{Type(b[4]), body[:email], body[email+1 : reply], body[reply+1 : len(body)-1]}
	return r, headerSize + int(n)
}

// frames calls handle for every frame in b and returns how many bytes of b are
// done with and how many of them belonged to no frame. With more, b may end
// within a frame whose rest is still in the pipe.
//
// No honest frame is lost, since every offset is tried; none is found twice,
// since an honest frame holds no other: its strings have no NULs, and a length
// word that lies across its header is out of range.
func frames(b []byte, more bool, handle func(request)) (used, refused int) {
	covered := 0 // end of the furthest frame so far
	for used = 0; used < len(b); used++ {
		r, n := parseRequest(b[used:])
		switch {
		case n > 0:
			covered = max(covered, used+n)
			handle(r)
		case n < 0 && more:
			return used, refused
		case used >= covered:
			refused++
		}
	}
	return used, refused
}

// A fileID tells files apart whatever their names.
type fileID struct{ dev, ino uint64 }

func fileStat(fd int) (id fileID, fifo bool, err error) {
	var st syscall.Stat_t
	if err = syscall.Fstat(fd, &st); err != nil {
		return id, false, os.NewSyscallError("fstat", err)
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}, st.Mode&syscall.S_IFMT == syscall.S_IFIFO, nil
}

// A requestFIFO is the server's end of one.
type requestFIFO struct {
	path string
	fd   int // read and write, so that it never sees an end when the last client goes
	id   fileID
}

// openRequestFIFO makes the FIFO at path, or takes over one that was left
// there, and locks it: flock(2) works on a FIFO and goes with its process, so a
// held lock means a live server.
func openRequestFIFO(path string, mode fs.FileMode) (*requestFIFO, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	for {
		if err := syscall.Mkfifo(path, uint32(mode)); err != nil && err != syscall.EEXIST {
			return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
		}
		fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		if err == syscall.ENOENT {
			continue // a server that stops has just removed it
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		f := &requestFIFO{path: path, fd: fd}
		if err = f.claim(mode); err == nil && f.named() {
			return f, nil
		}
		syscall.Close(fd)
		if err != nil {
			return nil, &fs.PathError{Op: "serve", Path: path, Err: err}
		}
	} // ends: each turn but the last means that another server has just stopped
}

// claim makes the open file ours: a FIFO, locked, with mode and owner right.
func (f *requestFIFO) claim(mode fs.FileMode) (err error) {
	var fifo bool
	if f.id, fifo, err = fileStat(f.fd); err != nil {
		return err
	}
	if !fifo {
		return errors.New("there is a file here that is no FIFO")
	}
	if err := syscall.Flock(f.fd, syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		return fmt.Errorf("already served by %s", lockHolder(f.id.ino))
	} // any other error: a system without locks on FIFOs, where nothing tells two servers apart
	var st syscall.Stat_t
	if err := syscall.Fstat(f.fd, &st); err != nil || fs.FileMode(st.Mode)&fs.ModePerm != mode {
		if err := syscall.Fchmod(f.fd, uint32(mode)); err != nil { // the umask took some of it, or it is an old FIFO
			return os.NewSyscallError("fchmod", err)
		}
	}
	if uid, gid, ok := owner(); ok {
		if err := syscall.Fchown(f.fd, uid, gid); err != nil {
			return os.NewSyscallError("fchown", err)
		}
	}
	return syscall.SetNonblock(f.fd, false)
}

// named reports whether the FIFO is still the one that its path names.
func (f *requestFIFO) named() bool {
	var st syscall.Stat_t
	err := syscall.Lstat(f.path, &st)
	return err == nil && f.id == fileID{uint64(st.Dev), uint64(st.Ino)}
}

// read waits for bytes. After stop it no longer waits, and returns 0 for none.
func (f *requestFIFO) read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(f.fd, b)
		switch err {
		case nil:
			return n, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, nil
		default:
			return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
		}
	}
}

// stop takes the name away, so that nobody new asks, and ends read once all that
// was asked is read. The byte wakes a read that waits already; where the FIFO is
// too full for it there is none.
func (f *requestFIFO) stop() {
	if f.named() {
		os.Remove(f.path)
	}
	syscall.SetNonblock(f.fd, true)
	syscall.Write(f.fd, []byte{0})
}

func (f *requestFIFO) close() { syscall.Close(f.fd) }

// makeDir makes dir and its missing parents, mode 0775 whatever the umask.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(filepath.Dir(dir)); err != nil { // ends: / exists
		return err
	}
	if err := os.Mkdir(dir, 0o775); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil // somebody else made it meanwhile
		}
		return err
	}
	if uid, gid, ok := owner(); ok {
		if err := os.Lchown(dir, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o775)
}

// owner returns whom root gives files and directories to, where there are such.
func owner() (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	u, err1 := user.Lookup("indimail")
	g, err2 := user.LookupGroup("indimail")
	if err1 != nil || err2 != nil {
		return 0, 0, false
	}
	uid, err1 = strconv.Atoi(u.Uid)
	gid, err2 = strconv.Atoi(g.Gid)
	return uid, gid, err1 == nil && err2 == nil
}

// lockHolder names the process that has locked the file, going by proc(5):
// "1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF".
func lockHolder(ino uint64) string {
	locks, _ := os.ReadFile("/proc/locks")
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && strings.HasSuffix(f[5], ":"+strconv.FormatUint(ino, 10)) {
			return "process " + f[4]
		}
	}
	return "another process"
}

// replies delivers answers.
type replies struct {
	dir string   // "" or the only directory in which reply FIFOs may lie
	own []fileID // our request FIFOs: an answer in one of them would be read as a request
}

var errNoReply = errors.New("not a reply FIFO")

// open opens the reply FIFO for one write. No side effect on anything that is
// not a FIFO with a reader: O_NOFOLLOW takes no link for it, O_NONBLOCK fails
// for a FIFO that nobody reads (fifo(7): ENXIO) instead of waiting, nothing is
// created or truncated, and what was opened is looked at before it is used, so
// there is no moment between check and use.
func (s *replies) open(path []byte) (fd int, err error) {
	if len(path) == 0 || path[0] != '/' {
		return -1, errNoReply
	}
	if dir, ok := bytes.CutPrefix(path, []byte(s.dir)); s.dir != "" && (!ok || bytes.LastIndexByte(dir, '/') != 0) {
		return -1, errNoReply
	}
	fd, err = syscall.Open(string(path), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	id, fifo, err := fileStat(fd)
	for _, own := range s.own {
		fifo = fifo && id != own
	}
	if err == nil && !fifo {
		err = errNoReply
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send writes b and closes fd. A FIFO without room for all of it has an asker
// that does not read: it gets what fits, which is its loss alone.
func (s *replies) send(fd int, b []byte) error {
	n, err := syscall.Write(fd, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	syscall.Close(fd)
	return err
}

// sendRequest is the client's half of the request FIFO: one write, and while
// there is no room for it a short sleep, since poll(2) may call a FIFO writable
// and another client may then be faster.
func sendRequest(path string, frame []byte, deadline time.Time) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == syscall.ENXIO {
		return fmt.Errorf("no server reads %s", path)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		_, err := syscall.Write(fd, frame) // all or nothing: at most PIPE_BUF bytes
		if err == nil {
			return nil
		}
		if err != syscall.EAGAIN && err != syscall.EINTR || time.Now().After(deadline) {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		time.Sleep(wait)
	}
}

// A replyFIFO is the client's end of one.
type replyFIFO struct {
	path    string
	f       *os.File
	fd      int      // of f
	out     *os.File // under tcpclient: where the request goes
	frame   []byte   // the request, kept for its memory
	buf     []byte   // the reply, likewise
	spoiled bool     // not to be used again
}

// newReplyFIFO makes one with a name that cannot be guessed. It is opened to
// read and write: with no writer of its own every read after the first answer
// would find the end of the file that the server's close left behind.
func newReplyFIFO(dir string) (*replyFIFO, error) {
	path := filepath.Join(dir, "inquery."+rand.Text())
	if err := syscall.Mkfifo(path, 0o660); err != nil {
		return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err == nil {
		err = syscall.Fchmod(fd, 0o660) // the umask may have shut out the server's group
	}
	if err != nil {
		os.Remove(path)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &replyFIFO{path: path, fd: fd, f: os.NewFile(uintptr(fd), path), buf: make([]byte, headerSize+maxReply+1)}, nil
}

// tcpclientReply is the connection that tcpclient leaves to its program.
func tcpclientReply() *replyFIFO {
	syscall.SetNonblock(6, true) // so that reading it can have a deadline
	return &replyFIFO{path: "socket", fd: 6, f: os.NewFile(6, "descriptor 6"), out: os.NewFile(7, "descriptor 7"),
		buf: make([]byte, headerSize+maxReply+1)}
}

// unlinked reports whether the FIFO has lost its name.
func (in *replyFIFO) unlinked() bool {
	var st syscall.Stat_t
	return in.out == nil && syscall.Fstat(in.fd, &st) == nil && st.Nlink == 0
}

// remove ends it. Only its maker knows the name: nobody else's file goes.
func (in *replyFIFO) remove() {
	if in.f.Close(); in.out == nil {
		os.Remove(in.path)
	}
}

// receive reads the one answer that is due. Anything behind it is somebody
// else's writing: the answer stands, the FIFO is spoiled.
func (in *replyFIFO) receive(t Type) (Answer, error) {
	got, want := 0, headerSize
	for got < want {
		n, err := in.f.Read(in.buf[got:])
		if err != nil {
			return "", err
		}
		if got += n; got < headerSize {
			continue
		}
		code, most := Answer(in.buf[:headerSize]).Code(), maxReply
		if t.extension() {
			most = maxText
		}
		if code > most {
			return "", fmt.Errorf("%w: a reply of %d bytes", ErrInvalid, code)
		}
		if want = headerSize; code > 0 && t >= TypePasswd {
			want += code
		}
		if len(in.buf) <= want {
			in.buf = append(in.buf[:got], make([]byte, want+1-got)...)
		}
	}
	in.spoiled = in.spoiled || got > want
	return Answer(in.buf[:want]), nil
}
