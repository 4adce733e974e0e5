package forwarding

import (
	"context"
	"errors"

	"github.com/flogate/flogate/forwarding/fbp"
)

// ErrClosed is what a [Link] returns that its session has closed.
var ErrClosed = errors.New("the link is closed")

// Runtime is something that takes clients: the gateway's own graphs, or a runtime that a node stands for.
type Runtime interface {
	// Dial opens a link for one session. It blocks until the link is there or ctx ends, which does not matter to the link
	// afterwards. Access is what the client may do as long as it is not dialled anew.
	Dial(ctx context.Context, access Access) (Link, error)
}

// Link carries messages between one session and a runtime. Send and Receive are called by one goroutine each, Close by any;
// when it has been called they return [ErrClosed].
//
// The rules: each request is answered, by messages that say so, the last of which says that too. What has happened before
// the answer is received before it, and what was read from a graph for the answer is as the events before it have left it.
// A runtime that may take longer than clients wait, which is a second, answers for itself after that time.
type Link interface {
	// Send makes a request. It may block until the request is answered; ctx ends it. Requests come one at a time: the next
	// when the last message of the answer has been received. An error is for good; what is wrong with a request is an answer.
	Send(ctx context.Context, r Request) error
	// Receive returns the next messages, as many as there are. It blocks until there is one or ctx ends. They are the caller's
	// until it calls again. An error is for good, except ctx's.
	Receive(ctx context.Context) ([]Message, error)
	// Close ends the link. It does not block.
	Close()
}

// Request is a client's request that it may make by its kind. Whether it may do so to a graph is for the runtime to see,
// which alone knows what names mean.
type Request struct {
	fbp.Input             // without the secret
	Says      fbp.Payload // what Input.Parse has made of it
	Access    Access      // of this request, which may be other than that of the link
}

// Message is what a runtime says to a client.
type Message struct {
	fbp.Output // ResponseTo is the session's to fill in
	// Graph is the graph that it is about, or empty: it is not sent to a client that must not see it.
	Graph string
	// Lossy: it shows what passes by, and goes first where a client is slow.
	Lossy bool
	// Answers: it belongs to the answer to the last request. Last: nothing of that comes after it.
	Answers, Last bool

	frame []byte // the Output as it is sent to whoever has not asked for it
}

// NewMessage returns the message that says p, encoded once for as many clients as it is given to.
func NewMessage(p fbp.Payload) (Message, error) {
	out, err := fbp.NewOutput(p)
	if err != nil {
		return Message{}, err
	}
	return Message{Output: out, frame: out.Append(nil)}, nil
}

// encoded returns the frame that tells m.
func (m Message) encoded() []byte {
	if m.frame != nil && m.ResponseTo == "" {
		return m.frame
	}
	return m.Append(nil)
}
