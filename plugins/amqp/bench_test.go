//go:build unix

package amqp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"syscall"
	"testing"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

// The driver beside the plain library with the same window, on the same broker. Read the ratio.

const benchWindow = 512

// reportCPU reports what this process, without the broker, has used since; call the result when the work is done.
func reportCPU(b *testing.B) func() {
	used := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkPublish(b *testing.B) {
	url := brokers.RabbitMQ(b).URL()
	body := make([]byte, 1024)
	if _, err := fill(b, url).QueueDeclare("bench", true, false, false, false, amqp091.Table{"x-max-length": 1000}); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1, 64} {
		b.Run(fmt.Sprintf("driver/batch=%d", size), func(b *testing.B) {
			c, err := New(slog.New(slog.DiscardHandler)).Connect(b.Context(), transport.ConnectRequest{Name: "b", Config: fmt.Appendf(nil, `{"url":%q}`, url)})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close(context.Background())
			p, err := c.Publish(b.Context(), transport.Sink{Address: "bench"})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			defer reportCPU(b)()
			go func() {
				msgs := make([]transport.Message, 0, size)
				for i := range b.N {
					msgs = append(msgs, transport.Message{Body: body})
					if len(msgs) == size || i == b.N-1 {
						if p.Publish(b.Context(), msgs) != nil {
							return
						}
						msgs = msgs[:0]
					}
				}
			}()
			for last := 0; last < b.N; {
				cs, err := p.Confirms(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				last = int(cs[len(cs)-1].Last)
			}
		})
	}
	b.Run("library", func(b *testing.B) {
		c, err := amqp091.Dial(url)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		ch, err := c.Channel()
		if err != nil {
			b.Fatal(err)
		}
		if err := ch.Confirm(false); err != nil {
			b.Fatal(err)
		}
		confirms := ch.NotifyPublish(make(chan amqp091.Confirmation, benchWindow))
		room := make(chan struct{}, benchWindow)
		b.ReportAllocs()
		b.ResetTimer()
		defer reportCPU(b)()
		go func() {
			for range b.N {
				room <- struct{}{}
				if ch.PublishWithContext(b.Context(), "", "bench", false, false, amqp091.Publishing{Body: body, DeliveryMode: amqp091.Persistent}) != nil {
					return
				}
			}
		}()
		for range b.N {
			<-confirms
			<-room
		}
	})
}

func BenchmarkConsume(b *testing.B) {
	url := brokers.RabbitMQ(b).URL()
	ch := fill(b, url)
	own := ownQueue("b", "b")
	if _, err := ch.QueueDeclare(own, true, false, false, false, nil); err != nil {
		b.Fatal(err)
	}
	for name, src := range map[string]transport.Source{
		"queue":    {Address: "full"},
		"exchange": {Address: "x", Options: json.RawMessage(`{"kind":"exchange","declare":true}`)},
	} {
		b.Run("driver/"+name, func(b *testing.B) {
			if src.Address == "full" {
				refill(b, ch, "full")
			} else {
				refill(b, ch, own)
			}
			c, err := New(slog.New(slog.DiscardHandler)).Connect(b.Context(), transport.ConnectRequest{Name: "b", Config: fmt.Appendf(nil, `{"url":%q}`, url)})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close(context.Background())
			window := transport.Credit{Messages: benchWindow, Bytes: 1 << 24}
			b.ReportAllocs()
			b.ResetTimer()
			defer reportCPU(b)()
			src.Name, src.Window = "b", window
			s, err := c.Subscribe(b.Context(), src)
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Grant(window); err != nil {
				b.Fatal(err)
			}
			for n := 0; n < b.N; {
				ds, err := s.Receive(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				n += len(ds)
				if err := s.Settle(b.Context(), []transport.Settlement{{First: ds[0].Seq, Last: ds[len(ds)-1].Seq, Outcome: transport.Ack}}); err != nil {
					b.Fatal(err)
				}
				if err := s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: int64(1024 * len(ds))}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("library", func(b *testing.B) {
		refill(b, ch, "full")
		c, err := amqp091.Dial(url)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		ch, err := c.Channel()
		if err != nil {
			b.Fatal(err)
		}
		if err := ch.Qos(benchWindow, 0, false); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		b.ResetTimer()
		defer reportCPU(b)()
		ds, err := ch.Consume("full", "", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			d := <-ds
			if err := d.Ack(false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func fill(b *testing.B, url string) *amqp091.Channel {
	c, err := amqp091.Dial(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ch, err := c.Channel()
	if err != nil {
		b.Fatal(err)
	}
	if _, err := ch.QueueDeclare("full", true, false, false, false, nil); err != nil {
		b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	return ch
}

// refill puts as many messages into a queue as the benchmark takes out, and some.
func refill(b *testing.B, ch *amqp091.Channel, queue string) {
	if _, err := ch.QueuePurge(queue, false); err != nil {
		b.Fatal(err)
	}
	var last *amqp091.DeferredConfirmation
	for range b.N + benchWindow {
		var err error
		if last, err = ch.PublishWithDeferredConfirm("", queue, false, false, amqp091.Publishing{Body: make([]byte, 1024)}); err != nil {
			b.Fatal(err)
		}
	}
	if ok, err := last.WaitContext(b.Context()); !ok {
		b.Fatal(err)
	}
}
