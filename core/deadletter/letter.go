// Package deadletter says what a dead letter is on a broker, and works on those that lie there.
//
// A dead letter is a message that a sink has refused for good, with the cause, the edge and the time. On a broker whose
// messages have headers it is the message as it came, with headers beside its own; on one whose messages are bodies only
// (MQTT 3.1.1) it is a JSON object with all of that in it. [Letter.Pack] makes it, [Open] takes it apart again.
//
// A [Box] is a place for dead letters, opened to look into it. What it hands out stays on the broker until it is taken
// out, and a box that is closed, or whose program is killed, leaves everything where it was.
//
// The package decides nothing: which edge has dead letters and where they are is the site's business.
package deadletter

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flogate/flogate/core/transport"
)

// The headers of a dead letter beside those of the message. Header names are compared without regard to case.
const (
	HeaderCause    = "flogate-dead-cause"    // why the sink refused it, in words
	HeaderEdge     = "flogate-dead-edge"     // the edge on which it was
	HeaderTime     = "flogate-dead-time"     // when, RFC 3339 in UTC
	HeaderFrom     = "flogate-dead-from"     // the address at which it came in
	HeaderBroker   = "flogate-dead-broker"   // the broker at which it came in
	HeaderAttempts = "flogate-dead-attempts" // how often it was tried
	HeaderBody     = "flogate-dead-body"     // "omitted, N bytes" where the body was too large to pass
	HeaderID       = "flogate-dead-id"       // the message's own id
	HeaderTTL      = "flogate-dead-ttl"      // the message's time to live, as a duration
	HeaderRetain   = "flogate-dead-retain"   // "true": the message was to be kept as the last value of its address
)

// prefix begins all of them.
const prefix = "flogate-dead-"

// Letter is a dead letter.
type Letter struct {
	// Message as it came in, with the address at which it did.
	Message transport.Message
	// Cause says in words why the sink refused it.
	Cause string
	// Edge is its ID: "a.out -> b.in". Empty for what was not sent there by a gateway.
	Edge string
	// Broker is where the message came in.
	Broker string
	Time   time.Time
	// Attempts is how often the message was given to the sink, as far as anybody has counted.
	Attempts int
	// Omitted says what is missing of the body, "omitted, N bytes"; empty if nothing is.
	Omitted string
}

// Pack returns the letter as a message. headerless is for brokers that carry bodies only.
//
// The message lives for ever, is durable, and has no id: a broker that drops what it has seen the id of would take the
// letters of two edges for one.
func (l Letter) Pack(headerless bool) transport.Message {
	if headerless {
		return l.envelope()
	}
	m := l.Message
	m.Headers = own(m.Headers)
	add := func(name, value string) {
		if value != "" {
			m.Headers = append(m.Headers, transport.Header{Name: name, Value: value})
		}
	}
	add(HeaderCause, l.Cause)
	add(HeaderEdge, l.Edge)
	add(HeaderBroker, l.Broker)
	add(HeaderFrom, m.Address)
	add(HeaderTime, l.Time.UTC().Format(time.RFC3339Nano))
	add(HeaderAttempts, strconv.Itoa(l.Attempts))
	add(HeaderBody, l.Omitted)
	add(HeaderID, m.ID)
	if m.TTL > 0 {
		add(HeaderTTL, m.TTL.String())
	}
	if m.Retain {
		add(HeaderRetain, "true")
	}
	m.ID, m.TTL, m.Retain, m.Durable = "", 0, false, true
	return m
}

// own returns the headers without those of an earlier death.
func own(headers []transport.Header) []transport.Header {
	return slices.DeleteFunc(slices.Clone(headers), func(h transport.Header) bool { return isOurs(h.Name) })
}

