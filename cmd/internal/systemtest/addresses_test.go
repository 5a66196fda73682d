package systemtest

// Addresses as they come over the request FIFO, from nobody in particular. Each is
// data, and names one user or nobody, in any character set of the tables.

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/inlookup/inlookup"
)

const exactDomain = "exact.example"

// exactNames are local parts that SQL, LIKE or a collation could take for something else.
var exactNames = []string{
	`o'neil`, `back\slash`, `per%cent`, `under_score`, `quo"te`, `jürgen`, `renée`, `strasse`,
	`semi;colon`, `star*`, `a@b`, strings.Repeat("ü", 40),
}

// likeOthers are addresses of nobody, each of which is like another one that there is.
var likeOthers = []string{
	`x" or "1"="1@example.com`, `x' or '1'='1@example.com`, `user' -- @example.com`,
	`user'#@example.com`, `\@example.com`, `\'@example.com`,
	`x' UNION SELECT 0,'x','example.com',0,'y@example.com`, `user@example.com' or '1'='1`,
	`user@example.com"`, `%@example.com`, `us%r@example.com`, `us_r@example.com`,
	`____@example.com`, `user@%`, `user@example_com`, `o''neil@exact.example`,
	`backslash@exact.example`, `back\\slash@exact.example`, `perXXcent@exact.example`,
	`under-score@exact.example`, `jurgen@exact.example`, `JURGEN@exact.example`,
	`jyrgen@exact.example`, `renee@exact.example`, `cafe@exact.example`,
	"ju\u0308rgen@exact.example", "stra\u00dfe@exact.example", "\uff55ser@example.com",
	"u\u200bser@example.com", `üser@example.com`, `user@exämple.com`, `bee@dist.example.net`,
	`duser@dïst.example.net`, `duser @dist.example.net`, `dúser@dist.example.net`,
	`user @example.com`, ` user@example.com`, `user@example.com `, `user@ example.com`,
	"user\u00a0@example.com", strings.Repeat("u", 40) + "@exact.example", `*@dist.example.net`,
}

// exactSite returns the questions to a server without a cache, with the rows of this test.
func exactSite(t *testing.T) inlookup.Directory {
	t.Helper()
	db := database(t)
	for _, name := range exactNames {
		addUser(t, db, name, exactDomain, "hash of "+name)
	}
	addUser(t, db, "bee", "dist.example.net", "hash") // only of bée is it known where
	mustExec(t, db, `
		INSERT INTO valias (alias,domain,valias_line) VALUES ('café','exact.example','&user@example.com');
		INSERT INTO vlimits (domain) VALUES ('exáct.example');
		INSERT INTO aliasdomain VALUES ('álias.example','example.com',NOW());
		INSERT INTO hostcntrl (pw_name,pw_domain,pw_passwd,host)
			VALUES ('bée','dist.example.net','','mda2.example.net');
		INSERT INTO relay VALUES ('renée@exact.example','192.0.2.10',UNIX_TIMESTAMP())`, `
		DELETE FROM valias WHERE domain='exact.example';
		DELETE FROM vlimits WHERE domain='exáct.example';
		DELETE FROM aliasdomain WHERE alias='álias.example';
		DELETE FROM hostcntrl WHERE pw_name='bée';
		DELETE FROM relay WHERE ipaddr='192.0.2.10' AND email LIKE 'ren%'`)
	s := goldenSite(t, db)
	s.env["USE_BTREE"] = "0"
	s.serve()
	return s.directory()
}

// nobodyThere expects that an address is absent for every question about a user.
func nobodyThere(t *testing.T, d inlookup.Directory, email string) {
	t.Helper()
	ctx := t.Context()
	if status, err := d.Status(ctx, email); status != inlookup.StatusAbsent || err != nil {
		t.Errorf("%.50q: %v, %v", email, status, err)
	}
	if entry, err := d.Passwd(ctx, email); err != inlookup.ErrNotFound {
		t.Errorf("%.50q: %+v, %v", email, entry, err)
	}
	if lines, err := d.Alias(ctx, email); lines != nil || err != nil {
		t.Errorf("%.50q: alias %q, %v", email, lines, err)
	}
	if route, err := d.Host(ctx, email); err != inlookup.ErrNotFound {
		t.Errorf("%.50q: route %q, %v", email, route, err)
	}
	if yes, err := d.Relay(ctx, email, "192.0.2.10"); yes || err != nil {
		t.Errorf("%.50q: may relay, %v", email, err)
	}
}

