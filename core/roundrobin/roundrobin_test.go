package roundrobin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a broker's address with faults. Its fields are guarded by mu.
type sink struct {
	mu      sync.Mutex
	took    []int // the bodies, in order
	closed  error // what opening gives
	dies    int   // a publisher ends when it was given so many; 0 is never
	loses   bool  // what it was given last, and did not confirm, was not taken
	stalls  bool  // nothing is confirmed
	after   time.Duration
	refuses func(i int) bool
	busy    bool // Ready is false
	opens   int
}

func (s *sink) member(id string) Member {
	return Member{ID: id, Open: s.open, Ready: func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.busy
	}}
}

func (s *sink) open(context.Context) (transport.Publisher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens++
	if s.closed != nil {
		return nil, s.closed
	}
	return &outlet{sink: s, outbox: transport.NewOutbox(1024), done: make(chan struct{})}, nil
}

func (s *sink) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stalls
}

type outlet struct {
	sink   *sink
	outbox *transport.Outbox
	given  int
	wg     sync.WaitGroup
	once   sync.Once
	done   chan struct{}
}

func (o *outlet) Publish(ctx context.Context, msgs []transport.Message) error {
	for _, m := range msgs {
		n, err := o.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(string(m.Body))
		if err != nil {
			return err
		}
		o.sink.mu.Lock()
		dies := o.sink.dies > 0 && o.given+1 >= o.sink.dies
		refuses := o.sink.refuses != nil && o.sink.refuses(i)
		stalls, after := o.sink.stalls, o.sink.after
		if lost := dies && o.sink.loses; !refuses && !lost {
			o.sink.took = append(o.sink.took, i)
		}
		o.sink.mu.Unlock()
		o.given++
		switch {
		case dies:
			o.end(errors.New("killed"))
			return errors.New("killed")
		case refuses:
			o.outbox.Done(n, n, errors.New("refused"))
		case stalls:
			o.wg.Go(func() {
				for o.sink.stalled() {
					select {
					case <-time.After(10 * time.Millisecond):
					case <-o.done:
						return
					}
				}
				o.outbox.Done(n, n, nil)
			})
		case after > 0:
			o.wg.Go(func() {
				select {
				case <-time.After(after):
					o.outbox.Done(n, n, nil)
				case <-o.done:
				}
			})
		default:
			o.outbox.Done(n, n, nil)
		}
	}
	return nil
}

func (o *outlet) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return o.outbox.Confirms(ctx)
}

func (o *outlet) end(err error) {
	o.once.Do(func() { o.outbox.Fail(err); close(o.done) })
}

func (o *outlet) Close(context.Context) error {
	o.end(nil)
	o.wg.Wait()
	return nil
}

// push publishes n messages and returns the refused ones when all are confirmed.
func push(ctx context.Context, p transport.Publisher, from, n int) (refused []int, err error) {
	ctx, stop := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := from; i < from+n && err == nil; i++ {
			err = p.Publish(ctx, []transport.Message{{Body: []byte(strconv.Itoa(i))}})
		}
		sent <- err
	}()
	defer func() { stop(); err = errors.Join(err, <-sent) }()
	for next := uint64(from) + 1; next <= uint64(from+n); {
		cs, err := p.Confirms(ctx)
		if err != nil {
			return refused, fmt.Errorf("after %d messages: %w", next-1, err)
		}
		for _, c := range cs {
			if c.First != next || c.Last < c.First {
				return refused, fmt.Errorf("confirm %+v came where %d should have", c, next)
			}
			for i := c.First; c.Refused != nil && i <= c.Last; i++ {
				refused = append(refused, int(i)-1)
			}
			next = c.Last + 1
		}
	}
	return refused, nil
}

func open(t *testing.T, ctx context.Context, members ...Member) (*Group, transport.Publisher) {
	t.Helper()
	g := New(nil, members...)
	p, err := g.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return g, p
}

