package discovery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// background runs something until the test or what it returns ends it, and waits for its end.
func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// lines is a log that can be counted.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// scene is a listener on a broker in memory, in a bubble of virtual time.
type scene struct {
	*transporttest.Memory
	broker   *broker.Broker
	registry *discovery.Registry
	log      *lines
	stop     func() // the listener
}

func newScene(t *testing.T, addresses ...discovery.Address) *scene {
	t.Helper()
	s := &scene{Memory: transporttest.NewMemory(), log: new(lines)}
	s.broker = broker.New(broker.Config{
		Name:    hall.Broker,
		Request: transport.ConnectRequest{Name: "test", Config: json.RawMessage(`{}`)},
		Driver:  func(context.Context) (transport.Driver, error) { return s.Driver(), nil },
	})
	background(t, s.broker.Run)
	s.registry = discovery.NewRegistry(discovery.Config{Log: s.log.log()})
	background(t, s.registry.Run)
	s.stop = background(t, discovery.Listener{
		Broker: hall.Broker, Open: s.broker.Conn, Addresses: addresses, Registry: s.registry, Log: s.log.log(),
	}.Run)
	synctest.Wait()
	return s
}

func (s *scene) say(t *testing.T, address string, bodies ...[]byte) {
	t.Helper()
	for _, body := range bodies {
		s.Send(address, transport.Message{Body: body})
	}
	synctest.Wait()
}

func TestAnnouncementsAreHeardAtAllAddressesAndAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.say(t, "fbp", announcement(t, define("a1", "a")))
		s.say(t, "msgflo/discover", announcement(t, define("b1", "b")), []byte(`nonsense`))
		expect(t, "there", there(s.registry), "a1 as a#1 on mqtt.hall, b1 as b#2 on mqtt.hall")
		for _, address := range []string{"fbp", "msgflo/discover"} {
			if n := s.Held(address); n != 0 {
				t.Errorf("%d messages are not acknowledged at %s", n, address)
			}
		}
		if n := s.log.count("participant appeared"); n != 2 {
			t.Errorf("%d appeared:\n%s", n, s.log)
		}
		s.stop()
		for _, address := range []string{"fbp", "msgflo/discover"} {
			if n := s.Subscribers(address); n != 0 {
				t.Errorf("%d subscribers are left at %s", n, address)
			}
		}
	})
}

func TestOptionsOfAnAddressAreTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, discovery.Address{Address: "fbp", Options: json.RawMessage(`{"queue":true}`)})
		s.say(t, "fbp", announcement(t, define("a1", "a")))
		expect(t, "there", there(s.registry), "a1 as a#1 on mqtt.hall")
		s.stop()
		s.say(t, "fbp", announcement(t, define("a2", "a")))
		if n := s.Held("fbp"); n != 1 {
			t.Errorf("%d messages are in the queue that nobody listens to; want 1", n)
		}
	})
}

func TestMalformedAnnouncementIsLoggedOnceAndHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.say(t, "fbp", announcement(t, define("a1", "a")))
		for range 100 {
			s.say(t, "fbp", []byte(`{"id":"b1","role":"b"}`), []byte(`{`), announcement(t, define("a1", "a")))
			time.Sleep(time.Minute)
		}
		expect(t, "there", there(s.registry), "a1 as a#1 on mqtt.hall")
		for _, cause := range []string{"component is missing", "unexpected end of JSON input at byte 1"} {
			if n := s.log.count(cause); n != 1 {
				t.Errorf("%q is logged %d times:\n%s", cause, n, s.log)
			}
		}
		if c := s.registry.Counts()[hall.Broker]; c.Messages != 301 || c.Malformed != 200 || c.Repeated != 100 {
			t.Errorf("%+v", c)
		}
	})
}

func TestSilentParticipantsLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.say(t, "fbp", announcement(t, define("a1", "a", beat(10*time.Second))), announcement(t, define("b1", "b")))
		time.Sleep(29 * time.Second)
		expect(t, "both", there(s.registry), "a1 as a#1 on mqtt.hall, b1 as b#2 on mqtt.hall")
		time.Sleep(2 * time.Second)
		expect(t, "after three heartbeats", there(s.registry), "b1 as b#2 on mqtt.hall")
		time.Sleep(570 * time.Second)
		expect(t, "after ten minutes", there(s.registry), "")
		if n := s.log.count("participant left"); n != 2 {
			t.Errorf("%d left:\n%s", n, s.log)
		}
	})
}

func TestListeningGoesOnAfterALossAndCostsNobodyTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		heart := announcement(t, define("a1", "a", beat(10*time.Second)))
		s.say(t, "fbp", heart)
		for range 10 {
			s.RefuseConnections(errors.New("the broker is down"))
			s.KillConnections("killed")
			time.Sleep(time.Hour)
			s.RefuseConnections(nil)
			time.Sleep(10 * time.Second) // the longest wait between two attempts, twice
			s.say(t, "fbp", heart)
			expect(t, "there", there(s.registry), "a1 as a#1 on mqtt.hall")
		}
		if n := s.log.count("discovery address not open"); n != 0 {
			t.Errorf("a lost connection is logged by who keeps it:\n%s", s.log)
		}
		time.Sleep(time.Minute)
		expect(t, "silent", there(s.registry), "")
	})
}

func TestAddressThatCannotBeOpenedHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, discovery.Address{Address: "fbp", Options: json.RawMessage(`{"queue":1}`)}, discovery.Address{Address: "msgflo/discover"})
		s.say(t, "msgflo/discover", announcement(t, define("a1", "a")))
		expect(t, "there", there(s.registry), "a1 as a#1 on mqtt.hall")
		time.Sleep(time.Hour)
		if n := s.log.count("discovery address not open"); n != 1 {
			t.Errorf("logged %d times in an hour:\n%s", n, s.log)
		}
	})
}

func TestWhoWasHeardByAListenerThatIsNoMoreIsGoneInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.say(t, "fbp", announcement(t, define("a1", "a")))
		s.KillConnections("killed")
		s.stop()
		time.Sleep(599 * time.Second)
		expect(t, "not yet gone", there(s.registry), "a1 as a#1 on mqtt.hall")
		time.Sleep(2 * time.Second)
		expect(t, "gone", there(s.registry), "")
	})
}

// flood is a connection on which messages come as fast as they are taken. It does no more than it has to.
type flood struct {
	transport.Conn
	transport.Subscription
	body    func(n int) []byte
	n, most int
	credit  int
	settled uint64
	done    chan struct{}
}

func (f *flood) Subscribe(context.Context, transport.Source) (transport.Subscription, error) {
	return f, nil
}

func (f *flood) Grant(c transport.Credit) error {
	f.credit += int(c.Messages)
	return nil
}

func (f *flood) Settle(_ context.Context, list []transport.Settlement) error {
	for _, s := range list {
		if s.First != f.settled+1 || s.Outcome != transport.Ack {
			return fmt.Errorf("settled %+v after %d", s, f.settled)
		}
		f.settled = s.Last
	}
	return nil
}

func (f *flood) Receive(ctx context.Context) ([]transport.Delivery, error) {
	if f.n == f.most {
		close(f.done)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var ds []transport.Delivery
	for ; f.credit > 0 && f.n < f.most; f.credit-- {
		f.n++
		ds = append(ds, transport.Delivery{Seq: uint64(f.n), Message: transport.Message{Body: f.body(f.n)}})
	}
	return ds, nil
}

func (f *flood) Close(context.Context) error { return nil }

// run lets the flood go over a listener, and returns the registry and the log.
func (f *flood) run(t testing.TB) (*discovery.Registry, *lines) {
	log := new(lines)
	f.done = make(chan struct{})
	registry := discovery.NewRegistry(discovery.Config{Log: log.log()})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopped := make(chan error, 1)
	listener := discovery.Listener{
		Broker: hall.Broker, Addresses: []discovery.Address{{Address: "fbp"}}, Registry: registry, Log: log.log(),
		Open: func(context.Context) (transport.Conn, error) { return f, nil },
	}
	go func() { stopped <- listener.Run(ctx) }()
	<-f.done
	cancel()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if f.settled != uint64(f.most) {
		t.Errorf("%d of %d messages were settled", f.settled, f.most)
	}
	return registry, log
}

func TestFloodFillsNeitherLogNorMemory(t *testing.T) {
	good := announcement(t, define("a1", "a"))
	floods := map[string]struct {
		body     func(n int) []byte
		there    int
		lines    int
		malforms bool
	}{
		"repeated":          {body: func(int) []byte { return good }, there: 1, lines: 1},
		"changing":          {body: func(n int) []byte { return bytes.Replace(good, []byte("a.IN"), fmt.Append(nil, n), 1) }, there: 1, lines: 600},
		"malformed alike":   {body: func(int) []byte { return good[:50] }, lines: 1, malforms: true},
		"each in its way":   {body: func(n int) []byte { return fmt.Appendf(nil, `{"protocol":"%d","payload":1}`, n) }, lines: 40, malforms: true},
		"no JSON":           {body: func(n int) []byte { return bytes.Repeat([]byte(" "), n%5000) }, lines: 40, malforms: true},
		"more participants": {body: func(n int) []byte { return bytes.Replace(good, []byte("a1"), fmt.Append(nil, n), 1) }, there: 10_000, lines: 600},
	}
	for name, f := range floods {
		t.Run(name, func(t *testing.T) {
			const most = 30_000
			heap := func() int64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc)
			}
			before := heap()
			registry, log := (&flood{body: f.body, most: most}).run(t)
			if used := heap() - before - int64(f.there)*2000; used > 1<<20 {
				t.Errorf("%d bytes more than before", used)
			}
			if n := log.count("\n"); n > f.lines {
				t.Errorf("%d lines in the log; at most %d are for people:\n%.2000s", n, f.lines, log)
			}
			c := registry.Counts()[hall.Broker]
			if len(registry.Snapshot()) != f.there || c.Messages != most || (c.Malformed == most) != f.malforms {
				t.Errorf("%d participants, %+v", len(registry.Snapshot()), c)
			}
			runtime.KeepAlive(registry)
		})
	}
}

// BenchmarkListen is what a message costs from the subscription to the register, and back to its acknowledgement.
func BenchmarkListen(b *testing.B) {
	good := announcement(b, define("a1", "a"))
	for name, body := range map[string][]byte{"repeated": good, "malformed": good[:len(good)-2]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			(&flood{body: func(int) []byte { return body }, most: b.N}).run(b)
		})
	}
}
