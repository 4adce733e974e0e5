// Package transport is the contract between the gateway and what connects it to a kind of broker.
//
// A [Driver] opens connections to one kind of broker (MQTT, AMQP 0-9-1, NATS). A [Conn] is one life of one connection:
// when it is lost it is gone, and whoever wants another asks the driver again. Drivers therefore never reconnect and
// never retry, and carry no delivery and no message from one life into the next: one back-off policy in one place
// (core/broker), and no acknowledgement that could go to the wrong life of a connection.
//
// Messages come in through a [Subscription] and go out through a [Publisher]. Both are pipelined: many messages are in
// flight at a time, and the word of the broker follows later. The guarantee of the gateway rests on two promises:
//
//   - a broker hears an acknowledgement of a delivery only after [Subscription.Settle] said so;
//   - a [Publisher] reports a message as confirmed only after the broker's own word (PUBACK, publisher confirm, PubAck).
//     Where there is no such word (QoS 0, NATS core), [Traits.Confirms] is false and everybody can see it.
//
// The contract in prose, for authors of drivers in any language, is proto/flogate/transport/v1/transport.proto; the
// conformance suite is core/transport/transporttest, and every rule of this package is a case in it.
//
// This package imports nothing but the standard library, and holds no state.
package transport

import (
	"context"
	"encoding/json"
	"time"
)

// A Driver opens connections to one kind of broker. All methods may be called concurrently.
type Driver interface {
	// Describe says what the driver is and what configuration it takes. It does no I/O and answers at once; ctx bounds
	// the way to a driver in another process.
	Describe(ctx context.Context) (Description, error)

	// Validate checks configuration and endpoints without I/O, and says what an endpoint guarantees. Everything wrong is
	// reported at once as [Problem]s; the error is only for not having been able to ask. Traits come in the order of the
	// endpoints of the request.
	Validate(ctx context.Context, req ValidateRequest) (ValidateResult, error)

	// Connect opens one life of a connection. It blocks until the broker has accepted it, or ctx ends. ctx bounds only
	// the opening, not the life of the connection. An error that is [Permanent] will not go away by trying again
	// (wrong credentials, wrong configuration); any other may.
	Connect(ctx context.Context, req ConnectRequest) (Conn, error)
}

// A Conn is one life of a connection to a broker. All methods may be called concurrently. After its end every method
// returns an error that is [ErrClosed].
type Conn interface {
	// Info says what was learned of this very broker when connecting. It does not block.
	Info() ConnInfo

	// Next blocks until the condition of the connection changes and returns the new one, or returns the reason for which
	// the connection has ended (an error that is ErrClosed, and whose text is the reason). A lost broker is noticed
	// within 5 seconds. Only one goroutine may call Next. ctx ends the wait, not the connection.
	Next(ctx context.Context) (Condition, error)

	// Subscribe opens a stream of deliveries from one address. No delivery comes before credit is granted. It blocks
	// until the broker has accepted the subscription.
	Subscribe(ctx context.Context, src Source) (Subscription, error)

	// Publish opens an ordered stream of messages to one address. It blocks until the address is known to be usable as
	// far as the broker can tell.
	Publish(ctx context.Context, sink Sink) (Publisher, error)

	// Close ends the connection with everything on it. Unsettled deliveries count as released. It returns when no
	// goroutine of the connection is left, or ctx ends. Closing twice is harmless.
	Close(ctx context.Context) error
}

