package graph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// FBP returns the graph in the .fbp language. If it was parsed from that language, its text is kept as far as the graph
// still says the same: comments, spacing, the order and grouping of statements. What is new goes to the end, new properties
// and exported ports behind the last of their kind.
//
// What only people and editors read may get lost; LostInFBP names it. An error means that the language cannot express
// what the graph does: a node id, component or port with other characters than it allows.
func (g *Graph) FBP() ([]byte, error) {
	view, err := g.inFBP()
	if err != nil {
		return nil, fmt.Errorf("write graph as .fbp: %w", err)
	}
	empty := &fbpText{}
	texts := []*fbpText{empty}
	if g.origin.fbp != nil {
		empty.opts = g.origin.fbp.opts
		texts = []*fbpText{g.origin.fbp, empty}
	}
	for _, text := range texts {
		if view.readFrom(text.src, text.opts) {
			return bytes.Clone(text.src), nil
		}
		// Some changes made directly in the fields, a new order for one, have no place in the old text. So what comes out is
		// always read again, and the graph is written from nothing if it is not the same.
		if out := newFBPWriter(view, text).write(); view.readFrom(out, text.opts) {
			return out, nil
		}
	}
	return nil, errors.New("write graph as .fbp: the language cannot express this graph")
}

// readFrom reports whether the text says what the graph is.
func (g *Graph) readFrom(src []byte, o options) bool {
	read, err := ParseFBP("", src, o.options()...)
	return err == nil && read.Equal(g)
}

// fbpWriter lays the graph over a text.
type fbpWriter struct {
	g       *Graph // what the language can express of it
	text    *fbpText
	newline string
	edits   []edit

	before    Graph             // what the text says
	said      map[string]string // its annotations
	ids       map[string]string // the present id of each node by its name in the text
	stays     map[string]bool   // nodes, by present id, that are declared where the text declares them
	changed   map[string]bool   // those of them of which the declaration changed
	nodes     map[string]Node   // the nodes of the graph
	first     map[string]int    // where each node is first declared, by its name in the text
	alive     []bool            // the connections of the text that stay
	fresh     []connection
	anonymous anonymous
}

// edit replaces a part of the text.
type edit struct {
	start, end int
	text       string
}

func newFBPWriter(g *Graph, text *fbpText) *fbpWriter {
	w := &fbpWriter{
		g: g, text: text, newline: "\n", ids: map[string]string{}, stays: map[string]bool{}, changed: map[string]bool{},
		first: map[string]int{}, nodes: map[string]Node{},
	}
	if i := bytes.IndexByte(text.src, '\n'); i > 0 && text.src[i-1] == '\r' {
		w.newline = "\r\n"
	}
	if before, err := ParseFBP("", text.src, text.opts.options()...); err == nil {
		w.before = *before
	}
	for _, st := range text.statements {
		for _, n := range st.nodes() {
			if _, ok := w.first[n.name]; !ok && n.hasParens() {
				w.first[n.name] = n.start
			}
		}
	}
	w.said = annotations(&w.before)
	places := map[string]int{}
	for i, n := range w.before.Nodes {
		places[n.ID] = i
	}
	last := -1
	for _, n := range g.Nodes {
		w.nodes[n.ID] = n
		was := g.origin.name(aNode, n.ID)
		i, ok := places[was]
		if !ok {
			continue
		}
		w.ids[was] = n.ID
		if i > last {
			last = i
			w.stays[n.ID] = true
			w.changed[n.ID] = n.Component != w.before.Nodes[i].Component || !n.Metadata.Equal(w.before.Nodes[i].Metadata)
		}
	}
	before := text.connections(&w.before)
	w.alive = make([]bool, len(before))
	kept := map[ends]bool{}
	for _, c := range g.connections(before) {
		if c.old < 0 {
			w.fresh = append(w.fresh, c)
			continue
		}
		w.alive[c.old] = true
		kept[before[c.old].ends()] = true
	}
	edgesFirst := func(a, b connection) int { return min(len(a.data), 1) - min(len(b.data), 1) }
	slices.SortStableFunc(w.fresh, edgesFirst)
	for i, c := range before { // an edge that is said twice
		w.alive[i] = w.alive[i] || c.data == nil && kept[c.ends()]
	}
	return w
}

// nodes returns where a statement names nodes.
func (st statement) nodes() (all []nodeRef) {
	switch st.kind {
	case inport, outport:
		return []nodeRef{st.node}
	case chain:
		for _, e := range st.elements {
			if e.data == nil {
				all = append(all, e.node)
			}
		}
	}
	return all
}

