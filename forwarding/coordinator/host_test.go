package coordinator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
)

var errDone = errors.New("closed")

// queue hands on in order. Without a bound nothing is lost; with one, what comes when it is full is.
type queue[T any] struct {
	mu     sync.Mutex
	items  []T
	bound  int
	lost   int
	closed bool
	news   chan struct{}
}

func newQueue[T any](bound int) *queue[T] {
	return &queue[T]{bound: bound, news: make(chan struct{}, 1)}
}

func (q *queue[T]) put(item T) {
	q.mu.Lock()
	switch {
	case q.closed:
	case q.bound > 0 && len(q.items) >= q.bound:
		q.lost++
	default:
		q.items = append(q.items, item)
	}
	q.mu.Unlock()
	q.wake()
}

func (q *queue[T]) wake() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

func (q *queue[T]) Next(ctx context.Context) (item T, err error) {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return item, errDone
		}
		if len(q.items) > 0 {
			item, q.items = q.items[0], q.items[1:]
			q.mu.Unlock()
			return item, nil
		}
		q.mu.Unlock()
		select {
		case <-q.news:
		case <-ctx.Done():
			return item, ctx.Err()
		}
	}
}

func (q *queue[T]) Close() {
	q.mu.Lock()
	q.closed, q.items = true, nil
	q.mu.Unlock()
	q.wake()
}

// host keeps graphs in memory and runs them: core/Repeat sends on what it gets, everything else drops it.
type host struct {
	mu            sync.Mutex
	main          string
	graphs        map[string]*memory
	components    []fbp.Component
	sources       map[string]fbp.Source
	subscriptions []*queue[coordinator.Event]
	taps          map[string][]*queue[coordinator.Packet]
	persisted     int
	persistErr    error
	who           []string
	sent          []string
	held          bool // events stay where they are
	holding       []coordinator.Event
	disk          sync.Mutex // what Create waits for, and
	done          sync.Mutex // what it waits for when all is done
}

type memory struct {
	graph    *graph.Graph
	revision uint64
	main     bool
	started  time.Time
}

func newHost() *host {
	ports := func(names ...string) (all []fbp.Port) {
		for _, name := range names {
			all = append(all, fbp.Port{ID: name, Type: "string", Description: "what it " + name + "s"})
		}
		return all
	}
	return &host{
		graphs: map[string]*memory{}, sources: map[string]fbp.Source{}, taps: map[string][]*queue[coordinator.Packet]{},
		components: []fbp.Component{
			{Name: "core/Drop", InPorts: ports("in")},
			{Name: "core/Repeat", Description: "repeats: \"it\"", Icon: "forward", InPorts: ports("in"), OutPorts: ports("out")},
		},
	}
}

func (h *host) Main() string { return h.main }

func (h *host) snapshot(id string, m *memory) coordinator.Graph {
	return coordinator.Graph{ID: id, Graph: m.graph, Revision: m.revision, Main: m.main}
}

func (h *host) Graphs() (all []coordinator.Graph) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, m := range h.graphs {
		all = append(all, h.snapshot(id, m))
	}
	slices.SortFunc(all, func(a, b coordinator.Graph) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func (h *host) Graph(id string) (coordinator.Graph, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		return coordinator.Graph{}, fmt.Errorf("%q: %w", id, coordinator.ErrNoGraph)
	}
	return h.snapshot(id, m), nil
}

func (h *host) Change(id, who string, changes ...graph.Change) (coordinator.Result, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		return coordinator.Result{}, fmt.Errorf("%q: %w", id, coordinator.ErrNoGraph)
	}
	return h.change(id, who, m, changes)
}

func (h *host) change(id, who string, m *memory, changes []graph.Change) (result coordinator.Result, err error) {
	now := m.graph.Clone()
	for _, c := range changes {
		effects, _, err := graph.Apply(now, c)
		if err != nil {
			return result, err
		}
		result.Effects = append(result.Effects, effects...)
	}
	m.graph = now
	m.revision++
	result.Revision = m.revision
	h.who = append(h.who, who)
	h.publish(coordinator.Event{Kind: coordinator.Changed, Graph: id, Revision: m.revision, Effects: result.Effects})
	return result, nil
}

func (h *host) Create(id, who string, c graph.Clear) (coordinator.Result, error) {
	h.disk.Lock()
	defer h.disk.Unlock()
	defer func() {
		h.done.Lock()
		defer h.done.Unlock()
	}()
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		m = &memory{graph: graph.New(""), main: c.Main}
		h.graphs[id] = m
		h.publish(coordinator.Event{Kind: coordinator.Opened, Graph: id})
	}
	return h.change(id, who, m, []graph.Change{c})
}

