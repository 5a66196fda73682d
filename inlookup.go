// Package inlookup answers what mail programs ask about IndiMail's users: is there such a user, what is the password
// entry, where does the mail go.
//
// The users are in MySQL. A Server keeps the connections to it open, remembers answers in a Cache, and is asked over
// named pipes with the wire protocol of IndiMail's C programs inlookup(8) and inquery(3); a Client asks it. Server
// and Client are drop-ins for the C ones, each on its own.
//
//	d := inlookup.Directory{Resolver: inlookup.FromEnv()}
//	entry, err := d.Passwd(ctx, "user@example.com")
//
// To read the source, begin with avl.go (the tree), then cache.go, fifo.go, inquery.go (the asking side) and
// inlookup.go: MySQL, which looks things up, and Server, which serves any Resolver.
//
// MySQL: a question is one round trip wherever the tables allow it, over a statement that each connection has
// prepared once (1.3 times the questions a second of text with the values put in safely). Questions about users that
// wait at the same time share one SELECT.
//
// Server: it never waits for a client, and writes to no file that a client named unless it is a FIFO that somebody
// reads. The thread that reads a request answers a hit itself, since handing it on costs more than answering. What
// must wait for MySQL is bounded in number; what exceeds that is told "error" at once.
//
// The life of a question:
//
//	request FIFO ──▶ reader ──▶ frames ──▶ Cache.peek ──hit──▶ open, write, close the reply FIFO
//	                                          │ miss
//	                            slot (2048) ──┤ none free: "error" at once
//	                            turn (64)   ──┤ none within 3 s: "error"
//	                                          ▼
//	                 open the reply FIFO ──▶ Cache.Resolve ──▶ MySQL.Resolve ──▶ write, close
//	                   gone: no SQL            equal ones       batch, SELECT
//	                                           share a load
package inlookup

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
)

// deadline is for one question, retry included: below the 4 s that clients wait.
const deadline = 3 * time.Second

// MySQL is the Resolver that looks into the databases. The zero MySQL goes by environment and control files, read at
// the first question and at Reload.
type MySQL struct {
	Getenv func(string) string // nil: os.Getenv
	Log    *log.Logger         // warnings about the configuration; nil: none

	reload sync.Mutex // held by who puts another config in force
	config atomic.Pointer[config]
	calls  callCounts
}

// A config is what environment and control files say. It never changes.
type config struct {
	environ
	pools          map[database]*pool
	local, central *pool             // central: of a cluster; without host.cntrl the local one
	cluster        []store           // mcdinfo
	assign         map[string]string // domain to directory
	aliasTable     bool              // host.cntrl exists
	routes         []route
	hostIP         string
	relayAge       int                        // minutes
	selects        [maxBatch + 1][2][2]string // userSQL for the sizes of selectUsers, by shared and alias
	defaultDomain  string
}

// A database is what a pool connects to, comparable so that equal ones share it.
type database struct {
	hosts, port, socket, user, passwd, name, ca string
	tls                                         bool
}

// A store is where users are: an entry of mcdinfo, or the local database.
type store struct {
	domain, mdahost string
	host            string // a distributed user's, by table hostcntrl
	distributed     bool
	db              database
	pool            *pool
}

type route struct{ domain, port string }

// Reload reads environment and control files again. After an error, which names file and line, the old configuration
// stays. With reconnect every connection to MySQL is made anew; else those to servers still configured stay.
func (m *MySQL) Reload(reconnect bool) error {
	m.reload.Lock()
	defer m.reload.Unlock()
	old := m.config.Load()
	if old == nil {
		old = &config{}
	}
	keep := old.pools
	if reconnect {
		keep = nil
	}
	c, err := m.read(keep)
	if err != nil {
		return err
	}
	m.config.Store(c)
	for db, p := range old.pools {
		if c.pools[db] != p {
			p.db.SetMaxIdleConns(-1) // none waits for a question that will not come
		}
	}
	// A question may join a batch just before its deadline, and the batch has its own. A Recent or Check that takes
	// longer fails.
	time.AfterFunc(2*deadline, func() { old.close(c.pools) })
	return nil
}

// Close closes the connections; a question after it opens new ones.
func (m *MySQL) Close() error {
	m.reload.Lock()
	defer m.reload.Unlock()
	if c := m.config.Swap(nil); c != nil {
		c.close(nil)
	}
	return nil
}

// close closes the pools that are not in keep.
func (c *config) close(keep map[database]*pool) {
	for db, p := range c.pools {
		if p != nil && keep[db] != p {
			p.db.Close()
		}
	}
}

// current returns the configuration in force, read now if there is none.
func (m *MySQL) current() (*config, error) {
	for {
		if c := m.config.Load(); c != nil {
			return c, nil
		}
		if err := m.Reload(false); err != nil {
			return nil, err
		}
	}
}

// read reads everything. Pools in keep that fit are taken over.
func (m *MySQL) read(keep map[database]*pool) (c *config, err error) {
	c = &config{environ: environ{m.Getenv}, pools: make(map[database]*pool), assign: make(map[string]string)}
	c.defaultDomain = lower(c.get("DEFAULT_DOMAIN", ""))
	local := database{hosts: "localhost", user: "indimail", name: "indimail", ca: c.get("MYSQL_OPT_SSL_CA", "")}
	var errs [7]error
	if c.relayAge, errs[0] = strconv.Atoi(c.get("RELAY_CLEAR_MINUTES", "30")); errs[0] != nil {
		errs[0] = fmt.Errorf("RELAY_CLEAR_MINUTES: %w", errs[0])
	}
	c.hostIP, errs[1] = c.value("hostip", "127.0.0.1")
	_, errs[2] = c.readServer("MYSQL_", "host.mysql", &local)
	central := local
	c.aliasTable, errs[3] = c.readServer("CNTRL_", "host.cntrl", &central)
	errs[4], errs[5], errs[6] = c.readCluster(), c.readAssign(), c.readRoutes()
	for n := 1; n <= maxBatch; n *= 2 {
		for _, n := range []int{n, max(1, n*3/4)} {
			c.selects[n] = [2][2]string{{c.userSQL(n, false, false), c.userSQL(n, false, true)}, {c.userSQL(n, true, false), c.userSQL(n, true, true)}}
		}
	}
	if err = errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	use := func(db database) (p *pool) {
		if p = or(c.pools[db], keep[db]); p == nil {
			var failed error
			p, failed = openPool(db, &m.calls)
			err = errors.Join(err, failed)
		}
		c.pools[db] = p
		return p
	}
	c.local, c.central = use(local), use(central)
	for i := range c.cluster {
		c.cluster[i].pool = use(c.cluster[i].db)
	}
	if err != nil {
		c.close(keep)
		return nil, err
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo"} {
		if st, err := os.Stat(c.control(name)); err == nil && st.Mode()&0o004 != 0 && m.Log != nil {
			m.Log.Printf("warning: %s holds a password and is readable by all: chmod o-r %[1]s", c.control(name))
		}
	}
	return c, nil
}

