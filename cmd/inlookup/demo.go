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

// A demoFlag is -demo, or -demo=serve to stay until interrupted.
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

// demo shows the server at work in a temporary directory, and leaves nothing
// behind.
func demo(mode demoFlag, w io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "inlookup-demo.")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := map[string]string{"CONTROLDIR": filepath.Join(dir, "control"), "ASSIGNDIR": dir,
		"FIFOTMPDIR": dir, "INFIFO": filepath.Join(dir, "infifo"), "DEFAULT_DOMAIN": "example.com"}
	getenv := func(name string) string { return env[name] }

	db, err := demoDatabase(ctx, dir, env)
	admin := &admin{mysql: &inlookup.MySQL{Getenv: getenv}}
	defer admin.mysql.Close()
	var resolver inlookup.Resolver = admin.mysql
	switch {
	case errors.Is(err, mariadb.ErrNotInstalled):
		fmt.Fprintf(w, "There is no MariaDB on this machine. To see it with one:\n  apt-get update && apt-get install -y --no-install-recommends mariadb-server\n"+
			"Until then a small directory that is built in answers, through the same server and FIFOs.\n")
		resolver = builtIn{}
	case err != nil:
		return err
	default:
		defer func() { err = errors.Join(err, db.Stop()) }()
		fmt.Fprintf(w, "A private MariaDB runs in %s, with the sample domain example.com.\n", dir)
	}
	admin.cache = &inlookup.Cache{Resolver: resolver, TTL: time.Second, DefaultDomain: "example.com"}
	admin.server = &inlookup.Server{Resolver: admin.cache, Getenv: getenv, Admin: admin.answer}
	if err := admin.server.Listen(); err != nil {
		return err
	}
	serving, done := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- admin.server.Serve(serving) }()
	defer func() { done(); err = errors.Join(err, <-served) }()

	d := demonstration{w, paints(w), admin.cache, &inlookup.Client{Getenv: getenv}}
	d.tour(ctx, db)
	d.status(ctx)
	if mode == "serve" {
		d.invite(ctx, env)
	}
	fmt.Fprintln(w, "\nThe server, the database and their files are gone again.")
	return nil
}

var startMariaDB = mariadb.Start // a test puts a machine without MariaDB in its place

// demoDatabase starts the private MariaDB and loads the sample domain.
func demoDatabase(ctx context.Context, dir string, env map[string]string) (*mariadb.DB, error) {
	data := filepath.Join(dir, "mysql")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	db, err := startMariaDB(ctx, data)
	if err != nil {
		return nil, err
	}
	env["MYSQL_SOCKET"], env["MYSQL_PASSWD"] = db.Socket, "secret"
	if err := db.Exec(mariadb.Schema + mariadb.Sample); err != nil {
		return nil, errors.Join(err, db.Stop())
	}
	return db, nil
}

type demonstration struct {
	w      io.Writer
	paint  bool // w is a terminal that shows colours
	cache  *inlookup.Cache
	client *inlookup.Client
}

