package inlookup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// check returns the number of the first invariant found broken (they stand beside the type tree),
// or 0. Without rings it leaves out 6 and 7.
//
// It ends on any input. A node is entered only through its own parent link, and the root only
// without one, so no path comes back to a node of its own. 1 stops it at a node in two slots. On a
// ring it goes on only where the links mirror each other. Then no two nodes have the same next, so
// the first one met twice is the sentinel.
func (t *tree[V]) check(rings ...*ring[V]) int {
	var last *node[V]
	inTree := make(map[*node[V]]bool, t.len)
	var walk func(n, parent *node[V]) int
	walk = func(n, parent *node[V]) int {
		if n == nil {
			return 0
		}
		if n.parent != parent {
			return 2
		}
		if broken := walk(n.left, n); broken != 0 {
			return broken
		}
		if last != nil && last.key >= n.key {
			return 1
		}
		last, inTree[n] = n, true
		if broken := walk(n.right, n); broken != 0 {
			return broken
		}
		if n.height != 1+max(n.left.heightOrZero(), n.right.heightOrZero()) {
			return 3
		}
		if n.balance() < -1 || n.balance() > 1 {
			return 4
		}
		return 0
	}
	if broken := walk(t.root, nil); broken != 0 {
		return broken
	}
	if len(inTree) != t.len {
		return 5
	}
	if len(rings) == 0 {
		return 0
	}
	onRing := 0 // a node cannot be counted twice: by 7 it has one prev, and so one place
	for _, r := range rings {
		if inTree[&r.head] {
			return 7
		}
		if r.head.next == nil && r.head.prev == nil {
			continue // never used
		}
		for n := &r.head; ; n = n.next {
			if n.next == nil || n.next.prev != n {
				return 7
			}
			if n.next == &r.head {
				break
			}
			if !inTree[n.next] {
				return 6
			}
			onRing++
		}
	}
	if onRing != t.len {
		return 6
	}
	return 0
}

// String writes a tree in the notation of avl.go, a leaf by its key alone and no node as a dot:
// (b a (c . d)).
func (n *node[V]) String() string {
	switch {
	case n == nil:
		return "."
	case n.left == nil && n.right == nil:
		return n.key
	}
	return fmt.Sprintf("(%s %v %v)", n.key, n.left, n.right)
}

// growTree returns a tree of these keys, inserted in this order.
func growTree(keys ...string) *tree[int] {
	t := new(tree[int])
	for _, k := range keys {
		t.insert(k)
	}
	return t
}

// mustHold fails the test if an invariant is broken.
func mustHold[V any](tb testing.TB, t *tree[V], rings ...*ring[V]) {
	tb.Helper()
	if broken := t.check(rings...); broken != 0 {
		tb.Fatalf("invariant %d is broken in %s", broken, t.shape(broken))
	}
}

// shape is what to print of a tree in which this invariant is broken. Without 1 and 2 it may have
// no end.
func (t *tree[V]) shape(broken int) string {
	if broken <= 2 {
		return "what is no tree any more"
	}
	return t.root.String()
}

// Each case of insert and delete once, to be read: + inserts the letters that follow, - deletes
// them.
func TestTreeShapes(t *testing.T) {
	for _, c := range []struct{ name, ops, want string }{
		{"empty", "", "."},
		{"one", "+a", "a"},
		{"again", "+aa", "a"},
		{"left left", "+cba", "(b a c)"},
		{"right right", "+abc", "(b a c)"},
		{"left right", "+cab", "(b a c)"},
		{"right left", "+acb", "(b a c)"},
		{"one rotation is enough", "+ebfadc", "(d (b a c) (e . f))"},
		{"delete the last", "+a-a", "."},
		{"delete a leaf", "+bac-a", "(b . c)"},
		{"delete above a left child", "+cdba-b", "(c a d)"},
		{"delete above a right child", "+bacd-c", "(b a d)"},
		{"delete the root above one child", "+ab-a", "b"},
		{"successor is the right child", "+bac-b", "(c a .)"},
		{"successor is the right child, and has one", "+bacd-b", "(c a d)"},
		{"successor is deeper", "+bafdgce-b", "(d (c a .) (f e g))"},
		{"rotate after delete, inner side low", "+bacd-a", "(c b d)"},
		{"rotate after delete, inner side level", "+badce-a", "(d (b . c) e)"},
		{"rotate after delete, inner side high", "+badc-a", "(c b d)"},
		{"the same on the left", "+cbda-d", "(b a c)"},
		{"the same on the left, level", "+dbeac-e", "(b a (d c .))"},
		{"the same on the left, high", "+dbec-e", "(c b d)"},
	} {
		var tr tree[int]
		insert := true
		for _, op := range c.ops {
			switch {
			case op == '+' || op == '-':
				insert = op == '+'
			case insert:
				tr.insert(string(op))
			default:
				tr.delete(tr.find([]byte(string(op))))
			}
			mustHold(t, &tr)
		}
		if got := tr.root.String(); got != c.want {
			t.Errorf("%s: %s gives %s, want %s", c.name, c.ops, got, c.want)
		}
	}
}

