package plugin

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
)

// spawner starts processes on one thread that lives as long as it does. On Linux a process can ask to be killed when its
// parent dies, but the kernel takes the thread that has started it for its parent, and Go ends threads as it likes.
type spawner struct {
	start chan start
	done  chan struct{}
}

type start struct {
	cmd *exec.Cmd
	err chan<- error
}

func newSpawner() *spawner {
	return &spawner{start: make(chan start), done: make(chan struct{})}
}

// run starts what is asked for until ctx ends. By then every process has to have ended.
func (s *spawner) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	for {
		select {
		case st := <-s.start:
			st.err <- st.cmd.Start()
		case <-ctx.Done():
			return
		}
	}
}

// spawn starts cmd.
func (s *spawner) spawn(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	select {
	case s.start <- start{cmd, started}:
		return <-started
	case <-s.done:
		return errors.New("the host has ended")
	}
}
