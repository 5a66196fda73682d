package inlookup

// The named pipe, and the server that answers what comes through it.
//
// The request FIFO is a byte stream, and anyone with the right to write can put
// anything into it. One promise of the kernel keeps it usable: a write(2) of at
// most PIPE_BUF bytes is never mixed with another (pipe(7)). So an honest frame
// lies in the stream in one piece, and frames finds it at any byte. Jumping from
// frame to frame would be faster, but junk that looks like the head of a frame
// would swallow the honest frame behind it.
//
// The reply FIFO is a path that anyone may have named. The server opens it
// without waiting, refuses it if it is a link or no FIFO, writes once and
// closes. It never creates or removes it.
//
// The server does not wait until a client reads. The thread that reads a
// request answers a hit itself, because handing it on costs more. Any other
// question goes to a goroutine. Their number is bounded for each kind, and a
// question beyond the bound is answered "error" at once. One wait is left:
// open(2) of a reply path on a file system that hangs. REPLYDIR prevents it, if
// it is a local directory in which no client can mount anything.
//
// The server uses bare file descriptors. With an os.File the runtime's poller,
// one more thread, would have to wake for each request.

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// instance returns the path of the n-th of several request FIFOs.
func instance(path string, n int) string { return path + "." + strconv.Itoa(n) }

// indimailIDs is what indimail has found; nil: nothing certain yet.
var indimailIDs atomic.Pointer[[2]int]

// indimail returns the user and the group indimail, or -1 and -1 where there are
// none. After a fault that may pass, such as no free descriptor, it looks again.
func indimail() (uid, gid int) {
	if ids := indimailIDs.Load(); ids != nil {
		return ids[0], ids[1]
	}
	ids := [2]int{-1, -1}
	u, err1 := user.Lookup("indimail")
	g, err2 := user.LookupGroup("indimail")
	exist := err1 == nil && err2 == nil
	if exist {
		ids[0], _ = strconv.Atoi(u.Uid) // a number on every Unix
		ids[1], _ = strconv.Atoi(g.Gid)
	}
	noUser := errors.As(err1, new(user.UnknownUserError))
	noGroup := errors.As(err2, new(user.UnknownGroupError))
	if exist || noUser || noGroup {
		indimailIDs.Store(&ids)
	}
	return ids[0], ids[1]
}

// giveAway sets the mode of an open file whatever the umask. What root has made
// it gives to indimail, if that exists. Other users call no chown: it would
// change nothing, and fail where a filter forbids it.
func giveAway(fd int, mode fs.FileMode) error {
	if err := syscall.Fchmod(fd, uint32(mode)); err != nil {
		return err
	}
	uid, gid := indimail()
	if uid < 0 || os.Geteuid() != 0 {
		return nil
	}
	return syscall.Fchown(fd, uid, gid)
}

// TrustsOwner reports whether a Server of this process takes over a request FIFO
// of this user without a warning: of root, of its own user and of indimail.
func TrustsOwner(uid int) bool {
	other, _ := indimail()
	return uid == 0 || uid == os.Geteuid() || uid == other
}

