package inlookup

// An AVL tree whose nodes also hang on rings.
//
// The cache asks three things of the place where its entries lie: find one by
// its key, many thousand times a second; name the one used least recently;
// forget a user, or a whole domain. A map does the first best, and a list
// beside it the second. But to forget a domain it would have to look at every
// entry. In the order of the keys the entries of a domain are neighbours: one
// descent of an ordered tree finds the first, and the others follow.
//
// A descent costs a comparison for each level, so the tree must stay low
// whatever order the keys come in. An AVL tree (Adelson-Velsky and Landis,
// 1962) has one rule: the two subtrees of a node differ in height by at most
// one. The fewest nodes of a tree of height h are then N(h) = 1 + N(h-1) +
// N(h-2), with N(0) = 0 and N(1) = 1. These grow like the Fibonacci numbers, so
// h < 1.44 log2(n+2): a million entries take at most 28 levels. A rotation
// restores the rule. In the notation (parent left right), which all comments
// below use:
//
//	      y        raise x         x
//	     / \     ----------->     / \
//	    x   c                    a   y          (y (x a b) c)  <->  (x a (y b c))
//	   / \       <-----------       / \
//	  a   b        raise y         b   c
//
// Both sides read a x b y c from left to right: a rotation keeps the order, and
// changes only the heights of x and y.
//
// A ring keeps the order of use. It is a doubly linked list closed by a
// sentinel, so no link on it is nil, and its ends are no special cases:
//
//	+--> sentinel <--> most recent <--> ... <--> ... <--> least recent <--+
//	+---------------------------------------------------------------------+
//
// The two links are part of the node. So the list costs no allocation, and
// whoever holds a node can delete it without a search. No function of the tree
// touches a ring, except delete, which unlinks its node. No function of a ring
// touches the tree.
//
// Decided against: a red-black tree (fewer rotations, but up to 2 log2(n) high,
// and entries are found more often than they come and go); a skip list (low
// only on average); a B-tree (entries move when blocks split, and a ring holds
// only what stays in its place); a sorted slice (a new key moves half of it).

// A tree holds nodes in the order of their keys as bytes. The zero value is an
// empty tree. It has no lock; its owner needs one. Between two operations these
// hold:
//
//  1. Order: from left to right the keys strictly increase.
//  2. Parent: a node is the parent of its children; the root has none.
//  3. Height: a node is one higher than its higher child; no node has height 0.
//  4. Balance: the heights of a node's two children differ by at most one.
//  5. Length: len is the number of nodes.
//  6. Membership: each node is on exactly one of the owner's rings.
//  7. Ring: next and prev mirror each other (n.next.prev == n == n.prev.next), and
//     lead from the sentinel through all nodes of the ring back to it.
//
// Only 6 asks something of the owner: insert returns a new node on no ring, and
// the owner must push it on one.
type tree[V any] struct {
	root *node[V]
	len  int
}

// A node is an entry; it stays in its place in memory. With a value of 32 bytes
// it takes 96 bytes on a 64-bit machine, one of the allocator's sizes. The
// height cannot overflow: 127 levels need more than 10^26 nodes.
type node[V any] struct {
	key    string   // never changes, for 1
	left   *node[V] // beside the key, as a descent reads both
	right  *node[V]
	parent *node[V]
	prev   *node[V] // on its ring; prev and next are both nil on none
	next   *node[V]
	value  V    // the owner's
	height int8 // a leaf's is 1
}

// find returns the node with this key, or nil. Every question comes this way,
// so it must not allocate: for != and < the compiler copies no bytes.
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

// ceiling returns the node with the least key that is not below this one, or
// nil. A walk over a range starts here. A walk that deletes asks for the
// successor first, which stays the same node when its neighbour is deleted.
func (t *tree[V]) ceiling(key string) *node[V] {
	var least *node[V] // so far
	n := t.root
	for n != nil {
		if n.key < key {
			n = n.right
		} else {
			least = n
			n = n.left
		}
	}
	return least
}

// successor returns the node with the next key, or nil after the last. A walk
// passes each edge at most twice, down and up again, so k steps cost O(k + log
// n).
func (n *node[V]) successor() *node[V] {
	if n.right != nil {
		n = n.right
		for n.left != nil {
			n = n.left
		}
		return n
	}
	for n.parent != nil && n == n.parent.right {
		n = n.parent // a lesser key: go on to the ancestor with n on its left
	}
	return n.parent
}

