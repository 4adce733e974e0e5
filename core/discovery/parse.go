package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Parse reads an announcement: a definition in the envelope of the discovery protocol, or bare. It takes what
// docs/discovery.schema.json allows, within the bounds of this package, and the ids of the ports of a side must differ.
// The error says what is wrong. It quotes at most a few words of the message; they are the sender's, not to be trusted.
func Parse(body []byte) (Definition, error) {
	switch {
	case len(body) > MaxBody:
		return Definition{}, fmt.Errorf("too large: %d bytes, and at most %d are taken", len(body), MaxBody)
	case !utf8.Valid(body):
		return Definition{}, errors.New("not UTF-8")
	case tooDeep(body):
		return Definition{}, fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	if !json.Valid(body) {
		return Definition{}, invalid(body)
	}
	f := open(body)
	if f.has("payload") {
		f.is("protocol", "discovery")
		f.is("command", "participant")
		if f.err != nil {
			return Definition{}, f.err
		}
		if f = open(f.take("payload")); f.err != nil {
			return Definition{}, fmt.Errorf("payload: %w", f.err)
		}
		d := f.definition()
		if f.err != nil {
			return Definition{}, fmt.Errorf("payload: %w", f.err)
		}
		return d, nil
	}
	d := f.definition()
	if f.err != nil {
		return Definition{}, f.err
	}
	return d, nil
}

// invalid says why body is no JSON.
func invalid(body []byte) error {
	err := json.Unmarshal(body, new(json.RawMessage))
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("no JSON: %w at byte %d", err, syntax.Offset)
	}
	return fmt.Errorf("no JSON: %w", err)
}

