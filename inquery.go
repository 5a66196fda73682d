package inlookup

// Questions and answers: what they are, how they look on the wire, the typed
// values that a Go program wants, and the client that asks a server.
//
// An answer is kept as it travels. The cache holds the bytes that go into the
// pipe, so a hit costs no encoding, and only the client decodes.
//
// The frames. Integers are C ints in the machine's own byte order:
//
//	request   len:4  type:1  0:1  email NUL  reply FIFO NUL  ip NUL
//	          len counts what follows it. A request is one write(2) of at most
//	          PIPE_BUF bytes, so requests of different clients never mix (pipe(7)).
//	reply     code:4  [code bytes of data, the last one NUL]
//	          Data only for types 3 and up, and only if code > 0.

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// Every error that a Directory returns wraps at least one of these. Only the
// first says that there is no such address.
var (
	ErrNotFound    = errors.New("no such address")    // that is certain
	ErrUnavailable = errors.New("lookup unavailable") // now; ask again later
	ErrTooLong     = errors.New("message too long")   // for a frame
	ErrInvalid     = errors.New("invalid message")    // question, answer or row
)

// A Type says what is asked. Types 1 to 7 are those of the C programs.
type Type byte

const (
	TypeUser   Type = 1 + iota // can mail be delivered: a Status
	TypeRelay                  // has IP logged in as Email lately: yes or no
	TypePasswd                 // the password entry
	TypeHost                   // the SMTP route, domain:host:port
	TypeAlias                  // the alias lines, each with its newline
	TypeLimit                  // the limits of the address or the domain
	TypeDomain                 // the real domain behind an alias domain

	TypeStatus  Type = 'S' // counters of the server, as text
	TypeFlush   Type = 'F' // forget an address, a domain, or everything; see Cache.Flush
	TypeExplain Type = 'X' // where the answer to the type in IP, "1" to "7", would come from
)

// typeNames are for people. IndiMail's graphs parse those of types 1 to 7.
var typeNames = map[Type]string{
	TypeUser:    "User Query",
	TypeRelay:   "Relay Query",
	TypePasswd:  "Password Query",
	TypeHost:    "Host Query",
	TypeAlias:   "Alias Query",
	TypeLimit:   "Domain Limits Query",
	TypeDomain:  "Domain Query",
	TypeStatus:  "Status Query",
	TypeFlush:   "Flush Query",
	TypeExplain: "Explain Query",
}

func (t Type) String() string {
	return cmp.Or(typeNames[t], "query of unknown type "+strconv.Itoa(int(t)))
}

// extension reports whether t asks about the server itself.
func (t Type) extension() bool {
	return t == TypeStatus || t == TypeFlush || t == TypeExplain
}

func (t Type) known() bool { return t >= TypeUser && t <= TypeDomain || t.extension() }

// Sizes on the wire, in bytes.
const (
	headerSize = 4
	maxRequest = 4096     // PIPE_BUF of Linux, header included
	maxReply   = 4096     // data of a reply to types 3 to 7
	maxText    = 60 << 10 // data of a reply to an extension; fits an empty pipe
	limitsSize = 128      // data of a reply to TypeLimit

	typeAt    = headerSize     // offset of the type
	zeroAt    = headerSize + 1 // of the 0 behind it
	stringsAt = headerSize + 2 // of the strings
	minRest   = 5              // type, 0 and three NULs
)

// A Query is one question. Case does not matter in Email: answers have it in
// lower case.
type Query struct {
	Type  Type
	Email string // local@domain, or as Split has it
	IP    string // TypeRelay: the IP address; TypeExplain: the type; else empty
}

// Split returns the two halves of Email in lower case. The last @ separates
// them, else the last % or colon; without a separator the domain is
// defaultDomain. TypeDomain, and TypeLimit without a separator, ask about a
// domain: local is then empty.
func (q Query) Split(defaultDomain string) (local, domain string) {
	email := lower(q.Email)
	if aboutDomain(q.Type, []byte(email)) {
		return "", email
	}
	if i := separator([]byte(email)); i >= 0 {
		return email[:i], email[i+1:]
	}
	return email, lower(defaultDomain)
}

