package main

import (
	"context"
	"errors"
	"fmt"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
)

// The hand-written bridge: what somebody would write who knows the client libraries and has one edge to carry. It keeps
// flogate's promise for as long as nothing fails: a message is acknowledged after its confirm, in order, with a window of
// messages on the way. It does not reconnect, retry, or tell anybody how it is.

// bridgeCommand is the argument by which this program is the bridge.
const bridgeCommand = "hand-written-bridge"

// bridgeWindow is as large as the window of a feed of flogate.
const bridgeWindow = 512

// passing is a message that has been published and not acknowledged. Both functions may be nil.
type passing struct {
	confirmed func() error          // waits for the sink's broker
	ack       func(last bool) error // last: no further acknowledgement is about to follow
}

// runBridge carries messages until ctx ends or something fails.
func runBridge(ctx context.Context, from, to place, joined bool) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	publish, err := openSink(to, joined, fail)
	if err != nil {
		return err
	}
	window := make(chan passing, bridgeWindow)
	handle := func(body []byte, ack func(last bool) error) {
		confirmed, err := publish(body)
		if err != nil {
			fail(err)
			return
		}
		if confirmed == nil && ack == nil {
			return
		}
		select {
		case window <- passing{confirmed, ack}:
		case <-ctx.Done():
		}
	}
	if err := openSource(ctx, from, joined, handle, fail); err != nil {
		return err
	}
	const most = 64
	for n := 1; ; n++ {
		var p passing
		select {
		case p = <-window:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if p.confirmed != nil {
			if err := p.confirmed(); err != nil {
				return err
			}
		}
		if p.ack != nil {
			last := len(window) == 0 || n%most == 0
			if err := p.ack(last); err != nil {
				return err
			}
		}
	}
}

func openSink(to place, joined bool, fail func(error)) (func([]byte) (func() error, error), error) {
	switch to.kind {
	case mqtt0, mqtt1:
		c, err := dialMQTT(to.url, joined, func(mqtt.Message) {}, fail)
		if err != nil {
			return nil, err
		}
		return func(b []byte) (func() error, error) {
			t := c.Publish(to.address, to.qos(), false, b)
			if to.kind == mqtt0 {
				return nil, nil
			}
			return func() error {
				t.Wait()
				return t.Error()
			}, nil
		}, nil
	case amqpQueue:
		_, ch, err := dialAMQP(to.url, joined)
		if err != nil {
			return nil, err
		}
		if err := ch.Confirm(false); err != nil {
			return nil, err
		}
		return func(b []byte) (func() error, error) {
			d, err := ch.PublishWithDeferredConfirm("", to.address, false, false, amqp.Publishing{Body: b, DeliveryMode: amqp.Persistent})
			if err != nil {
				return nil, err
			}
			return func() error {
				if !d.Wait() {
					return errors.New("the broker has not taken a message")
				}
				return nil
			}, nil
		}, nil
	}
	return nil, fmt.Errorf("%s is no sink here", to.kind)
}

func openSource(ctx context.Context, from place, joined bool, handle func([]byte, func(bool) error), fail func(error)) error {
	switch from.kind {
	case mqtt0, mqtt1:
		c, err := dialMQTT(from.url, joined, func(m mqtt.Message) {
			if m.Qos() == 0 {
				handle(m.Payload(), nil)
				return
			}
			handle(m.Payload(), func(bool) error {
				m.Ack()
				return nil
			})
		}, fail)
		if err != nil {
			return err
		}
		return settled(c.Subscribe(from.address, from.qos(), nil))
	case amqpQueue:
		_, ch, err := dialAMQP(from.url, joined)
		if err != nil {
			return err
		}
		if err := ch.Qos(bridgeWindow, 0, false); err != nil {
			return err
		}
		ds, err := ch.Consume(from.address, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		go func() {
			for d := range ds {
				handle(d.Body, func(last bool) error {
					if !last {
						return nil // the next one says it too
					}
					return d.Ack(true)
				})
			}
			fail(errors.New("the consumer has ended"))
		}()
		return nil
	case jetStream:
		nc, err := nats.Connect(from.url)
		if err != nil {
			return err
		}
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		cons, err := js.CreateConsumer(ctx, stream(from.address), jetstream.ConsumerConfig{
			Durable: "hand", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: bridgeWindow,
		})
		if err != nil {
			return err
		}
		// Consume calls one at a time, and ends with the connection.
		_, err = cons.Consume(func(m jetstream.Msg) {
			handle(m.Data(), func(bool) error { return m.Ack() })
		}, jetstream.PullMaxMessages(bridgeWindow))
		return err
	default:
		nc, err := nats.Connect(from.url)
		if err != nil {
			return err
		}
		_, err = nc.Subscribe(from.address, func(m *nats.Msg) { handle(m.Data, nil) })
		if err != nil {
			return err
		}
		return nc.Flush()
	}
}

// bridgeArgs are the arguments with which this program is the bridge of an edge; bridgeOf reads them.
func bridgeArgs(from, to place, joined bool) []string {
	return []string{
		bridgeCommand, string(from.kind), from.url, from.address, string(to.kind), to.url, to.address, fmt.Sprint(joined),
	}
}

func bridgeOf(args []string) (from, to place, joined bool, err error) {
	if len(args) != 8 || args[0] != bridgeCommand {
		return from, to, false, fmt.Errorf("%d arguments are not those of a bridge", len(args))
	}
	from = place{kind(args[1]), args[2], args[3]}
	to = place{kind(args[4]), args[5], args[6]}
	return from, to, args[7] == "true", nil
}
