package nats

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// A message that is worked on for longer than ack_wait is not delivered again, neither one that was handed out nor one
// that waits for credit.
func TestConsumePrefetchNoDuplicate(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	fill(t, js, "s", 1, 20)

	c := connect(t, b.URL(), "site/bus")
	for name, bytes := range map[string]int64{"all are handed out": 1000, "some wait for credit": 1} {
		t.Run(name, func(t *testing.T) {
			src := source(name, "s", 10, obj(t, map[string]any{"stream": "S", "ack_wait": "2s"}))
			src.Window.Bytes = bytes
			s := subscribe(t, c, src)
			var waiting []transport.Delivery
			var got []string
			for i := range 10 {
				if len(waiting) == 0 {
					waiting = receive(t, s, 1)
				}
				d := waiting[0]
				waiting = waiting[1:]
				// The sink's time: once more than twice ack_wait, and ten of them three times. A machine may be busy for half of an
				// ack_wait; for longer the server loses patience, rightly.
				if i == 0 {
					time.Sleep(4500 * time.Millisecond)
				} else {
					time.Sleep(200 * time.Millisecond)
				}
				got = append(got, string(d.Body))
				settle(t, s, d.Seq, d.Seq, transport.Ack)
				if err := s.Grant(transport.Credit{Messages: 1, Bytes: int64(len(d.Body))}); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(numbers(1, 10), got); diff != "" {
				t.Error(diff)
			}
			info := consumerInfo(t, js, "S", consumerName("site/bus", name))
			if again := info.Delivered.Consumer - info.Delivered.Stream; again != 0 {
				t.Errorf("%d messages were delivered again", again)
			}
		})
	}
}

func consumerInfo(t *testing.T, js jetstream.JetStream, stream, name string) *jetstream.ConsumerInfo {
	t.Helper()
	k, err := js.Consumer(testContext(t), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	return k.CachedInfo()
}

// Whatever is released comes again, and the first occurrences stay in order.
func TestStrictLaneOrder(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	const n = 200
	fill(t, js, "s", 1, n)
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 16, obj(t, map[string]any{"stream": "S"})))
	seen := map[string]int{}
	var order []string
	acked := 0
	for acked < n {
		for _, d := range receive(t, s, 1) {
			body := string(d.Body)
			if seen[body]++; seen[body] == 1 {
				order = append(order, body)
			} else if !d.Redelivered || int(d.Attempt) != seen[body] {
				t.Errorf("message %s came %d times, with attempt %d and redelivered %t", body, seen[body], d.Attempt, d.Redelivered)
			}
			outcome := transport.Ack
			if len(body)%2 == 0 && seen[body] < 3 {
				outcome = transport.Release
			} else {
				acked++
			}
			settle(t, s, d.Seq, d.Seq, outcome)
			if err := s.Grant(transport.Credit{Messages: 1, Bytes: int64(len(d.Body))}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff(numbers(1, n), order); diff != "" {
		t.Error(diff)
	}
	nothing(t, s, 300*time.Millisecond)
}

// A rejected message never comes again.
func TestRejectedIsTerminated(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	fill(t, js, "s", 1, 3)
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 10, obj(t, map[string]any{"stream": "S", "ack_wait": "1s", "double_ack": true})))
	receive(t, s, 3)
	settle(t, s, 1, 2, transport.Reject)
	settle(t, s, 3, 3, transport.Ack)
	// double_ack: no polling.
	if info := consumerInfo(t, js, "S", consumerName("site/bus", "in")); info.NumAckPending != 0 || info.AckFloor.Stream != 3 {
		t.Errorf("%d are unsettled above %d; want none above 3", info.NumAckPending, info.AckFloor.Stream)
	}
}

// What a dead gateway had unsettled comes at once, in order, before anything newer, whatever the retention of the stream.
func TestUnackedComeBackInOrderAfterCrash(t *testing.T) {
	for _, retention := range []jetstream.RetentionPolicy{jetstream.LimitsPolicy, jetstream.WorkQueuePolicy, jetstream.InterestPolicy} {
		for _, how := range []string{"reset", "expire", "blackhole"} {
			t.Run(retention.String()+" "+how, func(t *testing.T) {
				b := server(t)
				proxy := brokers.NewProxy(t, b.Addr())
				_, js := peer(t, b.URL())
				makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Retention: retention})
				src := source("in", "s", 10, obj(t, map[string]any{"stream": "S"}))

				first := connect(t, "nats://"+proxy.Addr(), "site/bus")
				s := subscribe(t, first, src)
				fill(t, js, "s", 1, 30)
				receive(t, s, 10)
				settle(t, s, 1, 2, transport.Ack)
				settle(t, s, 5, 5, transport.Ack)
				name := consumerName("site/bus", "in")
				eventually(t, "three acknowledgements have arrived", func() bool {
					return consumerInfo(t, js, "S", name).NumAckPending == 7
				})
				if how == "blackhole" {
					// The server does not know, and has a pull of the dead connection waiting.
					if err := s.Grant(transport.Credit{Messages: 3}); err != nil {
						t.Fatal(err)
					}
					receive(t, s, 3)
					if err := s.Grant(transport.Credit{Messages: 3}); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the pull has arrived", func() bool {
						info := consumerInfo(t, js, "S", name)
						return info.NumWaiting == 1 && info.NumAckPending == 10
					})
					proxy.Blackhole(brokers.Both)
				} else {
					proxy.Cut() // nothing is released
				}

				second := connect(t, b.URL(), "site/bus")
				if how == "expire" {
					second.(*conn).version = "2.10.0"
				}
				start := time.Now()
				s = subscribe(t, second, src)
				var order []string
				for len(order) == 0 || order[len(order)-1] != "30" {
					ds := receive(t, s, 1)
					order = append(order, bodies(ds)...)
					settle(t, s, ds[0].Seq, ds[len(ds)-1].Seq, transport.Ack)
					if err := s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: 100}); err != nil {
						t.Fatal(err)
					}
					for _, d := range ds {
						if out := slices.Contains(numbers(3, 10), string(d.Body)); out && !d.Redelivered {
							t.Errorf("message %s has been out, and does not say so", d.Body)
						}
					}
				}
				if took := time.Since(start); took > pullExpires+3*time.Second {
					t.Errorf("it took %v", took)
				}
				nothing(t, s, 200*time.Millisecond)
				// 5 was acknowledged above the floor: it may come again.
				want := slices.DeleteFunc(numbers(3, 30), func(n string) bool { return n == "5" })
				got := slices.DeleteFunc(order, func(n string) bool { return n == "5" })
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				if conf := consumerInfo(t, js, "S", name).Config; conf.AckWait != defaultAckWait {
					t.Errorf("ack_wait is %v", conf.AckWait)
				}
			})
		}
	}
}

