package inlookup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestConsumer builds and runs a program of another module, testdata/consumer, from a vendored
// copy of this package and without a network. A change of the exported names is felt here.
func TestConsumer(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command:", err)
	}
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "consumer")
	if err := os.CopyFS(dir, os.DirFS("testdata/consumer")); err != nil {
		t.Fatal(err)
	}
	run := func(flags, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		// With the usual flags: Go's own packages are then in the build cache already.
		cmd.Env = append(os.Environ(), "GOFLAGS="+flags, "GOPROXY=off", "GOWORK=off",
			"GOTOOLCHAIN=local", "TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	const module = "github.com/inlookup/inlookup"
	run("-mod=mod", "go", "mod", "edit", "-replace", module+"="+root)
	run("-mod=mod", "go", "mod", "vendor")

	// What a user of this package gets: five files, and the driver.
	sources, err := filepath.Glob(filepath.Join(dir, "vendor", module, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range sources {
		sources[i] = filepath.Base(sources[i])
	}
	want := []string{"avl.go", "cache.go", "fifo.go", "inlookup.go", "inquery.go"}
	if !slices.Equal(sources, want) {
		t.Errorf("vendored are the files %q, want %q", sources, want)
	}
	list, err := os.ReadFile(filepath.Join(dir, "vendor", "modules.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if f[0] == "#" && f[2] != "=>" { // other lines are about packages and replacements
			modules = append(modules, f[1])
		}
	}
	want = []string{"filippo.io/edwards25519", "github.com/go-sql-driver/mysql", module}
	if !slices.Equal(modules, want) {
		t.Errorf("vendored are the modules %q, want %q", modules, want)
	}

	run("", "go", "vet", "./...")
	run("-mod=vendor", "go", "build", "-o", "consumer", ".")
	if out := run("", filepath.Join(dir, "consumer")); out != "ok\n" {
		t.Errorf("it prints %q", fmt.Sprint(out))
	}
}
