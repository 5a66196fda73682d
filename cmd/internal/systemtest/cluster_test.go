package systemtest

// Stores, distributed domains, alias domains and names of tables: configurations
// of a cluster and of a single server, and what they make of questions.

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// store fills the tables of a cluster, whose second database is store2.
const store = `
	INSERT INTO store2.indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES
	 ('user','plain.test','right',1,0,'','',''), ('user','local.test','second',1,0,'','',''),
	 ('bob','dist.test','right',1,0,'','',''), ('ann','dist.test','wrong',1,0,'','','');
	INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell,scram) VALUES
	 ('user','plain.test','wrong',1,0,'','','',NULL), ('user','local.test','local',NULL,NULL,'','','',NULL),
	 ('user','aliased.test','own',1,0,'','','',NULL),
	 ('ann','dist.test','right',1,0,'','','',NULL), ('bob','dist.test','wrong',1,0,'','','',NULL), ('nobody','dist.test','wrong',1,0,'','','',NULL),
	 ('any','star.test','right',1,0,'','','',NULL), ('own','star.test','wrong',1,0,'','','',NULL),
	 ('scram','local.test','$5$x',1,0,'A: B','/home/mail','',"{SCRAM-SHA-256}4096,salt,stored,server:0a0b:salted"),
	 ('plus','limit.test','x',1,8192,'','','',NULL), ('user','limit.test','x',1,16,'','','',NULL), ('own','limit.test','x',1,0,'','','',NULL);
	INSERT INTO hostcntrl (pw_name,pw_domain,pw_passwd,host) VALUES ('ann','dist.test','','a.test'), ('bob','dist.test','','b.test'),
	 ('lost','dist.test','','nowhere.test'), ('stray','dist.test','','c.test'), ('*','star.test','','a.test'), ('own','star.test','','b.test');
	INSERT INTO store2.indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('own','star.test','right',1,0,'','','');
	INSERT INTO host_table (host,ipaddr) VALUES ('a.test','192.0.2.31'), ('b.test','192.0.2.32'), ('c.test','192.0.2.99');
	INSERT INTO smtp_port (host,src_host,domain,port) VALUES ('a.test','*','dist.test',2600), ('b.test','*','dist.test',2601),
	 ('b.test','192.0.2.1','dist.test',2602), ('a.test','*','star.test',0), ('b.test','192.0.2.7','star.test',2603);
	INSERT INTO aliasdomain (alias,domain) VALUES ('alias.test','plain.test'), ('aliasdist.test','dist.test'), ('aliased.test','plain.test');
	INSERT INTO vlimits (domain,maxpopaccounts) VALUES ('dist.test',31), ('plain.test',1);
	INSERT INTO store2.vlimits (domain,maxpopaccounts) VALUES ('dist.test',32), ('plain.test',2);
	INSERT INTO store2.valias (alias,domain,valias_line) VALUES ('list','plain.test','&b@test'), ('list','plain.test','&a@test');
	INSERT INTO store2.relay VALUES ('user@plain.test','192.0.2.50',UNIX_TIMESTAMP()-90);
	CREATE TABLE users LIKE indimail; CREATE TABLE idle LIKE indimail; CREATE TABLE pop LIKE relay; CREATE TABLE spread LIKE hostcntrl;
	INSERT INTO users (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('user','local.test','renamed',1,0,'','','');
	CREATE TABLE world LIKE indimail; ALTER TABLE world CONVERT TO CHARACTER SET utf8mb4;
	INSERT INTO world (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('世','local.test','wide',1,0,'','','');
	INSERT INTO idle (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES ('idle','local.test','idle',1,0,'','','');
	INSERT INTO pop VALUES ('user@local.test','192.0.2.60',UNIX_TIMESTAMP());
	INSERT INTO spread (pw_name,pw_domain,pw_passwd,host) VALUES ('nobody','dist.test','','a.test');`

const mcdinfo = `# The mail stores of a cluster.

domain   plain.test 0
server   127.0.0.1
mdahost  192.0.2.30
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret

domain   Dist.Test 1
  # in any order, and by any white space
pass secret
user indimail
mdahost	192.0.2.31
server 127.0.0.1
port @PORT@
database indimail
use_ssl 0
server   127.0.0.1
mdahost  192.0.2.32
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret

domain star.test 1
server   127.0.0.1
mdahost  192.0.2.31
port     @PORT@
use_ssl  0
database indimail
user     indimail
pass     secret
server   127.0.0.1
mdahost  192.0.2.32
port     @PORT@
use_ssl  0
database store2
user     indimail
pass     secret
`

