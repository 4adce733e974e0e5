package graph

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Apply makes a change to a graph. If it returns an error the graph is untouched.
//
// effects are what clients have to be told, in that order: all that a removed node takes along before the node itself;
// the edges and packets that were meant, with their places; metadata as it is now, after merging. [Replay] makes them to
// the copy that a client has.
//
// undo takes the change back when it is applied in order. What it adds again goes to the end.
func Apply(g *Graph, c Change) (effects, undo []Change, err error) {
	if effects, undo, err = c.apply(g); err != nil {
		return nil, nil, err
	}
	return effects, undo, nil
}

// Replay makes an effect to a copy of the graph that had it. It is as Apply but for metadata, which an effect has whole.
func Replay(g *Graph, effect Change) error {
	switch c := effect.(type) {
	case ChangeNode:
		i := g.node(c.ID)
		if i < 0 {
			return fmt.Errorf("node %q: %w", c.ID, ErrNotFound)
		}
		g.Nodes[i].Metadata = c.Metadata
	case ChangeEdge:
		i := g.edge(c.Src, c.Tgt)
		if i < 0 {
			return fmt.Errorf("edge %v: %w", Edge(c), ErrNotFound)
		}
		g.Edges[i].Metadata = c.Metadata
	case ChangeGroup:
		i := g.group(c.Name)
		if i < 0 {
			return fmt.Errorf("group %q: %w", c.Name, ErrNotFound)
		}
		g.Groups[i].Metadata = c.Metadata
	default:
		_, _, err := c.apply(g)
		return err
	}
	return nil
}

func (c Clear) apply(g *Graph) (effects, undo []Change, err error) {
	emptied := New(c.Name)
	emptied.CaseSensitive, emptied.origin = g.CaseSensitive, g.origin
	emptied.Properties = maps.Clone(g.Properties)
	if emptied.Properties == nil {
		emptied.Properties = Metadata{}
	}
	for key, value := range map[string]string{"library": c.Library, "icon": c.Icon, "description": c.Description} {
		if value != "" {
			emptied.Properties[key] = value
		} else {
			delete(emptied.Properties, key)
		}
	}
	undo = g.build(emptied)
	emptied.origin.was = map[named]string{}
	*g = *emptied
	return []Change{c}, undo, nil
}

func (c ChangeProperties) apply(g *Graph) (effects, undo []Change, err error) {
	back := ChangeProperties{Properties: Metadata{}}
	for key := range c.Properties {
		back.Properties[key] = g.Properties[key]
	}
	if name, ok := c.Properties["name"]; ok {
		if _, isString := name.(string); !isString && name != nil {
			return nil, nil, g.SetProperty("name", name)
		}
		back.Properties["name"] = nil
		if g.Name != "" {
			back.Properties["name"] = g.Name
		}
	}
	if c.CaseSensitive != nil && *c.CaseSensitive != g.CaseSensitive {
		if len(g.Nodes) > 0 {
			return nil, nil, errors.New("caseSensitive cannot be changed while the graph has nodes")
		}
		was := g.CaseSensitive
		g.CaseSensitive, back.CaseSensitive = *c.CaseSensitive, &was
	}
	for key, value := range c.Properties {
		_ = g.SetProperty(key, value) // fails for the name only, which was looked at
	}
	return []Change{c}, []Change{back}, nil
}

func (c AddNode) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata = withoutNil(c.Metadata)
	if c.Metadata == nil {
		c.Metadata = Metadata{}
	}
	if err := g.AddNode(Node(c)); err != nil {
		return nil, nil, err
	}
	return []Change{c}, []Change{RemoveNode{c.ID}}, nil
}

func (c RemoveNode) apply(g *Graph) (effects, undo []Change, err error) {
	node, ok := g.Node(c.ID)
	if !ok {
		return nil, nil, fmt.Errorf("node %q: %w", c.ID, ErrNotFound)
	}
	undo = []Change{AddNode(node)}
	add := func(effect, back Change) { effects, undo = append(effects, effect), append(undo, back) }
	for _, e := range g.Edges {
		if e.Src.Node == c.ID || e.Tgt.Node == c.ID {
			add(RemoveEdge{e.Src, e.Tgt}, AddEdge(e))
		}
	}
	for _, i := range g.Initials {
		if i.Tgt.Node == c.ID {
			add(RemoveInitial{&Packet{i.Data}, i.Tgt}, i.change())
		}
	}
	for _, x := range g.Inports {
		if x.Node == c.ID {
			add(RemoveInport{x.Public}, AddInport(x))
		}
	}
	for _, x := range g.Outports {
		if x.Node == c.ID {
			add(RemoveOutport{x.Public}, AddOutport(x))
		}
	}
	for _, p := range g.Groups {
		switch {
		case !slices.Contains(p.Nodes, c.ID):
		case len(p.Nodes) == 1:
			add(RemoveGroup{p.Name}, p.change(g))
		default: // the group stays and loses the node, which no command says
			undo = append(undo, RemoveGroup{p.Name}, p.change(g))
		}
	}
	return append(effects, c), undo, g.RemoveNode(c.ID)
}

