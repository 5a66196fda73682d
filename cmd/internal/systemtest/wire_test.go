package systemtest

// What comes over the request FIFO: from nobody in particular. TestServerTrustsNoRequest is one suite for every Resolver.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// answering is a Resolver that knows some answers by heart.
type answering map[inlookup.Query]inlookup.Answer

func (a answering) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if answer, ok := a[q]; ok {
		return answer, nil
	}
	return inlookup.Answer{}, inlookup.ErrUnavailable
}

// A served is a Server within this program, which knows the golden rows.
type served struct {
	*site
	*inlookup.Server
	rows []row
}

func serveHere(t *testing.T, r inlookup.Resolver, env ...string) *served {
	t.Helper()
	s := &served{newSite(t, nil), nil, goldenRows(t)}
	for i := 0; i < len(env); i += 2 {
		s.env[env[i]] = env[i+1]
	}
	s.Server = &inlookup.Server{Resolver: r, Getenv: s.getenv}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) queries() (n uint64) {
	for _, k := range s.Stats().Queries {
		n += k
	}
	return n
}

// good asks one question that must be answered: then all that was asked before it has been read.
func (s *served) good(t *testing.T) {
	t.Helper()
	if a, err := s.ask("infifo", s.rows[0].query); !a.Equal(s.rows[0].answer) || err != nil {
		t.Errorf("a request after it: %x, %v", a, err)
	}
}

func TestServerTrustsNoRequest(t *testing.T) {
	golden := func(t *testing.T) inlookup.Resolver {
		mysql := &inlookup.MySQL{Getenv: goldenSite(t, database(t)).getenv}
		t.Cleanup(func() { mysql.Close() })
		return mysql
	}
	for _, kind := range []struct {
		name string
		make func(t *testing.T) inlookup.Resolver
	}{
		{"fake", func(t *testing.T) inlookup.Resolver {
			known := make(answering)
			for _, r := range goldenRows(t) {
				known[r.query] = r.answer
			}
			return known
		}},
		{"MySQL", golden},
		{"cache", func(t *testing.T) inlookup.Resolver {
			return &inlookup.Cache{Resolver: golden(t), DefaultDomain: "example.com"}
		}},
	} {
		t.Run(kind.name, func(t *testing.T) {
			r := kind.make(t)
			t.Run("garbage", func(t *testing.T) { testGarbage(t, serveHere(t, r)) })
			t.Run("types", func(t *testing.T) { testTypes(t, serveHere(t, r)) })
			t.Run("replies", func(t *testing.T) { testReplies(t, serveHere(t, r)) })
			t.Run("full", func(t *testing.T) { testFull(t, serveHere(t, r)) })
			t.Run("REPLYDIR", func(t *testing.T) { testReplyDir(t, r) })
		})
	}
}

// Junk in front of 20 requests: each of them is answered, once and rightly.
func testGarbage(t *testing.T, s *served) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	header := func(length int, rest ...byte) []byte { // of a frame that is not there
		return append([]byte{byte(length), byte(length >> 8), 0, 0, byte(1 + rnd.IntN(7)), 0}, rest...)
	}
	for _, junk := range []struct {
		name string
		make func() []byte
	}{
		{"four bytes", func() []byte { return random(4) }},
		{"64 random bytes", func() []byte { return random(64) }},
		{"64 NULs", func() []byte { return make([]byte, 64) }},
		{"a header that reaches into the next request", func() []byte { return append(random(58), header(5+rnd.IntN(60))...) }},
		{"a header that reaches over many requests", func() []byte { return append(random(58), header(200+rnd.IntN(1000))...) }},
		{"a header that reaches further than all", func() []byte { return append(random(58), header(4092)...) }},
		{"a length word alone", func() []byte { return []byte{40, 0, 0, 0} }},
		{"nested headers", func() []byte { return bytes.Repeat(header(60), 10) }},
		// These are frames. Their last strings are the next request's length word: L NUL NUL NUL.
		{"a frame that ends with the next length word", func() []byte { return header(6) }},
		{"a frame that ends within the next length word", func() []byte { return header(7, 'a', 0) }},
		{"a frame that ends with its first byte", func() []byte { return header(8, 'a', 0, 'b', 0) }},
		{"half a request", func() []byte { b := s.rows[2].to("/tmp/half"); return b[:len(b)/2] }},
		{"a request without its last byte", func() []byte { b := s.rows[2].to("/tmp/half"); return b[:len(b)-1] }},
	} {
		for round := range 6 {
			var requests [][]byte
			var replies []*reply
			for i := range 20 {
				replies = append(replies, newReply(t, s.env["FIFOTMPDIR"]))
				requests = append(requests, s.rows[(round+i)%len(s.rows)].to(replies[i].path))
			}
			if b := junk.make(); round%2 == 0 { // all that is there is read at once
				send(t, s.fifo("infifo"), append(b, bytes.Join(requests, nil)...))
			} else {
				send(t, s.fifo("infifo"), b)
				for _, request := range requests {
					send(t, s.fifo("infifo"), request)
				}
			}
			for i, r := range replies {
				want := s.rows[(round+i)%len(s.rows)].answer
				if got, err := r.read(patience); string(got) != want.Wire() || err != nil {
					t.Fatalf("behind %s, round %d: request %d: %x, %v, want %x", junk.name, round, i, got, err, want)
				}
			}
			s.good(t)
			for i, r := range replies {
				if more, _ := r.drain(); more != nil {
					t.Errorf("behind %s: request %d is answered again: %x", junk.name, i, more)
				}
				os.Remove(r.path)
			}
		}
	}
}

