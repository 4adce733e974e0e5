package config

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math/big"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/flogate/flogate/core/transport"
)

// outline is what a site file consists of.
func outline() *hcl.BodySchema {
	return &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "site", LabelNames: []string{"name"}},
		{Type: "listen"},
		{Type: "plugins"},
		{Type: "embedded", LabelNames: []string{"name"}},
		{Type: "broker", LabelNames: []string{"type", "name"}},
		{Type: "library", LabelNames: []string{"name"}},
		{Type: "graph", LabelNames: []string{"name"}},
		{Type: "participant", LabelNames: []string{"role"}},
		{Type: "edge", LabelNames: []string{"from", "to"}},
	}}
}

// What the gateway itself knows of the blocks to which a transport adds.
func brokerSchema() *hcl.BodySchema {
	return attributes("isolation", "isolate", "discovery", "silence")
}

func portSchema() *hcl.BodySchema {
	return attributes("address", "type", "description", "schema", "hidden")
}

func attributes(names ...string) *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, name := range names {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: name})
	}
	return s
}

// with returns a schema and what a transport adds to it. Names that are ours stay ours.
func with(ours *hcl.BodySchema, theirs transport.Schema) (*hcl.BodySchema, transport.Schema) {
	is := func(name string) bool {
		return slices.ContainsFunc(ours.Attributes, func(a hcl.AttributeSchema) bool { return a.Name == name }) ||
			slices.ContainsFunc(ours.Blocks, func(b hcl.BlockHeaderSchema) bool { return b.Type == name })
	}
	var added transport.Schema
	for _, a := range theirs.Attributes {
		if !is(a.Name) {
			added.Attributes = append(added.Attributes, a)
		}
	}
	for _, b := range theirs.Blocks {
		if !is(b.Name) {
			added.Blocks = append(added.Blocks, b)
		}
	}
	body := bodySchema(added)
	return &hcl.BodySchema{
		Attributes: slices.Concat(ours.Attributes, body.Attributes),
		Blocks:     slices.Concat(ours.Blocks, body.Blocks),
	}, added
}

// The declared things, with where they stand.
type (
	brokerAt struct {
		Broker
		label  hcl.Range
		driver *driver
		place  *place
		// valid says that Config is what the driver's schema asks for.
		valid     bool
		discovery Discovery
		// announced is where the addresses of discovery stand.
		announced hcl.Range
	}
	graphAt struct {
		Graph
		label hcl.Range
		text  text
		marks *marks // see find
	}
	participantAt struct {
		Participant
		label    hcl.Range
		broker   *brokerAt
		inports  []*portAt
		outports []*portAt
	}
	portAt struct {
		Port
		label hcl.Range
		place *place
		// valid says that Options are what the driver's schema asks for.
		valid bool
	}
	edgeAt struct {
		Edge
		labels     [2]hcl.Range
		require    hcl.Range
		deadLetter hcl.Range
		// deadLetterBroker is the one that is named, or the sink's.
		deadLetterBroker *brokerAt
		letterPlace      *place
		// lettersWrong says that the options are not what the driver's schema asks for.
		lettersWrong bool
		valid        bool
	}
)

// participant returns the participant with its ports.
func (p *participantAt) participant() Participant {
	for _, port := range p.inports {
		p.Inports = append(p.Inports, port.Port)
	}
	for _, port := range p.outports {
		p.Outports = append(p.Outports, port.Port)
	}
	return p.Participant
}

// values are the attributes of a block of ours, each read by what it has to be. What is wrong is reported, and reads as
// not given.
type values struct {
	l     *loader
	attrs hcl.Attributes
}

func (l *loader) content(b *hcl.Block, schema *hcl.BodySchema) (*hcl.BodyContent, values) {
	content, diags := b.Body.Content(schema)
	l.diags.addHCL(diags)
	return content, values{l, content.Attributes}
}

