package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding/fbp"
)

// Errors of what is behind the coordinator, for it to tell apart.
var (
	// ErrNoGraph: there is no graph of this id.
	ErrNoGraph = errors.New("there is no such graph")
	// ErrNoComponent: there is no component of this name.
	ErrNoComponent = errors.New("there is no such component")
	// ErrNoSource: the component has no source that could be shown.
	ErrNoSource = errors.New("the component has no source")
)

// Graphs keeps the graphs. Its methods may be called concurrently and must not wait for anything but memory and a line of a
// log, except Persist: all clients wait for them.
//
// An id is a graph's name in the protocol, such as "flogate/main". It has at most one slash and no dot, or editors get lost.
type Graphs interface {
	// Main returns the id of the graph that is opened first, or "".
	Main() string
	// Graphs returns all graphs as they are now, in the order in which they are listed.
	Graphs() []Graph
	// Graph returns a graph as it is now, or ErrNoGraph.
	Graph(id string) (Graph, error)
	// Change makes changes to a graph, all or none, or returns ErrNoGraph. who is for the log.
	Change(id, who string, changes ...graph.Change) (Result, error)
	// Create creates an empty graph, or empties one that is there. One that is new does not run.
	Create(id, who string, c graph.Clear) (Result, error)
	// Subscribe returns a subscription to what happens from now on.
	Subscribe() Subscription
	// Persist blocks until everything is kept where it belongs.
	Persist(ctx context.Context) error
}

// Graph is a graph at one moment.
type Graph struct {
	ID       string
	Graph    *graph.Graph // shared: nobody changes it
	Revision uint64
	Main     bool // is no component
}

// Result is what a change has led to, exactly one revision after what was there before.
type Result struct {
	Revision uint64
	Effects  []graph.Change // as of graph.Apply
}

// Subscription hands out events in the order in which they happened.
type Subscription interface {
	// Next returns the next event. It blocks until there is one or ctx ends. An error is for good.
	Next(ctx context.Context) (Event, error)
	// Close ends the subscription.
	Close()
}

// Event is something that has happened to a graph.
type Event struct {
	Kind     EventKind
	Graph    string
	Revision uint64
	Effects  []graph.Change // of Changed: what led to Revision from the one before
}

// EventKind says what has happened.
type EventKind int

// What happens to graphs.
const (
	// Changed: the graph is at another revision. Every revision has an event, also those that were asked for.
	Changed EventKind = iota
	// Opened: the graph is new. One that was created with Graphs.Create may come with it, before its first Changed.
	Opened
	// Removed: the graph is gone.
	Removed
	// Missed: events were lost.
	Missed
)

// Networks runs the graphs. Its methods may be called concurrently. They say what is wanted or how things are, and must not
// wait for anything, except Send.
type Networks interface {
	// Start and Stop say that a graph shall run, or not.
	Start(graph string) error
	Stop(graph string) error
	// Status says whether it does.
	Status(graph string) Status
	// Tap returns the packets that pass through a graph from now on. The graph need not run.
	Tap(graph string) (Tap, error)
	// Send sends a packet to a port that the graph exports. It may block until the packet has been taken.
	Send(ctx context.Context, graph, port string, data json.RawMessage) error
}

// Status says how a network is doing.
type Status struct {
	Started bool      // it is meant to run, and nothing keeps it from doing so as a whole
	Running bool      // it is at work just now
	Since   time.Time // started
}

// Tap has copies of the packets of one graph, as many as it can hold: what comes when it is full is lost, because an edge
// never waits for a tap. It is looked into up to a hundred times a second, and should hold what comes in between, or some of
// every edge.
type Tap interface {
	// Next returns all packets that are there, oldest first. It blocks until there is one, ctx ends or Close is called. They
	// are the caller's until it calls again. An error is for good.
	Next(ctx context.Context) ([]Packet, error)
	// Close ends the tap.
	Close()
}

// Packet is a packet on an edge. It is not changed by those who have it.
type Packet struct {
	Src  *graph.Endpoint // nil: it is an initial packet
	Tgt  graph.Endpoint
	Body []byte
	// Subgraph are the nodes that lead from the tapped graph to the one that has the edge; empty if it is the same.
	Subgraph []string
	// Time is when it passed; zero is now.
	Time time.Time
}

// Components knows what nodes can be made of. Its methods may be called concurrently; only those with a context may block.
//
// A component's name has at most one slash and no dot, as a graph's. Graphs are components without being known here.
type Components interface {
	// Components returns all components, in the order in which they are listed.
	Components() []fbp.Component
	// Component returns one, as a node names it.
	Component(name string) (c fbp.Component, ok bool)
	// Source returns the source: what is in it of Name and Library does not count. It returns ErrNoComponent, or ErrNoSource
	// for what has none.
	Source(ctx context.Context, name string) (fbp.Source, error)
	// SetSource makes a component of its source, or gives one another source, and has the nodes that use it started anew.
	SetSource(ctx context.Context, who string, s fbp.Source) (fbp.Component, error)
}