// eachLine calls f for each line of the file that is neither blank nor a comment, and says file and line with its
// error. No file has no lines.
func eachLine(path string, f func(line string) error) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	return err
}

// readServer sets db from host:user:password:socket-or-port[:ssl|nossl] in the control file, trailing parts optional,
// and from the environment, which wins.
func (c *config) readServer(prefix, file string, db *database) (there bool, err error) {
	err = eachLine(c.control(file), func(line string) error {
		f := append(strings.Split(line, ":"), "", "", "", "")
		_, err := strconv.ParseUint(or(f[3], "0"), 10, 16)
		if there {
			return nil // the first line counts
		}
		if f[0] == "" || len(f) > 9 || err != nil && f[3][0] != '/' || f[4] != "" && f[4] != "ssl" && f[4] != "nossl" {
			return errors.New("want one line, host:user:password:socket-or-port[:ssl|nossl]")
		}
		there = true
		db.hosts, db.user, db.passwd, db.tls = f[0], or(f[1], db.user), or(f[2], db.passwd), f[4] == "ssl"
		if db.port, db.socket = f[3], ""; err != nil {
			db.port, db.socket = "", f[3]
		}
		return nil
	})
	for name, to := range map[string]*string{"HOST": &db.hosts, "USER": &db.user, "PASSWD": &db.passwd,
		"DATABASE": &db.name, "SOCKET": &db.socket, "VPORT": &db.port} {
		*to = c.get(prefix+name, *to)
	}
	return there, err
}

// readCluster reads mcdinfo: "domain NAME 0|1", then for each of its stores seven lines of a key and a value, in any
// order.
func (c *config) readCluster() error {
	var s store
	seen, complete, path := make(map[string]string), true, c.control("mcdinfo")
	err := eachLine(path, func(line string) error {
		f := append(strings.Fields(line), "", "")
		switch key := f[0]; {
		case key == "domain" && (!complete || len(f) != 5 || f[2] != "0" && f[2] != "1"):
			return errors.New("want domain NAME 0|1, and the entry before it complete")
		case key == "domain":
			s, complete = store{domain: lower(f[1]), distributed: f[2] == "1"}, false
			return nil
		case !slices.Contains(strings.Fields("server mdahost port use_ssl database user pass"), key) || len(f) != 4 || seen[key] != "" || s.domain == "":
			return errors.New("want a key of an entry, once, with one value, in a domain") // not the line: it may hold the password
		}
		if seen[f[0]] = f[1]; len(seen) < 7 {
			complete = false
			return nil
		}
		if _, err := strconv.ParseUint(seen["port"], 10, 16); err != nil || seen["use_ssl"] != "0" && seen["use_ssl"] != "1" {
			return errors.New("want a number for port, and 0 or 1 for use_ssl")
		}
		s.mdahost = seen["mdahost"]
		s.db = database{hosts: seen["server"], port: seen["port"], name: seen["database"], user: seen["user"],
			passwd: seen["pass"], tls: seen["use_ssl"] == "1", ca: c.get("MYSQL_OPT_SSL_CA", "")}
		c.cluster, complete = append(c.cluster, s), true
		clear(seen)
		return nil
	})
	if err == nil && !complete {
		err = fmt.Errorf("%s: the last entry of domain %s is not complete", path, s.domain)
	}
	return err
}

// readAssign reads the lines "+domain-:domain:uid:gid:dir:-::".
func (c *config) readAssign() error {
	return eachLine(filepath.Join(c.get("ASSIGNDIR", "/etc/indimail/users"), "assign"), func(line string) error {
		f := strings.Split(line, ":")
		if line[0] == '+' && len(f) < 6 {
			return errors.New("not of the form +domain-:domain:uid:gid:dir:-::, with six fields at least")
		} else if line[0] == '+' {
			c.assign[lower(strings.TrimSuffix(f[0][1:], "-"))] = f[4]
		}
		return nil
	})
}

// readRoutes reads the lines "domain:relay:port" for their ports. A relay in brackets may hold colons.
func (c *config) readRoutes() error {
	path, port := c.control("qmtproutes"), "209"
	if _, err := os.Stat(path); err != nil && c.get("ROUTES", "") != "qmtp" {
		path, port = c.control("smtproutes"), "25"
	}
	err := eachLine(path, func(line string) error {
		domain, relay, ok := strings.Cut(line, ":")
		if end := strings.IndexByte(relay, ']'); end > 0 && relay[0] == '[' {
			relay = relay[end+1:]
		}
		f := append(strings.Split(relay, ":"), "")
		n, err := strconv.ParseUint(or(f[1], port), 10, 16)
		if !ok || err != nil {
			return fmt.Errorf("want domain:relay:port, not %q", line)
		}
		c.routes = append(c.routes, route{lower(domain), strconv.FormatUint(n, 10)})
		return nil
	})
	c.routes = append(c.routes, route{"", port}) // what holds where no line does
	return err
}

// A pool is the connections to one database.
type pool struct {
	name  string // for people
	db    *sql.DB
	calls *callCounts
	stmts sync.Map // text to *sql.Stmt

	mu      sync.Mutex // guards what follows
	waiting []*asking
	runners int
}

const (
	maxConns   = 16
	maxRunners = 4  // SELECTs for batches at a time; a further one only when a full batch waits
	maxBatch   = 32 // users in one SELECT
)

// MySQLStats counts SELECTs, those that failed, and the time they took together.
type MySQLStats struct {
	Calls, Errors uint64
	Time          time.Duration
}

type callCounts struct {
	mu sync.Mutex // guards what follows
	MySQLStats
}

