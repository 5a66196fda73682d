package inlookup

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// passwdEntry answers everything with a password entry of the usual length.
var passwdEntry = always(NewPasswd(Passwd{
	"user@example.com", NewSecret("$6$" + strings.Repeat("x", 103)), 555, 555, "Some User",
	"/home/mail/A2E/example.com/user", "50000000S", false,
}))

// filled returns a cache that knows user0@example.com to user(n-1)@example.com, and these
// addresses.
func filled(b *testing.B, n int) (c *Cache, emails [][]byte) {
	b.Helper()
	c = &Cache{Resolver: passwdEntry}
	for i := range n {
		email := "user" + strconv.Itoa(i) + "@example.com"
		emails = append(emails, []byte(email))
		resolve(b, c, TypePasswd, email)
	}
	return c, emails
}

// BenchmarkHit is what a hit costs in the cache, without the FIFOs.
func BenchmarkHit(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, emails := filled(b, n)
			var key []byte
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok := c.peek(&key, TypePasswd, emails[i*7919%n]); !ok {
					b.Fatal("a miss")
				}
			}
		})
	}
}

// BenchmarkHitParallel has all processors ask one cache.
func BenchmarkHitParallel(b *testing.B) {
	c, emails := filled(b, 100000)
	b.RunParallel(func(pb *testing.PB) {
		var key []byte
		for i := 0; pb.Next(); i++ {
			c.peek(&key, TypePasswd, emails[i*7919%len(emails)])
		}
	})
}

// BenchmarkMiss is what the cache adds to a question that it must pass on. Its 1000 entries are
// full, so each miss also evicts one.
func BenchmarkMiss(b *testing.B) {
	c := &Cache{Resolver: passwdEntry, MaxEntries: 1000}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		resolve(b, c, TypePasswd, "user"+strconv.Itoa(i)+"@example.com")
	}
}

// BenchmarkExpired is the same for an answer that is there, but too old.
func BenchmarkExpired(b *testing.B) {
	c := &Cache{Resolver: passwdEntry, TTL: 1}
	b.ReportAllocs()
	for b.Loop() {
		resolve(b, c, TypePasswd, "user@example.com")
	}
	if s := c.Stats(); s.Hits > s.Misses/10 {
		b.Errorf("%+v", s)
	}
}

// BenchmarkFlushDomain flushes a domain of 1000 users among 100,000 others, and puts it in again.
func BenchmarkFlushDomain(b *testing.B) {
	c, _ := filled(b, 100000)
	for b.Loop() {
		for i := range 1000 {
			resolve(b, c, TypePasswd, "user"+strconv.Itoa(i)+"@flushed.example")
		}
		if n := c.Flush("flushed.example"); n != 1000 {
			b.Fatalf("%d flushed", n)
		}
	}
}

// BenchmarkFrames finds the frames in a full pipe, and in one full of junk.
func BenchmarkFrames(b *testing.B) {
	q := Query{Type: TypePasswd, Email: "user@example.com"}
	frame := q.frame(b, "/tmp/inquery.AAAAAAAAAAAAAAAAAAAAAAAAAA")
	for name, piece := range map[string][]byte{
		"honest":  frame,
		"zeros":   make([]byte, 64),
		"headers": []byte(wireInt(4092) + "\x01\x00"),
	} {
		buf := slices.Repeat(piece, 65536/len(piece))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				frames(buf, false, func(request) {})
			}
		})
	}
}

// BenchmarkRoundTrip asks a server over its FIFO for what its cache knows.
func BenchmarkRoundTrip(b *testing.B) {
	cache, _ := filled(b, 1000)
	dir, _ := serve(b, &Server{Resolver: cache})
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			client, _ := newClient(b, dir)
			var left atomic.Int64
			left.Store(int64(b.N))
			var running sync.WaitGroup
			b.ResetTimer()
			for range clients {
				running.Go(func() {
					for left.Add(-1) >= 0 {
						q := Query{Type: TypePasswd, Email: "user7@example.com"}
						a, err := client.Resolve(context.Background(), q)
						if err != nil || a.Code() < 100 {
							b.Errorf("%q, %v", a, err)
						}
					}
				})
			}
			running.Wait()
		})
	}
}

// BenchmarkServer is the server's part of a round trip alone: a hundred requests at a time,
// answered into one FIFO.
func BenchmarkServer(b *testing.B) {
	cache, _ := filled(b, 1000)
	dir, _ := serve(b, &Server{Resolver: cache})
	in := newReply(b)
	q := Query{Type: TypePasswd, Email: "user7@example.com"}
	a := resolve(b, cache, q.Type, q.Email)
	request := q.frame(b, in.path)
	fd, err := syscall.Open(filepath.Join(dir, "infifo"), syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer syscall.Close(fd)
	const batch = 100 // their answers fit the FIFO
	answers := make([]byte, 65536)
	if err := syscall.SetNonblock(in.fd, false); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for range batch {
			if _, err := syscall.Write(fd, request); err != nil {
				b.Fatal(err)
			}
		}
		for got := 0; got < batch*len(a.Wire()); {
			n, err := syscall.Read(in.fd, answers)
			if err != nil && err != syscall.EINTR {
				b.Fatal(err)
			}
			got += max(n, 0) // none while nobody has it open for writing
		}
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "answers/s")
}
