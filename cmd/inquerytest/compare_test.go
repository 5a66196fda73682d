package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// Answers are what a recorder says. What is not there is absent.
type answers map[inlookup.Query]inlookup.Answer

func (a answers) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if answer, ok := a[q]; ok {
		return answer, nil
	}
	return inlookup.Absent(q), nil
}

// with returns a copy of a in which these answers are different.
func (a answers) with(changes answers) answers {
	changed := maps.Clone(a)
	maps.Copy(changed, changes)
	return changed
}

// goldenAnswers returns what was recorded of the C server, and the addresses.
// The recorded hashes have English words in them. They are changed here, so
// that a word of the output is never taken for a part of a hash.
func goldenAnswers(t *testing.T) (a answers, lines string) {
	t.Helper()
	a = wire(t)
	emails := make(map[string]string) // with the ip, if there is one
	for q, answer := range a {
		if e, err := answer.Passwd(); err == nil && q.Type == inlookup.TypePasswd {
			hidden := strings.Map(rot13, e.Passwd.Reveal())
			data := strings.Replace(answer.Data(), e.Passwd.Reveal(), hidden, 1)
			a[q] = inlookup.NewData(q.Type, data)
		}
		if strings.Contains(q.Email, "@") && (q.IP != "" || emails[q.Email] == "") {
			emails[q.Email] = q.Email + " " + q.IP
		}
	}
	return a, strings.Join(slices.Sorted(maps.Values(emails)), "\n")
}

func rot13(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return 'a' + (r-'a'+13)%26
	case 'A' <= r && r <= 'Z':
		return 'A' + (r-'A'+13)%26
	}
	return r
}

// A duel is two servers to compare: A answers on a FIFO, B stands for MySQL.
type duel struct {
	env  map[string]string
	a, b inlookup.Resolver
}

func newDuel(t *testing.T, a, b inlookup.Resolver) *duel {
	t.Helper()
	d := &duel{env: environment(t), a: a, b: b}
	control, err := filepath.Abs(filepath.Join(golden, "control"))
	if err != nil {
		t.Fatal(err)
	}
	d.env["CONTROLDIR"] = control
	serve(t, d.env, a)
	return d
}

// compare runs the command and checks that it prints nothing of these secrets.
func (d *duel) compare(t *testing.T, input string, args ...string) (int, string, string) {
	t.Helper()
	s := setting{mysql: d.b, env: d.env, stdin: strings.NewReader(input)}
	status, stdout, stderr := s.run(t, append([]string{"-i=", "-compare", "mysql"}, args...)...)
	for _, side := range []inlookup.Resolver{d.a, d.b} {
		recorded, _ := side.(answers)
		for _, answer := range recorded {
			noSecret(t, answer, stdout+stderr)
		}
	}
	return status, stdout, stderr
}

// noSecret checks that no part of the answer's password hash was printed.
func noSecret(t *testing.T, answer inlookup.Answer, printed string) {
	t.Helper()
	e, err := answer.Passwd()
	if err != nil {
		return
	}
	const window = 4
	for i := range len(e.Passwd.Reveal()) - window + 1 {
		if part := e.Passwd.Reveal()[i : i+window]; strings.Contains(printed, part) {
			t.Fatalf("a part of the hash, %q, is in\n%s", part, printed)
		}
	}
}

// count checks the numbers of the report.
func count(t *testing.T, stdout string, want map[string]int) {
	t.Helper()
	got := fields(stdout)
	for label, n := range want {
		if got[label] != fmt.Sprint(n) {
			t.Errorf("%s %s, want %d, in\n%s", label, got[label], n, stdout)
		}
	}
}

func has(t *testing.T, stdout string, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(stdout, text) {
			t.Errorf("no\n%s\nin\n%s", text, stdout)
		}
	}
}

