package inlookup

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A slowConnector opens connections that take some time to close, and counts them.
type slowConnector struct{ opened, closed atomic.Int64 }

func (c *slowConnector) Connect(context.Context) (driver.Conn, error) {
	c.opened.Add(1)
	return slowConn{c}, nil
}

func (c *slowConnector) Driver() driver.Driver { return nil }

type slowConn struct{ of *slowConnector }

var errNoStatements = errors.New("it has no statements")

func (c slowConn) Prepare(string) (driver.Stmt, error) { return nil, errNoStatements }
func (c slowConn) Begin() (driver.Tx, error)           { return nil, errNoStatements }

func (c slowConn) Close() error {
	time.Sleep(5 * time.Millisecond)
	c.of.closed.Add(1)
	return nil
}

// TestDropIdle: questions that fail at the same time drop the idle connections at the same time,
// while others come back. Each connection that was opened is closed at the end.
func TestDropIdle(t *testing.T) {
	c := new(slowConnector)
	p := &pool{db: sql.OpenDB(c)}
	p.db.SetMaxOpenConns(maxConns)
	p.db.SetMaxIdleConns(maxConns)
	for range 10 {
		var conns []*sql.Conn
		for range maxConns {
			conn, err := p.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns[:maxConns/2] {
			conn.Close()
		}
		var all sync.WaitGroup
		all.Go(p.dropIdle)
		all.Go(p.dropIdle)
		for _, conn := range conns[maxConns/2:] {
			all.Go(func() { conn.Close() })
		}
		all.Wait()
		if n := p.db.Stats().InUse; n != 0 {
			t.Fatalf("%d connections are in use for ever", n)
		}
	}
	p.db.Close()
	if opened, closed := c.opened.Load(), c.closed.Load(); opened != closed {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
}