func testTypes(t *testing.T, s *served) {
	r := newReply(t, s.env["FIFOTMPDIR"])
	for _, typ := range []byte{0, 8, 9, '1', 'A', 's', 0x7f, 0x80, 0xff} {
		refused, queries := s.Stats().Refused, s.queries()
		b := frame(inlookup.Type(typ), "user@example.com", r.path, "")
		send(t, s.fifo("infifo"), b)
		s.good(t)
		if n := s.Stats().Refused - refused; n != uint64(len(b)) {
			t.Errorf("type %d: %d bytes refused, want %d", typ, n, len(b))
		}
		if n := s.queries() - queries; n != 1 {
			t.Errorf("type %d: %d queries counted, want that behind it", typ, n)
		}
	}
	if got, open := r.drain(); got != nil || open {
		t.Errorf("an answer: %x", got)
	}
	// What nobody here answers is answered with an error; it is a request all the same.
	for _, typ := range []inlookup.Type{inlookup.TypeStatus, inlookup.TypeFlush, inlookup.TypeExplain} {
		if a, err := s.ask("infifo", inlookup.Query{Type: typ}); a.Code() != -1 || err != nil {
			t.Errorf("%v without Admin: code %d, %v", typ, a.Code(), err)
		}
	}
}

// Whatever path a request names: nothing happens to it unless it is a FIFO that somebody reads.
func testReplies(t *testing.T, s *served) {
	dir := t.TempDir()
	t.Chdir(dir) // where a server that took relative paths would look
	path := func(name string) string { return filepath.Join(dir, name) }
	const text = "precious"
	if err := errors.Join(os.WriteFile(path("file"), []byte(text), 0o666), os.WriteFile(path("empty"), nil, 0o666),
		os.Mkdir(path("directory"), 0o777), syscall.Mkfifo(path("unread"), 0o666)); err != nil {
		t.Fatal(err)
	}
	fifo := newReply(t, dir)
	link := func(target, name string) {
		if err := os.Symlink(target, path(name)); err != nil {
			t.Fatal(err)
		}
	}
	link(fifo.path, "link")
	link(path("file"), "filelink")
	link(path("made"), "dangling")
	before := listing(t, dir)
	for _, test := range []struct{ name, path string }{
		{"a file", path("file")},
		{"an empty file", path("empty")},
		{"a link to a file", path("filelink")},
		{"a link to a FIFO that is read", path("link")},
		{"a link to nothing", path("dangling")},
		{"a directory", path("directory")},
		{"a device", "/dev/null"},
		{"the console", "/dev/console"},
		{"a FIFO that nobody reads", path("unread")},
		{"nothing", path("absent")},
		{"the request FIFO", s.fifo("infifo")},
		{"a relative path", filepath.Base(fifo.path)},
		{"a relative path with a dot", "./" + filepath.Base(fifo.path)},
		{"no path", ""},
		{"the word of tcpserver", "socket"},
	} {
		// To a user without rights to the console it is a FIFO that cannot be opened.
		unanswered := func() uint64 { return s.Stats().Undeliverable + s.Stats().Unopened }
		lost, refused := unanswered(), s.Stats().Refused
		for range 2 { // with a cache, once as a miss and once as a hit
			send(t, s.fifo("infifo"), s.rows[2].to(test.path))
			s.good(t)
		}
		eventually(t, test.name+" gets no answer", func() bool { return unanswered() == lost+2 })
		s.good(t)
		if n := s.Stats().Refused - refused; n != 0 {
			t.Errorf("%s: %d bytes came as requests", test.name, n)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("%s: %s\nwas\n%s", test.name, after, before)
		}
		if got, open := fifo.drain(); got != nil || open {
			t.Errorf("%s: the FIFO got %x", test.name, got)
		}
	}
}

