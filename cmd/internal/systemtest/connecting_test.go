package systemtest

// Connecting: a database that hangs, that is slow to accept, that refuses the password
// or has no connection left. Few attempts, and in time.

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// again asks until it is answered, and returns how long that took. After the limit it
// fails the test.
func (l *load) again(limit time.Duration, what string) time.Duration {
	l.t.Helper()
	start := time.Now()
	within(l.t, limit, what, func() bool {
		v := l.closed(1, 0, oneSelect)
		if len(v.lost) > 0 {
			l.t.Fatalf("%s: %v", what, v)
		}
		return len(v.answered) > 0
	})
	return time.Since(start)
}

// warm has the server connect several times.
func (l *load) warm() {
	l.t.Helper()
	l.again(patience, "an answer")
	l.closed(8, 200*time.Millisecond, oneSelect)
}

// hang has the database stand still while 20 questions a second are asked. It returns
// how many connections were given up in that time, before the database said a word.
func (l *load) hang(db *mariadb.DB, f *forwarder, length time.Duration) (abandoned int64) {
	t := l.t
	t.Helper()
	before := f.abandoned.Load()
	if err := db.Pause(); err != nil {
		t.Fatal(err)
	}
	v := l.steady(20, length, oneSelect)
	if err := db.Continue(); err != nil {
		t.Fatal(err)
	}
	took := l.again(recover, "an answer from a database that goes on")
	abandoned = f.abandoned.Load() - before
	t.Logf("%v of a database that hangs: %v; %d connections given up; an answer %v after it went on",
		length, v, abandoned, took.Round(time.Millisecond))
	if len(v.answered) > 5 || len(v.lost) > 0 { // some may come before it stands still
		t.Errorf("a database that hangs: %v", v)
	}
	return abandoned
}

// MariaDB counts each connection that was given up, and in the end bars the host.
func TestHangCostsFewConnections(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 400)
	l.warm()
	if n := l.hang(db, f, 7*time.Second); n > 20 {
		t.Errorf("%d connections were given up in 7 s, want a few", n)
	}
}

// A database that takes 5 s to accept a connection is reached, though no question waits
// that long.
func TestSlowGreeting(t *testing.T) {
	t.Parallel()
	f := newForwarder(t, "127.0.0.1:0", database(t))
	f.greeting.Store(int64(5 * time.Second))
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 100)
	took := l.again(patience, "an answer from a database that takes 5 s to accept")
	t.Logf("an answer after %v, %d connections given up", took, f.abandoned.Load())
	// Other connections may still be on their way: this one serves.
	l.serves("after the first answer")
	_, lines := s.check()
	contains(t, "-t", lines, `^warning +database .*: connecting, .*skip_name_resolve`)
}

// Of several hosts each has its full time.
func TestSlowGreetingOfThreeHosts(t *testing.T) {
	t.Parallel()
	db := database(t)
	first := newForwarder(t, "127.0.0.1:0", db)
	all := []*forwarder{first}
	hosts := "127.0.0.1"
	for _, host := range []string{"127.0.0.2", "127.0.0.3"} {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			testmain.Skip(t, "no other address to listen at:", err)
		} else {
			l.Close()
		}
		all = append(all, newForwarder(t, net.JoinHostPort(host, first.port), db))
		hosts += "," + host
	}
	for _, f := range all {
		f.greeting.Store(int64(1100 * time.Millisecond))
	}
	s := stormSite(t, first)
	s.env["MYSQL_HOST"] = hosts
	s.serve()
	l := newLoad(s, 100)
	took := l.again(patience, "an answer from one of three hosts that take 1.1 s to accept")
	t.Logf("an answer after %v", took)
}

// A changedPassword is a time in which MariaDB has the new password of the account, and
// host.mysql has the old one.
type changedPassword struct {
	rate   float64 // questions a second; 0: 8 clients, one question after the other
	length time.Duration
}

