// Package mariadbtest gives a test a MariaDB with the rows of testdata/golden.
// It is apart from package mariadb so that no program links package testing.
package mariadbtest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/internal/testmain"
)

// Small are options for a MariaDB with few rows. It takes a third less time to
// start and to stop.
var Small = []string{
	"--innodb-buffer-pool-size=16M",
	"--aria-pagecache-buffer-size=8M",
	"--key-buffer-size=64K",
}

// ForTest returns a new MariaDB with the tables of mariadb.Schema and the
// golden rows; it is stopped when t ends. Without MariaDB on this machine t is
// skipped or, with INLOOKUP_NEED_MARIADB in the environment, fails. options are
// those of mariadb.StartWith.
func ForTest(t testing.TB, options ...string) *mariadb.DB {
	t.Helper()
	db, err := mariadb.StartWith(t.Context(), t.TempDir(), append(options, Small...)...)
	if errors.Is(err, mariadb.ErrNotInstalled) {
		testmain.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Exec(mariadb.Schema); err != nil {
		t.Fatal(err)
	}
	if err := db.Load(filepath.Join(Golden(t), "data.sql")); err != nil {
		t.Fatal(err)
	}
	return db
}

// Control returns a new control directory: the golden one, with db's port and
// socket in it. Some of its files hold a password, so none is readable by
// others.
func Control(t testing.TB, db *mariadb.DB) string {
	t.Helper()
	return ControlOf(t, db, filepath.Join(Golden(t), "control"))
}

// ControlOf is Control with the files of the directory from.
func ControlOf(t testing.TB, db *mariadb.DB, from string) string {
	t.Helper()
	fill := strings.NewReplacer("@PORT@", strconv.Itoa(db.Port), "@SOCKET@", db.Socket)
	to := t.TempDir()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(from, file.Name()))
		if err == nil {
			path := filepath.Join(to, file.Name())
			err = os.WriteFile(path, []byte(fill.Replace(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Golden returns the path of testdata/golden: beside go.mod, which is in the
// directory of the test or above.
func Golden(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "testdata", "golden")
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod in the working directory or above")
		}
		dir = filepath.Dir(dir)
	}
}
