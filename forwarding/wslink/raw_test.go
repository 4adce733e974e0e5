package wslink

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds every wait of these tests.
const soon = 10 * time.Second

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves on a free port until the test ends or the returned function is called, which returns what Serve has returned.
func start(t *testing.T, o ServerOptions, serve func(context.Context, *Conn, Client)) (addr string, server *Server, stop func() error) {
	t.Helper()
	server, err := NewServer(o, silent(), serve)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	var ended error
	go func() {
		defer close(done)
		ended = server.Serve(ctx, l)
	}()
	stop = func() error {
		cancel()
		<-done
		return ended
	}
	t.Cleanup(func() { _ = stop() })
	return l.Addr().String(), server, stop
}

// echo sends back what it gets.
func echo(ctx context.Context, conn *Conn, _ Client) {
	for {
		frame, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, frame); err != nil {
			return
		}
	}
}

// reader reads until it cannot, and hands on why.
func reader(why chan<- error) func(context.Context, *Conn, Client) {
	return func(ctx context.Context, conn *Conn, _ Client) {
		for {
			if _, err := conn.Read(ctx); err != nil {
				why <- err
				return
			}
		}
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(soon):
		t.Fatal("it takes too long")
		panic("unreachable")
	}
}

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", soon, what)
		}
	}
}

// raw is a client that can do everything wrong.
type raw struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

const handshake = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"

func connect(t *testing.T, addr string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, c, bufio.NewReader(c)}
}

func upgrade(t *testing.T, addr string, headers ...string) *raw {
	t.Helper()
	c := connect(t, addr)
	if status := c.shake(headers...).StatusCode; status != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", status)
	}
	return c
}

func (c *raw) shake(headers ...string) *http.Response {
	c.t.Helper()
	text := handshake
	for _, h := range headers {
		text += h + "\r\n"
	}
	c.send([]byte(text + "\r\n"))
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

func (c *raw) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame is one as clients send it, with a mask of zeros. length is what its header says.
func frame(first byte, length int, payload string) []byte {
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, 0x80|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(length))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

func textFrame(s string) []byte { return frame(0x81, len(s), s) }

// next reads a frame of the server's.
func (c *raw) next() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if size := map[uint64]int{126: 2, 127: 8}[n]; size > 0 {
		var b [8]byte
		if _, err := io.ReadFull(c.r, b[8-size:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.r, payload)
	return head[0] & 0xf, payload, err
}

// closing reads on to the close frame, and returns its status and reason.
func (c *raw) closing() (Status, string) {
	c.t.Helper()
	for {
		opcode, payload, err := c.next()
		if err != nil {
			c.t.Fatalf("no close frame: %v", err)
		}
		if opcode == 8 && len(payload) >= 2 {
			return Status(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
	}
}

// get sends one request as it stands.
func get(t *testing.T, addr, request string) (*http.Response, string) {
	t.Helper()
	c := connect(t, addr)
	c.send([]byte(request))
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response, string(body)
}

func dial(t *testing.T, addr string) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), "ws://"+addr, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(Normal, "") })
	return c
}

// status asserts who has closed and why.
func status(t *testing.T, err error, want Status, byPeer bool) {
	t.Helper()
	var closed *ClosedError
	if !errors.As(err, &closed) || closed.Status != want || closed.ByPeer != byPeer {
		t.Errorf("got %v, want status %d, by the peer: %v", err, want, byPeer)
	}
}

func ofSize(n int) []byte { return []byte(fmt.Sprintf("%q", strings.Repeat("x", n-2))) }
