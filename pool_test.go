package inlookup

// The pool, with a database made of functions. All but the retries run in virtual
// time (testing/synctest), so what they hold does not depend on the machine.

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const anySelect = "SELECT n FROM t"

// slowly returns a database whose SELECTs take this long.
func slowly(took time.Duration) *fakeDriver {
	return &fakeDriver{query: func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
		select {
		case <-time.After(took):
			return one(ctx, text)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}}
}

// hangs is a database that never answers.
func hangs(ctx context.Context, _ string) ([]string, [][]driver.Value, error) {
	<-ctx.Done()
	return nil, nil, ctx.Err()
}

// askFor asks one SELECT as a question with that much time would.
func askFor(p *pool, timeout time.Duration, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := p.query(ctx, text)
	return err
}

// TestRetry: what failed in passing is asked once more over another connection. A final error is
// not.
func TestRetry(t *testing.T) {
	broken := errors.New("the connection broke")
	for _, c := range []struct {
		faults []error // of the first questions
		arg    string
		asked  int
		ok     bool
	}{
		{nil, "", 1, true},
		{[]error{broken}, "", 2, true},
		{[]error{broken, broken}, "", 2, false},
		{[]error{mysqlError(1105)}, "", 2, true},       // "unknown error"
		{[]error{mysqlError(1146)}, "", 1, false},      // no such table
		{[]error{mysqlError(1045)}, "", 1, false},      // access denied
		{[]error{mysqlError(1054)}, "", 1, false},      // no such column
		{[]error{mysqlError(1064)}, "", 1, false},      // syntax
		{[]error{mysqlError(1969)}, "", 1, false},      // MariaDB's time is over
		{[]error{mysqlError(3024)}, "", 1, false},      // MySQL's
		{[]error{mysqlError(1267)}, "user", 1, false},  // another collation
		{[]error{mysqlError(1267)}, "jürgen", 2, true}, // no such letter, so no such row
		{[]error{mysqlError(1270)}, "jürgen", 2, true},
		{[]error{mysqlError(1271)}, "jürgen", 2, true},
		{[]error{mysqlError(3988)}, "jürgen", 2, true},
		{[]error{mysqlError(1267), mysqlError(1267)}, "jürgen", 2, false}, // of a view
	} {
		asked := 0
		d := new(fakeDriver)
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			asked++
			if asked <= len(c.faults) {
				return nil, nil, c.faults[asked-1]
			}
			return one(ctx, text)
		}
		p := newFakePool(d, nil)
		rows, err := p.query(context.Background(), anySelect+" WHERE n=?", c.arg)
		if (err == nil) != c.ok || asked != c.asked {
			t.Errorf("%v: %v, %v, asked %d times, want %d", c.faults, rows, err, asked, c.asked)
		}
		if err != nil && (!errors.Is(err, c.faults[0]) && errorNumber(err) != errorNumber(c.faults[0])) {
			t.Errorf("%v: %v", c.faults, err)
		}
		if c.ok && c.asked == 2 && c.arg == "" && d.opened.Load() != 2 {
			t.Errorf("%v: asked again on the connection that failed", c.faults)
		}
		stats := p.databaseStats()
		calls := stats.Selects[len(stats.Selects)-1].Count
		if int(calls) != c.asked || (stats.Errors == 0) != c.ok {
			t.Errorf("%v: %d calls and %d errors counted", c.faults, calls, stats.Errors)
		}
		p.close()
	}
}

// TestPanicOfTheDriverIsAnError: it ends neither the process nor the pool.
func TestPanicOfTheDriverIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, tried := 0, 0
		d := new(fakeDriver)
		d.connect = func(context.Context) error {
			if tried++; tried == 1 {
				panic("connect")
			}
			return nil
		}
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if asked++; asked <= 2 {
				panic("query")
			}
			return one(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		if err := askFor(p, deadline, anySelect); err == nil || !strings.Contains(err.Error(), "panic: query") {
			t.Error(err)
		}
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Error(err)
		}
		checkIdle(t, p)
	})
}

// checkIdle checks that nothing waits or is busy.
func checkIdle(t *testing.T, p *pool) {
	t.Helper()
	synctest.Wait()
	d := p.databaseStats()
	if d.Busy > 0 || d.Waiting > 0 {
		t.Errorf("%d busy, %d wait", d.Busy, d.Waiting)
	}
	for text, l := range p.lanes {
		if l.running != 0 || len(l.waiting) != 0 {
			t.Errorf("%s: %d running, %d wait", text, l.running, len(l.waiting))
		}
	}
}

// A load asks questions of some SELECTs each at a steady rate, whatever becomes of them.
type load struct {
	answered, refused atomic.Int64
	worst             atomic.Int64 // longest time until a refusal
	all               sync.WaitGroup
}

func (l *load) run(p *pool, rate float64, lasts time.Duration, selects ...string) {
	n := int(rate * lasts.Seconds())
	for range n {
		l.all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline-200*time.Millisecond)
			defer cancel()
			start := time.Now()
			for _, text := range selects {
				if _, err := p.query(ctx, text); err != nil {
					l.refused.Add(1)
					took := int64(time.Since(start))
					if took > l.worst.Load() {
						l.worst.Store(took)
					}
					return
				}
			}
			l.answered.Add(1)
		})
		time.Sleep(lasts / time.Duration(n))
	}
}

