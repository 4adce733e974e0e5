package amqp

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

// The kinds of addresses.
const (
	kindAuto     = "auto"
	kindQueue    = "queue"
	kindExchange = "exchange"
)

const (
	// maxPrefetch is what the protocol's 16 bits hold; 0 would be unlimited.
	maxPrefetch = 65535
	// defaultWindow keeps a broker busy that confirms a disk write every few milliseconds.
	defaultWindow = 512
	maxWindow     = 65536
)

// declared are the options of what is made when it is missing; sources and sinks share them.
func declared(which string) []transport.Attribute {
	return []transport.Attribute{
		{Name: "queue_type", Type: transport.String, Default: "classic", OneOf: []string{"classic", "quorum"}, Doc: "Type of " + which + " when it is made."},
		{Name: "dead_letter_exchange", Type: transport.String, Doc: "Exchange that gets what is rejected from " + which + " when it is made."},
		{Name: "delivery_limit", Type: transport.Number, Doc: "Deliveries of a message until " + which + " gives it up, when it is made. Quorum queues only."},
		{Name: "max_length", Type: transport.Number, Doc: "Most messages in " + which + " when it is made."},
		{Name: "overflow", Type: transport.String, Default: "reject-publish", OneOf: []string{"drop-head", "reject-publish"}, Doc: "What a queue at its max_length does: drop its oldest messages, or refuse new ones, so that publishers wait."},
		{Name: "expires", Type: transport.Duration, Doc: "For how long " + which + ", when it is made, is kept while nobody consumes from it. Its messages go with it."},
		{Name: "exchange_type", Type: transport.String, Default: "fanout", OneOf: []string{"fanout", "direct", "topic", "headers"}, Doc: "Type of the exchange when it is made."},
	}
}

func sourceSchema() transport.Schema {
	return transport.Schema{Attributes: append([]transport.Attribute{
		{Name: "kind", Type: transport.String, Default: kindAuto, OneOf: []string{kindAuto, kindQueue, kindExchange}, Doc: "What the address names: a queue to consume from, or an exchange to which a durable queue of our own is bound. auto: the queue if there is one, else the exchange."},
		{Name: "declare", Type: transport.Bool, Default: "false", Doc: "Make what is missing: the queue, or with kind auto or exchange a durable exchange of exchange_type."},
		{Name: "routing_key", Type: transport.String, Default: "#", Doc: "Key or pattern with which our queue is bound to the exchange."},
		{Name: "queue", Type: transport.String, Doc: "Name of our queue at the exchange. The default is made of the names of the site, the broker and the feed."},
		{Name: "prefetch", Type: transport.Number, Doc: "Most unsettled messages that the broker sends, if fewer than the window of the feed. They wait in memory: set it where bodies are large and the queue is not our own at an exchange, whose limit follows the size of what comes."},
		{
			Name: "unique_ids", Type: transport.Bool, Default: "false",
			Doc: "Publishers give every message a message_id that no other has. A JetStream sink then drops what comes twice; and it would drop messages that share an id.",
		},
		{Name: "exclusive", Type: transport.Bool, Default: "false", Doc: "Be the only consumer of the queue, or fail."},
	}, declared("the queue")...)}
}

func sinkSchema() transport.Schema {
	return transport.Schema{Attributes: append([]transport.Attribute{
		{Name: "kind", Type: transport.String, Default: kindQueue, OneOf: []string{kindQueue, kindExchange}, Doc: "What the address names: a queue, or an exchange."},
		{Name: "declare", Type: transport.Bool, Default: "true", Doc: "Make what is missing: a durable queue as MsgFlo makes an inport (with a fanout exchange of its name, and dead letters to dead-<queue>), or a durable exchange. false: refuse."},
		{Name: "routing_key", Type: transport.String, Doc: "Routing key at the exchange. The default is the message's own address: the topic, subject or key under which it came."},
		{Name: "mandatory", Type: transport.Bool, Doc: "Have the broker say when no queue takes a message: a queue that is gone is made again, at an exchange the message is refused. The default is true for queues, and false for exchanges, where nobody may be listening."},
		{Name: "persistent", Type: transport.Bool, Default: "true", Doc: "Have every message written to disk. false: only those that say so."},
		{Name: "window", Type: transport.Number, Default: "512", Doc: "Most messages that may wait for the broker's confirm, 1 to 65536."},
	}, declared("the queue")...)}
}

