//go:build ops

package systemtest

// Long outages with many clients: a store that hangs, a database that hangs
// while a flood asks, SELECTs that hang. None may reach those who ask something else. These run
// with -tags ops alone.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/mariadb/mariadbtest"
)

// twoStores returns a site whose domains good.test and hung.test lie in two
// stores, each with a MariaDB of its own.
func twoStores(t *testing.T, hung *mariadb.DB) *site {
	t.Helper()
	s := newSite(t, database(t))
	entry := "domain %s 0\nserver 127.0.0.1\nmdahost 192.0.2.1\nport %d\nuse_ssl 0\n" +
		"database indimail\nuser indimail\npass secret\n"
	s.control("mcdinfo", fmt.Sprintf(entry, "good.test", database(t).Port)+
		fmt.Sprintf(entry, "hung.test", hung.Port))
	return s
}

// crowd has many clients ask for users of a domain, each some four times in a
// second if it is told at once. It returns when all have asked, with a function
// that ends it and tells how many were told an error. A client that is told
// nothing is a fault.
func (s *site) crowd(clients int, domain string) (end func() (told int)) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var group sync.WaitGroup
	var asking, n atomic.Int64
	for range clients {
		c := s.newCaller("infifo")
		group.Go(func() {
			for ctx.Err() == nil {
				asking.Add(1)
				q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@" + domain}
				code, _, err := c.ask(q)
				if err != nil || code != -1 {
					s.t.Errorf("%s: code %d, %v, want -1", q.Email, code, err)
					return
				}
				n.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(time.Duration(100+rand.IntN(300)) * time.Millisecond):
				}
			}
		})
	}
	end = func() int {
		cancel()
		group.Wait()
		return int(n.Load())
	}
	s.t.Cleanup(func() { end() })
	eventually(s.t, "all of the crowd ask", func() bool { return asking.Load() >= int64(clients) })
	s.counts() // which the server answers after it has read what they asked
	return end
}

// A store that hangs, with 400 clients at it, delays nobody who asks another.
func TestHungStoreDelaysNobodyElse(t *testing.T) {
	hung := mariadbtest.ForTest(t)
	s := twoStores(t, hung)
	s.serve()
	c := s.newCaller("infifo")
	s.misses(c, "hung.test", 10, patience)
	oneOfThree(t, func(complaints *complaint) {
		var without, with []time.Duration
		told := 0
		for range 2 {
			without = append(without, s.misses(c, "good.test", 150, 3*time.Second)...)
			if err := hung.Pause(); err != nil {
				t.Fatal(err)
			}
			end := s.crowd(400, "hung.test")
			with = append(with, s.misses(c, "good.test", 150, 3*time.Second)...)
			told += end()
			if err := hung.Continue(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the store is well again", func() bool {
				q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@hung.test"}
				code, _, err := c.ask(q)
				return err == nil && code == int(inlookup.StatusAbsent)
			})
		}
		usual, beside := median(without), median(with)
		t.Logf("a miss takes %v, beside the hung store %v (medians); "+
			"%v and %v (means of %d and %d); %d were told", usual, beside,
			mean(without), mean(with), len(without), len(with), told)
		if beside > 2*usual+10*time.Millisecond {
			complaints.addf("a miss takes %v beside a hung store, else %v", beside, usual)
		}
		// Few that take seconds are no matter to the median: so the mean, too.
		if usual, beside := mean(without), mean(with); beside > 2*usual+20*time.Millisecond {
			complaints.addf("a miss takes %v on average beside a hung store, else %v",
				beside, usual)
		}
		if told < 800 {
			t.Errorf("%d were told, want each of the 400, twice", told)
		}
	})
}

// With as many waiting as the server lets wait, and more who come, a flush is
// carried out. Else the old password would outlive the outage.
func TestFlushDuringOutage(t *testing.T) {
	t.Parallel()
	db := mariadbtest.ForTest(t)
	addUser(t, db, "flush", "example.com", "old")
	s := goldenSite(t, db)
	s.serve()
	d := inlookup.Directory{Resolver: s.short(patience)}
	if got := passwd(t, d, "flush@example.com"); got != "old" {
		t.Fatalf("password %q", got)
	}
	setPasswd(t, db, "flush", "example.com", "new")
	if err := db.Pause(); err != nil {
		t.Fatal(err)
	}
	flood := s.flood("infifo", inlookup.Query{Type: inlookup.TypeUser, Email: "wait#@example.com"})
	c := s.newCaller("infifo")
	eventually(t, "the server refuses some", func() bool {
		q := inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@example.com"}
		start := time.Now()
		code, _, err := c.ask(q)
		if err != nil {
			t.Fatal(err)
		}
		return code == -1 && time.Since(start) < time.Second
	})
	for _, test := range []struct {
		q    inlookup.Query
		want string
	}{
		{inlookup.Query{Type: inlookup.TypeFlush, Email: "flush@example.com"}, "1 entry flushed"},
		{inlookup.Query{Type: inlookup.TypeStatus}, "inlookup_waiting "},
		{inlookup.Query{Type: inlookup.TypeExplain, Email: "flush@example.com", IP: "3"}, "miss"},
	} {
		start := time.Now()
		code, text, err := c.ask(test.q)
		if err != nil || !strings.Contains(text, test.want) {
			t.Errorf("%v: code %d, %q, %v, want %q", test.q.Type, code, text, err, test.want)
		}
		t.Logf("%v answered after %v", test.q.Type, time.Since(start).Round(time.Millisecond))
	}
	flood.signal(syscall.SIGKILL)
	<-flood.done
	if err := db.Continue(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new password", func() bool {
		entry, err := d.Passwd(t.Context(), "flush@example.com")
		if err == nil && entry.Passwd.Reveal() == "old" {
			t.Fatal("the old password after a flush")
		}
		return err == nil && entry.Passwd.Reveal() == "new"
	})
}

// ourSessions is how many connections one pool may have. mariadbSessions are as many
// again, which have been given up and which MariaDB has yet to end.
const (
	ourSessions     = 16
	mariadbSessions = 2 * ourSessions
)

// 100 clients ask while every SELECT hangs. What they gave up must not stay with MariaDB.
func TestHangingSelectsDoNotPileUp(t *testing.T) {
	t.Parallel()
	db := installationDB(t)
	a := newAdmin(t, db)
	long := 10 * time.Second
	if os.Getenv("INLOOKUP_SOAK") != "" {
		long = 25 * time.Second
	}
	s := newSite(t, db)
	s.serve()
	unlock := lockTables(t, db, tables...)
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range 100 {
		client := &inlookup.Client{Getenv: s.getenv}
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				email := fmt.Sprintf("hang%d.%d@example.com", i, n)
				switch i % 4 {
				case 0:
					rightOrNone(t, client, "1 "+email, "absent")
				case 1:
					rightOrNone(t, client, "2 "+email+" 192.0.2.1", "false")
				case 2:
					rightOrNone(t, client, "5 "+email, "[]")
				case 3:
					rightOrNone(t, client, "6 "+email, "absent")
				}
			}
		})
	}
	most := 0
	for start := time.Now(); time.Since(start) < long; time.Sleep(20 * time.Millisecond) {
		most = max(most, a.sessions(t))
	}
	cancel()
	unlock()
	clients.Wait()
	t.Logf("%d sessions at most", most)
	if most > mariadbSessions || most == 0 {
		t.Errorf("%d sessions, want at most %d, and some", most, mariadbSessions)
	}
	recovers(t, s.client(), "the lock has gone", localQuestions)
	eventually(t, "when all is well no more sessions than connections", func() bool {
		return a.sessions(t) <= ourSessions
	})
}
