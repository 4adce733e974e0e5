package fbp

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A shape is what a value must look like: as much of JSON schema as the protocol's schemas have.
type shape struct {
	kind   valueKind
	enum   []string // of a text
	rounds bool     // an integer: others are rounded
	spells bool     // a text: objects, too, as the text that they are
	fields []field  // of an object
	open   bool     // an object: other keys are kept
	item   *shape   // of a list
}

type valueKind int

const (
	anything valueKind = iota
	text
	uri
	dateTime
	number
	integer
	truth
	index // a text or a number
	object
	list
)

// String returns the kind as errors name it.
func (k valueKind) String() string {
	return [...]string{
		"anything", "a string", "a URI", "a time", "a number", "an integer", "true or false", "a string or a number",
		"an object", "an array",
	}[k]
}

// field is a key of an object.
type field struct {
	name     string
	required bool
	keepNull bool // null is a value, and not the same as no key
	optional bool // goes if it is wrong: not worth losing the message over
	shape    shape
}

func need(name string, s shape) field { return field{name: name, required: true, shape: s} }
func may(name string, s shape) field  { return field{name: name, shape: s} }

func closed(fields ...field) shape { return shape{kind: object, fields: fields} }
func open(fields ...field) shape   { return shape{kind: object, fields: fields, open: true} }
func listOf(item shape) shape      { return shape{kind: list, item: &item} }

// mode is how much a value is helped to its shape.
type mode int

const (
	// exact: the schema, no help.
	exact mode = iota
	// reading: what others send. Keys that there are none of are dropped, and so is null where a key need not be.
	reading
	// writing: what we send. As reading, and null for an array that must be there is an empty one.
	writing
)

// fault is what is wrong with a value, and where. It names keys of the protocol only, never what a client has sent.
type fault struct {
	path    string
	text    string
	noGraph bool
}

func (f *fault) Error() string { return f.path + " " + f.text }

func wrong(path, format string, args ...any) *fault {
	return &fault{path: path, text: fmt.Sprintf(format, args...)}
}

// shaped appends value to b as s wants it. What has no shape comes as it is spelled.
func (s shape) shaped(b, value []byte, path string, m mode) ([]byte, *fault) {
	switch s.kind {
	case object:
		return s.object(b, value, path, m)
	case list:
		return s.list(b, value, path, m)
	case integer:
		return s.integer(b, value, path, m)
	case text:
		if s.spells && m == reading && value[0] == '{' {
			return appendQuoted(b, string(value)), nil
		}
	}
	if f := s.scalar(value, path); f != nil {
		return b, f
	}
	return append(b, value...), nil
}

func (s shape) scalar(value []byte, path string) *fault {
	isText, isNumber := value[0] == '"', value[0] == '-' || '0' <= value[0] && value[0] <= '9'
	ok := false
	switch s.kind {
	case anything:
		return nil
	case text, uri, dateTime:
		ok = isText
	case number:
		ok = isNumber
	case index:
		ok = isText || isNumber
	case truth:
		ok = value[0] == 't' || value[0] == 'f'
	}
	if !ok {
		return wrong(path, "must be %v", s.kind)
	}
	if isText && broken(value) {
		return wrong(path, "has half a surrogate pair")
	}
	switch s.kind {
	case text:
		if s.enum != nil && !slices.Contains(s.enum, unquote(value)) {
			return wrong(path, "must be one of %s", strings.Join(s.enum, ", "))
		}
	case uri:
		if !IsURI(unquote(value)) {
			return wrong(path, "must be a URI")
		}
	case dateTime:
		if new(time.Time).UnmarshalText([]byte(unquote(value))) != nil {
			return wrong(path, "must be a time as in RFC 3339")
		}
	case number:
		if _, err := strconv.ParseFloat(string(value), 64); err != nil {
			return wrong(path, "is out of range")
		}
	}
	return nil
}

// IsURI reports whether text may stand where the schemas want a URI: it has a scheme.
func IsURI(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.IsAbs() && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// integer takes what JavaScript takes for one, 36.0 too, and spells it so that everybody does.
func (s shape) integer(b, value []byte, path string, m mode) ([]byte, *fault) {
	const most = 1 << 53 // from there on JavaScript has no odd ones
	f, err := strconv.ParseFloat(string(value), 64)
	switch whole := f == math.Trunc(f); {
	case err != nil && !errors.Is(err, strconv.ErrRange), !whole && (m == exact || !s.rounds):
		return b, wrong(path, "must be an integer")
	case err != nil, math.Abs(f) > most:
		return b, wrong(path, "is out of range")
	}
	return strconv.AppendInt(b, int64(math.Round(f)), 10), nil
}

func (s shape) list(b, value []byte, path string, m mode) ([]byte, *fault) {
	if value[0] != '[' {
		return b, wrong(path, "must be %v", s.kind)
	}
	b = append(b, '[')
	n := 0
	for i := skipSpace(value, 1); value[i] != ']'; n++ {
		if n > 0 {
			b = append(b, ',')
		}
		end := valueEnd(value, i)
		var f *fault
		if b, f = s.item.shaped(b, value[i:end], path+"["+strconv.Itoa(n)+"]", m); f != nil {
			return b, f
		}
		i = skipSpace(value, end)
		if value[i] == ',' {
			i = skipSpace(value, i+1)
		}
	}
	return append(b, ']'), nil
}

func (s shape) object(b, value []byte, path string, m mode) ([]byte, *fault) {
	if value[0] != '{' {
		return b, wrong(path, "must be %v", s.kind)
	}
	all, err := members(value)
	if err != nil {
		return b, wrong(path, "%v", err)
	}
	if f := s.missing(all, path, m); f != nil {
		return b, f
	}
	b = append(b, '{')
	first := true
	for _, one := range all {
		i := slices.IndexFunc(s.fields, func(f field) bool { return f.name == one.key })
		if i < 0 && !s.open {
			if m == exact {
				return b, wrong(path, "has a key that there is none of")
			}
			continue
		}
		var known field // one of an open object's own is anything
		if i >= 0 {
			known = s.fields[i]
		}
		value := one.value
		wanted := known.shape
		if value[0] == 'n' && m != exact && wanted.kind != anything {
			switch {
			case known.keepNull:
				wanted = shape{}
			case !known.required:
				continue
			case m == writing && wanted.kind == list:
				value = []byte("[]")
			}
		}
		if known.optional && m != exact && wanted.scalar(value, path) != nil {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(b, one.name...), ':')
		var f *fault
		if b, f = wanted.shaped(b, value, path+"."+known.name, m); f != nil {
			return b, f
		}
	}
	return append(b, '}'), nil
}

// missing finds a key that must be there and is not.
func (s shape) missing(all []member, path string, m mode) *fault {
	for _, known := range s.fields {
		if !known.required {
			continue
		}
		i := slices.IndexFunc(all, func(one member) bool { return one.key == known.name })
		there := i >= 0
		if there && m == reading && known.shape.kind != anything {
			value := all[i].value
			there = value[0] != 'n' && (known.name != "graph" || string(value) != `""`)
		}
		if !there {
			return &fault{path: path + "." + known.name, text: "is missing", noGraph: known.name == "graph"}
		}
	}
	return nil
}
