package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is a broker in memory, kept connected as the gateway does.
type side struct {
	*transporttest.Memory
	broker *broker.Broker
}

func newSide(t *testing.T) side {
	t.Helper()
	mem := transporttest.NewMemory()
	b := broker.New(broker.Config{
		Name:    "memory." + t.Name(),
		Request: transport.ConnectRequest{Name: "test", Config: json.RawMessage(`{}`)},
		Driver:  func(context.Context) (transport.Driver, error) { return mem.Driver(), nil },
		MinWait: time.Millisecond, MaxWait: 2 * time.Millisecond,
	})
	background(t, b.Run)
	return side{mem, b}
}

// background runs something until the test ends, and waits for its end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func (s side) subscribe(address string, window int64) func(context.Context) (transport.Subscription, error) {
	return func(ctx context.Context) (transport.Subscription, error) {
		conn, err := s.broker.Conn(ctx)
		if err != nil {
			return nil, err
		}
		return conn.Subscribe(ctx, transport.Source{Name: "feed", Address: address, Window: transport.Credit{Messages: window, Bytes: 1 << 20}})
	}
}

func (s side) publish(address string) func(context.Context) (transport.Publisher, error) {
	return func(ctx context.Context) (transport.Publisher, error) {
		conn, err := s.broker.Conn(ctx)
		if err != nil {
			return nil, err
		}
		return conn.Publish(ctx, transport.Sink{Name: "feed", Address: address})
	}
}

const window = 32

// feed runs a feed from src on one broker to targets.
func feed(t *testing.T, from side, src string, targets ...bridge.Target) (*bridge.Feed, func()) {
	t.Helper()
	f := bridge.New(bridge.Config{
		Name: t.Name(), Acks: true, Drain: 5 * time.Second,
		Window: transport.Credit{Messages: window, Bytes: 1 << 20},
		Open:   from.subscribe(src, window),
	}, targets)
	stop := background(t, f.Run)
	await(t, "the source to open", func() bool { return f.Status().Source.Up })
	return f, stop
}

func numbers(from, to int) []transport.Message {
	var ms []transport.Message
	for i := from; i < to; i++ {
		ms = append(ms, transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true})
	}
	return ms
}

// await polls, with a bound that only a hang reaches.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func bodies(ms []transport.Message) []string {
	var out []string
	for _, m := range ms {
		out = append(out, string(m.Body))
	}
	return out
}

// checkCarried wants 0 to n-1, the first occurrences in order, and returns how many came more than once.
func checkCarried(t *testing.T, ms []transport.Message, n int) (doubled int) {
	t.Helper()
	seen := make(map[string]bool)
	next := 0
	for _, b := range bodies(ms) {
		if seen[b] {
			doubled++
			continue
		}
		seen[b] = true
		if b != strconv.Itoa(next) {
			t.Fatalf("%s came first where %d should have", b, next)
		}
		next++
	}
	if next != n {
		t.Fatalf("%d of %d messages arrived", next, n)
	}
	return doubled
}

func TestEveryMessageReachesEveryTargetInOrder(t *testing.T) {
	from, to := newSide(t), newSide(t)
	f, _ := feed(t, from, "queue/in",
		bridge.Target{ID: "one", Open: to.publish("queue/one")},
		bridge.Target{ID: "two", Open: to.publish("queue/two")})
	const n = 1000
	from.Send("queue/in", numbers(0, n)...)
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	for _, q := range []string{"queue/one", "queue/two"} {
		if d := checkCarried(t, to.PublishedTo(q), n); d != 0 {
			t.Errorf("%s: %d came twice without any failure", q, d)
		}
	}
	s := f.Status()
	for _, ts := range s.Targets {
		if ts.Passed.Messages != n || ts.InFlight != 0 || !ts.Sink.Up || !ts.Awaited.IsZero() {
			t.Errorf("status of %s: %+v", ts.ID, ts)
		}
	}
}

func TestNothingIsAcknowledgedBeforeEveryTargetHasConfirmed(t *testing.T) {
	from, quick, slow := newSide(t), newSide(t), newSide(t)
	slow.Stall()
	f, _ := feed(t, from, "queue/in",
		bridge.Target{ID: "quick", Open: quick.publish("queue/out")},
		bridge.Target{ID: "slow", Open: slow.publish("queue/out")})
	from.Send("queue/in", numbers(0, 10)...)
	await(t, "both to be published", func() bool {
		return len(quick.PublishedTo("queue/out")) == 10 && len(slow.PublishedTo("queue/out")) == 10
	})
	await(t, "the quick one's confirms", func() bool { return f.Status().Targets[0].InFlight == 0 })
	if held := from.Held("queue/in"); held != 10 {
		t.Errorf("the source holds %d of 10 messages that the slow target has not confirmed", held)
	}
	slow.Resume()
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
}