type (
	files = map[string]string
	env   = map[string]string
)

// A clusterTest is a configuration, and what it makes of questions.
type clusterTest struct {
	name  string
	env   env
	files files
	want  answers
}

// A cluster has the control files of a single server and of a cluster.
type cluster struct {
	server, cluster files
	port, socket    string // of the database
}

// with returns files with one more, or with another text for one.
func with(of files, name, text string) files {
	m := maps.Clone(of)
	m[name] = text
	return m
}

func without(of files, name string) files {
	m := maps.Clone(of)
	delete(m, name)
	return m
}

// newCluster starts a database with the rows of all these tests.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	db := mariadbtest.ForTest(t)
	script := "CREATE DATABASE store2; GRANT ALL ON store2.* TO indimail@'%', indimail@localhost;"
	for _, table := range []string{"indimail", "indibak", "relay", "valias", "vlimits", "lastauth"} {
		script += fmt.Sprintf("CREATE TABLE store2.%s LIKE indimail.%[1]s;", table)
	}
	// A domain with each of these flags alone.
	for _, flag := range []string{"pop", "smtp", "imap", "relay", "webmail", "passwordchanging", "dialup"} {
		script += fmt.Sprintf("INSERT INTO vlimits (domain,disable_%s) VALUES ('%[1]s.test',1);"+
			"INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)"+
			" VALUES ('user','%[1]s.test','x',1,16,'','','');", flag)
	}
	script += "INSERT INTO vlimits (domain,disable_pop,disable_smtp) VALUES ('limit.test',1,1);" +
		" INSERT INTO vlimits (domain,disable_imap) VALUES ('own@limit.test',1);"
	if err := db.Exec(script + store); err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(db.Port)
	line := "127.0.0.1:indimail:secret:" + port
	return &cluster{
		server: files{"host.mysql": line + "\n"},
		cluster: files{
			"host.mysql": line + ":nossl\n",
			"host.cntrl": line + "\n",
			"mcdinfo":    strings.ReplaceAll(mcdinfo, "@PORT@", port),
			"hostip":     "192.0.2.1\n",
		},
		port:   port,
		socket: db.Socket,
	}
}

// TestCluster asks by many configurations: environment, control files, and what they make of
// questions.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, tests := range [][]clusterTest{
		c.storeTests(), c.domainTests(), c.tableTests(), c.databaseTests(),
	} {
		for _, test := range tests {
			t.Run(test.name, test.run)
		}
	}
}

func (test clusterTest) run(t *testing.T) {
	s := newSite(t, nil)
	maps.Copy(s.env, test.env)
	for name, text := range test.files {
		s.control(name, strings.ReplaceAll(text, "@DIR@", s.dir))
	}
	if err := os.Symlink("/nowhere/domains/Plain.Test", filepath.Join(s.dir, "link")); err != nil {
		t.Fatal(err)
	}
	mysql := s.resolver()
	if err := mysql.Reload(false); err != nil {
		t.Fatal(err)
	}
	all(t, mysql, "directly", test.want)
	cache := &inlookup.Cache{Resolver: mysql, DefaultDomain: s.env["DEFAULT_DOMAIN"]}
	for _, when := range []string{"first", "from memory"} {
		all(t, cache, when, test.want)
	}
}

