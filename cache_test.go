package inlookup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// cached are the types that a cache keeps.
var cached = []Type{TypeUser, TypePasswd, TypeHost, TypeAlias, TypeLimit, TypeDomain}

// bouncing are the types whose answer "absent" bounces mail or refuses a login.
var bouncing = []Type{TypeUser, TypePasswd, TypeHost}

// resolve asks c, and fails the test if there is no answer.
func resolve(t testing.TB, c *Cache, typ Type, email string) Answer {
	t.Helper()
	a, err := c.Resolve(context.Background(), Query{Type: typ, Email: email})
	if err != nil {
		t.Fatalf("%v %s: %v", typ, email, err)
	}
	return a
}

// expect asks c, and fails the test if that does not cost so many questions to the Resolver.
func expect(t testing.TB, c *Cache, f *fake, typ Type, email string, want int) Answer {
	t.Helper()
	before := f.calls()
	a := resolve(t, c, typ, email)
	if n := f.calls() - before; n != want {
		t.Fatalf("%v %s: %d questions to the Resolver, want %d", typ, email, n, want)
	}
	return a
}

// unavailableFor asks c, and fails the test unless the answer is "unavailable".
func unavailableFor(t testing.TB, c *Cache, typ Type, email string) {
	t.Helper()
	a, err := c.Resolve(context.Background(), Query{Type: typ, Email: email})
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v %s: %q, %v", typ, email, a, err)
	}
}

// holds reports whether the cache has something for the question.
func (c *Cache) holds(typ Type, email string) bool {
	_, there := c.Explain(Query{Type: typ, Email: email})
	return there
}

// entries returns how many entries there are of each kind.
func (c *Cache) entries() [2]int {
	s := c.Stats()
	return [2]int{s.Present.Entries, s.Absent.Entries}
}

// total returns the room that all entries take.
func (c *Cache) total() Usage {
	s := c.Stats()
	return Usage{
		Entries: s.Present.Entries + s.Absent.Entries,
		Bytes:   s.Present.Bytes + s.Absent.Bytes,
	}
}

func userAt(i int) string { return fmt.Sprintf("user%d@example.com", i) }

// consistent checks the tree, the rings and the accounts.
func consistent(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if broken := c.tree.check(&c.rings[present], &c.rings[absent]); broken != 0 {
		t.Fatalf("invariant %d of the tree is broken", broken)
	}
	var there [2]Usage
	for n := c.tree.ceiling(""); n != nil; n = n.successor() {
		u := &there[n.value.kind]
		u.Entries++
		u.Bytes += cost(n)
	}
	if counted := [2]Usage{c.stats.Present, c.stats.Absent}; there != counted {
		t.Fatalf("the accounts say %v, there are %v", counted, there)
	}
	for k := range c.rings {
		count := 0
		head := &c.rings[k].head
		for n := head.next; n != nil && n != head; n = n.next {
			count++
			if int(n.value.kind) != k {
				t.Fatalf("%q hangs on the wrong ring", n.key)
			}
		}
		if count != there[k].Entries {
			t.Fatalf("ring %d has %d entries of %d", k, count, there[k].Entries)
		}
	}
}

// --- How long an answer lives.

// TestLife goes to both sides of the moment when an answer's life ends.
func TestLife(t *testing.T) {
	for _, c := range []struct{ ttl, negative, wantTTL, wantNegative time.Duration }{
		{0, 0, 10 * time.Minute, 20 * time.Second},
		{time.Minute, time.Second, time.Minute, time.Second},
		{time.Second, time.Hour, time.Second, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fake)
			cache := &Cache{Resolver: f, TTL: c.ttl, NegativeTTL: c.negative}
			for _, typ := range cached {
				checkLife(t, cache, f, typ, "user@example.com", c.wantTTL)
				life := c.wantTTL
				if slices.Contains(bouncing, typ) {
					life = c.wantNegative
				}
				checkLife(t, cache, f, typ, "nobody@example.com", life)
			}
			consistent(t, cache)
		})
	}
}

func checkLife(t *testing.T, c *Cache, f *fake, typ Type, email string, life time.Duration) {
	t.Helper()
	first := expect(t, c, f, typ, email, 1)
	expect(t, c, f, typ, email, 0)
	time.Sleep(life - 1)
	if a := expect(t, c, f, typ, email, 0); !a.Equal(first) {
		t.Errorf("%v %s: %q, want %q", typ, email, a, first)
	}
	time.Sleep(time.Nanosecond)
	if a := expect(t, c, f, typ, email, 1); a.Equal(first) && email[0] != 'n' {
		t.Errorf("%v %s: the old answer", typ, email)
	}
}

// TestLifeBeginsBeforeTheLoad: an answer is as old as the question to the database.
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

// TestNothingKept: with a negative TTL nothing is kept, not even for an outage.
func TestNothingKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		c := &Cache{Resolver: f, TTL: -1, NegativeTTL: -1}
		for range 3 {
			expect(t, c, f, TypePasswd, "user@example.com", 1)
			expect(t, c, f, TypePasswd, "nobody@example.com", 1)
		}
		n, err := c.Preload(context.Background(), []string{"user@example.com"})
		if n != 0 || err != nil {
			t.Errorf("preloaded %d, %v", n, err)
		}
		f.setDown(true)
		unavailableFor(t, c, TypePasswd, "user@example.com")
		if c.entries() != [2]int{} {
			t.Errorf("%+v", c.Stats())
		}
		f.setDown(false)
		c = &Cache{Resolver: f, NegativeTTL: -1} // one kind alone
		expect(t, c, f, TypePasswd, "user@example.com", 1)
		expect(t, c, f, TypePasswd, "user@example.com", 0)
		expect(t, c, f, TypePasswd, "nobody@example.com", 1)
		expect(t, c, f, TypePasswd, "nobody@example.com", 1)
		consistent(t, c)
	})
}

