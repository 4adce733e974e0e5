package amqp

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

const (
	// maxShort is the most bytes of a short string, which names, keys and most properties are. The library ends the whole
	// connection when it meets a longer one.
	maxShort = 255
	// retainHeader is the header that carries Retain, as a boolean. Headers of the message model are text or bytes, so that
	// none of theirs can be taken for it.
	retainHeader = "flogate-retain"
)

// toMessage makes a message of a delivery from a queue.
func toMessage(d *amqp091.Delivery, queue string, uniqueIDs bool) transport.Message {
	m := transport.Message{
		Body:            d.Body,
		Address:         d.RoutingKey,
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		ID:              d.MessageId,
		CorrelationID:   d.CorrelationId,
		ReplyTo:         d.ReplyTo,
		Created:         d.Timestamp,
		TTL:             toTTL(d.Expiration),
		Priority:        d.Priority,
		Durable:         d.DeliveryMode == amqp091.Persistent,
		Redelivered:     d.Redelivered,
		Attempt:         attempt(d, queue),
	}
	if m.Address == "" {
		m.Address = d.Exchange // fanout exchanges need no key
	}
	if uniqueIDs && d.MessageId != "" {
		// Only where the site says so: publishers that use an id twice would lose messages at a sink that deduplicates.
		m.SourceID = queue + "/" + d.MessageId
	}
	if retain, ok := d.Headers[retainHeader].(bool); ok {
		m.Retain = retain
		delete(d.Headers, retainHeader)
	}
	m.Headers = toHeaders(d.Headers)
	return m
}

