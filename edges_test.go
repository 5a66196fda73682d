package inlookup_test

// The server and the client in the hands of a program that errs, by exported names alone.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	"time"

	"github.com/inlookup/inlookup"
)

// A resolve is a Resolver.
type resolve func(ctx context.Context, q inlookup.Query) (inlookup.Answer, error)

func (f resolve) Resolve(ctx context.Context, q inlookup.Query) (inlookup.Answer, error) {
	return f(ctx, q)
}

// yes answers each question about a status with "active".
var yes = resolve(func(context.Context, inlookup.Query) (inlookup.Answer, error) {
	return inlookup.NewAnswer(int(inlookup.StatusActive)), nil
})

// settings returns a Getenv of NAME, value pairs.
func settings(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// A lines is the writer of a log, for many goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// with returns the lines that hold text.
func (l *lines) with(text string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// start listens, and serves until the end of the test. The client asks that server.
func start(t *testing.T, s *inlookup.Server) (c *inlookup.Client, logged *lines) {
	t.Helper()
	dir := t.TempDir()
	if s.Getenv == nil {
		s.Getenv = settings("INFIFODIR", dir)
	}
	logged = new(lines)
	s.Log = log.New(logged, "", 0)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c = &inlookup.Client{Timeout: time.Minute,
		Getenv: settings("INFIFODIR", s.Getenv("INFIFODIR"), "FIFOTMPDIR", dir)}
	return c, logged
}

func ask(c inlookup.Resolver, typ inlookup.Type, email string) (inlookup.Answer, error) {
	return c.Resolve(context.Background(), inlookup.Query{Type: typ, Email: email})
}

// answered checks that the status of email is "active".
func answered(t *testing.T, c inlookup.Resolver, email string) {
	t.Helper()
	s, err := inlookup.Directory{Resolver: c}.Status(context.Background(), email)
	if err != nil || s != inlookup.StatusActive {
		t.Errorf("%s: %v, %v", email, s, err)
	}
}

// post writes a request to the server whose FIFO is in dir, with any path for the answer.
func post(t *testing.T, dir, email, reply string) {
	t.Helper()
	body := "\x01\x00" + email + "\x00" + reply + "\x00\x00"
	frame := binary.NativeEndian.AppendUint32(nil, uint32(len(body)))
	write(t, dir, string(frame)+body)
}

// write writes to the request FIFO in dir.
func write(t *testing.T, dir, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "infifo"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// until waits until the condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// TestPanicIsAnErrorOfOneQuestion: the server survives a panic of the program's functions, and
// logs where it was.
func TestPanicIsAnErrorOfOneQuestion(t *testing.T) {
	secret := struct{ Passwd string }{"$6$secret"}
	fall := func(email string) {
		switch email {
		case "text@d":
			panic("a text")
		case "index@d":
			_ = []int{}[len(email)]
		case "value@d":
			panic(secret)
		case "absent@d":
			panic(inlookup.ErrNotFound)
		case "nil@d":
			panic(nil)
		}
	}
	s := new(inlookup.Server)
	s.Resolver = resolve(func(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
		fall(q.Email)
		return inlookup.NewAnswer(0), nil
	})
	s.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		fall(q.Email)
		return "fine", nil
	}
	s.Trace = func(_, _ string, q inlookup.Query, _ bool) { fall(q.Email) }
	c, logged := start(t, s)
	for email, text := range map[string]string{
		"text@d":   "a text",
		"index@d":  "index out of range [7] with length 0",
		"value@d":  "struct { Passwd string }",
		"absent@d": inlookup.ErrNotFound.Error(),
		"nil@d":    "nil",
	} {
		for _, typ := range []inlookup.Type{inlookup.TypeUser, inlookup.TypeExplain} {
			for _, traced := range []bool{false, true} {
				s.Tracing.Store(traced)
				_, err := ask(c, typ, email)
				if !errors.Is(err, inlookup.ErrUnavailable) || errors.Is(err, inlookup.ErrNotFound) {
					t.Errorf("%v of %s, traced %v: %v", typ, email, traced, err)
				}
			}
		}
		until(t, "a line about "+email, func() bool {
			_, err := ask(c, inlookup.TypeUser, email)
			found := logged.with(text)
			return err != nil && len(found) > 0 && strings.Contains(found[0], "edges_test.go:")
		})
	}
	s.Tracing.Store(false)
	answered(t, c, "user@d")
	if found := logged.with("secret"); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

// TestGoexit: a function of the program that ends its goroutine, as FailNow of a test does, costs
// one question. If it is Trace, Serve ends with an error.
func TestGoexit(t *testing.T) {
	exit := func(email string) {
		if email == "exit@d" {
			runtime.Goexit()
		}
	}
	s := &inlookup.Server{Getenv: settings("INFIFODIR", t.TempDir())}
	s.Resolver = resolve(func(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
		exit(q.Email)
		return inlookup.NewAnswer(0), nil
	})
	s.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		exit(q.Email)
		return "fine", nil
	}
	s.Trace = func(_, _ string, q inlookup.Query, _ bool) { exit(q.Email) }
	c := &inlookup.Client{Timeout: time.Minute,
		Getenv: settings("INFIFODIR", s.Getenv("INFIFODIR"), "FIFOTMPDIR", t.TempDir())}
	ended := make(chan error, 1)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- s.Serve(context.Background()) }()
	for _, typ := range []inlookup.Type{inlookup.TypeUser, inlookup.TypeFlush} {
		for range 2 {
			_, err := ask(c, typ, "exit@d")
			if !errors.Is(err, inlookup.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", typ, err)
			}
			if _, err := ask(c, typ, "user@d"); err != nil {
				t.Errorf("%v after that: %v", typ, err)
			}
		}
	}
	s.Tracing.Store(true)
	post(t, s.Getenv("INFIFODIR"), "exit@d", "")
	select {
	case err := <-ended:
		if !errors.Is(err, inlookup.ErrUnavailable) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Serve goes on without a reader")
	}
}

// A brokenWriter panics at each line of a log.
type brokenWriter struct{ lines atomic.Int32 }

func (w *brokenWriter) Write([]byte) (int, error) {
	w.lines.Add(1)
	panic("a line")
}

// TestLogThatPanics: the line is lost, and nothing else.
func TestLogThatPanics(t *testing.T) {
	w := new(brokenWriter)
	s := new(inlookup.Server)
	s.Resolver = resolve(func(_ context.Context, q inlookup.Query) (a inlookup.Answer, err error) {
		if q.Email == "fault@d" {
			return a, errors.New("a fault")
		}
		return inlookup.NewAnswer(0), nil
	})
	s.Getenv = settings("INFIFODIR", t.TempDir(), "FIFOTMPDIR", t.TempDir())
	s.Log = log.New(w, "", 0)
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- s.Serve(ctx) }()
	c := &inlookup.Client{Timeout: time.Minute, Getenv: s.Getenv}
	before := w.lines.Load()
	write(t, s.Getenv("INFIFODIR"), "junk")
	until(t, "a line about junk", func() bool { return w.lines.Load() > before })
	if _, err := ask(c, inlookup.TypeUser, "fault@d"); !errors.Is(err, inlookup.ErrUnavailable) {
		t.Error(err)
	}
	answered(t, c, "user@d")
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	before = w.lines.Load()
	m := &inlookup.MySQL{Log: log.New(w, "", 0), Getenv: settings("MYSQL_HOST", "127.0.0.1:u:p:1",
		"CONTROLDIR", t.TempDir(), "ASSIGNDIR", t.TempDir())}
	defer m.Close()
	until(t, "a line about the database", func() bool {
		_, err := ask(m, inlookup.TypeUser, "user@d")
		return err != nil && w.lines.Load() > before
	})
	if _, err := ask(m, inlookup.TypeUser, "user@d"); !errors.Is(err, inlookup.ErrUnavailable) {
		t.Error(err)
	}
}

