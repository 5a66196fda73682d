package systemtest

// What is remembered: that MariaDB is asked once, and again when it must be.

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// A thousand clients ask the same at the same time: one SELECT. On a slow machine it
// may end before all have asked, or last too long. So this is tried until it does not.
func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	db := database(t)
	s := newSite(t, db)
	s.serve().startLines()
	all(t, s.client(), "a connection", map[string]string{"1 over@example.com": "over quota"})
	count := newCounter(t, db)
	const clients = 1000
	replies := make([]*reply, clients)
	for i := range replies {
		replies[i] = newReply(t, s.env["FIFOTMPDIR"])
	}
	round := 0
	eventually(t, "all have asked in time", func() bool {
		round++
		name := fmt.Sprint("popular", round)
		addUser(t, db, name, "example.com", "hash")
		before, stats := count.selects(), s.counts()
		unlock := lockTables(t, db, "indimail") // it takes until all have asked
		for _, r := range replies {
			send(t, s.fifo("infifo"), frame(inlookup.TypePasswd, name+"@example.com", r.path, ""))
		}
		unlock()
		const entry = "PWSTRUCT=%s@example.com:hash:1:0:A User:/home/mail/user:NOQUOTA:0"
		want := inlookup.NewData(inlookup.TypePasswd, fmt.Sprintf(entry, name)).Wire()
		late := false
		for i, r := range replies {
			got, err := r.read(patience)
			late = late || string(got) == inlookup.NewAnswer(0).Wire()
			if string(got) != want && !late || err != nil {
				t.Fatalf("client %d: %q, %v, want %q", i, got, err, want)
			}
		}
		if late {
			return false
		}
		if n := count.selects() - before; n != 1 {
			t.Errorf("%d SELECTs for %d clients", n, clients)
		}
		now := s.counts()
		shared := now["cache_coalesced_total"] - stats["cache_coalesced_total"]
		hits := now["cache_hits_total"] - stats["cache_hits_total"]
		if shared+hits != clients-1 {
			t.Errorf("%v shared and %v hits, want %d together", shared, hits, clients-1)
		}
		return shared >= 10 // else the server was as slow as the SELECT
	})
}

// Hits send nothing to MariaDB.
func TestHitsAskNothing(t *testing.T) {
	db := database(t)
	s := goldenSite(t, db)
	s.env["CACHE_NEGATIVE_TTL"] = "1h" // longer than a slow machine takes
	s.serve("-i", "2").startLines()    // after which it asks no more of itself
	all(t, s.client(), "misses", known)
	count := newCounter(t, db)
	asked, hits := count.questions(), s.counts()["cache_hits_total"]
	const askers = 16
	each := 125
	if operations {
		each = 625
	}
	var running sync.WaitGroup
	for range askers {
		c := s.client()
		running.Go(func() {
			for range each / 5 {
				for _, q := range []string{"1 user@example.com", "1 missing@example.com", "3 user@example.com", "4 user@example.com", "7 alias.example.org"} {
					if got := show(t, c, q); got != known[q] {
						t.Errorf("%s: %s", q, got)
					}
				}
			}
		})
	}
	running.Wait()
	if n := asked(); n != 0 {
		t.Errorf("MariaDB was asked %d times", n)
	}
	if n := s.counts()["cache_hits_total"] - hits; n != float64(askers*each) {
		t.Errorf("%v hits, want %d", n, askers*each)
	}
}

// An answer too long for its reply is an error each time, not kept, and the log says what it was.
func TestTooLongAnswerIsAnError(t *testing.T) {
	db := database(t)
	mustExec(t, db, "INSERT INTO valias (alias,domain,valias_line) SELECT 'long','example.com',CONCAT(RPAD('&',150,'x'),seq) FROM seq_1_to_30",
		"DELETE FROM valias WHERE alias='long'")
	s := goldenSite(t, db)
	p := s.serve()
	for _, r := range []inlookup.Resolver{s.client(), s.client(), &inlookup.MySQL{Getenv: s.getenv}} {
		if a, err := r.Resolve(t.Context(), inlookup.Query{Type: inlookup.TypeAlias, Email: "long@example.com"}); !errors.Is(err, inlookup.ErrUnavailable) {
			t.Errorf("%T: %q, %v", r, a, err)
		}
	}
	if n := s.counts(); n["unavailable_total"] != 2 || n[`cache_entries{kind="present"}`] != 0 {
		t.Errorf("%v", n)
	}
	eventually(t, "the log", func() bool {
		return strings.Contains(p.stderr.String(), `"long@example.com": message too long: more than 4096 bytes`)
	})
}

