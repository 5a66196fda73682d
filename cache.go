package inlookup

// The cache stands in front of another Resolver and remembers its answers.
//
// All entries are in one tree under one mutex. A lookup holds the mutex for
// less than a microsecond. The system calls around it take ten times as long,
// so splitting the lock would gain nothing. The key of an entry is
//
//	domain 0 local 0 type
//
// So the answers about a user are neighbours in the tree, and so are the users
// of a domain. A flush is one walk over them.
//
// The life of an entry:
//
//	          TTL                     Stale
//	load ------------> expired ----------------> useless
//	   given to all       given only while the
//	                      Resolver is unavailable
//
// An entry leaves earlier when it is flushed, or when room is needed and it was
// used least recently. Answers that say "absent" live for a shorter time, on a
// ring of their own, in at most an eighth of the room. They never evict other
// answers: a dictionary of names that do not exist drives out only its own
// kind. An expired "absent" is never given, because a wrong one bounces mail.
//
// Decided against: refreshing an entry before it expires (that asks for users
// in whom nobody is interested), and a heap ordered by expiry (an expired entry
// does no harm, and soon becomes the least recently used).

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Cache answers from memory if it can, and asks Resolver if it cannot. It
// asks once for all clients that ask the same at the same time. It does not
// keep answers to TypeRelay. The zero value of a field means the default given;
// fields must not change after the first question.
type Cache struct {
	Resolver      Resolver
	TTL           time.Duration // life of an answer; 0: 10 minutes; negative: none is kept
	NegativeTTL   time.Duration // life of "absent"; 0: 20 seconds; negative: none is kept
	Size          int64         // bytes of heap for all entries; 0: 256 MiB; negative: none
	MaxEntries    int           // 0: only Size limits
	LoadTimeout   time.Duration // for one question to Resolver; 0: 2.8 s, as clients wait 4 s
	DefaultDomain string        // of addresses without one; the same as Resolver's

	// Stale is how long an expired answer may be given while Resolver is
	// unavailable. Default and maximum are 1 hour for TypeUser and TypePasswd,
	// and 24 hours for the others. Negative: never.
	Stale time.Duration

	mu      sync.Mutex // guards what follows
	tree    tree[entry]
	rings   [2]ring[entry] // by kind; most recently used first
	flights map[string]*flight
	flushes uint64 // calls of Flush
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
	wire   string        // of the answer
	loaded time.Duration // since epoch
	// unrenewed is the second in which renewing it last failed; 0: never.
	unrenewed uint32
	kind      kind
}

