// Package inlookup answers what mail programs ask about IndiMail's users: is
// there such a user, what is the password entry, where does the mail go.
//
// The users are in MySQL. A Server keeps the connections to it open, and
// remembers answers in a Cache. A Client asks it over named pipes, with the
// wire protocol of IndiMail's C programs inlookup(8) and inquery(3). Server and
// Client replace the C ones, together or each alone.
//
//	d := inlookup.Directory{Resolver: inlookup.FromEnv()}
//	entry, err := d.Passwd(ctx, "user@example.com")
//
// To read the source, begin with avl.go (the tree), then inquery.go (questions,
// answers, the asking side), cache.go (what a Resolver is, and the one that
// remembers), fifo.go (the server) and inlookup.go (MySQL).
package inlookup

// MySQL: where the rows are, and what they mean.
//
// Each SELECT reads one table and returns the columns as they are; Go code
// decides what they mean. So tables can have other collations and character
// sets, wider columns and NULLs, or be views. A join or a union would fail on
// some of these. The row found must carry the name that was asked for, because
// MySQL compares letters more loosely than mail does. A row that is not
// understood is an error, never "absent": an error delays mail, "absent"
// bounces it.
//
// The C programs read the same control files. A line that is of no use here is
// skipped with a warning, and of a number whatever digits there are count. No
// message quotes a line or a variable: either may hold a password.
//
// Each database has its own pool of connections, with its own bounds. So one
// that hangs costs only the questions that need it.

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math"
	"math/bits"
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

// MySQL is the Resolver that looks into the databases. It goes by these
// variables and by control files, which inlookup(8) explains. It reads them at
// the first question and at Reload, but the names of tables and the variables of
// MYSQL_OPT_ at each use.
//
//	MYSQL_HOST, _USER, _PASSWD, _DATABASE, _SOCKET, _VPORT: the database
//	CNTRL_HOST and so on: the central one of a cluster
//	MASTER_HOST and so on: the one with table dbinfo, if host.master exists
//	MYSQL_OPT_SSL_CA, MYSQL_OPT_SSL_VERIFY_SERVER_CERT
//	MYSQL_TABLE, MYSQL_INACTIVE_TABLE, RELAY_TABLE, CNTRL_TABLE
//	INDIMAIL_DOMAIN, else DEFAULT_DOMAIN: of addresses without one
//	REAL_DOMAINS, ALIAS_DOMAINS, DOMAIN_LIMITS
//	RELAY_CLEAR_MINUTES, ROUTES
//	CONTROLDIR, SYSCONFDIR, MCDFILE, ASSIGNDIR: where the files are
//
// A variable that ends in _HOST has the form of the files host.mysql, host.cntrl
// and host.master, which it overrides:
//
//	host:user:password:socket-or-port:ssl|nossl
//
// Fields may be missing. The default is localhost, user and database indimail,
// no password, the usual socket or port 3306, and no TLS.
//
// What Getenv returns as "" counts as not set, DOMAIN_LIMITS included. So
// without CONTROLDIR the files of /etc/indimail/control still count, and without
// ASSIGNDIR the file assign. A program that goes by a map alone names an empty
// directory for both.
type MySQL struct {
	Getenv func(string) string // nil: os.Getenv and os.LookupEnv
	Log    *log.Logger         // warnings, and databases that go and come back; nil: none

	config atomic.Pointer[config]
	links  linkReader

	reload  sync.Mutex // held while config changes; guards what follows
	failure error      // of the last configuration that could not be read
	failed  time.Time  // when that was
}

// FromEnv returns the Resolver that the environment chooses: a Client of the
// running server if QUERY_CACHE is set to any value, else a MySQL. Each call
// returns the same one.
func FromEnv() Resolver { return fromEnv() }

var fromEnv = sync.OnceValue(func() Resolver {
	if _, set := os.LookupEnv("QUERY_CACHE"); set {
		return new(Client)
	}
	return new(MySQL)
})

// Inquery asks q as the C function of that name does, by FromEnv().Resolve.
func Inquery(ctx context.Context, q Query) (Answer, error) {
	return FromEnv().Resolve(ctx, q)
}

// A config is what environment and control files say. Its fields never change
// once it is in force.
type config struct {
	environ
	log  *log.Logger
	errs []error

	defaultDomain string
	hostIP        string          // of this machine
	relayAge      int64           // seconds for which a login permits relaying
	realDomains   map[string]bool // domains that are never looked up as aliases
	domainLimits  bool            // limits of a domain set flags in the gid
	localDB       database
	centralDB     database          // of a cluster; localDB without host.cntrl
	aliasTable    bool              // host.cntrl exists
	stores        []store           // of mcdinfo, in its order
	assign        map[string]string // domain to directory
	assignLists   bool              // assign lists domains, so all of them
	routes        []route
	routePort     string // if there is no route
	distPort      string // of a distributed domain, if smtp_port has no row

	pools   []*pool
	local   *pool
	central *pool
	links   *linkReader
	said    sync.Map // the warnings of warnOnce
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
	from   string // file and line, or variable, that names the user; for messages
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

// Reload reads environment and control files again. An error names the file and
// line, or the variable; then the old configuration stays in force. What is
// only useless, such as a wrong number, is a warning in Log, and the default
// counts. What is wrong with tables and certificates, Check says. With
// reconnect it closes all connections to MySQL. Without it keeps those to
// databases that are still configured.
func (m *MySQL) Reload(reconnect bool) error {
	m.reload.Lock()
	defer m.reload.Unlock()
	return m.replaceConfig(reconnect)
}

// replaceConfig does what Reload does. The caller holds the mutex.
func (m *MySQL) replaceConfig(reconnect bool) error {
	c := &config{environ: environ{m.Getenv}, log: m.Log, links: &m.links}
	c.read()
	if err := errors.Join(c.errs...); err != nil {
		m.failure = err
		m.failed = time.Now()
		return err
	}
	old := m.config.Load()
	var keep []*pool
	if old != nil && !reconnect {
		keep = old.pools
	}
	c.openPools(keep)
	m.config.Store(c)
	if old != nil {
		c.succeed(old.pools)
	}
	return nil
}

// Close closes the connections. A question after it opens new ones.
func (m *MySQL) Close() error {
	m.reload.Lock()
	defer m.reload.Unlock()
	if c := m.config.Swap(nil); c != nil {
		for _, p := range c.pools {
			p.close()
		}
	}
	return nil
}

// succeed retires those of the old pools that are no longer in use. If one was
// down, the log hears how the pool of that name is which takes its place.
func (c *config) succeed(old []*pool) {
	for _, p := range old {
		if slices.Contains(c.pools, p) || !p.retire() {
			continue
		}
		for _, heir := range c.pools {
			if heir.name == p.name && !slices.Contains(old, heir) {
				heir.mu.Lock()
				heir.logged = isUnknown
				heir.mu.Unlock()
			}
		}
	}
}

// current returns the configuration in force, and reads it if there is none. If
// that failed while a question waited for it, the question gets the same error.
// The database of host.master may hang, and each further try would take as long.
func (m *MySQL) current() (*config, error) {
	if c := m.config.Load(); c != nil {
		return c, nil
	}
	began := time.Now()
	m.reload.Lock()
	defer m.reload.Unlock()
	if c := m.config.Load(); c != nil { // another question was first
		return c, nil
	}
	if m.failed.After(began) {
		return nil, m.failure
	}
	if err := m.replaceConfig(false); err != nil {
		return nil, err
	}
	return m.config.Load(), nil
}

func (c *config) logf(format string, args ...any) {
	if c.log != nil {
		defer rescue(new(error)) // the Writer's: it costs the line
		c.log.Printf(format, args...)
	}
}

func (c *config) warnf(format string, args ...any) { c.logf("warning: "+format, args...) }

// warnOnce warns, but never twice with the same words.
func (c *config) warnOnce(format string, args ...any) {
	if _, said := c.said.LoadOrStore(fmt.Sprintf(format, args...), true); !said {
		c.warnf(format, args...)
	}
}

func (c *config) failf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// read reads everything. It collects errors in errs.
func (c *config) read() {
	c.defaultDomain = lower(c.get("INDIMAIL_DOMAIN", c.get("DEFAULT_DOMAIN", "")))
	c.domainLimits = c.set("DOMAIN_LIMITS")
	c.realDomains = make(map[string]bool)
	// The C programs treat both alike.
	for _, name := range []string{"REAL_DOMAINS", "ALIAS_DOMAINS"} {
		for domain := range strings.SplitSeq(lower(c.get(name, "")), ":") {
			c.realDomains[domain] = true
		}
	}
	const many = 1 << 40 // minutes, so that the seconds do not overflow
	minutes := c.number(c.variable("RELAY_CLEAR_MINUTES"), 30)
	c.relayAge = 60 * max(-many, min(minutes, many))
	c.readHostIP()
	c.localDB, _ = c.readDatabase("MYSQL_", "host.mysql", database{
		hosts: "localhost", user: "indimail", name: "indimail", from: byDefault,
	})
	c.centralDB, c.aliasTable = c.readDatabase("CNTRL_", "host.cntrl", c.localDB)
	c.readStores()
	c.readAssign()
	c.readRoutes()
	files := []string{"host.mysql", "host.cntrl", "host.master", c.get("MCDFILE", "mcdinfo")}
	for _, name := range files {
		c.warnIfReadable(c.control(name))
	}
}

// The environment: settings that client, server and MySQL share.

// environ reads them.
type environ struct{ getenv func(string) string } // nil: os.Getenv

// get returns a variable, or def if it is unset or empty.
func (e environ) get(name, def string) string {
	if e.getenv == nil {
		return cmp.Or(os.Getenv(name), def)
	}
	return cmp.Or(e.getenv(name), def)
}

// set reports whether a variable is set, even to nothing. A getenv cannot tell
// "set to nothing" from "unset". With one, such a variable is not set.
func (e environ) set(name string) bool {
	_, set := os.LookupEnv(name)
	return e.get(name, "") != "" || e.getenv == nil && set
}

// leadingNumber returns the number at the beginning of text, as strtol(3) does:
// what follows the digits does not count. A number beyond int64 becomes the
// nearest one. It reports whether there is a number.
func leadingNumber(text string, base int) (n int64, ok bool) {
	text = strings.TrimSpace(text)
	rest := strings.TrimLeft(text, "+-")
	rest = strings.TrimLeft(rest, "0123456789"[:base])
	n, err := strconv.ParseInt(strings.TrimSuffix(text, rest), base, 64)
	return n, !errors.Is(err, strconv.ErrSyntax)
}

// control returns the path of a control file, by CONTROLDIR and SYSCONFDIR. A
// name that begins with a slash or a dot is a path. The path is not cleaned:
// table dbinfo has that of mcdinfo letter by letter as the C programs make it.
func (e environ) control(name string) string {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") {
		return name
	}
	dir := e.get("CONTROLDIR", "control")
	if !filepath.IsAbs(dir) {
		dir = e.get("SYSCONFDIR", "/etc/indimail") + "/" + dir
	}
	return dir + "/" + name
}

// ControlFile returns the path of a control file, by CONTROLDIR and SYSCONFDIR. A
// nil getenv stands for os.Getenv.
func ControlFile(getenv func(string) string, name string) string {
	return environ{getenv}.control(name)
}

