package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// edge sends messages as the gateway does: again from the first that is not confirmed, on one connection after another.
type edge struct {
	sink    transport.Sink
	msgs    []transport.Message
	done    int
	refused map[int]error
}

// live is one life: it returns when everything is confirmed or the connection is lost.
func (e *edge) live(ctx context.Context, c transport.Conn) error {
	p, err := c.Publish(ctx, e.sink)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(ctx) }()
	var wg sync.WaitGroup
	defer wg.Wait()
	rest := e.msgs[e.done:]
	wg.Go(func() { _ = p.Publish(ctx, rest) }) // Confirms says why
	before := e.done
	for e.done < len(e.msgs) {
		cs, err := p.Confirms(ctx)
		if err != nil {
			return err
		}
		for _, c := range cs {
			if c.Refused != nil {
				for n := c.First; n <= c.Last; n++ {
					e.refused[before+int(n)-1] = c.Refused
				}
			}
			e.done = before + int(c.Last)
		}
	}
	return nil
}

// run lets edges send over connections that they share until all are done, or the given number of lives is over.
func run(t *testing.T, d transport.Driver, url string, lives int, edges ...*edge) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for range lives {
		c, err := d.Connect(ctx, transport.ConnectRequest{Name: "site/hall", Config: configure("url", url)})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, e := range edges {
			if e.refused == nil {
				e.refused = make(map[int]error)
			}
			wg.Go(func() {
				if err := e.live(ctx, c); err != nil && !errors.Is(err, transport.ErrClosed) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := c.Close(ctx); err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, e := range edges {
			left += len(e.msgs) - e.done
		}
		if left == 0 {
			return
		}
	}
}

func messages(n int, body string) []transport.Message {
	ms := make([]transport.Message, n)
	for i := range ms {
		ms[i].Body = []byte(body)
	}
	return ms
}

// onlyRefused fails the test unless everything is done and the messages given, alone, were refused.
func (e *edge) onlyRefused(t *testing.T, want ...int) {
	t.Helper()
	if e.done != len(e.msgs) {
		t.Errorf("%s: %d of %d messages are done", e.sink.Name, e.done, len(e.msgs))
	}
	for _, i := range want {
		if !transport.IsPermanent(e.refused[i]) {
			t.Errorf("%s: message %d: %v; want it to be refused", e.sink.Name, i, e.refused[i])
		}
	}
	if len(e.refused) != len(want) {
		t.Errorf("%s: refused are %v; want %v alone", e.sink.Name, e.refused, want)
	}
}

func TestMessageOverWhichTheBrokerHangsUpIsRefused(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 50_000)
	for _, tt := range []struct {
		name string
		url  func(*testing.T) string
		body []byte
	}{
		{"mosquitto", func(t *testing.T) string {
			return startMosquitto(t, brokers.Volatile(), brokers.Config("max_packet_size 40000")).URL()
		}, large},
		{"nats-server", func(t *testing.T) string { // its max_payload is 1 MiB
			_, url := natsMQTT(t)
			return url
		}, bytes.Repeat(large, 40)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &edge{sink: transport.Sink{Name: "e", Address: "a"}, msgs: messages(300, "small")}
			e.msgs[200].Body = tt.body
			run(t, New(slog.New(slog.DiscardHandler)), tt.url(t), 12, e)
			e.onlyRefused(t, 200)
		})
	}
}

func TestOnlyTheMessageOverWhichTheBrokerHangsUpIsRefused(t *testing.T) {
	m := startMosquitto(t, brokers.Volatile(), brokers.Config("max_packet_size 2000"))
	guilty := &edge{sink: transport.Sink{Name: "guilty", Address: "a"}, msgs: messages(20, "small")}
	guilty.msgs[7].Body = bytes.Repeat([]byte("x"), 3000) // not plainly large: the other edges are the sign that the broker works
	var innocent []*edge
	for i := range 3 {
		innocent = append(innocent, &edge{sink: transport.Sink{Name: fmt.Sprint("innocent ", i), Address: "b"}, msgs: messages(2000, "the same")})
	}
	run(t, New(slog.New(slog.DiscardHandler)), m.URL(), 20, append(innocent, guilty)...)
	for _, e := range innocent {
		e.onlyRefused(t)
	}
	guilty.onlyRefused(t, 7)
}

// hangUp is a broker that confirms the first messages of each connection and hangs up over the next, whatever it is.
func hangUp(confirmed int) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, in *bufio.Reader) {
		for left := confirmed; ; {
			p, err := packets.ReadPacket(in)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.ConnectPacket:
				_, _ = conn.Write(connack)
			case *packets.PublishPacket:
				if left--; left < 0 {
					return
				}
				_, _ = conn.Write([]byte{typePuback, 2, byte(p.MessageID >> 8), byte(p.MessageID)})
			case *packets.DisconnectPacket:
				return
			}
		}
	}
}

// nats-server does that while its disk is full, and so does a broker that crashes over and over.
func TestNothingIsRefusedByABrokerThatTakesNothing(t *testing.T) {
	e := &edge{sink: transport.Sink{Name: "e", Address: "a"}, msgs: messages(3, strings.Repeat("x", 2*plainlyLarge))}
	run(t, New(slog.New(slog.DiscardHandler)), pretend(t, hangUp(0)), 7, e)
	if e.done > 0 || len(e.refused) > 0 {
		t.Errorf("%d done, refused %v; want nothing", e.done, e.refused)
	}
}

