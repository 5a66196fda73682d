// Package mariadb starts a private MariaDB for the tests under cmd/ and for
// inlookup -demo. It has its own data directory, its own socket and a free TCP
// port on 127.0.0.1, and ends with this process.
//
// It needs the programs mariadbd and mariadb-install-db of Debian's package
// mariadb-server. The option --no-defaults keeps the distribution's
// configuration out. Each Start makes a new data directory, which takes half a
// second. A template to copy would save that, but would outlive its test.
//
// The administrator has a random password. So other users of the machine can
// reach only the database indimail, whose password is in the examples.
package mariadb

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// ErrNotInstalled means that this machine has no mariadbd. Its text says how to
// install it.
var ErrNotInstalled = errors.New("mariadbd not found: apt-get update && " +
	"apt-get install -y --no-install-recommends mariadb-server")

// errPortTaken means that another process took the port before mariadbd did.
var errPortTaken = errors.New("mariadb: port taken")

// Schema creates the tables of an IndiMail database that inlookup reads.
//
//go:embed schema.sql
var Schema string

// Sample fills them with rows of example.com, for each kind of answer.
//
//go:embed sample.sql
var Sample string

const (
	patience   = 2 * time.Minute // limit for a start, and for an orderly stop
	maxSocket  = 100             // bytes of a socket's path; sockaddr_un holds 104 or more
	portTries  = 5
	reportTail = 15 // lines of the error log that an error quotes
)

// sbin lists the directories to search after PATH.
var sbin = []string{"/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/libexec"}

// A DB is one private MariaDB. It has a database indimail, and a user indimail
// with password secret and all rights on it. Only Exec, Load and SQL can be
// called by several goroutines at once.
type DB struct {
	Dir    string // holds all files; given to Start
	Socket string // path; elsewhere if a path in Dir would be too long
	Port   int    // on 127.0.0.1; Restart keeps it
	Log    string // path of mariadbd's error log

	server    string   // path of mariadbd
	extra     []string // options of StartWith
	socketDir string   // for Stop to remove; "" if the socket is in Dir
	sql       *sql.DB
	proc      *process // the last one started; nil only inside Start
	stopped   bool
}

// Start starts mariadbd with a new data directory in dir, which must be empty,
// and returns when it answers. The caller must call Stop. On Linux and FreeBSD
// mariadbd dies with this process. ctx limits only the start.
func Start(ctx context.Context, dir string) (*DB, error) { return StartWith(ctx, dir) }

// StartWith does what Start does, with more options for mariadbd, such as
// --ssl-cert=FILE. Restart keeps them.
func StartWith(ctx context.Context, dir string, options ...string) (*DB, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	db := &DB{Dir: dir, Log: filepath.Join(dir, "error.log"), extra: options}
	db.server, err = lookPath("mariadbd")
	if err != nil {
		return nil, err
	}
	if err := db.install(ctx); err != nil {
		return nil, err
	}
	if err := db.prepare(); err != nil {
		return nil, err
	}
	for range portTries {
		db.Port, err = freePort()
		if err == nil {
			err = db.launch(ctx)
		}
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, db.Stop())
	}
	return db, nil
}

// SQL returns the administrator's connections to the database indimail. A call
// may have several statements. Stop closes the connections.
func (db *DB) SQL() *sql.DB { return db.sql }

// Exec runs a script as administrator in the database indimail.
func (db *DB) Exec(script string) error {
	if _, err := db.sql.Exec(script); err != nil {
		return fmt.Errorf("mariadb: exec: %w", err)
	}
	return nil
}