func (s *callCounts) count(start time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Calls, s.Time, s.Errors = s.Calls+1, s.Time+time.Since(start), s.Errors+uint64(bit(err != nil))
}

// Stats returns what was asked of MySQL so far.
func (m *MySQL) Stats() MySQLStats {
	m.calls.mu.Lock()
	defer m.calls.mu.Unlock()
	return m.calls.MySQLStats
}

// openPool connects to nothing yet.
func openPool(db database, calls *callCounts) (*pool, error) {
	h := &hosts{}
	for _, host := range strings.Split(db.hosts, ",") {
		host = strings.TrimSpace(host)
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.DBName, cfg.Logger = db.user, db.passwd, db.name, &mysql.NopLogger{}
		port := strings.TrimLeft(db.port, "0")
		cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(host, or(port, "3306"))
		if host == "localhost" && (db.socket != "" || port == "") {
			cfg.Net, cfg.Addr = "unix", or(db.socket, "usual socket")
			cfg.DialFunc = func(ctx context.Context, network, _ string) (net.Conn, error) { // the server may come after us
				return new(net.Dialer).DialContext(ctx, network, or(db.socket, usualSocket()))
			}
		}
		if db.tls {
			cfg.TLS = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
		}
		if db.tls && db.ca != "" {
			pem, err := os.ReadFile(db.ca)
			if cfg.TLS.RootCAs = x509.NewCertPool(); !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: no certificates in %s: %w", db.ca, err)
			}
		}
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, fmt.Errorf("MySQL on %s: %w", host, err)
		}
		h.hosts = append(h.hosts, backend{Connector: connector, name: cfg.Addr})
	}
	p := &pool{name: db.name + " on " + db.hosts, db: sql.OpenDB(h), calls: calls}
	p.db.SetMaxOpenConns(maxConns)
	p.db.SetMaxIdleConns(maxConns)
	return p, nil
}

func usualSocket() string {
	paths := []string{"/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"}
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }
	return paths[max(0, slices.IndexFunc(paths, there))]
}

// hosts is a driver.Connector to several servers with the same data: the last good one first, then the others, of which
// one that failed is left alone for a time that doubles with each failure up to 15 s. The last good one, and so an only
// one, is tried for every question: its recovery is seen at once.
type hosts struct {
	hosts []backend

	mu   sync.Mutex // guards good, and wait and until in hosts
	good int
}

type backend struct {
	driver.Connector
	name  string
	wait  time.Duration
	until time.Time
}

func (h *hosts) Driver() driver.Driver { return h.hosts[0].Driver() }

func (h *hosts) Connect(ctx context.Context) (driver.Conn, error) {
	var failed error
	h.mu.Lock()
	defer h.mu.Unlock()
	n, first, now := len(h.hosts), h.good, time.Now()
	order := make([]int, 0, n) // those left alone come last: there is nothing better when the others fail
	for _, alone := range []bool{false, true} {
		for i := range n {
			if at := (first + i) % n; alone == (i > 0 && now.Before(h.hosts[at].until)) {
				order = append(order, at)
			}
		}
	}
	for i, at := range order {
		b := &h.hosts[at]
		start := time.Now()
		h.mu.Unlock()
		left := deadline // database/sql connects without one, too, when askers wait for a connection that died
		if until, ok := ctx.Deadline(); ok {
			left = time.Until(until)
		}
		one, cancel := context.WithTimeout(ctx, left/time.Duration(n-i)) // the others shall have their share of the time
		conn, err := b.Connect(one)
		if err == nil && n > 1 {
			err = ready(one, conn)
		}
		cancel()
		h.mu.Lock()
		if err == nil {
			h.good, b.wait, b.until = at, 0, time.Time{}
			return conn, nil
		}
		if err = fmt.Errorf("%s: %w", b.name, err); failed != nil {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		if failed = err; ctx.Err() != nil {
			break // the asker's time is up, which says nothing about this host
		}
		if start.After(b.until) { // those who tried at the same time are one failure
			b.wait = min(max(2*b.wait, 250*time.Millisecond), 15*time.Second)
			b.until = time.Now().Add(b.wait/2 + rand.N(b.wait/2)) // jitter: not all servers at the same time
		}
	}
	return nil, failed
}

// ready finds out whether a server that let us in also answers: a Galera node that has lost the majority, or is not up
// to date yet, lets everybody in and refuses what is asked, even this, which asks for nothing.
func ready(ctx context.Context, conn driver.Conn) error {
	_, err := conn.(driver.ExecerContext).ExecContext(ctx, "DO 0", nil)
	if err != nil {
		conn.Close()
	}
	return err
}

// What MariaDB says to a question it does not get to, ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED and, of a Galera node that
// is not ready, ER_UNKNOWN_COM_ERROR; to one that compares a column with what its character set lacks,
// ER_CANT_AGGREGATE_2COLLATIONS (MySQL: 3988); and when it has no more connections, ER_CON_COUNT_ERROR and
// ER_TOO_MANY_USER_CONNECTIONS.
const errShutdown, errKilled, errNotReady, errCollations, errConversion, errFull, errFullUser = 1053, 1927, 1047, 1267, 3988, 1040, 1203

// query returns the rows of one SELECT, NULL as "". What died with its connection, or took half of deadline, is asked
// once more on another connection: it only reads. What MySQL itself refuses is not.
func (p *pool) query(outer context.Context, text string, args ...any) (rows [][]string, err error) {
	half, cancel := context.WithTimeout(outer, deadline/2)
	defer cancel()
	var refused *mysql.MySQLError
	for _, ctx := range []context.Context{half, outer} {
		for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
			rows = nil
			err = p.each(ctx, text, args, func(row []string) bool {
				rows = append(rows, slices.Clone(row))
				return true
			})
			if !errors.As(err, &refused) || refused.Number != errFull && refused.Number != errFullUser || p.db.Stats().OpenConnections == 0 {
				break
			}
			time.Sleep(wait) // no more connections to be had, but one of ours may be free
		}
		if err == nil || outer.Err() != nil || errors.As(err, &refused) && !slices.Contains([]uint16{errShutdown, errKilled, errNotReady}, refused.Number) {
			break
		}
		p.db.SetMaxIdleConns(0) // the other connections to what died or hangs are no better
		p.db.SetMaxIdleConns(maxConns)
	}
	switch {
	case errors.As(err, &refused) && (refused.Number == errCollations || refused.Number == errConversion) && !ascii(fmt.Sprint(args...)):
		return nil, nil // no such letter, no such row
	case err != nil:
		err = fmt.Errorf("database %s: %w", p.name, err)
	}
	return rows, err
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// each calls row for the rows of one SELECT as they come, until it returns false.
func (p *pool) each(ctx context.Context, text string, args []any, row func([]string) bool) (err error) {
	defer func(start time.Time) { p.calls.count(start, err) }(time.Now())
	stmt, ok := p.stmts.Load(text)
	if !ok {
		prepared, err := p.db.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		if stmt, ok = p.stmts.LoadOrStore(text, prepared); ok {
			prepared.Close()
		}
	}
	rows, err := stmt.(*sql.Stmt).QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	raw, to, values := make([]sql.RawBytes, len(columns)), make([]any, len(columns)), make([]string, len(columns))
	for i := range raw {
		to[i] = &raw[i]
	}
	for more := true; more && err == nil && rows.Next(); more = err == nil && row(values) {
		err = rows.Scan(to...)
		for i := range raw {
			values[i] = string(raw[i])
		}
	}
	return errors.Join(err, rows.Err())
}

// An asking is a question about one user that waits for a SELECT.
type asking struct {
	*config
	ctx           context.Context
	local, domain string
	alias         bool // look into valias as well
	done          chan struct{}
	user          userRow
	err           error
}

// A userRow is what the tables say about a user.
type userRow struct {
	place int    // the table where it was found
	gid   int    // as it stands there
	entry string // passwd:uid:gid:gecos:dir:shell, in gid the flags of the domain's limits
}

const (
	inUsers = iota
	inInactive
	inAlias
	nowhere
)

// user looks a user up. Questions that come while a SELECT is under way wait, and then share the next one: the busier
// MySQL is, the more do so. (16 askers get twice the answers a second that one SELECT each would give, and 1.25
// times what two SELECTs at a time give, since larger ones are cheaper.)
func (c *config) user(ctx context.Context, p *pool, local, domain string, alias bool) (userRow, error) {
	a := &asking{config: c, ctx: ctx, local: local, domain: domain, alias: alias, done: make(chan struct{})}
	p.mu.Lock()
	if !ascii(local + domain) {
		go p.selectUsers([]*asking{a}) // alone: MySQL may refuse it (errCollations)
	} else if p.waiting = append(p.waiting, a); p.runners == 0 || p.runners < maxRunners && len(p.waiting) > maxBatch {
		p.runners++
		go p.run()
	}
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.user, a.err
	case <-ctx.Done():
		return userRow{}, fmt.Errorf("database %s: %w", p.name, ctx.Err())
	}
}

