// Inlookup is the server that answers what mail programs ask about IndiMail's
// users, over FIFOs, from MySQL and from memory. See inlookup -h.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
)

// Exit statuses, those of the C program.
const (
	exitUsage = 100
	exitFault = 111 // try again later
)

const usage = `inlookup answers what mail programs ask about IndiMail's users.

usage: inlookup [-f infifo] [-i instances] [-c seconds] [-v]
       inlookup -t [-f infifo] [-i instances]
       inlookup -demo[=serve]

  -f infifo      name or path of the request FIFO (default: INFIFO, else infifo)
  -i instances   so many request FIFOs, named infifo.1, infifo.2 ... (default 1:
                 one, named infifo)
  -c seconds     load into the cache at start, and after SIGHUP, who logged in
                 within so many seconds
  -v             write a line for each request, as SIGUSR2 turns it on and off
  -t             check the configuration, the databases and the FIFOs, beside a
                 running server too: a line for each, which begins with ok,
                 warning or wrong; nothing is changed
  -demo          show it at work with a private MariaDB and a sample domain, in
                 a temporary directory, and leave nothing behind; with =serve
                 stay until interrupted

It is configured by its environment and by control files:
  INFIFODIR, FIFODIR      directory of a request FIFO that is no path
                          (default /var/indimail/inquery)
  FIFO_MODE               mode of the request FIFOs, octal (default 0660)
  REPLYDIR                the only directory where reply FIFOs may lie
  CONTROLDIR              control files host.mysql, host.cntrl, mcdinfo, hostip,
                          smtproutes, qmtproutes (default /etc/indimail/control)
  ASSIGNDIR               the file assign (default /etc/indimail/users)
  DEFAULT_DOMAIN          of an address without one
  MYSQL_HOST, _USER, _PASSWD, _DATABASE, _SOCKET, _VPORT
                          the database; each goes before host.mysql; several
                          hosts with commas between them are tried in turn
  CNTRL_HOST ...          the same of a cluster's central database
  CACHE_TTL               life of an answer (default 10m)
  CACHE_NEGATIVE_TTL      life of the answer that there is none (default 20s)
  CACHE_STALE             how long an expired answer may be given while the
                          database is unavailable (at most, and by default: 1h
                          for status and password, 24h for the rest; 0: never)
  CACHE_SIZE              bytes of memory for answers (default 268435456)
  MAX_BTREE_COUNT         answers kept at most (default: by CACHE_SIZE alone)
  USE_BTREE=0             keep none
  TCPREMOTEIP             set by tcpserver: answer one request on descriptors 0
                          and 1, then exit

signals: HUP forget all answers and read the control files again; INT connect
to MySQL anew and read the control files again; USR1 statistics; USR2 request
lines on or off; TERM answer what was asked, remove the FIFOs, exit 0.

exit status: 0; 100 wrong usage, or with -t a wrong configuration; 111 a
temporary fault.

A service manager that sets NOTIFY_SOCKET is told when requests are read.
`

func main() {
	signal.Ignore(syscall.SIGPIPE) // whoever reads our output may go: the server, and the demo's cleaning up, go on
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

type options struct {
	infifo    string
	instances int
	recent    time.Duration
	verbose   bool
	test      bool
	demo      demoFlag
}

func parse(args []string) (o options, err error) {
	seconds := 0
	flags := flag.NewFlagSet("inlookup", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.infifo, "f", "", "")
	flags.IntVar(&o.instances, "i", 1, "")
	flags.IntVar(&seconds, "c", 0, "")
	flags.BoolVar(&o.verbose, "v", false, "")
	flags.BoolVar(&o.test, "t", false, "")
	flags.Var(&o.demo, "demo", "")
	if err = flags.Parse(args); err != nil {
		return o, err
	}
	o.recent = time.Duration(seconds) * time.Second
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.instances < 1 || o.instances > 1000:
		err = fmt.Errorf("-i %d: want 1 to 1000 instances", o.instances)
	case seconds < 0 || seconds > math.MaxInt32:
		err = fmt.Errorf("-c %d: want seconds", seconds)
	case o.test && o.demo != "":
		err = errors.New("-t and -demo: want one of them")
	}
	return o, err
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	logger := log.New(stderr, "inlookup: ", 0)
	if err == nil && o.demo == "" { // before any password is read
		if err := keepSecrets(); err != nil {
			logger.Printf("warning: other processes of this user may see this one's memory: %v", err)
		}
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "inlookup: %v (inlookup -h explains)\n", err)
		return exitUsage
	case o.demo != "":
		err = demo(o.demo, stdout)
	case o.test:
		return check(o, stdout)
	case os.Getenv("TCPREMOTEIP") != "":
		// Whoever connects and says nothing would hold one of tcpserver's places.
		time.AfterFunc(30*time.Second, func() { os.Exit(exitFault) })
		server := &inlookup.Server{Resolver: inlookup.FromEnv(), Log: logger}
		err = server.ServeConn(context.Background(), os.Stdin, os.Stdout)
	default:
		err = serve(o, stdout, logger)
	}
	for _, fault := range problems(advise(err)) {
		logger.Print(fault)
	}
	if err != nil {
		return exitFault
	}
	return 0
}