// value evaluates an expression.
func (l *loader) value(expr hcl.Expression) (cty.Value, bool) {
	if vars := expr.Variables(); len(vars) > 0 {
		for _, v := range vars {
			l.diags.add(Error, v.SourceRange(), "Name without a meaning",
				`Only "broker" and "dead_letter_broker" refer to something else in the file, as in broker.mqtt.house; other text stands in quotes.`)
		}
		return cty.NilVal, false
	}
	value, diags := expr.Value(l.eval)
	l.diags.addHCL(diags)
	return value, !diags.HasErrors()
}

// read evaluates an attribute that anybody may see, and converts it. It returns false for what is not given, or wrong.
func (v values) read(name string, want cty.Type) (cty.Value, hcl.Range, bool) {
	attr, ok := v.attrs[name]
	if !ok {
		return cty.NilVal, hcl.Range{}, false
	}
	where := attr.Expr.Range()
	value, ok := v.l.value(attr.Expr)
	if !ok {
		return cty.NilVal, where, false
	}
	if value.ContainsMarked() {
		v.l.diags.add(Error, where, "Secret in a place that is shown",
			"What env() and file() return is kept secret, but %q is shown in logs and on status pages. "+
				"If it may be seen, write nonsensitive(…) around it.", name)
		return cty.NilVal, where, false
	}
	if value.IsNull() {
		return cty.NilVal, where, false
	}
	value, err := convert.Convert(value, want)
	if err == nil && !value.IsWhollyKnown() {
		err = fmt.Errorf("a known value is required")
	}
	if err == nil && !want.IsPrimitiveType() {
		err = v.l.check(transport.Attribute{Type: transport.StringList}, value, false)
	}
	if err != nil {
		v.l.diags.add(Error, where, "Wrong value", "The value of %q does not fit: %s.", name, err)
		return cty.NilVal, where, false
	}
	return value, where, true
}

func (v values) text(name string) (string, hcl.Range, bool) {
	value, where, ok := v.read(name, cty.String)
	if !ok {
		return "", where, false
	}
	return value.AsString(), where, true
}

func (v values) bool(name string) bool {
	value, _, ok := v.read(name, cty.Bool)
	return ok && value.True()
}

func (v values) list(name string) ([]string, hcl.Range, bool) {
	value, where, ok := v.read(name, cty.List(cty.String))
	if !ok {
		return nil, where, false
	}
	var list []string
	for it := value.ElementIterator(); it.Next(); {
		_, element := it.Element()
		list = append(list, element.AsString())
	}
	return list, where, true
}

// secrets reads a map whose values are kept secret.
func (v values) secrets(name string) map[string]Secret {
	attr, ok := v.attrs[name]
	if !ok {
		return nil
	}
	value, ok := v.l.value(attr.Expr)
	if !ok {
		return nil
	}
	text, given, ok := v.l.encode(transport.Attribute{Name: name, Type: transport.StringMap}, value, attr.Expr.Range())
	if !ok || !given {
		return nil
	}
	var plain map[string]string
	if err := json.Unmarshal(text, &plain); err != nil {
		v.l.diags.add(Error, attr.Expr.Range(), "Wrong value", "The value of %q does not fit: %s.", name, err)
		return nil
	}
	secrets := make(map[string]Secret, len(plain))
	for key, text := range plain {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(text, "\x00") {
			v.l.diags.add(Error, attr.Expr.Range(), "Wrong value",
				"An environment variable has a name without \"=\", and neither name nor value may hold a NUL character.")
			continue
		}
		secrets[key] = NewSecret(text)
	}
	return secrets
}

// oneOf reads a text that has to be one of a few.
func (v values) oneOf(name string, allowed ...string) (string, bool) {
	text, where, ok := v.text(name)
	if !ok {
		return "", false
	}
	if !slices.Contains(allowed, text) {
		v.l.diags.add(Error, where, "Wrong value", "%q has to be one of %s.%s", name, quoted(allowed), didYouMean(text, allowed))
		return "", false
	}
	return text, true
}

