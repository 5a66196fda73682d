package inlookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// serve runs s on FIFOs in a directory of the test, which it returns, until stop or the end of
// the test. stop checks that Serve returns nil and that the FIFOs are gone.
func serve(t testing.TB, s *Server) (dir string, stop func()) {
	t.Helper()
	if s.Getenv == nil {
		s.Getenv = environment("INFIFODIR", t.TempDir())
	}
	dir = s.Getenv("INFIFODIR")
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		within(t, "Serve returns", done)
		if left, _ := filepath.Glob(filepath.Join(dir, "infifo*")); len(left) > 0 {
			t.Errorf("Serve leaves %q", left)
		}
	})
	t.Cleanup(stop)
	return dir, stop
}

// A testClient asks with C-like frames, all answers into one reply FIFO.
type testClient struct {
	t    testing.TB
	fifo string
	in   *replyFIFO
}

func newTestClient(t testing.TB, dir string) *testClient {
	return &testClient{t, filepath.Join(dir, "infifo"), newReply(t)}
}

func (c *testClient) send(q Query) {
	c.t.Helper()
	post(c.t, c.fifo, q.frame(c.t, c.in.path))
}

// ask waits for the answer, which must be want.
func (c *testClient) ask(q Query, want Answer) {
	c.t.Helper()
	c.send(q)
	if got := c.in.readN(c.t, len(want.Wire())); got != want.Wire() {
		c.t.Errorf("%v: %q, want %q", q, got, want)
	}
}

// TestServerGolden has a server answer what the C server answered.
func TestServerGolden(t *testing.T) {
	answers := make(map[Query]Answer)
	for _, g := range golden(t) {
		answers[g.q] = g.answer
	}
	r := resolverFunc(func(_ context.Context, q Query) (Answer, error) { return answers[q], nil })
	for _, s := range []*Server{{Resolver: r}, {Resolver: &Cache{Resolver: r}}} {
		dir, _ := serve(t, s)
		c := newTestClient(t, dir)
		for range 2 { // the second time from the cache
			for q, want := range answers {
				c.ask(q, want)
			}
		}
	}
}

// TestServerDeadline: a lookup may take a second less than clients wait.
func TestServerDeadline(t *testing.T) {
	var left atomic.Int64
	r := resolverFunc(func(ctx context.Context, q Query) (Answer, error) {
		until, _ := ctx.Deadline()
		left.Store(int64(time.Until(until)))
		return Absent(q), nil
	})
	for _, s := range []*Server{{Resolver: r}, {Resolver: &Cache{Resolver: r}}} {
		dir, _ := serve(t, s)
		c := newTestClient(t, dir)
		for _, q := range []Query{{TypeUser, "u@d", ""}, {TypeRelay, "u@d", "192.0.2.1"}} {
			left.Store(0)
			c.ask(q, Absent(q))
			if got := time.Duration(left.Load()); got <= 0 || got > 3*time.Second {
				t.Errorf("%T, %v: the Resolver is given %v", s.Resolver, q.Type, got)
			}
		}
	}
}

func TestServerHitsAndMisses(t *testing.T) {
	f := new(fake)
	s := &Server{Resolver: &Cache{Resolver: f}}
	s.Admin = func(_ context.Context, q Query) (string, error) {
		if q.Email == "fault" {
			return "", errDown
		}
		return "about " + q.Email, nil
	}
	dir, _ := serve(t, s)
	c := newTestClient(t, dir)
	ask := func(q Query, want Answer, calls int) {
		t.Helper()
		before := f.calls()
		c.ask(q, want)
		if got := f.calls() - before; got != calls {
			t.Errorf("%v: %d questions to the Resolver", q, got)
		}
	}
	passwd := Query{Type: TypePasswd, Email: "User@Example.com"}
	ask(passwd, numbered(TypePasswd, 1), 1)
	ask(passwd, numbered(TypePasswd, 1), 0)
	relay := Query{TypeRelay, "user@example.com", "192.0.2.1"}
	ask(relay, numbered(TypeRelay, 2), 1)
	ask(relay, numbered(TypeRelay, 3), 1)
	nobody := Query{Type: TypeUser, Email: "nobody@example.com"}
	ask(nobody, NewAnswer(1), 1)
	ask(nobody, NewAnswer(1), 0)
	f.setDown(true)
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		ask(Query{typ, "other@example.com", "192.0.2.1"}, errorAnswer(typ), 1)
	}
	for _, typ := range []Type{TypeStatus, TypeFlush, TypeExplain} {
		ask(Query{Type: typ, Email: "us"}, NewData(typ, "about us"), 0)
		ask(Query{Type: typ, Email: "fault"}, NewAnswer(-1), 0)
	}
	ask(passwd, numbered(TypePasswd, 1), 0)
	eventually(t, "nobody waits", func() bool { return s.Stats().Waiting == 0 })
	got := s.Stats()
	if age := time.Since(got.Started); age < 0 || age > time.Hour {
		t.Errorf("started %v", got.Started)
	}
	want := ServerStats{Started: got.Started, Queries: [8]uint64{0, 3, 3, 4, 1, 1, 1, 1},
		Unavailable: 10}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, q := range f.asked {
		if q.Email != lower(q.Email) {
			t.Errorf("the Resolver is asked %v", q)
		}
	}
}

