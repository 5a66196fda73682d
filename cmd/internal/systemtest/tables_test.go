package systemtest

// Tables as people have them. Other collations and character sets in each table and column, views
// in place of tables, NULL in any column, tables that nobody made, wider columns, text where a
// number belongs: none of it changes an answer, except to an error where there is none to give.

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// Each of these tests finds the installation's tables, and may spoil them.
func testFieldTables(t *testing.T, db *mariadb.DB) {
	for _, test := range []struct {
		name string
		test func(*testing.T, *mariadb.DB)
	}{
		{"collations", testCollations},
		{"a character set in each column", testColumnCharsets},
		{"views", testViews},
		{"NULL in users", testNullUsers},
		{"NULL in limits", testNullLimits},
		{"NULL in other tables", testNullElsewhere},
		{"missing tables", testMissingTables},
		{"wide columns", testWideColumns},
		{"text for a number", testTextForNumber},
		{"text for a limit", testTextForLimit},
		{"case beyond ASCII", testCaseBeyondASCII},
		{"accents", testAccents},
	} {
		t.Run(test.name, func(t *testing.T) {
			loadInstallation(t, db)
			test.test(t, db)
		})
	}
}

func testCollations(t *testing.T, db *mariadb.DB) {
	s := installationSite(t, db)
	for _, collations := range [][]string{
		{"utf8mb4_general_ci", "utf8mb4_unicode_ci"}, // of indimail, of indibak, and so on
		{"latin1_swedish_ci", "utf8mb4_general_ci", "utf8mb3_unicode_ci"},
		{"utf8mb4_unicode_520_ci", "latin1_general_cs", "ascii_general_ci", "utf8mb4_bin"},
		{"utf8mb3_general_ci", "latin2_general_ci", "ucs2_general_ci", "utf16_unicode_ci",
			"cp1251_bin"},
	} {
		script := ""
		for i, table := range tables {
			collation := collations[i%len(collations)]
			charset, _, _ := strings.Cut(collation, "_")
			script += fmt.Sprintf("ALTER TABLE %s CONVERT TO CHARACTER SET %s COLLATE %s;",
				table, charset, collation)
		}
		execute(t, db, script)
		mysql := s.resolver()
		all(t, mysql, fmt.Sprint(collations), everyType)
		all(t, mysql, fmt.Sprint(collations), map[string]string{
			"1 世@example.com":           "absent", // no such letter in some of the columns
			"3 世@example.com":           "absent",
			"5 世@example.com":           "[]",
			"6 世@example.com":           "absent",
			"2 世@example.com 192.0.2.1": "false",
			"1 世@dist.example.net":      "absent",
			"7 世.example":               "世.example",
		})
	}
}

// Name and domain of one table differ in character set, and so do those of two tables.
func testColumnCharsets(t *testing.T, db *mariadb.DB) {
	for _, column := range []string{
		"indimail MODIFY pw_name CHAR(40) CHARACTER SET latin1 NOT NULL",
		"indimail MODIFY pw_domain CHAR(67) CHARACTER SET utf16 NOT NULL",
		"indimail MODIFY pw_passwd CHAR(128) CHARACTER SET ascii NOT NULL",
		"indimail MODIFY pw_gecos CHAR(48) CHARACTER SET utf8mb4 NOT NULL",
		"indimail MODIFY pw_dir CHAR(156) CHARACTER SET binary",
		"indimail MODIFY scram CHAR(255) CHARACTER SET ucs2",
		"indibak MODIFY pw_name VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
		"indibak MODIFY pw_domain VARCHAR(67) CHARACTER SET latin1 COLLATE latin1_german2_ci",
		"valias MODIFY alias CHAR(40) CHARACTER SET utf32 NOT NULL",
		"valias MODIFY valias_line CHAR(190) CHARACTER SET utf8mb3 NOT NULL",
		"vlimits MODIFY domain CHAR(67) CHARACTER SET ucs2 NOT NULL",
		"relay MODIFY email CHAR(96) CHARACTER SET utf16 NOT NULL",
		"relay MODIFY ipaddr CHAR(46) CHARACTER SET ascii NOT NULL",
		"hostcntrl MODIFY host CHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL",
		"host_table MODIFY host CHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
		"smtp_port MODIFY host CHAR(64) CHARACTER SET latin1 NOT NULL",
		"smtp_port MODIFY src_host CHAR(64) CHARACTER SET ucs2 NOT NULL",
		"aliasdomain MODIFY alias CHAR(64) CHARACTER SET utf16 NOT NULL",
		"aliasdomain MODIFY domain CHAR(67) CHARACTER SET latin2",
	} {
		execute(t, db, "ALTER TABLE "+column)
	}
	s := installationSite(t, db)
	all(t, s.resolver(), "mixed columns", everyType)
	s.env["DOMAIN_LIMITS"] = "1"
	all(t, s.resolver(), "mixed columns, DOMAIN_LIMITS", map[string]string{
		"3 user@example.com":       "user@example.com " + userHash + " 326",
		"3 inactive@example.com":   "inactive@example.com $5$abcdefgh$InactiveHash 326",
		"3 duser@dist.example.net": "duser@dist.example.net $5$abcdefgh$DistHash 8",
	})
}

