package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/flogate/flogate/core/transport"
)

// place remembers where the parts of a decoded object stand, so that what a driver says about them later can be shown
// where it is written.
type place struct {
	// whole is for what is said about the object, and about what is not there.
	whole  hcl.Range
	values map[string]hcl.Range
	blocks map[string]*place
	// secret says that env(), file() or the schema makes something in it a secret.
	secret bool
}

func newPlace(whole hcl.Range) *place {
	return &place{whole: whole, values: map[string]hcl.Range{}, blocks: map[string]*place{}}
}

// find returns the place of a path, or of as much of it as there is.
func (p *place) find(path []string) hcl.Range {
	for i, name := range path {
		if r, ok := p.values[name]; ok {
			return r
		}
		block, ok := p.blocks[name]
		if !ok {
			return p.whole
		}
		if i == len(path)-1 {
			return block.whole
		}
		p = block
	}
	return p.whole
}

// bodySchema is what HCL wants to know of a schema. Required attributes are left to decodeObject, because HCL would point
// at the opening brace only.
func bodySchema(s transport.Schema) *hcl.BodySchema {
	body := &hcl.BodySchema{}
	for _, a := range s.Attributes {
		body.Attributes = append(body.Attributes, hcl.AttributeSchema{Name: a.Name})
	}
	for _, b := range s.Blocks {
		body.Blocks = append(body.Blocks, hcl.BlockHeaderSchema{Type: b.Name})
	}
	return body
}

// decodeObject makes the JSON object that a driver wants of content that was taken out of a body with its schema. What
// is not given is left out. The result is nil if anything is wrong.
func (l *loader) decodeObject(s transport.Schema, content *hcl.BodyContent, at *place) map[string]json.RawMessage {
	ok := true
	object := map[string]json.RawMessage{}
	for _, a := range s.Attributes {
		attr := content.Attributes[a.Name]
		if attr == nil {
			if a.Required {
				l.missing(at.whole, a.Name)
				ok = false
			}
			continue
		}
		at.values[a.Name] = attr.Expr.Range()
		value, good := l.value(attr.Expr)
		if a.Secret && !harmless(value) {
			l.hideExpression(attr.Expr)
			l.hideValue(value)
			at.secret = true
		}
		if !good {
			ok = false
			continue
		}
		at.secret = at.secret || value.ContainsMarked()
		text, given, good := l.encode(a, value, attr.Expr.Range())
		switch {
		case !good:
			ok = false
		case given:
			object[a.Name] = text
		case a.Required:
			l.missing(attr.Range, a.Name)
			ok = false
		}
	}
	blocks := content.Blocks.ByType()
	for _, b := range s.Blocks {
		given := blocks[b.Name]
		if len(given) == 0 {
			continue
		}
		l.onlyOne(given)
		inner := newPlace(given[0].DefRange)
		at.blocks[b.Name] = inner
		content, diags := given[0].Body.Content(bodySchema(b.Schema))
		l.diags.addHCL(diags)
		value := l.decodeObject(b.Schema, content, inner)
		at.secret = at.secret || inner.secret
		if value == nil || diags.HasErrors() || len(given) > 1 {
			ok = false
			continue
		}
		object[b.Name] = encodeObject(value)
	}
	if !ok {
		return nil
	}
	return object
}

func (l *loader) missing(where hcl.Range, name string) {
	l.diags.add(Error, where, "Missing required argument", "The argument %q is required here.", name)
}

// onlyOne reports all blocks but the first.
func (l *loader) onlyOne(blocks hcl.Blocks) {
	for _, b := range blocks[min(1, len(blocks)):] {
		l.diags.add(Error, b.TypeRange, fmt.Sprintf("Second %s block", b.Type),
			"There can be one %s block only; the first is on line %d.", b.Type, blocks[0].TypeRange.Start.Line)
	}
}

