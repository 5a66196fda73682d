package systemtest

// What a database does to us: it goes and comes back, hangs up in mid-sentence,
// falls silent, speaks one byte at a time, refuses. The same for all of it: never
// a wrong answer; "unavailable" and not "absent" when there is none, each in the
// time that clients wait; and all is well again when the database is. And what
// becomes of those who ask when the server itself is killed.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// atLeast sets max to d if it is smaller.
func atLeast(max *atomic.Int64, d time.Duration) {
	for old := max.Load(); int64(d) > old && !max.CompareAndSwap(old, int64(d)); old = max.Load() {
	}
}

// several are questions to a site without control files whose answers come in one row and in many.
var several = map[string]string{
	"3 user@example.com":  known["3 user@example.com"],
	"5 alias@example.com": "[&other@remote.example &user@example.com /home/mail/A2E/example.com/user/Maildir/]",
}

// cuts returns the places in what the database said where to stop: where each packet begins and ends, and within.
func cuts(said []byte) (at []int) {
	for i := 0; i+4 <= len(said); {
		size := int(said[i]) | int(said[i+1])<<8 | int(said[i+2])<<16
		at = append(at, i, i+1, i+4, i+4+size/2, i+3+size)
		i += 4 + size
	}
	slices.Sort(at)
	return slices.DeleteFunc(slices.Compact(at), func(i int) bool { return i >= len(said) })
}

// conversation returns what the database says while q is asked twice over one new connection, and how much of that
// comes with the first answer.
func conversation(t *testing.T, db *mariadb.DB, q string) (said []byte, first int) {
	g := newGate(t, "127.0.0.1:0", db)
	m := g.resolver("127.0.0.1")
	defer m.Close()
	for range 2 {
		if got := show(t, m, q); got != several[q] {
			t.Fatalf("%s: %s", q, got)
		}
		g.mu.Lock()
		first, said = len(said), slices.Clone(g.said[0])
		g.mu.Unlock()
	}
	return said, first
}

// The first connection ends, or falls silent, after any number of bytes: nobody notices. All of them do: there is no
// answer, and above all not the first of several rows, unless a new connection has room for one.
func TestCutConnectionsGiveNoWrongAnswer(t *testing.T) {
	t.Parallel()
	db := database(t)
	for q, want := range several {
		said, first := conversation(t, db, q)
		places := cuts(said)
		var askers sync.WaitGroup
		var slowest atomic.Int64
		try := func(at int, all, hang bool) (right int) {
			g := newGate(t, "127.0.0.1:0", db)
			defer g.close()
			g.weather.Store(&weather{hang: hang, pass: func(conn int) int {
				if conn == 0 || all {
					return at
				}
				return math.MaxInt
			}})
			m := g.resolver("127.0.0.1")
			defer m.Close()
			start := time.Now()
			for range 2 {
				if rightOrNone(t, m, q, want) {
					right++
				}
			}
			atLeast(&slowest, time.Since(start)/2)
			g.weather.Store(&weather{})
			if all {
				within(t, recover, "an answer when connections are whole", func() bool { return rightOrNone(t, m, q, want) })
			}
			return right
		}
		ask := func(at int, all, hang bool) {
			expected := 0
			if !all || at >= first {
				expected = 2
			}
			oneOfThree(t, func(c *complaint) {
				if right := try(at, all, hang); right != expected {
					c.addf("%s: connections stop after %d bytes (all: %v, silence: %v): "+
						"%d of 2 questions are answered, want %d", q, at, all, hang, right, expected)
				}
			})
		}
		turns := make(chan struct{}, 4)
		for _, at := range places {
			for _, all := range []bool{false, true} {
				turns <- struct{}{}
				askers.Go(func() {
					ask(at, all, false)
					<-turns
				})
			}
		}
		askers.Wait()
		t.Logf("%s: cut at %d places of %d, the slowest answer after %v", q, len(places), places[len(places)-1]+1, time.Duration(slowest.Swap(0)))
		for i, at := range places {
			for _, all := range []bool{false, true} {
				if i%4 == 0 {
					askers.Go(func() { ask(at, all, true) })
				}
			}
		}
		askers.Wait()
		t.Logf("%s: silent at %d places, the slowest answer after %v", q, len(places)/4, time.Duration(slowest.Load()))
	}
}

