package inlookup

// The cache: it stands in front of another Resolver and remembers its answers.
//
// Everything is one tree under one mutex. A lookup holds the mutex for well
// under a microsecond, a tenth of what the system calls around it take, so
// splitting the lock would buy nothing. With one tree a flush is one walk,
// because with the key
//
//	domain 0 local 0 type
//
// the answers about a user are neighbours, and so are the users of a domain.
//
// The life of an entry:
//
//	          TTL                     Stale
//	load ------------> expired ----------------> useless
//	   given to all       given only while the
//	                      Resolver is unavailable
//
// It leaves earlier when it is flushed, or when room is needed and it is the
// one not used for longest. "Absent" answers have a shorter life, a ring of
// their own and an eighth of the room: someone who tries names out of a
// dictionary drives out only that kind. An expired one is never given, since a
// wrong "absent" bounces mail.
//
// Decided against: refreshing before expiry (it asks for users in whom nobody
// is interested), and a heap ordered by expiry (nothing need happen at that
// moment; the least recently used end of a ring is soon reached).

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Cache answers from memory if it can. It asks Resolver the rest, once for
// all who ask the same at the same time. The zero values of its fields are the
// defaults given; fields must not change after the first question.
type Cache struct {
	Resolver      Resolver
	TTL           time.Duration // life of an answer; 0: 10 minutes; negative: none is kept
	NegativeTTL   time.Duration // life of "absent"; 0: 20 seconds; negative: none is kept
	Size          int64         // bytes of heap for all entries; 0: 256 MiB; negative: none
	MaxEntries    int           // 0: no limit but Size
	LoadTimeout   time.Duration // for one question to Resolver; 0: 2.8 s; clients wait 4 s
	DefaultDomain string        // of addresses without one; the same as Resolver's

	// Stale is how long an expired answer may be given while Resolver is
	// unavailable: TypeUser and TypePasswd for at most an hour, others for a
	// day. It can make both shorter; 0 leaves them, negative: never.
	Stale time.Duration

	mu      sync.Mutex // guards what follows
	tree    tree[entry]
	rings   [2]ring[entry] // by kind; most recently used first
	flights map[string]*flight
	stats   CacheStats
}

// A kind is what an entry says, and the ring it hangs on.
type kind uint8

const (
	present kind = iota
	absent
)

// An entry is the value of a node. It takes 32 bytes.
type entry struct {
	answer Answer
	loaded time.Duration // since epoch
	failed uint32        // the second when renewing it last failed; 0: never
	kind   kind
}

// CacheStats counts what happened, and says what the cache holds now.
type CacheStats struct {
	Hits, Misses uint64
	Coalesced    uint64 // questions that shared the load of another
	Stale        uint64 // expired answers given
	LoadErrors   uint64
	Evicted      uint64 // entries that left for want of room
	Flushed      uint64
	Present      Usage // by answers
	Absent       Usage // by answers that say "absent"
}

// Usage is the room that entries take.
type Usage struct {
	Entries int
	Bytes   int64 // of heap
}

// A flight is a question on its way to Resolver.
type flight struct {
	done   chan struct{} // closed when answer and err are set
	answer Answer
	err    error
}

// epoch is what the age of entries counts from: 8 bytes an entry instead of the
// 24 of a time.Time, and monotonic as well.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// second numbers the seconds since epoch, from 1.
func second() uint32 { return uint32(sinceEpoch()/time.Second) + 1 }

// life returns how long an entry of this kind is given to all; negative: not at
// all.
func (c *Cache) life(k kind) time.Duration {
	if k == absent {
		return cmp.Or(c.NegativeTTL, 20*time.Second)
	}
	return cmp.Or(c.TTL, 10*time.Minute)
}

// staleFor returns how much longer e may be given while Resolver is
// unavailable: what opens a mailbox an hour, what only routes mail a day.
func (c *Cache) staleFor(t Type, e *entry) time.Duration {
	most := 24 * time.Hour
	if t == TypeUser || t == TypePasswd {
		most = time.Hour
	}
	if e.kind == absent || c.Stale < 0 {
		return 0
	}
	return min(most, cmp.Or(c.Stale, most))
}

func (c *Cache) isAlive(e *entry) bool { return sinceEpoch()-e.loaded < c.life(e.kind) }

// isUsable reports whether e may be given while Resolver is unavailable.
func (c *Cache) isUsable(t Type, e *entry) bool {
	return sinceEpoch()-e.loaded < c.life(e.kind)+c.staleFor(t, e)
}