// Keys are compared as bytes: a shorter one before a longer one it begins, and 0xff after all
// letters.
func TestTreeKeys(t *testing.T) {
	keys := []string{"", "\x00", "a", "a\x00", "a\x00\x00\x01", "a\x01", "ab", "b", "\u00e4", "\xff"}
	tr := growTree(keys...)
	mustHold(t, tr)
	for i, k := range keys {
		n := tr.find([]byte(k))
		if n == nil || n.key != k || tr.ceiling(k) != n {
			t.Fatalf("find(%q) = %v, ceiling %v", k, n, tr.ceiling(k))
		}
		var next *node[int]
		if i+1 < len(keys) {
			next = tr.find([]byte(keys[i+1]))
		}
		if s := n.successor(); s != next {
			t.Errorf("successor of %q is %v", k, s)
		}
	}
	if n := tr.find(nil); n == nil || n.key != "" {
		t.Errorf("find(nil) = %v", n)
	}
}

// Insert the keys 1 to 7 in each of their orders, and then delete each of them.
func TestTreePermutations(t *testing.T) {
	var permute func(keys []string, fixed int)
	permute = func(keys []string, fixed int) {
		if fixed < len(keys) {
			for i := fixed; i < len(keys); i++ {
				keys[fixed], keys[i] = keys[i], keys[fixed]
				permute(keys, fixed+1)
				keys[fixed], keys[i] = keys[i], keys[fixed]
			}
			return
		}
		for _, k := range keys {
			tr := growTree(keys...)
			mustHold(t, tr)
			tr.delete(tr.find([]byte(k)))
			mustHold(t, tr)
			if tr.len != len(keys)-1 || tr.find([]byte(k)) != nil {
				t.Fatalf("after delete of %s from %v: %v", k, keys, tr.root)
			}
		}
	}
	keys := strings.Split("1234567", "")
	for n := range keys {
		permute(keys[:n+1], 0)
	}
}

// The leanest trees there are, N(h) nodes of height h, are where the bound on the height is met,
// and where one delete may rotate on every level.
func TestLeanestTrees(t *testing.T) {
	// lean returns N(h) keys in an order of insertion that needs no rotation: by levels.
	lean := func(h int) (keys []string) {
		levels := make([][]string, h)
		next := 0
		var build func(h, depth int)
		build = func(h, depth int) {
			if h > 0 {
				build(h-1, depth+1)
				levels[depth] = append(levels[depth], fmt.Sprintf("%04d", next))
				next++
				build(h-2, depth+1)
			}
		}
		build(h, 0)
		return slices.Concat(levels...)
	}
	for h, n := 1, [2]int{0, 1}; h <= 10; h, n = h+1, [2]int{n[1], 1 + n[1] + n[0]} {
		keys := lean(h)
		if tr := growTree(keys...); len(keys) != n[1] || int(tr.root.height) != h {
			t.Fatalf("height %d: %d nodes, height %d; want %d nodes", h, len(keys), tr.root.height, n[1])
		}
		for _, k := range keys {
			tr := growTree(keys...)
			tr.delete(tr.find([]byte(k)))
			mustHold(t, tr)
		}
	}
}

// A million nodes are at most 28 levels high, 100,000 at most 23, even if their keys come in order.
func TestTreeHeight(t *testing.T) {
	const n, bound = 100_000, 23 // N(23) = 75,024; N(24) = 121,392
	for name, key := range map[string]func(i int) string{
		"ascending":  func(i int) string { return fmt.Sprintf("%06d", i) },
		"descending": func(i int) string { return fmt.Sprintf("%06d", n-i) },
		"zigzag":     func(i int) string { return fmt.Sprintf("%06d", n+i/2*(1-i%2*2)) },
	} {
		var tr tree[int]
		for i := range n {
			tr.insert(key(i))
			if i < 200 {
				mustHold(t, &tr)
			}
		}
		mustHold(t, &tr)
		if tr.root.height > bound {
			t.Errorf("%s: %d nodes are %d high", name, tr.len, tr.root.height)
		}
	}
}

