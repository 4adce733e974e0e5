package wire_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/flogate/flogate/core/transport"
)

// endless is a driver that delivers as much as there is credit for, and confirms everything at once: what is left is the wire.
type endless struct{ transport.Driver }

func (e endless) Connect(context.Context, transport.ConnectRequest) (transport.Conn, error) {
	return &endlessConn{done: make(chan struct{})}, nil
}

type endlessConn struct {
	transport.Conn
	once sync.Once
	done chan struct{}
}

func (c *endlessConn) Info() transport.ConnInfo { return transport.ConnInfo{} }

func (c *endlessConn) Next(ctx context.Context) (transport.Condition, error) {
	select {
	case <-c.done:
		return transport.Condition{}, transport.ErrClosed
	case <-ctx.Done():
		return transport.Condition{}, ctx.Err()
	}
}

func (c *endlessConn) Close(context.Context) error {
	c.once.Do(func() { close(c.done) })
	return nil
}

func (c *endlessConn) Subscribe(_ context.Context, src transport.Source) (transport.Subscription, error) {
	var size int
	if _, err := fmt.Sscan(src.Address, &size); err != nil {
		return nil, err
	}
	s := &endlessSub{inbox: transport.NewInbox[struct{}](false), msg: transport.Message{Body: make([]byte, size), Address: "sensors/hall"}}
	for range src.Window.Messages {
		s.inbox.Put(s.msg, struct{}{})
	}
	return s, nil
}

func (c *endlessConn) Publish(context.Context, transport.Sink) (transport.Publisher, error) {
	return &endlessPub{transport.NewOutbox(1024)}, nil
}

type endlessSub struct {
	inbox *transport.Inbox[struct{}]
	msg   transport.Message
}

func (s *endlessSub) Receive(ctx context.Context) ([]transport.Delivery, error) {
	return s.inbox.Receive(ctx)
}
func (s *endlessSub) Grant(c transport.Credit) error { return s.inbox.Grant(c) }
func (s *endlessSub) Close(context.Context) error {
	s.inbox.Fail(nil)
	return nil
}
func (s *endlessSub) Remove(ctx context.Context) error { return s.Close(ctx) }
func (s *endlessSub) Settle(_ context.Context, settlements []transport.Settlement) error {
	settled, err := s.inbox.Settle(settlements)
	for range settled {
		s.inbox.Put(s.msg, struct{}{})
	}
	return err
}

type endlessPub struct{ outbox *transport.Outbox }

func (p *endlessPub) Publish(ctx context.Context, msgs []transport.Message) error {
	for range msgs {
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		p.outbox.Done(n, n, nil)
	}
	return nil
}

func (p *endlessPub) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *endlessPub) Close(context.Context) error {
	p.outbox.Fail(nil)
	return nil
}

func benchConn(b *testing.B) transport.Conn {
	b.Helper()
	conn, err := overUnix(b, endless{}).Connect(b.Context(), transport.ConnectRequest{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// BenchmarkDeliver is one way over a unix socket, both halves in this process: deliver, settle and grant.
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			conn := benchConn(b)
			window := transport.Credit{Messages: 500, Bytes: 500 * int64(size)}
			sub, err := conn.Subscribe(b.Context(), transport.Source{Address: fmt.Sprint(size), Window: window})
			if err != nil {
				b.Fatal(err)
			}
			if err := sub.Grant(window); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; {
				ds, err := sub.Receive(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				n += len(ds)
				if err := sub.Settle(b.Context(), []transport.Settlement{{First: ds[0].Seq, Last: ds[len(ds)-1].Seq, Outcome: transport.Ack}}); err != nil {
					b.Fatal(err)
				}
				if err := sub.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: int64(len(ds) * size)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPublish is the other way: publish and confirm.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			conn := benchConn(b)
			pub, err := conn.Publish(b.Context(), transport.Sink{Address: "a"})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			confirmed := make(chan error, 1)
			go func() {
				for n := 0; n < b.N; {
					cs, err := pub.Confirms(b.Context())
					if err != nil {
						confirmed <- err
						return
					}
					n = int(cs[len(cs)-1].Last)
				}
				confirmed <- nil
			}()
			msg := []transport.Message{{Body: make([]byte, size), Address: "sensors/hall"}}
			for range b.N {
				if err := pub.Publish(b.Context(), msg); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-confirmed; err != nil {
				b.Fatal(err)
			}
		})
	}
}
