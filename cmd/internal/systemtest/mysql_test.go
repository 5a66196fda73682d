package systemtest

// What the databases do: being away, being several, being configured in many ways.

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)

	// None is there when the server starts.
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	s := goldenSite(t, db)
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
		within(t, 2*time.Second, "the server recovers", func() bool { return show(t, s.client(), "1 over@example.com") == "over quota" })
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
		if stale[q] = want; q[0] == '2' || want == "absent" || want == "[]" {
			stale[q] = "unavailable"
		}
	}
	expired := time.Now().Add(250 * time.Millisecond)
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, time.Second, "all has expired", func() bool { return time.Now().After(expired) })
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
	within(t, 2*time.Second, "those with short lives recover", func() bool {
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
	within(t, 2*time.Second, "the server recovers", func() bool { return show(t, s.client(), "1 resumed@example.com") == "absent" })
}

// A pause in which connections died, or one of two databases, is seen by nobody.
func TestSecondHost(t *testing.T) {
	t.Parallel()
	db := database(t)
	s := newSite(t, nil)
	s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = "127.0.0.2,127.0.0.1", fmt.Sprint(db.Port), "secret"
	mysql := s.resolver()
	var askers sync.WaitGroup
	for range 16 {
		askers.Go(func() {
			for range 20 {
				if got := show(t, mysql, "1 over@example.com"); got != "over quota" {
					t.Errorf("with a first host that refuses: %s", got)
				}
			}
		})
	}
	askers.Wait()
}

// A host that lets everybody in and then refuses what they ask, as a Galera node without the majority does, is left for
// one that answers.
func TestHostThatRefuses(t *testing.T) {
	t.Parallel()
	db, refusing := database(t), mariadbtest.ForTest(t)
	if err := refusing.Exec("SET GLOBAL init_connect='SELECT no_such_column'"); err != nil {
		t.Fatal(err)
	}
	newProxy(t, fmt.Sprint("127.0.0.2:", db.Port), fmt.Sprint("127.0.0.1:", refusing.Port))
	s := newSite(t, nil)
	s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = "127.0.0.2,127.0.0.1", fmt.Sprint(db.Port), "secret"
	mysql := s.resolver()
	for _, q := range []string{"1 over@example.com", "3 user@example.com"} {
		if got := show(t, mysql, q); got != known[q] && got != "over quota" {
			t.Errorf("%s with a first host that refuses: %s", q, got)
		}
	}
}

// Connections that MariaDB ends are not a fault that anybody sees.
func TestKilledConnections(t *testing.T) {
	t.Parallel()
	db := database(t)
	mustExec(t, db, "CREATE USER victim@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON indimail.* TO victim@localhost", "DROP USER victim@localhost")
	s := newSite(t, db)
	s.env["MYSQL_USER"] = "victim"
	mysql := s.resolver()
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	var answered atomic.Int64
	for range 8 {
		askers.Go(func() {
			for ctx.Err() == nil {
				if got := show(t, mysql, "1 over@example.com"); got != "over quota" {
					t.Errorf("while connections are killed: %s", got)
				}
				answered.Add(1)
			}
		})
	}
	killed, again := 0, int64(0)
	eventually(t, "20 connections are killed", func() bool {
		if answered.Load() < again { // a question whose connection dies twice may fail
			return false
		}
		again = answered.Load() + 100
		for _, id := range connections(t, db, "victim") {
			if db.Exec(fmt.Sprintf("KILL CONNECTION %d", id)) == nil { // else it has gone meanwhile
				killed++
			}
		}
		return killed >= 20
	})
	cancel()
	askers.Wait()
}

// What a server says of itself, not of the question, is no answer: the question is asked once more, and once only. What
// it says of the question is not asked again.
func TestRefusalsAskedAgain(t *testing.T) {
	t.Parallel()
	db := database(t)
	mustExec(t, db, `CREATE DATABASE refusals;
		CREATE TABLE refusals.refuse (errno int, times int) ENGINE=MyISAM; INSERT INTO refusals.refuse VALUES (0, 0);
		CREATE FUNCTION refusals.refusal() RETURNS int BEGIN
			DECLARE e int;
			SELECT errno INTO e FROM refusals.refuse WHERE times > 0;
			UPDATE refusals.refuse SET times = times - 1;
			IF e THEN SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = e, MESSAGE_TEXT = 'not now'; END IF;
			RETURN 0;
		END;
		CREATE VIEW refusals.valias AS SELECT * FROM indimail.valias WHERE refusals.refusal() = 0; GRANT SELECT ON refusals.* TO indimail@localhost`,
		"REVOKE SELECT ON refusals.* FROM indimail@localhost; DROP DATABASE refusals")
	s := newSite(t, db)
	s.env["MYSQL_DATABASE"] = "refusals"
	mysql := s.resolver()
	const q = "5 alias@example.com"
	want := show(t, mysql, q)
	if want == "absent" || want == "unavailable" {
		t.Fatalf("a server that refuses nothing: %s", want)
	}
	for _, of := range []struct {
		errno, times int
		answer       string
	}{
		{1053, 1, want}, {1927, 1, want}, {1047, 1, want}, // shutting down, connection killed, Galera node not ready
		{1053, 2, "unavailable"},
		{1064, 1, "unavailable"}, // a fault in the question
		{1146, 2, "unavailable"}, // the view lacks its table, and so is not an empty table itself
	} {
		if err := db.Exec(fmt.Sprintf("UPDATE refusals.refuse SET errno=%d, times=%d", of.errno, of.times)); err != nil {
			t.Fatal(err)
		}
		if got := show(t, mysql, q); got != of.answer {
			t.Errorf("a server that refuses %d times with %d: %s, want %s", of.times, of.errno, got, of.answer)
		}
	}
}

// A proxy stands between us and a database.
type proxy struct {
	listener net.Listener
	to       string
	gate     sync.RWMutex // write-locked: nothing passes
	mu       sync.Mutex   // guards conns
	conns    []net.Conn
}

func newProxy(t *testing.T, at, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	go p.serve()
	t.Cleanup(func() {
		l.Close()
		for _, c := range p.take() {
			c.Close()
		}
	})
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		go io.Copy(client, gated{server, &p.gate})
		go io.Copy(server, gated{client, &p.gate})
	}
}

