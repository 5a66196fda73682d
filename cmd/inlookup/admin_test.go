package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
)

// However many databases there are, each metric is there as a whole or not at all.
func TestStatusOfManyDatabases(t *testing.T) {
	for _, test := range []struct {
		databases int
		last      string // metric
	}{
		{3, "database_select_seconds"}, {60, "database_errors_total"}, {200, "database_up"},
	} {
		var stores strings.Builder
		for i := range test.databases {
			fmt.Fprintf(&stores, "domain d%d.example 0\nserver store%[1]d.with-a-long-name.example.com\n"+
				"mdahost 192.0.2.1\nport 1\nuse_ssl 0\ndatabase indimail\nuser u\npass p\n", i)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "mcdinfo"), []byte(stores.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		m := &inlookup.MySQL{Getenv: func(name string) string {
			return map[string]string{"CONTROLDIR": dir, "ASSIGNDIR": dir}[name]
		}}
		defer m.Close()
		if err := m.Reload(false); err != nil {
			t.Fatal(err)
		}
		text := (&admin{mysql: m, server: new(inlookup.Server)}).status()
		if len(text) >= statusRoom || !strings.HasSuffix(text, "\n") {
			t.Errorf("%d databases: %d bytes that end in %.40q", test.databases, len(text), text[len(text)-40:])
		}
		at := strings.LastIndex(text, "# TYPE ")
		if !strings.HasPrefix(text[at:], "# TYPE inlookup_"+test.last+" ") {
			t.Errorf("%d databases: the last metric is %.80q", test.databases, text[at:])
		}
		const one = `{database="`
		if n := strings.Count(text, "inlookup_database_up"+one); n != test.databases+1 {
			t.Errorf("%d of %d databases are named", n, test.databases+1)
		}
	}
}
