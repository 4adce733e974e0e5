package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

// publisher is one channel in confirm mode with two goroutines: one writes, because a write waits for the socket and hears
// no context, and one hears what the broker says.
type publisher struct {
	conn   *conn
	link   *link
	ch     *amqp091.Channel
	sink   *sink
	outbox *transport.Outbox

	mu    sync.Mutex
	queue []outgoing // handed over and not written; the outbox bounds it
	work  chan struct{}

	flights chan flight // written and not confirmed, in order; has room for the whole window
	returns chan amqp091.Return
	closes  chan *amqp091.Error // has room for the only one

	warned  bool // Publish's own
	ending  sync.Once
	done    chan struct{}
	closing sync.Once
	running sync.WaitGroup
}

// maxReady is how many messages are converted before the writer gets them.
const maxReady = 64

type outgoing struct {
	number  uint64
	key     string
	message amqp091.Publishing
}

type flight struct {
	number  uint64
	confirm *amqp091.DeferredConfirmation
}

func (c *conn) Publish(ctx context.Context, dst transport.Sink) (transport.Publisher, error) {
	s, problems := parseSink(dst)
	if err := problems.err(); err != nil {
		return nil, transport.Permanent(fmt.Errorf("publish to %q: %w", dst.Address, err))
	}
	if err := c.prepare(ctx, s); err != nil {
		return nil, fmt.Errorf("publish to %q: %w", dst.Address, err)
	}
	l, err := c.publishing(ctx)
	if err != nil {
		return nil, fmt.Errorf("publish to %q: %w", dst.Address, err)
	}
	p, err := await(ctx, c, func() (*publisher, error) { return c.publishTo(l, s) }, (*publisher).abandon)
	if err != nil {
		return nil, fmt.Errorf("publish to %q: %w", dst.Address, err)
	}
	return p, nil
}

// prepare makes sure that the place is there.
func (c *conn) prepare(ctx context.Context, s *sink) error {
	switch {
	case s.address == "":
		return nil
	case s.Kind == kindExchange:
		there, err := c.exchangeExists(ctx, s.address)
		if there || err != nil {
			return err
		}
		if !s.declare {
			return transport.Permanentf("there is no such exchange, and declare = false")
		}
		return c.try(ctx, func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclare(s.address, s.ExchangeType, true, false, false, false, nil)
		})
	}
	there, err := c.queueExists(ctx, s.address)
	if there || err != nil {
		return err
	}
	if !s.declare {
		return transport.Permanentf("there is no such queue, and declare = false")
	}
	return c.declareInport(ctx, s)
}

// declareInport makes a queue as a MsgFlo participant makes an inport, so that both find what they expect, whoever is first.
func (c *conn) declareInport(ctx context.Context, s *sink) error {
	exchange, err := c.exchangeExists(ctx, s.address)
	if err != nil {
		return err
	}
	return c.try(ctx, func(ch *amqp091.Channel) error {
		if _, err := ch.QueueDeclare(s.address, true, false, false, false, s.arguments("dead-"+s.address)); err != nil {
			return err
		}
		if exchange {
			return nil // somebody's, with bindings of its own
		}
		return makeInlet(ch, s.address)
	})
}

func (c *conn) publishTo(l *link, s *sink) (*publisher, error) {
	ch, err := l.conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, err
	}
	p := &publisher{
		conn: c, link: l, ch: ch, sink: s,
		outbox:  transport.NewOutbox(s.window),
		work:    make(chan struct{}, 1),
		flights: make(chan flight, s.window),
		closes:  ch.NotifyClose(make(chan *amqp091.Error, 1)),
		done:    make(chan struct{}),
	}
	if s.mandatory {
		// Unbuffered: see listen.
		p.returns = ch.NotifyReturn(make(chan amqp091.Return))
	}
	if err := c.join(p); err != nil {
		_ = ch.Close()
		return nil, err
	}
	for _, f := range []func(){p.write, p.listen} {
		p.running.Add(1)
		if err := c.spawn(func() {
			defer p.running.Done()
			f()
		}); err != nil {
			p.running.Done()
			p.fail(err)
			return nil, err
		}
	}
	return p, nil
}

