package systemtest

// The tests of this directory run the built commands, over real FIFOs, against a
// private MariaDB. Five files hold what they share: this one the start and the
// end, site_test.go installations and the commands that run there,
// clients_test.go clients as the C programs are, databases_test.go MariaDB and
// what stands between, questions_test.go questions with their answers.
//
// Nothing here sleeps for luck. What takes time is asked for again until it is
// so, or until a deadline says that it never will be. Tests that count what
// MariaDB was asked run one after the other. Those that mostly wait are parallel,
// so go test runs them after all the others.

import (
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

const (
	patience   = time.Minute      // for what must happen at some time
	answerTime = 20 * time.Second // for an answer, whose client mostly waits 4 s
)

// operations says that the tests of operations run too, by the build tag ops.
var operations bool

func TestMain(m *testing.M) {
	time.Local = time.UTC // as the golden transcripts were made
	parallel := 6
	if raceEnabled { // everything takes up to ten times as long, and clients do not wait longer
		parallel = 4
	}
	os.Exit(testmain.Run(m, parallel, setUp))
}

// raceEnabled says that these tests, and the commands they run, are built with
// the race detector.
var raceEnabled = func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

var bin string // directory of the built commands

// setUp builds the commands, and returns what ends the shared MariaDB.
func setUp() (tearDown func(), err error) {
	if bin, err = os.MkdirTemp("", "bin"); err != nil {
		return nil, err
	}
	// Without DWARF it takes half the time to link. Of another user's clone git tells
	// root nothing.
	args := []string{"build", "-ldflags=-w", "-buildvcs=false", "-o", bin}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../inlookup", "../../inquerytest")...)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %v\n%s", build, err, out)
	}
	return shared.stop, nil
}

// readSources reads the directories of what setUp built. go test gives an old
// result again while nothing changed that a test read.
var readSources = sync.OnceFunc(func() {
	// The first holds the package: of that the tests themselves link a part only.
	for _, dir := range []string{"../../..", "../../inlookup", "../../inquerytest", "../build"} {
		os.ReadDir(dir)
	}
})

// dieWithParent has a child killed when these tests end without their cleanup; nil where that cannot be had.
var dieWithParent func(*syscall.SysProcAttr)
