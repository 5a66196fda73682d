package inlookup

// An AVL tree whose nodes also hang on rings.
//
// The cache does three things with its entries. It finds one by key, thousands
// of times a second. It names the one used least recently. It forgets a user,
// or a whole domain. A map is best at the first, and a list beside it does the
// second. But to forget a domain, a map must look at every entry. A tree in the
// order of the keys has the entries of a domain side by side: one descent finds
// the first, and the others follow. Among a million entries a map finds one 7
// times faster, in 0.34 µs and not 2.35. But a flush of a domain would then read
// them all, and hold up everybody for 70 ms.
//
// A descent compares one key at each level, so the tree must stay low in
// whatever order keys arrive. An AVL tree (Adelson-Velsky and Landis, 1962) has
// one rule: the two subtrees of a node differ in height by at most one. The
// fewest nodes of a tree of height h are then N(h) = 1 + N(h-1) + N(h-2), with
// N(0) = 0 and N(1) = 1. These grow like the Fibonacci numbers, so h < 1.44
// log2(n+2): a million entries take at most 28 levels.
//
// A rotation restores the rule. The comments below write a tree in a line, as
// (parent left right). The letters m, n, s, x and y are nodes. The others are
// subtrees, which may be nil: a, b, c, p and q of a rotation, and l, r and t of
// a deletion:
//
//	    (y (x a b) c)                      (x a (y b c))
//
//	        y        rotateUp(x)        x
//	       / \      ----------->       / \
//	      x   c                       a   y
//	     / \       <-----------          / \
//	    a   b      rotateUp(y)          b   c
//
// From left to right both read a x b y c. So a rotation keeps the order. Within
// this subtree only x and y change their heights.
//
// A ring keeps the order of use. It is a doubly linked list closed by a
// sentinel, so no link on it is nil and its ends are no special cases:
//
//	+--> sentinel <--> most recent <--> ... <--> ... <--> least recent <--+
//	+---------------------------------------------------------------------+
//	         next leads to the right, prev to the left
//
// The two links are part of the node. So the list costs no allocation, and a
// node can be deleted without a search. An owner may have several rings, for
// different kinds of nodes. Only delete touches both tree and ring: it also
// unlinks the node.
//
// Decided against: a red-black tree (fewer rotations, but up to 2 log2(n) high,
// and entries are found more often than they come and go); a skip list (low
// only on average); a B-tree (entries move when blocks split, and a ring needs
// them to stay); a sorted slice (a new key moves half of it).

// A tree holds nodes in the order of their keys as bytes. The zero value is an
// empty tree. Neither tree nor ring has a lock; their owner needs one. Between
// two operations these hold:
//
//  1. Order: from left to right the keys strictly increase.
//  2. Parent: a node is the parent of its children; the root has none.
//  3. Height: a node is one higher than its higher child; a leaf has height 1.
//  4. Balance: the heights of a node's two children differ by at most one.
//  5. Length: len is the number of nodes.
//  6. Membership: each node is on exactly one of the owner's rings, and a ring
//     holds only nodes of the tree.
//  7. Ring: next and prev mirror each other (n.next.prev == n == n.prev.next),
//     and lead from the sentinel through all nodes of the ring back to it.
//
// After an insert 6 is up to the owner: insert returns a new node on no ring,
// and the owner must push it on one. It must not push a node that is on a ring.
type tree[V any] struct {
	root *node[V]
	len  int
}

// A node is an entry; it stays in its place in memory. With a value of 32 bytes
// it takes 96 bytes on a 64-bit machine, one of the allocator's sizes. The
// height cannot overflow: 127 levels need more than 10^26 nodes.
type node[V any] struct {
	key    string   // never changes, because of invariant 1
	left   *node[V] // beside the key, as a descent reads both
	right  *node[V]
	parent *node[V]
	prev   *node[V] // on its ring; prev and next are nil if it is on none
	next   *node[V]
	value  V // the owner's
	height int8
}

// find returns the node with this key, or nil. It must not allocate, because
// every question comes this way: the compiler copies no bytes for != and <.
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
// nil. A walk over a range starts here. A walk that deletes a node asks for its
// successor first.
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
// of k steps passes the edges between these k nodes, and those of two paths
// from the root, at most twice each. So it costs O(k + log n).
func (n *node[V]) successor() *node[V] {
	if n.right != nil {
		n = n.right
		for n.left != nil {
			n = n.left
		}
		return n
	}
	for n.parent != nil && n == n.parent.right {
		n = n.parent // its key is lower: go on up
	}
	return n.parent
}

// insert returns the node with this key. If there is none it adds one, with a
// zero value and on no ring. The node keeps the string, and with it the memory
// of any longer string that it was cut from.
func (t *tree[V]) insert(key string) (n *node[V], added bool) {
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
	attach(slot, parent, n)
	t.len++ // restores 5
	t.rebalance(parent)
	return n, true
}

