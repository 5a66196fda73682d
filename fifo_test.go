package inlookup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// found is a request, kept beyond the reader's buffer.
func found(r request) string { return fmt.Sprintf("%d %q %q %q", r.typ, r.email, r.reply, r.ip) }

// slowFrames finds frames by the letter of the protocol: at each offset a length from 5 to 4092, that many bytes, a
// known type, a 0, and three strings that end with the frame. It returns them, and how many bytes lie in none.
func slowFrames(b []byte) (list []string, outside int) {
	in := make([]bool, len(b))
	for i := range b {
		if len(b)-i < 4 {
			continue
		}
		n := int64(binary.NativeEndian.Uint32(b[i:]))
		if n < 5 || n > 4092 || n > int64(len(b)-i-4) {
			continue
		}
		body := b[i+4 : i+4+int(n)]
		strs := bytes.Split(body[2:], []byte{0})
		if !bytes.ContainsRune([]byte("\x01\x02\x03\x04\x05\x06\x07SFX"), rune(body[0])) || body[1] != 0 || len(strs) != 4 || len(strs[3]) > 0 {
			continue
		}
		list = append(list, found(request{Type(body[0]), strs[0], strs[1], strs[2]}))
		for j := i; j < i+4+int(n); j++ {
			in[j] = true
		}
	}
	for _, covered := range in {
		if !covered {
			outside++
		}
	}
	return list, outside
}

// readAll gives b to frames in pieces that end at the cuts, as the server does when its buffer was full.
func readAll(t *testing.T, b []byte, cuts []int) (list []string, refused int) {
	t.Helper()
	var have []byte
	for i, last := 0, 0; i <= len(cuts); i++ {
		end := len(b)
		if i < len(cuts) {
			end = cuts[i]
		}
		have = append(have, b[last:end]...)
		last = end
		used, bad := frames(have, i < len(cuts), func(r request) { list = append(list, found(r)) })
		if used < 0 || used > len(have) || i == len(cuts) && used != len(have) || len(have)-used >= 4096 {
			t.Fatalf("used %d of %d bytes, more %v", used, len(have), i < len(cuts))
		}
		have, refused = slices.Clone(have[used:]), refused+bad
	}
	return list, refused
}

// stream is a random mix of honest frames, of which it returns the list, and garbage.
func stream(rnd *rand.Rand, pieces int) (b []byte, honest []string) {
	text := func(most int) string {
		s := make([]byte, rnd.IntN(most))
		for i := range s {
			s[i] = byte(1 + rnd.IntN(255))
		}
		return string(s)
	}
	frame := func(email string) []byte {
		q := Query{Type: []Type{1, 2, 3, 4, 5, 6, 7, 'S', 'F', 'X'}[rnd.IntN(10)], Email: email}
		if rnd.IntN(3) == 0 || q.Type == TypeRelay {
			q.IP = "192.0.2." + fmt.Sprint(rnd.IntN(256))
		}
		f, err := q.appendFrame(nil, "/tmp/inquery."+fmt.Sprint(rnd.Uint64()))
		if err != nil {
			panic(err)
		}
		return f
	}
	for range pieces {
		switch rnd.IntN(12) {
		case 0: // bytes
			b = append(b, text(20)...)
		case 1: // NULs
			b = append(b, make([]byte, rnd.IntN(12))...)
		case 2: // the beginning of a frame
			f := frame("cut short")
			b = append(b, f[:rnd.IntN(len(f))]...)
		case 3: // the end of one
			f := frame("headless")
			b = append(b, f[rnd.IntN(len(f)):]...)
		case 4: // a header that reaches far into what follows
			b = append(b, wireInt(5+rnd.IntN(4088))...)
			b = append(b, byte(1+rnd.IntN(7)), 0)
		case 5: // a header and two strings that make a frame with the first bytes of the next one
			s := text(10) + "\x00" + text(10) + "\x00"
			b = append(b, wireInt(2+len(s)+2)...)
			b = append(append(b, byte(1+rnd.IntN(7)), 0), s...)
		case 6: // lengths out of range
			b = append(b, wireInt([]int{0, 1, 4, 4093, 1 << 20, -1, -1 << 31}[rnd.IntN(7)])...)
		default:
			email := fmt.Sprintf("user%d%s@example.com", len(honest), strings.Repeat("x", rnd.IntN(30)*rnd.IntN(2)))
			f := frame(email)
			r, _ := parseRequest(f)
			b, honest = append(b, f...), append(honest, found(r))
		}
	}
	return b, honest
}

// onlyHonest drops from list what is not in honest.
func onlyHonest(list, honest []string) []string {
	set := make(map[string]bool)
	for _, s := range honest {
		set[s] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !set[s] })
}

