//go:build ops

package systemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/mariadb"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// TestPreloadInBulk compares how many rows a second a preload of many users loads with
// how many questions a second are answered without a cache: five times as many. Live
// questions beside it are hardly slower. INLOOKUP_PRELOAD is the number of users.
func TestPreloadInBulk(t *testing.T) {
	if testing.Short() || raceEnabled {
		testmain.Skip(t, "a comparison of speed that takes minutes")
	}
	users := 200_000
	if text := os.Getenv("INLOOKUP_PRELOAD"); text != "" {
		var err error
		if users, err = strconv.Atoi(text); err != nil {
			t.Fatal("INLOOKUP_PRELOAD:", err)
		}
	}
	db, err := mariadb.StartWith(context.Background(), t.TempDir(), "--innodb-buffer-pool-size=512M")
	if errors.Is(err, mariadb.ErrNotInstalled) {
		testmain.Missing(t, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Stop() })
	if err := db.Exec(mariadb.Schema); err != nil {
		t.Fatal(err)
	}
	bulkUsers(t, db, users, "$5$abcdefgh$Hash")
	user := func() inlookup.Query {
		email := fmt.Sprintf("bulk%d@bulk.test", 1+rand.IntN(users))
		return inlookup.Query{Type: inlookup.TypeUser, Email: email}
	}
	stranger := func() inlookup.Query {
		return inlookup.Query{Type: inlookup.TypeUser, Email: newUser() + "@bulk.test"}
	}
	oneOfThree(t, func(c *complaint) {
		plain := newSite(t, db)
		plain.env["USE_BTREE"] = "0"
		p := plain.serve()
		v := newLoad(plain, 16).closed(16, 5*time.Second, user)
		p.terminate()
		if len(v.refused)+len(v.lost) > 0 {
			c.addf("without a cache: %v", v)
		}
		questions := float64(len(v.answered)) / 5

		s := newSite(t, db)
		s.env["CACHE_TTL"] = "1h"
		s.env["CACHE_SIZE"] = "1073741824"
		s.env["MAX_BTREE_COUNT"] = "2000000"
		p = s.serve("-c", "86400")
		l := newLoad(s, 16)
		var beside verdict
		var group sync.WaitGroup
		loaded := regexp.MustCompile(`(\d+) users loaded in (\S+)\n`)
		var m []string
		group.Go(func() { // live questions, each of three SELECTs
			for m == nil {
				more := l.steady(50, 500*time.Millisecond, stranger)
				beside.answered = append(beside.answered, more.answered...)
				beside.refused = append(beside.refused, more.refused...)
				beside.lost = append(beside.lost, more.lost...)
				m = loaded.FindStringSubmatch(p.stderr.String())
			}
		})
		group.Wait()
		alone := l.steady(50, 3*time.Second, stranger)
		n, _ := strconv.Atoi(m[1])
		p.terminate()
		took, err := time.ParseDuration(m[2])
		if err != nil {
			t.Fatalf("%q: %v", m[0], err)
		}
		if n != users { // a SELECT may have failed, and is not asked again
			c.addf("%q, want %d users", m[0], users)
			return
		}
		rows := float64(n) / took.Seconds()
		t.Logf("%d users loaded in %v: %.0f rows a second; without a cache 16 clients have"+
			" %.0f answers a second: %.1f times as many; live questions beside it: %v; alone: %v",
			n, took, rows, questions, rows/questions, beside, alone)
		if rows < 5*questions {
			c.addf("%.0f rows a second, %.0f questions a second: want five times", rows, questions)
		}
		if len(beside.refused)+len(beside.lost) > 0 {
			c.addf("live questions beside a preload: %v", beside)
		}
	})
}