// makeDir makes dir and its missing parents, mode 0775 whatever the umask.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeDir(filepath.Dir(dir)); err != nil { // ends: / exists
		return err
	}
	err := os.Mkdir(dir, 0o775)
	if errors.Is(err, fs.ErrExist) {
		return nil // another server was faster
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(dir, safely, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("give away "+dir, giveAway(int(f.Fd()), 0o775))
}

// safely are the flags to open a file without waiting, and never through a link.
const safely = syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_NOCTTY | syscall.O_CLOEXEC

// makeReplyFIFO makes and opens a reply FIFO. It opens it for writing too,
// because a read finds the end of a FIFO that nobody has open for writing.
func makeReplyFIFO(dir string, mode fs.FileMode) (*os.File, error) {
	path := filepath.Join(dir, "inquery."+rand.Text())
	if err := syscall.Mkfifo(path, uint32(mode)); err != nil {
		return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|safely, 0)
	if err != nil {
		os.Remove(path)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := giveAway(fd, mode); err != nil {
		os.Remove(path)
		syscall.Close(fd)
		return nil, &fs.PathError{Op: "give away", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// frames calls handle for every frame in b. It returns how many bytes of b it
// is done with, and how many of those belong to no frame. If more is true, b
// may end within a frame whose rest is still in the pipe.
//
// It tries every offset, and finds no frame within an honest one: the strings
// hold no NULs, and a length that overlaps the header is out of range. But it
// may find a false frame where two honest ones meet, if the second length is a
// multiple of 256. On a little-endian machine:
//
//	... o NUL NUL | 0 1 0 0 ...    the end of a frame | the next length
//	    ^ a length of o            ^ and type 1, zero
//
// Such a frame does no harm: its reply path is a single byte, so no answer is
// sent, and it is never a flush.
func frames(b []byte, more bool, handle func(request)) (used, refused int) {
	covered := 0 // the end of the furthest frame so far
	for ; used < len(b); used++ {
		r, size := parseRequest(b[used:])
		if size == cutFrame && more {
			return used, refused
		}
		if size > 0 {
			covered = max(covered, used+size)
			handle(r)
		} else if used >= covered {
			refused++
		}
	}
	return used, refused
}

// A fileID identifies a file, whatever its name.
type fileID struct{ dev, ino uint64 }

func idOf(st *syscall.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

func isFIFO(st *syscall.Stat_t) bool { return st.Mode&syscall.S_IFMT == syscall.S_IFIFO }

// A requestFIFO is the server's end of a request FIFO.
type requestFIFO struct {
	path     string
	fd       int // for reading and writing: without a writer, read would find an end
	id       fileID
	warning  error         // its owner, or what could not be set
	lost     string        // why renew cannot make it again: logged
	stopping atomic.Bool   // a single NUL in it may be from stop
	done     chan struct{} // closed when its reader has ended
}

// openRequestFIFO makes the FIFO at path, or takes over one that is there, and
// locks it. A lock by flock(2) ends with its process, so a locked FIFO has a
// server that is alive.
func openRequestFIFO(path string, mode fs.FileMode) (*requestFIFO, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	for {
		made := syscall.Mkfifo(path, uint32(mode))
		if made != nil && made != syscall.EEXIST {
			return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: made}
		}
		fd, err := syscall.Open(path, syscall.O_RDWR|safely, 0)
		if err == syscall.ENOENT {
			continue // a server that stops has just removed it
		}
		if err != nil {
			if made == nil {
				os.Remove(path)
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		f := &requestFIFO{path: path, fd: fd, done: make(chan struct{})}
		err = f.claim(mode, made == nil)
		if err == nil && f.isNamed() {
			return f, nil
		}
		syscall.Close(f.fd)
		if err != nil {
			return nil, &fs.PathError{Op: "serve", Path: path, Err: err}
		}
	} // each further turn means that another server has just stopped
}

// claim checks and locks the open file. If somebody else made the FIFO it keeps
// its owner, and also its mode if that cannot be changed.
func (f *requestFIFO) claim(mode fs.FileMode, made bool) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(f.fd, &st); err != nil {
		return err
	}
	if !isFIFO(&st) {
		return errors.New("there is a file here that is no FIFO")
	}
	f.id = idOf(&st)
	// With any other error this system has no locks on FIFOs.
	if err := syscall.Flock(f.fd, syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		return ErrServed
	}
	var err error
	if made {
		err = giveAway(f.fd, mode)
	} else if fs.FileMode(st.Mode).Perm() != mode {
		err = syscall.Fchmod(f.fd, uint32(mode))
	}
	if err != nil {
		f.warning = fmt.Errorf("its mode or owner cannot be set: %w", err)
	}
	if !made && !TrustsOwner(int(st.Uid)) {
		f.warning = fmt.Errorf("its owner, uid %d, can read what is asked: remove it, "+
			"and the server will make another", st.Uid)
	}
	return syscall.SetNonblock(f.fd, false)
}

// isNamed reports whether the FIFO is still the one that its path names.
func (f *requestFIFO) isNamed() bool {
	var st syscall.Stat_t
	return syscall.Lstat(f.path, &st) == nil && idOf(&st) == f.id
}

// read waits for bytes. After stop it no longer waits, and returns 0 for none.
func (f *requestFIFO) read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(f.fd, b)
		if err == nil || err == syscall.EAGAIN {
			return max(n, 0), nil
		}
		if err != syscall.EINTR {
			return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
		}
	}
}

// stop removes the FIFO's name, so that no new client asks, and makes read end
// when the pipe is empty. The NUL wakes a read that already waits. A pipe that
// is too full for it has no waiting reader.
func (f *requestFIFO) stop() {
	if f.isNamed() {
		os.Remove(f.path)
	}
	f.stopping.Store(true)
	syscall.SetNonblock(f.fd, true)
	syscall.Write(f.fd, nul)
}

// closeWhenRead closes a stopped FIFO when its reader has ended. Until then it
// writes NULs, because somebody else may have read the last one.
func (f *requestFIFO) closeWhenRead() {
	for {
		select {
		case <-f.done:
			syscall.Close(f.fd)
			return
		case <-time.After(10 * time.Millisecond):
			syscall.Write(f.fd, nul)
		}
	}
}

// removeLeftovers removes those of the FIFOs path.1, path.2 and so on that
// nobody reads. A killed server with more instances has left them, and clients
// would go on choosing them. This server reads its own already.
func removeLeftovers(path string) {
	for n := 1; ; n++ {
		name := instance(path, n)
		var st syscall.Stat_t
		if syscall.Lstat(name, &st) != nil || !isFIFO(&st) {
			return
		}
		fd, err := syscall.Open(name, syscall.O_WRONLY|safely, 0)
		if err == syscall.ENXIO { // fifo(7): nobody has it open for reading
			os.Remove(name)
		}
		syscall.Close(fd) // after an error -1, which is nobody's
	}
}

// The errors of Listen and Serve.
var (
	ErrServed  = errors.New("another server holds this FIFO")
	ErrStarted = errors.New("this Server has been started already") // and is in use
)

// A Server answers requests from FIFOs with what Resolver says. If Resolver is
// a Cache, the thread that read a request answers a hit itself. Any other
// question gets a context of 3 seconds, which goes on when the client gives up.
// Fields must not change after Listen. If the variable REPLYDIR is set, replies
// go only to FIFOs in that directory.
//
// Listen makes the FIFOs, and Serve answers. After Serve both can be called
// again. A second Listen, and any call while Serve runs, changes nothing and
// returns ErrStarted. So does a call while answers hang that Serve did not wait
// for. Serve with a context that is done removes what Listen has made.
type Server struct {
	Resolver  Resolver
	Infifo    string              // name or path of the request FIFO; "": INFIFO, else infifo
	Instances int                 // N: FIFOs NAME.1 to NAME.N, at most 1000; 0 or 1: NAME
	Getenv    func(string) string // nil: os.Getenv

	// Log gets faults; nil: none. Of each kind that clients can cause it gets at
	// most one line a second. Its Writer must not block: requests wait meanwhile.
	Log *log.Logger

	// Admin answers TypeStatus, TypeFlush and TypeExplain, which ask about the
	// server itself; nil: "error". One call of each type runs at a time, beside
	// those of ServeConn. The one of inlookup(8) goes by Server.Stats and
	// Cache.Stats, by Cache.Flush, and by Cache.Explain. IP is as the client wrote
	// it, perhaps no type.
	Admin func(ctx context.Context, q Query) (string, error)

	// Trace is called for each request while Tracing is set, with the question
	// as it was written. A hit is in the cache. Several goroutines call it, and
	// it must not block. Of the request FIFO it gets the name.
	Trace   func(fifo, replyPath string, q Query, hit bool)
	Tracing atomic.Bool

	settings ServerSettings
	asRoot   bool
	readErr  chan error // why a reader ended
	bounds   map[Type]bound
	running  sync.WaitGroup                 // of all goroutines; the readers begin the others
	fifos    []*requestFIFO                 // only Listen and Serve use it
	own      atomic.Pointer[[]*requestFIFO] // the same, for mayReplyTo

	mu    sync.Mutex // guards stats
	stats ServerStats

	phase  atomic.Int32
	logged sync.Map // when logf last wrote of a kind, Unix seconds
}

// The phases of a Server.
const (
	idle      = iota // without FIFOs
	listening        // between Listen and Serve
	busy             // within Listen, and until no goroutine of Serve is left
)

// A bound limits the questions of one kind.
type bound struct {
	places chan struct{} // each holds one
	turn   *sync.Mutex   // held by the one that Admin answers
}

const (
	maxMisses         = 4096 // questions that wait for Resolver
	maxAdmin          = 64   // of each type that wait for Admin
	maxInstances      = 1000 // each keeps a thread, and Go ends a program with 10,000
	adminPause        = time.Millisecond
	renewEvery        = time.Second     // how often the request FIFOs are looked at
	readSize          = 256 << 10       // bytes in one read: four times what a new pipe holds
	pipeMax           = 1 << 20         // what a user can have a pipe hold (pipe(7))
	descriptorsWanted = maxMisses + 256 // for replies, databases and the rest
)

// ServerStats counts requests since Started.
type ServerStats struct {
	Started       time.Time
	Queries       [TypeDomain + 1]uint64 // by Type; [0] unused
	Refused       uint64                 // bytes that were no request
	Undeliverable uint64                 // replies with no FIFO, reader or room, or not in ReplyDir
	Unopened      uint64                 // replies not opened for lack of descriptors or rights
	Busy          uint64                 // refused because too many questions waited
	Unavailable   uint64                 // answered with an error
	Remade        uint64                 // request FIFOs made again
	Waiting       int                    // questions that wait for Resolver now
}

// Stats returns the counts.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Waiting = len(s.bounds[TypeUser].places)
	return stats
}

// count adds to one of s.stats.
func (s *Server) count(counter *uint64, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*counter += uint64(n)
}

// ServerSettings is what a Server takes from its fields and the environment.
type ServerSettings struct {
	FIFOs    []string    // paths of the request FIFOs
	Mode     fs.FileMode // of those that are made
	ReplyDir string      // REPLYDIR, the only directory for reply FIFOs; "": any
}

// Settings returns what Listen goes by. An error names the variable or field.
func (s *Server) Settings() (ServerSettings, error) {
	e := environ{s.Getenv}
	mode, err := e.fifoMode()
	if err != nil {
		return ServerSettings{}, err
	}
	dir := e.get("REPLYDIR", "")
	if dir != "" {
		dir = filepath.Clean(dir) // as Client does
		if dir == "/" || !filepath.IsAbs(dir) {
			err := fmt.Errorf("REPLYDIR: want an absolute path below /, not %q", dir)
			return ServerSettings{}, err
		}
	}
	if s.Instances > maxInstances {
		return ServerSettings{}, fmt.Errorf("field Instances: want at most %d", maxInstances)
	}
	path := e.requestFIFO(s.Infifo)
	fifos := []string{path}
	if s.Instances > 1 {
		fifos = nil
		for n := range s.Instances {
			fifos = append(fifos, instance(path, n+1))
		}
	}
	return ServerSettings{FIFOs: fifos, Mode: mode, ReplyDir: dir}, nil
}

// Listen makes the request FIFOs and their directory, opens and locks them.
// What root makes belongs to user and group indimail, if both exist. From then
// on clients can ask, and wait for Serve. An error wraps ErrServed if another
// server has one of the FIFOs. After an error there is no FIFO, and Listen can
// be tried again.
func (s *Server) Listen() error {
	if !s.phase.CompareAndSwap(idle, busy) {
		return ErrStarted
	}
	phase := int32(idle) // also if Getenv panics
	defer func() { s.phase.Store(phase) }()
	if err := s.listen(); err != nil {
		return err
	}
	phase = listening
	return nil
}

func (s *Server) listen() error {
	if s.Resolver == nil {
		return errNoResolver
	}
	settings, err := s.Settings()
	if err != nil {
		return err
	}
	s.settings = settings
	s.asRoot = os.Geteuid() == 0
	if limit, few := FewDescriptors(); few {
		s.logLine("warning: at most %d descriptors (files) can be open, and %d are wanted: under "+
			"load answers will be lost; raise the limit (ulimit -n)", limit, descriptorsWanted)
	}
	s.fifos = nil
	for _, path := range settings.FIFOs {
		f, err := s.open(path)
		if err != nil {
			for _, f := range s.fifos {
				f.stop()
				syscall.Close(f.fd)
			}
			return err
		}
		s.fifos = append(s.fifos, f)
	}
	removeLeftovers(environ{s.Getenv}.requestFIFO(s.Infifo))
	s.noteOwn()
	s.readErr = make(chan error, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	// A flood of questions about the server takes no place of the others, and a
	// flush finds one when all others are taken.
	s.bounds = make(map[Type]bound)
	misses := bound{places: make(chan struct{}, maxMisses)}
	for t := range typeNames {
		s.bounds[t] = misses
		if t.extension() {
			s.bounds[t] = bound{make(chan struct{}, maxAdmin), new(sync.Mutex)}
		}
	}
	s.stats = ServerStats{Started: time.Now()}
	return nil
}

// FewDescriptors returns how many files this process may open, and whether a
// busy Server needs more.
func FewDescriptors() (limit uint64, few bool) {
	var r syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
	return uint64(r.Cur), err == nil && uint64(r.Cur) < descriptorsWanted
}

// noteOwn tells mayReplyTo which FIFOs are the server's own: an answer there
// would be read as a request.
func (s *Server) noteOwn() {
	own := slices.Clone(s.fifos)
	s.own.Store(&own)
}

// Serve calls Listen, unless that has been done, and answers until ctx is done.
// Then it removes the request FIFOs, answers what was asked before, and returns
// nil. That takes at most 3 seconds, or 6 if a file system or Resolver hangs.
// If a request FIFO cannot be read it returns the error.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil && err != ErrStarted {
		return err
	}
	if !s.phase.CompareAndSwap(listening, busy) {
		return ErrStarted
	}
	for _, f := range s.fifos {
		s.running.Go(func() { s.read(f) })
	}
	err := s.watch(ctx)
	for _, f := range s.fifos {
		f.stop()
		s.running.Go(f.closeWhenRead)
	}
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		s.phase.Store(idle)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(2 * deadline): // the file system of a reply FIFO hangs
		s.logLine("some answers hang: the end does not wait for them")
	}
	return err
}

// watch renews the FIFOs until ctx is done or a reader has an error.
func (s *Server) watch(ctx context.Context) error {
	tick := time.Tick(renewEvery)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.readErr:
			return err
		case <-tick:
			s.renew()
		}
	}
}

