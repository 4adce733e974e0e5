package transporttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func withoutDurable(g Target) string {
	if !g.Has.Durable {
		return "the broker keeps nothing for a subscription that is closed"
	}
	return ""
}

func lifeCases() []testCase {
	return []testCase{
		{name: "a closed subscription goes on where it stopped", unless: unlessAny(withoutAcks, withoutDurable), run: closedGoesOn},
		{name: "a closed subscription is closed and its connection goes on", run: closedSubscription},
		{name: "Remove removes what the broker keeps", unless: withoutDurable, run: removeRemoves},
		{name: "closing a connection ends everything on it", run: closeEndsAll},
		{name: "closing with everything in flight leaves nothing", run: closeInFlight},
		{name: "the end of the context of Connect does not end the connection", run: connectContext},
		{name: "a cancelled Connect leaves nothing", run: cancelledConnect},
		{name: "two connections do not disturb one another", run: twoConnections},
		{name: "everything may be used concurrently", run: concurrentUse},
	}
}

func closedGoesOn(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(4, 1<<20)
	pub := s.connect().publisher(sink)
	pub.publishAll(messages(1, 6)...)
	ds := st.receive(4)
	st.settle(transport.Ack, ds[:2])
	st.close()
	pub.publishAll(messages(7, 9)...)
	st = l.subscribe(src)
	st.grant(100, 1<<20)
	ds = st.receive(7)
	s.inOrder(ds, 3, 9)
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "everything is acknowledged")
}

func closedSubscription(s *scene) {
	src, sink := s.pair(plenty)
	other, otherSink := s.pair(plenty)
	l := s.connect()
	st, bystander := l.subscribe(src), l.subscribe(other)
	st.grant(10, 1<<20)
	bystander.grant(10, 1<<20)
	l.publisher(sink).publishAll(message(1))
	st.receive(1)
	waiting := make(chan error, 1)
	done := s.apart(func() {
		_, err := st.Receive(s.ctx)
		waiting <- err
	})
	st.close()
	done()
	if err := <-waiting; !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Receive that waited: %v; want an error that is ErrClosed", err)
	}
	if _, err := st.Receive(s.ctx); !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Receive after Close: %v; want an error that is ErrClosed", err)
	}
	if err := st.Grant(transport.Credit{Messages: 1, Bytes: 1}); err != nil && !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Grant after Close: %v; want nil or an error that is ErrClosed", err)
	}
	if err := st.Settle(s.ctx, []transport.Settlement{{First: 1, Last: 1, Outcome: transport.Ack}}); err != nil && !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Settle after Close: %v; want nil or an error that is ErrClosed", err)
	}
	if err := st.Close(s.ctx); err != nil && !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Close again: %v", err)
	}
	l.publisher(otherSink).publishAll(message(1))
	s.inOrder(bystander.receive(1), 1, 1)
}

func removeRemoves(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.close()
	st = l.subscribe(src)
	if err := st.Remove(s.ctx); err != nil {
		s.Fatalf("remove: %v", err)
	}
	if _, err := st.Receive(s.ctx); !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Receive after Remove: %v; want an error that is ErrClosed", err)
	}
	if !s.target.Has.RemoveForgets {
		return
	}
	l.publisher(sink).publish(messages(1, 3)...)
	st = l.subscribe(src)
	st.grant(10, 1<<20)
	st.nothing(s.quiet(), "the messages were published when there was no subscription any more")
}

func closeEndsAll(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	pub := l.publisher(sink)
	pub.publishAll(message(1))
	st.receive(1)

	var wg sync.WaitGroup
	errs := make([]error, 3)
	wg.Go(func() { _, errs[0] = st.Receive(s.ctx) })
	wg.Go(func() { _, errs[1] = pub.Confirms(s.ctx) })
	wg.Go(func() {
		for errs[2] == nil {
			_, errs[2] = l.Next(s.ctx)
		}
	})
	l.close()
	wg.Wait()
	for i, name := range []string{"Receive", "Confirms", "Next"} {
		if !errors.Is(errs[i], transport.ErrClosed) {
			s.Errorf("%s that waited: %v; want an error that is ErrClosed", name, errs[i])
		}
	}

	closed := func(name string, err error) {
		if !errors.Is(err, transport.ErrClosed) {
			s.Errorf("%s after Close: %v; want an error that is ErrClosed", name, err)
		}
	}
	_, err := l.Subscribe(s.ctx, src)
	closed("Subscribe", err)
	_, err = l.Publish(s.ctx, sink)
	closed("Publish of the connection", err)
	_, err = l.Next(s.ctx)
	closed("Next", err)
	_, err = st.Receive(s.ctx)
	closed("Receive", err)
	closed("Publish", pub.Publish(s.ctx, messages(2, 2)))
	_, err = pub.Confirms(s.ctx)
	closed("Confirms", err)
	for _, end := range []struct {
		name string
		err  error
	}{
		{"Settle", st.Settle(s.ctx, []transport.Settlement{{First: 1, Last: 1, Outcome: transport.Ack}})},
		{"Close of the subscription", st.Close(s.ctx)},
		{"Close of the publisher", pub.Close(s.ctx)},
		{"Close of the connection", l.Close(s.ctx)},
	} {
		if end.err != nil && !errors.Is(end.err, transport.ErrClosed) {
			s.Errorf("%s after Close: %v; want nil or an error that is ErrClosed", end.name, end.err)
		}
	}
	_ = l.Info() // does not panic
}