// path reads the path of a folder, and makes it absolute.
func (v values) path(name string) (string, bool) {
	text, where, ok := v.text(name)
	if !ok {
		return "", false
	}
	if text == "" || strings.Contains(text, "\x00") {
		v.l.diags.add(Error, where, "Wrong value", "%q has to be the path of a folder.", name)
		return "", false
	}
	return absolute(v.l.site.Dir, text), true
}

// broker reads a reference to a broker.
func (v values) broker(name string) (*brokerAt, bool) {
	attr, ok := v.attrs[name]
	if !ok {
		return nil, false
	}
	where := attr.Expr.Range()
	traversal, diags := hcl.AbsTraversalForExpr(attr.Expr)
	form := fmt.Sprintf(`A broker is referred to by its two labels and without quotes, as in %s = broker.mqtt.house.`, name)
	if diags.HasErrors() || len(traversal) != 3 || traversal.RootName() != "broker" {
		v.l.diags.add(Error, where, "Not a reference to a broker", "%s", form)
		return nil, false
	}
	first, ok1 := traversal[1].(hcl.TraverseAttr)
	second, ok2 := traversal[2].(hcl.TraverseAttr)
	if !ok1 || !ok2 {
		v.l.diags.add(Error, where, "Not a reference to a broker", "%s", form)
		return nil, false
	}
	id := first.Name + "." + second.Name
	b, ok := v.l.brokers[id]
	if !ok {
		detail := fmt.Sprintf("There is no broker %q %q.", first.Name, second.Name)
		if hint := didYouMean(id, names(v.l.brokers)); hint != "" {
			detail += strings.NewReplacer(`mean "`, `mean broker.`, `"?`, `?`).Replace(hint)
		}
		v.l.diags.add(Error, where, "Unknown broker", "%s", detail)
		return nil, false
	}
	return b, true
}

