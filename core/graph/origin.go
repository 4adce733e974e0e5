package graph

import "strings"

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

func foldPort(port string, caseSensitive bool) string {
	if caseSensitive {
		return port
	}
	return strings.ToLower(port)
}