func testViews(t *testing.T, db *mariadb.DB) {
	for _, table := range tables {
		execute(t, db, fmt.Sprintf("RENAME TABLE %s TO stored_%[1]s;"+
			"CREATE VIEW %[1]s AS SELECT * FROM stored_%[1]s", table))
	}
	// People also make the users of several tables one view, its text of another collation.
	execute(t, db, "CREATE OR REPLACE VIEW indimail AS"+
		" SELECT CONVERT(pw_name USING utf8mb4) COLLATE utf8mb4_unicode_ci AS pw_name, pw_domain,"+
		" CONCAT(pw_passwd,'') AS pw_passwd, pw_uid+0 AS pw_uid, pw_gid+0 AS pw_gid, pw_gecos,"+
		" pw_dir, pw_shell, scram, timestamp FROM stored_indimail"+
		" WHERE pw_domain<>'dist.example.net'"+
		" UNION ALL SELECT * FROM stored_indimail WHERE pw_domain='dist.example.net'")
	s := installationSite(t, db)
	all(t, s.resolver(), "views", everyType)
	s.serve()
	for _, when := range []string{"views, over FIFOs", "views, from memory"} {
		all(t, s.client(), when, everyType)
	}
}

// nullable lets every column of a table be NULL, which a primary key forbids.
func nullable(t *testing.T, db *mariadb.DB, table string) {
	t.Helper()
	rows, err := db.SQL().Query("SELECT column_name, column_type FROM information_schema.columns"+
		" WHERE table_schema='indimail' AND table_name=?", table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	script := "ALTER TABLE " + table
	if table != "relay" && table != "valias" {
		script += " DROP PRIMARY KEY,"
	}
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf(" MODIFY `%s` %s NULL,", name, typ)
	}
	execute(t, db, strings.TrimSuffix(script, ","))
}

