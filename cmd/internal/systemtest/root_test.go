package systemtest

// A server that runs as root must not lend its rights: anyone who can ask can
// name any FIFO of root's as reply FIFO.

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

// everyQuery is a question of each type, each with an answer.
var everyQuery = []inlookup.Query{
	{Type: inlookup.TypeUser, Email: "over@example.com"},
	{Type: inlookup.TypeRelay, Email: "user@example.com", IP: "192.0.2.10"},
	{Type: inlookup.TypePasswd, Email: "user@example.com"},
	{Type: inlookup.TypeHost, Email: "user@example.com"},
	{Type: inlookup.TypeAlias, Email: "alias@example.com"},
	{Type: inlookup.TypeLimit, Email: "example.com"},
	{Type: inlookup.TypeDomain, Email: "alias.example.org"},
	{Type: inlookup.TypeStatus},
	{Type: inlookup.TypeFlush, Email: "nobody@example.com"},
	{Type: inlookup.TypeExplain, Email: "user@example.com", IP: "3"},
}

// askAll sends a question of each type, twice, to be answered at path, and
// returns when the server is done with all of them.
func (s *site) askAll(path string) {
	s.t.Helper()
	for range 2 {
		for _, q := range everyQuery {
			send(s.t, s.fifo("infifo"), frame(q.Type, q.Email, path, q.IP))
		}
	}
	c := s.newCaller("infifo")
	for range 2 {
		for _, q := range everyQuery { // each lane works in order
			if _, _, err := c.ask(q); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	eventually(s.t, "nobody waits", func() bool { return s.counts()["waiting"] == 0 })
}

// setMode gives the FIFO of a reply a mode and an owner.
func (r *reply) setMode(t *testing.T, mode fs.FileMode, uid int) {
	t.Helper()
	if err := os.Chmod(r.path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.path, uid, uid); err != nil {
		t.Fatal(err)
	}
}

// Root answers only where others than the owner can read or write too. Clients make their FIFOs
// with mode 0660, less the umask.
func TestRootLendsNoRights(t *testing.T) {
	if os.Geteuid() != 0 {
		testmain.Skip(t, "only root can start a server as root")
	}
	s := goldenSite(t, database(t))
	s.serve()
	refused := 0
	for _, test := range []struct {
		mode     fs.FileMode
		uid      int
		answered bool
	}{
		{0o600, 0, false}, {0o700, 0, false}, {0o711, 0, false}, {0o200, 0, false},
		{0o600, nobody, false}, {0o200, nobody, false},
		{0o660, 0, true}, {0o640, 0, true}, {0o644, 0, true}, {0o620, 0, true}, {0o602, 0, true},
		{0o666, 0, true}, {0o660, nobody, true}, {0o640, nobody, true}, {0o666, nobody, true},
	} {
		r := newReply(t, s.env["FIFOTMPDIR"])
		r.setMode(t, test.mode, test.uid)
		s.askAll(r.path)
		if got, _ := r.drain(); (len(got) > 0) != test.answered {
			t.Errorf("mode %v, owner %d: %d bytes, want an answer: %v",
				test.mode, test.uid, len(got), test.answered)
		}
		if !test.answered {
			refused += 2 * len(everyQuery)
		}
		os.Remove(r.path)
	}
	if n := s.counts()["undeliverable_total"]; int(n) != refused {
		t.Errorf("%v replies are counted as undeliverable, want %d", n, refused)
	}
}

// A server without rights answers its own user's FIFOs whatever the mode, and none of root's.
func TestReplyRightsOfNobody(t *testing.T) {
	s := goldenSite(t, database(t))
	s.asNobody()
	s.ownControl(nobody)
	s.give("run", nobody)
	p := s.commandAs(nobody, []uint32{nobody}, "inlookup")
	s.answers(p)
	r := newReply(t, s.env["FIFOTMPDIR"])
	r.setMode(t, 0o600, nobody)
	s.askAll(r.path)
	if got, _ := r.drain(); len(got) == 0 {
		t.Error("no answer into nobody's own FIFO")
	}
	foreign := newReply(t, s.env["FIFOTMPDIR"])
	foreign.setMode(t, 0o600, 0)
	before := s.counts()["replies_unopened_total"]
	s.askAll(foreign.path)
	if got, _ := foreign.drain(); len(got) > 0 {
		t.Error("an answer into a FIFO of root's")
	}
	if n := s.counts()["replies_unopened_total"] - before; int(n) != 2*len(everyQuery) {
		t.Errorf("%v replies counted as unopened, want %d", n, 2*len(everyQuery))
	}
	p.terminate()
}

// ownControl gives the control files to a user, and lets it get at them and at
// the database's socket.
func (s *site) ownControl(uid int) {
	s.t.Helper()
	control := s.env["CONTROLDIR"]
	err := filepath.WalkDir(control, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(path, uid, uid)
		}
		return err
	})
	for _, dir := range []string{filepath.Dir(control), filepath.Dir(shared.db.Socket)} {
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