// The address is data, and names one user: that one or none. Case does not matter, in letters
// beyond ASCII neither.
func TestLikeAddressesAreNobodys(t *testing.T) {
	d := exactSite(t)
	for _, name := range exactNames {
		for _, spelling := range []string{name, strings.ToUpper(name)} {
			entry, err := d.Passwd(t.Context(), spelling+"@"+exactDomain)
			if entry.Passwd.Reveal() != "hash of "+name || entry.Email != name+"@"+exactDomain || err != nil {
				t.Errorf("%s: %+v, %v", spelling, entry, err)
			}
			status, err := d.Status(t.Context(), spelling+"@"+exactDomain)
			if status != inlookup.StatusActive || err != nil {
				t.Errorf("%s: %v, %v", spelling, status, err)
			}
		}
	}
	for _, email := range likeOthers {
		nobodyThere(t, d, email)
	}
}

// So do an alias, a domain and an IP address.
func TestLikeDomainsAreNone(t *testing.T) {
	d, ctx := exactSite(t), t.Context()
	for _, email := range []string{"café@exact.example", "CAFÉ@exact.example"} {
		if lines, err := d.Alias(ctx, email); len(lines) != 1 || err != nil {
			t.Errorf("alias lines of %s: %q, %v", email, lines, err)
		}
	}
	if _, err := d.Limits(ctx, "exact.example"); err != inlookup.ErrNotFound {
		t.Errorf("limits of another domain: %v", err)
	}
	if _, err := d.Limits(ctx, "exáct.example"); err != nil {
		t.Errorf("limits of the domain: %v", err)
	}
	for alias, want := range map[string]string{
		"alias.example": "alias.example", "álias.example": "example.com", "ÁLIAS.example": "example.com",
	} {
		if real, err := d.Domain(ctx, alias); real != want || err != nil {
			t.Errorf("the real domain of %s: %s, %v", alias, real, err)
		}
	}
	for ip, want := range map[string]bool{
		"192.0.2.10": true, "192.0.2.10 ": false, "192.0.2.1": false, "%": false, "' or '1'='1": false,
	} {
		if yes, err := d.Relay(ctx, "renée@exact.example", ip); yes != want || err != nil {
			t.Errorf("relay from %q: %v, %v", ip, yes, err)
		}
	}
}

// An address that MySQL refuses to compare harms no other question asked at the same time.
func TestStrangeNeighbour(t *testing.T) {
	db := database(t)
	s := goldenSite(t, db)
	d := inlookup.Directory{Resolver: patient{s.resolver()}}
	var askers sync.WaitGroup
	for i := range 64 {
		askers.Go(func() {
			for range 20 {
				email, want := "user@example.com", inlookup.StatusActive
				if i == 0 {
					email, want = "u\u0308\u4e16@example.com", inlookup.StatusAbsent
				}
				if status, err := d.Status(t.Context(), email); status != want || err != nil {
					t.Errorf("%s: %v, %v", email, status, err)
					return
				}
			}
		})
	}
	askers.Wait()
}

// manyRows returns rows of 60 users in five domains, active, inactive, aliases and nobody, and
// what the questions about them are answered with.
func manyRows() (rows string, want map[string]string) {
	const user = "INSERT INTO many_%s (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)" +
		" VALUES ('name%d','many%d.example','of %s',1,0,'','','');"
	const alias = "INSERT INTO valias (alias,domain,valias_line)" +
		" VALUES ('name%d','many%d.example','&a'),('name%[1]d','many%[2]d.example','&b');"
	want = make(map[string]string)
	for domain := range 5 {
		for name := range 12 {
			email := fmt.Sprintf("name%d@many%d.example", name, domain)
			status, entry := "absent", "absent"
			switch (name + domain) % 4 {
			case 0:
				rows += fmt.Sprintf(user, "active", name, domain, email)
				status, entry = "active", email+" of "+email+" 0"
			case 1:
				rows += fmt.Sprintf(user, "inactive", name, domain, email)
				status, entry = "inactive", email+" of "+email+" 0"
			case 2:
				rows += fmt.Sprintf(alias, name, domain)
				status = "alias"
			}
			want["1 "+email], want["3 "+email] = status, entry
		}
	}
	return rows, want
}

