package embedded

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flogate/flogate/core/process"
	"github.com/flogate/flogate/core/supervise"
)

const (
	// slowTime is how long a start takes until it is said to take long. It has
	// no bound: a child that is killed while it recovers what it stores begins
	// anew, and would never end.
	slowTime = time.Minute
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
	// Changed, if not nil, hears of each change of Status, in order. It must
	// not block.
	Changed func(Status)
	// Log gets the child's own log lines.
	Log *slog.Logger

	slow time.Duration // for tests: in the place of slowTime
}

// State is what the child is doing.
type State string

// The states of a child.
const (
	Starting State = "starting" // it runs, and clients cannot connect yet
	Ready    State = "ready"    // clients can connect
	Waiting  State = "waiting"  // it has ended and will be started again soon
	Failed   State = "failed"   // it has ended too often, and rests
)

// Status is how the child is doing.
type Status struct {
	State    State
	Err      error // why it ended last, unless it is Ready
	Since    time.Time
	PID      int // 0 while there is none
	Restarts int
	Wait     time.Duration // until the next start; 0 when it runs
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
	var mu sync.Mutex
	var status Status
	change := func(f func(*Status)) {
		mu.Lock()
		defer mu.Unlock() // after Changed, which hears of changes in order
		before := status.State
		f(&status)
		if status.State != before {
			status.Since = time.Now()
		}
		if c.Changed != nil {
			c.Changed(status)
		}
	}
	policy := supervise.Policy{Rest: restTime, OnChange: func(s supervise.Status) {
		change(func(st *Status) {
			st.PID, st.Restarts, st.Wait = 0, s.Restarts, s.Wait
			switch s.State {
			case supervise.Running:
				st.State = Starting
			case supervise.Waiting:
				st.State = Waiting
			case supervise.Failed:
				st.State = Failed
			}
			if s.Err != nil {
				st.Err = errors.Unwrap(s.Err) // the name is ours
			}
		})
	}}
	return supervise.Run(ctx, "embedded broker", policy, func(ctx context.Context) error {
		return c.run(ctx, program, change)
	})
}

// run is one life of the child.
func (c Child) run(ctx context.Context, program string, change func(func(*Status))) error {
	args := []string{"broker", "--nats", c.NATS, "--mqtt", c.MQTT, "--data", c.DataDir}
	long := cmp.Or(c.slow, slowTime)
	slow := time.AfterFunc(long, func() { c.Log.Warn("the broker is still starting", "after", long) })
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
		if r.Ready == nil {
			return
		}
		slow.Stop()
		change(func(st *Status) { st.State, st.Err = Ready, nil })
		if c.Ready != nil {
			c.Ready(*r.Ready)
		}
	}}
	err := process.Run(cmd, stopTime, func(pid int) { change(func(st *Status) { st.PID = pid }) })
	switch {
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