// TestGoodputUnderOverload: at twice what the database can do, what it can do is done for
// questions that get their answer. The others are refused in half a second. At half load
// afterwards everything is answered. One statement may have maxAlike of the connections.
func TestGoodputUnderOverload(t *testing.T) {
	for _, took := range []time.Duration{
		5 * time.Millisecond, 35 * time.Millisecond, 100 * time.Millisecond, time.Second,
	} {
		for _, selects := range [][]string{{"a"}, {"a", "b", "c"}} {
			if time.Duration(len(selects))*took > deadline-queueTime {
				continue // no such question can be answered in time
			}
			synctest.Test(t, func(t *testing.T) {
				p := newFakePool(slowly(took), nil)
				defer p.close()
				most := float64(maxConns) / took.Seconds() / float64(len(selects)) // questions a second
				share := 1.0
				if len(selects) == 1 {
					share = float64(maxAlike) / maxConns
				}
				const lasts = 6 * time.Second
				before, during, after := new(load), new(load), new(load)
				before.run(p, most*share/2, lasts/2, selects...)
				during.run(p, 2*most, lasts, selects...)
				time.Sleep(queueTime)
				after.run(p, most*share/2, lasts/2, selects...)
				before.all.Wait()
				during.all.Wait()
				after.all.Wait()
				if n := before.refused.Load() + after.refused.Load(); n > 0 {
					t.Errorf("%v, %d SELECTs: %d refused at half load", took, len(selects), n)
				}
				got := float64(during.answered.Load()) / (most * lasts.Seconds())
				if got < 0.9*share {
					t.Errorf("%v, %d SELECTs: %.2f of what the database can do", took, len(selects), got)
				}
				longest := queueTime + time.Duration(len(selects)-1)*(took+queueTime)
				if worst := time.Duration(during.worst.Load()); worst > longest {
					t.Errorf("%v, %d SELECTs: refused after %v", took, len(selects), worst)
				}
				checkIdle(t, p)
			})
		}
	}
}

// TestClientsThatGaveUpCostNothing: neither those that had gone before they asked, nor a SELECT
// that nobody waits for any more.
func TestClientsThatGaveUpCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Millisecond)
		p := newFakePool(d, nil)
		defer p.close()
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		for range 60 {
			if _, err := p.query(gone, anySelect); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := askFor(p, deadline, anySelect); err != nil || time.Since(start) != time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if n := d.opened.Load(); n != 1 {
			t.Errorf("%d connections for one question", n)
		}
		checkIdle(t, p)
	})
}

// TestAbandonedSelectKeepsItsConnection: a client that gives up ends no SELECT and no connection,
// says nothing about the database, and takes no place from the next.
func TestAbandonedSelectKeepsItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b safeBuffer
		d := slowly(time.Second)
		p := newFakePool(d, log.New(&b, "", 0))
		defer p.close()
		for range 3 {
			err := askFor(p, 10*time.Millisecond, anySelect)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		checkIdle(t, p)
		if d.closed.Load() != 0 || !p.databaseStats().Up || b.String() != "" {
			t.Errorf("%d connections closed, %+v, %q", d.closed.Load(), p.databaseStats(), b.String())
		}
	})
}

// TestConnectionsFollowTheLoad: one question after the other needs one connection. Each closes its
// rows, else the driver would end the connection. Sixteen at once need sixteen. What is not needed is
// closed after a minute, except the last.
func TestConnectionsFollowTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Second)
		slow := d.query
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if strings.HasPrefix(text, "SLEEP") {
				return slow(ctx, text)
			}
			return one(ctx, text)
		}
		d.connect = func(context.Context) error { time.Sleep(10 * time.Millisecond); return nil }
		p := newFakePool(d, nil)
		defer p.close()
		want := func(n int32) {
			t.Helper()
			synctest.Wait()
			if open := d.opened.Load() - d.closed.Load(); open != n {
				t.Errorf("%d connections, want %d", open, n)
			}
		}
		for range 100 {
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Fatal(err)
			}
		}
		want(1)
		if n := d.ended.Load(); n != 100 {
			t.Errorf("of 100 SELECTs %d have closed their rows", n)
		}
		for i := range maxConns {
			go askFor(p, deadline, fmt.Sprint("SLEEP ", i%2))
		}
		time.Sleep(200 * time.Millisecond)
		want(maxConns)
		time.Sleep(time.Second)
		for range 120 {
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		want(1)
		time.Sleep(time.Hour)
		want(1)
	})
}

// TestLockedTableLeavesRoom: questions that need a locked table are refused after queueTime, and
// take no more than their share of the connections. Others are answered at once.
func TestLockedTableLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(fakeDriver)
		var locked atomic.Int32
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if text == "locked" {
				locked.Add(1)
				defer locked.Add(-1)
				return hangs(ctx, text)
			}
			return one(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		for i := range 200 { // 10 s
			go func() {
				if err := askFor(p, deadline, "locked"); err == nil {
					t.Error("the locked table answers")
				}
			}()
			synctest.Wait()
			start := time.Now()
			if err := askFor(p, deadline, "free"); err != nil || time.Since(start) > 0 {
				t.Fatalf("%v: %v after %v", time.Duration(i)*50*time.Millisecond, err, time.Since(start))
			}
			if n := locked.Load(); n > maxAlike {
				t.Fatalf("%d SELECTs of one statement", n)
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(2 * deadline)
		checkIdle(t, p)
	})
}

