package participant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// connect blocks until there is a connection.
type connect func(ctx context.Context) (transport.Conn, error)

// inport takes messages from a place and hands them to its handler.
type inport struct {
	port   Port
	handle Handler
	source transport.Source
	made   *transport.Sink // opening it makes the place; nil if nothing is to be made
	acks   bool            // what is released comes again
	log    *slog.Logger
	opened *flag

	reason string // why it is not open, as it was logged
}

// maxBytes bounds the bodies of an inport that are here and not settled; a larger one comes alone.
const maxBytes = 16 << 20

func newInport(port Port, h Handler, log *slog.Logger) *inport {
	port.Concurrency = max(port.Concurrency, 1)
	if port.Prefetch == 0 {
		port.Prefetch = 2 * port.Concurrency
	}
	return &inport{
		port:   port,
		handle: h,
		source: transport.Source{
			Name:   "in " + port.ID,
			Window: transport.Credit{Messages: int64(max(port.Prefetch, port.Concurrency)), Bytes: maxBytes},
		},
		log:    log.With("inport", port.ID),
		opened: newFlag(),
	}
}

// errReleased ends a subscription, so that what was taken in advance comes again behind the message that was released.
var errReleased = errors.New("a message was released")

// run serves the inport until ctx ends, and then returns when its handlers have; work is their context.
func (in *inport) run(ctx, work context.Context, conn connect) {
	var retry broker.Retry
	for ctx.Err() == nil {
		handled, err := in.serve(ctx, work, conn)
		if ctx.Err() != nil {
			return
		}
		if handled {
			retry.Reset()
		}
		if errors.Is(err, transport.ErrClosed) || errors.Is(err, errReleased) || err.Error() == in.reason {
			in.log.Debug("inport not open", "error", err) // it was said elsewhere, or before
		} else {
			in.reason = err.Error()
			in.log.Warn("inport not open", "error", err)
		}
		retry.Wait(ctx, err)
	}
}

// serve opens a subscription and has its messages handled until it ends. It returns whether a message was settled for good,
// and why there are no more. No handler runs when it returns: what they were doing will come again.
func (in *inport) serve(ctx, work context.Context, conn connect) (handled bool, err error) {
	sub, err := in.open(ctx, conn)
	if err != nil {
		return false, err
	}
	defer closeIt(work, sub.Close)
	if err := sub.Grant(in.source.Window); err != nil {
		return false, err
	}
	in.reason = ""
	in.opened.set()

	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	d := dispatch{in: in, sub: sub, end: end}
	var handlers sync.WaitGroup
	slots := make(chan struct{}, in.port.Concurrency)
	for err == nil {
		var deliveries []transport.Delivery
		deliveries, err = sub.Receive(ctx)
		for _, delivery := range deliveries {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				break // also if there was a slot: the one before has failed
			}
			handlers.Go(func() {
				defer func() { <-slots }()
				d.one(ctx, work, delivery)
			})
		}
	}
	handlers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return d.handled.Load(), err
}

func (in *inport) open(ctx context.Context, conn connect) (transport.Subscription, error) {
	c, err := conn(ctx)
	if err != nil {
		return nil, err
	}
	if in.made != nil {
		pub, err := c.Publish(ctx, *in.made)
		if err != nil {
			return nil, err
		}
		closeIt(ctx, pub.Close)
	}
	return c.Subscribe(ctx, in.source)
}

// dispatch is what the handlers on one subscription share.
type dispatch struct {
	in      *inport
	sub     transport.Subscription
	end     context.CancelCauseFunc
	handled atomic.Bool
	mu      sync.Mutex
	pause   broker.Retry // of concurrent handlers
}

// one handles a delivery and settles it. ctx is that of the subscription.
func (d *dispatch) one(ctx, work context.Context, delivery transport.Delivery) {
	in, size := d.in, int64(len(delivery.Body))
	err := in.call(work, delivery.Message)
	result := outcome(err)
	if err != nil {
		log := in.log.With("error", err, "outcome", result.String(), "address", delivery.Address)
		if p, is := errors.AsType[*panicError](err); is {
			log.Error("handler panicked", "stack", string(p.stack))
		} else {
			log.Warn("message not handled")
		}
	}
	if result == transport.Release && in.acks {
		if in.port.Concurrency == 1 {
			d.end(errReleased) // closing releases
			return
		}
		d.rest(ctx)
	}
	if result != transport.Release {
		d.handled.Store(true)
		d.mu.Lock()
		d.pause.Reset()
		d.mu.Unlock()
	}
	err = d.sub.Settle(work, []transport.Settlement{{First: delivery.Seq, Last: delivery.Seq, Outcome: result}})
	if err == nil {
		err = d.sub.Grant(transport.Credit{Messages: 1, Bytes: size})
	}
	if err != nil {
		d.end(err) // to go on would be to lose the credit; the message comes again
	}
}

// rest keeps a message that was not handled, and its slot, for a while: it would come again at once.
func (d *dispatch) rest(ctx context.Context) {
	d.mu.Lock()
	pause := d.pause.Next(nil)
	d.mu.Unlock()
	broker.Rest(ctx, pause)
}

// call calls the handler, whose panics are errors.
func (in *inport) call(ctx context.Context, msg Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return in.handle(ctx, msg)
}

type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }
