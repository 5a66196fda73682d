//go:build ops

package systemtest

// FROM-C.md, tried: its run file and its commands, under the real envdir, supervise and svc of
// daemontools. Only paths are the test's own. The accounts exist in a mount namespace, and setpriv
// stands for IndiMail's setuidgid -g.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// A service is IndiMail's service, with the paths of FROM-C.md below the test's directory.
type service struct {
	*site
	path string            // of the directory of supervise
	docs *strings.Replacer // from the paths of FROM-C.md to the test's
	page *fromC
}

// setuidgid stands for IndiMail's. That of daemontools knows no -g.
const setuidgid = `#!/bin/sh
[ "$1" = -g ] || exit 100
groups=$2 user=$3
shift 3
exec setpriv --reuid "$user" --regid "${groups%%,*}" --groups "$groups" "$@"
`

// newService makes one with IndiMail's variables, and the run file of FROM-C.md.
func newService(t *testing.T, db *mariadb.DB) *service {
	t.Helper()
	testmain.Need(t, "daemontools", "envdir", "supervise", "svc", "svok", "svstat", "multilog")
	s := &service{site: newSite(t, nil), page: readFromC(t)}
	s.accounts()
	s.path = filepath.Join(s.dir, "service")
	// Around envdir there are variables that its files must override.
	s.env = map[string]string{
		"PATH": s.dir + "/bin:" + os.Getenv("PATH"), "GORACE": s.env["GORACE"], "TZ": "UTC",
		"USE_BTREE": "0", "MAX_BTREE_COUNT": "1",
		"INFIFO": s.dir + "/wrong", "INFIFODIR": s.dir + "/wrong",
	}
	s.docs = strings.NewReplacer("/service/inlookup.infifo", s.path, "/run/indimail/", s.dir+"/run/",
		"/usr/sbin/", s.dir+"/sbin/", "/usr/local/lib/", s.dir+"/lib/",
		"go build -o new/ ./cmd/...",
		fmt.Sprintf("install -D -t new %[1]s/inlookup %[1]s/inquerytest", bin))
	for _, dir := range []string{"bin", "sbin", "lib", "service/variables"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	control := mariadbtest.Control(t, db)
	s.ownControl(control, qmaildUser, qmailGroup)
	s.write("bin/setuidgid", setuidgid)
	s.write("service/run", s.docs.Replace(s.page.run))
	for name, text := range map[string]string{
		"INFIFO":                   "infifo\n",
		"INFIFODIR":                s.dir + "/run/inlookup\n",
		"THREAD_COUNT":             "5\n",
		"FIFO_MODE":                "0660\n",
		"CACHE_COUNT":              "3600\n",
		"PASSWD_CACHE":             "",
		"QUERY_CACHE":              "",
		"USE_BTREE":                "",
		"MAX_BTREE_COUNT":          "0\n",
		"DOMAIN_LIMITS":            "",
		"MYSQL_READ_DEFAULT_FILE":  "/etc/indimail/indimail.cnf\n",
		"MYSQL_READ_DEFAULT_GROUP": "indimail\n",
		"MYSQL_OPT_RECONNECT":      "1\n",
		"DEFAULT_DOMAIN":           "example.com\n",
		"CONTROLDIR":               control + "\n",
		"ASSIGNDIR":                s.dir + "/users\n",
		"CACHE_NEGATIVE_TTL":       "1h\n", // ours: no new user is seen because time has passed
	} {
		s.set(name, text)
	}
	return s
}

// write writes a file that can be run.
func (s *service) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// set writes a file of the variables directory.
func (s *service) set(name, text string) {
	s.t.Helper()
	s.write("service/variables/"+name, text)
}

// asked is the site that a client sees.
func (s *service) asked() *site {
	return &site{t: s.t, dir: s.dir, foreign: true, env: map[string]string{
		"INFIFODIR": s.dir + "/run/inlookup", "FIFOTMPDIR": s.dir + "/run/inquery",
		"QUERY_CACHE": "1", "TZ": "UTC", "PATH": s.env["PATH"], "GORACE": s.env["GORACE"]}}
}

// shell runs a script of FROM-C.md.
func (s *service) shell(script string) (status int, output string) {
	s.t.Helper()
	cmd := s.namespace("", "/bin/sh", "-ec", s.docs.Replace(script))
	cmd.Dir = s.dir
	status, stdout, stderr := s.runCommand(cmd)
	return status, stdout + stderr
}

// do runs a script that must succeed, and checks for a text in what it writes.
func (s *service) do(what, script, want string) {
	s.t.Helper()
	if status, output := s.shell(script); status != 0 || !strings.Contains(output, want) {
		s.t.Errorf("%s: exit %d, want %q in\n%s", what, status, want, output)
	}
}

// fromC is the blocks of shell commands in FROM-C.md, in their order.
type fromC struct {
	run, build, get, install, check, ask, over, look, hangup, flush, upgrade, downgrade, back string
}

func readFromC(t *testing.T) *fromC {
	t.Helper()
	text, err := os.ReadFile("../../inlookup/doc/FROM-C.md")
	if err != nil {
		t.Fatal(err)
	}
	f := &fromC{}
	fields := []*string{&f.run, &f.build, &f.get, &f.install, &f.check, &f.ask, &f.over, &f.look,
		&f.hangup, &f.flush, &f.upgrade, &f.downgrade, &f.back}
	blocks := strings.Split(string(text), "\n```sh\n")[1:]
	if len(blocks) != len(fields) {
		t.Fatalf("%d blocks of commands in FROM-C.md, want %d", len(blocks), len(fields))
	}
	for i, block := range blocks {
		*fields[i], _, _ = strings.Cut(block, "```\n")
	}
	return f
}

// served waits until all FIFOs of the service have a reader.
func (s *service) served() {
	s.t.Helper()
	for i := 1; i <= 5; i++ {
		fifo := fmt.Sprintf("%s/run/inlookup/infifo.%d", s.dir, i)
		eventually(s.t, "somebody reads "+fifo, func() bool { return reachable(fifo, "") })
	}
}

// ready waits until the server answers.
func (s *service) ready() {
	s.t.Helper()
	c := &inlookup.Client{Getenv: s.asked().getenv, Timeout: time.Second}
	eventually(s.t, "ours answers", func() bool {
		_, err := c.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeStatus})
		return err == nil
	})
}

