package transporttest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// FaultDriver is a driver that passes everything on to another and makes go wrong what a test wants to go wrong. Its methods
// may be called concurrently, also while connections are open. It has no goroutine of its own, and nothing of it depends on
// the clock except for Delay.
type FaultDriver struct {
	inner transport.Driver

	mu     sync.Mutex
	script []*Fault
	chance []Fault
	random *rand.Rand
	frozen chan struct{} // closed by thaw; nil while nothing is frozen
	conns  map[*faultConn]struct{}
	counts map[Op]int
}

// Op is something that goes wrong.
type Op uint8

// The operations. What After and Times of a Fault count is in brackets.
const (
	AtConnect   Op = iota + 1 // Driver.Connect (calls)
	AtSubscribe               // Conn.Subscribe (calls)
	AtOpen                    // Conn.Publish (calls)
	AtReceive                 // Subscription.Receive (deliveries)
	AtSettle                  // Subscription.Settle (deliveries)
	AtPublish                 // Publisher.Publish (messages)
	AtConfirm                 // Publisher.Confirms (messages)
)

// Kind is how it goes wrong.
type Kind uint8

// The kinds.
const (
	// Fail: the call returns Err. A subscription or publisher to which it happens is of no further use; its connection is.
	Fail Kind = iota + 1
	// Lose: the connection ends for the reason Err. At AtPublish the message has reached the broker by then; at AtConfirm
	// it is confirmed by the broker and not reported.
	Lose
	// Drop: at AtSettle the settlement is not passed on, and Settle returns nil. At AtConfirm and AtPublish neither the
	// message (which at AtPublish does not reach the broker) nor any later one of the publisher is reported as confirmed.
	Drop
	// Delay: the call takes Fault.Delay longer, or until its context ends.
	Delay
	// Hang: the call returns when its context ends, and not before.
	Hang
)

// Fault is one thing that goes wrong.
type Fault struct {
	At Op
	Do Kind
	// After is how many go well first, counted over all connections from the moment of Inject.
	After int
	// Times is how many in a row go wrong; 0 means 1, -1 all.
	Times int
	// Err is the error of Fail and Lose; nil means ErrInjected. Use transport.Permanent for one that lasts.
	Err error
	// Delay is how long Delay delays.
	Delay time.Duration
	// Chance is for Random: how likely it is, of 1, at each.
	Chance float64
}

// ErrInjected is the error of faults that name none.
var ErrInjected = errors.New("injected fault")

// Faults returns a driver that passes everything on to inner until told otherwise.
func Faults(inner transport.Driver) *FaultDriver {
	return &FaultDriver{inner: inner, conns: map[*faultConn]struct{}{}, counts: map[Op]int{}}
}

// Inject adds faults to the script. Those of one operation happen one after the other: the After of the second counts from
// the end of the first.
func (f *FaultDriver) Inject(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if fault.Times == 0 {
			fault.Times = 1
		}
		f.script = append(f.script, &fault)
	}
}

// Random makes faults happen by chance, the same ones for the same seed and the same order of calls, beside those of the
// script. No fault ends it.
func (f *FaultDriver) Random(seed uint64, faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.random, f.chance = rand.New(rand.NewPCG(seed, seed)), faults
}

// LoseConnections ends all connections that are open.
func (f *FaultDriver) LoseConnections(reason error) {
	f.mu.Lock()
	conns := make([]*faultConn, 0, len(f.conns))
	for c := range f.conns {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	for _, c := range conns {
		_ = c.lose(reason)
	}
}

// Freeze makes the driver hang like a process that is stopped: no call that is made now, and none that waits for something,
// returns before its context ends, except for Info and Grant, until thaw is called. What was to be returned is returned
// after that.
func (f *FaultDriver) Freeze() (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	frozen := make(chan struct{})
	f.frozen = frozen
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(frozen)
		if f.frozen == frozen {
			f.frozen = nil
		}
	})
}

