package network_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

// hall is a network whose participants are named as their places: "m.a" has its outport at fanout/a and its inport at queue/a
// on the broker m. The broker can bind them by itself.
type hall struct {
	*site
	brokers  map[string]*transporttest.Memory
	settings map[string]route.Settings
	absent   map[string]bool
	log      *slog.Logger
}

func newHall(t *testing.T, bindings string, brokers ...string) *hall {
	t.Helper()
	h := &hall{site: &site{t: t, version: "1"}, brokers: map[string]*transporttest.Memory{}, settings: map[string]route.Settings{}, absent: map[string]bool{}}
	for _, id := range brokers {
		h.brokers[id] = transporttest.NewMemory()
	}
	h.run(bindings)
	t.Cleanup(func() { h.stop() })
	return h
}

// run runs another life of the network.
func (h *hall) run(bindings string) {
	h.net = network.New(network.Config{Drain: 2 * time.Second, Bindings: bindings, Log: h.log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.net.Run(ctx) }()
	h.stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func (h *hall) apply(fbp string) {
	h.t.Helper()
	g, err := graph.ParseFBP("test.fbp", []byte(fbp))
	if err != nil {
		h.t.Fatal(err)
	}
	in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{}}
	for _, n := range g.Nodes {
		broker, _, ok := strings.Cut(n.ID, "_")
		if !ok || h.absent[n.ID] {
			continue
		}
		in.Participants[n.ID] = route.Participant{
			Inports: map[string]route.Port{"in": {Broker: broker, Address: "queue/" + n.ID, Traits: transport.Traits{Confirms: true, Kind: transport.Queue}}},
			Outports: map[string]route.Port{"out": {Broker: broker, Address: "fanout/" + n.ID, Traits: transport.Traits{
				Acks: true, Kind: transport.Fanout,
			}}},
		}
	}
	in.Settings = func(from, to graph.Endpoint) route.Settings { return h.settings[from.String()+" "+to.String()] }
	var brokers []network.Broker
	for id, m := range h.brokers {
		brokers = append(brokers, h.broker(id, m))
	}
	h.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: brokers})
}

// declare makes the places of participants, as they do it.
func (h *hall) declare(names ...string) {
	h.t.Helper()
	for _, name := range names {
		broker, _, _ := strings.Cut(name, "_")
		h.with(broker, func(ctx context.Context, top transport.Topology) error {
			return errors.Join(
				top.Declare(ctx, transport.Place{Kind: transport.Queue, Address: "queue/" + name}),
				top.Declare(ctx, transport.Place{Kind: transport.Fanout, Address: "fanout/" + name}))
		})
	}
}

func (h *hall) with(broker string, f func(ctx context.Context, top transport.Topology) error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := h.brokers[broker].Driver().Connect(ctx, transport.ConnectRequest{Name: "participant", Config: json.RawMessage(`{}`)})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(f(ctx, conn.(transport.Topology)), conn.Close(ctx)); err != nil {
		h.t.Fatal(err)
	}
}

// say publishes at an outport.
func (h *hall) say(name string, from, to int) {
	broker, _, _ := strings.Cut(name, "_")
	for i := from; i < to; i++ {
		h.brokers[broker].Send("fanout/"+name, transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true})
	}
}

// held waits until an inport holds n messages, which nobody consumes.
func (h *hall) held(name string, n int) {
	h.t.Helper()
	broker, _, _ := strings.Cut(name, "_")
	for deadline := time.Now().Add(10 * time.Second); h.brokers[broker].Held("queue/"+name) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("%s holds %d messages, and should %d", name, h.brokers[broker].Held("queue/"+name), n)
		}
	}
}

// bodies are what was published to an inport by us.
func (h *hall) bodies(name string) []int {
	broker, _, _ := strings.Cut(name, "_")
	var out []int
	for _, m := range h.brokers[broker].PublishedTo("queue/" + name) {
		i, err := strconv.Atoi(string(m.Body))
		if err != nil {
			h.t.Fatal(err)
		}
		out = append(out, i)
	}
	return out
}

func (h *hall) eventually(what string, done func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain for %s; edges: %+v", what, h.net.Status().Edges)
		}
	}
}

const shared = "m_a(x) OUT -> IN rr(msgflo/RoundRobin)\nrr OUT -> IN n_b(x)\nrr OUT -> IN q_c(x)\nrr DEADLETTER -> IN q_d(x)"

