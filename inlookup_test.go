package inlookup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// TestMain lets the test program be a child of its own, for what a process can do only once.
func TestMain(m *testing.M) {
	switch os.Getenv("INLOOKUP_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "inquery":
		a, err := Inquery(context.Background(), Query{Type: TypeDomain, Email: "Example.com"})
		fmt.Printf("%T %v %q %v", FromEnv(), FromEnv() == FromEnv(), a, err)
	case "kind":
		fmt.Printf("%T", FromEnv())
	}
	os.Exit(0)
}

// child runs the test program with these variables and files, and returns what it prints.
func child(t testing.TB, kind string, files []*os.File, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append([]string{"INLOOKUP_TEST_CHILD=" + kind, "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return string(out)
}

// eventually waits until what holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in 30 seconds: %s", what)
		}
	}
}

// --- The configuration.

// controls makes a control directory with these files, and a file assign beside it, and returns its path.
func controls(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// configured returns a MySQL that goes by the files in dir and by the environment.
func configured(t testing.TB, dir string, env ...string) *MySQL {
	m := &MySQL{Getenv: environment(append([]string{"CONTROLDIR", dir, "ASSIGNDIR", dir}, env...)...)}
	t.Cleanup(func() { m.Close() })
	return m
}

// databases returns what m would connect to, sorted: "hosts port socket user password name tls".
func databases(t testing.TB, m *MySQL) (list []string) {
	t.Helper()
	c, err := m.current()
	if err != nil {
		t.Fatal(err)
	}
	for d := range c.pools {
		list = append(list, fmt.Sprintf("%s %s %s %s %s %s %v", d.hosts, d.port, d.socket, d.user, d.passwd, d.name, d.tls))
	}
	slices.Sort(list)
	return list
}

// routePort returns the port of the SMTP route to a domain that is not distributed.
func routePort(t testing.TB, m *MySQL, domain string) string {
	t.Helper()
	c, err := m.current()
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.route(context.Background(), &store{mdahost: "mda"}, domain, domain)
	port, ok := strings.CutPrefix(a.Data(), domain+":mda:")
	if err != nil || !ok {
		t.Fatal(a, err)
	}
	return port
}

func TestServers(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		env   []string
		want  []string
	}{
		{"nothing", nil, nil, []string{"localhost   indimail  indimail false"}},
		{"host alone", map[string]string{"host.mysql": "db.example"}, nil, []string{"db.example   indimail  indimail false"}},
		{"to the password", map[string]string{"host.mysql": "db.example:u:p\n"}, nil, []string{"db.example   u p indimail false"}},
		{"to the port", map[string]string{"host.mysql": "db.example:u:p:3307\n"}, nil, []string{"db.example 3307  u p indimail false"}},
		{"with ssl", map[string]string{"host.mysql": "db.example:u:p:3307:ssl\n"}, nil, []string{"db.example 3307  u p indimail true"}},
		{"with nossl", map[string]string{"host.mysql": "db.example:u:p:3307:nossl\n"}, nil, []string{"db.example 3307  u p indimail false"}},
		{"socket", map[string]string{"host.mysql": "localhost:u:p:/run/my.sock:nossl\n"}, nil, []string{"localhost  /run/my.sock u p indimail false"}},
		{"empty parts", map[string]string{"host.mysql": "db.example::::\n"}, nil, []string{"db.example   indimail  indimail false"}},
		{"comments and blanks", map[string]string{"host.mysql": "# the server\n\n \t db.example:u:p \r\n\n"}, nil, []string{"db.example   u p indimail false"}},
		{"no line at the end", map[string]string{"host.mysql": ""}, nil, []string{"localhost   indimail  indimail false"}},
		{"several hosts", map[string]string{"host.mysql": "a.example,b.example:u:p:3306"}, nil, []string{"a.example,b.example 3306  u p indimail false"}},
		{"environment", nil, []string{"MYSQL_HOST", "h", "MYSQL_USER", "u", "MYSQL_PASSWD", "p", "MYSQL_DATABASE", "d", "MYSQL_SOCKET", "/s", "MYSQL_VPORT", "33"},
			[]string{"h 33 /s u p d false"}},
		{"environment before file", map[string]string{"host.mysql": "f:fu:fp:33"}, []string{"MYSQL_HOST", "h", "MYSQL_PASSWD", "p"}, []string{"h 33  fu p indimail false"}},
		{"central", map[string]string{"host.mysql": "a:u:p:1", "host.cntrl": "b:v:q:2:ssl"}, nil, []string{"a 1  u p indimail false", "b 2  v q indimail true"}},
		{"central like local", map[string]string{"host.mysql": "a:u:p:1", "host.cntrl": "a:u:p:1"}, nil, []string{"a 1  u p indimail false"}},
		{"central by environment", nil, []string{"CNTRL_HOST", "c", "CNTRL_DATABASE", "d", "MYSQL_USER", "u"},
			[]string{"c   u  d false", "localhost   u  indimail false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := configured(t, controls(t, c.files), c.env...)
			if err := m.Reload(false); err != nil {
				t.Fatal(err)
			}
			if got := databases(t, m); !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

const mcdinfo = `# the cluster
domain   example.com 0
server   db1.example
mdahost  192.0.2.25
port     3306
use_ssl  0
database indimail
user     indimail
pass     secret

domain Dist.example.net	1
pass secret
user indimail
database indimail
use_ssl 0
port 3306
mdahost 192.0.2.26
server db1.example
# a second store of the same domain
server db2.example
mdahost 192.0.2.27
port 3307
use_ssl 1
database mail
user u
pass p#1

domain tls.example 0
server db2.example
mdahost 192.0.2.28
port 3307
use_ssl 0
database mail
user u
pass p#1
`

func TestPlace(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": mcdinfo, "hostip": " 192.0.2.1 \nnot this\n", "host.mysql": "db0.example:u:p"})
	for name, target := range map[string]string{"alias": "domains/Real.example", "dangling": "/nowhere/gone.example/"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	assign := "+alias.example-:alias.example:555:555:" + dir + "/alias:-::\n" +
		"+Dangling.example-:dangling.example:555:555:" + dir + "/dangling:-::\n" +
		"+dir.example-:dir.example:555:555:" + dir + ":-::\n" +
		"+none.example-:none.example:555:555:" + dir + "/none:-::\n" +
		"=someone:else:has:other:lines\n.\n"
	if err := os.WriteFile(filepath.Join(dir, "assign"), []byte(assign), 0o600); err != nil {
		t.Fatal(err)
	}
	m := configured(t, dir, "DEFAULT_DOMAIN", "Example.COM", "REAL_DOMAINS", "x.example:Both.example")
	local := func(domain string) Place { return Place{domain, "indimail on db0.example", "192.0.2.1", false} }
	for _, c := range []struct {
		typ   Type
		email string
		want  Place
	}{
		{TypeUser, "user@example.com", Place{"example.com", "indimail on db1.example", "192.0.2.25", false}},
		{TypeUser, "USER@Example.com", Place{"example.com", "indimail on db1.example", "192.0.2.25", false}},
		{TypeUser, "user", Place{"example.com", "indimail on db1.example", "192.0.2.25", false}},
		{TypeLimit, "dist.example.net", Place{"dist.example.net", "indimail on db1.example", "192.0.2.26", true}},
		{TypeUser, "user%tls.example", Place{"tls.example", "mail on db2.example", "192.0.2.28", false}},
		{TypeUser, "user@other.example", local("other.example")},
		{TypeUser, "user@alias.example", local("real.example")},
		{TypeUser, "user@dangling.example", local("gone.example")},
		{TypeUser, "user@dir.example", local("dir.example")},
		{TypeUser, "user@none.example", local("none.example")},
		{TypeUser, "user@both.example", local("both.example")},
		{TypeUser, "user@", Place{}},
		{TypeUser, "us\ner@example.com", Place{RealDomain: "example.com"}},
		{TypeUser, "us\xffer@example.com", Place{RealDomain: "example.com"}},
		{TypeUser, strings.Repeat("u", 41) + "@example.com", Place{RealDomain: "example.com"}},
	} {
		if got, err := m.Place(context.Background(), Query{Type: c.typ, Email: c.email}); err != nil || got != c.want {
			t.Errorf("%v %q: %+v, %v\nwant %+v", c.typ, c.email, got, err, c.want)
		}
	}
	want := []string{"db0.example   u p indimail false", "db1.example 3306  indimail secret indimail false",
		"db2.example 3307  u p#1 mail false", "db2.example 3307  u p#1 mail true"}
	if got := databases(t, m); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q: one pool for entries with the same server", got, want)
	}
	// What needs no database is answered without one.
	for domain, want := range map[string]string{"alias.example": "real.example", "X.example": "x.example", "other.example": "other.example"} {
		a, err := m.Resolve(context.Background(), Query{Type: TypeDomain, Email: domain})
		if text, err2 := a.Text(); text != want || err != nil || err2 != nil {
			t.Errorf("%s: %q, %v, %v", domain, text, err, err2)
		}
	}
	for _, email := range []string{"@example.com", "us\x01er@example.com", "user@", "", "@"} { // can be in no table
		if a, err := m.Resolve(context.Background(), Query{Type: TypeUser, Email: email}); err != nil || a != NewAnswer(1) {
			t.Errorf("%q: %q, %v", email, a, err)
		}
	}
	for _, q := range []Query{{Type: 0}, {Type: 8}, {Type: TypeStatus}, {TypeRelay, "user@example.com", ""}} {
		if a, err := m.Resolve(context.Background(), q); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %q, %v", q, a, err)
		}
	}
}

func TestRoutes(t *testing.T) {
	const routes = "# comment\nexample.com:192.0.2.25:2525\nExample.COM:late:1\nname.example:relay.example:26\nnoport.example:relay.example\n" +
		"empty.example:relay.example:\nv6.example:[2001:db8::1]:2626\nv6no.example:[2001:db8::1]\nnorelay.example::27\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		env   []string
		want  map[string]string
	}{
		{"none", nil, nil, map[string]string{"example.com": "25"}},
		{"smtp", map[string]string{"smtproutes": routes}, nil, map[string]string{"example.com": "2525", "name.example": "26", "noport.example": "25",
			"empty.example": "25", "v6.example": "2626", "v6no.example": "25", "norelay.example": "27", "other.example": "25"}},
		{"for all others", map[string]string{"smtproutes": "a.example:r:1\n:r:2\nb.example:r:3\n"}, nil,
			map[string]string{"a.example": "1", "b.example": "2", "c.example": "2"}},
		{"qmtp file", map[string]string{"smtproutes": routes, "qmtproutes": "a.example:r:1\nb.example:r\n"}, nil,
			map[string]string{"a.example": "1", "b.example": "209", "example.com": "209"}},
		{"qmtp by environment", map[string]string{"smtproutes": routes}, []string{"ROUTES", "qmtp"}, map[string]string{"example.com": "209"}},
		{"another ROUTES", map[string]string{"smtproutes": routes}, []string{"ROUTES", "smtp"}, map[string]string{"example.com": "2525"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := configured(t, controls(t, c.files), c.env...)
			for domain, want := range c.want {
				if got := routePort(t, m, domain); got != want {
					t.Errorf("%s: port %s, want %s", domain, got, want)
				}
			}
		})
	}
}

// TestMalformed: the error names file and line, and never the password; the configuration in force stays.
func TestMalformed(t *testing.T) {
	const secret = "hunter2"
	entry := func(change, to string) string {
		s := "domain example.com 0\nserver s\nmdahost 192.0.2.1\nport 3306\nuse_ssl 0\ndatabase d\nuser u\npass " + secret + "\n"
		if !strings.Contains(s, change) {
			panic(change)
		}
		return strings.Replace(s, change, to, 1)
	}
	for _, c := range []struct {
		file, content string
		line          int // 0: an error that is not of one line
	}{
		{"host.mysql", ":u:" + secret, 1},
		{"host.mysql", "h:u:" + secret + ":port", 1},
		{"host.mysql", "h:u:" + secret + ":65536", 1},
		{"host.mysql", "h:u:" + secret + ":-1", 1},
		{"host.mysql", "h:u:" + secret + ":3306:tls", 1},
		{"host.mysql", "h:u:" + secret + ":3306:ssl:more", 1},
		{"host.cntrl", "\n:u:" + secret, 2},
		{"host.cntrl", "h:u:" + secret + ":x", 1},
		{"mcdinfo", entry("domain example.com 0", "domain example.com"), 1},
		{"mcdinfo", entry("domain example.com 0", "domain example.com 2"), 1},
		{"mcdinfo", entry("domain example.com 0", "domain example.com 0 0"), 1},
		{"mcdinfo", entry("domain example.com 0", "domain"), 1},
		{"mcdinfo", entry("domain example.com 0\n", ""), 1},
		{"mcdinfo", entry("server s", "server s s"), 2},
		{"mcdinfo", entry("server s", "server"), 2},
		{"mcdinfo", entry("server s", "servant s"), 2},
		{"mcdinfo", entry("server s", "server s\nserver s"), 3},
		{"mcdinfo", entry("server s", "server s\ndomain example.org 0"), 3},
		{"mcdinfo", entry("port 3306", "port x"), 8},
		{"mcdinfo", entry("port 3306", "port 65536"), 8},
		{"mcdinfo", entry("port 3306", "port -1"), 8},
		{"mcdinfo", entry("use_ssl 0", "use_ssl yes"), 8},
		{"mcdinfo", entry("pass "+secret, "pass "+secret+" "+secret), 8},
		{"mcdinfo", entry("pass "+secret, "pass "+secret+"\npass "+secret), 0},
		{"mcdinfo", entry("pass "+secret, "pass"), 8},
		{"mcdinfo", entry("pass "+secret, "pass="+secret), 8},
		{"mcdinfo", entry("pass "+secret, secret), 8},
		{"mcdinfo", entry("domain example.com 0\n", "h:u:"+secret+":3306\n"), 1},
		{"mcdinfo", entry("domain example.com 0\n", "domain example.org 1\ndomain example.com 0\n"), 2},
		{"mcdinfo", entry("user u\n", ""), 0},
		{"assign", "# x\n+example.com-:example.com:555:555\n", 2},
		{"assign", "+example.com-\n", 1},
		{"smtproutes", "example.com\n", 1},
		{"smtproutes", "\n\nexample.com:relay:x\n", 3},
		{"smtproutes", "example.com:192.0.2.1:65536\n", 1},
		{"smtproutes", "example.com:192.0.2.1:-25\n", 1},
		{"qmtproutes", "example.com:relay:qmtp\n", 1},
	} {
		m := configured(t, controls(t, map[string]string{"host.mysql": "before:u:" + secret}))
		if err := m.Reload(false); err != nil {
			t.Fatal(err)
		}
		dir := m.Getenv("CONTROLDIR")
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		err := m.Reload(len(c.content)%2 == 0)
		want := filepath.Join(dir, c.file) + ":"
		if c.line > 0 {
			want += strconv.Itoa(c.line) + ":"
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s %q: %v, want %s", c.file, c.content, err, want)
		}
		if got := databases(t, m); len(got) != 1 || !strings.HasPrefix(got[0], "before ") {
			t.Errorf("%s %q: now in force: %q", c.file, c.content, got)
		}
		if _, err := configured(t, dir).Resolve(context.Background(), Query{Type: TypeDomain, Email: "d"}); !errors.Is(err, ErrUnavailable) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s %q: a question with no configuration in force: %v", c.file, c.content, err)
		}
	}
	for _, file := range []string{"host.mysql", "host.cntrl", "mcdinfo", "assign", "smtproutes", "hostip"} { // cannot be read
		m := configured(t, t.TempDir())
		path := filepath.Join(m.Getenv("CONTROLDIR"), file)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := m.Reload(false); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is a directory: %v", file, err)
		}
	}
	for name, value := range map[string]string{"RELAY_CLEAR_MINUTES": "x", "MYSQL_OPT_SSL_CA": "/nowhere/ca.pem"} {
		m := configured(t, controls(t, map[string]string{"host.mysql": "h:u:" + secret + ":3306:ssl"}), name, value)
		if err := m.Reload(false); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestReadablePasswordWarning(t *testing.T) {
	dir := controls(t, map[string]string{"host.mysql": "h:u:hunter2", "host.cntrl": "h:u:hunter2", "mcdinfo": "", "smtproutes": ""})
	var b bytes.Buffer
	m := configured(t, dir)
	m.Log = log.New(&b, "", 0)
	if err := m.Reload(false); err != nil || b.Len() > 0 {
		t.Errorf("%v, %q", err, &b)
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo", "smtproutes"} {
		path := filepath.Join(dir, name)
		b.Reset()
		if err := errors.Join(os.Chmod(path, 0o644), m.Reload(false), os.Chmod(path, 0o640)); err != nil {
			t.Error(err)
		}
		if s := b.String(); name != "smtproutes" && (strings.Count(s, "\n") != 1 || !strings.Contains(s, path)) || strings.Contains(s, "hunter2") || name == "smtproutes" && s != "" {
			t.Errorf("%s: %q", name, s)
		}
	}
}

// TestFailedReload leaves nothing behind of what it had begun.
func TestFailedReload(t *testing.T) {
	for name, content := range map[string]string{"mcdinfo": mcdinfo + "x\n", "host.cntrl": ":", "smtproutes": "x\n"} {
		m := configured(t, controls(t, map[string]string{name: content}))
		goroutines := runtime.NumGoroutine()
		for range 20 {
			if err := m.Reload(false); err == nil {
				t.Fatalf("%s %q is accepted", name, content)
			}
		}
		eventually(t, name+": no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	}
}

// TestReloadRace reloads while others ask.
func TestReloadRace(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 100 {
				if i == 0 {
					if err := m.Reload(rand.IntN(2) == 0); err != nil {
						t.Error(err)
					}
					continue
				}
				w, err := m.Place(context.Background(), Query{Type: TypeUser, Email: "user@example.com"})
				if err != nil || w.MailStore != "192.0.2.25" {
					t.Errorf("%+v, %v", w, err)
				}
			}
		})
	}
	wg.Wait()
}

const planted = "PlantedPassword7"

// reloadAny takes content for a control file: it is accepted, or refused with an error that names the file and does not
// tell the password planted in it.
func reloadAny(t *testing.T, name, content string) {
	dir := controls(t, map[string]string{name: content})
	m := configured(t, dir)
	defer m.Close()
	if err := m.Reload(false); err != nil && (strings.Contains(err.Error(), planted) || !strings.Contains(err.Error(), filepath.Join(dir, name))) {
		t.Errorf("%s %q: %v", name, content, err)
	}
}

func FuzzMcdinfo(f *testing.F) {
	f.Add([]byte(mcdinfo))
	f.Add([]byte("domain a 0\ndomain b 1\n"))
	f.Add([]byte("domain a 0\nserver"))
	f.Fuzz(func(t *testing.T, content []byte) {
		reloadAny(t, "mcdinfo", string(content))
		reloadAny(t, "mcdinfo", string(content)+"\npass "+planted+"\n")
		reloadAny(t, "mcdinfo", string(content)+"\npass="+planted+"\n")
		reloadAny(t, "mcdinfo", string(content)+"\nh:u:"+planted+":x\n")
		reloadAny(t, "mcdinfo", string(content)+"\npass "+planted+" x\n")
		reloadAny(t, "mcdinfo", string(content)+"\nserver s\nmdahost h\npass "+planted+"\nport x\nuse_ssl 0\ndatabase d\nuser u\n")
	})
}

func FuzzControls(f *testing.F) {
	names := []string{"host.mysql", "host.cntrl", "smtproutes", "qmtproutes", "assign", "hostip"}
	for i, s := range []string{"h:u:p:3306:ssl", "localhost:u:p:/s:nossl", "d:[::1]:25\n:r", "d:r", "+d-:d:1:2:/dir:-::\n.", "192.0.2.1"} {
		f.Add(byte(i), []byte(s))
	}
	f.Fuzz(func(t *testing.T, i byte, content []byte) {
		name := names[int(i)%len(names)]
		reloadAny(t, name, string(content))
		if strings.HasPrefix(name, "host.") {
			reloadAny(t, name, string(content)+"h:u:"+planted+":"+string(content))
			reloadAny(t, name, string(content)+"\nh:u:"+planted+":port\n")
		}
	})
}

// --- The server.

// A safeBuffer is a Writer for many.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// serve runs s on FIFOs in a directory of the test, which it returns, until stop or the end of the test. stop checks
// that Serve returns nil and that the FIFOs are gone.
func serve(t testing.TB, s *Server) (dir string, stop func()) {
	t.Helper()
	if s.Getenv == nil {
		s.Getenv = environment("INFIFODIR", t.TempDir())
	}
	dir = s.Getenv("INFIFODIR")
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Serve does not return")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "infifo*")); len(left) > 0 {
			t.Errorf("Serve leaves %q", left)
		}
	})
	t.Cleanup(stop)
	return dir, stop
}

