// Command inquerytest asks a mail program's question about a user, and prints
// the answer. It also compares two servers, and measures how fast one answers.
// See inquerytest -h.
package main

// This file reads the command line, finds the server to ask, and chooses the
// exit status. print.go prints an answer, load.go asks many times, and
// compare.go asks two servers.

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	accounts "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/build"
)

// The exit statuses; 100 and 111 are those of qmail's programs.
const (
	exitOK    = 0
	exitNo    = 1   // absent, two servers differ, or questions of a load failed
	exitUsage = 100 // trying again is of no use
	exitFault = 111 // trying again later may help
)

const help = `inquerytest asks a mail program's questions about a user. It asks one question
and prints the answer, or many and prints how fast the answers come, or it asks
two servers and prints where their answers differ.

  inquerytest -q type address [ip]      ask
  inquerytest -x -q type address [ip]   print where that answer would come from
  inquerytest -F what                   make the server forget what it knows
                                        about an address, a domain, or all ("")
  inquerytest -s                        print the server's counters
  inquerytest -s -listen address:port   serve them to Prometheus over HTTP
  inquerytest -watch                    show them, renewed each second
  inquerytest [-n questions] [-p clients] [-u users] -q type address [ip]
                                        ask many times
  inquerytest [-p clients] [-c seconds] -compare other
                                        ask this server and another one
  inquerytest -V                        print the version

Each also takes [-v] and [-i infifo]. Options come before the address.

Types, by number or name:
  1 user     may mail be delivered?     5 alias    the alias lines
  2 relay    has the user logged in     6 limit    limits of address or domain
             from ip lately?            7 domain   the domain behind an alias
  3 passwd   the password entry                    domain
  4 host     the SMTP route

Options:
  -i infifo  ask the server at that FIFO. If no server is there, start one for
             this call. -i "" is the running server. Without -i, ask the running
             server if QUERY_CACHE is set, else MySQL itself (-F, -s, -watch and
             -x always ask the running server)
  -n 100000  how many questions; %d in the address counts through the users
  -p 16      how many clients ask at the same time
  -u 10000   users: user%d@example.com is user0@... to user9999@example.com
  -listen address:port
             serve the counters at http://address:port/metrics until SIGTERM or
             Control-C. Without an address only this machine can connect
  -watch     show questions, databases and memory until Control-C; once, without
             colours, where standard output is no terminal
  -v         write to standard error what is asked, of which server, and how
             long that took
  -compare other
             ask that server too: its FIFO, or the word mysql for MySQL itself.
             Standard input has a line for each address: address [ip]
  -c seconds compare the users who logged in within that time instead

Examples:
  inquerytest -q user user@example.com                   is there such a user?
  inquerytest -q 2 user@example.com 192.0.2.10           may this user relay?
  inquerytest -q 3 -i /tmp/own.fifo user@example.com     a server for this call
  inquerytest -F user@example.com                        the password is new
  inquerytest -s -listen 127.0.0.1:9177                  for Prometheus
  inquerytest -n 100000 -p 16 -q 3 user%d@example.com    how fast is it?
  inquerytest -c 86400 -i "" -compare mysql              is the server right?

Environment: (defaults in parentheses)
  QUERY_CACHE            set: ask the running server
  INFIFO                 its FIFO: a path, or a name in INFIFODIR (infifo)
  INFIFODIR, FIFODIR     directory of its FIFO (/run/indimail/inlookup if that
                         exists, else /var/indimail/inquery)
  FIFOTMPDIR             directory for the FIFO of the answer (REPLYDIR if that
                         is set, else /tmp)
  CONTROLDIR             control files, as host.mysql (/etc/indimail/control)
  INDIMAIL_DOMAIN, else DEFAULT_DOMAIN
                         of an address without one, if MySQL is asked from here
  MYSQL_HOST, MYSQL_USER, MYSQL_PASSWD, MYSQL_DATABASE, MYSQL_SOCKET,
  MYSQL_VPORT                         how to reach MySQL from here
  MYSQL_TABLE, MYSQL_INACTIVE_TABLE   also what -q 3 prints (indimail, indibak)
  NO_COLOR                            -watch has no colours if it is set
  COLUMNS, LINES                      its size where a terminal tells none
  TCPCLIENT, TCPREMOTEIP              ask over the connection of tcpclient(1)

Exit status: 0 answered, or no difference; 1 absent (types 3, 4, 6), a
difference, or a load with failures; 100 wrong usage; 111 a temporary fault.

All else is in the manual page inquerytest(8): cmd/inquerytest/inquerytest.8.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C then kills
	p := &program{
		getenv:  os.Getenv,
		ownEnv:  true,
		stdin:   os.Stdin,
		out:     bufio.NewWriter(os.Stdout),
		screen:  os.Stdout,
		stderr:  os.Stderr,
		fromEnv: inlookup.FromEnv,
	}
	p.mysql = func() inlookup.Resolver { return p.newMySQL() }
	os.Exit(p.run(ctx, os.Args[1:]))
}

// A program is one run of inquerytest. Tests replace the fields.
type program struct {
	getenv  func(string) string
	ownEnv  bool // getenv is os.Getenv
	stdin   io.Reader
	out     *bufio.Writer // the last Flush returns the first error of a write
	screen  *os.File      // what out writes to, perhaps a terminal; nil: none
	stderr  io.Writer
	fromEnv func() inlookup.Resolver // the server, or MySQL itself
	mysql   func() inlookup.Resolver // MySQL itself
}

// newMySQL returns a MySQL that goes by this program's environment. It reads
// that itself, because getenv cannot say that a variable is set to nothing.
func (p *program) newMySQL() *inlookup.MySQL {
	if p.ownEnv {
		return new(inlookup.MySQL)
	}
	return &inlookup.MySQL{Getenv: p.getenv}
}

func (p *program) run(ctx context.Context, args []string) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		p.out.WriteString(help)
		err = nil
	case err == nil && o.version:
		fmt.Fprintln(p.out, "inquerytest", build.Version())
	case err == nil:
		err = p.answer(ctx, o)
	}
	flushErr := p.out.Flush()
	if err == nil && flushErr != nil {
		err = fmt.Errorf("standard output: %w", flushErr)
	}
	if err != nil {
		p.say("%v", err)
	}
	return exitStatus(err)
}

// say writes one line to standard error.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stderr, "inquerytest: %s\n", singleLine(fmt.Sprintf(format, args...)))
}

func singleLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

var (
	errUsage    = errors.New("inquerytest -h explains")
	errFailures = errors.New("not all questions were answered")
	errDiffer   = errors.New("the answers differ")
)

func exitStatus(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFailures), errors.Is(err, errDiffer): // may wrap the others
		return exitNo
	case errors.Is(err, inlookup.ErrUnavailable): // may wrap those below
		return exitFault
	case errors.Is(err, inlookup.ErrNotFound):
		return exitNo
	case errors.Is(err, errUsage),
		errors.Is(err, inlookup.ErrTooLong),
		errors.Is(err, inlookup.ErrInvalid):
		return exitUsage
	}
	return exitFault
}

// options is what the command line says.
type options struct {
	given     map[string]bool // the flags that are there; -i "" is not the same as no -i
	verbose   bool
	version   bool
	infifo    string
	question  question
	query     inlookup.Query
	load      bool
	questions int
	clients   int
	users     int
	other     string // to compare with; empty: no comparison
	recent    int    // seconds, of -c
	listen    string // address and port; empty: print the counters
	watch     bool
}

// parse reads the command line. Its errors wrap errUsage, or are flag.ErrHelp.
func parse(args []string) (*options, error) {
	o := &options{given: make(map[string]bool)}
	f := flag.NewFlagSet("inquerytest", flag.ContinueOnError)
	f.SetOutput(io.Discard) // run prints the error
	typ := f.String("q", "", "")
	what := f.String("F", "", "")
	f.Bool("s", false, "")
	f.Bool("x", false, "")
	f.BoolVar(&o.version, "V", false, "")
	f.BoolVar(&o.verbose, "v", false, "")
	f.StringVar(&o.infifo, "i", "", "")
	f.IntVar(&o.questions, "n", 100000, "")
	f.IntVar(&o.clients, "p", 16, "")
	f.IntVar(&o.users, "u", 10000, "")
	f.StringVar(&o.other, "compare", "", "")
	f.IntVar(&o.recent, "c", 0, "")
	f.StringVar(&o.listen, "listen", "", "")
	f.BoolVar(&o.watch, "watch", false, "")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil, err
	}
	f.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	if err == nil {
		err = o.choose(*typ, *what, f.Args())
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, errUsage)
	}
	return o, nil
}

// choose sets what to do, by the flags that are there.
func (o *options) choose(typ, what string, args []string) error {
	switch {
	case o.given["V"]:
		return o.alone("V", args)
	case o.given["F"]:
		o.question = flushQuestion
		o.query = inlookup.Query{Type: inlookup.TypeFlush, Email: what}
		return o.alone("F", args)
	case o.given["s"], o.given["watch"]:
		return o.status(args)
	case o.given["listen"]:
		return errors.New("-listen needs -s")
	case o.given["compare"]:
		if err := o.alone("compare", args, "c", "p"); err != nil {
			return err
		}
		return o.checkCompare()
	case o.given["c"]:
		return errors.New("-c needs -compare")
	}
	return o.ask(typ, args)
}

// status sets what to do with the counters.
func (o *options) status(args []string) error {
	o.question = statusQuestion
	o.query = inlookup.Query{Type: inlookup.TypeStatus}
	if o.given["watch"] {
		return o.alone("watch", args)
	}
	err := o.alone("s", args, "listen")
	if err == nil && o.given["listen"] {
		err = o.checkListen()
	}
	return err
}

// alone checks a flag that excludes addresses and all flags except -i, -v and
// these.
func (o *options) alone(name string, args []string, except ...string) error {
	allowed := map[string]bool{name: true, "i": true, "v": true}
	for _, other := range except {
		allowed[other] = true
	}
	for other := range o.given {
		if !allowed[other] {
			return fmt.Errorf("-%s and -%s exclude each other", min(name, other), max(name, other))
		}
	}
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	return nil
}

// ask sets the question, by type and address.
func (o *options) ask(typ string, args []string) error {
	for _, arg := range args[min(1, len(args)):] {
		if strings.HasPrefix(arg, "-") {
			return fmt.Errorf("%s comes after the address: put options before it", arg)
		}
	}
	what, found := questionNamed(typ)
	switch {
	case typ == "":
		return errors.New("-q is missing: what is the question?")
	case !found:
		return fmt.Errorf("-q %s: there is no such type, only 1 to 7", typ)
	case len(args) == 0 || args[0] == "":
		return errors.New("the address is missing")
	case len(args) > 2:
		return fmt.Errorf("unexpected argument %q: want an address and perhaps an IP", args[2])
	}
	o.question = what
	o.query = inlookup.Query{Type: what.typ, Email: args[0]}
	o.load = o.given["n"] || o.given["p"] || o.given["u"]
	if o.given["x"] && o.load {
		return errors.New("-x asks once: leave out -n, -p and -u")
	}
	if o.given["x"] { // the type is sent in place of the ip
		o.question = explainQuestion
		o.query.Type = inlookup.TypeExplain
		o.query.IP = fmt.Sprint(int(what.typ))
		return nil
	}
	if what.typ == inlookup.TypeRelay { // the others ignore an ip, as in the C program
		if len(args) < 2 || args[1] == "" {
			return fmt.Errorf("-q %s asks about an IP address: put it after the address", typ)
		}
		o.query.IP = args[1]
	}
	if o.load {
		return o.checkLoad()
	}
	return nil
}

// answer asks one question, many, or two servers, and prints the result.
func (p *program) answer(ctx context.Context, o *options) error {
	switch {
	case o.other != "":
		return p.compare(ctx, o)
	case o.listen != "":
		return p.listen(ctx, o)
	case o.watch:
		return p.watch(ctx, o)
	}
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
	took := short(time.Since(start))
	outcome := "answered"
	if err != nil {
		outcome = "no answer"
		err = from.advise(err, o.query)
	} else {
		err = o.question.print(p, o.query, a)
		if errors.Is(err, inlookup.ErrInvalid) { // what came, not what was asked
			err = fmt.Errorf("%w: %s: %w", inlookup.ErrUnavailable, from.name, err)
		}
	}
	if o.verbose {
		p.say("%s after %v", outcome, took)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.subject(), err)
	}
	return nil
}

// subject names the question in an error.
func (o *options) subject() string {
	if o.query.Email == "" { // of -s, or -F ""
		return o.question.what
	}
	return fmt.Sprintf("%s of %q", o.question.what, o.query.Email)
}

// A source is the server, or MySQL itself, that answers a question.
type source struct {
	inlookup.Resolver
	name   string    // for messages
	fifo   string    // path, if it is a server
	server bool      // not MySQL itself
	log    *lastLine // of a server in this process
	getenv func(string) string
	close  func()
}

// A lastLine is a log that keeps its last line, the reason for an error.
type lastLine struct{ atomic.Pointer[string] }

func (l *lastLine) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	l.Store(&line)
	return len(b), nil
}

func (p *program) newSource(r inlookup.Resolver, name string) source {
	_, server := r.(*inlookup.Client)
	s := source{Resolver: r, name: name, server: server, getenv: p.getenv, close: func() {}}
	if c, ok := r.(io.Closer); ok {
		s.close = func() { c.Close() }
	}
	return s
}

// newServer returns the source for the server on that FIFO.
func (p *program) newServer(client *inlookup.Client, fifo string) source {
	s := p.newSource(client, "the server on "+fifo)
	s.fifo = fifo
	return s
}

// overTCP reports whether tcpclient has opened a connection to a server.
func overTCP(getenv func(string) string) bool {
	return getenv("TCPCLIENT") != "" && getenv("TCPREMOTEIP") != ""
}

const mysqlItself = "MySQL itself"

// connect finds the source. Only a server can answer -F, -s and -x. tcpclient's
// connection overrides everything else.
func (p *program) connect(o *options) (source, error) {
	client := &inlookup.Client{Getenv: p.getenv}
	if overTCP(p.getenv) {
		return p.newSource(client, "the server behind tcpclient's connection"), nil
	}
	if !o.given["i"] && !o.extension() {
		r := p.fromEnv()
		if _, server := r.(*inlookup.Client); !server {
			return p.newSource(r, mysqlItself), nil
		}
	}
	fifo, err := p.listener(o.infifo)
	if o.infifo != "" { // without it, a Client spreads its questions over the instances
		client.Infifo = fifo
	}
	switch {
	case !errors.Is(err, errNobody):
	case o.infifo != "" && !o.extension():
		return p.ownServer(client)
	default:
		err = fmt.Errorf("%w on %s: is inlookup running? (start it%s)",
			errNobody, fifo, o.otherwise())
	}
	return p.newServer(client, fifo), err
}

// extension reports whether the question is one of -F, -s and -x.
func (o *options) extension() bool { return o.query.Type > inlookup.TypeDomain }

// otherwise returns how to do without the running server.
func (o *options) otherwise() string {
	switch {
	case o.extension():
		return ""
	case o.given["i"]:
		return ", or leave out -i and unset QUERY_CACHE to ask MySQL itself"
	}
	return ", or unset QUERY_CACHE to ask MySQL itself"
}

// ownServer starts a server in this process, for a client whose FIFO no server
// reads. So the question still goes from client over server to MySQL.
func (p *program) ownServer(client *inlookup.Client) (source, error) {
	s := p.newSource(client, "a new server on "+client.Infifo)
	m := p.newMySQL()
	if err := m.Reload(false); err != nil {
		return s, err
	}
	p.say("no server listens on %s: this call starts a server of its own", client.Infifo)
	made := missingDirs(filepath.Dir(client.Infifo))
	s.log = new(lastLine)
	stop, err := p.serve(m, client.Infifo, s.log)
	s.close = func() {
		if err == nil {
			stop()
		}
		m.Close()
		for _, dir := range made {
			os.Remove(dir) // fails where somebody has put a file into it
		}
	}
	if err != nil {
		s.close()
	}
	return s, err
}

// missingDirs returns dir and those of its parents that do not exist, the
// deepest first. A server makes them, and does not remove them.
func missingDirs(dir string) (missing []string) {
	for {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			return missing // ends: / exists
		}
		missing = append(missing, dir)
		dir = filepath.Dir(dir)
	}
}

// serve starts a server in this process. stop ends it after it has answered all
// requests read. The caller's context is not used, because Ctrl-C must end the
// question first.
func (p *program) serve(r inlookup.Resolver, fifo string, w io.Writer) (stop func(), err error) {
	s := &inlookup.Server{
		Resolver:  r,
		Infifo:    fifo,
		Instances: 1,
		Log:       log.New(w, "", 0),
		Getenv:    p.getenv,
	}
	if err := s.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
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

// listener returns the FIFO on which the server called name listens: the FIFO
// of that name, or the first instance that has a reader. With an error it
// returns the FIFO of that name.
func (p *program) listener(name string) (fifo string, err error) {
	paths := inlookup.RequestFIFOs(p.getenv, name)
	base, err := filepath.Abs(paths[len(paths)-1])
	if err != nil {
		return base, err
	}
	if err := listens(base); !errors.Is(err, errNobody) {
		return base, err
	}
	for _, path := range paths[:len(paths)-1] {
		err := listens(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, errNobody) {
			return base, err
		}
	}
	return base, errNobody
}

// listens returns errNobody unless a process reads the FIFO; the kernel reports
// that by ENXIO (fifo(7)). It returns an error for a file, because a question
// would overwrite its beginning.
func listens(fifo string) error {
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENOENT) {
		return errNobody
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: only those who can write to a server's FIFO can ask it", err)
	}
	if err != nil {
		return fmt.Errorf("%w: name another FIFO (-i, INFIFO)", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return fmt.Errorf("%s is not a FIFO: name another one (-i, INFIFO)", fifo)
	}
	return nil
}

// advise adds the reason to a server's error, or where to find it.
func (from source) advise(err error, q inlookup.Query) error {
	switch {
	case errors.Is(err, context.Canceled):
		return &textError{"interrupted", err}
	case !from.server || !errors.Is(err, inlookup.ErrUnavailable):
		return err
	case !wasSent(err):
		return unsent(err)
	case from.log != nil && from.log.Load() != nil:
		text := *from.log.Load() // says more than the client
		if isTimeout(err) {
			text = fmt.Sprintf("no answer in %s s: %s", replySeconds(from.getenv), text)
		}
		return &textError{text, err}
	case isTimeout(err):
		return &textError{from.silence(q), err}
	}
	return fmt.Errorf("%w: see the log of %s", err, from.name)
}

// wasSent reports whether the server got the question. If not, its log has
// nothing about it. A Client names the file that it could not make, open or
// write to, or the variable that is wrong.
func wasSent(err error) bool {
	for _, variable := range []string{"FIFOTMPDIR: ", "FIFO_MODE: "} {
		if strings.Contains(err.Error(), variable) {
			return false
		}
	}
	var file *fs.PathError
	var call *os.SyscallError
	return !errors.As(err, &file) && !errors.As(err, &call)
}

// unsent adds a remedy to the error of a question that was not sent.
func unsent(err error) error {
	var file *fs.PathError
	if errors.As(err, &file) && file.Op == "mkfifo" {
		text := fmt.Sprintf("mkfifo: %v: FIFOTMPDIR names the directory for this FIFO, here %s: "+
			"name one that exists, has room, and lets this user write",
			file.Err, filepath.Dir(file.Path)) // without the random name
		return &textError{text, err}
	}
	if isTimeout(err) {
		return fmt.Errorf("%w: the FIFO is full, and its server does not read it", err)
	}
	return err
}

// A textError is an error in other words, which help more.
type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.err }

// silence returns why a server that read a question may not answer it. It gets
// the right to write into the FIFO for the answer from the FIFO's group.
func (from source) silence(q inlookup.Query) string {
	text := fmt.Sprintf("no answer in %s s. ", replySeconds(from.getenv))
	if overTCP(from.getenv) {
		return text + "Perhaps " + from.name + " hangs; its log says more"
	}
	dir := cmp.Or(from.getenv("FIFOTMPDIR"), from.getenv("REPLYDIR"), "/tmp")
	text += fmt.Sprintf("Either %s answers only into its REPLYDIR, or has no right to write into "+
		"this FIFO (in %s, group %s, mode %s): set FIFOTMPDIR to the server's REPLYDIR, or to a "+
		"directory with a group of the server",
		from.name, dir, replyGroup(dir), cmp.Or(from.getenv("FIFO_MODE"), "0660"))
	if q.Type > inlookup.TypeDomain {
		text += "; or it is the C program, which knows no -F, -s and -x"
	}
	return text + "; or it hangs. Its log says more"
}

// replySeconds returns how long a client waits for an answer, as its control
// file says.
func replySeconds(getenv func(string) string) string {
	text, _ := os.ReadFile(inlookup.ControlFile(getenv, "timeoutread"))
	n := strings.TrimLeft(leadingNumber(strings.TrimSpace(string(text))), "0")
	return cmp.Or(n, "4")
}

// replyGroup returns the group of a FIFO for an answer that is made in dir. A
// directory with the setgid bit gives its own. Root gives the FIFO to indimail,
// where that user exists.
func replyGroup(dir string) string {
	gid := strconv.Itoa(os.Getegid())
	if info, err := os.Stat(dir); err == nil && info.Mode()&os.ModeSetgid != 0 {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			gid = strconv.Itoa(int(st.Gid))
		}
	}
	_, noUser := accounts.Lookup("indimail")
	g, noGroup := accounts.LookupGroup("indimail")
	if os.Geteuid() == 0 && noUser == nil && noGroup == nil {
		return g.Name
	}
	if g, err := accounts.LookupGroupId(gid); err == nil {
		return g.Name
	}
	return gid
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}
