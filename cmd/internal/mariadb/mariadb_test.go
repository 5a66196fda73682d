package mariadb

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

func TestMain(m *testing.M) { os.Exit(testmain.Run(m, 4, nil)) }

// run is mariadbtest.ForTest without rows; that package cannot be imported
// here.
func run(t *testing.T, dir string) *DB {
	t.Helper()
	began := time.Now()
	db, err := Start(t.Context(), dir)
	if errors.Is(err, ErrNotInstalled) {
		testmain.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Stop() })
	t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
	return db
}

// Limits for one connection of users: to a server that lives, and to one that is not
// to answer.
const (
	alive = 30 * time.Second
	dead  = time.Second
)

// users asks, as the user indimail, how many users there are.
func users(network, addr string, limit time.Duration) (n int, err error) {
	config := mysql.NewConfig()
	config.Net, config.Addr, config.DBName = network, addr, "indimail"
	config.User, config.Passwd = "indimail", "secret"
	config.Logger = &mysql.NopLogger{}
	config.Timeout, config.ReadTimeout = limit, limit
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return 0, err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	err = db.QueryRow("SELECT COUNT(*) FROM indimail").Scan(&n)
	return n, err
}

func (db *DB) tcp() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(db.Port)) }

// check finds the sample's users over TCP and over the socket.
func check(t *testing.T, db *DB) {
	t.Helper()
	for network, addr := range map[string]string{"tcp": db.tcp(), "unix": db.Socket} {
		if n, err := users(network, addr, alive); n != 3 || err != nil {
			t.Errorf("over %s: %d users, %v; want the sample's 3", network, n, err)
		}
	}
}

// gone checks that mariadbd left neither process nor zombie.
func gone(t *testing.T, db *DB) {
	t.Helper()
	if err := syscall.Kill(db.PID(), 0); err != syscall.ESRCH {
		t.Errorf("process %d after its end: %v", db.PID(), err)
	}
	if n, err := users("tcp", db.tcp(), dead); err == nil {
		t.Errorf("%d users from a server that is gone", n)
	}
}

// awkward is an empty directory whose path is longer than a socket's may be. The
// port that the test tries first, too, is taken at the last moment.
func awkward(t *testing.T) (dir string, tries *int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := freePort
	t.Cleanup(func() {
		freePort = free
		l.Close()
	})
	tries = new(int)
	freePort = func() (int, error) {
		if *tries++; *tries == 1 {
			return l.Addr().(*net.TCPAddr).Port, nil
		}
		return free()
	}
	dir = filepath.Join(t.TempDir(), strings.Repeat("long", 25))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, tries
}

func TestLife(t *testing.T) {
	dir, tries := awkward(t)
	db := run(t, dir)
	if *tries != 2 {
		t.Errorf("%d ports tried, want 2", *tries)
	}
	if _, err := os.Stat(db.Socket); err != nil || len(db.Socket) > maxSocket {
		t.Errorf("socket %s: %v", db.Socket, err)
	}
	testScripts(t, db)
	testKilled(t, db)
	testRestart(t, db)
	testPause(t, db)
	testStop(t, db)
}

func testScripts(t *testing.T, db *DB) {
	t.Helper()
	if err := errors.Join(db.Exec(Schema), db.Exec(Sample)); err != nil {
		t.Fatal(err)
	}
	check(t, db)
	var name string
	var connections int
	row := db.SQL().QueryRow("SHOW VARIABLES LIKE 'max_connections'")
	if err := row.Scan(&name, &connections); err != nil || connections != 500 {
		t.Errorf("max_connections %d, %v; want 500", connections, err)
	}
	if db, err := sql.Open("mysql", "root@tcp("+db.tcp()+")/"); err != nil || db.Ping() == nil {
		t.Errorf("%v, or the administrator needs no password", err)
	}
	if err := db.Exec("SELECT 1; SELECT no_such_column"); err == nil {
		t.Error("no error from the second statement of a script")
	}
	if err := db.Load(filepath.Join(db.Dir, "none.sql")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("loading a missing file: %v", err)
	}
}

// testKilled leaves the port to another for a moment, as an outgoing connection
// of whoever may have it.
func testKilled(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	gone(t, db)
	if err := db.Kill(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("second Kill: %v", err)
	}
	l, err := net.Listen("tcp", db.tcp())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { l.Close() })
	testRestart(t, db)
}

// testRestart restarts mariadbd, dead or running.
func testRestart(t *testing.T, db *DB) {
	t.Helper()
	port, socket := db.Port, db.Socket
	began := time.Now()
	if err := db.Restart(t.Context()); err != nil {
		t.Fatalf("Restart: %v", err)
	}
	t.Logf("restarted in %v", time.Since(began).Round(time.Millisecond))
	if db.Port != port || db.Socket != socket {
		t.Errorf("restarted on %d and %s, was on %d and %s", db.Port, db.Socket, port, socket)
	}
	check(t, db)
}

func testPause(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Pause(); err != nil {
		t.Fatal(err)
	}
	if n, err := users("tcp", db.tcp(), dead); err == nil {
		t.Errorf("%d users from a paused server", n)
	}
	if err := db.Continue(); err != nil {
		t.Fatal(err)
	}
	check(t, db)
}

// testStop stops a server that is paused: Stop must get through to it too.
func testStop(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := db.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %v", time.Since(began).Round(time.Millisecond))
	gone(t, db)
	if _, err := os.Stat(filepath.Dir(db.Socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's directory after Stop: %v", err)
	}
	if err := db.Stop(); err != nil {
		t.Error("second Stop:", err)
	}
	if err := db.Restart(t.Context()); err == nil {
		t.Error("Restart after Stop: no error")
	}
}

func TestNotInstalled(t *testing.T) {
	defer func(dirs []string) { sbin = dirs }(sbin)
	sbin = nil
	t.Setenv("PATH", t.TempDir())
	if _, err := Start(t.Context(), t.TempDir()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("Start without mariadbd: %v", err)
	}
}

// The error of a start that fails says what mariadbd said, and nothing is left
// running.
func TestStartFails(t *testing.T) {
	t.Parallel()
	db := run(t, t.TempDir())
	if err := db.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(db.Dir, "data", "mysql")); err != nil {
		t.Fatal(err)
	}
	err := db.Restart(t.Context())
	if err == nil || !strings.Contains(err.Error(), "[ERROR]") {
		t.Errorf("start without the table of users: %v", err)
	}
	gone(t, db)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a context that is over: %v", err)
	}
}

// TestParentKilled has another process of this program start a MariaDB, and
// kills it.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("MARIADB_TEST_PARENT"); dir != "" {
		db := run(t, dir)
		fmt.Printf("port %d\n", db.Port)
		select {} // until killed
	}
	if runtime.GOOS != "linux" && runtime.GOOS != "freebsd" {
		testmain.Skip(t, "not on this system")
	}
	if _, err := lookPath("mariadbd"); err != nil {
		testmain.Missing(t, err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestParentKilled$")
	cmd.Env = append(os.Environ(), "MARIADB_TEST_PARENT="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var addr, printed string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		printed += lines.Text() + "\n"
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			addr = net.JoinHostPort("127.0.0.1", port)
		}
	}
	if addr == "" {
		t.Fatalf("the other process: %v\n%s", cmd.Wait(), printed)
	}
	_, err = users("tcp", addr, alive)
	if err == nil || !strings.Contains(err.Error(), "doesn't exist") {
		t.Errorf("the other process's MariaDB: %v, want an answer, that it has no such table", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return // nobody listens
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("mariadbd outlives its parent")
		}
	}
}
