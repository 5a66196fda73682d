package inlookup

// Both ends of a FIFO: make one, find one, read frames from it, deliver a reply into it.
//
// The request FIFO is a byte stream into which anybody with the right to write may put anything. What keeps it usable
// is one promise of the kernel: a write(2) of at most PIPE_BUF bytes is never mixed with another (pipe(7)). So an
// honest frame lies in the stream in one piece, and frames() finds it by trying every byte as the first of a frame.
// To skip from frame to frame would be quicker by some 50 ns a frame, and wrong: junk that looks like a frame and
// reaches into the next one would swallow it.
//
// The reply FIFO is a path that anybody may have named. Here the rule is to do nothing to it that could hurt its
// owner: it is opened without following a link and without waiting, checked to be a FIFO, written once and closed; it
// is never created and never unlinked. REPLYDIR, where set, is the only directory in which it may lie.
//
// The server's side is system calls on bare descriptors: os.File would put the runtime's poller between the pipe and
// its reader, a second thread that must wake before the first.

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// fifoPath applies the rules for INFIFO: a name that begins with / or . is a path, any other lies in the directory of
// request FIFOs.
func fifoPath(e environ, name string) (path string, relative bool) {
	name = or(name, e.get("INFIFO", "infifo"))
	if name[0] == '/' || name[0] == '.' {
		return name, false
	}
	return filepath.Join(e.get("INFIFODIR", e.get("FIFODIR", "/var/indimail/inquery")), name), true
}

// requestPaths returns the FIFOs on which a client may ask: of a relative name its instances NAME.1, NAME.2 and so on,
// and last, for when none of them is served, the path itself.
func requestPaths(e environ, name string) (paths []string) {
	path, relative := fifoPath(e, name)
	for i := 1; relative; i++ {
		instance := path + "." + strconv.Itoa(i)
		if _, err := os.Lstat(instance); err != nil {
			break
		}
		paths = append(paths, instance)
	}
	return append(paths, path)
}

// A request is a frame taken apart. Its slices lie in the reader's buffer.
type request struct {
	typ              Type
	email, reply, ip []byte
}

var nul = []byte{0}

// parseRequest takes b for the beginning of a frame. It returns the size of the frame, 0 if b is none, and -1 if b
// ends before that can be told.
func parseRequest(b []byte) (r request, size int) {
	if len(b) < headerSize {
		return r, -1
	}
	n := binary.NativeEndian.Uint32(b)
	if n < 5 || n > maxRequest-headerSize || len(b) > 4 && !Type(b[4]).known() || len(b) > 5 && b[5] != 0 {
		return r, 0
	}
	if uint32(len(b)-headerSize) < n {
		return r, -1
	}
	email, rest, ok1 := bytes.Cut(b[6:headerSize+n], nul)
	reply, rest, ok2 := bytes.Cut(rest, nul)
	ip, rest, ok3 := bytes.Cut(rest, nul)
	if !ok1 || !ok2 || !ok3 || len(rest) > 0 {
		return r, 0
	}
	return request{Type(b[4]), email, reply, ip}, headerSize + int(n)
}

// frames calls handle for every frame in b and returns how many bytes of b are done with and how many of them
// belonged to no frame. With more, b may end within a frame whose rest is still in the pipe.
//
// No honest frame is lost, since every offset is tried; none is found twice, since an honest frame holds no other:
// its strings have no NULs, and a length word that lies across its header is out of range. Across the seam between two
// of them one may seem to begin, in one place: a path's last letter c, its NUL, the empty ip's, and a length's low byte
// 0 read as length c. It names one byte, of 1 to 15, as its reply FIFO: no path, so it is answered nowhere, and no flush.
func frames(b []byte, more bool, handle func(request)) (used, refused int) {
	for covered := 0; used < len(b); used++ { // covered: the end of the furthest frame so far
		var r request
		n := 0
		if len(b)-used < 6 || b[used+5] == 0 { // else it is no frame, as most offsets: no need for a call
			r, n = parseRequest(b[used:])
		}
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

// A requestFIFO is the server's end of one.
type requestFIFO struct {
	path string
	fd   int         // read and write, so that it never sees an end when the last client goes
	info os.FileInfo // tells it from any other file, whatever the names
	size uintptr     // its capacity in bytes, see replies.open; 0 where there is no asking

	stopping atomic.Bool // the byte 0 in it is from stop
}

// openRequestFIFO makes the FIFO at path, or takes over one that was left there, and locks it: flock(2) works on a
// FIFO and goes with its process, so a held lock means a live server, or an asker who means harm.
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
		if f.close(); err != nil {
			return nil, &fs.PathError{Op: "serve", Path: path, Err: err}
		}
	} // ends: each turn but the last means that another server has just stopped
}

