package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
)

// A demoFlag is "", "true" for -demo, or "serve" to run until interrupted.
type demoFlag string

func (f *demoFlag) String() string   { return string(*f) }
func (f *demoFlag) IsBoolFlag() bool { return true }
func (f *demoFlag) Set(v string) error {
	if v != "true" && v != "serve" {
		return errors.New("want -demo or -demo=serve")
	}
	*f = demoFlag(v)
	return nil
}

// demo runs a server in a temporary directory, shows what it does, and removes
// everything. Control-C, SIGTERM and a closed terminal end it without an error.
func demo(mode demoFlag, w io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(),
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	dir, err := os.MkdirTemp("", "inlookup-demo.")
	if err != nil {
		return err
	}
	err = demoIn(ctx, dir, mode, w)
	if ctx.Err() != nil {
		err = nil // a consequence of the interruption
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// demoIn is demo in this directory.
func demoIn(ctx context.Context, dir string, mode demoFlag, w io.Writer) (err error) {
	env := map[string]string{
		"CONTROLDIR":     filepath.Join(dir, "control"),
		"ASSIGNDIR":      dir,
		"FIFOTMPDIR":     dir,
		"INFIFO":         filepath.Join(dir, "infifo"),
		"DEFAULT_DOMAIN": "example.com",
	}
	getenv := func(name string) string { return env[name] }
	a := &admin{mysql: &inlookup.MySQL{Getenv: getenv}}
	var resolver inlookup.Resolver = a.mysql
	db, err := demoDatabase(ctx, dir, env)
	switch {
	case errors.Is(err, mariadb.ErrNotInstalled):
		fmt.Fprint(w, withoutMariaDB)
		resolver = builtIn{}
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, db.Stop()) }()
		fmt.Fprintf(w, "A private MariaDB runs in %s, with the sample domain example.com.\n", dir)
	}
	defer a.mysql.Close()
	a.cache = &inlookup.Cache{
		Resolver:      resolver,
		TTL:           time.Second,
		DefaultDomain: env["DEFAULT_DOMAIN"],
	}
	a.server = &inlookup.Server{Resolver: a.cache, Getenv: getenv, Admin: a.answer}
	stop, err := serveInBackground(a.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	client := &inlookup.Client{Getenv: getenv}
	d := demonstration{
		ctx: ctx, w: w, paint: paints(w), cache: a.cache, mysql: a.mysql, client: client,
	}
	d.tour(db)
	d.status()
	if mode == "serve" {
		d.invite(env)
	}
	d.say("\nAll that the demo made is removed again.\n")
	return nil
}

// serveInBackground starts a server; stop ends it.
func serveInBackground(s *inlookup.Server) (stop func() error, err error) {
	if err := s.Listen(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	return func() error {
		cancel()
		return <-done
	}, nil
}

const withoutMariaDB = `There is no MariaDB on this machine. To see it with one:
  apt-get update && apt-get install -y --no-install-recommends mariadb-server
Until then a small directory that is built in answers, through the same server
and FIFOs.
`

var startMariaDB = mariadb.Start // replaced in a test

// demoDatabase starts the private MariaDB, loads the sample domain, and adds to
// env how to reach it.
func demoDatabase(ctx context.Context, dir string, env map[string]string) (*mariadb.DB, error) {
	data := filepath.Join(dir, "mysql")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	db, err := startMariaDB(ctx, data)
	if err != nil {
		return nil, err
	}
	env["MYSQL_SOCKET"] = db.Socket
	env["MYSQL_PASSWD"] = "secret"
	if err := db.Exec(mariadb.Schema + mariadb.Sample); err != nil {
		return nil, errors.Join(err, db.Stop())
	}
	return db, nil
}

// A demonstration is one run of -demo.
type demonstration struct {
	ctx    context.Context // once done, nothing more is printed
	w      io.Writer
	paint  bool // w is a terminal that shows colours
	cache  *inlookup.Cache
	mysql  *inlookup.MySQL
	client *inlookup.Client
}

func (d demonstration) say(format string, args ...any) {
	if d.ctx.Err() == nil {
		fmt.Fprintf(d.w, format, args...)
	}
}

// Colours, as the parameters of the terminal's escape sequence SGR (ECMA-48).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paints reports whether w is a terminal that shows colours, and NO_COLOR is
// not set (https://no-color.org).
func paints(w io.Writer) bool {
	f, isFile := w.(*os.File)
	if !isFile || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// colour returns s in that colour, if the terminal shows any.
func (d demonstration) colour(sgr, s string) string {
	if !d.paint || sgr == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (d demonstration) heading(s string) { d.say("\n%s\n", d.colour(bold, s)) }

// tour asks the seven questions twice, then two without the database, and one
// when it is back.
func (d demonstration) tour(db *mariadb.DB) {
	d.heading("The seven questions, asked over FIFOs as a mail program does:")
	d.seven()
	d.heading("The same again; relaying is never kept:")
	d.seven()
	if db == nil || d.ctx.Err() != nil {
		return
	}
	if err := db.Kill(); err != nil {
		d.say("cannot kill MariaDB: %v\n", err)
		return
	}
	const expiry = 1100 * time.Millisecond // just over the TTL of the cache
	select {
	case <-time.After(expiry):
	case <-d.ctx.Done():
		return
	}
	d.heading("MariaDB is killed, and what is known has expired:")
	d.ask(inlookup.Query{Type: inlookup.TypePasswd, Email: "user@example.com"})
	d.ask(inlookup.Query{Type: inlookup.TypePasswd, Email: "postmaster@example.com"})
	if err := db.Restart(d.ctx); err != nil {
		d.say("cannot start MariaDB again: %v\n", err)
		return
	}
	d.await()
	d.heading("MariaDB is back, and within a second the server has noticed:")
	d.ask(inlookup.Query{Type: inlookup.TypePasswd, Email: "postmaster@example.com"})
}

// await waits until the server is connected to MariaDB again.
func (d demonstration) await() {
	isUp := func() bool {
		for _, database := range d.mysql.Stats().Databases {
			if !database.Up {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(10 * time.Second); !isUp() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// seven asks the seven questions.
func (d demonstration) seven() {
	for t := inlookup.TypeUser; t <= inlookup.TypeDomain; t++ {
		q := inlookup.Query{Type: t, Email: "user@example.com"}
		switch t {
		case inlookup.TypeRelay:
			q.IP = "192.0.2.10"
		case inlookup.TypeAlias:
			q.Email = "sales@example.com"
		case inlookup.TypeDomain:
			q.Email = "example.com"
		}
		d.ask(q)
	}
}

// ask asks one question. It prints the question, the answer, where that came
// from, and how long it took.
func (d demonstration) ask(q inlookup.Query) {
	before := d.cache.Stats()
	start := time.Now()
	a, err := d.client.Resolve(d.ctx, q)
	took := time.Since(start)
	after := d.cache.Stats()
	from, sgr := "looked up", ""
	switch {
	case err != nil:
		from, sgr = "error", red
	case after.StaleHits > before.StaleHits:
		from, sgr = "expired, from memory", yellow
	case after.Hits > before.Hits:
		from, sgr = "from memory", green
	}
	answer := "unavailable, try again later"
	if err == nil {
		answer = show(q.Type, a)
	}
	from = d.colour(sgr, fmt.Sprintf("%-21s", from)) // padded first: codes have no width
	asked := strings.TrimSpace(q.Email + " " + q.IP)
	d.say("  %-20s %-28s %7d µs  %s %s\n", q.Type, asked, took.Microseconds(), from, answer)
}

// status asks the server for its status, and prints the counters that are not
// zero.
func (d demonstration) status() {
	d.heading("What the server has counted, of all that inquerytest -s prints:")
	text, err := d.client.Status(d.ctx)
	if err != nil {
		d.say("  %s\n", d.colour(red, err.Error()))
		return
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		space := strings.LastIndexByte(line, ' ') // a label may have others
		name, value := line[:space], line[space+1:]
		counter, _, _ := strings.Cut(name, "{")
		if !strings.HasSuffix(counter, "_total") || value == "0" {
			continue
		}
		if strings.Contains(counter, "errors") {
			value += "  (while MariaDB was away)"
		}
		d.say("  %-40s %s\n", name, value)
	}
}

// show returns an answer as readable text, without the password hash.
func show(t inlookup.Type, a inlookup.Answer) string {
	var value any
	var err error
	switch t {
	case inlookup.TypeUser:
		value, err = a.Status()
	case inlookup.TypeRelay:
		value, err = a.Relay()
	case inlookup.TypePasswd:
		var p inlookup.Passwd
		p, err = a.Passwd()
		value = p.Gecos + ", " + p.Dir
	case inlookup.TypeAlias:
		var lines []string
		lines, err = a.Alias()
		value = strings.Join(lines, " ")
	case inlookup.TypeLimit:
		var l inlookup.Limits
		l, err = a.Limits()
		value = fmt.Sprintf("%d accounts, %d bytes", l.MaxPopAccounts, l.DiskQuota)
	default:
		value, err = a.Text()
	}
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(value)
}

// invite says what to try, and waits until it is interrupted.
func (d demonstration) invite(env map[string]string) {
	ask := "  QUERY_CACHE=1 FIFOTMPDIR=" + env["FIFOTMPDIR"] + " " +
		inquerytest() + " -i " + env["INFIFO"]
	d.heading("The server goes on. Try in another terminal:")
	d.say("%s -q 3 user@example.com\n%[1]s -x -q 3 user@example.com\n%[1]s -s\n"+
		"Control-C ends it.\n", ask)
	<-d.ctx.Done()
}

// inquerytest returns how to run that program: beside this one, in a clone, or
// by its name.
func inquerytest() string {
	const source = "./cmd/inquerytest"
	program, err := os.Executable()
	beside := filepath.Join(filepath.Dir(program), "inquerytest")
	if _, statErr := os.Stat(beside); err == nil && statErr == nil {
		return beside
	}
	if _, err := os.Stat(source); err == nil {
		return "go run " + source
	}
	return "inquerytest"
}

// builtIn is a small directory in place of a database.
type builtIn struct{}

func (builtIn) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	if q.Type == inlookup.TypeAlias && q.Email == "sales@example.com" {
		return inlookup.NewData(q.Type, "&someone@example.net\n&user@example.com\n"), nil
	}
	if q.Email != "user@example.com" {
		return inlookup.Absent(q), nil
	}
	switch q.Type {
	case inlookup.TypeUser:
		return inlookup.NewAnswer(int(inlookup.StatusActive)), nil
	case inlookup.TypeRelay:
		if q.IP == "192.0.2.10" {
			return inlookup.NewAnswer(1), nil
		}
	case inlookup.TypePasswd:
		return inlookup.NewPasswd(inlookup.Passwd{
			Email:  q.Email,
			Passwd: inlookup.NewSecret("$5$demo$NotARealHash2"),
			UID:    1,
			Gecos:  "A User",
			Dir:    "/home/mail/example.com/user",
			Shell:  "5000000S",
		}), nil
	case inlookup.TypeHost:
		return inlookup.NewData(q.Type, "example.com:127.0.0.1:25"), nil
	case inlookup.TypeLimit:
		return inlookup.NewLimits(inlookup.Limits{
			MaxPopAccounts: 100,
			DiskQuota:      9000000000,
			LimitType:      inlookup.LimitsOfDomain,
		}), nil
	}
	return inlookup.Absent(q), nil
}
