package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/flogate/flogate/core/transport"
)

// How much waits in this process before reading stops: at least as much as a broker sends on its own account
// (nats-server up to 1024 messages), and of bodies the window's bytes within reason.
const (
	minWaiting      = 1024
	minWaitingBytes = 1 << 20
	maxWaitingBytes = 16 << 20
)

// errReleased ends a subscription whose messages the broker shall deliver again: MQTT has no other way to ask for it.
var errReleased = errors.New("a message was released: the session has to be resumed to get it again")

type subscription struct {
	conn    *conn
	log     *slog.Logger
	filter  string
	session session
	most    transport.Credit // more than this may not wait; at half of it reading goes on

	inbox  *transport.Inbox[packet]
	client *client
	full   chan struct{} // closed when reading had to stop for the first time
	once   sync.Once
	ended  chan struct{}

	settling sync.Mutex // keeps acknowledgements in the inbox's order
	released atomic.Bool

	mu    sync.Mutex
	out   idSet // packets that are neither acknowledged nor given up
	stale bool  // the operator knows of an old subscription in the session
}

// Subscribe opens a client for the subscription. With a session that has a large backlog it returns before the broker has
// said anything about the subscription, because that word stands behind the backlog.
func (c *conn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	opts, problems := parseSource(src)
	if err := problems.err(); err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", src.Address, err)
	}
	if err := c.failed(); err != nil {
		return nil, err
	}
	s := &subscription{
		conn:   c,
		log:    c.log.With("address", src.Address),
		filter: src.Address,
		session: session{
			id:    subscriberID(c.settings.clientID, c.name, src.Name),
			clean: !opts.persistent(src.Address),
		},
		most: transport.Credit{
			Messages: max(minWaiting, src.Window.Messages),
			Bytes:    min(max(minWaitingBytes, src.Window.Bytes), maxWaitingBytes),
		},
		inbox: transport.NewInbox[packet](!opts.take),
		full:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	cl, err := open(ctx, c.settings, s.session, s.handle)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", src.Address, err)
	}
	s.client = cl
	err = c.serve(cl, func(why error) {
		s.inbox.Fail(why)
		close(s.ended)
	})
	if err != nil {
		return nil, err
	}
	s.resumed()
	if err := s.subscribe(ctx, opts.qos); err != nil {
		cl.stop(err)
		_ = wait(ctx, s.ended) // the first error is the one to tell
		return nil, fmt.Errorf("subscribe to %q: %w", src.Address, err)
	}
	if !s.session.clean {
		c.driver.subscribed(s.session.id)
	}
	return s, nil
}

// resumed tells when the broker has no session where this process left one. What came meanwhile nobody has kept, and
// nothing else shows it.
func (s *subscription) resumed() {
	switch id := s.session.id; {
	case s.session.clean || s.client.resumed:
	case s.conn.driver.knows(id):
		s.conn.driver.removed(id) // told once
		s.log.Warn("the broker has forgotten the session: messages that came while disconnected are lost", "client_id", id)
	default:
		s.log.Debug("new session", "client_id", id)
	}
}

