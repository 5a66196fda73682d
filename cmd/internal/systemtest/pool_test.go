package systemtest

// What the tests of the pool share: a forwarder that makes a database slow, and a
// load of questions at a steady rate. The rates go by what the slow database can
// do, never by the speed of the machine. Each test is a scenario that may be tried
// again: where the machine stood still for a second, a question waited for it.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// A forwarder stands between inlookup and a database.
type forwarder struct {
	listener net.Listener
	port     string
	to       string
	from     atomic.Pointer[net.TCPAddr] // of connections to the database; nil: any

	greeting atomic.Int64 // nanoseconds for which the database's first word is held back
	selects  atomic.Int64 // nanoseconds for which each SELECT is held back

	opened    atomic.Int64 // connections
	abandoned atomic.Int64 // those that ended before the database's first word

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	silent map[net.Conn]bool // nothing passes any more
	quiet  bool              // connections that come are silent
}

// newForwarder returns one that listens at host.
func newForwarder(t testing.TB, host string, db *mariadb.DB) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f := &forwarder{
		listener: l,
		port:     port,
		to:       fmt.Sprint("127.0.0.1:", db.Port),
		conns:    make(map[net.Conn]bool),
		silent:   make(map[net.Conn]bool),
	}
	go f.serve()
	t.Cleanup(func() {
		l.Close()
		f.cut()
	})
	return f
}

func (f *forwarder) serve() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		go f.forward(client)
	}
}

// cut ends all connections.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

// silence lets nothing pass over any connection, until speak, and never again over those
// that there are.
func (f *forwarder) silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = true
	for c := range f.conns {
		f.silent[c] = true
	}
}

func (f *forwarder) speak() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = false
}

func (f *forwarder) isSilent(client net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.silent[client]
}

func (f *forwarder) forward(client net.Conn) {
	defer client.Close()
	dialer := net.Dialer{}
	if from := f.from.Load(); from != nil {
		dialer.LocalAddr = from
	}
	server, err := dialer.Dial("tcp", f.to)
	if err != nil {
		return
	}
	defer server.Close()
	f.opened.Add(1)
	f.mu.Lock()
	f.conns[client] = true
	f.silent[client] = f.quiet
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.conns, client)
		delete(f.silent, client)
		f.mu.Unlock()
	}()
	greeted := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		f.fromDatabase(client, server, greeted, gone)
		client.Close()
	}()
	f.toDatabase(server, client)
	close(gone)
	select {
	case <-greeted:
	default:
		f.abandoned.Add(1)
	}
}

// fromDatabase passes on what the database says. It closes greeted before it passes
// on the first word.
func (f *forwarder) fromDatabase(client, server net.Conn, greeted, gone chan struct{}) {
	first := make([]byte, 4096)
	n, err := server.Read(first)
	if err != nil {
		return
	}
	select {
	case <-time.After(time.Duration(f.greeting.Load())):
	case <-gone:
		return
	}
	if f.isSilent(client) {
		<-gone
		return
	}
	close(greeted)
	if _, err := client.Write(first[:n]); err == nil {
		io.Copy(client, server)
	}
}

// toDatabase passes on the packets of the client, each SELECT late.
func (f *forwarder) toDatabase(server, client net.Conn) {
	const query = 3 // the command in the first byte of a packet
	header := make([]byte, 4)
	for {
		if _, err := io.ReadFull(client, header); err != nil {
			return
		}
		size := binary.LittleEndian.Uint32(append(header[:3:3], 0))
		packet := make([]byte, 4+size)
		copy(packet, header)
		if _, err := io.ReadFull(client, packet[4:]); err != nil {
			return
		}
		if bytes.HasPrefix(packet[4:], []byte{query, 'S', 'E', 'L', 'E', 'C', 'T'}) {
			time.Sleep(time.Duration(f.selects.Load()))
		}
		if f.isSilent(client) {
			continue
		}
		if _, err := server.Write(packet); err != nil {
			return
		}
	}
}

// stormSite returns a site without control files, whose database is behind the
// forwarder. It has no cache: each question is asked of the database.
func stormSite(t testing.TB, f *forwarder) *site {
	t.Helper()
	s := newSite(t, nil)
	s.env["MYSQL_HOST"] = "127.0.0.1"
	s.env["MYSQL_VPORT"] = f.port
	s.env["MYSQL_PASSWD"] = "secret"
	s.env["USE_BTREE"] = "0"
	return s
}

// oneSelect is a question that needs one SELECT.
func oneSelect() inlookup.Query {
	return inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}
}

// threeSelects is a question that needs three: of the active users, of the inactive
// ones, and of the aliases.
func threeSelects() inlookup.Query {
	return inlookup.Query{Type: inlookup.TypeUser, Email: "stranger@example.com"}
}

// A fate is what became of a question.
type fate struct {
	asked time.Time
	took  time.Duration
	code  int
	err   error
}

