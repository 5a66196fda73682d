package inlookup_test

// The server and the client in the hands of a program that errs, by exported names alone.

import (
	"bytes"
	"context"
	"errors"
	"log"
	"strings"
	"sync"
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
	if a, err := ask(c, inlookup.TypeUser, "user@d"); err != nil || !a.Equal(inlookup.NewAnswer(0)) {
		t.Errorf("afterwards: %v, %v", a, err)
	}
	if found := logged.with("secret"); len(found) > 0 {
		t.Errorf("%q", found)
	}
}
