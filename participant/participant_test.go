package participant_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/participant"
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

func logger(t testing.TB) (*slog.Logger, *logBuffer) {
	b := &logBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the participant logged:\n%s", b)
		}
	})
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// bounded ends before the test binary's own limit would be reached.
func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await polls, where there is nobody to tell of the change.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// running is a participant that runs.
type running struct {
	end  context.CancelFunc
	done chan error
}

// run runs a participant until the test ends, or stop is called.
func run(t testing.TB, p *participant.Participant, url string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{end: cancel, done: make(chan error, 1)}
	go func() { r.done <- p.Run(ctx, url) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.end()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		r.done <- nil // for whoever stops it again
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not return")
	}
}

func motor() participant.Definition {
	return participant.Definition{
		Role: "motor", Component: "demo/Motor", Label: "Runs", Icon: "cog",
		Inports:  []participant.Port{{ID: "start", Type: "boolean"}},
		Outports: []participant.Port{{ID: "running", Description: "while it runs"}},
	}
}

// start runs a participant on a broker in memory, and waits until it is ready.
func start(t testing.TB, m *transporttest.Memory, def participant.Definition, cfg participant.Config,
	handlers func(p *participant.Participant),
) (*participant.Participant, *running) {
	t.Helper()
	ready := make(chan struct{})
	cfg.Driver, cfg.Ready = m.Driver(), func() { close(ready) }
	if cfg.Log == nil {
		cfg.Log, _ = logger(t)
	}
	p := participant.New(def, cfg)
	handlers(p)
	r := run(t, p, "")
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("Run: %v", err)
	case <-bounded(t).Done():
		t.Fatal("never ready")
	}
	return p, r
}

func bodies(msgs []transport.Message) []string {
	var list []string
	for _, m := range msgs {
		list = append(list, string(m.Body))
	}
	return list
}

func text(s string) participant.Message {
	return participant.Message{Body: []byte(s), Durable: true}
}