// A Subscription is a stream of deliveries in the broker's order. Receive is called by one goroutine at a time; Grant and
// Settle may be called concurrently with it and with each other.
type Subscription interface {
	// Receive blocks until there is at least one delivery and credit for it, and returns those that are there, at most as
	// many as there is credit for, without waiting for more. It returns an error that is ErrClosed when the subscription
	// or its connection has ended, the reason in its text. A cancelled ctx loses nothing: what was not returned comes
	// with the next call.
	Receive(ctx context.Context) ([]Delivery, error)

	// Grant adds to the credit: how many more deliveries and body bytes the caller is ready to hold unsettled. The total
	// of what is granted and not used, and what is unsettled, never exceeds the Window of the Source. A delivery whose
	// body is larger than the byte credit passes alone: when nothing else is unsettled. Grant does not block.
	Grant(credit Credit) error

	// Settle says what became of deliveries. Each is settled once; ranges may come in any order, though drivers are
	// fastest with long ranges in the order of delivery. It may return before the broker has heard of it; a settlement
	// that is lost leads to a redelivery, never to a loss. Settling does not give credit back: Grant does.
	Settle(ctx context.Context, settlements []Settlement) error

	// Close stops new deliveries and releases what is unsettled. What the broker keeps for the subscription (a session, a
	// durable consumer) stays, so that the next Subscribe with the same Name goes on where this one stopped.
	Close(ctx context.Context) error

	// Remove is Close, and then also removes what the broker keeps for the subscription, and only that: never a queue or
	// a stream that somebody else made.
	Remove(ctx context.Context) error
}

// A Publisher is an ordered stream of messages to one address. Publish and Confirms are each called by one goroutine at a
// time, usually two different ones. Messages are numbered from 1 in the order in which they were given to Publish.
type Publisher interface {
	// Publish hands over messages in order. It blocks while the driver or the broker takes no more (that is the
	// back-pressure); ctx ends the wait. After an error the publisher is of no further use: what was given and is not
	// confirmed may or may not have reached the broker. The driver does not keep or change Body and Headers after it has
	// reported the message as confirmed.
	Publish(ctx context.Context, msgs []Message) error

	// Confirms blocks until there is news and returns it: ranges of messages in ascending order, without gaps and
	// without overlap over the life of the publisher. When the publisher cannot go on, it returns the reason, after
	// everything that was confirmed before: what is not confirmed by then has to be sent again on another publisher.
	Confirms(ctx context.Context) ([]Confirm, error)

	// Close ends the publisher. Messages that are not confirmed are forgotten, whether or not they reached the broker.
	Close(ctx context.Context) error
}

// Topology is implemented by a [Conn] whose broker can route by itself. What it makes is durable; declaring what exists
// with the same properties is harmless, with others it is a Permanent error that changes nothing.
type Topology interface {
	// Declare makes a place on the broker, if it does not exist.
	Declare(ctx context.Context, place Place) error
	// Bind makes the broker itself carry what comes to the one place into the other.
	Bind(ctx context.Context, b Binding) error
	// Unbind takes back what Bind made. Taking back what is not there is harmless.
	Unbind(ctx context.Context, b Binding) error
}

// Credit is a number of messages and a number of body bytes.
type Credit struct {
	Messages int64
	Bytes    int64
}

// ConnectRequest is what a driver is told to connect.
type ConnectRequest struct {
	// Name is stable over restarts and unique among the sites that use a broker, as far as the site's author cares:
	// "<site>/<broker>". Drivers derive client ids from it.
	Name string
	// Config is the broker block's body, decoded with the driver's own schema: a JSON object whose keys are attribute and
	// block names. It holds secrets: never log it.
	Config json.RawMessage
}

// ConnInfo is what was learned of a broker when connecting. Zero values mean unknown.
type ConnInfo struct {
	// Product is how the broker calls itself, for people: "RabbitMQ 3.10.8".
	Product string
	// MaxBody is the largest body that the broker takes, in bytes.
	MaxBody int64
	// Features are words of the driver about this very broker, for people and for status pages.
	Features []string
	// Warnings are what an operator should know, each one sentence: a limit under which messages may be lost.
	Warnings []string
}

// Condition says whether a connection carries messages at the moment.
type Condition struct {
	// Blocked: the broker has told us to stop publishing (RabbitMQ's memory and disk alarms). It is back-pressure, no error.
	Blocked bool
	// Reason in words, where the broker gave one.
	Reason string
}

// Source says where a subscription takes its messages from.
type Source struct {
	// Name is stable over restarts and unique within the connection's Name: what the broker keeps for this subscription
	// is kept under a name made of both.
	Name string
	// Address is a topic, queue or subject, or a filter that matches several.
	Address string
	// Window is the most that will ever be granted and unsettled at a time. Drivers size the broker's own prefetch by it.
	Window Credit
	// Options are decoded with the driver's Source schema: a JSON object, or nil.
	Options json.RawMessage
}

