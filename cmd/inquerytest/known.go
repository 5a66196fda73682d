package main

// The known faults of the C server. One of them explains a difference only if
// that is certain; often another question proves it. Either side may be the C
// server, so each fault is tried both ways.

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/inlookup/inlookup"
)

// A suspicion is a difference, if side c is the C server.
type suspicion struct {
	ctx      context.Context
	q        inlookup.Query
	routes   []route
	c, other side
	cSays    reply
	says     reply // what the other side says
}

// A fault is a sentence about "the C server".
type fault struct {
	what  string
	holds func(*suspicion) bool
}

// knownFaults are tried in this order.
func knownFaults() []fault {
	return []fault{
		{"has wrong answers for an address without a local part", (*suspicion).noLocalPart},
		{"wants lower case, and an @ before the domain", (*suspicion).spelling},
		{"reads the port of a route in the wrong place", (*suspicion).wrongPort},
		{"has no lines for an address that is only an alias", (*suspicion).onlyAlias},
		{"ignores a user's own limits under an alias domain", (*suspicion).ownLimits},
		{"has no limits for an alias domain by itself", (*suspicion).bareAliasDomain},
		{"does not set limit_type in the defaults", (*suspicion).limitType},
		{"turns POP off where disable_dialup is set", (*suspicion).dialup},
		{"gives the inactive flag of another entry", (*suspicion).inactiveFlag},
	}
}

// knownFault returns the fault that explains this difference, or "".
func (c *comparison) knownFault(ctx context.Context, q inlookup.Query, r [2]reply) string {
	a, b := c.sides[0], c.sides[1]
	first := &suspicion{ctx: ctx, q: q, routes: c.routes, c: a, cSays: r[0], other: b, says: r[1]}
	second := &suspicion{ctx: ctx, q: q, routes: c.routes, c: b, cSays: r[1], other: a, says: r[0]}
	return cmp.Or(first.fault(), second.fault())
}

// fault returns the first fault that explains the suspicion, or "".
func (s *suspicion) fault() string {
	for _, f := range knownFaults() {
		if f.holds(s) {
			return f.what
		}
	}
	return ""
}

// answered reports whether this is a question of type t that both answered.
func (s *suspicion) answered(t inlookup.Type) bool {
	return s.q.Type == t && s.cSays.err == nil && s.says.err == nil
}

// cAnswers asks the C server another question.
func (s *suspicion) cAnswers(t inlookup.Type, email string) reply {
	return s.c.ask(s.ctx, inlookup.Query{Type: t, Email: email, IP: s.q.IP})
}

// otherAnswers asks the other side another question.
func (s *suspicion) otherAnswers(t inlookup.Type, email string) reply {
	return s.other.ask(s.ctx, inlookup.Query{Type: t, Email: email})
}

// The C server answers "error", or with the entry of the question before.
func (s *suspicion) noLocalPart() bool {
	if separator(s.q.Email) != 0 || isTimeout(s.cSays.err) {
		return false
	}
	return s.says.err == nil && s.says.isNo()
}

// isNo reports whether the reply is "absent", or "no" from relay.
func (r reply) isNo() bool {
	no := field{name: "authenticated", value: "no"}
	return r.absent || slices.Equal(r.fields, []field{no})
}

// Asked in the usual spelling, the C server agrees, or has another known fault.
func (s *suspicion) spelling() bool {
	usual := strings.ToLower(s.q.Email)
	if i := separator(usual); i >= 0 {
		usual = usual[:i] + "@" + usual[i+1:]
	}
	if usual == s.q.Email || !s.answered(s.q.Type) {
		return false
	}
	rest := *s
	rest.q.Email = usual
	rest.cSays = s.cAnswers(s.q.Type, usual)
	return rest.cSays.same(s.says) || rest.fault() != ""
}

// The C server reads the port of relay:port from the second letter of relay.
func (s *suspicion) wrongPort() bool {
	if !s.answered(inlookup.TypeHost) || s.cSays.absent || s.says.absent {
		return false
	}
	cHost, cPort := cutLast(s.cSays.answer.Data())
	host, port := cutLast(s.says.answer.Data())
	return cHost == host && slices.ContainsFunc(s.routes, func(r route) bool {
		return r.port == port && r.misread == cPort
	})
}

// The C server itself says that the address is an alias.
func (s *suspicion) onlyAlias() bool {
	if !s.answered(inlookup.TypeAlias) || !s.cSays.absent || s.says.invalid != nil {
		return false
	}
	status, err := s.cAnswers(inlookup.TypeUser, s.q.Email).answer.Status()
	return err == nil && status == inlookup.StatusAlias
}

