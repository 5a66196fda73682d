package systemtest

// The request FIFOs: who may serve them, how many there are and their modes; what
// happens when somebody removes them, or a killed server leaves them. And what
// clients leave.

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
)

// A tmp cleaner or an administrator removes the request FIFO.
func TestRemovedFIFOIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	path := s.fifo("infifo.1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log says that it is made again", func() bool {
		return strings.Contains(p.stderr.String(), path+" was removed or replaced: made again")
	})
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeNamedPipe|0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if a, err := s.ask("infifo.1", hit); a.Code() != hitCode || err != nil {
		t.Errorf("code %d, %v", a.Code(), err)
	}
	if n := s.counts()["fifos_remade_total"]; n != 1 {
		t.Errorf("%v FIFOs were made again, want 1", n)
	}
	p.terminate()
	if left := s.requestFIFOs(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// killed starts a server and kills it, so that its FIFOs stay.
func (s *site) killed(args ...string) {
	s.t.Helper()
	p := s.start("inlookup", args...)
	s.answers(p)
	p.cmd.Process.Kill()
	<-p.done
}

// names returns what lies in a directory.
func (s *site) names(dir string) (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (s *site) requestFIFOs() []string { return s.names(s.env["INFIFODIR"]) }

func (s *site) replyFIFOs() []string { return s.names(s.env["FIFOTMPDIR"]) }

// What a killed server left answers nobody, and hinders no other server, with as
// many instances or others. Clients choose evenly among the FIFOs that there are:
// so the next server removes those beyond its own.
func TestFIFOsOfAKilledServerGo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		before, after string
		want          []string
	}{
		{"1", "1", []string{"infifo"}},
		{"3", "3", []string{"infifo.1", "infifo.2", "infifo.3"}},
		{"5", "2", []string{"infifo.1", "infifo.2"}},
		{"3", "1", []string{"infifo"}},
		{"1", "2", []string{"infifo.1", "infifo.2"}},
	} {
		what := fmt.Sprintf("-i %s after -i %s", test.after, test.before)
		s := goldenSite(t, database(t))
		s.killed("-i", test.before)
		if len(s.requestFIFOs()) == 0 {
			t.Fatal("no FIFO is left: this test tests nothing")
		}
		if _, err := s.client().Resolve(t.Context(), hit); err == nil {
			t.Error("an answer from a dead server")
		}
		p := s.serve("-i", test.after)
		for range 40 {
			a, err := s.short(patience).Resolve(t.Context(), hit)
			if err != nil || a.Code() != hitCode {
				t.Fatalf("%s: code %d, %v", what, a.Code(), err)
			}
		}
		left := slices.DeleteFunc(s.requestFIFOs(), func(name string) bool {
			return test.after != "1" && name == "infifo" // no client chooses it
		})
		if !slices.Equal(left, test.want) {
			t.Errorf("%s: %q, want %q", what, left, test.want)
		}
		p.terminate()
		for _, name := range test.want {
			if exists(s.fifo(name)) {
				t.Errorf("%s: %s is left", what, name)
			}
		}
	}
}

// inquerytest, a process for each question, leaves nothing; killed while it
// waits it leaves the one FIFO of its question.
func TestKilledClientLeavesOneFIFO(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve()
	s.env["QUERY_CACHE"] = "1"
	args := []string{"-q", "1", "-i", "", "user@example.com"}
	if status, _, stderr := s.run("inquerytest", args...); status != 0 {
		t.Fatalf("exit %d, %s", status, stderr)
	}
	if names := s.replyFIFOs(); len(names) > 0 {
		t.Errorf("an answer: left %q", names)
	}
	p.signal(syscall.SIGSTOP)
	for n := 1; n <= 3; n++ {
		client := s.start("inquerytest", args...)
		eventually(t, "the client asks", func() bool { return len(s.replyFIFOs()) == n })
		client.cmd.Process.Kill()
		<-client.done
		if names := s.replyFIFOs(); len(names) != n {
			t.Errorf("%d clients killed: left %q", n, names)
		}
	}
	p.signal(syscall.SIGCONT)
}

