package main

import (
	"os"
	"syscall"
)

// disableDump makes this process not dumpable: it cannot be traced, and root
// owns its /proc/PID/mem and environ (prctl(2), ptrace(2)). One call covers all
// threads, which share the memory. It also prevents a core that goes to a
// program, which RLIMIT_CORE does not (core(5)).
func disableDump() error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_DUMPABLE, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
}
