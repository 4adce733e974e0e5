package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/coalesce"
)

const clientTime = 10 * time.Second

// place is an address on a broker.
type place struct {
	kind    kind
	url     string
	address string
}

// dialMQTT connects a client of the library that hands messages to handle one at a time. lost is called when the
// connection ends.
func dialMQTT(rawURL string, joined bool, handle func(mqtt.Message), lost func(error)) (mqtt.Client, error) {
	o := mqtt.NewClientOptions().AddBroker(rawURL).SetClientID(fmt.Sprintf("bench%016x", rand.Uint64())).
		SetCleanSession(true).SetAutoReconnect(false).SetOrderMatters(true).SetAutoAckDisabled(true).
		SetConnectTimeout(clientTime).SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost(err) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { handle(m) })
	if joined {
		o.SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
			conn, err := net.DialTimeout("tcp", u.Host, clientTime)
			if err != nil {
				return nil, err
			}
			return coalesce.Wrap(conn, coalesce.Options{QuickAck: true}), nil
		})
	}
	c := mqtt.NewClient(o)
	return c, settled(c.Connect())
}

// settled waits for a token, for a while.
func settled(t mqtt.Token) error {
	if !t.WaitTimeout(clientTime) {
		return errors.New("no answer from the broker")
	}
	return t.Error()
}

func dialAMQP(rawURL string, joined bool) (*amqp.Connection, *amqp.Channel, error) {
	cfg := amqp.Config{Heartbeat: clientTime, Locale: "en_US"}
	if joined {
		cfg.Dial = func(network, addr string) (net.Conn, error) {
			// Without the library's deadline for the handshake, which it lifts from what is wrapped and not from this.
			conn, err := net.DialTimeout(network, addr, clientTime)
			if err != nil {
				return nil, err
			}
			return coalesce.Wrap(conn, coalesce.Options{}), nil
		}
	}
	c, err := amqp.DialConfig(rawURL, cfg)
	if err != nil {
		return nil, nil, err
	}
	ch, err := c.Channel()
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, ch, nil
}

// stream is the name of the JetStream stream of an address.
func stream(address string) string { return "S-" + address }

// prepare makes what has to be there before anybody publishes to the place or consumes from it.
func (p place) prepare(ctx context.Context) error {
	switch p.kind {
	case amqpQueue:
		c, ch, err := dialAMQP(p.url, false)
		if err != nil {
			return err
		}
		defer c.Close()
		// In memory: how fast a disk is, is not the question here.
		_, err = ch.QueueDeclare(p.address, false, false, false, false, nil)
		return err
	case jetStream:
		return p.withJetStream(ctx, func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{
				Name: stream(p.address), Subjects: []string{p.address}, Storage: jetstream.MemoryStorage,
			})
			return err
		})
	}
	return nil
}

// remove removes what prepare has made, with what is left in it.
func (p place) remove(ctx context.Context) error {
	switch p.kind {
	case amqpQueue:
		c, ch, err := dialAMQP(p.url, false)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = ch.QueueDelete(p.address, false, false, false)
		return err
	case jetStream:
		return p.withJetStream(ctx, func(ctx context.Context, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, stream(p.address))
		})
	}
	return nil
}

func (p place) withJetStream(ctx context.Context, f func(context.Context, jetstream.JetStream) error) error {
	ctx, cancel := context.WithTimeout(ctx, clientTime)
	defer cancel()
	nc, err := nats.Connect(p.url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return f(ctx, js)
}

// feeder publishes without waiting for confirms: what the broker does not take is missing in the end, and counted.
type feeder struct {
	publish func(body []byte) error
	close   func()
}

// retained is for the start-up check: a message that a subscriber gets whenever it comes.
func (p place) feed(retained bool) (feeder, error) {
	switch p.kind {
	case mqtt0, mqtt1:
		c, err := dialMQTT(p.url, true, func(mqtt.Message) {}, func(error) {})
		if err != nil {
			return feeder{}, err
		}
		publish := func(b []byte) error {
			t := c.Publish(p.address, p.qos(), retained, b)
			select {
			case <-t.Done():
				return t.Error()
			default:
				return nil
			}
		}
		return feeder{publish, func() { c.Disconnect(100) }}, nil
	case amqpQueue:
		c, ch, err := dialAMQP(p.url, true)
		if err != nil {
			return feeder{}, err
		}
		publish := func(b []byte) error {
			return ch.Publish("", p.address, false, false, amqp.Publishing{Body: b, DeliveryMode: amqp.Persistent})
		}
		return feeder{publish, func() { _ = c.Close() }}, nil
	default:
		nc, err := nats.Connect(p.url)
		if err != nil {
			return feeder{}, err
		}
		return feeder{func(b []byte) error { return nc.Publish(p.address, b) }, nc.Close}, nil
	}
}

func (p place) qos() byte {
	if p.kind == mqtt1 {
		return 1
	}
	return 0
}

// collect calls take for each message that arrives, one at a time, and returns how to end that. It costs the broker as
// little as can be: there are no acknowledgements.
func (p place) collect(take func([]byte)) (func(), error) {
	switch p.kind {
	case mqtt0, mqtt1:
		c, err := dialMQTT(p.url, true, func(m mqtt.Message) { take(m.Payload()) }, func(error) {})
		if err != nil {
			return nil, err
		}
		if err := settled(c.Subscribe(p.address, 0, nil)); err != nil {
			return nil, err
		}
		return func() { c.Disconnect(100) }, nil
	case amqpQueue:
		c, ch, err := dialAMQP(p.url, true)
		if err != nil {
			return nil, err
		}
		ds, err := ch.Consume(p.address, "", true, false, false, false, nil)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for d := range ds {
				take(d.Body)
			}
		}()
		return func() {
			_ = c.Close()
			<-ended
		}, nil
	}
	return nil, fmt.Errorf("%s is no sink here", p.kind)
}
