package main_test

// The manual pages, held against the code: flags, variables, control files, signals, names of the Go package and the
// words of errors are read from the sources with go/parser, and -h from the built commands. What is in one place and
// not in the other fails. The pages' examples are run as they stand there.

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A set of names. Missing from b what a has is what most tests here look for.
type set map[string]bool

func (s set) add(names ...string) {
	for _, name := range names {
		s[name] = true
	}
}

func (s set) sorted() []string { return slices.Sorted(maps.Keys(s)) }

// within reports what a has and b has not.
func (s set) within(t *testing.T, what, where string, b set) {
	t.Helper()
	for _, name := range s.sorted() {
		if !b[name] {
			t.Errorf("%s %s is not in %s", what, name, where)
		}
	}
}

// Sources are the files of one package that are no tests, whatever system they are for.
type sources struct {
	t     *testing.T
	files []*ast.File
	calls map[string][]call // by the last part of the called name
}

// A call, and the function it stands in.
type call struct {
	*ast.CallExpr
	in *ast.FuncDecl
}

func parseSources(t *testing.T, dir string) *sources {
	t.Helper()
	s := &sources{t: t, calls: make(map[string][]call)}
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, file)
		for _, decl := range file.Decls {
			in, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok {
					name := lastName(c.Fun)
					s.calls[name] = append(s.calls[name], call{c, in})
				}
				return true
			})
		}
	}
	if len(s.files) == 0 {
		t.Fatalf("no sources in %s", dir)
	}
	return s
}

// lastName returns c of a.b.c.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// values returns all strings that e may be: a literal, a sum, what a loop runs over, or an argument at every place
// where the function is called. What is written in another way is no error but a reason to extend this.
func (s *sources) values(in *ast.FuncDecl, e ast.Expr) (all []string, known bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return []string{text}, err == nil
	case *ast.BinaryExpr:
		left, ok1 := s.values(in, e.X)
		right, ok2 := s.values(in, e.Y)
		for _, l := range left {
			for _, r := range right {
				all = append(all, l+r)
			}
		}
		return all, ok1 && ok2 && e.Op == token.ADD
	case *ast.Ident:
		if in == nil {
			return nil, false
		}
		if list := loopOver(in, e.Name); list != nil {
			for _, e := range list {
				more, ok := s.values(in, e)
				if all = append(all, more...); !ok {
					return all, false
				}
			}
			return all, true
		}
		if i := parameter(in, e.Name); i >= 0 {
			return s.arguments(in.Name.Name, i)
		}
	}
	return nil, false
}

// arguments returns all values of argument i in calls of that name.
func (s *sources) arguments(name string, i int) (all []string, known bool) {
	known = true
	for _, c := range s.calls[name] {
		if i < len(c.Args) {
			more, ok := s.values(c.in, c.Args[i])
			all, known = append(all, more...), known && ok
		}
	}
	return all, known
}

// parameter returns the index of that parameter, -1 if it is none.
func parameter(f *ast.FuncDecl, name string) int {
	i := 0
	for _, field := range f.Type.Params.List {
		for _, n := range field.Names {
			if n.Name == name {
				return i
			}
			i++
		}
	}
	return -1
}

// loopOver returns the elements that a loop in f gives the variable: the keys of a map, the elements of a slice.
func loopOver(f *ast.FuncDecl, name string) (elements []ast.Expr) {
	ast.Inspect(f, func(n ast.Node) bool {
		r, ok := n.(*ast.RangeStmt)
		if !ok {
			return true
		}
		lit, ok := r.X.(*ast.CompositeLit)
		if !ok {
			return true
		}
		for _, e := range lit.Elts {
			if pair, ok := e.(*ast.KeyValueExpr); ok {
				if id, ok := r.Key.(*ast.Ident); ok && id.Name == name {
					elements = append(elements, pair.Key)
				}
			} else if id, ok := r.Value.(*ast.Ident); ok && id.Name == name {
				elements = append(elements, e)
			}
		}
		return true
	})
	return elements
}

