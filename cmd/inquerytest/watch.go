package main

// -watch shows the counters as a picture, renewed each second. What it shows
// are lines of text, which frame makes of two samples. So a terminal, a narrow
// one and a file differ only in how the lines are cut and written.

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	watchEvery = time.Second
	watchTime  = 2 * time.Second // for an answer, so that a server that hangs is seen soon
	watchSince = 10              // samples: the times of SELECTs are those of the last 10 seconds
)

// A sample is what the server said at one time, or why it said nothing.
type sample struct {
	at      time.Time
	metrics metrics
	err     error
}

// watch shows samples until ctx is done. Where standard output is no terminal
// it prints one picture, of the first second.
func (p *program) watch(ctx context.Context, o *options) error {
	if overTCP(p.getenv) {
		return fmt.Errorf("-watch: tcpclient's connection takes one question only (%w)", errUsage)
	}
	screen := p.terminal()
	past := []sample{p.sample(ctx, o)}
	if screen == nil {
		if past[0].err != nil {
			return past[0].err
		}
		pause(ctx, watchEvery)
		past = append(past, p.sample(ctx, o))
		fmt.Fprintln(p.out, strings.Join(p.frame(past), "\n"))
		return past[len(past)-1].err
	}
	screen.open()
	defer screen.close()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	suspended := make(chan os.Signal, 1)
	signal.Notify(suspended, syscall.SIGTSTP)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := screen.draw(p.frame(past)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-suspended:
			screen.suspend()
		case <-tick.C:
			past = append(past, p.sample(ctx, o))
			past = past[max(0, len(past)-watchSince-1):]
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sample asks the server.
func (p *program) sample(ctx context.Context, o *options) sample {
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	text, err := p.counters(ctx, o)
	return sample{time.Now(), parseMetrics(text), err}
}

// A screen is the terminal that shows the picture.
type screen struct {
	*program
	colours bool
}

// The control sequences of a terminal (ECMA-48, and xterm's second screen).
const (
	otherScreen = "\x1b[?1049h\x1b[?25l" // the user's lines are kept; no cursor
	firstScreen = "\x1b[?25h\x1b[?1049l"
	topLeft     = "\x1b[H"
	eraseLine   = "\x1b[K"
	eraseBelow  = "\x1b[J"
	bold        = "\x1b[1m"
	red         = "\x1b[1;31m"
	normal      = "\x1b[m"
)

// terminal returns the screen, or nil if standard output is no terminal that
// can show one.
func (p *program) terminal() *screen {
	if p.screen == nil || p.getenv("TERM") == "dumb" {
		return nil
	}
	if _, _, is := windowSize(p.screen); !is {
		return nil
	}
	return &screen{p, p.getenv("NO_COLOR") == ""}
}

func (s *screen) open() { s.write(otherScreen) }

func (s *screen) close() { s.write(firstScreen) }

func (s *screen) write(text string) error {
	s.out.WriteString(text)
	return s.out.Flush()
}

// suspend does what Control-Z is for, but gives the terminal back before.
func (s *screen) suspend() {
	resumed := make(chan os.Signal, 1)
	signal.Notify(resumed, syscall.SIGCONT)
	defer signal.Stop(resumed)
	s.close()
	syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-resumed // this thread may run on for a moment, and must not draw then
	s.open()
}

// draw writes the lines over those before. A line that is too wide is cut.
func (s *screen) draw(lines []string) error {
	width, height := s.size()
	lines = fit(lines, height)
	var b strings.Builder
	b.WriteString(topLeft)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(s.paint(cut(line, width)) + eraseLine)
	}
	b.WriteString(eraseBelow)
	return s.write(b.String())
}

// fit returns lines for a terminal of this height. If there are too many it
// leaves out rows that say 0, then empty lines, and then cuts.
func fit(lines []string, height int) []string {
	zero := func(line string) bool {
		return strings.HasPrefix(line, "  ") && strings.HasSuffix(line, " 0")
	}
	empty := func(line string) bool { return line == "" }
	for _, spare := range []func(string) bool{zero, empty} {
		if len(lines) > height {
			lines = slices.DeleteFunc(slices.Clone(lines), spare)
		}
	}
	if len(lines) > height {
		kept := max(0, height-1)
		more := fmt.Sprintf("... %d more lines", len(lines)-kept)
		lines = append(lines[:kept:kept], more)
	}
	return lines
}

// paint gives a line its colour: headings are bold, faults red.
func (s *screen) paint(line string) string {
	switch {
	case !s.colours || line == "":
		return line
	case strings.HasPrefix(line, alarm):
		return red + line + normal
	case line[0] != ' ':
		return bold + line + normal
	}
	return line
}

// cut returns at most n characters of a line. It first leaves out blanks, so
// that numbers show, and then what stands before the value of a heading, which
// follows the last colon.
func cut(line string, n int) string {
	if len([]rune(line)) <= n {
		return line
	}
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	line = indent + strings.Join(strings.Fields(line), " ")
	end := ""
	if at := strings.LastIndex(line, ": "); at >= 0 && indent == "" {
		end = "..." + line[at:]
	}
	r := []rune(line)
	if used := len([]rune(end)); len(r) > n && used < n {
		return string(r[:n-used]) + end
	}
	return string(r[:min(n, len(r))])
}

// size returns the columns and lines to use: those of the terminal, else
// COLUMNS and LINES, else 80 and 24.
func (p *program) size() (columns, lines int) {
	if p.screen != nil {
		columns, lines, _ = windowSize(p.screen)
	}
	return orVariable(columns, p.getenv("COLUMNS"), 80), orVariable(lines, p.getenv("LINES"), 24)
}

// orVariable returns n, else the number in text, else def: the first that is
// more than 0.
func orVariable(n int, text string, def int) int {
	if n > 0 {
		return n
	}
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return n
	}
	return def
}

