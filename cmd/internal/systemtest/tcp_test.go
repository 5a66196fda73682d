package systemtest

// Over TCP: tcpserver gives inlookup a connection as descriptors 0 and 1, tcpclient gives inquerytest one as 6 and 7.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// tcp runs inlookup as tcpserver does, with pipes for the connection.
func (s *site) tcp(request []byte) (status int, answer, stderr string) {
	s.t.Helper()
	cmd := s.command("inlookup")
	cmd.Env = append(cmd.Env, "TCPREMOTEIP=192.0.2.200", "PROTO=TCP")
	cmd.Stdin = bytes.NewReader(request)
	return s.runCommand(cmd)
}

func TestTCPServerAnswersOnce(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	for i, r := range goldenRows(t) {
		if i == 20 { // from here on it is the front of a running server
			s.serve()
			s.env["QUERY_CACHE"] = "1"
		}
		for range 2 {
			if status, answer, stderr := s.tcp(r.to("socket")); status != 0 || answer != r.answer.Wire() || stderr != "" {
				t.Errorf("%v of %s: exit %d, %x, want %x, stderr %q", r.query.Type, r.query.Email, status, answer, r.answer, stderr)
			}
		}
	}
	if counts := s.counts(); counts["cache_hits_total"] < 10 || counts["cache_hits_total"] != counts["cache_misses_total"] {
		t.Errorf("%v hits and %v misses of the server behind it, want each question once and once more", counts["cache_hits_total"], counts["cache_misses_total"])
	}
	for name, test := range map[string]struct {
		request []byte
		status  int
		answer  inlookup.Answer
	}{
		"nothing":            {nil, 111, inlookup.Answer{}},
		"garbage":            {[]byte("GET / HTTP/1.0\r\n\r\n"), 111, inlookup.Answer{}},
		"half a request":     {frame(inlookup.TypeUser, "user@example.com", "socket", "")[:20], 111, inlookup.Answer{}},
		"an unknown type":    {frame(9, "user@example.com", "socket", ""), 111, inlookup.Answer{}},
		"a request too long": {frame(inlookup.TypeUser, strings.Repeat("u", 5000), "socket", ""), 111, inlookup.Answer{}},
		"two requests": {bytes.Repeat(frame(inlookup.TypeUser, "over@example.com", "socket", ""), 2), 0,
			inlookup.NewAnswer(int(inlookup.StatusOverQuota))},
		"a file to answer": {frame(inlookup.TypeUser, "over@example.com", "/etc/passwd", ""), 0, inlookup.NewAnswer(int(inlookup.StatusOverQuota))},
	} {
		status, answer, stderr := s.tcp(test.request)
		if status != test.status || answer != test.answer.Wire() || (status == 0) != (stderr == "") {
			t.Errorf("%s: exit %d, want %d, %x, want %x, stderr %q", name, status, test.status, answer, test.answer, stderr)
		}
	}
}

// Without a database the asker is told so, in time.
func TestTCPClientIsToldOfAnError(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.env["MYSQL_SOCKET"] = s.dir + "/none"
	for typ, want := range map[inlookup.Type]int{inlookup.TypeUser: -1, inlookup.TypePasswd: 0, inlookup.TypeAlias: -1, inlookup.TypeHost: -1, inlookup.TypeLimit: -1} {
		start := time.Now()
		_, answer, stderr := s.tcp(frame(typ, "user@example.com", "socket", ""))
		if a := inlookup.WireAnswer(answer); len(answer) != 4 || a.Code() != want || time.Since(start) > inTime || stderr == "" {
			t.Errorf("%v: %x, want %d, after %v, stderr %q", typ, a, want, time.Since(start), stderr)
		}
	}
}

// A client on a slow line: its request comes byte by byte.
func TestSlowTCPRequestIsUnderstood(t *testing.T) {
	t.Parallel()
	s := goldenSite(t, database(t))
	cmd := s.command("inlookup")
	cmd.Env = append(cmd.Env, "TCPREMOTEIP=192.0.2.200")
	in, out := pipe(t)
	cmd.Stdin = in
	p := s.startCommand(cmd)
	for _, b := range frame(inlookup.TypeUser, "over@example.com", "socket", "") {
		if _, err := out.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // not for luck: however it is cut, it must be understood
	}
	if status := p.wait(); status != 0 || p.stdout.String() != inlookup.NewAnswer(3).Wire() { // with out still open
		t.Errorf("exit %d, %x", status, p.stdout.String())
	}
}

