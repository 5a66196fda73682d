package inlookup_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/inlookup/inlookup"
)

// routes is a Resolver of one's own: it knows where the mail of some addresses goes, and nothing else.
type routes map[string]string

func (r routes) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if q.Type != inlookup.TypeHost {
		return "", fmt.Errorf("%w: this one knows only routes", inlookup.ErrUnavailable)
	}
	if route, ok := r[q.Email]; ok {
		return inlookup.NewData(q.Type, route), nil
	}
	return inlookup.NewAnswer(0), nil // there is no such address
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
	defer client.Close()
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
	// inlookup: no such address
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

// Ask the running server, whatever the environment says.
func ExampleClient() {
	client := new(inlookup.Client)
	defer client.Close()
	d := inlookup.Directory{Resolver: client}
	status, err := d.Status(context.Background(), "user@example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status)
}

// Ask MySQL itself.
func ExampleMySQL() {
	mysql := new(inlookup.MySQL)
	defer mysql.Close()
	d := inlookup.Directory{Resolver: mysql}
	limits, err := d.Limits(context.Background(), "example.com")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(limits.MaxPopAccounts)
}

// A cache in front of any Resolver, inside one's own program.
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
	d, ctx := inlookup.Directory{Resolver: cache}, context.Background()
	fmt.Println(d.Host(ctx, "user@example.com"))

	r["user@example.com"] = "example.com:192.0.2.26:25"
	fmt.Println(d.Host(ctx, "user@example.com"))

	fmt.Println(cache.Flush("user@example.com"), "answer flushed") // "example.com": all of the domain; "": everything
	fmt.Println(d.Host(ctx, "user@example.com"))
	// Output:
	// example.com:192.0.2.25:25 <nil>
	// example.com:192.0.2.25:25 <nil>
	// 1 answer flushed
	// example.com:192.0.2.26:25 <nil>
}
