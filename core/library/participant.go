// Package library knows the components that can be started here, and starts participants: programs that play a role in a
// graph, as children of the gateway.
//
//	l, err := library.Load("package.json", "")
//	command, err := l.Command("lights/Dimmer", "hall", nil)
//	err = library.Participant{Role: "hall", Command: command, Dir: l.Dir(), Log: log}.Run(ctx)
//
// A [Library] is made from a MsgFlo project as it is, or from a [Definition]. Commands are split into words before anything
// is put into them, and no shell is run: whatever a role or an initial packet says, it is one argument.
//
// It is not for what participants say on a broker, and not for what they mean in a graph.
package library

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/flogate/flogate/core/process"
	"github.com/flogate/flogate/core/supervise"
)

// Participant is a program that plays a role.
type Participant struct {
	Role string
	// Command is the program and its arguments. The word "flogate" as the program means this very one.
	Command []string
	// Dir is the folder in which it runs.
	Dir string
	// Env is its environment, "NAME=value", beside what programs cannot do without. It gets nothing else of ours, where
	// the secrets of the site are.
	Env []string
	// Hide are texts that are kept out of the log when the participant prints them: secrets that it was given.
	Hide []string
	Log  *slog.Logger
	// Guard ends what the participant has started when this process is killed. May be nil.
	Guard *process.Guard
	// Changed hears of each change of Status. It must not block.
	Changed func(Status)
}

// Status is how a participant is doing.
type Status struct {
	// State is running, waiting or failed.
	State    string
	Reason   string
	Since    time.Time
	PID      int
	Restarts int
}

const (
	// stopTime is how long a participant may take to end by itself.
	stopTime = 3 * time.Second
	// restTime is how long one that crashes over and over is left alone.
	restTime = 30 * time.Second
	// lineRate and lineBurst bound what one participant may put into the log, in lines a second and at once.
	lineRate, lineBurst = 50, 200
)

// Run keeps the participant running until ctx ends, and returns when it has ended with everything that it started.
func (p Participant) Run(ctx context.Context) error {
	program := p.Command[0]
	if program == "flogate" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("participant %s: %w", p.Role, err)
		}
		program = self
	}
	var mu sync.Mutex
	var status Status
	change := func(f func(*Status)) {
		mu.Lock()
		f(&status)
		s := status
		mu.Unlock()
		if p.Changed != nil {
			p.Changed(s)
		}
	}
	policy := supervise.Policy{Rest: restTime, OnChange: func(s supervise.Status) {
		change(func(st *Status) {
			st.State, st.Restarts, st.Since, st.PID, st.Reason = s.State.String(), s.Restarts, time.Now(), 0, ""
			if s.Err != nil && s.State != supervise.Running {
				st.Reason = s.Err.Error()
				p.Log.Warn("participant ended", "role", p.Role, "error", s.Err, "retry_in", s.Wait)
			}
		})
	}}
	return supervise.Run(ctx, "participant "+p.Role, policy, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, program, p.Command[1:]...)
		cmd.Dir = p.Dir
		cmd.Env = append(inherited(os.Environ()), p.Env...)
		out, errs := p.forward("stdout"), p.forward("stderr")
		cmd.Stdout, cmd.Stderr = out, errs
		group := 0
		err := process.Run(cmd, stopTime, func(pid int) {
			group = pid
			if err := p.Guard.Hold(group); err != nil {
				p.Log.Warn("participant is not guarded", "role", p.Role, "error", err)
			}
			change(func(st *Status) { st.PID = pid })
		})
		if group != 0 {
			_ = p.Guard.Release(group) // a guard that is gone holds nothing
		}
		out.Flush()
		errs.Flush()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // we have ended it, and how does not matter
		case err == nil:
			return errors.New("it ended by itself")
		}
		return err
	})
}

// inherited returns those of our variables that a participant may have: where programs, folders and certificates are, the
// language, and what is meant for participants.
func inherited(environ []string) []string {
	var env []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "NODE_PATH", "PYTHONPATH", "VIRTUAL_ENV":
		default:
			if !strings.HasPrefix(name, "LC_") && !strings.HasPrefix(name, "SSL_CERT_") && !strings.HasPrefix(name, "MSGFLO_") {
				continue
			}
		}
		env = append(env, v)
	}
	return env
}

// forward writes what a participant prints to the log, with its role. What it prints is not trusted: it is one attribute,
// and too much of it is dropped and counted.
func (p Participant) forward(stream string) *process.Lines {
	limit := rate.NewLimiter(lineRate, lineBurst)
	var pairs []string
	for _, secret := range p.Hide {
		if secret != "" {
			pairs = append(pairs, secret, "(sensitive)")
		}
	}
	hide := strings.NewReplacer(pairs...)
	dropped := 0
	return &process.Lines{Line: func(line []byte) {
		if !limit.Allow() {
			dropped++
			return
		}
		if dropped > 0 {
			p.Log.Warn("participant prints too much", "role", p.Role, "dropped_lines", dropped)
			dropped = 0
		}
		p.Log.Info("participant printed", "role", p.Role, "stream", stream, "text", hide.Replace(string(line)))
	}}
}
