package network_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

func TestEdgeThatIsPutBackWhileItDrainsFlowsAgain(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	s.q.Stall()
	s.send("a", 0, 3)
	for s.edge("a.out -> b.in").InFlight != 3 {
		time.Sleep(time.Millisecond)
	}
	s.apply("c(x) OUT -> IN d(x)") // a -> b is gone: its feed drains, for 2 s at most
	s.await("c.out -> d.in", network.Flowing, "")
	s.apply("a(x) OUT -> IN b(x)\nc(x) OUT -> IN d(x)") // the operator puts it back
	s.q.Resume()
	s.send("a", 3, 6)
	s.await("a.out -> b.in", network.Flowing, "")
	s.arrived("b", 6)
}

func TestBrokerThatIsChangedBackWhileItClosesConnectsAgain(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	for range 20 {
		s.version = "2"
		s.apply("a(x) OUT -> IN b(x)")
		time.Sleep(300 * time.Microsecond)
		s.version = "1"
		s.apply("a(x) OUT -> IN b(x)")
		deadline := time.Now().Add(20 * time.Second)
		for s.edge("a.out -> b.in").State != network.Flowing {
			if time.Now().After(deadline) {
				e := s.edge("a.out -> b.in")
				t.Fatalf("%s (%s), brokers %+v", e.State, e.Reason, s.net.Status().Brokers)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestInitialPacketIsNotRepeated(t *testing.T) {
	s := newSite(t)
	s.apply("'hello' -> IN b(x)")
	s.arrived("b", 1)
	time.Sleep(1500 * time.Millisecond) // a second is how often one is tried that was not sent
	if n := len(s.q.PublishedTo("queue/b.in")); n != 1 {
		t.Fatalf("the initial packet was sent %d times", n)
	}
}

// A typo in a participant's name must not cost what the broker keeps.
func TestEdgeThatIsPendingForAWhileKeepsItsBacklog(t *testing.T) {
	s := newSite(t)
	in := func(missing bool) route.Input {
		g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN b(x)"))
		if err != nil {
			t.Fatal(err)
		}
		tr := transport.Traits{Acks: true, Confirms: true}
		ps := map[string]route.Participant{
			"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "topic/x", Traits: tr}}},
			"b": {Inports: map[string]route.Port{"in": {Broker: "q", Address: "queue/b.in", Traits: tr}}},
		}
		if missing {
			delete(ps, "b")
		}
		return route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: ps}
	}
	apply := func(missing bool) {
		s.net.Apply(network.Wanted{Plan: route.Make(in(missing)), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})
	}
	apply(false)
	s.await("a.out -> b.in", network.Flowing, "")
	// the sink's broker is away: a backlog grows at the source
	s.q.RefuseConnections(errors.New("down"))
	s.q.KillConnections("down")
	s.await("a.out -> b.in", network.Broken, "")
	for i := range 2000 {
		s.m.Send("topic/x", transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true})
	}
	apply(true) // somebody misspells b: the edge is pending, the site valid
	s.await("a.out -> b.in", network.Pending, "")
	s.unsubscribed("topic/x")
	apply(false)
	s.q.RefuseConnections(nil)
	s.await("a.out -> b.in", network.Flowing, "")
	deadline := time.Now().Add(5 * time.Second)
	for len(s.q.PublishedTo("queue/b.in")) < 2000 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if n := len(s.q.PublishedTo("queue/b.in")); n < 2000 {
		t.Fatalf("%d of 2000 messages arrived after the edge was pending for a while", n)
	}
}

func TestBrokerOutlivesItsDrainingFeeds(t *testing.T) {
	s := newSite(t)
	g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN b(x)"))
	if err != nil {
		t.Fatal(err)
	}
	tr := transport.Traits{Acks: true, Confirms: true}
	in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{
		"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "topic/x", Traits: tr}}},
		"b": {Inports: map[string]route.Port{"in": {Broker: "q", Address: "queue/b.in", Traits: tr}}},
	}}
	s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})
	s.await("a.out -> b.in", network.Flowing, "")
	s.q.ConfirmAfter(200 * time.Millisecond)
	for i := range 5 {
		s.m.Send("topic/x", transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true})
	}
	for s.edge("a.out -> b.in").InFlight != 5 {
		time.Sleep(time.Millisecond)
	}
	s.net.Apply(network.Wanted{Brokers: []network.Broker{s.broker("q", s.q)}}) // edge and broker m go in one reload
	s.unsubscribed("topic/x")
	s.m.Send("topic/x", transport.Message{Body: []byte("later"), Durable: true})
	if n := s.m.Held("topic/x"); n > 0 {
		t.Fatalf("the source's broker still keeps a subscription for the edge that is gone, with %d messages and growing", n)
	}
}

// unsubscribed waits until nobody subscribes to an address: the feed from it has ended.
func (s *site) unsubscribed(address string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); s.m.Subscribers(address) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("somebody subscribes to %s still", address)
		}
	}
}

func TestEdgeThatIsHeldUpByItsSiblingSaysSo(t *testing.T) {
	s := newSite(t)
	g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN b(x)\na OUT -> IN c(x)"))
	if err != nil {
		t.Fatal(err)
	}
	tr := transport.Traits{Acks: true, Confirms: true}
	in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{
		"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "queue/a.out", Traits: tr}}},
		"b": {Inports: map[string]route.Port{"in": {Broker: "m", Address: "queue/b.in", Traits: tr}}},
		"c": {Inports: map[string]route.Port{"in": {Broker: "q", Address: "queue/c.in", Traits: tr}}},
	}}
	s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})
	s.await("a.out -> b.in", network.Flowing, "")
	s.await("a.out -> c.in", network.Flowing, "")
	s.q.Stall()
	s.send("a", 0, 2000)
	s.await("a.out -> c.in", network.Blocked, "")
	s.await("a.out -> b.in", network.Blocked, "held up by a.out -> c.in")
	s.q.Resume()
}

func TestTroubleOfWhatServesABrokerExplainsMoreThanTheLostConnection(t *testing.T) {
	s := newSite(t)
	trouble := func() string { return "plugin memory is waiting: killed" }
	g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN b(x)"))
	if err != nil {
		t.Fatal(err)
	}
	tr := transport.Traits{Acks: true, Confirms: true}
	in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{
		"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "queue/a.out", Traits: tr}}},
		"b": {Inports: map[string]route.Port{"in": {Broker: "q", Address: "queue/b.in", Traits: tr}}},
	}}
	q := s.broker("q", s.q)
	q.Trouble = trouble
	s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), q}})
	s.await("a.out -> b.in", network.Flowing, "") // connected: what is wrong elsewhere does not matter
	s.q.RefuseConnections(errors.New("EOF"))
	s.q.KillConnections("EOF")
	s.await("a.out -> b.in", network.Broken, "plugin memory is waiting: killed")
}
