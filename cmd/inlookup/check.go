package main

import (
	"bytes"
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
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/inlookup/inlookup"
)

// A checkup is one run of inlookup -t. It looks at everything that the server
// would use in this environment, with the rights of the user who runs it. It
// writes a line for each thing; no line holds a password. It creates, changes
// and locks nothing, so it can run beside the live server.
type checkup struct {
	w      io.Writer
	status int
}

// A verdict begins a line.
type verdict string

const (
	ok        verdict = "ok"
	warning   verdict = "warning"
	wrong     verdict = "wrong"     // until somebody fixes it
	temporary verdict = "temporary" // written as wrong, but may pass by itself
)

// say writes a line.
func (c *checkup) say(v verdict, subject, format string, args ...any) {
	switch v {
	case wrong:
		c.status = exitUsage
	case temporary:
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
			"run this as the server's user, in its environment")
	} else {
		c.say(ok, "user", "%s: what follows holds for this user", account(os.Geteuid()))
	}
	var warnings warningLog
	for _, text := range o.warnings {
		c.say(warning, "options", "%s", text)
	}
	config := &inlookup.MySQL{Log: log.New(&warnings, "", 0)}
	err := config.Reload(false)
	defer config.Close()
	c.files(warnings.take(), err)
	c.ignored()
	c.cache()
	if err == nil {
		c.databases(config)
		c.connections(warnings.take())
	} else {
		c.say(warning, "database", "not asked: first fix what is wrong above")
	}
	if limit, few := inlookup.FewDescriptors(); few {
		c.say(warning, "descriptors", "at most %d files can be open: under load answers will "+
			"be lost; raise the limit (ulimit -n)", limit)
	}
	c.fifos(o)
	return c.status
}

// A warningLog holds what the library logs. Connecting logs from goroutines of
// its own.
type warningLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *warningLog) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

// take returns the lines since the last take.
func (w *warningLog) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.text.Reset()
	return w.text.String()
}

// problems returns the lines of an error, none for nil.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// account returns the name of a user, if it has one, and the number.
func account(uid int) string {
	number := strconv.Itoa(uid)
	u, err := user.LookupId(number)
	if err != nil {
		return "uid " + number
	}
	return u.Username + " (uid " + number + ")"
}

// A note is a warning or an error from reading the configuration.
type note struct {
	verdict verdict
	text    string
}

// files writes what the server finds in each control file and in assign.
func (c *checkup) files(warnings string, err error) {
	var notes []note
	for _, text := range problems(err) {
		v := wrong
		if strings.Contains(text, inlookup.ErrUnavailable.Error()) { // the one of host.master
			var advice string
			v, advice = remedy(err)
			text += ": " + advice
		}
		notes = append(notes, note{v, text})
	}
	for line := range strings.Lines(warnings) {
		text, isWarning := strings.CutPrefix(strings.TrimSpace(line), "warning: ")
		if isWarning {
			notes = append(notes, note{warning, text})
		} else {
			notes = append(notes, note{ok, text}) // which source of the stores counts
		}
	}
	control := filepath.Dir(inlookup.ControlFile(nil, "host.mysql"))
	c.configured("CONTROLDIR", control, "the control files")
	names := []string{
		"host.mysql", "host.cntrl", "host.master", "mcdinfo", "hostip", "smtproutes", "qmtproutes",
		"timeoutread",
	}
	for _, name := range names {
		path := inlookup.ControlFile(nil, name)
		if name == "mcdinfo" {
			path = inlookup.ControlFile(nil, cmp.Or(os.Getenv("MCDFILE"), name))
		}
		notes = c.file(name, path, notes)
	}
	assign := inlookup.AssignFile(nil)
	c.configured("ASSIGNDIR", filepath.Dir(assign), "the file assign")
	notes = c.file("assign", assign, notes)
	for _, n := range notes {
		c.say(n.verdict, "environment", "%s", n.text)
	}
}

// configured warns if a variable is set to a directory that is missing. Without
// the variable the directory may be.
func (c *checkup) configured(variable, dir, what string) {
	if os.Getenv(variable) == "" {
		return
	}
	if _, err := os.Stat(dir); err != nil {
		c.say(warning, variable, "%v: set it to the directory of %s", err, what)
	}
}