// Publish waits only for room in the window.
func (p *publisher) Publish(ctx context.Context, msgs []transport.Message) error {
	var ready []outgoing
	handOver := func() {
		if len(ready) == 0 {
			return
		}
		p.mu.Lock()
		p.queue = append(p.queue, ready...)
		p.mu.Unlock()
		wake(p.work)
		ready = ready[:0]
	}
	defer handOver()
	for i := range msgs {
		// Waking the writer for each message costs more than the rest; but it has to have what is to be waited for.
		if len(ready) >= maxReady || p.outbox.Unconfirmed() >= p.sink.window {
			handOver()
		}
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		m := &msgs[i]
		out := outgoing{number: n, key: p.sink.key(m)}
		var dropped string
		out.message, dropped, err = toPublishing(m, p.sink.persistent, p.conn.maxBody.Load(), p.conn.maxProps)
		if err == nil && len(out.key) > maxShort {
			err = fmt.Errorf("the routing key has %d bytes, at most %d are allowed", len(out.key), maxShort)
		}
		if err != nil {
			p.outbox.Done(n, n, err)
			continue
		}
		if dropped != "" && !p.warned {
			p.warned = true
			p.conn.log.Warn("left out of a message what amqp cannot carry; later ones are not reported", "address", p.sink.address, "part", dropped)
		}
		if p.sink.mandatory {
			// The only property that is not of the message model, for a return to tell which message it is.
			out.message.AppId = strconv.FormatUint(n, 10)
		}
		ready = append(ready, out)
	}
	return nil
}

