package inlookup

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// raceMode reports whether the race detector is on: then everything takes some ten times as long.
var raceMode = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
})

// cached are the types that a cache keeps.
var cached = []Type{TypeUser, TypePasswd, TypeHost, TypeAlias, TypeLimit, TypeDomain}

var errDown = fmt.Errorf("%w: the database is down", ErrUnavailable)

// A fake is a Resolver that can be down and counts who asks. Its answers are numbered: "answer 1" and so on. Names
// that begin with "no" are absent.
type fake struct {
	mu    sync.Mutex
	asked []Query
	down  bool
	delay time.Duration // before an answer, or an error
}

func (f *fake) Resolve(ctx context.Context, q Query) (Answer, error) {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	n, down, delay := len(f.asked), f.down, f.delay
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	switch {
	case down:
		return "", errDown
	case strings.HasPrefix(q.Email, "no"):
		return absentAnswer(q), nil
	}
	return numbered(q.Type, n), nil
}

func numbered(t Type, n int) Answer { return NewData(t, "answer "+strconv.Itoa(n)) }

// absentAnswer is what the wire says of something that is not there.
func absentAnswer(q Query) Answer {
	switch q.Type {
	case TypeUser:
		return NewAnswer(1)
	case TypePasswd:
		return NewData(q.Type, "PWSTRUCT=No such user "+strings.ToLower(q.Email))
	case TypeAlias:
		return NewData(q.Type, "")
	case TypeDomain:
		return NewData(q.Type, strings.ToLower(q.Email))
	}
	return NewAnswer(0)
}

func (f *fake) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fake) setDown(down bool) {
	f.mu.Lock()
	f.down = down
	f.mu.Unlock()
}

// resolve asks c, and fails the test if there is no answer.
func resolve(t testing.TB, c *Cache, typ Type, email string) Answer {
	t.Helper()
	a, err := c.Resolve(context.Background(), Query{Type: typ, Email: email})
	if err != nil {
		t.Fatalf("%v %s: %v", typ, email, err)
	}
	return a
}

// expect asks c and tells how many questions that costs the Resolver.
func expect(t testing.TB, c *Cache, f *fake, typ Type, email string, want int) Answer {
	t.Helper()
	before := f.calls()
	a := resolve(t, c, typ, email)
	if n := f.calls() - before; n != want {
		t.Fatalf("%v %s: %d questions to the Resolver, want %d", typ, email, n, want)
	}
	return a
}

// consistent checks the tree, the rings and the accounts.
func consistent(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if broken := c.tree.check(&c.rings[0], &c.rings[1]); broken != 0 {
		t.Fatalf("invariant %d of the tree is broken", broken)
	}
	var entries [2]int
	var bytes [2]int64
	for n := c.tree.ceiling(""); n != nil; n = n.successor() {
		kind := 0
		if n.value.absent {
			kind = 1
		}
		entries[kind]++
		bytes[kind] += cost(n)
	}
	if entries != c.stats.Entries || bytes != c.stats.Bytes {
		t.Fatalf("the accounts say %d entries and %d bytes, there are %d and %d", c.stats.Entries, c.stats.Bytes, entries, bytes)
	}
	for i, n := range c.guesses {
		if n != nil && (c.tree.find([]byte(n.key)) != n || *c.guess(maphash.String(hashSeed, n.key)) != n) {
			t.Fatalf("guess %d, %q, is not in the tree, or in the wrong place", i, n.key)
		}
	}
	for kind := range c.rings {
		n, count := &c.rings[kind].head, 0
		for n = n.next; n != nil && n != &c.rings[kind].head; n = n.next {
			if count++; n.value.absent != (kind == 1) {
				t.Fatalf("%q hangs on the wrong ring", n.key)
			}
		}
		if count != entries[kind] {
			t.Fatalf("ring %d has %d entries of %d", kind, count, entries[kind])
		}
	}
}

// TestLife goes to both sides of the moment when an answer's life ends.
func TestLife(t *testing.T) {
	for _, c := range []struct {
		ttl, negative         time.Duration
		wantTTL, wantNegative time.Duration
	}{
		{0, 0, 10 * time.Minute, 20 * time.Second},
		{time.Minute, time.Second, time.Minute, time.Second},
		{time.Second, time.Hour, time.Second, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fake)
			cache := &Cache{Resolver: f, TTL: c.ttl, NegativeTTL: c.negative}
			for _, typ := range cached {
				for email, life := range map[string]time.Duration{"user@example.com": c.wantTTL, "nobody@example.com": c.wantNegative} {
					first := expect(t, cache, f, typ, email, 1)
					expect(t, cache, f, typ, email, 0)
					time.Sleep(life - 1)
					if a := expect(t, cache, f, typ, email, 0); a != first {
						t.Errorf("%v %s: %q, want %q", typ, email, a, first)
					}
					time.Sleep(time.Nanosecond)
					if a := expect(t, cache, f, typ, email, 1); a == first && email[0] != 'n' {
						t.Errorf("%v %s: the old answer", typ, email)
					}
				}
			}
			consistent(t, cache)
		})
	}
}

// TestLifeBeginsBeforeTheLoad: an answer is as old as the question to the database, not as its end.
func TestLifeBeginsBeforeTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{delay: 2 * time.Second}
		c := &Cache{Resolver: f, TTL: time.Minute, Stale: -1}
		expect(t, c, f, TypeUser, "user@example.com", 1)
		time.Sleep(58*time.Second - 1)
		expect(t, c, f, TypeUser, "user@example.com", 0)
		time.Sleep(time.Nanosecond)
		expect(t, c, f, TypeUser, "user@example.com", 1)
	})
}

