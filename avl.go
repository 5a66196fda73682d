package inlookup

// An AVL tree whose nodes also hang on rings.
//
// The cache asks three things of the place where its entries lie: to find one by its key, many thousand times a
// second; to name the one used least recently; to forget a user, or a whole domain. A map does the first best, and a
// list beside it the second, but to forget a domain it would have to look at every entry there is. In the order of the
// keys the entries of a domain are neighbours: in an ordered tree one descent finds the first, and the others follow.
//
// A descent costs a comparison a level, so the tree must stay low whatever order the keys come in. An AVL tree
// (Adelson-Velsky and Landis, 1962) has one rule: a node's two subtrees differ in height by at most one. The fewest
// nodes of height h are then N(h) = 1 + N(h-1) + N(h-2), with N(0) = 0 and N(1) = 1: a Fibonacci number less one, that
// grows by the golden ratio, 1.618, a level. Hence h < 1.44 log2(n+2): a million entries take at most 28 levels.
// What restores the rule is the rotation. In the notation (parent left right), which is used everywhere below:
//
//	      y        raise x         x
//	     / \     ----------->     / \
//	    x   c                    a   y          (y (x a b) c)  <->  (x a (y b c))
//	   / \       <-----------       / \
//	  a   b        raise y         b   c
//
// Both say a x b y c from left to right: a rotation keeps the order, and changes the heights of x and y alone.
//
// The order of use is kept by a ring, a doubly linked list closed by a sentinel, so that no link on it is nil and its
// ends are no special cases. To the right it reads next, to the left prev:
//
//	+--> sentinel <--> most recent <--> ... <--> ... <--> least recent <--+
//	+---------------------------------------------------------------------+
//
// The two links lie in the node: an entry is one allocation, and whoever holds it can delete it without a search. No
// function of the tree touches a ring (but delete, which unlinks its node), and none of the ring the tree: a rotation
// cannot harm a ring, nor the use of an entry the order of the keys.
//
// Decided against: a red-black tree (fewer rotations, but up to 2 log2(n) high, and entries are found more often than
// they come and go); a skip list (low only on average, by luck); a B-tree (fewer cache misses, but entries move when
// blocks split, and a ring holds only what stays in its place); a sorted slice (a new key moves half of it).

// A tree holds nodes in the order of their keys as bytes. The zero value is an empty tree. It has no lock: its owner
// has. Between two operations of the owner:
//
//  1. Order: from left to right the keys strictly increase.
//  2. Parent: a node is the parent of its children; the root has none.
//  3. Height: a node is one higher than its higher child; where there is no node the height is 0.
//  4. Balance: the heights of a node's two children differ by at most one.
//  5. Length: len is the number of nodes.
//  6. Membership: each node is on exactly one of the owner's rings, and nothing else is on them.
//  7. Ring: next and prev mirror each other (n.next.prev == n == n.prev.next), and lead from the sentinel through all
//     nodes of the ring back to it. The sentinel is not in the tree.
//
// Only 6 asks something of the owner: insert returns a fresh node on no ring, and it must be pushed on one.
type tree[V any] struct {
	root *node[V]
	len  int
}

// A node is an entry; it stays in its place in memory. With a value of 32 bytes it takes 96 on a 64-bit machine, which
// is one of malloc's size classes. The height cannot overflow: 127 levels need N(127) nodes, more than 10^26.
type node[V any] struct {
	key                 string   // never changes, for 1
	left, right, parent *node[V] // beside the key: what a descent reads is then in one line of the processor's cache
	prev, next          *node[V] // on its ring; both nil: on none
	value               V        // the owner's
	height              int8     // a leaf's is 1
}