// claim makes the open file ours: a FIFO, locked, with mode and owner right.
func (f *requestFIFO) claim(mode fs.FileMode) (err error) {
	dup, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(f.fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	file := os.NewFile(dup, f.path) // for what os does more clearly than syscall
	defer file.Close()
	if f.info, err = file.Stat(); err == nil && f.info.Mode().Type() != fs.ModeNamedPipe {
		return errors.New("there is a file here that is no FIFO")
	}
	if syscall.Flock(f.fd, syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK {
		return ErrServed
	} // any other error: a system without locks on FIFOs, where nothing tells two servers apart
	if err == nil && f.info.Mode().Perm() != mode { // the umask took some of it, or it is an old FIFO
		err = file.Chmod(mode)
	}
	if uid, gid, ok := owner(); ok && err == nil {
		err = file.Chown(uid, gid)
	}
	f.size = capacity(f.fd, fGetPipeSize, 0)
	return errors.Join(err, syscall.SetNonblock(f.fd, false))
}

// enlarge gives the FIFO room for requestPipe bytes, where the kernel lets us choose: not the usual 16 pages.
func (f *requestFIFO) enlarge() { f.size = or(capacity(f.fd, fSetPipeSize, requestPipe), f.size) }

const requestPipe = 128 << 10

// pipeMax is the most that one may hold, whoever but root changed that (pipe(7): /proc/sys/fs/pipe-max-size, by default).
const pipeMax = 1 << 20

// Two calls of fcntl(2) that package syscall has no names for. Linux alone has them.
const (
	fSetPipeSize = 1031
	fGetPipeSize = 1032
)

// capacity asks for, or sets, how many bytes a pipe holds. It returns 0 for what is no pipe or FIFO, and on systems
// that cannot tell. No file system is asked: the kernel has a pipe in memory, wherever its name may lie.
func capacity(fd int, call, size uintptr) uintptr {
	n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), call, size)
	if errno != 0 {
		return 0
	}
	return n
}

// named reports whether the FIFO is still the one that its path names.
func (f *requestFIFO) named() bool {
	info, err := os.Lstat(f.path)
	return err == nil && os.SameFile(f.info, info)
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

// stop takes the name away, so that nobody new asks, and ends read once all that was asked is read. The byte wakes a
// read that waits already; a FIFO too full for it has no such read. Who has it open may go on asking: after pipeMax bytes
// all that was asked before has been read.
func (f *requestFIFO) stop() {
	if f.named() {
		os.Remove(f.path)
	}
	f.stopping.Store(true)
	syscall.SetNonblock(f.fd, true)
	syscall.Write(f.fd, []byte{0})
}

func (f *requestFIFO) close() { syscall.Close(f.fd) }

// makeDir makes dir and its missing parents, mode 0775 whatever the umask.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(filepath.Dir(dir)); err != nil { // ends: / exists
		return err
	}
	if err := os.Mkdir(dir, 0o775); errors.Is(err, fs.ErrExist) {
		return nil // another server was faster
	} else if err != nil {
		return err
	}
	if uid, gid, ok := owner(); ok {
		os.Lchown(dir, uid, gid)
	}
	return os.Chmod(dir, 0o775)
}

