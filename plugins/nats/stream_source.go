package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

const (
	// pullExpires is how long a pull waits at the server: also how long a server that has not noticed the end of a
	// connection goes on delivering to it.
	pullExpires = 5 * time.Second
	// pullRetry is the pause after a pull that the server could not take.
	pullRetry = 500 * time.Millisecond
	// pullMaxBytes bounds the bytes of one pull.
	pullMaxBytes = 1 << 30
	// barrierTimeout is how long the end of a subscription waits for a server to work off what it was told: duplicates are all
	// that comes of a shorter one.
	barrierTimeout = time.Second
)

// streamSubscription pulls from a durable consumer exactly what there is credit for. One pull is out at a time: its number
// of messages then bounds what arrives, whatever the server makes of it. More gain nothing, near or far: what holds the
// server back is the window of unsettled messages, and the next pull goes where the acknowledgements go.
type streamSubscription struct {
	conn     *conn
	consumer consumer
	double   bool
	take     jetstream.Stream // from which to delete what is acknowledged, or nil
	inbox    *transport.Inbox[*token]
	pullTo   string // subject of pulls
	replies  string // what the subjects of the server's words on pulls begin with
	sub      *nats.Subscription
	closed   <-chan struct{}
	stop     context.CancelFunc
	ended    chan struct{}

	mu        sync.Mutex
	over      bool
	free      transport.Credit // granted, and not used by an arrival
	pull      pull
	pulls     uint64 // how many there were
	notBefore time.Time
	single    bool     // the next message is larger than the last pull was ready to take
	live      []*token // arrived and perhaps unsettled, in order
	last      *token   // the last of which the server was told what became of it, without a word of its own since
}

// pull is one request for messages.
type pull struct {
	id   uint64
	left int // messages that may still come; 0 when no pull is out
	at   time.Time
}

// token is what it takes to settle a message.
type token struct {
	reply string
	seq   uint64
	told  time.Time // when the server began to wait for a word
	done  bool
}

func (c *conn) subscribeStream(ctx context.Context, src transport.Source, o sourceOptions) (transport.Subscription, error) {
	k, err := c.consumer(ctx, src, o)
	if err != nil {
		return nil, err
	}
	var take jetstream.Stream
	if o.Take {
		if take, err = c.stream(ctx, o.Stream, nil, src.Address); err != nil {
			return nil, err
		}
	}
	replies := c.nc.NewInbox() + "."
	s := &streamSubscription{
		conn:     c,
		consumer: k,
		double:   o.DoubleAck,
		take:     take,
		inbox:    transport.NewInbox[*token](false),
		pullTo:   c.api + ".CONSUMER.MSG.NEXT." + k.stream + "." + k.name,
		replies:  replies,
		ended:    make(chan struct{}),
	}
	if s.sub, s.closed, err = c.subscribe(ctx, replies+"*", "", s.receive); err != nil {
		return nil, err
	}
	// Credit bounds what arrives, and a dropped message would come again too late: the library has nothing to drop.
	if err := s.sub.SetPendingLimits(-1, -1); err != nil {
		<-s.closed
		return nil, c.failure(err)
	}
	tendCtx, stop := context.WithCancel(context.Background())
	s.stop = stop
	err = c.add(s, func() {
		defer close(s.ended)
		s.tend(tendCtx)
	})
	if err != nil {
		stop()
		<-s.closed
		return nil, err
	}
	return s, nil
}

// receive gets messages and the server's words on pulls.
func (s *streamSubscription) receive(msg *nats.Msg) {
	if id, ok := strings.CutPrefix(msg.Subject, s.replies); ok {
		s.status(id, msg.Header)
		return
	}
	meta, err := msg.Metadata()
	if err != nil {
		s.conn.log.Warn("a message without a place in the stream", "address", msg.Subject, "err", err)
		return
	}
	now := time.Now()
	t := &token{reply: msg.Reply, seq: meta.Sequence.Stream, told: now}

	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.pull.left = max(0, s.pull.left-1)
	if meta.NumDelivered > 1 {
		if out := s.find(t.seq); out != nil {
			// The server has lost patience with a message that is being worked on: it is here already.
			out.told = now
			s.next(now)
			s.mu.Unlock()
			return
		}
	}
	s.free.Messages--
	s.free.Bytes -= int64(len(msg.Data))
	s.single = false
	s.live = append(s.live, t)
	s.next(now)
	s.mu.Unlock()
	s.inbox.Put(s.message(msg, meta, now), t)
}

