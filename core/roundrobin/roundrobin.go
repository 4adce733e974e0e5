// Package roundrobin is one publisher over several sinks: each message goes to one of them, in turn.
//
// A [Group] is what lasts: its members, and what they have taken. Its Open gives a [transport.Publisher] that is one life of
// it, as the publishers of a sink are. The rules:
//
//   - A message that no member has confirmed is nobody's: when its member fails, it goes to another. So a message that a
//     member has taken without saying so comes twice, perhaps to two members; none is lost.
//   - A member that is away is left out as long as another is there. The publisher fails when none is.
//   - A member holds what it confirms in good time, and no more: one that slows down gets less, so that it does not hold up
//     the confirms of what is behind. One that confirms nothing for a while gives back what it holds, as long as there is
//     another that takes it; then it is tried with one message at a time.
//   - Each member gets its messages in order, but for what another has given back.
//   - What a member refuses for good is refused: no other is asked.
//
// It knows nothing of brokers and feeds: it is handed functions that open publishers. It stores nothing.
package roundrobin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// Member is one of the sinks that share.
type Member struct {
	// ID names it in logs and in the status.
	ID string
	// Open opens a publisher to it. It may block until a broker is connected; ctx bounds the wait.
	Open func(ctx context.Context) (transport.Publisher, error)
	// Ready says whether its broker takes messages at the moment. It must not block, and may be nil.
	Ready func() bool
}

// MemberStatus is how a member is doing.
type MemberStatus struct {
	ID string
	// Up: its publisher is open.
	Up bool
	// Reason says why it is not.
	Reason string
	// Messages and Bytes are what it has confirmed, Refused what it has refused for good, Moved what it held and gave back.
	Messages, Bytes, Refused, Moved uint64
	// InFlight is how many messages it holds.
	InFlight uint64
	// Awaited is since when it owes a confirm; zero if it owes none.
	Awaited time.Time
}

// Group is a set of members. Its methods may be called concurrently.
type Group struct {
	log     *slog.Logger
	members []Member

	mu     sync.Mutex
	status []MemberStatus
	now    *publisher // the one that was opened last
}

// Bounds of a publisher.
const (
	// limit is how many messages may be unconfirmed, over all members: more than a feed usually has in flight.
	limit = 4096
	// maxHeld is how many messages a member may hold, however quick it is, and firstHeld how many before it is known to be.
	maxHeld, firstHeld = 512, 32
	// maxBatch is how many messages are given to a member's publisher at once.
	maxBatch = 64
)

// Times of a member.
const (
	// slack is by how much a confirm may be later than the quickest before the member counts as slow.
	slack = 100 * time.Millisecond
	// patience is how long a member may owe a confirm before another gets what it holds: longer than a disk that is well
	// takes, and short, because what is behind waits too.
	patience = 2 * time.Second
	// A member that has stalled rests: minRest, doubled each time, up to maxRest.
	minRest, maxRest = 4 * time.Second, time.Minute
	// look is how often members are looked at.
	look = 250 * time.Millisecond
)

// New returns a group. log may be nil.
func New(log *slog.Logger, members ...Member) *Group {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Group{log: log, members: members}
	for _, m := range members {
		g.status = append(g.status, MemberStatus{ID: m.ID, Reason: notStarted})
	}
	return g
}

const notStarted = "not started"

// Status says how the members are doing, in their order. It does not block.
func (g *Group) Status() []MemberStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(g.status)
	for i := range out {
		if g.now == nil {
			break
		}
		if l := g.now.lines[i]; len(l.held) > 0 {
			out[i].InFlight, out[i].Awaited = uint64(len(l.held)), l.lastWord
		}
	}
	return out
}

// publisher is one life of a group.
type publisher struct {
	g      *Group
	outbox *transport.Outbox
	end    context.CancelFunc // of all goroutines
	lines  []*line
	news   chan struct{} // has an element when a line has come up or failed
	room   chan struct{} // has an element when there may be room
	ended  <-chan struct{}
	done   chan struct{} // closed when no goroutine is left

	waiting []held // g.mu: not given to a member yet, by number
	turn    int    // g.mu: the line that is next
	opened  bool   // g.mu: a member has been up
}

// line is the way to one member. What has no comment is guarded by the group's mu.
type line struct {
	Member
	index int           // of the member, for ever
	more  chan struct{} // has an element when there is something to send
	rests int           // keep's own: stalls in a row
	doubt bool          // keep's own: it has taken nothing, or not in time, when it was open last

	up       bool
	ready    bool
	err      error                   // why it failed last; nil if it has not
	stop     context.CancelCauseFunc // ends the member's publisher
	held     []held                  // given to it and not confirmed, in order
	sent     int                     // how many of held were given to its publisher
	taken    uint64                  // how many its publisher has confirmed
	allowed  int                     // how many it may hold
	best     time.Duration           // its quickest confirm
	cut      uint64                  // the last message that it held when allowed was cut
	lastWord time.Time
}

// held is a message on its way.
type held struct {
	number uint64 // of the group's publisher
	given  time.Time
	transport.Message
}

