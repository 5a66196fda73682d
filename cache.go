package inlookup

// The cache: it stands in front of another Resolver and remembers its answers.
//
// Everything is one tree under one mutex. A lookup holds the mutex for well under a microsecond, a tenth of what the
// system calls around it take, so splitting the lock would buy nothing; and one tree is what makes a flush one walk,
// since with the key
//
//	domain 0 local 0 type
//
// the answers about a user are neighbours, and so are the users of a domain.
//
// What a hit costs is memory that has left the processor's caches while others ran. So a hit touches little of it: a
// table of guesses by hash spares most of the descents, and an entry goes to the front of its ring once a period, which
// ends when a sixteenth of the entries are new. Either gives 16 askers 3 % more answers; both together, among a million
// users, 15 to 25 %.
//
// The life of an entry:
//
//	           TTL                         Stale
//	load ──────────────▶ expired ────────────────────▶ useless
//	     given to all            given only while the
//	                             Resolver is unavailable
//
// It leaves earlier when it is flushed, or when room is needed and it is the one not used for longest, to a period.
// "Absent" answers have their own shorter time, their own ring and an eighth of the room: somebody who asks for names
// out of a dictionary drives out his own kind. They are never given when expired, since an "absent" that is wrong
// bounces mail.
//
// Decided against: refreshing before expiry (keeps MySQL busy with users nobody asks for), and a map with a heap for
// expiry (nothing need happen at the moment of expiry; the least recently used end of a ring is soon reached).

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

// A Cache answers from memory what it may, and asks Resolver the rest, once for all who ask the same at the same
// time. Its fields may not change after the first question; their zero values are the defaults given.
//
// While Resolver is unavailable an expired answer may be given, of TypeUser and TypePasswd for at most an hour, of the
// others for a day; Stale can make both shorter (0 leaves them, negative: never). Expired is what lived for TTL. An
// answer that says Absent is never given when it has expired.
type Cache struct {
	Resolver      Resolver
	TTL           time.Duration // an answer's life; 0: 10 minutes; negative: none
	NegativeTTL   time.Duration // the life of "absent"; 0: 20 seconds; negative: none
	Stale         time.Duration // how long an expired answer may be given while Resolver is unavailable: see Cache
	Size          int64         // bytes of heap for the entries with their keys and answers; 0: 256 MiB; negative: none
	MaxEntries    int           // 0: no limit but Size
	LoadTimeout   time.Duration // for one question to Resolver; 0: 2.5 seconds, less than askers wait
	DefaultDomain string        // of addresses without one; it must be Resolver's

	mu      sync.Mutex // guards everything below
	tree    tree[entry]
	rings   [2]ring[entry] // most recently used first, to a period; [1] holds the absent
	period  uint16
	fresh   int            // entries kept in this period
	guesses []*node[entry] // by hash: see find; nodes of tree, or nil
	flights map[string]*flight
	fills   map[*[]string]bool // of each Fill that runs, the prefixes flushed since it began
	stats   CacheStats
}

// An entry is the value of a node: 32 bytes.
type entry struct {
	answer Answer
	loaded time.Duration // since epoch
	failed uint32        // the second (see second) when it was last tried in vain to renew this; 0: never
	used   uint16        // the period when it came to the front
	absent bool
}

// CacheStats counts what happened, and says what the cache holds now: [0] answers, [1] those that say "absent".
type CacheStats struct {
	Hits, Misses, Coalesced, Stale uint64 // Coalesced: askers who shared the load of another
	LoadErrors, Evicted, Flushed   uint64
	Entries                        [2]int
	Bytes                          [2]int64 // of heap
}

// A flight is a question on its way to Resolver.
type flight struct {
	done   chan struct{} // closed when answer and err are set
	answer Answer
	err    error
}

// epoch is what the age of entries counts from: 8 bytes an entry instead of the 24 of a time.Time, and monotonic like
// it.
var epoch = time.Now()

func since() time.Duration { return time.Since(epoch) }

// second numbers the seconds since epoch, from 1.
func second() uint32 { return uint32(since()/time.Second) + 1 }

// life returns how long e is given to all.
func (c *Cache) life(e *entry) time.Duration {
	if e.absent {
		return or(c.NegativeTTL, 20*time.Second)
	}
	return or(c.TTL, 10*time.Minute)
}

