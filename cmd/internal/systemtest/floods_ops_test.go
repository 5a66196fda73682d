//go:build ops

package systemtest

// One process that sends as fast as it can. It may take its share of the
// server, as a flood of hits would; it may not take the others' answers, nor
// memory without bound. These run with -tags ops alone.

import (
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// pause stops a flood, and returns when it stands still.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	eventually(p.t, "the flood stands still", func() bool { return stopped(p.cmd.Process.Pid) })
}

// Hits beside a flood of questions about the server keep what they have beside
// a flood of hits. The half is meant; three tenths allow for a busy machine.
func TestFloodTakesItsShareAlone(t *testing.T) {
	s := goldenSite(t, database(t))
	s.serve("-i", "2")
	var callers []*caller
	for range 4 {
		callers = append(callers, s.newCaller("infifo.2"))
	}
	hits(t, callers, 100*time.Millisecond)
	questions := []inlookup.Query{ // the first is what the others are measured by
		hit,
		{Type: inlookup.TypeStatus},
		{Type: inlookup.TypeFlush, Email: "other#@example.com"},
		{Type: inlookup.TypeFlush, Email: "other#.example"},
		{Type: inlookup.TypeExplain, Email: "user@example.com", IP: "3"},
	}
	var floods []*process
	for _, q := range questions {
		flood := s.flood("infifo.1", q)
		flood.pause()
		floods = append(floods, flood)
	}
	oneOfThree(t, func(c *complaint) {
		counts := make([]int, len(questions))
		for range 8 {
			for i, flood := range floods {
				flood.signal(syscall.SIGCONT)
				hits(t, callers, 20*time.Millisecond) // until it is a flood
				counts[i] += hits(t, callers, 150*time.Millisecond)
				flood.pause()
			}
		}
		for i, q := range questions[1:] {
			ratio := float64(counts[i+1]) / float64(max(counts[0], 1))
			t.Logf("%v %s: %.2f of the %d hits beside a flood of hits", q.Type, q.Email,
				ratio, counts[0])
			want := 0.3
			if raceEnabled { // which makes some things slower than others
				want = 0.1
			}
			if ratio < want {
				c.addf("%v %s: %.2f of the hits, want half", q.Type, q.Email, ratio)
			}
		}
	})
	for _, flood := range floods {
		flood.signal(syscall.SIGKILL)
	}
	eventually(t, "the status is told after all that", func() bool {
		_, err := s.short(patience).Resolve(t.Context(), inlookup.Query{Type: inlookup.TypeStatus})
		return err == nil
	})
}

// preloadUsers is how many have logged in lately in TestFloodOfFlushesHasABound.
const preloadUsers = 20000

// A flood of flushes while the users who logged in lately are loaded: first the
// database keeps that waiting, then it goes on. What is remembered of the
// flushes has a bound, and so has what each costs.
func TestFloodOfFlushesHasABound(t *testing.T) {
	db := mariadbtest.ForTest(t)
	mustExec(t, db, `
		INSERT INTO indimail (pw_name,pw_domain,pw_passwd,pw_uid,pw_gid,pw_gecos,pw_dir,pw_shell)
			SELECT CONCAT('load',seq),'example.com','hash',1,0,'','/home/mail','' FROM seq_1_to_20000;
		INSERT INTO lastauth (user,domain,service,remote_ip,quota,gecos,timestamp)
			SELECT CONCAT('load',seq),'example.com','imap','192.0.2.1',0,'',NOW() FROM seq_1_to_20000`, "")
	s := goldenSite(t, db)
	p := s.serve("-i", "2", "-c", "3600")
	callers := []*caller{s.newCaller("infifo.2"), s.newCaller("infifo.2")}
	eventually(t, "the users are loaded", func() bool {
		return strings.Contains(p.stderr.String(), " loaded in ")
	})
	flushes := s.flood("infifo.1", inlookup.Query{Type: inlookup.TypeFlush,
		Email: "#" + strings.Repeat("long", 900) + "@example.com"})
	flushes.pause()
	others := s.flood("infifo.1", hit)
	others.pause()

	unlock := lockTables(t, db, "lastauth")
	hits(t, callers, 50*time.Millisecond)
	p.signal(syscall.SIGHUP)
	eventually(t, "the cache is dropped and the load begins", func() bool {
		return s.counts()[`cache_entries{kind="present"}`] < preloadUsers/2
	})
	rss := 0
	beside := func(flood *process, rounds int) (counts []int) {
		flood.signal(syscall.SIGCONT)
		for range rounds {
			counts = append(counts, hits(t, callers, 200*time.Millisecond))
			rss = max(rss, used(p.cmd.Process.Pid).rss)
		}
		flood.pause()
		return counts
	}
	usual := beside(others, 5)
	waiting := beside(flushes, 12)
	unlock()
	loading := beside(flushes, 10)
	t.Logf("hits in 200 ms beside a flood of hits: %v; "+
		"of flushes while the load waits: %v, while it goes on: %v; "+
		"at most %d MiB", usual, waiting, loading, rss>>10)
	if n := min(median(waiting), median(loading)); n < median(usual)/5 {
		t.Errorf("%d hits beside flushes, %d beside hits", n, median(usual))
	}
	if slices.Max(usual) == 0 {
		t.Error("no hits at all: this test tests nothing")
	}
	limit := 160 << 10
	if raceEnabled {
		limit *= 4
	}
	if runtime.GOOS == "linux" && rss > limit {
		t.Errorf("%d MiB, want at most %d", rss>>10, limit>>10)
	}
}