func (w *fbpWriter) write() []byte {
	at := 0 // where new properties, then new exported ports go: behind the last of their kind
	properties := annotations(w.g)
	inports, outports := w.exports(w.g.Inports, w.before.Inports, anInport), w.exports(w.g.Outports, w.before.Outports, anOutport)
	exportsEnd, connection := -1, 0
	for _, st := range w.text.statements {
		switch st.kind {
		case annotation:
			w.annotation(st, properties)
			at = w.lineEnd(st.end)
		case inport:
			w.export(st, inports, w.g.Inports)
			exportsEnd = st.end
		case outport:
			w.export(st, outports, w.g.Outports)
			exportsEnd = st.end
		case chain:
			n := max(len(st.elements)-1, 0)
			w.chain(st, w.alive[connection:connection+n])
			connection += n
		}
	}
	w.insert(at, w.newProperties(properties))
	exportsAt := at
	if exportsEnd >= 0 {
		exportsAt = max(at, w.lineEnd(exportsEnd))
	}
	w.insert(exportsAt, append(w.newExports("INPORT", w.g.Inports, inports), w.newExports("OUTPORT", w.g.Outports, outports)...))
	end := w.newConnections()
	if len(end) > 0 {
		w.keepLastComment()
	}
	return w.apply(end)
}

// keepLastComment indents a comment that would be an annotation if a line followed it.
func (w *fbpWriter) keepLastComment() {
	src := w.text.src
	line := len(src)
	for line > 0 && newline(src, lastRune(src[:line])) == 0 {
		line--
	}
	if m := annotationWords.Find(src[line:]); m != nil && line+len(m) == len(src) {
		w.edits = append(w.edits, edit{line, line, " "})
	}
}

// apply makes the edits, and adds lines at the end.
func (w *fbpWriter) apply(end []string) []byte {
	src := w.text.src
	slices.SortStableFunc(w.edits, func(a, b edit) int { return a.start - b.start })
	var out bytes.Buffer
	at := 0
	for _, e := range w.edits {
		out.Write(src[at:max(at, e.start)])
		out.WriteString(e.text)
		at = max(at, e.end)
	}
	out.Write(src[at:])
	if len(end) == 0 {
		return out.Bytes()
	}
	if n := out.Len(); n > 0 && newline(out.Bytes(), lastRune(out.Bytes())) == 0 {
		out.WriteString(w.newline)
	}
	if len(src) == 0 && out.Len() > 0 {
		out.WriteString(w.newline)
	}
	for _, line := range end {
		out.WriteString(line + w.newline)
	}
	return out.Bytes()
}

// lastRune returns where the last character begins.
func lastRune(src []byte) int {
	at := len(src) - 1
	for at > 0 && src[at]&0xC0 == 0x80 {
		at--
	}
	return at
}

func (w *fbpWriter) replace(start, end int, text string) {
	if string(w.text.src[start:end]) != text {
		w.edits = append(w.edits, edit{start, end, text})
	}
}

func (w *fbpWriter) insert(at int, lines []string) {
	for _, line := range lines {
		line += w.newline
		if at > 0 && newline(w.text.src, lastRune(w.text.src[:at])) == 0 {
			line = w.newline + strings.TrimSuffix(line, w.newline)
		}
		w.edits = append(w.edits, edit{at, at, line})
	}
}

// lineEnd returns where the next line begins.
func (w *fbpWriter) lineEnd(at int) int {
	for at < len(w.text.src) && newline(w.text.src, at) == 0 {
		at++
	}
	if at < len(w.text.src) {
		at += newline(w.text.src, at)
	}
	return at
}

// drop takes a statement out: with its line and the comment on it if it is alone there, else with its comma.
func (w *fbpWriter) drop(st statement) {
	src := w.text.src
	p := &fbpParser{source: &source{src: src}}
	start := st.start
	for start > 0 && src[start-1] == ' ' {
		start--
	}
	first := start == 0 || newline(src, lastRune(src[:start])) > 0
	end := p.spaces(st.end)
	if p.has(",", end) {
		end = p.spaces(end + 1)
	}
	last := end == len(src) || src[end] == '#' || newline(src, end) > 0
	switch {
	case first && last:
		w.edits = append(w.edits, edit{start, w.lineEnd(end), ""})
	case last && start > 0 && src[start-1] == ',':
		w.edits = append(w.edits, edit{start - 1, st.end, ""})
	default:
		w.edits = append(w.edits, edit{st.start, end, ""})
	}
}

