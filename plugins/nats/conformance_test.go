package nats

import (
	"context"
	"encoding/json"
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

const maxPayload = 1 << 20 // of a nats-server that is not told otherwise

// target is the driver on a real server behind a proxy. pair returns a fresh place.
func target(t *testing.T, pair func(t testing.TB) (transport.Source, transport.Sink)) transporttest.Target {
	b := server(t)
	proxy := brokers.NewProxy(t, b.Addr())
	return transporttest.Target{
		New: func(t testing.TB) transport.Driver {
			d, _ := testDriver(t)
			return d
		},
		Config: func(t testing.TB) json.RawMessage {
			return obj(t, map[string]any{"url": "nats://" + proxy.Addr()})
		},
		Pair:     pair,
		MaxBody:  maxPayload - 4096, // headers count
		TooLarge: maxPayload + 1,
		Cut:      func(testing.TB) { proxy.Cut() },
		Blackhole: func(testing.TB) func() {
			proxy.Blackhole(brokers.Both)
			return func() {
				proxy.Cut()
				proxy.Restore()
			}
		},
		Restart: func(testing.TB) {
			b.Kill()
			b.Start()
		},
		Refused: func(t testing.TB) (transport.Source, transport.Sink, transport.Message, transport.Message) {
			src, sink := pair(t)
			return src, sink, transport.Message{Body: []byte("good")}, transport.Message{Body: make([]byte, maxPayload+1)}
		},
		Foreign: func(stack string) bool { return strings.Contains(stack, "/test/brokers.") },
		Lacks: map[string]string{
			"Block": "a server has no word for it",
			"Place": "no topology: a stream is made with create_stream",
		},
	}
}

const carried = transporttest.AllFields &^ (transporttest.FieldTTL | transporttest.FieldHeaderOrder |
	transporttest.FieldDurable | transporttest.FieldRedelivered | transporttest.FieldAttempt | transporttest.FieldSourceID)

func coreTarget(t *testing.T) transporttest.Target {
	g := target(t, func(testing.TB) (transport.Source, transport.Sink) {
		subject := unique("core.")
		return transport.Source{Address: subject}, transport.Sink{Address: subject}
	})
	g.Carries = carried
	g.Filtered = func(testing.TB) (transport.Source, transport.Sink, []string, []string) {
		s := unique("core.")
		return transport.Source{Address: s + ".*.x.>"}, transport.Sink{}, []string{s + ".a.x.b", s + ".b.x.c.d"}, []string{s + ".a.x", s + ".a.y.b"}
	}
	g.Odd = func(testing.TB) []transporttest.Pair {
		return []transporttest.Pair{odd(unique("käse/+#$.")), odd(unique("a") + long(200))}
	}
	return g
}

func odd(subject string) transporttest.Pair {
	return transporttest.Pair{Source: transport.Source{Address: subject}, Sink: transport.Sink{Address: subject}}
}

func long(parts int) string {
	s := ""
	for range parts {
		s += ".part"
	}
	return s
}

func streamTarget(t *testing.T) transporttest.Target {
	options := func(t testing.TB, subject string) (name string, raw json.RawMessage) {
		name = unique("S")
		return name, obj(t, map[string]any{"stream": name, "create_stream": map[string]any{"subjects": []string{subject}}})
	}
	pair := func(t testing.TB, subject string) transporttest.Pair {
		name, opts := options(t, subject)
		p := odd(subject)
		p.Source.Options = opts
		p.Sink.Options = obj(t, map[string]any{"stream": name, "create_stream": map[string]any{}})
		return p
	}
	g := target(t, func(t testing.TB) (transport.Source, transport.Sink) {
		p := pair(t, unique("stream."))
		return p.Source, p.Sink
	})
	g.Has = transporttest.Capabilities{Acks: true, Confirms: true, Deduplicates: true, Durable: true, ReleaseAtOnce: true}
	// What comes out of a stream is durable, and a consumer that is put back counts anew.
	g.Carries = transporttest.AllFields &^ (transporttest.FieldHeaderOrder | transporttest.FieldDurable | transporttest.FieldAttempt)
	g.Filtered = func(t testing.TB) (transport.Source, transport.Sink, []string, []string) {
		s := unique("stream.")
		_, opts := options(t, s+".>")
		return transport.Source{Address: s + ".*.x.>", Options: opts}, transport.Sink{Options: opts},
			[]string{s + ".a.x.b", s + ".b.x.c.d"}, []string{s + ".a.x", s + ".a.y.b"}
	}
	g.Odd = func(t testing.TB) []transporttest.Pair {
		return []transporttest.Pair{pair(t, unique("käse/+#$.")), pair(t, unique("a")+long(30))}
	}
	return g
}

func TestCoreKeepsTheContract(t *testing.T)   { transporttest.Run(t, coreTarget(t)) }
func TestStreamKeepsTheContract(t *testing.T) { transporttest.Run(t, streamTarget(t)) }

func TestCoreKeepsTheContractOverTheWire(t *testing.T) {
	transporttest.Run(t, overTheWire(t, coreTarget(t)))
}

func TestStreamKeepsTheContractOverTheWire(t *testing.T) {
	transporttest.Run(t, overTheWire(t, streamTarget(t)))
}

// overTheWire puts gRPC between the suite and the driver.
func overTheWire(t *testing.T, g transporttest.Target) transporttest.Target {
	d, _ := testDriver(t)
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, d)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
	cc, err := grpc.NewClient("passthrough:///plugin", append(wire.DialOptions(),
		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := half.Wait(ctx); err != nil {
			t.Error(err)
		}
	})
	driver := wire.NewDriver(cc)
	// The connection opens itself with the first call: its goroutines belong to no case.
	if _, err := driver.Describe(testContext(t)); err != nil {
		t.Fatal(err)
	}
	g.New = func(testing.TB) transport.Driver { return driver }
	return g
}