// Sink says where a publisher sends its messages.
type Sink struct {
	// Name is stable over restarts and unique within the connection's Name.
	Name string
	// Address is a topic, queue, exchange or subject; never a filter. Empty: each message goes to its own Address.
	Address string
	// Options are decoded with the driver's Sink schema: a JSON object, or nil.
	Options json.RawMessage
}

// Message is what brokers carry, as far as they agree. What a broker cannot carry is dropped by its driver, which says so
// in its documentation. A body is never parsed or changed.
type Message struct {
	// Body may be empty, which on MQTT with Retain means: forget the retained message.
	Body []byte
	// Address is the real topic, subject or routing key of a received message, never the filter.
	Address string

	ContentType     string
	ContentEncoding string
	// ID is the publisher's own id of the message, where it gave one.
	ID string
	// CorrelationID and ReplyTo are for request and reply. Correlation data of MQTT 5 are bytes: any string will do.
	CorrelationID string
	ReplyTo       string
	// Created is when the publisher says that it made the message; the zero time where it does not.
	Created time.Time
	// TTL is how long the message may still live, from now on; 0 is for ever.
	TTL time.Duration
	// Priority is 0 to 255, 0 where the broker knows none.
	Priority uint8
	// Durable: the broker keeps the message over its own restart.
	Durable bool
	// Retain: the broker keeps the message as the last value of its address, or has kept it as such.
	Retain bool
	// Headers in their order, with repeats.
	Headers []Header

	// Redelivered: the broker says that it has sent the message before.
	Redelivered bool
	// Attempt counts deliveries of the message from 1, where the broker counts; 0 is unknown.
	Attempt uint32
	// SourceID names the message at its source, the same at every redelivery, unique within the subscription: the seed
	// for deduplication by the sink. Empty where the broker gives nothing to make it of (MQTT).
	SourceID string
}

// Header is a name with a value, which is text unless Binary is set.
type Header struct {
	Name   string
	Value  string
	Binary bool
}

// Delivery is a message received and not yet settled.
type Delivery struct {
	// Seq numbers the deliveries of a subscription from 1 without gaps.
	Seq uint64
	Message
	// TooLarge is the size in bytes of what did not pass on the way from the driver, a body or headers, and was left out:
	// such a message is settled like any other, and must not be published. 0 is a message that is whole.
	TooLarge int64
}

// Outcome is what became of a delivery.
type Outcome uint8

// The outcomes.
const (
	// Ack: the broker may forget the message.
	Ack Outcome = iota + 1
	// Release: not processed; the broker shall deliver it again.
	Release
	// Reject: never again; the broker may dead-letter it by its own means, or drop it.
	Reject
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string {
	switch o {
	case Ack:
		return "ack"
	case Release:
		return "release"
	case Reject:
		return "reject"
	}
	return "unknown outcome"
}

// Settlement gives the deliveries First to Last, both included, an outcome.
type Settlement struct {
	First, Last uint64
	Outcome     Outcome
}

// Confirm is news of the messages First to Last, both included.
type Confirm struct {
	First, Last uint64
	// Refused is nil when the broker has the messages. Otherwise it says why they will never be taken (unroutable, too
	// large, forbidden): sending them again is of no use. It is always Permanent.
	Refused error
}

// PlaceKind says what kind of place a broker shall declare.
type PlaceKind uint8

// The kinds of places.
const (
	// Queue holds messages for consumers that share them.
	Queue PlaceKind = iota + 1
	// Fanout copies each message to everything that is bound to it.
	Fanout
	// Direct copies each message to everything that is bound to it with the message's routing key.
	Direct
	// Topic copies each message to everything that is bound to it with a pattern that matches the message's routing key.
	Topic
)

// Place is something on a broker that has an address.
type Place struct {
	Kind    PlaceKind
	Address string
	// DeadLetter is the address of the place to which rejected messages go; empty for none. Queues only.
	DeadLetter string
}

// Binding is a broker's own way from one place to another.
type Binding struct {
	From, To Place
	// Key is the routing key or pattern; empty for fanout.
	Key string
}
