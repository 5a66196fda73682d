package systemtest

// What SIGHUP, SIGINT and SIGTERM do, also while the server starts or works.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
)

func TestHangupForgets(t *testing.T) {
	db := database(t)
	addUser(t, db, "hup", "example.com", "old")
	s := goldenSite(t, db)
	p := s.serve()
	d := s.directory()
	if got := passwd(t, d, "hup@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	setPasswd(t, db, "hup", "example.com", "new")
	if got := passwd(t, d, "hup@example.com"); got != "old" {
		t.Fatalf("password %q: this test tests nothing without a cache", got)
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the new password after SIGHUP", func() bool {
		return passwd(t, d, "hup@example.com") == "new"
	})
}

// A file that is wrong changes nothing, and is named with its line. When it is right again, all
// files are in force.
func TestHangupKeepsAllWhenAFileIsWrong(t *testing.T) {
	db := database(t)
	addUser(t, db, "hup", "example.com", "")
	s := goldenSite(t, db)
	p := s.serve()
	d := s.directory()
	path := func(name string) string { return filepath.Join(s.env["CONTROLDIR"], name) }
	right := make(map[string]string)
	for _, name := range []string{"host.mysql", "mcdinfo"} {
		text, err := os.ReadFile(path(name))
		if err != nil {
			t.Fatal(err)
		}
		right[name] = string(text)
	}
	route := func() string {
		route, err := d.Host(t.Context(), "user@example.com")
		if err != nil {
			t.Error(err)
		}
		return route
	}
	s.control("mcdinfo", strings.ReplaceAll(right["mcdinfo"], "192.0.2.25", "192.0.2.77"))
	for i, wrong := range []struct{ text, fault string }{
		{"# a comment\nlocal host:indimail:hunter2\n", ":2: want host:"},
		{"db hunter2:indimail\n", ":1: "},
		{"db\thunter2\n", ":1: "},
	} {
		before, after := fmt.Sprint("before", i), fmt.Sprint("after", i)
		setPasswd(t, db, "hup", "example.com", before)
		passwd(t, d, "hup@example.com")
		setPasswd(t, db, "hup", "example.com", after)
		s.control("host.mysql", wrong.text)
		logged := len(p.stderr.String())
		p.signal(syscall.SIGHUP)
		eventually(t, "an error that names file and line", func() bool {
			return strings.Contains(p.stderr.String()[logged:], path("host.mysql")+wrong.fault)
		})
		eventually(t, "the cache is dropped all the same", func() bool {
			return passwd(t, d, "hup@example.com") == after
		})
		if got := route(); got != "example.com:192.0.2.25:2525" {
			t.Errorf("by the old mcdinfo: %s", got)
		}
	}
	s.control("host.mysql", right["host.mysql"])
	p.signal(syscall.SIGHUP)
	eventually(t, "the new mcdinfo", func() bool { return route() == "example.com:192.0.2.77:2525" })
	if log := p.stderr.String(); strings.Contains(log, "secret") || strings.Contains(log, "hunter2") {
		t.Errorf("a password is in the log:\n%s", log)
	}
}

// An entry of mcdinfo that is incomplete keeps nothing from being in force: questions about its
// domain are errors.
func TestHangupWithAnIncompleteEntry(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve()
	c := s.client()
	path := filepath.Join(s.env["CONTROLDIR"], "mcdinfo")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "192.0.2.26", "192.0.2.78")
	lines := strings.Count(changed, "\n")
	s.control("mcdinfo", changed+"domain far.example.net 0\nserver 127.0.0.1\n")
	p.signal(syscall.SIGHUP)
	warning := fmt.Sprintf("warning: %s:%d: ", path, lines+1)
	eventually(t, warning, func() bool { return strings.Contains(p.stderr.String(), warning) })
	eventually(t, "its domain is an error", func() bool {
		return show(t, c, "1 user@far.example.net") == "unavailable"
	})
	// Its address has changed in mcdinfo, and not in host_table.
	all(t, c, "the new mcdinfo", map[string]string{
		"1 user@example.com":       "active",
		"1 duser@dist.example.net": "unavailable",
	})
	if strings.Contains(p.stderr.String(), "stays as it was") {
		t.Errorf("an incomplete entry is taken for an error:\n%s", p.stderr.String())
	}
}

