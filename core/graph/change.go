package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// SetProperty sets a property of the graph; a nil value removes it. The property "name" is the graph's name.
func (g *Graph) SetProperty(key string, value any) error {
	if key == "name" {
		name, ok := value.(string)
		if !ok && value != nil {
			return fmt.Errorf("the name of a graph must be a string, not %T", value)
		}
		g.Name = name
		return nil
	}
	g.Properties = g.Properties.merge(Metadata{key: value})
	return nil
}

// AddNode adds a node at the end.
func (g *Graph) AddNode(n Node) error {
	switch {
	case n.ID == "":
		return errors.New("node without an id")
	case n.Component == "":
		return fmt.Errorf("node %q has no component", n.ID)
	case g.node(n.ID) >= 0:
		return fmt.Errorf("node %q: %w", n.ID, ErrExists)
	}
	g.Nodes = append(g.Nodes, n)
	return nil
}

// RemoveNode removes a node and what hangs on it: its edges, initial packets and exported ports, its membership in groups,
// and the groups that it leaves empty.
func (g *Graph) RemoveNode(id string) error {
	i := g.node(id)
	if i < 0 {
		return fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	g.Nodes = slices.Delete(g.Nodes, i, i+1)
	g.Edges = slices.DeleteFunc(g.Edges, func(e Edge) bool { return e.Src.Node == id || e.Tgt.Node == id })
	g.Initials = slices.DeleteFunc(g.Initials, func(i Initial) bool { return i.Tgt.Node == id })
	ofNode := func(x Exported) bool { return x.Node == id }
	g.Inports = slices.DeleteFunc(g.Inports, ofNode)
	g.Outports = slices.DeleteFunc(g.Outports, ofNode)
	g.Groups = slices.DeleteFunc(g.Groups, func(p Group) bool { return len(p.Nodes) == 1 && p.Nodes[0] == id })
	for i := range g.Groups {
		p := &g.Groups[i]
		p.Nodes = slices.DeleteFunc(slices.Clone(p.Nodes), func(n string) bool { return n == id })
	}
	g.origin.forget(aNode, id)
	return nil
}

// RenameNode gives a node another id. It keeps its place, its edges and everything else that names it.
func (g *Graph) RenameNode(from, to string) error {
	i := g.node(from)
	switch {
	case i < 0:
		return fmt.Errorf("node %q: %w", from, ErrNotFound)
	case to == "":
		return fmt.Errorf("node %q cannot be renamed to nothing", from)
	case to == from:
		return nil
	case g.node(to) >= 0:
		return fmt.Errorf("node %q: %w", to, ErrExists)
	}
	rename := func(id *string) {
		if *id == from {
			*id = to
		}
	}
	rename(&g.Nodes[i].ID)
	for i := range g.Edges {
		rename(&g.Edges[i].Src.Node)
		rename(&g.Edges[i].Tgt.Node)
	}
	for i := range g.Initials {
		rename(&g.Initials[i].Tgt.Node)
	}
	for i := range g.Inports {
		rename(&g.Inports[i].Node)
	}
	for i := range g.Outports {
		rename(&g.Outports[i].Node)
	}
	for i := range g.Groups {
		for j := range g.Groups[i].Nodes {
			rename(&g.Groups[i].Nodes[j])
		}
	}
	g.origin.rename(aNode, from, to)
	return nil
}

// ChangeNode merges metadata into a node's: a nil value removes its key.
func (g *Graph) ChangeNode(id string, metadata Metadata) error {
	i := g.node(id)
	if i < 0 {
		return fmt.Errorf("node %q: %w", id, ErrNotFound)
	}
	g.Nodes[i].Metadata = g.Nodes[i].Metadata.merge(metadata)
	return nil
}

// AddEdge adds an edge between two nodes at the end.
func (g *Graph) AddEdge(e Edge) error {
	e.Src, e.Tgt = g.fold(e.Src), g.fold(e.Tgt)
	if err := g.check(e.Src); err != nil {
		return fmt.Errorf("edge %v: %w", e, err)
	}
	if err := g.check(e.Tgt); err != nil {
		return fmt.Errorf("edge %v: %w", e, err)
	}
	if g.edge(e.Src, e.Tgt) >= 0 {
		return fmt.Errorf("edge %v: %w", e, ErrExists)
	}
	g.Edges = append(g.Edges, e)
	return nil
}

// RemoveEdge removes the edge between these ends. Where there is none, an end without an index stands for every place of
// its array port, because many clients leave the index out.
func (g *Graph) RemoveEdge(src, tgt Endpoint) error {
	found, err := g.edges(src, tgt)
	if err != nil {
		return err
	}
	g.Edges = slices.DeleteFunc(g.Edges, func(e Edge) bool { return found(e) })
	return nil
}

// ChangeEdge merges metadata into that of the edges that RemoveEdge would remove: a nil value removes its key.
func (g *Graph) ChangeEdge(src, tgt Endpoint, metadata Metadata) error {
	found, err := g.edges(src, tgt)
	if err != nil {
		return err
	}
	for i := range g.Edges {
		if found(g.Edges[i]) {
			g.Edges[i].Metadata = g.Edges[i].Metadata.merge(metadata)
		}
	}
	return nil
}

// edges returns a test for the edges meant by two ends, of which there is at least one.
func (g *Graph) edges(src, tgt Endpoint) (found func(Edge) bool, err error) {
	src, tgt = g.fold(src), g.fold(tgt)
	exact := func(e Edge) bool { return e.Src == src && e.Tgt == tgt }
	covered := func(e Edge) bool { return covers(src, e.Src) && covers(tgt, e.Tgt) }
	switch {
	case slices.ContainsFunc(g.Edges, exact):
		return exact, nil
	case slices.ContainsFunc(g.Edges, covered):
		return covered, nil
	}
	return nil, fmt.Errorf("edge %v: %w", Edge{Src: src, Tgt: tgt}, ErrNotFound)
}

// AddInitial adds an initial packet at the end. A port may have several; they are sent in order.
func (g *Graph) AddInitial(i Initial) error {
	i.Tgt = g.fold(i.Tgt)
	if err := g.check(i.Tgt); err != nil {
		return fmt.Errorf("initial packet for %v: %w", i.Tgt, err)
	}
	var data bytes.Buffer
	if err := json.Compact(&data, i.Data); err != nil {
		return fmt.Errorf("initial packet for %v: %w", i.Tgt, err)
	}
	i.Data = data.Bytes()
	g.Initials = append(g.Initials, i)
	return nil
}

// RemoveInitial removes the initial packets of a port and returns them in order. Without an index it means every place
// of an array port.
func (g *Graph) RemoveInitial(tgt Endpoint) (removed []Initial, err error) {
	tgt = g.fold(tgt)
	var kept []Initial
	for _, i := range g.Initials {
		if covers(tgt, i.Tgt) {
			removed = append(removed, i)
		} else {
			kept = append(kept, i)
		}
	}
	if removed == nil {
		return nil, fmt.Errorf("initial packet for %v: %w", tgt, ErrNotFound)
	}
	g.Initials = kept
	return removed, nil
}

// AddInport exports a node's inport under a public name.
func (g *Graph) AddInport(x Exported) error { return g.export(&g.Inports, "inport", x) }

// RemoveInport takes an exported inport back.
func (g *Graph) RemoveInport(public string) error {
	return g.unexport(&g.Inports, "inport", anInport, public)
}

// RenameInport gives an exported inport another public name. It keeps its place.
func (g *Graph) RenameInport(from, to string) error {
	return g.renameExported(g.Inports, "inport", anInport, from, to)
}

// AddOutport exports a node's outport under a public name.
func (g *Graph) AddOutport(x Exported) error { return g.export(&g.Outports, "outport", x) }

// RemoveOutport takes an exported outport back.
func (g *Graph) RemoveOutport(public string) error {
	return g.unexport(&g.Outports, "outport", anOutport, public)
}

// RenameOutport gives an exported outport another public name. It keeps its place.
func (g *Graph) RenameOutport(from, to string) error {
	return g.renameExported(g.Outports, "outport", anOutport, from, to)
}

func (g *Graph) export(in *[]Exported, what string, x Exported) error {
	x.Public, x.Port = g.PortName(x.Public), g.PortName(x.Port)
	if x.Public == "" {
		return fmt.Errorf("exported %s without a name", what)
	}
	if err := g.check(Endpoint{Node: x.Node, Port: x.Port}); err != nil {
		return fmt.Errorf("exported %s %q: %w", what, x.Public, err)
	}
	if _, ok := g.exported(*in, x.Public); ok {
		return fmt.Errorf("exported %s %q: %w", what, x.Public, ErrExists)
	}
	*in = append(*in, x)
	return nil
}

func (g *Graph) unexport(in *[]Exported, what string, k kind, public string) error {
	public = g.PortName(public)
	if _, ok := g.exported(*in, public); !ok {
		return fmt.Errorf("exported %s %q: %w", what, public, ErrNotFound)
	}
	*in = slices.DeleteFunc(*in, func(x Exported) bool { return x.Public == public })
	g.origin.forget(k, public)
	return nil
}

func (g *Graph) renameExported(in []Exported, what string, k kind, from, to string) error {
	from, to = g.PortName(from), g.PortName(to)
	if _, ok := g.exported(in, from); !ok {
		return fmt.Errorf("exported %s %q: %w", what, from, ErrNotFound)
	}
	if to == "" {
		return fmt.Errorf("exported %s %q cannot be renamed to nothing", what, from)
	}
	if to == from {
		return nil
	}
	if _, ok := g.exported(in, to); ok {
		return fmt.Errorf("exported %s %q: %w", what, to, ErrExists)
	}
	for i := range in {
		if in[i].Public == from {
			in[i].Public = to
		}
	}
	g.origin.rename(k, from, to)
	return nil
}

// AddGroup groups nodes under a name that no other group has.
func (g *Graph) AddGroup(p Group) error {
	if p.Name == "" {
		return errors.New("group without a name")
	}
	if g.group(p.Name) >= 0 {
		return fmt.Errorf("group %q: %w", p.Name, ErrExists)
	}
	for _, id := range p.Nodes {
		if g.node(id) < 0 {
			return fmt.Errorf("group %q: node %q: %w", p.Name, id, ErrNotFound)
		}
	}
	p.Nodes = slices.Clone(p.Nodes) // RenameNode changes them in place
	g.Groups = append(g.Groups, p)
	return nil
}

// RemoveGroup removes a group; its nodes stay.
func (g *Graph) RemoveGroup(name string) error {
	i := g.group(name)
	if i < 0 {
		return fmt.Errorf("group %q: %w", name, ErrNotFound)
	}
	g.Groups = slices.Delete(g.Groups, i, i+1)
	g.origin.forget(aGroup, name)
	return nil
}

// RenameGroup gives a group another name. It keeps its place.
func (g *Graph) RenameGroup(from, to string) error {
	i := g.group(from)
	switch {
	case i < 0:
		return fmt.Errorf("group %q: %w", from, ErrNotFound)
	case to == "":
		return fmt.Errorf("group %q cannot be renamed to nothing", from)
	case to == from:
		return nil
	case g.group(to) >= 0:
		return fmt.Errorf("group %q: %w", to, ErrExists)
	}
	g.Groups[i].Name = to
	g.origin.rename(aGroup, from, to)
	return nil
}

// ChangeGroup merges metadata into a group's: a nil value removes its key.
func (g *Graph) ChangeGroup(name string, metadata Metadata) error {
	i := g.group(name)
	if i < 0 {
		return fmt.Errorf("group %q: %w", name, ErrNotFound)
	}
	g.Groups[i].Metadata = g.Groups[i].Metadata.merge(metadata)
	return nil
}

func (g *Graph) group(name string) int {
	return slices.IndexFunc(g.Groups, func(p Group) bool { return p.Name == name })
}

// check refuses an endpoint that names no node of the graph, or no port.
func (g *Graph) check(p Endpoint) error {
	if g.node(p.Node) < 0 {
		return fmt.Errorf("node %q: %w", p.Node, ErrNotFound)
	}
	if p.Port == "" {
		return fmt.Errorf("node %q: port without a name", p.Node)
	}
	return nil
}

// covers reports whether want means have: the same port, at the same place if want has one.
func covers(want, have Endpoint) bool {
	return want.Node == have.Node && want.Port == have.Port && (want.Index == 0 || want.Index == have.Index)
}