// aboutDomain reports whether email is a domain in a question of type t.
func aboutDomain(t Type, email []byte) bool {
	return t == TypeDomain || t == TypeLimit && separator(email) < 0
}

// separator returns the index of what separates local part and domain, or -1. A
// local part in quotes may hold an @ itself, so the last one counts.
func separator(email []byte) int {
	if i := bytes.LastIndexByte(email, '@'); i >= 0 {
		return i
	}
	return bytes.LastIndexAny(email, "%:")
}

func lower(s string) string { return string(appendLower(nil, s)) }

// appendLower appends s in lower case. Bytes that are not UTF-8 stay as they
// are, so the halves of an address become what they are in the whole.
func appendLower[S string | []byte](b []byte, s S) []byte {
	b = slices.Grow(b, len(s))
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if r == utf8.RuneError {
			b = append(b, s[i:i+size]...)
		} else {
			b = utf8.AppendRune(b, unicode.ToLower(r))
		}
		i += size
	}
	return b
}

// appendFrame appends the request frame that asks for an answer at reply.
func (q Query) appendFrame(b []byte, reply string) ([]byte, error) {
	if !q.Type.known() {
		return b, fmt.Errorf("%w: no server knows this type", ErrInvalid)
	}
	if strings.Contains(q.Email+q.IP, "\x00") {
		return b, fmt.Errorf("%w: a NUL in %.100q or %.100q", ErrInvalid, q.Email, q.IP)
	}
	if q.Type == TypeRelay && q.IP == "" {
		return b, fmt.Errorf("%w: no IP address", ErrInvalid)
	}
	body := string([]byte{byte(q.Type), 0}) + q.Email + "\x00" + reply + "\x00" + q.IP + "\x00"
	size := headerSize + len(body)
	if size > maxRequest {
		return b, fmt.Errorf("%w: a request of %d bytes, at most %d", ErrTooLong, size, maxRequest)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...), nil
}

// A request is a frame taken apart. Its slices lie in the reader's buffer.
type request struct {
	typ       Type
	email     []byte
	replyPath []byte // of the reply FIFO
	ip        []byte
}

func (r request) query() Query {
	return Query{Type: r.typ, Email: lower(string(r.email)), IP: string(r.ip)}
}

// What parseRequest returns instead of a size.
const (
	noFrame  = 0
	cutFrame = -1 // b ends before this can be decided
)

// parseRequest takes apart the frame at the beginning of b. It returns the size
// of the frame, noFrame or cutFrame.
func parseRequest(b []byte) (r request, size int) {
	if len(b) < headerSize {
		return r, cutFrame
	}
	rest := binary.NativeEndian.Uint32(b)
	if rest < minRest || rest > maxRequest-headerSize {
		return r, noFrame
	}
	wrongType := len(b) > typeAt && !Type(b[typeAt]).known()
	wrongZero := len(b) > zeroAt && b[zeroAt] != 0
	if wrongType || wrongZero {
		return r, noFrame
	}
	size = headerSize + int(rest)
	if len(b) < size {
		return r, cutFrame
	}
	text := b[stringsAt:size]
	if bytes.Count(text, nul) != 3 || text[len(text)-1] != 0 {
		return r, noFrame
	}
	email, text, _ := bytes.Cut(text, nul)
	replyPath, text, _ := bytes.Cut(text, nul)
	ip, _, _ := bytes.Cut(text, nul)
	return request{typ: Type(b[typeAt]), email: email, replyPath: replyPath, ip: ip}, size
}

var nul = []byte{0}

