package systemtest

// What the C programs answered at two recorded installations, asked of ours: over
// the wire, of MySQL directly, and by inquerytest. testdata/golden has both.

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// A row is one line of a wire.tsv.
type row struct {
	query   inlookup.Query
	request []byte // as a C client wrote it, with its own reply path
	env     string // of the installation's: further environment, NAME=value or nothing
	answer  inlookup.Answer
}

// wireRows returns so many rows of a wire.tsv. Its fourth field is theirs to
// understand.
func wireRows(t testing.TB, path string, want int, fourth func(r *row, field string) error) (rows []row) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		testmain.Skip(t, path+" is little-endian")
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) != 5 {
			continue
		}
		typ, err1 := strconv.Atoi(f[0])
		answer, err2 := hex.DecodeString(f[4])
		r := row{query: inlookup.Query{Type: inlookup.Type(typ), Email: f[1], IP: f[2]},
			answer: inlookup.WireAnswer(string(answer))}
		if err := errors.Join(err1, err2, fourth(&r, f[3])); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		rows = append(rows, r)
	}
	if len(rows) != want {
		t.Fatalf("%s has %d rows, want %d", path, len(rows), want)
	}
	return rows
}

func goldenRows(t testing.TB) []row {
	t.Helper()
	path := filepath.Join(mariadbtest.Golden(t), "wire.tsv")
	return wireRows(t, path, 46, func(r *row, field string) (err error) {
		r.request, err = hex.DecodeString(field)
		return err
	})
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
	s.env["CACHE_NEGATIVE_TTL"] = "1h" // longer than a slow machine takes
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
			if got, err := reply.read(patience); string(got) != r.answer.Wire() || err != nil {
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

// Each question is asked over FIFOs twice, the second time from memory, and of
// MySQL directly. A server for each environment answers.
func testAnswers(t *testing.T, db *mariadb.DB) {
	rows := make(map[string][]row)
	for _, r := range wireRows(t, installed(t, "wire.tsv"), 215, func(r *row, field string) error {
		r.env = field
		return nil
	}) {
		rows[r.env] = append(rows[r.env], r)
	}
	for env, rows := range rows {
		s := installationSite(t, db)
		if name, value, ok := strings.Cut(env, "="); ok {
			s.env[name] = value
		}
		t.Run(cmp.Or(env, "plain"), func(t *testing.T) {
			s.serve()
			mysql := s.resolver()
			for _, r := range rows {
				what := fmt.Sprintf("%v of %q %s", r.query.Type, r.query.Email, r.query.IP)
				for _, when := range []string{"the first time", "from memory"} {
					if got, err := s.ask("infifo", r.query); !got.Equal(r.answer) || err != nil {
						t.Errorf("%s, %s:\n got %q, %v\nwant %q", what, when, got, err, r.answer)
					}
				}
				got, err := mysql.Resolve(t.Context(), r.query)
				code := r.answer.Code() // as the wire says "error"
				if code < 0 || r.query.Type == inlookup.TypePasswd && code == 0 {
					if !errors.Is(err, inlookup.ErrUnavailable) {
						t.Errorf("%s, directly: %q, %v, want ErrUnavailable", what, got, err)
					}
				} else if !got.Equal(r.answer) || err != nil {
					t.Errorf("%s, directly:\n got %q, %v\nwant %q", what, got, err, r.answer)
				}
			}
		})
	}
}

// answering is a Resolver that knows some answers by heart.
type answering map[inlookup.Query]inlookup.Answer

func (a answering) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if answer, ok := a[q]; ok {
		return answer, nil
	}
	return inlookup.Answer{}, inlookup.ErrUnavailable
}