// One byte at a time: too slow for any answer, but never quite silent. Whoever asks is told in time.
func TestSlowBytesAreAnErrorInTime(t *testing.T) {
	t.Parallel()
	g := newGate(t, "127.0.0.1:0", database(t))
	g.weather.Store(&weather{drip: 30 * time.Millisecond})
	m := g.resolver("127.0.0.1")
	defer m.Close()
	r := &inlookup.Cache{Resolver: m, TTL: -1, NegativeTTL: -1, Stale: -1}
	ask := func(when string) {
		var askers sync.WaitGroup
		start := time.Now()
		for i := range 40 {
			askers.Go(func() {
				for q := range several {
					if i%2 == 0 {
						q = fmt.Sprintf("1 drip%d@example.com", i)
					}
					if got := timed(t, r, q); got != "unavailable" {
						t.Errorf("%s: %s: %s", when, q, got)
					}
				}
			})
		}
		askers.Wait()
		t.Logf("%s: 80 errors after %v", when, time.Since(start))
	}
	ask("from the start")
	g.weather.Store(&weather{})
	recovers(t, r, "no more drip", several)
	g.weather.Store(&weather{drip: time.Second})
	ask("with connections that worked")
	g.weather.Store(&weather{})
	recovers(t, r, "no more drip", several)
}

// Nobody accepts: connecting takes for ever, as behind a firewall that drops what comes.
func TestUnacceptedConnectionsAreAnErrorInTime(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprint("127.0.0.1:", name.(*syscall.SockaddrInet4).Port)
	full := false
	for range 16 { // the queue is soon full; what does not fit is not answered
		conn, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if full = err != nil; full {
			break
		}
		defer conn.Close()
	}
	if !full {
		testmain.Skip(t, "a queue of this system never fills")
	}
	m := (&gate{t: t, addr: addr}).resolver("127.0.0.1")
	defer m.Close()
	var askers sync.WaitGroup
	for q := range known {
		if q[0] == '7' {
			continue // needs no database here
		}
		askers.Go(func() {
			if got := timed(t, m, q); got != "unavailable" {
				t.Errorf("%s: %s", q, got)
			}
		})
	}
	askers.Wait()
}

// underLoad has 8 clients ask q while meanwhile runs. So many questions may be without an answer.
func underLoad(t *testing.T, c *complaint, m inlookup.Resolver, q, when string, without int64,
	meanwhile func(answered func() int64)) {
	t.Helper()
	var askers sync.WaitGroup
	var answered, none, slowest atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	for range 8 {
		askers.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				if rightOrNone(t, m, q, "true") {
					answered.Add(1)
				} else {
					none.Add(1)
				}
				atLeast(&slowest, time.Since(start))
			}
		})
	}
	meanwhile(answered.Load)
	cancel()
	askers.Wait()
	if none.Load() > without {
		c.addf("%s: %d questions without an answer", when, none.Load())
	}
	t.Logf("%s: %d answered, %d not, the slowest after %v", when, answered.Load(), none.Load(),
		time.Duration(slowest.Load()).Round(time.Millisecond))
}

// Two hosts with the same data: either may go, come back, and the other go.
func TestEitherOfTwoHostsMayGo(t *testing.T) {
	t.Parallel()
	db := database(t)
	if l, err := net.Listen("tcp", "127.0.0.2:0"); err != nil {
		testmain.Skip(t, "no second address to listen at:", err)
	} else {
		l.Close()
	}
	const q = "2 user@example.com 192.0.2.10"
	more := func(answered func() int64) {
		t.Helper()
		n := answered() + 200
		eventually(t, "more answers", func() bool { return answered() >= n })
	}
	var a, b *gate
	var m *inlookup.MySQL
	oneOfThree(t, func(c *complaint) {
		a = newGate(t, "127.0.0.1:0", db)
		b = newGate(t, "127.0.0.2:"+a.port(), db)
		m = a.resolver("127.0.0.1,127.0.0.2")
		t.Cleanup(func() { m.Close() })
		load := func(when string, without int64, meanwhile func(answered func() int64)) {
			t.Helper()
			underLoad(t, c, m, q, when, without, meanwhile)
		}
		load("the first goes", 0, func(answered func() int64) {
			more(answered)
			if a.came() == 0 || b.came() != 0 {
				c.addf("%d and %d connections, want all to the first host", a.came(), b.came())
			}
			a.close()
			more(answered)
			a.reopen()
			more(answered)
		})
		n := a.came()
		load("the second goes", 0, func(answered func() int64) {
			more(answered)
			b.close()
			more(answered)
			if a.came() == n {
				c.addf("the first host has not been asked again")
			}
			b.reopen()
			more(answered)
		})
		// One falls silent: its connections hang, and new ones too. That takes most of
		// the time there is for a question, and on a busy machine all of it.
		a.weather.Store(&weather{pass: func(int) int { return 0 }, hang: true})
		load("the one in use falls silent", 8, more)
		a.weather.Store(&weather{})
	})

	for _, first := range []*gate{a, b} { // whichever of them comes back
		a.close()
		b.close()
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			if got := timed(t, m, q); got != "unavailable" {
				t.Errorf("no host: %s", got)
			}
		}
		first.reopen()
		recovers(t, m, "one host of two comes back", map[string]string{q: "true"})
		(map[*gate]*gate{a: b, b: a})[first].reopen()
	}
}

