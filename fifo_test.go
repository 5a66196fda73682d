package inlookup

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// snapshot describes everything below dir, FIFOs by their modes.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var s strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode.IsDir():
		case mode.Type() == fs.ModeNamedPipe:
			fmt.Fprintln(&s, path, mode)
		case mode.IsRegular():
			content, err := os.ReadFile(path)
			fmt.Fprintf(&s, "%s %v %v %q\n", path, mode, info.ModTime(), content)
			return err
		default:
			fmt.Fprintln(&s, path, mode, info.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func modeOf(t testing.TB, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// --- Reply FIFOs.

// replyTree makes files of all kinds in a directory, and a server that has the request FIFO there.
func replyTree(t *testing.T) (top string, s *Server) {
	top = t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{"dir", "replies", "replies/sub", "replies2"} {
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"good", "replies/in", "replies/sub/deep", "replies2/near"} {
		newReplyAt(t, at(name))
	}
	own, err := openRequestFIFO(at("infifo"), 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(own.fd) })
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	writeFile(t, at("file"), "precious")
	writeFile(t, at("replies/file"), "precious")
	mkfifo(t, at("deaf"), 0o666)
	for _, err := range []error{
		os.Symlink(at("good"), at("link")),
		os.Symlink(at("file"), at("filelink")),
		os.Symlink(at("nowhere"), at("dangling")),
		os.Symlink(at("good"), at("replies/link")),
		os.Link(at("infifo"), at("othername")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = &Server{fifos: []*requestFIFO{own}}
	s.noteOwn()
	return top, s
}

func TestOpenReply(t *testing.T) {
	top, s := replyTree(t)
	at := func(name string) string { return filepath.Join(top, name) }
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(wd, at("good"))
	if err != nil {
		t.Fatal(err)
	}
	before, fds := snapshot(t, top), descriptors(t)
	replies := at("replies")
	for _, c := range []struct {
		name, dir, path string
		ok              bool
	}{
		{"a FIFO with a reader", "", at("good"), true},
		{"another way to write it", "", at("dir/../good"), true},
		{"a regular file", "", at("file"), false},
		{"a link to a FIFO", "", at("link"), false},
		{"a link to a file", "", at("filelink"), false},
		{"a link to nothing", "", at("dangling"), false},
		{"a directory", "", at("dir"), false},
		{"the root", "", "/", false},
		{"a device", "", "/dev/null", false},
		{"a socket", "", at("socket"), false},
		{"a FIFO nobody reads", "", at("deaf"), false},
		{"our request FIFO", "", at("infifo"), false},
		{"our request FIFO by another name", "", at("othername"), false},
		{"a relative path", "", rel, false},
		{"a bare name", "", "good", false},
		{"no path", "", "", false},
		{"the word of tcpserver", "", "socket", false},
		{"nothing there", "", at("none"), false},
		{"no such directory", "", at("none/none"), false},
		{"a file taken for a directory", "", at("file/x"), false},
		{"a name too long", "", at(strings.Repeat("x", 300)), false},
		{"a path too long", "", "/" + strings.Repeat("x/", 2100), false},
		{"in REPLYDIR", replies, at("replies/in"), true},
		{"outside REPLYDIR", replies, at("good"), false},
		{"a directory with a longer name", replies, at("replies2/near"), false},
		{"a subdirectory", replies, at("replies/sub/deep"), false},
		{"out by ..", replies, replies + "/../good", false},
		{"out and in by ..", replies, replies + "/../replies/in", false},
		{"around by ..", replies, replies + "/sub/../in", false},
		{"..", replies, replies + "/..", false},
		{"REPLYDIR itself", replies, replies, false},
		{"REPLYDIR itself with a slash", replies, replies + "/", false},
		{"a link in REPLYDIR", replies, at("replies/link"), false},
		{"a file in REPLYDIR", replies, at("replies/file"), false},
		{"nothing in REPLYDIR", replies, at("replies/none"), false},
		{"no path with REPLYDIR", replies, "", false},
	} {
		s.settings.ReplyDir = c.dir
		fd, err := s.openReply([]byte(c.path))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			checkReplyFlags(t, c.name, fd)
			syscall.Close(fd)
		}
	}
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
	if after := snapshot(t, top); after != before {
		t.Errorf("files changed: before\n%safter\n%s", before, after)
	}
}

// checkReplyFlags checks that a descriptor never blocks, and is not handed on to children.
func checkReplyFlags(t *testing.T, name string, fd int) {
	t.Helper()
	flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if flags&syscall.O_NONBLOCK == 0 {
		t.Errorf("%s: blocks", name)
	}
	flags, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	if flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("%s: is handed on to children", name)
	}
}

// TestReply: one write, which never blocks; what has no room or no reader is counted.
func TestReply(t *testing.T) {
	s := new(Server)
	s.noteOwn()
	in := newReply(t)
	fds := descriptors(t)
	send := func(path, answer string) (undeliverable uint64) {
		before := s.Stats().Undeliverable
		s.reply([]byte(path), func() []byte { return []byte(answer) })
		return s.Stats().Undeliverable - before
	}
	for _, answer := range []string{"answer", strings.Repeat("x", maxText)} {
		if n := send(in.path, answer); n != 0 || in.read() != answer {
			t.Errorf("%d bytes: undeliverable", len(answer))
		}
	}
	if n := send(in.path, strings.Repeat("x", 1<<20)); n != 1 {
		t.Error("more than the FIFO takes is delivered")
	}
	if n := send(in.path, "answer"); n != 1 {
		t.Error("an answer into a full FIFO is delivered")
	}
	in.read()
	if n := send(in.path, "answer"); n != 0 {
		t.Error("an emptied FIFO gets nothing")
	}
	path := in.path
	s.reply([]byte(path), func() []byte { in.close(); return []byte("answer") })
	if n := s.Stats().Undeliverable; n != 3 {
		t.Errorf("the client went before the answer came: %d undeliverable", n)
	}
	s.reply([]byte(path), func() []byte { t.Error("asked for nobody"); return nil })
	if n := s.Stats().Undeliverable; n != 4 {
		t.Errorf("the client went before the question: %d undeliverable", n)
	}
	if now := descriptors(t); now != fds-1 { // in's
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
}

// --- Request FIFOs.

func TestOpenRequestFIFO(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	fds := descriptors(t)
	path := filepath.Join(t.TempDir(), "run", "indimail", "infifo")
	f, err := openRequestFIFO(path, 0o662)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if got := modeOf(t, dir); got != fs.ModeDir|0o775 {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if got := modeOf(t, path); got != fs.ModeNamedPipe|0o662 || f.warning != nil {
		t.Errorf("the FIFO: %v, %v", got, f.warning)
	}
	_, err = openRequestFIFO(path, 0o600)
	if !errors.Is(err, ErrServed) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second server: %v", err)
	}
	if got := modeOf(t, path); got != fs.ModeNamedPipe|0o662 {
		t.Errorf("the FIFO after the second server: %v", got)
	}
	f.stop()
	syscall.Close(f.fd)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the FIFO after stop: %v", err)
	}

	mkfifo(t, path, 0o600) // a server that was killed left it there
	f, err = openRequestFIFO(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	if got := modeOf(t, path); got != fs.ModeNamedPipe|0o660 || f.warning != nil {
		t.Errorf("an old FIFO: %v, %v", got, f.warning)
	}
	f.stop()
	syscall.Close(f.fd)
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
}

// TestNotFIFO: things that are no FIFOs stay as they are.
func TestNotFIFO(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	writeFile(t, at("file"), "precious")
	mkfifo(t, at("target"), 0o600)
	err := errors.Join(os.Mkdir(at("directory"), 0o700), os.Symlink(at("target"), at("link")))
	if err != nil {
		t.Fatal(err)
	}
	before, fds := snapshot(t, top), descriptors(t)
	for _, name := range []string{"file", "directory", "link", "file/infifo"} {
		f, err := openRequestFIFO(at(name), 0o660)
		if err == nil || !strings.Contains(err.Error(), at("")) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	if after := snapshot(t, top); after != before || modeOf(t, at("directory")) != fs.ModeDir|0o700 {
		t.Errorf("changed: before\n%safter\n%s", before, after)
	}
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
}

// TestStopRemovesOnlyItsOwn replaces the FIFO before its server stops.
func TestStopRemovesOnlyItsOwn(t *testing.T) {
	for name, replace := range map[string]func(path string){
		"a file": func(path string) {
			os.Remove(path)
			writeFile(t, path, "precious")
		},
		"another FIFO": func(path string) {
			os.Rename(path, path+".moved") // or it could get the same number
			mkfifo(t, path, 0o600)
		},
		"a link to it": func(path string) {
			os.Rename(path, path+".moved")
			if err := os.Symlink(path+".moved", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		path := filepath.Join(t.TempDir(), "infifo")
		f, err := openRequestFIFO(path, 0o660)
		if err != nil {
			t.Fatal(err)
		}
		replace(path)
		if f.isNamed() {
			t.Errorf("%s is taken for the FIFO", name)
		}
		before := snapshot(t, filepath.Dir(path))
		f.stop()
		syscall.Close(f.fd)
		if after := snapshot(t, filepath.Dir(path)); after != before {
			t.Errorf("%s changed: before\n%safter\n%s", name, before, after)
		}
	}
}

// TestOneServer has servers come and go on one FIFO: never do two of them hold it.
func TestOneServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	var holders, held atomic.Int32
	var servers sync.WaitGroup
	for range 8 {
		servers.Go(func() {
			for held.Load() < 300 && !t.Failed() {
				f, err := openRequestFIFO(path, 0o600)
				if errors.Is(err, ErrServed) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 || !f.isNamed() {
					t.Errorf("%d servers on one FIFO, it still has its name: %v", n, f.isNamed())
				}
				held.Add(1)
				holders.Add(-1)
				f.stop()
				syscall.Close(f.fd)
			}
		})
	}
	servers.Wait()
}

// TestMakeDirTogether has servers make one directory at the same time.
func TestMakeDirTogether(t *testing.T) {
	for range 50 {
		dir := filepath.Join(t.TempDir(), "run", "indimail")
		var servers sync.WaitGroup
		for i := range 4 {
			servers.Go(func() {
				f, err := openRequestFIFO(instance(filepath.Join(dir, "infifo"), i), 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				f.stop()
				syscall.Close(f.fd)
			})
		}
		servers.Wait()
	}
}

// TestRequestFIFOStop: what was asked before stop is read, and then nothing is waited for.
func TestRequestFIFOStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	want := strings.Repeat("x", 250)
	for _, waiting := range []bool{false, true} {
		f, err := openRequestFIFO(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		done := make(chan struct{})
		read := func() {
			defer close(done)
			for b := make([]byte, 100); ; {
				n, err := f.read(b)
				if err != nil {
					t.Error(err)
				}
				if n == 0 || err != nil {
					return
				}
				got = append(got, b[:n]...)
			}
		}
		if waiting {
			go read()
		}
		post(t, path, []byte(want))
		f.stop()
		if !waiting {
			go read()
		}
		within(t, "read ends", done)
		if strings.Trim(string(got), "\x00") != want {
			t.Errorf("read %q", got)
		}
		syscall.Close(f.fd)
	}
}

// TestLeftovers: FIFOs of a killed server go; what is read, and what is no FIFO, stays.
func TestLeftovers(t *testing.T) {
	for _, c := range []struct {
		name   string
		kinds  string // of NAME.1, NAME.2 ...: u unread, r read, f file, l link, - none
		remain string // their numbers
	}{
		{"none", "", ""},
		{"all of a killed server", "uuuu", ""},
		{"those beyond ours", "rruu", "12"},
		{"one is read", "uruu", "2"},
		{"another server's", "rrr", "123"},
		{"a gap ends it", "uu-u", "4"},
		{"a file ends it", "ufu", "23"},
		{"a link ends it", "ulu", "23"},
	} {
		path := filepath.Join(t.TempDir(), "infifo")
		target := path + "-target"
		mkfifo(t, target, 0o600)
		for i, kind := range c.kinds {
			name := instance(path, i+1)
			switch kind {
			case 'u':
				mkfifo(t, name, 0o600)
			case 'r':
				newReplyAt(t, name)
			case 'f':
				writeFile(t, name, "precious")
			case 'l':
				if err := os.Symlink(target, name); err != nil {
					t.Fatal(err)
				}
			}
		}
		fds := descriptors(t)
		removeLeftovers(path)
		remain := ""
		for i := range c.kinds {
			if _, err := os.Lstat(instance(path, i+1)); err == nil {
				remain += fmt.Sprint(i + 1)
			}
		}
		if remain != c.remain || descriptors(t) != fds {
			t.Errorf("%s: there remain %q, want %q", c.name, remain, c.remain)
		}
		if _, err := os.Lstat(target); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// --- Where the FIFOs are.

func TestRequestFIFOPath(t *testing.T) {
	dir := defaultDir()
	for _, c := range []struct {
		name string
		env  []string
		want string
	}{
		{"", nil, dir + "/infifo"},
		{"", []string{"FIFODIR", "/f"}, "/f/infifo"},
		{"", []string{"INFIFODIR", "/i"}, "/i/infifo"},
		{"", []string{"FIFODIR", "/f", "INFIFODIR", "/i"}, "/i/infifo"},
		{"", []string{"INFIFO", "name"}, dir + "/name"},
		{"", []string{"INFIFO", "name", "INFIFODIR", "/i/"}, "/i/name"},
		{"", []string{"INFIFO", "/p/q", "INFIFODIR", "/i"}, "/p/q"},
		{"", []string{"INFIFO", "./p", "INFIFODIR", "/i"}, "./p"},
		{"", []string{"INFIFO", "../p", "INFIFODIR", "/i"}, "../p"},
		{"", []string{"INFIFO", ".p", "INFIFODIR", "/i"}, ".p"},
		{"other", []string{"INFIFO", "/p/q", "INFIFODIR", "/i"}, "/i/other"},
		{"/x", []string{"INFIFO", "/p/q", "INFIFODIR", "/i"}, "/x"},
		{"./x", []string{"INFIFODIR", "/i"}, "./x"},
		{"sub/x", []string{"INFIFODIR", "/i"}, "/i/sub/x"},
	} {
		getenv := environment(c.env...)
		got := RequestFIFOs(getenv, c.name)
		if got[len(got)-1] != c.want { // a running server may have instances before it
			t.Errorf("client, %q %q: %q, want %q", c.name, c.env, got, c.want)
		}
		settings, err := (&Server{Infifo: c.name, Getenv: getenv}).Settings()
		if err != nil || !slices.Equal(settings.FIFOs, []string{c.want}) {
			t.Errorf("server, %q %q: %q, %v, want %q", c.name, c.env, settings.FIFOs, err, c.want)
		}
	}
}

func TestRequestFIFOs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one.1", "three.1", "three.2", "three.3", "gap.1", "gap.3",
		"second.2", "both", "both.1", "plain"} {
		mkfifo(t, filepath.Join(dir, name), 0o600)
	}
	for _, c := range []struct {
		name string
		want []string
	}{
		{"one", []string{"one.1", "one"}},
		{"three", []string{"three.1", "three.2", "three.3", "three"}},
		{"gap", []string{"gap.1", "gap"}},
		{"second", []string{"second"}},
		{"both", []string{"both.1", "both"}},
		{"plain", []string{"plain"}},
		{"none", []string{"none"}},
		{dir + "/three", []string{"three.1", "three.2", "three.3", "three"}},
		{dir + "/plain", []string{"plain"}},
		{"three.2", []string{"three.2"}},
	} {
		for i := range c.want {
			c.want[i] = filepath.Join(dir, c.want[i])
		}
		got := RequestFIFOs(environment("INFIFODIR", dir), c.name)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		got = RequestFIFOs(environment("FIFODIR", dir, "INFIFO", c.name), "")
		if !slices.Equal(got, c.want) {
			t.Errorf("INFIFO=%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		s    *Server
		env  []string
		want ServerSettings
		err  string // the variable or the field that it names
	}{
		{new(Server), nil, ServerSettings{[]string{"/i/infifo"}, 0o660, ""}, ""},
		{&Server{Instances: 1}, nil, ServerSettings{[]string{"/i/infifo"}, 0o660, ""}, ""},
		{&Server{Instances: 2, Infifo: "x"}, []string{"FIFO_MODE", "0622"},
			ServerSettings{[]string{"/i/x.1", "/i/x.2"}, 0o622, ""}, ""},
		{new(Server), []string{"REPLYDIR", "/r", "FIFO_MODE", "777"},
			ServerSettings{[]string{"/i/infifo"}, 0o777, "/r"}, ""},
		{new(Server), []string{"REPLYDIR", "/r//"},
			ServerSettings{[]string{"/i/infifo"}, 0o660, "/r"}, ""},
		{new(Server), []string{"REPLYDIR", "/"}, ServerSettings{}, "REPLYDIR"},
		{new(Server), []string{"REPLYDIR", "//"}, ServerSettings{}, "REPLYDIR"},
		{new(Server), []string{"REPLYDIR", "replies"}, ServerSettings{}, "REPLYDIR"},
		{new(Server), []string{"REPLYDIR", "./replies"}, ServerSettings{}, "REPLYDIR"},
		{new(Server), []string{"FIFO_MODE", "0444"}, ServerSettings{}, "FIFO_MODE"},
		{new(Server), []string{"FIFO_MODE", "0"}, ServerSettings{}, "FIFO_MODE"},
		{&Server{Instances: -1}, nil, ServerSettings{[]string{"/i/infifo"}, 0o660, ""}, ""},
		{&Server{Instances: 1001}, nil, ServerSettings{}, "Instances"},
	} {
		c.s.Resolver = echo
		c.s.Getenv = environment(append(c.env, "INFIFODIR", "/i")...)
		got, err := c.s.Settings()
		if c.err == "" && err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %v, %v, want %v", c.env, got, err, c.want)
		}
		if c.err == "" {
			continue
		}
		for _, err := range []error{err, c.s.Listen()} {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.env, err)
			}
		}
	}
}

// TestFaultsOfDescriptors: a descriptor that cannot be used is an error that names it.
func TestFaultsOfDescriptors(t *testing.T) {
	f := &requestFIFO{path: "/run/infifo", fd: -1}
	n, err := f.read(make([]byte, 1))
	if n != 0 || !errors.Is(err, syscall.EBADF) || !strings.Contains(err.Error(), f.path) {
		t.Errorf("read: %d, %v", n, err)
	}
	if err := giveAway(-1, 0o660); !errors.Is(err, syscall.EBADF) {
		t.Errorf("giveAway: %v", err)
	}
}