// variables returns the environment variables that the package looks up.
func (s *sources) variables() set {
	s.t.Helper()
	found := make(set)
	for _, lookup := range []string{"Getenv", "getenv", "LookupEnv"} {
		for _, c := range s.calls[lookup] {
			names, ok := s.values(c.in, c.Args[0])
			if !ok {
				s.t.Errorf("cannot tell which variable %s is asked for in function %s", lookup, c.in.Name)
			}
			found.add(names...)
		}
	}
	for _, temporary := range s.calls["MkdirTemp"] { // os.TempDir(3): TMPDIR
		if dir, ok := s.values(temporary.in, temporary.Args[0]); ok && slices.Contains(dir, "") {
			found.add("TMPDIR")
		}
	}
	for _, bad := range []string{"Environ", "ExpandEnv"} {
		if len(s.calls[bad]) > 0 {
			s.t.Errorf("os.%s: which variables?", bad)
		}
	}
	return found
}

// controlFiles returns the names whose path the package asks for.
func (s *sources) controlFiles() set {
	s.t.Helper()
	found := make(set)
	names, ok := s.arguments("control", 0)
	if found.add(names...); !ok {
		s.t.Error("cannot tell which control files there are")
	}
	return found
}

// flags returns the flags of the package's flag sets, and whether each takes a value; -h is always there.
func (s *sources) flags() map[string]bool {
	s.t.Helper()
	found := map[string]bool{"h": false}
	flagSets := make(set)
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 {
				if c, ok := a.Rhs[0].(*ast.CallExpr); ok && lastName(c.Fun) == "NewFlagSet" {
					flagSets.add(lastName(a.Lhs[0]))
				}
			}
			return true
		})
	}
	kinds := regexp.MustCompile(`^(Bool|Duration|Float64|Int|Int64|String|Text|Uint|Uint64|Func|BoolFunc)?(Var)?$`)
	for name, calls := range s.calls {
		kind := kinds.FindStringSubmatch(name)
		for _, c := range calls {
			sel, ok := c.Fun.(*ast.SelectorExpr)
			if !ok || kind == nil || name == "" || !flagSets[lastName(sel.X)] {
				continue
			}
			at := 0
			if kind[2] == "Var" {
				at = 1
			}
			names, ok := s.values(c.in, c.Args[at])
			if !ok {
				s.t.Errorf("cannot tell the name of a flag in function %s", c.in.Name)
			}
			for _, name := range names {
				found[name] = !strings.HasPrefix(kind[1], "Bool") && kind[1] != "" // Var: its own matter, here a bool
			}
		}
	}
	return found
}

// signals returns the signals that the package asks for or ignores.
func (s *sources) signals() set {
	found := make(set)
	for _, name := range []string{"Notify", "NotifyContext", "Ignore"} {
		for _, c := range s.calls[name] {
			for _, arg := range c.Args {
				if name := lastName(arg); strings.HasPrefix(name, "SIG") {
					found.add(name)
				}
			}
		}
	}
	return found
}

// text returns all string literals, a line each, to look for words of errors.
func (s *sources) text() string {
	var all strings.Builder
	for _, file := range s.files {
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				text, _ := strconv.Unquote(lit.Value)
				all.WriteString(text + "\n")
			}
			return true
		})
	}
	return all.String()
}

// exported returns the package's exported names at the top.
func (s *sources) exported() set {
	found := make(set)
	for _, file := range s.files {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					found.add(d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						found.add(spec.Name.Name)
					case *ast.ValueSpec:
						for _, name := range spec.Names {
							found.add(name.Name)
						}
					}
				}
			}
		}
	}
	return found
}

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
	p := page{path, string(b), make(map[string]string)}
	for _, section := range strings.Split(p.text, "\n.Sh ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		p.sections[title] = text + "\n"
	}
	return p
}

// find returns the first group of all matches of pattern in text.
func find(text, pattern string) set {
	found := make(set)
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found.add(m[1])
	}
	return found
}

// items returns what the macro marks in the tags of the section's lists.
func (p page) items(section, macro string) set {
	found := make(set)
	for line := range strings.Lines(p.sections[section]) {
		if strings.HasPrefix(line, ".It ") {
			maps.Copy(found, find(line, `\b`+macro+` (\S+)`))
		}
	}
	return found
}

// examples returns the commands of the page, a line each.
func (p page) examples() (lines []string) {
	for _, block := range p.blocks() {
		lines = append(lines, strings.Split(strings.TrimSpace(block), "\n")...)
	}
	return lines
}

