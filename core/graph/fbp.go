package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// fbpText is a parsed .fbp text: the statements in order, each with its place in the text. What lies between two
// statements (space, commas, comments) needs no description; it is copied when the graph is written back.
type fbpText struct {
	src        []byte
	opts       options
	statements []statement
}

// statement is one annotation, export, default port or chain of connections.
type statement struct {
	kind       statementKind
	start, end int

	key, value string    // annotation
	node       nodeRef   // inport, outport
	port, pub  span      // inport, outport; defaultIn, defaultOut use port
	elements   []element // chain
	tried      int       // chain: where an arrow could still have followed
}

type statementKind byte

const (
	chain statementKind = iota
	annotation
	inport
	outport
	defaultIn
	defaultOut
)

// element is one link of a chain: a packet (data) or a node with the ports that are spelled out.
type element struct {
	start, end int
	data       json.RawMessage
	node       nodeRef
	in, out    portRef
}

// passes reports whether an element can stand in the middle of a chain.
func (e element) passes() bool { return e.node.hasParens() || e.in.given() && e.out.given() }

// nodeRef is where a node is named, and perhaps declared: name(component:metadata). Without a name it is anonymous.
type nodeRef struct {
	name      string
	component string
	metadata  Metadata
	start     int
	parens    int // where the parenthesis opens; == end if there is none
	end       int
}

func (n nodeRef) hasParens() bool { return n.parens < n.end }

type portRef struct {
	name       string
	index      Index
	start, end int
}

func (p portRef) given() bool { return p.end > p.start }

type span struct{ start, end int }

// ParseFBP reads a graph in the .fbp language. The file's name is for errors only. A returned error is an Errors.
func ParseFBP(file string, src []byte, opts ...Option) (*Graph, error) {
	s, err := newSource(file, src)
	if err != nil {
		return nil, err
	}
	p := &fbpParser{source: s, in: portRef{name: "IN"}, out: portRef{name: "OUT"}, broken: map[string]bool{}}
	p.text = &fbpText{src: bytes.Clone(src), opts: options{}.with(opts)}
	p.parse()
	g := p.build()
	if err := p.err(); err != nil {
		return nil, err
	}
	g.origin = newOrigin(g, p.text, nil)
	return g, nil
}

// fbpParser follows the grammar of npm fbp, which has no tokens: what may stand in a word depends on where the word is.
type fbpParser struct {
	*source
	text     *fbpText
	in, out  portRef         // the default ports at this place
	unclosed bool            // there is no closing quote any more
	broken   map[string]bool // the nodes that may be declared in what was skipped after an error
}

// The characters that words of the language are made of.
const (
	letters        = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	numerals       = "0123456789"
	nodeChars      = letters + numerals + "-"
	portChars      = letters + numerals + "."
	componentChars = letters + numerals + "-/"
	metadataChars  = letters + numerals + "/=,"
)

