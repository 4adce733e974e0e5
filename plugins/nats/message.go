package nats

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/flogate/flogate/core/transport"
)

// The headers that carry the fields of a message. NATS headers are lines of text: what is not (control characters, outer
// spaces, names that are no tokens or have a meaning of their own) travels in flogateField and flogateHeader.
const (
	contentType     = "Content-Type"
	contentEncoding = "Content-Encoding"
	correlationID   = "Correlation-Id"
	messageID       = "Message-Id"
	replyTo         = "Reply-To"
	natsMsgID       = "Nats-Msg-Id"
	natsTTL         = "Nats-TTL"
	natsExpect      = "Nats-Expected-"
	natsExpectIn    = "Nats-Expected-Stream"
	flogateCreated  = "Flogate-Created"  // RFC 3339
	flogatePriority = "Flogate-Priority" // 1 to 255
	flogateRetain   = "Flogate-Retain"   // "true"
	flogateField    = "Flogate-Field"    // "Correlation-Id=AAEC": a field of the list above, base64
	flogateHeader   = "Flogate-Header"   // "text a+b=c%0A", "binary n=AAEC": a header, name and text percent-encoded, bytes base64
)

// dedupPrefix begins the message ids that are made here, so that they are not taken for the publisher's own.
const dedupPrefix = "flogate-"

// dedupIDOf is the same for every attempt to send what a sink gets from one place at a source, and different for everything
// else: a SourceID is unique within its subscription only, the sink's name makes it so within the stream.
func dedupIDOf(connName, sinkName, sourceID string) string {
	h := sha256.New()
	for _, part := range []string{connName, sinkName, sourceID} {
		h.Write([]byte(strconv.Itoa(len(part))))
		h.Write([]byte{':'})
		h.Write([]byte(part))
	}
	return dedupPrefix + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// encode returns the headers of a message that NATS has no place of its own for. replyHeader puts the reply address among
// them. What only a stream knows (its id for duplicates, its time to live) is left to the caller.
func encode(m *transport.Message, replyHeader bool) nats.Header {
	e := encoder{}
	if replyHeader {
		e.field(replyTo, m.ReplyTo)
	}
	e.field(contentType, m.ContentType)
	e.field(contentEncoding, m.ContentEncoding)
	e.field(correlationID, m.CorrelationID)
	e.field(messageID, m.ID)
	if !m.Created.IsZero() {
		e.add(flogateCreated, m.Created.UTC().Format(time.RFC3339Nano))
	}
	if m.Priority > 0 {
		e.add(flogatePriority, strconv.Itoa(int(m.Priority)))
	}
	if m.Retain {
		e.add(flogateRetain, "true")
	}
	for _, h := range m.Headers {
		switch {
		case h.Binary:
			e.add(flogateHeader, "binary "+url.QueryEscape(h.Name)+"="+base64.StdEncoding.EncodeToString([]byte(h.Value)))
		case !plainName(h.Name) || !plainText(h.Value):
			e.add(flogateHeader, "text "+url.QueryEscape(h.Name)+"="+url.QueryEscape(h.Value))
		default:
			e.add(h.Name, h.Value)
		}
	}
	return e.h
}

type encoder struct {
	h nats.Header // nil while there is none: a message without headers is cheaper
}

func (e *encoder) add(name, value string) {
	if e.h == nil {
		e.h = make(nats.Header)
	}
	e.h[name] = append(e.h[name], value)
}

func (e *encoder) field(name, value string) {
	switch {
	case value == "":
	case plainText(value):
		e.add(name, value)
	default:
		e.add(flogateField, name+"="+base64.StdEncoding.EncodeToString([]byte(value)))
	}
}

// plainText reports whether a header line gives the value back unchanged.
func plainText(v string) bool {
	if v == "" {
		return true
	}
	if v[0] == ' ' || v[len(v)-1] == ' ' || !utf8.ValidString(v) {
		return false
	}
	return !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// plainName reports whether a header may have the name: a token, and none that means something to NATS or to us.
func plainName(name string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	switch canonical := textproto.CanonicalMIMEHeaderKey(name); canonical {
	case contentType, contentEncoding, correlationID, messageID, replyTo, "Status", "Description":
		return false
	default:
		return !strings.HasPrefix(canonical, "Nats-") && !strings.HasPrefix(canonical, "Flogate-")
	}
}

// decode returns what the headers of a received message say. It returns the Nats-TTL by itself, as it counts from when the
// message was stored.
func decode(h nats.Header) (m transport.Message, ttl time.Duration) {
	if len(h) == 0 {
		return m, 0
	}
	var msgID string
	// The library keeps no order among names.
	for _, name := range slices.Sorted(maps.Keys(h)) {
		values := h[name]
		if len(values) == 0 {
			continue
		}
		switch canonical := textproto.CanonicalMIMEHeaderKey(name); canonical {
		case contentType, contentEncoding, correlationID, messageID, replyTo:
			*field(&m, canonical) = values[0]
		case natsMsgID:
			msgID = values[0]
		case "Nats-Ttl":
			ttl = parseTTL(values[0])
		case flogateCreated:
			m.Created, _ = time.Parse(time.RFC3339Nano, values[0])
		case flogatePriority:
			if p, err := strconv.ParseUint(values[0], 10, 8); err == nil {
				m.Priority = uint8(p)
			}
		case flogateRetain:
			m.Retain = values[0] == "true"
		case flogateField:
			for _, v := range values {
				name, coded, _ := strings.Cut(v, "=")
				if text, err := base64.StdEncoding.DecodeString(coded); err == nil {
					if f := field(&m, name); f != nil {
						*f = string(text)
					}
				}
			}
		case flogateHeader:
			for _, v := range values {
				if header, ok := decodeHeader(v); ok {
					m.Headers = append(m.Headers, header)
				}
			}
		default:
			if strings.HasPrefix(canonical, natsExpect) {
				continue // was an order to the stream
			}
			for _, v := range values {
				m.Headers = append(m.Headers, transport.Header{Name: name, Value: v})
			}
		}
	}
	if m.ID == "" && !strings.HasPrefix(msgID, dedupPrefix) {
		m.ID = msgID
	}
	return m, ttl
}

func field(m *transport.Message, name string) *string {
	switch name {
	case contentType:
		return &m.ContentType
	case contentEncoding:
		return &m.ContentEncoding
	case correlationID:
		return &m.CorrelationID
	case messageID:
		return &m.ID
	case replyTo:
		return &m.ReplyTo
	}
	return nil
}

func decodeHeader(v string) (transport.Header, bool) {
	kind, rest, _ := strings.Cut(v, " ")
	coded, value, ok := strings.Cut(rest, "=")
	name, err := url.QueryUnescape(coded)
	if !ok || err != nil {
		return transport.Header{}, false
	}
	switch kind {
	case "text":
		text, err := url.QueryUnescape(value)
		return transport.Header{Name: name, Value: text}, err == nil
	case "binary":
		text, err := base64.StdEncoding.DecodeString(value)
		return transport.Header{Name: name, Value: string(text), Binary: true}, err == nil
	}
	return transport.Header{}, false
}

// parseTTL reads a Nats-TTL: seconds, or a duration; 0 for none and for "never".
func parseTTL(v string) time.Duration {
	if d, err := time.ParseDuration(v); err == nil {
		return max(0, d)
	}
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return time.Duration(max(0, s)) * time.Second
	}
	return 0
}

// formatTTL is a Nats-TTL: whole seconds, and at least one, or the stream refuses the message.
func formatTTL(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10) + "s"
}
