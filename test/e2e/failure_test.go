package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// twoEdges is a site with an edge from mosquitto to RabbitMQ, and one from mosquitto to mosquitto.
func twoEdges(house, work string) string {
	return fmt.Sprintf(`site "e2e" {}
broker "mqtt" "house" {
  url = %q
}
broker "amqp" "work" {
  url = %q
}
participant "sensor" {
  component = "e2e/Sensor"
  broker    = broker.mqtt.house
  outport "out" {
    address = "sensor"
  }
}
participant "archive" {
  component = "e2e/Archive"
  broker    = broker.amqp.work
  inport "in" {
    address = "archive"
  }
}
participant "lamp" {
  component = "e2e/Lamp"
  broker    = broker.mqtt.house
  inport "in" {
    address = "lamp"
  }
}
graph "main" {
  text = <<EOT
sensor(e2e/Sensor) OUT -> IN archive(e2e/Archive)
button(e2e/Button) OUT -> IN lamp(e2e/Lamp)
EOT
}
participant "button" {
  component = "e2e/Button"
  broker    = broker.mqtt.house
  outport "out" {
    address = "button"
  }
}
edge "sensor.out" "archive.in" {
  dead_letter = "dead.archive"
}
`, house, work)
}

func edgeOf(s admin.Status, id string) admin.Edge {
	for _, e := range s.Edges {
		if e.ID == id {
			return e
		}
	}
	return admin.Edge{}
}

func send(t *testing.T, url, topic, body string) {
	t.Helper()
	c, err := mqttSide{}.connect(url, "sender", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Disconnect(0)
	if token := c.Publish(topic, 1, false, body); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("publish: %v", token.Error())
	}
}

// take waits for one message from a queue.
func take(t *testing.T, ch *amqp.Channel, queue string) amqp.Delivery {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		d, ok, err := ch.Get(queue, true)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return d
		}
	}
	t.Fatalf("nothing came to %s", queue)
	return amqp.Delivery{}
}

func TestBrokerThatIsNotThereBreaksOnlyItsEdges(t *testing.T) {
	house, work := brokers.Mosquitto(t), brokers.RabbitMQ(t)
	proxy := brokers.NewProxy(t, work.Addr())
	proxy.Refuse()
	g := gateway.Open(t, twoEdges(house.URL(), proxy.Through(work.URL())))
	g.Await("one edge to be broken and the other to flow", func(s admin.Status) bool {
		broken := edgeOf(s, "sensor.out -> archive.in")
		return broken.State == "broken" && strings.Contains(broken.Reason, "amqp.work is not connected") &&
			edgeOf(s, "button.out -> lamp.in").State == "flowing"
	})
	send(t, house.URL(), "button", "1")
	g.Await("the other edge to carry", func(s admin.Status) bool { return edgeOf(s, "button.out -> lamp.in").Messages == 1 })
	send(t, house.URL(), "sensor", "21.5") // held by mosquitto
	proxy.Restore()
	g.Await("the edge to carry what was held", func(s admin.Status) bool {
		return edgeOf(s, "sensor.out -> archive.in").Messages == 1
	})
	g.Stop()
}

func TestRefusedMessageGoesToTheDeadLetterOnTheBroker(t *testing.T) {
	house, work := brokers.Mosquitto(t), brokers.RabbitMQ(t)
	conn, err := amqp.Dial(work.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []string{"dead.archive", "archive"} {
		if _, err := ch.QueueDeclare(queue, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.ExchangeDeclare("archive", amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("archive", "", "archive", false, nil); err != nil {
		t.Fatal(err)
	}
	g := gateway.Open(t, strings.Replace(twoEdges(house.URL(), work.URL()), `address = "archive"`, `address   = "archive"
    kind      = "exchange"
    mandatory = true`, 1))
	g.AwaitFlowing()
	send(t, house.URL(), "sensor", "1")
	if d := take(t, ch, "archive"); string(d.Body) != "1" {
		t.Errorf("arrived %q", d.Body)
	}

	// Nobody listens at the exchange any more: what is sent to it cannot be routed, and the gateway cannot know to whom.
	if _, err := ch.QueueDelete("archive", false, false, false); err != nil {
		t.Fatal(err)
	}
	send(t, house.URL(), "sensor", "2")
	letter := take(t, ch, "dead.archive")
	if string(letter.Body) != "2" {
		t.Errorf("the dead letter is %q", letter.Body)
	}
	for name, want := range map[string]string{
		"flogate-dead-edge": "sensor.out -> archive.in", "flogate-dead-from": "sensor", "flogate-dead-cause": "NO_ROUTE", "flogate-dead-time": "20",
	} {
		if got := fmt.Sprint(letter.Headers[name]); !strings.Contains(got, want) {
			t.Errorf("header %s is %q, without %q", name, got, want)
		}
	}
	s := g.Await("the count", func(s admin.Status) bool { return edgeOf(s, "sensor.out -> archive.in").DeadLetters == 1 })
	if e := edgeOf(s, "sensor.out -> archive.in"); e.InFlight != 0 || e.Rejected != 0 {
		t.Errorf("status %+v", e)
	}
	g.Stop()
}

func TestStopDuringAFloodLosesNothing(t *testing.T) {
	// Drained and started again a few times: nothing is lost, nothing is out of order, and nothing is doubled either.
	e := newEdge(t, mqttSide{}, amqpSide{}, false)
	for round := 1; round <= 4; round++ {
		for e.arrived() < round*messages/5 && e.ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		e.gateway.Stop()
		e.gateway.Start()
	}
	e.finish(t, 4, 0)
}

func TestGatewayStartsAndStopsWithNothingThere(t *testing.T) {
	g := gateway.Open(t, twoEdges("mqtt://127.0.0.1:1", "amqp://127.0.0.1:1"))
	g.Await("both edges to be broken", func(s admin.Status) bool {
		return edgeOf(s, "sensor.out -> archive.in").State == "broken" && edgeOf(s, "button.out -> lamp.in").State == "broken"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		g.Stop()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("the gateway does not stop")
	}
}
