package systemtest

// Questions with their right answers, each a line of text, and how they are asked
// of a Resolver.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// timed shows the answer to q, which must come in time.
func timed(t *testing.T, r inlookup.Resolver, q string) string {
	t.Helper()
	start := time.Now()
	got := show(t, r, q)
	if took := time.Since(start); took > inTime {
		t.Errorf("%s: %s after %v", q, got, took)
	}
	return got
}

// rightOrNone asks q, of which nothing but the answer is an answer, and reports whether it came.
func rightOrNone(t *testing.T, r inlookup.Resolver, q, want string) bool {
	t.Helper()
	got := timed(t, r, q)
	if got != want && got != "unavailable" {
		t.Errorf("%s: %s, want %s, or nothing", q, got, want)
	}
	return got == want
}

// recovers waits until all questions are answered rightly, and logs how long that took.
func recovers(t *testing.T, r inlookup.Resolver, when string, questions map[string]string) {
	t.Helper()
	start := time.Now()
	within(t, recover, when, func() bool {
		for q, want := range questions {
			if !rightOrNone(t, r, q, want) {
				return false
			}
		}
		return true
	})
	t.Logf("%s: all is well after %v", when, time.Since(start).Round(time.Millisecond))
}

// question makes one of "3 user@example.com" or "2 user@example.com 192.0.2.10".
func question(text string) (q inlookup.Query) {
	f := append(strings.SplitN(text, " ", 3), "", "")
	return inlookup.Query{Type: inlookup.Type(f[0][0] - '0'), Email: f[1], IP: f[2]}
}

// show puts an answer in few words.
func show(t *testing.T, r inlookup.Resolver, text string) string {
	t.Helper()
	value, err := decode(t, inlookup.Directory{Resolver: r}, question(text))
	switch {
	case err == inlookup.ErrNotFound:
		return "absent"
	case errors.Is(err, inlookup.ErrUnavailable):
		return "unavailable"
	case err != nil:
		return err.Error()
	}
	switch value := value.(type) {
	case inlookup.Passwd:
		return fmt.Sprint(value.Email, " ", value.Passwd.Reveal(), " ", value.GID)
	case inlookup.Limits:
		return fmt.Sprint(value.MaxPopAccounts, " of type ", value.LimitType)
	}
	return fmt.Sprint(value)
}

// all asks the questions, a map of question to answer, of r.
func all(t *testing.T, r inlookup.Resolver, when string, questions map[string]string) {
	t.Helper()
	for q, want := range questions {
		if got := show(t, r, q); got != want {
			t.Errorf("%s: %s: %s, want %s", when, q, got, want)
		}
	}
}

// answers are what questions are to be answered with.
type answers = map[string]string

// found is a question about a user who is there, whatever the configuration.
var found = answers{"1 over@example.com": "over quota"}

// known are questions of which each is a miss, with an answer of each type; unknown what they get without a database:
// never that something is not there.
var (
	known = map[string]string{
		"1 user@example.com":            "active",
		"1 missing@example.com":         "absent",
		"2 user@example.com 192.0.2.10": "true",
		"3 user@example.com":            "user@example.com $5$abcdefgh$UserHashUserHashUserHash 0",
		"3 missing@example.com":         "absent",
		"4 user@example.com":            "example.com:192.0.2.25:2525",
		"4 missing@example.com":         "absent",
		"5 missing@example.com":         "[]",
		"6 example.com":                 "100 of type 1",
		"6 missing@example.com":         "absent",
		"7 alias.example.org":           "example.com",
		"1 user@alias.example.org":      "active",
		"1 duser@dist.example.net":      "active",
		"3 missing@dist.example.net":    "absent",
	}
	unknown = func() map[string]string {
		m := make(map[string]string)
		for q := range known {
			m[q] = "unavailable"
		}
		return m
	}()
)