// blocks returns the literal blocks of section EXAMPLES.
func (p page) blocks() (blocks []string) {
	for _, block := range strings.Split(p.sections["EXAMPLES"], "\n.Bd -literal -offset indent\n")[1:] {
		block, _, _ = strings.Cut(block, "\n.Ed")
		blocks = append(blocks, block+"\n")
	}
	return blocks
}

// A manual is one command, its page and its -h.
type manual struct {
	name string
	code *sources
	page page
	help string
	// helpLacks are the variables that -h leaves out, with the reason: -h shall fit a screen, and has what somebody must
	// know who runs one server with one database, or asks it. "README" means that the table there has it.
	helpLacks map[string]string
}

func manuals(t *testing.T) (root *sources, all []manual) {
	t.Helper()
	const rest = "README"
	both := map[string]string{"CNTRL_TABLE": rest, "DOMAIN_LIMITS": rest, "REAL_DOMAINS": rest, "RELAY_CLEAR_MINUTES": rest, "RELAY_TABLE": rest,
		"ROUTES": rest, "MYSQL_OPT_SSL_CA": rest, "SYSCONFDIR": rest}
	server := map[string]string{"MYSQL_TABLE": rest, "MYSQL_INACTIVE_TABLE": rest, "FIFOTMPDIR": rest, "QUERY_CACHE": rest,
		"TCPCLIENT": "set by tcpclient", "TMPDIR": "for the demo", "TERM": "for the demo", "NO_COLOR": "for the demo", "DEBUG": "the same as -v"}
	asker := map[string]string{"ASSIGNDIR": rest, "CNTRL_DATABASE": rest, "CNTRL_HOST": rest, "CNTRL_PASSWD": rest, "CNTRL_SOCKET": rest, "CNTRL_USER": rest,
		"CNTRL_VPORT": rest, "FIFO_MODE": rest, "REPLYDIR": rest}
	maps.Copy(server, both)
	maps.Copy(asker, both)
	s := newSite(t, nil)
	for name, lacks := range map[string]map[string]string{"inlookup": server, "inquerytest": asker} {
		status, help, stderr := s.run(name, "-h")
		if status != 0 || stderr != "" {
			t.Fatalf("%s -h: exit %d, stderr %q", name, status, stderr)
		}
		all = append(all, manual{name, parseSources(t, "../"+name), readPage(t, "../"+name+"/"+name+".8"), help, lacks})
	}
	return parseSources(t, "../.."), all
}

// A flag is in the code, in -h and in the page, with a value or without one in all three, or in none of them.
func TestManualFlags(t *testing.T) {
	_, all := manuals(t)
	for _, m := range all {
		code := m.code.flags()
		names := make(set)
		names.add(slices.Collect(maps.Keys(code))...)
		usage := regexp.MustCompile(`(?m)^(usage:| {6}) ` + m.name + ` .*$`) // shows flags without a word about them
		help := find(usage.ReplaceAllString(m.help, ""), `(?m)(?:^|[ \[(])-([A-Za-z]+)\b`)
		help.add("h") // who reads it knows how
		synopsis, options := find(m.page.sections["SYNOPSIS"], `\bFl (\w+)`), m.page.items("DESCRIPTION", "Fl")
		names.within(t, "flag", m.name+" -h", help)
		names.within(t, "flag", m.page.path+", options", options)
		names.within(t, "flag", m.page.path+", synopsis", synopsis)
		help.within(t, "flag of "+m.name+" -h", "the code", names)
		find(m.page.text, `\bFl (\w+)`).within(t, "flag of "+m.page.path, "the code", names)
		for name, value := range code {
			shown := regexp.MustCompile(`(?m)^\.It Fl ` + name + `\b( Ar \w+)?`).FindStringSubmatch(m.page.text)
			if shown != nil && (shown[1] != "") != value {
				t.Errorf("%s: flag %s takes a value: %v", m.page.path, name, value)
			}
		}
		for _, line := range m.page.examples() {
			if _, args, ok := strings.Cut(line, m.name+" "); ok {
				find(" "+args, ` -([A-Za-z]+)\b`).within(t, "flag in "+line, "the code", names)
			}
		}
	}
}

