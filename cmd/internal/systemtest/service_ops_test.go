//go:build ops

package systemtest

// The files for daemontools and systemd, with their own programs. These run with -tags ops alone.

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// daemontools makes a directory for supervise, with the file run for the account daemon.
func (s *site) daemontools(control string, gid int) (service string) {
	s.t.Helper()
	service = filepath.Join(s.dir, "service")
	variables := map[string]string{"THREAD_COUNT": "2", "CACHE_COUNT": "60"}
	for _, name := range []string{"CONTROLDIR", "ASSIGNDIR", "DEFAULT_DOMAIN"} {
		variables[name] = s.env[name]
	}
	text, err := os.ReadFile("../../inlookup/run")
	if err != nil {
		s.t.Fatal(err)
	}
	files := map[string]string{"run": strings.NewReplacer(" indimail", " daemon", "/run/indimail/inlookup", s.env["INFIFODIR"],
		"/run/indimail/inquery", s.env["FIFOTMPDIR"], "/usr/local/lib/inlookup", bin).Replace(string(text))}
	known := strings.Contains(files["run"], s.env["INFIFODIR"]) && strings.Contains(files["run"], s.env["FIFOTMPDIR"])
	if strings.Count(string(text), " indimail") < 3 || !known || !strings.Contains(files["run"], bin) {
		s.t.Fatal("this test does not know the file run any more")
	}
	for name, value := range variables {
		files["variables/"+name] = value
	}
	if err := os.MkdirAll(filepath.Join(service, "variables"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(service, name), []byte(text), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	// The control files are for that account.
	if err := filepath.WalkDir(control, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, 0, gid), os.Chmod(path, 0o750), os.Chmod(filepath.Dir(control), 0o755))
	}); err != nil {
		s.t.Fatal(err)
	}
	return service
}

