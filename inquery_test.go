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
	"slices"
	"strings"
	"testing"
	"unicode"
)

// decode returns the typed value of an answer to a question of type t.
func decode(t Type, a Answer) (any, error) {
	ctx := context.Background()
	d := Directory{Resolver: always(a)}
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
		{TypeUser, "JÜRGEN@Ä.example", "jürgen", "ä.example"},
		{TypeUser, "[\\]^_`{@Z", "[\\]^_`{", "z"},
		{TypeUser, "A\xff\xfeÜ@B", "a\xff\xfeü", "b"}, // not UTF-8
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
		local, domain := Query{Type: c.typ, Email: c.email}.Split("Default.example")
		if local != c.local || domain != c.domain {
			t.Errorf("%v %q: got %q and %q, want %q and %q",
				c.typ, c.email, local, domain, c.local, c.domain)
		}
	}
}

// TestLower: two different texts that are not UTF-8 stay different.
func TestLower(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"az[@`{":        "az[@`{",
		"AZ":            "az",
		"ÄÖÜẞ":          "äöüß",
		"ΑΒΓ":           "αβγ",
		"A\xc3":         "a\xc3",
		"A\xc3\xc3\x84": "a\xc3\xc3\xa4",
		"\xff\xfeB":     "\xff\xfeb",
	} {
		if got := lower(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if got := appendLower([]byte("BEFORE"), in); string(got) != "BEFORE"+want {
			t.Errorf("%q behind other text: %q", in, got)
		}
	}
	for r := range unicode.MaxRune { // a question is in lower case when its key is made
		if once := lower(string(r)); lower(once) != once {
			t.Errorf("%q becomes %q and then %q", r, once, lower(once))
		}
	}
}

func TestTypeNames(t *testing.T) {
	names := map[Type]string{ // IndiMail's graphs parse those of 1 to 7
		1: "User Query", 2: "Relay Query", 3: "Password Query", 4: "Host Query",
		5: "Alias Query", 6: "Domain Limits Query", 7: "Domain Query",
		'S': "Status Query", 'F': "Flush Query", 'X': "Explain Query",
	}
	for i := range 256 {
		got := Type(i).String()
		want := names[Type(i)]
		if want != "" && got != want {
			t.Errorf("type %d: %q, want %q", i, got, want)
		}
		if want == "" && !strings.Contains(got, fmt.Sprint(i)) {
			t.Errorf("type %d: %q does not name it", i, got)
		}
	}
	statuses := map[Status]string{
		-1: "unknown", 0: "active", 1: "absent", 2: "inactive", 3: "over quota", 4: "alias",
		5: "unknown", math.MaxInt: "unknown", math.MinInt: "unknown",
	}
	for s, want := range statuses {
		if s.String() != want {
			t.Errorf("status %d: %q, want %q", s, s, want)
		}
	}
}

func TestAppendFrame(t *testing.T) {
	q := Query{TypeRelay, "User@example.com", "192.0.2.1"}
	got, err := q.appendFrame([]byte("before"), "/tmp/123")
	want := "before" + wireInt(2+17+9+10) + "\x02\x00User@example.com\x00/tmp/123\x00192.0.2.1\x00"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
	got, err = Query{Type: TypeFlush}.appendFrame(nil, "socket")
	want = wireInt(11) + "F\x00\x00socket\x00\x00"
	if err != nil || string(got) != want {
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
		added := b[len("before"):]
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		if c.want != nil {
			if len(added) > 0 {
				t.Errorf("%s: %d bytes were appended all the same", c.name, len(added))
			}
			continue
		}
		r, size := parseRequest(added)
		want := found(request{c.q.Type, []byte(c.q.Email), []byte(reply), []byte(c.q.IP)})
		if size != len(added) || found(r) != want {
			t.Errorf("%s: read back as %d bytes, %s", c.name, size, found(r))
		}
	}
}