func TestRoundRobinGivesEachMessageToOneSink(t *testing.T) {
	h := newHall(t, "", "m", "n", "q")
	h.declare("m_a", "n_b", "q_c", "q_d")
	h.apply(shared)
	for _, edge := range []string{"m_a.out -> rr.in", "rr.out -> n_b.in", "rr.out -> q_c.in", "rr.deadletter -> q_d.in"} {
		h.await(edge, network.Flowing, "")
	}
	h.say("m_a", 0, 200)
	h.eventually("all messages", func() bool { return len(h.bodies("n_b"))+len(h.bodies("q_c")) == 200 })
	b, c := h.bodies("n_b"), h.bodies("q_c")
	if !slices.IsSorted(b) || !slices.IsSorted(c) || len(b) < 20 || len(c) < 20 {
		t.Errorf("b got %v, c got %v", b, c)
	}
	h.eventually("the counts", func() bool {
		return h.edge("m_a.out -> rr.in").Messages == 200 &&
			h.edge("rr.out -> n_b.in").Messages+h.edge("rr.out -> q_c.in").Messages == 200 && h.brokers["m"].Held("fanout/m_a") == 0
	})
}

func TestRoundRobinWithOneSinkAwayLosesNothing(t *testing.T) {
	h := newHall(t, "", "m", "n", "q")
	h.declare("m_a", "n_b", "q_c", "q_d")
	h.apply(shared)
	h.await("rr.out -> n_b.in", network.Flowing, "")
	h.await("rr.out -> q_c.in", network.Flowing, "")
	h.say("m_a", 0, 100)
	h.brokers["n"].RefuseConnections(errors.New("nobody listens"))
	h.brokers["n"].KillConnections("killed")
	h.say("m_a", 100, 300)
	h.await("rr.out -> n_b.in", network.Broken, "nobody listens")
	h.await("m_a.out -> rr.in", network.Flowing, "")
	all := func() map[int]bool {
		got := map[int]bool{}
		for _, i := range append(h.bodies("n_b"), h.bodies("q_c")...) {
			got[i] = true
		}
		return got
	}
	h.eventually("all messages", func() bool { return len(all()) == 300 && h.edge("m_a.out -> rr.in").InFlight == 0 })
	// No sink is left: the source holds what comes.
	h.brokers["q"].RefuseConnections(errors.New("q is away"))
	h.brokers["q"].KillConnections("killed")
	h.await("m_a.out -> rr.in", network.Broken, "")
	h.say("m_a", 300, 350)
	h.brokers["n"].RefuseConnections(nil)
	h.await("m_a.out -> rr.in", network.Flowing, "")
	h.eventually("the rest", func() bool { return len(all()) == 350 })
}

func TestBlockedSinkGivesBackWhatItHolds(t *testing.T) {
	h := newHall(t, "", "m", "n", "q")
	h.declare("m_a", "n_b", "q_c", "q_d")
	h.apply(shared)
	h.await("rr.out -> n_b.in", network.Flowing, "")
	h.await("rr.out -> q_c.in", network.Flowing, "")
	h.brokers["n"].Stall()
	h.say("m_a", 0, 2000) // more than a window
	h.eventually("all messages at the sink that is well", func() bool {
		return h.edge("m_a.out -> rr.in").Messages == 2000 && len(h.bodies("q_c")) >= 1900
	})
}

func TestRefusedMessageOfARoundRobinGoesToItsDeadLetterOnceItIsThere(t *testing.T) {
	h := newHall(t, "", "m", "n", "q")
	h.declare("m_a", "n_b", "q_c", "q_d")
	h.brokers["n"].Refuse("queue/n_b", errors.New("too large"))
	h.brokers["q"].Refuse("queue/q_c", errors.New("too large"))
	h.absent["q_d"] = true
	h.apply(shared)
	h.await("rr.deadletter -> q_d.in", network.Pending, "no participant q_d")
	h.await("m_a.out -> rr.in", network.Flowing, "")
	h.say("m_a", 0, 1)
	h.await("m_a.out -> rr.in", network.Blocked, "dead letter not taken: no participant q_d")
	h.absent["q_d"] = false
	h.apply(shared)
	h.eventually("the dead letter", func() bool { return len(h.bodies("q_d")) > 0 })
	h.await("rr.deadletter -> q_d.in", network.Flowing, "")
	h.eventually("the count", func() bool {
		return h.edge("rr.deadletter -> q_d.in").Messages == 1 && h.brokers["m"].Held("fanout/m_a") == 0
	})
}