func closeInFlight(s *scene) {
	src, sink := s.pair(transport.Credit{Messages: 50, Bytes: 1 << 20})
	name := s.name("conn")
	for range 5 {
		l := s.connectAs(name)
		st := l.subscribe(src)
		st.grant(50, 1<<20)
		pub := l.publisher(sink)
		var wg sync.WaitGroup
		wg.Go(func() {
			for pub.Publish(s.ctx, messages(1, 50)) == nil {
			}
		})
		wg.Go(func() {
			for {
				if _, err := pub.Confirms(s.ctx); err != nil {
					return
				}
			}
		})
		received := make(chan struct{})
		wg.Go(func() {
			ds, err := st.Receive(s.ctx)
			close(received)
			for err == nil {
				_ = st.Settle(s.ctx, ranges(transport.Ack, ds))
				_ = st.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: 1 << 10})
				ds, err = st.Receive(s.ctx)
			}
		})
		select {
		case <-received:
		case <-s.ctx.Done():
			s.Error("nothing was received")
		}
		l.close()
		wg.Wait()
	}
	// What was left over is taken away, or it would trouble a broker that keeps it.
	st := s.connectAs(name).subscribe(src)
	_ = st.Remove(s.ctx)
}

func connectContext(s *scene) {
	src, sink := s.pair(plenty)
	ctx, cancel := context.WithCancel(s.ctx)
	conn, err := s.driver.Connect(ctx, transport.ConnectRequest{Name: s.name("conn"), Config: s.target.Config(s)})
	if err != nil {
		s.Fatalf("connect: %v", err)
	}
	l := &link{s: s, Conn: conn}
	s.Cleanup(l.close)
	sub, err := l.Subscribe(ctx, s.dress(src, plenty))
	if err != nil {
		s.Fatalf("subscribe: %v", err)
	}
	st := &stream{s: s, Subscription: sub}
	out, err := l.Publish(ctx, sink)
	if err != nil {
		s.Fatalf("publish: %v", err)
	}
	pub := &outlet{s: s, Publisher: out, refused: map[uint64]error{}}
	cancel()
	time.Sleep(s.quiet() / 3) // for what would end to end
	st.grant(10, 1<<20)
	pub.publishAll(message(1))
	st.settle(transport.Ack, st.receive(1))
	_ = sub.Remove(s.ctx)
}

func cancelledConnect(s *scene) {
	for i := range 20 {
		ctx, cancel := context.WithTimeout(s.ctx, time.Duration(i*i)*20*time.Microsecond)
		start := time.Now()
		conn, err := s.driver.Connect(ctx, transport.ConnectRequest{Name: s.name("conn"), Config: s.target.Config(s)})
		cancel()
		if took := time.Since(start); took > 3*time.Second {
			s.Fatalf("Connect returned %v after its context had ended", took)
		}
		if err == nil {
			(&link{s: s, Conn: conn}).close()
		} else if transport.IsPermanent(err) {
			s.Errorf("a cancelled Connect is Permanent: %v", err)
		}
	}
}

func twoConnections(s *scene) {
	src, sink := s.pair(plenty)
	first, second := s.connect(), s.connect()
	st := second.subscribe(src)
	st.grant(10, 1<<20)
	pub := second.publisher(sink)
	first.close()
	pub.publishAll(message(1))
	s.inOrder(st.receive(1), 1, 1)
}

func concurrentUse(s *scene) {
	const streams, n = 4, 200
	l := s.connect()
	var waits []func()
	for i := range streams {
		src, sink := s.pair(transport.Credit{Messages: 20, Bytes: 1 << 20})
		waits = append(waits, s.apart(func() {
			st := l.subscribe(src)
			st.grant(20, 1<<20)
			done := s.apart(func() {
				pub := l.publisher(sink)
				for first := 1; first <= n; first += 20 {
					pub.publishAll(numbered(i, first, first+19)...)
				}
			})
			// Settle and Grant by another goroutine than Receive.
			var wg sync.WaitGroup
			defer wg.Wait()
			for next := 1; next <= n; next++ {
				d := st.receive(1)
				if want := fmt.Sprintf("%d/%d", i, next); string(d[0].Body) != want {
					s.Fatalf("delivery %d of subscription %d is %.40q; want %q", next, i, d[0].Body, want)
				}
				st.granted.Messages++
				wg.Go(func() {
					if err := st.Settle(s.ctx, ranges(transport.Ack, d)); err != nil {
						s.Errorf("settle: %v", err)
					}
					if err := st.Grant(transport.Credit{Messages: 1, Bytes: int64(len(d[0].Body))}); err != nil {
						s.Errorf("grant: %v", err)
					}
				})
				_ = l.Info()
			}
			done()
		}))
	}
	for _, wait := range waits {
		wait()
	}
}

func numbered(stream, first, last int) []transport.Message {
	msgs := messages(first, last)
	for i := range msgs {
		msgs[i].Body = slices.Concat([]byte(strconv.Itoa(stream)+"/"), msgs[i].Body)
	}
	return msgs
}
