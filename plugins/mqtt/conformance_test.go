package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/core/wire"
	"github.com/flogate/flogate/test/brokers"
)

func TestQoS0OnMosquittoKeepsTheContract(t *testing.T) {
	g := mosquitto(t, `{"qos":0}`)
	g.Has = transporttest.Capabilities{Retains: true}
	transporttest.Run(t, g)
}

func TestQoS1OnMosquittoKeepsTheContract(t *testing.T) { transporttest.Run(t, mosquitto(t, `{}`)) }

func TestQoS2OnMosquittoKeepsTheContract(t *testing.T) {
	transporttest.Run(t, mosquitto(t, `{"qos":2}`))
}

func TestQoS1OnMosquittoKeepsTheContractOverTheWire(t *testing.T) {
	g := mosquitto(t, `{}`)
	driver := overWire(t, g.New(t))
	g.New = func(testing.TB) transport.Driver { return driver }
	g.TooLarge = wire.MaxBody + 1
	transporttest.Run(t, g)
}

func TestQoS1OnNATSKeepsTheContract(t *testing.T) {
	b, url := natsMQTT(t)
	g := target(t, url, ports(`{}`))
	g.MaxBody = 1 << 19 // its max_payload is 1 MiB
	g.Odd = ports(`{}`).odd("/Ünïcødé☃/{}\"\\", "/"+strings.Repeat("long", 100))
	g.Filtered = ports(`{}`).filtered("/+/x", []string{"/a/x", "/b/x"}, []string{"/a/y", "/x", ""})
	// What was out when a session ended comes again only when ack_wait is over, and after newer messages: see
	// TestNATSDeliversAgainAfterAckWait. The cases that want the order kept over that are left out.
	g.Has.Durable, g.Has.RemoveForgets = false, false
	g.Lacks["Restart"] = "nats-server does not keep the order when a session is resumed"
	_ = b
	transporttest.Run(t, g)
}

// mosquitto returns the suite's view of a mosquitto of its own.
func mosquitto(t *testing.T, options string) transporttest.Target {
	t.Helper()
	m := startMosquitto(t)
	g := target(t, m.URL(), ports(options))
	g.Restart = func(testing.TB) { m.Restart() }
	return g
}

// startMosquitto starts a mosquitto that saves everything when it is ended with SIGTERM. Killed, it would have nothing of
// what came for a client that was connected, whatever is set: that counts as no change. Saving after each of the other
// changes would only make it slow, and silent for seconds where the disk is.
func startMosquitto(t *testing.T, opts ...brokers.Option) *brokers.Broker {
	t.Helper()
	return brokers.Mosquitto(t, append(opts, brokers.Config("autosave_on_changes false"))...)
}

// natsMQTT starts a nats-server with an MQTT listener and returns that one's URL.
func natsMQTT(t *testing.T) (b *brokers.Broker, url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return brokers.NATS(t, brokers.Config(fmt.Sprintf("mqtt { listen: %q, ack_wait: \"2s\" }", addr))), "mqtt://" + addr
}

// target returns the suite's view of a broker that is reached through a proxy.
func target(t *testing.T, url string, p ports) transporttest.Target {
	t.Helper()
	proxy := brokers.NewProxy(t, strings.TrimPrefix(url, "mqtt://"))
	return transporttest.Target{
		New:      func(testing.TB) transport.Driver { return New(slog.New(slog.DiscardHandler)) },
		Config:   func(testing.TB) json.RawMessage { return configure("url", proxy.Through(url)) },
		Pair:     func(testing.TB) (transport.Source, transport.Sink) { return p.pair(freshTopic()) },
		Has:      transporttest.Capabilities{Acks: true, Confirms: true, Durable: true, RemoveForgets: true, Retains: true},
		Carries:  transporttest.FieldRedelivered,
		TooLarge: defaultMaxMessage + 1,
		Cut:      func(testing.TB) { proxy.Cut() },
		Blackhole: func(testing.TB) func() {
			proxy.Blackhole(brokers.Both)
			return func() {
				proxy.Cut()
				proxy.Restore()
			}
		},
		Refused: func(testing.TB) (transport.Source, transport.Sink, transport.Message, transport.Message) {
			src, sink := p.pair(freshTopic())
			good := transport.Message{Body: []byte("good"), Address: sink.Address}
			bad := transport.Message{Body: []byte("bad"), Address: sink.Address + "/+"}
			sink.Address = ""
			return src, sink, good, bad
		},
		Filtered: p.filtered("/+/x/#", []string{"/a/x", "/b/x/y/z", "//x/"}, []string{"/a/y", "/x", ""}),
		Odd:      p.odd("/", "/Ünïcødé ☃/ spaces /", "//", "/$dollar/{}\"\\", "/"+strings.Repeat("long", 1000)),
		// A broker that is started again in the middle of a case is no goroutine of the driver's.
		Foreign: func(stack string) bool { return strings.Contains(stack, "/test/brokers.") },
		Lacks: map[string]string{
			"Block": "MQTT has no word for it",
			"Place": "MQTT has no places that could be made",
		},
	}
}

// ports are the options of sources and sinks, in JSON.
type ports string

func freshTopic() string { return "conformance/" + rand.Text() }

func (p ports) pair(topic string) (transport.Source, transport.Sink) {
	return transport.Source{Address: topic, Options: json.RawMessage(p)}, transport.Sink{Address: topic, Options: json.RawMessage(p)}
}

func (p ports) odd(endings ...string) func(testing.TB) []transporttest.Pair {
	return func(testing.TB) []transporttest.Pair {
		var ps []transporttest.Pair
		for _, e := range endings {
			src, sink := p.pair(freshTopic() + e)
			ps = append(ps, transporttest.Pair{Source: src, Sink: sink})
		}
		return ps
	}
}

func (p ports) filtered(filter string, match, other []string) func(testing.TB) (transport.Source, transport.Sink, []string, []string) {
	under := func(base string, endings []string) (topics []string) {
		for _, e := range endings {
			topics = append(topics, base+e)
		}
		return topics
	}
	return func(testing.TB) (transport.Source, transport.Sink, []string, []string) {
		base := freshTopic()
		src, sink := p.pair(base + filter)
		sink.Address = ""
		return src, sink, under(base, match), under(base, other)
	}
}

// configure returns a broker block's body of names and values in turn.
func configure(pairs ...any) json.RawMessage {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // a mistake of the test
	}
	return data
}

// overWire returns a driver that reaches d as in a plugin of its own.
func overWire(t *testing.T, d transport.Driver) transport.Driver {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, d)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///plugin", append(wire.DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	driver := wire.NewDriver(cc)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := driver.Health(ctx); err != nil { // so that the connection is there before anybody counts goroutines
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := half.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
	return driver
}
