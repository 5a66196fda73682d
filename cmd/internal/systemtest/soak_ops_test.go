//go:build ops

package systemtest

// TestSoak is all of it together: full load, and whatever can go wrong at random
// times, with the same three promises throughout. No answer is wrong;
// "unavailable" is said only while the database is away or has just come back;
// every question is answered in time. At the end the server holds no more files,
// threads and memory than at the beginning.
//
// It runs with -tags ops alone, for some 20 seconds, or as long as the environment variable INLOOKUP_SOAK
// says: 2m, 20m, 8h. From two minutes on a database hangs for 25 s at times. What goes wrong is in soakfaults_ops_test.go.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

const (
	soakUsers    = 200 // in each of the databases
	soakClients  = 16
	soakShots    = 4                // that do as the C programs do
	soakTimeout  = 20 * time.Second // a question that takes so long is lost
	soakAnswered = 4 * time.Second  // what the C clients wait
	soakRecovery = 2 * time.Second  // after the database has come back
	soakClosed   = 8 * time.Second  // after a SIGINT the old connections are
	soakConns    = 3 * 16           // of the three pools that the control files make
)

// What may become of a question.
const (
	soakRight       = iota
	soakUnavailable // said while the database was away
	soakUnexcused   // the same, while it was there
	soakWrong
	soakLost // no answer at all
	soakFates
)

type soak struct {
	*site
	local, store outage
	way          *forwarder // to the store
	crowd        *load      // asks for users of the store, too many
	p            *process
	flooder      *process // stands still except for a flood
	rows         []row
	limits       inlookup.Answer // of the domain, which are those of all its users
	log          *logPipe
	lines        soakLines

	replies  string // directory of the clients' reply FIFOs
	observer *inlookup.Client

	started                  atomic.Int64 // questions whose fate is to be known
	fates                    [soakFates]atomic.Int64
	left, dead               atomic.Int64 // clients that went, clients that were killed
	junk, hostile, sent      atomic.Int64 // writes of junk, hostile paths, signals
	kills, pauses, hangs     atomic.Int64 // of the local database, and of the store
	stops, floods            atomic.Int64 // of the log reader, of flushes
	overloads, slowConnects  atomic.Int64 // of the store
	longHangs                atomic.Int64
	crowdAnswered            atomic.Int64
	crowdRefused             atomic.Int64
	slowest, stall, recovery atomic.Int64 // nanoseconds
	errors                   atomic.Int64 // that were printed
	old                      atomic.Int64 // when the last SIGINT was sent
	lastInt                  time.Time    // none is sent later
}

// soakLines are the server's standard output: looked through for what no line
// may hold, and forgotten.
type soakLines struct {
	lines, losses, secrets atomic.Int64

	tail []byte // the last bytes of what was read before: a word may be in two parts
}

// take is called by one goroutine alone.
func (l *soakLines) take(b []byte) {
	const said, secret = " lost\n", "secret"
	l.lines.Add(int64(bytes.Count(b, []byte("\n"))))
	b = append(l.tail, b...)
	l.losses.Add(int64(bytes.Count(b, []byte(said)))) // no tail is as long
	if bytes.Contains(b, []byte("Hash")) || bytes.Contains(b, []byte(secret)) {
		l.secrets.Add(1)
	}
	l.tail = bytes.Clone(b[max(0, len(b)-len(said)+1):])
}

// question returns one of which the answer is known.
func (s *soak) question(rnd *rand.Rand) (q inlookup.Query, want inlookup.Answer) {
	n := rnd.IntN(soakUsers)
	switch rnd.IntN(16) {
	case 0, 1, 2, 3:
		return s.present(inlookup.Type(1+rnd.IntN(6)), n)
	case 4: // absent, and mostly not in memory
		return absent(inlookup.Type(1+rnd.IntN(6)), rnd.IntN(1000000))
	case 5:
		return stored(inlookup.Type(1+2*rnd.IntN(2)), n)
	}
	r := s.rows[rnd.IntN(len(s.rows))]
	return r.query, r.answer
}