// name is what a thing of the site may be called: it becomes a part of references, folders, client ids and metrics.
var name = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]{0,63}$`)

// label returns the only label of a block, and whether it can be a name.
func (l *loader) label(b *hcl.Block, i int, what string) (string, hcl.Range, bool) {
	text, where := b.Labels[i], b.LabelRanges[i]
	if !name.MatchString(text) {
		l.diags.add(Error, where, "Unusable name",
			"The name of a %s begins with a letter, goes on with letters, digits, \"_\" and \"-\", and is not longer than 64.", what)
		return text, where, false
	}
	return text, where, true
}

// named goes over the blocks that have a name of their own as their first label, with where that stands, and reports the others.
func (l *loader) named(blocks hcl.Blocks, what string) iter.Seq2[*hcl.Block, hcl.Range] {
	return func(yield func(*hcl.Block, hcl.Range) bool) {
		first := map[string]hcl.Range{}
		for _, b := range blocks {
			name, where, ok := l.label(b, 0, what)
			if !ok {
				continue
			}
			if at, ok := first[name]; ok {
				l.duplicate(where, what, name, at)
				continue
			}
			first[name] = where
			if !yield(b, where) {
				return
			}
		}
	}
}

func (l *loader) duplicate(where hcl.Range, what, name string, first hcl.Range) {
	in := ""
	if first.Filename != where.Filename {
		in = " of " + first.Filename
	}
	l.diags.add(Error, where, "Duplicate "+what, "%s %q is already on line %d%s.", capital(what), name, first.Start.Line, in)
}

// on says where something else is.
func (l *loader) on(where hcl.Range) string {
	if l.sheet != nil && where.Filename == l.file {
		return "by " + l.sheet.flag(where.Start.Line)
	}
	return fmt.Sprintf("on line %d", where.Start.Line)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (l *loader) decodeSite(blocks hcl.Blocks) {
	l.onlyOne(blocks)
	if len(blocks) == 0 {
		return
	}
	if text, _, ok := l.label(blocks[0], 0, "site"); ok {
		l.site.Name = text
	}
	_, v := l.content(blocks[0], attributes("data_dir", "drain", "types"))
	if dir, ok := v.path("data_dir"); ok {
		l.site.DataDir = dir
	}
	if text, where, ok := v.text("drain"); ok {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			l.diags.add(Error, where, "Wrong value", `"drain" is how long to wait, with units, like "10s" or "1m30s".`)
		}
		l.site.Drain = d
	}
	types, _ := v.oneOf("types", typesWarn, typesStrict)
	l.site.StrictTypes = types == typesStrict
}

// What a site may do about edges whose ends do not go together by their types.
const (
	typesWarn   = "warn"
	typesStrict = "strict"
)

func (l *loader) decodeListen(blocks hcl.Blocks) {
	l.onlyOne(blocks)
	if len(blocks) == 0 {
		return
	}
	_, v := l.content(blocks[0], attributes("fbp", "admin"))
	l.site.Listen.FBP = l.listener(v, "fbp", true)
	l.site.Listen.Admin = l.listener(v, "admin", true)
}

func (l *loader) decodePlugins(blocks hcl.Blocks) {
	l.onlyOne(blocks)
	if len(blocks) == 0 {
		return
	}
	_, v := l.content(blocks[0], attributes("directory"))
	l.site.Plugins.Directory, _ = v.path("directory")
}

func (l *loader) decodeEmbedded(blocks hcl.Blocks) {
	for b := range l.named(blocks, "embedded broker") {
		name := b.Labels[0]
		_, v := l.content(b, attributes("mqtt", "nats"))
		e := Embedded{
			Name:    name,
			MQTT:    l.listener(v, "mqtt", false),
			NATS:    l.listener(v, "nats", false),
			DataDir: filepath.Join(l.site.DataDir, "embedded", name),
		}
		if len(v.attrs) == 0 {
			l.diags.add(Error, b.DefRange, "Embedded broker that nobody can reach",
				`Give it an address with "mqtt", with "nats", or with both.`)
		}
		l.site.Embedded = append(l.site.Embedded, e)
	}
}

func (l *loader) decodeBrokers(ctx context.Context, blocks hcl.Blocks) {
	for _, b := range blocks {
		kind, kindAt, ok1 := l.label(b, 0, "transport")
		name, nameAt, ok2 := l.label(b, 1, "broker")
		if !ok1 || !ok2 {
			continue
		}
		at := &brokerAt{
			Broker: Broker{Type: kind, Name: name, Isolation: IsolationProcess},
			label:  hcl.RangeBetween(kindAt, nameAt),
			place:  newPlace(b.DefRange),
		}
		if first, ok := l.brokers[at.ID()]; ok {
			l.duplicate(at.label, "broker", at.ID(), first.label)
			continue
		}
		l.brokers[at.ID()] = at
		l.brokerOrder = append(l.brokerOrder, at)

		at.driver = l.driver(ctx, kind, kindAt)
		var content *hcl.BodyContent
		if at.driver == nil {
			// Without its schema nobody knows what the rest of the body should be.
			var diags hcl.Diagnostics
			content, _, diags = b.Body.PartialContent(brokerSchema())
			l.diags.addHCL(diags)
			l.hideUnknown(b.Body, brokerSchema(), transport.Schema{})
		} else {
			schema, theirs := with(brokerSchema(), at.driver.description.Config)
			before := l.diags.Count(Error)
			content, _ = l.content(b, schema)
			l.hideUnknown(b.Body, schema, theirs)
			object := l.decodeObject(theirs, content, at.place)
			if at.valid = object != nil && l.diags.Count(Error) == before; at.valid {
				at.Config = NewSecret(string(encodeObject(object)))
			}
		}
		v := values{l, content.Attributes}
		if isolation, ok := v.oneOf("isolation", string(IsolationProcess), string(IsolationNone)); ok {
			at.Isolation = Isolation(isolation)
		}
		at.Isolate = v.bool("isolate")
		if at.Isolate && at.Isolation == IsolationNone {
			l.diags.add(Error, v.attrs["isolate"].Range, "Contradiction",
				`isolate = true asks for a process for this broker alone, isolation = "none" for no process at all.`)
		}
		l.decodeDiscovery(at, v)
	}
}

// hideUnknown hides the values of what a schema does not know: a secret whose name is misspelt is still one.
func (l *loader) hideUnknown(body hcl.Body, known *hcl.BodySchema, theirs transport.Schema) {
	b, ok := body.(*hclsyntax.Body)
	if !ok {
		return
	}
	for name, attr := range b.Attributes {
		if !slices.ContainsFunc(known.Attributes, func(a hcl.AttributeSchema) bool { return a.Name == name }) {
			l.hideExpression(attr.Expr)
		}
	}
	for _, block := range b.Blocks {
		var inner transport.Schema
		for _, t := range theirs.Blocks {
			if t.Name == block.Type {
				inner = t.Schema
			}
		}
		l.hideUnknown(block.Body, bodySchema(inner), inner)
	}
}

func (l *loader) decodeGraphs(blocks hcl.Blocks) {
	for b, where := range l.named(blocks, "graph") {
		name := b.Labels[0]
		_, v := l.content(b, attributes("file", "text"))
		g := &graphAt{Graph: Graph{Name: name, Format: "fbp"}, label: where}
		_, file := v.attrs["file"]
		_, inline := v.attrs["text"]
		switch {
		case file && inline:
			l.diags.add(Error, v.attrs["text"].NameRange, "Contradiction", `A graph has a "file" or a "text", not both.`)
			continue
		case file:
			path, at, ok := v.text("file")
			if !ok {
				continue
			}
			src, err := l.folder.file(path, maxFile)
			if err != nil {
				l.diags.add(Error, at, "Cannot read the graph", "%s", sentence(err.Error()))
				continue
			}
			switch ext := strings.ToLower(filepath.Ext(path)); ext {
			case ".fbp":
			case ".json":
				g.Format = "json"
			default:
				l.diags.add(Error, at, "Unknown graph format", `A graph file ends in ".fbp" or ".json".`)
				continue
			}
			shown := l.folder.called(path)
			l.diags.source(shown, src)
			g.File, g.Source = l.folder.abs(path), string(src)
			g.text = text{file: shown, src: string(src), line: 1}
		case inline:
			src, at, ok := v.text("text")
			if !ok {
				continue
			}
			g.Source = src
			g.text = l.inline(src, at)
		default:
			l.diags.add(Error, b.DefRange, "Graph without content", `A graph has a "file" or a "text".`)
			continue
		}
		l.parse(g)
		l.graphs = append(l.graphs, g)
	}
	l.brokenGraph = len(l.graphs) < len(blocks)
}

func (l *loader) decodeParticipants(blocks hcl.Blocks) {
	first := map[string]hcl.Range{}
	for _, b := range blocks {
		role, where := b.Labels[0], b.LabelRanges[0]
		if !usable(role) {
			l.diags.add(Error, where, "Unusable name", "A role is a word: it is not empty, and has neither blanks nor control characters in it.")
			continue
		}
		if at, ok := first[role]; ok {
			l.duplicate(where, "participant", role, at)
			continue
		}
		first[role] = where
		l.participants = append(l.participants, l.decodeParticipant(b))
	}
}

// usable says whether a text can be a role or the name of a port.
func usable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || !visible(c) })
}

func (l *loader) decodeParticipant(b *hcl.Block) *participantAt {
	schema := attributes("file", "component", "label", "icon", "broker", "command", "env")
	schema.Blocks = []hcl.BlockHeaderSchema{
		{Type: "inport", LabelNames: []string{"name"}},
		{Type: "outport", LabelNames: []string{"name"}},
	}
	content, v := l.content(b, schema)
	p := &participantAt{Participant: Participant{Role: b.Labels[0]}, label: b.LabelRanges[0]}
	p.broker = l.brokerOf(v, b, "participant")
	if p.broker != nil {
		p.Broker = p.broker.ID()
	}

	if path, at, ok := v.text("file"); ok {
		if attr := v.attrs["component"]; attr != nil {
			l.diags.add(Error, attr.NameRange, "Contradiction", `A participant has a "file", which says its component, or a "component", not both.`)
		}
		l.readParticipant(p, path, at)
	} else if component, at, ok := v.text("component"); ok {
		p.Component = component
		l.checkComponent(component, at)
	} else if v.attrs["file"] == nil && v.attrs["component"] == nil {
		l.diags.add(Error, b.DefRange, "Participant without component", `A participant has a "component", like "demo/Motor", or a "file".`)
	}
	if text, _, ok := v.text("label"); ok {
		p.Label = text
	}
	if text, _, ok := v.text("icon"); ok {
		p.Icon = text
	}
	if command, at, ok := v.list("command"); ok {
		if len(command) == 0 || command[0] == "" || strings.Contains(strings.Join(command, ""), "\x00") {
			l.diags.add(Error, at, "Wrong value", `"command" is a program and its arguments: ["program", "argument"].`)
		}
		p.Command = command
	}
	p.Env = v.secrets("env")
	if attr := v.attrs["env"]; attr != nil && v.attrs["command"] == nil {
		l.diags.add(Error, attr.NameRange, "Environment without a command", `"env" is for what "command" starts, and there is none.`)
	}

	for _, block := range content.Blocks {
		ports, theirs := &p.inports, transport.Schema{}
		if block.Type == "outport" {
			ports = &p.outports
		}
		if p.broker != nil && p.broker.driver != nil {
			theirs = p.broker.driver.options(block.Type == "outport")
		}
		l.addPort(ports, block.Type, l.decodePort(block, theirs, p.broker != nil && p.broker.driver != nil))
	}
	return p
}

// brokerOf returns the broker of a participant or a library: the one that is named, or else the only one.
func (l *loader) brokerOf(v values, b *hcl.Block, what string) *brokerAt {
	if _, ok := v.attrs["broker"]; ok {
		at, _ := v.broker("broker")
		return at
	}
	if len(l.brokerOrder) == 1 {
		return l.brokerOrder[0]
	}
	detail := `There is more than one broker: say which, as in broker = broker.mqtt.house.`
	if len(l.brokerOrder) == 0 {
		detail = `There is no broker for it in the file: a broker block comes first, as in broker "mqtt" "house" { url = "mqtt://127.0.0.1:1883" }.`
	}
	l.diags.add(Error, b.DefRange, capital(what)+" without broker", "%s", detail)
	return nil
}

// checkComponent refuses the components that are no participants.
func (l *loader) checkComponent(component string, where hcl.Range) {
	switch {
	case component == "msgflo/RoundRobin" || component == "msgflo/PubSub":
		l.diags.add(Error, where, "Not a participant", "%q is a way to join ports in a graph: it stands in the graph only, nobody runs it.", component)
	case !usable(component):
		l.diags.add(Error, where, "Wrong value", `A component is a name like "demo/Motor".`)
	}
}

// addPort adds a port to those of a participant, unless there is one of this name.
func (l *loader) addPort(ports *[]*portAt, what string, p *portAt) {
	if p == nil {
		return
	}
	for _, other := range *ports {
		// Ports of .fbp files are in lower case, whatever was written: names that differ in case only are one.
		if strings.EqualFold(other.Name, p.Name) {
			l.duplicate(p.label, what, p.Name, other.label)
			return
		}
	}
	*ports = append(*ports, p)
}

// decodePort decodes a port. Without a driver nobody knows what its options should be.
func (l *loader) decodePort(b *hcl.Block, theirs transport.Schema, known bool) *portAt {
	p := &portAt{Port: Port{Name: b.Labels[0], Type: anyType}, label: b.LabelRanges[0], place: newPlace(b.DefRange)}
	if !usable(p.Name) {
		l.diags.add(Error, p.label, "Unusable name", "The name of a port is a word: it is not empty, and has neither blanks nor control characters in it.")
		return nil
	}
	schema, theirs := with(portSchema(), theirs)
	before := l.diags.Count(Error)
	var content *hcl.BodyContent
	if known {
		content, _ = l.content(b, schema)
	} else {
		var diags hcl.Diagnostics
		content, _, diags = b.Body.PartialContent(portSchema())
		l.diags.addHCL(diags)
	}
	v := values{l, content.Attributes}
	var at hcl.Range
	var ok bool
	if p.Address, at, ok = v.text("address"); ok {
		p.place.values["address"] = at
		if p.Address == "" {
			l.diags.add(Error, at, "Wrong value", "The address of a port is where its messages go on the broker: a topic, a queue, a subject.")
		}
	} else if v.attrs["address"] == nil {
		l.missing(b.DefRange, "address")
	}
	if text, _, ok := v.text("type"); ok {
		p.Type = text
	}
	p.Description, _, _ = v.text("description")
	p.Schema, _, _ = v.text("schema")
	p.Hidden = v.bool("hidden")
	if !known {
		return p
	}
	object := l.decodeObject(theirs, content, p.place)
	if p.valid = object != nil && l.diags.Count(Error) == before; p.valid && len(object) > 0 {
		p.Options, p.Private = NewSecret(string(encodeObject(object))), p.place.secret
	}
	return p
}

func (l *loader) decodeEdges(blocks hcl.Blocks) {
	for _, b := range blocks {
		content, v := l.content(b, edgeSchema())
		e := &edgeAt{labels: [2]hcl.Range{b.LabelRanges[0], b.LabelRanges[1]}, valid: true}
		e.From, e.FromPort = l.endpoint(b, 0, e)
		e.To, e.ToPort = l.endpoint(b, 1, e)

		require, _ := v.oneOf("require", string(RequireAtMostOnce), string(RequireAtLeastOnce), string(RequireEffectOnce))
		e.Require = Requirement(require)
		if attr := v.attrs["require"]; attr != nil {
			e.require = attr.Expr.Range()
		}
		routing, _ := v.oneOf("routing", string(RoutingGateway), string(RoutingBroker))
		e.Routing = Routing(routing)
		l.decodeDeadLetter(content, v, e)
		if value, where, ok := v.read("window", cty.Number); ok {
			e.Window = l.window(value.AsBigFloat(), where)
		}
		if !e.valid {
			continue
		}
		if i := slices.IndexFunc(l.edges, func(f *edgeAt) bool { return f.same(e.Edge) }); i >= 0 {
			l.duplicate(e.labels[0], "edge", b.Labels[0]+" → "+b.Labels[1], l.edges[i].labels[0])
			continue
		}
		l.edges = append(l.edges, e)
	}
}

// maxWindow is a number of messages in flight that is certainly a mistake.
const maxWindow = 1_000_000

func (l *loader) window(n *big.Float, where hcl.Range) int64 {
	if window, accuracy := n.Int64(); accuracy == big.Exact && window >= 1 && window <= maxWindow {
		return window
	}
	l.diags.add(Error, where, "Wrong value", `"window" is how many messages may be in flight: a whole number from 1 to %d.`, maxWindow)
	return 0
}

// endpoint splits a label of an edge block.
func (l *loader) endpoint(b *hcl.Block, i int, e *edgeAt) (node, port string) {
	dot := strings.LastIndexByte(b.Labels[i], '.')
	if dot <= 0 || dot == len(b.Labels[i])-1 {
		l.diags.add(Error, b.LabelRanges[i], "Not a port",
			`An edge goes from a port to a port, each as "node.port": edge "button.pressed" "motor.start".`)
		e.valid = false
		return "", ""
	}
	return b.Labels[i][:dot], b.Labels[i][dot+1:]
}
