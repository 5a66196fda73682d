// Package mariadb starts a private MariaDB: one mariadbd of our own, with its
// own data directory, its own socket and a free TCP port on 127.0.0.1, gone
// when we are. The tests under cmd/ and inlookup -demo use it.
//
// It needs the mariadbd and the mariadb-install-db of Debian's mariadb-server
// and nothing that a distribution configures: every call says --no-defaults.
// The data directory is made anew each time, half a second with
// mariadb-install-db; a template that later databases are copied from would
// save that, and was left out because it would outlive the test that made it.
// The administrator has a random password, so whoever shares the machine can
// reach only the database indimail, by the password printed in our examples.
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

// ErrNotInstalled means that this machine has no mariadbd. Its text names the
// one line that installs it.
var ErrNotInstalled = errors.New("mariadbd not found: apt-get update && " +
	"apt-get install -y --no-install-recommends mariadb-server")

// errPortTaken: between our finding a port free and mariadbd's binding it,
// somebody else took it.
var errPortTaken = errors.New("mariadb: port taken")

// Schema creates the tables of an IndiMail database that inlookup reads.
//
//go:embed schema.sql
var Schema string

// Sample fills them with a few rows of example.com, to show each kind of
// answer.
//
//go:embed sample.sql
var Sample string

const (
	patience   = 30 * time.Second // for a start, if ctx allows it, and for an orderly stop
	maxSocket  = 100              // bytes of a socket's path: sockaddr_un holds 104 or more
	portTries  = 5
	reportTail = 15 // lines of the error log that an error quotes
)

// sbin lists where mariadbd may be when PATH, an ordinary user's, does not name
// it.
var sbin = []string{"/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/libexec"}

// A DB is one private MariaDB. It has a database indimail and a user indimail
// with password secret, who may do everything there. Its methods but Exec, Load
// and SQL are for one goroutine at a time.
type DB struct {
	Dir    string // given to Start; the data directory and everything else lives in it
	Socket string // unix socket; in a directory of its own when Dir's path is too long for one
	Port   int    // on 127.0.0.1; Restart keeps it
	Log    string // mariadbd's error log

	server    string   // path of mariadbd
	more      []string // options of StartWith
	socketDir string   // to remove in Stop; "" when the socket is in Dir
	sql       *sql.DB
	proc      *process // the last one started; nil only inside Start
	stopped   bool
}

