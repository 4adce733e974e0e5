package graph

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// A Graph is a flow-based program as data. Its slices keep the order in which things were written or added.
//
// The fields may be read freely and built by hand; the methods that change a graph keep it consistent (no edge without
// its nodes, no node twice) and leave it untouched when they fail. A Graph is not safe for concurrent use; Clone is cheap
// and gives each reader its own.
type Graph struct {
	Name          string   // the "name" property
	CaseSensitive bool     // false: port names are folded to lower case
	Properties    Metadata // all but the name: "environment", "description", "icon" …
	Nodes         []Node
	Edges         []Edge
	Initials      []Initial
	Inports       []Exported
	Outports      []Exported
	Groups        []Group

	origin origin // the text it was parsed from, so that writing back can keep it
}

// Node is one process of the graph: an instance of a component.
type Node struct {
	ID        string   `json:"id"`
	Component string   `json:"component"`
	Metadata  Metadata `json:"metadata"`
}

// Endpoint is one port of a node, or one place of an array port. Endpoints are comparable.
type Endpoint struct {
	Node  string `json:"node"`
	Port  string `json:"port"`
	Index Index  `json:"index,omitzero"`
}

// Index is a place in an array port. The zero Index is none: the port as a whole.
type Index int

// At returns the Index of place i, counted from 0. A negative i is no index.
func At(i int) Index { return Index(max(i, -1) + 1) }

// Value returns the place, counted from 0, and whether there is one.
func (x Index) Value() (i int, ok bool) { return int(x) - 1, x > 0 }

// Edge carries packets from an outport to an inport. Its ends identify it: a graph holds no edge twice.
type Edge struct {
	Src      Endpoint `json:"src"`
	Tgt      Endpoint `json:"tgt"`
	Metadata Metadata `json:"metadata,omitzero"`
}

// Initial is an initial information packet (IIP): data that is sent to a port once, when the network starts.
type Initial struct {
	Data     json.RawMessage // compact JSON
	Tgt      Endpoint
	Metadata Metadata
}

// Exported is a node's port made the graph's own under a public name.
type Exported struct {
	Public   string   `json:"public"`
	Node     string   `json:"node"`
	Port     string   `json:"port"`
	Metadata Metadata `json:"metadata,omitzero"`
}

// Group is a named set of nodes, for display only.
type Group struct {
	Name     string   `json:"name"`
	Nodes    []string `json:"nodes"`
	Metadata Metadata `json:"metadata,omitzero"`
}

// Metadata is what clients attach to the parts of a graph: JSON values by key. Nothing runs differently because of it.
type Metadata map[string]any

// Equal reports whether both hold the same JSON values; none and empty are the same.
func (m Metadata) Equal(o Metadata) bool {
	if len(m) != len(o) {
		return false
	}
	for k, v := range m {
		if w, ok := o[k]; !ok || !sameValue(v, w) {
			return false
		}
	}
	return true
}

