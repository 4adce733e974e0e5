package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/flogate/flogate/core/transport"
)

var connack = []byte{packetConnack << 4, 2, 0, 0}

// pretend listens as a broker whose every connection is served by talk, and returns its URL.
func pretend(t *testing.T, talk func(conn net.Conn, in *bufio.Reader)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				talk(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return "mqtt://" + l.Addr().String()
}

// answer is a broker that accepts connections, answers each SUBSCRIBE with what suback makes of its packet id, and each
// PINGREQ as it should.
func answer(suback func(id uint16) []byte) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, in *bufio.Reader) {
		for {
			p, err := packets.ReadPacket(in)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.ConnectPacket:
				_, _ = conn.Write(connack)
			case *packets.SubscribePacket:
				_, _ = conn.Write(suback(p.MessageID))
			case *packets.PingreqPacket:
				_, _ = conn.Write([]byte{packetPingresp << 4, 0})
			case *packets.DisconnectPacket:
				return
			}
		}
	}
}

func suback(codes ...byte) func(uint16) []byte {
	return func(id uint16) []byte {
		return append([]byte{packetSuback << 4, byte(2 + len(codes)), byte(id >> 8), byte(id)}, codes...)
	}
}

func TestSubackDecides(t *testing.T) {
	for _, tt := range []struct {
		name      string
		codes     []byte
		qos       string
		ok        bool
		permanent bool
	}{
		{name: "granted", codes: []byte{1}, qos: `{}`, ok: true},
		{name: "granted less than exactly once", codes: []byte{1}, qos: `{"qos":2}`, ok: true},
		{name: "granted without acknowledgements", codes: []byte{0}, qos: `{}`, permanent: true},
		{name: "at most once", codes: []byte{0}, qos: `{"qos":0}`, ok: true},
		{name: "refused", codes: []byte{0x80}, qos: `{}`, permanent: true},
		{name: "more codes than filters", codes: []byte{1, 1, 1}, qos: `{}`},
		{name: "no code", codes: nil, qos: `{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := connect(t, "site", "url", pretend(t, answer(suback(tt.codes...))))
			_, err := c.Subscribe(t.Context(), transport.Source{Name: "s", Address: "a", Options: []byte(tt.qos), Window: small})
			if (err == nil) != tt.ok || transport.IsPermanent(err) != tt.permanent {
				t.Errorf("Subscribe: %v; want an error: %t, Permanent: %t", err, !tt.ok, tt.permanent)
			}
			if !tt.ok && !tt.permanent && !errors.Is(err, errBroker) {
				t.Errorf("Subscribe: %v; want errBroker", err)
			}
		})
	}
}

func TestConnackDecides(t *testing.T) {
	for _, tt := range []struct {
		name      string
		bytes     []byte
		permanent bool
	}{
		{"bad version", []byte{0x20, 2, 0, 1}, true},
		{"bad id", []byte{0x20, 2, 0, 2}, true},
		{"unavailable", []byte{0x20, 2, 0, 3}, false},
		{"bad user", []byte{0x20, 2, 0, 4}, true},
		{"not authorised", []byte{0x20, 2, 0, 5}, true},
		{"unknown code", []byte{0x20, 2, 0, 6}, false},
		{"the library's own code", []byte{0x20, 2, 0, 0xfe}, false},
		{"too long", []byte{0x20, 3, 0, 0, 0}, false},
		{"another packet", []byte{0xd0, 0}, false},
		{"endless length", []byte{0x20, 0xff, 0xff, 0xff, 0xff, 0xff}, false},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), false},
		{"nothing", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := pretend(t, func(conn net.Conn, in *bufio.Reader) {
				_, _ = packets.ReadPacket(in)
				_, _ = conn.Write(tt.bytes)
			})
			_, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Config: configure("url", url)})
			if err == nil || transport.IsPermanent(err) != tt.permanent {
				t.Errorf("Connect: %v; want an error, Permanent: %t", err, tt.permanent)
			}
		})
	}
}

// Whatever a broker sends, the connection ends at worst.
func TestAnyBytesAreSurvived(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) // the same each time
	garbage := make(chan []byte, 1)
	url := pretend(t, func(conn net.Conn, in *bufio.Reader) {
		_, _ = packets.ReadPacket(in)
		_, _ = conn.Write(append(bytes.Clone(connack), <-garbage...))
	})
	seeds := [][]byte{
		{0x90, 5, 0, 1, 1, 1, 1},                      // SUBACK with three codes, on a client that has asked for nothing
		{0x36, 5, 0, 1, 'a', 0, 1},                    // QoS 3
		{0x30, 2, 0, 5},                               // a topic longer than the packet
		{0x32, 3, 0, 1, 'a'},                          // no packet id
		{0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1},          // 256 MiB are to follow
		{0x30, 4, 0, 2, 0xff, 0xfe},                   // a topic that is not UTF-8
		{0x40, 2, 0, 9, 0x40, 2, 0, 9},                // PUBACKs for nothing
		{0x50, 2, 0, 9, 0x62, 2, 0, 9, 0x70, 2, 0, 9}, // a QoS 2 exchange for nothing
		{0x10, 0}, {0xe0, 0}, {0xf0, 0}, {0x00, 0}, {0xb0, 2, 0, 1},
	}
	for range 50 {
		b := make([]byte, 1+r.IntN(60))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		b[0] = byte(r.IntN(16)<<4 | r.IntN(16)&r.IntN(16))
		seeds = append(seeds, b)
	}
	for _, b := range seeds {
		garbage <- b
		c, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Config: configure("url", url)})
		if err != nil {
			continue // the end came early
		}
		if _, err := c.Next(t.Context()); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("after % x: %v; want an error that is ErrClosed", b, err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("after % x: close: %v", b, err)
		}
	}
}

func TestBadTopicOfABrokerIsMadeText(t *testing.T) {
	c := connect(t, "site", "url", pretend(t, answer(func(id uint16) []byte {
		return append(suback(1)(id), 0x30, 5, 0, 2, 0xff, 'a', 'x')
	})))
	s := subscribe(t, c, "s", "#", "")
	grant(t, s, 1)
	if d := receive(t, s, 1)[0]; d.Address != "\uFFFDa" || string(d.Body) != "x" {
		t.Errorf("received %q at %q", d.Body, d.Address)
	}
}

// pipe returns a link and the broker's end of it.
func pipe(t *testing.T, silence time.Duration) (*link, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	l := newLink(near, near, silence)
	t.Cleanup(func() {
		_ = l.Close()
		_ = far.Close()
	})
	return l, far
}

func TestSlowIsNotLost(t *testing.T) {
	l, far := pipe(t, 200*time.Millisecond)
	body := strings.Repeat("x", 100)
	go func() {
		_, _ = far.Write(connack)
		_, _ = far.Write([]byte{0x30, 103, 0, 1, 'a'})
		for i := range body {
			time.Sleep(10 * time.Millisecond) // a second in all
			_, _ = far.Write([]byte{body[i]})
		}
	}()
	got := make([]byte, 4+2+3+100)
	if _, err := io.ReadFull(l, got); err != nil {
		t.Fatalf("read: %v", err)
	}
	if string(got[9:]) != body {
		t.Errorf("read %q", got[9:])
	}
	start := time.Now()
	if _, err := l.Read(got); err == nil {
		t.Error("silence is not noticed")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("silence was noticed after %v", took)
	}
}

func TestPeerThatDoesNotReadIsLost(t *testing.T) {
	l, _ := pipe(t, 50*time.Millisecond)
	if _, err := l.Write([]byte{typePingreq, 0}); err == nil {
		t.Fatal("write: no error")
	}
	if _, err := l.Write([]byte{typePingreq, 0}); err == nil || !strings.Contains(err.Error(), "read nothing") {
		t.Errorf("second write: %v; want the first reason", err)
	}
}

func TestPausedLinkReadsNoPacketAndWrites(t *testing.T) {
	l, far := pipe(t, time.Minute)
	far2 := bufio.NewReader(far)
	go func() { _, _ = far.Write(append(bytes.Clone(connack), 0xd0, 0, 0xd0, 0)) }()
	one := make([]byte, 1)
	for range 5 { // into the middle of a packet
		if _, err := l.Read(one); err != nil {
			t.Fatal(err)
		}
	}
	l.pause()
	if _, err := l.Read(one); err != nil { // its rest
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = l.Read(one)
	}()
	go func() { _, _ = l.Write([]byte{typePingreq, 0}) }()
	if b, err := far2.ReadByte(); err != nil || b != typePingreq {
		t.Errorf("a paused link wrote %x, %v", b, err)
	}
	select {
	case <-read:
		t.Error("a paused link read the next packet")
	case <-time.After(50 * time.Millisecond):
	}
	l.resume()
	select {
	case <-read:
	case <-time.After(5 * time.Second):
		t.Error("a resumed link does not read")
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	url := pretend(t, func(_ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) }) // never a CONNACK
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := New(slog.New(slog.DiscardHandler)).Connect(ctx, transport.ConnectRequest{Config: configure("url", url)})
	if err == nil || transport.IsPermanent(err) {
		t.Errorf("Connect: %v; want an error that is not Permanent", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Connect took %v", took)
	}
}

func TestAcknowledgementsGoInTheOrderOfDeliveryAndTogether(t *testing.T) {
	got := make(chan []uint16, 1)
	url := pretend(t, func(conn net.Conn, in *bufio.Reader) {
		var acks []uint16
		for {
			p, err := packets.ReadPacket(in)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.ConnectPacket:
				_, _ = conn.Write(connack)
			case *packets.SubscribePacket:
				_, _ = conn.Write(suback(2)(p.MessageID))
				for i := byte(1); i <= 4; i++ {
					_, _ = conn.Write([]byte{0x32, 5, 0, 1, 'a', 0, i})
				}
				_, _ = conn.Write([]byte{0x3a, 5, 0, 1, 'a', 0, 2}) // again, with DUP
				_, _ = conn.Write([]byte{0x34, 5, 0, 1, 'a', 0, 5}) // QoS 2
			case *packets.PubackPacket:
				acks = append(acks, p.MessageID)
			case *packets.PubrecPacket:
				got <- append(acks, p.MessageID)
			case *packets.DisconnectPacket:
				return
			}
		}
	})
	s := subscribe(t, connect(t, "site", "url", url), "s", "a", `{"qos":2}`)
	grant(t, s, 10)
	ds := receive(t, s, 5)
	nothing(t, s, 50*time.Millisecond) // the repeated one was dropped
	for _, i := range []int{4, 2, 3, 1} {
		settle(t, s, transport.Ack, ds[i:i+1])
	}
	select {
	case ids := <-got:
		t.Fatalf("acknowledged %v before the first delivery was settled", ids)
	case <-time.After(50 * time.Millisecond):
	}
	settle(t, s, transport.Ack, ds[:1])
	select {
	case ids := <-got:
		if want := []uint16{1, 2, 3, 4, 5}; !slices.Equal(ids, want) {
			t.Errorf("acknowledged %v; want %v", ids, want)
		}
	case <-time.After(10 * time.Second):
		t.Error("nothing was acknowledged")
	}
}
