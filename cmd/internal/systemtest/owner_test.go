package systemtest

// Whose the FIFOs are, on a machine that has the accounts of IndiMail. They are there in a mount
// namespace alone, where files of the test's own lie over /etc/passwd and /etc/group.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
func TestOwnerRequest(t *testing.T) {
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
func TestOwnerReply(t *testing.T) {
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
func TestOwnerRootClient(t *testing.T) {
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
func TestOwnerForeign(t *testing.T) {
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