// TestListenAfterAPanic: of Getenv, for instance.
func TestListenAfterAPanic(t *testing.T) {
	dir := t.TempDir()
	s := &inlookup.Server{Resolver: yes, Getenv: func(string) string { panic("no settings") }}
	func() {
		defer func() { recover() }()
		s.Listen()
	}()
	s.Getenv = settings("INFIFODIR", dir)
	done, end := context.WithCancel(context.Background())
	end()
	if err := s.Serve(done); err != nil {
		t.Error(err)
	}
	gone(t, dir)
}

// gone checks that no FIFO is in dir.
func gone(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, "infifo*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestListenTwice: the second call changes nothing, and the server answers.
func TestListenTwice(t *testing.T) {
	dir := t.TempDir()
	s := &inlookup.Server{Resolver: yes, Instances: 2, Getenv: settings("INFIFODIR", dir)}
	c := &inlookup.Client{Timeout: time.Minute,
		Getenv: settings("INFIFODIR", dir, "FIFOTMPDIR", t.TempDir())}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); !errors.Is(err, inlookup.ErrStarted) {
		t.Errorf("the second Listen: %v", err)
	}
	for range 2 { // after the end Listen and Serve can be called anew
		ctx, end := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		answered(t, c, "user@d")
		if err := s.Listen(); !errors.Is(err, inlookup.ErrStarted) {
			t.Errorf("Listen beside Serve: %v", err)
		}
		answered(t, c, "user@d")
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		gone(t, dir)
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
	}
	done, end := context.WithCancel(context.Background())
	end()
	if err := s.Serve(done); err != nil {
		t.Error(err)
	}
	gone(t, dir)
}

