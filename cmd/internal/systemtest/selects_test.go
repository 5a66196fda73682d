package systemtest

// SELECTs that are slow, locked or refused: with errors that pass, which are asked
// again over another connection, and with errors that are final.

import (
	"fmt"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// localQuestions go to the local database alone: the site has no control files.
var localQuestions = map[string]string{
	"1 user@example.com":            "active",
	"1 inactive@example.com":        "inactive",
	"1 absent@example.com":          "absent",
	"2 user@example.com 192.0.2.10": "true",
	"3 over@example.com":            "over@example.com $5$abcdefgh$OverHash 16",
	"4 user@example.com":            "example.com:127.0.0.1:25",
	"5 alias@example.com":           "[" + aliasLines + "]",
	"6 over@example.com":            "1 of type 2",
	"6 example.com":                 "100 of type 1",
}

// The tests of this file share a MariaDB, each with changes that it undoes.
func TestSlowAndRefusingSelects(t *testing.T) {
	t.Parallel()
	db := installationDB(t)
	a := newAdmin(t, db)
	for _, test := range []struct {
		name string
		test func(*testing.T, *mariadb.DB, admin)
	}{
		{"no prepared statements", testNoPreparedStatements},
		{"a slow SELECT", testSlowSelect},
		{"a lock for 2 s", testShortLock},
		{"errors that pass", testPassingErrors},
		{"errors that are final", testFinalErrors},
		{"numbers of final errors", testFinalErrorNumbers},
		{"a wrong password", testWrongPassword},
	} {
		t.Run(test.name, func(t *testing.T) { test.test(t, db, a) })
	}
}

func testNoPreparedStatements(t *testing.T, db *mariadb.DB, a admin) {
	a.exec(t, "SET GLOBAL max_prepared_stmt_count=0")
	defer a.exec(t, "SET GLOBAL max_prepared_stmt_count=DEFAULT")
	all(t, installationSite(t, db).resolver(), "no prepared statements", everyType)
}

// slowUser makes the SELECT for over@example.com take that many seconds.
func slowUser(t *testing.T, a admin, seconds int) {
	t.Helper()
	a.exec(t, fmt.Sprint("RENAME TABLE indimail TO stored; CREATE VIEW indimail AS SELECT * FROM",
		" stored WHERE pw_name<>'over' OR SLEEP(", seconds, ")=0"))
	t.Cleanup(func() { a.exec(t, "DROP VIEW indimail; RENAME TABLE stored TO indimail") })
}

// A SELECT may take 2 s of the 3 that there are. The machine may take the rest, so ask again.
func testSlowSelect(t *testing.T, db *mariadb.DB, a admin) {
	slowUser(t, a, 2)
	s := newSite(t, db)
	s.serve()
	client := s.short(patience)
	for _, r := range []inlookup.Resolver{s.resolver(), client} {
		eventually(t, "an answer after 2 s", func() bool {
			return rightOrNone(t, r, "1 over@example.com", "over quota")
		})
	}
}

func testShortLock(t *testing.T, db *mariadb.DB, a admin) {
	mysql := newSite(t, db).resolver()
	eventually(t, "an answer when the lock has gone", func() bool {
		unlock := lockTables(t, db, tables...)
		time.AfterFunc(2*time.Second, unlock)
		return rightOrNone(t, mysql, "1 user@example.com", "active")
	})
}

// refusals is a database whose table indimail answers with an error as often as its table refuse
// says. It notes which connection asked.
const refusals = `CREATE DATABASE refusals;
	CREATE TABLE refusals.refuse (errno INT, times INT) ENGINE=MyISAM;
	INSERT INTO refusals.refuse VALUES (0, 0);
	CREATE TABLE refusals.asked (conn BIGINT) ENGINE=MyISAM;
	CREATE FUNCTION refusals.refusal() RETURNS INT MODIFIES SQL DATA BEGIN
		DECLARE number INT;
		INSERT INTO refusals.asked VALUES (CONNECTION_ID());
		SELECT MAX(errno) INTO number FROM refusals.refuse WHERE times > 0;
		UPDATE refusals.refuse SET times = times - 1 WHERE times > 0;
		IF number THEN
			SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = number, MESSAGE_TEXT = 'refused';
		END IF;
		RETURN 0;
	END;
	CREATE VIEW refusals.indimail AS SELECT * FROM indimail.indimail WHERE refusals.refusal() = 0;
	GRANT SELECT ON refusals.* TO indimail@localhost;`

// refusing returns a resolver whose database refuses, with several connections that work.
func refusing(t *testing.T, db *mariadb.DB, a admin) *inlookup.MySQL {
	t.Helper()
	a.exec(t, refusals)
	t.Cleanup(func() {
		a.exec(t, "REVOKE SELECT ON refusals.* FROM indimail@localhost; DROP DATABASE refusals")
	})
	for _, table := range tables[1:] {
		a.exec(t, fmt.Sprintf("CREATE VIEW refusals.%s AS SELECT * FROM indimail.%[1]s", table))
	}
	s := newSite(t, db)
	s.env["MYSQL_DATABASE"] = "refusals"
	mysql := s.resolver()
	eventually(t, "several connections", func() bool {
		together(t, mysql, "nothing is refused", localQuestions)
		return a.sessions(t) >= 3
	})
	return mysql
}

// refuse has the next so many SELECTs of table indimail end with that error.
func (a admin) refuse(t *testing.T, number, times int) {
	t.Helper()
	a.exec(t, fmt.Sprintf("DELETE FROM refusals.asked;"+
		" UPDATE refusals.refuse SET errno=%d, times=%d", number, times))
}

// number returns the number that a SELECT finds.
func (a admin) number(t *testing.T, query string) (n int) {
	t.Helper()
	if err := a.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// An error that says nothing of the question gets a second try, on a connection made for it: the
// others may be no better.
func testPassingErrors(t *testing.T, db *mariadb.DB, a admin) {
	mysql := refusing(t, db, a)
	for _, number := range []int{
		1243, 1615, // a prepared statement is unknown, or must be prepared anew
		1053, 3032, 3168, // the server shuts down, is offline, is not available
		1317, 1927, 4031, // the query, or the connection, was ended
		1047,       // a Galera node is not ready
		1205, 1213, // a lock was not to be had
	} {
		// The new connection is waited for only a tenth of a second.
		oneOfThree(t, func(c *complaint) {
			newest := a.number(t, "SELECT MAX(id) FROM information_schema.processlist")
			a.refuse(t, number, 1)
			if got := show(t, mysql, "1 over@example.com"); got != "over quota" {
				t.Fatalf("error %d, once: %s, want an answer", number, got)
			}
			conns := a.number(t, "SELECT COUNT(DISTINCT conn) FROM refusals.asked")
			second := a.number(t, "SELECT MAX(conn) FROM refusals.asked")
			if conns != 2 || second <= newest {
				c.addf("error %d: asked over %d connections, the newest %d; there were %d before",
					number, conns, second, newest)
			}
		})
		a.refuse(t, number, 9)
		if got := show(t, mysql, "1 over@example.com"); got != "unavailable" {
			t.Errorf("error %d, always: %s, want an error", number, got)
		}
		if left := a.number(t, "SELECT times FROM refusals.refuse"); left != 9-2 {
			t.Errorf("error %d, always: asked %d times, want 2", number, 9-left)
		}
	}
	a.refuse(t, 0, 0)
	together(t, mysql, "nothing is refused any more", localQuestions)
}

// An error that is about the question, or about us, would be the same the second time.
func testFinalErrors(t *testing.T, db *mariadb.DB, a admin) {
	const limited = "limited@localhost"
	a.exec(t, "CREATE USER "+limited+" IDENTIFIED BY 'secret'; GRANT SELECT ON valias TO "+limited)
	t.Cleanup(func() { a.exec(t, "DROP USER "+limited) })
	for _, final := range []struct {
		name, before, after, user string
	}{
		{"no such table (1146)", "RENAME TABLE indimail TO away", "RENAME TABLE away TO indimail",
			"indimail"},
		{"no such column (1054)", "ALTER TABLE indimail RENAME COLUMN pw_gid TO away",
			"ALTER TABLE indimail RENAME COLUMN away TO pw_gid", "indimail"},
		{"no right to the table (1142)", "DO 0", "DO 0", "limited"},
		{"no right to a column (1143)",
			"GRANT SELECT (pw_name,pw_domain) ON indimail TO " + limited, "DO 0", "limited"},
	} {
		s := newSite(t, db)
		s.env["MYSQL_USER"] = final.user
		mysql := s.resolver()
		all(t, mysql, "a connection", map[string]string{"5 user@example.com": "[]"})
		a.exec(t, final.before)
		asked := newCounter(t, db).questions()
		if got := show(t, mysql, "1 user@example.com"); got != "unavailable" {
			t.Errorf("%s: %s, want an error", final.name, got)
		}
		if n := asked(); n > 1 {
			t.Errorf("%s: %d statements, want one", final.name, n)
		}
		a.exec(t, final.after)
	}
}

// The same for errors that no table can be made to give.
func testFinalErrorNumbers(t *testing.T, db *mariadb.DB, a admin) {
	mysql := refusing(t, db, a)
	for _, number := range []int{1044, 1045, 1064} { // access denied, syntax
		a.refuse(t, number, 9)
		if got := show(t, mysql, "1 over@example.com"); got != "unavailable" {
			t.Errorf("error %d: %s, want an error", number, got)
		}
		if left := a.number(t, "SELECT times FROM refusals.refuse"); left != 9-1 {
			t.Errorf("error %d: asked %d times, want once", number, 9-left)
		}
	}
	a.refuse(t, 0, 0)
	together(t, mysql, "nothing is refused any more", localQuestions)
}

func testWrongPassword(t *testing.T, db *mariadb.DB, a admin) {
	s := newSite(t, db)
	s.env["MYSQL_PASSWD"] = "wrong"
	denied := newCounter(t, db)
	before := denied.read("Access_denied_errors")
	mysql := s.resolver()
	if got := show(t, mysql, "1 user@example.com"); got != "unavailable" {
		t.Errorf("a wrong password: %s, want an error", got)
	}
	mysql.Close() // it would try again after a second
	if n := denied.read("Access_denied_errors") - before; n != 1 {
		t.Errorf("a wrong password was tried %d times, want once", n)
	}
}