// annotations returns the text of each property as an annotation has it, by its key there.
func annotations(g *Graph) map[string]string {
	all := map[string]string{}
	if g.Name != "" {
		all["name"] = g.Name
	}
	if kind := g.Runtime(); kind != "" {
		all["runtime"] = kind
	}
	for key, value := range g.Properties {
		if s, ok := value.(string); ok {
			all[key] = s
		}
	}
	return all
}

// annotation keeps, changes or drops an annotation.
func (w *fbpWriter) annotation(st statement, want map[string]string) {
	if st.asksForCase() {
		if !w.g.CaseSensitive {
			w.drop(st)
		}
		return
	}
	value, ok := want[st.key]
	switch {
	case !ok:
		w.drop(st)
	case value != w.said[st.key]:
		w.replace(st.start, st.end, "# @"+st.key+" "+value)
	}
}

func (w *fbpWriter) newProperties(want map[string]string) (lines []string) {
	have := map[string]bool{}
	for _, st := range w.text.statements {
		if st.kind == annotation {
			have[st.key] = true
		}
	}
	add := func(key, value string) {
		if value != "" && !have[key] {
			lines = append(lines, "# @"+key+" "+value)
		}
	}
	add("runtime", want["runtime"])
	add("name", want["name"])
	if w.g.CaseSensitive && !w.text.opts.caseSensitive && !w.text.caseSensitive() {
		lines = append(lines, "# @caseSensitive true")
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if key != "runtime" && key != "name" {
			add(key, want[key])
		}
	}
	return lines
}

// exports returns the exported ports that stay where the text has them: their place in the graph by the name in the text.
func (w *fbpWriter) exports(all, before []Exported, k kind) map[string]int {
	places := map[string]int{}
	for i, x := range before {
		places[x.Public] = i
	}
	stay := map[string]int{}
	last := -1
	for i, x := range all {
		was := w.g.origin.name(k, x.Public)
		if at, ok := places[was]; ok && at > last {
			last = at
			stay[was] = i
		}
	}
	return stay
}

// export keeps, changes or drops an exported port.
func (w *fbpWriter) export(st statement, stay map[string]int, all []Exported) {
	word := func(s span) string { return string(w.text.src[s.start:s.end]) }
	i, ok := stay[w.before.PortName(word(st.pub))]
	if !ok {
		if declared := w.declaration(st.node); declared != "" {
			w.replace(st.start, st.end, declared)
		} else {
			w.drop(st)
		}
		return
	}
	spell := func(s span, name string) {
		if w.g.PortName(word(s)) != name {
			w.replace(s.start, s.end, w.port(name, 0))
		}
	}
	x := all[i]
	node := w.node(st.node)
	if w.ids[st.node.name] != x.Node {
		node = x.Node
	}
	w.replace(st.node.start, st.node.end, node)
	spell(st.port, x.Port)
	spell(st.pub, x.Public)
}

func (w *fbpWriter) newExports(word string, all []Exported, stay map[string]int) (lines []string) {
	placed := map[int]bool{}
	for _, i := range stay {
		placed[i] = true
	}
	for i, x := range all {
		if !placed[i] {
			lines = append(lines, word+"="+x.Node+"."+w.port(x.Port, 0)+":"+w.port(x.Public, 0))
		}
	}
	return lines
}

// chain keeps a chain of which all connections stay, and else makes shorter ones of what is left. alive has the connection
// behind each element but the last.
func (w *fbpWriter) chain(st statement, alive []bool) {
	if !slices.Contains(alive, false) && (len(alive) > 0 || w.stays[w.ids[st.elements[0].node.name]]) {
		for _, n := range st.nodes() {
			w.replace(n.start, n.end, w.node(n))
		}
		return
	}
	var pieces []string
	for from := 0; from < len(st.elements); {
		to := from
		for to < len(alive) && alive[to] {
			to++
		}
		switch {
		case to > from:
			pieces = append(pieces, w.piece(st, from, to))
		case st.elements[from].data == nil:
			if declared := w.declaration(st.elements[from].node); declared != "" {
				pieces = append(pieces, declared)
			}
		}
		from = to + 1
	}
	if len(pieces) == 0 {
		w.drop(st)
		return
	}
	w.replace(st.start, st.end, strings.Join(pieces, ", "))
}

