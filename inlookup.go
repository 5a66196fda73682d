// Package inlookup answers what mail programs ask about IndiMail's users: is
// there such a user, what is the password entry, where does the mail go.
//
// The users are in MySQL. A Server keeps the connections to it open, remembers
// answers in a Cache, and is asked over named pipes with the wire protocol of
// IndiMail's C programs inlookup(8) and inquery(3). A Client asks it. Server
// and Client replace the C ones, together or each alone.
//
//	d := inlookup.Directory{Resolver: inlookup.FromEnv()}
//	entry, err := d.Passwd(ctx, "user@example.com")
//
// To read the source, begin with avl.go (the tree), then cache.go, inquery.go
// (the asking side), fifo.go (the server) and inlookup.go (MySQL).
package inlookup

// MySQL: where the rows are, and what they mean.
//
// Each SELECT reads one table and returns the columns as they are. What they
// mean is decided here. This survives what people do to tables: other
// collations and character sets, views, NULLs, wider columns. Joins and unions
// do not. The row found must carry the name that was asked for, because MySQL's
// idea of equal letters is wider than mail's. A row that is not understood is
// an error, never "absent": an error delays mail, "absent" bounces it.
//
// The same holds for the files that this package shares with the C programs. A
// line that is of no use here is skipped with a warning, and stops nothing. No
// message quotes a line or a variable that may hold a password.
//
// Each database has a pool of connections with bounds of its own, so one that
// hangs costs its own users only.

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log"
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
	"unicode"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
)

// MySQL is the Resolver that looks into the databases. The zero MySQL goes by
// environment and control files. It reads them at the first question and at
// Reload.
type MySQL struct {
	Getenv func(string) string // nil: os.Getenv
	Log    *log.Logger         // warnings, and databases that go and come back; nil: none

	reload sync.Mutex // held while another config is put in force
	config atomic.Pointer[config]
	links  linkReader
	counts selectCounts
}

// A config is what environment and control files say. It never changes.
type config struct {
	environ
	log  *log.Logger
	errs []error

	defaultDomain string
	hostIP        string          // of this machine
	relayAge      time.Duration   // how long a login permits relaying
	noAlias       map[string]bool // domains that the environment calls real
	domainLimits  bool            // limits of a domain set flags in the gid
	localDB       database
	centralDB     database          // of a cluster; without host.cntrl localDB
	aliasTable    bool              // host.cntrl exists
	stores        []store           // of mcdinfo, in its order
	assign        map[string]string // domain to directory
	routes        []route
	routePort     string // without a route
	distPort      string // of a distributed domain, without a row in smtp_port

	pools   []*pool
	local   *pool
	central *pool
	links   *linkReader
}

// A database is what a pool connects to.
type database struct {
	hosts  string // with commas between them
	port   string
	socket string
	user   string
	passwd string
	name   string
	tls    bool
}

// A store is where users are: an entry of mcdinfo, or the local database.
type store struct {
	domain      string
	mdahost     string // IP address
	distributed bool   // the domain's users are spread over several stores
	db          database
	pool        *pool
	broken      error // the entry cannot be used
}

// A route is a line of smtproutes or qmtproutes.
type route struct{ domain, port string }

// Reload reads environment and control files again. After an error, which names
// the file and line or the variable, the old configuration stays in force. With
// reconnect all connections to MySQL are made anew; without, those to databases
// that are still configured stay.
func (m *MySQL) Reload(reconnect bool) error {
	m.reload.Lock()
	defer m.reload.Unlock()
	return m.load(reconnect)
}

// load does what Reload does. The caller holds the mutex.
func (m *MySQL) load(reconnect bool) error {
	c := &config{environ: environ{m.Getenv}, log: m.Log, links: &m.links}
	c.read()
	if err := errors.Join(c.errs...); err != nil {
		return err
	}
	old := m.config.Load()
	var keep []*pool
	if old != nil && !reconnect {
		keep = old.pools
	}
	c.openPools(keep, &m.counts)
	m.config.Store(c)
	if old != nil {
		retire(old.pools, c.pools)
	}
	return nil
}

// Close closes the connections. A question after it opens new ones.
func (m *MySQL) Close() error {
	m.reload.Lock()
	defer m.reload.Unlock()
	if c := m.config.Swap(nil); c != nil {
		for _, p := range c.pools {
			p.db.Close()
		}
	}
	return nil
}

// retire closes the pools that are not in use, when the questions that have
// them have ended.
func retire(old, inUse []*pool) {
	for _, p := range old {
		if !slices.Contains(inUse, p) {
			p.db.SetMaxIdleConns(-1) // no connection waits for another question
			time.AfterFunc(2*deadline, func() { p.db.Close() })
		}
	}
}

// current returns the configuration in force, read now if there is none.
func (m *MySQL) current() (*config, error) {
	if c := m.config.Load(); c != nil {
		return c, nil
	}
	m.reload.Lock()
	defer m.reload.Unlock()
	if c := m.config.Load(); c != nil { // another question was first
		return c, nil
	}
	if err := m.load(false); err != nil {
		return nil, err
	}
	return m.config.Load(), nil
}

func (c *config) logf(format string, args ...any) {
	if c.log != nil {
		c.log.Printf(format, args...)
	}
}

func (c *config) warnf(format string, args ...any) { c.logf("warning: "+format, args...) }

func (c *config) failf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// read reads everything, and collects what is wrong.
func (c *config) read() {
	c.defaultDomain = lower(c.get("DEFAULT_DOMAIN", ""))
	c.domainLimits = c.set("DOMAIN_LIMITS")
	c.noAlias = make(map[string]bool)
	for _, name := range []string{"REAL_DOMAINS", "ALIAS_DOMAINS"} {
		for domain := range strings.SplitSeq(lower(c.get(name, "")), ":") {
			c.noAlias[domain] = true
		}
	}
	c.readRelayAge()
	c.readHostIP()
	c.localDB, _ = c.readDatabase("MYSQL_", "host.mysql", database{
		hosts: "localhost", user: "indimail", name: "indimail",
	})
	c.centralDB, c.aliasTable = c.readDatabase("CNTRL_", "host.cntrl", c.localDB)
	c.readStores()
	c.readAssign()
	c.readRoutes()
	for _, name := range []string{"host.mysql", "host.cntrl", c.get("MCDFILE", "mcdinfo")} {
		c.warnIfReadable(c.control(name))
	}
}

func (c *config) readRelayAge() {
	const yearInMinutes = 525600
	text := c.get("RELAY_CLEAR_MINUTES", "30")
	minutes, err := strconv.ParseUint(text, 10, 32)
	if err != nil || minutes > yearInMinutes {
		c.failf("RELAY_CLEAR_MINUTES: want minutes, from 0 to %d, not %q", yearInMinutes, text)
	}
	c.relayAge = time.Duration(minutes) * time.Minute
}

