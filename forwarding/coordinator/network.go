package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// start starts a network. Packets that it sends at once are shown after the answer, because both need the lock.
func (c *Coordinator) start(l *link, in forwarding.Request, p fbp.StartNetwork) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	if err := c.cfg.Networks.Start(r.id); err != nil {
		return c.known(err)
	}
	return c.tellStarted(r, l)
}

func (c *Coordinator) tellStarted(r *record, by *link) error {
	r.started = true
	return c.tell(r.id, fbp.Started{Graph: r.id, Time: time.Now().UTC(), Started: true, Running: true, Debug: r.debug}, by)
}

func (c *Coordinator) stop(l *link, in forwarding.Request, p fbp.StopNetwork) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	was := c.cfg.Networks.Status(r.id)
	if err := c.cfg.Networks.Stop(r.id); err != nil {
		return c.known(err)
	}
	return c.tellStopped(r, was, l)
}

func (c *Coordinator) tellStopped(r *record, was Status, by *link) error {
	r.started = false
	return c.tell(r.id, fbp.Stopped{Graph: r.id, Time: time.Now().UTC(), Uptime: was.uptime(), Debug: r.debug}, by)
}

// uptime returns seconds.
func (s Status) uptime() float64 {
	if !s.Started || s.Since.IsZero() {
		return 0
	}
	return time.Since(s.Since).Seconds()
}

func (c *Coordinator) status(l *link, in forwarding.Request, p fbp.GetStatus) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	is := c.cfg.Networks.Status(r.id)
	return l.reply(fbp.Status{Graph: r.id, Started: is.Started, Running: is.Running, Debug: r.debug})
}

// NetworkChanged tells clients whether a graph runs, if that is not what they have been told last. It never waits for a
// client.
func (c *Coordinator) NetworkChanged(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.graphs[id]
	if !ok {
		return
	}
	switch is := c.cfg.Networks.Status(id); {
	case is.Started == r.started:
	case is.Started:
		c.logged(c.tellStarted(r, nil))
	default:
		c.logged(c.tellStopped(r, is, nil))
	}
}

func (c *Coordinator) debug(l *link, in forwarding.Request, p fbp.Debug) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	r.debug = p.Enable
	return c.tell(r.id, fbp.Debug{Enable: p.Enable, Graph: r.id}, l)
}

// packetIn takes a packet to an exported port.
func (c *Coordinator) packetIn(ctx context.Context, l *link, in forwarding.Request, p fbp.Packet) error {
	c.mu.Lock()
	r, err := c.find(p.Graph, in.Access)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	now, err := c.cfg.Graphs.Graph(r.id)
	if err != nil {
		return c.known(err)
	}
	if _, ok := now.Graph.Inport(p.Port); !ok {
		return fmt.Errorf("the graph exports no inport %q", p.Port)
	}
	switch p.Event {
	case fbp.EventData:
		data := p.Payload
		if data == nil {
			data = json.RawMessage("null")
		}
		if err := c.cfg.Networks.Send(ctx, r.id, now.Graph.PortName(p.Port), data); err != nil {
			return c.known(err)
		}
	case fbp.EventConnect, fbp.EventBeginGroup, fbp.EventEndGroup, fbp.EventDisconnect: // brokers have no such thing
	}
	return l.reply(fbp.PacketSent{Graph: r.id, Port: p.Port, Event: p.Event, Payload: p.Payload})
}

// PacketOut shows clients a packet that has left a graph by an exported outport. It never waits for a client, and is lost
// where one is slow.
func (c *Coordinator) PacketOut(id, port string, body []byte) {
	c.body(id, fbp.RuntimePacket, func(data json.RawMessage) fbp.Payload {
		return fbp.Packet{Graph: id, Port: port, Event: fbp.EventData, Payload: data}
	}, body)
}

// ProcessError shows clients what went wrong in a node. It never waits for a client.
func (c *Coordinator) ProcessError(id, node, text string) {
	c.event(id, fbp.ProcessError{ID: node, Error: text, Graph: id})
}

// NetworkError shows clients what went wrong with a graph, or with the gateway if id is empty. It never waits for a client.
func (c *Coordinator) NetworkError(id, text string) {
	c.event(id, fbp.Error{Protocol: "network", Message: text, Graph: id})
}

// Printed shows clients what a node or the gateway has printed, one line or a few. It never waits for a client.
func (c *Coordinator) Printed(id, text string) {
	c.event(id, fbp.Printed{Message: text, Type: "message"})
}

// Icon shows clients another icon of a node. It never waits for a client.
func (c *Coordinator) Icon(id, node, icon string) {
	c.event(id, fbp.Icon{ID: node, Icon: icon, Graph: base(id)}) // editors know only the short name there
}

// event shows what may get lost.
func (c *Coordinator) event(id string, p fbp.Payload) {
	m, err := forwarding.NewMessage(p)
	if err != nil {
		c.logged(err)
		return
	}
	m.Graph, m.Lossy = id, true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tellAll(m)
}

// edgeKey is what a client selects. Nobody selects what is in a subgraph.
type edgeKey struct {
	src, tgt graph.Endpoint
	subgraph string
}

// selectEdges says which edges the client wants to see.
func (c *Coordinator) selectEdges(l *link, in forwarding.Request, p fbp.SelectEdges) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	now, err := c.cfg.Graphs.Graph(r.id)
	if err != nil {
		return c.known(err)
	}
	wanted := make(map[edgeKey]bool, len(p.Edges))
	for _, e := range p.Edges {
		src, tgt := endpoint(now.Graph, e.Src), endpoint(now.Graph, e.Tgt)
		wanted[edgeKey{src: src, tgt: tgt}] = true
		// Clients leave the place in an array port out.
		for _, is := range now.Graph.Edges {
			if covers(src, is.Src) && covers(tgt, is.Tgt) {
				wanted[edgeKey{src: is.Src, tgt: is.Tgt}] = true
			}
		}
	}
	if delete(l.selected, r.id); len(wanted) > 0 {
		l.selected[r.id] = wanted
	}
	return l.reply(fbp.SelectEdges{Graph: r.id, Edges: slices.Clone(p.Edges)})
}

func endpoint(g *graph.Graph, e fbp.Endpoint) graph.Endpoint {
	is := graph.Endpoint{Node: e.Node, Port: g.PortName(e.Port)}
	if i, ok := e.Index.Value(); ok {
		is.Index = graph.At(i)
	}
	return is
}

// covers reports whether e is what wanted means: without an index that is every place of the port.
func covers(wanted, e graph.Endpoint) bool {
	if _, ok := wanted.Index.Value(); !ok {
		e.Index = wanted.Index
	}
	return wanted == e
}

// errNoTrace is of a graph that nothing has been recorded of.
var errNoTrace = errors.New("nothing has been recorded: start the trace first")
