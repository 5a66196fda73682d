package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// fields returns what the report says, by label.
func fields(stdout string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(stdout) {
		if len(line) > 13 && line[0] != '<' {
			m[strings.TrimSpace(line[:12])] = strings.TrimSpace(line[12:])
		}
	}
	return m
}

func TestLoad(t *testing.T) {
	var mu sync.Mutex
	asked := make(map[string]int)
	s := setting{mysql: fake(func(q inlookup.Query) (inlookup.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		asked[q.Email]++
		if q.Email == "user7@example.com" {
			return inlookup.NewData(q.Type, "PWSTRUCT=No such user "+q.Email), nil
		}
		return inlookup.NewData(q.Type, "PWSTRUCT="+q.Email+":secret:1:0:g:/d:s:0"), nil
	})}
	args := strings.Fields("-n 1000 -p 7 -u 50 -q 3 user%d@example.com")
	status, stdout, stderr := s.run(t, args...)
	if status != exitOK || stderr != "" {
		t.Errorf("exit %d, stderr %q", status, stderr)
	}
	for i := range 50 {
		if n := asked[fmt.Sprintf("user%d@example.com", i)]; n != 20 {
			t.Errorf("user%d was asked about %d times, want 20", i, n)
		}
	}
	if len(asked) != 50 {
		t.Errorf("%d users asked about", len(asked))
	}
	got := fields(stdout)
	want := map[string]string{"absent": "20", "other": "0", "users": "50", "clients": "7"}
	for label, n := range want {
		if got[label] != n {
			t.Errorf("%s: %s, want %s", label, got[label], n)
		}
	}
	if !strings.HasPrefix(got["asked"], "1000 of 1000, Password Query, in ") {
		t.Errorf("asked: %s", got["asked"])
	}
	for _, label := range []string{
		"queries/s", "p50", "p90", "p99", "p99.9", "max",
		"timeout", "too long", "invalid", "unavailable",
	} {
		if got[label] == "" {
			t.Errorf("the report has no %s:\n%s", label, stdout)
		}
	}
	bar := regexp.MustCompile(`(?m)^< \S+ +\d+ +[\d.]+ %  #+$`)
	if !bar.MatchString(stdout) {
		t.Errorf("the report has no bars:\n%s", stdout)
	}
}

func TestLoadFailures(t *testing.T) {
	failures := []error{
		inlookup.ErrNotFound,
		fmt.Errorf("%w: %w", inlookup.ErrUnavailable, os.ErrDeadlineExceeded),
		fmt.Errorf("%w: %w", inlookup.ErrUnavailable, context.DeadlineExceeded),
		fmt.Errorf("%w: away", inlookup.ErrUnavailable),
		fmt.Errorf("%w: 5000", inlookup.ErrTooLong),
		fmt.Errorf("%w: NUL", inlookup.ErrInvalid),
		errors.New("odd"),
	}
	var mu sync.Mutex
	s := setting{mysql: fake(func(q inlookup.Query) (inlookup.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(failures) == 0 {
			return inlookup.NewAnswer(0), nil
		}
		err := failures[0]
		failures = failures[1:]
		return inlookup.Answer{}, err
	})}
	status, stdout, stderr := s.run(t, "-n", "100", "-p", "1", "-q", "1", "user@example.com")
	if status != exitNo {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "not all questions were answered, the first because: "+
		"lookup unavailable: i/o timeout")
	got := fields(stdout)
	for label, n := range map[string]string{
		"absent": "1", "timeout": "2", "unavailable": "1",
		"too long": "1", "invalid": "1", "other": "1",
	} {
		if got[label] != n {
			t.Errorf("%s: %s, want %s", label, got[label], n)
		}
	}
}

func TestLoadStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := setting{mysql: fake(func(inlookup.Query) (inlookup.Answer, error) {
		time.Sleep(time.Millisecond)
		cancel()
		return inlookup.NewAnswer(0), nil
	})}
	status, stdout, _ := s.runContext(ctx, "-n", "1000000", "-p", "4", "-q", "1", "user%d@example.com")
	if status != exitOK || !regexp.MustCompile(`asked +[1-8] of 1000000`).MatchString(stdout) {
		t.Errorf("exit %d, printed\n%s", status, stdout)
	}
}

