package wire_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
	"github.com/flogate/flogate/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeepsTheContractOverBufconn(t *testing.T) {
	m := transporttest.NewMemory()
	target := m.Target()
	l := bufconn.Listen(1 << 20)
	driver := over(t, m.Driver(), l, func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
	target.New = func(testing.TB) transport.Driver { return driver }
	transporttest.Run(t, target)
}

func TestMemoryKeepsTheContractOverUnixSocket(t *testing.T) {
	m := transporttest.NewMemory()
	target := m.Target()
	driver := overUnix(t, m.Driver())
	target.New = func(testing.TB) transport.Driver { return driver }
	transporttest.Run(t, target)
}

// overUnix returns a driver that reaches d through a unix socket.
func overUnix(tb testing.TB, d transport.Driver) *wire.Driver {
	path := filepath.Join(tb.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	return over(tb, d, l, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
}

// over returns a driver that reaches d through a listener. Both halves end with the test.
func over(tb testing.TB, d transport.Driver, l net.Listener, dial func(context.Context, string) (net.Conn, error)) *wire.Driver {
	server := grpc.NewServer(wire.ServerOptions()...)
	half := wire.Register(server, d)
	return overServer(tb, server, half.Wait, l, dial)
}

// overServer returns a driver that reaches a gRPC server through a listener.
func overServer(tb testing.TB, server *grpc.Server, wait func(context.Context) error, l net.Listener, dial func(context.Context, string) (net.Conn, error)) *wire.Driver {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	tb.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			tb.Errorf("serve: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := wait(ctx); err != nil {
			tb.Error(err)
		}
	})
	options := append(wire.DialOptions(), grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	cc, err := grpc.NewClient("passthrough:///plugin", options...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	driver := wire.NewDriver(cc)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := driver.Health(ctx); err != nil { // gRPC has its goroutines now
		tb.Fatal(err)
	}
	return driver
}