func TestNeverCached(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f}
	for i := range 5 {
		for _, q := range []Query{{TypeRelay, "user@example.com", "192.0.2.1"}, {TypeStatus, "", ""}, {TypeFlush, "x", ""},
			{TypeExplain, "u@d", "1"}, {0, "u@d", ""}, {8, "u@d", ""}} {
			before := f.calls()
			if _, err := c.Resolve(context.Background(), q); err != nil {
				t.Error(err)
			}
			if got := f.calls() - before; got != 1 || f.asked[before] != q {
				t.Errorf("%v, time %d: %d questions to the Resolver", q, i, got)
			}
			if _, ok := c.peek(nil, q.Type, []byte(q.Email)); ok {
				t.Errorf("%v is in memory", q)
			}
			if _, ok := c.Explain(q); ok {
				t.Errorf("%v is explained", q)
			}
		}
	}
	if s := c.Stats(); s.Entries != [2]int{} || s.Bytes != [2]int64{} || s.Hits+s.Misses != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStaleBounds goes to both sides of the moment when an expired answer is no longer given while the Resolver is down.
func TestStaleBounds(t *testing.T) {
	for _, c := range []struct{ stale, mailbox, route time.Duration }{
		{0, time.Hour, 24 * time.Hour},
		{30 * time.Minute, 30 * time.Minute, 30 * time.Minute},
		{5 * time.Hour, time.Hour, 5 * time.Hour},
		{1000 * time.Hour, time.Hour, 24 * time.Hour},
		{-1, 0, 0},
	} {
		for _, typ := range cached {
			synctest.Test(t, func(t *testing.T) {
				f := new(fake)
				cache := &Cache{Resolver: f, Stale: c.stale}
				bound := c.route
				if typ == TypeUser || typ == TypePasswd {
					bound = c.mailbox
				}
				at := "@example.com"
				if typ == TypeDomain {
					at = ".example"
				}
				first := resolve(t, cache, typ, "user"+at)
				resolve(t, cache, typ, "nobody"+at)
				resolve(t, cache, typ, "flushed"+at)
				f.setDown(true)
				if e, ok := cache.Explain(Query{Type: typ, Email: "user" + at}); !ok || e.Left != 10*time.Minute || e.Stale != e.Left+bound {
					t.Errorf("%v: %+v", typ, e)
				}
				if n := cache.Flush("flushed" + at); n != 1 {
					t.Errorf("%d flushed", n)
				}
				for _, email := range []string{"flushed" + at, "other" + at} { // flushed is flushed
					if a, err := cache.Resolve(context.Background(), Query{Type: typ, Email: email}); !errors.Is(err, ErrUnavailable) {
						t.Errorf("%v %s: %q, %v", typ, email, a, err)
					}
				}
				time.Sleep(20 * time.Second) // absent is never stale
				if a, err := cache.Resolve(context.Background(), Query{Type: typ, Email: "nobody" + at}); !errors.Is(err, ErrUnavailable) {
					t.Errorf("%v nobody: %q, %v", typ, a, err)
				}
				time.Sleep(10*time.Minute - 20*time.Second + bound - 1)
				stale := cache.Stats().Stale
				if a, err := cache.Resolve(context.Background(), Query{Type: typ, Email: "user" + at}); a != first || err != nil {
					t.Errorf("%v within %v: %q, %v", typ, bound, a, err)
				}
				if n := cache.Stats().Stale - stale; (n > 0) != (bound > 0) {
					t.Errorf("%v within %v: counted %d times", typ, bound, n)
				}
				time.Sleep(time.Nanosecond)
				if a, err := cache.Resolve(context.Background(), Query{Type: typ, Email: "user" + at}); !errors.Is(err, ErrUnavailable) {
					t.Errorf("%v after %v: %q, %v", typ, bound, a, err)
				}
				synctest.Wait()
				consistent(t, cache)
			})
		}
	}
}

// TestDown: while the Resolver hangs, stale answers come after patience, and then at once for a second; when it is back
// the next answers are fresh.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		c := &Cache{Resolver: f}
		var users []string
		for i := range 50 {
			users = append(users, fmt.Sprintf("user%d@example.com", i))
			resolve(t, c, TypePasswd, users[i])
		}
		time.Sleep(10 * time.Minute)
		f.down, f.delay = true, time.Hour // longer than LoadTimeout
		before := f.calls()
		for _, user := range users {
			start := time.Now()
			resolve(t, c, TypePasswd, user)
			if took := time.Since(start); took != patience {
				t.Errorf("%s waited %v, want %v", user, took, patience)
			}
			start = time.Now()
			for range 10 {
				resolve(t, c, TypePasswd, user)
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("%s asked again waited %v", user, took)
			}
		}
		if n := f.calls() - before; n != len(users) {
			t.Errorf("%d questions to the Resolver for %d users", n, len(users))
		}
		before = f.calls()
		for range 100 { // ten seconds
			resolve(t, c, TypePasswd, users[0])
			time.Sleep(100 * time.Millisecond)
		}
		if n := f.calls() - before; n < 3 || n > 6 { // each try takes 2.5 s to fail
			t.Errorf("%d questions to the Resolver in 10 seconds", n)
		}
		f.mu.Lock()
		f.down, f.delay = false, 0
		f.mu.Unlock()
		time.Sleep(5 * time.Second) // for the tries that still hang
		for _, user := range users {
			resolve(t, c, TypePasswd, user)
			if e, ok := c.Explain(Query{Type: TypePasswd, Email: user}); !ok || e.Left <= 0 {
				t.Errorf("%s: still stale although the Resolver is back: %+v", user, e)
			}
		}
	})
}

// TestOneIsUnavailable: what cannot be looked up for one address says nothing about the others.
func TestOneIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
			if asked++; q.Email == "bad@example.com" && asked > 1 {
				return "", errDown
			}
			return numbered(q.Type, asked), nil
		})}
		resolve(t, c, TypePasswd, "bad@example.com")
		old := resolve(t, c, TypePasswd, "user@example.com")
		time.Sleep(10 * time.Minute)
		for range 50 {
			resolve(t, c, TypePasswd, "bad@example.com")
			if a := resolve(t, c, TypePasswd, "user@example.com"); a == old {
				t.Fatal("an expired answer, although the Resolver has a new one")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := c.Stats().Stale; n != 50 {
			t.Errorf("%d stale answers, want 50", n)
		}
	})
}