func (c RenameNode) apply(g *Graph) (effects, undo []Change, err error) {
	return []Change{c}, []Change{RenameNode{From: c.To, To: c.From}}, g.RenameNode(c.From, c.To)
}

func (c ChangeNode) apply(g *Graph) (effects, undo []Change, err error) {
	was, _ := g.Node(c.ID)
	if err := g.ChangeNode(c.ID, c.Metadata); err != nil {
		return nil, nil, err
	}
	is, _ := g.Node(c.ID)
	return []Change{ChangeNode{c.ID, is.Metadata}}, []Change{ChangeNode{c.ID, was.Metadata.only(c.Metadata)}}, nil
}

func (c AddEdge) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata = withoutNil(c.Metadata)
	c.Src, c.Tgt = g.fold(c.Src), g.fold(c.Tgt)
	return []Change{c}, []Change{RemoveEdge{c.Src, c.Tgt}}, g.AddEdge(Edge(c))
}

func (c RemoveEdge) apply(g *Graph) (effects, undo []Change, err error) {
	found, err := g.edges(c.Src, c.Tgt)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range g.Edges {
		if found(e) {
			effects, undo = append(effects, RemoveEdge{e.Src, e.Tgt}), append(undo, AddEdge(e))
		}
	}
	return effects, undo, g.RemoveEdge(c.Src, c.Tgt)
}

func (c ChangeEdge) apply(g *Graph) (effects, undo []Change, err error) {
	found, err := g.edges(c.Src, c.Tgt)
	if err != nil {
		return nil, nil, err
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		if !found(*e) {
			continue
		}
		undo = append(undo, ChangeEdge{e.Src, e.Tgt, e.Metadata.only(c.Metadata)})
		e.Metadata = e.Metadata.merge(c.Metadata)
		effects = append(effects, ChangeEdge(*e))
	}
	return effects, undo, nil
}

func (c AddInitial) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata = withoutNil(c.Metadata)
	if c.Src.Data == nil {
		return nil, nil, fmt.Errorf("initial packet for %v without data", c.Tgt)
	}
	if err := g.AddInitial(Initial{Data: c.Src.Data, Tgt: c.Tgt, Metadata: c.Metadata}); err != nil {
		return nil, nil, err
	}
	added := g.Initials[len(g.Initials)-1]
	return []Change{added.change()}, []Change{RemoveInitial{&Packet{added.Data}, added.Tgt}}, nil
}

func (c RemoveInitial) apply(g *Graph) (effects, undo []Change, err error) {
	tgt := g.fold(c.Tgt)
	all := c.Src == nil || c.Src.Data == nil
	meant := func(is func(Endpoint) bool) (at []int) {
		for i, p := range g.Initials {
			if is(p.Tgt) && (all || sameJSON(c.Src.Data, p.Data)) {
				at = append(at, i)
			}
		}
		if !all {
			at = at[max(0, len(at)-1):]
		}
		return at
	}
	covered := func(p Endpoint) bool { return covers(tgt, p) }
	at := meant(covered)
	if exact := meant(func(p Endpoint) bool { return p == tgt }); !all && len(exact) > 0 {
		at = exact
	}
	if len(at) == 0 {
		return nil, nil, fmt.Errorf("initial packet for %v: %w", tgt, ErrNotFound)
	}
	var again []Change
	for _, i := range at {
		p := g.Initials[i]
		effects, again = append(effects, RemoveInitial{&Packet{p.Data}, p.Tgt}), append(again, p.change())
	}
	// A port's packets are sent in order. So those that would stand before one that comes back are put there again.
	behind := func(p Initial) bool { return p.Tgt == g.Initials[at[0]].Tgt }
	if !all && slices.ContainsFunc(g.Initials[at[0]+1:], behind) {
		again = nil
		for i, p := range g.Initials {
			if behind(p) {
				again = append(again, p.change())
				if i != at[0] {
					undo = append(undo, RemoveInitial{&Packet{p.Data}, p.Tgt})
				}
			}
		}
	}
	undo = append(undo, again...)
	for _, i := range slices.Backward(at) {
		g.Initials = slices.Delete(g.Initials, i, i+1)
	}
	return effects, undo, nil
}

func (c AddInport) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata, c.Public, c.Port = withoutNil(c.Metadata), g.PortName(c.Public), g.PortName(c.Port)
	return []Change{c}, []Change{RemoveInport{c.Public}}, g.AddInport(Exported(c))
}