// A refusedPair is two servers with one database that refuses. plain has no cache; cached has had all
// the answers before.
type refusedPair struct {
	db         *mariadb.DB
	site       *site // of the server without a cache
	server     *process
	plain      inlookup.Resolver
	cached     inlookup.Resolver
	remembered map[string]string // what cached answers whatever happens
}

// TestRefusedIsNotAbsent is what a database may have against us although it is there.
func TestRefusedIsNotAbsent(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	withoutCache, withCache := goldenSite(t, db), goldenSite(t, db)
	withoutCache.env["USE_BTREE"] = "0"
	withCache.env["CACHE_NEGATIVE_TTL"] = "1h" // what is absent too is remembered to the end
	r := &refusedPair{
		db:     db,
		site:   withoutCache,
		server: withoutCache.serve(),
		// Its client tells the server's "error" from no answer in time.
		plain:      &inlookup.Client{Getenv: withoutCache.getenv, Timeout: patience},
		cached:     withCache.client(),
		remembered: maps.Clone(known),
	}
	withCache.serve()
	delete(r.remembered, "2 user@example.com 192.0.2.10") // what is always asked
	all(t, r.plain, "at first", known)
	all(t, r.cached, "at first", known)
	t.Run("read only", r.readOnly)
	t.Run("missing table", r.missingTable)
	t.Run("missing table that may be", r.optionalTable)
	t.Run("missing column", r.missingColumn)
	t.Run("locked table", r.lockedTable)
	t.Run("password", r.password)
	t.Run("locked account", r.lockedAccount)
	t.Run("no rights", r.noRights)
	t.Run("too many connections", r.tooManyConnections)
	r.checkLog(t)
}

