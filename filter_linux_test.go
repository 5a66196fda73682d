package inlookup

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// The system calls that change an owner, as the filter of inlookup.service forbids them; fchown and
// fchownat are known by these names everywhere.
var chowns = map[string][]uint32{
	"amd64": {92, 93, 94, 260},
	"arm64": {54, 55},
}

// The system call fchmod.
var fchmod = map[string][]uint32{"amd64": {91}, "arm64": {52}}

// forbid makes these system calls fail with EPERM, in all threads of this process.
func forbid(calls []uint32) error {
	const load, jumpIfEqual, ret = 0x20, 0x15, 0x06 // BPF_LD|BPF_W|BPF_ABS and so on
	const allow, fail = 0x7fff0000, 0x00050000      // SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
	type instruction struct {
		code         uint16
		match, other uint8 // how far to jump
		k            uint32
	}
	program := []instruction{{code: load}} // the number of the call
	for _, nr := range calls {
		program = append(program, instruction{jumpIfEqual, 0, 1, nr},
			instruction{code: ret, k: fail | uint32(syscall.EPERM)})
	}
	program = append(program, instruction{code: ret, k: allow})
	filter := struct {
		len  uint16
		code *instruction
	}{uint16(len(program)), &program[0]}
	const noNewPrivs, setFilter, allThreads = 38, 1, 1
	seccomp := map[string]uintptr{"amd64": 317, "arm64": 277}[runtime.GOARCH]
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, err := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivs, 1, 0, 0, 0, 0); err != 0 {
		return err
	}
	_, _, err := syscall.Syscall(seccomp, setFilter, allThreads, uintptr(unsafe.Pointer(&filter)))
	if err != 0 {
		return err
	}
	return nil
}

// filteredChild is the child of TestFilterOfTheUnit.
func filteredChild() {
	const nobody = 65534
	if os.Geteuid() == 0 {
		err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
		if err != nil {
			fmt.Println("cannot filter:", err)
			return
		}
	}
	if err := forbid(chowns[runtime.GOARCH]); err != nil {
		fmt.Println("cannot filter:", err)
		return
	}
	if err := os.Chown(os.Getenv("INFIFODIR"), -1, -1); !errors.Is(err, syscall.EPERM) {
		fmt.Println("the filter does not filter:", err)
	}
	s := &Server{Resolver: echo, Log: log.New(os.Stdout, "", 0)}
	if err := s.Listen(); err != nil {
		fmt.Println(err)
		return
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx) }()
	c := &Client{Timeout: time.Minute}
	text, err := Directory{c}.Host(ctx, "u@d")
	end()
	fmt.Println(text, err, <-ended)
}

// TestFilterOfTheUnit: under the unit's filter of system calls, which forbids chown, an ordinary
// user's server makes a missing directory and its FIFO without a warning, and a client asks it.
func TestFilterOfTheUnit(t *testing.T) {
	if chowns[runtime.GOARCH] == nil {
		skip(t, "no numbers of system calls for", runtime.GOARCH)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	got := child(t, "filtered", nil,
		"INFIFODIR="+filepath.Join(dir, "run", "indimail"), "FIFOTMPDIR="+dir)
	if strings.HasPrefix(got, "cannot filter") {
		skip(t, got)
	}
	if got != "u@d <nil> <nil>\n" {
		t.Errorf("%s", got)
	}
}

// accountChild is the child of TestAccountAfterAFault. It sees other files of users and groups.
func accountChild() {
	runtime.LockOSThread() // the mounts are this thread's alone
	err := errors.Join(syscall.Unshare(syscall.CLONE_NEWNS),
		syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/:/bin/sh\nindimail:x:4711:4712::/:/bin/sh\n",
		"group":  "root:x:0:\nindimail:x:4712:\n",
	} {
		path := filepath.Join(os.Getenv("DIR"), name)
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644),
			syscall.Mount(path, "/etc/"+name, "", syscall.MS_BIND, ""))
	}
	var old syscall.Rlimit
	err = errors.Join(err, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	if err != nil {
		fmt.Println("cannot mount:", err)
		return
	}
	none := old
	none.Cur = 0
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none)
	before := TrustsOwner(4711)
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	fmt.Println(before, TrustsOwner(4711))
}

// TestAccountAfterAFault: that user indimail could not be looked up once says nothing about later.
func TestAccountAfterAFault(t *testing.T) {
	got := child(t, "account", nil, "DIR="+t.TempDir())
	if strings.HasPrefix(got, "cannot mount") {
		skip(t, got)
	}
	if got != "false true\n" {
		t.Error(got)
	}
}

// unmarkedChild is the child of TestReplyFIFOThatCannotBeGivenAway.
func unmarkedChild() {
	if err := forbid(fchmod[runtime.GOARCH]); err != nil {
		fmt.Println("cannot filter:", err)
		return
	}
	_, err := makeReplyFIFO(os.Getenv("FIFOTMPDIR"), 0o660)
	fmt.Println(errors.Is(err, syscall.EPERM), err)
}

// TestReplyFIFOThatCannotBeGivenAway: it is an error, and leaves no FIFO.
func TestReplyFIFOThatCannotBeGivenAway(t *testing.T) {
	if fchmod[runtime.GOARCH] == nil {
		skip(t, "no numbers of system calls for", runtime.GOARCH)
	}
	dir := t.TempDir()
	got := child(t, "unmarked", nil, "FIFOTMPDIR="+dir)
	if strings.HasPrefix(got, "cannot filter") {
		skip(t, got)
	}
	if left := names(t, dir); !strings.HasPrefix(got, "true give away "+dir) || len(left) > 0 {
		t.Errorf("%s, left: %q", got, left)
	}
}