func TestNeverCached(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f}
	questions := []Query{
		{TypeRelay, "user@example.com", "192.0.2.1"}, {TypeStatus, "", ""}, {TypeFlush, "x", ""},
		{TypeExplain, "u@d", "1"}, {0, "u@d", ""}, {8, "u@d", ""},
	}
	for i := range 5 {
		for _, q := range questions {
			before := f.calls()
			want := bit(q.Type.known()) // what no server knows is not asked
			if _, err := c.Resolve(context.Background(), q); (err == nil) != q.Type.known() {
				t.Error(err)
			}
			if got := f.calls() - before; got != want || want > 0 && f.asked[before] != q {
				t.Errorf("%v, time %d: %d questions to the Resolver", q, i, got)
			}
			var key []byte
			if _, ok := c.peek(&key, q.Type, []byte(q.Email)); ok {
				t.Errorf("%v is in memory", q)
			}
			if _, ok := c.Explain(q); ok {
				t.Errorf("%v is explained", q)
			}
		}
	}
	if s := c.Stats(); s != (CacheStats{}) {
		t.Errorf("%+v", s)
	}
}

// TestNoResolver: a Cache without a Resolver says so.
func TestNoResolver(t *testing.T) {
	for _, typ := range append(cached, TypeRelay, TypeStatus) {
		a, err := new(Cache).Resolve(context.Background(), Query{Type: typ, Email: "user@example.com"})
		if !a.isZero() || !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %q, %v", typ, a, err)
		}
	}
}

// TestReplacedByNothing: when the Resolver has said that an address is gone, or that its row is not
// understood, what was known before is never given again, even if the new answer is not kept.
func TestReplacedByNothing(t *testing.T) {
	for _, now := range []struct {
		answer Answer
		err    error
	}{
		{Absent(Query{Type: TypePasswd, Email: "user@example.com"}), nil},
		{Answer{}, fmt.Errorf("%w: %w", ErrUnavailable, ErrInvalid)},
	} {
		synctest.Test(t, func(t *testing.T) {
			answer, err := NewPasswd(Passwd{Email: "user@example.com"}), error(nil)
			c := &Cache{NegativeTTL: -1, Resolver: resolverFunc(func(context.Context, Query) (Answer, error) {
				return answer, err
			})}
			resolve(t, c, TypePasswd, "user@example.com")
			time.Sleep(11 * time.Minute)
			answer, err = now.answer, now.err
			c.Resolve(context.Background(), Query{Type: TypePasswd, Email: "user@example.com"})
			answer, err = Answer{}, errDown
			unavailableFor(t, c, TypePasswd, "user@example.com")
			synctest.Wait()
			consistent(t, c)
		})
	}
}

