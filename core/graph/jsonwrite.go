package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// JSON returns the graph in FBP JSON. If it was parsed from FBP JSON, that text is kept as far as the graph still says the
// same: the order of keys, unknown keys, numbers as they were spelled, indentation. Otherwise it is laid out as fbp-graph
// does, with connections in the order of the .fbp text if it came from one. An error means that metadata or data hold
// something that JSON cannot.
func (g *Graph) JSON() ([]byte, error) {
	if text := g.origin.json; text != nil {
		says := func(src []byte) bool {
			read, err := ParseJSON("", src, text.opts.options()...)
			return err == nil && read.Equal(g)
		}
		if says(text.src) {
			return bytes.Clone(text.src), nil
		}
		// As with .fbp, what is laid over an old text is read again before it is believed.
		if out, err := g.overJSON(text.src); err == nil && says(out) {
			return out, nil
		}
	}
	w := &jsonWriter{g: g}
	compacted := w.graph("")
	var out bytes.Buffer
	if w.err == nil {
		w.err = json.Indent(&out, []byte(compacted), "", "    ")
	}
	if w.err != nil {
		return nil, fmt.Errorf("write graph as JSON: %w", w.err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// overJSON lays the graph over the text it was parsed from.
func (g *Graph) overJSON(src []byte) ([]byte, error) {
	start := skipWhite(src, 0)
	end := valueEnd(src, start)
	w := &jsonWriter{g: g}
	w.newline, w.indent = layoutOf(src[start:end])
	body := w.graph(string(src[start:end]))
	return slices.Concat(src[:start], []byte(body), src[end:]), w.err
}

func (o options) options() []Option {
	if o.caseSensitive {
		return []Option{CaseSensitive()}
	}
	return nil
}

// layoutOf returns how a JSON text ends its lines and indents one level, both "" if it stands on one line.
func layoutOf(src []byte) (newline, indent string) {
	text := string(src)
	i := strings.IndexByte(text, '\n')
	if i < 0 {
		return "", ""
	}
	newline = "\n"
	if i > 0 && text[i-1] == '\r' {
		newline = "\r\n"
	}
	rest := text[i+1:]
	return newline, rest[:len(rest)-len(strings.TrimLeft(rest, " \t"))]
}

// jsonWriter lays the graph over the text it was parsed from. Every value has a function from its old text to its new one:
// the old text itself wherever it still says the same. Without a newline it writes compact JSON.
type jsonWriter struct {
	g       *Graph
	newline string
	indent  string
	err     error
}

// field is a member of an object, or an element of an array without a key.
type field struct {
	key   string
	value text
	was   string // in collections: the key that the member had in the text; the text of the element of an array
}

// text gives the new text of a value for its old one, which is "" if there is none. margin is the indentation of its line.
type text func(old, margin string) string

func (w *jsonWriter) graph(old string) string {
	g := w.g
	fields := []field{
		{key: "caseSensitive", value: w.json(g.CaseSensitive)},
		{key: "properties", value: w.properties},
		{key: "inports", value: w.exports(g.Inports, anInport)},
		{key: "outports", value: w.exports(g.Outports, anOutport)},
		{key: "groups", value: w.groups},
		{key: "processes", value: w.processes},
		{key: "connections", value: w.connections},
	}
	empty := []bool{
		!g.CaseSensitive || g.origin.json != nil && g.origin.json.opts.caseSensitive,
		g.Name == "" && len(g.Properties) == 0,
		len(g.Inports) == 0, len(g.Outports) == 0, len(g.Groups) == 0, len(g.Nodes) == 0,
		len(g.Edges)+len(g.Initials) == 0,
	}
	if old != "" { // what is empty and was not there stays away
		kept := fields[:0]
		for i, f := range fields {
			if _, ok := find(old, f.key); ok || !empty[i] {
				kept = append(kept, f)
			}
		}
		fields = kept
	}
	return w.update(old, "", fields, nil)
}

func (w *jsonWriter) properties(old, margin string) string {
	all := maps.Clone(w.g.Properties)
	if all == nil {
		all = Metadata{}
	}
	delete(all, "name")
	if w.g.Name == "" {
		if raw, ok := find(old, "name"); ok && raw == `""` {
			all["name"] = ""
		}
		return w.metadata(all)(old, margin)
	}
	return w.metadata(all, field{key: "name", value: w.json(w.g.Name)})(old, margin)
}

func (w *jsonWriter) processes(old, margin string) string {
	var fields []field
	for _, n := range w.g.Nodes {
		fields = append(fields, field{key: n.ID, was: w.g.origin.name(aNode, n.ID), value: func(old, margin string) string {
			return w.update(old, margin, w.withMetadata(old, n.Metadata,
				field{key: "component", value: w.json(n.Component)}), nil)
		}})
	}
	return w.replace(old, margin, '{', fields)
}

func (w *jsonWriter) exports(all []Exported, k kind) text {
	return func(old, margin string) string {
		spelled := map[string]string{} // the public names as the text has them
		if old != "" && old[0] == '{' {
			for _, m := range membersAt([]byte(old), 0) {
				spelled[w.g.PortName(m.key)] = m.key
			}
		}
		var fields []field
		for _, x := range all {
			f := field{key: x.Public, was: spelled[w.g.origin.name(k, x.Public)]}
			if w.g.PortName(f.was) == x.Public {
				f.key = f.was
			}
			f.value = func(old, margin string) string {
				return w.update(old, margin, w.withMetadata(old, x.Metadata,
					field{key: "process", value: w.json(x.Node)},
					field{key: "port", value: w.port(x.Port)}), nil)
			}
			fields = append(fields, f)
		}
		return w.replace(old, margin, '{', fields)
	}
}

func (w *jsonWriter) groups(old, margin string) string {
	was := map[string]string{}
	if old != "" && old[0] == '[' {
		for _, m := range membersAt([]byte(old), 0) {
			raw := old[m.start:m.end]
			if quoted, ok := find(raw, "name"); ok {
				var name string
				_ = json.Unmarshal([]byte(quoted), &name)
				was[name] = raw
			}
		}
	}
	var fields []field
	for _, p := range w.g.Groups {
		nodes := p.Nodes
		if nodes == nil {
			nodes = []string{}
		}
		fields = append(fields, field{was: was[w.g.origin.name(aGroup, p.Name)], value: func(old, margin string) string {
			return w.update(old, margin, w.withMetadata(old, p.Metadata,
				field{key: "name", value: w.json(p.Name)},
				field{key: "nodes", value: w.json(nodes)}), nil)
		}})
	}
	return w.replace(old, margin, '[', fields)
}

func (w *jsonWriter) connections(old, margin string) string {
	var texts []string
	var before []connection
	if w.g.origin.json != nil && old != "" && old[0] == '[' {
		for _, m := range membersAt([]byte(old), 0) {
			raw := old[m.start:m.end]
			texts = append(texts, raw)
			before = append(before, w.connectionOf(raw))
		}
	} else if w.g.origin.fbp != nil {
		before = w.g.origin.fbp.connections(w.g)
		texts = make([]string, len(before))
	}
	var fields []field
	for _, c := range w.g.connections(before) {
		f := field{value: func(old, margin string) string {
			first := field{key: "src", value: w.endpoint(c.Src)}
			if c.data != nil {
				first = field{key: "data", value: w.json(c.data)}
			}
			ends := []field{first, {key: "tgt", value: w.endpoint(c.Tgt)}}
			return w.update(old, margin, w.withMetadata(old, c.metadata, ends...), nil)
		}}
		if c.old >= 0 {
			f.was = texts[c.old]
		}
		fields = append(fields, f)
	}
	return w.replace(old, margin, '[', fields)
}

// connectionOf reads one connection of the text the graph was parsed from.
func (w *jsonWriter) connectionOf(raw string) connection {
	p := &jsonParser{source: &source{src: []byte("[" + raw + "]")}, g: &Graph{CaseSensitive: w.g.CaseSensitive}}
	p.connection(membersAt(p.src, 0)[0], map[[2]Endpoint]bool{})
	switch {
	case len(p.g.Edges) > 0:
		return connection{Src: p.g.Edges[0].Src, Tgt: p.g.Edges[0].Tgt}
	case len(p.g.Initials) > 0:
		return connection{Tgt: p.g.Initials[0].Tgt, data: p.g.Initials[0].Data}
	}
	return connection{}
}

func (w *jsonWriter) endpoint(e Endpoint) text {
	return func(old, margin string) string {
		fields := []field{{key: "process", value: w.json(e.Node)}, {key: "port", value: w.port(e.Port)}}
		if i, ok := e.Index.Value(); ok {
			return w.update(old, margin, append(fields, field{key: "index", value: w.json(i)}), nil)
		}
		return w.update(old, margin, fields, func(key string) bool { return key == "index" })
	}
}

// withMetadata adds metadata to the fields of an object that has some, or had.
func (w *jsonWriter) withMetadata(old string, m Metadata, fields ...field) []field {
	if raw, ok := find(old, "metadata"); len(m) > 0 || ok && raw != "null" {
		fields = append(fields, field{key: "metadata", value: w.metadata(m)})
	}
	return fields
}

// metadata writes an object of which every key is known.
func (w *jsonWriter) metadata(m Metadata, first ...field) text {
	return func(old, margin string) string {
		fields := slices.Clone(first)
		for _, key := range slices.Sorted(maps.Keys(m)) {
			fields = append(fields, field{key: key, value: w.json(m[key])})
		}
		return w.update(old, margin, fields, func(string) bool { return true })
	}
}

// port keeps the spelling of a port that folds to the same name.
func (w *jsonWriter) port(name string) text {
	return func(old, margin string) string {
		var was string
		if old != "" && json.Unmarshal([]byte(old), &was) == nil && w.g.PortName(was) == name {
			return old
		}
		return w.json(name)(old, margin)
	}
}

// json keeps the old text of a value that is still the same.
func (w *jsonWriter) json(v any) text {
	return func(old, margin string) string {
		raw, err := encode(v)
		if err != nil {
			w.err = err
			return "null"
		}
		if old != "" && sameJSON([]byte(old), raw) {
			return old
		}
		return w.layout(string(raw), margin, isOneLine(old))
	}
}

func sameJSON(a, b []byte) bool {
	if bytes.Equal(compact(a), b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// layout gives compact JSON the look of the text.
func (w *jsonWriter) layout(raw, margin string, oneLine bool) string {
	switch {
	case w.newline == "":
		return raw
	case oneLine:
		return spaced(raw)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(raw), margin, w.indent); err != nil {
		w.err = err
	}
	return strings.ReplaceAll(out.String(), "\n", w.newline)
}

// spaced puts a space behind each comma and colon of compact JSON.
func spaced(raw string) string {
	var out strings.Builder
	inString := false
	for i := range len(raw) {
		c := raw[i]
		out.WriteByte(c)
		switch {
		case c == '"' && (!inString || !escaped(raw, i)):
			inString = !inString
		case !inString && (c == ',' || c == ':'):
			out.WriteByte(' ')
		}
	}
	return out.String()
}

// escaped reports whether an odd number of backslashes stands before this place.
func escaped(s string, at int) bool {
	n := len(strings.TrimRight(s[:at], `\`))
	return (at-n)%2 == 1
}

// isOneLine reports whether an object or array that is not empty stands on one line.
func isOneLine(value string) bool {
	return len(value) > 2 && (value[0] == '{' || value[0] == '[') && !strings.Contains(value, "\n")
}

// find returns the text of a member of an object.
func find(object, key string) (raw string, ok bool) {
	if object == "" || object[0] != '{' {
		return "", false
	}
	for _, m := range membersAt([]byte(object), 0) {
		if m.key == key {
			return object[m.start:m.end], true
		}
	}
	return "", false
}

// item is a member or element as it is written: lead is the space before it, label its key and the colon.
type item struct{ lead, label, value string }

// update writes an object whose members keep the order of the text: fields are changed where they stand or added at the
// end, other members stay unless drop says otherwise.
func (w *jsonWriter) update(old, margin string, fields []field, drop func(key string) bool) string {
	var items []item
	var neighbour *item
	known := map[string]field{}
	for _, f := range fields {
		known[f.key] = f
	}
	done := map[string]bool{}
	tail := ""
	w.scan(old, '{', &tail, func(m member, it item) {
		neighbour = &it
		f, ok := known[m.key]
		switch {
		case ok:
			it.value = f.value(it.value, marginOf(it.lead, margin))
			done[m.key] = true
		case drop != nil && drop(m.key):
			return
		}
		items = append(items, it)
	})
	for _, f := range fields {
		if !done[f.key] {
			items = append(items, w.fresh('{', neighbour, margin, f))
		}
	}
	return w.join('{', items, tail, margin)
}

// replace writes an object or array whose members are exactly the fields, in their order.
func (w *jsonWriter) replace(old, margin string, open byte, fields []field) string {
	before := map[string]item{}
	var neighbour *item
	tail := ""
	w.scan(old, open, &tail, func(m member, it item) {
		key := m.key
		if open == '[' {
			key = it.value
		}
		before[key] = it
		neighbour = &it
	})
	var items []item
	for _, f := range fields {
		it, ok := before[f.was]
		switch {
		case !ok:
			it = w.fresh(open, neighbour, margin, f)
		default:
			if open == '{' && f.key != f.was {
				it.label = w.label(f.key)
			}
			it.value = f.value(it.value, marginOf(it.lead, margin))
		}
		items = append(items, it)
	}
	return w.join(open, items, tail, margin)
}

// scan calls f for each member of an old text. tail is the space before its closing bracket.
func (w *jsonWriter) scan(old string, open byte, tail *string, f func(member, item)) {
	if old == "" || old[0] != open {
		return
	}
	end := 1
	for _, m := range membersAt([]byte(old), 0) {
		lead := old[end:m.keyStart]
		lead = lead[strings.IndexByte(lead, ',')+1:]
		f(m, item{lead: lead, label: old[m.keyStart:m.start], value: old[m.start:m.end]})
		end = m.end
	}
	*tail = old[end : len(old)-1]
}

// fresh returns a new item, laid out as its neighbour is.
func (w *jsonWriter) fresh(open byte, neighbour *item, margin string, f field) item {
	it := item{}
	switch {
	case neighbour != nil:
		it.lead = neighbour.lead
	case w.newline != "":
		it.lead = w.newline + margin + w.indent
	}
	if open == '{' {
		it.label = w.label(f.key)
	}
	newline := w.newline
	w.newline = ""
	it.value = f.value("", "")
	w.newline = newline
	oneLine := !strings.Contains(it.lead, "\n") || neighbour != nil && isOneLine(neighbour.value)
	it.value = w.layout(it.value, marginOf(it.lead, margin), oneLine)
	return it
}

func (w *jsonWriter) label(key string) string {
	quoted, err := encode(key)
	if err != nil {
		w.err = err
	}
	if w.newline == "" {
		return string(quoted) + ":"
	}
	return string(quoted) + ": "
}

func (w *jsonWriter) join(open byte, items []item, tail, margin string) string {
	closing := map[byte]string{'{': "}", '[': "]"}[open]
	if len(items) == 0 {
		return string(open) + closing
	}
	var out strings.Builder
	out.WriteByte(open)
	for i, it := range items {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(it.lead + it.label + it.value)
	}
	if strings.Contains(items[0].lead, "\n") && !strings.Contains(tail, "\n") {
		tail = w.newline + margin
	}
	return out.String() + tail + closing
}

// marginOf returns the indentation of the line on which an item stands.
func marginOf(lead, margin string) string {
	if i := strings.LastIndexByte(lead, '\n'); i >= 0 {
		return lead[i+1:]
	}
	return margin
}
