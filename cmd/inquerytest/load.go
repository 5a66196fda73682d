package main

// The load tool: many clients ask as fast as they get answers, and it prints
// what they saw. It must not slow down what it measures. So a client shares
// only the resolver and one counter with the others, and its memory does not
// grow with the number of questions.

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlookup/inlookup"
)

const (
	maxClients   = 4096
	maxUsers     = 1 << 30 // the square of it fits an int64: see load.query
	maxQuestions = 1<<31 - 1
)

func (o *options) checkLoad() error {
	switch {
	case o.n < 1 || o.n > maxQuestions:
		return fmt.Errorf("-n %d: want 1 to %d questions", o.n, maxQuestions)
	case o.p < 1 || o.p > maxClients:
		return fmt.Errorf("-p %d: want 1 to %d clients", o.p, maxClients)
	case o.u < 1 || o.u > maxUsers:
		return fmt.Errorf("-u %d: want 1 to %d users", o.u, maxUsers)
	case strings.Contains(o.query.Email, "%d"):
		return nil
	case o.given["u"]:
		return fmt.Errorf("-u %d counts through nothing: the address needs a %%d, "+
			"as in user%%d@example.com", o.u)
	}
	o.u = 1 // one address, asked about again and again
	return nil
}

// A load is one run of the tool.
type load struct {
	from       source
	question   inlookup.Query
	head, tail string // the address before and after its %d
	numbered   bool
	n          int64 // questions
	users      int64
	step       int64        // from one user's number to the next one's
	next       atomic.Int64 // the number of the next question
}

// load asks o.n questions and prints how that went.
func (p *program) load(ctx context.Context, o *options, from source) error {
	users := int64(o.u)
	l := &load{from: from, question: o.query, n: int64(o.n), users: users, step: stride(users)}
	l.head, l.tail, l.numbered = strings.Cut(o.query.Email, "%d")
	progress := p.showProgress(l.progress())
	start := time.Now()
	tallies := make([]tally, o.p)
	var clients sync.WaitGroup
	for i := range tallies {
		clients.Go(func() { l.client(ctx, &tallies[i]) })
	}
	clients.Wait()
	took := time.Since(start)
	progress.stop()
	total := &tallies[0]
	for i := range tallies[1:] {
		total.merge(&tallies[1+i])
	}
	p.report(l, o.p, total, took)
	if total.firstError != nil {
		first := advise(total.firstError, o.query, from)
		return fmt.Errorf("%w, the first because: %w", errFailures, first)
	}
	return nil
}

// client asks until all is asked or ctx is done. It still waits for its last
// answer, as long as a question may take: cutting it short would count as a
// failure.
func (l *load) client(ctx context.Context, t *tally) {
	for ctx.Err() == nil {
		i := l.next.Add(1) - 1
		if i >= l.n {
			return
		}
		q := l.query(i)
		start := time.Now()
		a, err := l.from.Resolve(context.Background(), q)
		t.latency.add(time.Since(start))
		if err == nil {
			err = verdict(q, a)
		}
		t.count(err)
	}
}

// query returns question i. In any run of as many questions as there are users
// each user is asked about once: step and their number have no common divisor.
func (l *load) query(i int64) inlookup.Query {
	q := l.question
	if l.numbered {
		q.Email = l.head + strconv.FormatInt(i%l.users*l.step%l.users, 10) + l.tail
	}
	return q
}

// stride returns a number without a common divisor with users, near their
// golden section. So questions that follow each other are about users far
// apart, as in real use, and every run asks the same.
func stride(users int64) int64 {
	for s := users * 618 / 1000; s > 1; s-- {
		a, b := users, s
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return s
		}
	}
	return 1
}

// verdict decodes an answer, as any client would. ErrNotFound means that the
// address is absent.
func verdict(q inlookup.Query, a inlookup.Answer) (err error) {
	switch q.Type {
	case inlookup.TypeUser:
		var s inlookup.Status
		if s, err = a.Status(); s == inlookup.StatusAbsent {
			err = inlookup.ErrNotFound
		}
	case inlookup.TypeRelay:
		_, err = a.Relay()
	case inlookup.TypePasswd:
		_, err = a.Passwd()
	case inlookup.TypeAlias:
		var lines []string
		if lines, err = a.Alias(); err == nil && lines == nil {
			err = inlookup.ErrNotFound
		}
	case inlookup.TypeLimit:
		_, err = a.Limits()
	default:
		_, err = a.Text()
	}
	return err
}