// AssignFile returns the path of the file that lists the domains of this
// machine. A nil getenv stands for os.Getenv.
func AssignFile(getenv func(string) string) string {
	dir := environ{getenv}.get("ASSIGNDIR", "/etc/indimail/users")
	return filepath.Join(dir, "assign")
}

// readFile reads a file. In its place may be a FIFO, which must not hang: one
// that nobody writes to is empty, as for the C programs.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(deadline)) // a regular file can have none
	return io.ReadAll(f)
}

// value returns the first line of a control file, or def if there is none.
func (e environ) value(name, def string) (string, error) {
	b, err := readFile(e.control(name))
	if errors.Is(err, fs.ErrNotExist) {
		return def, nil
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return cmp.Or(strings.TrimSpace(line), def), err
}

// timeout returns how long a client waits for an answer. A file that cannot be
// read, or has no positive number, counts as none, because a client has nowhere
// to write a warning.
func (e environ) timeout() time.Duration {
	text, _ := e.value("timeoutread", "")
	n, _ := leadingNumber(text, 10)
	if n <= 0 {
		n = 4
	}
	const most = 1 << 30 // beyond it a Duration would overflow
	return time.Duration(min(n, most)) * time.Second
}

// fifoMode returns the mode for FIFOs that either end makes. Text that is no
// octal number stands for the default. A mode with which the owner could not
// open the FIFO is an error, before one is made.
func (e environ) fifoMode() (fs.FileMode, error) {
	const def, ownerBoth = 0o660, 0o600
	n, ok := leadingNumber(e.get("FIFO_MODE", ""), 8)
	if !ok || n < 0 {
		return def, nil
	}
	mode := fs.FileMode(n) & fs.ModePerm
	if mode&ownerBoth != ownerBoth {
		return 0, fmt.Errorf("FIFO_MODE: %04o: its owner must read and write: want 0660", n)
	}
	return mode, nil
}

// RequestFIFOs returns the FIFOs on which a client can ask the server called
// name. A nil getenv stands for os.Getenv. An empty name stands for INFIFO, or
// "infifo" without that. A name that begins with / or . is a path. Any other is
// in the directory INFIFODIR, else FIFODIR, else the C programs' default. The
// instances NAME.1, NAME.2 and so on come first. NAME itself comes last, and is
// used if none of them has a reader.
func RequestFIFOs(getenv func(string) string, name string) []string {
	path := environ{getenv}.requestFIFO(name)
	var paths []string
	for n := 1; ; n++ {
		next := instance(path, n)
		if _, err := os.Lstat(next); err != nil {
			return append(paths, path)
		}
		paths = append(paths, next)
	}
}

// requestFIFO returns the path of the request FIFO called name.
func (e environ) requestFIFO(name string) string {
	name = cmp.Or(name, e.get("INFIFO", "infifo"))
	if name[0] == '/' || name[0] == '.' {
		return name
	}
	dir := e.get("INFIFODIR", e.get("FIFODIR", ""))
	if dir == "" {
		dir = defaultDir()
	}
	return filepath.Join(dir, name)
}

// defaultDir returns the C programs' directory of request FIFOs.
func defaultDir() string {
	const since2023, before = "/run/indimail/inlookup", "/var/indimail/inquery"
	if info, err := os.Stat(since2023); err == nil && info.IsDir() {
		return since2023
	}
	return before
}

// number returns the number at the beginning of a text. If there is none it
// returns def, with a warning unless the text is empty.
func (c *config) number(from line, def int64) int64 {
	n, ok := leadingNumber(from.text, 10)
	if ok {
		return n
	}
	if from.text != "" {
		c.warnf("%s: want a number; it counts as %d", from.where, def)
	}
	return def
}

// port returns the port at the beginning of a text, "" for none and for 0.
func (c *config) port(from line) string {
	n, ok := leadingNumber(from.text, 10)
	valid := ok && n >= 0 && n <= math.MaxUint16
	if !valid && from.text != "" {
		c.warnf("%s: want a port", from.where)
	}
	if !valid || n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func (c *config) readHostIP() {
	var err error
	c.hostIP, err = c.value("hostip", "127.0.0.1")
	if err != nil {
		c.warnf("%v", err)
	} else if net.ParseIP(c.hostIP) == nil {
		c.warnf("%s:1: this is no IP address", c.control("hostip"))
	}
}

// warnIfReadable warns if everyone on the machine can read a file of passwords.
// What is no file, such as /dev/null, has none, and must stay readable.
func (c *config) warnIfReadable(path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode()&0o004 != 0 {
		c.warnf("%s: holds a password and everyone can read it: "+
			"chgrp indimail %[1]s && chmod 640 %[1]s", path)
	}
}

// A line of a file, neither blank nor a comment, or what stands in a variable.
type line struct {
	text  string
	where string // path:number or the variable, for messages
}

func (c *config) variable(name string) line { return line{c.get(name, ""), name} }

// lines returns the lines of a file, none if it is missing. See splitLines.
func (c *config) lines(path string, wholeLine bool) []line {
	b, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.errs = append(c.errs, err)
	}
	return splitLines(path, b, wholeLine)
}

// splitLines returns the lines of a file. A # begins a comment anywhere in a
// line, or with wholeLine only at its beginning.
func splitLines(path string, b []byte, wholeLine bool) (lines []line) {
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
// What is left out there comes from the other variables, else from base. It
// also reports whether the control file exists, even if that has no say.
func (c *config) readDatabase(prefix, file string, base database) (db database, exists bool) {
	db = base
	if user := c.variable(prefix + "USER"); user.text != "" {
		db.user = user.text
		db.from = user.where
	}
	db.passwd = c.get(prefix+"PASSWD", base.passwd)
	db.socket = c.get(prefix+"SOCKET", base.socket)
	port := c.port(c.variable(prefix + "VPORT"))
	if port != "" && c.get(prefix+"SOCKET", "") == "" {
		db.socket = "" // its own port overrides the socket of base
	}
	db.port = cmp.Or(port, base.port)
	db.name = c.get(prefix+"DATABASE", base.name)
	from := c.variable(prefix + "HOST")
	from.text = strings.TrimSpace(from.text) // as in a line of the file
	path := c.control(file)
	if from.text == "" {
		if lines := c.lines(path, true); len(lines) > 0 {
			from = lines[0]
		}
	}
	c.setFields(&db, from)
	_, err := os.Stat(path)
	return db, err == nil
}

// setFields sets the fields that the line has.
func (c *config) setFields(db *database, from line) {
	hosts, rest := cutHosts(from.text)
	if strings.ContainsFunc(hosts, unicode.IsSpace) { // an error: no host can be meant
		c.failf("%s: want host:user:password:socket-or-port:ssl|nossl, of which the last "+
			"may be missing, and no blanks in host", from.where)
		return
	}
	const most = 4 // user, password, socket or port, security
	fields := strings.Split(rest, ":")
	if len(fields) > most {
		c.warnf("%s: what follows the fifth field is ignored", from.where)
	}
	fields = append(fields, make([]string, most)...)
	db.hosts = cmp.Or(hosts, db.hosts)
	if fields[0] != "" {
		db.user = fields[0]
		db.from = from.where
	}
	db.passwd = cmp.Or(fields[1], db.passwd)
	socketOrPort := line{fields[2], from.where}
	if strings.HasPrefix(socketOrPort.text, "/") || strings.HasPrefix(socketOrPort.text, ".") {
		db.socket = socketOrPort.text
		db.port = ""
	} else if port := c.port(socketOrPort); port != "" {
		db.socket = ""
		db.port = port
	}
	if security := fields[3]; security != "" {
		db.tls = security == "ssl"
		if !db.tls && security != "nossl" {
			c.warnf("%s: the fifth field is neither ssl nor nossl: no TLS", from.where)
		}
	}
}

// cutHosts cuts text at the first colon that is not within brackets. Brackets
// hold an IPv6 address. Alone it needs none.
func cutHosts(text string) (hosts, rest string) {
	if ip := net.ParseIP(text); ip != nil && !ip.IsUnspecified() { // "::" is empty fields
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

// storeKeys are the keys of an entry of mcdinfo. Others are ignored.
var storeKeys = []string{"server", "mdahost", "port", "use_ssl", "database", "user", "pass"}

// An mcdEntry is one store in mcdinfo.
type mcdEntry struct {
	domain      string
	distributed bool
	where       string // the line at which it begins
	values      map[string]line
}

// readStores reads the entries of table dbinfo or of mcdinfo. An entry that
// cannot be used makes questions about its domain an error, and harms no other
// domain.
func (c *config) readStores() {
	path := c.control(c.get("MCDFILE", "mcdinfo"))
	entries := c.dbinfo(path)
	if len(entries) == 0 {
		entries = c.mcdinfo(path)
	}
	for _, e := range entries {
		c.addStore(e)
	}
}

// mcdinfo returns the entries of the file. It has the line "domain NAME 0|1"
// for each domain, where 1 means distributed. For each of the domain's stores
// lines with all storeKeys follow.
func (c *config) mcdinfo(path string) (entries []mcdEntry) {
	for _, l := range c.lines(path, false) {
		fields := append(strings.Fields(l.text), "", "") // name and flag may be missing
		key := fields[0]
		value := strings.TrimSpace(l.text[len(key):]) // a password may hold blanks
		if key == "domain" {
			if fields[1] == "" {
				c.warnf("%s: a domain without a name", l.where)
			}
			entries = append(entries, c.newEntry(fields[1], line{fields[2], l.where}))
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
		if e.values[key].text != "" { // the domain's next store begins
			e = mcdEntry{e.domain, e.distributed, l.where, make(map[string]line)}
			entries = append(entries, e)
		}
		e.values[key] = line{value, l.where}
	}
	return entries
}

// dbinfo returns the entries of table dbinfo in the database of host.master. The
// C programs keep table and file in step. The newer one counts, so there are no
// entries if the file is as new. A database that hangs is given up after
// deadline. Meanwhile the old configuration answers.
func (c *config) dbinfo(path string) (entries []mcdEntry) {
	db, exists := c.readDatabase("MASTER_", "host.master", c.localDB)
	if !exists || len(c.errs) > 0 { // which are told without asking
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	p := newPool(db, &config{environ: c.environ})
	defer p.close()
	rows, err := p.query(ctx, dbinfoSQL, path)
	master := c.control("host.master")
	info, statErr := os.Stat(path)
	if err != nil && errors.Is(statErr, fs.ErrNotExist) && refusalOf(err) != noTable {
		c.failf("%s: %w: %w; and there is no %s", master, ErrUnavailable, err, path)
	} else if err != nil {
		c.warnf("%s: %v: %s counts", master, err, path)
	}
	newest := int64(0)
	for _, r := range rows {
		if r[0].String != path { // MySQL compares loosely
			continue
		}
		e := c.newEntry(r[1].String, line{r[2].String, "table dbinfo on " + db.hosts})
		for i, key := range storeKeys { // in the order of dbinfoSQL
			if text := r[i+3].String; text != "" || key == "pass" { // it may be empty
				e.values[key] = line{text, e.where}
			}
		}
		entries = append(entries, e)
		changed, _ := leadingNumber(r[10].String, 10)
		newest = max(newest, changed)
	}
	if len(entries) == 0 || statErr == nil && newest <= info.ModTime().Unix() {
		return nil
	}
	c.logf("%s: table dbinfo counts, not %s; its rows: %d", master, path, len(entries))
	return entries
}

func (c *config) newEntry(domain string, flag line) mcdEntry {
	distributed := c.number(flag, 0) == 1
	return mcdEntry{lower(domain), distributed, flag.where, make(map[string]line)}
}

func (c *config) addStore(e mcdEntry) {
	v := e.values
	s := store{
		domain:      e.domain,
		distributed: e.distributed,
		mdahost:     v["mdahost"].text,
		db: database{
			hosts:  v["server"].text,
			port:   c.port(v["port"]),
			user:   v["user"].text,
			passwd: v["pass"].text,
			name:   v["database"].text,
			tls:    c.number(v["use_ssl"], 0) != 0,
			from:   v["user"].where,
		},
	}
	if len(v) < len(storeKeys) {
		s.broken = fmt.Errorf("%s: this entry of domain %s is incomplete", e.where, e.domain)
		c.warnf("%v: questions about the domain are answered with an error", s.broken)
	}
	c.stores = append(c.stores, s)
}

// readAssign reads the lines "+domain-:domain:uid:gid:dir:-::" up to a single
// dot, as qmail-newu does. Of several lines for a domain the first counts.
//
// A line of qmail-pw2u for a user looks the same. But it has no dot in the
// name, or goes with a line "=user:". A file with such lines only does not list
// domains.
func (c *config) readAssign() {
	c.assign = make(map[string]string)
	users := make(map[string]bool)
	for _, l := range c.lines(AssignFile(c.getenv), true) {
		if l.text == "." {
			break
		}
		fields := strings.Split(l.text, ":")
		name, hasPlus := strings.CutPrefix(fields[0], "+")
		if user, isUser := strings.CutPrefix(name, "="); isUser {
			users[lower(user)] = true
		}
		domain := lower(strings.TrimSuffix(name, "-"))
		_, again := c.assign[domain]
		if !hasPlus || again || name == "" { // "+:" is for all
			continue
		}
		const dirField, least = 4, 6
		c.assign[domain] = ""
		if len(fields) >= least {
			c.assign[domain] = fields[dirField]
		} else {
			c.warnf("%s: want +domain-:domain:uid:gid:dir:-::", l.where)
		}
	}
	for name := range c.assign {
		if strings.Contains(name, ".") && !users[name] {
			c.assignLists = true
		}
	}
}

// readRoutes reads the ports from smtproutes or qmtproutes, the files of
// qmail-remote. Their lines have the form
//
//	domain:relay[:port[:penalty[:tolerance]]][ user password ...]
func (c *config) readRoutes() {
	const smtpPort, qmtpPort = "25", "209"
	path := c.control("smtproutes")
	c.routePort = smtpPort
	c.distPort = smtpPort
	protocol := c.get("ROUTES", "") // any other value counts as unset
	_, err := os.Stat(c.control("qmtproutes"))
	if protocol == "qmtp" || protocol != "smtp" && err == nil {
		path = c.control("qmtproutes")
		c.routePort = qmtpPort
	}
	if protocol == "qmtp" {
		c.distPort = qmtpPort
	}
	b, err := readFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.warnf("skipped: %v", err)
		return
	}
	for _, l := range splitLines(path, b, false) {
		text := strings.Fields(l.text)[0] // user and password may follow it
		domain, relay, ok := strings.Cut(text, ":")
		if !ok {
			continue
		}
		_, rest := cutHosts(relay)
		text, _, _ = strings.Cut(rest, ":")
		port := c.port(line{cmp.Or(text, c.routePort), l.where})
		if port != "" { // else the line is skipped
			c.routes = append(c.routes, route{lower(domain), port})
		}
	}
}

// openPools gives each database a pool: one of keep, or a new one.
func (c *config) openPools(keep []*pool) {
	open := func(db database) *pool {
		all := slices.Concat(c.pools, keep)
		i := slices.IndexFunc(all, func(p *pool) bool { return p.of.plain() == db.plain() })
		var p *pool
		if i >= 0 {
			p = all[i]
		} else {
			p = newPool(db, c)
		}
		if !slices.Contains(c.pools, p) {
			c.pools = append(c.pools, p)
		}
		return p
	}
	c.local = open(c.localDB)
	c.central = open(c.centralDB)
	for i := range c.stores {
		s := &c.stores[i]
		if s.broken != nil {
			continue
		}
		// Entries with the same account share the pool of the first.
		first := slices.IndexFunc(c.stores, func(o store) bool {
			return o.broken == nil && o.db.account() == s.db.account()
		})
		s.pool = open(c.stores[first].db)
	}
}

// byDefault is what database.from says of an account that nothing names.
const byDefault = "the default"

// plain returns db without what is only for messages.
func (db database) plain() database {
	db.from = ""
	return db
}

// account returns db without the fields in which entries of one account may
// differ.
func (db database) account() database {
	db.passwd, db.tls = "", false
	return db.plain()
}

// The pool. A question does not connect, and waits for no connection in
// particular. Its SELECT joins the pool's queue, and the connection that is idle
// next takes it. A SELECT that has begun goes on to its own end, whatever becomes
// of its question. So connections are not lost to clients that gave up.
//
// The pool connects by itself, in goroutines of their own, one for each attempt.
// An attempt has a time limit of its own too: a server that takes 5 s to accept a
// connection is reached, although no question waits that long.
//
//	question -> queue -> connection 1..16 -> MySQL
//	                          ^
//	            pool: at most 2 attempts to connect, pauses after failures

const (
	maxConns   = 16                     // connections to one database
	maxAlike   = 12                     // of them that ask the same statement
	queueTime  = 500 * time.Millisecond // after it a SELECT is refused
	retryPause = 100 * time.Millisecond // how long a retry insists on a new connection

	connLife  = 5 * time.Minute // so a moved host or a changed grant is noticed
	connIdle  = time.Minute     // after it a connection is closed, except the last
	tidyEvery = 5 * time.Second

	maxAttempts   = 2 // to connect, at a time
	longAttempt   = 15 * time.Second
	shortAttempt  = 3 * time.Second
	shortestPause = 100 * time.Millisecond // after an attempt that failed
	longestPause  = time.Second
)

// tryTime is how long one SELECT may take. The server itself gives up before
// that, see session: so a connection that is silent for longer is dead. The rest
// of the deadline is for a second one.
const tryTime = 2300 * time.Millisecond

// A pool asks one database, over connections that it keeps.
type pool struct {
	of     database
	name   string // for people
	config *config
	errors atomic.Uint64
	open   func(ctx context.Context, host string) (driver.Conn, error)
	good   atomic.Int64    // index of the host that answered last
	ctx    context.Context // of the attempts to connect; done when the pool is closed
	cancel context.CancelFunc

	mu       sync.Mutex       // guards what follows
	lanes    map[string]*lane // by statement
	retries  []*call          // those whose first connection failed, beside the lanes
	conns    []*conn          // the first that is idle gets the next SELECT
	attempts int              // under way
	long     bool             // one of them is a long one
	err      error            // of the last attempt; nil also if no connection is missing
	failed   time.Time        // the failure forgiven since the last success; zero: none yet
	pause    time.Duration    // between attempts, while they fail
	next     time.Time        // no attempt begins earlier
	logged   state            // what the log says
	retired  bool             // keep no idle connection
	closed   bool
	timer    *time.Timer // calls tidy
	wake     time.Time   // when it does
	times    [len(selectBounds)]uint64
	timeSum  time.Duration
}

// A state of a database.
type state int

const (
	isUp      state = iota
	isDown          // there is no connection, and none can be had
	isUnknown       // this pool has taken the place of one that was down
)

// A conn is a connection.
type conn struct {
	driver.Conn
	made time.Time
	used time.Time // the end of its last SELECT, else made
	busy bool
	last bool // close it after its SELECT: a newer one has taken its place
}

// close does not wait: it may write to a server that hangs.
func (c *conn) close() { go c.Conn.Close() }

func (c *conn) isOld() bool { return time.Since(c.made) > connLife }

// A call is one SELECT. It is in a lane or among the retries, or a connection has
// it, or it is finished.
type call struct {
	text     string
	args     []driver.NamedValue
	limit    time.Duration // for the SELECT itself
	deadline time.Time     // of its question
	since    time.Time     // when it began to wait
	failed   time.Time     // when its first connection failed; zero: it did not
	left     bool          // nobody waits for it
	done     chan result   // has room for the one result
}

// await makes an attempt to connect with its full time, apart from those of the
// pool. If the pool has room it keeps the connection.
func (p *pool) await(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		c, err := p.dial(longAttempt)
		p.mu.Lock()
		p.take(c, err)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newCall returns a call that has not begun.
func newCall(limit time.Duration, text string, args []any) *call {
	s := &call{text: text, limit: limit, done: make(chan result, 1)}
	for i, arg := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: arg})
	}
	return s
}

type result struct {
	rows []row
	err  error
}

// A lane holds the calls with the same statement. Their table may be locked or
// slow. So a lane gets at most maxAlike connections, and users whose tables are
// free have the others.
type lane struct {
	running int
	waiting []*call // the earliest deadline first
}

// newPool connects to nothing yet.
func newPool(of database, c *config) *pool {
	p := &pool{
		of:     of,
		name:   of.name + " on " + of.hosts,
		config: c,
		lanes:  make(map[string]*lane),
	}
	p.open = p.openHost
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock() // tidy reads timer
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(tidyEvery, p.tidy)
	p.wake = time.Now().Add(tidyEvery)
	return p
}

// errBusy says that no connection was free in time.
var errBusy = errors.New("too many questions wait for it")

// errClosed says that a question had begun before Close or a Reload.
var errClosed = errors.New("its connections were closed")

// ask has a SELECT asked. While the pool has connections it waits at most
// patience for one of them. While it has none it waits for the first, until ctx
// is done or the attempt to connect has failed.
func (p *pool) ask(ctx context.Context, patience time.Duration, s *call) ([]row, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.deadline, _ = ctx.Deadline()
	p.mu.Lock()
	p.push(s)
	p.dispatch()
	p.mu.Unlock()
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	for {
		select {
		case r := <-s.done:
			return r.rows, r.err
		case <-impatient.C:
			again, err := p.refuse(s, patience)
			if err != nil {
				return nil, err
			}
			impatient.Reset(again)
		case <-ctx.Done():
			p.leave(s)
			return nil, ctx.Err()
		}
	}
}

// push has s wait, as a retry or in its lane. There the earliest deadline comes
// first, which is that of the oldest question. So a question that has got its
// first SELECT gets the others too, and what they cost is not wasted. The caller
// of this and of what follows holds the mutex, unless it says otherwise.
func (p *pool) push(s *call) {
	s.since = time.Now()
	if !s.failed.IsZero() {
		p.retries = append(p.retries, s)
		return
	}
	l := p.lanes[s.text]
	if l == nil {
		l = new(lane)
		p.lanes[s.text] = l
	}
	i, _ := slices.BinarySearchFunc(l.waiting, s, func(a, b *call) int {
		return a.deadline.Compare(b.deadline)
	})
	l.waiting = slices.Insert(l.waiting, i, s)
}

// remove takes s out of its lane or the retries, and reports whether it was there.
func (p *pool) remove(s *call) bool {
	for _, list := range []*[]*call{&p.lanes[s.text].waiting, &p.retries} {
		if i := slices.Index(*list, s); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
			return true
		}
	}
	return false
}

// popRetry returns a retry that c may ask, nil if there is none. What broke the
// first connection may be breaking others. So for retryPause a retry goes only to
// a connection that was made since, and after that to any.
func (p *pool) popRetry(c *conn) *call {
	for i, s := range p.retries {
		mayAsk := !c.made.Before(s.failed) || time.Since(s.failed) >= retryPause
		if mayAsk && p.lanes[s.text].running < maxAlike {
			p.retries = slices.Delete(p.retries, i, i+1)
			p.lanes[s.text].running++
			return s
		}
	}
	return nil
}

// pop returns the call that c is to ask next, nil if there is none.
func (p *pool) pop(c *conn) *call {
	if s := p.popRetry(c); s != nil {
		return s
	}
	var first *lane
	for _, l := range p.lanes {
		if len(l.waiting) == 0 || l.running >= maxAlike {
			continue
		}
		if first == nil || l.waiting[0].deadline.Before(first.waiting[0].deadline) {
			first = l
		}
	}
	if first == nil {
		return nil
	}
	s := first.waiting[0]
	first.waiting = slices.Delete(first.waiting, 0, 1)
	first.running++
	return s
}

// refuse ends the wait of a call that has waited for patience while the pool has
// connections, with an error. Else it returns when to try again. It locks the
// mutex.
func (p *pool) refuse(s *call, patience time.Duration) (again time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) == 0 {
		return retryPause, nil
	}
	if left := patience - time.Since(s.since); left > 0 {
		return left, nil
	}
	if !p.remove(s) { // a connection has it
		return patience, nil
	}
	if p.err != nil {
		return 0, fmt.Errorf("%w, and no more connections can be had: %w", errBusy, p.err)
	}
	return 0, errBusy
}

// leave ends the wait of a call whose client has gone. It locks the mutex.
func (p *pool) leave(s *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.left = true
	p.remove(s)
}

// isDown reports whether there is no connection, and none can be had.
func (p *pool) isDown() bool { return len(p.conns) == 0 && p.err != nil }

// dispatch follows each change. It brings calls and connections together, and
// connects if there are too few.
func (p *pool) dispatch() {
	if p.closed {
		p.finishAll(errClosed)
	} else if p.isDown() {
		p.finishAll(p.err)
	}
	for _, c := range p.conns { // so those that are not needed stay idle, and are closed
		if c.busy {
			continue
		}
		if s := p.pop(c); s != nil {
			c.busy = true
			go p.serve(c, s)
		}
	}
	if len(p.retries) > 0 {
		p.wakeIn(retryPause) // any connection will do then, see popRetry
	}
	if p.closed || p.retired {
		p.dropIdle(time.Now())
	}
	if !p.closed {
		p.grow()
	}
}

// finishAll gives an error to all that wait.
func (p *pool) finishAll(err error) {
	all := p.retries
	p.retries = nil
	for _, l := range p.lanes {
		all = append(all, l.waiting...)
		l.waiting = nil
	}
	for _, s := range all {
		s.done <- result{nil, err}
	}
}

// drop closes a connection. If it was the last one, the error of the last attempt
// is forgotten: it was made while a connection stood. The next attempt says what
// is wrong now.
func (p *pool) drop(c *conn) {
	c.close()
	p.conns = slices.DeleteFunc(p.conns, func(o *conn) bool { return o == c })
	if len(p.conns) == 0 {
		p.err = nil
		p.next = time.Time{}
	}
}

// dropIdle closes the idle connections that were not used after since.
func (p *pool) dropIdle(since time.Time) {
	for _, c := range slices.Clone(p.conns) {
		if !c.busy && !c.used.After(since) {
			p.drop(c)
		}
	}
}

// serve asks s over c. It locks the mutex after that.
//
// A call whose connection fails is asked once more. If the connection was found
// closed before anything was sent, that was not the first try. After a time-out
// the idle connections that were not used since are closed as well.
func (p *pool) serve(c *conn, s *call) {
	start := time.Now()
	rows, err := c.ask(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lanes[s.text].running--
	c.busy = false // before the result: its client may ask the next at once
	c.used = time.Now()
	isFinal := err == nil || refusalOf(err).isFinal()
	isReplaced := c.last || c.isOld() && len(p.conns) >= maxConns
	if !isFinal || isReplaced {
		p.drop(c)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		p.dropIdle(start)
	}
	if err != errStale {
		p.count(c.used.Sub(start))
	}
	// With errStale nothing was sent, so it was no try, not even of a retry.
	isSecond := !s.failed.IsZero() && err != errStale
	if isFinal || isSecond || s.left {
		s.done <- result{rows, err}
	} else {
		if err != errStale {
			s.failed = c.used
		}
		p.push(s)
	}
	p.dispatch()
}

// errStale says that a connection was found closed, and nothing was sent.
var errStale = errors.New("the server has closed the connection")

// ask asks one SELECT.
func (c *conn) ask(s *call) (all []row, err error) {
	defer rescue(&err) // the driver's
	ctx, cancel := context.WithTimeout(context.Background(), s.limit)
	defer cancel()
	if c.Conn.(driver.SessionResetter).ResetSession(ctx) != nil {
		return nil, errStale
	}
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, s.text, s.args)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(values)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		r := make(row, len(values))
		for i, v := range values {
			if err := r[i].Scan(v); err != nil { // copies: v lies in the read buffer
				return nil, err
			}
		}
		all = append(all, r)
	}
}

