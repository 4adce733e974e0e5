package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// DefaultPackets is how many packets a second clients are shown, all together. It is what a small machine writes to sockets
// without anybody noticing; a client alone is never shown more than a tenth of it.
const DefaultPackets = 10_000

// ErrEnded is what links and [Coordinator.Dial] return when the coordinator does not run.
var ErrEnded = errors.New("the gateway is closing")

// Config is what a coordinator needs.
type Config struct {
	// Runtime is what clients are told: ID, Type, Label, Namespace, Repository. The rest of it is filled in.
	Runtime    fbp.Runtime
	Graphs     Graphs
	Networks   Networks
	Components Components
	// Without are capabilities that nobody can have here, because there is nothing behind them.
	Without fbp.Capabilities
	// Packets is how many packets a second are shown to all clients together: zero is DefaultPackets.
	Packets int
	Log     *slog.Logger
}

// Coordinator is the runtime. Its methods may be called concurrently.
type Coordinator struct {
	cfg   Config
	ready chan struct{} // closed when Run has begun
	ended chan struct{} // closed when it has come to its end
	taps  sync.WaitGroup

	shown, unshown atomic.Uint64

	// mu is the order of all that clients are told: whatever is put into links is put there under it.
	mu     sync.Mutex
	closed bool
	links  map[*link]struct{}
	graphs map[string]*record
	// creating are graphs that somebody creates just now.
	creating map[string]*creation
}

// record is what the coordinator knows of a graph.
type record struct {
	id      string
	told    uint64 // the revision that clients have been told of
	created bool   // by a client: its Opened says nothing new
	asked   []asked
	then    []then
	started bool // what clients have been told last
	debug   bool
	// source is the answer that shows the graph at the revision sourceOf; nil if nobody has asked for it.
	source   *forwarding.Message
	sourceOf uint64
	tap      Tap
	untapped chan struct{} // closed with tap
	viewers  atomic.Int64  // links that may be shown its packets
	tracing  atomic.Bool
	trace    *trace
}

// asked is a change that somebody waits for.
type asked struct {
	revision uint64
	effects  []graph.Change
	by       *link
	request  fbp.Input
	done     chan struct{}
}

// then is something to do as soon as a revision has been told.
type then struct {
	revision uint64
	do       func()
}

// New returns a coordinator.
func New(cfg Config) *Coordinator {
	cfg.Packets = cmp.Or(cfg.Packets, DefaultPackets)
	return &Coordinator{
		cfg: cfg, ready: make(chan struct{}), ended: make(chan struct{}),
		links: map[*link]struct{}{}, graphs: map[string]*record{}, creating: map[string]*creation{},
	}
}

// Run tells clients what happens to graphs until ctx ends; then their links end, and it returns nil. It returns an error if
// the subscription to the graphs ends before. It is called once.
func (c *Coordinator) Run(ctx context.Context) error {
	events := c.cfg.Graphs.Subscribe()
	defer events.Close()
	c.mu.Lock()
	for _, g := range c.cfg.Graphs.Graphs() {
		c.know(g.ID, g.Revision)
	}
	c.mu.Unlock()
	close(c.ready)
	var err error
	for err == nil {
		var e Event
		if e, err = events.Next(ctx); err == nil {
			c.follow(e)
		}
	}
	c.end()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow the graphs: %w", err)
}

func (c *Coordinator) end() {
	close(c.ended)
	c.mu.Lock()
	c.closed = true
	for l := range c.links {
		l.end(ErrEnded)
	}
	clear(c.links)
	c.retap()
	c.mu.Unlock()
	c.taps.Wait()
}

// Dial implements [forwarding.Runtime]. It blocks until Run has begun.
func (c *Coordinator) Dial(ctx context.Context, access forwarding.Access) (forwarding.Link, error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := newLink(c, access)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrEnded
	}
	c.links[l] = struct{}{}
	c.retap()
	return l, nil
}

func (c *Coordinator) leave(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.links, l)
	c.retap()
}

// Stats says how much there is to do.
type Stats struct {
	Clients int
	// Shown are the packets that were shown to clients, each counted once; Unshown are those that were over the budget.
	Shown, Unshown uint64
}

// Stats returns how much there is to do. It does not block for long.
func (c *Coordinator) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{Clients: len(c.links), Shown: c.shown.Load(), Unshown: c.unshown.Load()}
}

// know makes a record of a graph that clients have been told of up to a revision.
func (c *Coordinator) know(id string, told uint64) *record {
	r := &record{id: id, told: told, started: c.cfg.Networks.Status(id).Started}
	c.graphs[id] = r
	return r
}

// find returns the graph that a client means.
func (c *Coordinator) find(id string, access forwarding.Access) (*record, error) {
	r, ok := c.graphs[id]
	if !ok {
		r, ok = c.graphs[c.otherName(id)]
	}
	switch {
	case id == "":
		return nil, fbp.Error{Message: fbp.NoGraph}
	case ok && access.Sees(r.id):
		return r, nil
	case !access.Sees(id):
		return nil, errHidden
	}
	return nil, fbp.Error{Message: fbp.GraphNotFound}
}

// errHidden is of graphs that the client must not see, whether they are there or not.
var errHidden = errors.New("hidden")

// otherName returns the id without the namespace, or with it.
func (c *Coordinator) otherName(id string) string {
	prefix := c.cfg.Runtime.Namespace + "/"
	if rest, ok := strings.CutPrefix(id, prefix); ok {
		return rest
	}
	return prefix + id
}

