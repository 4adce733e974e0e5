package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// jsonText is the FBP JSON that a graph was parsed from.
type jsonText struct {
	src  []byte
	opts options
}

// ParseJSON reads a graph in FBP JSON. The file's name is for errors only. A returned error is an Errors.
func ParseJSON(file string, src []byte, opts ...Option) (*Graph, error) {
	s, err := newSource(file, src)
	if err != nil {
		return nil, err
	}
	var whole json.RawMessage
	if err := json.Unmarshal(src, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset >= int64(len(src)) {
			s.fail(len(src), "the text ends in the middle of a JSON value")
		} else {
			s.jsonFail(0, err)
		}
		return nil, s.err()
	}
	text := &jsonText{src: bytes.Clone(src), opts: options{}.with(opts)}
	p := &jsonParser{source: s, g: &Graph{CaseSensitive: text.opts.caseSensitive}, nodes: map[string]bool{}}
	p.parse()
	if err := p.err(); err != nil {
		return nil, err
	}
	p.g.origin = newOrigin(p.g, nil, text)
	return p.g, nil
}

// jsonParser walks a text that is known to be valid JSON. Places are offsets, so that every error has a position.
type jsonParser struct {
	*source
	g     *Graph
	nodes map[string]bool
}

// member is one member of an object, or one element of an array without a key.
type member struct {
	key      string
	keyStart int
	keyEnd   int
	start    int
	end      int
}

func (p *jsonParser) parse() {
	top := skipWhite(p.src, 0)
	sections := p.object(top, "the graph")
	// Case and nodes come first, because the rest depends on them; the text may have any order.
	if m, ok := sections["caseSensitive"]; ok && p.value(m) != nil {
		fold, isBool := p.value(m).(bool)
		if !isBool {
			p.fail(m.start, "caseSensitive must be true or false")
		}
		p.g.CaseSensitive = p.g.CaseSensitive || fold
	}
	p.properties(sections["properties"])
	for _, m := range p.members(sections["processes"], '{', "processes") {
		p.process(m)
	}
	p.g.Inports = p.exports(sections["inports"], "inport")
	p.g.Outports = p.exports(sections["outports"], "outport")
	seen := map[[2]Endpoint]bool{}
	for _, m := range p.members(sections["connections"], '[', "connections") {
		p.connection(m, seen)
	}
	for _, m := range p.members(sections["groups"], '[', "groups") {
		p.group(m)
	}
}

func (p *jsonParser) properties(m member) {
	p.g.Properties = p.metadata(m, "properties")
	switch name := p.g.Properties["name"].(type) {
	case nil:
	case string:
		p.g.Name = name
	default:
		p.fail(p.object(m.start, "properties")["name"].start, "the name of the graph must be a string")
	}
	delete(p.g.Properties, "name")
}

func (p *jsonParser) process(m member) {
	fields := p.object(m.start, "a process")
	component, ok := p.string(m, fields, "component", "process "+strconv.Quote(m.key))
	if ok && component == "" {
		p.fail(fields["component"].start, "node %q has no component", m.key)
	}
	if m.key == "" {
		p.fail(m.keyStart, "node without an id")
	}
	p.nodes[m.key] = true
	p.g.Nodes = append(p.g.Nodes, Node{ID: m.key, Component: component, Metadata: p.metadata(fields["metadata"], "metadata")})
}

func (p *jsonParser) exports(section member, what string) (all []Exported) {
	seen := map[string]bool{}
	for _, m := range p.members(section, '{', what+"s") {
		fields := p.object(m.start, "an "+what)
		x := Exported{Public: p.g.PortName(m.key), Metadata: p.metadata(fields["metadata"], "metadata")}
		end := p.endpoint(m, fields, what+" "+strconv.Quote(m.key))
		x.Node, x.Port = end.Node, end.Port
		if x.Public == "" {
			p.fail(m.keyStart, "%s without a name", what)
		}
		if seen[x.Public] {
			p.fail(m.keyStart, "port %q is exported twice", x.Public)
			continue
		}
		seen[x.Public] = true
		all = append(all, x)
	}
	return all
}

func (p *jsonParser) connection(m member, seen map[[2]Endpoint]bool) {
	fields := p.object(m.start, "a connection")
	if fields == nil {
		return
	}
	tgt, hasTgt := fields["tgt"]
	src, hasSrc := fields["src"]
	data, hasData := fields["data"]
	if !hasTgt || !hasSrc && !hasData {
		p.fail(m.start, "a connection needs a tgt, and a src or data")
		return
	}
	metadata := p.metadata(fields["metadata"], "metadata")
	to := p.endpoint(tgt, p.object(tgt.start, "tgt"), "tgt")
	if hasData {
		p.g.Initials = append(p.g.Initials, Initial{Data: compact(p.raw(data)), Tgt: to, Metadata: metadata})
		return
	}
	from := p.endpoint(src, p.object(src.start, "src"), "src")
	if ends := [2]Endpoint{from, to}; !seen[ends] {
		seen[ends] = true
		p.g.Edges = append(p.g.Edges, Edge{Src: from, Tgt: to, Metadata: metadata})
	}
}