// TestHangingDatabase: it has at most maxConns SELECTs and two attempts to connect at a time, of
// which one is long. A question is refused in half a second while the connections are busy, and at
// once when they are gone. When the database is back, so are the answers.
func TestHangingDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b safeBuffer
		var hung atomic.Bool
		var selects, attempts, long atomic.Int32
		d := new(fakeDriver)
		resume := make(chan struct{})
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if n := selects.Add(1); n > maxConns {
				t.Errorf("%d SELECTs", n)
			}
			defer selects.Add(-1)
			if hung.Load() {
				return hangs(ctx, text)
			}
			return one(ctx, text)
		}
		d.connect = func(ctx context.Context) error {
			if n := attempts.Add(1); n > maxAttempts {
				t.Errorf("%d attempts", n)
			}
			defer attempts.Add(-1)
			if end, _ := ctx.Deadline(); time.Until(end) > shortAttempt {
				if n := long.Add(1); n > 1 {
					t.Errorf("%d long attempts", n)
				}
				defer long.Add(-1)
			}
			if !hung.Load() {
				return nil
			}
			select {
			case <-resume:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p := newFakePool(d, log.New(&b, "", 0))
		defer p.close()
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Fatal(err)
		}
		hung.Store(true)
		before := d.tried.Load()
		start := time.Now()
		for time.Since(start) < 25*time.Second {
			go func() {
				asked := time.Now()
				if askFor(p, deadline, fmt.Sprint("SELECT ", asked.Nanosecond()%3)) == nil {
					t.Error("an answer")
				}
				// Until the first attempt has failed nobody knows.
				if asked.Sub(start) > 2*deadline && time.Since(asked) > 0 {
					t.Errorf("after %v an error takes %v", asked.Sub(start), time.Since(asked))
				}
			}()
			time.Sleep(50 * time.Millisecond)
		}
		if n := d.tried.Load() - before; n > 30 {
			t.Errorf("%d handshakes", n)
		}
		if d := p.databaseStats(); d.Up || !strings.Contains(d.State, "no connection within") {
			t.Errorf("%+v", d)
		}
		hung.Store(false)
		close(resume)
		synctest.Wait()
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "no connection within") ||
			!strings.HasSuffix(lines[1], "answers again") {
			t.Errorf("%q", lines)
		}
		checkIdle(t, p)
	})
}

// TestSilentConnections: those that a firewall has forgotten cost a question the time of one
// SELECT, and are not tried one after the other.
func TestSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(fakeDriver)
		var silent atomic.Bool
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if silent.Load() {
				return hangs(ctx, text)
			}
			time.Sleep(time.Millisecond)
			return one(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		for i := range 8 {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		opened := d.opened.Load()
		if opened < 2 {
			t.Fatalf("%d connections", opened)
		}
		silent.Store(true)
		time.AfterFunc(tryTime-1, func() { silent.Store(false) }) // new ones are well
		start := time.Now()
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if n := d.closed.Load(); n != opened {
			t.Errorf("%d of %d silent connections closed", n, opened)
		}
	})
}

// TestStaleConnectionsCostNoTry: so a SELECT is asked again that after them meets a connection that
// breaks.
func TestStaleConnectionsCostNoTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Millisecond)
		slow := d.query
		var restarted atomic.Bool
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if restarted.Load() && d.opened.Load() == 5 {
				return nil, nil, errors.New("the connection broke")
			}
			return slow(ctx, text)
		}
		d.stale = func(n int32) bool { return restarted.Load() && n <= 4 }
		p := newFakePool(d, nil)
		defer p.close()
		for i := range 4 {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		if n := d.opened.Load(); n != 4 {
			t.Fatalf("%d connections", n)
		}
		restarted.Store(true)
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Error(err)
		}
		if n := p.errors.Load(); n != 0 {
			t.Errorf("%d errors counted", n)
		}
		selects := p.databaseStats().Selects
		if n := selects[len(selects)-1].Count; n != 6 {
			t.Errorf("%d SELECTs counted, want 4 and 2", n)
		}
		checkIdle(t, p)
	})
}

// TestSlowGreeting: a database that takes 5 s to accept a connection is reached, and its
// connections are kept. With several hosts each has its full time.
func TestSlowGreeting(t *testing.T) {
	for hosts, greeting := range map[string]time.Duration{
		"one": 5 * time.Second, "a,b,c": 1100 * time.Millisecond, "d,e": 5 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			d := slowly(time.Millisecond)
			d.connect = func(ctx context.Context) error {
				select {
				case <-time.After(greeting):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			p := newFakePool(d, nil)
			p.of.hosts = hosts
			defer p.close()
			start := time.Now()
			for askFor(p, deadline, anySelect) != nil {
				if time.Since(start) > time.Minute {
					t.Fatalf("%s: not reached", hosts)
				}
				time.Sleep(100 * time.Millisecond)
			}
			for range 1000 { // several lives of a connection, with pauses beyond connIdle
				time.Sleep(1500 * time.Millisecond)
				if err := askFor(p, deadline, anySelect); err != nil {
					t.Fatalf("%s, after %v: %v", hosts, time.Since(start), err)
				}
			}
			for range 10 {
				time.Sleep(70 * time.Second)
				if err := askFor(p, deadline, anySelect); err != nil {
					t.Fatalf("%s, after %v: %v", hosts, time.Since(start), err)
				}
			}
		})
	}
}

// TestSlowGreetingAfterARestart: the next long attempt follows when the first has ended.
func TestSlowGreetingAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restarted atomic.Bool
		d := slowly(time.Millisecond)
		d.connect = func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		d.stale = func(n int32) bool { return restarted.Load() && n == 1 }
		p := newFakePool(d, nil)
		defer p.close()
		for _, after := range []bool{false, true} {
			restarted.Store(after)
			start := time.Now()
			for askFor(p, deadline, anySelect) != nil {
				if time.Since(start) > time.Minute {
					t.Fatalf("not reached, restarted: %v", after)
				}
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(longAttempt) // the other attempts end
		}
	})
}

