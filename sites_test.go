package inlookup

// What C sites write into files and variables, read as the C programs read it.

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestLeadingNumber(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "30": 30, " 30": 30, "\t+30 minutes": 30, "-5": -5, "30x": 30, "007": 7, "3.9": 3,
		"99999999999999999999": math.MaxInt64, "-99999999999999999999": math.MinInt64, "1e3": 1,
	} {
		if n, ok := leadingNumber(text, 10); n != want || !ok {
			t.Errorf("%q: %d, %v, want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{"", " ", "x", "x5", "-", "+", "--5", "+-5", "٣"} {
		if n, ok := leadingNumber(text, 10); ok {
			t.Errorf("%q: %d", text, n)
		}
	}
	if n, ok := leadingNumber("0668", 8); n != 0o66 || !ok {
		t.Errorf("octal: %o, %v", n, ok)
	}
}

// TestSetToNothing: DOMAIN_LIMITS counts when it is set, whatever to. A Getenv has no way to say
// that it is set to nothing.
func TestSetToNothing(t *testing.T) {
	t.Setenv("DOMAIN_LIMITS", "")
	t.Setenv("CONTROLDIR", t.TempDir())
	m := new(MySQL)
	t.Cleanup(func() { m.Close() })
	if !currentConfig(t, m).domainLimits {
		t.Error("set to nothing: not set")
	}
	os.Unsetenv("DOMAIN_LIMITS")
	m = new(MySQL)
	t.Cleanup(func() { m.Close() })
	if currentConfig(t, m).domainLimits {
		t.Error("not set: set")
	}
	for value, want := range map[string]bool{"": false, "0": true} {
		m := configured(t, t.TempDir(), "DOMAIN_LIMITS", value)
		if got := currentConfig(t, m).domainLimits; got != want {
			t.Errorf("Getenv with %q: %v", value, got)
		}
	}
}

func TestIndimailDomain(t *testing.T) {
	for _, c := range []struct{ indimail, other, want string }{
		{"", "", ""}, {"", "A.example", "a.example"}, {"B.example", "", "b.example"},
		{"B.example", "A.example", "b.example"},
	} {
		m := configured(t, t.TempDir(), "INDIMAIL_DOMAIN", c.indimail, "DEFAULT_DOMAIN", c.other)
		if got := currentConfig(t, m).defaultDomain; got != c.want {
			t.Errorf("%q and %q: %q", c.indimail, c.other, got)
		}
	}
}

// TestRelayAge: RELAY_CLEAR_MINUTES is a C long.
func TestRelayAge(t *testing.T) {
	const day = 24 * 60 * 60
	for minutes, ages := range map[string]map[int64]bool{ // of logins, in seconds
		"":                      {10: true, 2 * day: false},
		"1000000":               {2 * day: true, 800 * day: false},
		"5 minutes":             {10: true, 400: false},
		"99999999999999999999":  {800 * day: true},
		"-1":                    {10: false},
		"-99999999999999999999": {10: false},
		"many":                  {10: true, 2 * day: false},
	} {
		m := configured(t, t.TempDir(), "RELAY_CLEAR_MINUTES", minutes)
		tabs := newTables(t, m)
		tabs.rows["indimail"] = []tableRow{plainUser}
		for age, want := range ages {
			tabs.rows["relay"] = []tableRow{{"email": "user@example.com", "ipaddr": "192.0.2.1",
				"timestamp": strconv.FormatInt(time.Now().Unix()-age, 10)}}
			got, err := Directory{m}.Relay(context.Background(), "user@example.com", "192.0.2.1")
			if got != want || err != nil {
				t.Errorf("%q minutes, %d seconds: %v, %v", minutes, age, got, err)
			}
		}
	}
}

// TestAssign: the file is read as qmail-newu does, and lines of users list no domains.
func TestAssign(t *testing.T) {
	line := func(domain, dir string) string {
		return "+" + domain + "-:" + domain + ":555:555:" + dir + ":-::\n"
	}
	const users = "=john:john:1000:1000:/home/john:::\n+john-:john:1000:1000:/home/john:-::\n" +
		"=jane.doe:jane.doe:1001:1001:/home/jane:::\n+jane.doe-:jane.doe:1001:1001:/home/jane:-::\n" +
		"+:alias:1002:1002:/var/alias:-::\n"
	for _, c := range []struct {
		name, file string
		known      map[string]bool   // domain: its users are looked for
		real       map[string]string // alias domain: real domain
	}{
		{"nothing", "", map[string]bool{"a.example": true}, nil},
		{"users only", users + ".\n", map[string]bool{"a.example": true}, nil},
		{"a user's line alone", "+john-:john:1000:1000:/home/john:-::\n.\n",
			map[string]bool{"a.example": true}, nil},
		{"users and domains", users + line("a.example", "") + ".\n",
			map[string]bool{"a.example": true, "b.example": false}, nil},
		{"a domain without a dot beside another", line("lan", "") + line("a.example", "") + ".\n",
			map[string]bool{"lan": true, "a.example": true, "b.example": false}, nil},
		{"the first of two lines", line("a.example", "@one") + line("A.example", "@two") + ".\n",
			map[string]bool{}, map[string]string{"a.example": "one.example"}},
		{"behind the dot", line("a.example", "") + ".\n" + line("b.example", "@one"),
			map[string]bool{"a.example": true, "b.example": false},
			map[string]string{"b.example": "b.example"}},
		{"the dot first", ".\n" + line("a.example", "@one"), map[string]bool{"b.example": true},
			map[string]string{"a.example": "a.example"}},
	} {
		dir := t.TempDir()
		for name, target := range map[string]string{"one": "domains/one.example", "two": "two.example"} {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		writeFile(t, filepath.Join(dir, "assign"), strings.ReplaceAll(c.file, "@", dir+"/"))
		m := configured(t, dir)
		for domain, want := range c.known {
			q := Query{Type: TypeUser, Email: "user@" + domain}
			where, err := m.Locate(context.Background(), q)
			if known := where.Database != ""; known != want || err != nil {
				t.Errorf("%s: %s known: %v, %v", c.name, domain, known, err)
			}
		}
		for domain, want := range c.real {
			got, err := Directory{m}.Domain(context.Background(), domain)
			if got != want || err != nil {
				t.Errorf("%s: %s: %q, %v, want %s", c.name, domain, got, err, want)
			}
		}
	}
}

// TestTableOfDatabase: a name can have its database before it.
func TestTableOfDatabase(t *testing.T) {
	for name, want := range map[string]string{
		"": "`indimail`", "users": "`users`", "central.users": "`central`.`users`",
		"`central`.`users`": "`central`.`users`", "a`; DROP TABLE b": "`a``; DROP TABLE b`",
		" users\r": "`users`", "`central` . users ": "`central`.`users`",
	} {
		c := &config{environ: environ{environment("MYSQL_TABLE", name)}}
		if got := c.table("MYSQL_TABLE", "indimail"); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// TestDeniedTable: to an account with rights on single tables MySQL denies a missing table.
// information_schema tells it from one that is there, if the account has any right on that.
func TestDeniedTable(t *testing.T) {
	listed := make(map[string]bool) // by information_schema
	denied := uint16(1142)
	var b bytes.Buffer
	m := configured(t, t.TempDir(), "RELAY_TABLE", "other.logins")
	m.Log = log.New(&b, "", 0)
	c := currentConfig(t, m)
	var schemaErr error
	asked := ""
	d := &fakeDriver{query: func(_ context.Context, text string) (
		[]string, [][]driver.Value, error,
	) {
		asked = text
		switch {
		case strings.Contains(text, "information_schema") && len(listed) > 0:
			return []string{"1"}, [][]driver.Value{{"1"}}, schemaErr
		case strings.Contains(text, "information_schema"):
			return []string{"1"}, nil, schemaErr
		case strings.Contains(text, "indimail"), strings.Contains(text, "indibak"):
			return []string{"pw_name"}, nil, nil
		}
		return nil, nil, mysqlError(denied)
	}}
	d.use(c.local)
	ask := func() (Status, error) { return Directory{m}.Status(context.Background(), "u@d.example") }
	for range 3 {
		if got, err := ask(); got != StatusAbsent || err != nil {
			t.Errorf("missing: %v, %v", got, err)
		}
	}
	if s := b.String(); strings.Count(s, "valias") != 1 || !strings.HasPrefix(s, "warning: ") {
		t.Errorf("missing: log %q", s)
	}
	listed["valias"] = true
	if got, err := ask(); got != StatusUnknown || errorNumber(err) != 1142 {
		t.Errorf("there, and not readable: %v, %v", got, err)
	}
	clear(listed)
	schemaErr = mysqlError(1044)
	if got, err := ask(); got != StatusUnknown || err == nil {
		t.Errorf("nobody knows: %v, %v", got, err)
	}
	schemaErr, denied = nil, 1143 // a column of it, so it is there
	if got, err := ask(); got != StatusUnknown || err == nil {
		t.Errorf("a column: %v, %v", got, err)
	}
	_ = asked
	required := mysqlError(1142)
	d.query = func(context.Context, string) ([]string, [][]driver.Value, error) {
		return nil, nil, required
	}
	if got, err := ask(); got != StatusUnknown || errorNumber(err) != 1142 {
		t.Errorf("a required table: %v, %v", got, err)
	}
}

// TestDeniedTableOfAnotherDatabase: whether it is there is asked of that database. One of the same
// name in our own says nothing about it.
func TestDeniedTableOfAnotherDatabase(t *testing.T) {
	for database, missing := range map[string]bool{"other": false, "indimail": true} {
		m := configured(t, t.TempDir(), "RELAY_TABLE", "other.logins")
		c := currentConfig(t, m)
		listed := false
		d := new(fakeDriver)
		d.args = func(args []driver.NamedValue) {
			listed = args[0].Value == database && args[1].Value == "logins"
		}
		d.query = func(_ context.Context, text string) ([]string, [][]driver.Value, error) {
			if !strings.Contains(text, "information_schema") {
				return nil, nil, mysqlError(1142)
			}
			if !listed {
				return []string{"1"}, nil, nil
			}
			return []string{"1"}, [][]driver.Value{{"1"}}, nil
		}
		d.use(c.local)
		_, err := c.local.optional(context.Background(), c.relayTable(), c.relaySQL(), "ip", "u@d")
		if (err == nil) != missing || err != nil && errorNumber(err) != 1142 {
			t.Errorf("in database %s: %v", database, err)
		}
	}
}

// TestTableOfMissingDatabase: MySQL says that the database is unknown. If that is the one of the
// connection, it is no missing table.
func TestTableOfMissingDatabase(t *testing.T) {
	for _, test := range []struct {
		table, unknown string
		missing        bool
	}{
		{"other.logins", "other", true}, {"other.logins", "indimail", false}, {"logins", "indimail", false},
	} {
		m := configured(t, t.TempDir(), "RELAY_TABLE", test.table, "MYSQL_USER", "other")
		c := currentConfig(t, m)
		d := &fakeDriver{query: func(context.Context, string) ([]string, [][]driver.Value, error) {
			text := "Unknown database '" + test.unknown + "'"
			return nil, nil, &mysql.MySQLError{Number: 1049, Message: text}
		}}
		d.use(c.local)
		_, err := c.local.optional(context.Background(), c.relayTable(), c.relaySQL(), "ip", "u@d")
		if (err == nil) != test.missing || err != nil && errorNumber(err) != 1049 {
			t.Errorf("%s, database %s: %v", test.table, test.unknown, err)
		}
	}
}

// TestCheckMissing: Check says which tables are missing.
func TestCheckMissing(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": mcdinfo, "host.cntrl": "central.example"})
	m := configured(t, dir)
	tabs := newTables(t, m)
	optional := map[string]string{"aliases": "valias", "limits": "vlimits", "relay": "relay",
		"alias domains": "aliasdomain", "ports": "smtp_port"}
	for table := range maps.Values(optional) {
		tabs.missing[table] = true
	}
	seen := make(map[string]bool)
	say := func(_, what string, _ time.Duration, err error) {
		table := optional[what]
		seen[what] = true
		if missing := errors.Is(err, ErrNoTable); missing != (table != "") {
			t.Errorf("%s: %v", what, err)
		} else if missing && !strings.Contains(err.Error(), table) {
			t.Errorf("%s: %v does not name %s", what, err, table)
		}
	}
	if err := m.Check(context.Background(), say); err != nil || len(seen) < 8 {
		t.Errorf("%v, %v", seen, err)
	}
}

// TestAccessDenied: the error says where the user came from, and that there was no password.
func TestAccessDenied(t *testing.T) {
	const without = ", without a password"
	for _, c := range []struct {
		files map[string]string
		env   []string
		want  []string // of each pool
	}{
		{nil, nil, []string{"the default user" + without}},
		{nil, []string{"MYSQL_USER", secret}, []string{"MYSQL_USER" + without}},
		{nil, []string{"MYSQL_USER", "u", "MYSQL_PASSWD", secret}, []string{"MYSQL_USER"}},
		{map[string]string{"host.mysql": "\nh:" + secret}, nil, []string{"@host.mysql:2" + without}},
		{map[string]string{"host.mysql": "h:u:" + secret}, []string{"MYSQL_USER", "x"},
			[]string{"@host.mysql:1"}},
		{map[string]string{"host.mysql": "h"}, []string{"MYSQL_USER", "x"},
			[]string{"MYSQL_USER" + without}},
		{nil, []string{"MYSQL_HOST", "h:" + secret}, []string{"MYSQL_HOST" + without}},
		{map[string]string{"host.mysql": "h:u:" + secret, "host.cntrl": "c"}, nil,
			[]string{"@host.mysql:1", "@host.mysql:1"}},
		{map[string]string{"host.mysql": "h:u:p", "host.cntrl": "c:" + secret}, nil,
			[]string{"@host.mysql:1", "@host.cntrl:1"}},
		{map[string]string{"mcdinfo": "domain d.example 0\nserver s\nmdahost 192.0.2.1\nport 1\n" +
			"use_ssl 0\ndatabase d\nuser " + secret + "\npass p\n"}, nil,
			[]string{"the default user" + without, "@mcdinfo:7"}},
	} {
		dir := controls(t, c.files)
		m := configured(t, dir, c.env...)
		var got []string
		for _, p := range currentConfig(t, m).pools {
			for _, number := range []uint16{1044, 1045, 1698, 1820, 1862, 3118, 3955, 4150, 4151} {
				err := p.describe(p.of.connectError("h:1", mysqlError(number)))
				if errorNumber(err) != number || strings.Contains(err.Error(), secret) {
					t.Errorf("%d: %v", number, err)
				}
				_, text, _ := strings.Cut(err.Error(), "access denied to ")
				text = strings.TrimPrefix(text, "the user of ")
				text = strings.ReplaceAll(text, dir+"/", "@")
				if number == 1044 {
					got = append(got, text)
				} else if text != got[len(got)-1] {
					t.Errorf("%d: %v", number, err)
				}
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v %v: %q, want %q", c.files, c.env, got, c.want)
		}
	}
}

// TestHideText: the user's name is in no error of MySQL, and what wraps an error stays.
func TestHideText(t *testing.T) {
	db := database{user: secret, from: "MYSQL_USER"}
	for number, text := range map[uint16]string{1045: "Access denied for user '%'@'h'",
		1142: "SELECT command denied to user '%'@'h' for table `t`", 1146: "Table 't' doesn't exist",
		1143: "SELECT Befehl nicht erlaubt für Benutzer '%'@'h'",
		1184: "Aborted connection 5 to db: 'd' user: '%' host: 'h' (init_connect command failed)",
		1203: "L'utilisateur % possède déjà plus de 'max_user_connections' connexions",
		1226: "User '%' has exceeded the 'max_user_connections' resource"} {
		text = strings.ReplaceAll(text, "%", secret)
		err := db.connectError("h:1", &mysql.MySQLError{Number: number, Message: text})
		again := db.hideText(fmt.Errorf("%w; %w", err, errors.New("another host")))
		if s := again.Error(); strings.Contains(s, secret) || !strings.Contains(s, "another host") ||
			!strings.Contains(s, "h:1") || errorNumber(again) != number {
			t.Errorf("%d: %s", number, s)
		}
	}
	same := &mysql.MySQLError{Number: 1049, Message: "Unknown database 'indimail'"}
	db = database{user: "indimail", name: "indimail"}
	if err := db.hideText(same); err != error(same) {
		t.Errorf("a database called like its user: %v", err)
	}
}

// TestAddressOnce: an error of connecting names the address, and only once.
func TestAddressOnce(t *testing.T) {
	const host, addr = "db.example", "db.example:3307"
	for _, err := range []error{errors.New("no TLS"),
		fmt.Errorf("dial tcp %s: connection refused", addr),
		&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host}}} {
		if got := (database{}).connectError(addr, err); strings.Count(got.Error(), host) != 1 {
			t.Errorf("%v", got)
		}
	}
}

// TestEmptyHost: behind the last comma of a list is not this machine.
func TestEmptyHost(t *testing.T) {
	m := configured(t, controls(t, nil), "MYSQL_HOST", "db.example,")
	_, err := currentConfig(t, m).pools[0].openHost(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error(err)
	}
}

// TestUnreadableFilesOfOthers: they are warnings, each of which names the file once.
func TestUnreadableFilesOfOthers(t *testing.T) {
	loop := func(path string) error { return os.Symlink(path, path) }
	directory := func(path string) error { return os.Mkdir(path, 0o700) }
	for name, put := range map[string]func(string) error{
		"smtproutes": loop, "qmtproutes": directory, "hostip": loop,
	} {
		dir := controls(t, nil)
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		m := configured(t, dir)
		var b bytes.Buffer
		m.Log = log.New(&b, "", 0)
		err := m.Reload(false)
		text := b.String()
		if err != nil || !strings.HasPrefix(text, "warning: ") || strings.Count(text, path) != 1 {
			t.Errorf("%v, %q", err, text)
		}
	}
}

// TestPoolsBySource: one account in two files is one pool.
func TestPoolsBySource(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"host.mysql": "h:u:p", "host.cntrl": "\nh:u:p"}))
	if pools := currentConfig(t, m).pools; len(pools) != 1 {
		t.Errorf("%d pools", len(pools))
	}
}