func (c RemoveInport) apply(g *Graph) (effects, undo []Change, err error) {
	was, _ := g.Inport(c.Public)
	c.Public = g.PortName(c.Public)
	return []Change{c}, []Change{AddInport(was)}, g.RemoveInport(c.Public)
}

func (c RenameInport) apply(g *Graph) (effects, undo []Change, err error) {
	c.From, c.To = g.PortName(c.From), g.PortName(c.To)
	return []Change{c}, []Change{RenameInport{From: c.To, To: c.From}}, g.RenameInport(c.From, c.To)
}

func (c AddOutport) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata, c.Public, c.Port = withoutNil(c.Metadata), g.PortName(c.Public), g.PortName(c.Port)
	return []Change{c}, []Change{RemoveOutport{c.Public}}, g.AddOutport(Exported(c))
}

func (c RemoveOutport) apply(g *Graph) (effects, undo []Change, err error) {
	was, _ := g.Outport(c.Public)
	c.Public = g.PortName(c.Public)
	return []Change{c}, []Change{AddOutport(was)}, g.RemoveOutport(c.Public)
}

func (c RenameOutport) apply(g *Graph) (effects, undo []Change, err error) {
	c.From, c.To = g.PortName(c.From), g.PortName(c.To)
	return []Change{c}, []Change{RenameOutport{From: c.To, To: c.From}}, g.RenameOutport(c.From, c.To)
}

func (c AddGroup) apply(g *Graph) (effects, undo []Change, err error) {
	c.Metadata = withoutNil(c.Metadata)
	c.Nodes = append([]string{}, c.Nodes...)
	return []Change{c}, []Change{RemoveGroup{c.Name}}, g.AddGroup(Group(c))
}

func (c RemoveGroup) apply(g *Graph) (effects, undo []Change, err error) {
	i := g.group(c.Name)
	if i < 0 {
		return nil, nil, fmt.Errorf("group %q: %w", c.Name, ErrNotFound)
	}
	undo = []Change{g.Groups[i].change(g)}
	return []Change{c}, undo, g.RemoveGroup(c.Name)
}

func (c RenameGroup) apply(g *Graph) (effects, undo []Change, err error) {
	return []Change{c}, []Change{RenameGroup{From: c.To, To: c.From}}, g.RenameGroup(c.From, c.To)
}

func (c ChangeGroup) apply(g *Graph) (effects, undo []Change, err error) {
	i := g.group(c.Name)
	if i < 0 {
		return nil, nil, fmt.Errorf("group %q: %w", c.Name, ErrNotFound)
	}
	undo = []Change{ChangeGroup{c.Name, g.Groups[i].Metadata.only(c.Metadata)}}
	err = g.ChangeGroup(c.Name, c.Metadata)
	return []Change{ChangeGroup{c.Name, g.Groups[i].Metadata}}, undo, err
}

// build returns the changes that make the graph of one that has nothing but properties.
func (g *Graph) build(empty *Graph) (all []Change) {
	if m := empty.properties().changeTo(g.properties()); len(m) > 0 {
		all = append(all, ChangeProperties{Properties: m})
	}
	ids := map[string]bool{}
	for _, n := range g.Nodes {
		ids[n.ID] = true
		all = append(all, AddNode(n))
	}
	groups := map[string]bool{}
	for _, p := range g.Groups {
		if !groups[p.Name] {
			groups[p.Name] = true
			all = append(all, p.add(func(id string) bool { return ids[id] }))
		}
	}
	for _, x := range g.Inports {
		all = append(all, AddInport(x))
	}
	for _, x := range g.Outports {
		all = append(all, AddOutport(x))
	}
	for _, e := range g.Edges {
		all = append(all, AddEdge(e))
	}
	for _, i := range g.Initials {
		all = append(all, i.change())
	}
	return all
}

// change returns the change that adds the packet.
func (i Initial) change() AddInitial {
	return AddInitial{Src: Packet{i.Data}, Tgt: i.Tgt, Metadata: i.Metadata}
}

// change returns the change that adds the group to g.
func (p Group) change(g *Graph) AddGroup {
	return p.add(func(id string) bool { return g.node(id) >= 0 })
}

// add returns the change that adds the group, without nodes that are not there: files may have such groups.
func (p Group) add(there func(id string) bool) AddGroup {
	nodes := []string{}
	for _, id := range p.Nodes {
		if there(id) {
			nodes = append(nodes, id)
		}
	}
	return AddGroup{Name: p.Name, Nodes: nodes, Metadata: p.Metadata}
}

// only returns the change that gives the keys of change the values that they have in m.
func (m Metadata) only(change Metadata) Metadata {
	out := Metadata{}
	for k := range change {
		out[k] = m[k]
	}
	return out
}

// withoutNil returns metadata that adds something, where nil removes nothing.
func withoutNil(m Metadata) Metadata {
	for _, v := range m {
		if v == nil {
			m = maps.Clone(m)
			maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
			break
		}
	}
	return m
}
