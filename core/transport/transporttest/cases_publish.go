package transporttest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func publishCases() []testCase {
	return []testCase{
		{name: "confirms ascend without gaps while many messages are in flight", run: confirmsAscend},
		{name: "a confirmed message is with the broker", needs: []string{"Cut"}, unless: unlessAny(withoutConfirms, withoutAcks), run: confirmedIsThere},
		{name: "no confirm without the broker's word", needs: []string{"Blackhole"}, unless: withoutConfirms, run: noConfirmWithoutWord},
		{name: "a refused message is refused and the others pass", needs: []string{"Refused"}, run: refusedAndOthersPass},
		{name: "the largest message passes", run: largestPasses},
		{name: "a message that is too large is refused and takes nothing down", needs: []string{"TooLarge"}, run: tooLargeIsRefused},
		{name: "a blocked broker is back-pressure", needs: []string{"Block"}, run: blockedIsBackPressure},
		{name: "a cancelled Publish returns", needs: []string{"Block"}, run: cancelledPublish},
		{name: "what has the id of an earlier message is confirmed and dropped", unless: func(g Target) string {
			if !g.Has.Deduplicates {
				return "the sink does not deduplicate"
			}
			return ""
		}, run: deduplicates},
		{name: "a closed publisher is closed and its connection goes on", run: closedPublisher},
		{name: "the publisher keeps nothing of a message that is confirmed", run: keepsNothing},
	}
}

func confirmsAscend(s *scene) {
	const n = 800
	src, sink := s.pair(transport.Credit{Messages: n, Bytes: 1 << 24})
	l := s.connect()
	st := l.subscribe(src)
	st.grant(n, 1<<24)
	pub := l.publisher(sink)
	done := s.apart(func() {
		s.inOrder(st.acknowledge(n), 1, n)
	})
	// Single messages and large batches.
	for next := 1; next <= n; {
		size := min(1<<(next%9), n-next+1)
		pub.publishAll(messages(next, next+size-1)...)
		next += size
	}
	done()
	ctx, cancel := context.WithTimeout(s.ctx, s.quiet())
	defer cancel()
	if cs, err := pub.Confirms(ctx); !errors.Is(err, context.DeadlineExceeded) {
		s.Fatalf("Confirms returned %v, %v when there was news of every message before; want the error of the context", cs, err)
	}
}

func confirmedIsThere(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.close() // so that everything has to be kept by the broker, where it can
	if !s.target.Has.Durable {
		st = l.subscribe(src)
		st.grant(100_000, 1<<30)
	}
	out := s.connect()
	pub := out.publisher(sink)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	done := s.apart(func() {
		for i := 1; i <= 500; i++ {
			if err := pub.Publish(ctx, []transport.Message{message(i)}); err != nil {
				return
			}
		}
	})
	pub.sent = 1 << 62 // nobody knows
	if err := pub.await(s.ctx, 100); err != nil {
		s.Fatalf("confirms: %v", err)
	}
	s.target.Cut(s)
	var end error
	for end == nil {
		var cs []transport.Confirm
		if cs, end = pub.Confirms(s.ctx); end == nil {
			pub.check(cs)
		}
	}
	cancel()
	done()
	if !errors.Is(end, transport.ErrClosed) {
		s.Fatalf("confirms after the connection was cut: %v; want an error that is ErrClosed", end)
	}
	if !s.target.Has.Durable {
		return // what has come to the subscription is lost with its connection
	}
	_ = l.ended(noticed)
	l.close()
	st = s.connectAs(l.name).subscribe(src)
	st.grant(100_000, 1<<30)
	s.inOrder(st.acknowledge(int(pub.confirmed)), 1, int(pub.confirmed))
}

func noConfirmWithoutWord(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	l.subscribe(src)
	pub := l.publisher(sink)
	pub.publishAll(message(1))
	restore := s.target.Blackhole(s)
	defer restore()
	ctx, cancel := context.WithTimeout(s.ctx, noticed)
	defer cancel()
	done := s.apart(func() {
		// The error may come now or with the confirms.
		_ = pub.Publish(ctx, messages(2, 11))
	})
	pub.sent += 10
	if err := pub.await(ctx, 2); err == nil {
		s.Errorf("message 2 is confirmed (or refused: %v) while nothing reaches the broker", pub.refused[2])
	}
	cancel()
	done()
}

func refusedAndOthersPass(s *scene) {
	src, sink, good, bad := s.target.Refused(s)
	l := s.connect()
	st := l.subscribe(s.dress(src, plenty))
	st.grant(100, 1<<30)
	pub := l.publisher(sink)
	var msgs []transport.Message
	for i := 1; i <= 20; i++ {
		m := good
		if i%7 == 3 {
			m = bad
		}
		msgs = append(msgs, m)
	}
	pub.publish(msgs...)
	for i := uint64(1); i <= 20; i++ {
		switch err := pub.refused[i]; {
		case i%7 == 3 && err == nil:
			s.Errorf("message %d is confirmed; want it refused", i)
		case i%7 == 3 && err.Error() == "":
			s.Errorf("message %d is refused without a word", i)
		case i%7 != 3 && err != nil:
			s.Errorf("message %d is refused: %v; there is nothing wrong with it", i, err)
		}
	}
	ds := st.receive(17)
	for _, d := range ds {
		if string(d.Body) != string(good.Body) {
			s.Errorf("delivery %d is %s, which was refused", d.Seq, describe(d.Message))
		}
	}
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "3 of 20 messages were refused")
}