// A second server on the same FIFO is refused, and learns which process has it.
// The first one does not notice.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	holder := "another server holds this FIFO"
	if exists("/proc/locks") { // Linux shows locks
		holder += fmt.Sprintf(": process %d (inlookup) holds it\n", p.cmd.Process.Pid)
	}
	for _, args := range [][]string{{"-i", "2"}, {"-f", s.fifo("infifo.2")}, {"-f", "infifo.1"}} {
		status, stdout, stderr := s.run("inlookup", args...)
		right := strings.Contains(stderr, s.fifo("infifo.")) && strings.Contains(stderr, holder)
		if status != 111 || stdout != "" || !right || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q, want %q", args, status, stdout, stderr, holder)
		}
	}
	if a, err := s.ask("infifo.2", inlookup.Query{Type: inlookup.TypeUser, Email: "over@example.com"}); a.Code() != 3 || err != nil {
		t.Errorf("the first server: %x, %v", a, err)
	}
	file := filepath.Join(s.dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := s.run("inlookup", "-f", file)
	if text, err := os.ReadFile(file); status != 111 || !strings.Contains(stderr, file) || string(text) != "precious" || err != nil {
		t.Errorf("-f file: exit %d, stderr %q, the file %q, %v", status, stderr, text, err)
	}
}

// With one instance the FIFO is NAME alone, and clients find it.
func TestOneInstanceHasNoNumber(t *testing.T) {
	t.Parallel()
	for _, infifo := range []string{"", "name", "path"} {
		s := goldenSite(t, database(t))
		want := s.fifo("infifo")
		switch infifo {
		case "name":
			s.env["INFIFO"], want = "other", s.fifo("other")
		case "path":
			want = filepath.Join(s.dir, "far", "away", "fifo")
			s.env["INFIFO"] = want
		}
		p := s.serve("-i", "1")
		s.env["QUERY_CACHE"] = "1"
		if status, stdout, stderr := s.run("inquerytest", "-q", "1", "over@example.com"); status != 0 ||
			stdout != "over@example.com is Overquota on this domain (#5.2.2)\n" {
			t.Errorf("INFIFO=%s: exit %d, stdout %q, stderr %q", s.env["INFIFO"], status, stdout, stderr)
		}
		if !exists(want) || exists(want+".1") {
			t.Errorf("%s: %v, %s.1: %v", want, exists(want), want, exists(want+".1"))
		}
		p.terminate()
		if exists(want) {
			t.Errorf("%s is left", want)
		}
	}
}

// Modes do not depend on the umask, nor on what lies there already.
func TestModesWhateverTheUmask(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		umask, mode, old string
		want             os.FileMode
	}{
		{"077", "", "", 0o660},
		{"000", "", "", 0o660},
		{"077", "622", "", 0o622},
		{"022", "0666", "", 0o666},
		{"022", "", "0600", 0o660},
		{"022", "0640", "0666", 0o640},
	} {
		s := newSite(t, nil)
		s.env["INFIFODIR"] = filepath.Join(s.dir, "missing", "both")
		if test.old != "" {
			if out, err := exec.Command("sh", "-c", `mkdir -p "$1" && mkfifo "$1/infifo" && chmod "$2" "$1/infifo"`, "sh", s.env["INFIFODIR"], test.old).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
		}
		if test.mode != "" {
			s.env["FIFO_MODE"] = test.mode
		}
		p := s.startCommand(s.command("/bin/sh", "-c", "umask "+test.umask+`; exec "$0"`, filepath.Join(bin, "inlookup")))
		s.answers(p)
		if st, err := os.Lstat(s.fifo("infifo")); err != nil || st.Mode() != os.ModeNamedPipe|test.want {
			t.Errorf("%+v: %v, %v", test, st.Mode(), err)
		}
		for _, dir := range []string{s.env["INFIFODIR"], filepath.Dir(s.env["INFIFODIR"])} {
			if st, err := os.Stat(dir); test.old == "" && (err != nil || st.Mode().Perm() != 0o775) {
				t.Errorf("%+v: directory %v, %v", test, st.Mode(), err)
			}
		}
		p.terminate()
	}
}