func TestCompareSame(t *testing.T) {
	recorded, lines := goldenAnswers(t)
	d := newDuel(t, recorded, recorded)
	status, stdout, stderr := d.compare(t, "# addresses\n\n"+lines)
	if status != exitOK {
		t.Errorf("exit %d", status)
	}
	has(t, stdout, "A: the server on "+d.env["INFIFODIR"]+"/infifo\nB: MySQL itself\n")
	// 7 addresses in 3 domains; an ip follows 4 of them.
	count(t, stdout, map[string]int{
		"addresses": 7, "questions": 7*5 + 4 + 3*2, "same": 7*5 + 4 + 3*2,
		"differ": 0, "known": 0, "errors": 0,
	})
	oneLine(t, stderr, "relay was not asked for 3 addresses")
}

func passwd(email, entry string) answers {
	return answers{
		{Type: inlookup.TypePasswd, Email: email}: inlookup.NewData(
			inlookup.TypePasswd, "PWSTRUCT="+email+":"+entry),
	}
}

// A differenceTest is one answer of B that differs, and what is printed.
type differenceTest struct {
	b    answers
	want string
}

const user = "user@example.com"

func ofUser(typ inlookup.Type) inlookup.Query { return inlookup.Query{Type: typ, Email: user} }

func differentUsers() []differenceTest {
	relay := inlookup.Query{Type: inlookup.TypeRelay, Email: user, IP: "192.0.2.10"}
	home := ":1:0:Test User:/home/mail/A2E/example.com/user:5000000S:0"
	return []differenceTest{
		{answers{ofUser(inlookup.TypeUser): inlookup.NewAnswer(2)},
			"differs: status of \"user@example.com\"\n  status: active / inactive\n"},
		{answers{ofUser(inlookup.TypeUser): inlookup.NewAnswer(1)},
			"differs: status of \"user@example.com\"\n  A: status active\n  B: absent\n"},
		{answers{relay: inlookup.NewAnswer(0)},
			"differs: relay permission of \"user@example.com\" from 192.0.2.10\n" +
				"  authenticated: yes / no\n"},
		{passwd(user, "$6$nabgure$unfu"+home),
			"differs: password entry of \"user@example.com\"\n" +
				"  passwd: differs (hash, 36 bytes / hash, 15 bytes)\n"},
		{passwd(user, home),
			"differs: password entry of \"user@example.com\"\n" +
				"  passwd: differs (hash, 36 bytes / empty)\n"},
		{passwd(user, "$6$nabgure$unfu:5:6:Nobody\x1b:/h:5S:1"),
			"  passwd: differs (hash, 36 bytes / hash, 15 bytes)\n" +
				"  uid: 1 / 5\n  gid: 0 / 6\n  gecos: \"Test User\" / \"Nobody\\x1b\"\n" +
				"  dir: \"/home/mail/A2E/example.com/user\" / \"/h\"\n" +
				"  shell: \"5000000S\" / \"5S\"\n  inactive: no / yes\n"},
		{passwd(user, "cnff:1:2:jbeq$6$jvgu"+home),
			"  gecos: differs (\"Test User\" / text, "},
		{passwd(user, "not:a:number:$6$hash:/d:s:0"),
			"  A: name \"user@example.com\", passwd (hash, 36 bytes), uid 1, gid 0, " +
				"gecos \"Test User\", dir \"/home/mail/A2E/example.com/user\", " +
				"shell \"5000000S\", inactive no\n  B: not understood: invalid message"},
		{answers{ofUser(inlookup.TypePasswd): inlookup.Absent(ofUser(inlookup.TypePasswd))},
			"inactive no\n  B: absent\n"},
	}
}