// gated passes on what was read when the gate is open.
type gated struct {
	from io.Reader
	gate *sync.RWMutex
}

func (g gated) Read(b []byte) (int, error) {
	n, err := g.from.Read(b)
	g.gate.RLock()
	defer g.gate.RUnlock()
	return n, err
}

// take returns the connections, which are then the caller's.
func (p *proxy) take() (conns []net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns, p.conns = p.conns, nil
	return conns
}

// freeze makes all connections hang that there are, as a firewall does that has forgotten them; new ones work.
func (p *proxy) freeze(t *testing.T) {
	for _, c := range p.take() {
		c.SetReadDeadline(time.Unix(1, 0)) // ends the copying from it
		t.Cleanup(func() { c.Close() })
	}
}

// Connections that hang cost the questions that meet them half their time, and are then done with.
func TestHangingConnections(t *testing.T) {
	t.Parallel()
	p := newProxy(t, "127.0.0.1:0", net.JoinHostPort("127.0.0.1", fmt.Sprint(database(t).Port)))
	s := newSite(t, nil)
	s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = "127.0.0.1", fmt.Sprint(p.listener.Addr().(*net.TCPAddr).Port), "secret"
	mysql := s.resolver()
	ask := func(when string, n int) {
		var askers sync.WaitGroup
		for i := range n { // over as many connections
			askers.Go(func() {
				q := fmt.Sprintf("2 user%d@example.com 192.0.2.10", i)
				if got := show(t, mysql, q); got != "false" {
					t.Errorf("%s: %s: %s", when, q, got)
				}
			})
		}
		askers.Wait()
	}
	for _, n := range []int{1, 16} {
		func() {
			var first sync.WaitGroup
			defer first.Wait()
			p.gate.Lock() // until each has a connection of its own
			defer p.gate.Unlock()
			first.Go(func() { ask("first", 16) })
			eventually(t, "a connection for each question", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.conns) >= 2*16
			})
		}()
		p.freeze(t)
		ask("frozen", n) // one must not try the other connections in turn
		failed := mysql.Stats().Errors
		ask("after that", 16)
		if more := mysql.Stats().Errors - failed; more > 0 {
			t.Errorf("after that %d questions met connections that hang", more)
		}
	}
}

