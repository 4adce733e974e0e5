package participant_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/embedded"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/participant"
	"github.com/flogate/flogate/test/brokers"
)

// local is nats-server in this process, on ports that stay the same.
type local struct {
	at   embedded.Addresses
	opts embedded.Options
	stop func()
}

func startLocal(t testing.TB) *local {
	l := &local{opts: embedded.Options{NATS: "127.0.0.1:0", MQTT: "127.0.0.1:0", DataDir: t.TempDir()}}
	l.start(t)
	t.Cleanup(func() { l.stop() })
	l.opts.NATS, l.opts.MQTT = l.at.NATS, l.at.MQTT
	return l
}

func (l *local) start(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan embedded.Addresses, 1), make(chan error, 1)
	l.opts.Ready = func(a embedded.Addresses) { ready <- a }
	go func() { ended <- embedded.Run(ctx, l.opts, slog.New(slog.DiscardHandler)) }()
	select {
	case l.at = <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("embedded broker: %v", err)
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("embedded broker: %v", err)
		}
	})
}

func stream(name string, subjects ...string) map[string]participant.Options {
	return map[string]participant.Options{"nats": {
		"stream": name, "create_stream": map[string]any{"subjects": subjects},
	}}
}

// runReady runs a participant and waits until its ports are open.
func runReady(t testing.TB, url string, def participant.Definition, handle participant.Handler) *participant.Participant {
	t.Helper()
	ready := make(chan struct{})
	log, _ := logger(t)
	p := participant.New(def, participant.Config{Log: log, Ready: func() { close(ready) }})
	for _, in := range def.Inports {
		p.Handle(in.ID, handle)
	}
	r := run(t, p, url)
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("Run: %v", err)
	case <-bounded(t).Done():
		t.Fatal("never ready")
	}
	return p
}

