package inlookup

// The asking side: what a question and an answer are, how they look on the wire, and Client, which asks a running
// server.
//
// An answer is kept as it travels. The server's cache then holds the very bytes that go into the pipe and a hit costs
// no encoding; only the asker, who alone knows which typed value it wants, decodes. Because one small interface,
// Resolver, stands for everyone who can answer, the same program text asks a server, asks MySQL itself, or keeps the
// cache inside the program.
//
// The frames, integers in the machine's own byte order:
//
//	request   len:4  type:1  0:1  email NUL  reply FIFO NUL  ip NUL
//	          └ counts what follows it; all of it in one write(2), so that
//	            requests of different askers never mix (pipe(7): PIPE_BUF)
//	reply     code:4  [code bytes of data, the last one NUL]
//	          └ data only for types 3 and up, and only when code > 0

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The errors of this package. All others name the operation and the file or host, and wrap one of these where one
// fits.
var (
	ErrNotFound    = errors.New("no such address")
	ErrUnavailable = errors.New("lookup unavailable")
	ErrTooLong     = errors.New("message too long")
	ErrInvalid     = errors.New("invalid message")
	ErrServed      = errors.New("another server holds this FIFO")
)

// A Resolver answers one query. Client (over FIFOs), MySQL (directly) and Cache (in front of another) are Resolvers;
// a Server serves any of them. Where the wire has a code for "error", Resolve returns an error that wraps
// ErrUnavailable, never an answer; what does not exist is an answer too, see Absent. Many goroutines may use it at once.
type Resolver interface {
	Resolve(ctx context.Context, q Query) (Answer, error)
}

// A Type says what is asked. Types 1 to 7 are those of the C programs.
type Type byte

const (
	TypeUser   Type = 1 + iota // may mail be delivered: a Status
	TypeRelay                  // has IP logged in as Email lately: yes or no
	TypePasswd                 // the password entry
	TypeHost                   // the SMTP route, domain:host:port
	TypeAlias                  // the alias lines
	TypeLimit                  // the limits of the address or the domain
	TypeDomain                 // the real domain behind an alias domain

	TypeStatus  Type = 'S' // counters of the server, as text
	TypeFlush   Type = 'F' // forget an address, a domain (no @), or all ("")
	TypeExplain Type = 'X' // where the answer to type IP ("1" to "7") would come from
)

// The names that debug lines carry and IndiMail's graphs parse.
var typeNames = map[Type]string{TypeUser: "User Query", TypeRelay: "Relay Query", TypePasswd: "Password Query", TypeHost: "Host Query",
	TypeAlias: "Alias Query", TypeLimit: "Domain Limits Query", TypeDomain: "Domain Query",
	TypeStatus: "Status Query", TypeFlush: "Flush Query", TypeExplain: "Explain Query"}

func (t Type) String() string { return or(typeNames[t], "query of unknown type "+strconv.Itoa(int(t))) }

// extension reports whether t is a question about the server itself, known whether there is such a type.
func (t Type) extension() bool { return t == TypeStatus || t == TypeFlush || t == TypeExplain }
func (t Type) known() bool     { return t >= TypeUser && t <= TypeDomain || t.extension() }

// Sizes on the wire, in bytes.
const (
	headerSize = 4
	maxRequest = 4096     // PIPE_BUF of Linux, the length word included
	maxReply   = 4096     // data of a reply to types 3 to 7
	maxText    = 60 << 10 // data of a reply to an extension: fits an empty pipe
	limitsSize = 128      // data of a reply to type 6
)

// A Query is one question. Case does not matter in Email: an answer repeats it in lower case.
type Query struct {
	Type  Type
	Email string // local@domain, where % or : may stand for @; bare: of DEFAULT_DOMAIN; TypeDomain and TypeLimit: or a domain
	IP    string // for TypeRelay the address asked about, else empty
}

// appendFrame appends the request frame that asks for an answer at reply.
func (q Query) appendFrame(b []byte, reply string) ([]byte, error) {
	n := 2 + len(q.Email) + len(reply) + len(q.IP) + 3
	switch {
	case !q.Type.known() || strings.Contains(q.Email+q.IP, "\x00") || q.Type == TypeRelay && q.IP == "":
		return b, fmt.Errorf("%w: a %v of %q, ip %q", ErrInvalid, q.Type, q.Email, q.IP)
	case headerSize+n > maxRequest:
		return b, fmt.Errorf("%w: a request of %d bytes, %d at most", ErrTooLong, headerSize+n, maxRequest)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(n))
	return append(b, string([]byte{byte(q.Type), 0})+q.Email+"\x00"+reply+"\x00"+q.IP+"\x00"...), nil
}

