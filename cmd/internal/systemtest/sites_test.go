package systemtest

// What C sites write into files and variables, and what their administrators type: the server and
// its check take it as the C programs do, or say what they cannot use.

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// contains checks that a text matches patterns, and shows no password.
func contains(t *testing.T, what, text string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(text) {
			t.Errorf("%s: not there: %s\n%s", what, pattern, text)
		}
	}
	for _, passwd := range []string{"secret", "hunter2"} {
		if strings.Contains(text, passwd) {
			t.Errorf("%s: a password is shown:\n%s", what, text)
		}
	}
}

// DOMAIN_LIMITS and DEBUG count when they are set to nothing, as envdir sets them from a file of
// one newline.
func TestVariablesSetToNothing(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	s.env["DOMAIN_LIMITS"], s.env["DEBUG"] = "", ""
	p := s.serve()
	entry, err := s.directory().Passwd(t.Context(), "user@example.com")
	if entry.GID != 326 || err != nil {
		t.Errorf("the server: gid %d, %v", entry.GID, err)
	}
	eventually(t, "request lines", func() bool {
		return strings.Contains(p.stdout.String(), "Query ['Password Query']")
	})
	for _, args := range [][]string{{"-q", "3", "user@example.com"},
		{"-q", "3", "-i", s.dir + "/own", "user@example.com"}} {
		_, stdout, stderr := s.run("inquerytest", args...)
		if !regexp.MustCompile(`(?m)^pw_gid +: 326$`).MatchString(stdout) {
			t.Errorf("inquerytest %q:\n%s%s", args, stdout, stderr)
		}
	}
}

// INDIMAIL_DOMAIN is the domain of an address without one, to the cache as well.
func TestIndimailDomain(t *testing.T) {
	t.Parallel()
	s := newSite(t, database(t))
	s.env["INDIMAIL_DOMAIN"], s.env["DEFAULT_DOMAIN"] = "example.com", "example.org"
	s.serve()
	d := s.directory()
	status, err := d.Status(t.Context(), "over")
	if status != inlookup.StatusOverQuota || err != nil {
		t.Errorf("%v, %v", status, err)
	}
	flushed := s.text(inlookup.Query{Type: inlookup.TypeFlush, Email: "example.com"})
	if flushed != "1 entry flushed\n" {
		t.Errorf("the domain: %q", flushed)
	}
}

// Numbers with text behind them, and options that make no sense, stop nothing.
func TestOptionsThatDoNotFit(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, test := range []struct {
		args []string
		fifo string
		warn string // a regular expression; "": no warning
	}{
		{[]string{"-i", "2x"}, "infifo.2", ""},
		{[]string{"-i", ""}, "infifo", `warning: -i got "": want a number`},
		{[]string{"-i", "x"}, "infifo", `warning: -i got "x": want a number`},
		{[]string{"-i", "0"}, "infifo", `warning: -i got "0": want a number`},
		{[]string{"-i", "-3"}, "infifo", `warning: -i got "-3": want a number`},
		{[]string{"-i", "1001"}, "infifo", `warning: -i got "1001": want a number`},
		{[]string{"-c", ""}, "infifo", `warning: -c got "": want a number`},
		{[]string{"-c", "x"}, "infifo", `warning: -c got "x": want a number`},
		{[]string{"-c", "-1"}, "infifo", `warning: -c got "-1": want a number`},
		{[]string{"-c", "3600s"}, "infifo", ""},
		{[]string{"-c", "99999999999999999999"}, "infifo", ""},
		{[]string{"-v", "-c", "3600", "#", "an", "hour", "-i", "2"}, "infifo.2",
			`warning: -c: "hour" behind its number is ignored`},
	} {
		s := newSite(t, db)
		p := s.start("inlookup", test.args...)
		log := p.startLines()
		if !exists(s.fifo(test.fifo)) {
			t.Errorf("%q: no %s", test.args, test.fifo)
		}
		if warned := strings.Contains(log, "warning"); warned != (test.warn != "") {
			t.Errorf("%q:\n%s", test.args, log)
		}
		contains(t, fmt.Sprint(test.args), log, test.warn)
		p.terminate()
		status, lines := s.check(test.args...)
		if warned := strings.Contains(lines, "\nwarning  options "); warned != (test.warn != "") || status != 0 {
			t.Errorf("%q: -t exits %d\n%s", test.args, status, lines)
		}
	}
	s := newSite(t, nil)
	_, _, stderr := s.run("inlookup", "-v", "-i", "-c", "3600")
	contains(t, "the next option in place of a number", stderr,
		`^inlookup: invalid value "-c" for flag -i: no number: is its variable empty\?`)
}

