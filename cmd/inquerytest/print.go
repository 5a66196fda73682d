package main

// The output is byte for byte that of the C program, because scripts read it.

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/inlookup/inlookup"
)

// A question is a type, and what this program does with its answer.
type question struct {
	typ    inlookup.Type
	name   string // for -q, as well as the number
	what   string // its name in errors
	print  func(*program, inlookup.Query, inlookup.Answer) error
	decode func(inlookup.Answer) ([]field, error) // for a comparison
}

var questions = []question{
	{inlookup.TypeUser, "user", "status", (*program).printUser, decodeUser},
	{inlookup.TypeRelay, "relay", "relay permission", (*program).printRelay, decodeRelay},
	{inlookup.TypePasswd, "passwd", "password entry", (*program).printPasswd, decodePasswd},
	{inlookup.TypeHost, "host", "SMTP route", (*program).printHost, decodeHost},
	{inlookup.TypeAlias, "alias", "alias lines", (*program).printAlias, decodeAlias},
	{inlookup.TypeLimit, "limit", "limits", (*program).printLimits, decodeLimits},
	{inlookup.TypeDomain, "domain", "real domain", (*program).printDomain, decodeDomain},
}

// The questions of -s, -F and -x.
var (
	statusQuestion = question{
		typ: inlookup.TypeStatus, what: "counters", print: (*program).printText,
	}
	flushQuestion = question{
		typ: inlookup.TypeFlush, what: "flush", print: (*program).printText,
	}
	explainQuestion = question{
		typ: inlookup.TypeExplain, what: "explanation", print: (*program).printText,
	}
)

// questionNamed returns the question that -q asks for by number or name.
func questionNamed(name string) (question, bool) {
	for _, q := range questions {
		if name == q.name || name == fmt.Sprint(int(q.typ)) {
			return q, true
		}
	}
	return question{}, false
}

// questionOf returns the question of a type from 1 to 7.
func questionOf(t inlookup.Type) question { return questions[t-inlookup.TypeUser] }

var statusTexts = map[inlookup.Status]string{
	inlookup.StatusActive:    "has all services enabled",
	inlookup.StatusAbsent:    "is Absent on this domain (#5.1.1)",
	inlookup.StatusInactive:  "is Inactive on this domain (#5.2.1)",
	inlookup.StatusOverQuota: "is Overquota on this domain (#5.2.2)",
	inlookup.StatusAlias:     "is an alias",
}

func (p *program) printUser(q inlookup.Query, a inlookup.Answer) error {
	status, err := a.Status()
	if err == nil {
		fmt.Fprintf(p.out, "%s %s\n", q.Email, statusTexts[status])
	}
	return err
}

func (p *program) printRelay(q inlookup.Query, a inlookup.Answer) error {
	yes, err := a.Relay()
	if err != nil {
		return err
	}
	verb := "is not"
	if yes {
		verb = "is"
	}
	fmt.Fprintf(p.out, "%s %s authenticated on %s\n", q.Email, verb, q.IP)
	return nil
}

func (p *program) printPasswd(_ inlookup.Query, a inlookup.Answer) error {
	e, err := a.Passwd()
	if err != nil {
		return err
	}
	name := e.Email
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		name = name[:i]
	}
	table := cmp.Or(p.getenv("MYSQL_TABLE"), "indimail")
	if e.Inactive {
		table = cmp.Or(p.getenv("MYSQL_INACTIVE_TABLE"), "indibak")
	}
	for _, row := range []struct {
		label string
		value any
	}{
		{"pw_name", name}, {"pw_passwd", e.Passwd.Reveal()}, {"pw_uid", e.UID}, {"pw_gid", e.GID},
		{"pw_gecos", e.Gecos}, {"pw_dir", e.Dir}, {"pw_shell", e.Shell}, {"Table", table},
	} {
		fmt.Fprintf(p.out, "%-9s: %v\n", row.label, row.value)
	}
	return nil
}

func (p *program) printHost(q inlookup.Query, a inlookup.Answer) error {
	route, err := a.Text()
	if err == nil {
		fmt.Fprintf(p.out, "%s: SMTPROUTE is %s\n", q.Email, route)
	}
	return err
}

func (p *program) printAlias(q inlookup.Query, a inlookup.Answer) error {
	lines, err := a.Alias()
	if err == nil && len(lines) > 0 {
		fmt.Fprintf(p.out, "Alias List for %s\n%s\n\n", q.Email, strings.Join(lines, "\n"))
	}
	return err
}

