package systemtest

// The MariaDB that tests share, and what they do to one; a gate, which passes on
// as much of what it says as a test wants; a fake, which notes who comes.

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// visits lists who came to the fakes of a test: "fake user password database".
type visits struct {
	mu   sync.Mutex
	list []string
}

func (v *visits) add(visit string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.list, visit) {
		v.list = append(v.list, visit)
	}
}

func (v *visits) String() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return strings.Join(v.list, ", ")
}

func (v *visits) reset() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = nil
}

// A fake is a MySQL server that notes who comes and refuses everybody. It offers TLS.
type fake struct {
	name   string
	seen   *visits
	broken bool        // hang up at once, and note nobody
	tls    *tls.Config // nil: hang up when the client wants TLS
}

// listen serves until the test ends, and returns the address.
func (f fake) listen(t *testing.T, network, address string) (net.Addr, error) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return l.Addr(), nil
}

// Capabilities of client and server, as the protocol numbers them.
const (
	capConnectWithDB = 0x8
	capSSL           = 0x800
	capabilities     = 0x1 | capConnectWithDB | 0x200 | capSSL | 0x2000 | 0x8000 | 0x80000
)

const scramble = "abcdefghijklmnopqrst"

func (f fake) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if f.broken {
		return
	}
	greeting := append([]byte{10}, "8.0.0-fake\x00\x01\x00\x00\x00"+scramble[:8]+"\x00"...)
	greeting = binary.LittleEndian.AppendUint16(greeting, capabilities&0xffff)
	greeting = append(greeting, 45, 2, 0)
	greeting = binary.LittleEndian.AppendUint16(greeting, capabilities>>16)
	greeting = append(greeting, byte(len(scramble)+1))
	greeting = append(greeting, make([]byte, 10)...)
	greeting = append(greeting, scramble[8:]+"\x00mysql_native_password\x00"...)
	if writePacket(conn, 0, greeting) != nil {
		return
	}
	login, err := readPacket(conn)
	if err != nil || len(login) < 32 {
		return
	}
	flags := binary.LittleEndian.Uint32(login)
	if flags&capSSL != 0 {
		f.secure(conn)
		return
	}
	f.seen.add(f.name + " " + account41(login[32:], flags))
	writePacket(conn, 2, append([]byte{0xff, 0x15, 0x04}, "#28000Access denied"...)) // 1045
}

// secure notes the version of TLS that the client takes, or that it takes none.
func (f fake) secure(conn net.Conn) {
	if f.tls == nil {
		f.seen.add(f.name + " TLS")
		return
	}
	secure := tls.Server(conn, f.tls)
	if err := secure.Handshake(); err != nil {
		f.seen.add(f.name + " no TLS")
		return
	}
	f.seen.add(f.name + " " + tls.VersionName(secure.ConnectionState().Version))
}

// account41 returns user, password and database of a login.
func account41(login []byte, flags uint32) string {
	user, rest, _ := bytes.Cut(login, []byte{0})
	if len(rest) == 0 || len(rest) <= int(rest[0]) {
		return "malformed"
	}
	proof, rest := rest[1:1+rest[0]], rest[1+rest[0]:]
	database := ""
	if flags&capConnectWithDB != 0 {
		name, _, _ := bytes.Cut(rest, []byte{0})
		database = string(name)
	}
	return string(user) + " " + passwordOf(proof) + " " + database
}

// passwordOf finds out which of the tests' passwords was meant.
func passwordOf(proof []byte) string {
	if len(proof) == 0 {
		return "none"
	}
	for _, password := range []string{"secret", "other"} {
		once := sha1.Sum([]byte(password))
		twice := sha1.Sum(once[:])
		mask := sha1.Sum(append([]byte(scramble), twice[:]...))
		for i := range mask {
			mask[i] ^= once[i]
		}
		if bytes.Equal(mask[:], proof) {
			return password
		}
	}
	return "unknown"
}

func writePacket(w io.Writer, number byte, payload []byte) error {
	size := len(payload)
	header := []byte{byte(size), byte(size >> 8), byte(size >> 16), number}
	_, err := w.Write(append(header, payload...))
	return err
}