// delete takes n, a node of this tree, out of it and off its ring.
//
// If n has at most one child, the child takes its place. If n has two, its
// successor s does. The node s itself moves, not its key and value, because
// rings and walks point to s. It has no left child. If s is not the right child
// of n, its own right child r takes its old place. More nodes may be between n
// and y:
//
//	(n l (y (s nil r) t))  becomes  (s l (y r t))
//	(n l (s nil r))        becomes  (s l r)
func (t *tree[V]) delete(n *node[V]) {
	lowest := n.parent // the lowest node with a child whose height may have changed
	switch {
	case n.left == nil:
		t.replace(n, n.right)
	case n.right == nil:
		t.replace(n, n.left)
	default:
		s := n.successor()
		lowest = s
		if s != n.right {
			lowest = s.parent
			t.replace(s, s.right)
			attach(&s.right, s, n.right)
		}
		attach(&s.left, s, n.left)
		t.replace(n, s)
		// The old height of this place, with which rebalance compares the new
		// one. If rebalance ends before it comes to s, the right subtree of s is
		// as high as that of n was, so the old height is right.
		s.height = n.height
	}
	n.parent, n.left, n.right = nil, nil, nil
	n.unlink() // restores 6
	t.len--    // restores 5
	t.rebalance(lowest)
}

// rebalance restores 3 and 4 from n upwards, after a node came or went below n.
//
// In each turn 3 and 4 hold below n. One subtree of n may have become one
// higher or lower, and n and the nodes above it still have their old heights.
// The balance of n was between -1 and +1, so now it is between -2 and +2. A
// repair may put another node in the place of n. If the height of this place
// ends up as it was before, nothing above has changed, and the loop ends.
//
// The repair of (y (x a b) c), where c has height h and x has h+2:
//
//   - a has h+1, and b has h or h+1: rotating x up makes (x a (y b c)).
//   - a has h, and b has h+1: the same would only carry b to the other side. So
//     its root m is rotated up twice. With b = (m p q), where p and q have h or
//     h-1, the tree becomes (y (m (x a p) q) c) and then (m (x a p) (y q c)).
//
// Either way 4 holds again. The mirror image is alike.
//
// After an insert one repair, single or double, is enough. The tree at y had
// height h+2 and x had h+1 before. Only one of a and b has grown to h+1, so the
// result has height h+2 again. After a delete c is what has become lower, and
// the tree at y had height h+3. The result has h+2, unless a and b both have
// h+1. So every level up to the root may need a repair.
func (t *tree[V]) rebalance(n *node[V]) {
	for ; n != nil; n = n.parent {
		before := n.height
		n.updateHeight() // restores 3
		switch n.balance() {
		case -2:
			if n.left.balance() > 0 {
				t.rotateUp(n.left.right)
			}
			n = t.rotateUp(n.left) // restores 4
		case +2:
			if n.right.balance() < 0 {
				t.rotateUp(n.right.left)
			}
			n = t.rotateUp(n.right) // restores 4
		}
		if n.height == before {
			return
		}
	}
}

// rotateUp rotates x over its parent y, and returns x.
func (t *tree[V]) rotateUp(x *node[V]) *node[V] {
	y := x.parent
	t.replace(y, x)
	if x == y.left { // (y (x a b) c) -> (x a (y b c))
		attach(&y.left, y, x.right)
		attach(&x.right, x, y)
	} else { // (y a (x b c)) -> (x (y a b) c)
		attach(&y.right, y, x.left)
		attach(&x.left, x, y)
	}
	y.updateHeight() // first, because y is now below x
	x.updateHeight()
	return x
}

// attach puts child, which may be nil, into a slot: t.root, or a side of
// parent.
func attach[V any](slot **node[V], parent, child *node[V]) {
	*slot = child
	if child != nil {
		child.parent = parent // restores 2
	}
}

// replace puts child, which may be nil, in the place of n. It panics if n was
// deleted before.
func (t *tree[V]) replace(n, child *node[V]) {
	switch {
	case n == t.root:
		attach(&t.root, nil, child)
	case n == n.parent.left:
		attach(&n.parent.left, n.parent, child)
	default:
		attach(&n.parent.right, n.parent, child)
	}
}

// updateHeight sets the height of n from those of its children.
func (n *node[V]) updateHeight() {
	n.height = 1 + max(n.left.heightOrZero(), n.right.heightOrZero())
}

// balance returns the height of the right child minus that of the left one.
func (n *node[V]) balance() int8 { return n.right.heightOrZero() - n.left.heightOrZero() }

// heightOrZero returns the height of n, which may be nil.
func (n *node[V]) heightOrZero() int8 {
	if n == nil {
		return 0
	}
	return n.height
}

// A ring holds nodes in the order of their use. The zero value is an empty
// ring. Once used it must not be copied, because nodes point to its sentinel.
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

// linkAfter makes n, which is on no ring, the next of p, which is on one or is
// a sentinel.
func (n *node[V]) linkAfter(p *node[V]) {
	n.prev, n.next = p, p.next
	n.prev.next = n // restores 7
	n.next.prev = n
}

// sentinel returns the sentinel, and closes the circle at the first use.
func (r *ring[V]) sentinel() *node[V] {
	if r.head.next == nil {
		r.head.prev, r.head.next = &r.head, &r.head
	}
	return &r.head
}