func TestItAnnouncesItselfOnceItsPortsAreOpen(t *testing.T) {
	m := transporttest.NewMemory()
	def := motor()
	def.Inports = append(def.Inports, participant.Port{ID: "speed", Address: "motors/1/speed", Type: "int"})
	def.Outports = append(def.Outports, participant.Port{ID: "error", Schema: "https://example.org/error.json"})
	subscribers := -1
	ready := func() { subscribers = m.Subscribers("motor.START") + m.Subscribers("motors/1/speed") }
	cfg := participant.Config{Driver: m.Driver(), Ready: ready, Period: 100 * time.Millisecond}
	p := participant.New(def, cfg)
	for _, id := range []string{"start", "speed"} {
		p.Handle(id, func(context.Context, participant.Message) error { return nil })
	}
	run(t, p, "")

	announced, err := m.AwaitPublished(bounded(t), "fbp", 3) // and again
	if err != nil {
		t.Fatal(err)
	}
	if subscribers != 2 {
		t.Errorf("%d inports were open when it was ready; want 2", subscribers)
	}
	got, err := discovery.Parse(announced[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.ID, "motor-") || len(got.ID) < 20 {
		t.Errorf("id %q", got.ID)
	}
	want := discovery.Definition{
		ID: got.ID, Role: "motor", Component: "demo/Motor", Label: "Runs", Icon: "cog",
		Inports: []discovery.Port{
			{ID: "start", Type: "boolean", Queue: "motor.START"},
			{ID: "speed", Type: "int", Queue: "motors/1/speed"},
		},
		Outports: []discovery.Port{
			{ID: "running", Type: "any", Queue: "motor.RUNNING", Description: "while it runs"},
			{ID: "error", Type: "any", Queue: "motor.ERROR", Schema: "https://example.org/error.json"},
		},
		Heartbeat: 100 * time.Millisecond,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEachLifeHasAnIDOfItsOwn(t *testing.T) {
	m := transporttest.NewMemory()
	ids := make(map[string]bool)
	for n := range 2 {
		_, r := start(t, m, motor(), participant.Config{}, func(p *participant.Participant) {
			p.Handle("start", func(context.Context, participant.Message) error { return nil })
		})
		announced, err := m.AwaitPublished(bounded(t), "fbp", n+1)
		if err != nil {
			t.Fatal(err)
		}
		r.stop(t)
		d, err := discovery.Parse(announced[n].Body)
		if err != nil {
			t.Fatal(err)
		}
		ids[d.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("two lives had the ids %v", ids)
	}
}

func TestPeriodAndBrokerComeFromTheEnvironment(t *testing.T) {
	m := transporttest.NewMemory()
	t.Setenv("MSGFLO_DISCOVERY_PERIOD", "7.5")
	start(t, m, motor(), participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(context.Context, participant.Message) error { return nil })
	})
	announced, err := m.AwaitPublished(bounded(t), "fbp", 1)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := discovery.Parse(announced[0].Body); err != nil || d.Heartbeat != 7500*time.Millisecond {
		t.Errorf("heartbeat %v, %v", d.Heartbeat, err)
	}

	t.Setenv("MSGFLO_BROKER", "gopher://127.0.0.1")
	err = participant.New(participant.Definition{Role: "a", Component: "A"}, participant.Config{}).Run(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "gopher") {
		t.Errorf("MSGFLO_BROKER is not used: %v", err)
	}
	for _, period := range []string{"often", "-1", "0", "NaN", "1e12"} {
		t.Setenv("MSGFLO_DISCOVERY_PERIOD", period)
		err := participant.New(participant.Definition{Role: "a", Component: "A"}, participant.Config{}).Run(t.Context(), "mqtt://127.0.0.1")
		if err == nil || !strings.Contains(err.Error(), "MSGFLO_DISCOVERY_PERIOD") {
			t.Errorf("period %q: %v", period, err)
		}
	}
}

func TestMistakesAreErrorsAtOnce(t *testing.T) {
	nothing := func(context.Context, participant.Message) error { return nil }
	for name, c := range map[string]struct {
		change func(*participant.Definition, *participant.Config)
		handle func(*participant.Participant)
		url    string
		want   string
	}{
		"no broker":      {want: "MSGFLO_BROKER"},
		"a name":         {url: "localhost", want: "mqtt://127.0.0.1"},
		"no scheme":      {url: "http://localhost", want: "amqps"},
		"a bad URL":      {url: "mqtt://user:secret%zz@localhost", want: "URL"},
		"no role":        {change: func(d *participant.Definition, _ *participant.Config) { d.Role = "" }, url: "mqtt://localhost", want: "role"},
		"same ids":       {change: func(d *participant.Definition, _ *participant.Config) { d.Outports = append(d.Outports, d.Outports[0]) }, url: "mqtt://localhost", want: "running"},
		"no handler":     {handle: func(*participant.Participant) {}, url: "mqtt://localhost", want: `inport "start" has no handler`},
		"two handlers":   {handle: func(p *participant.Participant) { p.Handle("start", nothing); p.Handle("start", nothing) }, url: "mqtt://localhost", want: "one handler"},
		"no such inport": {handle: func(p *participant.Participant) { p.Handle("stop", nothing) }, url: "mqtt://localhost", want: `no inport "stop"`},
		"wrong options": {
			change: func(d *participant.Definition, _ *participant.Config) {
				d.Inports[0].Options = map[string]participant.Options{"mqtt": {"qos": 7}, "nats": {"what": "ever"}}
			},
			url: "mqtt://localhost", want: `inport "start": qos`,
		},
		"wrong settings": {
			change: func(_ *participant.Definition, c *participant.Config) {
				c.Settings = participant.Options{"keep_alive": "soon"}
			},
			url: "mqtt://localhost", want: "broker: keep_alive",
		},
		"concurrent outport": {
			change: func(d *participant.Definition, _ *participant.Config) { d.Outports[0].Concurrency = 2 },
			url:    "mqtt://localhost", want: `outport "running"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MSGFLO_BROKER", "")
			def, cfg := motor(), participant.Config{}
			if c.change != nil {
				c.change(&def, &cfg)
			}
			p := participant.New(def, cfg)
			if c.handle == nil {
				c.handle = func(p *participant.Participant) { p.Handle("start", nothing) }
			}
			c.handle(p)
			err := p.Run(bounded(t), c.url)
			if err == nil || !transport.IsPermanent(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Run: %v; want an error with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is in %q", err)
			}
		})
	}
}

func TestMessageIsAcknowledgedAfterItsHandler(t *testing.T) {
	m := transporttest.NewMemory()
	entered, leave := make(chan struct{}), make(chan struct{})
	start(t, m, motor(), participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(context.Context, participant.Message) error {
			entered <- struct{}{}
			<-leave
			return nil
		})
	})
	m.Send("motor.START", text("true"))
	<-entered
	if n := m.Held("motor.START"); n != 1 {
		t.Errorf("while it is handled, the broker has %d messages; want 1", n)
	}
	close(leave)
	if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
		t.Errorf("never acknowledged: %v", err)
	}
}

func TestMessageWithAnErrorComesAgainInOrder(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("not now") },
		"panic": func() error { panic("not now") },
	} {
		t.Run(name, func(t *testing.T) {
			m := transporttest.NewMemory()
			log, logged := logger(t)
			var mu sync.Mutex
			var got []string
			start(t, m, motor(), participant.Config{Log: log}, func(p *participant.Participant) {
				p.Handle("start", func(_ context.Context, msg participant.Message) error {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, string(msg.Body))
					if string(msg.Body) == "2" && len(got) < 5 {
						return fail()
					}
					return nil
				})
			})
			m.Send("motor.START", text("1"), text("2"), text("3"), text("4"))
			if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"1", "2", "2", "2", "2", "3", "4"}, got); diff != "" {
				t.Error(diff)
			}
			if log := logged.String(); !strings.Contains(log, "not now") || !strings.Contains(log, "outcome=release") {
				t.Error("nothing is in the log")
			}
		})
	}
}

func TestConcurrentHandlersAreNotHeldUpByOneThatFails(t *testing.T) {
	m := transporttest.NewMemory()
	def := motor()
	def.Inports[0].Concurrency = 2
	var mu sync.Mutex
	var got []string
	start(t, m, def, participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(_ context.Context, msg participant.Message) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(msg.Body))
			if string(msg.Body) == "bad" && len(got) < 10 {
				return errors.New("not before the others are through")
			}
			return nil
		})
	})
	m.Send("motor.START", text("bad"))
	for n := range 9 {
		m.Send("motor.START", text(fmt.Sprint(n)))
	}
	if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if slices.Sort(got); got[len(got)-1] != "bad" || len(slices.Compact(got)) != 10 {
		t.Errorf("handled: %q", got)
	}
}

func TestRejectedMessageNeverComesAgain(t *testing.T) {
	m := transporttest.NewMemory()
	var got []bool
	start(t, m, motor(), participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", participant.JSON(func(_ context.Context, on bool) error {
			got = append(got, on)
			return nil
		}))
	})
	m.Send("motor.START", text("{"), text(`"true"`), text(""), text("true"))
	if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bool{true}, got); diff != "" {
		t.Error(diff)
	}
	if participant.Reject(nil) != nil {
		t.Error("Reject(nil) is an error")
	}
}

func TestWhatTheBrokerDoesNotKeepHoldsNobodyUp(t *testing.T) {
	m := transporttest.NewMemory()
	def := motor()
	def.Inports[0].Options = map[string]participant.Options{"memory": {"acks": false}}
	got := make(chan string, 10)
	start(t, m, def, participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(_ context.Context, msg participant.Message) error {
			got <- string(msg.Body)
			return errors.New("no")
		})
	})
	m.Send("motor.START", text("1"), text("2"), text("3"), text("4"), text("5"))
	for n := range 5 {
		select {
		case s := <-got:
			if want := fmt.Sprint(n + 1); s != want {
				t.Fatalf("%q; want %q", s, want)
			}
		case <-bounded(t).Done():
			t.Fatalf("message %d never came", n+1)
		}
	}
}

func TestConcurrencyIsABound(t *testing.T) {
	for _, most := range []int{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			m := transporttest.NewMemory()
			def := motor()
			def.Inports[0].Concurrency, def.Inports[0].Prefetch = most, 10
			entered, leave := make(chan struct{}, 20), make(chan struct{})
			start(t, m, def, participant.Config{}, func(p *participant.Participant) {
				p.Handle("start", func(context.Context, participant.Message) error {
					entered <- struct{}{}
					<-leave
					return nil
				})
			})
			for range 20 {
				m.Send("motor.START", text("x"))
			}
			if err := m.Await(bounded(t), func() bool { return m.Unsettled("motor.START") == 10 }); err != nil {
				t.Fatal(err)
			}
			await(t, "the handlers are busy", func() bool { return len(entered) >= most })
			if n := len(entered); n != most {
				t.Errorf("%d handlers at a time; want %d", n, most)
			}
			close(leave)
			if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestSendReturnsAfterTheConfirm(t *testing.T) {
	m := transporttest.NewMemory()
	p, _ := start(t, m, participant.Definition{
		Role: "button", Component: "Button", Outports: []participant.Port{{ID: "pressed"}},
	}, participant.Config{}, func(*participant.Participant) {})
	m.Stall()
	sent := make(chan error, 1)
	go func() { sent <- p.SendJSON(bounded(t), "pressed", map[string]int{"times": 2}) }()
	msgs, err := m.AwaitPublished(bounded(t), "button.PRESSED", 1)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-sent:
		t.Fatalf("Send returned %v before the confirm", err)
	default:
	}
	m.Resume()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if m := msgs[0]; string(m.Body) != `{"times":2}` || m.ContentType != "application/json" || !m.Durable {
		t.Errorf("sent: %+v", m)
	}
}

func TestSendSaysWhyItFailed(t *testing.T) {
	m := transporttest.NewMemory()
	p, r := start(t, m, participant.Definition{
		Role: "button", Component: "Button", Outports: []participant.Port{{ID: "pressed"}},
	}, participant.Config{}, func(*participant.Participant) {})

	if err := p.Send(t.Context(), "released", text("")); !transport.IsPermanent(err) {
		t.Errorf("no such port: %v", err)
	}
	if err := p.SendJSON(t.Context(), "pressed", make(chan int)); !transport.IsPermanent(err) {
		t.Errorf("no JSON: %v", err)
	}
	m.Refuse("button.PRESSED", errors.New("too heavy"))
	if err := p.Send(bounded(t), "pressed", text("")); !transport.IsPermanent(err) || !strings.Contains(err.Error(), "too heavy") {
		t.Errorf("refused: %v", err)
	}
	m.Refuse("button.PRESSED", nil)
	if err := p.Send(bounded(t), "pressed", text("")); err != nil {
		t.Errorf("after a refusal: %v", err)
	}

	m.RefuseConnections(errors.New("closed for lunch"))
	m.KillConnections("lunch")
	if err := m.Await(bounded(t), func() bool { return m.Connections() == 0 }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Send(ctx, "pressed", text("late")); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lunch") {
		t.Errorf("out of time: %v", err)
	}
	m.RefuseConnections(nil)
	if err := p.Send(bounded(t), "pressed", text("in time")); err != nil {
		t.Error(err)
	}
	if got := bodies(m.PublishedTo("button.PRESSED")); slices.Contains(got, "late") {
		t.Errorf("given up, and sent all the same: %q", got)
	}

	r.stop(t)
	if err := p.Send(bounded(t), "pressed", text("")); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if err := p.Run(t.Context(), ""); !transport.IsPermanent(err) {
		t.Errorf("the second Run: %v", err)
	}
}

func TestBodyMayBeUsedAgainAfterSend(t *testing.T) {
	m := transporttest.NewMemory()
	p, _ := start(t, m, participant.Definition{
		Role: "button", Component: "Button", Outports: []participant.Port{{ID: "pressed"}},
	}, participant.Config{}, func(*participant.Participant) {})
	m.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	body := []byte("mine")
	sent := make(chan error)
	go func() { sent <- p.Send(ctx, "pressed", participant.Message{Body: body, Durable: true}) }()
	if _, err := m.AwaitPublished(bounded(t), "button.PRESSED", 1); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %v", err)
	}
	copy(body, "junk")
	m.Resume()
	if got := bodies(m.PublishedTo("button.PRESSED")); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("at the broker: %q", got)
	}
}

func TestBrokerMayComeLate(t *testing.T) {
	m := transporttest.NewMemory()
	m.RefuseConnections(errors.New("not yet"))
	ready := make(chan struct{})
	p := participant.New(motor(), participant.Config{Driver: m.Driver(), Ready: func() { close(ready) }})
	p.Handle("start", func(context.Context, participant.Message) error { return nil })
	run(t, p, "")
	sent := make(chan error, 1)
	go func() { sent <- p.Send(bounded(t), "running", text("true")) }()
	select {
	case <-ready:
		t.Fatal("ready without a broker")
	case err := <-sent:
		t.Fatalf("sent without a broker: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	m.RefuseConnections(nil)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	<-ready
}

func TestNothingIsLostWhileConnectionsAreKilled(t *testing.T) {
	m := transporttest.NewMemory()
	const messages, kills = 300, 5
	def := motor()
	def.Inports[0].Prefetch = 20
	reached, goOn := make(chan struct{}), make(chan struct{})
	due := make(map[string]bool) // the messages during which connections are killed
	for kill := range kills {
		due[fmt.Sprint((2*kill+1)*messages/(2*kills))] = true
	}
	start(t, m, def, participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(ctx context.Context, msg participant.Message) error {
			if body := string(msg.Body); due[body] {
				delete(due, body) // it comes again
				reached <- struct{}{}
				<-goOn
			}
			return p.Send(ctx, "running", text(string(msg.Body)))
		})
	})
	for n := range messages {
		m.Send("motor.START", text(fmt.Sprint(n)))
	}
	for kill := range kills {
		<-reached
		if kill%2 == 0 {
			m.KillConnections("killed")
		} else {
			m.Restart()
		}
		goOn <- struct{}{}
	}
	if err := m.Await(bounded(t), func() bool { return m.Held("motor.START") == 0 }); err != nil {
		t.Fatal(err)
	}
	// First occurrences are complete and in order; some come twice.
	next := 0
	for _, body := range bodies(m.PublishedTo("motor.RUNNING")) {
		if body == fmt.Sprint(next) {
			next++
		}
	}
	if next != messages {
		t.Errorf("%d messages in order; want %d", next, messages)
	}
	if n := m.Lives(); n != kills+1 {
		t.Errorf("%d connections; want %d", n, kills+1)
	}
}

func TestSendsKeepTheirOrderOverALostConnection(t *testing.T) {
	m := transporttest.NewMemory()
	p, _ := start(t, m, participant.Definition{
		Role: "button", Component: "Button", Outports: []participant.Port{{ID: "pressed"}},
	}, participant.Config{}, func(*participant.Participant) {})
	m.Stall() // so that many are on their way
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			if err := p.Send(bounded(t), "pressed", text(fmt.Sprint(n))); err != nil {
				t.Error(err)
			}
		})
		if _, err := m.AwaitPublished(bounded(t), "button.PRESSED", n+1); err != nil {
			t.Fatal(err)
		}
	}
	m.KillConnections("killed")
	m.Resume()
	wg.Wait()
	once := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
	if diff := cmp.Diff(slices.Concat(once, once), bodies(m.PublishedTo("button.PRESSED"))); diff != "" {
		t.Error(diff)
	}
}

func TestHandlerIsHeardOutAtTheEnd(t *testing.T) {
	m := transporttest.NewMemory()
	entered, leave := make(chan struct{}), make(chan struct{})
	_, r := start(t, m, motor(), participant.Config{}, func(p *participant.Participant) {
		p.Handle("start", func(ctx context.Context, msg participant.Message) error {
			entered <- struct{}{}
			<-leave
			return p.Send(ctx, "running", msg)
		})
	})
	m.Send("motor.START", text("1"), text("2"))
	<-entered
	r.end()
	close(leave)
	r.stop(t)
	if got := bodies(m.PublishedTo("motor.RUNNING")); !slices.Equal(got, []string{"1"}) {
		t.Errorf("sent: %q", got)
	}
	if n := m.Held("motor.START"); n != 1 {
		t.Errorf("the broker has %d messages; want the second one", n)
	}
	if n := m.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestHandlerThatTakesTooLongIsToldToEnd(t *testing.T) {
	m := transporttest.NewMemory()
	entered := make(chan struct{})
	_, r := start(t, m, motor(), participant.Config{Drain: 20 * time.Millisecond}, func(p *participant.Participant) {
		p.Handle("start", func(ctx context.Context, _ participant.Message) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	m.Send("motor.START", text("1"))
	<-entered
	r.stop(t)
	if n := m.Held("motor.START"); n != 1 {
		t.Errorf("the broker has %d messages; want the one that was not handled", n)
	}
}

func TestAnnouncementIsJSONForMsgFlo(t *testing.T) {
	m := transporttest.NewMemory()
	start(t, m, participant.Definition{Role: "r", Component: "C"}, participant.Config{Discovery: "msgflo/discover"}, func(*participant.Participant) {})
	announced, err := m.AwaitPublished(bounded(t), "msgflo/discover", 1)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(announced[0].Body, &got); err != nil {
		t.Fatal(err)
	}
	payload, _ := got["payload"].(map[string]any)
	delete(payload, "id")
	want := map[string]any{
		"protocol": "discovery", "command": "participant",
		"payload": map[string]any{"role": "r", "component": "C", "inports": []any{}, "outports": []any{}, "heartbeat": 60.0},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