// post writes bytes into a request FIFO.
func post(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (q Query) frame(t testing.TB, reply string) []byte {
	t.Helper()
	b, err := q.appendFrame(nil, reply)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// echo answers each question with its address.
var echo = resolverFunc(func(_ context.Context, q Query) (Answer, error) { return NewData(q.Type, q.Email), nil })

// TestServerGolden has a server answer what the C server answered.
func TestServerGolden(t *testing.T) {
	if wireInt(1)[0] != 1 {
		t.Skip("the golden bytes are those of a little-endian machine")
	}
	file, err := os.ReadFile("testdata/golden/wire.tsv")
	if err != nil {
		t.Fatal(err)
	}
	golden := make(map[Query]Answer)
	for line := range strings.Lines(string(file)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); line[0] != '#' {
			reply, err := hex.DecodeString(f[4])
			if err != nil {
				t.Fatal(err)
			}
			golden[Query{Type(f[0][0] - '0'), f[1], f[2]}] = Answer(reply)
		}
	}
	r := resolverFunc(func(_ context.Context, q Query) (Answer, error) { return golden[q], nil })
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	for _, s := range []*Server{{Resolver: r}, {Resolver: &Cache{Resolver: r}}} {
		dir, _ := serve(t, s)
		for range 2 { // the second time from the cache
			for q, want := range golden {
				post(t, filepath.Join(dir, "infifo"), q.frame(t, in.path))
				if got := in.readN(t, len(want)); got != string(want) {
					t.Errorf("%v: %q, want %q", q, got, want)
				}
			}
		}
	}
}

// TestServerDeadline sees how long what is asked may take, whatever the machine: a second less than clients wait.
func TestServerDeadline(t *testing.T) {
	var left atomic.Int64
	resolver := resolverFunc(func(ctx context.Context, q Query) (Answer, error) {
		until, _ := ctx.Deadline()
		left.Store(int64(time.Until(until)))
		return Absent(q), nil
	})
	const most = 3 * time.Second
	for _, s := range []*Server{{Resolver: resolver}, {Resolver: &Cache{Resolver: resolver}}} {
		dir, stop := serve(t, s)
		in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
		for _, typ := range []Type{TypeUser, TypeRelay} {
			left.Store(0)
			post(t, filepath.Join(dir, "infifo"), Query{typ, "user@example.com", "192.0.2.1"}.frame(t, in.path))
			in.readN(t, 4)
			if got := time.Duration(left.Load()); got <= 0 || got > most {
				t.Errorf("%T, %v: the Resolver is given %v", s.Resolver, typ, got)
			}
		}
		stop()
	}
}

func TestServerHitsAndMisses(t *testing.T) {
	f := new(fake)
	s := &Server{Resolver: &Cache{Resolver: f}, About: func(_ context.Context, q Query) (string, error) {
		if q.Email == "fault" {
			return "", errDown
		}
		return "about " + q.Email, nil
	}}
	dir, _ := serve(t, s)
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	ask := func(q Query, want Answer, calls int) {
		t.Helper()
		before := f.calls()
		post(t, filepath.Join(dir, "infifo"), q.frame(t, in.path))
		if got := in.readN(t, len(want)); got != string(want) || f.calls()-before != calls {
			t.Errorf("%v: %q after %d questions to the Resolver, want %q", q, got, f.calls()-before, want)
		}
	}
	passwd := Query{Type: TypePasswd, Email: "user@example.com"}
	ask(passwd, numbered(TypePasswd, 1), 1)
	ask(passwd, numbered(TypePasswd, 1), 0)
	relay := Query{TypeRelay, "user@example.com", "192.0.2.1"}
	ask(relay, numbered(TypeRelay, 2), 1)
	ask(relay, numbered(TypeRelay, 3), 1)
	nobody := Query{Type: TypeUser, Email: "nobody@example.com"}
	ask(nobody, NewAnswer(1), 1)
	ask(nobody, NewAnswer(1), 0)
	f.setDown(true)
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		want := NewAnswer(-1)
		if typ == TypePasswd {
			want = NewAnswer(0)
		}
		ask(Query{typ, "other@example.com", "192.0.2.1"}, want, 1)
	}
	ask(Query{Type: TypeStatus, Email: "us"}, NewData(TypeStatus, "about us"), 0)
	ask(Query{Type: TypeFlush, Email: "us"}, NewData(TypeStatus, "about us"), 0)
	ask(Query{Type: TypeExplain, Email: "us"}, NewData(TypeStatus, "about us"), 0)
	ask(Query{Type: TypeStatus, Email: "fault"}, NewAnswer(-1), 0)
	ask(passwd, numbered(TypePasswd, 1), 0)
	want := ServerStats{Queries: [8]uint64{0, 3, 3, 4, 1, 1, 1, 1}, Unavailable: 8}
	eventually(t, "nobody waits", func() bool { return s.Stats().Waiting == 0 })
	got := s.Stats()
	if time.Since(got.Started) > time.Minute {
		t.Errorf("started %v", got.Started)
	}
	if got.Started = want.Started; got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}

	none := &Server{Resolver: f} // no About
	dir, _ = serve(t, none)
	ask(Query{Type: TypeStatus}, NewAnswer(-1), 0)
}

