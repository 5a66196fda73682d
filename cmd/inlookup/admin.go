package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/build"
)

// An admin writes statistics, and answers the extensions of the wire protocol,
// which ask about the server itself.
type admin struct {
	server *inlookup.Server
	cache  *inlookup.Cache // nil: no cache
	mysql  *inlookup.MySQL
	lost   func() uint64 // counts lost lines of the log; nil: there is no log
}

// answer is the server's Admin.
func (a *admin) answer(ctx context.Context, q inlookup.Query) (string, error) {
	switch {
	case q.Type == inlookup.TypeStatus:
		return a.status(), nil
	case q.Type == inlookup.TypeExplain:
		return a.explain(ctx, q)
	case a.cache == nil:
		return "there is no cache\n", nil
	}
	n := a.cache.Flush(q.Email)
	if n == 1 {
		return "1 entry flushed\n", nil
	}
	return fmt.Sprintf("%d entries flushed\n", n), nil
}

func (a *admin) cacheStats() (s inlookup.CacheStats) {
	if a.cache != nil {
		s = a.cache.Stats()
	}
	return s
}

// statistics writes what SIGUSR1 asks for. IndiMail's graphing program parses
// the first line.
func (a *admin) statistics(w io.Writer) {
	s := a.server.Stats()
	c := a.cacheStats()
	n := s.Queries
	total := uint64(0)
	for _, count := range n {
		total += count
	}
	now := time.Now()
	seconds := now.Sub(s.Started).Seconds()
	fmt.Fprintf(w, "User:Relay:Password:Limit:Alias:Host:Domain %d %d %d %d %d %d %d"+
		" Cached Nodes %d\n",
		n[inlookup.TypeUser], n[inlookup.TypeRelay], n[inlookup.TypePasswd],
		n[inlookup.TypeLimit], n[inlookup.TypeAlias], n[inlookup.TypeHost],
		n[inlookup.TypeDomain], c.Present.Entries+c.Absent.Entries)
	fmt.Fprintf(w, "Start Time: %s\nEnd   Time: %s\nQueries: %d\nSeconds: %.3f\n"+
		"Query/Sec = %.2f\n",
		s.Started.Format(time.RFC3339), now.Format(time.RFC3339), total, seconds,
		float64(total)/seconds)
}

const defaultCacheSize = 256 << 20 // what Cache takes for a Size of 0

// labels name the types 1 to 7.
var labels = [...]string{1: "user", "relay", "passwd", "host", "alias", "limit", "domain"}

// statusRoom is what a reply can hold, with a closing NUL: inquery(3).
const statusRoom = 60 << 10

// status returns all counts in the exposition format of Prometheus. With very
// many databases it leaves out the metrics at the end: nobody could read one
// that is cut.
func (a *admin) status() string {
	s := a.server.Stats()
	c := a.cacheStats()
	lost := uint64(0)
	if a.lost != nil {
		lost = a.lost()
	}
	var w exposition
	w.add("build_info", "gauge", "the version", label("version", build.Version()), 1)
	w.add("start_time_seconds", "gauge", "when the server started, Unix time", "", s.Started.Unix())
	for t := inlookup.TypeUser; t <= inlookup.TypeDomain; t++ {
		w.add("queries_total", "counter", "requests read", label("type", labels[t]), s.Queries[t])
	}
	w.add("waiting", "gauge", "requests that wait for an answer", "", s.Waiting)
	w.add("refused_bytes_total", "counter",
		"bytes in the request FIFOs that were no request", "", s.Refused)
	w.add("undeliverable_total", "counter",
		"replies without a reader, or without room", "", s.Undeliverable)
	w.add("replies_unopened_total", "counter",
		"replies not opened, for lack of descriptors or rights", "", s.Unopened)
	w.add("busy_total", "counter", "requests refused because too many waited", "", s.Busy)
	w.add("unavailable_total", "counter", "requests answered with an error", "", s.Unavailable)
	w.add("fifos_remade_total", "counter", "request FIFOs recreated", "", s.Remade)
	w.add("log_lines_lost_total", "counter",
		"lines for which the log's reader was too slow", "", lost)
	w.add("cache_hits_total", "counter", "answers from memory", "", c.Hits)
	w.add("cache_misses_total", "counter", "answers that were loaded", "", c.Misses)
	w.add("cache_coalesced_total", "counter",
		"questions that shared the load of another", "", c.Coalesced)
	w.add("cache_stale_total", "counter",
		"expired answers given while the database was unavailable", "", c.StaleHits)
	w.add("cache_load_errors_total", "counter", "loads that failed", "", c.LoadErrors)
	w.add("cache_busy_total", "counter", "loads refused because too many waited", "", c.Busy)
	w.add("cache_waiting", "gauge", "loads that wait now", "", c.Waiting)
	w.add("cache_evicted_total", "counter", "entries evicted to make room", "", c.Evicted)
	w.add("cache_flushed_total", "counter", "entries flushed", "", c.Flushed)
	w.add("cache_entries", "gauge", "entries in the cache", `kind="present"`, c.Present.Entries)
	w.add("cache_entries", "gauge", "", `kind="absent"`, c.Absent.Entries)
	w.add("cache_bytes", "gauge", "bytes of heap that entries take",
		`kind="present"`, c.Present.Bytes)
	w.add("cache_bytes", "gauge", "", `kind="absent"`, c.Absent.Bytes)
	w.addLimits(a.cache)
	w.addDatabases(a.mysql.Stats().Databases)
	text := w.String()
	if len(text) >= statusRoom {
		text = text[:strings.LastIndex(text[:statusRoom], "# HELP ")]
	}
	return text
}