// A Secret is a text that must not be shown: a password hash, or an Answer,
// which may hold one. fmt and log show an address or "(secret)" instead,
// encoding/json shows {}, even inside structs of other packages. JSON does not
// bring one back. Printers that follow pointers do show the text.
//
// Secrets, and so Answer and Passwd, cannot be compared with ==. Compare what
// Reveal, Wire or Equal say.
type Secret struct {
	_    [0]func() // forbids ==, which would compare pointers
	text *string   // nil: empty
}

// NewSecret returns the Secret with that text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// String returns "(secret)", or nothing if the text is empty.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return "(secret)"
}

// An Answer is a reply as it travels: the code, and the data if it has any. The
// zero Answer is none.
type Answer struct{ wire Secret }

// WireAnswer returns the answer that travels as these bytes.
func WireAnswer(wire string) Answer { return Answer{NewSecret(wire)} }

// Wire returns the bytes of the answer as they travel.
func (a Answer) Wire() string { return a.wire.Reveal() }

// Equal reports whether two answers are the same bytes.
func (a Answer) Equal(b Answer) bool { return a.Wire() == b.Wire() }

func (a Answer) isZero() bool { return a.Wire() == "" }

// String returns a description without the data.
func (a Answer) String() string {
	return fmt.Sprintf("code %d, %d bytes", a.Code(), len(a.Wire()))
}

// NewAnswer returns the answer with that code and no data. The code is a Status
// for TypeUser, and 1 or 0 for TypeRelay. One that is no int32 becomes -1.
func NewAnswer(code int) Answer {
	if code != int(int32(code)) {
		code = -1
	}
	return WireAnswer(string(binary.NativeEndian.AppendUint32(nil, uint32(int32(code)))))
}

// NewData returns the answer with that data and a closing NUL. Data that is too
// long for a reply to type t becomes code -1, as with the C programs. The text
// of an extension is cut off.
func NewData(t Type, data string) Answer {
	if t.extension() {
		data = data[:min(len(data), maxText-1)]
	} else if len(data) >= maxReply {
		return NewAnswer(-1)
	}
	return WireAnswer(NewAnswer(len(data)+1).Wire() + data + "\x00")
}

// errorAnswer returns the answer that says "error" to a client that asked for
// type t.
func errorAnswer(t Type) Answer {
	if t == TypePasswd {
		return NewAnswer(0)
	}
	return NewAnswer(-1)
}

// isError reports whether a says "error" to a client that asked for type t. Code
// 0 does, except for the types where it is a value or says "absent".
func (a Answer) isError(t Type) bool {
	zeroIsAnswer := t < TypePasswd || t == TypeHost || t == TypeLimit
	return a.Code() < 0 || a.Code() == 0 && !zeroIsAnswer
}

// answers reports whether a says anything but "error" to a client that asked for
// type t, and has all data that its code announces. The client waits for them.
func (a Answer) answers(t Type) bool {
	size := dataSize(t, a.Code())
	isWhole := size <= maxData(t) && len(a.Wire()) >= headerSize+size
	return isWhole && !a.isError(t)
}

// dataSize returns how many bytes of data follow this code in a reply to type t.
func dataSize(t Type, code int) int {
	if t < TypePasswd {
		return 0
	}
	return max(0, code)
}

// maxData returns how many bytes of data a reply to type t may have.
func maxData(t Type) int {
	if t.extension() {
		return maxText
	}
	return maxReply
}

// Code returns the code, or -1 if a is shorter than one.
func (a Answer) Code() int {
	wire := a.Wire()
	if len(wire) < headerSize {
		return -1
	}
	return int(int32(binary.NativeEndian.Uint32([]byte(wire[:headerSize]))))
}

// Data returns the data without its closing NUL.
func (a Answer) Data() string {
	wire := a.Wire()
	return strings.TrimSuffix(wire[min(len(wire), headerSize):], "\x00")
}

