package inlookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// newClient returns a client of the server whose FIFOs are in dir, and the directory of its reply
// FIFOs.
func newClient(t testing.TB, dir string, env ...string) (c *Client, tmp string) {
	tmp = t.TempDir()
	env = append([]string{"INFIFODIR", dir, "FIFOTMPDIR", tmp, "CONTROLDIR", dir}, env...)
	return &Client{Timeout: time.Minute, Getenv: environment(env...)}, tmp
}

// askEcho asks c, whose server echoes, and checks that the answer is to this question.
func askEcho(t testing.TB, c *Client, email string) {
	t.Helper()
	a, err := c.Resolve(context.Background(), Query{Type: TypeHost, Email: email})
	if text, err2 := a.Text(); err != nil || err2 != nil || text != email {
		t.Errorf("asked about %s: %q, %v", email, a, err)
	}
}

// nothingLeft checks that a directory is empty.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// A cServer answers like the C server: code and data in two writes, then it unlinks the reply
// FIFO.
type cServer struct {
	answer      func(r request) Answer // "": none
	keep        bool                   // does not unlink
	unlinkFirst bool                   // before it closes
}

// start serves on FIFO infifo in dir, until stop or the end of the test. A goroutine of its own
// answers each request.
func (s *cServer) start(t testing.TB, dir, infifo string) (stop func()) {
	t.Helper()
	path := filepath.Join(dir, infifo)
	if err := syscall.Mkfifo(path, 0o600); err != nil && err != syscall.EEXIST {
		t.Fatal(err)
	}
	in, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		var have []byte
		for b := make([]byte, 65536); ; {
			n, err := in.Read(b)
			if err != nil {
				return
			}
			have = append(have, b[:n]...)
			used, _ := frames(have, true, func(r request) {
				r = request{
					r.typ, bytes.Clone(r.email), bytes.Clone(r.replyPath), bytes.Clone(r.ip),
				}
				running.Go(func() { s.reply(r) })
			})
			have = have[used:]
		}
	})
	stop = sync.OnceFunc(func() {
		in.Close()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (s *cServer) reply(r request) {
	a := s.answer(r)
	if a.isZero() {
		return
	}
	out, err := os.OpenFile(string(r.replyPath), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	io.WriteString(out, string(a.Wire()[:headerSize]))
	io.WriteString(out, string(a.Wire()[headerSize:]))
	if s.unlinkFirst && !s.keep {
		os.Remove(string(r.replyPath))
	}
	out.Close()
	if !s.unlinkFirst && !s.keep {
		os.Remove(string(r.replyPath))
	}
}

func echoBytes(r request) Answer { return NewData(r.typ, string(r.email)) }

func TestClientServer(t *testing.T) {
	text := strings.Repeat("x", 60000)
	for _, instances := range []int{1, 4} {
		s := &Server{Resolver: &Cache{Resolver: echo}, Instances: instances}
		s.Admin = func(context.Context, Query) (string, error) { return text, nil }
		dir, _ := serve(t, s)
		c, tmp := newClient(t, dir)
		fds := descriptors(t)
		askEcho(t, c, "user@example.com")
		nothingLeft(t, tmp)
		eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= fds })
		const clients, questions = 50, 20
		var running sync.WaitGroup
		for i := range clients {
			running.Go(func() {
				for j := range questions {
					askEcho(t, c, fmt.Sprintf("user%d@%d.example", j, i%10))
				}
				a, err := c.Resolve(context.Background(), Query{Type: TypeStatus})
				if got, err2 := a.Text(); err != nil || err2 != nil || got != text {
					t.Errorf("%d bytes, %v, %v", len(got), err, err2)
				}
			})
		}
		running.Wait()
		nothingLeft(t, tmp)
		if n := s.Stats().Queries[TypeHost]; n != 1+clients*questions {
			t.Errorf("%d queries: some were asked twice", n)
		}
	}
}

// TestReplyFIFO: each question has a reply FIFO of its own, with the mode of FIFO_MODE.
func TestReplyFIFO(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	var mu sync.Mutex
	seen := make(map[string]fs.FileMode)
	s := &cServer{keep: true, answer: func(r request) Answer {
		mu.Lock()
		defer mu.Unlock()
		if info, err := os.Lstat(string(r.replyPath)); err == nil {
			seen[string(r.replyPath)] = info.Mode()
		}
		return echoBytes(r)
	}}
	s.start(t, dir, "infifo.1")
	for text, want := range map[string]fs.FileMode{"": 0o660, "0600": 0o600, "622": 0o622} {
		c, tmp := newClient(t, dir, "FIFO_MODE", text)
		clear(seen)
		for range 3 {
			askEcho(t, c, "user@example.com")
		}
		nothingLeft(t, tmp)
		if len(seen) != 3 {
			t.Errorf("FIFO_MODE %q: three questions came over %v", text, seen)
		}
		for path, mode := range seen {
			if filepath.Dir(path) != tmp || mode != fs.ModeNamedPipe|want {
				t.Errorf("FIFO_MODE %q: %s %v", text, path, mode)
			}
		}
	}
	c, _ := newClient(t, dir, "FIFO_MODE", "0444")
	a, err := c.Resolve(context.Background(), Query{Type: TypeHost, Email: "u@d"})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "FIFO_MODE") {
		t.Errorf("%q, %v", a, err)
	}
}