// chain sends messages from one participant through another, which is started first and fails now and then if told to, to
// a third, and returns what that got. Places with the same address are connected already.
func chain(t testing.TB, url string, messages int, options map[string]participant.Options, disturb map[int]func()) []string {
	t.Helper()
	got := make(chan string, 10*messages)
	runReady(t, url, participant.Definition{
		Role: "sink", Component: "Sink", Inports: []participant.Port{{ID: "in", Address: "flow.repeated", Options: options}},
	}, func(_ context.Context, msg participant.Message) error {
		got <- string(msg.Body)
		return nil
	})
	var repeat *participant.Participant
	started := make(chan struct{})
	repeat = runReady(t, url, participant.Definition{
		Role: "repeat", Component: "Repeat",
		Inports:  []participant.Port{{ID: "in", Address: "flow.in", Options: options}},
		Outports: []participant.Port{{ID: "out", Address: "flow.repeated", Options: options}},
	}, func(ctx context.Context, msg participant.Message) error {
		<-started
		return repeat.Send(ctx, "out", participant.Message{Body: msg.Body, Durable: true})
	})
	close(started)
	source := runReady(t, url, participant.Definition{
		Role: "source", Component: "Source", Outports: []participant.Port{{ID: "out", Address: "flow.in", Options: options}},
	}, nil)

	var all []string
	distinct := make(map[string]bool)
	for n := range messages {
		if err := source.Send(bounded(t), "out", text(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		if f := disturb[n]; f != nil {
			f()
		}
	}
	for len(distinct) < messages {
		select {
		case s := <-got:
			all = append(all, s)
			distinct[s] = true
		case <-bounded(t).Done():
			t.Fatalf("%d of %d messages arrived: %q", len(distinct), messages, all)
		}
	}
	return all
}

func numbers(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

func TestParticipantsMeetOnMQTTAndNATS(t *testing.T) {
	l := startLocal(t)
	for name, c := range map[string]struct {
		url     string
		options map[string]participant.Options
	}{
		"mqtt":      {url: "mqtt://" + l.at.MQTT},
		"nats":      {url: "nats://" + l.at.NATS},
		"jetstream": {"nats://" + l.at.NATS, stream("FLOW", "flow.>")},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(numbers(30), chain(t, c.url, 30, c.options, nil)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingIsLostWhenAnMQTTConnectionIsCut(t *testing.T) {
	m := brokers.Mosquitto(t)
	proxy := transporttest.NewProxy(t, m.Addr())
	cut := func() { proxy.Cut(t) }
	chain(t, "mqtt://"+proxy.Addr(), 60, nil, map[int]func(){20: cut, 40: cut})
}

func TestNothingIsLostWhenAStreamsServerRestarts(t *testing.T) {
	l := startLocal(t)
	restart := func() {
		l.stop()
		l.start(t)
	}
	chain(t, "nats://"+l.at.NATS, 60, stream("FLOW", "flow.>"), map[int]func(){20: restart, 40: restart})
}

func TestStreamDeliversAgainAfterAnError(t *testing.T) {
	l := startLocal(t)
	url, options := "nats://"+l.at.NATS, stream("FLOW", "flow.>")
	var mu sync.Mutex
	var got []string
	runReady(t, url, participant.Definition{
		Role: "sink", Component: "Sink", Inports: []participant.Port{{ID: "in", Address: "flow.in", Options: options}},
	}, func(_ context.Context, msg participant.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(msg.Body))
		switch {
		case string(msg.Body) == "1" && len(got) < 4:
			panic("not yet")
		case string(msg.Body) == "2":
			return participant.Reject(errors.New("never"))
		}
		return nil
	})
	source := runReady(t, url, participant.Definition{
		Role: "source", Component: "Source", Outports: []participant.Port{{ID: "out", Address: "flow.in", Options: options}},
	}, nil)
	for _, body := range numbers(5) {
		if err := source.Send(bounded(t), "out", text(body)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the last message", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(got, "4")
	})
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"0", "1", "1", "1", "2", "3", "4"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestNextLifeGetsWhatCameMeanwhileAndNothingElse(t *testing.T) {
	url := brokers.Mosquitto(t).URL()
	got := make(chan string, 10)
	def := participant.Definition{
		Role: "sink", Component: "Sink", Inports: []participant.Port{{ID: "in", Address: "flow/in"}},
	}
	handle := func(_ context.Context, msg participant.Message) error {
		got <- string(msg.Body)
		return nil
	}
	source := runReady(t, url, participant.Definition{
		Role: "source", Component: "Source", Outports: []participant.Port{{ID: "out", Address: "flow/in"}},
	}, nil)
	send := func(t *testing.T, body string) {
		if err := source.Send(bounded(t), "out", text(body)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(t *testing.T, body string) {
		select {
		case s := <-got:
			if s != body {
				t.Errorf("%q; want %q", s, body)
			}
		case <-bounded(t).Done():
			t.Errorf("%q was lost", body)
		}
	}
	t.Run("first life", func(t *testing.T) {
		runReady(t, url, def, handle)
		send(t, "first")
		expect(t, "first") // and the end, at once
	})
	send(t, "meanwhile")
	t.Run("second life", func(t *testing.T) {
		runReady(t, url, def, handle)
		expect(t, "meanwhile")
		send(t, "last")
		expect(t, "last")
	})
}

// One test for all that is AMQP's: RabbitMQ takes long to start.
func TestOnAMQPItLooksLikeMsgFlo(t *testing.T) {
	rabbit := brokers.RabbitMQ(t)
	proxy := transporttest.NewProxy(t, rabbit.Addr())
	url := strings.Replace(rabbit.URL(), rabbit.Addr(), proxy.Addr(), 1)
	cut := func() { proxy.Cut(t) }
	chain(t, url, 60, nil, map[int]func(){20: cut, 40: cut})

	conn, err := amqp091.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	// Declaring what exists with other arguments is an error: these are the ones of msgflo-nodejs.
	dead := amqp091.Table{"x-dead-letter-exchange": "dead-flow.in"}
	if _, err := ch.QueueDeclare("flow.in", true, false, false, false, dead); err != nil {
		t.Error(err)
	}
	if err := ch.ExchangeDeclare("flow.repeated", "fanout", true, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if _, err := ch.QueueDeclare("fbp", true, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if err := ch.ExchangeDeclarePassive("fbp", "fanout", true, false, false, false, nil); err == nil {
		t.Error("there is an exchange for announcements, and nobody needs one")
	}

	if ch, err = conn.Channel(); err != nil { // the refusal has closed the other
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for len(seen) < 3 {
		d, ok, err := ch.Get("fbp", true)
		if err != nil || !ok {
			t.Fatalf("announced: %v, %v", seen, err)
		}
		def, err := discovery.Parse(d.Body)
		if err != nil {
			t.Fatal(err)
		}
		seen[def.Role] = true
	}

	// A rejected message goes to whoever is bound to the dead letters, and one with an error comes again.
	if err := ch.ExchangeDeclare("dead-worker.JOB", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(q.Name, "", "dead-worker.JOB", false, nil); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	runReady(t, url, participant.Definition{
		Role: "worker", Component: "Worker", Inports: []participant.Port{{ID: "job"}},
	}, func(_ context.Context, msg participant.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(msg.Body))
		switch {
		case string(msg.Body) == "bad":
			return participant.Reject(errors.New("never"))
		case string(msg.Body) == "later" && len(got) < 4:
			return errors.New("not now")
		}
		return nil
	})
	for _, body := range []string{"bad", "later", "good"} {
		msg := amqp091.Publishing{Body: []byte(body)}
		if err := ch.PublishWithContext(t.Context(), "", "worker.JOB", false, false, msg); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the good job", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(got, "good")
	})
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"bad", "later", "later", "later", "good"}, got); diff != "" {
		t.Error(diff)
	}
	if d, ok, err := ch.Get(q.Name, true); err != nil || !ok || string(d.Body) != "bad" {
		t.Errorf("dead letter: %q, %v, %v", d.Body, ok, err)
	}
}

// Two that announce the same places on one queue share the work.
func TestWorkersShareAQueueGroup(t *testing.T) {
	l := startLocal(t)
	url := "nats://" + l.at.NATS
	share := map[string]participant.Options{"nats": {"queue": "workers"}}
	def := participant.Definition{
		Role: "worker", Component: "Worker", Inports: []participant.Port{{ID: "job", Options: share}},
	}
	got := make(chan string, 100)
	for range 2 {
		runReady(t, url, def, func(_ context.Context, msg participant.Message) error {
			got <- string(msg.Body)
			return nil
		})
	}
	source := runReady(t, url, participant.Definition{
		Role: "source", Component: "Source", Outports: []participant.Port{{ID: "out", Address: "worker.JOB"}},
	}, nil)
	for _, body := range numbers(20) {
		if err := source.Send(bounded(t), "out", text(body)); err != nil {
			t.Fatal(err)
		}
	}
	distinct := make(map[string]bool)
	for len(distinct) < 20 {
		select {
		case s := <-got:
			if distinct[s] {
				t.Errorf("%s was done twice", s)
			}
			distinct[s] = true
		case <-time.After(20 * time.Second):
			t.Fatalf("done: %v", distinct)
		}
	}
}