// run answers what waits, in batches, until nothing does.
func (p *pool) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) > 0 {
		n := min(len(p.waiting), maxBatch)
		batch := slices.Clone(p.waiting[:n])
		p.waiting = slices.Delete(p.waiting, 0, n)
		p.mu.Unlock()
		batch = slices.DeleteFunc(batch, func(a *asking) bool { return a.ctx.Err() != nil }) // nobody waits for it
		if len(batch) > 0 {
			p.selectUsers(batch)
		}
		p.mu.Lock()
	}
	p.runners--
}

// selectUsers answers a batch. The number of names in the statement is a power of two or three quarters of one, the last
// name repeated, so that there are few statements to prepare. They are those of the latest configuration among who ask.
func (p *pool) selectUsers(batch []*asking) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	size, names, alias := 1, []any{}, false
	for size < len(batch) {
		size *= 2
	}
	if size*3/4 >= len(batch) {
		size = size * 3 / 4
	}
	shared := !slices.ContainsFunc(batch, func(a *asking) bool { return a.domain != batch[0].domain })
	for i := range size {
		a := batch[min(i, len(batch)-1)]
		if i == 0 || !shared {
			names = append(names, a.domain)
		}
		names, alias = append(names, a.local), alias || a.alias
	}
	texts := []string{batch[len(batch)-1].selects[size][bit(shared)][bit(alias)]}
	if !ascii(batch[0].local + batch[0].domain) { // alone: one table's character set may lack a letter that another's has
		texts = strings.Split(texts[0], unionAll)
	}
	var rows [][]string
	var err error
	for _, text := range texts {
		more, failed := p.query(ctx, text, slices.Repeat(names, 1+strings.Count(text, unionAll))...)
		rows, err = append(rows, more...), errors.Join(err, failed)
	}
	found := make(map[[2]string]userRow, len(batch))
	for _, row := range rows {
		place, err1 := strconv.Atoi(row[0])
		gid, err2 := strconv.Atoi(row[3])
		err = errors.Join(err, err1, err2)
		key := [2]string{lower(row[1]), lower(row[2])} // MySQL finds "jürgen" for "jurgen": only who was asked for counts
		if old, ok := found[key]; !ok || place < old.place {
			found[key] = userRow{place, gid, row[4]}
		}
	}
	for _, a := range batch {
		user, ok := found[[2]string{a.local, a.domain}]
		if !ok {
			user.place = nowhere
		}
		a.user, a.err = user, err
		close(a.done)
	}
}

const unionAll = " UNION ALL "

// userSQL is the SELECT for n users, for each of its tables with the placeholders of these. The entry comes in one column,
// since each column costs about what its content does. With DOMAIN_LIMITS the limits of user or domain set flags in the
// gid, unless the gid exempts the user.
func (c *config) userSQL(n int, shared, alias bool) string {
	gid, join := "IFNULL(pw_gid,0)", ""
	if c.get("DOMAIN_LIMITS", "") != "" {
		flags := gid
		for i, name := range []string{"passwordchanging", "pop", "webmail", "imap", "", "relay", "dialup", "", "smtp"} {
			if name != "" {
				flags += fmt.Sprintf("|IF(COALESCE(u.disable_%s,d.disable_%[1]s,0),%d,0)", name, 1<<i)
			}
		}
		gid = "IF(" + gid + "&0x2000," + gid + "," + flags + ")"
		join = " LEFT JOIN vlimits u ON u.domain=CONCAT(pw_name,'@',pw_domain) LEFT JOIN vlimits d ON d.domain=pw_domain"
	}
	rows := func(place int, table string) string {
		return fmt.Sprint("SELECT ", place, ",pw_name,pw_domain,IFNULL(pw_gid,0),CONCAT_WS(':',IF(scram IS NULL,pw_passwd,CONCAT(scram,',',pw_passwd)),",
			"IFNULL(pw_uid,0),", gid, ",pw_gecos,IFNULL(pw_dir,''),IFNULL(pw_shell,'')) FROM ", table, join, " WHERE ", these("pw_domain", "pw_name", n, shared))
	}
	text := rows(inUsers, c.table("MYSQL_TABLE", "indimail")) + unionAll + rows(inInactive, c.table("MYSQL_INACTIVE_TABLE", "indibak"))
	if alias {
		text += fmt.Sprint(unionAll, "SELECT DISTINCT ", inAlias, ",alias,domain,0,'' FROM valias WHERE ", these("domain", "alias", n, shared))
	}
	return text
}

