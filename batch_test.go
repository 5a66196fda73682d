package inlookup_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inlookup/inlookup"
)

// A crowd is a BatchResolver. It numbers its answers by version. Of a batch it answers nothing
// about names that end in "odd", and says that those that begin with "no" are absent.
type crowd struct {
	mu      sync.Mutex
	version int
	batches [][]inlookup.Query
	alone   []inlookup.Query
	down    bool // for those alone
	running int
	most    int
	during  func()                                             // called within each batch
	result  func([]inlookup.Answer) ([]inlookup.Answer, error) // nil: as it is
}

func (c *crowd) entry(q inlookup.Query) inlookup.Answer {
	if strings.HasPrefix(q.Email, "no") {
		return inlookup.Absent(q)
	}
	return inlookup.NewPasswd(inlookup.Passwd{Email: q.Email, Gecos: fmt.Sprint("version ", c.version)})
}

func (c *crowd) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alone = append(c.alone, q)
	if c.down {
		return inlookup.Answer{}, inlookup.ErrUnavailable
	}
	return c.entry(q), nil
}

func (c *crowd) ResolveMany(_ context.Context, qs []inlookup.Query) ([]inlookup.Answer, error) {
	c.mu.Lock()
	c.batches = append(c.batches, qs)
	c.running++
	c.most = max(c.most, c.running)
	answers := make([]inlookup.Answer, len(qs))
	for i, q := range qs {
		if !strings.Contains(q.Email, "odd@") {
			answers[i] = c.entry(q)
		}
	}
	c.mu.Unlock()
	if c.during != nil {
		c.during()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if c.result != nil {
		return c.result(answers)
	}
	return answers, nil
}

// people returns user0@example.com to user(n-1)@example.com.
func people(n int) (emails []string) {
	for i := range n {
		emails = append(emails, fmt.Sprintf("user%d@example.com", i))
	}
	return emails
}

// gecos returns the version of a user's entry that the cache gives.
func gecos(t *testing.T, cache *inlookup.Cache, email string) string {
	t.Helper()
	p, err := inlookup.Directory{Resolver: cache}.Passwd(context.Background(), email)
	if err != nil {
		t.Error(err)
	}
	return p.Gecos
}

// TestPreloadInBatches: a BatchResolver is asked about many at a time, and one by one about what
// it leaves open.
func TestPreloadInBatches(t *testing.T) {
	r := new(crowd)
	cache := &inlookup.Cache{Resolver: r}
	emails := append(people(1600), "USER7@example.com", "odd@example.com", "nobody@example.com")
	n, err := cache.Preload(context.Background(), emails)
	if n != 1601 || err != nil || cache.Stats().Present.Entries != 1601 {
		t.Errorf("%d, %v, %+v", n, err, cache.Stats())
	}
	if len(r.batches) != 17 || len(r.alone) != 1 || r.alone[0].Email != "odd@example.com" {
		t.Errorf("%d batches, alone %v", len(r.batches), r.alone)
	}
	for _, batch := range r.batches {
		for _, q := range batch {
			if q.Type != inlookup.TypePasswd || q.Email != strings.ToLower(q.Email) {
				t.Errorf("asked %v", q)
			}
		}
		if len(batch) > 100 {
			t.Errorf("a batch of %d", len(batch))
		}
	}
	if r.most > 1 {
		t.Errorf("%d batches at a time", r.most)
	}
	for _, email := range emails[:1602] {
		gecos(t, cache, email)
	}
	if len(r.alone) != 1 {
		t.Errorf("clients cost %d questions", len(r.alone)-1)
	}
	n, err = cache.Preload(context.Background(), people(1600))
	if n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestPreloadAsksInOrder: a database reads the rows of neighbours together, so a part of the
// addresses is asked for in alphabetical order. Of more than the cache holds, the first half of
// what fits is there in any case.
func TestPreloadAsksInOrder(t *testing.T) {
	shuffled := people(3000)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	given := slices.Clone(shuffled)
	for _, test := range []struct {
		cache *inlookup.Cache
		part  int
	}{
		{&inlookup.Cache{}, 3000},
		{&inlookup.Cache{MaxEntries: 1600}, 700},
		{&inlookup.Cache{Size: 1 << 20}, 896},
	} {
		r := new(crowd)
		cache := test.cache
		cache.Resolver = r
		if _, err := cache.Preload(context.Background(), shuffled); err != nil {
			t.Error(err)
		}
		var asked []string
		for _, batch := range r.batches {
			for _, q := range batch {
				asked = append(asked, q.Email)
			}
		}
		for i, part := range slices.Collect(slices.Chunk(shuffled, test.part)) {
			want := slices.Sorted(slices.Values(part))
			got := asked[min(len(asked), i*test.part):]
			got = got[:min(len(got), len(part))]
			if i == 0 && len(got) < len(part) || !slices.Equal(got, want[:len(got)]) {
				t.Errorf("%+v: part %d of %d: %d in another order", cache.Stats(), i, test.part, len(got))
			}
		}
	}
	if !slices.Equal(shuffled, given) {
		t.Error("Preload changed the caller's addresses")
	}
}

// TestPreloadBatchFails: what a batch brings in disorder is asked one by one.
func TestPreloadBatchFails(t *testing.T) {
	for what, result := range map[string]func([]inlookup.Answer) ([]inlookup.Answer, error){
		"an error": func(a []inlookup.Answer) ([]inlookup.Answer, error) { return a, inlookup.ErrInvalid },
		"too few":  func(a []inlookup.Answer) ([]inlookup.Answer, error) { return a[1:], nil },
		"too many": func(a []inlookup.Answer) ([]inlookup.Answer, error) { return append(a, a...), nil },
		"a panic":  func([]inlookup.Answer) ([]inlookup.Answer, error) { panic("within a batch") },
		"answers that say error": func(a []inlookup.Answer) ([]inlookup.Answer, error) {
			for i := range a {
				a[i] = inlookup.NewAnswer(i%3 - 1)
			}
			return a, nil
		},
	} {
		r := &crowd{result: result}
		cache := &inlookup.Cache{Resolver: r}
		n, err := cache.Preload(context.Background(), people(30))
		if n != 30 || err != nil || len(r.alone) != 30 || len(r.batches) != 1 {
			t.Errorf("%s: %d, %v, %d batches, %d alone", what, n, err, len(r.batches), len(r.alone))
		}
	}
}

// TestPreloadBatchReordered: what a BatchResolver does to the questions changes no entry.
func TestPreloadBatchReordered(t *testing.T) {
	r := new(crowd)
	r.during = func() { slices.Reverse(r.batches[0]) }
	cache := &inlookup.Cache{Resolver: r}
	n, err := cache.Preload(context.Background(), people(30))
	if n != 30 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, email := range people(30) {
		gecos(t, cache, email)
	}
}

// TestPreloadGoexit: a Resolver that ends its goroutine ends the preload, with an error.
func TestPreloadGoexit(t *testing.T) {
	exit := func([]inlookup.Answer) ([]inlookup.Answer, error) { runtime.Goexit(); return nil, nil }
	for _, r := range []inlookup.Resolver{
		&crowd{result: exit},
		inlookup.ResolverFunc(func(context.Context, inlookup.Query) (inlookup.Answer, error) {
			runtime.Goexit()
			return inlookup.Answer{}, nil
		}),
	} {
		n, err := (&inlookup.Cache{Resolver: r}).Preload(context.Background(), people(30))
		if n != 0 || !errors.Is(err, inlookup.ErrUnavailable) {
			t.Errorf("%T: %d, %v", r, n, err)
		}
	}
}

// TestPreloadBatchBesideFailures: one user in each batch about whom Resolve fails does not end it.
func TestPreloadBatchBesideFailures(t *testing.T) {
	var emails []string
	for i := range 3000 {
		odd := ""
		if i%100 == 0 {
			odd = "odd"
		}
		emails = append(emails, fmt.Sprintf("%04d%s@example.com", i, odd))
	}
	r := &crowd{down: true}
	n, err := (&inlookup.Cache{Resolver: r}).Preload(context.Background(), emails)
	if n != 2970 || err != nil || len(r.alone) != 30 {
		t.Errorf("%d, %v, alone %d", n, err, len(r.alone))
	}
}

// TestPreloadBatchFlushed: nothing that was asked for before a flush is kept after it.
func TestPreloadBatchFlushed(t *testing.T) {
	for _, flushes := range []int{1, 2, 3, 1000} {
		r := new(crowd)
		cache := &inlookup.Cache{Resolver: r}
		done := 0
		r.during = func() {
			if done < flushes {
				done++
				r.mu.Lock()
				r.version++
				r.mu.Unlock()
				cache.Flush("user3@example.com")
			}
		}
		n, err := cache.Preload(context.Background(), people(10))
		if n != 10 || err != nil {
			t.Errorf("%d flushes: %d, %v", flushes, n, err)
		}
		wantAlone := 0
		if flushes >= 3 {
			wantAlone = 10
		}
		if len(r.batches) != min(flushes+1, 3) || len(r.alone) != wantAlone {
			t.Errorf("%d flushes: %d batches, %d alone", flushes, len(r.batches), len(r.alone))
		}
		for _, email := range people(10) {
			want := fmt.Sprint("version ", r.version)
			if got := gecos(t, cache, email); got != want {
				t.Errorf("%d flushes: %s has %s, want %s", flushes, email, got, want)
			}
		}
	}
}

// TestPreloadBatchFull: batches evict nothing, and end when the cache is full.
func TestPreloadBatchFull(t *testing.T) {
	r := new(crowd)
	cache := &inlookup.Cache{Resolver: r, MaxEntries: 100}
	first := gecos(t, cache, "first@example.com")
	n, err := cache.Preload(context.Background(), people(100_000))
	s := cache.Stats()
	if n != s.Present.Entries-1 || err != nil || s.Evicted > 0 || len(r.batches) > 4 {
		t.Errorf("%d, %v, %+v, %d batches", n, err, s, len(r.batches))
	}
	r.version++
	if gecos(t, cache, "first@example.com") != first {
		t.Error("what was there has gone")
	}
}

// TestPreloadBatchBesideClients: clients do not wait for a batch, and their newer answers stay. An
// entry of a batch is as old as the question.
func TestPreloadBatchBesideClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(crowd)
		r.during = func() { time.Sleep(time.Second) }
		cache := &inlookup.Cache{Resolver: r, Stale: -1}
		go func() {
			if n, err := cache.Preload(context.Background(), people(10)); n != 9 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}()
		synctest.Wait()
		r.version++
		start := time.Now()
		gecos(t, cache, "user3@example.com")
		if took := time.Since(start); took > 0 {
			t.Errorf("a client waited %v", took)
		}
		time.Sleep(2 * time.Second)
		for i, email := range people(10) {
			if got, newer := gecos(t, cache, email), i == 3; (got == "version 1") != newer {
				t.Errorf("%s has %s", email, got)
			}
		}
		e, _ := cache.Explain(inlookup.Query{Type: inlookup.TypePasswd, Email: "user0@example.com"})
		if e.Age != 2*time.Second {
			t.Errorf("%v old, want 2s", e.Age)
		}
	})
}

