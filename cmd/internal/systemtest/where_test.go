package systemtest

// Where the database is: what host.mysql, host.cntrl and the variables say, and which of them wins.
// Fake servers note who comes to them.

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	dir := t.TempDir()
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

var localPlaces = []struct {
	settings settings
	want     string
}{
	// host.mysql: a missing field comes from a variable, and a field wins over it.
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@\n"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@:nossl\n"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@:ssl\n"}, "A TLS"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@\nmore\n"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@\n", "MYSQL_USER": "carol",
		"MYSQL_PASSWD": "other",
		"MYSQL_VPORT":  "@B@"}, "A bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1\n", "MYSQL_USER": "carol", "MYSQL_PASSWD": "other",
		"MYSQL_VPORT": "@B@"}, "B carol other indimail"},
	{settings{"host.mysql": "127.0.0.1:::@A@\n", "MYSQL_USER": "carol", "MYSQL_PASSWD": "other"},
		"A carol other indimail"},
	{settings{"host.mysql": "127.0.0.1::secret:@A@\n"}, "A indimail secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob::@A@\n"}, "A bob none indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@A@\n", "MYSQL_DATABASE": "mail"},
		"A bob secret mail"},

	// MYSQL_HOST in either form: where it is set, host.mysql says nothing.
	{settings{"MYSQL_HOST": "127.0.0.1:bob:secret:@A@"}, "A bob secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1:bob:secret:@A@:ssl"}, "A TLS"},
	{settings{"MYSQL_HOST": "127.0.0.1", "MYSQL_PASSWD": "secret", "MYSQL_VPORT": "@A@"},
		"A indimail secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1:bob:secret:@A@", "host.mysql": "127.0.0.1:eve:other:@B@\n"},
		"A bob secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1", "MYSQL_USER": "carol", "MYSQL_VPORT": "@A@",
		"host.mysql": "127.0.0.1:eve:other:@B@:ssl\n"}, "A carol none indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1:bob:secret:@A@", "MYSQL_USER": "carol", "MYSQL_PASSWD": "other",
		"MYSQL_VPORT": "@B@"}, "A bob secret indimail"},

	// A socket is used whenever the host is this machine, unless the fourth field is a port.
	{settings{"host.mysql": "localhost:bob:secret:@S@\n"}, "S bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret:@S@\n"}, "S bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@:nossl\n", "MYSQL_VPORT": "@A@"},
		"S bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@:ssl\n"}, "S TLS"},
	{settings{"host.mysql": "localhost:bob:secret\n", "MYSQL_SOCKET": "@T@"}, "T bob secret indimail"},
	{settings{"host.mysql": "127.0.0.1:bob:secret\n", "MYSQL_SOCKET": "@T@"}, "T bob secret indimail"},
	{settings{"host.mysql": "[::1]:bob:secret\n", "MYSQL_SOCKET": "@T@"}, "T bob secret indimail"},
	{settings{"host.mysql": "[::1]:bob:secret:@S@\n"}, "S bob secret indimail"},
	{settings{"MYSQL_HOST": "127.0.0.1", "MYSQL_SOCKET": "@T@", "MYSQL_VPORT": "@A@"},
		"T indimail none indimail"},
	{settings{"MYSQL_SOCKET": "@S@", "MYSQL_PASSWD": "secret"}, "S indimail secret indimail"},
	{settings{"MYSQL_VPORT": "@A@"}, "A indimail none indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@A@\n", "MYSQL_SOCKET": "@S@"},
		"A bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@\n", "MYSQL_SOCKET": "@T@"},
		"S bob secret indimail"},
}

var centralPlaces = []struct {
	settings settings
	want     string
}{
	{settings{"host.cntrl": "127.0.0.1:eve:other:@B@\n"}, "B eve other indimail"},
	{settings{"CNTRL_HOST": "127.0.0.1:eve:other:@B@"}, "B eve other indimail"},
	{settings{"CNTRL_HOST": "127.0.0.1:eve:other:@B@:ssl"}, "B TLS"},
	{settings{"CNTRL_HOST": "127.0.0.1:eve:other:@B@", "host.cntrl": "127.0.0.1:mallory:secret:@A@\n"},
		"B eve other indimail"},
	{settings{"host.cntrl": "127.0.0.1\n", "CNTRL_USER": "eve", "CNTRL_PASSWD": "other",
		"CNTRL_VPORT": "@B@", "CNTRL_DATABASE": "central"}, "B eve other central"},
	{settings{"host.cntrl": "127.0.0.1:eve:other:@B@\n", "CNTRL_USER": "mallory",
		"CNTRL_PASSWD": "secret",
		"CNTRL_VPORT":  "@A@"}, "B eve other indimail"},
	{settings{"host.cntrl": "localhost:eve:other:@T@\n"}, "T eve other indimail"},
	{settings{"host.cntrl": "127.0.0.1:eve:other\n", "CNTRL_SOCKET": "@T@"}, "T eve other indimail"},
	// What is missing comes from the local one.
	{settings{}, "A bob secret indimail"},
	{settings{"host.cntrl": "127.0.0.1\n"}, "A bob secret indimail"},
	{settings{"host.cntrl": "127.0.0.1:eve\n"}, "A eve secret indimail"},
	{settings{"CNTRL_HOST": "127.0.0.1", "CNTRL_USER": "eve", "CNTRL_PASSWD": "other"},
		"A eve other indimail"},
	{settings{"host.cntrl": "127.0.0.1:::@B@\n"}, "B bob secret indimail"},
	{settings{"host.cntrl": "127.0.0.1:::@B@\n", "MYSQL_DATABASE": "mail"}, "B bob secret mail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@\n", "host.cntrl": "localhost\n"},
		"S bob secret indimail"},
	{settings{"host.mysql": "localhost:bob:secret:@S@\n", "host.cntrl": "127.0.0.1:::@B@\n"},
		"B bob secret indimail"},
}

