// Package mariadbtest gives a test a MariaDB with the rows of testdata/golden.
// Package mariadb cannot, because no program should link package testing.
package mariadbtest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// Small are options for a MariaDB with few rows. It takes a third less time to
// start and to stop.
var Small = []string{
	"--innodb-buffer-pool-size=16M",
	"--aria-pagecache-buffer-size=8M",
	"--key-buffer-size=64K",
}

// ForTest returns a new MariaDB with the tables of mariadb.Schema and the
// golden rows, and stops it when t ends. If MariaDB is not installed it skips
// t, or fails it if INLOOKUP_NEED_MARIADB is set. The options are those of
// mariadb.StartWith.
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

// Control returns a new control directory: the golden one, with the port and
// socket of db. Only the owner can read the files, because some hold a
// password.
func Control(t testing.TB, db *mariadb.DB) string {
	t.Helper()
	return ControlOf(t, db, filepath.Join(Golden(t), "control"))
}

// ControlOf is Control with the files of another directory.
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

// Golden returns the path of testdata/golden, which is beside go.mod.
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
