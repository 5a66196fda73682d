package systemtest

// The server as a service: what it tells a service manager, what it hides from its neighbours, and
// which groups can use it.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// manager listens as a service manager does.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func told(t *testing.T, l *net.UnixConn) string {
	t.Helper()
	l.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1000)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal("nothing is told:", err)
	}
	return string(b[:n])
}

// notToldLine matches what the server says of a manager that cannot be told.
var notToldLine = regexp.MustCompile(`warning|READY|STOPPING|NOTIFY_SOCKET`)

func TestNotify(t *testing.T) {
	t.Parallel()
	alone := newSite(t, nil).serve()
	alone.terminate()
	if got := alone.stderr.String(); notToldLine.MatchString(got) {
		t.Errorf("without a manager: stderr %q", got)
	}
	names := []string{filepath.Join(t.TempDir(), "notify")}
	if exists("/proc/self") { // Linux has abstract names, which are in no directory
		names = append(names, "@inlookup"+strconv.Itoa(os.Getpid()))
	}
	for _, name := range names {
		s := newSite(t, nil)
		s.env["NOTIFY_SOCKET"] = name
		l := manager(t, name)
		p := s.start("inlookup", "-i", "500")
		if got := told(t, l); got != "READY=1" || !exists(s.fifo("infifo.500")) {
			t.Errorf("%s: %q, the last FIFO there: %v", name, got, exists(s.fifo("infifo.500")))
		}
		p.signal(syscall.SIGHUP) // tells nothing
		p.signal(syscall.SIGTERM)
		if got := told(t, l); got != "STOPPING=1" {
			t.Errorf("%s: %q", name, got)
		}
		if status := p.wait(); status != 0 || notToldLine.MatchString(p.stderr.String()) {
			t.Errorf("%s: exit %d, stderr %q", name, status, p.stderr.String())
		}
	}
}