// expand returns the words in capitals in text, and the variables that it names in other ways: "MYSQL_HOST, _USER" is
// two, and "CNTRL_HOST ..." or "CNTRL_HOST …" behind them all with that prefix that have a namesake there.
func expand(text string, code set) set {
	found := make(set)
	prefix := ""
	for _, m := range regexp.MustCompile(`\b([A-Z]+_)?[A-Z0-9_]+[A-Z]+\b|\B_[A-Z]+\b|\.\.\.|…`).FindAllStringSubmatch(text, -1) {
		switch word := m[0]; {
		case word == "..." || word == "…":
			for _, name := range found.sorted() {
				_, suffix, _ := strings.Cut(name, "_")
				if prefix != "" && code[prefix+suffix] {
					found.add(prefix + suffix)
				}
			}
			prefix = ""
		case word[0] == '_':
			found.add(prefix + word[1:])
		default:
			prefix = m[1]
			found.add(word)
		}
	}
	return found
}

// A word in capitals in -h that is no variable.
var notVariables = regexp.MustCompile(`^(SIG)?(HUP|INT|TERM|USR1|USR2|KILL)$|^(FIFO|MTA|SMTP|SQL|TLS|TCP|POP|IMAP)$`)

// A variable is in the code and the page of each command that links the code, and in -h unless there is a reason; none
// is anywhere else.
func TestManualVariables(t *testing.T) {
	root, all := manuals(t)
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	shared := root.variables()
	every := maps.Clone(shared)
	for _, m := range all {
		code := m.code.variables()
		maps.Copy(code, shared) // all of it is linked, and nearly all can be reached
		maps.Copy(every, code)
		code.within(t, "variable", m.page.path+", ENVIRONMENT", m.page.items("ENVIRONMENT", "Ev"))
		inPage := find(m.page.text, `\bEv (\S+)`)
		maps.Copy(inPage, find(strings.Join(m.page.examples(), "\n"), `\b([A-Z_]+)=`))
		maps.Copy(inPage, find(m.page.text, `\b([A-Z]+_[A-Z_]+)\b`))
		delete(inPage, "PIPE_BUF")
		inPage.within(t, "variable of "+m.page.path, "the code", code)

		help := expand(m.help, code)
		maps.DeleteFunc(help, func(word string, _ bool) bool { return notVariables.MatchString(word) })
		help.within(t, "word in capitals of "+m.name+" -h", "the code", code)
		for _, name := range code.sorted() {
			reason, lacks := m.helpLacks[name]
			if lacks == help[name] {
				t.Errorf("variable %s: in %s -h: %v; helpLacks says %v", name, m.name, help[name], lacks)
			}
			if reason == "README" && !expand(string(readme), code)[name] {
				t.Errorf("variable %s is neither in %s -h nor in README.md", name, m.name)
			}
		}
		for name := range m.helpLacks {
			if !code[name] {
				t.Errorf("helpLacks of %s: there is no variable %s", m.name, name)
			}
		}
	}
	for line := range strings.Lines(string(readme)) { // the table of settings
		if cells := strings.Split(line, "|"); len(cells) == 5 && strings.Contains(cells[1], "_") || strings.HasPrefix(line, "| INFIFO") {
			found := expand(cells[1], every)
			delete(found, "MYSQL_")
			found.within(t, "variable of README.md", "the code", every)
		}
	}
	api := readPage(t, "inquery.3")
	find(api.text, `\bEv (\S+)`).within(t, "variable of inquery.3", "the code", shared)
}

func TestManualControlFiles(t *testing.T) {
	root, all := manuals(t)
	code := root.controlFiles()
	for _, m := range all {
		if m.name == "inlookup" {
			listed := m.page.items("CONTROL FILES", "Pa")
			code.within(t, "control file", m.page.path, listed)
			listed.within(t, "control file of "+m.page.path, "the code", code)
		}
	}
}

func TestManualSignals(t *testing.T) {
	_, all := manuals(t)
	for _, m := range all {
		if m.name != "inlookup" {
			continue
		}
		code, listed := m.code.signals(), m.page.items("SIGNALS", "Dv")
		code.within(t, "signal", m.page.path, listed)
		listed.within(t, "signal of "+m.page.path, "the code", code)
		find(m.page.text, `\bDv (\S+)`).within(t, "signal of "+m.page.path, "the code", code)
		for name := range code {
			if short := strings.TrimPrefix(name, "SIG"); name != "SIGPIPE" && !regexp.MustCompile(`\b`+short+`\b`).MatchString(m.help) {
				t.Errorf("signal %s is not in inlookup -h", name)
			}
		}
	}
}

