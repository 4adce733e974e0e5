package bridge_test

import (
	"context"
	"errors"
	"testing"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/transport"
)

// A node is renamed while the sink is away.
func TestTargetThatTakesThePlaceOfTheOnlyOneLosesNothing(t *testing.T) {
	from, old, next := newSide(t), newSide(t), newSide(t)
	old.RefuseConnections(errors.New("down"))
	old.KillConnections("down")
	f, _ := feed(t, from, "queue/in", bridge.Target{ID: "a.out -> motor.in", Version: "1", Open: old.publish("queue/out")})
	from.Send("queue/in", numbers(0, 10)...)
	await(t, "ten in flight", func() bool { return f.Status().Targets[0].InFlight == 10 })
	f.Update([]bridge.Target{{ID: "a.out -> engine.in", Version: "1", Open: next.publish("queue/out")}})
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	if got := len(next.PublishedTo("queue/out")) + len(old.PublishedTo("queue/out")); got < 10 {
		t.Fatalf("%d of 10 messages reached any sink, and the source holds none", got)
	}
}

// fakePub confirms when told.
type fakePub struct {
	pub     chan []transport.Message
	confirm chan []transport.Confirm
	fail    chan error
}

func newFakePub() *fakePub {
	return &fakePub{make(chan []transport.Message, 100), make(chan []transport.Confirm, 100), make(chan error, 1)}
}

func (p *fakePub) Publish(ctx context.Context, ms []transport.Message) error {
	p.pub <- append([]transport.Message(nil), ms...)
	return nil
}

func (p *fakePub) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	select {
	case c := <-p.confirm:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (p *fakePub) Close(context.Context) error { return nil }

// failPub is a main publisher whose Publish fails when told, and which refuses everything.
type failPub struct {
	*fakePub
	dead chan struct{}
}

func (p *failPub) Publish(ctx context.Context, ms []transport.Message) error {
	select {
	case <-p.dead:
		return transport.Closed(errors.New("publisher lost"))
	default:
	}
	return p.fakePub.Publish(ctx, ms)
}

// The sink's publisher fails while the word on a dead letter is awaited. The dead letter's publisher must go with it: the word
// that it still owes would be taken for the one on the next letter.
func TestDeadLetterIsNotTakenAsConfirmedByTheWordForAnother(t *testing.T) {
	from := newSide(t)
	mains, deads := make(chan *failPub, 10), make(chan *fakePub, 10)
	feed(t, from, "queue/in", bridge.Target{
		ID: "t",
		Open: func(context.Context) (transport.Publisher, error) {
			p := &failPub{newFakePub(), make(chan struct{})}
			mains <- p
			return p, nil
		},
		OpenDeadLetter: func(context.Context) (transport.Publisher, error) {
			p := newFakePub()
			deads <- p
			return p, nil
		},
	})
	refuse := errors.New("no")
	p1 := <-mains
	from.Send("queue/in", numbers(0, 1)...)
	<-p1.pub
	p1.confirm <- []transport.Confirm{{First: 1, Last: 1, Refused: refuse}}
	d1 := <-deads
	<-d1.pub // the letter of message 0, not confirmed
	close(p1.dead)
	from.Send("queue/in", numbers(1, 2)...) // Publish fails
	p2 := <-mains
	<-p2.pub
	p2.confirm <- []transport.Confirm{{First: 1, Last: 1, Refused: refuse}}
	d1.confirm <- []transport.Confirm{{First: 1, Last: 1}} // the late word on the first letter: nobody may hear it
	d2 := <-deads
	<-d2.pub // the letter of message 0 again
	if held := from.Held("queue/in"); held != 2 {
		t.Errorf("the source holds %d messages, and no letter of the two is confirmed", held)
	}
	d2.confirm <- []transport.Confirm{{First: 1, Last: 1}}
	await(t, "the first message to be acknowledged", func() bool { return from.Held("queue/in") == 1 })
}

// grantSub is a subscription that tells what it is granted.
type grantSub struct {
	grants chan transport.Credit
	recv   chan []transport.Delivery
	lost   chan struct{}
}

func (s *grantSub) Receive(ctx context.Context) ([]transport.Delivery, error) {
	select {
	case d := <-s.recv:
		return d, nil
	case <-s.lost:
		return nil, transport.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *grantSub) Grant(c transport.Credit) error                       { s.grants <- c; return nil }
func (s *grantSub) Settle(context.Context, []transport.Settlement) error { return nil }
func (s *grantSub) Close(context.Context) error                          { return nil }
func (s *grantSub) Remove(context.Context) error                         { return nil }

func TestCreditStaysWithinTheWindowAfterAnOversizedBody(t *testing.T) {
	subs := make(chan *grantSub, 2)
	mk := func() *grantSub {
		s := &grantSub{make(chan transport.Credit, 10), make(chan []transport.Delivery, 1), make(chan struct{})}
		subs <- s
		return s
	}
	p := newFakePub()
	f := bridge.New(bridge.Config{
		Acks: true, Window: transport.Credit{Messages: 16, Bytes: 1000},
		Open: func(context.Context) (transport.Subscription, error) { return mk(), nil },
	},
		[]bridge.Target{{ID: "t", Open: func(context.Context) (transport.Publisher, error) { return p, nil }}})
	background(t, f.Run)
	s1 := <-subs
	<-s1.grants
	s1.recv <- []transport.Delivery{{Seq: 1, Message: transport.Message{Body: make([]byte, 5000)}}}
	<-p.pub
	close(s1.lost)
	s2 := <-subs
	total := (<-s2.grants).Bytes
	p.confirm <- []transport.Confirm{{First: 1, Last: 1}}
	total += (<-s2.grants).Bytes
	if total > 1000 {
		t.Fatalf("granted %d bytes with nothing unsettled; the window is 1000", total)
	}
}