// isCacheable reports whether answers are kept: relay changes with every login,
// and extensions are about the server.
func (t Type) isCacheable() bool { return t.known() && t != TypeRelay && !t.extension() }

// appendKey appends the key of a question. An address that is not spelled
// local@domain has its spelling at the end of its key, because the answer may
// repeat it. It lies in the range of its user all the same.
func (c *Cache) appendKey(b []byte, t Type, email []byte) []byte {
	i := separator(email)
	local := email
	switch {
	case t == TypeDomain || t == TypeLimit && i < 0: // about a domain
		local = nil
		b = appendLower(b, email)
	case i < 0:
		b = appendLower(b, c.DefaultDomain)
	default:
		local = email[:i]
		b = appendLower(b, email[i+1:])
	}
	b = append(b, 0)
	b = appendLower(b, local)
	b = append(b, 0, byte(t))
	if i < 0 || email[i] != '@' {
		b = appendLower(b, email)
	}
	return b
}

// peek returns the answer if it is in memory and may be given at once: alive,
// or expired and found impossible to renew in this second. This is what a hit
// costs. It allocates nothing: *key is the caller's scratch space.
func (c *Cache) peek(key *[]byte, t Type, email []byte) (Answer, bool) {
	if !t.isCacheable() {
		return "", false
	}
	*key = c.appendKey((*key)[:0], t, email)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(*key)
	if n == nil {
		return "", false
	}
	e := &n.value
	if c.isAlive(e) {
		c.stats.Hits++
	} else if e.failed == second() && c.isUsable(t, e) {
		c.stats.Stale++
	} else {
		return "", false
	}
	c.rings[e.kind].toFront(n)
	return e.answer, true
}

// patience is how long a client who could use an expired answer waits for a new
// one. MySQL finds a row in less than a hundredth of it. What takes longer is
// not available, and the wait would make a queue of the others.
const patience = 250 * time.Millisecond

