package wire_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/core/wire"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// script is a plugin that sends what a test has written, whatever it is asked.
type script struct {
	pb.UnimplementedTransportServiceServer
	connect []*pb.ConnectResponse
	receive []*pb.ReceiveResponse
	publish []*pb.PublishResponse
	// after is what the streams end with after that; nil: not before the host ends them.
	after error
	// deaf: the streams read nothing after the first request.
	deaf bool
}

func (s *script) end(ctx context.Context) error {
	if s.after != nil {
		return s.after
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *script) Connect(_ *pb.ConnectRequest, stream grpc.ServerStreamingServer[pb.ConnectResponse]) error {
	responses := s.connect
	if responses == nil {
		responses = []*pb.ConnectResponse{{Kind: &pb.ConnectResponse_Connected{Connected: &pb.Connected{ConnectionId: "1"}}}}
	}
	for _, r := range responses {
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	if s.connect != nil {
		return s.end(stream.Context())
	}
	<-stream.Context().Done()
	return nil
}

func (s *script) Disconnect(context.Context, *pb.DisconnectRequest) (*pb.DisconnectResponse, error) {
	return &pb.DisconnectResponse{}, nil
}

func (s *script) Receive(stream grpc.BidiStreamingServer[pb.ReceiveRequest, pb.ReceiveResponse]) error {
	for i, r := range s.receive {
		if err := stream.Send(r); err != nil {
			return err
		}
		if i == 0 {
			for range 2 { // open and the first credit
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
		}
	}
	return s.end(stream.Context())
}

func (s *script) Publish(stream grpc.BidiStreamingServer[pb.PublishRequest, pb.PublishResponse]) error {
	for i, r := range s.publish {
		if err := stream.Send(r); err != nil {
			return err
		}
		if i == 0 && !s.deaf {
			for range 2 { // open and the first batch
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
		}
	}
	return s.end(stream.Context())
}

// play returns a driver that reaches the script.
func play(t *testing.T, s *script) *wire.Driver {
	t.Helper()
	server := grpc.NewServer(wire.ServerOptions()...)
	pb.RegisterTransportServiceServer(server, s)
	l := bufconn.Listen(1 << 20)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
	return overServer(t, server, func(context.Context) error { return nil }, l, dial)
}

func (s *script) Health(context.Context, *pb.HealthRequest) (*pb.HealthResponse, error) {
	return &pb.HealthResponse{}, nil
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, d transport.Driver) transport.Conn {
	t.Helper()
	conn, err := d.Connect(bounded(t), transport.ConnectRequest{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(bounded(t)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return conn
}

var receiveOpened = &pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Opened{Opened: &pb.ReceiveOpened{}}}

func deliveries(first uint64, bodies ...string) *pb.ReceiveResponse {
	d := &pb.Deliveries{First: first}
	for _, b := range bodies {
		d.Messages = append(d.Messages, &pb.Message{Body: []byte(b)})
	}
	return &pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Deliveries{Deliveries: d}}
}

func TestPluginThatBreaksTheContractLosesTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		send []*pb.ReceiveResponse
		want string
	}{
		{"a gap in the numbers", []*pb.ReceiveResponse{deliveries(1, "a"), deliveries(3, "b")}, "delivery 3 follows 1"},
		{"a number again", []*pb.ReceiveResponse{deliveries(1, "a"), deliveries(1, "b")}, "delivery 1 follows 1"},
		{"a number of nothing", []*pb.ReceiveResponse{deliveries(0, "a")}, "delivery 0 follows 0"},
		{"more messages than credit", []*pb.ReceiveResponse{deliveries(1, "a", "b", "c", "d")}, "4 deliveries for a credit of 3"},
		{"more bytes than credit", []*pb.ReceiveResponse{deliveries(1, "a", strings.Repeat("b", 10))}, "10 bytes for a credit of 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := connect(t, play(t, &script{receive: append([]*pb.ReceiveResponse{receiveOpened}, c.send...)}))
			sub, err := conn.Subscribe(bounded(t), transport.Source{Address: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if err := sub.Grant(transport.Credit{Messages: 3, Bytes: 10}); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = sub.Receive(bounded(t))
			}
			if !errors.Is(err, transport.ErrClosed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Receive: %v; want ErrClosed and %q", err, c.want)
			}
			if _, err := conn.Next(bounded(t)); !errors.Is(err, transport.ErrClosed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Next: %v; want ErrClosed and %q", err, c.want)
			}
			if err := sub.Grant(transport.Credit{Messages: 1}); !errors.Is(err, transport.ErrClosed) {
				t.Errorf("Grant: %v; want ErrClosed", err)
			}
		})
	}
}

var publishOpened = &pb.PublishResponse{Kind: &pb.PublishResponse_Opened{Opened: &pb.PublishOpened{}}}

func confirms(ranges ...uint64) *pb.PublishResponse {
	cs := &pb.Confirms{}
	for i := 0; i < len(ranges); i += 2 {
		cs.Confirms = append(cs.Confirms, &pb.Confirm{First: ranges[i], Last: ranges[i+1]})
	}
	return &pb.PublishResponse{Kind: &pb.PublishResponse_Confirms{Confirms: cs}}
}

func TestPluginThatConfirmsWhatWasNotPublishedLosesTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		send []*pb.PublishResponse
		want string
	}{
		{"more than there is", []*pb.PublishResponse{confirms(1, 1<<63)}, "confirm of 1-9223372036854775808 where 1-3 are out"},
		{"a gap", []*pb.PublishResponse{confirms(2, 3)}, "confirm of 2-3"},
		{"again", []*pb.PublishResponse{confirms(1, 2), confirms(1, 2)}, "confirm of 1-2 where 3-3 are out"},
		{"backwards", []*pb.PublishResponse{confirms(1, 0)}, "confirm of 1-0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := connect(t, play(t, &script{publish: append([]*pb.PublishResponse{publishOpened}, c.send...)}))
			pub, err := conn.Publish(bounded(t), transport.Sink{Address: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if err := pub.Publish(bounded(t), make([]transport.Message, 3)); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = pub.Confirms(bounded(t))
			}
			if !errors.Is(err, transport.ErrClosed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Confirms: %v; want ErrClosed and %q", err, c.want)
			}
			if err := pub.Publish(bounded(t), make([]transport.Message, 1)); !errors.Is(err, transport.ErrClosed) {
				t.Errorf("Publish: %v; want ErrClosed", err)
			}
		})
	}
}

func TestOddAnswersToConnectAreErrors(t *testing.T) {
	for name, s := range map[string]*script{
		"nothing":     {connect: []*pb.ConnectResponse{}, after: status.Error(codes.OK, "")},
		"no kind":     {connect: []*pb.ConnectResponse{{}}},
		"a condition": {connect: []*pb.ConnectResponse{{Kind: &pb.ConnectResponse_Condition{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "nothing" {
				s.after = status.Error(codes.Aborted, "no")
			}
			if _, err := play(t, s).Connect(bounded(t), transport.ConnectRequest{}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestUnknownKindsAreIgnored(t *testing.T) {
	conn := connect(t, play(t, &script{
		receive: []*pb.ReceiveResponse{receiveOpened, {}, {Kind: &pb.ReceiveResponse_Deliveries{}}, deliveries(1, "a"), receiveOpened, deliveries(2, "b")},
	}))
	sub, err := conn.Subscribe(bounded(t), transport.Source{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Grant(transport.Credit{Messages: 3, Bytes: 10}); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 2; {
		ds, err := sub.Receive(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		n += len(ds)
	}
}

func TestUnknownRequestsAreAnsweredWithAnError(t *testing.T) {
	m := transporttest.NewMemory()
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, m.Driver())
	l := bufconn.Listen(1 << 20)
	overServer(t, server, half.Wait, l, func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
	ctx := bounded(t)
	if _, err := half.Declare(ctx, &pb.DeclareRequest{ConnectionId: "none"}); status.Code(err) != codes.Unavailable {
		t.Errorf("Declare on no connection: %v", err)
	}
	if _, err := half.Disconnect(ctx, &pb.DisconnectRequest{ConnectionId: "none"}); err != nil {
		t.Errorf("Disconnect of no connection: %v", err)
	}
}

func TestSlowPluginHoldsThePublisherBack(t *testing.T) {
	conn := connect(t, play(t, &script{publish: []*pb.PublishResponse{publishOpened}, deaf: true}))
	pub, err := conn.Publish(bounded(t), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	sent := 0
	for err == nil && sent < 1<<30 {
		err = pub.Publish(ctx, []transport.Message{{Body: make([]byte, 10<<10)}})
		sent += 10 << 10
	}
	if !errors.Is(err, context.DeadlineExceeded) || sent > 4<<20 {
		t.Errorf("took %d bytes and then said %v; want DeadlineExceeded after 4 MiB at most", sent, err)
	}
	start := time.Now()
	if err := pub.Close(bounded(t)); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestDeafPluginDoesNotHoldUpClose(t *testing.T) {
	conn := connect(t, play(t, &script{receive: []*pb.ReceiveResponse{receiveOpened}}))
	sub, err := conn.Subscribe(bounded(t), transport.Source{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := sub.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v; want DeadlineExceeded", err)
	}
}

func TestTooLargeIsRefusedInItsTurn(t *testing.T) {
	m := transporttest.NewMemory()
	conn := connect(t, overUnix(t, m.Driver()))
	pub, err := conn.Publish(bounded(t), transport.Sink{Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	small, large := transport.Message{Body: []byte("x")}, transport.Message{Body: make([]byte, wire.MaxBody+1)}
	heavy := transport.Message{Headers: []transport.Header{{Name: "h", Value: strings.Repeat("v", 1<<20)}}}
	given := []transport.Message{large, small, small, large, heavy, small, large}
	if err := pub.Publish(bounded(t), given); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for next <= uint64(len(given)) {
		cs, err := pub.Confirms(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			if c.First != next {
				t.Fatalf("confirm of %d-%d; %d is next", c.First, c.Last, next)
			}
			for ; next <= c.Last; next++ {
				tooLarge := len(given[next-1].Body) > 1 || len(given[next-1].Headers) > 0
				if (c.Refused != nil) != tooLarge || c.Refused != nil && !transport.IsPermanent(c.Refused) {
					t.Errorf("message %d: refused is %v", next, c.Refused)
				}
			}
		}
	}
	if got := len(m.PublishedTo("a")); got != 3 {
		t.Errorf("%d messages have reached the broker; want 3", got)
	}
}

// oversize is a driver whose subscriptions deliver bodies and headers that do not pass.
type oversize struct {
	transport.Driver
	bytes *atomic.Int64
}

func (o oversize) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	c, err := o.Driver.Connect(ctx, req)
	return oversizeConn{c, o.bytes}, err
}

type oversizeConn struct {
	transport.Conn
	bytes *atomic.Int64
}

func (o oversizeConn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	s, err := o.Conn.Subscribe(ctx, src)
	return &oversizeSub{s, o.bytes}, err
}

// oversizeSub counts, as a driver does, what it has delivered and what it is granted.
type oversizeSub struct {
	transport.Subscription
	bytes *atomic.Int64 // granted and not used
}

func (o *oversizeSub) Receive(ctx context.Context) ([]transport.Delivery, error) {
	ds, err := o.Subscription.Receive(ctx)
	for i := range ds {
		switch string(ds[i].Body) {
		case "large":
			ds[i].Body = make([]byte, wire.MaxBody+1)
		case "heavy":
			ds[i].Headers = []transport.Header{{Name: "h", Value: strings.Repeat("x", 1<<20)}}
		}
		o.bytes.Add(-int64(len(ds[i].Body)))
	}
	return ds, err
}

func (o *oversizeSub) Grant(c transport.Credit) error {
	o.bytes.Add(c.Bytes)
	return o.Subscription.Grant(c)
}

func TestDeliveryThatIsTooLargeComesWithoutWhatIsTooLarge(t *testing.T) {
	m := transporttest.NewMemory()
	var credit atomic.Int64
	conn := connect(t, overUnix(t, oversize{m.Driver(), &credit}))
	const window = 1 << 20
	sub, err := conn.Subscribe(bounded(t), transport.Source{Name: "s", Address: "queue/a", Window: transport.Credit{Messages: 100, Bytes: window}})
	if err != nil {
		t.Fatal(err)
	}
	sent := []string{"1", "large", "2", "3", "large", "heavy", "4"}
	for _, b := range sent {
		m.Send("queue/a", transport.Message{Body: []byte(b), ID: "id of " + b})
	}
	if err := sub.Grant(transport.Credit{Messages: 100, Bytes: window}); err != nil {
		t.Fatal(err)
	}
	var got []transport.Delivery
	for len(got) < len(sent) {
		ds, err := sub.Receive(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ds...)
	}
	var grant transport.Credit
	for i, d := range got {
		grant.Messages++
		grant.Bytes += int64(len(d.Body))
		body, size := sent[i], int64(0)
		switch body {
		case "large":
			body, size = "", wire.MaxBody+1
		case "heavy":
			body, size = "", d.TooLarge
			if size < 1<<20 || len(d.Headers) > 0 {
				t.Errorf("headers of more than 1 MiB have come as %d with the size %d", len(d.Headers), size)
			}
		}
		if string(d.Body) != body || d.TooLarge != size || d.Seq != uint64(i+1) || d.Address != "queue/a" {
			t.Errorf("delivery %d is %d: %d bytes, too large with %d, from %s", i+1, d.Seq, len(d.Body), d.TooLarge, d.Address)
		}
		if sent[i] != "heavy" && d.ID != "id of "+sent[i] {
			t.Errorf("delivery %d has lost its id", i+1)
		}
	}
	if n := m.Held("queue/a"); n != len(sent) {
		t.Errorf("the broker holds %d messages before any was settled", n)
	}
	if err := sub.Settle(bounded(t), []transport.Settlement{{First: 1, Last: 7, Outcome: transport.Ack}}); err != nil {
		t.Fatal(err)
	}
	if err := sub.Grant(grant); err != nil {
		t.Fatal(err)
	}
	if err := sub.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if n := m.Held("queue/a"); n != 0 {
		t.Errorf("the broker still holds %d messages", n)
	}
	// The driver has back what it counted for bodies that the gateway never saw: else it would stop one day.
	if n := credit.Load(); n != window {
		t.Errorf("the driver has a credit of %d bytes; want %d", n, window)
	}
}

func TestEndOfThePluginEndsEverything(t *testing.T) {
	m := transporttest.NewMemory()
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, m.Driver())
	l := bufconn.Listen(1 << 20)
	d := overServer(t, server, half.Wait, l, func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
	conn := connect(t, d)
	sub, err := conn.Subscribe(bounded(t), transport.Source{Name: "s", Address: "a", Window: transport.Credit{Messages: 1, Bytes: 1}})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := conn.Publish(bounded(t), transport.Sink{Name: "p", Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	if _, err := conn.Next(bounded(t)); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	if _, err := sub.Receive(bounded(t)); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
	if _, err := pub.Confirms(bounded(t)); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Confirms: %v", err)
	}
	if _, err := d.Connect(bounded(t), transport.ConnectRequest{}); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Connect: %v", err)
	}
	if n := m.Connections(); n != 0 {
		if err := m.Await(bounded(t), func() bool { return m.Connections() == 0 }); err != nil {
			t.Errorf("%d connections are left at the broker", n)
		}
	}
}
