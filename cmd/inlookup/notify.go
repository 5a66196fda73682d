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

// notify tells the service manager, if one listens, what has become of the
// server: one datagram to the socket that it has named (sd_notify(3); net takes
// a name that begins with @ for an abstract one). A server that cannot tell
// serves all the same, and does not wait for a manager that does not read.
//
// RELOADING=1 is not told: it wants the time of a clock that Go does not show,
// and a reload here takes no request away.
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

// advise adds to an error that ends the server what its administrator wants to
// know next.
func advise(err error) error {
	var where *fs.PathError
	if !errors.As(err, &where) {
		return err
	}
	if errors.Is(err, inlookup.ErrServed) {
		if who := holder(where.Path); who != "" {
			return fmt.Errorf("%w: %s holds it", err, who)
		}
	} else if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w to %s; inlookup -t, run as this user, says more",
			err, account(os.Geteuid()))
	}
	return err
}

// holder names the process that has locked the FIFO at path, by /proc/locks
// (proc_locks(5)), whose lines are
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:00:9986172 0 EOF
//
// It returns "" if there is none, or none that can be seen from here.
func holder(path string) string {
	info, err := os.Lstat(path)
	locks, err2 := os.ReadFile("/proc/locks")
	if err != nil || err2 != nil {
		return ""
	}
	st := info.Sys().(*syscall.Stat_t)
	dev := uint64(st.Dev) // major and minor number as Linux packs them, makedev(3)
	major := dev>>8&0xfff | dev>>32&0xfffff000
	minor := dev&0xff | dev>>12&0xffffff00
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino)
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		if f[4] == "0" { // a process of another pid namespace
			continue
		}
		who := "process " + f[4]
		if name, err := os.ReadFile("/proc/" + f[4] + "/comm"); err == nil {
			who += " (" + strings.TrimSpace(string(name)) + ")"
		}
		return who
	}
	return ""
}
