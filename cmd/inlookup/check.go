package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
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
	switch v {
	case wrong:
		c.status = exitUsage
	case fault:
		c.status = cmp.Or(c.status, exitFault)
		v = wrong
	}
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	fmt.Fprintf(c.w, "%-8s %-12s %s\n", v, subject, text)
}

func check(o options, w io.Writer) int {
	c := &checkup{w: w}
	if os.Geteuid() == 0 {
		c.say(warning, "user", "root can do everything: to see what the server can do, "+
			"run this as its user (setuidgid indimail inlookup -t)")
	} else {
		c.say(ok, "user", "%s: what follows holds for this user", account(os.Geteuid()))
	}
	var warnings strings.Builder
	config := &inlookup.MySQL{Log: log.New(&warnings, "", 0)}
	err := config.Reload(false)
	defer config.Close()
	c.files(strings.Split(warnings.String(), "\n"), problems(err))
	c.ignored()
	c.cache()
	if err == nil {
		c.databases(config)
	} else {
		c.say(warning, "database", "not asked: first put right what is wrong above")
	}
	if limit, few := inlookup.FewDescriptors(); few {
		c.say(warning, "descriptors", "at most %d files can be open: under load answers will "+
			"be lost; raise the limit (ulimit -n)", limit)
	}
	c.fifos(o)
	return c.status
}

// problems takes joined errors apart.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// account names a user for people.
func account(uid int) string {
	n := strconv.Itoa(uid)
	if u, err := user.LookupId(n); err == nil {
		return u.Username + " (uid " + n + ")"
	}
	return "uid " + n
}

// files says of each control file, and of assign, what the server finds in it.
// Warnings and faults are what it says when it reads them.
func (c *checkup) files(warnings, faults []string) {
	control := filepath.Dir(inlookup.ControlFile(nil, "host.mysql"))
	if _, err := os.Stat(control); err != nil && os.Getenv("CONTROLDIR") != "" {
		c.say(warning, "CONTROLDIR", "%v: set it to the directory of the control files", err)
	}
	names := []string{
		"host.mysql", "host.cntrl", "mcdinfo", "hostip", "smtproutes", "qmtproutes", "timeoutread",
	}
	for _, name := range names {
		path := inlookup.ControlFile(nil, name)
		if name == "mcdinfo" {
			path = inlookup.ControlFile(nil, cmp.Or(os.Getenv("MCDFILE"), name))
		}
		c.file(name, path, &warnings, &faults)
	}
	c.file("assign", inlookup.AssignFile(nil), &warnings, &faults)
	for _, text := range warnings {
		if text = strings.TrimPrefix(text, "warning: "); text != "" {
			c.say(warning, "environment", "%s", text)
		}
	}
	for _, text := range faults {
		c.say(wrong, "environment", "%s", text)
	}
}

// file says what there is to say of one file, and takes it out of both lists.
func (c *checkup) file(name, path string, warnings, faults *[]string) {
	said := false
	tell := func(v verdict, list *[]string) {
		*list = slices.DeleteFunc(*list, func(text string) bool {
			if !strings.Contains(" "+text, " "+path+":") {
				return false
			}
			said = true
			c.say(v, name, "%s", strings.TrimPrefix(text, "warning: "))
			return true
		})
	}
	tell(wrong, faults)
	tell(warning, warnings)
	if said {
		return
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.say(ok, name, "absent (%s)", path)
		return
	}
	text, err2 := os.ReadFile(path)
	if err = errors.Join(err, err2); err != nil {
		c.say(wrong, name, "%v", err)
		return
	}
	if name == "timeoutread" && !c.timeout(path, string(text)) {
		return
	}
	c.say(ok, name, "%s, mode %04o", path, info.Mode().Perm())
}

// timeout looks at a file that only clients read, and reports whether it is right.
func (c *checkup) timeout(path, text string) bool {
	const least = 4
	value, _, _ := strings.Cut(text, "\n")
	seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	switch {
	case err != nil || seconds == 0:
		c.say(wrong, "timeoutread", "%s:1: want seconds, at least 1, not %q", path, value)
	case seconds < least:
		c.say(warning, "timeoutread", "%s: %d s: the server takes up to 3 s to say that it "+
			"has no answer: want at least %d", path, seconds, least)
	default:
		return true
	}
	return false
}