// sameValue reports whether both are the same in JSON.
func sameValue(a, b any) bool {
	switch a := a.(type) { // nearly all are of these
	case string:
		if b, ok := b.(string); ok {
			return a == b
		}
	case float64:
		if b, ok := b.(float64); ok {
			return a == b
		}
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// MarshalJSON writes no metadata as an empty object, as the FBP protocol wants it.
func (m Metadata) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return encode(map[string]any(m))
}

// merge returns m with the values of change laid over it: a nil value removes its key.
func (m Metadata) merge(change Metadata) Metadata {
	out := maps.Clone(m)
	if out == nil {
		out = Metadata{}
	}
	for k, v := range change {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// New returns an empty graph.
func New(name string) *Graph { return &Graph{Name: name} }

// Runtime returns the type of runtime that the graph is for ("msgflo", "noflo-nodejs"), or "": what `# @runtime` says.
func (g *Graph) Runtime() string {
	environment, _ := g.Properties["environment"].(map[string]any)
	kind, _ := environment["type"].(string)
	return kind
}

// Node returns the node with this id.
func (g *Graph) Node(id string) (n Node, ok bool) {
	i := g.node(id)
	if i < 0 {
		return Node{}, false
	}
	return g.Nodes[i], true
}

// Inport returns the exported inport with this public name.
func (g *Graph) Inport(public string) (x Exported, ok bool) { return g.exported(g.Inports, public) }

// Outport returns the exported outport with this public name.
func (g *Graph) Outport(public string) (x Exported, ok bool) { return g.exported(g.Outports, public) }

// Edge returns the edge between these ends. Port names are folded as the graph folds them.
func (g *Graph) Edge(src, tgt Endpoint) (e Edge, ok bool) {
	i := g.edge(g.fold(src), g.fold(tgt))
	if i < 0 {
		return Edge{}, false
	}
	return g.Edges[i], true
}

// PortName returns the port name as the graph spells it: in lower case unless the graph is case-sensitive.
func (g *Graph) PortName(port string) string { return foldPort(port, g.CaseSensitive) }

// Clone returns a copy that shares nothing with g that either of them may change. Metadata values are shared: they are
// replaced as a whole, never changed in place.
func (g *Graph) Clone() *Graph {
	c := *g
	c.Properties = maps.Clone(g.Properties)
	c.Nodes = slices.Clone(g.Nodes)
	c.Edges = slices.Clone(g.Edges)
	c.Initials = slices.Clone(g.Initials)
	c.Inports = slices.Clone(g.Inports)
	c.Outports = slices.Clone(g.Outports)
	c.Groups = slices.Clone(g.Groups)
	for i := range c.Groups {
		c.Groups[i].Nodes = slices.Clone(c.Groups[i].Nodes)
	}
	c.origin.was = maps.Clone(g.origin.was)
	return &c
}

// Equal reports whether both are the same graph with the same order of everything. Where they were parsed from does
// not count.
func (g *Graph) Equal(o *Graph) bool {
	if g == nil || o == nil {
		return g == o
	}
	return g.Name == o.Name && g.CaseSensitive == o.CaseSensitive && g.Properties.Equal(o.Properties) &&
		slices.EqualFunc(g.Nodes, o.Nodes, Node.Equal) &&
		slices.EqualFunc(g.Edges, o.Edges, Edge.Equal) &&
		slices.EqualFunc(g.Initials, o.Initials, Initial.Equal) &&
		slices.EqualFunc(g.Inports, o.Inports, Exported.Equal) &&
		slices.EqualFunc(g.Outports, o.Outports, Exported.Equal) &&
		slices.EqualFunc(g.Groups, o.Groups, Group.Equal)
}

// Equal reports whether both say the same.
func (n Node) Equal(o Node) bool {
	return n.ID == o.ID && n.Component == o.Component && n.Metadata.Equal(o.Metadata)
}

// Equal reports whether both say the same.
func (e Edge) Equal(o Edge) bool {
	return e.Src == o.Src && e.Tgt == o.Tgt && e.Metadata.Equal(o.Metadata)
}

// Equal reports whether both say the same.
func (i Initial) Equal(o Initial) bool {
	return i.Tgt == o.Tgt && bytes.Equal(i.Data, o.Data) && i.Metadata.Equal(o.Metadata)
}

// Equal reports whether both say the same.
func (x Exported) Equal(o Exported) bool {
	return x.Public == o.Public && x.Node == o.Node && x.Port == o.Port && x.Metadata.Equal(o.Metadata)
}

// Equal reports whether both say the same.
func (p Group) Equal(o Group) bool {
	return p.Name == o.Name && slices.Equal(p.Nodes, o.Nodes) && p.Metadata.Equal(o.Metadata)
}

// String returns the endpoint as logs, metrics and site files name it: "motor.start", "mux.in[2]".
func (p Endpoint) String() string {
	s := p.Node + "." + p.Port
	if i, ok := p.Index.Value(); ok {
		s += "[" + strconv.Itoa(i) + "]"
	}
	return s
}

// String returns the edge as logs, metrics and site files name it: "button.pressed -> motor.start". It stays the same as
// long as the edge does.
func (e Edge) String() string { return e.Src.String() + " -> " + e.Tgt.String() }

// String returns the packet and where it goes: `"on" -> lamp.switch`.
func (i Initial) String() string { return string(i.Data) + " -> " + i.Tgt.String() }

func (g *Graph) node(id string) int {
	return slices.IndexFunc(g.Nodes, func(n Node) bool { return n.ID == id })
}

func (g *Graph) edge(src, tgt Endpoint) int {
	return slices.IndexFunc(g.Edges, func(e Edge) bool { return e.Src == src && e.Tgt == tgt })
}

func (g *Graph) exported(in []Exported, public string) (Exported, bool) {
	public = g.PortName(public)
	i := slices.IndexFunc(in, func(x Exported) bool { return x.Public == public })
	if i < 0 {
		return Exported{}, false
	}
	return in[i], true
}

func (g *Graph) fold(p Endpoint) Endpoint {
	p.Port = g.PortName(p.Port)
	return p
}