func TestClientOfC(t *testing.T) {
	for _, s := range []*cServer{{}, {unlinkFirst: true}, {keep: true}} {
		s.answer = echoBytes
		dir := t.TempDir()
		s.start(t, dir, "infifo.1")
		c, tmp := newClient(t, dir)
		var running sync.WaitGroup
		for i := range 20 {
			running.Go(func() {
				for j := range 20 {
					askEcho(t, c, fmt.Sprintf("user%d@%d.example", i, j))
				}
			})
		}
		running.Wait()
		nothingLeft(t, tmp)
	}
}

// TestLateAnswer: what comes after the client has given up reaches nobody.
func TestLateAnswer(t *testing.T) {
	dir := t.TempDir()
	asked, late, done := make(chan string, 1), make(chan struct{}), make(chan struct{})
	s := &cServer{keep: true, answer: func(r request) Answer {
		if r.email[0] != 's' {
			return echoBytes(r)
		}
		defer close(done)
		// This server has the FIFO open all the time.
		out, err := os.OpenFile(string(r.replyPath), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		asked <- string(r.replyPath)
		<-late
		if err == nil {
			io.WriteString(out, NewData(r.typ, "late").Wire())
			out.Close()
		}
		return NewData(r.typ, "late")
	}}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	a, err := c.Resolve(ctx, Query{Type: TypeHost, Email: "slow@example.com"})
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", a, err)
	}
	nothingLeft(t, tmp)
	close(late)
	within(t, "the late answer is written", done)
	for i := range 10 {
		askEcho(t, c, fmt.Sprintf("next%d@example.com", i))
	}
	nothingLeft(t, tmp)
}

