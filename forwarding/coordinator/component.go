package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// list answers with all components, the graphs among them.
func (c *Coordinator) list(l *link, in forwarding.Request) error {
	all := c.cfg.Components.Components()
	named := make(map[string]bool, len(all))
	for _, is := range all {
		named[is.Name] = true
	}
	for _, g := range c.cfg.Graphs.Graphs() {
		if is := c.asComponent(g); !g.Main && in.Access.Sees(g.ID) && !named[is.Name] {
			all = append(all, is)
		}
	}
	messages := make([]forwarding.Message, 0, len(all)+1)
	for _, is := range all {
		m, err := forwarding.NewMessage(is)
		if err != nil {
			c.logged(fmt.Errorf("component %q: %w", is.Name, err))
			continue // one that cannot be told must not keep the others from being seen
		}
		m.Answers = true
		messages = append(messages, m)
	}
	ready, err := forwarding.NewMessage(fbp.ComponentsReady(len(messages)))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l.put(messages...)
	l.answer(ready)
	return nil
}

// ComponentChanged tells clients what a component is now, or that it is there: a participant has announced itself, a file was
// edited. It never waits for a client.
func (c *Coordinator) ComponentChanged(is fbp.Component) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logged(c.tell("", is, nil))
}

// setSource gives a component another source, or a graph.
func (c *Coordinator) setSource(ctx context.Context, l *link, in forwarding.Request, p fbp.Source) error {
	name := p.Name
	if p.Library != "" {
		name = p.Library + "/" + base(p.Name)
	}
	if p.Language == "json" || p.Language == "fbp" {
		return c.setGraph(ctx, l, in, name, p)
	}
	c.mu.Lock()
	_, err := c.find(name, in.Access)
	c.mu.Unlock()
	if err == nil {
		return fmt.Errorf("%q is a graph: its source is JSON or fbp", name)
	}
	is, err := c.cfg.Components.SetSource(ctx, in.Access.Who(), p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tell("", is, l)
}

// setGraph makes a graph what its source says. Clients are told of the differences.
func (c *Coordinator) setGraph(ctx context.Context, l *link, in forwarding.Request, name string, p fbp.Source) error {
	if !in.Access.Capabilities.MaySend(fbp.GraphClear) {
		return fbp.NotPermitted(in.Kind)
	}
	wanted, err := graph.Parse("source."+p.Language, []byte(p.Code))
	if err != nil {
		return err
	}
	c.mu.Lock()
	_, err = c.find(name, in.Access)
	c.mu.Unlock()
	if missing, ok := errors.AsType[fbp.Error](err); ok && missing.Message == fbp.GraphNotFound {
		err = c.create(in.Access, name, graph.Clear{Name: wanted.Name}, func(*record, Result) {})
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	done, err := c.replaced(l, in, name, wanted)
	c.mu.Unlock()
	if err != nil {
		return c.known(err)
	}
	return c.wait(ctx, done)
}

func (c *Coordinator) replaced(l *link, in forwarding.Request, name string, wanted *graph.Graph) (done <-chan struct{}, err error) {
	r, err := c.find(name, in.Access)
	if err != nil {
		return nil, err
	}
	now, err := c.cfg.Graphs.Graph(r.id)
	if err != nil {
		return nil, err
	}
	// What text says that it was shown with is not the user's.
	wanted.Name = now.Graph.Name
	for _, key := range []string{"id", "runtimeName", "environment"} {
		delete(wanted.Properties, key)
		if value, ok := now.Graph.Properties[key]; ok {
			wanted.Properties[key] = value
		}
	}
	if changes := graph.Diff(now.Graph, wanted); len(changes) > 0 {
		if _, err := c.cfg.Graphs.Change(r.id, in.Access.Who(), changes...); err != nil {
			return nil, err
		}
		if now, err = c.cfg.Graphs.Graph(r.id); err != nil {
			return nil, err
		}
	}
	answer, err := forwarding.NewMessage(c.asComponent(now))
	if err != nil {
		return nil, err
	}
	done, ok := c.place(l, now, answer)
	if !ok {
		return nil, errors.New("the graph has gone on") // not reached: nobody is told of anything in the meantime
	}
	return done, nil
}

// discovery returns what a component without a source says of itself, as MsgFlo shows it: YAML of its discovery message.
func discovery(is fbp.Component) string {
	var out strings.Builder
	text := func(s string) string { // JSON is YAML
		quoted, err := encode(s)
		if err != nil {
			return `""`
		}
		return string(quoted)
	}
	ports := func(key string, all []fbp.Port) {
		if len(all) == 0 {
			fmt.Fprintf(&out, "%s: []\n", key)
			return
		}
		fmt.Fprintf(&out, "%s:\n", key)
		for _, p := range all {
			fmt.Fprintf(&out, "  - id: %s\n    type: %s\n", text(p.ID), text(p.Type))
			if p.Description != "" {
				fmt.Fprintf(&out, "    description: %s\n", text(p.Description))
			}
			if p.Schema != "" {
				fmt.Fprintf(&out, "    schema: %s\n", text(p.Schema))
			}
		}
	}
	fmt.Fprintf(&out, "component: %s\n", text(is.Name))
	if is.Description != "" {
		fmt.Fprintf(&out, "label: %s\n", text(is.Description))
	}
	if is.Icon != "" {
		fmt.Fprintf(&out, "icon: %s\n", text(is.Icon))
	}
	ports("inports", is.InPorts)
	ports("outports", is.OutPorts)
	return out.String()
}
