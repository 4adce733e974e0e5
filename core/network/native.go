package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

const (
	// assertEvery is how often bindings are made again that are there already: whoever makes a queue anew takes them away
	// without a word.
	assertEvery = 15 * time.Second
	// assertTime is how long that may take before it is looked whether there is something new.
	assertTime = 250 * time.Millisecond
	// bindTime bounds what a broker may take for the bindings of one way.
	bindTime = 10 * time.Second
)

// nativeRun is a way that a broker carries by itself.
type nativeRun struct {
	spec  route.Native
	conn  transport.Conn // on which it was made last; nil if it was not
	at    time.Time      // when it was
	since time.Time      // when it was made first
	err   error          // why it could not be made
	lacks bool           // what is bound is not there, and may come
	retry broker.Retry
	next  time.Time // when it is tried again
}

// binder makes what one broker carries by itself, and takes it back.
type binder struct {
	stop context.CancelFunc
	done chan struct{}
	wake chan struct{} // has an element when there may be something to do
}

// reconcileNatives says what has to be bound and unbound; binders do it.
func (n *Network) reconcileNatives(ctx context.Context, wg *sync.WaitGroup) {
	if !n.applied {
		return // nobody has said yet what is not wanted any more
	}
	wanted := make(map[string]bool, len(n.wanted.Plan.Natives))
	for _, w := range n.wanted.Plan.Natives {
		wanted[w.ID] = true
		run := n.natives[w.ID]
		if run == nil {
			run = &nativeRun{}
			n.natives[w.ID] = run
		}
		run.spec = w
		if n.fresh {
			run.next = time.Time{} // somebody has come for whom it has waited, perhaps
		}
	}
	for id := range n.natives {
		if !wanted[id] {
			delete(n.natives, id)
		}
	}
	n.fresh = false
	n.claim()

	busy := make(map[string]bool)
	for _, run := range n.natives {
		busy[run.spec.Broker] = true
	}
	for key, m := range n.ledger.made {
		if m.gone {
			busy[key.Broker] = true
		}
	}
	for id := range busy {
		if run := n.brokers[id]; run == nil || run.ending {
			delete(busy, id)
		}
	}
	for id, b := range n.binders {
		select {
		case <-b.done:
			delete(n.binders, id)
			continue
		default:
		}
		if !busy[id] {
			b.stop()
		}
		b.poke()
	}
	for id := range busy {
		if n.binders[id] != nil {
			continue
		}
		bctx, stop := context.WithCancel(ctx)
		b := &binder{stop: stop, done: make(chan struct{}), wake: make(chan struct{}, 1)}
		n.binders[id] = b
		wg.Go(func() {
			defer n.poke()
			defer close(b.done)
			n.bindAll(bctx, id, b)
		})
	}
}

func (b *binder) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// claim says of each binding that was made who wants it still.
func (n *Network) claim() {
	edges := make(map[string]route.Edge, len(n.wanted.Plan.Edges))
	for _, e := range n.wanted.Plan.Edges {
		edges[e.ID] = e
	}
	ways := make(map[binding][][]string)
	for _, w := range n.wanted.Plan.Natives {
		for _, b := range w.Bindings {
			key := binding{w.Broker, b}
			ways[key] = append(ways[key], w.Ways...)
		}
	}
	for key := range ways {
		if n.ledger.made[key] == nil {
			n.ledger.made[key] = &madeBinding{}
			n.ledger.dirty = true
		}
	}
	for key, m := range n.ledger.made {
		claims := ways[key]
		var kept [][]string
		carried := false
		for _, way := range m.ways {
			if contains(claims, way) {
				continue
			}
			switch n.fate(edges, way) {
			case stays:
				kept = append(kept, way)
			case moved:
				carried = true
			}
		}
		if !carried { // whoever is away does not want everybody else to get everything twice
			claims = append(claims, kept...)
		}
		if len(claims) == 0 {
			if !m.gone {
				m.gone, n.ledger.dirty = true, true
			}
			continue // it remembers whose it was
		}
		if m.gone || !slices.EqualFunc(m.ways, claims, slices.Equal) {
			m.ways, m.gone, n.ledger.dirty = claims, false, true
		}
	}
}

func contains(ways [][]string, way []string) bool {
	return slices.ContainsFunc(ways, func(w []string) bool { return slices.Equal(w, way) })
}

// fate is what becomes of a way that does not want its binding any more.
type fate int

const (
	ends  fate = iota // an edge of it is gone, or must not run
	moved             // the gateway carries in its place
	stays             // it is wanted again, or is needed until something else carries
)