// TestNoAdmin: without Admin, questions about the server are answered with an error; without a
// Resolver there is no server.
func TestNoAdmin(t *testing.T) {
	dir, _ := serve(t, &Server{Resolver: new(fake)})
	c := newTestClient(t, dir)
	for _, typ := range []Type{TypeStatus, TypeFlush, TypeExplain} {
		c.ask(Query{Type: typ}, NewAnswer(-1))
	}
	s := &Server{Getenv: environment("INFIFODIR", t.TempDir())}
	for _, err := range []error{
		s.Listen(), s.Serve(context.Background()),
		s.ServeConn(context.Background(), strings.NewReader(""), io.Discard),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("without a Resolver: %v", err)
		}
	}
}

// TestServerGarbage: no honest request is lost between bytes that are none.
func TestServerGarbage(t *testing.T) {
	var b safeBuffer
	s := &Server{Resolver: echo, Log: log.New(&b, "", 0)}
	dir, stop := serve(t, s)
	c := newTestClient(t, dir)
	refused := 0
	for i, junk := range []string{"", "x", "junk\n", "\x00\x00\x00\x00", wireInt(200) + "\x01\x00",
		wireInt(5), wireInt(-1), wireInt(40) + "\x03\x00a\x00b\x00", "\x00"} {
		q := Query{Type: TypeHost, Email: userAt(i)}
		post(t, c.fifo, append([]byte(junk), q.frame(t, c.in.path)...))
		want := NewData(TypeHost, q.Email).Wire()
		if got := c.in.readN(t, len(want)); got != want {
			t.Errorf("after %q: %q, want %q", junk, got, want)
		}
		refused += len(junk)
	}
	const trailing = "trailing"
	refused += len(trailing)
	post(t, c.fifo, []byte(trailing))
	eventually(t, "the last bytes are refused", func() bool {
		return s.Stats().Refused == uint64(refused)
	})
	stop()
	if n := s.Stats().Refused; n != uint64(refused) {
		t.Errorf("%d bytes refused, want %d", n, refused)
	}
	seconds := int(time.Since(s.Stats().Started).Seconds())
	if n := strings.Count(b.String(), "\n"); n < 1 || n > seconds+2 {
		t.Errorf("%d lines, at most one a second: %s", n, b.String())
	}
}

// --- A server that waits for nobody.

// TestServerOverload asks more than can wait: what is too much is told so at once. Hits and
// questions about the server have their turn all the same.
func TestServerOverload(t *testing.T) {
	if limit, few := FewDescriptors(); few {
		skip(t, fmt.Sprintf("only %d files can be open", limit))
	}
	const more = 100
	release := make(chan struct{})
	cache := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		if strings.HasPrefix(q.Email, "slow") {
			<-release
		}
		return NewAnswer(0), nil
	})}
	s := &Server{Resolver: cache}
	s.Admin = func(_ context.Context, q Query) (string, error) {
		cache.Flush(q.Email)
		return "done", nil
	}
	dir, _ := serve(t, s)
	waiting, c := newTestClient(t, dir), newTestClient(t, dir)
	known := Query{Type: TypeUser, Email: "known@example.com"}
	c.ask(known, NewAnswer(0))
	eventually(t, "nobody waits", func() bool { return s.Stats().Waiting == 0 })
	slow := func(typ Type, i int) Query { return Query{Type: typ, Email: fmt.Sprint("slow", i, "@d")} }
	places := s.bounds[TypeUser].places
	for range maxMisses { // as this many questions would, for as long as the test needs
		places <- struct{}{}
	}
	for i := range more {
		c.ask(slow(TypeUser, i), NewAnswer(-1))
	}
	c.ask(slow(TypePasswd, 0), NewAnswer(0)) // "error"
	c.ask(known, NewAnswer(0))
	c.ask(Query{Type: TypeFlush, Email: "other@example.com"}, NewData(TypeFlush, "done"))
	c.ask(Query{Type: TypeStatus}, NewData(TypeStatus, "done"))
	if st := s.Stats(); st.Busy != more+1 || st.Waiting != maxMisses {
		t.Errorf("%+v", st)
	}
	for range maxMisses {
		<-places
	}
	for i := range maxMisses {
		waiting.send(slow(TypeUser, i))
	}
	close(release)
	waiting.in.readN(t, 4*maxMisses)
	eventually(t, "nobody waits", func() bool { return s.Stats().Waiting == 0 })
	c.ask(slow(TypeUser, 0), NewAnswer(0))
}

