package discovery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Marshal returns the announcement of the participant, in the envelope. Parse takes it, and returns the same definition;
// one that Parse would not take is an error.
func (d Definition) Marshal() ([]byte, error) {
	payload, err := d.MarshalJSON() // json.Marshal would add escapes for HTML
	if err != nil {
		return nil, fmt.Errorf("participant %s: %w", quote(d.ID), err)
	}
	body := append([]byte(`{"protocol":"discovery","command":"participant","payload":`), payload...)
	body = append(body, '}')
	if _, err := Parse(body); err != nil {
		return nil, fmt.Errorf("participant %s: %w", quote(d.ID), err)
	}
	return body, nil
}

// MarshalJSON returns the bare definition: the keys of the protocol in the order of the type, then the extra ones by name.
func (d Definition) MarshalJSON() ([]byte, error) {
	var w writer
	w.field("id", d.ID)
	w.field("role", d.Role)
	w.field("component", d.Component)
	w.text("label", d.Label)
	w.text("icon", d.Icon)
	w.field("inports", list(d.Inports))
	w.field("outports", list(d.Outports))
	if d.Heartbeat != 0 {
		w.field("heartbeat", float64(d.Heartbeat)/float64(time.Second))
	}
	w.text("type", d.Type)
	w.text("version", d.Version)
	w.text("inqueue", d.InQueue)
	w.text("outqueue", d.OutQueue)
	w.text("address", d.Address)
	w.extra(d.Extra, definitionKeys())
	return w.done()
}

// MarshalJSON returns the port as it stands in an announcement.
func (p Port) MarshalJSON() ([]byte, error) {
	var w writer
	w.field("id", p.ID)
	w.text("type", p.Type)
	w.text("queue", p.Queue)
	w.text("description", p.Description)
	w.text("schema", p.Schema)
	if p.Options != nil {
		w.field("options", p.Options)
	}
	if p.Hidden {
		w.field("hidden", true)
	}
	w.extra(p.Extra, portKeys())
	return w.done()
}

func definitionKeys() []string {
	return []string{
		"id", "role", "component", "label", "icon", "inports", "outports", "heartbeat",
		"type", "version", "inqueue", "outqueue", "address",
	}
}

func portKeys() []string {
	return []string{"id", "type", "queue", "description", "schema", "options", "hidden"}
}

// list is never null: ports are mandatory, also where there are none.
func list(ports []Port) []Port {
	if ports == nil {
		return []Port{}
	}
	return ports
}

// writer writes an object, because the order of a map's keys and of a struct's cannot be had together.
type writer struct {
	buf bytes.Buffer
	err error
}

func (w *writer) field(key string, value any) {
	if w.err != nil {
		return
	}
	sep := byte(',')
	if w.buf.Len() == 0 {
		sep = '{'
	}
	w.buf.WriteByte(sep)
	// Not json.Marshal: it would write <, > and & as escapes, and an address is read by people.
	enc := json.NewEncoder(&w.buf)
	enc.SetEscapeHTML(false)
	if w.err = enc.Encode(key); w.err == nil {
		w.buf.Truncate(w.buf.Len() - 1) // the encoder ends its values with a newline
		w.buf.WriteByte(':')
		if w.err = enc.Encode(value); w.err == nil {
			w.buf.Truncate(w.buf.Len() - 1)
			return
		}
	}
	w.err = fmt.Errorf("%s: %w", key, w.err)
}

func (w *writer) text(key, value string) {
	if value != "" {
		w.field(key, value)
	}
}

func (w *writer) extra(extra map[string]json.RawMessage, known []string) {
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		if w.err == nil && slices.Contains(known, key) {
			w.err = fmt.Errorf("%s is a key of the protocol, and no extra one", key)
		}
		w.field(key, extra[key])
	}
}

func (w *writer) done() ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	w.buf.WriteByte('}')
	return w.buf.Bytes(), nil
}