// CacheStats counts what happened, and says what the cache holds now.
type CacheStats struct {
	Hits, Misses uint64
	Coalesced    uint64 // questions that shared the load of another
	StaleHits    uint64 // expired answers given
	LoadErrors   uint64
	Evicted      uint64 // entries that made room for others
	Flushed      uint64
	Present      Usage
	Absent       Usage // of the answers that say "absent"
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

// Times in entries count from epoch. That takes 8 bytes, not the 24 of a
// time.Time, and is monotonic as well.
var epoch = time.Now()

func sinceEpoch() time.Duration { return time.Since(epoch) }

// second numbers the seconds since epoch, from 1.
func second() uint32 { return uint32(sinceEpoch()/time.Second) + 1 }

// life returns how long an entry of this kind is given to all. A negative
// life means that none is kept.
func (c *Cache) life(k kind) time.Duration {
	if k == absent {
		return cmp.Or(c.NegativeTTL, 20*time.Second)
	}
	return cmp.Or(c.TTL, 10*time.Minute)
}

// staleFor returns how much longer e may be given while Resolver is
// unavailable. What opens a mailbox may be given for a shorter time than what
// only routes mail.
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

// isCacheable reports whether answers are kept. Relay changes with every login,
// and extensions are about the server.
func (t Type) isCacheable() bool { return t.known() && t != TypeRelay && !t.extension() }

// appendKey appends the key of a question. An answer may repeat the address as
// it was spelled, so a%d and a@d need different keys. The key of an address
// that is not spelled local@domain ends with its spelling.
func (c *Cache) appendKey(b []byte, t Type, email []byte) []byte {
	i := separator(email)
	local := email
	switch {
	case aboutDomain(t, email):
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

// peek returns the bytes of the answer if it is in memory and may be given at once. An
// expired one may be if renewing it has failed in this second. This is all that
// a hit costs. So peek allocates nothing for an ASCII address: *key is the
// caller's scratch space.
func (c *Cache) peek(key *[]byte, t Type, email []byte) (wire string, ok bool) {
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
	} else if e.unrenewed == second() && c.isUsable(t, e) {
		c.stats.StaleHits++
	} else {
		return "", false
	}
	c.rings[e.kind].toFront(n)
	return e.wire, true
}

// patience is how long a question waits for a new answer if an expired one will
// do. MySQL finds a row in less than a hundredth of that.
const patience = 250 * time.Millisecond

// Resolve answers from memory, or with what Resolver says. If Resolver is
// unavailable or slow it may answer with an expired answer; see Stale. Each
// entry finds out for itself whether Resolver is, because one database may be
// gone and another not.
func (c *Cache) Resolve(ctx context.Context, q Query) (Answer, error) {
	email := []byte(q.Email)
	q.Email = lower(q.Email)
	if !q.Type.isCacheable() {
		return askResolver(ctx, c.Resolver, q)
	}
	var key []byte
	if wire, ok := c.peek(&key, q.Type, email); ok {
		return WireAnswer(wire), nil
	}
	a, f, late := c.join(string(key), q)
	if f == nil {
		return a, nil
	}
	for {
		select {
		case <-f.done:
			return f.answer, f.err
		case <-late:
			if a := c.takeStale(string(key), q.Type); !a.isZero() {
				return a, nil
			}
		case <-ctx.Done():
			return Answer{}, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// join returns the flight that will bring the answer, and begins one if there
// is none. If an expired answer will do, late says when to take it. If the
// answer has come since peek, join returns it and no flight.
func (c *Cache) join(key string, q Query) (a Answer, f *flight, late <-chan time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.tree.find([]byte(key)); n != nil {
		if c.isAlive(&n.value) {
			c.stats.Hits++
			return WireAnswer(n.value.wire), nil, nil
		}
		if c.isUsable(q.Type, &n.value) {
			late = time.After(patience)
		}
	}
	f = c.flights[key]
	if f != nil {
		c.stats.Coalesced++
		return Answer{}, f, late
	}
	c.stats.Misses++
	f = c.begin(key)
	go c.load(f, key, q, c.keepFront)
	return Answer{}, f, late
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

// takeStale returns the expired answer if it may be given, else none. It notes
// that renewing the entry failed.
func (c *Cache) takeStale(key string, t Type) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tree.find([]byte(key))
	if n == nil || !c.isUsable(t, &n.value) {
		return Answer{}
	}
	n.value.unrenewed = second()
	c.stats.StaleHits++
	return WireAnswer(n.value.wire)
}

// load gets the answer for a flight, and has it kept. It has a context of its
// own, because other clients wait even if the one that began it goes away. If a
// flush has taken the flight out of the map meanwhile, the answer goes to those
// that wait for it and is not kept.
func (c *Cache) load(f *flight, key string, q Query, keep func(string, entry)) {
	ctx, cancel := context.WithTimeout(context.Background(), c.loadTimeout())
	defer cancel()
	e := entry{loaded: sinceEpoch()}
	answer, err := askResolver(ctx, c.Resolver, q)
	e.wire = answer.Wire()
	if answer.Equal(Absent(q)) {
		e.kind = absent
	}
	f.answer, f.err = answer, err
	if isOutage(err) {
		if old := c.takeStale(key, q.Type); !old.isZero() {
			f.answer, f.err = old, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(f.done)
	if err != nil {
		c.stats.LoadErrors++
	}
	if c.flights[key] != f {
		return
	}
	delete(c.flights, key)
	if isOutage(err) {
		return
	}
	if old := c.tree.find([]byte(key)); old != nil {
		c.drop(old) // it is wrong now, even if nothing is kept in its place
	}
	if err == nil && c.life(e.kind) > 0 {
		keep(key, e)
	}
}

func (c *Cache) loadTimeout() time.Duration {
	return cmp.Or(c.LoadTimeout, deadline-200*time.Millisecond)
}

// isOutage reports whether err says that Resolver is unavailable. A row that
// has grown too long, or that is not understood, is no outage.
func isOutage(err error) bool {
	return err != nil && !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrInvalid)
}

// keepFront keeps e as the most recently used, and makes room for it. The
// caller holds the mutex.
func (c *Cache) keepFront(key string, e entry) {
	n := c.insert(key, e)
	c.rings[e.kind].pushFront(n)
	c.makeRoom()
}

// insert puts e into the tree, on no ring yet. Key and answer share one
// allocation. There must be no entry with this key.
func (c *Cache) insert(key string, e entry) *node[entry] {
	both := key + e.wire
	n, _ := c.tree.insert(both[:len(key)])
	e.wire = both[len(key):]
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

// cost returns the bytes of heap that n takes: the node, and the block with key
// and answer. The allocator rounds a block up, and cost does about the same: to
// a multiple of 16 up to 256 bytes, of 32 up to 512, and so on.
func cost(n *node[entry]) int64 {
	const nodeSize = 96
	size := int64(len(n.key) + len(n.value.wire))
	unit := int64(16)
	for unit*16 < size {
		unit *= 2
	}
	return nodeSize + (size+unit-1)/unit*unit
}

// drop takes n out of the tree, off its ring and out of the usage.
func (c *Cache) drop(n *node[entry]) {
	u := c.usage(n.value.kind)
	u.Entries--
	u.Bytes -= cost(n)
	c.tree.delete(n)
}

// exceeds reports whether u is more than one part of the room, if the room is
// cut into this many parts.
func (c *Cache) exceeds(u Usage, parts int) bool {
	size := max(0, cmp.Or(c.Size, 256<<20))
	if u.Bytes > size/int64(parts) {
		return true
	}
	return c.MaxEntries > 0 && u.Entries > max(1, c.MaxEntries/parts)
}

// total returns the room that all entries take.
func (c *Cache) total() Usage {
	p, a := c.stats.Present, c.stats.Absent
	return Usage{Entries: p.Entries + a.Entries, Bytes: p.Bytes + a.Bytes}
}

// makeRoom evicts until the bounds hold. "Absent" entries go first.
func (c *Cache) makeRoom() {
	const absentPart = 8 // they have an eighth of the room
	for c.exceeds(c.stats.Absent, absentPart) {
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
	c.drop(c.rings[k].back()) // never nil: the usage exceeds a bound of at least 0
	c.stats.Evicted++
}

// flushStep is how many entries a flush drops, in about 300 µs, before it lets
// others have the mutex.
const flushStep = 500

// Flush forgets what is known about an address; about a domain, if email has no
// separator; or about everything, if email is empty. It returns the number of
// entries that it removed.
//
// A question asked after Flush has returned gets no answer from before Flush
// was called: the answers of loads under way are not kept. Flush goes by the
// address as clients ask for it, with DefaultDomain if it has none. So entries
// of the same user under an alias domain stay.
func (c *Cache) Flush(email string) (flushed int) {
	prefix := flushPrefix(email)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushes++
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
			c.mu.Unlock() // what others add meanwhile is newer than the flush
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

// A BatchResolver is a Resolver that answers many questions for less than one
// by one costs. Cache.Preload makes use of it.
//
// ResolveMany gets at most 500 questions of TypePasswd, each about another
// address, in lower case. It returns as many answers in the same order. The
// zero Answer means that Resolve must be asked this one: about an odd row, or a
// user who needs a look elsewhere. With an error Resolve is asked all of them.
// An answer that is kept must be what Resolve would say. ResolveMany must
// return soon after ctx is done. Two goroutines call it at once.
type BatchResolver interface {
	Resolver
	ResolveMany(ctx context.Context, questions []Query) ([]Answer, error)
}

const (
	preloaders      = 4   // questions that Preload asks at a time
	preloadFailures = 20  // this many in a row end it
	batchers        = 2   // batches that it asks at a time: clients have the rest
	batchSize       = 500 // questions in one
	batchTries      = 3   // for a batch into which flushes come
)

// A preload is a call of Preload.
type preload struct {
	c        *Cache
	many     BatchResolver           // nil: Resolver is none
	end      context.CancelCauseFunc // ends it early
	added    atomic.Int64
	failures atomic.Int64 // in a row
}

// Preload asks for the password entries of these addresses, until ctx is done
// or the cache is full. The addresses most likely to be asked for come first.
// The entries never evict others, and are evicted before others, the last ones
// first. A flush holds for them as for the answers to clients. Preload returns
// how many entries it added, and the error that ended it early. That is the
// error of ctx, or of a load after many in a row have failed.
//
// If Resolver is a BatchResolver it is asked in batches. A batch is thrown away
// and asked again if a flush came meanwhile. What it does not answer is asked
// one by one.
func (c *Cache) Preload(ctx context.Context, emails []string) (int, error) {
	if c.Resolver == nil {
		return 0, errNoResolver
	}
	if c.life(present) < 0 {
		return 0, nil
	}
	p := &preload{c: c}
	ctx, p.end = context.WithCancelCause(ctx)
	defer p.end(nil)
	atATime := preloaders
	size := 1
	p.many, _ = c.Resolver.(BatchResolver)
	if p.many != nil {
		atATime = batchers
		size = batchSize
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range atATime {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(int64(size))) - size
				if i >= len(emails) {
					return
				}
				p.load(ctx, emails[i:min(i+size, len(emails))])
			}
		})
	}
	workers.Wait()
	err := context.Cause(ctx)
	if err == errFull {
		err = nil
	}
	return int(p.added.Load()), err
}

var errFull = errors.New("the cache is full")

// load loads what is not there yet, as a batch if it can, else one by one.
func (p *preload) load(ctx context.Context, emails []string) {
	var open []Query
	for _, email := range emails {
		open = append(open, Query{Type: TypePasswd, Email: lower(email)})
	}
	again := p.many != nil
	for tries := 0; again && tries < batchTries; tries++ {
		open, again = p.loadBatch(ctx, open)
	}
	for _, q := range open {
		if ctx.Err() != nil {
			return
		}
		p.loadOne(q)
	}
}

// loadBatch asks for a batch and keeps the answers. It returns the questions
// that are still open, and whether the reason is a flush. Each entry is kept in
// a critical section of its own, so that hits need not wait.
func (p *preload) loadBatch(ctx context.Context, batch []Query) (open []Query, flushed bool) {
	batch = slices.DeleteFunc(batch, func(q Query) bool {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return !p.c.lacks(p.key(q))
	})
	if len(batch) == 0 {
		return nil, false
	}
	before := p.c.countFlushes() // first: a flush from here on fences the batch off
	loaded := sinceEpoch()
	ctx, cancel := context.WithTimeout(ctx, p.c.loadTimeout())
	defer cancel()
	answers, err := askMany(ctx, p.many, batch)
	if err != nil || len(answers) != len(batch) {
		return batch, false
	}
	p.failures.Store(0)
	for i, a := range answers {
		q := batch[i]
		switch {
		case a.isError(q.Type):
			open = append(open, q)
		case a.Equal(Absent(q)):
		case !p.keepUnlessFlushed(q, entry{wire: a.Wire(), loaded: loaded}, before):
			return append(open, batch[i:]...), true
		}
	}
	return open, false
}

// askMany asks r, which may panic.
func askMany(ctx context.Context, r BatchResolver, batch []Query) (answers []Answer, err error) {
	defer rescue(&err)
	return r.ResolveMany(ctx, batch)
}

// keepUnlessFlushed keeps e at the back, and reports whether there was no flush
// since before. What is there or on its way is newer, and stays.
func (p *preload) keepUnlessFlushed(q Query, e entry, before uint64) bool {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	if p.c.flushes != before {
		return false
	}
	if key := p.key(q); p.c.lacks(key) {
		p.keep(key, e)
	}
	return true
}

// keep keeps e at the back, or ends the preload. The caller holds the mutex.
func (p *preload) keep(key string, e entry) {
	switch {
	case e.kind == absent:
	case p.c.keepBack(key, e):
		p.added.Add(1)
	default:
		p.end(errFull)
	}
}

// loadOne loads an entry as for a question, if it is neither there nor on its
// way.
func (p *preload) loadOne(q Query) {
	c := p.c
	key := p.key(q)
	c.mu.Lock()
	if !c.lacks(key) {
		c.mu.Unlock()
		return
	}
	f := c.begin(key)
	c.mu.Unlock()
	c.load(f, key, q, p.keep)
	if f.err == nil {
		p.failures.Store(0)
	} else if p.failures.Add(1) >= preloadFailures {
		p.end(f.err)
	}
}

func (p *preload) key(q Query) string {
	return string(p.c.appendKey(nil, q.Type, []byte(q.Email)))
}

// lacks reports whether an entry is neither there nor on its way. The caller
// holds the mutex.
func (c *Cache) lacks(key string) bool {
	return c.tree.find([]byte(key)) == nil && c.flights[key] == nil
}

// countFlushes returns how many flushes there have been.
func (c *Cache) countFlushes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushes
}

// keepBack keeps e as the least recently used, and reports whether there was
// room for it. The caller holds the mutex.
func (c *Cache) keepBack(key string, e entry) bool {
	n := c.insert(key, e)
	c.rings[e.kind].pushBack(n)
	if c.exceeds(c.total(), 1) {
		c.drop(n)
		return false
	}
	return true
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
	Usable time.Duration // to be given while Resolver is unavailable; negative: no longer
	Bytes  int64         // of heap
	Absent bool
}

// Explain returns what the cache has for q, and whether it has anything. It
// changes nothing.
func (c *Cache) Explain(q Query) (Entry, bool) {
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
		Usable: left + c.staleFor(q.Type, &n.value),
		Bytes:  cost(n),
		Absent: n.value.kind == absent,
	}, true
}

var errPanic = errors.New("panic")

// rescue, deferred, turns a panic into an error that says where it was. Of a
// value that is no text it tells only the type, because that may hold a hash.
func rescue(err *error) {
	v := recover()
	if v == nil {
		return
	}
	what := fmt.Sprintf("%T", v)
	switch v.(type) {
	case error, string:
		what = fmt.Sprint(v)
	}
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	f, _ := frames.Next()
	for strings.HasPrefix(f.Function, "runtime.") {
		f, _ = frames.Next()
	}
	// Not %w for the value: a panic with ErrNotFound says nothing about a user.
	*err = fmt.Errorf("%w: %w: %s (%s:%d)", ErrUnavailable, errPanic, what, f.File, f.Line)
}