// TestPreloadOfNothing: a cache that keeps nothing asks for nobody.
func TestPreloadOfNothing(t *testing.T) {
	c := &Cache{TTL: -1, Resolver: resolverFunc(func(context.Context, Query) (Answer, error) {
		t.Error("asked")
		return Answer{}, nil
	})}
	if n, err := c.Preload(context.Background(), []string{"user@example.com"}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

// TestNotFound: a Resolver's error ErrNotFound means the same as Absent, for a Cache, a Server and a
// Directory.
func TestNotFound(t *testing.T) {
	r := resolverFunc(func(context.Context, Query) (Answer, error) {
		return Answer{}, fmt.Errorf("%w: a Resolver's own words", ErrNotFound)
	})
	c := &Cache{Resolver: r}
	s := &Server{Resolver: r}
	for _, typ := range []Type{TypeUser, TypeRelay, TypePasswd, TypeHost, TypeAlias, TypeLimit, TypeDomain} {
		q := Query{Type: typ, Email: "user@example.com"}
		a, err := c.Resolve(context.Background(), q)
		if !a.Equal(Absent(q)) || err != nil {
			t.Errorf("%v: a Cache answers %q, %v", typ, a, err)
		}
		if a := s.resolve(context.Background(), q); !a.Equal(Absent(q)) {
			t.Errorf("%v: a Server answers %q", typ, a)
		}
	}
	if got := c.entries(); got != [2]int{len(cached) - len(bouncing), len(bouncing)} {
		t.Errorf("entries %v", got)
	}
	status, err := Directory{Resolver: r}.Status(context.Background(), "user@example.com")
	if status != StatusAbsent || err != nil {
		t.Errorf("a Directory answers %v, %v", status, err)
	}
}

// TestResolverGetsLowerCase: whatever the case of the question, the Resolver is asked in lower
// case, and once.
func TestResolverGetsLowerCase(t *testing.T) {
	for _, typ := range append(cached, TypeRelay) {
		f := new(fake)
		c := &Cache{Resolver: f}
		for _, email := range []string{"JÜRGEN@Exämple.COM", "jürgen@EXÄMPLE.com"} {
			resolve(t, c, typ, email)
		}
		if want := 1 + bit(typ == TypeRelay); f.calls() != want {
			t.Errorf("%v: %d questions", typ, f.calls())
		}
		for _, q := range f.asked {
			if q.Email != "jürgen@exämple.com" {
				t.Errorf("%v: the Resolver is asked about %q", typ, q.Email)
			}
		}
	}
	f := new(fake) // bytes that are not UTF-8 differ; the letters beside them do not
	c := &Cache{Resolver: f}
	expect(t, c, f, TypeUser, "\xffÜ@Example.com", 1)
	expect(t, c, f, TypeUser, "\xffü@example.com", 0)
	expect(t, c, f, TypeUser, "\xfeü@example.com", 1)
	if f.asked[0].Email != "\xffü@example.com" {
		t.Errorf("the Resolver is asked about %q", f.asked[0].Email)
	}
}

// --- When the Resolver is unavailable.

// TestStaleBounds goes to both sides of the moment when an expired answer is no longer given
// while the Resolver is down.
func TestStaleBounds(t *testing.T) {
	for _, c := range []struct{ stale, mailbox, route time.Duration }{
		{0, time.Hour, 24 * time.Hour},
		{30 * time.Minute, 30 * time.Minute, 30 * time.Minute},
		{5 * time.Hour, time.Hour, 5 * time.Hour},
		{1000 * time.Hour, time.Hour, 24 * time.Hour},
		{-1, 0, 0},
	} {
		for _, typ := range cached {
			bound := c.route
			if typ == TypeUser || typ == TypePasswd {
				bound = c.mailbox
			}
			synctest.Test(t, func(t *testing.T) { checkStale(t, typ, c.stale, bound) })
		}
	}
}

func checkStale(t *testing.T, typ Type, stale, bound time.Duration) {
	f := new(fake)
	c := &Cache{Resolver: f, Stale: stale}
	at := "@example.com"
	if typ == TypeDomain {
		at = ".example"
	}
	first := resolve(t, c, typ, "user"+at)
	resolve(t, c, typ, "nobody"+at)
	resolve(t, c, typ, "flushed"+at)
	f.setDown(true)
	e, ok := c.Explain(Query{Type: typ, Email: "user" + at})
	if !ok || e.Left != 10*time.Minute || e.Usable != e.Left+bound {
		t.Errorf("%v: %+v", typ, e)
	}
	if n := c.Flush("flushed" + at); n != 1 {
		t.Errorf("%d flushed", n)
	}
	unavailableFor(t, c, typ, "flushed"+at)
	unavailableFor(t, c, typ, "other"+at)
	time.Sleep(20 * time.Second)
	if slices.Contains(bouncing, typ) { // "absent" is never stale
		unavailableFor(t, c, typ, "nobody"+at)
	} else {
		resolve(t, c, typ, "nobody"+at)
	}
	time.Sleep(10*time.Minute - 20*time.Second + bound - 1)
	if !slices.Contains(bouncing, typ) {
		resolve(t, c, typ, "nobody"+at)
	}
	before := c.Stats().StaleHits
	if a := resolve(t, c, typ, "user"+at); !a.Equal(first) {
		t.Errorf("%v within %v: %q", typ, bound, a)
	}
	if n := c.Stats().StaleHits - before; (n > 0) != (bound > 0) {
		t.Errorf("%v within %v: counted %d times", typ, bound, n)
	}
	time.Sleep(time.Nanosecond)
	unavailableFor(t, c, typ, "user"+at)
	unavailableFor(t, c, typ, "nobody"+at)
	synctest.Wait()
	consistent(t, c)
}

// TestDown: while the Resolver hangs, stale answers come after patience, and then at once for a
// second. When it is back, the next answers are new.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fake)
		c := &Cache{Resolver: f}
		const users = 50
		for i := range users {
			resolve(t, c, TypePasswd, userAt(i))
		}
		time.Sleep(10 * time.Minute)
		f.down, f.delay = true, time.Hour // longer than LoadTimeout
		before := f.calls()
		for i := range users {
			start := time.Now()
			resolve(t, c, TypePasswd, userAt(i))
			if took := time.Since(start); took != patience {
				t.Errorf("user %d waited %v, want %v", i, took, patience)
			}
			start = time.Now()
			for range 10 {
				resolve(t, c, TypePasswd, userAt(i))
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("user %d asked again waited %v", i, took)
			}
		}
		if n := f.calls() - before; n != users {
			t.Errorf("%d questions to the Resolver for %d users", n, users)
		}
		before = f.calls()
		for range 100 { // ten seconds
			resolve(t, c, TypePasswd, userAt(0))
			time.Sleep(100 * time.Millisecond)
		}
		if n := f.calls() - before; n < 3 || n > 6 { // each try takes 2.8 s to fail
			t.Errorf("%d questions to the Resolver in 10 seconds", n)
		}
		f.mu.Lock()
		f.down, f.delay = false, 0
		f.mu.Unlock()
		time.Sleep(5 * time.Second) // for the tries that still hang
		for i := range users {
			resolve(t, c, TypePasswd, userAt(i))
			e, ok := c.Explain(Query{Type: TypePasswd, Email: userAt(i)})
			if !ok || e.Left <= 0 {
				t.Errorf("user %d: still stale although the Resolver is back: %+v", i, e)
			}
		}
	})
}

// TestOneIsUnavailable: what cannot be looked up for one address says nothing about the others.
func TestOneIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
			asked++
			if q.Email == "bad@example.com" && asked > 1 {
				return Answer{}, errDown
			}
			return numbered(q.Type, asked), nil
		})}
		resolve(t, c, TypePasswd, "bad@example.com")
		old := resolve(t, c, TypePasswd, "user@example.com")
		time.Sleep(10 * time.Minute)
		for range 50 {
			resolve(t, c, TypePasswd, "bad@example.com")
			if a := resolve(t, c, TypePasswd, "user@example.com"); a.Equal(old) {
				t.Fatal("an expired answer, although the Resolver has a new one")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := c.Stats().StaleHits; n != 50 {
			t.Errorf("%d stale answers, want 50", n)
		}
	})
}

// TestOtherErrors: an expired answer may be given in an outage. What has grown too long, or is not
// understood, is no longer what it was.
func TestOtherErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fault error
		c := &Cache{Resolver: resolverFunc(func(context.Context, Query) (Answer, error) {
			return NewData(TypeAlias, "&a@b\n"), fault
		})}
		q := Query{Type: TypeAlias, Email: "list@example.com"}
		for _, f := range []struct {
			fault error
			stale bool
		}{
			{fmt.Errorf("%w: %w", ErrUnavailable, ErrTooLong), false},
			{fmt.Errorf("%w: %w", ErrUnavailable, ErrInvalid), false}, // a row that is not understood
			{errors.New("a fault of the Resolver's own"), true},
			{errDown, true},
		} {
			fault = nil
			resolve(t, c, q.Type, q.Email)
			time.Sleep(time.Hour)
			fault = f.fault
			a, err := c.Resolve(context.Background(), q)
			if f.stale && err != nil || !f.stale && !errors.Is(err, fault) {
				t.Errorf("%v: %q, %v", fault, a, err)
			}
		}
	})
}

