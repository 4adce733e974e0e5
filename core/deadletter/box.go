package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/flogate/flogate/core/transport"
)

const (
	// closeTime bounds how long the end of a subscription may take.
	closeTime = 5 * time.Second

	// maxHeld bounds the bodies that a box holds on the broker's behalf. Drivers want to know.
	maxHeld = 256 << 20
	// ahead is how much of it may come at a time: more than the largest body, which otherwise would wait for all others.
	ahead         = 32 << 20
	aheadMessages = 64
)

// Keep has the broker keep from now on what comes to the place of the reader, for a Box that is opened later: it opens the
// reader's subscription and closes it again, without taking anything. ctx bounds how long it blocks.
func Keep(ctx context.Context, conn transport.Conn, reader transport.Source) error {
	reader.Window = transport.Credit{Messages: 1, Bytes: 1}
	sub, err := conn.Subscribe(ctx, reader)
	if err != nil {
		return err
	}
	return closeSub(ctx, sub)
}

func closeSub(ctx context.Context, sub transport.Subscription) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return sub.Close(ctx)
}

// Place is where dead letters are.
type Place struct {
	Address string
	// Options and Reader are for the driver's Sink and Source.
	Options, Reader json.RawMessage
	// Headerless: letters are bodies only, there.
	Headerless bool
}

// Sink is how letters are put there.
func (p Place) Sink() transport.Sink {
	return transport.Sink{Name: "dead letters " + p.Address, Address: p.Address, Options: p.Options}
}

// Item is a letter in a box.
type Item struct {
	// N is its number, from 1 in the order in which the broker hands them out.
	N int
	Letter
	// Foreign: it is no dead letter of a gateway; somebody else has put it there.
	Foreign bool
	// TooLarge is the size of what did not pass on the way here, and is not in the letter.
	TooLarge int64
	// Size is that of the message's body, in bytes.
	Size int64

	seq    uint64
	weight int64 // of the body on the broker
}

// Box is an open place. Its methods are called by one goroutine at a time.
type Box struct {
	sub      transport.Subscription
	most     int
	received int
	granted  transport.Credit // granted and not used
	held     transport.Credit // received and not taken out
}

// OpenBox opens the place at the broker of conn, to look at most letters there. It blocks until the broker has accepted the
// subscription, or ctx ends. A place that is missing is made, as the gateway would make it.
//
// Two who have one place open at the same time see some of the letters each, or push each other out: that is the broker's
// to say.
func OpenBox(ctx context.Context, conn transport.Conn, place Place, most int) (*Box, error) {
	pub, err := conn.Publish(ctx, place.Sink())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place.Address, err)
	}
	if err := pub.Close(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", place.Address, err)
	}
	reader := Reader(place.Address, place.Reader)
	reader.Window = transport.Credit{Messages: int64(most), Bytes: maxHeld}
	sub, err := conn.Subscribe(ctx, reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place.Address, err)
	}
	return &Box{sub: sub, most: most}, nil
}

// Full says that the box has handed out as many letters as it was opened for, or all that it may hold of their bodies: there
// may be more.
func (b *Box) Full() bool { return b.received >= b.most || b.held.Bytes >= maxHeld }

// Next returns the letters that come next. It blocks until there is one; it returns none when none has come for idle, or
// the box is full. Letters stay on the broker until they are taken out.
func (b *Box) Next(ctx context.Context, idle time.Duration) ([]Item, error) {
	if err := b.grant(); err != nil {
		return nil, err
	}
	if b.granted.Messages == 0 {
		return nil, nil
	}
	waiting, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	ds, err := b.sub.Receive(waiting)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded) && waiting.Err() != nil:
		return nil, nil
	case err != nil:
		return nil, err
	}
	items := make([]Item, 0, len(ds))
	for _, d := range ds {
		b.received++
		size := transport.Credit{Messages: 1, Bytes: int64(len(d.Body))}
		b.granted.Messages--
		b.granted.Bytes = max(0, b.granted.Bytes-size.Bytes)
		b.held.Messages++
		b.held.Bytes += size.Bytes
		letter, ok := Open(d.Message)
		items = append(items, Item{
			N: b.received, Letter: letter, Foreign: !ok, TooLarge: d.TooLarge, Size: int64(len(letter.Message.Body)),
			seq: d.Seq, weight: size.Bytes,
		})
	}
	return items, nil
}