// TestLongNames: an absent address too long for the answer that repeats it is absent all the same, in their room.
func TestLongNames(t *testing.T) {
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) { return Absent(q), nil })}
	if _, err := c.Resolve(context.Background(), Query{Type: TypePasswd, Email: strings.Repeat("x", 4070) + "@example.com"}); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Entries != [2]int{0, 1} {
		t.Errorf("entries %v, want one that is absent", s.Entries)
	}
}

func TestLeastRecentlyUsed(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 3}
	ask := func(users string, want int) {
		t.Helper()
		for _, user := range users {
			expect(t, c, f, TypeUser, string(user)+"@example.com", want)
			consistent(t, c)
		}
	}
	there := func(users string) {
		t.Helper()
		for _, user := range "abcdefg" {
			_, ok := c.Explain(Query{Type: TypeUser, Email: string(user) + "@example.com"})
			if ok != strings.ContainsRune(users, user) {
				t.Fatalf("%c is there: %v, want only %s", user, ok, users)
			}
		}
	}
	ask("abc", 1)
	there("abc")
	ask("a", 0) // now b is the oldest
	ask("d", 1)
	there("acd")
	ask("ca", 0)
	ask("e", 1)
	there("ace")
	c.Explain(Query{Type: TypeUser, Email: "c@example.com"}) // is no use
	ask("f", 1)
	there("aef")
	ask("g", 1)
	there("efg")
	if s := c.Stats(); s.Evicted != 4 || s.Entries != [2]int{3, 0} {
		t.Errorf("%+v", s)
	}
}

// TestTooLong: what has grown too long is an error, not the expired answer.
func TestTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault error
		c := &Cache{Resolver: resolverFunc(func(context.Context, Query) (Answer, error) { return NewData(TypeAlias, "&a@b\n"), fault })}
		q := Query{Type: TypeAlias, Email: "list@example.com"}
		for _, f := range []error{nil, fmt.Errorf("%w: %w", ErrUnavailable, ErrTooLong), errDown} {
			fault = f
			if a, err := c.Resolve(context.Background(), q); (err != nil) != errors.Is(f, ErrTooLong) {
				t.Errorf("%v: %q, %v", f, a, err)
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestUseIsNotedInTime has a stream of newcomers as large as the room every 5000 questions: none of those in use must go.
func TestUseIsNotedInTime(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 1000}
	for i := range 500 {
		resolve(t, c, TypeUser, fmt.Sprintf("user%d@example.com", i))
	}
	for i := range 20000 {
		expect(t, c, f, TypeUser, fmt.Sprintf("user%d@example.com", i%500), 0)
		if i%5 == 0 {
			expect(t, c, f, TypeUser, fmt.Sprintf("new%d@example.com", i), 1)
		}
	}
	consistent(t, c)
}

func TestSize(t *testing.T) {
	f := new(fake)
	one := &Cache{Resolver: f}
	resolve(t, one, TypeUser, "user0000@example.com")
	each := one.Stats().Bytes[0]
	c := &Cache{Resolver: f, Size: 10*each + each/2}
	for i := range 1000 {
		resolve(t, c, TypeUser, fmt.Sprintf("user%04d@example.com", i))
		if s := c.Stats(); s.Bytes[0] > c.Size || i >= 10 && s.Entries[0] != 10 {
			t.Fatalf("after %d: %+v", i+1, s)
		}
	}
	for i := 990; i < 1000; i++ {
		expect(t, c, f, TypeUser, fmt.Sprintf("user%04d@example.com", i), 0)
	}
	consistent(t, c)

	// Bounds below one entry, and next to nothing, still answer.
	for _, c := range []*Cache{{Resolver: f, Size: 1}, {Resolver: f, Size: -1}, {Resolver: f, Size: each / 2}, {Resolver: f, MaxEntries: 1}} {
		for i := range 10 {
			resolve(t, c, TypeUser, fmt.Sprintf("user%d@example.com", i))
			resolve(t, c, TypeUser, fmt.Sprintf("nobody%d@example.com", i))
			consistent(t, c)
		}
		if s := c.Stats(); s.Bytes[0]+s.Bytes[1] > max(0, or(c.Size, each)) || s.Entries[0]+s.Entries[1] > 1 {
			t.Errorf("%+v", s)
		}
	}
}

// TestDictionary asks for names out of a dictionary: that drives out none of the users.
func TestDictionary(t *testing.T) {
	f := new(fake)
	const users = 10000
	words := 100000
	if testing.Short() || raceMode() {
		words = 20000
	}
	user := func(i int) string { return fmt.Sprintf("user%d@example.com", i) }
	for _, c := range []*Cache{
		{MaxEntries: users},                // they have no room at all beside the users
		{MaxEntries: users + users/2},      // they have their eighth
		{Size: 8 << 20, NegativeTTL: 1e15}, // some 2 MB are users
	} {
		c.Resolver = f
		for i := range users {
			resolve(t, c, TypePasswd, user(i))
		}
		for i := range words {
			resolve(t, c, TypePasswd, fmt.Sprintf("no%d@example.com", i))
			if i%1000 == 0 || i > words-10 {
				s := c.Stats()
				if s.Entries[0] != users || c.MaxEntries > 0 && s.Entries[1] > c.MaxEntries/8 || c.Size > 0 && s.Bytes[1] > c.Size/8 {
					t.Fatalf("after %d words: %+v", i+1, s)
				}
			}
		}
		before, hits := f.calls(), c.Stats().Hits
		for i := range users {
			resolve(t, c, TypePasswd, user(i))
		}
		if f.calls() != before || c.Stats().Hits != hits+users {
			t.Errorf("%d of %d users had to be loaded again", f.calls()-before, users)
		}
		if s := c.Stats(); c.MaxEntries != users && (s.Entries[1] < 1000 || s.Evicted != uint64(words-s.Entries[1])) {
			t.Errorf("the absent have no room: %+v", s)
		}
		consistent(t, c)
	}
}

// TestCost compares what the entries are said to take with the heap.
func TestCost(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	text := func(least, most int) string {
		b := make([]byte, least+rnd.IntN(most-least+1))
		for i := range b {
			b[i] = 'a' + byte(rnd.IntN(26))
		}
		return string(b)
	}
	c := &Cache{Size: 1 << 40, Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		switch local, domain, _ := strings.Cut(q.Email, "@"); q.Type {
		case TypeUser:
			return NewAnswer(0), nil
		case TypePasswd:
			scram := ""
			if len(local)%4 == 0 {
				scram = "{SCRAM-SHA-256}4096," + text(24, 24) + "," + text(44, 44) + "," + text(44, 44) + ":" + text(64, 64) + ":" + text(64, 64) + ","
			}
			return NewData(q.Type, "PWSTRUCT="+q.Email+":"+scram+"$6$"+text(16, 16)+"$"+text(86, 86)+":555:555:"+text(3, 30)+
				":/home/mail/"+text(3, 3)+"/"+domain+"/"+local+":50000000S:0"), nil
		case TypeAlias:
			return NewData(q.Type, strings.Repeat("&"+text(5, 20)+"@"+text(8, 20)+"\n", rnd.IntN(20))), nil
		case TypeLimit:
			return NewAnswer(128) + Answer(strings.Repeat("\x00", 128)), nil
		}
		return NewData(q.Type, text(5, 40)), nil
	})}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	users := 100000
	if testing.Short() || raceMode() {
		users = 20000
	}
	for range users {
		email := text(3, 20) + "@" + text(4, 20) + ".example"
		resolve(t, c, TypePasswd, email)
		resolve(t, c, cached[rnd.IntN(len(cached))], email)
	}
	real, s := heap()-before, c.Stats()
	if said := s.Bytes[0] + s.Bytes[1]; said < real*9/10 || said > real*11/10 {
		t.Errorf("%d entries are said to take %d bytes, and take %d", s.Entries[0]+s.Entries[1], said, real)
	} else {
		t.Logf("%d entries are said to take %d bytes, and take %d", s.Entries[0]+s.Entries[1], said, real)
	}
	runtime.KeepAlive(c)
}

