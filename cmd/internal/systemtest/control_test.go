package systemtest

// Control files that other programs own: smtproutes, qmtproutes, mcdinfo, assign and hostip. What
// we cannot use is skipped with a warning of file and line, and never stops the server.

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

var routeCases = []struct {
	file string
	port string
	warn []int // numbers of the lines that are skipped with a warning
}{
	{"", "25", nil},
	{"example.com:192.0.2.25:2525\n", "2525", nil},
	{"example.com:192.0.2.25:2525", "2525", nil},
	{"example.com:192.0.2.25:2525\r\n", "2525", nil},
	{"EXAMPLE.com:192.0.2.25:2525\n", "2525", nil},
	{"example.com:192.0.2.25\n", "25", nil},
	{"example.com:192.0.2.25:\n", "25", nil},
	{"example.com:\n", "25", nil},
	{"other.example:192.0.2.25:2525\n", "25", nil},

	// The password of the relay.
	{"example.com:192.0.2.25:2525 user secret\n", "2525", nil},
	{"example.com:192.0.2.25:2525\tuser  secret \n", "2525", nil},
	{"example.com:192.0.2.25 user secret\n", "25", nil},
	{"example.com:192.0.2.25 user sec:ret:99\n", "25", nil},
	{":relay.example.net:587 user secret\n", "587", nil},

	// The first line that fits counts.
	{"example.com:a:1001\nexample.com:b:1002\n", "1001", nil},
	{":a:1001\nexample.com:b:1002\n", "1001", nil},
	{"other.example:a:1001\nexample.com:b:1002\n:c:1003\n", "1002", nil},
	{"example.com:\n:a:1001\n", "25", nil},

	// Comments and blank lines.
	{"# example.com:a:1001\n\n  \nexample.com:b:1002\n", "1002", nil},
	{"example.com:a:1001 # the old one\n", "1001", nil},
	{"example.com:a # :1001\n", "25", nil},
	{"example.com:a:1001#2\n", "1001", nil},

	// IPv6.
	{"example.com:[2001:db8::25]:2525\n", "2525", nil},
	{"example.com:[2001:db8::25]\n", "25", nil},
	{"example.com:[2001:db8::25]:2525 user secret\n", "2525", nil},

	// A line without a colon says nothing.
	{"example.com\n:a:1001\n", "1001", nil},
	{"hunter2\nexample.com:a:1001\n", "1001", nil},

	// Ports that are none.
	{"example.com:a:smtp\nexample.com:b:1002\n", "1002", []int{1}},
	{"example.com:a:65536 user secret\n:b:1002\n", "1002", []int{1}},
	{"\n# one\nexample.com:a:-1\n", "25", []int{3}},
	{":hunter2:hunter2 hunter2 hunter2\n", "25", []int{1}},
	{"other.example:a:smtp\nexample.com:b:1002\n", "1002", []int{1}},
}

func TestRoutesGiveThePort(t *testing.T) {
	db := database(t)
	for i, test := range routeCases {
		s := newSite(t, db)
		s.control("smtproutes", test.file)
		l := s.lookup()
		what := fmt.Sprintf("%d: %q", i, test.file)
		all(t, l.Resolver, what, answers{"4 user@example.com": "example.com:127.0.0.1:" + test.port})
		log, path := l.log.String(), filepath.Join(s.env["CONTROLDIR"], "smtproutes")
		for _, line := range test.warn {
			if !strings.Contains(log, fmt.Sprintf("warning: %s:%d: ", path, line)) {
				t.Errorf("%s: no warning about line %d:\n%s", what, line, log)
			}
		}
		if n := strings.Count(log, "warning: "+path+":"); n != len(test.warn) {
			t.Errorf("%s: %d warnings, want %d:\n%s", what, n, len(test.warn), log)
		}
		if strings.Contains(log, "secret") || strings.Contains(log, "hunter2") {
			t.Errorf("%s: the log shows a password:\n%s", what, log)
		}
		l.mysql.Close()
	}
}