func differentRoutes(recorded answers) []differenceTest {
	limits, _ := recorded[ofUser(inlookup.TypeLimit)].Limits()
	limits.MaxAliases = 7
	return []differenceTest{
		{answers{ofUser(inlookup.TypeHost): inlookup.NewData(inlookup.TypeHost, "example.com:h:25")},
			"differs: SMTP route of \"user@example.com\"\n" +
				"  route: \"example.com:192.0.2.25:2525\" / \"example.com:h:25\"\n"},
		{answers{ofUser(inlookup.TypeHost): recorded[ofUser(inlookup.TypePasswd)]},
			"  route: \"example.com:192.0.2.25:2525\" / (a password entry)\n"},
		{answers{ofUser(inlookup.TypeAlias): inlookup.NewData(inlookup.TypeAlias, "&a@b\n/m\n")},
			"differs: alias lines of \"user@example.com\"\n  A: absent\n  B: lines \"&a@b\" \"/m\"\n"},
		{answers{ofUser(inlookup.TypeLimit): inlookup.NewLimits(limits)},
			"differs: limits of \"user@example.com\"\n  MaxAliases: 101 / 7\n"},
		{answers{ofUser(inlookup.TypeLimit): inlookup.NewAnswer(0)},
			"  A: DomainExpiry 2000000000, MaxPopAccounts 100,"},
		{answers{{Type: inlookup.TypeDomain, Email: "example.com"}: inlookup.NewData(
			inlookup.TypeDomain, "example.org")},
			"differs: real domain of \"example.com\"\n  domain: \"example.com\" / \"example.org\"\n"},
	}
}

func TestCompareDifferences(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	for _, test := range append(differentUsers(), differentRoutes(recorded)...) {
		d := newDuel(t, recorded, recorded.with(test.b))
		status, stdout, stderr := d.compare(t, "user@example.com 192.0.2.10\n")
		if status != exitNo {
			t.Errorf("exit %d", status)
		}
		has(t, stdout, test.want)
		if strings.Contains(stdout, "jbeq") {
			t.Errorf("a part of a password with colons was printed:\n%s", stdout)
		}
		count(t, stdout, map[string]int{"questions": 8, "same": 7, "differ": 1, "known": 0, "errors": 0})
		oneLine(t, stderr, "the answers differ")
	}
}

// What the C server says where it is wrong counts as known, and what only looks
// like it does not.
func TestCompareKnown(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	tests := slices.Concat(knownAddresses(recorded), knownLimits(recorded), knownEntries())
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ours := recorded.with(test.ours)
			d := newDuel(t, ours.with(test.c), ours)
			status, stdout, _ := d.compare(t, test.input)
			if status != exitOK {
				t.Errorf("exit %d", status)
			}
			has(t, stdout, "  the C server "+test.want+"\n")
			if fields(stdout)["differ"] != "0" || fields(stdout)["errors"] != "0" {
				t.Errorf("printed\n%s", stdout)
			}
			d = newDuel(t, ours.with(test.c).with(test.unlike), ours)
			if status, stdout, _ = d.compare(t, test.input); status != exitNo {
				t.Errorf("what only looks like it: exit %d\n%s", status, stdout)
			}
		})
	}
}

type knownTest struct {
	name, input, want string
	ours              answers // over what was recorded
	c                 answers // over ours: what the C server says
	unlike            answers // over c: makes it a difference
}

const (
	alias, over        = "alias@example.com", "over@example.com"
	upperCase, percent = "USER@Example.com", "user%example.com"
	aliasDomain        = "alias.example.org"
	hash               = "$5$nopqrstu$HfreUnfu"
)

func query(typ inlookup.Type, email string) inlookup.Query {
	return inlookup.Query{Type: typ, Email: email}
}

