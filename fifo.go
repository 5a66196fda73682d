package inlookup

// The named pipe, and the server that answers what comes over it.
//
// The request FIFO is a byte stream into which anyone with the right to write
// can put anything. One promise of the kernel keeps it usable: a write(2) of at
// most PIPE_BUF bytes is never mixed with another (pipe(7)). So an honest frame
// lies in the stream in one piece, and frames finds it by trying every byte as
// the first one of a frame. Jumping from frame to frame would be faster, but
// junk that looks like the head of a frame would swallow the honest one behind
// it.
//
// The reply FIFO is a path that anyone may have named. The server does nothing
// to it that could hurt its owner: it opens it without following a link and
// without waiting, checks that it is a FIFO, writes once and closes. It never
// creates and never removes it.
//
// The server waits for nobody. The thread that reads a request answers a hit
// itself, because handing it on costs more than answering. What must wait for a
// database goes to goroutines, bounded in number; a question beyond the bound
// is answered "error" at once. Questions about the server have lanes of their
// own.
//
// The server uses bare descriptors. An os.File would put the runtime's poller
// between the pipe and its reader: one more thread to wake for each request.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

// RequestFIFOs returns the FIFOs on which a client can ask the server called
// name, best first; a nil getenv stands for os.Getenv. An empty name stands for
// INFIFO, or "infifo" without that. A name that begins with / or . is a path.
// Any other lies in INFIFODIR, else FIFODIR, else the C programs' default
// directory. There it may have instances NAME.1, NAME.2 and so on: these come
// first, and last, for when nobody reads them, NAME itself.
func RequestFIFOs(getenv func(string) string, name string) []string {
	e := environ{getenv}
	path := e.requestFIFO(name)
	if isPath(e.infifo(name)) {
		return []string{path}
	}
	var paths []string
	for n := 1; ; n++ {
		next := instance(path, n)
		if _, err := os.Lstat(next); err != nil {
			return append(paths, path)
		}
		paths = append(paths, next)
	}
}

func (e environ) infifo(name string) string { return cmp.Or(name, e.get("INFIFO", "infifo")) }
func isPath(name string) bool               { return name[0] == '/' || name[0] == '.' }

// instance returns the path of the n-th of several request FIFOs.
func instance(path string, n int) string { return path + "." + strconv.Itoa(n) }

// requestFIFO returns the path of the request FIFO called name.
func (e environ) requestFIFO(name string) string {
	name = e.infifo(name)
	if isPath(name) {
		return name
	}
	dir := e.get("INFIFODIR", e.get("FIFODIR", ""))
	if dir == "" {
		dir = defaultDir()
	}
	return filepath.Join(dir, name)
}

// defaultDir returns the C programs' directory of request FIFOs, which changed
// in
// 2023.
func defaultDir() string {
	const since2023, before = "/run/indimail/inlookup", "/var/indimail/inquery"
	if info, err := os.Stat(since2023); err == nil && info.IsDir() {
		return since2023
	}
	return before
}

// fifoMode returns the mode for FIFOs that either end makes.
func (e environ) fifoMode() (fs.FileMode, error) {
	text := e.get("FIFO_MODE", "660")
	mode, err := strconv.ParseUint(text, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("FIFO_MODE: want an octal mode like 0660, not %q", text)
	}
	return fs.FileMode(mode), nil
}

// indimail returns the user and group to whom root gives the FIFOs and
// directories it makes. For other users, and where there are none, both are -1:
// chown(2) then leaves them as they are.
var indimail = sync.OnceValues(func() (uid, gid int) {
	u, err1 := user.Lookup("indimail")
	g, err2 := user.LookupGroup("indimail")
	if os.Geteuid() != 0 || err1 != nil || err2 != nil {
		return -1, -1
	}
	uid, err1 = strconv.Atoi(u.Uid)
	gid, err2 = strconv.Atoi(g.Gid)
	if err1 != nil || err2 != nil {
		return -1, -1
	}
	return uid, gid
})

