package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/inlookup/inlookup"
)

// notify tells the service manager the state of the server: one datagram to the
// socket in NOTIFY_SOCKET, as in sd_notify(3). The server runs on if that
// fails, and waits at most a second.
//
// RELOADING=1 is not sent. It needs the time of a clock that Go does not show,
// and the server answers during a reload.
func notify(state string, logger *log.Logger) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		conn.SetDeadline(time.Now().Add(time.Second))
		_, err = conn.Write([]byte(state))
		conn.Close()
	}
	if err != nil {
		logger.Printf("warning: the service manager is not told %s: NOTIFY_SOCKET: %v", state, err)
	}
}

// advise adds to an error that ends the server what helps to fix it.
func advise(err error) error {
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) {
		return err
	}
	if errors.Is(err, inlookup.ErrServed) {
		if name := holder(pathErr.Path); name != "" {
			return fmt.Errorf("%w: %s holds it", err, name)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w to %s; inlookup -t, run as this user, says more",
			err, account(os.Geteuid()))
	}
	return err
}

// holder names the process that has locked the FIFO at path. It returns "" if
// there is none, or none that can be seen from here. The lines of /proc/locks
// (proc_locks(5)) are
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:00:9986172 0 EOF
func holder(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	st := info.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev) // major and minor number, packed as in makedev(3)
	major := dev>>8&0xfff | dev>>32&0xfffff000
	minor := dev&0xff | dev>>12&0xffffff00
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino)
	locks, _ := os.ReadFile("/proc/locks") // only Linux has it
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		pid := f[4]
		if pid == "0" { // in another pid namespace
			continue
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return "process " + pid + " (" + strings.TrimSpace(string(name)) + ")"
	}
	return ""
}
