package e2e

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/test/brokers"
)

// side is a broker at one end of an edge, with a client of its own: none of flogate's code looks after flogate.
type side interface {
	// start starts the broker; own says that the test restarts it.
	start(t *testing.T, own bool) *brokers.Broker
	// block is the broker block of the site file, for clients at url; port is the body of the port's block.
	block(url string) string
	port(source bool) string
	// unread is how many acknowledgements the broker may have received and not read when it is told to end: these messages
	// come again, whatever the one who acknowledged them does.
	unread() int
	// feed publishes messages 0 to n-1 and returns when the broker has confirmed them all, also over its restarts.
	feed(t *testing.T, ctx context.Context, url string, n int)
	// collect calls take for every message that arrives, until take returns false or ctx ends. It announces itself to the
	// broker before it returns the function that does so.
	collect(t *testing.T, ctx context.Context, url string, take func(body string) bool) (wait func())
}

func sides() map[string]side {
	return map[string]side{"mqtt": mqttSide{}, "amqp": amqpSide{}, "jetstream": jetStreamSide{}}
}

// burst is how many messages the clients here publish or take at a time without a confirm: after a failure of their broker
// they do so many again.
const burst = 50

// again calls f until it returns nil or ctx ends: what a client does whose broker is restarted.
func again(t *testing.T, ctx context.Context, what string, f func() error) {
	var err error
	for ctx.Err() == nil {
		if err = f(); err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	t.Errorf("%s: %v", what, err)
}

type mqttSide struct{}

// start has mosquitto save its store when it ends, and not before. With every change, the setting for one that may be killed
// itself, it writes ten thousand messages ten thousand times, and falls seconds behind its clients.
func (mqttSide) start(t *testing.T, _ bool) *brokers.Broker {
	return brokers.Mosquitto(t, brokers.Config("autosave_interval 1000000"))
}

func (mqttSide) block(url string) string {
	return fmt.Sprintf("broker \"mqtt\" \"b\" {\n  url = %q\n}\n", url)
}

func (mqttSide) port(bool) string { return "address = \"e2e/numbers\"" }

// unread: mosquitto 2.0.11 looks through all that is queued for each acknowledgement, one at a time, and with thousands queued on
// a busy machine it was up to 350 behind.
func (mqttSide) unread() int { return 1000 }

func (mqttSide) connect(url, id string, clean bool, handle mqtt.MessageHandler) (mqtt.Client, error) {
	o := mqtt.NewClientOptions().AddBroker(url).SetClientID(id).SetCleanSession(clean).SetAutoReconnect(false).
		SetOrderMatters(true).SetConnectTimeout(5 * time.Second)
	if handle != nil {
		o.SetDefaultPublishHandler(handle)
	}
	c := mqtt.NewClient(o)
	token := c.Connect()
	token.Wait()
	return c, token.Error()
}

func (s mqttSide) feed(t *testing.T, ctx context.Context, url string, n int) {
	next := 0
	again(t, ctx, "publishing to mosquitto", func() error {
		c, err := s.connect(url, "feeder", true, nil)
		if err != nil {
			return err
		}
		defer c.Disconnect(0)
		for next < n {
			// A window of publishes, confirmed in order; what is not confirmed is published again.
			var tokens []mqtt.Token
			for i := next; i < min(n, next+burst); i++ {
				tokens = append(tokens, c.Publish("e2e/numbers", 1, false, strconv.Itoa(i)))
			}
			for _, token := range tokens {
				if !token.WaitTimeout(10 * time.Second) {
					return fmt.Errorf("no confirm of %d", next)
				}
				if token.Error() != nil {
					return token.Error()
				}
				next++
			}
		}
		return nil
	})
}

func (s mqttSide) collect(t *testing.T, ctx context.Context, url string, take func(string) bool) func() {
	got := make(chan string, 1<<16)
	open := func() (mqtt.Client, error) {
		c, err := s.connect(url, "collector", false, func(_ mqtt.Client, m mqtt.Message) {
			select {
			case got <- string(m.Payload()):
			case <-ctx.Done():
			}
		})
		if err != nil {
			return nil, err
		}
		token := c.Subscribe("e2e/numbers", 1, nil)
		token.Wait()
		return c, token.Error()
	}
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		defer func() { c.Disconnect(0) }()
		look := time.NewTicker(100 * time.Millisecond)
		defer look.Stop()
		for {
			select {
			case body := <-got:
				if !take(body) {
					return
				}
			case <-look.C:
				if !c.IsConnectionOpen() {
					again(t, ctx, "collecting from mosquitto", func() (err error) {
						c, err = open()
						return err
					})
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

type amqpSide struct{}

func (amqpSide) start(t *testing.T, own bool) *brokers.Broker {
	if own {
		return brokers.OwnRabbitMQ(t)
	}
	return brokers.RabbitMQ(t)
}

func (amqpSide) block(url string) string {
	return fmt.Sprintf("broker \"amqp\" \"b\" {\n  url = %q\n}\n", url)
}

func (amqpSide) port(source bool) string {
	if source {
		return "address = \"e2e.numbers\"\nkind = \"queue\""
	}
	return "address = \"e2e.numbers\""
}

func (amqpSide) unread() int { return 0 }

// open connects and declares the queue, so that nothing is lost before the other end comes.
func (amqpSide) open(url string) (*amqp.Connection, *amqp.Channel, error) {
	c, err := amqp.Dial(url)
	if err != nil {
		return nil, nil, err
	}
	ch, err := c.Channel()
	if err == nil {
		_, err = ch.QueueDeclare("e2e.numbers", true, false, false, false, nil)
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	return c, ch, nil
}

func (s amqpSide) feed(t *testing.T, ctx context.Context, url string, n int) {
	next := 0
	again(t, ctx, "publishing to RabbitMQ", func() error {
		c, ch, err := s.open(url)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := ch.Confirm(false); err != nil {
			return err
		}
		for next < n {
			var confirms []*amqp.DeferredConfirmation
			for i := next; i < min(n, next+burst); i++ {
				dc, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", "e2e.numbers", true, false,
					amqp.Publishing{Body: []byte(strconv.Itoa(i)), DeliveryMode: amqp.Persistent})
				if err != nil {
					return err
				}
				confirms = append(confirms, dc)
			}
			for _, dc := range confirms {
				ok, err := dc.WaitContext(ctx)
				if err != nil {
					return err
				}
				if !ok {
					return fmt.Errorf("%d was not confirmed", next)
				}
				next++
			}
		}
		return nil
	})
}

func (s amqpSide) collect(t *testing.T, ctx context.Context, url string, take func(string) bool) func() {
	if c, _, err := s.open(url); err != nil {
		t.Fatal(err)
	} else {
		_ = c.Close()
	}
	return func() {
		again(t, ctx, "collecting from RabbitMQ", func() error {
			c, ch, err := s.open(url)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()
			// Acknowledged one by one, or a restart of the broker would take what is on the way to us.
			if err := ch.Qos(burst, 0, false); err != nil {
				return err
			}
			ds, err := ch.Consume("e2e.numbers", "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			for {
				select {
				case d, ok := <-ds:
					if !ok {
						return fmt.Errorf("the connection was lost")
					}
					more := take(string(d.Body))
					if err := d.Ack(false); err != nil && more {
						return err
					}
					if !more {
						return nil
					}
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
}

type jetStreamSide struct{}

func (jetStreamSide) start(t *testing.T, _ bool) *brokers.Broker { return brokers.NATS(t) }

func (jetStreamSide) block(url string) string {
	return fmt.Sprintf("broker \"nats\" \"b\" {\n  url = %q\n}\n", url)
}

func (jetStreamSide) port(bool) string { return "address = \"e2e.numbers\"\nstream = \"E2E\"" }

func (jetStreamSide) unread() int { return 0 }

func (jetStreamSide) open(ctx context.Context, url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "E2E", Subjects: []string{"e2e.>"}})
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

func (s jetStreamSide) feed(t *testing.T, ctx context.Context, url string, n int) {
	next := 0
	again(t, ctx, "publishing to JetStream", func() error {
		nc, js, err := s.open(ctx, url)
		if err != nil {
			return err
		}
		defer nc.Close()
		for next < n {
			var futures []jetstream.PubAckFuture
			for i := next; i < min(n, next+burst); i++ {
				f, err := js.PublishMsgAsync(&nats.Msg{
					Subject: "e2e.numbers", Data: []byte(strconv.Itoa(i)),
					Header: nats.Header{jetstream.MsgIDHeader: []string{strconv.Itoa(i)}},
				})
				if err != nil {
					return err
				}
				futures = append(futures, f)
			}
			for _, f := range futures {
				select {
				case <-f.Ok():
					next++
				case err := <-f.Err():
					return err
				case <-time.After(10 * time.Second):
					return fmt.Errorf("no confirm of %d", next)
				}
			}
		}
		return nil
	})
}

func (s jetStreamSide) collect(t *testing.T, ctx context.Context, url string, take func(string) bool) func() {
	nc, js, err := s.open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		defer nc.Close()
		seq := uint64(1)
		again(t, ctx, "collecting from JetStream", func() error {
			stream, err := js.Stream(ctx, "E2E")
			if err != nil {
				return err
			}
			for ctx.Err() == nil {
				// Bounded: a server that is restarted never answers what it was asked before.
				asking, cancel := context.WithTimeout(ctx, 2*time.Second)
				m, err := stream.GetMsg(asking, seq)
				cancel()
				if err != nil {
					return err // it is not there yet, or the server is away
				}
				seq++
				if !take(string(m.Data)) {
					return nil
				}
			}
			return nil
		})
	}
}
