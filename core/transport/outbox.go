package transport

import (
	"context"
	"sync"
)

// Outbox is the part of a [Publisher] that is the same for every driver: it counts messages, bounds how many are
// unconfirmed, and turns the broker's words, which come in any order, into ranges without gaps. It has no goroutine.
// All methods may be called concurrently, except that Confirms is called by one goroutine at a time.
type Outbox struct {
	mu    sync.Mutex
	limit int
	out   fifo[outcome] // published, not yet reported; out.at(0) has number first
	first uint64
	err   error
	news  chan struct{} // has an element when Confirms should look again
	room  chan struct{} // has an element when Reserve should look again
}

type outcome struct {
	done    bool
	refused error
}

// NewOutbox returns an Outbox that lets at most limit messages be unconfirmed. limit must be at least 1.
func NewOutbox(limit int) *Outbox {
	return &Outbox{limit: max(1, limit), first: 1, news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// Reserve blocks until one more message may be in flight, and returns its number; or returns why not. Only one goroutine
// may call it at a time.
func (o *Outbox) Reserve(ctx context.Context) (uint64, error) {
	for {
		o.mu.Lock()
		if o.err != nil {
			err := o.err
			o.mu.Unlock()
			return 0, err
		}
		if o.out.len() < o.limit {
			o.out.push(outcome{})
			n := o.first + uint64(o.out.len()) - 1
			o.mu.Unlock()
			return n, nil
		}
		o.mu.Unlock()
		select {
		case <-o.room:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Done records the broker's word of the messages first to last, both included; refused is nil when it has them. Numbers
// that are not outstanding are ignored: brokers may repeat themselves.
func (o *Outbox) Done(first, last uint64, refused error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	first = max(first, o.first)
	for n := first; n <= last && n < o.first+uint64(o.out.len()); n++ {
		if e := o.out.at(int(n - o.first)); !e.done {
			e.done, e.refused = true, Permanent(refused)
		}
	}
	if o.out.len() > 0 && o.out.at(0).done {
		wake(o.news)
	}
}

// Confirms returns the ranges that are complete; see [Publisher].
func (o *Outbox) Confirms(ctx context.Context) ([]Confirm, error) {
	for {
		o.mu.Lock()
		cs := o.take()
		err := o.err
		o.mu.Unlock()
		if len(cs) > 0 {
			return cs, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-o.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (o *Outbox) take() []Confirm {
	var cs []Confirm
	for o.out.len() > 0 && o.out.at(0).done {
		refused := o.out.at(0).refused
		if n := len(cs); n > 0 && refused == nil && cs[n-1].Refused == nil {
			cs[n-1].Last = o.first
		} else {
			cs = append(cs, Confirm{First: o.first, Last: o.first, Refused: refused})
		}
		o.out.pop()
		o.first++
	}
	if len(cs) > 0 {
		wake(o.room)
	}
	return cs
}

// Unconfirmed returns how many messages are in flight or not yet reported.
func (o *Outbox) Unconfirmed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.len()
}

// Fail ends the Outbox: Confirms reports what was confirmed before and then Closed(reason), Reserve returns it at once.
// Only the first call has an effect.
func (o *Outbox) Fail(reason error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return
	}
	o.err = Closed(reason)
	wake(o.news)
	wake(o.room)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
