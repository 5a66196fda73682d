package main

// The line on a terminal that shows the progress of a load or a comparison.

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const redraw = time.Second / 4

// A progress rewrites a line on a terminal, until stop.
type progress struct {
	terminal io.Writer  // nil: standard error is not a terminal
	mu       sync.Mutex // held while something is written
	quit     chan struct{}
	done     chan struct{}
}

// showProgress starts to show what line returns, if standard error is a
// terminal.
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

// write erases the line and calls f, which may write where it was. One call of
// f runs at a time.
func (g *progress) write(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.terminal != nil {
		fmt.Fprint(g.terminal, "\r\x1b[K")
	}
	f()
}

// stop erases the line, and shows it no more.
func (g *progress) stop() {
	close(g.quit)
	<-g.done
}

func isTerminal(stream any) bool {
	f, isFile := stream.(*os.File)
	if !isFile {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// A meter measures how fast a count grows.
type meter struct {
	count int64
	time  time.Time
}

// since returns the growth per second since the last call.
func (m *meter) since(count int64) int64 {
	last := *m
	*m = meter{count, time.Now()}
	if last.time.IsZero() {
		return 0
	}
	return int64(float64(count-last.count) / m.time.Sub(last.time).Seconds())
}
