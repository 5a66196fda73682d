//go:build ops

package systemtest

// INSTALL.md, tried: its commands, in their order. They write into /etc, /run and /usr/local, over
// which lie directories of the test's own, in a mount namespace. systemctl is a stand-in, which
// starts the server as the unit does.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// newMachine prepares the namespace. $1 is the test's directory, $2 the commands of the page.
const newMachine = `
for dir in etc run usr/local; do
	mkdir -p "$1/$dir/upper" "$1/$dir/work"
	mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$1/$dir/upper,workdir=$1/$dir/work" "/$dir"
done
sed -i '/^indimail:/d' /etc/passwd /etc/group /etc/shadow /etc/gshadow
rm -rf /etc/indimail /run/indimail
mount -t tmpfs tmpfs /srv
export TMPDIR=/srv/tmp
mkdir -p -m 1777 /run/mysqld /srv/data /srv/tmp
chown mysql /srv/data
mariadb-install-db --no-defaults --user=mysql --datadir=/srv/data >/dev/null
mariadbd --no-defaults --skip-networking --user=mysql --datadir=/srv/data \
	--socket=/run/mysqld/mysqld.sock >/dev/null 2>&1 &
database=$!
trap 'kill $(cat /run/inlookup.pid) $database; wait' EXIT
until [ -S /run/mysqld/mysqld.sock ]; do sleep 0.1; done
unit() { # its user, and the variables that it sets; exec, so that $! is the program
	env=$(sed -n 's/^Environment=//p' "/etc/systemd/system/$1.service")
	shift
	exec setpriv --reuid indimail --regid indimail --clear-groups env $env "$@"
}
systemctl() {
	[ "$1" = enable ] || return 0
	install -d -m 2775 -o indimail -g indimail /run/indimail/inlookup /run/indimail/inquery
	unit inlookup /usr/local/lib/inlookup/inlookup &
	echo $! >/run/inlookup.pid
	until [ -p /run/indimail/inlookup/infifo ]; do sleep 0.1; done
}
. "$2"
cp cmd/inlookup/inlookup-metrics.service /etc/systemd/system
(unit inlookup-metrics /usr/local/lib/inlookup/inquerytest -s)
`

func TestInstall(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		testmain.Skip(t, "only root can install")
	}
	testmain.Need(t, "mariadb-server util-linux passwd", "mariadb", "mariadbd",
		"mariadb-install-db", "unshare", "mount", "setpriv", "runuser", "groupadd", "useradd")
	page, err := os.ReadFile("../../inlookup/doc/INSTALL.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands strings.Builder
	for _, block := range strings.Split(string(page), "\n```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "```\n")
		commands.WriteString(block)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "commands")
	if err := os.WriteFile(script, []byte(commands.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil)
	if status, _, stderr := s.run("unshare", "-m", "/bin/sh", "-ec", "mkdir $0/u $0/w && "+
		"mount -t overlay overlay -o lowerdir=/etc,upperdir=$0/u,workdir=$0/w /etc", dir); status != 0 {
		testmain.Skip(t, "no overlay in a mount namespace here:", stderr)
	}
	cmd := s.command("unshare", "-m", "/bin/sh", "-ec", newMachine, "sh", dir, script)
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false") // in another user's clone too
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil || strings.Contains(text, "\nwrong ") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, want := range []string{ // the two before the last are of -watch, the last of the metrics
		"ok       database     indimail on localhost: users, ",
		"user@example.com has all services enabled\n",
		"\nok       REPLYDIR ", "\nquestions a second: ",
		"\ndatabase indimail on localhost: up\n", "\ninlookup_queries_total{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}