// ignored warns of settings of the C library that this program does not read.
func (c *checkup) ignored() {
	read := []string{"MYSQL_OPT_SSL_CA", "MYSQL_OPT_SSL_VERIFY_SERVER_CERT"}
	for _, setting := range os.Environ() {
		name, value, _ := strings.Cut(setting, "=")
		option := strings.HasPrefix(name, "MYSQL_OPT_") ||
			strings.HasPrefix(name, "MYSQL_READ_DEFAULT_")
		if option && value != "" && !slices.Contains(read, name) {
			c.say(warning, name, "is set, and not read by this program")
		}
	}
}

func (c *checkup) cache() {
	cache, warnings, err := newCache(nil)
	for _, text := range warnings {
		c.say(warning, "cache", "%s", text)
	}
	for _, fault := range problems(err) {
		c.say(wrong, "cache", "%s", fault)
	}
	if err != nil {
		return
	}
	if cache == nil {
		c.say(ok, "cache", "none, since USE_BTREE is 0: MySQL is asked for everything")
		return
	}
	set := "as by default"
	variables := []string{
		"CACHE_TTL", "CACHE_NEGATIVE_TTL", "CACHE_STALE", "CACHE_SIZE", "MAX_BTREE_COUNT",
	}
	for _, name := range variables {
		if v := os.Getenv(name); v != "" {
			set += ", but " + name + "=" + v
		}
	}
	c.say(ok, "cache", "%s", set)
}

// databases asks each database what the server would ask it.
func (c *checkup) databases(config *inlookup.MySQL) {
	const slow = time.Second
	said := "" // the last error: not again for each further question that does not get through
	say := func(database, what string, took time.Duration, err error) {
		text := fmt.Sprintf("%s: %s, %v", database, what, took.Round(100*time.Microsecond))
		v, advice := remedy(err)
		if v == ok && took > slow {
			c.say(warning, "database", "%s: slow: the server gives up after 3 s, its clients "+
				"after 4", text)
			return
		}
		if v == ok {
			c.say(ok, "database", "%s", text)
			return
		}
		why := strings.TrimPrefix(err.Error(), "database "+database+": ")
		if database+why != said {
			c.say(v, "database", "%s: %s: %s", text, why, advice)
		}
		said = database + why
	}
	if err := config.Check(context.Background(), say); err != nil {
		c.say(wrong, "database", "%v", err)
	}
}

// remedy says whether an error from a database lasts until somebody does
// something about it, and what.
func remedy(err error) (v verdict, advice string) {
	var refused *mysql.MySQLError
	var name *net.DNSError
	switch {
	case err == nil:
		return ok, ""
	case errors.As(err, &refused):
		return refusal(refused.Number)
	case isCertificateError(err):
		return wrong, "name the file of its CA in MYSQL_OPT_SSL_CA, or the host as its " +
			"certificate does"
	case errors.Is(err, mysql.ErrNoTLS):
		return wrong, "have MySQL speak TLS, or take ssl out of the control file"
	case errors.Is(err, mysql.ErrUnknownPlugin):
		return wrong, "give the account another authentication plug-in, such as " +
			"mysql_native_password or caching_sha2_password"
	case errors.As(err, &name) && name.IsNotFound:
		return wrong, "put the name of the host right"
	}
	return fault, "is MySQL running there, and are host, port and socket right?"
}

func isCertificateError(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.CertificateInvalidError)) ||
		errors.As(err, new(x509.HostnameError))
}

// refusal says what to do about an error of MySQL, by its number.
func refusal(number uint16) (v verdict, advice string) {
	switch number {
	case 1044, 1045, 1142, 1143, 1698: // access denied to database, user, table, column
		return wrong, "put user and password right in host.mysql, host.cntrl, mcdinfo or " +
			"MYSQL_USER and MYSQL_PASSWD, or GRANT SELECT on the database"
	case 1130:
		return wrong, "let the user in from this machine, with CREATE USER and GRANT SELECT"
	case 1049:
		return wrong, "create the database, or put its name right in MYSQL_DATABASE or mcdinfo"
	case 1146:
		return wrong, "create the table, or put its name right in MYSQL_TABLE, " +
			"MYSQL_INACTIVE_TABLE or CNTRL_TABLE"
	case 1054:
		return wrong, "add the column: the table is not as IndiMail makes it"
	case 3159: // ER_SECURE_TRANSPORT_REQUIRED
		return wrong, "the server wants TLS: add ssl as the fifth field of the control file"
	case 1040, 1053, 1129, 1203, 1205, 1226, 1927: // too many connections or errors, or going down
		return fault, "try again; if it stays so, see the log of MySQL"
	}
	return wrong, "see what this error means in MySQL's manual"
}

