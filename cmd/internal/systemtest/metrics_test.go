package systemtest

// The counters, where people and Prometheus look for them.

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// scraped returns status and text of what the program p serves.
func scraped(t *testing.T, p *process) (status int, text string) {
	t.Helper()
	var url string
	eventually(t, "it says where", func() bool {
		url = regexp.MustCompile(`http://\S+/metrics`).FindString(p.stderr.String())
		return url != ""
	})
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// A scrape has what -s prints. It starts before the server, and outlives it.
func TestScrape(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	scraper := s.start("inquerytest", "-s", "-listen", "127.0.0.1:0")
	status, text := scraped(t, scraper)
	if status != 503 || !strings.Contains(text, "is inlookup running?") {
		t.Errorf("before the server: %d, %q", status, text)
	}
	server := s.serve()
	status, text = scraped(t, scraper)
	_, printed, _ := s.run("inquerytest", "-s")
	lines := regexp.MustCompile(`(?m)^# .*$`)
	got, want := lines.FindAllString(text, -1), lines.FindAllString(printed, -1)
	if status != 200 || len(got) < 20 || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d\n%s\nwant\n%s", status, text, printed)
	}
	server.terminate()
	if status, text := scraped(t, scraper); status != 503 {
		t.Errorf("after the server: %d, %q", status, text)
	}
	scraper.terminate()
}

// What Prometheus's own rules ask of names and help, as far as they concern us.
// It does not need those: the checks are few.
func TestMetricsForm(t *testing.T) {
	s := newSite(t, nil)
	s.serve()
	var name, kind string
	seen := make(map[string]bool)
	for line := range strings.Lines(s.text(inlookup.Query{Type: inlookup.TypeStatus})) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "# HELP "):
			name = fields[2]
			if len(fields) < 4 || fields[3] == "" || seen[name] {
				t.Errorf("%q: no help, or not its first", line)
			}
			seen[name] = true
		case strings.HasPrefix(line, "# TYPE "):
			kind = fields[3]
			total := strings.HasSuffix(name, "_total")
			if fields[2] != name || total != (kind == "counter") {
				t.Errorf("%q", line)
			}
		default:
			sample := regexp.MustCompile(`^(inlookup_[a-z_]+?)(_bucket|_sum|_count)?` +
				`(\{([a-z]+="([^"\\]|\\[n"\\])*",?)+\})? \S+$`).FindStringSubmatch(line)
			if sample == nil || sample[1] != name {
				t.Errorf("%q is no value of %s", line, name)
			}
		}
	}
}

// On a terminal the picture stays while the server goes and comes back. At the end the terminal
// has the user's lines and the cursor again.
func TestWatchTerminal(t *testing.T) {
	t.Parallel()
	testmain.Need(t, "bsdutils", "script")
	try := exec.Command("script", "-qec", "true", "/dev/null")
	if out, err := try.CombinedOutput(); err != nil { // /dev/pts is not mounted in a plain chroot
		testmain.Skip(t, "no terminal to be had:", string(out))
	}
	s := newSite(t, nil)
	server := s.serve()
	s.env["TERM"] = "xterm"
	cmd := s.command("script", "-qefc", "exec "+filepath.Join(bin, "inquerytest")+" -watch",
		"/dev/null")
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	watch := s.startCommand(cmd)
	shows := func(text string, times int) {
		t.Helper()
		eventually(t, text, func() bool { return strings.Count(watch.stdout.String(), text) > times })
	}
	shows("questions a second: ", 0)
	server.terminate()
	shows("! no server listens on ", 0)
	before := strings.Count(watch.stdout.String(), "questions a second: ")
	s.serve()
	shows("questions a second: ", before)
	if _, err := io.WriteString(keyboard, "\x03"); err != nil { // Control-C
		t.Fatal(err)
	}
	status := watch.wait()
	const first, last = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	text := strings.TrimPrefix(watch.stdout.String(), "^C")
	if status != 0 || !strings.HasPrefix(text, first) || !strings.HasSuffix(text, last) {
		t.Errorf("exit %d, %q", status, text)
	}
}