func knownAddresses(recorded answers) []knownTest {
	text := inlookup.NewData
	host := func(email, route string) answers {
		return answers{query(inlookup.TypeHost, email): text(inlookup.TypeHost, route)}
	}
	overLimits := recorded[query(inlookup.TypeLimit, over)]
	return []knownTest{
		{
			name: "upper case", input: upperCase, want: "wants lower case, and an @ before the domain",
			ours:   answers{query(inlookup.TypeUser, upperCase): inlookup.NewAnswer(0)},
			c:      answers{query(inlookup.TypeUser, upperCase): inlookup.NewAnswer(1)},
			unlike: answers{query(inlookup.TypeUser, user): inlookup.NewAnswer(2)},
		},
		{
			name: "percent", input: percent, want: "wants lower case, and an @ before the domain",
			ours: answers{query(inlookup.TypeLimit, percent): recorded[query(inlookup.TypeLimit, user)]},
			c:    answers{query(inlookup.TypeLimit, percent): inlookup.NewAnswer(0)},

			unlike: answers{query(inlookup.TypeLimit, user): overLimits},
		},
		{
			name: "no local part", input: "@example.com",
			want: "has wrong answers for an address without a local part",
			c:    passwd("@example.com", hash+":1:0:g:/d:s:0"),
			unlike: answers{
				query(inlookup.TypeUser, "example.com"):   inlookup.NewAnswer(1),
				query(inlookup.TypeDomain, "example.com"): text(inlookup.TypeDomain, "example.org"),
			},
		},
		{
			name: "port", input: user, want: "reads the port of a route in the wrong place",
			c:      host(user, "example.com:192.0.2.25:92"),
			unlike: host(user, "example.com:192.0.2.25:93"),
		},
		{
			name: "alias alone", input: alias,
			want:   "has no lines for an address that is only an alias",
			c:      answers{query(inlookup.TypeAlias, alias): text(inlookup.TypeAlias, "")},
			unlike: answers{query(inlookup.TypeUser, alias): inlookup.NewAnswer(0)},
		},
	}
}

func knownLimits(recorded answers) []knownTest {
	text := inlookup.NewData
	overLimits := recorded[query(inlookup.TypeLimit, over)]
	domainLimits := recorded[query(inlookup.TypeLimit, "example.com")]
	real := answers{query(inlookup.TypeDomain, aliasDomain): text(inlookup.TypeDomain, "example.com")}
	defaults := inlookup.Limits{
		DomainExpiry: -1, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1,
		MaxForwards: -1, MaxAutoresponders: -1, MaxMailinglists: -1, LimitType: 1,
	}
	withType := func(l inlookup.Limits, typ int16) answers {
		l.LimitType = typ
		return answers{query(inlookup.TypeLimit, user): inlookup.NewLimits(l)}
	}
	more := defaults
	more.MaxAliases = 5
	return []knownTest{
		{
			name: "own limits", input: "over@" + aliasDomain,
			want: "ignores a user's own limits under an alias domain",
			ours: real.with(answers{query(inlookup.TypeLimit, "over@"+aliasDomain): overLimits}),
			c:    answers{query(inlookup.TypeLimit, "over@"+aliasDomain): domainLimits},

			unlike: answers{query(inlookup.TypeLimit, over): domainLimits},
		},
		{
			name: "bare alias domain", input: "x@" + aliasDomain,
			want: "has no limits for an alias domain by itself",
			ours: real.with(answers{query(inlookup.TypeLimit, aliasDomain): domainLimits}),
			c:    answers{query(inlookup.TypeLimit, aliasDomain): inlookup.NewAnswer(0)},

			unlike: answers{query(inlookup.TypeLimit, "example.com"): overLimits},
		},
		{
			name: "limit_type", input: user, want: "does not set limit_type in the defaults",
			ours: withType(defaults, 1), c: withType(defaults, 0), unlike: withType(more, 0),
		},
	}
}

func knownEntries() []knownTest {
	upperPasswd := query(inlookup.TypePasswd, upperCase)
	return []knownTest{
		{
			name: "dialup", input: user, want: "turns POP off where disable_dialup is set",
			ours: passwd(user, hash+":1:64:g:/d:s:0"), c: passwd(user, hash+":1:2:g:/d:s:0"),
			unlike: passwd(user, hash+":1:3:g:/d:s:0"),
		},
		{
			name: "inactive", input: user, want: "gives the inactive flag of another entry",
			ours: passwd(user, hash+":1:0:g:/d:s:0"), c: passwd(user, hash+":1:0:g:/d:s:1"),
			unlike: answers{query(inlookup.TypeUser, user): inlookup.NewAnswer(2)},
		},
		{
			name: "dialup and inactive", input: user, want: "turns POP off where disable_dialup is set",
			ours: passwd(user, hash+":1:64:g:/d:s:0"), c: passwd(user, hash+":1:2:g:/d:s:1"),
			unlike: passwd(user, hash+":1:3:g:/d:s:1"),
		},
		{
			name: "upper case and dialup", input: upperCase,
			want: "wants lower case, and an @ before the domain",
			ours: answers{upperPasswd: passwd(user, hash+":1:64:g:/d:s:0")[ofUser(inlookup.TypePasswd)]},
			c: passwd(user, hash+":1:2:g:/d:s:0").with(answers{
				upperPasswd: inlookup.Absent(upperPasswd),
			}),
			unlike: passwd(user, hash+":1:3:g:/d:s:0"),
		},
	}
}

