package mqtt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// small is a window that every backlog of these tests exceeds.
var small = transport.Credit{Messages: 10, Bytes: 1 << 20}

func connect(t *testing.T, name string, config ...any) transport.Conn {
	t.Helper()
	c, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Name: name, Config: configure(config...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func subscribe(t *testing.T, c transport.Conn, name, filter, options string) transport.Subscription {
	t.Helper()
	s, err := c.Subscribe(t.Context(), transport.Source{Name: name, Address: filter, Window: small, Options: json.RawMessage(options)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func grant(t *testing.T, s transport.Subscription, messages int64) {
	t.Helper()
	if err := s.Grant(transport.Credit{Messages: messages, Bytes: 1 << 30}); err != nil {
		t.Fatal(err)
	}
}

// receive returns n deliveries.
func receive(t *testing.T, s transport.Subscription, n int) []transport.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []transport.Delivery
	for len(all) < n {
		ds, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("receive: %v, after %d of %d", err, len(all), n)
		}
		all = append(all, ds...)
	}
	return all
}

// nothing fails the test when a delivery comes within d.
func nothing(t *testing.T, s transport.Subscription, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if ds, err := s.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %d deliveries, %v; want none", len(ds), err)
	}
}

func settle(t *testing.T, s transport.Subscription, outcome transport.Outcome, ds []transport.Delivery) {
	t.Helper()
	err := s.Settle(t.Context(), []transport.Settlement{{First: ds[0].Seq, Last: ds[len(ds)-1].Seq, Outcome: outcome}})
	if err != nil {
		t.Fatal(err)
	}
}

// publish sends messages first to last, each with its number as the body, and waits for their confirms.
func publish(t *testing.T, c transport.Conn, topic, options string, first, last int) {
	t.Helper()
	var msgs []transport.Message
	for i := first; i <= last; i++ {
		msgs = append(msgs, transport.Message{Body: []byte(strconv.Itoa(i))})
	}
	publishAll(t, c, topic, options, msgs)
}

func publishAll(t *testing.T, c transport.Conn, topic, options string, msgs []transport.Message) {
	t.Helper()
	p, err := c.Publish(t.Context(), transport.Sink{Name: "sink", Address: topic, Options: json.RawMessage(options)})
	if err != nil {
		t.Fatal(err)
	}
	published := make(chan error, 1)
	go func() { published <- p.Publish(t.Context(), msgs) }()
	for n := uint64(0); n < uint64(len(msgs)); {
		cs, err := p.Confirms(t.Context())
		if err != nil {
			t.Fatalf("confirms: %v", err)
		}
		for _, c := range cs {
			if c.Refused != nil {
				t.Fatalf("message %d was refused: %v", c.First, c.Refused)
			}
			n = c.Last
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// inOrder fails the test unless the bodies are the numbers from first on.
func inOrder(t *testing.T, ds []transport.Delivery, first int) {
	t.Helper()
	for i, d := range ds {
		if string(d.Body) != strconv.Itoa(first+i) {
			t.Fatalf("delivery %d is %q; want %d", d.Seq, d.Body, first+i)
		}
	}
}

func TestMQTTTokenNotTrustedAcrossReconnect(t *testing.T) {
	m := startMosquitto(t)
	proxy := brokers.NewProxy(t, m.Addr())
	watcher := subscribe(t, connect(t, "watcher", "url", m.URL()), "w", "a", "")
	grant(t, watcher, 10)
	c := connect(t, "site", "url", proxy.Through(m.URL()), "keep_alive", "300ms")
	p, err := c.Publish(t.Context(), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	proxy.Blackhole(brokers.ToServer)
	if err := p.Publish(t.Context(), []transport.Message{{Body: []byte("swallowed")}}); err != nil {
		t.Fatal(err)
	}
	if cs, err := p.Confirms(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Confirms returned %v, %v; want an error that is ErrClosed: the broker never saw the message", cs, err)
	}
	proxy.Cut()
	proxy.Restore()
	publish(t, connect(t, "site", "url", proxy.Through(m.URL())), "a", "", 1, 1)
	inOrder(t, receive(t, watcher, 1), 1)
}

func TestMQTTUnackedRedeliveredInOrder(t *testing.T) {
	m := startMosquitto(t)
	proxy := brokers.NewProxy(t, m.Addr())
	c := connect(t, "site", "url", proxy.Through(m.URL()))
	s := subscribe(t, c, "s", "a", "")
	grant(t, s, 30)
	publish(t, connect(t, "other", "url", m.URL()), "a", "", 1, 200)
	before := receive(t, s, 20) // which is what mosquitto has in flight
	inOrder(t, before, 1)
	settle(t, s, transport.Ack, before[:5])
	receive(t, s, 1) // it comes for an acknowledgement
	proxy.Cut()
	if _, err := c.Next(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Next: %v", err)
	}
	s = subscribe(t, connect(t, "site", "url", m.URL()), "s", "a", "")
	grant(t, s, 1000)
	after := receive(t, s, 20)
	first, err := strconv.Atoi(string(after[0].Body))
	if err != nil || first < 2 || first > 6 {
		t.Fatalf("the first redelivery is %q; want one from 2 to 6: at least 1 has been acknowledged", after[0].Body)
	}
	inOrder(t, after, first)
	for _, d := range after[:20-first] {
		if !d.Redelivered {
			t.Errorf("message %q was out and is not marked as redelivered", d.Body)
		}
	}
	settle(t, s, transport.Ack, after)
	inOrder(t, receive(t, s, 20), first+len(after))
}

// Without a limit for what is in flight, mosquitto sends everything that is queued before it answers the SUBSCRIBE.
func TestMQTTBurstBeforeSuback(t *testing.T) {
	const n = 5000
	m := startMosquitto(t, brokers.Config("max_inflight_messages 0"))
	c := connect(t, "site", "url", m.URL())
	if err := subscribe(t, c, "s", "a", "").Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "a", "", 1, n)
	s := subscribe(t, c, "s", "a", "")
	if w := s.(*subscription).inbox.Waiting().Messages; w > 2*minWaiting {
		t.Errorf("%d messages wait in memory; want reading to have stopped after %d", w, minWaiting)
	}
	for next := 1; next <= n; {
		grant(t, s, 10)
		ds := receive(t, s, min(10, n-next+1))
		inOrder(t, ds, next)
		settle(t, s, transport.Ack, ds)
		next += len(ds)
	}
	nothing(t, s, 100*time.Millisecond)
}

func TestMQTTSlowSinkKeepsPing(t *testing.T) {
	const n = 3000
	m := startMosquitto(t, brokers.Config("max_inflight_messages 0"))
	c := connect(t, "site", "url", m.URL(), "keep_alive", "150ms")
	s := subscribe(t, c, "s", "a", "")
	publish(t, connect(t, "other", "url", m.URL()), "a", "", 1, n)
	// Nobody takes anything for many times as long as the broker may be silent.
	nothing(t, s, 2*time.Second)
	if !s.(*subscription).client.link.isPaused() {
		t.Error("reading goes on while nobody wants messages")
	}
	grant(t, s, n)
	ds := receive(t, s, n)
	inOrder(t, ds, 1)
	for _, d := range ds {
		if d.Redelivered {
			t.Fatalf("delivery %d is a redelivery: the connection was lost meanwhile", d.Seq)
		}
	}
	settle(t, s, transport.Ack, ds)
}

func TestMQTTStaleAckIgnored(t *testing.T) {
	m := startMosquitto(t)
	proxy := brokers.NewProxy(t, m.Addr())
	c := connect(t, "site", "url", proxy.Through(m.URL()))
	stale := subscribe(t, c, "s", "a", "")
	grant(t, stale, 10)
	publish(t, connect(t, "other", "url", m.URL()), "a", "", 1, 5)
	before := receive(t, stale, 5)
	proxy.Cut()
	if _, err := stale.Receive(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Receive: %v", err)
	}
	s := subscribe(t, connect(t, "site", "url", m.URL()), "s", "a", "")
	err := stale.Settle(t.Context(), []transport.Settlement{{First: 1, Last: before[4].Seq, Outcome: transport.Ack}})
	if !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Settle on a lost subscription: %v; want an error that is ErrClosed", err)
	}
	grant(t, s, 10)
	inOrder(t, receive(t, s, 5), 1)
}

func TestReleaseEndsTheSubscriptionWhenTheRestIsSettled(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	s := subscribe(t, c, "s", "a", "")
	grant(t, s, 4)
	publish(t, c, "a", "", 1, 6)
	ds := receive(t, s, 4)
	settle(t, s, transport.Release, ds[:1])
	grant(t, s, 10)
	nothing(t, s, 100*time.Millisecond) // not before message 1 has come again
	settle(t, s, transport.Ack, ds[1:])
	if _, err := s.Receive(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Receive: %v; want an error that is ErrClosed", err)
	}
	s = subscribe(t, c, "s", "a", "")
	grant(t, s, 10)
	again := receive(t, s, 3)
	inOrder(t, again[:1], 1)
	inOrder(t, again[1:], 5)
}

func TestLostSubscriptionIsLostAlone(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	lost, other := subscribe(t, c, "lost", "a", ""), subscribe(t, c, "other", "b", "")
	thief := subscribe(t, connect(t, "site", "url", m.URL()), "lost", "a", "") // the broker gives it the session
	if _, err := lost.Receive(t.Context()); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Receive: %v; want an error that is ErrClosed", err)
	}
	grant(t, other, 1)
	grant(t, thief, 1)
	publish(t, c, "b", "", 1, 1)
	receive(t, other, 1)
	publish(t, c, "a", "", 1, 1)
	receive(t, thief, 1)
}

func TestEarlierAddressOfASessionIsNotDelivered(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	if err := subscribe(t, c, "s", "old/+", "").Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "old/x", "", 1, 30) // more than mosquitto's 20 in flight: they have to be acknowledged to get past them
	s := subscribe(t, c, "s", "new", "")
	grant(t, s, 10)
	publish(t, c, "new", "", 31, 31)
	inOrder(t, receive(t, s, 1), 31)
	nothing(t, s, 100*time.Millisecond)
}

func TestRetainIsTheMessagesUnlessTheSinkSaysOtherwise(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	for _, tt := range []struct {
		topic, options string
		message, want  bool
	}{
		{"r/1", ``, true, true},
		{"r/2", ``, false, false},
		{"r/3", `{"retain":true}`, false, true},
		{"r/4", `{"retain":false}`, true, false},
	} {
		publishAll(t, c, tt.topic, tt.options, []transport.Message{{Body: []byte("x"), Retain: tt.message}})
		s := subscribe(t, c, tt.topic, tt.topic, "")
		grant(t, s, 1)
		if !tt.want {
			nothing(t, s, 100*time.Millisecond)
			continue
		}
		if d := receive(t, s, 1)[0]; !d.Retain {
			t.Errorf("%s: a retained message arrived without Retain", tt.topic)
		}
	}
}

func TestBrokersOwnTopicsCanBeSubscribed(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	s, all := subscribe(t, c, "sys", "$SYS/broker/version", `{"qos":0}`), subscribe(t, c, "all", "#", `{"qos":0}`)
	grant(t, s, 1)
	grant(t, all, 1)
	if d := receive(t, s, 1)[0]; !strings.Contains(string(d.Body), "mosquitto") {
		t.Errorf("body is %q", d.Body)
	}
	nothing(t, all, 100*time.Millisecond)
}

func TestSharedSubscriptionSharesAndKeepsNoSession(t *testing.T) {
	m := startMosquitto(t)
	c := connect(t, "site", "url", m.URL())
	first, second := subscribe(t, c, "1", "$share/g/work/+", ""), subscribe(t, c, "2", "$share/g/work/+", "")
	grant(t, first, 100)
	grant(t, second, 100)
	publish(t, c, "work/x", "", 1, 10)
	got := len(receive(t, first, 1)) + len(receive(t, second, 1))
	for deadline := time.Now().Add(10 * time.Second); got < 10 && time.Now().Before(deadline); {
		for _, s := range []transport.Subscription{first, second} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			ds, _ := s.Receive(ctx)
			cancel()
			got += len(ds)
		}
	}
	if got != 10 {
		t.Errorf("two members got %d messages; want 10", got)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "work/x", "", 11, 20)
	inOrder(t, receive(t, first, 10)[:1], 11) // nothing was kept for the one that has gone
}

func TestPublishSurvivesAFrozenBroker(t *testing.T) {
	m := startMosquitto(t, brokers.Volatile(), brokers.Config("max_inflight_messages 0"))
	c := connect(t, "site", "url", m.URL(), "keep_alive", "10s")
	s := subscribe(t, c, "s", "a", "")
	grant(t, s, 100)
	p, err := c.Publish(t.Context(), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	var msgs []transport.Message
	for i := range 30 {
		msgs = append(msgs, transport.Message{Body: append(bytes.Repeat([]byte{0}, 1<<20), byte(i))})
	}
	m.Freeze()
	published := make(chan error, 1)
	go func() { published <- p.Publish(t.Context(), msgs) }()
	select {
	case err := <-published:
		t.Errorf("a frozen broker took 30 MiB: %v", err)
	case <-time.After(3 * handTime): // the library has given up some attempts by then
	}
	m.Thaw()
	for i, d := range receive(t, s, 30) {
		if int(d.Body[1<<20]) != i {
			t.Fatalf("delivery %d is message %d; want %d", d.Seq, d.Body[1<<20], i)
		}
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	for last := uint64(0); last < 30; {
		cs, err := p.Confirms(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = cs[len(cs)-1].Last
	}
}

func TestCancelledPublishReturnsWhileTheBrokerIsFrozen(t *testing.T) {
	m := startMosquitto(t, brokers.Volatile())
	c := connect(t, "site", "url", m.URL(), "keep_alive", "10s")
	p, err := c.Publish(t.Context(), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	msgs := make([]transport.Message, 30)
	for i := range msgs {
		msgs[i].Body = make([]byte, 1<<20)
	}
	m.Freeze()
	defer m.Thaw()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := p.Publish(ctx, msgs); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("publish: %v; want the error of the context", err)
	}
	if took := time.Since(start); took > 500*time.Millisecond+2*handTime {
		t.Errorf("Publish returned %v after its context had ended", took)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCredentials(t *testing.T) {
	m := startMosquitto(t, brokers.Password("ann", "s3cr3t"))
	connect(t, "in the url", "url", m.URL())
	connect(t, "in attributes", "url", "mqtt://"+m.Addr(), "username", "ann", "password", "s3cr3t")
	for name, config := range map[string]json.RawMessage{
		"wrong password": configure("url", "mqtt://"+m.Addr(), "username", "ann", "password", "wr0ng"),
		"wrong url":      configure("url", "mqtt://ann:wr0ng@"+m.Addr()),
		"no password":    configure("url", "mqtt://"+m.Addr()),
	} {
		_, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Config: config})
		if !transport.IsPermanent(err) {
			t.Errorf("%s: %v; want a Permanent error", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
}

func TestTLS(t *testing.T) {
	a, both, stranger := brokers.NewAuthority(t), brokers.NewAuthority(t), brokers.NewAuthority(t)
	read := func(name string) string {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	ca, bothCA := read(a.CAFile()), read(both.CAFile())
	certFile, keyFile := both.Client("gateway")
	cert, key := read(certFile), read(keyFile)
	strangerCert, strangerKey := stranger.Client("gateway")

	one, mutual := startMosquitto(t, brokers.TLS(a)), startMosquitto(t, brokers.MutualTLS(both))
	plain := startMosquitto(t)
	type block map[string]any
	for _, tt := range []struct {
		name string
		url  string
		tls  block
		ok   bool

		hangsUp bool
	}{
		{name: "trusted", url: one.URL(), tls: block{"ca": ca}, ok: true},
		{name: "not trusted", url: one.URL(), tls: block{"ca": read(stranger.CAFile())}},
		{name: "system's authorities", url: one.URL()},
		{name: "another name", url: one.URL(), tls: block{"ca": ca, "server_name": "elsewhere.example"}},
		{name: "localhost by name", url: one.URL(), tls: block{"ca": ca, "server_name": "localhost"}, ok: true},
		{name: "not verified", url: one.URL(), tls: block{"insecure_skip_verify": true}, ok: true},
		{name: "both trusted", url: mutual.URL(), tls: block{"ca": bothCA, "cert": cert, "key": key}, ok: true},
		{name: "certificate missing", url: mutual.URL(), tls: block{"ca": bothCA}, hangsUp: true},
		{name: "certificate of a stranger", url: mutual.URL(), tls: block{"ca": bothCA, "cert": read(strangerCert), "key": read(strangerKey)}, hangsUp: true},
		{name: "plain broker", url: "mqtts://" + plain.Addr(), tls: block{"ca": ca}, hangsUp: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := []any{"url", tt.url}
			if tt.tls != nil {
				config = append(config, "tls", tt.tls)
			}
			c, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Name: "site", Config: configure(config...)})
			if !tt.ok {
				if err == nil {
					t.Fatal("Connect returned no error")
				}
				// A broker that hangs up may do so faster than it says why.
				if !transport.IsPermanent(err) && !tt.hangsUp {
					t.Fatalf("Connect returned %v; want a Permanent error", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := subscribe(t, c, "s", "a", "")
			grant(t, s, 5)
			publish(t, c, "a", "", 1, 5)
			inOrder(t, receive(t, s, 5), 1)
			if err := c.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestUnreachableBrokerIsNotPermanent(t *testing.T) {
	m := startMosquitto(t)
	m.Stop()
	_, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Config: configure("url", m.URL())})
	if err == nil || transport.IsPermanent(err) {
		t.Errorf("Connect: %v; want an error that is not Permanent", err)
	}
}

// nats-server delivers again, under the same packet id, what is not acknowledged within ack_wait.
func TestNATSRedeliveryOfWhatIsOutIsDropped(t *testing.T) {
	_, url := natsMQTT(t) // with an ack_wait of 2 s
	c := connect(t, "site", "url", url)
	s := subscribe(t, c, "s", "a", "")
	grant(t, s, 100)
	publish(t, c, "a", "", 1, 20)
	ds := receive(t, s, 20)
	inOrder(t, ds, 1)
	nothing(t, s, 5*time.Second)
	settle(t, s, transport.Ack, ds)
	publish(t, c, "a", "", 21, 21)
	inOrder(t, receive(t, s, 1), 21)
}

// What nats-server has sent before is kept back on a new connection until ack_wait is over, and newer messages pass it.
func TestNATSDeliversAgainAfterAckWait(t *testing.T) {
	_, url := natsMQTT(t)
	c := connect(t, "site", "url", url)
	s := subscribe(t, c, "s", "a", "")
	grant(t, s, 100)
	publish(t, c, "a", "", 1, 5)
	receive(t, s, 5)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = subscribe(t, c, "s", "a", "")
	grant(t, s, 100)
	publish(t, c, "a", "", 6, 6)
	got := map[string]bool{}
	for len(got) < 6 {
		for _, d := range receive(t, s, 1) {
			got[string(d.Body)] = true
		}
	}
	for i := 1; i <= 6; i++ {
		if !got[fmt.Sprint(i)] {
			t.Errorf("message %d is lost", i)
		}
	}
}

func TestForgottenSessionIsTold(t *testing.T) {
	m := startMosquitto(t, brokers.Volatile())
	var text bytes.Buffer
	d := New(slog.New(slog.NewTextHandler(&text, nil)))
	life := func(name string) (transport.Conn, transport.Subscription) {
		t.Helper()
		c, err := d.Connect(t.Context(), transport.ConnectRequest{Name: "site", Config: configure("url", m.URL())})
		if err != nil {
			t.Fatal(err)
		}
		return c, subscribe(t, c, name, "a", "")
	}
	const warning = "forgotten the session"
	told := func(when string, want int) {
		t.Helper()
		if got := strings.Count(text.String(), warning); got != want {
			t.Errorf("%s: told %d times; want %d:\n%s", when, got, want, &text)
		}
	}
	closeAll := func(c transport.Conn) {
		t.Helper()
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := life("s")
	closeAll(c)
	told("the first time", 0)
	c, _ = life("s")
	closeAll(c)
	told("when the session is there", 0)
	m.Restart() // it has no memory
	c, _ = life("s")
	closeAll(c)
	told("when it is gone", 1)
	c, s := life("s")
	told("when it is there again", 1)
	if err := s.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeAll(c)
	c, _ = life("s")
	closeAll(c)
	told("when it was removed", 1)
}
