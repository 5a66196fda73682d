package inlookup

// The asking side: what a question and an answer are, how they look on the
// wire, and Client, which asks a running server.
//
// An answer is kept as it travels. The server's cache then holds the very
// bytes that go into the pipe and a hit costs no encoding; only the asker, who
// alone knows which typed value it wants, decodes. Because one small interface,
// Resolver, stands for everyone who can answer, the same program text asks a
// server, asks MySQL itself, or keeps the cache inside the program.
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
	"sync/atomic"
	"time"
)

// The errors of this package. All others name the operation and the file or
// host, and wrap one of these where one fits.
var (
	ErrNotFound    = errors.New("inlookup: no such address")
	ErrUnavailable = errors.New("inlookup: lookup unavailable")
	ErrTooLong     = errors.New("inlookup: message too long")
	ErrInvalid     = errors.New("inlookup: invalid message")
)

// A Resolver answers one query. Client (over FIFOs), MySQL (directly) and
// Cache (in front of another) are Resolvers; a Server serves any of them.
// An answer is never an error in disguise: where the wire has a code for
// "error", Resolve returns an error that wraps ErrUnavailable. It is safe for
// use by many goroutines.
type Resolver interface {
	Resolve(ctx context.Context, q Query) (Answer, error)
}

// A Type says what is asked. Types 1 to 7 are those of the C programs.
type Type byte

const (
	TypeUser   Type = 1 + iota // may mail be delivered: a Status
	TypeRelay                  // has ip logged in as email lately: yes or no
	TypePasswd                 // the password entry
	TypeHost                   // the SMTP route, domain:host:port
	TypeAlias                  // the alias lines
	TypeLimit                  // the limits of the address or the domain
	TypeDomain                 // the real domain behind an alias domain

	TypeStatus  Type = 'S' // counters of the server, as text
	TypeFlush   Type = 'F' // forget an address, a domain (no @), or all ("")
	TypeExplain Type = 'X' // where the answer to type IP ("1" to "7") would come from
)

var typeNames = [...]string{"", "User Query", "Relay Query", "Password Query", "Host Query",
	"Alias Query", "Domain Limits Query", "Domain Query"}

// String returns the name that debug lines carry and IndiMail's graphs parse.
func (t Type) String() string {
	switch {
	case t >= TypeUser && t <= TypeDomain:
		return typeNames[t]
	case t == TypeStatus:
		return "Status Query"
	case t == TypeFlush:
		return "Flush Query"
	case t == TypeExplain:
		return "Explain Query"
	}
	return "Type " + strconv.Itoa(int(t))
}

// known reports whether a frame of type t can be asked at all.
func (t Type) known() bool {
	return t >= TypeUser && t <= TypeDomain || t.extension()
}

// extension reports whether t is a question about the server itself.
func (t Type) extension() bool { return t == TypeStatus || t == TypeFlush || t == TypeExplain }

// Sizes on the wire, in bytes.
const (
	maxRequest = 4096     // PIPE_BUF of Linux, the length word included
	maxReply   = 4096     // data of a reply to types 3 to 7
	limitsSize = 128      // data of a reply to type 6
	maxText    = 60 << 10 // data of a reply to an extension: fits an empty pipe
	headerSize = 4
)

// A Query is one question. Case does not matter in Email: an answer repeats it
// in lower case.
type Query struct {
	Type  Type
	Email string // local@domain; % or : also separate; bare: of DEFAULT_DOMAIN
	IP    string // for TypeRelay the address asked about, else empty
}

// appendFrame appends the request frame that asks for an answer at reply.
func (q Query) appendFrame(b []byte, reply string) ([]byte, error) {
	n := 2 + len(q.Email) + len(reply) + len(q.IP) + 3
	switch {
	case !q.Type.known():
		return b, fmt.Errorf("%w: no query type %d", ErrInvalid, q.Type)
	case strings.IndexByte(q.Email, 0) >= 0 || strings.IndexByte(q.IP, 0) >= 0:
		return b, fmt.Errorf("%w: NUL in an address", ErrInvalid)
	case q.Type == TypeRelay && q.IP == "":
		return b, fmt.Errorf("%w: a relay query needs an IP address", ErrInvalid)
	case headerSize+n > maxRequest:
		return b, fmt.Errorf("%w: a request of %d bytes, %d at most", ErrTooLong, headerSize+n, maxRequest)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(n))
	b = append(b, byte(q.Type), 0)
	b = append(append(b, q.Email...), 0)
	b = append(append(b, reply...), 0)
	return append(append(b, q.IP...), 0), nil
}

