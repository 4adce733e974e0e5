package wslink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMessagesCrossWholeAndInOrder(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{}, echo)
	c := dial(t, addr)
	if c.Subprotocol() != "noflo" {
		t.Errorf("sub-protocol %q", c.Subprotocol())
	}
	for _, n := range []int{2, 125, 126, 511, 512, 513, 4096, 65535, 65536, 100_000, 1 << 20, 4 << 20} {
		sent := ofSize(n)
		if err := c.Write(t.Context(), sent); err != nil {
			t.Fatal(err)
		}
		got, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came back as %d others", n, len(got))
		}
	}
}

func TestManyMessagesAtOnce(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{}, echo)
	c := dial(t, addr)
	var sent [][]byte
	for _, n := range []int{2, 10, 65000, 600, 65536, 3, 70_000, 200_000, 2} {
		sent = append(sent, ofSize(n))
	}
	if err := c.Write(t.Context(), sent...); err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range sent {
		got, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others", len(want), len(got))
		}
	}
}

func TestConcurrentWritesTakeTurns(t *testing.T) {
	const writers, each = 8, 200
	got := make(chan string, writers*each)
	addr, _, _ := start(t, ServerOptions{}, func(ctx context.Context, conn *Conn, _ Client) {
		for {
			frame, err := conn.Read(ctx)
			if err != nil {
				return
			}
			got <- string(frame)
		}
	})
	c := dial(t, addr)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				if err := c.Write(t.Context(), fmt.Appendf(nil, "%d %04d %s", w, n, strings.Repeat("x", n*20))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	last := map[byte]string{}
	for range writers * each {
		s := receive(t, got)
		if s[:6] <= last[s[0]] {
			t.Errorf("%s came after %s", s[:6], last[s[0]])
		}
		last[s[0]] = s[:6]
	}
}

func TestWhatIsNotAMessageIsSentAwayWithItsStatus(t *testing.T) {
	for _, c := range []struct {
		name string
		send []byte
		want Status
	}{
		{"binary", frame(0x82, 2, "{}"), Unsupported},
		{"not UTF-8", textFrame("\xff\xfe"), Invalid},
		{"UTF-8 cut off", textFrame("\"\xe2\x82"), Invalid},
		{"one byte too much", textFrame(strings.Repeat("x", leastMessage+1)), TooLarge},
		{"too much in parts", append(frame(0x01, leastMessage, strings.Repeat("x", leastMessage)), frame(0x80, 1, "x")...), TooLarge},
		{"a terabyte promised", frame(0x81, 1<<40, strings.Repeat("x", 2*leastMessage)), TooLarge},
		{"compressed, which nobody offered", frame(0xc1, 2, "{}"), Malformed},
		{"a continuation of nothing", frame(0x80, 2, "{}"), Malformed},
		{"an unknown opcode", frame(0x83, 2, "{}"), Malformed},
		{"a ping in parts", frame(0x09, 2, "{}"), Malformed},
		{"a ping too large", frame(0x89, 126, strings.Repeat("x", 126)), Malformed},
		{"a length below zero", append([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, 0, 0, 0), Malformed},
		{"no mask", []byte{0x81, 2, '{', '}'}, Malformed},
		{"noise", []byte("GET / HTTP/1.1\r\nHost: again\r\n\r\n"), Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			why := make(chan error, 1)
			addr, server, _ := start(t, ServerOptions{Limits: Limits{Message: leastMessage, Close: 300 * time.Millisecond}}, reader(why))
			client := upgrade(t, addr)
			client.send(c.send)
			if got, reason := client.closing(); got != c.want {
				t.Errorf("status %d (%s), want %d", got, reason, c.want)
			}
			client.send(frame(0x88, 2, "\x03\xe8"))
			status(t, receive(t, why), c.want, false)
			eventually(t, "the client is gone", func() bool { return server.Clients() == 0 })
		})
	}
}

func TestLargestMessageArrivesAlsoInParts(t *testing.T) {
	got := make(chan int, 2)
	addr, _, _ := start(t, ServerOptions{Limits: Limits{Message: 1}}, func(ctx context.Context, conn *Conn, _ Client) {
		for {
			frame, err := conn.Read(ctx)
			if err != nil {
				return
			}
			got <- len(frame)
		}
	})
	c := upgrade(t, addr)
	half := strings.Repeat("x", leastMessage/2)
	c.send(frame(0x01, len(half), half))
	c.send(frame(0x89, 0, "")) // a ping between the parts is nobody's business
	c.send(frame(0x80, len(half), half))
	c.send(textFrame(half + half))
	for range 2 {
		if n := receive(t, got); n != leastMessage {
			t.Errorf("%d bytes came, want %d", n, leastMessage)
		}
	}
}

func TestMessageThatIsCutOffIsNone(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 700} { // what is read at a time ends there, too
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			why := make(chan error, 1)
			addr, _, _ := start(t, ServerOptions{}, func(ctx context.Context, conn *Conn, _ Client) {
				frame, err := conn.Read(ctx)
				if err == nil {
					err = fmt.Errorf("%d bytes were taken for a message", len(frame))
				}
				why <- err
			})
			c := upgrade(t, addr)
			c.send(frame(0x81, 1000, strings.Repeat("x", n)))
			_ = c.Close()
			if err := receive(t, why); !strings.HasPrefix(err.Error(), "connection lost") {
				t.Error(err)
			}
		})
	}
}