// Absent returns the answer to q which says that there is no such thing. For
// TypeDomain it says that no other domain is behind this one. A Cache keeps
// those to TypeUser, TypePasswd and TypeHost for a shorter time.
func Absent(q Query) Answer {
	switch q.Type {
	case TypeUser:
		return NewAnswer(int(StatusAbsent))
	case TypePasswd:
		return NewData(q.Type, noSuchUser+lower(q.Email))
	case TypeAlias:
		return NewData(q.Type, "")
	case TypeDomain:
		return NewData(q.Type, lower(q.Email))
	}
	return NewAnswer(0)
}

// noValue returns the error for an answer that has no value of its type.
func (a Answer) noValue() error {
	code := a.Code()
	size := len(a.Wire())
	if code > 0 || size > headerSize {
		return fmt.Errorf("%w: a reply of %d bytes with code %d", ErrInvalid, size, code)
	}
	if code == 0 {
		return ErrNotFound
	}
	return ErrUnavailable
}

// A Status says whether mail for an address can be delivered.
type Status int

const (
	StatusUnknown Status = iota - 1 // returned with an error
	StatusActive
	StatusAbsent
	StatusInactive
	StatusOverQuota
	StatusAlias
)

var statusNames = []string{"active", "absent", "inactive", "over quota", "alias"}

func (s Status) String() string {
	if s < StatusActive || s > StatusAlias {
		return "unknown"
	}
	return statusNames[s]
}

// Status decodes an answer to TypeUser. With an error it is StatusUnknown.
func (a Answer) Status() (Status, error) {
	s := Status(a.Code())
	if s < StatusActive || s > StatusAlias {
		return StatusUnknown, a.noValue()
	}
	return s, nil
}

// Relay decodes an answer to TypeRelay.
func (a Answer) Relay() (bool, error) {
	code := a.Code()
	if code != 0 && code != 1 {
		return false, a.noValue()
	}
	return code == 1, nil
}

// A Passwd is a user's password entry. Its field Passwd is a password hash.
// SCRAM keys and a comma may come before it. The keys may lack the two parts that
// begin with a colon:
//
//	{SCRAM-SHA-256}iterations,salt,stored,server:hexsalted:salted,hash
type Passwd struct {
	Email             string // name@domain, the domain as it was asked for
	Passwd            Secret
	UID, GID          int
	Gecos, Dir, Shell string
	Inactive          bool // the row is in the table of inactive users
}

// String returns the entry without its hash.
func (p Passwd) String() string {
	return fmt.Sprintf("%s uid=%d gid=%d gecos=%q dir=%q shell=%q inactive=%t",
		p.Email, p.UID, p.GID, p.Gecos, p.Dir, p.Shell, p.Inactive)
}

const (
	pwStruct    = "PWSTRUCT="
	noSuchUser  = pwStruct + "No such user "
	scramScheme = "{SCRAM-SHA-"
)

// The fields of PWSTRUCT=name@domain:passwd:uid:gid:gecos:dir:shell:inactive.
const (
	fieldEmail = iota
	fieldPasswd
	fieldUID
	fieldGID
	fieldGecos
	fieldDir
	fieldShell
	fieldInactive
	passwdFields
)

// NewPasswd returns the answer with that entry. Only Gecos and a SCRAM password
// may hold a colon, and nothing a NUL. UID and GID are in the range of uint32.
// Any other entry, which might be read as another, becomes the answer that says
// "error".
func NewPasswd(p Passwd) Answer {
	if !isID(p.UID) || !isID(p.GID) {
		return errorAnswer(TypePasswd)
	}
	a, _ := newPasswd(p.Inactive, p.Email, p.Passwd.Reveal(), strconv.Itoa(p.UID),
		strconv.Itoa(p.GID), p.Gecos, p.Dir, p.Shell)
	return a
}

func isID(n int) bool { return int64(n) == int64(uint32(n)) }