func (r *refusedPair) exec(t *testing.T, script string) {
	t.Helper()
	if err := r.db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

// refused expects errors as soon as connections are new.
func (r *refusedPair) refused(t *testing.T, when string) {
	t.Helper()
	all(t, r.plain, when+", connections that are there", known)
	r.server.signal(syscall.SIGINT)
	eventually(t, "new connections are refused", func() bool {
		return !rightOrNone(t, r.plain, "3 missing@example.com", "absent")
	})
	start := time.Now()
	all(t, r.plain, when, unknown)
	t.Logf("%s: %d errors after %v", when, len(unknown), time.Since(start).Round(time.Millisecond))
	all(t, r.cached, when, r.remembered)
}

func (r *refusedPair) readOnly(t *testing.T) {
	conn, err := r.db.SQL().Conn(t.Context()) // a lock goes with its connection
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, script := range [][2]string{
		{"SET GLOBAL read_only=1", "SET GLOBAL read_only=0"},
		{"FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"},
	} {
		for i, statement := range script {
			if _, err := conn.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			// New connections, at the second.
			r.server.signal([]os.Signal{syscall.SIGUSR1, syscall.SIGINT}[i])
			all(t, r.plain, statement, known)
		}
	}
}

// away takes a table away while f runs.
func (r *refusedPair) away(t *testing.T, table string, f func()) {
	t.Helper()
	r.exec(t, "RENAME TABLE "+table+" TO away")
	f()
	all(t, r.cached, "without "+table, r.remembered)
	r.exec(t, "RENAME TABLE away TO "+table)
	recovers(t, r.plain, table+" is back", known)
}

// Without a table of users nobody is absent.
func (r *refusedPair) missingTable(t *testing.T) {
	for table, questions := range map[string][]string{
		"indimail": {
			"1 user@example.com", "1 missing@example.com", "3 user@example.com",
			"3 missing@example.com", "4 missing@example.com", "6 missing@example.com",
			"1 duser@dist.example.net",
		},
		"indibak":    {"3 missing@example.com"},
		"hostcntrl":  {"1 duser@dist.example.net", "3 missing@dist.example.net"},
		"host_table": {"1 duser@dist.example.net"},
	} {
		r.away(t, table, func() {
			for _, q := range questions {
				if got := timed(t, r.plain, q); got != "unavailable" {
					t.Errorf("without %s: %s: %s", table, q, got)
				}
			}
			for q, want := range known {
				rightOrNone(t, r.plain, q, want)
			}
		})
	}
}

// The C programs make these tables when they first write to them: one that is missing is empty.
func (r *refusedPair) optionalTable(t *testing.T) {
	for table, changed := range map[string]map[string]string{
		"valias":  {"1 alias@example.com": "absent", "5 alias@example.com": "[]"},
		"vlimits": {"6 example.com": "absent", "6 user@example.com": "-1 of type 1"},
		"relay":   {"2 user@example.com 192.0.2.10": "false"},
		"aliasdomain": {
			"7 alias.example.org":      "alias.example.org",
			"1 user@alias.example.org": "absent",
		},
		"smtp_port": {"4 duser@dist.example.net": "dist.example.net:192.0.2.26:25"},
	} {
		want := maps.Clone(known)
		maps.Copy(want, changed)
		r.away(t, table, func() { all(t, r.plain, "without "+table, want) })
	}
}

func (r *refusedPair) missingColumn(t *testing.T) {
	r.exec(t, "ALTER TABLE indimail RENAME COLUMN scram TO other")
	all(t, r.plain, "without a column", map[string]string{
		"1 missing@example.com": "unavailable", "3 missing@example.com": "unavailable",
	})
	r.exec(t, "ALTER TABLE indimail RENAME COLUMN other TO scram")
	recovers(t, r.plain, "the column is back", known)
}

func (r *refusedPair) lockedTable(t *testing.T) {
	unlock := lockTables(t, r.db, "indimail")
	var clients sync.WaitGroup
	for i := range 60 {
		q := fmt.Sprintf("%d locked%d@example.com", []int{1, 3, 4, 6}[i%4], i)
		clients.Go(func() {
			if got := timed(t, r.plain, q); got != "unavailable" {
				t.Errorf("behind a lock: %s", got)
			}
		})
	}
	clients.Wait()
	all(t, r.cached, "behind a lock", r.remembered)
	t.Logf("%d connections wait for a lock", len(connections(t, r.db, "indimail")))
	unlock()
	recovers(t, r.plain, "the lock is gone", known)
}

func (r *refusedPair) setPassword(t *testing.T, text string) {
	t.Helper()
	r.exec(t, fmt.Sprintf("ALTER USER indimail@'%%' IDENTIFIED BY '%s',"+
		" indimail@localhost IDENTIFIED BY '%[1]s'", text))
}

func (r *refusedPair) password(t *testing.T) {
	r.setPassword(t, "changed")
	r.refused(t, "another password")
	r.setPassword(t, "secret")
	recovers(t, r.plain, "the old password", known)

	r.setPassword(t, "new")
	r.refused(t, "a new password")
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo"} {
		text, err := os.ReadFile(filepath.Join(r.site.env["CONTROLDIR"], name))
		if err != nil {
			t.Fatal(err)
		}
		r.site.control(name, strings.ReplaceAll(string(text), "secret", "new"))
		defer r.site.control(name, string(text))
	}
	r.server.signal(syscall.SIGINT)
	recovers(t, r.plain, "the new password in the control files", known)
	r.setPassword(t, "secret")
}

func (r *refusedPair) lockedAccount(t *testing.T) {
	r.server.signal(syscall.SIGINT) // the password is the old one again
	recovers(t, r.plain, "all as it was", known)
	account := func(state string) {
		r.exec(t, "ALTER USER indimail@'%' ACCOUNT "+state+"; ALTER USER indimail@localhost ACCOUNT "+state)
	}
	account("LOCK")
	r.refused(t, "a locked account")
	account("UNLOCK")
	recovers(t, r.plain, "the account is unlocked", known)
}