// renew makes request FIFOs again that were removed or replaced, perhaps by a
// cleaner of old files. What was written to the old one is still answered.
func (s *Server) renew() {
	for i, old := range s.fifos {
		if old.isNamed() {
			old.lost = ""
			continue
		}
		f, err := s.open(old.path)
		if err != nil {
			if err.Error() != old.lost {
				s.logLine("a request FIFO is lost, and cannot be made again: %v", err)
			}
			old.lost = err.Error()
			continue
		}
		s.logLine("%s was removed or replaced: made again", f.path)
		s.count(&s.stats.Remade, 1)
		s.fifos[i] = f
		s.noteOwn()
		old.stop()
		s.running.Go(func() { s.read(f) })
		s.running.Go(old.closeWhenRead)
	}
}

// open opens a request FIFO.
func (s *Server) open(path string) (*requestFIFO, error) {
	f, err := openRequestFIFO(path, s.settings.Mode)
	if err == nil && f.warning != nil {
		s.logLine("warning: %s: %v", path, f.warning)
	}
	return f, err
}

// read answers what comes from one FIFO. If that ends early it ends Serve.
func (s *Server) read(f *requestFIFO) {
	defer close(f.done)
	err := errEnded // stays so after runtime.Goexit in Trace
	defer func() {
		if err == nil {
			return
		}
		select {
		case s.readErr <- err:
		default: // another reader was first
		}
	}()
	err = s.readAll(f)
}

