//go:build ops

package systemtest

// What goes wrong during TestSoak: clients that die, junk, hostile reply paths,
// signals, databases that go away or hang, a store that is overloaded or slow to
// connect, a log reader that stops, a flood.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// A client that is killed while it asks is this program again, started with the
// request FIFO and a directory for reply FIFOs in its environment.
const soakClient = "INLOOKUP_SOAK_CLIENT"

func init() {
	path, dir, ok := strings.Cut(os.Getenv(soakClient), " ")
	if !ok {
		return
	}
	var once sync.Once
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				reply := filepath.Join(dir, fmt.Sprint(i, ".", n))
				fd, err := openReply(reply)
				email := fmt.Sprintf("dead%d@example.com", n)
				if err == nil {
					err = writeRequest(path, frame(inlookup.TypeUser, email, reply, ""))
				}
				if err != nil {
					os.Exit(1) // the directory has gone, or the server
				}
				once.Do(func() { fmt.Println("asking") })
				if n%2 == 0 {
					readReply(fd, inlookup.TypeUser, time.Now().Add(soakTimeout))
				}
				syscall.Close(fd)
			}
		}()
	}
	select {} // until killed
}

// dying starts a client and kills it while it asks.
func (s *soak) dying(number int, rnd *rand.Rand) {
	dir := filepath.Join(s.dir, fmt.Sprint("client", number))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	program, err := os.Executable()
	if err != nil {
		s.t.Error(err)
		return
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), soakClient+"="+s.fifo("infifo.1")+" "+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dieWithParent != nil {
		dieWithParent(cmd.SysProcAttr)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	io.ReadAtLeast(out, make([]byte, 1), 1) // it asks now
	time.Sleep(time.Duration(rnd.IntN(20000)) * time.Microsecond)
	cmd.Process.Kill()
	cmd.Wait()
	s.dead.Add(1)
}

// garbage writes what is no request.
func (s *soak) garbage(rnd *rand.Rand) {
	// No more than is written in one piece: longer junk would be cut by requests.
	b := make([]byte, 1+rnd.IntN(4096))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	switch r := s.rows[rnd.IntN(len(s.rows))]; rnd.IntN(4) {
	case 0: // a beginning of a request
		b = r.to(filepath.Join(s.dir, "nobody"))
		b = b[:rnd.IntN(len(b))]
	case 1: // lengths and types that may be
		for i := 0; i+6 < len(b); i += 1 + rnd.IntN(40) {
			copy(b[i:], []byte{byte(rnd.IntN(200)), byte(rnd.IntN(2)), 0, 0, byte(1 + rnd.IntN(7)), 0})
		}
	case 2:
		clear(b)
	}
	if err := s.write(rnd, b); err != nil {
		s.t.Errorf("garbage: %v", err)
	}
	s.junk.Add(1)
}

// hostilePaths makes files that no answer may touch, and returns the paths of these and others.
func (s *soak) hostilePaths() (dir string, paths []string, full int) {
	s.t.Helper()
	dir = filepath.Join(s.dir, "hostile")
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.Mkdir(dir, 0o755), os.Mkdir(path("directory"), 0o777),
		os.WriteFile(path("file"), []byte("precious"), 0o666),
		os.WriteFile(path("empty"), nil, 0o666), syscall.Mkfifo(path("unread"), 0o666),
		os.Symlink("file", path("filelink")), os.Symlink("full", path("fifolink")),
		os.Symlink("made", path("dangling")), os.Link(s.fifo("infifo.1"), path("infifo"))); err != nil {
		s.t.Fatal(err)
	}
	full, err := openReply(path("full"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { syscall.Close(full) })
	fd, err := syscall.Open(path("full"), syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer syscall.Close(fd)
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; _, err = syscall.Write(fd, make([]byte, size)) {
		}
	}
	for _, name := range []string{"file", "empty", "directory", "unread", "filelink", "fifolink",
		"dangling", "infifo", "full", "absent", ""} {
		paths = append(paths, path(name))
	}
	return dir, append(paths, s.fifo("infifo.1"), s.fifo("infifo.2"),
		"/dev/null", "/dev/full", "/dev/tty", "/proc/self/fd/1", "/proc/self/fd/2",
		"/proc/self/mem", "infifo.1", "socket", "", "/"), full
}

// signals sends one to the server.
func (s *soak) signals(rnd *rand.Rand) {
	sig := []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT}[rnd.IntN(6)]
	if sig == syscall.SIGINT && time.Now().After(s.lastInt) {
		return
	}
	s.p.cmd.Process.Signal(sig)
	s.sent.Add(1)
	if sig == syscall.SIGINT {
		s.old.Store(time.Now().UnixNano())
	}
	if sig == syscall.SIGUSR2 { // no lines for a short while
		time.Sleep(20 * time.Millisecond)
		s.p.cmd.Process.Signal(sig)
		s.sent.Add(1)
	}
}

// An outage knows when one of the databases is away.
type outage struct {
	db *mariadb.DB

	mu   sync.Mutex // guards what follows
	away bool
	back time.Time // when it came back
}

func (o *outage) set(away bool) {
	o.mu.Lock()
	o.away, o.back = away, time.Now()
	o.mu.Unlock()
}

// since returns how long before start the database came back: 0 for not yet.
func (o *outage) since(start time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return 0
	}
	return max(0, start.Sub(o.back))
}

