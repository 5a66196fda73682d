package systemtest

// The request FIFOs: who may serve them, how many there are and their modes; what
// happens when somebody removes them, or a killed server leaves them. And what
// clients leave.

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// answersAt reports whether a server answers over the request FIFO of that name.
func (s *site) answersAt(name string) bool {
	s.t.Helper()
	r := newReply(s.t, s.env["FIFOTMPDIR"])
	defer os.Remove(r.path)
	fd, err := syscall.Open(s.fifo(name), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, frame(hit.Type, hit.Email, r.path, "")); err != nil {
		return false
	}
	got, err := r.read(500 * time.Millisecond)
	return err == nil && inlookup.WireAnswer(string(got)).Code() == hitCode
}

// remade waits until the FIFO of that name is there and served, and the server
// has said so in its log and in its counters.
func (s *site) remade(p *process, name string, total float64) {
	s.t.Helper()
	eventually(s.t, name+" is served again", func() bool { return s.answersAt(name) })
	info, err := os.Lstat(s.fifo(name))
	if err != nil || info.Mode() != fs.ModeNamedPipe|0o660 {
		s.t.Errorf("%s: %v, %v", name, info, err)
	}
	if text := p.stderr.String(); !strings.Contains(text, s.fifo(name)) {
		s.t.Errorf("the log does not name %s:\n%s", s.fifo(name), text)
	}
	if n := s.counts()["fifos_remade_total"]; n != total {
		s.t.Errorf("%v FIFOs were made again, want %v", n, total)
	}
}

// A tmp cleaner or an administrator removes the request FIFO.
func TestRemovedFIFOIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	// A client that has it open already is answered still.
	held, err := os.OpenFile(s.fifo("infifo.1"), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := os.Remove(s.fifo("infifo.1")); err != nil {
		t.Fatal(err)
	}
	r := newReply(t, s.env["FIFOTMPDIR"])
	if _, err := held.Write(frame(hit.Type, hit.Email, r.path, "")); err != nil {
		t.Fatal(err)
	}
	if got, err := r.read(patience); inlookup.WireAnswer(string(got)).Code() != hitCode || err != nil {
		t.Errorf("over the FIFO that was removed: %x, %v", got, err)
	}
	s.remade(p, "infifo.1", 1)
	p.terminate()
	if left, err := os.ReadDir(s.env["INFIFODIR"]); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Another FIFO stands in its place, which nobody reads.
func TestReplacedFIFOIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	other := filepath.Join(s.env["INFIFODIR"], "other")
	if err := syscall.Mkfifo(other, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, s.fifo("infifo.1")); err != nil {
		t.Fatal(err)
	}
	s.remade(p, "infifo.1", 1)
	if !s.answersAt("infifo.2") {
		t.Error("the other FIFO is not served")
	}
	p.terminate()
	if left, err := os.ReadDir(s.env["INFIFODIR"]); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A file stands in its place. It is somebody's, so it stays; the server says
// what is wrong, and makes the FIFO when there is room for it.
func TestFileInPlaceOfFIFOStays(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	path := s.fifo("infifo.1")
	other := filepath.Join(s.env["INFIFODIR"], "other")
	err := errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Rename(other, path))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the log names the path", func() bool {
		return strings.Contains(p.stderr.String(), path)
	})
	for range 20 {
		if !s.answersAt("infifo.2") {
			t.Fatal("the other FIFO is not served")
		}
	}
	if text, err := os.ReadFile(path); string(text) != "precious" || err != nil {
		t.Errorf("the file: %q, %v", text, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.remade(p, "infifo.1", 1)
	if n := strings.Count(p.stderr.String(), "\n"); n > 20 {
		t.Errorf("%d lines about one file:\n%s", n, p.stderr.String())
	}
}

// The whole directory goes. It comes again, with all FIFOs.
func TestRemovedDirectoryIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	if err := os.RemoveAll(s.env["INFIFODIR"]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both FIFOs are served", func() bool {
		return s.answersAt("infifo.1") && s.answersAt("infifo.2")
	})
	s.remade(p, "infifo.1", 2)
	s.remade(p, "infifo.2", 2)
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

// What somebody reads, and what is no FIFO, is not the server's to remove.
func TestOthersFIFOsStay(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	s.killed("-i", "4")
	for _, name := range []string{"infifo.3", "infifo.4"} { // two that somebody reads
		fd, err := syscall.Open(s.fifo(name), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
	}
	if err := errors.Join(
		os.WriteFile(s.fifo("infifo.5"), []byte("precious"), 0o600), os.Mkdir(s.fifo("infifo.6"), 0o700),
		os.Symlink("infifo.1", s.fifo("infifo.7")), syscall.Mkfifo(s.fifo("infifo.old"), 0o600),
		syscall.Mkfifo(s.fifo("other.8"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.serve("-i", "2")
	want := []string{"infifo.1", "infifo.2", "infifo.3", "infifo.4", "infifo.5", "infifo.6",
		"infifo.7", "infifo.old", "other.8"}
	if names := s.requestFIFOs(); !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if text, err := os.ReadFile(s.fifo("infifo.5")); string(text) != "precious" || err != nil {
		t.Errorf("infifo.5: %q, %v", text, err)
	}
}

// A Client leaves nothing behind, whatever becomes of its question.
func TestClientLeavesNothing(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	p := s.serve()
	c := s.short(50 * time.Millisecond)
	leaves := func(when string, want bool) {
		t.Helper()
		for range 3 {
			_, err := c.Resolve(t.Context(), hit)
			if want && err == nil {
				t.Errorf("%s: no error", when)
			}
		}
		if names := s.replyFIFOs(); len(names) > 0 {
			t.Errorf("%s: left %q", when, names)
		}
	}
	leaves("an answer", false)
	p.signal(syscall.SIGSTOP)
	eventually(t, "the server stands still", func() bool { return stopped(p.cmd.Process.Pid) })
	leaves("no answer in time", true)
	p.signal(syscall.SIGCONT)
	p.terminate()
	leaves("no server", true)
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

// A client chooses among the instances evenly.
func TestClientsChooseEvenly(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "3", "-v")
	for name, want := range map[string]bool{"infifo": false, "infifo.1": true, "infifo.2": true, "infifo.3": true, "infifo.4": false} {
		if exists(s.fifo(name)) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	d := s.directory()
	const asked = 300
	for range asked {
		if status, err := d.Status(t.Context(), "over@example.com"); status != inlookup.StatusOverQuota || err != nil {
			t.Fatalf("%v, %v", status, err)
		}
	}
	counts, total := make(map[string]int), 0
	lines := bufio.NewScanner(strings.NewReader(p.written()))
	for lines.Scan() {
		if name, _, _ := strings.Cut(lines.Text(), "->"); strings.Contains(lines.Text(), "User over@example.com") {
			counts[name]++
			total++
		}
	}
	for _, name := range []string{"infifo.1", "infifo.2", "infifo.3"} {
		if counts[name] <= 50 { // of 100: a standard deviation is 8
			t.Errorf("%d of %d questions over %s", counts[name], asked, name)
		}
	}
	if total != asked {
		t.Errorf("%d of %d questions in debug lines", total, asked)
	}
	p.terminate()
	if left, err := filepath.Glob(s.fifo("*")); left != nil || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
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
