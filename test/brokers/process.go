package brokers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopTime bounds how long a broker may take to end after SIGTERM.
const stopTime = 20 * time.Second

// process is a child that dies with this program.
type process struct {
	pid    int
	exited chan struct{} // closed once the child has been waited for
	err    error         // how it ended; read after exited
}

// launch starts cmd and waits for it in the background.
//
// The kernel sends a child its parent-death signal when the thread that
// created it ends, not when the process does. So one goroutine keeps the
// creating thread for as long as the child lives; it ends with the child.
func launch(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", cmd.Path, err)
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal is a no-op for a process that has ended: its id may belong to another.
func (p *process) signal(sig syscall.Signal) error {
	if !p.running() {
		return nil
	}
	if err := syscall.Kill(p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s to %d: %w", sig, p.pid, err)
	}
	return nil
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited // SIGKILL cannot be refused
	return nil
}

// stop asks the process to end, waits, and kills it when it does not.
func (p *process) stop() error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTime):
		return errors.Join(fmt.Errorf("process %d ignored SIGTERM for %s", p.pid, stopTime), p.kill())
	}
}

// await polls ready until it returns nil, the process ends or limit is over.
func (p *process) await(limit time.Duration, ready func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("ended before it was ready: %w", errors.Join(p.err, errEnded))
		case <-deadline:
			return fmt.Errorf("not ready after %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

var errEnded = errors.New("process ended")

// find returns the path of a program, looking also where daemons are installed
// but an ordinary user's PATH does not lead. hint says what to install.
func find(name, hint string, folders ...string) (string, error) {
	for _, dir := range folders {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is not installed: %s (on Debian: `make brokers` as root)", name, hint)
}

// tail returns the end of a log file, for messages.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 4000
	if len(data) > most {
		data = append([]byte("…"), data[len(data)-most:]...)
	}
	return string(data)
}
