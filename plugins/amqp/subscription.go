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

// consumer is how to begin a consumer.
type consumer struct {
	queue     string
	exclusive bool
	count     int // of consumers before it
}

// tag names the consumer after n others of its channel; tags are a channel's own. It is a new one each time: RabbitMQ 3.10 ends
// the channel with an internal error where a consumer of a quorum queue has the tag of one before it.
func tag(n int) string { return "flogate-" + strconv.Itoa(n) }

// subscription is one consumer on a channel of its own.
type subscription struct {
	conn  *conn
	ch    *amqp091.Channel
	inbox *transport.Inbox[uint64]
	queue string
	own   bool // the queue is kept for this subscription

	uniqueIDs bool // message ids are the publishers' word that no other message has them

	consumer consumer
	prefetch prefetch
	drained  chan struct{} // has an element when the pump should see what waits still

	calling    sync.Mutex // held while a question waits for its answer: answers do not say to which
	deliveries <-chan amqp091.Delivery
	cancels    chan string         // has room for the only one
	closes     chan *amqp091.Error // has room for the only one

	// settling is held while the broker is told, so that no "up to here" overtakes what was said of something before it. A
	// broker that does not listen is noticed by its silence.
	settling sync.Mutex
	settled  prefix

	pumping sync.WaitGroup
}

func (c *conn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	s, problems := parseSource(c.name, src)
	if err := problems.err(); err != nil {
		return nil, transport.Permanent(fmt.Errorf("subscribe to %q: %w", src.Address, err))
	}
	queue, own, err := c.resolve(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", src.Address, err)
	}
	sub, err := await(ctx, c, func() (*subscription, error) { return c.consumeFrom(queue, own, s) }, (*subscription).abandon)
	if err != nil {
		if code(err) == amqp091.AccessRefused {
			// Also the word for a queue that somebody consumes exclusively, who may leave.
			err = errors.Unwrap(err)
		}
		return nil, fmt.Errorf("consume from queue %q: %w", queue, err)
	}
	return sub, nil
}

// resolve finds or makes the queue to consume from.
func (c *conn) resolve(ctx context.Context, s *source) (queue string, own bool, err error) {
	if s.Kind != kindExchange {
		there, err := c.queueExists(ctx, s.address)
		if there || err != nil {
			return s.address, false, err
		}
	}
	switch s.Kind {
	case kindQueue:
		if !s.Declare {
			return "", false, errors.New("there is no such queue: set declare = true to have it made")
		}
		return s.address, false, c.try(ctx, func(ch *amqp091.Channel) error {
			_, err := ch.QueueDeclare(s.address, true, false, false, false, s.arguments(""))
			return err
		})
	default:
		there, err := c.exchangeExists(ctx, s.address)
		if err != nil {
			return "", false, err
		}
		if !there {
			if !s.Declare {
				return "", false, fmt.Errorf("there is no %s of that name: set declare = true to have an exchange made, and kind = %q too for a queue",
					map[string]string{kindAuto: "queue and no exchange", kindExchange: "exchange"}[s.Kind], kindQueue)
			}
			err := c.try(ctx, func(ch *amqp091.Channel) error {
				return ch.ExchangeDeclare(s.address, s.ExchangeType, true, false, false, false, nil)
			})
			if err != nil {
				return "", false, err
			}
		}
		return s.own, true, c.bindOwn(ctx, s)
	}
}

// bindOwn makes sure of our own queue at an exchange. It is durable: what comes while the gateway is away waits in it.
func (c *conn) bindOwn(ctx context.Context, s *source) error {
	there, err := c.queueExists(ctx, s.own)
	if err != nil {
		return err
	}
	return c.try(ctx, func(ch *amqp091.Channel) error {
		if !there {
			if _, err := ch.QueueDeclare(s.own, true, false, false, false, s.arguments("")); err != nil {
				return err
			}
		}
		return ch.QueueBind(s.own, s.key, s.address, false, nil)
	})
}

func (c *conn) consumeFrom(queue string, own bool, opts *source) (*subscription, error) {
	ch, err := c.consume.conn.Channel()
	if err != nil {
		return nil, err
	}
	s := &subscription{
		conn: c, ch: ch, queue: queue, own: own, uniqueIDs: opts.UniqueIDs,
		inbox:    transport.NewInbox[uint64](false),
		consumer: consumer{queue: queue, exclusive: opts.Exclusive},
		prefetch: opts.limits(own),
		drained:  make(chan struct{}, 1),
		cancels:  ch.NotifyCancel(make(chan string, 1)),
		closes:   ch.NotifyClose(make(chan *amqp091.Error, 1)),
		settled:  prefix{next: 1},
	}
	if err := s.consume(); err != nil {
		_ = ch.Close()
		return nil, err
	}
	if err := c.join(s); err != nil {
		_ = ch.Close()
		return nil, err
	}
	s.pumping.Add(1)
	if err := c.spawn(func() {
		defer s.pumping.Done()
		s.pump()
	}); err != nil {
		s.pumping.Done()
		s.fail(err)
		return nil, err
	}
	return s, nil
}

// consume begins a consumer with the limit of now. What it gets comes behind everything that was delivered before.
func (s *subscription) consume() error {
	if err := s.ch.Qos(s.prefetch.limit, 0, false); err != nil {
		return err
	}
	deliveries, err := s.ch.Consume(s.consumer.queue, tag(s.consumer.count), false, s.consumer.exclusive, false, false, nil)
	if err != nil {
		return err
	}
	s.deliveries = deliveries
	return nil
}