// giveAway sets the owner of the FIFO fd, and its mode, whatever the umask took
// of it.
func giveAway(fd int, mode fs.FileMode) error {
	if err := syscall.Fchmod(fd, uint32(mode)); err != nil {
		return err
	}
	uid, gid := indimail()
	return syscall.Fchown(fd, uid, gid)
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
	uid, gid := indimail()
	return errors.Join(os.Chmod(dir, 0o775), os.Lchown(dir, uid, gid))
}

// frames calls handle for every frame in b. It returns how many bytes of b are
// done with, and how many of those belonged to no frame. With more, b may end
// within a frame whose rest is still in the pipe.
//
// It loses no honest frame, since it tries every offset. It finds none twice:
// an honest frame holds no other, because its strings have no NULs, and a
// length that lies across its header is out of range. One can only seem to
// begin at the seam of two: c NUL NUL 0, the end of a path, an empty ip, and
// the low byte of the next length. It names one byte as its reply FIFO, which
// is no path, so nobody gets an answer; and it is never a flush.
func frames(b []byte, more bool, handle func(request)) (used, refused int) {
	covered := 0 // the end of the furthest frame so far
	for ; used < len(b); used++ {
		if len(b) > used+zeroAt && b[used+zeroAt] != 0 { // as at most offsets
			if used >= covered {
				refused++
			}
			continue
		}
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

// A fileID tells a file from all others, whatever their names.
type fileID struct{ dev, ino uint64 }

func idOf(st *syscall.Stat_t) fileID { return fileID{uint64(st.Dev), uint64(st.Ino)} }

func isFIFO(st *syscall.Stat_t) bool { return st.Mode&syscall.S_IFMT == syscall.S_IFIFO }

// A requestFIFO is the server's end of one.
type requestFIFO struct {
	path     string
	fd       int // read and write, so that it never sees an end when the last client goes
	id       fileID
	warning  error         // its mode or owner could not be set
	stopping atomic.Bool   // the byte 0 in it is from stop
	done     chan struct{} // closed when its reader has ended
}

// openRequestFIFO makes the FIFO at path, or takes over one that is there, and
// locks it. flock(2) works on a FIFO and ends with its process, so a lock means
// a server that is alive.
func openRequestFIFO(path string, mode fs.FileMode) (*requestFIFO, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	for {
		made := syscall.Mkfifo(path, uint32(mode))
		if made != nil && made != syscall.EEXIST {
			return nil, &fs.PathError{Op: "mkfifo", Path: path, Err: made}
		}
		flags := syscall.O_RDWR | syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
		fd, err := syscall.Open(path, flags, 0)
		if err == syscall.ENOENT {
			continue // a server that stops has just removed it
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		f := &requestFIFO{path: path, fd: fd, done: make(chan struct{})}
		err = f.claim(mode, made == nil)
		if err == nil && f.isNamed() {
			return f, nil
		}
		f.close()
		if err != nil {
			return nil, &fs.PathError{Op: "serve", Path: path, Err: err}
		}
	} // ends: each turn but the last means that another server has just stopped
}

// claim checks and locks the open file. A FIFO made by somebody else keeps its
// owner, and serves with its own mode if that cannot be changed.
func (f *requestFIFO) claim(mode fs.FileMode, made bool) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(f.fd, &st); err != nil {
		return err
	}
	if !isFIFO(&st) {
		return errors.New("there is a file here that is no FIFO")
	}
	f.id = idOf(&st)
	// Any other error: this system has no locks on FIFOs.
	if err := syscall.Flock(f.fd, syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		return ErrServed
	}
	if made {
		f.warning = giveAway(f.fd, mode)
	} else if fs.FileMode(st.Mode).Perm() != mode {
		f.warning = syscall.Fchmod(f.fd, uint32(mode))
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
		switch err {
		case nil:
			return n, nil
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EINTR:
			continue
		}
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
}

// stop takes the name away, so that nobody new asks, and makes read end when
// the pipe is empty. The byte wakes a read that already waits; a pipe that is
// too full for the byte has no waiting reader.
func (f *requestFIFO) stop() {
	if f.isNamed() {
		os.Remove(f.path)
	}
	f.stopping.Store(true)
	syscall.SetNonblock(f.fd, true)
	syscall.Write(f.fd, nul)
}

func (f *requestFIFO) close() { syscall.Close(f.fd) }

// closeWhenRead closes the FIFO when its reader has ended, and after stop,
// which must not write to a descriptor that is another file's by then.
func (f *requestFIFO) closeWhenRead() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-f.done:
			f.close()
			return
		case <-tick.C:
			syscall.Write(f.fd, nul) // somebody else may have read the last one
		}
	}
}

