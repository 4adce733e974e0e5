package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// encode returns v's JSON. Data of users is in it, and is not to be spelled anew for the sake of HTML.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// component returns the name of the component that a graph is.
func (c *Coordinator) component(id string) string {
	if strings.Contains(id, "/") || c.cfg.Runtime.Namespace == "" {
		return id
	}
	return c.cfg.Runtime.Namespace + "/" + id
}

// touchesPorts reports whether the ports that a graph exports may be others after the changes.
func touchesPorts(effects []graph.Change) bool {
	return slices.ContainsFunc(effects, func(e graph.Change) bool {
		switch e.(type) {
		case graph.Clear, graph.AddInport, graph.RemoveInport, graph.RenameInport,
			graph.AddOutport, graph.RemoveOutport, graph.RenameOutport:
			return true
		}
		return false
	})
}

// tellPorts tells which ports a graph exports, and what it is as a component.
func (c *Coordinator) tellPorts(r *record) {
	now, err := c.cfg.Graphs.Graph(r.id)
	if err != nil {
		return // it has gone in the meantime
	}
	m, err := c.portsOf(now)
	c.logged(err)
	if err == nil {
		c.tellAll(m)
	}
	if now.Main {
		return
	}
	c.logged(c.tell(r.id, c.asComponent(now), nil))
}

func (c *Coordinator) portsOf(g Graph) (forwarding.Message, error) {
	is := c.asComponent(g)
	m, err := forwarding.NewMessage(fbp.Ports{Graph: g.ID, InPorts: is.InPorts, OutPorts: is.OutPorts})
	m.Graph = g.ID
	return m, err
}

// asComponent returns what a graph is to a node that stands for it.
func (c *Coordinator) asComponent(g Graph) fbp.Component {
	text := func(key string) string {
		s, _ := g.Graph.Properties[key].(string)
		return s
	}
	return fbp.Component{
		Name: c.component(g.ID), Description: text("description"), Icon: text("icon"), Subgraph: true,
		InPorts:  c.exported(g.Graph, g.Graph.Inports, func(of fbp.Component) []fbp.Port { return of.InPorts }),
		OutPorts: c.exported(g.Graph, g.Graph.Outports, func(of fbp.Component) []fbp.Port { return of.OutPorts }),
	}
}

// exported returns the ports as those of the nodes behind them.
func (c *Coordinator) exported(g *graph.Graph, all []graph.Exported, of func(fbp.Component) []fbp.Port) []fbp.Port {
	ports := make([]fbp.Port, 0, len(all))
	for _, x := range all {
		port := fbp.Port{Type: "all"}
		if node, ok := g.Node(x.Node); ok {
			is, _ := c.cfg.Components.Component(node.Component)
			for _, p := range of(is) {
				if g.PortName(p.ID) == g.PortName(x.Port) {
					port = p
				}
			}
		}
		port.ID = x.Public
		ports = append(ports, port)
	}
	return ports
}

// text returns a graph's JSON as editors need it: they know it by its name, send changes to the id that it has been given,
// and only where the type is the runtime's.
func (c *Coordinator) text(g Graph) (string, error) {
	properties := maps.Clone(g.Graph.Properties)
	if properties == nil {
		properties = graph.Metadata{}
	}
	delete(properties, "id")
	properties["environment"] = map[string]any{"type": c.cfg.Runtime.Type}
	properties["runtimeName"] = g.ID
	// Not a clone: that would be laid over the text which the graph was read from, and takes ten times as long.
	shown := graph.Graph{
		Name: base(g.ID), CaseSensitive: g.Graph.CaseSensitive, Properties: properties,
		Nodes: g.Graph.Nodes, Edges: g.Graph.Edges, Initials: g.Graph.Initials,
		Inports: g.Graph.Inports, Outports: g.Graph.Outports, Groups: g.Graph.Groups,
	}
	text, err := shown.JSON()
	return string(text), err
}

// source answers with the source of a graph, or of a component.
func (c *Coordinator) source(ctx context.Context, l *link, in forwarding.Request, p fbp.GetSource) error {
	c.mu.Lock()
	r, err := c.find(p.Name, in.Access)
	c.mu.Unlock()
	if err == nil {
		return c.graphSource(ctx, l, r.id)
	}
	if errors.Is(err, errHidden) {
		if _, ok := c.cfg.Components.Component(p.Name); !ok {
			return fmt.Errorf("%q: %w", p.Name, ErrNoComponent)
		}
	}
	source, err := c.cfg.Components.Source(ctx, p.Name)
	if errors.Is(err, ErrNoSource) {
		is, ok := c.cfg.Components.Component(p.Name)
		if !ok {
			return fmt.Errorf("%q: %w", p.Name, ErrNoComponent)
		}
		source, err = fbp.Source{Language: "discovery", Code: discovery(is)}, nil
	}
	if err != nil {
		return err
	}
	source.Name, source.Library = base(p.Name), library(p.Name)
	return l.reply(source)
}

// graphSource answers with a graph's source, between the revisions where it belongs. A large graph takes a while to write,
// and nobody shall wait for that; so it is written first, and again if the graph has gone on. After a few times everybody
// has to wait after all.
func (c *Coordinator) graphSource(ctx context.Context, l *link, id string) error {
	const tries = 3
	for i := range tries {
		done, ok, err := c.trySource(l, id, i == tries-1)
		if err != nil {
			return c.known(err)
		}
		if ok {
			return c.wait(ctx, done)
		}
	}
	return errors.New("the graph changes faster than it can be read") // not reached: under the lock it does not
}

func (c *Coordinator) trySource(l *link, id string, locked bool) (done <-chan struct{}, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.cfg.Graphs.Graph(id)
	if err != nil {
		return nil, false, err
	}
	// Editors ask several times when they open a graph, and all of them at once when the gateway has been away.
	answer, kept := forwarding.Message{}, false
	if r, ok := c.graphs[id]; ok && r.source != nil && r.sourceOf == now.Revision {
		answer, kept = *r.source, true
	}
	if !kept {
		if !locked {
			c.mu.Unlock()
		}
		answer, err = c.sourceMessage(now)
		if !locked {
			c.mu.Lock()
		}
		if err != nil {
			return nil, false, err
		}
		if r, ok := c.graphs[id]; ok && r.told <= now.Revision {
			r.source, r.sourceOf = &answer, now.Revision
		}
	}
	done, ok = c.place(l, now, answer)
	return done, ok, nil
}

func (c *Coordinator) sourceMessage(g Graph) (forwarding.Message, error) {
	text, err := c.text(g)
	if err != nil {
		return forwarding.Message{}, err
	}
	name := c.component(g.ID)
	return forwarding.NewMessage(fbp.Source{Name: base(name), Library: library(name), Language: "json", Code: text})
}

// place puts an answer that shows a graph behind the revision that it shows. It is not ok if clients have been told of a
// later one.
func (c *Coordinator) place(l *link, shows Graph, answer forwarding.Message) (done <-chan struct{}, ok bool) {
	r, known := c.graphs[shows.ID]
	if known && r.told > shows.Revision {
		return nil, false
	}
	placed := make(chan struct{})
	do := func() {
		l.answer(answer)
		close(placed)
	}
	if known && r.told < shows.Revision {
		r.then = append(r.then, then{shows.Revision, do})
	} else {
		do()
	}
	return placed, true
}

func library(name string) string {
	before, _, ok := strings.Cut(name, "/")
	if !ok {
		return ""
	}
	return before
}
