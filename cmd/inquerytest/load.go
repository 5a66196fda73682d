package main

// The load tool: many clients ask as fast as they get answers. It must not slow
// down what it measures. So clients share only the resolver and one counter,
// and their memory does not grow with the number of questions.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlookup/inlookup"
)

const (
	maxClients   = 4096
	maxUsers     = 1 << 30 // its square fits an int64: see load.query
	maxQuestions = 1<<31 - 1
)

func (o *options) checkLoad() error {
	switch {
	case o.questions < 1 || o.questions > maxQuestions:
		return fmt.Errorf("-n %d: want 1 to %d questions", o.questions, maxQuestions)
	case o.clients < 1 || o.clients > maxClients:
		return fmt.Errorf("-p %d: want 1 to %d clients", o.clients, maxClients)
	case o.users < 1 || o.users > maxUsers:
		return fmt.Errorf("-u %d: want 1 to %d users", o.users, maxUsers)
	case strings.Contains(o.query.Email, "%d"):
		return nil
	case o.given["u"]:
		return fmt.Errorf("-u %d has no effect: the address needs a %%d, "+
			"as in user%%d@example.com", o.users)
	}
	o.users = 1
	return nil
}

// A load is one run of the tool.
type load struct {
	from       source
	question   inlookup.Query
	head, tail string // the address before and after its %d
	numbered   bool   // it has a %d
	n          int64  // questions
	users      int64
	step       int64        // between the numbers of successive users
	next       atomic.Int64 // the number of the next question
}

// load asks the questions and prints the report.
func (p *program) load(ctx context.Context, o *options, from source) error {
	users := int64(o.users)
	l := &load{
		from:     from,
		question: o.query,
		n:        int64(o.questions),
		users:    users,
		step:     stride(users),
	}
	l.head, l.tail, l.numbered = strings.Cut(o.query.Email, "%d")
	progress := p.showProgress(l.progress())
	start := time.Now()
	tallies := make([]tally, o.clients)
	var clients sync.WaitGroup
	for i := range tallies {
		clients.Go(func() { l.client(ctx, &tallies[i]) })
	}
	clients.Wait()
	took := time.Since(start)
	progress.stop()
	total := new(tally)
	for i := range tallies {
		total.merge(&tallies[i])
	}
	p.report(l, o.clients, total, took)
	if total.firstError != nil {
		first := from.advise(total.firstError, o.query)
		return fmt.Errorf("%w, the first because: %w", errFailures, first)
	}
	return nil
}

// client asks until all questions are asked or ctx is done. It still waits for
// its last answer, because an interrupted question would count as a failure.
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

// query returns question i. Any l.users questions in a row ask about each user
// once, because step and users have no common divisor.
func (l *load) query(i int64) inlookup.Query {
	q := l.question
	if l.numbered {
		user := i % l.users * l.step % l.users
		q.Email = l.head + strconv.FormatInt(user, 10) + l.tail
	}
	return q
}

// stride returns a number near 0.618 times users, without a common divisor with
// users. So successive questions are about users far apart, as in practice, and
// every run asks the same ones.
func stride(users int64) int64 {
	for step := users * 618 / 1000; step > 1; step-- {
		if divisor(users, step) == 1 {
			return step
		}
	}
	return 1
}

// divisor returns the greatest common divisor.
func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// verdict decodes an answer. ErrNotFound means that the address is absent.
func verdict(q inlookup.Query, a inlookup.Answer) (err error) {
	switch q.Type {
	case inlookup.TypeUser:
		var s inlookup.Status
		s, err = a.Status()
		if s == inlookup.StatusAbsent {
			err = inlookup.ErrNotFound
		}
	case inlookup.TypeRelay:
		_, err = a.Relay()
	case inlookup.TypePasswd:
		_, err = a.Passwd()
	case inlookup.TypeAlias:
		var lines []string
		lines, err = a.Alias()
		if err == nil && lines == nil {
			err = inlookup.ErrNotFound
		}
	case inlookup.TypeLimit:
		_, err = a.Limits()
	default:
		_, err = a.Text()
	}
	return err
}

// kinds of failure. An error is of the first kind that fits.
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
		if kinds[i].fits(err) { // the last kind fits any error
			t.kinds[i]++
			if i > 0 && t.firstError == nil {
				t.firstError = err
			}
			return
		}
	}
}

func (t *tally) merge(other *tally) {
	t.latency.merge(&other.latency)
	for i, n := range other.kinds {
		t.kinds[i] += n
	}
	t.firstError = cmp.Or(t.firstError, other.firstError)
}

// A histogram counts times in buckets, 32 for each power of two. So times are
// exact below 64 ns, and within 3 % above. Adding a time takes a few
// nanoseconds and no memory.
type histogram struct {
	counts [buckets]int64
	n      int64
	max    time.Duration
}

const (
	fine     = 5 // bits: each power of two has 1<<fine buckets
	longest  = 36
	buckets  = (longest - fine + 1) << fine
	tooLarge = 1<<longest - 1 // 69 s; a longer time counts as this
)

// bucket returns the number of the bucket for d.
func bucket(d time.Duration) int {
	d = min(d, tooLarge)
	shift := max(0, bits.Len64(uint64(d))-1-fine)
	return shift<<fine + int(d>>shift)
}

// upper returns the longest time in bucket i.
func upper(i int) time.Duration {
	shift := max(0, i>>fine-1)
	return time.Duration(i-shift<<fine+1)<<shift - 1
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(d)]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// within returns the time in which this part of the questions was answered.
func (h *histogram) within(part float64) time.Duration {
	left := int64(part * float64(h.n))
	for i, n := range h.counts {
		left -= n
		if left < 0 {
			return min(upper(i), h.max)
		}
	}
	return h.max
}

// report prints the figures of all clients.
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

// bars prints a line for every power of two between the quickest answer and the
// slowest one.
func (p *program) bars(h *histogram) {
	const width = 50
	var rows [longest]int64
	first, last := longest, 0
	for i, n := range h.counts {
		if n > 0 {
			row := bits.Len64(uint64(upper(i))) - 1
			rows[row] += n
			first = min(first, row)
			last = max(last, row)
		}
	}
	most := max(1, slices.Max(rows[:]))
	for row := first; row <= last; row++ {
		n := rows[row]
		percent := 100 * float64(n) / float64(h.n)
		bar := strings.Repeat("#", int((n*width+most-1)/most)) // rounded up, so that 1 shows
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

// progress returns a function that describes how many questions are asked, and
// how fast since its last call.
func (l *load) progress() func() string {
	var rate meter
	return func() string {
		n := min(l.next.Load(), l.n)
		return fmt.Sprintf("%d of %d, %d queries/s", n, l.n, rate.since(n))
	}
}
