package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// handle makes a request. Without an error it has been answered; an error is the answer that is left to give.
func (c *Coordinator) handle(ctx context.Context, l *link, r forwarding.Request) error {
	if !c.possible(r.Access.Capabilities).MaySend(r.Kind) {
		return fbp.NotPermitted(r.Kind)
	}
	switch p := r.Says.(type) {
	case fbp.GetRuntime:
		return c.introduce(l)
	case fbp.Packet:
		return c.packetIn(ctx, l, r, p)
	case fbp.ListComponents:
		return c.list(l, r)
	case fbp.GetSource:
		return c.source(ctx, l, r, p)
	case fbp.Source:
		return c.setSource(ctx, l, r, p)
	case fbp.StartNetwork:
		return c.start(l, r, p)
	case fbp.StopNetwork:
		return c.stop(l, r, p)
	case fbp.GetStatus:
		return c.status(l, r, p)
	case fbp.Persist:
		if err := c.cfg.Graphs.Persist(ctx); err != nil {
			return err
		}
		return l.reply(p)
	case fbp.Debug:
		return c.debug(l, r, p)
	case fbp.SelectEdges:
		return c.selectEdges(l, r, p)
	case fbp.StartTrace:
		return c.startTrace(l, r, p)
	case fbp.StopTrace:
		return c.stopTrace(l, r, p)
	case fbp.ClearTrace:
		return c.clearTrace(l, r, p)
	case fbp.DumpTrace:
		return c.dumpTrace(l, r, p)
	case fbp.ClearGraph:
		return c.clearGraph(ctx, l, r, p)
	}
	return c.change(ctx, l, r)
}

// possible returns those capabilities that there is something behind.
func (c *Coordinator) possible(of fbp.Capabilities) fbp.Capabilities {
	return slices.DeleteFunc(slices.Clone(of), func(one fbp.Capability) bool { return slices.Contains(c.cfg.Without, one) })
}

// introduce says what the runtime is, and then which ports its graphs export.
func (c *Coordinator) introduce(l *link) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.cfg.Runtime
	is.Version = fbp.Version
	is.AllCapabilities = c.possible(fbp.AllCapabilities())
	is.Capabilities = c.possible(l.access.Capabilities)
	if id := c.cfg.Graphs.Main(); l.access.Sees(id) {
		is.Graph = id
	}
	if err := l.reply(is); err != nil {
		return err
	}
	if l.access.Capabilities.MayReceive(fbp.RuntimePorts) {
		for _, g := range c.cfg.Graphs.Graphs() {
			if m, err := c.portsOf(g); err == nil {
				l.put(m)
			}
		}
	}
	return nil
}

// clearGraph makes an empty graph, and answers.
func (c *Coordinator) clearGraph(ctx context.Context, l *link, in forwarding.Request, p fbp.ClearGraph) error {
	var done <-chan struct{}
	err := c.create(in.Access, p.ID, graph.Clear{
		Name: p.Name, Library: p.Library, Main: p.Main, Icon: p.Icon, Description: p.Description,
	}, func(r *record, result Result) { done = c.await(r, l, in, result) })
	if err != nil {
		return err
	}
	return c.wait(ctx, done)
}

// creation holds back what happens to a graph that is being created, until it is known who has asked for it.
type creation struct {
	n      int
	events []Event
}

// create makes an empty graph, and calls then, under the lock, before anybody is told. A disk may be waited for meanwhile, so
// the lock is not held.
func (c *Coordinator) create(access forwarding.Access, id string, is graph.Clear, then func(*record, Result)) error {
	c.mu.Lock()
	r, err := c.find(id, access)
	missing, ok := errors.AsType[fbp.Error](err)
	switch {
	case err == nil:
		id = r.id
	case !ok || missing.Message != fbp.GraphNotFound:
		c.mu.Unlock()
		return err
	}
	now, ok := c.creating[id]
	if !ok {
		now = &creation{}
		c.creating[id] = now
	}
	now.n++
	c.mu.Unlock()

	result, err := c.cfg.Graphs.Create(id, access.Who(), is)

	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		r, ok := c.graphs[id]
		if !ok {
			r = c.know(id, result.Revision-1)
			r.created = true
			c.retap()
		}
		then(r, result)
	}
	if now.n--; now.n == 0 {
		delete(c.creating, id)
		for _, e := range now.events {
			c.happened(e)
		}
	}
	return err
}