// TestOneKindSlowsNoOther: too many questions of one kind are refused, and the others have their
// turn. A flush has it even when all else is full and its client has gone.
func TestOneKindSlowsNoOther(t *testing.T) {
	release := make(chan struct{})
	var explains, statuses, flushes atomic.Int32
	s := &Server{Resolver: &Cache{Resolver: echo}}
	s.Admin = func(ctx context.Context, q Query) (string, error) {
		if until, ok := ctx.Deadline(); !ok || time.Until(until) > deadline {
			t.Errorf("%v: an answer may take until %v", q, until)
		}
		switch q.Type {
		case TypeExplain:
			explains.Add(1)
			<-release
		case TypeStatus:
			statuses.Add(1)
			if q.Email == "slow" {
				<-release
			}
		case TypeFlush:
			flushes.Add(1)
		}
		return "done", nil
	}
	dir, _ := serve(t, s)
	slow, c := newTestClient(t, dir), newTestClient(t, dir)
	explain := Query{Type: TypeExplain, Email: "u@d", IP: "1"}
	for range maxAdmin {
		slow.send(explain)
	}
	eventually(t, "the first is being answered", func() bool { return explains.Load() == 1 })
	for range 3 { // there is no place
		c.ask(explain, NewAnswer(-1))
	}
	c.ask(Query{Type: TypeFlush}, NewData(TypeFlush, "done"))
	c.ask(Query{Type: TypeStatus}, NewData(TypeStatus, "done"))
	for range 2 {
		c.ask(Query{Type: TypeHost, Email: "u@d"}, NewData(TypeHost, "u@d"))
	}
	if st := s.Stats(); st.Busy != 3 || explains.Load() != 1 {
		t.Errorf("%+v, %d are being answered", st, explains.Load())
	}

	for range maxAdmin {
		slow.send(Query{Type: TypeStatus, Email: "slow"})
	}
	eventually(t, "a slow status is being answered", func() bool { return statuses.Load() == 2 })
	places := s.bounds[TypeUser].places
	for range maxMisses { // as this many questions would, for as long as the test needs
		places <- struct{}{}
	}
	c.ask(Query{Type: TypeHost, Email: "new@d"}, NewAnswer(-1))
	gone := filepath.Join(t.TempDir(), "gone")
	post(t, c.fifo, Query{Type: TypeFlush, Email: "user@d"}.frame(t, gone))
	eventually(t, "the flush of a client that has gone", func() bool { return flushes.Load() == 2 })
	for range maxMisses {
		<-places
	}
	close(release)
	slow.in.readN(t, 2*maxAdmin*len(NewData(TypeStatus, "done").Wire()))
}

// TestDeadClients: clients that cannot be answered cost no question to the Resolver, and nobody's
// file changes.
func TestDeadClients(t *testing.T) {
	f := new(fake)
	s := &Server{Resolver: &Cache{Resolver: f}}
	dir, _ := serve(t, s)
	c := newTestClient(t, dir)
	files := t.TempDir()
	file, deaf := filepath.Join(files, "file"), filepath.Join(files, "deaf")
	writeFile(t, file, "precious")
	mkfifo(t, deaf, 0o666)
	before := snapshot(t, files)
	none := filepath.Join(files, "none")
	paths := []string{file, deaf, none, "/dev/null", files, "", "socket", c.fifo}
	const rounds = 50
	for i := range rounds {
		for _, path := range paths {
			post(t, c.fifo, Query{Type: TypePasswd, Email: userAt(i)}.frame(t, path))
		}
	}
	dead := uint64(rounds * len(paths))
	undeliverable := func() bool { return s.Stats().Undeliverable == dead }
	eventually(t, "all are undeliverable", undeliverable)
	user := Query{Type: TypePasswd, Email: "user@example.com"}
	c.ask(user, numbered(TypePasswd, 1))
	st := s.Stats()
	if f.calls() != 1 || st.Refused > 0 || st.Queries[TypePasswd] != dead+1 {
		t.Errorf("%d questions to the Resolver, %+v", f.calls(), st)
	}
	for _, path := range paths { // neither does a hit write anywhere else
		post(t, c.fifo, user.frame(t, path))
	}
	dead += uint64(len(paths))
	eventually(t, "all are undeliverable", undeliverable)
	if after := snapshot(t, files); after != before || s.Stats().Refused > 0 {
		t.Errorf("files changed: before\n%safter\n%s", before, after)
	}
}