// staleFor returns how much longer e may be given while Resolver is unavailable: what opens a mailbox an hour, what
// only routes mail a day.
func (c *Cache) staleFor(t Type, e *entry) time.Duration {
	most := 24 * time.Hour
	if t == TypeUser || t == TypePasswd {
		most = time.Hour
	}
	if e.absent || c.Stale < 0 {
		return 0
	}
	return min(most, or(c.Stale, most))
}

// cacheable: relay changes with every login, extensions are about the server.
func (t Type) cacheable() bool { return t.known() && t != TypeRelay && !t.extension() }

// appendKey appends the key of the question. An address that is not spelled local@domain has its spelling at the end
// of the key, because the answer may repeat it; it stays in the range of its user all the same.
func (c *Cache) appendKey(b []byte, t Type, email []byte) []byte {
	i := bytes.LastIndexByte(email, '@')
	odd := i < 0
	if odd {
		i = bytes.LastIndexAny(email, "%:")
	}
	local, domain := email[:max(i, 0)], email[i+1:]
	if t == TypeDomain || i < 0 && t == TypeLimit {
		local, domain, odd = nil, email, false
	}
	if b = append(b, domain...); odd && i < 0 {
		local, b = email, append(b[:len(b)-len(domain)], c.DefaultDomain...)
	}
	b = append(append(append(b, 0), local...), 0, byte(t))
	if odd {
		b = append(b, email...)
	}
	return lowerBytes(b)
}

// peek returns the answer if it is in memory and may be given at once: alive, or expired and tried in vain to renew
// in this second. It is what a hit costs: b is the caller's scratch space for the key, and nothing is allocated.
func (c *Cache) peek(b []byte, t Type, email []byte) (a Answer, ok bool) {
	if !t.cacheable() {
		return "", false
	}
	key := c.appendKey(b, t, email)
	now := since()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(key)
	switch {
	case n == nil:
		return "", false
	case now-n.value.loaded < c.life(&n.value):
		c.stats.Hits++
	case n.value.failed == second() && c.usable(n, t):
		c.stats.Stale++
	default:
		return "", false
	}
	if n.value.used != c.period {
		n.value.used = c.period
		c.rings[bit(n.value.absent)].toFront(n)
	}
	return n.value.answer, true
}

// find returns the node with this key, or nil. Where the last one with the same hash was found is looked at first: one
// comparison instead of some 20. A wrong guess costs nothing but itself, and none is of a node that has gone: only drop
// and a flush of everything take nodes out, and their guesses with them. The caller holds the mutex.
func (c *Cache) find(key []byte) *node[entry] {
	if len(c.guesses) == 0 { // nothing was ever kept
		return nil
	}
	guess := c.guess(maphash.Bytes(hashSeed, key))
	if n := *guess; n != nil && n.key == string(key) {
		return n
	}
	n := c.tree.find(key)
	if n != nil {
		*guess = n
	}
	return n
}

// guess returns where the guess for a hash stands. The seed is our own: nobody can choose addresses that spoil them all.
func (c *Cache) guess(hash uint64) **node[entry] { return &c.guesses[hash%uint64(len(c.guesses))] }

// moreGuesses sees to it that there are more guesses than entries; it comes before each keep. A larger table begins
// empty, for guesses come back by themselves, and is made while the mutex is free: some MB may take milliseconds. Should
// others keep more meanwhile than it has room for, guesses are wrong more often until the next time.
func (c *Cache) moreGuesses() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tree.len; n >= len(c.guesses) {
		c.mu.Unlock()
		more := make([]*node[entry], 64+n+n/4)
		c.mu.Lock()
		if len(more) > len(c.guesses) { // nobody else was faster
			c.guesses = more
		}
	}
}

var hashSeed = maphash.MakeSeed()

// patience is how long an asker who could do with an expired answer waits for a new one. MySQL finds a row in less than
// a hundredth of it, so what takes longer is not available, and others wait for their turn.
const patience = 250 * time.Millisecond