func (c *config) readHostIP() {
	ip, err := c.value("hostip", "127.0.0.1")
	if err != nil {
		c.warnf("%v", err)
	} else if net.ParseIP(ip) == nil {
		c.warnf("%s:1: this is no IP address", c.control("hostip"))
	}
	c.hostIP = ip
}

// warnIfReadable warns if everyone on the machine can read a file of passwords.
func (c *config) warnIfReadable(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&0o004 != 0 {
		c.warnf("%s: holds a password and everyone can read it: "+
			"chgrp indimail %[1]s && chmod 640 %[1]s", path)
	}
}

// A line is one of a file that is neither blank nor a comment.
type line struct {
	text  string
	where string // path:number, for messages
}

// lines returns those of a file, none if it is missing. A comment begins with
// #: anywhere in the line, or with wholeLine only as its first character.
func (c *config) lines(path string, wholeLine bool) []line {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.errs = append(c.errs, err) // who knows what it says
	}
	var lines []line
	for i, text := range strings.Split(string(b), "\n") {
		text = strings.TrimSpace(text)
		before, _, comment := strings.Cut(text, "#")
		if comment && (!wholeLine || before == "") {
			text = strings.TrimSpace(before)
		}
		if text != "" {
			lines = append(lines, line{text, fmt.Sprintf("%s:%d", path, i+1)})
		}
	}
	return lines
}

// readDatabase reads where a database is: from the variable prefix+HOST, else
// from the first line of the control file. Both have the form
//
//	host[:user[:password[:socket-or-port[:ssl|nossl]]]]
//
// What it leaves out comes from the other variables, else from base. There
// reports whether the file exists.
func (c *config) readDatabase(prefix, file string, base database) (db database, there bool) {
	db = base
	db.user = c.get(prefix+"USER", base.user)
	db.passwd = c.get(prefix+"PASSWD", base.passwd)
	db.socket = c.get(prefix+"SOCKET", base.socket)
	db.port = c.get(prefix+"VPORT", base.port)
	if c.set(prefix+"VPORT") && !c.set(prefix+"SOCKET") {
		db.socket = "" // a port of its own counts more than a socket of base
	}
	db.name = c.get(prefix+"DATABASE", base.name)
	if !isPort(db.port) {
		c.failf("%sVPORT: want a port", prefix)
		db.port = ""
	}
	from := line{c.get(prefix+"HOST", ""), prefix + "HOST"}
	path := c.control(file)
	if from.text == "" {
		if lines := c.lines(path, true); len(lines) > 0 {
			from = lines[0]
		}
	}
	if !db.setFields(from.text) {
		c.failf("%s: want host:user:password:socket-or-port:ssl|nossl, of which the last "+
			"may be missing, and no blanks in host", from.where)
	}
	_, err := os.Stat(path)
	return db, err == nil
}

// setFields sets what text says, and reports whether it can be meant.
func (db *database) setFields(text string) bool {
	hosts, rest := cutHosts(text)
	fields := strings.Split(rest, ":")
	most := 4
	if len(fields) > most || strings.ContainsFunc(hosts, unicode.IsSpace) {
		return false
	}
	fields = append(fields, make([]string, most)...)
	at, security := fields[2], fields[3]
	db.hosts = cmp.Or(hosts, db.hosts)
	db.user = cmp.Or(fields[0], db.user)
	db.passwd = cmp.Or(fields[1], db.passwd)
	if strings.HasPrefix(at, "/") {
		db.socket, db.port = at, ""
	} else if !isPort(at) {
		return false
	} else if at != "" {
		db.socket, db.port = "", at
	}
	if security != "" {
		db.tls = security == "ssl"
	}
	return slices.Contains([]string{"", "ssl", "nossl"}, security)
}

// cutHosts cuts text at the first colon outside brackets: these hold an IPv6
// address, which may also stand alone without them.
func cutHosts(text string) (hosts, rest string) {
	if net.ParseIP(text) != nil {
		return text, ""
	}
	inBrackets := false
	for i, r := range text {
		switch r {
		case '[':
			inBrackets = true
		case ']':
			inBrackets = false
		case ':':
			if !inBrackets {
				return text[:i], text[i+1:]
			}
		}
	}
	return text, ""
}

// isPort reports whether text is a port number, or empty for the default.
func isPort(text string) bool {
	_, err := strconv.ParseUint(cmp.Or(text, "0"), 10, 16)
	return err == nil
}

// storeKeys are what an entry of mcdinfo is made of. Other keys are ignored.
var storeKeys = []string{"server", "mdahost", "port", "use_ssl", "database", "user", "pass"}

// An mcdEntry is one of mcdinfo.
type mcdEntry struct {
	domain      string
	distributed bool
	where       string // it begins there
	values      map[string]string
}

// readStores reads mcdinfo: "domain NAME 0|1", then for each of the domain's
// stores a line for every one of storeKeys. 1 means distributed. An entry that
// cannot be used makes questions about its domain an error, and harms no other.
func (c *config) readStores() {
	var entries []mcdEntry
	for _, l := range c.lines(c.control(c.get("MCDFILE", "mcdinfo")), false) {
		fields := strings.Fields(l.text)
		key := fields[0]
		value := strings.Join(fields[1:], " ")
		if key == "domain" {
			name, flag, _ := strings.Cut(value, " ")
			if name == "" {
				c.warnf("%s: a domain without a name", l.where)
			}
			entries = append(entries, newEntry(lower(name), flag == "1", l.where))
			continue
		}
		if value == "" || !slices.Contains(storeKeys, key) {
			continue
		}
		if len(entries) == 0 {
			c.warnf("%s: ignored, since no domain stands before it", l.where)
			continue
		}
		e := entries[len(entries)-1]
		if e.values[key] != "" { // so it is of the domain's next store
			e = newEntry(e.domain, e.distributed, l.where)
			entries = append(entries, e)
		}
		e.values[key] = value
	}
	for _, e := range entries {
		c.addStore(e)
	}
}

func newEntry(domain string, distributed bool, where string) mcdEntry {
	return mcdEntry{domain, distributed, where, make(map[string]string)}
}