// TestReplyForRoot: a server that runs as root writes into nobody's private FIFO.
func TestReplyForRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "not root")
	}
	s := &Server{Resolver: echo}
	dir, _ := serve(t, s)
	private, c := newTestClient(t, dir), newTestClient(t, dir)
	if err := os.Chmod(private.in.path, 0o600); err != nil {
		t.Fatal(err)
	}
	q := Query{Type: TypeHost, Email: "u@d"}
	private.send(q)
	c.ask(q, NewData(TypeHost, "u@d"))
	eventually(t, "one is undeliverable", func() bool { return s.Stats().Undeliverable == 1 })
	if got := private.in.read(); got != "" {
		t.Errorf("root writes %q into a private FIFO", got)
	}
}

// setNumber sets a number whose type differs between systems.
func setNumber[T int64 | uint64](to *T, n uint64) { *to = T(n) }

// setMaxFiles limits the number of files that this process may open, until undo.
func setMaxFiles(t *testing.T, n uint64) (undo func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		skip(t, err)
	}
	limit := old
	setNumber(&limit.Cur, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		skip(t, err)
	}
	undo = sync.OnceFunc(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	t.Cleanup(undo)
	return undo
}

// TestListenWithoutDescriptors: a FIFO that cannot be opened after it was made is removed.
func TestListenWithoutDescriptors(t *testing.T) {
	dir := t.TempDir()
	s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", dir)}
	undo := setMaxFiles(t, 0)
	err := s.Listen()
	undo()
	if !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

// TestFewDescriptors: a server that may open too few files says so at the start, and counts what
// it cannot answer.
func TestFewDescriptors(t *testing.T) {
	var b safeBuffer
	s := &Server{Resolver: &Cache{Resolver: echo}, Log: log.New(&b, "", 0)}
	undo := setMaxFiles(t, 1000)
	if limit, few := FewDescriptors(); limit != 1000 || !few {
		t.Errorf("%d, %v", limit, few)
	}
	dir, _ := serve(t, s)
	undo()
	if !strings.Contains(b.String(), "1000") || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("at the start: %q", b.String())
	}
	if _, few := FewDescriptors(); few {
		skip(t, "this machine allows few files")
	}
	c := newTestClient(t, dir)
	q := Query{Type: TypeHost, Email: "u@d"}
	c.ask(q, NewData(TypeHost, "u@d"))
	frame := q.frame(t, c.in.path)
	fd, err := syscall.Open(c.fifo, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	undo = setMaxFiles(t, 0)
	syscall.Write(fd, frame)
	eventually(t, "one is not opened", func() bool { return s.Stats().Unopened == 1 })
	undo()
	eventually(t, "that is logged", func() bool { return strings.Count(b.String(), "\n") == 2 })
	if st := s.Stats(); st.Undeliverable > 0 {
		t.Errorf("%+v", st)
	}
	c.ask(q, NewData(TypeHost, "u@d"))
}

func TestServerReplyDir(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		replies := t.TempDir()
		getenv := environment("INFIFODIR", t.TempDir(), "REPLYDIR", replies+slash)
		s := &Server{Resolver: echo, Getenv: getenv}
		dir, _ := serve(t, s)
		outside, inside := newTestClient(t, dir), newTestClient(t, dir)
		inside.in = newReplyAt(t, filepath.Join(replies, "reply"))
		q := Query{Type: TypeHost, Email: "u@d"}
		outside.send(q)
		inside.ask(q, NewData(TypeHost, "u@d"))
		eventually(t, "one is undeliverable", func() bool { return s.Stats().Undeliverable == 1 })
		if got := outside.in.read(); got != "" {
			t.Errorf("REPLYDIR %s: %q outside of it", replies+slash, got)
		}
	}
}

