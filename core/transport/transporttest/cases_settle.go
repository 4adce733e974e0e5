package transporttest

import (
	"math"
	"slices"

	"github.com/flogate/flogate/core/transport"
)

func settleCases() []testCase {
	return []testCase{
		{name: "nothing is acknowledged before Settle", unless: withoutAcks, run: noAckBeforeSettle},
		{name: "nothing is acknowledged before Settle when the connection is lost", needs: []string{"Cut"}, unless: withoutAcks, run: noAckBeforeSettleCut},
		{name: "an acknowledged delivery does not come again", unless: withoutAcks, run: ackIsFinal},
		{name: "a released delivery comes again", unless: withoutAcks, run: releasedComesAgain},
		{name: "a rejected delivery does not come again", unless: withoutAcks, run: rejectIsFinal},
		{name: "settlements come in any order and in ranges", run: settleInAnyOrder},
		{name: "a wrong settlement takes nothing else down", run: wrongSettlement},
	}
}

// again closes the connection, opens another of the same name, and subscribes to the source once more.
func (s *scene) again(l *link, src transport.Source) (*link, *stream) {
	l.close()
	l = s.connectAs(l.name)
	return l, l.subscribe(src)
}

// marked fails the case when deliveries that were out before do not say so, where the broker can tell.
func (s *scene) marked(ds, before []transport.Delivery) {
	for i, d := range ds {
		if s.target.Carries&FieldRedelivered != 0 && !d.Redelivered {
			s.Errorf("delivery %d has come before and is not marked as redelivered", d.Seq)
		}
		if s.target.Carries&FieldAttempt != 0 && d.Attempt < 2 {
			s.Errorf("delivery %d has come before and counts %d attempts", d.Seq, d.Attempt)
		}
		if s.target.Carries&FieldSourceID != 0 && (d.SourceID == "" || d.SourceID != before[i].SourceID) {
			s.Errorf("delivery %d has the source id %q; before it was %q", d.Seq, d.SourceID, before[i].SourceID)
		}
	}
}

func noAckBeforeSettle(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 10)...)
	before := st.receive(10)
	s.inOrder(before, 1, 10)
	for _, d := range before {
		if s.target.Carries&FieldRedelivered != 0 && d.Redelivered {
			s.Errorf("delivery %d has never come before and is marked as redelivered", d.Seq)
		}
	}
	_, st = s.again(l, src)
	st.grant(100, 1<<20)
	ds := st.receive(10)
	s.inOrder(ds, 1, 10)
	s.marked(ds, before)
	st.settle(transport.Ack, ds)
}

func noAckBeforeSettleCut(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 20)...)
	s.inOrder(st.receive(20), 1, 20)
	s.target.Cut(s)
	_ = l.ended(noticed)
	l.close()
	l = s.connectAs(l.name)
	st = l.subscribe(src)
	st.grant(100, 1<<20)
	ds := st.receive(20)
	s.inOrder(ds, 1, 20)
	st.settle(transport.Ack, ds)
}

func ackIsFinal(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 20)...)
	ds := st.receive(20)
	st.settle(transport.Ack, ds[:10])
	st.settle(transport.Ack, ds[10:15])
	l, st = s.again(l, src)
	st.grant(100, 1<<20)
	ds = st.receive(5)
	s.inOrder(ds, 16, 20)
	st.nothing(s.quiet(), "messages 1 to 15 are acknowledged, and the connection was closed in peace after that")
	st.settle(transport.Ack, ds)
	_, st = s.again(l, src)
	st.grant(100, 1<<20)
	st.nothing(s.quiet(), "everything is acknowledged")
}

func releasedComesAgain(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 5)...)
	before := st.receive(5)
	st.settle(transport.Ack, before[:2])
	st.settle(transport.Release, before[2:4])
	st.settle(transport.Ack, before[4:])
	if !s.target.Has.ReleaseAtOnce {
		_, st = s.again(l, src)
		st.grant(100, 1<<20)
	}
	ds := st.receive(2)
	ns := s.numbers(ds)
	slices.Sort(ns)
	if !slices.Equal(ns, []int{3, 4}) {
		s.Fatalf("messages %v have come; want the released, 3 and 4", ns)
	}
	if s.numbers(ds)[0] == 3 {
		s.marked(ds, before[2:4])
	}
	st.settle(transport.Ack, ds)
	st.nothing(s.quiet(), "everything is acknowledged")
}

func rejectIsFinal(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 5)...)
	ds := st.receive(5)
	st.settle(transport.Ack, ds[:2])
	st.settle(transport.Reject, ds[2:4])
	st.settle(transport.Ack, ds[4:])
	st.nothing(s.quiet(), "everything is settled for good")
	_, st = s.again(l, src)
	st.grant(100, 1<<20)
	st.nothing(s.quiet(), "everything is settled for good")
}

func settleInAnyOrder(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 20)...)
	st.receive(20)
	for _, set := range [][]transport.Settlement{
		{{First: 16, Last: 20, Outcome: transport.Ack}, {First: 9, Last: 12, Outcome: transport.Ack}},
		{{First: 1, Last: 1, Outcome: transport.Ack}, {First: 3, Last: 8, Outcome: transport.Ack}, {First: 2, Last: 2, Outcome: transport.Reject}},
		{{First: 13, Last: 15, Outcome: transport.Ack}},
	} {
		if err := st.Settle(s.ctx, set); err != nil {
			s.Fatalf("settle %v: %v", set, err)
		}
	}
	if !s.target.Has.Acks {
		return
	}
	_, st = s.again(l, src)
	st.grant(100, 1<<20)
	st.nothing(s.quiet(), "everything is settled for good")
}

func wrongSettlement(s *scene) {
	src, sink := s.pair(plenty)
	other, otherSink := s.pair(plenty)
	l := s.connect()
	st, bystander := l.subscribe(src), l.subscribe(other)
	st.grant(100, 1<<20)
	bystander.grant(100, 1<<20)
	l.publisher(sink).publishAll(messages(1, 3)...)
	st.receive(3)
	for _, wrong := range []transport.Settlement{
		{First: 0, Last: 0, Outcome: transport.Ack},
		{First: 3, Last: 2, Outcome: transport.Ack},
		{First: 4, Last: 4, Outcome: transport.Ack},
		{First: 1, Last: math.MaxUint64, Outcome: transport.Ack},
		{First: 1, Last: 1, Outcome: 0},
		{First: 1, Last: 1, Outcome: 200},
	} {
		// It may be answered with an error, or with the end of the subscription. Whether there is one cannot be told: it
		// may come later than the answer.
		_ = st.Settle(s.ctx, []transport.Settlement{wrong})
	}
	l.publisher(otherSink).publishAll(messages(1, 3)...)
	s.inOrder(bystander.receive(3), 1, 3)
}