// empty reports whether nothing is left in the directory of the FIFOs.
func (s *service) empty() bool {
	files, err := os.ReadDir(s.dir + "/run/inlookup")
	return err == nil && len(files) == 0
}

// ours has the service run the new program.
func (s *service) ours() {
	s.t.Helper()
	s.do("build", s.page.build, "")
	s.do("install", s.page.install, "")
	s.write("service/run", strings.ReplaceAll(s.docs.Replace(s.page.run), s.dir+"/sbin/",
		s.dir+"/lib/inlookup/"))
}

// TestRunFileOfFromC runs the run file by itself, with each way to write an empty variable.
func TestRunFileOfFromC(t *testing.T) {
	db := database(t)
	lastLogin(t, db)
	for name, variables := range map[string]map[string]string{
		"as they are":         {},
		"empty first lines":   {"USE_BTREE": "\n", "MAX_BTREE_COUNT": "\n", "INFIFO": "\n"},
		"all of them taken":   {"USE_BTREE": "", "MAX_BTREE_COUNT": "", "INFIFO": ""},
		"values without ends": {"USE_BTREE": "1", "MAX_BTREE_COUNT": "0", "INFIFO": "infifo \t"},
		"no memory":           {"USE_BTREE": "0\n", "CACHE_COUNT": "0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, db)
			if name == "all of them taken" { // the older name of the variable
				s.set("INFIFODIR", "")
				s.set("FIFODIR", s.dir+"/run/inlookup \n")
			}
			for name, text := range variables {
				s.set(name, text)
			}
			s.ours()
			cmd := s.namespace("", "./run")
			cmd.Dir = s.path
			p := s.startCommand(cmd)
			s.ready()
			testMigrated(t, s, p, db, variables["USE_BTREE"] != "0\n")
		})
	}
}

