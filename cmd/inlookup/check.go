package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/inlookup/inlookup"
)

// A checkup is one run of inlookup -t: it looks at all that the server would
// use, in the server's environment and with the rights of whoever runs it, and
// writes a line for each thing. It makes, changes and locks nothing, so it can
// run beside the live server. No line holds a password.
type checkup struct {
	w      io.Writer
	status int
}

// A verdict begins a line.
type verdict string

const (
	ok      verdict = "ok"
	warning verdict = "warning"
	wrong   verdict = "wrong" // until somebody puts it right
	fault   verdict = "fault" // written as wrong, but may pass by itself
)

func (c *checkup) say(v verdict, subject, format string, args ...any) {
	if v == wrong {
		c.status = exitUsage
	} else if v == fault {
		c.status, v = or(c.status, exitFault), wrong
	}
	fmt.Fprintf(c.w, "%-8s %-12s %s\n", v, subject, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

func check(o options, w io.Writer) int {
	c := &checkup{w: w}
	if os.Geteuid() == 0 {
		c.say(warning, "user", "root may do everything: to see what the server may do, run this as its user (setuidgid indimail inlookup -t)")
	} else {
		c.say(ok, "user", "%s: what follows holds for this user", account(os.Geteuid()))
	}
	config := &inlookup.MySQL{} // without a Log: what it would warn of has lines of its own
	err := config.Reload(false)
	defer config.Close()
	c.files(problems(err))
	c.cache()
	if err == nil {
		c.databases(config)
	} else {
		c.say(warning, "database", "not asked: what is wrong above must be put right first")
	}
	c.fifos(o)
	c.replies()
	return c.status
}

// problems takes joined errors apart.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func or[T comparable](v, def T) T {
	if v == *new(T) {
		return def
	}
	return v
}

// account names a user for people.
func account(uid int) string {
	n := strconv.Itoa(uid)
	if u, err := user.LookupId(n); err == nil {
		return u.Username + " (uid " + n + ")"
	}
	return "uid " + n
}

// files looks at the control files and assign. Faults is what the server finds
// in them and in the environment.
func (c *checkup) files(faults []string) {
	control := or(os.Getenv("CONTROLDIR"), "control")
	if !filepath.IsAbs(control) {
		control = filepath.Join(or(os.Getenv("SYSCONFDIR"), "/etc/indimail"), control)
	}
	if _, err := os.Stat(control); err != nil && os.Getenv("CONTROLDIR") != "" {
		c.say(warning, "CONTROLDIR", "%v: set it to the directory of the control files", err)
	}
	for _, name := range []string{"host.mysql", "host.cntrl", "mcdinfo", "hostip", "smtproutes", "qmtproutes", "timeoutread", "assign"} {
		path := filepath.Join(control, name)
		if name == "assign" {
			path = filepath.Join(or(os.Getenv("ASSIGNDIR"), "/etc/indimail/users"), name)
		}
		right := true
		faults = slices.DeleteFunc(faults, func(fault string) bool {
			if !strings.Contains(" "+fault, " "+path+":") {
				return false
			}
			right = false
			c.say(wrong, name, "%s", fault)
			return true
		})
		if right {
			c.file(name, path)
		}
	}
	for _, fault := range faults {
		c.say(wrong, "environment", "%s", fault)
	}
}

// file looks at a file in which the server finds no fault.
func (c *checkup) file(name, path string) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.say(ok, name, "absent (%s)", path)
		return
	}
	info, err2 := os.Stat(path)
	if err = errors.Join(err, err2); err != nil {
		c.say(wrong, name, "%v", err)
		return
	}
	value, _, _ := strings.Cut(string(text), "\n")
	seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	switch mode := info.Mode().Perm(); {
	case mode&0o004 != 0 && holdsPassword(name, string(text)):
		c.say(wrong, name, "%s, mode %04o, holds a password and is readable by all: chmod o-r %[1]s", path, mode)
	case name == "timeoutread" && (err != nil || seconds == 0): // the server does not read it, clients do
		c.say(wrong, name, "%s:1: want seconds, at least 1, not %q", path, value)
	case name == "timeoutread" && seconds < 4:
		c.say(warning, name, "%s: %d s: the server takes up to 3 s to say that it has no answer: want 4 at least", path, seconds)
	default:
		c.say(ok, name, "%s, mode %04o", path, mode)
	}
}