func isOurs(name string) bool {
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// Open takes a message apart that Pack may have made. It returns false for what is no dead letter of a gateway: then the
// letter is the message alone.
func Open(m transport.Message) (Letter, bool) {
	l := Letter{Message: m}
	found := false
	for _, h := range m.Headers {
		if !isOurs(h.Name) {
			continue
		}
		switch strings.ToLower(h.Name) {
		case HeaderCause:
			l.Cause, found = h.Value, true
		case HeaderEdge:
			l.Edge, found = h.Value, true
		case HeaderBroker:
			l.Broker = h.Value
		case HeaderFrom:
			l.Message.Address = h.Value
		case HeaderTime:
			l.Time, _ = time.Parse(time.RFC3339Nano, h.Value) // the zero time, for what is none
		case HeaderAttempts:
			l.Attempts, _ = strconv.Atoi(h.Value)
		case HeaderBody:
			l.Omitted = h.Value
		case HeaderID:
			l.Message.ID = h.Value
		case HeaderTTL:
			l.Message.TTL, _ = time.ParseDuration(h.Value)
		case HeaderRetain:
			l.Message.Retain = h.Value == "true"
		}
	}
	if !found {
		// Only now: the message of a letter with headers may be another one's envelope.
		if l, ok := openEnvelope(m); ok {
			return l, true
		}
		return Letter{Message: m}, false
	}
	l.Message.Headers = own(m.Headers)
	return l, true
}

// envelopeVersion is the value of the key that makes a JSON object a dead letter.
const envelopeVersion = 1

// envelope is a dead letter as a body. Keys that are not there are as good as empty; unknown ones are for later versions.
type envelope struct {
	Version         int              `json:"flogate-dead-letter"`
	Cause           string           `json:"cause"`
	Edge            string           `json:"edge,omitempty"`
	Broker          string           `json:"broker,omitempty"`
	From            string           `json:"from,omitempty"`
	Time            time.Time        `json:"time"`
	Attempts        int              `json:"attempts,omitempty"`
	Omitted         string           `json:"omitted,omitempty"`
	ID              string           `json:"id,omitempty"`
	ContentType     string           `json:"content_type,omitempty"`
	ContentEncoding string           `json:"content_encoding,omitempty"`
	CorrelationID   []byte           `json:"correlation_id,omitempty"`
	ReplyTo         string           `json:"reply_to,omitempty"`
	Created         time.Time        `json:"created,omitzero"`
	TTL             string           `json:"ttl,omitempty"`
	Priority        uint8            `json:"priority,omitempty"`
	Retain          bool             `json:"retain,omitempty"`
	Headers         []envelopeHeader `json:"headers,omitempty"`
	// Text is the body if it is UTF-8, Body is it if it is not.
	Text *string `json:"text,omitempty"`
	Body []byte  `json:"base64,omitempty"`
}

type envelopeHeader struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Bytes []byte `json:"base64,omitempty"`
}

func (l Letter) envelope() transport.Message {
	m := l.Message
	e := envelope{
		Version: envelopeVersion, Cause: l.Cause, Edge: l.Edge, Broker: l.Broker, From: m.Address, Time: l.Time.UTC(), Attempts: l.Attempts,
		Omitted: l.Omitted, ID: m.ID, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, ReplyTo: m.ReplyTo, Created: m.Created,
		Priority: m.Priority, Retain: m.Retain,
	}
	if m.CorrelationID != "" {
		e.CorrelationID = []byte(m.CorrelationID)
	}
	if m.TTL > 0 {
		e.TTL = m.TTL.String()
	}
	for _, h := range own(m.Headers) {
		if h.Binary || !utf8.ValidString(h.Value) {
			e.Headers = append(e.Headers, envelopeHeader{Name: h.Name, Bytes: []byte(h.Value)})
		} else {
			e.Headers = append(e.Headers, envelopeHeader{Name: h.Name, Value: h.Value})
		}
	}
	if utf8.Valid(m.Body) {
		text := string(m.Body)
		e.Text = &text
	} else {
		e.Body = m.Body
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // an edge is "a.out -> b.in"
	if err := enc.Encode(e); err != nil {
		// Only a year beyond 9999 does that, which somebody may well have sent.
		e.Created = time.Time{}
		b.Reset()
		_ = enc.Encode(e)
	}
	return transport.Message{
		Body: []byte(strings.TrimSuffix(b.String(), "\n")), Address: m.Address, ContentType: "application/json", Durable: true,
		SourceID: m.SourceID,
	}
}

// openEnvelope opens what envelope made. A message of the broker keeps what says how it came: the source id, and whether it
// came before.
func openEnvelope(m transport.Message) (Letter, bool) {
	if len(m.Body) == 0 || m.Body[0] != '{' {
		return Letter{}, false
	}
	var e envelope
	if err := json.Unmarshal(m.Body, &e); err != nil || e.Version != envelopeVersion {
		return Letter{}, false
	}
	l := Letter{Cause: e.Cause, Edge: e.Edge, Broker: e.Broker, Time: e.Time, Attempts: e.Attempts, Omitted: e.Omitted}
	l.Message = transport.Message{
		Address: e.From, ID: e.ID, ContentType: e.ContentType, ContentEncoding: e.ContentEncoding, CorrelationID: string(e.CorrelationID),
		ReplyTo: e.ReplyTo, Created: e.Created, Priority: e.Priority, Retain: e.Retain, Durable: true,
		Redelivered: m.Redelivered, Attempt: m.Attempt, SourceID: m.SourceID, Body: e.Body,
	}
	l.Message.TTL, _ = time.ParseDuration(e.TTL) // none, for what is none
	if e.Text != nil {
		l.Message.Body = []byte(*e.Text)
	}
	for _, h := range e.Headers {
		header := transport.Header{Name: h.Name, Value: h.Value}
		if h.Bytes != nil {
			header = transport.Header{Name: h.Name, Value: string(h.Bytes), Binary: true}
		}
		l.Message.Headers = append(l.Message.Headers, header)
	}
	return l, true
}

// Omitted is what a letter says of a body that is left out.
func Omitted(bytes int64) string { return fmt.Sprintf("omitted, %d bytes", bytes) }

// Reader is the source from which the letters at an address are read: the same for everybody who does, because where the
// broker keeps them only for subscriptions (topics), the name of this one is under which they are kept. options are for
// the driver's Source.
func Reader(address string, options json.RawMessage) transport.Source {
	return transport.Source{Name: "dead letters " + address, Address: address, Options: options}
}
