package systemtest

// Settings: where the database is, which of host.mysql, host.cntrl and the
// variables wins, and what becomes of values that are wrong or of no use. Fake
// servers note who comes to them.

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// fakes are the servers of one test: A and B on 127.0.0.1, and S and T on sockets.
type fakes struct {
	visits
	fill *strings.Replacer // of @A@ and @B@ with ports, of @S@ and @T@ with paths
}

func newFakes(t *testing.T) *fakes {
	t.Helper()
	f := &fakes{}
	dir, err := os.MkdirTemp("", "f") // a short name: a socket's path may have some 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var pairs []string
	for _, name := range []string{"A", "B", "S", "T"} {
		network, address := "tcp", "127.0.0.1:0"
		if name >= "S" {
			network, address = "unix", filepath.Join(dir, name)
		}
		addr, err := fake{name: name, seen: &f.visits}.listen(t, network, address)
		if err != nil {
			t.Fatal(err)
		}
		if tcp, ok := addr.(*net.TCPAddr); ok {
			address = strconv.Itoa(tcp.Port)
		}
		pairs = append(pairs, "@"+name+"@", address)
	}
	f.fill = strings.NewReplacer(pairs...)
	return f
}

// places are settings, and who comes where with them. The package's own tests have
// more about what each setting means.
var places = []struct {
	settings settings
	want     string
}{
	// host.mysql: a missing field comes from a variable, and a field wins over it.
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@:nossl\n", "MYSQL_USER": "carol",
		"MYSQL_PASSWD": "other", "MYSQL_VPORT": "@B@"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1\n", "MYSQL_USER": "carol", "MYSQL_PASSWD": "other",
		"MYSQL_VPORT": "@B@", "MYSQL_DATABASE": "mail"}, "B carol other mail"},
	{settings{"host.mysql": "127.0.0.1:bob::@A@\n"}, "A bob none indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@:ssl\n"}, "A TLS"},

	// MYSQL_HOST in either form: where it is set, host.mysql says nothing.
	{settings{"MYSQL_HOST": "127.0.0.1:bob:secret:@A@", "host.mysql": "127.0.0.1:eve:other:@B@\n"},
		"A bob secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1", "MYSQL_USER": "carol", "MYSQL_VPORT": "@A@",
		"host.mysql": "127.0.0.1:eve:other:@B@:ssl\n"}, "A carol none indimail"},

	// A socket is used whenever the host is this machine, unless the fourth field is a port.
	{settings{"host.mysql": "127.0.0.1:bob:secret:@S@:nossl\n", "MYSQL_VPORT": "@A@"},
		"S bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@:ssl\n"}, "S TLS"},
	{settings{"host.mysql": "[::1]:bob:secret\n", "MYSQL_SOCKET": "@T@"}, "T bob secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1", "MYSQL_SOCKET": "@T@", "MYSQL_VPORT": "@A@"},
		"T indimail none indimail"},
	{settings{"MYSQL_VPORT": "@A@"}, "A indimail none indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@A@\n", "MYSQL_SOCKET": "@S@"},
		"A bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@\n", "MYSQL_SOCKET": "@T@"},
		"S bob secret indimail"},
}

// centralPlaces are the same of the central database. The local one is at A.
var centralPlaces = []struct {
	settings settings
	want     string
}{
	{settings{"CNTRL_HOST": "127.0.0.1:eve:other:@B@", "host.cntrl": "127.0.0.1:mallory:secret:@A@\n"},
		"B eve other indimail"},
	{settings{"host.cntrl": "127.0.0.1:eve:other:@B@:ssl\n"}, "B TLS"},
	{settings{"host.cntrl": "127.0.0.1\n", "CNTRL_USER": "eve", "CNTRL_PASSWD": "other",
		"CNTRL_VPORT": "@B@", "CNTRL_DATABASE": "central"}, "B eve other central"},
	{settings{"host.cntrl": "127.0.0.1:eve:other\n", "CNTRL_SOCKET": "@T@"}, "T eve other indimail"},
	// What is missing comes from the local one.
	{settings{}, "A bob secret indimail"},
	{settings{"host.cntrl": "127.0.0.1:eve\n"}, "A eve secret indimail"},
	{settings{"host.cntrl": "127.0.0.1:::@B@\n", "MYSQL_DATABASE": "mail"}, "B bob secret mail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@\n", "host.cntrl": "localhost\n"},
		"S bob secret indimail"},
}

// whoIsAsked asks one question and returns the visits that the fakes had.
func whoIsAsked(t *testing.T, seen *visits, s *site, email string) string {
	t.Helper()
	l := s.lookup()
	all(t, l.Resolver, "the fakes refuse everybody", answers{"1 " + email: "unavailable"})
	l.mysql.Close()
	return seen.String()
}

