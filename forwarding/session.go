package forwarding

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/flogate/flogate/forwarding/fbp"
)

// Conn is a client's connection: whole messages, in order.
type Conn interface {
	// Read returns the next message, which is the caller's own. It blocks until there is one, ctx ends or Close is called.
	Read(ctx context.Context) ([]byte, error)
	// Write sends messages, and blocks until they are on their way. It ends with ctx and with Close, too.
	Write(ctx context.Context, frames ...[]byte) error
	// Close ends the connection and tells the client why: [ErrBehind], a context's error, or what has gone wrong.
	Close(cause error)
}

// SessionConfig is what a session needs.
type SessionConfig struct {
	Runtime Runtime
	// Access says what a client with a secret may do, as [Policy.Access] does. It is asked for every request, so that a site
	// may change; what a client is shown changes when it asks for the runtime again.
	Access func(fbp.Secret) Access
	// Client is from where the client has connected.
	Client string
	// Messages and Bytes bound what the client has still to be sent; zeros stand for the [Outbox]'s defaults.
	Messages, Bytes int
}

// Session is one client: what it asks for, and what it is told.
//
// Requests are taken one after another, in the order in which they came, and each is answered once. What cannot be read, or
// is not permitted, is answered with an error. Everything that the client is told goes through one [Outbox], and no message
// gets there that is outside of what the client may have.
//
// A client is known by the secret of its first request until it asks for the runtime; after that by the secret with which it
// last did. Another secret in between counts for the request that it came with and no more, because clients take what
// runtime:runtime has said for what they will be sent.
type Session struct {
	cfg  SessionConfig
	conn Conn
	out  *Outbox

	// Of the goroutine that reads.
	link       *dialled
	introduced bool // has asked for the runtime

	asked    chan string   // the id of the request that is under way
	answered chan struct{} // it is answered
}

// dialled is a link with the goroutine that receives from it.
type dialled struct {
	Link
	access Access
	done   chan struct{}
}

// NewSession returns a session for a client's connection.
func NewSession(conn Conn, cfg SessionConfig) *Session {
	return &Session{
		cfg: cfg, conn: conn, out: NewOutbox(cfg.Messages, cfg.Bytes),
		asked: make(chan string, 1), answered: make(chan struct{}, 1),
	}
}

// Dropped returns how many messages the client was too slow for. It may be called concurrently with Run.
func (s *Session) Dropped() uint64 { return s.out.Dropped() }

// Run serves the client until it is gone, does not follow, the runtime ends or ctx does, and returns why. The connection is
// closed then. It is called once.
func (s *Session) Run(ctx context.Context) error {
	// Reading and writing have the caller's ctx: what ends the session from within shall be told to the client, and not
	// what a connection makes of a context that ends.
	within, end := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { end(s.write(within, ctx)) })
	wg.Go(func() {
		<-within.Done()
		s.conn.Close(context.Cause(within))
	})
	for within.Err() == nil {
		frame, err := s.conn.Read(ctx)
		if err == nil {
			err = s.take(within, frame, end)
		}
		if err != nil {
			end(err)
		}
	}
	s.hangUp()
	s.out.Close(context.Cause(within))
	wg.Wait()
	return context.Cause(within)
}

func (s *Session) write(within, ctx context.Context) error {
	const atOnce = 64
	frames := make([][]byte, 0, atOnce)
	for {
		var err error
		if frames, _, err = s.out.Take(within, frames[:0]); err != nil {
			return err
		}
		if err := s.conn.Write(ctx, frames...); err != nil {
			return err
		}
		clear(frames)
	}
}

// take takes one message of the client and returns when it is answered. An error ends the session.
func (s *Session) take(ctx context.Context, frame []byte, end context.CancelCauseFunc) error {
	in, err := fbp.DecodeInput(frame)
	if err != nil {
		return s.refuse(in, err)
	}
	access := s.cfg.Access(in.Secret)
	access.Client = s.cfg.Client
	in.Secret = fbp.Secret{}
	if !access.Capabilities.MaySend(in.Kind) {
		return s.refuse(in, fbp.NotPermitted(in.Kind))
	}
	says, err := in.Parse()
	if err != nil {
		return s.refuse(in, err)
	}
	if err := s.dial(ctx, access, in.Kind == fbp.RuntimeGetRuntime, end); err != nil {
		return err
	}
	s.asked <- in.ID
	if err := s.link.Send(ctx, Request{Input: in, Says: says, Access: access}); err != nil {
		return err
	}
	select {
	case <-s.answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse answers what does not reach the runtime. Nothing is under way, so it overtakes no answer.
func (s *Session) refuse(in fbp.Input, err error) error {
	return s.out.Push(in.Fail(err).Append(nil))
}

// dial makes sure that there is a link, with the access that the client is known by.
func (s *Session) dial(ctx context.Context, access Access, introduces bool, end context.CancelCauseFunc) error {
	if s.link != nil && (s.link.access.equal(access) || s.introduced && !introduces) {
		s.introduced = s.introduced || introduces
		return nil
	}
	s.hangUp()
	link, err := s.cfg.Runtime.Dial(ctx, access)
	if err != nil {
		return fmt.Errorf("dial the runtime: %w", err)
	}
	d := &dialled{Link: link, access: access, done: make(chan struct{})}
	s.link, s.introduced = d, introduces
	go func() {
		defer close(d.done)
		if err := s.receive(ctx, d); !errors.Is(err, ErrClosed) {
			end(err)
		}
	}()
	return nil
}

// hangUp closes the link and waits for the goroutine that receives from it.
func (s *Session) hangUp() {
	if s.link != nil {
		s.link.Close()
		<-s.link.done
		s.link = nil
	}
}

// receive hands on what the runtime says, until the link ends. Events from before the first answer are not: they are about
// nothing that the client knows, and one that waits for runtime:runtime takes them for more than it may have.
func (s *Session) receive(ctx context.Context, d *dialled) error {
	may := map[fbp.Kind]bool{}
	for _, k := range fbp.Outputs() {
		may[k] = d.access.Capabilities.MayReceive(k)
	}
	met := false
	var lossy [][]byte // what follows on each other goes to the outbox together, so that it is written together
	for {
		messages, err := d.Receive(ctx)
		if err != nil {
			return err
		}
		for i, m := range messages {
			switch {
			case m.Last:
				err = s.answer(m)
				met = true
			case !m.Answers && (!met || !may[m.Kind] || m.Graph != "" && !d.access.Sees(m.Graph)):
			case m.Lossy:
				lossy = append(lossy, m.encoded())
			default:
				err = s.out.Push(m.encoded())
			}
			if err != nil {
				return err
			}
			if len(lossy) > 0 && (i+1 == len(messages) || !messages[i+1].Lossy) {
				s.out.Offer(lossy...)
				clear(lossy)
				lossy = lossy[:0]
			}
		}
	}
}

// answer sends the last message of an answer. Only that one has the request's id: clients take the first that has for all.
func (s *Session) answer(m Message) error {
	select {
	case m.ResponseTo = <-s.asked:
	default:
		return fmt.Errorf("the runtime has answered with %s, and was not asked", m.Kind)
	}
	if err := s.out.Push(m.encoded()); err != nil {
		return err
	}
	s.answered <- struct{}{}
	return nil
}
