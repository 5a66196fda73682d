package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/inlookup/inlookup"
)

// A lineWriter writes lines to a file whose reader may be slow, or may have
// stopped: multilog on a full disk, for one. Write never waits. Lines for which
// there is no room are dropped and counted, and a line says how many when the
// reader goes on. So a log costs lines, never an answer, a signal or the end.
type lineWriter struct {
	to    io.Writer
	wake  chan struct{} // holds one token when there is something to write
	total atomic.Uint64 // lines lost

	mu     sync.Mutex // guards what follows
	buffer []byte     // lines that wait
	lost   int        // lines lost since the last one that said so
	busy   bool       // a block is being written
}

const (
	lineRoom   = 1 << 20               // bytes of lines that wait
	lineGather = 10 * time.Millisecond // so that lines leave in blocks
)

func newLineWriter(to io.Writer) *lineWriter {
	w := &lineWriter{to: to, wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// newLineWriters returns one for each of the two outputs. If both are the same
// file they share one: the blocks of two could be mixed.
func newLineWriters(stdout, stderr *os.File) (out, err *lineWriter) {
	out = newLineWriter(stdout)
	info1, err1 := stdout.Stat()
	info2, err2 := stderr.Stat()
	if err1 == nil && err2 == nil && os.SameFile(info1, info2) {
		return out, out
	}
	return out, newLineWriter(stderr)
}

// Write takes whole lines.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	if len(w.buffer)+len(b) > lineRoom {
		w.lose(b)
	} else {
		w.buffer = append(w.buffer, b...)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is awake already
	}
	return len(b), nil
}

// lose counts the lines of b as lost. The caller holds the mutex.
func (w *lineWriter) lose(b []byte) {
	lines := bytes.Count(b, []byte("\n"))
	w.lost += lines
	w.total.Add(uint64(lines))
}

func (w *lineWriter) run() {
	var block []byte
	for range w.wake {
		time.Sleep(lineGather)
		w.mu.Lock()
		block, w.buffer = w.buffer, block[:0]
		if w.lost > 0 {
			block = fmt.Appendf(block, "inlookup: %d lines lost\n", w.lost)
			w.lost = 0
		}
		w.busy = true
		w.mu.Unlock()
		n, _ := w.to.Write(block)
		w.mu.Lock()
		w.busy = false
		if n < len(block) {
			w.lose(block[n:])
		}
		w.mu.Unlock()
	}
}

// flush waits until all lines are written, or until the time is up.
func (w *lineWriter) flush(patience time.Duration) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		w.mu.Lock()
		done := len(w.buffer) == 0 && w.lost == 0 && !w.busy
		w.mu.Unlock()
		if done {
			return
		}
	}
}

// traceLines returns what -v writes for a request. IndiMail's graphing program
// parses these lines.
func traceLines(fifo, replyPath string, q inlookup.Query, hit bool) string {
	const fixed = 5 // bytes of a request that are no text: type, zero and three NULs
	size := fixed + len(q.Email) + len(replyPath) + len(q.IP)
	ip := "N/A"
	if q.Type == inlookup.TypeRelay {
		ip = printable(q.IP)
	}
	way := fifo + "->" + printable(replyPath)
	lines := way + ", Bytes " + strconv.Itoa(size) + ", Query ['" + q.Type.String() +
		"'], User " + printable(q.Email) + ", RemoteIp " + ip + "\n"
	if hit {
		lines += way + ", cache hit\n"
	}
	return lines
}

// printable returns text with a question mark for each character that could end
// the line or steer a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}