// windowSize asks a terminal for its size. Both are 0 if it does not know; is
// tells whether f is a terminal at all.
func windowSize(f *os.File) (columns, lines int, is bool) {
	var size struct{ lines, columns, _, _ uint16 } // struct winsize of tty_ioctl(4)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ,
		uintptr(unsafe.Pointer(&size)))
	return int(size.columns), int(size.lines), errno == 0
}

// A picture collects the lines of a frame.
type picture struct {
	lines     []string
	width     int
	now, last sample // last is one second before now, without metrics if there is none
}

// alarm begins a line that tells of a fault.
const alarm = "! "

// frame returns the lines for the last of these samples.
func (p *program) frame(past []sample) []string {
	width, _ := p.size()
	f := &picture{width: width, now: past[len(past)-1]}
	if f.now.err != nil {
		f.add("%s%s", alarm, singleLine(f.now.err.Error()))
		f.add("")
		f.add("  asked again each second; Control-C ends")
		return f.wrapped()
	}
	past = sameServer(past)
	if len(past) > 1 {
		f.last = past[len(past)-2]
	}
	f.title()
	f.questions()
	f.cache()
	for _, name := range f.now.metrics.values("database_up", "database") {
		f.database(name, past[0])
	}
	return f.lines
}

// sameServer returns the last samples, without those of a server before or from
// before a silence.
func sameServer(past []sample) []sample {
	const start = "start_time_seconds"
	now := past[len(past)-1]
	first := len(past) - 1
	for first > 0 {
		before := past[first-1]
		if before.err != nil || before.metrics.get(start) != now.metrics.get(start) {
			break
		}
		first--
	}
	return past[first:]
}

