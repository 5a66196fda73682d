package systemtest

// The server waits for nobody who reads its log. Each test has a slow log reader
// beside clients who must not notice. outages_ops_test.go has a store that hangs.

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// A logPipe is a pipe with a log reader that can stop, as multilog does when its
// disk is full. It is a FIFO, so that the end that fills it need not be the end
// that the server has: O_NONBLOCK would belong to both.
type logPipe struct {
	t      testing.TB
	path   string
	r      *os.File
	fill   int          // descriptor to write to without waiting
	take   func([]byte) // gets what is read; nil: it becomes part of text
	gate   sync.Mutex   // held while the reader stands still
	parked atomic.Bool

	mu   sync.Mutex // guards text
	text strings.Builder
}

// newLogPipe returns one whose reader stands still.
func newLogPipe(t testing.TB, take func([]byte)) *logPipe {
	t.Helper()
	l := &logPipe{t: t, path: filepath.Join(t.TempDir(), "log"), take: take}
	if err := syscall.Mkfifo(l.path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(l.path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.r = os.NewFile(uintptr(fd), l.path)
	l.fill, err = syscall.Open(l.path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.gate.Lock()
	go l.read()
	t.Cleanup(func() {
		l.r.Close()
		syscall.Close(l.fill)
	})
	return l
}

func (l *logPipe) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := l.r.Read(buf)
		if err != nil {
			return
		}
		l.parked.Store(true)
		l.gate.Lock()
		l.parked.Store(false)
		l.gate.Unlock()
		if l.take != nil {
			l.take(buf[:n])
			continue
		}
		l.mu.Lock()
		l.text.Write(buf[:n])
		l.mu.Unlock()
	}
}

func (l *logPipe) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logPipe) start() { l.gate.Unlock() }

func (l *logPipe) stop() { l.gate.Lock() }

// full fills the pipe. Its reader, which stands still, may have read once more.
func (l *logPipe) full() {
	for {
		_, err := syscall.Write(l.fill, []byte("x\n"))
		if err == syscall.EAGAIN && l.parked.Load() {
			return
		}
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			l.t.Fatal(err)
		}
	}
}

// serveLogged starts a server whose outputs go to the log, as the shell has it.
func (s *site) serveLogged(l *logPipe, redirection string, args ...string) *process {
	s.t.Helper()
	script := "exec \"$@\" " + strings.ReplaceAll(redirection, "LOG", "'"+l.path+"'")
	words := append([]string{"-c", script, "sh", filepath.Join(bin, "inlookup")}, args...)
	p := s.startCommand(s.command("sh", words...))
	s.answers(p)
	return p
}

// junk writes bytes that are no request, of which the server says something.
func (s *site) junk(name string) {
	s.t.Helper()
	send(s.t, s.fifo(name), []byte("this is no request\n"))
}

// allHits asks from several clients at once, and has each question answered.
func (s *site) allHits(total int) {
	s.t.Helper()
	const clients = 8
	var group sync.WaitGroup
	var bad atomic.Bool
	for range clients {
		c := s.newCaller("infifo")
		group.Go(func() {
			for range total / clients {
				code, _, err := c.ask(hit)
				if err != nil || code != hitCode {
					bad.Store(true)
				}
				if bad.Load() { // the others, too, would wait in vain
					s.t.Errorf("code %d, %v", code, err)
					return
				}
			}
		})
	}
	group.Wait()
	if bad.Load() {
		s.t.FailNow()
	}
}

// The log reader stops before the first line. Lines are lost, nothing else.
func TestLogReaderStops(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, test := range []struct {
		name, user, redirection string
		loses                   bool // standard error has too few lines to lose any
	}{
		{"one pipe for both", "log1", ">LOG 2>&1", true}, // as under supervise with multilog
		{"standard error alone", "log2", "2>LOG", false},
		{"standard output alone", "log3", ">LOG", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			addUser(t, db, test.user, "example.com", "old")
			s := goldenSite(t, db)
			l := newLogPipe(t, nil)
			p := s.serveLogged(l, test.redirection, "-v")
			l.full()
			s.logReaderStops(l, p, db, test.user, test.loses)
		})
	}
}

func (s *site) logReaderStops(l *logPipe, p *process, db *mariadb.DB, user string, loses bool) {
	t, d := s.t, inlookup.Directory{Resolver: s.short(patience)}
	s.junk("infifo")
	s.allHits(2000)
	for range 100 { // standard error has lines of its own
		s.junk("infifo")
	}
	email := user + "@example.com"
	if got := passwd(t, d, email); got != "old" {
		t.Fatalf("password %q", got)
	}
	setPasswd(t, db, user, "example.com", "new")
	p.signal(syscall.SIGHUP)
	eventually(t, "SIGHUP works", func() bool { return passwd(t, d, email) == "new" })
	for range 200 { // statistics are lines as well
		p.signal(syscall.SIGUSR1)
	}
	eventually(t, "lost lines are counted", func() bool {
		s.junk("infifo")
		s.allHits(80)
		return !loses || s.counts()["log_lines_lost_total"] > 0
	})
	l.start()
	said := regexp.MustCompile(`[1-9][0-9]* lines? lost`)
	eventually(t, "the log says how many lines were lost", func() bool {
		return !loses || said.MatchString(l.String()+p.stderr.String()+p.stdout.String())
	})
	// Each line is whole, and later ones come again.
	s.junk("infifo")
	s.allHits(80)
	if text := l.String(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		t.Errorf("the log:\n%s", text)
	}
	l.stop()
	l.full()
	s.allHits(200)
	p.terminate() // within its time, though nobody reads
}

// The log reader has gone: nobody will ever read.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	l := newLogPipe(t, nil)
	p := s.serveLogged(l, ">LOG 2>&1", "-v")
	l.r.Close()
	l.start()
	s.allHits(2000)
	s.junk("infifo")
	p.signal(syscall.SIGUSR1)
	s.allHits(80)
	p.terminate()
}
