//go:build linux || freebsd

package mariadb

import "syscall"

// dieWithParent has the kernel kill the child when the parent dies, of kill -9
// too.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