func TestFramesModel(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(1, uint64(seed)))
		b, honest := stream(rnd, 1+rnd.IntN(40))
		want, outside := slowFrames(b)
		list, refused := readAll(t, b, nil)
		if got := onlyHonest(list, honest); !slices.Equal(got, honest) {
			t.Fatalf("seed %d: got %q\nwant %q", seed, got, honest)
		}
		if !slices.Equal(list, want) || refused != outside {
			t.Fatalf("seed %d: got %q, %d bytes refused\nwant %q, %d", seed, list, refused, want, outside)
		}
		var cuts []int
		for last := 0; last < len(b); {
			cuts = append(cuts, last)
			last += 1 + rnd.IntN(1+rnd.IntN(200))
		}
		if list, _ := readAll(t, b, cuts); !slices.Equal(list, want) {
			t.Fatalf("seed %d, cut at %v: got %q\nwant %q", seed, cuts, list, want)
		}
	}
}

// TestFramesSeam puts every two of many frames, of all lengths, behind each other: what is found across the seam of two
// can neither be answered nor flush.
func TestFramesSeam(t *testing.T) {
	across := 0
	for _, first := range []string{"", "192.0.2.1"} {
		for c := byte(' '); c < 0x7f; c++ {
			a, err := Query{TypeUser, "user@example.com", first}.appendFrame(nil, "/tmp/reply"+string(c))
			if err != nil {
				t.Fatal(err)
			}
			for length := 20; length < maxRequest-headerSize; length++ {
				for _, email := range []int{int(c) - 6, length / 2} { // the first: where a seam may be a frame
					reply := length - 2 - email - 3
					if email < 0 || reply < 1 || length%256 > 0 && length > 300 {
						continue
					}
					b, err := Query{TypeUser, strings.Repeat("e", email), ""}.appendFrame(slices.Clone(a), "/"+strings.Repeat("r", reply-1))
					if err != nil {
						t.Fatal(err)
					}
					list, _ := readAll(t, b, nil)
					for _, f := range list {
						if strings.Contains(f, "/") {
							continue // an honest one
						}
						across++
						if r, _ := parseRequest(b[len(a)-3:]); len(r.reply) != 1 || r.reply[0] > 15 || r.typ.extension() {
							t.Fatalf("%q: found %q", b, f)
						}
					}
					if len(list) > 3 || len(list) < 2 {
						t.Fatalf("%q: found %q", b, list)
					}
				}
			}
		}
	}
	if t.Logf("%d frames seemed to begin in another", across); across == 0 && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		t.Error("none seemed to: this test tests nothing")
	}
}

// TestFramesEveryCut cuts a stream at each byte.
func TestFramesEveryCut(t *testing.T) {
	b, _ := stream(rand.New(rand.NewPCG(2, 2)), 30)
	want, _ := slowFrames(b)
	for cut := range b {
		if list, _ := readAll(t, b, []int{cut}); !slices.Equal(list, want) {
			t.Fatalf("cut at %d: got %q\nwant %q", cut, list, want)
		}
	}
	every := make([]int, len(b))
	for i := range b {
		every[i] = i
	}
	if list, _ := readAll(t, b, every); !slices.Equal(list, want) {
		t.Fatalf("byte by byte: got %q\nwant %q", list, want)
	}
}

