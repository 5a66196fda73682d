package testmain

// What is left when tests have ended, in whatever way, and what go test shows of
// those that were skipped.

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child is set in this program when it stands for the tests of another package.
const child = "INLOOKUP_TESTMAIN_CHILD"

func TestMain(m *testing.M) { os.Exit(Run(m, 0, nil)) }

// TestChild is what the child runs. It leaves a process in the background whose
// program lies in the temporary directory, and one that works there.
func TestChild(t *testing.T) {
	switch os.Getenv(child) {
	case "":
		return
	case "skips":
		Skip(t, "there is no reason")
	}
	const script = `cp /bin/sleep "$0"; "$0" 1000 & cd "$1"; sleep 1000 & echo "$1"`
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", script, filepath.Join(dir, "program"), dir)
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if os.Getenv(child) == "waits" {
		select {}
	}
}

// Neither processes nor files stay, whether the tests end or are ended.
func TestNothingIsLeft(t *testing.T) {
	for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		mode := "ends"
		if sig != 0 {
			mode = "waits"
		}
		cmd.Env = append(os.Environ(), child+"="+mode)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		dir := strings.TrimSpace(line)
		if err != nil || !filepath.IsAbs(dir) {
			t.Fatalf("the child's directory: %q, %v", line, err)
		}
		if sig != 0 {
			cmd.Process.Signal(sig)
		}
		cmd.Wait()
		top := filepath.Dir(filepath.Dir(dir)) // of all the child's tests
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			_, err := os.Lstat(top)
			left := processesIn(t, top)
			if errors.Is(err, fs.ErrNotExist) && len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("signal %d: %s: %v; processes %v", sig, top, err, left)
			}
		}
	}
}

// processesIn returns the processes whose program or directory lies in dir.
func processesIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	for _, link := range []string{"exe", "cwd"} {
		links, err := filepath.Glob("/proc/[0-9]*/" + link)
		if err != nil || len(links) == 0 {
			Skip(t, "this system does not show processes as Linux does")
		}
		for _, path := range links {
			if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, dir+"/") {
				found = append(found, path)
			}
		}
	}
	return found
}

// One line about skipped tests is shown without -v, for several packages too.
func TestSkipsAreSaid(t *testing.T) {
	for _, packages := range [][]string{nil, {"."}, {".", "../build"}} {
		cmd := exec.Command("go", append([]string{"test", "-count=1", "-run", "^TestChild$"}, packages...)...)
		cmd.Env = append(os.Environ(), child+"=skips")
		out, err := cmd.CombinedOutput()
		const line = "skipped in testmain: TestChild: there is no reason\n"
		if err != nil || strings.Count(string(out), line) != 1 {
			t.Errorf("go test %q: %v\n%swant one line %q", packages, err, out, line)
		}
	}
}

// Each reason is said once, with the first of its tests if they are many.
func TestManySkipsAreCounted(t *testing.T) {
	var s skipped
	for i := range 120 {
		s.add(fmt.Sprint("Test", i), "no database")
	}
	s.add("TestRights", "no root")
	const want = "Test0 Test1 Test2 and 117 more: no database; TestRights: no root"
	if got := s.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
