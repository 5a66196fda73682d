package main

// -compare asks two servers the same questions, and prints where their answers
// differ. Use it before one server replaces another.
//
// One goroutine reads addresses. Each client takes one, asks types 1 to 6 about
// it, then types 6 and 7 about its domain. In a cluster the order is another
// one: see cluster.go. Answers are decoded before they are compared, and no
// password hash is printed. known.go lists where the C server is wrong. Memory
// does not grow with the number of addresses.

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inlookup/inlookup"
)

func (o *options) checkCompare() error {
	switch {
	case o.other == "":
		return errors.New("-compare needs the FIFO of the other server, or the word mysql")
	case o.clients < 1 || o.clients > maxClients:
		return fmt.Errorf("-p %d: want 1 to %d clients", o.clients, maxClients)
	case o.given["c"] && o.recent < 1:
		return fmt.Errorf("-c %d: want seconds, at least 1", o.recent)
	}
	return nil
}

// A comparison is one run.
type comparison struct {
	program  *program
	sides    [2]side
	routes   []route // of the control files
	progress *progress
	cluster  *cluster

	addresses atomic.Int64
	withoutIP atomic.Int64 // addresses without a question to relay
	counts    [outcomes]atomic.Int64
	said      [2]string // the last error of each side, as printed
}

// A side is one of the two sources: A or B.
type side struct {
	letter string
	source
	fifos *spread // nil: MySQL itself, or a server of this process
}

// The outcomes of a question.
const (
	same = iota
	differs
	known      // differs because of a known fault of the C server
	unanswered // by at least one side
	outcomes
)

// compare compares the usual server, as connect finds it, with o.other.
func (p *program) compare(ctx context.Context, o *options) error {
	if overTCP(p.getenv) {
		return fmt.Errorf("-compare: tcpclient's connection takes one question only (%w)", errUsage)
	}
	c := &comparison{program: p, routes: readRoutes(p.getenv)}
	a, err := p.connect(o)
	if err != nil {
		return err
	}
	defer a.close()
	b, err := p.connectOther(o.other)
	if err != nil {
		return err
	}
	defer b.close()
	if a.fifo == b.fifo && a.name == b.name {
		return fmt.Errorf("both sides are %s: name another with -i or -compare (%w)",
			a.name, errUsage)
	}
	c.sides = [2]side{{letter: "A", source: a}, {letter: "B", source: b}}
	c.sides[0].spread(p, o.infifo)
	c.sides[1].spread(p, o.other)
	for _, s := range c.sides {
		fmt.Fprintf(p.out, "%s: %s\n", s.letter, s.name)
		if m, ok := s.Resolver.(*inlookup.MySQL); ok {
			if err := m.Reload(false); err != nil { // the configuration is wrong
				return err
			}
		}
	}
	feed := p.readAddresses
	if o.recent > 0 {
		feed = p.recentAddresses(time.Duration(o.recent) * time.Second)
	}
	start := time.Now()
	err = c.askAll(ctx, o.clients, feed)
	c.report(time.Since(start))
	return c.verdict(ctx, err)
}

// connectOther finds the second side.
func (p *program) connectOther(other string) (source, error) {
	if other == "mysql" {
		return p.newSource(p.mysql(), mysqlItself), nil
	}
	fifo, err := p.listener(other)
	if errors.Is(err, errNobody) {
		err = fmt.Errorf("%w on %s: is the other server running?", errNobody, fifo)
	}
	return p.newServer(&inlookup.Client{Infifo: fifo, Getenv: p.getenv}, fifo), err
}

// An entry is one address to compare.
type entry struct {
	email string
	ip    string // for relay; may be empty
}

// A feed calls add with each address, until add returns false.
type feed func(ctx context.Context, add func(entry) bool) error

// readAddresses feeds the lines of standard input.
func (p *program) readAddresses(_ context.Context, add func(entry) bool) error {
	lines := bufio.NewScanner(p.stdin)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		e := entry{email: fields[0]}
		valid := len(fields) <= 2
		if len(fields) == 2 {
			e.ip = fields[1]
			_, err := netip.ParseAddr(e.ip)
			valid = err == nil
		}
		if !valid {
			return fmt.Errorf("standard input, line %d: "+
				"want an address and perhaps an IP address (%w)", n, errUsage)
		}
		if !add(e) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	return nil
}

