package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// A cServer stands for the C server of a cluster: a process for each FIFO, with
// its fault. A process that was asked about another domain dies when it is
// asked about a distributed one. It is started again a moment later.
type cServer struct {
	distributed []string // domains and their aliases

	mu     sync.Mutex
	asked  map[string]int // answers, by FIFO
	deaths map[string]int
	stop   bool
	all    sync.WaitGroup
}

const restartsAfter = 200 * time.Millisecond

// startC starts one with n FIFOs. Those that have served other domains before
// know only that.
func startC(t *testing.T, dir string, n int, served bool, distributed ...string) *cServer {
	t.Helper()
	c := &cServer{
		distributed: distributed, asked: make(map[string]int), deaths: make(map[string]int),
	}
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("c.%d", i+1))
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		fifo, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.all.Go(func() { c.process(path, fifo, served) })
	}
	t.Cleanup(func() {
		c.mu.Lock()
		c.stop = true
		c.mu.Unlock()
		c.all.Wait()
	})
	return c
}

func (c *cServer) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop
}

// process is the lives of one process.
func (c *cServer) process(path string, fifo *os.File, served bool) {
	for !c.stopped() {
		died := c.serve(path, fifo, served)
		fifo.Close()
		if !died {
			return
		}
		time.Sleep(restartsAfter)
		served = false
		fifo, _ = os.OpenFile(path, os.O_RDWR, 0)
	}
	fifo.Close()
}

// serve answers until the process dies, or c is stopped.
func (c *cServer) serve(path string, fifo *os.File, served bool) (died bool) {
	var b []byte
	for !c.stopped() {
		fifo.SetReadDeadline(time.Now().Add(restartsAfter))
		part := make([]byte, 4096)
		n, _ := fifo.Read(part)
		b = append(b, part[:n]...)
		for len(b) > 4 {
			size := 4 + int(binary.NativeEndian.Uint32(b))
			if len(b) < size {
				break
			}
			texts := bytes.Split(b[6:size], []byte{0})
			q := inlookup.Query{Type: inlookup.Type(b[4]), Email: string(texts[0])}
			b = b[size:]
			_, domain := q.Split("local.example")
			if !slices.Contains(c.distributed, domain) {
				served = true
			} else if served {
				c.count(c.deaths, path)
				return true
			}
			c.count(c.asked, path)
			reply, err := os.OpenFile(string(texts[1]), os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if err == nil {
				fmt.Fprint(reply, inlookup.Absent(q).Wire())
				reply.Close()
			}
		}
	}
	return false
}

func (c *cServer) count(counts map[string]int, path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts[path]++
}

// clusterEnv returns the environment of a cluster with one distributed domain,
// which has an alias.
// timeoutread is how many seconds a client waits.
func clusterEnv(t *testing.T, timeoutread string) map[string]string {
	t.Helper()
	env := environment(t)
	control := t.TempDir()
	env["CONTROLDIR"] = control
	env["ASSIGNDIR"] = control
	domains := t.TempDir()
	if err := os.Symlink(domains+"/dist.example", domains+"/alias.example"); err != nil {
		t.Fatal(err)
	}
	store := "server s\nmdahost 192.0.2.9\nport 1\nuse_ssl 0\ndatabase d\nuser u\npass p\n"
	for name, text := range map[string]string{
		"mcdinfo":     "domain local.example 0\n" + store + "domain dist.example 1\n" + store,
		"assign":      "+alias.example-:alias.example:1:1:" + domains + "/alias.example:-::\n.\n",
		"timeoutread": timeoutread,
	} {
		if err := os.WriteFile(filepath.Join(control, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

// A comparison with the C server of a cluster asks in an order that kills none
// of its processes. One that would die at the next such question dies once, and
// is asked again.
func TestCompareCluster(t *testing.T) {
	for _, served := range []bool{false, true} {
		t.Run(fmt.Sprintf("served before %v", served), func(t *testing.T) {
			t.Parallel()
			timeout := "60"
			if served {
				timeout = "1" // which each death costs
			}
			env := clusterEnv(t, timeout)
			serve(t, env, answers{})
			const processes = 3
			c := startC(t, env["INFIFODIR"], processes, served, "dist.example", "alias.example")
			var input strings.Builder
			for i := range 30 {
				fmt.Fprintf(&input, "u%d@local.example 192.0.2.1\n", i)
				fmt.Fprintf(&input, "u%d@DIST.example\nu%[1]d@alias.example\n", i)
			}
			input.WriteString("dist.example\nlocal.example\n")
			s := setting{env: env, stdin: strings.NewReader(strings.ToLower(input.String()))}
			status, stdout, stderr := s.run(t, "-i=", "-p", "4", "-compare", "c")
			if status != exitOK {
				t.Errorf("exit %d, stderr %s", status, stderr)
			}
			count(t, stdout, map[string]int{
				"addresses": 92, "questions": 30*6 + 60*5 + 2*4 + 3*2, "differ": 0, "errors": 0,
			})
			c.mu.Lock()
			defer c.mu.Unlock()
			for i := range processes {
				path := filepath.Join(env["INFIFODIR"], fmt.Sprintf("c.%d", i+1))
				want := 0
				if served {
					want = 1
				}
				if c.deaths[path] != want || c.asked[path] < 50 {
					t.Errorf("%s: %d deaths, want %d; %d answers", path, c.deaths[path], want, c.asked[path])
				}
			}
			if said := strings.Contains(stderr, "B: the server on "); said != served {
				t.Errorf("stderr %s", stderr)
			}
		})
	}
}

// Of a server that is gone for good, each question is an error, without a wait
// for each.
func TestCompareClusterGone(t *testing.T) {
	env := clusterEnv(t, "1")
	serve(t, env, answers{})
	c := startC(t, env["INFIFODIR"], 1, false, "dist.example")
	s := setting{env: env}.program(nil, nil).newSpread("c")
	if len(s.fifos) != 1 {
		t.Fatalf("%d FIFOs", len(s.fifos))
	}
	s.gone.Store(true)
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	c.all.Wait()
	start := time.Now()
	for range 20 {
		if _, err := s.Resolve(t.Context(), query(inlookup.TypeUser, user)); err == nil {
			t.Fatal("answered")
		}
	}
	if took := time.Since(start); took > restartTime {
		t.Errorf("20 questions took %v", took)
	}
}

// A spool gives back what was stored, whatever bytes it has.
func TestSpool(t *testing.T) {
	s, err := newSpool()
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	var want, got []job
	for i := range 1000 {
		j := job{{Type: 1, Email: fmt.Sprintf("\xff %d\n", i)}, {Type: 2, Email: "a@b", IP: "::1"}}
		want = append(want, j)
		if err := s.stored.Encode(j); err != nil {
			t.Fatal(err)
		}
	}
	err = s.jobs(func(j job) bool {
		got = append(got, j)
		return true
	})
	if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%d jobs, want %d, %v", len(got), len(want), err)
	}
}

// A process that came back once did so once, and not 1 times.
func TestRestarts(t *testing.T) {
	s := side{letter: "A", source: source{name: "x"}, fifos: new(spread)}
	for _, times := range []string{"once", "2 times"} {
		s.fifos.deaths.Add(1)
		if want := "A: x did not answer on a FIFO " + times + ", and was asked again"; s.restarts() != want {
			t.Errorf("%q, want %q", s.restarts(), want)
		}
	}
}
