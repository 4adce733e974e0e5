package filetransport

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// format turns messages into lines and back. A line has no line break; a line that is none is not a message.
type format struct {
	line    func(m *transport.Message) ([]byte, error)
	message func(line []byte) (transport.Message, error)
}

var formats = map[string]format{
	"":     {textLine, textMessage},
	"text": {textLine, textMessage},
	"json": {jsonLine, jsonMessage},
}

func textLine(m *transport.Message) ([]byte, error) {
	if bytes.IndexByte(m.Body, '\n') >= 0 {
		return nil, errors.New("the body has a line break, which format = \"text\" cannot carry")
	}
	return m.Body, nil
}

func textMessage(line []byte) (transport.Message, error) {
	return transport.Message{Body: bytes.Clone(line)}, nil
}

// record is a message as a line of JSON. What may be any bytes is in base64, as encoding/json does it.
type record struct {
	Body            []byte    `json:"body,omitempty"`
	Address         string    `json:"address,omitempty"`
	ContentType     string    `json:"content_type,omitempty"`
	ContentEncoding string    `json:"content_encoding,omitempty"`
	ID              string    `json:"id,omitempty"`
	CorrelationID   []byte    `json:"correlation_id,omitempty"`
	ReplyTo         string    `json:"reply_to,omitempty"`
	Created         time.Time `json:"created,omitzero"`
	Expires         time.Time `json:"expires,omitzero"`
	Priority        uint8     `json:"priority,omitempty"`
	Durable         bool      `json:"durable,omitempty"`
	Headers         []header  `json:"headers,omitempty"`
}

type header struct {
	Name   string `json:"name"`
	Value  []byte `json:"value,omitempty"`
	Binary bool   `json:"binary,omitempty"`
}

func jsonLine(m *transport.Message) ([]byte, error) {
	r := record{
		Body: m.Body, Address: m.Address, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, ID: m.ID,
		CorrelationID: []byte(m.CorrelationID), ReplyTo: m.ReplyTo, Created: m.Created, Priority: m.Priority, Durable: m.Durable,
	}
	if m.TTL > 0 {
		r.Expires = time.Now().Add(m.TTL)
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, header{Name: h.Name, Value: []byte(h.Value), Binary: h.Binary})
	}
	return json.Marshal(r)
}

// errExpired is the error of a message that has outlived itself.
var errExpired = errors.New("expired")

func jsonMessage(line []byte) (transport.Message, error) {
	var r record
	if err := json.Unmarshal(line, &r); err != nil {
		return transport.Message{}, err
	}
	m := transport.Message{
		Body: r.Body, Address: r.Address, ContentType: r.ContentType, ContentEncoding: r.ContentEncoding, ID: r.ID,
		CorrelationID: string(r.CorrelationID), ReplyTo: r.ReplyTo, Created: r.Created, Priority: r.Priority, Durable: r.Durable,
	}
	if !r.Expires.IsZero() {
		if m.TTL = time.Until(r.Expires); m.TTL <= 0 {
			return m, errExpired
		}
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, transport.Header{Name: h.Name, Value: string(h.Value), Binary: h.Binary})
	}
	return m, nil
}