// ROUTES chooses the file. Unset, it is qmtproutes if that exists.
func TestROUTESChoosesTheFile(t *testing.T) {
	db := database(t)
	mustExec(t, db, "INSERT INTO hostcntrl (pw_name,pw_domain,pw_passwd,host) VALUES"+
		" ('r','far.example.net','','mda2.example.net')", "DELETE FROM hostcntrl WHERE pw_name='r'")
	const smtp, qmtp = ":a:1025\n", ":a:1209\n"
	for i, test := range []struct {
		settings settings
		port     string
		far      string // of a distributed domain, which no line of these files is about
	}{
		{settings{}, "25", "25"},
		{settings{"ROUTES": "smtp"}, "25", "25"},
		{settings{"ROUTES": "qmtp"}, "209", "209"},
		{settings{"smtproutes": smtp}, "1025", "25"},
		{settings{"qmtproutes": qmtp}, "1209", "25"},
		{settings{"qmtproutes": ""}, "209", "25"},
		{settings{"qmtproutes": ":a user secret\n"}, "209", "25"},
		{settings{"smtproutes": smtp, "qmtproutes": qmtp}, "1209", "25"},
		{settings{"smtproutes": smtp, "qmtproutes": qmtp, "ROUTES": "smtp"}, "1025", "25"},
		{settings{"smtproutes": smtp, "qmtproutes": qmtp, "ROUTES": "qmtp"}, "1209", "209"},
		{settings{"smtproutes": smtp, "ROUTES": "qmtp"}, "209", "209"},
		{settings{"qmtproutes": qmtp, "ROUTES": "smtp"}, "25", "25"},
	} {
		s := newSite(t, db)
		s.configure(test.settings, strings.NewReplacer())
		s.control("mcdinfo", block("far.example.net 1", "192.0.2.26", db))
		l := s.lookup()
		what := fmt.Sprintf("%d: %q", i, test.settings)
		all(t, l.Resolver, what, answers{"4 user@example.com": "example.com:127.0.0.1:" + test.port})
		all(t, l.Resolver, what, answers{"4 r@far.example.net": "far.example.net:192.0.2.26:" + test.far})
		l.mysql.Close()
	}
}

// block returns an entry of mcdinfo.
func block(domain, mdahost string, db *mariadb.DB) string {
	return "domain " + domain + "\nserver 127.0.0.1\nmdahost " + mdahost + "\nport " +
		strconv.Itoa(db.Port) +
		"\nuse_ssl 0\ndatabase indimail\nuser indimail\npass secret\n"
}

func TestMcdinfoInAnyForm(t *testing.T) {
	db := database(t)
	entry := block("example.com 0", "192.0.2.25", db)
	spread := block("dist.example.net 1", "192.0.2.26", db)
	lines := strings.SplitAfter(entry, "\n")
	reversed := slices.Clone(lines[1:8])
	slices.Reverse(reversed)
	for name, text := range map[string]string{
		"as it is":      entry + "\n" + spread,
		"no blank line": entry + spread,
		"comments": "# the cluster\n" + strings.ReplaceAll(entry, "\n", " # and why\n\n#\n") +
			spread,
		"no flag": strings.Replace(entry, "example.com 0", "example.com", 1) + spread,
		"unknown keys": strings.Replace(entry, "server", "colour blue\nweight\nserver", 1) +
			"late 1 2 3\n" + spread,
		"other order":         lines[0] + strings.Join(reversed, "") + spread,
		"tabs and blanks":     strings.ReplaceAll(entry, " ", " \t ") + spread,
		"no newline":          entry + strings.TrimSuffix(spread, "\n"),
		"capitals":            strings.Replace(entry, "example.com", "Example.COM", 1) + spread,
		"two stores":          entry + spread + strings.Replace(spread, "192.0.2.26", "192.0.2.27", 1),
		"keys of no domain":   "server 192.0.2.1\n" + entry + spread,
		"carriage returns":    strings.ReplaceAll(entry+spread, "\n", "\r\n"),
		"a comment at a word": strings.Replace(entry, "pass secret", "pass secret#hunter2", 1) + spread,
	} {
		s := newSite(t, db)
		s.control("mcdinfo", text)
		l := s.lookup()
		all(t, l.Resolver, name, answers{"4 user@example.com": "example.com:192.0.2.25:25"})
		all(t, l.Resolver, name, answers{"4 duser@dist.example.net": "dist.example.net:192.0.2.26:2526"})
		l.mysql.Close()
	}
}