// A NULL is an empty field of the entry, and moves no other. Without a password nobody gets in.
func testNullUsers(t *testing.T, db *mariadb.DB) {
	s := installationSite(t, db)
	s.env["CACHE_TTL"], s.env["CACHE_NEGATIVE_TTL"] = "0", "0"
	s.serve()
	mysql := s.resolver()
	for _, table := range []string{"indimail", "indibak"} {
		nullable(t, db, table)
		execute(t, db, "INSERT INTO "+table+" (pw_uid) VALUES (7)") // a row of nobody
		row := inlookup.Passwd{
			Passwd: inlookup.NewSecret("hash"), UID: 3, GID: 1, Gecos: "A User", Dir: "/home/u", Shell: "NOQUOTA",
		}
		for column, empty := range map[string]func(*inlookup.Passwd){
			"pw_uid":    func(p *inlookup.Passwd) { p.UID = 0 },
			"pw_gid":    func(p *inlookup.Passwd) { p.GID = 0 },
			"pw_gecos":  func(p *inlookup.Passwd) { p.Gecos = "" },
			"pw_dir":    func(p *inlookup.Passwd) { p.Dir = "" },
			"pw_shell":  func(p *inlookup.Passwd) { p.Shell = "" },
			"timestamp": func(*inlookup.Passwd) {},
		} {
			name := table + "_" + column
			execute(t, db, fmt.Sprintf("INSERT INTO %s VALUES"+
				" ('%s','example.com','hash',3,1,'A User','/home/u','NOQUOTA',NULL,NOW());"+
				"UPDATE %[1]s SET %[3]s=NULL WHERE pw_name='%[2]s'", table, name, column))
			want := row
			want.Email, want.Inactive = name+"@example.com", table == "indibak"
			empty(&want)
			for _, r := range []inlookup.Resolver{mysql, s.client()} {
				got, err := inlookup.Directory{Resolver: r}.Passwd(t.Context(), want.Email)
				if !reflect.DeepEqual(got, want) || err != nil {
					t.Errorf("%s of %s is NULL: %+v, %v\nwant %+v", column, table, got, err, want)
				}
			}
		}
		execute(t, db, fmt.Sprintf("INSERT INTO %s (pw_name,pw_domain,scram) VALUES"+
			" ('nopass_%[1]s','example.com',NULL),"+
			" ('scramonly_%[1]s','example.com','{SCRAM-SHA-256}4096,a,b,c')", table))
		for _, name := range []string{"nopass_", "scramonly_"} {
			q := inlookup.Query{Type: inlookup.TypePasswd, Email: name + table + "@example.com"}
			if got := show(t, mysql, "3 "+q.Email); got != "unavailable" {
				t.Errorf("%s without a password: %s, want an error", q.Email, got)
			}
			if got, err := s.ask("infifo", q); !got.Equal(inlookup.NewAnswer(0)) || err != nil {
				t.Errorf("%s without a password, over FIFOs: %q, want code 0", q.Email, got)
			}
		}
		want := map[string]string{"indimail": "active", "indibak": "inactive"}[table]
		all(t, mysql, "pw_passwd is NULL", map[string]string{
			"1 nopass_" + table + "@example.com": want,
			"4 nopass_" + table + "@example.com": "example.com:192.0.2.25:2525",
		})
	}
	all(t, mysql, "NULL in other rows", everyType)
}

// limitColumns are the columns of vlimits in the order of the record, with the record's bytes.
var limitColumns = []struct {
	names string
	bytes int // of each
}{
	{"domain_expiry passwd_expiry maxpopaccounts maxaliases maxforwards maxautoresponders" +
		" maxmailinglists diskquota maxmsgcount defaultquota defaultmaxmsgcount", 8},
	{"disable_pop disable_imap disable_dialup disable_passwordchanging disable_webmail" +
		" disable_relay disable_smtp perm_account perm_alias perm_forward perm_autoresponder", 2},
	{"perm_maillist", 6}, // one column for three fields
	{"perm_quota perm_defaultquota", 2},
}

// NULL in a column of the limits changes no other field. The field itself is 0, or -1: no limit.
func testNullLimits(t *testing.T, db *mariadb.DB) {
	nullable(t, db, "vlimits")
	execute(t, db, "INSERT INTO vlimits (maxpopaccounts) VALUES (77)") // a row of nobody
	mysql := installationSite(t, db).resolver()
	q := inlookup.Query{Type: inlookup.TypeLimit, Email: "over@example.com"}
	whole, err := mysql.Resolve(t.Context(), q)
	if err != nil || whole.Code() != 128 {
		t.Fatalf("%q, %v", whole, err)
	}
	start := 4 // behind the code
	for _, group := range limitColumns {
		for _, column := range strings.Fields(group.names) {
			var value string
			const where = " WHERE domain='over@example.com'"
			row := db.SQL().QueryRow("SELECT " + column + " FROM vlimits" + where)
			if err := row.Scan(&value); err != nil {
				t.Fatal(err)
			}
			execute(t, db, "UPDATE vlimits SET "+column+"=NULL"+where)
			end := start + group.bytes
			with := func(b string) inlookup.Answer {
				field := strings.Repeat(b, group.bytes)
				return inlookup.WireAnswer(whole.Wire()[:start] + field + whole.Wire()[end:])
			}
			got, err := mysql.Resolve(t.Context(), q)
			if !got.Equal(with("\x00")) && !got.Equal(with("\xff")) {
				t.Errorf("%s is NULL: %q, %v\nwithout: %q", column, got, err, whole)
			}
			execute(t, db, "UPDATE vlimits SET "+column+"="+value+where)
			start = end
		}
	}
	all(t, mysql, "NULL in another row", everyType)
}