// TestHostThatHangs: the next of several hosts is tried after the time of a short attempt, and has
// its own.
func TestHostThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Millisecond)
		p := newFakePool(d, nil)
		defer p.close()
		p.of.hosts = "hangs,well"
		p.open = func(ctx context.Context, host string) (driver.Conn, error) {
			if host == "hangs" {
				<-ctx.Done()
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return d.Connect(ctx)
		}
		start := time.Now()
		for askFor(p, deadline, anySelect) != nil && time.Since(start) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > shortAttempt+100*time.Millisecond {
			t.Errorf("reached after %v", took)
		}
	})
}

// TestRefusedLogins: one login a second, whatever the load. MySQL locks an account or a host
// after some. Errors come at once, the log has one line, and no text that may hold a password.
func TestRefusedLogins(t *testing.T) {
	for _, number := range []uint16{1044, 1045, 1129, 1130, 1698, 4150} {
		synctest.Test(t, func(t *testing.T) {
			var b safeBuffer
			var well atomic.Bool
			d := slowly(time.Millisecond)
			d.connect = func(context.Context) error {
				if !well.Load() {
					return fmt.Errorf("greeting: %w", mysqlError(number))
				}
				return nil
			}
			p := newFakePool(d, log.New(&b, "", 0))
			defer p.close()
			start := time.Now()
			for time.Since(start) < 10*time.Second {
				asked := time.Now()
				if err := askFor(p, deadline, anySelect); errorNumber(err) != number || time.Since(asked) > 0 {
					t.Fatalf("%v after %v", err, time.Since(asked))
				}
				time.Sleep(time.Millisecond)
			}
			if n := d.tried.Load(); n > 11 {
				t.Errorf("%d: %d logins in 10 s", number, n)
			}
			well.Store(true)
			time.Sleep(longestPause + 1)
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Errorf("%d: %v", number, err)
			}
			if lines := strings.Count(b.String(), "\n"); lines != 2 {
				t.Errorf("%q", b.String())
			}
		})
	}
}

// TestFaultLog: a database that goes and comes back is logged once each. The text of "access
// denied" may quote a misplaced password. A missing table is a warning.
func TestFaultLog(t *testing.T) {
	for _, number := range []uint16{1044, 1045, 1698} {
		synctest.Test(t, func(t *testing.T) {
			var b safeBuffer
			d := slowly(time.Millisecond)
			var well, tableless atomic.Bool
			d.connect = func(context.Context) error {
				if well.Load() {
					return nil
				}
				return (database{}).hideText(mysqlError(number))
			}
			slow := d.query
			d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
				if tableless.Load() {
					return nil, nil, mysqlError(1146)
				}
				return slow(ctx, text)
			}
			p := newFakePool(d, log.New(&b, "", 0))
			defer p.close()
			for range 3 {
				err := askFor(p, deadline, anySelect)
				if errorNumber(err) != number || !strings.Contains(err.Error(), p.name) {
					t.Errorf("%d: %v", number, err)
				}
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%d: %v", number, err)
				}
			}
			well.Store(true)
			time.Sleep(longestPause + 1)
			for range 3 {
				if err := askFor(p, deadline, anySelect); err != nil {
					t.Error(err)
				}
			}
			lines := strings.Split(b.String(), "\n")
			if len(lines) != 3 || strings.Contains(b.String(), secret) ||
				!strings.Contains(lines[0], p.name) || !strings.HasSuffix(lines[1], "answers again") {
				t.Errorf("%d: %q", number, b.String())
			}
			before := b.String()
			tableless.Store(true)
			rows, err := p.optional(context.Background(), "t", anySelect)
			warned := strings.TrimPrefix(b.String(), before+"warning: ") != b.String()
			if err != nil || rows != nil || !warned || strings.Count(b.String(), "\n") != 3 {
				t.Errorf("%v, %v, %q", rows, err, b.String())
			}
		})
	}
}

// TestFirstFailureIsTriedAgain: at once, and told to nobody. After the second there is a pause. So
// it is again when the database has been back meanwhile.
func TestFirstFailureIsTriedAgain(t *testing.T) {
	for failures, ok := range map[int32]bool{1: true, 2: false} {
		synctest.Test(t, func(t *testing.T) {
			var b safeBuffer
			var before, stale atomic.Int32 // attempts and connections of earlier outages
			d := slowly(0)
			d.connect = func(context.Context) error {
				if d.tried.Load()-before.Load() <= failures {
					return errors.New("connection refused")
				}
				return nil
			}
			d.stale = func(n int32) bool { return n <= stale.Load() }
			p := newFakePool(d, log.New(&b, "", 0))
			defer p.close()
			for outage := range 2 {
				before.Store(d.tried.Load())
				stale.Store(d.opened.Load())
				start := time.Now()
				err := askFor(p, deadline, anySelect)
				took := time.Since(start)
				synctest.Wait()
				if (err == nil) != ok || took > 0 || (b.String() == "") != ok {
					t.Errorf("outage %d, %d failures: %v after %v, %q",
						outage, failures, err, took, b.String())
				}
				time.Sleep(shortestPause + 1)
				if err := askFor(p, deadline, anySelect); err != nil {
					t.Errorf("outage %d, %d failures: %v after the pause", outage, failures, err)
				}
			}
		})
	}
}