// The file run, under daemontools' own programs. Of it only the account is another, one that every
// machine has, and the directory is the test's own.
func TestRunFileUnderDaemontools(t *testing.T) {
	t.Parallel()
	testmain.Need(t, "daemontools", "supervise", "svc", "svok", "svstat", "envdir", "setuidgid")
	db := database(t)
	addUser(t, db, "svc", "example.com", "old")
	s := goldenSite(t, db)
	control := s.env["CONTROLDIR"]
	s.asNobody()
	account, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		t.Fatal(err)
	}
	s.give("tmp", gid)
	service := s.daemontools(control, gid)
	if err := os.Chmod(filepath.Dir(db.Socket), 0o755); err != nil {
		t.Fatal(err)
	}

	cmd := s.command("supervise", service)
	other := filepath.Join(s.dir, "sbin") // with a program of the same name, as IndiMail's
	if err := errors.Join(os.Mkdir(other, 0o755),
		os.WriteFile(filepath.Join(other, "inlookup"), []byte("#!/bin/sh\necho another program >&2\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{"PATH=" + other + ":" + os.Getenv("PATH")} // all else comes from variables
	supervise := s.startCommand(cmd)
	svc := func(arg string) {
		t.Helper()
		if status, _, stderr := s.run("svc", arg, service); status != 0 || stderr != "" {
			t.Fatalf("svc %s: exit %d, %s", arg, status, stderr)
		}
	}
	t.Cleanup(func() { // before supervise is killed, or its child would stay
		svc("-dx")
		supervise.wait()
		if left, err := filepath.Glob(s.fifo("*")); left != nil || err != nil {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	pid := func() string {
		_, stdout, _ := s.run("svstat", service)
		return regexp.MustCompile(`\(pid \d+\)`).FindString(stdout)
	}
	answers := func(want string) {
		t.Helper()
		eventually(t, "the password "+want, func() bool {
			d := inlookup.Directory{Resolver: s.client()}
			entry, err := d.Passwd(t.Context(), "svc@example.com")
			return err == nil && entry.Passwd.Reveal() == want
		})
	}
	answers("old")
	for _, name := range []string{"infifo.1", "infifo.2"} { // made by the account's own right
		info, err := os.Lstat(s.fifo(name))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid == 0 || info.Mode() != fs.ModeNamedPipe|0o660 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	first := pid()
	setPasswd(t, db, "svc", "example.com", "new")
	answers("old")
	svc("-h")
	answers("new")
	if now := pid(); now != first || now == "" {
		t.Errorf("svc -h: %s, was %s", now, first)
	}
	eventually(t, "users are loaded again", func() bool {
		return strings.Count(supervise.stdout.String(), " loaded in ") >= 2
	})
	svc("-t")
	eventually(t, "svc -t: another process", func() bool { now := pid(); return now != "" && now != first })
	answers("new")
	// Statistics at SIGTERM, and what goes to standard error, for the same log.
	if said := supervise.stdout.String(); strings.Count(said, "User:Relay:Password:Limit:Alias:Host:Domain ") != 1 ||
		strings.Count(said, " loaded in ") < 2 || strings.Contains(said, "warning") {
		t.Errorf("it wrote\n%s", said)
	}
}

// The unit, looked at by systemd's own program.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../inlookup/inlookup.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "User=indimail", "PrivateTmp=no", "ProtectSystem=strict", "ProtectHome=read-only", "LimitCORE=0",
		"ExecReload=/bin/kill -HUP $MAINPID", "RuntimeDirectory=indimail/inlookup indimail/inquery", "RuntimeDirectoryMode=2775",
		"Environment=INFIFODIR=/run/indimail/inlookup REPLYDIR=/run/indimail/inquery",
		"StartLimitIntervalSec=0", "Restart=always", "NoNewPrivileges=yes", "MemoryDenyWriteExecute=yes", "SystemCallFilter=@system-service"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		testmain.Skip(t, "systemd-analyze is not installed: apt-get install systemd")
	}
	s := newSite(t, nil)
	unit := filepath.Join(s.dir, "inlookup.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/local/lib/inlookup/inlookup", filepath.Join(bin, "inlookup"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr := s.run("systemd-analyze", "verify", "--man=no", unit); status != 0 || strings.Contains(stdout+stderr, "inlookup.service") {
		t.Errorf("verify: exit %d\n%s%s", status, stdout, stderr)
	}
	// The figure is out of 100, less is better; a service without settings has 96.
	if status, stdout, stderr := s.run("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", unit); status != 0 {
		t.Errorf("security: exit %d\n%s%s", status, stdout, stderr)
	}
}

// Root lends nobody its rights: not to answer into the FIFO by which supervise
// takes its orders, each a letter. Such an answer would end a service of root's.
func TestSuperviseSurvives(t *testing.T) {
	testmain.Need(t, "daemontools", "supervise", "svc", "svstat")
	if os.Geteuid() != 0 {
		testmain.Skip(t, "only root can start a server as root")
	}
	s := goldenSite(t, database(t))
	s.serve()
	service := filepath.Join(s.dir, "service")
	if err := os.Mkdir(service, 0o755); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(service, "run")
	if err := os.WriteFile(run, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	supervise := s.startCommand(s.command("supervise", service))
	t.Cleanup(func() { s.run("svc", "-dx", service) })
	pid := func() string {
		_, stdout, _ := s.run("svstat", service)
		return regexp.MustCompile(`up \(pid \d+\)`).FindString(stdout)
	}
	first := ""
	eventually(t, "the service is up", func() bool {
		first = pid()
		return first != ""
	})
	s.askAll(filepath.Join(service, "supervise", "control"))
	// Orders come in order: once it has paused, it has read all before.
	if status, _, stderr := s.run("svc", "-p", service); status != 0 {
		t.Fatalf("svc: exit %d, %s", status, stderr)
	}
	eventually(t, "supervise obeys or has ended", func() bool {
		select {
		case <-supervise.done:
			return true
		default:
		}
		_, stdout, _ := s.run("svstat", service)
		return strings.Contains(stdout, ", paused")
	})
	if now := pid(); now != first {
		t.Errorf("the service is %q, was %q", now, first)
	}
	select {
	case <-supervise.done:
		t.Error("supervise has ended")
	default:
	}
}
