package systemtest

// Whose the FIFOs are, which users and groups can use them, that root lends nobody
// its rights, and that nobody sees the server's memory.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// owned checks a file's owner and mode.
func owned(t *testing.T, path string, uid, gid int, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	st := info.Sys().(*syscall.Stat_t)
	if int(st.Uid) != uid || int(st.Gid) != gid || info.Mode() != mode {
		t.Errorf("%s: owner %d:%d, %v; want %d:%d, %v", path, st.Uid, st.Gid, info.Mode(), uid, gid, mode)
	}
}

// Request FIFOs and their directory, made by root.
func TestRootsFIFOsAreIndimails(t *testing.T) {
	t.Parallel()
	for setting, mode := range map[string]fs.FileMode{"": 0o660, "0666": 0o666, "620": 0o620} {
		s := newSite(t, nil)
		s.accounts()
		s.env["FIFO_MODE"] = setting
		p := s.startCommand(s.namespace("umask 077", "inlookup", "-i", "2"))
		s.answers(p)
		for _, name := range []string{"infifo.1", "infifo.2"} {
			owned(t, s.fifo(name), indimailUser, indimailGroup, fs.ModeNamedPipe|mode)
		}
		owned(t, s.env["INFIFODIR"], indimailUser, indimailGroup, fs.ModeDir|0o775)
		p.terminate()
	}
}

// questioned stands for a server: it reads the request of a client and returns the path of the
// reply FIFO.
func questioned(t *testing.T, fifo *os.File, client *process) string {
	t.Helper()
	var got []byte
	eventually(t, "a request", func() bool {
		buf := make([]byte, 4096)
		n, err := syscall.Read(int(fifo.Fd()), buf)
		if n > 0 {
			got = append(got, buf[:n]...)
		}
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			t.Fatal(err)
		}
		select {
		case <-client.done:
			t.Fatalf("the client ended: %v\n%s", client.cmd.ProcessState, client.stderr.String())
		default:
		}
		return len(got) >= 4 && len(got) >= 4+int(binary.NativeEndian.Uint32(got))
	})
	return strings.Split(string(got[6:]), "\x00")[1]
}

// The reply FIFO of a client: its owner, and its mode whatever the umask.
func TestReplyFIFOsAreIndimails(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		uid, gid, owner, group int
		setting                string
		mode                   fs.FileMode
	}{
		{0, 0, indimailUser, indimailGroup, "", 0o660},
		{0, 0, indimailUser, indimailGroup, "0666", 0o666},
		{clientUser, clientGroup, clientUser, clientGroup, "", 0o660},
		{clientUser, clientGroup, clientUser, clientGroup, "640", 0o640},
	} {
		s := newSite(t, nil)
		s.accounts()
		s.env["FIFO_MODE"], s.env["QUERY_CACHE"] = test.setting, "1"
		if err := errors.Join(os.Mkdir(s.env["INFIFODIR"], 0o755),
			syscall.Mkfifo(s.fifo("infifo"), 0o600),
			os.Chmod(s.fifo("infifo"), 0o666)); err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Open(s.fifo("infifo"), syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		requests := os.NewFile(uintptr(fd), "requests")
		t.Cleanup(func() { requests.Close() })
		script := fmt.Sprintf(`umask 077; exec setpriv --reuid %d --regid %d --clear-groups "$@"`,
			test.uid, test.gid)
		client := s.startCommand(s.namespace(script, "inquerytest", "-q", "7", "example.com"))
		reply := questioned(t, requests, client)
		owned(t, reply, test.owner, test.group, fs.ModeNamedPipe|test.mode)
		answer := inlookup.NewData(inlookup.TypeDomain, "answered.example")
		send(t, reply, []byte(answer.Wire()))
		if status := client.wait(); status != 0 || !strings.Contains(client.stdout.String(),
			"answered.example") {
			t.Errorf("%d: exit %d, %q, %s", i, status, client.stdout.String(), client.stderr.String())
		}
		if exists(reply) {
			t.Errorf("%d: the client left its reply FIFO", i)
		}
	}
}

// A client run as root is answered by a server of another user, in group indimail.
func TestAnotherUsersServerAnswersRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.accounts()
	s.env["QUERY_CACHE"], s.env["INFIFODIR"] = "1", s.give("run", qmaildUser)
	server := s.startCommand(s.namespaceAs(qmaildUser, []int{qmailGroup, indimailGroup}, "inlookup",
		"-i", "2"))
	eventually(t, "the server reads", func() bool { return reachable(s.fifo("infifo.2"), "") })
	for _, umask := range []string{"umask 022", "umask 077"} {
		client := s.namespace(umask, "inquerytest", "-q", "7", "example.com")
		if status, stdout, stderr := s.runCommand(client); status != 0 {
			t.Errorf("%s: exit %d, %q, %s", umask, status, stdout, stderr)
		}
	}
	server.terminate()
}