// logins adds users and when they logged in. Those of the last hour that there are, are first,
// second and duser, who is in a distributed domain.
func logins(t *testing.T, db *mariadb.DB) {
	t.Helper()
	for _, name := range []string{"first", "second", "old", "smtp"} {
		addUser(t, db, name, "recent.example", "hash")
	}
	const columns = "INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp) VALUES "
	const rows = `
		('first','recent.example','imap','192.0.2.1',0,'',NOW()-INTERVAL 10 SECOND),
		('first','recent.example','pop3','192.0.2.1',0,'',NOW()-INTERVAL 2 DAY),
		('second','recent.example','webm','192.0.2.1',0,'',NOW()-INTERVAL 100 SECOND),
		('old','recent.example','imap','192.0.2.1',0,'',NOW()-INTERVAL 2 HOUR),
		('smtp','recent.example','smtp','192.0.2.1',0,'',NOW()),
		('ghost','recent.example','imap','192.0.2.1',0,'',NOW()),
		('duser','dist.example.net','imap','192.0.2.1',0,'',NOW())`
	mustExec(t, db, columns+rows, "DELETE FROM lastauth")
}

// loaded waits until the cache has been loaded that many times, each time with n
// users of all, and until the server asks no more of itself.
func (p *process) loaded(times, n, all int) {
	p.t.Helper()
	p.startLines()
	eventually(p.t, "recent users are loaded", func() bool {
		return strings.Count(p.stderr.String(), " loaded in ") >= times
	})
	line := fmt.Sprintf("inlookup: %d of %d users loaded in ", n, all)
	if got := strings.Count(p.stderr.String(), line); got != times {
		p.t.Errorf("%d times %q, want %d:\n%s", got, line, times, p.stderr.String())
	}
}

func TestRecentUsersAreLoaded(t *testing.T) {
	db := database(t)
	logins(t, db)
	recent := map[string]string{
		"3 first@recent.example":   "first@recent.example hash 0",
		"3 second@recent.example":  "second@recent.example hash 0",
		"3 duser@dist.example.net": "duser@dist.example.net $5$abcdefgh$DistHash 0",
	}
	count := newCounter(t, db)
	for _, instances := range []string{"1", "3"} {
		s := goldenSite(t, db)
		p := s.serve("-c", "3600", "-i", instances)
		c := s.client()
		for times := 1; times <= 2; times++ { // at the start, and after SIGHUP
			p.loaded(times, len(recent), len(recent)+1) // one is no user
			asked := count.questions()
			all(t, c, "recent users", recent)
			if n := asked(); n != 0 {
				t.Errorf("-i %s, %d times loaded: MariaDB was asked %d times", instances, times, n)
			}
			before := count.selects()
			for _, name := range []string{"old", "smtp", "ghost"} {
				show(t, c, "3 "+name+"@recent.example")
			}
			if n := count.selects() - before; n < 3 {
				t.Errorf("-i %s: %d SELECTs for three who are not recent", instances, n)
			}
			p.signal(syscall.SIGHUP)
		}
		p.loaded(3, len(recent), len(recent)+1)
		p.terminate()
	}
}

// A central database of its own has no logins, and is not asked for them.
func TestCentralDatabaseIsNotAskedForLogins(t *testing.T) {
	db := database(t)
	logins(t, db)
	mustExec(t, db, "CREATE DATABASE centre; CREATE TABLE centre.aliasdomain LIKE aliasdomain;"+
		" GRANT ALL ON centre.* TO indimail@'%', indimail@localhost", "DROP DATABASE centre")
	s := goldenSite(t, db)
	s.env["CNTRL_DATABASE"] = "centre"
	p := s.serve("-c", "3600")
	p.loaded(1, 2, 4) // duser's host would be in the central database
	if log := p.stderr.String(); strings.Contains(log, "loading recent users") {
		t.Error(log)
	}
}

// Where there is room for one user, it is one of the latest. The server asks for four at a time.
func TestLatestUsersAreKept(t *testing.T) {
	db := database(t)
	const atATime, users = 4, 12
	for i := range users { // the earliest first
		name := fmt.Sprint("login", i)
		addUser(t, db, name, "recent.example", "hash")
		mustExec(t, db, fmt.Sprintf("INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp)"+
			" VALUES ('%s','recent.example','imap','192.0.2.1',0,'',NOW()-INTERVAL %d SECOND)", name, 100*(users-i)), "")
	}
	t.Cleanup(func() { db.Exec("DELETE FROM lastauth") })
	s := goldenSite(t, db)
	s.env["MAX_BTREE_COUNT"] = "1"
	s.serve("-c", "3600").loaded(1, 1, users)
	kept := ""
	for i := users - atATime; i < users; i++ {
		email := fmt.Sprintf("login%d@recent.example", i)
		text := s.text(inlookup.Query{Type: inlookup.TypeExplain, Email: email, IP: "3"})
		if strings.Contains(text, "cache:       hit\n") {
			kept += email + " "
		}
	}
	if strings.Count(kept, " ") != 1 {
		t.Errorf("kept of the four latest: %q, want one", kept)
	}
}