// grow begins attempts to connect while connections are missing. While there is
// none, one attempt begins each pause.
func (p *pool) grow() {
	for p.attempts < maxAttempts && p.isShort() {
		now := time.Now()
		if now.Before(p.next) {
			p.wakeIn(p.next.Sub(now))
			return
		}
		if len(p.conns) == 0 { // the second attempt begins if the first is slow
			p.next = now.Add(cmp.Or(p.pause, longestPause))
		}
		limit := p.attemptTime()
		p.long = p.long || limit == longAttempt
		p.attempts++
		go p.connect(limit)
	}
	if p.attempts == 0 && len(p.conns) > 0 {
		p.err = nil // none is missing: the error is of the past
	}
}

// isShort reports whether connections are missing: for the calls there are, to
// replace an old one, or to find out whether the database is back.
func (p *pool) isShort() bool {
	if len(p.conns) == 0 {
		return p.err != nil || p.waiting() > 0
	}
	coming := len(p.conns) + p.attempts
	if coming >= maxConns {
		return false
	}
	if len(p.retries) > p.attempts {
		return true
	}
	calls, isOld := p.waiting(), false
	for _, c := range p.conns {
		if c.busy {
			calls++
		}
		isOld = isOld || c.isOld() && !c.last
	}
	return calls > coming || isOld && p.attempts == 0
}