// A FIFO that another owner made, with another mode, is taken over with a warning, where its mode
// may not be changed.
func TestForeignFIFOIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.accounts()
	s.env["QUERY_CACHE"], s.env["FIFO_MODE"] = "1", "0666"
	if err := errors.Join(os.Mkdir(s.env["INFIFODIR"], 0o755), syscall.Mkfifo(s.fifo("infifo"), 0o600),
		os.Chmod(s.fifo("infifo"), 0o660), os.Chown(s.fifo("infifo"), indimailUser,
			indimailGroup)); err != nil {
		t.Fatal(err)
	}
	server := s.startCommand(s.namespaceAs(qmaildUser, []int{qmailGroup, indimailGroup}, "inlookup"))
	eventually(t, "the server reads", func() bool {
		select {
		case <-server.done:
			t.Fatalf("the server ended:\n%s", server.stderr.String())
		default:
		}
		return reachable(s.fifo("infifo"), "")
	})
	owned(t, s.fifo("infifo"), indimailUser, indimailGroup, fs.ModeNamedPipe|0o660)
	eventually(t, "a warning about the FIFO", func() bool {
		log := server.stderr.String()
		return strings.Contains(log, "warning: ") && strings.Contains(log, s.fifo("infifo"))
	})
	client := s.namespaceAs(clientUser, []int{indimailGroup}, "inquerytest", "-q", "7", "example.com")
	if status, stdout, stderr := s.runCommand(client); status != 0 {
		t.Errorf("exit %d, %q, %s", status, stdout, stderr)
	}
	server.terminate()
}

// defaultDirectory starts server and client without a setting for the directory, and lists the
// FIFOs.
const defaultDirectory = `
"$0/inlookup" & server=$!
tries=100
until "$0/inquerytest" -q 7 example.com; do
	tries=$((tries - 1))
	[ $tries -gt 0 ] || break
	sleep 0.05
done
find /run/indimail /var/indimail -type p 2>/dev/null
kill $server
wait $server
`

// The directory of the FIFOs: that of the C programs of today if it exists, else the older one.
func TestDefaultDirectory(t *testing.T) {
	t.Parallel()
	for preparation, want := range map[string]string{
		"":                                  "/var/indimail/inquery/infifo\n",
		"mkdir -p /run/indimail/inlookup\n": "/run/indimail/inlookup/infifo\n",
	} {
		s := newSite(t, nil)
		s.accounts()
		if strings.HasPrefix(s.dir, "/var/") || strings.HasPrefix(s.dir, "/run/") {
			testmain.Skip(t, "the test's own directory would be hidden")
		}
		delete(s.env, "INFIFODIR")
		s.env["QUERY_CACHE"] = "1"
		hide := "mount -t tmpfs tmpfs /run\nmount -t tmpfs tmpfs /var\n" + preparation
		cmd := s.namespace(hide, "/bin/sh", "-c", defaultDirectory, bin)
		status, stdout, stderr := s.runCommand(cmd)
		answered := strings.Contains(stdout, "Real Domain is example.com\n"+want)
		if status != 0 || !answered {
			t.Errorf("%q: exit %d, want an answer and %q in %q\n%s", preparation, status, want,
				stdout, stderr)
		}
	}
}

// everyQuery is a question of each type, each with an answer.
var everyQuery = []inlookup.Query{
	{Type: inlookup.TypeUser, Email: "over@example.com"},
	{Type: inlookup.TypeRelay, Email: "user@example.com", IP: "192.0.2.10"},
	{Type: inlookup.TypePasswd, Email: "user@example.com"},
	{Type: inlookup.TypeHost, Email: "user@example.com"},
	{Type: inlookup.TypeAlias, Email: "alias@example.com"},
	{Type: inlookup.TypeLimit, Email: "example.com"},
	{Type: inlookup.TypeDomain, Email: "alias.example.org"},
	{Type: inlookup.TypeStatus},
	{Type: inlookup.TypeFlush, Email: "nobody@example.com"},
	{Type: inlookup.TypeExplain, Email: "user@example.com", IP: "3"},
}