// A user whose host is in no table, or in no entry of mcdinfo, is an error.
func (c *cluster) storeTests() []clusterTest {
	return []clusterTest{
		{"a domain of one store", nil, c.cluster, answers{
			"3 user@plain.test":            "user@plain.test right 0",
			"1 missing@plain.test":         "absent",
			"4 user@plain.test":            "plain.test:192.0.2.30:25",
			"5 list@plain.test":            "[&a@test &b@test]",
			"1 list@plain.test":            "alias",
			"6 plain.test":                 "2 of type 1",
			"6 user@plain.test":            "2 of type 1",
			"2 user@plain.test 192.0.2.50": "true",
			"2 user@plain.test 192.0.2.5":  "false",
			"2 user@plain.tes 192.0.2.50":  "false",
		}},
		{"a distributed domain", nil, c.cluster, answers{
			"3 ann@dist.test":    "ann@dist.test right 0",
			"3 bob@dist.test":    "bob@dist.test right 0",
			"1 nobody@dist.test": "absent",
			"1 lost@dist.test":   "unavailable",
			"3 lost@dist.test":   "unavailable",
			"5 lost@dist.test":   "[]",
			"4 ann@dist.test":    "dist.test:192.0.2.31:2600",
			"4 bob@dist.test":    "dist.test:192.0.2.32:2602",
			"6 dist.test":        "31 of type 1",
			"6 bob@dist.test":    "32 of type 1",
			"5 ann@dist.test":    "[]",
			"1 stray@dist.test":  "unavailable",
		}},
		{"its default row", nil, c.cluster, answers{
			"3 any@star.test": "any@star.test right 0",
			"3 own@star.test": "own@star.test right 0",
			"1 new@star.test": "absent",
			"4 any@star.test": "star.test:192.0.2.31:25",
			"4 own@star.test": "star.test:192.0.2.32:25",
		}},
		{"port by our address", nil, with(c.cluster, "hostip", "192.0.2.7\n"), answers{
			"4 bob@dist.test": "dist.test:192.0.2.32:2601",
			"4 own@star.test": "star.test:192.0.2.32:2603",
		}},
		{"smtproutes of a cluster", nil, with(c.cluster, "smtproutes", "alias.test:x:1\ndist.test:x:2\nplain.test:x:3\n"), answers{
			"4 user@plain.test": "plain.test:192.0.2.30:3",
			"4 ann@dist.test":   "dist.test:192.0.2.31:2600",
			"4 user@alias.test": "alias.test:192.0.2.30:3",
		}},
		{"a domain that mcdinfo does not name", nil, c.cluster, answers{
			"3 user@local.test": "user@local.test local 0",
			"4 user@local.test": "local.test:192.0.2.1:25",
		}},
	}
}

func (c *cluster) domainTests() []clusterTest {
	return []clusterTest{
		{"alias domains", nil, c.cluster, answers{
			"7 alias.test":                 "plain.test",
			"7 ALIAS.Test":                 "plain.test",
			"7 plain.test":                 "plain.test",
			"7 nothing.test":               "nothing.test",
			"3 user@alias.test":            "user@alias.test right 0",
			"3 USER@Alias.TEST":            "user@alias.test right 0",
			"1 user@alias.test":            "active",
			"1 missing@alias.test":         "absent",
			"5 list@alias.test":            "[&a@test &b@test]",
			"6 alias.test":                 "2 of type 1",
			"2 user@alias.test 192.0.2.50": "true",
			"3 bob@aliasdist.test":         "bob@aliasdist.test right 0",
			"7 aliasdist.test":             "dist.test",
		}},
		{"other separators", env{"DEFAULT_DOMAIN": "Plain.Test"}, c.cluster, answers{
			"3 user%plain.test": "user@plain.test right 0",
			"3 user:plain.test": "user@plain.test right 0",
			"3 user":            "user@plain.test right 0",
			"1 user":            "active",
			"5 list":            "[&a@test &b@test]",
			"1 missing":         "absent",
			"3 missing":         "absent",
		}},
		{"no default domain", env{"DEFAULT_DOMAIN": ""}, c.cluster, answers{
			"1 user": "absent",
			"3 user": "absent",
		}},
		{"REAL_DOMAINS", env{"REAL_DOMAINS": "a.test:Alias.test:b.test"}, c.cluster, answers{
			"7 alias.test":      "alias.test",
			"1 user@alias.test": "absent",
			"7 aliasdist.test":  "dist.test",
		}},
		{"no host.cntrl", nil, without(c.cluster, "host.cntrl"), answers{
			"7 alias.test":      "alias.test",
			"1 user@alias.test": "absent",
			"3 bob@dist.test":   "bob@dist.test right 0",
		}},
		{"assign", nil, with(c.cluster, "../users/assign", "+linked.test-:linked.test:1:1:@DIR@/link:-::\n+aliased.test-:aliased.test:1:1:@DIR@:-::\n"+
			"+gone.test-:gone.test:1:1:@DIR@/gone:-::\n.\n"), answers{
			"7 linked.test":       "plain.test",
			"3 user@linked.test":  "user@linked.test right 0",
			"7 aliased.test":      "aliased.test",
			"3 user@aliased.test": "user@aliased.test own 0",
			"7 gone.test":         "gone.test",
			"7 alias.test":        "plain.test",
		}},
	}
}