func (c *config) addStore(e mcdEntry) {
	v := e.values
	s := store{
		domain:      e.domain,
		distributed: e.distributed,
		mdahost:     v["mdahost"],
		db: database{
			hosts:  v["server"],
			port:   v["port"],
			user:   v["user"],
			passwd: v["pass"],
			name:   v["database"],
			tls:    v["use_ssl"] == "1",
		},
	}
	numbers := isPort(v["port"]) && (v["use_ssl"] == "0" || v["use_ssl"] == "1")
	if len(v) < len(storeKeys) || !numbers {
		s.broken = fmt.Errorf("%s: this entry of domain %s is incomplete or has no number for "+
			"port or use_ssl", e.where, e.domain)
		c.warnf("%v: questions about the domain are answered with an error", s.broken)
	}
	c.stores = append(c.stores, s)
}

// AssignFile returns the path of the file that lists the domains of this
// machine. A nil getenv stands for os.Getenv.
func AssignFile(getenv func(string) string) string {
	dir := environ{getenv}.get("ASSIGNDIR", "/etc/indimail/users")
	return filepath.Join(dir, "assign")
}

// readAssign reads the lines "+domain-:domain:uid:gid:dir:-::".
func (c *config) readAssign() {
	c.assign = make(map[string]string)
	for _, l := range c.lines(AssignFile(c.getenv), true) {
		text, ok := strings.CutPrefix(l.text, "+")
		if !ok || strings.HasPrefix(text, ":") { // a line for no domain, or for all
			continue
		}
		const dirField, least = 4, 6
		fields := strings.Split(text, ":")
		directory := ""
		if len(fields) >= least {
			directory = fields[dirField]
		} else {
			c.warnf("%s: want +domain-:domain:uid:gid:dir:-::", l.where)
		}
		c.assign[lower(strings.TrimSuffix(fields[0], "-"))] = directory
	}
}

// readRoutes reads the ports in qmail-remote's file smtproutes, or in
// qmtproutes:
//
//	domain:relay[:port][ user password]
func (c *config) readRoutes() {
	const smtpPort, qmtpPort = "25", "209"
	file := "smtproutes"
	c.routePort, c.distPort = smtpPort, smtpPort
	_, err := os.Stat(c.control("qmtproutes"))
	switch routes := c.get("ROUTES", ""); {
	case routes == "qmtp":
		file, c.distPort = "qmtproutes", qmtpPort
	case routes == "" && err == nil:
		file = "qmtproutes"
	}
	if file == "qmtproutes" {
		c.routePort = qmtpPort
	}
	path := c.control(file)
	if f, err := os.Open(path); err == nil {
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		c.warnf("%s: skipped: %v", path, err)
		return
	}
	for _, l := range c.lines(path, false) {
		text := strings.Fields(l.text)[0] // user and password may stand behind it
		domain, relay, ok := strings.Cut(text, ":")
		if !ok {
			continue
		}
		_, port := cutHosts(relay)
		if !isPort(port) {
			c.warnf("%s: skipped, want domain:relay:port", l.where)
			continue
		}
		c.routes = append(c.routes, route{lower(domain), cmp.Or(port, c.routePort)})
	}
}

// openPools gives each database a pool, one of keep if it fits.
func (c *config) openPools(keep []*pool, counts *selectCounts) {
	open := func(db database) *pool {
		same := func(p *pool) bool { return p.of == db }
		if i := slices.IndexFunc(c.pools, same); i >= 0 {
			return c.pools[i]
		}
		var p *pool
		if i := slices.IndexFunc(keep, same); i >= 0 {
			p = keep[i]
		} else {
			p = newPool(db, c, counts)
		}
		c.pools = append(c.pools, p)
		return p
	}
	c.local = open(c.localDB)
	c.central = open(c.centralDB)
	for i := range c.stores {
		s := &c.stores[i]
		if s.broken != nil {
			continue
		}
		// Entries of one account share the connections of the first.
		first := slices.IndexFunc(c.stores, func(o store) bool {
			return o.broken == nil && o.db.account() == s.db.account()
		})
		s.pool = open(c.stores[first].db)
	}
}

// account returns db without what proves it.
func (db database) account() database {
	db.passwd, db.tls = "", false
	return db
}

const (
	maxConns   = 16              // connections to one database
	maxWaiting = 512             // questions that want one of them
	connLife   = 5 * time.Minute // so a name that moves and a new grant are followed
	connIdle   = time.Minute     // less than what firewalls forget
)

// A pool is the connections to one database.
type pool struct {
	of      database
	name    string // for people
	db      *sql.DB
	waiting chan struct{} // held by each question
	slots   chan struct{} // held by each SELECT
	counts  *selectCounts
	config  *config // for its log
	down    atomic.Bool
	idle    sync.Mutex // held while the number of idle connections is limited
}

// newPool connects to nothing yet.
func newPool(of database, c *config, counts *selectCounts) *pool {
	p := &pool{
		of:      of,
		name:    of.name + " on " + of.hosts,
		db:      sql.OpenDB(&connector{db: of, env: c.environ}),
		waiting: make(chan struct{}, maxWaiting),
		slots:   make(chan struct{}, maxConns),
		counts:  counts,
		config:  c,
	}
	p.db.SetMaxOpenConns(maxConns)
	p.db.SetMaxIdleConns(maxConns)
	p.db.SetConnMaxLifetime(connLife)
	p.db.SetConnMaxIdleTime(connIdle)
	return p
}

// MySQLStats counts SELECTs, those that failed, and the time they took
// together.
type MySQLStats struct {
	Calls, Errors uint64
	Time          time.Duration
}

type selectCounts struct{ calls, errors, nanoseconds atomic.Int64 }

// Stats returns what was asked of MySQL so far.
func (m *MySQL) Stats() MySQLStats {
	return MySQLStats{
		Calls:  uint64(m.counts.calls.Load()),
		Errors: uint64(m.counts.errors.Load()),
		Time:   time.Duration(m.counts.nanoseconds.Load()),
	}
}

// A connector connects to one of several servers with the same data: to the
// last good one first, then to the others in their order.
type connector struct {
	db   database
	env  environ
	good atomic.Int64 // index of the last good host
}

// Driver is part of driver.Connector.
func (*connector) Driver() driver.Driver { return mysql.MySQLDriver{} }

// Connect gives each host its share of the time that is left.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	end, _ := ctx.Deadline()
	hosts := strings.Split(c.db.hosts, ",")
	first := int(c.good.Load())
	var failed error
	for i := range hosts {
		n := (first + i) % len(hosts)
		share := time.Until(end) / time.Duration(len(hosts)-i)
		one, cancel := context.WithTimeout(ctx, share)
		conn, err := c.connect(one, strings.TrimSpace(hosts[n]))
		cancel()
		if err == nil {
			c.good.Store(int64(n))
			return conn, nil
		}
		if failed == nil {
			failed = err
		} else {
			failed = fmt.Errorf("%w; %w", failed, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// connect connects to one host.
func (c *connector) connect(ctx context.Context, host string) (driver.Conn, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = c.db.user, c.db.passwd, c.db.name
	cfg.InterpolateParams = true // one round trip, and nothing that a proxy can forget
	cfg.Logger = &mysql.NopLogger{}
	cfg.Net, cfg.Addr = c.db.address(host)
	if c.db.tls {
		config, err := tlsConfig(c.env, host)
		if err != nil {
			return nil, err
		}
		cfg.TLS = config
	}
	opener, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Addr, err)
	}
	conn, err := opener.Connect(ctx)
	if err == nil {
		err = pin(ctx, conn)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Addr, hideText(err))
	}
	return conn, nil
}