// removeLeftovers removes the FIFOs path.N, path.N+1 and so on that nobody
// reads: those of a killed server with more instances. Clients would go on
// choosing them.
func removeLeftovers(path string, n int) {
	const flags = syscall.O_WRONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_CLOEXEC
	for ; ; n++ {
		name := instance(path, n)
		var st syscall.Stat_t
		if syscall.Lstat(name, &st) != nil || !isFIFO(&st) {
			return
		}
		fd, err := syscall.Open(name, flags, 0)
		if err == syscall.ENXIO { // fifo(7): nobody has it open for reading
			os.Remove(name)
		}
		if err == nil {
			syscall.Close(fd)
		}
	}
}

// A Server answers requests from FIFOs with what Resolver says. If that is a
// Cache, the thread that read a request answers a hit itself. Fields must not
// change after Listen.
type Server struct {
	Resolver  Resolver
	Infifo    string              // name or path of the request FIFO; "": INFIFO, else infifo
	Instances int                 // request FIFOs NAME.1 to NAME.N; 0 or 1: NAME alone
	Getenv    func(string) string // nil: os.Getenv
	Log       *log.Logger         // faults; nil: none
	Debug     atomic.Bool         // whether there is a line for each request, on Out

	// Out takes the debug lines, one Write each, from several goroutines. It
	// must not block; nil: none.
	Out io.Writer

	// Admin answers TypeStatus, TypeFlush and TypeExplain, which ask about the
	// server itself; nil: "error". Up to three calls run at once.
	Admin func(ctx context.Context, q Query) (string, error)

	settings ServerSettings
	started  time.Time
	asRoot   bool
	failed   chan error // of a reader

	slots   chan struct{} // held by each miss
	misses  sync.WaitGroup
	readers sync.WaitGroup
	flushes chan adminRequest // the lane for TypeFlush
	reports chan adminRequest // the lane for TypeStatus
	explain chan adminRequest // the lane for TypeExplain

	fifos []*requestFIFO           // for Listen and Serve alone
	own   atomic.Pointer[[]fileID] // the same: an answer there would be read as a request

	logged atomic.Int64 // when, Unix seconds
	counts serverCounts
}

// An adminRequest is a question about the server that waits in a lane.
type adminRequest struct {
	q     Query
	replyPath []byte
}

const (
	deadline          = 3 * time.Second // for one answer; C clients wait 4 s
	maxMisses         = 4096            // questions that wait for Resolver
	adminQueue        = 64              // requests in a lane
	adminTime         = time.Second     // for one answer from Admin
	adminPause        = time.Millisecond
	renewEvery        = time.Second     // how often the request FIFOs are looked at
	readSize          = 256 << 10       // bytes in one read: four times what a pipe holds
	pipeMax           = 1 << 20         // the most that a pipe can hold (pipe(7))
	descriptorsWanted = maxMisses + 256 // for replies, databases and the rest
)

