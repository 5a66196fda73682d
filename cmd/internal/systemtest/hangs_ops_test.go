//go:build ops && linux

package systemtest

// A directory that hangs, as one does when its NFS server is gone. It is a FUSE
// file system whose daemon, this test, never says a word.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// hang has every look into dir wait until the end of the test, or until the
// function that it returns is called.
func hang(t *testing.T, dir string) (end func()) {
	t.Helper()
	device, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		testmain.Skip(t, "no directory can be made to hang:", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other",
		device, os.Getuid(), os.Getgid())
	const flags = syscall.MS_NOSUID | syscall.MS_NODEV
	if err := syscall.Mount("hang", dir, "fuse", flags, options); err != nil {
		syscall.Close(device)
		testmain.Skip(t, "no directory can be made to hang:", err)
	}
	var ended atomic.Bool
	end = func() {
		if ended.Swap(true) {
			return
		}
		if err := syscall.Unmount(dir, syscall.MNT_FORCE|syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		syscall.Close(device) // whoever still waits gets an error
	}
	t.Cleanup(end)
	return end
}

// The directory of one domain hangs, and 3,000 of its users are asked for. They
// get an error, and nobody else notices; nor do they take a thread each.
func TestHungDirectoryDelaysNobodyElse(t *testing.T) {
	s := goldenSite(t, database(t))
	mail := filepath.Join(s.dir, "mail")
	addUser(t, database(t), "hang", "hung.test", "hash")
	lines := ""
	for _, domain := range []string{"hung.test", "example.com"} {
		dir := filepath.Join(mail, domain, "domains", domain)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		lines += fmt.Sprintf("+%s-:%[1]s:1:1:%s:-::\n", domain, dir)
	}
	assign := filepath.Join(s.dir, "users", "assign")
	if err := os.WriteFile(assign, []byte(lines+".\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	end := hang(t, filepath.Join(mail, "hung.test"))
	p := s.serve()
	pid := p.cmd.Process.Pid
	c := s.newCaller("infifo")
	usual := median(s.misses(c, "example.com", 100, 5*time.Second))

	const questions = 3000
	r := newReply(t, s.env["FIFOTMPDIR"])
	told := make(chan int, 1)
	go func() { told <- countErrors(r, questions) }()
	threads := 0
	for range questions {
		b := frame(inlookup.TypeUser, newUser()+"@hung.test", r.path, "")
		if err := writeRequest(s.fifo("infifo"), b); err != nil {
			t.Fatal(err)
		}
		threads = max(threads, used(pid).threads)
	}
	beside := median(s.misses(c, "example.com", 100, 5*time.Second))
	n := -1
	eventually(t, "the questions are answered", func() bool {
		threads = max(threads, used(pid).threads)
		select {
		case n = <-told:
		default:
		}
		return n >= 0
	})
	t.Logf("median of a miss: %v, beside the hung directory %v; %d told; %d threads at most",
		usual, beside, n, threads)
	if n != questions {
		t.Errorf("%d of %d were told that there was an error", n, questions)
	}
	if threads >= 100 {
		t.Errorf("%d threads", threads)
	}
	// Who waited for the directory would wait for seconds.
	if beside > 5*usual+100*time.Millisecond {
		t.Errorf("a miss takes %v beside a hung directory, else %v", beside, usual)
	}
	end()
	eventually(t, "the domain's user is there when the directory is", func() bool {
		code, _, err := c.ask(inlookup.Query{Type: inlookup.TypeUser, Email: "hang@hung.test"})
		return err == nil && code == int(inlookup.StatusActive)
	})
}

// countErrors counts the errors that come, until all have come or for some time
// none has, and returns -1 for anything else.
func countErrors(r *reply, want int) (n int) {
	refusal := inlookup.NewAnswer(-1)
	buf := make([]byte, 4*want)
	got := ""
	for last := time.Now(); len(got) < 4*want && time.Since(last) < patience/2; {
		size, err := syscall.Read(r.fd, buf)
		if size <= 0 {
			if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
				return -1
			}
			time.Sleep(time.Millisecond)
			continue
		}
		last = time.Now()
		got += string(buf[:size])
	}
	for i := 0; i+4 <= len(got); i += 4 {
		if got[i:i+4] == refusal.Wire() {
			n++
		}
	}
	return n
}

// Somebody asks what memory holds, and wants the answer at a path that hangs. With REPLYDIR that
// delays nobody. Without it the request FIFO is not read as long as the path hangs, and then again.
func TestReplyPathThatHangs(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		s := goldenSite(t, database(t))
		if guarded {
			s.env["REPLYDIR"] = s.env["FIFOTMPDIR"]
		}
		hung := filepath.Join(s.dir, "hung")
		if err := os.Mkdir(hung, 0o755); err != nil {
			t.Fatal(err)
		}
		end := hang(t, hung)
		p := s.serve()
		ask := func() {
			t.Helper()
			status, err := s.directory().Status(t.Context(), "user@example.com")
			if err != nil || status != inlookup.StatusActive {
				t.Errorf("REPLYDIR set: %v: %v, %v", guarded, status, err)
			}
		}
		ask()
		path := filepath.Join(hung, "reply")
		send(t, s.fifo("infifo"), frame(inlookup.TypeUser, "user@example.com", path, ""))
		if guarded {
			ask()
			eventually(t, "a line that names the path", func() bool {
				return strings.Contains(p.stderr.String(), path+`": outside REPLYDIR`)
			})
		}
		end()
		ask()
		p.terminate()
	}
}