// owner returns whom root gives files and directories to, where there are such.
func owner() (uid, gid int, ok bool) {
	u, err := user.Lookup("indimail")
	g, err2 := user.LookupGroup("indimail")
	if os.Geteuid() != 0 || err != nil || err2 != nil {
		return 0, 0, false
	}
	uid, err = strconv.Atoi(u.Uid)
	gid, err2 = strconv.Atoi(g.Gid)
	return uid, gid, err == nil && err2 == nil
}

// replies delivers answers.
type replies struct {
	dir string         // "" or the only directory in which reply FIFOs may lie
	own []*requestFIFO // an answer in one of them would be read as a request
}

var errNoReply = errors.New("not a reply FIFO")

// open opens the reply FIFO for one write. What is not a FIFO with a reader is at most opened and closed (a device may
// notice that; REPLYDIR keeps it out): O_NOFOLLOW takes no link for it, O_NONBLOCK fails for a FIFO that nobody reads
// (fifo(7): ENXIO) instead of waiting, nothing is created or truncated, and what is looked at is what was opened, so
// that nothing can change between check and use.
//
// What has a capacity is a FIFO (fcntl(2): F_GETPIPE_SZ), and since our own have an unusual one, it mostly tells that it
// is not one of them (of many instances fstat(2) has to tell). It is asked instead of fstat(2) because the asker wakes
// when his FIFO is opened, and once more if the answer is not there then: 16 askers get 4 % more answers. Whoever
// changes the size of one of ours and names it has his own answer read as junk, which he could as well write into it
// himself.
func (s *replies) open(path []byte) (fd int, err error) {
	if i := bytes.LastIndexByte(path, '/'); i < 0 || path[0] != '/' || s.dir != "" && string(path[:i]) != s.dir {
		return -1, errNoReply
	}
	fd, err = syscall.Open(string(path), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	size := capacity(fd, fGetPipeSize, 0)
	if size > 0 && !slices.ContainsFunc(s.own, func(own *requestFIFO) bool { return own.size == size }) {
		return fd, nil
	}
	var st syscall.Stat_t
	if err = syscall.Fstat(fd, &st); err == nil && st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		err = errNoReply
	}
	for _, own := range s.own {
		if o := own.info.Sys().(*syscall.Stat_t); o.Ino == st.Ino && o.Dev == st.Dev {
			err = errNoReply
		}
	}
	if err != nil {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// send writes a and closes fd. A FIFO without room for all of it has an asker that does not read: it gets what fits,
// which is its loss alone.
//
// Neither write nor close waits for room or for the reader (pipe(7): O_NONBLOCK), so they are called without telling the
// runtime, which would make ready to run others meanwhile: askers that keep their FIFO get some 4 % more answers. Not so
// open, for which a path somebody named may go over a network. What write and close may wait for is the journal, if the
// FIFO is not on tmpfs, and all three for the lock of the pipe, which an asker can hold by reading into memory that
// somebody is slow to bring, such as a file of his own file system. The whole server then waits with him. Who may ask is
// trusted with every password; this, too, he could have in simpler ways. The bytes of a string never change, and it is
// held here: the kernel may read them where they lie.
func (s *replies) send(fd int, a Answer) (err error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.StringData(string(a)))), uintptr(len(a)))
	if errno != 0 {
		err = errno
	} else if int(n) < len(a) {
		err = io.ErrShortWrite
	}
	syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
	return err
}

// sendRequest is the client's half of the request FIFO: one write, and while there is no room for it a short sleep,
// since poll(2) may call a FIFO writable and another client may then be faster.
func sendRequest(ctx context.Context, path string, frame []byte) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil { // ENXIO, "no such device or address": nobody reads it
		return &fs.PathError{Op: "no server reads", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return fmt.Errorf("%s is no FIFO", path) // a file would take the request, and never answer
	}
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		_, err := syscall.Write(fd, frame) // all or nothing: at most PIPE_BUF bytes
		if err != syscall.EAGAIN && err != syscall.EINTR || ctx.Err() != nil {
			return os.NewSyscallError("write to "+path, err)
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
	buf     []byte   // what was read, got bytes, of the answer that is due
	got     int
	spoiled bool // not to be used again
}

// newReplyFIFO makes one with a name that cannot be guessed, but in /tmp seen: there who may ask the server, and only
// they, could send an answer here. In a directory that only the server and this user may search nobody can. It is
// opened to read and write: with no writer of its own every read after the first answer would find the end of the file
// that the server's close left behind.
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
		syscall.Close(fd) // -1, of an open that failed, is nobody's
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &replyFIFO{path: path, fd: fd, f: os.NewFile(uintptr(fd), path)}, nil
}