// MariaDB counts logins with a wrong password, and in the end locks the account.
func TestChangedPassword(t *testing.T) {
	t.Parallel()
	changedPassword{0, 5 * time.Second}.test(t)
}

func (c changedPassword) test(t *testing.T) {
	const limit = 30
	db := mariadbtest.ForTest(t, fmt.Sprint("--max-password-errors=", limit))
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	for _, name := range []string{"HOST", "VPORT", "PASSWD"} { // host.mysql has them
		delete(s.env, "MYSQL_"+name)
	}
	password := func(text string) {
		s.control("host.mysql", fmt.Sprintf("127.0.0.1:indimail:%s:%s:nossl\n", text, f.port))
	}
	password("secret")
	p := s.serve()
	l := newLoad(s, 400)
	l.warm()
	denied := newCounter(t, db)
	before := denied.read("Access_denied_errors")
	mustExec(t, db, "ALTER USER indimail@'%' IDENTIFIED BY 'changed',"+
		" indimail@localhost IDENTIFIED BY 'changed'", "")
	f.cut()
	var v verdict
	if c.rate == 0 {
		v = l.closed(8, c.length, oneSelect)
	} else {
		v = l.steady(c.rate, c.length, oneSelect)
	}
	logins := denied.read("Access_denied_errors") - before
	password("changed")
	p.signal(syscall.SIGHUP)
	if logins == 0 || logins >= limit {
		t.Errorf("%d logins with the old password in %v, want some, and fewer than %d",
			logins, c.length, limit)
	}
	took := l.again(recover, "an answer with the new password")
	t.Logf("%v: %v; %d logins; an answer %v after SIGHUP", c.length, v, logins, took)
	text := p.stderr.String()
	if strings.Contains(text, "changed") || strings.Contains(text, "secret") {
		t.Error("a password is in the log")
	}
}

// A server that has no more connections for us: those that stand serve all.
func TestFewConnectionsServeAll(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ number, grant string }{
		{"1203", ""},
		{"1226", "ALTER USER indimail@'%' WITH MAX_USER_CONNECTIONS 3"},
	} {
		t.Run(test.number, func(t *testing.T) {
			t.Parallel()
			db := mariadbtest.ForTest(t, "--max-user-connections=3")
			if test.grant != "" {
				mustExec(t, db, "SET GLOBAL max_user_connections=400;"+test.grant, "")
			}
			f := newForwarder(t, "127.0.0.1:0", db)
			s := stormSite(t, f)
			p := s.serve()
			l := newLoad(s, 64)
			oneOfThree(t, func(c *complaint) {
				l.warm()
				v := l.closed(16, 3*time.Second, oneSelect)
				t.Logf("%v over 3 connections", v)
				if len(v.refused)+len(v.lost) > 0 || len(v.answered) < 64 {
					c.addf("16 clients, 3 connections: %v, want all answered", v)
				}
			})
			if text := p.stderr.String(); strings.Contains(text, "answers again") {
				t.Errorf("the database was there all the time:\n%s", text)
			}
		})
	}
}

// All connections are killed again and again, every 50 ms on a machine that is fast
// enough: a question whose connection is killed twice may fail.
func TestConnectionsKilledAllTheTime(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 16)
	oneOfThree(t, func(c *complaint) {
		l.warm()
		usual := times(l.closed(8, time.Second, oneSelect).answered).median()
		every := max(50*time.Millisecond, 20*usual)
		killed := 0
		stop := make(chan struct{})
		var killer sync.WaitGroup
		killer.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(every):
				}
				for _, id := range connections(t, db, "indimail") {
					if db.Exec(fmt.Sprint("KILL CONNECTION ", id)) == nil { // else it has gone
						killed++
					}
				}
			}
		})
		v := l.closed(8, 8*time.Second, oneSelect)
		close(stop)
		killer.Wait()
		t.Logf("%d connections killed, all of them every %v: %v", killed, every, v)
		if len(v.lost) > 0 || 1000*len(v.refused) > len(v.answered) {
			c.addf("%d connections killed: %v, want at most one of 1,000 refused", killed, v)
		}
	})
}