// inquerytest -F makes the server forget an address, a domain, or all.
func TestFlushForgets(t *testing.T) {
	t.Parallel()
	db := database(t)
	emails := []string{"a@flush.example", "b@flush.example", "c@flush.example2"}
	for _, email := range emails {
		addUser(t, db, email[:1], email[2:], "old")
	}
	s := goldenSite(t, db)
	s.serve("-i", "2")
	s.env["QUERY_CACHE"] = "1"
	for _, test := range []struct{ what, new string }{
		{"a@flush.example", "a"}, {"A@FLUSH.Example", "a"}, {"flush.example", "ab"}, {"flush.example2", "c"}, {"", "abc"}, {"nobody@flush.example", ""}, {"example", ""}, {"flush.exampl", ""},
	} {
		s.text(inlookup.Query{Type: inlookup.TypeFlush})
		d := s.directory()
		for _, email := range emails {
			setPasswd(t, db, email[:1], email[2:], "old")
			passwd(t, d, email)
		}
		for _, email := range emails {
			setPasswd(t, db, email[:1], email[2:], "new")
		}
		status, stdout, stderr := s.run("inquerytest", "-F", test.what)
		want := fmt.Sprintf("%d entries flushed\n", len(test.new))
		if len(test.new) == 1 {
			want = "1 entry flushed\n"
		}
		if status != 0 || stdout != want || stderr != "" {
			t.Errorf("-F %q: exit %d, stdout %q, want %q, stderr %q", test.what, status, stdout, want, stderr)
		}
		for _, email := range emails {
			want := "old"
			if strings.Contains(test.new, email[:1]) {
				want = "new"
			}
			if got := passwd(t, d, email); got != want {
				t.Errorf("after -F %q: %s of %s, want the %s one", test.what, got, email, want)
			}
		}
	}
}

// inquerytest -x says where an answer would come from, and changes nothing.
func TestExplainChangesNothing(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	s.serve()
	s.env["QUERY_CACHE"] = "1"
	explain := func(typ, email string, want ...string) {
		t.Helper()
		status, stdout, stderr := s.run("inquerytest", "-x", "-q", typ, email, "192.0.2.10")
		for _, want := range want {
			if status != 0 || stderr != "" || !regexp.MustCompile("(?m)^"+want+"$").MatchString(stdout) {
				t.Errorf("-x -q %s %s: exit %d, stderr %q, no %q in\n%s", typ, email, status, stderr, want, stdout)
			}
		}
		if strings.Contains(stdout, "Hash") || strings.Contains(stdout, "secret") {
			t.Errorf("a secret:\n%s", stdout)
		}
	}
	place := []string{"real domain: +example.com", "database: +indimail on 127.0.0.1.*", "mail store: +192.0.2.25", "distributed: +false"}
	for range 2 {
		explain("3", "user@example.com", append(place, "query: +Password Query of .*user@example.com.*", "cache: +miss")...)
	}
	show(t, s.client(), "3 user@example.com")
	explain("3", "user@example.com", append(place, "cache: +hit", "time left: +(10m0s|9m.*)", "absent: +false")...)
	explain("passwd", "USER@Example.COM", "cache: +hit")
	explain("1", "user@example.com", "cache: +miss")
	explain("1", "user@alias.example.org", place...)
	explain("2", "user@example.com", "cache: +never.*")
	show(t, s.client(), "3 missing@example.com")
	explain("3", "missing@example.com",
		"cache: +hit", "time left: +(20s|1?[0-9.]+m?s)", "absent: +true")
	explain("3", "duser@dist.example.net", "distributed: +true", "mail store: +192.0.2.26")
	explain("3", "missing@dist.example.net", "database: +none.*")
	explain("3", "us\ter@example.com", "database: +none.*")
	for _, ip := range []string{"", "0", "8", "S", "-1", "99999999999999999999"} {
		if got := s.text(inlookup.Query{Type: inlookup.TypeExplain, Email: "user@example.com", IP: ip}); !strings.HasPrefix(got, "cannot explain") {
			t.Errorf("type %q: %q", ip, got)
		}
	}
}

