package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/flogate/flogate/core/process"
	"github.com/flogate/flogate/core/supervise"
)

const (
	// startTime bounds the child's start, with the recovery of what it stores.
	startTime = time.Minute
	// stopTime is how long the child may take to stop before it is killed.
	stopTime = 10 * time.Second
	// restTime is how long a child that crashed too often rests: what is wrong
	// is mostly a port that is taken, and may be free later.
	restTime = 30 * time.Second
)

// report is the one line that the child prints on its standard output.
type report struct {
	Ready *Addresses `json:"ready,omitempty"`
	Error string     `json:"error,omitempty"`
}

// Serve is [Run] in a process of its own: it tells the parent on stdout, in one
// line of JSON, where the broker listens or why it does not.
func Serve(ctx context.Context, o Options, stdout io.Writer, log *slog.Logger) error {
	lines := json.NewEncoder(stdout)
	told := false
	ready := o.Ready
	o.Ready = func(a Addresses) {
		told = true
		if err := lines.Encode(report{Ready: &a}); err != nil {
			log.Warn("cannot report readiness", "error", err)
		}
		if ready != nil {
			ready(a)
		}
	}
	err := Run(ctx, o, log)
	if err != nil && !told {
		// A parent that is gone is no second error.
		_ = lines.Encode(report{Error: err.Error()})
	}
	return err
}

// Child is a broker in a child process, as its parent sees it.
type Child struct {
	Program string // the program with the broker command; empty for this one
	NATS    string // as in [Options]
	MQTT    string
	DataDir string

	// Ready, if not nil, hears after each start where the broker listens.
	Ready func(Addresses)
	// OnChange, if not nil, hears of starts and failures.
	OnChange func(supervise.Status)
	// Log gets the child's own log lines.
	Log *slog.Logger
}

// Run starts the child, starts it again when it ends, and stops it when ctx is
// done; then it has ended when Run returns. On Linux the child also ends when
// this process is killed.
func (c Child) Run(ctx context.Context) error {
	program := c.Program
	if program == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("embedded broker: %w", err)
		}
		program = self
	}
	policy := supervise.Policy{Rest: restTime, OnChange: c.OnChange}
	return supervise.Run(ctx, "embedded broker", policy, func(ctx context.Context) error {
		return c.run(ctx, program)
	})
}

var errStart = errors.New("not ready in time")

// run is one life of the child.
func (c Child) run(ctx context.Context, program string) error {
	args := []string{"broker", "--nats", c.NATS, "--mqtt", c.MQTT, "--data", c.DataDir}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slow := time.AfterFunc(startTime, func() { cancel(errStart) })
	defer slow.Stop()

	var reason atomic.Pointer[string] // the child's own, for not being ready
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = &process.Lines{Line: c.relay}
	cmd.Stdout = &process.Lines{Line: func(line []byte) {
		var r report
		if err := json.Unmarshal(line, &r); err != nil {
			c.Log.Warn("the broker printed something else than its report", "text", string(line))
			return
		}
		if r.Error != "" {
			reason.Store(&r.Error)
		}
		if r.Ready != nil && slow.Stop() && c.Ready != nil {
			c.Ready(*r.Ready)
		}
	}}
	err := process.Run(cmd, stopTime, nil)
	switch {
	case errors.Is(context.Cause(ctx), errStart):
		return errStart
	case ctx.Err() != nil:
		return nil // what the child's exit code was does not matter any more
	case reason.Load() != nil:
		return errors.New(*reason.Load())
	case err == nil:
		return errors.New("ended by itself")
	}
	return err
}

// relay writes a line of the child's log to ours.
func (c Child) relay(line []byte) {
	var record map[string]any
	if err := json.Unmarshal(line, &record); err != nil {
		c.Log.Info("the broker printed", "text", string(line))
		return
	}
	level := slog.LevelInfo
	if text, ok := record[slog.LevelKey].(string); ok {
		_ = level.UnmarshalText([]byte(text)) // else it stays info
	}
	c.Log.LogAttrs(context.Background(), level, "the broker logged", slog.Any("record", record))
}
