package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// exporting runs inquerytest -s -listen on a port of its own. It returns the
// URL, and what ends it and returns its exit status.
func exporting(t *testing.T, env map[string]string, address string) (url string, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, stderr := io.Pipe()
	status := make(chan int, 1)
	go func() {
		p := setting{env: env}.program(io.Discard, stderr)
		status <- p.run(ctx, []string{"-s", "-listen", address})
		stderr.Close()
	}()
	lines := bufio.NewScanner(reader)
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "serving ")
	}
	go io.Copy(io.Discard, reader)
	var once atomic.Bool
	end = func() int {
		cancel()
		if once.Swap(true) {
			return exitOK
		}
		return <-status
	}
	t.Cleanup(func() { end() })
	if url == "" {
		t.Fatal("it says no address")
	}
	return url, end
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

// serveStatus serves a server that tells these counters, and returns what
// counts the questions and what ends the server.
func serveStatus(
	t *testing.T, env map[string]string, text func() string,
) (asked *atomic.Int64, stop func()) {
	t.Helper()
	asked = new(atomic.Int64)
	s := &inlookup.Server{
		Resolver: answers{},
		Getenv:   func(name string) string { return env[name] },
		Admin: func(context.Context, inlookup.Query) (string, error) {
			asked.Add(1)
			return text(), nil
		},
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	var once atomic.Bool
	stop = func() {
		cancel()
		if !once.Swap(true) {
			<-done
		}
	}
	t.Cleanup(stop)
	return asked, stop
}

// Each scrape is one question to the server, as long as there is one.
func TestListen(t *testing.T) {
	env := environment(t)
	url, end := exporting(t, env, "127.0.0.1:0")
	r, body := get(t, url)
	nobody := strings.Contains(body, "no server listens on ")
	if r.StatusCode != http.StatusServiceUnavailable || !nobody {
		t.Errorf("before the server: %s, %q", r.Status, body)
	}
	const text = "# TYPE inlookup_waiting gauge\ninlookup_waiting 3\n"
	asked, stop := serveStatus(t, env, func() string { return text })
	for range 3 {
		r, body = get(t, url)
		if r.StatusCode != http.StatusOK || body != text {
			t.Errorf("%s, %q", r.Status, body)
		}
		if got := r.Header.Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("content type %q", got)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("3 scrapes asked %d questions", n)
	}
	for path, want := range map[string]int{"/": 200, "/x": 404} {
		if r, _ := get(t, strings.TrimSuffix(url, "/metrics")+path); r.StatusCode != want {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	r, err := http.Post(url, "text/plain", nil)
	if err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", r, err)
	}
	stop()
	if r, body = get(t, url); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the server: %s, %q", r.Status, body)
	}
	if status := end(); status != exitOK {
		t.Errorf("exit %d", status)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("it still answers")
	}
}

// -v has a line for each scrape, with its size or what is wrong.
func TestListenVerbose(t *testing.T) {
	env := environment(t)
	var stderr strings.Builder
	p := setting{env: env}.program(io.Discard, &stderr)
	e := &exporter{p, &options{verbose: true, query: inlookup.Query{Type: inlookup.TypeStatus}},
		make(chan struct{}, 1)}
	r := httptest.NewRequest("GET", "/metrics", nil)
	e.scrape(httptest.NewRecorder(), r)
	oneLine(t, stderr.String(), "GET /metrics for 192.0.2.1:1234: no server listens on ")
	serveStatus(t, env, func() string { return "12345678\n" })
	stderr.Reset()
	e.scrape(httptest.NewRecorder(), r)
	oneLine(t, stderr.String(), "GET /metrics for 192.0.2.1:1234: bytes: 9\n")
}

// A server that hangs is a reason too. Headers have a limit.
func TestListenLimits(t *testing.T) {
	env := environment(t)
	hangingFIFO(t, env)
	url, _ := exporting(t, env, "127.0.0.1:0")
	r, body := get(t, url)
	if r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "no answer in 1 s. ") {
		t.Errorf("%s, %q", r.Status, body)
	}
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X", strings.Repeat("x", 64<<10))
	r, err = http.DefaultClient.Do(request)
	if err == nil && r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of headers: %s", r.Status)
	}
}

// A scrape that is under way when the end comes is answered.
func TestListenEnd(t *testing.T) {
	env := environment(t)
	asked, ending := make(chan bool), make(chan bool)
	serveStatus(t, env, func() string {
		asked <- true
		<-ending
		return "inlookup_waiting 0\n"
	})
	url, end := exporting(t, env, "127.0.0.1:0")
	scraped := make(chan string, 1)
	go func() {
		r, err := http.Get(url)
		if err != nil {
			scraped <- err.Error()
			return
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		scraped <- r.Status + " " + string(b)
	}()
	<-asked
	ended := make(chan int, 1)
	go func() { ended <- end() }()
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")
	for { // until no new connection is accepted
		c, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	close(ending)
	if got := <-scraped; got != "200 OK inlookup_waiting 0\n" {
		t.Errorf("the scrape got %q", got)
	}
	if status := <-ended; status != exitOK {
		t.Errorf("exit %d", status)
	}
}

func TestListenAddress(t *testing.T) {
	for address, want := range map[string]string{
		":9177": "127.0.0.1:9177", "127.0.0.1:9177": "127.0.0.1:9177", "[::1]:9177": "[::1]:9177",
		"0.0.0.0:9177": "0.0.0.0:9177", "localhost:x": "localhost:x",
	} {
		if o, err := parse([]string{"-s", "-listen", address}); err != nil || o.listen != want {
			t.Errorf("%s: %+v, %v, want %s", address, o, err, want)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	status, _, stderr := setting{env: environment(t)}.run(t, "-s", "-listen", taken.Addr().String())
	if status != exitFault {
		t.Errorf("exit %d", status)
	}
	oneLine(t, stderr, "address already in use")
	for _, address := range []string{"127.0.0.1:99999", "127.0.0.1:no-such-port"} {
		status, _, stderr = setting{env: environment(t)}.run(t, "-s", "-listen", address)
		if status != exitUsage {
			t.Errorf("%s: exit %d", address, status)
		}
		oneLine(t, stderr, "-listen: ")
	}
	url, _ := exporting(t, environment(t), ":0")
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Error(fmt.Sprint("without an address it serves ", url))
	}
}
