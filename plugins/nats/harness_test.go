package nats

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logBuffer is a log that a test can read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func testDriver(t testing.TB) (transport.Driver, *logBuffer) {
	t.Helper()
	b := &logBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the driver logged:\n%s", b)
		}
	})
	return New(slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))), b
}

func obj(t testing.TB, v map[string]any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// testContext ends before the test binary's own limit would be reached.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t testing.TB, url, name string) transport.Conn {
	t.Helper()
	d, _ := testDriver(t)
	return connectWith(t, d, name, map[string]any{"url": url})
}

func connectWith(t testing.TB, d transport.Driver, name string, cfg map[string]any) transport.Conn {
	t.Helper()
	c, err := d.Connect(testContext(t), transport.ConnectRequest{Name: name, Config: obj(t, cfg)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(t, c) })
	return c
}

func closeNow(t testing.TB, c interface{ Close(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// peer is a plain client of the broker, with its JetStream.
func peer(t testing.TB, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() { nc.Close(); <-closed })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func makeStream(t testing.TB, js jetstream.JetStream, conf jetstream.StreamConfig) {
	t.Helper()
	if _, err := js.CreateStream(testContext(t), conf); err != nil {
		t.Fatal(err)
	}
}

// fill publishes the numbers first to last to a stream.
func fill(t testing.TB, js jetstream.JetStream, subject string, firstN, lastN int) {
	t.Helper()
	for i := firstN; i <= lastN; i++ {
		if _, err := js.Publish(testContext(t), subject, []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
}

func unique(prefix string) string { return prefix + rand.Text()[:8] }

func source(name, address string, window int64, opts json.RawMessage) transport.Source {
	return transport.Source{
		Name: name, Address: address, Options: opts,
		Window: transport.Credit{Messages: window, Bytes: 16 << 20},
	}
}

func subscribe(t testing.TB, c transport.Conn, src transport.Source) transport.Subscription {
	t.Helper()
	s, err := c.Subscribe(testContext(t), src)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant(src.Window); err != nil {
		t.Fatal(err)
	}
	return s
}

// receive returns the next n deliveries.
func receive(t testing.TB, s transport.Subscription, n int) []transport.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []transport.Delivery
	for len(got) < n {
		ds, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("after %d of %d deliveries %v: %v", len(got), n, bodies(got), err)
		}
		got = append(got, ds...)
	}
	return got
}

// nothing fails when a delivery comes within d.
func nothing(t testing.TB, s transport.Subscription, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if ds, err := s.Receive(ctx); err == nil {
		t.Fatalf("unexpected deliveries %v", bodies(ds))
	}
}

func bodies(ds []transport.Delivery) []string {
	var bs []string
	for _, d := range ds {
		bs = append(bs, string(d.Body))
	}
	return bs
}

func numbers(firstN, lastN int) []string {
	var ns []string
	for i := firstN; i <= lastN; i++ {
		ns = append(ns, fmt.Sprint(i))
	}
	return ns
}

func settle(t testing.TB, s transport.Subscription, firstSeq, lastSeq uint64, o transport.Outcome) {
	t.Helper()
	err := s.Settle(testContext(t), []transport.Settlement{{First: firstSeq, Last: lastSeq, Outcome: o}})
	if err != nil {
		t.Fatal(err)
	}
}

func publisher(t testing.TB, c transport.Conn, sink transport.Sink) transport.Publisher {
	t.Helper()
	p, err := c.Publish(testContext(t), sink)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// publishAll publishes and waits for the word on all of it.
func publishAll(t testing.TB, p transport.Publisher, msgs ...transport.Message) []transport.Confirm {
	t.Helper()
	if err := p.Publish(testContext(t), msgs); err != nil {
		t.Fatal(err)
	}
	return confirms(t, p, uint64(len(msgs)))
}

func confirms(t testing.TB, p transport.Publisher, last uint64) []transport.Confirm {
	t.Helper()
	var all []transport.Confirm
	for len(all) == 0 || all[len(all)-1].Last < last {
		cs, err := p.Confirms(testContext(t))
		if err != nil {
			t.Fatalf("after %v: %v", all, err)
		}
		all = append(all, cs...)
	}
	return all
}

// eventually polls until ok, for a few seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func server(t testing.TB, opts ...brokers.Option) *brokers.Broker {
	t.Helper()
	return brokers.NATS(t, opts...)
}
