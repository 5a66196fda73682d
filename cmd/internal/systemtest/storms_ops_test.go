//go:build ops

package systemtest

// Signals in number. Whatever else comes, TERM ends the server in order, and no
// HUP is lost: behind a HUP is somebody who changed a password. These run with
// -tags ops alone.

import (
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// TestTermEndsInOrderAmongSignals ends servers, each under a storm of all signals: exit 0,
// with the statistics.
func TestTermEndsInOrderAmongSignals(t *testing.T) {
	t.Parallel()
	const tries, together = 40, 4
	number := make(chan int)
	var group sync.WaitGroup
	sites := make([]*site, tries)
	for i := range sites {
		sites[i] = newSite(t, nil)
	}
	for range together {
		group.Go(func() {
			for i := range number {
				sites[i].endInStorm(uint64(i))
			}
		})
	}
	for i := range tries {
		number <- i
	}
	close(number)
	group.Wait()
}

func (s *site) endInStorm(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	all := []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGTERM}
	p := s.start("inlookup")
	ready := func() bool { return s.tryServed(p) }
	if !ready() {
		s.t.Errorf("try %d: the server does not answer", seed)
		return
	}
	p.signal(syscall.SIGTERM)
	storm := func() bool {
		for range 1000 {
			select {
			case <-p.done:
				return true
			default:
				p.cmd.Process.Signal(all[rnd.IntN(len(all))]) // an error: it has just ended
			}
		}
		return false
	}
	ended := storm()
	for end := time.Now().Add(patience); !ended && time.Now().Before(end); {
		ended = storm()
	}
	if !ended {
		s.t.Errorf("try %d: no end under a storm of signals", seed)
		return
	}
	if state := p.cmd.ProcessState; state.ExitCode() != 0 {
		s.t.Errorf("try %d: %v\n%s", seed, state, p.stderr.String())
	}
	if text := p.stdout.String(); !strings.Contains(text, "\nQuery/Sec = ") {
		s.t.Errorf("try %d: no statistics: %q", seed, text)
	}
	if names := s.requestFIFOs(); len(names) > 0 {
		s.t.Errorf("try %d: left %q", seed, names)
	}
}

// tryServed waits until the server answers. Unlike answers it ends no test, so
// that any goroutine can call it.
func (s *site) tryServed(p *process) bool {
	c := s.short(patience)
	for range 10000 {
		select {
		case <-p.done:
			return false
		default:
		}
		_, err := c.Resolve(s.t.Context(), inlookup.Query{Type: inlookup.TypeExplain})
		if err == nil {
			return true
		}
		eventually(s.t, "the FIFO", func() bool { return exists(s.fifo("infifo")) })
	}
	return false
}

// TestNoHangupIsLost changes a password and sends HUP among hundreds of other
// signals: last, first, or between them. Each time the new password holds.
func TestNoHangupIsLost(t *testing.T) {
	t.Parallel()
	db := database(t)
	addUser(t, db, "storm", "example.com", "0")
	s := goldenSite(t, db)
	cmd := s.command("inlookup", "-i", "2")
	cmd.Stdout = io.Discard // many statistics
	p := s.startCommand(cmd)
	s.answers(p)
	d := inlookup.Directory{Resolver: s.short(patience)}
	rnd := rand.New(rand.NewPCG(1, 2))
	others := []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGINT}
	noise := func(n int) {
		for range n {
			p.signal(others[rnd.IntN(len(others))])
		}
	}
	for n := range 45 {
		old, current := passwdNumber(n), passwdNumber(n+1)
		setPasswd(t, db, "storm", "example.com", old)
		p.signal(syscall.SIGHUP)
		eventually(t, "the password of this round", func() bool {
			return passwd(t, d, "storm@example.com") == old
		})
		setPasswd(t, db, "storm", "example.com", current)
		before := []int{400, 0, 200}[n%3]
		noise(before)
		p.signal(syscall.SIGHUP)
		noise(400 - before)
		eventually(t, "a HUP among others has its effect", func() bool {
			return passwd(t, d, "storm@example.com") == current
		})
	}
	p.terminate()
}

func passwdNumber(n int) string { return "hash" + string(rune('A'+n)) }

// All signals at once, as fast as they can be sent: no question suffers, and
// MariaDB does not drown in connections.
func TestSignalStormCostsNoAnswer(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	oneOfThree(t, func(c *complaint) {
		s := goldenSite(t, db)
		cmd := s.command("inlookup", "-i", "2")
		cmd.Stdout = io.Discard // many lines
		p := s.startCommand(cmd)
		s.answers(p)
		right, none, end := s.askKnown(t, 16, 0) // as long as clients wait by default
		rnd := rand.New(rand.NewPCG(1, 2))
		all := []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2}
		most := 0
		for range 1000 {
			p.signal(all[rnd.IntN(len(all))])
			most = max(most, len(connections(t, db, "indimail")))
		}
		n := right.Load() + 100
		eventually(t, "answers after all that", func() bool { return right.Load() >= n })
		end()
		t.Logf("%d answered, %d not; %d connections to MariaDB at most",
			right.Load(), none.Load(), most)
		if none.Load() > 0 || most > 200 {
			c.addf("%d questions without an answer; %d connections to MariaDB, "+
				"of which each SIGINT leaves some behind", none.Load(), most)
		}
		if strings.Contains(p.stderr.String(), "Hash") {
			t.Error("a hash is in the log")
		}
		p.terminate()
	})
}
