package systemtest

// A whole installation, as testdata/golden/installation has it: a cluster, alias domains, limits
// and relay. The C server answered the questions of its wire.tsv, and our answers must be the
// same bytes. This file also holds the site that the tests of databases in the field share.

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// installed returns the path of a file of the installation.
func installed(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(mariadbtest.Golden(t), "installation", name)
}

// loadInstallation makes the tables anew and fills them with the installation's rows. It undoes
// whatever a test did to tables, and stamps the relay rows with the time of now.
func loadInstallation(t testing.TB, db *mariadb.DB) {
	t.Helper()
	// DROP DATABASE leaves its session without a database, and only that session.
	const anew = "DROP DATABASE indimail; CREATE DATABASE indimail; USE indimail;"
	if err := db.Exec(anew + mariadb.Schema); err != nil {
		t.Fatal(err)
	}
	if err := db.Load(installed(t, "data.sql")); err != nil {
		t.Fatal(err)
	}
}

// installationDB returns a MariaDB of the test's own with the installation's rows.
func installationDB(t testing.TB, options ...string) *mariadb.DB {
	t.Helper()
	db := mariadbtest.ForTest(t, options...)
	loadInstallation(t, db)
	return db
}

// installationSite returns a site with the installation's control files, its assign, and the
// directories that assign names.
func installationSite(t testing.TB, db *mariadb.DB) *site {
	t.Helper()
	s := newSite(t, nil)
	s.env["CONTROLDIR"] = mariadbtest.ControlOf(t, db, installed(t, "control"))
	domains := filepath.Join(s.dir, "domains")
	for _, domain := range []string{
		"example.com", "dist.example.net", "local.example.net", "dist2.example.net",
	} {
		if err := os.MkdirAll(filepath.Join(domains, domain), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := os.Symlink(
		filepath.Join(domains, "example.com"), filepath.Join(domains, "alias2.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	assign, err := os.ReadFile(installed(t, "assign"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(assign), "@DOMAINS@", domains)
	path := filepath.Join(s.env["ASSIGNDIR"], "assign")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// A golden answer is one line of the installation's wire.tsv.
type goldenAnswer struct {
	query  inlookup.Query
	env    string // further environment of the server, NAME=value or nothing
	answer inlookup.Answer
}

func goldenAnswers(t testing.TB) (answers []goldenAnswer) {
	t.Helper()
	text, err := os.ReadFile(installed(t, "wire.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		testmain.Skip(t, "wire.tsv is little-endian")
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 5 {
			t.Fatalf("wire.tsv: %d fields: %q", len(f), line)
		}
		typ, err1 := strconv.Atoi(f[0])
		answer, err2 := hex.DecodeString(f[4])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("wire.tsv: %v: %q", err, line)
		}
		q := inlookup.Query{Type: inlookup.Type(typ), Email: f[1], IP: f[2]}
		answers = append(answers, goldenAnswer{q, f[3], inlookup.WireAnswer(string(answer))})
	}
	if len(answers) != 215 {
		t.Fatalf("wire.tsv has %d answers, want 215", len(answers))
	}
	return answers
}

// byEnvironment groups the answers: one server for each environment answers them.
func byEnvironment(answers []goldenAnswer) map[string][]goldenAnswer {
	groups := make(map[string][]goldenAnswer)
	for _, a := range answers {
		groups[a.env] = append(groups[a.env], a)
	}
	return groups
}

// set puts "NAME=value" into the site's environment.
func (s *site) set(env string) {
	if name, value, ok := strings.Cut(env, "="); ok {
		s.env[name] = value
	}
}

// wire asks over the request FIFO, and returns the bytes that come, however slow the machine is.
func (s *site) wire(q inlookup.Query) inlookup.Answer {
	s.t.Helper()
	r := newReply(s.t, s.env["FIFOTMPDIR"])
	defer os.Remove(r.path)
	send(s.t, s.fifo("infifo"), frame(q.Type, q.Email, r.path, q.IP))
	b, err := r.read(patience)
	if err != nil {
		s.t.Fatalf("%v of %q: %v", q.Type, q.Email, err)
	}
	return inlookup.WireAnswer(string(b))
}

// isError reports whether the answer is the one that says "error" on the wire.
func isError(q inlookup.Query, a inlookup.Answer) bool {
	return a.Code() < 0 || q.Type == inlookup.TypePasswd && a.Code() == 0
}

// Tests of the installation that share a MariaDB. The tables are made anew for each.
func TestInstallation(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	for _, test := range []struct {
		name string
		test func(*testing.T, *mariadb.DB)
	}{
		{"answers", testAnswers},
		{"session", testFieldSession},
		{"tables", testFieldTables},
	} {
		t.Run(test.name, func(t *testing.T) {
			loadInstallation(t, db)
			test.test(t, db)
		})
	}
}

func testAnswers(t *testing.T, db *mariadb.DB) {
	for env, answers := range byEnvironment(goldenAnswers(t)) {
		s := installationSite(t, db)
		s.set(env)
		name := cmp.Or(env, "plain")
		t.Run("over FIFOs, "+name, func(t *testing.T) { testWire(t, s, answers) })
		t.Run("directly, "+name, func(t *testing.T) { testDirect(t, s, answers) })
	}
}

// testWire asks each question twice: the second answer may come from memory.
func testWire(t *testing.T, s *site, answers []goldenAnswer) {
	s.serve()
	for _, when := range []string{"the first time", "from memory"} {
		for _, a := range answers {
			if got := s.wire(a.query); !got.Equal(a.answer) {
				t.Errorf("%s: %v of %q %s:\n got %q\nwant %q",
					when, a.query.Type, a.query.Email, a.query.IP, got, a.answer)
			}
		}
	}
}

func testDirect(t *testing.T, s *site, answers []goldenAnswer) {
	mysql := s.resolver()
	for _, a := range answers {
		got, err := mysql.Resolve(t.Context(), a.query)
		if isError(a.query, a.answer) {
			if !errors.Is(err, inlookup.ErrUnavailable) {
				t.Errorf("%v of %q: %q, %v, want an error that is ErrUnavailable",
					a.query.Type, a.query.Email, got, err)
			}
			continue
		}
		if !got.Equal(a.answer) || err != nil {
			t.Errorf("%v of %q %s:\n got %q, %v\nwant %q",
				a.query.Type, a.query.Email, a.query.IP, got, err, a.answer)
		}
	}
}
