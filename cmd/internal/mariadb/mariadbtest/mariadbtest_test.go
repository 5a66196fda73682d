package mariadbtest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, 0, nil)) }

func TestForTest(t *testing.T) {
	db := ForTest(t)
	var gecos string
	if err := db.SQL().QueryRow("SELECT pw_gecos FROM indimail WHERE pw_name = 'over'").Scan(&gecos); err != nil || gecos != "Over Quota" {
		t.Errorf("the golden row: %q, %v", gecos, err)
	}

	control := Control(t, db)
	for name, want := range map[string]string{
		"host.mysql": "localhost:indimail:secret:" + db.Socket + ":nossl\n",
		"mcdinfo":    "port     " + strconv.Itoa(db.Port) + "\n",
		"hostip":     "192.0.2.25\n",
	} {
		path := filepath.Join(control, name)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), want) || strings.Contains(string(text), "@") {
			t.Errorf("%s: %v, %q, want %q in it", name, err, text, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info.Mode(), err)
		}
	}
}
