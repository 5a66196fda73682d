// Package testmain is what the tests of each package have in common: they leave
// nothing behind, however they end, and say which tests were skipped.
package testmain

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
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

// sweep removes the directory $0 when its standard input ends. That is when the
// test program ends, even by SIGKILL. The children of the test program may die a
// moment later, so it tries again. What hangs may be mounted still.
const sweep = `
cat
for i in 1 2 3 4 5 6 7 8 9 10; do
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

// String is one line.
func (s *skipped) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, why := range s.whys {
		parts = append(parts, strings.Join(s.names[why], " ")+": "+why)
	}
	return strings.Join(parts, "; ")
}

// say prints what was skipped.
func (s *skipped) say() {
	if text := s.String(); text != "" {
		fmt.Println("skipped:", text)
	}
}