// shape is how to make what is missing.
type shape struct {
	QueueType          string  `json:"queue_type"`
	DeadLetterExchange *string `json:"dead_letter_exchange"`
	DeliveryLimit      *int64  `json:"delivery_limit"`
	MaxLength          *int64  `json:"max_length"`
	Overflow           string  `json:"overflow"`
	Expires            string  `json:"expires"`
	ExchangeType       string  `json:"exchange_type"`

	expires time.Duration
}

func (s *shape) check(ps *problems) {
	ps.oneOf(s.QueueType, "queue_type", "classic", "quorum")
	ps.oneOf(s.Overflow, "overflow", "drop-head", "reject-publish")
	ps.oneOf(s.ExchangeType, "exchange_type", "fanout", "direct", "topic", "headers")
	if s.ExchangeType == "" {
		s.ExchangeType = amqp091.ExchangeFanout
	}
	if s.DeadLetterExchange != nil {
		ps.short(*s.DeadLetterExchange, "dead_letter_exchange")
	}
	if s.DeliveryLimit != nil && (s.QueueType != "quorum" || *s.DeliveryLimit < 1) {
		ps.add("has to be at least 1, and needs queue_type = \"quorum\"", "delivery_limit")
	}
	if s.MaxLength != nil && *s.MaxLength < 1 {
		ps.add("has to be at least 1", "max_length")
	}
	if s.Expires != "" {
		d, err := time.ParseDuration(s.Expires)
		if err != nil || d < time.Millisecond {
			ps.add("is a duration such as 24h", "expires")
		}
		s.expires = d
	}
}

// arguments are the queue's; deadLetter is used where the options name none.
func (s *shape) arguments(deadLetter string) amqp091.Table {
	args := amqp091.Table{}
	if s.QueueType == "quorum" {
		args[amqp091.QueueTypeArg] = amqp091.QueueTypeQuorum
	}
	if s.DeadLetterExchange != nil {
		deadLetter = *s.DeadLetterExchange
	}
	if deadLetter != "" {
		args["x-dead-letter-exchange"] = deadLetter
	}
	if s.DeliveryLimit != nil {
		args["x-delivery-limit"] = *s.DeliveryLimit
	}
	if s.MaxLength != nil {
		args[amqp091.QueueMaxLenArg] = *s.MaxLength
		args[amqp091.QueueOverflowArg] = amqp091.QueueOverflowRejectPublish
		if s.Overflow != "" {
			args[amqp091.QueueOverflowArg] = s.Overflow
		}
	}
	if s.expires > 0 {
		args[amqp091.QueueTTLArg] = s.expires.Milliseconds()
	}
	return args
}

func (ps *problems) short(value, name string) {
	if len(value) > maxShort {
		ps.add("has at most 255 bytes", name)
	}
}

// source is a transport.Source, checked.
type source struct {
	shape
	Kind       string  `json:"kind"`
	Declare    bool    `json:"declare"`
	RoutingKey *string `json:"routing_key"`
	Queue      string  `json:"queue"`
	Prefetch   *int    `json:"prefetch"`
	Exclusive  bool    `json:"exclusive"`
	UniqueIDs  bool    `json:"unique_ids"`

	address  string
	own      string // name of our queue at an exchange
	key      string
	prefetch int
	window   int64 // bytes
}

// parseSource checks a source on the connection of this name.
func parseSource(connName string, src transport.Source) (*source, problems) {
	var ps problems
	s := &source{address: src.Address, key: "#", window: src.Window.Bytes}
	if err := decode(src.Options, s); err != nil {
		ps.add(err.Error())
	}
	if s.Kind == "" {
		s.Kind = kindAuto
	}
	ps.oneOf(s.Kind, "kind", kindAuto, kindQueue, kindExchange)
	if s.address == "" {
		ps.add("is missing: the name of a queue or an exchange", "address")
	}
	ps.short(s.address, "address")
	if s.RoutingKey != nil {
		s.key = *s.RoutingKey
		ps.short(s.key, "routing_key")
	}
	ps.short(s.Queue, "queue")
	if s.Kind == kindQueue {
		if s.RoutingKey != nil {
			ps.add("is for exchanges", "routing_key")
		}
		if s.Queue != "" {
			ps.add("is for exchanges: a queue's name is the address", "queue")
		}
	}
	if s.own = s.Queue; s.own == "" {
		s.own = ownQueue(connName, src.Name)
	}
	s.prefetch = int(min(max(src.Window.Messages, 1), maxPrefetch))
	if s.Prefetch != nil {
		if *s.Prefetch < 1 || *s.Prefetch > maxPrefetch {
			ps.add("is 1 to 65535", "prefetch")
		}
		s.prefetch = min(s.prefetch, *s.Prefetch)
	}
	s.check(&ps)
	return s, ps
}

