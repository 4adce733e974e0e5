package fbptest_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

// reference is the smallest runtime that passes the suite: maps for graphs, and networks that are through with their
// initial packets as soon as they are started. What it does wrong on purpose is in faults.
type reference struct {
	secret fbp.Secret
	graphs map[string]*refGraph
	faults faults
}

// faults make a mutant of a reference.
type faults struct {
	// rewrite changes what is sent for a request.
	rewrite func(in fbp.Input, answers [][]byte) [][]byte
	// parse changes what a request says.
	parse func(fbp.Payload) fbp.Payload

	anyGraph, noMerge, keepsNull, selectFirst, staysBusy, staysStarted bool
}

type refGraph struct {
	nodes    map[string]fbp.AddNode
	edges    []fbp.AddEdge
	initials []fbp.AddInitial
	started  bool
	selected bool
}

func newReference() *reference { return &reference{graphs: map[string]*refGraph{}} }

// serve answers one client until it is gone.
func (r *reference) serve(ctx context.Context, conn fbptest.Conn) {
	for {
		message, err := conn.Receive(ctx)
		if err != nil {
			return
		}
		in, answers := r.answer(message)
		texts := make([][]byte, len(answers))
		for i, out := range answers {
			texts[i] = out.Append(nil)
		}
		if r.faults.rewrite != nil {
			texts = r.faults.rewrite(in, texts)
		}
		for _, text := range texts {
			if conn.Send(ctx, text) != nil {
				return
			}
		}
	}
}

func (r *reference) answer(message []byte) (in fbp.Input, outs []fbp.Output) {
	in, err := fbp.DecodeInput(message)
	var p fbp.Payload
	if err == nil && !r.capabilities(in).MaySend(in.Kind) {
		err = fbp.NotPermitted(in.Kind)
	}
	if err == nil {
		p, err = in.Parse()
	}
	if r.faults.parse != nil && err == nil {
		p = r.faults.parse(p)
	}
	var answers []fbp.Payload
	if err == nil {
		answers, err = r.do(in, p)
	}
	if err != nil {
		return in, []fbp.Output{in.Fail(err)}
	}
	for _, p := range answers {
		out, err := fbp.NewOutput(p)
		if err != nil {
			return in, []fbp.Output{in.Fail(err)}
		}
		if out.Kind == in.Kind.Answer() {
			out.ResponseTo = in.ID
		}
		if r.capabilities(in).MayReceive(out.Kind) {
			outs = append(outs, out)
		}
	}
	return in, outs
}

func (r *reference) capabilities(in fbp.Input) fbp.Capabilities {
	if in.Secret.Equal(r.secret) {
		return fbp.AllCapabilities()
	}
	return fbp.Capabilities{}
}

func (r *reference) do(in fbp.Input, p fbp.Payload) ([]fbp.Payload, error) {
	switch p := p.(type) {
	case fbp.GetRuntime:
		return []fbp.Payload{
			fbp.Runtime{Type: "reference", Version: fbp.Version, AllCapabilities: fbp.AllCapabilities(), Capabilities: r.capabilities(in)},
			fbp.Ports{Graph: "main"},
		}, nil
	case fbp.ListComponents:
		repeat := fbp.Component{Name: "core/Repeat", InPorts: []fbp.Port{{ID: "in", Type: "all"}}, OutPorts: []fbp.Port{{ID: "out", Type: "all"}}}
		drop := fbp.Component{Name: "core/Drop", InPorts: []fbp.Port{{ID: "in", Type: "all"}}}
		return []fbp.Payload{drop, repeat, fbp.ComponentsReady(2)}, nil
	case fbp.ClearGraph:
		r.graphs[p.ID] = &refGraph{nodes: map[string]fbp.AddNode{}}
		return []fbp.Payload{p, fbp.Ports{Graph: p.ID}}, nil
	}
	var where struct{ Graph string }
	if err := json.Unmarshal(in.Payload, &where); err != nil {
		return nil, err
	}
	g := r.graphs[where.Graph]
	if g == nil {
		if !r.faults.anyGraph {
			return nil, fbp.Error{Message: fbp.GraphNotFound}
		}
		g = &refGraph{nodes: map[string]fbp.AddNode{}}
	}
	if in.Kind.Protocol() == "network" {
		return r.run(g, p)
	}
	return r.change(g, p)
}

