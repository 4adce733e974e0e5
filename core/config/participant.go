package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/flogate/flogate/core/transport"
)

// anyType is the type of ports that say nothing of it.
const anyType = "any"

// maxParticipant bounds the files of foreign participants. The parser is recursive.
const maxParticipant = 64 << 10

// ParseParticipant reads the file of a foreign participant, as MsgFlo's tools do: a component, a label and an icon, and the
// ports as maps by their names. "#ROLE" in the queue of a port becomes role; without a role the file has to have one. The
// options of ports are taken as they are, because only a driver knows what they should be. name is for messages. The
// Participant has no Broker. It is of no use when there are errors among the diagnostics.
func ParseParticipant(name string, src []byte, role string) (Participant, *Diagnostics) {
	l := newLoader(Options{})
	defer l.diags.finish()
	f := l.foreign(name, src, role)
	if f == nil {
		return Participant{}, l.diags
	}
	p := participantAt{Participant: f.Participant}
	for _, side := range []struct {
		what string
		from []foreignPort
		to   *[]*portAt
	}{{"inport", f.inports, &p.inports}, {"outport", f.outports, &p.outports}} {
		for _, port := range side.from {
			if port.options != nil {
				port.doc.rawOptions(&port)
			}
			l.addPort(side.to, side.what, port.portAt)
		}
	}
	return p.participant(), l.diags
}

// foreign is a foreign participant before a driver was asked about its options.
type foreign struct {
	Participant
	inports, outports []foreignPort
}

type foreignPort struct {
	*portAt
	doc     *document
	options ast.Node
}

// readParticipant reads the file of a participant block into p.
func (l *loader) readParticipant(p *participantAt, path string, where hcl.Range) {
	src, err := l.folder.file(path, maxParticipant)
	if err != nil {
		l.diags.add(Error, where, "Cannot read the participant", "%s", sentence(err.Error()))
		return
	}
	f := l.foreign(l.folder.called(path), src, p.Role)
	if f == nil {
		return
	}
	p.Component, p.Label, p.Icon = f.Component, f.Label, f.Icon
	for _, side := range []struct {
		what string
		from []foreignPort
		to   *[]*portAt
		out  bool
	}{{"inport", f.inports, &p.inports, false}, {"outport", f.outports, &p.outports, true}} {
		for _, port := range side.from {
			if p.broker != nil && p.broker.driver != nil {
				port.doc.decodeOptions(&port, p.broker.driver.options(side.out))
			}
			l.addPort(side.to, side.what, port.portAt)
		}
	}
}

// document is a YAML file while it is read.
type document struct {
	l    *loader
	file string
	// lines is how many the file has.
	lines int
	// anchors are the nodes that have a name to be repeated by.
	anchors map[string]ast.Node
	// left is how many more values are made: aliases of aliases can stand for more than fits into memory.
	left int
}

func (d *document) fail(n ast.Node, summary, detail string, args ...any) {
	d.l.diags.add(Error, d.at(n), summary, detail, args...)
}

// at returns the range of a node's first token.
func (d *document) at(n ast.Node) hcl.Range {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		n = m.Values[0].Key
	}
	if n == nil {
		return hcl.Range{Filename: d.file}
	}
	return d.tokenAt(n.GetToken())
}

func (d *document) tokenAt(t *token.Token) hcl.Range {
	if t == nil || t.Position == nil {
		return hcl.Range{Filename: d.file}
	}
	// The parser counts a lonely carriage return as the end of a line, and nobody else does.
	r := point(d.file, min(max(t.Position.Line, 1), d.lines), max(t.Position.Column, 1))
	if shown := strings.TrimSpace(t.Origin); shown != "" && !strings.Contains(shown, "\n") {
		r.End.Column = r.Start.Column + len([]rune(shown))
	}
	return r
}

