package systemtest

// What a server's options and its init_connect do to every session changes no answer. init_connect
// runs for users without the privilege SUPER, such as indimail, and not for the administrator.

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// oddNames are local parts that a statement must quote with care, or that not every character
// set has.
var oddNames = []string{
	`o'brien`, `a"b`, `back\slash`, `end\`, "tick`", `x'or'1'='1`,
	`q?mark`, `per%cent`, `under_score`, `jürgen`,
}

// addOddNames adds them, each with limits, an alias line and a relay row of its own.
func (a admin) addOddNames(t *testing.T) {
	t.Helper()
	for _, name := range oddNames {
		for _, row := range [][]any{
			{"INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir)" +
				" VALUES (?,'example.com',?,1,0,'','')", name, "hash of " + name},
			{"INSERT INTO valias (alias,domain,valias_line) VALUES (?,'example.com',?)",
				name, "&" + name},
			{"INSERT INTO vlimits (domain,maxpopaccounts) VALUES (?,9)", name + "@example.com"},
			{"INSERT INTO relay VALUES (?,'192.0.2.80',UNIX_TIMESTAMP())", name + "@example.com"},
		} {
			if _, err := a.ExecContext(t.Context(), row[0].(string), row[1:]...); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A row that no clock of a session may bring back: it is two hours old.
	a.exec(t, "INSERT INTO relay VALUES ('over@example.com','192.0.2.12',UNIX_TIMESTAMP()-7200)")
}

// sessionQuestions are those of all types, and those with odd names.
func sessionQuestions() map[string]string {
	questions := maps.Clone(everyType)
	questions["2 over@example.com 192.0.2.12"] = "false"
	for _, name := range oddNames {
		email := name + "@example.com"
		questions["1 "+email] = "active"
		questions["2 "+email+" 192.0.2.80"] = "true"
		questions["3 "+email] = email + " hash of " + name + " 0"
		questions["4 "+email] = "example.com:192.0.2.25:2525"
		questions["5 "+email] = "[&" + name + "]"
		questions["6 "+email] = "9 of type 2"
		questions["1 no"+email] = "absent"
	}
	return questions
}

// A setting is one or more assignments, made by SET GLOBAL or by init_connect.
type setting struct {
	assignments []string
	session     bool // they exist for a session only
	before      string
	after       string
}

var sessionSettings = []setting{
	{assignments: []string{"autocommit=0"}},
	{assignments: []string{"sql_mode='PAD_CHAR_TO_FULL_LENGTH'"}},
	{assignments: []string{"sql_mode='ANSI_QUOTES'"}},
	{assignments: []string{"sql_mode='NO_BACKSLASH_ESCAPES'"}},
	{assignments: []string{"sql_mode='ORACLE'"}},
	{assignments: []string{"sql_mode='MSSQL,EMPTY_STRING_IS_NULL'"}},
	{assignments: []string{"sql_mode='IGNORE_SPACE,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION'"}},
	{assignments: []string{"sql_mode='TRADITIONAL,ONLY_FULL_GROUP_BY'"}},
	{assignments: []string{"sql_select_limit=0"}},
	{assignments: []string{"sql_select_limit=1"}},
	{assignments: []string{"max_join_size=1", "sql_big_selects=0"}},
	{assignments: []string{"tx_isolation='READ-UNCOMMITTED'"}},
	{assignments: []string{"tx_isolation='SERIALIZABLE'", "autocommit=0"}},
	{assignments: []string{"tx_read_only=1"}},
	{assignments: []string{"completion_type='RELEASE'"}},
	{assignments: []string{"time_zone='-12:00'"}},
	{assignments: []string{"time_zone='+13:00'"}},
	{assignments: []string{"max_sort_length=8"}},
	{assignments: []string{"group_concat_max_len=4"}},
	{assignments: []string{"lc_messages='de_DE'", "lc_time_names='de_DE'"}},
	{assignments: []string{"old_mode=''"}},
	{assignments: []string{"sql_auto_is_null=1", "sql_safe_updates=1"}},
	{assignments: []string{"sql_buffer_result=1", "big_tables=1"}},
	{assignments: []string{"session_track_state_change=1", "session_track_transaction_info='STATE'",
		"session_track_system_variables='*'"}},
	{assignments: []string{"system_versioning_asof='2001-01-01 00:00:00'"},
		before: eachTable("ALTER TABLE %s ADD SYSTEM VERSIONING"),
		after:  eachTable("ALTER TABLE %s DROP SYSTEM VERSIONING")},
	{assignments: []string{"timestamp=1"}, session: true},
	{assignments: []string{"NAMES latin1"}, session: true},
	{assignments: []string{"NAMES utf8mb4 COLLATE utf8mb4_bin"}, session: true},
	{assignments: []string{"CHARACTER SET cp1251"}, session: true},
	{assignments: []string{"character_set_results=NULL"}, session: true},
	{assignments: []string{"character_set_results=utf16"}, session: true},
	{assignments: []string{"character_set_client=latin1"}, session: true},
	{assignments: []string{"collation_connection=ucs2_bin"}, session: true},
}

// eachTable returns a script with that statement for each table.
func eachTable(statement string) (script string) {
	for _, table := range tables {
		script += fmt.Sprintf(statement, table) + ";"
	}
	return script
}

// Each of these tests undoes the settings that it makes.
func testFieldSession(t *testing.T, db *mariadb.DB) {
	a := newAdmin(t, db)
	a.addOddNames(t)
	s := installationSite(t, db)
	for _, set := range sessionSettings {
		t.Run(strings.Join(set.assignments, ","), func(t *testing.T) { testSetting(t, s, a, set) })
	}
	t.Run("flush", func(t *testing.T) { testFlushInTransaction(t, db, a) })
	t.Run("uncommitted", func(t *testing.T) { testUncommitted(t, s, a, newAdmin(t, db)) })
	t.Run("statement time", func(t *testing.T) { testStatementTime(t, s, a) })
	t.Run("idle connections", func(t *testing.T) { testWaitTimeout(t, s, a) })
}

func testSetting(t *testing.T, s *site, a admin, set setting) {
	if set.before != "" {
		a.exec(t, set.before)
		defer a.exec(t, set.after)
	}
	if !set.session {
		t.Run("global", func(t *testing.T) {
			for _, assignment := range set.assignments {
				name, _, _ := strings.Cut(assignment, "=")
				a.exec(t, "SET GLOBAL "+assignment)
				defer a.exec(t, "SET GLOBAL "+name+"=DEFAULT")
			}
			askAndChange(t, s, a)
		})
	}
	t.Run("init_connect", func(t *testing.T) {
		a.initConnect(t, "SET "+strings.Join(set.assignments, ", "))
		askAndChange(t, s, a)
	})
}

// initConnect has new sessions run the statement, to the end of the test.
func (a admin) initConnect(t *testing.T, statement string) {
	t.Helper()
	a.exec(t, `SET GLOBAL init_connect="`+statement+`"`)
	t.Cleanup(func() { a.exec(t, "SET GLOBAL init_connect=''") })
}

// askAndChange asks everything over new connections. Then it changes a row and a table: neither an
// old row nor a lock may stay with a connection that has nothing to do.
func askAndChange(t *testing.T, s *site, a admin) {
	t.Helper()
	mysql := &inlookup.MySQL{Getenv: s.getenv}
	defer mysql.Close()
	all(t, mysql, "asked", sessionQuestions())
	const where = " WHERE pw_name='user' AND pw_domain='example.com'"
	a.exec(t, "UPDATE indimail SET pw_passwd='changed'"+where)
	all(t, mysql, "a changed password", map[string]string{
		"3 user@example.com": "user@example.com changed 0",
	})
	a.exec(t, "ALTER TABLE indimail COMMENT 'altered'")
	a.exec(t, "UPDATE indimail SET pw_passwd='"+userHash+"'"+where)
	all(t, mysql, "as it was", map[string]string{
		"3 user@example.com": everyType["3 user@example.com"],
	})
}

// In a transaction a session goes on to see the rows of its beginning, or of the first SELECT.
func testFlushInTransaction(t *testing.T, db *mariadb.DB, a admin) {
	for _, begin := range []string{
		"SET autocommit=0", "START TRANSACTION WITH CONSISTENT SNAPSHOT",
	} {
		a.initConnect(t, begin)
		s := installationSite(t, db)
		s.serve()
		for _, passwd := range []string{"first", "second", "$5$abcdefgh$OverHash"} {
			a.exec(t, "UPDATE indimail SET pw_passwd='"+passwd+"' WHERE pw_name='over'")
			s.text(inlookup.Query{Type: inlookup.TypeFlush, Email: "over@example.com"})
			all(t, s.client(), "after the flush, "+begin, map[string]string{
				"3 over@example.com": "over@example.com " + passwd + " 16",
			})
		}
		a.exec(t, "ALTER TABLE indimail COMMENT 'altered'")
	}
}

// What another session has not committed is given to nobody, and nobody waits for it.
func testUncommitted(t *testing.T, s *site, a, other admin) {
	for _, level := range []string{"READ-UNCOMMITTED", "READ-COMMITTED", "SERIALIZABLE"} {
		for _, autocommit := range []string{"1", "0"} {
			a.initConnect(t, "SET tx_isolation='"+level+"', autocommit="+autocommit)
			other.exec(t, "BEGIN; UPDATE indimail SET pw_passwd='uncommitted';"+
				" DELETE FROM vlimits;"+
				" INSERT INTO aliasdomain (alias,domain) VALUES ('new.example.org','example.com')")
			mysql := &inlookup.MySQL{Getenv: s.getenv}
			questions := but(everyType, map[string]string{"7 new.example.org": "new.example.org"})
			all(t, mysql, level+", autocommit="+autocommit, questions)
			other.exec(t, "ROLLBACK")
			mysql.Close()
		}
	}
}

// A server's limit on the time of a statement is not ours: this one is a tenth of what the SELECT
// takes.
func testStatementTime(t *testing.T, s *site, a admin) {
	slowUser(t, a, 1)
	answered := func(t *testing.T) {
		t.Helper()
		mysql := &inlookup.MySQL{Getenv: s.getenv}
		defer mysql.Close()
		// On a slow machine, another statement may reach the limit as well.
		eventually(t, "an answer after a second", func() bool {
			return show(t, mysql, "1 over@example.com") == "over quota"
		})
	}
	t.Run("global", func(t *testing.T) {
		a.exec(t, "SET GLOBAL max_statement_time=0.1")
		defer a.exec(t, "SET GLOBAL max_statement_time=0")
		answered(t)
	})
	t.Run("init_connect", func(t *testing.T) {
		a.initConnect(t, "SET max_statement_time=0.1")
		answered(t)
	})
}

// A server may hang up on idle connections after a second. Nobody notices.
func testWaitTimeout(t *testing.T, s *site, a admin) {
	const names = "wait_timeout interactive_timeout idle_transaction_timeout"
	for _, name := range strings.Fields(names) {
		a.exec(t, "SET GLOBAL "+name+"=1")
		defer a.exec(t, "SET GLOBAL "+name+"=DEFAULT")
	}
	mysql := &inlookup.MySQL{Getenv: s.getenv}
	defer mysql.Close()
	all(t, mysql, "at first", everyType)
	start := time.Now()
	eventually(t, "connections have ended, or live on after 3 s", func() bool {
		return a.sessions(t) == 0 || time.Since(start) > 3*time.Second
	})
	all(t, mysql, "after an idle time", everyType)
}

// A server may force its own character set on all clients.
func TestForcedCharsetChangesNothing(t *testing.T) {
	t.Parallel()
	db := installationDB(t,
		"--skip-character-set-client-handshake", "--character-set-server=latin1")
	a := newAdmin(t, db)
	a.exec(t, "SET NAMES utf8mb4")
	a.addOddNames(t)
	s := installationSite(t, db)
	s.serve()
	all(t, s.resolver(), "directly", sessionQuestions())
	for _, when := range []string{"over FIFOs", "from memory"} {
		all(t, s.client(), when, sessionQuestions())
	}
}