func readPacket(r io.Reader) ([]byte, error) {
	header := make([]byte, 4)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	payload := make([]byte, size)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

// shared is the MariaDB of all tests that neither stop it nor change golden rows for good.
var shared sharedDB

type sharedDB struct {
	once sync.Once
	dir  string
	db   *mariadb.DB
	err  error
}

func (s *sharedDB) start(golden string) {
	if s.dir, s.err = os.MkdirTemp("", "inlookup"); s.err != nil {
		return
	}
	s.db, s.err = mariadb.StartWith(context.Background(), s.dir, mariadbtest.Small...)
	if s.err != nil {
		return
	}
	s.err = errors.Join(s.db.Exec(mariadb.Schema), s.db.Load(filepath.Join(golden, "data.sql")))
}

func (s *sharedDB) stop() {
	if s.db != nil {
		s.db.Stop()
	}
}

// database returns the shared MariaDB with the golden rows.
func database(t testing.TB) *mariadb.DB {
	t.Helper()
	golden := mariadbtest.Golden(t)
	shared.once.Do(func() { shared.start(golden) })
	if errors.Is(shared.err, mariadb.ErrNotInstalled) {
		testmain.Missing(t, shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.db
}

// A counter reads MariaDB's counters of what it was sent, over one connection of its own.
type counter struct {
	t    testing.TB
	conn *sql.Conn
}

func newCounter(t testing.TB, db *mariadb.DB) *counter {
	t.Helper()
	conn, err := db.SQL().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &counter{t, conn}
}

func (c *counter) read(name string) (n int) {
	c.t.Helper()
	if err := c.conn.QueryRowContext(c.t.Context(), "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(new(string), &n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// selects returns how many SELECTs MariaDB has executed. Its own query is a SHOW, which is none.
func (c *counter) selects() int { return c.read("Com_select") }

// questions returns how many statements of any kind it has executed, its own query not counted.
func (c *counter) questions() func() int {
	first := c.read("Questions")
	return func() int { return c.read("Questions") - first - 1 }
}

// mustExec changes rows, and changes them back when the test ends.
func mustExec(t testing.TB, db *mariadb.DB, script, undo string) {
	t.Helper()
	if err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
	if undo != "" {
		t.Cleanup(func() {
			if err := db.Exec(undo); err != nil {
				t.Error(err)
			}
		})
	}
}

// addUser adds name@domain with that password.
func addUser(t testing.TB, db *mariadb.DB, name, domain, passwd string) {
	t.Helper()
	if _, err := db.SQL().Exec("INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)"+
		" VALUES (?,?,?,1,0,'A User','/home/mail/user','NOQUOTA')", name, domain, passwd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.SQL().Exec("DELETE FROM indimail WHERE pw_name=? AND pw_domain=?", name, domain) })
}

func setPasswd(t testing.TB, db *mariadb.DB, name, domain, passwd string) {
	t.Helper()
	if _, err := db.SQL().Exec("UPDATE indimail SET pw_passwd=? WHERE pw_name=? AND pw_domain=?", passwd, name, domain); err != nil {
		t.Fatal(err)
	}
}

// lastLogin has user@example.com log in.
func lastLogin(t testing.TB, db *mariadb.DB) {
	t.Helper()
	mustExec(t, db, "INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos) VALUES "+
		"('user','example.com','imap','192.0.2.10',1,'')", "DELETE FROM lastauth")
}

// A weather is what the gate makes of what the database says.
type weather struct {
	pass func(conn int) int // so many bytes of it reach us over the connection with that number, from 0; nil: all
	hang bool               // then comes silence, else the end
	drip time.Duration      // between bytes
}

// A gate stands between us and the database.
type gate struct {
	t       testing.TB
	addr    string
	to      string
	weather atomic.Pointer[weather]

	mu     sync.Mutex   // guards what follows
	open   net.Listener // nil: closed
	conns  []net.Conn
	number int
	said   [][]byte // by the database, over each connection
}

// newGate opens one at addr, port 0 being a free one.
func newGate(t testing.TB, addr string, db *mariadb.DB) *gate {
	t.Helper()
	g := &gate{t: t, addr: addr, to: net.JoinHostPort("127.0.0.1", strconv.Itoa(db.Port))}
	g.weather.Store(&weather{})
	g.reopen()
	t.Cleanup(g.close)
	return g
}

func (g *gate) port() string { _, port, _ := net.SplitHostPort(g.addr); return port }

// came returns how many connections there have been.
func (g *gate) came() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.number
}

func (g *gate) reopen() {
	g.t.Helper()
	var l net.Listener
	eventually(g.t, "the gate's port is free again", func() (free bool) {
		var err error
		l, err = net.Listen("tcp", g.addr)
		return err == nil
	})
	g.mu.Lock()
	g.open, g.addr = l, l.Addr().String()
	g.mu.Unlock()
	go g.serve(l)
}

// close refuses connections and ends those that there are.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		return
	}
	g.open.Close()
	g.open = nil
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

func (g *gate) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.to)
		if err != nil {
			client.Close()
			continue
		}
		g.mu.Lock()
		if g.open != l { // closed since it was accepted
			g.mu.Unlock()
			client.Close()
			server.Close()
			continue
		}
		n := g.number
		g.number++
		g.conns, g.said = append(g.conns, client, server), append(g.said, nil)
		g.mu.Unlock()
		go g.relay(n, client.(*net.TCPConn), server)
	}
}

