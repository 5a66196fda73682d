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

// newCache returns the cache that the environment asks for, nil for none. The C
// program reads some of these variables too, and ignores a wrong value in them.
// Such a value is only a warning here. A wrong value in another one is an
// error.
func newCache(r inlookup.Resolver) (c *inlookup.Cache, warnings []string, err error) {
	use := cmp.Or(os.Getenv("USE_BTREE"), "1")
	n, err := strconv.Atoi(use)
	if err != nil {
		warnings = append(warnings,
			fmt.Sprintf("USE_BTREE: want 0 or 1, not %q: the cache is on", use))
	} else if n == 0 {
		return nil, nil, nil
	}
	count := cmp.Or(os.Getenv("MAX_BTREE_COUNT"), "0")
	entries, err := strconv.Atoi(count)
	if err != nil || entries < 0 {
		entries = 0
		warnings = append(warnings,
			fmt.Sprintf("MAX_BTREE_COUNT: want a number, not %q: no limit", count))
	}
	ttl, ttlErr := duration("CACHE_TTL")
	negative, negativeErr := duration("CACHE_NEGATIVE_TTL")
	stale, staleErr := duration("CACHE_STALE")
	if staleErr == nil && stale > 24*time.Hour {
		staleErr = fmt.Errorf("CACHE_STALE: want at most 24h, not %q", os.Getenv("CACHE_STALE"))
	}
	bytes, bytesErr := size("CACHE_SIZE")
	c = &inlookup.Cache{
		Resolver:      r,
		TTL:           ttl,
		NegativeTTL:   negative,
		Stale:         stale,
		Size:          bytes,
		MaxEntries:    entries,
		DefaultDomain: os.Getenv("DEFAULT_DOMAIN"),
	}
	return c, warnings, errors.Join(ttlErr, negativeErr, staleErr, bytesErr)
}

// duration reads a variable that holds a Go duration or whole seconds. It
// returns 0 if the variable is not set. For a value of 0 it returns -1, which
// means "keep nothing" in a Cache.
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

// size reads a variable that holds a number of bytes. K, M or G may follow, and
// stand for powers of 1024. It returns 0 and -1 as duration does.
func size(name string) (int64, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	shifts := map[string]int{"K": 10, "M": 20, "G": 30}
	digits := text
	last := len(text) - 1
	shift, hasUnit := shifts[strings.ToUpper(text[last:])]
	if hasUnit {
		digits = text[:last]
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