// Open opens a publisher to the members. It blocks until one of them is open, or all have failed, or ctx ends.
func (g *Group) Open(ctx context.Context) (transport.Publisher, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	p := &publisher{
		g: g, outbox: transport.NewOutbox(limit), end: end, ended: life.Done(),
		news: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	for i, m := range g.members {
		p.lines = append(p.lines, &line{Member: m, index: i, more: make(chan struct{}, 1)})
	}
	g.mu.Lock()
	g.now = p
	g.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range p.lines {
		wg.Go(func() { p.keep(life, l) })
	}
	wg.Go(func() { p.watch(life) })
	go func() { // ends with those, and Close waits for it
		wg.Wait()
		close(p.done)
	}()
	for {
		up, err := p.state()
		if up {
			return p, nil
		}
		if err == nil {
			select {
			case <-p.news:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		p.fail(err)
		<-p.done // opening heeds its context
		return nil, err
	}
}

// state says whether a member is up, and why none is when all have failed.
func (p *publisher) state() (up bool, err error) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	failed := 0
	for _, l := range p.lines {
		if l.up {
			return true, nil
		}
		if l.err != nil {
			failed++
		}
	}
	if failed < len(p.lines) {
		return false, nil
	}
	return false, p.trouble()
}

// trouble says why no member is up. The group's mu is held.
func (p *publisher) trouble() error {
	var words []string
	var errs []error
	for _, l := range p.lines {
		if l.err != nil {
			errs = append(errs, l.err)
			words = append(words, l.err.Error())
		}
	}
	switch len(errs) {
	case 0:
		return errors.New("there is no sink")
	case 1:
		return errs[0]
	}
	slices.Sort(words)
	err := errors.New(strings.Join(slices.Compact(words), "; "))
	if slices.ContainsFunc(errs, func(err error) bool { return !transport.IsPermanent(err) }) {
		return err
	}
	return transport.Permanent(err)
}

// Publish waits only for room.
func (p *publisher) Publish(ctx context.Context, msgs []transport.Message) error {
	for i := range msgs {
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		if err := p.await(ctx); err != nil {
			return err
		}
		p.g.mu.Lock()
		p.waiting = append(p.waiting, held{number: n, Message: msgs[i]})
		p.assign()
		p.g.mu.Unlock()
	}
	return nil
}

// await blocks until few messages wait for a member.
func (p *publisher) await(ctx context.Context) error {
	for {
		p.g.mu.Lock()
		full := len(p.waiting) >= maxBatch
		p.g.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-p.room:
		case <-p.ended:
			return transport.ErrClosed // Confirms says why
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *publisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *publisher) Close(ctx context.Context) error {
	p.fail(nil)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fail ends the publisher. Its goroutines end by themselves.
func (p *publisher) fail(reason error) {
	p.outbox.Fail(reason)
	p.end()
}

// assign gives what waits to members that have room, in turn. The group's mu is held.
func (p *publisher) assign() {
	for len(p.waiting) > 0 {
		l := p.next()
		if l == nil {
			return
		}
		h := p.waiting[0]
		p.waiting[0] = held{}
		if p.waiting = p.waiting[1:]; len(p.waiting) < maxBatch {
			wake(p.room)
		}
		h.given = time.Now()
		if len(l.held) == 0 {
			l.lastWord = h.given // from here on it owes us a word
		}
		l.held = append(l.held, h)
		wake(l.more)
	}
}

// next returns the next line that has room, or nil.
func (p *publisher) next() *line {
	for i := range p.lines {
		l := p.lines[(p.turn+i)%len(p.lines)]
		if l.free() {
			p.turn = (p.turn + i + 1) % len(p.lines)
			return l
		}
	}
	return nil
}

func (l *line) free() bool { return l.up && l.ready && len(l.held) < l.allowed }

// watch looks at the members: whether their brokers take messages, and whether one of them has stalled.
func (p *publisher) watch(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.look(now)
		case <-ctx.Done():
			return
		}
	}
}

func (p *publisher) look(now time.Time) {
	ready := make([]bool, len(p.lines))
	for i, l := range p.lines {
		ready[i] = l.takes() // not under the lock: it is somebody else's function
	}
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	for i, l := range p.lines {
		l.ready = ready[i]
	}
	p.assign()
	for _, l := range p.lines {
		if l.up && len(l.held) > 0 && now.Sub(l.lastWord) > patience &&
			slices.ContainsFunc(p.lines, func(o *line) bool { return o != l && o.free() }) {
			l.stop(errStalled)
		}
	}
}

func (l *line) takes() bool { return l.Ready == nil || l.Ready() }

var errStalled = fmt.Errorf("nothing was confirmed for %s", patience)

// keep keeps a member's publisher open until ctx ends.
func (p *publisher) keep(ctx context.Context, l *line) {
	var retry broker.Retry
	for ctx.Err() == nil {
		pub, err := l.Open(ctx)
		taken := uint64(0)
		if err == nil {
			taken, err = p.use(ctx, l, pub)
		} else {
			p.down(ctx, l, err)
		}
		if ctx.Err() != nil {
			return
		}
		p.g.log.Debug("member not open", "edge", l.ID, "error", err)
		if taken > 0 {
			retry.Reset()
		}
		l.doubt = taken == 0 || errors.Is(err, errStalled)
		if taken > maxBatch {
			l.rests = 0 // it has been well for a while
		}
		if errors.Is(err, errStalled) {
			broker.Rest(ctx, min(minRest<<l.rests, maxRest))
			l.rests = min(l.rests+1, 4)
			continue
		}
		retry.Wait(ctx, err)
	}
}

// use sends to a member until its publisher fails. It returns how many messages the member has confirmed.
func (p *publisher) use(ctx context.Context, l *line, pub transport.Publisher) (uint64, error) {
	both, stop := context.WithCancelCause(ctx)
	ready := l.takes()
	p.g.mu.Lock()
	p.opened = true
	l.up, l.ready, l.stop = true, ready, stop
	l.taken, l.sent, l.allowed, l.best, l.cut = 0, 0, firstHeld, time.Hour, 0
	if l.doubt {
		l.allowed = 1
	}
	if p.g.now == p {
		s := &p.g.status[l.index]
		s.Up, s.Reason = true, ""
	}
	p.assign()
	p.g.mu.Unlock()
	wake(p.news)

	// Two goroutines, as a publisher has to be heard while it takes no more.
	var wg sync.WaitGroup
	wg.Go(func() { stop(p.send(both, l, pub)) })
	stop(p.hear(both, l, pub))
	wg.Wait()
	err := context.Cause(both)
	p.down(ctx, l, err)

	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer done()
	_ = pub.Close(closing) // it has failed, or is not wanted any more
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	return l.taken, err
}

// closeTimeout bounds closing what may not answer.
const closeTimeout = 3 * time.Second

// down takes back what a member holds, and gives it to others. Without others the publisher fails.
func (p *publisher) down(ctx context.Context, l *line, reason error) {
	p.g.mu.Lock()
	l.up, l.err = false, reason
	moved := uint64(l.sent)
	p.waiting = slices.Concat(l.held, p.waiting)
	slices.SortFunc(p.waiting, func(a, b held) int { return cmp.Compare(a.number, b.number) })
	l.held, l.sent = nil, 0
	if p.g.now == p {
		s := &p.g.status[l.index]
		s.Up = false
		if ctx.Err() == nil {
			s.Reason = reason.Error()
		} else if s.Reason == "" {
			s.Reason = notStarted // it is the publisher that ends
		}
		s.Moved += moved
	}
	p.assign()
	alone := p.opened && !slices.ContainsFunc(p.lines, func(l *line) bool { return l.up })
	trouble := p.trouble()
	p.g.mu.Unlock()
	wake(p.news)
	if moved > 0 && !alone && ctx.Err() == nil {
		p.g.log.Warn("member gave messages back", "edge", l.ID, "messages", moved, "error", reason)
	}
	if alone {
		p.fail(trouble)
	}
}

// send publishes what the member is given.
func (p *publisher) send(ctx context.Context, l *line, pub transport.Publisher) error {
	msgs := make([]transport.Message, 0, maxBatch)
	for {
		msgs = msgs[:0]
		p.g.mu.Lock()
		for l.sent < len(l.held) && len(msgs) < maxBatch {
			msgs = append(msgs, l.held[l.sent].Message)
			l.sent++
		}
		p.g.mu.Unlock()
		if len(msgs) == 0 {
			select {
			case <-l.more:
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

// hear follows the member's confirms.
func (p *publisher) hear(ctx context.Context, l *line, pub transport.Publisher) error {
	for {
		confirms, err := pub.Confirms(ctx)
		if err != nil {
			return err
		}
		for _, c := range confirms {
			if err := p.confirmed(l, c); err != nil {
				return err
			}
		}
	}
}

func (p *publisher) confirmed(l *line, c transport.Confirm) error {
	now := time.Now()
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	n := int(c.Last - l.taken)
	if c.First != l.taken+1 || c.Last < c.First || n > l.sent {
		return fmt.Errorf("the driver confirms messages %d to %d out of turn", c.First, c.Last)
	}
	s := &p.g.status[l.index]
	for _, h := range l.held[:n] {
		p.outbox.Done(h.number, h.number, c.Refused)
		if c.Refused != nil {
			s.Refused++
			continue
		}
		s.Messages++
		s.Bytes += uint64(len(h.Body))
	}
	l.pace(now, n)
	clear(l.held[:n])
	l.held, l.sent, l.taken = l.held[n:], l.sent-n, c.Last
	l.lastWord = now
	p.assign()
	return nil
}

// pace sets how many messages a member may hold, by how long it took for its first n: more as long as it is as quick as it
// can be, and half when it is not, once for what it held by then.
func (l *line) pace(now time.Time, n int) {
	first, last := l.held[0], l.held[n-1]
	l.best = min(l.best, now.Sub(last.given))
	switch {
	case now.Sub(first.given) <= 2*l.best+slack:
		l.allowed = min(l.allowed+n, maxHeld)
	case first.number > l.cut:
		l.allowed = max(l.allowed/2, 1)
		l.cut = l.held[len(l.held)-1].number
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
