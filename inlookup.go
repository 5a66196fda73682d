// Package inlookup answers what mail programs ask about IndiMail's users: is
// there such a user, what is the password entry, where does the mail go.
//
// The users are in MySQL. A Server keeps the connections to it open, remembers
// answers in a Cache, and is asked over named pipes with the wire protocol of
// IndiMail's C programs inlookup(8) and inquery(3); a Client asks it. Server and
// Client are drop-ins for the C ones, each on its own.
//
//	d := inlookup.Directory{Resolver: inlookup.FromEnv()}
//	entry, err := d.Passwd(ctx, "user@example.com")
//
// To read the source, begin with avl.go (the tree), then cache.go, fifo.go,
// inquery.go (the asking side) and this file: MySQL, which looks things up, and
// Server, which serves any Resolver.
//
// # How MySQL is asked
//
// One question is one round trip wherever the tables allow it, over a statement
// that each connection has prepared once (measured beside text with the values
// put in safely: 1.3 times the questions a second). And questions about users
// that wait at the same time share one SELECT: see batch.
//
// # What the server promises
//
// It never waits for a client, and never touches a file that a client named
// unless it is a FIFO that somebody reads. A hit is answered by the thread that
// read it, since handing it to another one costs more than answering it. What
// has to wait for MySQL is bounded in number; what exceeds the bound is told
// "error" at once, not late.
package inlookup