// store fills the tables of a cluster, whose second database is store2.
const store = `
	INSERT INTO store2.indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES
	 ('user','plain.test','right',1,0,'','',''), ('user','local.test','second',1,0,'','',''),
	 ('bob','dist.test','right',1,0,'','',''), ('ann','dist.test','wrong',1,0,'','','');
	INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell,scram) VALUES
	 ('user','plain.test','wrong',1,0,'','','',NULL), ('user','local.test','local',NULL,NULL,'','','',NULL),
	 ('user','aliased.test','own',1,0,'','','',NULL),
	 ('ann','dist.test','right',1,0,'','','',NULL), ('bob','dist.test','wrong',1,0,'','','',NULL), ('nobody','dist.test','wrong',1,0,'','','',NULL),
	 ('any','star.test','right',1,0,'','','',NULL), ('own','star.test','wrong',1,0,'','','',NULL),
	 ('scram','local.test','$5$x',1,0,'A: B','/home/mail','',"{SCRAM-SHA-256}4096,salt,stored,server:0a0b:salted"),
	 ('plus','limit.test','x',1,8192,'','','',NULL), ('user','limit.test','x',1,16,'','','',NULL), ('own','limit.test','x',1,0,'','','',NULL);
	INSERT INTO hostcntrl (pw_name,pw_domain,pw_passwd,host) VALUES ('ann','dist.test','','a.test'), ('bob','dist.test','','b.test'),
	 ('lost','dist.test','','nowhere.test'), ('stray','dist.test','','c.test'), ('*','star.test','','a.test'), ('own','star.test','','b.test');
	INSERT INTO store2.indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('own','star.test','right',1,0,'','','');
	INSERT INTO host_table (host,ipaddr) VALUES ('a.test','192.0.2.31'), ('b.test','192.0.2.32'), ('c.test','192.0.2.99');
	INSERT INTO smtp_port (host,src_host,domain,port) VALUES ('a.test','*','dist.test',2600), ('b.test','*','dist.test',2601),
	 ('b.test','192.0.2.1','dist.test',2602), ('a.test','*','star.test',0), ('b.test','192.0.2.7','star.test',2603);
	INSERT INTO aliasdomain (alias,domain) VALUES ('alias.test','plain.test'), ('aliasdist.test','dist.test'), ('aliased.test','plain.test');
	INSERT INTO vlimits (domain,maxpopaccounts) VALUES ('dist.test',31), ('plain.test',1);
	INSERT INTO store2.vlimits (domain,maxpopaccounts) VALUES ('dist.test',32), ('plain.test',2);
	INSERT INTO store2.valias (alias,domain,valias_line) VALUES ('list','plain.test','&b@test'), ('list','plain.test','&a@test');
	INSERT INTO store2.relay VALUES ('user@plain.test','192.0.2.50',UNIX_TIMESTAMP()-90);
	CREATE TABLE users LIKE indimail; CREATE TABLE idle LIKE indimail; CREATE TABLE pop LIKE relay; CREATE TABLE spread LIKE hostcntrl;
	INSERT INTO users (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('user','local.test','renamed',1,0,'','','');
	CREATE TABLE world LIKE indimail; ALTER TABLE world CONVERT TO CHARACTER SET utf8mb4;
	INSERT INTO world (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('世','local.test','wide',1,0,'','','');
	INSERT INTO idle (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('idle','local.test','idle',1,0,'','','');
	INSERT INTO pop VALUES ('user@local.test','192.0.2.60',UNIX_TIMESTAMP());
	INSERT INTO spread (pw_name,pw_domain,pw_passwd,host) VALUES ('nobody','dist.test','','a.test');`

const mcdinfo = `# The mail stores of a cluster.

domain   plain.test 0
server   127.0.0.1
mdahost  192.0.2.30
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret

domain   Dist.Test 1
  # in any order, and by any white space
pass secret
user indimail
mdahost	192.0.2.31
server 127.0.0.1
port @PORT@
database indimail
use_ssl 0
server   127.0.0.1
mdahost  192.0.2.32
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret

domain star.test 1
server   127.0.0.1
mdahost  192.0.2.31
port     @PORT@
use_ssl  0
database indimail
user     indimail
pass     secret
server   127.0.0.1
mdahost  192.0.2.32
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret
`

