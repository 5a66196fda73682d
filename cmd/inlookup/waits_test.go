package main_test

// The server never waits for anybody: not for whoever reads its log, not for a
// store that hangs. Each test has the slow one beside others who must not
// notice.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
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

// twoStores returns a site whose domains good.test and hung.test lie in two
// stores, each with a MariaDB of its own.
func twoStores(t *testing.T, hung *mariadb.DB) *site {
	t.Helper()
	s := newSite(t, database(t))
	entry := "domain %s 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport %d\nuse_ssl 0\n" +
		"database indimail\nuser indimail\npass secret\n"
	s.control("mcdinfo", fmt.Sprintf(entry, "good.test", database(t).Port)+
		fmt.Sprintf(entry, "hung.test", hung.Port))
	return s
}

// crowd has many clients ask for users of a domain, each some four times in a
// second if it is told at once. It returns when all have asked, with a function
// that ends it and tells how many were told an error. A client that is told
// nothing is a fault.
func (s *site) crowd(clients int, domain string) (end func() (told int)) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var group sync.WaitGroup
	var asking, n atomic.Int64
	for range clients {
		c := s.newCaller("infifo")
		group.Go(func() {
			for ctx.Err() == nil {
				asking.Add(1)
				q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@" + domain}
				code, _, err := c.ask(q)
				if err != nil || code != -1 {
					s.t.Errorf("%s: code %d, %v, want -1", q.Email, code, err)
					return
				}
				n.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(100+rand.IntN(300)) * time.Millisecond):
				}
			}
		})
	}
	end = func() int {
		cancel()
		group.Wait()
		return int(n.Load())
	}
	s.t.Cleanup(func() { end() })
	eventually(s.t, "all of the crowd ask", func() bool { return asking.Load() >= int64(clients) })
	s.counts() // which the server answers after it has read what they asked
	return end
}

// A store that hangs, with 400 clients at it, delays nobody who asks another.
func TestHungStore(t *testing.T) {
	hung := mariadbtest.ForTest(t)
	s := twoStores(t, hung)
	s.serve()
	c := s.newCaller("infifo")
	s.misses(c, "hung.test", 10, patience)
	var without, with []time.Duration
	told := 0
	for range 2 {
		without = append(without, s.misses(c, "good.test", 150, 3*time.Second)...)
		if err := hung.Pause(); err != nil {
			t.Fatal(err)
		}
		end := s.crowd(400, "hung.test")
		with = append(with, s.misses(c, "good.test", 150, 3*time.Second)...)
		told += end()
		if err := hung.Continue(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the store is well again", func() bool {
			q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@hung.test"}
			code, _, err := c.ask(q)
			return err == nil && code == int(inlookup.StatusAbsent)
		})
	}
	usual, beside := median(without), median(with)
	t.Logf("a miss takes %v, beside the hung store %v (medians); %v and %v (means of %d and %d); "+
		"%d were told", usual, beside, mean(without), mean(with), len(without), len(with), told)
	if beside > 2*usual+10*time.Millisecond {
		t.Errorf("a miss takes %v beside a hung store, else %v", beside, usual)
	}
	// Few that take seconds are no matter to the median: so the mean, too.
	if usual, beside := mean(without), mean(with); beside > 2*usual+20*time.Millisecond {
		t.Errorf("a miss takes %v on average beside a hung store, else %v", beside, usual)
	}
	if told < 800 {
		t.Errorf("%d were told, want each of the 400, twice", told)
	}
}

// With as many waiting as the server lets wait, and more who come, a flush is
// carried out. Else the old password would outlive the outage.
func TestFlushDuringOutage(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	addUser(t, db, "flush", "example.com", "old")
	s := goldenSite(t, db)
	s.serve()
	d := inlookup.Directory{Resolver: s.short(patience)}
	if got := passwd(t, d, "flush@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	setPasswd(t, db, "flush", "example.com", "new")
	if err := db.Pause(); err != nil {
		t.Fatal(err)
	}
	flood := s.flood("infifo", inlookup.Query{Type: inlookup.TypeUser, Email: "wait#@example.com"})
	c := s.newCaller("infifo")
	eventually(t, "the server refuses some", func() bool {
		q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@example.com"}
		start := time.Now()
		code, _, err := c.ask(q)
		if err != nil {
			t.Fatal(err)
		}
		return code == -1 && time.Since(start) < time.Second
	})
	for _, test := range []struct {
		q    inlookup.Query
		want string
	}{
		{inlookup.Query{Type: inlookup.TypeFlush, Email: "flush@example.com"}, "1 entries flushed"},
		{inlookup.Query{Type: inlookup.TypeStatus}, "inlookup_waiting "},
		{inlookup.Query{Type: inlookup.TypeExplain, Email: "flush@example.com", IP: "3"}, "miss"},
	} {
		start := time.Now()
		code, text, err := c.ask(test.q)
		if err != nil || !strings.Contains(text, test.want) {
			t.Errorf("%v: code %d, %q, %v, want %q", test.q.Type, code, text, err, test.want)
		}
		t.Logf("%v answered after %v", test.q.Type, time.Since(start).Round(time.Millisecond))
	}
	flood.signal(syscall.SIGKILL)
	<-flood.done
	if err := db.Continue(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new password", func() bool {
		entry, err := d.Passwd(t.Context(), "flush@example.com")
		if err == nil && entry.Passwd == "old" {
			t.Fatal("the old password after a flush")
		}
		return err == nil && entry.Passwd == "new"
	})
}