func TestNewPasswd(t *testing.T) {
	a := NewPasswd(Passwd{
		"user@example.com", NewSecret("$5$salt$hash"), 1, 2, "A: User", "/home/mail/user", "5000000S", true,
	})
	want := "PWSTRUCT=user@example.com:$5$salt$hash:1:2:A: User:/home/mail/user:5000000S:1"
	if a.Code() != len(want)+1 || a.Data() != want {
		t.Errorf("code %d, %q; want %q", a.Code(), a.Data(), want)
	}
}

// TestPasswdPrints: no verb for values or strings prints the hash.
func TestPasswdPrints(t *testing.T) {
	const hash = "$5$salt$hash"
	p := Passwd{"user@example.com", NewSecret(hash), 1, 2, "A User", "/home/mail/user", "5000000S", true}
	values := []any{p, &p, []Passwd{p}, []any{p}, map[string]Passwd{"": p}, struct{ P Passwd }{p}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range values {
			text := fmt.Sprintf(verb, v)
			if strings.Contains(text, hash) || strings.Contains(text, fmt.Sprintf("%x", hash)) {
				t.Errorf("%s of a %T: %s", verb, v, text)
			}
		}
	}
	for _, want := range []string{"user@example.com", "A User", "/home", "5000000S", "true"} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("%s is not in %v", want, p)
		}
	}
}

// A decodeCase says what an answer to a question of that type means.
type decodeCase struct {
	typ  Type
	a    Answer
	want any // a value, or one of the errors
}

func entryAnswer(s string) Answer { return NewData(TypePasswd, "PWSTRUCT="+s) }

var decodeCodes = []decodeCase{
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
	{TypeLimit, NewAnswer(0), ErrNotFound},
	{TypeLimit, NewAnswer(-1), ErrUnavailable},
	{TypeLimit, WireAnswer(wireInt(127) + strings.Repeat("\x00", 127)), ErrInvalid},
	{TypeLimit, WireAnswer(wireInt(128) + strings.Repeat("\x00", 127)), ErrInvalid},
	{TypeLimit, WireAnswer(wireInt(128) + strings.Repeat("\x00", 129)), ErrInvalid},
	{TypeLimit, WireAnswer(wireInt(128) + strings.Repeat("\x00", 128)), Limits{}},
}

var decodeTexts = []decodeCase{
	{TypePasswd, entryAnswer("u@d:p:1:2:g:/h:q:0"),
		Passwd{"u@d", NewSecret("p"), 1, 2, "g", "/h", "q", false}},
	{TypePasswd, entryAnswer("No such user u@d"), ErrNotFound},
	{TypePasswd, NewAnswer(0), ErrUnavailable},
	{TypePasswd, NewAnswer(-1), ErrUnavailable},
	{TypePasswd, NewData(TypePasswd, "u@d:p:1:2:g:/h:q:0"), ErrInvalid},
	{TypePasswd, NewData(TypePasswd, ""), ErrInvalid},
	{TypeHost, NewData(TypeHost, "d:h:25"), "d:h:25"},
	{TypeHost, NewAnswer(0), ErrNotFound},
	{TypeHost, NewAnswer(-1), ErrUnavailable},
	{TypeHost, WireAnswer(wireInt(7) + "d:h:2\x00"), ErrInvalid},
	{TypeHost, WireAnswer(wireInt(7) + "d:h:255\x00"), ErrInvalid},
	{TypeHost, WireAnswer(wireInt(0) + "d:h:25\x00"), ErrInvalid},
	{TypeHost, WireAnswer(wireInt(-1) + "d:h:25\x00"), ErrInvalid},
	{TypeAlias, NewData(TypeAlias, ""), []string(nil)},
	{TypeAlias, NewData(TypeAlias, "&a@b\n"), []string{"&a@b"}},
	{TypeAlias, NewData(TypeAlias, "&a@b\n|c d\n"), []string{"&a@b", "|c d"}},
	{TypeAlias, NewData(TypeAlias, "&a@b\n\n|c\n"), []string{"&a@b", "", "|c"}},
	{TypeAlias, NewAnswer(0), ErrUnavailable},
	{TypeAlias, NewAnswer(-1), ErrUnavailable},
	{TypeDomain, NewData(TypeDomain, "example.com"), "example.com"},
	{TypeDomain, NewAnswer(0), ErrUnavailable}, // Domain has a value for "absent"
	{TypeDomain, NewAnswer(-1), ErrUnavailable},
	{TypeStatus, NewData(TypeStatus, "a\nb\n"), "a\nb\n"},
	{TypeStatus, NewData(TypeStatus, ""), ""},
	{TypeStatus, NewAnswer(-1), ErrUnavailable},
}