// file writes the notes about one file, or else whether it is there and can be
// read. It returns the notes about other things.
func (c *checkup) file(name, path string, notes []note) (others []note) {
	for _, n := range notes {
		if strings.Contains(" "+n.text, " "+path+":") {
			if strings.HasSuffix(n.text, syscall.EACCES.Error()) {
				n.text += ": let the server's user read it"
			}
			c.say(n.verdict, name, "%s", n.text)
		} else {
			others = append(others, n)
		}
	}
	if len(others) < len(notes) {
		return others
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		c.say(ok, name, "absent (%s)", path)
		return others
	}
	if err == nil && info.Mode().Type() == fs.ModeNamedPipe { // reading it could hang
		c.say(warning, name, "%s: it is a FIFO, and counts as empty if nobody writes: put a "+
			"file there", path)
		return others
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil && name == "timeoutread" {
		c.say(warning, name, "%v: 4 seconds are used", err)
	} else if err != nil {
		c.say(wrong, name, "%v", err)
	} else if name != "timeoutread" || c.timeout(path, string(text)) {
		c.say(ok, name, "%s, mode %04o", path, info.Mode().Perm())
	}
	return others
}

// timeout checks a file that only clients read, and reports whether it is
// right.
func (c *checkup) timeout(path, text string) bool {
	const least = 4
	value, _, _ := strings.Cut(text, "\n")
	seconds, isNumber := leadingNumber(value, 10)
	switch {
	case strings.TrimSpace(value) == "":
		return true // the default
	case !isNumber || seconds < 1:
		c.say(warning, "timeoutread", "%s:1: want seconds, at least 1: 4 are used", path)
	case seconds < least:
		c.say(warning, "timeoutread", "%s: %d s: the server may need 3 s to say that it "+
			"has no answer: want at least %d", path, seconds, least)
	default:
		return true
	}
	return false
}

// cache checks the variables of the cache.
func (c *checkup) cache() {
	cache, warnings := newCache(nil)
	for _, text := range warnings {
		c.say(warning, "cache", "%s", text)
	}
	if len(warnings) > 0 {
		return
	}
	if cache == nil {
		c.say(ok, "cache", "none, because USE_BTREE is 0: each question goes to MySQL")
		return
	}
	variables := []string{
		"CACHE_TTL", "CACHE_NEGATIVE_TTL", "CACHE_STALE", "CACHE_SIZE", "MAX_BTREE_COUNT",
	}
	text := "the defaults"
	separator := ", except "
	for _, name := range variables {
		if v := os.Getenv(name); v != "" {
			text += separator + name + "=" + v
			separator = ", "
		}
	}
	c.say(ok, "cache", "%s", text)
}

// databases tries every SELECT of the server.
func (c *checkup) databases(config *inlookup.MySQL) {
	const slow = time.Second
	said := "" // the last error; one that repeats it is left out
	say := func(database, what string, took time.Duration, err error) {
		subject := fmt.Sprintf("%s: %s, %v", database, what, took.Round(100*time.Microsecond))
		switch {
		case errors.Is(err, inlookup.ErrNoTable):
			c.say(warning, "database", "%s: %v; if it is there, GRANT SELECT on it, "+
				"else IndiMail makes it when it first writes there", subject, err)
		case err == nil && took > slow && what == "connecting":
			c.say(warning, "database", "%s: slow: questions before that are errors; does MySQL "+
				"look up names (skip_name_resolve)?", subject)
		case err == nil && took > slow:
			c.say(warning, "database", "%s: slow: the server gives up after 3 s, its clients "+
				"after 4", subject)
		case err == nil:
			c.say(ok, "database", "%s", subject)
		case err.Error() != said:
			said = err.Error()
			v, advice := remedy(err)
			why := strings.TrimPrefix(said, "database "+database+": ")
			c.say(v, "database", "%s: %s: %s", subject, why, advice)
		}
	}
	if err := config.Check(context.Background(), say); err != nil {
		c.say(wrong, "database", "%v", err)
	}
}

// connections writes the warnings that came while the databases were asked. What
// else was logged then, missing tables too, has its own lines.
func (c *checkup) connections(logged string) {
	for line := range strings.Lines(logged) {
		text, isWarning := strings.CutPrefix(strings.TrimSpace(line), "warning: ")
		if isWarning && !strings.HasSuffix(text, inlookup.ErrNoTable.Error()) {
			c.say(warning, "database", "%s", text)
		}
	}
}

// remedy returns whether an error from a database may pass by itself, and what
// to do about it.
func remedy(err error) (v verdict, advice string) {
	var refused *mysql.MySQLError
	if advice := tlsAdvice(err); advice != "" {
		return wrong, advice
	}
	switch {
	case errors.Is(err, inlookup.ErrNoTable):
		return warning, "nothing to do if nobody needs it"
	case errors.As(err, &refused):
		return refusal(refused.Number)
	case isAuthError(err):
		return wrong, "give the account another authentication plug-in, such as " +
			"mysql_native_password or caching_sha2_password"
	case errors.As(err, new(*net.DNSError)):
		return temporary, "fix the name of the host, or the name service (resolv.conf, hosts)"
	case isSlow(err):
		return temporary, "the server is reached and silent: is it overloaded, does it look up " +
			"names (skip_name_resolve), does a firewall drop packets, or is it no MySQL?"
	}
	return temporary, "is MySQL running there, and are host, port and socket right?"
}

// tlsAdvice is remedy for TLS. It returns no advice for other errors, or none.
func tlsAdvice(err error) string {
	var alert *net.OpError
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return ""
	case strings.Contains(err.Error(), "MYSQL_OPT_SSL_CA: "):
		return "name a file with the certificates of the server's CA, which the user of " +
			"inlookup can read"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "give the server a certificate that has not expired, or set the clock of this " +
			"machine right"
	case isSelfMade(err):
		return "the server made its certificate itself (MariaDB 11.4 does so when it has " +
			"none), so no authority stands behind it: give the server one of your own (ssl_cert, " +
			"ssl_key), and name the file of its CA in MYSQL_OPT_SSL_CA"
	case errors.As(err, new(x509.HostnameError)):
		return "name the host as its certificate does; or name the file of its CA in " +
			"MYSQL_OPT_SSL_CA and unset MYSQL_OPT_SSL_VERIFY_SERVER_CERT: then the name does " +
			"not count"
	case isUnfit(err):
		return "give the server another certificate, which is for servers, has a key of 2048 " +
			"bits or more, and is signed with SHA-256 by a CA whose certificate says that it " +
			"is one"
	case isCertificateError(err):
		return "name the file of its CA in MYSQL_OPT_SSL_CA"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return "the server broke off the TLS handshake: it has no cipher or version that " +
			"Go speaks too; let it offer TLS 1.2 or later with ECDHE and GCM (ssl_cipher, " +
			"tls_version), for Go knows no DHE"
	case strings.Contains(err.Error(), "tls: "):
		return "let the server offer TLS 1.2 or later (tls_version)"
	case errors.Is(err, mysql.ErrNoTLS):
		return "turn on TLS in MySQL, or remove ssl from the control file (in mcdinfo: use_ssl 0)"
	}
	return ""
}

