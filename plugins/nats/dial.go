package nats

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

const (
	// pingInterval makes a healthy server say something at least this often.
	pingInterval = time.Second
	// silence is how long a server may say nothing. Any byte counts, not only the answer to a ping: a server that is
	// sending a long queue is alive.
	silence = 4 * time.Second
	// writeTimeout bounds a write, during which the library holds the lock that its pings need.
	writeTimeout = 3 * time.Second
)

// dialer opens sockets. The library knows no contexts.
type dialer func(network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }

// dialWith returns the dialer of one attempt to connect, which ends with ctx: so does the socket, unless stop has been
// called and returned true.
func dialWith(ctx context.Context, timeout time.Duration) (d dialer, stop func() bool) {
	var last atomic.Pointer[socket]
	stop = context.AfterFunc(ctx, func() {
		if s := last.Load(); s != nil {
			s.Close()
		}
	})
	return func(network, address string) (net.Conn, error) {
		nd := net.Dialer{Timeout: timeout}
		c, err := nd.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s := &socket{Conn: c}
		last.Store(s)
		if ctx.Err() != nil { // or the end of ctx has come too early to see it
			c.Close()
		}
		return s, nil
	}, stop
}

// socket is a connection that is closed by its first error. The library would drop what a failed write had in its buffer,
// and go on.
type socket struct {
	net.Conn
}

func (s *socket) Read(p []byte) (int, error) {
	if err := s.Conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	n, err := s.Conn.Read(p)
	if err != nil {
		s.Conn.Close() // also ends a write that is stuck
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	if err := s.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	n, err := s.Conn.Write(p)
	if err != nil {
		s.Conn.Close()
	}
	return n, err
}
