package transporttest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// echo starts a server that sends back what it gets, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// echoes reports whether what is written to c comes back.
func echoes(c net.Conn) error {
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func TestProxyCutsWhatIsOpenAndTakesWhatIsNew(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p)
	if err := echoes(c); err != nil {
		t.Fatalf("through the proxy: %v", err)
	}
	p.Cut(t)
	if err := echoes(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after Cut: %v; want the connection to be reset", err)
	}
	if err := echoes(dial(t, p)); err != nil {
		t.Errorf("a new connection after Cut: %v", err)
	}
}

func TestProxyPassesTheEndOfAStreamOn(t *testing.T) {
	p := NewProxy(t, echo(t))
	c := dial(t, p)
	if _, err := c.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestBlackholeSwallowsUntilItIsRestored(t *testing.T) {
	p := NewProxy(t, echo(t))
	before := dial(t, p)
	if err := echoes(before); err != nil {
		t.Fatalf("through the proxy: %v", err)
	}
	restore := p.Blackhole(t)
	during := dial(t, p)
	for name, c := range map[string]net.Conn{"a connection from before": before, "a new connection": during} {
		if err := c.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := echoes(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v; want nothing to come and nothing to end", name, err)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	restore()
	restore()
	for name, c := range map[string]net.Conn{"a connection from before": before, "one from the dark": during} {
		if err := echoes(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s after restore: %v; want it to be reset", name, err)
		}
	}
	if err := echoes(dial(t, p)); err != nil {
		t.Errorf("a new connection after restore: %v", err)
	}
}

func TestProxyToNowhereEndsTheConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	p := NewProxy(t, l.Addr().String())
	if err := echoes(dial(t, p)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("through a proxy to nowhere: %v; want the connection to end", err)
	}
}