// -c beyond 1970 loads everybody.
func TestPreloadEverybody(t *testing.T) {
	db := database(t)
	mustExec(t, db, `INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp) VALUES
		('user','example.com','imap','192.0.2.10',1,'','1990-01-01')`, "DELETE FROM lastauth")
	for seconds, want := range map[string]int{"3600": 0, "1800000000": 1, "3000000000": 1,
		"99999999999999999999": 1} {
		s := newSite(t, db)
		p := s.serve("-c", seconds)
		p.loaded(1, want, want)
		p.terminate()
	}
}

// A FIFO mode with which the server cannot open its FIFO is refused before there is one.
func TestFIFOModeRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, database(t))
	s.env["FIFO_MODE"] = "0444"
	s.refusesToStart("FIFO_MODE=0444", "FIFO_MODE: 0444: its owner must read and write: want 0660")
	s.env["FIFO_MODE"] = "0660 # as before"
	s.serve()
}

// --- host.master and table dbinfo.

const dbinfoTable = `CREATE TABLE IF NOT EXISTS dbinfo (
	filename VARCHAR(128) NOT NULL, domain VARCHAR(64) NOT NULL, distributed TINYINT NOT NULL,
	server VARCHAR(64) NOT NULL, mdahost VARCHAR(64) NOT NULL, port INT NOT NULL DEFAULT 3306,
	use_ssl TINYINT NOT NULL DEFAULT 0, dbname VARCHAR(64) NOT NULL, user VARCHAR(64) NOT NULL,
	passwd VARCHAR(64) NOT NULL,
	timestamp TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP);`

// master returns the shared MariaDB, with a table dbinfo. Its rows name the files of one site.
func master(t *testing.T) *mariadb.DB {
	t.Helper()
	db := database(t)
	mustExec(t, db, dbinfoTable, "")
	return db
}

// part makes a database of that name in the shared MariaDB, with these tables of the schema.
func part(t *testing.T, name string, tables ...string) *mariadb.DB {
	t.Helper()
	db := database(t)
	script := "CREATE DATABASE " + name + ";"
	for _, table := range tables {
		script += "CREATE TABLE " + name + "." + table + " LIKE indimail." + table + ";"
	}
	mustExec(t, db, script+"GRANT SELECT ON "+name+".* TO indimail@localhost, indimail@'%'",
		"DROP DATABASE "+name+"; REVOKE SELECT ON "+name+".* FROM indimail@localhost, indimail@'%'")
	return db
}

// ownDatabase returns a MariaDB with the schema, for this test alone.
func ownDatabase(t *testing.T, options ...string) *mariadb.DB {
	t.Helper()
	mariadbtest.Golden(t)
	db, err := mariadb.StartWith(t.Context(), t.TempDir(), append(options, mariadbtest.Small...)...)
	if err == mariadb.ErrNotInstalled {
		testmain.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Stop() })
	if err := db.Exec(mariadb.Schema); err != nil {
		t.Fatal(err)
	}
	return db
}

// insert adds a row about a domain.
func insertDbinfo(t *testing.T, db *mariadb.DB, filename, domain, mdahost string, when time.Time) {
	t.Helper()
	_, err := db.SQL().Exec("INSERT INTO dbinfo VALUES (?,?,?,'127.0.0.1',?,?,0,'indimail','indimail',"+
		"'secret',FROM_UNIXTIME(?))", filename, domain, strings.HasPrefix(domain, "dist"), mdahost,
		db.Port, when.Unix())
	if err != nil {
		t.Fatal(err)
	}
}

// store returns the mail store of a domain's users.
func (l *lookup) store(t *testing.T, domain string) string {
	t.Helper()
	where, err := l.mysql.Locate(t.Context(),
		inlookup.Query{Type: inlookup.TypeUser, Email: "user@" + domain})
	if err != nil {
		t.Errorf("%s: %v", domain, err)
	}
	return where.MailStore
}

