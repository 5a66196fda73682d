package systemtest

// What the C programs answered at two recorded installations, asked of ours: over
// the wire, of MySQL directly, and by inquerytest. testdata/golden has both.

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// A row is one line of wire.tsv.
type row struct {
	query   inlookup.Query
	request []byte // as a C client wrote it, with its own reply path
	answer  inlookup.Answer
}

func goldenRows(t testing.TB) (rows []row) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(mariadbtest.Golden(t), "wire.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		testmain.Skip(t, "wire.tsv is little-endian")
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if f[0][0] == '#' {
			continue
		}
		typ, err1 := strconv.Atoi(f[0])
		request, err2 := hex.DecodeString(f[3])
		answer, err3 := hex.DecodeString(f[4])
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatalf("wire.tsv: %q", line)
		}
		rows = append(rows, row{inlookup.Query{Type: inlookup.Type(typ), Email: f[1], IP: f[2]}, request, inlookup.WireAnswer(string(answer))})
	}
	if len(rows) < 40 {
		t.Fatalf("wire.tsv has %d rows", len(rows))
	}
	return rows
}

// to returns the request with another reply path in it.
func (r row) to(path string) []byte {
	email, rest, _ := strings.Cut(string(r.request[6:]), "\x00")
	_, ip, _ := strings.Cut(rest, "\x00")
	b := append(append([]byte{}, r.request[:6]...), email+"\x00"+path+"\x00"+ip...)
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func TestGoldenWire(t *testing.T) {
	s := goldenSite(t, database(t))
	s.serve()
	rows := goldenRows(t)
	cacheable := 0
	for _, r := range rows {
		if r.query.Type != inlookup.TypeRelay {
			cacheable++
		}
	}
	for round, hits := range []int{0, cacheable} {
		before := s.counts()
		for _, r := range rows {
			reply := newReply(t, s.env["FIFOTMPDIR"])
			send(t, s.fifo("infifo"), r.to(reply.path))
			if got, err := reply.read(4 * time.Second); string(got) != r.answer.Wire() || err != nil {
				t.Errorf("round %d, %v of %s: %x, %v, want %x", round, r.query.Type, r.query.Email, got, err, r.answer)
			}
			if !exists(reply.path) {
				t.Errorf("%v of %s: the reply FIFO is gone", r.query.Type, r.query.Email)
			}
		}
		after := s.counts()
		if n := after["cache_hits_total"] - before["cache_hits_total"]; n != float64(hits) {
			t.Errorf("round %d: %v hits, want %d", round, n, hits)
		}
		if n := after["cache_misses_total"] - before["cache_misses_total"]; n != float64(cacheable-hits) {
			t.Errorf("round %d: %v misses, want %d", round, n, cacheable-hits)
		}
	}
	counts := s.counts()
	for typ, label := range map[inlookup.Type]string{1: "user", 2: "relay", 3: "passwd", 4: "host", 5: "alias", 6: "limit", 7: "domain"} {
		want := 0
		for _, r := range rows {
			if r.query.Type == typ {
				want += 2
			}
		}
		if got := counts[`queries_total{type="`+label+`"}`]; got != float64(want) {
			t.Errorf("%v %s queries counted, %d were asked", got, label, want)
		}
	}
}

// The same questions to MySQL, within the program: the same bytes, and what they mean.
func TestGoldenDirect(t *testing.T) {
	s := goldenSite(t, database(t))
	mysql := s.resolver()
	for _, r := range goldenRows(t) {
		if a, err := mysql.Resolve(t.Context(), r.query); !a.Equal(r.answer) || err != nil {
			t.Errorf("%v of %s: %x, %v, want %x", r.query.Type, r.query.Email, a, err, r.answer)
		}
		got, err := decode(t, inlookup.Directory{Resolver: mysql}, r.query)
		want, err2 := decode(t, inlookup.Directory{Resolver: answering{r.query: r.answer}}, r.query)
		if !reflect.DeepEqual(got, want) || err != err2 {
			t.Errorf("%v of %s: %+v, %v, want %+v, %v", r.query.Type, r.query.Email, got, err, want, err2)
		}
	}
	// What the comparison with decoded bytes cannot tell: that both are decoded right.
	d := inlookup.Directory{Resolver: mysql}
	entry, err := d.Passwd(t.Context(), "inactive@example.com")
	if want := (inlookup.Passwd{Email: "inactive@example.com", Passwd: inlookup.NewSecret("$5$abcdefgh$InactiveHash"), UID: 1, Gecos: "Inactive User",
		Dir: "/home/mail/G2K/example.com/inactive", Shell: "5000000S", Inactive: true}); !reflect.DeepEqual(entry, want) || err != nil {
		t.Errorf("%+v, %v, want %+v", entry, err, want)
	}
	if _, err := d.Passwd(t.Context(), "missing@example.com"); err != inlookup.ErrNotFound {
		t.Errorf("missing: %v, want %v", err, inlookup.ErrNotFound)
	}
	limits, err := d.Limits(t.Context(), "over@example.com")
	if limits.PasswdExpiry != 1900000000 || limits.DefaultMaxMsgCount != 900 || limits.PermDefaultQuota != 1 || limits.LimitType != 2 || err != nil {
		t.Errorf("%+v, %v", limits, err)
	}
}

// A command is one of the transcript.
type command struct {
	args   []string
	stdout string
	status int
}

func goldenCommands(t *testing.T) (commands []command) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(mariadbtest.Golden(t), "inquerytest.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split("\n"+string(text), "\n$ inquerytest ")[1:] {
		line, rest, _ := strings.Cut(part, "\n")
		rest = "\n" + strings.TrimRight(rest, "\n")
		end := strings.LastIndex(rest, "\nexit ")
		status, err := strconv.Atoi(rest[end+len("\nexit "):])
		if err != nil {
			t.Fatalf("inquerytest.txt: %q", part)
		}
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.Trim(args[i], `"`)
		}
		commands = append(commands, command{args, rest[1 : end+1], status})
	}
	if len(commands) < 60 {
		t.Fatalf("inquerytest.txt has %d commands", len(commands))
	}
	return commands
}

func TestGoldenInquerytest(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	s.serve()
	s.env["QUERY_CACHE"] = "1"
	for round := range 2 {
		for _, c := range goldenCommands(t) {
			if status, stdout, stderr := s.run("inquerytest", c.args...); stdout != c.stdout || status != c.status {
				t.Errorf("round %d, %q: exit %d, want %d\n%s\nwant\n%s\nstderr: %s", round, c.args, status, c.status, stdout, c.stdout, stderr)
			}
		}
	}
}

// The same without a server: no QUERY_CACHE and no -i.
func TestGoldenInquerytestDirect(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	asked := 0
	for i, c := range goldenCommands(t) {
		if i%5 != 0 {
			continue
		}
		args := strings.Split(strings.Replace(strings.Join(c.args, "\n"), "-i\n\n", "", 1), "\n")
		if status, stdout, stderr := s.run("inquerytest", args...); stdout != c.stdout || status != c.status {
			t.Errorf("%q: exit %d, want %d\n%s\nwant\n%s\nstderr: %s", args, status, c.status, stdout, c.stdout, stderr)
		}
		asked++
	}
	if asked < 10 || exists(s.env["INFIFODIR"]) {
		t.Errorf("%d commands; a directory for request FIFOs: %v", asked, exists(s.env["INFIFODIR"]))
	}
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