// The status text is in the exposition format of Prometheus, every line of it.
func TestStatusIsInPrometheusFormat(t *testing.T) {
	s := goldenSite(t, database(t))
	s.serve()
	all(t, s.client(), "questions", known)
	s.env["QUERY_CACHE"] = "1"
	status, stdout, stderr := s.run("inquerytest", "-s")
	if status != 0 || stderr != "" || !strings.HasSuffix(stdout, "\n") || strings.Contains(stdout, "\n\n") {
		t.Errorf("exit %d, stderr %q, stdout %q", status, stderr, stdout)
	}
	const name = `([a-zA-Z_:][a-zA-Z0-9_:]*)`
	help, kind := regexp.MustCompile(`^# HELP `+name+` [^\n]+$`), regexp.MustCompile(`^# TYPE `+name+` (counter|gauge|histogram)$`)
	const label = `[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"`
	sample := regexp.MustCompile(`^` + name + `(\{` + label + `(?:,` + label + `)*\})? ([^ ]+)$`)
	helps, kinds, seen := make(map[string]bool), make(map[string]string), make(map[string]float64)
	current := ""
	for line := range strings.Lines(stdout) {
		line = strings.TrimSuffix(line, "\n")
		if m := help.FindStringSubmatch(line); m != nil && !helps[m[1]] {
			helps[m[1]] = true
			continue
		}
		if m := kind.FindStringSubmatch(line); m != nil && kinds[m[1]] == "" && helps[m[1]] {
			current, kinds[m[1]] = m[1], m[2]
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("%q is no line of the format, or twice there", line)
			continue
		}
		family := m[1]
		if kinds[current] == "histogram" {
			family = regexp.MustCompile("_(bucket|sum|count)$").ReplaceAllString(m[1], "")
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if _, twice := seen[m[1]+m[2]]; twice || err != nil || family != current {
			t.Errorf("%q: %v; twice: %v; under TYPE %s", line, err, twice, current)
		}
		seen[m[1]+m[2]] = value
		if (kinds[current] == "counter") != strings.HasSuffix(current, "_total") {
			t.Errorf("%s is a %s", current, kinds[current])
		}
	}
	if len(seen) < 25 || len(helps) != len(kinds) {
		t.Errorf("%d values, %d HELP, %d TYPE", len(seen), len(helps), len(kinds))
	}
	const db = `{database="indimail on 127.0.0.1"`
	sum, n := seen["inlookup_database_select_seconds_sum"+db+"}"], seen["inlookup_database_select_seconds_count"+db+"}"]
	if sum <= 0 || n == 0 || seen["inlookup_database_select_seconds_bucket"+db+`,le="+Inf"}`] != n {
		t.Errorf("%v seconds, %v SELECTs\n%s", sum, n, stdout)
	}
	for name, want := range map[string]float64{`queries_total{type="user"}`: 4, `queries_total{type="passwd"}`: 3, `queries_total{type="relay"}`: 1, "unavailable_total": 0,
		`cache_entries{kind="absent"}`: 4, `cache_entries{kind="present"}`: 9, "cache_hits_total": 0, "cache_misses_total": 13,
		"database_errors_total" + db + "}": 0, "database_up" + db + "}": 1, "database_waiting" + db + "}": 0} {
		if got := seen["inlookup_"+name]; got != want {
			t.Errorf("%s %v, want %v\n%s", name, got, want, stdout)
		}
	}
}

// The bounds of the cache, by environment.
func TestCacheHasBounds(t *testing.T) {
	t.Parallel()
	db := database(t)
	start := func(name, value string) (*site, *inlookup.Client) {
		s := goldenSite(t, db)
		s.env[name] = value
		s.serve()
		return s, s.client()
	}
	addUser(t, db, "life", "example.com", "old")
	const asked = "3 life@example.com"
	value := func(hash string) string { return "life@example.com " + hash + " 0" }

	none, c := start("USE_BTREE", "0")
	_, brief := start("CACHE_TTL", "300ms")
	s, two := start("MAX_BTREE_COUNT", "3")
	for _, c := range []*inlookup.Client{c, brief, two} {
		if got := show(t, c, asked); got != value("old") {
			t.Error(got)
		}
	}
	setPasswd(t, db, "life", "example.com", "new")
	if got := show(t, c, asked); got != value("new") {
		t.Errorf("USE_BTREE=0: %s", got)
	}
	if got := none.text(inlookup.Query{Type: inlookup.TypeExplain, Email: "life@example.com", IP: "3"}); !strings.Contains(got, "cache:       none\n") {
		t.Errorf("USE_BTREE=0: %s", got)
	}
	eventually(t, "CACHE_TTL ends a life", func() bool {
		return show(t, brief, asked) == value("new")
	})

	for _, q := range []string{"3 user@example.com", asked, "3 over@example.com"} { // the user's is the one not used for longest
		show(t, two, q)
	}
	if n := s.counts(); n[`cache_entries{kind="present"}`] != 2 || n["cache_evicted_total"] != 1 {
		t.Errorf("MAX_BTREE_COUNT=3: %v", n)
	}
	if got := show(t, two, asked); got != value("old") {
		t.Errorf("MAX_BTREE_COUNT=3, what was used lately: %s", got)
	}

	_, negative := start("CACHE_NEGATIVE_TTL", "300ms")
	if got := show(t, negative, "1 newcomer@example.com"); got != "absent" {
		t.Error(got)
	}
	addUser(t, db, "newcomer", "example.com", "hash")
	// Without it the life would be 20 s.
	within(t, 10*time.Second, "CACHE_NEGATIVE_TTL ends a life", func() bool {
		return show(t, negative, "1 newcomer@example.com") == "active"
	})
}

// While all turns are taken by questions that MariaDB keeps waiting, what needs no MariaDB is answered.
func TestHitsDoNotWaitForMisses(t *testing.T) {
	db := database(t)
	s := newSite(t, db)
	s.serve()
	if got := show(t, s.client(), "1 over@example.com"); got != "over quota" {
		t.Fatal(got)
	}
	asked := 0
	oneOfThree(t, func(complaints *complaint) {
		unlock := lockTables(t, db, "indimail", "indibak", "valias")
		for range 200 {
			r := newReply(t, s.env["FIFOTMPDIR"])
			asked++
			email := fmt.Sprintf("waits%d@example.com", asked)
			send(t, s.fifo("infifo"), frame(inlookup.TypeUser, email, r.path, ""))
		}
		c := s.client()
		for _, test := range []struct {
			q    inlookup.Query
			want int // code
		}{
			{inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}, 3},
			{inlookup.Query{Type: inlookup.TypeStatus}, 0},
			{inlookup.Query{Type: inlookup.TypeFlush, Email: "other.example"}, 0},
			{inlookup.Query{Type: inlookup.TypeExplain, Email: "over@example.com", IP: "1"}, 0},
		} {
			start := time.Now()
			a, err := c.Resolve(context.Background(), test.q)
			if err != nil || test.want != 0 && a.Code() != test.want {
				t.Errorf("%v: code %d, %v", test.q, a.Code(), err)
			}
			if took := time.Since(start); took > 2*time.Second {
				complaints.addf("%v: answered after %v", test.q, took)
			}
		}
		unlock()
		eventually(t, "nobody waits", func() bool { // except the question for it
			return s.counts()["waiting"] <= 1
		})
	})
}

