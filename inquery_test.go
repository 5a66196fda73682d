package inlookup

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
)

// A resolverFunc is a fake Resolver.
type resolverFunc func(ctx context.Context, q Query) (Answer, error)

func (f resolverFunc) Resolve(ctx context.Context, q Query) (Answer, error) { return f(ctx, q) }

// always answers with a, whatever is asked.
func always(a Answer) Resolver {
	return resolverFunc(func(context.Context, Query) (Answer, error) { return a, nil })
}

// environment returns a Getenv of NAME, value pairs.
func environment(pairs ...string) func(string) string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// decode returns the typed value of an answer to a question of type t.
func decode(t Type, a Answer) (any, error) {
	d, ctx := Directory{Resolver: always(a)}, context.Background()
	switch t {
	case TypeUser:
		return d.Status(ctx, "")
	case TypeRelay:
		return d.Relay(ctx, "", "")
	case TypePasswd:
		return a.Passwd()
	case TypeHost:
		return d.Host(ctx, "")
	case TypeAlias:
		return d.Alias(ctx, "")
	case TypeLimit:
		return d.Limits(ctx, "")
	case TypeDomain:
		return d.Domain(ctx, "")
	}
	return a.Text()
}

// wireInt is an int as it travels.
func wireInt(n int) string {
	return string(binary.NativeEndian.AppendUint32(nil, uint32(int32(n))))
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		typ           Type
		email         string
		local, domain string
	}{
		{TypeUser, "user@example.com", "user", "example.com"},
		{TypeUser, "user%example.com", "user", "example.com"},
		{TypeUser, "user:example.com", "user", "example.com"},
		{TypeUser, "USER@Example.COM", "user", "example.com"},
		{TypeUser, "user", "user", "default.example"},
		{TypeUser, "User", "user", "default.example"},
		{TypeUser, "", "", "default.example"},
		{TypeUser, "@example.com", "", "example.com"},
		{TypeUser, "user@", "user", ""},
		{TypeUser, "@", "", ""},
		{TypeUser, "%", "", ""},
		{TypeUser, "a@b@example.com", "a@b", "example.com"},
		{TypeUser, `"a@b"@example.com`, `"a@b"`, "example.com"},
		{TypeUser, "a%b@example.com", "a%b", "example.com"},
		{TypeUser, "a:b@example.com", "a:b", "example.com"},
		{TypeUser, "a@b%c", "a", "b%c"},
		{TypeUser, "a@b:c", "a", "b:c"},
		{TypeUser, "a%b%c", "a%b", "c"},
		{TypeUser, "a:b%c", "a:b", "c"},
		{TypeUser, "a%b:c", "a%b", "c"},
		{TypeUser, "JÜRGEN@İ.example", "jÜrgen", "İ.example"}, // only A to Z has another case
		{TypeUser, "[\\]^_`{@Z", "[\\]^_`{", "z"},
		{TypeUser, "A\xff\xfe@B", "a\xff\xfe", "b"},
		{TypeRelay, "user", "user", "default.example"},
		{TypePasswd, "user%Example.com", "user", "example.com"},
		{TypeHost, "user", "user", "default.example"},
		{TypeAlias, "user", "user", "default.example"},
		{TypeLimit, "Example.com", "", "example.com"},
		{TypeLimit, "user@example.com", "user", "example.com"},
		{TypeLimit, "user%example.com", "user", "example.com"},
		{TypeDomain, "Example.com", "", "example.com"},
		{TypeDomain, "User@Example.com", "", "user@example.com"},
		{TypeDomain, "", "", ""},
	} {
		local, domain := Query{Type: c.typ, Email: c.email}.split("default.example")
		if local != c.local || domain != c.domain {
			t.Errorf("%v %q: got %q and %q, want %q and %q", c.typ, c.email, local, domain, c.local, c.domain)
		}
	}
}