type (
	answers = map[string]string
	files   = map[string]string
	env     = map[string]string
)

// A clusterTest is a configuration, and what it makes of questions.
type clusterTest struct {
	name  string
	env   env
	files files
	want  answers
}

// A cluster has the control files of a single server and of a cluster.
type cluster struct {
	server, cluster files
	port, socket    string // of the database
}

// with returns files with one more, or with another text for one.
func with(of files, name, text string) files {
	m := maps.Clone(of)
	m[name] = text
	return m
}

func without(of files, name string) files {
	m := maps.Clone(of)
	delete(m, name)
	return m
}

// newCluster starts a database with the rows of all these tests.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	db := mariadbtest.ForTest(t)
	script := "CREATE DATABASE store2; GRANT ALL ON store2.* TO indimail@'%', indimail@localhost;"
	for _, table := range []string{"indimail", "indibak", "relay", "valias", "vlimits", "lastauth"} {
		script += fmt.Sprintf("CREATE TABLE store2.%s LIKE indimail.%[1]s;", table)
	}
	// A domain with each of these flags alone.
	for _, flag := range []string{"pop", "smtp", "imap", "relay", "webmail", "passwordchanging", "dialup"} {
		script += fmt.Sprintf("INSERT INTO vlimits (domain,disable_%s) VALUES ('%[1]s.test',1);"+
			"INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)"+
			" VALUES ('user','%[1]s.test','x',1,16,'','','');", flag)
	}
	script += "INSERT INTO vlimits (domain,disable_pop,disable_smtp) VALUES ('limit.test',1,1);" +
		" INSERT INTO vlimits (domain,disable_imap) VALUES ('own@limit.test',1);"
	if err := db.Exec(script + store); err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(db.Port)
	line := "127.0.0.1:indimail:secret:" + port
	return &cluster{
		server: files{"host.mysql": line + "\n"},
		cluster: files{
			"host.mysql": line + ":nossl\n",
			"host.cntrl": line + "\n",
			"mcdinfo":    strings.ReplaceAll(mcdinfo, "@PORT@", port),
			"hostip":     "192.0.2.1\n",
		},
		port:   port,
		socket: db.Socket,
	}
}

// TestCluster asks by many configurations: environment, control files, and what they make of
// questions.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, tests := range [][]clusterTest{
		c.storeTests(), c.domainTests(), c.tableTests(), c.routeTests(), c.databaseTests(),
	} {
		for _, test := range tests {
			t.Run(test.name, test.run)
		}
	}
}

func (test clusterTest) run(t *testing.T) {
	s := newSite(t, nil)
	maps.Copy(s.env, test.env)
	for name, text := range test.files {
		s.control(name, strings.ReplaceAll(text, "@DIR@", s.dir))
	}
	if err := os.Symlink("/nowhere/domains/Plain.Test", filepath.Join(s.dir, "link")); err != nil {
		t.Fatal(err)
	}
	mysql := s.resolver()
	if err := mysql.Reload(false); err != nil {
		t.Fatal(err)
	}
	all(t, mysql, "directly", test.want)
	cache := &inlookup.Cache{Resolver: mysql, DefaultDomain: s.env["DEFAULT_DOMAIN"]}
	for _, when := range []string{"first", "from memory"} {
		all(t, cache, when, test.want)
	}
}