// foreign reads the file of a foreign participant; nil if there is nothing in it to go on with.
func (l *loader) foreign(name string, src []byte, role string) *foreign {
	l.diags.source(name, src)
	d := &document{l: l, file: name, lines: 1 + bytes.Count(src, []byte("\n")), anchors: map[string]ast.Node{}, left: maxParticipant}
	top := d.parse(src)
	if top == nil {
		return nil
	}
	f := &foreign{Participant: Participant{Role: role}}
	fields := d.fields(top, "component", "label", "icon", "inports", "outports", "role", "id", "description")
	if f.Role == "" {
		f.Role = d.text(fields["role"])
	}
	if f.Role == "" {
		d.fail(top, "Missing role", `Nobody has said which role this participant plays: give one, or write "role: …" here.`)
	}
	if component := fields["component"]; component == nil {
		d.fail(top, "Missing component", `A participant has to say what it is: "component: library/Name".`)
	} else if f.Component = d.text(component); f.Component != "" || isScalar(component) {
		l.checkComponent(f.Component, d.at(component))
	}
	f.Label, f.Icon = d.text(fields["label"]), d.text(fields["icon"])
	f.inports = d.ports(fields["inports"], "inport", f.Role)
	f.outports = d.ports(fields["outports"], "outport", f.Role)
	return f
}

// parse returns the top of the document; nil after having said what is wrong.
func (d *document) parse(src []byte) ast.Node {
	if len(src) > maxParticipant {
		d.l.diags.add(Error, hcl.Range{Filename: d.file}, "File too large", "A participant's file has at most %d KiB.", maxParticipant>>10)
		return nil
	}
	if deep := deepest(src); deep > 0 {
		d.l.diags.add(Error, point(d.file, deep, 1), "Too deeply nested", "Nothing in a participant's file needs more than %d levels.", maxNesting)
		return nil
	}
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		where, message := hcl.Range{Filename: d.file}, err.Error()
		if syntax, ok := errors.AsType[yaml.Error](err); ok {
			where, message = d.tokenAt(syntax.GetToken()), syntax.GetMessage()
		}
		d.l.diags.add(Error, where, "No YAML", "%s", sentence(message))
		return nil
	}
	var top ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if top != nil {
			d.fail(doc.Body, "Second document", "A file describes one participant.")
			return nil
		}
		top = doc.Body
	}
	before := d.l.diags.Count(Error)
	if top != nil {
		ast.Walk(anchors(d.anchors), top)
		top = d.resolve(top)
	}
	if top == nil {
		if d.l.diags.Count(Error) == before {
			d.l.diags.add(Error, hcl.Range{Filename: d.file}, "Empty file", `A participant has to say what it is: "component: library/Name".`)
		}
		return nil
	}
	if _, ok := top.(ast.MapNode); !ok {
		d.fail(top, "Not a participant", `A participant is a map: "component: …", "inports: …", "outports: …".`)
		return nil
	}
	return top
}

// deepest returns the line on which the brackets, or the lists in lists, get too deep for the parser, or 0.
func deepest(src []byte) int {
	depth, line, dashes := 0, 1, 0
	for _, c := range src {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		case '\n':
			line++
		}
		switch c {
		case '-', '?':
			dashes++
		case ' ':
		default:
			dashes = 0
		}
		if depth > maxNesting || dashes > 2*maxNesting {
			return line
		}
	}
	return 0
}

// anchors collects the anchors of a document.
type anchors map[string]ast.Node

func (a anchors) Visit(n ast.Node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok && anchor.Name != nil {
		a[anchor.Name.GetToken().Value] = anchor.Value
	}
	return a
}

// resolve returns what a node stands for: without anchors and tags, and the anchor's node for an alias. It is nil for null.
func (d *document) resolve(n ast.Node) ast.Node {
	for range maxNesting {
		switch node := n.(type) {
		case nil, *ast.NullNode:
			return nil
		case *ast.AnchorNode:
			n = node.Value
		case *ast.TagNode:
			n = node.Value
		case *ast.AliasNode:
			if node.Value == nil {
				return nil
			}
			target, ok := d.anchors[node.Value.GetToken().Value]
			if !ok {
				d.fail(node, "Unknown anchor", "There is no anchor %q in this file.", node.Value.GetToken().Value)
				return nil
			}
			n = target
		default:
			return n
		}
	}
	return nil
}

// pair is a key with its value.
type pair struct {
	key   string
	at    ast.Node
	value ast.Node
}

