package coalesce

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcp returns the two ends of a connection over loopback, which are closed after the test.
func tcp(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return near, far
}

// counting counts the calls that would be system calls, and keeps Write waiting while gate is not nil and open.
type counting struct {
	net.Conn
	reads, writes atomic.Int64
	gate          chan struct{}
	entered       chan struct{} // has an element when a Write has come to the gate
}

func (c *counting) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.gate != nil {
		c.entered <- struct{}{}
		<-c.gate
	}
	return c.Conn.Write(p)
}

// gated returns an inner connection whose Writes wait until the gate is closed.
func gated(inner net.Conn) *counting {
	return &counting{Conn: inner, gate: make(chan struct{}), entered: make(chan struct{}, 1000)}
}

func mustWrite(t testing.TB, c net.Conn, p []byte) {
	t.Helper()
	if n, err := c.Write(p); n != len(p) || err != nil {
		t.Fatalf("write %d bytes: %d, %v", len(p), n, err)
	}
}

func mustRead(t testing.TB, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %.60q, %v; want %.60q", got, err, want)
	}
}

func TestBytesArriveUnchangedInBothDirections(t *testing.T) {
	near, far := tcp(t)
	a, b := Wrap(near, Options{ReadBuffer: 1000, WriteBuffer: 3000}), Wrap(far, Options{Linger: 50 * time.Microsecond, QuickAck: true})
	const total = 2 << 20
	data := make([]byte, total)
	_, _ = rand.Read(data)
	var wg sync.WaitGroup
	for _, way := range []struct{ from, to net.Conn }{{a, b}, {b, a}} {
		wg.Go(func() {
			r := mathrand.New(mathrand.NewPCG(1, 1))
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(1<<r.IntN(16)))
				if _, err := way.from.Write(rest[:n]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				rest = rest[n:]
			}
		})
		wg.Go(func() {
			r := mathrand.New(mathrand.NewPCG(2, 2))
			buf := make([]byte, 1<<16)
			for rest := data; len(rest) > 0; {
				n, err := way.to.Read(buf[:1+r.IntN(1<<r.IntN(16))])
				if err != nil || !bytes.Equal(buf[:n], rest[:n]) {
					t.Errorf("read with %d bytes to come: %v, or they have changed", len(rest), err)
					return
				}
				rest = rest[n:]
			}
		})
	}
	wg.Wait()
	for _, c := range []net.Conn{a, b} {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestWritesJoinWhileOneIsOnItsWay(t *testing.T) {
	near, far := tcp(t)
	inner := gated(near)
	c := Wrap(inner, Options{})
	mustWrite(t, c, []byte("0"))
	<-inner.entered
	for range 100 {
		mustWrite(t, c, []byte("x"))
	}
	close(inner.gate)
	mustRead(t, far, append([]byte("0"), bytes.Repeat([]byte("x"), 100)...))
	if n := inner.writes.Load(); n != 2 {
		t.Errorf("%d system calls; want 2", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestReadsAreLarge(t *testing.T) {
	near, far := tcp(t)
	inner := &counting{Conn: near}
	c := Wrap(inner, Options{})
	data := make([]byte, 20_000)
	mustWrite(t, far, data)
	// Let all of it come, or the count says nothing.
	first := make([]byte, 1)
	mustRead(t, c, first)
	for range (len(data) - 1) / 3 {
		mustRead(t, c, make([]byte, 3))
	}
	if n := inner.reads.Load(); n > 20 {
		t.Errorf("%d system calls for %d bytes in pieces of 3", n, len(data))
	}
	_ = c.Close()
}

func TestLargeReadIsNotBuffered(t *testing.T) {
	near, far := tcp(t)
	c := Wrap(near, Options{ReadBuffer: 16})
	mustWrite(t, far, make([]byte, 1000))
	mustRead(t, c, make([]byte, 1000))
	if buffered := c.(*conn).readBuf; buffered != nil {
		t.Error("a buffer was made")
	}
	_ = c.Close()
}

func TestFullBufferIsBackPressure(t *testing.T) {
	near, far := tcp(t)
	inner := gated(near)
	c := Wrap(inner, Options{WriteBuffer: 100})
	mustWrite(t, c, bytes.Repeat([]byte("a"), 100))
	<-inner.entered // these are on their way
	mustWrite(t, c, bytes.Repeat([]byte("b"), 90))
	if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Write(bytes.Repeat([]byte("c"), 50))
	if n != 10 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write into a full buffer: %d, %v; want 10 bytes taken and the error of the deadline", n, err)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no timeout", err)
	}
	if n, err := c.Write([]byte("late")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write after the deadline: %d, %v", n, err)
	}

	// The connection goes on where it was when the deadline is moved.
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { mustWrite(t, c, bytes.Repeat([]byte("c"), 40)) })
	close(inner.gate)
	mustRead(t, far, []byte(string(bytes.Repeat([]byte("a"), 100))+string(bytes.Repeat([]byte("b"), 90))+string(bytes.Repeat([]byte("c"), 50))))
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeadlineWakesAWriteThatWaits(t *testing.T) {
	near, _ := tcp(t)
	inner := gated(near)
	c := Wrap(inner, Options{WriteBuffer: 10, CloseWithin: time.Millisecond})
	mustWrite(t, c, make([]byte, 10))
	<-inner.entered
	mustWrite(t, c, make([]byte, 10))
	var wg sync.WaitGroup
	for range 3 { // those that wait for their turn too
		wg.Go(func() {
			if n, err := c.Write(make([]byte, 5)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %d, %v; want the error of the deadline", n, err)
			}
		})
	}
	if err := c.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(inner.gate)
	_ = c.Close()
}

func TestReadHeedsItsDeadline(t *testing.T) {
	near, far := tcp(t)
	c := Wrap(near, Options{})
	timedOut := func(when string) {
		t.Helper()
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d, %v; want the error of the deadline", when, n, err)
		}
	}
	set := func(d time.Time) {
		t.Helper()
		if err := c.SetReadDeadline(d); err != nil {
			t.Fatal(err)
		}
	}
	set(time.Now().Add(10 * time.Millisecond))
	timedOut("nothing comes")
	timedOut("nothing comes, again")
	set(time.Time{})
	mustWrite(t, far, []byte("abc"))
	mustRead(t, c, []byte("a"))
	set(time.Now().Add(-time.Second))
	timedOut("something is buffered and the deadline has passed")
	set(time.Now().Add(time.Minute))
	mustRead(t, c, []byte("bc"))

	var wg sync.WaitGroup
	wg.Go(func() { timedOut("the deadline is set while Read waits") })
	set(time.Now())
	wg.Wait()
	_ = c.Close()
}

func TestEndOfStreamComesAfterWhatWasSent(t *testing.T) {
	near, far := tcp(t)
	c := Wrap(near, Options{})
	mustWrite(t, far, []byte("bye"))
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if string(got) != "bye" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	_ = c.Close()
}

// broken fails every Write.
type broken struct {
	net.Conn
	err error
}

func (b *broken) Write([]byte) (int, error) { return 0, b.err }

func TestErrorOfAFlushIsThatOfALaterWrite(t *testing.T) {
	near, _ := tcp(t)
	lost := errors.New("cable cut")
	c := Wrap(&broken{near, lost}, Options{})
	for tries := 0; ; tries++ {
		n, err := c.Write([]byte("x"))
		if errors.Is(err, lost) && n == 0 {
			break
		}
		if err != nil || tries > 5000 {
			t.Fatalf("write %d: %d, %v; want %v before long", tries, n, err, lost)
		}
		time.Sleep(time.Millisecond)
	}
	if err := c.Close(); !errors.Is(err, lost) {
		t.Errorf("close: %v; want %v", err, lost)
	}
}

func TestErrorOfAFlushWakesAWriteThatWaits(t *testing.T) {
	near, _ := tcp(t)
	c := Wrap(&broken{near, io.ErrClosedPipe}, Options{WriteBuffer: 10})
	if n, err := c.Write(make([]byte, 1000)); !errors.Is(err, io.ErrClosedPipe) || n >= 1000 {
		t.Errorf("write: %d, %v", n, err)
	}
	_ = c.Close()
}

func TestCloseLetsOutWhatWasWritten(t *testing.T) {
	for range 50 {
		near, far := tcp(t)
		c := Wrap(near, Options{Linger: 10 * time.Millisecond})
		var want []byte
		for i := range 200 {
			want = append(want, byte(i))
			mustWrite(t, c, []byte{byte(i)})
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := io.ReadAll(far); !bytes.Equal(got, want) || err != nil {
				t.Errorf("%d of %d bytes have come, %v", len(got), len(want), err)
			}
		})
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		wg.Wait()
	}
}

func TestCloseDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	near, _ := tcp(t)
	c := Wrap(near, Options{WriteBuffer: 16 << 20, CloseWithin: 50 * time.Millisecond})
	mustWrite(t, c, make([]byte, 16<<20)) // more than the kernel holds
	start := time.Now()
	err := c.Close()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("close took %v; want 50 ms", took)
	}
	if err == nil {
		t.Error("close: no error, though not all has gone out")
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	near, _ := tcp(t)
	c := Wrap(near, Options{WriteBuffer: 10, CloseWithin: time.Millisecond})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v; want net.ErrClosed", err)
		}
	})
	written := make(chan struct{}, 1)
	wg.Go(func() {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("write: %v; want net.ErrClosed", err)
				}
				return
			}
			select {
			case written <- struct{}{}:
			default:
			}
		}
	})
	<-written
	_ = c.Close()
	wg.Wait()
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close again: %v; want net.ErrClosed", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after close: %v; want net.ErrClosed", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v; want net.ErrClosed", err)
	}
}

func TestWritesOfManyStayInOnePiece(t *testing.T) {
	near, far := tcp(t)
	c := Wrap(near, Options{WriteBuffer: 700, Linger: 20 * time.Microsecond})
	const writers, each = 8, 300
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				packet := bytes.Repeat([]byte{byte(w)}, 4+(i*37)%2000)
				binary.BigEndian.PutUint32(packet, uint32(len(packet)))
				if _, err := c.Write(packet); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	in := Wrap(far, Options{})
	head := make([]byte, 4)
	for n := range writers * each {
		if _, err := io.ReadFull(in, head); err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		size := binary.BigEndian.Uint32(head)
		if size < 4 || size > 2004 {
			t.Fatalf("packet %d says that it has %d bytes: packets are mixed", n, size)
		}
		body := make([]byte, size-4)
		if _, err := io.ReadFull(in, body); err != nil {
			t.Fatalf("packet %d: %v", n, err)
		}
		for _, b := range body {
			if b != body[0] {
				t.Fatalf("packet %d has bytes of writers %d and %d", n, body[0], b)
			}
		}
	}
	wg.Wait()
	_, _ = c.Close(), in.Close()
}