// present asks for a user whom this test added.
func (s *soak) present(typ inlookup.Type, n int) (q inlookup.Query, want inlookup.Answer) {
	email := fmt.Sprintf("soak%d@example.com", n)
	q = inlookup.Query{Type: typ, Email: email}
	switch typ {
	case inlookup.TypeRelay:
		q.IP = "192.0.2.10"
		return q, inlookup.NewAnswer(0)
	case inlookup.TypePasswd:
		return q, inlookup.NewData(typ, soakEntry(email, n))
	case inlookup.TypeHost:
		return q, inlookup.NewData(typ, "example.com:192.0.2.25:2525")
	case inlookup.TypeAlias:
		return q, inlookup.NewData(typ, "")
	case inlookup.TypeLimit:
		return q, s.limits
	}
	return q, inlookup.NewAnswer(int(inlookup.StatusActive))
}

func soakEntry(email string, n int) string {
	return fmt.Sprintf("PWSTRUCT=%s:SoakHash%d:1:0:A User:/home/mail/soak%[2]d:NOQUOTA:0", email, n)
}

// absent asks for a user who does not exist.
func absent(typ inlookup.Type, n int) (q inlookup.Query, want inlookup.Answer) {
	q = inlookup.Query{Type: typ, Email: fmt.Sprintf("none%d@example.com", n)}
	switch typ {
	case inlookup.TypeUser:
		return q, inlookup.NewAnswer(int(inlookup.StatusAbsent))
	case inlookup.TypeRelay:
		q.IP = "192.0.2.10"
	case inlookup.TypePasswd:
		return q, inlookup.NewData(typ, "PWSTRUCT=No such user "+q.Email)
	case inlookup.TypeAlias:
		return q, inlookup.NewData(typ, "")
	}
	return q, inlookup.NewAnswer(0)
}

// soakDomain is the domain of the store that hangs at times.
const soakDomain = "store.test"

// stored asks for a user whose row is in the store.
func stored(typ inlookup.Type, n int) (q inlookup.Query, want inlookup.Answer) {
	email := fmt.Sprintf("soak%d@%s", n, soakDomain)
	q = inlookup.Query{Type: typ, Email: email}
	if typ == inlookup.TypePasswd {
		return q, inlookup.NewData(typ, soakEntry(email, n))
	}
	return q, inlookup.NewAnswer(int(inlookup.StatusActive))
}

// judge counts what became of a question that was asked at start.
func (s *soak) judge(start time.Time, q inlookup.Query, want, got inlookup.Answer,
	failed bool, err error) {
	took, fate := time.Since(start), soakRight
	switch {
	case err != nil:
		fate = soakLost
	case failed:
		if fate = soakUnavailable; !s.excused(start, q) {
			fate = soakUnexcused
		}
	case !got.Equal(want):
		fate = soakWrong
	}
	atLeast(&s.slowest, took)
	s.fates[fate].Add(1)
	if fate > soakUnavailable && s.errors.Add(1) <= 10 {
		s.t.Errorf("%v of %s %s: %q after %v, want %q, %v",
			q.Type, q.Email, q.IP, got, took, want, err)
	}
}

// excused reports whether an error is in order for a client that asked at start:
// the database is away, or was then or shortly before. What stands still here
// for a while stands still there as well.
func (s *soak) excused(start time.Time, q inlookup.Query) bool {
	late := s.local.since(start)
	if strings.HasSuffix(q.Email, "@"+soakDomain) {
		late = min(late, s.store.since(start))
	}
	if late < time.Minute {
		atLeast(&s.recovery, late)
	}
	return late < soakRecovery+10*time.Duration(s.stall.Load())
}

// ask asks over a Client.
func (s *soak) ask(c *inlookup.Client, rnd *rand.Rand) {
	q, want := s.question(rnd)
	s.started.Add(1)
	start := time.Now()
	a, err := c.Resolve(context.Background(), q)
	// Else the error is the client's own.
	said := err != nil && strings.Contains(err.Error(), "the server answers")
	if said {
		err = nil
	}
	s.judge(start, q, want, a, said, err)
}