func largestPasses(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(3, 1<<30)
	pub := l.publisher(sink)
	size := s.target.maxBody()
	if limit := l.Info().MaxBody; limit > 0 && limit < int64(size) {
		s.Fatalf("the broker takes at most %d bytes; the target says %d", limit, size)
	}
	large := sized(7, size)
	for i := range large.Body {
		large.Body[i] = byte(i * 31 >> 3)
	}
	pub.publishAll(message(1), large, message(3))
	ds := st.receive(3)
	s.inOrder(ds[:1], 1, 1)
	if !slices.Equal(ds[1].Body, large.Body) {
		s.Errorf("a body of %d bytes arrived as %d bytes, or changed", size, len(ds[1].Body))
	}
	s.inOrder(ds[2:], 3, 3)
	st.settle(transport.Ack, ds)
}

func tooLargeIsRefused(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<30)
	pub := l.publisher(sink)
	pub.publish(message(1), sized(2, s.target.TooLarge), message(3))
	if len(pub.refused) != 1 || pub.refused[2] == nil {
		s.Fatalf("refused are %v; want message 2 alone, with its %d bytes", pub.refused, s.target.TooLarge)
	}
	ds := st.receive(2)
	if ns := s.numbers(ds); !slices.Equal(ns, []int{1, 3}) {
		s.Fatalf("messages %v have come; want 1 and 3", ns)
	}
	st.settle(transport.Ack, ds)
	clear(pub.refused)
	pub.publishAll(message(4))
	s.inOrder(st.receive(1), 4, 4)
}

func blockedIsBackPressure(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(1000, 1<<24)
	out := s.connect()
	pub := out.publisher(sink)
	pub.publishAll(message(1))
	unblock := s.target.Block(s)
	defer unblock()

	// Some brokers tell a connection that it is blocked only when it publishes.
	var all atomic.Bool
	done := s.apart(func() {
		pub.publishAll(messages(2, 200)...)
		all.Store(true)
	})
	condition := s.condition(out, true)
	if condition.Reason == "" {
		s.Log("the broker has given no reason for blocking")
	}
	time.Sleep(s.quiet())
	if all.Load() {
		s.Error("199 messages were published and confirmed by a broker that is blocked")
	}
	unblock()
	s.condition(out, false)
	done()
	s.inOrder(st.acknowledge(200), 1, 200)
}

// condition waits until the connection is blocked, or is not.
func (s *scene) condition(l *link, blocked bool) transport.Condition {
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := l.Next(ctx)
		if err != nil {
			s.Fatalf("waiting for a condition with Blocked = %t: %v", blocked, err)
		}
		if c.Blocked == blocked {
			return c
		}
	}
}

func cancelledPublish(s *scene) {
	_, sink := s.pair(plenty)
	out := s.connect()
	pub := out.publisher(sink)
	pub.publishAll(message(1))
	unblock := s.target.Block(s)
	defer unblock()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	start := time.Now()
	body := make([]byte, 64<<10)
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		err = pub.Publish(ctx, []transport.Message{{Body: body}})
	}
	switch {
	case err == nil:
		s.Errorf("Publish took 125 MiB for a broker that takes nothing: there is no bound")
	case !errors.Is(err, context.DeadlineExceeded):
		s.Errorf("publish: %v; want the error of the context", err)
	case time.Since(start) > 4*time.Second:
		s.Errorf("Publish returned %v after its context had ended", time.Since(start)-time.Second)
	}
}

func deduplicates(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	msgs := messages(1, 3)
	for i := range msgs {
		msgs[i].ID = s.name("id")
		msgs[i].SourceID = msgs[i].ID // a driver may go by either
	}
	l.publisher(sink).publishAll(msgs...)
	s.connectAs(l.name).publisher(sink).publishAll(msgs...)
	ds := st.receive(3)
	s.inOrder(ds, 1, 3)
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "the ids of the other three have been there before")
}

func closedPublisher(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	first, second := l.publisher(sink), l.publisher(sink)
	first.publishAll(message(1))
	waiting := make(chan error, 1)
	done := s.apart(func() {
		_, err := first.Confirms(s.ctx)
		waiting <- err
	})
	if err := first.Close(s.ctx); err != nil {
		s.Errorf("close the publisher: %v", err)
	}
	done()
	if err := <-waiting; !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Confirms that waited: %v; want an error that is ErrClosed", err)
	}
	if err := first.Publish(s.ctx, messages(9, 9)); !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Publish after Close: %v; want an error that is ErrClosed", err)
	}
	if err := first.Close(s.ctx); err != nil && !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Close again: %v", err)
	}
	second.publishAll(message(2))
	s.inOrder(st.receive(2), 1, 2)
}

func keepsNothing(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	pub := l.publisher(sink)
	msg := message(1)
	for i := 1; i <= 20; i++ {
		msg.Body = append(msg.Body[:0], message(i).Body...)
		pub.publishAll(msg)
	}
	st.grant(20, 1<<20)
	s.inOrder(st.receive(20), 1, 20)
}
