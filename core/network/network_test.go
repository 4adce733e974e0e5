package network_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a network with two brokers in memory, "m" and "q". Every node X of a graph has an inport "in" at queue/X.in on q,
// and an outport "out" at queue/X.out on m, unless it is in missing.
type site struct {
	t       *testing.T
	m, q    *transporttest.Memory
	net     *network.Network
	missing map[string]bool
	dead    bool
	version string
	stop    func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		t: t, m: transporttest.NewMemory(), q: transporttest.NewMemory(),
		net:     network.New(network.Config{Drain: 2 * time.Second}),
		missing: map[string]bool{},
		version: "1",
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.net.Run(ctx) }()
	s.stop = func() {
		if done == nil {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done = nil
	}
	t.Cleanup(func() {
		s.stop()
		if n := s.m.Connections() + s.q.Connections(); n != 0 {
			t.Errorf("%d connections are left open", n)
		}
	})
	return s
}

func (s *site) apply(fbp string) {
	s.t.Helper()
	g, err := graph.ParseFBP("test.fbp", []byte(fbp))
	if err != nil {
		s.t.Fatal(err)
	}
	in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{}}
	traits := transport.Traits{Acks: true, Confirms: true}
	for _, n := range g.Nodes {
		if s.missing[n.ID] {
			continue
		}
		in.Participants[n.ID] = route.Participant{
			Inports:  map[string]route.Port{"in": {Broker: "q", Address: "queue/" + n.ID + ".in", Traits: traits}},
			Outports: map[string]route.Port{"out": {Broker: "m", Address: "queue/" + n.ID + ".out", Traits: traits}},
		}
	}
	if s.dead {
		in.Settings = func(graph.Endpoint, graph.Endpoint) route.Settings {
			return route.Settings{DeadLetter: route.Place{Broker: "m", Address: "queue/dead"}}
		}
	}
	s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})
}

func (s *site) broker(id string, mem *transporttest.Memory) network.Broker {
	return network.Broker{
		ID: id, Version: s.version, Request: transport.ConnectRequest{Name: "test/" + id, Config: json.RawMessage(`{}`)},
		Driver: func(context.Context) (transport.Driver, error) { return mem.Driver(), nil },
	}
}

func (s *site) edge(id string) network.EdgeStatus {
	for _, e := range s.net.Status().Edges {
		if e.ID == id {
			return e
		}
	}
	return network.EdgeStatus{}
}

// await waits until an edge is in a state whose reason contains a text.
func (s *site) await(id string, state network.State, reason string) network.EdgeStatus {
	s.t.Helper()
	var e network.EdgeStatus
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if e = s.edge(id); e.State == state && strings.Contains(e.Reason, reason) {
			return e
		}
	}
	s.t.Fatalf("%s is %s (%s), not %s (%s)", id, e.State, e.Reason, state, reason)
	return e
}

func (s *site) send(node string, from, to int) {
	for i := from; i < to; i++ {
		s.m.Send("queue/"+node+".out", transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true})
	}
}

func (s *site) arrived(node string, n int) []string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	ms, err := s.q.AwaitPublished(ctx, "queue/"+node+".in", n)
	if err != nil {
		s.t.Fatalf("%d of %d messages came to %s: %v", len(ms), n, node, err)
	}
	var out []string
	for _, m := range ms {
		out = append(out, string(m.Body))
	}
	return out
}

func TestEdgeFlowsWhenItsEndsAreThere(t *testing.T) {
	s := newSite(t)
	s.missing["b"] = true
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Pending, "no participant b")
	s.missing["b"] = false
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	s.send("a", 0, 10)
	s.arrived("b", 10)
	e := s.await("a.out -> b.in", network.Flowing, "")
	if e.Since.IsZero() {
		t.Errorf("status %+v", e)
	}
}