// An incomplete block is a warning, and an error for those who ask about its domain: nobody else's.
func TestIncompleteEntryIsAnErrorOfItsDomain(t *testing.T) {
	db := database(t)
	addUser(t, db, "local", "local.example.net", "hash")
	entry := block("example.com 0", "192.0.2.25", db)
	spread := block("dist.example.net 1", "192.0.2.26", db)
	without := func(key string) string {
		lines := strings.SplitAfter(spread, "\n")
		return strings.Join(slices.DeleteFunc(lines,
			func(l string) bool { return strings.HasPrefix(l, key) }), "")
	}
	for name, text := range map[string]string{
		"at the end":       entry + "\n" + without("pass"),
		"before another":   without("pass") + entry,
		"no port":          without("port") + entry,
		"no server":        entry + without("server"),
		"no value":         strings.Replace(spread, "pass secret", "pass", 1) + entry,
		"nothing but this": entry + "domain dist.example.net 1\n",
		"one of two":       spread + without("pass") + entry,
	} {
		s := newSite(t, db)
		s.control("mcdinfo", text)
		l := s.lookup()
		all(t, l.Resolver, name, answers{"4 user@example.com": "example.com:192.0.2.25:25"})
		all(t, l.Resolver, name, answers{"1 local@local.example.net": "active"})
		if name != "one of two" { // a user of the other one can be answered
			all(t, l.Resolver, name, answers{"1 duser@dist.example.net": "unavailable"})
		}
		all(t, l.Resolver, name, answers{"1 nobody@dist.example.net": "unavailable"})
		log := l.log.String()
		if !strings.Contains(log, "warning: "+filepath.Join(s.env["CONTROLDIR"], "mcdinfo")+":") {
			t.Errorf("%s: no warning of file and line:\n%s", name, log)
		}
		if strings.Contains(log, "secret") || strings.Contains(log, "hunter2") {
			t.Errorf("%s: the log shows a text:\n%s", name, log)
		}
		l.mysql.Close()
	}
}

// MCDFILE names another file: a path, or a name in the control directory.
func TestMCDFILENamesAnotherFile(t *testing.T) {
	db := database(t)
	s := newSite(t, db)
	s.control("mcdinfo", block("example.com 0", "192.0.2.1", db))
	s.control("other", block("example.com 0", "192.0.2.2", db))
	for mcdfile, want := range map[string]string{"": "192.0.2.1", "other": "192.0.2.2",
		filepath.Join(s.env["CONTROLDIR"], "other"): "192.0.2.2", "missing": "127.0.0.1"} {
		s.env["MCDFILE"] = mcdfile
		l := s.lookup()
		all(t, l.Resolver, "MCDFILE="+mcdfile, answers{"4 user@example.com": "example.com:" + want + ":25"})
		l.mysql.Close()
	}
}

// A FIFO in place of a file hangs neither the server nor -t, which warns of it.
func TestFIFOsInPlaceOfFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t, database(t))
	files := []string{"host.mysql", "host.cntrl", "host.master", "mcdinfo", "hostip", "smtproutes",
		"qmtproutes", "timeoutread", "assign"}
	for _, name := range files {
		dir := s.env["CONTROLDIR"]
		if name == "assign" {
			dir = s.env["ASSIGNDIR"]
		}
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.serve()
	all(t, s.client(), "FIFOs", found)
	status, lines := s.check()
	if status != 0 {
		t.Errorf("-t exits %d", status)
	}
	for _, name := range files {
		// The line of host.master may be about dbinfo, which other tests make.
		contains(t, "-t", lines, "^warning +"+name+" .*(it is a FIFO|dbinfo)")
	}
}

const assignLine = "+example.com-:example.com:0:0:@DIR@:-::\n"

func TestOddLinesOfAssignAreSkipped(t *testing.T) {
	db := database(t)
	for name, test := range map[string]struct {
		text string
		warn []int
	}{
		"as it is": {assignLine + ".\n", nil},
		"users and wildcards": {"=root:root:0:0:/root:::\n" + assignLine +
			"=x:y\n+:alias:0:0:/var/alias:-::\n.\n", nil},
		"comments": {"# one\n\n" + assignLine + "  \n.\n", nil},
		"too few fields": {"+other.example-\n" + assignLine +
			"+third.example-:third.example:0\n.\n", []int{1, 3}},
		"words":              {"hunter2\n" + assignLine + ".\n", nil},
		"no dot at the end":  {assignLine, nil},
		"no newline":         {strings.TrimSpace(assignLine), nil},
		"bytes of all kinds": {"\x00\xff\x80:\x01:::::::\n" + assignLine, nil},
		"none at all":        {"", nil},
		"a dot":              {".\n", nil},
	} {
		s := newSite(t, db)
		path := filepath.Join(s.env["ASSIGNDIR"], "assign")
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(test.text, "@DIR@", s.dir)),
			0o644); err != nil {
			t.Fatal(err)
		}
		l := s.lookup()
		all(t, l.Resolver, name, found)
		log := l.log.String()
		for _, line := range test.warn {
			if !strings.Contains(log, fmt.Sprintf("warning: %s:%d: ", path, line)) {
				t.Errorf("%s: no warning about line %d:\n%s", name, line, log)
			}
		}
		if strings.Contains(log, "hunter2") {
			t.Errorf("%s: the log shows a text:\n%s", name, log)
		}
		l.mysql.Close()
	}
	s := newSite(t, db)
	s.env["ASSIGNDIR"] = filepath.Join(s.dir, "missing")
	all(t, s.resolver(), "no ASSIGNDIR", found)
}

