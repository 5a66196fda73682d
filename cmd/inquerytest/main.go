// Command inquerytest asks what mail programs ask about a user, prints the
// answer, and measures how many answers a second there are. inquerytest -h
// tells how.
package main

// This file is the command line: what it may say, whom it makes us ask, and what
// the exit status is. print.go prints the answers, load.go asks many times.

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
)

// The exit statuses; 100 and 111 are those of qmail's programs.
const (
	exitOK    = 0
	exitNo    = 1   // absent, or some questions of a load failed
	exitUsage = 100 // wrong for ever
	exitFault = 111 // wrong now: try again later
)

const help = `inquerytest asks about a mail user what mail programs ask: one question, and
prints the answer; or many, and prints how fast they were answered.

  inquerytest -q type address [ip]      ask
  inquerytest -x -q type address [ip]   say where that answer would come from
  inquerytest -F what                   make the server forget what it knows
                                        about an address, a domain, or all ("")
  inquerytest -s                        print the server's counters
  inquerytest [-n questions] [-p askers] [-u users] -q type address [ip]
                                        ask many times

All of them take [-v] and [-i infifo] too. Options stand before the address.

Types, by number or name:
  1 user     may mail be delivered?     5 alias    the alias lines
  2 relay    did it log in from ip?     6 limit    limits of address or domain
  3 passwd   the password entry         7 domain   the domain behind an alias
  4 host     the SMTP route

Options:
  -i infifo  ask the server at that FIFO; where nobody serves it, start a
             server for this one call. -i "" is the running server. Without -i
             it is the running server if QUERY_CACHE is set, else MySQL itself
             (but for -F, -s and -x, which only a server answers)
  -n 100000  questions, -p 16 of them at a time. %d in the address counts
  -u 10000   users: user%d@example.com is user0@... to user9999@example.com
  -v         say on standard error what is asked, of whom, and how long it took

Examples:
  inquerytest -q user user@example.com                   is there such a user?
  inquerytest -q 2 user@example.com 192.0.2.10           may it relay?
  inquerytest -q 3 -i /tmp/own.fifo user@example.com     a server for this call
  inquerytest -F user@example.com                        its password is new
  inquerytest -n 100000 -p 16 -q 3 user%d@example.com    how fast is it?

Environment:
  QUERY_CACHE            set: ask the running server
  INFIFO                 its FIFO: a path, or a name (infifo) in the directory
  INFIFODIR, FIFODIR     ... (/var/indimail/inquery)
  FIFOTMPDIR             where the FIFO for the answer is made (/tmp)
  CONTROLDIR             control files, as host.mysql (/etc/indimail/control)
  DEFAULT_DOMAIN         of an address without one, if MySQL is asked from here
  MYSQL_HOST, MYSQL_USER, MYSQL_PASSWD, MYSQL_DATABASE, MYSQL_SOCKET,
  MYSQL_VPORT                         how to reach MySQL from here
  MYSQL_TABLE, MYSQL_INACTIVE_TABLE   also what -q 3 prints (indimail, indibak)
  TCPCLIENT, TCPREMOTEIP              by tcpclient(1): ask over its connection

Exit status: 0 answered, 1 absent (types 3, 4, 6) or a load with failures,
100 wrong usage, 111 a fault that may pass.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second Ctrl-C kills
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	p := &program{getenv: getenv, out: bufio.NewWriter(stdout), stderr: stderr, fromEnv: inlookup.FromEnv}
	return p.run(ctx, args)
}

// A program is one run of inquerytest.
type program struct {
	getenv  func(string) string
	out     *bufio.Writer // keeps the first error of a write for its Flush
	stderr  io.Writer
	fromEnv func() inlookup.Resolver // inlookup.FromEnv, but for tests
}

func (p *program) run(ctx context.Context, args []string) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.out.WriteString(help)
		err = nil
	case err == nil:
		err = p.answer(ctx, o)
	}
	if ferr := p.out.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("standard output: %w", ferr)
	}
	if err != nil {
		p.say("%v", err)
	}
	return exitStatus(err)
}

// say writes one line to standard error, whatever is in it.
func (p *program) say(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	fmt.Fprintf(p.stderr, "inquerytest: %s\n", text)
}

var (
	errUsage    = errors.New("inquerytest -h tells more")
	errFailures = errors.New("not all questions were answered")
)

func exitStatus(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFailures): // before those that it may wrap
		return exitNo
	case errors.Is(err, inlookup.ErrUnavailable): // likewise
		return exitFault
	case errors.Is(err, inlookup.ErrNotFound):
		return exitNo
	case errors.Is(err, errUsage), errors.Is(err, inlookup.ErrTooLong), errors.Is(err, inlookup.ErrInvalid):
		return exitUsage
	}
	return exitFault
}

// options is what the command line says.
type options struct {
	given    map[string]bool // the flags that are there: -i "" is not the same as no -i
	verbose  bool
	infifo   string
	question question
	query    inlookup.Query
	load     bool
	n, p, u  int
}

// parse reads the command line. Its errors wrap errUsage, or are flag.ErrHelp.
func parse(args []string) (*options, error) {
	o := &options{given: make(map[string]bool)}
	f := flag.NewFlagSet("inquerytest", flag.ContinueOnError)
	f.SetOutput(io.Discard) // it would print its error and all flags: we print one line
	typ := f.String("q", "", "")
	flush := f.String("F", "", "")
	f.Bool("s", false, "")
	f.Bool("x", false, "")
	f.BoolVar(&o.verbose, "v", false, "")
	f.StringVar(&o.infifo, "i", "", "")
	f.IntVar(&o.n, "n", 100000, "")
	f.IntVar(&o.p, "p", 16, "")
	f.IntVar(&o.u, "u", 10000, "")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil, err
	}
	f.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	o.load = o.given["n"] || o.given["p"] || o.given["u"]
	switch {
	case err != nil:
	case o.given["F"]:
		err = o.alone("F", flushQuestion, inlookup.Query{Type: inlookup.TypeFlush, Email: *flush}, f.Args())
	case o.given["s"]:
		err = o.alone("s", statusQuestion, inlookup.Query{Type: inlookup.TypeStatus}, f.Args())
	default:
		err = o.ask(*typ, f.Args())
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, errUsage)
	}
	return o, nil
}

// alone sets the question of a flag that excludes all others but -i and -v.
func (o *options) alone(name string, what question, q inlookup.Query, args []string) error {
	for other := range o.given {
		if other != name && other != "i" && other != "v" {
			return fmt.Errorf("-%s and -%s exclude each other", min(name, other), max(name, other))
		}
	}
	if len(args) > 0 {
		return fmt.Errorf("%q is too much: -%s stands without an address behind it", args[0], name)
	}
	o.question, o.query = what, q
	return nil
}

// ask sets the question that type and address ask for.
func (o *options) ask(typ string, args []string) error {
	for _, arg := range args[min(1, len(args)):] {
		if strings.HasPrefix(arg, "-") {
			return fmt.Errorf("%s stands behind the address: put options before it", arg)
		}
	}
	what, found := questionNamed(typ)
	switch {
	case typ == "":
		return errors.New("-q is missing: what shall be asked?")
	case !found:
		return fmt.Errorf("-q %s: there is no such type, but 1 to 7", typ)
	case len(args) == 0 || args[0] == "":
		return errors.New("the address is missing")
	case len(args) > 2:
		return fmt.Errorf("%q is too much: want an address and perhaps an IP address", args[2])
	}
	o.question, o.query = what, inlookup.Query{Type: what.typ, Email: args[0]}
	if what.typ == inlookup.TypeRelay && !o.given["x"] { // for all others the C program, too, takes an ip and leaves it
		if len(args) < 2 || args[1] == "" {
			return fmt.Errorf("-q %s asks about an IP address: put it behind the address", typ)
		}
		o.query.IP = args[1]
	}
	if o.load {
		return o.checkLoad()
	}
	if o.given["x"] { // the type asked about travels in place of the ip
		o.question, o.query.Type, o.query.IP = explainQuestion, inlookup.TypeExplain, fmt.Sprint(int(what.typ))
	}
	return nil
}

// answer asks, once or many times, and prints.
func (p *program) answer(ctx context.Context, o *options) error {
	from, err := p.connect(o)
	if err != nil {
		return err
	}
	defer from.close()
	if o.verbose {
		p.say("%v, %q, asked of %s", o.query.Type, o.query.Email, from.name)
	}
	if o.load {
		return p.load(ctx, o, from)
	}
	start := time.Now()
	a, err := from.Resolve(ctx, o.query)
	if o.verbose {
		p.say("%v after %v", outcome(err), short(time.Since(start)))
	}
	if err != nil {
		err = advise(err, o.query, from)
	} else if err = o.question.print(p, o.query, a); errors.Is(err, inlookup.ErrInvalid) {
		err = fmt.Errorf("%w: %s: %w", inlookup.ErrUnavailable, from.name, err) // its fault, not the user's
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", o.subject(), err)
	}
	return err
}

// subject names the question in an error.
func (o *options) subject() string {
	if o.query.Email == "" { // of -s, or -F ""
		return o.question.what
	}
	return fmt.Sprintf("%s of %q", o.question.what, o.query.Email)
}

func outcome(err error) string {
	if err != nil {
		return "no answer"
	}
	return "answered"
}

// A source is whom the question goes to.
type source struct {
	inlookup.Resolver
	name   string    // for people
	server bool      // not MySQL itself
	log    *lastLine // of a server of our own
	close  func()
}

// A lastLine is a log that keeps its last line, the reason of an error.
type lastLine struct{ atomic.Pointer[string] }

func (l *lastLine) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	l.Store(&line)
	return len(b), nil
}

func newSource(r inlookup.Resolver, name string) source {
	_, server := r.(*inlookup.Client)
	s := source{Resolver: r, name: name, server: server, close: func() {}}
	if c, ok := r.(io.Closer); ok { // a Client removes the reply FIFOs that it kept
		s.close = func() { c.Close() }
	}
	return s
}

// connect finds whom to ask. Only a server can answer -F, -s and -x, and a
// connection that tcpclient has opened is there to be used.
func (p *program) connect(o *options) (source, error) {
	client := &inlookup.Client{Getenv: p.getenv}
	if p.getenv("TCPCLIENT") != "" && p.getenv("TCPREMOTEIP") != "" {
		return newSource(client, "the server behind tcpclient's connection"), nil
	}
	if !o.given["i"] && !o.extension() {
		r := p.fromEnv()
		if _, server := r.(*inlookup.Client); !server {
			return newSource(r, "MySQL itself"), nil
		}
	}
	fifo, err := p.listener(o.infifo)
	if o.infifo != "" { // else by the environment: a Client then spreads its questions over the instances
		client.Infifo = fifo
	}
	switch {
	case !errors.Is(err, errNobody):
	case o.infifo != "" && !o.extension():
		return p.ownServer(client)
	default:
		err = fmt.Errorf("%w on %s: is inlookup running? (start it%s)", errNobody, fifo, o.otherwise())
	}
	return newSource(client, "the server on "+fifo), err
}

// extension reports whether the question is one of -F, -s and -x.
func (o *options) extension() bool { return o.query.Type > inlookup.TypeDomain }

// otherwise says how to do without the running server.
func (o *options) otherwise() string {
	switch {
	case o.extension():
		return ""
	case o.given["i"]:
		return ", or leave out -i and unset QUERY_CACHE to ask MySQL itself"
	}
	return ", or unset QUERY_CACHE to ask MySQL itself"
}

// ownServer starts a server in this process for a client whose FIFO nobody
// serves: the question then takes the whole way from client to MySQL.
func (p *program) ownServer(client *inlookup.Client) (source, error) {
	s := newSource(client, "a server of our own on "+client.Infifo)
	m := &inlookup.MySQL{Getenv: p.getenv}
	if err := m.Reload(false); err != nil {
		return s, err
	}
	s.log = new(lastLine)
	stop, err := p.serve(m, client.Infifo, s.log)
	if err != nil {
		m.Close()
		return s, err
	}
	s.close = func() { stop(); m.Close() }
	return s, nil
}

// serve starts a server in this process. stop ends it, when it has answered what
// it has read.
func (p *program) serve(r inlookup.Resolver, fifo string, w io.Writer) (stop func(), err error) {
	s := &inlookup.Server{Resolver: r, Infifo: fifo, Instances: 1, Log: log.New(w, "", 0), Getenv: p.getenv}
	if err := s.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background()) // not the question's: Ctrl-C must not end the server first
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			p.say("%v", err)
		}
	}, nil
}

var errNobody = errors.New("no server listens")

// listener returns the FIFO on which a server listens, for a name by the rules
// of INFIFO: the FIFO itself, or the first one alive of a server with instances.
// With errNobody it is the one on which a server would.
func (p *program) listener(name string) (fifo string, err error) {
	name = cmp.Or(name, p.getenv("INFIFO"), "infifo")
	if name[0] != '/' && name[0] != '.' {
		name = filepath.Join(cmp.Or(p.getenv("INFIFODIR"), p.getenv("FIFODIR"), "/var/indimail/inquery"), name)
	}
	if name, err = filepath.Abs(name); err != nil {
		return name, err
	}
	err = listens(name)
	for i := 1; errors.Is(err, errNobody); i++ {
		fifo = fmt.Sprintf("%s.%d", name, i)
		if _, missing := os.Lstat(fifo); missing != nil {
			return name, err
		}
		if err = listens(fifo); err == nil {
			return fifo, nil
		}
	}
	return name, err
}

// listens reports errNobody unless somebody reads the FIFO, which the kernel
// tells by ENXIO (fifo(7)). What is no FIFO is refused: a question written into a
// file would overwrite its beginning.
func listens(fifo string) error {
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOENT) {
		return errNobody
	}
	if err != nil {
		return fmt.Errorf("%w: who may ask a server is who may write to its FIFO", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		return fmt.Errorf("%s is no FIFO: name another one (-i, INFIFO)", fifo)
	}
	return nil
}

// advise adds to the error of a question to a server the reason, or where it is.
func advise(err error, q inlookup.Query, from source) error {
	switch {
	case !from.server || !errors.Is(err, inlookup.ErrUnavailable):
		return err
	case from.log != nil && from.log.Load() != nil:
		return fmt.Errorf("%w: %s", err, *from.log.Load())
	case isTimeout(err) && q.Type > inlookup.TypeDomain:
		return fmt.Errorf("%w: is %s the C program? It knows no -F, -s, -x", err, from.name)
	}
	return fmt.Errorf("%w: the log of %s tells more", err, from.name)
}

func isTimeout(err error) bool {
	var late interface{ Timeout() bool }
	return errors.As(err, &late) && late.Timeout()
}