// holdsPassword reports whether a control file without a fault has a password.
func holdsPassword(name, text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		f := append(strings.Split(line, ":"), "", "")
		return name == "mcdinfo" || strings.HasPrefix(name, "host.") && f[2] != "" // the first line counts; each entry of mcdinfo has one
	}
	return false
}

func (c *checkup) cache() {
	cache, err := newCache(nil)
	for _, fault := range problems(err) {
		c.say(wrong, "cache", "%s", fault)
	}
	if err == nil && cache == nil {
		c.say(ok, "cache", "none, since USE_BTREE is 0: MySQL is asked for everything")
	} else if err == nil {
		set := "as by default"
		for _, name := range []string{"CACHE_TTL", "CACHE_NEGATIVE_TTL", "CACHE_STALE", "CACHE_SIZE", "MAX_BTREE_COUNT"} {
			if v := os.Getenv(name); v != "" {
				set += ", but " + name + "=" + v
			}
		}
		c.say(ok, "cache", "%s", set)
	}
}

// databases asks each database what the server would ask it.
func (c *checkup) databases(config *inlookup.MySQL) {
	said := "" // the last error: not again for each further question that does not get through
	err := config.Check(context.Background(), func(database, what string, took time.Duration, err error) {
		text := fmt.Sprintf("%s: %s, %v", database, what, took.Round(100*time.Microsecond))
		v, advice := remedy(err)
		if v == ok && took > time.Second {
			c.say(warning, "database", "%s: slow: the server gives up after 3 s, its clients after 4", text)
		} else if v == ok {
			c.say(ok, "database", "%s", text)
		} else {
			why := strings.TrimPrefix(err.Error(), "database "+database+": ")
			if database+why != said {
				c.say(v, "database", "%s: %s: %s", text, why, advice)
			}
			said = database + why
		}
	})
	if err != nil {
		c.say(wrong, "database", "%v", err)
	}
}

// remedy says whether an error from a database lasts until somebody does
// something about it, and what.
func remedy(err error) (v verdict, advice string) {
	var refused *mysql.MySQLError
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil:
		return ok, ""
	case errors.As(err, &refused):
		switch refused.Number {
		case 1044, 1045, 1142, 1143, 1698: // access denied to database, user, table, column
			return wrong, "put user and password right in host.mysql, host.cntrl, mcdinfo or MYSQL_USER and MYSQL_PASSWD, or GRANT SELECT on the database"
		case 1130:
			return wrong, "let the user in from this machine, with CREATE USER and GRANT SELECT"
		case 1049:
			return wrong, "create the database, or put its name right in MYSQL_DATABASE or mcdinfo"
		case 1146:
			return wrong, "create the table, or put its name right in MYSQL_TABLE, MYSQL_INACTIVE_TABLE, RELAY_TABLE or CNTRL_TABLE"
		case 1054:
			return wrong, "add the column: the table is not as IndiMail makes it"
		case 1040, 1053, 1129, 1203, 1205, 1226, 1927: // too many connections or errors, or going down
			return fault, "try again; if it stays so, see the log of MySQL"
		}
		return wrong, "see what this error means in MySQL's manual"
	case errors.As(err, &certificate):
		return wrong, "name who vouches for it in MYSQL_OPT_SSL_CA, or the host as its certificate does"
	case errors.Is(err, mysql.ErrNoTLS):
		return wrong, "have MySQL speak TLS, or take ssl out of the control file"
	case errors.As(err, &name) && name.IsNotFound:
		return wrong, "put the name of the host right"
	}
	return fault, "is MySQL running there, and are host, port and socket right?"
}

// What access(2) may be asked for.
const mayRead, mayWrite, mayPass = 4, 2, 1