func TestPeerThatClosesIsAnswered(t *testing.T) {
	why := make(chan error, 1)
	addr, _, _ := start(t, ServerOptions{}, reader(why))
	c := upgrade(t, addr)
	c.send(frame(0x88, 6, "\x0f\xa0done"))
	if got, reason := c.closing(); got != 4000 || reason != "done" {
		t.Errorf("answer %d %q", got, reason)
	}
	if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %v", err)
	}
	err := receive(t, why)
	status(t, err, 4000, true)
	if err.Error() != "closed by the peer: done (4000)" {
		t.Error(err)
	}
}

func TestCloseTellsThePeer(t *testing.T) {
	addr, _, _ := start(t, ServerOptions{}, func(ctx context.Context, conn *Conn, _ Client) {
		if err := conn.Close(TryLater, strings.Repeat("é", 100)); err != nil {
			t.Errorf("close: %v", err)
		}
		_, err := conn.Read(ctx)
		status(t, err, TryLater, false)
		status(t, conn.Write(ctx, []byte("late")), TryLater, false) // though ctx has ended with the connection
	})
	c := dial(t, addr)
	_, err := c.Read(t.Context())
	status(t, err, TryLater, true)
	var closed *ClosedError
	if errors.As(err, &closed) && closed.Reason != strings.Repeat("é", 61) {
		t.Errorf("reason %q", closed.Reason)
	}
	status(t, c.Write(t.Context(), []byte("late")), TryLater, true)
}