// A deleted node panics rather than take the tree with it, and the tree is as it was.
func TestTreeDeleteTwice(t *testing.T) {
	tr := growTree("b", "a", "c")
	gone := tr.find([]byte("a"))
	tr.delete(gone)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		if mustHold(t, tr); tr.root.String() != "(b . c)" {
			t.Errorf("the tree has become %v", tr.root)
		}
	}()
	tr.delete(gone)
}

// A whole domain goes in one walk over one range, and its neighbours stay.
func TestTreeWalk(t *testing.T) {
	var tr tree[int]
	var r ring[int]
	for _, domain := range []string{"a.com", "b.com", "b.com.au", "bb.com"} {
		for user := range 50 {
			n, _ := tr.insert(fmt.Sprintf("%s\x00user%d\x00\x03", domain, user))
			r.pushFront(n)
		}
	}
	const prefix = "b.com\x00"
	gone := 0
	for n := tr.ceiling(prefix); n != nil && strings.HasPrefix(n.key, prefix); gone++ {
		next := n.successor()
		tr.delete(n)
		n = next
	}
	mustHold(t, &tr, &r)
	if gone != 50 || tr.len != 150 || !strings.HasPrefix(tr.ceiling(prefix).key, "b.com.au\x00") {
		t.Errorf("%d deleted, %d left, then comes %q", gone, tr.len, tr.ceiling(prefix).key)
	}
}

func TestRing(t *testing.T) {
	var r ring[int]
	if n := r.back(); n != nil {
		t.Fatalf("back of a new ring is %v", n)
	}
	r.pushBack(&node[int]{key: "c"})
	r.pushFront(&node[int]{key: "b"})
	r.pushFront(&node[int]{key: "a"})
	r.toFront(r.head.next) // already there
	r.pushBack(&node[int]{key: "d"})
	r.toFront(r.back())
	for _, want := range []string{"c", "b", "a", "d"} {
		n := r.back()
		if n == nil || n.key != want {
			t.Fatalf("back is %v, want %s", n, want)
		}
		n.unlink()
		n.unlink() // on no ring now: does nothing
	}
	if n := r.back(); n != nil {
		t.Errorf("back of an emptied ring is %v", n)
	}
}

// A treeModel does the same as the tree and its two rings with sorted slices, and compares after
// every step.
type treeModel struct {
	tree  tree[int]
	rings [2]ring[int]
	keys  []string              // in order
	used  [2][]string           // of each ring, the most recent first
	nodes map[string]*node[int] // what insert has returned: a node must stay the same node
	count int                   // of steps
}

func (m *treeModel) ringOf(key string) int {
	if slices.Contains(m.used[0], key) {
		return 0
	}
	return 1
}

// without removes the key from a list.
func without(list []string, key string) []string {
	return slices.DeleteFunc(list, func(k string) bool { return k == key })
}

// step does one operation on one key, and returns what went wrong.
func (m *treeModel) step(op, arg byte) error {
	m.count++
	key := fmt.Sprintf("%03d", arg)
	at, known := slices.BinarySearch(m.keys, key)
	r := m.ringOf(key)
	n := m.tree.find([]byte(key))
	if n != m.nodes[key] {
		return fmt.Errorf("find(%s) = %v, want %v", key, n, m.nodes[key])
	}
	switch op % 8 {
	case 0, 1, 2: // insert, in front or at the back
		n, fresh := m.tree.insert(key)
		if fresh == known || n == nil || known && n != m.nodes[key] {
			return fmt.Errorf("insert(%s) = %v, %v", key, n, fresh)
		}
		if !fresh {
			break
		}
		if n.key != key || n.value != 0 || n.prev != nil || n.next != nil {
			return fmt.Errorf("insert(%s): not a fresh node: %+v", key, *n)
		}
		n.value = m.count
		m.keys, m.nodes[key] = slices.Insert(m.keys, at, key), n
		if r = int(arg & 1); op%8 == 0 {
			m.rings[r].pushBack(n)
			m.used[r] = append(m.used[r], key)
		} else {
			m.rings[r].pushFront(n)
			m.used[r] = slices.Insert(m.used[r], 0, key)
		}
	case 3, 4: // delete
		if known {
			if err := m.drop(n, r); err != nil {
				return err
			}
		}
	case 5: // use
		if known {
			m.rings[r].toFront(n)
			m.used[r] = slices.Insert(without(m.used[r], key), 0, key)
		}
	case 6: // move to the other ring
		if known {
			n.unlink()
			m.rings[1-r].pushFront(n)
			m.used[r], m.used[1-r] = without(m.used[r], key), slices.Insert(m.used[1-r], 0, key)
		}
	case 7: // evict, but from a large ring only, or the tree would never grow
		if r = int(arg & 1); len(m.used[r]) > 50 {
			if err := m.drop(m.rings[r].back(), r); err != nil {
				return err
			}
		}
	}
	return m.compare(key)
}