func TestTypeNames(t *testing.T) {
	names := map[Type]string{ // those of 1 to 7 are parsed by IndiMail's graphs
		1: "User Query", 2: "Relay Query", 3: "Password Query", 4: "Host Query", 5: "Alias Query",
		6: "Domain Limits Query", 7: "Domain Query", 'S': "Status Query", 'F': "Flush Query", 'X': "Explain Query",
	}
	for i := range 256 {
		got, want := Type(i).String(), names[Type(i)]
		if want != "" && got != want {
			t.Errorf("type %d: %q, want %q", i, got, want)
		}
		if want == "" && !strings.Contains(got, fmt.Sprint(i)) {
			t.Errorf("type %d: %q does not name it", i, got)
		}
	}
	for s, want := range map[Status]string{0: "active", 1: "absent", 2: "inactive", 3: "over quota", 4: "alias"} {
		if s.String() != want {
			t.Errorf("status %d: %q, want %q", s, s, want)
		}
	}
	for _, s := range []Status{-1, 5, math.MaxInt, math.MinInt} {
		if s.String() == "" {
			t.Errorf("status %d has no text", s)
		}
	}
}

func TestAppendFrame(t *testing.T) {
	got, err := Query{TypeRelay, "User@example.com", "192.0.2.1"}.appendFrame([]byte("before"), "/tmp/123")
	want := "before" + wireInt(2+17+9+10) + "\x02\x00User@example.com\x00/tmp/123\x00192.0.2.1\x00"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	got, err = Query{Type: TypeFlush}.appendFrame(nil, "socket")
	if want := wireInt(11) + "F\x00\x00socket\x00\x00"; err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}

func TestAppendFrameRefuses(t *testing.T) {
	const reply, ip = "/tmp/reply", "192.0.2.1"
	room := 4096 - 4 - 2 - 3 - len(reply)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name string
		q    Query
		want error
	}{
		{"4096 bytes", Query{TypeUser, long(room), ""}, nil},
		{"4097 bytes", Query{TypeUser, long(room + 1), ""}, ErrTooLong},
		{"4096 bytes with ip", Query{TypeRelay, long(room - len(ip)), ip}, nil},
		{"4097 bytes with ip", Query{TypeRelay, long(room - len(ip) + 1), ip}, ErrTooLong},
		{"a megabyte", Query{TypeUser, long(1 << 20), ""}, ErrTooLong},
		{"NUL in email", Query{TypeUser, "a\x00b@example.com", ""}, ErrInvalid},
		{"NUL at the end of email", Query{TypeUser, "a@example.com\x00", ""}, ErrInvalid},
		{"NUL in ip", Query{TypeRelay, "a@example.com", "192.0.2.1\x00"}, ErrInvalid},
		{"relay without ip", Query{TypeRelay, "a@example.com", ""}, ErrInvalid},
		{"type 0", Query{0, "a@example.com", ""}, ErrInvalid},
		{"type 8", Query{8, "a@example.com", ""}, ErrInvalid},
		{"type 255", Query{255, "a@example.com", ""}, ErrInvalid},
		{"ip of another type", Query{TypeExplain, "a@example.com", "3"}, nil},
	} {
		b, err := c.q.appendFrame([]byte("before"), reply)
		switch {
		case !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		case c.want != nil && string(b) != "before":
			t.Errorf("%s: %d bytes were appended all the same", c.name, len(b)-6)
		case c.want == nil:
			r, size := parseRequest(b[6:])
			if size != len(b)-6 || r.typ != c.q.Type || string(r.email) != c.q.Email || string(r.reply) != reply || string(r.ip) != c.q.IP {
				t.Errorf("%s: read back as %d bytes, %v %q %q %q", c.name, size, r.typ, r.email, r.reply, r.ip)
			}
		}
	}
}

func TestNewPasswd(t *testing.T) {
	a := NewPasswd(Passwd{"user@example.com", "$5$salt$hash", 1, 2, "A: User", "/home/mail/user", "5000000S", true})
	if want := "PWSTRUCT=user@example.com:$5$salt$hash:1:2:A: User:/home/mail/user:5000000S:1"; a.Code() != len(want)+1 || a.Data() != want {
		t.Errorf("code %d, %q; want %q", a.Code(), a.Data(), want)
	}
}