// split returns the two halves of the address in lower case, def standing in
// for a missing domain. A domain query, and a limits query without a
// separator, are about a domain: local is then empty.
func (q Query) split(def string) (local, domain string) {
	email := lower(q.Email)
	i := separator(email)
	switch {
	case q.Type == TypeDomain, q.Type == TypeLimit && i < 0:
		return "", email
	case i < 0:
		return email, lower(def)
	}
	return email[:i], email[i+1:]
}

// separator returns the index of what separates local part and domain, or -1:
// the last @ (a local part may hold one in quotes), else the last % or colon.
func separator[S string | []byte](email S) int {
	other := -1
	for i := len(email) - 1; i >= 0; i-- {
		switch c := email[i]; {
		case c == '@':
			return i
		case (c == '%' || c == ':') && other < 0:
			other = i
		}
	}
	return other
}

// lower returns s with A to Z in lower case and all other bytes as they are:
// strings.ToLower would also fold letters that MySQL and mail keep apart.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i]-'A' < 26 {
			b := []byte(s)
			lowerBytes(b)
			return string(b)
		}
	}
	return s
}

func lowerBytes(b []byte) {
	for i, c := range b {
		if c-'A' < 26 {
			b[i] = c + 'a' - 'A'
		}
	}
}

// An Answer is a reply as it travels: the code, and the data if it has any.
type Answer string

// NewAnswer returns the answer with that code and no data.
func NewAnswer(code int) Answer {
	return Answer(binary.NativeEndian.AppendUint32(nil, uint32(int32(code))))
}

// NewData returns the answer with that data and a closing NUL. What is too
// long for a reply of type t becomes code -1, as with the C programs; the text
// of an extension is cut instead.
func NewData(t Type, data string) Answer {
	if t.extension() && len(data) >= maxText {
		data = data[:maxText-1]
	} else if !t.extension() && len(data) >= maxReply {
		return NewAnswer(-1)
	}
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, headerSize+len(data)+1), uint32(len(data)+1))
	return Answer(append(append(b, data...), 0))
}

// failed is the answer that says "error" to an asker of type t.
func failed(t Type) Answer {
	if t == TypePasswd {
		return NewAnswer(0)
	}
	return NewAnswer(-1)
}

// Code returns the code, or -1 if a is no answer at all.
func (a Answer) Code() int {
	if len(a) < headerSize {
		return -1
	}
	return int(int32(binary.NativeEndian.Uint32([]byte(a[:headerSize]))))
}

// Data returns the data without its closing NUL.
func (a Answer) Data() string {
	if len(a) <= headerSize {
		return ""
	}
	return strings.TrimSuffix(string(a[headerSize:]), "\x00")
}

// absent reports whether a says that what q asks about is not there. Such
// answers live shorter and in a room of their own (see Cache).
func (a Answer) absent(q Query) bool {
	switch q.Type {
	case TypeUser:
		return a.Code() == int(StatusAbsent)
	case TypePasswd:
		return strings.HasPrefix(string(a[min(headerSize, len(a)):]), noSuchUser)
	case TypeAlias:
		return a.Code() == 1
	case TypeDomain:
		return a.Data() == lower(q.Email)
	}
	return a.Code() == 0
}

// failed reports whether a says "error" to an asker of type t.
func (a Answer) failed(t Type) bool { return a.Code() < 0 || t == TypePasswd && a.Code() == 0 }

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
	if s < StatusActive || s > StatusAlias {
		return "status " + strconv.Itoa(int(s))
	}
	return [...]string{"active", "absent", "inactive", "over quota", "alias"}[s]
}