// With CACHE_TTL=0 nothing is kept: the next question is asked again, and while
// the database is away there is no answer.
func TestNothingIsKept(t *testing.T) {
	t.Parallel()
	db := database(t)
	addUser(t, db, "none", "example.com", "old")
	for _, value := range []string{"0", "0s"} {
		g := newGate(t, "127.0.0.1:0", db)
		s := newSite(t, nil)
		s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = "127.0.0.1", g.port(), "secret"
		s.env["CACHE_TTL"] = value
		s.serve()
		c := s.short(patience)
		const asked = "3 none@example.com"
		setPasswd(t, db, "none", "example.com", "old")
		if got := show(t, c, asked); got != "none@example.com old 0" {
			t.Fatal(got)
		}
		setPasswd(t, db, "none", "example.com", "new")
		if got := show(t, c, asked); got != "none@example.com new 0" {
			t.Errorf("CACHE_TTL=%s: %s", value, got)
		}
		if n := s.counts()[`cache_entries{kind="present"}`]; n != 0 {
			t.Errorf("CACHE_TTL=%s: %v entries", value, n)
		}
		g.close()
		if got := show(t, c, asked); got != "unavailable" {
			t.Errorf("CACHE_TTL=%s, without the database: %s", value, got)
		}
	}
	s := goldenSite(t, db)
	s.env["CACHE_NEGATIVE_TTL"] = "0"
	s.serve()
	show(t, s.short(patience), "1 nobody@example.com")
	if n := s.counts()[`cache_entries{kind="absent"}`]; n != 0 {
		t.Errorf("CACHE_NEGATIVE_TTL=0: %v entries", n)
	}
}