// The gid goes by the domain's limits alone, never by the user's own.
func (c *cluster) tableTests() []clusterTest {
	return []clusterTest{
		{"CNTRL_TABLE", env{"CNTRL_TABLE": "spread"}, c.cluster, answers{
			"3 nobody@dist.test": "nobody@dist.test wrong 0",
			"1 ann@dist.test":    "absent",
		}},
		{"tables with other names", env{"MYSQL_TABLE": "users", "MYSQL_INACTIVE_TABLE": "idle", "RELAY_TABLE": "pop"}, c.server, answers{
			"3 user@local.test":            "user@local.test renamed 0",
			"1 idle@local.test":            "inactive",
			"1 scram@local.test":           "absent",
			"2 user@local.test 192.0.2.60": "true",
			"2 user@plain.test 192.0.2.50": "false",
		}},
		{"tables of several character sets", env{"MYSQL_TABLE": "world"}, c.server, answers{
			"1 世@local.test": "active",
			"3 世@local.test": "世@local.test wide 0",
			"1 界@local.test": "absent",
		}},
		{"a table whose name needs quotes", env{"MYSQL_TABLE": "a`b"}, c.server, answers{
			"1 user@local.test": "unavailable",
		}},
		{"RELAY_CLEAR_MINUTES", env{"RELAY_CLEAR_MINUTES": "1"}, c.cluster, answers{
			"2 user@plain.test 192.0.2.50": "false",
		}},
		{"SCRAM", nil, c.server, answers{
			"3 scram@local.test": "scram@local.test {SCRAM-SHA-256}4096,salt,stored,server:0a0b:salted,$5$x 0",
		}},
		{"no limits in gid", nil, c.server, answers{
			"3 user@limit.test": "user@limit.test x 16",
			"3 plus@limit.test": "plus@limit.test x 8192",
		}},
		{"DOMAIN_LIMITS", env{"DOMAIN_LIMITS": "1"}, c.server, answers{
			"3 user@limit.test":            "user@limit.test x 274",
			"3 plus@limit.test":            "plus@limit.test x 8192",
			"3 own@limit.test":             "own@limit.test x 258",
			"1 user@limit.test":            "over quota",
			"3 user@local.test":            "user@local.test local 0",
			"3 user@pop.test":              "user@pop.test x 18",
			"3 user@smtp.test":             "user@smtp.test x 272",
			"3 user@imap.test":             "user@imap.test x 24",
			"3 user@relay.test":            "user@relay.test x 48",
			"3 user@webmail.test":          "user@webmail.test x 20",
			"3 user@passwordchanging.test": "user@passwordchanging.test x 17",
			"3 user@dialup.test":           "user@dialup.test x 80",
		}},
	}
}

func (c *cluster) databaseTests() []clusterTest {
	return []clusterTest{
		{"no control files, a socket", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret"}, nil, answers{
			"3 user@local.test": "user@local.test local 0",
			"7 alias.test":      "alias.test",
			"4 user@local.test": "local.test:127.0.0.1:25",
			"6 plain.test":      "1 of type 1",
		}},
		{"another database", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret", "MYSQL_DATABASE": "store2"}, nil, answers{
			"3 user@local.test": "user@local.test second 0",
		}},
		{"CNTRL_ by environment", env{"CNTRL_DATABASE": "nothing"}, c.cluster, answers{
			"7 alias.test":    "unavailable",
			"1 ann@dist.test": "unavailable",
		}},
		{"no central database", env{"CNTRL_DATABASE": "nothing", "REAL_DOMAINS": "dist.test:plain.test"}, c.cluster, answers{
			"1 ann@dist.test":   "unavailable",
			"4 ann@dist.test":   "unavailable",
			"1 user@plain.test": "active",
		}},
		{"one store away", nil, with(c.cluster, "mcdinfo", strings.Replace(c.cluster["mcdinfo"], c.port, "1", 1)), answers{
			"1 user@plain.test": "unavailable",
			"5 list@plain.test": "unavailable",
			"6 plain.test":      "unavailable",
			"3 bob@dist.test":   "bob@dist.test right 0",
		}},
		{"no such database", env{"MYSQL_SOCKET": c.socket, "MYSQL_PASSWD": "secret", "MYSQL_DATABASE": "nothing"}, nil, answers{
			"1 user@local.test": "unavailable",
		}},
	}
}