// limits is how many messages a consumer may have unsettled. What somebody has set stays; and so does the limit at a queue
// that is not ours or whose name somebody else has chosen, that expires without a consumer, that has but one, or that is a
// quorum queue: what it has on the way to a consumer when that is cancelled goes back and counts as delivered once, and a
// queue that counts deliveries gives a message up after some.
func (s *source) limits(own bool) prefetch {
	if !own || s.Queue != "" || s.Prefetch != nil || s.Exclusive || s.expires > 0 || s.QueueType == "quorum" || s.window <= 0 {
		return prefetch{limit: s.prefetch}
	}
	return prefetch{limit: min(s.prefetch, firstPrefetch), most: s.prefetch, window: s.window}
}

// ownQueue names the queue that is kept for a source.
func ownQueue(connName, sourceName string) string {
	name := "flogate." + connName + "." + sourceName
	if len(name) <= maxShort {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxShort-33] + "." + hex.EncodeToString(sum[:16])
}

// traits counts an address whose kind is found out later as a queue: a MsgFlo inport is a queue with an exchange of the
// same name that leads into it, so that both are one place.
func (s *source) traits() transport.Traits {
	t := transport.Traits{Acks: true, Identifies: s.UniqueIDs, Place: kindQueue + ":" + s.address}
	if s.Kind == kindExchange {
		t.Place = kindExchange + ":" + s.address
	}
	if s.Kind != kindQueue && (s.RoutingKey != nil || s.Queue != "") {
		// Our queue at the exchange has this binding or this name: with another it is another queue.
		t.Subscription = s.key + " " + s.Queue
	} else if s.Kind != kindQueue && s.ExchangeType == amqp091.ExchangeFanout {
		t.Kind = transport.Fanout // an outport as MsgFlo makes it
	}
	return t
}

// sink is a transport.Sink, checked.
type sink struct {
	shape
	Kind       string  `json:"kind"`
	Declare    *bool   `json:"declare"`
	RoutingKey *string `json:"routing_key"`
	Mandatory  *bool   `json:"mandatory"`
	Persistent *bool   `json:"persistent"`
	Window     *int    `json:"window"`

	address    string
	declare    bool
	mandatory  bool
	persistent bool
	window     int
}

func parseSink(dst transport.Sink) (*sink, problems) {
	var ps problems
	s := &sink{address: dst.Address, window: defaultWindow}
	if err := decode(dst.Options, s); err != nil {
		ps.add(err.Error())
	}
	if s.Kind == "" {
		s.Kind = kindQueue
	}
	ps.oneOf(s.Kind, "kind", kindQueue, kindExchange)
	ps.short(s.address, "address")
	if s.Kind == kindExchange && s.address == "" {
		ps.add("is missing: the name of the exchange", "address")
	}
	if s.RoutingKey != nil {
		ps.short(*s.RoutingKey, "routing_key")
		if s.Kind == kindQueue {
			ps.add(`is for exchanges: set kind = "exchange"`, "routing_key")
		}
	}
	s.declare = s.Declare == nil || *s.Declare
	s.mandatory = s.Kind == kindQueue
	if s.Mandatory != nil {
		s.mandatory = *s.Mandatory
	}
	s.persistent = s.Persistent == nil || *s.Persistent
	if s.Window != nil {
		if s.window = *s.Window; s.window < 1 || s.window > maxWindow {
			ps.add("is 1 to 65536", "window")
		}
	}
	s.check(&ps)
	return s, ps
}

func (s *sink) traits() transport.Traits {
	t := transport.Traits{Confirms: true, Place: s.Kind + ":" + s.address, Fleeting: s.Kind == kindExchange}
	if s.address == "" {
		t.Place = kindQueue + ":" // each message's own
	} else if s.Kind == kindQueue {
		t.Kind = transport.Queue
	}
	return t
}

// exchange is the exchange to publish to; the default one, without a name, leads to every queue by its name.
func (s *sink) exchange() string {
	if s.Kind == kindExchange {
		return s.address
	}
	return ""
}

// oneQueue reports whether all messages go to one queue. Then a message that cannot be routed says something of the queue,
// and nothing of the message: the queue is gone, and may come back.
func (s *sink) oneQueue() bool { return s.Kind == kindQueue && s.address != "" }

// key is the routing key of a message.
func (s *sink) key(m *transport.Message) string {
	switch {
	case s.RoutingKey != nil:
		return *s.RoutingKey
	case s.Kind == kindExchange || s.address == "":
		return m.Address
	}
	return s.address
}
