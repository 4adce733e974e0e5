package nats

import (
	"context"
	"encoding/json"
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

// Errors of a stream about one message, which another attempt will not change. All others end the publisher: a full
// stream, one that is gone, one without a leader are not the message's fault.
const (
	codeMessageTooLarge  = 10054
	codeHeaderTooLarge   = 10097
	codeTTLInvalid       = 10165
	codeTTLNotAllowed    = 10166
	statusNoResponders   = "503"
	headerStatus         = "Status"
	ackTimeoutResolution = 4
)

// streamPublisher publishes to a stream, many messages ahead of its word on them.
type streamPublisher struct {
	conn    *conn
	sink    transport.Sink
	dedup   string
	stream  string
	ttl     bool // the stream lets messages have a time to live
	timeout time.Duration
	outbox  *transport.Outbox
	replies string // what the subjects of the stream's words begin with; the number follows
	sub     *nats.Subscription
	closed  <-chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}

	mu    sync.Mutex
	owed  []owed    // what the stream owes a word on, number n at n modulo its length, which is the window
	out   int       // how many these are
	heard time.Time // when the stream said something, or was first asked
}

// owed is a message on which the stream owes a word. The zero value is none.
type owed struct {
	number  uint64
	subject string
}

func (c *conn) publishStream(ctx context.Context, sink transport.Sink, o sinkOptions) (transport.Publisher, error) {
	stream, err := c.stream(ctx, o.Stream, o.CreateStream, sink.Address)
	if err != nil {
		return nil, err
	}
	if sink.Address != "" {
		name, err := c.js.StreamNameBySubject(ctx, sink.Address)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return nil, transport.Permanentf("no stream captures subject %q: add it to the subjects of stream %q", sink.Address, o.Stream)
		case err != nil:
			return nil, c.failure(err)
		case name != o.Stream:
			return nil, transport.Permanentf("subject %q belongs to stream %q, not to %q", sink.Address, name, o.Stream)
		}
	}
	replies := c.nc.NewInbox() + "."
	p := &streamPublisher{
		conn:    c,
		sink:    sink,
		dedup:   o.Dedup,
		stream:  o.Stream,
		ttl:     stream.CachedInfo().Config.AllowMsgTTL,
		timeout: defaultAckTimeout,
		outbox:  transport.NewOutbox(o.window()),
		owed:    make([]owed, o.window()),
		replies: replies,
		ended:   make(chan struct{}),
	}
	if o.AckTimeout > 0 {
		p.timeout = time.Duration(o.AckTimeout)
	}
	if p.sub, p.closed, err = c.subscribe(ctx, replies+"*", "", p.receive); err != nil {
		return nil, err
	}
	// Words are few and small: the window bounds them.
	if err := p.sub.SetPendingLimits(-1, -1); err != nil {
		<-p.closed
		return nil, c.failure(err)
	}
	watchCtx, stop := context.WithCancel(context.Background())
	p.stop = stop
	err = c.add(p, func() {
		defer close(p.ended)
		p.watch(watchCtx)
	})
	if err != nil {
		stop()
		<-p.closed
		return nil, err
	}
	return p, nil
}

func (p *streamPublisher) Publish(ctx context.Context, msgs []transport.Message) error {
	for i := range msgs {
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		msg, err := p.message(&msgs[i], n)
		if err == nil {
			p.sent(n, msg.Subject)
			if err = p.conn.nc.PublishMsg(msg); err != nil {
				p.answered(n)
			}
		}
		if err != nil {
			if refused := refusal(err); refused != nil {
				p.outbox.Done(n, n, refused)
				continue
			}
			err = p.conn.failure(err)
			p.outbox.Fail(err)
			return err
		}
	}
	return nil
}