// Two gateways of the same name do not take each other's messages.
func TestConsumerIsNotSharedUnasked(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	src := source("in", "s", 10, obj(t, map[string]any{"stream": "S"}))
	subscribe(t, connect(t, b.URL(), "site/bus"), src)
	second := connect(t, b.URL(), "site/bus")
	start := time.Now()
	_, err := second.Subscribe(testContext(t), src)
	if err == nil || !strings.Contains(err.Error(), "in use") || transport.IsPermanent(err) {
		t.Errorf("got %v after %v; want an error that may pass and says why", err, time.Since(start))
	}
	src.Options = obj(t, map[string]any{"stream": "S", "shared": true})
	s := subscribe(t, second, src)
	fill(t, js, "s", 1, 40)
	ds := receive(t, s, 1)
	if len(ds) == 0 {
		t.Error("nothing for the second of two that share")
	}
}

// The same place at the source, sent again within the window, is one message. Others never are, whatever their ids.
func TestDedupWindow(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Duplicates: 2 * time.Second})
	opts := obj(t, map[string]any{"stream": "S"})
	send := func(conn, sink string, msgs ...transport.Message) {
		t.Helper()
		c := connect(t, b.URL(), conn)
		for _, cf := range publishAll(t, publisher(t, c, transport.Sink{Name: sink, Address: "s", Options: opts}), msgs...) {
			if cf.Refused != nil {
				t.Fatal(cf.Refused)
			}
		}
	}
	stored := func() uint64 {
		t.Helper()
		st, err := js.Stream(testContext(t), "S")
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.Msgs
	}
	a := transport.Message{Body: []byte("a"), SourceID: "Q:1", ID: "same"}
	for _, step := range []struct {
		what       string
		conn, sink string
		msg        transport.Message
		want       uint64
	}{
		{"the first", "site/bus", "out", a, 1},
		{"sent again", "site/bus", "out", a, 1},
		{"the next place", "site/bus", "out", transport.Message{SourceID: "Q:2", ID: "same"}, 2},
		{"the same place in another source", "site/bus", "other", a, 3},
		{"the same place in another site", "site2/bus", "out", a, 4},
		{"the publisher's id alone", "site/bus", "out", transport.Message{ID: "same"}, 5},
		{"the publisher's id again", "site/bus", "out", transport.Message{ID: "same"}, 6},
	} {
		send(step.conn, step.sink, step.msg)
		if got := stored(); got != step.want {
			t.Fatalf("%s: the stream has %d messages; want %d", step.what, got, step.want)
		}
	}
	time.Sleep(2500 * time.Millisecond) // the window is the server's: nothing tells when it ends
	send("site/bus", "out", a)
	if got := stored(); got != 7 {
		t.Errorf("after the window the stream has %d messages; want 7", got)
	}
}

