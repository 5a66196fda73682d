//go:build ops

package main_test

// TestSoak is all of it together: full load, and whatever can go wrong at random times, with the same three promises
// throughout. No answer is wrong; "unavailable" is said only while the database is away or has just come back; every
// question is answered in time. At the end the server holds no more files, threads and memory than at the beginning.
//
// It runs with -tags ops alone, for some 20 seconds, or as long as the environment variable
// INLOOKUP_SOAK says: 20m, 8h.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

const (
	soakUsers    = 200              // beside the golden ones
	soakAskers   = 16               // over 4 Clients, whose reply FIFOs are kept
	soakShots    = 4                // that make a reply FIFO for each question, as the C programs do
	soakTimeout  = 20 * time.Second // a question that takes so long is lost
	soakAnswered = 4 * time.Second  // what the C clients wait
	soakRecovery = 2 * time.Second  // after the database has come back
	soakConns    = 2 * 16           // of the two pools that the golden control files make
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
	db     *mariadb.DB
	p      *process
	rows   []row
	limits inlookup.Answer // of the domain, which are those of all its users
	output soakOutput

	replies  string // directory of the askers' reply FIFOs
	observer *inlookup.Client

	fates                            [soakFates]atomic.Int64
	left, dead, junk, hostile, sent  atomic.Int64 // clients that went, clients killed, writes of junk, hostile paths, signals
	kills, pauses                    atomic.Int64
	slowest, stall, recovery, errors atomic.Int64 // nanoseconds, and how many errors were printed

	mu   sync.Mutex // guards what follows
	away bool       // the database is
	back time.Time  // when it came back
	old  time.Time  // when the last SIGINT was sent
}

// A soakOutput is the server's standard output: looked through for what no line may hold, and forgotten.
type soakOutput struct{ lines, secrets atomic.Int64 }

func (o *soakOutput) Write(b []byte) (int, error) {
	o.lines.Add(int64(bytes.Count(b, []byte("\n"))))
	if bytes.Contains(b, []byte("Hash")) || bytes.Contains(b, []byte("secret")) {
		o.secrets.Add(1)
	}
	return len(b), nil
}

// question returns one of which the answer is known.
func (s *soak) question(rnd *rand.Rand) (q inlookup.Query, want inlookup.Answer) {
	typ := inlookup.Type(1 + rnd.IntN(6))
	ip := ""
	if typ == inlookup.TypeRelay {
		ip = "192.0.2.10"
	}
	switch n := rnd.IntN(soakUsers); rnd.IntN(16) {
	default:
		r := s.rows[rnd.IntN(len(s.rows))]
		return r.query, r.answer
	case 0, 1, 2, 3:
		email := fmt.Sprintf("soak%d@example.com", n)
		want = map[inlookup.Type]inlookup.Answer{
			1: inlookup.NewAnswer(0), 2: inlookup.NewAnswer(0),
			3: inlookup.NewData(3, fmt.Sprintf("PWSTRUCT=%s:SoakHash%d:1:0:A User:/home/mail/soak%[2]d:NOQUOTA:0", email, n)),
			4: inlookup.NewData(4, "example.com:192.0.2.25:2525"), 5: inlookup.NewData(5, ""), 6: s.limits}[typ]
		return inlookup.Query{Type: typ, Email: email, IP: ip}, want
	case 4: // absent, and mostly not in memory
		email := fmt.Sprintf("none%d@example.com", rnd.IntN(1000000))
		want = map[inlookup.Type]inlookup.Answer{
			1: inlookup.NewAnswer(1), 2: inlookup.NewAnswer(0), 3: inlookup.NewData(3, "PWSTRUCT=No such user "+email),
			4: inlookup.NewAnswer(0), 5: inlookup.NewData(5, ""), 6: inlookup.NewAnswer(0)}[typ]
		return inlookup.Query{Type: typ, Email: email, IP: ip}, want
	}
}

// judge counts what became of a question that was asked at start.
func (s *soak) judge(start time.Time, q inlookup.Query, want, got inlookup.Answer, failed bool, err error) {
	took, fate := time.Since(start), soakRight
	switch {
	case err != nil:
		fate = soakLost
	case failed:
		if fate = soakUnavailable; !s.excused(start) {
			fate = soakUnexcused
		}
	case got != want:
		fate = soakWrong
	}
	atLeast(&s.slowest, took)
	s.fates[fate].Add(1)
	if fate > soakUnavailable && s.errors.Add(1) <= 10 {
		s.t.Errorf("%v of %s %s: %q after %v, want %q, %v", q.Type, q.Email, q.IP, got, took, want, err)
	}
}