// shot asks as a C program does, and sometimes leaves before the answer. No name
// is used twice: a late answer would come to the next who has it.
func (s *soak) shot(rnd *rand.Rand) {
	path := filepath.Join(s.replies, fmt.Sprint(rnd.Uint64()))
	q, want := s.question(rnd)
	start := time.Now()
	fd, err := openReply(path)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer os.Remove(path)
	defer syscall.Close(fd)
	err = s.write(rnd, frame(q.Type, q.Email, path, q.IP))
	if err == nil && rnd.IntN(16) == 0 {
		s.left.Add(1)
		return
	}
	s.started.Add(1)
	var got []byte
	if err == nil {
		got, err = readReply(fd, q.Type, start.Add(soakTimeout))
	}
	code := inlookup.WireAnswer(string(got)).Code()
	failed := code < 0 || code == 0 && q.Type == inlookup.TypePasswd
	s.judge(start, q, want, inlookup.WireAnswer(string(got)), failed, err)
}

func openReply(path string) (fd int, err error) {
	if err = makeFIFO(path); err != nil {
		return -1, err
	}
	return syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
}

// readReply returns all that comes until the answer is complete.
func readReply(fd int, typ inlookup.Type, until time.Time) (got []byte, err error) {
	buf := make([]byte, 8<<10)
	for time.Now().Before(until) {
		if n, _ := syscall.Read(fd, buf); n > 0 {
			got = append(got, buf[:n]...)
		} else {
			time.Sleep(100 * time.Microsecond)
		}
		code := inlookup.WireAnswer(string(got)).Code()
		if len(got) >= 4 && (typ < inlookup.TypePasswd || len(got) >= 4+code) {
			return got, nil
		}
	}
	return got, errNoAnswer
}

// write writes b into one of the request FIFOs, with one write that is all or nothing.
func (s *soak) write(rnd *rand.Rand, b []byte) error {
	return writeRequest(s.fifo("infifo."+strconv.Itoa(1+rnd.IntN(2))), b)
}

// A soakRun is a time in which everything happens.
type soakRun struct {
	ctx    context.Context
	group  sync.WaitGroup
	length time.Duration
	seed   uint64
	stream uint64
}

// repeat does f again and again, with pauses of random length.
func (r *soakRun) repeat(pause time.Duration, f func(rnd *rand.Rand)) {
	r.stream++
	rnd := rand.New(rand.NewPCG(r.seed, r.stream))
	r.group.Go(func() {
		for r.ctx.Err() == nil {
			f(rnd)
			if pause == 0 {
				continue
			}
			select {
			case <-r.ctx.Done():
			case <-time.After(time.Duration(rnd.Int64N(int64(2 * pause)))):
			}
		}
	})
}

// run lets everything happen for a time, and returns when all is quiet.
func (s *soak) run(seed uint64, length time.Duration, hostile []string) {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	r := &soakRun{ctx: ctx, length: length, seed: seed}
	c := &inlookup.Client{Timeout: soakTimeout, Getenv: func(name string) string {
		if name == "FIFOTMPDIR" {
			return s.replies
		}
		return s.env[name]
	}}
	for range soakClients {
		r.repeat(0, func(rnd *rand.Rand) { s.ask(c, rnd) })
	}
	for range soakShots {
		r.repeat(0, s.shot)
	}
	s.faults(r, min(3*time.Second, length/3), hostile)
	r.repeat(0, func(*rand.Rand) { // how long this program stands still
		const pause = 5 * time.Millisecond
		start := time.Now()
		time.Sleep(pause)
		atLeast(&s.stall, time.Since(start)-pause)
	})
	r.group.Go(func() {
		for begin := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Minute):
				took := time.Since(begin).Round(time.Second)
				s.t.Logf("after %v: %v; %v", took, s, used(s.p.cmd.Process.Pid))
			}
		}
	})
	r.group.Wait()
}

