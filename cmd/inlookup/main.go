// Inlookup is the server that answers mail programs' questions about IndiMail's
// users. It answers over FIFOs, from MySQL and from memory. See inlookup -h.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/build"
)

// Exit statuses, those of the C program.
const (
	exitUsage = 100
	exitFault = 111 // try again later
)

const usage = `inlookup answers mail programs' questions about IndiMail's users.

usage: inlookup [-f infifo] [-i instances] [-c seconds] [-v]
       inlookup -t [-f infifo] [-i instances]
       inlookup -demo[=serve]
       inlookup -V

  -f infifo      name or path of the request FIFO (default: INFIFO, else infifo)
  -i instances   serve this many request FIFOs, infifo.1, infifo.2 ... (default
                 1: infifo itself)
  -c seconds     at start and after SIGHUP, load the users who logged in within
                 this many seconds into the cache
  -v             write a line for each request; SIGUSR2 turns this on and off
  -t             check the configuration, the databases and the FIFOs, even
                 beside a running server; change nothing; print a line for each,
                 which begins with ok, warning or wrong
  -demo          show it at work with a private MariaDB in a temporary
                 directory, then remove that; with =serve, run until interrupted
  -V             print the version

The environment and control files configure it:
  INFIFODIR, FIFODIR      directory of a request FIFO that is no path (default
                          /run/indimail/inlookup if that exists, else
                          /var/indimail/inquery)
  FIFO_MODE               mode of the FIFOs, octal (default 0660)
  REPLYDIR                the only directory for reply FIFOs (default: any)
  CONTROLDIR              control files host.mysql, host.cntrl, host.master,
                          mcdinfo, hostip, smtproutes, qmtproutes (default
                          /etc/indimail/control)
  ASSIGNDIR               the file assign (default /etc/indimail/users)
  INDIMAIL_DOMAIN, else DEFAULT_DOMAIN
                          of an address without one
  MYSQL_HOST, _USER, _PASSWD, _DATABASE, _SOCKET, _VPORT
                          the database; MYSQL_HOST overrides host.mysql, and
                          fields of either override the other variables; several
                          hosts, separated by commas, are tried in turn
  CNTRL_HOST ...          the same for a cluster's central database
  MASTER_HOST ...         the same for that of host.master
  CACHE_TTL               life of an answer (default 10m)
  CACHE_NEGATIVE_TTL      life of the answer "absent" (default 20s)
  CACHE_STALE             how long an expired answer may be given while the
                          database is unavailable (at most, and by default: 1h
                          for status and password, 24h for the rest; 0: never)
  CACHE_SIZE              bytes of memory for answers; K, M and G stand for
                          powers of 1024 (default 256M)
  MAX_BTREE_COUNT         keep at most this many answers (default: no limit)
  USE_BTREE=0             keep no answers
  TCPREMOTEIP             set by tcpserver: answer one request on descriptors 0
                          and 1, then exit

signals: HUP forget all answers and read the control files again; INT reconnect
to MySQL and read the control files again; USR1 write statistics; USR2 turn
request lines on or off; TERM answer all requests read, remove the FIFOs, exit 0.

exit status: 0; 100 wrong usage, or with -t a wrong configuration; 111 a
temporary fault.

If NOTIFY_SOCKET is set, the server tells the service manager when it is ready.

All else is in the manual page inlookup(8): cmd/inlookup/inlookup.8.
`

func main() {
	signal.Ignore(syscall.SIGPIPE) // the server outlives the readers of its output
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	infifo    string
	instances int
	recent    time.Duration
	verbose   bool
	test      bool
	version   bool
	demo      demoFlag
	warnings  []string
}

// instancesMost is what -i can be.
const instancesMost = 1000

func parse(args []string) (o options, err error) {
	instances, seconds := int64(1), int64(0)
	flags := flag.NewFlagSet("inlookup", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.infifo, "f", "", "")
	const longest = int64(math.MaxInt64 / time.Second) // 292 years
	flags.Func("i", "", o.number("-i", &instances, 1, instancesMost))
	flags.Func("c", "", o.number("-c", &seconds, 0, longest))
	flags.BoolVar(&o.verbose, "v", false, "")
	flags.BoolVar(&o.test, "t", false, "")
	flags.BoolVar(&o.version, "V", false, "")
	flags.Var(&o.demo, "demo", "")
	if err = flags.Parse(o.dropWords(args)); err != nil {
		return o, err
	}
	o.instances = int(instances)
	o.recent = time.Duration(seconds) * time.Second
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.test && o.demo != "":
		err = errors.New("-t and -demo exclude each other")
	}
	return o, err
}