func (p *pool) waiting() int {
	n := len(p.retries)
	for _, l := range p.lanes {
		n += len(l.waiting)
	}
	return n
}

// attemptTime returns how long an attempt may take for each host. A long one
// reaches a server that is slow to accept. Beside it short ones find a server
// that is back after a silence of the network. With several hosts a long one is
// tried only after a time-out, because the next host may be well.
func (p *pool) attemptTime() time.Duration {
	several := strings.Contains(p.of.hosts, ",")
	if p.long || several && !errors.Is(p.err, context.DeadlineExceeded) {
		return shortAttempt
	}
	return longAttempt
}

// connect makes one attempt to connect. It is a goroutine of its own, and ends
// with the attempt. It locks the mutex after that.
func (p *pool) connect(limit time.Duration) {
	began := time.Now()
	c, err := p.dial(limit)
	p.mu.Lock()
	p.attempts--
	if limit == longAttempt {
		p.long = false
	}
	if err != nil {
		p.noteFailure(err, began)
	}
	p.take(c, err)
}

// take takes a new connection into the pool, or an error of none, and has the log
// say what has changed. It unlocks the mutex.
func (p *pool) take(c driver.Conn, err error) {
	switch {
	case err != nil:
	case p.closed || len(p.conns) >= maxConns:
		go c.Close()
	default:
		p.add(c)
	}
	p.dispatch()
	state := p.logged
	if p.isDown() {
		state = isDown
	} else if len(p.conns) > 0 {
		state = isUp
	}
	changed := state != p.logged && !p.closed && !p.retired
	p.logged = state
	p.mu.Unlock()
	if changed && state == isDown {
		p.config.logf("%v", p.describe(err))
	} else if changed {
		p.config.logf("database %s: answers again", p.name)
	}
}

// add puts a new connection into the pool, in the place of an old one.
func (p *pool) add(c driver.Conn) {
	p.err = nil
	p.failed = time.Time{}
	p.pause = 0
	p.next = time.Time{}
	now := time.Now()
	i := slices.IndexFunc(p.conns, func(c *conn) bool { return c.isOld() && !c.last })
	if i >= 0 && p.conns[i].busy {
		p.conns[i].last = true
	} else if i >= 0 {
		p.drop(p.conns[i])
	}
	p.conns = slices.Insert(p.conns, 0, &conn{Conn: c, made: now, used: now})
}

// noteFailure sets the pause until the next attempt. The first failure since a
// success is tried again at once, unless it took time or was a refusal: MySQL
// counts refused logins, and locks the account or the host after some.
func (p *pool) noteFailure(err error, began time.Time) {
	refused := errors.As(err, new(*mysql.MySQLError))
	isFirst := p.failed.IsZero() || began.Before(p.failed)
	if !refused && isFirst && !errors.Is(err, context.DeadlineExceeded) {
		if p.failed.IsZero() {
			p.failed = time.Now()
		}
		p.next = time.Time{}
		return
	}
	p.err = err
	p.pause = min(max(2*p.pause, shortestPause), longestPause)
	if refused {
		p.pause = longestPause
	}
	p.next = time.Now().Add(p.pause)
	reason := refusalOf(err)
	if (reason == denied || reason == barred) && len(p.conns) > 0 {
		p.next = time.Now().Add(connIdle) // the fewer logins, the later a lock
	}
}

// wakeIn has tidy called after d, or earlier if that is due.
func (p *pool) wakeIn(d time.Duration) {
	at := time.Now().Add(d)
	if p.wake.IsZero() || at.Before(p.wake) {
		p.wake = at
		p.timer.Reset(d)
	}
}

// tidy closes connections that were idle for connIdle, except the last one, and
// replaces old ones. The timer calls it. It locks the mutex.
func (p *pool) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.wake = time.Time{}
	p.wakeIn(tidyEvery)
	for _, c := range slices.Backward(slices.Clone(p.conns)) {
		if len(p.conns) > 1 && !c.busy && time.Since(c.used) > connIdle {
			p.drop(c)
		}
	}
	p.dispatch()
}

// retire lets the questions that use the pool end, and closes it after twice the
// deadline. It reports whether the log says that the database is down. It locks
// the mutex.
func (p *pool) retire() (wasDown bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = true
	p.dispatch()
	time.AfterFunc(2*deadline, p.close)
	return p.logged != isUp
}

