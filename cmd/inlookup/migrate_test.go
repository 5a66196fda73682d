package main_test

// FROM-C.md, tried: IndiMail's run file and variables directory as they are, under the real envdir, setuidgid, supervise
// and svc of daemontools. The commands are those of FROM-C.md and of the manual page; only paths and the user, who may
// not exist here, are the test's own.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// A service is a directory of supervise.
type service struct {
	*site
	path string
	docs *strings.Replacer
}

// newService makes one with that run file and IndiMail's variables.
func newService(t *testing.T, db *mariadb.DB, run string) *service {
	t.Helper()
	needs(t, "daemontools", "envdir", "setuidgid", "supervise", "svc", "svok", "svstat")
	// Around envdir there are variables that its files must win over.
	s := &service{site: newSite(t, nil)}
	s.env = map[string]string{"PATH": s.dir + "/old:" + bin + ":" + os.Getenv("PATH"), "GORACE": s.env["GORACE"], "TZ": "UTC",
		"FIFOTMPDIR": s.env["FIFOTMPDIR"], "USE_BTREE": "0", "MAX_BTREE_COUNT": "1", "INFIFO": s.dir + "/wrong", "INFIFODIR": s.dir + "/wrong"}
	s.path = filepath.Join(s.dir, "service")
	s.docs = strings.NewReplacer("/service/inlookup", s.path, "/usr/local/sbin/", bin+"/", "setuidgid indimail ", asMe(t))
	if err := os.MkdirAll(filepath.Join(s.path, "variables"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"INFIFO": "infifo\n", "INFIFODIR": "", "FIFODIR": s.dir + "/run \n", "THREAD_COUNT": "5\n",
		"CACHE_COUNT": "3600\n", "USE_BTREE": "", "MAX_BTREE_COUNT": "0\n", "DEFAULT_DOMAIN": "example.com\n",
		"CONTROLDIR": mariadbtest.Control(t, db) + "\n", "ASSIGNDIR": s.dir + "/users\n",
		"CACHE_NEGATIVE_TTL": "1h\n"} { // the last is ours: that a new user is seen shall not be a matter of time

		s.set(name, text)
	}
	if err := os.WriteFile(filepath.Join(s.path, "run"), []byte(run), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// asMe returns what stands for "setuidgid indimail ": the same with who runs the test, if that is root; nobody else may
// use it.
func asMe(t *testing.T) string {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return ""
	}
	return "setuidgid " + me.Username + " "
}

// set writes a file of the variables directory.
func (s *service) set(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.path, "variables", name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// asked is the site that a client in the service's environment sees.
func (s *service) asked() *site {
	return &site{s.t, s.dir, map[string]string{"INFIFODIR": s.dir + "/run", "FIFOTMPDIR": s.env["FIFOTMPDIR"]}}
}

// shell runs a script of FROM-C.md, or a line of it.
func (s *service) shell(script string) (status int, output string) {
	s.t.Helper()
	cmd := s.command("/bin/sh", "-ec", s.docs.Replace(script))
	cmd.Dir = s.path
	status, stdout, stderr := s.runCommand(cmd)
	return status, stdout + stderr
}

// scripts returns the blocks of shell commands in FROM-C.md.
func scripts(t *testing.T) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("FROM-C.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "\n```sh\n")[1:] {
		block, _, _ := strings.Cut(block, "```\n")
		blocks = append(blocks, block)
	}
	if len(blocks) != 6 {
		t.Fatalf("%d blocks of commands in FROM-C.md", len(blocks))
	}
	return blocks
}

// served waits until all FIFOs of the service have a reader.
func (s *service) served() {
	s.t.Helper()
	for i := 1; i <= 5; i++ {
		eventually(s.t, fmt.Sprintf("somebody reads FIFO %d", i), func() bool { return reachable(fmt.Sprintf("%s/run/infifo.%d", s.dir, i), "") })
	}
}

// empty reports whether nothing is left in the directory of the FIFOs.
func (s *service) empty() bool {
	files, err := os.ReadDir(s.dir + "/run")
	return err == nil && len(files) == 0
}

// TestMigration runs the run file by itself, with each way to write an empty variable.
func TestMigration(t *testing.T) {
	db := database(t)
	run := scripts(t)[0]
	mustExec(t, db, "INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos) VALUES ('user','example.com','imap','192.0.2.10',1,'')",
		"DELETE FROM lastauth")
	for name, variables := range map[string]map[string]string{
		"files of no bytes":   {"USE_BTREE": "", "MAX_BTREE_COUNT": "0\n", "INFIFO": "infifo\n"},
		"empty first lines":   {"USE_BTREE": "\n", "MAX_BTREE_COUNT": "\n", "INFIFO": "\n", "INFIFODIR": "\n"},
		"all of them taken":   {"USE_BTREE": "", "MAX_BTREE_COUNT": "", "INFIFO": ""},
		"values without ends": {"USE_BTREE": "1", "MAX_BTREE_COUNT": "0", "INFIFO": "infifo \t"},
		"no memory":           {"USE_BTREE": "0\n", "CACHE_COUNT": "0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, db, "")
			for name, text := range variables {
				s.set(name, text)
			}
			cmd := s.command("/bin/sh", "-c", s.docs.Replace(run))
			cmd.Dir = s.path
			p := s.startCommand(cmd)
			s.served()
			testMigrated(t, s, p, db, variables["USE_BTREE"] != "0\n")
		})
	}
}

func testMigrated(t *testing.T, s *service, p *process, db *mariadb.DB, cache bool) {
	asked := s.asked()
	if exists(asked.fifo("infifo")) || exists(asked.fifo("infifo.6")) || exists(s.dir+"/wrong") {
		t.Errorf("there are other FIFOs than infifo.1 to infifo.5")
	}
	for i := 1; i <= 5; i++ {
		for _, email := range []string{"over@example.com", "over"} { // the second is of DEFAULT_DOMAIN
			if a, err := asked.ask(fmt.Sprintf("infifo.%d", i), inlookup.Query{Type: inlookup.TypeUser, Email: email}); a.Code() != 3 || len(a) != 4 || err != nil {
				t.Errorf("infifo.%d: %s: %x, %v", i, email, a, err)
			}
		}
	}
	if cache {
		eventually(t, "the recent user is loaded", func() bool { return strings.Contains(p.stdout.String(), "1 users loaded in ") })
	}
	for _, c := range goldenCommands(t) {
		args := append([]string{"variables", bin + "/inquerytest"}, c.args...)
		cmd := s.command("envdir", args...)
		cmd.Dir = s.path
		if status, stdout, stderr := s.runCommand(cmd); status != c.status || stdout != c.stdout {
			t.Errorf("%q: exit %d, want %d, stdout %q, want %q, stderr %q", c.args, status, c.status, stdout, c.stdout, stderr)
		}
	}
	counts := asked.counts()
	if (counts["cache_hits_total"] > 0) != cache {
		t.Errorf("%v hits; a cache: %v", counts["cache_hits_total"], cache)
	}
	if entries := counts[`cache_entries{kind="present"}`]; cache && entries < 5 {
		t.Errorf("%v entries: MAX_BTREE_COUNT of the outside counts", entries)
	}

	d := asked.directory()
	status := func() inlookup.Status {
		status, err := d.Status(context.Background(), "migrated@example.com")
		if err != nil {
			t.Error(err)
		}
		return status
	}
	if got := status(); got != inlookup.StatusAbsent {
		t.Errorf("before the user was added: %v", got)
	}
	addUser(t, db, "migrated", "example.com", "hash")
	if got := status(); cache != (got == inlookup.StatusAbsent) {
		t.Errorf("the user is %v without SIGHUP; a cache: %v", got, cache)
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the new user after SIGHUP", func() bool { return status() == inlookup.StatusActive })

	p.terminate()
	if !s.empty() {
		t.Error("something is left beside the FIFOs")
	}
	statistics := regexp.MustCompile(`(?m)^User:Relay:Password:Limit:Alias:Host:Domain \d+( \d+){6} Cached Nodes \d+$`)
	if text := p.stdout.String(); !statistics.MatchString(text) {
		t.Errorf("no statistics at the end:\n%s", text)
	}
}

// Without a value the run file says "-i -c", which must not be taken for something else.
func TestMigrationNoCount(t *testing.T) {
	s := newService(t, database(t), "")
	for _, name := range []string{"THREAD_COUNT", "CACHE_COUNT"} {
		s.set(name, "")
		if status, output := s.shell(scripts(t)[0]); status != 100 || !strings.HasPrefix(output, "inlookup: ") || strings.Count(output, "\n") != 1 {
			t.Errorf("without %s: exit %d, %q", name, status, output)
		}
		s.set(name, "5\n")
	}
}

// An oldServer stands for the C program: it makes its FIFOs, which must not be there yet, reads them, and removes them
// at SIGTERM.
const oldServer = `#!/bin/sh
[ "$1 $2 $3 $4" = "-i 5 -c 3600" ] && [ "$INFIFO" = infifo ] || { echo "old server: $*"; exit 100; }
mkdir -p "$FIFODIR"
cd "$FIFODIR"
mkfifo infifo.1 infifo.2 infifo.3 infifo.4 infifo.5 || exit 111
exec 4<>infifo.1 5<>infifo.2 6<>infifo.3 7<>infifo.4 8<>infifo.5
sleep 600 &
trap "kill $!; rm infifo.*; exit 0" TERM HUP
echo old server ready
wait
`

// TestMigrationSupervise changes over from a stand-in for the C program, and back, with the commands of FROM-C.md.
func TestMigrationSupervise(t *testing.T) {
	db := database(t)
	blocks := scripts(t)
	run, before, over, after, flush, back := blocks[0], blocks[1], blocks[2], blocks[3], blocks[4], blocks[5]
	s := newService(t, db, run)
	// The old program is found by PATH; setuidgid is another user's here, which the run file must say for sed to find it.
	if err := os.MkdirAll(s.dir+"/old", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"inlookup": oldServer, "setuidgid": "#!/bin/sh\nshift\nexec " + s.docs.Replace("setuidgid indimail ") + "\"$@\"\n"} {
		if asMe(t) != "" && name == "setuidgid" {
			text = strings.Replace(text, "exec setuidgid", "exec "+lookPath(t, "setuidgid"), 1)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "old", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.docs = strings.NewReplacer("/service/inlookup", s.path, "/usr/local/sbin/", bin+"/") // setuidgid is now the one above

	supervise := s.startCommand(s.command("supervise", s.path))
	t.Cleanup(func() { // before supervise is killed, lest what it started stays
		s.shell("svc -dx /service/inlookup")
		supervise.wait()
	})
	eventually(t, "the old server is ready", func() bool { return strings.Contains(supervise.stdout.String(), "old server ready\n") })
	do := func(what, script, want string) {
		t.Helper()
		if status, output := s.shell(script); status != 0 || !strings.Contains(output, want) {
			t.Errorf("%s: exit %d\n%swant %q", what, status, output, want)
		}
	}
	do("before", before, "ok ")
	if status, output := s.shell(before); status != 0 || strings.Contains(output, "wrong ") {
		t.Errorf("before: exit %d\n%s", status, output)
	}
	do("change over", over, "")
	asked := s.asked()
	ready := func() {
		t.Helper()
		c := &inlookup.Client{Getenv: asked.getenv, Timeout: time.Second}
		eventually(t, "ours answers", func() bool {
			_, err := c.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeStatus})
			return err == nil
		})
	}
	ready()
	do("after", after, "pw_name  : user\n")
	do("after", after, "inlookup_queries_total{type=\"passwd\"} 2\n")
	do("after", after, ": up (pid ")
	do("flush", flush, "1 entries flushed\n")

	// The page's commands for supervise.
	d := asked.directory()
	if got := passwd(t, d, "user@example.com"); got == "" {
		t.Error("no password")
	}
	page := readPage(t, "inlookup.8").examples()
	hup, down := "svc -h /service/inlookup", "svc -d /service/inlookup"
	for _, line := range []string{hup, down} {
		if !strings.Contains(strings.Join(page, "\n")+"\n", line+"\n") {
			t.Errorf("inlookup.8 has no %q", line)
		}
	}
	do("svc -h", hup, "")
	eventually(t, "all is forgotten", func() bool { return asked.counts()["cache_flushed_total"] > 1 })
	do("svc -d", down, "")
	eventually(t, "the FIFOs are gone", s.empty)
	do("svc -u", "svc -u /service/inlookup", "")
	ready()

	do("back", back, "")
	eventually(t, "the old server is ready again", func() bool { return strings.Count(supervise.stdout.String(), "old server ready\n") == 2 })
	s.served()
}

func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