// Rights to a database are looked at when a connection is made.
func (r *refusedPair) noRights(t *testing.T) {
	r.exec(t, "REVOKE ALL ON indimail.* FROM indimail@'%', indimail@localhost")
	r.refused(t, "without rights")
	r.exec(t, "GRANT ALL ON indimail.* TO indimail@'%', indimail@localhost")
	recovers(t, r.plain, "rights again", known)
}

// takeConnections takes all that the database gives, until release.
func (r *refusedPair) takeConnections(t *testing.T) (release func()) {
	t.Helper()
	connector, err := mysql.MySQLDriver{}.OpenConnector(
		"indimail:secret@unix(" + r.db.Socket + ")/indimail")
	if err != nil {
		t.Fatal(err)
	}
	var taken []io.Closer
	release = func() {
		for _, c := range taken {
			c.Close()
		}
		taken = nil
	}
	t.Cleanup(release)
	for {
		c, err := connector.Connect(context.Background())
		if err != nil && strings.Contains(err.Error(), "1040") {
			return release
		}
		if err != nil {
			t.Fatal("connections are refused for another reason:", err)
		}
		taken = append(taken, c)
	}
}

func (r *refusedPair) tooManyConnections(t *testing.T) {
	r.exec(t, "SET GLOBAL max_connections=10")
	defer r.exec(t, "SET GLOBAL max_connections=500")
	release := r.takeConnections(t)
	late := goldenSite(t, r.db)
	late.serve()
	all(t, late.client(), "who comes too late", unknown)
	all(t, r.plain, "who has connections", known)
	all(t, r.cached, "who remembers", r.remembered)
	oneOfThree(t, func(c *complaint) {
		var clients sync.WaitGroup
		var right, none atomic.Int64
		for range 16 {
			clients.Go(func() {
				for q, want := range known {
					if rightOrNone(t, r.plain, q, want) {
						right.Add(1)
					} else {
						none.Add(1)
					}
				}
			})
		}
		clients.Wait()
		t.Logf("16 clients with no connections to be had: %d answered, %d not",
			right.Load(), none.Load())
		if none.Load() > 0 {
			c.addf("%d without an answer: the connections that are there suffice, "+
				"one question after the other", none.Load())
		}
	})
	release()
	recovers(t, late.client(), "connections again", known)
	recovers(t, r.plain, "connections again", known)
}

// checkLog expects that the log says which database it is about, and no secret.
func (r *refusedPair) checkLog(t *testing.T) {
	text := r.server.stderr.String()
	if strings.Contains(text, "Hash") || strings.Contains(text, "secret") {
		t.Errorf("a secret is in the log:\n%s", text)
	}
	// MySQL's own text names the database in which a table is missing.
	named := regexp.MustCompile(`database indimail on |Table 'indimail\.`)
	for line := range strings.Lines(text) {
		if strings.Contains(line, "unavailable") && !named.MatchString(line) {
			t.Errorf("which database? %s", line)
		}
	}
}

// askKnown has clients ask all that is known until end, and counts the answers.
func (s *site) askKnown(t *testing.T, clients int, timeout time.Duration) (
	right, none *atomic.Int64, end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	right, none = new(atomic.Int64), new(atomic.Int64)
	var askers sync.WaitGroup
	for range clients {
		c := s.short(timeout)
		askers.Go(func() {
			for ctx.Err() == nil {
				for q, want := range known {
					if rightOrNone(t, c, q, want) {
						right.Add(1)
					} else {
						none.Add(1)
					}
				}
			}
		})
	}
	return right, none, func() {
		cancel()
		askers.Wait()
	}
}