// A confirm that does not come ends the publisher; the message that was stored all the same is not stored again.
func TestPublishTimeoutSameID(t *testing.T) {
	b := server(t)
	proxy := brokers.NewProxy(t, b.Addr())
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	sink := transport.Sink{Name: "out", Address: "s", Options: obj(t, map[string]any{"stream": "S", "ack_timeout": "1s"})}
	msg := transport.Message{Body: []byte("once"), SourceID: "Q:1"}

	c := connect(t, "nats://"+proxy.Addr(), "site/bus")
	p := publisher(t, c, sink)
	proxy.Blackhole(brokers.ToClient)
	if err := p.Publish(testContext(t), []transport.Message{msg}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if cs, err := p.Confirms(testContext(t)); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("confirms %v, %v; want that it has ended", cs, err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v; want about a second", took)
	}
	proxy.Cut()
	proxy.Restore()
	again := publisher(t, connect(t, "nats://"+proxy.Addr(), "site/bus"), sink)
	if cs := publishAll(t, again, msg); cs[0].Refused != nil {
		t.Error(cs[0].Refused)
	}
	st, err := js.Stream(testContext(t), "S")
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("the stream has %d messages; want 1", n)
	}
}

// A stream that goes away, or is full, is not the message's fault: nothing is refused.
func TestMissingOrFullStreamEndsThePublisher(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	c := connect(t, b.URL(), "site/bus")
	for name, upset := range map[string]func() error{
		"gone": func() error { return js.DeleteStream(testContext(t), "S") },
		"full": func() error {
			for i := range 5 {
				if _, err := js.Publish(testContext(t), "s", []byte(fmt.Sprint(i))); err != nil {
					return nil //nolint:nilerr // an error is what it shall come to
				}
			}
			return errors.New("it is not full")
		},
	} {
		t.Run(name, func(t *testing.T) {
			makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxMsgs: 4, Discard: jetstream.DiscardNew})
			p := publisher(t, c, transport.Sink{Name: "out", Address: "s", Options: obj(t, map[string]any{"stream": "S"})})
			if cs := publishAll(t, p, transport.Message{Body: []byte("fits")}); cs[0].Refused != nil {
				t.Fatal(cs[0].Refused)
			}
			if err := upset(); err != nil {
				t.Fatal(err)
			}
			if err := p.Publish(testContext(t), []transport.Message{{Body: []byte("does not")}}); err != nil {
				t.Fatal(err)
			}
			if cs, err := p.Confirms(testContext(t)); !errors.Is(err, transport.ErrClosed) || transport.IsPermanent(err) {
				t.Errorf("confirms %v, %v; want that the publisher has ended", cs, err)
			} else if !strings.Contains(err.Error(), `"S"`) {
				t.Errorf("%q does not name the stream", err)
			}
			_ = js.DeleteStream(testContext(t), "S")
		})
	}
}

