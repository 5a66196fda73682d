package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// counters is what a server tells n seconds after its start.
func counters(n int) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`# HELP inlookup_build_info the version`)
	p(`# TYPE inlookup_build_info gauge`)
	p(`inlookup_build_info{version="1.2"} 1`)
	p(`inlookup_start_time_seconds 1000`)
	for i, typ := range []string{"user", "relay", "passwd", "host", "alias", "limit", "domain"} {
		p(`inlookup_queries_total{type="%s"} %d`, typ, i*100*n)
	}
	p(`inlookup_waiting 7`)
	p(`inlookup_busy_total %d`, 5*n)
	p(`inlookup_unavailable_total 9`)
	p(`inlookup_cache_hits_total %d`, 1050*n)
	p(`inlookup_cache_entries{kind="present"} 1000`)
	p(`inlookup_cache_entries{kind="absent"} 24`)
	p(`inlookup_cache_bytes{kind="present"} 1048576`)
	p(`inlookup_cache_bytes{kind="absent"} 0`)
	p(`inlookup_cache_entries_limit 0`)
	p(`inlookup_cache_bytes_limit 4194304`)
	for i, name := range []string{"indimail on db1", `odd\" \\ name`} {
		p(`inlookup_database_up{database="%s"} %d`, name, 1-i)
		for j, state := range []string{"idle", "busy", "connecting"} {
			p(`inlookup_database_connections{database="%s",state="%s"} %d`, name, state, j+1)
		}
		p(`inlookup_database_waiting{database="%s"} 11`, name)
		p(`inlookup_database_select_seconds_bucket{database="%s",le="0.001"} %d`, name, 10*n)
		p(`inlookup_database_select_seconds_bucket{database="%s",le="2.5"} %d`, name, 15*n)
		p(`inlookup_database_select_seconds_bucket{database="%s",le="+Inf"} %d`, name, 15*n)
		p(`inlookup_database_select_seconds_sum{database="%s"} %g`, name, 0.03*float64(n))
		p(`inlookup_database_select_seconds_count{database="%s"} %d`, name, 15*n)
	}
	return b.String()
}

func sampleAt(n int) sample {
	return sample{at: time.Unix(1000+int64(n), 0), metrics: parseMetrics(counters(n))}
}

func framed(columns string, past ...sample) string {
	p := setting{env: map[string]string{"COLUMNS": columns}}.program(nil, nil)
	return strings.Join(p.frame(past), "\n") + "\n"
}

const wholeFrame = `inlookup 1.2, 12s since its start

questions a second: 2100
  user                0
  relay             100  #######
  passwd            200  ##############
  host              300  ####################
  alias             400  ###########################
  limit             500  ##################################
  domain            600  ########################################

answers
  from memory    50.0 %  ####################
  waiting             7  now
! refused             5  too many waited
  unavailable         0  answered "error"

memory
  entries          1024  no limit
  bytes            1.0M  of 4.0M    25.0 %  #########

database indimail on db1: up
  1 idle, 2 busy, 3 connecting; 11 waiting
  30 SELECTs in 2 s, 2 ms each
  <= 1 ms            20  ########################################
  <= 2.5 s           10  ####################
  > 2.5 s             0

! database odd" \ name: down
  1 idle, 2 busy, 3 connecting; 11 waiting
  30 SELECTs in 2 s, 2 ms each
  <= 1 ms            20  ########################################
  <= 2.5 s           10  ####################
  > 2.5 s             0
`

func TestFrame(t *testing.T) {
	if got := framed("80", sampleAt(10), sampleAt(11), sampleAt(12)); got != wholeFrame {
		t.Errorf("got\n%s\nwant\n%s", got, wholeFrame)
	}
	narrow := framed("30", sampleAt(11), sampleAt(12))
	if !strings.Contains(narrow, "  domain            600  #####\n") {
		t.Errorf("30 columns:\n%s", narrow)
	}
}

// Without a sample before there are no rates, and of SELECTs all since the
// server's start. That is so after a restart and after a silence too.
func TestFrameFirst(t *testing.T) {
	restarted := sampleAt(12)
	restarted.metrics = parseMetrics(strings.Replace(counters(12), "start_time_seconds 1000",
		"start_time_seconds 999", 1))
	silent := sample{at: time.Unix(1011, 0), err: errors.New("silence")}
	for _, past := range [][]sample{
		{sampleAt(12)}, {restarted, sampleAt(12)}, {sampleAt(10), silent, sampleAt(12)},
	} {
		got := framed("80", past...)
		for _, want := range []string{
			"questions a second: 0\n", "  from memory         -\n", "  unavailable         0  ",
			"  180 SELECTs in all, 2 ms each\n  <= 1 ms           120  ###",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	}
}

// A server without some counters, as one without a cache or of another version.
func TestFrameUnknown(t *testing.T) {
	text := "inlookup_start_time_seconds 1000\ninlookup_waiting{ 3\nother_thing 5\n" +
		"inlookup_x{a=\"b} 1\n"
	got := framed("80", sample{at: time.Unix(1001, 0), metrics: parseMetrics(text)})
	if !strings.Contains(got, "  entries             0  no cache\n") || strings.Contains(got, "NaN") {
		t.Errorf("got\n%s", got)
	}
}

// CACHE_SIZE=0 keeps nothing.
func TestFrameKeepsNothing(t *testing.T) {
	text := "inlookup_cache_entries_limit 0\ninlookup_cache_bytes_limit 0\n"
	got := framed("80", sample{at: time.Unix(1001, 0), metrics: parseMetrics(text)})
	want := "  entries             0  no limit\n  bytes              0B  nothing is kept\n"
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s", got)
	}
}