// find returns the node with this key, or nil. Questions come this way, so it must not allocate: the compiler copies no
// bytes for != and <. For bytes.Compare it would copy n.key, not knowing that assembly leaves it unchanged.
func (t *tree[V]) find(key []byte) *node[V] {
	n := t.root
	for n != nil && string(key) != n.key {
		if string(key) < n.key {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n
}

// ceiling returns the node with the least key that is not below this one, or nil: here a walk over a range starts.
// A walk that deletes asks for a node's successor first; that one stays the same node when the other is deleted.
func (t *tree[V]) ceiling(key string) *node[V] {
	var least *node[V] // so far
	for n := t.root; n != nil; {
		if n.key < key {
			n = n.right
		} else {
			least, n = n, n.left
		}
	}
	return least
}

// successor returns the node with the next key, or nil after the last. A walk passes each edge at most twice, down and
// up again, so k steps cost O(k + log n).
func (n *node[V]) successor() *node[V] {
	if n.right == nil {
		for n.parent != nil && n == n.parent.right {
			n = n.parent // a lesser key; on, to the ancestor that has n on its left
		}
		return n.parent
	}
	n = n.right
	for n.left != nil {
		n = n.left
	}
	return n
}

// insert returns the node with this key: the one that is there, or a fresh one, on no ring and with a zero value. The
// fresh node keeps the string, and in memory whatever longer string it was cut from.
func (t *tree[V]) insert(key string) (n *node[V], fresh bool) {
	slot, parent := &t.root, (*node[V])(nil)
	for *slot != nil {
		parent = *slot
		if key == parent.key {
			return parent, false
		}
		slot = &parent.left
		if key > parent.key {
			slot = &parent.right
		}
	}
	n = &node[V]{key: key, height: 1}
	hang(slot, parent, n)
	t.len++ // restores 5
	t.rebalance(parent)
	return n, true
}

// delete takes n, a node of this tree, out of it and off its ring.
//
// If n has two children, its successor s takes its place. Not by a copy of key and value, for rings and walks hold
// pointers to s: it moves itself. It has no left child, so its right one can take its old slot, and
// (n a (... (s nil c) ...)) becomes (s a (... c ...)), or (n a (s nil c)) becomes (s a c).
func (t *tree[V]) delete(n *node[V]) {
	slot, low := t.slot(n), n.parent // low: the lowest node with a child subtree that changed
	switch {
	case n.left == nil:
		hang(slot, n.parent, n.right)
	case n.right == nil:
		hang(slot, n.parent, n.left)
	default:
		s := n.successor()
		low = s
		if s != n.right {
			low = s.parent
			hang(&s.parent.left, s.parent, s.right)
			hang(&s.right, s, n.right)
		}
		hang(&s.left, s, n.left)
		hang(slot, n.parent, s)
		s.height = n.height // as before, which is what rebalance starts from
	}
	n.parent, n.left, n.right = nil, nil, nil
	n.unlink() // restores 6
	t.len--    // restores 5
	t.rebalance(low)
}

// rebalance restores 3 and 4 from n upwards, after a node came or went below n.
//
// At each turn both hold in the subtrees of n, one of which may be one higher or lower than before; n and those above
// still carry their old heights. So n tilts by two at most. Each turn goes up a level: the loop ends. It may end as
// soon as the height at n is what it was, for nothing else of the change can be seen from above.
//
// The repair of (y (x a b) c), where x is h+2 high and c is h; the mirror image is alike. If a is h+1, raising x makes
// (x a (y b c)), where b is h or h+1. If not, a is h and b is h+1, and that would only carry b to the other side; so
// b = (m p q) is raised twice, to (y (m (x a p) q) c) and (m (x a p) (y q c)), where p and q are h or h-1. Either way
// 4 holds again.
//
// After an insert one repair, single or double, is enough: y was h+2 before, and only one of a and b has become h+1,
// so the result is h+2, and the loop ends. After a delete it may be one lower than y was, and that on every level.
func (t *tree[V]) rebalance(n *node[V]) {
	for ; n != nil; n = n.parent {
		before := n.height
		n.measure() // restores 3
		switch n.tilt() {
		case -2:
			if n.left.tilt() > 0 {
				t.raise(n.left.right)
			}
			n = t.raise(n.left) // restores 4
		case +2:
			if n.right.tilt() < 0 {
				t.raise(n.right.left)
			}
			n = t.raise(n.right) // restores 4
		}
		if n.height == before {
			return
		}
	}
}

// raise rotates x over its parent y, and returns x.
func (t *tree[V]) raise(x *node[V]) *node[V] {
	y := x.parent
	hang(t.slot(y), y.parent, x)
	if x == y.left { // (y (x a b) c) -> (x a (y b c))
		hang(&y.left, y, x.right)
		hang(&x.right, x, y)
	} else { // (y a (x b c)) -> (x (y a b) c)
		hang(&y.right, y, x.left)
		hang(&x.left, x, y)
	}
	y.measure() // first, for x now stands on it
	x.measure()
	return x
}

// hang puts child, which may be nil, in a slot: t.root, or a side of parent. Only so is a slot ever filled, for 2.
func hang[V any](slot **node[V], parent, child *node[V]) {
	*slot = child
	if child != nil {
		child.parent = parent // restores 2
	}
}

// slot returns the variable that n hangs in. A node already deleted is not the root and has no parent: it panics here,
// before any harm. Were it taken for the root, the whole tree would be lost without a word.
func (t *tree[V]) slot(n *node[V]) **node[V] {
	if n == t.root {
		return &t.root
	}
	if n == n.parent.left {
		return &n.parent.left
	}
	return &n.parent.right
}

// measure sets the height of n by its children; tilt is how much the right one is higher: by 4, at most one either way.
func (n *node[V]) measure()   { n.height = 1 + max(n.left.tall(), n.right.tall()) }
func (n *node[V]) tilt() int8 { return n.right.tall() - n.left.tall() }

// tall is the height of n, which may be nil.
func (n *node[V]) tall() int8 {
	if n == nil {
		return 0
	}
	return n.height
}

// A ring holds nodes in the order of their use. The zero value is an empty ring. Once used it must not be copied, for
// its nodes point to the sentinel in it.
type ring[V any] struct {
	head node[V] // the sentinel: next is the most recent, prev the least; both nil until first used
}

// toFront makes n, which is on this ring, the most recent.
func (r *ring[V]) toFront(n *node[V]) {
	n.unlink()
	r.pushFront(n)
}

// pushFront makes n, which is on no ring, the most recent of this one, and pushBack the least recent.
func (r *ring[V]) pushFront(n *node[V]) { n.linkAfter(r.sentinel()) }
func (r *ring[V]) pushBack(n *node[V])  { n.linkAfter(r.sentinel().prev) }

// back returns the least recent node, or nil if there is none.
func (r *ring[V]) back() *node[V] {
	if n := r.head.prev; n != &r.head {
		return n
	}
	return nil
}

// unlink takes n off its ring, if it is on one.
func (n *node[V]) unlink() {
	if n.next != nil {
		n.prev.next, n.next.prev = n.next, n.prev // restores 7
		n.prev, n.next = nil, nil
	}
}

// linkAfter puts n, which is on no ring, behind p, which is on one or its sentinel.
func (n *node[V]) linkAfter(p *node[V]) {
	n.prev, n.next = p, p.next
	n.prev.next, n.next.prev = n, n // restores 7
}

// sentinel closes the circle of a ring not used before, and returns its sentinel.
func (r *ring[V]) sentinel() *node[V] {
	if r.head.next == nil {
		r.head.prev, r.head.next = &r.head, &r.head
	}
	return &r.head
}