func TestBrokerThatIsAwayBreaksItsEdgesAndNoOthers(t *testing.T) {
	s := newSite(t)
	s.q.RefuseConnections(errors.New("nobody listens"))
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Broken, "nobody listens")
	if got := s.m.Subscribers("queue/a.out"); got != 1 {
		t.Errorf("the source has %d subscribers", got)
	}
	s.send("a", 0, 3)
	s.q.RefuseConnections(nil)
	s.await("a.out -> b.in", network.Flowing, "")
	s.arrived("b", 3)
}

func TestAlarmBlocksTheEdge(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	s.q.Block("low on disk")
	s.await("a.out -> b.in", network.Blocked, "low on disk")
	s.q.Unblock()
	s.await("a.out -> b.in", network.Flowing, "")
}

func TestSinkThatDoesNotConfirmBlocksTheEdge(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	s.q.Stall()
	s.send("a", 0, 1)
	s.await("a.out -> b.in", network.Blocked, "q has not confirmed since")
	s.q.Resume()
	s.await("a.out -> b.in", network.Flowing, "")
}

func TestChangeTouchesOnlyWhatHasChanged(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)\nc(x) OUT -> IN d(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	s.await("c.out -> d.in", network.Flowing, "")
	lives := s.m.Lives() + s.q.Lives()
	since := s.edge("a.out -> b.in").Since
	s.send("a", 0, 5)
	s.arrived("b", 5)

	s.apply("a(x) OUT -> IN b(x)\na OUT -> IN d(x)") // c is gone, a has a second target
	s.await("a.out -> d.in", network.Flowing, "")
	s.send("a", 5, 10)
	s.arrived("b", 10)
	if got := strings.Join(s.arrived("d", 5), " "); got != "5 6 7 8 9" {
		t.Errorf("the edge that was added got %s", got)
	}
	for deadline := time.Now().Add(10 * time.Second); s.edge("a.out -> b.in").Messages != 10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the last confirms are missing")
		}
	}
	if got := s.edge("a.out -> b.in"); !got.Since.Equal(since) {
		t.Errorf("the edge that stayed is flowing since %s, was %s", got.Since, since)
	}
	if got := s.m.Lives() + s.q.Lives(); got != lives {
		t.Errorf("%d connections were made anew", got-lives)
	}
	for deadline := time.Now().Add(10 * time.Second); s.m.Subscribers("queue/c.out") != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the subscription of the edge that is gone is left")
		}
	}
}

func TestReplacedBrokerLosesNothing(t *testing.T) {
	s := newSite(t)
	s.apply("a(x) OUT -> IN b(x)")
	s.await("a.out -> b.in", network.Flowing, "")
	const n = 500
	go s.send("a", 0, n)
	for v := range 5 {
		s.version = strconv.Itoa(v + 2)
		s.apply("a(x) OUT -> IN b(x)")
		time.Sleep(20 * time.Millisecond) // let some messages pass between two replacements
	}
	deadline := time.Now().Add(20 * time.Second)
	for s.m.Held("queue/a.out") > 0 || len(s.q.PublishedTo("queue/b.in")) < n {
		if time.Now().After(deadline) {
			t.Fatal("not everything was acknowledged")
		}
		time.Sleep(time.Millisecond)
	}
	next := 0
	seen := map[string]bool{}
	for _, b := range s.arrived("b", n) {
		if seen[b] {
			continue
		}
		seen[b] = true
		if b != strconv.Itoa(next) {
			t.Fatalf("%s came where %d should have", b, next)
		}
		next++
	}
	if next != n {
		t.Errorf("%d of %d arrived", next, n)
	}
}