// TestServerGarbage: no honest request is lost between bytes that are none.
func TestServerGarbage(t *testing.T) {
	var b safeBuffer
	s := &Server{Resolver: echo, Log: log.New(&b, "", 0)}
	dir, stop := serve(t, s)
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	refused := 0
	for i, junk := range []string{"", "x", "junk\n", "\x00\x00\x00\x00", wireInt(200) + "\x01\x00", wireInt(5), wireInt(-1), wireInt(40) + "\x03\x00a\x00b\x00", "\x00"} {
		q := Query{Type: TypeHost, Email: fmt.Sprintf("user%d@example.com", i)}
		post(t, filepath.Join(dir, "infifo"), append([]byte(junk), q.frame(t, in.path)...))
		want := string(NewData(TypeHost, q.Email))
		if got := in.readN(t, len(want)); got != want {
			t.Errorf("after %q: %q, want %q", junk, got, want)
		}
		refused += len(junk)
	}
	post(t, filepath.Join(dir, "infifo"), []byte("trailing"))
	eventually(t, "the last bytes are refused", func() bool { return s.Stats().Refused == uint64(refused+8) })
	stop()
	if n := s.Stats().Refused; n != uint64(refused+8) {
		t.Errorf("%d bytes refused, want %d", n, refused+8)
	}
	if n := strings.Count(b.String(), "\n"); n < 1 || n > 1+int(time.Since(s.Stats().Started).Seconds()+1) {
		t.Errorf("%d lines, at most one a second: %s", n, &b)
	}
}