// resize begins another consumer in place of this one, with another limit.
func (s *subscription) resize(limit int) {
	s.calling.Lock()
	defer s.calling.Unlock()
	if err := s.ch.Cancel(tag(s.consumer.count), false); err != nil {
		return // the channel has ended, and with it the deliveries
	}
	// Everything that the old consumer was sent is here.
	s.take(s.deliveries)
	s.consumer.count++
	s.prefetch.limit, s.prefetch.got = limit, 0
	if err := s.consume(); err != nil {
		_ = s.ch.Close()
	}
}

// take puts what comes into the inbox until there is no more.
func (s *subscription) take(deliveries <-chan amqp091.Delivery) {
	for d := range deliveries {
		s.put(&d)
	}
}

func (s *subscription) put(d *amqp091.Delivery) transport.Credit {
	s.prefetch.count(int64(len(d.Body)))
	return s.inbox.Put(toMessage(d, s.queue, s.uniqueIDs), d.DeliveryTag)
}

// pump takes what the library has, at once, until the consumer is gone.
func (s *subscription) pump() {
	if s.prefetch.fixed() {
		s.take(s.deliveries)
	}
	for open := !s.prefetch.fixed(); open; {
		var waiting transport.Credit
		var d amqp091.Delivery
		select {
		case d, open = <-s.deliveries:
			if !open {
				continue
			}
			waiting = s.put(&d)
		case <-s.drained:
			waiting = s.inbox.Waiting()
		}
		if limit := s.prefetch.next(waiting); limit != s.prefetch.limit {
			s.resize(limit)
		}
	}
	// The library has put the reason into one of the two before it closes the deliveries.
	select {
	case _, cancelled := <-s.cancels:
		if cancelled {
			s.fail(fmt.Errorf("the broker has cancelled the consumer of queue %q: the queue was deleted, or moved to another node", s.queue))
		}
	default:
	}
	select {
	case e := <-s.closes:
		s.fail(s.conn.reason(s.conn.consume, e))
	default:
		s.fail(s.conn.reason(s.conn.consume, nil))
	}
	s.closeChannel() // a cancelled consumer leaves its channel open
}

// reason is why a channel of l was closed: e, or the end of the whole connection.
func (c *conn) reason(l *link, e *amqp091.Error) error {
	if err := c.ended(); err != nil {
		return err
	}
	return l.reason(e)
}

func (s *subscription) fail(reason error) {
	s.inbox.Fail(reason)
	s.conn.leave(s)
}

func (s *subscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	ds, err := s.inbox.Receive(ctx)
	if len(ds) > 0 && !s.prefetch.fixed() {
		wake(s.drained)
	}
	return ds, err
}

func (s *subscription) Grant(credit transport.Credit) error { return s.inbox.Grant(credit) }

// Settle tells the broker in runs. It may wait for the socket, which ends with the connection.
func (s *subscription) Settle(_ context.Context, settlements []transport.Settlement) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	done, err := s.inbox.Settle(settlements)
	for len(done) > 0 {
		n := 1
		for n < len(done) && done[n].Outcome == done[0].Outcome && done[n].Token == done[n-1].Token+1 {
			n++
		}
		if err := s.tell(done[0].Token, done[n-1].Token, done[0].Outcome); err != nil {
			err = transport.Closed(s.conn.reason(s.conn.consume, nil))
			s.fail(err)
			return err
		}
		done = done[n:]
	}
	return err
}

// tell gives the tags first to last one outcome.
func (s *subscription) tell(first, last uint64, outcome transport.Outcome) error {
	multiple := s.settled.add(first, last)
	if multiple {
		first = last
	}
	for tag := first; tag <= last; tag++ {
		var err error
		if outcome == transport.Ack {
			err = s.ch.Ack(tag, multiple)
		} else {
			err = s.ch.Nack(tag, multiple, outcome == transport.Release)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prefix knows below which delivery tag everything is settled. Tags begin with 1 and have no gaps.
type prefix struct {
	next   uint64 // the oldest that is not settled
	beyond map[uint64]struct{}
}

// add notes that first to last are settled, and reports whether everything before them is: then one word to the broker,
// "up to last", says it all.
func (p *prefix) add(first, last uint64) (complete bool) {
	if first != p.next {
		if p.beyond == nil {
			p.beyond = make(map[uint64]struct{})
		}
		for tag := first; tag <= last; tag++ {
			p.beyond[tag] = struct{}{}
		}
		return false
	}
	p.next = last + 1
	for len(p.beyond) > 0 {
		if _, ok := p.beyond[p.next]; !ok {
			break
		}
		delete(p.beyond, p.next)
		p.next++
	}
	return true
}

// Close closes the channel, on which the broker puts back what is unsettled.
func (s *subscription) Close(ctx context.Context) error {
	s.fail(nil)
	if err := s.conn.spawn(s.closeChannel); err != nil {
		return nil //nolint:nilerr // it has ended with the connection
	}
	return s.conn.wait(ctx, &s.pumping)
}

// abandon is Close for a subscription that nobody waits for any more.
func (s *subscription) abandon() {
	s.fail(nil)
	s.closeChannel()
}

func (s *subscription) closeChannel() {
	s.calling.Lock()
	defer s.calling.Unlock()
	_ = s.ch.Close()
}

func (s *subscription) Remove(ctx context.Context) error {
	if err := s.Close(ctx); err != nil {
		return err
	}
	if !s.own {
		return nil
	}
	err := s.conn.try(ctx, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete(s.queue, false, false, false)
		return err
	})
	if err != nil && code(err) != amqp091.NotFound {
		return fmt.Errorf("delete queue %q: %w", s.queue, err)
	}
	return nil
}