func (g *gate) relay(n int, client *net.TCPConn, server net.Conn) {
	gone := make(chan struct{})
	go func() {
		io.Copy(server, client)
		close(gone)
	}()
	defer server.Close()
	defer client.Close()
	if n%2 == 0 {
		client.SetLinger(0) // a reset; else an orderly end
	}
	buf := make([]byte, 32<<10)
	for sent := 0; ; {
		got, err := server.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:got]; len(b) > 0; {
			w, size := g.weather.Load(), len(b)
			if w.drip > 0 {
				time.Sleep(w.drip)
				size = 1
			}
			if w.pass != nil {
				size = min(size, w.pass(n)-sent)
			}
			if size <= 0 && w.hang {
				<-gone
			}
			if size <= 0 {
				return
			}
			g.mu.Lock()
			g.said[n] = append(g.said[n], b[:size]...) // before it is: who has the answer finds all of it here
			g.mu.Unlock()
			if _, err := client.Write(b[:size]); err != nil {
				return
			}
			sent, b = sent+size, b[size:]
		}
	}
}

// resolver asks over the gate, with nothing but the environment.
func (g *gate) resolver(host string) *inlookup.MySQL {
	s := newSite(g.t, nil)
	s.env["MYSQL_HOST"], s.env["MYSQL_VPORT"], s.env["MYSQL_PASSWD"] = host, g.port(), "secret"
	return s.resolver()
}

// An admin is one session of the administrator. It was there before any setting was made, so none
// holds for it.
type admin struct{ *sql.Conn }

func newAdmin(t *testing.T, db *mariadb.DB) admin {
	t.Helper()
	conn, err := db.SQL().Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	a := admin{conn}
	// It may change any row and table at once: who hinders it does so for longer than this.
	a.exec(t, "SET lock_wait_timeout=5, innodb_lock_wait_timeout=5")
	return a
}

func (a admin) exec(t *testing.T, script string) {
	t.Helper()
	// Not the test's context, which has ended when what is deferred or cleaned up runs.
	if _, err := a.ExecContext(context.Background(), script); err != nil {
		t.Errorf("%s: %v", script, err)
	}
}

// sessions returns how many connections user indimail has.
func (a admin) sessions(t *testing.T) (n int) {
	t.Helper()
	row := a.QueryRowContext(t.Context(),
		"SELECT COUNT(*) FROM information_schema.processlist WHERE user='indimail'")
	if err := row.Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// lockTables has another session lock these tables. The lock ends with unlock, or
// with the test.
func lockTables(t *testing.T, db *mariadb.DB, tables ...string) (unlock func()) {
	t.Helper()
	other := newAdmin(t, db)
	other.exec(t, "LOCK TABLES "+strings.Join(tables, " WRITE, ")+" WRITE")
	unlock = func() { other.exec(t, "UNLOCK TABLES") }
	t.Cleanup(unlock)
	return unlock
}

func execute(t testing.TB, db *mariadb.DB, script string) {
	t.Helper()
	if err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

// tables are those that the seven questions read.
var tables = []string{
	"indimail", "indibak", "relay", "valias", "vlimits",
	"hostcntrl", "host_table", "smtp_port", "aliasdomain",
}

// connections returns the numbers of the connections that user has to db.
func connections(t *testing.T, db *mariadb.DB, user string) (ids []int) {
	t.Helper()
	rows, err := db.SQL().Query("SELECT id FROM information_schema.processlist WHERE user=? ORDER BY id", user)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// installed returns the path of a file of the installation.
func installed(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(mariadbtest.Golden(t), "installation", name)
}

// loadInstallation makes the tables anew and fills them with the installation's rows. It undoes
// whatever a test did to tables, and stamps the relay rows with the time of now.
func loadInstallation(t testing.TB, db *mariadb.DB) {
	t.Helper()
	// DROP DATABASE leaves its session without a database, and only that session.
	const anew = "DROP DATABASE indimail; CREATE DATABASE indimail; USE indimail;"
	if err := db.Exec(anew + mariadb.Schema); err != nil {
		t.Fatal(err)
	}
	if err := db.Load(installed(t, "data.sql")); err != nil {
		t.Fatal(err)
	}
}

// installationDB returns a MariaDB of the test's own with the installation's rows.
func installationDB(t testing.TB, options ...string) *mariadb.DB {
	t.Helper()
	db := mariadbtest.ForTest(t, options...)
	loadInstallation(t, db)
	return db
}