func TestPubSubRelayGivesEachMessageToEverybody(t *testing.T) {
	h := newHall(t, "", "m", "n", "q")
	h.declare("m_a", "q_a", "n_b", "q_c")
	h.apply("m_a(x) OUT -> IN ps(msgflo/PubSub)\nq_a(x) OUT -> IN ps\nps OUT -> IN n_b(x)\nps OUT -> IN q_c(x)")
	for _, edge := range []string{"m_a.out -> ps.in", "q_a.out -> ps.in", "ps.out -> n_b.in", "ps.out -> q_c.in"} {
		h.await(edge, network.Flowing, "")
	}
	h.say("m_a", 0, 10)
	h.say("q_a", 10, 20)
	h.eventually("all", func() bool { return len(h.bodies("n_b")) == 20 && len(h.bodies("q_c")) == 20 })
	h.eventually("the counts", func() bool {
		return h.edge("m_a.out -> ps.in").Messages == 20 && h.edge("ps.out -> n_b.in").Messages == 20
	})
}

const own = "q_a(x) OUT -> IN rr(msgflo/RoundRobin)\nrr OUT -> IN q_b(x)\nrr DEADLETTER -> IN q_c(x)"

func TestBrokerCarriesByItselfWhenTheGatewayIsGone(t *testing.T) {
	h := newHall(t, "", "q")
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Pending, "q: ") // nobody has made the queue
	h.declare("q_a", "q_b", "q_c")
	h.apply(own) // as when participants announce themselves
	h.await("q_a.out -> rr.in", network.Flowing, "carried by q itself")
	h.await("rr.out -> q_b.in", network.Flowing, "carried by q itself")
	h.await("rr.deadletter -> q_c.in", network.Flowing, "carried by q itself")
	h.stop()
	h.say("q_a", 0, 3)
	h.held("q_b", 3)
	h.brokers["q"].Send("dead-queue/q_b", transport.Message{Body: []byte("9")})
	h.held("q_c", 1)
}

func TestRemovedEdgeIsUnboundAndNothingElse(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b", "q_c", "q_d")
	h.with("q", func(ctx context.Context, top transport.Topology) error { // somebody else's
		return top.Bind(ctx, transport.Binding{
			From: transport.Place{Kind: transport.Fanout, Address: "fanout/q_a"}, To: transport.Place{Kind: transport.Queue, Address: "queue/q_d"},
		})
	})
	h.apply(own + "\nq_a OUT -> IN rr2(msgflo/RoundRobin) OUT -> IN q_c")
	h.await("q_a.out -> rr.in", network.Flowing, "")
	h.await("q_a.out -> rr2.in", network.Flowing, "")
	h.say("q_a", 0, 1)
	h.held("q_b", 1)
	h.held("q_c", 1)
	h.held("q_d", 1)
	h.apply("q_a(x) OUT -> IN rr2(msgflo/RoundRobin) OUT -> IN q_c(x)") // the way into out-… is shared, and stays
	h.eventually("the unbinding", func() bool {
		before := h.brokers["q"].Held("queue/q_b")
		h.say("q_a", 1, 2)
		return h.brokers["q"].Held("queue/q_b") == before
	})
	c := h.brokers["q"].Held("queue/q_c")
	if d := h.brokers["q"].Held("queue/q_d"); c != d {
		t.Errorf("the edge that stays has %d messages, somebody else's binding %d", c, d)
	}
	h.brokers["q"].Send("dead-queue/q_b", transport.Message{Body: []byte("9")})
	time.Sleep(50 * time.Millisecond)
	if got := h.brokers["q"].Held("queue/q_c"); got != c {
		t.Error("the way of dead letters is still bound")
	}
	h.apply("")
	h.eventually("the last unbinding", func() bool {
		before := h.brokers["q"].Held("queue/q_c")
		h.say("q_a", 2, 3)
		return h.brokers["q"].Held("queue/q_c") == before
	})
}

func TestEdgeRemovedWhileNobodyRanIsUnboundAtTheNextStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data", "bindings.json")
	h := newHall(t, file, "q")
	h.declare("q_a", "q_b", "q_c")
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	h.await("rr.deadletter -> q_c.in", network.Flowing, "")
	h.stop()

	h.run(file)
	h.absent["q_b"] = true // it has not announced itself yet
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Pending, "no participant q_b")
	h.say("q_a", 0, 1)
	h.held("q_b", 1) // and what is bound for it stays
	h.stop()

	h.run(file)
	h.apply("")
	h.eventually("the unbinding", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.TrimSpace(string(text)) == "[]"
	})
	h.say("q_a", 1, 2)
	time.Sleep(20 * time.Millisecond)
	h.held("q_b", 1)
}

func TestUnreadableListOfBindingsIsSetAside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bindings.json")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHall(t, file, "q")
	h.declare("q_a", "q_b", "q_c")
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	if text, err := os.ReadFile(file + ".unreadable"); err != nil || string(text) != "nonsense" {
		t.Error(string(text), err)
	}
}