func TestDecode(t *testing.T) {
	entry := func(s string) Answer { return NewData(TypePasswd, "PWSTRUCT="+s) }
	zero := map[Type]any{TypeUser: Status(0), TypeRelay: false, TypePasswd: Passwd{}, TypeHost: "", TypeAlias: []string(nil),
		TypeLimit: Limits{}, TypeDomain: "", TypeStatus: ""}
	for _, c := range []struct {
		typ  Type
		a    Answer
		want any // a value, or one of the errors
	}{
		{TypeUser, NewAnswer(0), StatusActive},
		{TypeUser, NewAnswer(1), StatusAbsent},
		{TypeUser, NewAnswer(2), StatusInactive},
		{TypeUser, NewAnswer(3), StatusOverQuota},
		{TypeUser, NewAnswer(4), StatusAlias},
		{TypeUser, NewAnswer(5), ErrInvalid},
		{TypeUser, NewAnswer(-1), ErrUnavailable},
		{TypeUser, NewAnswer(-2), ErrUnavailable},
		{TypeRelay, NewAnswer(0), false},
		{TypeRelay, NewAnswer(1), true},
		{TypeRelay, NewAnswer(2), ErrInvalid},
		{TypeRelay, NewAnswer(-1), ErrUnavailable},
		{TypePasswd, entry("u@d:p:1:2:g:/h:q:0"), Passwd{"u@d", "p", 1, 2, "g", "/h", "q", false}},
		{TypePasswd, entry("No such user u@d"), ErrNotFound},
		{TypePasswd, NewAnswer(0), ErrUnavailable},
		{TypePasswd, NewAnswer(-1), ErrUnavailable},
		{TypePasswd, NewData(TypePasswd, "u@d:p:1:2:g:/h:q:0"), ErrInvalid},
		{TypePasswd, NewData(TypePasswd, ""), ErrInvalid},
		{TypeHost, NewData(TypeHost, "d:h:25"), "d:h:25"},
		{TypeHost, NewAnswer(0), ErrNotFound},
		{TypeHost, NewAnswer(-1), ErrUnavailable},
		{TypeHost, Answer(wireInt(7) + "d:h:2\x00"), ErrInvalid},
		{TypeHost, Answer(wireInt(7) + "d:h:255\x00"), ErrInvalid},
		{TypeAlias, NewData(TypeAlias, ""), []string(nil)},
		{TypeAlias, NewData(TypeAlias, "&a@b\n"), []string{"&a@b"}},
		{TypeAlias, NewData(TypeAlias, "&a@b\n|c d\n"), []string{"&a@b", "|c d"}},
		{TypeAlias, NewData(TypeAlias, "&a@b\n\n|c\n"), []string{"&a@b", "", "|c"}},
		{TypeAlias, NewAnswer(-1), ErrUnavailable},
		{TypeLimit, NewAnswer(0), ErrNotFound},
		{TypeLimit, NewAnswer(-1), ErrUnavailable},
		{TypeLimit, Answer(wireInt(127) + strings.Repeat("\x00", 127)), ErrInvalid},
		{TypeLimit, Answer(wireInt(128) + strings.Repeat("\x00", 127)), ErrInvalid},
		{TypeLimit, Answer(wireInt(128) + strings.Repeat("\x00", 129)), ErrInvalid},
		{TypeLimit, Answer(wireInt(128) + strings.Repeat("\x00", 128)), Limits{}},
		{TypeDomain, NewData(TypeDomain, "example.com"), "example.com"},
		{TypeDomain, NewAnswer(0), ErrNotFound},
		{TypeDomain, NewAnswer(-1), ErrUnavailable},
		{TypeStatus, NewData(TypeStatus, "a\nb\n"), "a\nb\n"},
		{TypeStatus, NewData(TypeStatus, ""), ""},
		{TypeStatus, NewAnswer(-1), ErrUnavailable},
	} {
		got, err := decode(c.typ, c.a)
		if want, ok := c.want.(error); ok {
			if !errors.Is(err, want) || !reflect.DeepEqual(got, zero[c.typ]) {
				t.Errorf("%v %q: %v, %v, want %v", c.typ, c.a, got, err, want)
			}
		} else if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v %q: %#v, %v, want %#v", c.typ, c.a, got, err, c.want)
		}
	}
	for typ := range zero { // no answer at all: neither a value nor "not found"
		for _, a := range []Answer{"", "\x00", "\x01\x00\x00"} {
			if got, err := decode(typ, a); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
				t.Errorf("%v %q: %v, %v", typ, a, got, err)
			}
		}
	}
}