// newPasswd is NewPasswd for fields that are texts, except the last, inactive.
func newPasswd(inactive bool, fields ...string) (Answer, error) {
	if inactive {
		fields = append(fields, "1")
	} else {
		fields = append(fields, "0")
	}
	text := strings.Join(fields, ":")
	data := pwStruct + text
	readAsOther := !slices.Equal(splitPasswd(text), fields) || strings.HasPrefix(data, noSuchUser)
	if readAsOther || strings.Contains(text, "\x00") {
		return errorAnswer(TypePasswd),
			fmt.Errorf("%w: a colon or a NUL in a field of the entry", ErrInvalid)
	}
	return NewData(TypePasswd, data), nil
}

// Passwd decodes an answer to TypePasswd.
func (a Answer) Passwd() (Passwd, error) {
	if a.isError(TypePasswd) {
		return Passwd{}, ErrUnavailable
	}
	if strings.HasPrefix(a.Data(), noSuchUser) {
		return Passwd{}, ErrNotFound
	}
	text, ok := strings.CutPrefix(a.Data(), pwStruct)
	f := splitPasswd(text)
	if !ok || len(f) != passwdFields {
		return Passwd{}, a.noValue()
	}
	uid, err1 := number(f[fieldUID])
	gid, err2 := number(f[fieldGID])
	known := slices.Contains([]string{"0", "1"}, f[fieldInactive])
	if err1 != nil || err2 != nil || !known {
		return Passwd{}, a.noValue()
	}
	return Passwd{
		Email:    f[fieldEmail],
		Passwd:   NewSecret(f[fieldPasswd]),
		UID:      uid,
		GID:      gid,
		Gecos:    f[fieldGecos],
		Dir:      f[fieldDir],
		Shell:    f[fieldShell],
		Inactive: f[fieldInactive] == "1",
	}, nil
}

// splitPasswd splits an entry at its colons. If there are too many, two of them
// may belong to a SCRAM password: then what follows the first is no number. The
// rest belong to the gecos field, the only one in which people write.
func splitPasswd(text string) []string {
	fields := strings.Split(text, ":")
	join := func(i, n int) { // field i and the n behind it
		joined := strings.Join(fields[i:i+n+1], ":")
		fields = slices.Replace(fields, i, i+n+1, joined)
	}
	extra := len(fields) - passwdFields
	if extra >= 2 && strings.HasPrefix(fields[fieldPasswd], scramScheme) {
		if _, err := number(fields[fieldUID]); err != nil {
			join(fieldPasswd, 2)
			extra -= 2
		}
	}
	if extra > 0 {
		join(fieldGecos, extra)
	}
	return fields
}

// number reads an integer. An empty field, which stands for NULL, is 0.
func number(field string) (int, error) { return strconv.Atoi(cmp.Or(field, "0")) }

// Text decodes an answer to TypeHost, "domain:host:port", to TypeDomain, or to
// an extension.
func (a Answer) Text() (string, error) {
	code := a.Code()
	if code < 1 || len(a.Wire()) != headerSize+code {
		return "", a.noValue()
	}
	return a.Data(), nil
}

// Alias decodes an answer to TypeAlias: the lines, none if there are none.
func (a Answer) Alias() ([]string, error) {
	text, err := a.Text()
	if text == "" || err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n"), nil
}

// Limits is the record that answers TypeLimit, with the fields of the C struct
// on a 64-bit machine. Expiries are in Unix seconds, DiskQuota and DefaultQuota
// in bytes. "No limit" is -1, or 0 for a quota. The bits of a Perm field deny:
// 1 creating, 2 modifying, 4 deleting.
type Limits struct {
	DomainExpiry, PasswdExpiry                int64
	MaxPopAccounts, MaxAliases, MaxForwards   int64
	MaxAutoresponders, MaxMailinglists        int64
	DiskQuota, MaxMsgCount                    uint64
	DefaultQuota, DefaultMaxMsgCount          uint64
	DisablePop, DisableIMAP, DisableDialup    int16
	DisablePasswordChanging, DisableWebmail   int16
	DisableRelay, DisableSMTP                 int16
	PermAccount, PermAlias, PermForward       int16
	PermAutoresponder, PermMaillist           int16
	PermMaillistUsers, PermMaillistModerators int16
	PermQuota, PermDefaultQuota               int16
	LimitType                                 int16 // LimitsOfDomain or LimitsOfUser
}

