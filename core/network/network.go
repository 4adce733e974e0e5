// Package network runs graphs: it makes what runs equal to what is wanted, and says how every edge is doing.
//
// What is wanted is handed over as a whole with Apply; the difference is applied, and nothing else is touched: a feed that
// stays goes on carrying while its neighbours come and go, and an edge that is added to a source joins the feed that is
// there. What does not work stays local: an edge has a state and a reason in words, and everything else runs.
//
// Feeds find their brokers by name at the moment in which they need them. So a broker may be replaced under running feeds:
// they notice a lost connection, like any other.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/roundrobin"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// Wanted is what shall run.
type Wanted struct {
	Brokers []Broker
	Plan    route.Plan
}

// Broker is a broker that shall be connected.
type Broker struct {
	// ID is how the plan refers to it.
	ID string
	// Version changes when the broker has to be connected anew: another configuration.
	Version string
	Request transport.ConnectRequest
	Driver  func(ctx context.Context) (transport.Driver, error)
	// Trouble says what is wrong with what serves the driver, such as a process that has ended; empty if nothing is. It explains
	// more than the loss of the connection that came of it. It must not block, and may be nil.
	Trouble func() string
}

// Config is what a Network needs.
type Config struct {
	// Drain is how long what is in flight may take when a feed ends.
	Drain time.Duration
	Log   *slog.Logger
	// Bindings is the file in which it is noted what was bound on brokers, so that it can be taken back after a restart. Empty
	// for none: then what is not wanted any more is taken back only as long as Run runs.
	Bindings string
	// Initials is the file in which it is noted which initial packets were sent, so that a restart sends none again to who goes
	// on living. Empty for none.
	Initials string
	// Changed is called when the state of an edge or of a broker has changed, from Run's goroutine. It must not block.
	Changed func()
}

// Network runs what is wanted. Its methods may be called concurrently.
type Network struct {
	cfg Config

	mu      sync.Mutex
	wanted  Wanted
	brokers map[string]*brokerRun
	feeds   map[string]*feedRun
	iips    map[string]*initialRun // by the lives in which they are sent
	wrongs  *rate.Limiter          // of edges that look wrong, for the log
	noted   []initialNote          // what the file of initial packets says; Run's own
	unnoted bool                   // it could not be written; Run's own
	states  map[string]*edgeState
	moved   chan struct{} // closed and replaced when brokers changes
	natives map[string]*nativeRun
	binders map[string]*binder // by broker
	ledger  ledger
	applied bool // Apply was called
	fresh   bool // and nobody has looked since
	// kept holds the connections on which dead letters at places that keep nothing have been asked to be kept.
	kept map[string]transport.Conn

	wake chan struct{} // has an element when Run should look again
}

type brokerRun struct {
	spec   Broker
	ending bool // it has been told to end; whoever wants it again waits for another
	broker *broker.Broker
	stop   context.CancelFunc
	done   chan struct{}
}

type feedRun struct {
	spec route.Feed
	id   string // of all that cannot be changed while the feed runs

	ending bool // it has been told to end; whoever wants it again waits for another
	feed   *bridge.Feed
	groups map[string]*roundrobin.Group // of targets that are shared, by their versions
	calm   calm                         // while the broker takes over
	stop   context.CancelCauseFunc
	done   chan struct{}
}

// New returns a network that wants nothing yet.
func New(cfg Config) *Network {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	return &Network{
		cfg:     cfg,
		brokers: make(map[string]*brokerRun),
		feeds:   make(map[string]*feedRun),
		iips:    make(map[string]*initialRun),
		states:  make(map[string]*edgeState),
		// A graph that starts may have many; definitions that change all the time do not fill the log.
		wrongs:  rate.NewLimiter(rate.Every(time.Second), 500),
		moved:   make(chan struct{}),
		natives: make(map[string]*nativeRun),
		binders: make(map[string]*binder),
		ledger:  ledger{made: make(map[binding]*madeBinding)},
		kept:    make(map[string]transport.Conn),
		wake:    make(chan struct{}, 1),
	}
}

// Apply says what shall run from now on. It does not block: Run does the work.
func (n *Network) Apply(w Wanted) {
	n.mu.Lock()
	n.wanted = w
	n.applied, n.fresh = true, true
	n.mu.Unlock()
	n.poke()
}

