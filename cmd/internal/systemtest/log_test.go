package systemtest

// What the server writes: statistics, and a line for each request. It waits for
// nobody who reads that; here a slow log reader stands beside clients who must
// not notice.

import (
	"fmt"
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
func TestStoppedLogReaderCostsLinesAlone(t *testing.T) {
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
func TestGoneLogReaderCostsNothing(t *testing.T) {
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

func TestStatisticsAsTheCProgramHas(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve()
	c := s.client()
	for _, q := range []inlookup.Query{{Type: 1, Email: "user@example.com"}, {Type: 1, Email: "user@example.com"}, {Type: 1, Email: "missing@example.com"},
		{Type: 2, Email: "user@example.com", IP: "192.0.2.10"}, {Type: 3, Email: "user@example.com"}, {Type: 3, Email: "over@example.com"},
		{Type: 4, Email: "user@example.com"}, {Type: 5, Email: "alias@example.com"}, {Type: 6, Email: "example.com"}, {Type: 7, Email: "alias.example.org"},
		{Type: inlookup.TypeStatus}, {Type: inlookup.TypeExplain, Email: "user@example.com", IP: "1"}, {Type: inlookup.TypeFlush, Email: "no.example"}} {
		if _, err := c.Resolve(t.Context(), q); err != nil {
			t.Fatalf("%v: %v", q, err)
		}
	}
	const (
		first = "User:Relay:Password:Limit:Alias:Host:Domain 3 1 2 1 1 1 1 Cached Nodes 8"
		rest  = "Queries: 10\nSeconds: [0-9]+\\.[0-9]+\nQuery/Sec = [0-9]+\\.[0-9]+\n"
		stamp = "[0-9T:+Z-]+\n"
	)
	format := regexp.MustCompile("^" + first + "\nStart Time: " + stamp + "End +Time: " + stamp + rest + "$")
	p.signal(syscall.SIGUSR1)
	eventually(t, "statistics", func() bool { return strings.Contains(p.stdout.String(), "Query/Sec") })
	if got := p.stdout.String(); !format.MatchString(got) {
		t.Errorf("SIGUSR1:\n%s\nwant\n%s", got, format)
	}
	p.terminate()
	if got := p.stdout.String(); strings.Count(got, first+"\n") != 2 || !format.MatchString(got[strings.LastIndex(got, first):]) {
		t.Errorf("SIGUSR1 and SIGTERM:\n%s\nwant twice\n%s", got, format)
	}
}

// written returns all that the server has written. Lines leave in blocks, some time after they
// were made. So this asks for statistics, which come after them.
func (p *process) written() string {
	p.t.Helper()
	const last = "Query/Sec"
	before := strings.Count(p.stdout.String(), last)
	p.signal(syscall.SIGUSR1)
	eventually(p.t, "statistics", func() bool { return strings.Count(p.stdout.String(), last) > before })
	return p.stdout.String()
}

// askTwice asks a question of each type twice over infifo.2, and returns the debug lines for that.
func (s *site) askTwice() (want string) {
	s.t.Helper()
	names := map[inlookup.Type]string{1: "User Query", 2: "Relay Query", 3: "Password Query",
		4: "Host Query", 5: "Alias Query", 6: "Domain Limits Query", 7: "Domain Query"}
	for typ := inlookup.TypeUser; typ <= inlookup.TypeDomain; typ++ {
		for _, hit := range []bool{false, true} {
			email, ip, shown := "user@example.com", "", "N/A"
			if typ == inlookup.TypeRelay {
				ip, shown = "192.0.2.10", "192.0.2.10"
			}
			r := newReply(s.t, s.env["FIFOTMPDIR"])
			b := frame(typ, email, r.path, ip)
			send(s.t, s.fifo("infifo.2"), b)
			if _, err := r.read(patience); err != nil {
				s.t.Fatal(err)
			}
			want += fmt.Sprintf("infifo.2->%s, Bytes %d, Query ['%s'], User %s, RemoteIp %s\n",
				r.path, len(b)-4, names[typ], email, shown)
			if hit && typ != inlookup.TypeRelay {
				want += fmt.Sprintf("infifo.2->%s, cache hit\n", r.path)
			}
		}
	}
	return want
}

func TestRequestLines(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	s.askTwice()
	if got := p.written(); strings.Contains(got, "->") {
		t.Fatalf("without SIGUSR2: %q", got)
	}
	s.text(inlookup.Query{Type: inlookup.TypeFlush})
	asked := 0
	isOn := func() bool { // asks over the other FIFO
		asked++
		email := fmt.Sprintf("on%d", asked)
		s.ask("infifo.1", inlookup.Query{Type: inlookup.TypeRelay, Email: email, IP: "192.0.2.1"})
		return strings.Contains(p.written(), "User "+email+", RemoteIp 192.0.2.1\n")
	}
	p.signal(syscall.SIGUSR2)
	eventually(t, "debug lines after SIGUSR2", isOn)
	want, got := s.askTwice(), ""
	for line := range strings.Lines(p.written()) {
		if strings.HasPrefix(line, "infifo.2->") { // the other FIFO's are of isOn
			got += line
		}
	}
	if got != want {
		t.Errorf("debug lines\n%swant\n%s", got, want)
	}
	p.signal(syscall.SIGUSR2)
	eventually(t, "no more debug lines", func() bool { return !isOn() })
	if strings.Contains(p.stdout.String()+p.stderr.String(), "UserHash") {
		t.Error("a password hash is logged")
	}
}

// A question makes one line, whatever the client writes.
func TestHostileAddressMakesOneLine(t *testing.T) {
	s := newSite(t, nil)
	p := s.serve("-v")
	s.ask("infifo", inlookup.Query{Type: inlookup.TypeUser, Email: "x\nUser:Relay:Password\x1b[2J@example.com"})
	got := p.written()
	begin := strings.LastIndex(got, "infifo->") // behind that of the start
	if begin < 0 {
		t.Fatalf("no debug line: %q", got)
	}
	line, rest, _ := strings.Cut(got[begin:], "\n")
	if strings.Contains(line, "\x1b") || !strings.HasPrefix(rest, "User:Relay:Password:Limit:") {
		t.Errorf("debug lines %q", got)
	}
}