// A user whose host is in no table, or in no entry of mcdinfo, is an error.
func (c *cluster) storeTests() []clusterTest {
	return []clusterTest{
		{"a domain of one store", nil, c.cluster, answers{
			"3 user@plain.test":            "user@plain.test right 0",
			"1 missing@plain.test":         "absent",
			"4 user@plain.test":            "plain.test:192.0.2.30:25",
			"5 list@plain.test":            "[&a@test &b@test]",
			"1 list@plain.test":            "alias",
			"6 plain.test":                 "2 of type 1",
			"6 user@plain.test":            "2 of type 1",
			"2 user@plain.test 192.0.2.50": "true",
			"2 user@plain.test 192.0.2.5":  "false",
			"2 user@plain.tes 192.0.2.50":  "false",
		}},
		{"a distributed domain", nil, c.cluster, answers{
			"3 ann@dist.test":    "ann@dist.test right 0",
			"3 bob@dist.test":    "bob@dist.test right 0",
			"1 nobody@dist.test": "absent",
			"1 lost@dist.test":   "unavailable",
			"3 lost@dist.test":   "unavailable",
			"5 lost@dist.test":   "[]",
			"4 ann@dist.test":    "dist.test:192.0.2.31:2600",
			"4 bob@dist.test":    "dist.test:192.0.2.32:2602",
			"6 dist.test":        "31 of type 1",
			"6 bob@dist.test":    "32 of type 1",
			"5 ann@dist.test":    "[]",
			"1 stray@dist.test":  "unavailable",
		}},
		{"its default row", nil, c.cluster, answers{
			"3 any@star.test": "any@star.test right 0",
			"3 own@star.test": "own@star.test right 0",
			"1 new@star.test": "absent",
			"4 any@star.test": "star.test:192.0.2.31:25",
			"4 own@star.test": "star.test:192.0.2.32:25",
		}},
		{"port by our address", nil, with(c.cluster, "hostip", "192.0.2.7\n"), answers{
			"4 bob@dist.test": "dist.test:192.0.2.32:2601",
			"4 own@star.test": "star.test:192.0.2.32:2603",
		}},
		{"a domain that mcdinfo does not name", nil, c.cluster, answers{
			"3 user@local.test": "user@local.test local 0",
			"4 user@local.test": "local.test:192.0.2.1:25",
		}},
	}
}

func (c *cluster) domainTests() []clusterTest {
	return []clusterTest{
		{"alias domains", nil, c.cluster, answers{
			"7 alias.test":                 "plain.test",
			"7 ALIAS.Test":                 "plain.test",
			"7 plain.test":                 "plain.test",
			"7 nothing.test":               "nothing.test",
			"3 user@alias.test":            "user@alias.test right 0",
			"3 USER@Alias.TEST":            "user@alias.test right 0",
			"1 user@alias.test":            "active",
			"1 missing@alias.test":         "absent",
			"5 list@alias.test":            "[&a@test &b@test]",
			"6 alias.test":                 "2 of type 1",
			"2 user@alias.test 192.0.2.50": "true",
			"3 bob@aliasdist.test":         "bob@aliasdist.test right 0",
			"7 aliasdist.test":             "dist.test",
		}},
		{"other separators", env{"DEFAULT_DOMAIN": "Plain.Test"}, c.cluster, answers{
			"3 user%plain.test": "user@plain.test right 0",
			"3 user:plain.test": "user@plain.test right 0",
			"3 user":            "user@plain.test right 0",
			"1 user":            "active",
			"5 list":            "[&a@test &b@test]",
			"1 missing":         "absent",
			"3 missing":         "absent",
		}},
		{"no default domain", env{"DEFAULT_DOMAIN": ""}, c.cluster, answers{
			"1 user": "absent",
			"3 user": "absent",
		}},
		{"REAL_DOMAINS", env{"REAL_DOMAINS": "a.test:Alias.test:b.test"}, c.cluster, answers{
			"7 alias.test":      "alias.test",
			"1 user@alias.test": "absent",
			"7 aliasdist.test":  "dist.test",
		}},
		{"no host.cntrl", nil, without(c.cluster, "host.cntrl"), answers{
			"7 alias.test":      "alias.test",
			"1 user@alias.test": "absent",
			"3 bob@dist.test":   "bob@dist.test right 0",
		}},
		{"assign", nil, with(c.cluster, "../users/assign", "+linked.test-:linked.test:1:1:@DIR@/link:-::\n+aliased.test-:aliased.test:1:1:@DIR@:-::\n"+
			"+gone.test-:gone.test:1:1:@DIR@/gone:-::\n.\n"), answers{
			"7 linked.test":       "plain.test",
			"3 user@linked.test":  "user@linked.test right 0",
			"7 aliased.test":      "aliased.test",
			"3 user@aliased.test": "user@aliased.test own 0",
			"7 gone.test":         "gone.test",
			"7 alias.test":        "plain.test",
		}},
	}
}

