package graph

import (
	"errors"
	"fmt"
	"slices"
)

// A Conflict says why a change that was made to one graph does not fit another: what stands in the way there.
type Conflict struct {
	Change Change
	Reason error
}

// Error returns the command and what stands in its way.
func (c *Conflict) Error() string { return fmt.Sprintf("%s: %v", c.Change.Command(), c.Reason) }

// Unwrap returns what stands in the way.
func (c *Conflict) Unwrap() error { return c.Reason }

// Rebase fits changes that were made to base to another graph that has come from base, onto. It returns those that are
// left to make there, without what is so already, and apart from them those that do not fit: what they would change is gone
// or has got another value, what they would remove has become something else or has got something attached. Neither graph
// is touched. The ends and data of changes must be spelled out, as they are in effects, in what undoes a change and in a
// Diff.
func Rebase(base, onto *Graph, changes []Change) (left []Change, conflicts []*Conflict) {
	base, onto = base.Clone(), onto.Clone()
	for _, c := range changes {
		done, err := fits(c, base, onto)
		if err == nil && !done {
			if _, _, err = c.apply(onto); err == nil {
				left = append(left, c)
			}
		}
		_, _, _ = c.apply(base) // it was made to it
		if err != nil {
			conflicts = append(conflicts, &Conflict{c, err})
		}
	}
	return left, conflicts
}

// fits reports whether a change to base has nothing left to do in onto, or what stands in its way that the change itself
// would not notice.
func fits(c Change, base, onto *Graph) (done bool, err error) {
	switch c := c.(type) {
	case Clear:
		if !Same(base, onto) {
			return false, errors.New("the graph has been changed")
		}
	case ChangeProperties:
		was, is := base.properties(), onto.properties()
		return false, c.Properties.fits("the graph", was, is)
	case AddNode:
		n, ok := onto.Node(c.ID)
		return ok && n.Equal(Node(c)), nil
	case RemoveNode:
		return fitsRemoval(c.ID, base, onto)
	case RenameNode:
		_, from := onto.Node(c.From)
		_, to := onto.Node(c.To)
		return !from && to, nil
	case ChangeNode:
		was, _ := base.Node(c.ID)
		if is, ok := onto.Node(c.ID); ok {
			return false, c.Metadata.fits(fmt.Sprintf("node %q", c.ID), was.Metadata, is.Metadata)
		}
	case AddEdge:
		e, ok := onto.Edge(c.Src, c.Tgt)
		return ok && e.Equal(Edge(c)), nil
	case RemoveEdge:
		_, ok := onto.Edge(c.Src, c.Tgt)
		return !ok, nil
	case ChangeEdge:
		was, _ := base.Edge(c.Src, c.Tgt)
		if is, ok := onto.Edge(c.Src, c.Tgt); ok {
			return false, c.Metadata.fits("edge "+is.String(), was.Metadata, is.Metadata)
		}
	case AddInitial:
		return onto.count(c.Tgt, c.Src.Data) > base.count(c.Tgt, c.Src.Data), nil
	case RemoveInitial:
		return c.Src != nil && onto.count(c.Tgt, c.Src.Data) < base.count(c.Tgt, c.Src.Data), nil
	case AddInport:
		x, ok := onto.Inport(c.Public)
		return ok && x.Equal(Exported(c)), nil
	case AddOutport:
		x, ok := onto.Outport(c.Public)
		return ok && x.Equal(Exported(c)), nil
	case RemoveInport:
		was, _ := base.Inport(c.Public)
		is, ok := onto.Inport(c.Public)
		return fitsExport("inport", was, is, ok)
	case RemoveOutport:
		was, _ := base.Outport(c.Public)
		is, ok := onto.Outport(c.Public)
		return fitsExport("outport", was, is, ok)
	case RenameInport:
		_, from := onto.Inport(c.From)
		_, to := onto.Inport(c.To)
		return !from && to, nil
	case RenameOutport:
		_, from := onto.Outport(c.From)
		_, to := onto.Outport(c.To)
		return !from && to, nil
	case AddGroup:
		i := onto.group(c.Name)
		return i >= 0 && onto.Groups[i].Equal(Group(c)), nil
	case RemoveGroup:
		i, j := base.group(c.Name), onto.group(c.Name)
		if j >= 0 && i >= 0 && !slices.Equal(base.Groups[i].Nodes, onto.Groups[j].Nodes) {
			return false, fmt.Errorf("group %q has other nodes now", c.Name)
		}
		return j < 0, nil
	case RenameGroup:
		return onto.group(c.From) < 0 && onto.group(c.To) >= 0, nil
	case ChangeGroup:
		i, j := base.group(c.Name), onto.group(c.Name)
		if i >= 0 && j >= 0 {
			return false, c.Metadata.fits(fmt.Sprintf("group %q", c.Name), base.Groups[i].Metadata, onto.Groups[j].Metadata)
		}
	}
	return false, nil
}

// fits refuses metadata that would overwrite a value that is neither the one that was there nor the new one.
func (m Metadata) fits(what string, was, is Metadata) error {
	for k, v := range m {
		if !sameValue(is[k], was[k]) && !sameValue(is[k], v) {
			value, _ := encode(is[k])
			return fmt.Errorf("%s: %q is %s now", what, k, value)
		}
	}
	return nil
}

// properties returns all properties with the name among them.
func (g *Graph) properties() Metadata {
	all := g.Properties.merge(nil)
	if g.Name != "" {
		all["name"] = g.Name
	}
	return all
}

// fitsRemoval refuses to remove a node that is another one now, or would take along what it had not.
func fitsRemoval(id string, base, onto *Graph) (done bool, err error) {
	was, _ := base.Node(id)
	is, ok := onto.Node(id)
	switch {
	case !ok:
		return true, nil
	case is.Component != was.Component:
		return false, fmt.Errorf("node %q is a %s now", id, is.Component)
	}
	for _, e := range onto.Edges {
		if e.Src.Node != id && e.Tgt.Node != id {
			continue
		}
		if _, ok := base.Edge(e.Src, e.Tgt); !ok {
			return false, fmt.Errorf("node %q has got the edge %v", id, e)
		}
	}
	for _, i := range onto.Initials {
		if i.Tgt.Node == id && onto.count(i.Tgt, i.Data) > base.count(i.Tgt, i.Data) {
			return false, fmt.Errorf("node %q has got the initial packet %v", id, i)
		}
	}
	for _, x := range onto.Inports {
		if was, _ := base.Inport(x.Public); x.Node == id && was.Node != id {
			return false, fmt.Errorf("node %q has got the exported inport %q", id, x.Public)
		}
	}
	for _, x := range onto.Outports {
		if was, _ := base.Outport(x.Public); x.Node == id && was.Node != id {
			return false, fmt.Errorf("node %q has got the exported outport %q", id, x.Public)
		}
	}
	return false, nil
}

func fitsExport(what string, was, is Exported, ok bool) (done bool, err error) {
	if ok && (is.Node != was.Node || is.Port != was.Port) {
		return false, fmt.Errorf("exported %s %q is %s.%s now", what, is.Public, is.Node, is.Port)
	}
	return !ok, nil
}

// count returns how often a packet is sent to a port.
func (g *Graph) count(tgt Endpoint, data []byte) (n int) {
	for _, i := range g.Initials {
		if i.Tgt == tgt && sameJSON(data, i.Data) {
			n++
		}
	}
	return n
}
