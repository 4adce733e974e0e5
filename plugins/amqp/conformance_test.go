package amqp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/core/wire"
	"github.com/flogate/flogate/test/brokers"
)

// carried is what survives from queue to queue.
const carried = transporttest.AllFields &^ (transporttest.FieldHeaderOrder | transporttest.FieldAttempt | transporttest.FieldSourceID)

// target is the suite's view of a broker: every connection goes through a proxy.
func target(t *testing.T, broker *brokers.Broker, pair func() (transport.Source, transport.Sink)) transporttest.Target {
	t.Helper()
	proxy := brokers.NewProxy(t, broker.Addr())
	return transporttest.Target{
		New: func(testing.TB) transport.Driver { return New(slog.New(slog.DiscardHandler)) },
		Config: func(testing.TB) json.RawMessage {
			return fmt.Appendf(nil, `{"url":%q}`, proxy.Through(broker.URL()))
		},
		Pair:     func(testing.TB) (transport.Source, transport.Sink) { return pair() },
		Has:      transporttest.Capabilities{Acks: true, Confirms: true, Durable: true, ReleaseAtOnce: true},
		Carries:  carried,
		TooLarge: defaultMaxMessage + 1,
		Cut:      func(testing.TB) { proxy.Cut() },
		Blackhole: func(testing.TB) func() {
			proxy.Blackhole(brokers.Both)
			return func() {
				proxy.Cut()
				proxy.Restore()
			}
		},
		Refused: func(testing.TB) (src transport.Source, sink transport.Sink, good, bad transport.Message) {
			queue := "conformance-" + rand.Text()
			good = transport.Message{Body: []byte("good"), Address: queue}
			bad = transport.Message{Body: []byte("bad"), Address: queue + "-nowhere"}
			return transport.Source{Address: queue, Options: json.RawMessage(`{"kind":"queue","declare":true}`)}, transport.Sink{}, good, bad
		},
		Odd: func(testing.TB) []transporttest.Pair {
			var ps []transporttest.Pair
			for _, odd := range []string{" spaces and ünïcødé ☃ ", "/a/#/+", "\x01\"'", strings.Repeat("x", maxShort)} {
				address := (rand.Text() + odd)[:min(maxShort, 26+len(odd))]
				ps = append(ps, transporttest.Pair{
					Source: transport.Source{Address: address, Options: json.RawMessage(`{"kind":"queue","declare":true}`)},
					Sink:   transport.Sink{Address: address},
				})
			}
			return ps
		},
		Place: func(_ testing.TB, kind transport.PlaceKind) (transport.Place, transport.Source, transport.Sink) {
			place := transport.Place{Kind: kind, Address: "conformance-" + rand.Text()}
			src, sink := transport.Source{Address: place.Address}, transport.Sink{Address: place.Address}
			if kind != transport.Queue {
				sink.Options = json.RawMessage(`{"kind":"exchange"}`)
			}
			return place, src, sink
		},
		Lacks: map[string]string{
			"Filtered": "a queue's address is its name",
			"Block":    "it would block everybody's broker",
			"Restart":  "it would take everybody's broker away",
		},
	}
}

// queuePair is a queue at both ends.
func queuePair() (transport.Source, transport.Sink) {
	queue := "conformance-" + rand.Text()
	return transport.Source{Address: queue, Options: json.RawMessage(`{"kind":"queue","declare":true}`)},
		transport.Sink{Address: queue, Options: json.RawMessage(`{"persistent":false}`)}
}

// exchangePair is an exchange at both ends, with a queue of the subscription's own.
func exchangePair() (transport.Source, transport.Sink) {
	exchange := "conformance-" + rand.Text()
	return transport.Source{Address: exchange, Options: json.RawMessage(`{"declare":true,"exchange_type":"topic"}`)},
		transport.Sink{Address: exchange, Options: json.RawMessage(`{"kind":"exchange","exchange_type":"topic","persistent":false}`)}
}

func TestQueuesKeepTheContract(t *testing.T) {
	broker := brokers.OwnRabbitMQ(t)
	g := target(t, broker, queuePair)
	g.Restart = func(testing.TB) { broker.Restart() }
	g.Block = func(testing.TB) func() {
		broker.Ctl("set_vm_memory_high_watermark", "absolute", "1MB")
		return func() { broker.Ctl("set_vm_memory_high_watermark", "0.4") }
	}
	delete(g.Lacks, "Restart")
	delete(g.Lacks, "Block")
	g.Foreign = func(stack string) bool { return strings.Contains(stack, "test/brokers.") } // waits for the restarted broker
	transporttest.Run(t, g)
}

func TestExchangesKeepTheContract(t *testing.T) {
	g := target(t, brokers.RabbitMQ(t), exchangePair)
	g.Has.RemoveForgets = true
	transporttest.Run(t, g)
}

func TestQueuesKeepTheContractOverTheWire(t *testing.T) {
	g := target(t, brokers.RabbitMQ(t), queuePair)
	d := overTheWire(t, g.New(t))
	g.New = func(testing.TB) transport.Driver { return d }
	transporttest.Run(t, g)
}

// overTheWire puts both halves of the wire between the suite and the driver.
func overTheWire(t *testing.T, d transport.Driver) transport.Driver {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, d)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	cc, err := grpc.NewClient("unix:"+path, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
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
	remote := wire.NewDriver(cc)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := remote.Health(ctx); err != nil { // connects, so that no case sees that start
		t.Fatal(err)
	}
	return remote
}