// A stream's own limit refuses one message, and the next ones pass.
func TestTooLargeForTheStreamIsRefused(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxMsgSize: 1000})
	p := publisher(t, connect(t, b.URL(), "site/bus"), transport.Sink{Name: "out", Address: "s", Options: obj(t, map[string]any{"stream": "S"})})
	cs := publishAll(t, p, transport.Message{Body: []byte("a")}, transport.Message{Body: make([]byte, 2000)}, transport.Message{Body: []byte("b")})
	var refused []uint64
	for _, cf := range cs {
		if cf.Refused != nil {
			refused = append(refused, cf.First)
		}
	}
	if diff := cmp.Diff([]uint64{2}, refused); diff != "" {
		t.Error(diff)
	}
}

// What cannot be used is said when opening, with the name of what is missing, for good.
func TestUnusableEndpointsAreRefusedAtOpen(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	makeStream(t, js, jetstream.StreamConfig{Name: "W", Subjects: []string{"w"}, Retention: jetstream.WorkQueuePolicy})
	c := connect(t, b.URL(), "site/bus")
	for _, test := range []struct {
		name, address string
		opts          map[string]any
		source        bool
		want          string
	}{
		{"sink without stream", "s", map[string]any{"stream": "NONE"}, false, `"NONE"`},
		{"source without stream", "s", map[string]any{"stream": "NONE"}, true, `"NONE"`},
		{"subject outside the stream", "t", map[string]any{"stream": "S"}, false, `"t"`},
		{"subject of another stream", "w", map[string]any{"stream": "S"}, false, `"W"`},
		{"a work queue begins at its beginning", "w", map[string]any{"stream": "W", "deliver": "new"}, true, "deliver"},
		{"wildcard in a sink", "s.*", map[string]any{}, false, "wildcard"},
		{"space in a subject", "s s", map[string]any{}, true, "space"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var err error
			if test.source {
				_, err = c.Subscribe(testContext(t), source("in", test.address, 1, obj(t, test.opts)))
			} else {
				_, err = c.Publish(testContext(t), transport.Sink{Name: "out", Address: test.address, Options: obj(t, test.opts)})
			}
			if !transport.IsPermanent(err) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("got %v; want a permanent error about %s", err, test.want)
			}
		})
	}
}

// Remove takes away what was made here, and nothing else.
func TestRemoveLeavesWhatOthersMade(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if _, err := js.CreateConsumer(testContext(t), "S", jetstream.ConsumerConfig{Durable: "theirs", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute}); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "s", 1, 1)
	c := connect(t, b.URL(), "site/bus")
	for _, opts := range []map[string]any{{"stream": "S"}, {"stream": "S", "consumer": "ours"}, {"stream": "S", "consumer": "theirs"}} {
		s := subscribe(t, c, source("in", "s", 10, obj(t, opts)))
		receive(t, s, 1)
		if err := s.Remove(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	st, err := js.Stream(testContext(t), "S")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	names := st.ConsumerNames(testContext(t))
	for name := range names.Name() {
		left = append(left, name)
	}
	if diff := cmp.Diff([]string{"theirs"}, left); diff != "" {
		t.Error(diff)
	}
	if conf := consumerInfo(t, js, "S", "theirs").Config; conf.AckWait != time.Minute {
		t.Errorf("their ack_wait is now %v", conf.AckWait)
	}
}

// A changed window reaches the consumer, and its place stays.
func TestConsumerFollowsTheWindow(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	fill(t, js, "s", 1, 4)
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 2, obj(t, map[string]any{"stream": "S"})))
	receive(t, s, 2)
	settle(t, s, 1, 2, transport.Ack)
	if err := s.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	s = subscribe(t, c, source("in", "s", 100, obj(t, map[string]any{"stream": "S", "ack_wait": "5s"})))
	if diff := cmp.Diff([]string{"3", "4"}, bodies(receive(t, s, 2))); diff != "" {
		t.Error(diff)
	}
	conf := consumerInfo(t, js, "S", consumerName("site/bus", "in")).Config
	if conf.MaxAckPending != 100 || conf.AckWait != 5*time.Second {
		t.Errorf("max ack pending is %d, ack wait %v; want 100 and 5s", conf.MaxAckPending, conf.AckWait)
	}
}