func TestParseRequest(t *testing.T) {
	whole, err := Query{TypeRelay, "u@d", "192.0.2.1"}.appendFrame(nil, "/r")
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if r, size := parseRequest(whole[:n]); size != -1 {
			t.Errorf("the first %d bytes: %d, %s", n, size, found(r))
		}
	}
	for _, c := range []struct {
		frame string
		want  int
	}{
		{string(whole), len(whole)},
		{string(whole) + "more", len(whole)},
		{wireInt(5) + "\x01\x00\x00\x00\x00", 9},
		{wireInt(4) + "\x01\x00\x00\x00", 0},
		{wireInt(0), 0},
		{wireInt(-1), 0},
		{wireInt(4092), -1},
		{wireInt(4093), 0},
		{wireInt(4092) + "\x01\x00" + strings.Repeat("x", 4087) + "\x00\x00\x00", 4096},
		{wireInt(5) + "\x00", 0},
		{wireInt(5) + "\x08", 0},
		{wireInt(5) + "\x01\x01", 0},
		{wireInt(5) + "S\x00\x00\x00\x00", 9},
		{wireInt(6) + "\x01\x00\x00\x00\x00\x00", 0},          // four strings
		{wireInt(6) + "\x01\x00\x00\x00\x00x", 0},             // something behind them
		{wireInt(6) + "\x01\x00u\x00r\x00", 0},                // two strings
		{wireInt(8) + "\x01\x00uuuuuu", 0},                    // none
		{wireInt(8) + "\x01\x00u\x00r\x00ii", 0},              // no NUL at the end
		{wireInt(8) + "\x01\x00uuuuuu\x00\x00\x00\x00", 0},    // none in what belongs to it
		{wireInt(9) + "\x07\x00u\x00rr\x00i\x00\x00\x00", 13}, // what follows is not its own
	} {
		if r, size := parseRequest([]byte(c.frame)); size != c.want {
			t.Errorf("%q: %d, %s, want %d", c.frame, size, found(r), c.want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{}, []byte{}, "user@example.com", "/tmp/x", "", byte(1), uint16(3))
	f.Add([]byte(wireInt(60)+"\x01\x00a\x00b\x00"), []byte(wireInt(6)), "", "/tmp/x", "192.0.2.1", byte('S'), uint16(20))
	f.Add([]byte(wireInt(12)+"\x03\x00a\x00b\x00"), []byte{0, 0, 0}, "u", "socket", "", byte(7), uint16(70))
	f.Fuzz(func(t *testing.T, before, after []byte, email, reply, ip string, typ byte, cut uint16) {
		// An honest asker's reply path has no control characters.
		reply = "/" + strings.Map(func(r rune) rune { return max(r, ' ') }, reply)
		email, ip = strings.ReplaceAll(email, "\x00", ""), strings.ReplaceAll(ip, "\x00", "")
		b := slices.Clone(before)
		b, err := Query{Type(typ), email, ip}.appendFrame(b, reply)
		b = append(b, after...)
		want, outside := slowFrames(b)
		list, refused := readAll(t, b, nil)
		if !slices.Equal(list, want) || refused != outside {
			t.Fatalf("%q: got %q, %d bytes refused\nwant %q, %d", b, list, refused, want, outside)
		}
		honest := found(request{Type(typ), []byte(email), []byte(reply), []byte(ip)})
		if err == nil && !slices.Contains(list, honest) {
			t.Fatalf("%q: %s not found in %q", b, honest, list)
		}
		if list, _ := readAll(t, b, []int{int(cut) % (len(b) + 1)}); !slices.Equal(list, want) {
			t.Fatalf("%q cut at %d: got %q\nwant %q", b, cut, list, want)
		}
	})
}

// descriptors returns how many file descriptors are open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// inbox is a reply FIFO with its reader.
type inbox struct {
	path string
	fd   int
}

func newInbox(t testing.TB, path string) *inbox {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return &inbox{path, fd}
}

// read returns what is in the FIFO now.
func (in *inbox) read() string {
	b := make([]byte, 1<<17)
	n, _ := syscall.Read(in.fd, b)
	return string(b[:max(n, 0)])
}

// readN waits for n bytes.
func (in *inbox) readN(t testing.TB, n int) string {
	t.Helper()
	s := ""
	for end := time.Now().Add(30 * time.Second); len(s) < n; {
		if s += in.read(); time.Now().After(end) {
			t.Fatalf("%s: %d bytes, want %d", in.path, len(s), n)
		}
		time.Sleep(100 * time.Microsecond)
	}
	return s
}

// snapshot describes everything below dir.
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
		content := []byte(nil)
		if info.Mode().IsRegular() {
			content, err = os.ReadFile(path)
		}
		if info.Mode().Type() == fs.ModeNamedPipe {
			fmt.Fprintln(&s, path, info.Mode())
		} else if !info.IsDir() {
			fmt.Fprintf(&s, "%s %v %v %q\n", path, info.Mode(), info.ModTime(), content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s.String()
}

func TestReplyOpen(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	for _, dir := range []string{"dir", "replies", "replies/sub", "replies2"} {
		if err := os.Mkdir(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"good", "replies/in", "replies/sub/deep", "replies2/near"} {
		newInbox(t, at(name))
	}
	own, err := openRequestFIFO(at("infifo"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer own.close()
	if own.enlarge(); capacity(newInbox(t, at("large")).fd, fSetPipeSize, requestPipe) != own.size {
		t.Error("two FIFOs of one size have different ones")
	}
	listener, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("precious"), 0o600),
		os.WriteFile(at("replies/file"), []byte("precious"), 0o600),
		syscall.Mkfifo(at("deaf"), 0o600),
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
	rel, err := filepath.Rel(mustGetwd(t), at("good"))
	if err != nil {
		t.Fatal(err)
	}
	before, fds := snapshot(t, top), descriptors(t)
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
		{"as large as a request FIFO", "", at("large"), true},
		{"a relative path", "", rel, false},
		{"a bare name", "", "good", false},
		{"no path", "", "", false},
		{"the word of tcpserver", "", "socket", false},
		{"nothing there", "", at("none"), false},
		{"no such directory", "", at("none/none"), false},
		{"a file taken for a directory", "", at("file/x"), false},
		{"a name too long", "", at(strings.Repeat("x", 300)), false},
		{"a path too long", "", "/" + strings.Repeat("x/", 2100), false},
		{"in REPLYDIR", at("replies"), at("replies/in"), true},
		{"outside REPLYDIR", at("replies"), at("good"), false},
		{"a directory with a longer name", at("replies"), at("replies2/near"), false},
		{"a subdirectory", at("replies"), at("replies/sub/deep"), false},
		{"out by ..", at("replies"), at("replies") + "/../good", false},
		{"out and in by ..", at("replies"), at("replies") + "/../replies/in", false},
		{"around by ..", at("replies"), at("replies") + "/sub/../in", false},
		{"..", at("replies"), at("replies") + "/..", false},
		{"REPLYDIR itself", at("replies"), at("replies"), false},
		{"REPLYDIR itself with a slash", at("replies"), at("replies") + "/", false},
		{"a link in REPLYDIR", at("replies"), at("replies/link"), false},
		{"a file in REPLYDIR", at("replies"), at("replies/file"), false},
		{"nothing in REPLYDIR", at("replies"), at("replies/none"), false},
		{"no path with REPLYDIR", at("replies"), "", false},
	} {
		s := &replies{dir: c.dir, own: []*requestFIFO{own}}
		fd, err := s.open([]byte(c.path))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
			fdflags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
			if flags&syscall.O_NONBLOCK == 0 || fdflags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("%s: blocks, or is handed on to children", c.name)
			}
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

func mustGetwd(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReplySend(t *testing.T) {
	fds := descriptors(t)
	s := new(replies)
	in := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	open := func() int {
		fd, err := s.open([]byte(in.path))
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	if err := s.send(open(), "answer"); err != nil || in.read() != "answer" {
		t.Errorf("%v", err)
	}
	long := strings.Repeat("x", 60<<10) // the longest text of an extension
	if err := s.send(open(), Answer(long)); err != nil || in.read() != long {
		t.Errorf("60 KiB: %v", err)
	}
	start := time.Now()
	if err := s.send(open(), Answer(make([]byte, 1<<20))); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("more than the FIFO takes: %v", err)
	}
	if err := s.send(open(), "answer"); err != syscall.EAGAIN {
		t.Errorf("into a full FIFO: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a full FIFO took %v", took)
	}
	gone := newInbox(t, filepath.Join(t.TempDir(), "reply"))
	fd, err := s.open([]byte(gone.path))
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(gone.fd)
	gone.fd = -1
	if err := s.send(fd, "answer"); err != syscall.EPIPE {
		t.Errorf("the reader has gone: %v", err)
	}
	if now := descriptors(t); now != fds+1 { // in's
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
}

func TestOpenRequestFIFO(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	fds := descriptors(t)
	top := t.TempDir()
	mode := func(path string) fs.FileMode {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	done := func(f *requestFIFO) { f.stop(); f.close() }

	path := filepath.Join(top, "run", "indimail", "infifo")
	f, err := openRequestFIFO(path, 0o662)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if got := mode(dir); got != fs.ModeDir|0o775 {
			t.Errorf("%s: %v", dir, got)
		}
	}
	if got := mode(path); got != fs.ModeNamedPipe|0o662 {
		t.Errorf("the FIFO: %v", got)
	}
	if _, err := openRequestFIFO(path, 0o600); !errors.Is(err, ErrServed) || !strings.Contains(err.Error(), path) {
		t.Errorf("a second server: %v", err)
	}
	if got := mode(path); got != fs.ModeNamedPipe|0o662 {
		t.Errorf("the FIFO after the second server: %v", got)
	}
	done(f)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the FIFO after stop: %v", err)
	}

	// One that was left there by a server that was killed.
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err = openRequestFIFO(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if got := mode(path); got != fs.ModeNamedPipe|0o660 {
		t.Errorf("an old FIFO: %v", got)
	}
	done(f)

	// Things that are no FIFOs stay as they are.
	target := filepath.Join(top, "target")
	for name, make := range map[string]func(string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return errors.Join(syscall.Mkfifo(target, 0o600), os.Symlink(target, path)) },
	} {
		path := filepath.Join(top, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, top) + mode(path).String()
		if f, err := openRequestFIFO(path, 0o660); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
		if after := snapshot(t, top) + mode(path).String(); after != before {
			t.Errorf("%s changed: before\n%safter\n%s", name, before, after)
		}
	}
	if _, err := openRequestFIFO(filepath.Join(top, "file", "infifo"), 0o660); err == nil {
		t.Error("a FIFO below a file")
	}
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors were open, now %d", fds, now)
	}
}

// TestStopRemovesOnlyItsOwn replaces the FIFO before its server stops.
func TestStopRemovesOnlyItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	for name, make := range map[string]func() error{
		"a file":       func() error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"another FIFO": func() error { return syscall.Mkfifo(path, 0o600) },
		"a link to it": func() error {
			moved := path + ".moved"
			return errors.Join(os.Rename(path, moved), os.Symlink(moved, path))
		},
	} {
		f, err := openRequestFIFO(path, 0o660)
		if err != nil {
			t.Fatal(err)
		}
		if name != "a link to it" {
			err = os.Remove(path)
		}
		if err = errors.Join(err, make()); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, filepath.Dir(path))
		f.stop()
		f.close()
		if after := snapshot(t, filepath.Dir(path)); after != before {
			t.Errorf("%s changed: before\n%safter\n%s", name, before, after)
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestOneServer has servers come and go on one FIFO: never do two of them hold it.
func TestOneServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	var holders, held atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for held.Load() < 300 && !t.Failed() {
				f, err := openRequestFIFO(path, 0o600)
				if errors.Is(err, ErrServed) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 || !f.named() {
					t.Errorf("%d servers on one FIFO, it still has its name: %v", n, f.named())
				}
				held.Add(1)
				holders.Add(-1)
				f.stop()
				f.close()
			}
		})
	}
	wg.Wait()
}

// TestMakeDirTogether has servers make one directory at the same time.
func TestMakeDirTogether(t *testing.T) {
	for range 50 {
		dir := filepath.Join(t.TempDir(), "run", "indimail")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				f, err := openRequestFIFO(filepath.Join(dir, fmt.Sprint("infifo", i)), 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				f.stop()
				f.close()
			})
		}
		wg.Wait()
	}
}

