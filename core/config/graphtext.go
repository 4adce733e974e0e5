package config

import (
	"errors"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/flogate/flogate/core/graph"
)

// text is where the text of a graph stands: in a file of its own, or somewhere in the site file.
type text struct {
	file string
	src  string
	// line is the line in file of the first line of src.
	line int
	// in is what holds the text, where it is not a file of its own, and outer the lines of that file.
	in    hcl.Range
	outer []string
}

// inline returns the place of a text that an expression of the site file gave.
func (l *loader) inline(src string, in hcl.Range) text {
	site := l.diags.sources[l.file]
	line := in.Start.Line
	if strings.HasPrefix(string(site[min(in.Start.Byte, len(site)):]), "<<") {
		line++
	}
	return text{file: l.file, src: src, line: line, in: in, outer: strings.Split(string(site), "\n")}
}

// at returns the range of one character of the text.
func (t text) at(line, column int) hcl.Range {
	if t.outer == nil {
		return point(t.file, line, column)
	}
	// The text is shifted by the indentation that an indented heredoc takes away, or by the quotes of a string; and where
	// something was put in by a template or an escape it is not there in this form at all.
	lines := strings.Split(t.src, "\n")
	number := t.line + line - 1
	if line < 1 || line > len(lines) || number > len(t.outer) || number > t.in.End.Line {
		return t.in
	}
	before, _, ok := strings.Cut(t.outer[number-1], strings.TrimSuffix(lines[line-1], "\r"))
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