func TestPlacesOfTheLocalDatabase(t *testing.T) {
	for i, test := range places {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f, s := newFakes(t), newSite(t, nil)
			s.configure(test.settings, f.fill)
			if got := whoIsAsked(t, &f.visits, s, "user@example.com"); got != test.want {
				t.Errorf("%q: asked was %q, want %q", test.settings, got, test.want)
			}
		})
	}
}

func TestPlacesOfTheCentralDatabase(t *testing.T) {
	const mcdinfo = "domain dist.example.net 1\nserver 127.0.0.1\nmdahost 192.0.2.26\n" +
		"port 1\nuse_ssl 0\n" +
		"database indimail\nuser indimail\npass secret\n"
	for i, test := range centralPlaces {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f, s := newFakes(t), newSite(t, nil)
			s.env["REAL_DOMAINS"] = "dist.example.net"
			s.configure(settings{"mcdinfo": mcdinfo, "host.mysql": "127.0.0.1:bob:secret:@A@\n"}, f.fill)
			s.configure(test.settings, f.fill)
			if got := whoIsAsked(t, &f.visits, s, "duser@dist.example.net"); got != test.want {
				t.Errorf("%q: asked was %q, want %q", test.settings, got, test.want)
			}
		})
	}
}

// Several hosts: the next one is asked where the first hangs up. One of them is an IPv6 address.
func TestHostsAreTriedInTurn(t *testing.T) {
	t.Parallel()
	var f visits
	addr, err := fake{name: "second", seen: &f}.listen(t, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr.String())
	for _, first := range []string{"[::1]", "127.0.0.2"} {
		text := first + ",127.0.0.1"
		if _, err := (fake{broken: true}).listen(t, "tcp", first+":"+port); err != nil {
			t.Logf("nothing listens there, which does as well: %v", err)
		}
		for _, name := range []string{"MYSQL_HOST", "host.mysql"} {
			s := newSite(t, nil)
			s.configure(settings{name: text + ":bob:secret:" + port}, strings.NewReplacer())
			f.reset()
			if got := whoIsAsked(t, &f, s, "user@example.com"); got != "second bob secret indimail" {
				t.Errorf("%s %s: asked was %q", name, text, got)
			}
		}
	}
}

// An IPv6 host is asked over TCP when the fourth field is a port.
func TestIPv6HostWithAPort(t *testing.T) {
	t.Parallel()
	var f visits
	addr, err := fake{name: "six", seen: &f}.listen(t, "tcp", "[::1]:0")
	if err != nil {
		testmain.Skip(t, "this machine has no IPv6:", err)
	}
	s := newSite(t, nil)
	s.control("host.mysql", fmt.Sprintf("[::1]:bob:secret:%d\n", addr.(*net.TCPAddr).Port))
	if got := whoIsAsked(t, &f, s, "user@example.com"); got != "six bob secret indimail" {
		t.Errorf("asked was %q", got)
	}
}

// A socket is used for an address of this machine, and not for that of another one.
func TestSocketIsForThisMachineAlone(t *testing.T) {
	t.Parallel()
	f, s := newFakes(t), newSite(t, nil)
	s.configure(settings{"host.mysql": "203.0.113.1:bob:secret\n", "MYSQL_SOCKET": "@S@",
		"MYSQL_VPORT": "1"}, f.fill)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	s.lookup().Status(ctx, "user@example.com")
	if got := f.String(); got != "" {
		t.Errorf("203.0.113.1 is another machine, and asked was %q", got)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		ip, _, err := net.ParseCIDR(address.String())
		if err != nil || ip.IsLoopback() || ip.To4() == nil {
			continue
		}
		s.control("host.mysql", ip.String()+":bob:secret\n")
		if got := whoIsAsked(t, &f.visits, s, "user@example.com"); got != "S bob secret indimail" {
			t.Errorf("%v is this machine, and asked was %q", ip, got)
		}
		return
	}
	t.Log("this machine has no address of its own")
}

// hours are values that no setting of a time takes. In nanoseconds each of the
// numbers is out of range; the first, in 64 bits, comes to 0.29 s.
var hours = []string{"18446744074", "9223372037", "99999999999999999999", "-1", "-1s", "3000000h",
	"1e3", "secret", "10min"}