// pipe returns both ends of one, which close when the test ends.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// TestInquerytestOverTCP plays the server to an inquerytest that tcpclient would have started.
func TestInquerytestOverTCP(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	golden := make(map[string]row)
	for _, r := range goldenRows(t) {
		golden[fmt.Sprint(int(r.query.Type), " ", r.query.Email)] = r
	}
	for _, c := range goldenCommands(t) {
		r, ok := golden[c.args[1]+" "+c.args[4]] // -q type -i "" email
		if !ok {
			continue
		}
		answers, toClient := pipe(t)
		fromClient, requests := pipe(t)
		cmd := s.command("inquerytest", c.args...)
		cmd.Env = append(cmd.Env, "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.200")
		cmd.ExtraFiles = []*os.File{nil, nil, nil, answers, requests}
		p := s.startCommand(cmd)
		requests.Close()
		request, err := readRequest(fromClient)
		if want := r.to("socket"); err != nil || !bytes.Equal(request, want) {
			t.Errorf("%q: request %q, %v, want %q", c.args, request, err, want)
		}
		for _, part := range []string{r.answer.Wire()[:3], r.answer.Wire()[3:]} { // a connection cuts where it likes
			if _, err := io.WriteString(toClient, part); err != nil {
				t.Fatal(err)
			}
		}
		if status := p.wait(); status != c.status || p.stdout.String() != c.stdout {
			t.Errorf("%q: exit %d, want %d, stdout %q, want %q, stderr %q", c.args, status, c.status, p.stdout.String(), c.stdout, p.stderr.String())
		}
	}
	// A server that goes away without an answer.
	answers, toClient := pipe(t)
	_, requests := pipe(t)
	cmd := s.command("inquerytest", "-q", "1", "user@example.com")
	cmd.Env = append(cmd.Env, "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.200")
	cmd.ExtraFiles = []*os.File{nil, nil, nil, answers, requests}
	toClient.Close()
	if status, stdout, stderr := s.runCommand(cmd); status != 111 || stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("no answer: exit %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func readRequest(r io.Reader) ([]byte, error) {
	b := make([]byte, 4, 4096)
	if _, err := io.ReadFull(r, b); err != nil {
		return b, err
	}
	b = b[:4+binary.NativeEndian.Uint32(b)]
	_, err := io.ReadFull(r, b[4:])
	return b, err
}

// TestTcpclientAsksTcpserver asks by tcpclient and inquerytest of tcpserver and inlookup, which is the front of a running inlookup.
func TestTcpclientAsksTcpserver(t *testing.T) {
	t.Parallel()
	testmain.Need(t, "ucspi-tcp", "tcpserver", "tcpclient")
	s := goldenSite(t, database(t))
	s.serve()
	client := newSite(t, nil) // knows nothing but the connection
	s.env["QUERY_CACHE"] = "1"
	server := s.startCommand(s.command("tcpserver", "-1", "-H", "-R", "-l0", "127.0.0.1", "0", bin+"/inlookup"))
	defer server.cmd.Process.Kill()
	port := ""
	eventually(t, "tcpserver says its port", func() bool {
		port = strings.TrimSpace(server.stdout.String())
		return port != ""
	})
	client.env["TCPCLIENT"] = "1"
	for i, c := range goldenCommands(t) {
		if i%3 > 0 {
			continue
		}
		for range 2 {
			args := append([]string{"-H", "-R", "-l0", "127.0.0.1", port, bin + "/inquerytest"}, c.args...)
			status, stdout, stderr := client.runCommand(client.command("tcpclient", args...))
			if status != c.status || stdout != c.stdout {
				t.Errorf("%q: exit %d, want %d, stdout %q, want %q, stderr %q", c.args, status, c.status, stdout, c.stdout, stderr)
			}
		}
	}
	if hits := s.counts()["cache_hits_total"]; hits < 10 {
		t.Errorf("%v hits of the server behind tcpserver", hits)
	}
	if names := client.replyFIFOs(); len(names) > 0 {
		t.Errorf("the clients left %q", names)
	}
	// Each question had a process of its own, which asked the running server.
	eventually(t, "the processes of tcpserver leave nothing", func() bool {
		return len(s.replyFIFOs()) == 0
	})
}
