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
	"time"

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
		return inlookup.Answer{}, fmt.Errorf("%w: nothing about %s here",
			inlookup.ErrUnavailable, q.Email)
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

const user = "user@example.com"

func passwd(dir string) inlookup.Passwd {
	return inlookup.Passwd{
		Email: user, Passwd: inlookup.NewSecret("$5$hash"), UID: 1, Gecos: "A User",
		Dir: dir, Shell: "NOQUOTA",
	}
}

var limits = inlookup.Limits{
	MaxPopAccounts: 100, DisableSMTP: 1, LimitType: inlookup.LimitsOfDomain,
}

func newBook() *book {
	b := &book{pages: make(map[inlookup.Query]inlookup.Answer)}
	add := func(t inlookup.Type, email, ip string, a inlookup.Answer) {
		b.write(inlookup.Query{Type: t, Email: email, IP: ip}, a)
	}
	data := func(t inlookup.Type, email, text string) {
		add(t, email, "", inlookup.NewData(t, text))
	}
	code := func(t inlookup.Type, email string, status inlookup.Status) {
		add(t, email, "", inlookup.NewAnswer(int(status)))
	}
	const nobody = "nobody@example.com"
	code(inlookup.TypeUser, user, inlookup.StatusOverQuota)
	code(inlookup.TypeUser, "inactive@example.com", inlookup.StatusInactive)
	code(inlookup.TypeUser, "missing@example.com", inlookup.StatusAbsent)
	add(inlookup.TypeRelay, user, "192.0.2.10", inlookup.NewAnswer(1))
	add(inlookup.TypeRelay, user, "198.51.100.1", inlookup.NewAnswer(0))
	add(inlookup.TypePasswd, user, "", inlookup.NewPasswd(passwd("/home/mail/user")))
	noPasswd := inlookup.Query{Type: inlookup.TypePasswd, Email: nobody}
	b.write(noPasswd, inlookup.Absent(noPasswd))
	data(inlookup.TypeHost, user, "example.com:192.0.2.25:25")
	add(inlookup.TypeHost, nobody, "", inlookup.NewAnswer(0))
	data(inlookup.TypeAlias, "sales@example.com", "&a@example.com\n&b@example.com\n")
	data(inlookup.TypeAlias, nobody, "")
	add(inlookup.TypeLimit, "example.com", "", inlookup.NewLimits(limits))
	data(inlookup.TypeDomain, "alias.example.org", "example.com")
	data(inlookup.TypeDomain, "example.com", "example.com")
	return b
}

// expect ends the program unless got is want and err wraps what it should.
func expect[T any](what string, want T, wrap error) func(T, error) {
	return func(got T, err error) {
		if !errors.Is(err, wrap) || fmt.Sprint(got) != fmt.Sprint(want) {
			log.Fatalf("%s: %v, %v; want %v, %v", what, got, err, want, wrap)
		}
	}
}

// seven asks everything of a Resolver.
func seven(who string, r inlookup.Resolver) {
	d := inlookup.Directory{Resolver: r}
	ctx := context.Background()
	expect(who+": status", inlookup.StatusOverQuota, nil)(d.Status(ctx, user))
	expect(who+": status of a missing user", inlookup.StatusAbsent, nil)(
		d.Status(ctx, "missing@example.com"))
	expect(who+": relay", true, nil)(d.Relay(ctx, user, "192.0.2.10"))
	expect(who+": relay elsewhere", false, nil)(d.Relay(ctx, user, "198.51.100.1"))
	expect(who+": password", passwd("/home/mail/user"), nil)(d.Passwd(ctx, "User@Example.com"))
	expect(who+": no password", inlookup.Passwd{}, inlookup.ErrNotFound)(
		d.Passwd(ctx, "nobody@example.com"))
	expect(who+": host", "example.com:192.0.2.25:25", nil)(d.Host(ctx, user))
	expect(who+": no host", "", inlookup.ErrNotFound)(d.Host(ctx, "nobody@example.com"))
	expect(who+": alias", []string{"&a@example.com", "&b@example.com"}, nil)(
		d.Alias(ctx, "sales@example.com"))
	expect(who+": no alias", []string(nil), nil)(d.Alias(ctx, "nobody@example.com"))
	expect(who+": limits", limits, nil)(d.Limits(ctx, "example.com"))
	expect(who+": domain", "example.com", nil)(d.Domain(ctx, "alias.example.org"))
	expect(who+": unavailable", inlookup.StatusUnknown, inlookup.ErrUnavailable)(
		d.Status(ctx, "elsewhere@example.net"))
}