func TestRefusedMessagesGoToTheDeadLetter(t *testing.T) {
	s := newSite(t)
	s.dead = true
	s.q.Refuse("queue/b.in", errors.New("too large"))
	s.apply("a(x) OUT -> IN b(x)")
	s.send("a", 0, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.m.AwaitPublished(ctx, "queue/dead", 3); err != nil {
		t.Fatal(err)
	}
	for e := s.edge("a.out -> b.in"); e.DeadLetters != 3; e = s.edge("a.out -> b.in") {
		if ctx.Err() != nil {
			t.Fatalf("status %+v", e)
		}
	}
}

func TestInitialPacketWaitsForTheEdgesBehindIt(t *testing.T) {
	s := newSite(t)
	s.m.RefuseConnections(errors.New("not yet"))
	s.apply("'hello' -> IN a(x) OUT -> IN b(x)\nb OUT -> IN c(x)\n'hello' -> IN c")
	s.await("b.out -> c.in", network.Broken, "not yet")
	s.arrived("c", 1) // there is nothing behind it
	if n := len(s.q.PublishedTo("queue/a.in")); n != 0 {
		t.Error("the initial packet was sent when nobody listened to what comes of it")
	}
	s.m.RefuseConnections(nil)
	s.arrived("a", 1)
	s.await("a.out -> b.in", network.Flowing, "")
	s.await("b.out -> c.in", network.Flowing, "")
}

func TestInitialPacketDoesNotWaitForEver(t *testing.T) {
	s := newSite(t)
	s.missing["c"] = true
	s.m.RefuseConnections(errors.New("never"))
	s.apply("'hello' -> IN a(x) OUT -> IN b(x)\n'hello' -> IN d(x) OUT -> IN c(x)\nd OUT -> IN d")
	s.arrived("a", 1)
	s.arrived("d", 1)
}

func TestInitialPacketsAreSentOnce(t *testing.T) {
	s := newSite(t)
	s.q.RefuseConnections(errors.New("not yet"))
	s.apply("'hello' -> IN b(x)")
	s.q.RefuseConnections(nil)
	s.arrived("b", 1)
	s.apply("'hello' -> IN b(x)\na(x) OUT -> IN b")
	s.await("a.out -> b.in", network.Flowing, "")
	s.q.KillConnections("killed by the test")
	s.await("a.out -> b.in", network.Flowing, "")
	s.send("a", 0, 1)
	if got := strings.Join(s.arrived("b", 2), " "); got != `"hello" 0` {
		t.Errorf("arrived %s", got)
	}
}

// A driver that does not answer for a moment, or a participant whose ports are unknown for one, makes a packet wait; it was
// sent all the same. Only somebody who comes anew gets it again.
func TestInitialPacketIsSentOnceInALife(t *testing.T) {
	s := newSite(t)
	g, err := graph.ParseFBP("test.fbp", []byte("'hello' -> IN b(x)\na(x) OUT -> IN b"))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(b *route.Participant) {
		tr := transport.Traits{Acks: true, Confirms: true}
		in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{
			"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "queue/a.out", Traits: tr}}},
		}}
		if b != nil {
			in.Participants["b"] = *b
		}
		s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})
		state := network.Flowing
		if b == nil || b.Inports["in"].Problem != "" || b.Inports == nil {
			state = network.Pending
		}
		s.await("a.out -> b.in", state, "")
		if state == network.Pending {
			s.unsubscribed("queue/a.out") // it has been seen
		}
	}
	life := func(incarnation, problem string) *route.Participant {
		return &route.Participant{Incarnation: incarnation, Inports: map[string]route.Port{"in": {
			Broker: "q", Address: "queue/b.in", Problem: problem, Traits: transport.Traits{Acks: true, Confirms: true},
		}}}
	}
	well, asked, bare := life("1", ""), life("1", "q could not be asked"), &route.Participant{Incarnation: "1"}
	apply(well)
	s.arrived("b", 1)
	for _, b := range []*route.Participant{asked, well, bare, well} {
		apply(b)
	}
	s.send("a", 0, 1)
	if got := strings.Join(s.arrived("b", 2), " "); got != `"hello" 0` {
		t.Fatalf("arrived %s, and nobody has come", got)
	}
	apply(nil)
	apply(well)
	if got := strings.Join(s.arrived("b", 3), " "); got != `"hello" 0 "hello"` {
		t.Fatalf("arrived %s when the participant had gone and come", got)
	}
	apply(asked)
	apply(life("2", ""))
	if got := strings.Join(s.arrived("b", 4), " "); got != `"hello" 0 "hello" "hello"` {
		t.Fatalf("arrived %s when another life of the participant had begun", got)
	}
}