// A side that is unavailable is asked once more before it counts as an error.
func TestCompareErrors(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	for _, test := range []struct {
		fails  int // times that B does not answer an alias question
		b      answers
		status int
		want   map[string]int
		says   string
	}{
		{1, nil, exitOK, map[string]int{"same": 7, "differ": 0, "errors": 0}, "relay was not"},
		{2, nil, exitFault, map[string]int{"same": 6, "differ": 0, "errors": 1},
			"questions not answered by both sides: 1"},
		{2, host25, exitNo, map[string]int{"same": 5, "differ": 1, "errors": 1}, "the answers differ"},
	} {
		left := test.fails
		changed := recorded.with(test.b)
		d := newDuel(t, recorded, fake(func(q inlookup.Query) (inlookup.Answer, error) {
			if q.Type == inlookup.TypeAlias && left > 0 {
				left--
				return inlookup.Answer{}, fmt.Errorf("%w: database\nis away", inlookup.ErrUnavailable)
			}
			return changed.Resolve(t.Context(), q)
		}))
		status, stdout, stderr := d.compare(t, "user@example.com\n", "-p", "1")
		if status != test.status || !strings.Contains(stderr, test.says) {
			t.Errorf("exit %d, stderr %s", status, stderr)
		}
		count(t, stdout, test.want)
		if test.fails == 2 {
			has(t, stdout, "error: alias lines of \"user@example.com\"\n  A: absent\n"+
				"  B: lookup unavailable: database is away\n")
		}
	}
}

// Lines of aliases can be long, so each side has a line.
func TestCompareAliasLines(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	of := func(lines string) answers {
		return recorded.with(answers{ofUser(inlookup.TypeAlias): inlookup.NewData(inlookup.TypeAlias, lines)})
	}
	status, stdout, _ := newDuel(t, of("&a@b\n/m\n"), of("&a@b\n")).compare(t, user+"\n")
	if status != exitNo {
		t.Errorf("exit %d", status)
	}
	has(t, stdout, "differs: alias lines of \"user@example.com\"\n"+
		"  A: lines \"&a@b\" \"/m\"\n  B: lines \"&a@b\"\n")
}

// An error that each question gets is printed once.
func TestCompareRepeatedError(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	d := newDuel(t, recorded, fake(func(q inlookup.Query) (inlookup.Answer, error) {
		return inlookup.Answer{}, fmt.Errorf("%v: %w: database is away", q.Type, inlookup.ErrUnavailable)
	}))
	_, stdout, _ := d.compare(t, "user@example.com\n", "-p", "1")
	count(t, stdout, map[string]int{"errors": 7})
	if said := strings.Count(stdout, "database is away"); said != 1 {
		t.Errorf("said %d times", said)
	}
	has(t, stdout, "  B: User Query: lookup unavailable: database is away\n", "  B: the same error\n")
}

// A server with several FIFOs is named with all of them.
func TestCompareNames(t *testing.T) {
	recorded, lines := goldenAnswers(t)
	env := environment(t)
	dir := env["INFIFODIR"]
	serve(t, env, recorded)
	startC(t, dir, 3, false)
	s := setting{env: env, stdin: strings.NewReader(lines)}
	_, stdout, _ := s.run(t, "-i=", "-compare", "c")
	has(t, stdout, "A: the server on "+dir+"/infifo\nB: the server on "+dir+"/c.1 to .3\n")
}

var host25 = answers{
	{Type: inlookup.TypeHost, Email: "user@example.com"}: inlookup.NewData(
		inlookup.TypeHost, "example.com:192.0.2.25:25"),
}

