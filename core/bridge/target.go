package bridge

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
)

// Target is one of the places to which a feed carries its messages.
type Target struct {
	// ID names the target among those of the feed, in logs and in the headers of dead letters: the edge,
	// `button.pressed -> motor.start`.
	ID string
	// Version changes when anything else of the target does.
	Version string
	// Place is equal for targets that carry to the same place. It may be empty.
	Place string
	// Open opens the publisher. It may block until a broker is connected; ctx bounds the wait.
	Open func(ctx context.Context) (transport.Publisher, error)
	// OpenDeadLetter opens a publisher to where refused messages go; nil if there is no such place.
	OpenDeadLetter func(ctx context.Context) (transport.Publisher, error)
	// Origin is the broker of the source, for dead letters. Headerless: there is no room for headers where they go.
	Origin     string
	Headerless bool
}

// maxBatch is how many messages are given to a publisher at once: as many as the wire puts into a frame.
const maxBatch = 64

// A sink that fails again before closeBy windows have been confirmed is one that takes some messages and not others, like a
// queue that is full: after the second such failure minPatience messages go one by one before more are allowed, then four
// times as many, up to maxPatience. One failure by itself (a connection is lost) costs no patience.
const (
	closeBy     = 4
	minPatience = 16
	maxPatience = 256
)

// target is a Target at work. What is commented with mu is guarded by the feed's.
type target struct {
	cfg  Target
	feed *Feed

	sent      uint64      // mu: the next position to publish
	confirmed uint64      // mu: everything before is confirmed
	first     uint64      // mu: the position of the publisher's message 1
	allowed   uint64      // mu: how many may be sent and not confirmed; 0 for as many as there are
	steady    uint64      // mu: how many were confirmed since the last failure
	failed    uint64      // mu: confirmed at the last failure
	patience  uint64      // mu: how many have to be confirmed one by one before more are allowed
	gone      bool        // mu: the feed has forgotten it: its positions mean nothing any more
	cond      Condition   // mu: the sink's
	held      Condition   // mu: the dead letter's trouble
	stats     targetStats // mu
	lastWord  time.Time   // mu: when the broker confirmed something last

	more chan struct{} // has an element when sent may be behind the feed's end
	stop context.CancelFunc
	dead transport.Publisher // the confirmer's own
}

type targetStats struct {
	passed      Counts
	republished uint64
	dead        uint64
	rejected    uint64
}

func newTarget(f *Feed, cfg Target, from uint64) *target {
	return &target{
		cfg: cfg, feed: f, sent: from, confirmed: from,
		cond: Condition{Reason: "not started", Since: time.Now()},
		more: make(chan struct{}, 1),
		stop: func() {},
	}
}

// start runs the target until ctx ends or stop is called. The feed's mu is held.
func (t *target) start(work context.Context, wg *sync.WaitGroup) {
	ctx, stop := context.WithCancel(work)
	t.stop = stop
	wg.Go(func() { t.run(ctx, work) })
}

// run keeps a publisher open, and begins anew from the first unconfirmed message whenever it fails. It settles with work,
// the context of the feed: a settlement must not be cut short because the target that caused it is stopped.
func (t *target) run(ctx, work context.Context) {
	defer t.closeDeadLetter(ctx)
	var retry broker.Retry
	for ctx.Err() == nil {
		before := t.position()
		err := t.publish(ctx, work)
		if ctx.Err() != nil {
			return
		}
		if t.position() > before {
			retry.Reset()
		}
		t.set(Condition{Reason: err.Error()})
		t.feed.cfg.Log.Debug("sink not open", "edge", t.cfg.ID, "error", err)
		retry.Wait(ctx, err)
	}
}