// serve runs the server until SIGTERM.
func serve(o options, stdout io.Writer, logger *log.Logger) error {
	// First of all, so that a signal at the start does not kill.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	// The cache is most of the heap, lives long and is all pointers: let the
	// collector run when it has grown by a fifth, not when it has doubled: a
	// million users then take less than 200 bytes each beyond their key and
	// answer. Of a small cache a fifth is soon used up, 50 times a second at full
	// load; what counts as heap and is never touched, so that it takes no memory,
	// makes that 8 (3 % more answers from MySQL).
	debug.SetGCPercent(20)
	defer runtime.KeepAlive(make([]byte, 32<<20))
	mysql := &inlookup.MySQL{Log: logger}
	if err := mysql.Reload(false); err != nil {
		return err
	}
	defer mysql.Close()
	cache, err := newCache(mysql)
	if err != nil {
		return err
	}
	server := &inlookup.Server{Resolver: mysql, Infifo: o.infifo, Instances: o.instances, Out: stdout, Log: logger}
	if cache != nil {
		server.Resolver = cache
	}
	about := &about{server, cache, mysql}
	server.About = about.answer
	server.Debug.Store(o.verbose || os.Getenv("DEBUG") != "")
	if err := server.Listen(); err != nil {
		return err
	}
	preload := func() {}
	if cache != nil && o.recent > 0 {
		preload = filler(ctx, cache, mysql, o.recent, logger)
	}
	preload() // before any SIGHUP asks for another
	go func() {
		for sig := range signals {
			switch sig {
			case syscall.SIGHUP:
				reload(mysql, false, logger)
				if cache != nil {
					cache.Flush("") // after reload, so that nothing is kept that went by the old files
				}
				preload()
			case syscall.SIGINT:
				reload(mysql, true, logger)
			case syscall.SIGUSR1:
				about.statistics(stdout)
			case syscall.SIGUSR2:
				server.Debug.Store(!server.Debug.Load())
			}
		}
	}()
	notify("READY=1", logger)
	serving, end := context.WithCancel(context.Background())
	context.AfterFunc(ctx, func() {
		notify("STOPPING=1", logger) // first, since the process may end soon after
		end()
	})
	err = server.Serve(serving)
	signal.Stop(signals)
	about.statistics(stdout)
	return err
}

// reload applies changed control files, or says what is wrong with them.
func reload(mysql *inlookup.MySQL, reconnect bool, logger *log.Logger) {
	if err := mysql.Reload(reconnect); err != nil {
		logger.Printf("the configuration stays as it was: %v", err)
	}
}

// filler returns what loads those who logged in lately, in the background. One
// load ends before the next begins: each SIGHUP asks for one, and a burst of them
// must not take all connections.
func filler(ctx context.Context, cache *inlookup.Cache, mysql *inlookup.MySQL, recent time.Duration, logger *log.Logger) func() {
	stop, done := func() {}, make(chan struct{})
	close(done)
	return func() {
		stop()
		before := done
		done = make(chan struct{})
		var one context.Context
		one, stop = context.WithCancel(ctx)
		go func(done chan struct{}) {
			defer close(done)
			<-before
			fill(one, cache, mysql, recent, logger)
		}(done)
	}
}

func fill(ctx context.Context, cache *inlookup.Cache, mysql *inlookup.MySQL, recent time.Duration, logger *log.Logger) {
	start := time.Now()
	n, err := cache.Fill(func(add func(inlookup.Query, inlookup.Answer) bool) error {
		return mysql.Recent(ctx, recent, add)
	})
	if ctx.Err() != nil {
		return // the next one has the say
	}
	if err != nil {
		logger.Printf("loading recent users: %v", err)
	}
	logger.Printf("%d users loaded in %v", n, time.Since(start).Round(time.Millisecond))
}

// newCache returns the cache that the environment asks for, nil for none.
func newCache(r inlookup.Resolver) (*inlookup.Cache, error) {
	if os.Getenv("USE_BTREE") == "0" {
		return nil, nil
	}
	c := &inlookup.Cache{Resolver: r, DefaultDomain: os.Getenv("DEFAULT_DOMAIN")}
	var errs [5]error
	c.TTL, errs[0] = duration("CACHE_TTL")
	c.NegativeTTL, errs[1] = duration("CACHE_NEGATIVE_TTL")
	c.Stale, errs[2] = duration("CACHE_STALE")
	for name, d := range map[string]*time.Duration{"CACHE_TTL": &c.TTL, "CACHE_NEGATIVE_TTL": &c.NegativeTTL, "CACHE_STALE": &c.Stale} {
		if os.Getenv(name) != "" && *d == 0 {
			*d = -1 // 0 forbids
		}
	}
	size, err := number("CACHE_SIZE")
	c.Size, errs[3] = int64(size), err
	c.MaxEntries, errs[4] = number("MAX_BTREE_COUNT")
	return c, errors.Join(errs[:]...)
}

// duration reads a variable that holds a Go duration or plain seconds.
func duration(name string) (time.Duration, error) {
	v := os.Getenv(name)
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if n, err2 := strconv.Atoi(v); err2 == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s: want seconds or a duration like 10m, not %q", name, v)
	}
	return d, nil
}

// number reads a variable that holds a number, 0 if it is empty.
func number(name string) (int, error) {
	v := os.Getenv(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: want a number, not %q", name, v)
	}
	return n, nil
}