func TestCoalescing(t *testing.T) {
	for _, fault := range []error{nil, errDown, errors.New("another fault")} {
		synctest.Test(t, func(t *testing.T) {
			release, calls := make(chan struct{}), atomic.Int32{}
			c := &Cache{Resolver: resolverFunc(func(ctx context.Context, q Query) (Answer, error) {
				n := calls.Add(1)
				if d, ok := ctx.Deadline(); !ok || time.Until(d) != 2500*time.Millisecond {
					t.Errorf("a load has until %v, want 2.5 s", d)
				}
				if ctx.Value(askerKey{}) != nil {
					t.Error("a load runs on the context of its first asker")
				}
				<-release
				return numbered(q.Type, int(n)), fault
			})}
			ctx, cancel := context.WithCancel(context.WithValue(context.Background(), askerKey{}, 1))
			q, first := Query{Type: TypeUser, Email: "user@example.com"}, make(chan error, 1)
			go func() {
				_, err := c.Resolve(ctx, q)
				first <- err
			}()
			synctest.Wait()
			type result struct {
				a   Answer
				err error
			}
			results := make(chan result, 1000)
			for i := range 1000 {
				q := q
				if i%2 == 0 {
					q.Email = "USER@Example.com" // is the same question
				}
				go func() {
					a, err := c.Resolve(context.Background(), q)
					results <- result{a, err}
				}()
			}
			synctest.Wait()
			cancel()
			if err := <-first; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("the first asker, who has gone, gets %v", err)
			}
			close(release)
			for range 1000 {
				if r := <-results; !errors.Is(r.err, fault) || fault == nil && r.a != numbered(q.Type, 1) {
					t.Fatalf("%q, %v, want %v", r.a, r.err, fault)
				}
			}
			if s := c.Stats(); calls.Load() != 1 || s.Misses != 1 || s.Coalesced != 1000 {
				t.Errorf("%d questions to the Resolver, %+v", calls.Load(), s)
			}
			calls.Store(1)
			a, err := c.Resolve(context.Background(), q) // an answer stays, an error does not
			if want := 1 + bit(fault != nil); int(calls.Load()) != want || !errors.Is(err, fault) || fault == nil && a != numbered(q.Type, 1) {
				t.Errorf("afterwards: %q, %v after %d loads", a, err, calls.Load())
			}
		})
	}
}

func TestLoadTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{0, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c, start := &Cache{Resolver: &fake{delay: time.Hour}, LoadTimeout: timeout}, time.Now()
			_, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
			if want := or(timeout, 2500*time.Millisecond); !errors.Is(err, ErrUnavailable) || time.Since(start) != want {
				t.Errorf("%v after %v, want one after %v", err, time.Since(start), want)
			}
		})
	}
}

// TestFlushDuringLoad flushes while a question is under way: its answer may be older, so it is not kept, and who asks
// after the flush does not wait for it.
func TestFlushDuringLoad(t *testing.T) {
	for _, flush := range []string{"user@example.com", "user%EXAMPLE.com", "Example.com", ""} {
		for _, oldLast := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				var release [2]chan struct{}
				release[0], release[1] = make(chan struct{}), make(chan struct{})
				calls := atomic.Int32{}
				c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
					n := calls.Add(1)
					<-release[n-1]
					return numbered(q.Type, int(n)), nil
				})}
				ask := func() chan Answer {
					answer := make(chan Answer, 1)
					go func() { answer <- resolve(t, c, TypePasswd, "user@example.com") }()
					synctest.Wait()
					return answer
				}
				before := ask()
				c.Flush(flush)
				after := ask()
				if calls.Load() != 2 {
					t.Fatalf("flush %q: %d loads, want a second one", flush, calls.Load())
				}
				for i := range release {
					if oldLast {
						i = 1 - i
					}
					close(release[i])
					synctest.Wait()
				}
				if a, b := <-before, <-after; a != numbered(TypePasswd, 1) || b != numbered(TypePasswd, 2) {
					t.Errorf("flush %q: %q before, %q after", flush, a, b)
				}
				if a := resolve(t, c, TypePasswd, "user@example.com"); a != numbered(TypePasswd, 2) || calls.Load() != 2 {
					t.Errorf("flush %q: %q was kept", flush, a)
				}
				consistent(t, c)
			})
		}
	}
}