// tcpclientReply is the connection that tcpclient leaves to its program.
func tcpclientReply() *replyFIFO {
	syscall.SetNonblock(6, true) // so that reading it can have a deadline
	return &replyFIFO{path: "socket", fd: 6, f: os.NewFile(6, "descriptor 6"), out: os.NewFile(7, "descriptor 7")}
}

// clean reports whether nothing lies in the FIFO. No answer is due, so whatever does is somebody else's: an answer to a
// question of his own, say, for which he named this FIFO. Taken for the next answer it would let him in as another.
func (in *replyFIFO) clean() bool {
	n, err := syscall.Read(in.fd, make([]byte, 1)) // does not wait
	return n < 0 && err == syscall.EAGAIN
}

// unlinked reports whether the FIFO has lost its name.
func (in *replyFIFO) unlinked() bool {
	var st syscall.Stat_t
	return in.out == nil && syscall.Fstat(in.fd, &st) == nil && st.Nlink == 0
}

// remove ends it. Nobody else's file goes: with 128 random bits none has the same name by chance, and in a sticky
// directory, as /tmp is, nobody else can put one in its place.
func (in *replyFIFO) remove() {
	if in.f.Close(); in.out == nil {
		os.Remove(in.path)
	} else {
		in.out.Close()
	}
}

// firstWait is how long an answer over a kept FIFO is waited for before a look whether the FIFO still has its name.
const firstWait = 50 * time.Millisecond

// errUnlinked says that the server has unlinked a kept FIFO. A C server does so after it has answered, so it may come
// to light only when the next answer does not come.
var errUnlinked = errors.New("reply FIFO unlinked by the server")

// errForeign says that somebody has written into a kept FIFO.
var errForeign = errors.New("somebody wrote into the reply FIFO")

// receive waits for the one answer that is due, until ctx is done.
func (in *replyFIFO) receive(ctx context.Context, t Type, kept bool) (a Answer, err error) {
	in.got = 0
	deadline, _ := ctx.Deadline()
	if first := time.Now().Add(firstWait); kept && first.Before(deadline) {
		in.f.SetReadDeadline(first)
		if a, err = in.read(t); !errors.Is(err, os.ErrDeadlineExceeded) {
			return a, err
		}
		if in.unlinked() {
			return "", errUnlinked
		}
	}
	in.f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { in.f.SetReadDeadline(time.Unix(1, 0)) })
	a, err = in.read(t)
	in.spoiled = in.spoiled || !stop() // what stop did not stop may still set that deadline
	return a, err
}

// read reads one answer. Anything behind it is somebody else's writing: the answer stands, the FIFO is spoiled.
func (in *replyFIFO) read(t Type) (Answer, error) {
	want, most := headerSize, maxReply
	if t.extension() {
		most = maxText
	}
	for {
		if in.got >= headerSize {
			code := Answer(in.buf[:headerSize]).Code()
			if code > most {
				return "", fmt.Errorf("%w: a reply of %d bytes", ErrInvalid, code)
			}
			if code > 0 && t >= TypePasswd {
				want = headerSize + code
			}
		}
		if in.got >= want {
			in.spoiled = in.spoiled || in.got > want
			return Answer(in.buf[:want]), nil
		}
		if len(in.buf) <= want {
			in.buf = append(in.buf, make([]byte, max(want+1, 512)-len(in.buf))...)
		}
		n, err := in.f.Read(in.buf[in.got:])
		if in.got += n; err != nil {
			return "", err
		}
	}
}