// close ends all that wait, and closes each connection after its SELECT. It
// locks the mutex.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cancel()
	p.timer.Stop()
	p.dispatch()
}

// MySQLStats counts SELECTs. All counts begin anew with Reload(true).
type MySQLStats struct {
	Calls     uint64 // sent, some of them twice
	Errors    uint64 // that failed, or got no connection and so were not sent
	Time      time.Duration
	Databases []DatabaseStats // in the order of the configuration
}

// DatabaseStats says how a database is, and counts its SELECTs.
type DatabaseStats struct {
	Name       string // database and host
	State      string // "answers", "not connected", or why no connection can be had
	Up         bool   // false: no connection can be had
	Idle       int    // connections without a SELECT
	Busy       int    // connections with one
	Connecting int    // attempts under way
	Waiting    int    // SELECTs that wait for a connection
	Errors     uint64
	Time       time.Duration // of all SELECTs together
	Selects    []SelectCount
}

// SelectCount says how many SELECTs took at most this long. The last of several
// has the longest time there is, and so counts all.
type SelectCount struct {
	AtMost time.Duration
	Count  uint64
}

var selectBounds = [...]time.Duration{
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, math.MaxInt64,
}

// Stats returns what was asked of MySQL so far.
func (m *MySQL) Stats() (s MySQLStats) {
	c := m.config.Load()
	if c == nil {
		return s
	}
	for _, p := range c.pools {
		d := p.databaseStats()
		for n := 2; slices.ContainsFunc(s.Databases, d.isNamesake); n++ {
			d.Name = fmt.Sprintf("%s (%d)", p.name, n) // it has another port or account
		}
		s.Databases = append(s.Databases, d)
		s.Calls += d.Selects[len(d.Selects)-1].Count
		s.Errors += d.Errors
		s.Time += d.Time
	}
	return s
}

func (d *DatabaseStats) isNamesake(other DatabaseStats) bool { return d.Name == other.Name }

// databaseStats locks the mutex.
func (p *pool) databaseStats() DatabaseStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := DatabaseStats{
		Name:       p.name,
		State:      "answers",
		Up:         !p.isDown(),
		Connecting: p.attempts,
		Waiting:    p.waiting(),
		Errors:     p.errors.Load(),
		Time:       p.timeSum,
	}
	if !d.Up {
		d.State = p.err.Error()
	} else if len(p.conns) == 0 {
		d.State = "not connected"
	}
	for _, c := range p.conns {
		if c.busy {
			d.Busy++
		} else {
			d.Idle++
		}
	}
	total := uint64(0)
	for i, n := range p.times {
		total += n
		d.Selects = append(d.Selects, SelectCount{selectBounds[i], total})
	}
	return d
}

// count notes how long a SELECT took.
func (p *pool) count(took time.Duration) {
	i, _ := slices.BinarySearch(selectBounds[:], took)
	p.times[i]++
	p.timeSum += took
}

// dial connects to one of several servers with the same data. It tries the last
// good one first, then the others in their order, each for as long as limit.
func (p *pool) dial(limit time.Duration) (conn driver.Conn, err error) {
	defer rescue(&err) // the driver's
	hosts := strings.Split(p.of.hosts, ",")
	first := int(p.good.Load())
	var failures error // of all hosts so far
	for i := range hosts {
		n := (first + i) % len(hosts)
		host := strings.TrimSpace(hosts[n])
		ctx, cancel := context.WithTimeout(p.ctx, limit)
		conn, err := p.open(ctx, host)
		if err != nil && ctx.Err() != nil {
			_, addr := p.of.address(host)
			err = fmt.Errorf("%s: no connection within %v: %w", addr, limit, ctx.Err())
		}
		cancel()
		if err == nil {
			p.good.Store(int64(n))
			return conn, nil
		}
		if failures == nil {
			failures = err
		} else {
			failures = fmt.Errorf("%w; %w", failures, err)
		}
	}
	return nil, failures
}

// openHost connects to one host.
func (p *pool) openHost(ctx context.Context, host string) (driver.Conn, error) {
	if host == "" { // it would be this machine
		return nil, errors.New("the list of hosts has an empty one")
	}
	cfg := mysql.NewConfig()
	cfg.User = p.of.user
	cfg.Passwd = p.of.passwd
	cfg.DBName = p.of.name
	cfg.InterpolateParams = true // no prepared statement, which a proxy could forget
	cfg.Logger = &mysql.NopLogger{}
	cfg.Net, cfg.Addr = p.of.address(host)
	if p.of.tls {
		tlsCfg, err := tlsConfig(p.config.environ, host, p.config.warnOnce)
		if err != nil {
			return nil, err
		}
		cfg.TLS = tlsCfg
	}
	opener, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Addr, err)
	}
	conn, err := opener.Connect(ctx)
	if err == nil {
		err = setSession(ctx, conn)
	}
	if err != nil {
		return nil, p.of.connectError(cfg.Addr, err)
	}
	return conn, err
}

// session sets everything that the server or init_connect may have set, and
// that could change an answer. The change of autocommit from 0 to 1 also ends a
// transaction, which would see old rows only. Each comment in it is read by
// MariaDB or by MySQL only, because they have different names for the same limit.
const session = `SET NAMES utf8mb4, autocommit=0, autocommit=1, sql_mode='', sql_big_selects=1,
	sql_select_limit=18446744073709551615
	/*M!100101 , max_statement_time=2.2 */ /*M!100301 , system_versioning_asof=DEFAULT */
	/*!50708 , max_execution_time=2200 */`

// setSession prepares a new connection. A server may be set to READ UNCOMMITTED:
// then a row that is rolled back could be remembered. A Galera node that is not
// ready refuses every statement, even DO 0.
func setSession(ctx context.Context, conn driver.Conn) error {
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

// address returns how a host is reached. A socket is used only if the host is
// this machine.
func (db database) address(host string) (network, addr string) {
	host = strings.Trim(host, "[]")
	if db.socket == "" && db.port == "" && host == "localhost" {
		return "unix", usualSocket()
	}
	if db.socket != "" && isThisMachine(host) {
		return "unix", db.socket
	}
	port := strings.TrimLeft(db.port, "0")
	return "tcp", net.JoinHostPort(host, cmp.Or(port, "3306"))
}

func isThisMachine(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return false
	}
	if ip.IsLoopback() {
		return true
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

// usualSockets are where a server of this machine listens, Debian's first.
var usualSockets = []string{
	"/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock",
}

// usualSocket returns the one that is there, else Debian's.
func usualSocket() string {
	for _, path := range usualSockets {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return usualSockets[0]
}

// tlsConfig returns how a server must prove its identity. With MYSQL_OPT_SSL_CA
// its certificate must come from that authority. The host name is compared only
// if MYSQL_OPT_SSL_VERIFY_SERVER_CERT is set, because IndiMail's certificates
// have none. Without MYSQL_OPT_SSL_CA, the certificate must come from one of
// the system's authorities and have the host name.
func tlsConfig(env environ, host string, warn func(string, ...any)) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: strings.Trim(host, "[]"), MinVersion: tls.VersionTLS12}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if !suite.Insecure || isWeak(suite.Name) {
			cfg.CipherSuites = append(cfg.CipherSuites, suite.ID)
		}
	}
	warnIfWeak := func(state tls.ConnectionState) error {
		if name := tls.CipherSuiteName(state.CipherSuite); isWeak(name) {
			warn("%s: TLS with the weak cipher %s: let the server offer ECDHE with GCM", host, name)
		}
		return nil
	}
	cfg.VerifyConnection = warnIfWeak
	path := env.get("MYSQL_OPT_SSL_CA", "")
	if path == "" {
		return cfg, nil
	}
	pem, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("MYSQL_OPT_SSL_CA: no certificates in %s", path)
	}
	cfg.RootCAs = roots
	verify, isNumber := leadingNumber(env.get("MYSQL_OPT_SSL_VERIFY_SERVER_CERT", "0"), 10)
	if verify != 0 || !isNumber {
		return cfg, nil
	}
	cfg.InsecureSkipVerify = true // replaced by what follows
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return cmp.Or(err, warnIfWeak(state))
	}
	return cfg, nil
}

// isWeak reports whether Go leaves a cipher with AES out by default. Those that
// exchange keys by RSA: who gets the server's key later can read what was
// recorded. Those of CBC with SHA256: how long they take can tell what was sent.
// But some servers, such as MySQL 5.7, have no other, and without TLS all can be
// read.
func isWeak(cipher string) bool {
	return strings.HasPrefix(cipher, "TLS_RSA_WITH_AES_") ||
		strings.HasSuffix(cipher, "_AES_128_CBC_SHA256")
}

// connectError returns the error of connecting to an address, which it names
// once.
func (db database) connectError(addr string, err error) error {
	err = db.hideText(err)
	if strings.Contains(err.Error(), addr) || errors.As(err, new(*net.DNSError)) {
		return err
	}
	return fmt.Errorf("%s: %w", addr, err)
}

// hideText replaces the name of the user in MySQL's text, in which a misplaced
// password may stand, by where it came from.
func (db database) hideText(err error) error {
	var refused *mysql.MySQLError
	if !errors.As(err, &refused) {
		return err
	}
	from := "the user of " + db.from
	if db.from == byDefault {
		from = "the default user"
	}
	// The text is in the language of the server. A database may be called like the
	// user, and its name is no secret.
	text := refused.Message
	if db.user != db.name && refused.Number != 1049 {
		names := []string{"'" + db.user + "'", from}
		if refused.Number == 1203 { // some languages have no quotes there
			names = append(names, " "+db.user+" ", " "+from+" ")
		}
		text = strings.NewReplacer(names...).Replace(text)
	}
	if refusalOf(err) == denied {
		text = "access denied to " + from
		if db.passwd == "" {
			text += ", without a password"
		}
	}
	if text == refused.Message {
		return err // with what wraps it
	}
	return &mysql.MySQLError{Number: refused.Number, SQLState: refused.SQLState, Message: text}
}

// A refusal says what an error of MySQL or MariaDB means here.
type refusal int

const (
	passing refusal = iota // asking again may help
	full                   // the server has no connection left for us
	denied                 // the account is not accepted
	barred                 // the account or this host, for now
	noTable
	badTable // it lacks a column, is crashed, or we may not read it
	noLetter // a column cannot hold a letter that was asked for
	other
)