// faults has everything go wrong at random times; what takes something away for
// long does so with pauses of the given mean.
func (s *soak) faults(r *soakRun, pause time.Duration, hostile []string) {
	for i := range 2 {
		r.repeat(100*time.Millisecond, func(rnd *rand.Rand) { s.dying(i, rnd) })
	}
	r.repeat(2*time.Millisecond, s.garbage)
	r.repeat(2*time.Millisecond, func(rnd *rand.Rand) {
		row := s.rows[rnd.IntN(len(s.rows))]
		if err := s.write(rnd, row.to(hostile[rnd.IntN(len(hostile))])); err != nil {
			s.t.Errorf("a hostile path: %v", err)
		}
		s.hostile.Add(1)
	})
	r.repeat(300*time.Millisecond, s.signals)
	outages := 0
	r.repeat(pause, func(rnd *rand.Rand) {
		outages++
		s.localAway(outages, r.length, rnd)
	})
	r.repeat(pause, s.storeFaults(r.length))
	stops := 0
	r.repeat(pause/3, func(rnd *rand.Rand) {
		stops++
		s.logStops(stops, rnd)
	})
	r.repeat(pause/3, s.flushes)
	r.repeat(20*time.Millisecond, s.flush)
}

func (s *soak) asked() (n int64) {
	for i := range s.fates {
		n += s.fates[i].Load()
	}
	return n
}

func (s *soak) String() string {
	d := func(v *atomic.Int64) time.Duration {
		return time.Duration(v.Load()).Round(time.Millisecond)
	}
	return fmt.Sprintf("%d questions: %d right, %d unavailable while the database was away, "+
		"%d unavailable without that, %d wrong, %d lost; slowest %v; "+
		"last error for a question asked %v after the database was back; "+
		"MariaDB killed %d times, stopped %d times, the store %d times, for 25 s %d times; "+
		"the store slow to connect %d times, overloaded %d times (%d answered, %d refused); "+
		"the log reader stopped %d times, %d floods; %d clients killed, %d left early, "+
		"%d writes of junk, %d hostile reply paths, %d signals, %d lines of output, of which %d "+
		"say that lines were lost; longest stall of the test %v",
		s.started.Load(), s.fates[soakRight].Load(), s.fates[soakUnavailable].Load(),
		s.fates[soakUnexcused].Load(), s.fates[soakWrong].Load(), s.fates[soakLost].Load(),
		d(&s.slowest), d(&s.recovery), s.kills.Load(), s.pauses.Load(), s.hangs.Load(),
		s.longHangs.Load(), s.slowConnects.Load(), s.overloads.Load(),
		s.crowdAnswered.Load(), s.crowdRefused.Load(),
		s.stops.Load(), s.floods.Load(), s.dead.Load(), s.left.Load(),
		s.junk.Load(), s.hostile.Load(), s.sent.Load(),
		s.lines.lines.Load(), s.lines.losses.Load(), d(&s.stall))
}

// connections returns how many the databases say that the server has.
func (s *soak) connections(t *testing.T) int {
	t.Helper()
	return len(connections(t, s.local.db, "indimail")) +
		len(connections(t, s.store.db, "indimail"))
}

// quiet waits until the server has nothing to do and holds no connections except
// those of the configuration in force, and returns what it holds.
func (s *soak) quiet(t *testing.T) (u usage) {
	t.Helper()
	eventually(t, "old connections are closed", func() bool { return s.connections(t) <= soakConns })
	eventually(t, "nobody waits except the question for it", func() bool {
		a, err := s.observer.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeStatus})
		return err == nil && regexp.MustCompile(`\ninlookup_waiting [01]\n`).MatchString(a.Data())
	})
	u = used(s.p.cmd.Process.Pid)
	for range 20 { // the reply FIFO of that question may be open still: the fewest files count
		time.Sleep(5 * time.Millisecond)
		if now := used(s.p.cmd.Process.Pid); now.files < u.files {
			u = now
		}
	}
	return u
}