// TestPreloadBatchEnds: the end of a context ends it, and nobody of a batch that fails with it is
// asked about alone.
func TestPreloadBatchEnds(t *testing.T) {
	for _, fails := range []bool{false, true} {
		r := new(crowd)
		ctx, cancel := context.WithCancel(context.Background())
		r.during = cancel
		if fails {
			r.result = func([]inlookup.Answer) ([]inlookup.Answer, error) { return nil, ctx.Err() }
		}
		n, err := (&inlookup.Cache{Resolver: r}).Preload(ctx, people(100_000))
		if !errors.Is(err, context.Canceled) || len(r.batches) > 2 || n > 1000 || len(r.alone) > 0 {
			t.Errorf("%d, %v, %d batches, %d alone", n, err, len(r.batches), len(r.alone))
		}
	}
}

// A sleeper is a BatchResolver that answers no batch before its context ends.
type sleeper struct{ crowd }

func (s *sleeper) ResolveMany(ctx context.Context, _ []inlookup.Query) ([]inlookup.Answer, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestPreloadBatchHasATimeLimit: the one of a question. Then it is asked one by one.
func TestPreloadBatchHasATimeLimit(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r := new(sleeper)
			cache := &inlookup.Cache{Resolver: r, LoadTimeout: timeout}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			start := time.Now()
			n, err := cache.Preload(ctx, people(3))
			took := time.Since(start)
			want := cmp.Or(timeout, 2800*time.Millisecond)
			if n != 3 || err != nil || took != want || len(r.alone) != 3 {
				t.Errorf("%d after %v, %v; alone %d", n, took, err, len(r.alone))
			}
		})
	}
}