// The words of each line under DIAGNOSTICS are words of the code; what is in capitals there differs each time.
func TestManualDiagnostics(t *testing.T) {
	root, all := manuals(t)
	placeholder := regexp.MustCompile(`\b(PATH|FILE|LINE|TEXT|NAME|ADDRESS|VARIABLE|TYPE|HOST|TIME|NUMBER|STATE|USER)\b|\binlookup: |permission denied|: |, | on `) // errors are wrapped with colons
	for _, m := range all {
		code := root.text() + m.code.text() + "i/o timeout\nEOF\nopen \n" // the last three are Go's
		items := find(m.page.sections["DIAGNOSTICS"], `(?m)^\.It "(.*)"$`)
		if len(items) < 5 {
			t.Errorf("%s: %d diagnostics", m.page.path, len(items))
		}
		for item := range items {
			for _, words := range placeholder.Split(item, -1) {
				if words = strings.Trim(words, " :,;?"); !strings.Contains(code, words) {
					t.Errorf("%s: %q: no %q in the code", m.page.path, item, words)
				}
			}
		}
	}
}

// The Go names in inquery.3 are those of the package.
func TestManualNames(t *testing.T) {
	root, _ := manuals(t)
	p := readPage(t, "inquery.3")
	names := find(p.text, `\binlookup\.([A-Z]\w*)`)
	if len(names) < 10 {
		t.Errorf("%d names", len(names))
	}
	names.within(t, "name of inquery.3", "the package", root.exported())
}

func TestManualLint(t *testing.T) {
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("INLOOKUP_NEED_MARIADB") != "" { // .ci/run: nothing may be left out
			t.Fatal(err)
		}
		t.Skip("SKIP: mandoc is not installed, the form of the manual pages is not checked: apt-get install mandoc")
	}
	pages, err := filepath.Glob("../*/*.[1-9]")
	if err != nil || len(pages) != 3 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	for _, page := range pages {
		if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v\n%s", err, out)
		}
		if b, err := os.ReadFile(page); err != nil || bytes.ContainsAny(b, "\t\r") && !strings.HasSuffix(page, ".3") {
			t.Errorf("%s: %v, or it has tabs", page, err)
		}
	}
}

// freePort returns a TCP port on which nobody listens at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// An example is a line of a page, and what it does here.
type example struct {
	serves string // a server, and the FIFO or "tcp" by which it is reached; it goes on to the end of the test
	want   string // of another command: in what it writes
}

var (
	serverExamples = map[string]example{
		"inlookup -t":           {want: "ok "},
		"inlookup -i 5 -c 3600": {serves: "infifo.5"},
		"MYSQL_HOST=db.example.com MYSQL_PASSWD=secret inlookup -f /run/inlookup/infifo":     {serves: "infifo"},
		"inquerytest -q 3 -i /run/inlookup/infifo user@example.com":                          {want: "pw_name  : user\n"},
		"REPLYDIR=/run/inlookup/replies inlookup -f replies.fifo":                            {serves: "replies.fifo"},
		"FIFOTMPDIR=/run/inlookup/replies inquerytest -q 1 -i replies.fifo user@example.com": {want: "has all services enabled\n"},
		"QUERY_CACHE=1 tcpserver -H -R -l0 127.0.0.1 2012 inlookup":                          {serves: "tcp"},
		"tcpclient -H -R -l0 127.0.0.1 2012 inquerytest -q 1 user@example.com":               {want: "has all services enabled\n"},
		"svc -h /service/inlookup": {}, // TestMigrationSupervise runs these
		"svc -d /service/inlookup": {},
		"inlookup -demo":           {want: "The seven questions"},
	}
	askerExamples = map[string]example{
		"inquerytest -q user user@example.com":                                    {want: "has all services enabled\n"},
		`inquerytest -q 1 -i "" user@example.com`:                                 {want: "has all services enabled\n"},
		"QUERY_CACHE=1 inquerytest -q 1 user@example.com":                         {want: "has all services enabled\n"},
		"inquerytest -q 2 user@example.com 192.0.2.10":                            {want: "is authenticated on 192.0.2.10\n"},
		"inquerytest -v -q 3 -i /tmp/own.fifo user@example.com":                   {want: "a server of our own"},
		"inquerytest -x -q 3 user@example.com":                                    {want: "real domain: example.com\n"},
		"inquerytest -F user@example.com":                                         {want: " entries flushed\n"},
		"inquerytest -F example.com":                                              {want: " entries flushed\n"},
		`inquerytest -F ""`:                                                       {want: " entries flushed\n"},
		"inquerytest -s | grep hits":                                              {want: "inlookup_cache_hits_total"},
		"QUERY_CACHE=1 inquerytest -n 10000 -p 16 -u 100 -q 3 user%d@example.com": {want: "queries/s"},
		"inquerytest -n 10000 -p 16 -u 100 -q 3 user%d@example.com":               {want: "queries/s"},
		"tcpclient -H -R -l0 127.0.0.1 2012 inquerytest -q 1 user@example.com":    {want: "has all services enabled\n"},
	}
)