// A burst has its sixteen connections soon, and no more.
func TestBurst(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	a := newAdmin(t, db)
	oneOfThree(t, func(c *complaint) {
		f := newForwarder(t, "127.0.0.1:0", db)
		f.selects.Store(int64(200 * time.Millisecond))
		s := stormSite(t, f)
		p := s.serve()
		defer p.terminate()
		l := newLoad(s, 64)
		l.again(patience, "an answer")
		if n := a.sessions(t); n > 2 {
			c.addf("%d connections for one question after the other", n)
		}
		var group sync.WaitGroup
		for _, q := range []func() inlookup.Query{oneSelect, threeSelects, relay} {
			group.Go(func() { l.closed(10, 4*time.Second, q) })
		}
		start := time.Now()
		most, soon := 0, 0
		for time.Since(start) < 3500*time.Millisecond {
			most = max(most, a.sessions(t))
			if time.Since(start) < 2*time.Second { // a tenth of it on an idle machine
				soon = most
			}
		}
		group.Wait()
		t.Logf("%d connections after 2 s, %d at most", soon, most)
		if soon < ourMost || most > ourMost {
			c.addf("%d connections after 2 s, %d at most, want %d", soon, most, ourMost)
		}
	})
}

// ourMost is how many connections a pool may have.
const ourMost = 16

// relay is a question of a statement of its own.
func relay() inlookup.Query {
	return inlookup.Query{Type: inlookup.TypeRelay, Email: "over@example.com", IP: "192.0.2.200"}
}

// A hundred times the configuration changes: nothing of the old ones is left.
func TestManyReloads(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	for _, name := range []string{"HOST", "VPORT", "PASSWD"} { // host.mysql has them
		delete(s.env, "MYSQL_"+name)
	}
	hosts := []string{"127.0.0.1", "localhost"}
	set := func(i int) {
		s.control("host.mysql", fmt.Sprintf("%s:indimail:secret:%s:nossl\n", hosts[i%2], f.port))
	}
	set(0)
	p := s.serve()
	l := newLoad(s, 16)
	l.warm()
	for i := range 100 {
		set(i)
		p.signal([]os.Signal{syscall.SIGHUP, syscall.SIGINT}[i/2%2])
		if v := l.closed(4, 20*time.Millisecond, oneSelect); len(v.lost) > 0 {
			t.Fatalf("reload %d: %v", i, v)
		}
	}
	eventually(t, "the connections of old configurations are closed", func() bool {
		return len(connections(t, db, "indimail")) <= ourMost
	})
	conns := len(connections(t, db, "indimail"))
	p.signal(syscall.SIGQUIT)
	p.wait()
	stacks := strings.Count(p.stderr.String(), "\ngoroutine ")
	t.Logf("%d goroutines, %d connections", stacks, conns)
	if stacks == 0 || stacks > 60+2*conns {
		t.Errorf("%d goroutines with %d connections after 100 reloads\n%s",
			stacks, conns, p.stderr.String())
	}
}

// metrics returns what the server's status text says of databases, by name and labels.
func (s *site) databaseMetrics() map[string]string {
	s.t.Helper()
	env := s.env["QUERY_CACHE"]
	s.env["QUERY_CACHE"] = "1"
	defer func() { s.env["QUERY_CACHE"] = env }()
	status, stdout, stderr := s.run("inquerytest", "-s")
	if status != 0 {
		s.t.Fatalf("inquerytest -s: exit %d, %s", status, stderr)
	}
	values := make(map[string]string)
	line := regexp.MustCompile(`(?m)^inlookup_database_(\w+)\{database="[^"]*",?([^}]*)\} (\S+)$`)
	for _, m := range line.FindAllStringSubmatch(stdout, -1) {
		values[m[1]+" "+m[2]] = m[3]
	}
	return values
}