// isAuthError reports whether the driver does not know, or refuses, how the
// server wants to see the password.
func isAuthError(err error) bool {
	return errors.Is(err, mysql.ErrUnknownPlugin) || errors.Is(err, mysql.ErrOldPassword) ||
		errors.Is(err, mysql.ErrCleartextPassword) || errors.Is(err, mysql.ErrOldProtocol)
}

// isSlow reports whether time ran out.
func isSlow(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// isSelfMade reports whether a certificate failed that is its own authority.
func isSelfMade(err error) bool {
	var failed *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	cert := new(x509.Certificate)
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
		cert = failed.UnverifiedCertificates[0]
	} else if errors.As(err, &unknown) && unknown.Cert != nil {
		cert = unknown.Cert
	}
	return len(cert.RawIssuer) > 0 && bytes.Equal(cert.RawIssuer, cert.RawSubject)
}

// isUnfit reports whether a certificate failed for what it is, whoever its
// authority may be. Some of Go's errors for that have no type of their own.
func isUnfit(err error) bool {
	texts := []string{
		"insecure algorithm",                          // SHA-1
		"parent certificate cannot sign",              // of what is no CA
		"tls: failed to parse certificate",            // such as a negative serial number
		"invalid signature by the server certificate", // such as a key that is too short
	}
	return errors.As(err, new(x509.CertificateInvalidError)) ||
		slices.ContainsFunc(texts, func(text string) bool {
			return strings.Contains(err.Error(), text)
		})
}

func isCertificateError(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.UnknownAuthorityError))
}

// MySQL says the same of an account with REQUIRE SSL.
const fixAccount = "fix user or password there (MYSQL_USER and MYSQL_PASSWD, or host.mysql, " +
	"which has host:user:password:socket-or-port:ssl); an account that requires TLS needs the " +
	"ssl, or in mcdinfo use_ssl 1"