// A verdict is a list of fates in other words.
type verdict struct {
	answered []fate
	refused  []fate
	lost     []fate // without any answer, or with a wrong one
}

func (v verdict) String() string {
	text := fmt.Sprintf("%d answered", len(v.answered))
	if len(v.answered) > 0 {
		text += fmt.Sprintf(" (median %v)", times(v.answered).round())
	}
	text += fmt.Sprintf(", %d refused", len(v.refused))
	if len(v.refused) > 0 {
		text += fmt.Sprintf(" (median %v)", times(v.refused).round())
	}
	if len(v.lost) > 0 {
		text += fmt.Sprintf(", %d lost: %v", len(v.lost), v.lost[0])
	}
	return text
}

// since returns the part of v that was asked at some time or later.
func (v verdict) since(start time.Time) (late verdict) {
	pick := func(all []fate) (some []fate) {
		for _, f := range all {
			if !f.asked.Before(start) {
				some = append(some, f)
			}
		}
		return some
	}
	return verdict{pick(v.answered), pick(v.refused), pick(v.lost)}
}

type durations []time.Duration

func times(fates []fate) (took durations) {
	for _, f := range fates {
		took = append(took, f.took)
	}
	return took
}

func (d durations) median() time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func (d durations) round() time.Duration { return d.median().Round(100 * time.Microsecond) }

// A load has callers that ask over FIFOs.
type load struct {
	t    testing.TB
	free chan *caller
}

// newLoad returns one with that many callers, which is how many questions can be on
// their way at a time.
func newLoad(s *site, callers int) *load {
	l := &load{s.t, make(chan *caller, callers)}
	for range callers {
		l.free <- s.newCaller("infifo")
	}
	return l
}

// judge sorts what became of the questions. Which of the right answers it was is looked
// at by other tests.
func judge(fates <-chan fate) (v verdict) {
	right := map[int]bool{
		int(inlookup.StatusActive):    true,
		int(inlookup.StatusOverQuota): true,
		int(inlookup.StatusAbsent):    true,
	}
	for f := range fates {
		switch {
		case f.err != nil:
			v.lost = append(v.lost, f)
		case right[f.code]:
			v.answered = append(v.answered, f)
		case f.code == -1:
			v.refused = append(v.refused, f)
		default:
			v.lost = append(v.lost, f)
		}
	}
	return v
}

func (l *load) ask(c *caller, q inlookup.Query, fates chan<- fate) {
	start := time.Now()
	code, _, err := c.ask(q)
	fates <- fate{start, time.Since(start), code, err}
	if err == nil {
		l.free <- c
	}
}

// steady asks that many questions a second, and returns when it knows what became of
// each.
func (l *load) steady(rate float64, length time.Duration, q func() inlookup.Query) verdict {
	return l.pour(rate, length, q)()
}

// pour asks that many questions a second, whatever becomes of them. It returns when it
// has asked the last, with a function that waits for what becomes of them. A question
// for which no caller is free is not asked.
func (l *load) pour(rate float64, length time.Duration, q func() inlookup.Query) func() verdict {
	fates := make(chan fate, int(rate*length.Seconds())+1)
	start := time.Now()
	var group sync.WaitGroup
	for i := 0; ; i++ {
		due := time.Duration(float64(i) / rate * float64(time.Second))
		if due >= length {
			break
		}
		time.Sleep(time.Until(start.Add(due)))
		select {
		case c := <-l.free:
			group.Go(func() { l.ask(c, q(), fates) })
		default:
		}
	}
	return func() verdict {
		group.Wait()
		close(fates)
		return judge(fates)
	}
}

// closed has that many callers ask one question after the other for a time, each at
// least one.
func (l *load) closed(callers int, length time.Duration, q func() inlookup.Query) verdict {
	fates := make(chan fate, 1<<20)
	end := time.Now().Add(length)
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			l.ask(<-l.free, q(), fates)
			for time.Now().Before(end) {
				l.ask(<-l.free, q(), fates)
			}
		})
	}
	group.Wait()
	close(fates)
	return judge(fates)
}

// serves expects that 20 questions a second are all answered.
func (l *load) serves(when string) {
	l.t.Helper()
	oneOfThree(l.t, func(c *complaint) {
		if v := l.steady(20, time.Second, oneSelect); len(v.refused)+len(v.lost) > 0 {
			c.addf("%s: %v", when, v)
		}
	})
}

// A complaint collects what was wrong with one try of a scenario.
type complaint []string

func (c *complaint) addf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

// oneOfThree tries a scenario up to three times. One try without a complaint is
// enough: what these tests look for happens each time, a busy machine does not.
func oneOfThree(t testing.TB, scenario func(c *complaint)) {
	t.Helper()
	const tries = 3
	for i := range tries {
		var c complaint
		scenario(&c)
		if len(c) == 0 {
			return
		}
		text := strings.Join(c, "\n")
		if i == tries-1 {
			t.Error(text)
		} else {
			t.Log("tried again, because:", text)
		}
	}
}