// TestTimeoutRead: a client takes of the file what number there is, else the default.
func TestTimeoutRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 4 * time.Second, "7": 7 * time.Second, "7s": 7 * time.Second, "\n9": 4 * time.Second,
		"0": 4 * time.Second, "-1": 4 * time.Second, "soon": 4 * time.Second,
		"99999999999999999999": 1 << 30 * time.Second,
	} {
		dir := controls(t, map[string]string{"timeoutread": text})
		got := environ{environment("CONTROLDIR", dir)}.timeout()
		if got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	dir := controls(t, map[string]string{"timeoutread/x": ""}) // a directory
	if got := (environ{environment("CONTROLDIR", dir)}).timeout(); got != 4*time.Second {
		t.Errorf("not readable: %v", got)
	}
}

// TestFIFOMode: an octal number counts whatever follows it, and no number is the default. A FIFO
// that its owner could not open is never made.
func TestFIFOMode(t *testing.T) {
	for text, want := range map[string]os.FileMode{
		"": 0o660, "0600": 0o600, "666": 0o666, "0660 # x": 0o660, "rw": 0o660, "-1": 0o660,
		"10640": 0o640,
	} {
		mode, err := environ{environment("FIFO_MODE", text)}.fifoMode()
		if mode != want || err != nil {
			t.Errorf("%q: %o, %v", text, mode, err)
		}
	}
	for _, text := range []string{"0", "0444", "060", "0200", "0888"} {
		dir := t.TempDir()
		getenv := environment("FIFO_MODE", text, "INFIFODIR", dir+"/run", "FIFOTMPDIR", dir)
		s := &Server{Resolver: echo, Getenv: getenv}
		err := s.Listen()
		if err == nil || !strings.HasPrefix(err.Error(), "FIFO_MODE: ") {
			t.Errorf("server, %s: %v", text, err)
		}
		_, err = (&Client{Getenv: getenv}).Resolve(context.Background(), Query{Type: TypeUser, Email: "u"})
		if err == nil || !strings.Contains(err.Error(), "FIFO_MODE: ") {
			t.Errorf("client, %s: %v", text, err)
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("%s: it made %q", text, left)
		}
	}
}