// A server that goes away in the middle costs errors, not a difference.
func TestCompareServerGone(t *testing.T) {
	recorded, lines := goldenAnswers(t)
	env := environment(t)
	for _, test := range []struct{ args, want string }{
		{"-i= -compare mysql", "is inlookup running?"},
		{"-compare other", "other: is the other server running?"},
	} {
		s := setting{mysql: recorded, env: env, stdin: strings.NewReader(lines)}
		status, stdout, stderr := s.run(t, strings.Fields(test.args)...)
		if status != exitFault || stdout != "" {
			t.Errorf("exit %d, stdout %s", status, stdout)
		}
		oneLine(t, stderr, test.want)
	}
}

func TestCompareInput(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	d := newDuel(t, recorded, recorded)
	for _, test := range []struct {
		input  string
		status int
		want   string
	}{
		{"", exitFault, "there were no addresses"},
		{"# none\n\n", exitFault, "there were no addresses"},
		{"user@example.com now\n", exitUsage, "standard input, line 1: want an address"},
		{"# two\nuser@example.com 192.0.2.1 x\n", exitUsage, "standard input, line 2: want"},
		{strings.Repeat("x", 1<<17), exitFault, "standard input: "},
	} {
		status, _, stderr := d.compare(t, test.input)
		if status != test.status {
			t.Errorf("%.40q: exit %d", test.input, status)
		}
		oneLine(t, stderr, test.want)
	}
	status, _, stderr := setting{mysql: recorded, env: d.env}.run(t, "-i=", "-compare", "infifo")
	if status != exitUsage {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "both sides are the server on ")
	tcp := maps.Clone(d.env)
	tcp["TCPCLIENT"], tcp["TCPREMOTEIP"] = "1", "192.0.2.1"
	status, _, stderr = setting{mysql: recorded, env: tcp}.run(t, "-compare", "mysql")
	if status != exitUsage {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "tcpclient's connection takes one question only")
}

// Each question about an address, and each domain once, in any spelling.
func TestCompareQuestions(t *testing.T) {
	var mu sync.Mutex
	asked := make(map[inlookup.Query]int)
	d := newDuel(t, answers{}, fake(func(q inlookup.Query) (inlookup.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		asked[q]++
		return inlookup.Absent(q), nil
	}))
	status, stdout, stderr := d.compare(t, "a@d.example\nb@D.example 2001:db8::1\nd.example\n")
	if status != exitOK {
		t.Errorf("exit %d\n%s%s", status, stdout, stderr)
	}
	want := make(map[inlookup.Query]int)
	for _, email := range []string{"a@d.example", "b@D.example", "d.example"} {
		for typ := inlookup.TypeUser; typ <= inlookup.TypeLimit; typ++ {
			if typ != inlookup.TypeRelay {
				want[inlookup.Query{Type: typ, Email: email}] = 1
			}
		}
	}
	relay := inlookup.Query{Type: inlookup.TypeRelay, Email: "b@D.example", IP: "2001:db8::1"}
	want[relay] = 1
	want[inlookup.Query{Type: inlookup.TypeDomain, Email: "d.example"}] = 1
	if !maps.Equal(asked, want) {
		t.Errorf("asked %v\nwant %v", asked, want)
	}
	oneLine(t, stderr, "relay was not asked for 2 addresses")
}

func TestDomains(t *testing.T) {
	var d domains
	for i := range maxDomains + 10 {
		domain := fmt.Sprintf("d%d.example", i)
		if d.add(domain) != domain || d.add(strings.ToUpper(domain)) != "" {
			t.Fatalf("%s is asked never, or twice", domain)
		}
		if len(d) > maxDomains {
			t.Fatalf("%d domains remembered", len(d))
		}
	}
}