// recentAddresses feeds the addresses that logged in within age.
func (p *program) recentAddresses(age time.Duration) feed {
	return func(ctx context.Context, add func(entry) bool) error {
		m := p.newMySQL()
		defer m.Close()
		emails, err := m.Recent(ctx, age)
		if err != nil {
			return fmt.Errorf("reading who logged in lately: %w", err)
		}
		for _, email := range emails {
			if !add(entry{email: email}) {
				break
			}
		}
		return nil
	}
}

// A job is the questions about an address, and about its domain if no job
// before had it.
type job []inlookup.Query

// askAll asks about all addresses, with this many clients at the same time. In
// a cluster it asks about distributed domains first. It returns at once when
// ctx is done, even if feed still waits for a line.
func (c *comparison) askAll(ctx context.Context, clients int, feed feed) error {
	c.progress = c.program.showProgress(c.status())
	defer c.progress.stop()
	c.cluster = c.program.newCluster()
	defer c.cluster.close()
	if len(c.cluster.distributed) == 0 {
		return c.askJobs(ctx, clients, func(add func(job) bool) error {
			return c.jobs(ctx, feed, add)
		})
	}
	others, err := newSpool()
	if err != nil {
		return fmt.Errorf("questions to ask later: %w", err)
	}
	defer others.file.Close()
	err = c.askJobs(ctx, clients, func(add func(job) bool) error {
		return c.distributed(ctx, feed, add, others)
	})
	if ctx.Err() != nil {
		return err
	}
	return cmp.Or(err, c.askJobs(ctx, clients, others.jobs))
}

// distributed calls add with the questions about distributed domains, and
// stores all others.
func (c *comparison) distributed(
	ctx context.Context, feed feed, add func(job) bool, others *spool,
) error {
	primed := false
	var failed error
	err := c.jobs(ctx, feed, func(all job) bool {
		first, rest := c.cluster.split(ctx, all)
		if len(rest) > 0 {
			failed = others.stored.Encode(rest)
		}
		if len(first) == 0 || failed != nil {
			return failed == nil
		}
		if !primed {
			primed = true
			c.prime(ctx, first[0])
		}
		return add(first)
	})
	return cmp.Or(err, failed)
}

// prime asks the first question of all on each FIFO of both sides.
func (c *comparison) prime(ctx context.Context, q inlookup.Query) {
	for _, s := range c.sides {
		if s.fifos != nil {
			s.fifos.prime(ctx, q)
		}
	}
}

// jobs calls add with the job of each address, until add returns false.
func (c *comparison) jobs(ctx context.Context, feed feed, add func(job) bool) error {
	var seen domains
	return feed(ctx, func(e entry) bool {
		c.addresses.Add(1)
		return add(c.job(e, seen.add(domainOf(e.email))))
	})
}

// job returns all questions about an address, and about a domain unless that is
// empty.
func (c *comparison) job(e entry, domain string) (all job) {
	for _, question := range questions {
		q := inlookup.Query{Type: question.typ, Email: e.email}
		switch q.Type {
		case inlookup.TypeRelay:
			if e.ip == "" {
				c.withoutIP.Add(1)
				continue
			}
			q.IP = e.ip
		case inlookup.TypeLimit:
			if domainOf(e.email) == e.email {
				continue // asked below
			}
		case inlookup.TypeDomain:
			continue // asked below
		}
		all = append(all, q)
	}
	if domain != "" {
		all = append(all, inlookup.Query{Type: inlookup.TypeLimit, Email: domain},
			inlookup.Query{Type: inlookup.TypeDomain, Email: domain})
	}
	return all
}