// sink is an inner connection that notes when what was written to it. It is for tests in virtual time.
type sink struct {
	net.Conn
	mu    sync.Mutex
	start time.Time
	sizes []int
	at    []time.Duration
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes = append(s.sizes, len(p))
	s.at = append(s.at, time.Since(s.start))
	return len(p), nil
}

func (s *sink) Close() error { return nil }

func TestLoneWriteDoesNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{start: time.Now()}
		c := Wrap(s, Options{Linger: 200 * time.Microsecond})
		for range 20 {
			mustWrite(t, c, []byte("x"))
			synctest.Wait()
			time.Sleep(5 * time.Millisecond)
		}
		for i, at := range s.at {
			if want := time.Duration(i) * 5 * time.Millisecond; at != want {
				t.Errorf("write %d went out at %v; want %v", i, at, want)
			}
		}
		_ = c.Close()
	})
}

func TestBusyConnectionLingersAndACalmOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{start: time.Now()}
		c := Wrap(s, Options{Linger: 200 * time.Microsecond})
		write := func(n int, every time.Duration) (calls int) {
			before := len(s.sizes)
			for range n {
				mustWrite(t, c, []byte("x"))
				time.Sleep(every)
			}
			synctest.Wait()
			return len(s.sizes) - before
		}
		if calls := write(100, time.Millisecond); calls != 100 {
			t.Errorf("%d system calls for 100 writes at 1000 a second; want 100", calls)
		}
		write(50, 50*time.Microsecond)
		if calls := write(400, 50*time.Microsecond); calls > 110 {
			t.Errorf("%d system calls for 400 writes at 20,000 a second; want four writes in each", calls)
		}
		time.Sleep(time.Second)
		from := time.Since(s.start)
		write(1, time.Millisecond)
		if at := s.at[len(s.at)-1]; at != from {
			t.Errorf("the first write after a pause waited %v", at-from)
		}
		_ = c.Close()
	})
}

func TestFullBufferAndCloseDoNotLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{start: time.Now()}
		c := Wrap(s, Options{Linger: time.Hour, WriteBuffer: 100})
		for range 100 {
			mustWrite(t, c, []byte("x"))
			synctest.Wait()
		}
		if at := time.Since(s.start); at != 0 {
			t.Fatalf("100 writes took %v", at)
		}
		// Half a buffer goes out, however long it could linger.
		if len(s.sizes) == 0 {
			t.Error("nothing has gone out of a full buffer")
		}
		mustWrite(t, c, []byte("x"))
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		total := 0
		for _, n := range s.sizes {
			total += n
		}
		if at := time.Since(s.start); total != 101 || at != 0 {
			t.Errorf("%d of 101 bytes have gone out after %v", total, at)
		}
	})
}

func TestNoGoroutineWhileNothingIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Wrap(&sink{start: time.Now()}, Options{})
		mustWrite(t, c, []byte("x"))
		synctest.Wait()
		// The bubble ends without Close only when no goroutine is left in it.
		if c.(*conn).flushing {
			t.Error("there is a flusher, and nothing to flush")
		}
	})
}

func TestWorksAboveAndBelowTLS(t *testing.T) {
	server, client := tlsConfigs(t)
	wrap := func(c net.Conn) net.Conn { return Wrap(c, Options{QuickAck: true, Linger: 20 * time.Microsecond}) }
	for name, stack := range map[string]func(net.Conn, func(net.Conn) net.Conn) net.Conn{
		"above": func(c net.Conn, secure func(net.Conn) net.Conn) net.Conn { return wrap(secure(c)) },
		"below": func(c net.Conn, secure func(net.Conn) net.Conn) net.Conn { return secure(wrap(c)) },
	} {
		t.Run(name, func(t *testing.T) {
			near, far := tcp(t)
			a := stack(near, func(c net.Conn) net.Conn { return tls.Client(c, client) })
			b := stack(far, func(c net.Conn) net.Conn { return tls.Server(c, server) })
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range 500 {
					if _, err := a.Write(bytes.Repeat([]byte{byte(i)}, 100)); err != nil {
						t.Errorf("write: %v", err)
						return
					}
				}
				if err := a.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			got, err := io.ReadAll(b)
			if len(got) != 50_000 || err != nil {
				t.Errorf("read %d bytes, %v; want 50,000 and the end", len(got), err)
			}
			wg.Wait()
			_ = b.Close()
		})
	}
}

// tlsConfigs returns the configurations of a server and of a client that trusts it.
func tlsConfigs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"broker"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13},
		&tls.Config{RootCAs: pool, ServerName: "broker", MinVersion: tls.VersionTLS13}
}

func TestQuickAckFindsTheSocketUnderTLS(t *testing.T) {
	near, far := tcp(t)
	if rawConn(tls.Client(near, &tls.Config{ServerName: "broker", MinVersion: tls.VersionTLS13})) == nil {
		t.Error("no socket found under TLS")
	}
	if rawConn(&sink{}) != nil {
		t.Error("a socket found where there is none")
	}
	c := Wrap(struct{ net.Conn }{near}, Options{QuickAck: true})
	mustWrite(t, far, []byte("x"))
	mustRead(t, c, []byte("x"))
	_ = c.Close()
}

// BenchmarkSmallWrites writes packets of 100 bytes to a peer that reads, and reports how many writes there were in one system
// call.
func BenchmarkSmallWrites(b *testing.B) {
	for _, bb := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{
		{"plain", func(c net.Conn) net.Conn { return c }},
		{"coalesced", func(c net.Conn) net.Conn { return Wrap(c, Options{}) }},
		{"lingering", func(c net.Conn) net.Conn { return Wrap(c, Options{Linger: 200 * time.Microsecond}) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			near, far := tcp(b)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
			inner := &counting{Conn: near}
			c := bb.wrap(inner)
			packet := make([]byte, 100)
			b.SetBytes(int64(len(packet)))
			for b.Loop() {
				if _, err := c.Write(packet); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
			_ = near.Close()
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(inner.writes.Load()), "writes/call")
		})
	}
}

// BenchmarkSmallReads reads packets of 100 bytes, each in three pieces as paho does, and reports how many there were in one
// system call.
func BenchmarkSmallReads(b *testing.B) {
	for _, bb := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{
		{"plain", func(c net.Conn) net.Conn { return c }},
		{"coalesced", func(c net.Conn) net.Conn { return Wrap(c, Options{}) }},
		{"quick ack", func(c net.Conn) net.Conn { return Wrap(c, Options{QuickAck: true}) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			near, far := tcp(b)
			var wg sync.WaitGroup
			wg.Go(func() {
				packets := make([]byte, 100*100)
				for {
					if _, err := far.Write(packets); err != nil {
						return
					}
				}
			})
			inner := &counting{Conn: near}
			c := bb.wrap(inner)
			packet := make([]byte, 100)
			b.SetBytes(int64(len(packet)))
			for b.Loop() {
				for _, part := range [][]byte{packet[:1], packet[1:2], packet[2:]} {
					if _, err := io.ReadFull(c, part); err != nil {
						b.Fatal(err)
					}
				}
			}
			_ = c.Close()
			_ = near.Close()
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(inner.reads.Load()), "packets/call")
		})
	}
}
