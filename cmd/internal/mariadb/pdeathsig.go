//go:build linux || freebsd

package mariadb

import "syscall"

// dieWithParent has the kernel kill the child when the parent dies, even by
// kill -9.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
