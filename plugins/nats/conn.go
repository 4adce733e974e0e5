package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// requestTimeout bounds one request to the server.
const requestTimeout = 5 * time.Second

// conn is one life of a connection. One socket serves sources and sinks alike: the server never stops reading it for the
// sake of what it has to send, and acknowledgements are written in between publishes.
type conn struct {
	name string
	log  *slog.Logger
	nc   *nats.Conn
	js   jetstream.JetStream
	api  string // prefix of the JetStream API: "$JS.API"
	info transport.ConnInfo

	version string // of the server: "2.15.2"

	done chan struct{}  // closed when the connection has ended
	gone chan struct{}  // closed when its last goroutine has, too
	wg   sync.WaitGroup // Add with mu held, and err nil

	mu    sync.Mutex
	err   error // why the connection has ended, an ErrClosed
	parts map[part]struct{}
}

// part is a subscription or a publisher of a connection.
type part interface {
	// fail ends the part without asking the server. It does not block.
	fail(reason error)
	// forbidden tells that the server has refused to let us use a subject. It does not block.
	forbidden(err error)
	Close(ctx context.Context) error
}

func (d *driver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	cfg, problems := parseConfig(req.Config)
	if err := first(problems); err != nil {
		return nil, err
	}
	opts, servers, err := cfg.options(req.Name)
	if err != nil {
		return nil, transport.Permanent(err)
	}
	c := &conn{
		name:  req.Name,
		log:   d.log,
		api:   "$JS.API",
		done:  make(chan struct{}),
		gone:  make(chan struct{}),
		parts: make(map[part]struct{}),
	}
	timeout := defaultConnectTimeout
	if cfg.ConnectTimeout > 0 {
		timeout = time.Duration(cfg.ConnectTimeout)
	}
	sockets, stop := dialWith(ctx, timeout)
	opts = append(opts,
		nats.SetCustomDialer(sockets),
		nats.PingInterval(pingInterval),
		// Silence is noticed by the socket: a count of pings says nothing while the library cannot send any.
		nats.MaxPingsOutstanding(60),
		nats.FlusherTimeout(writeTimeout),
		nats.ErrorHandler(c.asyncError),
		nats.ClosedHandler(func(nc *nats.Conn) { c.end(lost(nc.LastError())) }),
	)
	nc, err := nats.Connect(strings.Join(servers, ","), opts...)
	// From stop on the end of ctx closes nothing: a connection that is there by then is the caller's, whatever ctx says.
	cancelled := !stop()
	if cancelled && err == nil {
		nc.Close()
		<-c.done
	}
	if cancelled || err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("connect: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, connectError(err)
	}
	c.nc = nc
	go func() {
		<-c.done
		c.wg.Wait()
		close(c.gone)
	}()
	if cfg.Domain == "" {
		c.js, err = jetstream.New(nc)
	} else {
		c.api = "$JS." + cfg.Domain + ".API"
		c.js, err = jetstream.NewWithDomain(nc, cfg.Domain)
	}
	if err != nil {
		nc.Close()
		<-c.gone
		return nil, transport.Permanent(err)
	}
	c.version = nc.ConnectedServerVersion()
	c.info = transport.ConnInfo{
		Product: "nats-server " + c.version,
		MaxBody: nc.MaxPayload(),
	}
	if cluster := nc.ConnectedClusterName(); cluster != "" {
		c.info.Features = append(c.info.Features, "cluster "+cluster)
	}
	if nc.TLSRequired() || len(servers) > 0 && strings.HasPrefix(servers[0], "tls:") {
		c.info.Features = append(c.info.Features, "tls")
	}
	return c, nil
}

// connectError classifies why there is no connection.
func connectError(err error) error {
	var (
		verify *tls.CertificateVerificationError
		remote *net.OpError
	)
	err = fmt.Errorf("connect: %w", err)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrNkeysNotSupported),
		errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired),
		errors.As(err, &verify),
		errors.As(err, &remote) && remote.Op == "remote error": // how crypto/tls marks the peer's alert: it does not like ours
		return transport.Permanent(err)
	}
	return err
}

func lost(err error) error {
	if err == nil {
		return errors.New("connection lost")
	}
	return fmt.Errorf("connection lost: %w", err)
}

func (c *conn) Info() transport.ConnInfo { return c.info }

func (c *conn) Next(ctx context.Context) (transport.Condition, error) {
	select {
	case <-c.done:
		return transport.Condition{}, c.reason()
	default:
	}
	select {
	case <-c.done:
		return transport.Condition{}, c.reason()
	case <-ctx.Done():
		return transport.Condition{}, ctx.Err()
	}
}