// cached puts a cache in front of a Resolver and flushes it.
func cached() {
	b := newBook()
	cache := &inlookup.Cache{Resolver: b, MaxEntries: 1000}
	ctx := context.Background()
	n, err := cache.Preload(ctx, []string{user, "nobody@example.com"})
	expect("preloaded", 1, nil)(n, err)
	seven("a cache", cache)
	before := b.count()
	d := inlookup.Directory{Resolver: cache}
	expect("from memory", inlookup.StatusOverQuota, nil)(d.Status(ctx, "USER@example.com"))
	if b.count() != before {
		log.Fatal("what the cache knew was asked again")
	}
	q := inlookup.Query{Type: inlookup.TypePasswd, Email: user}
	b.write(q, inlookup.NewPasswd(passwd("/home/mail2/user")))
	dir := func() (string, error) {
		p, err := d.Passwd(ctx, user)
		return p.Dir, err
	}
	expect("before the flush", "/home/mail/user", nil)(dir())
	if e, there := cache.Explain(q); !there || e.Left <= 0 || e.Absent {
		log.Fatalf("Explain: %+v, %v", e, there)
	}
	if n := cache.Flush(user); n != 3 { // status, password entry, host
		log.Fatalf("%d answers flushed", n)
	}
	expect("after the flush", "/home/mail2/user", nil)(dir())
	s := cache.Stats()
	if s.Flushed != 3 || s.Hits < 2 || s.Present.Entries == 0 || s.Absent.Bytes == 0 {
		log.Fatalf("Stats: %+v", s)
	}
}

// served serves a Resolver over FIFOs and asks that server in three ways.
func served(dir string) {
	cache := &inlookup.Cache{Resolver: newBook()}
	env := map[string]string{
		"INFIFO":     filepath.Join(dir, "infifo"),
		"FIFOTMPDIR": dir, "CONTROLDIR": dir, "REPLYDIR": dir,
	}
	getenv := func(name string) string { return env[name] }
	server := &inlookup.Server{Resolver: cache, Getenv: getenv}
	server.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		return fmt.Sprint(q.Type, ": ", cache.Flush(q.Email)), nil
	}
	settings, err := server.Settings()
	expect("settings", dir, nil)(settings.ReplyDir, err)
	expect("FIFOs", settings.FIFOs, nil)(inlookup.RequestFIFOs(getenv, ""), nil)
	if err := server.Listen(); err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx) }()

	client := &inlookup.Client{Getenv: getenv}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() { seven("a client", client) })
	}
	clients.Wait()
	// All of seven but relay, the alias domain and what failed.
	expect("a flush over the FIFO", "Flush Query: 9", nil)(client.Flush(ctx, "example.com"))

	fromEnvironment(ctx, env)
	s := server.Stats()
	if s.Queries[inlookup.TypeDomain] != 9 || s.Refused+s.Undeliverable+s.Unopened+s.Remade != 0 {
		log.Fatalf("Stats: %+v", s)
	}
	stop()
	expect("the server's end", "", nil)("", <-done)
	expect("nobody serves", inlookup.Answer{}, inlookup.ErrUnavailable)(
		client.Resolve(context.Background(), inactive))
}

var inactive = inlookup.Query{Type: inlookup.TypeUser, Email: "inactive@example.com"}

// fromEnvironment asks the server that the environment names.
func fromEnvironment(ctx context.Context, env map[string]string) {
	for name, value := range env {
		os.Setenv(name, value)
	}
	os.Setenv("QUERY_CACHE", "1")
	seven("the environment", inlookup.FromEnv())
	a, err := inlookup.Inquery(ctx, inactive)
	if err != nil {
		log.Fatal(err)
	}
	expect("Inquery", inlookup.StatusInactive, nil)(a.Status())
	relay := inlookup.Query{Type: inlookup.TypeRelay, Email: user}
	expect("relay without an address", inlookup.Answer{}, inlookup.ErrInvalid)(
		inlookup.Inquery(ctx, relay))
}

// direct asks a MySQL that is not there.
func direct(dir string) {
	env := map[string]string{
		"MYSQL_SOCKET": filepath.Join(dir, "none"), "CONTROLDIR": dir, "ASSIGNDIR": dir,
	}
	mysql := &inlookup.MySQL{Getenv: func(name string) string { return env[name] }}
	defer mysql.Close()
	ctx := context.Background()
	d := inlookup.Directory{Resolver: mysql}
	expect("no database", inlookup.StatusUnknown, inlookup.ErrUnavailable)(d.Status(ctx, user))
	if emails, err := mysql.Recent(ctx, time.Hour); err == nil {
		log.Fatalf("Recent: %q", emails)
	}
	place, err := mysql.Locate(ctx, inlookup.Query{Type: inlookup.TypeUser, Email: user})
	expect("where it would look", "indimail on localhost", nil)(place.Database, err)
	if s := mysql.Stats(); s.Errors == 0 {
		log.Fatalf("Stats: %+v", s)
	}
}

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "consumer")
	if err != nil {
		log.Fatal(err)
	}
	seven("a Resolver of this program", newBook())
	cached()
	served(dir)
	direct(dir)
	if err := os.RemoveAll(dir); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ok")
}