// readAll answers until the FIFO is stopped and empty. A client that goes on
// asking cannot hold up the end: what was asked before the stop is among the next
// pipeMax bytes, and readAll ends after those.
func (s *Server) readAll(f *requestFIFO) error {
	b := make([]byte, readSize)
	have := 0 // bytes of b that wait for the rest of their frame
	r := &reader{s: s, name: filepath.Base(f.path)}
	r.cache, _ = s.Resolver.(*Cache)
	// The first read that counts may have begun before the stop: + readSize.
	for left := pipeMax + readSize; left > 0; {
		n, err := f.read(b[have:])
		if n == 0 || err != nil {
			return err
		}
		// After the read: who has read the NUL that stop writes sees stopping,
		// which stop sets first. So that NUL is never counted as junk.
		stopping := f.stopping.Load()
		if stopping {
			left -= n
		}
		have += n
		// A read that does not fill b empties the pipe, and no request is in a
		// pipe by half (pipe(7)). So only in a full b can one be cut.
		used, refused := frames(b[:have], have == len(b), r.answer)
		have = copy(b, b[used:have])
		if refused > 0 && !stopping {
			s.count(&s.stats.Refused, refused)
			s.logf("junk", "%s: bytes that are no request: %d", f.path, refused)
		}
	}
	return nil
}