// drop deletes a node that is on ring r. It must lead nowhere then, or it would keep others in
// memory.
func (m *treeModel) drop(n *node[int], r int) error {
	m.tree.delete(n)
	m.keys, m.used[r] = without(m.keys, n.key), without(m.used[r], n.key)
	delete(m.nodes, n.key)
	for _, link := range []*node[int]{n.parent, n.left, n.right, n.prev, n.next} {
		if link != nil {
			return fmt.Errorf("deleted %s still points to %s", n.key, link.key)
		}
	}
	return nil
}

// compare looks at everything: the invariants, all nodes in order, the rings both ways, and the
// ceiling of a key.
func (m *treeModel) compare(key string) error {
	if broken := m.tree.check(&m.rings[0], &m.rings[1]); broken != 0 {
		return fmt.Errorf("invariant %d is broken in %s", broken, m.tree.shape(broken))
	}
	n := m.tree.ceiling("")
	for _, k := range m.keys {
		if n == nil || n.key != k || n != m.nodes[k] {
			return fmt.Errorf("in order comes %v, want %s", n, k)
		}
		n = n.successor()
	}
	if n != nil || m.tree.len != len(m.keys) {
		return fmt.Errorf("%d nodes and then %v, want %d", m.tree.len, n, len(m.keys))
	}
	for i := range m.rings {
		var want *node[int]
		for _, k := range slices.Backward(m.used[i]) {
			if want == nil {
				want = m.rings[i].back()
			}
			if want == nil || want.key != k {
				return fmt.Errorf("from the back of ring %d comes %v, want %s", i, want, k)
			}
			want = want.prev
		}
		if len(m.used[i]) == 0 && m.rings[i].back() != nil {
			return fmt.Errorf("ring %d should be empty, but has %v", i, m.rings[i].back())
		}
	}
	at, _ := slices.BinarySearch(m.keys, key)
	var ceiling *node[int]
	if at < len(m.keys) {
		ceiling = m.nodes[m.keys[at]]
	}
	if n := m.tree.ceiling(key); n != ceiling {
		return fmt.Errorf("ceiling(%s) = %v", key, n)
	}
	return nil
}

// Random operations on 200 keys, half of them present at a time, so that many a delete finds two
// children.
func TestTreeModel(t *testing.T) {
	const seed = 7
	random := rand.New(rand.NewPCG(seed, seed))
	m := &treeModel{nodes: make(map[string]*node[int])}
	for range 20_000 {
		op, arg := byte(random.UintN(256)), byte(random.UintN(200))
		if err := m.step(op, arg); err != nil {
			t.Fatalf("step %d (%d, %d), seed %d: %v", m.count, op%8, arg, seed, err)
		}
	}
	t.Logf("%d nodes at the end, on rings of %d and %d", len(m.keys), len(m.used[0]), len(m.used[1]))
}

// FuzzTree takes two bytes for each step: the operation and the key.
func FuzzTree(f *testing.F) {
	ascending, descending := []byte{}, []byte{}
	for i := range byte(40) {
		ascending = append(ascending, 1, i)
		descending = append(descending, 0, 40-i)
	}
	f.Add(ascending)
	f.Add(descending)
	f.Add([]byte("\x01b\x01a\x01d\x01c\x03b\x05a\x06a\x04d"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &treeModel{nodes: make(map[string]*node[int])}
		for i := 0; i+1 < len(data) && i < 600; i += 2 {
			if err := m.step(data[i], data[i+1]); err != nil {
				t.Fatalf("step %d (%d, %d): %v", m.count, data[i]%8, data[i+1], err)
			}
		}
	})
}

