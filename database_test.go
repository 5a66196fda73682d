package inlookup

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql/driver"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// A fakeDriver is a database that answers SELECTs by a function.
type fakeDriver struct {
	connect func(ctx context.Context) error // nil: always works
	stale   func(number int32) bool         // the connection is closed; nil: none is
	query   func(ctx context.Context, text string) (columns []string, rows [][]driver.Value, err error)
	args    func(args []driver.NamedValue) // gets those of the next query; nil: nobody does
	close   func()                         // closes a connection; nil: at once
	tried   atomic.Int32                   // attempts to connect
	opened  atomic.Int32
	closed  atomic.Int32
	ended   atomic.Int32 // rows that were closed
}

func (d *fakeDriver) Driver() driver.Driver { return nil }

func (d *fakeDriver) Connect(ctx context.Context) (driver.Conn, error) {
	d.tried.Add(1)
	if d.connect != nil {
		if err := d.connect(ctx); err != nil {
			return nil, err
		}
	}
	return fakeConn{d, d.opened.Add(1)}, nil
}

type fakeConn struct {
	d      *fakeDriver
	number int32 // of the connections opened, from 1
}

func (c fakeConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not prepared") }
func (c fakeConn) Begin() (driver.Tx, error)           { return nil, errors.New("no transactions") }

func (c fakeConn) Close() error {
	if c.d.close != nil {
		c.d.close()
	}
	c.d.closed.Add(1)
	return nil
}

func (c fakeConn) ResetSession(context.Context) error {
	if c.d.stale != nil && c.d.stale(c.number) {
		return driver.ErrBadConn
	}
	return nil
}

func (c fakeConn) QueryContext(
	ctx context.Context, text string, args []driver.NamedValue,
) (driver.Rows, error) {
	if c.d.args != nil {
		c.d.args(args)
	}
	columns, rows, err := c.d.query(ctx, text)
	return &fakeRows{c.d, columns, rows}, err
}

func (c fakeConn) ExecContext(
	context.Context, string, []driver.NamedValue,
) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

type fakeRows struct {
	d       *fakeDriver
	columns []string
	rows    [][]driver.Value
}

func (r *fakeRows) Columns() []string { return r.columns }

func (r *fakeRows) Close() error {
	r.d.ended.Add(1)
	return nil
}

func (r *fakeRows) Next(to []driver.Value) error {
	if len(r.rows) == 0 {
		return io.EOF
	}
	copy(to, r.rows[0])
	r.rows = r.rows[1:]
	return nil
}

// use puts d in the place of p's database.
func (d *fakeDriver) use(p *pool) {
	p.open = func(ctx context.Context, host string) (driver.Conn, error) {
		return d.Connect(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropIdle(time.Now())
}

func newFakePool(d *fakeDriver, l *log.Logger) *pool {
	p := newPool(database{name: "indimail", hosts: "db.example"}, &config{log: l})
	d.use(p)
	return p
}

func one(context.Context, string) ([]string, [][]driver.Value, error) {
	return []string{"n"}, [][]driver.Value{{"1"}}, nil
}

func mysqlError(number uint16) error {
	return &mysql.MySQLError{Number: number, Message: "by the name of " + secret}
}

// --- Connecting.

func TestAddress(t *testing.T) {
	usual := "unix " + usualSocket()
	for _, c := range []struct{ host, socket, port, want string }{
		{"localhost", "", "", usual},
		{"localhost", "/s", "", "unix /s"},
		{"localhost", "/s", "3307", "unix /s"},
		{"localhost", "", "3307", "tcp localhost:3307"},
		{"127.0.0.1", "", "", "tcp 127.0.0.1:3306"},
		{"127.0.0.1", "/s", "", "unix /s"},
		{"::1", "/s", "", "unix /s"},
		{"[::1]", "/s", "", "unix /s"},
		{"[::1]", "", "", "tcp [::1]:3306"},
		{"::1", "", "3307", "tcp [::1]:3307"},
		{"192.0.2.1", "/s", "", "tcp 192.0.2.1:3306"},
		{"db.example", "/s", "3307", "tcp db.example:3307"},
		{"db.example", "", "0", "tcp db.example:3306"},
		{"db.example", "", "03307", "tcp db.example:3307"},
	} {
		network, addr := database{socket: c.socket, port: c.port}.address(c.host)
		if got := network + " " + addr; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestConnectTriesAllHosts: each host has its share of the time.
func TestConnectTriesAllHosts(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	_, port, _ := net.SplitHostPort(hung.Addr().String())
	closing, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		skip(t, err)
	}
	defer closing.Close()
	go func() {
		for {
			conn, err := closing.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	p := newPool(database{hosts: "127.0.0.1, 127.0.0.2", port: port}, &config{})
	defer p.close()
	_, err = p.dial(500 * time.Millisecond)
	for _, want := range []string{"127.0.0.1:" + port, "127.0.0.2:" + port} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s too", err, want)
		}
	}
	env := environ{environment("MYSQL_OPT_SSL_CA", "/nowhere/ca.pem")}
	p = newPool(database{hosts: "h", port: port, tls: true}, &config{environ: env})
	defer p.close()
	_, err = p.dial(time.Second)
	if !strings.Contains(fmt.Sprint(err), "MYSQL_OPT_SSL_CA") {
		t.Errorf("no CA: %v", err)
	}
}

// TestLastGoodHostIsTriedFirst: each time, and the others only if it fails, in their order.
func TestLastGoodHostIsTriedFirst(t *testing.T) {
	p := newPool(database{hosts: "a, b, c"}, &config{})
	defer p.close()
	d := new(fakeDriver)
	var good, tried string
	p.open = func(ctx context.Context, host string) (driver.Conn, error) {
		tried += host
		if host != good {
			return nil, errors.New("connection refused")
		}
		return d.Connect(ctx)
	}
	for _, c := range []struct{ good, tried string }{
		{"b", "ab"}, {"b", "b"}, {"b", "b"}, {"c", "bc"}, {"c", "c"}, {"b", "cab"}, {"b", "b"},
	} {
		good, tried = c.good, ""
		if _, err := p.dial(time.Second); err != nil || tried != c.tried {
			t.Errorf("%s is good: tried %q, want %q: %v", good, tried, c.tried, err)
		}
	}
}

// An unready connection refuses every statement, as a Galera node does that is not ready.
type unready struct{ fakeConn }

func (c unready) ExecContext(
	context.Context, string, []driver.NamedValue,
) (driver.Result, error) {
	return nil, mysqlError(1047)
}

// TestConnectionThatRefusesIsClosed: a server that is not ready must not collect connections.
func TestConnectionThatRefusesIsClosed(t *testing.T) {
	d := new(fakeDriver)
	err := setSession(context.Background(), unready{fakeConn{d, 1}})
	if errorNumber(err) != 1047 || d.closed.Load() != 1 {
		t.Errorf("%v, closed %d times", err, d.closed.Load())
	}
}

// certificate returns a certificate signed by parent, or by itself.
func certificate(t *testing.T, name string, parent *tls.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  parent == nil || strings.HasSuffix(name, " ca"),
		BasicConstraintsValid: true,
	}
	if strings.Contains(name, ".") {
		template.DNSNames = []string{name}
	}
	signer, signerKey := template, any(key)
	if parent != nil {
		signer, signerKey = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// handshake returns the client's error.
func handshake(t *testing.T, server *tls.Certificate, version uint16, config *tls.Config) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		settings := &tls.Config{Certificates: []tls.Certificate{*server}, MaxVersion: version}
		tls.Server(conn, settings).Handshake()
		io.Copy(io.Discard, conn)
		conn.Close()
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return tls.Client(conn, config).Handshake()
}

// TestTLS: with a CA the chain counts, and the name only on demand.
func TestTLS(t *testing.T) {
	ca, other := certificate(t, "ca", nil), certificate(t, "other ca", nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate[0]}
	writeFile(t, path, string(pem.EncodeToMemory(block)))
	nameless := certificate(t, "MariaDB server", ca)
	named := certificate(t, "db.example", ca)
	between := certificate(t, "intermediate ca", ca)
	chained := certificate(t, "MariaDB server", between)
	chained.Certificate = append(chained.Certificate, between.Certificate[0])
	const verify = "MYSQL_OPT_SSL_VERIFY_SERVER_CERT"
	for _, c := range []struct {
		name    string
		server  *tls.Certificate
		version uint16
		env     []string
		ok      bool
	}{
		{"without a name", nameless, 0, []string{"MYSQL_OPT_SSL_CA", path}, true},
		{"any name", named, 0, []string{"MYSQL_OPT_SSL_CA", path}, true},
		{"an intermediate CA", chained, 0, []string{"MYSQL_OPT_SSL_CA", path}, true},
		{"another CA", certificate(t, "db.example", other), 0, []string{"MYSQL_OPT_SSL_CA", path}, false},
		{"self-signed", certificate(t, "db.example", nil), 0, []string{"MYSQL_OPT_SSL_CA", path}, false},
		{"name checked", named, 0, []string{"MYSQL_OPT_SSL_CA", path, verify, "1"}, true},
		{"name missing", nameless, 0, []string{"MYSQL_OPT_SSL_CA", path, verify, "1"}, false},
		{"not checked", nameless, 0, []string{"MYSQL_OPT_SSL_CA", path, verify, "0"}, true},
		{"another 0", nameless, 0, []string{"MYSQL_OPT_SSL_CA", path, verify, "00\r"}, true},
		{"a word", nameless, 0, []string{"MYSQL_OPT_SSL_CA", path, verify, "yes"}, false},
		{"the system's roots", named, 0, nil, false},
		{"TLS 1.2", named, tls.VersionTLS12, []string{"MYSQL_OPT_SSL_CA", path}, true},
		{"TLS 1.1", named, tls.VersionTLS11, []string{"MYSQL_OPT_SSL_CA", path}, false},
	} {
		config, err := tlsConfig(environ{environment(c.env...)}, "db.example", t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		if err := handshake(t, c.server, c.version, config); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	writeFile(t, path, "no certificate")
	for _, ca := range []string{path, path + "-none"} {
		_, err := tlsConfig(environ{environment("MYSQL_OPT_SSL_CA", ca)}, "h", t.Logf)
		if err == nil || !strings.Contains(err.Error(), "MYSQL_OPT_SSL_CA") ||
			!strings.Contains(err.Error(), ca) {
			t.Errorf("%s: %v", ca, err)
		}
	}
}

// TestCiphersOfOldServers: those of old MySQL servers are offered too, and no weaker ones.
func TestCiphersOfOldServers(t *testing.T) {
	config, err := tlsConfig(environ{environment()}, "db.example", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: true,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA:          true,
		tls.TLS_RSA_WITH_RC4_128_SHA:              false,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA:         false,
	} {
		if slices.Contains(config.CipherSuites, suite) != want {
			t.Errorf("%s: want %t", tls.CipherSuiteName(suite), want)
		}
	}
}

// --- What rows mean.

// A tableRow has its values by column. A column that is missing is NULL.
type tableRow map[string]string

// A tables is a database without conditions: each SELECT finds all rows of its table. So it also
// shows that rows of others are not taken.
type tables struct {
	rows    map[string][]tableRow
	missing map[string]bool
}

// newTables puts one in the place of all of m's databases.
func newTables(t *testing.T, m *MySQL) *tables {
	tabs := &tables{rows: make(map[string][]tableRow), missing: make(map[string]bool)}
	for _, p := range currentConfig(t, m).pools {
		(&fakeDriver{query: tabs.query}).use(p)
	}
	return tabs
}

var selectText = regexp.MustCompile(
	`SELECT (?:/\*[^*]*\*/ )?([a-z_,]+) FROM ` + "`?([a-z_]+)`?(?: WHERE |$)")

func (tabs *tables) query(
	_ context.Context, text string,
) (columns []string, rows [][]driver.Value, err error) {
	if text == "SELECT 1" {
		return []string{"1"}, [][]driver.Value{{int64(1)}}, nil
	}
	match := selectText.FindStringSubmatch(text)
	if match == nil {
		return nil, nil, fmt.Errorf("this database understands only plain SELECTs, not %s", text)
	}
	if tabs.missing[match[2]] {
		return nil, nil, mysqlError(1146)
	}
	columns = strings.Split(match[1], ",")
	for _, r := range tabs.rows[match[2]] {
		values := make([]driver.Value, len(columns))
		for i, column := range columns {
			if value, ok := r[column]; ok {
				values[i] = value
			}
		}
		rows = append(rows, values)
	}
	return columns, rows, nil
}

func (r tableRow) with(changes ...string) tableRow {
	changed := make(tableRow)
	for column, value := range r {
		changed[column] = value
	}
	for i := 0; i < len(changes); i += 2 {
		changed[changes[i]] = changes[i+1]
	}
	return changed
}

func (r tableRow) without(column string) tableRow {
	changed := r.with()
	delete(changed, column)
	return changed
}

var plainUser = tableRow{"pw_name": "user", "pw_domain": "example.com", "pw_passwd": "hash",
	"pw_uid": "1", "pw_gid": "0", "pw_gecos": "A User", "pw_dir": "/home/user", "pw_shell": "NOQUOTA"}

// TestStatus: the active row, else the inactive one, else an alias.
func TestStatus(t *testing.T) {
	m := configured(t, t.TempDir())
	tabs := newTables(t, m)
	alias := tableRow{"alias": "user", "domain": "example.com", "valias_line": "&a@b"}
	stranger := plainUser.with("pw_name", "üser")
	for _, c := range []struct {
		name                      string
		active, inactive, aliases []tableRow
		want                      Status // unknown: an error
	}{
		{"nothing", nil, nil, nil, StatusAbsent},
		{"active", []tableRow{plainUser}, nil, nil, StatusActive},
		{"another case", []tableRow{plainUser.with("pw_name", "USER")}, nil, nil, StatusActive},
		{"active and the rest", []tableRow{plainUser}, []tableRow{plainUser}, []tableRow{alias},
			StatusActive},
		{"inactive", nil, []tableRow{plainUser}, []tableRow{alias}, StatusInactive},
		{"over quota", []tableRow{plainUser.with("pw_gid", "16")}, nil, nil, StatusOverQuota},
		{"other bits", []tableRow{plainUser.with("pw_gid", "15")}, nil, nil, StatusActive},
		{"alias", nil, nil, []tableRow{alias}, StatusAlias},
		{"others", []tableRow{stranger}, []tableRow{plainUser.with("pw_domain", "example.org")},
			[]tableRow{alias.with("alias", "users")}, StatusAbsent},
		{"behind others", []tableRow{stranger, plainUser}, nil, nil, StatusActive},
		{"NULL", []tableRow{plainUser.without("pw_gid")}, nil, nil, StatusActive},
		{"no number", []tableRow{plainUser.with("pw_gid", "x")}, nil, nil, StatusUnknown},
	} {
		tabs.rows = map[string][]tableRow{
			"indimail": c.active, "indibak": c.inactive, "valias": c.aliases,
		}
		got, err := Directory{m}.Status(context.Background(), "User@Example.com")
		if got != c.want || (err != nil) != (c.want == StatusUnknown) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "user@example.com") {
			t.Errorf("%s: %v does not name the user", c.name, err)
		}
	}
	tabs.rows = map[string][]tableRow{}
	tabs.missing["valias"] = true
	got, err := Directory{m}.Status(context.Background(), "u@d")
	if got != StatusAbsent || err != nil {
		t.Errorf("without valias: %v, %v", got, err)
	}
	tabs.missing["indibak"] = true
	if got, err := (Directory{m}).Status(context.Background(), "u@d"); err == nil {
		t.Errorf("without indibak: %v", got)
	}
}

func TestPasswdRows(t *testing.T) {
	m := configured(t, t.TempDir())
	tabs := newTables(t, m)
	plain := Passwd{"user@example.com", NewSecret("hash"), 1, 0, "A User", "/home/user", "NOQUOTA", false}
	inactive := plain
	inactive.Inactive = true
	scram := plain
	scram.Passwd = NewSecret("{SCRAM-SHA-256}1,s,k,v:a:b,hash")
	empty := Passwd{Email: "user@example.com", Passwd: NewSecret("hash")}
	bare := tableRow{"pw_name": "user", "pw_domain": "example.com", "pw_passwd": "hash"}
	for _, c := range []struct {
		name     string
		table    string
		row      tableRow
		want     Passwd
		notFound bool
	}{
		{"active", "indimail", plainUser, plain, false},
		{"inactive", "indibak", plainUser, inactive, false},
		{"SCRAM", "indimail", plainUser.with("scram", "{SCRAM-SHA-256}1,s,k,v:a:b"), scram, false},
		{"NULL is empty", "indimail", bare, empty, false},
		{"another user", "indimail", plainUser.with("pw_name", "üser"), Passwd{}, true},
		{"no password", "indimail", plainUser.without("pw_passwd"), Passwd{}, false},
		{"DECIMAL and DOUBLE", "indimail", plainUser.with("pw_uid", "1.00").with("pw_gid", "0e+00"),
			plain, false},
		{"uid", "indimail", plainUser.with("pw_uid", "x"), Passwd{}, false},
		{"gid", "indimail", plainUser.with("pw_gid", "x"), Passwd{}, false},
		{"too long", "indimail", plainUser.with("pw_gecos", strings.Repeat("x", 4096)), Passwd{}, false},
	} {
		tabs.rows = map[string][]tableRow{c.table: {c.row}}
		got, err := Directory{m}.Passwd(context.Background(), "User@Example.com")
		wantError := reflect.DeepEqual(c.want, Passwd{})
		if !reflect.DeepEqual(got, c.want) || (err != nil) != wantError {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
		if wantError && errors.Is(err, ErrNotFound) != c.notFound {
			t.Errorf("%s: %v", c.name, err)
		}
		if wantError && errors.Is(err, ErrUnavailable) == c.notFound {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestDomainLimits: with DOMAIN_LIMITS the gid carries flags of the domain's limits.
func TestDomainLimits(t *testing.T) {
	flags := map[string]int{
		"disable_passwordchanging": 0x01, "disable_pop": 0x02, "disable_webmail": 0x04,
		"disable_imap": 0x08, "disable_relay": 0x20, "disable_dialup": 0x40, "disable_smtp": 0x100,
	}
	for _, set := range []bool{false, true} {
		var env []string
		if set {
			env = []string{"DOMAIN_LIMITS", "1"}
		}
		m := configured(t, t.TempDir(), env...)
		tabs := newTables(t, m)
		gid := func(userGID string) int {
			t.Helper()
			tabs.rows["indimail"] = []tableRow{plainUser.with("pw_gid", userGID)}
			p, err := Directory{m}.Passwd(context.Background(), "user@example.com")
			if err != nil {
				t.Fatal(err)
			}
			return p.GID
		}
		for column, flag := range flags {
			row := tableRow{"domain": "example.com", column: "1"}
			own := tableRow{"domain": "user@example.com", "disable_smtp": "1", "disable_pop": "1"}
			tabs.rows["vlimits"] = []tableRow{own, row}
			if got := gid("16"); got != 16+bit(set)*flag {
				t.Errorf("%s, DOMAIN_LIMITS %v: gid %#x", column, set, got)
			}
			if got := gid("8192"); got != 8192 {
				t.Errorf("%s, exempt: gid %#x", column, got)
			}
		}
		tabs.missing["vlimits"] = true
		if got := gid("1"); got != 1 {
			t.Errorf("no limits: gid %#x", got)
		}
	}
}

func TestRelayRows(t *testing.T) {
	m := configured(t, t.TempDir(), "RELAY_CLEAR_MINUTES", "10")
	tabs := newTables(t, m)
	login := func(email, ip string, age time.Duration) tableRow {
		when := fmt.Sprint(time.Now().Add(-age).Unix())
		return tableRow{"email": email, "ipaddr": ip, "timestamp": when}
	}
	const email, ip = "user@example.com", "192.0.2.1"
	for _, c := range []struct {
		name   string
		logins []tableRow
		want   bool
	}{
		{"none", nil, false},
		{"just now", []tableRow{login(email, ip, 0)}, true},
		{"lately", []tableRow{login("USER@example.com", ip, 9*time.Minute)}, true},
		{"long ago", []tableRow{login(email, ip, 11*time.Minute)}, false},
		{"another user", []tableRow{login("user@example.com.au", ip, 0)}, false},
		{"another address", []tableRow{login(email, "192.0.2.10", 0)}, false},
		{"among others", []tableRow{
			login("x@y", ip, 0), login(email, ip, time.Hour), login(email, ip, 0)}, true},
		{"NULL", []tableRow{{"email": email, "ipaddr": ip}}, false},
		{"DECIMAL", []tableRow{{"email": email, "ipaddr": ip, "timestamp": "99999999999.500"}}, true},
		{"DOUBLE", []tableRow{{"email": email, "ipaddr": ip, "timestamp": "9.9999999999e+10"}}, true},
	} {
		tabs.rows = map[string][]tableRow{"indimail": {plainUser}, "relay": c.logins}
		got, err := Directory{m}.Relay(context.Background(), "User@example.com", ip)
		if got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		delete(tabs.rows, "indimail")
		if got, err := (Directory{m}).Relay(context.Background(), email, ip); got || err != nil {
			t.Errorf("%s, no such user: %v, %v", c.name, got, err)
		}
	}
	tabs.rows["indimail"] = []tableRow{plainUser}
	tabs.rows["relay"] = []tableRow{login(email, ip, 0).with("timestamp", "x")}
	if got, err := (Directory{m}).Relay(context.Background(), email, ip); got || err == nil {
		t.Errorf("a timestamp that is no number: %v, %v", got, err)
	}
	tabs.missing["relay"] = true
	if got, err := (Directory{m}).Relay(context.Background(), email, ip); got || err != nil {
		t.Errorf("no table: %v, %v", got, err)
	}
}

func TestAliasRows(t *testing.T) {
	m := configured(t, t.TempDir())
	tabs := newTables(t, m)
	for _, line := range []string{"&b@d", "|c", "", "&a@d"} {
		row := tableRow{"alias": "LIST", "domain": "example.com", "valias_line": line}
		tabs.rows["valias"] = append(tabs.rows["valias"], row, row.with("alias", "líst"))
	}
	got, err := Directory{m}.Alias(context.Background(), "list@example.com")
	if want := []string{"", "&a@d", "&b@d", "|c"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	got, err = Directory{m}.Alias(context.Background(), "other@example.com")
	if err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	tabs.rows["valias"][0]["valias_line"] = strings.Repeat("x", maxReply)
	got, err = Directory{m}.Alias(context.Background(), "list@example.com")
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrTooLong) {
		t.Errorf("lines that are too long: %q, %v", got, err)
	}
}

// TestAliasDomainInCapitals: the real domain gets small letters.
func TestAliasDomainInCapitals(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"host.cntrl": "localhost"}))
	tabs := newTables(t, m)
	tabs.rows["aliasdomain"] = []tableRow{{"alias": "Alias.example", "domain": "Example.com"}}
	got, err := Directory{m}.Domain(context.Background(), "alias.example")
	if got != "example.com" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLimitRows: the record of the address as asked, else of the address in the real domain, else
// of the real domain, else the defaults.
func TestLimitRows(t *testing.T) {
	central := controls(t, map[string]string{"host.cntrl": "localhost"})
	m := configured(t, central)
	tabs := newTables(t, m)
	record := func(name, quota string) tableRow { return tableRow{"domain": name, "diskquota": quota} }
	all := []tableRow{
		record("x", "9"), record("user@alias.example", "1"), record("user@example.com", "2"),
		record("alias.example", "8"), record("example.com", "3"),
	}
	tabs.rows["aliasdomain"] = []tableRow{{"alias": "alias.example", "domain": "Example.com"}}
	tabs.rows["indimail"] = []tableRow{plainUser}
	for i, want := range []struct {
		quota uint64
		typ   int16
	}{
		{1, LimitsOfUser}, {2, LimitsOfUser},
		{3, LimitsOfDomain}, {3, LimitsOfDomain}, {0, LimitsOfDomain},
	} {
		tabs.rows["vlimits"] = append([]tableRow{all[0]}, all[i+1:]...)
		if i == 4 {
			tabs.rows["vlimits"] = all[:1]
		}
		got, err := Directory{m}.Limits(context.Background(), "user@alias.example")
		if err != nil || got.DiskQuota != want.quota || got.LimitType != want.typ {
			t.Errorf("%d: %+v, %v, want %+v", i, got, err, want)
		}
		if got.MaxPopAccounts != -1 {
			t.Errorf("%d: NULL is %d", i, got.MaxPopAccounts)
		}
	}
	tabs.rows["vlimits"] = all
	for domain, want := range map[string]uint64{"alias.example": 8, "example.com": 3} {
		got, err := Directory{m}.Limits(context.Background(), domain)
		if err != nil || got.DiskQuota != want {
			t.Errorf("%s: %+v, %v", domain, got, err)
		}
	}
	tabs.rows["vlimits"] = all[4:]
	got, err := Directory{m}.Limits(context.Background(), "alias.example")
	if err != nil || got.DiskQuota != 3 {
		t.Errorf("the real domain's: %+v, %v", got, err)
	}
	for _, absent := range []string{"none.example", "nobody@example.com"} {
		if got, err := (Directory{m}).Limits(context.Background(), absent); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %+v, %v", absent, got, err)
		}
	}
	tabs.rows["vlimits"] = []tableRow{{"domain": "example.com", "maxaliases": "x"}}
	got, err = Directory{m}.Limits(context.Background(), "example.com")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("no number: %+v, %v", got, err)
	}
}

// TestLimitRecord: one column holds three fields, and a number may be beyond int64.
func TestLimitRecord(t *testing.T) {
	m := configured(t, t.TempDir())
	tabs := newTables(t, m)
	tabs.rows["vlimits"] = []tableRow{{
		"domain": "example.com", "perm_maillist": "227", "diskquota": "18446744073709551615",
		"maxaliases": "-1.00", "domain_expiry": "2e+09", "disable_smtp": "1", "perm_defaultquota": "7",
	}}
	got, err := Directory{m}.Limits(context.Background(), "example.com")
	want := Limits{DomainExpiry: 2000000000, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1,
		MaxForwards: -1, MaxAutoresponders: -1, MaxMailinglists: -1, DiskQuota: 1<<64 - 1,
		DisableSMTP: 1, PermMaillist: 3, PermMaillistUsers: 4, PermMaillistModerators: 3,
		PermDefaultQuota: 7, LimitType: LimitsOfDomain}
	if err != nil || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// TestDistributed: hostcntrl names the user's host, host_table its address, mcdinfo the store.
func TestDistributed(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": mcdinfo, "hostip": "192.0.2.1"})
	m := configured(t, dir)
	own := tableRow{"pw_name": "user", "pw_domain": "dist.example.net", "host": "mail2"}
	all := own.with("pw_name", "*", "host", "mail1")
	hosts := []tableRow{
		{"host": "mail1", "ipaddr": "192.0.2.26"}, {"host": "MAIL2", "ipaddr": "192.0.2.27"},
	}
	for _, c := range []struct {
		name         string
		users, hosts []tableRow
		want         string // the address of the store; "": absent; "error"
	}{
		{"own row", []tableRow{own}, hosts, "192.0.2.27"},
		{"own row first", []tableRow{own, all}, hosts, "192.0.2.27"},
		{"own row last", []tableRow{all, own}, hosts, "192.0.2.27"},
		{"row for all", []tableRow{all}, hosts, "192.0.2.26"},
		{"nobody", nil, hosts, ""},
		{"others", []tableRow{own.with("pw_name", "üser"), all.with("pw_domain", "d")}, hosts, ""},
		{"no host", []tableRow{own}, hosts[:1], "error"},
		{"no store", []tableRow{own}, []tableRow{{"host": "mail2", "ipaddr": "192.0.2.99"}}, "error"},
		{"store of another domain", []tableRow{own},
			[]tableRow{{"host": "mail2", "ipaddr": "192.0.2.25"}}, "error"},
		{"NULL", []tableRow{own.without("host")}, hosts, "error"},
	} {
		tabs := newTables(t, m)
		tabs.rows["hostcntrl"] = c.users
		tabs.rows["host_table"] = c.hosts
		port := tableRow{"host": "mail2", "domain": "dist.example.net", "src_host": "*", "port": "26"}
		tabs.rows["smtp_port"] = []tableRow{port.with("domain", "x", "port", "1"), port}
		const email = "user@dist.example.net"
		w, err := m.Locate(context.Background(), Query{Type: TypeUser, Email: email})
		got := w.MailStore
		if err != nil {
			got = "error"
		}
		if got != c.want || w.Distributed != (err == nil && got != "") {
			t.Errorf("%s: %+v, %v, want %s", c.name, w, err, c.want)
		}
		route, err := Directory{m}.Host(context.Background(), email)
		switch c.want {
		case "":
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %q, %v", c.name, route, err)
			}
		case "error":
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %q, %v", c.name, route, err)
			}
		default:
			port := map[string]string{"192.0.2.26": "25", "192.0.2.27": "26"}[c.want]
			if want := "dist.example.net:" + c.want + ":" + port; route != want || err != nil {
				t.Errorf("%s: %q, %v, want %s", c.name, route, err, want)
			}
		}
	}
}

// TestBrokenStore: a user of a distributed domain without a host may be in a store of which mcdinfo
// says too little.
func TestBrokenStore(t *testing.T) {
	more := "domain dist.example.net 1\nserver s\n"
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo + more}))
	newTables(t, m)
	for _, email := range []string{"user@dist.example.net", "dist.example.net"} {
		got, err := Directory{m}.Limits(context.Background(), email)
		known := email == "dist.example.net"
		if known != errors.Is(err, ErrNotFound) || known == errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %+v, %v", email, got, err)
		}
	}
	got, err := Directory{m}.Status(context.Background(), "user@example.com")
	if got != StatusAbsent || err != nil {
		t.Errorf("another domain: %v, %v", got, err)
	}
}

