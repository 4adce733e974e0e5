package transport

import (
	"context"
	"fmt"
	"sync"
)

// Inbox is the part of a [Subscription] that is the same for every driver: messages go in from a client library's callback
// without ever blocking it, deliveries come out within credit, and settlements come back as runs in the order of delivery.
// T is what the driver needs to settle a message: a delivery tag, a packet, a sequence number.
//
// The driver's callback calls Put; Receive and Grant are the Subscription's own; Settle takes settlements and returns what
// may be said to the broker now. All methods may be called concurrently. An Inbox has no goroutine.
type Inbox[T any] struct {
	mu      sync.Mutex
	queue   fifo[item[T]] // received, not handed out
	bytes   int64         // body bytes in queue
	credit  Credit
	out     fifo[item[T]] // handed out, not yet returned by Settle; out.at(0) has sequence number first
	first   uint64        // sequence number of the oldest element of out
	pending int           // elements of out without an outcome
	err     error
	news    chan struct{} // has an element when Receive should look again
	inOrder bool
}

type item[T any] struct {
	msg     Message
	token   T
	outcome Outcome // 0 while unsettled
	size    int64
}

// Settled is a delivery with its outcome, on its way to the broker.
type Settled[T any] struct {
	Token   T
	Outcome Outcome
}

// NewInbox returns an Inbox. With inOrder, Settle holds a settlement back until everything delivered before it is settled:
// for brokers that want acknowledgements in the order of delivery (MQTT 3.1.1 section 4.6).
func NewInbox[T any](inOrder bool) *Inbox[T] {
	return &Inbox[T]{first: 1, news: make(chan struct{}, 1), inOrder: inOrder}
}

// Put adds a message. It never blocks. It returns how many messages and body bytes wait to be handed out, so that the
// driver can do something about a broker that does not stop. After Fail it drops the message.
func (b *Inbox[T]) Put(msg Message, token T) Credit {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return Credit{}
	}
	size := int64(len(msg.Body))
	b.queue.push(item[T]{msg: msg, token: token, size: size})
	b.bytes += size
	b.wake()
	return Credit{Messages: int64(b.queue.len()), Bytes: b.bytes}
}

// Grant adds credit; see [Subscription].
func (b *Inbox[T]) Grant(c Credit) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	b.credit.Messages += c.Messages
	b.credit.Bytes += c.Bytes
	b.wake()
	return nil
}

// Receive returns deliveries within credit; see [Subscription].
func (b *Inbox[T]) Receive(ctx context.Context) ([]Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.mu.Lock()
		if b.err != nil {
			err := b.err
			b.mu.Unlock()
			return nil, err
		}
		ds := b.take()
		b.mu.Unlock()
		if len(ds) > 0 {
			return ds, nil
		}
		select {
		case <-b.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// maxBatch bounds one Receive, so that a single call does not hand out megabytes of a long queue.
const maxBatch = 256

func (b *Inbox[T]) take() []Delivery {
	var ds []Delivery
	for len(ds) < maxBatch && b.queue.len() > 0 && b.credit.Messages > 0 {
		it := b.queue.at(0)
		if it.size > b.credit.Bytes && (b.pending > 0 || b.credit.Bytes <= 0) {
			break
		}
		d := Delivery{Seq: b.first + uint64(b.out.len()), Message: it.msg}
		kept := *it
		kept.msg = Message{} // the receiver has it now
		b.queue.pop()
		b.out.push(kept)
		b.pending++
		b.bytes -= kept.size
		b.credit.Messages--
		b.credit.Bytes -= kept.size
		ds = append(ds, d)
	}
	return ds
}

// Settle records outcomes and returns the deliveries of which the broker shall be told now, in the order of delivery. With
// an Inbox in order that is the settled prefix; otherwise what was just settled. It returns an error, and records nothing
// of the settlement, when a range names deliveries that are not unsettled: that is a mistake of the caller.
func (b *Inbox[T]) Settle(settlements []Settlement) ([]Settled[T], error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil, b.err
	}
	var done []Settled[T]
	for _, s := range settlements {
		if s.Outcome < Ack || s.Outcome > Reject {
			return done, fmt.Errorf("settle %d-%d: %s", s.First, s.Last, s.Outcome)
		}
		end := b.first + uint64(b.out.len())
		if s.First < b.first || s.Last < s.First || s.Last >= end {
			return done, fmt.Errorf("settle %d-%d: unsettled are %d to %d", s.First, s.Last, b.first, end-1)
		}
		for seq := s.First; seq <= s.Last; seq++ {
			if b.out.at(int(seq-b.first)).outcome != 0 {
				return done, fmt.Errorf("settle %d-%d: %d is settled", s.First, s.Last, seq)
			}
		}
		for seq := s.First; seq <= s.Last; seq++ {
			it := b.out.at(int(seq - b.first))
			it.outcome = s.Outcome
			b.pending--
			if !b.inOrder {
				done = append(done, Settled[T]{Token: it.token, Outcome: it.outcome})
			}
		}
		for b.out.len() > 0 && b.out.at(0).outcome != 0 {
			if it := b.out.at(0); b.inOrder {
				done = append(done, Settled[T]{Token: it.token, Outcome: it.outcome})
			}
			b.out.pop()
			b.first++
		}
	}
	// A message that was too large to pass beside others may pass now.
	b.wake()
	return done, nil
}

// Waiting returns how many messages and body bytes wait to be handed out.
func (b *Inbox[T]) Waiting() Credit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Credit{Messages: int64(b.queue.len()), Bytes: b.bytes}
}

// Unsettled calls f for each delivery that is handed out and unsettled, in order, until f returns false. f must not call
// back into the Inbox.
func (b *Inbox[T]) Unsettled(f func(token T) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.out.len() {
		if it := b.out.at(i); it.outcome == 0 && !f(it.token) {
			return
		}
	}
}

// Fail ends the Inbox: from now on Receive, Grant and Settle return Closed(reason). What was not handed out is dropped,
// and returned so that a driver can give it back to the broker. Only the first call has an effect.
func (b *Inbox[T]) Fail(reason error) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return nil
	}
	b.err = Closed(reason)
	var dropped []T
	for b.queue.len() > 0 {
		dropped = append(dropped, b.queue.at(0).token)
		b.queue.pop()
	}
	b.bytes = 0
	b.wake()
	return dropped
}

func (b *Inbox[T]) wake() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}