// askJobs asks the jobs with which source calls add.
func (c *comparison) askJobs(
	ctx context.Context, clients int, source func(add func(job) bool) error,
) error {
	jobs := make(chan job)
	ended := make(chan error, 1)
	go func() {
		defer close(jobs)
		ended <- source(func(j job) bool {
			select {
			case jobs <- j:
				return true
			case <-ctx.Done():
				return false
			}
		})
	}()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { c.client(ctx, jobs) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return <-ended
}

// domains remembers domains, so that each is asked once. When there are too
// many it forgets all of them, and may let one be asked again.
type domains map[string]bool

const maxDomains = 1 << 16

// add returns domain if it is new, else "".
func (d *domains) add(domain string) string {
	domain = strings.ToLower(domain)
	if (*d)[domain] {
		return ""
	}
	if *d == nil || len(*d) >= maxDomains {
		*d = make(domains)
	}
	(*d)[domain] = true
	return domain
}

// client asks until there are no more jobs, or ctx is done.
func (c *comparison) client(ctx context.Context, jobs <-chan job) {
	for {
		select {
		case <-ctx.Done():
			return
		case j, more := <-jobs:
			if !more {
				return
			}
			for _, q := range j {
				c.ask(ctx, q)
			}
		}
	}
}

// ask asks both sides, counts the outcome and prints a difference. It does not
// count a question that Ctrl-C interrupted.
func (c *comparison) ask(ctx context.Context, q inlookup.Query) {
	var replies [2]reply
	for i, s := range c.sides {
		replies[i] = s.ask(ctx, q)
	}
	outcome, fault := c.judge(ctx, q, replies)
	if ctx.Err() != nil {
		return
	}
	c.counts[outcome].Add(1)
	if outcome != same {
		c.progress.write(func() { c.print(outcome, fault, q, replies) })
	}
}

// judge returns the outcome of two replies, and with known the fault.
func (c *comparison) judge(ctx context.Context, q inlookup.Query, r [2]reply) (int, string) {
	if r[0].same(r[1]) {
		return same, ""
	}
	if fault := c.knownFault(ctx, q, r); fault != "" {
		return known, fault
	}
	if r[0].err != nil || r[1].err != nil {
		return unanswered, ""
	}
	return differs, ""
}

// A reply is one side's answer to a question, or the reason for none.
type reply struct {
	answer  inlookup.Answer
	fields  []field // none: absent, or not understood
	absent  bool
	invalid error // why the answer is not understood
	err     error // why there is no answer
}

// ask asks a question, and again if there is no answer.
func (s side) ask(ctx context.Context, q inlookup.Query) (r reply) {
	r.answer, r.err = s.Resolve(ctx, q)
	if r.err != nil {
		r.answer, r.err = s.Resolve(ctx, q)
	}
	if r.err != nil {
		r.err = s.advise(r.err, q)
		return r
	}
	var err error
	r.fields, err = questionOf(q.Type).decode(r.answer)
	switch {
	case errors.Is(err, inlookup.ErrNotFound):
		r.absent = true
	case errors.Is(err, inlookup.ErrUnavailable):
		r.err = err
	default:
		r.invalid = err
	}
	return r
}

// same reports whether both sides answered, and their answers mean the same.
func (r reply) same(other reply) bool {
	switch {
	case r.err != nil || other.err != nil:
		return false
	case r.answer.Equal(other.answer):
		return true
	case r.invalid != nil || other.invalid != nil:
		return false
	}
	return r.absent == other.absent && slices.Equal(r.fields, other.fields)
}

// text returns the whole reply as readable text.
func (r reply) text() string {
	switch {
	case r.err != nil:
		return singleLine(r.err.Error())
	case r.invalid != nil:
		return "not understood: " + singleLine(r.invalid.Error())
	case r.absent:
		return "absent"
	}
	var parts []string
	for _, f := range r.fields {
		switch {
		case f.secret:
			parts = append(parts, fmt.Sprintf("%s (%s)", f.name, f.shown()))
		case !f.usual:
			parts = append(parts, f.name+" "+f.shown())
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "no limits")
}

// A field is one value of an answer.
type field struct {
	name   string
	value  string
	secret bool // never shown, not even in part
	usual  bool // left out of reply.text
}

// shown returns the value, or a description if it is secret.
func (f field) shown() string {
	switch {
	case !f.secret:
		return f.value
	case f.value == "":
		return "empty"
	case f.name == "passwd":
		return fmt.Sprintf("hash, %d bytes", len(f.value))
	}
	return fmt.Sprintf("text, %d bytes", len(f.value))
}

// difference describes how f differs from the other side's.
func (f field) difference(other field) string {
	format := "%s: %s / %s"
	if f.secret || other.secret {
		format = "%s: differs (%s / %s)"
	}
	return fmt.Sprintf(format, f.name, f.shown(), other.shown())
}

func decodeUser(a inlookup.Answer) ([]field, error) {
	s, err := a.Status()
	if err == nil && s == inlookup.StatusAbsent {
		err = inlookup.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return []field{{name: "status", value: s.String()}}, nil
}

func decodeRelay(a inlookup.Answer) ([]field, error) {
	yes, err := a.Relay()
	if err != nil {
		return nil, err
	}
	return []field{{name: "authenticated", value: yesOrNo(yes)}}, nil
}

// decodePasswd treats a gecos with a colon as a secret. It may be the rest of a
// password, if that has colons.
func decodePasswd(a inlookup.Answer) ([]field, error) {
	e, err := a.Passwd()
	if err != nil {
		return nil, err
	}
	return []field{
		{name: "name", value: quote(e.Email)},
		{name: "passwd", value: e.Passwd.Reveal(), secret: true},
		{name: "uid", value: fmt.Sprint(e.UID)},
		{name: "gid", value: fmt.Sprint(e.GID)},
		gecosField(e.Gecos),
		{name: "dir", value: quote(e.Dir)},
		{name: "shell", value: quote(e.Shell)},
		{name: "inactive", value: yesOrNo(e.Inactive)},
	}, nil
}

func gecosField(gecos string) field {
	if strings.Contains(gecos, ":") {
		return field{name: "gecos", value: gecos, secret: true}
	}
	return field{name: "gecos", value: quote(gecos)}
}

func decodeHost(a inlookup.Answer) ([]field, error) { return decodeText("route", a) }

func decodeDomain(a inlookup.Answer) ([]field, error) { return decodeText("domain", a) }

func decodeText(name string, a inlookup.Answer) ([]field, error) {
	text, err := a.Text()
	if err != nil {
		return nil, err
	}
	return []field{{name: name, value: quote(text)}}, nil
}

func decodeAlias(a inlookup.Answer) ([]field, error) {
	lines, err := a.Alias()
	if err == nil && len(lines) == 0 {
		err = inlookup.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	for i, line := range lines {
		lines[i] = quote(line)
	}
	return []field{{name: "lines", value: strings.Join(lines, " ")}}, nil
}

// decodeLimits names the fields as package inlookup does. -1 and 0 are usual,
// because they mean "no limit".
func decodeLimits(a inlookup.Answer) ([]field, error) {
	l, err := a.Limits()
	if err != nil {
		return nil, err
	}
	var fields []field
	record := reflect.ValueOf(l)
	for i := range record.NumField() {
		if f := record.Type().Field(i); f.IsExported() {
			value := fmt.Sprint(record.Field(i))
			usual := value == "-1" || value == "0"
			fields = append(fields, field{name: f.Name, value: value, usual: usual})
		}
	}
	return fields, nil
}

// quote returns text without control characters. It hides a password entry,
// which a faulty server may send in place of the text.
func quote(text string) string {
	if strings.Contains(text, "PWSTRUCT=") {
		return "(a password entry)"
	}
	return fmt.Sprintf("%q", text)
}

func yesOrNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// print writes one question whose answers are not the same.
func (c *comparison) print(outcome int, fault string, q inlookup.Query, r [2]reply) {
	out := c.program.out
	title := fmt.Sprintf("%s of %q", questionOf(q.Type).what, q.Email)
	if q.IP != "" {
		title += " from " + q.IP
	}
	words := [outcomes]string{"same", "differs", "known", "error"}
	fmt.Fprintf(out, "%s: %s\n", words[outcome], title)
	if outcome == known {
		fmt.Fprintf(out, "  the C server %s\n", fault)
	}
	pairs := q.Type != inlookup.TypeAlias // whose one field may be long
	if pairs && len(r[0].fields) > 0 && len(r[0].fields) == len(r[1].fields) {
		for i, f := range r[0].fields {
			if f != r[1].fields[i] {
				fmt.Fprintf(out, "  %s\n", f.difference(r[1].fields[i]))
			}
		}
	} else {
		for i, s := range c.sides {
			fmt.Fprintf(out, "  %s: %s\n", s.letter, c.replyText(i, q, r[i]))
		}
	}
	out.Flush() // the last Flush returns its error
}

// replyText is r.text, but never the same error twice in a row. Calls do not
// overlap.
func (c *comparison) replyText(side int, q inlookup.Query, r reply) string {
	text := r.text()
	if r.err == nil {
		return text
	}
	fault := strings.TrimPrefix(text, q.Type.String()+": ")
	if c.said[side] == fault {
		return "the same error"
	}
	c.said[side] = fault
	return text
}

// questions returns the number of questions asked.
func (c *comparison) questions() (n int64) {
	for i := range c.counts {
		n += c.counts[i].Load()
	}
	return n
}

// status returns a function that describes the progress.
func (c *comparison) status() func() string {
	var rate meter
	return func() string {
		n := c.questions()
		differ, errs := c.counts[differs].Load(), c.counts[unanswered].Load()
		return fmt.Sprintf("addresses %d, questions %d, differ %d, errors %d, queries/s %d",
			c.addresses.Load(), n, differ, errs, rate.since(n))
	}
}

// report prints the counts.
func (c *comparison) report(took time.Duration) {
	row := func(label string, n int64) {
		fmt.Fprintf(c.program.out, "%-12s %d\n", label, n)
	}
	row("addresses", c.addresses.Load())
	row("questions", c.questions())
	row("same", c.counts[same].Load())
	row("differ", c.counts[differs].Load())
	row("known", c.counts[known].Load())
	row("errors", c.counts[unanswered].Load())
	fmt.Fprintf(c.program.out, "%-12s %v\n", "took", short(took))
	c.program.out.Flush() // the last Flush returns its error
	if n := c.withoutIP.Load(); n > 0 {
		noun := "addresses: no IP address follows them"
		if n == 1 {
			noun = "address: no IP address follows it"
		}
		c.program.say("relay was not asked for %d %s", n, noun)
	}
	if err := c.cluster.err; err != nil && c.counts[unanswered].Load() > 0 {
		c.program.say("distributed domains, if there are any, were not asked first: %v", err)
	}
	for _, s := range c.sides {
		if text := s.restarts(); text != "" {
			c.program.say("%s", text)
		}
	}
}

// verdict returns the error to exit with. err is why the comparison ended
// early.
func (c *comparison) verdict(ctx context.Context, err error) error {
	differ, errs := c.counts[differs].Load(), c.counts[unanswered].Load()
	if ctx.Err() != nil {
		err = errors.New("interrupted: not all addresses were compared")
	}
	switch {
	case differ > 0 && err != nil:
		return fmt.Errorf("%w, and: %v", errDiffer, err)
	case differ > 0:
		return errDiffer
	case err != nil:
		return err
	case errs > 0:
		return fmt.Errorf("questions not answered by both sides: %d", errs)
	case c.addresses.Load() == 0:
		return errors.New("there were no addresses: nothing was compared")
	}
	return nil
}

// domainOf returns what follows the separator of an address, or all of it if
// there is none, because it may be a domain.
func domainOf(email string) string {
	if i := separator(email); i >= 0 {
		return email[i+1:]
	}
	return email
}

// separator returns the place of the last @, else of the last % or colon, else
// -1.
func separator(email string) int {
	if i := strings.LastIndexByte(email, '@'); i >= 0 {
		return i
	}
	return strings.LastIndexAny(email, "%:")
}