// Resolve answers from memory, or with what Resolver says. If Resolver is
// unavailable an expired answer may have to do. Each entry finds that out for
// itself, since one database may be gone and another not.
func (c *Cache) Resolve(ctx context.Context, q Query) (Answer, error) {
	if c.Resolver == nil {
		return "", errNoResolver
	}
	email := []byte(q.Email)
	q.Email = lower(q.Email)
	if !q.Type.isCacheable() {
		return c.Resolver.Resolve(ctx, q)
	}
	var key []byte
	if a, ok := c.peek(&key, q.Type, email); ok {
		return a, nil
	}
	f, late := c.join(string(key), q)
	for {
		select {
		case <-f.done:
			return f.answer, f.err
		case <-late:
			if a := c.stale(string(key), q.Type); a != "" {
				return a, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// join returns the flight that will bring the answer, begun here if there is
// none. If an expired answer may do, late tells when to take it.
func (c *Cache) join(key string, q Query) (f *flight, late <-chan time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tree.find([]byte(key)); n != nil {
		if c.isAlive(&n.value) { // it has come since peek
			c.stats.Hits++
			return landed(n.value.answer), nil
		}
		if c.isUsable(q.Type, &n.value) {
			late = time.After(patience)
		}
	}
	if f := c.flights[key]; f != nil {
		c.stats.Coalesced++
		return f, late
	}
	c.stats.Misses++
	f = c.begin(key)
	go c.load(f, key, q, c.keepFront)
	return f, late
}

// landed returns a flight that has its answer.
func landed(a Answer) *flight {
	f := &flight{done: make(chan struct{}), answer: a}
	close(f.done)
	return f
}

// begin returns a new flight. The caller holds the mutex.
func (c *Cache) begin(key string) *flight {
	if c.flights == nil {
		c.flights = make(map[string]*flight)
	}
	f := &flight{done: make(chan struct{})}
	c.flights[key] = f
	return f
}

// stale returns the expired answer if it may be given, and notes that renewing
// it failed.
func (c *Cache) stale(key string, t Type) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find([]byte(key))
	if n == nil || !c.isUsable(t, &n.value) {
		return ""
	}
	n.value.failed = second()
	c.stats.Stale++
	return n.value.answer
}

// load brings the answer and has it kept. It has a context of its own, because
// others wait too when the client who began it goes away. A flush meanwhile has
// taken the flight out of the map: then those who wait get the answer, and
// nobody after them.
func (c *Cache) load(f *flight, key string, q Query, keep func(string, entry)) {
	timeout := cmp.Or(c.LoadTimeout, deadline-200*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	e := entry{loaded: sinceEpoch()}
	a, err := c.Resolver.Resolve(ctx, q)
	e.answer = a
	if a == Absent(q) {
		e.kind = absent
	}
	f.answer, f.err = a, err
	// A row that has grown too long, or that is not understood, is no outage.
	changed := errors.Is(err, ErrTooLong) || errors.Is(err, ErrInvalid)
	if errors.Is(err, ErrUnavailable) && !changed {
		if old := c.stale(key, q.Type); old != "" {
			f.answer, f.err = old, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	if err != nil {
		c.stats.LoadErrors++
	}
	if c.flights[key] == f {
		delete(c.flights, key)
		if err == nil && c.life(e.kind) > 0 {
			keep(key, e)
		}
	}
}

// keepFront keeps e as the most recently used, and makes room for it. The
// caller holds the mutex.
func (c *Cache) keepFront(key string, e entry) {
	n := c.insert(key, e)
	c.rings[e.kind].pushFront(n)
	c.makeRoom()
}

// insert puts e into the tree in place of what is there, on no ring yet. Key
// and answer share one allocation.
func (c *Cache) insert(key string, e entry) *node[entry] {
	both := key + string(e.answer)
	key, e.answer = both[:len(key)], Answer(both[len(key):])
	n, added := c.tree.insert(key)
	if !added {
		c.drop(n)
		n, _ = c.tree.insert(key)
	}
	n.value = e
	u := c.usage(e.kind)
	u.Entries++
	u.Bytes += cost(n)
	return n
}

func (c *Cache) usage(k kind) *Usage {
	if k == absent {
		return &c.stats.Absent
	}
	return &c.stats.Present
}

// cost returns the bytes of heap that n takes: the node, and the block of key
// and answer, rounded up about as the allocator does it: to 16 bytes up to 256,
// to an eighth of the next smaller power of two beyond.
func cost(n *node[entry]) int64 {
	const nodeSize = 96
	size := int64(len(n.key) + len(n.value.answer))
	unit := int64(16)
	for unit*16 < size {
		unit *= 2
	}
	return nodeSize + (size+unit-1)/unit*unit
}

// drop takes n out of tree, ring and accounts.
func (c *Cache) drop(n *node[entry]) {
	u := c.usage(n.value.kind)
	u.Entries--
	u.Bytes -= cost(n)
	c.tree.delete(n)
}

// exceeds reports whether so much exceeds a share of the room: one in share.
func (c *Cache) exceeds(u Usage, share int) bool {
	size := max(0, cmp.Or(c.Size, 256<<20))
	if u.Bytes > size/int64(share) {
		return true
	}
	return c.MaxEntries > 0 && u.Entries > max(1, c.MaxEntries/share)
}

// total returns the room that all entries take.
func (c *Cache) total() Usage {
	p, a := c.stats.Present, c.stats.Absent
	return Usage{Entries: p.Entries + a.Entries, Bytes: p.Bytes + a.Bytes}
}

// makeRoom evicts until the bounds hold: of the absent what exceeds their
// eighth, then, if all together is too much, the absent before the others.
func (c *Cache) makeRoom() {
	for c.exceeds(c.stats.Absent, 8) {
		c.evict(absent)
	}
	for c.exceeds(c.total(), 1) {
		if c.stats.Absent.Entries > 0 {
			c.evict(absent)
		} else {
			c.evict(present)
		}
	}
}

func (c *Cache) evict(k kind) {
	c.drop(c.rings[k].back()) // not nil: its usage is above a bound that is not negative
	c.stats.Evicted++
}

// flushStep is how many entries go under one hold of the mutex: some 300 µs.
const flushStep = 500

// Flush forgets what is known about an address, about a domain if email has no
// separator, or everything if it is empty. It returns how many entries that
// were.
//
// No answer to a question asked after Flush returns is older than its call:
// loads under way lose their place in the cache before the walk begins. It goes
// by the address as it is asked for. The same user under an alias domain stays.
func (c *Cache) Flush(email string) (flushed int) {
	prefix := flushPrefix(email)
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.flights {
		if strings.HasPrefix(key, prefix) {
			delete(c.flights, key)
		}
	}
	if prefix == "" {
		flushed = c.tree.len
		c.tree, c.rings = tree[entry]{}, [2]ring[entry]{}
		c.stats.Present, c.stats.Absent = Usage{}, Usage{}
	}
	n := c.tree.ceiling(prefix)
	for n != nil && strings.HasPrefix(n.key, prefix) {
		next := n.successor()
		c.drop(n)
		flushed++
		if flushed%flushStep == 0 && next != nil {
			key := next.key
			c.mu.Unlock() // others have their turn; what they add meanwhile is fresh
			c.mu.Lock()
			next = c.tree.ceiling(key)
		}
		n = next
	}
	c.stats.Flushed += uint64(flushed)
	return flushed
}

// flushPrefix returns what the keys of all answers about email begin with.
func flushPrefix(email string) string {
	if email == "" {
		return ""
	}
	i := separator([]byte(email))
	if i < 0 {
		return lower(email) + "\x00"
	}
	return lower(email[i+1:]) + "\x00" + lower(email[:i]) + "\x00"
}

const (
	preloaders      = 4  // questions that Preload asks at a time
	preloadFailures = 20 // in a row end it
)

// Preload asks for the password entries of these addresses, the most likely to
// be asked for first, until ctx is done or the cache is full. These entries
// never evict others, and are the first to be evicted, the last ones before the
// first. Each is loaded as a miss is, so a flush holds for it as well. Preload
// returns how many entries it put in, and the error that ended it early.
func (c *Cache) Preload(ctx context.Context, emails []string) (int, error) {
	if c.Resolver == nil {
		return 0, errNoResolver
	}
	p := &preload{cache: c, emails: emails}
	var workers sync.WaitGroup
	for range preloaders {
		workers.Go(func() { p.work(ctx) })
	}
	workers.Wait()
	err := ctx.Err()
	if failed := p.failed.Load(); failed != nil {
		err = *failed
	}
	return int(p.kept.Load()), err
}

// A preload is one call of Preload.
type preload struct {
	cache    *Cache
	emails   []string
	next     atomic.Int64 // index of the address whose turn it is
	kept     atomic.Int64
	full     atomic.Bool
	failures atomic.Int64          // in a row
	failed   atomic.Pointer[error] // why it ends early
}

func (p *preload) work(ctx context.Context) {
	for ctx.Err() == nil && !p.full.Load() && p.failed.Load() == nil {
		i := p.next.Add(1) - 1
		if i >= int64(len(p.emails)) {
			return
		}
		err := p.load(Query{Type: TypePasswd, Email: lower(p.emails[i])})
		if err == nil {
			p.failures.Store(0)
		} else if p.failures.Add(1) >= preloadFailures {
			p.failed.Store(&err)
		}
	}
}

// load loads one entry, if it is neither there nor on its way.
func (p *preload) load(q Query) error {
	c := p.cache
	key := string(c.appendKey(nil, q.Type, []byte(q.Email)))
	c.mu.Lock()
	if c.tree.find([]byte(key)) != nil || c.flights[key] != nil {
		c.mu.Unlock()
		return nil
	}
	f := c.begin(key)
	c.mu.Unlock()
	c.load(f, key, q, p.keepBack)
	return f.err
}

// keepBack keeps an entry as the least recently used, if there is room. The
// caller holds the cache's mutex.
func (p *preload) keepBack(key string, e entry) {
	if e.kind == absent {
		return
	}
	c := p.cache
	n := c.insert(key, e)
	c.rings[e.kind].pushBack(n)
	if c.exceeds(c.total(), 1) {
		c.drop(n)
		p.full.Store(true)
		return
	}
	p.kept.Add(1)
}

// Stats returns the counts so far, and what the cache holds.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// An Entry is what the cache has for a question.
type Entry struct {
	Age    time.Duration // since it was asked for
	Left   time.Duration // to live; negative: it has expired
	Stale  time.Duration // until it may not even be given while Resolver is unavailable
	Bytes  int64         // of heap
	Absent bool
}

// Explain returns what the cache has for q, and changes nothing.
func (c *Cache) Explain(q Query) (e Entry, there bool) {
	if !q.Type.isCacheable() {
		return Entry{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find(c.appendKey(nil, q.Type, []byte(q.Email)))
	if n == nil {
		return Entry{}, false
	}
	age := sinceEpoch() - n.value.loaded
	left := c.life(n.value.kind) - age
	return Entry{
		Age:    age,
		Left:   left,
		Stale:  left + c.staleFor(q.Type, &n.value),
		Bytes:  cost(n),
		Absent: n.value.kind == absent,
	}, true
}