// TestTrace: a request is traced as it was written, with its FIFO and whether it is a hit.
func TestTrace(t *testing.T) {
	var out safeBuffer
	s := &Server{Resolver: &Cache{Resolver: echo}, Instances: 2}
	s.Trace = func(fifo, replyPath string, q Query, hit bool) {
		fmt.Fprintf(&out, "%s %s %d %q %s %v\n", fifo, replyPath, q.Type, q.Email, q.IP, hit)
	}
	dir, stop := serve(t, s)
	c := newTestClient(t, dir)
	ask := func(fifo string, q Query) {
		c.fifo = filepath.Join(dir, fifo)
		c.ask(q, NewData(q.Type, lower(q.Email)))
	}
	user := Query{Type: TypePasswd, Email: "User@example.com"}
	ask("infifo.1", user)
	s.Tracing.Store(true)
	ask("infifo.1", user)
	ask("infifo.2", Query{TypeRelay, "user@example.com", "192.0.2.1"})
	ask("infifo.1", Query{Type: TypeAlias, Email: "a\nb\xff@d"})
	s.Tracing.Store(false)
	ask("infifo.1", user)
	stop()
	want := "infifo.1 PATH 3 \"User@example.com\"  true\n" +
		"infifo.2 PATH 2 \"user@example.com\" 192.0.2.1 false\n" +
		"infifo.1 PATH 5 \"a\\nb\\xff@d\"  false\n"
	want = strings.ReplaceAll(want, "PATH", c.in.path)
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestQuestionWhoseTraceFailsIsAnsweredOnce: with an error, and nobody looks it up.
func TestQuestionWhoseTraceFailsIsAnsweredOnce(t *testing.T) {
	f := new(fake)
	s := &Server{Resolver: f}
	s.Trace = func(string, string, Query, bool) { panic("Trace") }
	s.Tracing.Store(true)
	dir, stop := serve(t, s)
	in := newReply(t)
	q := Query{Type: TypeUser, Email: "user@example.com"}
	post(t, filepath.Join(dir, "infifo"), q.frame(t, in.path))
	got := in.readN(t, headerSize)
	stop()
	if got += in.read(); got != errorAnswer(q.Type).Wire() || f.calls() != 0 {
		t.Errorf("%q, looked up %d times", got, f.calls())
	}
}

// --- The request FIFOs of a server.

// TestRenew: a request FIFO that was removed or replaced is made again, and what was written to
// the old one is answered.
func TestRenew(t *testing.T) {
	t.Parallel()
	var b safeBuffer
	s := &Server{Resolver: echo, Log: log.New(&b, "", 0)}
	dir, _ := serve(t, s)
	c := newTestClient(t, dir)
	old, err := syscall.Open(c.fifo, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(old)
	q := Query{Type: TypeHost, Email: "u@d"}
	want := NewData(TypeHost, "u@d")
	remade := func(n uint64) {
		t.Helper()
		eventually(t, "the FIFO is made again", func() bool { return s.Stats().Remade == n })
		if mode := modeOf(t, c.fifo); mode != fs.ModeNamedPipe|0o660 {
			t.Errorf("the new FIFO: %v", mode)
		}
		c.ask(q, want)
		// It is the server's own: an answer there would be read as a request.
		before := s.Stats()
		post(t, c.fifo, q.frame(t, c.fifo))
		eventually(t, "the question with its own FIFO for the answer", func() bool {
			now := s.Stats()
			return now.Undeliverable != before.Undeliverable || now.Refused != before.Refused
		})
		if now := s.Stats(); now.Refused != before.Refused {
			t.Error("the server answers into the new FIFO")
		}
	}
	if err := os.Remove(c.fifo); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Write(old, q.frame(t, c.in.path)); err != nil {
		t.Fatal(err)
	}
	if got := c.in.readN(t, len(want.Wire())); got != want.Wire() {
		t.Errorf("over the old FIFO: %q", got)
	}
	remade(1)
	// What takes its place does so at once, lest the server should find none there.
	kept, other := c.fifo+"-kept", c.fifo+"-other"
	mkfifo(t, other, 0o600) // somebody else's
	if err := errors.Join(os.Link(c.fifo, kept), os.Rename(other, c.fifo)); err != nil {
		t.Fatal(err)
	}
	remade(2)
	writeFile(t, other, "precious")
	if err := os.Rename(other, c.fifo); err != nil {
		t.Fatal(err)
	}
	lost := func() bool { return strings.Contains(b.String(), "cannot be made again") }
	eventually(t, "a file in its place is a complaint", lost)
	if content, err := os.ReadFile(c.fifo); string(content) != "precious" || err != nil {
		t.Errorf("the file holds %q, %v", content, err)
	}
	if err := os.Remove(c.fifo); err != nil {
		t.Fatal(err)
	}
	remade(3)
	if n := strings.Count(b.String(), "cannot be made again"); n != 1 {
		t.Errorf("%d complaints: %s", n, b.String())
	}
	if n := strings.Count(b.String(), "made again\n"); n != 3 {
		t.Errorf("%d times made again: %s", n, b.String())
	}
	os.Remove(kept)
}

// TestRenewOthers: one request FIFO that cannot be made again keeps no other from it.
func TestRenewOthers(t *testing.T) {
	t.Parallel()
	s := &Server{Resolver: echo, Instances: 3}
	dir, _ := serve(t, s)
	c := newTestClient(t, dir)
	first := instance(c.fifo, 1)
	c.fifo = instance(c.fifo, 2)
	file := filepath.Join(dir, "file")
	writeFile(t, file, "no FIFO")
	if err := errors.Join(os.Rename(file, first), os.Remove(c.fifo)); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(first)
	eventually(t, c.fifo+" is made again, though "+first+" cannot be",
		func() bool { return s.Stats().Remade == 1 })
	c.ask(Query{Type: TypeHost, Email: "u@d"}, NewData(TypeHost, "u@d"))
}

// TestRenewDirectory: the directory may have gone as well.
func TestRenewDirectory(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "run")
	s := &Server{Resolver: echo, Instances: 2, Getenv: environment("INFIFODIR", dir)}
	serve(t, s)
	// At once: while it is emptied, the server could make a FIFO there again.
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both FIFOs are made again", func() bool { return s.Stats().Remade == 2 })
	c := newTestClient(t, dir)
	for n := 1; n <= 2; n++ {
		c.fifo = instance(filepath.Join(dir, "infifo"), n)
		c.ask(Query{Type: TypeHost, Email: "u@d"}, NewData(TypeHost, "u@d"))
	}
}

// TestListenRemovesLeftovers: after a killed server with more instances no client is lost.
func TestListenRemovesLeftovers(t *testing.T) {
	for _, instances := range []int{0, 1, 2} {
		dir := t.TempDir()
		fifo := filepath.Join(dir, "infifo")
		for n := 1; n <= 5; n++ {
			mkfifo(t, instance(fifo, n), 0o600)
		}
		getenv := environment("INFIFODIR", dir)
		serve(t, &Server{Resolver: echo, Instances: instances, Getenv: getenv})
		want := max(1, instances)
		if got := names(t, dir); len(got) != want {
			t.Errorf("%d instances: there are %q", instances, got)
		}
	}
}

// TestServeEnds: Serve answers what was asked before it was told to end, and leaves nothing.
func TestServeEnds(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	const questions = 200
	in := newReply(t)
	for _, slow := range []time.Duration{0, 20 * time.Millisecond} {
		s := &Server{Instances: 3, Resolver: &Cache{Resolver: &fake{delay: slow}}}
		dir, stop := serve(t, s)
		for i := range questions {
			q := Query{Type: TypeUser, Email: "no" + userAt(i)}
			post(t, instance(filepath.Join(dir, "infifo"), i%3+1), q.frame(t, in.path))
		}
		stop()
		want := strings.Repeat(wireInt(1), questions)
		if got := in.readN(t, len(want)); got != want {
			t.Errorf("%q", got)
		}
		if st := s.Stats(); st.Refused != 0 || st.Queries[TypeUser] != questions {
			t.Errorf("%+v", st)
		}
	}
	in.close()
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// TestServeEndsThoughAsked: a client that has the FIFO open and goes on asking cannot keep the
// server from ending. Here the pipe is never empty when the server reads.
func TestServeEndsThoughAsked(t *testing.T) {
	var f *requestFIFO
	fd := -1
	frame := Query{Type: TypeUser, Email: strings.Repeat("u", 4000)}.frame(t, "/nowhere")
	most := (pipeMax+readSize)/len(frame) + 2 // it may see the stop one read later than Trace
	asked := 0                                // after the stop
	s := &Server{Resolver: echo}
	s.Trace = func(string, string, Query, bool) { // its reader calls this
		if f.stopping.Load() {
			asked++
		}
		if asked <= most {
			syscall.Write(fd, frame)
		}
	}
	s.Tracing.Store(true)
	dir, stop := serve(t, s)
	f = s.fifos[0]
	// Open for reading too, so that writing never fails for want of a reader.
	flags := syscall.O_RDWR | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	fd, err := syscall.Open(filepath.Join(dir, "infifo"), flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, frame); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is read", func() bool { return s.Stats().Queries[TypeUser] > 0 })
	stop()
	if within(t, "its reader ends", f.done); asked == 0 || asked > most {
		t.Errorf("%d questions answered after the stop, at most %d wanted", asked, most)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	getenv := environment("INFIFODIR", dir, "FIFO_MODE", "622")
	_, stop := serve(t, &Server{Resolver: echo, Instances: 2, Getenv: getenv})
	for _, name := range []string{"infifo.1", "infifo.2"} {
		if mode := modeOf(t, filepath.Join(dir, name)); mode != fs.ModeNamedPipe|0o622 {
			t.Errorf("%s: %v", name, mode)
		}
	}
	second := &Server{Resolver: echo, Instances: 2, Getenv: getenv}
	if err := second.Serve(context.Background()); !errors.Is(err, ErrServed) {
		t.Errorf("a second server: %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("after the second server there are %q", got)
	}
	stop()
}

// TestListenFails: when one of several FIFOs cannot be had, none stays, and Listen may be tried
// again.
func TestListenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "infifo.3")
	writeFile(t, file, "precious")
	fds := descriptors(t)
	s := &Server{Resolver: echo, Instances: 4, Getenv: environment("INFIFODIR", dir)}
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "infifo.3") {
		t.Errorf("a file in place of the third FIFO: %v", err)
	}
	if left := names(t, dir); len(left) != 1 || descriptors(t) != fds {
		t.Errorf("left: %q, and %d descriptors instead of %d", left, descriptors(t), fds)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	serve(t, s)
	c := newTestClient(t, dir)
	for n := 1; n <= 4; n++ {
		c.fifo = instance(filepath.Join(dir, "infifo"), n)
		c.ask(Query{Type: TypeHost, Email: "u@d"}, NewData(TypeHost, "u@d"))
	}
}

// TestListenAtPath: a path is taken as it is, and a server can follow another.
func TestListenAtPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "path")
	for range 2 {
		s := &Server{Resolver: echo, Infifo: path, Getenv: environment()}
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		if mode := modeOf(t, path); mode != fs.ModeNamedPipe|0o660 {
			t.Error(mode)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	}
}

// --- One request over a connection.

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestServeConn(t *testing.T) {
	s := &Server{Resolver: echo}
	s.Admin = func(_ context.Context, q Query) (string, error) { return "about " + q.Email, nil }
	frame := func(q Query) string { return string(q.frame(t, "socket")) }
	user := Query{Type: TypeUser, Email: "U@d"}
	long := Query{Type: TypeHost, Email: strings.Repeat("x", 4096-4-5-len("socket"))}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":           func(r io.Reader) io.Reader { return r },
		"byte by byte":    iotest.OneByteReader,
		"data with error": iotest.DataErrReader,
	}
	for _, c := range []struct {
		name, in string
		want     Answer // "": an error
	}{
		{"user", frame(user), NewData(TypeUser, "u@d")},
		{"relay", frame(Query{TypeRelay, "u@d", "192.0.2.1"}), NewData(TypeRelay, "u@d")},
		{"status", frame(Query{Type: TypeStatus, Email: "u@d"}), NewData(TypeStatus, "about u@d")},
		{"the longest", frame(long), NewData(TypeHost, long.Email)},
		{"two", frame(user) + "more", NewData(TypeUser, "u@d")},
		{"nothing", "", Answer{}},
		{"half", frame(user)[:12], Answer{}},
		{"garbage", "GET / HTTP/1.0\r\n\r\n", Answer{}},
		{"too long", wireInt(4093) + strings.Repeat("x", 5000), Answer{}},
		{"a fault of the wire", wireInt(5) + "\x01\x01\x00\x00\x00", Answer{}},
	} {
		for name, wrap := range readers {
			var out bytes.Buffer
			err := s.ServeConn(context.Background(), wrap(strings.NewReader(c.in)), &out)
			if out.String() != c.want.Wire() || (err == nil) != (!c.want.isZero()) {
				t.Errorf("%s, %s: %q, %v, want %q", c.name, name, &out, err, c.want)
			}
		}
	}
	s.Resolver = &fake{down: true}
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		var out bytes.Buffer
		in := strings.NewReader(frame(Query{typ, "u@d", "192.0.2.1"}))
		err := s.ServeConn(context.Background(), in, &out)
		if err != nil || out.String() != errorAnswer(typ).Wire() {
			t.Errorf("%v while down: %q, %v", typ, &out, err)
		}
	}
	s.Resolver = echo
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	err := s.ServeConn(gone, strings.NewReader(frame(user)), &out)
	if err != nil || out.String() != errorAnswer(TypeUser).Wire() {
		t.Errorf("after the end of its context: %q, %v", &out, err)
	}
	err = s.ServeConn(context.Background(), strings.NewReader(frame(user)), brokenWriter{})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the client has gone: %v", err)
	}
}

