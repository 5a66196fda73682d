package mariadb

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// A process is a child that is waited for from its start, so that none remains
// a zombie.
type process struct {
	pid  int
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	err  error         // of its Wait; read after done
}

// start starts cmd in a process group of its own: Ctrl-C at the terminal is for
// us, and ours to pass on.
//
// The signal that ends the child when its parent dies comes, in truth, when the
// parent's THREAD dies (prctl(2), PR_SET_PDEATHSIG), and Go ends threads as it
// likes. So the goroutine that starts the child keeps its thread until the
// child is gone.
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

// kill ends the process with all its descendants, and returns when they are
// gone: the pipes of cmd's output, if any, close with the last of them.
func (p *process) kill() {
	select {
	case <-p.done: // pid may be another's by now
		return
	default:
	}
	syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.done
}