// --- The room.

func TestLeastRecentlyUsed(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 4} // one is for "absent"
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
			ok := c.holds(TypeUser, string(user)+"@example.com")
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
	c.holds(TypeUser, "c@example.com") // Explain is no use of an entry
	ask("f", 1)
	there("aef")
	ask("g", 1)
	there("efg")
	if s := c.Stats(); s.Evicted != 4 || c.entries() != [2]int{3, 0} {
		t.Errorf("%+v", s)
	}
}

// TestNewcomers: a stream of newcomers drives out none of those in use.
func TestNewcomers(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 1000}
	for i := range 500 {
		resolve(t, c, TypeUser, userAt(i))
	}
	for i := range 20000 {
		expect(t, c, f, TypeUser, userAt(i%500), 0)
		if i%5 == 0 {
			expect(t, c, f, TypeUser, fmt.Sprintf("new%d@example.com", i), 1)
		}
	}
	consistent(t, c)
}

func TestSize(t *testing.T) {
	f := new(fake)
	one := &Cache{Resolver: f}
	name := func(i int) string { return fmt.Sprintf("user%04d@example.com", i) }
	resolve(t, one, TypeUser, name(0))
	each := one.Stats().Present.Bytes
	c := &Cache{Resolver: f, Size: 12 * each} // an eighth is for "absent"
	for i := range 1000 {
		resolve(t, c, TypeUser, name(i))
		s := c.Stats()
		if s.Present.Bytes > c.Size || i >= 10 && s.Present.Entries != 10 {
			t.Fatalf("after %d: %+v", i+1, s)
		}
	}
	for i := 990; i < 1000; i++ {
		expect(t, c, f, TypeUser, name(i), 0)
	}
	consistent(t, c)

	// With bounds below one entry it still answers.
	for _, c := range []*Cache{{Size: 1}, {Size: -1}, {Size: each / 2}, {MaxEntries: 1}} {
		c.Resolver = f
		for i := range 10 {
			resolve(t, c, TypeUser, userAt(i))
			resolve(t, c, TypeUser, "no"+userAt(i))
			consistent(t, c)
		}
		if u := c.total(); u.Bytes > max(0, cmp.Or(c.Size, each)) || u.Entries > 1 {
			t.Errorf("%+v", u)
		}
	}
}

// TestDictionary asks for names out of a dictionary: that drives out none of the users.
func TestDictionary(t *testing.T) {
	f := new(fake)
	const users = 10000
	words := 5000 + fewer(35000)
	for _, c := range []*Cache{
		{MaxEntries: users + users/7}, // the users just fit
		{MaxEntries: users + users/2},
		{Size: 8 << 20}, // some 2 MB are users
	} {
		c.Resolver = f
		c.NegativeTTL = 24 * time.Hour
		for i := range users {
			resolve(t, c, TypePasswd, userAt(i))
		}
		for i := range words {
			resolve(t, c, TypePasswd, fmt.Sprintf("no%d@example.com", i))
			if i%1000 > 0 && i < words-10 {
				continue
			}
			s := c.Stats()
			ok := s.Present.Entries == users
			if c.MaxEntries > 0 {
				ok = ok && s.Absent.Entries <= c.MaxEntries/8
			} else {
				ok = ok && s.Absent.Bytes <= c.Size/8
			}
			if !ok {
				t.Fatalf("after %d words: %+v", i+1, s)
			}
		}
		for i := range users {
			expect(t, c, f, TypePasswd, userAt(i), 0)
		}
		s := c.Stats()
		kept := s.Absent.Entries
		if kept < 1000 || s.Evicted != uint64(words-kept) {
			t.Errorf("the absent have no room: %+v", s)
		}
		consistent(t, c)
	}
}

// TestLongNames: names too long for the answer that repeats them have none.
func TestLongNames(t *testing.T) {
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		return Absent(q), nil
	})}
	unavailableFor(t, c, TypePasswd, strings.Repeat("x", 4070)+"@example.com")
	if got := c.entries(); got != [2]int{} {
		t.Errorf("entries %v, want none", got)
	}
}

// A mailHost is a Resolver with answers of the usual lengths.
type mailHost struct{ rnd *rand.Rand }

func (m *mailHost) text(least, most int) string {
	b := make([]byte, least+m.rnd.IntN(most-least+1))
	for i := range b {
		b[i] = 'a' + byte(m.rnd.IntN(26))
	}
	return string(b)
}

func (m *mailHost) Resolve(_ context.Context, q Query) (Answer, error) {
	local, domain, _ := strings.Cut(q.Email, "@")
	text := m.text
	switch q.Type {
	case TypeUser:
		return NewAnswer(0), nil
	case TypePasswd:
		hash := "$6$" + text(16, 16) + "$" + text(86, 86)
		if len(local)%4 == 0 {
			hash = "{SCRAM-SHA-256}4096," + text(24, 24) + "," + text(44, 44) + "," + text(44, 44) +
				":" + text(64, 64) + ":" + text(64, 64) + "," + hash
		}
		dir := "/home/mail/" + text(3, 3) + "/" + domain + "/" + local
		return NewPasswd(Passwd{q.Email, NewSecret(hash), 555, 555, text(3, 30), dir, "50000000S", false}), nil
	case TypeAlias:
		line := "&" + text(5, 20) + "@" + text(8, 20) + "\n"
		return NewData(q.Type, strings.Repeat(line, m.rnd.IntN(20))), nil
	case TypeLimit:
		return NewLimits(Limits{}), nil
	}
	return NewData(q.Type, text(5, 40)), nil
}