// toTTL reads an expiration in milliseconds. The broker does not say how much of it is over.
func toTTL(expiration string) time.Duration {
	if expiration == "" {
		return 0
	}
	ms, err := strconv.ParseInt(expiration, 10, 64)
	if err != nil || ms <= 0 || ms > math.MaxInt64/int64(time.Millisecond) {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// attempt counts the deliveries from this queue: quorum queues count them, and a message that was dead-lettered out of the
// queue and came back has that in its x-death header. Classic queues only say that there was one before.
func attempt(d *amqp091.Delivery, queue string) uint32 {
	var before int64
	deaths, _ := d.Headers["x-death"].([]any)
	for _, death := range deaths {
		if t, ok := death.(amqp091.Table); ok && t["queue"] == queue {
			n, _ := t["count"].(int64)
			before += n
		}
	}
	switch n, counted := toInt(d.Headers["x-delivery-count"]); {
	case counted:
		before += n
	case d.Redelivered:
		return 0
	}
	return uint32(min(max(before, 0)+1, math.MaxUint32))
}

func toInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int8:
		return int64(v), true
	case byte:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int32:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// toHeaders lists a table by name: tables have no order. An array of texts and byte strings is a header that repeats.
func toHeaders(table amqp091.Table) []transport.Header {
	if len(table) == 0 {
		return nil
	}
	hs := make([]transport.Header, 0, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if values, ok := table[name].([]any); ok && plain(values) {
			for _, v := range values {
				hs = append(hs, toHeader(name, v))
			}
			continue
		}
		hs = append(hs, toHeader(name, table[name]))
	}
	return hs
}

func plain(values []any) bool {
	for _, v := range values {
		switch v.(type) {
		case string, []byte:
		default:
			return false
		}
	}
	return len(values) > 0
}

func toHeader(name string, value any) transport.Header {
	h := transport.Header{Name: name}
	switch v := value.(type) {
	case string:
		h.Value = v
	case []byte:
		h.Value, h.Binary = string(v), true
	default:
		h.Value = toText(v)
	}
	return h
}

// toText writes the values for which the message model has no type: numbers and booleans in their usual form, times as
// RFC 3339, no value as "", tables and arrays as JSON.
func toText(value any) string {
	if n, ok := toInt(value); ok {
		return strconv.FormatInt(n, 10)
	}
	switch v := value.(type) {
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp091.Decimal:
		return decimal(v)
	}
	text, err := json.Marshal(toJSON(value))
	if err != nil {
		return fmt.Sprint(value) // a float that is no number
	}
	return string(text)
}

// decimal writes a scaled integer without losing digits.
func decimal(d amqp091.Decimal) string {
	digits := strconv.FormatInt(int64(d.Value), 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if d.Scale == 0 {
		return sign + digits
	}
	for len(digits) <= int(d.Scale) {
		digits = "0" + digits
	}
	point := len(digits) - int(d.Scale)
	return sign + digits[:point] + "." + digits[point:]
}

// toJSON replaces what encoding/json would write otherwise than toText does.
func toJSON(value any) any {
	switch v := value.(type) {
	case amqp091.Table:
		m := make(map[string]any, len(v))
		for name, e := range v {
			m[name] = toJSON(e)
		}
		return m
	case []any:
		es := make([]any, len(v))
		for i, e := range v {
			es[i] = toJSON(e)
		}
		return es
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp091.Decimal:
		return json.Number(decimal(v))
	}
	return value
}

// unsendable are the headers that the broker itself reads. CC and BCC would send the message to other queues, and it closes
// the channel when they are no arrays; the others are its own records.
func unsendable(name string) bool {
	switch name {
	case "CC", "BCC", "x-death", "x-delivery-count":
		return true
	}
	return false
}

// directReply is not an address: the broker closes a channel that publishes with it and does not consume from it.
const directReply = "amq.rabbitmq.reply-to"

// toPublishing makes what the broker gets of a message. What AMQP cannot carry is left out: properties and names of headers
// longer than 255 bytes, and headers that the broker would obey. dropped names the first of them. The error says why the
// broker would never take the message.
func toPublishing(m *transport.Message, persistent bool, maxBody int64, maxProps int) (p amqp091.Publishing, dropped string, err error) {
	if size := int64(len(m.Body)); size > maxBody {
		return p, "", fmt.Errorf("the body has %d bytes, the broker takes %d", size, maxBody)
	}
	short := func(value, name string) string {
		if len(value) > maxShort {
			dropped = name
			return ""
		}
		return value
	}
	p = amqp091.Publishing{
		Body:            m.Body,
		ContentType:     short(m.ContentType, "content type"),
		ContentEncoding: short(m.ContentEncoding, "content encoding"),
		MessageId:       short(m.ID, "message id"),
		CorrelationId:   short(m.CorrelationID, "correlation id"),
		ReplyTo:         short(m.ReplyTo, "reply address"),
		Priority:        m.Priority,
		DeliveryMode:    amqp091.Transient,
	}
	if p.ReplyTo == directReply {
		p.ReplyTo, dropped = "", "reply address "+directReply
	}
	if persistent || m.Durable {
		p.DeliveryMode = amqp091.Persistent
	}
	if m.TTL > 0 {
		// Not 0, which means at once; and not more than the broker's 32 bits.
		ms := (m.TTL + time.Millisecond - 1) / time.Millisecond
		p.Expiration = strconv.FormatInt(int64(min(ms, math.MaxUint32)), 10)
	}
	if m.Created.Unix() > 0 {
		p.Timestamp = m.Created
	}
	if m.Retain {
		p.Headers = amqp091.Table{retainHeader: true}
	}
	for _, h := range m.Headers {
		if len(h.Name) > maxShort || unsendable(h.Name) {
			dropped = "header " + h.Name[:min(len(h.Name), 40)]
			continue
		}
		if p.Headers == nil {
			p.Headers = make(amqp091.Table, len(m.Headers))
		}
		addHeader(p.Headers, h)
	}
	if len(p.Headers) > 0 {
		if size := propsSize(&p); size > maxProps {
			return p, dropped, fmt.Errorf("the headers need %d bytes, a frame has %d", size, maxProps)
		}
	}
	return p, dropped, nil
}

func addHeader(table amqp091.Table, h transport.Header) {
	var value any = h.Value
	if h.Binary {
		value = []byte(h.Value)
	}
	switch before, repeats := table[h.Name]; values := before.(type) {
	case []any:
		table[h.Name] = append(values, value)
	default:
		if repeats {
			value = []any{before, value}
		}
		table[h.Name] = value
	}
}

// propsSize is the most that the header frame of a publishing needs, which cannot be split.
func propsSize(p *amqp091.Publishing) int {
	const fixed = 8 + 14 + 13 + 1 + 1 + 8 + 4 // frame, class and size and flags, lengths, mode, priority, time, table
	n := fixed + len(p.ContentType) + len(p.ContentEncoding) + len(p.MessageId) + len(p.CorrelationId) +
		len(p.ReplyTo) + len(p.Expiration) + 20 // the number in the app id
	size := func(v any) int {
		switch v := v.(type) {
		case string:
			return 5 + len(v)
		case []byte:
			return 5 + len(v)
		}
		return 2 // a boolean
	}
	for name, v := range p.Headers {
		n += 1 + len(name)
		values, ok := v.([]any)
		if !ok {
			n += size(v)
			continue
		}
		n += 5
		for _, e := range values {
			n += size(e)
		}
	}
	return n
}
