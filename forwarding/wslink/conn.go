package wslink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// Conn is one WebSocket connection, whoever has opened it. Somebody must read from it all the time, for what answers a peer's
// pings and closings is done by the reader, and must close it in the end.
//
// Read is called by one goroutine at a time; all other methods may be called concurrently, with it and with each other.
type Conn struct {
	ws     *websocket.Conn
	socket *socket
	limits Limits
	ended  func() // told once, when the connection has come to its end

	reads   atomic.Uint64 // odd while somebody reads
	writing atomic.Int64

	once    sync.Once
	closed  chan struct{}
	cause   error // why it is closed, once closed is
	pinging sync.WaitGroup
}

func newConn(ws *websocket.Conn, s *socket, limits Limits, ended func()) *Conn {
	c := &Conn{ws: ws, socket: s, limits: limits, ended: ended, closed: make(chan struct{})}
	ws.SetReadLimit(-1) // ours is in read, where it can be exact
	c.pinging.Go(c.ping)
	return c
}

// Subprotocol returns what both sides have agreed on: "noflo" or nothing.
func (c *Conn) Subprotocol() string { return c.ws.Subprotocol() }

// Read returns the next message, which is valid UTF-8 and the caller's own; whether it is JSON is not looked at. It blocks
// until there is one. A peer that sends something else, or too much, is sent away with the status for it. An error is for
// good: the connection is closed when Read returns one. If ctx ends, the connection is closed with [GoingAway], and Read's
// error wraps ctx's.
func (c *Conn) Read(ctx context.Context) ([]byte, error) {
	c.reads.Add(1)
	defer c.reads.Add(1)
	stop := context.AfterFunc(ctx, func() { c.goAway(ctx) })
	defer stop()
	frame, err := c.read()
	if err == nil {
		return frame, nil
	}
	return nil, c.failed(err)
}

func (c *Conn) read() ([]byte, error) {
	kind, r, err := c.ws.Reader(context.Background()) // the deadlines are the socket's
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageText {
		return nil, &ClosedError{Status: Unsupported, Reason: "only text is understood here"}
	}
	frame := make([]byte, 0, 512)
	for {
		// Memory grows with what has come, never with what a header promises.
		n, err := r.Read(frame[len(frame):cap(frame)])
		frame = frame[:len(frame)+n]
		if int64(len(frame)) > c.limits.Message {
			return nil, &ClosedError{Status: TooLarge, Reason: fmt.Sprintf("a message may have %d bytes", c.limits.Message)}
		}
		if errors.Is(err, io.EOF) && c.socket.readError() == nil { // the library calls a frame that was cut off an EOF, too
			break
		}
		if err != nil {
			return nil, err
		}
		if len(frame) == cap(frame) {
			frame = append(frame, 0)[:len(frame)]
		}
	}
	if !utf8.Valid(frame) {
		return nil, &ClosedError{Status: Invalid, Reason: "text is UTF-8"}
	}
	return frame, nil
}

// failed ends the connection over an error, and returns what the caller should know of it.
func (c *Conn) failed(err error) error {
	var ours *ClosedError
	var theirs websocket.CloseError
	switch {
	case errors.As(err, &ours):
		_ = c.Close(ours.Status, ours.Reason)
	case errors.As(err, &theirs): // and the library has answered
		c.shut(&ClosedError{Status: Status(theirs.Code), Reason: theirs.Reason, ByPeer: true}, c.drop)
	case c.socket.readError() == nil && c.open() && !errors.Is(err, context.DeadlineExceeded): // that is a pong that did not get out
		_ = c.Close(Malformed, "not a WebSocket frame")
	default:
		c.shut(fmt.Errorf("connection lost: %w", err), c.drop)
	}
	return c.why()
}

// Write sends messages, each a frame of its own, and blocks until the system has taken all of them. Concurrent calls take
// turns, though between two messages of one another's may come. A peer that takes nothing for as long as [Limits.Stall] loses
// the connection. If ctx ends in the middle, the connection is closed with [GoingAway]. An error is for good, except ctx's if
// ctx had ended before.
func (c *Conn) Write(ctx context.Context, frames ...[]byte) error {
	if !c.open() {
		return c.why() // which may be the reason that ctx has ended
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.writing.Add(1)
	defer c.writing.Add(-1)
	stop := context.AfterFunc(ctx, func() { c.goAway(ctx) })
	defer stop()
	if err := c.write(frames); err != nil {
		c.shut(fmt.Errorf("connection lost: %w", err), c.drop)
		return c.why()
	}
	return nil
}

func (c *Conn) write(frames [][]byte) (err error) {
	if len(frames) > 1 {
		c.socket.cork()
		defer func() { err = errors.Join(err, c.socket.uncork()) }()
	}
	for _, frame := range frames {
		if err := c.ws.Write(context.Background(), websocket.MessageText, frame); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the connection: what is being written gets out, then the peer is told the status and the reason, and its
// answer awaited, all for at most [Limits.Close]. Reads and writes that are under way end. It returns nil if the peer has
// answered. Only the first call counts; others wait for it and return nil. The reason is cut off after 123 bytes.
func (c *Conn) Close(status Status, reason string) error {
	var err error
	c.shut(&ClosedError{Status: status, Reason: reason}, func() { err = c.sayGoodbye(status, reason) })
	c.pinging.Wait()
	return err
}

// goAway closes for a context that has ended.
func (c *Conn) goAway(ctx context.Context) {
	c.shut(fmt.Errorf("closed: %w", ctx.Err()), func() { _ = c.sayGoodbye(GoingAway, "ends") })
}

func (c *Conn) sayGoodbye(status Status, reason string) error {
	c.socket.endBy(time.Now().Add(c.limits.Close))
	return c.ws.Close(websocket.StatusCode(status), cut(reason))
}

// drop closes without a word.
func (c *Conn) drop() {
	_ = c.socket.Close() // the library waits for its own reader and writer, who wait for this
	_ = c.ws.CloseNow()
}

func (c *Conn) shut(cause error, how func()) {
	c.once.Do(func() {
		c.cause = cause
		how()
		close(c.closed)
		c.ended()
	})
}

func (c *Conn) open() bool {
	select {
	case <-c.closed:
		return false
	default:
		return true
	}
}

// why returns why the connection is closed. It must be.
func (c *Conn) why() error {
	<-c.closed
	return c.cause
}

// longestReason is what fits into a control frame beside the status.
const longestReason = 123

func cut(reason string) string {
	if len(reason) <= longestReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:longestReason], "")
}

// ping asks the peer whether it is there, until the connection is closed, and closes it when there is no sign of life. A peer
// is not to blame while nobody here reads what it says, nor while something is being written to it, for which there is another
// limit.
func (c *Conn) ping() {
	every := time.NewTicker(c.limits.Ping)
	defer every.Stop()
	for {
		select {
		case <-c.closed:
			return
		case <-every.C:
		}
		asked, reads := time.Now(), c.reads.Load()
		ctx, cancel := context.WithTimeout(context.Background(), c.limits.Pong)
		err := c.ws.Ping(ctx)
		cancel()
		if err == nil || c.socket.heardSince(asked) || c.writing.Load() > 0 {
			continue
		}
		if reads%2 == 1 && c.reads.Load() == reads {
			const reason = "no answer to a ping"
			c.shut(&ClosedError{Status: Failed, Reason: reason}, func() { _ = c.sayGoodbye(Failed, reason) })
			return
		}
	}
}