// wrongSettings are values that cannot be meant, by what the error names.
var wrongSettings = []struct {
	name   string // a variable, or a control file
	values []string
	want   string // in the error; "": the name
}{
	{"MYSQL_HOST", []string{"db hunter2", "db hunter2:bob:secret:3306", "db\thunter2"}, ""},
	{"CNTRL_HOST", []string{"db hunter2"}, ""},
	{"host.mysql", []string{"\nlocal host:user:secret:3306\n"}, "host.mysql:2:"},
	{"host.mysql", []string{"db hunter2:bob:secret:3306\n", "db hunter2:bob\n"}, "host.mysql:1:"},
	{"host.cntrl", []string{"db hunter2:bob:secret:3306\n"}, "host.cntrl:1:"},
	{"REPLYDIR", []string{"tmp"}, ""},
	{"FIFO_MODE", []string{"0rw", "0", "0444", "0888"}, ""},
}

// A value that cannot be meant is an error that names the setting, and not a text
// that may be a password: the server does not start, and its check says why.
func TestWrongSettingsAreErrors(t *testing.T) {
	t.Parallel()
	for _, test := range wrongSettings {
		want := cmp.Or(test.want, test.name)
		for _, value := range test.values {
			s := newSite(t, nil)
			s.configure(settings{test.name: value}, strings.NewReplacer())
			s.refusesToStart(test.name+" "+value, want)
			status, lines := s.check()
			wrong := regexp.MustCompile(`(?m)^wrong .*` + want)
			if status != 100 || !wrong.MatchString(lines) {
				t.Errorf("%s=%q: -t exits %d, want 100 and what is wrong\n%s", test.name, value, status, lines)
			}
		}
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo", "../users/assign"} {
		s := newSite(t, nil)
		path := filepath.Join(s.env["CONTROLDIR"], name)
		if err := os.Mkdir(path, 0o755); err != nil { // so that root cannot read it either
			t.Fatal(err)
		}
		s.refusesToStart("unreadable "+name, path)
	}
	for _, right := range []settings{{"RELAY_CLEAR_MINUTES": "0"}, {"RELAY_CLEAR_MINUTES": "-1"},
		{"RELAY_CLEAR_MINUTES": "99999999999999999999"}, {"MYSQL_VPORT": "33o6", "CNTRL_VPORT": "3306"}} {
		s := newSite(t, nil)
		s.configure(right, strings.NewReplacer())
		if err := s.resolver().Reload(false); err != nil {
			t.Errorf("%q: %v", right, err)
		}
	}
}

// refusesToStart expects a server to end at once, with 111 and an error that says want.
func (s *site) refusesToStart(what, want string) {
	s.t.Helper()
	status, stdout, stderr := s.run("inlookup")
	said := strings.Contains(stderr, want)
	for _, text := range []string{"secret", "hunter2"} {
		said = said && !strings.Contains(stderr, text)
	}
	if status != 111 || stdout != "" || !said {
		s.t.Errorf("%s: exit %d, stdout %q, stderr %q, want %s", what, status, stdout, stderr, want)
	}
	if exists(s.fifo("infifo")) {
		s.t.Errorf("%s: a FIFO is left", what)
	}
}