// TestServeTwice: of several calls at once one serves, and the others return at once.
func TestServeTwice(t *testing.T) {
	dir := t.TempDir()
	s := &inlookup.Server{Resolver: yes, Getenv: settings("INFIFODIR", dir)}
	c := &inlookup.Client{Timeout: time.Minute,
		Getenv: settings("INFIFODIR", dir, "FIFOTMPDIR", t.TempDir())}
	for range 3 {
		ctx, end := context.WithCancel(context.Background())
		const calls = 8
		returned := make(chan error, calls)
		for range calls {
			go func() { returned <- s.Serve(ctx) }()
		}
		for range calls - 1 {
			if err := <-returned; !errors.Is(err, inlookup.ErrStarted) {
				t.Errorf("a call beside another: %v", err)
			}
		}
		until(t, "a reader", func() bool {
			const flags = os.O_WRONLY | syscall.O_NONBLOCK
			f, err := os.OpenFile(filepath.Join(dir, "infifo"), flags, 0)
			if err == nil {
				f.Close()
			}
			return err == nil
		})
		answered(t, c, "user@d")
		end()
		if err := <-returned; err != nil {
			t.Error(err)
		}
		gone(t, dir)
	}
}

// TestServeAfterAnEndThatGaveUp: the server cannot be used while an answer of before hangs, and
// can afterwards.
func TestServeAfterAnEndThatGaveUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var asked atomic.Int32
	s := new(inlookup.Server)
	s.Resolver = resolve(func(ctx context.Context, q inlookup.Query) (inlookup.Answer, error) {
		if q.Email == "slow@d" {
			asked.Add(1)
			<-release
		}
		return inlookup.NewAnswer(0), nil
	})
	logged := new(lines)
	dir := t.TempDir()
	s.Log, s.Getenv = log.New(logged, "", 0), settings("INFIFODIR", dir)
	c := &inlookup.Client{Timeout: time.Minute,
		Getenv: settings("INFIFODIR", dir, "FIFOTMPDIR", t.TempDir())}
	ctx, end := context.WithCancel(context.Background())
	first := make(chan error, 1)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() { first <- s.Serve(ctx) }()
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		answered(t, c, "slow@d")
	}()
	until(t, "the question hangs", func() bool { return asked.Load() == 1 })
	end()
	if err := <-first; err != nil || len(logged.with("hang")) != 1 {
		t.Errorf("the end that gave up: %v, %q", err, logged.with(""))
	}
	for _, err := range []error{s.Listen(), s.Serve(context.Background())} {
		if !errors.Is(err, inlookup.ErrStarted) {
			t.Errorf("while an answer hangs: %v", err)
		}
	}
	close(release)
	<-slow
	until(t, "the server listens again", func() bool { return s.Listen() == nil })
	ctx, end = context.WithCancel(context.Background())
	go func() { first <- s.Serve(ctx) }()
	answered(t, c, "user@d")
	end()
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestIdleServeEndsAtOnce: an end for which nobody waits does not come by giving up.
func TestIdleServeEndsAtOnce(t *testing.T) {
	logged := new(lines)
	for range 3 {
		s := &inlookup.Server{Resolver: yes, Log: log.New(logged, "", 0)}
		s.Getenv = settings("INFIFODIR", t.TempDir())
		ctx, end := context.WithCancel(context.Background())
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(20*time.Millisecond, end) // its reader waits by then
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	}
	if found := logged.with("hang"); len(found) > 0 {
		t.Errorf("%q", found)
	}
}

