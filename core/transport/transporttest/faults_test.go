package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func TestFaultDriverWithoutFaultsKeepsTheContract(t *testing.T) {
	target := NewMemory().Target()
	inner := target.New
	target.New = func(t testing.TB) transport.Driver { return Faults(inner(t)) }
	Run(t, target)
}

// rig is a FaultDriver on a Memory with one connection, on which one address is subscribed to and published to.
type rig struct {
	*testing.T
	m    *Memory
	f    *FaultDriver
	conn transport.Conn
	sub  transport.Subscription
	pub  transport.Publisher
}

func newRig(t *testing.T) *rig {
	m := NewMemory()
	r := &rig{T: t, m: m, f: Faults(m.Driver())}
	r.connect()
	return r
}

func (r *rig) connect() {
	r.Helper()
	var err error
	if r.conn, err = r.f.Connect(r.Context(), transport.ConnectRequest{Name: "rig"}); err != nil {
		r.Fatal(err)
	}
	if r.sub, err = r.conn.Subscribe(r.Context(), transport.Source{Name: "s", Address: "a"}); err != nil {
		r.Fatal(err)
	}
	if err = r.sub.Grant(plenty); err != nil {
		r.Fatal(err)
	}
	if r.pub, err = r.conn.Publish(r.Context(), transport.Sink{Address: "a"}); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) publish(first, last int) error {
	return r.pub.Publish(r.Context(), messages(first, last))
}

// receive returns the bodies of up to n deliveries, and the error that came before there were so many.
func (r *rig) receive(n int) (bodies []string, err error) {
	for len(bodies) < n {
		ds, err := r.sub.Receive(r.Context())
		if err != nil {
			return bodies, err
		}
		for _, d := range ds {
			bodies = append(bodies, string(d.Body))
		}
	}
	return bodies, nil
}

// confirmed returns the number of the last message that is confirmed when n are or an error comes.
func (r *rig) confirmed(ctx context.Context, n uint64) (last uint64, err error) {
	for last < n {
		cs, err := r.pub.Confirms(ctx)
		if err != nil {
			return last, err
		}
		last = cs[len(cs)-1].Last
	}
	return last, nil
}

func (r *rig) bodies() (bodies []string) {
	for _, m := range r.m.PublishedTo("a") {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

// is fails the test unless got reads like want.
func (r *rig) is(what string, got, want any) {
	r.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.Errorf("%s: %v; want %v", what, got, want)
	}
}

// wraps fails the test unless err is all of targets.
func (r *rig) wraps(what string, err error, targets ...error) {
	r.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			r.Errorf("%s: %v; want an error that is %q", what, err, target)
		}
	}
}

func TestConnectIsRefusedAsOftenAsToldAndThenSucceeds(t *testing.T) {
	f := Faults(NewMemory().Driver())
	wrong := errors.New("no route")
	f.Inject(Fault{At: AtConnect, Do: Fail, Times: 2, Err: wrong})
	for range 2 {
		if _, err := f.Connect(t.Context(), transport.ConnectRequest{}); !errors.Is(err, wrong) {
			t.Fatalf("connect: %v; want %v", err, wrong)
		}
	}
	conn, err := f.Connect(t.Context(), transport.ConnectRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.Injected(AtConnect); n != 2 {
		t.Errorf("%d faults have happened; want 2", n)
	}
}

func TestLossAtPublishIsAfterTheMessageHasReachedTheBroker(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtPublish, Do: Lose, After: 2})
	r.wraps("publish", r.publish(1, 5), transport.ErrClosed, ErrInjected)
	r.is("published", r.bodies(), []string{"1", "2", "3"})
	_, err := r.conn.Next(t.Context())
	r.wraps("next", err, transport.ErrClosed, ErrInjected)
	r.is("connections", r.m.Connections(), 0)
	r.connect()
	r.is("publish again", r.publish(3, 5), nil)
	bodies, err := r.receive(6)
	r.is("received", bodies, []string{"1", "2", "3", "3", "4", "5"})
	r.is("receive", err, nil)
}

func TestLossAtConfirmIsAfterTheBrokerHasConfirmed(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtConfirm, Do: Lose, After: 3})
	r.is("publish", r.publish(1, 5), nil)
	last, err := r.confirmed(t.Context(), 5)
	r.is("confirmed", last, 3)
	r.wraps("confirms", err, transport.ErrClosed, ErrInjected)
	r.is("published", len(r.bodies()), 5)
}

func TestLossAtReceiveLeavesTheRestWithTheBroker(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtReceive, Do: Lose, After: 2})
	r.is("publish", r.publish(1, 5), nil)
	bodies, err := r.receive(5)
	r.is("received", bodies, []string{"1", "2"})
	r.wraps("receive", err, transport.ErrClosed, ErrInjected)
	r.connect()
	bodies, _ = r.receive(5)
	r.is("received again", bodies, []string{"1", "2", "3", "4", "5"})
}

