package inlookup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The tree beside what it was preferred to: a map, and a sorted slice. All three begin with the
// same nodes.
//
//	Search   one key out of n, at random
//	Replace  delete one key and insert another, so that the size stays
//	Domain   visit the 100 users of one domain: what a flush does

type benchNode = node[[32]byte]

type benchTable interface {
	search(key []byte) *benchNode
	replace(old, key string)
	domain(prefix string) (users int)
}

type benchTree struct{ tree[[32]byte] }

func (t *benchTree) search(key []byte) *benchNode { return t.find(key) }

func (t *benchTree) replace(old, key string) {
	t.delete(t.ceiling(old))
	t.insert(key)
}

func (t *benchTree) domain(prefix string) (users int) {
	for n := t.ceiling(prefix); n != nil && strings.HasPrefix(n.key, prefix); n = n.successor() {
		users++
	}
	return users
}

type benchMap map[string]*benchNode

func (m benchMap) search(key []byte) *benchNode { return m[string(key)] }

func (m benchMap) replace(old, key string) {
	delete(m, old)
	m[key] = &benchNode{key: key}
}

func (m benchMap) domain(prefix string) (users int) {
	for key := range m {
		if strings.HasPrefix(key, prefix) {
			users++
		}
	}
	return users
}

type benchSlice []*benchNode

func (s benchSlice) index(key string) int {
	at, _ := slices.BinarySearchFunc(s, key, func(n *benchNode, key string) int {
		return strings.Compare(n.key, key)
	})
	return at
}

func (s benchSlice) search(key []byte) *benchNode {
	low, high := 0, len(s)
	for low < high {
		if middle := (low + high) / 2; s[middle].key < string(key) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return s[low] // only keys that are there are asked for
}

func (s *benchSlice) replace(old, key string) {
	at := s.index(old)
	*s = slices.Delete(*s, at, at+1)
	*s = slices.Insert(*s, s.index(key), &benchNode{key: key})
}

func (s benchSlice) domain(prefix string) (users int) {
	for _, n := range s[s.index(prefix):] {
		if !strings.HasPrefix(n.key, prefix) {
			break
		}
		users++
	}
	return users
}

// A benchFixture is a table with its keys in random order. The last key is not in the table:
// Replace puts it there, and another in its place.
type benchFixture struct {
	benchTable
	keys []string
}

var benchFixtures = map[string]func() map[string]benchFixture{
	"10k": sync.OnceValue(func() map[string]benchFixture { return newBenchFixtures(10_000) }),
	"1M":  sync.OnceValue(func() map[string]benchFixture { return newBenchFixtures(1_000_000) }),
}

func newBenchFixtures(n int) map[string]benchFixture {
	keys := make([]string, n+1)
	for i := range keys {
		keys[i] = fmt.Sprintf("example%d.com\x00user%d\x00\x03", i/100, i%100)
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	t, m, s := new(benchTree), make(benchMap), make(benchSlice, 0, n+1)
	for _, key := range keys[:n] {
		m[key], _ = t.insert(key)
	}
	for n := t.ceiling(""); n != nil; n = n.successor() {
		s = append(s, n)
	}
	return map[string]benchFixture{
		"tree":  {t, slices.Clone(keys)},
		"map":   {m, slices.Clone(keys)},
		"slice": {&s, slices.Clone(keys)},
	}
}

// benchEach runs one benchmark on each table in each size.
func benchEach(b *testing.B, run func(b *testing.B, t benchTable, keys []string, absent *string)) {
	for _, kind := range []string{"tree", "map", "slice"} {
		for _, size := range []string{"10k", "1M"} {
			b.Run(kind+"/"+size, func(b *testing.B) {
				if testing.Short() && size == "1M" {
					b.Skip("takes seconds to build")
				}
				f := benchFixtures[size]()[kind]
				last := len(f.keys) - 1
				b.ReportAllocs()
				run(b, f.benchTable, f.keys[:last], &f.keys[last])
			})
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	benchEach(b, func(b *testing.B, t benchTable, keys []string, _ *string) {
		key := make([]byte, 0, 64)
		for i := 0; b.Loop(); i++ {
			key = append(key[:0], keys[i%len(keys)]...)
			if n := t.search(key); n == nil || n.key != string(key) {
				b.Fatalf("%q not found", key)
			}
		}
	})
}

func BenchmarkReplace(b *testing.B) {
	benchEach(b, func(b *testing.B, t benchTable, keys []string, absent *string) {
		for i := 0; b.Loop(); i++ {
			old := &keys[i%len(keys)]
			t.replace(*old, *absent)
			*old, *absent = *absent, *old
		}
	})
}

func BenchmarkDomain(b *testing.B) {
	benchEach(b, func(b *testing.B, t benchTable, keys []string, _ *string) {
		for i := 0; b.Loop(); i++ {
			domain, _, _ := strings.Cut(keys[i%len(keys)], "\x00")
			if users := t.domain(domain + "\x00"); users == 0 {
				b.Fatalf("no users in %s", domain)
			}
		}
	})
}
