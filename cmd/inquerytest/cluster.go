package main

// Comparing in a cluster. A process of the C server crashes if it is asked
// about a distributed domain after it was asked about another one. The C server
// has a process for each request FIFO, and starts one again that crashed.
//
// So a comparison asks about distributed domains first. Before that it asks one
// such question on each FIFO: a process that has served others before crashes
// then, while the other processes still serve. The comparison waits until it is
// back, and asks it again.

import (
	"bufio"
	"cmp"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlookup/inlookup"
)

// A cluster knows which domains are distributed. One goroutine uses it.
type cluster struct {
	mysql       *inlookup.MySQL
	distributed []string        // the real domains
	known       map[string]bool // what is told about a domain, at most maxDomains
	getenv      func(string) string
	err         error // of the control files: no domain is known
}

func (p *program) newCluster() *cluster {
	c := &cluster{mysql: p.newMySQL(), getenv: p.getenv}
	c.distributed, c.err = c.mysql.DistributedDomains()
	return c
}

func (c *cluster) close() { c.mysql.Close() }

// has reports whether a question is about a distributed domain, or an alias of
// one. Where the database of alias domains does not answer, a name that is not
// in mcdinfo counts as none.
func (c *cluster) has(ctx context.Context, q inlookup.Query) bool {
	_, domain := q.Split(cmp.Or(c.getenv("INDIMAIL_DOMAIN"), c.getenv("DEFAULT_DOMAIN")))
	if slices.Contains(c.distributed, domain) {
		return true
	}
	if is, told := c.known[domain]; told {
		return is
	}
	where, err := c.mysql.Locate(ctx, inlookup.Query{Type: inlookup.TypeDomain, Email: domain})
	if err != nil {
		return false
	}
	if c.known == nil || len(c.known) >= maxDomains {
		c.known = make(map[string]bool)
	}
	is := slices.Contains(c.distributed, where.RealDomain)
	c.known[domain] = is
	return is
}

// split returns those questions that must be asked first, and the rest.
func (c *cluster) split(ctx context.Context, all job) (first, rest job) {
	for _, q := range all {
		if c.has(ctx, q) {
			first = append(first, q)
		} else {
			rest = append(rest, q)
		}
	}
	return first, rest
}

// A spool is a temporary file of jobs, so that memory does not grow with their
// number. It has no name, and is gone when the program ends.
type spool struct {
	file   *os.File
	buffer *bufio.Writer
	stored *gob.Encoder
}

func newSpool() (*spool, error) {
	f, err := os.CreateTemp("", "inquerytest.")
	if err != nil {
		return nil, err
	}
	s := &spool{file: f, buffer: bufio.NewWriter(f)}
	s.stored = gob.NewEncoder(s.buffer)
	return s, os.Remove(f.Name())
}

