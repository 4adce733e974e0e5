package transporttest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeepsTheContract(t *testing.T) {
	Run(t, NewMemory().Target())
}

func TestMemoryKeepsTheContractWithLessAndMore(t *testing.T) {
	options := func(src, sink string, has func(*Capabilities)) func(Target) Target {
		return func(target Target) Target {
			pair := target.Pair
			target.Pair = func(t testing.TB) (transport.Source, transport.Sink) {
				in, out := pair(t)
				in.Options, out.Options = json.RawMessage(src), json.RawMessage(sink)
				return in, out
			}
			has(&target.Has)
			return target
		}
	}
	for name, change := range map[string]func(Target) Target{
		"without acks":     options(`{"acks": false}`, `{}`, func(c *Capabilities) { c.Acks = false }),
		"without confirms": options(`{}`, `{"confirms": false}`, func(c *Capabilities) { c.Confirms = false }),
		"with deduplication": options(`{}`, `{"deduplicate": true}`, func(c *Capabilities) {
			c.Deduplicates = true
		}),
		"with queues": options(`{"queue": true}`, `{"queue": true}`, func(c *Capabilities) {
			c.RemoveForgets, c.Retains = false, false
		}),
	} {
		t.Run(name, func(t *testing.T) { Run(t, change(NewMemory().Target())) })
	}
}

func TestConsumersOfAQueueShareItsMessages(t *testing.T) {
	m := NewMemory()
	conn, err := m.Driver().Connect(t.Context(), transport.ConnectRequest{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	var subs []transport.Subscription
	for range 2 {
		sub, err := conn.Subscribe(t.Context(), transport.Source{Name: "s", Address: "queue/q", Window: transport.Credit{Messages: 5, Bytes: 100}})
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.Grant(transport.Credit{Messages: 5, Bytes: 100}); err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	m.Send("queue/q", messages(1, 20)...)
	for i, sub := range subs {
		ds, err := sub.Receive(t.Context())
		if err != nil || len(ds) != 5 {
			t.Errorf("consumer %d: %d deliveries, %v; want the 5 of its window", i, len(ds), err)
		}
	}
	if out, held := m.Unsettled("queue/q"), m.Held("queue/q"); out != 10 || held != 20 {
		t.Errorf("%d unsettled, %d held; want 10 and 20", out, held)
	}
	m.KillConnections("over")
	if out, held := m.Unsettled("queue/q"), m.Held("queue/q"); out != 0 || held != 20 {
		t.Errorf("%d unsettled, %d held after the connection is gone; want 0 and 20", out, held)
	}
}

func TestStalledBrokerConfirmsWhenItGoesOn(t *testing.T) {
	m := NewMemory()
	conn, err := m.Driver().Connect(t.Context(), transport.ConnectRequest{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := conn.Publish(t.Context(), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	m.Stall()
	if err := pub.Publish(t.Context(), messages(1, 3)); err != nil {
		t.Fatal(err)
	}
	if msgs, err := m.AwaitPublished(t.Context(), "a", 3); err != nil || len(msgs) != 3 {
		t.Fatalf("%d messages published, %v", len(msgs), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if cs, err := pub.Confirms(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("confirms while the broker is stalled: %v, %v", cs, err)
	}
	m.ConfirmAfter(time.Millisecond)
	m.Resume()
	if err := pub.Publish(t.Context(), messages(4, 5)); err != nil {
		t.Fatal(err)
	}
	for confirmed := uint64(0); confirmed < 5; {
		cs, err := pub.Confirms(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		confirmed = cs[len(cs)-1].Last
	}
}

func TestFiltersMatchAsTheirBrokersHaveIt(t *testing.T) {
	for _, tt := range []struct {
		filter, address, sep, one string
		want                      bool
	}{
		{"a/b", "a/b", "/", "+", true},
		{"a/b", "a/c", "/", "+", false},
		{"a/+", "a/b", "/", "+", true},
		{"a/+", "a/b/c", "/", "+", false},
		{"a/+", "a", "/", "+", false},
		{"a/#", "a", "/", "+", true},
		{"a/#", "a/b/c", "/", "+", true},
		{"#", "a/b", "/", "+", true},
		{"a.#.z", "a.z", ".", "*", true},
		{"a.#.z", "a.b.c.z", ".", "*", true},
		{"a.*.z", "a.z", ".", "*", false},
		{"*.#", "", ".", "*", true},
	} {
		if got := matches(tt.filter, tt.address, tt.sep, tt.one); got != tt.want {
			t.Errorf("%q matches %q: %t; want %t", tt.filter, tt.address, got, tt.want)
		}
	}
}
