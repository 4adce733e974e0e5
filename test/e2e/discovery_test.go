package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/participant"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// player is a participant with an inport and an outport: it passes on what comes in.
type player struct {
	t    *testing.T
	p    *participant.Participant
	stop context.CancelFunc
	done chan struct{}

	mu  sync.Mutex
	got []string
}

// play starts a participant, which ends with the test.
func play(t *testing.T, url string, def participant.Definition, period time.Duration) *player {
	ctx, stop := context.WithCancel(context.Background())
	pl := &player{t: t, stop: stop, done: make(chan struct{})}
	pl.p = participant.New(def, participant.Config{Period: period, Drain: -1, Log: slog.New(slog.DiscardHandler)})
	pl.p.Handle("in", func(ctx context.Context, m participant.Message) error {
		pl.mu.Lock()
		pl.got = append(pl.got, string(m.Body))
		pl.mu.Unlock()
		return pl.p.Send(ctx, "out", participant.Message{Body: m.Body})
	})
	go func() {
		defer close(pl.done)
		if err := pl.p.Run(ctx, url); err != nil {
			t.Errorf("participant %s: %v", def.Role, err)
		}
	}()
	t.Cleanup(pl.leave)
	return pl
}

// leave ends the participant without a word.
func (p *player) leave() {
	p.stop()
	<-p.done
}

func (p *player) received() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// await waits until the participant has received exactly these.
func (p *player) await(want ...string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if slices.Equal(p.received(), want) {
			return
		}
	}
	p.t.Fatalf("received %q, and should have %q", p.received(), want)
}

func inOut(role, kind string) participant.Definition {
	return participant.Definition{
		Role: role, Component: "e2e/" + role,
		Inports: []participant.Port{{ID: "in", Type: kind}}, Outports: []participant.Port{{ID: "out", Type: kind}},
	}
}

// edges waits until the edges have these states.
func edges(g *gateway.Gateway, states ...string) admin.Status {
	return g.Await(fmt.Sprint("edges to be ", states), func(s admin.Status) bool {
		return slices.EqualFunc(s.Edges, states, func(e admin.Edge, state string) bool { return e.State == state })
	})
}

func onEachBroker(t *testing.T, f func(t *testing.T, b *brokers.Broker, block string)) {
	for name, start := range map[string]func(*testing.T) *brokers.Broker{
		"mqtt": func(t *testing.T) *brokers.Broker { return brokers.Mosquitto(t) },
		"amqp": func(t *testing.T) *brokers.Broker { return brokers.RabbitMQ(t) },
		"nats": func(t *testing.T) *brokers.Broker { return brokers.NATS(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			f(t, b, fmt.Sprintf("site \"e2e\" {}\nbroker %q \"b\" {\n  url = %q\n}\n", name, b.URL()))
		})
	}
}

func TestParticipantsComeAndGo(t *testing.T) {
	onEachBroker(t, func(t *testing.T, b *brokers.Broker, site string) {
		g := gateway.Open(t, site+`
graph "main" {
  text = <<-EOT
    'hello' -> IN a(e2e/a)
    a OUT -> IN b(e2e/b)
  EOT
}`)
		s := edges(g, "pending")
		if r := s.Edges[0].Reason; !strings.Contains(r, "no participant a") || !strings.Contains(r, "no participant b") {
			t.Errorf("it is pending because of %q", r)
		}
		last := play(t, b.URL(), inOut("b", "any"), time.Second)
		s = g.Await("b to be there", func(s admin.Status) bool { return role(s, "b").State == "present" })
		if a := role(s, "a"); a.State != "absent" || a.Component != "e2e/a" || s.Edges[0].State != "pending" {
			t.Errorf("while only b is there a is %+v, and the edge is %s", a, s.Edges[0].State)
		}
		first := play(t, b.URL(), inOut("a", "any"), time.Second)
		other := play(t, b.URL(), inOut("unwired", "any"), time.Second)
		edges(g, "flowing")
		first.await(`"hello"`) // initial packets are JSON
		s = g.Await("one that is in no graph", func(s admin.Status) bool { return role(s, "unwired").State == "present" })
		if p := role(s, "unwired"); p.InGraph || p.From != "announced" || len(p.Inports) != 1 || len(p.Announced) != 1 {
			t.Errorf("it is %+v", p)
		}
		if err := first.p.Send(t.Context(), "out", participant.Message{Body: []byte("by hand")}); err != nil {
			t.Fatal(err)
		}
		// What a has passed on before the edge flowed is there only where brokers keep what nobody takes.
		for deadline := time.Now().Add(30 * time.Second); !slices.Contains(last.received(), "by hand"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("b has received %q", last.received())
			}
		}

		// It goes without a word, and is missed after ten seconds.
		first.leave()
		s = edges(g, "pending")
		if r := s.Edges[0].Reason; r != "no participant a" {
			t.Errorf("it is pending because of %q", r)
		}
		again := play(t, b.URL(), inOut("a", "any"), time.Second)
		edges(g, "flowing")
		again.await(`"hello"`)
		if got := first.received(); len(got) != 1 {
			t.Errorf("the first one has received %q", got)
		}
		other.leave()
		g.Await("who is in no graph to be gone", func(s admin.Status) bool { return role(s, "unwired").Role == "" })
	})
}

func role(s admin.Status, name string) admin.Participant {
	for _, p := range s.Participants {
		if p.Role == name {
			return p
		}
	}
	return admin.Participant{}
}