// What access(2) may be asked for.
const mayRead, mayWrite, mayPass = 4, 2, 1

// fifos looks at the request FIFOs, their directory, and that of replies.
func (c *checkup) fifos(o options) {
	server := &inlookup.Server{Infifo: o.infifo, Instances: o.instances}
	settings, err := server.Settings()
	if err != nil {
		c.say(wrong, "environment", "%v", err)
		return
	}
	const ownerBoth, othersWrite = 0o600, 0o002
	mode := settings.Mode
	switch {
	case mode&ownerBoth != ownerBoth:
		c.say(wrong, "FIFO_MODE", "%04o: the server itself must read and write: want 0660", mode)
	case mode&othersWrite != 0:
		c.say(warning, "FIFO_MODE", "%04o: everyone on this machine can ask, even for the hashes "+
			"of passwords", mode)
	default:
		c.say(ok, "FIFO_MODE", "%04o", mode)
	}
	if c.directory(filepath.Dir(settings.FIFOs[0])) {
		for _, path := range settings.FIFOs {
			c.fifo(path, mode)
		}
	}
	c.replies(settings.ReplyDir)
}

// directory looks at the directory of the request FIFOs, and reports whether to
// look into it.
func (c *checkup) directory(dir string) bool {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		c.absentDirectory(dir)
		return false
	}
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		c.say(wrong, "directory", "%s: %v: put INFIFODIR or INFIFO right", dir, err)
		return false
	}
	text := fmt.Sprintf("%s, owner %s, mode %04o", dir, account(owner(info)), info.Mode().Perm())
	othersWrite := info.Mode()&0o002 != 0
	if err := syscall.Access(dir, mayWrite|mayPass); err != nil {
		c.say(wrong, "directory", "%s: the server cannot make a FIFO in it: %v: "+
			"give it to the server's user", text, err)
	} else if othersWrite && info.Mode()&fs.ModeSticky == 0 {
		c.say(warning, "directory", "%s: anyone can put another FIFO in place of the server's: "+
			"chmod o-w %s", text, dir)
	} else {
		c.say(ok, "directory", "%s", text)
	}
	return true
}

// absentDirectory says whether the server can make dir.
func (c *checkup) absentDirectory(dir string) {
	parent := filepath.Dir(dir)
	for { // ends: / and . exist
		if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parent = filepath.Dir(parent)
	}
	if err := syscall.Access(parent, mayWrite|mayPass); err != nil {
		c.say(wrong, "directory", "%s is absent and cannot be made in %s: %v: "+
			"make it and give it to the server's user", dir, parent, err)
		return
	}
	c.say(ok, "directory", "%s is absent: the server will make it", dir)
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func (c *checkup) fifo(path string, want fs.FileMode) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.say(ok, "FIFO", "%s is absent: the server will make it", path)
		return
	}
	if err == nil && info.Mode().Type() != fs.ModeNamedPipe {
		err = errors.New("it is no FIFO")
	}
	if err != nil {
		c.say(wrong, "FIFO", "%s: %v: move it away, or put INFIFO or -f right", path, err)
		return
	}
	mode := info.Mode().Perm()
	text := fmt.Sprintf("%s, owner %s, mode %04o", path, account(owner(info)), mode)
	ours := os.Geteuid() == 0 || os.Geteuid() == owner(info)
	who := holder(path)
	switch {
	case who != "":
		c.say(ok, "FIFO", "%s: %s serves it", text, who)
	case syscall.Access(path, mayRead|mayWrite) != nil:
		c.say(wrong, "FIFO", "%s: the server cannot open it: remove it, the server will make "+
			"another", text)
	case mode != want && !ours:
		c.say(warning, "FIFO", "%s: nobody serves it, and the server cannot change its mode "+
			"to %04o", text, want)
	case mode != want:
		c.say(warning, "FIFO", "%s: nobody serves it, and the server will change its mode "+
			"to %04o", text, want)
	default:
		c.say(ok, "FIFO", "%s: nobody serves it", text)
	}
}

func (c *checkup) replies(dir string) {
	if dir == "" {
		c.say(ok, "REPLYDIR", "not set: reply FIFOs can be anywhere")
		return
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err == nil {
		err = syscall.Access(dir, mayPass)
	}
	if err != nil {
		c.say(wrong, "REPLYDIR", "%s: %v: no client will get an answer", dir, err)
		return
	}
	c.say(ok, "REPLYDIR", "%s: clients must have exactly this in FIFOTMPDIR", dir)
}
