// Consumer uses package inlookup as a program of another module does, and prints
// "ok" when everything was as it should be.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"

	"github.com/inlookup/inlookup"
)

// A book is a Resolver of this program's own: answers by type and address.
type book struct {
	mu    sync.Mutex // guards what follows
	pages map[inlookup.Query]inlookup.Answer
	asked int
}

func (b *book) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	a, ok := b.pages[q]
	if !ok {
		return "", fmt.Errorf("%w: nothing about %s here", inlookup.ErrUnavailable, q.Email)
	}
	return a, nil
}

func (b *book) write(q inlookup.Query, a inlookup.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages[q] = a
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

const (
	user = "user@example.com"
)

func entry(dir string) inlookup.Answer {
	return inlookup.NewPasswd(inlookup.Passwd{Email: user, Passwd: "$5$hash", UID: 1, Gecos: "A User", Dir: dir, Shell: "NOQUOTA"})
}

func newBook() *book {
	data := inlookup.NewData
	return &book{pages: map[inlookup.Query]inlookup.Answer{
		{Type: inlookup.TypeUser, Email: user}:                      inlookup.NewAnswer(int(inlookup.StatusOverQuota)),
		{Type: inlookup.TypeRelay, Email: user, IP: "192.0.2.10"}:   inlookup.NewAnswer(1),
		{Type: inlookup.TypePasswd, Email: user}:                    entry("/home/mail/user"),
		{Type: inlookup.TypeHost, Email: user}:                      data(inlookup.TypeHost, "example.com:192.0.2.25:25"),
		{Type: inlookup.TypeHost, Email: "nobody@example.com"}:      inlookup.NewAnswer(0),
		{Type: inlookup.TypeAlias, Email: "sales@example.com"}:      data(inlookup.TypeAlias, "&a@example.com\n&b@example.com\n"),
		{Type: inlookup.TypeLimit, Email: "example.com"}:            inlookup.NewLimits(inlookup.Limits{MaxPopAccounts: 100, DisableSMTP: 1, LimitType: 1}),
		{Type: inlookup.TypeDomain, Email: "alias.example.org"}:     data(inlookup.TypeDomain, "example.com"),
		{Type: inlookup.TypePasswd, Email: "nobody@example.com"}:    inlookup.Absent(inlookup.Query{Type: inlookup.TypePasswd, Email: "nobody@example.com"}),
		{Type: inlookup.TypeUser, Email: "inactive@example.com"}:    inlookup.NewAnswer(int(inlookup.StatusInactive)),
		{Type: inlookup.TypeUser, Email: "missing@example.com"}:     inlookup.NewAnswer(int(inlookup.StatusAbsent)),
		{Type: inlookup.TypeAlias, Email: "nobody@example.com"}:     data(inlookup.TypeAlias, ""),
		{Type: inlookup.TypeDomain, Email: "example.com"}:           data(inlookup.TypeDomain, "example.com"),
		{Type: inlookup.TypeRelay, Email: user, IP: "198.51.100.1"}: inlookup.NewAnswer(0),
	}}
}

// expect ends the program unless got is want and err as it should be.
func expect[T any](what string, want T, wrap error) func(T, error) {
	return func(got T, err error) {
		if !errors.Is(err, wrap) || fmt.Sprint(got) != fmt.Sprint(want) {
			log.Fatalf("%s: %v, %v; want %v, %v", what, got, err, want, wrap)
		}
	}
}

// seven asks everything of whoever answers.
func seven(who string, r inlookup.Resolver) {
	d, ctx := inlookup.Directory{Resolver: r}, context.Background()
	expect(who+": status", inlookup.StatusOverQuota, nil)(d.Status(ctx, user))
	expect(who+": status of one who is missing", inlookup.StatusAbsent, nil)(d.Status(ctx, "missing@example.com"))
	expect(who+": relay", true, nil)(d.Relay(ctx, user, "192.0.2.10"))
	expect(who+": relay elsewhere", false, nil)(d.Relay(ctx, user, "198.51.100.1"))
	expect(who+": password", inlookup.Passwd{Email: user, Passwd: "$5$hash", UID: 1, Gecos: "A User", Dir: "/home/mail/user", Shell: "NOQUOTA"}, nil)(d.Passwd(ctx, user))
	expect(who+": no password", inlookup.Passwd{}, inlookup.ErrNotFound)(d.Passwd(ctx, "nobody@example.com"))
	expect(who+": host", "example.com:192.0.2.25:25", nil)(d.Host(ctx, user))
	expect(who+": no host", "", inlookup.ErrNotFound)(d.Host(ctx, "nobody@example.com"))
	expect(who+": alias", []string{"&a@example.com", "&b@example.com"}, nil)(d.Alias(ctx, "sales@example.com"))
	expect(who+": no alias", []string(nil), nil)(d.Alias(ctx, "nobody@example.com"))
	expect(who+": limits", inlookup.Limits{MaxPopAccounts: 100, DisableSMTP: 1, LimitType: 1}, nil)(d.Limits(ctx, "example.com"))
	expect(who+": domain", "example.com", nil)(d.Domain(ctx, "alias.example.org"))
	expect(who+": unavailable", inlookup.Status(0), inlookup.ErrUnavailable)(d.Status(ctx, "elsewhere@example.net"))
}

// cached puts a cache in front of a Resolver and flushes it.
func cached() {
	b := newBook()
	cache := &inlookup.Cache{Resolver: b, MaxEntries: 1000}
	seven("a cache", cache)
	before := b.count()
	d, ctx := inlookup.Directory{Resolver: cache}, context.Background()
	expect("from memory", inlookup.StatusOverQuota, nil)(d.Status(ctx, "USER@example.com"))
	if b.count() != before {
		log.Fatal("what the cache knew was asked again")
	}
	passwd := inlookup.Query{Type: inlookup.TypePasswd, Email: user}
	b.write(passwd, entry("/home/mail2/user"))
	dir := func() (string, error) { p, err := d.Passwd(ctx, user); return p.Dir, err }
	expect("before the flush", "/home/mail/user", nil)(dir())
	if e, there := cache.Explain(passwd); !there || e.Left <= 0 || e.Absent {
		log.Fatalf("Explain: %+v, %v", e, there)
	}
	if n := cache.Flush(user); n != 3 { // status, password entry, host
		log.Fatalf("%d answers flushed", n)
	}
	expect("after the flush", "/home/mail2/user", nil)(dir())
	if s := cache.Stats(); s.Flushed != 3 || s.Hits < 2 {
		log.Fatalf("Stats: %+v", s)
	}
}

// served serves a Resolver over FIFOs and asks that server in three ways.
func served(dir string) {
	cache := &inlookup.Cache{Resolver: newBook()}
	env := map[string]string{"INFIFO": filepath.Join(dir, "infifo"), "FIFOTMPDIR": dir, "CONTROLDIR": dir, "REPLYDIR": dir}
	getenv := func(name string) string { return env[name] }
	server := &inlookup.Server{Resolver: cache, Getenv: getenv,
		About: func(_ context.Context, q inlookup.Query) (string, error) {
			return fmt.Sprint(q.Type, ": ", cache.Flush(q.Email)), nil
		}}
	if err := server.Listen(); err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx) }()

	client := &inlookup.Client{Getenv: getenv}
	var askers sync.WaitGroup
	for range 8 {
		askers.Go(func() { seven("a client", client) })
	}
	askers.Wait()
	a, err := client.Resolve(ctx, inlookup.Query{Type: inlookup.TypeFlush, Email: "example.com"})
	if err != nil {
		log.Fatal(err)
	}
	expect("a flush over the FIFO", "Flush Query: 9", nil)(a.Text()) // all of seven but relay, the alias domain and what failed
	if err := client.Close(); err != nil {
		log.Fatal(err)
	}

	for name, value := range env {
		os.Setenv(name, value)
	}
	os.Setenv("QUERY_CACHE", "1")
	seven("the environment", inlookup.FromEnv())
	a, err = inlookup.Inquery(ctx, inlookup.Query{Type: inlookup.TypeUser, Email: "inactive@example.com"})
	if err != nil {
		log.Fatal(err)
	}
	expect("Inquery", inlookup.StatusInactive, nil)(a.Status())
	expect("a relay question without an address", inlookup.Answer(""), inlookup.ErrInvalid)(inlookup.Inquery(ctx, inlookup.Query{Type: inlookup.TypeRelay, Email: user}))

	if s := server.Stats(); s.Queries[inlookup.TypeDomain] != 9 || s.Refused != 0 || s.Undeliverable != 0 {
		log.Fatalf("Stats: %+v", s)
	}
	stop()
	expect("the server's end", "", nil)("", <-done)
	expect("nobody serves", inlookup.Answer(""), inlookup.ErrUnavailable)(client.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeUser, Email: user}))
}

// direct asks a MySQL that is not there.
func direct(dir string) {
	env := map[string]string{"MYSQL_SOCKET": filepath.Join(dir, "none"), "CONTROLDIR": dir, "ASSIGNDIR": dir}
	mysql := &inlookup.MySQL{Getenv: func(name string) string { return env[name] }}
	defer mysql.Close()
	expect("no database", inlookup.Status(0), inlookup.ErrUnavailable)(inlookup.Directory{Resolver: mysql}.Status(context.Background(), user))
}

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "consumer")
	if err != nil {
		log.Fatal(err)
	}
	seven("a Resolver of one's own", newBook())
	cached()
	served(dir)
	direct(dir)
	if err := os.RemoveAll(dir); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ok")
}
