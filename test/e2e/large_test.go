package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// A graph of the size of a hackerspace's: 64 nodes and 105 edges; 41 of the nodes are foreign participants, which have files,
// and the others announce themselves.
const (
	largeNodes, largeEdges, largeForeign = 64, 105, 41
	largePorts                           = 3 // of each side of a node
)

// link is an edge of the large graph.
type link struct{ from, out, to, in int }

func (l link) String() string {
	return fmt.Sprintf("n%d.out%d -> n%d.in%d", l.from, l.out, l.to, l.in)
}

// large returns the edges, none twice, from lower to higher numbers: it has no circles. Every node has an edge.
func large() []link {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[link]bool{}
	var links []link
	for len(links) < largeEdges {
		l := link{r.IntN(largeNodes - 1), r.IntN(largePorts), 0, r.IntN(largePorts)}
		if len(links) < largeNodes-1 {
			l.from = len(links)
		}
		l.to = l.from + 1 + r.IntN(largeNodes-1-l.from)
		if !seen[l] {
			seen[l] = true
			links = append(links, l)
		}
	}
	return links
}

// TestLargeGraphStartsThoughHalfIsAbsent starts a gateway on the large graph. The log says how long that takes: docs/performance.md
// has it, and here it may take a minute, because a test must not fail where others use the machine too.
func TestLargeGraphStartsThoughHalfIsAbsent(t *testing.T) {
	absent := map[string]func(node int) bool{
		"half absent":   func(node int) bool { return node%2 == 1 },
		"foreign only":  func(node int) bool { return node >= largeForeign },
		"nobody absent": func(int) bool { return false },
	}
	for _, transport := range []string{"mqtt", "amqp"} {
		for name, gone := range absent {
			t.Run(transport+"/"+name, func(t *testing.T) { startLarge(t, transport, gone) })
		}
	}
}

func startLarge(t *testing.T, transport string, absent func(node int) bool) {
	var b *brokers.Broker
	if transport == "mqtt" {
		b = brokers.Mosquitto(t)
	} else {
		b = brokers.RabbitMQ(t)
	}
	links := large()
	var hcl, text strings.Builder
	fmt.Fprintf(&hcl, "site \"large\" {}\nbroker %q \"house\" {\n  url = %q\n}\n", transport, b.URL())
	files := map[string]string{}
	var announced []string
	for i := range largeNodes {
		fmt.Fprintf(&text, "n%d(station/Part%d)\n", i, i)
		switch {
		case absent(i):
		case i < largeForeign:
			files[fmt.Sprintf("n%d.yml", i)] = foreign(i)
			fmt.Fprintf(&hcl, "participant \"n%d\" {\n  file = \"n%d.yml\"\n}\n", i, i)
		default:
			announced = append(announced, announcement(t, i))
		}
	}
	for _, l := range links {
		fmt.Fprintf(&text, "n%d OUT%d -> IN%d n%d\n", l.from, l.out, l.in, l.to)
	}
	fmt.Fprintf(&hcl, "graph \"main\" {\n  text = <<EOT\n%sEOT\n}\n", &text)

	g := gateway.New(t, hcl.String())
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(filepath.Dir(g.Site()), name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gateway.Program(t)
	if transport == "amqp" {
		makeExchanges(t, b.URL(), absent)
	}
	stop := announce(t, b.URL(), announced)
	defer stop()
	begin := time.Now()
	g.Start()
	flowing := 0
	g.Await("all edges that can to flow, and the others to be pending", func(s admin.Status) bool {
		states := map[string]string{}
		for _, e := range s.Edges {
			states[e.ID] = e.State
		}
		flowing = 0
		for _, l := range links {
			want := "flowing"
			if absent(l.from) || absent(l.to) {
				want = "pending"
			} else {
				flowing++
			}
			if states[l.String()] != want {
				return false
			}
		}
		return len(states) == largeEdges
	})
	t.Logf("%d of %d edges flow after %d ms", flowing, largeEdges, time.Since(begin).Milliseconds())
	g.Stop()
}

// foreign is the file of a foreign participant.
func foreign(node int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "component: station/Part%d\nlabel: Part %d of the station\n", node, node)
	for _, side := range []string{"in", "out"} {
		fmt.Fprintf(&b, "%sports:\n", side)
		for p := range largePorts {
			fmt.Fprintf(&b, "  %s%d:\n    queue: '#ROLE.%s%d'\n    type: string\n", side, p, strings.ToUpper(side), p)
		}
	}
	return b.String()
}

// announcement is what a participant says of itself.
func announcement(t *testing.T, node int) string {
	t.Helper()
	def := discovery.Definition{
		ID: fmt.Sprintf("n%d-1", node), Role: fmt.Sprintf("n%d", node), Component: fmt.Sprintf("station/Part%d", node),
	}
	for p := range largePorts {
		def.Inports = append(def.Inports, discovery.Port{ID: fmt.Sprintf("in%d", p), Type: "string", Queue: fmt.Sprintf("n%d.IN%d", node, p)})
		def.Outports = append(def.Outports, discovery.Port{ID: fmt.Sprintf("out%d", p), Type: "string", Queue: fmt.Sprintf("n%d.OUT%d", node, p)})
	}
	body, err := def.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// makeExchanges makes the outports of those who are there, as participants do before they announce themselves.
func makeExchanges(t *testing.T, url string, absent func(node int) bool) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for i := range largeNodes {
		for p := range largePorts {
			if absent(i) {
				continue
			}
			if err := ch.ExchangeDeclare(fmt.Sprintf("n%d.OUT%d", i, p), amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// announce publishes announcements ten times a second, so that nobody who starts has to wait for them for half a minute.
func announce(t *testing.T, url string, bodies []string) (stop func()) {
	t.Helper()
	publish := func(string) {}
	if strings.HasPrefix(url, "mqtt") {
		c, err := mqttSide{}.connect(url, "participants", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Disconnect(0) })
		publish = func(body string) { c.Publish("fbp", 0, false, body) }
	} else {
		conn, err := amqp.Dial(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ch, err := conn.Channel()
		if err == nil {
			_, err = ch.QueueDeclare("fbp", true, false, false, false, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		publish = func(body string) {
			_ = ch.PublishWithContext(context.Background(), "", "fbp", false, false, amqp.Publishing{Body: []byte(body)}) // again soon
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, body := range bodies {
				publish(body)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