// A manager that cannot be told, or does not read, costs a warning.
func TestNotifyFails(t *testing.T) {
	t.Parallel()
	full := filepath.Join(t.TempDir(), "full")
	manager(t, full)
	fill, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: full, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		fill.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = fill.Write([]byte("full"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("this system does not wait for room: %v", err)
	}
	for _, name := range []string{full, filepath.Join(t.TempDir(), "missing")} {
		s := newSite(t, nil)
		s.env["NOTIFY_SOCKET"] = name
		p := s.serve()
		p.terminate()
		if got := p.stderr.String(); !strings.Contains(got, "warning: ") || !strings.Contains(got, "READY=1") || !strings.Contains(got, "STOPPING=1") || !strings.Contains(got, name) {
			t.Errorf("stderr %q", got)
		}
	}
}

// What is in the server's memory, no other process of its user gets at; nor does it go into a core file.
func TestSecrets(t *testing.T) {
	t.Parallel()
	if !exists("/proc/self/environ") {
		testmain.Skip(t, "this system does not show processes as Linux does")
	}
	s := newSite(t, nil)
	s.asNobody()
	s.env["INFIFODIR"], s.env["MYSQL_PASSWD"] = filepath.Join(s.dir, "tmp"), "hunter2"
	get := func(p *process, file string) (status int, text string) {
		t.Helper()
		// The first bytes of mem are no memory: who may open it gets an error of another kind.
		prober := s.commandAs(nobody, []uint32{nobody}, "/bin/sh", "-c", `exec 3<"$0" && cat <&3`, fmt.Sprint("/proc/", p.cmd.Process.Pid, "/", file))
		status = prober.wait()
		return status, prober.stdout.String() + prober.stderr.String()
	}
	hidden := func(p *process, file string) bool {
		t.Helper()
		status, text := get(p, file)
		return status != 0 && strings.Contains(strings.ToLower(text), "permission denied") && !strings.Contains(text, "hunter2")
	}
	cmd := s.commandAs(nobody, []uint32{nobody}, "/bin/sleep", "100")
	eventually(t, "a process that hides nothing shows its environment, or this test tests nothing", func() bool {
		_, text := get(cmd, "environ")
		return strings.Contains(text, "hunter2")
	})
	server := s.commandAs(nobody, []uint32{nobody}, "inlookup")
	s.answers(server)
	for _, file := range []string{"environ", "mem", "maps"} {
		if !hidden(server, file) {
			_, text := get(server, file)
			t.Errorf("of the server: %s: %q", file, text)
		}
	}
	in, _ := pipe(t)
	s.env["TCPREMOTEIP"] = "192.0.2.1"
	tcp := s.command("inlookup")
	tcp.Stdin = in
	tcp.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	p := s.startCommand(tcp)
	eventually(t, "under tcpserver, too, the environment is hidden", func() bool { return hidden(p, "environ") })
	delete(s.env, "TCPREMOTEIP")

	// As root, who may raise the limit before.
	s.env["INFIFODIR"] = filepath.Join(s.dir, "run")
	core := func(p *process) string {
		text, err := os.ReadFile(fmt.Sprint("/proc/", p.cmd.Process.Pid, "/limits"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(regexp.MustCompile(`Max core file size.*`).FindString(string(text))), " ")
	}
	p = s.startCommand(s.command("/bin/sh", "-c", `ulimit -c unlimited; exec "$0"`, filepath.Join(bin, "inlookup")))
	s.answers(p)
	if got := core(p); got != "Max core file size 0 0 bytes" {
		t.Errorf("the server's limit: %s", got)
	}
}

// Who is refused a FIFO learns which process has it.
func TestHolder(t *testing.T) {
	t.Parallel()
	if !exists("/proc/locks") {
		testmain.Skip(t, "this system does not show locks as Linux does")
	}
	s := newSite(t, nil)
	p := s.serve()
	status, _, stderr := s.run("inlookup")
	if want := fmt.Sprintf("%s: another server holds this FIFO: process %d (inlookup) holds it\n", s.fifo("infifo"), p.cmd.Process.Pid); status != 111 || !strings.HasSuffix(stderr, want) {
		t.Errorf("exit %d, stderr %q, want %q", status, stderr, want)
	}
}

// What inlookup.service and run say about groups.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.asNobody()
	const mail, qmail, other = 60001, 60002, 60003 // a user and its group have the same number
	s.env["INFIFODIR"], s.env["QUERY_CACHE"], s.env["REAL_DOMAINS"] = s.give("run", mail), "1", "example.com"
	replies, tmp := s.give("replies", mail), filepath.Join(s.dir, "all")
	if err := errors.Join(os.Mkdir(tmp, 0o755), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	s.control("timeoutread", "1\n") // an answer that does not come need not be waited for longer
	if err := os.Chmod(filepath.Join(s.env["CONTROLDIR"], "timeoutread"), 0o644); err != nil {
		t.Fatal(err)
	}
	var server *process
	serve := func(mode string, groups ...uint32) {
		t.Helper()
		if server != nil {
			server.terminate()
		}
		s.env["FIFO_MODE"], s.env["FIFOTMPDIR"] = mode, replies
		server = s.commandAs(mail, groups, "inlookup")
		s.answers(server)
	}
	ask := func(what string, want int, fifotmpdir string, groups ...uint32) {
		t.Helper()
		s.env["FIFOTMPDIR"] = fifotmpdir
		p := s.commandAs(qmail, groups, "inquerytest", "-q", "7", "example.com")
		if got := p.wait(); got != want {
			t.Errorf("%s: exit %d, want %d: %q", what, got, want, p.stderr.String())
		}
	}
	serve("660", mail)
	ask("a program of another group", 111, tmp, qmail)
	ask("of another group, and of mail", 111, tmp, qmail, mail) // it may ask, but the server may not answer
	ask("with mail as its first group", 0, tmp, mail)
	ask("of another group, and of mail, with a directory that hands on its group", 0, replies, qmail, mail)
	serve("660", mail, qmail)
	ask("of mail as well, where the server is in the first group", 0, tmp, qmail, mail)
	ask("not of mail, where the server is in its group", 111, tmp, qmail)
	serve("666", mail)
	ask("of another group, FIFO_MODE=0666, with a directory that hands on its group", 0, replies, qmail)
}