func testNullElsewhere(t *testing.T, db *mariadb.DB) {
	for _, table := range []string{
		"relay", "valias", "hostcntrl", "host_table", "smtp_port", "aliasdomain",
	} {
		nullable(t, db, table)
	}
	execute(t, db, `INSERT INTO relay VALUES (NULL,'192.0.2.10',UNIX_TIMESTAMP()),
			('user@example.com',NULL,UNIX_TIMESTAMP()), ('over@example.com','192.0.2.50',NULL);
		INSERT INTO valias VALUES (NULL,'example.com','&a@test',NULL),
			('alias',NULL,'&b@test',NULL), ('alias','example.com',NULL,NULL);
		UPDATE hostcntrl SET pw_passwd=NULL, timestamp=NULL;
		INSERT INTO hostcntrl VALUES (NULL,'dist.example.net','','mda2.example.net',NULL),
			('duser',NULL,'','mda3.example.net',NULL),
			('nullhost','dist.example.net',NULL,NULL,NULL),
			('nullip','dist.example.net',NULL,'nullip.example.net',NULL);
		INSERT INTO host_table VALUES (NULL,'192.0.2.28',NULL), ('nullip.example.net',NULL,NULL);
		INSERT INTO smtp_port VALUES (NULL,'*','dist.example.net',1,NULL),
			('mda2.example.net',NULL,'dist.example.net',2,NULL),
			('mda2.example.net','*',NULL,3,NULL),
			('mda3.example.net','*','dist2.example.net',NULL,NULL);
		INSERT INTO aliasdomain VALUES (NULL,'example.com',NULL), ('null.example.org',NULL,NULL)`)
	s := installationSite(t, db)
	mysql := s.resolver()
	questions := maps.Clone(everyType)
	delete(questions, "5 alias@example.com") // below
	all(t, mysql, "NULL in other rows", but(questions, map[string]string{
		"2 over@example.com 192.0.2.50": "false",
		"1 nullhost@dist.example.net":   "unavailable",
		"3 nullhost@dist.example.net":   "unavailable",
		"4 nullip@dist.example.net":     "unavailable",
		"4 d3@dist2.example.net":        "dist2.example.net:192.0.2.28:25",
		"7 null.example.org":            "unavailable",
		"1 user@null.example.org":       "unavailable",
	}))
	lines, err := inlookup.Directory{Resolver: mysql}.Alias(t.Context(), "alias@example.com")
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	if got := strings.Join(lines, " "); got != aliasLines || err != nil {
		t.Errorf("a line is NULL: %s, %v, want %s", got, err, aliasLines)
	}
}

// The C programs make these tables when they first need them. Until then each is empty.
func testMissingTables(t *testing.T, db *mariadb.DB) {
	empty := map[string]map[string]string{
		"valias": {"1 alias@example.com": "absent", "5 alias@example.com": "[]"},
		"relay": {
			"2 user@example.com 192.0.2.10":       "false",
			"2 inactive@example.com 192.0.2.24":   "false",
			"2 duser@dist.example.net 192.0.2.20": "false",
		},
		"vlimits": {
			"6 user@example.com": "-1 of type 1",
			"6 over@example.com": "-1 of type 1",
			"6 example.com":      "absent",
		},
		"smtp_port": {"4 duser@dist.example.net": "dist.example.net:192.0.2.26:25"},
		"aliasdomain": {
			"1 user@alias.example.org":   "absent",
			"3 duser@aliasb.example.org": "absent",
			"7 alias.example.org":        "alias.example.org",
			"7 aliasb.example.org":       "aliasb.example.org",
		},
	}
	s := installationSite(t, db)
	mysql := s.resolver()
	without := maps.Clone(everyType)
	for table, answers := range empty {
		execute(t, db, "RENAME TABLE "+table+" TO away")
		all(t, mysql, "no table "+table, but(everyType, answers))
		execute(t, db, "RENAME TABLE away TO "+table)
		all(t, mysql, "table "+table+" is back", everyType)
		without = but(without, answers)
	}
	for table := range empty {
		execute(t, db, "DROP TABLE "+table)
	}
	all(t, mysql, "none of the five tables", without)
	s.env["DOMAIN_LIMITS"] = "1"
	all(t, s.resolver(), "none of the five tables, DOMAIN_LIMITS", without)
	for table, q := range map[string]string{
		"indimail": "1 user@example.com", "indibak": "1 absent@example.com",
		"hostcntrl": "1 duser@dist.example.net", "host_table": "4 duser@dist.example.net",
	} {
		execute(t, db, "RENAME TABLE "+table+" TO away")
		all(t, mysql, "no table "+table, map[string]string{q: "unavailable"})
		execute(t, db, "RENAME TABLE away TO "+table)
	}
}