// SIGHUP during lookups: the C server crashed at 15 of 20.
func TestHangupCostsNoAnswer(t *testing.T) {
	s := goldenSite(t, database(t))
	p := s.serve("-i", "2")
	rows := goldenRows(t)
	oneOfThree(t, func(complaints *complaint) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var askers sync.WaitGroup
		var mu sync.Mutex
		asked := make([]int, 8)
		for i := range asked {
			c := s.client()
			askers.Go(func() {
				for ctx.Err() == nil {
					for _, r := range rows {
						a, err := c.Resolve(context.Background(), r.query)
						asked[i]++
						if a.Equal(r.answer) && err == nil {
							continue
						}
						text := fmt.Sprintf("%v of %s: %x, %v", r.query.Type, r.query.Email, a, err)
						if err == nil || errors.Is(err, context.DeadlineExceeded) {
							t.Error(text)
							continue
						}
						mu.Lock() // an error: one may wait too long for a new connection
						complaints.addf("%s", text)
						mu.Unlock()
					}
				}
			})
		}
		for i := range 20 {
			flushed := s.counts()["cache_flushed_total"]
			p.signal([]os.Signal{syscall.SIGUSR1, syscall.SIGINT}[i%2])
			eventually(t, "a cache that holds something is dropped", func() bool {
				p.signal(syscall.SIGHUP)
				return s.counts()["cache_flushed_total"] > flushed
			})
		}
		cancel()
		askers.Wait()
		t.Logf("%d questions", asked)
	})
	p.terminate()
}

// A signal that comes while the server starts must not end it: hooks send them whenever they like.
func TestSignalAtStartKillsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	p := s.start("inlookup", "-i", "1000")
	eventually(t, "the first of 1000 FIFOs", func() bool { return exists(s.fifo("infifo.1")) })
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2} {
		p.signal(sig)
	}
	eventually(t, "the last of 1000 FIFOs", func() bool {
		select {
		case <-p.done:
			t.Fatalf("a signal at the start: %v", p.cmd.ProcessState) // it tells which
		default:
		}
		return exists(s.fifo("infifo.1000"))
	})
	s.answers(p)
	p.terminate()
}

func TestInterruptConnectsAgain(t *testing.T) {
	t.Parallel()
	db := database(t)
	mustExec(t, db, "CREATE USER interrupt@localhost IDENTIFIED BY 'secret'; GRANT SELECT ON indimail.* TO interrupt@localhost", "DROP USER interrupt@localhost")
	addUser(t, db, "int", "example.com", "old")
	s := newSite(t, db)
	s.env["MYSQL_USER"] = "interrupt"
	p := s.serve()
	d := s.directory()
	if got := passwd(t, d, "int@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	old := connections(t, db, "interrupt")
	if len(old) == 0 {
		t.Fatal("no connections")
	}
	setPasswd(t, db, "int", "example.com", "new")
	hits := s.counts()["cache_hits_total"]
	p.signal(syscall.SIGINT)
	n := 0
	eventually(t, "a new connection after SIGINT", func() bool {
		n++
		passwd(t, d, "user@example.com")
		if status, err := d.Status(t.Context(), fmt.Sprintf("fresh%d@example.com", n)); status != inlookup.StatusAbsent || err != nil {
			t.Errorf("%v, %v", status, err)
		}
		return slices.ContainsFunc(connections(t, db, "interrupt"), func(id int) bool { return !slices.Contains(old, id) })
	})
	if got := passwd(t, d, "int@example.com"); got != "old" {
		t.Errorf("password %q: the cache shall stay", got)
	}
	if now := s.counts()["cache_hits_total"]; now <= hits {
		t.Errorf("%v hits, %v before SIGINT", now, hits)
	}
	eventually(t, "the old connections are closed", func() bool {
		return !slices.ContainsFunc(connections(t, db, "interrupt"), func(id int) bool { return slices.Contains(old, id) })
	})
}

// What was asked before SIGTERM is answered, then the FIFOs are gone.
func TestTerminateAnswersFirst(t *testing.T) {
	rows := goldenRows(t)
	oneOfThree(t, func(c *complaint) {
		s := goldenSite(t, database(t))
		p := s.serve("-i", "2")
		p.signal(syscall.SIGSTOP)
		replies := make([]*reply, len(rows))
		for i, r := range rows {
			replies[i] = newReply(t, s.env["FIFOTMPDIR"])
			fifo := []string{"infifo.1", "infifo.2"}[i%2]
			send(t, s.fifo(fifo), r.to(replies[i].path))
		}
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGCONT)
		for i, r := range rows {
			got, err := replies[i].read(patience)
			if string(got) == r.answer.Wire() && err == nil {
				continue
			}
			if err != nil || inlookup.WireAnswer(string(got)).Code() != -1 {
				t.Errorf("%v of %s: %x, %v, want %x", r.query.Type, r.query.Email,
					got, err, r.answer)
			}
			// All at once over no connection yet: one may wait too long for it.
			c.addf("%v of %s: %x, want %x", r.query.Type, r.query.Email, got, r.answer)
		}
		if status := p.wait(); status != 0 {
			t.Errorf("exit %d", status)
		}
		if left, err := os.ReadDir(s.env["INFIFODIR"]); len(left) > 0 || err != nil {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}
