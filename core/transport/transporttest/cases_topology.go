package transporttest

import "github.com/flogate/flogate/core/transport"

func topologyCases() []testCase {
	return []testCase{
		{name: "a place is declared once and not changed", needs: []string{"Place"}, run: declareOnce},
		{name: "the broker carries what is bound until it is unbound", needs: []string{"Place"}, run: bindAndUnbind},
	}
}

func (s *scene) topology(l *link) transport.Topology {
	t, ok := l.Conn.(transport.Topology)
	if !ok {
		s.Fatal("the connection is no transport.Topology, and the target has Place")
	}
	return t
}

func (s *scene) declare(t transport.Topology, places ...transport.Place) {
	for _, p := range places {
		if err := t.Declare(s.ctx, p); err != nil {
			s.Fatalf("declare %q: %v", p.Address, err)
		}
	}
}

func declareOnce(s *scene) {
	queue, src, sink := s.target.Place(s, transport.Queue)
	dead, deadSrc, _ := s.target.Place(s, transport.Queue)
	l := s.connect()
	t := s.topology(l)
	queue.DeadLetter = dead.Address
	s.declare(t, dead, queue, queue)

	other := queue
	other.DeadLetter = ""
	if err := t.Declare(s.ctx, other); !transport.IsPermanent(err) {
		s.Errorf("declare the queue with another dead letter: %v; want a Permanent error", err)
	}
	if err := t.Declare(s.ctx, transport.Place{Kind: 200, Address: queue.Address}); !transport.IsPermanent(err) {
		s.Errorf("declare a place of no kind: %v; want a Permanent error", err)
	}

	// Nothing was changed, and the connection has come to no harm.
	st, deadStream := l.subscribe(s.dress(src, plenty)), l.subscribe(s.dress(deadSrc, plenty))
	st.grant(10, 1<<20)
	deadStream.grant(10, 1<<20)
	l.publisher(sink).publishAll(messages(1, 2)...)
	ds := st.receive(2)
	s.inOrder(ds, 1, 2)
	st.settle(transport.Ack, ds[:1])
	st.settle(transport.Reject, ds[1:])
	rejected := deadStream.receive(1)
	s.inOrder(rejected, 2, 2)
	deadStream.settle(transport.Ack, rejected)
}

func bindAndUnbind(s *scene) {
	queue, src, _ := s.target.Place(s, transport.Queue)
	fanout, _, sink := s.target.Place(s, transport.Fanout)
	l := s.connect()
	t := s.topology(l)
	s.declare(t, queue, fanout)
	b := transport.Binding{From: fanout, To: queue}
	if err := t.Unbind(s.ctx, b); err != nil {
		s.Errorf("unbind what was not bound: %v", err)
	}
	for range 2 {
		if err := t.Bind(s.ctx, b); err != nil {
			s.Fatalf("bind: %v", err)
		}
	}
	st := l.subscribe(s.dress(src, plenty))
	st.grant(10, 1<<20)
	l.publisher(sink).publishAll(messages(1, 2)...)
	ds := st.receive(2)
	s.inOrder(ds, 1, 2)
	st.settle(transport.Ack, ds)
	for range 2 {
		if err := t.Unbind(s.ctx, b); err != nil {
			s.Errorf("unbind: %v", err)
		}
	}
	l.publisher(sink).publish(message(3)) // a broker may refuse it now
	st.nothing(s.quiet(), "the binding was taken back")

	nowhere, _, _ := s.target.Place(s, transport.Queue)
	if err := t.Bind(s.ctx, transport.Binding{From: fanout, To: nowhere}); !transport.IsPermanent(err) {
		s.Errorf("bind to a queue that does not exist: %v; want a Permanent error", err)
	}
	if err := t.Bind(s.ctx, b); err != nil {
		s.Errorf("bind after a mistake: %v", err)
	}
}