const (
	LimitsOfDomain = 1 // the domain's record, or the defaults
	LimitsOfUser   = 2 // a record of the address itself
)

// NewLimits returns the answer with that record.
func NewLimits(l Limits) Answer {
	b := make([]byte, limitsSize)            // with the padding of the C struct
	binary.Encode(b, binary.NativeEndian, l) // no error: it fits
	return WireAnswer(NewAnswer(limitsSize).Wire() + string(b))
}

// Limits decodes an answer to TypeLimit.
func (a Answer) Limits() (Limits, error) {
	var l Limits
	wire := a.Wire()
	if a.Code() != limitsSize || len(wire) != headerSize+limitsSize {
		return l, a.noValue()
	}
	_, err := binary.Decode([]byte(wire[headerSize:]), binary.NativeEndian, &l)
	return l, err
}

// A Directory asks any Resolver the seven questions, and decodes the answers.
//
// An absent address is ErrNotFound, except for Status, Relay, Alias and Domain,
// which have a value for it. Every other error wraps ErrUnavailable, ErrInvalid
// or ErrTooLong, and does not mean "no such user". Goroutines may share a
// Directory.
type Directory struct{ Resolver Resolver }

// ask asks q and decodes the answer.
func ask[T any](ctx context.Context, d Directory, q Query, decode func(Answer) (T, error),
) (T, error) {
	q.Email = lower(q.Email)
	a, err := askResolver(ctx, d.Resolver, q)
	if err != nil {
		none, _ := decode(Answer{}) // a Status is then StatusUnknown, not 0
		return none, unavailable(err)
	}
	return decode(a)
}

// unavailable returns err if it wraps an error of this package, else an
// ErrUnavailable that wraps it.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTooLong) || errors.Is(err, ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Status tells whether mail for email can be delivered. With an error it is
// StatusUnknown.
func (d Directory) Status(ctx context.Context, email string) (Status, error) {
	return ask(ctx, d, Query{Type: TypeUser, Email: email}, Answer.Status)
}

// Relay tells whether email has logged in from ip lately.
func (d Directory) Relay(ctx context.Context, email, ip string) (bool, error) {
	return ask(ctx, d, Query{Type: TypeRelay, Email: email, IP: ip}, Answer.Relay)
}

// Passwd returns the password entry of email. If the answer is the entry of
// another address it is ErrInvalid, and lets nobody in.
func (d Directory) Passwd(ctx context.Context, email string) (Passwd, error) {
	q := Query{Type: TypePasswd, Email: email}
	p, err := ask(ctx, d, q, Answer.Passwd)
	if err != nil {
		return p, err
	}
	local, domain := q.Split("")
	gotLocal, gotDomain := Query{Email: p.Email}.Split("")
	sameDomain := domain == "" || gotDomain == domain // only the server knows the default domain
	if gotLocal != local || !sameDomain {
		return Passwd{}, fmt.Errorf("%w: an entry of %.100q, not of %.100q",
			ErrInvalid, p.Email, email)
	}
	return p, nil
}

// Host returns the SMTP route of email, "domain:host:port".
func (d Directory) Host(ctx context.Context, email string) (string, error) {
	return ask(ctx, d, Query{Type: TypeHost, Email: email}, Answer.Text)
}

// Alias returns the alias lines of email in order, none if it is no alias.
func (d Directory) Alias(ctx context.Context, email string) ([]string, error) {
	return ask(ctx, d, Query{Type: TypeAlias, Email: email}, Answer.Alias)
}

// Limits returns the limits of an address or, without a separator, of a domain.
func (d Directory) Limits(ctx context.Context, email string) (Limits, error) {
	return ask(ctx, d, Query{Type: TypeLimit, Email: email}, Answer.Limits)
}

