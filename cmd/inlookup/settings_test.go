package main

// Variables and control files: which are read, which may be meant, and what the page for those who
// come from the C program says of each. And what -t advises.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/inlookup/inlookup"
)

var update = flag.Bool("update", false, "write the table of FROM-C.md")

const asBefore = "the same"

// cSettings are all variables, options, files and tables of settings of the C programs and of
// IndiMail's service, with what ours does with them. The page holds them as a table.
var cSettings = []struct{ names, does string }{
	{"INFIFO, INFIFODIR, FIFODIR", asBefore},
	{"FIFO_MODE", "the same, also for a FIFO that is there; a mode without rights for the owner is refused"},
	{"FIFOTMPDIR", "the same, for the Go client"},
	{"CONTROLDIR, SYSCONFDIR, ASSIGNDIR, MCDFILE", asBefore},
	{"INDIMAIL_DOMAIN, DEFAULT_DOMAIN", "the same; without either an address without a domain is absent, " +
		"since no domain is compiled in"},
	{"DEBUG", "the same, also set to nothing; as `-v`"},
	{"QUERY_CACHE", "the same, also set to nothing"},
	{"DOMAIN_LIMITS", "the same, also set to nothing"},
	{"USE_BTREE", "only `0` turns the cache off"},
	{"MAX_BTREE_COUNT", "the same, but the least recently used goes first"},
	{"RELAY_CLEAR_MINUTES", asBefore},
	{"REAL_DOMAINS, ALIAS_DOMAINS", asBefore},
	{"ROUTES", "`smtp` and `qmtp`; any other value counts as not set"},
	{"MYSQL_HOST, MYSQL_USER, MYSQL_PASSWD, MYSQL_DATABASE, MYSQL_SOCKET, MYSQL_VPORT", asBefore},
	{"CNTRL_HOST, CNTRL_USER, CNTRL_PASSWD, CNTRL_DATABASE, CNTRL_SOCKET, CNTRL_VPORT", asBefore},
	{"MASTER_HOST, MASTER_USER, MASTER_PASSWD, MASTER_DATABASE, MASTER_SOCKET, MASTER_VPORT",
		"the same, where host.master exists"},
	{"MYSQL_TABLE, MYSQL_INACTIVE_TABLE, RELAY_TABLE, CNTRL_TABLE", "the same; `database.table` too"},
	{"MYSQL_OPT_SSL_CA", "the same, and always checked: see \"The database\""},
	{"MYSQL_OPT_SSL_VERIFY_SERVER_CERT", "1: the name of the host is compared too"},
	{"MYSQL_OPT_RECONNECT", "not read, and not needed: the Go version always connects again"},
	{"MYSQL_READ_DEFAULT_FILE, MYSQL_READ_DEFAULT_GROUP",
		"not read: say in `host.mysql` or MYSQL_HOST what that file says; `inlookup -t` warns"},
	{"MYSQL_OPT_…, MYSQL_SET_…, MYSQL_INIT_COMMAND, MYSQL_SECURE_AUTH", "not read; `inlookup -t` warns"},
	{"MYSQL_HOME, MYSQL_GROUP_SUFFIX, MYSQL_TCP_PORT, MYSQL_UNIX_PORT",
		"not read: they are the C library's; `inlookup -t` warns"},
	{"TCPREMOTEIP, TCPCLIENT", asBefore},
	{"THREAD_COUNT", "by way of `-i`"},
	{"CACHE_COUNT", "by way of `-c`"},
	{"PASSWD_CACHE", "not read: it is for clients in C"},
	{"`-f`, `-v`", asBefore},
	{"`-i`", "the same: the digits count; without any there is a warning, and one instance"},
	{"`-c`", "the same, and with one instance too; any number of seconds"},
	{"host.mysql, host.cntrl", "the same; what is no use in a line is a warning"},
	{"host.master, table dbinfo", "read at the start, at SIGHUP and SIGINT; never written, and neither is mcdinfo"},
	{"mcdinfo", "the same; an entry that is not complete is an error of its own domain only"},
	{"hostip", asBefore},
	{"smtproutes, qmtproutes", "the same: the port of a line; what is no port is skipped with a warning"},
	{"timeoutread", "the same, for the Go client: the time for all of a question"},
	{"timeoutwrite", "not read"},
	{"defaultdomain", "not read: set DEFAULT_DOMAIN"},
	{"indimail.cnf", "not read, like any option file of the C library"},
	{"assign", asBefore},
	{"tables indimail, indibak, hostcntrl, host_table, lastauth", "read, never written"},
	{"tables valias, relay, vlimits, aliasdomain, smtp_port",
		"the same; one that is missing counts as empty and is not made"},
}