func TestEndOfContextClosesProperly(t *testing.T) {
	t.Run("while reading", func(t *testing.T) {
		why := make(chan error, 1)
		addr, _, _ := start(t, ServerOptions{}, reader(why))
		c := dial(t, addr)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		if _, err := c.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		status(t, receive(t, why), GoingAway, true)
	})
	t.Run("before anything is written, which does no harm", func(t *testing.T) {
		addr, _, _ := start(t, ServerOptions{}, echo)
		c := dial(t, addr)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Write(ctx, []byte("never")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := c.Write(t.Context(), []byte("first")); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Read(t.Context()); err != nil || string(got) != "first" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("while writing to somebody who takes nothing", func(t *testing.T) {
		done := make(chan error, 1)
		addr, _, _ := start(t, ServerOptions{Limits: Limits{Close: 100 * time.Millisecond}}, func(ctx context.Context, conn *Conn, _ Client) {
			ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			defer cancel()
			done <- flood(ctx, conn)
		})
		upgrade(t, addr)
		if err := receive(t, done); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// flood writes until it cannot.
func flood(ctx context.Context, conn *Conn) error {
	frame := ofSize(1 << 20)
	for {
		if err := conn.Write(ctx, frame); err != nil {
			return err
		}
	}
}

func TestPeerThatTakesNothingIsLost(t *testing.T) {
	done := make(chan error, 1)
	addr, _, _ := start(t, ServerOptions{Limits: Limits{Stall: 300 * time.Millisecond}}, func(ctx context.Context, conn *Conn, _ Client) {
		done <- flood(ctx, conn)
	})
	upgrade(t, addr)
	begin := time.Now()
	if err := receive(t, done); !strings.HasPrefix(err.Error(), "connection lost") {
		t.Error(err)
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("given up after %s", took)
	}
}

func TestSlowPeerThatTakesSomethingIsKept(t *testing.T) {
	const stall = 500 * time.Millisecond
	done := make(chan error, 1)
	addr, _, _ := start(t, ServerOptions{Limits: Limits{Stall: stall, Message: 32 << 20}}, func(ctx context.Context, conn *Conn, _ Client) {
		done <- conn.Write(ctx, ofSize(32<<20)) // more than sockets buffer
	})
	c := upgrade(t, addr)
	// It takes about four times as long as the stall time, in steps that are each well within it.
	begin := time.Now()
	for range 20 {
		if _, err := io.CopyN(io.Discard, c.r, 1<<20); err != nil {
			t.Fatal(err)
		}
		time.Sleep(stall / 5)
	}
	go func() { _, _ = io.Copy(io.Discard, c.r) }()
	if err := receive(t, done); err != nil {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func TestClosingAStuckPeerIsBounded(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string) *raw{
		"that says nothing": func(t *testing.T, addr string) *raw { return upgrade(t, addr) },
		"in the middle of a frame": func(t *testing.T, addr string) *raw {
			c := upgrade(t, addr)
			c.send(frame(0x81, 1<<20, strings.Repeat("x", 1000)))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			took := make(chan time.Duration, 1)
			addr, _, _ := start(t, ServerOptions{Limits: Limits{Close: 200 * time.Millisecond}}, func(ctx context.Context, conn *Conn, _ Client) {
				var reading, writing sync.WaitGroup
				reading.Go(func() { _, _ = conn.Read(ctx) })
				writing.Go(func() { _ = flood(ctx, conn) })
				eventually(t, "the peer's buffers are full", func() bool { return conn.writing.Load() > 0 })
				begin := time.Now()
				if err := conn.Close(TryLater, "does not follow"); err == nil {
					t.Error("the peer is said to have answered")
				}
				reading.Wait()
				writing.Wait()
				took <- time.Since(begin)
			})
			prepare(t, addr)
			if d := receive(t, took); d > 2*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

func TestSilentPeerIsNoticed(t *testing.T) {
	limits := Limits{Ping: 50 * time.Millisecond, Pong: 50 * time.Millisecond, Close: 50 * time.Millisecond}
	why := make(chan error, 1)
	addr, _, _ := start(t, ServerOptions{Limits: limits}, reader(why))
	c := upgrade(t, addr)
	opcode, payload, err := c.next()
	if err != nil || opcode != 9 {
		t.Fatalf("opcode %d, %v; want a ping", opcode, err)
	}
	c.send(frame(0x8a, len(payload), string(payload))) // it answers once, and then no more
	status(t, receive(t, why), Failed, false)
	if got, reason := c.closing(); got != Failed || reason != "no answer to a ping" {
		t.Errorf("it was told %d %q", got, reason)
	}
}

func TestPeerIsNotToBlameWhileNobodyListens(t *testing.T) {
	limits := Limits{Ping: 20 * time.Millisecond, Pong: 20 * time.Millisecond}
	got := make(chan string, 2)
	addr, _, _ := start(t, ServerOptions{Limits: limits}, func(ctx context.Context, conn *Conn, _ Client) {
		for range 2 {
			frame, err := conn.Read(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			got <- string(frame)
			time.Sleep(10 * limits.Ping) // busy with it
		}
	})
	c := dial(t, addr)
	go func() { _, _ = c.Read(context.WithoutCancel(t.Context())) }() // answers pings
	for range 2 {
		if err := c.Write(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, got)
	receive(t, got)
}

func TestTalkingPeerNeedsNoPong(t *testing.T) {
	limits := Limits{Ping: 30 * time.Millisecond, Pong: 30 * time.Millisecond}
	why := make(chan error, 1)
	addr, _, _ := start(t, ServerOptions{Limits: limits}, reader(why))
	c := upgrade(t, addr)
	// One large message that comes slowly is a sign of life, though its end is not there for long.
	c.send(frame(0x81, 50, ""))
	for range 50 {
		c.send([]byte("x"))
		time.Sleep(limits.Pong / 3)
	}
	select {
	case err := <-why:
		t.Errorf("sent away: %v", err)
	default:
	}
}

func TestHalfClosedPeerIsGone(t *testing.T) {
	why := make(chan error, 1)
	addr, server, _ := start(t, ServerOptions{}, reader(why))
	c := upgrade(t, addr)
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, why); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	eventually(t, "the client is gone", func() bool { return server.Clients() == 0 })
}