func (s *streamSubscription) message(msg *nats.Msg, meta *nats.MsgMetadata, now time.Time) transport.Message {
	m, ttl := decode(msg.Header)
	m.Body, m.Address, m.Durable = msg.Data, msg.Subject, true
	m.SourceID = sourceID(meta)
	m.Redelivered = meta.NumDelivered > 1
	m.Attempt = uint32(min(meta.NumDelivered, 1<<32-1))
	if meta.Sequence.Stream <= s.consumer.seen {
		m.Redelivered, m.Attempt = true, 0 // the count began anew
	}
	if ttl > 0 {
		m.TTL = s.consumer.left(ttl, meta.Timestamp, now)
	}
	return m
}

// sourceID names a message for ever: a stream that was removed and made again counts from 1, but at another time.
func sourceID(meta *nats.MsgMetadata) string {
	id := make([]byte, 0, len(meta.Stream)+2+2*20)
	id = append(id, meta.Stream...)
	id = append(id, ':')
	id = strconv.AppendUint(id, meta.Sequence.Stream, 10)
	id = append(id, ':')
	id = strconv.AppendInt(id, meta.Timestamp.UnixNano(), 10)
	return string(id)
}

func (s *streamSubscription) find(seq uint64) *token {
	for _, t := range s.live {
		if t.seq == seq && !t.done {
			return t
		}
	}
	return nil
}

// status handles the server's word on a pull, which ends it.
func (s *streamSubscription) status(id string, h nats.Header) {
	s.mu.Lock()
	if s.over || id != strconv.FormatUint(s.pull.id, 10) {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	code, text := h.Get("Status"), h.Get("Description")
	var fatal error
	switch lower := strings.ToLower(text); {
	case code == "100": // the server is alive
		s.mu.Unlock()
		return
	case code == "408", code == "404", code == "409" && strings.Contains(lower, "batch completed"):
	case code == "409" && strings.Contains(lower, "maxbytes"):
		s.single = true
	case code == "409" && !strings.Contains(lower, "consumer"):
		// A new leader, a server that goes down, too many pulls.
		s.notBefore = now.Add(pullRetry)
	case code == "503":
		fatal = errors.New("the stream or its consumer is gone, or without a leader")
	default:
		fatal = fmt.Errorf("the server ends the subscription: %s %s", code, text)
	}
	s.pull.left = 0
	if fatal == nil {
		s.next(now)
	}
	s.mu.Unlock()
	if fatal != nil {
		s.fail(fatal)
		_ = s.sub.Unsubscribe() // nobody would take what still comes
	}
}

// next sends a pull when none is out and there is credit. s.mu is held.
func (s *streamSubscription) next(now time.Time) {
	if s.over || s.pull.left > 0 || s.free.Messages <= 0 || s.free.Bytes <= 0 || now.Before(s.notBefore) {
		return
	}
	batch, maxBytes := s.free.Messages, min(s.free.Bytes, pullMaxBytes)
	if s.consumer.maxBatch > 0 {
		batch = min(batch, int64(s.consumer.maxBatch))
	}
	if s.single {
		// The server counts subject and headers too, and knows nothing of messages that may pass alone. The one that is
		// fetched here waits in the inbox until it may.
		batch, maxBytes = 1, 0
	}
	s.pulls++
	s.pull = pull{id: s.pulls, left: int(batch), at: now}
	req := make([]byte, 0, 96)
	req = append(req, `{"expires":`...)
	req = strconv.AppendInt(req, int64(pullExpires), 10)
	req = append(req, `,"batch":`...)
	req = strconv.AppendInt(req, batch, 10)
	if maxBytes > 0 {
		req = append(req, `,"max_bytes":`...)
		req = strconv.AppendInt(req, maxBytes, 10)
	}
	req = append(req, '}')
	if err := s.conn.nc.PublishRequest(s.pullTo, s.replies+strconv.FormatUint(s.pull.id, 10), req); err != nil {
		s.pull.left = 0
		s.notBefore = now.Add(pullRetry) // the connection is about to end
	}
}

// tend reports progress on what is unsettled, and looks after pulls that got no answer, until ctx ends.
func (s *streamSubscription) tend(ctx context.Context) {
	tick := time.NewTicker(min(s.consumer.ackWait/6, pullRetry))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		s.mu.Lock()
		for _, t := range s.live {
			if !t.done && now.Sub(t.told) >= s.consumer.ackWait/3 {
				t.told = now
				if err := s.conn.nc.Publish(t.reply, []byte(progress)); err != nil {
					break // the connection is about to end
				}
			}
		}
		if s.pull.left > 0 && now.Sub(s.pull.at) > pullExpires+2*time.Second {
			s.pull.left = 0
		}
		s.next(now)
		s.mu.Unlock()
	}
}