// A server that is killed takes what it was asked with it. Who asks then is told nothing, never something wrong, and
// is answered when there is a server again; what lies in a FIFO that somebody has kept open is answered even so.
func TestKilledServerGivesNoWrongAnswer(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve()
	right, none, end := s.askKnown(t, 8, time.Second)
	for range 4 {
		p.signal(syscall.SIGSTOP) // so that questions lie in the FIFO
		eventually(t, "the server stands still", func() bool { return stopped(p.cmd.Process.Pid) })
		held, err := os.OpenFile(s.fifo("infifo"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := newReply(t, s.env["FIFOTMPDIR"])
		if _, err := held.Write(frame(inlookup.TypeUser, "over@example.com", r.path, "")); err != nil {
			t.Fatal(err)
		}
		p.cmd.Process.Kill()
		<-p.done
		if got, open := r.drain(); got != nil || open {
			t.Errorf("an answer from a dead server: %x", got)
		}
		start := time.Now()
		p = s.serve()
		if got, err := r.read(patience); !inlookup.WireAnswer(string(got)).Equal(inlookup.NewAnswer(int(inlookup.StatusOverQuota))) || err != nil {
			t.Errorf("what lay in the FIFO: %x, %v", got, err)
		}
		held.Close()
		n := right.Load() + 100
		within(t, recover, "answers again", func() bool { return right.Load() >= n })
		t.Logf("100 answers %v after the start", time.Since(start).Round(time.Millisecond))
	}
	end()
	t.Logf("%d answered, %d not", right.Load(), none.Load())
}

func TestDatabaseMayGoAndCome(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)

	// None is there when the server starts.
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	s := goldenSite(t, db)
	s.env["CACHE_NEGATIVE_TTL"] = "1h" // what is absent too is remembered to the end
	p := s.serve()
	all(t, s.client(), "no database at the start", unknown)
	plain := newSite(t, db) // where the user's row is the first thing looked up
	plain.serve()
	all(t, plain.client(), "no database, no control files", map[string]string{"1 user@example.com": "unavailable", "3 user@example.com": "unavailable",
		"4 user@example.com": "unavailable", "5 alias@example.com": "unavailable", "6 user@example.com": "unavailable", "6 example.com": "unavailable",
		"2 user@example.com 192.0.2.10": "unavailable", "7 example.com": "example.com"})
	s.env["QUERY_CACHE"] = "1"
	for _, typ := range []string{"1", "3", "5", "6"} {
		if status, stdout, stderr := s.run("inquerytest", "-q", typ, "user@example.com"); status != 111 || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("inquerytest -q %s: exit %d, stdout %q, stderr %q", typ, status, stdout, stderr)
		}
	}
	restart := func() {
		t.Helper()
		if err := db.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, recover, "the server recovers", func() bool {
			return show(t, s.client(), "2 user@example.com 192.0.2.10") == "true" // never kept
		})
	}
	restart()
	all(t, s.client(), "a database comes", known)

	testDatabaseKilled(t, s, db, restart)

	// It stands still.
	testPaused(t, s, db.Pause, db.Continue)
	p.terminate()
	if text := p.stderr.String(); strings.Contains(text, "secret") || strings.Contains(text, "$5$") || !strings.Contains(text, "indimail") {
		t.Errorf("the log shall name the database, and no secret:\n%s", text)
	}
}

// testDatabaseKilled kills it while it is in use. The answers are in the cache, above all those of
// a second server, where all will have expired, and of a third, which may not give what has expired.
func testDatabaseKilled(t *testing.T, s *site, db *mariadb.DB, restart func()) {
	t.Helper()
	short, strict := goldenSite(t, db), goldenSite(t, db)
	short.env["CACHE_TTL"], short.env["CACHE_NEGATIVE_TTL"] = "200ms", "200ms"
	strict.env["CACHE_TTL"], strict.env["CACHE_NEGATIVE_TTL"], strict.env["CACHE_STALE"] = "200ms", "200ms", "0"
	short.serve()
	strict.serve()
	all(t, short.client(), "short lives", known)
	all(t, strict.client(), "short lives", known)
	cached, stale := make(map[string]string), make(map[string]string)
	for q, want := range known {
		if q[0] != '2' {
			cached[q] = want
		}
		// What bounces mail or refuses a login is never given when it has expired.
		if stale[q] = want; q[0] == '2' || want == "absent" && q[0] != '6' {
			stale[q] = "unavailable"
		}
	}
	expired := time.Now().Add(250 * time.Millisecond)
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all has expired", func() bool { return time.Now().After(expired) })
	start := time.Now()
	all(t, s.client(), "killed", cached)
	if took := time.Since(start); took > inTime {
		t.Errorf("%d answers from memory took %v", len(cached), took)
	}
	all(t, s.client(), "killed", map[string]string{"1 new@example.com": "unavailable", "3 new@example.com": "unavailable",
		"5 alias@example.com": "unavailable", "2 user@example.com 192.0.2.10": "unavailable", "4 over@example.com": "unavailable"})
	all(t, short.client(), "killed and expired", stale)
	if n := short.counts()["cache_stale_total"]; n < 5 {
		t.Errorf("%v stale answers counted", n)
	}
	all(t, strict.client(), "killed, expired and CACHE_STALE=0", unknown)
	restart()
	all(t, s.client(), "back", map[string]string{"1 new@example.com": "absent", "5 missing@example.com": "[]", "2 user@example.com 192.0.2.10": "true"})
	within(t, recover, "those with short lives recover", func() bool {
		return show(t, short.client(), "2 user@example.com 192.0.2.10") == "true" && show(t, strict.client(), "3 missing@example.com") == "absent"
	})
	all(t, short.client(), "back", known)
	all(t, strict.client(), "back", known)
}

