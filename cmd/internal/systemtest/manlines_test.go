package systemtest

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// What inlookup.8 says of the lines of -v and SIGUSR1 is what the server writes, line by line.
func TestManualLines(t *testing.T) {
	_, text, _ := strings.Cut(readPage(t, "../../inlookup/inlookup.8").sections["DESCRIPTION"],
		"\n.Ss The log\n")
	blocks := regexp.MustCompile(`(?s)\.Bd -literal -offset indent\n(.*?)\.Ed\n`).
		FindAllStringSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of lines", len(blocks))
	}
	s := newSite(t, nil)
	p := s.start("inlookup", "-v")
	s.answers(p)
	d := s.directory()
	d.Domain(t.Context(), "example.com") // which needs no database
	d.Domain(t.Context(), "example.com")
	p.signal(syscall.SIGUSR1)
	for _, block := range blocks {
		form := regexp.QuoteMeta(block[1])
		for _, word := range []struct{ name, is string }{
			{"NUMBER", `\d+`}, {`N\\\.N+`, `\d+\.\d+`}, {"N", `\d+`}, {"FIFO", "infifo"},
			{"REPLY", `/\S+`}, {"TYPE", "Domain Query"}, {"ADDRESS", `example\.com`}, {"IP", "N/A"},
			{"TIME", `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`},
		} {
			form = regexp.MustCompile(`\b`+word.name+`\b`).ReplaceAllLiteralString(form, word.is)
		}
		eventually(t, "lines as "+form, func() bool {
			return regexp.MustCompile(`(?m)^` + form).MatchString(p.stdout.String())
		})
	}
	p.terminate()
}