// Start makes a data directory in dir, which exists and is empty, starts
// mariadbd on it and returns when it answers. ctx limits the start only;
// whoever calls Start calls Stop. Should this process die without, mariadbd
// dies with it (on Linux and FreeBSD).
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
	db := &DB{Dir: dir, Log: filepath.Join(dir, "error.log"), more: options}
	install, err := db.find()
	if err != nil {
		return nil, err
	}
	if err := db.install(ctx, install); err != nil {
		return nil, err
	}
	if err := db.prepare(); err != nil {
		return nil, err
	}
	for range portTries {
		if db.Port, err = freePort(); err == nil {
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

// SQL returns the administrator's connections: over the socket, to the database
// indimail, several statements at once allowed. Stop closes them. Their own
// statements count in SHOW GLOBAL STATUS like all others.
func (db *DB) SQL() *sql.DB { return db.sql }

// Exec runs a script as administrator in the database indimail.
func (db *DB) Exec(script string) error {
	if _, err := db.sql.Exec(script); err != nil {
		return fmt.Errorf("mariadb: exec: %w", err)
	}
	return nil
}

// Load runs the named script files in their order, as Exec does.
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

// PID returns the process number of mariadbd, after its death that of the late
// one.
func (db *DB) PID() int { return db.proc.pid }

// Kill ends mariadbd as a crash would, and waits until it is gone. What was
// committed stays for Restart.
func (db *DB) Kill() error {
	err := db.signal(syscall.SIGKILL)
	<-db.proc.done
	return err
}

// Restart starts mariadbd again, after Kill or from running, on the same data,
// port and socket, and returns when it answers. Should somebody's outgoing
// connection have got the port meanwhile, it waits for that to end.
func (db *DB) Restart(ctx context.Context) error {
	if db.stopped {
		return errors.New("mariadb: restart after Stop")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	db.shutdown()
	return db.launch(ctx, "--port-open-timeout=10")
}

// Pause makes mariadbd stand still: it accepts connections (the kernel does)
// and answers nothing.
func (db *DB) Pause() error { return db.signal(syscall.SIGSTOP) }

// Continue ends Pause.
func (db *DB) Continue() error { return db.signal(syscall.SIGCONT) }

// Stop shuts mariadbd down, paused or not, and returns when it is gone; the
// files in Dir are left to Dir's owner. A second Stop does nothing.
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

// find sets db.server and returns the path of mariadb-install-db.
func (db *DB) find() (install string, err error) {
	if db.server, err = lookPath("mariadbd"); err != nil {
		return "", err
	}
	return lookPath("mariadb-install-db")
}

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

// options returns what the making of the data directory and the server have in
// common. The small redo log is for speed; not waiting for the disk is safe
// here, where mariadbd may be killed but the machine's losing power ends all.
func (db *DB) options() []string {
	options := []string{
		"--no-defaults", // must be the first
		"--datadir=" + filepath.Join(db.Dir, "data"),
		// In a shared one each mariadbd that starts removes the others' tables.
		"--tmpdir=" + filepath.Join(db.Dir, "tmp"),
		"--skip-name-resolve",
		"--innodb-log-file-size=16M",
		"--innodb-flush-method=nosync",
		"--debug-no-sync", // else making the data directory syncs a thousand times
	}
	if os.Geteuid() == 0 {
		options = append(options, "--user=root") // else it refuses to run as root
	}
	return options
}

// install makes the data directory. Of its accounts only root@localhost is
// there, without a password that fits.
func (db *DB) install(ctx context.Context, program string) error {
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

// prepare chooses the socket, writes the statements that mariadbd runs before
// it listens, and sets up db.sql.
func (db *DB) prepare() error {
	db.Socket = filepath.Join(db.Dir, "mysql.sock")
	if len(db.Socket) > maxSocket {
		// Not os.TempDir: TMPDIR may be the long path itself.
		tmp, err := os.MkdirTemp("/tmp", "mariadb")
		if err != nil {
			return err
		}
		db.socketDir, db.Socket = tmp, filepath.Join(tmp, "mysql.sock")
	}
	config := mysql.NewConfig()
	config.Net, config.Addr, config.DBName = "unix", db.Socket, "indimail"
	config.User, config.Passwd = "root", rand.Text()
	config.MultiStatements = true
	config.Logger = &mysql.NopLogger{} // that a killed server's connections break is no news
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db.sql = sql.OpenDB(connector)

	// One statement a line: an init file knows no other way to end one early.
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

// launch starts mariadbd and returns when it answers, or with an error and no
// process.
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
		"--innodb-flush-log-at-trx-commit=2", // written at each commit, so that Kill loses none
	)
	options = append(options, db.more...)
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
	if err = db.wait(ctx); err == nil {
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

// wait returns when mariadbd answers: nil; when it has died or ctx is over:
// why. mariadbd binds the port first, then the socket, and listens when the
// init file is done; so an answer on the socket means all of it.
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

// shutdown ends mariadbd in the orderly way, or, when that takes too long, by
// force.
func (db *DB) shutdown() {
	if db.proc == nil {
		return
	}
	// Errors mean that it is dead already, which is the aim.
	db.signal(syscall.SIGTERM)
	db.signal(syscall.SIGCONT) // a paused process gets SIGTERM only now
	select {
	case <-db.proc.done:
	case <-time.After(patience):
		db.proc.kill()
	}
}

// signal sends to mariadbd; os.ErrProcessDone when it is dead.
func (db *DB) signal(sig os.Signal) error {
	if err := db.proc.signal(sig); err != nil {
		return fmt.Errorf("mariadb: %v: %w", sig, err)
	}
	return nil
}

// freePort returns a port on 127.0.0.1 that was free just now. A variable for
// the test of its not being so any more.
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