// Status decodes an answer to TypeUser.
func (a Answer) Status() (Status, error) {
	if c := a.Code(); c >= int(StatusActive) && c <= int(StatusAlias) {
		return Status(c), nil
	}
	return 0, a.bad()
}

// Relay decodes an answer to TypeRelay.
func (a Answer) Relay() (bool, error) {
	if c := a.Code(); c == 0 || c == 1 {
		return c == 1, nil
	}
	return false, a.bad()
}

// A Passwd is a user's entry. Passwd is a password hash, with the SCRAM keys
// and a comma in front where there are any: never print it in a log.
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

// Passwd decodes an answer to TypePasswd. A SCRAM string may hold two colons of
// its own, so fields are counted: with more than eight of them and a password
// that begins with a SCRAM scheme, the next two belong to it. Colons that are
// still too many are the gecos field's, the only one in which a person writes.
func (a Answer) Passwd() (Passwd, error) {
	if strings.HasPrefix(a.Data(), noSuchUser) {
		return Passwd{}, ErrNotFound
	}
	s, ok := strings.CutPrefix(a.Data(), pwStruct)
	f := strings.Split(s, ":")
	if !ok || len(f) < 8 {
		return Passwd{}, a.bad()
	}
	p, rest := Passwd{Email: f[0], Passwd: f[1]}, f[2:]
	if len(f) > 9 && strings.HasPrefix(f[1], "{SCRAM-SHA-") {
		p.Passwd, rest = strings.Join(f[1:4], ":"), f[4:]
	}
	n := len(rest)
	if n < 6 {
		return Passwd{}, a.bad()
	}
	var err1, err2 error
	p.UID, err1 = strconv.Atoi(rest[0])
	p.GID, err2 = strconv.Atoi(rest[1])
	p.Gecos = strings.Join(rest[2:n-3], ":")
	p.Dir, p.Shell, p.Inactive = rest[n-3], rest[n-2], rest[n-1] == "1"
	if err1 != nil || err2 != nil || rest[n-1] != "0" && rest[n-1] != "1" {
		return Passwd{}, a.bad()
	}
	return p, nil
}

// Host decodes an answer to TypeHost: "domain:host:port".
func (a Answer) Host() (string, error) { return a.text() }

// Domain decodes an answer to TypeDomain.
func (a Answer) Domain() (string, error) { return a.text() }

// Text decodes an answer to one of the extensions.
func (a Answer) Text() (string, error) { return a.text() }

// Alias decodes an answer to TypeAlias: the lines, none if there are none.
func (a Answer) Alias() ([]string, error) {
	if a.Code() < 1 {
		return nil, a.bad()
	}
	if a.Data() == "" {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(a.Data(), "\n"), "\n"), nil
}

// Limits is the record that answers TypeLimit, field by field as the C struct
// has it on a 64-bit machine: 128 bytes, the last 6 of them padding. Expiries
// are Unix seconds, quotas bytes; -1, and 0 for the quotas, mean no limit.
type Limits struct {
	DomainExpiry, PasswdExpiry, MaxPopAccounts, MaxAliases   int64
	MaxForwards, MaxAutoresponders, MaxMailinglists          int64
	DiskQuota, MaxMsgCount, DefaultQuota, DefaultMaxMsgCount uint64
	DisablePop, DisableIMAP, DisableDialup                   int16
	DisablePasswordChanging, DisableWebmail                  int16
	DisableRelay, DisableSMTP                                int16
	PermAccount, PermAlias, PermForward, PermAutoresponder   int16 // bits: 1 no create, 2 no modify, 4 no delete
	PermMaillist, PermMaillistUsers, PermMaillistModerators  int16
	PermQuota, PermDefaultQuota                              int16
	LimitType                                                int16 // 1 of the domain, 2 of the address itself
	_                                                        [6]byte
}