// A server that is away: the whole reason is there, in lines that fit.
func TestFrameAway(t *testing.T) {
	reason := "no server listens on /run/indimail/inlookup/infifo: is inlookup running? (start it)"
	got := framed("40", sampleAt(10), sample{at: time.Unix(1011, 0), err: errors.New(reason)})
	joined := strings.Join(strings.Fields(got), " ")
	if !strings.Contains(joined, "! "+reason) {
		t.Errorf("got\n%s", got)
	}
	for line := range strings.Lines(got) {
		if len(line) > 41 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

// Where standard output is no terminal, one plain picture of one second.
func TestWatchPlain(t *testing.T) {
	env := environment(t)
	status, stdout, stderr := setting{env: env}.run(t, "-watch")
	if status != exitFault || stdout != "" {
		t.Errorf("exit %d, stdout %q", status, stdout)
	}
	oneLine(t, stderr, "no server listens on ")
	n := 10
	serveStatus(t, env, func() string {
		n++
		return counters(n)
	})
	status, stdout, stderr = setting{env: env}.run(t, "-watch")
	if status != exitOK || stderr != "" || strings.Contains(stdout, "\x1b") {
		t.Errorf("exit %d, stderr %q, stdout %q", status, stderr, stdout)
	}
	if !strings.Contains(stdout, "\n  15 SELECTs in ") {
		t.Errorf("stdout\n%s", stdout)
	}
}

func TestScreenSize(t *testing.T) {
	for _, test := range []struct {
		columns, lines string
		want           [2]int
	}{
		{"", "", [2]int{80, 24}}, {"40", "9", [2]int{40, 9}}, {"x", "-1", [2]int{80, 24}},
	} {
		env := map[string]string{"COLUMNS": test.columns, "LINES": test.lines}
		columns, lines := setting{env: env}.program(nil, nil).size()
		if columns != test.want[0] || lines != test.want[1] {
			t.Errorf("COLUMNS=%s LINES=%s: %d, %d", test.columns, test.lines, columns, lines)
		}
	}
}

// On a terminal with too few lines, what says nothing goes first.
func TestFit(t *testing.T) {
	lines := []string{"a: 0", "  x    1  #", "  y    0", "", "b", "  z    0"}
	for height, want := range map[int][]string{
		6: lines, 5: {"a: 0", "  x    1  #", "", "b"}, 3: {"a: 0", "  x    1  #", "b"},
		2: {"a: 0", "... 2 more lines"}, 1: {"... 3 more lines"},
	} {
		if got := fit(lines, height); !slices.Equal(got, want) {
			t.Errorf("%d lines: %q, want %q", height, got, want)
		}
	}
	frame := strings.Split(strings.TrimSpace(framed("80", sampleAt(11), sampleAt(12))), "\n")
	if got := fit(frame, 24); !slices.Contains(got, "database indimail on db1: up") {
		t.Errorf("of 24 lines none is of a database:\n%s", strings.Join(got, "\n"))
	}
}

// A line that is too wide keeps what it says, as far as there is room.
func TestCut(t *testing.T) {
	for _, test := range []struct {
		line, want string
		width      int
	}{
		{"  passwd           2103", "  passwd           2103", 23},
		{"  passwd           2103", "  passwd 2103", 20},
		{"! database indimail on a.example,b.example: down", "! database indimail on...: down", 31},
		{"questions a second: 2103", "questions...: 2103", 18},
		{"database d on h: up", "d...: up", 8},
		{"database d on h: up", "data", 4},
	} {
		if got := cut(test.line, test.width); got != test.want {
			t.Errorf("%d columns: %q, want %q", test.width, got, test.want)
		}
	}
}

// What is drawn fits, keeps the line below for what does not, and has colours
// unless NO_COLOR is set.
func TestDraw(t *testing.T) {
	draw := func(env map[string]string, lines ...string) string {
		var b strings.Builder
		p := setting{env: env}.program(&b, nil)
		s := &screen{p, p.getenv("NO_COLOR") == ""}
		if err := s.draw(lines); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	env := map[string]string{"COLUMNS": "10", "LINES": "3", "NO_COLOR": "1"}
	want := topLeft + "äöü 456789" + eraseLine + "\r\n  b" + eraseLine +
		"\r\n... 2 more" + eraseLine + eraseBelow
	if got := draw(env, "äöü 4567890", "  b", "c", "d"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	env["NO_COLOR"] = ""
	want = topLeft + bold + "a" + normal + eraseLine + "\r\n  b" + eraseLine +
		"\r\n" + red + "! c" + normal + eraseLine + eraseBelow
	if got := draw(env, "a", "  b", "! c"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