// kinds of failure; an error is of the first one that fits it.
var kinds = [...]struct {
	name string
	fits func(error) bool
}{
	{"absent", func(err error) bool { return errors.Is(err, inlookup.ErrNotFound) }},
	{"timeout", isTimeout},
	{"too long", func(err error) bool { return errors.Is(err, inlookup.ErrTooLong) }},
	{"invalid", func(err error) bool { return errors.Is(err, inlookup.ErrInvalid) }},
	{"unavailable", func(err error) bool { return errors.Is(err, inlookup.ErrUnavailable) }},
	{"other", func(error) bool { return true }},
}

// A tally is what one client saw.
type tally struct {
	latency    histogram
	kinds      [len(kinds)]int64
	firstError error // other than an absent address
}

func (t *tally) count(err error) {
	for i := 0; err != nil; i++ {
		if kinds[i].fits(err) { // the last one does
			t.kinds[i]++
			if i > 0 && t.firstError == nil {
				t.firstError = err
			}
			return
		}
	}
}

func (t *tally) merge(o *tally) {
	t.latency.merge(&o.latency)
	for i, n := range o.kinds {
		t.kinds[i] += n
	}
	if t.firstError == nil {
		t.firstError = o.firstError
	}
}

// A histogram counts times in buckets. Each power of two has 32 of them, so
// times are exact below 64 ns, and within 3 % above. Adding a time costs a few
// nanoseconds and no memory, however long the run.
type histogram struct {
	counts [buckets]int64
	n      int64
	max    time.Duration
}

const (
	fine     = 5 // bits: each power of two has 1<<fine buckets
	longest  = 36
	buckets  = (longest - fine + 1) << fine
	tooLarge = 1<<longest - 1 // 69 s: a longer time counts as this
)

func bucket(d time.Duration) int {
	d = min(d, tooLarge)
	shift := max(0, bits.Len64(uint64(d))-1-fine)
	return shift<<fine + int(d>>shift)
}

// upper returns the longest time that falls into bucket i.
func upper(i int) time.Duration {
	shift := max(0, i>>fine-1)
	return time.Duration(i-shift<<fine+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// within returns the time in which that part of the questions was answered.
func (h *histogram) within(part float64) time.Duration {
	left := int64(part * float64(h.n))
	for i, n := range h.counts {
		if left -= n; left < 0 {
			return min(upper(i), h.max)
		}
	}
	return h.max
}

// report prints what all clients saw.
func (p *program) report(l *load, clients int, t *tally, took time.Duration) {
	h := &t.latency
	row := func(label, format string, args ...any) {
		fmt.Fprintf(p.out, "%-12s "+format+"\n", append([]any{label}, args...)...)
	}
	row("queries/s", "%.0f", float64(h.n)/took.Seconds())
	row("asked", "%d of %d, %v, in %v", h.n, l.n, l.question.Type, short(took))
	row("asked of", "%s", l.from.name)
	row("clients", "%d", clients)
	row("users", "%d", l.users)
	for i, kind := range kinds {
		row(kind.name, "%d", t.kinds[i])
	}
	for _, percent := range []float64{50, 90, 99, 99.9} {
		row(fmt.Sprintf("p%v", percent), "%v", short(h.within(percent/100)))
	}
	row("max", "%v", short(h.max))
	p.bars(h)
}

// bars prints a line for every power of two between the quickest answer and
// the slowest one.
func (p *program) bars(h *histogram) {
	const width = 50
	var rows [longest]int64
	first, last, most := longest, 0, int64(1)
	for i, n := range h.counts {
		if n > 0 {
			row := bits.Len64(uint64(upper(i))) - 1
			rows[row] += n
			first, last, most = min(first, row), max(last, row), max(most, rows[row])
		}
	}
	for row := first; row <= last; row++ {
		n := rows[row]
		percent := 100 * float64(n) / float64(h.n)
		bar := strings.Repeat("#", int((n*width+most-1)/most)) // rounded up: few is not none
		line := fmt.Sprintf("< %-9v %10d  %5.1f %%  %s", short(2<<row), n, percent, bar)
		fmt.Fprintln(p.out, strings.TrimRight(line, " "))
	}
}

// short returns d with three digits.
func short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// progress returns a function that says how far the clients are, and how fast
// they were since it was last called.
func (l *load) progress() func() string {
	var rate meter
	return func() string {
		n := min(l.next.Load(), l.n)
		return fmt.Sprintf("%d of %d, %d queries/s", n, l.n, rate.since(n))
	}
}