// reason is why the connection has ended, or nil.
func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// end is called when the library has closed the connection, whoever wanted it.
func (c *conn) end(reason error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = transport.Closed(reason)
	}
	parts := c.parts
	c.parts = nil
	err := c.err
	c.mu.Unlock()
	for p := range parts {
		p.fail(err)
	}
	close(c.done) // once: the library calls once
}

// add makes p end with the connection, which waits for run if that is not nil.
func (c *conn) add(p part, run func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.parts[p] = struct{}{}
	if run != nil {
		c.wg.Go(run)
	}
	return nil
}

func (c *conn) remove(p part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, p)
}

func (c *conn) Close(ctx context.Context) error {
	c.mu.Lock()
	var parts []part
	for p := range c.parts {
		parts = append(parts, p)
	}
	if c.err == nil {
		c.err = transport.ErrClosed // before parts are told, so that no more are added
	}
	c.mu.Unlock()
	for _, p := range parts {
		if err := p.Close(ctx); err != nil && ctx.Err() != nil {
			break
		}
	}
	c.nc.Close()
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// asyncError gets what the server or the library says by itself.
func (c *conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		c.mu.Lock()
		parts := make([]part, 0, len(c.parts))
		for p := range c.parts {
			parts = append(parts, p)
		}
		c.mu.Unlock()
		for _, p := range parts {
			p.forbidden(err)
		}
		c.log.Warn("the server forbids a subject", "err", err)
	case errors.Is(err, nats.ErrSlowConsumer) && sub != nil:
		c.log.Warn("messages dropped before they were read", "address", sub.Subject)
	default:
		c.log.Warn("error of the connection", "err", err)
	}
}

// forbiddenSubject returns the subject to which the server forbids us to publish.
func forbiddenSubject(err error) (string, bool) {
	_, rest, found := strings.Cut(err.Error(), "Publish to ")
	if !found {
		return "", false
	}
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", false
	}
	subject, err := strconv.Unquote(quoted)
	return subject, err == nil
}

// names reports whether the server's complaint is about the subject.
func names(err error, subject string) bool {
	return strings.Contains(err.Error(), strconv.Quote(subject))
}

// flush returns when the server has seen everything that was sent so far.
func (c *conn) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil {
		return c.failure(err)
	}
	return nil
}

// subscribe opens a subscription of the library, and returns when the server has it. closed is closed when the callback
// will not be called again.
func (c *conn) subscribe(ctx context.Context, subject, queue string, f nats.MsgHandler) (sub *nats.Subscription, closed <-chan struct{}, err error) {
	if sub, err = c.nc.QueueSubscribe(subject, queue, f); err != nil {
		return nil, nil, c.failure(err)
	}
	end := make(chan struct{})
	over := sync.OnceFunc(func() { close(end) })
	sub.SetClosedHandler(func(string) { over() })
	if !sub.IsValid() { // the connection has ended already, perhaps before there was a handler
		over()
	}
	if err = c.flush(ctx); err == nil {
		// The server's objection came before its answer to the flush.
		if last := c.nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) && names(last, subject) {
			err = transport.Permanent(last)
		}
	}
	if err != nil {
		_ = sub.Unsubscribe() // the first error is the one to tell
		<-end
		return nil, nil, err
	}
	return sub, end, nil
}

// failure is err of the library as the contract wants it.
func (c *conn) failure(err error) error {
	if err == nil {
		return nil
	}
	if reason := c.reason(); reason != nil {
		return reason
	}
	if errors.Is(err, nats.ErrConnectionClosed) {
		return transport.Closed(lost(c.nc.LastError()))
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return transport.Closed(lost(err)) // the socket has closed itself
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code >= 400 && api.Code < 500 && api.Code != 408 && api.Code != 429 {
		return transport.Permanent(err)
	}
	return err
}

func (c *conn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	if err := c.reason(); err != nil {
		return nil, err
	}
	o, problems := parseSource(src)
	if err := first(problems); err != nil {
		return nil, err
	}
	var (
		sub transport.Subscription
		err error
	)
	if o.Stream == "" {
		sub, err = c.subscribeCore(ctx, src, o)
	} else {
		sub, err = c.subscribeStream(ctx, src, o)
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe %q: %w", src.Address, err)
	}
	return sub, nil
}

func (c *conn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	if err := c.reason(); err != nil {
		return nil, err
	}
	o, problems := parseSink(sink)
	if err := first(problems); err != nil {
		return nil, err
	}
	var (
		pub transport.Publisher
		err error
	)
	if o.Stream == "" {
		pub, err = c.publishCore(ctx, sink, o)
	} else {
		pub, err = c.publishStream(ctx, sink, o)
	}
	if err != nil {
		return nil, fmt.Errorf("publish to %q: %w", sink.Address, err)
	}
	return pub, nil
}
