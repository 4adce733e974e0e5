package nats

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/flogate/flogate/core/transport"
)

// What a core subject may have waiting for credit. A slower receiver loses messages, as with every NATS client; a receiver
// that stopped reading instead would be cut off by the server, with everything on its connection.
const (
	coreMaxMessages = 65_536
	coreMaxBytes    = 64 << 20
	// dropReport is how often dropped messages are told of.
	dropReport = 10 * time.Second
)

// coreSubscription is a subscription to a core subject. Settling does nothing: the server has forgotten the message.
type coreSubscription struct {
	conn    *conn
	address string
	inbox   *transport.Inbox[struct{}]
	sub     *nats.Subscription
	closed  <-chan struct{}
	dropped atomic.Int64
	told    time.Time // of the callback alone
}

func (c *conn) subscribeCore(ctx context.Context, src transport.Source, o sourceOptions) (transport.Subscription, error) {
	s := &coreSubscription{conn: c, address: src.Address, inbox: transport.NewInbox[struct{}](false)}
	var err error
	if s.sub, s.closed, err = c.subscribe(ctx, src.Address, o.Queue, s.receive); err != nil {
		return nil, err
	}
	if err := c.add(s, nil); err != nil {
		<-s.closed
		return nil, err
	}
	return s, nil
}

func (s *coreSubscription) receive(msg *nats.Msg) {
	if w := s.inbox.Waiting(); w.Messages >= coreMaxMessages || w.Bytes+int64(len(msg.Data)) > coreMaxBytes {
		dropped := s.dropped.Add(1)
		if time.Since(s.told) > dropReport {
			s.told = time.Now()
			s.conn.log.Warn("messages dropped: the receiver is slower than the subject", "address", s.address, "dropped", dropped)
		}
		return
	}
	m, _ := decode(msg.Header)
	m.Body, m.Address = msg.Data, msg.Subject
	if msg.Reply != "" {
		m.ReplyTo = msg.Reply
	}
	s.inbox.Put(m, struct{}{})
}

func (s *coreSubscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	return s.inbox.Receive(ctx)
}

func (s *coreSubscription) Grant(credit transport.Credit) error { return s.inbox.Grant(credit) }

func (s *coreSubscription) Settle(_ context.Context, settlements []transport.Settlement) error {
	_, err := s.inbox.Settle(settlements)
	return err
}

func (s *coreSubscription) fail(reason error) { s.inbox.Fail(reason) }

func (s *coreSubscription) forbidden(err error) {
	if names(err, s.address) {
		s.inbox.Fail(err)
	}
}

func (s *coreSubscription) Close(ctx context.Context) error {
	s.inbox.Fail(nil)
	s.conn.remove(s)
	_ = s.sub.Unsubscribe() // fails only when it is gone
	select {
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Remove is Close: the server keeps nothing.
func (s *coreSubscription) Remove(ctx context.Context) error { return s.Close(ctx) }