// encode checks a value against its attribute and returns it as JSON. given is false for null.
func (l *loader) encode(a transport.Attribute, value cty.Value, where hcl.Range) (text json.RawMessage, given, ok bool) {
	value, marks := value.UnmarkDeep()
	if value.IsNull() {
		return nil, false, true
	}
	value, err := convert.Convert(value, typeOf(a.Type))
	if err == nil && !value.IsWhollyKnown() {
		err = fmt.Errorf("a known value is required")
	}
	if err == nil {
		err = l.check(a, value, len(marks) > 0)
	}
	if err != nil {
		l.diags.add(Error, where, "Wrong value", "The value of %q does not fit: %s", a.Name, ended(err.Error()))
		return nil, true, false
	}
	text, err = ctyjson.Marshal(value, value.Type())
	if err != nil {
		l.diags.add(Error, where, "Wrong value", "The value of %q does not fit: %s.", a.Name, err)
		return nil, true, false
	}
	return text, true, true
}

// check checks what a type of HCL does not say. value is not null, and of the right type.
func (l *loader) check(a transport.Attribute, value cty.Value, secret bool) error {
	switch a.Type {
	case transport.String:
		if len(a.OneOf) > 0 && !slices.Contains(a.OneOf, value.AsString()) {
			choice := fmt.Sprintf("it has to be one of %s", quoted(a.OneOf))
			if secret || a.Secret {
				return fmt.Errorf("%s", choice)
			}
			return fmt.Errorf("%s.%s", choice, didYouMean(value.AsString(), a.OneOf))
		}
		l.hidePassword(value.AsString())
	case transport.Duration:
		if _, err := time.ParseDuration(value.AsString()); err != nil {
			return fmt.Errorf(`a duration is a string with units, like "500ms", "10s" or "1m30s"`)
		}
	case transport.StringList, transport.StringMap:
		for it := value.ElementIterator(); it.Next(); {
			if _, v := it.Element(); v.IsNull() {
				return fmt.Errorf("null has no place in it")
			}
		}
	}
	return nil
}

func typeOf(t transport.Type) cty.Type {
	switch t {
	case transport.String, transport.Duration:
		return cty.String
	case transport.Number:
		return cty.Number
	case transport.Bool:
		return cty.Bool
	case transport.StringList:
		return cty.List(cty.String)
	case transport.StringMap:
		return cty.Map(cty.String)
	}
	// A type of a later version: the driver checks it by itself.
	return cty.DynamicPseudoType
}

// harmless says that a value is a URL with neither user nor password in it. A schema calls URLs secret because they may
// have them; one that has none may be seen, so that the most common mistake can be shown.
func harmless(value cty.Value) bool {
	if value == cty.NilVal || value.ContainsMarked() || !value.IsKnown() || value.IsNull() || value.Type() != cty.String {
		return false
	}
	u, err := url.Parse(value.AsString())
	return err == nil && u.Scheme != "" && u.Host != "" && u.User == nil && u.RawQuery == "" && !strings.Contains(value.AsString(), "@")
}

// hideExpression keeps an expression from being shown, unless it only says where a secret comes from.
func (l *loader) hideExpression(expr hcl.Expression) {
	if call, diags := hcl.ExprCall(expr); !diags.HasErrors() && (call.Name == "env" || call.Name == "file") && len(call.Arguments) == 1 {
		return
	}
	l.diags.hide(expr.Range())
}

// hideValue keeps a value that a schema calls secret out of what is printed, wherever it turns up.
func (l *loader) hideValue(value cty.Value) {
	if value == cty.NilVal {
		return
	}
	value, _ = value.UnmarkDeep()
	_ = cty.Walk(value, func(_ cty.Path, v cty.Value) (bool, error) {
		if v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
			l.diags.hideWord(v.AsString())
		}
		return true, nil
	})
}

// hidePassword does the same for a password that is a part of a URL.
func (l *loader) hidePassword(text string) {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return
	}
	if password, ok := u.User.Password(); ok {
		l.diags.hideWord(password)
		if _, raw, ok := strings.Cut(u.User.String(), ":"); ok {
			l.diags.hideWord(raw)
		}
	}
}

// encodeObject returns an object as JSON with sorted keys: equal objects are equal texts.
func encodeObject(object map[string]json.RawMessage) json.RawMessage {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(object)) {
		if i > 0 {
			b.WriteByte(',')
		}
		// A string cannot fail to become JSON.
		key, _ := json.Marshal(name)
		b.Write(key)
		b.WriteByte(':')
		b.Write(object[name])
	}
	b.WriteByte('}')
	return json.RawMessage(b.String())
}

func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}
