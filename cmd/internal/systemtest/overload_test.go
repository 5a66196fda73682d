package systemtest

// Overload: more questions than the database can answer. What it can do is spent on
// questions for which somebody waits, the others are refused soon, and nothing of
// that is left when it is over.

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
)

// An overload is a load of twice what the database can do over all connections, when
// a SELECT takes so long.
type overload struct {
	selects time.Duration // for one
	each    int           // SELECTs that a question needs
	ask     func() inlookup.Query
}

func TestOverload(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]overload{
		"SELECTs of 35 ms":        {35 * time.Millisecond, 1, oneSelect},
		"SELECTs of 100 ms":       {100 * time.Millisecond, 1, oneSelect},
		"three SELECTs of 100 ms": {100 * time.Millisecond, 3, threeSelects},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.test(t)
		})
	}
}

func (o overload) test(t *testing.T) {
	oneOfThree(t, func(c *complaint) {
		f := newForwarder(t, "127.0.0.1:0", database(t))
		f.selects.Store(int64(o.selects))
		s := stormSite(t, f)
		p := s.serve()
		defer p.terminate()
		o.try(t, newLoad(s, 2000), c)
	})
}

// ourAlike is how many connections of a pool may ask the same statement.
const ourAlike = 12

// try asks with that many clients, one question after the other, which measures what can be
// had. Then it asks at half of that, at twice what the database can do, and at half
// again.
func (o overload) try(t *testing.T, l *load, c *complaint) {
	length := max(2*time.Second, 8*o.selects)
	l.closed(ourAlike, length/4, o.ask) // connects
	start := time.Now()
	v := l.closed(ourAlike, length, o.ask)
	capacity := float64(len(v.answered)) / time.Since(start).Seconds()
	l.t.Logf("%d clients: %v, so %.0f a second", ourAlike, v, capacity)
	if len(v.refused) > len(v.answered)/10 || len(v.lost) > 0 {
		c.addf("%d clients: %v", ourAlike, v)
	}

	before := l.steady(capacity/2, length, o.ask)
	usual := times(before.answered).median()
	l.t.Logf("half of that: %v", before)

	overLength := max(6*time.Second, 2*length)
	endOver := l.pour(2*ourMost/(o.selects.Seconds()*float64(o.each)), overLength, o.ask)
	start = time.Now()
	endAfter := l.pour(capacity/2, length+time.Second, o.ask)
	over, after := endOver(), endAfter().since(start.Add(time.Second))
	goodput := float64(len(over.answered)) / overLength.Seconds() / capacity
	l.t.Logf("twice: %v, so %.2f of what the clients had; then half again: %v",
		over, goodput, after)
	if goodput < 0.5 {
		c.addf("%.2f of what the clients had is answered at twice the load, want 0.5", goodput)
	}
	if took := times(over.refused).median(); took > 1200*time.Millisecond {
		c.addf("refused after %v, want half a second", took)
	}
	if took := times(over.answered).median(); took > usual+900*time.Millisecond {
		c.addf("at twice the load an answer takes %v, want half a second more than %v", took, usual)
	}
	if len(over.lost) > 0 {
		c.addf("lost: %v", over)
	}
	if len(after.refused)+len(after.lost) > 0 || len(after.answered) == 0 {
		c.addf("a second after the overload: %v, want all answered", after)
	}
	if late := times(after.answered).median(); late > 2*usual+200*time.Millisecond {
		c.addf("a second after the overload an answer takes %v, before it %v", late, usual)
	}
}

// Who has given up before the question was asked takes nothing from the next.
func TestCancelledQuestions(t *testing.T) {
	t.Parallel()
	oneOfThree(t, func(c *complaint) {
		m := newSite(t, database(t)).lookup()
		if got := show(t, m.mysql, "1 over@example.com"); got != "over quota" {
			t.Fatal(got)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var group sync.WaitGroup
		for range 60 {
			group.Go(func() { m.mysql.Resolve(gone, oneSelect()) })
		}
		group.Wait()
		start := time.Now()
		if got := show(t, m.mysql, "1 over@example.com"); got != "over quota" {
			c.addf("after 60 cancelled questions: %s", got)
		}
		if took := time.Since(start); took > time.Second {
			c.addf("after 60 cancelled questions an answer takes %v", took)
		}
		if text := m.log.String(); text != "" {
			c.addf("the log: %s", text)
		}
	})
}

// A caller in a hurry says nothing about the database.
func TestShortDeadline(t *testing.T) {
	t.Parallel()
	f := newForwarder(t, "127.0.0.1:0", database(t))
	m := stormSite(t, f).lookup()
	if got := show(t, m.mysql, "1 over@example.com"); got != "over quota" {
		t.Fatal(got)
	}
	f.selects.Store(int64(500 * time.Millisecond))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if a, err := m.mysql.Resolve(ctx, oneSelect()); err == nil {
			t.Errorf("an answer that takes 500 ms within 50: %q", a)
		}
		cancel()
	}
	eventually(t, "an answer", func() bool {
		return show(t, m.mysql, "1 over@example.com") == "over quota"
	})
	if text := m.log.String(); text != "" {
		t.Errorf("the log: %s", text)
	}
}

// One table is locked, and many ask what needs it. Others are answered as if nothing
// were.
func TestLockedTable(t *testing.T) {
	t.Parallel()
	db := installationDB(t)
	oneOfThree(t, func(c *complaint) {
		f := newForwarder(t, "127.0.0.1:0", db)
		s := stormSite(t, f)
		p := s.serve()
		defer p.terminate()
		l := newLoad(s, 400)
		l.closed(8, 200*time.Millisecond, threeSelects)
		usual := l.steady(20, 2*time.Second, oneSelect)
		other := newAdmin(t, db)
		other.exec(t, "LOCK TABLES valias WRITE")
		var group sync.WaitGroup
		var strangers, users verdict
		start := time.Now()
		group.Go(func() { strangers = l.steady(20, 8*time.Second, threeSelects) })
		group.Go(func() { users = l.steady(20, 8*time.Second, oneSelect) })
		group.Wait()
		other.exec(t, "UNLOCK TABLES")
		t.Logf("no lock: %v; valias locked: users of other tables: %v; strangers: %v",
			usual, users, strangers)
		if len(users.refused)+len(users.lost) > 0 {
			c.addf("users of tables that are free: %v, want all answered", users)
		}
		late := users.since(start.Add(3 * time.Second))
		slow := 0
		for _, one := range late.answered {
			if one.took > 500*time.Millisecond {
				slow++
			}
		}
		if 10*slow > len(late.answered) {
			c.addf("of %d users of tables that are free %d waited for half a second",
				len(late.answered), slow)
		}
		if len(strangers.lost) > 0 {
			c.addf("strangers: %v", strangers)
		}
	})
}