// A line or a value that the C program takes, and that is of no use here, is a
// warning of the server and of its check: the server starts.
func TestUselessSettingsAreWarnings(t *testing.T) {
	t.Parallel()
	db := database(t)
	const entry = "domain far.example 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport 3306\nuse_ssl 0\n" +
		"database indimail\nuser indimail\n"
	const complete = entry + "pass secret\n"
	for _, test := range []struct {
		name   string
		values []string
		want   string
	}{
		{"mcdinfo", []string{"server 127.0.0.1\n", entry + "pass\n"}, "mcdinfo:1: "},
		{"mcdinfo", []string{strings.Replace(complete, "3306", "secret", 1),
			strings.Replace(complete, "3306", "65536", 1)}, "mcdinfo:4: "},
		{"mcdinfo", []string{strings.Replace(complete, "use_ssl 0", "use_ssl secret", 1)}, "mcdinfo:5: "},
		{"host.cntrl", []string{"localhost:user:secret:99999\n", "localhost:user:secret:secret\n",
			"localhost:user:secret:3306:tls\n", "localhost:user:secret:3306:ssl:secret\n"},
			"host.cntrl:1: "},
		{"host.cntrl", []string{"# comment\nlocalhost:user:secret:3306:no\n"}, "host.cntrl:2: "},
		{"CNTRL_HOST", []string{"localhost:user:secret:secret"}, "CNTRL_HOST: "},
		{"CNTRL_VPORT", []string{"65536", "-1", "secret"}, "CNTRL_VPORT: "},
		{"FIFO_MODE", []string{"secret", "-1"}, "FIFO_MODE"},
		{"RELAY_CLEAR_MINUTES", []string{"secret"}, "RELAY_CLEAR_MINUTES: "},
		{"CACHE_TTL", hours, "CACHE_TTL: "},
		{"CACHE_NEGATIVE_TTL", hours, "CACHE_NEGATIVE_TTL: "},
		{"CACHE_STALE", append(hours, "25h"), "CACHE_STALE: "},
		{"CACHE_SIZE", []string{"99999999999999999999", "-1", "secret", "1e3"}, "CACHE_SIZE: "},
		{"mcdinfo", []string{"# comment\n\ndomain example.com 2\n"}, "mcdinfo:3: "},
		{"mcdinfo", []string{entry + "user indimail\n"}, "mcdinfo:8: "},
		{"mcdinfo", []string{complete + "domain example.org 0\n"}, "mcdinfo:9: "},
		{"smtproutes", []string{"# comment\nexample.org:192.0.2.1:smtp\n"}, "smtproutes:2: "},
		{"smtproutes", []string{"example.com:192.0.2.1:65536 user secret\n"}, "smtproutes:1: "},
		{"qmtproutes", []string{"example.com:192.0.2.1:-1\n"}, "qmtproutes:1: "},
		{"hostip", []string{"nonsense\n"}, "hostip:1: "},
		{"../users/assign", []string{"+far.example-:far.example:1:1:/home/mail:-::\n+a.example-:a.example\n.\n"},
			"assign:2: "},
		{"MAX_BTREE_COUNT", []string{"-1", "secret"}, "MAX_BTREE_COUNT: "},
		{"USE_BTREE", []string{"secret", "yes"}, "USE_BTREE: "},
	} {
		for _, value := range test.values {
			s := newSite(t, db)
			s.configure(settings{test.name: value}, strings.NewReplacer())
			_, lines := s.check()
			if !regexp.MustCompile(`(?m)^warning .*` + test.want).MatchString(lines) {
				t.Errorf("%s %q: -t has no warning of %s\n%s", test.name, value, test.want, lines)
			}
			p := s.serve()
			log := p.startLines()
			if !regexp.MustCompile(`(?m)^inlookup: warning: .*` + test.want).MatchString(log) {
				t.Errorf("%s %q: no warning of %s\n%s", test.name, value, test.want, log)
			}
			if strings.Contains(log, "secret") {
				t.Errorf("%s %q: the password is in the log\n%s", test.name, value, log)
			}
			if test.name == strings.ToUpper(test.name) { // the cache is on, without a limit
				all(t, s.client(), value, map[string]string{"1 over@example.com": "over quota"})
				if n := s.counts()[`cache_entries{kind="present"}`]; n != 1 {
					t.Errorf("%s=%s: %v entries, want one", test.name, value, n)
				}
			}
			p.terminate()
		}
	}
}

// A site with nothing but the environment: both commands, as a newcomer starts them.
func TestEnvironmentAloneSuffices(t *testing.T) {
	t.Parallel()
	db := database(t)
	s := newSite(t, db)
	if err := os.Remove(s.env["CONTROLDIR"]); err != nil {
		t.Fatal(err)
	}
	delete(s.env, "DEFAULT_DOMAIN")
	for _, cached := range []bool{false, true} {
		if cached {
			s.env["QUERY_CACHE"] = "1"
			s.serve()
		}
		for _, args := range []string{"-q 1 over@example.com", "-q 3 user@example.com", "-q 6 example.com", "-q 4 user@example.com", "-q 7 example.com"} {
			if status, stdout, stderr := s.run("inquerytest", strings.Fields(args)...); status != 0 || stdout == "" || stderr != "" {
				t.Errorf("%s: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
			}
		}
		if status, stdout, _ := s.run("inquerytest", "-q", "3", "missing@example.com"); status != 1 || stdout != "" {
			t.Errorf("a missing user: exit %d, stdout %q", status, stdout)
		}
	}
}

// A file that holds a password and that all may read deserves a warning; the password is in none.
func TestReadablePasswordsAreAWarning(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	for _, name := range []string{"host.mysql", "mcdinfo"} {
		if err := os.Chmod(filepath.Join(s.env["CONTROLDIR"], name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log := s.serve().startLines()
	for name, want := range map[string]bool{
		"host.mysql": true, "mcdinfo": true, "host.cntrl": false, "smtproutes": false,
	} {
		path := filepath.Join(s.env["CONTROLDIR"], name)
		if got := strings.Contains(log, "warning: "+path+": "); got != want {
			t.Errorf("a warning about %s: %v", name, got)
		}
		if got := strings.Contains(log, "chgrp indimail "+path+" && chmod 640 "+path+"\n"); got != want {
			t.Errorf("advice about %s: %v", name, got)
		}
	}
	if strings.Contains(log, "secret") {
		t.Error("the password is in the log")
	}
}
