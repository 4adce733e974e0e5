package transporttest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// cases returns all cases, the plainest first.
func cases() []testCase {
	return slices.Concat(describeCases(), deliverCases(), settleCases(), publishCases(), contentCases(), lifeCases(), lossCases(), topologyCases())
}

func withoutAcks(g Target) string {
	if !g.Has.Acks {
		return "the source does not wait for acknowledgements"
	}
	return ""
}

func withoutConfirms(g Target) string {
	if !g.Has.Confirms {
		return "the sink does not confirm"
	}
	return ""
}

// unlessAny returns the first reason there is.
func unlessAny(fs ...func(Target) string) func(Target) string {
	return func(g Target) string {
		for _, f := range fs {
			if why := f(g); why != "" {
				return why
			}
		}
		return ""
	}
}

func deliverCases() []testCase {
	return []testCase{
		{name: "what is published arrives", run: arrives},
		{name: "no delivery before credit", run: noDeliveryBeforeCredit},
		{name: "never more unsettled than credit in messages", run: creditInMessages},
		{name: "never more unsettled than credit in bytes", run: creditInBytes},
		{name: "a message larger than the byte credit passes alone", run: oversizedPassesAlone},
		{name: "Receive returns what is there without waiting for more", run: receiveDoesNotWait},
		{name: "a cancelled Receive loses nothing", run: cancelledReceive},
		{name: "order is kept from publisher to subscription", run: orderIsKept},
		{name: "a subscription without credit does not hold another up", run: stalledSubscription},
	}
}

func arrives(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	l.publisher(sink).publishAll(message(1))
	ds := st.receive(1)
	s.inOrder(ds, 1, 1)
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "one message was published")
}

func noDeliveryBeforeCredit(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	l.publisher(sink).publishAll(messages(1, 3)...)
	st.nothing(s.quiet(), "no credit was granted")
	st.grant(3, 0)
	st.nothing(s.quiet(), "credit was granted for messages and not for bytes")
	st.grant(0, 1<<10)
	s.inOrder(st.receive(3), 1, 3)
}

func creditInMessages(s *scene) {
	src, sink := s.pair(transport.Credit{Messages: 7, Bytes: 1 << 20})
	l := s.connect()
	st := l.subscribe(src)
	st.grant(5, 1<<20)
	l.publisher(sink).publishAll(messages(1, 30)...)
	ds := st.receive(5)
	st.nothing(s.quiet(), "5 deliveries are out with credit for 5")
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "settling gives no credit back")
	st.grant(2, 0)
	more := st.receive(2)
	st.nothing(s.quiet(), "2 more were granted, and have come")
	st.settle(transport.Ack, more)
	for next := 8; next <= 30; next += len(more) {
		n := min(7, 30-next+1)
		st.grant(int64(n), 0)
		more = st.receive(n)
		s.inOrder(more, next, next+n-1)
		st.settle(transport.Ack, more)
	}
	s.inOrder(ds, 1, 5)
}

func creditInBytes(s *scene) {
	const size = 1000
	src, sink := s.pair(transport.Credit{Messages: 100, Bytes: 5 * size})
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 3*size+size/2)
	var msgs []transport.Message
	for i := range 10 {
		msgs = append(msgs, sized(byte(i), size))
	}
	l.publisher(sink).publishAll(msgs...)
	ds := st.receive(3)
	st.nothing(s.quiet(), "3 messages of 1000 bytes are out with credit for 3500 bytes")
	st.grant(0, size/2)
	ds = append(ds, st.receive(1)...)
	st.nothing(s.quiet(), "4 messages of 1000 bytes are out with credit for 4000 bytes")
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "settling gives no credit back, but for a message larger than what is left, and nothing is left")
	for range 6 {
		st.grant(0, size)
		more := st.receive(1)
		ds = append(ds, more...)
		st.settle(transport.Ack, more)
	}
	for i, d := range ds {
		if len(d.Body) != size || d.Body[0] != byte(i) {
			s.Fatalf("delivery %d is %s; want message %d", d.Seq, describe(d.Message), i)
		}
	}
}

