package mqtt

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/test/brokers"
)

// target returns the suite's view of a broker: all connections go through a proxy. options are a port's, in JSON.
func target(t *testing.T, broker *brokers.Broker, rawURL, options string) transporttest.Target {
	t.Helper()
	addr := strings.TrimPrefix(rawURL, "mqtt://")
	proxy := brokers.NewProxy(t, addr)
	topic := func() string { return "conformance/" + rand.Text() }
	pair := func(topic string) (transport.Source, transport.Sink) {
		return transport.Source{Address: topic, Options: json.RawMessage(options)},
			transport.Sink{Address: topic, Options: json.RawMessage(options)}
	}
	return transporttest.Target{
		New: func(testing.TB) transport.Driver { return New(slog.New(slog.DiscardHandler)) },
		Config: func(testing.TB) json.RawMessage {
			return fmt.Appendf(nil, `{"url":%q}`, proxy.Through(rawURL))
		},
		Pair:     func(testing.TB) (transport.Source, transport.Sink) { return pair(topic()) },
		Has:      transporttest.Capabilities{Acks: true, Confirms: true, Durable: true, Retains: true},
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
		Restart: func(testing.TB) {
			broker.Kill()
			broker.Start()
		},
		Refused: func(testing.TB) (transport.Source, transport.Sink, transport.Message, transport.Message) {
			src, sink := pair(topic())
			good := transport.Message{Body: []byte("good"), Address: sink.Address}
			bad := transport.Message{Body: []byte("bad"), Address: sink.Address + "/+"}
			sink.Address = ""
			return src, sink, good, bad
		},
		Filtered: func(testing.TB) (transport.Source, transport.Sink, []string, []string) {
			base := topic()
			src, sink := pair(base + "/+/x/#")
			sink.Address = ""
			return src, sink, []string{base + "/a/x", base + "/b/x/y/z", base + "//x/"}, []string{base + "/a/y", base + "/x", base}
		},
		Odd: func(testing.TB) []transporttest.Pair {
			var ps []transporttest.Pair
			for _, odd := range []string{"/", "/Ünïcødé ☃/ spaces /", "//", "/$dollar/{}\"\\", "/" + strings.Repeat("long", 1000)} {
				src, sink := pair(topic() + odd)
				ps = append(ps, transporttest.Pair{Source: src, Sink: sink})
			}
			return ps
		},
		// A broker that is started again in the middle of a case is no goroutine of the driver's.
		Foreign: func(stack string) bool { return strings.Contains(stack, "/test/brokers.") },
		Lacks: map[string]string{
			"Block": "MQTT has no word for it",
			"Place": "MQTT has no places that could be made",
		},
	}
}

// mosquitto returns the suite's view of a mosquitto of its own.
func mosquitto(t *testing.T, options string) transporttest.Target {
	t.Helper()
	m := brokers.Mosquitto(t)
	g := target(t, m, m.URL(), options)
	// Killed, it would have nothing of what has come for a client that is connected: that counts as no change to save.
	g.Restart = func(testing.TB) { m.Restart() }
	return g
}

func TestQoS1OnMosquittoKeepsTheContract(t *testing.T) {
	transporttest.Run(t, mosquitto(t, `{}`))
}

func TestQoS2OnMosquittoKeepsTheContract(t *testing.T) {
	transporttest.Run(t, mosquitto(t, `{"qos":2}`))
}

func TestQoS0OnMosquittoKeepsTheContract(t *testing.T) {
	g := mosquitto(t, `{"qos":0}`)
	g.Has = transporttest.Capabilities{Retains: true}
	transporttest.Run(t, g)
}

// natsMQTT starts a nats-server with an MQTT listener and returns its URL.
func natsMQTT(t *testing.T) (*brokers.Broker, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	return brokers.NATS(t, brokers.Config(fmt.Sprintf("mqtt { listen: %q, ack_wait: \"10s\" }", addr))), "mqtt://" + addr
}

func TestQoS1OnNATSKeepsTheContract(t *testing.T) {
	b, url := natsMQTT(t)
	g := target(t, b, url, `{}`)
	g.MaxBody = 1 << 19
	transporttest.Run(t, g)
}