// Injected returns how many faults have happened to an operation.
func (f *FaultDriver) Injected(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// next says what goes wrong with the next of an operation, or nil.
func (f *FaultDriver) next(op Op) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.script {
		if fault.At != op {
			continue
		}
		if fault.After > 0 {
			fault.After--
			break
		}
		if fault.Times > 0 {
			if fault.Times--; fault.Times == 0 {
				f.script = append(f.script[:i:i], f.script[i+1:]...)
			}
		}
		f.counts[op]++
		return fault
	}
	for i := range f.chance {
		if fault := &f.chance[i]; fault.At == op && f.random.Float64() < fault.Chance {
			f.counts[op]++
			return fault
		}
	}
	return nil
}

// gate blocks while the driver is frozen.
func (f *FaultDriver) gate(ctx context.Context) error {
	for {
		f.mu.Lock()
		frozen := f.frozen
		f.mu.Unlock()
		if frozen == nil {
			return nil
		}
		select {
		case <-frozen:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Fault) err() error {
	if f.Err == nil {
		return ErrInjected
	}
	return f.Err
}

// happen does what is the same for every operation: it returns an error for the call to return, after which the stream is
// of no use, or nil when the call may go on.
func (f *Fault) happen(ctx context.Context, c *faultConn) error {
	switch f.Do {
	case Fail:
		return f.err()
	case Lose:
		if c == nil {
			return f.err()
		}
		return c.lose(f.err())
	case Delay:
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	case Hang:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Describe is the inner driver's.
func (f *FaultDriver) Describe(ctx context.Context) (transport.Description, error) {
	if err := f.gate(ctx); err != nil {
		return transport.Description{}, err
	}
	return f.inner.Describe(ctx)
}

// Validate is the inner driver's.
func (f *FaultDriver) Validate(ctx context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	if err := f.gate(ctx); err != nil {
		return transport.ValidateResult{}, err
	}
	return f.inner.Validate(ctx, req)
}

// Connect opens a connection of the inner driver, unless a fault at AtConnect prevents it.
func (f *FaultDriver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	if err := f.gate(ctx); err != nil {
		return nil, err
	}
	if fault := f.next(AtConnect); fault != nil {
		if err := fault.happen(ctx, nil); err != nil {
			return nil, err
		}
	}
	inner, err := f.inner.Connect(ctx, req)
	if err != nil {
		return nil, err
	}
	c := &faultConn{f: f, inner: inner}
	f.mu.Lock()
	f.conns[c] = struct{}{}
	f.mu.Unlock()
	if t, ok := inner.(transport.Topology); ok {
		return &faultTopology{faultConn: c, inner: t}, nil
	}
	return c, nil
}

type faultConn struct {
	f     *FaultDriver
	inner transport.Conn

	mu   sync.Mutex
	lost error // why the connection was lost by a fault
}

// lose ends the connection and returns the error of everything on it.
func (c *faultConn) lose(reason error) error {
	c.mu.Lock()
	if c.lost != nil {
		defer c.mu.Unlock()
		return c.lost
	}
	c.lost = transport.Closed(reason)
	c.mu.Unlock()
	c.f.forget(c)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.inner.Close(ctx)
	return transport.Closed(reason)
}

func (f *FaultDriver) forget(c *faultConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

// why returns err, or why the connection was lost when that is where err comes from.
func (c *faultConn) why(err error) error {
	if err == nil || !errors.Is(err, transport.ErrClosed) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return c.lost
	}
	return err
}

func (c *faultConn) Info() transport.ConnInfo { return c.inner.Info() }

func (c *faultConn) Next(ctx context.Context) (transport.Condition, error) {
	condition, err := c.inner.Next(ctx)
	if gate := c.f.gate(ctx); gate != nil {
		return transport.Condition{}, gate
	}
	return condition, c.why(err)
}

func (c *faultConn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	if err := c.f.gate(ctx); err != nil {
		return nil, err
	}
	if fault := c.f.next(AtSubscribe); fault != nil {
		if err := fault.happen(ctx, c); err != nil {
			return nil, err
		}
	}
	inner, err := c.inner.Subscribe(ctx, src)
	if err != nil {
		return nil, c.why(err)
	}
	return &faultSub{c: c, inner: inner}, nil
}

func (c *faultConn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	if err := c.f.gate(ctx); err != nil {
		return nil, err
	}
	if fault := c.f.next(AtOpen); fault != nil {
		if err := fault.happen(ctx, c); err != nil {
			return nil, err
		}
	}
	inner, err := c.inner.Publish(ctx, sink)
	if err != nil {
		return nil, c.why(err)
	}
	return &faultPub{c: c, inner: inner}, nil
}

// Close closes the inner connection. While the driver is frozen it returns when ctx ends, and the inner connection ends then,
// as it does when a process that hangs is killed.
func (c *faultConn) Close(ctx context.Context) error {
	c.f.forget(c)
	if err := c.f.gate(ctx); err != nil {
		_ = c.lose(err)
		return err
	}
	return c.inner.Close(ctx)
}

type faultTopology struct {
	*faultConn
	inner transport.Topology
}

func (t *faultTopology) Declare(ctx context.Context, place transport.Place) error {
	if err := t.f.gate(ctx); err != nil {
		return err
	}
	return t.why(t.inner.Declare(ctx, place))
}

func (t *faultTopology) Bind(ctx context.Context, b transport.Binding) error {
	if err := t.f.gate(ctx); err != nil {
		return err
	}
	return t.why(t.inner.Bind(ctx, b))
}

func (t *faultTopology) Unbind(ctx context.Context, b transport.Binding) error {
	if err := t.f.gate(ctx); err != nil {
		return err
	}
	return t.why(t.inner.Unbind(ctx, b))
}

// ended is the end of a subscription or publisher by a fault of kind Fail.
type ended struct {
	mu  sync.Mutex
	err error
}

func (e *ended) get() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func (e *ended) set(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
	return e.err
}

type faultSub struct {
	c     *faultConn
	inner transport.Subscription
	end   ended
	kept  []transport.Delivery // received and not yet looked at: Receive's own
	last  atomic.Uint64        // number of the last delivery of the inner subscription
}

func (s *faultSub) Receive(ctx context.Context) ([]transport.Delivery, error) {
	if err := s.end.get(); err != nil {
		return nil, err
	}
	if len(s.kept) == 0 {
		ds, err := s.inner.Receive(ctx)
		if err != nil {
			if gate := s.c.f.gate(ctx); gate != nil {
				return nil, gate
			}
			return nil, s.c.why(err)
		}
		s.kept = ds
		s.last.Store(ds[len(ds)-1].Seq)
	}
	if err := s.c.f.gate(ctx); err != nil {
		return nil, err
	}
	for i := range s.kept {
		fault := s.c.f.next(AtReceive)
		if fault == nil {
			continue
		}
		err := fault.happen(ctx, s.c)
		if err == nil {
			continue
		}
		good := s.kept[:i]
		if ctx.Err() != nil {
			s.kept = s.kept[i:] // a call that was cancelled loses nothing
		} else {
			s.kept = nil
			err = s.end.set(transport.Closed(err))
			_ = s.inner.Close(ctx)
		}
		if len(good) > 0 {
			return good, nil
		}
		return nil, err
	}
	ds := s.kept
	s.kept = nil
	return ds, nil
}

func (s *faultSub) Grant(credit transport.Credit) error {
	if err := s.end.get(); err != nil {
		return err
	}
	return s.c.why(s.inner.Grant(credit))
}

func (s *faultSub) Settle(ctx context.Context, settlements []transport.Settlement) error {
	if err := s.c.f.gate(ctx); err != nil {
		return err
	}
	if err := s.end.get(); err != nil {
		return err
	}
	var pass []transport.Settlement
	for _, st := range settlements {
		if st.First > st.Last || st.Last > s.last.Load() {
			pass = append(pass, st) // for the inner subscription to refuse
			continue
		}
		for n := st.First; n <= st.Last; n++ {
			if fault := s.c.f.next(AtSettle); fault != nil {
				if fault.Do == Drop {
					continue
				}
				if err := fault.happen(ctx, s.c); err != nil {
					return err
				}
			}
			if last := len(pass) - 1; last >= 0 && pass[last].Last+1 == n && pass[last].Outcome == st.Outcome {
				pass[last].Last = n
			} else {
				pass = append(pass, transport.Settlement{First: n, Last: n, Outcome: st.Outcome})
			}
		}
	}
	if len(pass) == 0 {
		return nil
	}
	return s.c.why(s.inner.Settle(ctx, pass))
}

func (s *faultSub) Close(ctx context.Context) error {
	if err := s.c.f.gate(ctx); err != nil {
		return err
	}
	return s.c.why(s.inner.Close(ctx))
}

func (s *faultSub) Remove(ctx context.Context) error {
	if err := s.c.f.gate(ctx); err != nil {
		return err
	}
	return s.c.why(s.inner.Remove(ctx))
}

type faultPub struct {
	c     *faultConn
	inner transport.Publisher
	end   ended               // of Publish
	cut   ended               // of Confirms
	kept  []transport.Confirm // reported by the inner publisher and not yet looked at: Confirms' own

	mu       sync.Mutex
	withheld bool // by Drop: nothing is reported any more
}

func (p *faultPub) Publish(ctx context.Context, msgs []transport.Message) error {
	if err := p.c.f.gate(ctx); err != nil {
		return err
	}
	if err := p.end.get(); err != nil {
		return err
	}
	first := 0 // of msgs, not yet passed on
	pass := func(end int) error {
		if first == end {
			return nil
		}
		part := msgs[first:end]
		first = end
		return p.c.why(p.inner.Publish(ctx, part))
	}
	for i := range msgs {
		fault := p.c.f.next(AtPublish)
		if fault == nil {
			continue
		}
		// Lose: the message reaches the broker and nobody hears of it. Otherwise it does not.
		upTo := i
		if fault.Do == Lose {
			upTo++
		}
		if err := pass(upTo); err != nil {
			return err
		}
		if fault.Do == Drop {
			p.mu.Lock()
			p.withheld = true
			p.mu.Unlock()
			first = i + 1
			continue
		}
		if err := fault.happen(ctx, p.c); err != nil {
			err = p.end.set(err)
			_ = p.inner.Close(ctx) // Confirms ends too, after what was confirmed before
			return err
		}
	}
	return pass(len(msgs))
}

func (p *faultPub) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	for {
		if err := p.cut.get(); err != nil {
			return nil, err
		}
		if len(p.kept) == 0 {
			cs, err := p.inner.Confirms(ctx)
			if err != nil {
				if gate := p.c.f.gate(ctx); gate != nil {
					return nil, gate
				}
				if end := p.end.get(); end != nil {
					return nil, transport.Closed(end)
				}
				return nil, p.c.why(err)
			}
			p.kept = cs
		}
		if err := p.c.f.gate(ctx); err != nil {
			return nil, err
		}
		if cs, err := p.look(ctx); err != nil || len(cs) > 0 {
			return cs, err
		}
	}
}

// look takes what was kept past the faults, and returns what may be reported.
func (p *faultPub) look(ctx context.Context) ([]transport.Confirm, error) {
	kept := p.kept
	p.kept = nil
	var good []transport.Confirm
	for i, c := range kept {
		for n := c.First; n <= c.Last; n++ {
			fault := p.c.f.next(AtConfirm)
			p.mu.Lock()
			p.withheld = p.withheld || fault != nil && fault.Do == Drop
			withheld := p.withheld
			p.mu.Unlock()
			if withheld {
				return good, nil
			}
			if fault != nil {
				if err := fault.happen(ctx, p.c); err != nil {
					if ctx.Err() != nil { // a call that was cancelled loses nothing
						rest := c
						rest.First = n
						p.kept = append([]transport.Confirm{rest}, kept[i+1:]...)
					} else {
						err = p.cut.set(transport.Closed(err))
						_ = p.end.set(err)
						_ = p.inner.Close(ctx)
					}
					if len(good) > 0 {
						return good, nil
					}
					return nil, err
				}
			}
			if last := len(good) - 1; last >= 0 && good[last].Last+1 == n && good[last].Refused == nil && c.Refused == nil {
				good[last].Last = n
			} else {
				good = append(good, transport.Confirm{First: n, Last: n, Refused: c.Refused})
			}
		}
	}
	return good, nil
}

func (p *faultPub) Close(ctx context.Context) error {
	if err := p.c.f.gate(ctx); err != nil {
		return err
	}
	return p.c.why(p.inner.Close(ctx))
}