// these is the condition that a row is of one of n users. Its placeholders are the domain they share and the n names, or
// n times a domain and a name. For a dozen MariaDB takes 0.8 times as long with IN as with OR, for 32 some 0.6 times. IN
// with pairs, for users of several domains, would be as quick, but finds nothing in columns of the character sets ucs2,
// utf16 and utf32 (seen with 10.11): a user who is there would be absent.
func these(domain, name string, n int, shared bool) string {
	if shared {
		return domain + "=? AND " + name + " IN (?" + strings.Repeat(",?", n-1) + ")"
	}
	pair := domain + "=? AND " + name + "=?"
	return strings.Repeat(pair+" OR ", n-1) + pair
}

const (
	aliasSQL       = "SELECT alias,domain,valias_line FROM valias WHERE alias=? AND domain=?"
	limitsSQL      = "SELECT domain," + limitColumns + " FROM vlimits WHERE domain IN (?,?)"
	aliasDomainSQL = "SELECT alias,domain FROM aliasdomain WHERE alias=?"
	portSQL        = "SELECT domain,port FROM smtp_port WHERE host=? AND domain=? AND src_host IN (?,'*') ORDER BY src_host='*'"
)

func (c *config) relaySQL() string {
	return "SELECT email,ipaddr FROM " + c.table("RELAY_TABLE", "relay") + " WHERE ipaddr=? AND email=? AND timestamp>?"
}

func (c *config) hostSQL() string {
	return "SELECT pw_name,pw_domain,h.host,ipaddr FROM " + c.table("CNTRL_TABLE", "hostcntrl") +
		" h JOIN host_table t ON t.host=h.host WHERE pw_domain=? AND pw_name IN (?,'*') ORDER BY pw_name='*'"
}

// table returns the name of a table, quoted.
func (c *config) table(variable, def string) string {
	return "`" + strings.ReplaceAll(c.get(variable, def), "`", "``") + "`"
}

// Resolve looks q up. What is not in the tables is an answer; where there is none, the error wraps ErrUnavailable and
// names the database.
func (m *MySQL) Resolve(ctx context.Context, q Query) (a Answer, err error) {
	c, err := m.current()
	if err == nil {
		if until, ok := ctx.Deadline(); !ok || time.Until(until) > deadline { // Server's and Cache's contexts have one
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, deadline)
			defer cancel()
		}
		if a, err = c.resolve(ctx, q); err == nil && a.failed(q.Type) {
			err = fmt.Errorf("the answer for %q: %w: more than %d bytes", q.Email, ErrTooLong, maxReply)
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: %v: %w", ErrUnavailable, q.Type, err)
	}
	return a, nil
}

func (c *config) resolve(ctx context.Context, q Query) (Answer, error) {
	local, domain := q.split(c.defaultDomain)
	if !q.Type.known() || q.Type.extension() || q.Type == TypeRelay && q.IP == "" {
		return "", fmt.Errorf("%w: the database cannot answer this", ErrInvalid)
	}
	if !plausible(local, domain) || local == "" && q.Type != TypeLimit && q.Type != TypeDomain {
		return Absent(q), nil
	}
	real, err := c.realDomain(ctx, domain)
	if q.Type == TypeDomain || err != nil {
		return NewData(q.Type, real), err
	}
	at, err := c.place(ctx, local, real)
	switch {
	case at == nil || err != nil:
		return Absent(q), err
	case q.Type == TypeRelay:
		return c.relay(ctx, at.pool, local+"@"+real, q.IP)
	case q.Type == TypeAlias:
		return alias(ctx, at.pool, local, real)
	case local == "":
		return limits(ctx, at.pool, real, real)
	case q.Type == TypeHost && at.distributed:
		return c.route(ctx, at, domain, real)
	}
	user, err := c.user(ctx, at.pool, local, real, q.Type == TypeUser)
	switch {
	case err != nil:
		return "", err
	case q.Type == TypeUser:
		return user.status(), nil
	case user.place > inInactive:
		return Absent(q), nil
	case q.Type == TypePasswd:
		return user.passwd(local + "@" + domain), nil
	case q.Type == TypeHost:
		return c.route(ctx, at, domain, real)
	}
	return limits(ctx, at.pool, local+"@"+real, real)
}

// plausible reports whether such an address could be in the tables at all, with their columns of 40 and 67
// characters.
func plausible(local, domain string) bool {
	control := func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }
	return domain != "" && !strings.ContainsFunc(local+domain, control) &&
		utf8.RuneCountInString(local) <= 40 && utf8.RuneCountInString(domain) <= 67
}

func (u userRow) status() Answer {
	s := [...]Status{inUsers: StatusActive, inInactive: StatusInactive, inAlias: StatusAlias, nowhere: StatusAbsent}[u.place]
	if u.place == inUsers && u.gid&0x10 != 0 {
		s = StatusOverQuota
	}
	return NewAnswer(int(s))
}

func (u userRow) passwd(email string) Answer {
	return NewData(TypePasswd, pwStruct+email+":"+u.entry+":"+strconv.Itoa(u.place))
}

// realDomain returns the domain behind an alias domain.
func (c *config) realDomain(ctx context.Context, domain string) (string, error) {
	if slices.Contains(strings.Split(lower(c.get("REAL_DOMAINS", "")), ":"), domain) {
		return domain, nil
	}
	if dir, ok := c.assign[domain]; ok {
		target, err := os.Readlink(dir)
		switch {
		case err == nil:
			return lower(filepath.Base(target)), nil
		case errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist): // no link: the domain is real
			return domain, nil
		}
		return "", err // who knows whose domain this is
	}
	if !c.aliasTable {
		return domain, nil
	}
	rows, err := c.central.query(ctx, aliasDomainSQL, domain)
	for _, row := range rows {
		if lower(row[0]) == domain && row[1] != "" {
			domain = lower(row[1])
		}
	}
	return domain, err
}

