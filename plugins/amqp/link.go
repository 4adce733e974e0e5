package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/coalesce"
	"github.com/flogate/flogate/core/transport"
)

// closeGrace is how long a broker may take to say goodbye. One that does not read (an alarm, a frozen process) never does.
const closeGrace = time.Second

// linger is how long a write may wait for others on a busy connection.
const linger = 200 * time.Microsecond

// link is one AMQP connection.
type link struct {
	conn   *amqp091.Connection
	socket *socket
	closes chan *amqp091.Error // has room for the only one
	blocks chan amqp091.Blocking
}

// dial opens a connection. ctx bounds it until it is open.
func dial(ctx context.Context, s settings, name string) (*link, error) {
	host, _, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, transport.Permanentf("address %q: %w", s.addr, err)
	}
	var secure *tls.Config
	if s.tls != nil {
		if secure, err = s.tls.config(host); err != nil {
			return nil, err
		}
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	l := &link{socket: &socket{Conn: raw}}
	// Everything from here on is waiting for the peer, and ends when the socket is closed.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = l.open(ctx, s, secure, name)
	if !stop() && err == nil {
		l.close()
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", s.addr, ctx.Err())
		}
		return nil, fmt.Errorf("%s: %w", s.addr, err)
	}
	return l, nil
}

func (l *link) open(ctx context.Context, s settings, secure *tls.Config, name string) error {
	var stream net.Conn = l.socket
	if secure != nil {
		t := tls.Client(l.socket, secure)
		if err := t.HandshakeContext(ctx); err != nil {
			// A certificate that is not trusted, and a port that does not speak TLS.
			_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
			_, plain := errors.AsType[tls.RecordHeaderError](err)
			if untrusted || plain {
				return transport.Permanent(err)
			}
			return err
		}
		stream = t
	}
	properties := amqp091.Table{
		"product":         "flogate",
		"version":         version,
		"platform":        runtime.Version(),
		"connection_name": name,
	}
	// The library flushes after each message and each acknowledgement, and reads 4 KiB at a time.
	stream = coalesce.Wrap(stream, coalesce.Options{Linger: linger, CloseWithin: closeGrace})
	conn, err := amqp091.Open(bare{stream}, amqp091.Config{
		SASL:      []amqp091.Authentication{&login{settings: s, properties: properties}},
		Vhost:     s.vhost,
		FrameSize: s.frameSize,
		Heartbeat: s.heartbeat,
		// The library's default is en_US in DialConfig only.
		Locale:     "en_US",
		Properties: properties,
	})
	if err != nil {
		// Before the login the library calls every end of the connection wrong credentials.
		if lost := l.socket.lost(); lost != nil && code(err) == 0 {
			return lost
		}
		return said(err)
	}
	l.conn = conn
	l.closes = conn.NotifyClose(make(chan *amqp091.Error, 1))
	l.blocks = conn.NotifyBlocked(make(chan amqp091.Blocking, 4))
	l.socket.expect(silence(conn.Config.Heartbeat))
	return nil
}

// watch reports what becomes of the connection until it has ended, and why it has. The library drops a notification that
// is not taken within 5 s, and stands still as long: blocked must not block.
func (l *link) watch(blocked func(amqp091.Blocking)) error {
	for blocks := l.blocks; ; {
		select {
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			blocked(b)
		case e := <-l.closes:
			return l.reason(e)
		}
	}
}

// reason is why the connection has ended; e may be nil.
func (l *link) reason(e *amqp091.Error) error {
	if e != nil && e.Server {
		return &brokerError{e}
	}
	if err := l.socket.lost(); err != nil {
		return err
	}
	if e != nil {
		return &brokerError{e}
	}
	return transport.ErrClosed
}

// close ends the connection, with a goodbye where the broker has time for one. It takes closeGrace at most: a publish that
// hangs in the socket holds the library's locks, and only the socket's end frees them.
func (l *link) close() {
	t := time.AfterFunc(closeGrace, func() { _ = l.socket.Close() })
	defer t.Stop()
	_ = l.conn.Close() // what it says is not more than that it is closed
	_ = l.socket.Close()
}

// login is SASL's PLAIN or EXTERNAL.
type login struct {
	settings   settings
	properties amqp091.Table
}

func (l *login) Mechanism() string {
	if l.settings.external {
		return "EXTERNAL"
	}
	return "PLAIN"
}

// Response also tells the broker that we understand a refusal in words; without that it waits and hangs up, which cannot
// be told from a lost connection. The library writes the capabilities itself, just before it asks for the response.
func (l *login) Response() string {
	if capabilities, ok := l.properties["capabilities"].(amqp091.Table); ok {
		capabilities["authentication_failure_close"] = true
	}
	if l.settings.external {
		return ""
	}
	return "\x00" + l.settings.user + "\x00" + l.settings.password
}

// bare hides that a connection has deadlines. The library would set one after each frame, in another goroutine, which is
// the same that writes heartbeats and stands still when the socket is full: a broker under an alarm would be given up.
type bare struct{ io.ReadWriteCloser }

// socket is the TCP connection. It finds out by itself that the peer has gone silent, and closes itself at the first error of a
// read, because the library cannot: its clean-up waits for a writer that waits for the socket.
type socket struct {
	net.Conn

	limit atomic.Int64 // ns that the peer may be silent, 0 for ever
	armed time.Time    // when the deadline was set last; the reader's own

	mu  sync.Mutex
	err error // of the first read that failed
}

// expect gives the connection up when nothing comes for limit.
func (s *socket) expect(limit time.Duration) {
	s.limit.Store(int64(limit))
	_ = s.SetReadDeadline(time.Now().Add(limit)) // for the read that waits now
}

func (s *socket) Read(p []byte) (int, error) {
	limit := time.Duration(s.limit.Load())
	// Not before every read: a deadline costs more than a small read.
	if limit > 0 {
		if now := time.Now(); now.Sub(s.armed) > limit/16 {
			_ = s.SetReadDeadline(now.Add(limit))
			s.armed = now
		}
	}
	n, err := s.Conn.Read(p)
	if err != nil {
		s.fail(err, limit)
	}
	return n, err
}

func (s *socket) fail(err error, limit time.Duration) {
	s.mu.Lock()
	if s.err == nil {
		timeout, _ := errors.AsType[net.Error](err)
		switch {
		case timeout != nil && timeout.Timeout():
			err = fmt.Errorf("the broker is silent for %s: %w", limit, err)
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("the broker closed the connection: %w", err)
		}
		s.err = err
	}
	s.mu.Unlock()
	_ = s.Close()
}

// lost is the error that ended reading.
func (s *socket) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
