package transporttest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func lossCases() []testCase {
	return []testCase{
		{name: "a lost connection ends with its reason and everything on it", needs: []string{"Cut"}, run: lostConnection},
		{name: "a silent broker is noticed within 5 seconds", needs: []string{"Blackhole"}, run: silentBroker},
		{name: "Close returns while the broker is silent", needs: []string{"Blackhole"}, run: closeWhileSilent},
		{name: "Connect returns with its context while the broker is silent", needs: []string{"Blackhole"}, run: connectWhileSilent},
		{name: "Describe and Validate need no broker", needs: []string{"Blackhole"}, run: describeWhileSilent},
		{name: "a restarted broker has what it has confirmed", needs: []string{"Restart"}, unless: unlessAny(withoutAcks, withoutConfirms, withoutDurable), run: restartedBroker},
		{name: "a message is lost by no number of lost connections", needs: []string{"Cut"}, unless: unlessAny(withoutAcks, withoutConfirms, withoutDurable), run: manyLosses},
	}
}

func lostConnection(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	pub := l.publisher(sink)
	pub.publishAll(message(1))
	s.inOrder(st.receive(1), 1, 1)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() { _, errs[0] = st.Receive(s.ctx) })
	wg.Go(func() { _, errs[1] = pub.Confirms(s.ctx) })
	s.target.Cut(s)
	reason := l.ended(noticed)
	if reason.Error() == "" || reason == transport.ErrClosed { //nolint:errorlint // the bare error has no reason in it
		s.Errorf("the connection was lost for the reason %q; want one that says more", reason)
	}
	wg.Wait()
	for i, name := range []string{"Receive", "Confirms"} {
		if !errors.Is(errs[i], transport.ErrClosed) {
			s.Errorf("%s on a lost connection: %v; want an error that is ErrClosed", name, errs[i])
		}
	}
	if _, err := l.Subscribe(s.ctx, src); !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Subscribe on a lost connection: %v; want an error that is ErrClosed", err)
	}
	if _, err := l.Publish(s.ctx, sink); !errors.Is(err, transport.ErrClosed) {
		s.Errorf("Publish on a lost connection: %v; want an error that is ErrClosed", err)
	}
	l.close()

	// The driver goes on.
	l = s.connectAs(l.name)
	st = l.subscribe(src)
	st.grant(10, 1<<20)
	l.publisher(sink).publishAll(message(2))
	for {
		ds := st.receive(1)
		st.settle(transport.Ack, ds)
		if s.numbers(ds)[0] == 2 {
			return
		}
	}
}

func silentBroker(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	l.publisher(sink).publishAll(message(1))
	s.inOrder(st.receive(1), 1, 1)
	restore := s.target.Blackhole(s)
	defer restore()
	start := time.Now()
	var receive error
	done := s.apart(func() { _, receive = st.Receive(s.ctx) })
	_ = l.ended(noticed)
	if took := time.Since(start); took > noticed {
		s.Errorf("it took %v to notice that nothing comes from the broker; want at most 5 s", took)
	}
	done()
	if !errors.Is(receive, transport.ErrClosed) {
		s.Errorf("Receive that waited: %v; want an error that is ErrClosed", receive)
	}
}

func closeWhileSilent(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(10, 1<<20)
	pub := l.publisher(sink)
	restore := s.target.Blackhole(s)
	defer restore()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	_ = pub.Publish(ctx, messages(1, 5))
	start := time.Now()
	for _, end := range []func(context.Context) error{st.Close, pub.Close, l.Close} {
		// With an error or without: nobody can say what a silent broker has heard.
		_ = end(ctx)
	}
	if took := time.Since(start); took > 4*time.Second {
		s.Errorf("closing took %v with a context of 1 s", took)
	}
}