// listing describes all in dir: name, mode, size, times, content.
func listing(t *testing.T, dir string) (text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		text += fmt.Sprint(e.Name(), " ", info.Mode(), " ", info.Size(), " ", st.Ino, " ", st.Nlink)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			text += fmt.Sprintf(" %v %q %v", info.ModTime(), b, err)
		}
		text += "\n"
	}
	return text
}

// Clients that do not read delay nobody.
func testFull(t *testing.T, s *served) {
	full := newReply(t, s.env["FIFOTMPDIR"])
	fd, err := syscall.Open(full.path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	filled := 0
	for size := 4096; size > 0; size /= 8 {
		for n := 0; err == nil; filled += n {
			n, err = syscall.Write(fd, make([]byte, size))
			n = max(n, 0)
		}
		if err != syscall.EAGAIN {
			t.Fatal(err)
		}
		err = nil
	}
	undelivered := s.Stats().Undeliverable
	start := time.Now()
	const rounds = 50
	for i := range rounds {
		send(t, s.fifo("infifo"), s.rows[2].to(full.path))
		r := s.rows[i%len(s.rows)]
		if a, err := s.ask("infifo", r.query); !a.Equal(r.answer) || err != nil {
			t.Fatalf("%v of %s: %x, %v, want %x", r.query.Type, r.query.Email, a, err, r.answer)
		}
	}
	if took := time.Since(start); took > inTime/2 {
		t.Errorf("%d answers beside a full FIFO took %v", rounds, took)
	}
	eventually(t, "the answers that find no room are counted", func() bool { return s.Stats().Undeliverable == undelivered+rounds })
	if got, _ := full.drain(); len(got) != filled || len(bytes.Trim(got, "\x00")) > 0 {
		t.Errorf("the full FIFO holds %d bytes, %d were filled in", len(got), filled)
	}
}

// With REPLYDIR only FIFOs that lie right there are answered.
func testReplyDir(t *testing.T, r inlookup.Resolver) {
	dir := t.TempDir()
	beside := dir + "side"
	for _, d := range []string{beside, filepath.Join(dir, "sub")} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	s := serveHere(t, r, "REPLYDIR", dir, "FIFOTMPDIR", dir)
	outside := newReply(t, beside)
	for _, path := range []string{outside.path, filepath.Join(dir, "sub", filepath.Base(newReply(t, filepath.Join(dir, "sub")).path)),
		dir + "/../" + filepath.Base(beside) + "/" + filepath.Base(outside.path)} {
		undelivered := s.Stats().Undeliverable
		send(t, s.fifo("infifo"), s.rows[2].to(path))
		s.good(t)
		eventually(t, path+" gets no answer", func() bool { return s.Stats().Undeliverable == undelivered+1 })
	}
	if got, open := outside.drain(); got != nil || open {
		t.Errorf("outside of REPLYDIR: %x", got)
	}
}

// A client that has gone costs no SELECT.
func TestGoneClientCostsNoSelect(t *testing.T) {
	db := database(t)
	mysql := &inlookup.MySQL{Getenv: goldenSite(t, db).getenv}
	defer mysql.Close()
	s := serveHere(t, mysql)
	s.good(t) // connections are there
	count := newCounter(t, db)
	before := count.selects()
	for i := range 10 {
		send(t, s.fifo("infifo"), frame(inlookup.TypePasswd, fmt.Sprintf("gone%d@example.com", i), filepath.Join(s.dir, "gone"), ""))
	}
	eventually(t, "ten requests are undeliverable", func() bool { return s.Stats().Undeliverable == 10 })
	if n := count.selects() - before; n != 0 {
		t.Errorf("%d SELECTs for clients that have gone", n)
	}
}

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
	mysql := s.resolver()
	d := inlookup.Directory{Resolver: mysql}
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
		mysql := s.resolver()
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
