//go:build ops

package systemtest

// The long tests of the pool: SELECTs of 5 ms and of 1 s under overload, outages that
// last, a host cache that remembers, a name server that is dead.

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// These run one after the other: SELECTs of 5 ms keep the machine busy.
func TestOverloadLong(t *testing.T) {
	if raceEnabled {
		testmain.Skip(t, "with the race detector SELECTs of 5 ms are not what takes the time")
	}
	for _, o := range []struct {
		name string
		overload
	}{
		{"SELECTs of 5 ms", overload{5 * time.Millisecond, 1, oneSelect}},
		{"SELECTs of 1 s", overload{time.Second, 1, oneSelect}},
		{"three SELECTs of 5 ms", overload{5 * time.Millisecond, 3, threeSelects}},
		{"three SELECTs of 35 ms", overload{35 * time.Millisecond, 3, threeSelects}},
	} {
		t.Run(o.name, o.test)
	}
}

// namedClient is the address of inlookup for a MariaDB that has a host cache. Of all
// loopback addresses MariaDB excepts 127.0.0.1 alone.
var namedClient = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}

// resolvingDB returns a MariaDB that looks up the names of its clients and counts their
// faults. It has its own hosts file and name server, in a mount namespace.
func resolvingDB(t *testing.T, hosts, resolv string, options ...string) *mariadb.DB {
	t.Helper()
	testmain.Need(t, "util-linux", "unshare", "mount")
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		testmain.Skip(t, "no mount namespace:", string(out), err)
	}
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		server = "/usr/sbin/mariadbd"
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'mount --bind %s /etc/hosts &&"+
		" mount --bind %s /etc/resolv.conf && exec %s \"$@\"' sh \"$@\"\n",
		write("hosts", hosts, 0o644), write("resolv.conf", resolv, 0o644), server)
	write("mariadbd", script, 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	options = append(options, "--skip-name-resolve=0", "--host-cache-size=128")
	return mariadbtest.ForTest(t, options...)
}

// A database hangs for 25 s, and MariaDB bars hosts that give up a hundred connections.
func TestHangDoesNotBarTheHost(t *testing.T) {
	db := resolvingDB(t, "127.0.0.1 localhost\n127.0.0.2 mailhost.test\n", "",
		"--max-connect-errors=100")
	f := newForwarder(t, "127.0.0.1:0", db)
	f.from.Store(namedClient)
	s := stormSite(t, f)
	p := s.serve()
	l := newLoad(s, 400)
	l.warm()
	abandoned := l.hang(db, f, 25*time.Second)
	for range 5 {
		p.signal(syscall.SIGINT) // new connections
		l.again(recover, "an answer over a new connection")
		l.closed(8, 300*time.Millisecond, oneSelect)
	}
	if abandoned >= 50 {
		t.Errorf("%d connections were given up, want far fewer than 100", abandoned)
	}
	if text := p.stderr.String(); strings.Contains(text, "1129") {
		t.Errorf("MariaDB bars the host:\n%s", text)
	}
}

// MariaDB asks a name server for the name of each client, and that one says nothing.
func TestDeadNameServer(t *testing.T) {
	const nameServer = "127.53.53.53" // of port 53: resolv.conf names no other
	swallow, err := net.ListenPacket("udp", nameServer+":53")
	if err != nil {
		testmain.Skip(t, "no name server can be played:", err)
	}
	defer swallow.Close()
	db := resolvingDB(t, "127.0.0.1 localhost\n",
		"nameserver "+nameServer+"\noptions timeout:5 attempts:1\n")
	f := newForwarder(t, "127.0.0.1:0", db)
	f.from.Store(namedClient)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 400)
	took := l.again(patience, "an answer from a database whose name server is dead")
	t.Logf("an answer after %v", took)
	if took < time.Second {
		t.Errorf("this tests nothing: an answer after %v", took)
	}
	l.serves("after the first answer")
}