// excused reports whether an error is in order for who asked at start: the database is away, or was then or shortly
// before. What stands still here for a while stands still there as well.
func (s *soak) excused(start time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if late := start.Sub(s.back); !s.away && late > 0 {
		if late < time.Minute {
			atLeast(&s.recovery, late)
		}
		return late < soakRecovery+10*time.Duration(s.stall.Load())
	}
	return true
}

func (s *soak) setAway(away bool) {
	s.mu.Lock()
	s.away, s.back = away, time.Now()
	s.mu.Unlock()
}

// ask asks over a Client.
func (s *soak) ask(c *inlookup.Client, rnd *rand.Rand) {
	q, want := s.question(rnd)
	start := time.Now()
	a, err := c.Resolve(context.Background(), q)
	said := err != nil && strings.Contains(err.Error(), "the server answers") // else the error is the client's own
	if said {
		err = nil
	}
	s.judge(start, q, want, a, said, err)
}

// shot asks as a C program does, with a reply FIFO for one question, and sometimes leaves before the answer. No name
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
	if err = s.write(rnd, frame(q.Type, q.Email, path, q.IP)); rnd.IntN(16) == 0 && err == nil {
		s.left.Add(1)
		return
	}
	var got []byte
	if err == nil {
		got, err = readReply(fd, q.Type, start.Add(soakTimeout))
	}
	code := inlookup.Answer(got).Code()
	s.judge(start, q, want, inlookup.Answer(got), code < 0 || code == 0 && q.Type == inlookup.TypePasswd, err)
}

// openReply makes a reply FIFO and opens it to read, without waiting.
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
		if code := inlookup.Answer(got).Code(); len(got) >= 4 && (typ < inlookup.TypePasswd || len(got) >= 4+code) {
			return got, nil
		}
	}
	return got, errNoAnswer
}

// write writes b into one of the request FIFOs, with one write that is all or nothing.
func (s *soak) write(rnd *rand.Rand, b []byte) error {
	return writeRequest(s.fifo("infifo."+strconv.Itoa(1+rnd.IntN(2))), b)
}

// A client that is killed while it asks is this program again, started with the request FIFO and a directory for
// reply FIFOs in its environment.
const soakClient = "INLOOKUP_SOAK_CLIENT"

func init() {
	path, dir, ok := strings.Cut(os.Getenv(soakClient), " ")
	if !ok {
		return
	}
	var once sync.Once
	for i := range 4 {
		go func() {
			for n := 0; ; n++ {
				reply := filepath.Join(dir, fmt.Sprint(i, ".", n))
				fd, err := openReply(reply)
				if err != nil || writeRequest(path, frame(inlookup.TypeUser, fmt.Sprintf("dead%d@example.com", n), reply, "")) != nil {
					os.Exit(1) // the directory has gone, or the server
				}
				once.Do(func() { fmt.Println("asking") })
				if n%2 == 0 {
					readReply(fd, inlookup.TypeUser, time.Now().Add(soakTimeout))
				}
				syscall.Close(fd)
			}
		}()
	}
	select {} // until killed
}

// dying starts a client and kills it while it asks.
func (s *soak) dying(number int, rnd *rand.Rand) {
	dir := filepath.Join(s.dir, fmt.Sprint("client", number))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Error(err)
		return
	}
	defer os.RemoveAll(dir)
	program, err := os.Executable()
	if err != nil {
		s.t.Error(err)
		return
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), soakClient+"="+s.fifo("infifo.1")+" "+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if dieWithParent != nil {
		dieWithParent(cmd.SysProcAttr)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Error(err)
		return
	}
	io.ReadAtLeast(out, make([]byte, 1), 1) // it asks now
	time.Sleep(time.Duration(rnd.IntN(20000)) * time.Microsecond)
	cmd.Process.Kill()
	cmd.Wait()
	s.dead.Add(1)
}

