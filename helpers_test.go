package inlookup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test program be a child of its own, for what a process can do only once.
func TestMain(m *testing.M) {
	switch os.Getenv("INLOOKUP_TEST_CHILD") {
	case "":
		os.Exit(runTests(m))
	case "inquery":
		a, err := Inquery(context.Background(), Query{Type: TypeDomain, Email: "Example.com"})
		fmt.Printf("%T %v %q %v", FromEnv(), FromEnv() == FromEnv(), a, err)
	case "twice":
		q := Query{Type: TypeDomain, Email: "Example.com"}
		Inquery(context.Background(), Query{Type: TypeDomain, Email: "a\x00b"}) // cannot be sent
		a, err1 := Inquery(context.Background(), q)
		b, err2 := Inquery(context.Background(), q)
		fmt.Printf("%q %v\n%q %v", a.Wire(), err1, b.Wire(), err2)
	case "impatient":
		c := &Client{Timeout: 50 * time.Millisecond}
		_, err := c.Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
		fmt.Printf("%t %v", errors.Is(err, ErrUnavailable), err)
	case "two clients":
		twoClients()
	case "own files":
		ownFiles()
	case "kind":
		fmt.Printf("%T", FromEnv())
	case "filtered":
		filteredChild()
	case "unmarked":
		unmarkedChild()
	case "account":
		accountChild()
	}
	os.Exit(0)
}

// runTests runs the tests with a temporary directory of their own. It removes that at the end, and
// when it is interrupted.
func runTests(m *testing.M) (status int) {
	dir, err := os.MkdirTemp("", "inl") // short: the path of a socket has at most 108 bytes
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Chmod(dir, 0o755) // some tests become another user
	os.Setenv("TMPDIR", dir)
	defer os.RemoveAll(dir)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	return m.Run()
}

// skip skips a test. It says so even without -v.
func skip(t testing.TB, why ...any) {
	t.Helper()
	text := strings.TrimSpace(fmt.Sprintln(why...))
	fmt.Fprintf(goTestErrors(), "skipped in inlookup: %s: %s\n", t.Name(), text)
	t.Skip(text)
}

var Skip = skip // for package inlookup_test

// goTestErrors returns the standard error of go test, if that hides ours, as it
// does of several packages. A file it cannot be: go test would write over what
// others append. cmd/internal/testmain, which cannot be used here, does the same.
func goTestErrors() *os.File {
	parent := fmt.Sprintf("/proc/%d/", os.Getppid()) // Linux has these links
	program, _ := os.Readlink(parent + "exe")
	ours, err1 := os.Stat("/proc/self/fd/1")
	shown, err2 := os.Stat(parent + "fd/1")
	errors, err3 := os.Stat(parent + "fd/2")
	if filepath.Base(program) != "go" || err1 != nil || err2 != nil || err3 != nil {
		return os.Stdout
	}
	if os.SameFile(ours, shown) || errors.Mode().IsRegular() {
		return os.Stdout
	}
	if f, err := os.OpenFile(parent+"fd/2", os.O_WRONLY|os.O_APPEND, 0); err == nil {
		return f
	}
	return os.Stdout
}

// child runs the test program with these variables and files, and returns what it prints.
func child(t testing.TB, kind string, files []*os.File, env ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append([]string{"INLOOKUP_TEST_CHILD=" + kind, "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return string(out)
}

// raceMode reports whether the race detector is on: then everything takes some ten times as long.
var raceMode = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" && s.Value == "true"
	})
})

// fewer returns n, or a twentieth of it where the tests must be short or are slow.
func fewer(n int) int {
	if testing.Short() || raceMode() {
		return n / 20
	}
	return n
}

// bit returns 1 for true.
func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// within waits until done is closed.
func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("not in a minute: %s", what)
	}
}

