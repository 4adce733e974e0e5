package wslink

import (
	"bufio"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// ServerOptions say how a [Server] treats its clients. Zeros stand for the defaults.
type ServerOptions struct {
	// Origins are the pages whose scripts may connect, beside those of this machine and of the server's own address:
	// "https://app.flowhub.io", with a port if it is not the scheme's own, or "null".
	Origins []string
	// Hosts are names under which browsers reach the server; a page that it has served under one of them may connect. Its
	// addresses and localhost need not be there.
	Hosts []string
	// Clients is how many may be connected at once, 1,000. More get status 503.
	Clients int
	// Handshakes is how many connections may be there that are no clients yet: as many as Clients, who may all come at once
	// when the server has been away. The oldest has to go for one more, so that nobody keeps others out by connecting and
	// saying nothing.
	Handshakes int
	// Handshake is how long a handshake may take, TLS apart, which may take as long again: 5 s.
	Handshake time.Duration
	// Drain is how long the callbacks may go on when the server ends, 5 s.
	Drain time.Duration
	// TLS makes it a server of wss; see [Certificate].
	TLS    *tls.Config
	Limits Limits

	// ID is the UUID of the runtime, Label what it is called, both for the page that browsers get. Without an ID the page has
	// no link.
	ID, Label string
	// UI is where the link leads, [FlowhubURL].
	UI string
	// Public is how clients reach the server if not by the host of their request: "wss://gateway.example", behind a proxy.
	Public string
}

// Client is who is at the other end of a connection, as far as the handshake shows it.
type Client struct {
	RemoteAddr string
	Origin     string // empty: a program, not a page
	UserAgent  string
}

// Server takes clients of the FBP protocol. It is an [http.Handler]: what is no WebSocket handshake gets a page that shows
// how to connect.
type Server struct {
	o        ServerOptions
	serve    func(context.Context, *Conn, Client)
	log      *slog.Logger
	origins  origins
	template *template.Template
	policy   string

	mu      sync.Mutex
	clients int
	conns   map[*Conn]struct{}
	callers sync.WaitGroup // those in serve
	ending  bool

	waiting handshakes
}

// NewServer returns a Server that calls serve for each client, each in a goroutine of its own. The connection is closed when
// serve returns; its context ends with the connection, and when the server ends, and serve has to return then.
func NewServer(o ServerOptions, log *slog.Logger, serve func(context.Context, *Conn, Client)) (*Server, error) {
	allowed, err := newOrigins(o.Origins, o.Hosts)
	if err != nil {
		return nil, fmt.Errorf("wslink: %w", err)
	}
	if o.UI == "" {
		o.UI = FlowhubURL
	}
	if u, err := url.Parse(o.UI); err != nil || !isWeb(u) || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf(`wslink: user interface %q: want one like %q`, o.UI, FlowhubURL)
	}
	if u, err := url.Parse(o.Public); o.Public != "" && (err != nil || u.Scheme != "ws" && u.Scheme != "wss" || !validHost(u.Host)) {
		return nil, fmt.Errorf(`wslink: public address %q: want one like "wss://gateway.example"`, o.Public)
	}
	if o.Label == "" {
		o.Label = "flogate"
	}
	if o.Clients <= 0 {
		o.Clients = 1000
	}
	if o.Handshakes <= 0 {
		o.Handshakes = o.Clients
	}
	for _, d := range []*time.Duration{&o.Handshake, &o.Drain} {
		if *d <= 0 {
			*d = 5 * time.Second
		}
	}
	o.Limits = o.Limits.withDefaults()
	return &Server{
		o: o, serve: serve, log: log, origins: allowed,
		template: parsePage(), policy: policy(),
		conns: map[*Conn]struct{}{}, waiting: handshakes{most: o.Handshakes},
	}, nil
}

// ServeHTTP is for servers of others; [Server.Serve] is a server of its own. It returns when the client is gone.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/":
		http.NotFound(w, r)
	case isUpgrade(r):
		s.accept(w, r)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.page(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	}
}

func isUpgrade(r *http.Request) bool {
	for _, v := range r.Header.Values("Upgrade") {
		for token := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "websocket") {
				return true
			}
		}
	}
	return false
}