// change makes any other change to a graph.
func (c *Coordinator) change(ctx context.Context, l *link, in forwarding.Request) error {
	id, change, err := changeOf(in)
	if err != nil {
		return err
	}
	c.mu.Lock()
	done, err := c.apply(l, in, id, change)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.wait(ctx, done)
}

func (c *Coordinator) apply(l *link, in forwarding.Request, id string, change graph.Change) (done <-chan struct{}, err error) {
	r, err := c.find(id, in.Access)
	if err != nil {
		return nil, err
	}
	result, err := c.cfg.Graphs.Change(r.id, in.Access.Who(), change)
	if err != nil {
		return nil, c.known(err)
	}
	return c.await(r, l, in, result), nil
}

// known returns the error that clients know.
func (c *Coordinator) known(err error) error {
	if errors.Is(err, ErrNoGraph) {
		return fbp.Error{Message: fbp.GraphNotFound}
	}
	return err
}

// await returns what is closed when clients have been told of a change, and the one who wants it answered.
func (c *Coordinator) await(r *record, l *link, in forwarding.Request, result Result) <-chan struct{} {
	a := asked{revision: result.Revision, effects: result.Effects, by: l, request: in.Input, done: make(chan struct{})}
	if result.Revision <= r.told { // events were lost, and have been made up for
		a.answer(c.effects(r.id, a.effects))
	} else {
		r.asked = append(r.asked, a)
	}
	return a.done
}

// wait waits until a change has been told. When it returns an error the session ends, and nobody answers any more.
func (c *Coordinator) wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ended:
		return ErrEnded
	}
}

// changeOf returns the change of a graph that a request is, and of which graph.
func changeOf(in forwarding.Request) (id string, change graph.Change, err error) {
	payload, err := encode(in.Says)
	if err != nil {
		return "", nil, err
	}
	var of struct {
		Graph string `json:"graph"`
	}
	if err := json.Unmarshal(payload, &of); err != nil {
		return "", nil, err
	}
	change, err = graph.ParseChange(in.Kind.Command(), payload)
	return of.Graph, change, err
}

// effects returns the messages that tell of changes. What the protocol has no word for is left out.
func (c *Coordinator) effects(id string, effects []graph.Change) []forwarding.Message {
	messages := make([]forwarding.Message, 0, len(effects))
	for _, e := range effects {
		if _, silent := e.(graph.ChangeProperties); silent {
			continue
		}
		m, err := effect(id, e)
		if err != nil {
			c.logged(err)
			continue
		}
		messages = append(messages, m)
	}
	return messages
}

func effect(id string, e graph.Change) (forwarding.Message, error) {
	payload, err := graph.Payload(e)
	if err != nil {
		return forwarding.Message{}, err
	}
	key := "graph"
	if _, ok := e.(graph.Clear); ok {
		key = "id"
	}
	name, err := encode(id)
	if err != nil {
		return forwarding.Message{}, err
	}
	said := slices.Concat([]byte(`{"`+key+`":`), name)
	if string(payload) != "{}" {
		said = append(said, ',')
	}
	out := fbp.Output{Kind: fbp.KindOf("graph", e.Command()), Payload: append(said, payload[1:]...)}
	p, err := out.Parse()
	if err != nil {
		return forwarding.Message{}, fmt.Errorf("%s: %w", e.Command(), err)
	}
	m, err := forwarding.NewMessage(p)
	m.Graph = id
	return m, err
}