// place returns the store with the user's rows, nil if the user is nowhere. The users of a distributed domain are
// spread over its stores by table hostcntrl.
func (c *config) place(ctx context.Context, local, real string) (*store, error) {
	first := slices.IndexFunc(c.cluster, func(s store) bool { return s.domain == real })
	if first < 0 {
		return &store{mdahost: c.hostIP, pool: c.local}, nil
	}
	if s := c.cluster[first]; !s.distributed || local == "" {
		return &s, nil
	}
	rows, err := c.central.query(ctx, c.hostSQL(), real, local)
	for _, row := range rows {
		if name := lower(row[0]); name != local && name != "*" || lower(row[1]) != real {
			continue
		}
		i := slices.IndexFunc(c.cluster, func(s store) bool { return s.domain == real && s.mdahost == row[3] })
		if i < 0 {
			return nil, fmt.Errorf("%s: domain %s has no entry with mdahost %s", c.control("mcdinfo"), real, row[3])
		}
		s := c.cluster[i]
		s.host = row[2]
		return &s, nil
	}
	return nil, err
}

func (c *config) relay(ctx context.Context, p *pool, email, ip string) (Answer, error) {
	rows, err := p.query(ctx, c.relaySQL(), ip, email, time.Now().Unix()-int64(c.relayAge)*60)
	there := slices.ContainsFunc(rows, func(row []string) bool { return lower(row[0]) == email && row[1] == ip })
	return NewAnswer(bit(there)), err
}

func alias(ctx context.Context, p *pool, local, real string) (Answer, error) {
	rows, err := p.query(ctx, aliasSQL, local, real)
	var lines []string
	for _, row := range rows {
		if lower(row[0]) == local && lower(row[1]) == real {
			lines = append(lines, row[2]+"\n")
		}
	}
	slices.Sort(lines)
	return NewData(TypeAlias, strings.Join(lines, "")), err
}

// route returns the SMTP route.
func (c *config) route(ctx context.Context, at *store, domain, real string) (Answer, error) {
	port := "25"
	if !at.distributed { // the last of the routes is for any domain
		port = c.routes[slices.IndexFunc(c.routes, func(r route) bool { return r.domain == real || r.domain == "" })].port
		return NewData(TypeHost, domain+":"+at.mdahost+":"+port), nil
	}
	rows, err := c.central.query(ctx, portSQL, at.host, real, c.hostIP)
	for _, row := range slices.Backward(rows) { // the first counts
		if lower(row[0]) == real && row[1] != "0" {
			port = or(row[1], port)
		}
	}
	return NewData(TypeHost, domain+":"+at.mdahost+":"+port), err
}

// limitColumns are the record's fields in their order, 11 of 64 bits and the others of 16. One column, perm_maillist,
// holds three of them, 3 bits each.
const limitColumns = "domain_expiry,passwd_expiry,maxpopaccounts,maxaliases,maxforwards,maxautoresponders,maxmailinglists," +
	"diskquota,maxmsgcount,defaultquota,defaultmaxmsgcount," +
	"disable_pop,disable_imap,disable_dialup,disable_passwordchanging,disable_webmail,disable_relay,disable_smtp," +
	"perm_account,perm_alias,perm_forward,perm_autoresponder,perm_maillist&7,(perm_maillist>>3)&7,(perm_maillist>>6)&7,perm_quota,perm_defaultquota"

// limits answers with the row of email, else that of its domain, else, unless the domain itself is asked about, with
// the defaults.
func limits(ctx context.Context, p *pool, email, domain string) (Answer, error) {
	rows, err := p.query(ctx, limitsSQL, email, domain)
	of := func(key string) int {
		return slices.IndexFunc(rows, func(row []string) bool { return lower(row[0]) == key })
	}
	own, shared := of(email), of(domain)
	row, kind := append(slices.Repeat([]string{"-1"}, 7), slices.Repeat([]string{"0"}, 20)...), "1"
	switch {
	case err != nil:
		return "", err
	case own >= 0 && email != domain:
		row, kind = rows[own][1:], "2"
	case shared >= 0:
		row = rows[shared][1:]
	case email == domain:
		return NewAnswer(0), nil
	}
	var record [limitsSize]byte
	at := record[:0]
	for i, column := range append(row, kind) {
		n, err := strconv.ParseInt(column, 10, 64)
		if u, err2 := strconv.ParseUint(column, 10, 64); err2 == nil {
			n, err = int64(u), nil // a BIGINT UNSIGNED may be beyond int64
		}
		if err != nil {
			return "", fmt.Errorf("table vlimits of database %s: %w", p.name, err)
		}
		if i < 11 {
			at = binary.NativeEndian.AppendUint64(at, uint64(n))
		} else {
			at = binary.NativeEndian.AppendUint16(at, uint16(n))
		}
	}
	return NewAnswer(limitsSize) + Answer(record[:]), nil
}

// Recent calls add with the password entries of those who logged in within the last age, latest first, until add
// returns false. It leaves out distributed domains, of whose rows only the central database knows which one counts.
func (m *MySQL) Recent(ctx context.Context, age time.Duration, add func(Query, Answer) bool) error {
	c, err := m.current()
	if err != nil {
		return err
	}
	text, _, _ := strings.Cut(c.userSQL(1, true, false), " WHERE ")
	text += " JOIN (SELECT user,domain,MAX(timestamp) latest FROM lastauth WHERE service IN ('imap','pop3','webm')" +
		" AND timestamp>=NOW()-INTERVAL ? SECOND GROUP BY user,domain) l ON l.user=pw_name AND l.domain=pw_domain ORDER BY latest DESC"
	more, isReal := true, make(map[string]bool) // rows left under what is now an alias domain do not count
	for _, p := range c.pools {
		if p != c.local && !slices.ContainsFunc(c.cluster, func(s store) bool { return s.pool == p && !s.distributed }) {
			continue // there may be no such tables
		}
		elsewhere := func(domain string) bool {
			if _, ok := isReal[domain]; !ok {
				real, err := c.realDomain(ctx, domain)
				isReal[domain] = err == nil && real == domain
			}
			i := slices.IndexFunc(c.cluster, func(s store) bool { return s.domain == domain })
			return !isReal[domain] || i < 0 && p != c.local || i >= 0 && (c.cluster[i].distributed || c.cluster[i].pool != p)
		}
		err = errors.Join(err, p.each(ctx, text, []any{int64(age.Seconds())}, func(row []string) bool {
			if email := lower(row[1] + "@" + row[2]); !elsewhere(lower(row[2])) {
				more = add(Query{Type: TypePasswd, Email: email}, userRow{entry: row[4]}.passwd(email))
			}
			return more
		}))
		if !more {
			break
		}
	}
	return err
}