func (s *Server) accept(w http.ResponseWriter, r *http.Request) {
	client := Client{RemoteAddr: r.RemoteAddr, Origin: r.Header.Get("Origin"), UserAgent: r.UserAgent()}
	log := s.log.With("remote", client.RemoteAddr)
	if !s.origins.allow(r) {
		log.Warn("client refused for its origin", "origin", client.Origin)
		http.Error(w, "this origin may not connect", http.StatusForbidden)
		return
	}
	if !s.enter() {
		log.Warn("client refused, there are too many", "clients", s.o.Clients)
		w.Header().Set("Retry-After", "10")
		http.Error(w, "there are too many clients", http.StatusServiceUnavailable)
		return
	}
	defer s.leave()
	hijacker := &hijacker{ResponseWriter: w, stall: s.o.Limits.Stall}
	ws, err := websocket.Accept(hijacker, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // origins are looked at above, where Host alone proves nothing
	})
	if err != nil {
		log.Debug("handshake failed", "error", err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	conn := newConn(ws, hijacker.socket, s.o.Limits, cancel)
	defer s.forget(conn)
	s.remember(conn)
	defer func() {
		status, reason := Normal, ""
		if ctx.Err() != nil {
			status, reason = GoingAway, "ends"
		}
		if p := recover(); p != nil {
			log.Error("session panicked", "panic", p, "stack", string(debug.Stack()))
			status, reason = Failed, "internal error"
		}
		_ = conn.Close(status, reason) // whoever does not answer is gone all the same
	}()
	s.serve(ctx, conn, client)
}

// hijacker puts a socket of ours between the connection and the library.
type hijacker struct {
	http.ResponseWriter
	stall  time.Duration
	socket *socket
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.socket = newSocket(conn, h.stall)
	return h.socket, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(h.socket)), nil
}

// enter takes a place for one more client, if there is one.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending || s.clients >= s.o.Clients {
		return false
	}
	s.clients++
	s.callers.Add(1)
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
	s.callers.Done()
}

func (s *Server) remember(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Clients returns how many clients are connected.
func (s *Server) Clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve takes clients from l until ctx ends, and closes l. Clients are then told that the server goes away, and Serve waits
// for their callbacks, but no longer than [ServerOptions.Drain] allows. It is called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	srv := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return serving },
		ConnState:         s.waiting.state,
		ReadHeaderTimeout: s.o.Handshake,
		// Of pages; connections of clients are bounded by their own limits.
		ReadTimeout:    s.o.Handshake,
		WriteTimeout:   s.o.Handshake,
		MaxHeaderBytes: 16 << 10,
		TLSConfig:      s.o.TLS,
		Protocols:      new(http.Protocols), // HTTP/2 has no upgrades
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP1(true)
	srv.SetKeepAlivesEnabled(false) // a connection is a client's, or good for one page
	failed := make(chan error, 1)
	go func() {
		if s.o.TLS != nil {
			failed <- srv.ServeTLS(l, "", "")
		} else {
			failed <- srv.Serve(l)
		}
	}()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("wslink: %w", err)
	case <-ctx.Done():
	}
	_ = srv.Close() // handshakes and pages; the connections of clients are no longer its own
	if err == nil {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = fmt.Errorf("wslink: %w", e)
		}
	}
	return errors.Join(err, s.drain(stop))
}

// drain sends all clients away, and waits for their callbacks.
func (s *Server) drain(stop context.CancelFunc) error {
	s.mu.Lock()
	s.ending = true
	for c := range s.conns {
		s.callers.Go(func() { _ = c.Close(GoingAway, "the server ends") })
	}
	s.mu.Unlock()
	stop()
	gone := make(chan struct{})
	go func() {
		s.callers.Wait()
		close(gone)
	}()
	timer := time.NewTimer(s.o.Drain)
	defer timer.Stop()
	select {
	case <-gone:
		return nil
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("wslink: %d sessions have not ended within %s", s.clients, s.o.Drain)
}

// handshakes are the connections that are no clients yet, oldest first.
type handshakes struct {
	most int

	mu    sync.Mutex
	conns list.List // of net.Conn
	at    map[net.Conn]*list.Element
}

// state is told by the HTTP server how its connections do.
func (h *handshakes) state(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if oldest := h.add(c); oldest != nil {
			if t, ok := oldest.(*tls.Conn); ok {
				oldest = t.NetConn() // no good-bye, which may take time
			}
			_ = oldest.Close() // its own goroutine notices
		}
	case http.StateHijacked, http.StateClosed:
		h.remove(c)
	}
}

// add takes a connection in, and returns the one that has to go for it, if any.
func (h *handshakes) add(c net.Conn) net.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[net.Conn]*list.Element{}
	}
	h.at[c] = h.conns.PushBack(c)
	if h.conns.Len() <= h.most {
		return nil
	}
	oldest := h.conns.Remove(h.conns.Front()).(net.Conn)
	delete(h.at, oldest)
	return oldest
}

func (h *handshakes) remove(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, ok := h.at[c]; ok {
		h.conns.Remove(e)
		delete(h.at, c)
	}
}