// refusal is remedy for an error of MySQL.
func refusal(number uint16) (v verdict, advice string) {
	switch number {
	case 1044: // ER_DBACCESS_DENIED_ERROR
		return wrong, "fix the name of the database (MYSQL_DATABASE, or in mcdinfo), or GRANT " +
			"SELECT on it"
	case 1045: // ER_ACCESS_DENIED_ERROR
		return wrong, fixAccount
	case 1698: // ER_ACCESS_DENIED_NO_PASSWORD_ERROR, also for a user that is not there
		return wrong, fixAccount + "; or, if it logs in by unix_socket, give it a password"
	case 1142, // ER_TABLEACCESS_DENIED_ERROR
		1143: // ER_COLUMNACCESS_DENIED_ERROR
		return wrong, "GRANT SELECT on the table, or fix its name in MYSQL_TABLE, " +
			"MYSQL_INACTIVE_TABLE or CNTRL_TABLE"
	case 1356, 1449: // ER_VIEW_INVALID, ER_NO_SUCH_USER
		return wrong, "fix the view: its definer must exist, and have SELECT on its tables"
	case 1820, // ER_MUST_CHANGE_PASSWORD
		1862: // ER_MUST_CHANGE_PASSWORD_LOGIN
		return wrong, "the password of the account has expired: give it a new one, that does not " +
			"expire (ALTER USER ... IDENTIFIED BY ... PASSWORD EXPIRE NEVER)"
	case 3118, // ER_ACCOUNT_HAS_BEEN_LOCKED of MySQL
		4151: // ER_ACCOUNT_HAS_BEEN_LOCKED of MariaDB
		return wrong, "the account is locked: ALTER USER ... ACCOUNT UNLOCK"
	case 3955, // ER_USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK
		4150: // ER_USER_IS_BLOCKED of MariaDB
		return wrong, "too many wrong passwords have blocked the account: fix the password, then " +
			"FLUSH PRIVILEGES, or ALTER USER ... ACCOUNT UNLOCK"
	case 1251, // ER_NOT_SUPPORTED_AUTH_MODE
		1524: // ER_PLUGIN_IS_NOT_LOADED
		return wrong, "give the account another authentication plug-in, such as " +
			"mysql_native_password or caching_sha2_password, or load the one it has"
	case 1130: // ER_HOST_NOT_PRIVILEGED
		return wrong, "let the user in from this machine, with CREATE USER and GRANT SELECT"
	case 1049, // ER_BAD_DB_ERROR
		1102: // ER_WRONG_DB_NAME
		return wrong, "create the database, or fix its name in MYSQL_DATABASE or mcdinfo"
	case 1103, // ER_WRONG_TABLE_NAME
		1109, // ER_UNKNOWN_TABLE
		1146: // ER_NO_SUCH_TABLE
		return wrong, "create the table, or fix its name in MYSQL_TABLE, " +
			"MYSQL_INACTIVE_TABLE or CNTRL_TABLE"
	case 1054: // ER_BAD_FIELD_ERROR
		return wrong, "add the column: the table is not as IndiMail creates it"
	case 3159: // ER_SECURE_TRANSPORT_REQUIRED
		return wrong, "the server requires TLS: add ssl as the fifth field of the control file " +
			"(in mcdinfo: use_ssl 1)"
	}
	if advice := shortage(number); advice != "" {
		return temporary, advice
	}
	return wrong, "look the error up in MySQL's manual"
}

// shortage is refusal for errors that may pass by themselves. It returns no
// advice for others.
func shortage(number uint16) (advice string) {
	switch number {
	case 1040: // ER_CON_COUNT_ERROR
		return "try again; if the error stays, raise max_connections of MySQL: inlookup wants 16"
	case 1129: // ER_HOST_IS_BLOCKED
		return "MySQL has blocked this machine after too many connects that failed: FLUSH HOSTS"
	case 1203, // ER_TOO_MANY_USER_CONNECTIONS
		1226: // ER_USER_LIMIT_REACHED
		return "raise this limit of the account (max_user_connections, ALTER USER ... WITH " +
			"MAX_...): inlookup wants 16 connections, and any number of queries"
	case 1047: // ER_UNKNOWN_COM_ERROR, of a Galera node
		return "the node of the cluster is not ready: wait, or name another host"
	case 1205, // ER_LOCK_WAIT_TIMEOUT
		1969, // ER_STATEMENT_TIMEOUT of MariaDB
		3024: // ER_QUERY_TIMEOUT of MySQL
		return "is the table locked, or does it lack its indexes?"
	case 1041, // ER_OUT_OF_RESOURCES
		1053, // ER_SERVER_SHUTDOWN
		1135, // ER_CANT_CREATE_THREAD
		1317, // ER_QUERY_INTERRUPTED
		1927: // ER_CONNECTION_KILLED of MariaDB
		return "try again; if the error stays, see the log of MySQL"
	}
	return ""
}

// What access(2) can ask for: R_OK, W_OK and X_OK.
const mayRead, mayWrite, maySearch = 4, 2, 1