// Colours, as the parameters of the terminal's escape sequence SGR (ECMA-48).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paints reports whether w shows colours, and nobody has asked for none
// (https://no-color.org).
func paints(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

func (d demonstration) colour(sgr, s string) string {
	if !d.paint || sgr == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (d demonstration) heading(s string) { fmt.Fprintln(d.w, "\n"+d.colour(bold, s)) }

// tour asks everything twice, then without the database.
func (d demonstration) tour(ctx context.Context, db *mariadb.DB) {
	d.heading("The seven questions, asked over FIFOs as a mail program does:")
	d.seven(ctx)
	d.heading("The same again:")
	d.seven(ctx)
	if db == nil {
		return
	}
	if err := db.Kill(); err != nil {
		fmt.Fprintln(d.w, "cannot kill MariaDB:", err)
		return
	}
	time.Sleep(1100 * time.Millisecond) // the TTL of the demo: what is known has expired
	d.heading("MariaDB is killed, and what is known has expired:")
	d.ask(ctx, inlookup.Query{Type: inlookup.TypePasswd, Email: "user@example.com"})
	d.ask(ctx, inlookup.Query{Type: inlookup.TypePasswd, Email: "postmaster@example.com"})
	if err := db.Restart(ctx); err != nil {
		fmt.Fprintln(d.w, "cannot start MariaDB again:", err)
		return
	}
	d.heading("MariaDB is back:")
	d.ask(ctx, inlookup.Query{Type: inlookup.TypePasswd, Email: "postmaster@example.com"})
}

func (d demonstration) seven(ctx context.Context) {
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
		d.ask(ctx, q)
	}
}

// ask asks one question and prints it, its answer, how long it took, and where
// the answer came from.
func (d demonstration) ask(ctx context.Context, q inlookup.Query) {
	before := d.cache.Stats()
	start := time.Now()
	a, err := d.client.Resolve(ctx, q)
	took := time.Since(start)
	after := d.cache.Stats()
	from, sgr := "looked up", ""
	switch {
	case err != nil:
		from, sgr = "error", red
	case after.Stale > before.Stale:
		from, sgr = "expired, from memory", yellow
	case after.Hits > before.Hits:
		from, sgr = "from memory", green
	}
	answer := "unavailable, try again later"
	if err == nil {
		answer = show(q.Type, a)
	}
	from = d.colour(sgr, fmt.Sprintf("%-21s", from)) // padded first: the escape sequence has no width
	fmt.Fprintf(d.w, "  %-20s %-28s %7d µs  %s %s\n", q.Type, strings.TrimSpace(q.Email+" "+q.IP), took.Microseconds(), from, answer)
}

// status asks the server what it has counted, and prints what is not zero.
func (d demonstration) status(ctx context.Context) {
	d.heading("What the server has counted (inquerytest -s):")
	a, err := d.client.Resolve(ctx, inlookup.Query{Type: inlookup.TypeStatus})
	if err != nil {
		fmt.Fprintln(d.w, " ", d.colour(red, err.Error()))
		return
	}
	for line := range strings.Lines(a.Data()) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "inlookup_")), " ")
		if name != "#" && name != "start_time_seconds" && value != "0" {
			fmt.Fprintf(d.w, "  %-44s %s\n", name, value)
		}
	}
}

// show returns an answer for people. The hash of a password is left out.
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

// invite waits until it is interrupted, and says what to try meanwhile.
func (d demonstration) invite(ctx context.Context, env map[string]string) {
	ask := "  QUERY_CACHE=1 FIFOTMPDIR=" + env["FIFOTMPDIR"] + " go run ./cmd/inquerytest -i " + env["INFIFO"]
	d.heading("The server goes on. Try in another terminal:")
	fmt.Fprintf(d.w, "%s -q 3 user@example.com\n%[1]s -x -q 3 user@example.com\n%[1]s -s\nControl-C ends it.\n", ask)
	<-ctx.Done()
}

// builtIn is a directory without a database: a Resolver is all that a Server
// needs.
type builtIn struct{}

func (builtIn) Resolve(_ context.Context, q inlookup.Query) (inlookup.Answer, error) {
	user := q.Email == "user@example.com"
	switch {
	case q.Type == inlookup.TypeUser && user:
		return inlookup.NewAnswer(int(inlookup.StatusActive)), nil
	case q.Type == inlookup.TypeRelay && user && q.IP == "192.0.2.10":
		return inlookup.NewAnswer(1), nil
	case q.Type == inlookup.TypePasswd && user:
		return inlookup.NewPasswd(inlookup.Passwd{Email: q.Email, Passwd: "$5$demo$NotARealHash2", UID: 1, Gecos: "A User",
			Dir: "/home/mail/example.com/user", Shell: "5000000S"}), nil
	case q.Type == inlookup.TypeHost && user:
		return inlookup.NewData(q.Type, "example.com:127.0.0.1:25"), nil
	case q.Type == inlookup.TypeAlias && q.Email == "sales@example.com":
		return inlookup.NewData(q.Type, "&someone@example.net\n&user@example.com\n"), nil
	case q.Type == inlookup.TypeLimit && user:
		return inlookup.NewLimits(inlookup.Limits{MaxPopAccounts: 100, DiskQuota: 9000000000, LimitType: 1}), nil
	}
	return inlookup.Absent(q), nil
}