// soakLength returns how long TestSoak lasts, and the seed of what is random.
func soakLength(t *testing.T) (length time.Duration, seed uint64) {
	t.Helper()
	length, seed = 6*time.Second, uint64(time.Now().UnixNano())
	var err1, err2 error
	if text := os.Getenv("INLOOKUP_SOAK"); text != "" {
		length, err1 = time.ParseDuration(text)
	}
	if text := os.Getenv("INLOOKUP_SOAK_SEED"); text != "" {
		seed, err2 = strconv.ParseUint(text, 10, 64)
	}
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal("INLOOKUP_SOAK or INLOOKUP_SOAK_SEED:", err)
	}
	t.Logf("INLOOKUP_SOAK_SEED=%d", seed)
	return length, seed
}

// newSoak starts the databases and the server.
func newSoak(t *testing.T) *soak {
	t.Helper()
	db, store := mariadbtest.ForTest(t), mariadbtest.ForTest(t)
	s := &soak{site: goldenSite(t, db), rows: goldenRows(t)}
	s.local.db, s.store.db = db, store
	s.observer, s.replies = s.short(soakTimeout), filepath.Join(s.dir, "replies")
	if err := os.Mkdir(s.replies, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.rows {
		if (r.query == inlookup.Query{Type: inlookup.TypeLimit, Email: "user@example.com"}) {
			s.limits = r.answer
		}
	}
	const login = "UPDATE relay SET timestamp=UNIX_TIMESTAMP()+1000000 " + // which lasts
		"WHERE email='user@example.com';"
	mustExec(t, db, login+soakRows("example.com"), "")
	mustExec(t, store, soakRows(soakDomain), "")
	mcdinfo, err := os.ReadFile(filepath.Join(s.env["CONTROLDIR"], "mcdinfo"))
	if err != nil {
		t.Fatal(err)
	}
	s.way = newForwarder(t, "127.0.0.1:0", store)
	port, err := strconv.Atoi(s.way.port)
	if err != nil {
		t.Fatal(err)
	}
	const entry = "%s\ndomain %s 0\nserver 127.0.0.1\nmdahost 192.0.2.77\nport %d\nuse_ssl 0\n" +
		"database indimail\nuser indimail\npass secret\n"
	s.control("mcdinfo", fmt.Sprintf(entry, mcdinfo, soakDomain, port))
	// Short lives keep MariaDB busy, and little room the cache.
	s.env["CACHE_TTL"], s.env["CACHE_NEGATIVE_TTL"] = "2s", "1s"
	s.env["CACHE_SIZE"] = "4194304"
	s.log = newLogPipe(t, s.lines.take)
	s.log.start()
	s.p = s.serveLogged(s.log, ">LOG", "-v", "-i", "2")
	s.crowd = &load{t, make(chan *caller, 300)}
	for range cap(s.crowd.free) {
		s.crowd.free <- s.newCaller("infifo.1")
	}
	flush := inlookup.Query{Type: inlookup.TypeFlush, Email: "flood#@example.com"}
	s.flooder = s.flood("infifo.1", flush)
	s.flooder.pause()
	return s
}

// soakRows returns the statement that adds the users of a domain.
func soakRows(domain string) string {
	script := "INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos," +
		"pw_dir,pw_shell) VALUES "
	for i := range soakUsers {
		script += fmt.Sprintf("('soak%d','%s','SoakHash%[1]d',1,0,'A User',"+
			"'/home/mail/soak%[1]d','NOQUOTA'),", i, domain)
	}
	return strings.TrimSuffix(script, ",")
}

func TestSoak(t *testing.T) {
	length, seed := soakLength(t)
	s := newSoak(t)
	dir, hostile, full := s.hostilePaths()
	files := listing(t, dir)

	// All happens once, and what is kept for the next time is kept.
	warm := min(length/3, 30*time.Second)
	s.lastInt = time.Now().Add(max(warm, length-soakClosed))
	s.run(seed, warm, hostile)
	before, asked, start := s.quiet(t), s.asked(), time.Now()
	s.run(seed+1, length-warm, hostile)
	seconds := time.Since(start).Seconds()
	after := s.quiet(t)

	t.Logf("%v", s)
	t.Logf("%.0f questions a second; after warm-up: %v; at the end: %v",
		float64(s.asked()-asked)/seconds, before, after)
	s.fateOfAll(t)
	// The race detector remembers more and more.
	memory := after.rss > before.rss*3/2+16<<10 && !raceEnabled
	descriptors := after.known && after.files != before.files
	threads := after.threads > 2*before.threads+8
	if descriptors || threads || memory {
		t.Errorf("the server holds %v, %v before", after, before)
	}
	if now := listing(t, dir); now != files {
		t.Errorf("hostile paths: %s\nwere\n%s", now, files)
	}
	got, _ := (&reply{fd: full}).drain()
	if len(got) != 64<<10 && runtime.GOOS == "linux" || len(bytes.Trim(got, "\x00")) > 0 {
		t.Errorf("the full FIFO held %d bytes", len(got))
	}
	for _, left := range []string{"replies/*", "client*", "nobody"} {
		if paths, err := filepath.Glob(filepath.Join(s.dir, left)); paths != nil || err != nil {
			t.Errorf("left behind: %v, %v", paths, err)
		}
	}
	s.logOfAll(t)
	s.goroutines(t)
}

// fateOfAll checks that each question was answered, or told why not, in time.
func (s *soak) fateOfAll(t *testing.T) {
	t.Helper()
	if asked, started := s.asked(), s.started.Load(); asked != started {
		t.Errorf("%d questions, of %d is known what became of them", started, asked)
	}
	limit := soakAnswered + 10*time.Duration(s.stall.Load())
	if slowest := time.Duration(s.slowest.Load()); slowest > limit {
		t.Errorf("the slowest answer took %v, want at most %v", slowest, limit)
	}
	if s.fates[soakRight].Load() < 100 || s.fates[soakUnavailable].Load() == 0 {
		t.Errorf("this test tests little: %v", s)
	}
	for _, r := range s.rows { // the last fault may just have gone
		within(t, recover, "when all is over, an answer", func() bool {
			a, err := s.observer.Resolve(t.Context(), r.query)
			right := a.Equal(r.answer) && err == nil
			if !right {
				t.Logf("when all is over: %v of %s: %q, %v", r.query.Type, r.query.Email, a, err)
			}
			if !right && err == nil {
				t.Fatal("a wrong answer")
			}
			return right
		})
	}
}

// logOfAll checks that the log holds no secret, and says that lines were lost if
// some were.
func (s *soak) logOfAll(t *testing.T) {
	t.Helper()
	text := s.p.stderr.String()
	inText := strings.Contains(text, "Hash") || strings.Contains(text, "secret")
	if s.lines.secrets.Load() > 0 || inText {
		t.Error("a secret is in the log")
	}
	lost := s.counts()["log_lines_lost_total"]
	t.Logf("%v lines of the log were lost", lost)
	if lost == 0 {
		return
	}
	eventually(t, "the log says that lines were lost", func() bool {
		return s.lines.losses.Load() > 0 || strings.Contains(s.p.stderr.String(), " lost\n")
	})
}

// goroutines is the last act: a SIGQUIT ends a Go program with the stacks of all
// its goroutines. What was connected before a SIGINT is closed 6 s after it. A
// quiet server has some 40 goroutines, and one for each connection.
func (s *soak) goroutines(t *testing.T) {
	t.Helper()
	time.Sleep(time.Until(time.Unix(0, s.old.Load()).Add(soakClosed)))
	conns := s.connections(t)
	s.p.signal(syscall.SIGQUIT)
	s.p.wait()
	stacks := strings.Count(s.p.stderr.String(), "\ngoroutine ")
	t.Logf("%d goroutines at the end, %d connections", stacks, conns)
	if stacks == 0 || stacks > 60+conns {
		t.Errorf("%d goroutines with %d connections\n%s", stacks, conns, s.p.stderr.String())
	}
}