// askAll sends a question of each type, twice, to be answered at path, and
// returns when the server is done with all of them.
func (s *site) askAll(path string) {
	s.t.Helper()
	for range 2 {
		for _, q := range everyQuery {
			send(s.t, s.fifo("infifo"), frame(q.Type, q.Email, path, q.IP))
		}
	}
	c := s.newCaller("infifo")
	for range 2 {
		for _, q := range everyQuery { // each lane works in order
			if _, _, err := c.ask(q); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	eventually(s.t, "nobody waits", func() bool { return s.counts()["waiting"] == 0 })
}

// eventualCount waits until a counter of the server has come that far, and
// returns it: of equal questions about the server the last may be counted first.
func (s *site) eventualCount(name string, least int) (n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprint(name, " ", least), func() bool {
		n = int(s.counts()[name])
		return n >= least
	})
	return n
}

// setMode gives the FIFO of a reply a mode and an owner.
func (r *reply) setMode(t *testing.T, mode fs.FileMode, uid int) {
	t.Helper()
	if err := os.Chmod(r.path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.path, uid, uid); err != nil {
		t.Fatal(err)
	}
}

// Root answers only where others than the owner can read or write too. Clients make their FIFOs
// with mode 0660, less the umask.
func TestRootLendsNoRights(t *testing.T) {
	if os.Geteuid() != 0 {
		testmain.Skip(t, "only root can start a server as root")
	}
	s := goldenSite(t, database(t))
	s.serve()
	refused := 0
	for _, test := range []struct {
		mode     fs.FileMode
		uid      int
		answered bool
	}{
		{0o600, 0, false}, {0o700, 0, false}, {0o711, 0, false}, {0o200, 0, false},
		{0o600, nobody, false}, {0o200, nobody, false},
		{0o660, 0, true}, {0o640, 0, true}, {0o644, 0, true}, {0o620, 0, true}, {0o602, 0, true},
		{0o666, 0, true}, {0o660, nobody, true}, {0o640, nobody, true}, {0o666, nobody, true},
	} {
		r := newReply(t, s.env["FIFOTMPDIR"])
		r.setMode(t, test.mode, test.uid)
		s.askAll(r.path)
		if got, _ := r.drain(); (len(got) > 0) != test.answered {
			t.Errorf("mode %v, owner %d: %d bytes, want an answer: %v",
				test.mode, test.uid, len(got), test.answered)
		}
		if !test.answered {
			refused += 2 * len(everyQuery)
		}
		os.Remove(r.path)
	}
	n := s.eventualCount("undeliverable_total", refused)
	if n != refused {
		t.Errorf("%d replies are counted as undeliverable, want %d", n, refused)
	}
}

// A server without rights answers its own user's FIFOs whatever the mode, and none of root's.
func TestNobodysServerAnswersItsOwn(t *testing.T) {
	s := goldenSite(t, database(t))
	s.asNobody()
	s.ownControl(s.env["CONTROLDIR"], nobody, nobody)
	s.give("run", nobody)
	p := s.commandAs(nobody, []uint32{nobody}, "inlookup")
	s.answers(p)
	r := newReply(t, s.env["FIFOTMPDIR"])
	r.setMode(t, 0o600, nobody)
	s.askAll(r.path)
	if got, _ := r.drain(); len(got) == 0 {
		t.Error("no answer into nobody's own FIFO")
	}
	foreign := newReply(t, s.env["FIFOTMPDIR"])
	foreign.setMode(t, 0o600, 0)
	want := int(s.counts()["replies_unopened_total"]) + 2*len(everyQuery)
	s.askAll(foreign.path)
	n := s.eventualCount("replies_unopened_total", want)
	if n != want {
		t.Errorf("%d replies counted as unopened, want %d", n, want)
	}
	if got, _ := foreign.drain(); len(got) > 0 {
		t.Error("an answer into a FIFO of root's")
	}
	p.terminate()
}

// What inlookup.service and run say about groups.
func TestGroupsThatCanUseTheServer(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.asNobody()
	const mail, qmail, other = 60001, 60002, 60003 // a user and its group have the same number
	s.env["INFIFODIR"], s.env["QUERY_CACHE"], s.env["REAL_DOMAINS"] = s.give("run", mail), "1", "example.com"
	replies, tmp := s.give("replies", mail), filepath.Join(s.dir, "all")
	if err := errors.Join(os.Mkdir(tmp, 0o755), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
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
		seconds := "30\n"
		if want != 0 { // an answer that does not come need not be waited for
			seconds = "1\n"
		}
		s.control("timeoutread", seconds)
		timeoutRead := filepath.Join(s.env["CONTROLDIR"], "timeoutread")
		if err := os.Chmod(timeoutRead, 0o644); err != nil {
			t.Fatal(err)
		}
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

// What is in the server's memory, no other process of its user gets at; nor does it go into a core file.
func TestMemoryIsHidden(t *testing.T) {
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