// piece returns the part of a chain between two elements, without the ports at its cut ends.
func (w *fbpWriter) piece(st statement, from, to int) string {
	src := w.text.src
	var out strings.Builder
	at := st.elements[from].start
	switch {
	case from == 0:
		at = st.start // with the tab that a packet may need
	case st.elements[from].in.given():
		at = st.elements[from].node.start
	}
	for i := from; i <= to; i++ {
		e := st.elements[i]
		if e.data == nil {
			out.Write(src[at:e.node.start])
			out.WriteString(w.node(e.node))
			at = e.node.end
		}
		if i < to {
			out.Write(src[at:st.elements[i+1].start])
			at = st.elements[i+1].start
		}
	}
	return out.String()
}

// declaration returns what is left of a node that a statement names when all its connections are gone: nothing if the
// statement did not declare it.
func (w *fbpWriter) declaration(n nodeRef) string {
	id, ok := w.ids[n.name]
	if !ok || !w.stays[id] || !n.hasParens() {
		return ""
	}
	if n.component == "" && n.metadata == nil && w.first[n.name] != n.start {
		return ""
	}
	return w.node(n)
}

// node returns how a node is named, and declared, where the text names it.
func (w *fbpWriter) node(n nodeRef) string {
	id := w.ids[n.name]
	parens := string(w.text.src[n.parens:n.end])
	switch {
	case !n.hasParens() || !w.stays[id]:
		return id
	case w.changed[id] && w.first[n.name] == n.start:
		parens = w.parens(id)
	case w.changed[id]:
		parens = "()"
	}
	if n.parens == n.start { // it is anonymous, and may stay so if the name it gets is still the same
		component, _, _ := strings.Cut(strings.Trim(parens, "()"), ":")
		if w.anonymous.next(component) == id {
			return parens
		}
		w.anonymous.undo(component)
	}
	return id + parens
}

// parens returns the declaration of a node as it is now.
func (w *fbpWriter) parens(id string) string {
	n := w.nodes[id]
	var items []string
	for _, key := range slices.Sorted(maps.Keys(n.Metadata)) {
		value, _ := metadataText(key, n.Metadata[key])
		if key == "routes" && value != "" {
			items = append(items, value)
		} else {
			items = append(items, key+"="+value)
		}
	}
	if len(items) == 0 {
		return "(" + n.Component + ")"
	}
	return "(" + n.Component + ":" + strings.Join(items, ",") + ")"
}

func (w *fbpWriter) port(name string, index Index) string {
	if !w.g.CaseSensitive {
		name = strings.ToUpper(name)
	}
	if i, ok := index.Value(); ok {
		name += "[" + strconv.Itoa(i) + "]"
	}
	return name
}

// newConnections returns the statements for what is new. A node is declared where it is first named, but in the order of
// the graph.
func (w *fbpWriter) newConnections() (lines []string) {
	var pending []string
	places := map[string]int{} // in pending, counted from 1
	for _, n := range w.g.Nodes {
		if !w.stays[n.ID] {
			pending = append(pending, n.ID)
			places[n.ID] = len(pending)
		}
	}
	done := 0
	declare := func(upTo int) {
		for ; done < upTo; done++ {
			lines = append(lines, pending[done]+w.parens(pending[done]))
		}
	}
	name := func(id string) string {
		if places[id] != done+1 {
			return id
		}
		done++
		return id + w.parens(id)
	}
	for _, c := range w.fresh {
		if src, tgt := places[c.Src.Node], places[c.Tgt.Node]; src > 0 && tgt == src+1 {
			declare(src - 1)
		} else {
			declare(max(src, tgt) - 1)
		}
		from := packetText(c.data)
		if c.data == nil {
			from = name(c.Src.Node) + " " + w.port(c.Src.Port, c.Src.Index)
		}
		lines = append(lines, from+" -> "+w.port(c.Tgt.Port, c.Tgt.Index)+" "+name(c.Tgt.Node))
	}
	declare(len(pending))
	return lines
}

// packetText returns a packet as the language spells it: text in single quotes, where that says it exactly, else JSON.
func packetText(data json.RawMessage) string {
	var text string
	if json.Unmarshal(data, &text) == nil && data[0] == '"' {
		raw, err := encode(text)
		plain := !strings.HasSuffix(text, `\`) && !strings.ContainsFunc(text, func(r rune) bool {
			return r < ' ' || r == '\u2028' || r == '\u2029'
		})
		if err == nil && bytes.Equal(raw, data) && plain {
			return "'" + strings.ReplaceAll(text, "'", `\'`) + "'"
		}
	}
	switch string(data) {
	case "true", "false", "null": // without the tab they are names of nodes
		return "\t" + string(data)
	}
	return string(data)
}