func TestClientCancel(t *testing.T) {
	dir := t.TempDir()
	silent := &cServer{keep: true, answer: func(r request) Answer { return Answer{} }}
	silent.start(t, dir, "infifo.1")
	full := filepath.Join(t.TempDir(), "full")
	mkfifo(t, full, 0o600)
	fd, err := syscall.Open(full, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	for err == nil {
		_, err = syscall.Write(fd, make([]byte, 4096))
	}
	for what, infifo := range map[string]string{
		"no answer": "", "a full request FIFO": full, "cancelled before": "",
	} {
		c, tmp := newClient(t, dir)
		c.Infifo = infifo
		ctx, cancel := context.WithCancel(context.Background())
		if what == "cancelled before" {
			cancel()
		} else {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		a, err := c.Resolve(ctx, Query{Type: TypeHost, Email: "silent@example.com"})
		if !a.isZero() || !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %q, %v", what, a, err)
		}
		cancel()
		nothingLeft(t, tmp)
	}
	// A full FIFO that is read later takes the question then.
	c, _ := newClient(t, dir)
	c.Infifo = full
	go func() {
		time.Sleep(20 * time.Millisecond)
		b := make([]byte, 1<<16)
		for {
			n, _ := syscall.Read(fd, b)
			if r, size := parseRequest(b[:max(n, 0)]); size > 0 {
				(&cServer{keep: true, answer: echoBytes}).reply(r)
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	askEcho(t, c, "patient@example.com")
}

func TestNoServer(t *testing.T) {
	dir := t.TempDir()
	deaf, file := filepath.Join(dir, "deaf"), filepath.Join(dir, "file")
	mkfifo(t, deaf, 0o600)
	writeFile(t, file, "precious")
	q := Query{Type: TypeUser, Email: "u@d"}
	for _, path := range []string{filepath.Join(dir, "none"), deaf, file, dir} {
		c, tmp := newClient(t, dir)
		c.Infifo = path
		for range 2 {
			a, err := c.Resolve(context.Background(), q)
			if !a.isZero() || !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %q, %v", path, a, err)
			}
		}
		nothingLeft(t, tmp)
	}
	if b, err := os.ReadFile(file); string(b) != "precious" || err != nil {
		t.Errorf("the file holds %q, %v", b, err)
	}
	// With instances the error tells of one of them, not of NAME, which is not there.
	instance := filepath.Join(dir, "infifo.1")
	mkfifo(t, instance, 0o600)
	c, _ := newClient(t, dir)
	a, err := c.Resolve(context.Background(), q)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), instance) {
		t.Errorf("an instance without a reader: %q, %v", a, err)
	}
	c, _ = newClient(t, dir, "FIFOTMPDIR", filepath.Join(dir, "nowhere"))
	a, err = c.Resolve(context.Background(), q)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no FIFOTMPDIR: %q, %v", a, err)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	var answer atomic.Value
	s := &cServer{keep: true, answer: func(r request) Answer { return answer.Load().(Answer) }}
	s.start(t, dir, "infifo.1")
	c, tmp := newClient(t, dir)
	for _, e := range []struct {
		typ    Type
		answer Answer
		want   error
	}{
		{TypeUser, NewAnswer(0), nil},
		{TypeUser, NewAnswer(-1), ErrUnavailable},
		{TypePasswd, NewAnswer(0), ErrUnavailable},
		{TypePasswd, NewAnswer(-1), ErrUnavailable},
		{TypeHost, NewAnswer(0), nil},
		{TypeHost, NewAnswer(4097), ErrInvalid},
		{TypeHost, NewAnswer(1 << 30), ErrInvalid},
		{TypeHost, NewData(TypeHost, strings.Repeat("x", 4095)), nil},
		{TypeUser, NewAnswer(4), nil}, // no data follows a status
		{TypeUser, WireAnswer(NewAnswer(0).Wire() + "more"), nil},
		{TypeHost, WireAnswer(NewData(TypeHost, "d:h:25").Wire() + "x"), nil},
		{TypeStatus, NewData(TypeStatus, strings.Repeat("x", 50000)), nil},
		{TypeStatus, NewAnswer(1 << 20), ErrInvalid},
	} {
		answer.Store(e.answer)
		a, err := c.Resolve(context.Background(), Query{Type: e.typ, Email: "user@example.com"})
		if !errors.Is(err, e.want) || e.want != nil && !a.isZero() {
			t.Errorf("%v %.20q: %.20q, %v", e.typ, e.answer, a, err)
		}
		if e.want == nil && (a.isZero() || !strings.HasPrefix(e.answer.Wire(), a.Wire())) {
			t.Errorf("%v %.20q: %.20q", e.typ, e.answer, a)
		}
	}
	for _, q := range []Query{{Type: 0}, {Type: TypeRelay}, {Type: TypeUser, Email: "a\x00b"}} {
		_, err := c.Resolve(context.Background(), q)
		if !errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v: %v", q, err)
		}
	}
	long := Query{Type: TypeUser, Email: strings.Repeat("x", 4096)}
	_, err := c.Resolve(context.Background(), long)
	if !errors.Is(err, ErrTooLong) || errors.Is(err, ErrUnavailable) {
		t.Errorf("too long: %v", err)
	}
	nothingLeft(t, tmp)
}

// TestClientInstances: questions are spread over the server's FIFOs, and go to another when one
// has no reader.
func TestClientInstances(t *testing.T) {
	dir := t.TempDir()
	var asked [4]atomic.Int32
	var stops []func()
	for i := 1; i <= 3; i++ {
		s := &cServer{keep: true, answer: func(r request) Answer {
			asked[i].Add(1)
			return echoBytes(r)
		}}
		stops = append(stops, s.start(t, dir, fmt.Sprint("infifo.", i)))
	}
	c, _ := newClient(t, dir)
	for range 300 {
		askEcho(t, c, "user@example.com")
	}
	for i := 1; i <= 3; i++ { // 100 expected, standard deviation 8
		if n := asked[i].Load(); n < 40 {
			t.Errorf("FIFO %d: %d of 300 questions", i, n)
		}
	}
	stops[0]()
	stops[2]()
	for range 20 {
		askEcho(t, c, "user@example.com")
	}
	stops[1]() // now one without instances follows, and those are left there
	(&cServer{keep: true, answer: echoBytes}).start(t, dir, "infifo")
	for range 20 {
		askEcho(t, c, "user@example.com")
	}
}