// TestCost compares what the entries are said to take with the heap.
func TestCost(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	m := &mailHost{rand.New(rand.NewPCG(1, 1))}
	c := &Cache{Size: 1 << 40, Resolver: m}
	before := heap()
	for range 10000 + fewer(40000) {
		email := m.text(3, 20) + "@" + m.text(4, 20) + ".example"
		resolve(t, c, TypePasswd, email)
		resolve(t, c, cached[m.rnd.IntN(len(cached))], email)
	}
	real := heap() - before
	said := c.total()
	t.Logf("%d entries are said to take %d bytes, and take %d", said.Entries, said.Bytes, real)
	if said.Bytes < real*9/10 || said.Bytes > real*11/10 {
		t.Errorf("%d entries are said to take %d bytes, and take %d", said.Entries, said.Bytes, real)
	}
	runtime.KeepAlive(c)
}

// --- Loads.

type clientKey struct{}

// TestCoalescing: many who ask the same at once cost one question to the Resolver, and the first
// of them may go away.
func TestCoalescing(t *testing.T) {
	for _, fault := range []error{nil, errDown, errors.New("another fault")} {
		synctest.Test(t, func(t *testing.T) { checkCoalescing(t, fault) })
	}
}

func checkCoalescing(t *testing.T, fault error) {
	release := make(chan struct{})
	var calls atomic.Int32
	c := &Cache{Resolver: resolverFunc(func(ctx context.Context, q Query) (Answer, error) {
		n := calls.Add(1)
		d, ok := ctx.Deadline()
		if !ok || time.Until(d) != 2800*time.Millisecond {
			t.Errorf("a load has until %v, want 2.8 s", d)
		}
		if ctx.Value(clientKey{}) != nil {
			t.Error("a load runs on the context of its first client")
		}
		<-release
		return numbered(q.Type, int(n)), fault
	})}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), clientKey{}, 1))
	q := Query{Type: TypeUser, Email: "user@example.com"}
	first := make(chan error, 1)
	go func() {
		_, err := c.Resolve(ctx, q)
		first <- err
	}()
	synctest.Wait()
	const clients = 1000
	for i := range clients {
		q := q
		if i%2 == 0 {
			q.Email = "USER@Example.com" // is the same question
		}
		go func() {
			a, err := c.Resolve(context.Background(), q)
			if !errors.Is(err, fault) || fault == nil && !a.Equal(numbered(q.Type, 1)) {
				t.Errorf("%q, %v, want %v", a, err, fault)
			}
		}()
	}
	synctest.Wait()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
		t.Errorf("the first client, who has gone, gets %v", err)
	}
	close(release)
	synctest.Wait()
	s := c.Stats()
	if calls.Load() != 1 || s.Misses != 1 || s.Coalesced != clients {
		t.Errorf("%d questions to the Resolver, %+v", calls.Load(), s)
	}
	if s.LoadErrors != uint64(bit(fault != nil)) {
		t.Errorf("%+v", s)
	}
	c.Resolve(context.Background(), q) // an answer stays, an error does not
	if want := 1 + bit(fault != nil); int(calls.Load()) != want {
		t.Errorf("afterwards: %d loads, want %d", calls.Load(), want)
	}
}

// TestAnswerThatCameInTime: between the look into the memory and the load another question may
// have brought the answer. Then it costs no load, and is a hit.
func TestAnswerThatCameInTime(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f}
	q := Query{Type: TypeUser, Email: "user@example.com"}
	want := resolve(t, c, q.Type, q.Email)
	before := c.Stats()
	flight, late := c.join(c.key(q), q)
	within(t, "the answer is there", flight.done)
	if !flight.answer.Equal(want) || flight.err != nil || late != nil {
		t.Errorf("%v, %v, late %v", flight.answer, flight.err, late != nil)
	}
	before.Hits++
	if s := c.Stats(); s != before || f.calls() != 1 {
		t.Errorf("%+v, want %+v; %d loads", s, before, f.calls())
	}
}

func TestLoadTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{0, 100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			c := &Cache{Resolver: &fake{delay: time.Hour}, LoadTimeout: timeout}
			start := time.Now()
			unavailableFor(t, c, TypeUser, "u@d")
			if want := cmp.Or(timeout, 2800*time.Millisecond); time.Since(start) != want {
				t.Errorf("an error after %v, want one after %v", time.Since(start), want)
			}
		})
	}
}

// TestFlushDuringLoad flushes while a question is under way. Its answer may be older, so it is
// not kept, and clients who ask after the flush do not wait for it.
func TestFlushDuringLoad(t *testing.T) {
	for _, flush := range []string{"user@example.com", "user%EXAMPLE.com", "Example.com", ""} {
		for _, oldLast := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) { checkFlushDuringLoad(t, flush, oldLast) })
		}
	}
}