// Limits decodes an answer to TypeLimit.
func (a Answer) Limits() (l Limits, err error) {
	if a.Code() == 0 {
		return l, ErrNotFound
	}
	if a.Code() != limitsSize || len(a) != headerSize+limitsSize {
		return l, a.bad()
	}
	_, err = binary.Decode([]byte(a[headerSize:]), binary.NativeEndian, &l)
	return l, err
}

func (a Answer) text() (string, error) {
	if a.Code() == 0 {
		return "", ErrNotFound
	}
	if a.Code() < 0 || len(a) != headerSize+a.Code() {
		return "", a.bad()
	}
	return a.Data(), nil
}

func (a Answer) bad() error {
	if len(a) == headerSize && a.Code() < 1 {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: a reply of %d bytes with code %d", ErrInvalid, len(a), a.Code())
}

// A Directory asks the seven questions of any Resolver and decodes the
// answers. An absent address is ErrNotFound, except for Status, Relay and Alias
// which have a value for it.
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

// Passwd returns the password entry of email.
func (d Directory) Passwd(ctx context.Context, email string) (Passwd, error) {
	return ask(ctx, d, Query{Type: TypePasswd, Email: email}, Answer.Passwd)
}

// Host returns the SMTP route of email, "domain:host:port".
func (d Directory) Host(ctx context.Context, email string) (string, error) {
	return ask(ctx, d, Query{Type: TypeHost, Email: email}, Answer.Host)
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
	return ask(ctx, d, Query{Type: TypeDomain, Email: domain}, Answer.Domain)
}

// Inquery asks q of whom the environment names, see FromEnv.
func Inquery(ctx context.Context, q Query) (Answer, error) {
	return FromEnv().Resolve(ctx, q)
}

// FromEnv returns the Resolver that the environment chooses, always the same
// one: with QUERY_CACHE set a Client of the running server, else MySQL itself.
var FromEnv = sync.OnceValue(func() Resolver {
	if _, ok := os.LookupEnv("QUERY_CACHE"); ok {
		return new(Client)
	}
	return new(MySQL)
})

// A Client asks a running server, ours or the C one. The zero Client goes by
// the environment; under tcpclient (TCPCLIENT and TCPREMOTEIP set) it asks over
// descriptors 6 and 7. Fields may not change after the first question.
//
// It keeps the reply FIFOs it made for its next questions. What makes that safe
// is that a FIFO over which anything went wrong, a timeout above all, is never
// used again: a late answer finds no reader.
type Client struct {
	Infifo  string              // name or path of the request FIFO; "": INFIFO, else infifo
	Timeout time.Duration       // for one question; 0: control file timeoutread, else 4 s
	Getenv  func(string) string // nil: os.Getenv

	init    sync.Once
	env     environ
	timeout time.Duration
	err     error       // of init
	unlinks atomic.Bool // the server unlinks reply FIFOs: each serves one question

	mu     sync.Mutex // guards what follows
	paths  []string   // request FIFOs, any of which will do
	idle   []*replyFIFO
	closed bool
}

const (
	maxIdle   = 64                    // reply FIFOs kept between questions
	firstWait = 50 * time.Millisecond // until a kept FIFO is checked for its name
)

// errUnlinked says that the server has unlinked a kept FIFO: ask over a new one.
var errUnlinked = errors.New("reply FIFO unlinked by the server")

// Resolve asks the server. The error wraps ErrUnavailable when nobody listens,
// when the server says so, or when no answer comes in time.
func (c *Client) Resolve(ctx context.Context, q Query) (Answer, error) {
	c.init.Do(c.configure)
	if c.err != nil {
		return "", c.err
	}
	deadline := time.Now().Add(c.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for {
		in, kept, err := c.take()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		a, err := c.over(ctx, in, kept, q, deadline)
		if errors.Is(err, errUnlinked) { // idempotent, so it may be asked again
			c.unlinks.Store(true)
			in.remove()
			continue // ends: only a kept FIFO errs so, and from now on none is kept
		}
		c.put(in, err == nil)
		if err == nil && a.failed(q.Type) {
			a, err = "", fmt.Errorf("%w: the server answers the %v with an error", ErrUnavailable, q.Type)
		}
		return a, err
	}
}

// configure reads the environment once.
func (c *Client) configure() {
	c.env = environ{c.Getenv}
	c.timeout = c.Timeout
	if c.timeout == 0 {
		c.timeout, c.err = c.env.seconds("timeoutread", 4)
	}
	if c.env.get("TCPCLIENT", "") != "" && c.env.get("TCPREMOTEIP", "") != "" {
		c.idle = []*replyFIFO{tcpclientReply()}
	}
}

// over asks q and waits for the answer at in.
func (c *Client) over(ctx context.Context, in *replyFIFO, kept bool, q Query, deadline time.Time) (Answer, error) {
	frame, err := q.appendFrame(in.frame[:0], in.path)
	if err != nil {
		return "", err
	}
	if in.frame = frame; kept && in.unlinked() {
		return "", errUnlinked
	}
	if err := c.send(in, deadline); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	until := deadline
	if first := time.Now().Add(firstWait); kept && first.Before(deadline) {
		until = first
	}
	in.f.SetReadDeadline(until)
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { in.f.SetReadDeadline(time.Unix(1, 0)) })
		defer func() { in.spoiled = in.spoiled || !stop() }()
	}
	a, err := in.receive(q.Type)
	if until != deadline && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
		if in.unlinked() {
			return "", errUnlinked
		}
		in.f.SetReadDeadline(deadline)
		if ctx.Err() == nil { // else its deadline may just have been overwritten
			a, err = in.receive(q.Type)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: waiting for the answer to the %v: %w", ErrUnavailable, q.Type, err)
	}
	return a, err
}

