package systemtest

// What lies about: a request FIFO that somebody removed under the server, FIFOs
// that a killed server left, reply FIFOs of clients that were killed.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
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
func TestFIFORemoved(t *testing.T) {
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
func TestFIFOReplaced(t *testing.T) {
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
func TestFIFOReplacedByFile(t *testing.T) {
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
func TestFIFODirectoryRemoved(t *testing.T) {
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

// requestFIFOs returns the names in the directory of request FIFOs.
func (s *site) requestFIFOs() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.env["INFIFODIR"])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A killed server with more instances leaves FIFOs that nobody reads. Clients
// choose evenly among all, so the next server removes those.
func TestKilledInstances(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		before, after string
		want          []string
	}{
		{"5", "2", []string{"infifo.1", "infifo.2"}},
		{"3", "1", []string{"infifo"}},
		{"1", "2", []string{"infifo.1", "infifo.2"}},
	} {
		s := goldenSite(t, database(t))
		s.killed("-i", test.before)
		s.serve("-i", test.after)
		for range 40 {
			a, err := s.short(patience).Resolve(t.Context(), hit)
			if err != nil || a.Code() != hitCode {
				t.Fatalf("-i %s after -i %s: code %d, %v", test.after, test.before, a.Code(), err)
			}
		}
		names := slices.DeleteFunc(s.requestFIFOs(), func(name string) bool {
			return test.after != "1" && name == "infifo" // no client chooses it
		})
		if !slices.Equal(names, test.want) {
			t.Errorf("-i %s after -i %s: %q, want %q", test.after, test.before, names, test.want)
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

// replyFIFOs returns what lies in the directory of reply FIFOs.
func (s *site) replyFIFOs() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.env["FIFOTMPDIR"])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
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
func TestKilledClient(t *testing.T) {
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

// Under tcpserver each question has a process of its own, which asks the running
// server; and each client does, under tcpclient.
func TestTCPLeavesNothing(t *testing.T) {
	t.Parallel()
	testmain.Need(t, "ucspi-tcp", "tcpserver", "tcpclient")
	s := goldenSite(t, database(t))
	s.serve()
	s.env["QUERY_CACHE"] = "1"
	tcpserver := s.startCommand(s.command("tcpserver", "-1", "-H", "-R", "-l0", "127.0.0.1", "0",
		bin+"/inlookup"))
	defer tcpserver.cmd.Process.Kill()
	port := ""
	eventually(t, "tcpserver says its port", func() bool {
		port = strings.TrimSpace(tcpserver.stdout.String())
		return port != ""
	})
	client := newSite(t, nil)
	client.env["TCPCLIENT"] = "1"
	for range 5 {
		status, _, stderr := client.run("tcpclient", "-H", "-R", "-l0", "127.0.0.1", port,
			bin+"/inquerytest", "-q", "1", "-i", "", "user@example.com")
		if status != 0 {
			t.Fatalf("exit %d, %s", status, stderr)
		}
	}
	if names := client.replyFIFOs(); len(names) > 0 {
		t.Errorf("the clients left %q", names)
	}
	var names []string // the servers' processes may be about to end
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		names = s.replyFIFOs()
		if len(names) == 0 || time.Now().After(deadline) {
			break
		}
	}
	if len(names) > 0 {
		t.Error(fmt.Sprint("the processes of tcpserver left ", names))
	}
}
