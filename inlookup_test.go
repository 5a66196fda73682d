package inlookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// controls makes a control directory with these files, and returns its path.
func controls(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, content)
	}
	return dir
}

// configured returns a MySQL that goes by the files in dir, assign among them, and by the
// environment.
func configured(t testing.TB, dir string, env ...string) *MySQL {
	env = append([]string{"CONTROLDIR", dir, "ASSIGNDIR", dir}, env...)
	m := &MySQL{Getenv: environment(env...)}
	t.Cleanup(func() { m.Close() })
	return m
}

func currentConfig(t testing.TB, m *MySQL) *config {
	t.Helper()
	c, err := m.current()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (db database) String() string {
	return fmt.Sprintf("%s %s %s %s %s %s %v",
		db.hosts, db.port, db.socket, db.user, db.passwd, db.name, db.tls)
}

// databases returns what m would connect to: "hosts port socket user password name tls".
func databases(t testing.TB, m *MySQL) (list []string) {
	t.Helper()
	for _, p := range currentConfig(t, m).pools {
		list = append(list, p.of.String())
	}
	return list
}

// --- Where the databases are.

func TestDatabases(t *testing.T) {
	file := func(content string) map[string]string { return map[string]string{"host.mysql": content} }
	both := func(local, central string) map[string]string {
		return map[string]string{"host.mysql": local, "host.cntrl": central}
	}
	variables := []string{"MYSQL_USER", "eu", "MYSQL_PASSWD", "ep", "MYSQL_DATABASE", "ed",
		"MYSQL_SOCKET", "/es", "MYSQL_VPORT", "33"}
	for _, c := range []struct {
		name  string
		files map[string]string
		env   []string
		want  []string
	}{
		{"nothing", nil, nil, []string{"localhost   indimail  indimail false"}},
		{"empty file", file(""), nil, []string{"localhost   indimail  indimail false"}},
		{"host alone", file("db.example"), nil, []string{"db.example   indimail  indimail false"}},
		{"to the password", file("h:u:p\n"), nil, []string{"h   u p indimail false"}},
		{"to the port", file("h:u:p:3307\n"), nil, []string{"h 3307  u p indimail false"}},
		{"with ssl", file("h:u:p:3307:ssl\n"), nil, []string{"h 3307  u p indimail true"}},
		{"with nossl", file("h:u:p:3307:nossl\n"), nil, []string{"h 3307  u p indimail false"}},
		{"socket", file("localhost:u:p:/run/my.sock:nossl\n"), nil,
			[]string{"localhost  /run/my.sock u p indimail false"}},
		{"empty parts", file("h::::\n"), nil, []string{"h   indimail  indimail false"}},
		{"no host", file(":u:p\n"), nil, []string{"localhost   u p indimail false"}},
		{"comments and blanks", file("# the server\n\n \t h:u:p#1 \r\n\n"), nil,
			[]string{"h   u p#1 indimail false"}},
		{"only the first line", file("h:u:p\nother:v:q:1:ssl\n"), nil,
			[]string{"h   u p indimail false"}},
		{"several hosts", file("a.example,b.example:u:p:3306"), nil,
			[]string{"a.example,b.example 3306  u p indimail false"}},
		{"IPv6", file("[::1],[::2]:u:p:3306"), nil, []string{"[::1],[::2] 3306  u p indimail false"}},
		{"IPv6 alone", file("::1"), nil, []string{"::1   indimail  indimail false"}},
		{"two colons", file("::"), nil, []string{"localhost   indimail  indimail false"}},
		{"blanks around MYSQL_HOST", nil, []string{"MYSQL_HOST", " h:u\r\n"},
			[]string{"h   u  indimail false"}},
		{"MYSQL_HOST of blanks", file("h:u"), []string{"MYSQL_HOST", " \r"},
			[]string{"h   u  indimail false"}},
		{"blanks within a password of mcdinfo", map[string]string{"mcdinfo": "domain\td\t0\n" +
			"server s\nmdahost m\nport\t1\nuse_ssl 0\ndatabase d\nuser u\npass \t p  q\tr \n"}, nil,
			[]string{"localhost   indimail  indimail false", "s 1  u p  q\tr d false"}},
		{"variables", nil, append(variables, "MYSQL_HOST", "eh"), []string{"eh 33 /es eu ep ed false"}},
		{"a field of the file overrides a variable", file("h:u:p:44"), variables,
			[]string{"h 44  u p ed false"}},
		{"a socket overrides a port", file("h:::/s"), variables, []string{"h  /s eu ep ed false"}},
		{"variables for what the file leaves out", file("h"), variables,
			[]string{"h 33 /es eu ep ed false"}},
		{"MYSQL_HOST overrides the file", file("h:u:p:44:ssl"), []string{"MYSQL_HOST", "eh"},
			[]string{"eh   indimail  indimail false"}},
		{"MYSQL_HOST with fields", file("h:u:p:44"), append(variables, "MYSQL_HOST", "eh:v:q:55:ssl"),
			[]string{"eh 55  v q ed true"}},
		{"what makes no port or TLS", file("h:u:p:x:tls:more"), variables,
			[]string{"h 33 /es u p ed false"}},
		{"text behind the port", file("h:u:p:3307tcp:ssl:more"), nil,
			[]string{"h 3307  u p indimail true"}},
		{"a relative socket", file("localhost:u:p:./s"), nil,
			[]string{"localhost  ./s u p indimail false"}},
		{"VPORT without a number", nil, []string{"MYSQL_SOCKET", "/s", "CNTRL_HOST", "c",
			"CNTRL_VPORT", "x"}, []string{"localhost  /s indimail  indimail false",
			"c  /s indimail  indimail false"}},
		{"VPORT with text behind it", nil, []string{"MYSQL_VPORT", "33x"},
			[]string{"localhost 33  indimail  indimail false"}},
		{"central", both("a:u:p:1", "b:v:q:2:ssl"), nil,
			[]string{"a 1  u p indimail false", "b 2  v q indimail true"}},
		{"central like local", both("a:u:p:1", "a:u:p:1"), nil, []string{"a 1  u p indimail false"}},
		{"central takes from local", both("a:u:p:1", "b"), nil,
			[]string{"a 1  u p indimail false", "b 1  u p indimail false"}},
		{"central by variables", nil,
			[]string{"CNTRL_HOST", "c", "CNTRL_DATABASE", "d", "MYSQL_USER", "u"},
			[]string{"localhost   u  indimail false", "c   u  d false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := configured(t, controls(t, c.files), c.env...)
			if got := databases(t, m); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestCutHosts(t *testing.T) {
	for text, want := range map[string][2]string{
		"":                     {"", ""},
		"h":                    {"h", ""},
		"h:":                   {"h", ""},
		"h:u:p":                {"h", "u:p"},
		":u":                   {"", "u"},
		"a,b:u":                {"a,b", "u"},
		"::1":                  {"::1", ""},
		"2001:db8::1":          {"2001:db8::1", ""},
		"[::1]":                {"[::1]", ""},
		"[::1]:u":              {"[::1]", "u"},
		"a,[2001:db8::1]:25":   {"a,[2001:db8::1]", "25"},
		"[::1],[::2]:u:p]:x":   {"[::1],[::2]", "u:p]:x"},
		"[::1":                 {"[::1", ""},
		"192.0.2.1:25":         {"192.0.2.1", "25"},
		"2001:db8::1:u:secret": {"2001", "db8::1:u:secret"},
	} {
		hosts, rest := cutHosts(text)
		if hosts != want[0] || rest != want[1] {
			t.Errorf("%q: %q and %q, want %q", text, hosts, rest, want)
		}
	}
}

func TestLines(t *testing.T) {
	const content = "\n  a b \r\n#c\n  # d\ne#f\n\t\n g # h\n##\nlast"
	for wholeLine, want := range map[bool]string{
		true:  "2 a b|5 e#f|7 g # h|9 last",
		false: "2 a b|5 e|7 g|9 last",
	} {
		path := filepath.Join(controls(t, map[string]string{"file": content}), "file")
		c := new(config)
		var got []string
		for _, l := range c.lines(path, wholeLine) {
			number, _ := strings.CutPrefix(l.where, path+":")
			got = append(got, number+" "+l.text)
		}
		if strings.Join(got, "|") != want || len(c.errs) > 0 {
			t.Errorf("whole lines %v: %q, %v", wholeLine, got, c.errs)
		}
		if lines := c.lines(path+"-none", wholeLine); len(lines)+len(c.errs) > 0 {
			t.Errorf("no file: %v, %v", lines, c.errs)
		}
		c.lines(filepath.Dir(path), wholeLine)
		if len(c.errs) != 1 {
			t.Errorf("a directory: %v", c.errs)
		}
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
user indimail # the same one
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
pass p

domain tls.example
server db2.example
mdahost 192.0.2.28
port 3307
use_ssl 0
database mail
user u
pass p
`

// storeList describes the stores: "domain mdahost hosts", then * if distributed and ! if broken.
func storeList(c *config) string {
	var list []string
	for _, s := range c.stores {
		text := s.domain + " " + s.mdahost + " " + s.db.hosts
		if s.distributed {
			text += " *"
		}
		if s.broken != nil {
			text += " !"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func TestReadStores(t *testing.T) {
	const entry = "server s\nmdahost m\nport 1\nuse_ssl 0\ndatabase d\nuser u\npass p\n"
	change := func(old, new string) string { return strings.Replace(entry, old, new, 1) }
	other := "domain o 0\n" + strings.ReplaceAll(entry, "mdahost m", "mdahost n")
	for _, c := range []struct{ name, content, want string }{
		{"the sample", mcdinfo, "example.com 192.0.2.25 db1.example, " +
			"dist.example.net 192.0.2.26 db1.example *, dist.example.net 192.0.2.27 db2.example *, " +
			"tls.example 192.0.2.28 db2.example"},
		{"empty", "# none\n\n", ""},
		{"no flag is 0", "domain d\n" + entry, "d m s"},
		{"another flag is 0", "domain d 2\n" + entry, "d m s"},
		{"distributed", "domain D.Example 1\n" + entry, "d.example m s *"},
		{"keys we do not know", "version 2\ndomain d 0\nsocket x\n" + entry + "socket y\n", "d m s"},
		{"empty password", "domain d 0\n" + change("pass p", "pass"), "d m s !"},
		{"empty server", "domain d 0\n" + change("server s", "server"), "d m  !"},
		{"two stores", "domain d 1\n" + entry + entry, "d m s *, d m s *"},
		{"incomplete", "domain d 0\n" + change("user u\n", "") + other, "d m s !, o n s"},
		{"incomplete at the end", other + "domain d 0\nserver s\n", "o n s, d  s !"},
		{"a line twice", "domain d 0\nserver r\n" + entry, "d  r !, d m s"},
		{"incomplete, then complete", "domain d 1\n" + change("port 1\n", "") + entry,
			"d m s * !, d m s *"},
		{"port", "domain d 0\n" + change("port 1", "port x") + other, "d m s, o n s"},
		{"large port", "domain d 0\n" + change("port 1", "port 65536") + other, "d m s, o n s"},
		{"use_ssl", "domain d 0\n" + change("use_ssl 0", "use_ssl yes") + other, "d m s, o n s"},
		{"text behind numbers", "domain d 1x more\n" + change("port 1", "port 1 x"), "d m s *"},
		{"no domain", entry + other, "o n s"},
		{"comment", "domain d 0#x\n" + change("server s", "server s#t"), "d m s"},
	} {
		m := configured(t, controls(t, map[string]string{"mcdinfo": c.content}))
		if got := storeList(currentConfig(t, m)); got != c.want {
			t.Errorf("%s: got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestDomainWithoutEntry: a domain of which mcdinfo says nothing but the name is not to be looked
// for in the local database, which would call its users absent.
func TestDomainWithoutEntry(t *testing.T) {
	for _, content := range []string{"domain d 0\n", "domain d 1\n", "domain d 0\n" + mcdinfo} {
		m := configured(t, controls(t, map[string]string{"mcdinfo": content}))
		c := currentConfig(t, m)
		if !strings.HasPrefix(storeList(c), "d  ") || c.stores[0].broken == nil {
			t.Errorf("%.20q: stores %q", content, storeList(c))
		}
	}
}

// TestMCDFILE: the file of the stores may have another name, or be somewhere else.
func TestMCDFILE(t *testing.T) {
	dir := controls(t, map[string]string{"mcdinfo": "domain d 0\nserver s", "other": mcdinfo})
	for _, name := range []string{"other", filepath.Join(dir, "other")} {
		c := currentConfig(t, configured(t, dir, "MCDFILE", name))
		if len(c.stores) != 4 {
			t.Errorf("%s: %s", name, storeList(c))
		}
	}
	t.Chdir(dir)
	c := currentConfig(t, configured(t, t.TempDir(), "MCDFILE", "./other"))
	if len(c.stores) != 4 {
		t.Errorf("./other is a path: %s", storeList(c))
	}
}

// TestFIFOsInPlaceOfFiles: one that nobody writes to is an empty file, and hangs nobody.
func TestFIFOsInPlaceOfFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo", "assign", "hostip",
		"smtproutes", "qmtproutes", "timeoutread"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &MySQL{Getenv: environment("CONTROLDIR", dir, "ASSIGNDIR", dir)}
	done := make(chan error, 2)
	go func() { done <- errors.Join(m.Reload(false), m.Close()) }()
	go func() {
		_, err := environ{m.Getenv}.value("timeoutread", "4")
		done <- err
	}()
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a FIFO hangs")
		}
	}
}

// TestPools: databases that differ only in password and TLS share a pool, for which an entry that is
// incomplete does not count. A reload keeps the pools of those that did not change.
func TestPools(t *testing.T) {
	const broken = "domain broken.example\nserver db1.example\nport 3306\ndatabase indimail\n" +
		"user indimail\n"
	dir := controls(t, map[string]string{"mcdinfo": broken + mcdinfo, "host.mysql": "db0.example:u:p"})
	m := configured(t, dir)
	want := []string{"db0.example   u p indimail false",
		"db1.example 3306  indimail secret indimail false", "db2.example 3307  u p mail true"}
	if got := databases(t, m); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	distributed, err := m.DistributedDomains()
	if err != nil || !slices.Equal(distributed, []string{"dist.example.net"}) {
		t.Errorf("distributed: %q, %v", distributed, err)
	}
	old := slices.Clone(currentConfig(t, m).pools)
	writeFile(t, filepath.Join(dir, "host.mysql"), "db9.example:u:p")
	if err := m.Reload(false); err != nil {
		t.Fatal(err)
	}
	now := currentConfig(t, m).pools
	if now[0] == old[0] || now[1] != old[1] || now[2] != old[2] {
		t.Error("a reload makes other pools anew than that of the database that changed")
	}
	if err := m.Reload(true); err != nil {
		t.Fatal(err)
	}
	for i, p := range currentConfig(t, m).pools {
		if p == now[i] {
			t.Errorf("with reconnect, pool %s stays", p.name)
		}
	}
}

// --- Where an address is.

// cluster returns a MySQL with alias domains, stores and a domain list.
func cluster(t *testing.T) *MySQL {
	dir := controls(t, map[string]string{
		"mcdinfo": mcdinfo + "domain broken.example 0\nserver s\n",
		"hostip":  " 192.0.2.1 \nnot this\n", "host.mysql": "db0.example:u:p",
	})
	for name, target := range map[string]string{
		"alias": "domains/Real.example", "dangling": "/nowhere/gone.example/",
		"cluster": "domains/Example.com", "out": "domains/elsewhere.example",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	assign := ""
	for domain, link := range map[string]string{
		"alias.example": "/alias", "Dangling.example": "/dangling", "dir.example": "",
		"none.example": "/none", "cluster.example": "/cluster", "out.example": "/out",
		"odd.example": "/mcdinfo/x", "real.example": "", "gone.example": "", "both.example": "/alias",
	} {
		assign += "+" + domain + "-:" + domain + ":555:555:" + dir + link + ":-::\n"
	}
	writeFile(t, filepath.Join(dir, "assign"), assign+"=someone:else:has:other:lines\n.\n")
	return configured(t, dir,
		"DEFAULT_DOMAIN", "Example.COM", "REAL_DOMAINS", "x.example:Both.example")
}

func TestLocate(t *testing.T) {
	m := cluster(t)
	local := func(domain string) Location {
		return Location{domain, "indimail on db0.example", "192.0.2.1", false}
	}
	example := Location{"example.com", "indimail on db1.example", "192.0.2.25", false}
	for _, c := range []struct {
		typ   Type
		email string
		want  Location
	}{
		{TypeUser, "user@example.com", example},
		{TypeUser, "USER@Example.com", example},
		{TypeUser, "user", example},
		{TypeUser, "user@cluster.example", example},
		{TypeUser, "user%tls.example",
			Location{"tls.example", "mail on db2.example", "192.0.2.28", false}},
		{TypeUser, "user@alias.example", local("real.example")},
		{TypeUser, "user@dangling.example", local("gone.example")},
		{TypeUser, "user@dir.example", local("dir.example")},
		{TypeUser, "user@none.example", local("none.example")},
		{TypeUser, "user@both.example", local("both.example")},
		{TypeUser, "user@other.example", Location{RealDomain: "other.example"}}, // not in assign
		{TypeLimit, "other.example", local("other.example")},
		{TypeUser, "user@out.example", Location{RealDomain: "elsewhere.example"}},
		{TypeUser, "user@", Location{}},
		{TypeUser, "us\ner@example.com", Location{RealDomain: "example.com"}},
		{TypeUser, "us\xffer@example.com", Location{RealDomain: "example.com"}},
	} {
		got, err := m.Locate(context.Background(), Query{Type: c.typ, Email: c.email})
		if err != nil || got != c.want {
			t.Errorf("%v %q: %+v, %v\nwant %+v", c.typ, c.email, got, err, c.want)
		}
	}
	for _, email := range []string{"user@broken.example", "user@odd.example"} {
		got, err := m.Locate(context.Background(), Query{Type: TypeUser, Email: email})
		if err == nil || got.Database != "" {
			t.Errorf("%s: %+v, %v", email, got, err)
		}
		a, err := m.Resolve(context.Background(), Query{Type: TypeUser, Email: email})
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %q, %v", email, a, err)
		}
	}
	got, err := m.Locate(context.Background(), Query{Type: TypeLimit, Email: "dist.example.net"})
	if err != nil || got.Database != "indimail on db1.example" {
		t.Errorf("limits of a distributed domain: %+v, %v", got, err)
	}
}

// TestNoAssign: without a list of domains the local database decides.
func TestNoAssign(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"host.mysql": "db0.example:u:p"}))
	got, err := m.Locate(context.Background(), Query{Type: TypeUser, Email: "user@other.example"})
	want := Location{"other.example", "indimail on db0.example", "127.0.0.1", false}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestWithoutDatabase: what needs no database is answered without one.
func TestWithoutDatabase(t *testing.T) {
	m := cluster(t)
	ask := func(typ Type, email string) (Answer, error) {
		return m.Resolve(context.Background(), Query{typ, email, "192.0.2.1"})
	}
	for domain, want := range map[string]string{
		"alias.example": "real.example", "X.example": "x.example", "other.example": "other.example",
		"Ü.example": "ü.example", "": "",
	} {
		a, err := ask(TypeDomain, domain)
		if err != nil || !a.Equal(NewData(TypeDomain, want)) {
			t.Errorf("%s: %q, %v", domain, a, err)
		}
	}
	nowhere := []string{
		"@example.com", "us\x01er@example.com", "us\xffer@example.com", "user@", "@", "",
		"user@other.example", "user@out.example",
	}
	for _, email := range nowhere {
		for _, typ := range []Type{TypeUser, TypeRelay, TypePasswd, TypeHost, TypeAlias} {
			a, err := ask(typ, email)
			if want := absentAnswer(Query{Type: typ, Email: email}); err != nil || !a.Equal(want) {
				t.Errorf("%v %q: %q, %v", typ, email, a, err)
			}
		}
	}
	for _, q := range []Query{
		{Type: 0}, {Type: 8}, {Type: TypeStatus}, {TypeRelay, "user@example.com", ""},
	} {
		a, err := m.Resolve(context.Background(), q)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %q, %v", q, a, err)
		}
	}
	if s := m.Stats(); s.Calls != 0 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRoutes(t *testing.T) {
	const routes = "# comment\nexample.com:192.0.2.25:2525\nExample.COM:late:1\n" +
		"Name.example:relay.example:26\nnoport.example:relay.example\nempty.example:relay.example:\n" +
		"v6.example:[2001:db8::1]:2626\nv6no.example:[2001:db8::1]\nv6bare.example:2001:db8::1\n" +
		"norelay.example::27\nauth.example:relay.example:28 user pass#word\n" +
		"authno.example:relay.example user:97pass 99\ncut.example:r:29#:30\nno colon here\n" +
		"bad.example:relay:x\n" +
		"long.example:relay.example:2527:3600:120\nlong6.example:[2001:db8::1]:2528:3600:120 u p e\n" +
		"nopen.example:relay.example:2529:\ndef.example:relay.example::3600:120\n" +
		"none.example::2530:3600 /s\ntoken.example:relay.example:2531 /token\n" +
		"only.example: /r\n!@:relay.example:2532\n.sub.example:relay.example:2533\n" +
		"text.example:relay.example:2534x\nbadpen.example:relay.example:2535:x:y\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		env   []string
		want  map[string]string // port by domain
	}{
		{"none", nil, nil, map[string]string{"example.com": "25"}},
		{"smtp", map[string]string{"smtproutes": routes}, nil, map[string]string{
			"example.com": "2525", "name.example": "26", "noport.example": "25", "empty.example": "25",
			"v6.example": "2626", "v6no.example": "25", "v6bare.example": "25",
			"norelay.example": "27", "auth.example": "28", "authno.example": "25",
			"cut.example": "29", "other.example": "25", "bad.example": "25",
			"long.example": "2527", "long6.example": "2528", "nopen.example": "2529",
			"def.example": "25", "none.example": "2530", "token.example": "2531",
			"only.example": "25", "a.sub.example": "25", "sub.example": "25",
			"text.example": "2534", "badpen.example": "2535"}},
		{"for all others", map[string]string{"smtproutes": "a.example:r:1\n:r:2\nb.example:r:3\n"}, nil,
			map[string]string{"a.example": "1", "b.example": "2", "c.example": "2"}},
		{"lines without a colon", map[string]string{
			"smtproutes": "a.example\na.example:r:1\nb.example\n:r:2\n"}, nil,
			map[string]string{"a.example": "1", "b.example": "2"}},
		{"qmtp file", map[string]string{
			"smtproutes": routes, "qmtproutes": "a.example:r:1\nb.example:r\n"}, nil,
			map[string]string{"a.example": "1", "b.example": "209", "example.com": "209"}},
		{"qmtp by environment", map[string]string{"smtproutes": routes}, []string{"ROUTES", "qmtp"},
			map[string]string{"example.com": "209"}},
		{"smtp by environment", map[string]string{"smtproutes": routes, "qmtproutes": ""},
			[]string{"ROUTES", "smtp"}, map[string]string{"example.com": "2525"}},
		{"static", map[string]string{"smtproutes": "", "qmtproutes": routes},
			[]string{"ROUTES", "static"}, map[string]string{
				"example.com": "2525", "long.example": "2527", "noport.example": "209"}},
		{"dynamic, without the file", map[string]string{"smtproutes": routes},
			[]string{"ROUTES", "dynamic"}, map[string]string{"example.com": "2525"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := configured(t, controls(t, c.files), c.env...)
			tables := newTables(t, m)
			for domain, want := range c.want {
				tables.rows["indimail"] = []tableRow{{"pw_name": "user", "pw_domain": domain}}
				q := Query{Type: TypeHost, Email: "user@" + domain}
				a, err := m.Resolve(context.Background(), q)
				if err != nil || a.Data() != domain+":127.0.0.1:"+want {
					t.Errorf("%s: %q, %v, want port %s", domain, a.Data(), err, want)
				}
			}
		})
	}
}

// --- What is wrong with the files.

const secret = "hunter2"

// TestWarnings: a line of no use is skipped with a warning that names file and line, and never
// its text. It stops nothing.
func TestWarnings(t *testing.T) {
	const head = "domain example.com 0\n"
	entry := func(old, new string) string {
		s := head + "server s\nmdahost 192.0.2.1\nport 3306\nuse_ssl 0\ndatabase d\nuser u\n" +
			"pass " + secret + "\n"
		if !strings.Contains(s, old) {
			t.Fatal(old)
		}
		return strings.Replace(s, old, new, 1)
	}
	for _, c := range []struct {
		file, content string
		lines         string // of the warnings
	}{
		{"mcdinfo", entry("", ""), ""},
		{"mcdinfo", entry("domain example.com 0", "domain example.com"), ""},
		{"mcdinfo", entry(head, ""), "1 2 3 4 5 6 7"},
		{"mcdinfo", entry("domain example.com 0", "domain"), "1"},
		{"mcdinfo", entry("server s\n", ""), "1"},
		{"mcdinfo", entry("server s", "servant s"), "1"},
		{"mcdinfo", entry("server s", "server s\nserver s"), "1"},
		{"mcdinfo", entry("server s", "server s\ndomain example.org 0"), "1 3"},
		{"mcdinfo", entry("domain example.com 0", "domain example.com one"), "1"},
		{"mcdinfo", entry("domain example.com 0", "domain example.com 1one more"), ""},
		{"mcdinfo", entry("port 3306", "port x"), "4"},
		{"mcdinfo", entry("port 3306", "port 65536"), "4"},
		{"mcdinfo", entry("port 3306", "port -1"), "4"},
		{"mcdinfo", entry("port 3306", "port 3306/tcp"), ""},
		{"mcdinfo", entry("use_ssl 0", "use_ssl yes"), "5"},
		{"host.mysql", "h:u:" + secret + ":port", "1"},
		{"host.mysql", "h:u:" + secret + ":65536", "1"},
		{"host.mysql", "h:u:" + secret + ":-1", "1"},
		{"host.mysql", "h:u:" + secret + ":3306/tcp:nossl", ""},
		{"host.mysql", "h:u:" + secret + ":3306:tls", "1"},
		{"host.mysql", "\n# x\nh:u:" + secret + ":3306:ssl:more", "3"},
		{"host.mysql", "h:u:" + secret + "::::", "1"},
		{"host.cntrl", "\nh:u:" + secret + ":x", "2"},
		{"MYSQL_HOST", "h:u:" + secret + ":x", "-"},
		{"CNTRL_HOST", "h:u:" + secret + ":1:2", "-"},
		{"CNTRL_HOST", "h:u:" + secret + ":1:ssl:3", "-"},
		{"MYSQL_VPORT", secret, "-"},
		{"CNTRL_VPORT", "65536" + secret, "-"},
		{"MYSQL_VPORT", "3307" + secret, ""},
		{"RELAY_CLEAR_MINUTES", secret, "-"},
		{"RELAY_CLEAR_MINUTES", "30 minutes", ""},
		{"RELAY_CLEAR_MINUTES", "1000000", ""},
		{"RELAY_CLEAR_MINUTES", "99999999999999999999", ""},
		{"mcdinfo", entry("pass "+secret, "pass="+secret), "1"},
		{"mcdinfo", entry("pass "+secret, secret), "1"},
		{"mcdinfo", entry("pass "+secret, "pass "+secret+"\npass "+secret), "9"},
		{"mcdinfo", entry(head, "h:u:"+secret+":3306\n"+head), ""},
		{"assign", "# x\n+example.com-:example.com:555:555\n", "2"},
		{"assign", "+example.com-\n", "1"},
		{"assign", "=a:b\nno plus\n.\n", ""},
		{"assign", ".\n+example.com-\n", ""},
		{"smtproutes", "example.com\n" + secret + "\n", ""},
		{"smtproutes", "\n\nexample.com:relay:x u " + secret + "\nd:r:25\nd:r:-1\nd:r:2x:y\n", "3 5"},
		{"smtproutes", "example.com:192.0.2.1:65536\n", "1"},
		{"qmtproutes", "example.com:relay:qmtp\n", "1"},
		{"hostip", "mail.example.com\n", "1"},
	} {
		var files map[string]string
		var env []string
		if strings.ToUpper(c.file) == c.file {
			env = []string{c.file, c.content}
		} else {
			files = map[string]string{c.file: c.content}
		}
		dir := controls(t, files)
		path := filepath.Join(dir, c.file)
		if env != nil {
			path = c.file
		}
		m := configured(t, dir, env...)
		var b bytes.Buffer
		m.Log = log.New(&b, "", 0)
		if err := m.Reload(false); err != nil {
			t.Errorf("%s %q: %v", c.file, c.content, err)
		}
		var lines []string
		for line := range strings.Lines(b.String()) {
			_, rest, ok := strings.Cut(line, path+":")
			if !ok || !strings.HasPrefix(line, "warning: ") || strings.Contains(line, secret) {
				t.Errorf("%s %q: %s", c.file, c.content, line)
			}
			number, _, _ := strings.Cut(rest, ":")
			if env != nil {
				number = "-"
			}
			lines = append(lines, number)
		}
		if got := strings.Join(lines, " "); got != c.lines {
			t.Errorf("%s %q: warnings of lines %s, want %s", c.file, c.content, got, c.lines)
		}
	}
}

// TestUnreadable: a file that is there and cannot be read is an error that names it. The
// configuration in force stays.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"host.mysql", "host.cntrl", "host.master", "mcdinfo", "assign"} {
		dir := controls(t, map[string]string{"host.mysql": "before:u:" + secret})
		m := configured(t, dir)
		if err := m.Reload(false); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		os.Remove(path)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		err := m.Reload(len(name)%2 == 0)
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
		if got := databases(t, m); len(got) != 1 || !strings.HasPrefix(got[0], "before ") {
			t.Errorf("%s: now in force: %q", name, got)
		}
		fresh := configured(t, dir)
		a, err := fresh.Resolve(context.Background(), Query{Type: TypeDomain, Email: "d"})
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s, and no configuration in force: %q, %v", name, a, err)
		}
	}
}

// TestBlankHost: a host with a blank in it is an error, and the only one: no database is asked. The
// configuration in force stays.
func TestBlankHost(t *testing.T) {
	for _, name := range []string{"host.mysql", "host.cntrl", "host.master", "MYSQL_HOST", "CNTRL_HOST"} {
		for _, text := range []string{"h h:u:" + secret, "a, b:u:" + secret, "h\tu " + secret} {
			dir := controls(t, map[string]string{"host.mysql": "before:u:" + secret})
			env := map[string]string{"CONTROLDIR": dir, "ASSIGNDIR": dir}
			m := &MySQL{Getenv: func(name string) string { return env[name] }}
			t.Cleanup(func() { m.Close() })
			if err := m.Reload(false); err != nil {
				t.Fatal(err)
			}
			where := name + ":"
			if strings.ToUpper(name) == name {
				env[name] = text
			} else {
				writeFile(t, filepath.Join(dir, name), text)
				where += "1:"
			}
			err := m.Reload(false)
			if err == nil || !strings.Contains(err.Error(), where) ||
				strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %q: %v", name, text, err)
			}
			if got := databases(t, m); len(got) != 1 || !strings.HasPrefix(got[0], "before ") {
				t.Errorf("%s %q: now in force: %q", name, text, got)
			}
		}
	}
}

// TestSeveralErrors: all that is wrong is told at once.
func TestSeveralErrors(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"host.mysql/x": "", "host.cntrl/x": ""}))
	err := m.Reload(false)
	for _, want := range []string{"host.mysql", "host.cntrl"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestReadablePasswordWarning(t *testing.T) {
	files := map[string]string{"host.mysql": "h:u:" + secret, "host.cntrl": "h:u:" + secret,
		"mcdinfo": mcdinfo, "smtproutes": "d:r:25"}
	dir := controls(t, files)
	var b bytes.Buffer
	m := configured(t, dir)
	m.Log = log.New(&b, "", 0)
	if err := m.Reload(false); err != nil || b.Len() > 0 {
		t.Errorf("%v, %q", err, &b)
	}
	for name := range files {
		path := filepath.Join(dir, name)
		for mode, readable := range map[fs.FileMode]bool{0o640: false, 0o644: true} {
			b.Reset()
			if err := errors.Join(os.Chmod(path, mode), m.Reload(false)); err != nil {
				t.Error(err)
			}
			s := b.String()
			warned := strings.Contains(s, path) && strings.Count(s, "\n") == 1
			if warned != (readable && name != "smtproutes") || strings.Contains(s, secret) {
				t.Errorf("%s, mode %v: %q", name, mode, s)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Error(err)
		}
	}
	b.Reset()
	m = configured(t, dir, "MCDFILE", "/dev/null")
	m.Log = log.New(&b, "", 0)
	if err := m.Reload(false); err != nil || b.Len() > 0 {
		t.Errorf("/dev/null: %v, %q", err, &b)
	}
}

// TestFailedReload leaves nothing behind of what it had begun.
func TestFailedReload(t *testing.T) {
	for _, name := range []string{"host.mysql", "host.cntrl"} {
		m := configured(t, controls(t, map[string]string{name + "/x": "", "mcdinfo": mcdinfo}))
		goroutines := runtime.NumGoroutine()
		for range 20 {
			if err := m.Reload(false); err == nil {
				t.Fatalf("%s is accepted", name)
			}
		}
		eventually(t, name+": no goroutine is left", func() bool {
			return runtime.NumGoroutine() <= goroutines
		})
	}
}

// waitForConfig returns how many questions wait while another reads the configuration.
func waitForConfig() (waiting int) {
	stacks := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, "Mutex).lockSlow(") && strings.Contains(stack, "MySQL).current(") {
			waiting++
		}
	}
	return waiting
}

// slowConfig returns a MySQL that reads its configuration in dir, but not before release is
// closed, and counts how often.
func slowConfig(dir string) (m *MySQL, reads *atomic.Int64, release chan struct{}) {
	reads = new(atomic.Int64)
	release = make(chan struct{})
	return &MySQL{Getenv: func(name string) string {
		switch name {
		case "CONTROLDIR", "ASSIGNDIR":
			return dir
		case "DEFAULT_DOMAIN": // once in each reading
			reads.Add(1)
			<-release
		}
		return ""
	}}, reads, release
}

// TestConfigurationIsReadOnce: questions that waited for it do not read it again.
func TestConfigurationIsReadOnce(t *testing.T) {
	const questions = 20
	m, reads, release := slowConfig(t.TempDir())
	defer m.Close()
	var all sync.WaitGroup
	for range questions {
		all.Go(func() {
			if _, err := m.DistributedDomains(); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "one reads and the others wait", func() bool {
		return waitForConfig() == questions-1 && reads.Load() == 1
	})
	close(release)
	all.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("%d readings for %d questions", n, questions)
	}
}

// TestFailureIsShared: questions that waited while the configuration could not be read get the
// same error, and do not read it one after the other. Reading may take seconds.
func TestFailureIsShared(t *testing.T) {
	const questions = 20
	dir := controls(t, map[string]string{"host.mysql": "a host with blanks"})
	m, reads, release := slowConfig(dir)
	failures := make(chan error, questions)
	for range questions {
		go func() {
			_, err := m.Resolve(context.Background(), Query{Type: TypeUser, Email: "user@example.com"})
			failures <- err
		}()
	}
	eventually(t, "one reads and the others wait", func() bool {
		return waitForConfig() == questions-1 && reads.Load() == 1
	})
	close(release)
	for range questions {
		err := <-failures
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "host.mysql:1: want ") {
			t.Error(err)
		}
	}
	if n := reads.Load(); n != 1 {
		t.Errorf("%d readings for %d questions", n, questions)
	}
	writeFile(t, filepath.Join(dir, "host.mysql"), "localhost")
	if _, err := m.current(); err != nil {
		t.Errorf("after the file was put right: %v", err)
	}
	m.Close()
}

// TestReloadRace reloads and closes while others ask.
func TestReloadRace(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}))
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			for range 100 {
				q := Query{Type: TypeUser, Email: "user@example.com"}
				w, err := m.Locate(context.Background(), q)
				if err != nil || w.MailStore != "192.0.2.25" {
					t.Errorf("%+v, %v", w, err)
				}
			}
		})
	}
	running.Go(func() {
		for range 100 {
			if err := m.Reload(rand.IntN(2) == 0); err != nil {
				t.Error(err)
			}
			if rand.IntN(4) == 0 {
				m.Close()
			}
		}
	})
	running.Wait()
}

const planted = "PlantedPassword7"

// reloadAny takes content for a control file. It is accepted, or refused with an error that names
// the file. Neither error nor warning tells the password planted in it.
func reloadAny(t *testing.T, name, content string) {
	dir := controls(t, map[string]string{name: content})
	m := configured(t, dir)
	defer m.Close()
	var b bytes.Buffer
	m.Log = log.New(&b, "", 0)
	err := m.Reload(false)
	if err != nil && !strings.Contains(err.Error(), filepath.Join(dir, name)) {
		t.Errorf("%s %q: %v", name, content, err)
	}
	if strings.Contains(fmt.Sprint(err, b.String()), planted) {
		t.Errorf("%s %q: %v, %s", name, content, err, &b)
	}
}

func FuzzMcdinfo(f *testing.F) {
	f.Add([]byte(mcdinfo))
	f.Add([]byte("domain a 0\ndomain b 1\n"))
	f.Add([]byte("domain a 0\nserver"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, more := range []string{
			"", "\npass " + planted + "\n", "\npass=" + planted + "\n", "\nh:u:" + planted + ":x\n",
			"\npass " + planted + " x\n",
			"\nserver s\nmdahost h\npass " + planted + "\nport x\nuse_ssl 0\ndatabase d\nuser u\n",
		} {
			reloadAny(t, "mcdinfo", string(content)+more)
		}
	})
}

func FuzzControls(f *testing.F) {
	files := []string{"host.mysql", "host.cntrl", "smtproutes", "qmtproutes", "assign", "hostip"}
	for i, s := range []string{"h:u:p:3306:ssl", "localhost:u:p:/s:nossl", "d:[::1]:25\n:r", "d:r",
		"+d-:d:1:2:/dir:-::\n.", "192.0.2.1"} {
		f.Add(byte(i), []byte(s))
	}
	f.Fuzz(func(t *testing.T, i byte, content []byte) {
		name := files[int(i)%len(files)]
		reloadAny(t, name, string(content))
		switch name {
		case "host.mysql", "host.cntrl":
			reloadAny(t, name, string(content)+"h:u:"+planted+":"+string(content))
			reloadAny(t, name, string(content)+"\nh:u:"+planted+":port\n")
		case "smtproutes", "qmtproutes":
			reloadAny(t, name, string(content)+"\nd:r:x u "+planted+"\n")
		}
	})
}

// --- Links that hang.

// TestLinkReader: one read that hangs is waited for during linkTime, and costs one goroutine.
func TestLinkReader(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("domains/real.example", link); err != nil {
		t.Fatal(err)
	}
	l := new(linkReader)
	target, err := l.read(context.Background(), link)
	if target != "domains/real.example" || err != nil {
		t.Errorf("%q, %v", target, err)
	}
	if _, err := l.read(context.Background(), dir); err == nil {
		t.Error("a directory is a link")
	}
	_, err = l.read(context.Background(), dir+"/none")
	if !errors.Is(err, fs.ErrNotExist) || len(l.reads) > 0 {
		t.Errorf("%v, %d reads under way", err, len(l.reads))
	}
}

// TestLinkReadIsShared: one that is under way is in the table, where the next question finds it.
func TestLinkReadIsShared(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	l := new(linkReader)
	dir := t.TempDir()
	reads := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.reads)
	}
	eventually(t, "a question leaves before its read has ended", func() bool {
		l.read(gone, dir)
		return reads() == 1
	})
	eventually(t, "the read ends", func() bool { return reads() == 0 })
}

func TestHungLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dir = "/hung"
		hung := &linkRead{start: time.Now(), done: make(chan struct{})}
		l := &linkReader{reads: map[string]*linkRead{dir: hung}}
		read := func(ctx context.Context, want time.Duration) {
			t.Helper()
			start := time.Now()
			target, err := l.read(ctx, dir)
			took := time.Since(start)
			if err == nil || !strings.Contains(err.Error(), dir) || took != want {
				t.Errorf("%q, %v after %v, want one after %v", target, err, took, want)
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v", err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		read(ctx, 300*time.Millisecond)
		read(context.Background(), linkTime-300*time.Millisecond)
		goroutines := runtime.NumGoroutine()
		for range 1000 {
			read(context.Background(), 0)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > goroutines || len(l.reads) != 1 {
			t.Errorf("%d goroutines, before %d; %d reads", n, goroutines, len(l.reads))
		}
		l.finish(dir, hung) // the file server is back
		if len(l.reads) > 0 {
			t.Errorf("%d reads", len(l.reads))
		}
		if _, err := l.read(context.Background(), dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("afterwards: %v", err)
		}
	})
}