func (p *program) printDomain(q inlookup.Query, a inlookup.Answer) error {
	domain, err := a.Text()
	if err == nil {
		fmt.Fprintf(p.out, "%s: Real Domain is %s\n", q.Email, domain)
	}
	return err
}

func (p *program) printText(_ inlookup.Query, a inlookup.Answer) error {
	text, err := a.Text()
	if err == nil {
		fmt.Fprintf(p.out, "%s\n", strings.TrimRight(text, "\n"))
	}
	return err
}

func (p *program) printLimits(_ inlookup.Query, a inlookup.Answer) error {
	l, err := a.Limits()
	if err != nil {
		return err
	}
	for _, row := range []struct{ label, value string }{
		{"Domain Expiry   Date", date(l.DomainExpiry)},
		{"Password Expiry Date", date(l.PasswdExpiry)},
		{"Max Domain Quota", quota(l.DiskQuota)},
		{"Max Domain Messages", quota(l.MaxMsgCount)},
		{"Default User Quota", quota(l.DefaultQuota)},
		{"Default User Messages", quota(l.DefaultMaxMsgCount)},
		{"Max Pop Accounts", number(l.MaxPopAccounts)},
		{"Max Aliases", number(l.MaxAliases)},
		{"Max Forwards", number(l.MaxForwards)},
		{"Max Autoresponders", number(l.MaxAutoresponders)},
		{"Max Mailinglists", number(l.MaxMailinglists)},
	} {
		fmt.Fprintf(p.out, "%-21s: %s\n", row.label, row.value)
	}
	p.printServices(l)
	if l.LimitType == inlookup.LimitsOfUser {
		p.printPermissions(l)
	}
	return nil
}

// date returns what C's ctime prints, in the local time zone.
func date(seconds int64) string {
	if seconds < 0 {
		return "Never Expires"
	}
	return time.Unix(seconds, 0).Format(time.ANSIC)
}

const unlimited = "    unlimited"

func quota(n uint64) string {
	if n == 0 {
		return unlimited
	}
	return fmt.Sprintf("%13d", n)
}

func number(n int64) string {
	if n < 0 {
		return unlimited
	}
	return fmt.Sprintf("%13d", n)
}

func (p *program) printServices(l inlookup.Limits) {
	p.out.WriteString("\nGID Flags:\n")
	for _, row := range []struct {
		disabled int16
		on, off  string
	}{
		{l.DisableDialup, "DIALUP", "NO_DIALUP"},
		{l.DisablePasswordChanging, "PASSWD CHNG", "NO_PASSWD_CHNG"},
		{l.DisableSMTP, "SMTP", "NO_SMTP"},
		{l.DisableIMAP, "IMAP", "NO_IMAP"},
		{l.DisablePop, "POP3", "NO_POP"},
		{l.DisableWebmail, "WEBMAIL", "NO_WEBMAIL"},
		{l.DisableRelay, "RELAY", "NO_RELAY"},
	} {
		text := row.on
		if row.disabled != 0 {
			text = row.off
		}
		fmt.Fprintf(p.out, "  %s\n", text)
	}
}

func (p *program) printPermissions(l inlookup.Limits) {
	p.out.WriteString("Flags for non postmaster accounts:\n")
	verbs := []string{"CREATE", "MODIFY", "DELETE"} // of bits 0, 1 and 2, which deny
	for _, row := range []struct {
		label string
		deny  int16
		verbs []string
	}{
		{"pop account", l.PermAccount, verbs},
		{"alias", l.PermAlias, verbs},
		{"forward", l.PermForward, verbs},
		{"autoresponder", l.PermAutoresponder, verbs},
		{"mailinglist", l.PermMaillist, verbs},
		{"mailinglist users", l.PermMaillistUsers, verbs},
		{"mailinglist moderators", l.PermMaillistModerators, verbs},
		{"domain quota", l.PermQuota, verbs},
		{"default quota", l.PermDefaultQuota, verbs[:2]},
	} {
		fmt.Fprintf(p.out, "  %-22s:", row.label)
		for bit, verb := range row.verbs {
			word := "ALLOW_" + verb
			if row.deny>>bit&1 != 0 {
				word = "DENY_" + verb
			}
			fmt.Fprintf(p.out, " %12s", word)
		}
		p.out.WriteByte('\n')
	}
}
