package systemtest

// A marker stands wherever a password can stand, by mistake too, and must not come out anywhere.
//
// A well-formed host name is no such place: errors must name the host that does not answer.

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

const marker = "Tr0ub4dor"

// markedHosts are the values of host.mysql, host.cntrl, MYSQL_HOST and CNTRL_HOST.
var markedHosts = []string{
	"127.0.0.1:@M@:secret:@PORT@",
	"127.0.0.1:@M@",
	"127.0.0.1:indimail:@M@:@PORT@",
	"127.0.0.1:indimail:@M@:@PORT@:ssl",
	"127.0.0.1:indimail:@M@:1",
	"127.0.0.1:indimail:secret:@M@",
	"127.0.0.1:indimail:secret:@PORT@:@M@",
	"127.0.0.1:indimail:secret:@PORT@:ssl:@M@",
	"127.0.0.1:indimail:a:@M@:@PORT@:nossl",
	"127.0.0.1 indimail @M@ @PORT@",
	"@M@ @M@:indimail:secret:@PORT@",
	":127.0.0.1:indimail:@M@:@PORT@",
	"localhost:indimail:@M@:@SOCKET@",
}

// markedRoutes hold the password of a relay, or what somebody took for its place.
const markedRoutes = ":relay.example.net:587 user @M@\n" +
	":relay.example.net user @M@\n" +
	":relay.example.net:@M@\n" +
	"@M@\n" +
	"example.com:relay.example.net:587:@M@\n" +
	"user @M@\n" +
	":relay.example.net:587x user @M@\n" +
	"example.com:[::1:@M@\n" +
	"# @M@\n" +
	":relay.example.net:99999 user:@M@\n"

const markedBlocks = "@M@\npass @M@\n" +
	"domain example.com 0 @M@\n" + markedEntry + "pass @M@ @M@\n" +
	"domain dist.example.net 1\nport @M@\nuse_ssl @M@\npass=@M@\npasswd @M@\nuser @M@\n" +
	"password: @M@\n" +
	"domain far.example.net 1\n" + markedEntry + "pass\n@M@\n"

const markedEntry = "server 127.0.0.1\nmdahost 192.0.2.25\nport @PORT@\nuse_ssl 0\n" +
	"database indimail\nuser indimail\n"

// markedSettings are whole configurations.
var markedSettings = map[string]settings{
	"MYSQL_PASSWD": {"MYSQL_HOST": "127.0.0.1", "MYSQL_VPORT": "@PORT@", "MYSQL_PASSWD": "@M@"},
	"MYSQL_USER":   {"MYSQL_HOST": "127.0.0.1", "MYSQL_VPORT": "@PORT@", "MYSQL_USER": "@M@"},
	"CNTRL_PASSWD": {"host.mysql": rightHost, "CNTRL_HOST": "127.0.0.1", "CNTRL_PASSWD": "@M@"},
	"smtproutes":   {"host.mysql": rightHost, "smtproutes": markedRoutes},
	"qmtproutes":   {"host.mysql": rightHost, "qmtproutes": markedRoutes},
	"mcdinfo":      {"host.mysql": rightHost, "mcdinfo": markedBlocks},
	"an account of mcdinfo": {"host.mysql": rightHost, "mcdinfo": "domain example.com 0\n" +
		strings.Replace(markedEntry, "user indimail", "user @M@", 1) + "pass @M@\n"},
	"the right password":      {"host.mysql": "127.0.0.1:marked:@M@:@PORT@\n"},
	"an account of no rights": {"host.mysql": "127.0.0.1:@M@1:secret:@PORT@\n"}, // 1044
	"an account of a socket":  {"host.mysql": "127.0.0.1:@M@2:secret:@PORT@\n"}, // 1698
}

const (
	rightHost     = "localhost:indimail:secret:@SOCKET@\n"
	markedCluster = "domain dist.example.net 1\n" + markedEntry + "pass @M@\n"
)

// markedAccounts have the marker as password or as name.
const markedAccounts = "CREATE USER marked IDENTIFIED BY '@M@';" +
	"GRANT ALL ON indimail.* TO marked;" +
	"CREATE USER @M@1 IDENTIFIED BY 'secret'; CREATE USER @M@2 IDENTIFIED VIA unix_socket"

func markedFill(db *mariadb.DB) *strings.Replacer {
	return strings.NewReplacer("@M@", marker, "@PORT@", strconv.Itoa(db.Port), "@SOCKET@", db.Socket)
}