// TestFullServer: while the server has no more connections for us, those that stand serve all.
// Where there is none, its error comes at once.
func TestFullServer(t *testing.T) {
	for _, number := range []uint16{1040, 1203, 1226} {
		synctest.Test(t, func(t *testing.T) {
			var full, stale atomic.Bool
			d := slowly(10 * time.Millisecond)
			d.connect = func(context.Context) error {
				if full.Load() {
					return mysqlError(number)
				}
				return nil
			}
			d.stale = func(int32) bool { return stale.Load() }
			p := newFakePool(d, nil)
			defer p.close()
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Fatal(err)
			}
			full.Store(true)
			var all sync.WaitGroup
			for range 40 {
				all.Go(func() {
					if err := askFor(p, deadline, anySelect); err != nil {
						t.Errorf("%d: %v", number, err)
					}
				})
			}
			all.Wait()
			if n := d.tried.Load(); n > 3 {
				t.Errorf("%d: %d attempts in 0.4 s", number, n)
			}
			time.Sleep(connLife + 2*tidyEvery) // its replacement cannot be had
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Errorf("%d: %v", number, err)
			}
			stale.Store(true)
			start := time.Now()
			err := askFor(p, deadline, anySelect)
			if errorNumber(err) != number || time.Since(start) > longestPause {
				t.Errorf("%d and no connection: %v after %v", number, err, time.Since(start))
			}
		})
	}
}

// TestOldConnectionsAreReplaced: within a life and a bit, idle or at full load, and never with
// more than maxConns connections.
func TestOldConnectionsAreReplaced(t *testing.T) {
	for _, clients := range []int{0, 1, maxConns + 4} {
		synctest.Test(t, func(t *testing.T) {
			d := slowly(time.Second)
			p := newFakePool(d, nil)
			defer p.close()
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			for i := range max(1, clients) {
				go func() {
					for ctx.Err() == nil {
						askFor(p, deadline, fmt.Sprint(i%4))
						if clients == 0 {
							return
						}
					}
				}()
			}
			time.Sleep(time.Second)
			first := d.opened.Load()
			for range 600 {
				time.Sleep(time.Second)
				synctest.Wait()
				if open := d.opened.Load() - d.closed.Load(); open > maxConns || open < min(first, 1) {
					t.Fatalf("%d clients: %d connections", clients, open)
				}
			}
			if more := d.opened.Load() - first; more < first || more > 4*first {
				t.Errorf("%d clients: %d connections, then %d in two lives", clients, first, more)
			}
			stop()
			time.Sleep(time.Second)
			checkIdle(t, p)
		})
	}
}

// TestOneNewConnectionForAnOldOne: also while old ones go on with SELECTs that take long.
func TestOneNewConnectionForAnOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(connLife + 30*time.Second)
		p := newFakePool(d, nil)
		defer p.close()
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				s := newCall(2*connLife, anySelect, nil)
				if _, err := p.ask(context.Background(), time.Minute, s); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := d.opened.Load(); n != 4 {
			t.Errorf("%d connections", n)
		}
		time.Sleep(time.Second)
		if n := d.closed.Load(); n != 2 {
			t.Errorf("%d closed", n)
		}
		checkIdle(t, p)
	})
}

// TestClosedPool: what waits is told, and no connection and no goroutine stays. A retired pool
// first answers the questions that have begun.
func TestClosedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Second)
		p := newFakePool(d, nil)
		for range 2 * maxConns {
			go askFor(p, deadline, anySelect)
		}
		synctest.Wait()
		p.close()
		if err := askFor(p, deadline, anySelect); !errors.Is(err, errClosed) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if open := d.opened.Load() - d.closed.Load(); open != 0 {
			t.Errorf("%d connections", open)
		}

		p = newFakePool(d, nil)
		for range maxAlike {
			go func() {
				if err := askFor(p, deadline, anySelect); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		p.retire()
		time.Sleep(500 * time.Millisecond)
		if err := askFor(p, deadline, "SELECT second"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if open := d.opened.Load() - d.closed.Load(); open != 0 {
			t.Errorf("retired: %d connections", open)
		}
		time.Sleep(2 * deadline)

		p = newFakePool(d, nil)
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // no timer of the pool is due
		p.retire()
		synctest.Wait()
		if open := d.opened.Load() - d.closed.Load(); open != 0 {
			t.Errorf("retired while idle: %d connections", open)
		}
		time.Sleep(2 * deadline)
	})
}

// TestCloseClosesConnections: those of each database, and a question after it opens new ones.
func TestCloseClosesConnections(t *testing.T) {
	m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}))
	d := slowly(0)
	pools := currentConfig(t, m).pools
	for _, p := range pools {
		d.use(p)
		if err := askFor(p, time.Minute, anySelect); err != nil {
			t.Error(err)
		}
	}
	m.Close()
	eventually(t, "all are closed", func() bool { return int(d.closed.Load()) == len(pools) })
	if again := currentConfig(t, m).local; again == pools[0] {
		t.Error("a question after Close gets the old pool")
	}
}

// TestRecentOfSlowDatabases: each has a minute, whatever the others take.
func TestRecentOfSlowDatabases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := configured(t, controls(t, map[string]string{"mcdinfo": mcdinfo}))
		d := new(fakeDriver)
		d.query = func(ctx context.Context, _ string) ([]string, [][]driver.Value, error) {
			select {
			case <-time.After(50 * time.Second):
				return []string{"user", "domain"}, [][]driver.Value{{"u", "example.com"}}, nil
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		pools := currentConfig(t, m).pools
		for _, p := range pools {
			d.use(p)
		}
		start := time.Now()
		emails, err := m.Recent(t.Context(), time.Hour)
		took := time.Since(start)
		if len(emails) != 1 || err != nil || took != time.Duration(len(pools))*50*time.Second {
			t.Errorf("%d databases: %q, %v after %v", len(pools), emails, err, took)
		}
		m.Close()
	})
}