// serverCounts counts since the start.
type serverCounts struct {
	queries       [TypeDomain + 1]atomic.Uint64
	refused       atomic.Uint64
	undeliverable atomic.Uint64
	unopened      atomic.Uint64
	busy          atomic.Uint64
	unavailable   atomic.Uint64
	remade        atomic.Uint64
}

// ServerStats counts requests since Started.
type ServerStats struct {
	Started       time.Time
	Queries       [TypeDomain + 1]uint64 // by Type; [0] unused
	Refused       uint64                 // bytes that were no request
	Undeliverable uint64                 // replies without a reader, or without room
	Unopened      uint64                 // replies not opened for want of descriptors or rights
	Busy          uint64                 // refused because too many questions waited
	Unavailable   uint64                 // answered with an error
	Remade        uint64                 // request FIFOs made anew
	Waiting       int                    // questions that wait for Resolver now
}

// Stats returns the counts.
func (s *Server) Stats() ServerStats {
	c := &s.counts
	stats := ServerStats{
		Started:       s.started,
		Refused:       c.refused.Load(),
		Undeliverable: c.undeliverable.Load(),
		Unopened:      c.unopened.Load(),
		Busy:          c.busy.Load(),
		Unavailable:   c.unavailable.Load(),
		Remade:        c.remade.Load(),
		Waiting:       len(s.slots),
	}
	for t := range stats.Queries {
		stats.Queries[t] = c.queries[t].Load()
	}
	return stats
}

// ServerSettings is what a Server takes from its fields and the environment.
type ServerSettings struct {
	FIFOs    []string    // paths of the request FIFOs
	Mode     fs.FileMode // of those that are made
	ReplyDir string      // the only directory for reply FIFOs; "": any
}

// Settings returns what Listen goes by. An error names the variable that is
// wrong.
func (s *Server) Settings() (ServerSettings, error) {
	e := environ{s.Getenv}
	mode, err := e.fifoMode()
	if err != nil {
		return ServerSettings{}, err
	}
	text := e.get("REPLYDIR", "")
	dir := strings.TrimRight(text, "/")
	if text != "" && !filepath.IsAbs(dir) {
		return ServerSettings{}, fmt.Errorf("REPLYDIR: want an absolute path below /, not %q", text)
	}
	path := e.requestFIFO(s.Infifo)
	settings := ServerSettings{FIFOs: []string{path}, Mode: mode, ReplyDir: dir}
	if s.Instances > 1 {
		settings.FIFOs = nil
		for n := range s.Instances {
			settings.FIFOs = append(settings.FIFOs, instance(path, n+1))
		}
	}
	return settings, nil
}

// Listen makes, opens and locks the request FIFOs. Serve does it if it was not
// done. An error wraps ErrServed if another server has one of them.
func (s *Server) Listen() error {
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
		s.logLine("warning: at most %d descriptors (files) can be open, and %d are wanted: "+
			"under load answers will be lost; raise the limit (ulimit -n)",
			limit, descriptorsWanted)
	}
	s.fifos = nil
	for _, path := range settings.FIFOs {
		f, err := s.open(path)
		if err != nil {
			for _, f := range s.fifos {
				f.stop()
				f.close()
			}
			return err
		}
		s.fifos = append(s.fifos, f)
	}
	first := 1
	if s.Instances > 1 {
		first = s.Instances + 1
	}
	removeLeftovers(environ{s.Getenv}.requestFIFO(s.Infifo), first)
	s.noteOwn()
	s.failed = make(chan error, 1)
	s.slots = make(chan struct{}, maxMisses)
	s.flushes = make(chan adminRequest, adminQueue)
	s.reports = make(chan adminRequest, adminQueue)
	s.explain = make(chan adminRequest, adminQueue)
	s.started = time.Now()
	return nil
}

// FewDescriptors returns how many files this process may open, and whether a
// busy Server needs more.
func FewDescriptors() (limit uint64, few bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return uint64(r.Cur), uint64(r.Cur) < descriptorsWanted
}