// follow tells clients of an event.
func (c *Coordinator) follow(e Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.creating[e.Graph]; ok && e.Kind != Missed {
		now.events = append(now.events, e)
		return
	}
	c.happened(e)
}

func (c *Coordinator) happened(e Event) {
	r, known := c.graphs[e.Graph]
	switch e.Kind {
	case Changed:
		if known {
			c.changed(r, e.Revision, e.Effects)
		}
	case Opened:
		switch {
		case known && r.created:
			r.created = false
		default:
			c.reopen(e.Graph)
		}
	case Removed:
		if known {
			c.forget(r)
		}
	case Missed:
		c.catchUp()
	}
}

// changed tells of one revision.
func (c *Coordinator) changed(r *record, revision uint64, effects []graph.Change) {
	if revision > r.told+1 {
		c.cfg.Log.Error("a revision of a graph went unnoticed", "graph", r.id)
		c.reopen(r.id)
		return
	}
	if revision <= r.told {
		return
	}
	r.told = revision
	if r.source != nil && r.sourceOf < revision {
		r.source = nil
	}
	var by *asked
	if i := slices.IndexFunc(r.asked, func(a asked) bool { return a.revision == revision }); i >= 0 {
		by = &r.asked[i]
		defer func() { r.asked = slices.Delete(r.asked, i, i+1) }()
	}
	messages := c.effects(r.id, effects)
	for l := range c.links {
		if by == nil || by.by != l {
			l.put(messages...)
		}
	}
	if by != nil {
		by.answer(messages)
	}
	if touchesPorts(effects) {
		c.tellPorts(r)
	}
	c.caughtUp(r)
}

// caughtUp does what had to wait for a revision.
func (c *Coordinator) caughtUp(r *record) {
	var left []then
	for _, t := range r.then {
		if t.revision <= r.told {
			t.do()
		} else {
			left = append(left, t)
		}
	}
	r.then = left
}

// reopen tells of a graph as it is now.
func (c *Coordinator) reopen(id string) {
	now, err := c.cfg.Graphs.Graph(id)
	if err != nil {
		return // it has gone in the meantime, and an event will say so
	}
	r, known := c.graphs[id]
	if known && r.told >= now.Revision {
		return
	}
	if !known {
		r = c.know(id, now.Revision)
	}
	r.told = now.Revision
	c.tellAll(c.effects(r.id, whole(now))...)
	c.tellPorts(r)
	waiting := r.asked
	r.asked = nil
	for _, a := range waiting {
		if a.revision <= r.told {
			a.answer(c.effects(r.id, a.effects))
		} else {
			r.asked = append(r.asked, a)
		}
	}
	c.caughtUp(r)
	c.retap()
}

// whole returns the changes that make a graph from nothing.
func whole(g Graph) []graph.Change {
	text := func(key string) string {
		s, _ := g.Graph.Properties[key].(string)
		return s
	}
	cleared := graph.Clear{
		Name: g.Graph.Name, Main: g.Main, Library: text("library"), Icon: text("icon"), Description: text("description"),
	}
	empty := graph.New("")
	empty.CaseSensitive = g.Graph.CaseSensitive
	return append([]graph.Change{cleared}, graph.Diff(empty, g.Graph)...)
}

// catchUp tells of all that has happened while events were lost.
func (c *Coordinator) catchUp() {
	there := map[string]bool{}
	for _, g := range c.cfg.Graphs.Graphs() {
		there[g.ID] = true
		c.reopen(g.ID)
	}
	for id, r := range c.graphs {
		if !there[id] {
			c.forget(r)
		}
	}
}

// forget ends what there is of a graph that is gone.
func (c *Coordinator) forget(r *record) {
	delete(c.graphs, r.id)
	if r.started {
		_ = c.tellStopped(r, Status{}, nil) // it can always be said
	}
	for _, a := range r.asked {
		a.answer(c.effects(r.id, a.effects))
	}
	for _, t := range r.then {
		t.do()
	}
	r.asked, r.then = nil, nil
	c.close(r)
}

// answer gives the effects to whoever has asked for them.
func (a *asked) answer(messages []forwarding.Message) {
	if len(messages) == 0 {
		a.by.fail(a.request, errUntold)
	}
	for i, m := range messages {
		m.Answers, m.Last = true, i == len(messages)-1
		a.by.put(m)
	}
	close(a.done)
}

// errUntold is for a change that was made and that no message can say.
var errUntold = errors.New("the change is made, but cannot be told: read the graph again")

// tellAll tells all clients. What must not be seen or received by one, its session keeps from it.
func (c *Coordinator) tellAll(messages ...forwarding.Message) {
	for l := range c.links {
		l.put(messages...)
	}
}

// tell tells all clients of a graph, and answers one of them with the same, if by is not nil.
func (c *Coordinator) tell(id string, p fbp.Payload, by *link) error {
	m, err := forwarding.NewMessage(p)
	if err != nil {
		return err
	}
	m.Graph = id
	for l := range c.links {
		if l != by {
			l.put(m)
		}
	}
	if by != nil {
		by.answer(m)
	}
	return nil
}

// logged is for messages that nobody waits for.
func (c *Coordinator) logged(err error) {
	if err != nil {
		c.cfg.Log.Error("a message to clients cannot be written", "err", err)
	}
}