// dropWords leaves out words behind the number of -c or -i, with a warning. In
// IndiMail's run file the shell splits a variable such as "5 # FIFOs".
func (o *options) dropWords(args []string) (kept []string) {
	option := -2 // index of the last option if it is -c or -i
	for i, arg := range args {
		isValue := i == option+1
		isOption := !isValue && strings.HasPrefix(arg, "-")
		switch {
		case isOption && (arg == "-c" || arg == "-i"):
			option = i
		case isOption:
			option = -2
		case !isValue && option >= 0:
			o.warnings = append(o.warnings, fmt.Sprintf("%s: %q behind its number is ignored",
				args[option], arg))
			continue
		}
		kept = append(kept, arg)
	}
	return kept
}

// number returns a function that reads an option, which other text than a
// number must not stop: then there is a warning, and the value stays. The next
// option in place of a number is wrong usage: a variable in the run file was
// empty.
func (o *options) number(name string, to *int64, least, most int64) func(text string) error {
	return func(text string) error {
		n, ok := leadingNumber(text, 10)
		if !ok && strings.HasPrefix(text, "-") {
			return errors.New("no number: is its variable empty?")
		}
		if ok && n > most && name == "-c" { // "everybody", in a large number
			n = most
		}
		if !ok || n < least || n > most {
			o.warnings = append(o.warnings, fmt.Sprintf("%s got %q: want a number of at least %d, "+
				"at most %d; %d is used", name, text, least, most, *to))
			return nil
		}
		*to = n
		return nil
	}
}

func run(args []string, stdout, stderr *os.File) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "inlookup: %v (inlookup -h explains)\n", err)
		return exitUsage
	case o.version:
		fmt.Fprintln(stdout, "inlookup", build.Version())
		return 0
	case o.demo != "":
		return report(demo(o.demo, stdout), log.New(stderr, "inlookup: ", 0))
	}
	out, errOut := newLineWriters(stdout, stderr)
	logger := log.New(errOut, "inlookup: ", 0)
	if err := keepSecrets(); err != nil { // before any password is read
		logger.Printf("warning: other processes of this user may read this one's memory: %v", err)
	}
	status := 0
	switch {
	case o.test:
		status = check(o, stdout)
	case os.Getenv("TCPREMOTEIP") != "":
		status = report(serveConn(logger), logger)
	default:
		status = report(serve(o, out, errOut, logger), logger)
	}
	const patience = time.Second // with a slow reader of the last lines
	out.flush(patience)
	errOut.flush(patience)
	return status
}

// keepSecrets keeps database passwords and users' hashes out of core files. On
// Linux it also hides the memory from other processes of this user.
func keepSecrets() error {
	err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	return errors.Join(disableDump(), os.NewSyscallError("setrlimit", err))
}

// report logs why a command failed, and returns its exit status.
func report(err error, logger *log.Logger) int {
	if err == nil {
		return 0
	}
	for _, fault := range problems(advise(err)) {
		logger.Print(fault)
	}
	return exitFault
}

// serveConn answers one request, as tcpserver wants it. A client that connects
// and says nothing must not occupy one of tcpserver's connections.
func serveConn(logger *log.Logger) error {
	const patience = 30 * time.Second
	time.AfterFunc(patience, func() { os.Exit(exitFault) })
	server := &inlookup.Server{Resolver: inlookup.FromEnv(), Log: logger}
	return server.ServeConn(context.Background(), os.Stdin, os.Stdout)
}

// catch returns a channel that receives this signal, which from now on does not
// kill. The channel holds one: a second signal that comes before the first is
// handled adds nothing.
func catch(sig os.Signal) <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, sig)
	return c
}

// A service is a server with its options, cache, database and log.
type service struct {
	options
	admin
	out    *lineWriter
	logger *log.Logger
}

// serve runs the server until SIGTERM.
func serve(o options, out, errOut *lineWriter, logger *log.Logger) error {
	// Before anything else, so that no signal kills during the start.
	term := catch(syscall.SIGTERM)
	hup := catch(syscall.SIGHUP)
	interrupt := catch(syscall.SIGINT)
	usr1 := catch(syscall.SIGUSR1)
	usr2 := catch(syscall.SIGUSR2)
	// Most of the heap is the cache, which lives long. The collector runs when
	// the heap has grown by a fifth, not when it has doubled. So a million users
	// take less than 200 bytes each beyond key and answer.
	debug.SetGCPercent(usualGC)

	for _, w := range slices.Concat(o.warnings, settingWarnings()) {
		logger.Printf("warning: %s", w)
	}
	s := &service{options: o, out: out, logger: logger}
	s.lost = func() uint64 {
		if out == errOut {
			return out.total.Load()
		}
		return out.total.Load() + errOut.total.Load()
	}
	if err := s.listen(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		<-term
		notify("STOPPING=1", logger) // first: the process may end soon after stop
		stop()
	}()
	go s.start(ctx)
	go s.reloadOn(ctx, hup, interrupt)
	go func() {
		for {
			select {
			case <-usr1:
				s.statistics(out)
			case <-usr2:
				s.server.Tracing.Store(!s.server.Tracing.Load())
			}
		}
	}()
	notify("READY=1", logger)
	err := s.server.Serve(ctx)
	s.statistics(out)
	return err
}

