package process

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Guard is a process that does nothing but outlive this one: when this one is killed, it kills the groups that it was given.
// The kernel kills a child with its parent, but not what the child has started. All methods may be called concurrently; those
// of a nil Guard do nothing.
type Guard struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe io.WriteCloser
}

// patience is how long a guard may take to end.
const patience = 3 * time.Second

// StartGuard starts cmd, a program that calls [KeepWatch] with its standard input. It sets Stdin and SysProcAttr. Whoever
// calls it calls Close in the end.
func StartGuard(cmd *exec.Cmd) (*Guard, error) {
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	// Not in our group: what ends that shall not end this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &Guard{cmd: cmd, pipe: pipe}, nil
}

// Hold gives the guard a group, by the id of its first process. An error is for the log: everything works without a guard.
func (g *Guard) Hold(group int) error { return g.tell('+', group) }

// Release says that nothing is left of a group.
func (g *Guard) Release(group int) error { return g.tell('-', group) }

func (g *Guard) tell(what rune, group int) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, err := fmt.Fprintf(g.pipe, "%c%d\n", what, group); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// Close ends the guard, which kills what it still has, and returns when it has ended. One that does not end is killed.
func (g *Guard) Close() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.pipe.Close() // that of a guard that is gone
	frozen := time.AfterFunc(patience, func() { _ = g.cmd.Process.Kill() })
	defer frozen.Stop()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// KeepWatch is what a guard does: it reads what it is told until the other side has ended, and kills the groups that it then
// has. It blocks. The caller has made its process deaf to the signals that end it.
func KeepWatch(in io.Reader) {
	held := make(map[int]bool)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var what rune
		var group int
		// Group 1 and below are not ours, nor anybody's whom one should kill.
		if _, err := fmt.Sscanf(lines.Text(), "%c%d", &what, &group); err != nil || group <= 1 {
			continue
		}
		if what == '+' {
			held[group] = true
		} else {
			delete(held, group)
		}
	}
	for group := range held {
		_ = syscall.Kill(-group, syscall.SIGKILL) // nobody there is what we hope for
	}
}