// insert returns the node with this key: the one that is there, or a fresh one,
// on no ring and with a zero value. A fresh node keeps the string, and in
// memory any longer string that it was cut from.
func (t *tree[V]) insert(key string) (n *node[V], fresh bool) {
	var parent *node[V]
	slot := &t.root
	for *slot != nil {
		parent = *slot
		switch {
		case key == parent.key:
			return parent, false
		case key < parent.key:
			slot = &parent.left
		default:
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
// If n has two children, its successor s takes its place. Key and value are not
// copied, because rings and walks hold pointers to s: s itself moves. It has no
// left child, so its right child can take its old slot: (n a (... (s nil c)
// ...)) becomes (s a (... c ...)), or (n a (s nil c)) becomes (s a c).
func (t *tree[V]) delete(n *node[V]) {
	slot := t.slot(n)
	changed := n.parent // the lowest node below which a height may have changed
	switch {
	case n.left == nil:
		hang(slot, n.parent, n.right)
	case n.right == nil:
		hang(slot, n.parent, n.left)
	default:
		s := n.successor()
		changed = s
		if s != n.right {
			changed = s.parent
			hang(&s.parent.left, s.parent, s.right)
			hang(&s.right, s, n.right)
		}
		hang(&s.left, s, n.left)
		hang(slot, n.parent, s)
		s.height = n.height // the height before, from which rebalance starts
	}
	n.parent, n.left, n.right = nil, nil, nil
	n.unlink() // restores 6
	t.len--    // restores 5
	t.rebalance(changed)
}

// rebalance restores 3 and 4 from n upwards, after a node came or went below n.
//
// At each turn both hold in the subtrees of n, one of which may be one higher
// or lower than before. The node n and those above it still carry their old
// heights, so n tilts by at most two. Each turn goes up one level, so the loop
// ends. It may end as soon as the height at n is what it was: nothing else of
// the change can be seen from above.
//
// The repair of (y (x a b) c), where x has height h+2 and c has h (the mirror
// image is alike): if a has h+1, raising x makes (x a (y b c)), where b has h
// or h+1. If not, a has h and b has h+1, and that would only carry b to the
// other side. Then b = (m p q) is raised twice, to (y (m (x a p) q) c) and (m
// (x a p) (y q c)), where p and q have h or h-1. Either way 4 holds again.
//
// After an insert one repair, single or double, is enough: y had height h+2
// before, and only one of a and b has become h+1, so the result has h+2 and the
// loop ends. After a delete the result may be one lower than y was, and that on
// every level.
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
	y.measure() // first, because x now stands on it
	x.measure()
	return x
}

// hang puts child, which may be nil, into a slot: t.root, or a side of parent.
// Nothing else fills a slot, for 2.
func hang[V any](slot **node[V], parent, child *node[V]) {
	*slot = child
	if child != nil {
		child.parent = parent // restores 2
	}
}

// slot returns the variable that n hangs in. A node deleted before has no
// parent and is not the root, so it panics here, before any harm: taken for the
// root, it would lose the whole tree without a word.
func (t *tree[V]) slot(n *node[V]) **node[V] {
	if n == t.root {
		return &t.root
	}
	if n == n.parent.left {
		return &n.parent.left
	}
	return &n.parent.right
}

// measure sets the height of n by its children.
func (n *node[V]) measure() { n.height = 1 + max(n.left.tall(), n.right.tall()) }

// tilt returns how much higher the right child of n is than the left one.
func (n *node[V]) tilt() int8 { return n.right.tall() - n.left.tall() }

// tall returns the height of n, which may be nil.
func (n *node[V]) tall() int8 {
	if n == nil {
		return 0
	}
	return n.height
}

// A ring holds nodes in the order of their use. The zero value is an empty
// ring. Once used it must not be copied, because its nodes point to the
// sentinel in it.
type ring[V any] struct {
	// head is the sentinel: next is the most recent node, prev the least recent
	// one. Both are nil until the first use.
	head node[V]
}

// toFront makes n, which is on this ring, the most recent.
func (r *ring[V]) toFront(n *node[V]) {
	n.unlink()
	r.pushFront(n)
}

// pushFront makes n, which is on no ring, the most recent of this one.
func (r *ring[V]) pushFront(n *node[V]) { n.linkAfter(r.sentinel()) }

// pushBack makes n, which is on no ring, the least recent of this one.
func (r *ring[V]) pushBack(n *node[V]) { n.linkAfter(r.sentinel().prev) }

// back returns the least recent node, or nil if there is none.
func (r *ring[V]) back() *node[V] {
	last := r.sentinel().prev
	if last == &r.head {
		return nil
	}
	return last
}

// unlink takes n off its ring, if it is on one.
func (n *node[V]) unlink() {
	if n.next == nil {
		return
	}
	n.prev.next = n.next // restores 7
	n.next.prev = n.prev
	n.prev, n.next = nil, nil
}

// linkAfter puts n, which is on no ring, behind p, which is on one or its
// sentinel.
func (n *node[V]) linkAfter(p *node[V]) {
	n.prev, n.next = p, p.next
	n.prev.next = n // restores 7
	n.next.prev = n
}

// sentinel closes the circle of a ring not used before, and returns its
// sentinel.
func (r *ring[V]) sentinel() *node[V] {
	if r.head.next == nil {
		r.head.prev, r.head.next = &r.head, &r.head
	}
	return &r.head
}