// How long one SELECT may take. The server itself gives up first, so that no
// SELECT goes on for which nobody waits. A connection on which nothing comes
// even then is dead, and the rest of the time is for another one.
const (
	statementTime = 2200 * time.Millisecond // as in session
	tryTime       = 2300 * time.Millisecond
)

// session pins every setting of server or init_connect that could change an
// answer. The limits of time have other names in MariaDB and MySQL; in these
// comments each of the two reads its own.
const session = `SET NAMES utf8mb4, autocommit=1, sql_mode='', sql_big_selects=1,
	sql_select_limit=18446744073709551615
	/*M!100101 , max_statement_time=2.2 */ /*M!100301 , system_versioning_asof=DEFAULT */
	/*!50708 , max_execution_time=2200 */`

// pin prepares a new connection. The last statement asks for nothing; a Galera
// node that is not ready refuses even that.
func pin(ctx context.Context, conn driver.Conn) error {
	statements := []string{
		session,
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
		"DO 0",
	}
	for _, statement := range statements {
		_, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil)
		if err != nil {
			conn.Close()
			return err
		}
	}
	return nil
}

// address returns where a host is reached: by its socket if it is this machine.
func (db database) address(host string) (network, addr string) {
	bare := strings.Trim(host, "[]")
	usual := db.socket == "" && db.port == "" && bare == "localhost"
	if isThisMachine(bare) && (db.socket != "" || usual) {
		return "unix", cmp.Or(db.socket, usualSocket())
	}
	port := strings.TrimLeft(db.port, "0")
	return "tcp", net.JoinHostPort(bare, cmp.Or(port, "3306"))
}

func isThisMachine(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsLoopback() {
		return ip != nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		own, ok := a.(*net.IPNet)
		return ok && own.IP.Equal(ip)
	})
}

// usualSocket returns the socket that a server of this machine has.
func usualSocket() string {
	const debian = "/run/mysqld/mysqld.sock"
	for _, path := range []string{debian, "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return debian
}

// tlsConfig returns how a server must prove what it is. With MYSQL_OPT_SSL_CA
// its chain must lead there; its name counts only if
// MYSQL_OPT_SSL_VERIFY_SERVER_CERT asks for that, because IndiMail's
// certificates carry none. Without, the system's roots and the name count.
func tlsConfig(env environ, host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: strings.Trim(host, "[]"), MinVersion: tls.VersionTLS12}
	path := env.get("MYSQL_OPT_SSL_CA", "")
	if path == "" {
		return config, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: no certificates in %s", path)
	}
	config.RootCAs = roots
	if env.get("MYSQL_OPT_SSL_VERIFY_SERVER_CERT", "0") != "0" {
		return config, nil
	}
	config.InsecureSkipVerify = true // replaced by what follows
	config.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
	return config, nil
}

// errorNumber returns the number of an error of MySQL or MariaDB, 0 if it is
// none.
func errorNumber(err error) uint16 {
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return refused.Number
	}
	return 0
}

const erNoSuchTable = 1146

// isDenied reports whether the server does not let us in.
func isDenied(err error) bool {
	switch errorNumber(err) {
	case 1044, // ER_DBACCESS_DENIED_ERROR
		1045, // ER_ACCESS_DENIED_ERROR
		1698: // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
		return true
	}
	return false
}

// isFinal reports whether asking again would give the same error.
func isFinal(err error) bool {
	switch errorNumber(err) {
	case erNoSuchTable,
		1049, // ER_BAD_DB_ERROR
		1054, // ER_BAD_FIELD_ERROR
		1064, // ER_PARSE_ERROR
		1142, // ER_TABLEACCESS_DENIED_ERROR
		1143, // ER_COLUMNACCESS_DENIED_ERROR
		1969, // ER_STATEMENT_TIMEOUT of MariaDB
		3024: // ER_QUERY_TIMEOUT of MySQL
		return true
	}
	return isDenied(err) || isNoLetter(err)
}

// isNoLetter reports whether a column cannot hold a letter that was asked for.
func isNoLetter(err error) bool {
	switch errorNumber(err) {
	case 1267, // ER_CANT_AGGREGATE_2COLLATIONS
		1270, // ER_CANT_AGGREGATE_3COLLATIONS
		1271, // ER_CANT_AGGREGATE_NCOLLATIONS
		3988: // ER_CANNOT_CONVERT_STRING of MySQL
		return true
	}
	return false
}

// isFull reports whether the server has no connection for us.
func isFull(err error) bool {
	switch errorNumber(err) {
	case 1040, // ER_CON_COUNT_ERROR
		1203, // ER_TOO_MANY_USER_CONNECTIONS
		1226: // ER_USER_LIMIT_REACHED, MAX_USER_CONNECTIONS of the account
		return true
	}
	return false
}

// A row is what a SELECT found.
type row []sql.NullString

// errBusy says that too many questions wait for one database.
var errBusy = errors.New("too many questions wait for it")

// query returns the rows of one SELECT. What failed is asked once more, on a
// fresh connection, if there is time: the other idle ones are no better than
// the one that died. When the server has no connection for us it waits for one
// of ours.
func (p *pool) query(ctx context.Context, text string, args ...any) (rows []row, err error) {
	select {
	case p.waiting <- struct{}{}:
		defer func() { <-p.waiting }()
	default:
		return nil, p.failed(errBusy)
	}
	const shortest, longest = time.Millisecond, 50 * time.Millisecond
	again := false
	for wait := shortest; ; wait = min(2*wait, longest) {
		rows, err = p.try(ctx, text, args)
		if err == nil {
			p.works()
			return rows, nil
		}
		if ctx.Err() != nil || isFinal(err) {
			break
		}
		if open := p.db.Stats().OpenConnections; isFull(err) && open > 0 {
			p.shrink(open)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			continue
		}
		if again {
			break
		}
		again = true
		p.dropIdle()
	}
	if isNoLetter(err) && !isASCII(args) {
		return nil, nil // so there is no such row
	}
	return nil, p.failed(err)
}

func isASCII(args []any) bool {
	text := fmt.Sprint(args...)
	return !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII })
}