// TestManualExamples runs every command line of the two pages: as they stand there, but for absolute paths, a host's
// name and a port, which are the test's own.
func TestManualExamples(t *testing.T) {
	needs(t, "ucspi-tcp", "tcpserver", "tcpclient")
	s, port := newSite(t, database(t)), freePort(t)
	s.env["PATH"], s.env["INFIFODIR"] = bin+":"+s.env["PATH"], s.dir+"/run/inlookup"
	if err := os.MkdirAll(s.dir+"/run/inlookup/replies", 0o755); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/run/inlookup", s.dir+"/run/inlookup", "/tmp/", s.dir+"/tmp/", "db.example.com", "localhost", " 2012 ", " "+port+" ")
	var servers []*process
	run := func(line string, e example) {
		t.Helper()
		if e.serves != "" {
			p := s.startCommand(s.command("/bin/sh", "-c", "exec env "+here.Replace(line)))
			servers = append(servers, p)
			eventually(t, line+" serves", func() bool { return reachable(s.fifo(e.serves), port) })
			return
		}
		status, stdout, stderr := s.runCommand(s.command("/bin/sh", "-c", here.Replace(line)))
		if status != 0 || e.want == "" || !strings.Contains(stdout+stderr, e.want) {
			t.Errorf("%s: exit %d\n%s%swant %q", line, status, stdout, stderr, e.want)
		}
	}
	for path, examples := range map[string]map[string]example{"inlookup.8": serverExamples, "../inquerytest/inquerytest.8": askerExamples} {
		seen := make(set)
		lines := readPage(t, path).examples()
		for _, line := range lines {
			if e, ok := examples[line]; !ok {
				t.Errorf("%s: %q: what shall it do?", path, line)
			} else if seen.add(line); !strings.HasPrefix(line, "svc ") && path == "inlookup.8" {
				run(line, e)
			}
		}
		for line := range examples {
			if !seen[line] {
				t.Errorf("%s has no %q", path, line)
			}
		}
	}
	for _, line := range readPage(t, "../inquerytest/inquerytest.8").examples() { // with all those servers
		run(line, askerExamples[line])
	}
	for _, p := range servers {
		if p.signal(syscall.SIGTERM); p.wait() != 0 && !strings.Contains(p.cmd.Args[2], "tcpserver") {
			t.Errorf("%q: %v\n%s", p.cmd.Args, p.cmd.ProcessState, p.stderr.String())
		}
	}
}

// reachable reports whether somebody reads the FIFO or, for one that is named tcp, listens on the port.
func reachable(fifo, port string) bool {
	if filepath.Base(fifo) == "tcp" {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
}

// TestManualProgram builds the program of inquery.3 and runs it.
func TestManualProgram(t *testing.T) {
	s := newSite(t, database(t))
	blocks := readPage(t, "inquery.3").blocks()
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
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ask := func(email, want string) {
		t.Helper()
		if status, stdout, stderr := s.run(program, email); status != 0 || stdout != want+"\n" || stderr != "" {
			t.Errorf("%s: exit %d, %q, %q, want %q", email, status, stdout, stderr, want)
		}
	}
	ask("user@example.com", "try again later")
	s.serve()
	ask("user@example.com", "/home/mail/A2E/example.com/user")
	ask("missing@example.com", "no such user")
	ask("inactive@example.com", "inactive")
}

// needs skips the test when a program is not installed, loudly, or fails it where nothing may be left out.
func needs(t *testing.T, pkg string, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("INLOOKUP_NEED_MARIADB") != "" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("SKIP: %s is not installed: apt-get install %s", program, pkg)
		}
	}
}
