// Package pluginmain is the main function of a plugin, in one line:
//
//	func main() { os.Exit(pluginmain.Serve(mydriver.New)) }
//
// where New is a func(*slog.Logger) transport.Driver. The driver is all that a plugin's author writes. This package is not
// for anything that runs in the gateway.
//
// A plugin serves the gateway that started it and ends with it: when its connection is gone for a moment, or when its parent
// process is another. It then closes what it has open on its brokers, for a bounded time, so that what is unsettled is
// released at once and not after a timeout of the broker. It ignores SIGINT and SIGTERM, which people and service managers
// send to a whole group: the gateway wants to drain first and knows when the plugin may end.
package pluginmain

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/wire"
)

// Environment variables that a gateway sets for its plugins.
const (
	// ProcsEnv is how many CPUs the plugin uses at a time. One is enough for most, and costs the least where a message wakes
	// two processes.
	ProcsEnv = "FLOGATE_PLUGIN_PROCS"
	// LogEnv is the lowest level that is worth logging: "debug", "info", "warn" or "error".
	LogEnv = "FLOGATE_PLUGIN_LOG"
	// ParentEnv is the gateway's process id.
	ParentEnv = "FLOGATE_PLUGIN_PARENT"
)

// HeapRoom is how large a slice a process that carries messages holds and never touches, so that no memory is behind it: the
// collector, which comes when the heap has doubled, then comes every 32 MiB and not every 4. What is
// in flight is small, and to look through it hundreds of times a second was a tenth of the CPU. Unlike a higher GOGC it
// costs the same where much is in flight.
const HeapRoom = 16 << 20

// drainTimeout bounds how long the driver may take to close its connections at the end.
const drainTimeout = 6 * time.Second

// The exit codes of a plugin.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Serve serves the driver that open makes, until the gateway ends it or is gone, and returns the exit code of the process. It
// is called once, first thing in main: nothing may be printed before. The log goes to the gateway's.
func Serve(open func(log *slog.Logger) transport.Driver) int {
	// A driver that prints while it is made must not spoil the handshake, which is on standard output.
	stdout := os.Stdout
	os.Stdout = os.Stderr
	log := slog.New(newHandler(os.Stderr, os.Getenv(LogEnv)))
	driver := open(log)
	os.Stdout = stdout

	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		explain(os.Stderr, filepath.Base(os.Args[0]), driver)
		return exitUsage
	}
	if err := setProcs(os.Getenv(ProcsEnv)); err != nil {
		log.Error("cannot start", "error", err)
		return exitError
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	room := make([]byte, HeapRoom)
	defer runtime.KeepAlive(room)

	s := &server{driver: driver, gone: newWatch()}
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	tasks.Go(func() { s.gone.watchParent(ctx, parent(os.Getenv(ParentEnv))) })
	tasks.Go(func() { s.stopWhenGone(ctx) })

	handshake := plugin.HandshakeConfig{
		ProtocolVersion: wire.ProtocolVersion, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake,
		Plugins:         plugin.PluginSet{wire.PluginName: &served{s: s}},
		GRPCServer:      s.newServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	})
	cancel()
	tasks.Wait()
	if s.wire == nil {
		return exitError // the server could not be made; it is logged
	}
	draining, stop := context.WithTimeout(context.Background(), drainTimeout)
	defer stop()
	if err := s.wire.Wait(draining); err != nil {
		log.Error("cannot end cleanly", "error", err)
		return exitError
	}
	return exitOK
}

// server is the gRPC server of the process.
type server struct {
	driver transport.Driver
	wire   *wire.Server
	gone   *watch

	mu   sync.Mutex
	grpc *grpc.Server
}

func (s *server) newServer(opts []grpc.ServerOption) *grpc.Server {
	opts = append(opts, wire.ServerOptions()...)
	opts = append(opts, grpc.StatsHandler(s.gone))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc = grpc.NewServer(opts...)
	return s.grpc
}

// stopWhenGone stops the server when the gateway is gone, which ends plugin.Serve.
func (s *server) stopWhenGone(ctx context.Context) {
	if !s.gone.wait(ctx) {
		return
	}
	s.mu.Lock()
	server := s.grpc
	s.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

// served is what go-plugin knows of a transport.
type served struct {
	plugin.NetRPCUnsupportedPlugin
	s *server
}

// GRPCServer implements go-plugin's GRPCPlugin.
func (p *served) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	p.s.wire = wire.Register(g, p.s.driver)
	return nil
}

// GRPCClient implements go-plugin's GRPCPlugin. Nobody is a client here.
func (p *served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("%s: this is the side of the plugin", wire.PluginName)
}

func setProcs(v string) error {
	procs := 1
	if v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return fmt.Errorf("%s is %q: want a number of 1 or more", ProcsEnv, v)
		}
		procs = n
	}
	runtime.GOMAXPROCS(procs)
	return nil
}

// parent returns the process id of the gateway: what it says itself, as it may be gone before we can ask who our parent is.
func parent(v string) int {
	if pid, err := strconv.Atoi(v); err == nil {
		return pid
	}
	return os.Getppid()
}

// explain tells a person who has started the plugin what to do instead.
func explain(w io.Writer, program string, driver transport.Driver) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	d, err := driver.Describe(ctx)
	if err != nil || d.Name == "" {
		fmt.Fprintf(w, "%s is a plugin of flogate and is started by it.\n", program)
		return
	}
	fmt.Fprintf(w, `%s is a plugin of flogate and is started by it.

%s %s: %s

Put the file flogate-transport-%[2]s into the plugin folder of a gateway, executable and writable by its owner alone,
and name it in a site file:

    broker %[5]q "name" {
    }
`, program, d.Name, d.Version, d.Summary, d.Name)
}