// The checker is only worth its answer if it sees each kind of damage. Each case does one to
// (d (b a c) (f e g)), with a, c, e, g on one ring and b, d, f on the other.
func TestCheckSeesDamage(t *testing.T) {
	type damage struct {
		tr         *tree[int]
		r1, r2, r3 *ring[int]
		n          func(key string) *node[int]
	}
	for _, c := range []struct {
		name string
		want int
		do   func(d damage)
	}{
		{"nothing", 0, func(d damage) {}},
		{"keys exchanged", 1, func(d damage) { a, e := d.n("a"), d.n("e"); a.key, e.key = e.key, a.key }},
		{"keys equal", 1, func(d damage) { d.n("c").key = "d" }},
		{"left and right exchanged", 1, func(d damage) {
			f := d.n("f")
			f.left, f.right = f.right, f.left
		}},
		{"a node in two slots", 1, func(d damage) { d.n("f").right = d.n("e") }},
		{"no parent", 2, func(d damage) { d.n("a").parent = nil }},
		{"another's child", 2, func(d damage) { d.n("e").parent = d.n("b") }},
		{"root with a parent", 2, func(d damage) { d.n("d").parent = d.n("a") }},
		{"a circle through the root", 2, func(d damage) { d.n("a").left = d.tr.root }},
		{"leaf too high", 3, func(d damage) { d.n("g").height = 2 }},
		{"root too low", 3, func(d damage) { d.n("d").height-- }},
		{"leaf of height zero", 3, func(d damage) { d.n("c").height = 0 }},
		{"left side gone", 4, func(d damage) { d.tr.root.left = nil; d.tr.len = 4 }},
		{"right side gone", 4, func(d damage) { d.tr.root.right = nil; d.tr.len = 4 }},
		{"one too many", 5, func(d damage) { d.tr.len++ }},
		{"one too few", 5, func(d damage) { d.tr.len-- }},
		{"root gone", 5, func(d damage) { d.tr.root = nil }},
		{"on no ring", 6, func(d damage) { d.n("c").unlink() }},
		{"on a ring of nobody", 6, func(d damage) { c := d.n("c"); c.unlink(); d.r3.pushFront(c) }},
		{"not in the tree", 6, func(d damage) { d.r1.pushFront(&node[int]{key: "x"}) }},
		{"another in its place", 6, func(d damage) {
			d.n("c").unlink()
			d.r1.pushFront(&node[int]{key: "c"})
		}},
		{"no next", 7, func(d damage) { d.n("c").next = nil }},
		{"no prev", 7, func(d damage) { d.n("c").prev = nil }},
		{"passed over", 7, func(d damage) { e := d.n("e"); e.prev.next = e.next }},
		{"on two rings", 7, func(d damage) { d.r2.pushFront(d.n("c")) }},
		{"twice on a ring", 7, func(d damage) { d.r1.pushFront(d.n("c")) }},
		{"half a sentinel", 7, func(d damage) { d.r1.head.next = nil }},
		{"a ring copied", 7, func(d damage) {
			next := d.r1.head.next
			*d.r1 = ring[int]{}
			d.r1.head.next = next
		}},
		{"sentinel in the tree", 7, func(d damage) {
			n := d.n("g")
			n.right, d.r1.head.key, d.r1.head.parent, d.r1.head.height = &d.r1.head, "h", n, 1
			n.updateHeight()
			n.parent.updateHeight()
			d.tr.root.updateHeight()
			d.tr.len++
		}},
	} {
		d := damage{tr: growTree("d", "b", "f", "a", "c", "e", "g")}
		d.r1, d.r2, d.r3 = new(ring[int]), new(ring[int]), new(ring[int])
		d.n = func(key string) *node[int] { return d.tr.find([]byte(key)) }
		for i, k := range strings.Split("abcdefg", "") {
			[]*ring[int]{d.r1, d.r2}[i%2].pushFront(d.n(k))
		}
		c.do(d)
		if got := d.tr.check(d.r1, d.r2); got != c.want {
			t.Errorf("%s: check says %d, want %d", c.name, got, c.want)
		}
	}
}

// A key of more than 32 bytes: shorter ones, if copied, would be copied to the stack, and not be
// counted.
func TestFindDoesNotAllocate(t *testing.T) {
	var tr tree[[32]byte]
	for i := range 1000 {
		tr.insert(fmt.Sprintf("a-rather-long-domain.example.com\x00user%d\x00\x03", i))
	}
	for _, user := range []string{"user0", "user500", "user999", "nobody"} {
		key := []byte("a-rather-long-domain.example.com\x00" + user + "\x00\x03")
		if n := testing.AllocsPerRun(100, func() { tr.find(key) }); n != 0 {
			t.Errorf("find(%q) allocates %v times", key, n)
		}
	}
}

// What an entry costs is part of the cache's accounts.
func TestNodeSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		skip(t, "not a 64-bit machine")
	}
	type value struct {
		_ []byte
		_ int64
	}
	if a, b := unsafe.Sizeof(node[[32]byte]{}), unsafe.Sizeof(node[value]{}); a != 96 || b != 96 {
		t.Errorf("a node takes %d or %d bytes, want 96", a, b)
	}
	if class := cap(append([]byte(nil), make([]byte, 96)...)); class != 96 {
		t.Errorf("malloc gives %d bytes for 96", class)
	}
}