// shrink has questions queue for the connections that are open, for a while.
func (p *pool) shrink(open int) {
	const while = time.Second
	p.idle.Lock()
	p.db.SetMaxOpenConns(open)
	p.idle.Unlock()
	time.AfterFunc(while, func() {
		p.idle.Lock()
		defer p.idle.Unlock()
		p.db.SetMaxOpenConns(maxConns)
		p.db.SetMaxIdleConns(maxConns)
	})
}

// dropIdle closes the connections that no question has. Two at the same time
// could lose one: database/sql closes them outside its lock, from a list that
// goes on growing when the limit is raised again.
func (p *pool) dropIdle() {
	p.idle.Lock()
	defer p.idle.Unlock()
	p.db.SetMaxIdleConns(0)
	p.db.SetMaxIdleConns(maxConns)
}

// failed returns the error with the database's name, and notes that a database
// has gone.
func (p *pool) failed(err error) error {
	// The table may be one that can be missing.
	gone := err != errBusy && errorNumber(err) != erNoSuchTable && !errors.Is(err, context.Canceled)
	err = fmt.Errorf("database %s: %w", p.name, hideText(err))
	if gone && p.down.CompareAndSwap(false, true) {
		p.config.logf("%v", err)
	}
	return err
}

// hideText leaves out MySQL's text for "access denied". It quotes the name of
// the user, and a misplaced password may stand there.
func hideText(err error) error {
	if isDenied(err) {
		return &mysql.MySQLError{Number: errorNumber(err), Message: "access denied"}
	}
	return err
}

// works notes that the database answers.
func (p *pool) works() {
	if p.down.Load() && p.down.CompareAndSwap(true, false) {
		p.config.logf("database %s: answers again", p.name)
	}
}

// try asks once. The slot of a SELECT that took too long stays taken until the
// server, too, has given up: there are never more sessions than slots.
func (p *pool) try(ctx context.Context, text string, args []any) ([]row, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	rows, err := p.read(limited, text, args)
	took := time.Since(start)
	p.counts.calls.Add(1)
	p.counts.nanoseconds.Add(int64(took))
	if err != nil {
		p.counts.errors.Add(1)
	}
	if ctx.Err() != nil && took < statementTime {
		time.AfterFunc(statementTime-took, func() { <-p.slots })
	} else {
		<-p.slots
	}
	return rows, err
}

func (p *pool) read(ctx context.Context, text string, args []any) (all []row, err error) {
	rows, err := p.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		r := make(row, len(columns))
		to := make([]any, len(columns))
		for i := range r {
			to[i] = &r[i]
		}
		if err := rows.Scan(to...); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

// optional returns the rows of a table that may be missing: the C programs make
// it when they first write to it.
func optional(rows []row, err error) ([]row, error) {
	if errorNumber(err) == erNoSuchTable {
		return nil, nil
	}
	return rows, err
}

// table returns the name of a table, quoted.
func (c *config) table(variable, def string) string {
	return "`" + strings.ReplaceAll(c.get(variable, def), "`", "``") + "`"
}

// A linkReader reads the links of domain directories. One may hang, on a file
// server that has gone: then one thread hangs with it, not one for each
// question.
type linkReader struct {
	mu    sync.Mutex
	reads map[string]*linkRead // those under way, by directory
}

type linkRead struct {
	start  time.Time
	done   chan struct{} // closed when target and err are set
	target string
	err    error
}

const (
	linkTime = time.Second // for reading one link
	maxLinks = 1000        // read at a time: each takes a thread
)

func (l *linkReader) read(ctx context.Context, dir string) (string, error) {
	l.mu.Lock()
	r := l.reads[dir]
	if r == nil {
		if l.reads == nil {
			l.reads = make(map[string]*linkRead)
		}
		if len(l.reads) >= maxLinks {
			l.mu.Unlock()
			return "", fmt.Errorf("%s: too many directories hang", dir)
		}
		r = &linkRead{start: time.Now(), done: make(chan struct{})}
		l.reads[dir] = r
		go l.finish(dir, r)
	}
	l.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, r.start.Add(linkTime))
	defer cancel()
	select {
	case <-r.done:
		return r.target, r.err
	case <-ctx.Done():
		return "", fmt.Errorf("%s hangs: %w", dir, ctx.Err())
	}
}

func (l *linkReader) finish(dir string, r *linkRead) {
	r.target, r.err = os.Readlink(dir)
	l.mu.Lock()
	delete(l.reads, dir)
	l.mu.Unlock()
	close(r.done)
}

// realDomain returns the domain behind an alias domain, else domain itself.
func (c *config) realDomain(ctx context.Context, domain string) (string, error) {
	if c.noAlias[domain] {
		return domain, nil
	}
	if dir, listed := c.assign[domain]; listed {
		target, err := c.links.read(ctx, dir)
		if err == nil {
			return lower(filepath.Base(target)), nil
		}
		// EINVAL: no link. A front end has no mail store, so none there is as
		// good.
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return domain, nil
		}
		return "", err
	}
	if !c.aliasTable {
		return domain, nil
	}
	const text = "SELECT alias,domain FROM aliasdomain WHERE alias=?"
	rows, err := optional(c.central.query(ctx, text, domain))
	for _, r := range rows {
		if !sameName(r[0].String, domain) {
			continue
		}
		if !r[1].Valid {
			return "", fmt.Errorf("%w: table aliasdomain: domain of %s is NULL", ErrInvalid, domain)
		}
		return cmp.Or(lower(r[1].String), domain), nil
	}
	return domain, err
}

// A place says where the rows of an address are.
type place struct {
	local  string
	domain string // as it was asked for
	real   string // the domain behind it
	store  *store // nil: the address is nowhere
	host   string // of a distributed user, by hostcntrl
}

func (at place) email() string { return at.local + "@" + at.real }

func (at place) distributed() bool { return at.host != "" }

// errNoHost says that host_table lacks a user's host.
var errNoHost = errors.New("no such host in table host_table")

// locate finds the place of an address, or of a domain if local is empty.
func (c *config) locate(ctx context.Context, local, domain string) (place, error) {
	at := place{local: local, domain: domain}
	real, err := c.realDomain(ctx, domain)
	if err != nil {
		return at, err
	}
	at.real = real
	first := slices.IndexFunc(c.stores, func(s store) bool { return s.domain == real })
	if first >= 0 {
		at.store = &c.stores[first]
		if at.store.distributed && local != "" {
			return at, c.distribute(ctx, &at)
		}
		return at, at.store.broken
	}
	// Where assign lists domains, rows of any other domain were left behind.
	_, listed := c.assign[real]
	if len(c.assign) == 0 || listed || local == "" {
		at.store = &store{mdahost: c.hostIP, pool: c.local}
	}
	return at, nil
}

