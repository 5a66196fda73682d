package systemtest

// TLS to the database, with the certificates that IndiMail makes: a common name and no other names.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// An authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its own certificate
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, file: filepath.Join(dir, name+".pem")}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key = newKey(t)
	writePEM(t, a.file, "CERTIFICATE", sign(t, a.cert, a, &a.key.PublicKey))
	return a
}

// issue writes a server's certificate and key. Without addresses it has a common name alone.
func (a *authority) issue(cert, key string, addresses ...net.IP) {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2),
		Subject:   pkix.Name{CommonName: "MariaDB_Server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: addresses}
	private := newKey(a.t)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	writePEM(a.t, key, "PRIVATE KEY", der)
	writePEM(a.t, cert, "CERTIFICATE", sign(a.t, template, a, &private.PublicKey))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template *x509.Certificate, by *authority, key *ecdsa.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A secureDB is a MariaDB that lets indimail in over TLS alone.
type secureDB struct {
	*mariadb.DB
	ours, other *authority
	cert, key   string
	fill        *strings.Replacer
}

func newSecureDB(t *testing.T) *secureDB {
	t.Helper()
	golden := mariadbtest.Golden(t)
	dir := t.TempDir()
	s := &secureDB{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	s.ours, s.other = newAuthority(t, dir, "ours"), newAuthority(t, dir, "other")
	s.ours.issue(s.cert, s.key)
	var err error
	s.DB, err = mariadb.StartWith(t.Context(), t.TempDir(), "--ssl-cert="+s.cert, "--ssl-key="+s.key)
	if errors.Is(err, mariadb.ErrNotInstalled) {
		testmain.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	if err := errors.Join(s.Exec(mariadb.Schema), s.Load(filepath.Join(golden, "data.sql")),
		s.Exec("ALTER USER indimail@'%' REQUIRE SSL"),
		s.Exec("ALTER USER indimail@localhost REQUIRE SSL")); err != nil {
		t.Fatal(err)
	}
	s.fill = strings.NewReplacer("@PORT@", strconv.Itoa(s.Port), "@SOCKET@", s.Socket,
		"@OURS@", s.ours.file, "@OTHER@", s.other.file)
	return s
}

// reissue gives the server a new certificate, with those addresses in it.
func (s *secureDB) reissue(t *testing.T, addresses ...net.IP) {
	t.Helper()
	s.ours.issue(s.cert, s.key, addresses...)
	if err := s.Exec("FLUSH SSL"); err != nil {
		t.Fatal(err)
	}
}

const (
	overTCP    = "127.0.0.1:indimail:secret:@PORT@:ssl\n"
	overSocket = "localhost:indimail:secret:@SOCKET@:ssl\n"
	storeTCP   = "domain example.com 0\nserver 127.0.0.1\nmdahost 192.0.2.25\n" +
		"port @PORT@\nuse_ssl %d\n" +
		"database indimail\nuser indimail\npass secret\n"
)

var tlsCases = []struct {
	name     string
	settings settings
	named    bool // the certificate has the address 127.0.0.1
	answered bool
}{
	{"without TLS this server lets nobody in",
		settings{"host.mysql": "127.0.0.1:indimail:secret:@PORT@\n"},
		false, false},
	{"the authority is given", settings{"host.mysql": overTCP, "MYSQL_OPT_SSL_CA": "@OURS@"}, false,
		true},
	{"by MYSQL_HOST", settings{"MYSQL_HOST": strings.TrimSpace(overTCP), "MYSQL_OPT_SSL_CA": "@OURS@"},
		false, true},
	{"another authority", settings{"host.mysql": overTCP, "MYSQL_OPT_SSL_CA": "@OTHER@"}, false,
		false},
	{"no authority, and none of the system's", settings{"host.mysql": overTCP}, false, false},
	{"no authority, the address in the certificate", settings{"host.mysql": overTCP}, true, false},
	{"by the socket", settings{"host.mysql": overSocket, "MYSQL_OPT_SSL_CA": "@OURS@"}, false, true},
	{"by the socket, another authority", settings{"host.mysql": overSocket,
		"MYSQL_OPT_SSL_CA": "@OTHER@"},
		false, false},
	{"the name is asked for, and there is none", settings{"host.mysql": overTCP,
		"MYSQL_OPT_SSL_CA":                 "@OURS@",
		"MYSQL_OPT_SSL_VERIFY_SERVER_CERT": "1"}, false, false},
	{"the name is asked for, and is there", settings{"host.mysql": overTCP,
		"MYSQL_OPT_SSL_CA":                 "@OURS@",
		"MYSQL_OPT_SSL_VERIFY_SERVER_CERT": "1"}, true, true},
	{"the name is not asked for", settings{"host.mysql": overTCP, "MYSQL_OPT_SSL_CA": "@OURS@",
		"MYSQL_OPT_SSL_VERIFY_SERVER_CERT": "0"}, false, true},
	{"a store with use_ssl 1", settings{"mcdinfo": fmt.Sprintf(storeTCP, 1),
		"MYSQL_OPT_SSL_CA": "@OURS@"},
		false, true},
	{"a store with use_ssl 0", settings{"mcdinfo": fmt.Sprintf(storeTCP, 0),
		"MYSQL_OPT_SSL_CA": "@OURS@"},
		false, false},
	{"a store with use_ssl 1, another authority", settings{"mcdinfo": fmt.Sprintf(storeTCP, 1),
		"MYSQL_OPT_SSL_CA": "@OTHER@"}, false, false},
}

func TestTLSGoesByTheAuthority(t *testing.T) {
	t.Parallel()
	db := newSecureDB(t)
	named := false
	for _, test := range tlsCases {
		t.Run(test.name, func(t *testing.T) {
			if test.named != named {
				named = test.named
				db.reissue(t, addresses(named)...)
			}
			s := newSite(t, nil)
			s.configure(test.settings, db.fill)
			want := found
			if !test.answered {
				want = answers{"1 over@example.com": "unavailable"}
			}
			all(t, s.resolver(), test.name, want)
		})
	}
	db.reissue(t)
	t.Run("a missing file", func(t *testing.T) { testMissingAuthority(t, db) })
	t.Run("the system's authorities", func(t *testing.T) { testSystemAuthorities(t, db) })
}

func addresses(named bool) []net.IP {
	if named {
		return []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	return nil
}

// A missing or odd MYSQL_OPT_SSL_CA makes questions fail, and not the start. It is read at each
// connect.
func testMissingAuthority(t *testing.T, db *secureDB) {
	s := newSite(t, nil)
	file := filepath.Join(s.dir, "late.pem")
	s.configure(settings{"host.mysql": overTCP, "MYSQL_OPT_SSL_CA": file}, db.fill)
	p := s.serve()
	d := s.directory()
	all(t, d.Resolver, "no file", answers{"1 over@example.com": "unavailable"})
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	all(t, d.Resolver, "a file without certificates", answers{"1 over@example.com": "unavailable"})
	eventually(t, "the log names the setting", func() bool {
		return strings.Contains(p.stderr.String(), "MYSQL_OPT_SSL_CA")
	})
	text, err := os.ReadFile(db.ours.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer, now that the file is there", func() bool {
		status, err := d.Status(t.Context(), "over@example.com")
		return status == inlookup.StatusOverQuota && err == nil
	})
}

// Without MYSQL_OPT_SSL_CA the system's authorities count, and the name.
func testSystemAuthorities(t *testing.T, db *secureDB) {
	s := newSite(t, nil)
	s.configure(settings{"host.mysql": overTCP, "SSL_CERT_FILE": "@OURS@", "SSL_CERT_DIR": s.dir},
		db.fill)
	for _, test := range []struct {
		named  bool
		status int
	}{{false, 111}, {true, 0}} {
		db.reissue(t, addresses(test.named)...)
		if status, stdout, stderr := s.run("inquerytest", "-q", "1",
			"over@example.com"); status != test.status {
			t.Errorf("address in the certificate: %v: exit %d, want %d\n%s%s", test.named, status,
				test.status,
				stdout, stderr)
		}
	}
}

// A server that knows TLS 1.1 at best is refused.
func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := newAuthority(t, dir, "ours")
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ours.issue(cert, key)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint16]string{tls.VersionTLS11: "fake no TLS",
		tls.VersionTLS12: "fake TLS 1.2"} {
		var seen visits
		config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10,
			MaxVersion: version}
		addr, err := fake{name: "fake", seen: &seen, tls: config}.listen(t, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := newSite(t, nil)
		s.env["MYSQL_OPT_SSL_CA"] = ours.file
		s.control("host.mysql", fmt.Sprintf("127.0.0.1:bob:secret:%d:ssl\n", addr.(*net.TCPAddr).Port))
		all(t, s.resolver(), "a fake", answers{"1 user@example.com": "unavailable"})
		eventually(t, want, func() bool { return seen.String() != "" })
		if got := seen.String(); got != want {
			t.Errorf("%s: %s, want %s", tls.VersionName(version), got, want)
		}
	}
}