// TestOneKindOfLineHidesNoOther: junk in the FIFO costs one line a second, and takes none from a
// fault.
func TestOneKindOfLineHidesNoOther(t *testing.T) {
	s := new(inlookup.Server)
	s.Resolver = resolve(func(_ context.Context, q inlookup.Query) (a inlookup.Answer, err error) {
		switch q.Email {
		case "panic@d":
			panic("a fault of the program")
		case "odd@d":
			return a, fmt.Errorf("%w: a row is odd", inlookup.ErrInvalid)
		}
		return a, fmt.Errorf("%w: the database is down", inlookup.ErrUnavailable)
	})
	c, logged := start(t, s)
	dir := s.Getenv("INFIFODIR")
	begin := time.Now()
	write(t, dir, "junk")
	until(t, "a line about junk", func() bool { return len(logged.with("no request")) > 0 })
	ask(c, inlookup.TypeUser, "odd@d")
	ask(c, inlookup.TypeStatus, "") // there is no Admin
	ask(c, inlookup.TypeUser, "user@d")
	ask(c, inlookup.TypeUser, "panic@d")
	post(t, dir, "user@d", "/nowhere/reply")
	until(t, "the reply is undeliverable", func() bool { return s.Stats().Undeliverable == 1 })
	for _, text := range []string{
		"the database is down", "a fault of the program", "/nowhere/reply", "a row is odd", "Status Query",
	} {
		if len(logged.with(text)) != 1 {
			t.Errorf("%d lines with %q", len(logged.with(text)), text)
		}
	}
	for range 100 {
		write(t, dir, "junk")
	}
	until(t, "all is read", func() bool { return s.Stats().Refused == 4+400 })
	n := len(logged.with("no request"))
	if most := 2 + int(time.Since(begin)/time.Second); n > most {
		t.Errorf("%d lines about junk, at most %d wanted", n, most)
	}
}

// TestReplyThatCannotBeOpenedIsLogged: the client waits for an answer that does not come, so the
// server says why. Where nobody reads nobody waits, and there is no line.
func TestReplyThatCannotBeOpenedIsLogged(t *testing.T) {
	top := t.TempDir()
	replies := filepath.Join(top, "replies")
	file, unread := filepath.Join(replies, "file"), filepath.Join(replies, "unread")
	err := errors.Join(os.Mkdir(replies, 0o755), os.WriteFile(file, nil, 0o666),
		syscall.Mkfifo(unread, 0o666))
	if err != nil {
		t.Fatal(err)
	}
	s := &inlookup.Server{Resolver: yes, Getenv: settings("INFIFODIR", top, "REPLYDIR", replies)}
	_, logged := start(t, s)
	for i, path := range []string{
		filepath.Join(replies, "missing"), filepath.Join(top, "elsewhere"), file, "relative/reply",
	} {
		post(t, top, "user@d", path)
		until(t, "a line about "+path, func() bool { return len(logged.with(path)) == 1 })
		until(t, "it is counted, too", func() bool { return s.Stats().Undeliverable == uint64(i+1) })
	}
	for _, path := range []string{unread, "socket", ""} {
		before := s.Stats().Undeliverable
		post(t, top, "user@d", path)
		until(t, "it is undeliverable", func() bool { return s.Stats().Undeliverable == before+1 })
	}
	if found := logged.with("reply FIFO"); len(found) != 4 {
		t.Errorf("%q", found)
	}
	long := filepath.Join(replies, strings.Repeat("x", 255), "reply")
	begin := time.Now()
	before := s.Stats().Undeliverable
	const many = 200
	for range many {
		post(t, top, "user@d", long)
	}
	until(t, "all are undeliverable", func() bool { return s.Stats().Undeliverable == before+many })
	found := logged.with("reply FIFO")
	if most := 4 + 2 + int(time.Since(begin)/time.Second); len(found) > most {
		t.Errorf("%d lines, at most %d wanted", len(found), most)
	}
	if last := found[len(found)-1]; len(last) > 300 {
		t.Errorf("a line of %d bytes", len(last))
	}
}