// Check asks every configured database all that the seven queries may ask it, about nobody, and calls say with each
// outcome: the database, what was asked, the error if any, and how long it took.
func (m *MySQL) Check(ctx context.Context, say func(database, what string, took time.Duration, err error)) error {
	c, err := m.current()
	if err != nil {
		return err
	}
	spread := slices.ContainsFunc(c.cluster, func(s store) bool { return s.distributed })
	for _, p := range c.pools {
		users := p == c.local || slices.ContainsFunc(c.cluster, func(s store) bool { return s.pool == p })
		for _, of := range []struct {
			what, text string
			here       bool
		}{
			{"users", c.userSQL(1, true, true), users}, {"relay", c.relaySQL(), users}, {"aliases", aliasSQL, users}, {"limits", limitsSQL, users},
			{"alias domains", aliasDomainSQL, p == c.central && c.aliasTable},
			{"distributed users", c.hostSQL(), p == c.central && spread}, {"ports", portSQL, p == c.central && spread},
		} {
			if start := time.Now(); of.here {
				one, cancel := context.WithTimeout(ctx, deadline)
				_, err := p.query(one, of.text, slices.Repeat([]any{"0"}, strings.Count(of.text, "?"))...)
				cancel()
				say(p.name, of.what, time.Since(start), err)
				if err != nil && !errors.As(err, new(*mysql.MySQLError)) {
					break // who does not answer this one will not answer the others
				}
			}
		}
	}
	return nil
}

// A Place says where MySQL would look an address up.
type Place struct {
	RealDomain  string
	Database    string // name and host; "" if the address can be nowhere
	MailStore   string
	Distributed bool
}

// Place finds out where the answer to q would come from.
func (m *MySQL) Place(ctx context.Context, q Query) (w Place, err error) {
	c, err := m.current()
	if err != nil {
		return w, err
	}
	local, domain := q.split(c.defaultDomain)
	if w.RealDomain = domain; !plausible(local, domain) {
		return w, nil
	}
	if w.RealDomain, err = c.realDomain(ctx, domain); err != nil {
		return w, err
	}
	at, err := c.place(ctx, local, w.RealDomain)
	if at != nil {
		w.Database, w.MailStore, w.Distributed = at.pool.name, at.mdahost, at.distributed
	}
	return w, err
}

// A Server answers requests from FIFOs with what Resolver says. If that is a Cache, a hit is answered by the thread
// that read the request.
type Server struct {
	Resolver  Resolver
	Infifo    string              // name or path of the request FIFO; "": INFIFO, else infifo
	Instances int                 // request FIFOs NAME.1 to NAME.N; 0 or 1: NAME alone
	Getenv    func(string) string // nil: os.Getenv
	Log       *log.Logger         // faults, one line a second at most; nil: none
	Out       io.Writer           // debug lines, each one Write, from several goroutines at once; nil: none
	Debug     atomic.Bool         // whether there are debug lines

	// About answers TypeStatus, TypeFlush and TypeExplain, which are about the server itself; nil: "error".
	About func(ctx context.Context, q Query) (string, error)

	fifos   []*requestFIFO
	replies replies
	slots   chan struct{} // held by each request that was not answered at once
	turns   chan struct{} // held by those of them that are being resolved
	logged  atomic.Int64  // when, Unix seconds

	mu    sync.Mutex // guards stats
	stats ServerStats
}

const (
	maxWaiting = 2048 // requests not answered at once
	maxTurns   = 64   // of those, how many Resolver sees at a time: two full batches
)

// ServerStats counts requests since Started.
type ServerStats struct {
	Started       time.Time
	Queries       [TypeDomain + 1]uint64 // by Type; [0] unused
	Refused       uint64                 // bytes that were no request
	Undeliverable uint64                 // replies without a reader, or without room
	Busy          uint64                 // refused because too many waited
	Unavailable   uint64                 // answered with an error
	Waiting       int                    // now
}

// Stats returns the counts.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Waiting = len(s.slots)
	return s.stats
}

// Listen makes and opens the request FIFOs. Serve does it if it was not done.
func (s *Server) Listen() error {
	e := environ{s.Getenv}
	mode, err := strconv.ParseUint(e.get("FIFO_MODE", "660"), 8, 9)
	if err != nil {
		return fmt.Errorf("FIFO_MODE: want an octal mode: %w", err)
	}
	dir := e.get("REPLYDIR", "")
	if s.replies.dir = strings.TrimRight(dir, "/"); dir != "" && (s.replies.dir == "" || dir[0] != '/') {
		return fmt.Errorf("REPLYDIR: want the absolute path of a directory below /, not %q", dir)
	}
	path, _ := fifoPath(e, s.Infifo)
	for i := range max(1, s.Instances) {
		name := path
		if s.Instances > 1 {
			name += "." + strconv.Itoa(i+1)
		}
		f, err := openRequestFIFO(name, fs.FileMode(mode))
		if err != nil {
			s.close()
			return err
		}
		if s.Instances <= 64 { // 8 MB: all pipes of a user share 64 MB, and are small when he has more (pipe(7))
			f.enlarge()
		}
		s.fifos, s.replies.own = append(s.fifos, f), append(s.replies.own, f)
	}
	s.slots, s.turns, s.stats.Started = make(chan struct{}, maxWaiting), make(chan struct{}, maxTurns), time.Now()
	return nil
}

// close removes and closes the FIFOs.
func (s *Server) close() {
	for _, f := range s.fifos {
		f.stop()
		f.close()
	}
	s.fifos, s.replies.own = nil, nil
}