func (p *publisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

// write writes what is handed over, while the broker has not asked us to stop: what it has not read when an alarm comes
// is held here, and not in a socket that may have to be given up.
func (p *publisher) write() {
	exchange := p.sink.exchange()
	var batch []outgoing
	for {
		select {
		case <-p.work:
		case <-p.done:
			return
		}
		p.mu.Lock()
		batch, p.queue = p.queue, batch[:0]
		p.mu.Unlock()
		for i := range batch {
			if p.conn.blocked.Load() {
				select {
				case <-p.conn.clear():
				case <-p.done:
					return
				}
			}
			out := &batch[i]
			confirm, err := p.ch.PublishWithDeferredConfirm(exchange, out.key, p.sink.mandatory, false, out.message)
			if err != nil {
				p.broken(err)
				return
			}
			p.flights <- flight{out.number, confirm} // never waits
			out.message = amqp091.Publishing{}       // may be collected
		}
	}
}

// broken ends a publisher whose channel takes no more. The broker's reason may be on its way to listen, which then ends
// the publisher with it after what was confirmed before.
func (p *publisher) broken(err error) {
	if !p.ch.IsClosed() && !p.link.conn.IsClosed() {
		p.fail(said(err))
	}
}

// listen reports what the broker says of each message. Returns come before their confirm, and a message that was returned
// is confirmed as if it had been taken. The library waits on the unbuffered channel until this goroutine has taken a
// return, and goes on to the confirm only then: when a confirm is seen here, the return is known.
func (p *publisher) listen() {
	l := listener{publisher: p, refused: make(map[uint64]error)}
	for l.step() {
	}
	// A return that nobody takes holds up the whole connection for 5 s.
	if p.returns != nil {
		for range p.returns { // closed with the channel
		}
	}
}

// listener is listen's state.
type listener struct {
	*publisher
	refused map[uint64]error
	current flight // waits for its confirm; its number is 0 for none
	// first to last are confirmed and not reported yet, 0 for none.
	first, last uint64
	closed      bool
	reason      *amqp091.Error
}

func (l *listener) step() bool {
	if l.current.number == 0 {
		select {
		case l.current = <-l.flights:
		default:
			l.report()
			return l.wait(l.flights, nil)
		}
	}
	select {
	case <-l.current.confirm.Done():
	default:
		l.report()
		return l.wait(nil, l.current.confirm.Done())
	}
	n := l.current.number
	if !l.current.confirm.Acked() {
		l.report()
		l.refusedByBroker()
		return false
	}
	l.current = flight{}
	switch err := l.refused[n]; {
	case err != nil && l.sink.oneQueue():
		// Opening the publisher again makes the queue, or says that there is none. Either way no message is given up.
		l.report()
		l.fail(fmt.Errorf("queue %q is gone: %w", l.sink.address, err))
		return false
	case err != nil:
		l.report()
		delete(l.refused, n)
		l.outbox.Done(n, n, err)
	case l.first != 0 && n == l.last+1:
		l.last = n
	default:
		l.report()
		l.first, l.last = n, n
	}
	return true
}

// report reports what is confirmed.
func (l *listener) report() {
	if l.first != 0 {
		l.outbox.Done(l.first, l.last, nil)
		l.first = 0
	}
}

// wait waits for the next event. After the end of the channel there is none: what is not confirmed now never will be.
func (l *listener) wait(flights <-chan flight, confirmed <-chan struct{}) bool {
	if l.closed {
		l.conn.learnLimit(l.reason)
		l.fail(l.conn.reason(l.link, l.reason))
		return false
	}
	select {
	case l.current = <-flights:
	case <-confirmed:
	case r, ok := <-l.returns:
		if !ok {
			l.returns = nil
			return true
		}
		return l.returned(&r)
	case l.reason = <-l.closes:
		l.closed = true
	case <-l.done:
		return false
	}
	return true
}

func (l *listener) returned(r *amqp091.Return) bool {
	n, err := strconv.ParseUint(r.AppId, 10, 64)
	if err != nil {
		l.report()
		l.fail(fmt.Errorf("the broker returned a message that was not sent: app id %q", r.AppId))
		return false
	}
	l.refused[n] = fmt.Errorf("no queue takes it: exchange %q, routing key %q: %s (%d)", r.Exchange, r.RoutingKey, r.ReplyText, r.ReplyCode)
	return true
}

// refusedByBroker ends the publisher at a message that the broker did not take: because the channel was closed, or because
// a queue is full (overflow reject-publish) or in trouble, which passes. The broker may have taken messages behind it, which
// were on their way. They are not reported: who confirmed them could not send this one again without a gap in between.
func (l *listener) refusedByBroker() {
	if !l.closed {
		select {
		case l.reason = <-l.closes:
			l.closed = true
		default:
			l.closed = l.ch.IsClosed()
		}
	}
	if !l.closed {
		l.fail(errors.New("the broker has not taken a message: a queue is full or not available"))
		return
	}
	l.conn.learnLimit(l.reason)
	l.fail(l.conn.reason(l.link, l.reason))
}

// learnLimit remembers, for the life of the connection, how large a body may be. The broker tells only by closing the
// channel at the first that is larger; the next publisher then refuses that one instead of meeting the same end.
func (c *conn) learnLimit(e *amqp091.Error) {
	if e == nil || e.Code != amqp091.PreconditionFailed {
		return
	}
	var size, limit int64
	if _, err := fmt.Sscanf(e.Reason, "PRECONDITION_FAILED - message size %d is larger than configured max size %d", &size, &limit); err != nil {
		return
	}
	if limit > 0 && limit < c.maxBody.Load() {
		c.maxBody.Store(limit)
		c.log.Warn("the broker takes smaller messages than configured", "max_message_size", limit)
	}
}

func (p *publisher) fail(reason error) {
	p.ending.Do(func() {
		p.outbox.Fail(reason)
		close(p.done)
		p.conn.leave(p)
	})
}

// Close closes the channel. A broker under an alarm does not answer: then the channel ends with the connection.
func (p *publisher) Close(ctx context.Context) error {
	p.fail(nil)
	p.closing.Do(func() {
		p.running.Add(1)
		if err := p.conn.spawn(func() {
			defer p.running.Done()
			_ = p.ch.Close()
		}); err != nil {
			p.running.Done()
		}
	})
	grace, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	if err := p.conn.wait(grace, &p.running); err != nil {
		return ctx.Err()
	}
	return nil
}

// abandon is Close for a publisher that nobody waits for any more.
func (p *publisher) abandon() {
	p.fail(nil)
	_ = p.ch.Close()
}
