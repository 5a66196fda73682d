package mariadb

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// A process is a child. A goroutine waits for it from its start, so that it
// does not remain a zombie.
type process struct {
	pid  int
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	err  error         // of Wait; set when done is closed
}

// start starts cmd in its own process group, so that Ctrl-C at the terminal
// does not reach it.
//
// The kernel kills the child when the thread that started it ends (prctl(2),
// PR_SET_PDEATHSIG), and Go may end threads at any time. So the goroutine that
// starts the child keeps its thread until the child is gone.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

func (p *process) signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// kill ends the process and its descendants, and returns when it is gone. If
// its output is a pipe, its descendants are gone as well.
func (p *process) kill() {
	select {
	case <-p.done: // another process may have pid by now
		return
	default:
	}
	syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
}
