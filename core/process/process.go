// Package process runs child processes that do not outlive this one.
//
// A child runs in a process group of its own, so that what it started can be ended with it and so that a Ctrl-C in the
// terminal reaches it through us and not before us. On Linux the kernel kills it when this process dies, however that
// happens.
package process

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Run starts cmd, waits for it, and returns what cmd.Run returns. When cmd's context ends, the child's group is sent
// SIGTERM, and after grace SIGKILL; whatever is left of the group when the child has ended is killed.
//
// cmd must have been made with exec.CommandContext. Run sets Cancel, WaitDelay and SysProcAttr. started, if not nil, is
// called with the process id.
func Run(cmd *exec.Cmd, grace time.Duration, started func(pid int)) error {
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return signal(cmd, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	ended := make(chan error)
	go func() {
		// On a thread that lives as long as the child: the kernel takes the death of the thread that made it for the death
		// of the parent (golang/go#27505).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err != nil {
			ended <- err
			return
		}
		if started != nil {
			started(cmd.Process.Pid)
		}
		err = cmd.Wait()
		_ = signal(cmd, syscall.SIGKILL) // nobody there is what we hope for
		ended <- err
	}()
	return <-ended
}

func signal(cmd *exec.Cmd, sig syscall.Signal) error {
	err := syscall.Kill(-cmd.Process.Pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Lines calls a function for each line that is written to it. Longer lines than Longest come in pieces, so that a child
// that prints no end of a line cannot fill the memory. It is for one writer at a time, as os/exec promises.
type Lines struct {
	Line func(line []byte)
	rest []byte
}

// Longest is the longest line in bytes that Lines hands over in one piece.
const Longest = 16 << 10

// Write never fails.
func (w *Lines) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' {
			w.rest = append(w.rest, b)
		}
		if (b == '\n' || len(w.rest) == Longest) && len(w.rest) > 0 {
			w.Line(w.rest)
			w.rest = w.rest[:0]
		}
	}
	return len(p), nil
}

// Flush hands over what came after the last line's end.
func (w *Lines) Flush() {
	if len(w.rest) > 0 {
		w.Line(w.rest)
		w.rest = w.rest[:0]
	}
}