// noValues are what stands beside an error.
var noValues = map[Type]any{
	TypeUser: StatusUnknown, TypeRelay: false, TypePasswd: Passwd{}, TypeHost: "",
	TypeAlias: []string(nil), TypeLimit: Limits{}, TypeDomain: "", TypeStatus: "",
}

func TestDecode(t *testing.T) {
	for _, c := range slices.Concat(decodeCodes, decodeTexts) {
		got, err := decode(c.typ, c.a)
		want, isError := c.want.(error)
		if !isError {
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%v %q: %#v, %v, want %#v", c.typ, c.a, got, err, c.want)
			}
		} else if !errors.Is(err, want) || !reflect.DeepEqual(got, noValues[c.typ]) {
			t.Errorf("%v %q: %v, %v, want %v", c.typ, c.a, got, err, want)
		}
	}
	for typ, none := range noValues { // no answer at all: neither a value nor "not found"
		for _, a := range []Answer{Answer{}, WireAnswer("\x00"), WireAnswer("\x01\x00\x00")} {
			got, err := decode(typ, a)
			if !reflect.DeepEqual(got, none) {
				t.Errorf("%v %q: %v", typ, a, got)
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v %q: %v", typ, a, err)
			}
			if errors.Is(err, ErrNotFound) {
				t.Errorf("%v %q: %v", typ, a, err)
			}
		}
	}
}

// TestErrorAnswer: what says "error" on the wire is no value for anybody.
func TestErrorAnswer(t *testing.T) {
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		a := errorAnswer(typ)
		if _, err := decode(typ, a); !errors.Is(err, ErrUnavailable) || !a.isError(typ) {
			t.Errorf("%v: %q, %v", typ, a, err)
		}
		absent := Absent(Query{Type: typ, Email: "User@Example.com"})
		if absent.isError(typ) || !absent.Equal(absentAnswer(Query{Type: typ, Email: "user@example.com"})) {
			t.Errorf("%v: absent is %q", typ, absent)
		}
	}
}

// sevenQuestions are the methods of Directory, and the questions they are to ask.
func sevenQuestions(d Directory) map[Query]func() (any, error) {
	ctx := context.Background()
	return map[Query]func() (any, error){
		{TypeUser, "u@d", ""}:           func() (any, error) { return d.Status(ctx, "U@D") },
		{TypeRelay, "u@d", "192.0.2.1"}: func() (any, error) { return d.Relay(ctx, "U@d", "192.0.2.1") },
		{TypePasswd, "u@d", ""}:         func() (any, error) { return d.Passwd(ctx, "U@d") },
		{TypeHost, "u@d", ""}:           func() (any, error) { return d.Host(ctx, "U@d") },
		{TypeAlias, "u@d", ""}:          func() (any, error) { return d.Alias(ctx, "U@d") },
		{TypeLimit, "ü@d", ""}:          func() (any, error) { return d.Limits(ctx, "Ü@d") },
		{TypeDomain, "d", ""}:           func() (any, error) { return d.Domain(ctx, "D") },
	}
}

// TestDirectoryErrors: every error wraps one of the package's, and keeps what it was.
func TestDirectoryErrors(t *testing.T) {
	other := errors.New("a fault of the Resolver's own")
	for _, fault := range []error{other, ErrUnavailable, ErrInvalid, ErrTooLong, context.Canceled} {
		var asked Query
		d := Directory{Resolver: resolverFunc(func(_ context.Context, q Query) (Answer, error) {
			asked = q
			return NewAnswer(0), fault
		})}
		for want, ask := range sevenQuestions(d) {
			got, err := ask()
			if asked != want || !errors.Is(err, fault) {
				t.Errorf("asked %v, want %v: got %v, %v", asked, want, got, err)
			}
			if !reflect.DeepEqual(got, noValues[want.Type]) {
				t.Errorf("%v: %v beside an error", want, got)
			}
			if fault != ErrInvalid && fault != ErrTooLong && !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v: %v is no error of this package", want, err)
			}
			if fault == ErrInvalid && errors.Is(err, ErrUnavailable) {
				t.Errorf("%v: %v", want, err)
			}
		}
	}
	for q, ask := range sevenQuestions(Directory{}) { // no Resolver
		if got, err := ask(); !errors.Is(err, ErrInvalid) || !reflect.DeepEqual(got, noValues[q.Type]) {
			t.Errorf("%v: %v, %v", q, got, err)
		}
	}
}