func checkFlushDuringLoad(t *testing.T, flush string, oldLast bool) {
	release := []chan struct{}{make(chan struct{}), make(chan struct{})}
	var calls atomic.Int32
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		n := calls.Add(1)
		<-release[n-1]
		return numbered(q.Type, int(n)), nil
	})}
	ask := func() chan Answer {
		answer := make(chan Answer, 1)
		go func() {
			q := Query{Type: TypePasswd, Email: "user@example.com"}
			a, _ := c.Resolve(context.Background(), q)
			answer <- a
		}()
		synctest.Wait()
		return answer
	}
	before := ask()
	c.Flush(flush)
	after := ask()
	if calls.Load() != 2 {
		t.Fatalf("flush %q: %d loads, want a second one", flush, calls.Load())
	}
	order := []int{0, 1}
	if oldLast {
		order = []int{1, 0}
	}
	for _, i := range order {
		close(release[i])
		synctest.Wait()
	}
	if a := <-before; !a.Equal(numbered(TypePasswd, 1)) {
		t.Errorf("flush %q: %q before", flush, a)
	}
	if a := <-after; !a.Equal(numbered(TypePasswd, 2)) {
		t.Errorf("flush %q: %q after", flush, a)
	}
	a := resolve(t, c, TypePasswd, "user@example.com")
	if !a.Equal(numbered(TypePasswd, 2)) || calls.Load() != 2 {
		t.Errorf("flush %q: %q was kept", flush, a)
	}
	consistent(t, c)
}

// --- Flush.

// A fence is the number of the last change whose flush has returned.
type fence struct{ n atomic.Int64 }

func (f *fence) raise(n int64) {
	for old := f.n.Load(); old < n; old = f.n.Load() {
		if f.n.CompareAndSwap(old, n) {
			return
		}
	}
}

// TestFence has many ask, flush and preload at the same time. The answer is the number of the
// last change; after a change and a flush nobody may see an older number.
func TestFence(t *testing.T) {
	const users = 1500 // this many: the flush of a domain lets go of the mutex
	rounds := 100 + fewer(900)
	var changes atomic.Int64
	var allUsers fence
	var userFences [8]fence
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		n := changes.Load()
		for range rand.IntN(5) {
			runtime.Gosched()
		}
		return NewData(q.Type, strconv.FormatInt(n, 10)), nil
	})}
	ask := func(i int, least int64) {
		a, err := c.Resolve(context.Background(), Query{Type: TypePasswd, Email: userAt(i)})
		n, _ := strconv.ParseInt(a.Data(), 10, 64)
		if err != nil || n < least {
			t.Errorf("user %d: change %d, %v, after the flush of change %d", i, n, err, least)
		}
	}
	var emails []string
	for i := range users {
		emails = append(emails, userAt(i))
	}
	var others, flushers sync.WaitGroup
	var over atomic.Bool
	flush := func(what string, f *fence, user func() int) {
		for range rounds {
			n := changes.Add(1)
			c.Flush(what)
			f.raise(n)
			ask(user(), n)
		}
	}
	for i := range userFences {
		flushers.Go(func() { flush(userAt(i), &userFences[i], func() int { return i }) })
	}
	for _, what := range []string{"example.com", ""} {
		flushers.Go(func() { flush(what, &allUsers, func() int { return rand.IntN(users) }) })
	}
	for range 6 {
		others.Go(func() {
			for !over.Load() && !t.Failed() {
				least := allUsers.n.Load()
				ask(rand.IntN(users), least)
				i := rand.IntN(len(userFences))
				least = userFences[i].n.Load()
				ask(i, least)
			}
		})
	}
	others.Go(func() {
		for !over.Load() {
			if _, err := c.Preload(context.Background(), emails[:100]); err != nil {
				t.Error(err)
			}
		}
	})
	flushers.Wait()
	over.Store(true)
	others.Wait()
	consistent(t, c)
}

func TestFlush(t *testing.T) {
	emails := []string{"a@one.example", "ab@one.example", "b@one.example", "a%one.example",
		"A:One.example", "a@two.example", "a@one.example2", "a@sub.one.example"}
	userA := []string{"a@one.example", "a%one.example", "A:One.example"}
	domain := append([]string{"ab@one.example", "b@one.example"}, userA...)
	types := []Type{TypeUser, TypePasswd, TypeHost, TypeAlias, TypeLimit, TypeDomain}
	for flush, gone := range map[string][]string{
		"a@one.example":  userA,
		"A@ONE.Example":  userA,
		"a%one.example":  userA,
		"ab@one.example": {"ab@one.example"},
		"one.example":    domain,
		"ONE.example":    domain,
		"two.example":    {"a@two.example"},
		"":               emails,
		"@one.example":   nil,
		"one":            nil,
		"none.example":   nil,
		"c@one.example":  nil,
		"a":              nil,
	} {
		f := new(fake)
		c := &Cache{Resolver: f}
		for _, email := range emails {
			for _, typ := range types {
				resolve(t, c, typ, email)
			}
		}
		n := c.Flush(flush)
		want := len(gone) * len(types)
		if n != want || c.Stats().Flushed != uint64(want) {
			t.Errorf("flush %q: %d entries, counted %d, want %d", flush, n, c.Stats().Flushed, want)
		}
		for _, email := range emails {
			for _, typ := range types {
				expect(t, c, f, typ, email, bit(slices.Contains(gone, email)))
			}
		}
		consistent(t, c)
	}
}

// TestFlushOfDomain: what is about the domain itself goes with it, and not with a user.
func TestFlushOfDomain(t *testing.T) {
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
}

// TestFlushInSteps flushes more entries than go under one hold of the mutex.
func TestFlushInSteps(t *testing.T) {
	c := &Cache{Resolver: new(fake)}
	for _, flush := range []string{"example.com", ""} {
		for _, users := range []int{499, 500, 501, 1000, 1001, 2345} {
			for i := range users {
				resolve(t, c, TypeUser, userAt(i))
			}
			resolve(t, c, TypeUser, "user@example.co")
			resolve(t, c, TypeUser, "user@example.com2")
			want := users
			if flush == "" {
				want += 2
			}
			if n := c.Flush(flush); n != want {
				t.Errorf("flush %q of %d users: %d entries", flush, users, n)
			}
			consistent(t, c)
		}
		c.Flush("")
	}
}