// tooDeep counts brackets outside strings. It need not know whether they match: the decoder will.
func tooDeep(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// fields reads the fields of an object, and remembers the first error. What was not asked for is left. Keys count as they
// are written, unlike those of encoding/json's structs, which would take "ID" for "id".
type fields struct {
	left []field
	err  error
}

// field is a key with its value, which is part of the message.
type field struct {
	key   string
	value []byte
}

// open opens an object that is known to be JSON. It does not decode the whole of it as encoding/json would, once for each
// level: an announcement that is refused must cost as little as it can.
func open(raw []byte) *fields {
	f := new(fields)
	if kind(raw) != "an object" {
		f.fail("an object is expected, not %s", kind(raw))
		return f
	}
	f.left = make([]field, 0, 8)
	for c := enter(raw); c.more(); {
		key := text(c.value())
		c.colon()
		f.left = append(f.left, field{key, c.value()})
	}
	return f
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *fields) has(key string) bool {
	return slices.ContainsFunc(f.left, func(x field) bool { return x.key == key })
}

// take returns a field, nil where it is missing or null. Of keys that repeat, the last one counts.
func (f *fields) take(key string) (value []byte) {
	for i := 0; i < len(f.left); i++ {
		if f.left[i].key == key {
			value = f.left[i].value
			f.left = slices.Delete(f.left, i, i+1)
			i--
		}
	}
	if string(value) == "null" {
		return nil
	}
	return value
}

// want returns a field of a kind, nil where it is missing or null.
func (f *fields) want(key, want string) []byte {
	value := f.take(key)
	if value != nil && kind(value) != want {
		f.fail("%s: %s is expected, not %s", key, want, kind(value))
		return nil
	}
	return value
}

// is checks a field of the envelope.
func (f *fields) is(key, want string) {
	if value := f.want(key, "a string"); value == nil {
		f.fail("%s is missing", key)
	} else if got := text(value); got != want {
		f.fail("%s is %s, not %q", key, quote(got), want)
	}
}

// text reads an optional text.
func (f *fields) text(key string, most int) string {
	value := f.want(key, "a string")
	if value == nil {
		return ""
	}
	text := text(value)
	if n := utf8.RuneCountInString(text); n > most {
		f.fail("%s: %d characters, and at most %d are taken", key, n, most)
	}
	return text
}

// word is an optional text without control characters: it will stand in logs, on terminals and in addresses.
func (f *fields) word(key string, most int) string {
	text := f.text(key, most)
	if strings.ContainsFunc(text, unicode.IsControl) {
		f.fail("%s: control characters in %s", key, quote(text))
	}
	return text
}

// name is a word that has to be there.
func (f *fields) name(key string) string {
	there := f.has(key)
	name := f.word(key, MaxName)
	switch {
	case !there:
		f.fail("%s is missing", key)
	case name == "":
		f.fail("%s is empty", key)
	}
	return name
}

func (f *fields) definition() Definition {
	if f.err != nil {
		return Definition{}
	}
	d := Definition{
		ID:        f.name("id"),
		Role:      f.name("role"),
		Component: f.name("component"),
		Label:     f.text("label", MaxText),
		Icon:      f.word("icon", MaxName),
		Inports:   f.ports("inports"),
		Outports:  f.ports("outports"),
		Heartbeat: f.heartbeat("heartbeat"),
		Type:      f.word("type", MaxName),
		Version:   f.word("version", MaxName),
		InQueue:   f.word("inqueue", MaxAddress),
		OutQueue:  f.word("outqueue", MaxAddress),
		Address:   f.address("address"),
	}
	d.Extra = f.extra()
	return d
}

// extra returns what is left.
func (f *fields) extra() map[string]json.RawMessage {
	if len(f.left) == 0 {
		return nil
	}
	extra := make(map[string]json.RawMessage, len(f.left))
	for _, x := range f.left {
		extra[x.key] = compact(x.value)
	}
	return extra
}

// compact takes the blanks out, so that what means the same is equal. The value is known to be JSON.
func compact(raw []byte) json.RawMessage {
	var buf bytes.Buffer
	_ = json.Compact(&buf, raw)
	return buf.Bytes()
}

func (f *fields) ports(key string) []Port {
	value := f.want(key, "an array")
	if value == nil {
		f.fail("%s is missing", key)
	}
	if f.err != nil {
		return nil
	}
	ports := []Port{}
	var seen map[string]bool
	n := 0
	for c := enter(value); c.more(); n++ {
		raw := c.value()
		if n >= MaxPorts {
			continue // how many there are is of interest only
		}
		of := open(raw)
		var port Port
		if of.err == nil {
			port = of.port()
		}
		if n == 1 {
			seen = map[string]bool{ports[0].ID: true} // most sides have one port, and need no map
		}
		if seen[port.ID] {
			of.fail("id %s is there twice", quote(port.ID))
		}
		if of.err != nil {
			f.fail("%s[%d]: %w", key, n, of.err)
			return nil
		}
		if seen != nil {
			seen[port.ID] = true
		}
		ports = append(ports, port)
	}
	if n > MaxPorts {
		f.fail("%s: %d ports, and at most %d are taken", key, n, MaxPorts)
		return nil
	}
	return ports
}

func (f *fields) port() Port {
	p := Port{
		ID:          f.name("id"),
		Type:        f.word("type", MaxName),
		Queue:       f.word("queue", MaxAddress),
		Description: f.text("description", MaxText),
		Schema:      f.word("schema", MaxAddress),
		Options:     f.options("options"),
	}
	if p.Type == "" {
		p.Type = AnyType
	}
	p.Hidden = string(f.want("hidden", "true or false")) == "true"
	p.Extra = f.extra()
	return p
}

func (f *fields) options(key string) json.RawMessage {
	value := f.want(key, "an object")
	if value == nil {
		return nil
	}
	return compact(value)
}

func (f *fields) heartbeat(key string) time.Duration {
	value := f.want(key, "a number")
	if value == nil {
		return 0
	}
	seconds, _ := strconv.ParseFloat(string(value), 64) // infinite, where it does not fit
	if least, most := MinHeartbeat.Seconds(), MaxHeartbeat.Seconds(); seconds < least || seconds > most {
		f.fail("%s: %g seconds, and %g to %g are taken", key, seconds, least, most)
		return 0
	}
	return time.Duration(math.Round(seconds * float64(time.Second)))
}

func (f *fields) address(key string) string {
	text := f.word(key, MaxAddress)
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || !strings.HasPrefix(text, "ws://") && !strings.HasPrefix(text, "wss://") {
		f.fail("%s: a URL ws://… or wss://… is expected, not %s", key, quote(text))
	}
	return text
}

// kind says what a JSON value is.
func kind(raw []byte) string {
	switch bytes.TrimLeft(raw, blanks)[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// quote quotes the beginning of what somebody sent.
func quote(text string) string {
	const most = 40
	if len(text) <= most {
		return fmt.Sprintf("%q", text)
	}
	n := most
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return fmt.Sprintf("%q…", text[:n])
}