// TestFence has many ask and flush at the same time. The fake database's answer is how often it was changed; after a
// change and a flush nobody may see an older number.
func TestFence(t *testing.T) {
	const users, rounds = 1500, 2000 // so many that the flush of a domain lets go of the mutex
	var changes, domainFence atomic.Int64
	var userFence [8]atomic.Int64
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		n := changes.Load()
		for range rand.IntN(5) {
			runtime.Gosched()
		}
		return NewData(q.Type, strconv.FormatInt(n, 10)), nil
	})}
	raise := func(fence *atomic.Int64, n int64) {
		for old := fence.Load(); old < n && !fence.CompareAndSwap(old, n); old = fence.Load() {
		}
	}
	ask := func(i int, least int64) {
		a, err := c.Resolve(context.Background(), Query{Type: TypePasswd, Email: fmt.Sprintf("user%d@example.com", i)})
		if n, _ := strconv.ParseInt(a.Data(), 10, 64); err != nil || n < least {
			t.Errorf("user %d: change %d, %v, after the flush of change %d", i, n, err, least)
		}
	}
	for i := range users {
		ask(i, 0)
	}
	var wg, flushers sync.WaitGroup
	var over atomic.Bool
	for i := range userFence {
		flushers.Go(func() { // of one user
			for range rounds {
				n := changes.Add(1)
				c.Flush(fmt.Sprintf("user%d@example.com", i))
				raise(&userFence[i], n)
				ask(i, n)
			}
		})
	}
	for i := range 2 {
		flushers.Go(func() { // of all users
			for range rounds {
				n := changes.Add(1)
				c.Flush([]string{"example.com", ""}[i])
				raise(&domainFence, n)
				ask(rand.IntN(users), n)
			}
		})
	}
	for range 8 {
		wg.Go(func() {
			for !over.Load() && !t.Failed() {
				least := domainFence.Load()
				ask(rand.IntN(users), least)
				i := rand.IntN(len(userFence))
				least = userFence[i].Load()
				ask(i, least)
			}
		})
	}
	flushers.Wait()
	over.Store(true)
	wg.Wait()
	consistent(t, c)
}

func TestFlush(t *testing.T) {
	emails := []string{"a@one.example", "ab@one.example", "b@one.example", "a%one.example", "A:One.example", "a@two.example", "a@one.example2", "a@sub.one.example"}
	for _, s := range []struct {
		flush string
		gone  []string // of emails, for all types
	}{
		{"a@one.example", []string{"a@one.example", "a%one.example", "A:One.example"}},
		{"A@ONE.Example", []string{"a@one.example", "a%one.example", "A:One.example"}},
		{"a%one.example", []string{"a@one.example", "a%one.example", "A:One.example"}},
		{"ab@one.example", []string{"ab@one.example"}},
		{"one.example", []string{"a@one.example", "ab@one.example", "b@one.example", "a%one.example", "A:One.example"}},
		{"ONE.example", []string{"a@one.example", "ab@one.example", "b@one.example", "a%one.example", "A:One.example"}},
		{"two.example", []string{"a@two.example"}},
		{"", emails},
		{"@one.example", nil},
		{"one", nil},
		{"none.example", nil},
		{"c@one.example", nil},
		{"a", nil},
	} {
		f := new(fake)
		c := &Cache{Resolver: f}
		types := []Type{TypeUser, TypePasswd, TypeHost, TypeAlias, TypeLimit}
		for _, email := range emails {
			for _, typ := range types {
				resolve(t, c, typ, email)
			}
		}
		n := c.Flush(s.flush)
		if want := len(s.gone) * len(types); n != want || c.Stats().Flushed != uint64(want) {
			t.Errorf("flush %q: %d entries, counted %d, want %d", s.flush, n, c.Stats().Flushed, want)
		}
		for _, email := range emails {
			for _, typ := range types {
				expect(t, c, f, typ, email, bit(slices.Contains(s.gone, email)))
			}
		}
		consistent(t, c)
	}

	// What is about the domain itself goes with it, and not with a user.
	f := new(fake)
	c := &Cache{Resolver: f}
	for _, typ := range []Type{TypeDomain, TypeLimit} {
		expect(t, c, f, typ, "one.example", 1)
		if n := c.Flush("a@one.example"); n != 0 {
			t.Errorf("%v: %d entries", typ, n)
		}
		expect(t, c, f, typ, "ONE.example", 0)
		if n := c.Flush("One.example"); n != 1 {
			t.Errorf("%v: %d entries", typ, n)
		}
	}

	// More entries than go at one time.
	for _, flush := range []string{"example.com", ""} {
		for _, users := range []int{499, 500, 501, 1000, 1001, 2345} {
			for i := range users {
				resolve(t, c, TypeUser, fmt.Sprintf("user%d@example.com", i))
			}
			resolve(t, c, TypeUser, "user@example.co")
			resolve(t, c, TypeUser, "user@example.com2")
			if n := c.Flush(flush); n != users && flush != "" || flush == "" && n < users+2 {
				t.Errorf("flush %q of %d users: %d entries", flush, users, n)
			}
			consistent(t, c)
		}
	}
}