// The gid goes by the domain's limits alone, never by the user's own.
func (c *cluster) tableTests() []clusterTest {
	return []clusterTest{
		{"CNTRL_TABLE", env{"CNTRL_TABLE": "spread"}, c.cluster, answers{
			"3 nobody@dist.test": "nobody@dist.test wrong 0",
			"1 ann@dist.test":    "absent",
		}},
		{"tables with other names", env{"MYSQL_TABLE": "users", "MYSQL_INACTIVE_TABLE": "idle", "RELAY_TABLE": "pop"}, c.server, answers{
			"3 user@local.test":            "user@local.test renamed 0",
			"1 idle@local.test":            "inactive",
			"1 scram@local.test":           "absent",
			"2 user@local.test 192.0.2.60": "true",
			"2 user@plain.test 192.0.2.50": "false",
		}},
		{"tables of several character sets", env{"MYSQL_TABLE": "world"}, c.server, answers{
			"1 世@local.test": "active",
			"3 世@local.test": "世@local.test wide 0",
			"1 界@local.test": "absent",
		}},
		{"a table whose name needs quotes", env{"MYSQL_TABLE": "a`b"}, c.server, answers{
			"1 user@local.test": "unavailable",
		}},
		{"RELAY_CLEAR_MINUTES", env{"RELAY_CLEAR_MINUTES": "1"}, c.cluster, answers{
			"2 user@plain.test 192.0.2.50": "false",
		}},
		{"SCRAM", nil, c.server, answers{
			"3 scram@local.test": "scram@local.test {SCRAM-SHA-256}4096,salt,stored,server:0a0b:salted,$5$x 0",
		}},
		{"no limits in gid", nil, c.server, answers{
			"3 user@limit.test": "user@limit.test x 16",
			"3 plus@limit.test": "plus@limit.test x 8192",
		}},
		{"DOMAIN_LIMITS", env{"DOMAIN_LIMITS": "1"}, c.server, answers{
			"3 user@limit.test":            "user@limit.test x 274",
			"3 plus@limit.test":            "plus@limit.test x 8192",
			"3 own@limit.test":             "own@limit.test x 258",
			"1 user@limit.test":            "over quota",
			"3 user@local.test":            "user@local.test local 0",
			"3 user@pop.test":              "user@pop.test x 18",
			"3 user@smtp.test":             "user@smtp.test x 272",
			"3 user@imap.test":             "user@imap.test x 24",
			"3 user@relay.test":            "user@relay.test x 48",
			"3 user@webmail.test":          "user@webmail.test x 20",
			"3 user@passwordchanging.test": "user@passwordchanging.test x 17",
			"3 user@dialup.test":           "user@dialup.test x 80",
		}},
	}
}

func (c *cluster) routeTests() []clusterTest {
	return []clusterTest{
		{"smtproutes", nil, with(c.server, "smtproutes", "# comment:192.0.2.9:1\nother.test:192.0.2.9:2\nLocal.Test:192.0.2.9:3\nlocal.test:192.0.2.9:4\n"),
			answers{
				"4 user@local.test": "local.test:127.0.0.1:3",
				"4 user@limit.test": "limit.test:127.0.0.1:25",
			}},
		{"smtproutes for all", nil, with(c.server, "smtproutes", ":192.0.2.9:5\nlocal.test:192.0.2.9:6\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:5",
		}},
		{"smtproutes without a port", nil, with(c.server, "smtproutes", "local.test:192.0.2.9\n:192.0.2.9:5\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:25",
		}},
		{"smtproutes with an empty port", nil, with(c.server, "smtproutes", "local.test:192.0.2.9:\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:25",
		}},
		{"smtproutes with nothing", nil, with(c.server, "smtproutes", "local.test:\n:x:9\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:25",
		}},
		{"smtproutes with colons", nil, with(c.server, "smtproutes", "local.test:[2001:db8::1]:2527\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:2527",
		}},
		{"smtproutes that is empty", nil, with(c.server, "smtproutes", ""), answers{
			"4 user@local.test": "local.test:127.0.0.1:25",
		}},
		{"smtproutes of a cluster", nil, with(c.cluster, "smtproutes", "alias.test:x:1\ndist.test:x:2\nplain.test:x:3\n"), answers{
			"4 user@plain.test": "plain.test:192.0.2.30:3",
			"4 ann@dist.test":   "dist.test:192.0.2.31:2600",
			"4 user@alias.test": "alias.test:192.0.2.30:3",
		}},
		{"qmtproutes", nil, with(with(c.server, "smtproutes", "local.test:x:26\n"), "qmtproutes", "local.test:x:210\nlimit.test:x\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:210",
			"4 user@limit.test": "limit.test:127.0.0.1:209",
			"4 user@pop.test":   "pop.test:127.0.0.1:209",
		}},
		{"ROUTES=qmtp", env{"ROUTES": "qmtp"}, with(c.server, "smtproutes", "local.test:x:26\n"), answers{
			"4 user@local.test": "local.test:127.0.0.1:209",
		}},
		{"hostip", nil, with(c.server, "hostip", "192.0.2.44\nmore\n"), answers{
			"4 user@local.test": "local.test:192.0.2.44:25",
		}},
	}
}