var refusals = map[uint16]refusal{
	1016: badTable, // ER_CANT_OPEN_FILE
	1017: badTable, // ER_FILE_NOT_FOUND
	1030: badTable, // ER_GET_ERRNO, of the storage engine
	1032: badTable, // ER_KEY_NOT_FOUND
	1033: badTable, // ER_NOT_FORM_FILE
	1034: badTable, // ER_NOT_KEYFILE
	1035: badTable, // ER_OLD_KEYFILE
	1040: full,     // ER_CON_COUNT_ERROR
	1044: denied,   // ER_DBACCESS_DENIED_ERROR
	1045: denied,   // ER_ACCESS_DENIED_ERROR
	1049: other,    // ER_BAD_DB_ERROR
	1054: badTable, // ER_BAD_FIELD_ERROR
	1064: badTable, // ER_PARSE_ERROR
	1109: noTable,  // ER_UNKNOWN_TABLE, in information_schema
	1129: barred,   // ER_HOST_IS_BLOCKED
	1130: barred,   // ER_HOST_NOT_PRIVILEGED
	1142: badTable, // ER_TABLEACCESS_DENIED_ERROR; see isMissing
	1143: badTable, // ER_COLUMNACCESS_DENIED_ERROR
	1146: noTable,  // ER_NO_SUCH_TABLE
	1168: badTable, // ER_WRONG_MRG_TABLE
	1194: badTable, // ER_CRASHED_ON_USAGE
	1195: badTable, // ER_CRASHED_ON_REPAIR
	1203: full,     // ER_TOO_MANY_USER_CONNECTIONS
	1226: full,     // ER_USER_LIMIT_REACHED, by MAX_USER_CONNECTIONS of the account
	1267: noLetter, // ER_CANT_AGGREGATE_2COLLATIONS
	1270: noLetter, // ER_CANT_AGGREGATE_3COLLATIONS
	1271: noLetter, // ER_CANT_AGGREGATE_NCOLLATIONS
	1356: badTable, // ER_VIEW_INVALID
	1449: badTable, // ER_NO_SUCH_USER, the definer of a view
	1696: badTable, // ER_FAILED_READ_FROM_PAR_FILE
	1698: denied,   // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
	1712: badTable, // ER_INDEX_CORRUPT
	1812: badTable, // ER_TABLESPACE_MISSING
	1814: badTable, // ER_TABLESPACE_DISCARDED
	1820: denied,   // ER_MUST_CHANGE_PASSWORD
	1862: denied,   // ER_MUST_CHANGE_PASSWORD_LOGIN
	1877: badTable, // ER_TABLE_CORRUPT
	1932: badTable, // ER_NO_SUCH_TABLE_IN_ENGINE of MariaDB
	1969: other,    // ER_STATEMENT_TIMEOUT of MariaDB
	3024: other,    // ER_QUERY_TIMEOUT of MySQL
	3118: denied,   // ER_ACCOUNT_HAS_BEEN_LOCKED of MySQL
	3955: denied,   // ER_USER_ACCESS_DENIED_..._BLOCKED_BY_PASSWORD_LOCK of MySQL
	3988: noLetter, // ER_CANNOT_CONVERT_STRING of MySQL
	4150: denied,   // ER_USER_IS_BLOCKED of MariaDB
	4151: denied,   // ER_ACCOUNT_HAS_BEEN_LOCKED of MariaDB
}

// refusalOf returns what err means, passing if it is not from MySQL.
func refusalOf(err error) refusal {
	var refused *mysql.MySQLError
	if !errors.As(err, &refused) {
		return passing
	}
	if refused.Number < 1000 { // of MariaDB's storage engines: the file of a table
		return badTable
	}
	return refusals[refused.Number]
}

// isFinal reports whether asking again would give the same error.
func (r refusal) isFinal() bool { return r != passing && r != full }

// A row is what a SELECT found.
type row []sql.NullString

// query returns the rows of one SELECT.
func (p *pool) query(ctx context.Context, text string, args ...any) ([]row, error) {
	rows, err := p.ask(ctx, queueTime, newCall(tryTime, text, args))
	if refusalOf(err) == noLetter && !isASCII(args) {
		// The column cannot hold what was asked for, so no row has it. But if ASCII
		// gets an error too, that speaks of the table, and says nothing about its rows.
		ascii := slices.Repeat([]any{"0"}, len(args))
		if _, err = p.ask(ctx, queueTime, newCall(tryTime, text, ascii)); err == nil {
			return nil, nil
		}
	}
	if err != nil {
		p.errors.Add(1)
		return nil, p.describe(err)
	}
	return rows, nil
}

func isASCII(args []any) bool {
	text := fmt.Sprint(args...)
	return !strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII })
}

// describe returns the error with the database's name.
func (p *pool) describe(err error) error {
	return fmt.Errorf("database %s: %w", p.name, p.of.hideText(err))
}

// optional asks of a table that counts as empty if it is missing. The C
// programs make some tables only when they first write to them.
func (p *pool) optional(ctx context.Context, table, text string, args ...any) ([]row, error) {
	rows, err := p.query(ctx, text, args...)
	if p.isMissing(ctx, table, err) {
		return nil, nil
	}
	return rows, err
}

// isMissing reports whether err says that a table is missing. To an account with
// rights on single tables MySQL says "denied" (1142), as of a table that is
// there. But information_schema lists a table on which the account has any
// right. One without any counts as missing. So does one whose own database is
// unknown (1049). What counts as missing gets a warning.
func (p *pool) isMissing(ctx context.Context, table string, err error) bool {
	var refused *mysql.MySQLError
	if !errors.As(err, &refused) {
		return false
	}
	names := append([]string{p.of.name}, strings.Split(strings.Trim(table, "`"), "`.`")...)
	schema, name := names[len(names)-2], names[len(names)-1]
	switch {
	case refusalOf(err) == noTable:
	case refused.Number == 1142:
		const text = "SELECT 1 FROM information_schema.tables" +
			" WHERE table_schema=? AND table_name=?"
		rows, err := p.query(ctx, text, schema, name)
		if err != nil || len(rows) > 0 {
			return false
		}
	case refused.Number == 1049 && schema != p.of.name: // else the connection's own
		if !strings.Contains(refused.Message, "'"+schema+"'") {
			return false
		}
	default:
		return false
	}
	p.config.warnOnce("database %s: %v", p.name, noTableError(table))
	return true
}

// The SELECTs. Each reads one table, with a ? for each value. The names of some
// tables can be changed.
const (
	aliasSQL       = "SELECT alias,domain,valias_line FROM valias WHERE alias=? AND domain=?"
	aliasDomainSQL = "SELECT alias,domain FROM aliasdomain WHERE alias=?"
	hostSQL        = "SELECT host,ipaddr FROM host_table WHERE host=?"
	portSQL        = "SELECT host,domain,src_host,port FROM smtp_port" +
		" WHERE host=? AND domain=? AND src_host IN (?,'*')"
	limitsSQL = "SELECT domain,domain_expiry,passwd_expiry,maxpopaccounts,maxaliases," +
		"maxforwards,maxautoresponders,maxmailinglists,diskquota,maxmsgcount,defaultquota," +
		"defaultmaxmsgcount,disable_pop,disable_imap,disable_dialup," +
		"disable_passwordchanging,disable_webmail,disable_relay,disable_smtp,perm_account," +
		"perm_alias,perm_forward,perm_autoresponder,perm_maillist,perm_quota," +
		"perm_defaultquota FROM vlimits WHERE domain=?"
	dbinfoSQL = "SELECT filename,domain,distributed,server,mdahost,port,use_ssl,dbname,user," +
		"passwd,UNIX_TIMESTAMP(timestamp) FROM dbinfo WHERE filename=?"
)

const oneUser = "pw_name=? AND pw_domain=?"

// manyUsers is a condition like oneUser for several. The server finds all of them
// in the index, which it does not do as well with an OR for each.
func manyUsers(n int) string {
	return "(pw_name,pw_domain) IN ((?,?)" + strings.Repeat(",(?,?)", n-1) + ")"
}

// userSQL returns the SELECT without its condition.
func (c *config) userSQL(active bool) string {
	table := c.table("MYSQL_INACTIVE_TABLE", "indibak")
	if active {
		table = c.table("MYSQL_TABLE", "indimail")
	}
	return "SELECT pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell,scram" +
		" FROM " + table + " WHERE "
}

func (c *config) relaySQL() string {
	return "SELECT email,ipaddr,timestamp FROM " + c.relayTable() +
		" WHERE ipaddr=? AND email=?"
}

func (c *config) hostcntrlSQL() string {
	return "SELECT pw_name,pw_domain,host FROM " + c.table("CNTRL_TABLE", "hostcntrl") +
		" WHERE pw_name=? AND pw_domain=?"
}

func (c *config) relayTable() string { return c.table("RELAY_TABLE", "relay") }

// table returns the name of a table, quoted. It can be "database.table".
func (c *config) table(variable, def string) string {
	names := strings.Split(c.get(variable, def), ".")
	for i, name := range names {
		name = strings.Trim(strings.TrimSpace(name), "`")
		names[i] = "`" + strings.ReplaceAll(name, "`", "``") + "`"
	}
	return strings.Join(names, ".")
}

// The columns of userSQL.
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

// A linkReader reads the links of domain directories. A link may hang, on a
// file server that has gone. Then one thread hangs with it, not one for each
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
	if c.realDomains[domain] {
		return domain, nil
	}
	if dir, listed := c.assign[domain]; listed {
		target, err := c.links.read(ctx, dir)
		if err == nil {
			return lower(filepath.Base(target)), nil
		}
		// EINVAL: it is no link. Absent: a front end has no mail store.
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return domain, nil
		}
		return "", err
	}
	if !c.aliasTable {
		return domain, nil
	}
	rows, err := c.central.optional(ctx, "aliasdomain", aliasDomainSQL, domain)
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

// A mailbox is an address, or a domain if local is empty, with the place where
// its rows are.
type mailbox struct {
	local      string
	domain     string // as it was asked for
	realDomain string
	store      *store  // nil: this machine and its cluster know nothing of it
	limits     *Answer // the real domain's; nil: not looked up yet
	host       string  // of a distributed user, by hostcntrl
}

func (b mailbox) email() string { return b.local + "@" + b.realDomain }

func (b mailbox) distributed() bool { return b.host != "" }

// errNoHost says that host_table lacks a user's host.
var errNoHost = errors.New("no such host in table host_table")

// locate finds the place of a mailbox.
func (c *config) locate(ctx context.Context, local, domain string) (mailbox, error) {
	box := mailbox{local: local, domain: domain}
	realDomain, err := c.realDomain(ctx, domain)
	if err != nil {
		return box, err
	}
	box.realDomain = realDomain
	return c.place(ctx, box)
}

// place finds the store of a mailbox.
func (c *config) place(ctx context.Context, box mailbox) (mailbox, error) {
	local, realDomain := box.local, box.realDomain
	first := slices.IndexFunc(c.stores, func(s store) bool { return s.domain == realDomain })
	if first >= 0 {
		box.store = &c.stores[first]
		if box.store.distributed && local != "" {
			err := c.distribute(ctx, &box)
			return box, err
		}
		return box, box.store.broken
	}
	// If assign lists domains, it lists all of them. Rows of others are
	// leftovers.
	_, listed := c.assign[realDomain]
	if !c.assignLists || listed || local == "" {
		box.store = &store{mdahost: c.hostIP, pool: c.local}
	}
	return box, nil
}

// distribute finds the store of a user of a distributed domain. Table hostcntrl
// names the user's host, host_table has its IP address, and mcdinfo the store
// there. A row for * stands for users without a row of their own.
func (c *config) distribute(ctx context.Context, box *mailbox) error {
	box.store = nil
	host, err := c.hostOf(ctx, box.local, box.realDomain)
	if host == "" && err == nil {
		host, err = c.hostOf(ctx, "*", box.realDomain)
	}
	if err != nil {
		return err
	}
	if host == "" {
		return c.brokenStore(box.realDomain) // in that the user may exist
	}
	ip, err := c.ipOf(ctx, host)
	if err != nil {
		return err
	}
	for i := range c.stores {
		s := &c.stores[i]
		if s.domain == box.realDomain && s.mdahost == ip {
			box.store = s
			box.host = host
			return s.broken
		}
	}
	return fmt.Errorf("domain %s has no entry with mdahost %s in mcdinfo", box.realDomain, ip)
}