// A reader answers the requests of one FIFO, with buffers of its own for hits.
type reader struct {
	s     *Server
	name  string // of the FIFO
	cache *Cache // nil: Resolver is none
	key   []byte
	out   []byte // an answer
}

// answer answers a hit, and hands any other request on.
func (r *reader) answer(req request) {
	s := r.s
	var wire string
	hit := false
	if r.cache != nil {
		wire, hit = r.cache.peek(&r.key, req.typ, req.email)
	}
	if !req.typ.extension() {
		s.count(&s.stats.Queries[req.typ], 1)
	}
	if err := r.trace(req, hit); err != nil {
		a := s.fail(req.typ, err)
		s.reply(req.replyPath, func() []byte { return []byte(a.Wire()) })
		return
	}
	if !hit {
		s.miss(req)
		return
	}
	r.out = append(r.out[:0], wire...)
	s.reply(req.replyPath, func() []byte { return r.out })
}

func (r *reader) trace(req request, hit bool) (err error) {
	if r.s.Tracing.Load() && r.s.Trace != nil {
		defer rescue(&err)
		q := Query{Type: req.typ, Email: string(req.email), IP: string(req.ip)}
		r.s.Trace(r.name, string(req.replyPath), q, hit)
	}
	return nil
}

// miss has a question answered in a goroutine.
func (s *Server) miss(r request) {
	b := s.bounds[r.typ]
	select {
	case b.places <- struct{}{}:
	default:
		s.count(&s.stats.Busy, 1)
		s.logf(r.typ.String(), "too many questions wait: a %v is answered with an error", r.typ)
		s.reply(r.replyPath, func() []byte { return []byte(errorAnswer(r.typ).Wire()) })
		return
	}
	q := r.query()
	path := bytes.Clone(r.replyPath)
	s.running.Go(func() {
		defer func() { <-b.places }()
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		answer := func() []byte { return []byte(s.resolve(ctx, q).Wire()) }
		if b.turn == nil {
			s.reply(path, answer)
			return
		}
		// Even if nobody waits for the answer: a flush must not be lost. The
		// pause keeps a flood of these questions from taking the processor.
		var a []byte
		defer func() { s.reply(path, func() []byte { return a }) }()
		b.turn.Lock()
		defer b.turn.Unlock() // before the reply
		a = answer()
		time.Sleep(adminPause)
	})
}