// Of many questions at once each gets its own answer, whatever the tables' character set.
func TestEachGetsItsOwnAnswer(t *testing.T) {
	db := database(t)
	rows, want := manyRows()
	for _, charset := range []string{"latin1", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32"} {
		tables := ""
		for _, table := range []string{"many_active", "many_inactive"} {
			tables += fmt.Sprintf("CREATE TABLE %s LIKE indimail; ALTER TABLE %[1]s CONVERT TO CHARACTER SET %s;", table, charset)
		}
		const undo = "DROP TABLE IF EXISTS many_active, many_inactive;" +
			" DELETE FROM valias WHERE domain LIKE 'many_.example'"
		mustExec(t, db, undo, undo)
		mustExec(t, db, tables+rows, "")
		s := newSite(t, db)
		s.env["MYSQL_TABLE"], s.env["MYSQL_INACTIVE_TABLE"] = "many_active", "many_inactive"
		mysql := patient{s.resolver()}
		var clients sync.WaitGroup
		for question, answer := range want {
			clients.Go(func() {
				if got := show(t, mysql, question); got != answer {
					t.Errorf("%s: %s: %s, want %s", charset, question, got, answer)
				}
			})
		}
		clients.Wait()
	}
}

// What cannot be in the tables is not looked for: control characters, what is not UTF-8, no domain
// or no local part.
func TestImpossibleAddressIsNotLookedFor(t *testing.T) {
	db := database(t)
	s := goldenSite(t, db)
	s.serve().startLines() // after which it asks no more of itself
	d, ctx := s.directory(), t.Context()
	count := newCounter(t, db)
	before := count.selects()
	if _, err := d.Status(ctx, "possible@example.com"); err != nil || count.selects() == before {
		t.Fatalf("no SELECT for a possible address: this test counts nothing (%v)", err)
	}
	asked := count.questions()
	for _, email := range []string{
		"us\ner@example.com", "user\r@example.com", "\x01@example.com", "user\x7f@example.com",
		"user@exam\tple.com", "user@example.com\n", "us\u0085er@example.com",
		"\xff\xfe@example.com", "user@\xc3\x28", "user@", "@example.com", "@", "%", ":",
	} {
		nobodyThere(t, d, email)
	}
	for _, domain := range []string{"", "exam\nple.com", "\xff"} {
		if real, err := d.Domain(ctx, domain); real != domain || err != nil {
			t.Errorf("the real domain of %q: %q, %v", domain, real, err)
		}
		if _, err := d.Limits(ctx, domain); err != inlookup.ErrNotFound {
			t.Errorf("limits of %q: %v", domain, err)
		}
	}
	if n := asked(); n != 0 {
		t.Errorf("MariaDB was asked %d times", n)
	}
}

// Columns are of any width, so an address of any length is looked for.
func TestLongAddressIsLookedFor(t *testing.T) {
	db := database(t)
	s := goldenSite(t, db)
	s.serve().startLines()
	d := s.directory()
	count := newCounter(t, db)
	for _, email := range []string{
		strings.Repeat("u", 41) + "@example.com", strings.Repeat("ü", 41) + "@example.com",
		"user@" + strings.Repeat("d", 64) + ".com", strings.Repeat("u", 41),
		strings.Repeat("u", 3900) + "@example.com", "user@" + strings.Repeat("d", 3900),
	} {
		before := count.selects()
		nobodyThere(t, d, email)
		if count.selects() == before {
			t.Errorf("%.50q: no SELECT", email)
		}
	}
	domain := strings.Repeat("d", 68)
	before := count.selects()
	if real, err := d.Domain(t.Context(), domain); real != domain || err != nil {
		t.Errorf("the real domain of a long one: %q, %v", real, err)
	}
	if _, err := d.Limits(t.Context(), domain); err != inlookup.ErrNotFound {
		t.Errorf("limits of a long domain: %v", err)
	}
	if count.selects() == before {
		t.Error("a long domain: no SELECT")
	}
}
