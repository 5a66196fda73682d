package inlookup_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/inlookup/inlookup"
)

// routes is a Resolver of your own: it knows where the mail of some addresses goes, and nothing
// else.
type routes map[string]string

func (r routes) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if q.Type != inlookup.TypeHost {
		return inlookup.Answer{}, fmt.Errorf("%w: this one knows only routes", inlookup.ErrUnavailable)
	}
	if route, ok := r[q.Email]; ok {
		return inlookup.NewData(q.Type, route), nil
	}
	return inlookup.Absent(q), nil
}

// Serve a Resolver of your own over a FIFO, and ask that server.
func ExampleServer() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fifo := filepath.Join(dir, "infifo")

	server := &inlookup.Server{
		Resolver: routes{"user@example.com": "example.com:192.0.2.25:25"},
		Infifo:   fifo,
	}
	if err := server.Listen(); err != nil { // now a client may ask
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx) }()

	client := &inlookup.Client{Infifo: fifo}
	d := inlookup.Directory{Resolver: client}
	fmt.Println(d.Host(ctx, "user@example.com"))
	_, err = d.Host(ctx, "nobody@example.com")
	fmt.Println(err)
	_, err = d.Status(ctx, "user@example.com")
	fmt.Println(errors.Is(err, inlookup.ErrUnavailable))

	stop()
	fmt.Println(<-done)
	// Output:
	// example.com:192.0.2.25:25 <nil>
	// no such address
	// true
	// <nil>
}

// Ask the running server, or MySQL itself, as the environment says.
func ExampleDirectory() {
	d := inlookup.Directory{Resolver: inlookup.FromEnv()}
	entry, err := d.Passwd(context.Background(), "user@example.com")
	switch {
	case errors.Is(err, inlookup.ErrNotFound):
		fmt.Println("no such user")
	case err != nil:
		fmt.Println("try again later:", err) // never take this for "no such user"
	default:
		fmt.Println(entry.Email, "lives in", entry.Dir)
	}
}