func TestDirectoryPassesErrors(t *testing.T) {
	fault, asked := errors.New("fault"), Query{}
	d := Directory{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
		asked = q
		return NewAnswer(0), fault
	})}
	ctx := context.Background()
	for _, c := range []struct {
		ask  func() (any, error)
		want Query
	}{
		{func() (any, error) { return d.Status(ctx, "u@d") }, Query{TypeUser, "u@d", ""}},
		{func() (any, error) { return d.Relay(ctx, "u@d", "192.0.2.1") }, Query{TypeRelay, "u@d", "192.0.2.1"}},
		{func() (any, error) { return d.Passwd(ctx, "u@d") }, Query{TypePasswd, "u@d", ""}},
		{func() (any, error) { return d.Host(ctx, "u@d") }, Query{TypeHost, "u@d", ""}},
		{func() (any, error) { return d.Alias(ctx, "u@d") }, Query{TypeAlias, "u@d", ""}},
		{func() (any, error) { return d.Limits(ctx, "u@d") }, Query{TypeLimit, "u@d", ""}},
		{func() (any, error) { return d.Domain(ctx, "d") }, Query{TypeDomain, "d", ""}},
	} {
		if got, err := c.ask(); !errors.Is(err, fault) || asked != c.want {
			t.Errorf("asked %v, want %v: got %v, %v", asked, c.want, got, err)
		}
	}
}

// TestDirectoryPasswd: only the entry of who was asked about is taken.
func TestDirectoryPasswd(t *testing.T) {
	for _, c := range []struct {
		asked, entry string
		ok           bool
	}{
		{"user@example.com", "user@example.com", true},
		{"USER@Example.com", "user@example.com", true},
		{"user%example.com", "user@example.com", true},
		{"user", "user@default.example", true},
		{`"a@b"@example.com`, `"a@b"@example.com`, true},
		{"user@example.com", "user@example.org", false},
		{"user@example.com", "other@example.com", false},
		{"user", "other@default.example", false},
		{"", "other@default.example", false},
	} {
		want := Passwd{Email: c.entry, Passwd: "hash", UID: 1}
		d := Directory{Resolver: always(NewPasswd(want))}
		p, err := d.Passwd(context.Background(), c.asked)
		if c.ok && (err != nil || p != want) || !c.ok && (!errors.Is(err, ErrInvalid) || p != Passwd{}) {
			t.Errorf("asked %q, told of %q: %v, %v", c.asked, c.entry, p, err)
		}
	}
}