// TestUsualSocket: the first socket that is there, else the first of all.
func TestUsualSocket(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	defer func(before []string) { usualSockets = before }(usualSockets)
	usualSockets = []string{first, second, filepath.Join(dir, "third")}
	for _, c := range []struct{ make, want string }{{"", first}, {second, second}, {first, first}} {
		if c.make != "" {
			writeFile(t, c.make, "")
		}
		if network, got := (database{}).address("localhost"); got != c.want || network != "unix" {
			t.Errorf("%s %s, want %s", network, got, c.want)
		}
	}
}

// TestSMTPPort: a row for this machine comes before one for all, in whatever order they are.
func TestSMTPPort(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo, "hostip": "192.0.2.1"}))
	tabs := newTables(t, m)
	tabs.rows["hostcntrl"] = []tableRow{
		{"pw_name": "user", "pw_domain": "dist.example.net", "host": "mda"}}
	tabs.rows["host_table"] = []tableRow{{"host": "mda", "ipaddr": "192.0.2.26"}}
	row := func(host, domain, from, port string) tableRow {
		return tableRow{"host": host, "domain": domain, "src_host": from, "port": port}
	}
	own := row("mda", "dist.example.net", "192.0.2.1", "1025")
	all := row("mda", "dist.example.net", "*", "2025")
	for _, c := range []struct {
		rows []tableRow
		want string
	}{
		{nil, "25"},
		{[]tableRow{all}, "2025"},
		{[]tableRow{own, all}, "1025"},
		{[]tableRow{all, own}, "1025"},
		{[]tableRow{row("mda", "dist.example.net", "192.0.2.1", "0"), all}, "2025"},
		{[]tableRow{own.with("port", "0.00"), all.with("port", "2025.00")}, "2025"}, // of a view
		{[]tableRow{all.without("port")}, "25"},
		{[]tableRow{row("other", "dist.example.net", "*", "1")}, "25"},
		{[]tableRow{row("mda", "other.example", "*", "1")}, "25"},
		{[]tableRow{row("mda", "dist.example.net", "*", "x")}, ""},
	} {
		tabs.rows["smtp_port"] = c.rows
		got, err := Directory{m}.Host(context.Background(), "user@dist.example.net")
		want := "dist.example.net:192.0.2.26:" + c.want
		if c.want == "" && err == nil || c.want != "" && (got != want || err != nil) {
			t.Errorf("%v: %q, %v", c.rows, got, err)
		}
	}
}

// TestLinkReaderBound: so many reads can hang at once. The next is an error, and takes no thread.
func TestLinkReaderBound(t *testing.T) {
	l := &linkReader{reads: make(map[string]*linkRead)}
	for i := range maxLinks {
		l.reads[strconv.Itoa(i)] = &linkRead{start: time.Now(), done: make(chan struct{})}
	}
	dir := t.TempDir()
	_, err := l.read(context.Background(), dir)
	if err == nil || !strings.Contains(err.Error(), dir) || len(l.reads) != maxLinks {
		t.Errorf("%v, %d reads", err, len(l.reads))
	}
	delete(l.reads, "0")
	_, err = l.read(context.Background(), filepath.Join(dir, "none"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with room: %v", err)
	}
}