func testPaused(t *testing.T, s *site, pause, resume func() error) {
	t.Helper()
	if err := pause(); err != nil {
		t.Fatal(err)
	}
	const asked = 200 // more than are resolved at a time
	var replies []*reply
	start := time.Now()
	for i := range asked {
		replies = append(replies, newReply(t, s.env["FIFOTMPDIR"]))
		send(t, s.fifo("infifo"), frame(inlookup.TypeUser, fmt.Sprintf("paused%d@example.com", i), replies[i].path, ""))
	}
	hit := time.Now()
	if got := show(t, s.client(), "3 user@example.com"); got != known["3 user@example.com"] || time.Since(hit) > 2*time.Second {
		t.Errorf("a cached answer: %s after %v", got, time.Since(hit))
	}
	for i, r := range replies {
		if b, err := r.read(time.Until(start.Add(inTime))); inlookup.WireAnswer(string(b)).Code() != -1 || err != nil {
			t.Fatalf("question %d of a database that stands still: %x, %v", i, b, err)
		}
	}
	t.Logf("%d errors after %v", asked, time.Since(start))
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	within(t, recover, "the server recovers", func() bool {
		return show(t, s.client(), "1 resumed@example.com") == "absent"
	})
}

// A host that lets everybody in and then refuses what they ask, as a Galera node without the majority does, is left for
// one that answers.
func TestHostThatRefusesIsLeft(t *testing.T) {
	t.Parallel()
	db, refusing := database(t), mariadbtest.ForTest(t)
	if err := refusing.Exec("SET GLOBAL init_connect='SELECT no_such_column'"); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, fmt.Sprint("127.0.0.2:", db.Port), refusing)
	mysql := g.resolver("127.0.0.2,127.0.0.1")
	for _, q := range []string{"1 over@example.com", "3 user@example.com"} {
		if got := show(t, mysql, q); got != known[q] && got != "over quota" {
			t.Errorf("%s with a first host that refuses: %s", q, got)
		}
	}
}

// Connections that hang cost the questions that meet them half their time, and are then done with.
func TestHangingConnectionsAreLeft(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	g := newGate(t, "127.0.0.1:0", db)
	mysql := g.resolver("127.0.0.1")
	const many = 12
	ask := func(when string, n int) (late int64) {
		var askers sync.WaitGroup
		var untold atomic.Int64
		for i := range n { // over as many connections
			askers.Go(func() {
				q := fmt.Sprintf("2 user%d@example.com 192.0.2.10", i)
				if !rightOrNone(t, mysql, q, "false") {
					untold.Add(1)
				}
			})
		}
		askers.Wait()
		return untold.Load()
	}
	for _, n := range []int{1, many} {
		oneOfThree(t, func(c *complaint) {
			unlock := lockTables(t, db, "indimail") // until each has a connection of its own
			var enough atomic.Bool
			var first sync.WaitGroup
			first.Go(func() {
				for !enough.Load() { // again, because a question waits only half a second
					ask("locked", many)
				}
			})
			t.Cleanup(first.Wait)
			t.Cleanup(func() { enough.Store(true) })
			eventually(t, "a connection for each question", func() bool {
				databases := mysql.Stats().Databases
				return len(databases) > 0 && databases[0].Busy >= many
			})
			enough.Store(true)
			unlock()
			first.Wait()
			// As if a firewall had forgotten those that there are. New ones work.
			old := g.came()
			g.weather.Store(&weather{hang: true, pass: func(conn int) int {
				if conn < old {
					return 0
				}
				return math.MaxInt
			}})
			// One must not try the other connections in turn. Of many some may be told
			// too late.
			if ask("hung", n) > 0 && n == 1 {
				c.addf("with all connections that there were hung, one question is not answered")
			}
			within(t, recover, "nobody meets a connection that hangs", func() bool {
				failed := mysql.Stats().Errors
				ask("after that", many)
				return mysql.Stats().Errors == failed
			})
		})
	}
}