func TestPasswd(t *testing.T) {
	const scram, keys = "{SCRAM-SHA-256}4096,c2FsdA==,c3RvcmVk,c2VydmVy", ":c2FsdGVk:73616c746564"
	for _, c := range []struct {
		name, entry string
		want        Passwd
	}{
		{"plain", "user@example.com:$5$s$h:1:0:Test User:/home/mail/user:5000000S:0",
			Passwd{"user@example.com", "$5$s$h", 1, 0, "Test User", "/home/mail/user", "5000000S", false}},
		{"inactive", "u@d:p:1:2:g:/h:NOQUOTA:1", Passwd{"u@d", "p", 1, 2, "g", "/h", "NOQUOTA", true}},
		{"empty fields", ":::::::", Passwd{}},
		{"empty fields with numbers", "u@d::0:0::::0", Passwd{Email: "u@d"}},
		{"negative ids", "u@d:p:-1:-2:g:/h:q:0", Passwd{"u@d", "p", -1, -2, "g", "/h", "q", false}},
		{"colon in gecos", "u@d:p:1:2:a:b:/h:q:0", Passwd{"u@d", "p", 1, 2, "a:b", "/h", "q", false}},
		{"three colons in gecos", "u@d:p:1:2:a:b::c:/h:q:0", Passwd{"u@d", "p", 1, 2, "a:b::c", "/h", "q", false}},
		{"SCRAM, two colons of its own", "u@d:" + scram + keys + ",$5$s$h:1:2:g:/h:q:0",
			Passwd{"u@d", scram + keys + ",$5$s$h", 1, 2, "g", "/h", "q", false}},
		{"SCRAM with them and a colon in gecos", "u@d:" + scram + keys + ",$5$s$h:1:2:a:b:/h:q:1",
			Passwd{"u@d", scram + keys + ",$5$s$h", 1, 2, "a:b", "/h", "q", true}},
		{"SCRAM with them and four colons in gecos", "u@d:" + scram + keys + ",x:1:2:a:b:c:d:e:/h:q:1",
			Passwd{"u@d", scram + keys + ",x", 1, 2, "a:b:c:d:e", "/h", "q", true}},
		{"SCRAM without", "u@d:" + scram + ",$5$s$h:1:2:g:/h:q:0", Passwd{"u@d", scram + ",$5$s$h", 1, 2, "g", "/h", "q", false}},
		{"SCRAM without and a colon in gecos", "u@d:" + scram + ",x:1:2:a:b:/h:q:0", Passwd{"u@d", scram + ",x", 1, 2, "a:b", "/h", "q", false}},
		{"SCRAM-SHA-1", "u@d:{SCRAM-SHA-1}1,s,s,s:a:b,x:1:2:g:/h:q:0", Passwd{"u@d", "{SCRAM-SHA-1}1,s,s,s:a:b,x", 1, 2, "g", "/h", "q", false}},
		{"a scheme that is not SCRAM", "u@d:{CRAM}x:1:2:a:b:c:/h:q:0", Passwd{"u@d", "{CRAM}x", 1, 2, "a:b:c", "/h", "q", false}},
		{"no fields", "", Passwd{}},
		{"seven fields", "u@d:p:1:2:g:/h:0", Passwd{}},
		{"SCRAM and nine fields but no ids", "u@d:{SCRAM-SHA-256}a:b:c,x:1:2:g:/h:q", Passwd{}},
		{"uid no number", "u@d:p:x:2:g:/h:q:0", Passwd{}},
		{"gid no number", "u@d:p:1::g:/h:q:0", Passwd{}},
		{"uid too large", "u@d:p:99999999999999999999:2:g:/h:q:0", Passwd{}},
		{"inactive 2", "u@d:p:1:2:g:/h:q:2", Passwd{}},
		{"inactive empty", "u@d:p:1:2:g:/h:q:", Passwd{}},
		{"inactive 01", "u@d:p:1:2:g:/h:q:01", Passwd{}},
	} {
		got, err := NewData(TypePasswd, "PWSTRUCT="+c.entry).Passwd()
		if got != c.want || (err != nil) != (c.want == Passwd{}) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if err != nil && c.entry != "" && strings.Contains(err.Error(), c.entry) {
			t.Errorf("%s: the error holds the entry: %v", c.name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	b, n := make([]byte, 128), 0
	put := func(size int) { // the values 101, 102, ... in the order of the C struct
		n++
		switch value := uint64(100 + n); size {
		case 8:
			binary.NativeEndian.PutUint64(b[(n-1)*8:], value)
		case 2:
			binary.NativeEndian.PutUint16(b[88+(n-12)*2:], uint16(value))
		}
	}
	for range 11 {
		put(8)
	}
	for range 17 {
		put(2)
	}
	want := Limits{DomainExpiry: 101, PasswdExpiry: 102, MaxPopAccounts: 103, MaxAliases: 104, MaxForwards: 105,
		MaxAutoresponders: 106, MaxMailinglists: 107, DiskQuota: 108, MaxMsgCount: 109, DefaultQuota: 110, DefaultMaxMsgCount: 111,
		DisablePop: 112, DisableIMAP: 113, DisableDialup: 114, DisablePasswordChanging: 115, DisableWebmail: 116, DisableRelay: 117,
		DisableSMTP: 118, PermAccount: 119, PermAlias: 120, PermForward: 121, PermAutoresponder: 122, PermMaillist: 123,
		PermMaillistUsers: 124, PermMaillistModerators: 125, PermQuota: 126, PermDefaultQuota: 127, LimitType: 128}
	if binary.NativeEndian.Uint16(b[120:]) != 128 || !bytes.Equal(b[122:], make([]byte, 6)) {
		t.Fatal("the record by hand is wrong: limit_type is at offset 120, padding from 122")
	}
	if got, err := Answer(wireInt(128) + string(b)).Limits(); err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for i := range 128 { // the padding is nobody's business; all other bytes count, all bits of them
		b[i] = 0xff
	}
	got, err := Answer(wireInt(128) + string(b)).Limits()
	if err != nil || got.DomainExpiry != -1 || got.MaxMailinglists != -1 || got.DiskQuota != 1<<64-1 ||
		got.DefaultMaxMsgCount != 1<<64-1 || got.DisablePop != -1 || got.LimitType != -1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReplyTooLong(t *testing.T) {
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		longest := strings.Repeat("x", 4095)
		if a := NewData(typ, longest); a != Answer(wireInt(4096)+longest+"\x00") {
			t.Errorf("%v: 4096 bytes of data do not fit: code %d", typ, a.Code())
		}
		if a := NewData(typ, longest+"x"); a != NewAnswer(-1) {
			t.Errorf("%v: 4097 bytes of data fit: code %d, %d bytes", typ, a.Code(), len(a))
		}
	}
	for _, typ := range []Type{TypeStatus, TypeFlush, TypeExplain} {
		a := NewData(typ, strings.Repeat("x", 1<<20))
		if text, err := a.Text(); err != nil || len(text) < 4096 || len(a) > 65536 || strings.Trim(text, "x") != "" {
			t.Errorf("%v: a long text gives %d bytes, %v: must fit an empty pipe", typ, len(a), err)
		}
	}
	if a := NewData(TypeAlias, ""); a != Answer(wireInt(1)+"\x00") {
		t.Errorf("no data: %q", a)
	}
	for _, code := range []int{0, 1, -1, 1 << 30, -1 << 31} {
		if a := NewAnswer(code); string(a) != wireInt(code) || a.Code() != code || a.Data() != "" {
			t.Errorf("code %d: %q, %d, %q", code, a, a.Code(), a.Data())
		}
	}
	if a := Answer(wireInt(3) + "a\x00\x00"); a.Data() != "a\x00" {
		t.Errorf("one closing NUL is the wire's, more are data: %q", a.Data())
	}
}

// TestGolden decodes what the C server answered, and reads and writes what a C
// client asked.
func TestGolden(t *testing.T) {
	if wireInt(1)[0] != 1 {
		t.Skip("the golden bytes are those of a little-endian machine")
	}
	shared := Limits{2000000000, -1, 100, 101, 102, 103, 104, 9000000000, 50000, 5000000, 1000,
		1, 0, 1, 0, 1, 0, 1, 1, 2, 3, 4, 3, 2, 1, 6, 7, 1, [6]byte{}}
	own := Limits{-1, 1900000000, 1, 2, 3, 4, 5, 600, 700, 800, 900,
		0, 1, 0, 1, 0, 1, 0, 7, 6, 5, 4, 3, 0, 0, 2, 1, 2, [6]byte{}}
	none := Limits{DomainExpiry: -1, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1, MaxForwards: -1,
		MaxAutoresponders: -1, MaxMailinglists: -1, LimitType: 1}
	want := map[string]any{
		"1 user@example.com":       StatusActive,
		"1 inactive@example.com":   StatusInactive,
		"1 over@example.com":       StatusOverQuota,
		"1 alias@example.com":      StatusAlias,
		"1 missing@example.com":    StatusAbsent,
		"1 duser@dist.example.net": StatusActive,
		"1 user@missing.example":   StatusAbsent,
		"2 user@example.com":       true,
		"3 user@example.com": Passwd{"user@example.com", "$5$abcdefgh$UserHashUserHashUserHash", 1, 0, "Test User",
			"/home/mail/A2E/example.com/user", "5000000S", false},
		"3 inactive@example.com": Passwd{"inactive@example.com", "$5$abcdefgh$InactiveHash", 1, 0, "Inactive User",
			"/home/mail/G2K/example.com/inactive", "5000000S", true},
		"3 over@example.com": Passwd{"over@example.com", "$5$abcdefgh$OverHash", 1, 16, "Over Quota",
			"/home/mail/A2E/example.com/over", "5000000S", false},
		"3 duser@dist.example.net": Passwd{"duser@dist.example.net", "$5$abcdefgh$DistHash", 1, 0, "Dist User",
			"/home/mail/A2E/dist.example.net/duser", "5000000S", false},
		"4 user@example.com":       "example.com:192.0.2.25:2525",
		"4 inactive@example.com":   "example.com:192.0.2.25:2525",
		"4 duser@dist.example.net": "dist.example.net:192.0.2.26:2526",
		"5 alias@example.com":      []string{"&other@remote.example", "&user@example.com", "/home/mail/A2E/example.com/user/Maildir/"},
		"6 user@example.com":       shared,
		"6 inactive@example.com":   shared,
		"6 over@example.com":       own,
		"6 duser@dist.example.net": none,
		"6 example.com":            shared,
	}
	file, err := os.ReadFile("testdata/golden/wire.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if line[0] == '#' {
			continue
		}
		frame, err1 := hex.DecodeString(f[3])
		reply, err2 := hex.DecodeString(f[4])
		if err1 != nil || err2 != nil {
			t.Fatalf("%q: %v, %v", line, err1, err2)
		}
		r, size := parseRequest(frame)
		if size != len(frame) || int(r.typ) != int(f[0][0]-'0') || string(r.email) != f[1] || string(r.ip) != f[2] {
			t.Errorf("%s %s: read as %d bytes, %v %q %q", f[0], f[1], size, r.typ, r.email, r.ip)
			continue
		}
		if again, err := (Query{r.typ, f[1], f[2]}).appendFrame(nil, string(r.reply)); err != nil || !bytes.Equal(again, frame) {
			t.Errorf("%s %s: written as %x, %v\nwant %x", f[0], f[1], again, err, frame)
		}
		a := Answer(reply)
		got, err := decode(r.typ, a)
		switch value, ok := want[f[0]+" "+f[1]]; {
		case ok && (err != nil || !reflect.DeepEqual(got, value)):
			t.Errorf("%s %s: %+v, %v\nwant %+v", f[0], f[1], got, err, value)
		case ok:
		case r.typ == TypeRelay && err == nil && got == false:
		case r.typ == TypeDomain && err == nil && got == f[1]:
		case r.typ == TypeAlias && err == nil && got.([]string) == nil:
		case r.typ == TypePasswd || r.typ == TypeHost || r.typ == TypeLimit:
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s %s: %+v, %v, want not found", f[0], f[1], got, err)
			}
		default:
			t.Errorf("%s %s: unexpected %+v, %v", f[0], f[1], got, err)
		}
		if r.typ != TypeLimit && len(reply) > 4 && NewData(r.typ, a.Data()) != a {
			t.Errorf("%s %s: the data do not give the same reply again", f[0], f[1])
		}
		delete(want, f[0]+" "+f[1])
	}
	if len(want) > 0 {
		t.Errorf("not in the file: %v", want)
	}
}

func FuzzPasswd(f *testing.F) {
	f.Add("u@d:p:1:2:g:/h:q:0", "user@example.com", "$5$s$h", 1, 2, "Test User", "/home/mail", "5000000S", byte(0))
	f.Add("No such user u@d", "u@d", "4096,s,s,s", -1, math.MaxInt32, "a:b:c", "", "", byte(1))
	f.Add("u@d:{SCRAM-SHA-256}1,s,s,s:a:b,p:1:2:g:/h:q:1", "", "{CRAM}", 0, 0, "::", "", "NOQUOTA", byte(6))
	f.Fuzz(func(t *testing.T, raw, email, passwd string, uid, gid int, gecos, dir, shell string, flags byte) {
		NewData(TypePasswd, "PWSTRUCT="+raw).Passwd() // does not panic
		NewData(TypePasswd, raw).Passwd()

		plain := strings.NewReplacer(":", "", "\x00", "").Replace
		want := Passwd{plain(email), plain(passwd), uid, gid, strings.ReplaceAll(gecos, "\x00", ""), plain(dir), plain(shell), flags&1 > 0}
		if strings.HasPrefix(want.Email, "No such user ") || strings.HasPrefix(want.Passwd, "{SCRAM-SHA-") {
			t.Skip()
		}
		switch flags >> 1 % 3 {
		case 1:
			want.Passwd = "{SCRAM-SHA-256}4096,s,s,s:" + plain(passwd) + ":" + plain(raw) + "," + plain(passwd)
		case 2: // without colons of its own it can be told from one with them while gecos has at most one
			want.Passwd = "{SCRAM-SHA-512}4096,s,s,s," + plain(passwd)
			want.Gecos = strings.Replace(plain(gecos), "x", ":", 1)
		}
		entry := NewPasswd(want)
		got, err := entry.Passwd()
		if size := len(fmt.Sprint(want.Email, want.Passwd, uid, ":", gid, want.Gecos, want.Dir, want.Shell)); size > 4095-9-7 {
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("an entry with %d bytes in its fields: %v", size, err)
			}
		} else if err != nil || got != want {
			t.Errorf("%q\n got %+v, %v\nwant %+v", entry, got, err, want)
		}
	})
}

