package main

// The counters of a server, read from the text format of Prometheus.

import (
	"math"
	"strconv"
	"strings"
)

// A metric is one value, with its labels as they are written but for their
// escapes.
type metric struct {
	name   string // without "inlookup_"
	labels map[string]string
	value  float64
}

type metrics []metric

// parseMetrics reads the text. It skips a line that it does not understand.
func parseMetrics(text string) (all metrics) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, found := strings.CutPrefix(line, "inlookup_")
		end := strings.IndexAny(name, "{ ")
		if !found || end < 0 {
			continue
		}
		m := metric{name: name[:end], labels: make(map[string]string)}
		rest, ok := readLabels(name[end:], m.labels)
		value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		if ok && err == nil {
			m.value = value
			all = append(all, m)
		}
	}
	return all
}

// readLabels reads {name="value",...} into labels, and returns what follows. ok
// is false if the text has no such form.
func readLabels(text string, labels map[string]string) (rest string, ok bool) {
	rest, found := strings.CutPrefix(text, "{")
	if !found {
		return text, true
	}
	for {
		if rest, found = strings.CutPrefix(rest, "}"); found {
			return rest, true
		}
		name, after, found := strings.Cut(rest, `="`)
		if !found {
			return "", false
		}
		value, after, found := cutQuote(after)
		if !found {
			return "", false
		}
		labels[strings.TrimLeft(name, ", ")] = value
		rest = after
	}
}

// cutQuote cuts text after the first quote that is not escaped, and resolves
// the escapes before it.
func cutQuote(text string) (before, after string, found bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:], true
		case text[i] != '\\':
			b.WriteByte(text[i])
		case i+1 < len(text):
			i++
			if text[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(text[i])
			}
		}
	}
	return "", "", false
}

// get returns the value of that name whose labels are these, "name", "value"
// and so on, or NaN if there is none.
func (all metrics) get(name string, labels ...string) float64 {
	for _, m := range all {
		if m.name == name && m.has(labels) {
			return m.value
		}
	}
	return math.NaN()
}

// sum returns the sum of all values of that name.
func (all metrics) sum(name string) (sum float64) {
	for _, m := range all {
		if m.name == name {
			sum += m.value
		}
	}
	return sum
}

// has reports whether a metric has these labels.
func (m metric) has(labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if m.labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// values returns what a label is, each once, in the order of the metrics.
func (all metrics) values(name, label string) (values []string) {
	seen := make(map[string]bool)
	for _, m := range all {
		value := m.labels[label]
		if m.name == name && !seen[value] {
			seen[value] = true
			values = append(values, value)
		}
	}
	return values
}