func (c *cluster) databaseTests() []clusterTest {
	return []clusterTest{
		{"no control files, a socket", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret"}, nil, answers{
			"3 user@local.test": "user@local.test local 0",
			"7 alias.test":      "alias.test",
			"4 user@local.test": "local.test:127.0.0.1:25",
			"6 plain.test":      "1 of type 1",
		}},
		{"no control files, host and port", env{"MYSQL_HOST": "127.0.0.1", "MYSQL_VPORT": c.port, "MYSQL_USER": "indimail", "MYSQL_PASSWD": "secret"}, nil,
			answers{"3 user@local.test": "user@local.test local 0"}},
		{"another database", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret", "MYSQL_DATABASE": "store2"}, nil, answers{
			"3 user@local.test": "user@local.test second 0",
		}},
		{"host.mysql with a socket", nil, files{"host.mysql": "localhost:indimail:secret:" + c.socket + "\n"}, answers{
			"3 user@local.test": "user@local.test local 0",
		}},
		{"host.mysql in part", env{"MYSQL_PASSWD": "secret", "MYSQL_VPORT": c.port}, files{"host.mysql": "127.0.0.1\n"}, answers{
			"3 user@local.test": "user@local.test local 0",
		}},
		{"CNTRL_ by environment", env{"CNTRL_DATABASE": "nothing"}, c.cluster, answers{
			"7 alias.test":    "unavailable",
			"1 ann@dist.test": "unavailable",
		}},
		{"no central database", env{"CNTRL_DATABASE": "nothing", "REAL_DOMAINS": "dist.test:plain.test"}, c.cluster, answers{
			"1 ann@dist.test":   "unavailable",
			"4 ann@dist.test":   "unavailable",
			"1 user@plain.test": "active",
		}},
		{"one store away", nil, with(c.cluster, "mcdinfo", strings.Replace(c.cluster["mcdinfo"], c.port, "1", 1)), answers{
			"1 user@plain.test": "unavailable",
			"5 list@plain.test": "unavailable",
			"6 plain.test":      "unavailable",
			"3 bob@dist.test":   "bob@dist.test right 0",
		}},
		{"a wrong password", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "wrong"}, nil, answers{
			"3 user@local.test":    "unavailable",
			"1 missing@local.test": "unavailable",
		}},
		{"no such database", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret", "MYSQL_DATABASE": "nothing"}, nil, answers{
			"1 user@local.test": "unavailable",
		}},
		{"TLS, by a certificate that nobody vouches for", nil, files{"host.mysql": "127.0.0.1:indimail:secret:" + c.port + ":ssl\n"}, answers{
			"1 user@local.test": "unavailable",
		}},
	}
}

// A site with nothing but the environment: both commands, as a newcomer starts them.
func TestNoControlFiles(t *testing.T) {
	t.Parallel()
	db := database(t)
	s := newSite(t, db)
	if err := os.Remove(s.env["CONTROLDIR"]); err != nil {
		t.Fatal(err)
	}
	delete(s.env, "DEFAULT_DOMAIN")
	for _, cached := range []bool{false, true} {
		if cached {
			s.env["QUERY_CACHE"] = "1"
			s.serve()
		}
		for _, args := range []string{"-q 1 over@example.com", "-q 3 user@example.com", "-q 6 example.com", "-q 4 user@example.com", "-q 7 example.com"} {
			if status, stdout, stderr := s.run("inquerytest", strings.Fields(args)...); status != 0 || stdout == "" || stderr != "" {
				t.Errorf("%s: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
			}
		}
		if status, stdout, _ := s.run("inquerytest", "-q", "3", "missing@example.com"); status != 1 || stdout != "" {
			t.Errorf("a missing user: exit %d, stdout %q", status, stdout)
		}
	}
}