// TestSpellings asks for one user in many ways. Each answer repeats the question, so each
// spelling has its own; all go when the user is flushed.
func TestSpellings(t *testing.T) {
	calls := 0
	c := &Cache{DefaultDomain: "Example.COM"}
	c.Resolver = resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		calls++
		if strings.HasPrefix(q.Email, "no") {
			return absentAnswer(q), nil
		}
		return NewData(q.Type, q.Email), nil
	})
	types := []Type{TypeUser, TypePasswd, TypeHost, TypeAlias}
	for _, user := range []string{"user", "nobody"} {
		upper := strings.ToUpper(user)
		spellings := []string{
			user + "@example.com", user + "%example.com", user + ":example.com", user,
		}
		others := []string{upper + "@EXAMPLE.com", upper + "%example.COM", upper}
		calls = 0
		for _, typ := range types {
			for _, email := range slices.Concat(spellings, others, spellings) {
				q := Query{Type: typ, Email: strings.ToLower(email)}
				want := NewData(typ, q.Email)
				if user == "nobody" {
					want = absentAnswer(q)
				}
				if a := resolve(t, c, typ, email); !a.Equal(want) {
					t.Errorf("%v %s: %q, want %q", typ, email, a, want)
				}
			}
		}
		if calls != len(spellings)*len(types) {
			t.Errorf("%d questions to the Resolver", calls)
		}
		if n := c.Flush(user + "@example.com"); n != len(spellings)*len(types) {
			t.Errorf("%d entries flushed, want %d", n, len(spellings)*len(types))
		}
		for _, email := range spellings {
			if c.holds(TypeUser, email) {
				t.Errorf("%s is still there", email)
			}
		}
	}
	// A limits query without a separator is about a domain; a domain query always is.
	for _, typ := range []Type{TypeLimit, TypeDomain} {
		for _, email := range []string{"user", "example.com", "user@example.com", "user%example.com"} {
			if a := resolve(t, c, typ, email); !a.Equal(NewData(typ, email)) {
				t.Errorf("%v %s: %q", typ, email, a)
			}
		}
	}
	consistent(t, c)
}

// --- Preload.

func usersUpTo(n int) (emails []string) {
	for i := range n {
		emails = append(emails, userAt(i))
	}
	return emails
}

// TestPreload: preloaded entries evict nobody, and go before what was asked for.
func TestPreload(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f, MaxEntries: 7} // one is for "absent"
	first := resolve(t, c, TypePasswd, userAt(0))
	n, err := c.Preload(context.Background(), usersUpTo(20))
	if n != 5 || err != nil {
		t.Errorf("%d preloaded, %v", n, err)
	}
	consistent(t, c)
	if s := c.Stats(); s.Evicted != 0 || c.entries() != [2]int{6, 0} || s.Misses != 1 {
		t.Errorf("%+v", s)
	}
	if f.calls() > 1+5+preloaders {
		t.Errorf("%d questions to the Resolver for 5 entries", f.calls())
	}
	var there []int
	for i := range 20 {
		if c.holds(TypePasswd, userAt(i)) {
			there = append(there, i)
		}
	}
	if len(there) != 6 || there[5] >= 6+preloaders {
		t.Errorf("there are %v, want about the first six", there)
	}
	if a := expect(t, c, f, TypePasswd, userAt(0), 0); !a.Equal(first) {
		t.Errorf("what was there is now %q", a)
	}
	expect(t, c, f, TypePasswd, userAt(there[3]), 0) // its first use brings it to the front
	for i := range 4 {
		resolve(t, c, TypePasswd, fmt.Sprintf("new%d@example.com", i))
	}
	for _, i := range there {
		if used := i == 0 || i == there[3]; c.holds(TypePasswd, userAt(i)) != used {
			t.Errorf("%s is there: %v", userAt(i), !used)
		}
	}
}

// TestPreloadOrder: the addresses most likely to be asked for come first and go last.
func TestPreloadOrder(t *testing.T) {
	c := &Cache{Resolver: new(fake), MaxEntries: 45} // 5 are for "absent"
	for i := range 40 {                              // one by one, since four at a time may pass each other
		if n, err := c.Preload(context.Background(), []string{userAt(i)}); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	for i := range 40 {
		resolve(t, c, TypePasswd, fmt.Sprintf("new%d@example.com", i))
		for j := range 40 {
			if c.holds(TypePasswd, userAt(j)) != (j < 39-i) {
				t.Fatalf("after %d new ones %s is there: %v", i+1, userAt(j), j >= 39-i)
			}
		}
	}
}

// TestPreloadAsks: a Resolver is asked in lower case, and never for what is there.
func TestPreloadAsks(t *testing.T) {
	f := new(fake)
	c := &Cache{Resolver: f}
	emails := []string{"User@Example.com", "JÜRGEN@example.com", "nobody@example.com"}
	n, err := c.Preload(context.Background(), emails)
	if n != 2 || err != nil || c.entries() != [2]int{2, 0} {
		t.Errorf("%d preloaded, %v, %+v", n, err, c.Stats())
	}
	for _, q := range f.asked {
		if q.Type != TypePasswd || q.Email != lower(q.Email) {
			t.Errorf("the Resolver is asked %v", q)
		}
	}
	if n, err := c.Preload(context.Background(), emails[:2]); n != 0 || err != nil || f.calls() != 3 {
		t.Errorf("again: %d, %v, %d questions", n, err, f.calls())
	}
	expect(t, c, f, TypePasswd, "user@example.com", 0)
	expect(t, c, f, TypePasswd, "jürgen@example.com", 0)
	consistent(t, c)
}

// TestPreloadFails: one failure stops nothing, twenty in a row end it.
func TestPreloadFails(t *testing.T) {
	f := &fake{down: true}
	n, err := (&Cache{Resolver: f}).Preload(context.Background(), usersUpTo(1000))
	if n != 0 || !errors.Is(err, errDown) {
		t.Errorf("%d preloaded, %v", n, err)
	}
	if f.calls() < preloadFailures || f.calls() >= preloadFailures+preloaders {
		t.Errorf("%d questions to a Resolver that is down", f.calls())
	}
	var calls atomic.Int32
	c := &Cache{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		if calls.Add(1)%4 > 0 {
			return Answer{}, errDown
		}
		return NewData(q.Type, "entry"), nil
	})}
	n, err = c.Preload(context.Background(), usersUpTo(1000))
	if n != 250 || err != nil {
		t.Errorf("%d preloaded, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f = new(fake)
	n, err = (&Cache{Resolver: f}).Preload(ctx, usersUpTo(1000))
	if n != 0 || !errors.Is(err, context.Canceled) || f.calls() > 0 {
		t.Errorf("canceled before: %d preloaded, %v, %d questions", n, err, f.calls())
	}
}

// TestPreloadIsALoad: clients share the load of a preload, and a flush holds for it.
func TestPreloadIsALoad(t *testing.T) {
	for _, flush := range []string{"none.example", "user0@example.com", "example.com", ""} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{delay: time.Second}
			c := &Cache{Resolver: f}
			kept := make(chan int)
			go func() {
				n, err := c.Preload(context.Background(), usersUpTo(2))
				if err != nil {
					t.Error(err)
				}
				kept <- n
			}()
			synctest.Wait()
			go c.Resolve(context.Background(), Query{Type: TypePasswd, Email: userAt(0)})
			synctest.Wait()
			c.Flush(flush)
			want := map[string]int{"none.example": 2, "user0@example.com": 1}[flush]
			if n := <-kept; n != want {
				t.Errorf("flush %q: %d kept, want %d", flush, n, want)
			}
			synctest.Wait()
			if got := c.entries(); got != [2]int{want, 0} || c.Stats().Coalesced != 1 {
				t.Errorf("flush %q: %+v", flush, c.Stats())
			}
			consistent(t, c)
			expect(t, c, f, TypePasswd, userAt(0), bit(flush != "none.example"))
			expect(t, c, f, TypePasswd, userAt(1), bit(want == 0))
		})
	}
}