// addDatabases adds the metrics of each database.
func (w *exposition) addDatabases(databases []inlookup.DatabaseStats) {
	label := func(d inlookup.DatabaseStats) string { return label("database", d.Name) }
	for _, d := range databases {
		up := 0
		if d.Up {
			up = 1
		}
		w.add("database_up", "gauge",
			"0 if there is no connection and none can be had", label(d), up)
	}
	for _, d := range databases {
		for _, c := range []struct {
			state string
			n     int
		}{{"idle", d.Idle}, {"busy", d.Busy}, {"connecting", d.Connecting}} {
			w.add("database_connections", "gauge", "connections, and attempts to connect",
				label(d)+`,state="`+c.state+`"`, c.n)
		}
	}
	for _, d := range databases {
		w.add("database_waiting", "gauge", "SELECTs that wait for a connection",
			label(d), d.Waiting)
	}
	for _, d := range databases {
		w.add("database_errors_total", "counter", "SELECTs that failed or got no connection",
			label(d), d.Errors)
	}
	const name, kind, help = "database_select_seconds", "histogram", "how long SELECTs took"
	for _, d := range databases {
		total := uint64(0)
		for i, s := range d.Selects {
			total = s.Count
			le := strconv.FormatFloat(s.AtMost.Seconds(), 'g', -1, 64)
			if i == len(d.Selects)-1 {
				le = "+Inf"
			}
			w.addTo(name, "_bucket", kind, help, label(d)+`,le="`+le+`"`, total)
		}
		w.addTo(name, "_sum", kind, help, label(d), d.Time.Seconds())
		w.addTo(name, "_count", kind, help, label(d), total)
	}
}

// addLimits adds the bounds of the cache, which may be nil.
func (w *exposition) addLimits(cache *inlookup.Cache) {
	if cache == nil {
		return
	}
	w.add("cache_entries_limit", "gauge", "entries that the cache keeps at most; 0: no limit",
		"", cache.MaxEntries)
	w.add("cache_bytes_limit", "gauge", "bytes of heap that entries take at most",
		"", max(0, cmp.Or(cache.Size, defaultCacheSize)))
}

// label returns name="value". Inside quotes a backslash stands before these
// three.
func label(name, value string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	return name + `="` + escape.Replace(value) + `"`
}

// An exposition collects the values of metrics.
type exposition struct {
	strings.Builder
	last string // the name of the last metric
}

func (w *exposition) add(name, kind, help, label string, value any) {
	w.addTo(name, "", kind, help, label, value)
}

// addTo adds a value. Before the first value of a name it adds its help.
func (w *exposition) addTo(name, suffix, kind, help, label string, value any) {
	if name != w.last {
		fmt.Fprintf(w, "# HELP inlookup_%s %s\n# TYPE inlookup_%[1]s %[3]s\n", name, help, kind)
		w.last = name
	}
	if label != "" {
		label = "{" + label + "}"
	}
	fmt.Fprintf(w, "inlookup_%s%s%s %v\n", name, suffix, label, value)
}

// explain says where the answer to a question would come from.
func (a *admin) explain(ctx context.Context, q inlookup.Query) (string, error) {
	t, err := strconv.Atoi(q.IP)
	if err != nil || t < int(inlookup.TypeUser) || t > int(inlookup.TypeDomain) {
		return fmt.Sprintf("cannot explain type %q: want 1 to 7\n", q.IP), nil
	}
	q = inlookup.Query{Type: inlookup.Type(t), Email: q.Email}
	var w strings.Builder
	fmt.Fprintf(&w, "query:       %v of %s\n", q.Type, strconv.QuoteToGraphic(q.Email))
	a.explainCache(&w, q)
	where, err := a.mysql.Locate(ctx, q)
	switch {
	case err != nil:
		fmt.Fprintf(&w, "database:    %v\n", err)
	case where.Database == "":
		w.WriteString("database:    none, no database can hold this address\n")
	default:
		fmt.Fprintf(&w, "real domain: %s\ndatabase:    %s\nstate:       %s\n"+
			"mail store:  %s\ndistributed: %v\n", where.RealDomain, where.Database,
			a.state(where.Database), where.MailStore, where.Distributed)
	}
	return w.String(), nil
}

// state returns the state of the database with that name.
func (a *admin) state(name string) string {
	for _, d := range a.mysql.Stats().Databases {
		if d.Name == name {
			return d.State
		}
	}
	return "unknown" // it has just been taken out of the configuration
}

// explainCache says what the cache has for a question.
func (a *admin) explainCache(w io.Writer, q inlookup.Query) {
	if a.cache == nil {
		fmt.Fprintln(w, "cache:       none")
		return
	}
	if q.Type == inlookup.TypeRelay {
		fmt.Fprintln(w, "cache:       never, this is always looked up")
		return
	}
	e, found := a.cache.Explain(q)
	if !found {
		fmt.Fprintln(w, "cache:       miss")
		return
	}
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	switch {
	case e.Left > 0:
		fmt.Fprintf(w, "cache:       hit\ntime left:   %v\n", round(e.Left))
	case e.Usable > 0:
		fmt.Fprintf(w, "cache:       stale, given only while the database is unavailable\n"+
			"time left:   %v\n", round(e.Usable))
	default:
		fmt.Fprintln(w, "cache:       miss, the entry has expired")
	}
	fmt.Fprintf(w, "age:         %v\nbytes:       %d\nabsent:      %v\n",
		round(e.Age), e.Bytes, e.Absent)
}
