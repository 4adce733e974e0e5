package nats

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// A receiver that is too slow loses messages, the connection lives, and somebody is told how many.
func TestCoreDropIsCounted(t *testing.T) {
	b := server(t, brokers.Volatile())
	nc, _ := peer(t, b.URL())
	d, log := testDriver(t)
	c := connectWith(t, d, "site/bus", map[string]any{"url": b.URL()})
	src := source("in", "s", 10, nil)
	s, err := c.Subscribe(testContext(t), src) // no credit
	if err != nil {
		t.Fatal(err)
	}
	const extra = 1000
	for i := 1; i <= coreMaxMessages+extra; i++ {
		if err := nc.Publish("s", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	sub := s.(*coreSubscription)
	eventually(t, "all that is too much was counted", func() bool {
		return sub.dropped.Load() == extra
	})
	if n := strings.Count(log.String(), "messages dropped"); n != 1 {
		t.Errorf("the log tells of it %d times; want once", n)
	}
	if err := s.Grant(transport.Credit{Messages: 3, Bytes: 1000}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(numbers(1, 3), bodies(receive(t, s, 3))); diff != "" {
		t.Error(diff)
	}
}

// Members of a queue group share the messages.
func TestQueueGroupShares(t *testing.T) {
	b := server(t, brokers.Volatile())
	nc, _ := peer(t, b.URL())
	c := connect(t, b.URL(), "site/bus")
	opts := obj(t, map[string]any{"queue": "workers"})
	one := subscribe(t, c, source("one", "s", 1000, opts))
	two := subscribe(t, c, source("two", "s", 1000, opts))
	for i := range 100 {
		if err := nc.Publish("s", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	a, z := one.(*coreSubscription), two.(*coreSubscription)
	eventually(t, "100 messages are in both inboxes together", func() bool {
		return a.inbox.Waiting().Messages+z.inbox.Waiting().Messages == 100
	})
	if n := a.inbox.Waiting().Messages; n == 0 || n == 100 {
		t.Errorf("one of two members has %d of 100 messages", n)
	}
}

// A request's reply subject is the reply address, in both directions.
func TestCoreReplyIsTheReplyAddress(t *testing.T) {
	b := server(t, brokers.Volatile())
	nc, _ := peer(t, b.URL())
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 10, nil))
	if err := nc.PublishRequest("s", "answers.here", nil); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, s, 1)[0].ReplyTo; got != "answers.here" {
		t.Errorf("reply address is %q", got)
	}
	theirs, err := nc.SubscribeSync("t")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	p := publisher(t, c, transport.Sink{Name: "out", Address: "t"})
	publishAll(t, p, transport.Message{ReplyTo: "answers.there"}, transport.Message{ReplyTo: "not a subject"})
	for i, want := range []string{"answers.there", ""} {
		msg, err := theirs.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if msg.Reply != want {
			t.Errorf("message %d has the reply subject %q; want %q", i, msg.Reply, want)
		}
	}
}

// One batch may be larger than the window.
func TestCoreBatchLargerThanTheWindowPasses(t *testing.T) {
	b := server(t, brokers.Volatile())
	c := connect(t, b.URL(), "site/bus")
	p := publisher(t, c, transport.Sink{Name: "out", Address: "s", Options: obj(t, map[string]any{"window": 8})})
	done := make(chan []transport.Confirm, 1)
	go func() { done <- confirms(t, p, 100) }()
	if err := p.Publish(testContext(t), make([]transport.Message, 100)); err != nil {
		t.Fatal(err)
	}
	if cs := <-done; cs[len(cs)-1].Last != 100 {
		t.Errorf("confirms end with %v", cs[len(cs)-1])
	}
}

// A connection that is lost while a write is stuck is noticed as fast as any other.
func TestLossIsNoticedWhilePublishing(t *testing.T) {
	b := server(t, brokers.Volatile())
	c := connect(t, b.URL(), "site/bus")
	p := publisher(t, c, transport.Sink{Name: "out", Address: "s", Options: obj(t, map[string]any{"window": 65536})})
	publishAll(t, p, transport.Message{})
	b.Freeze()
	defer b.Thaw()
	start := time.Now()
	body := make([]byte, 100_000)
	var err error
	for err == nil && time.Since(start) < 10*time.Second {
		err = p.Publish(testContext(t), []transport.Message{{Body: body}})
	}
	if !errors.Is(err, transport.ErrClosed) {
		t.Errorf("publish: %v; want that the connection has ended", err)
	}
	if _, err := c.Next(testContext(t)); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("next: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A server that says no is heard, and only those whom it concerns have to bear it.
func TestForbiddenSubjectIsRefused(t *testing.T) {
	b := server(t, brokers.Volatile(), brokers.Config(
		`authorization { users: [ { user: u, password: p, permissions: { publish: { deny: ["no.>"] }, subscribe: { deny: ["no.>"] } } } ] }`))
	d, _ := testDriver(t)
	c := connectWith(t, d, "site/bus", map[string]any{"url": b.URL(), "username": "u", "password": "p"})
	if _, err := c.Subscribe(testContext(t), source("in", "no.way", 1, nil)); !transport.IsPermanent(err) || !strings.Contains(err.Error(), "no.way") {
		t.Errorf("subscribe: %v; want a permanent error with the subject", err)
	}
	p := publisher(t, c, transport.Sink{Name: "out", Address: "no.where"})
	// The server's word on the first message may come after its answer to the flush.
	eventually(t, "a message is refused", func() bool {
		if err := p.Publish(testContext(t), []transport.Message{{}}); err != nil {
			t.Fatal(err)
		}
		cs, err := p.Confirms(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		return cs[0].Refused != nil
	})
	good := publisher(t, c, transport.Sink{Name: "good", Address: "yes"})
	if cs := publishAll(t, good, transport.Message{}); cs[0].Refused != nil {
		t.Error(cs[0].Refused)
	}
}

// Where each message goes to its own subject, only those are refused whose subject is forbidden.
func TestForbiddenSubjectOfOneMessageIsRefused(t *testing.T) {
	b := server(t, brokers.Volatile(), brokers.Config(
		`authorization { users: [ { user: u, password: p, permissions: { publish: { deny: ["no.>"] } } } ] }`))
	d, _ := testDriver(t)
	c := connectWith(t, d, "site/bus", map[string]any{"url": b.URL(), "username": "u", "password": "p"})
	p := publisher(t, c, transport.Sink{Name: "out"})
	n := uint64(0)
	eventually(t, "a message is refused", func() bool {
		if err := p.Publish(testContext(t), []transport.Message{{Address: "yes"}, {Address: "no.where"}}); err != nil {
			t.Fatal(err)
		}
		n += 2
		refused := false
		for last := n - 2; last < n; {
			cs, err := p.Confirms(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cs {
				if c.Refused != nil && (c.First != n || !transport.IsPermanent(c.Refused)) {
					t.Fatalf("%v; want message %d alone to be refused", cs, n)
				}
				refused = refused || c.Refused != nil
				last = c.Last
			}
		}
		return refused
	})
}

// Headers as other NATS clients write and read them.
func TestCoreHeadersAreNative(t *testing.T) {
	b := server(t, brokers.Volatile())
	nc, _ := peer(t, b.URL())
	c := connect(t, b.URL(), "site/bus")
	theirs, err := nc.SubscribeSync("t")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publishAll(t, publisher(t, c, transport.Sink{Name: "out", Address: "t"}), transport.Message{
		ID: "m1", ContentType: "text/plain", CorrelationID: "c1",
		Headers: []transport.Header{
			{Name: "a", Value: "1"},
			{Name: "a", Value: "2"},
			{Name: "Nats-Rollup", Value: "all"},
			{Name: "bytes", Value: "\x00", Binary: true},
		},
	})
	msg, err := theirs.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	want := nats.Header{
		"Message-Id": {"m1"}, "Content-Type": {"text/plain"}, "Correlation-Id": {"c1"}, "a": {"1", "2"},
		"Flogate-Header": {"text Nats-Rollup=all", "binary bytes=AA=="},
	}
	if diff := cmp.Diff(want, msg.Header); diff != "" {
		t.Error(diff)
	}
}