// TestAliasWithoutHost: an alias query for a user whose host is unknown finds no lines, as the C
// programs say.
func TestAliasWithoutHost(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}))
	tabs := newTables(t, m)
	user := tableRow{"pw_name": "user", "pw_domain": "dist.example.net", "host": "h"}
	tabs.rows["hostcntrl"] = []tableRow{user}
	got, err := Directory{m}.Alias(context.Background(), "user@dist.example.net")
	if err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := (Directory{m}).Status(context.Background(), "user@dist.example.net"); err == nil {
		t.Errorf("%v", got)
	}
}

// TestTableNames: the names of four tables are settings, and quoted.
func TestTableNames(t *testing.T) {
	m := configured(t, t.TempDir(), "MYSQL_TABLE", "users", "MYSQL_INACTIVE_TABLE", "old_users",
		"RELAY_TABLE", "logins")
	tabs := newTables(t, m)
	for _, table := range []string{"indimail", "indibak", "relay"} {
		tabs.missing[table] = true
	}
	tabs.rows["old_users"] = []tableRow{plainUser}
	got, err := Directory{m}.Status(context.Background(), "user@example.com")
	if got != StatusInactive || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	relay, err := Directory{m}.Relay(context.Background(), "user@example.com", "192.0.2.1")
	if relay || err != nil {
		t.Errorf("%v, %v", relay, err)
	}
	c := &config{environ: environ{environment("T", "a`b")}}
	if got := c.table("T", ""); got != "`a``b`" {
		t.Error(got)
	}
	m = configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}), "CNTRL_TABLE", "hosts")
	tabs = newTables(t, m)
	tabs.missing["hostcntrl"] = true
	tabs.rows["hosts"] = []tableRow{
		{"pw_name": "user", "pw_domain": "dist.example.net", "host": "mail1"}}
	tabs.rows["host_table"] = []tableRow{{"host": "mail1", "ipaddr": "192.0.2.26"}}
	route, err := Directory{m}.Host(context.Background(), "user@dist.example.net")
	if err != nil {
		t.Errorf("%q, %v", route, err)
	}
}

