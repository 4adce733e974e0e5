package bridge_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/transport"
)

// full is a sink with room for few messages. What does not fit it does not take, and what comes after may fit again: it is how
// RabbitMQ's queues with max_length refuse. Somebody takes a message from it for every second one that it is offered.
type full struct {
	mu      sync.Mutex
	held    int
	offered int
	failed  int
	arrived []string
	most    int // messages on the way at a time, after the second failure
}

func (q *full) open() transport.Publisher {
	return &fullPublisher{full: q, out: transport.NewOutbox(1 << 16)}
}

type fullPublisher struct {
	*full
	out  *transport.Outbox
	lost bool
}

func (p *fullPublisher) Publish(ctx context.Context, ms []transport.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed > 2 {
		p.most = max(p.most, p.out.Unconfirmed()+len(ms))
	}
	for _, m := range ms {
		n, err := p.out.Reserve(ctx)
		if err != nil {
			return err
		}
		if p.offered++; p.offered%2 == 0 && p.held > 0 {
			p.held--
		}
		if p.held < 4 {
			p.held++
			p.arrived = append(p.arrived, string(m.Body))
			p.out.Done(n, n, nil)
			continue
		}
		if !p.lost {
			p.lost = true
			p.failed++
		}
	}
	if p.lost {
		err := errors.New("the queue is full")
		p.out.Fail(err)
		return err
	}
	return nil
}

func (p *fullPublisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.out.Confirms(ctx)
}
func (p *fullPublisher) Close(context.Context) error { return nil }

func TestFullSinkIsFilledOneByOne(t *testing.T) {
	from := newSide(t)
	q := &full{}
	feed(t, from, "queue/in", bridge.Target{ID: "t", Open: func(context.Context) (transport.Publisher, error) { return q.open(), nil }})
	const n = 400
	from.Send("queue/in", numbers(0, n)...)
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	q.mu.Lock()
	defer q.mu.Unlock()
	// The first failures find many on the way, of which some are taken out of turn. From then on there is one at a time.
	swapped, last := 0, map[string]bool{}
	next := 0
	for _, b := range q.arrived {
		if last[b] {
			continue
		}
		last[b] = true
		if want := numbers(next, next+1)[0]; b != string(want.Body) {
			swapped++
		}
		next++
	}
	if len(last) != n {
		t.Fatalf("%d of %d arrived", len(last), n)
	}
	if q.failed < 10 {
		t.Fatalf("the sink was full %d times: the test shows nothing", q.failed)
	}
	t.Logf("full %d times, %d first occurrences out of order", q.failed, swapped)
	if q.most > 1 {
		t.Errorf("%d messages on the way to a sink that is full over and over", q.most)
	}
}