// resolve returns the answer that travels, with errors as the wire has them.
func (s *Server) resolve(ctx context.Context, q Query) Answer {
	a, err := s.lookUp(ctx, q)
	if err != nil {
		return s.fail(q.Type, err)
	}
	return a
}

// fail counts and logs an error, and returns the answer that tells it.
func (s *Server) fail(t Type, err error) Answer {
	s.count(&s.stats.Unavailable, 1)
	kind := "outage"
	switch {
	case errors.Is(err, errPanic):
		kind = "panic"
	case t.extension():
		kind = "admin"
	case !isOutage(err):
		kind = "invalid" // a question or a row, which clients choose
	}
	s.logf(kind, "%v", err)
	return errorAnswer(t)
}

func (s *Server) lookUp(ctx context.Context, q Query) (a Answer, err error) {
	if !q.Type.extension() {
		return askResolver(ctx, s.Resolver, q)
	}
	if s.Admin == nil {
		return Answer{}, fmt.Errorf("%w: %v", ErrInvalid, q.Type)
	}
	defer rescue(&err)
	text, err := s.Admin(ctx, q)
	return NewData(q.Type, text), err
}

// reply opens the reply FIFO, calls answer and writes what it returns. In this
// order a client that has gone costs no question to a database. If the FIFO has
// no room for all of it, its client does not read, and gets what fits.
//
// What is deferred also runs after runtime.Goexit, as in a test's FailNow.
func (s *Server) reply(path []byte, answer func() []byte) {
	fd, err := s.openReply(path)
	if err != nil {
		counter := &s.stats.Undeliverable
		if err == syscall.EACCES || err == syscall.EMFILE || err == syscall.ENFILE {
			counter = &s.stats.Unopened
		}
		if err != syscall.ENXIO { // the client may wait
			s.logf(err.Error(), "open reply FIFO %.200q: %v", path, err)
		}
		s.count(counter, 1)
		return
	}
	defer syscall.Close(fd)
	var a []byte
	defer func() {
		if a == nil { // its code -1 says "error" for every type
			a = []byte(s.fail(TypeUser, errEnded).Wire())
		}
		n, err := syscall.Write(fd, a)
		if err != nil || n < len(a) {
			s.count(&s.stats.Undeliverable, 1)
		}
	}()
	a = answer()
}