const fromC = "doc/FROM-C.md"

// The page has the table, with each setting once.
func TestFromCTable(t *testing.T) {
	table := "| variable, option or file | what the Go version does with it |\n|---|---|\n"
	for _, s := range cSettings {
		table += fmt.Sprintf("| %s | %s |\n", s.names, s.does)
	}
	b, err := os.ReadFile(fromC)
	if err != nil {
		t.Fatal(err)
	}
	const head, next = "## Every variable and file\n", "\n## "
	before, rest, ok := strings.Cut(string(b), head)
	_, after, ok2 := strings.Cut(rest, next)
	if !ok || !ok2 {
		t.Fatalf("%s has no section %q", fromC, head)
	}
	want := before + head + "\n" + table + next + after
	if *update {
		if err := os.WriteFile(fromC, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(b) != want {
		t.Errorf("%s has another table: go test -run %s ./cmd/inlookup -update", fromC, t.Name())
	}
}

// goOnly are the variables that the C programs do not know.
var goOnly = []string{"CACHE_NEGATIVE_TTL", "CACHE_SIZE", "CACHE_STALE", "CACHE_TTL", "NOTIFY_SOCKET",
	"NO_COLOR", "REPLYDIR", "TERM", "TMPDIR"}

// Each variable that is read is in the table, or is no variable of the C programs. What the table
// calls read is read. The manual has each.
func TestVariables(t *testing.T) {
	inTable := make(map[string]int)
	for _, s := range cSettings {
		for _, name := range regexp.MustCompile(`[A-Z_]{4,}(?:_…)?`).FindAllString(s.names, -1) {
			inTable[name]++
			notRead := strings.HasPrefix(s.does, "not read") || strings.HasPrefix(s.does, "by way of")
			if notRead == slices.Contains(variables, name) {
				t.Errorf("%s: %s; the list of what is read says otherwise", name, s.does)
			}
		}
	}
	page, err := os.ReadFile("inlookup.8")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range libraryVariables {
		if inTable[name] != 1 && !strings.HasPrefix(name, "MYSQL_OPT_") && !strings.HasPrefix(name, "MYSQL_SET_") {
			t.Errorf("%s is %d times in the table", name, inTable[name])
		}
	}
	for _, name := range variables {
		if n := inTable[name]; n != 1 && !slices.Contains(goOnly, name) || n != 0 && slices.Contains(goOnly, name) {
			t.Errorf("%s is %d times in the table", name, n)
		}
		if !regexp.MustCompile(`(?m)^\.(It )?Ev .*\b` + name + `\b`).Match(page) {
			t.Errorf("%s is not in inlookup.8", name)
		}
	}
	if !slices.IsSorted(variables) {
		t.Error("the list is not sorted")
	}
}

// Whatever the library reads is in the list.
func TestVariablesAreAll(t *testing.T) {
	dir := t.TempDir()
	read := make(map[string]bool)
	getenv := func(name string) string {
		read[name] = true
		if name == "CONTROLDIR" || name == "FIFOTMPDIR" || name == "INFIFODIR" {
			return dir
		}
		return ""
	}
	m := &inlookup.MySQL{Getenv: getenv}
	defer m.Close()
	if err := m.Reload(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m.Check(ctx, func(string, string, time.Duration, error) {})
	(&inlookup.Server{Getenv: getenv}).Settings()
	(&inlookup.Client{Getenv: getenv}).Resolve(ctx, inlookup.Query{Type: inlookup.TypeUser, Email: "u"})
	if len(read) < 30 {
		t.Errorf("read: %v", read)
	}
	for name := range read {
		if !slices.Contains(variables, name) {
			t.Errorf("%s is read, and not in the list", name)
		}
	}
}

func TestStrayVariables(t *testing.T) {
	for name, want := range map[string]string{
		"MYSQL_PASSWORD": "MYSQL_PASSWD", "MYSQL_PASS": "MYSQL_PASSWD", "MYSQL_PORT": "MYSQL_VPORT",
		"MYSQL_TABEL": "MYSQL_TABLE", "CACHE_TLL": "CACHE_TTL", "CACHE_NEGATIV_TTL": "CACHE_NEGATIVE_TTL",
		"CNTRL_DATABSE": "CNTRL_DATABASE", "MASTER_PASSWORD": "MASTER_PASSWD", "INFIFO_DIR": "INFIFODIR",
		"FIFOMODE": "FIFO_MODE", "FIFO_TMPDIR": "FIFOTMPDIR", "REPLY_DIR": "REPLYDIR",
		"MYSQL_OPT_SSL_CAFILE": "MYSQL_OPT_SSL_CA",
		"MYSQL_OPT_SSL_VERIFY": "MYSQL_OPT_SSL_VERIFY_SERVER_CERT", "MYSQL_DB": "MYSQL_DATABASE",
		"CACHE_NEG_TTL": "CACHE_NEGATIVE_TTL", "mysql_host": "MYSQL_HOST", "cache_tll": "CACHE_TTL",
		"MYSQLHOST": "MYSQL_HOST", "MYYSQL_HOST": "MYSQL_HOST", "CACHESIZE": "CACHE_SIZE",
		"RELPYDIR": "REPLYDIR", "CONTROL_DIR": "CONTROLDIR", "DOMAIN_LIMIT": "DOMAIN_LIMITS",
	} {
		strays := strayVariables([]string{name + "=x", "HOME=/"})
		if len(strays) != 1 || strays[0].library || strays[0].nearest != want {
			t.Errorf("%s: %+v, want %s", name, strays, want)
		}
	}
	for _, name := range slices.Concat(variables, otherVariables, []string{"HOME", "PASSWD_CACHE",
		"PGSQL_HOST", "TERMCAP", "TCPREMOTEPORT", "XDG_CACHE_HOME", "LOGDIR",
		"CONFDIR", "CONTROL", "REMOTEIP", "GODEBUG"}) {
		if strays := strayVariables([]string{name + "=x"}); len(strays) > 0 {
			t.Errorf("%s: %+v", name, strays)
		}
	}
	for _, name := range libraryVariables {
		strays := strayVariables([]string{name + "=x"})
		if len(strays) != 1 || !strays[0].library {
			t.Errorf("%s: %+v", name, strays)
		}
	}
}

// Each fault of connecting has advice of its own.
func TestRemedy(t *testing.T) {
	refused := func(number uint16) error { return &mysql.MySQLError{Number: number} }
	timeout := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	selfMade := &x509.Certificate{RawIssuer: []byte("x"), RawSubject: []byte("x")}
	for _, c := range []struct {
		err     error
		verdict verdict
		advice  string
	}{
		{refused(1045), wrong, "MYSQL_PASSWD"},
		{refused(1045), wrong, "requires TLS"},
		{refused(1820), wrong, "has expired"},
		{refused(1862), wrong, "has expired"},
		{refused(3118), wrong, "ACCOUNT UNLOCK"},
		{refused(4151), wrong, "ACCOUNT UNLOCK"},
		{refused(3955), wrong, "FLUSH PRIVILEGES"},
		{refused(4150), wrong, "FLUSH PRIVILEGES"},
		{refused(1251), wrong, "plug-in"},
		{refused(1524), wrong, "plug-in"},
		{refused(1040), temporary, "max_connections"},
		{refused(1047), temporary, "not ready"},
		{refused(1053), temporary, "log of MySQL"},
		{refused(1129), temporary, "FLUSH HOSTS"},
		{refused(1102), wrong, "fix its name in MYSQL_DATABASE"},
		{refused(1103), wrong, "MYSQL_TABLE"},
		{refused(1142), wrong, "fix its name in MYSQL_TABLE"},
		{refused(1203), temporary, "max_user_connections"},
		{refused(1226), temporary, "max_user_connections"},
		{refused(1449), wrong, "fix the view"},
		{refused(1698), wrong, "by unix_socket, give it a password"},
		{refused(1969), temporary, "table locked"},
		{refused(3024), temporary, "table locked"},
		{errors.New("MYSQL_OPT_SSL_CA: no certificates in /ca"), wrong, "name a file"},
		{mysql.ErrUnknownPlugin, wrong, "plug-in"},
		{mysql.ErrCleartextPassword, wrong, "plug-in"},
		{mysql.ErrOldPassword, wrong, "plug-in"},
		{mysql.ErrNoTLS, wrong, "remove ssl from the control file (in mcdinfo: use_ssl 0)"},
		{refused(3159), wrong, "of the control file (in mcdinfo: use_ssl 1)"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, wrong, "ECDHE"},
		{&net.DNSError{IsNotFound: true}, temporary, "name of the host"},
		{&net.DNSError{IsTimeout: true}, temporary, "name of the host"},
		{timeout, temporary, "silent"},
		{context.DeadlineExceeded, temporary, "no MySQL?"},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, temporary, "is MySQL running"},
		{errors.New("tls: server selected unsupported protocol version 301"), wrong, "TLS 1.2 or later"},
		{x509.CertificateInvalidError{Reason: x509.Expired}, wrong, "has not expired"},
		{&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired},
			UnverifiedCertificates: []*x509.Certificate{selfMade}}, wrong, "has not expired"},
		{x509.HostnameError{Certificate: new(x509.Certificate)}, wrong, "unset MYSQL_OPT_SSL_VERIFY_SERVER_CERT"},
		{x509.UnknownAuthorityError{}, wrong, "name the file of its CA"},
		{x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}, wrong, "another certificate"},
		{fmt.Errorf("(possibly because of %q)", x509.InsecureAlgorithmError(x509.SHA1WithRSA)), wrong,
			"signed with SHA-256"},
		{fmt.Errorf("(possibly because of %q)", x509.ConstraintViolationError{}), wrong,
			"says that it is one"},
		{errors.New("tls: failed to parse certificate from server: x509: negative serial number"),
			wrong, "another certificate"},
		{errors.New("tls: invalid signature by the server certificate: crypto/rsa: 768-bit keys"),
			wrong, "2048 bits"},
		{x509.UnknownAuthorityError{Cert: selfMade}, wrong, "made its certificate itself"},
		{&tls.CertificateVerificationError{UnverifiedCertificates: []*x509.Certificate{selfMade},
			Err: x509.HostnameError{}}, wrong, "made its certificate itself"},
		{fmt.Errorf("table relay: %w", inlookup.ErrNoTable), warning, "nothing to do"},
	} {
		v, advice := remedy(fmt.Errorf("database d on h: %w", c.err))
		if v != c.verdict || !strings.Contains(advice, c.advice) {
			t.Errorf("%v: %s, %s; want %s, %s", c.err, v, advice, c.verdict, c.advice)
		}
	}
}

func TestParseSizeAndDuration(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0": -1, "5": 5, "64K": 64 << 10, "64kb": 64 << 10,
		" 2 MiB ": 2 << 20, "1G": 1 << 30} {
		if n, ok := parseSize(text); n != want || !ok {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"x", "-1", "1e3", "5T", "64X", "9999999G", "99999999999999999999"} {
		if n, ok := parseSize(text); n != 0 || ok {
			t.Errorf("%q: %d", text, n)
		}
	}
	for text, want := range map[string]time.Duration{"": 0, "0": -1, "0s": -1, "90": 90 * time.Second,
		"10m": 10 * time.Minute, " 5 ": 5 * time.Second} {
		if d, ok := parseDuration(text); d != want || !ok {
			t.Errorf("%q: %v, %v", text, d, ok)
		}
	}
	for _, text := range []string{"x", "-1", "-1s", "10min", "18446744074", "3000000h"} {
		if d, ok := parseDuration(text); d != 0 || ok {
			t.Errorf("%q: %v", text, d)
		}
	}
}