// TestSpellingsOfReplyDir: however REPLYDIR is spelled, a client that goes by it gets an answer.
func TestSpellingsOfReplyDir(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"/", "//", "/.", "/./", "//x/..", "/../" + filepath.Base(top)} {
		s := &inlookup.Server{Resolver: yes}
		s.Getenv = settings("INFIFODIR", t.TempDir(), "REPLYDIR", top+name)
		c, _ := start(t, s)
		c.Getenv = s.Getenv
		answered(t, c, "user@d")
		c.Getenv = settings("INFIFODIR", s.Getenv("INFIFODIR"), "FIFOTMPDIR", top)
		answered(t, c, "user@d")
	}
}

// TestSlashesOfReplyDir: a client is in REPLYDIR however its FIFOTMPDIR is spelled. Only Go clients
// clean it.
func TestSlashesOfReplyDir(t *testing.T) {
	dir := t.TempDir()
	s := &inlookup.Server{Resolver: yes, Getenv: settings("INFIFODIR", dir, "REPLYDIR", dir+"/")}
	start(t, s)
	path := filepath.Join(dir, "reply")
	if err := errors.Join(syscall.Mkfifo(path, 0o660), os.Chmod(path, 0o660)); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, slashes := range []string{"/", "//", "/./"} {
		post(t, dir, "user@d", dir+slashes+"reply")
		b := make([]byte, 4)
		in.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := in.Read(b); n != 4 || err != nil {
			t.Errorf("%q: %d bytes, %v", slashes, n, err)
		}
	}
}