// garbage writes what is no request.
func (s *soak) garbage(rnd *rand.Rand) {
	b := make([]byte, 1+rnd.IntN(4096)) // no more than is written in one piece: longer junk is cut by requests, not they by it
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	switch r := s.rows[rnd.IntN(len(s.rows))]; rnd.IntN(4) {
	case 0: // a beginning of a request
		b = r.to(filepath.Join(s.dir, "nobody"))
		b = b[:rnd.IntN(len(b))]
	case 1: // lengths and types that may be
		for i := 0; i+6 < len(b); i += 1 + rnd.IntN(40) {
			copy(b[i:], []byte{byte(rnd.IntN(200)), byte(rnd.IntN(2)), 0, 0, byte(1 + rnd.IntN(7)), 0})
		}
	case 2:
		clear(b)
	}
	if err := s.write(rnd, b); err != nil {
		s.t.Errorf("garbage: %v", err)
	}
	s.junk.Add(1)
}

// hostilePaths makes files that no answer may touch, and returns the paths of these and others.
func (s *soak) hostilePaths() (dir string, paths []string, full int) {
	s.t.Helper()
	dir = filepath.Join(s.dir, "hostile")
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path("file"), []byte("precious"), 0o666), os.WriteFile(path("empty"), nil, 0o666),
		os.Mkdir(path("directory"), 0o777), syscall.Mkfifo(path("unread"), 0o666), os.Symlink("file", path("filelink")),
		os.Symlink("full", path("fifolink")), os.Symlink("made", path("dangling")), os.Link(s.fifo("infifo.1"), path("infifo"))); err != nil {
		s.t.Fatal(err)
	}
	full, err := openReply(path("full"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { syscall.Close(full) })
	fd, err := syscall.Open(path("full"), syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer syscall.Close(fd)
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; _, err = syscall.Write(fd, make([]byte, size)) {
		}
	}
	for _, name := range []string{"file", "empty", "directory", "unread", "filelink", "fifolink", "dangling", "infifo", "full", "absent", ""} {
		paths = append(paths, path(name))
	}
	return dir, append(paths, s.fifo("infifo.1"), s.fifo("infifo.2"), "/dev/null", "/dev/full", "/dev/tty", "/proc/self/fd/1", "/proc/self/fd/2",
		"/proc/self/mem", "infifo.1", "socket", "", "/"), full
}

// signals sends one to the server.
func (s *soak) signals(rnd *rand.Rand) {
	sig := []syscall.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGINT}[rnd.IntN(6)]
	s.p.cmd.Process.Signal(sig)
	s.sent.Add(1)
	if sig == syscall.SIGINT {
		s.mu.Lock()
		s.old = time.Now()
		s.mu.Unlock()
	}
	if sig == syscall.SIGUSR2 { // lines for a short while
		time.Sleep(20 * time.Millisecond)
		s.p.cmd.Process.Signal(sig)
		s.sent.Add(1)
	}
}

// outage takes the database away for a time, in one of two ways.
func (s *soak) outage(kill bool, length time.Duration) {
	s.setAway(true)
	defer s.setAway(false)
	if !kill {
		s.pauses.Add(1)
		if err := s.db.Pause(); err != nil {
			s.t.Error(err)
		}
		time.Sleep(length)
		if err := s.db.Continue(); err != nil {
			s.t.Error(err)
		}
		return
	}
	s.kills.Add(1)
	if err := s.db.Kill(); err != nil {
		s.t.Error(err)
	}
	time.Sleep(length / 4)
	if err := s.db.Restart(context.Background()); err != nil {
		s.t.Error(err)
	}
}

