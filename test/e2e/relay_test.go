package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// taken is what came to the sinks of a round robin.
type taken struct {
	mu  sync.Mutex
	got map[string]map[string]int // by sink and body
}

func (k *taken) by(sink string) func(string) bool {
	return func(body string) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.got == nil {
			k.got = map[string]map[string]int{}
		}
		if k.got[sink] == nil {
			k.got[sink] = map[string]int{}
		}
		k.got[sink][body]++
		return true
	}
}

// count returns how many different bodies came, how many came to both sinks, and how many to the one with the fewest.
func (k *taken) count() (all, twice, fewest int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := map[string]int{}
	fewest = len(k.got["jetstream"])
	for _, bodies := range k.got {
		fewest = min(fewest, len(bodies))
		for body, times := range bodies {
			n[body] += times
		}
	}
	for _, times := range n {
		if times > 1 {
			twice++
		}
	}
	return len(n), twice, fewest
}

// readStream takes what comes to the stream until ctx ends, over restarts of its server.
func readStream(ctx context.Context, js jetstream.JetStream, take func(string) bool) {
	for seq := uint64(1); ctx.Err() == nil; {
		asking, cancel := context.WithTimeout(ctx, time.Second)
		stream, err := js.Stream(asking, "E2E")
		for err == nil {
			var m *jetstream.RawStreamMsg
			if m, err = stream.GetMsg(asking, seq); err == nil {
				take(string(m.Data))
				seq++
			}
		}
		cancel()
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func TestRoundRobinOverBrokersLosesNothing(t *testing.T) {
	t.Parallel()
	house, bus, work := mqttSide{}.start(t, false), brokers.NATS(t), brokers.RabbitMQ(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	var k taken
	waitQ := amqpSide{}.collect(t, ctx, work.URL(), k.by("amqp"))
	nc, js, err := jetStreamSide{}.open(ctx, bus.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var collecting sync.WaitGroup
	collecting.Go(func() { readStream(ctx, js, k.by("jetstream")) })
	collecting.Go(waitQ)
	defer collecting.Wait()
	defer cancel()

	g := gateway.Open(t, fmt.Sprintf(`site "e2e" {}
broker "mqtt" "house" {
  url = %q
}
broker "nats" "bus" {
  url = %q
}
broker "amqp" "work" {
  url = %q
}
graph "main" {
  text = "a(e2e/A) OUT -> IN rr(msgflo/RoundRobin), rr OUT -> IN b(e2e/B), rr OUT -> IN c(e2e/C)"
}
participant "a" {
  component = "e2e/A"
  broker    = broker.mqtt.house
  outport "out" { address = "e2e/numbers" }
}
participant "b" {
  component = "e2e/B"
  broker    = broker.nats.bus
  inport "in" {
    address = "e2e.numbers"
    stream  = "E2E"
  }
}
participant "c" {
  component = "e2e/C"
  broker    = broker.amqp.work
  inport "in" { address = "e2e.numbers" }
}
edge "a.out" "rr.in" {
  require = "at-least-once"
}
`, house.URL(), bus.URL(), work.URL()))
	g.AwaitFlowing()

	arrive := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			all, _, _ := k.count()
			if all == n {
				return
			}
			if time.Now().After(deadline) {
				s, err := g.Status()
				t.Fatalf("%d of %d messages arrived; status %+v, %v", all, n, s.Edges, err)
			}
		}
	}
	mqttSide{}.feed(t, ctx, house.URL(), 1000)
	arrive(1000)
	if _, twice, fewest := k.count(); twice > 0 || fewest < 100 {
		t.Errorf("with all well %d messages came twice, and one sink got only %d", twice, fewest)
	}

	// A sink that is frozen and then killed holds nothing up, and nothing that was on its way there is lost. (The side numbers
	// its messages from 0: these are the second thousand and the first again.)
	bus.Freeze()
	mqttSide{}.feed(t, ctx, house.URL(), 2000)
	arrive(2000)
	g.Await("the frozen sink to be noticed", func(s admin.Status) bool {
		for _, e := range s.Edges {
			if e.ID == "rr.out -> b.in" && e.State == "broken" {
				return true
			}
		}
		return false
	})
	bus.Thaw()
	bus.Kill()
	bus.Start()
	g.AwaitFlowing()
	mqttSide{}.feed(t, ctx, house.URL(), 3000)
	arrive(3000)
}

// msgflo is what participants of MsgFlo make for a.OUT, b.IN and c.IN.
func msgflo(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	c, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ch.ExchangeDeclare("a.OUT", "fanout", true, false, false, false, nil))
	for _, q := range []string{"b.IN", "c.IN"} {
		_, err := ch.QueueDeclare(q, true, false, false, false, amqp.Table{"x-dead-letter-exchange": "dead-" + q})
		must(err)
		must(ch.ExchangeDeclare(q, "fanout", true, false, false, false, nil))
		must(ch.QueueBind(q, "", q, false, nil))
	}
	_, err = ch.QueueDeclare("somebody's", true, false, false, false, nil)
	must(err)
	must(ch.QueueBind("somebody's", "", "a.OUT", false, nil))
	return ch
}

// next returns the next message of a queue, not acknowledged; nil if none comes in time.
func next(t *testing.T, ch *amqp.Channel, queue string, wait time.Duration) *amqp.Delivery {
	t.Helper()
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		d, ok, err := ch.Get(queue, false)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return &d
		}
	}
	return nil
}

