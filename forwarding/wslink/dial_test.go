package wslink

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serverOf answers one connection after the other with what answer returns for its handshake; nil hangs up, and an empty
// answer is none ever. It returns how many have come.
func serverOf(t *testing.T, answer func(*http.Request) []byte) (addr string, came func() []*http.Request) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var requests []*http.Request
	var conns sync.WaitGroup
	var open []net.Conn
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			conns.Go(func() {
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				mu.Lock()
				requests = append(requests, r)
				mu.Unlock()
				b := answer(r)
				_, _ = c.Write(b)
				if b == nil || len(b) > 0 {
					_ = c.Close()
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return l.Addr().String(), func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return requests
	}
}

func TestServerThatRefusesTheSubprotocolIsTriedWithout(t *testing.T) {
	for name, refusal := range map[string]string{
		"400":              "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
		"401":              "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
		"hangs up":         "",
		"wants another":    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: C/0nmHhBztSRGR1CwL6Tf4ZjwpY=\r\nSec-WebSocket-Protocol: other\r\n\r\n",
		"gives no upgrade": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			server, err := NewServer(ServerOptions{}, silent(), echo)
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			picky := &http.Server{ReadHeaderTimeout: soon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Sec-WebSocket-Protocol") == "" {
					server.ServeHTTP(w, r)
					return
				}
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, refusal)
				_ = c.Close()
			})}
			done := make(chan error, 1)
			go func() { done <- picky.Serve(l) }()
			t.Cleanup(func() {
				_ = picky.Close()
				if err := receive(t, done); !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
				eventually(t, "the client is gone", func() bool { return server.Clients() == 0 })
			})
			c := dial(t, l.Addr().String())
			if c.Subprotocol() != "" {
				t.Errorf("sub-protocol %q", c.Subprotocol())
			}
			if err := c.Write(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Read(t.Context()); err != nil || string(got) != "x" {
				t.Errorf("%q, %v", got, err)
			}
			if err := c.Close(Normal, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestServerThatCannotNowIsNotAskedTwice(t *testing.T) {
	for _, status := range []string{"503 Service Unavailable", "429 Too Many Requests"} {
		addr, came := serverOf(t, func(*http.Request) []byte {
			return []byte("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n")
		})
		_, err := Dial(t.Context(), "ws://"+addr, DialOptions{})
		var refused *HandshakeError
		if !errors.As(err, &refused) || !strings.HasPrefix(status, "50") && refused.Status != 429 {
			t.Errorf("%v", err)
		}
		if n := len(came()); n != 1 {
			t.Errorf("%s: asked %d times", status, n)
		}
	}
}

func TestDialIsBounded(t *testing.T) {
	addr, _ := serverOf(t, func(*http.Request) []byte { return []byte{} })
	begin := time.Now()
	if _, err := Dial(t.Context(), "ws://"+addr, DialOptions{Handshake: 100 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, "ws://"+addr, DialOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(begin); took > soon/2 {
		t.Errorf("took %s", took)
	}
}

func TestConnectionOutlivesTheContextOfItsDial(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{}, echo)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, "ws://"+addr, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(Normal, "") }()
	cancel()
	if err := c.Write(t.Context(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(t.Context()); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNobodyThereIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := Dial(t.Context(), "ws://"+l.Addr().String(), DialOptions{}); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

func TestErrorsOfDialKeepSecrets(t *testing.T) {
	addr, _ := serverOf(t, func(*http.Request) []byte { return nil })
	for _, address := range []string{
		"ws://user:hush@" + addr + "/?secret=hush", "http://" + addr + "/hush", "ws://:hush", "hush", "ws://host:port/%hush",
	} {
		_, err := Dial(t.Context(), address, DialOptions{})
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v", err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere, came := serverOf(t, func(*http.Request) []byte { return nil })
	addr, _ := serverOf(t, func(*http.Request) []byte {
		return []byte("HTTP/1.1 302 Found\r\nLocation: http://" + elsewhere + "/\r\nContent-Length: 0\r\n\r\n")
	})
	_, err := Dial(t.Context(), "ws://"+addr, DialOptions{Header: http.Header{"Authorization": {"Bearer hush"}}})
	var refused *HandshakeError
	if !errors.As(err, &refused) || refused.Status != http.StatusFound {
		t.Error(err)
	}
	if n := len(came()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestHeadersAreSent(t *testing.T) {
	addr, came := serverOf(t, func(*http.Request) []byte { return nil })
	_, _ = Dial(t.Context(), "ws://"+addr+"/deep?x=y", DialOptions{Header: http.Header{"X-Site": {"hall"}}})
	r := came()[0]
	if r.Header.Get("X-Site") != "hall" || r.URL.String() != "/deep?x=y" || r.Header.Get("Sec-WebSocket-Protocol") != "noflo" {
		t.Errorf("%s %v", r.URL, r.Header)
	}
}