// run lets everything happen for a time, and returns when all is quiet.
func (s *soak) run(seed uint64, length time.Duration, hostile []string) {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var all sync.WaitGroup
	stream := uint64(0)
	repeat := func(pause time.Duration, f func(rnd *rand.Rand)) {
		stream++
		rnd := rand.New(rand.NewPCG(seed, stream))
		all.Go(func() {
			for ctx.Err() == nil {
				f(rnd)
				if pause == 0 {
					continue
				}
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(rnd.Int64N(int64(2 * pause)))):
				}
			}
		})
	}
	var clients []*inlookup.Client
	for range soakAskers / 4 {
		c := &inlookup.Client{Timeout: soakTimeout, Getenv: func(name string) string {
			if name == "FIFOTMPDIR" {
				return s.replies
			}
			return s.env[name]
		}}
		clients = append(clients, c)
		for range 4 {
			repeat(0, func(rnd *rand.Rand) { s.ask(c, rnd) })
		}
	}
	for range soakShots {
		repeat(0, s.shot)
	}
	for i := range 2 {
		repeat(100*time.Millisecond, func(rnd *rand.Rand) { s.dying(i, rnd) })
	}
	repeat(2*time.Millisecond, s.garbage)
	repeat(2*time.Millisecond, func(rnd *rand.Rand) {
		r := s.rows[rnd.IntN(len(s.rows))]
		if err := s.write(rnd, r.to(hostile[rnd.IntN(len(hostile))])); err != nil {
			s.t.Errorf("a hostile path: %v", err)
		}
		s.hostile.Add(1)
	})
	repeat(300*time.Millisecond, s.signals)
	first := 0
	repeat(3*time.Second, func(rnd *rand.Rand) {
		if first++; first <= 2 { // one of each at least, whatever the seed
			s.outage(first == 1, 500*time.Millisecond)
		} else if rnd.IntN(8) == 0 { // longer than any question has
			s.outage(false, 5*time.Second)
		} else {
			s.outage(rnd.IntN(2) == 0, time.Duration(rnd.IntN(1500))*time.Millisecond)
		}
	})
	repeat(0, func(*rand.Rand) { // how long this program stands still, when other things have the machine
		const pause = 5 * time.Millisecond
		start := time.Now()
		time.Sleep(pause)
		atLeast(&s.stall, time.Since(start)-pause)
	})
	all.Go(func() {
		for begin := time.Now(); ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Minute):
				s.t.Logf("after %v: %v; %v", time.Since(begin).Round(time.Second), s, used(s.p.cmd.Process.Pid))
			}
		}
	})
	all.Wait()
}

func (s *soak) asked() (n int64) {
	for i := range s.fates {
		n += s.fates[i].Load()
	}
	return n
}

func (s *soak) String() string {
	d := func(v *atomic.Int64) time.Duration { return time.Duration(v.Load()).Round(time.Millisecond) }
	return fmt.Sprintf("%d questions: %d right, %d unavailable while the database was away, %d unavailable without that, %d wrong, %d lost; slowest %v; "+
		"last error for a question asked %v after the database was back; MariaDB killed %d times, stopped %d times; %d clients killed, %d left early, "+
		"%d writes of junk, %d hostile reply paths, %d signals, %d lines of output; longest stall of the test %v",
		s.asked(), s.fates[soakRight].Load(), s.fates[soakUnavailable].Load(), s.fates[soakUnexcused].Load(), s.fates[soakWrong].Load(), s.fates[soakLost].Load(),
		d(&s.slowest), d(&s.recovery), s.kills.Load(), s.pauses.Load(), s.dead.Load(), s.left.Load(), s.junk.Load(), s.hostile.Load(), s.sent.Load(),
		s.output.lines.Load(), d(&s.stall))
}

// quiet waits until the server has nothing to do and holds no connections but those of the configuration in force,
// and returns what it holds.
func (s *soak) quiet() (u usage) {
	s.t.Helper()
	eventually(s.t, "old connections are closed", func() bool {
		u = used(s.p.cmd.Process.Pid)
		return u.sockets <= soakConns
	})
	eventually(s.t, "nobody waits", func() bool {
		a, err := s.observer.Resolve(context.Background(), inlookup.Query{Type: inlookup.TypeStatus})
		return err == nil && strings.Contains(a.Data(), "\ninlookup_waiting 0\n")
	})
	u = used(s.p.cmd.Process.Pid)
	for range 20 { // the reply FIFO of that question may be open still when its answer is here: the fewest files count
		time.Sleep(5 * time.Millisecond)
		if now := used(s.p.cmd.Process.Pid); now.files < u.files {
			u = now
		}
	}
	return u
}