// The longest local part and domain that mail knows, in columns that were made wide for them.
func testWideColumns(t *testing.T, db *mariadb.DB) {
	execute(t, db, `ALTER TABLE indimail MODIFY pw_name VARCHAR(64), MODIFY pw_domain VARCHAR(255),
			MODIFY pw_passwd VARCHAR(512) NOT NULL, MODIFY pw_gecos VARCHAR(512) NOT NULL,
			MODIFY pw_dir VARCHAR(512), MODIFY scram VARCHAR(1024);
		ALTER TABLE valias MODIFY alias VARCHAR(64), MODIFY domain VARCHAR(255),
			MODIFY valias_line VARCHAR(512);
		ALTER TABLE relay MODIFY email VARCHAR(320); ALTER TABLE vlimits MODIFY domain VARCHAR(320);
		ALTER TABLE hostcntrl MODIFY pw_name VARCHAR(64), MODIFY pw_domain VARCHAR(255);
		ALTER TABLE aliasdomain MODIFY alias VARCHAR(255), MODIFY domain VARCHAR(255)`)
	local := strings.Repeat("l", 64)
	labels := strings.Repeat(strings.Repeat("d", 62)+".", 3)
	domain := labels + strings.Repeat("d", 255-len(labels))
	alias := "a" + domain[1:]
	email := local + "@" + domain
	line := "&" + strings.Repeat("x", 500) + "@remote.example"
	gecos, dir := strings.Repeat("g", 512), "/"+strings.Repeat("h", 511)
	for _, row := range [][]any{
		{"INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir)" +
			" VALUES (?,?,?,1,0,?,?)", local, domain, "wide", gecos, dir},
		{"INSERT INTO valias (alias,domain,valias_line) VALUES (?,?,?)", local, domain, line[:512]},
		{"INSERT INTO relay VALUES (?,'192.0.2.60',UNIX_TIMESTAMP())", email},
		{"INSERT INTO vlimits (domain,maxpopaccounts) VALUES (?,64),(?,255)", email, domain},
		{"INSERT INTO aliasdomain (alias,domain) VALUES (?,?)", alias, domain},
		{"INSERT INTO hostcntrl (pw_name,pw_domain,pw_passwd,host)" +
			" VALUES (?,'dist.example.net','','mda2.example.net')", local},
	} {
		if _, err := db.SQL().Exec(row[0].(string), row[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, db) // without assign, the database alone says which domains there are
	s.control("host.cntrl", "localhost:indimail:secret:"+db.Socket+"\n")
	s.serve()
	for _, r := range []inlookup.Resolver{s.resolver(), s.client()} {
		all(t, r, "wide", map[string]string{
			"1 " + email: "active", "2 " + email + " 192.0.2.60": "true",
			"3 " + email: email + " wide 0", "4 " + email: domain + ":127.0.0.1:25",
			"5 " + email: "[" + line[:512] + "]",
			"6 " + email: "64 of type 2", "6 " + domain: "255 of type 1", "7 " + alias: domain,
			"1 " + local + "@" + alias: "active", "1 x" + email[1:]: "absent",
		})
	}
	all(t, installationSite(t, db).resolver(), "a wide name in a cluster", map[string]string{
		"4 " + local + "@dist.example.net": "dist.example.net:192.0.2.26:2526",
	})
}

// A column of numbers that holds text is the error of the one user whose row has it.
func testTextForNumber(t *testing.T, db *mariadb.DB) {
	execute(t, db, `ALTER TABLE indimail MODIFY pw_uid VARCHAR(20), MODIFY pw_gid VARCHAR(20);
		INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos) VALUES
		('odduid','example.com','x','abc','1',''), ('oddgid','example.com','x','1','abc','')`)
	s := installationSite(t, db)
	odd := map[string]string{
		"3 odduid@example.com": "unavailable",
		"3 oddgid@example.com": "unavailable",
		"1 oddgid@example.com": "unavailable",
	}
	together(t, s.resolver(), "text for a number", but(everyType, odd))
	s.serve()
	q := inlookup.Query{Type: inlookup.TypePasswd, Email: "odduid@example.com"}
	if got, err := s.ask("infifo", q); !got.Equal(inlookup.NewAnswer(0)) || err != nil {
		t.Errorf("text for pw_uid, over FIFOs: %q, want code 0", got)
	}
	all(t, s.client(), "text for a number, over FIFOs", everyType)
}

func testTextForLimit(t *testing.T, db *mariadb.DB) {
	execute(t, db, `ALTER TABLE vlimits
			MODIFY maxaliases VARCHAR(20), MODIFY disable_pop VARCHAR(20);
		UPDATE vlimits SET maxaliases='abc' WHERE domain='over@example.com';
		UPDATE vlimits SET disable_pop='abc' WHERE domain='dist.example.net'`)
	s := installationSite(t, db)
	together(t, s.resolver(), "text for a limit", but(everyType, map[string]string{
		"6 over@example.com": "unavailable",
		"6 dist.example.net": "unavailable",
	}))
	s.env["DOMAIN_LIMITS"] = "1"
	together(t, s.resolver(), "text for a flag, DOMAIN_LIMITS", map[string]string{
		"3 duser@dist.example.net": "unavailable",
		"1 duser@dist.example.net": "active",
		"3 user@example.com":       "user@example.com " + userHash + " 326",
		"3 l1@local.example.net":   "l1@local.example.net $5$x$l1 0",
	})
}

// A row is found however its name is written, in any alphabet.
func testCaseBeyondASCII(t *testing.T, db *mariadb.DB) {
	execute(t, db, `INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos) VALUES
			('ÜBER','example.com','upper',1,0,''), ('größe','example.com','lower',1,0,''),
			('user','örtlich.example','domain',1,0,''), ('user','ÄRGER.example','domain',1,0,'');
		INSERT INTO indibak (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos) VALUES
			('ÉTÉ','example.com','inactive',1,0,'');
		INSERT INTO valias (alias,domain,valias_line) VALUES ('ÜBER','example.com','&u@test');
		INSERT INTO vlimits (domain,maxpopaccounts) VALUES
			('ÜBER@example.com',5), ('örtlich.example',6);
		INSERT INTO relay VALUES ('ÜBER@example.com','192.0.2.70',UNIX_TIMESTAMP())`)
	mysql := newSite(t, db).resolver()
	for _, charset := range []string{"latin1", "utf8mb3", "utf8mb4"} {
		for _, table := range []string{"indimail", "indibak", "valias", "vlimits", "relay"} {
			execute(t, db, "ALTER TABLE "+table+" CONVERT TO CHARACTER SET "+charset)
		}
		for _, name := range []string{"über", "ÜBER", "Über"} {
			all(t, mysql, charset, map[string]string{
				"1 " + name + "@example.com":            "active",
				"2 " + name + "@example.com 192.0.2.70": "true",
				"4 " + name + "@example.com":            "example.com:127.0.0.1:25",
				"5 " + name + "@example.com":            "[&u@test]",
				"6 " + name + "@example.com":            "5 of type 2",
			})
			email := name + "@example.com"
			entry, err := inlookup.Directory{Resolver: mysql}.Passwd(t.Context(), email)
			if entry.Passwd.Reveal() != "upper" || !strings.EqualFold(entry.Email, email) || err != nil {
				t.Errorf("%s: entry of %s: %+v, %v", charset, name, entry, err)
			}
		}
		all(t, mysql, charset, map[string]string{
			"1 GRÖßE@example.com": "active", "1 größe@example.com": "active",
			"1 été@example.com": "inactive", "1 ÉTÉ@example.com": "inactive",
			"1 user@ÖRTLICH.example": "active", "1 user@ärger.example": "active",
			"6 user@ÖRTLICH.example": "6 of type 1", "6 ÖRTLICH.example": "6 of type 1",
		})
	}
}

// Collations take letters with and without accents for the same; people with such names do not.
func testAccents(t *testing.T, db *mariadb.DB) {
	for _, table := range tables {
		execute(t, db, "ALTER TABLE "+table+
			" CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
	}
	execute(t, db, `INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos) VALUES
			('uber','example.com','plain',1,0,''), ('müller','example.com','accent',1,0,'');
		INSERT INTO valias (alias,domain,valias_line) VALUES ('uber','example.com','&u@test');
		INSERT INTO vlimits (domain,maxpopaccounts) VALUES ('uber@example.com',5);
		INSERT INTO relay VALUES ('muller@example.com','192.0.2.71',UNIX_TIMESTAMP())`)
	mysql := installationSite(t, db).resolver()
	questions := map[string]string{
		"1 über@example.com": "absent", "3 über@example.com": "absent",
		"4 über@example.com": "absent",
		"5 über@example.com": "[]", "6 über@example.com": "absent", "1 uber@example.com": "active",
		"1 muller@example.com": "absent", "1 müller@example.com": "active",
		"6 müller@example.com":            "100 of type 1",
		"2 müller@example.com 192.0.2.71": "false", "2 muller@example.com 192.0.2.71": "false",
		"1 düser@dist.example.net": "absent", "7 älias.example.org": "älias.example.org",
		"1 user@éxample.com": "absent", "6 uber@example.com": "5 of type 2",
	}
	all(t, mysql, "accents", questions)
	execute(t, db, `ALTER TABLE indimail DROP PRIMARY KEY; ALTER TABLE vlimits DROP PRIMARY KEY;
		INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos) VALUES
			('über','example.com','accent',1,16,''), ('muller','example.com','plain',1,16,'');
		INSERT INTO valias (alias,domain,valias_line) VALUES ('über','example.com','&other@test');
		INSERT INTO vlimits (domain,maxpopaccounts) VALUES ('über@example.com',9)`)
	all(t, mysql, "rows of both names", map[string]string{
		"1 über@example.com": "over quota", "1 uber@example.com": "active",
		"1 muller@example.com": "over quota", "1 müller@example.com": "active",
		"5 über@example.com": "[&other@test]", "5 uber@example.com": "[&u@test]",
		"6 über@example.com": "9 of type 2", "6 uber@example.com": "5 of type 2",
		"2 muller@example.com 192.0.2.71": "true", "2 müller@example.com 192.0.2.71": "false",
	})
}

// Views may have DECIMAL and DOUBLE in place of whole numbers.
func TestNumbersWithAPoint(t *testing.T) {
	t.Parallel()
	db := part(t, "points", "indimail", "indibak", "relay", "vlimits")
	if err := db.Exec(`
		ALTER TABLE points.indimail MODIFY pw_uid DECIMAL(12,2), MODIFY pw_gid DOUBLE;
		ALTER TABLE points.relay MODIFY timestamp DOUBLE;
		ALTER TABLE points.vlimits MODIFY diskquota DOUBLE, MODIFY maxpopaccounts DECIMAL(12,2);
		INSERT INTO points.indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos)
			VALUES ('point','example.com','hash',555,100000000,'');
		INSERT INTO points.relay (email,ipaddr,timestamp)
			VALUES ('point@example.com','192.0.2.1',UNIX_TIMESTAMP());
		INSERT INTO points.vlimits (domain,diskquota,maxpopaccounts)
			VALUES ('example.com',52428800000,-1)`); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, db)
	s.env["MYSQL_DATABASE"] = "points"
	d := s.lookup()
	entry, err := d.Passwd(t.Context(), "point@example.com")
	if entry.UID != 555 || entry.GID != 100000000 || err != nil {
		t.Errorf("%d, %d, %v", entry.UID, entry.GID, err)
	}
	relay, err := d.Relay(t.Context(), "point@example.com", "192.0.2.1")
	if !relay || err != nil {
		t.Errorf("relay: %v, %v", relay, err)
	}
	limits, err := d.Limits(t.Context(), "point@example.com")
	if limits.DiskQuota != 52428800000 || limits.MaxPopAccounts != -1 || err != nil {
		t.Errorf("%+v, %v", limits, err)
	}
}