func TestWindowBoundsWhatIsInFlight(t *testing.T) {
	from, to := newSide(t), newSide(t)
	to.Stall()
	f, _ := feed(t, from, "queue/in", bridge.Target{ID: "t", Open: to.publish("queue/out")})
	from.Send("queue/in", numbers(0, 10*window)...)
	await(t, "a full window", func() bool { return f.Status().Targets[0].InFlight == window })
	if got := len(to.PublishedTo("queue/out")); got > window {
		t.Errorf("%d messages are out, the window is %d", got, window)
	}
	to.Resume()
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	checkCarried(t, to.PublishedTo("queue/out"), 10*window)
}

func TestLostConnectionsLoseNothingAndReorderNothing(t *testing.T) {
	const n = 3000
	for _, kill := range []string{"source", "sink", "both"} {
		t.Run(kill, func(t *testing.T) {
			from, to := newSide(t), newSide(t)
			to.ConfirmAfter(200 * time.Microsecond)
			feed(t, from, "queue/in", bridge.Target{ID: "t", Open: to.publish("queue/out")})
			from.Send("queue/in", numbers(0, n)...)
			kills := 0
			for from.Held("queue/in") > 0 && kills < 5000 {
				if kill != "sink" {
					from.KillConnections("killed by the test")
					kills++
				}
				if kill != "source" {
					to.KillConnections("killed by the test")
					kills++
				}
				time.Sleep(time.Duration(rand.N(int64(4 * time.Millisecond))))
			}
			await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
			doubled := checkCarried(t, to.PublishedTo("queue/out"), n)
			if kill == "both" {
				kills /= 2 // two ends, and one failure
			}
			if doubled > kills*window {
				t.Errorf("%d came twice in %d kills with a window of %d", doubled, kills, window)
			}
			if kills == 0 {
				t.Error("nothing was killed")
			}
		})
	}
}

