package brokers

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Direction says which way bytes go through a [Proxy].
type Direction int

// The directions; Both is their sum.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// Proxy carries TCP connections to one server and can do to them what networks
// do. It knows nothing of the protocol. Its methods may be called concurrently.
type Proxy struct {
	addr   string
	target string

	mu      sync.Mutex
	links   map[*link]struct{}
	swallow Direction
	refuse  bool
	latency time.Duration
	closed  bool
	passed  [2]int64 // bytes to the server, to the client

	wg sync.WaitGroup
}

// link is one client's connection and the one to the server for it.
type link struct{ client, server net.Conn }

// NewProxy starts a proxy to target (host:port, a broker's Addr) that ends
// with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{addr: l.Addr().String(), target: target, links: make(map[*link]struct{})}
	p.wg.Go(func() { p.accept(l) })
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		_ = l.Close() // ends accept
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.addr }

// Through is rawURL with the proxy's address in place of its own.
func (p *Proxy) Through(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // the client will say what is wrong with it
	}
	u.Host = p.addr
	return u.String()
}

// Cut resets all connections that are open now. New ones are served.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Blackhole swallows, from now on, what goes in the given direction: the
// connections stay open and are silent. What was swallowed is gone, as a
// connection may as well be after Restore: Cut it unless it was idle.
func (p *Proxy) Blackhole(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = d
}

// Refuse resets new connections at once; those that are open go on.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = true
}

// Restore ends Blackhole and Refuse.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow, p.refuse = 0, false
}

// Latency delays everything by d, each way; throughput stays.
func (p *Proxy) Latency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// Connections is how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Passed is how many bytes have gone in direction d (of Both: their sum);
// swallowed ones do not count.
func (p *Proxy) Passed(d Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	if d&ToServer != 0 {
		n += p.passed[0]
	}
	if d&ToClient != 0 {
		n += p.passed[1]
	}
	return n
}

func (p *Proxy) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(conn) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		(&link{client: client}).reset()
		return
	}
	l := &link{client: client, server: server}
	if !p.admit(l) {
		l.reset()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.carry(l, server, client, ToServer) })
	wg.Go(func() { p.carry(l, client, server, ToClient) })
	wg.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	_ = client.Close()
	_ = server.Close()
}

func (p *Proxy) admit(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.refuse {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

// chunk is what one read returned, and when it may go on.
type chunk struct {
	due  time.Time
	data []byte
}

// carry copies one direction until its source ends or either end breaks. Reading
// and writing are apart so that latency does not cost throughput.
func (p *Proxy) carry(l *link, dst, src net.Conn, d Direction) {
	queue := make(chan chunk, 256)
	var wg sync.WaitGroup
	wg.Go(func() {
		for c := range queue {
			if wait := time.Until(c.due); wait > 0 {
				time.Sleep(wait)
			}
			if _, err := dst.Write(c.data); err != nil {
				l.reset() // so that reading ends too
			}
		}
		// Only a half: what the other direction still has may go on.
		if tcp, ok := dst.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := src.Read(buf)
		if n > 0 {
			if due, pass := p.plan(d, n); pass {
				queue <- chunk{due: due, data: buf[:n]}
			}
		}
		if err != nil {
			// A reset is passed on as a reset, an end as an end.
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				l.reset()
			}
			break
		}
	}
	close(queue)
	wg.Wait()
}

// plan decides what becomes of n bytes in direction d.
func (p *Proxy) plan(d Direction, n int) (due time.Time, pass bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.swallow&d != 0 {
		return time.Time{}, false
	}
	if d == ToServer {
		p.passed[0] += int64(n)
	} else {
		p.passed[1] += int64(n)
	}
	return time.Now().Add(p.latency), true
}

// reset closes both ends with RST, so that both notice at once. It may be
// called more than once.
func (l *link) reset() {
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
		}
	}
}