// TestFlushForNobody: a flush is carried out even if its client has gone, since the old password
// would live on otherwise.
func TestFlushForNobody(t *testing.T) {
	var flushed atomic.Int32
	s := &Server{Resolver: echo}
	s.Admin = func(context.Context, Query) (string, error) {
		flushed.Add(1)
		return "done", nil
	}
	dir, _ := serve(t, s)
	gone := filepath.Join(t.TempDir(), "gone")
	q := Query{Type: TypeFlush, Email: "user@example.com"}
	post(t, filepath.Join(dir, "infifo"), q.frame(t, gone))
	eventually(t, "the flush", func() bool { return flushed.Load() == 1 })
	eventually(t, "its answer has nobody", func() bool { return s.Stats().Undeliverable == 1 })
}

// TestAnswersKeepTheirClients: while a question waits for its answer others come, and take its
// place in the buffer. Its answer goes to its own client all the same.
func TestAnswersKeepTheirClients(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	s := &Server{Resolver: echo}
	s.Admin = func(context.Context, Query) (string, error) {
		close(begun)
		<-release
		return "done", nil
	}
	dir, _ := serve(t, s)
	first, second := newTestClient(t, dir), newTestClient(t, dir)
	if len(first.in.path) != len(second.in.path) {
		t.Fatalf("%s and %s differ in length", first.in.path, second.in.path)
	}
	first.send(Query{Type: TypeFlush, Email: "user1@d"})
	within(t, "it waits", begun)
	second.ask(Query{Type: TypeHost, Email: "user2@d"}, NewData(TypeHost, "user2@d"))
	close(release)
	got, others := "", ""
	eventually(t, "its answer", func() bool {
		got += first.in.read()
		others += second.in.read()
		return got+others != ""
	})
	if want := NewData(TypeFlush, "done").Wire(); got != want || others != "" {
		t.Errorf("%q, want %q; another client got %q", got, want, others)
	}
}