// noteOwn tells checkReply which FIFOs are the server's own.
func (s *Server) noteOwn() {
	var own []fileID
	for _, f := range s.fifos {
		own = append(own, f.id)
	}
	s.own.Store(&own)
}

// Serve answers until ctx is done. Then it removes the request FIFOs, answers
// what was asked before, and returns nil. That takes at most deadline.
func (s *Server) Serve(ctx context.Context) error {
	if s.failed == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	var lanes sync.WaitGroup
	lanes.Go(func() { s.administer(adminCtx, s.flushes) })
	lanes.Go(func() { s.administer(adminCtx, s.reports) })
	lanes.Go(func() { s.administer(adminCtx, s.explain) })
	for _, f := range s.fifos {
		s.readers.Go(func() { s.read(f) })
	}
	err := s.watch(ctx)
	for _, f := range s.fifos {
		f.stop()
		s.readers.Go(f.closeWhenRead)
	}
	stopAdmin()
	ended := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(s.flushes)
		close(s.reports)
		close(s.explain)
		lanes.Wait()
		s.misses.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.failed = nil // so another Serve listens anew
	case <-time.After(2 * deadline): // a file server of somebody's reply FIFO hangs
		s.logLine("some answers hang: the end does not wait for them")
	}
	return err
}

// watch waits until ctx is done or a reader fails, and looks after the FIFOs.
func (s *Server) watch(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	complaint := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case <-tick.C:
		}
		err := s.renew()
		if err == nil {
			complaint = ""
		} else if err.Error() != complaint {
			complaint = err.Error()
			s.logLine("a request FIFO is lost, and cannot be made anew: %v", err)
		}
	}
}