// What was settled is settled when Close returns, and does not come again on the next subscription.
func TestCloseWaitsForTheServerToKnow(t *testing.T) {
	const n = 5000
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	c := connect(t, b.URL(), "site/bus")
	for i := range n {
		if _, err := js.PublishAsync("s", []byte(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	s := subscribe(t, c, source("in", "s", n, obj(t, map[string]any{"stream": "S"})))
	receive(t, s, n)
	settle(t, s, 1, n, transport.Ack)
	if err := s.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if info := consumerInfo(t, js, "S", consumerName("site/bus", "in")); info.NumAckPending != 0 {
		t.Errorf("%d of %d messages are unsettled for the server", info.NumAckPending, n)
	}
}

// A deleted consumer ends the subscription with a reason.
func TestDeletedConsumerEndsTheSubscription(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 2, obj(t, map[string]any{"stream": "S"})))
	if err := js.DeleteConsumer(testContext(t), "S", consumerName("site/bus", "in")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Receive(testContext(t)); !errors.Is(err, transport.ErrClosed) || !strings.Contains(err.Error(), "onsumer") {
		t.Errorf("receive: %v; want that the consumer is gone", err)
	}
}

// The place in the stream names a message, the acknowledgement subject never becomes a reply address.
func TestStreamMapping(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowMsgTTL: true})
	msg := nats.NewMsg("s.x")
	msg.Header = nats.Header{"Nats-Msg-Id": {"m1"}, "Nats-TTL": {"1h"}, "content-type": {"text/plain"}, "B": {"2", "1"}, "A": {""}}
	if _, err := js.PublishMsg(testContext(t), msg, jetstream.WithExpectStream("S")); err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, connect(t, b.URL(), "site/bus"), source("in", "s.>", 10, obj(t, map[string]any{"stream": "S"})))
	got := receive(t, s, 1)[0].Message
	if !strings.HasPrefix(got.SourceID, "S:1:") {
		t.Errorf("source id is %q; want stream, sequence and time", got.SourceID)
	}
	if got.TTL <= 59*time.Minute || got.TTL > time.Hour {
		t.Errorf("ttl is %v; want what is left of an hour", got.TTL)
	}
	got.SourceID, got.TTL, got.Body = "", 0, nil
	want := transport.Message{
		Address: "s.x", ID: "m1", ContentType: "text/plain", Durable: true, Attempt: 1,
		Headers: []transport.Header{{Name: "A"}, {Name: "B", Value: "2"}, {Name: "B", Value: "1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// When a pull has brought what it asked for, the next one goes out at once.
func TestPullsFollowOneAnotherWithoutPause(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage})
	const n = 500
	fill(t, js, "s", 1, n)
	s := subscribe(t, connect(t, b.URL(), "site/bus"), source("in", "s", 10, obj(t, map[string]any{"stream": "S"})))
	start := time.Now()
	for got := 0; got < n; {
		ds := receive(t, s, 10)
		got += len(ds)
		settle(t, s, ds[0].Seq, ds[len(ds)-1].Seq, transport.Ack)
		if err := s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: 10_000}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("50 windows took %v: that is a pause for each", took)
	}
}

// A stream that was removed and made again counts anew; its messages are others all the same.
func TestSourceIDsOutliveTheStream(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	c := connect(t, b.URL(), "site/bus")
	var ids []string
	for range 2 {
		makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		fill(t, js, "s", 1, 1)
		s := subscribe(t, c, source("in", "s", 1, obj(t, map[string]any{"stream": "S"})))
		ids = append(ids, receive(t, s, 1)[0].SourceID)
		if err := s.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(testContext(t), "S"); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] == ids[1] {
		t.Errorf("two messages have the source id %s", ids[0])
	}
}