// publish opens a publisher and uses it until it fails.
func (t *target) publish(ctx, work context.Context) error {
	pub, err := t.cfg.Open(ctx)
	if err != nil {
		return err
	}
	t.set(Condition{Up: true})

	t.feed.mu.Lock()
	if t.feed.cfg.Acks {
		// What a lost subscription has delivered comes again on the next: publishing it here too would double it twice.
		for t.confirmed < t.feed.end && t.feed.at(t.confirmed).epoch <= t.feed.void {
			t.confirmed++
		}
	}
	if t.sent > t.confirmed {
		t.stats.republished += t.sent - t.confirmed
		// Slowly at first. A sink that has refused for a while (a full queue) takes some of what comes next and not the rest:
		// with one message on the way there is nothing behind it that could be taken before it. And a message over which a
		// broker closes the connection is then alone, so that one can see which it is.
		t.allowed, t.steady = 1, 0
		if t.confirmed-t.failed < closeBy*uint64(len(t.feed.window)) {
			t.patience = min(max(4*t.patience, minPatience), maxPatience)
		} else {
			t.patience = 0
		}
		t.failed = t.confirmed
	}
	t.sent = t.confirmed
	t.lastWord = time.Now()
	t.first = t.confirmed
	t.feed.mu.Unlock()
	t.feed.settle(work)
	wake(t.more)

	// Two goroutines, because a publisher that takes no more is exactly the one whose confirms have to be heard. The one
	// that fails first ends the other.
	both, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(t.send(both, work, pub)) })
	cancel(t.confirm(both, work, pub))
	wg.Wait()

	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	_ = pub.Close(closing) // it has failed, or is not wanted any more
	return context.Cause(both)
}