func TestRoundRobinOnOneBrokerFlowsWhenTheGatewayIsDead(t *testing.T) {
	t.Parallel()
	work := brokers.RabbitMQ(t)
	site := func(graph string) string {
		return fmt.Sprintf(`site "e2e" {}
broker "amqp" "work" {
  url = %q
}
graph "main" {
  text = %q
}
participant "a" {
  component = "e2e/A"
  outport "out" { address = "a.OUT" }
}
participant "b" {
  component = "e2e/B"
  inport "in" { address = "b.IN" }
}
participant "c" {
  component = "e2e/C"
  inport "in" { address = "c.IN" }
}
`, work.URL(), graph)
	}
	const graph = "a(e2e/A) OUT -> IN rr(msgflo/RoundRobin)\nrr OUT -> IN b(e2e/B)\nrr DEADLETTER -> IN c(e2e/C)\n"
	g := gateway.Open(t, site(graph))
	g.Await("the edge to wait for the queue", func(s admin.Status) bool {
		return len(s.Edges) == 3 && s.Edges[0].State == "pending" && strings.Contains(s.Edges[0].Reason, "b.IN")
	})
	ch := msgflo(t, work.URL())
	for _, e := range g.AwaitFlowing().Edges {
		if e.Reason != "carried by amqp.work itself" {
			t.Errorf("edge %s: %s", e.ID, e.Reason)
		}
	}
	g.Kill()

	say := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if err := ch.PublishWithContext(t.Context(), "a.OUT", "", false, false, amqp.Publishing{Body: []byte(strconv.Itoa(i))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	say(0, 10)
	for i := range 10 {
		d := next(t, ch, "b.IN", 10*time.Second)
		if d == nil || string(d.Body) != strconv.Itoa(i) {
			t.Fatalf("message %d with the gateway dead: %+v", i, d)
		}
		var err error
		if i == 5 {
			err = d.Nack(false, false)
		} else {
			err = d.Ack(false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := next(t, ch, "c.IN", 10*time.Second); d == nil || string(d.Body) != "5" {
		t.Fatalf("the rejected message: %+v", d)
	}

	// Another life with the dead letter's edge gone takes back that binding, and leaves the rest.
	g.Start()
	g.AwaitFlowing()
	g.Write(site("a(e2e/A) OUT -> IN rr(msgflo/RoundRobin)\nrr OUT -> IN b(e2e/B)\nc(e2e/C)\n"))
	g.Reload()
	eventually(t, "the way of dead letters to be unbound", func() bool {
		say(10, 11)
		d := next(t, ch, "b.IN", 10*time.Second)
		if d == nil {
			t.Fatal("the edge that stays does not carry")
		}
		if err := d.Nack(false, false); err != nil {
			t.Fatal(err)
		}
		d = next(t, ch, "c.IN", 300*time.Millisecond)
		return d == nil
	})
	// Removed while nobody runs.
	g.Kill()
	g.Write(site("a(e2e/A)\nb(e2e/B)\nc(e2e/C)\n"))
	g.Start()
	eventually(t, "the edge to be unbound", func() bool {
		say(11, 12)
		return next(t, ch, "b.IN", 300*time.Millisecond) == nil
	})
	somebodys := 0
	for next(t, ch, "somebody's", time.Second) != nil {
		somebodys++
	}
	if somebodys < 12 {
		t.Errorf("somebody else's binding brought %d messages", somebodys)
	}
}

// An exchange that is not fanout would take messages into nothing: it is said, and nothing stays bound.
func TestExchangeOfAnotherTypeIsNotBound(t *testing.T) {
	t.Parallel()
	work := brokers.RabbitMQ(t)
	ch := msgflo(t, work.URL())
	if err := ch.ExchangeDeclare("t.OUT", "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	g := gateway.Open(t, fmt.Sprintf(`site "e2e" {}
broker "amqp" "work" {
  url = %q
}
graph "main" {
  text = "a(e2e/A) OUT -> IN rr(msgflo/RoundRobin) OUT -> IN b(e2e/B)"
}
participant "a" {
  component = "e2e/A"
  outport "out" { address = "t.OUT" }
}
participant "b" {
  component = "e2e/B"
  inport "in" { address = "b.IN" }
}
`, work.URL()))
	g.Await("the edge to say what is wrong", func(s admin.Status) bool {
		return len(s.Edges) == 2 && s.Edges[0].State == "broken" && strings.Contains(s.Edges[0].Reason, "topic") &&
			strings.Contains(s.Edges[0].Reason, `routing = "gateway"`)
	})
	if err := ch.PublishWithContext(t.Context(), "t.OUT", "", false, false, amqp.Publishing{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if d := next(t, ch, "b.IN", 300*time.Millisecond); d != nil {
		t.Errorf("%s came", d.Body)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for " + what)
		}
	}
}