// distribute finds the store of a user of a distributed domain: hostcntrl names
// the user's host, host_table its IP address, and mcdinfo the store there. The
// row of * is for users without one of their own.
func (c *config) distribute(ctx context.Context, at *place) error {
	at.store = nil
	host, err := c.hostOf(ctx, at.local, at.real)
	if host == "" && err == nil {
		host, err = c.hostOf(ctx, "*", at.real)
	}
	if host == "" && err == nil {
		for _, s := range c.stores { // the user may be in one of which we know too little
			if s.domain == at.real && s.broken != nil {
				err = s.broken
			}
		}
	}
	if host == "" || err != nil {
		return err
	}
	const text = "SELECT host,ipaddr FROM host_table WHERE host=?"
	rows, err := c.central.query(ctx, text, host)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(rows, func(r row) bool { return sameName(r[0].String, host) })
	if i < 0 {
		return fmt.Errorf("%w: %s of %s", errNoHost, host, at.email())
	}
	ip := rows[i][1].String
	for n := range c.stores {
		s := &c.stores[n]
		if s.domain == at.real && s.mdahost == ip {
			at.store, at.host = s, host
			return s.broken
		}
	}
	return fmt.Errorf("domain %s has no entry with mdahost %s in mcdinfo", at.real, ip)
}

// hostOf returns the host in the row of a name, "" if there is no row.
func (c *config) hostOf(ctx context.Context, name, real string) (string, error) {
	text := "SELECT pw_name,pw_domain,host FROM " + c.table("CNTRL_TABLE", "hostcntrl") +
		" WHERE pw_name=? AND pw_domain=?"
	rows, err := c.central.query(ctx, text, name, real)
	for _, r := range rows {
		if !r.isOf(place{local: name, real: real}) {
			continue
		}
		if r[2].String == "" {
			return "", fmt.Errorf("%w: table hostcntrl: %s@%s has no host", ErrInvalid, name, real)
		}
		return r[2].String, nil
	}
	return "", err
}

// Resolve looks q up. What is not in the tables is an answer. Where there is
// none, the error wraps ErrUnavailable and names the database.
func (m *MySQL) Resolve(ctx context.Context, q Query) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	a, err := m.lookUp(ctx, q)
	if err == nil && a.isError(q.Type) {
		err = fmt.Errorf("the answer for %q: %w: more than %d bytes", q.Email, ErrTooLong, maxReply)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %v: %w", ErrUnavailable, q.Type, err)
	}
	return a, nil
}

func (m *MySQL) lookUp(ctx context.Context, q Query) (Answer, error) {
	c, err := m.current()
	if err != nil {
		return "", err
	}
	if !q.Type.known() || q.Type.extension() || q.Type == TypeRelay && q.IP == "" {
		return "", fmt.Errorf("%w: no database can answer this", ErrInvalid)
	}
	local, domain := q.Split(c.defaultDomain)
	ofDomain := q.Type == TypeLimit && separator([]byte(q.Email)) < 0
	if !isPlausible(local, domain) || local == "" && !ofDomain && q.Type != TypeDomain {
		return Absent(q), nil
	}
	if q.Type == TypeDomain {
		real, err := c.realDomain(ctx, domain)
		return NewData(q.Type, real), err
	}
	at, err := c.locate(ctx, local, domain)
	if q.Type == TypeAlias && errors.Is(err, errNoHost) {
		return Absent(q), nil // as the C programs say
	}
	if err != nil || at.store == nil {
		return Absent(q), err
	}
	switch q.Type {
	case TypeUser:
		return c.status(ctx, at)
	case TypeRelay:
		return c.relay(ctx, at, q.IP)
	case TypePasswd:
		return c.passwd(ctx, at, q)
	case TypeHost:
		return c.host(ctx, at)
	case TypeAlias:
		return aliases(ctx, at)
	}
	return c.limits(ctx, at)
}

// isPlausible reports whether such an address could be in the tables at all.
func isPlausible(local, domain string) bool {
	return domain != "" && !strings.ContainsFunc(local+domain, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError
	})
}

// A userRow is a user's row in indimail or, for inactive users, in indibak.
type userRow struct {
	row
	inactive bool
}

// The columns of userColumns.
const (
	userName = iota
	userDomain
	userPasswd
	userUID
	userGID
	userGecos
	userDir
	userShell
	userSCRAM
)

const userColumns = "pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell,scram"

const overQuota = 0x10 // in pw_gid

// user returns the user's row, nil if there is none.
func (c *config) user(ctx context.Context, at place) (*userRow, error) {
	tables := []string{
		c.table("MYSQL_TABLE", "indimail"),
		c.table("MYSQL_INACTIVE_TABLE", "indibak"),
	}
	for i, table := range tables {
		text := "SELECT " + userColumns + " FROM " + table + " WHERE pw_name=? AND pw_domain=?"
		rows, err := at.store.pool.query(ctx, text, at.local, at.real)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if r.isOf(at) {
				return &userRow{row: r, inactive: i > 0}, nil
			}
		}
	}
	return nil, nil
}

// sameName reports whether two names are one except for case, as keys of the
// cache and flushes have it.
func sameName(a, b string) bool { return a == b || lower(a) == lower(b) }

// isOf reports whether the first two columns name the address. MySQL also finds
// "jurgen" for "jürgen".
func (r row) isOf(at place) bool {
	return sameName(r[0].String, at.local) && sameName(r[1].String, at.real)
}

// gid returns pw_gid; NULL is 0.
func (u *userRow) gid() (int, error) { return u.integer(userGID, "pw_gid") }

func (u *userRow) integer(column int, name string) (int, error) {
	n, err := number(u.row[column].String)
	if err != nil {
		email := u.row[userName].String + "@" + u.row[userDomain].String
		return 0, fmt.Errorf("%w: %s of %s is no number", ErrInvalid, name, email)
	}
	return n, nil
}

func (c *config) status(ctx context.Context, at place) (Answer, error) {
	user, err := c.user(ctx, at)
	if err != nil {
		return "", err
	}
	if user == nil {
		lines, err := aliasLines(ctx, at)
		if len(lines) == 0 {
			return NewAnswer(int(StatusAbsent)), err
		}
		return NewAnswer(int(StatusAlias)), err
	}
	gid, err := user.gid()
	switch {
	case user.inactive:
		return NewAnswer(int(StatusInactive)), nil
	case gid&overQuota != 0:
		return NewAnswer(int(StatusOverQuota)), nil
	}
	return NewAnswer(int(StatusActive)), err
}