// jobs calls add with each job that was stored, until add returns false.
func (s *spool) jobs(add func(job) bool) error {
	err := s.buffer.Flush()
	if err == nil {
		_, err = s.file.Seek(0, io.SeekStart)
	}
	for d := gob.NewDecoder(s.file); err == nil; {
		var j job
		err = d.Decode(&j)
		if err == nil && !add(j) {
			return nil
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// A spread asks the FIFOs of one server in turn. It leaves out those whose
// process does not answer, until it is back.
type spread struct {
	fifos  []*fifo
	next   atomic.Int64                   // counts the questions
	first  atomic.Pointer[inlookup.Query] // for a process that has just started; nil: none
	gone   atomic.Bool                    // no process came back in time: wait no more
	deaths atomic.Int64                   // of processes that came back
}

// A fifo is a request FIFO, with the process that reads it.
type fifo struct {
	*inlookup.Client
	down atomic.Bool // the last question got no answer
	mu   sync.Mutex  // held while its process is asked whether it is back
}

const (
	restartTime = 10 * time.Second // for a process to come back
	restartPoll = 50 * time.Millisecond
)

// newSpread returns the server called name. Each of its FIFOs that has a reader
// counts.
func (p *program) newSpread(name string) *spread {
	s := new(spread)
	for _, path := range inlookup.RequestFIFOs(p.getenv, name) {
		path, err := filepath.Abs(path) // a Client takes a relative path for a name
		if err == nil && listens(path) == nil {
			client := &inlookup.Client{Infifo: path, Getenv: p.getenv}
			s.fifos = append(s.fifos, &fifo{Client: client})
		}
	}
	return s
}

// spread makes s ask all FIFOs of a server in turn, if it has several.
func (s *side) spread(p *program, name string) {
	if _, running := s.Resolver.(*inlookup.Client); !running || s.fifo == "" {
		return
	}
	if all := p.newSpread(name); len(all.fifos) > 0 {
		s.fifos = all
		s.Resolver = all
		s.name = "the server on " + all.name()
	}
}

// name returns the FIFOs, as infifo.1 to .5.
func (s *spread) name() string {
	first, last := s.fifos[0].Infifo, s.fifos[len(s.fifos)-1].Infifo
	end := filepath.Ext(last)
	stem := strings.TrimSuffix(first, filepath.Ext(first))
	if first == last || stem+end != last {
		return first
	}
	return first + " to " + end
}

// Resolve asks the next FIFO.
func (s *spread) Resolve(ctx context.Context, q inlookup.Query) (inlookup.Answer, error) {
	f := s.choose(ctx)
	a, err := f.Resolve(ctx, q)
	if f.lost(err) && ctx.Err() == nil {
		f.down.Store(true)
	}
	return a, err
}

// lost reports whether an error can mean that the process has died.
func (f *fifo) lost(err error) bool {
	return isTimeout(err) || err != nil && errors.Is(listens(f.Infifo), errNobody)
}

// choose returns the next FIFO whose process is there. If there is none it
// waits for one.
func (s *spread) choose(ctx context.Context) *fifo {
	n := int(s.next.Add(1))
	end := time.Now().Add(restartTime)
	for {
		for i := range s.fifos {
			f := s.fifos[(n+i)%len(s.fifos)]
			if !f.down.Load() || s.isBack(ctx, f) {
				return f
			}
		}
		if s.gone.Load() || ctx.Err() != nil {
			break
		}
		if time.Now().After(end) {
			s.gone.Store(true)
			break
		}
		time.Sleep(restartPoll)
	}
	return s.fifos[n%len(s.fifos)]
}

// isBack reports whether the process of a FIFO that was down is back. It then
// asks that process the first question.
func (s *spread) isBack(ctx context.Context, f *fifo) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.down.Load() {
		return true
	}
	if listens(f.Infifo) != nil {
		return false
	}
	if q := s.first.Load(); q != nil {
		if _, err := f.Resolve(ctx, *q); f.lost(err) {
			return false
		}
	}
	f.down.Store(false)
	s.gone.Store(false)
	s.deaths.Add(1)
	return true
}

// prime asks q on every FIFO, before any other question. It does so one after
// the other, and waits for a process that q has killed: the others serve.
func (s *spread) prime(ctx context.Context, q inlookup.Query) {
	s.first.Store(&q)
	for _, f := range s.fifos {
		_, err := f.Resolve(ctx, q)
		if !f.lost(err) {
			continue
		}
		f.down.Store(true)
		for end := time.Now().Add(restartTime); ctx.Err() == nil && time.Now().Before(end); {
			if s.isBack(ctx, f) {
				break
			}
			time.Sleep(restartPoll)
		}
	}
}

// restarts says how often a side was waited for.
func (s side) restarts() string {
	if s.fifos == nil || s.fifos.deaths.Load() == 0 {
		return ""
	}
	times := "once"
	if n := s.fifos.deaths.Load(); n > 1 {
		times = fmt.Sprintf("%d times", n)
	}
	return fmt.Sprintf("%s: %s did not answer on a FIFO %s, and was asked again",
		s.letter, s.name, times)
}