// subscribe sends the SUBSCRIBE and waits for its answer. A session that was there has the subscription already, but that
// cannot be trusted: the earlier life may have ended before the broker had heard of it.
func (s *subscription) subscribe(ctx context.Context, qos byte) error {
	tok := s.client.paho.Subscribe(s.filter, qos, nil).(*paho.SubscribeToken)
	select {
	case <-tok.Done():
		return s.granted(tok, qos)
	case <-s.full:
		return s.conn.start(func() {
			select {
			case <-tok.Done():
				if err := s.granted(tok, qos); err != nil {
					s.client.stop(err)
				}
			case <-s.ended:
			}
		})
	case <-s.ended:
		return s.client.because(nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// granted reads the broker's answer to a SUBSCRIBE.
func (s *subscription) granted(tok *paho.SubscribeToken, qos byte) error {
	if err := tok.Error(); err != nil {
		select {
		case <-s.ended: // which says why
			return s.client.because(err)
		case <-time.After(handTime):
			return err
		}
	}
	for _, got := range tok.Result() { // there is one
		switch {
		case got > 2:
			return transport.Permanent(errors.New("the broker refused the subscription"))
		case got == 0 && qos > 0:
			return transport.Permanentf("the broker grants QoS 0 only, which is not acknowledged: set qos = 0 to accept that")
		case got < qos:
			s.log.Warn("subscription granted with a lower quality of service", "asked", qos, "granted", got)
		}
	}
	return nil
}

// handle takes a message from the library. It never blocks.
func (s *subscription) handle(cl *client, m paho.Message) {
	p := packet{id: m.MessageID(), qos: m.Qos()}
	if p.qos > 0 {
		s.mu.Lock()
		known := s.out.add(p.id)
		s.mu.Unlock()
		if known && m.Duplicate() {
			return // nats-server sends again what is not acknowledged in time, on the same connection
		}
	}
	topic := m.Topic()
	if !utf8.ValidString(topic) {
		topic = strings.ToValidUTF8(topic, "\uFFFD") // not every broker checks
	}
	if !matches(s.filter, topic) {
		s.unwanted(cl, p, topic)
		return
	}
	waiting := s.inbox.Put(transport.Message{
		Body:        m.Payload(),
		Address:     topic,
		Durable:     p.qos > 0,
		Retain:      m.Retained(),
		Redelivered: m.Duplicate(),
	}, p)
	if waiting.Messages > s.most.Messages || waiting.Bytes > s.most.Bytes {
		cl.link.pause()
		s.once.Do(func() { close(s.full) })
		s.resume(cl) // Receive may have taken everything before it could see the pause
	}
}

// resume reads on once half of what may wait is gone.
func (s *subscription) resume(cl *client) {
	if !cl.link.isPaused() {
		return
	}
	if w := s.inbox.Waiting(); w.Messages <= s.most.Messages/2 && w.Bytes <= s.most.Bytes/2 {
		cl.link.resume()
	}
}

// unwanted drops what a subscription to an earlier address brings, which the session still has.
func (s *subscription) unwanted(cl *client, p packet, topic string) {
	s.mu.Lock()
	known := s.stale
	s.stale = true
	s.mu.Unlock()
	if !known {
		s.log.Warn("message dropped: the session still has the subscription of an earlier address; remove it by "+
			"connecting once with a clean session", "topic", topic, "client_id", s.session.id)
	}
	// This overtakes the acknowledgements of earlier messages. No broker minds, and it happens only then.
	s.settled(p)
	cl.ack(p)
}

// settled forgets a packet, before the broker hears of it and can use the id again.
func (s *subscription) settled(ps ...packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range ps {
		if p.qos > 0 {
			s.out.remove(p.id)
		}
	}
}

func (s *subscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	if s.released.Load() {
		// What is out may be settled. Nothing else comes before the session is resumed.
		if err := wait(ctx, s.ended); err != nil {
			return nil, err
		}
	}
	ds, err := s.inbox.Receive(ctx)
	s.resume(s.client)
	return ds, err
}

func (s *subscription) Grant(credit transport.Credit) error { return s.inbox.Grant(credit) }

// Settle acknowledges in the order of delivery, unless the source is to take single messages out. Reject is an acknowledgement:
// MQTT has nothing else for it. A released message is never acknowledged; the subscription ends when everything else that is out
// has been settled, and the broker delivers it when the session is resumed.
func (s *subscription) Settle(_ context.Context, settlements []transport.Settlement) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	done, err := s.inbox.Settle(settlements)
	acks := make([]packet, 0, len(done))
	for _, d := range done {
		switch {
		case d.Token.qos == 0: // the broker has forgotten it
		case d.Outcome == transport.Release:
			s.released.Store(true)
		default:
			acks = append(acks, d.Token)
		}
	}
	s.settled(acks...)
	s.client.ack(acks...)
	if s.released.Load() {
		unsettled := false
		s.inbox.Unsettled(func(packet) bool {
			unsettled = true
			return false
		})
		if !unsettled {
			s.client.stop(errReleased)
		}
	}
	return err
}

func (s *subscription) Close(ctx context.Context) error {
	s.client.stop(transport.ErrClosed)
	return wait(ctx, s.ended)
}

func (s *subscription) Remove(ctx context.Context) error {
	if err := s.Close(ctx); err != nil {
		return err
	}
	if s.session.clean {
		return nil
	}
	if err := s.conn.failed(); err != nil {
		return err
	}
	s.conn.driver.removed(s.session.id)
	return s.conn.forget(ctx, s.session.id)
}

// idSet is a set of packet ids.
type idSet [1 << 16 / 64]uint64

// add adds an id and reports whether it was there.
func (s *idSet) add(id uint16) bool {
	word, bit := &s[id/64], uint64(1)<<(id%64)
	known := *word&bit != 0
	*word |= bit
	return known
}

func (s *idSet) remove(id uint16) { s[id/64] &^= 1 << (id % 64) }
