package nats

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// consume takes b.N messages of 1 KiB from a stream, with a window of 512 and settlements as they come.
func consume(b *testing.B, opts map[string]any) {
	br := server(b)
	nc, js := peer(b, br.URL())
	makeStream(b, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage})
	body := make([]byte, 1024)
	for i := range b.N {
		if _, err := js.PublishAsync("s", body); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			<-js.PublishAsyncComplete()
		}
	}
	<-js.PublishAsyncComplete()
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	opts["stream"] = "S"
	s := subscribe(b, connect(b, br.URL(), "site/bus"), source("in", "s", 512, obj(b, opts)))
	b.ResetTimer()
	for n := 0; n < b.N; {
		ds, err := s.Receive(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		n += len(ds)
		settle(b, s, ds[0].Seq, ds[len(ds)-1].Seq, transport.Ack)
		if err := s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: int64(len(ds)) * 1024}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConsume(b *testing.B)          { consume(b, map[string]any{}) }
func BenchmarkConsumeDoubleAck(b *testing.B) { consume(b, map[string]any{"double_ack": true}) }

func benchmarkPublish(b *testing.B, sink transport.Sink) {
	br := server(b)
	_, js := peer(b, br.URL())
	makeStream(b, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage})
	p := publisher(b, connect(b, br.URL(), "site/bus"), sink)
	const batch = 64
	msgs := make([]transport.Message, batch)
	for i := range msgs {
		msgs[i].Body = make([]byte, 1024)
	}
	rounds := uint64(b.N/batch + 1)
	b.ResetTimer()
	done := make(chan struct{})
	go func() {
		defer close(done)
		confirms(b, p, rounds*batch)
	}()
	for range rounds {
		if err := p.Publish(b.Context(), msgs); err != nil {
			b.Fatal(err)
		}
	}
	<-done
}

func BenchmarkPublishStream(b *testing.B) {
	benchmarkPublish(b, transport.Sink{Name: "out", Address: "s", Options: obj(b, map[string]any{"stream": "S"})})
}

func BenchmarkPublishCore(b *testing.B) {
	benchmarkPublish(b, transport.Sink{Name: "out", Address: "t"})
}