// TestErrorOfMySQLKeepsTheConnection: a damaged table or a broken view costs no connection.
func TestErrorOfMySQLKeepsTheConnection(t *testing.T) {
	numbers := []uint16{29, 126, 130, 145, 1016, 1017, 1030, 1032, 1033, 1034, 1035, 1168, 1194,
		1696, 1712, 1812, 1814, 1877, 1932}
	for _, number := range numbers {
		synctest.Test(t, func(t *testing.T) {
			d := new(fakeDriver)
			d.query = func(context.Context, string) ([]string, [][]driver.Value, error) {
				return nil, nil, mysqlError(number)
			}
			p := newFakePool(d, nil)
			defer p.close()
			for range 100 {
				if err := askFor(p, deadline, anySelect); errorNumber(err) != number {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if opened, closed := d.opened.Load(), d.closed.Load(); opened > 1 || closed > 0 {
				t.Errorf("%d: %d opened, %d closed", number, opened, closed)
			}
		})
	}
}

// TestRetryBesideARefusedLogin: the pause after it does not keep a retry from a connection that
// is idle.
func TestRetryBesideARefusedLogin(t *testing.T) {
	for _, number := range []uint16{1045, 1129} {
		synctest.Test(t, func(t *testing.T) {
			var refused, broken atomic.Bool
			d := new(fakeDriver)
			d.connect = func(context.Context) error {
				if refused.Load() {
					return mysqlError(number)
				}
				return nil
			}
			d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
				if text == "slow" {
					time.Sleep(100 * time.Millisecond)
				}
				if text == "broken" && broken.Swap(false) {
					return nil, nil, errors.New("the connection broke")
				}
				return one(ctx, text)
			}
			p := newFakePool(d, nil)
			defer p.close()
			for range 3 {
				go askFor(p, deadline, "slow")
			}
			time.Sleep(time.Second)
			refused.Store(true)
			for range 3 {
				for range 5 {
					go askFor(p, deadline, "slow")
				}
				time.Sleep(longestPause)
			}
			broken.Store(true)
			start := time.Now()
			if err := askFor(p, deadline, "broken"); err != nil || time.Since(start) > retryPause {
				t.Errorf("%d: %v after %v", number, err, time.Since(start))
			}
			if n := d.tried.Load() - d.opened.Load(); n > 2 {
				t.Errorf("%d: %d refused logins beside connections that stand", number, n)
			}
		})
	}
}

// TestWaitBeginsAnew: patience counts from when a call begins to wait for a connection, also for
// a second time, and goes on counting when the first connection comes late.
func TestWaitBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(10 * time.Second)
		d.connect = func(context.Context) error { time.Sleep(900 * time.Millisecond); return nil }
		p := newFakePool(d, nil)
		defer p.close()
		var all sync.WaitGroup
		for range 2 * maxAlike {
			all.Go(func() {
				start := time.Now()
				err := askFor(p, deadline, anySelect)
				took := time.Since(start)
				if errors.Is(err, errBusy) && took > 900*time.Millisecond+retryPause {
					t.Errorf("refused after %v", took)
				}
			})
		}
		all.Wait()
		time.Sleep(2 * deadline)
	})
}

// TestWaitOfARetryBeginsAnew: its first connection broke just before its patience would have ended.
func TestWaitOfARetryBeginsAnew(t *testing.T) {
	for greeting, want := range map[time.Duration]time.Duration{
		2 * retryPause: queueTime + retryPause,
		time.Second:    2*queueTime - retryPause, // too late
	} {
		synctest.Test(t, func(t *testing.T) {
			var broken atomic.Bool
			d := new(fakeDriver)
			d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
				if text == "slow" {
					time.Sleep(2 * queueTime)
				} else if !broken.Swap(true) {
					time.Sleep(queueTime - retryPause)
					return nil, nil, errors.New("the connection broke")
				}
				return one(ctx, text)
			}
			d.connect = func(context.Context) error {
				if broken.Load() {
					time.Sleep(greeting)
				}
				return nil
			}
			p := newFakePool(d, nil)
			defer p.close()
			go askFor(p, deadline, "slow")
			synctest.Wait()
			start := time.Now()
			err := askFor(p, deadline, anySelect)
			took := time.Since(start)
			if ok := greeting < queueTime; (err == nil) != ok || took != want {
				t.Errorf("a connection takes %v: %v after %v, want %v", greeting, err, took, want)
			}
			if n := p.databaseStats().Waiting; n != 0 {
				t.Errorf("a connection takes %v: %d wait", greeting, n)
			}
			time.Sleep(time.Second)
		})
	}
}

// TestLogOfAPoolThatFollows: the log hears how the database is after reloads while it was down. It
// hears nothing from a pool that has gone, and no more than before from one that was kept.
func TestLogOfAPoolThatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b safeBuffer
		d := slowly(time.Millisecond)
		d.connect = func(context.Context) error { return mysqlError(1045) }
		old := newFakePool(d, log.New(&b, "", 0))
		askFor(old, deadline, anySelect)
		synctest.Wait() // until it has logged that
		wasWell := newFakePool(d, log.New(&b, "", 0))
		well := newFakePool(slowly(time.Millisecond), log.New(&b, "", 0))
		kept := newFakePool(slowly(time.Millisecond), log.New(&b, "", 0)) // with another account
		between := newFakePool(d, log.New(&b, "", 0))
		(&config{pools: []*pool{between, kept}}).succeed([]*pool{old, wasWell, kept})
		(&config{pools: []*pool{well, kept}}).succeed([]*pool{between, kept})
		askFor(wasWell, deadline, anySelect)
		askFor(well, deadline, anySelect)
		askFor(kept, deadline, anySelect)
		time.Sleep(2*deadline + time.Second)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[1], "answers again") {
			t.Errorf("%q", lines)
		}
		well.close()
		kept.close()
	})
}