// The words of the acknowledgement protocol.
const (
	ack      = "+ACK"
	nak      = "-NAK"
	term     = "+TERM"
	progress = "+WPI"
)

func word(o transport.Outcome) []byte {
	switch o {
	case transport.Ack:
		return []byte(ack)
	case transport.Reject:
		return []byte(term)
	}
	return []byte(nak)
}

func (s *streamSubscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	return s.inbox.Receive(ctx)
}

func (s *streamSubscription) Grant(credit transport.Credit) error {
	if err := s.inbox.Grant(credit); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free.Messages += credit.Messages
	s.free.Bytes += credit.Bytes
	s.next(time.Now())
	return nil
}

// remove deletes a message from the stream. One that is gone already is as good.
func (s *streamSubscription) remove(ctx context.Context, seq uint64) error {
	err := s.take.DeleteMsg(ctx, seq)
	if err == nil || !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return err
	}
	if _, there := s.take.GetMsg(ctx, seq); errors.Is(there, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}

func (s *streamSubscription) Settle(ctx context.Context, settlements []transport.Settlement) error {
	settled, wrong := s.inbox.Settle(settlements)
	// Before the server hears of it: what is released may be back before this returns.
	s.mu.Lock()
	for _, d := range settled {
		d.Token.done = true
	}
	for len(s.live) > 0 && s.live[0].done {
		s.live[0] = nil
		s.live = s.live[1:]
	}
	s.mu.Unlock()
	for i, d := range settled {
		var err error
		if s.take != nil && d.Outcome == transport.Ack {
			// First: what was acknowledged above others comes again on the next subscription, unless it is gone.
			if err := s.remove(ctx, d.Token.seq); err != nil {
				return s.conn.failure(err)
			}
		}
		if s.double && i == len(settled)-1 && d.Outcome != transport.Release {
			// The server handles the words of one connection in order: this answer stands for all before it.
			err = s.ask(ctx, d.Token.reply, word(d.Outcome))
		} else {
			err = s.conn.nc.Publish(d.Token.reply, word(d.Outcome))
			s.tell(d.Token)
		}
		if err != nil {
			return s.conn.failure(err)
		}
	}
	return wrong
}

func (s *streamSubscription) tell(t *token) {
	s.mu.Lock()
	s.last = t
	s.mu.Unlock()
}

// barrier waits until the server has worked off what it was told: it hears at once and does it later, and whoever subscribes in
// between would be given again what is settled. That some work is in progress is news of no message that is done.
func (s *streamSubscription) barrier(ctx context.Context) {
	s.mu.Lock()
	t := s.last
	s.last = nil
	s.mu.Unlock()
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, barrierTimeout)
	defer cancel()
	if err := s.ask(ctx, t.reply, []byte(progress)); err != nil {
		s.conn.log.Debug("settlements may not be known yet", "consumer", s.consumer.name, "err", err)
	}
}

func (s *streamSubscription) ask(ctx context.Context, subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.conn.nc.RequestWithContext(ctx, subject, body)
	return err
}

// fail ends the subscription without a word to the server.
func (s *streamSubscription) fail(reason error) {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.inbox.Fail(reason)
	s.stop()
}

// forbidden is about pulls: nobody else knows the subject.
func (s *streamSubscription) forbidden(err error) {
	if names(err, s.pullTo) {
		s.fail(err)
	}
}

func (s *streamSubscription) Close(ctx context.Context) error {
	s.fail(nil)
	s.conn.remove(s)
	_ = s.sub.Unsubscribe() // fails only when it is gone
	// The server reads this after the end of the subscription, so nothing comes back here.
	s.mu.Lock()
	live := s.live
	s.live = nil
	s.mu.Unlock()
	for _, t := range live {
		if t.done {
			continue
		}
		if err := s.conn.nc.Publish(t.reply, []byte(nak)); err != nil {
			break // the connection has ended: that releases too
		}
		s.tell(t)
	}
	s.barrier(ctx) // an end of the connection releases too
	for _, ended := range []<-chan struct{}{s.closed, s.ended} {
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *streamSubscription) Remove(ctx context.Context) error {
	if err := s.Close(ctx); err != nil {
		return err
	}
	if !s.consumer.mine {
		return nil
	}
	err := s.conn.js.DeleteConsumer(ctx, s.consumer.stream, s.consumer.name)
	if gone(err) {
		return nil
	}
	return s.conn.failure(err)
}
