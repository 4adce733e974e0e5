package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

// mirror is what a client makes of what it is told.
type mirror struct {
	graph *graph.Graph
	told  int
}

func newMirror() *mirror { return &mirror{graph: graph.New("")} }

// take makes a message's change.
func (m *mirror) take(out fbp.Output) error {
	if out.Kind.Protocol() != "graph" || out.Kind.IsError() {
		return nil
	}
	change, err := graph.ParseChange(out.Kind.Command(), out.Payload)
	if err != nil {
		return err
	}
	m.told++
	if err := graph.Replay(m.graph, change); err != nil {
		return fmt.Errorf("%s %s: %w", out.Kind, out.Payload, err)
	}
	return nil
}

// like wants the mirror to be as the runtime's graph, and as it has come to be there.
func (m *mirror) like(t testing.TB, h *host, id string) {
	t.Helper()
	now, err := h.Graph(id)
	if err != nil {
		t.Fatal(err)
	}
	if !graph.Same(m.graph, now.Graph) || !m.graph.Equal(now.Graph) {
		t.Errorf("the client has another graph:\n%v\n%v", m.graph, now.Graph)
	}
}

// edit returns a request that may or may not be possible: others edit the same.
func edit(r *rand.Rand, id string) fbp.Payload {
	node := func() string { return fmt.Sprintf("n%d", r.IntN(12)) }
	src, tgt := fbp.Endpoint{Node: node(), Port: "out"}, fbp.Endpoint{Node: node(), Port: "in"}
	if r.IntN(3) == 0 {
		tgt.Index = fbp.At(r.IntN(2))
	}
	metadata := fbp.Metadata(fmt.Sprintf(`{"x":%d,"k%d":%s}`, r.IntN(9), r.IntN(3), []string{"null", "1", `"v"`}[r.IntN(3)]))
	public, group := fmt.Sprintf("p%d", r.IntN(3)), fmt.Sprintf("g%d", r.IntN(3))
	switch r.IntN(16) {
	case 0, 1, 2:
		return fbp.AddNode{ID: node(), Component: "core/Repeat", Metadata: metadata, Graph: id}
	case 3:
		return fbp.RemoveNode{ID: node(), Graph: id}
	case 4:
		return fbp.RenameNode{From: node(), To: node(), Graph: id}
	case 5:
		return fbp.ChangeNode{ID: node(), Metadata: metadata, Graph: id}
	case 6, 7, 8:
		return fbp.AddEdge{Src: src, Tgt: tgt, Metadata: metadata, Graph: id}
	case 9:
		return fbp.RemoveEdge{Src: src, Tgt: fbp.Endpoint{Node: tgt.Node, Port: "in"}, Graph: id}
	case 10:
		return fbp.ChangeEdge{Src: src, Tgt: tgt, Metadata: metadata, Graph: id}
	case 11:
		return fbp.AddInitial{Src: fbp.Initial{Data: []byte(fmt.Sprint(r.IntN(3)))}, Tgt: tgt, Graph: id}
	case 12:
		return fbp.RemoveInitial{Tgt: tgt, Graph: id}
	case 13:
		return fbp.AddInport{Public: public, Node: node(), Port: "in", Graph: id}
	case 14:
		return fbp.AddGroup{Name: group, Nodes: []string{node(), node()}, Metadata: metadata, Graph: id}
	default:
		return fbp.RemoveGroup{Name: group, Graph: id}
	}
}

// edits asks for many edits without waiting for answers, follows what it is told, and returns when all are answered.
func (c *client) edits(m *mirror, r *rand.Rand, id string, n int) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range n {
			c.ask(edit(r, id), fmt.Sprint(i))
		}
	})
	for answered := 0; answered < n; {
		out := c.next()
		if err := m.take(out); err != nil {
			return err
		}
		if out.ResponseTo != "" {
			if want := fmt.Sprint(answered); out.ResponseTo != want {
				return fmt.Errorf("the answer to %s came instead of that to %s", out.ResponseTo, want)
			}
			answered++
		}
	}
	return nil
}