func (p *streamPublisher) message(m *transport.Message, n uint64) (*nats.Msg, error) {
	subject, err := subjectOf(p.sink.Address, m)
	if err != nil {
		return nil, err
	}
	h := encode(m, true)
	if h == nil {
		h = make(nats.Header, 2)
	}
	h[natsExpectIn] = []string{p.stream}
	switch {
	case p.dedup == dedupOff:
	case p.dedup == dedupID:
		if m.ID != "" && plainText(m.ID) {
			h[natsMsgID] = []string{m.ID}
		}
	case m.SourceID != "":
		h[natsMsgID] = []string{dedupIDOf(p.conn.name, p.sink.Name, m.SourceID)}
	}
	if p.ttl && m.TTL > 0 {
		h[natsTTL] = []string{formatTTL(m.TTL)}
	}
	return &nats.Msg{Subject: subject, Reply: p.replies + strconv.FormatUint(n, 10), Data: m.Body, Header: h}, nil
}

// sent notes that the stream owes a word on a message.
func (p *streamPublisher) sent(n uint64, subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out == 0 {
		p.heard = time.Now()
	}
	p.out++
	p.owed[n%uint64(len(p.owed))] = owed{number: n, subject: subject}
}

// answered notes that there is a word on a message, or will be none.
func (p *streamPublisher) answered(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
	if o := &p.owed[n%uint64(len(p.owed))]; o.number == n {
		*o = owed{}
		p.out--
	}
}

// pubAck is a stream's word on a message.
type pubAck struct {
	Stream string `json:"stream"`
	Error  *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// receive gets the stream's words.
func (p *streamPublisher) receive(msg *nats.Msg) {
	n, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, p.replies), 10, 64)
	if err != nil {
		return
	}
	p.answered(n)
	if len(msg.Data) == 0 && msg.Header.Get(headerStatus) == statusNoResponders {
		p.fail(fmt.Errorf("no stream answers for message %d: stream %q is gone, or without a leader", n, p.stream))
		return
	}
	var word pubAck
	if err := json.Unmarshal(msg.Data, &word); err != nil {
		p.fail(fmt.Errorf("stream %q: %w", p.stream, err))
		return
	}
	if e := word.Error; e != nil {
		err := fmt.Errorf("stream %q: %s (%d)", p.stream, e.Description, e.ErrCode)
		switch e.ErrCode {
		case codeMessageTooLarge, codeHeaderTooLarge, codeTTLInvalid, codeTTLNotAllowed:
			p.outbox.Done(n, n, err)
		default:
			p.fail(err)
		}
		return
	}
	if word.Stream == "" {
		p.fail(fmt.Errorf("message %d was answered by something that is no stream", n))
		return
	}
	p.outbox.Done(n, n, nil)
}

// watch ends the publisher when the stream stays silent, until ctx ends. The messages may be stored all the same: they
// are sent again with the same ids.
func (p *streamPublisher) watch(ctx context.Context) {
	tick := time.NewTicker(max(time.Millisecond, p.timeout/ackTimeoutResolution))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		silent := p.out > 0 && time.Since(p.heard) > p.timeout
		p.mu.Unlock()
		if silent {
			p.fail(fmt.Errorf("stream %q has confirmed nothing for %s", p.stream, p.timeout))
			return
		}
	}
}

func (p *streamPublisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *streamPublisher) fail(reason error) {
	p.outbox.Fail(reason)
	p.stop()
}

// forbidden refuses what is out to the subject: the server gives no other word on it.
func (p *streamPublisher) forbidden(err error) {
	subject, ok := forbiddenSubject(err)
	if !ok {
		return
	}
	var refused []uint64
	p.mu.Lock()
	for i, o := range p.owed {
		if o.number > 0 && o.subject == subject {
			refused = append(refused, o.number)
			p.owed[i] = owed{}
			p.out--
		}
	}
	p.mu.Unlock()
	for _, n := range refused {
		p.outbox.Done(n, n, err)
	}
}

func (p *streamPublisher) Close(ctx context.Context) error {
	p.fail(nil)
	p.conn.remove(p)
	_ = p.sub.Unsubscribe() // fails only when it is gone
	for _, ended := range []<-chan struct{}{p.closed, p.ended} {
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