// TestRestart asks all the time while servers come and go: a client that finds one is answered.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	c, _ := newClient(t, dir)
	for i := range 20 {
		s := &Server{Resolver: &Cache{Resolver: echo}, Instances: 1 + i%3}
		s.Getenv = environment("INFIFODIR", dir)
		_, stop := serve(t, s)
		for j := range 5 {
			askEcho(t, c, fmt.Sprintf("user%d@%d.example", j, i))
		}
		stop()
	}
}

func TestClientTimeout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	(&cServer{answer: func(request) Answer { return Answer{} }}).start(t, dir, "infifo")
	q := Query{Type: TypeUser, Email: "u@d"}
	for content, want := range map[string]time.Duration{"1\n": time.Second, "": 4 * time.Second} {
		control := controls(t, map[string]string{"timeoutread": content})
		c, _ := newClient(t, dir, "CONTROLDIR", control)
		c.Timeout = 0
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err := c.Resolve(ctx, q)
		cancel()
		took := time.Since(start)
		if !errors.Is(err, ErrUnavailable) || took < min(want, 2*time.Second) {
			t.Errorf("timeoutread %q: %v after %v of %v", content, err, took, want)
		}
	}
	control := controls(t, map[string]string{"timeoutread/x": ""}) // a directory
	served, _ := serve(t, &Server{Resolver: echo})
	c, _ := newClient(t, served, "CONTROLDIR", control)
	c.Timeout = 0
	askEcho(t, c, "user@example.com") // an unreadable file stops no question
}

func TestInquery(t *testing.T) {
	dir, _ := serve(t, &Server{Resolver: echo})
	env := []string{"QUERY_CACHE=1", "INFIFODIR=" + dir, "FIFOTMPDIR=" + t.TempDir()}
	want := fmt.Sprintf("*inlookup.Client true %q <nil>", NewData(TypeDomain, "example.com"))
	// Only together do the two variables of tcpclient mean its descriptors.
	for _, more := range []string{"", "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1"} {
		if got := child(t, "inquery", nil, append(env, more)...); got != want {
			t.Errorf("%s: got %s\nwant %s", more, got, want)
		}
	}
	for setting, want := range map[string]string{
		"": "*inlookup.MySQL", "QUERY_CACHE=": "*inlookup.Client", "QUERY_CACHE=0": "*inlookup.Client",
	} {
		if got := child(t, "kind", nil, setting); got != want {
			t.Errorf("%q: %s", setting, got)
		}
	}
	got := child(t, "inquery", nil, "CONTROLDIR="+controls(t, nil), "ASSIGNDIR="+t.TempDir())
	want = fmt.Sprintf("*inlookup.MySQL true %q <nil>", NewData(TypeDomain, "example.com"))
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// TestTCP asks over descriptors 6 and 7, as under tcpclient, a server as under tcpserver. The
// connection is for one question, and one that cannot be sent does not count.
func TestTCP(t *testing.T) {
	requests, toServer := newPipe(t)
	toClient, replies := newPipe(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := &Server{Resolver: echo}
		if err := s.ServeConn(context.Background(), requests, replies); err != nil {
			t.Error(err)
		}
	}()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{null, null, null, toClient, toServer}
	got := child(t, "twice", files,
		"QUERY_CACHE=1", "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1", "INFIFODIR=/nowhere")
	first, second, _ := strings.Cut(got, "\n")
	if want := fmt.Sprintf("%q <nil>", NewData(TypeDomain, "example.com").Wire()); first != want {
		t.Errorf("got %s\nwant %s", first, want)
	}
	if !strings.HasPrefix(second, `"" `) || !strings.Contains(second, "one question") {
		t.Errorf("a second question: %s", second)
	}
	within(t, "the server has answered", done)
	for _, f := range slices.Concat(files[2:], []*os.File{requests, replies}) {
		f.Close()
	}
}

// TestTCPTimeout: a server that accepts the request and says nothing is not waited for.
func TestTCPTimeout(t *testing.T) {
	requests, toServer := newPipe(t)
	toClient, replies := newPipe(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { replies.Close() }).Stop() // if the client waits
	files := []*os.File{null, null, null, toClient, toServer}
	got := child(t, "impatient", files, "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1")
	if !strings.HasPrefix(got, "true ") || !strings.Contains(got, "no answer") {
		t.Errorf("without an answer: %s", got)
	}
	for _, f := range slices.Concat(files[2:], []*os.File{requests, replies}) {
		f.Close()
	}
}

// twoClients is a child that asks by two Clients, and between the two opens a file, which gets
// descriptor 7.
func twoClients() {
	q := Query{Type: TypeDomain, Email: "Example.com"}
	a, err1 := new(Client).Resolve(context.Background(), q)
	path := filepath.Join(os.Getenv("DIR"), "file")
	var files []*os.File
	for range 12 { // one of them gets descriptor 7
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			fmt.Println(err)
			return
		}
		files = append(files, f)
	}
	_, err2 := new(Client).Resolve(context.Background(), q)
	content, err3 := os.ReadFile(path)
	for _, f := range files {
		f.Close()
	}
	fmt.Printf("%q %v\n%v\n%q %v", a.Wire(), err1, err2, content, err3)
}

