package transporttest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a TCP proxy between a driver and a broker, with which a test cuts or freezes what passes. Its methods may be
// called concurrently. It ends with the test.
type Proxy struct {
	listener net.Listener
	upstream string
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	dark   chan struct{} // closed when the blackhole ends; nil while there is none
	pairs  map[*proxied]struct{}
}

// proxied is one connection through a Proxy.
type proxied struct {
	down, up net.Conn
	lost     bool // something of it was swallowed: guarded by Proxy.mu
}

// NewProxy starts a proxy on a free port of the loopback interface that leads to upstream, "host:port". Nothing has to
// listen there yet: each connection is passed on when it comes.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p := &Proxy{listener: listener, upstream: upstream, pairs: map[*proxied]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr returns where the proxy listens, "host:port".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Cut resets all connections. New ones may be made at once. The parameter is there to make it a [Target.Cut].
func (p *Proxy) Cut(testing.TB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.reset()
	}
}

// Connections returns how many connections there are at the moment.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pairs)
}

// Blackhole makes the proxy swallow everything in both directions, and answer no new connection, until restore is called.
// Connections from before are reset then.
func (p *Proxy) Blackhole(testing.TB) (restore func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dark := make(chan struct{})
	p.dark = dark
	for c := range p.pairs {
		c.lost = true
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dark = nil
		close(dark)
		for c := range p.pairs {
			if c.lost {
				c.reset()
			}
		}
	})
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		down, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(down) })
	}
}

func (p *Proxy) serve(down net.Conn) {
	c := &proxied{down: down}
	p.mu.Lock()
	dark := p.dark
	c.lost = dark != nil
	refuse := p.closed
	p.pairs[c] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pairs, c)
		p.mu.Unlock()
		_ = down.Close()
	}()
	if refuse {
		return
	}
	if dark != nil {
		// As silent as a network that drops packets, until the driver hangs up or the light comes back.
		_, _ = io.Copy(io.Discard, down)
		return
	}
	up, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	p.mu.Lock()
	c.up = up
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(c, up, down) })
	p.copy(c, down, up)
	wg.Wait()
}

// copy carries bytes one way until either end is closed.
func (p *Proxy) copy(c *proxied, to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		lost := c.lost
		p.mu.Unlock()
		if lost {
			if err != nil {
				return // nor does the end get through
			}
			continue
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				if half, ok := to.(*net.TCPConn); ok && half.CloseWrite() == nil {
					return
				}
			}
			_ = to.Close()
			return
		}
	}
}

// reset ends both sides at once, without what is still on its way. The caller holds Proxy.mu.
func (c *proxied) reset() {
	for _, conn := range []net.Conn{c.down, c.up} {
		if conn != nil {
			_ = setLinger(conn)
			_ = conn.Close()
		}
	}
}

// setLinger makes Close send a reset.
func setLinger(conn net.Conn) error {
	if tcp, ok := conn.(*net.TCPConn); ok {
		return tcp.SetLinger(0)
	}
	return nil
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.pairs {
		c.reset()
	}
	p.mu.Unlock()
	p.wg.Wait()
}
