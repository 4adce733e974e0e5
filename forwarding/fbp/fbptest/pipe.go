package fbptest

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// pipeSize is how many messages wait in each direction of a Pipe.
const pipeSize = 1024

// End is one end of a Pipe. Its methods may be called concurrently.
type End struct {
	out  chan<- []byte
	in   <-chan []byte
	done chan struct{} // of both ends
	end  func()
}

// Pipe returns the two ends of a link in memory: what one sends, the other receives. Each direction holds up to 1024
// messages, then Send blocks.
func Pipe() (client, runtime *End) {
	there, back, done := make(chan []byte, pipeSize), make(chan []byte, pipeSize), make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	return &End{out: there, in: back, done: done, end: end}, &End{out: back, in: there, done: done, end: end}
}

// Send implements Conn. After Close, of either end, it returns io.ErrClosedPipe.
func (e *End) Send(ctx context.Context, message []byte) error {
	select {
	case <-e.done:
		return io.ErrClosedPipe
	default:
	}
	select {
	case e.out <- bytes.Clone(message):
		return nil
	case <-e.done:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Receive implements Conn. After Close, of either end, it returns what is still there, and then io.EOF.
func (e *End) Receive(ctx context.Context) ([]byte, error) {
	select {
	case message := <-e.in:
		return message, nil
	case <-e.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case message := <-e.in:
		return message, nil
	default:
		return nil, io.EOF
	}
}

// Close ends the pipe for both ends. It does not block and may be called again.
func (e *End) Close() error {
	e.end()
	return nil
}