// hang has the database stand still for a time.
func (s *soak) hang(o *outage, length time.Duration) {
	o.set(true)
	defer o.set(false)
	if err := o.db.Pause(); err != nil {
		s.t.Error(err)
	}
	time.Sleep(length)
	if err := o.db.Continue(); err != nil {
		s.t.Error(err)
	}
}

// killLocal kills the local database, and starts it again after a time.
func (s *soak) killLocal(length time.Duration) {
	s.kills.Add(1)
	s.local.set(true)
	defer s.local.set(false)
	if err := s.local.db.Kill(); err != nil {
		s.t.Error(err)
	}
	time.Sleep(length)
	if err := s.local.db.Restart(context.Background()); err != nil {
		s.t.Error(err)
	}
}

// localAway takes the local database away for a time, in one of two ways. In
// each run the first two times are one of each. In a run of some minutes it hangs for
// 25 s at times.
func (s *soak) localAway(number int, run time.Duration, rnd *rand.Rand) {
	length := time.Duration(rnd.IntN(1500)) * time.Millisecond
	switch {
	case number == 1:
		s.killLocal(100 * time.Millisecond)
	case number == 2:
		s.pauses.Add(1)
		s.hang(&s.local, 500*time.Millisecond)
	case run > 4*time.Minute && number%40 == 20:
		s.longHangs.Add(1)
		s.hang(&s.local, soakLongHang)
	case rnd.IntN(8) == 0: // longer than any question has
		s.pauses.Add(1)
		s.hang(&s.local, 5*time.Second)
	case rnd.IntN(2) == 0:
		s.killLocal(length / 4)
	default:
		s.pauses.Add(1)
		s.hang(&s.local, length)
	}
}

// soakLongHang is longer than an attempt to connect may take.
const soakLongHang = 25 * time.Second

// storeFaults returns what has one thing after the other go wrong with the store of the
// cluster. The local users must not notice. In a run of a minute or more it hangs for
// 25 s at times.
func (s *soak) storeFaults(run time.Duration) func(rnd *rand.Rand) {
	number := 0
	return func(rnd *rand.Rand) {
		number++
		switch {
		case run > time.Minute && number%20 == 4:
			s.longHangs.Add(1)
			s.hang(&s.store, soakLongHang)
		case number%4 == 1:
			s.storeOverload(rnd)
		case number%4 == 2:
			s.storeSlowToConnect(rnd)
		default:
			s.storeHangs(rnd)
		}
	}
}

// storeHangs has the store stand still.
func (s *soak) storeHangs(rnd *rand.Rand) {
	s.hangs.Add(1)
	length := time.Duration(rnd.IntN(1000)) * time.Millisecond
	if rnd.IntN(4) == 0 { // longer than any question has
		length = 4 * time.Second
	}
	s.hang(&s.store, length)
}

// storeOverload makes SELECTs of the store slow, and has a crowd ask it more than it can
// do.
func (s *soak) storeOverload(rnd *rand.Rand) {
	s.overloads.Add(1)
	s.store.set(true)
	defer s.store.set(false)
	s.way.selects.Store(int64(100 * time.Millisecond))
	defer s.way.selects.Store(0)
	length := time.Second + time.Duration(rnd.IntN(3000))*time.Millisecond
	v := s.crowd.steady(300, length, func() inlookup.Query {
		return inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@" + soakDomain}
	})
	s.crowdAnswered.Add(int64(len(v.answered)))
	s.crowdRefused.Add(int64(len(v.refused)))
	if len(v.lost) > 0 {
		s.t.Errorf("overload: %v", v)
	}
	for _, f := range append(v.answered, v.refused...) {
		atLeast(&s.slowest, f.took)
	}
}

// storeSlowToConnect ends all connections to the store, and has it take 5 s to accept
// one.
func (s *soak) storeSlowToConnect(rnd *rand.Rand) {
	const slow = 5 * time.Second
	s.slowConnects.Add(1)
	s.store.set(true)
	defer s.store.set(false)
	s.way.greeting.Store(int64(slow))
	s.way.cut()
	time.Sleep(time.Duration(rnd.IntN(6000)) * time.Millisecond)
	s.way.greeting.Store(0)
	time.Sleep(slow) // what began before takes as long
}

// logStops has the log reader stand still for a time. Once in each run that is
// longer than any client waits.
func (s *soak) logStops(number int, rnd *rand.Rand) {
	s.stops.Add(1)
	length := time.Duration(rnd.IntN(1500)) * time.Millisecond
	if number == 2 || rnd.IntN(16) == 0 {
		length = soakAnswered + 2*time.Second
	}
	s.log.stop()
	time.Sleep(length)
	s.log.start()
}

// flushes lets the flood of flushes go for a time.
func (s *soak) flushes(rnd *rand.Rand) {
	s.floods.Add(1)
	s.flooder.cmd.Process.Signal(syscall.SIGCONT)
	time.Sleep(time.Duration(rnd.IntN(700)) * time.Millisecond)
	s.flooder.cmd.Process.Signal(syscall.SIGSTOP)
}

// flush has the server forget one user. In a flood of flushes it may be refused.
func (s *soak) flush(rnd *rand.Rand) {
	email := fmt.Sprintf("soak%d@example.com", rnd.IntN(soakUsers))
	q := inlookup.Query{Type: inlookup.TypeFlush, Email: email}
	a, err := s.observer.Resolve(context.Background(), q)
	if text, _ := a.Text(); err == nil && !strings.HasSuffix(text, "flushed\n") {
		s.t.Errorf("flush: %q", text)
	}
}