// Domain returns the real domain behind an alias domain, else domain itself.
func (d Directory) Domain(ctx context.Context, domain string) (string, error) {
	return ask(ctx, d, Query{Type: TypeDomain, Email: domain}, Answer.Text)
}

// A Client asks a running server, the Go or the C one, over FIFOs. Goroutines
// may share it. The zero Client goes by the environment. Under tcpclient(1),
// which sets TCPCLIENT and TCPREMOTEIP, it asks one question over descriptors 6
// and 7.
//
// For each question it makes a reply FIFO, and removes it, in FIFOTMPDIR, else
// REPLYDIR, else /tmp. A server with a REPLYDIR answers only there. It must have
// the right to write into the FIFO: by its group, if the mode is the usual 0660,
// or as root. Else no answer comes, and the server's log says why. A directory
// with g+s gives its group to the FIFO. Nobody can guess the name. But anyone who
// can list the directory and ask the server can have an answer sent to it. A
// directory that only server and client can search prevents that.
type Client struct {
	Infifo  string              // the request FIFO, as in RequestFIFOs
	Timeout time.Duration       // for one question; 0: control file timeoutread, else 4 s
	Getenv  func(string) string // nil: os.Getenv
}

// Resolve asks the server. The error wraps ErrUnavailable if nobody listens, if
// the server says so, or if no answer comes within Timeout or before ctx is
// done. It wraps ErrTooLong or ErrInvalid if the question cannot be sent or the
// answer cannot be read. What does not exist is an answer, see Absent. A
// Directory that holds the Client decodes answers.
func (c *Client) Resolve(ctx context.Context, q Query) (Answer, error) {
	if err := ended(ctx); err != nil {
		return Answer{}, err
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = environ{c.Getenv}.timeout()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	a, err := c.ask(ctx, q)
	if err == nil && a.isError(q.Type) {
		err = errors.New("the server answers with an error")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // receive's way to say that ctx is done
		err = fmt.Errorf("no answer: %w", ctx.Err())
	}
	if err != nil {
		return Answer{}, fmt.Errorf("%v: %w", q.Type, unavailable(err))
	}
	return a, nil
}

// Status returns the server's counters, in the text format of Prometheus. The C
// server does not answer Status, Flush and Explain. What is said here of the
// three, inlookup(8) does. The Admin of another Server says what it likes.
func (c *Client) Status(ctx context.Context) (string, error) {
	return ask(ctx, Directory{c}, Query{Type: TypeStatus}, Answer.Text)
}

// Flush has the server forget what it knows about email, as Cache.Flush does; an
// empty email flushes everything. It returns what the server says, for people.
func (c *Client) Flush(ctx context.Context, email string) (string, error) {
	return ask(ctx, Directory{c}, Query{Type: TypeFlush, Email: email}, Answer.Text)
}

// Explain returns a text that says where the answer to a question of type t
// about email would come from.
func (c *Client) Explain(ctx context.Context, t Type, email string) (string, error) {
	q := Query{Type: TypeExplain, Email: email, IP: strconv.Itoa(int(t))}
	return ask(ctx, Directory{c}, q, Answer.Text)
}

func (c *Client) ask(ctx context.Context, q Query) (Answer, error) {
	e := environ{c.Getenv}
	if e.get("TCPCLIENT", "") != "" && e.get("TCPREMOTEIP", "") != "" {
		return askTCP(ctx, q)
	}
	dir := e.get("FIFOTMPDIR", e.get("REPLYDIR", "/tmp"))
	if !filepath.IsAbs(dir) { // the server may have another directory
		return Answer{}, fmt.Errorf("FIFOTMPDIR: want an absolute path, not %q", dir)
	}
	mode, err := e.fifoMode()
	if err != nil {
		return Answer{}, err
	}
	in, err := makeReplyFIFO(dir, mode)
	if err != nil {
		return Answer{}, err
	}
	defer os.Remove(in.Name())
	defer in.Close()
	frame, err := q.appendFrame(nil, in.Name())
	if err != nil {
		return Answer{}, err
	}
	if err := c.send(ctx, frame); err != nil {
		return Answer{}, err
	}
	return receive(ctx, in, q.Type)
}

// tcpUsed tells that this process has asked over tcpclient's descriptors. They
// are closed, and may be other files now.
var tcpUsed atomic.Bool

// askTCP asks over the connection that tcpclient left open. The server closes
// it after one answer, so there is one question.
func askTCP(ctx context.Context, q Query) (Answer, error) {
	frame, err := q.appendFrame(nil, "socket")
	if err != nil {
		return Answer{}, err
	}
	if !tcpUsed.CompareAndSwap(false, true) {
		return Answer{}, errors.New("tcpclient's connection is for one question")
	}
	if !isInherited(6) || !isInherited(7) {
		return Answer{}, errors.New("descriptors 6 and 7 are not those of tcpclient")
	}
	syscall.SetNonblock(6, true) // so that reading can have a deadline
	in := os.NewFile(6, "descriptor 6")
	defer in.Close()
	out := os.NewFile(7, "descriptor 7")
	defer out.Close()
	if _, err := out.Write(frame); err != nil {
		return Answer{}, err
	}
	return receive(ctx, in, q.Type)
}

// isInherited reports whether a descriptor was open when the program began. Files
// that Go opens are marked to be closed by exec. A child of a program that has
// asked still has the variables of tcpclient, and its 6 and 7 may be such files.
func isInherited(fd uintptr) bool {
	flags, _, err := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFD, 0)
	return err == 0 && flags&syscall.FD_CLOEXEC == 0
}