// TestAbandonedSelectIsNotAskedAgain: nobody waits for it, so a connection that fails ends it.
func TestAbandonedSelectIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		d := new(fakeDriver)
		d.query = func(context.Context, string) ([]string, [][]driver.Value, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			return nil, nil, errors.New("the connection broke")
		}
		p := newFakePool(d, nil)
		defer p.close()
		err := askFor(p, 10*time.Millisecond, anySelect)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		checkIdle(t, p)
	})
}

// TestPauseEndsWithTheLastConnection: a login that was refused while connections stood keeps
// nobody waiting when they are gone, and is no error of those that wait then.
func TestPauseEndsWithTheLastConnection(t *testing.T) {
	for _, c := range []struct {
		number uint16
		idle   bool // before the last connection goes
	}{{1045, true}, {1129, true}, {1045, false}} {
		synctest.Test(t, func(t *testing.T) {
			var refused, stale atomic.Bool
			d := slowly(100 * time.Millisecond)
			d.connect = func(context.Context) error {
				if refused.Load() {
					return mysqlError(c.number)
				}
				return nil
			}
			d.stale = func(n int32) bool { return stale.Load() && n == 1 }
			p := newFakePool(d, nil)
			defer p.close()
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Fatal(err)
			}
			refused.Store(true)
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if err := askFor(p, deadline, anySelect); err != nil {
						t.Errorf("%d: %v", c.number, err)
					}
				})
			}
			time.Sleep(150 * time.Millisecond)
			if c.idle {
				all.Wait()
			}
			if tried, opened := d.tried.Load(), d.opened.Load(); tried < 2 || opened != 1 {
				t.Errorf("%d: %d logins, %d connections", c.number, tried, opened)
			}
			refused.Store(false)
			stale.Store(true)
			if err := askFor(p, deadline, anySelect); err != nil {
				t.Errorf("%d: %v", c.number, err)
			}
			all.Wait()
		})
	}
}

// TestTimeoutSparesConnectionsThatAnswer: only those that were not used since the SELECT began are
// closed with its connection.
func TestTimeoutSparesConnectionsThatAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Millisecond)
		slow := d.query
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if text == "locked" {
				return hangs(ctx, text)
			}
			return slow(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		go askFor(p, time.Second, "locked")
		time.Sleep(2 * time.Second)
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tryTime)
		if opened, closed := d.opened.Load(), d.closed.Load(); opened != 2 || closed != 1 {
			t.Errorf("%d opened, %d closed", opened, closed)
		}
	})
}

// TestRetryOnAStaleConnection: also of a retry a connection that was found closed is no try.
func TestRetryOnAStaleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restarted, broken atomic.Bool
		d := slowly(time.Millisecond)
		slow := d.query
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if broken.Swap(false) {
				restarted.Store(true)
				return nil, nil, errors.New("the connection broke")
			}
			return slow(ctx, text)
		}
		d.connect = func(context.Context) error {
			if restarted.Load() { // until the idle connections have been tried
				time.Sleep(2 * retryPause)
			}
			return nil
		}
		d.stale = func(n int32) bool { return restarted.Load() && n <= 4 }
		p := newFakePool(d, nil)
		defer p.close()
		for i := range 4 {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(1500 * time.Millisecond) // no timer of the pool is due
		if n := d.opened.Load(); n != 4 {
			t.Fatalf("%d connections", n)
		}
		broken.Store(true)
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // the attempts end
		checkIdle(t, p)
	})
}

// TestRetryBesideIdleConnections: what broke one connection may have broken those that are idle. So
// the retry gets a new one at once, and meets none of the others. That the server was full some
// time ago changes nothing.
func TestRetryBesideIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var old atomic.Int32 // connections that are broken
		var full atomic.Bool
		d := slowly(time.Millisecond)
		d.connect = func(context.Context) error {
			if full.Load() {
				return mysqlError(1040)
			}
			return nil
		}
		slow := d.query
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if d.opened.Load() == old.Load() {
				return nil, nil, errors.New("the connection broke")
			}
			return slow(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		for i := range 4 {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		full.Store(true)
		for i := range maxConns {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(2 * longestPause)
		full.Store(false)
		if n := d.opened.Load(); n < 2 || n == d.tried.Load() {
			t.Fatalf("%d connections of %d attempts", n, d.tried.Load())
		}
		old.Store(d.opened.Load())
		start := time.Now()
		if err := askFor(p, deadline, anySelect); err != nil || time.Since(start) >= retryPause {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestRetryJustBeforeTidy: a retry gets any connection after retryPause, also if the pool has
// something else to do before that.
func TestRetryJustBeforeTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken, hung atomic.Bool
		d := slowly(time.Millisecond)
		slow := d.query
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			if broken.Swap(false) {
				hung.Store(true)
				return nil, nil, errors.New("the connection broke")
			}
			return slow(ctx, text)
		}
		d.connect = func(ctx context.Context) error {
			if hung.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		p := newFakePool(d, nil)
		for i := range 4 {
			go askFor(p, deadline, fmt.Sprint(i))
		}
		time.Sleep(longestPause) // when the first attempt would count as slow
		time.Sleep(tidyEvery - retryPause/2)
		broken.Store(true)
		start := time.Now()
		if err := askFor(p, deadline, anySelect); err != nil || time.Since(start) > 2*retryPause {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		p.close()
		time.Sleep(longAttempt) // the end of the attempts
	})
}

// TestCheckOfAFullPool: the connection that it makes beside those that there are is not kept.
func TestCheckOfAFullPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Second)
		p := newFakePool(d, nil)
		defer p.close()
		for i := range maxConns {
			go askFor(p, deadline, fmt.Sprint(i%2))
		}
		synctest.Wait()
		if n := d.opened.Load(); n != maxConns {
			t.Fatalf("%d connections", n)
		}
		if err := p.await(context.Background()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if open := d.opened.Load() - d.closed.Load(); open != maxConns {
			t.Errorf("%d connections", open)
		}
		time.Sleep(time.Second)
	})
}