// TestServeEndsBesideAnotherReader: others who read the request FIFO take the byte that wakes the
// server's reader. The end comes all the same.
func TestServeEndsBesideAnotherReader(t *testing.T) {
	s := &Server{Resolver: echo}
	dir, stop := serve(t, s)
	const others = 8
	fd, err := syscall.Open(filepath.Join(dir, "infifo"), syscall.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var taken atomic.Int32
	var all sync.WaitGroup
	for range others {
		all.Go(func() {
			for b := make([]byte, 1); !over.Load(); {
				if n, _ := syscall.Read(fd, b); n == 1 {
					taken.Add(1)
				}
			}
		})
	}
	eventually(t, "the others take what is written", func() bool {
		syscall.Write(fd, []byte("junk"))
		return taken.Load() > 100
	})
	stop()
	over.Store(true)
	syscall.SetNonblock(fd, true) // the FIFO's name has gone; the last bytes wake the others
	syscall.Write(fd, make([]byte, others))
	all.Wait()
	syscall.Close(fd)
}

// TestRenewSaysItOnce: while a request FIFO cannot be made again the log says so once, and again
// only after the FIFO was back.
func TestRenewSaysItOnce(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", dir), Log: log.New(&b, "", 0)}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "infifo")
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for turn := range 3 {
		move(path, path+".kept")
		writeFile(t, path, "no FIFO")
		for range 3 {
			s.renew()
		}
		if n := strings.Count(b.String(), "cannot be made again"); n != turn+1 {
			t.Errorf("said %d times after %d losses: %s", n, turn+1, b.String())
		}
		move(path+".kept", path)
		s.renew()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Error(err)
	}
}
