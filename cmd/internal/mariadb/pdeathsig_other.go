//go:build !linux && !freebsd

package mariadb

import "syscall"

// dieWithParent is impossible here: a parent that dies without Stop leaves its
// mariadbd behind.
func dieWithParent(*syscall.SysProcAttr) {}
