// Package bridge carries messages along feeds. A feed is one source and all its targets.
//
// The package holds flogate's promise: a delivery is acknowledged at its source only after every target has confirmed it,
// and every target gets the deliveries in the source's order. Nothing is stored on the way. What is in flight lies in one
// bounded window, in the order of arrival, and three positions say everything about it:
//
//	         settled              confirmed (of a target)        sent (of a target)              end
//	─────────────┼─────────────────────────┼──────────────────────────┼──────────────────────────┼──►
//	 forgotten     confirmed here, waits     published, the broker's     received, to be published
//	               for other targets         word is awaited
//
// The least confirmed position of all targets is how far the source is settled. A target whose publisher fails goes back
// from sent to confirmed and publishes from there again, on a new publisher: duplicates, never a gap, never a swap. A
// source that is lost takes its unsettled deliveries with it, and gives them again.
//
// The package knows nothing of brokers, graphs and configuration: it is handed functions that open subscriptions and
// publishers.
package bridge

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// ErrRemoved, as the cause of the end of Run's context, says that the feed is gone for good: what the source's broker
// keeps for the subscription is removed too.
var ErrRemoved = errors.New("feed removed")

// Config is what a Feed needs.
type Config struct {
	// Name is for logs.
	Name string
	// Open opens the subscription. It may block until a broker is connected; ctx bounds the wait.
	Open func(ctx context.Context) (transport.Subscription, error)
	// Acks: the source gives again what was not settled when it is lost.
	Acks bool
	// Window is the most that is in flight. The zero value means DefaultWindow.
	Window transport.Credit
	// Drain is how long Run goes on, after the end of its context, until all that is in flight is settled.
	Drain time.Duration
	Log   *slog.Logger
	// Changed is called when the condition of the source or of a target has changed. It must not block.
	Changed func()
}

// DefaultWindow lets an AMQP or JetStream source reach its full rate (several hundred unsettled messages, measured) and
// bounds what a feed may hold in memory.
func DefaultWindow() transport.Credit { return transport.Credit{Messages: 512, Bytes: 8 << 20} }

// Feed carries messages from one source to its targets. Its methods may be called concurrently.
type Feed struct {
	cfg Config

	mu       sync.Mutex
	window   []entry // a ring; position p lies at p & (len-1)
	settled  uint64  // everything before is forgotten
	end      uint64  // everything from here on has not arrived
	sub      transport.Subscription
	epoch    uint32 // of sub, or of the one before if there is none
	void     uint32 // subscriptions up to this epoch are lost, and their deliveries with them
	debt     int64  // bytes in the window beyond what may be granted
	targets  []*target
	settling bool
	draining bool
	cond     Condition // of the source
	received Counts

	idle   chan struct{} // has an element when the window may have become empty
	change chan []Target // to Run: what Update was given
}

// entry is a delivery in the window.
type entry struct {
	d      transport.Delivery
	at     time.Time // when it arrived
	epoch  uint32    // of the subscription that it came from
	reject bool      // a target refused it, and nobody took it as a dead letter
}

// Counts of what has passed.
type Counts struct {
	Messages, Bytes uint64
}

// Condition says whether one end of a feed works.
type Condition struct {
	// Up: it is open.
	Up bool
	// Reason says why it is not, or what it waits for.
	Reason string
	Since  time.Time
}

