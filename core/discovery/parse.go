package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
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
	f := open("", body)
	if raw, enveloped := f.left["payload"]; enveloped {
		f.is("protocol", "discovery")
		f.is("command", "participant")
		if f.err != nil {
			return Definition{}, f.err
		}
		f = open("payload: ", raw)
	}
	d := f.definition()
	if f.err != nil {
		return Definition{}, f.err
	}
	return d, nil
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
	path string // before what errors say
	left map[string]json.RawMessage
	err  error
}

func open(path string, raw []byte) *fields {
	f := &fields{path: path}
	if err := json.Unmarshal(raw, &f.left); err != nil {
		syntax := new(json.SyntaxError)
		if errors.As(err, &syntax) {
			f.fail("no JSON: %s at byte %d", syntax, syntax.Offset)
		} else {
			f.fail("an object is expected, not %s", kind(raw))
		}
	} else if f.left == nil {
		f.fail("an object is expected, not null")
	}
	return f
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(f.path+format, args...)
	}
}

// take returns a field, nil where it is missing or null.
func (f *fields) take(key string) json.RawMessage {
	raw := f.left[key]
	delete(f.left, key)
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// decode decodes a field, if it is there.
func (f *fields) decode(key string, into any, expected string) bool {
	raw := f.take(key)
	if raw == nil || f.err != nil {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		f.fail("%s: %s is expected, not %s", key, expected, kind(raw))
		return false
	}
	return true
}

// is checks a field of the envelope.
func (f *fields) is(key, want string) {
	var text string
	if !f.decode(key, &text, "a string") {
		f.fail("%s is missing", key)
	} else if text != want {
		f.fail("%s is %s, not %q", key, quote(text), want)
	}
}

// text reads an optional text.
func (f *fields) text(key string, most int) string {
	var text string
	f.decode(key, &text, "a string")
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
	_, there := f.left[key]
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
	for key, raw := range f.left {
		f.left[key] = compact(raw)
	}
	return f.left
}

// compact takes the blanks out, so that what means the same is equal. The value is known to be JSON.
func compact(raw json.RawMessage) json.RawMessage {
	var buf bytes.Buffer
	_ = json.Compact(&buf, raw)
	return buf.Bytes()
}

func (f *fields) ports(key string) []Port {
	var list []json.RawMessage
	if !f.decode(key, &list, "an array") {
		f.fail("%s is missing", key)
		return nil
	}
	if len(list) > MaxPorts {
		f.fail("%s: %d ports, and at most %d are taken", key, len(list), MaxPorts)
		return nil
	}
	ports := make([]Port, 0, len(list))
	seen := make(map[string]bool, len(list))
	for i, raw := range list {
		of := open(fmt.Sprintf("%s%s[%d]: ", f.path, key, i), raw)
		port := of.port()
		if seen[port.ID] {
			of.fail("id %s is there twice", quote(port.ID))
		}
		if of.err != nil {
			if f.err == nil {
				f.err = of.err
			}
			return nil
		}
		seen[port.ID] = true
		ports = append(ports, port)
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
	f.decode("hidden", &p.Hidden, "true or false")
	p.Extra = f.extra()
	return p
}

func (f *fields) options(key string) json.RawMessage {
	raw := f.take(key)
	if raw != nil && kind(raw) != "an object" {
		f.fail("%s: an object is expected, not %s", key, kind(raw))
	}
	if raw == nil || f.err != nil {
		return nil
	}
	return compact(raw)
}

func (f *fields) heartbeat(key string) time.Duration {
	var seconds float64
	if !f.decode(key, &seconds, "a number") {
		return 0
	}
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
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
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
