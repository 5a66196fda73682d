package main

import (
	"errors"
	"os"
	"syscall"
)

// keepSecrets keeps this process's memory, which holds the databases' passwords
// and users' hashes, from other processes of its user and from core files.
//
// Not dumpable, it cannot be traced, and /proc/PID/mem, environ and others are
// root's (prctl(2), ptrace(2)); this is a property of the memory that all
// threads share, so one thread's call does. It also stops a core that goes to a
// program, which RLIMIT_CORE does not (core(5)); that one is for who starts it.
func keepSecrets() error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
	var err error
	if errno != 0 {
		err = os.NewSyscallError("prctl", errno)
	}
	none := &syscall.Rlimit{}
	err2 := syscall.Setrlimit(syscall.RLIMIT_CORE, none)
	return errors.Join(err, os.NewSyscallError("setrlimit", err2))
}