func TestNothingIsRefusedByABrokerThatGoesDownOverAndOver(t *testing.T) {
	e := &edge{sink: transport.Sink{Name: "e", Address: "a"}, msgs: messages(12, "the same")}
	run(t, New(slog.New(slog.DiscardHandler)), pretend(t, hangUp(2)), 10, e)
	e.onlyRefused(t)
}

func TestSuspicion(t *testing.T) {
	big, other := flight{topic: "a", body: bytes.Repeat([]byte("x"), plainlyLarge)}, flight{topic: "a", body: []byte("other")}
	type step func(*suspicion)
	lost := func(n int, only *flight) step {
		return func(s *suspicion) { s.lost(true, time.Second, n, only) }
	}
	alone, confirmed := lost(1, &big), func(f flight) step { return func(s *suspicion) { s.confirmed(f.topic, f.body) } }
	for _, tt := range []struct {
		name  string
		steps []step
		want  bool
	}{
		{"three times, larger than any", []step{confirmed(other), alone, alone, alone}, true},
		{"twice", []step{confirmed(other), alone, alone}, false},
		{"nothing was ever confirmed", []step{alone, alone, alone, alone}, false},
		{"a larger one was confirmed before", []step{confirmed(flight{"b", bytes.Repeat(big.body, 2), time.Time{}}), alone, alone, alone}, false},
		{"another was confirmed meanwhile", []step{alone, confirmed(flight{"b", bytes.Repeat(big.body, 2), time.Time{}}), alone, alone}, true},
		{"the same was confirmed meanwhile", []step{alone, alone, confirmed(big), alone, alone}, false},
		{"not alone between", []step{confirmed(other), alone, alone, lost(2, nil), alone}, false},
		{"another message between", []step{confirmed(other), alone, alone, lost(1, &other), alone}, false},
		{"lost for another reason between", []step{confirmed(other), alone, alone, func(s *suspicion) { s.lost(false, time.Second, 1, &big) }, alone}, false},
		{"nothing on its way between", []step{confirmed(other), alone, alone, lost(0, nil), alone}, false},
		{"a long life between", []step{confirmed(other), alone, alone, func(s *suspicion) { s.lost(true, 2*shortLife, 1, &big) }, alone}, false},
		{"long ago", []step{confirmed(other), alone, alone, alone, func(*suspicion) { time.Sleep(2 * verdictTime) }}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s suspicion
				for _, step := range tt.steps {
					step(&s)
				}
				if got := s.guilty(big.topic, big.body); got != tt.want {
					t.Errorf("guilty is %t; want %t", got, tt.want)
				}
				if s.guilty("b", big.body) || s.guilty(big.topic, big.body[1:]) {
					t.Error("another message is guilty")
				}
			})
		})
	}
}

func TestHangUpIsToldFromOtherEnds(t *testing.T) {
	for err, want := range map[error]bool{
		errHungUp: true,
		fmt.Errorf("read: %w", syscall.ECONNRESET): true,
		fmt.Errorf("write: %w", syscall.EPIPE):     true,
		io.ErrUnexpectedEOF:                        false,
		transport.ErrClosed:                        false,
		errors.New("the broker has been silent"):   false,
	} {
		if isHangUp(err) != want {
			t.Errorf("%v: %t; want %t", err, !want, want)
		}
	}
}

func TestClosedPublisherGivesWayToAnother(t *testing.T) {
	silent := pretend(t, func(conn net.Conn, in *bufio.Reader) {
		if _, err := packets.ReadPacket(in); err == nil {
			_, _ = conn.Write(connack)
			_, _ = io.Copy(io.Discard, in)
		}
	})
	d := New(slog.New(slog.DiscardHandler)).(*driver)
	d.suspicion("site/hall").losses = 2
	c, err := d.Connect(t.Context(), transport.ConnectRequest{Name: "site/hall", Config: configure("url", silent)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	first, err := c.Publish(t.Context(), transport.Sink{Name: "first", Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Publish(t.Context(), messages(1, "x")); err != nil {
		t.Fatal(err)
	}
	second, err := c.Publish(t.Context(), transport.Sink{Name: "second", Address: "b"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := second.Publish(ctx, messages(1, "y")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("publish while another message is on its way: %v; want it to wait", err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	third, err := c.Publish(t.Context(), transport.Sink{Name: "third", Address: "b"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), carefulTime/2)
	defer cancel()
	if err := third.Publish(ctx, messages(1, "y")); err != nil {
		t.Errorf("publish after that: %v", err)
	}
}

func TestMessageIsMeasuredWithItsTopicAndHeaders(t *testing.T) {
	const limit = 1 << 20
	_, url := natsMQTT(t) // whose max_payload is that
	topic := "t"
	e := &edge{sink: transport.Sink{Name: "e", Address: topic}, msgs: []transport.Message{
		{Body: make([]byte, limit)},
		{Body: make([]byte, limit-messageHeaders)},
		{Body: make([]byte, limit-messageHeaders-len(topic))},
		{},
	}}
	for _, qos := range []string{`{}`, `{"qos":2}`} {
		c := connect(t, "site", "url", url, "max_message", limit)
		e.done, e.refused, e.sink.Options = 0, make(map[int]error), []byte(qos)
		if err := e.live(t.Context(), c); err != nil {
			t.Errorf("%s: the connection was lost: %v", qos, err)
		}
		e.onlyRefused(t, 0, 1)
	}
}
