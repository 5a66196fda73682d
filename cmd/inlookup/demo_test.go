package main

// The demo: with MariaDB and without, in colour, and as README.md shows it.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// demonstrate runs the demo in a temporary directory, which must be empty
// afterwards.
func demonstrate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var out bytes.Buffer
	err := demo("true", &out)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return strings.ReplaceAll(out.String(), dir, "/tmp")
}

func TestDemo(t *testing.T) {
	seven := []string{"looked up             active", "looked up             true",
		"A User, /home/mail/example.com/user", "example.com:127.0.0.1:25",
		"&someone@example.net &user@example.com", "100 accounts, 9000000000 bytes",
		"looked up             example.com\n", "from memory           active",
		`  inlookup_queries_total{type="passwd"} `}
	var started error
	start := startMariaDB
	defer func() { startMariaDB = start }()
	for _, test := range []struct {
		name  string
		start func(context.Context, string) (*mariadb.DB, error)
		lines []string
	}{
		{"without MariaDB", func(context.Context, string) (*mariadb.DB, error) {
			return nil, mariadb.ErrNotInstalled
		}, []string{"There is no MariaDB on this machine",
			"apt-get install -y --no-install-recommends mariadb-server"}},
		{"with MariaDB", func(ctx context.Context, dir string) (db *mariadb.DB, err error) {
			db, started = start(ctx, dir)
			return db, started
		}, append(readmeScreen(t), "expired, from memory  A User", "unavailable, try again later",
			"looked up             Postmaster", "cache_stale_total               1\n",
			`inlookup_database_errors_total{database="indimail on localhost"} `, "  (while MariaDB was away)\n")},
	} {
		startMariaDB = test.start
		var out string
		lacks := func() (lines []string) {
			out = demonstrate(t)
			if errors.Is(started, mariadb.ErrNotInstalled) {
				testmain.Missing(t, started)
			}
			if started != nil {
				t.Fatal(started)
			}
			out = differs.ReplaceAllString(out, "#")
			for _, line := range append(seven, test.lines...) {
				if !strings.Contains(out, line) {
					lines = append(lines, line)
				}
			}
			return lines
		}
		// Memory keeps for a second. A busy machine may ask again later than that.
		lines := lacks()
		for tries := 1; len(lines) > 0 && tries < 3; tries++ {
			t.Logf("%s: tried again, because there is no %q", test.name, lines)
			lines = lacks()
		}
		if len(lines) > 0 {
			t.Errorf("%s: no %q in:\n%s", test.name, lines, out)
		}
		if strings.Contains(out, "NotARealHash") {
			t.Errorf("%s: a password hash is printed", test.name)
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s: escape sequences where there is no terminal", test.name)
		}
	}
}

// differs matches what differs from one run to the next.
var differs = regexp.MustCompile(` *\d+ µs|inlookup-demo\.\d+`)

// readmeScreen returns the lines that README.md shows of the demo. Dots stand
// for others.
func readmeScreen(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const first = "\n    A private MariaDB runs in "
	begin := strings.Index(string(text), first)
	if begin < 0 {
		t.Fatalf("README.md has no line %q", first)
	}
	for line := range strings.Lines(string(text[begin+1:])) {
		line, indented := strings.CutPrefix(line, "    ")
		if !indented && line != "\n" {
			break
		}
		if line != "...\n" && line != "\n" {
			lines = append(lines, differs.ReplaceAllString(line, "#"))
		}
	}
	return lines
}

// Colours are for a terminal alone, and not where somebody wants none.
func TestColour(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		testmain.Skip(t, "no terminal to be had:", err)
	}
	defer terminal.Close()
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		w             io.Writer
		term, noColor string
		want          bool
	}{
		{terminal, "xterm", "", true},
		{file, "xterm", "", false},
		{new(bytes.Buffer), "xterm", "", false},
		{terminal, "dumb", "", false},
		{terminal, "xterm", "1", false},
	} {
		t.Setenv("TERM", test.term)
		t.Setenv("NO_COLOR", test.noColor)
		if got := paints(test.w); got != test.want {
			t.Errorf("%T, TERM=%s, NO_COLOR=%s: %v", test.w, test.term, test.noColor, got)
		}
	}
	var out bytes.Buffer
	cache := &inlookup.Cache{Resolver: builtIn{}}
	nobody := &inlookup.Client{Infifo: "/nonexistent"}
	d := demonstration{ctx: t.Context(), w: &out, paint: true, cache: cache, client: nobody}
	d.ask(inlookup.Query{Type: inlookup.TypeUser, Email: "user@example.com"})
	if !strings.Contains(out.String(), "\x1b[31merror                \x1b[0m unavailable") {
		t.Errorf("%q", &out)
	}
}