// Serve answers until ctx is done. Then it removes the FIFOs, answers what was asked before that, and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	if s.fifos == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	defer s.close()
	errs := make(chan error, len(s.fifos))
	for _, f := range s.fifos {
		go func() { errs <- s.read(f) }()
	}
	var err error
	left := len(s.fifos)
	select {
	case <-ctx.Done():
	case err = <-errs:
		left--
	}
	for _, f := range s.fifos {
		f.stop()
	}
	for range left {
		err = errors.Join(err, <-errs)
	}
	for range maxWaiting {
		s.slots <- struct{}{} // ends: who holds one has a deadline
	}
	return err
}

// read answers what comes from one FIFO, until it is stopped.
func (s *Server) read(f *requestFIFO) error {
	buf, have := make([]byte, 2*requestPipe), 0 // one read empties it
	scratch := make([]byte, 0, 4*maxRequest)    // for keys
	cache, _ := s.Resolver.(*Cache)
	for left := pipeMax + len(buf); left > 0; {
		if len(s.slots) > 0 {
			runtime.Gosched() // misses first: the read may block and, until the runtime notices, keep their processor
		}
		n, err := f.read(buf[have:])
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if f.stopping.Load() {
			left -= n // what was asked before is among these: who keeps it open and goes on asking shall not hold us up
		}
		have += n
		used, refused := frames(buf[:have], have == len(buf), func(r request) { s.answer(f, r, cache, scratch) })
		have = copy(buf, buf[used:have])
		if refused > 0 && !f.stopping.Load() {
			s.count(&s.stats.Refused, refused)
			s.logf("%s: %d bytes that are no request", f.path, refused)
		}
	}
	return nil
}

// answer answers one request: here if the answer is in memory, else from a goroutine.
func (s *Server) answer(f *requestFIFO, r request, cache *Cache, scratch []byte) {
	var a Answer
	if cache != nil {
		a, _ = cache.peek(scratch, r.typ, r.email)
	}
	if !r.typ.extension() {
		s.count(&s.stats.Queries[r.typ], 1)
	}
	if s.Debug.Load() && s.Out != nil {
		s.debug(f, r, a != "")
	}
	if a != "" {
		s.deliver(r.reply, func() Answer { return a })
		return
	}
	q, reply := Query{r.typ, string(r.email), string(r.ip)}, bytes.Clone(r.reply)
	select {
	case s.slots <- struct{}{}:
		go s.miss(reply, q)
	default:
		s.count(&s.stats.Busy, 1)
		s.logf("%d requests wait already: a %v is refused", maxWaiting, q.Type)
		s.deliver(reply, func() Answer { return failed(q.Type) })
	}
}

// miss answers one request when it has its turn. Questions about the server itself do not wait for one: they are asked
// when the others do.
func (s *Server) miss(reply []byte, q Query) {
	defer func() { <-s.slots }()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	a := func() Answer { return s.resolve(ctx, q) }
	if !q.Type.extension() {
		select {
		case s.turns <- struct{}{}:
			defer func() { <-s.turns }()
		case <-ctx.Done():
			s.count(&s.stats.Unavailable, 1)
			a = func() Answer { return failed(q.Type) }
		}
	}
	s.deliver(reply, a)
}

// deliver opens the reply FIFO, finds out the answer and writes it: in that order, so that an asker who has gone
// costs no SQL.
func (s *Server) deliver(reply []byte, answer func() Answer) {
	fd, err := s.replies.open(reply)
	if err == nil {
		err = s.replies.send(fd, answer())
	}
	if err != nil {
		s.count(&s.stats.Undeliverable, 1)
	}
	if err == syscall.EACCES || err == syscall.EMFILE || err == syscall.ENFILE { // the asker may be there
		s.logf("open reply FIFO %q: %v", reply, err)
	}
}

// count adds to one of stats.
func (s *Server) count(n *uint64, by int) {
	s.mu.Lock()
	*n += uint64(by)
	s.mu.Unlock()
}

// resolve returns the answer that travels, with errors as the wire has them.
func (s *Server) resolve(ctx context.Context, q Query) (a Answer) {
	var err error
	switch {
	case !q.Type.extension():
		a, err = s.Resolver.Resolve(ctx, q)
	case s.About != nil:
		var text string
		text, err = s.About(ctx, q)
		a = NewData(q.Type, text)
	default:
		err = fmt.Errorf("%w: %v", ErrInvalid, q.Type)
	}
	if err != nil {
		s.count(&s.stats.Unavailable, 1)
		s.logf("%v", err)
		return failed(q.Type)
	}
	return a
}

// ServeConn answers one request that comes over r with one answer on w, as tcpserver(1) wants it.
func (s *Server) ServeConn(ctx context.Context, r io.Reader, w io.Writer) error {
	b, have := make([]byte, maxRequest), 0
	for {
		req, size := parseRequest(b[:have])
		if size == 0 {
			return fmt.Errorf("%w: what came is no request", ErrInvalid)
		}
		if size > 0 {
			_, err := io.WriteString(w, string(s.resolve(ctx, Query{req.typ, string(req.email), string(req.ip)})))
			return err
		}
		n, err := r.Read(b[have:])
		if have += n; n == 0 && err != nil {
			return fmt.Errorf("reading the request: %w", err)
		}
	}
}

// logf writes a line, at most one a second.
func (s *Server) logf(format string, args ...any) {
	now := time.Now().Unix()
	if last := s.logged.Load(); s.Log != nil && now != last && s.logged.CompareAndSwap(last, now) {
		s.Log.Printf(format, args...)
	}
}

// debug writes the lines that IndiMail's graphing program parses.
func (s *Server) debug(f *requestFIFO, r request, hit bool) {
	printable := func(b []byte) string { // what could end the line or steer a terminal is not
		return strings.Map(func(c rune) rune {
			if strconv.IsPrint(c) {
				return c
			}
			return '?'
		}, string(b))
	}
	from, ip := filepath.Base(f.path)+"->"+printable(r.reply), "N/A"
	if r.typ == TypeRelay {
		ip = printable(r.ip)
	}
	size := 2 + len(r.email) + len(r.reply) + len(r.ip) + 3
	line := fmt.Sprintf("%s, Bytes %d, Query ['%v'], User %s, RemoteIp %s\n", from, size, r.typ, printable(r.email), ip)
	if hit {
		line += from + ", cache hit\n"
	}
	io.WriteString(s.Out, line)
}
