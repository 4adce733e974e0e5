package graph

import (
	"encoding/json"
	"strings"
)

// origin is what a graph remembers of the text it was parsed from. The text is never edited while the graph changes:
// writing back compares the graph with it, so that any change, also one made directly in the fields, comes out right.
// Only names have to be followed, because a renamed thing is otherwise one thing gone and another new.
type origin struct {
	fbp  *fbpText         // nil unless parsed from .fbp
	json *jsonText        // nil unless parsed from JSON
	was  map[named]string // the name in the text of each thing that is still in the graph
}

type named struct {
	kind kind
	name string
}

type kind byte

const (
	aNode kind = iota
	anInport
	anOutport
	aGroup
)

// newOrigin remembers the names of everything in a graph as those of the text.
func newOrigin(g *Graph, fbp *fbpText, json *jsonText) origin {
	o := origin{fbp: fbp, json: json, was: map[named]string{}}
	for _, n := range g.Nodes {
		o.was[named{aNode, n.ID}] = n.ID
	}
	for _, x := range g.Inports {
		o.was[named{anInport, x.Public}] = x.Public
	}
	for _, x := range g.Outports {
		o.was[named{anOutport, x.Public}] = x.Public
	}
	for _, p := range g.Groups {
		o.was[named{aGroup, p.Name}] = p.Name
	}
	return o
}

// name returns the name that something has in the text, or "" if it is not in it.
func (o origin) name(k kind, now string) string { return o.was[named{k, now}] }

func (o origin) rename(k kind, from, to string) {
	was, ok := o.was[named{k, from}]
	if ok {
		delete(o.was, named{k, from})
		o.was[named{k, to}] = was
	}
}

func (o origin) forget(k kind, now string) { delete(o.was, named{k, now}) }

// connection is an edge or, with data, an initial packet.
type connection struct {
	Src, Tgt Endpoint
	data     json.RawMessage
	metadata Metadata
	old      int // its place among the connections of the text, or -1
}

// ends identify a connection. Packets may be there more than once.
type ends struct {
	src, tgt Endpoint
	data     string
}

func (c connection) ends() ends { return ends{c.Src, c.Tgt, string(c.data)} }

// connections returns edges and packets in one order: that of the text they are in, and edges first where it says nothing.
// before is what the text has.
func (g *Graph) connections(before []connection) []connection {
	places := map[ends][]int{}
	for i, c := range before {
		places[c.ends()] = append(places[c.ends()], i)
	}
	var edges, packets []connection
	for _, e := range g.Edges {
		edges = append(edges, connection{Src: e.Src, Tgt: e.Tgt, metadata: e.Metadata})
	}
	for _, i := range g.Initials {
		packets = append(packets, connection{Tgt: i.Tgt, data: i.Data, metadata: i.Metadata})
	}
	// What stands in another order than in the text counts as new: so what is removed and added again moves to the end.
	place := func(all []connection) (at []int) {
		last := -1
		for i := range all {
			was := all[i]
			was.Src.Node, was.Tgt.Node = g.origin.name(aNode, was.Src.Node), g.origin.name(aNode, was.Tgt.Node)
			all[i].old = -1
			candidates := places[was.ends()]
			for len(candidates) > 0 && candidates[0] <= last {
				candidates = candidates[1:]
			}
			if len(candidates) > 0 {
				all[i].old, last = candidates[0], candidates[0]
				candidates = candidates[1:]
			}
			places[was.ends()] = candidates
			at = append(at, last)
		}
		return at
	}
	edgesAt, packetsAt := place(edges), place(packets)
	var all []connection
	for len(edges) > 0 || len(packets) > 0 {
		if len(packets) == 0 || len(edges) > 0 && edgesAt[0] <= packetsAt[0] {
			all, edges, edgesAt = append(all, edges[0]), edges[1:], edgesAt[1:]
		} else {
			all, packets, packetsAt = append(all, packets[0]), packets[1:], packetsAt[1:]
		}
	}
	return all
}

func foldPort(port string, caseSensitive bool) string {
	if caseSensitive {
		return port
	}
	return strings.ToLower(port)
}
