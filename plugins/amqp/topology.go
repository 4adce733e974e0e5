package amqp

import (
	"context"
	"fmt"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

var _ transport.Topology = (*conn)(nil)

// Declare makes a durable queue or exchange. It declares at once instead of asking first: the broker compares, and refuses
// what is there with other properties.
func (c *conn) Declare(ctx context.Context, place transport.Place) error {
	kind, err := exchangeType(place)
	if err == nil {
		err = c.try(ctx, func(ch *amqp091.Channel) error {
			if kind != "" {
				return ch.ExchangeDeclare(place.Address, kind, true, false, false, false, nil)
			}
			_, err := ch.QueueDeclare(place.Address, true, false, false, false, (&shape{}).arguments(place.DeadLetter))
			return err
		})
	}
	if err == nil && place.DeadLetter != "" {
		err = c.leadTo(ctx, place.DeadLetter)
	}
	if err != nil {
		return fmt.Errorf("declare %q: %w", place.Address, err)
	}
	return nil
}

// leadTo makes an exchange of the queue's name that leads to it, as MsgFlo's inports have: dead letters go to an exchange,
// and the address given for them may be a queue's. What is an exchange, or not there yet, stays as it is.
func (c *conn) leadTo(ctx context.Context, address string) error {
	if there, err := c.exchangeExists(ctx, address); there || err != nil {
		return err
	}
	if there, err := c.queueExists(ctx, address); !there || err != nil {
		return err
	}
	return c.try(ctx, func(ch *amqp091.Channel) error { return makeInlet(ch, address) })
}

// makeInlet makes a fanout exchange of a queue's name and binds the queue to it.
func makeInlet(ch *amqp091.Channel, queue string) error {
	if err := ch.ExchangeDeclare(queue, amqp091.ExchangeFanout, true, false, false, false, nil); err != nil {
		return err
	}
	return ch.QueueBind(queue, "", queue, false, nil)
}

// exchangeType is empty for a queue.
func exchangeType(place transport.Place) (string, error) {
	if len(place.Address) > maxShort || len(place.DeadLetter) > maxShort {
		return "", transport.Permanentf("a name has at most 255 bytes")
	}
	switch place.Kind {
	case transport.Queue:
		return "", nil
	case transport.Fanout:
		return amqp091.ExchangeFanout, nil
	case transport.Direct:
		return amqp091.ExchangeDirect, nil
	case transport.Topic:
		return amqp091.ExchangeTopic, nil
	}
	return "", transport.Permanentf("unknown kind of place %d", place.Kind)
}

func (c *conn) Bind(ctx context.Context, b transport.Binding) error {
	if err := c.bind(ctx, b, (*amqp091.Channel).QueueBind, (*amqp091.Channel).ExchangeBind); err != nil {
		return fmt.Errorf("bind %q to %q: %w", b.To.Address, b.From.Address, err)
	}
	return nil
}

func (c *conn) Unbind(ctx context.Context, b transport.Binding) error {
	err := c.bind(ctx, b,
		func(ch *amqp091.Channel, queue, key, exchange string, _ bool, args amqp091.Table) error {
			return ch.QueueUnbind(queue, key, exchange, args)
		}, (*amqp091.Channel).ExchangeUnbind)
	if err != nil && code(err) != amqp091.NotFound {
		return fmt.Errorf("unbind %q from %q: %w", b.To.Address, b.From.Address, err)
	}
	return nil
}

// binder is QueueBind, ExchangeBind and their inverses.
type binder func(ch *amqp091.Channel, to, key, from string, noWait bool, args amqp091.Table) error

func (c *conn) bind(ctx context.Context, b transport.Binding, toQueue, toExchange binder) error {
	if b.From.Kind == transport.Queue {
		return transport.Permanentf("a queue leads nowhere by itself: only exchanges can be bound to")
	}
	if len(b.Key) > maxShort {
		return transport.Permanentf("a routing key has at most 255 bytes")
	}
	for _, place := range []transport.Place{b.From, b.To} {
		if _, err := exchangeType(place); err != nil {
			return err
		}
	}
	err := c.try(ctx, func(ch *amqp091.Channel) error {
		if b.To.Kind == transport.Queue {
			return toQueue(ch, b.To.Address, b.Key, b.From.Address, false, nil)
		}
		return toExchange(ch, b.To.Address, b.Key, b.From.Address, false, nil)
	})
	if code(err) == amqp091.NotFound {
		return transport.Permanent(err) // whoever binds declares first
	}
	return err
}