// TestServerOverload asks more than can wait: what is too much is told so at once.
func TestServerOverload(t *testing.T) {
	const most, more = 2048, 100
	release, inside := make(chan struct{}), atomic.Int32{}
	s := &Server{Resolver: resolverFunc(func(context.Context, Query) (Answer, error) {
		inside.Add(1)
		<-release
		return NewAnswer(0), nil
	})}
	dir, _ := serve(t, s)
	waiting, refused := newInbox(t, filepath.Join(t.TempDir(), "reply")), newInbox(t, filepath.Join(t.TempDir(), "reply"))
	ask := func(typ Type, i int, in *inbox) {
		post(t, filepath.Join(dir, "infifo"), Query{Type: typ, Email: fmt.Sprintf("user%d@example.com", i)}.frame(t, in.path))
	}
	start := time.Now()
	for i := range most {
		ask(TypeUser, i, waiting)
	}
	eventually(t, "all of them wait", func() bool { return s.Stats().Waiting == most })
	for i := range more {
		ask(TypeUser, i, refused)
	}
	if got := refused.readN(t, 4*more); got != strings.Repeat(wireInt(-1), more) {
		t.Errorf("%q", got)
	}
	ask(TypePasswd, 0, refused)
	if got := refused.readN(t, 4); got != wireInt(0) {
		t.Errorf("a password query: %q", got)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Skipf("this machine takes %v for %d requests: some have had their time", took, most)
	}
	if st := s.Stats(); st.Busy != more+1 || st.Waiting != most || inside.Load() > 64 {
		t.Errorf("%+v, %d are being resolved", st, inside.Load())
	}
	close(release)
	waiting.readN(t, 4*most)
	eventually(t, "nobody waits", func() bool { return s.Stats().Waiting == 0 })
	ask(TypeUser, 0, refused)
	if got := refused.readN(t, 4); got != wireInt(0) {
		t.Errorf("afterwards: %q", got)
	}
}

// TestDeadAskers: who cannot be answered costs no question to the Resolver, and nobody's file changes.
func TestDeadAskers(t *testing.T) {
	f := new(fake)
	s := &Server{Resolver: &Cache{Resolver: f}}
	dir, _ := serve(t, s)
	files, own := t.TempDir(), filepath.Join(dir, "infifo")
	file, deaf := filepath.Join(files, "file"), filepath.Join(files, "deaf")
	if err := errors.Join(os.WriteFile(file, []byte("precious"), 0o600), syscall.Mkfifo(deaf, 0o600)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, files)
	paths := []string{file, deaf, filepath.Join(files, "none"), "/dev/null", files, "", "socket", own}
	const rounds = 50
	for i := range rounds {
		for _, path := range paths {
			post(t, own, Query{Type: TypePasswd, Email: fmt.Sprintf("user%d@example.com", i)}.frame(t, path))
		}
	}
	dead := uint64(rounds * len(paths))
	eventually(t, "all are undeliverable", func() bool { return s.Stats().Undeliverable == dead })
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	post(t, own, Query{Type: TypePasswd, Email: "user@example.com"}.frame(t, in.path))
	if want := string(numbered(TypePasswd, 1)); in.readN(t, len(want)) != want {
		t.Error("the living are not answered")
	}
	if st := s.Stats(); f.calls() != 1 || st.Refused > 0 || st.Queries[TypePasswd] != dead+1 {
		t.Errorf("%d questions to the Resolver, %+v", f.calls(), st)
	}
	for _, path := range paths { // neither does a hit write anywhere else
		post(t, own, Query{Type: TypePasswd, Email: "user@example.com"}.frame(t, path))
	}
	dead += uint64(len(paths))
	eventually(t, "all are undeliverable", func() bool { return s.Stats().Undeliverable == dead })
	if after := snapshot(t, files); after != before || s.Stats().Refused > 0 {
		t.Errorf("files changed: before\n%safter\n%s", before, after)
	}
}

func TestServerReplyDir(t *testing.T) {
	replies := t.TempDir()
	for _, slash := range []string{"", "/"} {
		s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", t.TempDir(), "REPLYDIR", replies+slash)}
		dir, _ := serve(t, s)
		inside, outside := newInbox(t, filepath.Join(replies, "reply"+strings.ReplaceAll(slash, "/", "2"))), newInbox(t, filepath.Join(t.TempDir(), "reply"))
		post(t, filepath.Join(dir, "infifo"), Query{Type: TypeHost, Email: "u@d"}.frame(t, outside.path))
		post(t, filepath.Join(dir, "infifo"), Query{Type: TypeHost, Email: "u@d"}.frame(t, inside.path))
		if want := string(NewData(TypeHost, "u@d")); inside.readN(t, len(want)) != want {
			t.Error("no answer inside")
		}
		eventually(t, "one is undeliverable", func() bool { return s.Stats().Undeliverable == 1 })
		if got := outside.read(); got != "" {
			t.Errorf("REPLYDIR %s: %q outside of it", replies+slash, got)
		}
	}
}