func TestDbinfo(t *testing.T) {
	t.Parallel()
	db := master(t)
	now := time.Now().Truncate(time.Second)
	const fromFile, fromTable = "192.0.2.1", "192.0.2.2"
	for _, test := range []struct {
		name   string
		file   bool // mcdinfo is there
		age    time.Duration
		rows   bool
		other  string // in place of the path in the rows
		want   string
		master string // in place of host.master
		log    string
	}{
		{"no host.master", true, time.Hour, true, "", fromFile, "-", ""},
		{"newer rows", true, time.Hour, true, "", fromTable, "", `^/\S+/host.master: table dbinfo counts`},
		{"an older table", true, -time.Hour, true, "", fromFile, "", ""},
		{"as new as the file", true, 0, true, "", fromFile, "", ""},
		{"no file", false, 0, true, "", fromTable, "", `table dbinfo counts`},
		{"a slash behind CONTROLDIR", true, time.Hour, true, "//", fromTable, "", `table dbinfo counts`},
		{"no rows", true, time.Hour, false, "", fromFile, "", ""},
		{"rows of another file", true, time.Hour, true, "/other/mcdinfo", fromFile, "", ""},
		{"rows of a file in capitals", true, time.Hour, true, "MCDINFO", fromFile, "", ""},
		{"away", true, time.Hour, true, "", fromFile, "127.0.0.1:indimail:secret:1",
			`^warning: /\S+/host.master: .*127.0.0.1:1.*mcdinfo counts`},
		{"denied", true, time.Hour, true, "", fromFile, "localhost:indimail:hunter2:" + db.Socket,
			`^warning: /\S+/host.master: .*access denied to the user of /\S+/host.master:1`},
	} {
		s := newSite(t, db)
		path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
		if test.master == "" {
			test.master = "localhost:indimail:secret:" + db.Socket
		}
		if test.master != "-" {
			s.control("host.master", test.master+"\n")
		}
		if test.file {
			s.control("mcdinfo", block("example.com 0", fromFile, db))
			changed := now.Add(-test.age)
			if err := os.Chtimes(path, changed, changed); err != nil {
				t.Fatal(err)
			}
		}
		name := path
		switch test.other {
		case "":
		case "//":
			s.env["CONTROLDIR"] += "/"
			name = s.env["CONTROLDIR"] + "/mcdinfo"
		case "MCDINFO":
			name = strings.ToUpper(path)
		default:
			name = test.other
		}
		if test.rows {
			insertDbinfo(t, db, name, "old.example.com", fromTable, now.Add(-48*time.Hour))
			insertDbinfo(t, db, name, "Example.com", fromTable, now)
		}
		l := s.lookup()
		if got := l.store(t, "example.com"); got != test.want {
			t.Errorf("%s: %s, want %s\n%s", test.name, got, test.want, l.log)
		}
		contains(t, test.name, l.log.String(), test.log)
		if test.log == "" && l.log.String() != "" {
			t.Errorf("%s: log %q", test.name, l.log)
		}
		l.mysql.Close()
	}
}