// fate says whether a binding stays for a way that does not want it at the moment: while something is missing, as for whoever
// is away; and while what carries in its place is not open yet.
func (n *Network) fate(edges map[string]route.Edge, way []string) fate {
	pending, opening, carried := false, false, true
	for _, id := range way {
		e, ok := edges[id]
		if !ok || e.Refused != "" {
			return ends
		}
		pending = pending || e.Pending != ""
		carried = carried && len(e.Carriers) > 0
		for _, c := range e.Carriers {
			run := n.feeds[c.Feed]
			opening = opening || run == nil || run.ending || !run.feed.Status().Source.Up
		}
	}
	switch {
	case pending || opening:
		return stays
	case carried:
		return moved
	}
	return ends
}

// bindAll does what is to be done on one broker until ctx ends.
func (n *Network) bindAll(ctx context.Context, id string, b *binder) {
	for ctx.Err() == nil {
		conn, err := n.Conn(ctx, id)
		if err != nil {
			return
		}
		wait := n.bindDue(ctx, id, conn)
		timer := time.NewTimer(wait)
		select {
		case <-b.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// due is a way that is to be made.
type due struct {
	run  *nativeRun
	spec route.Native
	at   time.Time // when it was made last
}

// bindDue does what is due, and returns how long there is nothing to do. What is there already, and is only made again, comes
// last and not all at a time: nobody who is new waits until a thousand others have been asked about.
func (n *Network) bindDue(ctx context.Context, id string, conn transport.Conn) time.Duration {
	now := time.Now()
	var makes, again []due
	var unbinds []binding
	n.mu.Lock()
	for _, run := range n.natives {
		switch {
		case run.spec.Broker != id || now.Before(run.next):
		case run.conn != conn || run.err != nil:
			makes = append(makes, due{run, run.spec, run.at})
		case now.Sub(run.at) > assertEvery:
			again = append(again, due{run, run.spec, run.at})
		}
	}
	for key, m := range n.ledger.made {
		if key.Broker == id && m.gone && !now.Before(m.next) {
			unbinds = append(unbinds, key)
		}
	}
	n.mu.Unlock()
	n.save()
	for _, d := range makes {
		if !n.bind(ctx, conn, d) {
			return 0
		}
	}
	for _, key := range unbinds {
		err := unbind(ctx, conn, key.Binding)
		if ctx.Err() != nil {
			return 0
		}
		n.unmade(key, err)
	}
	if len(makes)+len(unbinds) > 0 {
		n.poke()
	}
	n.save()
	slices.SortFunc(again, func(a, b due) int { return a.at.Compare(b.at) }) // or one could wait for ever
	for _, d := range again {
		if time.Since(now) > assertTime {
			return 0 // the rest is due still
		}
		if !n.bind(ctx, conn, d) {
			return 0
		}
	}
	if len(again) > 0 {
		n.poke() // some may have been taken away
	}
	return time.Second
}

// bind makes a way, and notes what became of it. It returns false if ctx has ended.
func (n *Network) bind(ctx context.Context, conn transport.Conn, d due) bool {
	err := bindWay(ctx, conn, d.spec)
	if ctx.Err() != nil {
		return false
	}
	n.made(d.run, d.spec, conn, err)
	return true
}

// bindWay makes one way. What it says of an error is for people.
func bindWay(ctx context.Context, conn transport.Conn, w route.Native) error {
	ctx, cancel := context.WithTimeout(ctx, bindTime)
	defer cancel()
	top, ok := conn.(transport.Topology)
	if !ok {
		return transport.Permanentf("it has nothing to bind")
	}
	for _, p := range w.Makes {
		if err := top.Declare(ctx, p); err != nil {
			return err
		}
	}
	for _, b := range w.Bindings {
		if err := top.Bind(ctx, b); err != nil {
			return &lackError{err}
		}
	}
	for _, p := range w.Needs {
		err := top.Declare(ctx, p) // it is there, or there would have been nothing to bind
		if err == nil {
			continue
		}
		for _, b := range w.Bindings {
			if again := top.Unbind(ctx, b); again != nil {
				return errors.Join(err, again)
			}
		}
		return fmt.Errorf("%w: set routing = \"gateway\" to have it carried all the same", err)
	}
	return nil
}

// lackError is the failure of a binding: what is to be bound is not there.
type lackError struct{ error }

func (e *lackError) Unwrap() error { return e.error }

func unbind(ctx context.Context, conn transport.Conn, b transport.Binding) error {
	ctx, cancel := context.WithTimeout(ctx, bindTime)
	defer cancel()
	top, ok := conn.(transport.Topology)
	if !ok {
		return transport.Permanentf("it has nothing to unbind")
	}
	return top.Unbind(ctx, b)
}

// made notes what became of a way.
func (n *Network) made(run *nativeRun, spec route.Native, conn transport.Conn, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.natives[spec.ID] != run {
		return // it is not wanted any more: what it has made is taken back
	}
	first := run.conn == nil
	_, run.lacks = errors.AsType[*lackError](err)
	run.err = err
	if err != nil {
		if !errors.Is(err, transport.ErrClosed) {
			run.conn = nil
		}
		run.next = time.Now().Add(run.retry.Next(err))
		return
	}
	run.retry.Reset()
	run.conn, run.at, run.next = conn, time.Now(), time.Time{}
	if run.since.IsZero() {
		run.since = run.at
	}
	if first {
		n.cfg.Log.Info("bound", "broker", spec.Broker, "way", spec.ID)
	}
}

// unmade notes what became of a binding that was to be taken back.
func (n *Network) unmade(key binding, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.ledger.made[key]
	if m == nil {
		return
	}
	if err != nil {
		if m.failed == nil {
			n.cfg.Log.Warn("binding not taken back", "broker", key.Broker, "from", key.From.Address, "to", key.To.Address, "error", err)
		}
		m.failed = err
		m.next = time.Now().Add(m.retry.Next(err))
		return
	}
	n.cfg.Log.Info("unbound", "broker", key.Broker, "from", key.From.Address, "to", key.To.Address)
	n.ledger.dirty = true
	if m.gone {
		delete(n.ledger.made, key)
		return
	}
	// Somebody has come to want it meanwhile.
	for _, run := range n.natives {
		if slices.Contains(run.spec.Bindings, key.Binding) {
			run.conn, run.next = nil, time.Time{}
		}
	}
}

// unbinding says whether a broker that nobody wants is connected, and has bindings that can still be taken back.
func (n *Network) unbinding(id string) bool {
	run := n.brokers[id]
	if run == nil || run.broker.State().Phase != broker.Connected {
		return false
	}
	for key, m := range n.ledger.made {
		if key.Broker == id && m.gone && m.failed == nil {
			return true
		}
	}
	return false
}

// What a broker keeps for a feed nobody tells; but it gives what it has as long as there is room. So a feed to which less came
// during a lull than there was room for at its beginning has been given everything from before.
const (
	// lull is longer than it takes until room is used, and short: what comes in it has to be less than a window.
	lull = 250 * time.Millisecond
	// lulls is how many there have to be, one after another: a machine may be busy for the length of one.
	lulls = 4
)

// calm looks for lulls of a feed.
type calm struct {
	at       time.Time // when the present one began
	up       time.Time // since when the source was
	room     transport.Credit
	received bridge.Counts
	since    time.Time // when the first of them began
	n        int       // how many there were
}

// look looks at the feed again. It returns when it wants to, or the zero time where it does not matter.
func (c *calm) look(s bridge.Status, now time.Time) (again time.Time) {
	if end := c.at.Add(lull); !c.at.IsZero() && now.Before(end) && c.up.Equal(s.Source.Since) {
		return time.Time{}
	}
	messages, bytes := int64(s.Received.Messages-c.received.Messages), int64(s.Received.Bytes-c.received.Bytes)
	if c.n++; c.at.IsZero() || !s.Source.Up || !c.up.Equal(s.Source.Since) || messages >= c.room.Messages || bytes >= c.room.Bytes {
		c.n, c.since = 0, now
	}
	c.at, c.up, c.room, c.received = now, s.Source.Since, s.Room, s.Received
	return now.Add(lull)
}

// handsOver says whether a target that is not wanted has to go on, because the broker does not carry in its place yet, or what
// came before it did has not all been carried.
func (n *Network) handsOver(run *feedRun, t route.Target) bool {
	for _, e := range n.wanted.Plan.Edges {
		if len(e.Carriers) > 0 || !slices.Contains(t.Edges, e.ID) {
			continue
		}
		for _, id := range e.Natives {
			way := n.natives[id]
			if way == nil || way.conn == nil {
				return true
			}
			now := time.Now()
			if run.calm.since.Before(way.since) {
				run.calm = calm{} // what was before the broker carried says nothing
			}
			if again := run.calm.look(run.feed.Status(), now); !again.IsZero() {
				time.AfterFunc(again.Sub(now), n.poke)
			}
			if run.calm.n < lulls {
				return true
			}
		}
	}
	return false
}

// native says how a way is doing that a broker carries by itself.
func (n *Network) native(id string) (State, string) {
	run := n.natives[id]
	if run == nil {
		return Pending, "being started"
	}
	on := run.spec.Broker
	state, reason := n.broker(on)
	switch {
	case state == Blocked: // it is we who are blocked
	case state != Flowing:
		return state, reason
	}
	switch {
	case run.err != nil && run.lacks:
		return Pending, fmt.Sprintf("%s: %v", on, run.err)
	case run.err != nil && transport.IsPermanent(run.err):
		return Broken, fmt.Sprintf("%s: %v", on, run.err)
	case run.conn == nil:
		return Pending, "being bound on " + on
	}
	return Flowing, fmt.Sprintf("carried by %s itself", on)
}