// TestOwnerOfTheFIFO: the server takes over a FIFO of another user with a warning, because that
// user can read what is asked.
func TestOwnerOfTheFIFO(t *testing.T) {
	if os.Geteuid() != 0 {
		inlookup.Skip(t, "not root")
	}
	const nobody = 65534
	for uid, warned := range map[int]bool{0: false, nobody: true} {
		dir := t.TempDir()
		path := filepath.Join(dir, "infifo")
		err := errors.Join(syscall.Mkfifo(path, 0o660), os.Chmod(path, 0o660), os.Lchown(path, uid, 0))
		if err != nil {
			t.Fatal(err)
		}
		s := &inlookup.Server{Resolver: yes, Getenv: settings("INFIFODIR", dir)}
		c, logged := start(t, s)
		answered(t, c, "user@d")
		found := logged.with("warning: " + path + ": its owner, uid 65534,")
		if (len(found) == 1) != warned || inlookup.TrustsOwner(uid) == warned {
			t.Errorf("owner %d: %q, trusted %v", uid, logged.with(""), inlookup.TrustsOwner(uid))
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode().Type() != fs.ModeNamedPipe {
			t.Errorf("owner %d: %v, %v", uid, info, err)
		}
	}
}

// TestRelativeDirectoryOfReplies: the server may have another directory, so the client says at
// once what is wrong. Without FIFOTMPDIR it takes the only directory that the server allows.
func TestRelativeDirectoryOfReplies(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"FIFOTMPDIR", "REPLYDIR"} {
		for _, value := range []string{".", "replies", "../replies"} {
			c := &inlookup.Client{Timeout: time.Minute, Getenv: settings("INFIFODIR", dir, name, value)}
			_, err := ask(c, inlookup.TypeUser, "user@d")
			if !errors.Is(err, inlookup.ErrUnavailable) || !strings.Contains(err.Error(), "FIFOTMPDIR") {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
	s := &inlookup.Server{Resolver: yes, Getenv: settings("INFIFODIR", dir, "REPLYDIR", dir)}
	start(t, s)
	answered(t, &inlookup.Client{Timeout: time.Minute, Getenv: s.Getenv}, "user@d")
}

// TestContextThatIsDoneAsksNobody: the error tells that the context is done.
func TestContextThatIsDoneAsksNobody(t *testing.T) {
	s := &inlookup.Server{Resolver: yes}
	c, _ := start(t, s)
	done, end := context.WithCancel(context.Background())
	end()
	for range 50 {
		_, err := c.Resolve(done, inlookup.Query{Type: inlookup.TypeUser, Email: "user@d"})
		if !errors.Is(err, inlookup.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
	answered(t, c, "user@d")
	if n := s.Stats().Queries[inlookup.TypeUser]; n != 1 {
		t.Errorf("%d questions reached the server", n)
	}
}

// TestNotFoundOfAnotherQuestion: an error that also says that there is no answer now does not mean
// "absent". An errgroup cancels all questions with the error of the first.
func TestNotFoundOfAnotherQuestion(t *testing.T) {
	none := settings("FIFOTMPDIR", t.TempDir())
	done, end := context.WithCancelCause(context.Background())
	end(fmt.Errorf("another user: %w", inlookup.ErrNotFound))
	unsure := resolve(func(context.Context, inlookup.Query) (inlookup.Answer, error) {
		return inlookup.Answer{}, errors.Join(inlookup.ErrNotFound, inlookup.ErrUnavailable)
	})
	for _, c := range []struct {
		name string
		ctx  context.Context
		r    inlookup.Resolver
	}{
		{"done, a function", done, yes},
		{"done, a Cache", done, &inlookup.Cache{Resolver: yes}},
		{"done, a Client", done, &inlookup.Client{Getenv: none}},
		{"done, a MySQL", done, &inlookup.MySQL{Getenv: none}},
		{"unsure", context.Background(), unsure},
		{"unsure, a Cache", context.Background(), &inlookup.Cache{Resolver: unsure}},
	} {
		d := inlookup.Directory{Resolver: c.r}
		_, err1 := d.Passwd(c.ctx, "user@d")
		_, err2 := d.Status(c.ctx, "user@d")
		_, err3 := d.Alias(c.ctx, "user@d")
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, inlookup.ErrUnavailable) || errors.Is(err, inlookup.ErrNotFound) {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.ctx == done && !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
}

// TestQuestionsAboutTheServer: the methods of Client ask what their names say.
func TestQuestionsAboutTheServer(t *testing.T) {
	s := &inlookup.Server{Resolver: yes}
	s.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		switch q.Email {
		case "fault":
			return "", errors.New("a fault")
		case "long":
			return strings.Repeat("x", 1<<20), nil
		}
		return fmt.Sprintf("%v of %q %q", q.Type, q.Email, q.IP), nil
	}
	c, _ := start(t, s)
	ctx := context.Background()
	check := func(want string) func(got string, err error) {
		t.Helper()
		return func(got string, err error) {
			t.Helper()
			if got != want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
	}
	check(`Status Query of "" ""`)(c.Status(ctx))
	check(`Flush Query of "user@d" ""`)(c.Flush(ctx, "user@d"))
	check(`Explain Query of "user@d" "3"`)(c.Explain(ctx, inlookup.TypePasswd, "user@d"))
	// Of a text that is too long comes what fits.
	text, err := c.Explain(ctx, inlookup.TypeUser, "long")
	if err != nil || len(text) < 4096 || strings.Trim(text, "x") != "" {
		t.Errorf("%d bytes of a long text, %v", len(text), err)
	}
	for _, ask := range []func() (string, error){
		func() (string, error) { return c.Flush(ctx, "fault") },
		func() (string, error) { return c.Explain(ctx, inlookup.TypeUser, "fault") },
	} {
		if text, err := ask(); text != "" || !errors.Is(err, inlookup.ErrUnavailable) {
			t.Errorf("%q, %v", text, err)
		}
	}
}