// TestSpellings asks for one user in many ways. Each answer repeats the question, so each is its own; all go when the
// user is flushed.
func TestSpellings(t *testing.T) {
	calls := 0
	c := &Cache{DefaultDomain: "Example.COM", Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		calls++
		if strings.HasPrefix(q.Email, "no") {
			return absentAnswer(q), nil
		}
		return NewData(q.Type, q.Email), nil
	})}
	for _, user := range []string{"user", "nobody"} {
		spellings := []string{user + "@example.com", user + "%example.com", user + ":example.com", user}
		for _, typ := range []Type{TypeUser, TypePasswd, TypeHost, TypeAlias} {
			for range 3 {
				for _, email := range append(spellings, strings.ToUpper(user)+"@EXAMPLE.com", strings.ToUpper(user)+"%example.COM", strings.ToUpper(user)) {
					q := Query{Type: typ, Email: strings.ToLower(email)}
					want := NewData(typ, q.Email)
					if user == "nobody" {
						want = absentAnswer(q)
					}
					if a := resolve(t, c, typ, email); a != want {
						t.Errorf("%v %s: %q, want %q", typ, email, a, want)
					}
				}
			}
		}
		if calls != len(spellings)*4 {
			t.Errorf("%d questions to the Resolver", calls)
		}
		calls = 0
		if n := c.Flush(user + "@example.com"); n != len(spellings)*4 {
			t.Errorf("%d entries flushed, want %d", n, len(spellings)*4)
		}
		for _, email := range spellings {
			if _, ok := c.Explain(Query{Type: TypeUser, Email: email}); ok {
				t.Errorf("%s is still there", email)
			}
		}
	}
	// A limits query without a separator is about a domain, a domain query always is.
	for _, typ := range []Type{TypeLimit, TypeDomain} {
		for _, email := range []string{"user", "example.com", "user@example.com", "user%example.com"} {
			if a := resolve(t, c, typ, email); a != NewData(typ, email) {
				t.Errorf("%v %s: %q", typ, email, a)
			}
		}
	}
	consistent(t, c)
}

func TestFill(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 6}
	user := func(i int) string { return fmt.Sprintf("user%d@example.com", i) }
	asked := resolve(t, c, TypePasswd, user(0))
	n, err := c.Fill(func(add func(Query, Answer) bool) error {
		for i := range 20 {
			if more := add(Query{Type: TypePasswd, Email: strings.ToUpper(user(i))}, NewData(TypePasswd, "filled")); more != (i < 6) {
				t.Errorf("add %d says %v", i, more)
			}
			consistent(t, c)
		}
		return errDown
	})
	if n != 5 || err != errDown {
		t.Errorf("%d filled, %v", n, err)
	}
	if s := c.Stats(); s.Evicted != 0 || s.Entries != [2]int{6, 0} || s.Misses != 1 {
		t.Errorf("%+v", s)
	}
	if a := expect(t, c, f, TypePasswd, user(0), 0); a != asked {
		t.Errorf("what was there is now %q", a)
	}
	for i := 1; i < 6; i++ {
		if a, ok := c.Explain(Query{Type: TypePasswd, Email: user(i)}); !ok || a.Absent {
			t.Errorf("%s: %+v, %v", user(i), a, ok)
		}
	}
	for i := 5; i > 0; i-- { // the least likely one goes first
		resolve(t, c, TypePasswd, fmt.Sprintf("new%d@example.com", i))
		for j := 1; j < 6; j++ {
			if _, ok := c.Explain(Query{Type: TypePasswd, Email: user(j)}); ok != (j < i) {
				t.Errorf("after %d new ones %s is there: %v", 6-i, user(j), ok)
			}
		}
	}
	expect(t, c, f, TypePasswd, user(0), 0) // asked for, so it stays longest
}

// TestFillThenUse: what was filled in becomes the most recent at its first use, in the same period too.
func TestFillThenUse(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 40}
	user := func(i int) string { return fmt.Sprintf("user%d@example.com", i) }
	c.Fill(func(add func(Query, Answer) bool) error {
		for i := range 40 {
			add(Query{Type: TypePasswd, Email: user(i)}, NewData(TypePasswd, "filled"))
		}
		return nil
	})
	expect(t, c, f, TypePasswd, user(39), 0) // the least likely one
	expect(t, c, f, TypePasswd, "new@example.com", 1)
	expect(t, c, f, TypePasswd, user(39), 0)
	expect(t, c, f, TypePasswd, user(38), 1) // went in its place
}

func TestFillIsGivenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		c := &Cache{Resolver: f}
		c.Fill(func(add func(Query, Answer) bool) error {
			time.Sleep(time.Minute) // what is read late may be as old as the beginning
			add(Query{Type: TypePasswd, Email: "user@example.com"}, NewData(TypePasswd, "filled"))
			return nil
		})
		if a := expect(t, c, f, TypePasswd, "user@example.com", 0); a.Data() != "filled" {
			t.Errorf("%q", a)
		}
		time.Sleep(9*time.Minute - 1)
		expect(t, c, f, TypePasswd, "user@example.com", 0)
		time.Sleep(time.Nanosecond)
		expect(t, c, f, TypePasswd, "user@example.com", 1)
	})
}