// pairs returns what is in a map, in order. It is empty for null.
func (d *document) pairs(n ast.Node, what string) []pair {
	n = d.resolve(n)
	if n == nil {
		return nil
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		d.fail(n, "Wrong value", "%s has to be a map.", what)
		return nil
	}
	var pairs []pair
	for it := m.MapRange(); it.Next(); {
		key := it.Key()
		if key.IsMergeKey() {
			d.fail(key, "Merge key", "Merge keys are not understood: write out what is meant.")
			continue
		}
		scalar, ok := d.resolve(key).(ast.ScalarNode)
		if !ok {
			d.fail(key, "Wrong key", "A key is a word.")
			continue
		}
		pairs = append(pairs, pair{scalarText(scalar), key, it.Value()})
	}
	return pairs
}

// fields returns the values of known keys. Others are ignored, as they always were, unless they look like a mistake.
func (d *document) fields(n ast.Node, known ...string) map[string]ast.Node {
	fields := map[string]ast.Node{}
	for _, p := range d.pairs(n, "This") {
		is := false
		for _, k := range known {
			is = is || k == p.key
		}
		if is {
			if value := d.resolve(p.value); value != nil {
				fields[p.key] = value
			}
			continue
		}
		if hint := didYouMean(p.key, known); hint != "" {
			d.l.diags.add(Warning, d.at(p.at), "Unknown key", "The key %q means nothing here and is ignored.%s", p.key, hint)
		}
	}
	return fields
}

// text returns a scalar as text; empty for null, and for what is not given.
func (d *document) text(n ast.Node) string {
	n = d.resolve(n)
	if n == nil {
		return ""
	}
	scalar, ok := n.(ast.ScalarNode)
	if !ok {
		d.fail(n, "Wrong value", "A single value is expected here.")
		return ""
	}
	return scalarText(scalar)
}

func isScalar(n ast.Node) bool {
	_, ok := n.(ast.ScalarNode)
	return ok
}

// scalarText returns a scalar as it is written, so that the version 1.10 stays what it is.
func scalarText(n ast.ScalarNode) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	return n.GetToken().Value
}

// portPairs returns ports by their names: from a map, or from a list of ports with their names as "id", which is how
// participants announce them.
func (d *document) portPairs(n ast.Node, what string) []pair {
	list, ok := d.resolve(n).(*ast.SequenceNode)
	if !ok {
		return d.pairs(n, fmt.Sprintf("%q is the ports by their names: it", what+"s"))
	}
	var pairs []pair
	for _, element := range list.Values {
		var id *pair
		for _, p := range d.pairs(element, fmt.Sprintf("An %s in a list", what)) {
			if p.key == "id" {
				id = &p
			}
		}
		switch {
		case id != nil:
			pairs = append(pairs, pair{d.text(id.value), id.at, element})
		case d.resolve(element) == nil || isMap(d.resolve(element)):
			d.fail(element, "Unusable name", `An %s in a list has its name as "id".`, what)
		}
	}
	return pairs
}

func isMap(n ast.Node) bool {
	_, ok := n.(ast.MapNode)
	return ok
}

func (d *document) ports(n ast.Node, what, role string) []foreignPort {
	var ports []foreignPort
	for _, p := range d.portPairs(n, what) {
		if !usable(p.key) {
			d.fail(p.at, "Unusable name", "The name of a port is a word: it is not empty, and has neither blanks nor control characters in it.")
			continue
		}
		at := d.at(p.at)
		port := foreignPort{doc: d, portAt: &portAt{
			Port: Port{Name: p.key, Type: anyType}, label: at, place: newPlace(at), valid: true,
		}}
		fields := d.fields(p.value, "queue", "type", "description", "schema", "options", "hidden", "label", "id", "default")
		port.Address = strings.ReplaceAll(d.text(fields["queue"]), "#ROLE", role)
		if queue := fields["queue"]; queue != nil {
			port.place.values["address"] = d.at(queue)
		}
		if text := d.text(fields["type"]); text != "" {
			port.Type = text
		}
		port.Description, port.Schema = d.text(fields["description"]), d.text(fields["schema"])
		if hidden := fields["hidden"]; hidden != nil {
			flag, ok := hidden.(*ast.BoolNode)
			if !ok {
				d.fail(hidden, "Wrong value", `"hidden" is true or false.`)
			} else {
				port.Hidden = flag.Value
			}
		}
		port.options = fields["options"]
		ports = append(ports, port)
	}
	return ports
}