// TestDirectoryPasswd: only the entry of the address that was asked about is taken.
func TestDirectoryPasswd(t *testing.T) {
	for _, c := range []struct {
		asked, entry string
		ok           bool
	}{
		{"user@example.com", "user@example.com", true},
		{"USER@Example.com", "user@example.com", true},
		{"user%example.com", "user@example.com", true},
		{"user", "user@default.example", true},
		{"JÜRGEN@example.com", "jürgen@example.com", true},
		{`"a@b"@example.com`, `"a@b"@example.com`, true},
		{"user@example.com", "user@example.org", false},
		{"user@example.com", "other@example.com", false},
		{"jürgen@example.com", "jurgen@example.com", false},
		{"user", "other@default.example", false},
		{"", "other@default.example", false},
	} {
		want := Passwd{Email: c.entry, Passwd: NewSecret("hash"), UID: 1}
		d := Directory{Resolver: always(NewPasswd(want))}
		p, err := d.Passwd(context.Background(), c.asked)
		if c.ok && (err != nil || !reflect.DeepEqual(p, want)) {
			t.Errorf("asked %q, told of %q: %v, %v", c.asked, c.entry, p, err)
		}
		if !c.ok && (!errors.Is(err, ErrInvalid) || !reflect.DeepEqual(p, Passwd{})) {
			t.Errorf("asked %q, told of %q: %v, %v", c.asked, c.entry, p, err)
		}
	}
}

// An entryCase is the text of an entry behind PWSTRUCT=, and what it means. The zero Passwd
// stands for an error.
type entryCase struct {
	name, entry string
	want        Passwd
}

const (
	scramText = "{SCRAM-SHA-256}4096,c2FsdA==,c3RvcmVk,c2VydmVy"
	scramKeys = ":c2FsdGVk:73616c746564"
)