func oversizedPassesAlone(s *scene) {
	src, sink := s.pair(transport.Credit{Messages: 100, Bytes: 1000})
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1000)
	l.publisher(sink).publishAll(sized(1, 100), sized(2, 5000), sized(3, 100))
	first := st.receive(1)
	st.nothing(s.quiet(), "a message of 5000 bytes is next with credit for 900, and another is unsettled")
	st.grant(0, 100)
	st.settle(transport.Ack, first)
	large := st.receive(1)
	if len(large[0].Body) != 5000 {
		s.Fatalf("delivery 2 has %d bytes; want 5000", len(large[0].Body))
	}
	st.nothing(s.quiet(), "a message larger than the credit is out, so nothing else may be")
	st.settle(transport.Ack, large)
	st.grant(0, 5000)
	if last := st.receive(1); len(last[0].Body) != 100 || last[0].Body[0] != 3 {
		s.Fatalf("delivery 3 is %s; want message 3", describe(last[0].Message))
	}
}

func receiveDoesNotWait(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(1000, 1<<20)
	pub := l.publisher(sink)
	for i := range 5 {
		pub.publishAll(message(i))
		start := time.Now()
		s.inOrder(st.receive(1), i, i)
		if took := time.Since(start); took > 3*time.Second {
			s.Fatalf("one message took %v while there was credit for many: Receive returns those that are there", took)
		}
	}
}

func cancelledReceive(s *scene) {
	const n = 300
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(n, 1<<20)

	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	if ds, err := st.Receive(ended); !errors.Is(err, context.Canceled) {
		s.Fatalf("Receive with a context that has ended: %d deliveries, error %v; want the error of the context", len(ds), err)
	}

	pub := l.publisher(sink)
	var all []transport.Delivery
	cancelled := 0
	for batch := range n / 10 {
		pub.publishAll(messages(10*batch+1, 10*batch+10)...)
		for try := 0; len(all) < 10*batch+10; try++ {
			// From no time at all to enough for any broker, so that the end falls into every moment of a delivery's way.
			ctx, cancel := context.WithTimeout(s.ctx, time.Duration(try%50)*50*time.Microsecond+time.Duration(try)*10*time.Microsecond)
			ds, err := st.Receive(ctx)
			cancel()
			switch {
			case err == nil:
				st.check(ds)
				st.settle(transport.Ack, ds)
				all = append(all, ds...)
			case s.ctx.Err() != nil:
				s.Fatalf("%d of %d deliveries after %d cancelled calls: the rest is lost", len(all), 10*batch+10, cancelled)
			case !errors.Is(err, context.DeadlineExceeded):
				s.Fatalf("receive: %v; want the error of the context", err)
			default:
				cancelled++
			}
		}
	}
	s.inOrder(all, 1, n)
}

func orderIsKept(s *scene) {
	const n = 750
	src, sink := s.pair(transport.Credit{Messages: 100, Bytes: 1 << 20})
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	out := s.connect().publisher(sink)
	done := s.apart(func() {
		for first := 1; first <= n; first += 250 {
			out.publishAll(messages(first, first+249)...)
		}
	})
	for next := 1; next <= n; {
		size := min(1+next%16, n-next+1)
		ds := st.receive(size)
		s.inOrder(ds, next, next+size-1)
		st.settle(transport.Ack, ds)
		var bytes int64
		for _, d := range ds {
			bytes += int64(len(d.Body))
		}
		st.grant(int64(size), bytes)
		next += size
	}
	done()
	st.nothing(s.quiet(), "everything that was published has come")
}

func stalledSubscription(s *scene) {
	stalled, stalledSink := s.pair(transport.Credit{Messages: 10, Bytes: 1 << 20})
	flowing, flowingSink := s.pair(transport.Credit{Messages: 200, Bytes: 1 << 20})
	l := s.connect()
	first, second := l.subscribe(stalled), l.subscribe(flowing)
	second.grant(200, 1<<20)
	// Large enough to fill what there are of buffers between a broker and here, if nobody reads.
	body := make([]byte, 8<<10)
	var msgs []transport.Message
	for range 200 {
		msgs = append(msgs, transport.Message{Body: body, Durable: true})
	}
	out := s.connect()
	out.publisher(stalledSink).publishAll(msgs...)
	out.publisher(flowingSink).publishAll(messages(1, 200)...)
	s.inOrder(second.acknowledge(200), 1, 200)
	first.grant(1, 1<<20)
	first.receive(1)
}
