package inlookup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A cacheModel is what a Cache must do, without tree and rings and for one client at a time. Its
// keys are "domain local type spelling". In the lists the most recently used is first.
type cacheModel struct {
	max     int
	entries map[string]modelEntry
	lists   [2][]string // by kind
}

type modelEntry struct {
	answer Answer
	loaded time.Time
	kind   int
	failed uint32
}

func modelKey(typ Type, email string) string {
	email = strings.ToLower(email)
	i := strings.LastIndexAny(email, "@%:") // the addresses asked about have one at most
	switch {
	case i < 0 && (typ == TypeDomain || typ == TypeLimit):
		return fmt.Sprint(email, "  ", int(typ), " ")
	case i < 0:
		return fmt.Sprint("default.example ", email, " ", int(typ), " ", email)
	case email[i] != '@':
		return fmt.Sprint(email[i+1:], " ", email[:i], " ", int(typ), " ", email)
	}
	return fmt.Sprint(email[i+1:], " ", email[:i], " ", int(typ), " ")
}

func (e modelEntry) life() time.Duration {
	if e.kind == 1 {
		return 20 * time.Second
	}
	return 10 * time.Minute
}

func (e modelEntry) usable(typ Type) bool {
	most := 24 * time.Hour
	if typ == TypeUser || typ == TypePasswd {
		most = time.Hour
	}
	return !e.answer.isZero() && e.kind == 0 && time.Since(e.loaded) < e.life()+most
}

func (m *cacheModel) drop(key string) {
	list := &m.lists[m.entries[key].kind]
	*list = without(*list, key)
	delete(m.entries, key)
}

func (m *cacheModel) toFront(key string) {
	list := &m.lists[m.entries[key].kind]
	*list = slices.Insert(without(*list, key), 0, key)
}

func (m *cacheModel) put(key string, e modelEntry) {
	if _, ok := m.entries[key]; ok {
		m.drop(key)
	}
	m.entries[key] = e
	m.toFront(key)
	for m.max > 0 && len(m.lists[e.kind]) > m.room(e.kind) {
		m.drop(m.lists[e.kind][len(m.lists[e.kind])-1])
	}
}

// room returns how many entries of a kind there may be.
func (m *cacheModel) room(kind int) int {
	absent := max(m.max/8, min(1, m.max-1))
	return []int{m.max - absent, absent}[kind]
}

// modelKind returns 1 for an answer that says "absent".
func modelKind(q Query, a Answer) int {
	bounces := q.Type == TypeUser || q.Type == TypePasswd || q.Type == TypeHost
	return bit(bounces && a.Equal(absentAnswer(q)))
}

// ask returns what must be answered, "" for an error, and whether the Resolver must be asked. The
// Resolver's answer will be next.
func (m *cacheModel) ask(q Query, resolverDown bool, next Answer) (want Answer, load bool) {
	key := modelKey(q.Type, q.Email)
	e, ok := m.entries[key]
	alive := ok && time.Since(e.loaded) < e.life()
	if alive || e.usable(q.Type) && e.failed == second() {
		m.toFront(key)
		return e.answer, false
	}
	if resolverDown && e.usable(q.Type) {
		e.failed = second()
		m.entries[key] = e
		return e.answer, true
	}
	if resolverDown {
		return Answer{}, true
	}
	m.put(key, modelEntry{answer: next, loaded: time.Now(), kind: modelKind(q, next)})
	return next, true
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

// preload returns how many entries must be kept, and how many questions the Resolver must get.
func (m *cacheModel) preload(q Query, resolverDown bool, next Answer) (kept, calls int) {
	key := modelKey(q.Type, q.Email)
	if _, ok := m.entries[key]; ok {
		return 0, 0
	}
	full := m.max > 0 && len(m.lists[0]) >= m.room(0)
	if resolverDown || full || next.Equal(absentAnswer(q)) {
		return 0, 1
	}
	m.entries[key] = modelEntry{answer: next, loaded: time.Now()}
	m.lists[0] = append(m.lists[0], key)
	return 1, 1
}

// A modelRun is a Cache beside its model.
type modelRun struct {
	t     *testing.T
	rnd   *rand.Rand
	fake  *fake
	model *cacheModel
	cache *Cache
	sized *Cache // is only held to its bound
	where string // for messages
}

// TestCacheModel runs caches beside their models, and checks tree, rings and accounts after each
// step.
func TestCacheModel(t *testing.T) {
	steps := 1000 + fewer(7000)
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			f := new(fake)
			most := []int{0, 1, 7, 40}[seed%4]
			r := &modelRun{
				t:     t,
				rnd:   rand.New(rand.NewPCG(seed, 3)),
				fake:  f,
				model: &cacheModel{max: most, entries: make(map[string]modelEntry)},
				cache: &Cache{Resolver: f, MaxEntries: most, DefaultDomain: "default.example"},
				sized: &Cache{Resolver: f, Size: 3000, DefaultDomain: "default.example"},
			}
			for step := range steps {
				r.where = fmt.Sprintf("seed %d, step %d", seed, step)
				r.step()
				r.check()
			}
		})
	}
}

