package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, mem *transporttest.Memory, change func(*broker.Config)) *broker.Broker {
	t.Helper()
	cfg := broker.Config{
		Name:    "memory.test",
		Request: transport.ConnectRequest{Name: "test", Config: json.RawMessage(`{}`)},
		Driver:  func(context.Context) (transport.Driver, error) { return mem.Driver(), nil },
		MinWait: time.Millisecond, MaxWait: 5 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	b := broker.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := mem.Connections(); n != 0 {
			t.Errorf("%d connections are left open", n)
		}
		if s := b.State(); s.Phase != broker.Stopped {
			t.Errorf("a broker that has ended is %s", s.Phase)
		}
		if _, err := b.Conn(context.Background()); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("a broker that has ended gives the error %v", err)
		}
	})
	return b
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestLostConnectionIsReplaced(t *testing.T) {
	mem := transporttest.NewMemory()
	var changes atomic.Int64
	b := start(t, mem, func(c *broker.Config) { c.Changed = func() { changes.Add(1) } })
	first, err := b.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mem.KillConnections("killed by the test")
	await(t, "another connection", func() bool {
		c, err := b.Conn(t.Context())
		return err == nil && c != first
	})
	await(t, "its state", func() bool { s := b.State(); return s.Phase == broker.Connected && s.Connects == 2 })
	if changes.Load() < 3 {
		t.Errorf("%d changes were told of connected, lost, connected", changes.Load())
	}
}

func TestBrokerThatIsAwayIsConnectedWhenItComes(t *testing.T) {
	mem := transporttest.NewMemory()
	mem.RefuseConnections(errors.New("nobody listens there"))
	b := start(t, mem, nil)
	await(t, "the reason", func() bool { return strings.Contains(b.State().Reason, "nobody listens there") })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Conn(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a connection ended with %v", err)
	}
	mem.RefuseConnections(nil)
	if _, err := b.Conn(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPermanentErrorIsTriedAgainToo(t *testing.T) {
	// The password may be wrong on the broker's side, and be mended there.
	mem := transporttest.NewMemory()
	mem.RefuseConnections(transport.Permanent(errors.New("wrong password")))
	b := start(t, mem, nil)
	await(t, "the reason", func() bool { return strings.Contains(b.State().Reason, "wrong password") })
	mem.RefuseConnections(nil)
	if _, err := b.Conn(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAlarmIsVisible(t *testing.T) {
	mem := transporttest.NewMemory()
	b := start(t, mem, nil)
	if _, err := b.Conn(t.Context()); err != nil {
		t.Fatal(err)
	}
	mem.Block("low on memory")
	await(t, "the alarm", func() bool { s := b.State(); return s.Phase == broker.Blocked && s.Reason == "low on memory" })
	mem.Unblock()
	await(t, "its end", func() bool { s := b.State(); return s.Phase == broker.Connected && s.Reason == "" })
}

func TestDriverThatIsNotThereYetIsWaitedFor(t *testing.T) {
	mem := transporttest.NewMemory()
	ready := make(chan struct{})
	b := start(t, mem, func(c *broker.Config) {
		c.ConnectTimeout = time.Nanosecond // must not bound the wait for the driver
		c.Driver = func(ctx context.Context) (transport.Driver, error) {
			select {
			case <-ready:
				return nil, errors.New("the plugin has crashed")
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
	if s := b.State(); s.Phase != broker.Connecting || s.Reason != "" {
		t.Errorf("state %+v", s)
	}
	close(ready)
	await(t, "the reason", func() bool { return b.State().Reason == "the plugin has crashed" })
}