// whoIsAsked asks one question and returns the visits that the fakes had.
func whoIsAsked(t *testing.T, seen *visits, s *site, email string) string {
	t.Helper()
	l := s.lookup()
	unavailable(t, "the fakes refuse everybody", l.Directory, email)
	l.mysql.Close()
	return seen.String()
}

func TestWhereLocal(t *testing.T) {
	for i, test := range localPlaces {
		t.Run(fmt.Sprint(i, " ", test.want), func(t *testing.T) {
			t.Parallel()
			f, s := newFakes(t), newSite(t, nil)
			s.configure(test.settings, f.fill)
			if got := whoIsAsked(t, &f.visits, s, "user@example.com"); got != test.want {
				t.Errorf("%q: asked was %q, want %q", test.settings, got, test.want)
			}
		})
	}
}

func TestWhereCentral(t *testing.T) {
	const mcdinfo = "domain dist.example.net 1\nserver 127.0.0.1\nmdahost 192.0.2.26\n" +
		"port 1\nuse_ssl 0\n" +
		"database indimail\nuser indimail\npass secret\n"
	for i, test := range centralPlaces {
		t.Run(fmt.Sprint(i, " ", test.want), func(t *testing.T) {
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
func TestWhereList(t *testing.T) {
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
func TestWhereIPv6(t *testing.T) {
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
func TestWhereOwnAddress(t *testing.T) {
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

// A value that cannot be meant is an error that names the setting, and not a text that may be a
// password.
func TestWhereMistakes(t *testing.T) {
	t.Parallel()
	const marker = "hunter2"
	for i, test := range []struct {
		settings settings
		want     string
	}{
		{settings{"MYSQL_HOST": "db " + marker}, "MYSQL_HOST"},
		{settings{"MYSQL_HOST": "db " + marker + ":bob:secret:3306"}, "MYSQL_HOST"},
		{settings{"MYSQL_HOST": "db\t" + marker}, "MYSQL_HOST"},
		{settings{"host.mysql": "db " + marker + ":bob:secret:3306\n"}, "host.mysql"},
		{settings{"host.cntrl": "db " + marker + ":bob:secret:3306\n"}, "host.cntrl"},
		{settings{"CNTRL_HOST": "db " + marker}, "CNTRL_HOST"},
		{settings{"MYSQL_VPORT": "33o6"}, ""},
		{settings{"MYSQL_VPORT": "-1"}, ""},
		{settings{"RELAY_CLEAR_MINUTES": "half"}, ""},
		{settings{"RELAY_CLEAR_MINUTES": "525601"}, ""},
		{settings{"MYSQL_VPORT": "3306", "CNTRL_VPORT": "3306"}, ""},
	} {
		s := newSite(t, nil)
		s.configure(test.settings, strings.NewReplacer())
		err := s.lookup().mysql.Reload(false)
		text := fmt.Sprint(err)
		if (err != nil) != (test.want != "") || !strings.Contains(text, test.want) && err != nil {
			t.Errorf("%d: %q: %v, want an error with %q in it", i, test.settings, err, test.want)
		}
		if strings.Contains(text, marker) {
			t.Errorf("%d: the error shows the text: %v", i, err)
		}
	}
}

// The program ends with 111 for each of these settings. What they are is in the message.
func TestWhereMistakesAtStart(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{"MYSQL_HOST": "db hunter2",
		"host.mysql": "db hunter2:bob\n", "FIFO_MODE": "0rw"} {
		s := newSite(t, nil)
		s.configure(settings{name: value}, strings.NewReplacer())
		status, _, stderr := s.run("inlookup")
		if status != 111 || !strings.Contains(stderr, name) || strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit %d, stderr %q; want 111 and the name", name, status, stderr)
		}
	}
}

// At SIGHUP such an error is logged, and the old configuration stays.
func TestWhereMistakesAtHangup(t *testing.T) {
	t.Parallel()
	db := database(t)
	s := newSite(t, nil)
	right := "localhost:indimail:secret:" + db.Socket + "\n"
	s.control("host.mysql", right)
	p := s.serve()
	d := s.directory()
	for _, wrong := range []string{"db hunter2:indimail\n", "db\thunter2\n"} {
		s.control("host.mysql", wrong)
		logged := len(p.stderr.String())
		flushed := s.counts()["cache_flushed_total"]
		found(t, "before SIGHUP", d)
		p.signal(syscall.SIGHUP)
		eventually(t, "an error that names host.mysql", func() bool {
			return strings.Contains(p.stderr.String()[logged:], "host.mysql")
		})
		eventually(t, "the cache is dropped",
			func() bool { return s.counts()["cache_flushed_total"] > flushed })
		found(t, "after SIGHUP", d)
	}
	if strings.Contains(p.stderr.String(), "hunter2") {
		t.Errorf("the log shows the text:\n%s", p.stderr.String())
	}
}
