package graph

import "slices"

// Diff returns changes that turn old into a graph that says the same as is: applied to old in order, they leave nothing to
// differ but the order of things that nothing depends on. The order of the packets of one port is kept.
//
// What no command can change is removed and added again: the component of a node with all that hangs on it, an exported
// port, a packet, the nodes of a group. What only files may have is left out: groups of one name, nodes in them that do not
// exist, metadata that is null.
func Diff(old, is *Graph) []Change {
	d := differ{w: old.Clone(), is: is, nodes: map[string]Node{}, edges: map[[2]Endpoint]Edge{}}
	for _, n := range is.Nodes {
		d.nodes[n.ID] = n
	}
	for _, e := range is.Edges {
		d.edges[[2]Endpoint{e.Src, e.Tgt}] = e
	}
	d.remove()
	d.change()
	d.add()
	return d.changes
}

// Same reports whether both graphs say the same: there is no difference for Diff.
func Same(a, b *Graph) bool { return len(Diff(a, b)) == 0 }

type differ struct {
	w       *Graph // old, on its way to is
	is      *Graph
	nodes   map[string]Node      // of is
	edges   map[[2]Endpoint]Edge // of is
	changes []Change
}

func (d *differ) emit(c Change) {
	// None of them can fail on the graph that it was made for; if one did, the next difference would show it.
	if _, _, err := c.apply(d.w); err == nil {
		d.changes = append(d.changes, c)
	}
}

// say is emit where nothing that follows looks at it: a large graph would be searched for each of its parts.
func (d *differ) say(c Change) { d.changes = append(d.changes, c) }

// remove takes out what is gone, and what can only be changed by putting it there anew.
func (d *differ) remove() {
	otherCase := d.w.CaseSensitive != d.is.CaseSensitive
	groups := map[string]int{}
	if !slices.EqualFunc(d.w.Groups, d.is.Groups, Group.Equal) {
		for _, p := range d.w.Groups {
			groups[p.Name]++
		}
	}
	for _, p := range slices.Clone(d.w.Groups) {
		if d.is.group(p.Name) < 0 || groups[p.Name] > 1 {
			d.emit(RemoveGroup{p.Name})
		}
	}
	for _, x := range slices.Clone(d.w.Inports) {
		if now, ok := d.is.Inport(x.Public); !ok || !now.says(x) {
			d.emit(RemoveInport{x.Public})
		}
	}
	for _, x := range slices.Clone(d.w.Outports) {
		if now, ok := d.is.Outport(x.Public); !ok || !now.says(x) {
			d.emit(RemoveOutport{x.Public})
		}
	}
	for _, e := range slices.Clone(d.w.Edges) {
		_, ok := d.edges[[2]Endpoint{e.Src, e.Tgt}]
		_, src := d.nodes[e.Src.Node]
		_, tgt := d.nodes[e.Tgt.Node]
		if !ok && src && tgt { // others go with their node
			d.emit(RemoveEdge{e.Src, e.Tgt})
		}
	}
	d.removeInitials()
	for _, n := range slices.Clone(d.w.Nodes) {
		if now, ok := d.nodes[n.ID]; !ok || now.Component != n.Component || otherCase {
			d.emit(RemoveNode{n.ID})
		}
	}
}

// removeInitials takes out the packets of a port unless all that has to be done is to add some behind them.
func (d *differ) removeInitials() {
	now, before := packets(d.is), packets(d.w)
	for _, first := range slices.Clone(d.w.Initials) {
		tgt := first.Tgt
		old := before[tgt]
		delete(before, tgt)
		same := len(old) <= len(now[tgt])
		for i := range old {
			same = same && sameJSON(old[i].Data, now[tgt][i].Data) && len(old[i].Metadata.changeTo(now[tgt][i].Metadata)) == 0
		}
		if _, ok := d.nodes[tgt.Node]; same || !ok {
			continue
		}
		for _, i := range old {
			d.emit(RemoveInitial{&Packet{i.Data}, i.Tgt})
		}
	}
}

// packets returns the initial packets of each port.
func packets(g *Graph) map[Endpoint][]Initial {
	all := map[Endpoint][]Initial{}
	for _, i := range g.Initials {
		all[i.Tgt] = append(all[i.Tgt], i)
	}
	return all
}

// change changes the metadata of what stays.
func (d *differ) change() {
	properties := d.w.Properties.changeTo(d.is.Properties)
	if d.w.Name != d.is.Name {
		properties["name"] = nil
		if d.is.Name != "" {
			properties["name"] = d.is.Name
		}
	}
	c := ChangeProperties{Properties: properties}
	if d.w.CaseSensitive != d.is.CaseSensitive {
		c.CaseSensitive = &d.is.CaseSensitive
	}
	if len(properties) > 0 || c.CaseSensitive != nil {
		d.emit(c)
	}
	for _, n := range slices.Clone(d.w.Nodes) {
		if m := n.Metadata.changeTo(d.nodes[n.ID].Metadata); len(m) > 0 {
			d.emit(ChangeNode{n.ID, m})
		}
	}
	for _, e := range slices.Clone(d.w.Edges) {
		if m := e.Metadata.changeTo(d.edges[[2]Endpoint{e.Src, e.Tgt}].Metadata); len(m) > 0 {
			d.emit(ChangeEdge{e.Src, e.Tgt, m})
		}
	}
}

// add adds what is missing.
func (d *differ) add() {
	have := map[string]bool{}
	for _, n := range d.w.Nodes {
		have[n.ID] = true
	}
	for _, n := range d.is.Nodes {
		if !have[n.ID] {
			d.say(AddNode(n))
		}
	}
	for at, p := range d.is.Groups {
		if d.is.group(p.Name) < at {
			continue
		}
		i := d.w.group(p.Name)
		wanted := p.change(d.is)
		if i >= 0 && !slices.Equal(d.w.Groups[i].change(d.w).Nodes, wanted.Nodes) {
			d.emit(RemoveGroup{p.Name})
			i = -1
		}
		if i < 0 {
			d.say(wanted)
		} else if m := d.w.Groups[i].Metadata.changeTo(p.Metadata); len(m) > 0 {
			d.emit(ChangeGroup{p.Name, m})
		}
	}
	for _, x := range d.is.Inports {
		if _, ok := d.w.Inport(x.Public); !ok {
			d.say(AddInport(x))
		}
	}
	for _, x := range d.is.Outports {
		if _, ok := d.w.Outport(x.Public); !ok {
			d.say(AddOutport(x))
		}
	}
	joined := map[[2]Endpoint]bool{}
	for _, e := range d.w.Edges {
		joined[[2]Endpoint{e.Src, e.Tgt}] = true
	}
	for _, e := range d.is.Edges {
		if !joined[[2]Endpoint{e.Src, e.Tgt}] {
			d.say(AddEdge(e))
		}
	}
	there := packets(d.w)
	for _, i := range d.is.Initials {
		if n := len(there[i.Tgt]); n > 0 {
			there[i.Tgt] = there[i.Tgt][1:]
			continue
		}
		d.say(i.change())
	}
}

// changeTo returns the metadata that merged into m gives now.
func (m Metadata) changeTo(now Metadata) Metadata {
	change := Metadata{}
	for k, v := range now {
		if v != nil && !sameValue(m[k], v) {
			change[k] = v
		}
	}
	for k, v := range m {
		if v != nil && now[k] == nil {
			change[k] = nil
		}
	}
	return change
}

func (x Exported) says(o Exported) bool {
	return x.Public == o.Public && x.Node == o.Node && x.Port == o.Port && len(x.Metadata.changeTo(o.Metadata)) == 0
}
