package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inlookup/inlookup"
	"github.com/inlookup/inlookup/cmd/internal/testmain"
)

const golden = "../../testdata/golden"

// wire returns the replies of the C server.
func wire(t *testing.T) map[inlookup.Query]inlookup.Answer {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		testmain.Skip(t, "the recorded replies are those of a little-endian machine")
	}
	b, err := os.ReadFile(filepath.Join(golden, "wire.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	answers := make(map[inlookup.Query]inlookup.Answer)
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) != 5 {
			continue
		}
		reply, err := hex.DecodeString(f[4])
		if err != nil {
			t.Fatal(err)
		}
		q := inlookup.Query{Type: inlookup.Type(f[0][0] - '0'), Email: f[1], IP: f[2]}
		answers[q] = inlookup.WireAnswer(string(reply))
	}
	return answers
}

// Every command of the transcript whose reply was recorded must print what the
// C program printed, whether MySQL or a server is asked.
func TestGolden(t *testing.T) {
	answers := wire(t)
	b, err := os.ReadFile(filepath.Join(golden, "inquerytest.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s := setting{env: environment(t)}
	s.mysql = fake(func(q inlookup.Query) (inlookup.Answer, error) {
		a, ok := answers[q]
		if !ok {
			return inlookup.Answer{}, fmt.Errorf("%w: %v was not recorded", inlookup.ErrUnavailable, q)
		}
		return a, nil
	})
	serve(t, s.env, s.mysql)
	checked := 0
	for _, part := range strings.Split(string(b), "$ inquerytest ")[1:] {
		command, want, _ := strings.Cut(part, "\n")
		want = strings.TrimSuffix(want, "\n") // the empty line before the next command
		args := strings.Fields(command)       // -q type -i "" email [ip]
		args[3] = ""
		q := inlookup.Query{
			Type:  inlookup.Type(args[1][0] - '0'),
			Email: args[4],
			IP:    strings.Join(args[5:], ""),
		}
		if answers[q].Wire() == "" {
			continue
		}
		checked++
		for _, args := range [][]string{args, append([]string{"-q", args[1]}, args[4:]...)} {
			status, stdout, stderr := s.run(t, args...)
			if got := fmt.Sprintf("%sexit %d\n", stdout, status); got != want {
				t.Errorf("%q printed\n%s, want\n%s", args, got, want)
			}
			if status == 0 && stderr != "" {
				t.Errorf("%q: stderr %q", args, stderr)
			} else if status != 0 {
				oneLine(t, stderr, "no such address")
			}
		}
	}
	if checked != len(answers) {
		t.Errorf("%d commands checked, %d replies recorded", checked, len(answers))
	}
}

func TestPrintPasswd(t *testing.T) {
	s := setting{env: map[string]string{"MYSQL_TABLE": "users", "MYSQL_INACTIVE_TABLE": "gone"}}
	for inactive, table := range []string{"users", "gone"} {
		s.mysql = fake(func(inlookup.Query) (inlookup.Answer, error) {
			const hash = "{SCRAM-SHA-256}4096,c2FsdA==,a,b:73616c74:73,$5$x"
			entry := fmt.Sprintf(`PWSTRUCT="a@b"@example.com:%s:1:0:A: B:/d:s:%d`, hash, inactive)
			return inlookup.NewData(inlookup.TypePasswd, entry), nil
		})
		_, stdout, _ := s.run(t, "-q", "3", `"a@b"@example.com`)
		want := `pw_name  : "a@b"
pw_passwd: {SCRAM-SHA-256}4096,c2FsdA==,a,b:73616c74:73,$5$x
pw_uid   : 1
pw_gid   : 0
pw_gecos : A: B
pw_dir   : /d
pw_shell : s
Table    : ` + table + "\n"
		if stdout != want {
			t.Errorf("printed\n%s, want\n%s", stdout, want)
		}
	}
}

func TestPrintText(t *testing.T) {
	s := setting{env: environment(t)}
	s.mysql = fake(func(inlookup.Query) (inlookup.Answer, error) {
		return inlookup.NewAnswer(1), nil
	})
	serve(t, s.env, s.mysql)
	for _, test := range []struct{ args, want string }{
		{"-s", `Status Query, "", ""`},
		{"-s -i infifo", `Status Query, "", ""`},
		{"-F u@example.com", `Flush Query, "u@example.com", ""`},
		{"-F=", `Flush Query, "", ""`},
		{"-x -q 3 u@example.com", `Explain Query, "u@example.com", "3"`},
	} {
		status, stdout, stderr := s.run(t, strings.Fields(test.args)...)
		if status != exitOK || stdout != test.want+"\n" || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", test.args, status, stdout, stderr)
		}
	}
}