// hostOf returns the host in the row of a user, "" if there is no row.
func (c *config) hostOf(ctx context.Context, name, realDomain string) (string, error) {
	rows, err := c.central.query(ctx, c.hostcntrlSQL(), name, realDomain)
	for _, r := range rows {
		if !r.isOf(mailbox{local: name, realDomain: realDomain}) {
			continue
		}
		if r[2].String == "" {
			return "", fmt.Errorf("%w: table hostcntrl: %s@%s has no host",
				ErrInvalid, name, realDomain)
		}
		return r[2].String, nil
	}
	return "", err
}

// ipOf returns the IP address of a host.
func (c *config) ipOf(ctx context.Context, host string) (string, error) {
	rows, err := c.central.query(ctx, hostSQL, host)
	if err != nil {
		return "", err
	}
	for _, r := range rows {
		if sameName(r[0].String, host) {
			return r[1].String, nil
		}
	}
	return "", fmt.Errorf("%w: %s", errNoHost, host)
}

// brokenStore returns what is wrong with an entry of the domain in mcdinfo.
func (c *config) brokenStore(domain string) error {
	for _, s := range c.stores {
		if s.domain == domain && s.broken != nil {
			return s.broken
		}
	}
	return nil
}

// Resolve looks q up. That something is not in the tables is an answer. Every
// error wraps ErrUnavailable.
func (m *MySQL) Resolve(ctx context.Context, q Query) (Answer, error) {
	if err := ended(ctx); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	a, err := m.lookUp(ctx, q)
	if err == nil && a.isError(q.Type) {
		err = fmt.Errorf("the answer for %.100q: %w: more than %d bytes",
			q.Email, ErrTooLong, maxReply)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%w: %v: %w", ErrUnavailable, q.Type, err)
	}
	return a, nil
}

func (m *MySQL) lookUp(ctx context.Context, q Query) (Answer, error) {
	c, err := m.current()
	if err != nil {
		return Answer{}, err
	}
	if !q.Type.known() || q.Type.extension() {
		return Answer{}, fmt.Errorf("%w: no database can answer this", ErrInvalid)
	}
	if q.Type == TypeRelay && q.IP == "" {
		return Answer{}, fmt.Errorf("%w: no IP address", ErrInvalid)
	}
	local, domain := q.Split(c.defaultDomain)
	if !isPlausible(local, domain) {
		return Absent(q), nil
	}
	if local == "" && !aboutDomain(q.Type, []byte(q.Email)) {
		return Absent(q), nil
	}
	if q.Type == TypeDomain {
		realDomain, err := c.realDomain(ctx, domain)
		return NewData(q.Type, realDomain), err
	}
	box, err := c.locate(ctx, local, domain)
	if q.Type == TypeAlias && errors.Is(err, errNoHost) {
		return Absent(q), nil // as the C programs say
	}
	if err != nil || box.store == nil {
		return Absent(q), err
	}
	switch q.Type {
	case TypeUser:
		return c.status(ctx, box)
	case TypeRelay:
		return c.relay(ctx, box, q.IP)
	case TypePasswd:
		return c.passwd(ctx, box, q)
	case TypeHost:
		return c.host(ctx, box)
	case TypeAlias:
		lines, err := aliasLines(ctx, box)
		return NewData(TypeAlias, strings.Join(lines, "")), err
	}
	return c.limits(ctx, box)
}

// isPlausible reports whether such an address could be in the tables at all.
func isPlausible(local, domain string) bool {
	impossible := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	return domain != "" && !strings.ContainsFunc(local+domain, impossible)
}

// A userRow is a user's row in indimail or, for inactive users, in indibak.
type userRow struct {
	row
	inactive bool
}

const overQuota = 0x10 // in pw_gid

// user returns the user's row, nil if there is none.
func (c *config) user(ctx context.Context, box mailbox) (*userRow, error) {
	for _, active := range []bool{true, false} {
		rows, err := box.store.pool.query(ctx, c.userSQL(active)+oneUser, box.local, box.realDomain)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if r.isOf(box) {
				return &userRow{row: r, inactive: !active}, nil
			}
		}
	}
	return nil, nil
}

// exists reports whether there is a row of the user. For a distributed user
// that in hostcntrl is enough.
func (c *config) exists(ctx context.Context, box mailbox) (bool, error) {
	if box.distributed() {
		return true, nil
	}
	user, err := c.user(ctx, box)
	return user != nil, err
}

// sameName reports whether two names differ only in case, by the same rule as
// the keys of the cache.
func sameName(a, b string) bool { return a == b || lower(a) == lower(b) }

// isOf reports whether the first two columns name the mailbox. MySQL also finds
// "jurgen" when asked for "jürgen".
func (r row) isOf(box mailbox) bool {
	return sameName(r[0].String, box.local) && sameName(r[1].String, box.realDomain)
}

// gid returns pw_gid; NULL is 0.
func (u *userRow) gid() (int, error) { return u.integer(userGID, "pw_gid") }

func (u *userRow) integer(column int, name string) (int, error) {
	n, err := number(wholePart(u.row[column].String))
	if err != nil {
		email := u.row[userName].String + "@" + u.row[userDomain].String
		return 0, fmt.Errorf("%w: %s of %s is no number", ErrInvalid, name, email)
	}
	return n, nil
}

// wholePart returns a number of a row without what is behind the point. The
// tables have none, but views may have DECIMAL or DOUBLE, which is in the form
// 1.7e+09 if it is large.
func wholePart(text string) string {
	if f, err := strconv.ParseFloat(text, 64); err == nil && strings.Contains(text, "e") {
		text = strconv.FormatFloat(f, 'f', -1, 64)
	}
	whole, _, _ := strings.Cut(text, ".")
	return whole
}

func (c *config) status(ctx context.Context, box mailbox) (Answer, error) {
	user, err := c.user(ctx, box)
	if err != nil {
		return Answer{}, err
	}
	if user == nil {
		lines, err := aliasLines(ctx, box)
		if len(lines) == 0 {
			return NewAnswer(int(StatusAbsent)), err
		}
		return NewAnswer(int(StatusAlias)), err
	}
	if user.inactive {
		return NewAnswer(int(StatusInactive)), nil
	}
	gid, err := user.gid()
	if gid&overQuota != 0 {
		return NewAnswer(int(StatusOverQuota)), err
	}
	return NewAnswer(int(StatusActive)), err
}

// passwd answers with the entry. NULL is an empty field. A password that is
// NULL is an error, which lets nobody in.
func (c *config) passwd(ctx context.Context, box mailbox, q Query) (Answer, error) {
	user, err := c.user(ctx, box)
	if user == nil || err != nil {
		return Absent(q), err
	}
	return c.entry(ctx, box, user)
}

func (c *config) entry(ctx context.Context, box mailbox, user *userRow) (Answer, error) {
	f := slices.Clone(user.row)
	for i := range f { // MySQL fills a column of type BINARY with NULs
		f[i].String = strings.TrimRight(f[i].String, "\x00")
	}
	email := box.local + "@" + box.domain
	if !f[userPasswd].Valid {
		return Answer{}, fmt.Errorf("%w: pw_passwd of %s is NULL", ErrInvalid, email)
	}
	passwd := f[userPasswd].String
	if f[userSCRAM].Valid {
		passwd = f[userSCRAM].String + "," + passwd
	}
	if _, err := user.integer(userUID, "pw_uid"); err != nil {
		return Answer{}, err
	}
	gid, err := c.gidWithLimits(ctx, box, user)
	if err != nil {
		return Answer{}, err
	}
	a, err := newPasswd(user.inactive, email, passwd, wholePart(f[userUID].String), gid,
		f[userGecos].String, f[userDir].String, f[userShell].String)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", email, err)
	}
	return a, nil
}