// FuzzReply takes any bytes for an answer to each type.
func FuzzReply(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(NewAnswer(-1)))
	f.Add([]byte(NewData(TypePasswd, "PWSTRUCT=u@d:p:1:2:g:/h:q:0")))
	f.Add([]byte(NewData(TypeAlias, "&a\n&b\n")))
	f.Add([]byte(wireInt(128) + strings.Repeat("\x01", 128)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := Answer(b)
		a.Data()
		for _, typ := range []Type{TypeUser, TypeRelay, TypePasswd, TypeHost, TypeAlias, TypeLimit, TypeDomain, TypeStatus} {
			got, err := decode(typ, a)
			if err != nil {
				if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotFound) {
					t.Errorf("%v %q: %v", typ, b, err)
				}
				continue
			}
			switch v := got.(type) {
			case Status:
				if int(v) != a.Code() || v < StatusActive || v > StatusAlias {
					t.Errorf("%q: status %d", b, v)
				}
			case bool:
				if (a.Code() == 1) != v {
					t.Errorf("%q: relay %v", b, v)
				}
			case Passwd:
				if !strings.Contains(a.Data(), v.Passwd) || !strings.Contains(a.Data(), v.Gecos) {
					t.Errorf("%q: %+v", b, v)
				}
			case string:
				if a.Code() != len(b)-4 || NewData(typ, v) != a && strings.HasSuffix(string(a), "\x00") {
					t.Errorf("%v %q: %q", typ, b, v)
				}
			case []string:
				if n := strings.Count(a.Data(), "\n"); len(v) > n+1 {
					t.Errorf("%q: %d lines of %d", b, len(v), n)
				}
			case Limits:
				if again, _ := binary.Append(nil, binary.NativeEndian, v); !bytes.Equal(again[:122], b[4:126]) {
					t.Errorf("%q: %+v", b, v)
				}
			}
		}
	})
}
