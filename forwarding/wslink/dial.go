package wslink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
)

// DialOptions say how to reach a runtime. Zeros stand for the defaults.
type DialOptions struct {
	// TLS is for wss: the roots to trust, if not those of the system.
	TLS *tls.Config
	// Header is sent with the handshake.
	Header http.Header
	// Handshake is how long it may take to connect, all tries together: 10 s.
	Handshake time.Duration
	Limits    Limits
}

// HandshakeError is a server that has answered, but not as a WebSocket server does.
type HandshakeError struct {
	Status int // of HTTP
	err    error
}

func (e *HandshakeError) Error() string { return fmt.Sprintf("refused with HTTP status %d", e.Status) }
func (e *HandshakeError) Unwrap() error { return e.err }

// Dial connects to a runtime at a ws or wss address. It offers the sub-protocol "noflo", and tries again without it when the
// server refuses: some know no sub-protocols and will not have one. It blocks until the connection is there, ctx ends or the
// handshake takes too long; ctx does not matter to the connection afterwards, which the caller has to close. Redirects and
// proxies are not followed. Errors do not hold the address's query or password.
func Dial(ctx context.Context, address string, o DialOptions) (*Conn, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return nil, errors.New(`wslink: an address is like "ws://host:port"`) // it may hold a secret, even if it is wrong
	}
	if o.Handshake <= 0 {
		o.Handshake = 10 * time.Second
	}
	o.Limits = o.Limits.withDefaults()
	shaking, cancel := context.WithTimeout(ctx, o.Handshake)
	defer cancel()
	conn, err := o.dial(shaking, u, []string{subprotocol})
	if refused(err) && shaking.Err() == nil {
		conn, err = o.dial(shaking, u, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("wslink: %s://%s: %w", u.Scheme, u.Host, err)
	}
	return conn, nil
}

// refused says whether a server was there and may have been put off by the sub-protocol: it has answered, though not that it
// cannot now, or has hung up without a word.
func refused(err error) bool {
	if h, ok := errors.AsType[*HandshakeError](err); ok {
		return h.Status < 500 && h.Status != http.StatusTooManyRequests
	}
	return errors.Is(err, io.EOF)
}

func (o DialOptions) dial(ctx context.Context, u *url.URL, subprotocols []string) (*Conn, error) {
	var s *socket
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			s = newSocket(conn, o.Limits.Stall)
			return s, nil
		},
		TLSClientConfig:   o.TLS,
		DisableKeepAlives: true,
		// A server's answer is held in memory until it is understood.
		MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ws, response, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient: client, HTTPHeader: o.Header, Subprotocols: subprotocols,
	})
	switch {
	case err == nil:
		return newConn(ws, s, o.Limits, func() {}), nil
	case response != nil:
		return nil, &HandshakeError{response.StatusCode, err}
	default:
		if failed, ok := errors.AsType[*url.Error](err); ok { // has the whole address in its text
			err = failed.Err
		}
		return nil, err
	}
}