func TestParticipantsOfTwoBrokersAreJoined(t *testing.T) {
	house, work := brokers.Mosquitto(t), brokers.RabbitMQ(t)
	g := gateway.Open(t, fmt.Sprintf(`site "e2e" {}
broker "mqtt" "house" {
  url = %q
}
broker "amqp" "work" {
  url = %q
}
graph "main" {
  text = "a(e2e/a) OUT -> IN b(e2e/b) OUT -> IN c(e2e/c)"
}`, house.URL(), work.URL()))
	a := play(t, house.URL(), inOut("a", "string"), time.Minute)
	b := play(t, work.URL(), inOut("b", "string"), time.Minute)
	c := play(t, house.URL(), inOut("c", "int"), time.Minute)
	s := edges(g, "flowing", "flowing")
	if w := s.Edges[1].Warning; !strings.Contains(w, "string") || !strings.Contains(w, "int") {
		t.Errorf("string to int is warned of with %q", w)
	}
	for i := range 10 {
		if err := a.p.Send(t.Context(), "out", participant.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.Split("0 1 2 3 4 5 6 7 8 9", " ")
	b.await(want...)
	c.await(want...)
}

func TestForeignParticipantsAreAnnounced(t *testing.T) {
	onEachBroker(t, func(t *testing.T, b *brokers.Broker, site string) {
		if strings.HasPrefix(b.URL(), "amqp") {
			return // whoever listens there takes from one queue, and the first gateway would hear itself
		}
		other := gateway.Open(t, strings.Replace(site, `"e2e"`, `"other"`, 1))
		other.Await("the other gateway to listen", func(s admin.Status) bool {
			return len(s.Brokers) == 1 && s.Brokers[0].State == "connected"
		})
		gateway.Open(t, site+`
participant "lamp" {
  component = "e2e/Lamp"
  label     = "In the hall"
  inport "in" {
    address     = "lamp/in"
    type        = "boolean"
    description = "on or off"
  }
}`)
		s := other.Await("the participant", func(s admin.Status) bool { return role(s, "lamp").State == "present" })
		lamp := role(s, "lamp")
		if lamp.Component != "e2e/Lamp" || lamp.Label != "In the hall" || len(lamp.Inports) != 1 || lamp.From != "announced" {
			t.Fatalf("it is %+v", lamp)
		}
		if p := lamp.Inports[0]; p.Name != "in" || p.Address != "lamp/in" || p.Type != "boolean" || p.Description != "on or off" {
			t.Errorf("its port is %+v", p)
		}
	})
}

func TestTypesAreComparedAtEachDefinition(t *testing.T) {
	b := brokers.Mosquitto(t)
	g := gateway.Open(t, fmt.Sprintf(`site "e2e" {
  types = "strict"
}
broker "mqtt" "b" {
  url = %q
}
graph "main" {
  text = "a(e2e/a) OUT -> IN b(e2e/b)"
}`, b.URL()))
	play(t, b.URL(), inOut("a", "string"), time.Minute)
	first := play(t, b.URL(), inOut("b", "int"), time.Minute)
	s := edges(g, "broken")
	if r := s.Edges[0].Reason; !strings.Contains(r, "string") || !strings.Contains(r, "int") {
		t.Errorf("it is broken because of %q", r)
	}
	first.leave()
	play(t, b.URL(), inOut("b", "string"), time.Minute)
	edges(g, "flowing")
}

// A gateway that is killed takes nobody for somebody new when it is there again; and who gets an initial packet once in its life
// has got it.
func TestRestartedGatewayKnowsWhoIsThere(t *testing.T) {
	onEachBroker(t, func(t *testing.T, b *brokers.Broker, site string) {
		g := gateway.Open(t, site+`
graph "main" {
  text = <<-EOT
    'hello' -> IN a(e2e/a)
    a OUT -> IN b(e2e/b)
  EOT
}`)
		a := play(t, b.URL(), inOut("a", "any"), 10*time.Second)
		play(t, b.URL(), inOut("b", "any"), 10*time.Second)
		edges(g, "flowing")
		a.await(`"hello"`)
		before := role(g.Await("a", func(s admin.Status) bool { return role(s, "a").State == "present" }), "a")
		time.Sleep(2 * time.Second) // what is to be remembered is collected for a second
		g.Kill()
		g.Start()
		s := edges(g, "flowing")
		after := role(s, "a")
		if len(after.Announced) != 1 || after.Announced[0].Incarnation != before.Announced[0].Incarnation {
			t.Errorf("it was %+v and is %+v", before.Announced, after.Announced)
		}
		time.Sleep(2 * time.Second)
		if got := a.received(); len(got) != 1 {
			t.Errorf("a has received %q", got)
		}
	})
}

func TestAnotherServerHasOtherParticipants(t *testing.T) {
	first, second := brokers.Mosquitto(t), brokers.Mosquitto(t)
	site := func(b *brokers.Broker) string {
		return fmt.Sprintf("site \"e2e\" {}\nbroker \"mqtt\" \"b\" {\n  url = %q\n}\n", b.URL())
	}
	g := gateway.Open(t, site(first))
	play(t, first.URL(), inOut("old", "any"), 10*time.Second)
	g.Await("the participant", func(s admin.Status) bool { return role(s, "old").State == "present" })
	g.Write(site(second))
	g.Reload()
	g.Await("nobody", func(s admin.Status) bool { return len(s.Participants) == 0 })
	play(t, second.URL(), inOut("new", "any"), 10*time.Second)
	g.Await("the other one", func(s admin.Status) bool { return role(s, "new").State == "present" && role(s, "old").Role == "" })
}
