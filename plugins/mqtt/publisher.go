package mqtt

import (
	"context"
	"fmt"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/flogate/flogate/core/transport"
)

// exactWindow bounds the messages with QoS 2 that are on the way over one connection: mosquitto closes it over one more
// than its max_inflight_messages, which is 20 unless set.
const exactWindow = 20

// retryTime is between two attempts to hand a message to the library.
const retryTime = 10 * time.Millisecond

type publisher struct {
	conn *conn
	sinkOptions
	topic string

	outbox *transport.Outbox
	sent   chan sent // as many as may be unconfirmed: sending never blocks
	quit   chan struct{}
	once   sync.Once
	ended  chan struct{}

	// The connection's flights look after these.
	flying int  // messages on their way
	left   bool // it is closed
}

// sent is a message that the library has taken.
type sent struct {
	number uint64
	token  paho.Token
	topic  string
	body   []byte
}

// Publish opens a publisher on the connection's own client. It does not block: a broker says nothing about a topic.
func (c *conn) Publish(_ context.Context, sink transport.Sink) (transport.Publisher, error) {
	opts, problems := parseSink(sink)
	if err := problems.err(); err != nil {
		return nil, fmt.Errorf("publish to %q: %w", sink.Address, err)
	}
	p := &publisher{
		conn: c, sinkOptions: opts, topic: sink.Address,
		outbox: transport.NewOutbox(opts.window),
		sent:   make(chan sent, opts.window),
		quit:   make(chan struct{}),
		ended:  make(chan struct{}),
	}
	if err := c.start(p.confirm); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *publisher) Publish(ctx context.Context, msgs []transport.Message) error {
	for i := range msgs {
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		m := &msgs[i]
		topic := p.topic
		if topic == "" {
			topic = m.Address
		}
		if refused := p.refuse(topic, m); refused != nil {
			p.outbox.Done(n, n, refused)
			continue
		}
		tok, err := p.send(ctx, topic, m)
		if err != nil {
			p.outbox.Fail(err)
			return transport.Closed(err)
		}
		p.sent <- sent{number: n, token: tok, topic: topic, body: m.Body}
	}
	return nil
}

// refuse says why the broker would close the connection over a message, or nil.
func (p *publisher) refuse(topic string, m *transport.Message) error {
	if p.topic == "" {
		if err := validateTopic(topic); err != nil {
			return fmt.Errorf("publish to %q: %w", topic, err)
		}
	}
	if size, most := messageSize(topic, m.Body), p.conn.settings.maxMessage; size > most {
		return fmt.Errorf("publish to %q: the message has %d bytes with topic and headers, more than max_message (%d)", topic, size, most)
	}
	if p.qos > 0 && p.conn.suspect.guilty(topic, m.Body) {
		return fmt.Errorf("publish to %q: the broker closes the connection over this message of %d bytes; it did %d times in a row, "+
			"when no other was on its way", topic, len(m.Body), strikes)
	}
	return nil
}

// messageHeaders is the most that is counted as size besides body and topic: up to 9 bytes in MQTT, and what nats-server
// adds before it compares, which is 25 with QoS 1 and 42 with QoS 2.
const messageHeaders = 64

// messageSize is what a broker compares with its limit, or a little more.
func messageSize(topic string, body []byte) int { return len(topic) + len(body) + messageHeaders }

// send sends a message as soon as there is room for it.
func (p *publisher) send(ctx context.Context, topic string, m *transport.Message) (paho.Token, error) {
	retain := m.Retain
	if p.retain != nil {
		retain = *p.retain
	}
	if err := p.conn.flights.begin(ctx, p, topic, m.Body); err != nil {
		return nil, err
	}
	if p.qos == 2 {
		select {
		case p.conn.exact <- struct{}{}:
		case <-p.conn.ended:
			return nil, p.conn.failed()
		case <-p.quit:
			return nil, transport.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		tok, err := p.hand(ctx, topic, retain, m.Body)
		if err != nil {
			return nil, err // and with it ends the publisher; the packet may be on its way, so it keeps its place
		}
		// Until the broker has answered, even if the publisher is closed before that.
		return tok, p.conn.start(func() {
			select {
			case <-tok.Done():
			case <-p.conn.ended:
			}
			<-p.conn.exact
		})
	}
	return p.hand(ctx, topic, retain, m.Body)
}

// hand gives a message to the library. The library gives up when the writing of earlier messages takes long; that is no
// more than back-pressure, so it is asked again while the connection lives. (Such an attempt wastes a packet id. There
// are enough of them for a stall of 9 hours.)
func (p *publisher) hand(ctx context.Context, topic string, retain bool, body []byte) (paho.Token, error) {
	for {
		tok := p.conn.client.paho.Publish(topic, p.qos, retain, body)
		select {
		case <-tok.Done():
		default:
			return tok, nil
		}
		if tok.Error() == nil {
			return tok, nil
		}
		select {
		case <-p.conn.ended: // at the latest when the link gives up
			return nil, p.conn.failed()
		case <-p.quit:
			return nil, transport.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryTime):
		}
	}
}

// confirm reports what the broker has confirmed until the publisher or the connection has ended.
func (p *publisher) confirm() {
	defer close(p.ended)
	for {
		var m sent
		select {
		case m = <-p.sent:
		case <-p.conn.ended:
			select {
			case m = <-p.sent: // it may have been confirmed before the end
			default:
				p.outbox.Fail(p.conn.failed())
				return
			}
		case <-p.quit:
			p.leave()
			return
		}
		// Confirms come in bursts, and a report of many costs as much as a report of one. Numbers between two of the run
		// were refused, and are reported already.
		for first, last := m.number, uint64(0); ; {
			if !confirmed(m.token) {
				p.outbox.Done(first, last, nil)
				if !p.await(m.token) {
					return
				}
			}
			last = m.number
			if p.qos > 0 {
				p.conn.suspect.confirmed(m.topic, m.body)
				p.conn.flights.end(p, 1)
			}
			select {
			case m = <-p.sent:
				continue
			default:
			}
			p.outbox.Done(first, last, nil)
			break
		}
	}
}

// confirmed reports whether a token is good, now.
func confirmed(tok paho.Token) bool {
	select {
	case <-tok.Done():
		return tok.Error() == nil
	default:
		return false
	}
}

// await waits for a token and reports whether it is good. If not, the publisher has ended.
func (p *publisher) await(tok paho.Token) bool {
	select {
	case <-tok.Done():
	case <-p.quit:
		p.leave()
		return false
	case <-p.conn.ended:
		// The library completes its tokens before that, except those that it took while it was ending.
		select {
		case <-tok.Done():
		default:
			p.outbox.Fail(p.conn.failed())
			return false
		}
	}
	if err := tok.Error(); err != nil {
		<-p.conn.ended // it says why
		p.outbox.Fail(p.conn.failed())
		return false
	}
	return true
}

// leave ends the publisher because it is closed. What is on its way at the end of the connection stays counted.
func (p *publisher) leave() {
	p.outbox.Fail(transport.ErrClosed)
	select {
	case <-p.conn.ended:
	default:
		p.conn.flights.leave(p)
	}
}

func (p *publisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *publisher) Close(ctx context.Context) error {
	p.once.Do(func() { close(p.quit) })
	return wait(ctx, p.ended)
}
