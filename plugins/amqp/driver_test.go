package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// patience bounds every wait for a broker.
const patience = 20 * time.Second

// deadline returns a context for a whole test.
func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// connect opens a connection with these settings beside the URL, such as `"heartbeat":"1s"`.
func connect(t *testing.T, url string, settings ...string) transport.Conn {
	t.Helper()
	config := fmt.Sprintf(`{%s}`, strings.Join(append(settings, fmt.Sprintf(`"url":%q`, url)), ","))
	c, err := New(slog.New(slog.DiscardHandler)).Connect(deadline(t, patience), transport.ConnectRequest{Name: "site/" + t.Name(), Config: json.RawMessage(config)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// peer is a plain client of the broker, as a participant or an operator would be.
func peer(t *testing.T, url string) *amqp091.Channel {
	t.Helper()
	c, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func subscribe(t *testing.T, c transport.Conn, address, options string) transport.Subscription {
	t.Helper()
	s, err := c.Subscribe(deadline(t, patience), transport.Source{
		Name: "feed", Address: address, Window: transport.Credit{Messages: 1000, Bytes: 1 << 24}, Options: json.RawMessage(options),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Grant(transport.Credit{Messages: 1000, Bytes: 1 << 24}); err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t *testing.T, c transport.Conn, address, options string) transport.Publisher {
	t.Helper()
	p, err := c.Publish(deadline(t, patience), transport.Sink{Name: "out", Address: address, Options: json.RawMessage(options)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// receive returns n deliveries.
func receive(t *testing.T, s transport.Subscription, n int) []transport.Delivery {
	t.Helper()
	ctx := deadline(t, patience)
	var all []transport.Delivery
	for len(all) < n {
		ds, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("%d of %d deliveries, then: %v", len(all), n, err)
		}
		all = append(all, ds...)
	}
	return all
}

func settle(t *testing.T, s transport.Subscription, outcome transport.Outcome, first, last uint64) {
	t.Helper()
	if err := s.Settle(deadline(t, patience), []transport.Settlement{{First: first, Last: last, Outcome: outcome}}); err != nil {
		t.Fatal(err)
	}
}

// send publishes and waits for all confirms; it returns the numbers of those refused, with the reasons.
func send(t *testing.T, p transport.Publisher, msgs ...transport.Message) map[uint64]error {
	t.Helper()
	ctx := deadline(t, patience)
	errs := make(chan error, 1)
	go func() { errs <- p.Publish(ctx, msgs) }()
	refused := make(map[uint64]error)
	for done := 0; done < len(msgs); {
		cs, err := p.Confirms(ctx)
		if err != nil {
			t.Fatalf("%d of %d confirmed, then: %v", done, len(msgs), err)
		}
		for _, c := range cs {
			done += int(c.Last - c.First + 1)
			for n := c.First; c.Refused != nil && n <= c.Last; n++ {
				refused[n] = c.Refused
			}
		}
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	return refused
}

func text(n int) transport.Message {
	return transport.Message{Body: fmt.Appendf(nil, "%d", n)}
}

func bodies(ds []transport.Delivery) []string {
	var bs []string
	for _, d := range ds {
		bs = append(bs, string(d.Body))
	}
	return bs
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReturnBarrier mixes messages that a queue takes with messages that none takes, where returns and confirms race.
func TestReturnBarrier(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 5_000
	}
	url := brokers.RabbitMQ(t).URL()
	p := publish(t, connect(t, url), "", "")
	_, err := peer(t, url).QueueDeclare("there", true, false, false, false, amqp091.Table{"x-max-length": 10})
	must(t, err)
	ctx := deadline(t, 2*time.Minute)
	errs := make(chan error, 1)
	go func() {
		for i := 1; i <= n; i++ {
			m := transport.Message{Body: []byte("the same"), Address: "there", ID: "the same"}
			if i%3 == 0 {
				m.Address = "nowhere"
			}
			if err := p.Publish(ctx, []transport.Message{m}); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	}()
	wrong := 0
	for next := uint64(1); next <= uint64(n); {
		cs, err := p.Confirms(ctx)
		must(t, err)
		for _, c := range cs {
			for ; next <= c.Last; next++ {
				if (next%3 == 0) != (c.Refused != nil) {
					wrong++
				}
			}
		}
	}
	must(t, <-errs)
	if wrong > 0 {
		t.Errorf("%d of %d messages were told apart wrongly", wrong, n)
	}
}

func TestExchangeWithoutListenersTakesEverything(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c := connect(t, url)
	if refused := send(t, publish(t, c, "outport", `{"kind":"exchange"}`), text(1)); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	if refused := send(t, publish(t, c, "outport", `{"kind":"exchange","mandatory":true}`), text(1), text(2)); len(refused) != 2 {
		t.Errorf("with mandatory = true, refused are %v; want both", refused)
	}
}

// TestMissingExchangeEndsThePublisher deletes an exchange under a publisher, which hears of it, and sends what is not
// confirmed through another.
func TestMissingExchangeEndsThePublisher(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	const options = `{"kind":"exchange"}`
	p := publish(t, c, "x", options)
	send(t, p, text(1))
	must(t, ch.ExchangeDelete("x", false, false))
	ctx := deadline(t, patience)
	must(t, p.Publish(ctx, []transport.Message{text(2), text(3)}))
	cs, err := p.Confirms(ctx)
	if !errors.Is(err, transport.ErrClosed) || code(err) != amqp091.NotFound {
		t.Fatalf("confirms are %v, %v; want the broker's 404", cs, err)
	}
	if _, err := c.Publish(ctx, transport.Sink{Address: "x", Options: json.RawMessage(`{"kind":"exchange","declare":false}`)}); !transport.IsPermanent(err) {
		t.Errorf("a place that is not there and may not be made: %v; want a Permanent error", err)
	}
	p = publish(t, c, "x", options)
	s := subscribe(t, c, "x", "")
	send(t, p, text(2), text(3))
	if got := bodies(receive(t, s, 2)); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("received %q", got)
	}
}

// TestFullQueueIsTriedAgain fills a queue that refuses what it cannot hold: that is no refusal for good.
func TestFullQueueIsTriedAgain(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c := connect(t, url)
	const options = `{"max_length":2}`
	p := publish(t, c, "small", options)
	ctx := deadline(t, patience)
	confirmed, ended := uint64(0), error(nil)
	for i := 1; ended == nil && i < 100; i++ {
		if err := p.Publish(ctx, []transport.Message{text(i)}); err != nil {
			break
		}
		var cs []transport.Confirm
		cs, ended = p.Confirms(ctx)
		for _, c := range cs {
			if c.Refused != nil {
				t.Fatalf("%d is refused for good: %v", c.First, c.Refused)
			}
			confirmed = c.Last
		}
	}
	if !errors.Is(ended, transport.ErrClosed) || transport.IsPermanent(ended) {
		t.Fatalf("the publisher ended with %v; want an error that is ErrClosed", ended)
	}
	s := subscribe(t, c, "small", "")
	settle(t, s, transport.Ack, 1, receive(t, s, int(confirmed))[confirmed-1].Seq)
	if refused := send(t, publish(t, c, "small", options), text(100)); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
}

// TestNothingIsConfirmedPastAFullQueue has a queue that is full between messages that the broker takes: the first that it
// does not take ends the publisher, and those behind are sent again, taken or not.
func TestNothingIsConfirmedPastAFullQueue(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	_, err := ch.QueueDeclare("full", true, false, false, false, amqp091.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	must(t, err)
	_, err = ch.QueueDeclare("roomy", true, false, false, false, nil)
	must(t, err)
	must(t, ch.Confirm(false))
	// A classic queue takes messages until it has noticed that it is full.
	for taken := true; taken; {
		d, err := ch.PublishWithDeferredConfirm("", "full", false, false, amqp091.Publishing{})
		must(t, err)
		taken, err = d.WaitContext(deadline(t, patience))
		must(t, err)
	}
	p := publish(t, c, "", "")
	ctx := deadline(t, patience)
	var msgs []transport.Message
	for _, address := range []string{"roomy", "roomy", "full", "roomy", "roomy"} {
		msgs = append(msgs, transport.Message{Address: address})
	}
	must(t, p.Publish(ctx, msgs))
	confirmed := uint64(0)
	for {
		cs, err := p.Confirms(ctx)
		if err != nil {
			if !errors.Is(err, transport.ErrClosed) || transport.IsPermanent(err) {
				t.Errorf("the publisher ended with %v; want an error that passes", err)
			}
			break
		}
		for _, c := range cs {
			if c.Refused != nil {
				t.Errorf("%d is refused for good: %v", c.First, c.Refused)
			}
			confirmed = c.Last
		}
	}
	if confirmed != 2 {
		t.Errorf("confirmed up to %d, want 2: the third was not taken", confirmed)
	}
}

// TestDeletedQueueIsMadeAgain deletes the queue under a publisher. That is no word on the messages: the next publisher makes
// the queue, and what was not confirmed is sent again.
func TestDeletedQueueIsMadeAgain(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	p := publish(t, c, "archive", "")
	send(t, p, text(1))
	_, err := ch.QueueDelete("archive", false, false, false)
	must(t, err)
	ctx := deadline(t, patience)
	must(t, p.Publish(ctx, []transport.Message{text(2), text(3)}))
	if cs, err := p.Confirms(ctx); !errors.Is(err, transport.ErrClosed) || transport.IsPermanent(err) || !strings.Contains(err.Error(), `"archive"`) {
		t.Fatalf("confirms are %v, %v; want none, and an error that passes and names the queue", cs, err)
	}
	must(t, p.Close(ctx))

	_, err = c.Publish(ctx, transport.Sink{Address: "archive", Options: json.RawMessage(`{"declare":false}`)})
	if !transport.IsPermanent(err) || !strings.Contains(err.Error(), `"archive"`) {
		t.Errorf("publish to a queue that may not be made: %v; want a Permanent error that names it", err)
	}

	if refused := send(t, publish(t, c, "archive", ""), text(2), text(3)); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	if got := bodies(receive(t, subscribe(t, c, "archive", ""), 2)); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("received %q", got)
	}
}

// TestUnroutableMessageIsRefused: where each message has an address of its own, and at exchanges, nobody can say what to make.
func TestUnroutableMessageIsRefused(t *testing.T) {
	c := connect(t, brokers.RabbitMQ(t).URL())
	for name, p := range map[string]transport.Publisher{
		"no fixed address":      publish(t, c, "", ""),
		"a mandatory exchange":  publish(t, c, "x", `{"kind":"exchange","mandatory":true}`),
		"one with a fixed key":  publish(t, c, "x", `{"kind":"exchange","mandatory":true,"routing_key":"k"}`),
		"one that has no queue": publish(t, c, "amq.direct", `{"kind":"exchange","mandatory":true}`),
	} {
		refused := send(t, p, transport.Message{Address: "nowhere"})
		if refused[1] == nil || !strings.Contains(refused[1].Error(), "NO_ROUTE") {
			t.Errorf("%s: refused are %v, want NO_ROUTE", name, refused)
		}
	}
}

func TestSmallerLimitOfTheBrokerIsLearned(t *testing.T) {
	b := brokers.OwnRabbitMQ(t, brokers.Config("max_message_size = 1000"))
	c := connect(t, b.URL())
	p := publish(t, c, "q", "")
	large := transport.Message{Body: make([]byte, 1001)}
	ctx := deadline(t, patience)
	must(t, p.Publish(ctx, []transport.Message{text(1), large, text(3)}))
	var err error
	for err == nil {
		_, err = p.Confirms(ctx)
	}
	if !errors.Is(err, transport.ErrClosed) {
		t.Fatal(err)
	}
	if refused := send(t, publish(t, c, "q", ""), text(1), large, text(3)); len(refused) != 1 || refused[2] == nil {
		t.Errorf("refused: %v; want the second", refused)
	}
}

func TestDeletedQueueEndsTheSubscription(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	s := subscribe(t, c, "q", `{"kind":"queue","declare":true}`)
	other := subscribe(t, c, "other", `{"kind":"queue","declare":true}`)
	_, err := ch.QueueDelete("q", false, false, false)
	must(t, err)
	_, err = s.Receive(deadline(t, patience))
	if !errors.Is(err, transport.ErrClosed) || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("receive: %v; want the reason", err)
	}
	must(t, s.Close(deadline(t, patience)))
	// The others go on, and the queue can be had again.
	send(t, publish(t, c, "other", ""), text(1))
	receive(t, other, 1)
	subscribe(t, c, "q", `{"kind":"queue","declare":true}`)
}

// TestNoAckAcrossConnections loses the connection with messages unsettled. On the next one they have the same delivery
// tags again; what is said of the old deliveries must not reach the new ones.
func TestNoAckAcrossConnections(t *testing.T) {
	b := brokers.RabbitMQ(t)
	proxy := brokers.NewProxy(t, b.Addr())
	url := proxy.Through(b.URL())
	c := connect(t, url)
	send(t, publish(t, c, "q", ""), text(1), text(2), text(3))
	s := subscribe(t, c, "q", "")
	receive(t, s, 3)
	proxy.Cut()
	for ctx := deadline(t, patience); ; {
		if _, err := c.Next(ctx); err != nil {
			if !errors.Is(err, transport.ErrClosed) {
				t.Fatal(err)
			}
			break
		}
	}
	next := connect(t, url)
	again := subscribe(t, next, "q", "")
	ds := receive(t, again, 3)
	if err := s.Settle(deadline(t, patience), []transport.Settlement{{First: 1, Last: 3, Outcome: transport.Ack}}); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("settle on the lost connection: %v; want an error that is ErrClosed", err)
	}
	must(t, again.Close(deadline(t, patience)))
	last := subscribe(t, next, "q", "")
	got := receive(t, last, len(ds))
	if !slices.Equal(bodies(got), bodies(ds)) || !got[0].Redelivered {
		t.Errorf("%q have come, after %q were out", bodies(got), bodies(ds))
	}
}

func TestQuorumQueueCountsAndGivesUp(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	must(t, ch.ExchangeDeclare("dead-work", "fanout", true, false, false, false, nil))
	dead := subscribe(t, c, "dead-work", "")
	p := publish(t, c, "work", `{"queue_type":"quorum","delivery_limit":2}`)
	s := subscribe(t, c, "work", `{"unique_ids":true}`)
	send(t, p, transport.Message{Body: []byte("poison"), ID: "id"})
	var attempts []uint32
	for seq := uint64(1); seq <= 3; seq++ {
		d := receive(t, s, 1)[0]
		attempts = append(attempts, d.Attempt)
		if d.SourceID != "work/id" {
			t.Errorf("attempt %d has the source id %q", seq, d.SourceID)
		}
		settle(t, s, transport.Release, seq, seq)
	}
	if !slices.Equal(attempts, []uint32{1, 2, 3}) {
		t.Errorf("attempts are counted %v", attempts)
	}
	d := receive(t, dead, 1)[0]
	if string(d.Body) != "poison" || !slices.Contains(d.Headers, transport.Header{Name: "x-first-death-reason", Value: "delivery_limit"}) {
		t.Errorf("the dead letter is %q with %v", d.Body, d.Headers)
	}
	// A message that carries the broker's own records is sent like any other.
	if refused := send(t, p, d.Message); len(refused) > 0 {
		t.Errorf("refused: %v", refused)
	}
	receive(t, s, 1)
}

// TestParticipantsQueueStaysAsItIs uses what a MsgFlo participant has declared with arguments of its own.
func TestParticipantsQueueStaysAsItIs(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	args := amqp091.Table{"x-dead-letter-exchange": "dead-motor.START", "x-max-length": 7}
	_, err := ch.QueueDeclare("motor.START", false, true, false, false, args)
	must(t, err)
	must(t, ch.ExchangeDeclare("button.PRESSED", "fanout", false, true, false, false, nil))
	send(t, publish(t, c, "motor.START", `{"queue_type":"quorum"}`), text(1))
	s := subscribe(t, c, "motor.START", `{"declare":true}`)
	receive(t, s, 1)
	pressed := subscribe(t, c, "button.PRESSED", `{"declare":true,"exchange_type":"direct"}`)
	must(t, ch.PublishWithContext(t.Context(), "button.PRESSED", "", false, false, amqp091.Publishing{Body: []byte("true")}))
	if d := receive(t, pressed, 1)[0]; d.Address != "button.PRESSED" {
		t.Errorf("the address of a message without a key is %q", d.Address)
	}
	_, err = ch.QueueDeclare("motor.START", false, true, false, false, args)
	must(t, err) // it is as it was
}

// TestMissingInportIsMadeAsMsgFloMakesIt: a participant that comes later declares the same without being refused.
func TestMissingInportIsMadeAsMsgFloMakesIt(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	p := publish(t, c, "motor.START", "")
	_, err := ch.QueueDeclare("motor.START", true, false, false, false, amqp091.Table{"x-dead-letter-exchange": "dead-motor.START"})
	must(t, err)
	must(t, ch.ExchangeDeclare("motor.START", "fanout", true, false, false, false, nil))
	must(t, ch.PublishWithContext(t.Context(), "motor.START", "", false, false, amqp091.Publishing{Body: []byte("1")}))
	s := subscribe(t, c, "motor.START", "")
	receive(t, s, 1)
	send(t, p, text(2))
	if got := bodies(receive(t, s, 1)); !slices.Equal(got, []string{"2"}) {
		t.Errorf("received %q", got)
	}
}

func TestMissingSourceSaysWhatToDo(t *testing.T) {
	c := connect(t, brokers.RabbitMQ(t).URL())
	for _, options := range []string{`{}`, `{"kind":"queue"}`, `{"kind":"exchange"}`} {
		_, err := c.Subscribe(deadline(t, patience), transport.Source{Address: "nothing", Options: json.RawMessage(options)})
		if err == nil || transport.IsPermanent(err) || !strings.Contains(err.Error(), "declare = true") {
			t.Errorf("%s: %v; want an error that passes, with advice", options, err)
		}
	}
}

func TestRoutingKeys(t *testing.T) {
	c := connect(t, brokers.RabbitMQ(t).URL())
	p := publish(t, c, "logs", `{"kind":"exchange","exchange_type":"topic"}`)
	errorsOnly := subscribe(t, c, "logs", `{"kind":"exchange","routing_key":"*.error"}`)
	var msgs []transport.Message
	for _, key := range []string{"disk.info", "disk.error", "net.error", strings.Repeat("x", 256)} {
		msgs = append(msgs, transport.Message{Address: key, Body: []byte(key)})
	}
	if refused := send(t, p, msgs...); len(refused) != 1 || refused[4] == nil {
		t.Errorf("refused: %v; want the key of 256 bytes", refused)
	}
	ds := receive(t, errorsOnly, 2)
	if got := bodies(ds); !slices.Equal(got, []string{"disk.error", "net.error"}) || ds[0].Address != "disk.error" {
		t.Errorf("received %q", got)
	}
}

func TestRemoveDeletesOnlyOurQueue(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	ctx := deadline(t, patience)
	must(t, subscribe(t, c, "theirs", `{"kind":"queue","declare":true}`).Remove(ctx))
	must(t, subscribe(t, c, "outport", `{"declare":true}`).Remove(ctx))
	_, err := ch.QueueDeclarePassive("theirs", true, false, false, false, nil)
	must(t, err)
	_, err = ch.QueueDeclarePassive(ownQueue("site/"+t.Name(), "feed"), true, false, false, false, nil)
	if code(err) != amqp091.NotFound {
		t.Errorf("our queue after Remove: %v; want it gone", err)
	}
}

// TestNothingThatIsSentEndsTheConnection sends what the broker or the library would answer by closing something.
func TestNothingThatIsSentEndsTheConnection(t *testing.T) {
	c := connect(t, brokers.RabbitMQ(t).URL())
	long := strings.Repeat("ü", 200)
	p := publish(t, c, "q", "")
	msgs := []transport.Message{
		{Headers: []transport.Header{{Name: "CC", Value: "elsewhere"}, {Name: "BCC", Value: "elsewhere"}, {Name: "x-death", Value: "x"}}},
		{Headers: []transport.Header{{Name: long, Value: "x"}, {Name: "", Value: "no name"}}},
		{ID: long, CorrelationID: long, ReplyTo: long, ContentType: long, ContentEncoding: long},
		{ReplyTo: directReply},
		{TTL: 1, Priority: 255, Created: time.Unix(-5, 0)},
		{TTL: 1 << 62, Created: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Headers: []transport.Header{{Name: "huge", Value: strings.Repeat("x", 200_000)}}},
		{Headers: []transport.Header{{Name: "large", Value: strings.Repeat("x", 130_000)}}},
		{Body: []byte("last")},
	}
	refused := send(t, p, msgs...)
	if len(refused) != 1 || refused[7] == nil {
		t.Errorf("refused: %v; want the headers that are larger than a frame", refused)
	}
	s := subscribe(t, c, "q", "")
	for d := range slices.Values(receive(t, s, 7)) { // the one with a TTL of 1 ns is gone, or there
		if string(d.Body) == "last" {
			return
		}
	}
	if ds := receive(t, s, 1); string(ds[0].Body) != "last" {
		t.Errorf("the last message is %q", ds[0].Body)
	}
}

func TestWrongPasswordIsPermanent(t *testing.T) {
	b := brokers.RabbitMQ(t)
	url := strings.Replace(b.URL(), "guest:guest@", "guest:hunter2secret@", 1)
	start := time.Now()
	_, err := New(slog.New(slog.DiscardHandler)).Connect(deadline(t, patience), transport.ConnectRequest{Name: "n", Config: fmt.Appendf(nil, `{"url":%q}`, url)})
	if !transport.IsPermanent(err) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("connect: %v; want a Permanent error without the password", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v to be refused", took)
	}
}

func TestMissingVirtualHostMayComeLater(t *testing.T) {
	_, err := New(slog.New(slog.DiscardHandler)).Connect(deadline(t, patience), transport.ConnectRequest{
		Name: "n", Config: fmt.Appendf(nil, `{"url":%q,"vhost":"no such"}`, brokers.RabbitMQ(t).URL()),
	})
	if err == nil || transport.IsPermanent(err) || !strings.Contains(err.Error(), "no such") {
		t.Errorf("connect: %v; want an error that names it and passes", err)
	}
}

func TestTLS(t *testing.T) {
	ours, others := brokers.NewAuthority(t), brokers.NewAuthority(t)
	b := brokers.OwnRabbitMQ(t, brokers.MutualTLS(ours))
	pem := func(file string) string {
		text, err := os.ReadFile(file)
		must(t, err)
		return string(text)
	}
	cert, key := ours.Client("flogate")
	block := func(ca string) string {
		return fmt.Sprintf(`"tls":{"ca":%q,"cert":%q,"key":%q}`, pem(ca), pem(cert), pem(key))
	}
	c := connect(t, b.URL(), block(ours.CAFile()))
	send(t, publish(t, c, "q", ""), transport.Message{Body: make([]byte, 1<<20)})
	if d := receive(t, subscribe(t, c, "q", ""), 1)[0]; len(d.Body) != 1<<20 {
		t.Errorf("received %d bytes", len(d.Body))
	}
	for name, settings := range map[string]string{
		"a broker of another authority": block(others.CAFile()),
		"no client certificate":         fmt.Sprintf(`"tls":{"ca":%q}`, pem(ours.CAFile())),
	} {
		_, err := New(slog.New(slog.DiscardHandler)).Connect(deadline(t, patience), transport.ConnectRequest{
			Name: "n", Config: fmt.Appendf(nil, `{"url":%q,%s}`, b.URL(), settings),
		})
		if err == nil {
			t.Errorf("%s: connected", name)
		}
		if strings.Contains(name, "authority") && !transport.IsPermanent(err) {
			t.Errorf("%s: %v; want a Permanent error", name, err)
		}
	}
}

// TestExclusiveConsumerMayLeave: whoever comes second is refused, and may try again.
func TestExclusiveConsumerMayLeave(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	first, second := connect(t, url), connect(t, url)
	const options = `{"kind":"queue","declare":true,"exclusive":true}`
	s := subscribe(t, first, "q", options)
	ctx := deadline(t, patience)
	if _, err := second.Subscribe(ctx, transport.Source{Address: "q", Options: json.RawMessage(options)}); err == nil || transport.IsPermanent(err) {
		t.Fatalf("subscribe beside an exclusive consumer: %v; want an error that passes", err)
	}
	must(t, s.Close(ctx))
	subscribe(t, second, "q", options)
}

// TestRepeatedHeadersAreAnArray is what other clients of the broker see.
func TestRepeatedHeadersAreAnArray(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	send(t, publish(t, c, "q", ""), transport.Message{Retain: true, Headers: []transport.Header{
		{Name: "h", Value: "1"}, {Name: "other", Value: "x"}, {Name: "h", Value: "2"}, {Name: "raw", Value: "\xff", Binary: true},
	}})
	d, ok, err := ch.Get("q", true)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	want := amqp091.Table{"h": []any{"1", "2"}, "other": "x", "raw": []byte("\xff"), retainHeader: true}
	if diff := cmp.Diff(want, d.Headers); diff != "" {
		t.Error(diff)
	}
	if d.DeliveryMode != amqp091.Persistent {
		t.Error("the message is not persistent")
	}
}

// TestAlarmHoldsPublishersAndNothingElse raises a memory alarm: what is published waits, what is consumed is acknowledged,
// and everything can be closed.
func TestAlarmHoldsPublishersAndNothingElse(t *testing.T) {
	b := brokers.OwnRabbitMQ(t)
	c, ch := connect(t, b.URL()), peer(t, b.URL())
	var msgs []transport.Message
	for i := range 10 {
		msgs = append(msgs, text(i))
	}
	p := publish(t, c, "q", "")
	send(t, p, msgs...)
	b.Ctl("set_vm_memory_high_watermark", "absolute", "1MB")
	ctx := deadline(t, time.Minute)
	must(t, p.Publish(ctx, []transport.Message{text(10)}))
	if cond, err := c.Next(ctx); err != nil || !cond.Blocked || cond.Reason == "" {
		t.Fatalf("the condition is %+v, %v; want it blocked, with the reason", cond, err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if cs, err := p.Confirms(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("confirms are %v, %v while the broker takes nothing", cs, err)
	}
	if _, err := c.Publish(short, transport.Sink{Address: "another"}); err == nil {
		t.Error("a publisher was opened on a connection that the broker does not read")
	}

	s := subscribe(t, c, "q", "")
	settle(t, s, transport.Ack, 1, receive(t, s, 10)[9].Seq)
	must(t, s.Close(ctx))
	if q, err := ch.QueueDeclarePassive("q", true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("%d messages are left, %v; want all acknowledged during the alarm", q.Messages, err)
	}

	start := time.Now()
	must(t, p.Close(ctx))
	must(t, c.Close(ctx))
	if took := time.Since(start); took > 5*closeGrace {
		t.Errorf("closing took %v", took)
	}
	b.Ctl("set_vm_memory_high_watermark", "0.4")
	next := connect(t, b.URL())
	send(t, publish(t, next, "q", ""), text(11))
}
