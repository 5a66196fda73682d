package systemtest

// The manual pages, held against the commands themselves: their usage, their
// output, and the text in the built programs. The examples in the pages are run.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// A page is a manual page in mdoc(7).
type page struct {
	path     string
	text     string
	sections map[string]string
}

func readPage(t *testing.T, path string) page {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := page{path: path, text: string(b), sections: make(map[string]string)}
	for _, section := range strings.Split(p.text, "\n.Sh ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		p.sections[title] = text + "\n"
	}
	return p
}

// blocks returns the literal blocks of section EXAMPLES.
func (p page) blocks() (blocks []string) {
	for _, block := range strings.Split(p.sections["EXAMPLES"], ".Bd -literal -offset indent\n")[1:] {
		block, _, _ = strings.Cut(block, "\n.Ed")
		blocks = append(blocks, block+"\n")
	}
	return blocks
}

// examples returns the commands of section EXAMPLES, a line each.
func (p page) examples() (lines []string) {
	for _, block := range p.blocks() {
		lines = append(lines, strings.Split(strings.TrimSpace(block), "\n")...)
	}
	return lines
}

// find returns the first group of each match of pattern, as the keys of a map.
func find(text, pattern string) map[string]bool {
	found := make(map[string]bool)
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[match[1]] = true
	}
	return found
}

// same checks that two places name the same things.
func same(t *testing.T, what, inA string, a map[string]bool, inB string, b map[string]bool) {
	t.Helper()
	subset(t, what, inA, a, inB, b)
	subset(t, what, inB, b, inA, a)
}

// subset checks that b names what a names.
func subset(t *testing.T, what, inA string, a map[string]bool, inB string, b map[string]bool) {
	t.Helper()
	if len(a) == 0 {
		t.Errorf("%s has no %s", inA, what)
	}
	for name := range a {
		if !b[name] {
			t.Errorf("%s %s of %s is not in %s", what, name, inA, inB)
		}
	}
}

// A manual is one command: its page and its -h.
type manual struct {
	name string
	page page
	help string
}

func manuals(t *testing.T) (all []manual) {
	t.Helper()
	s := newSite(t, nil)
	for _, name := range []string{"inlookup", "inquerytest"} {
		status, help, stderr := s.run(name, "-h")
		if status != 0 || stderr != "" {
			t.Fatalf("%s -h: exit %d, stderr %q", name, status, stderr)
		}
		all = append(all, manual{name, readPage(t, "../../"+name+"/"+name+".8"), help})
	}
	return all
}

// Each flag of -h is in the page, with its options and in the synopsis, and the reverse.
func TestManualFlags(t *testing.T) {
	for _, m := range manuals(t) {
		help := find(m.help, `(?:^|[\s\[])-([A-Za-z]+)\b`)
		help["h"] = true // not in its own output
		same(t, "flag", m.name+" -h", help, m.page.path, find(m.page.text, `\bFl (\w+)`))
		same(t, "flag", m.name+" -h", help, "its options",
			find(m.page.sections["DESCRIPTION"], `\n\.It Fl (\w+)`))
		same(t, "flag", m.name+" -h", help, "its synopsis",
			find(m.page.sections["SYNOPSIS"], `\bFl (\w+)`))
	}
}

// Both commands tell their version in the same form, and -h names the page.
func TestManualVersion(t *testing.T) {
	s := newSite(t, nil)
	for _, m := range manuals(t) {
		status, stdout, stderr := s.run(m.name, "-V")
		words := strings.Fields(stdout)
		if status != 0 || stderr != "" || len(words) != 2 || words[0] != m.name {
			t.Errorf("%s -V: exit %d, %q, %q, want name and version", m.name, status, stdout, stderr)
		}
		want := fmt.Sprintf(" %s(8): cmd/%[1]s/%[1]s.8", m.name)
		if !strings.Contains(m.help, want) {
			t.Errorf("%s -h does not name %s", m.name, want)
		}
	}
}