func TestFailureEndsTheStreamAndNotTheConnection(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtReceive, Do: Fail, After: 1}, Fault{At: AtPublish, Do: Fail, After: 3})
	r.wraps("publish", r.publish(1, 5), ErrInjected)
	r.is("published", r.bodies(), []string{"1", "2", "3"})
	last, err := r.confirmed(t.Context(), 5)
	r.is("confirmed", last, 3)
	r.wraps("confirms", err, transport.ErrClosed)
	bodies, err := r.receive(5)
	r.is("received", bodies, []string{"1"})
	r.wraps("receive", err, transport.ErrClosed, ErrInjected)
	r.is("connections", r.m.Connections(), 1)
	if _, err := r.conn.Subscribe(t.Context(), transport.Source{Name: "s", Address: "a"}); err != nil {
		t.Errorf("subscribe again: %v", err)
	}
}

func TestDroppedSettlementComesAgain(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtSettle, Do: Drop, After: 1, Times: 2})
	r.is("publish", r.publish(1, 5), nil)
	_, _ = r.receive(5)
	r.is("settle", r.sub.Settle(t.Context(), []transport.Settlement{{First: 1, Last: 5, Outcome: transport.Ack}}), nil)
	r.is("held", r.m.Held("a"), 2)
	r.f.LoseConnections(ErrInjected)
	r.connect()
	bodies, _ := r.receive(2)
	r.is("received again", bodies, []string{"2", "3"})
}

func TestDroppedConfirmHoldsBackAllThatFollow(t *testing.T) {
	for at, published := range map[Op]int{AtConfirm: 5, AtPublish: 4} {
		r := newRig(t)
		r.f.Inject(Fault{At: at, Do: Drop, After: 2})
		r.is("publish", r.publish(1, 2), nil)
		last, err := r.confirmed(t.Context(), 2)
		r.is("confirmed", last, 2)
		r.is("confirms", err, nil)
		r.is("publish", r.publish(3, 5), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err = r.confirmed(ctx, 3)
		r.wraps("confirms", err, context.DeadlineExceeded)
		r.is("published", len(r.bodies()), published)
	}
}

func TestDelayAndHangHeedTheContext(t *testing.T) {
	r := newRig(t)
	r.f.Inject(Fault{At: AtPublish, Do: Delay, Delay: 20 * time.Millisecond}, Fault{At: AtPublish, Do: Delay, Delay: time.Hour}, Fault{At: AtReceive, Do: Hang})
	start := time.Now()
	r.is("publish", r.publish(1, 1), nil)
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("publish took %v; want 20 ms", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r.wraps("publish", r.pub.Publish(ctx, messages(2, 2)), context.DeadlineExceeded)
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := r.sub.Receive(ctx)
	r.wraps("receive", err, context.DeadlineExceeded)
	bodies, err := r.receive(1)
	r.is("received", bodies, []string{"1"})
	r.is("receive", err, nil)
}

func TestFrozenDriverReturnsNothingAndLosesNothing(t *testing.T) {
	r := newRig(t)
	r.is("publish", r.publish(1, 3), nil)
	thaw := r.f.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, describe := r.f.Describe(ctx)
	_, connect := r.f.Connect(ctx, transport.ConnectRequest{})
	_, receive := r.sub.Receive(ctx)
	_, confirms := r.pub.Confirms(ctx)
	_, next := r.conn.Next(ctx)
	for name, err := range map[string]error{
		"describe": describe, "connect": connect, "receive": receive, "confirms": confirms, "next": next,
		"publish": r.pub.Publish(ctx, messages(4, 4)),
		"settle":  r.sub.Settle(ctx, []transport.Settlement{{First: 1, Last: 1, Outcome: transport.Ack}}),
	} {
		r.wraps(name, err, context.DeadlineExceeded)
	}
	thaw()
	bodies, err := r.receive(3)
	r.is("received", bodies, []string{"1", "2", "3"})
	r.is("receive", err, nil)
	last, err := r.confirmed(t.Context(), 3)
	r.is("confirmed", last, 3)
	r.is("confirms", err, nil)
}

func TestCloseOfAFrozenDriverEndsTheConnectionWithTheContext(t *testing.T) {
	r := newRig(t)
	r.f.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r.wraps("close", r.conn.Close(ctx), context.DeadlineExceeded)
	r.is("connections", r.m.Connections(), 0)
}

func TestSameSeedSameFaults(t *testing.T) {
	run := func(seed uint64) []int {
		r := newRig(t)
		r.f.Random(seed, Fault{At: AtPublish, Do: Delay, Chance: 0.2})
		var hit []int
		for i := range 200 {
			before := r.f.Injected(AtPublish)
			r.is("publish", r.publish(i, i), nil)
			if r.f.Injected(AtPublish) > before {
				hit = append(hit, i)
			}
			_, _ = r.confirmed(t.Context(), uint64(i+1))
		}
		return hit
	}
	first := run(1)
	if len(first) < 20 || len(first) > 60 {
		t.Errorf("%d of 200 with a chance of 0.2", len(first))
	}
	if second := run(1); !slices.Equal(first, second) {
		t.Errorf("the same seed: %v and %v", first, second)
	}
	if other := run(2); slices.Equal(first, other) {
		t.Errorf("another seed: the same %v", other)
	}
}
