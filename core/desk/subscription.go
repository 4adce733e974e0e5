package desk

import (
	"context"
	"sync"

	"github.com/flogate/flogate/core/graph"
)

// maxBehind is how many events a subscriber may be behind before it has to look at the graphs anew.
const maxBehind = 4096

// Kind says what has happened.
type Kind int

// What happens to a graph.
const (
	// Changed: it is at another revision.
	Changed Kind = iota
	// Opened: it is new. Ask for it.
	Opened
	// Removed: it is gone.
	Removed
	// Stated: something else about it is new, see Snapshot.
	Stated
	// Missed: events were lost because the subscriber was too slow. Ask for all graphs.
	Missed
)

// String returns the kind in lower case.
func (k Kind) String() string {
	return [...]string{"changed", "opened", "removed", "stated", "missed"}[k]
}

// Event is something that has happened to a graph.
type Event struct {
	Kind     Kind
	Graph    string
	Revision uint64
	Who      string
	// Effects turn the graph of the revision before into that of this revision, by graph.Replay and in the protocol alike.
	Effects []graph.Change
}

// Subscription hands out events in the order in which they happened, the same to all. What it was opened before, or what
// came after Missed, may be in a snapshot that was taken later: of a graph's events only those count that are of a later
// revision than the snapshot.
type Subscription struct {
	desk *Desk

	mu     sync.Mutex
	queue  []Event
	missed bool
	closed bool
	news   chan struct{}
}

// Subscribe returns a subscription to all that happens from now on. It has to be closed.
func (d *Desk) Subscribe() *Subscription {
	s := &Subscription{desk: d, news: make(chan struct{}, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subscriptions[s] = struct{}{}
	return s
}

// Next returns the next event. It blocks until there is one, ctx ends, or Close is called by another goroutine: then it
// returns ErrClosed. One goroutine at a time may call it.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return Event{}, ErrClosed
		case s.missed:
			s.missed = false
			s.mu.Unlock()
			return Event{Kind: Missed}, nil
		case len(s.queue) > 0:
			e := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return e, nil
		}
		s.mu.Unlock()
		select {
		case <-s.news:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.desk.mu.Lock()
	delete(s.desk.subscriptions, s)
	s.desk.mu.Unlock()
	s.mu.Lock()
	s.closed, s.queue = true, nil
	s.mu.Unlock()
	s.tell()
}

// put never blocks.
func (s *Subscription) put(e Event) {
	s.mu.Lock()
	if len(s.queue) < maxBehind {
		s.queue = append(s.queue, e)
	} else {
		s.queue, s.missed = nil, true // the snapshots that it will ask for have all of it
	}
	s.mu.Unlock()
	s.tell()
}

func (s *Subscription) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// publish tells all subscribers. It is called under the lock of the desk, which makes the order.
func (d *Desk) publish(e Event) {
	for s := range d.subscriptions {
		s.put(e)
	}
}