// New returns a feed that does nothing until Run is called.
func New(cfg Config, targets []Target) *Feed {
	if cfg.Window == (transport.Credit{}) {
		cfg.Window = DefaultWindow()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	size := 16
	for int64(size) < cfg.Window.Messages {
		size *= 2
	}
	f := &Feed{
		cfg:    cfg,
		window: make([]entry, size),
		idle:   make(chan struct{}, 1),
		change: make(chan []Target, 1),
		cond:   Condition{Reason: "not started", Since: time.Now()},
	}
	for _, t := range targets {
		f.targets = append(f.targets, newTarget(f, t, 0))
	}
	return f
}

// Update replaces the targets. Those whose ID and Version stay are not touched, those whose Version changes lose nothing of
// what is in flight, and new ones get what arrives from now on, or go on where one stood that is gone and had their Place. It
// does not block, and may be called before and while Run runs.
func (f *Feed) Update(targets []Target) {
	for {
		select {
		case f.change <- targets:
			return
		case <-f.change: // nobody has taken the one before: it is obsolete
		}
	}
}

// Run carries messages until ctx ends; then it takes no more, waits until what is in flight is settled, at most for the
// drain time, closes its ends and returns nil. What is not settled by then is released: the source gives it again.
func (f *Feed) Run(ctx context.Context) error {
	// The targets outlive ctx: they have to confirm what is in flight.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop() // before the wait

	f.mu.Lock()
	for _, t := range f.targets {
		t.start(work, &wg)
	}
	f.mu.Unlock()

	var source sync.WaitGroup
	source.Go(func() { f.receive(ctx, work) })
	for ctx.Err() == nil {
		select {
		case targets := <-f.change:
			f.replace(work, &wg, targets)
		case <-ctx.Done():
		}
	}

	f.mu.Lock()
	f.draining = true
	f.mu.Unlock()
	f.cfg.Changed()
	source.Wait()
	f.drain(work)
	f.close(ctx)
	return nil
}

// replace makes the targets those of the list. A target whose version has changed goes on where the one before it stood.
func (f *Feed) replace(work context.Context, wg *sync.WaitGroup, wanted []Target) {
	f.mu.Lock()
	have := make(map[string]*target, len(f.targets))
	for _, t := range f.targets {
		have[t.cfg.ID] = t
	}
	f.targets = make([]*target, 0, len(wanted))
	from := f.beginning(have, wanted)
	for _, cfg := range wanted {
		old := have[cfg.ID]
		switch {
		case old == nil:
			f.targets = append(f.targets, newTarget(f, cfg, from(cfg)))
		case old.cfg.Version == cfg.Version:
			f.targets = append(f.targets, old)
			delete(have, cfg.ID)
			continue
		default:
			next := newTarget(f, cfg, old.confirmed)
			next.stats = old.stats
			f.targets = append(f.targets, next)
		}
		f.targets[len(f.targets)-1].start(work, wg)
	}
	for _, t := range have {
		t.gone = true
	}
	f.mu.Unlock()
	for _, t := range have {
		t.stop()
	}
	// What waited only for a target that is gone can be settled now.
	f.settle(work)
}

// beginning returns where a target that is new begins: at the end of the window, because it gets what comes from now on. But
// where it takes the place of one that goes, or where all go, it begins where those stood: what is in flight was promised to
// somebody, and to settle it without anybody having it would be to lose it.
func (f *Feed) beginning(have map[string]*target, wanted []Target) func(Target) uint64 {
	gone := maps.Clone(have)
	stays := false
	for _, cfg := range wanted {
		if _, ok := gone[cfg.ID]; ok {
			delete(gone, cfg.ID)
			stays = true
		}
	}
	least := f.end
	for _, t := range gone {
		least = min(least, t.confirmed)
	}
	return func(cfg Target) uint64 {
		from := f.end
		if !stays {
			from = least
		}
		for _, t := range gone {
			if t.cfg.Place != "" && t.cfg.Place == cfg.Place {
				from = min(from, t.confirmed)
			}
		}
		return from
	}
}

// receive keeps a subscription open and fills the window, until ctx ends. It leaves the last subscription open: what is in
// flight will be settled on it.
func (f *Feed) receive(ctx, work context.Context) {
	var retry broker.Retry
	for ctx.Err() == nil {
		sub, err := f.cfg.Open(ctx)
		if err == nil {
			f.opened(sub)
			var n int
			n, err = f.fill(ctx, sub)
			if n > 0 {
				retry.Reset()
			}
			if ctx.Err() != nil {
				return
			}
			f.lost(work, sub, err)
		}
		if ctx.Err() != nil {
			return
		}
		f.setSource(Condition{Reason: err.Error()})
		f.cfg.Log.Debug("source not open", "feed", f.cfg.Name, "error", err)
		retry.Wait(ctx, err)
	}
}

func (f *Feed) opened(sub transport.Subscription) {
	f.mu.Lock()
	f.sub = sub
	f.epoch++
	// What is still in the window counts against the new subscription's credit, so that the bound holds.
	credit := f.cfg.Window
	for p := f.settled; p < f.end; p++ {
		credit.Messages--
		credit.Bytes -= int64(len(f.at(p).d.Body))
	}
	// A body larger than the whole window may be in it: then nothing is granted until that much has been settled.
	f.debt = max(0, -credit.Bytes)
	credit.Bytes = max(0, credit.Bytes)
	f.mu.Unlock()
	f.setSource(Condition{Up: true})
	if err := sub.Grant(credit); err != nil {
		f.cfg.Log.Debug("credit not granted", "feed", f.cfg.Name, "error", err)
	}
}

// fill moves deliveries from the subscription into the window until one of them ends. It returns how many.
func (f *Feed) fill(ctx context.Context, sub transport.Subscription) (int, error) {
	var n int
	for {
		ds, err := sub.Receive(ctx)
		if err != nil {
			return n, err
		}
		n += len(ds)
		if err := f.push(ds); err != nil {
			return n, err
		}
	}
}

func (f *Feed) push(ds []transport.Delivery) error {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end+uint64(len(ds)) > f.settled+uint64(len(f.window)) {
		// Credit forbids it. To take them all the same would be to hold what nobody bounds.
		return errors.New("the driver delivers more than there is credit for")
	}
	for i := range ds {
		*f.at(f.end) = entry{d: ds[i], at: now, epoch: f.epoch}
		f.end++
		f.received.Messages++
		f.received.Bytes += uint64(len(ds[i].Body))
	}
	for _, t := range f.targets {
		wake(t.more)
	}
	if len(f.targets) == 0 {
		f.settled = f.end // nobody wants them any more; the feed is about to go
	}
	return nil
}

// lost closes a subscription that has failed.
func (f *Feed) lost(ctx context.Context, sub transport.Subscription, err error) {
	f.mu.Lock()
	f.sub = nil
	f.void = f.epoch
	// Deliveries that no target has been given are forgotten where the source gives them again: sending them too would
	// only make duplicates. The rest stays, and is confirmed without being settled.
	if f.cfg.Acks {
		sent := f.settled
		for _, t := range f.targets {
			sent = max(sent, t.sent)
		}
		for p := sent; p < f.end; p++ {
			*f.at(p) = entry{}
		}
		f.end = sent
	}
	f.mu.Unlock()
	f.setSource(Condition{Reason: err.Error()})
	closing, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_ = sub.Close(closing) // it has failed already; what is left of it dies with its connection
}

// settle tells the source of everything that all targets have confirmed. Whoever comes while another is at it leaves the
// work to that one, so that ranges grow with the load.
func (f *Feed) settle(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settling {
		return
	}
	f.settling = true
	defer func() { f.settling = false }()
	for {
		sub, settlements, credit, n := f.confirmed()
		if n == 0 {
			break
		}
		if f.settled == f.end {
			wake(f.idle)
		}
		if sub == nil {
			continue
		}
		f.mu.Unlock()
		var err error
		if len(settlements) > 0 {
			err = sub.Settle(ctx, settlements)
		}
		if err == nil {
			err = sub.Grant(credit)
		}
		if err != nil && !errors.Is(err, transport.ErrClosed) {
			// What was not settled can be settled on no other subscription: end this one, so that the source gives it
			// again. To go on would be to lose its credit.
			f.cfg.Log.Warn("settlement failed", "feed", f.cfg.Name, "error", err)
			closing, cancel := context.WithTimeout(ctx, closeTimeout)
			_ = sub.Close(closing)
			cancel()
		}
		f.mu.Lock()
	}
}

// confirmed forgets the deliveries that every target has confirmed, and returns what the present subscription shall hear.
func (f *Feed) confirmed() (sub transport.Subscription, settlements []transport.Settlement, credit transport.Credit, n int) {
	least := f.end
	for _, t := range f.targets {
		least = min(least, t.confirmed)
	}
	for ; f.settled < least; f.settled++ {
		e := f.at(f.settled)
		n++
		credit.Messages++
		credit.Bytes += int64(len(e.d.Body))
		if e.epoch == f.epoch {
			outcome := transport.Ack
			if e.reject {
				outcome = transport.Reject
			}
			if k := len(settlements) - 1; k >= 0 && settlements[k].Outcome == outcome && settlements[k].Last+1 == e.d.Seq {
				settlements[k].Last = e.d.Seq
			} else {
				settlements = append(settlements, transport.Settlement{First: e.d.Seq, Last: e.d.Seq, Outcome: outcome})
			}
		}
		*e = entry{}
	}
	paid := min(f.debt, credit.Bytes)
	f.debt -= paid
	credit.Bytes -= paid
	return f.sub, settlements, credit, n
}

// drain waits until the window is empty, at most for the drain time.
func (f *Feed) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Drain)
	defer cancel()
	for {
		f.settle(ctx)
		f.mu.Lock()
		left := f.end - f.settled
		f.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-f.idle:
		case <-ctx.Done():
			f.cfg.Log.Warn("messages left unsettled", "feed", f.cfg.Name, "messages", left)
			return
		}
	}
}

// closeTimeout bounds closing what may not answer.
const closeTimeout = 3 * time.Second

func (f *Feed) close(ctx context.Context) {
	f.mu.Lock()
	sub := f.sub
	f.sub = nil
	f.mu.Unlock()
	removed := errors.Is(context.Cause(ctx), ErrRemoved)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var err error
	switch {
	case sub != nil && removed:
		err = sub.Remove(closing)
	case sub != nil:
		err = sub.Close(closing)
	case removed:
		err = errors.New("the source's broker is not connected")
	}
	if err != nil && removed {
		f.cfg.Log.Warn("subscription may be left on the broker", "feed", f.cfg.Name, "error", err)
	}
}

func (f *Feed) setSource(c Condition) {
	f.mu.Lock()
	changed := f.cond.Up != c.Up || f.cond.Reason != c.Reason
	if changed {
		c.Since = time.Now()
		f.cond = c
	}
	f.mu.Unlock()
	if changed {
		f.cfg.Changed()
	}
}

func (f *Feed) at(p uint64) *entry { return &f.window[p&uint64(len(f.window)-1)] }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