func TestDebugLines(t *testing.T) {
	var out safeBuffer
	s := &Server{Resolver: &Cache{Resolver: echo}, Out: &out, Instances: 2, About: func(context.Context, Query) (string, error) { return "x", nil }}
	dir, stop := serve(t, s)
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	ask := func(fifo string, q Query) {
		post(t, filepath.Join(dir, fifo), q.frame(t, in.path))
		in.readN(t, len(NewData(q.Type, q.Email)))
	}
	user := Query{Type: TypePasswd, Email: "User@example.com"}
	ask("infifo.1", user)
	s.Debug.Store(true)
	ask("infifo.1", user)
	ask("infifo.2", Query{TypeRelay, "user@example.com", "192.0.2.1"})
	ask("infifo.2", Query{TypeHost, "user@example.com", "192.0.2.1"})
	ask("infifo.1", Query{Type: TypeAlias, Email: "a\nb\x1b[31m\xff ü\u202e@d"})
	s.Debug.Store(false)
	ask("infifo.1", user)
	stop()
	n := len(in.path)
	want := fmt.Sprintf("infifo.1->%s, Bytes %d, Query ['Password Query'], User User@example.com, RemoteIp N/A\ninfifo.1->%[1]s, cache hit\n", in.path, 5+16+n) +
		fmt.Sprintf("infifo.2->%s, Bytes %d, Query ['Relay Query'], User user@example.com, RemoteIp 192.0.2.1\n", in.path, 5+16+9+n) +
		fmt.Sprintf("infifo.2->%s, Bytes %d, Query ['Host Query'], User user@example.com, RemoteIp N/A\n", in.path, 5+16+9+n) +
		fmt.Sprintf("infifo.1->%s, Bytes %d, Query ['Alias Query'], User a?b?[31m\ufffd ü?@d, RemoteIp N/A\n", in.path, 5+17+n)
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestServeEnds: Serve answers what was asked before it was told to end, and leaves nothing.
func TestServeEnds(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	const asks = 200
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	for _, slow := range []time.Duration{0, 20 * time.Millisecond} {
		s := &Server{Instances: 3, Resolver: &Cache{Resolver: &fake{delay: slow}}}
		dir, stop := serve(t, s)
		for i := range asks {
			post(t, filepath.Join(dir, fmt.Sprint("infifo.", i%3+1)), Query{Type: TypeUser, Email: fmt.Sprintf("no%d@example.com", i)}.frame(t, in.path))
		}
		stop()
		if got := in.readN(t, 4*asks); got != strings.Repeat(wireInt(1), asks) {
			t.Errorf("%q", got)
		}
		if st := s.Stats(); st.Refused != 0 || st.Queries[TypeUser] != asks {
			t.Errorf("%+v", st)
		}
	}
	syscall.Close(in.fd)
	in.fd = -1
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// TestServeEndsThoughAsked: who has the FIFO open and goes on asking cannot keep the server from ending.
func TestServeEndsThoughAsked(t *testing.T) {
	dir, stop := serve(t, &Server{Resolver: echo})
	frame := Query{Type: TypeUser, Email: "user@example.com"}.frame(t, "/nowhere")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		fd, err := syscall.Open(filepath.Join(dir, "infifo"), syscall.O_RDWR|syscall.O_NONBLOCK, 0) // so that writing never fails for want of a reader
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		burst := bytes.Repeat(frame, 4000/len(frame))
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					syscall.Write(fd, burst)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		stop()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("still serving 30 s after it was told to stop")
	}
	close(done)
	wg.Wait()
	<-ended
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	env := environment("INFIFODIR", dir, "FIFO_MODE", "622")
	s := &Server{Resolver: echo, Instances: 2, Getenv: env}
	_, stop := serve(t, s)
	for _, name := range []string{"infifo.1", "infifo.2"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != fs.ModeNamedPipe|0o622 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := (&Server{Resolver: echo, Instances: 2, Getenv: env}).Serve(context.Background()); !errors.Is(err, ErrServed) {
		t.Errorf("a second server: %v", err)
	}
	stop()

	// One of several FIFOs cannot be had: none stays.
	if err := os.WriteFile(filepath.Join(dir, "infifo.3"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fds := descriptors(t)
	if err := (&Server{Resolver: echo, Instances: 4, Getenv: env}).Listen(); err == nil || !strings.Contains(err.Error(), "infifo.3") {
		t.Errorf("a file in place of the third FIFO: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "infifo*")); len(left) != 1 || descriptors(t) != fds {
		t.Errorf("left: %q, and %d descriptors instead of %d", left, descriptors(t), fds)
	}
	for _, mode := range []string{"x", "8", "-1", "1000", "0x1"} {
		s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", dir, "FIFO_MODE", mode)}
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "FIFO_MODE") {
			t.Errorf("FIFO_MODE %s: %v", mode, err)
		}
	}
	for _, replies := range []string{"/", "//", "replies", "./replies"} {
		s := &Server{Resolver: echo, Getenv: environment("INFIFODIR", dir, "REPLYDIR", replies)}
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "REPLYDIR") {
			t.Errorf("REPLYDIR %s: %v", replies, err)
		}
	}
	// A path is taken as it is, and a server can come again.
	s = &Server{Resolver: echo, Infifo: filepath.Join(dir, "sub", "path"), Getenv: environment()}
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		if err := s.Listen(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(s.Infifo); err != nil || info.Mode() != fs.ModeNamedPipe|0o660 {
			t.Errorf("%v, %v", info, err)
		}
		cancel()
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestServeConn(t *testing.T) {
	s := &Server{Resolver: echo, About: func(_ context.Context, q Query) (string, error) { return "about " + q.Email, nil }}
	long := Query{Type: TypeHost, Email: strings.Repeat("x", 4096-4-5-len("socket"))}
	for _, c := range []struct {
		name, in string
		want     Answer // "": an error
	}{
		{"user", string(Query{Type: TypeUser, Email: "u@d"}.frame(t, "socket")), NewData(TypeUser, "u@d")},
		{"relay", string(Query{TypeRelay, "u@d", "192.0.2.1"}.frame(t, "socket")), NewData(TypeRelay, "u@d")},
		{"status", string(Query{Type: TypeStatus, Email: "u@d"}.frame(t, "socket")), NewData(TypeStatus, "about u@d")},
		{"the longest", string(long.frame(t, "socket")), NewData(TypeHost, long.Email)},
		{"two", string(Query{Type: TypeUser, Email: "u@d"}.frame(t, "socket")) + "more", NewData(TypeUser, "u@d")},
		{"nothing", "", ""},
		{"half", string(Query{Type: TypeUser, Email: "u@d"}.frame(t, "socket"))[:12], ""},
		{"garbage", "GET / HTTP/1.0\r\n\r\n", ""},
		{"too long", wireInt(4093) + strings.Repeat("x", 5000), ""},
		{"a fault of the wire", wireInt(5) + "\x01\x01\x00\x00\x00", ""},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"": func(r io.Reader) io.Reader { return r },
			"byte by byte": iotest.OneByteReader, "data with error": iotest.DataErrReader} {
			var out bytes.Buffer
			err := s.ServeConn(context.Background(), wrap(strings.NewReader(c.in)), &out)
			if Answer(out.String()) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%s %s: %q, %v, want %q", c.name, name, &out, err, c.want)
			}
		}
	}
	s.Resolver = resolverFunc(func(ctx context.Context, q Query) (Answer, error) { return "", ctx.Value(faultKey{}).(error) })
	ctx := context.WithValue(context.Background(), faultKey{}, errDown)
	for typ, want := range map[Type]Answer{TypeUser: NewAnswer(-1), TypePasswd: NewAnswer(0)} {
		var out bytes.Buffer
		if err := s.ServeConn(ctx, bytes.NewReader(Query{Type: typ}.frame(t, "socket")), &out); err != nil || Answer(out.String()) != want {
			t.Errorf("%v while down: %q, %v", typ, &out, err)
		}
	}
	if err := s.ServeConn(ctx, bytes.NewReader(Query{Type: TypeUser}.frame(t, "socket")), brokenWriter{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the asker has gone: %v", err)
	}
}

type faultKey struct{}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// --- The client.

// newClient returns a client of the server whose FIFOs are in dir, and the directory of its reply FIFOs.
func newClient(t testing.TB, dir string, env ...string) (c *Client, tmp string) {
	tmp = t.TempDir()
	c = &Client{Timeout: 20 * time.Second, Getenv: environment(append([]string{"INFIFODIR", dir, "FIFOTMPDIR", tmp, "CONTROLDIR", dir}, env...)...)}
	t.Cleanup(func() { c.Close() })
	return c, tmp
}

// askEcho asks c, whose server echoes, and checks that the answer is to this question.
func askEcho(t testing.TB, c *Client, email string) {
	t.Helper()
	a, err := c.Resolve(context.Background(), Query{Type: TypeHost, Email: email})
	if text, err2 := a.Text(); err != nil || err2 != nil || text != email {
		t.Errorf("asked about %s: %q, %v", email, a, err)
	}
}

func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func TestClientServer(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	text := strings.Repeat("x", 60000)
	for _, instances := range []int{1, 4} {
		s := &Server{Resolver: &Cache{Resolver: echo}, Instances: instances, About: func(context.Context, Query) (string, error) { return text, nil }}
		dir, _ := serve(t, s)
		c, tmp := newClient(t, dir)
		for range 10 { // one after the other share one reply FIFO
			askEcho(t, c, "user@example.com")
		}
		names := files(t, tmp)
		if len(names) != 1 {
			t.Fatalf("reply FIFOs: %q", names)
		}
		if info, err := os.Stat(filepath.Join(tmp, names[0])); err != nil || info.Mode() != fs.ModeNamedPipe|0o660 {
			t.Errorf("%v, %v", info, err)
		}
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				for j := range 50 {
					askEcho(t, c, fmt.Sprintf("user%d@%d.example", j, i%10))
				}
				a, err := c.Resolve(context.Background(), Query{Type: TypeStatus})
				if got, err2 := a.Text(); err != nil || err2 != nil || got != text {
					t.Errorf("%d bytes, %v, %v", len(got), err, err2)
				}
			})
		}
		wg.Wait()
		if n := len(files(t, tmp)); n > 64 {
			t.Errorf("%d reply FIFOs are kept", n)
		}
		if err := c.Close(); err != nil || len(files(t, tmp)) > 0 {
			t.Errorf("Close: %v, left %q", err, files(t, tmp))
		}
		askEcho(t, c, "user@example.com")
		if left := files(t, tmp); len(left) > 0 {
			t.Errorf("after Close: %q", left)
		}
		if n := s.Stats().Queries[TypeHost]; n != 10+100*50+1 {
			t.Errorf("%d queries: some were asked twice", n)
		}
	}
}

// A cServer answers like the C server: code and data in two writes, then it unlinks the reply FIFO.
type cServer struct {
	answer      func(r request) Answer // "": none
	keep        bool                   // does not unlink
	unlinkFirst bool                   // before it closes
}

// start serves on FIFO infifo in dir, until stop or the end of the test. A request is answered by a goroutine of its own.
func (s *cServer) start(t testing.TB, dir, infifo string) (stop func()) {
	t.Helper()
	path := filepath.Join(dir, infifo)
	if err := syscall.Mkfifo(path, 0o600); err != nil && err != syscall.EEXIST {
		t.Fatal(err)
	}
	in, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var have []byte
		for b := make([]byte, 65536); ; {
			n, err := in.Read(b)
			if err != nil {
				return
			}
			have = append(have, b[:n]...)
			used, _ := frames(have, true, func(r request) {
				r = request{r.typ, bytes.Clone(r.email), bytes.Clone(r.reply), bytes.Clone(r.ip)}
				wg.Go(func() { s.reply(r) })
			})
			have = have[used:]
		}
	})
	stop = sync.OnceFunc(func() { in.Close(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func (s *cServer) reply(r request) {
	a := s.answer(r)
	out, err := os.OpenFile(string(r.reply), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if a == "" || err != nil {
		out.Close() // nil, of an open that failed, it does not mind
		return
	}
	n := 4 // code and data in two writes, as they may come
	if a.Code() <= 0 {
		n = len(a) // what follows a code without data must be there when the code is read
	}
	io.WriteString(out, string(a[:n]))
	if len(a) > n {
		io.WriteString(out, string(a[n:]))
	}
	if s.unlinkFirst && !s.keep {
		os.Remove(string(r.reply))
	}
	out.Close()
	if !s.unlinkFirst && !s.keep {
		os.Remove(string(r.reply))
	}
}

func echoBytes(r request) Answer { return NewData(r.typ, string(r.email)) }

func TestClientOfC(t *testing.T) {
	for _, s := range []*cServer{{answer: echoBytes}, {answer: echoBytes, unlinkFirst: true}} {
		dir := t.TempDir()
		s.start(t, dir, "infifo.1")
		c, tmp := newClient(t, dir)
		slowest := time.Duration(0)
		for i := range 50 {
			start := time.Now()
			askEcho(t, c, fmt.Sprintf("user%d@example.com", i))
			slowest = max(slowest, time.Since(start))
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for j := range 20 {
					askEcho(t, c, fmt.Sprintf("user%d@%d.example", i, j))
				}
			})
		}
		wg.Wait()
		if slowest > 5*time.Second {
			t.Errorf("unlink first %v: an answer took %v", s.unlinkFirst, slowest)
		}
		c.Close()
		if left := files(t, tmp); len(left) > 0 {
			t.Errorf("unlink first %v: left %q", s.unlinkFirst, left)
		}
	}
}

// TestClientUnlinkedLate unlinks the reply FIFO when the client has already asked its next question over it.
func TestClientUnlinkedLate(t *testing.T) {
	dir, asked := t.TempDir(), atomic.Int32{}
	s := &cServer{keep: true, answer: func(r request) Answer {
		if asked.Add(1) == 2 { // not answered: it cannot be opened any more
			os.Remove(string(r.reply))
		}
		return echoBytes(r)
	}}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	askEcho(t, c, "one@example.com")
	start := time.Now()
	askEcho(t, c, "two@example.com")
	if took := time.Since(start); took > 5*time.Second || asked.Load() != 3 {
		t.Errorf("%d questions, the second took %v", asked.Load(), took)
	}
	askEcho(t, c, "three@example.com")
	if left := files(t, tmp); len(left) > 0 || asked.Load() != 4 {
		t.Errorf("a server that unlinks once: left %q", left)
	}
	// One that is known to be unlinked is not asked over at all.
	c, tmp = newClient(t, dir)
	askEcho(t, c, "four@example.com")
	for _, name := range files(t, tmp) {
		if err := os.Remove(filepath.Join(tmp, name)); err != nil {
			t.Fatal(err)
		}
	}
	askEcho(t, c, "five@example.com")
	if asked.Load() != 6 {
		t.Errorf("%d questions for 5 answers", asked.Load())
	}
}

// TestForeignAnswer: what lies in a kept FIFO before the question is not its answer.
func TestForeignAnswer(t *testing.T) {
	dir := t.TempDir()
	(&cServer{keep: true, answer: echoBytes}).start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	askEcho(t, c, "first@example.com")
	for i := range 3 {
		kept := files(t, tmp)
		if len(kept) != 1 {
			t.Fatalf("kept %q", kept)
		}
		out, err := os.OpenFile(filepath.Join(tmp, kept[0]), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(out, string(NewData(TypeHost, "attacker@example.com")))
		out.Close()
		askEcho(t, c, fmt.Sprintf("victim%d@example.com", i))
		if now := files(t, tmp); len(now) != 1 || now[0] == kept[0] {
			t.Errorf("kept %q, before %q", now, kept)
		}
	}
}

// TestLateAnswer: what comes after the asker has given up reaches nobody.
func TestLateAnswer(t *testing.T) {
	dir, late, done := t.TempDir(), make(chan struct{}), make(chan struct{})
	s := &cServer{keep: true, answer: func(r request) Answer {
		if string(r.email) == "opened@example.com" { // the server has the FIFO open all the time
			if out, err := os.OpenFile(string(r.reply), os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				<-late
				io.WriteString(out, string(NewData(r.typ, "late")))
				out.Close()
			}
			close(done)
			return ""
		}
		if string(r.email) == "path@example.com" {
			<-late
			return NewData(r.typ, "late")
		}
		return echoBytes(r)
	}}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	askEcho(t, c, "first@example.com") // so that there is a kept FIFO
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for _, email := range []string{"opened@example.com", "path@example.com"} {
		start := time.Now()
		a, err := c.Resolve(ctx, Query{Type: TypeHost, Email: email})
		if !errors.Is(err, ErrUnavailable) || time.Since(start) > 15*time.Second {
			t.Errorf("%q, %v after %v", a, err, time.Since(start))
		}
	}
	close(late)
	<-done
	for i := range 10 {
		askEcho(t, c, fmt.Sprintf("next%d@example.com", i))
	}
	c.Close()
	if left := files(t, tmp); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// TestLateAnswers has answers come about when the askers give up.
func TestLateAnswers(t *testing.T) {
	dir := t.TempDir()
	s := &cServer{keep: true, answer: func(r request) Answer {
		if r.email[0] == 's' {
			time.Sleep(time.Duration(8+rand.IntN(5)) * time.Millisecond)
		}
		return echoBytes(r)
	}}
	s.start(t, dir, "infifo.1")
	c, _ := newClient(t, dir)
	var wg sync.WaitGroup
	var came, late atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				email := fmt.Sprintf("slow%d@%d.example", j, i)
				a, err := c.Resolve(ctx, Query{Type: TypeHost, Email: email})
				cancel()
				if err == nil && a.Data() != email {
					t.Errorf("asked about %s: %q", email, a)
				}
				came.Add(int32(bit(err == nil)))
				late.Add(int32(bit(err != nil)))
				askEcho(t, c, fmt.Sprintf("next%d@%d.example", j, i))
			}
		})
	}
	wg.Wait()
	t.Logf("%d answers came in time, %d late", came.Load(), late.Load())
}