// TestRequestFIFOStop: what was asked before stop is read, and then nothing is waited for.
func TestRequestFIFOStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "infifo")
	for _, waiting := range []bool{false, true} {
		f, err := openRequestFIFO(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		done := make(chan error)
		read := func() {
			for b := make([]byte, 100); ; {
				n, err := f.read(b)
				if n == 0 || err != nil {
					done <- err
					return
				}
				got = append(got, b[:n]...)
			}
		}
		if waiting {
			go read()
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", 250)), 0); err != nil {
			t.Fatal(err)
		}
		f.stop()
		if !waiting {
			go read()
		}
		select {
		case err := <-done:
			if err != nil || strings.Trim(string(got), "\x00") != strings.Repeat("x", 250) {
				t.Errorf("read %q, %v", got, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("read still waits")
		}
		f.close()
	}
}

func TestFIFOPath(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want string
	}{
		{"", nil, "/var/indimail/inquery/infifo"},
		{"", []string{"FIFODIR", "/f"}, "/f/infifo"},
		{"", []string{"INFIFODIR", "/i"}, "/i/infifo"},
		{"", []string{"FIFODIR", "/f", "INFIFODIR", "/i"}, "/i/infifo"},
		{"", []string{"INFIFO", "name"}, "/var/indimail/inquery/name"},
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
		path, relative := fifoPath(environ{environment(c.env...)}, c.name)
		asked := c.name
		if i := slices.Index(c.env, "INFIFO"); asked == "" && i >= 0 {
			asked = c.env[i+1]
		}
		if want := asked == "" || asked[0] != '/' && asked[0] != '.'; path != c.want || relative != want {
			t.Errorf("%q %q: %q, relative %v, want %q, %v", c.name, c.env, path, relative, c.want, want)
		}
	}
}

func TestRequestPaths(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one.1", "three.1", "three.2", "three.3", "gap.1", "gap.3", "second.2", "both", "both.1", "plain"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
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
		{dir + "/three", []string{"three"}}, // a path is a path
		{"three.2", []string{"three.2"}},
	} {
		for i := range c.want {
			c.want[i] = filepath.Join(dir, c.want[i])
		}
		if got := requestPaths(environ{environment("INFIFODIR", dir)}, c.name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := requestPaths(environ{environment("FIFODIR", dir, "INFIFO", c.name)}, ""); !slices.Equal(got, c.want) {
			t.Errorf("INFIFO=%s: %q, want %q", c.name, got, c.want)
		}
	}
}
