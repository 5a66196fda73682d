// Package testmain is what the tests of each package have in common: they leave
// neither files nor processes behind, however they end, and say which tests were
// skipped.
package testmain

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Run runs the tests of a package between setUp, unless it is nil, and what that
// returns. Run returns the status to exit with. All temporary directories are
// below one that is gone afterwards. Unless -parallel says otherwise, at least
// this many tests run at a time: most of those that are parallel wait.
func Run(m *testing.M, parallel int, setUp func() (tearDown func(), err error)) (status int) {
	flag.Parse()
	if !given("test.parallel") && parallel > runtime.GOMAXPROCS(0) {
		flag.Set("test.parallel", strconv.Itoa(parallel))
	}
	remove, err := ownTemp()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	if setUp != nil {
		tearDown, err := setUp()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer tearDown()
	}
	status = m.Run()
	skips.say()
	return status
}

// given reports whether the command line has that flag.
func given(name string) (is bool) {
	flag.Visit(func(f *flag.Flag) { is = is || f.Name == name })
	return is
}

// sweep ends processes and removes the directory $0 when its standard input
// ends. That is when the test program ends, even by SIGKILL. The processes are
// those whose program or directory lies in $0: what a shell of a test left in the
// background, and what has changed its user, which lets it outlive its parent.
// Others may die a moment later, so it tries again. What hangs may be mounted
// still.
const sweep = `
cat
for i in 1 2 3 4 5 6 7 8 9 10; do
	kill -9 $({
		ls -l /proc/[0-9]*/exe /proc/[0-9]*/cwd | grep -- "-> $0/"
		grep -las "^$0/" /proc/[0-9]*/cmdline
	} 2>/dev/null | sed 's|.*/proc/\([0-9]*\)/.*|\1|') 2>/dev/null
	rm -rf "$0" && exit
	sleep 1
	chmod -R u+rwX "$0"
	sed -n "s|^[^ ]* \($0/[^ ]*\) .*|\1|p" /proc/mounts | xargs umount -l
done`

// ownTemp makes a directory, sets TMPDIR to it, and returns what removes it.
func ownTemp() (remove func(), err error) {
	// A short name: a socket's path may have some 100 bytes.
	dir, err := os.MkdirTemp("", "inl")
	if err != nil {
		return nil, err
	}
	// Some tests start programs as another user.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	os.Setenv("TMPDIR", dir)
	sweeper := exec.Command("/bin/sh", "-c", sweep, dir)
	sweeper.Dir = "/"
	// Signals of the terminal are not for it.
	sweeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := sweeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := sweeper.Start(); err != nil {
		return nil, err
	}
	return func() {
		in.Close()
		sweeper.Wait()
	}, nil
}

// Skip skips a test, and has Run say why.
func Skip(t testing.TB, args ...any) {
	t.Helper()
	why := strings.TrimSpace(fmt.Sprintln(args...))
	skips.add(t.Name(), why)
	t.Skip(why)
}

// Missing skips a test that lacks what could be installed. With
// INLOOKUP_NEED_MARIADB in the environment, as in .ci/run, the test fails.
func Missing(t testing.TB, args ...any) {
	t.Helper()
	if os.Getenv("INLOOKUP_NEED_MARIADB") != "" {
		t.Fatal(args...)
	}
	Skip(t, args...)
}

// Need skips or fails a test that lacks one of these programs.
func Need(t testing.TB, debian string, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program, "is not installed: apt-get install", debian)
		}
	}
}

// skips has the tests of this package that were skipped.
var skips skipped

type skipped struct {
	mu    sync.Mutex
	whys  []string            // in the order of the first test
	names map[string][]string // by the reason
}

func (s *skipped) add(name, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = make(map[string][]string)
	}
	if !slices.Contains(s.names[why], name) { // it can run several times
		s.names[why] = append(s.names[why], name)
	}
	if !slices.Contains(s.whys, why) {
		s.whys = append(s.whys, why)
	}
}

// String is one line. Of many tests with the same reason it names the first: so
// the reasons stay in sight.
func (s *skipped) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, why := range s.whys {
		names := strings.Join(s.names[why], " ")
		if n := len(s.names[why]); n > 6 {
			names = fmt.Sprintf("%s and %d more", strings.Join(s.names[why][:3], " "), n-3)
		}
		parts = append(parts, names+": "+why)
	}
	return strings.Join(parts, "; ")
}

// say prints what was skipped. Of several packages go test shows only the output
// of those that fail. So this goes to where go test itself writes its errors.
func (s *skipped) say() {
	text := s.String()
	if text == "" {
		return
	}
	program := strings.TrimSuffix(filepath.Base(os.Args[0]), ".test")
	text = fmt.Sprintf("skipped in %s: %s\n", program, text)
	if f := goTestErrors(); f != nil {
		defer f.Close()
		io.WriteString(f, text)
		return
	}
	io.WriteString(os.Stdout, text)
}

// goTestErrors returns the standard error of go test, if that hides our output;
// else nil. It must be no file: there go test would write over what others
// append.
func goTestErrors() *os.File {
	parent := fmt.Sprintf("/proc/%d/", os.Getppid()) // Linux has these links
	program, _ := os.Readlink(parent + "exe")
	ours, err1 := os.Stat("/proc/self/fd/1")
	shown, err2 := os.Stat(parent + "fd/1")
	errors, err3 := os.Stat(parent + "fd/2")
	if filepath.Base(program) != "go" || err1 != nil || err2 != nil || err3 != nil {
		return nil
	}
	if os.SameFile(ours, shown) || errors.Mode().IsRegular() {
		return nil
	}
	f, err := os.OpenFile(parent+"fd/2", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil
	}
	return f
}
