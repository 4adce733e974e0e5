package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

const (
	// messages go through in each test.
	messages = 10_000
	// window is the edge's: with the latency of the way to the sink it makes the sink slow, so that every kill finds
	// messages in flight.
	window  = 50
	latency = 20 * time.Millisecond
)

// edge is a running edge between two real brokers, with a slow way to the sink.
type edge struct {
	source, sink *brokers.Broker
	gateway      *gateway.Gateway
	ctx          context.Context
	fed          sync.WaitGroup
	done         chan struct{} // closed when everything has arrived, or time is up

	mu      sync.Mutex
	seen    map[string]bool
	next    int
	doubled int
	wrong   []string
}

// newEdge starts everything and the flood of messages.
func newEdge(t *testing.T, from, to side, own bool) *edge {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	e := &edge{ctx: ctx, seen: make(map[string]bool)}
	e.source, e.sink = from.start(t, own), to.start(t, own)
	slow := brokers.NewProxy(t, e.sink.Addr())
	slow.Latency(latency)
	collect := to.collect(t, ctx, e.sink.URL(), e.take)
	// What the source needs to hold messages has to be there before the gateway.
	from.feed(t, ctx, e.source.URL(), 0)

	var site strings.Builder
	fmt.Fprintf(&site, "site \"e2e\" {}\n%s%s", strings.Replace(from.block(e.source.URL()), `"b"`, `"source"`, 1),
		strings.Replace(to.block(slow.Through(e.sink.URL())), `"b"`, `"sink"`, 1))
	ref := func(s side, name string) string { return "broker." + strings.Split(s.block(""), `"`)[1] + "." + name }
	fmt.Fprintf(&site, "participant \"a\" {\n  component = \"e2e/A\"\n  broker = %s\n  outport \"out\" {\n%s\n}\n}\n", ref(from, "source"), from.port(true))
	fmt.Fprintf(&site, "participant \"b\" {\n  component = \"e2e/B\"\n  broker = %s\n  inport \"in\" {\n%s\n}\n}\n", ref(to, "sink"), to.port(false))
	fmt.Fprintf(&site, "graph \"main\" {\n  text = \"a(e2e/A) OUT -> IN b(e2e/B)\"\n}\n")
	fmt.Fprintf(&site, "edge \"a.out\" \"b.in\" {\n  require = \"at-least-once\"\n  window = %d\n}\n", window)
	e.gateway = gateway.Open(t, site.String())
	e.gateway.AwaitFlowing()
	e.done = make(chan struct{})
	go func() {
		defer close(e.done)
		collect()
	}()
	e.fed.Go(func() { from.feed(t, ctx, e.source.URL(), messages) })
	return e
}

// take counts a message that has arrived. It returns false when all have.
func (e *edge) take(body string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.seen[body]:
		e.doubled++
	case body != strconv.Itoa(e.next) && len(e.wrong) < 10:
		e.wrong = append(e.wrong, fmt.Sprintf("%s came first where %d should have", body, e.next))
		fallthrough
	default:
		e.seen[body] = true
		e.next++
	}
	return len(e.seen) < messages
}

func (e *edge) arrived() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

// finish waits for all messages and checks what has come. doubled is how many may have come twice.
func (e *edge) finish(t *testing.T, kills, doubled int) {
	t.Helper()
	<-e.done
	e.fed.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if lost := messages - len(e.seen); lost > 0 {
		t.Errorf("%d of %d messages are lost", lost, messages)
	}
	for _, w := range e.wrong {
		t.Error(w)
	}
	if e.doubled > doubled {
		t.Errorf("%d messages came twice in %d kills, not more than %d may", e.doubled, kills, doubled)
	}
	t.Logf("%d messages, %d kills, 0 out of order, %d doubled", len(e.seen), kills, e.doubled)
}

func directions(t *testing.T, f func(t *testing.T, from, to side)) {
	for _, from := range []string{"mqtt", "amqp", "jetstream"} {
		for _, to := range []string{"mqtt", "amqp", "jetstream"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				f(t, sides()[from], sides()[to])
			})
		}
	}
}

func TestKilledGatewayLosesNothing(t *testing.T) {
	directions(t, func(t *testing.T, from, to side) {
		e := newEdge(t, from, to, false)
		kills := 0
		for alive := true; alive; {
			// The time counts from the moment in which messages flow: a machine that is busy and slow to start a gateway
			// must not keep it from ever carrying anything.
			before := e.arrived()
			for e.arrived() == before && before < messages && e.ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			select {
			case <-e.done:
				alive = false
			case <-time.After(150*time.Millisecond + time.Duration(rand.N(int64(500*time.Millisecond)))):
				e.gateway.Kill()
				kills++
				e.gateway.Start()
			}
		}
		if kills < 5 {
			t.Errorf("only %d kills: the test shows nothing", kills)
		}
		e.finish(t, kills, kills*window)
	})
}

func TestKilledPluginLosesNothing(t *testing.T) {
	directions(t, func(t *testing.T, from, to side) {
		e := newEdge(t, from, to, false)
		// Each plugin four times: one more, and it counts as crashing for ever and rests.
		const rounds = 4
		kills := 0
		for round := 1; round <= rounds; round++ {
			for e.arrived() < round*messages/(rounds+1) && e.ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			for _, p := range e.gateway.Await("all plugins to be ready", ready).Plugins {
				if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
					t.Errorf("plugin %s: %v", p.Name, err)
				}
				kills++
			}
		}
		e.finish(t, kills, kills*window)
	})
}

func ready(s admin.Status) bool {
	for _, p := range s.Plugins {
		if !p.Up {
			return false
		}
	}
	return len(s.Plugins) > 0
}

func TestRestartedBrokerLosesNothing(t *testing.T) {
	directions(t, func(t *testing.T, from, to side) {
		e := newEdge(t, from, to, true)
		for i, b := range []*brokers.Broker{e.source, e.sink} {
			for e.arrived() < (i+1)*messages/3 && e.ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			b.Restart()
		}
		// The edge, the one who feeds it and the one who collects from it each begin anew somewhere.
		e.finish(t, 2, 2*(window+burst)+from.unread())
	})
}