// errorCount counts what is logged as an error.
type errorCount struct {
	slog.Handler
	n atomic.Int64
}

func (c *errorCount) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		c.n.Add(1)
	}
	return nil
}

func (c *errorCount) Enabled(context.Context, slog.Level) bool { return true }

// A disk that is full keeps nobody from binding and does not fill the log, and what was bound is noted when there is room.
func TestListOfBindingsThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // so that no file can be in it
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bindings.json")
	h := newHall(t, "", "q")
	h.stop()
	count := &errorCount{Handler: slog.DiscardHandler}
	h.log = slog.New(count)
	h.run(file)
	h.declare("q_a", "q_b", "q_c")
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "carried by q itself")
	time.Sleep(2500 * time.Millisecond) // each second it is tried again
	if n := count.n.Load(); n > 2 {     // it cannot be read, and it cannot be written
		t.Errorf("%d errors were logged", n)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	h.eventually("the list", func() bool {
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), "queue/q_b")
	})
}

func TestWipedBrokerIsBoundAnew(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b", "q_c")
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	h.with("q", func(ctx context.Context, top transport.Topology) error {
		return top.Unbind(ctx, transport.Binding{
			From: transport.Place{Kind: transport.Direct, Address: "out-fanout/q_a"}, To: transport.Place{Kind: transport.Queue, Address: "queue/q_b"},
		})
	})
	h.brokers["q"].KillConnections("restarted")
	h.eventually("the binding", func() bool {
		h.say("q_a", 0, 1)
		return h.brokers["q"].Held("queue/q_b") > 0
	})
}

func TestNothingIsLostWhenTheBrokerTakesOverAndGivesBack(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b", "q_c")
	gateway := map[string]route.Settings{"q_a.out rr.in": {Routing: route.Gateway}}
	h.settings = gateway
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				sent <- i
				return
			case <-time.After(time.Millisecond):
				h.say("q_a", i, i+1)
			}
		}
	}()
	for i := range 4 {
		h.settings = map[string]route.Settings{}
		if i%2 == 1 {
			h.settings = gateway
		}
		h.apply(own)
		if i%2 == 0 {
			h.await("q_a.out -> rr.in", network.Flowing, "carried by q itself")
			h.eventually("the end of the feed", func() bool { return h.brokers["q"].Subscribers("fanout/q_a") == 0 })
		} else {
			h.eventually("the gateway", func() bool {
				e := h.edge("q_a.out -> rr.in")
				return e.State == network.Flowing && e.Reason == ""
			})
		}
		time.Sleep(100 * time.Millisecond)
	}
	close(stop)
	n := <-sent
	time.Sleep(100 * time.Millisecond)
	// Somebody consumes what is there.
	got := map[string]bool{}
	h.with("q", func(ctx context.Context, top transport.Topology) error {
		sub, err := top.(transport.Conn).Subscribe(ctx, transport.Source{Name: "b", Address: "queue/q_b", Window: transport.Credit{Messages: 100000, Bytes: 1 << 30}})
		if err != nil {
			return err
		}
		if err := sub.Grant(transport.Credit{Messages: 100000, Bytes: 1 << 30}); err != nil {
			return err
		}
		for len(got) < n {
			ds, err := sub.Receive(ctx)
			if err != nil {
				return fmt.Errorf("%d of %d messages came: %w", len(got), n, err)
			}
			for _, d := range ds {
				got[string(d.Body)] = true
			}
		}
		return nil
	})
}

// What the broker keeps for the feed is carried before the feed goes, however it trickles: a window that has room at a moment
// does not say that there is no more.
func TestBacklogIsCarriedBeforeTheBrokerTakesOver(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b", "q_c")
	h.settings["q_a.out rr.in"] = route.Settings{Routing: route.Gateway}
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	h.brokers["q"].ConfirmAfter(200 * time.Millisecond)
	const n = 6000 // some seconds' worth
	h.say("q_a", 0, n)
	h.settings = map[string]route.Settings{}
	h.eventually("the end of the feed", func() bool {
		h.apply(own) // so that it is looked at often
		return h.brokers["q"].Subscribers("fanout/q_a") == 0
	})
	came := map[int]bool{}
	for _, i := range h.bodies("q_b") {
		came[i] = true
	}
	if len(came) != n {
		t.Errorf("%d of %d messages came", len(came), n)
	}
}

