package systemtest

// Preloading many users: what is kept is what a question gets, whatever their rows.

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

const (
	bulkColumns = "(pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell,scram)"
	bulkLogin   = "INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp) "
)

// bulkUsers adds users bulk1@bulk.test to bulkN@bulk.test, who logged in lately.
func bulkUsers(t testing.TB, db *mariadb.DB, n int, passwd string) {
	t.Helper()
	mustExec(t, db, fmt.Sprintf("INSERT INTO indimail "+bulkColumns+" SELECT CONCAT('bulk',seq),"+
		"'bulk.test',CONCAT('%s',seq),1,0,'A User','/home/mail/bulk','NOQUOTA',NULL"+
		" FROM seq_1_to_%d;"+bulkLogin+"SELECT CONCAT('bulk',seq),'bulk.test','imap','192.0.2.1',"+
		"0,'',NOW()-INTERVAL 60 SECOND FROM seq_1_to_%[2]d", passwd, n), "")
}

// bulkOddities adds users whose rows need care, and returns their addresses.
func bulkOddities(t testing.TB, db *mariadb.DB) (emails []string) {
	t.Helper()
	mustExec(t, db, "ALTER TABLE indimail MODIFY pw_uid VARCHAR(20)", "")
	add := func(table, name, domain, uid, gid, scram string) {
		mustExec(t, db, fmt.Sprintf("INSERT INTO %s "+bulkColumns+" VALUES"+
			" ('%s','%s','hash','%s',%s,'Odd: User','/home/mail','NOQUOTA',%s)",
			table, name, domain, uid, gid, scram), "")
		emails = append(emails, name+"@"+domain)
	}
	add("indimail", "odd", "bulk.test", "no number", "0", "NULL")
	add("indimail", "quota", "bulk.test", "1", "16", "NULL")
	add("indimail", "nogid", "bulk.test", "1", "NULL", "NULL")
	add("indimail", "scram", "bulk.test", "1", "0", "'{SCRAM-SHA-256}4096,salt,stored,server:0a0b:x'")
	add("indimail", "o''brien", "bulk.test", "1", "0", "NULL")
	add("indimail", "Capital", "Bulk.Test", "1", "0", "NULL")
	add("indimail", "limited", "limits.test", "1", "16", "NULL")
	add("indimail", "exempt", "limits.test", "1", "8192", "NULL")
	add("indibak", "inactive", "bulk.test", "1", "0", "NULL")
	add("indimail", "both", "bulk.test", "1", "0", "NULL")
	add("indibak", "both", "bulk.test", "1", "0", "NULL")
	add("indimail", "jürgen", "bulk.test", "1", "0", "NULL")
	add("indimail", "renee", "bulk.test", "1", "0", "NULL")
	emails = append(emails, "renée@bulk.test", "ghost@bulk.test", "duser@dist.example.net",
		"user@example.com", "user@alias.example.org")
	mustExec(t, db, "INSERT INTO vlimits (domain,disable_pop,disable_smtp)"+
		" VALUES ('limits.test',1,1);"+
		"INSERT INTO vlimits (domain,disable_imap) VALUES ('bulk.test',1)", "")
	for i, email := range emails {
		emails[i] = strings.ReplaceAll(email, "''", "'")
		name, domain, _ := strings.Cut(emails[i], "@")
		if _, err := db.SQL().Exec(bulkLogin+"VALUES (?,?,'imap','192.0.2.1',0,'',NOW())"+
			" ON DUPLICATE KEY UPDATE timestamp=NOW()", name, domain); err != nil {
			t.Fatal(err)
		}
	}
	return emails
}

// TestPreloadGivesWhatQuestionsGet preloads users of each kind among many, and compares
// each answer with that of a server without a cache.
func TestPreloadGivesWhatQuestionsGet(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env     string // set to 1
		missing string // table
	}{
		"plain":                           {},
		"limits of the domain in the gid": {env: "DOMAIN_LIMITS"},
		"no table of limits":              {env: "DOMAIN_LIMITS", missing: "vlimits"},
		"no table of inactive users":      {missing: "indibak"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const users = 1500
			db := mariadbtest.ForTest(t)
			bulkUsers(t, db, users, "hash")
			emails := bulkOddities(t, db)
			if test.missing != "" {
				mustExec(t, db, "DROP TABLE "+test.missing, "")
			}
			cached, plain := goldenSite(t, db), goldenSite(t, db)
			cached.env["CACHE_TTL"] = "1h"
			plain.env["USE_BTREE"] = "0"
			if test.env != "" {
				cached.env[test.env], plain.env[test.env] = "1", "1"
			}
			plain.serve()
			p := cached.serve("-c", "86400")
			eventually(t, "users are loaded", func() bool {
				return strings.Contains(p.stderr.String(), "users loaded in")
			})
			hits := cached.counts()["cache_hits_total"]
			for range 50 {
				emails = append(emails, fmt.Sprintf("bulk%d@bulk.test", 1+rand.IntN(users)))
			}
			a := &inlookup.Client{Getenv: cached.getenv, Timeout: patience}
			b := &inlookup.Client{Getenv: plain.getenv, Timeout: patience}
			for _, email := range emails {
				q := "3 " + email
				if got, want := show(t, a, q), show(t, b, q); got != want {
					t.Errorf("%s: %s from a preloaded cache, else %s", q, got, want)
				}
			}
			n := int(cached.counts()["cache_hits_total"] - hits)
			t.Logf("%d of %d were loaded before:\n%s", n, len(emails), p.stderr.String())
			if n < 50 {
				t.Errorf("%d of %d questions were answered from the cache", n, len(emails))
			}
		})
	}
}

// A flush during a preload holds: no old password is in the cache afterwards.
func TestFlushDuringPreload(t *testing.T) {
	t.Parallel()
	const users = 30000
	db := mariadbtest.ForTest(t)
	bulkUsers(t, db, users, "old")
	s := goldenSite(t, db)
	p := s.serve("-c", "86400")
	present := func() float64 { return s.counts()[`cache_entries{kind="present"}`] }
	eventually(t, "some users are loaded", func() bool { return present() > 100 })
	during := present()
	mustExec(t, db, "UPDATE indimail SET pw_passwd=REPLACE(pw_passwd,'old','new')"+
		" WHERE pw_domain='bulk.test'", "")
	s.text(inlookup.Query{Type: inlookup.TypeFlush})
	eventually(t, "users are loaded", func() bool {
		return strings.Contains(p.stderr.String(), "users loaded in")
	})
	t.Logf("%v of %d were loaded before the change; %v at the end", during, users, present())
	c := s.short(patience)
	for range 1000 {
		i := 1 + rand.IntN(users)
		q := fmt.Sprintf("3 bulk%d@bulk.test", i)
		if got, want := show(t, c, q), fmt.Sprintf("bulk%d@bulk.test new%[1]d 0", i); got != want {
			t.Fatalf("%s after a flush during the preload: %s, want %s", q, got, want)
		}
	}
}