func closeIt(t *testing.T, p transport.Publisher) {
	t.Helper()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestEachMessageGoesToOneMemberInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{}, &sink{}
		g, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		synctest.Wait() // both are open
		for i := range 100 {
			if err := p.Publish(t.Context(), []transport.Message{{Body: []byte(strconv.Itoa(i))}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if len(a.took) != 50 || len(b.took) != 50 || !slices.IsSorted(a.took) || !slices.IsSorted(b.took) {
			t.Errorf("a took %v, b took %v", a.took, b.took)
		}
		for _, s := range g.Status() {
			if !s.Up || s.Messages != 50 || s.InFlight != 0 || s.Moved != 0 {
				t.Errorf("status %+v", s)
			}
		}
	})
}

func TestMemberThatIsAwayIsLeftOutUntilItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{closed: errors.New("away")}, &sink{}
		g, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		if _, err := push(t.Context(), p, 0, 50); err != nil {
			t.Fatal(err)
		}
		if s := g.Status()[0]; len(b.took) != 50 || s.Up || s.Reason != "away" {
			t.Errorf("b took %d, a is %+v", len(b.took), s)
		}
		a.mu.Lock()
		a.closed = nil
		a.mu.Unlock()
		time.Sleep(2 * time.Second)
		if !g.Status()[0].Up {
			t.Fatalf("a is %+v", g.Status()[0])
		}
	})
}

func TestPublisherFailsWhenNoMemberIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{closed: errors.New("a is away")}, &sink{closed: transport.Permanentf("b is forbidden")}
		g := New(nil, a.member("a"), b.member("b"))
		_, err := g.Open(t.Context())
		if err == nil || err.Error() != "a is away; b is forbidden" || transport.IsPermanent(err) {
			t.Errorf("opened with %v", err)
		}
		a.closed = nil
		p, err := g.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer closeIt(t, p)
		a.mu.Lock()
		a.closed, a.dies = errors.New("gone"), 1
		a.mu.Unlock()
		_, err = push(t.Context(), p, 0, 1)
		if !errors.Is(err, transport.ErrClosed) {
			t.Errorf("a publisher without members says %v", err)
		}
		if _, err := New(nil).Open(t.Context()); err == nil {
			t.Error("a group of nobody was opened")
		}
	})
}

func TestStalledMemberGivesBackWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{stalls: true}, &sink{}
		g, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		synctest.Wait()
		began := time.Now()
		if _, err := push(t.Context(), p, 0, 1000); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > patience+time.Second {
			t.Errorf("it took %s", took)
		}
		if got := len(b.took); got != 1000 {
			t.Errorf("b took %d", got)
		}
		if s := g.Status()[0]; s.Moved != firstHeld || s.InFlight != 0 {
			t.Errorf("a is %+v", s)
		}
		// When it is well again it is given some.
		a.mu.Lock()
		a.stalls = false
		a.took = nil
		a.mu.Unlock()
		time.Sleep(2 * minRest)
		if _, err := push(t.Context(), p, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if got := len(a.took); got == 0 {
			t.Error("a took nothing when it was well again")
		}
	})
}

func TestBusyMemberGetsNothingAndNobodyElseIsAskedInItsPlaceWhenAllAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{busy: true}, &sink{}
		_, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		synctest.Wait()
		if _, err := push(t.Context(), p, 0, 100); err != nil {
			t.Fatal(err)
		}
		if len(a.took) != 0 || len(b.took) != 100 {
			t.Errorf("a took %d, b %d", len(a.took), len(b.took))
		}
		b.mu.Lock()
		b.busy = true
		b.mu.Unlock()
		time.Sleep(2 * look)
		done := make(chan error, 1)
		go func() {
			_, err := push(t.Context(), p, 100, 10)
			done <- err
		}()
		time.Sleep(time.Minute)
		if len(a.took) != 0 || len(b.took) != 100 {
			t.Errorf("busy members took %d and %d", len(a.took), len(b.took))
		}
		a.mu.Lock()
		a.busy = false
		a.mu.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSlowMemberDoesNotHoldUpAQuickOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &sink{after: 20 * time.Millisecond}, &sink{after: 20 * time.Millisecond}
		_, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		if _, err := push(t.Context(), p, 0, 4000); err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		a.after = 3 * time.Second / 2 // within patience, and far behind the other
		a.mu.Unlock()
		began := time.Now()
		if _, err := push(t.Context(), p, 4000, 20000); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("20000 messages took %s", took)
		}
	})
}

func TestRefusedMessageIsReportedInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		third := func(i int) bool { return i%3 == 0 }
		a, b := &sink{refuses: third}, &sink{refuses: third}
		_, p := open(t, t.Context(), a.member("a"), b.member("b"))
		defer closeIt(t, p)
		refused, err := push(t.Context(), p, 0, 10)
		if err != nil || !slices.Equal(refused, []int{0, 3, 6, 9}) {
			t.Errorf("refused %v, %v", refused, err)
		}
	})
}