func TestRefusedMessageGoesToTheDeadLetterWithItsCause(t *testing.T) {
	from, to, dead := newSide(t), newSide(t), newSide(t)
	to.Refuse("queue/out", errors.New("the queue takes nothing"))
	dead.Stall()
	f, _ := feed(t, from, "queue/in", bridge.Target{
		ID: "a.out -> b.in", Open: to.publish("queue/out"), OpenDeadLetter: dead.publish("queue/dead"),
	})
	from.Send("queue/in", transport.Message{Body: []byte("x"), Durable: true, Headers: []transport.Header{{Name: "k", Value: "v"}}})
	await(t, "the dead letter", func() bool { return len(dead.PublishedTo("queue/dead")) == 1 })
	if from.Held("queue/in") != 1 {
		t.Error("the message was acknowledged before the dead letter was confirmed")
	}
	dead.Resume()
	await(t, "the message to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	letter := dead.PublishedTo("queue/dead")[0]
	got := make(map[string]string)
	for _, h := range letter.Headers {
		got[h.Name] = h.Value
	}
	if string(letter.Body) != "x" || got["k"] != "v" || got[deadletter.HeaderCause] != "the queue takes nothing" ||
		got[deadletter.HeaderEdge] != "a.out -> b.in" || got[deadletter.HeaderFrom] != "queue/in" || got[deadletter.HeaderTime] == "" {
		t.Errorf("dead letter %q with headers %v", letter.Body, letter.Headers)
	}
	if s := f.Status().Targets[0]; s.Dead != 1 || s.Rejected != 0 || s.Passed.Messages != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestDeadLetterThatIsAwayHoldsTheEdgeAndLosesNothing(t *testing.T) {
	from, to, dead := newSide(t), newSide(t), newSide(t)
	to.Refuse("queue/out", errors.New("no"))
	dead.Refuse("queue/dead", errors.New("full"))
	f, _ := feed(t, from, "queue/in", bridge.Target{
		ID: "t", Open: to.publish("queue/out"), OpenDeadLetter: dead.publish("queue/dead"),
	})
	from.Send("queue/in", numbers(0, 3)...)
	await(t, "the trouble to be visible", func() bool { return f.Status().Targets[0].DeadLetter.Reason != "" })
	if from.Held("queue/in") != 3 {
		t.Error("a message was acknowledged that nobody has")
	}
	dead.Refuse("queue/dead", nil)
	await(t, "the messages to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	checkCarried(t, dead.PublishedTo("queue/dead"), 3)
	if r := f.Status().Targets[0].DeadLetter.Reason; r != "" {
		t.Errorf("the trouble is over, and still %q", r)
	}
}

func TestRefusedMessageWithoutDeadLetterIsRejectedAndNotRetried(t *testing.T) {
	from, to := newSide(t), newSide(t)
	to.Refuse("queue/out", errors.New("no"))
	f, _ := feed(t, from, "queue/in", bridge.Target{ID: "t", Open: to.publish("queue/out")})
	from.Send("queue/in", numbers(0, 3)...)
	await(t, "the rejections", func() bool { return f.Status().Targets[0].Rejected == 3 && from.Held("queue/in") == 0 })
	to.Refuse("queue/out", nil)
	from.Send("queue/in", numbers(0, 1)...)
	await(t, "the next message", func() bool { return from.Held("queue/in") == 0 })
	if got := bodies(to.PublishedTo("queue/out")); !slices.Equal(got, []string{"0"}) {
		t.Errorf("arrived %v", got)
	}
}

func TestTargetThatIsAddedGetsWhatComesFromThenOn(t *testing.T) {
	from, to := newSide(t), newSide(t)
	one := bridge.Target{ID: "one", Open: to.publish("queue/one")}
	f, _ := feed(t, from, "queue/in", one)
	from.Send("queue/in", numbers(0, 5)...)
	await(t, "the first five", func() bool { return from.Held("queue/in") == 0 })
	f.Update([]bridge.Target{one, {ID: "two", Open: to.publish("queue/two")}})
	await(t, "the second target", func() bool { s := f.Status().Targets; return len(s) == 2 && s[1].Sink.Up })
	from.Send("queue/in", numbers(5, 10)...)
	await(t, "the rest", func() bool { return from.Held("queue/in") == 0 })
	checkCarried(t, to.PublishedTo("queue/one"), 10)
	if got := bodies(to.PublishedTo("queue/two")); !slices.Equal(got, []string{"5", "6", "7", "8", "9"}) {
		t.Errorf("the second target got %v", got)
	}
}

func TestTargetThatChangesLosesNothingOfWhatIsInFlight(t *testing.T) {
	from, old, next := newSide(t), newSide(t), newSide(t)
	old.Stall()
	f, _ := feed(t, from, "queue/in", bridge.Target{ID: "t", Version: "1", Open: old.publish("queue/out")})
	from.Send("queue/in", numbers(0, 10)...)
	await(t, "ten in flight", func() bool { return len(old.PublishedTo("queue/out")) == 10 })
	f.Update([]bridge.Target{{ID: "t", Version: "2", Open: next.publish("queue/out")}})
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	checkCarried(t, next.PublishedTo("queue/out"), 10)
}

func TestStuckTargetThatIsRemovedHoldsUpNobody(t *testing.T) {
	from, to, stuck := newSide(t), newSide(t), newSide(t)
	stuck.Stall()
	good := bridge.Target{ID: "good", Open: to.publish("queue/out")}
	f, _ := feed(t, from, "queue/in", good, bridge.Target{ID: "stuck", Open: stuck.publish("queue/out")})
	from.Send("queue/in", numbers(0, 2*window)...)
	await(t, "a full window", func() bool { return f.Status().Targets[1].InFlight == window })
	f.Update([]bridge.Target{good})
	await(t, "everything to be acknowledged", func() bool { return from.Held("queue/in") == 0 })
	checkCarried(t, to.PublishedTo("queue/out"), 2*window)
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	from, to := newSide(t), newSide(t)
	to.ConfirmAfter(30 * time.Millisecond)
	f, stop := feed(t, from, "queue/in", bridge.Target{ID: "t", Open: to.publish("queue/out")})
	from.Send("queue/in", numbers(0, window)...)
	await(t, "a full window", func() bool { return f.Status().Targets[0].InFlight > 0 })
	stop()
	if held, got := from.Held("queue/in"), len(to.PublishedTo("queue/out")); held+got != window {
		t.Errorf("%d arrived and %d are held, of %d: some are doubled or lost by a stop without any failure", got, held, window)
	}
}

func TestStopDoesNotWaitForASinkThatIsStuck(t *testing.T) {
	from, to := newSide(t), newSide(t)
	to.Stall()
	f := bridge.New(bridge.Config{Acks: true, Drain: 50 * time.Millisecond, Open: from.subscribe("queue/in", window)},
		[]bridge.Target{{ID: "t", Open: to.publish("queue/out")}})
	stop := background(t, f.Run)
	from.Send("queue/in", numbers(0, 5)...)
	await(t, "five in flight", func() bool { return f.Status().Targets[0].InFlight == 5 })
	start := time.Now()
	stop()
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("the stop took %s", d)
	}
	if from.Held("queue/in") != 5 {
		t.Error("a message was settled that the sink has not confirmed")
	}
}

func TestRemovedFeedLeavesNothingOnTheBroker(t *testing.T) {
	from, to := newSide(t), newSide(t)
	f := bridge.New(bridge.Config{Acks: true, Drain: time.Second, Open: from.subscribe("topic", window)},
		[]bridge.Target{{ID: "t", Open: to.publish("queue/out")}})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	await(t, "the source to open", func() bool { return f.Status().Source.Up })
	cancel(bridge.ErrRemoved)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	from.Send("topic", numbers(0, 1)...)
	if held := from.Held("topic"); held != 0 {
		t.Errorf("the broker keeps %d messages for a subscription that nobody will open again", held)
	}
}

// greedy delivers more than it was granted.
type greedy struct {
	transport.Subscription
	seq uint64
}

func (g *greedy) Receive(ctx context.Context) ([]transport.Delivery, error) {
	if g.seq > 10*window {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var ds []transport.Delivery
	for range 16 {
		g.seq++
		ds = append(ds, transport.Delivery{Seq: g.seq})
	}
	return ds, nil
}

func TestDriverThatIgnoresCreditIsCutOff(t *testing.T) {
	from, to := newSide(t), newSide(t)
	to.Stall()
	open := from.subscribe("queue/in", window)
	f := bridge.New(bridge.Config{
		Acks: true, Window: transport.Credit{Messages: window, Bytes: 1 << 20},
		Open: func(ctx context.Context) (transport.Subscription, error) {
			sub, err := open(ctx)
			return &greedy{Subscription: sub}, err
		},
	}, []bridge.Target{{ID: "t", Open: to.publish("queue/out")}})
	background(t, f.Run)
	await(t, "the reason to be visible", func() bool { return f.Status().Source.Reason == "the driver delivers more than there is credit for" })
	if s := f.Status().Targets[0]; s.InFlight > 2*window {
		t.Errorf("%d in flight", s.InFlight)
	}
}

func BenchmarkFeed(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch %d", batch), func(b *testing.B) {
			src := &endless{n: b.N, batch: batch, done: make(chan struct{})}
			f := bridge.New(bridge.Config{Acks: true, Open: func(context.Context) (transport.Subscription, error) { return src, nil }},
				[]bridge.Target{{ID: "t", Open: func(context.Context) (transport.Publisher, error) {
					return &swallow{out: transport.NewOutbox(512)}, nil
				}}})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { done <- f.Run(ctx) }()
			<-src.done
			b.StopTimer()
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// endless is a source of n messages.
type endless struct {
	transport.Subscription
	n, batch int
	seq      uint64
	settled  uint64
	credit   chan int64
	done     chan struct{}
	left     int64
}

func (e *endless) Grant(c transport.Credit) error {
	if e.credit == nil {
		e.credit = make(chan int64, 1024)
	}
	e.credit <- c.Messages
	return nil
}

func (e *endless) Receive(ctx context.Context) ([]transport.Delivery, error) {
	for e.left == 0 || e.seq == uint64(e.n) {
		select {
		case c := <-e.credit:
			e.left += c
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var ds []transport.Delivery
	for len(ds) < e.batch && e.left > 0 && e.seq < uint64(e.n) {
		e.seq++
		e.left--
		ds = append(ds, transport.Delivery{Seq: e.seq})
	}
	return ds, nil
}

func (e *endless) Settle(_ context.Context, ss []transport.Settlement) error {
	for _, s := range ss {
		e.settled = s.Last
	}
	if e.settled == uint64(e.n) {
		close(e.done)
	}
	return nil
}

func (e *endless) Close(context.Context) error { return nil }

// swallow confirms everything at once.
type swallow struct{ out *transport.Outbox }

func (s *swallow) Publish(ctx context.Context, ms []transport.Message) error {
	for range ms {
		n, err := s.out.Reserve(ctx)
		if err != nil {
			return err
		}
		s.out.Done(n, n, nil)
	}
	return nil
}

func (s *swallow) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return s.out.Confirms(ctx)
}
func (s *swallow) Close(context.Context) error { return nil }