// Load runs script files in this order, as Exec does.
func (db *DB) Load(files ...string) error {
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := db.Exec(string(script)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// PID returns the process number of mariadbd, or its last one after Kill.
func (db *DB) PID() int { return db.proc.pid }

// Kill ends mariadbd as a crash would, and waits until it is gone. Committed
// data stays for Restart.
func (db *DB) Kill() error {
	err := db.signal(syscall.SIGKILL)
	<-db.proc.done
	return err
}

// Restart starts mariadbd again with the same data, port and socket, and
// returns when it answers. It stops a running one first. If an outgoing
// connection of another process has the port by now, Restart waits for its end.
func (db *DB) Restart(ctx context.Context) error {
	if db.stopped {
		return errors.New("mariadb: restart after Stop")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	db.shutdown()
	return db.launch(ctx, "--port-open-timeout=10")
}

// Pause stops mariadbd without ending it. The kernel still accepts connections,
// but nothing answers.
func (db *DB) Pause() error {
	if err := db.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	end := time.Now().Add(patience)
	for !db.isPaused() { // threads stop one after the other
		if time.Now().After(end) {
			return errors.New("mariadb: SIGSTOP does not stop all threads")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// isPaused reports whether all threads have stopped, as far as /proc shows them.
func (db *DB) isPaused() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", db.PID()))
	for _, path := range threads {
		text, err := os.ReadFile(path)
		_, state, _ := strings.Cut(string(text), ") ") // behind the name: proc(5)
		if err == nil && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// Continue ends Pause.
func (db *DB) Continue() error { return db.signal(syscall.SIGCONT) }

// Stop shuts mariadbd down, even a paused one, and returns when it is gone. The
// files in Dir stay. A second Stop does nothing.
func (db *DB) Stop() error {
	if db.stopped {
		return nil
	}
	db.stopped = true
	err := db.sql.Close()
	db.shutdown()
	if db.socketDir != "" {
		err = errors.Join(err, os.RemoveAll(db.socketDir))
	}
	return err
}

// lookPath finds a program in PATH or sbin.
func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}

// options returns the options that both mariadb-install-db and mariadbd take.
// Neither waits for the disk. That loses data only if the machine crashes, and
// then nobody needs it.
func (db *DB) options() []string {
	options := []string{
		"--no-defaults", // must be the first
		"--datadir=" + filepath.Join(db.Dir, "data"),
		// Not a shared one: each mariadbd that starts removes the tables there.
		"--tmpdir=" + filepath.Join(db.Dir, "tmp"),
		"--skip-name-resolve",
		"--innodb-log-file-size=16M", // small, for speed
		"--innodb-flush-method=nosync",
		"--debug-no-sync", // else mariadb-install-db syncs a thousand times
	}
	if os.Geteuid() == 0 {
		options = append(options, "--user=root") // else it refuses to run as root
	}
	return options
}

// install makes the data directory. Its only account is root@localhost, which
// has no valid password yet.
func (db *DB) install(ctx context.Context) error {
	program, err := lookPath("mariadb-install-db")
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(db.Dir, "tmp"), 0o700); err != nil {
		return err
	}
	options := append(db.options(), "--auth-root-authentication-method=socket", "--skip-test-db")
	cmd := exec.Command(program, options...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := start(cmd)
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	select {
	case <-p.done:
		err = p.err
	case <-ctx.Done():
		p.kill()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("mariadb: %s: %w\n%s", program, err, &out)
	}
	return nil
}

// prepare chooses the socket, opens db.sql, and writes the init file, which
// mariadbd runs before it listens.
func (db *DB) prepare() error {
	db.Socket = filepath.Join(db.Dir, "mysql.sock")
	if len(db.Socket) > maxSocket {
		// Not os.TempDir: TMPDIR may be the long path itself.
		tmp, err := os.MkdirTemp("/tmp", "mariadb")
		if err != nil {
			return err
		}
		db.socketDir = tmp
		db.Socket = filepath.Join(tmp, "mysql.sock")
	}
	config := mysql.NewConfig()
	config.Net = "unix"
	config.Addr = db.Socket
	config.DBName = "indimail"
	config.User = "root"
	config.Passwd = rand.Text()
	config.MultiStatements = true
	config.Logger = &mysql.NopLogger{} // Kill breaks connections
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db.sql = sql.OpenDB(connector)

	// Each line of an init file is one statement.
	statements := []string{
		"ALTER USER root@localhost IDENTIFIED BY '" + config.Passwd + "';",
		"CREATE DATABASE IF NOT EXISTS indimail;",
		"CREATE USER IF NOT EXISTS indimail@'%' IDENTIFIED BY 'secret', " +
			"indimail@localhost IDENTIFIED BY 'secret';",
		"GRANT ALL ON indimail.* TO indimail@'%', indimail@localhost;",
	}
	return os.WriteFile(db.initFile(), []byte(strings.Join(statements, "\n")+"\n"), 0o600)
}

func (db *DB) initFile() string { return filepath.Join(db.Dir, "init.sql") }

// launch starts mariadbd with these options too, and returns when it answers.
// After an error no process is left.
func (db *DB) launch(ctx context.Context, more ...string) error {
	log, err := os.OpenFile(db.Log, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	options := append(db.options(),
		"--init-file="+db.initFile(),
		"--socket="+db.Socket,
		"--bind-address=127.0.0.1",
		"--port="+strconv.Itoa(db.Port),
		"--max-connections=500",
		"--innodb-flush-log-at-trx-commit=2", // write at each commit: Kill loses nothing
	)
	options = append(options, db.extra...)
	cmd := exec.Command(db.server, append(options, more...)...)
	cmd.Stdout, cmd.Stderr = log, log
	before, err := log.Stat()
	if err != nil {
		return err
	}
	proc, err := start(cmd)
	if err != nil {
		return fmt.Errorf("mariadb: %w", err)
	}
	db.proc = proc
	err = db.wait(ctx)
	if err == nil {
		return nil
	}
	db.proc.kill()
	text, _ := os.ReadFile(db.Log)
	text = text[min(int(before.Size()), len(text)):]
	if bytes.Contains(text, []byte("Bind on TCP/IP port")) {
		err = errPortTaken
	}
	return fmt.Errorf("mariadb: start: %w; %s ends:\n%s", err, db.Log, tail(text))
}

// wait waits until mariadbd answers. An error says that it died or that ctx is
// done. An answer on the socket means that the port and the accounts are ready:
// mariadbd binds the port before the socket, and runs the init file first.
func (db *DB) wait(ctx context.Context) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := db.sql.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-db.proc.done:
			return fmt.Errorf("mariadbd exited: %v", db.proc.err)
		case <-ctx.Done():
			return fmt.Errorf("no answer (%v): %w", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// shutdown ends mariadbd in the orderly way, or by force if that takes too
// long.
func (db *DB) shutdown() {
	if db.proc == nil {
		return
	}
	// An error means that it is dead already.
	db.signal(syscall.SIGTERM)
	db.signal(syscall.SIGCONT) // a paused process gets SIGTERM only now
	select {
	case <-db.proc.done:
	case <-time.After(patience):
		db.proc.kill()
	}
}

// signal signals mariadbd. The error wraps os.ErrProcessDone if it is dead.
func (db *DB) signal(sig os.Signal) error {
	if err := db.proc.signal(sig); err != nil {
		return fmt.Errorf("mariadb: %v: %w", sig, err)
	}
	return nil
}

// freePort returns a free port on 127.0.0.1. Another process may take it before
// mariadbd does; a test replaces this function to have that happen.
var freePort = func() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// tail returns the last lines of text.
func tail(text []byte) []byte {
	lines := bytes.SplitAfter(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-reportTail):], nil)
}