import (
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
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
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

// MySQL is the Resolver that looks into the databases. The zero MySQL goes by
// environment and control files, read at the first question and at Reload.
type MySQL struct {
	Getenv func(string) string // nil: os.Getenv
	Log    *log.Logger         // warnings about the configuration; nil: none

	reload sync.Mutex // held by who puts another conf in force
	conf   atomic.Pointer[config]
	calls  callStats
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
	relayAge       int // minutes
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

// Reload reads environment and control files again. After an error, which names
// file and line, the old configuration stays. With reconnect every connection
// to MySQL is made anew; else those to servers still configured stay.
func (m *MySQL) Reload(reconnect bool) error {
	m.reload.Lock()
	defer m.reload.Unlock()
	old := m.conf.Load()
	var keep map[database]*pool
	if old != nil && !reconnect {
		keep = old.pools
	}
	c, err := m.readConfig(keep)
	if err != nil {
		return err
	}
	m.conf.Store(c)
	if old != nil {
		time.AfterFunc(2*deadline, func() { old.close(c.pools) }) // when no question can still use it
	}
	return nil
}

// Close closes the connections; a question after it opens new ones.
func (m *MySQL) Close() error {
	if c := m.conf.Swap(nil); c != nil {
		c.close(nil)
	}
	return nil
}

// close closes the pools that are not in keep.
func (c *config) close(keep map[database]*pool) {
	for db, p := range c.pools {
		if keep[db] != p {
			p.db.Close()
		}
	}
}

// config returns what is in force, read now if nothing is.
func (m *MySQL) config() (*config, error) {
	for {
		if c := m.conf.Load(); c != nil {
			return c, nil
		}
		if err := m.Reload(false); err != nil {
			return nil, err
		}
	}
}

// readConfig reads everything. Pools in keep that fit are taken over.
func (m *MySQL) readConfig(keep map[database]*pool) (c *config, err error) {
	c = &config{environ: environ{m.Getenv}, pools: make(map[database]*pool), assign: make(map[string]string)}
	c.defaultDomain = lower(c.get("DEFAULT_DOMAIN", ""))
	local := database{hosts: "localhost", user: "indimail", name: "indimail", ca: c.get("MYSQL_OPT_SSL_CA", "")}
	var errs [6]error
	c.relayAge, errs[0] = strconv.Atoi(c.get("RELAY_CLEAR_MINUTES", "30"))
	c.hostIP, errs[1] = c.value("hostip")
	_, errs[2] = c.readServer("MYSQL_", "host.mysql", &local)
	central := local
	c.aliasTable, errs[3] = c.readServer("CNTRL_", "host.cntrl", &central)
	errs[4] = errors.Join(c.readCluster(), c.readAssign(), c.readRoutes())
	use := func(db database) *pool {
		p := or(c.pools[db], keep[db])
		if p == nil && errs[5] == nil {
			p, errs[5] = openPool(db, &m.calls)
		}
		c.pools[db] = p
		return p
	}
	c.local, c.central = use(local), use(central)
	for i := range c.cluster {
		c.cluster[i].pool = use(c.cluster[i].db)
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo"} {
		path := c.control(name)
		if st, err := os.Stat(path); err == nil && st.Mode()&0o004 != 0 && m.Log != nil {
			m.Log.Printf("warning: %s holds a password and is readable by all: chmod o-r %s", path, path)
		}
	}
	return c, errors.Join(errs[:]...)
}

// eachLine calls f for each line of the file that is neither blank nor a
// comment, and says file and line with its error. No file has no lines.
func (c *config) eachLine(path string, f func(line string) error) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := f(line); err != nil {
			return fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	return err
}

// readServer sets db from host:user:password:socket-or-port[:ssl|nossl] in the
// control file, trailing parts optional, and from the environment, which wins.
func (c *config) readServer(prefix, file string, db *database) (there bool, err error) {
	err = c.eachLine(c.control(file), func(line string) error {
		f := append(strings.Split(line, ":"), "", "", "", "")
		_, err := strconv.ParseUint(or(f[3], "0"), 10, 16)
		if there || f[0] == "" || len(f) > 9 || err != nil && f[3][0] != '/' || f[4] != "" && f[4] != "ssl" && f[4] != "nossl" {
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

// readCluster reads mcdinfo: "domain NAME 0|1", then for each of its stores
// seven lines in any order.
func (c *config) readCluster() error {
	var s store
	seen, path := make(map[string]string), c.control("mcdinfo")
	err := c.eachLine(path, func(line string) error {
		key, value, _ := strings.Cut(line, " ")
		value = strings.TrimSpace(value)
		if name, flag, _ := strings.Cut(value, " "); key == "domain" {
			if flag = strings.TrimSpace(flag); len(seen) > 0 || flag != "0" && flag != "1" {
				return errors.New("want domain NAME 0|1, and the entry before it complete")
			}
			s = store{domain: lower(name), distributed: flag == "1"}
			return nil
		}
		if seen[key] != "" || value == "" || s.domain == "" {
			return fmt.Errorf("want key and value, each key once, in a domain; not %q again or alone", key)
		}
		if seen[key] = value; len(seen) < 7 {
			return nil
		}
		_, err := strconv.ParseUint(seen["port"], 10, 16)
		s.mdahost = seen["mdahost"]
		s.db = database{hosts: seen["server"], port: seen["port"], name: seen["database"], user: seen["user"],
			passwd: seen["pass"], tls: seen["use_ssl"] == "1", ca: c.get("MYSQL_OPT_SSL_CA", "")}
		if s.mdahost == "" || s.db.hosts == "" || s.db.name == "" || s.db.user == "" || s.db.passwd == "" || seen["use_ssl"] == "" || err != nil {
			return errors.New("want server, mdahost, port, use_ssl, database, user and pass before this line")
		}
		c.cluster = append(c.cluster, s)
		clear(seen)
		return nil
	})
	if err == nil && len(seen) > 0 {
		err = fmt.Errorf("%s: the last entry of domain %s is not complete", path, s.domain)
	}
	return err
}

// readAssign reads the lines "+domain-:domain:uid:gid:dir:-::".
func (c *config) readAssign() error {
	return c.eachLine(filepath.Join(c.get("ASSIGNDIR", "/etc/indimail/users"), "assign"), func(line string) error {
		f := strings.Split(line, ":")
		if line[0] == '+' && len(f) < 6 {
			return errors.New("want +domain-:domain:uid:gid:dir:-::")
		} else if line[0] == '+' {
			c.assign[lower(strings.TrimSuffix(f[0][1:], "-"))] = f[4]
		}
		return nil
	})
}

// readRoutes reads the lines "domain:relay:port" for their ports. A relay in
// brackets may hold colons.
func (c *config) readRoutes() error {
	path, port := c.control("qmtproutes"), "209"
	if _, err := os.Stat(path); err != nil && c.get("ROUTES", "") != "qmtp" {
		path, port = c.control("smtproutes"), "25"
	}
	err := c.eachLine(path, func(line string) error {
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
	calls *callStats
	stmts sync.Map // text → *sql.Stmt

	mu      sync.Mutex // guards what follows
	waiting []*asking
	runners int
}

const (
	maxConns   = 16
	maxRunners = 2  // SELECTs for batches at a time: fewer, larger ones are cheaper
	maxBatch   = 32 // users in one SELECT
)

// callStats count the calls of all pools: SELECTs, those that failed, and how
// many took at most each of callBounds.
type callStats struct {
	calls, errors, micros atomic.Uint64
	bucket                [len(callBounds) + 1]atomic.Uint64
}

var callBounds = [...]float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3} // seconds

func (s *callStats) count(start time.Time, err error) {
	took := time.Since(start)
	i, _ := slices.BinarySearch(callBounds[:], took.Seconds())
	s.bucket[i].Add(1)
	s.micros.Add(uint64(took.Microseconds()))
	if s.calls.Add(1); err != nil {
		s.errors.Add(1)
	}
}

// openPool connects to nothing yet.
func openPool(db database, calls *callStats) (*pool, error) {
	h := &hosts{}
	for _, host := range strings.Split(db.hosts, ",") {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.DBName, cfg.Logger = db.user, db.passwd, db.name, &mysql.NopLogger{}
		cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(strings.TrimSpace(host), or(db.port, "3306"))
		if host == "localhost" && (db.port == "" || db.port == "0" || db.socket != "") {
			cfg.Net, cfg.Addr = "unix", or(db.socket, usualSocket())
		}
		if db.tls {
			cfg.TLS = &tls.Config{ServerName: strings.TrimSpace(host), MinVersion: tls.VersionTLS12}
			if db.ca != "" {
				pem, err := os.ReadFile(db.ca)
				if cfg.TLS.RootCAs = x509.NewCertPool(); err != nil || !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
					return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: no certificate in %s: %w", db.ca, err)
				}
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
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return paths[0]
}

// hosts is a driver.Connector over several servers with the same data: the last
// good one first, then the others. One that failed is left alone for a time that
// doubles with each failure up to 15 s, unless it is the only one: then every
// question tries, so that recovery is seen at once.
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

const hostTimeout = time.Second // to connect to one of several hosts

func (h *hosts) Driver() driver.Driver { return h.hosts[0].Driver() }

func (h *hosts) Connect(ctx context.Context) (conn driver.Conn, err error) {
	h.mu.Lock()
	first := h.good
	h.mu.Unlock()
	err = errors.New("every host has failed lately")
	for i := range h.hosts {
		b := &h.hosts[(first+i)%len(h.hosts)]
		h.mu.Lock()
		skip := len(h.hosts) > 1 && time.Now().Before(b.until)
		h.mu.Unlock()
		if skip {
			continue
		}
		one, cancel := context.WithTimeout(ctx, hostTimeout)
		conn, err = b.Connect(one)
		cancel()
		h.mu.Lock()
		if err == nil {
			h.good, b.wait = (first+i)%len(h.hosts), 0
		} else {
			b.wait = min(max(2*b.wait, 250*time.Millisecond), 15*time.Second)
			b.until = time.Now().Add(b.wait/2 + rand.N(b.wait/2)) // jitter
			err = fmt.Errorf("%s: %w", b.name, err)
		}
		h.mu.Unlock()
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// query returns the rows of one SELECT, NULL as "". What died with its
// connection, or took half the time there is, is asked once more on another
// connection: it only reads. What MySQL itself refuses is not.
func (p *pool) query(ctx context.Context, text string, args ...any) (rows [][]string, err error) {
	for try := range 2 {
		one, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok && try == 0 {
			one, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		}
		rows = rows[:0]
		err = p.each(one, text, args, func(row []string) bool {
			rows = append(rows, slices.Clone(row))
			return true
		})
		cancel()
		var refused *mysql.MySQLError
		if err == nil || ctx.Err() != nil || errors.As(err, &refused) && refused.Number != errShutdown && refused.Number != errKilled {
			break
		}
		p.db.SetMaxIdleConns(0) // the others of a server that died or hangs are no better
		p.db.SetMaxIdleConns(maxConns)
	}
	return rows, err
}

// What MariaDB says to a question that it does not get to: ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED.
const errShutdown, errKilled = 1053, 1927

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
	for rows.Next() {
		if err := rows.Scan(to...); err != nil {
			return err
		}
		for i := range raw {
			values[i] = string(raw[i])
		}
		if !row(values) {
			return nil
		}
	}
	return errors.Join(err, rows.Err())
}

// An asking is a question about one user that waits for a SELECT.
type asking struct {
	ctx           context.Context
	local, domain string
	alias         bool // look into valias as well
	done          chan struct{}
	user          userRow
	err           error
}

// A userRow is what the tables say about a user.
type userRow struct {
	place int    // where it was found
	gid   int    // as it stands in the table
	entry string // passwd:uid:gid:gecos:dir:shell, gid with the domain's limits
}

const (
	inUsers = iota
	inInactive
	inAlias
	nowhere
)

// user looks a user up. Questions that arrive while maxRunners SELECTs are under
// way wait, and then share the next one: the busier MySQL is, the more (measured
// with 16 askers: 2.4 times the questions a second of one SELECT each).
func (c *config) user(ctx context.Context, p *pool, local, domain string, alias bool) (userRow, error) {
	a := &asking{ctx: ctx, local: local, domain: domain, alias: alias, done: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, a)
	if p.runners < maxRunners {
		p.runners++
		go c.run(p)
	}
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.user, a.err
	case <-ctx.Done():
		return userRow{}, ctx.Err()
	}
}

// run answers what waits, in batches, until nothing does.
func (c *config) run(p *pool) {
	for {
		p.mu.Lock()
		batch := p.waiting[:min(len(p.waiting), maxBatch)]
		p.waiting = p.waiting[len(batch):]
		if len(batch) == 0 {
			p.waiting = nil
			p.runners--
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
		batch = slices.DeleteFunc(slices.Clone(batch), func(a *asking) bool { return a.ctx.Err() != nil }) // nobody waits for it
		if len(batch) > 0 {
			c.selectUsers(p, batch)
		}
	}
}

// selectUsers answers a batch. The number of names in the statement is a power
// of two, the last repeated, so that there are few statements to prepare.
func (c *config) selectUsers(p *pool, batch []*asking) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	n, names, alias := 1, []any{}, false
	for n < len(batch) {
		n *= 2
	}
	found := make(map[[2]string]userRow, len(batch))
	for i := range n {
		a := batch[min(i, len(batch)-1)]
		names, alias = append(names, a.local, a.domain), alias || a.alias
	}
	rows, err := p.query(ctx, c.userSQL(n, alias), slices.Repeat(names, 2+count(alias))...)
	for _, row := range rows {
		place, err1 := strconv.Atoi(row[0])
		gid, err2 := strconv.Atoi(row[3])
		key := [2]string{lower(row[1]), lower(row[2])} // MySQL finds "Jürgen" for "jurgen": the name must be the one asked
		if old, ok := found[key]; !ok || place < old.place {
			found[key] = userRow{place, gid, row[4]}
		}
		err = errors.Join(err, err1, err2)
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

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// userSQL is the SELECT for n users. The entry comes in one column, since each
// column costs about what its content does. With DOMAIN_LIMITS the limits of the
// user or the domain set flags in the gid, unless the gid says that they do not
// apply to this user.
func (c *config) userSQL(n int, alias bool) string {
	gid, join := "IFNULL(pw_gid,0)", ""
	if c.get("DOMAIN_LIMITS", "") != "" {
		gid = "IF(IFNULL(pw_gid,0) & 0x2000, pw_gid, IFNULL(pw_gid,0)"
		for _, f := range []string{"pop 0x02", "smtp 0x100", "imap 0x08", "relay 0x20", "webmail 0x04", "passwordchanging 0x01", "dialup 0x40"} {
			name, bit, _ := strings.Cut(f, " ")
			gid += " | IF(COALESCE(u.disable_" + name + ",d.disable_" + name + ",0)," + bit + "+0,0)"
		}
		gid += ")"
		join = " LEFT JOIN vlimits u ON u.domain=CONCAT(pw_name,'@',pw_domain) LEFT JOIN vlimits d ON d.domain=pw_domain"
	}
	where := strings.Repeat("@n=? AND @d=? OR ", n-1) + "@n=? AND @d=?"
	rows := func(place int, table string) string {
		return fmt.Sprint("SELECT ", place, ",pw_name,pw_domain,IFNULL(pw_gid,0),CONCAT_WS(':',IF(scram IS NULL,pw_passwd,CONCAT(scram,',',pw_passwd)),",
			"IFNULL(pw_uid,0),", gid, ",pw_gecos,IFNULL(pw_dir,''),IFNULL(pw_shell,'')) FROM ", table, join,
			" WHERE ", strings.NewReplacer("@n", "pw_name", "@d", "pw_domain").Replace(where))
	}
	text := rows(inUsers, c.table("MYSQL_TABLE", "indimail")) + " UNION ALL " + rows(inInactive, c.table("MYSQL_INACTIVE_TABLE", "indibak"))
	if alias {
		text += fmt.Sprint(" UNION ALL SELECT DISTINCT ", inAlias, ",alias,domain,0,'' FROM valias WHERE ",
			strings.NewReplacer("@n", "alias", "@d", "domain").Replace(where))
	}
	return text
}

// table returns the name of a table, quoted.
func (c *config) table(variable, def string) string {
	return "`" + strings.ReplaceAll(c.get(variable, def), "`", "``") + "`"
}

// deadline is for one question, retry included: below the 4 s that clients wait.
const deadline = 3 * time.Second

// Resolve looks q up. The error wraps ErrUnavailable, and names the database,
// when there is no answer; what is not in the tables is an answer.
func (m *MySQL) Resolve(ctx context.Context, q Query) (a Answer, err error) {
	c, err := m.config()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		a, err = c.resolve(ctx, q)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %v: %w", ErrUnavailable, q.Type, err)
	}
	return a, nil
}

func (c *config) resolve(ctx context.Context, q Query) (Answer, error) {
	local, domain := q.split(c.defaultDomain)
	if !plausible(local, domain) || local == "" && q.Type != TypeLimit && q.Type != TypeDomain {
		return absence(q), nil
	}
	real, err := c.realDomain(ctx, domain)
	if q.Type == TypeDomain || err != nil {
		return NewData(q.Type, real), err
	}
	at, err := c.place(ctx, local, real)
	if at == nil || err != nil {
		return absence(q), err
	}
	switch q.Type {
	case TypeRelay:
		return c.relay(ctx, at.pool, local+"@"+real, q.IP)
	case TypeAlias:
		return c.alias(ctx, at.pool, local, real)
	case TypeLimit:
		if local == "" {
			return limits(ctx, at.pool, real, real)
		}
	case TypeUser, TypePasswd, TypeHost:
	default:
		return "", fmt.Errorf("%w: MySQL does not answer it", ErrInvalid)
	}
	user, err := c.user(ctx, at.pool, local, real, q.Type == TypeUser)
	switch {
	case err != nil:
		return "", err
	case q.Type == TypeUser:
		return user.status(), nil
	case user.place > inInactive:
		return absence(q), nil
	case q.Type == TypePasswd:
		return NewData(q.Type, fmt.Sprint(pwStruct, local, "@", domain, ":", user.entry, ":", user.place)), nil
	case q.Type == TypeHost:
		port, err := c.port(ctx, at, real)
		return NewData(q.Type, domain+":"+at.mdahost+":"+port), err
	}
	return limits(ctx, at.pool, local+"@"+real, real)
}

// plausible reports whether such an address could be in the tables at all, with
// their columns of 40 and 67 characters.
func plausible(local, domain string) bool {
	both := local + domain
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	return domain != "" && utf8.ValidString(both) && !strings.ContainsFunc(both, control) &&
		utf8.RuneCountInString(local) <= 40 && utf8.RuneCountInString(domain) <= 67
}

// absence is the answer for what is not there.
func absence(q Query) Answer {
	switch q.Type {
	case TypeUser:
		return NewAnswer(int(StatusAbsent))
	case TypePasswd:
		return NewData(q.Type, noSuchUser+lower(q.Email))
	case TypeAlias:
		return NewData(q.Type, "")
	case TypeDomain:
		return NewData(q.Type, lower(q.Email))
	}
	return NewAnswer(0)
}

// status is the answer to TypeUser.
func (u userRow) status() Answer {
	status := [...]Status{inUsers: StatusActive, inInactive: StatusInactive, inAlias: StatusAlias, nowhere: StatusAbsent}[u.place]
	if u.place == inUsers && u.gid&0x10 != 0 {
		status = StatusOverQuota
	}
	return NewAnswer(int(status))
}

// realDomain returns the domain behind an alias domain.
func (c *config) realDomain(ctx context.Context, domain string) (string, error) {
	if slices.Contains(strings.Split(lower(c.get("REAL_DOMAINS", "")), ":"), domain) {
		return domain, nil
	}
	if dir, ok := c.assign[domain]; ok {
		if target, err := os.Readlink(dir); err == nil {
			return lower(filepath.Base(target)), nil
		}
		return domain, nil
	}
	if !c.aliasTable {
		return domain, nil
	}
	rows, err := c.central.query(ctx, "SELECT alias,domain FROM aliasdomain WHERE alias=?", domain)
	for _, row := range rows {
		if lower(row[0]) == domain && row[1] != "" {
			return lower(row[1]), err
		}
	}
	return domain, err
}

// place returns the store with the user's rows, nil if the user is nowhere. The
// users of a distributed domain are spread over its stores by table hostcntrl.
func (c *config) place(ctx context.Context, local, real string) (*store, error) {
	first := slices.IndexFunc(c.cluster, func(s store) bool { return s.domain == real })
	if first < 0 {
		return &store{mdahost: c.hostIP, pool: c.local}, nil
	}
	if s := c.cluster[first]; !s.distributed || local == "" {
		return &s, nil
	}
	rows, err := c.central.query(ctx, "SELECT pw_name,pw_domain,h.host,ipaddr FROM "+c.table("CNTRL_TABLE", "hostcntrl")+
		" h JOIN host_table t ON t.host=h.host WHERE pw_domain=? AND pw_name IN (?,'*') ORDER BY pw_name='*'", real, local)
	for _, row := range rows {
		if name := lower(row[0]); name != local && name != "*" || lower(row[1]) != real {
			continue
		}
		for _, s := range c.cluster {
			if s.domain == real && s.mdahost == row[3] {
				s.host = row[2]
				return &s, nil
			}
		}
		return nil, fmt.Errorf("%s: no entry of domain %s has mdahost %s", c.control("mcdinfo"), real, row[3])
	}
	return nil, err
}

func (c *config) relay(ctx context.Context, p *pool, email, ip string) (Answer, error) {
	if ip == "" {
		return "", fmt.Errorf("%w: no IP address", ErrInvalid)
	}
	rows, err := p.query(ctx, "SELECT email,ipaddr FROM "+c.table("RELAY_TABLE", "relay")+" WHERE ipaddr=? AND email=? AND timestamp>?",
		ip, email, time.Now().Unix()-int64(c.relayAge)*60)
	there := slices.ContainsFunc(rows, func(row []string) bool { return lower(row[0]) == email && row[1] == ip })
	return NewAnswer(count(there)), err
}

func (c *config) alias(ctx context.Context, p *pool, local, real string) (Answer, error) {
	rows, err := p.query(ctx, "SELECT alias,domain,valias_line FROM valias WHERE alias=? AND domain=?", local, real)
	var lines []string
	for _, row := range rows {
		if lower(row[0]) == local && lower(row[1]) == real {
			lines = append(lines, row[2]+"\n")
		}
	}
	slices.Sort(lines)
	return NewData(TypeAlias, strings.Join(lines, "")), err
}

// port returns the port of the SMTP route.
func (c *config) port(ctx context.Context, at *store, real string) (string, error) {
	if !at.distributed {
		i := slices.IndexFunc(c.routes, func(r route) bool { return r.domain == real || r.domain == "" })
		return c.routes[i].port, nil // the last of them is for any domain
	}
	rows, err := c.central.query(ctx, "SELECT port FROM smtp_port WHERE host=? AND domain=? AND src_host IN (?,'*') ORDER BY src_host='*'",
		at.host, real, c.hostIP)
	if len(rows) == 0 || rows[0][0] == "" || rows[0][0] == "0" {
		return "25", err
	}
	return rows[0][0], err
}

// limitColumns are those of the record, in its order: 11 of 64 bits, the others
// of 16. The one perm_maillist holds three fields of 3 bits.
const limitColumns = "domain_expiry,passwd_expiry,maxpopaccounts,maxaliases,maxforwards,maxautoresponders,maxmailinglists," +
	"diskquota,maxmsgcount,defaultquota,defaultmaxmsgcount," +
	"disable_pop,disable_imap,disable_dialup,disable_passwordchanging,disable_webmail,disable_relay,disable_smtp," +
	"perm_account,perm_alias,perm_forward,perm_autoresponder,perm_maillist & 7,(perm_maillist>>3) & 7,(perm_maillist>>6) & 7," +
	"perm_quota,perm_defaultquota"

// limits answers with the row of email, else that of its domain, else, if email
// is a user, with the defaults.
func limits(ctx context.Context, p *pool, email, domain string) (Answer, error) {
	rows, err := p.query(ctx, "SELECT domain,"+limitColumns+" FROM vlimits WHERE domain IN (?,?)", email, domain)
	var row []string
	kind := "1"
	for _, r := range rows {
		if lower(r[0]) == email && email != domain {
			row, kind = r[1:], "2"
		} else if lower(r[0]) == domain && kind == "1" {
			row = r[1:]
		}
	}
	if err != nil || row == nil && email == domain {
		return NewAnswer(0), err
	}
	if row == nil {
		row = append(slices.Repeat([]string{"-1"}, 7), slices.Repeat([]string{"0"}, 20)...)
	}
	b := binary.NativeEndian.AppendUint32(nil, limitsSize)
	for i, column := range append(row, kind) {
		n, err := strconv.ParseInt(column, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			var u uint64 // beyond int64: one of the BIGINT UNSIGNED
			u, err = strconv.ParseUint(column, 10, 64)
			n = int64(u)
		}
		if err != nil {
			return "", fmt.Errorf("table vlimits: %w", err)
		}
		if i < 11 {
			b = binary.NativeEndian.AppendUint64(b, uint64(n))
		} else {
			b = binary.NativeEndian.AppendUint16(b, uint16(n))
		}
	}
	return Answer(append(b, make([]byte, headerSize+limitsSize-len(b))...)), nil
}

// Recent calls add with the password entries of those who logged in within the
// last age, latest first, until add returns false.
func (m *MySQL) Recent(ctx context.Context, age time.Duration, add func(Query, Answer) bool) error {
	c, err := m.config()
	if err != nil {
		return err
	}
	text := c.userSQL(1, false)
	text, _, _ = strings.Cut(text, " UNION ALL ")
	text, _, _ = strings.Cut(text, " WHERE ")
	text += " JOIN (SELECT user,domain,MAX(timestamp) latest FROM lastauth WHERE service IN ('imap','pop3','webm')" +
		" AND timestamp>=NOW()-INTERVAL ? SECOND GROUP BY user,domain) l ON l.user=pw_name AND l.domain=pw_domain ORDER BY latest DESC"
	more := true
	for _, p := range c.pools {
		err = errors.Join(err, p.each(ctx, text, []any{int64(age.Seconds())}, func(row []string) bool {
			local, domain := lower(row[1]), lower(row[2])
			spread := slices.ContainsFunc(c.cluster, func(s store) bool { return s.domain == domain && (s.distributed || s.pool != p) })
			if !spread { // else this row may not be the one in use
				more = add(Query{Type: TypePasswd, Email: local + "@" + domain}, NewData(TypePasswd, fmt.Sprint(pwStruct, local, "@", domain, ":", row[4], ":0")))
			}
			return more
		}))
		if !more {
			break
		}
	}
	return err
}

// explain says which database and which route q would take.
func (m *MySQL) explain(ctx context.Context, w io.Writer, q Query) {
	c, err := m.config()
	if err != nil {
		fmt.Fprintln(w, "error:", err)
		return
	}
	local, domain := q.split(c.defaultDomain)
	real, err := c.realDomain(ctx, domain)
	if err == nil && plausible(local, domain) {
		var at *store
		if at, err = c.place(ctx, local, real); at != nil {
			fmt.Fprintf(w, "domain: %s (real domain %s)\ndatabase: %s\nmail store: %s\ndistributed: %v\n", domain, real, at.pool.name, at.mdahost, at.distributed)
		} else if err == nil {
			fmt.Fprintf(w, "domain: %s (real domain %s)\ndatabase: none, the user is on no mail store\n", domain, real)
		}
	} else if err == nil {
		fmt.Fprintln(w, "database: none, there can be no such address")
	}
	if err != nil {
		fmt.Fprintln(w, "error:", err)
	}
}

// A Server answers requests from FIFOs with what Resolver says. If that is a
// Cache, hits are answered at once, by the thread that read the request.
type Server struct {
	Resolver  Resolver
	Infifo    string              // name or path of the request FIFO; "": INFIFO, else infifo
	Instances int                 // request FIFOs NAME.1 to NAME.N; 0 or 1: NAME alone
	Out       io.Writer           // debug lines; nil: none
	Log       *log.Logger         // faults, one line a second at most; nil: none
	Getenv    func(string) string // nil: os.Getenv
	Debug     atomic.Bool         // whether debug lines are written

	fifos   []*requestFIFO
	replies replies
	cache   *Cache
	slots   chan struct{} // one for each request that is not answered at once
	turns   chan struct{} // one for each of those that is being resolved
	misses  sync.WaitGroup
	started time.Time
	logged  atomic.Int64 // when, Unix seconds

	counts                               [TypeDomain + 1]atomic.Uint64
	refused, undeliverable, full, failed atomic.Uint64
}

const (
	maxWaiting = 2048 // requests that are not answered at once, each with an open reply FIFO
	maxTurns   = 64   // of those, how many Resolver sees
)

// Listen makes and opens the request FIFOs. Serve does it if it was not done.
func (s *Server) Listen() error {
	e := environ{s.Getenv}
	mode, err := strconv.ParseUint(e.get("FIFO_MODE", "660"), 8, 9)
	if err != nil {
		return fmt.Errorf("FIFO_MODE: want an octal mode, not %q", e.get("FIFO_MODE", ""))
	}
	path, _ := fifoPath(e, s.Infifo)
	for i := range max(1, s.Instances) {
		name := path
		if s.Instances > 1 {
			name += "." + strconv.Itoa(i+1)
		}
		f, err := openRequestFIFO(name, fs.FileMode(mode))
		if err != nil {
			s.stop()
			return err
		}
		s.fifos = append(s.fifos, f)
		s.replies.own = append(s.replies.own, f.id)
	}
	s.replies.dir = e.get("REPLYDIR", "")
	s.cache, _ = s.Resolver.(*Cache)
	s.slots, s.turns, s.started = make(chan struct{}, maxWaiting), make(chan struct{}, maxTurns), time.Now()
	return nil
}

func (s *Server) stop() {
	for _, f := range s.fifos {
		f.stop()
	}
}

// Serve answers until ctx is done. Then it removes the FIFOs, answers what was
// asked before that, and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	if s.fifos == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	errs := make(chan error)
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
	s.stop()
	for range left {
		err = errors.Join(err, <-errs)
	}
	s.misses.Wait() // ends: each has a deadline
	for _, f := range s.fifos {
		f.close()
	}
	s.fifos = nil
	return err
}

// read answers what comes from one FIFO.
func (s *Server) read(f *requestFIFO) error {
	buf, have := make([]byte, 128<<10), 0 // twice a pipe: one read empties it
	scratch := make([]byte, 0, 2*maxRequest)
	for {
		n, err := f.read(buf[have:])
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		have += n
		used, refused := frames(buf[:have], have == len(buf), func(r request) { s.answer(f, r, scratch) })
		have = copy(buf, buf[used:have])
		if refused > 0 {
			s.refused.Add(uint64(refused))
			s.logf("%s: %d bytes that are no request", f.path, refused)
		}
	}
}

// answer answers one request: here if the answer is in memory, else from a
// goroutine. The reply FIFO is opened before that: an asker who has gone costs
// no SQL.
func (s *Server) answer(f *requestFIFO, r request, scratch []byte) {
	if int(r.typ) < len(s.counts) {
		s.counts[r.typ].Add(1)
	}
	var a Answer
	if s.cache != nil {
		a, _ = s.cache.peek(scratch, r.typ, r.email)
	}
	if s.Debug.Load() {
		s.debug(f, r, a != "")
	}
	fd, err := s.replies.open(r.reply)
	if err != nil {
		s.undeliverable.Add(1)
		return
	}
	if a != "" {
		s.send(fd, append(scratch, a...))
		return
	}
	q := Query{r.typ, string(r.email), string(r.ip)}
	select {
	case s.slots <- struct{}{}:
		s.misses.Add(1)
		go s.miss(fd, string(r.reply), q)
	default:
		s.full.Add(1)
		s.logf("%d requests wait already: %v refused", maxWaiting, q.Type)
		s.send(fd, []byte(failure(q.Type)))
	}
}

// miss answers one request, in a goroutine of its own.
func (s *Server) miss(fd int, reply string, q Query) {
	defer func() { <-s.slots; s.misses.Done() }()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	select {
	case s.turns <- struct{}{}:
	default:
		select {
		case s.turns <- struct{}{}:
		case <-ctx.Done():
			s.failed.Add(1)
			s.send(fd, []byte(failure(q.Type)))
			return
		}
		if again, err := s.replies.open([]byte(reply)); err == nil {
			syscall.Close(again)
		} else { // the asker left while it waited
			s.undeliverable.Add(1)
			syscall.Close(fd)
			<-s.turns
			return
		}
	}
	a := s.resolve(ctx, q)
	<-s.turns
	s.send(fd, []byte(a))
}

// resolve returns the answer that travels: one to a question about the server
// itself, one of Resolver, or the one that says error.
func (s *Server) resolve(ctx context.Context, q Query) Answer {
	switch q.Type {
	case TypeStatus:
		return NewData(q.Type, s.Status())
	case TypeFlush:
		if s.cache == nil {
			return NewData(q.Type, "there is no cache\n")
		}
		return NewData(q.Type, fmt.Sprintf("%d entries flushed\n", s.cache.Flush(q.Email)))
	case TypeExplain:
		return NewData(q.Type, s.explain(ctx, q))
	}
	a, err := s.Resolver.Resolve(ctx, q)
	if err != nil {
		s.failed.Add(1)
		s.logf("%v", err)
		return failure(q.Type)
	}
	return a
}

func (s *Server) send(fd int, b []byte) {
	if err := s.replies.send(fd, b); err != nil {
		s.undeliverable.Add(1)
	}
}

// ServeConn answers one request that comes over r with one answer on w, as
// tcpserver(1) wants it.
func (s *Server) ServeConn(ctx context.Context, r io.Reader, w io.Writer) error {
	b := make([]byte, maxRequest)
	for have := 0; ; {
		req, size := parseRequest(b[:have])
		if size == 0 {
			return fmt.Errorf("%w: what came is no request", ErrInvalid)
		}
		if size > 0 {
			_, err := io.WriteString(w, string(s.resolve(ctx, Query{req.typ, string(req.email), string(req.ip)})))
			return err
		}
		n, err := r.Read(b[have:])
		if have += n; err != nil {
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
	if s.Out == nil {
		return
	}
	name, ip := filepath.Base(f.path), string(r.ip)
	if r.typ != TypeRelay || ip == "" {
		ip = "N/A"
	}
	n := 2 + len(r.email) + len(r.reply) + len(r.ip) + 3
	fmt.Fprintf(s.Out, "%s->%s, Bytes %d, Query ['%v'], User %s, RemoteIp %s\n", name, printable(r.reply), n, r.typ, printable(r.email), printable([]byte(ip)))
	if hit {
		fmt.Fprintf(s.Out, "%s->%s, cache hit\n", name, printable(r.reply))
	}
}

// printable returns b with what could end a line or steer a terminal replaced.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, string(b))
}

// WriteStatistics writes what SIGUSR1 asks for.
func (s *Server) WriteStatistics(w io.Writer) {
	total := uint64(0)
	fmt.Fprint(w, "User:Relay:Password:Limit:Alias:Host:Domain")
	for _, t := range []Type{TypeUser, TypeRelay, TypePasswd, TypeLimit, TypeAlias, TypeHost, TypeDomain} {
		n := s.counts[t].Load()
		total += n
		fmt.Fprint(w, " ", n)
	}
	nodes := 0
	if s.cache != nil {
		nodes = s.cache.Len()
	}
	seconds := time.Since(s.started).Seconds()
	fmt.Fprintf(w, " Cached Nodes %d\nStart Time: %s\nEnd   Time: %s\nQueries: %d\nSeconds: %.3f\nQuery/Sec = %.2f\n", nodes,
		s.started.Format(time.RFC3339), time.Now().Format(time.RFC3339), total, seconds, float64(total)/seconds)
}

// Status returns the counters in the exposition format of Prometheus, which a
// person can read too. It changes nothing.
func (s *Server) Status() string {
	var m metrics
	m.add("start_time_seconds gauge When the server started, Unix time", s.started.Unix())
	for t := TypeUser; t <= TypeDomain; t++ {
		m.add(fmt.Sprintf("queries_total{type=%q} counter Requests read, by type", strings.ToLower(strings.Fields(t.String())[0])), s.counts[t].Load())
	}
	m.add("refused_bytes_total counter Bytes in request FIFOs that were no request", s.refused.Load())
	m.add("undeliverable_total counter Replies that had no reader, or no room", s.undeliverable.Load())
	m.add("overload_total counter Requests refused because too many waited", s.full.Load())
	m.add("unavailable_total counter Requests answered with an error", s.failed.Load())
	m.add("in_flight gauge Requests that wait for an answer", len(s.slots))
	if r, ok := s.Resolver.(interface{ metrics(*metrics) }); ok {
		r.metrics(&m)
	}
	return m.text.String()
}

// metrics collects lines of Prometheus' exposition format.
type metrics struct {
	text strings.Builder
	last string
}

// add writes one value. what is "name{labels} type help".
func (m *metrics) add(what string, value any) {
	f := strings.SplitN(what, " ", 3)
	if name, _, _ := strings.Cut(f[0], "{"); name != m.last {
		fmt.Fprintf(&m.text, "# HELP inlookup_%s %s\n# TYPE inlookup_%[1]s %[3]s\n", name, f[2], f[1])
		m.last = name
	}
	fmt.Fprintf(&m.text, "inlookup_%s %v\n", f[0], value)
}

func (m *MySQL) metrics(to *metrics) {
	sum := uint64(0)
	for i, bound := range append(callBounds[:], math.Inf(1)) {
		sum += m.calls.bucket[i].Load()
		to.add(fmt.Sprintf("mysql_seconds{le=\"%v\"} counter SELECTs that took at most so long", bound), sum)
	}
	to.add("mysql_seconds_sum counter Time that SELECTs took", float64(m.calls.micros.Load())/1e6)
	to.add("mysql_selects_total counter SELECTs sent", m.calls.calls.Load())
	to.add("mysql_errors_total counter SELECTs that failed", m.calls.errors.Load())
}

// explain says where the answer to q, a TypeExplain, would come from.
func (s *Server) explain(ctx context.Context, q Query) string {
	t, err := strconv.Atoi(q.IP)
	q.Type = Type(t)
	if err != nil || q.Type < TypeUser || q.Type > TypeDomain {
		return fmt.Sprintf("error: %q is no query type from 1 to 7\n", q.IP)
	}
	var w strings.Builder
	fmt.Fprintf(&w, "query: %v of %s\n", q.Type, printable([]byte(lower(q.Email))))
	if r, ok := s.Resolver.(explainer); ok {
		r.explain(ctx, &w, q)
	} else {
		fmt.Fprintf(&w, "resolver: %T\n", s.Resolver)
	}
	return w.String()
}

// An explainer is a Resolver that can say where an answer would come from.
type explainer interface {
	explain(ctx context.Context, w io.Writer, q Query)
}