// decodeOptions decodes the options of a port with the driver's schema.
func (d *document) decodeOptions(p *foreignPort, schema transport.Schema) {
	before := d.l.diags.Count(Error)
	var object map[string]json.RawMessage
	if p.options == nil {
		object = d.object(nil, schema, p.place)
	} else {
		at := p.place.values["address"]
		place := newPlace(d.at(p.options))
		object = d.object(p.options, schema, place)
		p.place.values, p.place.blocks, p.place.secret = place.values, place.blocks, place.secret
		p.place.values["address"] = at
	}
	if p.valid = d.l.diags.Count(Error) == before; p.valid && len(object) > 0 {
		p.Options, p.Private = NewSecret(string(encodeObject(object))), p.place.secret
	}
}

// rawOptions takes the options of a port as they are.
func (d *document) rawOptions(p *foreignPort) {
	if _, ok := p.options.(ast.MapNode); !ok {
		d.fail(p.options, "Wrong value", `"options" is a map.`)
		return
	}
	before := d.l.diags.Count(Error)
	value := d.value(p.options, maxNesting)
	if d.l.diags.Count(Error) > before {
		return
	}
	text, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		d.fail(p.options, "Wrong value", "The options cannot be written as JSON: %s.", err)
		return
	}
	p.Options = NewSecret(string(text))
}

// object decodes a map with a schema: the twin of decodeObject.
func (d *document) object(n ast.Node, schema transport.Schema, at *place) map[string]json.RawMessage {
	object := map[string]json.RawMessage{}
	given := map[string]pair{}
	var known []string
	for _, a := range schema.Attributes {
		known = append(known, a.Name)
	}
	for _, b := range schema.Blocks {
		known = append(known, b.Name)
	}
	for _, p := range d.pairs(n, "This") {
		given[p.key] = p
		is := false
		for _, k := range known {
			is = is || k == p.key
		}
		if !is {
			d.fail(p.at, "Unsupported argument", "An argument named %q is not expected here.%s", p.key, didYouMean(p.key, known))
		}
	}
	for _, a := range schema.Attributes {
		p, ok := given[a.Name]
		value := d.resolve(p.value)
		if !ok || value == nil {
			if a.Required {
				d.l.missing(at.whole, a.Name)
			}
			continue
		}
		where := d.at(value)
		at.values[a.Name] = where
		v := d.value(value, maxNesting)
		if a.Secret {
			d.l.diags.hide(where)
			d.l.hideValue(v)
			at.secret = true
		}
		if text, given, ok := d.l.encode(a, v, where); ok && given {
			object[a.Name] = text
		}
	}
	for _, b := range schema.Blocks {
		p, ok := given[b.Name]
		value := d.resolve(p.value)
		if !ok || value == nil {
			continue
		}
		inner := newPlace(d.at(p.at))
		at.blocks[b.Name] = inner
		object[b.Name] = encodeObject(d.object(value, b.Schema, inner))
		at.secret = at.secret || inner.secret
	}
	return object
}

// value returns a node as a value of HCL's, so that both kinds of files are converted by the same rules.
func (d *document) value(n ast.Node, depth int) cty.Value {
	n = d.resolve(n)
	if n == nil {
		return cty.NullVal(cty.DynamicPseudoType)
	}
	if d.left--; depth == 0 || d.left < 0 {
		if d.left >= -1 {
			d.fail(n, "Too large", "There are more values in this than anybody needs.")
		}
		d.left = -1
		return cty.NullVal(cty.DynamicPseudoType)
	}
	switch node := n.(type) {
	case ast.MapNode:
		object := map[string]cty.Value{}
		for _, p := range d.pairs(n, "This") {
			object[p.key] = d.value(p.value, depth-1)
		}
		return cty.ObjectVal(object)
	case *ast.SequenceNode:
		var list []cty.Value
		for _, element := range node.Values {
			list = append(list, d.value(element, depth-1))
		}
		return cty.TupleVal(list)
	case *ast.BoolNode:
		return cty.BoolVal(node.Value)
	case *ast.IntegerNode, *ast.FloatNode:
		if number, err := cty.ParseNumberVal(scalarText(node.(ast.ScalarNode))); err == nil {
			return number
		}
		return cty.StringVal(scalarText(node.(ast.ScalarNode)))
	case ast.ScalarNode:
		return cty.StringVal(scalarText(node))
	}
	d.fail(n, "Wrong value", "This cannot be a value.")
	return cty.NullVal(cty.DynamicPseudoType)
}