// Run runs what is wanted until ctx ends. Then the feeds take no more and settle what is in flight, within the drain time,
// the brokers are disconnected, and Run returns nil. It is called once.
func (n *Network) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Brokers outlive ctx, so that feeds can settle on them.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	n.load()
	n.loadInitials()
	tick := time.NewTicker(time.Second) // for rates, and for what is noticed by nothing happening
	defer tick.Stop()
	for ctx.Err() == nil {
		n.reconcile(work, &wg)
		n.noteInitials()
		n.observe()
		select {
		case <-n.wake:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	n.shutdown()
	n.noteInitials()
	return nil
}

// shutdown ends all feeds and waits for them. The brokers end with Run's own context.
func (n *Network) shutdown() {
	n.mu.Lock()
	var feeds []*feedRun
	for _, f := range n.feeds {
		if !f.ending {
			f.end(nil)
		}
		feeds = append(feeds, f)
	}
	for _, i := range n.iips {
		i.end()
	}
	for _, b := range n.binders {
		b.stop() // what is bound stays
	}
	n.mu.Unlock()
	n.observe()
	for _, f := range feeds {
		<-f.done
	}
}

// reconcile starts what is missing and stops what is not wanted. It never waits: what has to end before something else can
// start wakes Run when it has.
func (n *Network) reconcile(ctx context.Context, wg *sync.WaitGroup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reconcileFeeds(ctx, wg)
	n.reconcileNatives(ctx, wg)
	n.reconcileBrokers(ctx, wg)
	n.reconcileInitials(ctx, wg)
}

func (n *Network) reconcileBrokers(ctx context.Context, wg *sync.WaitGroup) {
	wanted := make(map[string]Broker, len(n.wanted.Brokers))
	for _, b := range n.wanted.Brokers {
		wanted[b.ID] = b
	}
	for id, run := range n.brokers {
		w, ok := wanted[id]
		if !run.ending && (ok && w.Version == run.spec.Version || !ok && n.inUse(id)) {
			continue // a feed that ends needs its brokers until it has settled
		}
		run.ending = true
		run.stop()
		select {
		case <-run.done:
			delete(n.brokers, id)
		default: // it will wake us; until then its successor waits, because both would use the same client ids
		}
	}
	for id, w := range wanted {
		if n.brokers[id] != nil {
			continue
		}
		b := broker.New(broker.Config{Name: id, Request: w.Request, Driver: w.Driver, Log: n.cfg.Log, Changed: n.poke})
		bctx, stop := context.WithCancel(ctx)
		run := &brokerRun{spec: w, broker: b, stop: stop, done: make(chan struct{})}
		n.brokers[id] = run
		close(n.moved)
		n.moved = make(chan struct{})
		wg.Go(func() {
			defer n.poke()
			defer close(run.done)
			_ = b.Run(bctx) // ends without error, when it is told to
		})
	}
}

func (n *Network) reconcileFeeds(ctx context.Context, wg *sync.WaitGroup) {
	wanted := make(map[string]route.Feed, len(n.wanted.Plan.Feeds))
	for _, f := range n.wanted.Plan.Feeds {
		wanted[f.Key] = f
	}
	for _, run := range n.feeds {
		n.holdOn(run, wanted)
	}
	for key, run := range n.feeds {
		w, ok := wanted[key]
		switch {
		case run.ending:
		case !ok && n.missed(run.spec):
			run.end(nil) // what the broker keeps for it is kept for when it can run again
		case !ok:
			run.end(bridge.ErrRemoved)
		case feedID(w) != run.id:
			run.end(nil) // its successor goes on with what the broker keeps
		default:
			if !sameTargets(run.spec.Targets, w.Targets) {
				run.feed.Update(n.targets(w, run.groups))
			}
			run.spec = w
			continue
		}
		select {
		case <-run.done:
			delete(n.feeds, key)
		default:
		}
	}
	for key, w := range wanted {
		if n.feeds[key] == nil {
			n.feeds[key] = n.start(ctx, wg, w)
		}
	}
}

// holdOn adds to what is wanted the targets of a feed that the broker itself is about to take over, and has not yet.
func (n *Network) holdOn(run *feedRun, wanted map[string]route.Feed) {
	if run.ending {
		return
	}
	w, ok := wanted[run.spec.Key]
	if ok && feedID(w) != run.id {
		return // it begins anew, and it cannot have been both
	}
	var held []route.Target
	for _, t := range run.spec.Targets {
		if !slices.ContainsFunc(w.Targets, func(o route.Target) bool { return o.ID == t.ID }) && n.handsOver(run, t) {
			held = append(held, t)
		}
	}
	if len(held) == 0 {
		return
	}
	if !ok {
		w = run.spec
		w.Targets = nil
	}
	w.Targets = slices.Concat(w.Targets, held)
	wanted[w.Key] = w
}

// end tells a feed to end, because of cause.
func (r *feedRun) end(cause error) {
	r.ending = true
	r.stop(cause)
}

// inUse says whether a feed, be it one that ends, uses a broker.
func (n *Network) inUse(id string) bool {
	for _, run := range n.feeds {
		select {
		case <-run.done:
			continue
		default:
		}
		if run.spec.Broker == id {
			return true
		}
		for _, t := range run.spec.Targets {
			if t.Broker == id || t.DeadLetter.Broker == id || slices.ContainsFunc(t.Members, func(m route.Member) bool { return m.Broker == id }) {
				return true
			}
		}
	}
	return n.unbinding(id)
}

// missed says whether a feed that is not wanted is only missing something: an edge from its source is still in a graph, and
// cannot run. A name that was misspelt for a minute must not cost what the broker has kept for weeks.
func (n *Network) missed(f route.Feed) bool {
	for _, e := range n.wanted.Plan.Edges {
		if (e.Pending != "" || e.Refused != "") && slices.Contains(f.Ports, e.From.String()) {
			return true
		}
	}
	return false
}

func (n *Network) start(ctx context.Context, wg *sync.WaitGroup, w route.Feed) *feedRun {
	src := w.Source
	window := bridge.DefaultWindow()
	if src.Window.Messages > 0 {
		window.Messages = src.Window.Messages
	}
	if src.Window.Bytes > 0 {
		window.Bytes = src.Window.Bytes
	}
	src.Window = window
	groups := make(map[string]*roundrobin.Group)
	feed := bridge.New(bridge.Config{
		Name: w.Key,
		Open: func(ctx context.Context) (transport.Subscription, error) {
			conn, err := n.Conn(ctx, w.Broker)
			if err != nil {
				return nil, err
			}
			return conn.Subscribe(ctx, src)
		},
		Acks:    w.Acks,
		Window:  window,
		Drain:   n.cfg.Drain,
		Log:     n.cfg.Log,
		Changed: n.poke,
	}, n.targets(w, groups))
	fctx, stop := context.WithCancelCause(ctx)
	run := &feedRun{spec: w, id: feedID(w), feed: feed, groups: groups, stop: stop, done: make(chan struct{})}
	wg.Go(func() {
		defer n.poke()
		defer close(run.done)
		_ = feed.Run(fctx) // ends without error, when it is told to
	})
	return run
}

// targets returns the targets of a feed. groups are those of the feed that are there, and become those that are wanted.
func (n *Network) targets(w route.Feed, groups map[string]*roundrobin.Group) []bridge.Target {
	var targets []bridge.Target
	used := make(map[string]bool)
	for _, t := range w.Targets {
		bt := bridge.Target{ID: t.ID, Version: targetVersion(t), Place: sinkPlace(t), Open: n.opener(t.Broker, t.Sink)}
		if len(t.Members) > 0 {
			used[bt.Version] = true
			if groups[bt.Version] == nil {
				groups[bt.Version] = n.group(t)
			}
			bt.Open = groups[bt.Version].Open
			t.Sink.Name = w.Key + " -> " + t.ID // for the dead letter's
		}
		if why := t.DeadLetterPending; why != "" {
			bt.OpenDeadLetter = func(context.Context) (transport.Publisher, error) { return nil, errors.New(why) }
		}
		if t.DeadLetter != (route.Place{}) {
			// Its name has the edge in it: dead letters of different edges are different messages.
			bt.OpenDeadLetter = n.letterBox(t, transport.Sink{
				Name:    "dead " + t.Sink.Name,
				Address: t.DeadLetter.Address,
				Options: t.DeadLetterOptions,
			})
			bt.Origin, bt.Headerless = w.Broker, t.DeadLetterTraits.Headerless
		}
		targets = append(targets, bt)
	}
	maps.DeleteFunc(groups, func(version string, _ *roundrobin.Group) bool { return !used[version] })
	return targets
}

// group returns the sinks that share a target.
func (n *Network) group(t route.Target) *roundrobin.Group {
	var members []roundrobin.Member
	for _, m := range t.Members {
		members = append(members, roundrobin.Member{
			ID: m.ID, Open: n.opener(m.Broker, m.Sink),
			Ready: func() bool {
				n.mu.Lock()
				run := n.brokers[m.Broker]
				n.mu.Unlock()
				return run == nil || run.broker.State().Phase != broker.Blocked
			},
		})
	}
	return roundrobin.New(n.cfg.Log, members...)
}

func (n *Network) opener(id string, sink transport.Sink) func(ctx context.Context) (transport.Publisher, error) {
	return func(ctx context.Context) (transport.Publisher, error) {
		conn, err := n.Conn(ctx, id)
		if err != nil {
			return nil, err
		}
		return conn.Publish(ctx, sink)
	}
}

// Conn returns the connection to a broker. It blocks until the broker is wanted and connected; ctx ends the wait. It is nobody's
// to close.
func (n *Network) Conn(ctx context.Context, id string) (transport.Conn, error) {
	for {
		n.mu.Lock()
		run, moved := n.brokers[id], n.moved
		n.mu.Unlock()
		if run != nil {
			conn, err := run.broker.Conn(ctx)
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
		}
		// It is not there, or has been told to end: its successor will come, or this feed will end too.
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (n *Network) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// feedID is the same for two feeds if one can be made the other while it runs.
func feedID(f route.Feed) string {
	f.Targets, f.Ports = nil, nil
	return digest(f)
}

func targetVersion(t route.Target) string { return digest(t) }

// sinkPlace is equal for targets that carry to the same place in the same way.
func sinkPlace(t route.Target) string {
	if len(t.Members) > 0 {
		return "shared " + digest(t.Members)
	}
	return t.Broker + " " + t.Sink.Address + " " + string(t.Sink.Options)
}

func sameTargets(a, b []route.Target) bool { return digest(a) == digest(b) }

// digest is equal for equal values. The values are plans: plain data without secrets.
func digest(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%#v", v)
	}
	return string(b)
}