// gidWithLimits returns pw_gid. With DOMAIN_LIMITS it has flags of the domain's
// limits added, unless the gid exempts the user.
func (c *config) gidWithLimits(ctx context.Context, box mailbox, user *userRow) (string, error) {
	const exempt = 0x2000
	text := wholePart(user.row[userGID].String)
	gid, err := user.gid()
	if err != nil || !c.domainLimits || gid&exempt != 0 {
		return text, err
	}
	record := box.limits
	if record == nil {
		found, err := limitsOf(ctx, box.store.pool, box.realDomain)
		if err != nil {
			return "", err
		}
		record = &found
	}
	if record.isZero() {
		return text, nil
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

// ResolveMany answers questions for the password entries of users in ASCII whose
// domain is not distributed, with one SELECT for each database. It leaves a user
// to Resolve who has no row, or an odd one.
func (m *MySQL) ResolveMany(ctx context.Context, questions []Query) ([]Answer, error) {
	c, err := m.current()
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(questions))
	batches := make(map[*pool]batch)
	domains := make(map[string]mailbox) // by the domain as it was asked for
	for i, q := range questions {
		local, domain := q.Split(c.defaultDomain)
		box, known := domains[domain]
		if !known {
			box = c.batchDomain(ctx, domain)
			domains[domain] = box
		}
		if box.store == nil || local == "" || !isASCII([]any{q.Email}) {
			continue
		}
		box.local = local
		b := batches[box.store.pool]
		if b == nil {
			b = make(batch)
			batches[box.store.pool] = b
		}
		b[box.email()] = append(b[box.email()], batched{i, box})
	}
	for p, b := range batches {
		if err := c.resolveBatch(ctx, p, b, answers); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// A batch is questions by their real address. An alias domain adds a second for
// the same.
type batch map[string][]batched

type batched struct {
	i   int // of the question
	box mailbox
}

// batchDomain returns a mailbox without local part, and without store if the
// domain's users must be asked for one by one.
func (c *config) batchDomain(ctx context.Context, domain string) mailbox {
	box := mailbox{local: "x", domain: domain}
	realDomain, err := c.realDomain(ctx, domain)
	box.realDomain = realDomain
	distributed := slices.ContainsFunc(c.stores, func(s store) bool {
		return s.domain == realDomain && s.distributed
	})
	if err != nil || distributed {
		return box
	}
	box, err = c.place(ctx, box)
	if err == nil && box.store != nil && c.domainLimits {
		var limits Answer
		limits, err = limitsOf(ctx, box.store.pool, realDomain)
		box.limits = &limits
	}
	if err != nil {
		box.store = nil
	}
	return box
}

// resolveBatch puts answers in their places. Two rows for one address may differ
// in case: which of them holds is for Resolve to say.
func (c *config) resolveBatch(ctx context.Context, p *pool, b batch, answers []Answer) error {
	var args []any
	for _, questions := range b {
		args = append(args, questions[0].box.local, questions[0].box.realDomain)
	}
	// The last pair again, up to a power of two: so the pool has few lanes.
	n := 1 << bits.Len(uint(len(b)-1))
	for len(args) < 2*n {
		args = append(args, args[len(args)-2:]...)
	}
	rows, err := p.query(ctx, c.userSQL(true)+manyUsers(n), args...)
	if err != nil {
		return err
	}
	found := make(map[string][]row)
	for _, r := range rows {
		email := lower(r[userName].String) + "@" + lower(r[userDomain].String)
		found[email] = append(found[email], r)
	}
	for email, questions := range b {
		for _, q := range questions {
			if len(found[email]) != 1 {
				continue
			}
			a, err := c.entry(ctx, q.box, &userRow{row: found[email][0]})
			if err == nil {
				answers[q.i] = a
			}
		}
	}
	return nil
}

// relay answers whether the user has logged in from ip lately.
func (c *config) relay(ctx context.Context, box mailbox, ip string) (Answer, error) {
	exists, err := c.exists(ctx, box)
	if !exists || err != nil {
		return NewAnswer(0), err
	}
	p := box.store.pool
	rows, err := p.optional(ctx, c.relayTable(), c.relaySQL(), ip, box.email())
	since := time.Now().Unix() - c.relayAge
	for _, r := range rows {
		if !sameName(r[0].String, box.email()) || r[1].String != ip {
			continue
		}
		login, err := strconv.ParseInt(cmp.Or(wholePart(r[2].String), "0"), 10, 64)
		if err != nil {
			return Answer{}, fmt.Errorf("%w: table relay: timestamp of %s is no number",
				ErrInvalid, box.email())
		}
		if login > since {
			return NewAnswer(1), nil
		}
	}
	return NewAnswer(0), err
}

// aliasLines returns the lines of an alias in order.
func aliasLines(ctx context.Context, box mailbox) ([]string, error) {
	rows, err := box.store.pool.optional(ctx, "valias", aliasSQL, box.local, box.realDomain)
	var lines []string
	for _, r := range rows {
		if r.isOf(box) {
			lines = append(lines, r[2].String+"\n")
		}
	}
	slices.Sort(lines)
	return lines, err
}

// host answers with the SMTP route.
func (c *config) host(ctx context.Context, box mailbox) (Answer, error) {
	exists, err := c.exists(ctx, box)
	if !exists || err != nil {
		return NewAnswer(0), err
	}
	port := c.routePort
	i := slices.IndexFunc(c.routes, func(r route) bool {
		return r.domain == box.realDomain || r.domain == ""
	})
	if i >= 0 {
		port = c.routes[i].port
	}
	if box.distributed() {
		port, err = c.smtpPort(ctx, box)
	}
	return NewData(TypeHost, box.domain+":"+box.store.mdahost+":"+port), err
}

// smtpPort returns the port of a distributed user's host. A row for this
// machine comes before one for all.
func (c *config) smtpPort(ctx context.Context, box mailbox) (string, error) {
	rows, err := c.central.optional(ctx, "smtp_port", portSQL, box.host, box.realDomain, c.hostIP)
	port := c.distPort
	for _, r := range rows {
		if !sameName(r[0].String, box.host) || !sameName(r[1].String, box.realDomain) {
			continue
		}
		text := wholePart(r[3].String)
		if cmp.Or(text, "0") == "0" {
			continue // no port: the default
		}
		if _, err := strconv.ParseUint(text, 10, 16); err != nil {
			return "", fmt.Errorf("%w: table smtp_port: port of %s is no number",
				ErrInvalid, box.host)
		}
		port = text
		if r[2].String == c.hostIP {
			break
		}
	}
	return port, err
}

// limits answers with the record of a domain, else of its real domain. For a
// user it answers with the first record of these: the address as it was asked
// for, the address in the real domain, the real domain, the defaults.
func (c *config) limits(ctx context.Context, box mailbox) (Answer, error) {
	p := box.store.pool
	if box.local == "" {
		a, err := limitsOf(ctx, p, box.domain, box.realDomain)
		if a.isZero() {
			a = NewAnswer(0)
		}
		return a, err
	}
	exists, err := c.exists(ctx, box)
	if !exists || err != nil {
		return NewAnswer(0), err
	}
	asked := box.local + "@" + box.domain
	a, err := limitsOf(ctx, p, asked, box.email(), box.realDomain)
	if a.isZero() && err == nil {
		a = NewLimits(noLimits)
	}
	return a, err
}

// limitsOf returns the answer with the record of the first of these names that
// has one, the zero Answer if none has.
func limitsOf(ctx context.Context, p *pool, names ...string) (Answer, error) {
	for _, name := range slices.Compact(names) {
		rows, err := p.optional(ctx, "vlimits", limitsSQL, name)
		if err != nil {
			return Answer{}, err
		}
		for _, r := range rows {
			if sameName(r[0].String, name) {
				return limitsAnswer(r)
			}
		}
	}
	return Answer{}, nil
}

// noLimits is the record where there is none.
var noLimits = Limits{
	DomainExpiry: -1, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1, MaxForwards: -1,
	MaxAutoresponders: -1, MaxMailinglists: -1, LimitType: LimitsOfDomain,
}

// limitsAnswer returns the answer with the record in a row. NULL means no
// limit.
func limitsAnswer(r row) (Answer, error) {
	l := noLimits
	fields := []any{ // in the order of limitsSQL, behind domain
		&l.DomainExpiry, &l.PasswdExpiry, &l.MaxPopAccounts, &l.MaxAliases, &l.MaxForwards,
		&l.MaxAutoresponders, &l.MaxMailinglists, &l.DiskQuota, &l.MaxMsgCount,
		&l.DefaultQuota, &l.DefaultMaxMsgCount, &l.DisablePop, &l.DisableIMAP,
		&l.DisableDialup, &l.DisablePasswordChanging, &l.DisableWebmail, &l.DisableRelay,
		&l.DisableSMTP, &l.PermAccount, &l.PermAlias, &l.PermForward, &l.PermAutoresponder,
		&l.PermMaillist, &l.PermQuota, &l.PermDefaultQuota,
	}
	for i, field := range fields {
		text := r[i+1]
		if !text.Valid {
			continue
		}
		n, err := parseLimit(wholePart(text.String))
		if err != nil {
			return Answer{}, fmt.Errorf("table vlimits, column %d of %q: %w", i+2, r[0].String, err)
		}
		switch field := field.(type) {
		case *int64:
			*field = n
		case *uint64:
			*field = uint64(n)
		case *int16:
			*field = int16(n)
		}
	}
	lists := l.PermMaillist // one column with three fields
	l.PermMaillist = lists & 7
	l.PermMaillistUsers = lists >> 3 & 7
	l.PermMaillistModerators = lists >> 6 & 7
	if separator([]byte(r[0].String)) >= 0 {
		l.LimitType = LimitsOfUser
	}
	return NewLimits(l), nil
}

// parseLimit reads a number, which as BIGINT UNSIGNED may be beyond int64.
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

// Recent returns the addresses that logged in within the last age: each once,
// and for each database the latest first. With an error they are those of the
// databases that answered. It gives each database a minute.
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
	var errs []error
	seen := make(map[string]bool)
	for _, p := range c.userPools() {
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		// No TIMESTAMP is earlier than 1. FROM_UNIXTIME(0) is NULL in MariaDB 11.7.
		since := max(1, time.Now().Add(-age).Unix())
		rows, err := p.ask(limited, time.Minute, newCall(time.Minute, text, []any{since}))
		cancel()
		if err != nil {
			errs = append(errs, p.describe(err))
		}
		for _, r := range rows {
			email := lower(r[0].String + "@" + r[1].String)
			if !seen[email] {
				seen[email] = true
				emails = append(emails, email)
			}
		}
	}
	return emails, errors.Join(errs...)
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

// A probe is a SELECT that Check tries, with "0" for each of its values.
type probe struct {
	what     string
	text     string
	values   int
	optional string // the table if it may be missing
}

// ErrNoTable is what Check says of a table that is missing, and counts as empty.
var ErrNoTable = errors.New("it counts as empty")

// noTableError says that a table, whose name may be quoted, counts as empty.
func noTableError(table string) error {
	return fmt.Errorf("table %s is missing, or the account has no right on it: %w",
		strings.ReplaceAll(table, "`", ""), ErrNoTable)
}

// Check connects to every database, which may take 15 seconds for each host. Then it
// tries every SELECT of the seven questions there, asking for a mailbox that does
// not exist. It calls say with each outcome: the database, what was asked for or
// "connecting", how long it took, and the error or nil. The error that Check
// returns is that of reading the configuration.
func (m *MySQL) Check(
	ctx context.Context, say func(database, what string, took time.Duration, err error),
) error {
	c, err := m.current()
	if err != nil {
		return err
	}
	connected := make(map[*pool]bool) // those tried
	try := func(p *pool, probes ...probe) {
		if _, tried := connected[p]; !tried {
			start := time.Now()
			err := p.await(ctx)
			connected[p] = err == nil
			if err != nil {
				err = p.describe(err)
			}
			say(p.name, "connecting", time.Since(start), err)
		}
		if !connected[p] {
			return
		}
		for _, one := range probes {
			ctx, cancel := context.WithTimeout(ctx, deadline)
			start := time.Now()
			_, err := p.query(ctx, one.text, slices.Repeat([]any{"0"}, one.values)...)
			if one.optional != "" && p.isMissing(ctx, one.optional, err) {
				err = noTableError(one.optional)
			}
			cancel()
			say(p.name, one.what, time.Since(start), err)
		}
	}
	for _, p := range c.userPools() {
		try(p,
			probe{"users", c.userSQL(true) + oneUser, 2, ""},
			probe{"inactive users", c.userSQL(false) + oneUser, 2, ""},
			probe{"aliases", aliasSQL, 2, "valias"},
			probe{"limits", limitsSQL, 1, "vlimits"},
			probe{"relay", c.relaySQL(), 2, c.relayTable()})
	}
	if c.aliasTable {
		try(c.central, probe{"alias domains", aliasDomainSQL, 1, "aliasdomain"})
	}
	if slices.ContainsFunc(c.stores, func(s store) bool { return s.distributed }) {
		try(c.central,
			probe{"distributed users", c.hostcntrlSQL(), 2, ""},
			probe{"hosts", hostSQL, 1, ""},
			probe{"ports", portSQL, 3, "smtp_port"})
	}
	return nil
}

// DistributedDomains returns the domains whose users are on several mail stores,
// each once.
func (m *MySQL) DistributedDomains() ([]string, error) {
	c, err := m.current()
	if err != nil {
		return nil, err
	}
	var domains []string
	for _, s := range c.stores {
		if s.distributed && !slices.Contains(domains, s.domain) {
			domains = append(domains, s.domain)
		}
	}
	return domains, nil
}

// A Location says where MySQL would look an address up.
type Location struct {
	RealDomain  string
	Database    string // name and host; "" if the address is nowhere
	MailStore   string // IP address
	Distributed bool
}

// Locate returns where MySQL would look q up.
func (m *MySQL) Locate(ctx context.Context, q Query) (Location, error) {
	c, err := m.current()
	if err != nil {
		return Location{}, err
	}
	local, domain := q.Split(c.defaultDomain)
	if !isPlausible(local, domain) {
		return Location{RealDomain: domain}, nil
	}
	box, err := c.locate(ctx, local, domain)
	where := Location{RealDomain: box.realDomain, Distributed: box.distributed()}
	if box.store != nil && box.store.pool != nil {
		where.Database = box.store.pool.name
		where.MailStore = box.store.mdahost
	}
	return where, err
}