func (r *modelRun) pick(list ...string) string { return list[r.rnd.IntN(len(list))] }

func (r *modelRun) query() Query {
	domain := r.pick("example.com", "example.org", "default.example")
	local := r.pick("user", "u", "USER", "no", "nobody")
	email := local + r.pick("@", "@", "%", ":") + domain
	switch r.rnd.IntN(8) {
	case 0:
		email = local
	case 1:
		email = domain
	}
	return Query{Type: cached[r.rnd.IntN(len(cached))], Email: email}
}

// next returns what the Resolver will answer.
func (r *modelRun) next(q Query) Answer {
	if strings.HasPrefix(strings.ToLower(q.Email), "no") {
		return absentAnswer(q)
	}
	return numbered(q.Type, r.fake.calls()+1)
}

func (r *modelRun) step() {
	switch op := r.rnd.IntN(100); {
	case op < 80:
		r.ask(r.query())
	case op < 84:
		r.flush()
	case op < 86:
		r.fake.setDown(!r.fake.down)
	case op < 88:
		r.preload()
	case op < 96:
		time.Sleep(time.Duration(r.rnd.Int64N(int64(time.Second))))
	case op < 99:
		time.Sleep(time.Duration(r.rnd.Int64N(int64(time.Minute))))
	default:
		time.Sleep(time.Duration(r.rnd.Int64N(int64(30 * time.Hour))))
	}
}

func (r *modelRun) ask(q Query) {
	before := r.fake.calls()
	want, load := r.model.ask(q, r.fake.down, r.next(q))
	got, err := r.cache.Resolve(context.Background(), q)
	synctest.Wait() // for a load that nobody waits for
	calls := r.fake.calls() - before
	if !got.Equal(want) || (err != nil) != want.isZero() || calls != bit(load) {
		r.t.Fatalf("%s: %v: %q, %v after %d questions to the Resolver, want %q, %v",
			r.where, q, got, err, calls, want, load)
	}
	if load && r.fake.asked[before] != (Query{q.Type, strings.ToLower(q.Email), ""}) {
		r.t.Fatalf("%s: %v asks the Resolver %v", r.where, q, r.fake.asked[before])
	}
	r.sized.Resolve(context.Background(), q)
}

func (r *modelRun) flush() {
	email := r.query().Email
	if r.rnd.IntN(10) == 0 {
		email = ""
	}
	if got, want := r.cache.Flush(email), r.model.flush(email); got != want {
		r.t.Fatalf("%s: flush %q: %d entries, want %d", r.where, email, got, want)
	}
	r.sized.Flush(email)
}

func (r *modelRun) preload() {
	q := Query{Type: TypePasswd, Email: strings.ToLower(r.query().Email)}
	before := r.fake.calls()
	want, wantCalls := r.model.preload(q, r.fake.down, r.next(q))
	got, err := r.cache.Preload(context.Background(), []string{q.Email})
	if calls := r.fake.calls() - before; got != want || calls != wantCalls || err != nil {
		r.t.Fatalf("%s: preload %v: %d kept after %d questions, %v, want %d after %d",
			r.where, q, got, calls, err, want, wantCalls)
	}
	r.sized.Preload(context.Background(), []string{q.Email})
}

func (r *modelRun) check() {
	consistent(r.t, r.cache)
	synctest.Wait()
	consistent(r.t, r.sized)
	s := r.sized.Stats()
	if s.Present.Bytes+s.Absent.Bytes > 3000 || s.Absent.Bytes > 3000/8 {
		r.t.Fatalf("%s: %+v", r.where, s)
	}
	want := [2]int{len(r.model.lists[0]), len(r.model.lists[1])}
	if got := r.cache.entries(); got != want {
		r.t.Fatalf("%s: %d entries, want %d", r.where, got, want)
	}
	r.compareRings()
}

// compareRings compares the order of use.
func (r *modelRun) compareRings() {
	for k := range r.cache.rings {
		head := &r.cache.rings[k].head
		i := 0
		for n := head.next; n != nil && n != head; n = n.next {
			want := r.model.entries[r.model.lists[k][i]].answer
			if n.value.wire != want.Wire() {
				r.t.Fatalf("%s: number %d of ring %d is %q, want %q",
					r.where, i, k, n.value.wire, want.Wire())
			}
			i++
		}
	}
}