// TestUserError: an error names the database, and is never "absent".
func TestUserError(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"host.mysql": "db.example:u:p"}))
	for _, p := range currentConfig(t, m).pools {
		d := &fakeDriver{}
		d.query = func(context.Context, string) ([]string, [][]driver.Value, error) {
			return nil, nil, errors.New("the connection broke")
		}
		d.use(p)
	}
	for typ := TypeUser; typ <= TypeLimit; typ++ {
		a, err := m.Resolve(context.Background(), Query{typ, "user@example.com", "192.0.2.1"})
		if !a.isZero() || !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %q, %v", typ, a, err)
		}
		if !strings.Contains(fmt.Sprint(err), "indimail on db.example") {
			t.Errorf("%v: %v does not name the database", typ, err)
		}
	}
	if s := m.Stats(); s.Errors != 6 || s.Calls != 12 { // each was asked twice
		t.Errorf("%+v", s)
	}
}

// TestRecent: the addresses come in order, each once, in lower case.
func TestRecent(t *testing.T) {
	m := configured(t, t.TempDir())
	tabs := newTables(t, m)
	for _, user := range []string{"b", "A", "b"} {
		row := tableRow{"user": user, "domain": "Example.com"}
		tabs.rows["lastauth"] = append(tabs.rows["lastauth"], row)
	}
	got, err := m.Recent(context.Background(), time.Hour)
	want := []string{"b@example.com", "a@example.com"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCheck: each database says how each kind of question went.
func TestCheck(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": mcdinfo, "host.cntrl": "central.example"})
	m := configured(t, dir)
	tabs := newTables(t, m)
	tabs.missing["indimail"] = true
	failed := make(map[string]int)
	worked := make(map[string]int)
	say := func(database, what string, took time.Duration, err error) {
		if err == nil {
			worked[what]++
		} else {
			failed[what]++
		}
		if took < 0 || database == "" {
			t.Errorf("%s, %s: %v", database, what, took)
		}
	}
	if err := m.Check(context.Background(), say); err != nil {
		t.Fatal(err)
	}
	if failed["users"] != 3 || worked["aliases"] != 3 || worked["alias domains"] != 1 {
		t.Errorf("worked %v, failed %v", worked, failed)
	}
	if worked["distributed users"] != 1 || worked["ports"] != 1 {
		t.Errorf("worked %v, failed %v", worked, failed)
	}
	m = configured(t, t.TempDir()) // no cluster, so none of its tables
	newTables(t, m)
	clear(worked)
	if err := m.Check(context.Background(), say); err != nil {
		t.Fatal(err)
	}
	if len(worked) != 6 || worked["aliases"] != 1 {
		t.Errorf("without a cluster: %v", worked)
	}
}

// errorNumber returns the number of an error of MySQL, 0 if it is none.
func errorNumber(err error) uint16 {
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return refused.Number
	}
	return 0
}

// TestResolveMany: a batch answers what Resolve answers, or leaves it to Resolve: users without a
// row or with an odd one, names beyond ASCII, users of distributed domains, two rows of one name.
func TestResolveMany(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": mcdinfo, "host.cntrl": "central.example"})
	m := configured(t, dir, "DOMAIN_LIMITS", "1", "DEFAULT_DOMAIN", "example.com")
	tabs := newTables(t, m)
	user := func(name, domain string, changes ...string) {
		row := tableRow{"pw_name": name, "pw_domain": domain, "pw_passwd": "$5$" + name,
			"pw_uid": "1", "pw_gid": "0", "pw_gecos": name, "pw_dir": "/" + name, "pw_shell": "s"}
		tabs.rows["indimail"] = append(tabs.rows["indimail"], row.with(changes...))
	}
	user("user", "example.com")
	user("over", "Example.COM", "pw_gid", "16")
	user("free", "example.com", "pw_gid", "8192")
	user("user", "real.example")
	user("odd", "example.com", "pw_gid", "many")
	user("nouid", "example.com", "pw_uid", "x")
	user("twice", "example.com")
	user("TWICE", "example.com")
	user("jürgen", "example.com")
	user("user", "dist.example.net")
	user("user", "limits.example")
	tabs.rows["aliasdomain"] = []tableRow{{"alias": "alias.example", "domain": "real.example"}}
	tabs.rows["vlimits"] = []tableRow{
		{"domain": "example.com", "disable_pop": "1"}, {"domain": "limits.example", "disable_pop": "x"},
	}
	answered := []string{"user@example.com", "over@example.com", "free@example.com", "user",
		"user@real.example", "user@alias.example"}
	left := []string{"odd@example.com", "nouid@example.com", "twice@example.com", "jürgen@example.com",
		"user@dist.example.net", "nobody@example.com", "@example.com", "user@other.example",
		"user@limits.example"}
	var questions []Query
	for _, email := range append(slices.Clone(answered), left...) {
		questions = append(questions, Query{Type: TypePasswd, Email: email})
	}
	answers, err := m.ResolveMany(t.Context(), questions)
	if err != nil || len(answers) != len(questions) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, q := range questions {
		if isLeft := answers[i].isZero(); isLeft != (i >= len(answered)) {
			t.Errorf("%s: left to Resolve: %v", q.Email, isLeft)
		} else if want, err := m.Resolve(t.Context(), q); !isLeft && (err != nil || !answers[i].Equal(want)) {
			t.Errorf("%s: not the answer of Resolve (%v)", q.Email, err)
		}
	}
	if p, err := answers[0].Passwd(); err != nil || p.GID != 2 {
		t.Errorf("%+v, %v: want the flag of disable_pop", p, err)
	}
	tabs.missing["indimail"] = true
	if _, err := m.ResolveMany(t.Context(), questions); errorNumber(err) != 1146 {
		t.Errorf("no table: %v", err)
	}
}
