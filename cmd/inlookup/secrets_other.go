//go:build !linux

package main

import (
	"os"
	"syscall"
)

// keepSecrets keeps this process's memory, which holds the databases' passwords
// and users' hashes, out of core files.
func keepSecrets() error {
	none := &syscall.Rlimit{}
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_CORE, none))
}
