package participant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// outport publishes to a place. What is waiting stands in one list, in the order of Send; the first part of it is on its
// way, the rest is not. When a publisher is lost, everything in the list is sent again on the next.
type outport struct {
	log    *slog.Logger
	opened *flag
	seed   string // of the source ids

	mu      sync.Mutex
	waiting []*sending
	sent    int    // so many of waiting were given to the publisher
	count   uint64 // of all that there ever were
	stopped bool
	reason  error         // why it is not open
	news    chan struct{} // has an element when there is something to publish
}

type sending struct {
	msg  Message
	word chan error // has room for the only one
	gone bool       // nobody waits for the word any more
}

// maxBatch bounds what is handed to the driver at once.
const maxBatch = 64

func newOutport(id, seed string, log *slog.Logger) *outport {
	return &outport{log: log.With("outport", id), opened: newFlag(), seed: seed, news: make(chan struct{}, 1)}
}

func (o *outport) send(ctx context.Context, msg Message) error {
	s := &sending{msg: msg, word: make(chan error, 1)}
	// The driver may still read it when ctx has ended.
	s.msg.Body, s.msg.Headers = bytes.Clone(msg.Body), slices.Clone(msg.Headers)
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		return transport.Closed(nil)
	}
	o.count++
	// JetStream drops by this what is sent again. Not the id that a received message had: one can become many.
	s.msg.SourceID = o.seed + " " + strconv.FormatUint(o.count, 10)
	o.waiting = append(o.waiting, s)
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
	select {
	case err := <-s.word:
		return err
	case <-ctx.Done():
		return o.forget(s, ctx.Err())
	}
}

// forget takes back what was not published; what was stays until there is a word on it.
func (o *outport) forget(s *sending, cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case err := <-s.word:
		return err // it was nearer
	default:
	}
	s.gone = true
	if i := slices.Index(o.waiting, s); i >= o.sent {
		o.waiting = slices.Delete(o.waiting, i, i+1)
	}
	if o.reason != nil {
		return fmt.Errorf("not confirmed: %w: %w", cause, o.reason)
	}
	return fmt.Errorf("not confirmed: %w", cause)
}

// stop fails what is waiting, and all that comes.
func (o *outport) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	for _, s := range o.waiting {
		s.word <- transport.Closed(nil)
	}
	o.waiting, o.sent = nil, 0
}

// run keeps a publisher open until ctx ends.
func (o *outport) run(ctx context.Context, conn connect, sink transport.Sink) {
	var retry broker.Retry
	for ctx.Err() == nil {
		confirmed, err := o.publish(ctx, conn, sink)
		if ctx.Err() != nil {
			return
		}
		if confirmed {
			retry.Reset()
		}
		switch known := o.lost(err); {
		case known || errors.Is(err, transport.ErrClosed):
			o.log.Debug("outport not open", "error", err)
		default:
			o.log.Warn("outport not open", "error", err)
		}
		retry.Wait(ctx, err)
	}
}

// lost makes everything unsent that nobody has confirmed. It returns whether the reason is the one of the last time.
func (o *outport) lost(reason error) (known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known = o.reason != nil && o.reason.Error() == reason.Error()
	o.reason = reason
	o.sent = 0
	o.waiting = slices.DeleteFunc(o.waiting, func(s *sending) bool { return s.gone })
	return known
}

// publish opens a publisher and sends what there is until it ends. It returns whether anything was confirmed, and why no
// more.
func (o *outport) publish(ctx context.Context, conn connect, sink transport.Sink) (confirmed bool, err error) {
	c, err := conn(ctx)
	if err != nil {
		return false, err
	}
	pub, err := c.Publish(ctx, sink)
	if err != nil {
		return false, err
	}
	o.opened.set()
	o.mu.Lock()
	o.reason = nil
	o.mu.Unlock()

	ctx, lose := context.WithCancelCause(ctx)
	heard, done := false, make(chan struct{})
	go func() {
		defer close(done)
		var err error
		heard, err = o.confirms(ctx, pub)
		lose(err)
	}()
	defer func() {
		lose(nil)
		<-done
		confirmed = heard
		closeIt(ctx, pub.Close)
	}()
	for {
		if batch := o.take(); len(batch) > 0 {
			if err := pub.Publish(ctx, batch); err != nil {
				if cause := context.Cause(ctx); cause != nil {
					err = cause // what Confirms said is nearer to it
				}
				return false, err
			}
			continue
		}
		select {
		case <-o.news:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// take returns the next messages to publish.
func (o *outport) take() []Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	var batch []Message
	for o.sent < len(o.waiting) && len(batch) < maxBatch {
		batch = append(batch, o.waiting[o.sent].msg)
		o.sent++
	}
	return batch
}

// confirms passes on the broker's words until the publisher is lost or ctx ends. It returns whether there was any, and why
// there are no more.
func (o *outport) confirms(ctx context.Context, pub transport.Publisher) (heard bool, err error) {
	for {
		confirms, err := pub.Confirms(ctx)
		if err != nil {
			return heard, err
		}
		for _, c := range confirms {
			if err := o.confirm(c); err != nil {
				return heard, err
			}
			heard = true
		}
	}
}

func (o *outport) confirm(c transport.Confirm) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := int(c.Last - c.First + 1)
	if n > o.sent {
		return errors.New("the driver confirms more than it was given")
	}
	for _, s := range o.waiting[:n] {
		var err error
		if c.Refused != nil {
			err = fmt.Errorf("refused: %w", c.Refused)
		}
		s.word <- err
	}
	o.waiting = slices.Delete(o.waiting, 0, n)
	o.sent -= n
	return nil
}
