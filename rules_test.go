package inlookup_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inlookup/inlookup"
)

var sevenTypes = []inlookup.Type{
	inlookup.TypeUser, inlookup.TypeRelay, inlookup.TypePasswd, inlookup.TypeHost,
	inlookup.TypeAlias, inlookup.TypeLimit, inlookup.TypeDomain,
}

// A counter is a Resolver that counts its questions. It says what answer says, or repeats the
// address.
type counter struct {
	asked  atomic.Int64
	answer atomic.Pointer[func(inlookup.Query) (inlookup.Answer, error)]
}

func (c *counter) say(answer func(inlookup.Query) (inlookup.Answer, error)) { c.answer.Store(&answer) }

func (c *counter) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	c.asked.Add(1)
	if answer := c.answer.Load(); answer != nil {
		return (*answer)(q)
	}
	return inlookup.NewData(q.Type, q.Email), nil
}

func absent(q inlookup.Query) (inlookup.Answer, error) { return inlookup.Absent(q), nil }

func down(inlookup.Query) (inlookup.Answer, error) {
	return inlookup.Answer{}, inlookup.ErrUnavailable
}

// inquire asks r with a context that never ends.
func inquire(r inlookup.Resolver, t inlookup.Type, email string) (inlookup.Answer, error) {
	return r.Resolve(context.Background(), inlookup.Query{Type: t, Email: email, IP: "192.0.2.1"})
}

// TestContextIsLookedAtFirst: with a context that is done nobody is asked, and the error tells all
// there is to know.
func TestContextIsLookedAtFirst(t *testing.T) {
	reason := errors.New("a reason of the program's own")
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	caused, cause := context.WithCancelCause(context.Background())
	cause(reason)
	late, cancel := context.WithTimeout(context.Background(), -1)
	defer cancel()
	r := new(counter)
	cache := &inlookup.Cache{Resolver: r}
	if _, err := inquire(cache, inlookup.TypeUser, "known@example.com"); err != nil {
		t.Fatal(err)
	}
	read := 0
	resolvers := map[string]inlookup.Resolver{
		"a cache":            cache,
		"a cache of a cache": &inlookup.Cache{Resolver: cache},
		"a directory": inlookup.ResolverFunc(
			func(ctx context.Context, q inlookup.Query) (inlookup.Answer, error) {
				_, err := inlookup.Directory{Resolver: r}.Host(ctx, q.Email)
				return inlookup.Answer{}, err
			}),
		"MySQL": &inlookup.MySQL{Getenv: func(string) string { read++; return "" }},
	}
	for _, c := range []struct {
		ctx  context.Context
		want []error
	}{
		{canceled, []error{context.Canceled}},
		{caused, []error{context.Canceled, reason}},
		{late, []error{context.DeadlineExceeded}},
	} {
		for name, resolver := range resolvers {
			for _, typ := range sevenTypes {
				for _, email := range []string{"known@example.com", "user@example.com"} {
					q := inlookup.Query{Type: typ, Email: email, IP: "192.0.2.1"}
					a, err := resolver.Resolve(c.ctx, q)
					if a.Wire() != "" || !errors.Is(err, inlookup.ErrUnavailable) {
						t.Errorf("%s, %v: %v, %v", name, typ, a, err)
					}
					for _, want := range c.want {
						if !errors.Is(err, want) {
							t.Errorf("%s, %v: %v does not wrap %v", name, typ, err, want)
						}
					}
				}
			}
		}
	}
	if n := r.asked.Load(); n != 1 || read > 0 {
		t.Errorf("%d questions, want the first alone; %d variables read", n, read)
	}
}

// TestResolverThatEnds: whatever ends a Resolver's call, the question is answered, and the next one
// is asked.
func TestResolverThatEnds(t *testing.T) {
	for what, end := range map[string]func(){
		"a panic":                   func() { panic("of the Resolver") },
		"a panic with nil":          func() { panic(nil) },
		"a panic with not found":    func() { panic(inlookup.ErrNotFound) },
		"the end of the goroutine":  runtime.Goexit,
		"a fault that Go discovers": func() { _ = make([]int, 0)[len(os.Args):][0] },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := new(counter)
			cache := &inlookup.Cache{Resolver: r}
			r.say(func(inlookup.Query) (inlookup.Answer, error) {
				time.Sleep(time.Second)
				end()
				return inlookup.NewAnswer(0), nil
			})
			var clients sync.WaitGroup
			for range 3 {
				clients.Go(func() {
					a, err := inquire(cache, inlookup.TypeUser, "user@example.com")
					if a.Wire() != "" || !errors.Is(err, inlookup.ErrUnavailable) {
						t.Errorf("%s: %v, %v", what, a, err)
					}
				})
			}
			clients.Wait()
			r.say(absent)
			a, err := inquire(cache, inlookup.TypeUser, "user@example.com")
			if s, _ := a.Status(); s != inlookup.StatusAbsent || err != nil {
				t.Errorf("after %s: %v, %v", what, a, err)
			}
			if s := cache.Stats(); s.Waiting != 0 || r.asked.Load() != 2 {
				t.Errorf("after %s: %+v, %d questions", what, s, r.asked.Load())
			}
		})
	}
}

// TestNothingIsAnAnswer: "no alias", "no alias lines" and "no limits" are answers, which an outage
// does not turn into errors. Only what bounces mail or refuses a login lives for a short time.
func TestNothingIsAnAnswer(t *testing.T) {
	for _, typ := range sevenTypes {
		if typ == inlookup.TypeRelay {
			continue
		}
		short := typ == inlookup.TypeUser || typ == inlookup.TypePasswd || typ == inlookup.TypeHost
		synctest.Test(t, func(t *testing.T) {
			r := new(counter)
			r.say(absent)
			cache := &inlookup.Cache{Resolver: r}
			q := inlookup.Query{Type: typ, Email: "example.com"}
			first, err := cache.Resolve(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := cache.Explain(q); !ok || e.Absent != short {
				t.Errorf("%v: %+v", typ, e)
			}
			r.say(down)
			for _, age := range []time.Duration{20 * time.Second, 10 * time.Minute, 23 * time.Hour} {
				time.Sleep(age)
				a, err := cache.Resolve(context.Background(), q)
				if short && !errors.Is(err, inlookup.ErrUnavailable) {
					t.Errorf("%v: %v, %v after another %v of an outage", typ, a, err, age)
				}
				if !short && (!a.Equal(first) || err != nil) {
					t.Errorf("%v: %v, %v after another %v of an outage", typ, a, err, age)
				}
			}
		})
	}
}

// TestAbsentInAFullCache: in a cache full of users, too, a name that does not exist is asked for
// once, and drives out nobody.
func TestAbsentInAFullCache(t *testing.T) {
	for _, cache := range []*inlookup.Cache{{MaxEntries: 2}, {MaxEntries: 100}, {Size: 20_000}} {
		r := new(counter)
		cache.Resolver = r
		for _, email := range people(1000) {
			inquire(cache, inlookup.TypeHost, email)
		}
		users := cache.Stats().Present
		r.say(absent)
		before := r.asked.Load()
		for range 100 {
			inquire(cache, inlookup.TypeHost, "nobody@example.com")
		}
		s := cache.Stats()
		if n := r.asked.Load() - before; n != 1 || s.Present != users || s.Absent.Entries != 1 {
			t.Errorf("100 equal questions cost %d; %+v, before %+v", n, s, users)
		}
		if cache.MaxEntries > 0 && users.Entries+s.Absent.Entries > cache.MaxEntries {
			t.Errorf("%+v", s)
		}
	}
}

// TestFlushIsOneStep: nobody sees a flush half done.
func TestFlushIsOneStep(t *testing.T) {
	const users = 20_000
	cache := &inlookup.Cache{Resolver: new(counter)}
	emails := people(users)
	for range 3 {
		for _, email := range emails {
			inquire(cache, inlookup.TypeHost, email)
		}
		var done atomic.Bool
		var watchers sync.WaitGroup
		for range 2 {
			watchers.Go(func() {
				for !done.Load() {
					if n := cache.Stats().Present.Entries; n != users && n != 0 {
						t.Errorf("%d users are there", n)
						return
					}
				}
			})
		}
		if n := cache.Flush("example.com"); n != users {
			t.Errorf("%d flushed", n)
		}
		done.Store(true)
		watchers.Wait()
	}
}

// TestResolverThatIgnoresItsContext leaves a bounded number of goroutines, and a count of them.
func TestResolverThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4096
		r := new(counter)
		cache := &inlookup.Cache{Resolver: r}
		inquire(cache, inlookup.TypeHost, "known@example.com")
		inquire(cache, inlookup.TypeHost, "expired@example.com")
		time.Sleep(9 * time.Minute)
		inquire(cache, inlookup.TypePasswd, "known@example.com")
		time.Sleep(time.Minute)
		release := make(chan struct{})
		r.say(func(q inlookup.Query) (inlookup.Answer, error) {
			<-release
			return inlookup.NewData(q.Type, "late"), nil
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var clients sync.WaitGroup
		for i := range most + 1000 {
			clients.Go(func() {
				q := inlookup.Query{Type: inlookup.TypeHost, Email: fmt.Sprint(i, "@example.com")}
				a, err := cache.Resolve(ctx, q)
				if a.Wire() != "" || !errors.Is(err, inlookup.ErrUnavailable) {
					t.Errorf("%v, %v", a, err)
				}
			})
		}
		clients.Wait()
		if s := cache.Stats(); s.Waiting != most || s.Busy != 1000 || r.asked.Load() != 3+most {
			t.Errorf("%+v, %d questions", s, r.asked.Load())
		}
		if _, err := inquire(cache, inlookup.TypePasswd, "known@example.com"); err != nil {
			t.Errorf("a hit: %v", err)
		}
		if a, err := inquire(cache, inlookup.TypeHost, "expired@example.com"); a.Data() != "expired@example.com" {
			t.Errorf("an expired answer: %v, %v", a, err)
		}
		close(release)
		synctest.Wait()
		if a, err := inquire(cache, inlookup.TypeHost, "new@example.com"); a.Data() != "late" || err != nil {
			t.Errorf("when the Resolver is back: %v, %v", a, err)
		}
		if s := cache.Stats(); s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestQuestionsShareNoAnswer asks for all short addresses of some letters. Each gets its own answer
// from memory, and the cache and the Resolver agree about which of them are the same.
func TestQuestionsShareNoAnswer(t *testing.T) {
	letters := []string{"d", "D", "@", "%", ":", "\x00", "\x01", "\x06", "\xff", "É", "é"}
	emails := []string{""}
	for begin, length := 0, 0; length < 4; length++ {
		end := len(emails)
		for _, email := range emails[begin:end] {
			for _, letter := range letters {
				emails = append(emails, email+letter)
			}
		}
		begin = end
	}
	emails = append(emails, "b@d\x00a", "a\x00b@d", "\xff@É", "\xff@é", "a@b\x00\x06c", "\xff%\xc3\x89@É")
	for _, typ := range sevenTypes {
		cache := &inlookup.Cache{Resolver: new(counter), DefaultDomain: "D"}
		for range 2 {
			for _, email := range emails {
				local, domain := inlookup.Query{Type: inlookup.TypeDomain, Email: email}.Split("")
				a, err := inquire(cache, typ, email)
				if want := local + domain; a.Data() != want || err != nil {
					t.Fatalf("%v of %q: the answer for %q, %v, want %q", typ, email, a.Data(), err, want)
				}
			}
		}
		s := cache.Stats()
		if typ == inlookup.TypeRelay {
			continue
		}
		if s.Hits < uint64(len(emails)) || s.Present.Entries != int(s.Misses) {
			t.Errorf("%v: %+v of %d addresses", typ, s, len(emails))
		}
	}
}

// TestFlushFindsEachSpelling: a flush forgets an address in whatever case, text or not.
func TestFlushFindsEachSpelling(t *testing.T) {
	for _, email := range []string{"USER@Example.com", "É@É.example", "\xff@É", "\xffA%É", "É@\xff", "@D"} {
		cache := &inlookup.Cache{Resolver: new(counter)}
		inquire(cache, inlookup.TypeHost, email)
		if n := cache.Flush(email); n != 1 {
			t.Errorf("%q: %d flushed", email, n)
		}
	}
}

// TestAnswersThatNeedAnError: no answer, one that says "error", or one without the data for which a
// client would wait, is an error, and is not kept.
func TestAnswersThatNeedAnError(t *testing.T) {
	for _, typ := range sevenTypes {
		answers := []inlookup.Answer{{}, inlookup.NewAnswer(-1), inlookup.WireAnswer("\x00")}
		if typ >= inlookup.TypePasswd {
			long := inlookup.NewAnswer(5000).Wire() + strings.Repeat("x", 5000)
			answers = append(answers, inlookup.NewAnswer(1), inlookup.WireAnswer(long),
				inlookup.WireAnswer(inlookup.NewAnswer(5).Wire()+"1234"))
		}
		if typ == inlookup.TypePasswd {
			answers = append(answers, inlookup.NewAnswer(0))
		}
		for _, answer := range answers {
			r := new(counter)
			r.say(func(inlookup.Query) (inlookup.Answer, error) { return answer, nil })
			cache := &inlookup.Cache{Resolver: r}
			for range 2 {
				_, err := inquire(cache, typ, "user@example.com")
				if !errors.Is(err, inlookup.ErrInvalid) || errors.Is(err, inlookup.ErrNotFound) {
					t.Errorf("%v, %v: %v", typ, answer, err)
				}
			}
			if r.asked.Load() != 2 {
				t.Errorf("%v, %v is kept", typ, answer)
			}
		}
	}
	r := inlookup.ResolverFunc(func(context.Context, inlookup.Query) (inlookup.Answer, error) {
		return inlookup.Answer{}, nil
	})
	if _, err := (inlookup.Directory{Resolver: r}).Alias(context.Background(), "u@d"); !errors.Is(err, inlookup.ErrInvalid) {
		t.Error(err)
	}
}

// TestEntryLargerThanTheCache: it is not kept, and drives out no other.
func TestEntryLargerThanTheCache(t *testing.T) {
	for _, answer := range []inlookup.Answer{
		inlookup.NewAnswer(int(inlookup.StatusActive)), inlookup.NewAnswer(int(inlookup.StatusAbsent)),
	} {
		r := new(counter)
		r.say(func(inlookup.Query) (inlookup.Answer, error) { return answer, nil })
		cache := &inlookup.Cache{Resolver: r, Size: 1 << 16}
		for _, email := range []string{"user@d", strings.Repeat("x", 1<<16) + "@d", "user@d"} {
			if _, err := inquire(cache, inlookup.TypeUser, email); err != nil {
				t.Error(err)
			}
		}
		if n := r.asked.Load(); n != 2 {
			t.Errorf("%v: %d questions", answer, n)
		}
	}
}

// TestNewPasswdRefuses: an entry that would be read as another is an answer that says "error".
func TestNewPasswdRefuses(t *testing.T) {
	good := inlookup.Passwd{Email: "user@example.com", Passwd: inlookup.NewSecret("hash"), UID: 1,
		Gecos: "A: User", Dir: "/home/user", Shell: "5000000S"}
	secret := inlookup.NewSecret
	tooLarge := int64(math.MaxUint32) + 1
	if strconv.IntSize < 64 {
		tooLarge = -1 // no int is too large there
	}
	for what, spoil := range map[string]func(*inlookup.Passwd){
		"a colon in Email":       func(p *inlookup.Passwd) { p.Email = "a:b@example.com" },
		"a colon in Passwd":      func(p *inlookup.Passwd) { p.Passwd = secret("a:b") },
		"two colons in Passwd":   func(p *inlookup.Passwd) { p.Passwd = secret("x:1:2") },
		"one colon in SCRAM":     func(p *inlookup.Passwd) { p.Passwd = secret("{SCRAM-SHA-1}1:2") },
		"a number in SCRAM":      func(p *inlookup.Passwd) { p.Passwd = secret("{SCRAM-SHA-1}1:2:3") },
		"a colon in Dir":         func(p *inlookup.Passwd) { p.Dir = "/home:/user" },
		"a colon in Shell":       func(p *inlookup.Passwd) { p.Shell = "5000000S:0" },
		"a colon alone":          func(p *inlookup.Passwd) { p.Shell = ":" },
		"a NUL in Gecos":         func(p *inlookup.Passwd) { p.Gecos = "A\x00" },
		"a NUL at the end":       func(p *inlookup.Passwd) { p.Shell = "\x00" },
		"a UID below 0":          func(p *inlookup.Passwd) { p.UID = -1 },
		"a GID below 0":          func(p *inlookup.Passwd) { p.GID = math.MinInt },
		"a UID that C cuts off":  func(p *inlookup.Passwd) { p.UID = int(tooLarge) },
		"a GID that C cuts off":  func(p *inlookup.Passwd) { p.GID = int(tooLarge) },
		"what says no such user": func(p *inlookup.Passwd) { p.Email = "No such user x@example.com" },
	} {
		p := good
		spoil(&p)
		got, err := inlookup.NewPasswd(p).Passwd()
		if !errors.Is(err, inlookup.ErrUnavailable) || got.Email != "" {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	for _, passwd := range []string{"", "hash", "{SCRAM-SHA-1}1,s,k,v:a:b,hash", "{SCRAM-SHA-1}1"} {
		good.Passwd = secret(passwd)
		got, err := inlookup.NewPasswd(good).Passwd()
		if err != nil || got.Passwd.Reveal() != passwd || got.Gecos != good.Gecos {
			t.Errorf("%v with %q, %v", got, got.Passwd.Reveal(), err)
		}
	}
	good.UID = int(min(math.MaxUint32, int64(math.MaxInt)))
	if got, err := inlookup.NewPasswd(good).Passwd(); err != nil || got.UID != good.UID {
		t.Errorf("the largest UID: %v, %v", got, err)
	}
}

// TestNewAnswerOfAnyCode: a code that the wire cannot carry does not become another one.
func TestNewAnswerOfAnyCode(t *testing.T) {
	for code, want := range map[int64]int{
		0: 0, 1: 1, -1: -1, math.MaxInt32: math.MaxInt32, math.MinInt32: math.MinInt32,
		1 << 32: -1, 1<<32 + 1: -1, math.MaxInt32 + 1: -1, math.MinInt32 - 1: -1, math.MinInt64: -1,
	} {
		if int64(int(code)) != code {
			continue // no int on this machine
		}
		if got := inlookup.NewAnswer(int(code)).Code(); got != want {
			t.Errorf("%d became %d, want %d", code, got, want)
		}
	}
}

// TestUnknownType: no Resolver is asked a type that no server knows.
func TestUnknownType(t *testing.T) {
	r := new(counter)
	cache := &inlookup.Cache{Resolver: r}
	for _, typ := range []inlookup.Type{0, 8, 'T', 255} {
		a, err := inquire(cache, typ, "user@example.com")
		if a.Wire() != "" || !errors.Is(err, inlookup.ErrInvalid) {
			t.Errorf("%v: %v, %v", typ, a, err)
		}
	}
	if n := r.asked.Load(); n > 0 {
		t.Errorf("the Resolver was asked %d questions", n)
	}
}

// TestErrorsSayTheKindFirst: as all other errors of the package do.
func TestErrorsSayTheKindFirst(t *testing.T) {
	_, err := inquire(new(inlookup.Cache), inlookup.TypeUser, "user@example.com")
	if !errors.Is(err, inlookup.ErrInvalid) || !strings.HasPrefix(err.Error(), "invalid message: ") {
		t.Errorf("without a Resolver: %v", err)
	}
	says := inlookup.ResolverFunc(func(context.Context, inlookup.Query) (inlookup.Answer, error) {
		return inlookup.NewAnswer(-1), nil
	})
	_, err = inquire(&inlookup.Cache{Resolver: says}, inlookup.TypeUser, "user@example.com")
	if err == nil || !strings.Contains(err.Error(), "or one that says error") {
		t.Errorf("an answer that says error, without one: %v", err)
	}
}

// TestErrorsAreShort: an error quotes no more than some hundred bytes of an address, and says
// nothing twice.
func TestErrorsAreShort(t *testing.T) {
	client := &inlookup.Client{Infifo: "/nowhere/infifo", Getenv: func(name string) string {
		return map[string]string{"FIFOTMPDIR": t.TempDir()}[name]
	}}
	entry := inlookup.NewPasswd(inlookup.Passwd{Email: strings.Repeat("\x01", 3000) + "@example.com"})
	other := inlookup.Directory{Resolver: inlookup.ResolverFunc(
		func(context.Context, inlookup.Query) (inlookup.Answer, error) { return entry, nil })}
	nuls := strings.Repeat("\x00", 5000)
	_, err1 := inquire(client, inlookup.TypeUser, nuls)
	_, err2 := client.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeRelay, Email: "u@d", IP: nuls})
	_, err3 := other.Passwd(context.Background(), nuls)
	_, err4 := client.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeRelay, Email: nuls, IP: ""})
	for _, err := range []error{err1, err2, err3, err4} {
		if err == nil || len(err.Error()) > 1000 {
			t.Errorf("%d bytes: %.200v", len(fmt.Sprint(err)), err)
		}
	}
	_, err := inquire(client, 0, "user@example.com")
	if !errors.Is(err, inlookup.ErrInvalid) || strings.Count(err.Error(), "unknown type") != 1 {
		t.Error(err)
	}
	_, err = client.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeRelay, Email: "u@d"})
	if !errors.Is(err, inlookup.ErrInvalid) || strings.Count(err.Error(), "Relay Query") != 1 {
		t.Error(err)
	}
	if text := fmt.Sprintf("%+v", inlookup.Limits{}); strings.Contains(text, "_:") {
		t.Error(text)
	}
}

// TestPreloadWithoutResolver says so.
func TestPreloadWithoutResolver(t *testing.T) {
	n, err := new(inlookup.Cache).Preload(context.Background(), people(1))
	if n != 0 || !errors.Is(err, inlookup.ErrInvalid) {
		t.Errorf("%d, %v", n, err)
	}
}
