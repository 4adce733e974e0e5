package bridge

import (
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Status is what can be said of a feed at one moment.
type Status struct {
	Source   Condition
	Draining bool
	// Full: no more is taken from the source until something is confirmed.
	Full bool
	// Room is what the source may still give, as far as it is up: the broker knows, or is about to hear.
	Room     transport.Credit
	Received Counts
	Targets  []TargetStatus
}

// TargetStatus is what can be said of one target.
type TargetStatus struct {
	ID   string
	Sink Condition
	// DeadLetter has a Reason while a dead letter is not taken: the target is held up by it.
	DeadLetter Condition
	// Passed is what the sink has confirmed.
	Passed Counts
	// InFlight is how many messages are in the window, for this target; Oldest is when the oldest of them arrived.
	InFlight uint64
	Oldest   time.Time
	// Awaited is since when the sink owes a confirm; zero if it owes none.
	Awaited time.Time
	// Redelivered counts messages that were published more than once, because a publisher failed.
	Redelivered uint64
	// Dead counts messages that went to the dead letter, Rejected those that were refused and had none.
	Dead, Rejected uint64
}

// Status returns what can be said now. It does not block.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Source: f.cond, Draining: f.draining, Received: f.received}
	var bytes int64
	for p := f.settled; p < f.end; p++ {
		bytes += int64(len(f.at(p).d.Body))
	}
	s.Room.Messages = max(0, f.cfg.Window.Messages-int64(f.end-f.settled))
	s.Room.Bytes = max(0, f.cfg.Window.Bytes-bytes)
	s.Full = s.Room.Messages == 0 || s.Room.Bytes == 0
	for _, t := range f.targets {
		ts := TargetStatus{
			ID: t.cfg.ID, Sink: t.cond, DeadLetter: t.held, Passed: t.stats.passed,
			InFlight: f.end - t.confirmed, Redelivered: t.stats.republished,
			Dead: t.stats.dead, Rejected: t.stats.rejected,
		}
		if ts.InFlight > 0 {
			ts.Oldest = f.at(t.confirmed).at
		}
		if t.sent > t.confirmed {
			ts.Awaited = t.lastWord
		}
		s.Targets = append(s.Targets, ts)
	}
	return s
}