// environment returns a Getenv of NAME, value pairs.
func environment(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// A safeBuffer is a Writer for many goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// --- Resolvers.

type resolverFunc = ResolverFunc

// always answers with a, whatever is asked.
func always(a Answer) Resolver {
	return resolverFunc(func(context.Context, Query) (Answer, error) { return a, nil })
}

// echo answers each question with its address.
var echo = resolverFunc(func(_ context.Context, q Query) (Answer, error) {
	return NewData(q.Type, q.Email), nil
})

var errDown = fmt.Errorf("%w: the database is down", ErrUnavailable)

// A fake is a Resolver that can be down, and counts its questions. It numbers its answers:
// "answer 1" and so on. Names that begin with "no" are absent.
type fake struct {
	mu    sync.Mutex
	asked []Query
	down  bool
	delay time.Duration // before an answer or an error
}

func (f *fake) Resolve(ctx context.Context, q Query) (Answer, error) {
	f.mu.Lock()
	f.asked = append(f.asked, q)
	n, down, delay := len(f.asked), f.down, f.delay
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return Answer{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	if down {
		return Answer{}, errDown
	}
	if strings.HasPrefix(q.Email, "no") {
		return absentAnswer(q), nil
	}
	return numbered(q.Type, n), nil
}

func (f *fake) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func (f *fake) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func numbered(t Type, n int) Answer { return NewData(t, "answer "+strconv.Itoa(n)) }

// absentAnswer is what the wire says of something that is not there.
func absentAnswer(q Query) Answer {
	switch q.Type {
	case TypeUser:
		return NewAnswer(1)
	case TypePasswd:
		return NewData(q.Type, "PWSTRUCT=No such user "+lower(q.Email))
	case TypeAlias:
		return NewData(q.Type, "")
	case TypeDomain:
		return NewData(q.Type, lower(q.Email))
	}
	return NewAnswer(0)
}

// --- The wire.

// wireInt is an int as it travels.
func wireInt(n int) string {
	return string(binary.NativeEndian.AppendUint32(nil, uint32(int32(n))))
}

func (q Query) frame(t testing.TB, reply string) []byte {
	t.Helper()
	b, err := q.appendFrame(nil, reply)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// --- Files and FIFOs.

// mkfifo makes a FIFO with this mode, whatever the umask.
func mkfifo(t testing.TB, path string, mode uint32) {
	t.Helper()
	if err := syscall.Mkfifo(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, os.FileMode(mode)); err != nil {
		t.Fatal(err)
	}
}

// writeFile makes or replaces a file that only its owner can read.
func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// descriptors returns how many file descriptors are open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		skip(t, err)
	}
	return len(list)
}

// names returns the names of the files in a directory.
func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// A replyFIFO is a reply FIFO with its reader.
type replyFIFO struct {
	path string
	fd   int
}

func newReply(t testing.TB) *replyFIFO {
	t.Helper()
	return newReplyAt(t, filepath.Join(t.TempDir(), "reply"))
}

func newReplyAt(t testing.TB, path string) *replyFIFO {
	t.Helper()
	mkfifo(t, path, 0o660)
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	in := &replyFIFO{path, fd}
	t.Cleanup(in.close)
	return in
}

func (in *replyFIFO) close() {
	if in.fd >= 0 {
		syscall.Close(in.fd)
		in.fd = -1
	}
}

// read returns what is in the FIFO now.
func (in *replyFIFO) read() string {
	b := make([]byte, 1<<17)
	n, _ := syscall.Read(in.fd, b)
	return string(b[:max(n, 0)])
}

// readN waits for n bytes.
func (in *replyFIFO) readN(t testing.TB, n int) string {
	t.Helper()
	s := ""
	for end := time.Now().Add(time.Minute); len(s) < n; {
		s += in.read()
		if time.Now().After(end) {
			t.Fatalf("%s: %d bytes in a minute, want %d", in.path, len(s), n)
		}
		time.Sleep(100 * time.Microsecond)
	}
	return s
}

// post writes bytes into a request FIFO.
func post(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}