// settle follows until there is nothing left.
func (c *client) settle(m *mirror) {
	c.t.Helper()
	c.ask(fbp.GetRuntime{}, "settled")
	for {
		out := c.next()
		if out.ResponseTo == "settled" {
			return
		}
		if err := m.take(out); err != nil {
			c.t.Fatal(err)
		}
	}
}

func TestClientsThatRaceEndWithTheGraphOfTheRuntime(t *testing.T) {
	for seed := range uint64(4) {
		s := newSite(t)
		s.h.open("g", graph.New(""), true)
		s.run()
		const editors, watchers, edits = 2, 2, 1000
		var clients []*client
		mirrors := map[*client]*mirror{}
		for range editors + watchers {
			c := s.dial("")
			c.open()
			clients, mirrors[c] = append(clients, c), newMirror()
		}
		var wg sync.WaitGroup
		for i, c := range clients[:editors] {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			wg.Go(func() {
				if err := c.edits(mirrors[c], r, "g", edits/editors); err != nil {
					t.Error(err)
				}
			})
		}
		for _, c := range clients[editors:] { // they must not be stuffed: the pipe is short
			wg.Go(func() {
				now := mirrors[c]
				for now.told < edits/8 {
					if err := now.take(c.next()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for _, c := range clients {
			c.settle(mirrors[c])
			mirrors[c].like(t, s.h, "g")
		}
		if mirrors[clients[0]].told < edits/4 {
			t.Errorf("only %d edits were possible", mirrors[clients[0]].told)
		}
	}
}

// A client that opens a graph while another edits it has what it was given as the source, and what it is told from then on.
func TestSourceStandsBetweenTwoRevisions(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.run()
	editor := s.dial("")
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := editor.edits(newMirror(), rand.New(rand.NewPCG(1, 2)), "g", 2000); err != nil {
			t.Error(err)
		}
	})
	mirrors := map[*client]*mirror{}
	for range 10 {
		c := s.dial("")
		c.open()
		c.ask(fbp.GetSource{Name: "g"}, "source")
		p, err := c.skipTo(fbp.ComponentSource).Parse()
		if err != nil {
			t.Fatal(err)
		}
		g, err := graph.ParseJSON("", []byte(p.(fbp.Source).Code))
		if err != nil {
			t.Fatal(err)
		}
		g.Name, g.Properties = "g", nil // these are for editors
		mirrors[c] = &mirror{graph: g}
	}
	wg.Wait()
	for c, m := range mirrors {
		c.settle(m)
		m.like(t, s.h, "g")
	}
}

func TestAnswerThatShowsAGraphWaitsForWhatHasHappened(t *testing.T) {
	s := newSite(t)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	s.h.open("g", graph.New("g"), true)
	c := s.run().dial("")
	c.open()
	s.h.hold()
	if _, err := s.h.Change("g", "file", graph.AddNode{ID: "a", Component: "core/Drop"}); err != nil {
		t.Fatal(err)
	}
	c.ask(fbp.GetSource{Name: "g"}, "1")
	s.h.release(false)
	c.want(fbp.GraphAddNode, "")
	contains(t, c.want(fbp.ComponentSource, "").Payload, `\"a\"`)
}

func TestChangesFromElsewhereAreTold(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	c := s.run().dial("")
	c.open()
	if _, err := s.h.Change("g", "file", graph.AddNode{ID: "a", Component: "core/Drop"},
		graph.ChangeProperties{Properties: graph.Metadata{"description": "d"}}); err != nil {
		t.Fatal(err)
	}
	c.want(fbp.GraphAddNode, `{"id":"a","component":"core/Drop","metadata":{},"graph":"g"}`)

	g := graph.New("New")
	addAll(t, g, graph.AddNode{ID: "b", Component: "core/Drop"})
	s.h.open("flogate/new", g, false)
	c.want(fbp.GraphClear, `{"id":"flogate/new","name":"New"}`)
	c.want(fbp.GraphAddNode, `{"id":"b","component":"core/Drop","metadata":{},"graph":"flogate/new"}`)
	c.want(fbp.ComponentComponent, `{"name":"flogate/new","subgraph":true,"inPorts":[],"outPorts":[]}`)

	s.c.ComponentChanged(fbp.Component{Name: "lights/Dimmer"})
	c.want(fbp.ComponentComponent, `{"name":"lights/Dimmer","subgraph":false,"inPorts":[],"outPorts":[]}`)
	if err := s.h.Start("g"); err != nil {
		t.Fatal(err)
	}
	s.c.NetworkChanged("g")
	s.c.NetworkChanged("g")
	contains(t, c.want(fbp.NetworkStarted, "").Payload, `"graph":"g"`, `"started":true`, `"time":"`)
	s.c.ProcessError("g", "a", "it is broken")
	c.want(fbp.NetworkProcessError, `{"id":"a","error":"it is broken","graph":"g"}`)
	s.c.NetworkError("g", "it cannot run")
	c.want(fbp.NetworkError, `{"message":"it cannot run","graph":"g"}`)
	s.c.Icon("flogate/new", "b", "cog")
	c.want(fbp.NetworkIcon, `{"id":"b","icon":"cog","graph":"new"}`)
	s.c.Printed("g", "hello")
	c.want(fbp.NetworkOutput, `{"message":"hello","type":"message"}`)
	s.h.remove("g")
	c.want(fbp.NetworkStopped, "")
	c.ask(fbp.RemoveNode{ID: "a", Graph: "g"}, "")
	c.want(fbp.GraphError, `{"message":"Requested graph not found"}`)
	c.none()
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.h.open("gone", graph.New("gone"), true)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	s.run()
	c, m := s.dial(""), newMirror()
	c.open()
	s.h.hold()
	s.h.remove("gone")
	for i := range 3 {
		if _, err := s.h.Change("g", "file", graph.AddNode{ID: fmt.Sprint(i), Component: "core/Drop"}); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody waits for an answer to what is lost.
	c.ask(fbp.AddNode{ID: "asked", Component: "core/Drop", Graph: "g"}, "asked")
	eventually(t, "the change is made", func() bool {
		now, err := s.h.Graph("g")
		return err == nil && len(now.Graph.Nodes) == 4
	})
	s.h.release(true)
	for range 5 { // clear and the nodes
		if err := m.take(c.next()); err != nil {
			t.Fatal(err)
		}
	}
	m.like(t, s.h, "g")
	if got := c.want(fbp.GraphAddNode, ""); got.ResponseTo != "asked" {
		t.Errorf("the answer has responseTo %q", got.ResponseTo)
	}
	c.ask(fbp.GetStatus{Graph: "gone"}, "")
	c.want(fbp.NetworkError, `{"message":"Requested graph not found"}`)
	c.ask(fbp.AddNode{ID: "after", Component: "core/Drop", Graph: "g"}, "")
	c.want(fbp.GraphAddNode, "")
	c.none()
}

// holds locks l until release is called, or the test has ended.
func holds(t *testing.T, l sync.Locker) (release func()) {
	l.Lock()
	release = sync.OnceFunc(l.Unlock)
	t.Cleanup(release)
	return release
}

func TestSlowDiskHoldsUpOnlyWhoCreatesAGraph(t *testing.T) {
	s := newSite(t)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	s.h.open("g", graph.New("g"), true)
	s.run()
	creates, works := s.dial(""), s.dial("")
	creates.open()
	works.open()
	release := holds(t, &s.h.disk)
	creates.ask(fbp.ClearGraph{ID: "new", Main: true}, "new")
	for i := range 20 {
		works.ask(fbp.AddNode{ID: fmt.Sprint(i), Component: "core/Drop", Graph: "g"}, "")
		works.want(fbp.GraphAddNode, "")
		creates.want(fbp.GraphAddNode, "")
	}
	release()
	if got := creates.want(fbp.GraphClear, `{"id":"new","main":true}`); got.ResponseTo != "new" {
		t.Errorf("the answer has responseTo %q", got.ResponseTo)
	}
	works.want(fbp.GraphClear, `{"id":"new","main":true}`)
	creates.none()
	works.none()
}

func TestGraphIsToldOnceThoughEventsAreFasterThanTheAnswer(t *testing.T) {
	s := newSite(t)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	s.run()
	creates, other := s.dial(""), s.dial("")
	creates.open()
	other.open()
	release := holds(t, &s.h.done)
	creates.ask(fbp.ClearGraph{ID: "new", Main: true}, "new")
	eventually(t, "it is there", func() bool {
		_, err := s.h.Graph("new")
		return err == nil
	})
	if _, err := s.h.Change("new", "file", graph.AddNode{ID: "a", Component: "core/Drop"}); err != nil {
		t.Fatal(err)
	}
	other.none()
	release()
	if got := creates.want(fbp.GraphClear, ""); got.ResponseTo != "new" {
		t.Errorf("the answer has responseTo %q", got.ResponseTo)
	}
	creates.want(fbp.GraphAddNode, "")
	other.want(fbp.GraphClear, "")
	other.want(fbp.GraphAddNode, "")
	creates.none()
	other.none()
}

func TestClosedGatewayLetsEverybodyGo(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.run()
	idle, waiting := s.dial(""), s.dial("")
	idle.open()
	waiting.open()
	eventually(t, "packets are looked at", func() bool { return s.h.tapped("g") == 1 })
	s.h.hold() // so that an answer never comes
	waiting.ask(fbp.AddNode{ID: "a", Component: "core/Drop", Graph: "g"}, "")
	eventually(t, "the change is made", func() bool {
		now, err := s.h.Graph("g")
		return err == nil && len(now.Graph.Nodes) == 1
	})
	s.stop()
	for _, c := range []*client{idle, waiting} {
		if err := <-c.ended; !errors.Is(err, coordinator.ErrEnded) {
			t.Errorf("a session ended with %v", err)
		}
	}
	if _, err := s.c.Dial(t.Context(), forwarding.Access{}); !errors.Is(err, coordinator.ErrEnded) {
		t.Errorf("dial: %v", err)
	}
	if n := s.h.tapped("g"); n != 0 {
		t.Errorf("%d taps are open", n)
	}
}

// stuck is a connection that takes nothing any more after some frames.
type stuck struct {
	pipe
	mu    sync.Mutex
	left  int
	cause error
	done  chan struct{}
}

func (c *stuck) Write(ctx context.Context, frames ...[]byte) error {
	for _, f := range frames {
		c.mu.Lock()
		c.left--
		full := c.left < 0
		c.mu.Unlock()
		if full {
			<-c.done
			return errors.New("closed")
		}
		if err := c.pipe.Write(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (c *stuck) Close(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = cause
		close(c.done)
		c.pipe.Close(cause)
	}
}

func TestClientThatDoesNotFollowIsSentAwayAndHoldsUpNobody(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.run()
	end, runtime := fbptest.Pipe()
	conn := &stuck{pipe: pipe{runtime}, left: 1, done: make(chan struct{})}
	slow := s.serve(end, conn, "", forwarding.SessionConfig{Messages: 100})
	slow.open()
	c := s.dial("")
	c.open()

	// Packets are lost first, and do not send it away.
	src := &graph.Endpoint{Node: "a", Port: "out"}
	for range 400 {
		s.h.flow("g", coordinator.Packet{Src: src, Tgt: graph.Endpoint{Node: "b", Port: "in"}, Body: []byte("1")})
	}
	for range 400 {
		c.skipTo(fbp.NetworkData)
	}
	eventually(t, "packets are lost", func() bool { return slow.session.Dropped() >= 200 })
	select {
	case err := <-slow.ended:
		t.Fatalf("the session ended over packets: %v", err)
	default:
	}
	for i := range 200 {
		began := time.Now()
		c.ask(fbp.AddNode{ID: fmt.Sprint(i), Component: "core/Drop", Graph: "g"}, "")
		c.skipTo(fbp.GraphAddNode)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("a change took %v", took)
		}
	}
	if err := <-slow.ended; !errors.Is(err, forwarding.ErrBehind) {
		t.Errorf("the session ended with %v", err)
	}
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if !errors.Is(conn.cause, forwarding.ErrBehind) {
		t.Errorf("the client was told %v", conn.cause)
	}
}