// TestAttemptsThatFailTogether: of two attempts under way neither says more than the other. So
// both are the first failure, which is told to nobody.
func TestAttemptsThatFailTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const both = longestPause + 100*time.Millisecond
		start := time.Now()
		d := slowly(time.Millisecond)
		d.connect = func(context.Context) error {
			if d.tried.Load() <= 2 {
				time.Sleep(both - time.Since(start))
				return errors.New("connection reset")
			}
			time.Sleep(time.Millisecond)
			return nil
		}
		p := newFakePool(d, nil)
		defer p.close()
		if err := askFor(p, deadline, anySelect); err != nil {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		time.Sleep(time.Second) // the attempts end
	})
}

// TestRetiredPoolStopsConnecting: a reload has taken the database out, so nobody asks any more
// whether it is back.
func TestRetiredPoolStopsConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Millisecond)
		d.connect = func(context.Context) error { return errors.New("connection refused") }
		p := newFakePool(d, nil)
		if err := askFor(p, deadline, anySelect); err == nil {
			t.Fatal("an answer")
		}
		p.retire()
		time.Sleep(2*deadline + time.Second)
		tried := d.tried.Load()
		time.Sleep(time.Minute)
		if n := d.tried.Load() - tried; n > 0 {
			t.Errorf("%d attempts after it was retired", n)
		}
		p.close()
	})
}

// TestTwoAttemptsAtATime: however many questions wait, no more logins than two are under way.
func TestTwoAttemptsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := slowly(time.Second)
		var attempts, most atomic.Int32
		d.connect = func(context.Context) error {
			most.Store(max(most.Load(), attempts.Add(1)))
			time.Sleep(50 * time.Millisecond)
			attempts.Add(-1)
			return nil
		}
		p := newFakePool(d, nil)
		defer p.close()
		for i := range maxConns {
			go askFor(p, deadline, fmt.Sprint("SELECT ", i))
		}
		time.Sleep(deadline)
		if d.opened.Load() != maxConns || most.Load() != 2 {
			t.Errorf("%d connections, %d attempts at a time", d.opened.Load(), most.Load())
		}
	})
}

// TestCloseThatHangsHoldsUpNobody: closing a connection may wait for the network.
func TestCloseThatHangsHoldsUpNobody(t *testing.T) {
	asked := 0
	d := new(fakeDriver)
	d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
		if asked++; asked == 1 {
			return nil, nil, errors.New("the connection broke")
		}
		return one(ctx, text)
	}
	network := make(chan struct{})
	d.close = func() { <-network }
	p := newFakePool(d, nil)
	defer p.close()
	defer close(network)
	var err error
	answered := make(chan struct{})
	go func() {
		_, err = p.query(context.Background(), anySelect)
		close(answered)
	}()
	within(t, "the retry", answered)
	if err != nil {
		t.Error(err)
	}
}

// TestCheckEndsWithItsContext: also while a server takes its time to accept a connection.
func TestCheckEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(fakeDriver)
		d.connect = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		p := newFakePool(d, nil)
		defer p.close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		err := p.await(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestQuestionThatGaveUpIsNotSent: its SELECT leaves the queue, also before there is a connection.
func TestQuestionThatGaveUpIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		d := new(fakeDriver)
		d.connect = func(context.Context) error { time.Sleep(time.Second); return nil }
		d.query = func(ctx context.Context, text string) ([]string, [][]driver.Value, error) {
			asked.Add(1)
			return one(ctx, text)
		}
		p := newFakePool(d, nil)
		defer p.close()
		err := askFor(p, time.Second/2, anySelect)
		if n := p.databaseStats().Waiting; !errors.Is(err, context.DeadlineExceeded) || n != 0 {
			t.Errorf("%v, and %d wait", err, n)
		}
		time.Sleep(time.Second)
		if d.opened.Load() != 1 || asked.Load() != 0 {
			t.Errorf("%d connections, asked %d times", d.opened.Load(), asked.Load())
		}
	})
}

// TestRetryIsForgottenWhenTheDatabaseIsDown: it gets one error, and waits no more.
func TestRetryIsForgottenWhenTheDatabaseIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(fakeDriver)
		d.connect = func(context.Context) error {
			if d.tried.Load() > 1 {
				return mysqlError(1040) // too many connections
			}
			return nil
		}
		d.query = func(context.Context, string) ([]string, [][]driver.Value, error) {
			return nil, nil, errors.New("the connection broke")
		}
		p := newFakePool(d, nil)
		defer p.close()
		err := askFor(p, deadline, anySelect)
		if n := p.databaseStats().Waiting; errorNumber(err) != 1040 || n != 0 {
			t.Errorf("%v, and %d wait", err, n)
		}
	})
}

// TestCloseEndsAttempts: a server that takes its time to accept a connection is not waited for.
func TestCloseEndsAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under atomic.Int32
		d := new(fakeDriver)
		d.connect = func(ctx context.Context) error {
			under.Add(1)
			defer under.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		}
		p := newFakePool(d, nil)
		go askFor(p, deadline, anySelect)
		synctest.Wait()
		before := under.Load()
		p.close()
		synctest.Wait()
		if before != 1 || under.Load() != 0 {
			t.Errorf("%d attempts under way, %d after the end", before, under.Load())
		}
	})
}
