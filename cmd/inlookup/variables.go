package main

import (
	"os"
	"slices"
	"strings"
)

// variables are the names of the environment that server, client or this
// command reads. inlookup(8) says what each does.
var variables = []string{
	"ALIAS_DOMAINS", "ASSIGNDIR", "CACHE_NEGATIVE_TTL", "CACHE_SIZE", "CACHE_STALE", "CACHE_TTL",
	"CNTRL_DATABASE", "CNTRL_HOST", "CNTRL_PASSWD", "CNTRL_SOCKET", "CNTRL_TABLE", "CNTRL_USER",
	"CNTRL_VPORT", "CONTROLDIR", "DEBUG", "DEFAULT_DOMAIN", "DOMAIN_LIMITS", "FIFODIR",
	"FIFOTMPDIR", "FIFO_MODE", "INDIMAIL_DOMAIN", "INFIFO", "INFIFODIR", "MASTER_DATABASE",
	"MASTER_HOST", "MASTER_PASSWD", "MASTER_SOCKET", "MASTER_USER", "MASTER_VPORT",
	"MAX_BTREE_COUNT", "MCDFILE", "MYSQL_DATABASE", "MYSQL_HOST", "MYSQL_INACTIVE_TABLE",
	"MYSQL_OPT_SSL_CA", "MYSQL_OPT_SSL_VERIFY_SERVER_CERT", "MYSQL_PASSWD", "MYSQL_SOCKET",
	"MYSQL_TABLE", "MYSQL_USER", "MYSQL_VPORT", "NOTIFY_SOCKET", "NO_COLOR", "QUERY_CACHE",
	"REAL_DOMAINS", "RELAY_CLEAR_MINUTES", "RELAY_TABLE", "REPLYDIR", "ROUTES", "SYSCONFDIR",
	"TCPCLIENT", "TCPREMOTEIP", "TERM", "TMPDIR", "USE_BTREE",
}

// Names that others read, so they are no mistakes. The C library's have no
// effect here, which may surprise. The rest is of the run file or of clients.
var (
	libraryVariables = []string{
		"MYSQL_GROUP_SUFFIX", "MYSQL_HOME", "MYSQL_INIT_COMMAND", "MYSQL_OPT_COMPRESS",
		"MYSQL_OPT_CONNECT_TIMEOUT",
		"MYSQL_OPT_LOCAL_INFILE", "MYSQL_OPT_NAMED_PIPE", "MYSQL_OPT_PROTOCOL",
		"MYSQL_OPT_READ_TIMEOUT", "MYSQL_OPT_SSL_CAPATH", "MYSQL_OPT_SSL_CERT",
		"MYSQL_OPT_SSL_CIPHER", "MYSQL_OPT_SSL_CRL", "MYSQL_OPT_SSL_CRLPATH",
		"MYSQL_OPT_SSL_ENFORCE", "MYSQL_OPT_SSL_KEY", "MYSQL_OPT_SSL_MODE",
		"MYSQL_OPT_TLS_CIPHERSUITES", "MYSQL_OPT_TLS_VERSION", "MYSQL_OPT_WRITE_TIMEOUT",
		"MYSQL_READ_DEFAULT_FILE", "MYSQL_READ_DEFAULT_GROUP", "MYSQL_SECURE_AUTH",
		"MYSQL_SET_CHARSET_DIR", "MYSQL_SET_CHARSET_NAME", "MYSQL_SET_CLIENT_IP",
		"MYSQL_TCP_PORT", "MYSQL_UNIX_PORT",
	}
	otherVariables = []string{"CACHE_COUNT", "MYSQL_OPT_RECONNECT"}
)

// A strayVariable is one that begins like ours, or is almost one of them, and is
// not read.
type strayVariable struct {
	name    string
	library bool   // it is one of the C library
	nearest string // else: the one that may have been meant
}

// strayVariables looks for them in an environment.
func strayVariables(environ []string) (strays []strayVariable) {
	prefixes := []string{"MYSQL_", "CNTRL_", "MASTER_", "CACHE_", "INFIFO", "FIFO", "REPLY"}
	for _, setting := range environ {
		name, value, _ := strings.Cut(setting, "=")
		upper := strings.ToUpper(name)
		ours := isAlmostOurs(upper) || slices.ContainsFunc(prefixes, func(prefix string) bool {
			return strings.HasPrefix(upper, prefix)
		})
		if !ours || slices.Contains(variables, name) || slices.Contains(otherVariables, name) {
			continue
		}
		if !slices.Contains(libraryVariables, name) {
			strays = append(strays, strayVariable{name: name, nearest: nearest(upper)})
		} else if value != "" {
			strays = append(strays, strayVariable{name: name, library: true})
		}
	}
	slices.SortFunc(strays, func(a, b strayVariable) int { return strings.Compare(a.name, b.name) })
	return strays
}

// isAlmostOurs reports whether one letter that is wrong, missing, too many or at
// another place tells a name from one of ours. It says no of short names, because
// many of these differ by a letter.
func isAlmostOurs(name string) bool {
	const short, oneLetter = 6, 3
	near := nearest(name)
	longer := max(len(name), len(near)) - min(len(name), len(near))
	return len(name) >= short && longer <= 1 && distance(name, near) <= oneLetter
}

// nearest returns the variable whose name is like this one the most.
func nearest(name string) string {
	return slices.MinFunc(variables, func(a, b string) int {
		return distance(name, a) - distance(name, b)
	})
}

// distance returns what it costs to make b from a: 1 for a letter that is put
// in, 2 for one that is taken out, 3 for one that is replaced. Letters are left
// out more often than added: CACHE_NEG_TTL is CACHE_NEGATIVE_TTL, not CACHE_TTL.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from the beginning of a to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] += 2
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace += 3
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+2, row[j]+1)
		}
	}
	return row[len(b)]
}

// ignored warns about variables that are not read.
func (c *checkup) ignored() {
	for _, v := range strayVariables(os.Environ()) {
		if v.library {
			c.say(warning, v.name, "is set, but only the C library reads it: nothing to do "+
				"if host.mysql or MYSQL_HOST says what it did")
		} else {
			c.say(warning, v.name, "is set, but nothing reads it: is %s meant?", v.nearest)
		}
	}
}