// Messages larger than all byte credit pass among small ones, each once.
func TestLargeMessagesPassAmongSmallOnes(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	const n = 60
	for i := range n {
		size := 100
		if i%7 == 3 {
			size = 200_000
		}
		if _, err := js.Publish(testContext(t), "s", make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	src := source("in", "s", 16, obj(t, map[string]any{"stream": "S", "double_ack": true}))
	src.Window.Bytes = 10_000
	s := subscribe(t, connect(t, b.URL(), "site/bus"), src)
	for got := 0; got < n; {
		ds := receive(t, s, 1)
		got += len(ds)
		var bytes int64
		for _, d := range ds {
			bytes += int64(len(d.Body))
		}
		settle(t, s, ds[0].Seq, ds[len(ds)-1].Seq, transport.Ack)
		if err := s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: bytes}); err != nil {
			t.Fatal(err)
		}
	}
	if info := consumerInfo(t, js, "S", consumerName("site/bus", "in")); info.AckFloor.Stream != n || info.Delivered.Consumer != n {
		t.Errorf("floor %d after %d deliveries; want %d and %d", info.AckFloor.Stream, info.Delivered.Consumer, n, n)
	}
}

func outstanding(p *streamPublisher) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// A stream gives no word on a message that the server has not let through. It is refused, those beside it are not, and the
// silence of the stream is still noticed afterwards.
func TestForbiddenSubjectOfAStreamIsRefused(t *testing.T) {
	for _, address := range []string{"", "s.no"} {
		t.Run("address "+address, func(t *testing.T) {
			b := server(t, brokers.Config(`authorization { users: [`+
				`{ user: u, password: p, permissions: { publish: { deny: ["s.no"] } } }, { user: root, password: p } ] }`))
			_, js := peer(t, "nats://root:p@"+b.Addr())
			makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}})
			d, _ := testDriver(t)
			c := connectWith(t, d, "site/bus", map[string]any{"url": b.URL(), "username": "u", "password": "p"})
			opts := map[string]any{"stream": "S", "ack_timeout": "1s"}
			p := publisher(t, c, transport.Sink{Name: "out", Address: address, Options: obj(t, opts)})
			to := func(subjects ...string) (ms []transport.Message) {
				for _, s := range subjects {
					ms = append(ms, transport.Message{Address: s})
				}
				return ms
			}
			sent := 0
			for _, subjects := range [][]string{{"s.a", "s.no", "s.b", "s.no", "s.c"}, {"s.no"}, {"s.a", "s.a"}} {
				if err := p.Publish(testContext(t), to(subjects...)); err != nil {
					t.Fatal(err)
				}
				base := sent
				for sent += len(subjects); base < sent; {
					cs, err := p.Confirms(testContext(t))
					if err != nil {
						t.Fatalf("confirms: %v", err)
					}
					for _, c := range cs {
						for n := c.First; n <= c.Last; n++ {
							forbidden := address != "" || subjects[int(n)-1-(sent-len(subjects))] == "s.no"
							if (c.Refused != nil) != forbidden || forbidden && !transport.IsPermanent(c.Refused) {
								t.Errorf("message %d: %v; want it to be refused: %t", n, c.Refused, forbidden)
							}
						}
						base = int(c.Last)
					}
				}
			}
			if out := outstanding(p.(*streamPublisher)); out != 0 {
				t.Errorf("the stream owes %d words after all were given", out)
			}
		})
	}
}

// A word that comes late is no word on another message.
func TestSilenceIsNoticedAfterARefusal(t *testing.T) {
	p := &streamPublisher{outbox: transport.NewOutbox(8), owed: make([]owed, 8)}
	for n := uint64(1); n <= 3; n++ {
		p.sent(n, "no")
	}
	p.forbidden(fmt.Errorf("%w: Permissions Violation for Publish to %q", nats.ErrPermissionViolation, "no"))
	p.answered(1) // the server had let it through, before
	p.sent(4, "no")
	p.answered(2)
	if out := outstanding(p); out != 1 {
		t.Errorf("%d words are owed; want one, on message 4", out)
	}
}