// openReply opens a reply FIFO for one write. With O_NONBLOCK a FIFO that nobody
// reads is an error at once (fifo(7): ENXIO). What is checked is the open file,
// so it cannot change in between. Outside REPLYDIR a device may notice this.
func (s *Server) openReply(path []byte) (int, error) {
	slash := bytes.LastIndexByte(path, '/')
	if slash < 0 { // of a false frame, or nobody's
		return -1, syscall.ENXIO
	}
	if path[0] != '/' {
		return -1, errors.New("not an absolute path")
	}
	name := string(path)
	if dir := s.settings.ReplyDir; dir != "" && name[:slash] != dir {
		name = filepath.Clean(name) // C clients do not clean their FIFOTMPDIR
		if filepath.Dir(name) != dir || bytes.Contains(path, []byte("/../")) {
			return -1, errors.New("outside REPLYDIR")
		}
	}
	fd, err := syscall.Open(name, syscall.O_WRONLY|safely, 0)
	if err != nil {
		return -1, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || !s.mayReplyTo(&st) {
		syscall.Close(fd)
		return -1, errors.New("not a FIFO that the server may write to")
	}
	return fd, nil
}

// mayReplyTo reports whether the file is a FIFO that is not the server's own.
//
// A server that runs as root also refuses a FIFO that only its owner can open.
// Such FIFOs control programs; those of supervise(8) do. Root must not lend its
// rights to anyone who names one. The FIFOs of clients are open to a group.
func (s *Server) mayReplyTo(st *syscall.Stat_t) bool {
	const openBeyondOwner = 0o066
	isPrivate := st.Mode&openBeyondOwner == 0
	if !isFIFO(st) || s.asRoot && isPrivate {
		return false
	}
	id := idOf(st)
	return !slices.ContainsFunc(*s.own.Load(), func(f *requestFIFO) bool { return f.id == id })
}

// ServeConn answers one request that comes over r with one answer on w, as
// tcpserver(1) wants it. The end of ctx does not end reading.
func (s *Server) ServeConn(ctx context.Context, r io.Reader, w io.Writer) error {
	if s.Resolver == nil {
		return errNoResolver
	}
	b := make([]byte, maxRequest)
	have := 0
	for {
		req, size := parseRequest(b[:have])
		if size == noFrame {
			return fmt.Errorf("%w: what came is no request", ErrInvalid)
		}
		if size > 0 {
			_, err := io.WriteString(w, s.resolve(ctx, req.query()).Wire())
			return err
		}
		n, err := r.Read(b[have:])
		have += n
		if n == 0 && err != nil {
			return fmt.Errorf("reading the request: %w", err)
		}
	}
}

// logf writes a line, at most one a second of each kind, because clients can
// cause it. So a flood of one kind hides no other. No kind comes from a client,
// or there would be no end of them.
func (s *Server) logf(kind, format string, args ...any) {
	now := time.Now().Unix()
	if last, _ := s.logged.Swap(kind, now); last != any(now) {
		s.logLine(format, args...)
	}
}

func (s *Server) logLine(format string, args ...any) {
	if s.Log != nil {
		defer rescue(new(error)) // the Writer's: it costs the line
		s.Log.Printf(format, args...)
	}
}