// renew makes request FIFOs anew that were removed or replaced: by a cleaner of
// old files, or by a person. What was written to the old one is still answered.
func (s *Server) renew() error {
	var errs []error
	for i, old := range s.fifos {
		if old.isNamed() {
			continue
		}
		f, err := s.open(old.path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.logLine("%s was removed or replaced: made anew", f.path)
		s.counts.remade.Add(1)
		s.fifos[i] = f
		s.noteOwn()
		old.stop()
		s.readers.Go(func() { s.read(f) })
		s.readers.Go(old.closeWhenRead)
	}
	return errors.Join(errs...)
}

// open opens a request FIFO.
func (s *Server) open(path string) (*requestFIFO, error) {
	f, err := openRequestFIFO(path, s.settings.Mode)
	if err == nil && f.warning != nil {
		s.logLine("warning: %s keeps its mode and owner: %v", path, f.warning)
	}
	return f, err
}

// read answers what comes from one FIFO, until it is stopped and empty. A
// client that keeps the FIFO open and goes on asking does not hold it up: what
// was asked before the stop is among the next pipeMax bytes.
func (s *Server) read(f *requestFIFO) {
	defer close(f.done)
	b := make([]byte, readSize)
	have := 0 // bytes of b that wait for the rest of their frame
	r := &reader{s: s, fifo: f, name: filepath.Base(f.path)}
	r.cache, _ = s.Resolver.(*Cache)
	for left := pipeMax + readSize; left > 0; {
		n, err := f.read(b[have:])
		if err != nil {
			select {
			case s.failed <- err:
			default: // another reader was first
			}
			return
		}
		if n == 0 {
			return
		}
		stopping := f.stopping.Load()
		if stopping {
			left -= n
		}
		have += n
		used, refused := frames(b[:have], have == len(b), r.answer)
		have = copy(b, b[used:have])
		if refused > 0 && !stopping {
			s.counts.refused.Add(uint64(refused))
			s.logf("%s: %d bytes that are no request", f.path, refused)
		}
	}
}

// A reader answers the requests of one FIFO. Its buffers spare a hit most
// allocations.
type reader struct {
	s     *Server
	fifo  *requestFIFO
	name  string
	cache *Cache // nil: Resolver is none
	key   []byte
	out   []byte // an answer
	line  []byte // of debug
}

// answer answers a hit, and hands any other request on.
func (r *reader) answer(q request) {
	s := r.s
	var a Answer
	hit := false
	if r.cache != nil {
		a, hit = r.cache.peek(&r.key, q.typ, q.email)
	}
	if !q.typ.extension() {
		s.counts.queries[q.typ].Add(1)
	}
	if s.Debug.Load() && s.Out != nil {
		r.line = appendDebug(r.line[:0], r.name, q, hit)
		s.Out.Write(r.line)
	}
	switch {
	case hit:
		r.out = append(r.out[:0], a...)
		s.reply(q.replyPath, func() []byte { return r.out })
	case q.typ.extension():
		s.queue(q)
	default:
		s.miss(q)
	}
}

// queue puts a question about the server into its lane.
func (s *Server) queue(r request) {
	lane := s.reports
	switch r.typ {
	case TypeFlush:
		lane = s.flushes
	case TypeExplain:
		lane = s.explain
	}
	select {
	case lane <- adminRequest{r.query(), bytes.Clone(r.replyPath)}:
	default:
		s.refuse(r)
	}
}

// refuse answers "error" at once because too many questions wait.
func (s *Server) refuse(r request) {
	s.counts.busy.Add(1)
	s.logf("too many questions wait: a %v is answered with an error", r.typ)
	s.reply(r.replyPath, func() []byte { return []byte(errorAnswer(r.typ)) })
}

// administer answers the questions of one lane. The pause leaves the processor
// to others, however many of these questions come.
func (s *Server) administer(ctx context.Context, lane <-chan adminRequest) {
	for r := range lane {
		limited, cancel := context.WithTimeout(ctx, adminTime)
		a := s.resolve(limited, r.q) // also if nobody waits: a flush must not be lost
		cancel()
		s.reply(r.replyPath, func() []byte { return []byte(a) })
		time.Sleep(adminPause)
	}
}

// miss has a question answered by Resolver, in a goroutine.
func (s *Server) miss(r request) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.refuse(r)
		return
	}
	q := r.query()
	path := bytes.Clone(r.replyPath)
	s.misses.Go(func() {
		defer func() { <-s.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		s.reply(path, func() []byte { return []byte(s.resolve(ctx, q)) })
	})
}

// resolve returns the answer that travels, with errors as the wire has them.
func (s *Server) resolve(ctx context.Context, q Query) Answer {
	a, err := s.lookUp(ctx, q)
	if err != nil {
		s.counts.unavailable.Add(1)
		s.logf("%v", err)
		return errorAnswer(q.Type)
	}
	return a
}

func (s *Server) lookUp(ctx context.Context, q Query) (Answer, error) {
	if !q.Type.extension() {
		return s.Resolver.Resolve(ctx, q)
	}
	if s.Admin == nil {
		return "", fmt.Errorf("%w: %v", ErrInvalid, q.Type)
	}
	text, err := s.Admin(ctx, q)
	return NewData(q.Type, text), err
}

// reply opens the reply FIFO, finds out the answer and writes it: in this
// order, so that a client that has gone costs no question to a database. A FIFO
// without room for all of it belongs to a client that does not read: it gets
// what fits.
func (s *Server) reply(path []byte, answer func() []byte) {
	fd, err := s.openReply(path)
	switch err {
	case nil:
	case syscall.EACCES, syscall.EMFILE, syscall.ENFILE: // the client may be there
		s.counts.unopened.Add(1)
		s.logf("open reply FIFO %q: %v", path, err)
		return
	default:
		s.counts.undeliverable.Add(1)
		return
	}
	a := answer()
	n, err := syscall.Write(fd, a)
	if err != nil || n < len(a) {
		s.counts.undeliverable.Add(1)
	}
	syscall.Close(fd)
}

