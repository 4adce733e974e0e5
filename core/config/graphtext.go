package config

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/flogate/flogate/core/graph"
)

// text is where the text of a graph stands: in a file of its own, or somewhere in the site file.
type text struct {
	file string
	src  string
	// line is the line in file of the first line of src.
	line int
	// in is what holds the text, where it is not a file of its own, outer the lines of that file, and lines those of src.
	in           hcl.Range
	outer, lines []string
}

// inline returns the place of a text that an expression of the site file gave.
func (l *loader) inline(src string, in hcl.Range) text {
	site := l.diags.sources[l.file]
	line := in.Start.Line
	if strings.HasPrefix(string(site[min(in.Start.Byte, len(site)):]), "<<") {
		line++
	}
	return text{
		file: l.file, src: src, line: line, in: in,
		outer: strings.Split(string(site), "\n"), lines: strings.Split(src, "\n"),
	}
}

// at returns the range of one character of the text.
func (t text) at(line, column int) hcl.Range {
	if t.outer == nil {
		return point(t.file, line, column)
	}
	// The text is shifted by the indentation that an indented heredoc takes away, or by the quotes of a string; and where
	// something was put in by a template or an escape it is not there in this form at all.
	number := t.line + line - 1
	if line < 1 || line > len(t.lines) || number > len(t.outer) || number > t.in.End.Line {
		return t.in
	}
	before, _, ok := strings.Cut(t.outer[number-1], strings.TrimSuffix(t.lines[line-1], "\r"))
	if !ok {
		return t.in
	}
	return point(t.file, number, len([]rune(before))+column)
}

func point(file string, line, column int) hcl.Range {
	return hcl.Range{
		Filename: file,
		Start:    hcl.Pos{Line: line, Column: column},
		End:      hcl.Pos{Line: line, Column: column + 1},
	}
}

// parse parses a graph. What is wrong with it is reported where it stands.
func (l *loader) parse(g *graphAt) {
	parse := graph.ParseFBP
	if g.Format == "json" {
		parse = graph.ParseJSON
	}
	parsed, err := parse(g.text.file, []byte(g.text.src))
	if err == nil {
		g.Graph.Graph = parsed
		return
	}
	const summary = "Wrong graph"
	if all, ok := errors.AsType[graph.Errors](err); ok {
		for _, one := range all {
			l.diags.add(Error, g.text.at(one.Line, one.Column), summary, "%s", sentence(one.Message))
		}
		return
	}
	l.diags.add(Error, g.label, summary, "%s", sentence(err.Error()))
}

// An arrow of .fbp text with what stands at its ends. This is not the language, only what it looks like nearly always: it
// serves to point at something, and where it finds nothing the graph as a whole is pointed at.
var (
	beforeArrow = regexp.MustCompile(`([^\s(),>'"]+)(?:\([^)\n]*\))?[ \t]+([^\s(),>'"]+)[ \t]*(->)`)
	behindArrow = regexp.MustCompile(`(->)[ \t]*([^\s(),>'"]+)[ \t]+([^\s(),>'"]+)`)
)

// marks are where the nodes, ports and edges of a graph are first seen in its text, by their names.
type marks struct{ nodes, outports, inports, edges map[string]hcl.Range }

// markOf is the name of a port, or of a port of an edge, in marks. The case of ports does not count.
func markOf(node, port string) string { return node + "." + strings.ToLower(port) }

// find marks what is in the text of the graph. It is done once: a graph may be large and have a mistake in each line.
func (g *graphAt) find() *marks {
	if g.marks != nil {
		return g.marks
	}
	g.marks = &marks{map[string]hcl.Range{}, map[string]hcl.Range{}, map[string]hcl.Range{}, map[string]hcl.Range{}}
	if g.Format != "fbp" {
		return g.marks
	}
	first := func(m map[string]hcl.Range, name string, at hcl.Range) {
		if _, ok := m[name]; !ok {
			m[name] = at
		}
	}
	for i, line := range strings.Split(g.text.src, "\n") {
		line, _, _ = strings.Cut(line, "#")
		span := func(from, to int) hcl.Range {
			at := g.text.at(i+1, utf8.RuneCountInString(line[:from])+1)
			if at != g.text.in {
				at.End.Column = at.Start.Column + utf8.RuneCountInString(line[from:to])
			}
			return at
		}
		sources := map[int][]int{}
		for _, m := range beforeArrow.FindAllStringSubmatchIndex(line, -1) {
			sources[m[6]] = m
			node, port := line[m[2]:m[3]], line[m[4]:m[5]]
			first(g.marks.nodes, node, span(m[2], m[3]))
			first(g.marks.outports, markOf(node, port), span(m[4], m[5]))
		}
		for _, m := range behindArrow.FindAllStringSubmatchIndex(line, -1) {
			port, node := line[m[4]:m[5]], line[m[6]:m[7]]
			first(g.marks.nodes, node, span(m[6], m[7]))
			first(g.marks.inports, markOf(node, port), span(m[4], m[5]))
			if s := sources[m[2]]; s != nil {
				edge := markOf(line[s[2]:s[3]], line[s[4]:s[5]]) + " " + markOf(node, port)
				first(g.marks.edges, edge, span(s[2], m[7]))
			}
		}
	}
	return g.marks
}

// whereNode is where a node is first seen in the graph.
func (g *graphAt) whereNode(node string) hcl.Range {
	if at, ok := g.find().nodes[node]; ok {
		return at
	}
	return g.label
}

// wherePort is where a port is first seen in the graph.
func (g *graphAt) wherePort(e graph.Endpoint, in bool) hcl.Range {
	ports := g.find().outports
	if in {
		ports = g.find().inports
	}
	if at, ok := ports[markOf(e.Node, portText(e))]; ok {
		return at
	}
	return g.label
}

// whereEdge is where an edge is first seen in the graph.
func (g *graphAt) whereEdge(from, to graph.Endpoint) hcl.Range {
	if at, ok := g.find().edges[markOf(from.Node, portText(from))+" "+markOf(to.Node, portText(to))]; ok {
		return at
	}
	return g.label
}