// listen reads the configuration and makes the FIFOs.
func (s *service) listen() error {
	s.mysql = &inlookup.MySQL{Log: s.logger}
	if err := s.mysql.Reload(false); err != nil {
		return err
	}
	cache, warnings := newCache(s.mysql)
	for _, w := range warnings {
		s.logger.Printf("warning: %s", w)
	}
	s.cache = cache
	s.server = &inlookup.Server{
		Resolver:  s.mysql,
		Infifo:    s.infifo,
		Instances: s.instances,
		Log:       s.logger,
		Admin:     s.answer,
		Trace: func(fifo, replyPath string, q inlookup.Query, hit bool) {
			io.WriteString(s.out, traceLines(fifo, replyPath, q, hit))
		},
	}
	if cache != nil {
		s.server.Resolver = cache
	}
	_, debug := os.LookupEnv("DEBUG") // set to nothing counts too
	s.server.Tracing.Store(s.verbose || debug)
	return s.server.Listen()
}

// start logs one line that says what runs.
func (s *service) start(ctx context.Context) {
	settings, err := s.server.Settings()
	if err != nil {
		return // cannot be: Listen has read them
	}
	fifos := settings.FIFOs[0]
	if n := len(settings.FIFOs); n > 1 {
		fifos += fmt.Sprintf(" to .%d", n)
	}
	cache := "no cache"
	if s.cache != nil {
		cache = "a cache"
	}
	state := make(map[string]string)
	s.mysql.Check(ctx, func(database, _ string, _ time.Duration, err error) {
		v, _ := remedy(err)
		switch {
		case err == nil || v == warning:
			state[database] = cmp.Or(state[database], "answers")
		case v == wrong:
			state[database] = "answers with errors (see inlookup -t)"
		default:
			state[database] = "does not answer"
		}
	})
	var databases []string
	for _, name := range slices.Sorted(maps.Keys(state)) {
		databases = append(databases, name+" "+state[name])
	}
	if ctx.Err() != nil {
		return
	}
	s.logger.Printf("%s serves %s (mode %04o) with %s; database %s",
		build.Version(), fifos, settings.Mode, cache, strings.Join(databases, ", "))
}

// reloadOn acts on SIGHUP and SIGINT, one at a time. It preloads the cache now,
// and again after each SIGHUP. A preload ends before the next begins.
func (s *service) reloadOn(ctx context.Context, hup, interrupt <-chan os.Signal) {
	cancel := s.preload(ctx)
	for {
		select {
		case <-interrupt:
			s.reload(true)
		case <-hup:
			cancel()
			s.reload(false)
			if s.cache != nil {
				n := s.cache.Flush("") // after the reload: no answer from the old files stays
				s.logger.Printf("SIGHUP: answers forgotten: %d", n)
			}
			cancel = s.preload(ctx)
		}
	}
}

// reload applies changed control files, or logs what is wrong with them.
func (s *service) reload(reconnect bool) {
	err := s.mysql.Reload(reconnect)
	switch {
	case err != nil:
		s.logger.Printf("the configuration stays as it was: %v", err)
	case reconnect:
		s.logger.Print("SIGINT: control files read, connections to MySQL are made anew")
	default:
		s.logger.Print("SIGHUP: control files read")
	}
}

// preloadTime limits a preload.
const preloadTime = 5 * time.Minute

// By how many percent the heap grows until the collector runs. A preload fills
// it, and would spend half of its time on collecting little.
const usualGC, preloadGC = 20, 60

// preload loads the users who logged in lately into the cache, in the
// background. cancel stops it and waits for its end.
func (s *service) preload(ctx context.Context) (cancel func()) {
	if s.cache == nil || s.recent == 0 {
		return func() {}
	}
	ctx, stop := context.WithTimeout(ctx, preloadTime)
	done := make(chan struct{})
	go func() {
		defer close(done)
		start := time.Now()
		emails, err := s.mysql.Recent(ctx, s.recent)
		debug.SetGCPercent(preloadGC)
		n, loadErr := s.cache.Preload(ctx, emails)
		debug.SetGCPercent(usualGC)
		debug.FreeOSMemory() // emails may have been as large as the cache
		if errors.Is(ctx.Err(), context.Canceled) {
			return // before another preload, or the end
		}
		for _, fault := range problems(errors.Join(err, loadErr)) {
			s.logger.Printf("loading recent users: %s", fault)
		}
		if err == nil { // else not all who logged in are known
			s.logger.Printf("%d of %d users loaded in %v", n, len(emails),
				time.Since(start).Round(time.Millisecond))
		}
	}()
	return func() {
		stop()
		<-done
	}
}
