package wslink

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/flogate/flogate/forwarding"
)

// What a packet shown to 200 clients costs from the outbox to the socket, and the clients' reading of it, all on one machine.
// A packet is counted for all clients together.
func BenchmarkPacketsTo200Clients(b *testing.B) {
	const clients = 200
	var mu sync.Mutex
	var outboxes []*forwarding.Outbox
	server, stop := serveBench(b, func(ctx context.Context, conn *Conn, _ Client) {
		o := forwarding.NewOutbox(0, 0)
		mu.Lock()
		outboxes = append(outboxes, o)
		mu.Unlock()
		var writing sync.WaitGroup
		writing.Go(func() {
			var frames [][]byte
			for {
				var err error
				if frames, _, err = o.Take(ctx, frames[:0]); err != nil || conn.Write(ctx, frames...) != nil {
					return
				}
			}
		})
		_, _ = conn.Read(ctx)
		o.Close(context.Canceled)
		writing.Wait()
	})
	defer stop()
	counts := make([]chan struct{}, clients)
	var all sync.WaitGroup
	for i := range clients {
		c, err := Dial(b.Context(), server, DialOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = c.Close(Normal, "") }()
		counts[i] = make(chan struct{}, 1024)
		all.Go(func() {
			for {
				if _, err := c.Read(b.Context()); err != nil {
					return
				}
				counts[i] <- struct{}{}
			}
		})
	}
	for {
		mu.Lock()
		n := len(outboxes)
		mu.Unlock()
		if n == clients {
			break
		}
	}
	frame := ofSize(400)
	out := 0
	for b.Loop() {
		for _, o := range outboxes {
			if err := o.Push(frame); err != nil {
				b.Fatal(err)
			}
		}
		if out++; out == 512 { // no more in flight than the outboxes hold
			for _, c := range counts {
				for range out {
					<-c
				}
			}
			out = 0
		}
	}
}

func serveBench(b *testing.B, serve func(context.Context, *Conn, Client)) (address string, stop func()) {
	server, err := NewServer(ServerOptions{}, silent(), serve)
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	return "ws://" + l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}