func (r *reference) change(g *refGraph, p fbp.Payload) ([]fbp.Payload, error) {
	switch p := p.(type) {
	case fbp.AddNode:
		g.nodes[p.ID] = p
	case fbp.ChangeNode:
		node, was := g.nodes[p.ID], g.nodes[p.ID].Metadata
		if r.faults.noMerge {
			was = nil
		}
		merged, err := fbp.Merge(was, p.Metadata)
		if err != nil {
			return nil, err
		}
		if r.faults.keepsNull {
			merged = p.Metadata
		}
		node.Metadata, p.Metadata = merged, merged
		g.nodes[p.ID] = node
		return []fbp.Payload{p}, nil
	case fbp.RemoveNode:
		var answers []fbp.Payload
		g.edges = slices.DeleteFunc(g.edges, func(e fbp.AddEdge) bool {
			if e.Src.Node != p.ID && e.Tgt.Node != p.ID {
				return false
			}
			answers = append(answers, fbp.RemoveEdge{Src: e.Src, Tgt: e.Tgt, Graph: p.Graph})
			return true
		})
		delete(g.nodes, p.ID)
		return append(answers, p), nil
	case fbp.RenameNode:
		node := g.nodes[p.From]
		node.ID = p.To
		delete(g.nodes, p.From)
		g.nodes[p.To] = node
	case fbp.AddEdge:
		g.edges = append(g.edges, p)
	case fbp.AddInitial:
		g.initials = append(g.initials, p)
	case fbp.RemoveInitial:
		g.initials = slices.DeleteFunc(g.initials, func(i fbp.AddInitial) bool {
			if i.Tgt != p.Tgt {
				return false
			}
			p.Src = &i.Src
			return true
		})
		return []fbp.Payload{p}, nil
	}
	return []fbp.Payload{p}, nil
}

func (r *reference) run(g *refGraph, p fbp.Payload) ([]fbp.Payload, error) {
	switch p := p.(type) {
	case fbp.StartNetwork:
		g.started = true
		answers := []fbp.Payload{fbp.Started{Graph: p.Graph, Started: true, Running: true}}
		for _, i := range g.initials {
			if !r.faults.selectFirst || g.selected {
				answers = append(answers, fbp.Data{ID: fbp.EdgeLine(nil, i.Tgt), Tgt: i.Tgt, Graph: p.Graph, Data: i.Src.Data})
				answers = append(answers, g.flow(p.Graph, i.Tgt.Node, i.Src.Data)...)
			}
		}
		return answers, nil
	case fbp.StopNetwork:
		g.started = r.faults.staysStarted
		return []fbp.Payload{fbp.Stopped{Graph: p.Graph, Uptime: 1}}, nil
	case fbp.GetStatus:
		return []fbp.Payload{fbp.Status{Graph: p.Graph, Started: g.started, Running: g.started && r.faults.staysBusy}}, nil
	case fbp.SelectEdges:
		g.selected = true
	}
	return []fbp.Payload{p}, nil
}

// flow is what a packet does at a node: repeated to all edges from there, where there are such.
func (g *refGraph) flow(graph, node string, data json.RawMessage) (all []fbp.Payload) {
	for _, e := range g.edges {
		if e.Src.Node == node {
			all = append(all, fbp.Data{ID: fbp.EdgeLine(&e.Src, e.Tgt), Src: &e.Src, Tgt: e.Tgt, Graph: graph, Data: data})
		}
	}
	return all
}

// edit returns a rewrite that changes the messages of one kind; nil leaves one out.
func edit(k fbp.Kind, change func(message, payload map[string]any) map[string]any) func(fbp.Input, [][]byte) [][]byte {
	return func(_ fbp.Input, answers [][]byte) (edited [][]byte) {
		for _, text := range answers {
			var message map[string]any
			if err := json.Unmarshal(text, &message); err != nil {
				panic(err)
			}
			if message["protocol"] == k.Protocol() && message["command"] == k.Command() {
				payload, _ := message["payload"].(map[string]any)
				if message = change(message, payload); message == nil {
					continue
				}
			}
			again, err := json.Marshal(message)
			if err != nil {
				panic(err)
			}
			edited = append(edited, again)
		}
		return edited
	}
}

// with returns a rewrite that puts a key into payloads of one kind; nil takes it out.
func with(k fbp.Kind, key string, value any) func(fbp.Input, [][]byte) [][]byte {
	return edit(k, func(message, payload map[string]any) map[string]any {
		payload = maps.Clone(payload)
		if payload[key] = value; value == nil {
			delete(payload, key)
		}
		message["payload"] = payload
		return message
	})
}

// without returns a rewrite that leaves out messages of one kind.
func without(k fbp.Kind) func(fbp.Input, [][]byte) [][]byte {
	return edit(k, func(map[string]any, map[string]any) map[string]any { return nil })
}