// passwd answers with the entry. NULL is an empty field. A password that is
// NULL is an error, which lets nobody in.
func (c *config) passwd(ctx context.Context, at place, q Query) (Answer, error) {
	user, err := c.user(ctx, at)
	if user == nil || err != nil {
		return Absent(q), err
	}
	f := user.row
	email := at.local + "@" + at.domain
	if !f[userPasswd].Valid {
		return "", fmt.Errorf("%w: pw_passwd of %s is NULL", ErrInvalid, email)
	}
	passwd := f[userPasswd].String
	if f[userSCRAM].Valid {
		passwd = f[userSCRAM].String + "," + passwd
	}
	if _, err := user.integer(userUID, "pw_uid"); err != nil {
		return "", err
	}
	gid, err := c.gidWithLimits(ctx, at, user)
	if err != nil {
		return "", err
	}
	inactive := "0"
	if user.inactive {
		inactive = "1"
	}
	fields := []string{
		email, passwd, f[userUID].String, gid,
		f[userGecos].String, f[userDir].String, f[userShell].String, inactive,
	}
	return NewData(TypePasswd, pwStruct+strings.Join(fields, ":")), nil
}

// gidWithLimits returns pw_gid; with DOMAIN_LIMITS it carries flags of the
// domain's limits, except for a user whose gid says that they do not hold.
func (c *config) gidWithLimits(ctx context.Context, at place, user *userRow) (string, error) {
	const exempt = 0x2000
	text := user.row[userGID].String
	gid, err := user.gid()
	if err != nil || !c.domainLimits || gid&exempt != 0 {
		return text, err
	}
	record, err := limitsOf(ctx, at.store.pool, at.real)
	if record == "" || err != nil {
		return text, err
	}
	l, err := record.Limits()
	if err != nil {
		return "", err
	}
	flags := []struct {
		disabled int16
		flag     int
	}{
		{l.DisablePasswordChanging, 0x01},
		{l.DisablePop, 0x02},
		{l.DisableWebmail, 0x04},
		{l.DisableIMAP, 0x08},
		{l.DisableRelay, 0x20},
		{l.DisableDialup, 0x40},
		{l.DisableSMTP, 0x100},
	}
	for _, f := range flags {
		if f.disabled != 0 {
			gid |= f.flag
		}
	}
	return strconv.Itoa(gid), nil
}

// relay answers whether the user has logged in from ip lately.
func (c *config) relay(ctx context.Context, at place, ip string) (Answer, error) {
	if !at.distributed() {
		user, err := c.user(ctx, at)
		if user == nil || err != nil {
			return NewAnswer(0), err
		}
	}
	text := "SELECT email,ipaddr,timestamp FROM " + c.table("RELAY_TABLE", "relay") +
		" WHERE ipaddr=? AND email=?"
	rows, err := optional(at.store.pool.query(ctx, text, ip, at.email()))
	since := time.Now().Add(-c.relayAge).Unix()
	for _, r := range rows {
		if !sameName(r[0].String, at.email()) || r[1].String != ip {
			continue
		}
		login, err := strconv.ParseInt(cmp.Or(r[2].String, "0"), 10, 64)
		if err != nil {
			return "", fmt.Errorf("%w: table relay: timestamp of %s is no number",
				ErrInvalid, at.email())
		}
		if login > since {
			return NewAnswer(1), nil
		}
	}
	return NewAnswer(0), err
}

// aliasLines returns the lines of an alias in order.
func aliasLines(ctx context.Context, at place) ([]string, error) {
	const text = "SELECT alias,domain,valias_line FROM valias WHERE alias=? AND domain=?"
	rows, err := optional(at.store.pool.query(ctx, text, at.local, at.real))
	var lines []string
	for _, r := range rows {
		if r.isOf(at) {
			lines = append(lines, r[2].String+"\n")
		}
	}
	slices.Sort(lines)
	return lines, err
}

func aliases(ctx context.Context, at place) (Answer, error) {
	lines, err := aliasLines(ctx, at)
	return NewData(TypeAlias, strings.Join(lines, "")), err
}

// host answers with the SMTP route.
func (c *config) host(ctx context.Context, at place) (Answer, error) {
	port := c.routePort
	if at.distributed() {
		p, err := c.smtpPort(ctx, at)
		if err != nil {
			return "", err
		}
		port = p
	} else {
		user, err := c.user(ctx, at)
		if user == nil || err != nil {
			return NewAnswer(0), err
		}
		i := slices.IndexFunc(c.routes, func(r route) bool {
			return r.domain == at.real || r.domain == ""
		})
		if i >= 0 {
			port = c.routes[i].port
		}
	}
	return NewData(TypeHost, at.domain+":"+at.store.mdahost+":"+port), nil
}

// smtpPort returns the port of a distributed user's host: of the row for this
// machine, else of the row for all.
func (c *config) smtpPort(ctx context.Context, at place) (string, error) {
	const text = "SELECT host,domain,src_host,port FROM smtp_port" +
		" WHERE host=? AND domain=? AND src_host IN (?,'*')"
	rows, err := optional(c.central.query(ctx, text, at.host, at.real, c.hostIP))
	port := c.distPort
	for _, r := range rows {
		known := sameName(r[0].String, at.host) && sameName(r[1].String, at.real)
		if !known || number0(r[3]) {
			continue
		}
		if !isPort(r[3].String) {
			return "", fmt.Errorf("%w: table smtp_port: port of %s is no number",
				ErrInvalid, at.host)
		}
		port = r[3].String
		if r[2].String == c.hostIP {
			break
		}
	}
	return port, err
}

func number0(column sql.NullString) bool { return cmp.Or(column.String, "0") == "0" }

// limits answers with the record of the address as it was asked for, else of
// the address in the real domain, else of the real domain, else with the
// defaults. Of a domain it answers with its own record, or with that of the
// real one.
func (c *config) limits(ctx context.Context, at place) (Answer, error) {
	p := at.store.pool
	if at.local == "" {
		a, err := limitsOf(ctx, p, at.domain, at.real)
		return cmp.Or(a, NewAnswer(0)), err
	}
	if !at.distributed() {
		user, err := c.user(ctx, at)
		if user == nil || err != nil {
			return NewAnswer(0), err
		}
	}
	asked := at.local + "@" + at.domain
	a, err := limitsOf(ctx, p, asked, at.email(), at.real)
	if a == "" && err == nil {
		return limitsAnswer(make(row, limitColumns))
	}
	return a, err
}