// The name server dies later. The connections that stand serve on, also after a silence
// in which others would have been closed.
func TestSlowGreetingLater(t *testing.T) {
	t.Parallel()
	for name, rate := range map[string]float64{"quiet": 0, "20 a second": 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForwarder(t, "127.0.0.1:0", database(t))
			s := stormSite(t, f)
			s.serve()
			l := newLoad(s, 400)
			l.warm()
			f.greeting.Store(int64(10 * time.Second))
			const length = 75 * time.Second
			if rate == 0 {
				time.Sleep(length) // the silence is what is tested
			} else if v := l.steady(rate, length, oneSelect); len(v.refused)+len(v.lost) > 0 {
				t.Errorf("new connections take 10 s: %v", v)
			}
			// The connection that has served last may be the only one.
			v := l.steady(10, 5*time.Second, oneSelect)
			t.Logf("after %v: %v", length, v)
			if len(v.refused)+len(v.lost) > 0 {
				t.Errorf("new connections take 10 s, after %v: %v, want all answered", length, v)
			}
		})
	}
}

// The password is changed ten seconds before host.mysql.
func TestChangedPasswordLong(t *testing.T) {
	t.Parallel()
	changedPassword{5, 12 * time.Second}.test(t)
}

// After a burst the connections that are not needed are closed, though one question a
// second takes each of them in turn; one or two stay.
func TestQuietServerKeepsFewConnections(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	a := newAdmin(t, db)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 100)
	f.selects.Store(int64(100 * time.Millisecond))
	l.again(patience, "an answer")
	var group sync.WaitGroup
	group.Go(func() { l.closed(20, 2*time.Second, oneSelect) })
	group.Go(func() { l.closed(20, 2*time.Second, threeSelects) })
	group.Wait()
	burst := a.sessions(t)
	f.selects.Store(0)
	start := time.Now()
	n := burst
	for time.Since(start) < 3*time.Minute && n > 2 {
		if v := l.steady(1, 5*time.Second, oneSelect); len(v.refused)+len(v.lost) > 0 {
			t.Errorf("one question a second: %v", v)
		}
		n = a.sessions(t)
	}
	t.Logf("%d connections after a burst; %d after %v", burst, n, time.Since(start).Round(time.Second))
	if burst < 12 || n > 2 {
		t.Errorf("%d connections after a burst, %d after 3 minutes of one question a second,"+
			" want at least 12 and at most 2", burst, n)
	}
	time.Sleep(75 * time.Second) // longer than an idle connection lives
	if n := a.sessions(t); n < 1 || n > 2 {
		t.Errorf("%d connections after 75 s without a question, want one or two", n)
	}
}

// A connection lives for 5 minutes. It serves until the next one works, though that takes
// 3 s. This runs with INLOOKUP_SOAK in the environment alone.
func TestOldConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	if os.Getenv("INLOOKUP_SOAK") == "" {
		testmain.Skip(t, "takes 6 minutes: INLOOKUP_SOAK is not set")
	}
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 400)
	f.selects.Store(int64(20 * time.Millisecond))
	l.warm()
	first := connections(t, db, "indimail")
	f.greeting.Store(int64(3 * time.Second))
	start := time.Now()
	v := l.steady(50, 6*time.Minute, oneSelect)
	for _, f := range v.refused {
		t.Logf("refused after %v, %v after the start", f.took, f.asked.Sub(start))
	}
	last := connections(t, db, "indimail")
	t.Logf("%v; connections %v, then %v", v, first, last)
	if len(v.refused)+len(v.lost) > 0 {
		t.Errorf("while connections are replaced: %v", v)
	}
	for _, id := range first {
		if slices.Contains(last, id) {
			t.Errorf("connection %d is older than 5 minutes", id)
		}
	}
}

// The network is silent: nothing that was said comes through, and no end of a
// connection. It is well again: so are we, soon, whatever hung meanwhile.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	f := newForwarder(t, "127.0.0.1:0", db)
	s := stormSite(t, f)
	s.serve()
	l := newLoad(s, 400)
	l.warm()
	for _, length := range []time.Duration{2 * time.Second, 12 * time.Second} {
		f.silence()
		v := l.steady(20, length, oneSelect)
		f.speak()
		took := l.again(recover, "an answer when the network speaks")
		t.Logf("%v of silence: %v; an answer %v later", length, v, took.Round(time.Millisecond))
		l.closed(8, time.Second, oneSelect)
		l.serves("after the silence")
	}
}
