// Package embedded is a broker that needs no installation: nats-server with
// JetStream and its MQTT 3.1.1 listener.
//
// [Run] is the broker itself. It belongs in a process of its own, because
// nats-server takes the whole process for its own when something goes wrong:
// `flogate broker` calls [Serve]. The gateway starts and watches that process
// with [Child].
//
// It is not a broker to configure: there are two addresses and a folder. Who
// needs more runs a nats-server.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayload is as large as the largest message that the gateway carries:
	// a body of 16 MiB, with its header, and on MQTT with its topic.
	maxPayload = 16<<20 + 128<<10

	// syncInterval is how much a loss of power may cost. A killed process
	// loses nothing. nats-server's own default is two minutes.
	syncInterval = time.Second

	// readyTime bounds the start after the listeners were asked for; recovery
	// of the stored messages is not part of it.
	readyTime = 10 * time.Second
)

// Options say where the broker listens and stores.
type Options struct {
	NATS    string // host:port, port 0 for any
	MQTT    string // host:port, port 0 for any; empty for none
	DataDir string // made if need be; one broker at a time

	// User and Password admit only that user, over both listeners. Without
	// them every address has to be a loopback address.
	User, Password string

	// Ready, if not nil, is called once, when clients can connect.
	Ready func(Addresses)
}

// Addresses are where a running broker listens, as host:port with the real
// port.
type Addresses struct {
	NATS string `json:"nats"`
	MQTT string `json:"mqtt,omitempty"`
}

// Run runs a broker until ctx is done, which is not an error, or until it
// fails. It blocks, and has let go of ports and folder when it returns.
//
// It fails at once, with a message for people, when another broker has the
// folder ([*InUseError]), when a port is taken ([*PortTakenError]), or when an
// address can be reached from outside and nobody has to log in.
func Run(ctx context.Context, o Options, log *slog.Logger) error {
	opts, err := o.server()
	if err != nil {
		return err
	}
	unlock, err := lock(o.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	// nats-server would end the process, or go on without the listener.
	for _, l := range []struct{ name, addr string }{{"nats", o.NATS}, {"mqtt", o.MQTT}} {
		if l.addr == "" {
			continue
		}
		if err := probe(ctx, l.name, l.addr); err != nil {
			return err
		}
	}

	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("embedded broker: %w", err)
	}
	logger := &logger{log: log, fatal: make(chan error, 1)}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if err := logger.firstFatal(); err != nil {
		return err
	}
	if !s.ReadyForConnections(readyTime) {
		return errors.Join(fmt.Errorf("embedded broker: not ready after %s", readyTime), logger.firstFatal())
	}
	if o.Ready != nil {
		o.Ready(addresses(s, opts))
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-logger.fatal:
		return err
	}
}

func addresses(s *server.Server, opts *server.Options) Addresses {
	a := Addresses{NATS: s.Addr().String()}
	if opts.MQTT.Host != "" {
		// The server has written the real port here before Start returned.
		a.MQTT = net.JoinHostPort(opts.MQTT.Host, strconv.Itoa(opts.MQTT.Port))
	}
	return a
}

// server translates the options, and refuses what is unsafe.
func (o Options) server() (*server.Options, error) {
	if o.DataDir == "" {
		return nil, errors.New("embedded broker: no data folder given")
	}
	opts := &server.Options{
		// MQTT sessions belong to a server of this name.
		ServerName:   "flogate",
		JetStream:    true,
		StoreDir:     filepath.Join(o.DataDir, "nats"),
		SyncInterval: syncInterval,
		MaxPayload:   maxPayload,
		NoSigs:       true,
		Username:     o.User,
		Password:     o.Password,
	}
	var err error
	if opts.Host, opts.Port, err = o.listener("nats", o.NATS); err != nil {
		return nil, err
	}
	if o.MQTT != "" {
		if opts.MQTT.Host, opts.MQTT.Port, err = o.listener("mqtt", o.MQTT); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

func (o Options) listener(name, addr string) (host string, port int, err error) {
	host, digits, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("embedded broker: %s address: %w", name, err)
	}
	number, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("embedded broker: %s address %q: %w", name, addr, err)
	}
	if port = int(number); port == 0 {
		port = server.RANDOM_PORT
	}
	if !isLoopback(host) && (o.User == "" || o.Password == "") {
		return "", 0, fmt.Errorf("embedded broker: %s address %q can be reached from other machines, "+
			"where anybody could use it: give a loopback address, or a user and a password", name, addr)
	}
	if host == "" {
		host = "0.0.0.0" // what an empty host means to a listener
	}
	return host, port, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// logger hands the server's lines to slog, and keeps its fatal errors from
// ending the process.
type logger struct {
	log   *slog.Logger
	fatal chan error // the first one
}

func (l *logger) firstFatal() error {
	select {
	case err := <-l.fatal:
		return err
	default:
		return nil
	}
}

// Fatalf implements [server.Logger].
func (l *logger) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Errorf("embedded broker: "+format, args...):
	default: // one reason is enough to stop
	}
}

// Errorf implements [server.Logger].
func (l *logger) Errorf(format string, args ...any) { l.write(slog.LevelError, format, args) }

// Warnf implements [server.Logger].
func (l *logger) Warnf(format string, args ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(format, "Maximum payloads over") {
		level = slog.LevelDebug // at every start; see maxPayload
	}
	l.write(level, format, args)
}

// Noticef implements [server.Logger]. The server notices much at its start.
func (l *logger) Noticef(format string, args ...any) { l.write(slog.LevelDebug, format, args) }

// Debugf implements [server.Logger].
func (l *logger) Debugf(format string, args ...any) { l.write(slog.LevelDebug, format, args) }

// Tracef implements [server.Logger]. Tracing shows message bodies.
func (l *logger) Tracef(string, ...any) {}

func (l *logger) write(level slog.Level, format string, args []any) {
	ctx := context.Background() // the server has none to give
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "embedded broker", "text", fmt.Sprintf(format, args...))
	}
}

var _ server.Logger = (*logger)(nil)