// TestPreloadBesideAQuestion: what a client has asked for already is not asked for once more.
func TestPreloadBesideAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{delay: time.Second}
		c := &Cache{Resolver: f}
		go c.Resolve(context.Background(), Query{Type: TypePasswd, Email: userAt(0)})
		synctest.Wait()
		n, err := c.Preload(context.Background(), usersUpTo(2))
		synctest.Wait()
		if n != 1 || err != nil || f.calls() != 2 || c.entries() != [2]int{2, 0} {
			t.Errorf("%d preloaded, %v, %d questions, %v", n, err, f.calls(), c.entries())
		}
		consistent(t, c)
	})
}

// TestPreloadedLife: a preloaded entry is as old as the question to the Resolver.
func TestPreloadedLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{delay: time.Second}
		c := &Cache{Resolver: f, Stale: -1}
		if _, err := c.Preload(context.Background(), usersUpTo(1)); err != nil {
			t.Error(err)
		}
		time.Sleep(10*time.Minute - time.Second - 1)
		expect(t, c, f, TypePasswd, userAt(0), 0)
		time.Sleep(time.Nanosecond)
		expect(t, c, f, TypePasswd, userAt(0), 1)
	})
}

// --- Hits.

func TestPeekDoesNotAllocate(t *testing.T) {
	c := &Cache{Resolver: new(fake), DefaultDomain: "example.com"}
	for _, email := range []string{
		"user@example.com", "USER@EXAMPLE.COM", "user%example.com", "user",
		"nobody@example.com", "unknown@example.com",
	} {
		known := !strings.HasPrefix(email, "unknown")
		if known {
			resolve(t, c, TypePasswd, email)
		}
		b := []byte(email)
		var key []byte
		a, ok := c.peek(&key, TypePasswd, b)
		if ok != known || ok && a != resolve(t, c, TypePasswd, email).Wire() {
			t.Errorf("%s: %q, %v", email, a, ok)
		}
		n := testing.AllocsPerRun(100, func() { c.peek(&key, TypePasswd, b) })
		if n > 0 {
			t.Errorf("%s: %v allocations", email, n)
		}
		if string(b) != email {
			t.Errorf("peek made %q of %q: it lies in the reader's buffer", b, email)
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
		left := 49*time.Second + 500*time.Millisecond
		want := Entry{Age: time.Minute - left, Left: left, Usable: 24*time.Hour + left,
			Bytes: stats.Present.Bytes}
		if !ok || e != want {
			t.Errorf("%+v, %v\nwant %+v", e, ok, want)
		}
		e, ok = c.Explain(Query{Type: TypeHost, Email: "NOBODY@example.com"})
		left = 9*time.Second + 750*time.Millisecond
		want = Entry{Age: 20*time.Second - left, Left: left, Usable: left,
			Bytes: stats.Absent.Bytes, Absent: true}
		if !ok || e != want {
			t.Errorf("%+v, %v\nwant %+v", e, ok, want)
		}
		if c.Stats() != stats {
			t.Errorf("Explain counts: %+v, before %+v", c.Stats(), stats)
		}
	})
}

// TestLongLife: an answer that is kept for ever can also be given in an outage.
func TestLongLife(t *testing.T) {
	c := &Cache{Resolver: new(fake), TTL: math.MaxInt64, NegativeTTL: math.MaxInt64}
	for _, email := range []string{"user@example.com", "nobody@example.com"} {
		resolve(t, c, TypeHost, email)
		e, ok := c.Explain(Query{Type: TypeHost, Email: email})
		if !ok || e.Left <= 0 || e.Usable < e.Left || e.Age < 0 || e.Age > time.Hour {
			t.Errorf("%s: %+v, %v", email, e, ok)
		}
	}
}
