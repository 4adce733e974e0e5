//go:build peers

package msgflo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/test/brokers"
)

// kinds are the transports of MsgFlo.
var kinds = []string{"mqtt", "amqp"}

// house is a broker with a client of the test's own at it: none of flogate's code looks after flogate.
type house struct {
	*brokers.Broker
	client
}

// client speaks to participants as MsgFlo's do.
type client interface {
	// publish sends a message to an inport, or an announcement, and returns when the broker has it.
	publish(ctx context.Context, queue, body string) error
	// hear takes all that comes from an outport, from its return on.
	hear(t testing.TB, queue string) *heard
	// read takes what is sent to an address that nobody else reads: to an inport, or announcements.
	read(t testing.TB, queue string) *heard
}

func open(t testing.TB, kind string) house {
	t.Helper()
	if kind == "mqtt" {
		return own(t, brokers.Mosquitto(t))
	}
	return own(t, brokers.RabbitMQ(t))
}

func own(t testing.TB, b *brokers.Broker) house {
	t.Helper()
	return house{b, dial(t, b.URL())}
}

func dial(t testing.TB, url string) client {
	t.Helper()
	if strings.HasPrefix(url, "mqtt") {
		return dialMQTT(t, url)
	}
	return dialAMQP(t, url)
}

// restart restarts a broker that the test has for itself. What was heard before is not heard any more.
func (h *house) restart(t testing.TB) {
	t.Helper()
	h.Restart()
	h.client = dial(t, h.URL())
}

func (h house) send(t testing.TB, queue, body string) {
	t.Helper()
	if err := h.publish(t.Context(), queue, body); err != nil {
		t.Fatal(err)
	}
}

// block is the broker block of a site file.
func (h house) block(name string) string {
	return fmt.Sprintf("broker %q %q {\n  url = %q\n}\n", strings.Split(h.URL(), ":")[0], name, h.URL())
}

// heard collects bodies.
type heard struct {
	mu     sync.Mutex
	bodies []string
}

func (h *heard) add(body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bodies = append(h.bodies, string(body))
}

// all returns what has come so far, in its order.
func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.bodies)
}

// count returns how often a body has come.
func (h *heard) count(body string) (n int) {
	for _, b := range h.all() {
		if b == body {
			n++
		}
	}
	return n
}

// await waits for a body.
func (h *heard) await(t testing.TB, body string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); h.count(body) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			all := h.all()
			t.Fatalf("%s has not come; %d others have: %.1000q", body, len(all), all)
		}
	}
}

type mqttClient struct{ c mqtt.Client }

func dialMQTT(t testing.TB, url string) client {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetAutoReconnect(false).SetConnectTimeout(10 * time.Second))
	if err := wait(c.Connect()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return mqttClient{c}
}

func wait(token mqtt.Token) error {
	if !token.WaitTimeout(20 * time.Second) {
		return errors.New("mosquitto does not answer")
	}
	return token.Error()
}

func (m mqttClient) publish(_ context.Context, queue, body string) error {
	return wait(m.c.Publish(queue, 1, false, body))
}

func (m mqttClient) hear(t testing.TB, queue string) *heard {
	t.Helper()
	h := &heard{}
	if err := wait(m.c.Subscribe(queue, 1, func(_ mqtt.Client, msg mqtt.Message) { h.add(msg.Payload()) })); err != nil {
		t.Fatal(err)
	}
	return h
}

func (m mqttClient) read(t testing.TB, queue string) *heard {
	t.Helper()
	return m.hear(t, queue)
}

type amqpClient struct{ ch *amqp.Channel }

func dialAMQP(t testing.TB, url string) client {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return amqpClient{ch}
}

func (a amqpClient) publish(ctx context.Context, queue, body string) error {
	confirm, err := a.ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, false, false,
		amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent})
	if err != nil {
		return err
	}
	if ok, err := confirm.WaitContext(ctx); err != nil || !ok {
		return fmt.Errorf("%s is not confirmed: %w", body, err)
	}
	return nil
}

func (a amqpClient) hear(t testing.TB, queue string) *heard {
	t.Helper()
	// The exchange is made as participants make it, for those that come later.
	if err := a.ch.ExchangeDeclare(queue, amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	own, err := a.ch.QueueDeclare("", false, false, true, false, nil)
	if err == nil {
		err = a.ch.QueueBind(own.Name, "", queue, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a.consume(t, own.Name)
}

func (a amqpClient) read(t testing.TB, queue string) *heard {
	t.Helper()
	if _, err := a.ch.QueueDeclare(queue, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return a.consume(t, queue)
}

func (a amqpClient) consume(t testing.TB, queue string) *heard {
	t.Helper()
	deliveries, err := a.ch.Consume(queue, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{}
	go func() { // ends with the connection
		for d := range deliveries {
			h.add(d.Body)
		}
	}()
	return h
}