var (
	annotationWords = regexp.MustCompile(`^# +@([a-zA-Z0-9\-_]+) +([a-zA-Z0-9\-_ .]+)`)
	declarations    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_\-]*)\(`)
)

// over returns where the characters end that start at this place.
func over(src []byte, at int, chars string) int {
	for at < len(src) && strings.IndexByte(chars, src[at]) >= 0 {
		at++
	}
	return at
}

// word returns where the name ends that starts at this place: the same place if there is none.
func word(src []byte, at int, chars string) int {
	if over(src[:min(at+1, len(src))], at, letters) == at {
		return at
	}
	return over(src, at, chars)
}

func (p *fbpParser) has(prefix string, at int) bool {
	return bytes.HasPrefix(p.src[at:], []byte(prefix))
}

func (p *fbpParser) spaces(at int) int { return over(p.src, at, " ") }

func (p *fbpParser) line(at int) int {
	for at < len(p.src) && newline(p.src, at) == 0 {
		at++
	}
	return at
}

func (p *fbpParser) parse() {
	lineStart := 0 // only there can an annotation be
	for at := 0; at < len(p.src); {
		begin := p.spaces(at)
		if words := p.annotation(at); words != nil && at == lineStart {
			end := at + len(words[0])
			p.add(statement{kind: annotation, start: at, end: end, key: string(words[1]), value: string(words[2])})
			at = end
			continue
		}
		switch {
		case begin == len(p.src):
			return
		case p.src[begin] == '#':
			at = p.line(begin)
			continue
		case newline(p.src, begin) > 0:
			at = begin + newline(p.src, begin)
			lineStart = at
			continue
		}
		st, ok := p.statement(begin)
		end := st.end
		if ok {
			end, ok = p.terminator(st)
		}
		if !ok {
			end = p.line(max(begin, end, p.errs[len(p.errs)-1].at))
			for _, word := range declarations.FindAllSubmatch(p.src[begin:end], -1) {
				p.broken[string(word[1])] = true
			}
			at = end
			continue
		}
		p.add(st)
		at = end
	}
}

// annotation matches `# @key value`, which is only a comment if anything else is on the line, or if no line follows.
func (p *fbpParser) annotation(at int) (words [][]byte) {
	if !p.has("#", at) {
		return nil
	}
	words = annotationWords.FindSubmatch(p.src[at:])
	if words == nil || newline(p.src, at+len(words[0])) == 0 {
		return nil
	}
	return words
}

func (p *fbpParser) add(st statement) { p.text.statements = append(p.text.statements, st) }

// terminator passes over what may follow a statement: a comma, or a comment or the end of the line, which are left.
func (p *fbpParser) terminator(st statement) (end int, ok bool) {
	end = p.spaces(st.end)
	switch {
	case end == len(p.src), p.src[end] == '#', newline(p.src, end) > 0:
		return end, true
	case p.src[end] == ',':
		return end + 1, true
	case p.src[end] == '>' && p.src[end-1] == '-':
		p.fail(end-1, "-> needs a space before it: - may be part of a name")
	case p.src[end] == ';':
		p.fail(end, "; does not separate statements: use a comma or a new line")
	case st.tried > end && !p.has("(", st.tried):
		p.unexpected(st.tried, "->")
	default:
		p.unexpected(end, "->, a comma or the end of the line")
	}
	return end, false
}

func (p *fbpParser) unexpected(at int, wanted string) {
	found := "the end of the text"
	switch {
	case at >= len(p.src):
	case newline(p.src, at) > 0:
		found = "the end of the line"
	case p.src[at] == '\t':
		found = "a tab (only spaces may separate words)"
	case p.src[at] == '[':
		found = "'[' (an index is a whole number, as in IN[0])"
	case p.src[at] == '(':
		if _, bad, ok := p.parens(at); !ok {
			p.unexpected(bad, `(component:key=value,…) of letters, digits, "/", "-" and "_"`)
			return
		}
		found = "'('"
	default:
		r, _ := utf8.DecodeRune(p.src[at:])
		found = strconv.QuoteRune(r)
	}
	p.fail(at, "expected %s, found %s", wanted, found)
}

// statement parses the statement that starts here. If it fails, end is how far it got.
func (p *fbpParser) statement(at int) (st statement, ok bool) {
	switch {
	case p.has("INPORT=", at):
		return p.export(inport, at, at+len("INPORT="))
	case p.has("OUTPORT=", at):
		return p.export(outport, at, at+len("OUTPORT="))
	case p.has("DEFAULT_INPORT=", at):
		return p.defaultPort(defaultIn, &p.in, at, at+len("DEFAULT_INPORT="))
	case p.has("DEFAULT_OUTPORT=", at):
		return p.defaultPort(defaultOut, &p.out, at, at+len("DEFAULT_OUTPORT="))
	case p.has("EXPORT=", at):
		p.fail(at, "EXPORT= is of an older language: use INPORT= or OUTPORT=")
		return statement{end: at}, false
	}
	return p.chain(at)
}

// export parses node.port:public after INPORT= or OUTPORT=.
func (p *fbpParser) export(kind statementKind, start, at int) (st statement, ok bool) {
	st = statement{kind: kind, start: start, end: at}
	if st.node, ok = p.node(at); !ok {
		p.unexpected(at, "a node")
		return st, false
	}
	for _, part := range []struct {
		mark string
		name *span
	}{{".", &st.port}, {":", &st.pub}} {
		at = max(st.node.end, st.port.end)
		if !p.has(part.mark, at) {
			p.unexpected(at, strconv.Quote(part.mark)+" as in node.port:name")
			return st, false
		}
		end := word(p.src, at+1, portChars)
		if end == at+1 {
			p.unexpected(end, "the name of a port")
			return st, false
		}
		*part.name = span{at + 1, end}
		st.end = end
	}
	return st, true
}

func (p *fbpParser) defaultPort(kind statementKind, port *portRef, start, at int) (st statement, ok bool) {
	end := word(p.src, at, portChars)
	if end == at {
		p.unexpected(at, "the name of a port")
		return statement{end: at}, false
	}
	port.name = string(p.src[at:end])
	return statement{kind: kind, start: start, end: end, port: span{at, end}}, true
}

// chain parses source -> source -> … -> target. A lone target declares its node.
func (p *fbpParser) chain(at int) (st statement, ok bool) {
	st = statement{kind: chain, start: at}
	for {
		e, ok := p.sender(at)
		if ok {
			st.tried = p.after(e)
			if p.has("->", st.tried) {
				st.elements = append(st.elements, p.defaults(e))
				at = p.spaces(st.tried + len("->"))
				continue
			}
		}
		st.end = at
		switch {
		case ok && e.data != nil:
			if st.end = e.end; len(st.elements) > 0 {
				p.fail(e.start, "a packet can only be at the start of a chain")
			} else {
				p.unexpected(p.after(e), "-> after the packet")
			}
			return st, false
		case !ok && e.end > at: // a broken packet, which was reported
			st.end = e.end
			return st, false
		}
		e, ok = p.receiver(at)
		if !ok {
			p.unexpected(e.end, "a node")
			return st, false
		}
		st.elements = append(st.elements, p.defaults(e))
		st.end = e.end
		return st, true
	}
}

// defaults fills in the ports that are not spelled out.
func (p *fbpParser) defaults(e element) element {
	if !e.in.given() {
		e.in.name = p.in.name
	}
	if !e.out.given() {
		e.out.name = p.out.name
	}
	return e
}

// sender parses what may stand before an arrow: a packet, or [port] node [port]. As in the reference grammar a word and a
// space are taken for the inport if a node follows that has an outport or a component, else for the node.
func (p *fbpParser) sender(at int) (e element, ok bool) {
	switch white := skipWhite(p.src, at); {
	case p.has(`'`, at):
		return p.quoted(at)
	case p.jsonStarts(at):
		return p.json(at)
	case p.has("\t", at) && (p.jsonStarts(white) || p.has("true", white) || p.has("false", white) || p.has("null", white)):
		// Without a tab, true, false and null are names of nodes.
		return p.json(white)
	}
	e = element{start: at, end: at}
	if in, ok := p.port(at); ok {
		if next := p.spaces(in.end); next > in.end {
			if n, ok := p.node(next); ok {
				out, ok := p.portAfter(n.end)
				if ok || n.hasParens() {
					return element{start: at, end: max(n.end, out.end), in: in, node: n, out: out}, true
				}
			}
		}
	}
	if e.node, ok = p.node(at); !ok {
		return e, false
	}
	e.out, _ = p.portAfter(e.node.end)
	e.end = max(e.node.end, e.out.end)
	return e, true
}

// receiver parses what may end a chain: [port] node.
func (p *fbpParser) receiver(at int) (e element, ok bool) {
	e = element{start: at, end: at}
	if in, ok := p.port(at); ok {
		if next := p.spaces(in.end); next > in.end {
			e.in, at = in, next
		}
	}
	// A single word and a space: the word was the node.
	if e.node, ok = p.node(at); !ok && e.in.given() {
		e.in = portRef{}
		e.node, ok = p.node(e.start)
	}
	if ok {
		e.end = e.node.end
	} else {
		e.end = at
	}
	return e, ok
}

func (p *fbpParser) port(at int) (port portRef, ok bool) {
	end := word(p.src, at, portChars)
	if end == at {
		return portRef{}, false
	}
	port = portRef{name: string(p.src[at:end]), start: at, end: end}
	if digits := over(p.src, end+1, numerals); p.has("[", end) && digits > end+1 && p.has("]", digits) {
		i, err := strconv.ParseInt(string(p.src[end+1:digits]), 10, 32)
		if err != nil {
			return portRef{}, false
		}
		port.index, port.end = At(int(i)), digits+1
	}
	return port, true
}

// portAfter parses a port behind at least one space.
func (p *fbpParser) portAfter(at int) (port portRef, ok bool) {
	next := p.spaces(at)
	if next == at {
		return portRef{}, false
	}
	return p.port(next)
}

func (p *fbpParser) node(at int) (n nodeRef, ok bool) {
	end := word(p.src, at, nodeChars)
	n = nodeRef{name: string(p.src[at:end]), start: at, parens: end, end: end}
	if parens, end, ok := p.parens(end); ok {
		n.component, n.metadata, n.end = parens.component, parens.metadata, end
	}
	return n, n.end > at
}

// parens parses (component:key=value,…). If it fails, end is how far it got.
func (p *fbpParser) parens(at int) (n nodeRef, end int, ok bool) {
	if !p.has("(", at) {
		return n, at, false
	}
	end = over(p.src, at+1, componentChars)
	n.component = string(p.src[at+1 : end])
	if p.has(":", end) {
		start := end + 1
		if end = over(p.src, start, metadataChars); end == start {
			return n, end, false
		}
		n.metadata = parseMetadata(string(p.src[start:end]))
	}
	if !p.has(")", end) {
		return n, end, false
	}
	return n, end + 1, true
}

// parseMetadata reads key=value,…; a value without a key names a route.
func parseMetadata(text string) Metadata {
	m := Metadata{}
	for item := range strings.SplitSeq(text, ",") {
		parts := strings.Split(item, "=")
		if len(parts) == 1 {
			parts = []string{"routes", item}
		}
		switch key, value := parts[0], parts[1]; key {
		case "x", "y":
			m[key] = coordinate(value)
		default:
			m[key] = value
		}
	}
	return m
}

// coordinate reads the number that a text starts with. JavaScript's parseFloat says NaN where there is none, which JSON
// writes as null.
func coordinate(text string) any {
	if number := coordinateWord.FindString(text); number != "" {
		if f, err := strconv.ParseFloat(number, 64); err == nil {
			return f
		}
	}
	return nil
}

var coordinateWord = regexp.MustCompile(`^[0-9]+([eE][0-9]+)?`)

// quoted parses a packet in single quotes, which may span lines. Only \' is an escape.
func (p *fbpParser) quoted(at int) (e element, ok bool) {
	var text strings.Builder
	// Behind a quote that nothing closes there is nothing that could close another.
	for i := at + 1; i < len(p.src) && !p.unclosed; i++ {
		switch {
		case p.has(`\'`, i):
			text.WriteByte('\'')
			i++
		case p.src[i] == '\'':
			data, err := encode(text.String())
			return element{start: at, end: i + 1, data: data}, err == nil
		default:
			text.WriteByte(p.src[i])
		}
	}
	p.unclosed = true
	p.fail(at, "the packet has no closing quote")
	return element{end: at + 1}, false
}

// json parses a JSON packet.
func (p *fbpParser) json(at int) (e element, ok bool) {
	raw, end, ok := p.jsonValue(at)
	if !ok {
		// What belongs to the packet is not worth errors of its own.
		end = p.errs[len(p.errs)-1].at
		if arrow := bytes.Index(p.src[end:], []byte("->")); arrow >= 0 {
			return element{end: end + arrow}, false
		}
		return element{end: len(p.src)}, false
	}
	return element{start: at, end: end, data: compact(raw)}, true
}

func (p *fbpParser) jsonStarts(at int) bool {
	return at < len(p.src) && strings.IndexByte(`{["-0123456789`, p.src[at]) >= 0 && !p.has("->", at)
}

// after returns where an arrow may follow: behind spaces, or behind any white space if it is a JSON packet.
func (p *fbpParser) after(e element) int {
	if e.data != nil && p.src[e.start] != '\'' {
		return skipWhite(p.src, e.end)
	}
	return p.spaces(e.end)
}

// build makes the graph of the statements, and reports what does not fit together.
func (p *fbpParser) build() *Graph {
	g := &Graph{CaseSensitive: p.text.opts.caseSensitive || p.text.caseSensitive()}
	b := fbpBuilder{fbpParser: p, g: g, nodes: map[string]int{}, seen: map[[2]Endpoint]bool{}, exported: map[named]bool{}}
	for i := range p.text.statements {
		b.nodesOf(&p.text.statements[i])
	}
	for i, n := range g.Nodes {
		if n.Component == "" && !p.broken[n.ID] {
			p.fail(b.declared[i], "node %q has no component", n.ID)
		}
	}
	for _, st := range p.text.statements {
		b.add(st)
	}
	return g
}

// caseSensitive reports whether the text itself asks for ports to keep their case.
func (t *fbpText) caseSensitive() bool {
	return slices.ContainsFunc(t.statements, func(st statement) bool { return st.asksForCase() })
}

func (st statement) asksForCase() bool {
	return st.kind == annotation && st.key == "caseSensitive" && st.value == "true"
}

type fbpBuilder struct {
	*fbpParser
	g         *Graph
	nodes     map[string]int
	declared  []int // where each node is first declared
	anonymous anonymous
	seen      map[[2]Endpoint]bool // edges
	exported  map[named]bool
}

// anonymous counts the nodes without a name by component, to name them as npm fbp does.
type anonymous map[string]int

func (a *anonymous) next(component string) string {
	if *a == nil {
		*a = anonymous{}
	}
	word := anonymousWord(component)
	(*a)[word]++
	return fmt.Sprintf("_%s_%d", word, (*a)[word])
}

func (a *anonymous) undo(component string) { (*a)[anonymousWord(component)]-- }

func anonymousWord(component string) string {
	if odd := oddInName.FindStringIndex(component); odd != nil { // only the first, as there
		return component[:odd[0]] + "_" + component[odd[1]:]
	}
	return component
}

var oddInName = regexp.MustCompile(`[^a-zA-Z0-9]+`)

// nodesOf names the anonymous nodes of a statement and adds the nodes that it declares.
func (b *fbpBuilder) nodesOf(st *statement) {
	declare := func(n *nodeRef) {
		if !n.hasParens() {
			return
		}
		if n.name == "" {
			n.name = b.anonymous.next(n.component)
		}
		i, ok := b.nodes[n.name]
		if !ok {
			i = len(b.g.Nodes)
			b.nodes[n.name] = i
			b.g.Nodes = append(b.g.Nodes, Node{ID: n.name})
			b.declared = append(b.declared, n.start)
		}
		if n.component != "" {
			b.g.Nodes[i].Component = n.component
		}
		if n.metadata != nil {
			b.g.Nodes[i].Metadata = n.metadata
		}
	}
	switch st.kind {
	case inport, outport:
		declare(&st.node)
	case chain:
		for i := range st.elements {
			if st.elements[i].data == nil {
				declare(&st.elements[i].node)
			}
		}
	}
}

func (b *fbpBuilder) add(st statement) {
	switch st.kind {
	case annotation:
		b.annotate(st)
	case inport:
		b.export(&b.g.Inports, anInport, st)
	case outport:
		b.export(&b.g.Outports, anOutport, st)
	case chain:
		b.connect(st)
	}
}

func (b *fbpBuilder) annotate(st statement) {
	switch {
	case st.key == "name":
		b.g.Name = st.value
	case st.asksForCase():
	default:
		if b.g.Properties == nil {
			b.g.Properties = Metadata{}
		}
		if st.key == "runtime" {
			b.g.Properties["environment"] = map[string]any{"type": st.value}
		} else {
			b.g.Properties[st.key] = st.value
		}
	}
}

func (b *fbpBuilder) export(in *[]Exported, k kind, st statement) {
	x := Exported{
		Public: b.g.PortName(string(b.src[st.pub.start:st.pub.end])),
		Node:   st.node.name,
		Port:   b.g.PortName(string(b.src[st.port.start:st.port.end])),
	}
	b.known(st.node)
	if b.exported[named{k, x.Public}] {
		b.fail(st.pub.start, "port %q is exported twice", x.Public)
		return
	}
	b.exported[named{k, x.Public}] = true
	*in = append(*in, x)
}

// connect adds the edges and packets of a chain. The reference loses an edge without a word where an element in the middle
// has no inport; here that is an error.
func (b *fbpBuilder) connect(st statement) {
	for i, e := range st.elements {
		inMiddle := i > 0 && i < len(st.elements)-1
		switch {
		case inMiddle && e.data != nil:
			b.fail(e.start, "a packet can only be at the start of a chain")
			continue
		case inMiddle && !e.passes():
			text := b.src[e.start:e.end]
			b.fail(e.start, "%q cannot pass a chain on: write IN node OUT with both ports, or node()", text)
			continue
		case e.data == nil:
			b.known(e.node)
		}
		if i == 0 {
			continue
		}
		c := b.g.connection(st.elements[i-1], e)
		switch edge := [2]Endpoint{c.Src, c.Tgt}; {
		case c.data != nil:
			b.g.Initials = append(b.g.Initials, Initial{Data: c.data, Tgt: c.Tgt})
		case !b.seen[edge]:
			b.seen[edge] = true
			b.g.Edges = append(b.g.Edges, Edge{Src: c.Src, Tgt: c.Tgt})
		}
	}
}

// connection returns what two neighbours in a chain say.
func (g *Graph) connection(from, to element) connection {
	tgt := Endpoint{to.node.name, g.PortName(to.in.name), to.in.index}
	if from.data != nil {
		return connection{Tgt: tgt, data: from.data}
	}
	return connection{Src: Endpoint{from.node.name, g.PortName(from.out.name), from.out.index}, Tgt: tgt}
}

// known reports a node that is nowhere declared, unless it may be where the text could not be read.
func (b *fbpBuilder) known(n nodeRef) {
	if _, ok := b.nodes[n.name]; ok {
		return
	}
	if b.broken[n.name] {
		return
	}
	b.fail(n.start, "node %q is not declared: write %s(Component) once", n.name, n.name)
}

// connections returns what the chains of the text say, edges that it says twice included.
func (t *fbpText) connections(g *Graph) (all []connection) {
	for _, st := range t.statements {
		for i := 1; i < len(st.elements); i++ {
			all = append(all, g.connection(st.elements[i-1], st.elements[i]))
		}
	}
	return all
}