func (f *picture) add(format string, args ...any) {
	f.lines = append(f.lines, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// wrapped returns the lines, with long ones broken at blanks, because the text
// of an error must be read to its end.
func (f *picture) wrapped() (lines []string) {
	for _, line := range f.lines {
		rest := []rune(line)
		for len(rest) > f.width {
			at := f.width
			for i := f.width; i > f.width/2; i-- {
				if rest[i] == ' ' {
					at = i
					break
				}
			}
			lines = append(lines, string(rest[:at]))
			rest = []rune("  " + strings.TrimLeft(string(rest[at:]), " "))
		}
		lines = append(lines, string(rest))
	}
	return lines
}

// value returns what the server says now, 0 if nothing.
func (f *picture) value(name string, labels ...string) float64 {
	return orZero(f.now.metrics.get(name, labels...))
}

// grown returns how much a counter has grown since the sample before.
func (f *picture) grown(name string, labels ...string) float64 {
	return growth(f.last, f.now, name, labels...)
}

// growth returns how much a counter grew from one sample to the other, 0 if one
// of them lacks it.
func growth(from, to sample, name string, labels ...string) float64 {
	return orZero(to.metrics.get(name, labels...) - from.metrics.get(name, labels...))
}

func orZero(n float64) float64 {
	if math.IsNaN(n) {
		return 0
	}
	return n
}

// perSecond returns a growth as a rate.
func (f *picture) perSecond(n float64) float64 {
	seconds := f.now.at.Sub(f.last.at).Seconds()
	if f.last.at.IsZero() || seconds <= 0 {
		return 0
	}
	return n / seconds
}

// bar returns a bar for a part of the whole in what a line of this length
// leaves. A part that is not 0 shows.
func (f *picture) bar(part, whole float64, used int) string {
	const longest = 40
	room := min(longest, f.width-used)
	if room < 1 || whole <= 0 || part <= 0 {
		return ""
	}
	return strings.Repeat("#", int(math.Ceil(min(1, part/whole)*float64(room))))
}

func (f *picture) title() {
	version := ""
	if all := f.now.metrics.values("build_info", "version"); len(all) > 0 {
		version = all[0]
	}
	started := time.Unix(int64(f.value("start_time_seconds")), 0)
	f.add("inlookup %s, %v since its start", version, f.now.at.Sub(started).Round(time.Second))
}

const (
	rowFormat = "  %-11s %9s  %s"
	rowLength = 25 // of the columns before the last
)

// row adds a line with a number and a bar or a text.
func (f *picture) row(label, number, rest string) { f.add(rowFormat, label, number, rest) }

func (f *picture) questions() {
	types := f.now.metrics.values("queries_total", "type")
	rates := make(map[string]float64)
	var sum, most float64
	for _, typ := range types {
		rates[typ] = f.perSecond(f.grown("queries_total", "type", typ))
		sum += rates[typ]
		most = max(most, rates[typ])
	}
	f.add("")
	f.add("questions a second: %s", digits(sum))
	for _, typ := range types {
		f.row(typ, digits(rates[typ]), f.bar(rates[typ], most, rowLength))
	}
	f.add("")
	f.add("answers")
	hits := f.perSecond(f.grown("cache_hits_total"))
	share := "-"
	if sum > 0 {
		share = portion(hits / sum)
	}
	f.row("from memory", share, f.bar(hits, sum, rowLength))
	f.row("waiting", digits(f.value("waiting")), "now")
	for _, fault := range []struct{ label, name, text string }{
		{"refused", "busy_total", "too many waited"},
		{"unavailable", "unavailable_total", "answered \"error\""},
	} {
		n := f.grown(fault.name)
		if n > 0 {
			f.add(alarm+rowFormat[len(alarm):], fault.label, digits(n), fault.text)
		} else {
			f.row(fault.label, digits(n), fault.text)
		}
	}
}

func (f *picture) cache() {
	f.add("")
	f.add("memory")
	for _, what := range []struct {
		label, held, bound string
		text               func(float64) string
		zero               string // what a bound of 0 means
	}{
		{"entries", "cache_entries", "cache_entries_limit", digits, "no limit"},
		{"bytes", "cache_bytes", "cache_bytes_limit", size, "nothing is kept"},
	} {
		held := f.now.metrics.sum(what.held)
		bound := f.now.metrics.get(what.bound)
		rest := what.zero
		if math.IsNaN(bound) {
			rest = "no cache"
		} else if bound > 0 {
			rest = fmt.Sprintf("of %-7s %6s  ", what.text(bound), portion(held/bound))
			rest += f.bar(held, bound, rowLength+len(rest))
		}
		f.row(what.label, what.text(held), rest)
	}
}

// database adds what is known of one database. The times are those of SELECTs
// since the sample first.
func (f *picture) database(name string, first sample) {
	label := []string{"database", name}
	connections := func(state string) string {
		return digits(f.value("database_connections", append(label, "state", state)...))
	}
	f.add("")
	if f.value("database_up", label...) == 1 {
		f.add("database %s: up", name)
	} else {
		f.add("%sdatabase %s: down", alarm, name)
	}
	f.add("  %s idle, %s busy, %s connecting; %s waiting", connections("idle"),
		connections("busy"), connections("connecting"),
		digits(f.value("database_waiting", label...)))
	if f.last.metrics == nil { // one sample: all SELECTs since the server's start
		first = sample{metrics: zeros(f.now.metrics)}
	}
	f.times(label, first)
}

// zeros returns the metrics with each value 0.
func zeros(all metrics) (none metrics) {
	for _, m := range all {
		m.value = 0
		none = append(none, m)
	}
	return none
}

// times adds a bar for each bucket of the times of SELECTs since first.
func (f *picture) times(label []string, first sample) {
	const histogram = "database_select_seconds"
	if math.IsNaN(f.now.metrics.get(histogram+"_count", label...)) {
		return // left out, because there are many databases
	}
	n := growth(first, f.now, histogram+"_count", label...)
	mean := "-"
	if n > 0 {
		mean = seconds(growth(first, f.now, histogram+"_sum", label...) / n)
	}
	f.add("  %s SELECTs in %s, %s each", digits(n), f.since(first), mean)
	var bounds []string
	var counts []float64
	var below, most float64
	for _, m := range f.now.metrics {
		if m.name != histogram+"_bucket" || !m.has(label) {
			continue
		}
		upTo := growth(first, f.now, m.name, append(label, "le", m.labels["le"])...)
		bounds = append(bounds, m.labels["le"])
		counts = append(counts, upTo-below)
		most = max(most, upTo-below)
		below = upTo
	}
	for i, le := range bounds {
		f.row(bucketName(bounds, i, le), digits(counts[i]), f.bar(counts[i], most, rowLength))
	}
}

// since describes the time from a sample to now.
func (f *picture) since(first sample) string {
	if first.at.IsZero() {
		return "all"
	}
	return fmt.Sprintf("%.0f s", f.now.at.Sub(first.at).Seconds())
}

// bucketName returns what the times in a bucket are.
func bucketName(bounds []string, i int, le string) string {
	upTo, err := strconv.ParseFloat(le, 64)
	if err != nil || math.IsInf(upTo, 1) {
		if i == 0 {
			return "any time"
		}
		before, _ := strconv.ParseFloat(bounds[i-1], 64)
		return "> " + seconds(before)
	}
	return "<= " + seconds(upTo)
}

// digits returns a number without a fraction.
func digits(n float64) string { return strconv.FormatFloat(math.Round(n), 'f', 0, 64) }

func portion(part float64) string { return fmt.Sprintf("%.1f %%", 100*min(1, part)) }

// size returns bytes with three digits and a unit of 1024.
func size(n float64) string {
	units := []string{"B", "K", "M", "G", "T"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1024
		i++
	}
	if n < 10 && i > 0 {
		return fmt.Sprintf("%.1f%s", n, units[i])
	}
	return digits(n) + units[i]
}

// seconds returns a time in the unit in which people read it.
func seconds(s float64) string {
	switch {
	case s >= 1:
		return strconv.FormatFloat(s, 'g', 3, 64) + " s"
	case s >= 0.001:
		return strconv.FormatFloat(s*1000, 'g', 3, 64) + " ms"
	}
	return strconv.FormatFloat(s*1e6, 'g', 3, 64) + " us"
}