// Resolve answers from memory, or with what Resolver says. When Resolver is unavailable an expired answer may have to
// do; whether it is, is found out for each entry, since one database may be gone and another not.
func (c *Cache) Resolve(ctx context.Context, q Query) (Answer, error) {
	if !q.Type.cacheable() {
		return c.Resolver.Resolve(ctx, q)
	}
	var scratch [128]byte
	if a, ok := c.peek(scratch[:0], q.Type, []byte(q.Email)); ok {
		return a, nil
	}
	key := c.appendKey(scratch[:0], q.Type, []byte(q.Email))
	f, late := c.join(key, q)
	for {
		select {
		case <-f.done:
			return f.answer, f.err
		case <-late:
			if a := c.stale(key, q.Type); a != "" {
				return a, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// join returns the flight that will bring the answer, begun here if there is none, and if there is an expired answer
// that may do, what tells when to take it.
func (c *Cache) join(key []byte, q Query) (f *flight, late <-chan time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.find(key); n != nil && since()-n.value.loaded < c.life(&n.value) {
		c.stats.Hits++ // it has come since peek
		f = &flight{done: make(chan struct{}), answer: n.value.answer}
		close(f.done)
		return f, nil
	} else if n != nil && c.usable(n, q.Type) {
		late = time.After(patience)
	}
	if f = c.flights[string(key)]; f != nil {
		c.stats.Coalesced++
		return f, late
	}
	if c.flights == nil {
		c.flights = make(map[string]*flight)
	}
	f = &flight{done: make(chan struct{})}
	c.flights[string(key)] = f
	c.stats.Misses++
	q.Email = lower(q.Email) // the answer repeats it, and is not for this asker alone
	go c.load(f, string(key), q)
	return f, late
}

// usable reports whether n may be given although it has expired.
func (c *Cache) usable(n *node[entry], t Type) bool {
	return since()-n.value.loaded < c.life(&n.value)+c.staleFor(t, &n.value)
}

// stale returns the expired answer if it may be given, and notes that it could not be renewed.
func (c *Cache) stale(key []byte, t Type) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(key)
	if n == nil || !c.usable(n, t) {
		return ""
	}
	n.value.failed = second()
	c.stats.Stale++
	return n.value.answer
}

// load brings the answer. It has a context of its own: the asker who began it may go away, others wait too. A flush
// meanwhile has taken the flight out of the map; then those who wait get the answer, and nobody after them.
func (c *Cache) load(f *flight, key string, q Query) {
	ctx, cancel := context.WithTimeout(context.Background(), or(c.LoadTimeout, deadline-500*time.Millisecond))
	defer cancel()
	start := since()
	a, err := c.Resolver.Resolve(ctx, q)
	fresh := entry{answer: a, loaded: start, absent: a == Absent(q)}
	failed := err != nil
	if errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrTooLong) { // what has grown too long is not what it was
		if old := c.stale([]byte(key), q.Type); old != "" {
			a, err = old, nil
		}
	}
	c.moreGuesses()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.LoadErrors += uint64(bit(failed))
	if c.flights[key] == f {
		delete(c.flights, key)
		if !failed {
			c.rings[bit(fresh.absent)].pushFront(c.keep(key, fresh))
			c.makeRoom()
		}
	}
	f.answer, f.err = a, err
	close(f.done)
}

// keep puts e into the tree, on no ring yet. Key and answer share one allocation.
func (c *Cache) keep(key string, e entry) *node[entry] {
	both := key + string(e.answer)
	n, fresh := c.tree.insert(both[:len(key)])
	if !fresh {
		c.drop(n)
		n, _ = c.tree.insert(both[:len(key)])
	}
	if c.fresh++; c.fresh > c.tree.len/16 {
		c.fresh, c.period = 0, c.period+1
	}
	e.answer, e.used = Answer(both[len(key):]), c.period
	n.value = e
	c.stats.Bytes[bit(e.absent)] += cost(n)
	c.stats.Entries[bit(e.absent)]++
	return n
}

// cost returns the bytes of heap that n takes: the node of 96 bytes, a guess of 8 and its share in those not used, and
// key and answer in one block, rounded up about as the allocator does it: to 16 bytes up to 256, to an eighth of the
// next smaller power of two beyond.
func cost(n *node[entry]) int64 {
	b, unit := int64(len(n.key)+len(n.value.answer)), int64(16)
	for unit*16 < b {
		unit *= 2
	}
	return 96 + 10 + (b+unit-1)/unit*unit
}

// drop takes n out of tree, ring and accounts.
func (c *Cache) drop(n *node[entry]) {
	c.stats.Bytes[bit(n.value.absent)] -= cost(n)
	c.stats.Entries[bit(n.value.absent)]--
	if guess := c.guess(maphash.String(hashSeed, n.key)); *guess == n { // there are some: moreGuesses
		*guess = nil
	}
	c.tree.delete(n)
}

// over reports whether so much exceeds a share of the room: one in share.
func (c *Cache) over(bytes int64, entries, share int) bool {
	return bytes > max(0, or(c.Size, 256<<20))/int64(share) || c.MaxEntries > 0 && entries > max(1, c.MaxEntries/share)
}

// makeRoom evicts until the bounds hold: of the absent whatever exceeds their eighth, then, if all together is too
// much, the absent before the others.
func (c *Cache) makeRoom() {
	for c.over(c.stats.Bytes[1], c.stats.Entries[1], 8) {
		c.evict(1)
	}
	for c.over(c.stats.Bytes[0]+c.stats.Bytes[1], c.tree.len, 1) {
		c.evict(bit(c.stats.Entries[1] > 0))
	}
}

func (c *Cache) evict(ring int) {
	c.drop(c.rings[ring].back()) // not nil: its usage is above a bound that is not negative
	c.stats.Evicted++
}

// flushStep is how many entries go under one hold of the mutex: some 300 µs.
const flushStep = 500

// Flush forgets what is known about an address, about a domain if email has no separator, or everything if it is
// empty, and returns how many entries that were. No answer to a question asked after Flush returns is older than its
// call, since loads under way lose their place in the cache before the walk begins. It goes by the address as asked: the
// same user asked for under an alias domain stays.
func (c *Cache) Flush(email string) (flushed int) {
	prefix := ""
	if i := separator(email); i >= 0 {
		prefix = lower(email[i+1:]) + "\x00" + lower(email[:i]) + "\x00"
	} else if email != "" {
		prefix = lower(email) + "\x00"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.flights {
		if strings.HasPrefix(key, prefix) {
			delete(c.flights, key)
		}
	}
	for fence := range c.fills {
		*fence = append(*fence, prefix)
	}
	if prefix == "" {
		flushed = c.tree.len
		c.tree, c.rings, c.guesses = tree[entry]{}, [2]ring[entry]{}, make([]*node[entry], 64)
		c.stats.Entries, c.stats.Bytes = [2]int{}, [2]int64{}
	}
	for n := c.tree.ceiling(prefix); n != nil && strings.HasPrefix(n.key, prefix); {
		next := n.successor()
		c.drop(n)
		if flushed++; flushed%flushStep == 0 && next != nil {
			key := next.key
			c.mu.Unlock() // others have their turn; whatever they add meanwhile is fresh
			c.mu.Lock()
			next = c.tree.ceiling(key)
		}
		n = next
	}
	c.stats.Flushed += uint64(flushed)
	return flushed
}

// Fill lets source put in answers that nobody has asked for yet, the most likely ones first. They are the first to be
// evicted, in the opposite order, and never evict another: add returns false when the cache is full, or when all was
// flushed since Fill began. Fill returns how many were put in.
func (c *Cache) Fill(source func(add func(Query, Answer) bool) error) (filled int, err error) {
	fence, start := new([]string), since()
	c.mu.Lock()
	if c.fills == nil {
		c.fills = make(map[*[]string]bool)
	}
	c.fills[fence] = true
	c.mu.Unlock()
	err = source(func(q Query, a Answer) bool {
		key := string(c.appendKey(nil, q.Type, []byte(q.Email)))
		c.moreGuesses()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, prefix := range *fence { // what source says may be older than that flush
			if strings.HasPrefix(key, prefix) {
				return prefix != ""
			}
		}
		if c.find([]byte(key)) != nil {
			return true
		}
		n := c.keep(key, entry{answer: a, loaded: start, absent: a == Absent(q)})
		n.value.used-- // not yet: a hit brings it to the front
		c.rings[bit(n.value.absent)].pushBack(n)
		if c.over(c.stats.Bytes[0]+c.stats.Bytes[1], c.tree.len, 1) {
			c.drop(n)
			return false
		}
		filled++
		return true
	})
	c.mu.Lock()
	delete(c.fills, fence)
	c.mu.Unlock()
	return filled, err
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
	Left   time.Duration // to live; negative: expired so long ago
	Stale  time.Duration // until it may not even be given while Resolver is unavailable
	Bytes  int64         // of heap
	Absent bool
}

// Explain returns what the cache has for q, and changes nothing.
func (c *Cache) Explain(q Query) (e Entry, there bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.find(c.appendKey(nil, q.Type, []byte(q.Email)))
	if n == nil || !q.Type.cacheable() {
		return e, false
	}
	age := since() - n.value.loaded
	left := c.life(&n.value) - age
	return Entry{age, left, left + c.staleFor(q.Type, &n.value), cost(n), n.value.absent}, true
}