// grant lets as many letters come as there is room for.
func (b *Box) grant() error {
	more := transport.Credit{
		Messages: min(aheadMessages-b.granted.Messages, int64(b.most-b.received)-b.granted.Messages, int64(b.most)-b.held.Messages-b.granted.Messages),
		Bytes:    min(ahead-b.granted.Bytes, maxHeld-b.held.Bytes-b.granted.Bytes),
	}
	more.Messages, more.Bytes = max(0, more.Messages), max(0, more.Bytes)
	if more == (transport.Credit{}) {
		return nil
	}
	b.granted.Messages += more.Messages
	b.granted.Bytes += more.Bytes
	return b.sub.Grant(more)
}

// Take takes a letter out of the box: the broker may forget it.
func (b *Box) Take(ctx context.Context, item Item) error {
	if err := b.sub.Settle(ctx, []transport.Settlement{{First: item.seq, Last: item.seq, Outcome: transport.Ack}}); err != nil {
		return fmt.Errorf("take out dead letter %d: %w", item.N, err)
	}
	b.held.Messages--
	b.held.Bytes -= item.weight
	return nil
}

// Close leaves on the broker what was not taken out. It blocks until the broker has been told what was, or for a few seconds.
func (b *Box) Close(ctx context.Context) error { return closeSub(ctx, b.sub) }

// Redriving is how letters of a box are given to their sinks again.
type Redriving struct {
	Box *Box
	// Idle is how long to wait for another letter before that was all.
	Idle time.Duration
	// Timeout is how long a broker may take to say what became of a message.
	Timeout time.Duration
	// Choose says whether a letter is to be redriven.
	Choose func(Item) bool
	// Sink returns the publisher for a letter. It may block until a broker is connected.
	Sink func(ctx context.Context, l Letter) (transport.Publisher, error)
	// Back returns the publisher for letters that are refused again, to where they came from, which is Headerless or not. They
	// are put there as long as nobody reads from it any more, behind all others.
	Back       func(ctx context.Context) (transport.Publisher, error)
	Headerless bool
	// Done is called for each letter that was chosen; refused is nil when the sink has it.
	Done func(item Item, refused error)
}

// Run gives the letters to their sinks, one after another, and takes each out of the box when its sink has confirmed it. It
// blocks until that is done, ctx ends, or something other than a letter is wrong: what was not done then is where it was.
// A letter that was confirmed and not yet taken out when the program is killed is there again.
//
// A letter that its sink refuses again is put back with the new cause, after all others were tried; then the old one is
// taken out.
func (r *Redriving) Run(ctx context.Context) error {
	type again struct {
		item  Item
		cause error
	}
	var refused []again
	for {
		items, err := r.Box.Next(ctx, r.Idle)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			break
		}
		for _, item := range items {
			if !r.Choose(item) {
				continue
			}
			cause, err := r.give(ctx, item)
			if err != nil {
				return fmt.Errorf("dead letter %d of %s: %w", item.N, item.Edge, err)
			}
			if cause != nil {
				refused = append(refused, again{item, cause})
				continue
			}
			if err := r.Box.Take(ctx, item); err != nil {
				return err
			}
			r.Done(item, nil)
		}
	}
	for _, a := range refused {
		if err := r.putBack(ctx, a.item, a.cause); err != nil {
			return fmt.Errorf("put back dead letter %d of %s: %w", a.item.N, a.item.Edge, err)
		}
		r.Done(a.item, a.cause)
	}
	return nil
}

// give gives a letter to its sink, and returns why that refuses it.
func (r *Redriving) give(ctx context.Context, item Item) (refused, err error) {
	pub, err := r.Sink(ctx, item.Letter)
	if err != nil {
		return nil, err
	}
	return r.send(ctx, pub, item.Message)
}

func (r *Redriving) putBack(ctx context.Context, item Item, cause error) error {
	pub, err := r.Back(ctx)
	if err != nil {
		return err
	}
	letter := item.Letter
	letter.Cause, letter.Time, letter.Attempts = cause.Error(), time.Now(), letter.Attempts+1
	refused, err := r.send(ctx, pub, letter.Pack(r.Headerless))
	if err := errors.Join(refused, err); err != nil {
		return err
	}
	return r.Box.Take(ctx, item)
}

// send publishes one message and waits for the broker's word. Nothing else is on its way.
func (r *Redriving) send(ctx context.Context, pub transport.Publisher, m transport.Message) (refused, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	if err := pub.Publish(ctx, []transport.Message{m}); err != nil {
		return nil, err
	}
	confirms, err := pub.Confirms(ctx)
	if err != nil {
		return nil, err
	}
	return confirms[len(confirms)-1].Refused, nil
}