func testMigrated(t *testing.T, s *service, p *process, db *mariadb.DB, cache bool) {
	t.Helper()
	asked := s.asked()
	if exists(asked.fifo("infifo")) || exists(asked.fifo("infifo.6")) || exists(s.dir+"/wrong") {
		t.Errorf("there are other FIFOs than infifo.1 to infifo.5")
	}
	for i := 1; i <= 5; i++ {
		c := &inlookup.Client{Infifo: asked.fifo(fmt.Sprintf("infifo.%d", i)), Getenv: asked.getenv}
		for _, email := range []string{"over@example.com", "over"} { // the second is of DEFAULT_DOMAIN
			status, err := inlookup.Directory{Resolver: c}.Status(t.Context(), email)
			if status != inlookup.StatusOverQuota || err != nil {
				t.Errorf("infifo.%d: %s: %v, %v", i, email, status, err)
			}
		}
	}
	if cache {
		eventually(t, "the recent user is loaded", func() bool {
			return strings.Contains(p.stdout.String(), "1 of 1 users loaded in ")
		})
	}
	counts := asked.counts()
	if (counts["cache_hits_total"] > 0) != cache {
		t.Errorf("%v hits; a cache: %v", counts["cache_hits_total"], cache)
	}
	if entries := counts[`cache_entries{kind="present"}`]; cache && entries < 2 {
		t.Errorf("%v entries: MAX_BTREE_COUNT of the outside counts", entries)
	}
	testNewUser(t, s, p, db, cache)
	p.terminate()
	if !s.empty() {
		t.Error("something is left beside the FIFOs")
	}
	if text := p.stdout.String(); !statisticsLine.MatchString(text) {
		t.Errorf("no statistics at the end:\n%s", text)
	}
}

var statisticsLine = regexp.MustCompile(
	`(?m)User:Relay:Password:Limit:Alias:Host:Domain \d+( \d+){6} Cached Nodes \d+$`)