func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("INLOOKUP_SOAK"))
	if os.Getenv("INLOOKUP_SOAK") == "" {
		length, err = 15*time.Second, nil
	}
	if err != nil {
		t.Fatal("INLOOKUP_SOAK:", err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("INLOOKUP_SOAK_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("INLOOKUP_SOAK_SEED:", err)
		}
	}
	t.Logf("INLOOKUP_SOAK_SEED=%d", seed)
	db := mariadbtest.ForTest(t)
	s := &soak{site: goldenSite(t, db), db: db, rows: goldenRows(t)}
	s.observer, s.replies = s.client(), filepath.Join(s.dir, "replies")
	if err := os.Mkdir(s.replies, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.rows {
		if (r.query == inlookup.Query{Type: inlookup.TypeLimit, Email: "user@example.com"}) {
			s.limits = r.answer
		}
	}
	script := "UPDATE relay SET timestamp=UNIX_TIMESTAMP()+1000000 WHERE email='user@example.com';" + // a login that lasts
		"INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell) VALUES "
	for i := range soakUsers {
		script += fmt.Sprintf("('soak%d','example.com','SoakHash%[1]d',1,0,'A User','/home/mail/soak%[1]d','NOQUOTA'),", i)
	}
	if err := db.Exec(strings.TrimSuffix(script, ",")); err != nil {
		t.Fatal(err)
	}
	// Short lives keep MariaDB busy, and little room the cache; both are always full of something.
	s.env["CACHE_TTL"], s.env["CACHE_NEGATIVE_TTL"], s.env["CACHE_SIZE"] = "2s", "1s", "4194304"
	cmd := s.command("inlookup", "-i", "2")
	cmd.Stdout = &s.output
	s.p = s.startCommand(cmd)
	s.answers(s.p)
	dir, hostile, full := s.hostilePaths()
	files := listing(t, dir)

	s.run(seed, min(length/3, 30*time.Second), hostile) // all has happened once, and what is kept for the next time is kept
	before, asked, start := s.quiet(), s.asked(), time.Now()
	s.run(seed+1, length-min(length/3, 30*time.Second), hostile)
	seconds := time.Since(start).Seconds()
	after := s.quiet()

	t.Logf("%v", s)
	t.Logf("%.0f questions a second; after warm-up: %v; at the end: %v", float64(s.asked()-asked)/seconds, before, after)
	if limit := soakAnswered + 10*time.Duration(s.stall.Load()); time.Duration(s.slowest.Load()) > limit {
		t.Errorf("the slowest answer took %v, want at most %v", time.Duration(s.slowest.Load()), limit)
	}
	if s.fates[soakRight].Load() < s.asked()/2 || s.fates[soakUnavailable].Load() == 0 {
		t.Errorf("this test tests little: %v", s)
	}
	grown := after.rss > before.rss*3/2+16<<10 && !raceEnabled // the race detector remembers more and more
	if runtime.GOOS == "linux" && (after.files != before.files || after.threads > 2*before.threads+8 || grown) {
		t.Errorf("the server holds %v, %v before", after, before)
	}
	for _, r := range s.rows {
		if a, err := s.observer.Resolve(t.Context(), r.query); a != r.answer || err != nil {
			t.Errorf("when all is over: %v of %s: %q, %v", r.query.Type, r.query.Email, a, err)
		}
	}
	if now := listing(t, dir); now != files {
		t.Errorf("hostile paths: %s\nwere\n%s", now, files)
	}
	if got, _ := (&reply{fd: full}).drain(); len(got) != 64<<10 && runtime.GOOS == "linux" || len(bytes.Trim(got, "\x00")) > 0 {
		t.Errorf("the full FIFO held %d bytes", len(got))
	}
	for _, left := range []string{filepath.Join(s.replies, "*"), filepath.Join(s.dir, "client*"), filepath.Join(s.dir, "nobody")} {
		if paths, err := filepath.Glob(left); paths != nil || err != nil {
			t.Errorf("left behind: %v, %v", paths, err)
		}
	}
	if s.output.secrets.Load() > 0 || strings.Contains(s.p.stderr.String(), "Hash") || strings.Contains(s.p.stderr.String(), "secret") {
		t.Error("a secret is in the log")
	}

	// The last act: a SIGQUIT ends a Go program with the stacks of all its goroutines. What was connected before a SIGINT
	// is closed 6 s after it. A quiet server has some 22 goroutines, and one for each connection.
	time.Sleep(time.Until(s.old.Add(8 * time.Second)))
	now := used(s.p.cmd.Process.Pid)
	s.p.signal(syscall.SIGQUIT)
	s.p.wait()
	stacks := strings.Count(s.p.stderr.String(), "\ngoroutine ")
	t.Logf("%d goroutines at the end, %v", stacks, now)
	if stacks == 0 || runtime.GOOS == "linux" && stacks > 32+now.sockets {
		t.Errorf("%d goroutines with %d sockets\n%s", stacks, now.sockets, s.p.stderr.String())
	}
}