// Ctrl-C ends it although standard input waits for more. The counts are right.
func TestCompareInterrupted(t *testing.T) {
	recorded, _ := goldenAnswers(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	input, keyboard := io.Pipe()
	defer keyboard.Close()
	s := setting{env: environment(t), stdin: input}
	serve(t, s.env, recorded)
	s.mysql = fake(func(q inlookup.Query) (inlookup.Answer, error) {
		if q.Type == inlookup.TypeDomain { // the last one
			cancel()
		}
		return recorded.Resolve(ctx, q)
	})
	go io.WriteString(keyboard, "user@example.com\n")
	status, stdout, stderr := s.runContext(ctx, "-i=", "-compare", "mysql")
	if status != exitFault {
		t.Errorf("exit %d", status)
	}
	count(t, stdout, map[string]int{"addresses": 1, "questions": 6, "same": 6, "differ": 0})
	has(t, stderr, "inquerytest: interrupted: not all addresses were compared\n")
}

func TestReadRoutes(t *testing.T) {
	dir := t.TempDir()
	text := "# comment:1:2\nexample.com:192.0.2.25:2525\n:mail.example.com:2526 user secret\n" +
		"v6.example:[2001:db8::1]:2527 # why\nnone.example:192.0.2.1\nnothing\n:\n" +
		"long.example:192.0.2.26:2528:3600:120 user\nv6long.example:[2001:db8::1]:2529:3600\n" +
		"text.example:relay.example:2530tcp\n"
	if err := os.WriteFile(filepath.Join(dir, "smtproutes"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := readRoutes(func(name string) string { return map[string]string{"CONTROLDIR": dir}[name] })
	want := []route{{"2525", "92"}, {"2526", "0"}, {"2527", "2001"}, {"2528", "92"}, {"2529", "2001"},
		{"2530", "0"}}
	if !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
}

// Ours against ours on a changed table, for those who logged in lately.
func TestCompareMariaDB(t *testing.T) {
	db := mariadbtest.ForTest(t)
	err := db.Exec(`CREATE TABLE changed AS SELECT * FROM indimail;
		UPDATE changed SET pw_passwd='$6$changedchanged', pw_gecos='T. User' WHERE pw_name='user';
		INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp) VALUES
		('over','example.com','imap','',0,'',NOW()-INTERVAL 10 MINUTE),
		('user','example.com','pop3','',0,'',NOW())`)
	if err != nil {
		t.Fatal(err)
	}
	env := environment(t)
	env["CONTROLDIR"] = mariadbtest.Control(t, db)
	env["DEFAULT_DOMAIN"] = "example.com"
	changed := maps.Clone(env)
	changed["MYSQL_TABLE"] = "changed"
	other := &inlookup.MySQL{Getenv: func(name string) string { return changed[name] }}
	ours := &inlookup.MySQL{Getenv: func(name string) string { return env[name] }}
	defer ours.Close()
	serve(t, env, ours)
	s := setting{mysql: other, env: env}
	status, stdout, stderr := s.run(t, "-i=", "-compare", "mysql", "-c", "3600")
	if status != exitNo {
		t.Errorf("exit %d, stderr %s", status, stderr)
	}
	has(t, stdout, "differs: password entry of \"user@example.com\"\n"+
		"  passwd: differs (hash, 36 bytes / hash, 17 bytes)\n  gecos: \"Test User\" / \"T. User\"\n")
	count(t, stdout, map[string]int{"addresses": 2, "questions": 12, "differ": 1, "errors": 0})
	if regexp.MustCompile(`\$[56]\$|changedch|UserHash`).MatchString(stdout + stderr) {
		t.Errorf("a hash was printed:\n%s%s", stdout, stderr)
	}
	status, stdout, _ = s.run(t, "-i=", "-compare", "mysql", "-c", "300")
	count(t, stdout, map[string]int{"addresses": 1})
	if status != exitNo {
		t.Errorf("exit %d", status)
	}
}

// fullDisk is no reason to go on for ever, nor to say that all is the same.
func TestCompareOutputFails(t *testing.T) {
	recorded, lines := goldenAnswers(t)
	d := newDuel(t, recorded, recorded)
	s := setting{mysql: d.b, env: d.env, stdin: strings.NewReader(lines)}
	var stderr strings.Builder
	status := s.program(fullDisk{}, &stderr).run(t.Context(), []string{"-i=", "-compare", "mysql"})
	if status != exitFault || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("exit %d, stderr %s", status, stderr.String())
	}
}
