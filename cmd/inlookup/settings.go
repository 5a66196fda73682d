package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/inlookup/inlookup"
)

// newCache returns the cache that the environment asks for, nil for none. Warnings
// are about variables that the C program takes as well: a value that is of no use
// stops nothing. An error is about one of our own.
func newCache(r inlookup.Resolver) (c *inlookup.Cache, warnings []string, err error) {
	use := os.Getenv("USE_BTREE")
	if n, err := strconv.Atoi(use); use != "" && err != nil {
		warnings = append(warnings,
			fmt.Sprintf("USE_BTREE: want 0 or 1, not %q: the cache is on", use))
	} else if use != "" && n == 0 {
		return nil, nil, nil
	}
	count := os.Getenv("MAX_BTREE_COUNT")
	entries, bad := strconv.Atoi(cmp.Or(count, "0"))
	if bad != nil || entries < 0 {
		entries = 0
		warnings = append(warnings,
			fmt.Sprintf("MAX_BTREE_COUNT: want a number, not %q: no limit", count))
	}
	ttl, err1 := duration("CACHE_TTL")
	negative, err2 := duration("CACHE_NEGATIVE_TTL")
	stale, err3 := duration("CACHE_STALE")
	if err3 == nil && stale > 24*time.Hour {
		err3 = fmt.Errorf("CACHE_STALE: want at most 24h, not %q", os.Getenv("CACHE_STALE"))
	}
	size, err4 := size("CACHE_SIZE")
	c = &inlookup.Cache{
		Resolver:      r,
		TTL:           ttl,
		NegativeTTL:   negative,
		Stale:         stale,
		Size:          size,
		MaxEntries:    entries,
		DefaultDomain: os.Getenv("DEFAULT_DOMAIN"),
	}
	return c, warnings, errors.Join(err1, err2, err3, err4)
}

// duration reads a variable that holds a Go duration or whole seconds. It returns 0
// if the variable is not set, and -1 for 0, which keeps nothing.
func duration(name string) (time.Duration, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s: want seconds or a duration like 10m, not %q", name, text)
	}
	if d == 0 {
		return -1, nil
	}
	return d, nil
}

// size reads a variable that holds a number of bytes, perhaps with K, M or G for
// powers of 1024. It returns 0 if the variable is not set, and -1 for 0.
func size(name string) (int64, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	units := map[byte]uint{'K': 10, 'M': 20, 'G': 30}
	shift, hasUnit := units[strings.ToUpper(text)[len(text)-1]]
	digits := text
	if hasUnit {
		digits = text[:len(text)-1]
	}
	const most = 1 << 50
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > most>>shift {
		return 0, fmt.Errorf("%s: want bytes, or a number with K, M or G, not %q", name, text)
	}
	if n == 0 {
		return -1, nil
	}
	return n << shift, nil
}