// Each variable and each signal of -h is in the page.
func TestManualVariables(t *testing.T) {
	for _, m := range manuals(t) {
		names := make(map[string]bool)
		first := regexp.MustCompile(`(?m)^  ([A-Z].*?)(  |$)`) // the first column
		for _, column := range first.FindAllStringSubmatch(m.help, -1) {
			prefix := ""
			for _, name := range regexp.MustCompile(`[A-Z_]{4,}`).FindAllString(column[1], -1) {
				if name[0] == '_' { // "MYSQL_HOST, _USER"
					name = prefix + name
				}
				prefix, _, _ = strings.Cut(name, "_")
				names[name] = true
			}
		}
		subset(t, "variable", m.name+" -h", names, m.page.path+", ENVIRONMENT",
			find(m.page.sections["ENVIRONMENT"], `\bEv ([A-Z_]+)`))
	}
	m := manuals(t)[0]
	signals := find(m.help, `\b(HUP|INT|TERM|USR1|USR2)\b`)
	listed := find(m.page.sections["SIGNALS"], `\n?\.It Dv SIG(\w+)`)
	delete(listed, "PIPE") // nobody sends it
	same(t, "signal", m.name+" -h", signals, m.page.path, listed)
}

// The words of each line in DIAGNOSTICS are in the program. Those in capitals differ each time.
func TestManualDiagnostics(t *testing.T) {
	t.Parallel()
	const differ = `\b(PATH|FILE|LINE|TEXT|NAME|HOST|ADDRESS|DOMAIN|VARIABLE|TYPE|TIME|NUMBER|STATE|` +
		`USER|MODE|VERSION|CACHE|COLUMN)\b|4352|4096|permission denied|&& |: |, | on `
	for _, m := range manuals(t) {
		program, err := os.ReadFile(filepath.Join(bin, m.name))
		if err != nil {
			t.Fatal(err)
		}
		lines := find(m.page.sections["DIAGNOSTICS"], `\n\.It "(.*)"`)
		if len(lines) < 10 {
			t.Errorf("%s: %d diagnostics", m.page.path, len(lines))
		}
		for line := range lines {
			for _, words := range regexp.MustCompile(differ).Split(line, -1) {
				words = strings.Trim(words, " :,;?")
				if !bytes.Contains(program, []byte(words)) {
					t.Errorf("%s: %q: no %q in %s", m.page.path, line, words, m.name)
				}
			}
		}
	}
}

// Each counter is in the page, and the reverse.
func TestManualCounters(t *testing.T) {
	s := newSite(t, nil)
	s.serve()
	status := s.text(inlookup.Query{Type: inlookup.TypeStatus})
	text := readPage(t, "../../inlookup/inlookup.8").sections["MONITORING"]
	items := strings.Join(regexp.MustCompile(`(?m)^\.It Li .*`).FindAllString(text, -1), " ")
	same(t, "counter", "the status", find(status, `(?m)^inlookup_(\w+)`), "inlookup.8",
		find(items, `\b([a-z]+_?[a-z_]+)\b`))
}