// decode asks d the typed question that q is.
func decode(t *testing.T, d inlookup.Directory, q inlookup.Query) (value any, err error) {
	ctx := t.Context()
	switch q.Type {
	case inlookup.TypeUser:
		return d.Status(ctx, q.Email)
	case inlookup.TypeRelay:
		return d.Relay(ctx, q.Email, q.IP)
	case inlookup.TypePasswd:
		return d.Passwd(ctx, q.Email)
	case inlookup.TypeHost:
		return d.Host(ctx, q.Email)
	case inlookup.TypeAlias:
		return d.Alias(ctx, q.Email)
	case inlookup.TypeLimit:
		return d.Limits(ctx, q.Email)
	}
	return d.Domain(ctx, q.Email)
}

// everyType holds questions of all seven types to the installation, with their right answers.
var everyType = map[string]string{
	"1 user@example.com":                  "active",
	"1 over@example.com":                  "over quota",
	"1 inactive@example.com":              "inactive",
	"1 alias@example.com":                 "alias",
	"1 absent@example.com":                "absent",
	"1 user@alias.example.org":            "active",
	"1 duser@dist.example.net":            "active",
	"1 d3@dist2.example.net":              "active",
	"1 nobody@dist.example.net":           "absent",
	"2 user@example.com 192.0.2.10":       "true",
	"2 user@example.com 192.0.2.11":       "false",
	"2 inactive@example.com 192.0.2.24":   "true",
	"2 duser@dist.example.net 192.0.2.20": "true",
	"3 user@example.com":                  "user@example.com " + userHash + " 0",
	"3 postmaster@example.com":            "postmaster@example.com $5$abcdefgh$PostHash 128",
	"3 cram@example.com":                  "cram@example.com {CRAM}secret,$5$abcdefgh$Cram 0",
	"3 inactive@example.com":              "inactive@example.com $5$abcdefgh$InactiveHash 0",
	"3 absent@example.com":                "absent",
	"3 duser@aliasb.example.org":          "duser@aliasb.example.org $5$abcdefgh$DistHash 0",
	"4 user@example.com":                  "example.com:192.0.2.25:2525",
	"4 absent@example.com":                "absent",
	"4 duser@dist.example.net":            "dist.example.net:192.0.2.26:2526",
	"5 alias@example.com":                 "[" + aliasLines + "]",
	"5 user@example.com":                  "[]",
	"6 user@example.com":                  "100 of type 1",
	"6 over@example.com":                  "1 of type 2",
	"6 example.com":                       "100 of type 1",
	"6 absent@example.com":                "absent",
	"7 alias.example.org":                 "example.com",
	"7 aliasb.example.org":                "dist.example.net",
	"7 example.com":                       "example.com",
}

const userHash = "$5$abcdefgh$UserHashUserHashUserHash"

const aliasLines = "&other@remote.example &user@example.com" +
	" /home/mail/A2E/example.com/user/Maildir/"

// but returns questions with some answers that differ.
func but(questions, other map[string]string) map[string]string {
	m := maps.Clone(questions)
	maps.Copy(m, other)
	return m
}

// A patient Resolver asks again when the pool was too busy. It refuses after half
// a second, which is short where many ask on a slow machine.
type patient struct{ inlookup.Resolver }

func (p patient) Resolve(ctx context.Context, q inlookup.Query) (a inlookup.Answer, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		a, err = p.Resolver.Resolve(ctx, q)
		if err == nil || !strings.Contains(err.Error(), "too many questions wait for it") {
			break
		}
	}
	return a, err
}

// together asks all the questions at the same time, several times each.
func together(t *testing.T, r inlookup.Resolver, when string, questions map[string]string) {
	t.Helper()
	r = patient{r}
	var clients sync.WaitGroup
	for range 4 {
		for q, want := range questions {
			clients.Go(func() { all(t, r, when, map[string]string{q: want}) })
		}
	}
	clients.Wait()
}

// passwd asks for a password and reports errors as one.
func passwd(t testing.TB, d inlookup.Directory, email string) string {
	t.Helper()
	entry, err := d.Passwd(t.Context(), email)
	if err != nil {
		t.Errorf("%s: %v", email, err)
	}
	return entry.Passwd.Reveal()
}

const (
	inTime  = 10 * time.Second // clients wait 4 s; the rest is for a busy machine
	recover = 8 * time.Second  // 2 s are meant; the rest is for a busy machine
)