func TestLoadOverFIFO(t *testing.T) {
	env := environment(t)
	serve(t, env, fake(func(inlookup.Query) (inlookup.Answer, error) {
		return inlookup.NewAnswer(0), nil
	}))
	args := strings.Fields("-n 500 -p 8 -i= -q 1 user%d@example.com")
	status, stdout, stderr := setting{env: env}.run(t, args...)
	if status != exitOK || stderr != "" || !strings.Contains(stdout, "asked of     the server on ") {
		t.Errorf("exit %d, stdout %s, stderr %s", status, stdout, stderr)
	}
	if left := fifos(t, env["INFIFODIR"]); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		typ    inlookup.Type
		answer inlookup.Answer
		want   error
	}{
		{inlookup.TypeUser, inlookup.NewAnswer(0), nil},
		{inlookup.TypeUser, inlookup.NewAnswer(1), inlookup.ErrNotFound},
		{inlookup.TypeUser, inlookup.NewAnswer(-1), inlookup.ErrUnavailable},
		{inlookup.TypeRelay, inlookup.NewAnswer(0), nil},
		{inlookup.TypePasswd, inlookup.NewAnswer(0), inlookup.ErrUnavailable},
		{inlookup.TypeHost, inlookup.NewAnswer(0), inlookup.ErrNotFound},
		{inlookup.TypeHost, inlookup.NewData(inlookup.TypeHost, "a:b:25"), nil},
		{inlookup.TypeAlias, inlookup.NewData(inlookup.TypeAlias, ""), inlookup.ErrNotFound},
		{inlookup.TypeAlias, inlookup.NewData(inlookup.TypeAlias, "a\n"), nil},
		{inlookup.TypeLimit, inlookup.NewAnswer(0), inlookup.ErrNotFound},
		{inlookup.TypeLimit, inlookup.NewData(inlookup.TypeLimit, "short"), inlookup.ErrInvalid},
		{inlookup.TypeDomain, inlookup.NewData(inlookup.TypeDomain, "example.com"), nil},
	} {
		if got := verdict(inlookup.Query{Type: test.typ}, test.answer); !errors.Is(got, test.want) {
			t.Errorf("%v, %q: %v, want %v", test.typ, test.answer, got, test.want)
		}
	}
}

func TestStride(t *testing.T) {
	for _, users := range []int64{1, 2, 3, 4, 6, 10, 97, 360, 1000, 1 << 16} {
		l := &load{users: users, step: stride(users), numbered: true}
		seen := make(map[string]bool)
		for i := range users {
			seen[l.query(i+users).Email] = true
		}
		if int64(len(seen)) != users {
			t.Errorf("%d users: %d asked about", users, len(seen))
		}
	}
	l := &load{users: maxUsers, step: stride(maxUsers), numbered: true}
	if e := l.query(maxQuestions - 1).Email; strings.HasPrefix(e, "-") {
		t.Errorf("overflow: user%s", e)
	}
}

func TestHistogram(t *testing.T) {
	for d := time.Duration(0); d < tooLarge; d += 1 + d/7 {
		i := bucket(d)
		if top := upper(i); top < d || top-d > d>>fine || bucket(top) != i || bucket(top+1) != i+1 {
			t.Fatalf("%d falls into bucket %d, which ends at %d", d, i, upper(i))
		}
	}
	if i := bucket(1 << 62); i != buckets-1 {
		t.Errorf("the longest time falls into bucket %d of %d", i, buckets)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var whole, part [2]histogram
	var times []time.Duration
	for i := range 10000 {
		d := time.Duration(rng.ExpFloat64() * 1e5)
		times = append(times, d)
		whole[0].add(d)
		part[i%2].add(d)
	}
	part[0].merge(&part[1])
	if part[0] != whole[0] {
		t.Error("two halves merged are not the whole")
	}
	slices.Sort(times)
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
		want := times[min(int(q*10000), 9999)]
		if got := whole[0].within(q); got < want || got > want+want>>fine {
			t.Errorf("within(%v) = %v, want %v", q, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 7: "7ns", 1234: "1.23µs", 65536: "65.5µs", 999999: "1ms", 12345678901: "12.3s",
	} {
		if got := short(d).String(); got != want {
			t.Errorf("short(%d) = %s, want %s", d, got, want)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	var t tally
	for i := 0; b.Loop(); i++ {
		t.latency.add(time.Duration(i % 100000))
	}
}