var entryCases = []entryCase{
	{"plain", "user@example.com:$5$s$h:1:0:Test User:/home/mail/user:5000000S:0",
		Passwd{"user@example.com", NewSecret("$5$s$h"), 1, 0, "Test User", "/home/mail/user", "5000000S", false}},
	{"inactive", "u@d:p:1:2:g:/h:NOQUOTA:1",
		Passwd{"u@d", NewSecret("p"), 1, 2, "g", "/h", "NOQUOTA", true}},
	{"empty fields", "u@d:::::::0", Passwd{Email: "u@d"}},
	{"empty fields with numbers", "u@d::0:0::::0", Passwd{Email: "u@d"}},
	{"negative ids", "u@d:p:-1:-2:g:/h:q:0", Passwd{"u@d", NewSecret("p"), -1, -2, "g", "/h", "q", false}},
	{"colon in gecos", "u@d:p:1:2:a:b:/h:q:0", Passwd{"u@d", NewSecret("p"), 1, 2, "a:b", "/h", "q", false}},
	{"three colons in gecos", "u@d:p:1:2:a:b::c:/h:q:0",
		Passwd{"u@d", NewSecret("p"), 1, 2, "a:b::c", "/h", "q", false}},
	{"SCRAM, two colons of its own", "u@d:" + scramText + scramKeys + ",$5$s$h:1:2:g:/h:q:0",
		Passwd{"u@d", NewSecret(scramText + scramKeys + ",$5$s$h"), 1, 2, "g", "/h", "q", false}},
	{"SCRAM with them and a colon in gecos", "u@d:" + scramText + scramKeys + ",$5$s$h:1:2:a:b:/h:q:1",
		Passwd{"u@d", NewSecret(scramText + scramKeys + ",$5$s$h"), 1, 2, "a:b", "/h", "q", true}},
	{"SCRAM with them and four in gecos", "u@d:" + scramText + scramKeys + ",x:1:2:a:b:c:d:e:/h:q:1",
		Passwd{"u@d", NewSecret(scramText + scramKeys + ",x"), 1, 2, "a:b:c:d:e", "/h", "q", true}},
	{"SCRAM without", "u@d:" + scramText + ",$5$s$h:1:2:g:/h:q:0",
		Passwd{"u@d", NewSecret(scramText + ",$5$s$h"), 1, 2, "g", "/h", "q", false}},
	{"SCRAM without and a colon in gecos", "u@d:" + scramText + ",x:1:2:a:b:/h:q:0",
		Passwd{"u@d", NewSecret(scramText + ",x"), 1, 2, "a:b", "/h", "q", false}},
	{"SCRAM-SHA-1", "u@d:{SCRAM-SHA-1}1,s,s,s:a:b,x:1:2:g:/h:q:0",
		Passwd{"u@d", NewSecret("{SCRAM-SHA-1}1,s,s,s:a:b,x"), 1, 2, "g", "/h", "q", false}},
	{"a scheme that is not SCRAM", "u@d:{CRAM}x:1:2:a:b:c:/h:q:0",
		Passwd{"u@d", NewSecret("{CRAM}x"), 1, 2, "a:b:c", "/h", "q", false}},
	{"no fields", "", Passwd{}},
	{"all empty", ":::::::", Passwd{}},
	{"seven fields", "u@d:p:1:2:g:/h:0", Passwd{}},
	{"SCRAM and nine fields but no ids", "u@d:{SCRAM-SHA-256}a:b:c,x:1:2:g:/h:q", Passwd{}},
	{"uid no number", "u@d:p:x:2:g:/h:q:0", Passwd{}},
	{"gid no number", "u@d:p:1:x:g:/h:q:0", Passwd{}},
	{"uid too large", "u@d:p:99999999999999999999:2:g:/h:q:0", Passwd{}},
	{"inactive 2", "u@d:p:1:2:g:/h:q:2", Passwd{}},
	{"inactive empty", "u@d:p:1:2:g:/h:q:", Passwd{}},
	{"inactive 01", "u@d:p:1:2:g:/h:q:01", Passwd{}},
}