var errNotReply = errors.New("not a reply FIFO")

// openReply opens a reply FIFO for one write. O_NOFOLLOW takes no link for it.
// O_NONBLOCK fails at once for a FIFO that nobody reads (fifo(7): ENXIO).
// Nothing is created or truncated, and what is checked is what was opened, so
// nothing can change in between. REPLYDIR keeps out devices, which may notice
// being opened.
func (s *Server) openReply(path []byte) (int, error) {
	slash := bytes.LastIndexByte(path, '/')
	if slash < 0 || path[0] != '/' {
		return -1, errNotReply
	}
	if s.settings.ReplyDir != "" && string(path[:slash]) != s.settings.ReplyDir {
		return -1, errNotReply
	}
	const flags = syscall.O_WRONLY | syscall.O_NONBLOCK | syscall.O_NOFOLLOW |
		syscall.O_NOCTTY | syscall.O_CLOEXEC
	fd, err := syscall.Open(string(path), flags, 0)
	if err != nil {
		return -1, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || !s.mayReplyTo(&st) {
		syscall.Close(fd)
		return -1, errNotReply
	}
	return fd, nil
}

// mayReplyTo reports whether the file is a FIFO, none of the server's own, and,
// for a server that runs as root, open to others than its owner. Root must not
// lend its rights to whoever names a path: FIFOs that control a program, such
// as those of supervise(8), are private to their owner. Clients make theirs for
// a group.
func (s *Server) mayReplyTo(st *syscall.Stat_t) bool {
	const openToOthers = 0o066
	if !isFIFO(st) {
		return false
	}
	if s.asRoot && st.Mode&openToOthers == 0 {
		return false
	}
	id := idOf(st)
	for _, own := range *s.own.Load() {
		if id == own {
			return false
		}
	}
	return true
}

// ServeConn answers one request that comes over r with one answer on w, as
// tcpserver(1) wants it.
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
			_, err := io.WriteString(w, string(s.resolve(ctx, req.query())))
			return err
		}
		n, err := r.Read(b[have:])
		have += n
		if n == 0 && err != nil {
			return fmt.Errorf("reading the request: %w", err)
		}
	}
}

// logf writes a line, at most one a second: clients can cause these.
func (s *Server) logf(format string, args ...any) {
	now, last := time.Now().Unix(), s.logged.Load()
	if now != last && s.logged.CompareAndSwap(last, now) {
		s.logLine(format, args...)
	}
}

func (s *Server) logLine(format string, args ...any) {
	if s.Log != nil {
		s.Log.Printf(format, args...)
	}
}

// appendDebug appends the lines that IndiMail's graphing program parses.
func appendDebug(b []byte, fifo string, r request, hit bool) []byte {
	b = appendWay(b, fifo, r)
	size := minRest + len(r.email) + len(r.replyPath) + len(r.ip)
	b = append(b, ", Bytes "...)
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, ", Query ['"...)
	b = append(b, r.typ.String()...)
	b = append(b, "'], User "...)
	b = appendPrintable(b, r.email)
	b = append(b, ", RemoteIp "...)
	if r.typ == TypeRelay {
		b = appendPrintable(b, r.ip)
	} else {
		b = append(b, "N/A"...)
	}
	b = append(b, '\n')
	if hit {
		b = appendWay(b, fifo, r)
		b = append(b, ", cache hit\n"...)
	}
	return b
}

func appendWay(b []byte, fifo string, r request) []byte {
	b = append(b, fifo...)
	b = append(b, "->"...)
	return appendPrintable(b, r.replyPath)
}

// appendPrintable appends text with a question mark for each character that
// could end the line or steer a terminal.
func appendPrintable(b, text []byte) []byte {
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		text = text[size:]
		if !strconv.IsPrint(c) || c == utf8.RuneError {
			c = '?'
		}
		b = utf8.AppendRune(b, c)
	}
	return b
}