// What is seen of a database from outside: by -s, by -x, and in the log, which says
// once that it is away and once that it is back.
func TestDatabaseSeenFromOutside(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	p := s.serve()
	l := newLoad(s, 100)
	l.warm()
	f.selects.Store(int64(30 * time.Millisecond))
	asked := len(l.closed(4, time.Second, oneSelect).answered)
	m := s.databaseMetrics()
	bucket := func(le string) (n int) {
		text, ok := m[`select_seconds_bucket le="`+le+`"`]
		if !ok {
			t.Errorf("no bucket for %s s", le)
		}
		fmt.Sscan(text, &n)
		return n
	}
	last := 0
	for _, le := range strings.Fields("0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 +Inf") {
		if n := bucket(le); n < last {
			t.Errorf("%d SELECTs took at most %s s, and %d less", n, le, last)
		} else {
			last = n
		}
	}
	if n := bucket("+Inf") - bucket("0.025"); n < asked {
		t.Errorf("%d SELECTs took more than 25 ms, want %d", n, asked)
	}
	if all := m["select_seconds_count "]; all != fmt.Sprint(last) {
		t.Errorf("%s SELECTs, %d in the buckets", all, last)
	}
	state := func() string {
		m := s.databaseMetrics()
		return fmt.Sprint("up ", m["up "], ", waiting ", m["waiting "], ", busy ",
			m[`connections state="busy"`], ", connecting ", m[`connections state="connecting"`])
	}
	idle := func() (n int) {
		fmt.Sscan(s.databaseMetrics()[`connections state="idle"`], &n)
		return n
	}
	eventually(t, "rest", func() bool {
		return state() == "up 1, waiting 0, busy 0, connecting 0" && idle() > 0
	})
	explained := func(want string) {
		t.Helper()
		s.env["QUERY_CACHE"] = "1"
		defer delete(s.env, "QUERY_CACHE")
		_, stdout, _ := s.run("inquerytest", "-x", "-q", "1", "over@example.com")
		if !regexp.MustCompile("(?m)^state: +" + want).MatchString(stdout) {
			t.Errorf("-x does not say %q:\n%s", want, stdout)
		}
	}
	explained("answers")
	f.selects.Store(int64(2 * time.Second))
	var seen atomic.Bool
	var group sync.WaitGroup
	group.Go(func() { // again, because a question waits only half a second
		for !seen.Load() {
			l.closed(30, 0, oneSelect)
		}
	})
	stop := func() {
		seen.Store(true)
		group.Wait()
	}
	t.Cleanup(stop)
	eventually(t, "connections that are busy, and questions that wait", func() bool {
		var busy, waiting int
		fmt.Sscanf(state(), "up 1, waiting %d, busy %d", &waiting, &busy)
		return busy >= 8 && waiting > 0
	})
	stop()
	f.selects.Store(0)
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	l.closed(8, time.Second, oneSelect)
	eventually(t, "the database is down", func() bool {
		return strings.HasPrefix(state(), "up 0, waiting 0, busy 0") && idle() == 0
	})
	explained("")
	l.closed(8, time.Second, oneSelect)
	if err := db.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.again(recover, "an answer from a database that is back")
	eventually(t, "the database is up", func() bool { return strings.HasPrefix(state(), "up 1,") })
	eventually(t, "the log says that it answers again", func() bool {
		return strings.Contains(p.stderr.String(), "answers again")
	})
	name := `database indimail on 127\.0\.0\.1`
	text := p.stderr.String()
	down := regexp.MustCompile(`(?m)^(inlookup: )?`+name+`: .*$`).FindAllString(text, -1)
	if len(down) != 2 || !strings.HasSuffix(down[1], "answers again") {
		t.Errorf("the log says of the database %q, want once that it is away, and once that it"+
			" answers again:\n%s", down, text)
	}
}