const othersWrite = 0o002 // of a mode

// fifos checks the request FIFOs, their directory, and that of reply FIFOs.
func (c *checkup) fifos(o options) {
	server := &inlookup.Server{Infifo: o.infifo, Instances: o.instances}
	settings, err := server.Settings()
	if err != nil {
		subject, text, _ := strings.Cut(err.Error(), ": ")
		if subject != "FIFO_MODE" {
			subject, text = "environment", err.Error()
		}
		c.say(wrong, subject, "%s", text)
		return
	}
	mode := settings.Mode
	unread := settingWarnings()
	switch {
	case len(unread) > 0:
		c.say(warning, "FIFO_MODE", "%s", strings.TrimPrefix(unread[0], "FIFO_MODE: "))
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

// directory checks the directory of the request FIFOs, and reports whether it
// exists.
func (c *checkup) directory(dir string) bool {
	if isAbsent(dir) {
		c.absentDirectory(dir)
		return false
	}
	info, err := statDirectory(dir)
	if err != nil {
		c.say(wrong, "directory", "%s: %v: fix INFIFODIR or INFIFO", dir, err)
		return false
	}
	text := fmt.Sprintf("%s, owner %s, mode %04o", dir, account(owner(info)), info.Mode().Perm())
	anyoneReplaces := info.Mode()&othersWrite != 0 && info.Mode()&fs.ModeSticky == 0
	if err := syscall.Access(dir, mayWrite|maySearch); err != nil {
		c.say(wrong, "directory", "%s: the server cannot make a FIFO in it: %v: "+
			"give it to the server's user", text, err)
	} else if anyoneReplaces {
		c.say(warning, "directory", "%s: anyone can put another FIFO in place of the server's: "+
			"chmod o-w %s", text, dir)
	} else {
		c.say(ok, "directory", "%s", text)
	}
	return true
}

// absentDirectory writes whether the server can make dir.
func (c *checkup) absentDirectory(dir string) {
	parent := filepath.Dir(dir)
	for isAbsent(parent) { // ends: / and . exist
		parent = filepath.Dir(parent)
	}
	if err := syscall.Access(parent, mayWrite|maySearch); err != nil {
		c.say(wrong, "directory", "%s is absent and cannot be made in %s: %v: "+
			"make it and give it to the server's user", dir, parent, err)
		return
	}
	c.say(ok, "directory", "%s is absent: the server will make it", dir)
}

func isAbsent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// statDirectory is os.Stat, with an error if dir is no directory.
func statDirectory(dir string) (fs.FileInfo, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	return info, err
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// fifo checks a request FIFO.
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
		c.say(wrong, "FIFO", "%s: %v: move it away, or fix INFIFO or -f", path, err)
		return
	}
	mode := info.Mode().Perm()
	text := fmt.Sprintf("%s, owner %s, mode %04o", path, account(owner(info)), mode)
	canChange := os.Geteuid() == 0 || os.Geteuid() == owner(info)
	server := holder(path)
	switch {
	case server == "" && syscall.Access(path, mayRead|mayWrite) != nil:
		c.say(wrong, "FIFO", "%s: the server cannot open it: remove it, the server will make "+
			"another", text)
	case !inlookup.TrustsOwner(owner(info)):
		c.say(warning, "FIFO", "%s: unless this is the server's user, somebody else can read what "+
			"is asked: remove it, the server will make another", text)
	case server != "":
		c.say(ok, "FIFO", "%s: %s serves it", text, server)
	case mode != want && !canChange:
		c.say(warning, "FIFO", "%s: no Go server holds it, and the server cannot change its mode "+
			"to %04o", text, want)
	case mode != want:
		c.say(warning, "FIFO", "%s: no Go server holds it, and the server will change its mode "+
			"to %04o", text, want)
	default:
		c.say(ok, "FIFO", "%s: no Go server holds it", text)
	}
}

// replies checks the directory of reply FIFOs.
func (c *checkup) replies(dir string) {
	if dir == "" {
		c.say(warning, "REPLYDIR", "not set: anyone who can ask can stop the answers, with a path "+
			"on a file system that hangs: set it to the FIFOTMPDIR of all clients")
		return
	}
	_, err := statDirectory(dir)
	if err == nil {
		err = syscall.Access(dir, maySearch)
	}
	if err != nil {
		c.say(wrong, "REPLYDIR", "%s: %v: no client will get an answer", dir, err)
		return
	}
	c.say(ok, "REPLYDIR", "%s: clients must set FIFOTMPDIR to exactly this", dir)
}
