// Package supervise runs a task again when it fails: with backoff and jitter,
// and with an end to crash loops.
//
//	err := supervise.Run(ctx, "plugin mqtt", supervise.Policy{OnChange: show}, p.run)
//
// One call supervises one task; tasks know nothing of each other. It is for
// things that may fail for reasons outside this program, such as a child
// process. It is not for work that must succeed before something else goes on,
// and it does not catch panics.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Policy says how a task is restarted. The zero value of a field means its
// default.
type Policy struct {
	// Min and Max bound the wait before a restart: 0.2 s and 30 s. The wait is
	// drawn between Min and a limit that doubles from 2·Min to Max with each
	// failure, so that tasks which failed together do not come back together.
	Min, Max time.Duration

	// Crashes failures Within a time make the task Failed: 5 in a minute. A
	// run that lasts Within starts the backoff anew.
	Crashes int
	Within  time.Duration

	// Rest is how long a Failed task rests before it gets another chance;
	// 0 means that it stays Failed until ctx is done.
	Rest time.Duration

	// OnChange, if not nil, hears of each change of state, in order, on the
	// goroutine of Run, which waits for it.
	OnChange func(Status)
}

// State is what a supervised task is doing.
type State int

// The states of a task.
const (
	Running State = iota // it runs; whether it is ready is the task's own affair
	Waiting              // it failed and will be started again
	Failed               // it failed too often
)

// String is the state in lower case.
func (s State) String() string {
	switch s {
	case Running:
		return "running"
	case Waiting:
		return "waiting"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("state %d", int(s))
}

// Status is what [Policy.OnChange] hears.
type Status struct {
	State    State
	Restarts int           // how often it has been started again so far
	Err      error         // why it ended last; nil before its first failure
	Wait     time.Duration // until the next start; 0 when Running or when none is due
}

// Run runs task until it returns nil or ctx is done, and starts it again
// whenever it fails. It blocks, and returns only after task has returned. A
// task that ends because ctx is done is no failure; what it could not clean up
// is Run's error, wrapped with name.
func Run(ctx context.Context, name string, policy Policy, task func(ctx context.Context) error) error {
	policy = policy.withDefaults()
	var (
		status  Status
		streak  int         // failures since the last long run
		crashes []time.Time // those Within the last time
	)
	for {
		status.State, status.Wait = Running, 0
		policy.tell(status)
		started := time.Now()
		err := task(ctx)
		if ctx.Err() != nil {
			if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("%s: %w", name, err)
		}
		if err == nil {
			return nil
		}
		status.Err = fmt.Errorf("%s: %w", name, err)

		now := time.Now()
		if now.Sub(started) >= policy.Within {
			streak, crashes = 0, nil
		}
		crashes = recent(append(crashes, now), now.Add(-policy.Within))
		if len(crashes) >= policy.Crashes {
			status.State, status.Wait = Failed, policy.Rest
			streak, crashes = 0, nil
		} else {
			status.State, status.Wait = Waiting, policy.wait(streak)
			streak++
		}
		policy.tell(status)
		if !sleep(ctx, status) {
			return nil
		}
		status.Restarts++
	}
}

// sleep waits until the next start is due and says whether there is one.
func sleep(ctx context.Context, s Status) bool {
	if s.State == Failed && s.Wait == 0 {
		<-ctx.Done()
		return false
	}
	timer := time.NewTimer(s.Wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// recent drops the times before since; times are in order.
func recent(times []time.Time, since time.Time) []time.Time {
	for len(times) > 0 && times[0].Before(since) {
		times = times[1:]
	}
	return times
}

func (p Policy) wait(streak int) time.Duration {
	limit := p.Min
	for range streak + 1 {
		if limit >= p.Max/2 {
			limit = p.Max
			break
		}
		limit *= 2
	}
	return p.Min + rand.N(limit-p.Min+1)
}

func (p Policy) tell(s Status) {
	if p.OnChange != nil {
		p.OnChange(s)
	}
}

func (p Policy) withDefaults() Policy {
	if p.Min <= 0 {
		p.Min = 200 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 30 * time.Second
	}
	p.Max = max(p.Max, p.Min)
	if p.Crashes <= 0 {
		p.Crashes = 5
	}
	if p.Within <= 0 {
		p.Within = time.Minute
	}
	return p
}
