package inlookup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// found is a request, kept beyond the reader's buffer.
func found(r request) string { return fmt.Sprintf("%d %q %q %q", r.typ, r.email, r.replyPath, r.ip) }

// slowFrames finds frames by the letter of the protocol: at each offset a length from 5 to 4092,
// that many bytes, a known type, a 0, and three strings that end with the frame. It returns them,
// and how many bytes lie in none.
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
		known := bytes.ContainsRune([]byte("\x01\x02\x03\x04\x05\x06\x07SFX"), rune(body[0]))
		if !known || body[1] != 0 || len(strs) != 4 || len(strs[3]) > 0 {
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

// readAll gives b to frames in pieces that end at the cuts, as the server does when its buffer
// was full.
func readAll(t *testing.T, b []byte, cuts []int) (list []string, refused int) {
	t.Helper()
	var have []byte
	last := 0
	for i := 0; i <= len(cuts); i++ {
		end := len(b)
		more := i < len(cuts)
		if more {
			end = cuts[i]
		}
		have = append(have, b[last:end]...)
		last = end
		used, bad := frames(have, more, func(r request) { list = append(list, found(r)) })
		left := len(have) - used
		if used < 0 || left < 0 || left >= 4096 || left > 0 && !more {
			t.Fatalf("used %d of %d bytes, more %v", used, len(have), more)
		}
		have = slices.Clone(have[used:])
		refused += bad
	}
	return list, refused
}

// A streamMaker makes a random mix of honest frames and garbage.
type streamMaker struct {
	rnd    *rand.Rand
	b      []byte
	honest []string // the honest frames
}

func stream(rnd *rand.Rand, pieces int) (b []byte, honest []string) {
	m := &streamMaker{rnd: rnd}
	for range pieces {
		m.add()
	}
	return m.b, m.honest
}

func (m *streamMaker) text(most int) string {
	s := make([]byte, m.rnd.IntN(most))
	for i := range s {
		s[i] = byte(1 + m.rnd.IntN(255))
	}
	return string(s)
}

func (m *streamMaker) frame(email string) []byte {
	types := []Type{1, 2, 3, 4, 5, 6, 7, 'S', 'F', 'X'}
	q := Query{Type: types[m.rnd.IntN(len(types))], Email: email}
	if m.rnd.IntN(3) == 0 || q.Type == TypeRelay {
		q.IP = "192.0.2." + fmt.Sprint(m.rnd.IntN(256))
	}
	f, err := q.appendFrame(nil, "/tmp/inquery."+fmt.Sprint(m.rnd.Uint64()))
	if err != nil {
		panic(err)
	}
	return f
}

func (m *streamMaker) put(texts ...string) { m.b = append(m.b, strings.Join(texts, "")...) }

func (m *streamMaker) add() {
	rnd := m.rnd
	head := string([]byte{byte(1 + rnd.IntN(7)), 0})
	switch rnd.IntN(12) {
	case 0: // bytes
		m.put(m.text(20))
	case 1: // NULs
		m.put(strings.Repeat("\x00", rnd.IntN(12)))
	case 2: // the beginning of a frame
		f := m.frame("cut short")
		m.put(string(f[:rnd.IntN(len(f))]))
	case 3: // the end of one
		f := m.frame("headless")
		m.put(string(f[rnd.IntN(len(f)):]))
	case 4: // a header that reaches far into what follows
		m.put(wireInt(5+rnd.IntN(4088)), head)
	case 5: // a header and two strings that make a frame with the first bytes of the next one
		s := m.text(10) + "\x00" + m.text(10) + "\x00"
		m.put(wireInt(2+len(s)+2), head, s)
	case 6: // lengths out of range
		m.put(wireInt([]int{0, 1, 4, 4093, 1 << 20, -1, -1 << 31}[rnd.IntN(7)]))
	default:
		long := strings.Repeat("x", rnd.IntN(30)*rnd.IntN(2))
		f := m.frame(fmt.Sprintf("user%d%s@example.com", len(m.honest), long))
		r, _ := parseRequest(f)
		m.put(string(f))
		m.honest = append(m.honest, found(r))
	}
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
	for seed := range 300 + fewer(2700) {
		rnd := rand.New(rand.NewPCG(1, uint64(seed)))
		b, honest := stream(rnd, 1+rnd.IntN(40))
		want, outside := slowFrames(b)
		list, refused := readAll(t, b, nil)
		if got := onlyHonest(list, honest); !slices.Equal(got, honest) {
			t.Fatalf("seed %d: got %q\nwant %q", seed, got, honest)
		}
		if !slices.Equal(list, want) || refused != outside {
			t.Fatalf("seed %d: got %q, %d bytes refused\nwant %q, %d",
				seed, list, refused, want, outside)
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

// TestFramesSeam puts every two of many frames, of all lengths, behind each other. What is found
// across the seam of two can neither be answered nor flush.
func TestFramesSeam(t *testing.T) {
	across := 0
	for _, ip := range []string{"", "192.0.2.1"} {
		for c := byte(' '); c < 0x7f; c++ {
			first := Query{TypeUser, "user@example.com", ip}.frame(t, "/tmp/reply"+string(c))
			for length := 20; length < maxRequest-headerSize; length++ {
				if length%256 > 0 && length > 300 {
					continue
				}
				across += seam(t, first, length, int(c)-6) // where a seam may be a frame
				across += seam(t, first, length, length/2)
			}
		}
	}
	t.Logf("%d frames seemed to begin in another", across)
	if across == 0 && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		t.Error("none seemed to: this test tests nothing")
	}
}

// seam puts a frame whose length field says length behind the first, and returns how many frames
// were found across the two.
func seam(t *testing.T, first []byte, length, email int) (across int) {
	t.Helper()
	reply := length - 2 - email - 3
	if email < 0 || reply < 1 {
		return 0
	}
	q := Query{TypeUser, strings.Repeat("e", email), ""}
	b := slices.Concat(first, q.frame(t, "/"+strings.Repeat("r", reply-1)))
	list, _ := readAll(t, b, nil)
	if len(list) > 3 || len(list) < 2 {
		t.Fatalf("%q: found %q", b, list)
	}
	for _, f := range list {
		if strings.Contains(f, "/") {
			continue // an honest one
		}
		across++
		r, _ := parseRequest(b[len(first)-3:])
		if len(r.replyPath) != 1 || r.replyPath[0] > 15 || r.typ.extension() {
			t.Fatalf("%q: found %q", b, f)
		}
	}
	return across
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
	whole := Query{TypeRelay, "u@d", "192.0.2.1"}.frame(t, "/r")
	for n := range whole {
		if r, size := parseRequest(whole[:n]); size != cutFrame {
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
	f.Add([]byte(wireInt(60)+"\x01\x00a\x00b\x00"), []byte(wireInt(6)), "", "/tmp/x", "192.0.2.1",
		byte('S'), uint16(20))
	f.Add([]byte(wireInt(12)+"\x03\x00a\x00b\x00"), []byte{0, 0, 0}, "u", "socket", "",
		byte(7), uint16(70))
	f.Fuzz(func(t *testing.T, before, after []byte, email, reply, ip string, typ byte, cut uint16) {
		// An honest client's reply path has no control characters.
		reply = "/" + strings.Map(func(r rune) rune { return max(r, ' ') }, reply)
		email = strings.ReplaceAll(email, "\x00", "")
		ip = strings.ReplaceAll(ip, "\x00", "")
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
		list, _ = readAll(t, b, []int{int(cut) % (len(b) + 1)})
		if !slices.Equal(list, want) {
			t.Fatalf("%q cut at %d: got %q\nwant %q", b, cut, list, want)
		}
	})
}
