package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// demonstrate runs the demo in a temporary directory, which must be empty afterwards.
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
	return out.String()
}

func expectLines(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in:\n%s", line, out)
		}
	}
	if strings.Contains(out, "NotARealHash") {
		t.Error("a password hash is printed")
	}
}

var sevenAnswers = []string{"looked up             active", "looked up             true", "A User, /home/mail/example.com/user", "example.com:127.0.0.1:25",
	"&someone@example.net &user@example.com", "100 accounts, 9000000000 bytes", "looked up             example.com\n", "from memory           active"}

func setStart(start func(context.Context, string) (*mariadb.DB, error)) { startMariaDB = start }

func TestDemo(t *testing.T) {
	defer setStart(startMariaDB)
	var started error
	startMariaDB = func(ctx context.Context, dir string) (db *mariadb.DB, err error) {
		db, started = mariadb.Start(ctx, dir)
		return db, started
	}
	out := demonstrate(t)
	if errors.Is(started, mariadb.ErrNotInstalled) {
		testmain.Missing(t, started)
	}
	if started != nil {
		t.Fatal(started)
	}
	expectLines(t, out, append(sevenAnswers, "expired, from memory  A User", "unavailable, try again later", "looked up             Postmaster",
		`queries_total{type="passwd"}`, "cache_stale_total                            1\n", "database_errors_total")...)
	if strings.Contains(out, "\x1b") {
		t.Error("escape sequences where there is no terminal")
	}
}

// TestColour: on a terminal only, and not where somebody wants none.
func TestColour(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
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
	if !paints(terminal) || paints(file) || paints(new(bytes.Buffer)) {
		t.Errorf("terminal %v, file %v, buffer %v", paints(terminal), paints(file), paints(new(bytes.Buffer)))
	}
	t.Setenv("TERM", "dumb")
	if paints(terminal) {
		t.Error("colour with TERM=dumb")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if paints(terminal) {
		t.Error("colour with NO_COLOR")
	}
	var out bytes.Buffer
	cache := &inlookup.Cache{Resolver: builtIn{}}
	d := demonstration{ctx: t.Context(), w: &out, paint: true, cache: cache, client: &inlookup.Client{Infifo: "/nonexistent"}}
	d.ask(inlookup.Query{Type: inlookup.TypeUser, Email: "user@example.com"})
	if !strings.Contains(out.String(), "\x1b[31merror                \x1b[0m unavailable") {
		t.Errorf("%q", &out)
	}
}

func TestDemoWithoutMariaDB(t *testing.T) {
	defer setStart(startMariaDB)
	startMariaDB = func(context.Context, string) (*mariadb.DB, error) { return nil, mariadb.ErrNotInstalled }
	expectLines(t, demonstrate(t), append(sevenAnswers, "There is no MariaDB on this machine", "apt-get install -y --no-install-recommends mariadb-server")...)
}