// send writes the request to one of the server's FIFOs. It tries them until one
// has a reader: the instances in any order, so that each has its share, and then
// the last path, which is NAME itself.
func (c *Client) send(ctx context.Context, frame []byte) error {
	paths := RequestFIFOs(c.Getenv, c.Infifo)
	instances := paths[:len(paths)-1]
	rand.Shuffle(len(instances), func(i, j int) {
		instances[i], instances[j] = instances[j], instances[i]
	})
	var first error
	for _, path := range paths {
		err := sendTo(ctx, path, frame)
		if err == nil {
			return nil
		}
		first = cmp.Or(first, err)
	}
	return first
}

// sendTo writes the request to one FIFO. While there is no room it sleeps a
// little. Waiting with poll(2) would not help: another client may be faster.
func sendTo(ctx context.Context, path string, frame []byte) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == syscall.ENXIO || err == syscall.ENOENT { // fifo(7): ENXIO, nobody reads it
		return &fs.PathError{Op: "no server reads", Path: path, Err: err}
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || !isFIFO(&st) {
		return fmt.Errorf("%s is no FIFO", path) // a file would take the request
	}
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		_, err := syscall.Write(fd, frame) // all or nothing: at most PIPE_BUF bytes
		if err != syscall.EAGAIN && err != syscall.EINTR {
			return os.NewSyscallError("write to "+path, err)
		}
		if ctx.Err() != nil {
			return &fs.PathError{Op: "find room in", Path: path, Err: ctx.Err()}
		}
		time.Sleep(wait)
	}
}

// receive reads the answer to a question of type t. When ctx is done it returns
// os.ErrDeadlineExceeded.
func receive(ctx context.Context, in *os.File, t Type) (Answer, error) {
	stop := context.AfterFunc(ctx, func() { in.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, headerSize+maxData(t))
	got, err := io.ReadAtLeast(in, b, headerSize)
	if err != nil {
		return Answer{}, err
	}
	size := headerSize + dataSize(t, WireAnswer(string(b[:headerSize])).Code())
	if size > len(b) {
		return Answer{}, fmt.Errorf("%w: a reply of %d bytes", ErrInvalid, size)
	}
	if got < size {
		_, err = io.ReadAtLeast(in, b[got:], size-got)
	}
	return WireAnswer(string(b[:size])), err
}