// TestFlushDuringFill: what a Fill reads may be older than the flush.
func TestFlushDuringFill(t *testing.T) {
	there := func(c *Cache, email string) bool {
		_, ok := c.Explain(Query{Type: TypePasswd, Email: email})
		return ok
	}
	fill := func(c *Cache, flush string) (filled int, more bool) {
		filled, err := c.Fill(func(add func(Query, Answer) bool) error {
			one := func(email string) bool { return add(Query{Type: TypePasswd, Email: email}, NewData(TypePasswd, "old")) }
			one("before@example.com")
			c.Flush(flush)
			one("user@example.com")
			one("user%example.com")
			one("after@example.com")
			more = one("user@other.example")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		consistent(t, c)
		return filled, more
	}
	f := new(fake)
	for _, s := range []struct {
		flush                      string
		before, user, after, other bool
	}{
		{"user@example.com", true, false, true, true},
		{"USER%EXAMPLE.com", true, false, true, true},
		{"example.com", false, false, false, true},
		{"", false, false, false, false},
		{"another@example.com", true, true, true, true},
	} {
		c := &Cache{Resolver: f}
		filled, more := fill(c, s.flush)
		got := []bool{there(c, "before@example.com"), there(c, "user@example.com"), there(c, "after@example.com"), there(c, "user@other.example")}
		if want := []bool{s.before, s.user, s.after, s.other}; !slices.Equal(got, want) || there(c, "user%example.com") != s.user || more != s.other {
			t.Errorf("flush %q during a fill: there are %v, want %v; more %v", s.flush, got, want, more)
		}
		if want := 1 + 2*bit(s.user) + bit(s.after) + bit(s.other); filled != want {
			t.Errorf("flush %q during a fill: %d filled, want %d", s.flush, filled, want)
		}
		fill(c, "nobody@example.com") // the fences of one Fill end with it
		if !there(c, "before@example.com") || !there(c, "user@example.com") {
			t.Errorf("flush %q still holds in the next fill", s.flush)
		}
	}
}

func TestPeekDoesNotAllocate(t *testing.T) {
	c := &Cache{Resolver: new(fake), DefaultDomain: "example.com"}
	scratch := make([]byte, 0, 1024)
	for _, email := range []string{"user@example.com", "USER@EXAMPLE.COM", "user%example.com", "user", "nobody@example.com", "unknown@example.com"} {
		b := []byte(email)
		if !strings.HasPrefix(email, "unknown") {
			resolve(t, c, TypePasswd, email)
		}
		if n := testing.AllocsPerRun(100, func() { c.peek(scratch, TypePasswd, b) }); n > 0 {
			t.Errorf("%s: %v allocations", email, n)
		}
		if string(b) != email {
			t.Errorf("peek made %q of %q: it lies in the reader's buffer", b, email)
		}
		if a, ok := c.peek(scratch, TypePasswd, b); ok != !strings.HasPrefix(email, "unknown") || ok && a != resolve(t, c, TypePasswd, email) {
			t.Errorf("%s: %q, %v", email, a, ok)
		}
	}
}

func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{delay: 250 * time.Millisecond}
		c := &Cache{Resolver: f, TTL: time.Minute}
		q := Query{Type: TypeHost, Email: "user@example.com"}
		if e, ok := c.Explain(q); ok || e != (Entry{}) {
			t.Errorf("nothing there: %+v", e)
		}
		resolve(t, c, q.Type, q.Email)
		resolve(t, c, q.Type, "nobody@example.com")
		time.Sleep(10 * time.Second)
		stats := c.Stats()
		e, ok := c.Explain(q)
		want := Entry{Age: 10*time.Second + 500*time.Millisecond, Left: 49*time.Second + 500*time.Millisecond,
			Stale: 24*time.Hour + 49*time.Second + 500*time.Millisecond, Bytes: stats.Bytes[0]}
		if !ok || e != want {
			t.Errorf("%+v, %v\nwant %+v", e, ok, want)
		}
		e, ok = c.Explain(Query{Type: TypeHost, Email: "NOBODY@example.com"})
		want = Entry{Age: 10*time.Second + 250*time.Millisecond, Left: 9*time.Second + 750*time.Millisecond,
			Stale: 9*time.Second + 750*time.Millisecond, Bytes: stats.Bytes[1], Absent: true}
		if !ok || e != want {
			t.Errorf("%+v, %v\nwant %+v", e, ok, want)
		}
		if c.Stats() != stats {
			t.Errorf("Explain counts: %+v, before %+v", c.Stats(), stats)
		}
	})
}

// cacheModel is what a Cache must do, without tree and rings and for one asker at a time. Keys are
// "domain local type spelling"; in the lists the most recently used is first.
type cacheModel struct {
	max     int
	entries map[string]modelEntry
	lists   [2][]string
	period  uint16
	fresh   int
}

// keep puts an entry in, on no list.
func (m *cacheModel) keep(key string, e modelEntry) {
	m.entries[key] = e
	if m.fresh++; m.fresh > len(m.entries)/16 {
		m.fresh, m.period = 0, m.period+1
	}
	e.used = m.period
	m.entries[key] = e
}

type modelEntry struct {
	answer Answer
	loaded time.Time
	absent bool
	failed uint32
	used   uint16
}

func modelKey(typ Type, email string) string {
	email = strings.ToLower(email)
	i := strings.LastIndexAny(email, "@%:") // the addresses asked about have one at most
	switch {
	case typ == TypeDomain || i < 0 && typ == TypeLimit:
		return fmt.Sprint(email, "  ", int(typ), " ")
	case i < 0:
		return fmt.Sprint("default.example ", email, " ", int(typ), " ", email)
	case email[i] != '@':
		return fmt.Sprint(email[i+1:], " ", email[:i], " ", int(typ), " ", email)
	}
	return fmt.Sprint(email[i+1:], " ", email[:i], " ", int(typ), " ")
}

func (m *cacheModel) life(e modelEntry) time.Duration {
	if e.absent {
		return 20 * time.Second
	}
	return 10 * time.Minute
}

func (m *cacheModel) usable(key string, typ Type) bool {
	e, ok := m.entries[key]
	most := 24 * time.Hour
	if typ == TypeUser || typ == TypePasswd {
		most = time.Hour
	}
	return ok && !e.absent && time.Since(e.loaded) < m.life(e)+most
}

func (m *cacheModel) drop(key string) {
	kind := bit(m.entries[key].absent)
	m.lists[kind] = slices.DeleteFunc(m.lists[kind], func(k string) bool { return k == key })
	delete(m.entries, key)
}

func (m *cacheModel) put(key string, e modelEntry) {
	if _, ok := m.entries[key]; ok {
		m.drop(key)
	}
	m.keep(key, e)
	m.lists[bit(e.absent)] = slices.Insert(m.lists[bit(e.absent)], 0, key)
	for m.max > 0 && len(m.lists[1]) > max(1, m.max/8) {
		m.drop(m.lists[1][len(m.lists[1])-1])
	}
	for m.max > 0 && len(m.entries) > m.max {
		list := m.lists[0]
		if len(m.lists[1]) > 0 {
			list = m.lists[1]
		}
		m.drop(list[len(list)-1])
	}
}