func connectWhileSilent(s *scene) {
	restore := s.target.Blackhole(s)
	defer restore()
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	start := time.Now()
	conn, err := s.driver.Connect(ctx, transport.ConnectRequest{Name: s.name("conn"), Config: s.target.Config(s)})
	if err == nil {
		_ = conn.Close(s.ctx)
		s.Fatal("Connect has opened a connection to a broker that does not answer")
	}
	if transport.IsPermanent(err) {
		s.Errorf("a broker that does not answer is a Permanent error: %v", err)
	}
	if took := time.Since(start); took > 4*time.Second {
		s.Errorf("Connect took %v with a context of 1 s", took)
	}
}

func describeWhileSilent(s *scene) {
	src, sink := s.pair(plenty)
	cfg := s.target.Config(s)
	restore := s.target.Blackhole(s)
	defer restore()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	if _, err := s.driver.Describe(ctx); err != nil {
		s.Errorf("describe: %v", err)
	}
	req := transport.ValidateRequest{Config: cfg, Sources: []transport.Source{src}, Sinks: []transport.Sink{sink}}
	if _, err := s.driver.Validate(ctx, req); err != nil {
		s.Errorf("validate: %v", err)
	}
}

func restartedBroker(s *scene) {
	src, sink := s.pair(plenty)
	l := s.connect()
	st := l.subscribe(src)
	st.grant(5, 1<<20)
	l.publisher(sink).publishAll(messages(1, 20)...)
	ds := st.receive(5)
	s.inOrder(ds, 1, 5)
	s.target.Restart(s)
	_ = l.ended(noticed)
	l.close()
	l = s.connectAs(l.name)
	st = l.subscribe(src)
	st.grant(100, 1<<20)
	ds = st.receive(20)
	s.inOrder(ds, 1, 20)
	st.settle(transport.Ack, ds)
}

// manyLosses carries messages through one connection after another, as the gateway does: publishing goes on with the first
// that is not confirmed, and only what was received is acknowledged.
func manyLosses(s *scene) {
	const n, losses = 400, 4
	src, sink := s.pair(transport.Credit{Messages: 50, Bytes: 1 << 20})
	in := s.connect()
	in.subscribe(src).close()
	out := s.connect()

	got := map[int]bool{}
	confirmed := 0
	for loss := 0; ; loss++ {
		ctx, cancel := context.WithCancel(s.ctx)
		pub := out.publisher(sink)
		st := in.subscribe(src)
		st.grant(50, 1<<20)
		first, base := confirmed+1, confirmed
		publish := s.apart(func() {
			for next := first; next <= n; next += 10 {
				if pub.Publish(ctx, messages(next, min(next+9, n))) != nil {
					return
				}
			}
		})
		pub.sent = uint64(n - base)
		confirm := s.apart(func() {
			for base+int(pub.confirmed) < n {
				cs, err := pub.Confirms(ctx)
				if err != nil {
					return
				}
				pub.check(cs)
			}
		})
		// Each life carries its share, the last one the rest.
		last := loss == losses
		for share := len(got) + n/(losses+1); len(got) < n && (last || len(got) < share); {
			ds, err := st.Receive(s.ctx)
			if err != nil {
				s.Fatalf("receive: %v, with %d of %d messages and %d confirmed", err, len(got), n, base+int(pub.confirmed))
			}
			st.check(ds)
			for _, i := range s.numbers(ds) {
				got[i] = true
			}
			st.settle(transport.Ack, ds)
			st.granted.Messages += int64(len(ds))
			if err := st.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: int64(4 * len(ds))}); err != nil {
				s.Fatalf("grant: %v", err)
			}
		}
		if last {
			confirm()
			cancel()
			publish()
			break
		}
		s.target.Cut(s)
		_ = in.ended(noticed)
		_ = out.ended(noticed)
		cancel()
		publish()
		confirm()
		confirmed = base + int(pub.confirmed)
		in.close()
		out.close()
		in, out = s.connectAs(in.name), s.connectAs(out.name)
	}
	for i := 1; i <= n; i++ {
		if !got[i] {
			s.Errorf("message %d is lost", i)
		}
	}
}