// The Go names of inquery.3 are those of the package.
func TestManualNames(t *testing.T) {
	t.Parallel()
	doc, err := exec.Command("go", "doc", "-all", "../../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := find(readPage(t, "../../inlookup/inquery.3").text, `\binlookup\.([A-Z]\w*)`)
	subset(t, "name", "inquery.3", names, "go doc", find(string(doc), `\b([A-Z]\w*)\b`))
}

func TestManualLint(t *testing.T) {
	testmain.Need(t, "mandoc", "mandoc")
	pages, err := filepath.Glob("../../*/*.[1-9]")
	if err != nil || len(pages) != 3 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	for _, page := range pages {
		out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// An example is what a line of a page does in the test.
type example struct {
	serves string // a server that stays: its FIFO, or "tcp"
	want   string // of another command: a part of what it writes
	quiet  bool   // it writes nothing
	left   bool   // not run here
	load   bool   // takes seconds: run with the tests of operations
}

var (
	serverExamples = map[string]example{
		"inlookup -t":           {want: "ok "},
		"inlookup -i 5 -c 3600": {serves: "infifo.5"},
		"MYSQL_HOST=db.example.com MYSQL_PASSWD=secret inlookup -f /run/inlookup/infifo": {
			serves: "infifo"},
		"inquerytest -q 3 -i /run/inlookup/infifo user@example.com": {want: "pw_name  : user\n"},
		"REPLYDIR=/run/inlookup/replies inlookup -f replies.fifo":   {serves: "replies.fifo"},
		"FIFOTMPDIR=/run/inlookup/replies inquerytest -q 1 -i replies.fifo user@example.com": {
			want: "has all services enabled\n"},
		"QUERY_CACHE=1 tcpserver -H -R -l0 127.0.0.1 2012 inlookup": {serves: "tcp"},
		"TCPCLIENT=1 tcpclient -H -R -l0 127.0.0.1 2012 inquerytest -q 1 user@example.com": {
			want: "has all services enabled\n"},
		// TestRecipeOfFromC runs these two.
		"svc -h /service/inlookup.infifo":                                                {left: true},
		"svc -d /service/inlookup.infifo":                                                {left: true},
		`kill -USR1 $(svstat /service/inlookup.infifo | sed 's/.*pid \([0-9]*\).*/\1/')`: {left: true},
		"inlookup -demo": {want: "The seven questions", load: true},
	}
	clientExamples = map[string]example{
		"inquerytest -q user user@example.com":                  {want: "has all services enabled\n"},
		`inquerytest -q 1 -i "" user@example.com`:               {want: "has all services enabled\n"},
		"QUERY_CACHE=1 inquerytest -q 1 user@example.com":       {want: "has all services enabled\n"},
		"inquerytest -q 2 user@example.com 192.0.2.10":          {want: "authenticated on 192.0.2.10\n"},
		"inquerytest -v -q 3 -i /tmp/own.fifo user@example.com": {want: "a new server on"},
		"inquerytest -x -q 3 user@example.com":                  {want: "real domain: example.com\n"},
		"inquerytest -F user@example.com":                       {want: " flushed\n"},
		"inquerytest -F example.com":                            {want: " flushed\n"},
		`inquerytest -F ""`:                                     {want: " flushed\n"},
		"inquerytest -s | grep hits":                            {want: "inlookup_cache_hits_total"},
		"inquerytest -s >/dev/null || exit 2":                   {quiet: true},
		"inquerytest -watch":                                    {want: "questions a second: "},
		"inquerytest -s -listen 127.0.0.1:9177":                 {left: true}, // TestScrape
		"QUERY_CACHE=1 inquerytest -n 10000 -p 16 -u 100 -q 3 user%d@example.com": {
			want: "queries/s", load: true},
		"inquerytest -n 10000 -p 16 -u 100 -q 3 user%d@example.com": {
			want: "queries/s", load: true},
		`inquerytest -c 86400 -i "" -compare mysql`:               {want: "differ       0\n"},
		`inquerytest -i "" -compare mysql <addresses`:             {want: "differ       0\n"},
		"inquerytest -i /tmp/new.fifo -compare infifo <addresses": {want: "differ       0\n"},
		"TCPCLIENT=1 tcpclient -H -R -l0 127.0.0.1 2012 inquerytest -q 1 user@example.com": {
			want: "has all services enabled\n"},
	}
)

// An exampleRun runs the examples as they are printed, except for paths, a host and a port.
type exampleRun struct {
	*site
	port    string
	here    *strings.Replacer
	servers []*process
}

func (r *exampleRun) command(line string) *exec.Cmd {
	cmd := r.site.command("/bin/sh", "-c", r.here.Replace(line))
	cmd.Dir = r.dir
	return cmd
}

func (r *exampleRun) run(line string, e example) {
	r.t.Helper()
	if e.left || e.load && !operations {
		return
	}
	if e.serves != "" {
		r.servers = append(r.servers, r.startCommand(r.command("exec env "+line)))
		eventually(r.t, line+" serves", func() bool { return reachable(r.fifo(e.serves), r.port) })
		return
	}
	status, stdout, stderr := r.runCommand(r.command(line))
	output := stdout + stderr
	right := strings.Contains(output, e.want)
	if e.quiet {
		right = output == ""
	}
	if status != 0 || !right {
		r.t.Errorf("%s: exit %d\n%swant %q", line, status, output, e.want)
	}
}

// page runs the examples of a page, which must be these.
func (r *exampleRun) page(path string, examples map[string]example) {
	r.t.Helper()
	printed := make(map[string]bool)
	for _, line := range readPage(r.t.(*testing.T), path).examples() {
		line = strings.ReplaceAll(line, `\e`, `\`) // as mdoc prints it
		printed[line] = true
		if e, ok := examples[line]; ok {
			r.run(line, e)
		} else {
			r.t.Errorf("%s: %q: what does it do?", path, line)
		}
	}
	for line := range examples {
		if !printed[line] {
			r.t.Errorf("%s has no example %q", path, line)
		}
	}
}

func TestManualExamples(t *testing.T) {
	testmain.Need(t, "ucspi-tcp", "tcpserver", "tcpclient")
	db := database(t)
	lastLogin(t, db)
	r := &exampleRun{site: newSite(t, db), port: freePort(t)}
	r.env["PATH"] = bin + ":" + r.env["PATH"]
	r.env["INFIFODIR"] = r.dir + "/run/inlookup"
	r.here = strings.NewReplacer("/run/inlookup", r.dir+"/run/inlookup", "/tmp/", r.dir+"/tmp/",
		"db.example.com", "localhost", " 2012 ", " "+r.port+" ")
	if err := os.MkdirAll(r.dir+"/run/inlookup/replies", 0o755); err != nil {
		t.Fatal(err)
	}
	addresses := []byte("user@example.com 192.0.2.10\nmissing@example.com\n")
	if err := os.WriteFile(r.dir+"/addresses", addresses, 0o600); err != nil {
		t.Fatal(err)
	}
	r.page("../../inlookup/inlookup.8", serverExamples)
	r.page("../../inquerytest/inquerytest.8", clientExamples) // with the servers of the other page
	for _, p := range r.servers {
		p.signal(syscall.SIGTERM)
		if status := p.wait(); status != 0 && !strings.Contains(p.cmd.Args[2], "tcpserver") {
			t.Errorf("%q: exit %d\n%s", p.cmd.Args, status, p.stderr.String())
		}
	}
}

// TestManualProgram builds the program of inquery.3 and runs it.
func TestManualProgram(t *testing.T) {
	t.Parallel()
	s := newSite(t, database(t))
	blocks := readPage(t, "../../inlookup/inquery.3").blocks()
	if len(blocks) != 1 {
		t.Fatalf("%d programs", len(blocks))
	}
	source, program := filepath.Join(s.dir, "main.go"), filepath.Join(s.dir, "program")
	if err := os.WriteFile(source, []byte(blocks[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gofmt", "-l", source).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("gofmt: %v %s", err, out)
	}
	out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ask := func(email, want string) {
		t.Helper()
		status, stdout, stderr := s.run(program, email)
		if status != 0 || stdout != want+"\n" || stderr != "" {
			t.Errorf("%s: exit %d, %q, %q, want %q", email, status, stdout, stderr, want)
		}
	}
	ask("user@example.com", "try again later")
	s.serve()
	ask("user@example.com", "/home/mail/A2E/example.com/user")
	ask("missing@example.com", "no such user")
	ask("inactive@example.com", "inactive")
}

func TestWrongUsageExits100(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, args := range []string{"-z", "-i", "-i -c", "-i -c 3600", "-c", "-c -v", "-f", "extra", "-v extra", "--nothing", "-i 1 -- -i"} {
		status, stdout, stderr := s.run("inlookup", strings.Fields(args)...)
		if status != 100 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "inlookup: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
	for _, arg := range []string{"-h", "-help", "--help"} {
		status, stdout, stderr := s.run("inlookup", arg)
		if status != 0 || !strings.Contains(stdout, "usage: inlookup [-f infifo] [-i instances] [-c seconds] [-v]") || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", arg, status, stdout, stderr)
		}
	}
}