// TestTCPConnectionIsOfTheProcess: a second Client of the process writes nothing into what has
// become descriptor 7.
func TestTCPConnectionIsOfTheProcess(t *testing.T) {
	requests, toServer := newPipe(t)
	toClient, replies := newPipe(t)
	go (&Server{Resolver: echo}).ServeConn(context.Background(), requests, replies)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{null, null, null, toClient, toServer}
	got := child(t, "two clients", files,
		"TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1", "INFIFODIR=/nowhere", "DIR="+t.TempDir())
	want := fmt.Sprintf("%q <nil>\nDomain Query: lookup unavailable: tcpclient's connection is for "+
		"one question\n\"\" <nil>", NewData(TypeDomain, "example.com").Wire())
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for _, f := range slices.Concat(files[2:], []*os.File{requests, replies}) {
		f.Close()
	}
}

// ownFiles is a child that asks while its descriptors 6 and 7 are files of its own.
func ownFiles() {
	path := filepath.Join(os.Getenv("DIR"), "file")
	var files []*os.File
	for range 12 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			fmt.Println(err)
			return
		}
		files = append(files, f)
	}
	_, err := new(Client).Resolve(context.Background(), Query{Type: TypeUser, Email: "u@d"})
	content, _ := os.ReadFile(path)
	for _, f := range files {
		if _, err := f.Stat(); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Printf("%q %v", content, err)
}

// TestTCPDescriptorsAreInherited: a program whose parent has asked has the variables of tcpclient,
// but descriptors 6 and 7 are files of its own.
func TestTCPDescriptorsAreInherited(t *testing.T) {
	got := child(t, "own files", nil, "TCPCLIENT=1", "TCPREMOTEIP=192.0.2.1", "DIR="+t.TempDir())
	const want = `"" User Query: lookup unavailable: descriptors 6 and 7 are not those of tcpclient`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestClientWithoutDescriptors: while no file can be opened a question fails and leaves no FIFO.
// The next one does not, even if the first question of a Client was among those that failed.
func TestClientWithoutDescriptors(t *testing.T) {
	dir, _ := serve(t, &Server{Resolver: echo})
	control := controls(t, map[string]string{"timeoutread": "60"})
	c, tmp := newClient(t, dir, "CONTROLDIR", control)
	c.Timeout = 0
	known, knownTmp := newClient(t, dir) // reads no control file
	askEcho(t, known, "user@example.com")
	q := Query{Type: TypeHost, Email: "user@example.com"}
	undo := setMaxFiles(t, 0)
	_, err := c.Resolve(context.Background(), q)
	_, knownErr := known.Resolve(context.Background(), q)
	undo()
	for _, err := range []error{err, knownErr} {
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("without descriptors: %v", err)
		}
	}
	nothingLeft(t, tmp)
	nothingLeft(t, knownTmp)
	askEcho(t, c, "user@example.com")
	askEcho(t, known, "user@example.com")
}