// open opens a graph as a site that is loaded does.
func (h *host) open(id string, g *graph.Graph, isMain bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.graphs[id] = &memory{graph: g, main: isMain, revision: 7}
	h.publish(coordinator.Event{Kind: coordinator.Opened, Graph: id, Revision: 7})
}

func (h *host) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.graphs, id)
	h.publish(coordinator.Event{Kind: coordinator.Removed, Graph: id})
}

func (h *host) publish(e coordinator.Event) {
	if h.held {
		h.holding = append(h.holding, e)
		return
	}
	for _, s := range h.subscriptions {
		s.put(e)
	}
}

// hold keeps events back until release is called, or loses them.
func (h *host) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
}

func (h *host) release(lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
	if lost {
		h.holding = []coordinator.Event{{Kind: coordinator.Missed}}
	}
	for _, e := range h.holding {
		h.publish(e)
	}
	h.holding = nil
}

func (h *host) Subscribe() coordinator.Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := newQueue[coordinator.Event](0)
	h.subscriptions = append(h.subscriptions, s)
	return s
}

func (h *host) Persist(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.persisted++
	return h.persistErr
}

func (h *host) Start(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		return coordinator.ErrNoGraph
	}
	if !m.started.IsZero() {
		return nil
	}
	m.started = time.Now().Add(-time.Second)
	for _, i := range m.graph.Initials {
		h.pass(id, m.graph, coordinator.Packet{Tgt: i.Tgt, Body: i.Data})
	}
	return nil
}

// pass lets a packet pass, and all that comes of it.
func (h *host) pass(id string, g *graph.Graph, p coordinator.Packet) {
	for _, t := range h.taps[id] {
		t.put(p)
	}
	if n, _ := g.Node(p.Tgt.Node); n.Component != "core/Repeat" {
		return
	}
	for _, e := range g.Edges {
		if e.Src.Node == p.Tgt.Node && (p.Src == nil || e.Tgt.Node != p.Src.Node) {
			h.pass(id, g, coordinator.Packet{Src: &e.Src, Tgt: e.Tgt, Body: p.Body})
		}
	}
}

// flow lets a packet pass that comes from somewhere.
func (h *host) flow(id string, p coordinator.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.taps[id] {
		t.put(p)
	}
}

func (h *host) Stop(id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		return coordinator.ErrNoGraph
	}
	m.started = time.Time{}
	return nil
}

func (h *host) Status(id string) coordinator.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.graphs[id]
	if !ok {
		return coordinator.Status{}
	}
	return coordinator.Status{Started: !m.started.IsZero(), Since: m.started}
}

func (h *host) Tap(id string) (coordinator.Tap, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := newQueue[coordinator.Packet](1024)
	h.taps[id] = append(h.taps[id], t)
	return tap{t}, nil
}

// tap gives all that there is.
type tap struct{ *queue[coordinator.Packet] }

func (t tap) Next(ctx context.Context) ([]coordinator.Packet, error) {
	first, err := t.queue.Next(ctx)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append([]coordinator.Packet{first}, t.items...)
	t.items = nil
	return all, nil
}

// tapped returns how many taps of a graph are open.
func (h *host) tapped(id string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.taps[id] {
		t.mu.Lock()
		if !t.closed {
			n++
		}
		t.mu.Unlock()
	}
	return n
}

// waiting returns how many packets wait in taps.
func (h *host) waiting(id string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.taps[id] {
		t.mu.Lock()
		n += len(t.items)
		t.mu.Unlock()
	}
	return n
}

func (h *host) Send(_ context.Context, id, port string, data json.RawMessage) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = append(h.sent, fmt.Sprintf("%s %s %s", id, port, data))
	return nil
}

func (h *host) Components() []fbp.Component {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.components)
}

func (h *host) Component(name string) (fbp.Component, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.components, func(c fbp.Component) bool { return c.Name == name })
	if i < 0 {
		return fbp.Component{}, false
	}
	return h.components[i], true
}

func (h *host) Source(_ context.Context, name string) (fbp.Source, error) {
	if _, ok := h.Component(name); !ok {
		return fbp.Source{}, fmt.Errorf("%q: %w", name, coordinator.ErrNoComponent)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.sources[name]
	if !ok {
		return s, coordinator.ErrNoSource
	}
	return s, nil
}

func (h *host) SetSource(_ context.Context, _ string, s fbp.Source) (fbp.Component, error) {
	name := s.Name
	if s.Library != "" {
		name = s.Library + "/" + s.Name
	}
	is, ok := h.Component(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ok {
		is = fbp.Component{Name: name, InPorts: []fbp.Port{{ID: "in", Type: "all"}}}
		h.components = append(h.components, is)
	}
	h.sources[name] = s
	return is, nil
}