// A feed that is about to be removed takes what it keeps with it: the binding stays until another is there.
func TestNothingIsLostWhenTheGatewayTakesOverFromAFeedThatEnds(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b", "q_c")
	gateway := map[string]route.Settings{"q_a.out rr.in": {Routing: route.Gateway}}
	h.settings = gateway
	h.apply(own)
	h.await("q_a.out -> rr.in", network.Flowing, "")
	h.brokers["q"].ConfirmAfter(700 * time.Millisecond) // so long it takes to end
	n := 0
	say := func(until func() bool) {
		for !until() {
			h.say("q_a", n, n+1)
			n++
			time.Sleep(5 * time.Millisecond)
		}
	}
	h.settings = map[string]route.Settings{}
	h.apply(own)
	given := 0 // to the feed, that still subscribes and takes no more
	h.eventually("the end", func() bool {
		at := n
		say(func() bool { return n >= at+40 })
		more := len(h.bodies("q_b"))
		ending := more > 0 && more == given
		given = more
		return ending
	})
	h.settings = gateway
	h.apply(own)
	end := time.Now().Add(2 * time.Second)
	say(func() bool { return time.Now().After(end) })
	h.eventually("all of them", func() bool { return h.brokers["q"].Unsettled("fanout/q_a") == 0 })
	got := map[string]bool{}
	h.with("q", func(ctx context.Context, top transport.Topology) error {
		sub, err := top.(transport.Conn).Subscribe(ctx, transport.Source{Name: "b", Address: "queue/q_b", Window: transport.Credit{Messages: 100000, Bytes: 1 << 30}})
		if err != nil {
			return err
		}
		if err := sub.Grant(transport.Credit{Messages: 100000, Bytes: 1 << 30}); err != nil {
			return err
		}
		for len(got) < n {
			ds, err := sub.Receive(ctx)
			if err != nil {
				return fmt.Errorf("%d of %d messages came: %w", len(got), n, err)
			}
			for _, d := range ds {
				got[string(d.Body)] = true
			}
		}
		return nil
	})
}

// Two roles at one queue are one place for the broker. When one of them leaves, the gateway carries to the other, and the broker
// does not carry there too.
func TestWhoIsAwayDoesNotDoubleWhatOthersGet(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b")
	g, err := graph.ParseFBP("test.fbp", []byte("q_a(x) OUT -> IN rr(msgflo/RoundRobin)\nrr OUT -> IN q_b(x)\nrr OUT -> IN c(x)"))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(there bool) {
		inport := map[string]route.Port{"in": {Broker: "q", Address: "queue/q_b", Traits: transport.Traits{Confirms: true, Kind: transport.Queue}}}
		in := route.Input{Graphs: []route.Graph{{Name: "main", Graph: g}}, Participants: map[string]route.Participant{
			"q_a": {Outports: map[string]route.Port{"out": {Broker: "q", Address: "fanout/q_a", Traits: transport.Traits{Acks: true, Kind: transport.Fanout}}}},
			"q_b": {Inports: inport},
		}}
		if there {
			in.Participants["c"] = route.Participant{Inports: inport}
		}
		h.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{h.broker("q", h.brokers["q"])}})
	}
	apply(true)
	h.await("q_a.out -> rr.in", network.Flowing, "carried by q itself")
	apply(false)
	h.eventually("the gateway", func() bool { return h.brokers["q"].Subscribers("fanout/q_a") == 1 })
	h.await("q_a.out -> rr.in", network.Flowing, "")
	for n, before := 0, 0; ; n++ {
		h.say("q_a", n, n+1)
		h.eventually("the message", func() bool { return h.brokers["q"].Held("queue/q_b") > before })
		time.Sleep(20 * time.Millisecond)
		held := h.brokers["q"].Held("queue/q_b")
		if held == before+1 {
			return
		}
		if before = held; n == 100 {
			t.Fatal("every message comes twice")
		}
	}
}

func TestBrokerCarriesAPlainEdgeWhenItIsAskedTo(t *testing.T) {
	h := newHall(t, "", "q")
	h.declare("q_a", "q_b")
	h.settings["q_a.out q_b.in"] = route.Settings{Routing: route.Broker}
	h.apply("q_a(x) OUT -> IN q_b(x)")
	h.await("q_a.out -> q_b.in", network.Flowing, "carried by q itself")
	if n := h.brokers["q"].Subscribers("fanout/q_a"); n != 0 {
		t.Errorf("%d subscribe to what the broker carries", n)
	}
	h.say("q_a", 0, 3)
	h.held("q_b", 3)
	h.brokers["q"].RefuseConnections(errors.New("nobody listens"))
	h.brokers["q"].KillConnections("killed")
	h.await("q_a.out -> q_b.in", network.Broken, "nobody listens")
}