// split returns the two halves of the address in lower case, def standing in for a missing domain. A domain query,
// and a limits query without a separator, are about a domain: local is then empty.
func (q Query) split(def string) (local, domain string) {
	email := lower(q.Email)
	i := separator(email)
	switch {
	case q.Type == TypeDomain, q.Type == TypeLimit && i < 0:
		return "", email
	case i < 0:
		return email, def
	}
	return email[:i], email[i+1:]
}

// separator returns the index of what separates local part and domain, or -1: the last @ (a local part may hold one
// in quotes), else the last % or colon.
func separator(email string) int {
	if i := strings.LastIndexByte(email, '@'); i >= 0 {
		return i
	}
	return strings.LastIndexAny(email, "%:")
}

// lower returns s with A to Z in lower case and all other bytes as they are: strings.ToLower would also fold letters
// that MySQL and mail keep apart.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i]-'A' < 26 {
			return string(lowerBytes([]byte(s)))
		}
	}
	return s
}

func lowerBytes(b []byte) []byte {
	for i, c := range b {
		if c-'A' < 26 {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// An Answer is a reply as it travels: the code, and the data if it has any.
type Answer string

// NewAnswer returns the answer with that code and no data.
func NewAnswer(code int) Answer {
	return Answer(binary.NativeEndian.AppendUint32(nil, uint32(int32(code))))
}

// NewData returns the answer with that data and a closing NUL. What is too long for a reply to type t becomes code
// -1, as with the C programs; the text of an extension is cut instead.
func NewData(t Type, data string) Answer {
	if t.extension() {
		data = data[:min(len(data), maxText-1)]
	} else if len(data) >= maxReply {
		return NewAnswer(-1)
	}
	return NewAnswer(len(data)+1) + Answer(data) + "\x00"
}

// failed is the answer that says "error" to an asker of type t.
func failed(t Type) Answer { return NewAnswer(bit(t == TypePasswd) - 1) }

// failed reports whether a says so.
func (a Answer) failed(t Type) bool { return a.Code() < 0 || t == TypePasswd && a.Code() == 0 }

// Code returns the code, or -1 if a is no answer at all.
func (a Answer) Code() int {
	if len(a) < headerSize {
		return -1
	}
	return int(int32(binary.NativeEndian.Uint32([]byte(a[:headerSize]))))
}

// Data returns the data without its closing NUL.
func (a Answer) Data() string {
	return strings.TrimSuffix(string(a[min(headerSize, len(a)):]), "\x00")
}

// NewPasswd returns the answer with that entry. Where a colon is not part of a SCRAM password or of Gecos, the asker
// cannot tell it from the end of a field.
func NewPasswd(p Passwd) Answer {
	return NewData(TypePasswd, fmt.Sprintf("%s%s:%s:%d:%d:%s:%s:%s:%d", pwStruct, p.Email, p.Passwd, p.UID, p.GID, p.Gecos, p.Dir, p.Shell, bit(p.Inactive)))
}

// Absent returns the answer to q that says there is no such thing: for TypeDomain, that no other domain is behind it. A
// Cache keeps such answers shorter, in a room of their own.
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

// bad is the error for an answer that has no value of the type asked for.
func (a Answer) bad() error {
	switch {
	case len(a) != headerSize || a.Code() > 0:
		return fmt.Errorf("%w: a reply of %d bytes with code %d", ErrInvalid, len(a), a.Code())
	case a.Code() == 0:
		return ErrNotFound
	}
	return ErrUnavailable
}

// A Status says whether mail for an address can be delivered.
type Status int

const (
	StatusActive Status = iota
	StatusAbsent
	StatusInactive
	StatusOverQuota
	StatusAlias
)

func (s Status) String() string {
	return [...]string{"active", "absent", "inactive", "over quota", "alias", "unknown"}[min(uint(s), 5)]
}

// Status decodes an answer to TypeUser.
func (a Answer) Status() (Status, error) {
	if c := a.Code(); c < int(StatusActive) || c > int(StatusAlias) {
		return 0, a.bad()
	}
	return Status(a.Code()), nil
}

// Relay decodes an answer to TypeRelay.
func (a Answer) Relay() (bool, error) {
	if c := a.Code(); c != 0 && c != 1 {
		return false, a.bad()
	}
	return a.Code() == 1, nil
}

// A Passwd is a user's entry. Passwd is a password hash, with the SCRAM keys and a comma in front where there are
// any: never print it in a log.
type Passwd struct {
	Email    string // name@domain, the domain as it was asked
	Passwd   string
	UID, GID int
	Gecos    string
	Dir      string
	Shell    string
	Inactive bool // the row is in the table of inactive users
}

const (
	pwStruct   = "PWSTRUCT="
	noSuchUser = pwStruct + "No such user "
)

// Passwd decodes an answer to TypePasswd. A SCRAM string may hold two colons of its own, so fields are counted: with
// more than eight of them and a password that begins with a SCRAM scheme, the next two belong to it. Colons that are
// still too many are the gecos field's, the only one in which a person writes.
func (a Answer) Passwd() (p Passwd, err error) {
	s, ok := strings.CutPrefix(a.Data(), pwStruct)
	switch {
	case strings.HasPrefix(a.Data(), noSuchUser):
		return p, ErrNotFound
	case a.failed(TypePasswd):
		return p, ErrUnavailable
	}
	f := strings.Split(s, ":")
	if len(f) > 9 && strings.HasPrefix(f[1], "{SCRAM-SHA-") {
		f = append([]string{f[0], strings.Join(f[1:4], ":")}, f[4:]...)
	}
	n := len(f)
	if !ok || n < 8 || f[n-1] != "0" && f[n-1] != "1" {
		return p, a.bad()
	}
	uid, err1 := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	if err1 != nil || err2 != nil {
		return p, a.bad()
	}
	return Passwd{f[0], f[1], uid, gid, strings.Join(f[4:n-3], ":"), f[n-3], f[n-2], f[n-1] == "1"}, nil
}

// Text decodes an answer to TypeHost, "domain:host:port", to TypeDomain, or to one of the extensions.
func (a Answer) Text() (string, error) {
	if a.Code() < 1 || len(a) != headerSize+a.Code() {
		return "", a.bad()
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

// Limits is the record that answers TypeLimit, field by field as the C struct has it on a 64-bit machine: 128 bytes,
// the last 6 of them padding. Expiries are Unix seconds, quotas bytes. No limit is -1, and in the quotas 0.
type Limits struct {
	DomainExpiry, PasswdExpiry, MaxPopAccounts, MaxAliases                               int64
	MaxForwards, MaxAutoresponders, MaxMailinglists                                      int64
	DiskQuota, MaxMsgCount, DefaultQuota, DefaultMaxMsgCount                             uint64
	DisablePop, DisableIMAP, DisableDialup, DisablePasswordChanging                      int16
	DisableWebmail, DisableRelay, DisableSMTP                                            int16
	PermAccount, PermAlias, PermForward, PermAutoresponder                               int16 // bits: 1 no create, 2 no modify, 4 no delete
	PermMaillist, PermMaillistUsers, PermMaillistModerators, PermQuota, PermDefaultQuota int16
	LimitType                                                                            int16 // 1 of the domain, 2 of the address itself
	_                                                                                    [6]byte
}

// NewLimits returns the answer with that record.
func NewLimits(l Limits) Answer {
	b, _ := binary.Append(nil, binary.NativeEndian, l) // errs only for types without a fixed size
	return NewAnswer(len(b)) + Answer(b)
}

// Limits decodes an answer to TypeLimit.
func (a Answer) Limits() (l Limits, err error) {
	if a.Code() != limitsSize || len(a) != headerSize+limitsSize {
		return l, a.bad()
	}
	_, err = binary.Decode([]byte(a[headerSize:]), binary.NativeEndian, &l)
	return l, err
}

// A Directory asks the seven questions of any Resolver and decodes the answers. An absent address is ErrNotFound,
// except for Status, Relay, Alias and Domain, which have a value for it. Every other error wraps ErrUnavailable,
// ErrInvalid or ErrTooLong: never take it for "no such user".
type Directory struct{ Resolver Resolver }

func ask[T any](ctx context.Context, d Directory, q Query, decode func(Answer) (T, error)) (value T, err error) {
	a, err := d.Resolver.Resolve(ctx, q)
	if err == nil {
		value, err = decode(a)
	}
	return value, err
}

// Status tells whether mail for email can be delivered.
func (d Directory) Status(ctx context.Context, email string) (Status, error) {
	return ask(ctx, d, Query{Type: TypeUser, Email: email}, Answer.Status)
}

// Relay tells whether email has logged in from ip lately.
func (d Directory) Relay(ctx context.Context, email, ip string) (bool, error) {
	return ask(ctx, d, Query{Type: TypeRelay, Email: email, IP: ip}, Answer.Relay)
}

// Passwd returns the password entry of email. One of somebody else is ErrInvalid: never let him in.
func (d Directory) Passwd(ctx context.Context, email string) (Passwd, error) {
	q := Query{Type: TypePasswd, Email: email}
	return ask(ctx, d, q, func(a Answer) (Passwd, error) {
		p, err := a.Passwd()
		local, domain := q.split("")
		name, of := Query{Email: p.Email}.split("")
		if err == nil && (name != local || domain != "" && of != domain) { // a bare name's domain only the server knows
			return Passwd{}, fmt.Errorf("%w: an entry of %q, not of %q", ErrInvalid, p.Email, email)
		}
		return p, err
	})
}

// Host returns the SMTP route of email, "domain:host:port".
func (d Directory) Host(ctx context.Context, email string) (string, error) {
	return ask(ctx, d, Query{Type: TypeHost, Email: email}, Answer.Text)
}

// Alias returns the alias lines of email in order, none if it is no alias.
func (d Directory) Alias(ctx context.Context, email string) ([]string, error) {
	return ask(ctx, d, Query{Type: TypeAlias, Email: email}, Answer.Alias)
}

// Limits returns the limits of an address or, without a separator, a domain.
func (d Directory) Limits(ctx context.Context, email string) (Limits, error) {
	return ask(ctx, d, Query{Type: TypeLimit, Email: email}, Answer.Limits)
}

// Domain returns the real domain of an alias domain, else domain itself.
func (d Directory) Domain(ctx context.Context, domain string) (string, error) {
	return ask(ctx, d, Query{Type: TypeDomain, Email: domain}, Answer.Text)
}

// Inquery asks q of FromEnv(): of the running server, or of MySQL itself.
func Inquery(ctx context.Context, q Query) (Answer, error) { return FromEnv().Resolve(ctx, q) }

// FromEnv returns the Resolver that the environment chooses, always the same one: with QUERY_CACHE set a Client of
// the running server, else MySQL itself.
func FromEnv() Resolver { return fromEnv() }

var fromEnv = sync.OnceValue(func() Resolver {
	if _, ok := os.LookupEnv("QUERY_CACHE"); ok {
		return new(Client)
	}
	return new(MySQL)
})

// A Client asks a running server, ours or the C one. The zero Client goes by the environment; under tcpclient
// (TCPCLIENT and TCPREMOTEIP set) it asks over descriptors 6 and 7. Fields may not change after the first question.
//
// It keeps the reply FIFOs it made for its next questions. What makes that safe is that a FIFO over which anything
// went wrong, a timeout above all, is never used again, and none in which something lies before the question is asked: a
// late answer finds no reader, a foreign one is not taken.
type Client struct {
	Infifo  string              // name or path of the request FIFO; "": INFIFO, else infifo
	Timeout time.Duration       // for one question; 0: control file timeoutread, else 4 s
	Getenv  func(string) string // nil: os.Getenv

	init sync.Once
	env  environ
	tcp  bool  // under tcpclient
	err  error // of init

	mu    sync.Mutex // guards what follows
	paths []string   // request FIFOs, any of which will do
	idle  []*replyFIFO
	once  bool // each reply FIFO serves one question: the server unlinks it, or the client is closed
}

const maxIdle = 64 // reply FIFOs kept between questions

// Resolve asks the server. The error wraps ErrUnavailable when nobody listens, when the server says so, or when no
// answer comes in time.
func (c *Client) Resolve(ctx context.Context, q Query) (Answer, error) {
	if c.init.Do(c.configure); c.err != nil {
		return "", c.err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for {
		in, kept, err := c.take()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		a, err := c.over(ctx, in, kept, q)
		c.put(in, err)
		switch {
		case err == errUnlinked || err == errForeign: // asked again: ends, each time one of those that are kept goes
		case errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLong):
			return "", err
		case err != nil:
			return "", fmt.Errorf("%w: %v: %w", ErrUnavailable, q.Type, err)
		case a.failed(q.Type):
			return "", fmt.Errorf("%w: the server answers the %v with an error", ErrUnavailable, q.Type)
		default:
			return a, nil
		}
	}
}

// configure reads the environment once.
func (c *Client) configure() {
	c.env = environ{c.Getenv}
	if c.Timeout == 0 {
		c.Timeout, c.err = c.env.seconds("timeoutread", 4)
	}
	if c.env.get("TCPCLIENT", "") != "" && c.env.get("TCPREMOTEIP", "") != "" {
		c.mu.Lock()
		c.tcp, c.idle = true, []*replyFIFO{tcpclientReply()}
		c.mu.Unlock()
	}
}

// over asks q and waits for the answer at in.
func (c *Client) over(ctx context.Context, in *replyFIFO, kept bool, q Query) (Answer, error) {
	frame, err := q.appendFrame(nil, in.path)
	if err != nil {
		return "", err
	}
	if kept && in.unlinked() {
		return "", errUnlinked
	} else if kept && !in.clean() {
		return "", errForeign
	}
	if in.out != nil {
		_, err = in.out.Write(frame)
	} else {
		err = c.send(ctx, frame)
	}
	if err != nil {
		return "", err
	}
	return in.receive(ctx, q.Type, kept)
}

// send writes the request to one of the server's instances, chosen evenly: the next one when that one has no reader,
// and all are looked up anew when none has.
func (c *Client) send(ctx context.Context, frame []byte) error {
	var failed error // the first, that of an instance if there are any
	c.mu.Lock()
	paths := c.paths
	c.mu.Unlock()
	for range 2 {
		n := len(paths) - 1 // instances; behind them the path without a number
		first := rand.IntN(max(1, n))
		for i, path := range paths {
			if i < n {
				path = paths[(first+i)%n]
			}
			err := sendRequest(ctx, path, frame)
			if err == nil {
				return nil
			}
			if i == 0 {
				failed = err
			}
		}
		paths = requestPaths(c.env, c.Infifo)
		c.mu.Lock()
		c.paths = paths
		c.mu.Unlock()
	}
	return failed
}

// take returns a kept reply FIFO, or a new one.
func (c *Client) take() (in *replyFIFO, kept bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		in, c.idle = c.idle[n-1], c.idle[:n-1]
		return in, in.out == nil, nil
	}
	if c.tcp {
		return nil, false, errors.New("tcpclient's connection is used up, or busy")
	}
	in, err = newReplyFIFO(c.env.get("FIFOTMPDIR", "/tmp"))
	return in, false, err
}

// put keeps in for another question if all went well, else removes it.
func (c *Client) put(in *replyFIFO, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.once = c.once || err == errUnlinked
	if err != nil || in.spoiled || c.once || len(c.idle) >= maxIdle {
		in.remove()
		return
	}
	c.idle = append(c.idle, in)
}

// Close removes the reply FIFOs that are kept; those in use follow when their question ends. The client may go on
// asking, and then keeps none.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.idle {
		in.remove()
	}
	c.idle, c.once = nil, true
	return nil
}

// environ reads the settings that both ends share.
type environ struct{ getenv func(string) string }

// get returns the environment variable, or def when it is unset or empty.
func (e environ) get(name, def string) string {
	if e.getenv == nil {
		return or(os.Getenv(name), def)
	}
	return or(e.getenv(name), def)
}

// control returns the path of a control file.
func (e environ) control(name string) string {
	dir := e.get("CONTROLDIR", "control")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(e.get("SYSCONFDIR", "/etc/indimail"), dir)
	}
	return filepath.Join(dir, name)
}

// value returns the first line of a control file, def if there is none.
func (e environ) value(name, def string) (string, error) {
	b, err := os.ReadFile(e.control(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return or(strings.TrimSpace(line), def), nil
}

// seconds returns the control file's value as a time, def seconds without one.
func (e environ) seconds(name string, def int) (time.Duration, error) {
	v, err := e.value(name, strconv.Itoa(def))
	n, err2 := strconv.ParseUint(v, 10, 31)
	if err == nil && (err2 != nil || n == 0) {
		err = fmt.Errorf("%s:1: want seconds, at least 1, not %q", e.control(name), v)
	}
	return time.Duration(n) * time.Second, err
}

// or returns v, or def if v is the zero value.
func or[T comparable](v, def T) T {
	if v == *new(T) {
		return def
	}
	return v
}

// bit returns 1 for true.
func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