// send publishes what is in the window, as it arrives.
func (t *target) send(ctx, work context.Context, pub transport.Publisher) error {
	msgs := make([]transport.Message, 0, maxBatch)
	for {
		if err := t.skip(ctx, work); err != nil {
			return err
		}
		msgs = t.next(msgs[:0])
		if len(msgs) == 0 {
			select {
			case <-t.more:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := pub.Publish(ctx, msgs); err != nil {
			return err
		}
	}
}

// next moves sent forward and returns the messages on the way.
func (t *target) next(msgs []transport.Message) []transport.Message {
	f := t.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.sent == t.confirmed && t.sent < f.end {
		t.lastWord = time.Now() // from here on the broker owes us a word
	}
	for !t.gone && t.sent < f.end && len(msgs) < cap(msgs) && f.at(t.sent).d.TooLarge == 0 && (t.allowed == 0 || t.sent-t.confirmed < t.allowed) {
		msgs = append(msgs, f.at(t.sent).d.Message)
		t.sent++
	}
	return msgs
}

// skip refuses the messages at the head of the window that did not pass whole, when everything before them is confirmed:
// with nothing on the way nobody else moves positions or buries. The publisher does not hear of such a message.
func (t *target) skip(ctx, work context.Context) error {
	f := t.feed
	for {
		f.mu.Lock()
		if t.gone || t.sent != t.confirmed || t.sent == f.end || f.at(t.sent).d.TooLarge == 0 {
			f.mu.Unlock()
			return nil
		}
		p, size := t.sent, f.at(t.sent).d.TooLarge
		t.sent++ // ours: a lost subscription does not take it back
		f.mu.Unlock()
		if err := t.refused(ctx, p, tooLarge(size)); err != nil {
			return err
		}
		f.mu.Lock()
		if t.gone {
			f.mu.Unlock()
			return context.Canceled
		}
		t.confirmed++
		t.first++
		f.mu.Unlock()
		f.settle(work)
	}
}

// tooLarge is why a message that did not pass whole is refused.
func tooLarge(size int64) error {
	const most = 16 << 20
	if size > most {
		return transport.Permanentf("a body of %d bytes is larger than 16 MiB", size)
	}
	return transport.Permanentf("headers of about %d bytes are larger than 512 KiB", size)
}

// confirm follows the broker's word.
func (t *target) confirm(ctx, work context.Context, pub transport.Publisher) error {
	for {
		confirms, err := pub.Confirms(ctx)
		if err != nil {
			return err
		}
		for _, c := range confirms {
			if err := t.take(ctx, c); err != nil {
				return err
			}
		}
		t.feed.settle(work)
	}
}

// take moves confirmed forward over what one Confirm says.
func (t *target) take(ctx context.Context, c transport.Confirm) error {
	f := t.feed
	f.mu.Lock()
	from, to := t.first+c.First-1, t.first+c.Last // half open
	ok, gone := from == t.confirmed && to > from && to <= t.sent, t.gone
	f.mu.Unlock()
	if gone {
		return context.Canceled
	}
	if !ok {
		return fmt.Errorf("the driver confirms messages %d to %d out of turn", c.First, c.Last)
	}
	for p := from; c.Refused != nil && p < to; p++ {
		if err := t.refused(ctx, p, c.Refused); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.gone {
		return context.Canceled
	}
	for p := from; c.Refused == nil && p < to; p++ {
		t.stats.passed.Messages++
		t.stats.passed.Bytes += uint64(len(f.at(p).d.Body))
	}
	t.confirmed = to
	if to == t.sent && to < f.end {
		wake(t.more) // send may wait for this, see skip
	}
	t.lastWord = time.Now()
	if t.steady += to - from; t.allowed > 0 && t.steady > t.patience {
		if t.allowed *= 2; t.allowed >= uint64(len(f.window)) {
			t.allowed = 0
		}
		wake(t.more)
	}
	return nil
}

// refused finds another home for a message that the sink will never take: it blocks until the dead letter's broker has
// confirmed it, because to acknowledge it before would be to lose it. Without a dead letter the source hears Reject.
func (t *target) refused(ctx context.Context, p uint64, cause error) error {
	f := t.feed
	f.mu.Lock()
	if t.gone {
		f.mu.Unlock()
		return context.Canceled
	}
	d := f.at(p).d
	if t.cfg.OpenDeadLetter == nil {
		f.at(p).reject = true
		t.stats.rejected++
	}
	f.mu.Unlock()
	f.cfg.Log.Warn("message refused", "edge", t.cfg.ID, "error", cause,
		"dead_letter", t.cfg.OpenDeadLetter != nil, "body_kept", t.cfg.OpenDeadLetter != nil && d.TooLarge == 0)
	if t.cfg.OpenDeadLetter == nil {
		return nil
	}
	dead := deadletter.Letter{
		Message: d.Message, Cause: cause.Error(), Edge: t.cfg.ID, Broker: t.cfg.Origin, Time: time.Now(), Attempts: max(1, int(d.Attempt)),
	}
	if d.TooLarge > 0 {
		dead.Omitted = deadletter.Omitted(d.TooLarge)
	}
	letter := dead.Pack(t.cfg.Headerless)
	var retry broker.Retry
	for {
		err := t.bury(ctx, letter)
		if err == nil {
			t.hold(Condition{})
			f.mu.Lock()
			t.stats.dead++
			f.mu.Unlock()
			return nil
		}
		// Always, and first: a publisher that still owes a word would give it for the next letter.
		t.closeDeadLetter(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.hold(Condition{Reason: "dead letter not taken: " + err.Error()})
		f.cfg.Log.Error("dead letter not taken", "edge", t.cfg.ID, "error", err)
		retry.Wait(ctx, err)
	}
}

// bury publishes one dead letter and waits for the word of its broker. The publisher stays open for the next.
func (t *target) bury(ctx context.Context, letter transport.Message) error {
	if t.dead == nil {
		pub, err := t.cfg.OpenDeadLetter(ctx)
		if err != nil {
			return err
		}
		t.dead = pub
	}
	if err := t.dead.Publish(ctx, []transport.Message{letter}); err != nil {
		return err
	}
	confirms, err := t.dead.Confirms(ctx)
	if err != nil {
		return err
	}
	// One message was sent, so there is one word.
	if refused := confirms[len(confirms)-1].Refused; refused != nil {
		return refused
	}
	return nil
}

func (t *target) closeDeadLetter(ctx context.Context) {
	if t.dead == nil {
		return
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = t.dead.Close(closing)
	t.dead = nil
}

func (t *target) position() uint64 {
	t.feed.mu.Lock()
	defer t.feed.mu.Unlock()
	return t.confirmed
}

func (t *target) set(c Condition)  { t.change(&t.cond, c) }
func (t *target) hold(c Condition) { t.change(&t.held, c) }

func (t *target) change(old *Condition, c Condition) {
	t.feed.mu.Lock()
	changed := old.Up != c.Up || old.Reason != c.Reason
	if changed {
		c.Since = time.Now()
		*old = c
	}
	t.feed.mu.Unlock()
	if changed {
		t.feed.cfg.Changed()
	}
}