// send writes the request to one of the server's FIFOs, chosen evenly: the next
// one when that one has no reader, and all are looked up anew when none has.
func (c *Client) send(in *replyFIFO, deadline time.Time) (err error) {
	if in.out != nil {
		_, err = in.out.Write(in.frame)
		return err
	}
	c.mu.Lock()
	paths := c.paths
	c.mu.Unlock()
	for range 2 {
		for i, first := 0, rand.IntN(max(1, len(paths))); i < len(paths); i++ {
			if err = sendRequest(paths[(first+i)%len(paths)], in.frame, deadline); err == nil {
				return nil
			}
		}
		paths = requestPaths(c.env, c.Infifo)
		c.mu.Lock()
		c.paths = paths
		c.mu.Unlock()
	}
	return err
}

// take returns a kept reply FIFO, or a new one.
func (c *Client) take() (in *replyFIFO, kept bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		in, c.idle = c.idle[n-1], c.idle[:n-1]
	}
	c.mu.Unlock()
	if in != nil {
		return in, in.out == nil, nil
	}
	in, err = newReplyFIFO(c.env.get("FIFOTMPDIR", "/tmp"))
	return in, false, err
}

// put keeps in for another question if all went well, else removes it.
func (c *Client) put(in *replyFIFO, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !good || in.spoiled || c.closed || c.unlinks.Load() || len(c.idle) >= maxIdle {
		in.remove()
		return
	}
	c.idle = append(c.idle, in)
}

// Close removes the reply FIFOs that are kept; those in use follow when their
// question ends. The client may go on asking, and then keeps none.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, in := range c.idle {
		in.remove()
	}
	c.idle, c.closed = nil, true
	return nil
}

// environ reads the settings that both ends share.
type environ struct{ getenv func(string) string }

// get returns the environment variable, or def when it is unset or empty.
func (e environ) get(name, def string) string {
	getenv := e.getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	if v := getenv(name); v != "" {
		return v
	}
	return def
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
	if errors.Is(err, os.ErrNotExist) {
		return def, nil
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return or(strings.TrimSpace(line), def), err
}

// seconds returns the control file's value as a time, def seconds without one.
func (e environ) seconds(name string, def int) (time.Duration, error) {
	v, err := e.value(name, strconv.Itoa(def))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 1<<30 {
		return 0, fmt.Errorf("%s:1: want seconds, at least 1, not %q", e.control(name), v)
	}
	return time.Duration(n) * time.Second, nil
}