// running stands for the server of a mail host. It serves routes from memory, at fifo, until stop
// is called.
func running() (fifo string, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	cache := &inlookup.Cache{Resolver: routes{"user@example.com": "example.com:192.0.2.25:25"}}
	server := &inlookup.Server{Resolver: cache, Infifo: filepath.Join(dir, "infifo")}
	// What ExampleClient_Resolve_flush asks.
	server.Admin = func(_ context.Context, q inlookup.Query) (string, error) {
		return fmt.Sprintf("%v: %d entries", q.Type, cache.Flush(q.Email)), nil
	}
	if err := server.Listen(); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.Serve(ctx) }()
	return server.Infifo, func() {
		cancel()
		if err := errors.Join(<-done, os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// Ask the running server, whatever the environment says about QUERY_CACHE.
func ExampleClient() {
	fifo, stop := running()
	defer stop()

	client := &inlookup.Client{Infifo: fifo} // new(inlookup.Client) goes by the environment
	d := inlookup.Directory{Resolver: client}
	ctx := context.Background()
	fmt.Println(d.Host(ctx, "user@example.com"))

	_, err := d.Host(ctx, "nobody@example.com")
	fmt.Println("there is no such address:", errors.Is(err, inlookup.ErrNotFound))

	_, err = d.Passwd(ctx, "user@example.com") // this server does not know: ask again later
	fmt.Println("unavailable:", errors.Is(err, inlookup.ErrUnavailable))
	// Output:
	// example.com:192.0.2.25:25 <nil>
	// there is no such address: true
	// unavailable: true
}

// Make the running server forget what has changed.
func ExampleClient_Resolve_flush() {
	fifo, stop := running()
	defer stop()

	client := &inlookup.Client{Infifo: fifo}
	ctx := context.Background()
	if _, err := (inlookup.Directory{Resolver: client}).Host(ctx, "user@example.com"); err != nil {
		log.Fatal(err)
	}
	// An address, a domain, everything.
	for _, what := range []string{"user@example.com", "example.com", ""} {
		fmt.Println(client.Flush(ctx, what))
	}
	// Output:
	// Flush Query: 1 entries <nil>
	// Flush Query: 0 entries <nil>
	// Flush Query: 0 entries <nil>
}

// Ask MySQL itself, without a server.
func ExampleMySQL() {
	// nil for Getenv: the environment and the control files in /etc/indimail.
	settings := map[string]string{
		"MYSQL_HOST": "db1.example.com,db2.example.com", "MYSQL_PASSWD": "secret",
	}
	mysql := &inlookup.MySQL{Getenv: func(name string) string { return settings[name] }}
	defer mysql.Close()
	d := inlookup.Directory{Resolver: mysql}
	limits, err := d.Limits(context.Background(), "example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(limits.MaxPopAccounts)
}

// accounts is a Resolver over a database of your own.
type accounts struct{ db *sql.DB }

func (a accounts) Resolve(ctx context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if q.Type != inlookup.TypePasswd {
		return inlookup.Answer{}, fmt.Errorf("%w: this one knows only passwords", inlookup.ErrUnavailable)
	}
	local, domain := q.Split("example.com")
	entry := inlookup.Passwd{Email: local + "@" + domain, Shell: "/bin/false"}
	const text = "SELECT hash, uid, gid, home FROM accounts WHERE name = ? AND domain = ?"
	var hash string
	err := a.db.QueryRowContext(ctx, text, local, domain).
		Scan(&hash, &entry.UID, &entry.GID, &entry.Dir)
	entry.Passwd = inlookup.NewSecret(hash)
	if errors.Is(err, sql.ErrNoRows) {
		return inlookup.Absent(q), nil
	}
	if err != nil {
		return inlookup.Answer{}, fmt.Errorf("%w: %w", inlookup.ErrUnavailable, err)
	}
	return inlookup.NewPasswd(entry), nil
}

// Serve your own database, with a cache in front of it.
func ExampleResolver() {
	db, err := sql.Open("mysql", "mail:secret@unix(/run/mysqld/mysqld.sock)/mail")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	cache := &inlookup.Cache{Resolver: accounts{db}}
	server := &inlookup.Server{Resolver: cache, Infifo: "/run/mine/infifo"}
	log.Fatal(server.Serve(context.Background()))
}

// deliver is a part of a mail program. It says what to do with a message.
func deliver(d inlookup.Directory, email string) string {
	status, err := d.Status(context.Background(), email)
	switch {
	case err != nil:
		return "try again later"
	case status == inlookup.StatusActive, status == inlookup.StatusAlias:
		return "accept"
	}
	return "refuse: " + status.String()
}

// fake is a Resolver for tests. It always gives the same answer, or an error.
type fake struct {
	answer inlookup.Answer
	err    error
}

func (f fake) Resolve(context.Context, inlookup.Query) (inlookup.Answer, error) {
	return f.answer, f.err
}

// Test your program with a fake, without a server or a database.
func ExampleDirectory_fake() {
	fakes := []fake{
		{answer: inlookup.NewAnswer(int(inlookup.StatusActive))},
		{answer: inlookup.NewAnswer(int(inlookup.StatusAbsent))},
		{err: inlookup.ErrUnavailable},
	}
	for _, f := range fakes {
		fmt.Println(deliver(inlookup.Directory{Resolver: f}, "user@example.com"))
	}
	// Output:
	// accept
	// refuse: absent
	// try again later
}

// A cache in front of any Resolver, inside your own program.
func ExampleCache() {
	r := routes{"user@example.com": "example.com:192.0.2.25:25"}
	cache := &inlookup.Cache{Resolver: r, MaxEntries: 1000}
	d := inlookup.Directory{Resolver: cache}
	for range 3 {
		fmt.Println(d.Host(context.Background(), "User@example.com"))
	}
	stats := cache.Stats()
	fmt.Println(stats.Misses, "miss,", stats.Hits, "hits")
	// Output:
	// example.com:192.0.2.25:25 <nil>
	// example.com:192.0.2.25:25 <nil>
	// example.com:192.0.2.25:25 <nil>
	// 1 miss, 2 hits
}

// Forget what has changed.
func ExampleCache_Flush() {
	r := routes{"user@example.com": "example.com:192.0.2.25:25"}
	cache := &inlookup.Cache{Resolver: r}
	d := inlookup.Directory{Resolver: cache}
	ctx := context.Background()
	fmt.Println(d.Host(ctx, "user@example.com"))

	r["user@example.com"] = "example.com:192.0.2.26:25"
	fmt.Println(d.Host(ctx, "user@example.com"))

	// "example.com" would flush the whole domain, "" everything.
	fmt.Println(cache.Flush("user@example.com"), "answer flushed")
	fmt.Println(d.Host(ctx, "user@example.com"))
	// Output:
	// example.com:192.0.2.25:25 <nil>
	// example.com:192.0.2.25:25 <nil>
	// 1 answer flushed
	// example.com:192.0.2.26:25 <nil>
}
