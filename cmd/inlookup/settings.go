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

// newCache returns the cache that the environment asks for, nil for none. A
// value that makes no sense is a warning, and its default holds: the C program
// reads some of these variables too, and no value stops it.
func newCache(r inlookup.Resolver) (c *inlookup.Cache, warnings []string) {
	warn := func(name, format string, args ...any) {
		warnings = append(warnings, name+": "+fmt.Sprintf(format, args...))
	}
	if text := os.Getenv("USE_BTREE"); text != "" {
		use, ok := leadingNumber(text, 10)
		if ok && use == 0 {
			return nil, nil
		}
		if !ok {
			warn("USE_BTREE", "want 0 or 1: the cache is on")
		}
	}
	entries := int64(0)
	if text := os.Getenv("MAX_BTREE_COUNT"); text != "" {
		n, ok := leadingNumber(text, 10)
		if !ok || n < 0 {
			warn("MAX_BTREE_COUNT", "want a number: no limit")
		}
		entries = max(n, 0)
	}
	duration := func(name string) time.Duration {
		d, ok := parseDuration(os.Getenv(name))
		if !ok {
			warn(name, "want seconds or a duration like 10m: the default is used")
		}
		return d
	}
	c = &inlookup.Cache{
		Resolver:      r,
		TTL:           duration("CACHE_TTL"),
		NegativeTTL:   duration("CACHE_NEGATIVE_TTL"),
		Stale:         duration("CACHE_STALE"),
		MaxEntries:    int(entries),
		DefaultDomain: cmp.Or(os.Getenv("INDIMAIL_DOMAIN"), os.Getenv("DEFAULT_DOMAIN")),
	}
	const longest = 24 * time.Hour
	if c.Stale > longest {
		warn("CACHE_STALE", "want at most 24h, which is used")
		c.Stale = longest
	}
	var ok bool
	if c.Size, ok = parseSize(os.Getenv("CACHE_SIZE")); !ok {
		warn("CACHE_SIZE", "want bytes, or a number with K, M or G: the default is used")
	}
	return c, warnings
}

// settingWarnings returns warnings of variables that the library reads without
// a word, because it has no log where it reads them.
func settingWarnings() (warnings []string) {
	mode := os.Getenv("FIFO_MODE")
	if n, ok := leadingNumber(mode, 8); mode != "" && (!ok || n < 0) {
		warnings = append(warnings, "FIFO_MODE: want an octal mode: 0660 is used")
	}
	return warnings
}

// leadingNumber returns the number at the beginning of text, as strtol(3) does,
// and as the library reads the variables and files that it shares with C.
func leadingNumber(text string, base int) (n int64, ok bool) {
	text = strings.TrimSpace(text)
	rest := strings.TrimLeft(strings.TrimLeft(text, "+-"), "0123456789"[:base])
	n, err := strconv.ParseInt(strings.TrimSuffix(text, rest), base, 64)
	return n, !errors.Is(err, strconv.ErrSyntax)
}

// parseDuration reads a Go duration or whole seconds. No text is 0, which means
// the default in a Cache. For a value of 0 it returns -1, which means "keep
// nothing".
func parseDuration(text string) (d time.Duration, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, true
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return 0, false
	}
	if d == 0 {
		return -1, true
	}
	return d, true
}

// parseSize reads a number of bytes. K, M or G may follow, also as KB or KiB,
// and stand for powers of 1024. It returns 0 and -1 as parseDuration does.
func parseSize(text string) (n int64, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, true
	}
	shifts := map[string]int{"": 0, "K": 10, "M": 20, "G": 30}
	unit := strings.ToUpper(strings.TrimSpace(strings.TrimLeft(text, "0123456789")))
	unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	shift, known := shifts[unit]
	n, hasNumber := leadingNumber(text, 10)
	const most = 1 << 50
	if !known || !hasNumber || n < 0 || n > most>>shift {
		return 0, false
	}
	if n == 0 {
		return -1, true
	}
	return n << shift, true
}