// Whatever happens to members: what is confirmed was taken by one of them, in number order at the publisher; and a member that
// gave nothing back shares no message with another.
func TestNothingConfirmedIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(rt, "members")
		type fault struct {
			At     int
			Dies   int
			Loses  bool
			Stalls bool
			After  int
			Closed bool
			Busy   bool
		}
		faults := make([][]fault, n)
		for i := range faults {
			faults[i] = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fault {
				return fault{
					rapid.IntRange(0, 5000).Draw(t, "at"), rapid.SampledFrom([]int{0, 0, 1, 2, 40}).Draw(t, "dies"), rapid.Bool().Draw(t, "loses"),
					rapid.IntRange(0, 3).Draw(t, "stalls") == 0, rapid.SampledFrom([]int{0, 1, 50, 700}).Draw(t, "after"),
					rapid.IntRange(0, 3).Draw(t, "closed") == 0, rapid.IntRange(0, 3).Draw(t, "busy") == 0,
				}
			}), 0, 4).Draw(rt, "faults")
		}
		var failure error
		synctest.Test(t, func(t *testing.T) {
			sinks := make([]*sink, n)
			var members []Member
			var wg sync.WaitGroup
			for i := range sinks {
				s := &sink{}
				sinks[i] = s
				members = append(members, s.member(strconv.Itoa(i)))
				slices.SortFunc(faults[i], func(a, b fault) int { return a.At - b.At })
				wg.Go(func() {
					began := time.Now()
					for _, f := range faults[i] {
						time.Sleep(time.Until(began.Add(time.Duration(f.At) * time.Millisecond)))
						s.mu.Lock()
						s.dies, s.loses, s.stalls, s.after, s.busy, s.closed = f.Dies, f.Loses, f.Stalls, time.Duration(f.After)*time.Millisecond, f.Busy, nil
						if f.Closed {
							s.closed = errors.New("away")
						}
						s.mu.Unlock()
					}
					time.Sleep(3 * time.Second)
					s.mu.Lock() // all is well in the end
					s.dies, s.stalls, s.after, s.busy, s.closed = 0, false, 0, false, nil
					s.mu.Unlock()
				})
			}
			g := New(nil, members...)
			const all = 2000
			confirmed := 0
			for confirmed < all && failure == nil { // as a feed does it
				p, err := g.Open(t.Context())
				if err != nil {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				sending, stop := context.WithCancel(t.Context())
				sent := make(chan struct{})
				go func(from int) {
					defer close(sent)
					for i := from; i < all; i++ {
						if p.Publish(sending, []transport.Message{{Body: []byte(strconv.Itoa(i))}}) != nil {
							return
						}
						if i%50 == 0 {
							time.Sleep(10 * time.Millisecond)
						}
					}
				}(confirmed)
				for next := uint64(1); confirmed < all; {
					waiting, done := context.WithTimeout(t.Context(), time.Hour)
					cs, err := p.Confirms(waiting)
					done()
					if errors.Is(err, context.DeadlineExceeded) {
						failure = fmt.Errorf("no confirm for an hour after %d: %+v", confirmed, g.Status())
					}
					if err != nil {
						break
					}
					for _, c := range cs {
						if c.First != next || c.Refused != nil {
							failure = fmt.Errorf("confirm %+v came where %d should have", c, next)
						}
						confirmed += int(c.Last - c.First + 1)
						next = c.Last + 1
					}
				}
				stop()
				<-sent
				if err := p.Close(context.Background()); err != nil && failure == nil {
					failure = err
				}
			}
			wg.Wait()
			taken := map[int]bool{}
			for _, s := range sinks {
				for _, i := range s.took {
					taken[i] = true
				}
			}
			if failure == nil && len(taken) != all {
				failure = fmt.Errorf("%d of %d confirmed messages were taken", len(taken), all)
			}
		})
		if failure != nil {
			rt.Fatal(failure)
		}
	})
}

// A group of one keeps the contract of a publisher.
func TestGroupOfOneKeepsTheContract(t *testing.T) {
	m := transporttest.NewMemory()
	target := m.Target()
	target.New = func(tb testing.TB) transport.Driver { return single{m.Driver()} }
	transporttest.Run(t, target)
}

type single struct{ transport.Driver }

func (s single) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	c, err := s.Driver.Connect(ctx, req)
	if err != nil {
		return nil, err
	}
	return singleConn{c, c.(transport.Topology)}, nil
}

type singleConn struct {
	transport.Conn
	transport.Topology
}

func (c singleConn) Publish(ctx context.Context, s transport.Sink) (transport.Publisher, error) {
	return New(nil, Member{ID: s.Name, Open: func(ctx context.Context) (transport.Publisher, error) { return c.Conn.Publish(ctx, s) }}).Open(ctx)
}