func TestNoPasswordIsShown(t *testing.T) {
	t.Parallel()
	db := database(t)
	fill := markedFill(db)
	mustExec(t, db, fill.Replace(markedAccounts),
		fill.Replace("DROP USER marked; DROP USER @M@1; DROP USER @M@2"))
	t.Run("all", func(t *testing.T) { // returns when its parallel subtests have ended
		for _, host := range markedHosts {
			t.Run("files "+host, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, nil)
				s.configure(settings{"host.mysql": host + "\n", "host.cntrl": host + "\n",
					"mcdinfo": markedCluster}, fill)
				s.hidden(s.everything())
			})
			t.Run("variables "+host, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, nil)
				s.configure(settings{"MYSQL_HOST": host, "CNTRL_HOST": host, "mcdinfo": markedCluster}, fill)
				s.hidden(s.directly())
			})
		}
		for name, settings := range markedSettings {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, nil)
				s.configure(settings, fill)
				s.hidden(s.everything())
			})
		}
	})
}

// hidden checks that the marker is not in what was said. Names of domains and users lose their
// case.
func (s *site) hidden(said string) {
	s.t.Helper()
	if said == "" {
		s.t.Error("nothing was said, and this test tests nothing")
	}
	for line := range strings.Lines(said) {
		if strings.Contains(strings.ToLower(line), strings.ToLower(marker)) {
			s.t.Errorf("shown: %s", line)
		}
	}
}

var markedQuestions = []inlookup.Query{
	{Type: inlookup.TypeUser, Email: "user@example.com"},
	{Type: inlookup.TypePasswd, Email: "missing@example.com"},
	{Type: inlookup.TypeHost, Email: "user@example.com"},
	{Type: inlookup.TypeAlias, Email: "alias@example.com"},
	{Type: inlookup.TypeLimit, Email: "user@example.com"},
	{Type: inlookup.TypeUser, Email: "duser@dist.example.net"},
	{Type: inlookup.TypeHost, Email: "duser@dist.example.net"},
	{Type: inlookup.TypeUser, Email: "user@far.example.net"},
}

// directly asks MySQL in this process, and returns errors and log.
func (s *site) directly() string {
	s.t.Helper()
	l := s.lookup()
	text := fmt.Sprintln(l.mysql.Reload(false))
	for _, q := range markedQuestions {
		a, err := l.Resolver.Resolve(s.t.Context(), q)
		text += fmt.Sprintln(q.Type, q.Email, a, err)
	}
	l.mysql.Close()
	return text + l.log.String()
}

// everything runs the commands in all ways, and returns all that they wrote.
func (s *site) everything() string {
	s.t.Helper()
	said := s.directly()
	run := func(name string, args ...string) {
		_, stdout, stderr := s.run(name, args...)
		said += stdout + stderr
	}
	run("inlookup", "-t")
	run("inquerytest", "-v", "-q", "3", "user@example.com") // asks MySQL itself
	server := s.start("inlookup", "-v", "-c", "3600")
	eventually(s.t, "the server reads or ends", func() bool {
		select {
		case <-server.done:
			return true
		default:
			return reachable(s.fifo("infifo"), "")
		}
	})
	s.markedAsk(&said)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGINT} {
		server.cmd.Process.Signal(sig) // it may have ended
	}
	s.markedAsk(&said)
	run("inquerytest", "-x", "-q", "3", "user@example.com")
	run("inquerytest", "-x", "-q", "4", "duser@dist.example.net")
	run("inquerytest", "-s")
	server.cmd.Process.Signal(syscall.SIGTERM)
	server.wait()
	return said + server.stdout.String() + server.stderr.String()
}

// markedAsk asks the server, if there is one.
func (s *site) markedAsk(said *string) {
	s.t.Helper()
	if !reachable(s.fifo("infifo"), "") {
		return
	}
	client := s.short(4 * time.Second)
	for _, q := range markedQuestions {
		a, err := client.Resolve(context.Background(), q)
		*said += fmt.Sprintln(q.Type, q.Email, a, err)
	}
}

// What is wrong with a file at SIGHUP is logged without its text.
func TestNoPasswordIsShownAtHangup(t *testing.T) {
	t.Parallel()
	db := database(t)
	fill := markedFill(db)
	s := newSite(t, db)
	s.env["REAL_DOMAINS"] = "example.com" // so that no database is asked about it
	p := s.serve("-v")
	d := s.directory()
	s.configure(settings{"smtproutes": markedRoutes, "qmtproutes": markedRoutes,
		"mcdinfo": markedBlocks}, fill)
	for _, host := range markedHosts {
		s.configure(settings{"host.mysql": host, "host.cntrl": host}, fill)
		flushed := s.counts()["cache_flushed_total"]
		if _, err := d.Domain(t.Context(), "example.com"); err != nil { // an answer to forget
			t.Fatal(err)
		}
		p.signal(syscall.SIGHUP)
		eventually(t, "the cache is dropped",
			func() bool { return s.counts()["cache_flushed_total"] > flushed })
		d.Status(t.Context(), "user@example.com")
		d.Status(t.Context(), "duser@dist.example.net")
	}
	p.terminate()
	s.hidden(p.stdout.String() + p.stderr.String())
}