// The C server agrees if it is asked about the same user in the real domain.
func (s *suspicion) ownLimits() bool {
	i := separator(s.q.Email)
	if !s.answered(inlookup.TypeLimit) || i < 0 {
		return false
	}
	domain, isAlias := s.realDomain()
	return isAlias && s.cAnswers(inlookup.TypeLimit, s.q.Email[:i+1]+domain).same(s.says)
}

// The C server agrees if it is asked about the real domain.
func (s *suspicion) bareAliasDomain() bool {
	if !s.answered(inlookup.TypeLimit) || !s.cSays.absent || separator(s.q.Email) >= 0 {
		return false
	}
	domain, isAlias := s.realDomain()
	return isAlias && s.cAnswers(inlookup.TypeLimit, domain).same(s.says)
}

// realDomain returns the real domain, and whether the question is about an
// alias domain.
func (s *suspicion) realDomain() (domain string, isAlias bool) {
	asked := domainOf(s.q.Email)
	domain, err := s.otherAnswers(inlookup.TypeDomain, asked).answer.Text()
	return domain, err == nil && !strings.EqualFold(domain, asked)
}

// Both sides give the defaults, except for the type.
func (s *suspicion) limitType() bool {
	if !s.answered(inlookup.TypeLimit) {
		return false
	}
	cLimits, err1 := s.cSays.answer.Limits()
	limits, err2 := s.says.answer.Limits()
	if err1 != nil || err2 != nil {
		return false
	}
	defaults := inlookup.Limits{
		DomainExpiry: -1, PasswdExpiry: -1, MaxPopAccounts: -1, MaxAliases: -1,
		MaxForwards: -1, MaxAutoresponders: -1, MaxMailinglists: -1,
		LimitType: inlookup.LimitsOfDomain,
	}
	cLimits.LimitType = inlookup.LimitsOfDomain
	return limits == defaults && cLimits == defaults
}

// The flags that DOMAIN_LIMITS adds to a gid.
const (
	gidNoPop    = 0x02
	gidNoDialup = 0x40
)

// The entries differ only in the flag, and dialup is disabled in the limits.
func (s *suspicion) dialup() bool {
	if !s.answered(inlookup.TypePasswd) {
		return false
	}
	cEntry, err1 := s.cSays.answer.Passwd()
	entry, err2 := s.says.answer.Passwd()
	if err1 != nil || err2 != nil || entry.GID&gidNoDialup == 0 {
		return false
	}
	domain, _ := s.realDomain()
	l, err := s.otherAnswers(inlookup.TypeLimit, domain).answer.Limits()
	if err != nil || l.DisableDialup == 0 {
		return false
	}
	entry.GID = entry.GID&^gidNoDialup | gidNoPop
	rest := *s
	rest.says.answer = inlookup.NewPasswd(entry)
	return reflect.DeepEqual(cEntry, entry) || rest.inactiveFlag()
}

// The C server contradicts itself: its status and its entry do not agree.
func (s *suspicion) inactiveFlag() bool {
	if !s.answered(inlookup.TypePasswd) {
		return false
	}
	cEntry, err1 := s.cSays.answer.Passwd()
	entry, err2 := s.says.answer.Passwd()
	cEntry.Inactive = !cEntry.Inactive
	if err1 != nil || err2 != nil || !reflect.DeepEqual(cEntry, entry) {
		return false
	}
	status, err := s.cAnswers(inlookup.TypeUser, s.q.Email).answer.Status()
	return err == nil && (status == inlookup.StatusInactive) == entry.Inactive
}

// A route is a line of smtproutes or qmtproutes that has a port.
type route struct {
	port    string
	misread string // what the C server takes for the port
}

// readRoutes reads the control files. Without them no port counts as misread.
func readRoutes(getenv func(string) string) (routes []route) {
	for _, name := range []string{"smtproutes", "qmtproutes"} {
		for line := range strings.Lines(controlText(getenv, name)) {
			line, _, _ = strings.Cut(line, "#")
			_, rest, _ := strings.Cut(line, ":")
			words := strings.Fields(rest) // a user name and a password may follow
			if len(words) == 0 {
				continue
			}
			relay := words[0]
			brackets := strings.IndexByte(relay, ']') + 1 // they hold an IPv6 address
			host, port, _ := strings.Cut(relay[brackets:], ":")
			host = relay[:brackets] + host
			if len(host) > 1 && port != "" { // penalty and tolerance may follow the port
				misread := leadingNumber(host[1:])
				routes = append(routes, route{port: leadingNumber(port), misread: misread})
			}
		}
	}
	return routes
}

// cutLast cuts text around its last colon.
func cutLast(text string) (before, after string) {
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

// leadingNumber returns the digits at the beginning of text, "0" if there are
// none.
func leadingNumber(text string) string {
	rest := strings.TrimLeft(text, "0123456789")
	return cmp.Or(strings.TrimSuffix(text, rest), "0")
}