// testNewUser adds a user, and has the server told as the hooks do.
func testNewUser(t *testing.T, s *service, p *process, db *mariadb.DB, cache bool) {
	t.Helper()
	d := s.asked().directory()
	status := func() inlookup.Status {
		t.Helper()
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
	eventually(t, "the new user after SIGHUP",
		func() bool { return status() == inlookup.StatusActive })
}

// Without a value the run file says "-i -c", which must not be taken for something else.
func TestRunFileWithoutACount(t *testing.T) {
	s := newService(t, database(t))
	s.ours()
	for _, name := range []string{"THREAD_COUNT", "CACHE_COUNT"} {
		s.set(name, "")
		status, output := s.shell("cd /service/inlookup.infifo\nexec ./run")
		lines := strings.Split(strings.TrimSpace(output), "\n")
		if status != 100 || !strings.HasPrefix(lines[len(lines)-1], "inlookup: ") {
			t.Errorf("without %s: exit %d, %q", name, status, output)
		}
		s.set(name, "5\n")
	}
}

// An oldServer stands for the C program: it reads the FIFOs that the run file made.
const oldServer = `#!/bin/sh
[ "$*" = "-v -i 5 -c 3600" ] && [ "$INFIFO" = infifo ] || { echo "old server: $*"; exit 100; }
cd "$INFIFODIR" || exit 111
exec 4<>infifo.1 5<>infifo.2 6<>infifo.3 7<>infifo.4 8<>infifo.5 || exit 111
sleep 600 &
trap "kill $!; exit 0" TERM HUP
echo old server ready
wait
`

// A laterServer is the program of an upgrade.
const laterServer = "#!/bin/sh\necho later version\nexec \"%s/inlookup\" \"$@\"\n"

// TestRecipeOfFromC changes over from a stand-in for the C program, upgrades, and goes back
// in two steps, with the commands of FROM-C.md. Each time another program runs.
func TestRecipeOfFromC(t *testing.T) {
	t.Parallel()
	db := database(t)
	s := newService(t, db)
	s.write("sbin/inlookup", oldServer)
	supervise := s.startCommand(s.namespace("", "supervise", s.path))
	t.Cleanup(func() { // before supervise is killed, lest what it started stays
		s.shell("svc -dx /service/inlookup.infifo")
		supervise.wait()
	})
	said := func(text string, times int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%q is said %d times", text, times), func() bool {
			return strings.Count(supervise.stdout.String(), text+"\n") == times
		})
	}
	said("old server ready", 1)

	s.do("build", s.page.build, "")
	s.do("install", s.page.install, "")
	s.do("check", s.page.check, "ok ")
	if status, output := s.shell(s.page.check); status != 0 || strings.Contains(output, "wrong ") ||
		!strings.Contains(output, "MYSQL_READ_DEFAULT_FILE") {
		t.Errorf("check: exit %d\n%s", status, output)
	}
	s.do("change over", s.page.over, s.dir+"/lib/inlookup/inlookup ")
	s.ready()
	s.do("change over twice, which must not spoil the way back", s.page.over, "")
	eventually(t, "the first one ends", func() bool { return ends(supervise) == 1 })
	s.ready()
	s.do("ask", s.page.ask, "pw_name  : user\n")
	s.do("look", s.page.look, "pw_name  : user\n")
	s.do("look", s.page.look, "inlookup_queries_total{type=\"passwd\"} 3\n")
	s.do("look", s.page.look, ": up (pid ")
	s.do("flush", s.page.flush, "1 entry flushed\n")
	testHangup(t, s)

	s.write("new/inlookup", fmt.Sprintf(laterServer, bin))
	s.do("upgrade", s.page.upgrade, "")
	said("later version", 1)
	s.ready()
	s.do("downgrade", s.page.downgrade, "")
	eventually(t, "the later version ends", func() bool { return ends(supervise) == 4 })
	s.ready()
	said("later version", 1)
	said("old server ready", 1)

	s.do("back", s.page.back, s.dir+"/sbin/inlookup ")
	said("old server ready", 2)
	s.served()
	s.do("change over again", s.page.over, "")
	s.ready()
}

// ends returns how many servers of ours have ended.
func ends(p *process) int { return len(statisticsLine.FindAllString(p.stdout.String(), -1)) }

// testHangup drops the cache, stops the service and starts it, with the commands of the manual
// page.
func testHangup(t *testing.T, s *service) {
	t.Helper()
	if got := passwd(t, s.asked().directory(), "user@example.com"); got == "" {
		t.Error("no password")
	}
	flushed := s.asked().counts()["cache_flushed_total"]
	s.do("svc -h", s.page.hangup, "")
	eventually(t, "all is dropped",
		func() bool { return s.asked().counts()["cache_flushed_total"] > flushed })
	examples := readPage(t, "../../inlookup/inlookup.8").examples()
	for _, option := range []string{"-h", "-d"} {
		if !slices.ContainsFunc(examples, func(line string) bool {
			return strings.HasPrefix(line,
				"svc "+option+" ")
		}) {
			t.Errorf("inlookup.8 has no example of svc %s", option)
		}
	}
	s.do("svc -d", "svc -d /service/inlookup.infifo", "")
	eventually(t, "the FIFOs are gone", s.empty)
	s.do("svc -u", "svc -u /service/inlookup.infifo", "")
	s.ready()
}
