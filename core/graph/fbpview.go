package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

// LostInFBP names what FBP leaves out, in the order of the graph: groups, metadata and properties that the language has no
// words for. Nothing runs differently without them.
func (g *Graph) LostInFBP() []string {
	v := fbpView{g: g.Clone()}
	v.reduce()
	return v.lost
}

// inFBP returns the part of the graph that the language can express, or an error if more than metadata is missing.
func (g *Graph) inFBP() (*Graph, error) {
	var errs []error
	check := func(what, s string, end int) {
		if end != len(s) || s == "" {
			errs = append(errs, fmt.Errorf("%s %q has characters that the language does not allow", what, s))
		}
	}
	port := func(name string) {
		check("port", name, word([]byte(name), 0, portChars))
		if name != g.PortName(name) {
			errs = append(errs, fmt.Errorf("port %q is not in lower case, and the graph is not case-sensitive", name))
		}
	}
	for _, n := range g.Nodes {
		check("node", n.ID, word([]byte(n.ID), 0, nodeChars))
		check("component", n.Component, over([]byte(n.Component), 0, componentChars))
	}
	for _, e := range g.Edges {
		port(e.Src.Port)
		port(e.Tgt.Port)
	}
	for _, i := range g.Initials {
		port(i.Tgt.Port)
		if !json.Valid(i.Data) {
			errs = append(errs, fmt.Errorf("the initial packet for %v is not JSON", i.Tgt))
		}
	}
	for _, x := range slices.Concat(g.Inports, g.Outports) {
		port(x.Port)
		port(x.Public)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	v := fbpView{g: g.Clone()}
	v.reduce()
	return v.g, nil
}

var (
	propertyKey   = regexp.MustCompile(`^[a-zA-Z0-9\-_]+$`)
	propertyWords = regexp.MustCompile(`^[a-zA-Z0-9\-_.][a-zA-Z0-9\-_ .]*$`)
	metadataWord  = regexp.MustCompile(`^[a-zA-Z/_0-9]*$`)
	digits        = regexp.MustCompile(`^[0-9]+$`)
)

// fbpView reduces a graph to what the language can express.
type fbpView struct {
	g    *Graph
	lost []string
}

func (v *fbpView) lose(format string, args ...any) {
	v.lost = append(v.lost, fmt.Sprintf(format, args...))
}

func (v *fbpView) reduce() {
	g := v.g
	if g.Name != "" && !propertyWords.MatchString(g.Name) {
		v.lose("property %q", "name")
		g.Name = ""
	}
	for _, key := range slices.Sorted(maps.Keys(g.Properties)) {
		if !v.property(key) {
			delete(g.Properties, key)
		}
	}
	for i := range g.Nodes {
		v.node(&g.Nodes[i])
	}
	for i := range g.Edges {
		v.metadata(g.Edges[i], &g.Edges[i].Metadata)
	}
	for i := range g.Initials {
		v.metadata(g.Initials[i], &g.Initials[i].Metadata)
	}
	for i := range g.Inports {
		v.metadata("inport "+strconv.Quote(g.Inports[i].Public), &g.Inports[i].Metadata)
	}
	for i := range g.Outports {
		v.metadata("outport "+strconv.Quote(g.Outports[i].Public), &g.Outports[i].Metadata)
	}
	for _, p := range g.Groups {
		v.lose("group %q", p.Name)
	}
	g.Groups = nil
}

// property reports whether something of a property stays.
func (v *fbpView) property(key string) bool {
	switch value := v.g.Properties[key].(type) {
	case string:
		if propertyKey.MatchString(key) && propertyWords.MatchString(value) && key != "runtime" && key != "name" &&
			(key != "caseSensitive" || value != "true") {
			return true
		}
	case map[string]any:
		if kind, ok := value["type"].(string); ok && key == "environment" && propertyWords.MatchString(kind) {
			for _, more := range slices.Sorted(maps.Keys(value)) {
				if more != "type" {
					v.lose("property %q: %q", key, more)
				}
			}
			v.g.Properties[key] = map[string]any{"type": kind}
			return true
		}
	}
	v.lose("property %q", key)
	return false
}

func (v *fbpView) node(n *Node) {
	kept := Metadata{}
	for _, key := range slices.Sorted(maps.Keys(n.Metadata)) {
		if value, ok := metadataText(key, n.Metadata[key]); ok {
			maps.Copy(kept, parseMetadata(key+"="+value))
		} else {
			v.lose("node %q: metadata %q", n.ID, key)
		}
	}
	n.Metadata = kept
}

func (v *fbpView) metadata(of any, m *Metadata) {
	if len(*m) > 0 {
		v.lose("%v: metadata", of)
	}
	*m = nil
}

// metadataText returns a value of a node's metadata as the language spells it: x and y are numbers, others words.
func metadataText(key string, value any) (text string, ok bool) {
	if !metadataWord.MatchString(key) {
		return "", false
	}
	if key != "x" && key != "y" {
		text, ok = value.(string)
		return text, ok && metadataWord.MatchString(text)
	}
	if value == nil {
		return "", true
	}
	raw, err := encode(value)
	return string(raw), err == nil && digits.Match(raw)
}
