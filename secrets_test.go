package inlookup_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"github.com/inlookup/inlookup"
)

const hiddenHash = "$5$HiddenSalt$HiddenHash"

// hiding are the types that can hold a password hash, in fields that are exported and in fields
// that are not.
type hiding struct {
	Answer   inlookup.Answer
	Passwd   inlookup.Passwd
	answer   inlookup.Answer
	passwd   inlookup.Passwd
	secret   inlookup.Secret
	answerAt *inlookup.Answer
	passwdAt *inlookup.Passwd
	answers  []inlookup.Answer
	array    [1]inlookup.Passwd
	byName   map[string]inlookup.Passwd
	any      any
	inner    struct{ passwd inlookup.Passwd }
}

// A keeper keeps an entry.
type keeper struct{ cache inlookup.Cache }

func hidden() []any {
	p := inlookup.Passwd{Email: "user@example.com", Passwd: inlookup.NewSecret(hiddenHash), UID: 1}
	a := inlookup.NewPasswd(p)
	h := hiding{a, p, a, p, p.Passwd, &a, &p, []inlookup.Answer{a}, [1]inlookup.Passwd{p},
		map[string]inlookup.Passwd{"": p}, a, struct{ passwd inlookup.Passwd }{p}}
	k := new(keeper)
	k.cache.Resolver = inlookup.ResolverFunc(
		func(context.Context, inlookup.Query) (inlookup.Answer, error) { return a, nil })
	k.cache.Preload(context.Background(), []string{"user@example.com"})
	return []any{
		k, &k.cache, inlookup.Directory{Resolver: &k.cache}, &inlookup.Server{Resolver: &k.cache},
		a, &a, []inlookup.Answer{a}, map[int]inlookup.Answer{1: a}, struct{ a inlookup.Answer }{a},
		p, &p, []inlookup.Passwd{p}, map[int]*inlookup.Passwd{1: &p}, struct{ p inlookup.Passwd }{p},
		p.Passwd, &p.Passwd, h, &h, []hiding{h}, struct{ h *hiding }{&h}, []any{h},
	}
}

// shows reports whether the text holds the hash as it is, in hexadecimal, or as numbers.
func shows(text string) bool {
	const part = "HiddenSalt"
	text = strings.ToLower(text)
	for _, verb := range []string{"%s", "%x", "% x", "%d", "%o", "%b", "%#x"} {
		v := any(part)
		if strings.ContainsAny(verb, "dob") {
			v = []byte(part)
		}
		bare := strings.Trim(fmt.Sprintf(verb, v), "[]")
		if strings.Contains(text, strings.ToLower(bare)) {
			return true
		}
	}
	return false
}

// TestHashesAreNotPrinted: no verb of fmt prints a password hash, wherever the value lies.
func TestHashesAreNotPrinted(t *testing.T) {
	for _, v := range hidden() {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, flag := range []string{"", "+", "#", " ", "-9", ".99", "0"} {
				format := "%" + flag + string(verb)
				if text := fmt.Sprintf(format, v); shows(text) {
					t.Errorf("%s of a %T: %s", format, v, text)
				}
			}
		}
		if text := fmt.Sprint(fmt.Errorf("%w: %v", inlookup.ErrInvalid, v)); shows(text) {
			t.Errorf("an error: %s", text)
		}
	}
}

// TestHashesAreNotEncoded: encoders and log handlers do not show a password hash either.
func TestHashesAreNotEncoded(t *testing.T) {
	for _, v := range hidden() {
		var b bytes.Buffer
		slog.New(slog.NewJSONHandler(&b, nil)).Info("", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("", "v", v)
		json.NewEncoder(&b).Encode(v)
		xml.NewEncoder(&b).Encode(v)
		gob.NewEncoder(&b).Encode(v)
		template.Must(template.New("").Parse("{{.}}{{print .}}{{html .}}{{js .}}")).Execute(&b, v)
		if text := b.String(); shows(text) {
			t.Errorf("of a %T: %s", v, text)
		}
	}
}

// TestSecret: what goes in comes out, by name.
func TestSecret(t *testing.T) {
	for _, text := range []string{"", "x", hiddenHash} {
		if got := inlookup.NewSecret(text).Reveal(); got != text {
			t.Errorf("%q became %q", text, got)
		}
		a := inlookup.WireAnswer(text)
		if a.Wire() != text || !a.Equal(inlookup.WireAnswer(text)) {
			t.Errorf("an answer %q became %q", text, a.Wire())
		}
		if a.Equal(inlookup.WireAnswer(text + "x")) {
			t.Errorf("%q is equal to a longer answer", text)
		}
	}
	if (inlookup.Secret{}).Reveal() != "" || (inlookup.Answer{}).Wire() != "" {
		t.Error("a zero value holds something")
	}
	said := fmt.Sprintf("%s, %v, %+v, %q", inlookup.NewSecret(hiddenHash), inlookup.NewSecret("x"),
		struct{ Passwd inlookup.Secret }{inlookup.NewSecret(hiddenHash)}, inlookup.Secret{})
	if said != `(secret), (secret), {Passwd:(secret)}, ""` {
		t.Errorf("secrets are described as %s", said)
	}
	described := fmt.Sprint(inlookup.NewData(inlookup.TypeHost, "abc"))
	if described != "code 4, 8 bytes" {
		t.Errorf("%q", described)
	}
}