// endpoint reads process, port and index of an object that may be an edge's end or an exported port.
func (p *jsonParser) endpoint(m member, fields map[string]member, what string) (e Endpoint) {
	if fields == nil {
		return e
	}
	var ok bool
	if e.Node, ok = p.string(m, fields, "process", what); ok && !p.nodes[e.Node] {
		p.fail(fields["process"].start, "node %q is not in processes", e.Node)
	}
	if e.Port, ok = p.string(m, fields, "port", what); ok && e.Port == "" {
		p.fail(fields["port"].start, "%s: the port has no name", what)
	}
	e.Port = p.g.PortName(e.Port)
	switch index := p.value(fields["index"]).(type) {
	case nil:
	case float64:
		if i := int(index); index >= 0 && index < 1<<31 && float64(i) == index {
			e.Index = At(i)
			break
		}
		p.fail(fields["index"].start, "index must be a whole number from 0")
	default:
		p.fail(fields["index"].start, "index must be a whole number from 0")
	}
	return e
}

// group reads a group. That a group may name nodes that are gone is no error: editors leave such groups behind.
func (p *jsonParser) group(m member) {
	fields := p.object(m.start, "a group")
	if fields == nil {
		return
	}
	group := Group{Metadata: p.metadata(fields["metadata"], "metadata")}
	group.Name, _ = p.string(m, fields, "name", "group")
	for _, n := range p.members(fields["nodes"], '[', "nodes") {
		id, ok := p.value(n).(string)
		if !ok {
			p.fail(n.start, "group %q: the id of a node must be a string", group.Name)
		}
		group.Nodes = append(group.Nodes, id)
	}
	p.g.Groups = append(p.g.Groups, group)
}

func (p *jsonParser) metadata(m member, what string) Metadata {
	switch v := p.value(m).(type) {
	case nil:
		return nil
	case map[string]any:
		p.object(m.start, what) // for keys given twice
		return Metadata(v)
	default:
		p.fail(m.start, "%s must be an object", what)
		return nil
	}
}

// string reads the field of an object that must be there and be a string.
func (p *jsonParser) string(m member, fields map[string]member, key, what string) (s string, ok bool) {
	f, ok := fields[key]
	if !ok {
		if fields != nil {
			p.fail(m.start, "%s needs a %s", what, key)
		}
		return "", false
	}
	if s, ok = p.value(f).(string); !ok {
		p.fail(f.start, "%s: %s must be a string", what, key)
	}
	return s, ok
}

// object returns the members of the object at this place by key, or nil after reporting what is wrong with it.
func (p *jsonParser) object(at int, what string) map[string]member {
	if p.src[at] != '{' {
		p.fail(at, "%s must be an object", what)
		return nil
	}
	fields := map[string]member{}
	for _, m := range membersAt(p.src, at) {
		if _, ok := fields[m.key]; ok {
			p.fail(m.keyStart, "%q is given twice", m.key)
			continue
		}
		fields[m.key] = m
	}
	return fields
}

// members returns the members of a section that may be missing or null.
func (p *jsonParser) members(section member, open byte, what string) []member {
	switch {
	case section.end == 0 || string(p.raw(section)) == "null":
		return nil
	case p.src[section.start] != open:
		p.fail(section.start, "%s must be an %s", what, map[byte]string{'{': "object", '[': "array"}[open])
		return nil
	}
	if open == '{' {
		p.object(section.start, what) // for keys given twice
	}
	return membersAt(p.src, section.start)
}

func (p *jsonParser) raw(m member) json.RawMessage { return p.src[m.start:m.end] }

// value decodes a member, nil if it is missing.
func (p *jsonParser) value(m member) (v any) {
	if m.end == 0 {
		return nil
	}
	if err := json.Unmarshal(p.raw(m), &v); err != nil {
		p.fail(m.start, "JSON: %v", err)
	}
	return v
}

// membersAt returns the members of the object or array at this place of a valid JSON text.
func membersAt(src []byte, at int) (all []member) {
	isObject := src[at] == '{'
	for at = skipWhite(src, at+1); src[at] != '}' && src[at] != ']'; at = skipWhite(src, at) {
		if src[at] == ',' {
			at = skipWhite(src, at+1)
		}
		m := member{keyStart: at, keyEnd: at, start: at}
		if isObject {
			m.keyEnd = valueEnd(src, at)
			_ = json.Unmarshal(src[at:m.keyEnd], &m.key) // valid, as the whole text is
			m.start = skipWhite(src, skipWhite(src, m.keyEnd)+1)
		}
		m.end = valueEnd(src, m.start)
		all = append(all, m)
		at = m.end
	}
	return all
}

// valueEnd returns where the value at this place of a valid JSON text ends.
func valueEnd(src []byte, at int) int {
	for depth := 0; at < len(src); at++ {
		switch src[at] {
		case '"':
			for at++; src[at] != '"'; at++ {
				if src[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default: // a number or a word, or what stands between values
			for depth == 0 && at+1 < len(src) && bytes.IndexByte([]byte(",]} \t\r\n"), src[at+1]) < 0 {
				at++
			}
		}
		if depth == 0 {
			return at + 1
		}
	}
	return len(src)
}

func skipWhite(src []byte, at int) int {
	for at < len(src) && bytes.IndexByte([]byte(" \t\r\n"), src[at]) >= 0 {
		at++
	}
	return at
}