// limitsSQL has the columns of the record in its order. One column,
// perm_maillist, holds three fields.
const limitsSQL = "SELECT domain,domain_expiry,passwd_expiry,maxpopaccounts,maxaliases," +
	"maxforwards,maxautoresponders,maxmailinglists,diskquota,maxmsgcount,defaultquota," +
	"defaultmaxmsgcount,disable_pop,disable_imap,disable_dialup,disable_passwordchanging," +
	"disable_webmail,disable_relay,disable_smtp,perm_account,perm_alias,perm_forward," +
	"perm_autoresponder,perm_maillist,perm_quota,perm_defaultquota" +
	" FROM vlimits WHERE domain=?"

// The columns of limitsSQL.
const (
	limitDiskQuota    = 8  // from here the default is 0
	limitDisablePop   = 12 // from here a field has 16 bits
	limitPermMaillist = 23
	limitColumns      = 26
)

// limitsOf returns the answer with the record of the first of these names that
// has one, or "".
func limitsOf(ctx context.Context, p *pool, names ...string) (Answer, error) {
	for _, name := range slices.Compact(names) {
		rows, err := optional(p.query(ctx, limitsSQL, name))
		if err != nil {
			return "", err
		}
		for _, r := range rows {
			if sameName(r[0].String, name) {
				return limitsAnswer(r)
			}
		}
	}
	return "", nil
}

// limitsAnswer makes the record of a row. NULL is the column's default: no
// limit. So a row of NULLs gives the defaults.
func limitsAnswer(r row) (Answer, error) {
	var b []byte
	for i := 1; i < limitColumns; i++ {
		n := int64(0)
		if i < limitDiskQuota {
			n = -1
		}
		if text := r[i]; text.Valid {
			var err error
			if n, err = parseLimit(text.String); err != nil {
				return "", fmt.Errorf("table vlimits, column %d of %q: %w", i+1, r[0].String, err)
			}
		}
		if i < limitDisablePop {
			b = binary.NativeEndian.AppendUint64(b, uint64(n))
			continue
		}
		fields := []int64{n}
		if i == limitPermMaillist {
			fields = []int64{n & 7, n >> 3 & 7, n >> 6 & 7}
		}
		for _, field := range fields {
			b = binary.NativeEndian.AppendUint16(b, uint16(field))
		}
	}
	limitType := LimitsOfDomain
	if separator([]byte(r[0].String)) >= 0 {
		limitType = LimitsOfUser
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(limitType))
	padding := make([]byte, limitsSize-len(b))
	return NewAnswer(limitsSize) + Answer(append(b, padding...)), nil
}

// parseLimit reads a number. A BIGINT UNSIGNED may be beyond int64.
func parseLimit(text string) (int64, error) {
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return int64(u), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: this is no number", ErrInvalid)
	}
	return n, nil
}

// Recent returns the addresses of those who logged in within the last age, each
// once, of each database the latest first. With an error they are those of the
// databases that answered.
func (m *MySQL) Recent(ctx context.Context, age time.Duration) ([]string, error) {
	c, err := m.current()
	if err != nil {
		return nil, err
	}
	const text = "/*M!100101 SET STATEMENT max_statement_time=60 FOR */" +
		" SELECT /*+ MAX_EXECUTION_TIME(60000) */ user,domain FROM lastauth" +
		" WHERE service IN ('imap','pop3','webm') AND timestamp>=FROM_UNIXTIME(?)" +
		" ORDER BY timestamp DESC"
	var emails []string
	var failed error
	seen := make(map[string]bool)
	for _, p := range c.userPools() {
		one, cancel := context.WithTimeout(ctx, time.Minute)
		rows, err := p.read(one, text, []any{time.Now().Add(-age).Unix()})
		cancel()
		if err != nil {
			failed = errors.Join(failed, p.failed(err))
		}
		for _, r := range rows {
			email := lower(r[0].String + "@" + r[1].String)
			if !seen[email] {
				seen[email] = true
				emails = append(emails, email)
			}
		}
	}
	return emails, failed
}

// userPools returns the databases that hold users.
func (c *config) userPools() []*pool {
	pools := []*pool{c.local}
	for _, s := range c.stores {
		if s.pool != nil && !slices.Contains(pools, s.pool) {
			pools = append(pools, s.pool)
		}
	}
	return pools
}

// errOf returns the error of a lookup whose answer does not matter.
func errOf[T any](_ T, err error) error { return err }

// Check asks every database what the seven queries ask it, about nobody. It
// calls say with each outcome: the database, what was asked for, the time it
// took, and the error if there is one.
func (m *MySQL) Check(
	ctx context.Context, say func(database, what string, took time.Duration, err error),
) error {
	c, err := m.current()
	if err != nil {
		return err
	}
	ask := func(p *pool, what string, look func(context.Context, place) error) {
		ctx, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		nobody := place{local: "0", real: "0", domain: "0", host: "0", store: &store{pool: p}}
		start := time.Now()
		err := look(ctx, nobody)
		say(p.name, what, time.Since(start), err)
	}
	users := func(ctx context.Context, at place) error { return errOf(c.user(ctx, at)) }
	lines := func(ctx context.Context, at place) error { return errOf(aliasLines(ctx, at)) }
	limits := func(ctx context.Context, at place) error { return errOf(c.limits(ctx, at)) }
	relay := func(ctx context.Context, at place) error { return errOf(c.relay(ctx, at, "0")) }
	for _, p := range c.userPools() {
		ask(p, "users", users)
		ask(p, "aliases", lines)
		ask(p, "limits", limits)
		ask(p, "relay", relay)
	}
	if c.aliasTable {
		ask(c.central, "alias domains", func(ctx context.Context, at place) error {
			return errOf(c.realDomain(ctx, at.domain))
		})
	}
	if slices.ContainsFunc(c.stores, func(s store) bool { return s.distributed }) {
		ask(c.central, "distributed users", func(ctx context.Context, at place) error {
			return c.distribute(ctx, &at)
		})
		ask(c.central, "ports", func(ctx context.Context, at place) error {
			return errOf(c.smtpPort(ctx, at))
		})
	}
	return nil
}

// A Location says where MySQL would look an address up.
type Location struct {
	RealDomain  string
	Database    string // name and host; "" if the address is nowhere
	MailStore   string // IP address
	Distributed bool
}

// Locate finds out where the answer to q would come from.
func (m *MySQL) Locate(ctx context.Context, q Query) (Location, error) {
	c, err := m.current()
	if err != nil {
		return Location{}, err
	}
	local, domain := q.Split(c.defaultDomain)
	if !isPlausible(local, domain) {
		return Location{RealDomain: domain}, nil
	}
	at, err := c.locate(ctx, local, domain)
	w := Location{RealDomain: at.real, Distributed: at.distributed()}
	if at.store != nil && at.store.pool != nil {
		w.Database, w.MailStore = at.store.pool.name, at.store.mdahost
	}
	return w, err
}