// A master without table dbinfo knows of no cluster: without a file there is none, and the local
// database answers. No connection to the master stays.
func TestDbinfoMissing(t *testing.T) {
	t.Parallel()
	db := part(t, "tableless")
	s := newSite(t, db)
	s.env["MASTER_DATABASE"] = "tableless"
	s.control("host.master", "localhost:indimail:secret:"+db.Socket+"\n")
	l := s.lookup()
	if got := l.store(t, "example.com"); got != "127.0.0.1" {
		t.Errorf("%s\n%s", got, l.log)
	}
	contains(t, "the log", l.log.String(), `^warning: /\S+/host.master: .*mcdinfo counts`)
	eventually(t, "the master has no connection", func() bool {
		row := db.SQL().QueryRow(
			"SELECT COUNT(*) FROM information_schema.processlist WHERE db='tableless'")
		var n int
		if err := row.Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
}

// Users of a distributed domain are found by the rows, and odd rows harm only their own domain.
func TestDbinfoRows(t *testing.T) {
	t.Parallel()
	db := master(t)
	s := newSite(t, db)
	s.control("host.master", "localhost\n") // the account is that of the local database
	path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
	now := time.Now()
	insertDbinfo(t, db, path, "dist.example.net", "192.0.2.26", now)
	insertDbinfo(t, db, path, "bad.example.net", "", now)
	insertDbinfo(t, db, path, "example.com", "192.0.2.25", now)
	insertDbinfo(t, db, path, "open.example.net", "192.0.2.30", now)
	mustExec(t, db, "UPDATE dbinfo SET passwd='' WHERE domain='open.example.net'", "")
	l := s.lookup()
	if got := l.store(t, "open.example.net"); got != "192.0.2.30" {
		t.Errorf("a row without password: %q", got)
	}
	all(t, l.Directory.Resolver, "distributed", answers{"4 duser@dist.example.net": "dist.example.net:192.0.2.26:2526"})
	all(t, l.Directory.Resolver, "at one store", answers{"4 user@example.com": "example.com:192.0.2.25:25"})
	all(t, l.Directory.Resolver, "a row without mdahost", answers{"1 user@bad.example.net": "unavailable"})
	contains(t, "a row without mdahost", l.log.String(),
		"^warning: table dbinfo on localhost: this entry of domain bad.example.net is incomplete")
	s.control("mcdinfo", "# none\n")
	changed := now.Add(time.Hour)
	if err := os.Chtimes(path, changed, changed); err != nil {
		t.Fatal(err)
	}
	if err := l.mysql.Reload(false); err != nil {
		t.Fatal(err)
	}
	if got := l.store(t, "example.com"); got != "127.0.0.1" {
		t.Errorf("a newer file without entries: %s", got)
	}
}

// A domain that is added elsewhere in the cluster is known after SIGHUP, and after SIGINT. The
// server's log and -t tell what counts.
func TestDbinfoSignals(t *testing.T) {
	t.Parallel()
	db := master(t)
	addUser(t, db, "new", "one.example", "hash")
	addUser(t, db, "new", "two.example", "hash")
	s := newSite(t, db)
	s.env["CACHE_NEGATIVE_TTL"] = "0"
	s.control("host.master", "localhost:indimail:secret:"+db.Socket+"\n")
	path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
	users := filepath.Join(s.env["ASSIGNDIR"], "assign")
	if err := os.WriteFile(users, []byte("+example.com-:example.com:0:0:/x:-::\n.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	insertDbinfo(t, db, path, "example.com", "192.0.2.25", time.Now())
	p := s.serve()
	d := s.directory()
	all(t, d.Resolver, "at the start", answers{"1 over@example.com": "over quota"})
	for i, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		domain := []string{"one.example", "two.example"}[i]
		if status, err := d.Status(t.Context(), "new@"+domain); status != inlookup.StatusAbsent || err != nil {
			t.Errorf("%s before: %v, %v", domain, status, err)
		}
		insertDbinfo(t, db, path, domain, "192.0.2.30", time.Now())
		p.signal(sig)
		eventually(t, domain+" is known", func() bool {
			status, err := d.Status(t.Context(), "new@"+domain)
			return status == inlookup.StatusActive && err == nil
		})
	}
	eventually(t, "the last line", func() bool { // it comes after what it says
		return strings.Contains(p.stderr.String(), "inlookup: SIGINT: control files read")
	})
	contains(t, "the log", p.stderr.String(), `^inlookup: /\S+/host.master: table dbinfo counts, not `+path,
		"^inlookup: SIGHUP: control files read", "^inlookup: SIGINT: control files read")
	status, lines := s.check()
	contains(t, "-t", lines, `^ok +host.master +/\S+/host.master: table dbinfo counts`)
	if status != 0 {
		t.Errorf("-t exits %d\n%s", status, lines)
	}
}

// A master that is away or hangs: the file counts, with a warning. Without a file the server does
// not start, and a reload changes nothing. It takes seconds, not minutes.
func TestDbinfoAway(t *testing.T) {
	t.Parallel()
	db := database(t)
	hung, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	port := strconv.Itoa(hung.Addr().(*net.TCPAddr).Port)
	for _, away := range []string{"1", port} {
		s := newSite(t, db)
		s.control("host.master", "127.0.0.1:indimail:secret:"+away+"\n")
		s.refusesToStart("no file, master on port "+away, "host.master: ")
		status, lines := s.check()
		if status != 111 {
			t.Errorf("-t exits %d", status)
		}
		contains(t, "-t without a file", lines, `^wrong +host.master .*indimail on 127.0.0.1: `)
		path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
		s.control("mcdinfo", block("example.com 0", "192.0.2.25", db))
		p := s.serve()
		contains(t, "the log", p.startLines(), `^inlookup: warning: /\S+/host.master: .*mcdinfo counts`)
		d := s.directory()
		all(t, d.Resolver, "by the file", answers{"4 user@example.com": "example.com:192.0.2.25:25"})
		os.Remove(path)
		p.signal(syscall.SIGINT)
		eventually(t, "the reload fails", func() bool {
			return strings.Contains(p.stderr.String(), "the configuration stays as it was: ")
		})
		all(t, d.Resolver, "after it", answers{"4 user@example.com": "example.com:192.0.2.25:25"})
	}
}

// --- Rights, tables and names.

// An account with rights on single tables: a table that is missing counts as empty, with a warning,
// though MySQL denies it. One that is there, and on which the account has a right, is an error.
func TestGrantsByTable(t *testing.T) {
	t.Parallel()
	db := database(t)
	tables := []string{"indimail", "indibak", "hostcntrl", "host_table"}
	missing := []string{"valias", "vlimits", "relay", "aliasdomain", "smtp_port"}
	part(t, "narrow", tables...)
	const user = "narrow@localhost, narrow@127.0.0.1"
	script := "CREATE USER narrow@localhost IDENTIFIED BY 'secret', narrow@127.0.0.1 IDENTIFIED BY 'secret';"
	for _, table := range tables {
		script += "GRANT SELECT ON narrow." + table + " TO " + user + ";"
	}
	mustExec(t, db, script+`
		INSERT INTO narrow.indimail (pw_name,pw_domain,pw_passwd,pw_gecos)
			VALUES ('narrow','example.com','hash','');
		INSERT INTO narrow.hostcntrl (pw_name,pw_domain,pw_passwd,host)
			VALUES ('far','dist.example.net','','mda');
		INSERT INTO narrow.host_table (host,ipaddr) VALUES ('mda','192.0.2.26')`, "DROP USER "+user)
	s := newSite(t, nil)
	s.env["MYSQL_DATABASE"] = "narrow"
	account := "localhost:narrow:secret:" + db.Socket + "\n"
	s.control("host.mysql", account)
	s.control("host.cntrl", account)
	s.control("mcdinfo", strings.ReplaceAll(block("dist.example.net 1", "192.0.2.26", db),
		" indimail\n", " narrow\n"))
	p := s.serve()
	d := s.directory()
	status, err := d.Status(t.Context(), "nobody@example.com")
	if status != inlookup.StatusAbsent || err != nil {
		t.Errorf("no valias: %v, %v", status, err)
	}
	relay, err := d.Relay(t.Context(), "narrow@example.com", "192.0.2.1")
	if relay || err != nil {
		t.Errorf("no relay: %v, %v", relay, err)
	}
	limits, err := d.Limits(t.Context(), "narrow@example.com")
	if limits.MaxPopAccounts != -1 || err != nil {
		t.Errorf("no vlimits: %v, %v", limits, err)
	}
	domain, err := d.Domain(t.Context(), "example.com")
	if domain != "example.com" || err != nil {
		t.Errorf("no aliasdomain: %v, %v", domain, err)
	}
	all(t, d.Resolver, "no smtp_port", answers{"4 far@dist.example.net": "dist.example.net:192.0.2.26:25"})
	log := p.startLines()
	code, lines := s.check()
	for _, table := range missing {
		contains(t, "the log", log, "^inlookup: warning: database narrow on localhost: table "+
			"`?"+table+"`? is missing, or the account has no right on it")
		contains(t, "-t", lines, "^warning +database +narrow on localhost: .*table "+table+
			" is missing, or the account has no right on it: .*GRANT SELECT on it, else IndiMail makes it")
		if n := strings.Count(log, "localhost: table "+table) + strings.Count(log, "localhost: table `"+table); n != 1 {
			t.Errorf("%s is named %d times:\n%s", table, n, log)
		}
	}
	if code != 0 || strings.Contains(log, "does not answer") || strings.Contains(log, "with errors") {
		t.Errorf("-t exits %d\n%s", code, log)
	}

	// The table is there, and the account may do other things with it.
	if err := db.Exec("CREATE TABLE narrow.valias LIKE indimail.valias;" +
		"GRANT INSERT ON narrow.valias TO " + user); err != nil {
		t.Fatal(err)
	}
	all(t, d.Resolver, "a table that cannot be read", answers{"1 other@example.com": "unavailable"})
	code, lines = s.check()
	contains(t, "-t", lines, "^wrong +database .*aliases, .*1142.*GRANT SELECT")
	if code != 100 {
		t.Errorf("-t exits %d", code)
	}
	// A table that is required.
	if err := db.Exec("REVOKE SELECT ON narrow.indibak FROM " + user); err != nil {
		t.Fatal(err)
	}
	all(t, d.Resolver, "a required table", answers{"1 third@example.com": "unavailable"})
}

// -t warns of each table that is missing and counts as empty.
func TestCheckMissingTables(t *testing.T) {
	t.Parallel()
	db := part(t, "bare", "indimail", "indibak", "hostcntrl", "host_table")
	s := newSite(t, db)
	s.env["MYSQL_DATABASE"] = "bare"
	s.control("host.cntrl", "localhost\n")
	s.control("mcdinfo", strings.Replace(block("dist.example.net 1", "192.0.2.26", db),
		"database indimail", "database bare", 1))
	status, lines := s.check()
	log := s.serve().startLines()
	contains(t, "the start", log, "bare on localhost answers$")
	for _, table := range []string{"relay", "valias", "vlimits", "aliasdomain", "smtp_port"} {
		const says = " is missing, or the account has no right on it: it counts as empty"
		contains(t, table, lines, "^warning +database +bare on localhost: .*table "+table+says+"; if it is there")
		contains(t, "the start", log, "^inlookup: warning: database bare on localhost: table "+table+says+"$")
		if n := strings.Count(log, "bare on localhost: table "+table); n != 1 {
			t.Errorf("%s is named %d times at the start:\n%s", table, n, log)
		}
	}
	if status != 0 {
		t.Errorf("exit %d\n%s", status, lines)
	}
}

// MYSQL_TABLE can name the database too.
func TestTableOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	db := part(t, "central", "indimail", "relay")
	if err := db.Exec("RENAME TABLE central.indimail TO central.users; " +
		"INSERT INTO central.users (pw_name,pw_domain,pw_passwd,pw_gecos) VALUES" +
		" ('central','example.com','hash','')"); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, db)
	s.env["MYSQL_TABLE"], s.env["RELAY_TABLE"] = "central.users", "central.relay"
	status, err := s.lookup().Status(t.Context(), "central@example.com")
	if status != inlookup.StatusActive || err != nil {
		t.Errorf("%v, %v", status, err)
	}
	if code, lines := s.check(); code != 0 || strings.Contains(lines, "counts as empty") {
		t.Errorf("-t exits %d\n%s", code, lines)
	}
}

// Misspelt variables are named with the one that may be meant. Known ones of the C programs are not.
func TestCheckMisspelt(t *testing.T) {
	t.Parallel()
	s := newSite(t, database(t))
	for name, meant := range map[string]string{
		"MYSQL_PASSWORD": "MYSQL_PASSWD", "MYSQL_PORT": "MYSQL_VPORT", "CACHE_TLL": "CACHE_TTL",
		"CNTRL_PASSWORD": "CNTRL_PASSWD", "MASTER_PORT": "MASTER_VPORT", "INFIFO_DIR": "INFIFODIR",
		"FIFO_MODUS": "FIFO_MODE", "REPLY_DIR": "REPLYDIR", "MYSQL_OPT_SSL_CAFILE": "MYSQL_OPT_SSL_CA",
	} {
		s.env[name] = "hunter2"
		_, lines := s.check()
		contains(t, name, lines, "^warning +"+name+" +is set, but nothing reads it: is "+meant+" meant")
		delete(s.env, name)
	}
	for _, name := range []string{"CACHE_COUNT", "MYSQL_OPT_RECONNECT", "PASSWD_CACHE", "THREAD_COUNT",
		"FIFOTMPDIR", "INFIFO"} {
		value := s.env[name]
		s.env[name] = "1"
		if name == "FIFOTMPDIR" {
			s.env[name] = value
		}
		if _, lines := s.check(); strings.Contains(lines, "\nwarning  "+name) {
			t.Errorf("%s:\n%s", name, lines)
		}
		if value == "" {
			delete(s.env, name)
		}
	}
	s.env["MYSQL_READ_DEFAULT_FILE"] = "/etc/indimail/indimail.cnf"
	_, lines := s.check()
	contains(t, "the C library's", lines, "^warning +MYSQL_READ_DEFAULT_FILE +is set, but only the C library")
}

// "Access denied" says where the account came from.
func TestAccessDeniedSource(t *testing.T) {
	t.Parallel()
	db := database(t)
	for _, test := range []struct {
		settings settings
		want     string
	}{
		{settings{"MYSQL_USER": "hunter2", "MYSQL_PASSWD": ""},
			"access denied to the user of MYSQL_USER, without a password"},
		{settings{"MYSQL_PASSWD": "hunter2"}, "access denied to the default user(:|$)"},
		{settings{"MYSQL_PASSWD": ""}, "access denied to the default user, without a password(:|$)"},
		{settings{"host.mysql": "\nlocalhost:hunter2:hunter2\n"},
			`access denied to the user of /\S+/host.mysql:2(:|$)`},
	} {
		s := newSite(t, db)
		s.configure(test.settings, strings.NewReplacer())
		p := s.serve()
		all(t, s.directory().Resolver, "denied", answers{"1 user@example.com": "unavailable"})
		want := regexp.MustCompile("(?m)" + test.want)
		eventually(t, "a line with "+test.want, func() bool {
			return want.MatchString(p.stderr.String())
		})
		contains(t, "the log", p.stderr.String())
		_, lines := s.check()
		contains(t, "-t", lines, test.want)
	}
}

// --- TLS.

// rsaPair writes a self-signed certificate with an RSA key, and returns its path and the key's.
func rsaPair(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1),
		Subject:   pkix.Name{CommonName: "MariaDB_Server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, cert, "CERTIFICATE", der)
	writePEM(t, key, "PRIVATE KEY", pkcs8)
	return cert, key
}

// A server that exchanges keys by RSA alone is spoken to, with one warning that names the cipher.
// With one that Go cannot speak to, and with a certificate that nobody stands behind, -t says why.
func TestOldCiphers(t *testing.T) {
	t.Parallel()
	cert, key := rsaPair(t)
	for _, test := range []struct {
		name, cipher, ca string
		answered         bool
		log, check       string
	}{
		{"RSA", "AES256-GCM-SHA384", cert, true,
			"warning: 127.0.0.1: TLS with the weak cipher TLS_RSA_WITH_AES_256_GCM_SHA384",
			"^warning +database +127.0.0.1: TLS with the weak cipher TLS_RSA_WITH_AES_256_GCM_SHA384"},
		{"CBC", "ECDHE-RSA-AES128-SHA256", cert, true,
			"warning: 127.0.0.1: TLS with the weak cipher TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", ""},
		{"ECDHE", "ECDHE-RSA-AES256-GCM-SHA384:AES256-GCM-SHA384", cert, true, "", ""},
		{"DHE", "DHE-RSA-AES256-GCM-SHA384", cert, false, "",
			"^wrong +database .*the server broke off the TLS handshake.*ECDHE"},
		{"self-made", "ECDHE-RSA-AES256-GCM-SHA384", "", false, "",
			"^wrong +database .*the server made its certificate itself .*MYSQL_OPT_SSL_CA"},
	} {
		db := ownDatabase(t, "--ssl-cert="+cert, "--ssl-key="+key, "--ssl-cipher="+test.cipher,
			"--tls-version=TLSv1.2")
		addUser(t, db, "over", "example.com", "hash")
		s := newSite(t, nil)
		s.env["MYSQL_OPT_SSL_CA"] = test.ca
		s.control("host.mysql", fmt.Sprintf("127.0.0.1:indimail:secret:%d:ssl\n", db.Port))
		p := s.serve()
		d := s.directory()
		for _, email := range []string{"over@example.com", "other@example.com", "third@example.com"} {
			if _, err := d.Status(t.Context(), email); (err == nil) != test.answered {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		log := p.startLines()
		contains(t, test.name, log, test.log)
		if n := strings.Count(log, "weak cipher"); n > 1 || test.log == "" && n > 0 {
			t.Errorf("%s: %d warnings\n%s", test.name, n, log)
		}
		_, lines := s.check()
		contains(t, test.name, lines, test.check)
		p.terminate()
		db.Stop()
	}
}