// fifos looks at the request FIFOs and their directory.
func (c *checkup) fifos(o options) {
	path := or(o.infifo, or(os.Getenv("INFIFO"), "infifo"))
	if path[0] != '/' && path[0] != '.' {
		path = filepath.Join(or(os.Getenv("INFIFODIR"), or(os.Getenv("FIFODIR"), "/var/indimail/inquery")), path)
	}
	mode, err := strconv.ParseUint(or(os.Getenv("FIFO_MODE"), "660"), 8, 9)
	switch {
	case err != nil:
		c.say(wrong, "FIFO_MODE", "want an octal mode like 0660, not %q", os.Getenv("FIFO_MODE"))
		return
	case mode&0o600 != 0o600:
		c.say(wrong, "FIFO_MODE", "%04o: the server itself must read and write: want 0660", mode)
	case mode&0o002 != 0:
		c.say(warning, "FIFO_MODE", "%04o: everybody on this machine may ask, for the hashes of passwords too", mode)
	default:
		c.say(ok, "FIFO_MODE", "%04o", mode)
	}
	if !c.directory(filepath.Dir(path)) {
		return
	}
	if o.instances == 1 {
		c.fifo(path, fs.FileMode(mode))
		return
	}
	for i := range o.instances {
		c.fifo(path+"."+strconv.Itoa(i+1), fs.FileMode(mode))
	}
}

// directory looks at the directory of the request FIFOs, and reports whether to
// look into it.
func (c *checkup) directory(dir string) bool {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(dir)
		for _, err = os.Stat(parent); errors.Is(err, fs.ErrNotExist); _, err = os.Stat(parent) { // ends: / and . exist
			parent = filepath.Dir(parent)
		}
		if err = syscall.Access(parent, mayWrite|mayPass); err != nil {
			c.say(wrong, "directory", "%s is absent and may not be made in %s: %v: make it and give it to the server's user", dir, parent, err)
		} else {
			c.say(ok, "directory", "%s is absent: the server will make it", dir)
		}
		return false
	}
	if err != nil || !info.IsDir() {
		c.say(wrong, "directory", "%s: %v: set INFIFODIR or INFIFO right", dir, or(err, error(syscall.ENOTDIR)))
		return false
	}
	text := fmt.Sprintf("%s, owner %s, mode %04o", dir, account(owner(info)), info.Mode().Perm())
	if err := syscall.Access(dir, mayWrite|mayPass); err != nil {
		c.say(wrong, "directory", "%s: the server may not make a FIFO in it: %v: give it to the server's user", text, err)
	} else if info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		c.say(warning, "directory", "%s: everybody may put a FIFO of his own in place of the server's: chmod o-w %s", text, dir)
	} else {
		c.say(ok, "directory", "%s", text)
	}
	return true
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func (c *checkup) fifo(path string, want fs.FileMode) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.say(ok, "FIFO", "%s is absent: the server will make it", path)
		return
	}
	if err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		c.say(wrong, "FIFO", "%s: %v: move it away, or set INFIFO or -f right", path, or(err, errors.New("is no FIFO")))
		return
	}
	text := fmt.Sprintf("%s, owner %s, mode %04o", path, account(owner(info)), info.Mode().Perm())
	other := os.Geteuid() != 0 && os.Geteuid() != owner(info)
	switch who := holder(path); {
	case who != "":
		c.say(ok, "FIFO", "%s: %s serves it", text, who)
	case other && (info.Mode().Perm() != want || syscall.Access(path, mayRead|mayWrite) != nil):
		c.say(wrong, "FIFO", "%s: the server may not take it over: remove it, the server will make another", text)
	case info.Mode().Perm() != want:
		c.say(warning, "FIFO", "%s: nobody serves it, and the server will change its mode to %04o", text, want)
	default:
		c.say(ok, "FIFO", "%s: nobody serves it", text)
	}
}

func (c *checkup) replies() {
	dir := strings.TrimRight(os.Getenv("REPLYDIR"), "/")
	if dir == "" {
		c.say(ok, "REPLYDIR", "not set: reply FIFOs may lie anywhere")
		return
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	switch err = or(err, syscall.Access(dir, mayPass)); {
	case !filepath.IsAbs(dir):
		c.say(wrong, "REPLYDIR", "%s: want a path that begins with /", dir)
	case err != nil:
		c.say(wrong, "REPLYDIR", "%s: %v: no client will get an answer", dir, err)
	default:
		c.say(ok, "REPLYDIR", "%s: clients must have exactly this in FIFOTMPDIR", dir)
	}
}