func TestClientCancel(t *testing.T) {
	dir := t.TempDir()
	s := &cServer{keep: true, answer: func(r request) Answer {
		if r.email[0] == 's' {
			return ""
		}
		return echoBytes(r)
	}}
	s.start(t, dir, "infifo.1")
	fullPath := filepath.Join(t.TempDir(), "full")
	if err := syscall.Mkfifo(fullPath, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(fullPath, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	for _, what := range []string{"a new FIFO", "a kept FIFO", "a full request FIFO", "cancelled before"} {
		c, tmp := newClient(t, dir)
		switch what {
		case "a kept FIFO":
			askEcho(t, c, "first@example.com")
		case "a full request FIFO":
			c.Infifo = fullPath
		}
		ctx, cancel := context.WithCancel(context.Background())
		if what == "cancelled before" {
			cancel()
		} else {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		start := time.Now()
		a, err := c.Resolve(ctx, Query{Type: TypeHost, Email: "silent@example.com"})
		if took := time.Since(start); !errors.Is(err, ErrUnavailable) || took > 15*time.Second || took < 90*time.Millisecond && what != "cancelled before" {
			t.Errorf("%s: %q, %v after %v", what, a, err, took)
		}
		cancel()
		if left := files(t, tmp); len(left) > 0 {
			t.Errorf("%s: left %q", what, left)
		}
	}
}

func TestClientCloseInUse(t *testing.T) {
	dir, release := t.TempDir(), make(chan struct{})
	s := &cServer{keep: true, answer: func(r request) Answer { <-release; return echoBytes(r) }}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { askEcho(t, c, "user@example.com") })
	}
	eventually(t, "five ask", func() bool { return len(files(t, tmp)) == 5 })
	c.Close()
	close(release)
	wg.Wait()
	if left := files(t, tmp); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestNoServer(t *testing.T) {
	dir := t.TempDir()
	deaf, file := filepath.Join(dir, "deaf"), filepath.Join(dir, "file")
	if err := errors.Join(syscall.Mkfifo(deaf, 0o600), os.WriteFile(file, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), deaf, file, dir} {
		c, tmp := newClient(t, dir)
		c.Infifo = path
		for range 2 {
			a, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
			if a != "" || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %q, %v", path, a, err)
			}
		}
		if left := files(t, tmp); len(left) > 0 {
			t.Errorf("%s: left %q", path, left)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "precious" || err != nil {
		t.Errorf("the file holds %q, %v", b, err)
	}
	c, _ := newClient(t, dir, "FIFOTMPDIR", filepath.Join(dir, "nowhere"))
	if a, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no FIFOTMPDIR: %q, %v", a, err)
	}
}

func TestClientErrors(t *testing.T) {
	dir, answer := t.TempDir(), atomic.Value{}
	s := &cServer{keep: true, answer: func(r request) Answer { return answer.Load().(Answer) }}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	for _, e := range []struct {
		typ    Type
		answer Answer
		want   error
		kept   bool // the reply FIFO, afterwards
	}{
		{TypeUser, NewAnswer(0), nil, true},
		{TypeUser, NewAnswer(-1), ErrUnavailable, true},
		{TypePasswd, NewAnswer(0), ErrUnavailable, true},
		{TypePasswd, NewAnswer(-1), ErrUnavailable, true},
		{TypeHost, NewAnswer(0), nil, true},
		{TypeHost, NewAnswer(4097), ErrInvalid, false},
		{TypeHost, NewAnswer(1 << 30), ErrInvalid, false},
		{TypeHost, NewData(TypeHost, strings.Repeat("x", 4095)), nil, true},
		{TypeUser, NewAnswer(0) + "more", nil, false}, // the answer stands, but who wrote the rest?
		{TypeUser, NewAnswer(4), nil, true},           // no data follows a status
		{TypeHost, NewData(TypeHost, "d:h:25") + "x", nil, false},
		{TypeStatus, NewData(TypeStatus, strings.Repeat("x", 50000)), nil, true},
		{TypeStatus, NewAnswer(1 << 20), ErrInvalid, false},
	} {
		answer.Store(NewData(TypeHost, "user@example.com"))
		askEcho(t, c, "user@example.com")
		before := files(t, tmp)
		answer.Store(e.answer)
		a, err := c.Resolve(context.Background(), Query{Type: e.typ, Email: "user@example.com"})
		if !errors.Is(err, e.want) || e.want == nil && !strings.HasPrefix(string(e.answer), string(a)) || e.want != nil && a != "" {
			t.Errorf("%v %.20q: %.20q, %v", e.typ, e.answer, a, err)
		}
		if kept := slices.Equal(files(t, tmp), before); kept != e.kept {
			t.Errorf("%v %.20q: the reply FIFO is kept: %v", e.typ, e.answer, kept)
		}
	}
	before := files(t, tmp)
	for _, q := range []Query{{Type: 0}, {Type: TypeRelay}, {Type: TypeUser, Email: "a\x00b"}} {
		if _, err := c.Resolve(context.Background(), q); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: %v", q, err)
		}
	}
	if _, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: strings.Repeat("x", 4096)}); !errors.Is(err, ErrTooLong) || errors.Is(err, ErrUnavailable) {
		t.Errorf("too long: %v", err)
	}
	if left := files(t, tmp); len(left) > len(before) {
		t.Errorf("left %q", left)
	}
}

