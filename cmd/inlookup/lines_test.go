package main

import (
	"testing"

	"github.com/inlookup/inlookup"
)

// TestTraceLines: the lines that IndiMail's graphs parse, whatever a client writes.
func TestTraceLines(t *testing.T) {
	const way = "infifo.1->/tmp/r, "
	tests := []struct {
		query inlookup.Query
		hit   bool
		want  string
	}{
		{
			inlookup.Query{Type: inlookup.TypePasswd, Email: "User@example.com"}, true,
			way + "Bytes 27, Query ['Password Query'], User User@example.com, RemoteIp N/A\n" +
				way + "cache hit\n",
		},
		{
			inlookup.Query{Type: inlookup.TypeRelay, Email: "u@d", IP: "192.0.2.1"}, false,
			way + "Bytes 23, Query ['Relay Query'], User u@d, RemoteIp 192.0.2.1\n",
		},
		{
			inlookup.Query{Type: inlookup.TypeHost, Email: "u@d", IP: "192.0.2.1"}, false,
			way + "Bytes 23, Query ['Host Query'], User u@d, RemoteIp N/A\n",
		},
		{
			inlookup.Query{Type: inlookup.TypeAlias, Email: "a\nb\x1b[31m\xff ü\u202e@d"}, false,
			way + "Bytes 28, Query ['Alias Query'], User a?b?[31m? ü?@d, RemoteIp N/A\n",
		},
	}
	for _, test := range tests {
		got := traceLines("infifo.1", "/tmp/r", test.query, test.hit)
		if got != test.want {
			t.Errorf("%+v\ngot  %q\nwant %q", test.query, got, test.want)
		}
	}
	hostile := traceLines("infifo", "/tmp/\x1b[2J\n", inlookup.Query{Type: inlookup.TypeUser}, true)
	const want = "infifo->/tmp/?[2J?, Bytes 15, Query ['User Query'], User , RemoteIp N/A\n" +
		"infifo->/tmp/?[2J?, cache hit\n"
	if hostile != want {
		t.Errorf("got  %q\nwant %q", hostile, want)
	}
}