// ask returns what must be answered, "" for an error, and whether the Resolver must be asked; its answer will be fresh.
func (m *cacheModel) ask(q Query, resolverDown bool, fresh Answer) (want Answer, load bool) {
	key := modelKey(q.Type, q.Email)
	e, ok := m.entries[key]
	usable := m.usable(key, q.Type)
	if ok && time.Since(e.loaded) < m.life(e) || usable && e.failed == second() {
		if kind := bit(e.absent); e.used != m.period {
			m.lists[kind] = slices.DeleteFunc(m.lists[kind], func(k string) bool { return k == key })
			m.lists[kind] = slices.Insert(m.lists[kind], 0, key)
			e.used = m.period
			m.entries[key] = e
		}
		return e.answer, false
	}
	if resolverDown && usable {
		e.failed = second()
		m.entries[key] = e
		return e.answer, true
	}
	if resolverDown {
		return "", true
	}
	m.put(key, modelEntry{answer: fresh, loaded: time.Now(), absent: fresh == absentAnswer(q)})
	return fresh, true
}

func (m *cacheModel) flush(email string) (n int) {
	email = strings.ToLower(email)
	prefix := ""
	if i := strings.LastIndexAny(email, "@%:"); i >= 0 {
		prefix = email[i+1:] + " " + email[:i] + " "
	} else if email != "" {
		prefix = email + " "
	}
	for key := range m.entries {
		if strings.HasPrefix(key, prefix) {
			m.drop(key)
			n++
		}
	}
	return n
}

func (m *cacheModel) fill(q Query, a Answer) bool {
	key := modelKey(q.Type, q.Email)
	if _, ok := m.entries[key]; ok {
		return true
	}
	if m.max > 0 && len(m.entries) >= m.max {
		return false
	}
	m.keep(key, modelEntry{answer: a, loaded: time.Now(), absent: a == absentAnswer(q)})
	e := m.entries[key]
	e.used--
	m.entries[key] = e
	kind := bit(a == absentAnswer(q))
	m.lists[kind] = append(m.lists[kind], key)
	return true
}

// TestCacheModel runs a Cache beside its model, and checks tree, rings and accounts after each step.
func TestCacheModel(t *testing.T) {
	steps := 1000000
	if testing.Short() || raceMode() {
		steps = 50000
	}
	for seed := range 20 {
		synctest.Test(t, func(t *testing.T) { modelRun(t, uint64(seed), steps/20) })
	}
}

func modelRun(t *testing.T, seed uint64, steps int) {
	rnd := rand.New(rand.NewPCG(seed, 3))
	f := new(fake)
	m := &cacheModel{max: []int{0, 1, 7, 40}[seed%4], entries: make(map[string]modelEntry)}
	c := &Cache{Resolver: f, MaxEntries: m.max, DefaultDomain: "default.example"}
	sized := &Cache{Resolver: f, Size: 3000, DefaultDomain: "default.example"} // is only held to its bound
	query := func() Query {
		domain := []string{"example.com", "example.org", "default.example"}[rnd.IntN(3)]
		local := []string{"user", "u", "USER", "no", "nobody"}[rnd.IntN(5)]
		q := Query{Type: cached[rnd.IntN(len(cached))], Email: local + []string{"@", "@", "%", ":"}[rnd.IntN(4)] + domain}
		switch rnd.IntN(8) {
		case 0:
			q.Email = local
		case 1:
			q.Email = domain
		}
		return q
	}
	for step := range steps {
		f.asked = f.asked[:min(len(f.asked), 1<<20)]
		switch op := rnd.IntN(100); {
		case op < 80:
			q := query()
			before := f.calls()
			fresh := numbered(q.Type, before+1)
			if strings.HasPrefix(strings.ToLower(q.Email), "no") {
				fresh = absentAnswer(q)
			}
			want, load := m.ask(q, f.down, fresh)
			got, err := c.Resolve(context.Background(), q)
			synctest.Wait() // for a load that nobody waits for
			if got != want || (err != nil) != (want == "") || f.calls()-before != bit(load) {
				t.Fatalf("seed %d, step %d: %v: %q, %v after %d questions to the Resolver, want %q, %v", seed, step, q, got, err, f.calls()-before, want, load)
			}
			if load && f.asked[before] != (Query{q.Type, strings.ToLower(q.Email), ""}) {
				t.Fatalf("seed %d, step %d: %v asks the Resolver %v", seed, step, q, f.asked[before])
			}
			sized.Resolve(context.Background(), q)
		case op < 84:
			email := query().Email
			if rnd.IntN(10) == 0 {
				email = ""
			}
			if got, want := c.Flush(email), m.flush(email); got != want {
				t.Fatalf("seed %d, step %d: flush %q: %d entries, want %d", seed, step, email, got, want)
			}
			sized.Flush(email)
		case op < 86:
			f.setDown(!f.down)
		case op < 88:
			want, got := 0, 0
			c.Fill(func(add func(Query, Answer) bool) error {
				for range 3 {
					q, a := query(), Answer("")
					if a = numbered(q.Type, 0); strings.HasPrefix(strings.ToLower(q.Email), "no") {
						if a = absentAnswer(q); m.max > 0 {
							continue // see TestFill for what is absent
						}
					}
					got, want = got<<1+bit(add(q, a)), want<<1+bit(m.fill(q, a))
				}
				return nil
			})
			if got != want {
				t.Fatalf("seed %d, step %d: fill says %b, want %b", seed, step, got, want)
			}
		case op < 96:
			time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
		case op < 99:
			time.Sleep(time.Duration(rnd.Int64N(int64(time.Minute))))
		default:
			time.Sleep(time.Duration(rnd.Int64N(int64(30 * time.Hour))))
		}
		consistent(t, c)
		synctest.Wait()
		consistent(t, sized)
		if s := sized.Stats(); s.Bytes[0]+s.Bytes[1] > 3000 || s.Bytes[1] > 3000/8 {
			t.Fatalf("seed %d, step %d: %+v", seed, step, s)
		}
		if s := c.Stats(); s.Entries != [2]int{len(m.lists[0]), len(m.lists[1])} {
			t.Fatalf("seed %d, step %d: %d entries, want %d", seed, step, s.Entries, []int{len(m.lists[0]), len(m.lists[1])})
		}
	}
}

type askerKey struct{}