func TestPasswd(t *testing.T) {
	for _, c := range entryCases {
		got, err := NewData(TypePasswd, "PWSTRUCT="+c.entry).Passwd()
		wantError := reflect.DeepEqual(c.want, Passwd{})
		if !reflect.DeepEqual(got, c.want) || (err != nil) != wantError || wantError && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %#v with hash %q, %v", c.name, got, got.Passwd.Reveal(), err)
		}
		if err != nil && c.entry != "" && strings.Contains(err.Error(), c.entry) {
			t.Errorf("%s: the error holds the entry: %v", c.name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	b := make([]byte, 128) // the values 101, 102, ... in the order of the C struct
	for i := range 11 {
		binary.NativeEndian.PutUint64(b[i*8:], uint64(101+i))
	}
	for i := range 17 {
		binary.NativeEndian.PutUint16(b[88+i*2:], uint16(112+i))
	}
	want := Limits{
		DomainExpiry: 101, PasswdExpiry: 102, MaxPopAccounts: 103, MaxAliases: 104,
		MaxForwards: 105, MaxAutoresponders: 106, MaxMailinglists: 107, DiskQuota: 108,
		MaxMsgCount: 109, DefaultQuota: 110, DefaultMaxMsgCount: 111, DisablePop: 112,
		DisableIMAP: 113, DisableDialup: 114, DisablePasswordChanging: 115, DisableWebmail: 116,
		DisableRelay: 117, DisableSMTP: 118, PermAccount: 119, PermAlias: 120, PermForward: 121,
		PermAutoresponder: 122, PermMaillist: 123, PermMaillistUsers: 124,
		PermMaillistModerators: 125, PermQuota: 126, PermDefaultQuota: 127, LimitType: 128,
	}
	if binary.NativeEndian.Uint16(b[120:]) != 128 || !bytes.Equal(b[122:], make([]byte, 6)) {
		t.Fatal("the record by hand is wrong: limit_type is at offset 120, padding from 122")
	}
	record := WireAnswer(wireInt(128) + string(b))
	if got, err := record.Limits(); err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if got := NewLimits(want); !got.Equal(record) {
		t.Errorf("got  %x\nwant %x", got, record)
	}
	for i := range 128 { // the padding does not count; all other bytes do, all bits of them
		b[i] = 0xff
	}
	got, err := WireAnswer(wireInt(128) + string(b)).Limits()
	if err != nil || got.DomainExpiry != -1 || got.MaxMailinglists != -1 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got.DiskQuota != 1<<64-1 || got.DefaultMaxMsgCount != 1<<64-1 {
		t.Errorf("got %+v", got)
	}
	if got.DisablePop != -1 || got.LimitType != -1 {
		t.Errorf("got %+v", got)
	}
}

func TestReplyTooLong(t *testing.T) {
	for typ := TypeUser; typ <= TypeDomain; typ++ {
		longest := strings.Repeat("x", 4095)
		if a := NewData(typ, longest); a.Wire() != wireInt(4096)+longest+"\x00" {
			t.Errorf("%v: 4096 bytes of data do not fit: code %d", typ, a.Code())
		}
		if a := NewData(typ, longest+"x"); !a.Equal(NewAnswer(-1)) {
			t.Errorf("%v: 4097 bytes of data fit: code %d, %d bytes", typ, a.Code(), len(a.Wire()))
		}
	}
	for _, typ := range []Type{TypeStatus, TypeFlush, TypeExplain} {
		a := NewData(typ, strings.Repeat("x", 1<<20))
		text, err := a.Text()
		if err != nil || len(text) < 4096 || len(a.Wire()) > 65536 || strings.Trim(text, "x") != "" {
			t.Errorf("%v: a long text gives %d bytes, %v: must fit an empty pipe", typ, len(a.Wire()), err)
		}
	}
	if a := NewData(TypeAlias, ""); a.Wire() != wireInt(1)+"\x00" {
		t.Errorf("no data: %q", a)
	}
	for _, code := range []int{0, 1, -1, 1 << 30, -1 << 31} {
		a := NewAnswer(code)
		if a.Wire() != wireInt(code) || a.Code() != code || a.Data() != "" {
			t.Errorf("code %d: %q, %d, %q", code, a, a.Code(), a.Data())
		}
	}
	if a := WireAnswer(wireInt(3) + "a\x00\x00"); a.Data() != "a\x00" {
		t.Errorf("one closing NUL is the wire's, more are data: %q", a.Data())
	}
}

// A goldenLine is what a C client asked, and what the C server answered.
type goldenLine struct {
	key    string // type and address
	q      Query
	frame  []byte
	answer Answer
}

func golden(t testing.TB) (lines []goldenLine) {
	t.Helper()
	if wireInt(1)[0] != 1 {
		skip(t, "the golden bytes are those of a little-endian machine")
	}
	file, err := os.ReadFile("testdata/golden/wire.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(file)) {
		if line[0] == '#' {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		frame, err1 := hex.DecodeString(f[3])
		answer, err2 := hex.DecodeString(f[4])
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		q := Query{Type(f[0][0] - '0'), f[1], f[2]}
		lines = append(lines, goldenLine{f[0] + " " + f[1], q, frame, WireAnswer(string(answer))})
	}
	return lines
}

func goldenValues() map[string]any {
	shared := Limits{2000000000, -1, 100, 101, 102, 103, 104, 9000000000, 50000, 5000000, 1000,
		1, 0, 1, 0, 1, 0, 1, 1, 2, 3, 4, 3, 2, 1, 6, 7, 1}
	own := Limits{-1, 1900000000, 1, 2, 3, 4, 5, 600, 700, 800, 900,
		0, 1, 0, 1, 0, 1, 0, 7, 6, 5, 4, 3, 0, 0, 2, 1, 2}
	none := Limits{DomainExpiry: -1, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1,
		MaxForwards: -1, MaxAutoresponders: -1, MaxMailinglists: -1, LimitType: 1}
	entry := func(email, hash string, gid int, gecos, dir string, inactive bool) Passwd {
		return Passwd{email, NewSecret(hash), 1, gid, gecos, dir, "5000000S", inactive}
	}
	return map[string]any{
		"1 user@example.com":       StatusActive,
		"1 inactive@example.com":   StatusInactive,
		"1 over@example.com":       StatusOverQuota,
		"1 alias@example.com":      StatusAlias,
		"1 missing@example.com":    StatusAbsent,
		"1 duser@dist.example.net": StatusActive,
		"1 user@missing.example":   StatusAbsent,
		"2 user@example.com":       true,
		"3 user@example.com": entry("user@example.com", "$5$abcdefgh$UserHashUserHashUserHash",
			0, "Test User", "/home/mail/A2E/example.com/user", false),
		"3 inactive@example.com": entry("inactive@example.com", "$5$abcdefgh$InactiveHash",
			0, "Inactive User", "/home/mail/G2K/example.com/inactive", true),
		"3 over@example.com": entry("over@example.com", "$5$abcdefgh$OverHash",
			16, "Over Quota", "/home/mail/A2E/example.com/over", false),
		"3 duser@dist.example.net": entry("duser@dist.example.net", "$5$abcdefgh$DistHash",
			0, "Dist User", "/home/mail/A2E/dist.example.net/duser", false),
		"4 user@example.com":       "example.com:192.0.2.25:2525",
		"4 inactive@example.com":   "example.com:192.0.2.25:2525",
		"4 duser@dist.example.net": "dist.example.net:192.0.2.26:2526",
		"5 alias@example.com": []string{"&other@remote.example", "&user@example.com",
			"/home/mail/A2E/example.com/user/Maildir/"},
		"6 user@example.com":       shared,
		"6 inactive@example.com":   shared,
		"6 over@example.com":       own,
		"6 duser@dist.example.net": none,
		"6 example.com":            shared,
	}
}

// TestGolden decodes what the C server answered, and reads and writes what a C client asked.
func TestGolden(t *testing.T) {
	values := goldenValues()
	for _, g := range golden(t) {
		r, size := parseRequest(g.frame)
		want := found(request{g.q.Type, []byte(g.q.Email), r.replyPath, []byte(g.q.IP)})
		if size != len(g.frame) || found(r) != want {
			t.Errorf("%s: read as %d bytes, %s", g.key, size, found(r))
			continue
		}
		again, err := g.q.appendFrame(nil, string(r.replyPath))
		if err != nil || !bytes.Equal(again, g.frame) {
			t.Errorf("%s: written as %x, %v\nwant %x", g.key, again, err, g.frame)
		}
		got, err := decode(r.typ, g.answer)
		value, listed := values[g.key]
		delete(values, g.key)
		if listed && (err != nil || !reflect.DeepEqual(got, value)) {
			t.Errorf("%s: %+v, %v\nwant %+v", g.key, got, err, value)
		}
		if !listed && !isAbsentValue(g.q, got, err) {
			t.Errorf("%s: %+v, %v, want absent", g.key, got, err)
		}
		encoded := len(g.answer.Wire()) == headerSize || r.typ == TypeLimit ||
			NewData(r.typ, g.answer.Data()).Equal(g.answer)
		if !encoded {
			t.Errorf("%s: the data do not give the same reply again", g.key)
		}
	}
	if len(values) > 0 {
		t.Errorf("not in the file: %v", values)
	}
}

// isAbsentValue reports whether a typed answer says that there is no such thing.
func isAbsentValue(q Query, got any, err error) bool {
	switch q.Type {
	case TypeRelay:
		return err == nil && got == false
	case TypeDomain:
		return err == nil && got == q.Email
	case TypeAlias:
		return err == nil && len(got.([]string)) == 0
	}
	return errors.Is(err, ErrNotFound)
}

func FuzzPasswd(f *testing.F) {
	f.Add("u@d:p:1:2:g:/h:q:0", "user@example.com", "$5$s$h", 1, 2, "Test User", "/home/mail",
		"5000000S", byte(0))
	f.Add("No such user u@d", "u@d", "4096,s,s,s", -1, math.MaxInt32, "a:b:c", "", "", byte(1))
	f.Add("u@d:{SCRAM-SHA-256}1,s,s,s:a:b,p:1:2:g:/h:q:1", "", "{CRAM}", 0, 0, "::", "",
		"NOQUOTA", byte(6))
	f.Fuzz(func(t *testing.T, raw, email, passwd string, uid, gid int, gecos, dir, shell string,
		flags byte) {
		NewData(TypePasswd, "PWSTRUCT="+raw).Passwd() // does not panic
		NewData(TypePasswd, raw).Passwd()

		plain := strings.NewReplacer(":", "", "\x00", "").Replace
		want := Passwd{plain(email), NewSecret(plain(passwd)), uid, gid, strings.ReplaceAll(gecos, "\x00", ""),
			plain(dir), plain(shell), flags&1 > 0}
		if strings.HasPrefix(want.Email, "No such user ") ||
			strings.HasPrefix(want.Passwd.Reveal(), "{SCRAM-SHA-") {
			t.Skip()
		}
		switch flags >> 1 % 3 {
		case 1:
			const hexSalted = "0a" // more digits in earnest: never a number
			want.Passwd = NewSecret("{SCRAM-SHA-256}4096,s,s,s:" + hexSalted + ":" + plain(raw) + "," +
				plain(passwd))
		case 2:
			want.Passwd = NewSecret("{SCRAM-SHA-512}4096,s,s,s," + plain(passwd))
		}
		entry := NewPasswd(want)
		got, err := entry.Passwd()
		text := fmt.Sprint(want.Email, want.Passwd.Reveal(), uid, ":", gid, want.Gecos, want.Dir, want.Shell)
		if len(text) > 4095-9-7 || !isID(uid) || !isID(gid) {
			if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%d, %d, and %d bytes in the fields: %v", uid, gid, len(text), err)
			}
		} else if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v, %v\nwant %+v", entry, got, err, want)
		}
	})
}

// FuzzReply takes any bytes for an answer to each type.
func FuzzReply(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(NewAnswer(-1).Wire()))
	f.Add([]byte(NewData(TypePasswd, "PWSTRUCT=u@d:p:1:2:g:/h:q:0").Wire()))
	f.Add([]byte(NewData(TypeAlias, "&a\n&b\n").Wire()))
	f.Add([]byte(wireInt(128) + strings.Repeat("\x01", 128)))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := WireAnswer(string(b))
		_ = a.Data()
		for typ, none := range noValues {
			got, err := decode(typ, a)
			if err == nil {
				checkDecoded(t, typ, a, got)
				continue
			}
			if !reflect.DeepEqual(got, none) {
				t.Errorf("%v %q: %v beside %v", typ, b, got, err)
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) &&
				!errors.Is(err, ErrNotFound) {
				t.Errorf("%v %q: %v", typ, b, err)
			}
		}
	})
}

// checkDecoded compares a typed value with the bytes it was made of.
func checkDecoded(t *testing.T, typ Type, a Answer, got any) {
	t.Helper()
	ok := false
	switch v := got.(type) {
	case Status:
		ok = int(v) == a.Code() && v >= StatusActive && v <= StatusAlias
	case bool:
		ok = v == (a.Code() == 1)
	case Passwd:
		ok = strings.Contains(a.Data(), v.Passwd.Reveal()) && strings.Contains(a.Data(), v.Gecos)
	case string:
		ok = a.Code() == len(a.Wire())-headerSize
		if len(v) < maxReply {
			ok = ok && (NewData(typ, v).Equal(a) || !strings.HasSuffix(a.Wire(), "\x00"))
		}
	case []string:
		ok = len(v) <= strings.Count(a.Data(), "\n")+1
	case Limits:
		again, err := binary.Append(nil, binary.NativeEndian, v)
		ok = err == nil && string(again[:122]) == string(a.Wire()[4:126])
	}
	if !ok {
		t.Errorf("%v %q: %+v", typ, a.Wire(), got)
	}
}