// TestClientInstances: questions are spread over the server's FIFOs, and go to another when one has no reader.
func TestClientInstances(t *testing.T) {
	dir := t.TempDir()
	var asked [4]atomic.Int32
	var stop [4]func()
	for i := 1; i <= 3; i++ {
		s := &cServer{keep: true, answer: func(r request) Answer { asked[i].Add(1); return echoBytes(r) }}
		stop[i] = s.start(t, dir, fmt.Sprint("infifo.", i))
	}
	c, _ := newClient(t, dir)
	for range 300 {
		askEcho(t, c, "user@example.com")
	}
	for i := 1; i <= 3; i++ { // 100 expected, standard deviation 8
		if n := asked[i].Load(); n < 40 {
			t.Errorf("FIFO %d: %d of 300 questions", i, n)
		}
	}
	stop[1]()
	stop[3]()
	for range 20 {
		askEcho(t, c, "user@example.com")
	}
	// Now one without instances follows.
	stop[2]()
	for i := 1; i <= 3; i++ {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint("infifo.", i))); err != nil {
			t.Fatal(err)
		}
	}
	(&cServer{keep: true, answer: echoBytes}).start(t, dir, "infifo")
	for range 20 {
		askEcho(t, c, "user@example.com")
	}
}

// TestRestart asks all the time while servers come and go: who finds one is answered.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c, _ := newClient(t, dir)
	for i := range 20 {
		_, stop := serve(t, &Server{Resolver: &Cache{Resolver: echo}, Getenv: environment("INFIFODIR", dir), Instances: 1 + i%3})
		for j := range 5 {
			askEcho(t, c, fmt.Sprintf("user%d@%d.example", j, i))
		}
		stop()
	}
}