func TestHostipGivesTheAddress(t *testing.T) {
	db := database(t)
	for text, want := range map[string]string{
		"192.0.2.77\n":             "192.0.2.77",
		"192.0.2.77":               "192.0.2.77",
		"192.0.2.77 \t\n":          "192.0.2.77",
		"192.0.2.77\n192.0.2.78\n": "192.0.2.77",
		"192.0.2.77\r\n":           "192.0.2.77",
		"":                         "127.0.0.1",
		"\n":                       "127.0.0.1",
		"mail.example.com\n":       "mail.example.com",
		"2001:db8::1\n":            "2001:db8::1",
	} {
		s := newSite(t, db)
		s.control("hostip", text)
		l := s.lookup()
		all(t, l.Resolver, "hostip "+text, answers{"4 user@example.com": "example.com:" + want + ":25"})
		l.mysql.Close()
	}
}

// A domain that REAL_DOMAINS or ALIAS_DOMAINS names is taken for real, whatever table aliasdomain
// says.
func TestRealDomainsAreNoAliases(t *testing.T) {
	db := database(t)
	const alias = "alias.example.org"
	for name, want := range map[string]string{"": "example.com", "REAL_DOMAINS": alias,
		"ALIAS_DOMAINS": alias} {
		for _, list := range []string{alias, "a.example:" + alias + ":b.example",
			"a.example:Alias.Example.ORG"} {
			s := newSite(t, db)
			s.control("host.cntrl", "localhost:indimail:secret:"+db.Socket+"\n")
			s.env[name] = list
			l := s.lookup()
			all(t, l.Resolver, name+"="+list, answers{"7 " + alias: want})
			l.mysql.Close()
		}
	}
}

// oddFiles are control files of which hardly a line can be used.
var oddFiles = settings{
	"smtproutes": "hunter2\n:relay.example.net:port user hunter2\n" +
		":relay.example.net:587 user hunter2\n",
	"qmtproutes":      ":[::1:hunter2\n:a:hunter2\n\x00\xff\n:::::::\n",
	"mcdinfo":         "pass hunter2\nhunter2\ndomain\ndomain far.example.net 1\nport hunter2\n",
	"hostip":          "\x00\xff hunter2 # \n",
	"../users/assign": "+hunter2\n+:\n:\n+example.com-:example.com:0:0:/nowhere:-::\n",
}

// Odd files, one by one and all together, stop neither a start nor a SIGHUP, and inlookup -t says
// what they are.
func TestOddFilesStopNothing(t *testing.T) {
	t.Parallel()
	db := database(t)
	addUser(t, db, "odd", "example.com", "one")
	s := newSite(t, db)
	p := s.serve("-v")
	d := s.directory()
	if got := passwd(t, d, "odd@example.com"); got != "one" {
		t.Fatalf("password %q", got)
	}
	s.configure(oddFiles, strings.NewReplacer())
	for _, want := range []string{"two", "three"} {
		setPasswd(t, db, "odd", "example.com", want)
		p.signal(syscall.SIGHUP)
		eventually(t, "the new password after SIGHUP",
			func() bool { return passwd(t, d, "odd@example.com") == want })
	}
	if log := p.stderr.String(); strings.Contains(log, "stays as it was") {
		t.Errorf("odd files are taken for an error:\n%s", log)
	}
	all(t, d.Resolver, "an incomplete block", answers{"1 user@far.example.net": "unavailable"})
	p.signal(syscall.SIGINT)
	p.terminate()
	again := s.serve("-v")
	if got := passwd(t, s.directory(), "odd@example.com"); got != "three" {
		t.Errorf("after a start: password %q", got)
	}
	again.terminate()
	_, checked, stderr := s.run("inlookup", "-t")
	said := p.stdout.String() + p.stderr.String() + again.stdout.String() + again.stderr.String() +
		checked + stderr
	if strings.Contains(said, "hunter2") {
		t.Errorf("a text of the files is shown:\n%s", said)
	}
	for _, name := range slices.Sorted(maps.Keys(oddFiles)) {
		if name != "hostip" && name != "smtproutes" &&
			!strings.Contains(again.stderr.String(), "/"+filepath.Base(name)+":") {
			t.Errorf("no warning about %s:\n%s", name, again.stderr.String())
		}
	}
}
