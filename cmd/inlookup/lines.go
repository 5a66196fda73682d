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

// A lineWriter writes lines to a file whose reader may be slow or may hang,
// such as multilog on a full disk. Write never waits. It drops and counts lines
// for which there is no room; a line says how many when the reader goes on. So
// a slow reader loses lines, but delays no answer, no signal and no exit.
type lineWriter struct {
	to    io.Writer
	wake  chan struct{} // holds one token when there is something to write
	total atomic.Uint64 // lines lost

	mu     sync.Mutex // guards what follows
	buffer []byte     // lines that wait
	lost   int        // lines lost since a line last said so
	busy   bool       // a block is being written
}

const (
	lineRoom   = 1 << 20               // bytes of lines that wait
	lineGather = 10 * time.Millisecond // for more lines to join a block
)

func newLineWriter(to io.Writer) *lineWriter {
	w := &lineWriter{to: to, wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// newLineWriters returns a writer for each of the two outputs. If both are the
// same file they share one, so that their lines do not mix.
func newLineWriters(stdout, stderr *os.File) (out, errOut *lineWriter) {
	out = newLineWriter(stdout)
	outInfo, err1 := stdout.Stat()
	errInfo, err2 := stderr.Stat()
	if err1 == nil && err2 == nil && os.SameFile(outInfo, errInfo) {
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
	default: // run has a token already
	}
	return len(b), nil
}

// lose counts the lines of b as lost. The caller holds the mutex.
func (w *lineWriter) lose(b []byte) {
	lines := bytes.Count(b, []byte("\n"))
	w.lost += lines
	w.total.Add(uint64(lines))
}

// run writes blocks of lines, for as long as the process lives.
func (w *lineWriter) run() {
	var block []byte
	for range w.wake {
		time.Sleep(lineGather)
		w.mu.Lock()
		block, w.buffer = w.buffer, block[:0]
		if w.lost > 0 {
			format := "inlookup: %d lines lost\n"
			if w.lost == 1 {
				format = "inlookup: %d line lost\n"
			}
			block = fmt.Appendf(block, format, w.lost)
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

// flush waits until all lines are written, but not beyond this time.
func (w *lineWriter) flush(patience time.Duration) {
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		w.mu.Lock()
		done := len(w.buffer) == 0 && w.lost == 0 && !w.busy
		w.mu.Unlock()
		if done {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// traceLines returns what -v writes for a request. IndiMail's graphing program
// parses these lines.
func traceLines(fifo, replyPath string, q inlookup.Query, hit bool) string {
	const fixed = 5 // bytes of a request besides the texts: type, zero and three NULs
	size := fixed + len(q.Email) + len(replyPath) + len(q.IP)
	ip := "N/A"
	if q.Type == inlookup.TypeRelay {
		ip = printable(q.IP)
	}
	from := fifo + "->" + printable(replyPath)
	lines := fmt.Sprintf("%s, Bytes %d, Query ['%v'], User %s, RemoteIp %s\n",
		from, size, q.Type, printable(q.Email), ip)
	if hit {
		lines += from + ", cache hit\n"
	}
	return lines
}

// printable replaces each character that could end the line or control a
// terminal with a question mark.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}