func TestClientTimeout(t *testing.T) {
	dir := t.TempDir()
	(&cServer{answer: func(request) Answer { return "" }}).start(t, dir, "infifo")
	for content, want := range map[string]time.Duration{"1\n": time.Second, "": 4 * time.Second} {
		if testing.Short() && content == "" {
			continue
		}
		control := controls(t, map[string]string{"timeoutread": content})
		c, _ := newClient(t, dir, "CONTROLDIR", control)
		c.Timeout = 0
		start := time.Now()
		_, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
		if took := time.Since(start); !errors.Is(err, ErrUnavailable) || took < want || c.Timeout != want {
			t.Errorf("timeoutread %q: %v after %v of %v", content, err, took, c.Timeout)
		}
	}
	for _, content := range []string{"x", "0", "-1", "1.5", "4s", "99999999999"} {
		control := controls(t, map[string]string{"timeoutread": content})
		c, _ := newClient(t, dir, "CONTROLDIR", control)
		c.Timeout = 0
		for range 2 {
			_, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
			if err == nil || !strings.Contains(err.Error(), filepath.Join(control, "timeoutread")+":1:") {
				t.Errorf("timeoutread %q: %v", content, err)
			}
		}
	}
}

func TestInquery(t *testing.T) {
	dir, _ := serve(t, &Server{Resolver: echo})
	got := child(t, "inquery", nil, "QUERY_CACHE=1", "INFIFODIR="+dir, "FIFOTMPDIR="+t.TempDir())
	if want := fmt.Sprintf("*inlookup.Client true %q <nil>", NewData(TypeDomain, "Example.com")); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := child(t, "kind", nil); got != "*inlookup.MySQL" {
		t.Errorf("without QUERY_CACHE: %s", got)
	}
	got = child(t, "inquery", nil, "CONTROLDIR="+controls(t, nil), "ASSIGNDIR="+t.TempDir())
	if want := fmt.Sprintf("*inlookup.MySQL true %q <nil>", NewData(TypeDomain, "example.com")); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestTCP asks over descriptors 6 and 7, as under tcpclient, a server as under tcpserver.
func TestTCP(t *testing.T) {
	requests, toServer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	toClient, replies, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- (&Server{Resolver: echo}).ServeConn(context.Background(), requests, replies) }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	got := child(t, "inquery", []*os.File{null, null, null, toClient, toServer},
		"QUERY_CACHE=1", "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1", "INFIFODIR=/nowhere")
	if want := fmt.Sprintf("*inlookup.Client true %q <nil>", NewData(TypeDomain, "Example.com")); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, f := range []*os.File{requests, toServer, toClient, replies, null} {
		f.Close()
	}
}

// --- What the package promises.

// exported returns the exported names of the package, those of methods and fields behind the type.
func exported(t testing.TB) (names []string) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	add := func(of string, ids ...*ast.Ident) {
		for _, id := range ids {
			if id.IsExported() && (of == "" || ast.IsExported(of)) {
				names = append(names, strings.TrimPrefix(of+"."+id.Name, "."))
			}
		}
	}
	members := func(spec *ast.TypeSpec) {
		var list *ast.FieldList
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			list = typ.Fields
		case *ast.InterfaceType:
			list = typ.Methods
		default:
			return
		}
		for _, field := range list.List {
			add(spec.Name.Name, field.Names...)
			if id, ok := field.Type.(*ast.Ident); ok && field.Names == nil {
				add(spec.Name.Name, id)
			}
		}
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				of := ""
				if decl.Recv != nil {
					ast.Inspect(decl.Recv.List[0].Type, func(n ast.Node) bool {
						if id, ok := n.(*ast.Ident); ok && of == "" {
							of = id.Name
						}
						return true
					})
				}
				add(of, decl.Name)
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						add("", spec.Names...)
					case *ast.TypeSpec:
						add("", spec.Name)
						members(spec)
					}
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

// TestExported: a change of what others may use is a decision. Make it here too.
func TestExported(t *testing.T) {
	want := strings.Fields(`
		Absent Answer Answer.Alias Answer.Code Answer.Data Answer.Limits Answer.Passwd Answer.Relay Answer.Status Answer.Text
		Cache Cache.DefaultDomain Cache.Explain Cache.Fill Cache.Flush Cache.LoadTimeout Cache.MaxEntries
		Cache.NegativeTTL Cache.Resolve Cache.Resolver Cache.Size Cache.Stale Cache.Stats Cache.TTL
		CacheStats CacheStats.Bytes CacheStats.Coalesced CacheStats.Entries CacheStats.Evicted CacheStats.Flushed
		CacheStats.Hits CacheStats.LoadErrors CacheStats.Misses CacheStats.Stale
		Client Client.Close Client.Getenv Client.Infifo Client.Resolve Client.Timeout
		Directory Directory.Alias Directory.Domain Directory.Host Directory.Limits Directory.Passwd Directory.Relay
		Directory.Resolver Directory.Status
		Entry Entry.Absent Entry.Age Entry.Bytes Entry.Left Entry.Stale
		ErrInvalid ErrNotFound ErrServed ErrTooLong ErrUnavailable FromEnv Inquery
		Limits Limits.DefaultMaxMsgCount Limits.DefaultQuota Limits.DisableDialup Limits.DisableIMAP
		Limits.DisablePasswordChanging Limits.DisablePop Limits.DisableRelay Limits.DisableSMTP Limits.DisableWebmail
		Limits.DiskQuota Limits.DomainExpiry Limits.LimitType Limits.MaxAliases Limits.MaxAutoresponders
		Limits.MaxForwards Limits.MaxMailinglists Limits.MaxMsgCount Limits.MaxPopAccounts Limits.PasswdExpiry
		Limits.PermAccount Limits.PermAlias Limits.PermAutoresponder Limits.PermDefaultQuota Limits.PermForward
		Limits.PermMaillist Limits.PermMaillistModerators Limits.PermMaillistUsers Limits.PermQuota
		MySQL MySQL.Check MySQL.Close MySQL.Getenv MySQL.Log MySQL.Place MySQL.Recent MySQL.Reload MySQL.Resolve MySQL.Stats
		MySQLStats MySQLStats.Calls MySQLStats.Errors MySQLStats.Time
		NewAnswer NewData NewLimits NewPasswd
		Passwd Passwd.Dir Passwd.Email Passwd.GID Passwd.Gecos Passwd.Inactive Passwd.Passwd Passwd.Shell Passwd.UID
		Place Place.Database Place.Distributed Place.MailStore Place.RealDomain
		Query Query.Email Query.IP Query.Type
		Resolver Resolver.Resolve
		Server Server.About Server.Debug Server.Getenv Server.Infifo Server.Instances Server.Listen Server.Log
		Server.Out Server.Resolver Server.Serve Server.ServeConn Server.Stats
		ServerStats ServerStats.Busy ServerStats.Queries ServerStats.Refused ServerStats.Started
		ServerStats.Unavailable ServerStats.Undeliverable ServerStats.Waiting
		Status Status.String
		StatusAbsent StatusActive StatusAlias StatusInactive StatusOverQuota
		Type Type.String
		TypeAlias TypeDomain TypeExplain TypeFlush TypeHost TypeLimit TypePasswd TypeRelay TypeStatus TypeUser
	`)
	slices.Sort(want)
	got := exported(t)
	if !slices.Equal(got, want) {
		only := func(a, b []string) []string {
			return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
		}
		t.Errorf("new: %q\ngone: %q", only(got, want), only(want, got))
	}
}
