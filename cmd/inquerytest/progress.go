package main

// The line on a terminal that says how far a load or a comparison is.

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const redraw = time.Second / 4

// A progress writes a line on a terminal again and again, until stop.
type progress struct {
	terminal io.Writer  // nil: standard error is not a terminal
	mu       sync.Mutex // held while something is written
	quit     chan struct{}
	done     chan struct{}
}

// showProgress shows what line returns.
func (p *program) showProgress(line func() string) *progress {
	g := &progress{quit: make(chan struct{}), done: make(chan struct{})}
	if !isTerminal(p.stderr) {
		close(g.done)
		return g
	}
	g.terminal = p.stderr
	go func() {
		defer close(g.done)
		tick := time.NewTicker(redraw)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				g.write(func() { fmt.Fprintf(g.terminal, "%s ", line()) })
			case <-g.quit:
				g.write(func() {})
				return
			}
		}
	}()
	return g
}

// write erases the line and calls f, which may write without disturbing it. One
// call of f runs at a time.
func (g *progress) write(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.terminal != nil {
		fmt.Fprint(g.terminal, "\r\x1b[K")
	}
	f()
}

// stop erases the line for good.
func (g *progress) stop() {
	close(g.quit)
	<-g.done
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// A meter measures how fast a count grows.
type meter struct {
	count int64
	at    time.Time
}

// since returns the growth per second since the last call.
func (m *meter) since(count int64) int64 {
	last := *m
	m.count, m.at = count, time.Now()
	if last.at.IsZero() {
		return 0
	}
	return int64(float64(count-last.count) / m.at.Sub(last.at).Seconds())
}
