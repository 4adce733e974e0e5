// Package route turns graphs and bindings into feeds: what has to be carried from where to where.
//
// It is pure: the same input gives the same plan, in the same order, and nothing is asked of a broker. What changes
// between two plans is what has to be done, and that is core/network's business.
//
// Rules: one feed per source, however many edges leave it; an edge whose ends are one place needs no feed; an edge that
// would carry messages in a circle, or that guarantees less than was required of it, is refused with the reason; an edge
// whose ports are not known is pending, and keeps nothing else from running.
package route

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/transport"
)

// Input is everything that a plan is made of.
type Input struct {
	Graphs []Graph
	// Participants by role.
	Participants map[string]Participant
	// Settings returns what the site says of an edge; nil for nothing of any.
	Settings func(from, to graph.Endpoint) Settings
	// StrictTypes refuses edges whose ends do not go together by their types; otherwise they only carry a warning.
	StrictTypes bool
}

// Graph is a graph under its name.
type Graph struct {
	Name string
	*graph.Graph
}

// Participant is a node as far as it can be wired. Ports are found by name whatever their case, because graphs fold it.
type Participant struct {
	Inports, Outports map[string]Port
	// Incarnation is another one for each life of the participant: initial packets are sent once in each.
	Incarnation string
	// Waiting says why the participant cannot be sent initial packets yet, while its edges run; empty if it can.
	Waiting string
}

// Port is a port with its binding.
type Port struct {
	Broker  string
	Address string
	Type    string
	Schema  string
	Options json.RawMessage
	// Problem says why the port cannot be used, whatever its address; empty if it can.
	Problem string
	// Traits are the driver's word about the port, as a source for outports and as a sink for inports.
	Traits transport.Traits
}

// Settings are what a site says of an edge.
type Settings struct {
	// Require is the least guarantee; empty for any.
	Require Guarantee
	// DeadLetter is where refused messages go; the zero value for nowhere. DeadLetterTraits are the driver's word about it.
	DeadLetter       Place
	DeadLetterTraits transport.Traits
	// DeadLetterOptions and DeadLetterReader are for the driver: for the sink at DeadLetter, and for a source that reads there.
	DeadLetterOptions, DeadLetterReader json.RawMessage
	// Window is the most messages in flight on the feed; 0 for the default.
	Window int64
	// Routing says who shall carry; empty for the default.
	Routing Routing
}

// Place is an address on a broker.
type Place struct {
	Broker, Address string
}

// Plan is what has to run.
type Plan struct {
	Edges    []Edge
	Feeds    []Feed
	Natives  []Native
	Initials []Initial
}

// Edge is an edge of a graph, with what is known of it before anything runs.
type Edge struct {
	// ID is the edge as logs, metrics and site files name it, with the graph's name before it where that is not "main".
	ID    string
	Graph string
	From  graph.Endpoint
	To    graph.Endpoint
	// Source and Sink are the bindings; empty where the edge is pending.
	Source, Sink Place
	Guarantee    Guarantee
	// Weakness says why the guarantee is not at-least-once.
	Weakness string
	// Pending says what is missing; empty if nothing is.
	Pending string
	// Refused says why the edge must not run; empty if it may.
	Refused string
	// Warning says what looks wrong with an edge that runs all the same; empty if nothing does.
	Warning string
	// SamePlace: both ends are one place on one broker, and the broker does all there is to do.
	SamePlace bool
	// Feed and Target name what carries the edge; empty where nothing does. They are those of the first of Carriers.
	Feed, Target string
	// Carriers are all that carry the edge: one for an edge between participants, and as many as there are ways over it for one
	// at a relay, which is a node that only routes.
	Carriers []Carrier
	// Natives are the IDs of what the broker carries of the edge by itself.
	Natives []string
	// Relay is the component of the relay at one end; empty where both are participants.
	Relay string
}

// Carrier is a target of a feed, or one that shares in it.
type Carrier struct {
	Feed, Target string
	// Member is the ID of the member of the target that stands for the edge; empty for the target as a whole.
	Member string
	// Dead: the edge is where the dead letters of the target go.
	Dead bool
}

// Native is a way that a broker carries by itself, with what has to be made for it.
type Native struct {
	// ID names the way, the same as long as it is the same.
	ID     string
	Broker string
	// Makes are places of our own, which are declared before all else.
	Makes []transport.Place
	// Bindings are made in this order, and are taken back when the way is not wanted any more.
	Bindings []transport.Binding
	// Needs are other people's places that have to be what they are here, or the bindings would not do what they should.
	Needs []transport.Place
	// Ways are the sets of edges, by their IDs, of which each wants it.
	Ways [][]string
}

// Feed is one source and its targets.
type Feed struct {
	// Key names the feed: it stays the same as long as the source's place does.
	Key    string
	Broker string
	Source transport.Source
	Acks   bool
	// Ports are the outports at the source: "a.out".
	Ports []string
	// Targets in the order of the edges.
	Targets []Target
}

// Target is one sink of a feed. All its fields make it what it is: if one differs it is another target.
type Target struct {
	ID         string
	Broker     string
	Sink       transport.Sink
	DeadLetter Place
	// Members, where there are any, share the target: each message goes to one of them. Broker and Sink are empty then.
	Members []Member
	// DeadLetterPending says why nobody knows yet where refused messages go. They wait for it.
	DeadLetterPending string
	// Edges are the IDs of the edges that the target carries.
	Edges []string

	// As in Settings.
	DeadLetterTraits                    transport.Traits
	DeadLetterOptions, DeadLetterReader json.RawMessage
}

// Member is one of the sinks that share a target.
type Member struct {
	// ID is that of its edge.
	ID     string
	Broker string
	Sink   transport.Sink
}

// Initial is an initial packet with its binding, or what keeps it from having one.
type Initial struct {
	// ID is what tells it from others: its text, its place, and the life of the participant that gets it.
	ID string
	// Life is what tells it from others as long as that life lasts, also while it is pending, when nobody knows its place. Empty
	// where nobody plays the role.
	Life    string
	Graph   string
	To      graph.Endpoint
	Broker  string
	Sink    transport.Sink
	Body    []byte
	Pending string
}

// Guarantee is what an edge promises.
type Guarantee string

// The guarantees, from weak to strong.
const (
	// AtMostOnce: a message can be lost, because an end of the edge has no acknowledgement.
	AtMostOnce Guarantee = "at-most-once"
	// AtLeastOnce: nothing is lost, in order; after a failure some messages come twice.
	AtLeastOnce Guarantee = "at-least-once"
	// EffectOnce: at least once, and the sink's broker drops what comes twice within its window.
	EffectOnce Guarantee = "effect-once"
)

func (g Guarantee) rank() int {
	return slices.Index([]Guarantee{AtMostOnce, AtLeastOnce, EffectOnce}, g)
}

// Guarantees computes what an edge between two ports promises, and names its weakest link.
func Guarantees(source, sink transport.Traits) (Guarantee, string) {
	switch {
	case !source.Acks:
		return AtMostOnce, weakness("the source does not wait for acknowledgements", source.Weakness)
	case !sink.Confirms:
		return AtMostOnce, weakness("the sink does not confirm", sink.Weakness)
	case sink.Deduplicates && source.Identifies:
		return EffectOnce, ""
	}
	return AtLeastOnce, ""
}

func weakness(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// Make makes the plan of the input.
func Make(in Input) Plan {
	p := planner{in: in, alike: make(map[string]int)}
	for _, g := range in.Graphs {
		p.relaysOf(g)
		for _, e := range g.Edges {
			p.edge(g, e)
		}
		for _, iip := range g.Initials {
			p.initial(g, iip)
		}
	}
	p.settle()
	p.refuseConflicts()
	p.refuseCircles()
	p.settle()
	return p.plan()
}

type planner struct {
	in     Input
	edges  []planned
	iips   []Initial
	here   map[string]*relay // the relays of the graph that is looked at, by node
	relays []*relay
	alike  map[string]int // initial packets by what they say
}

// planned is an edge with its bindings.
type planned struct {
	Edge
	source, sink Port
	settings     Settings
	missing      string     // what is missing at its own ends
	ownWarning   string     // without what is wrong in company
	native       []*planned // the edges on the other side of a relay to which the broker carries; itself where there is no relay
	subscribes   bool       // we carry from there too, to others behind a relay
}

func (e *planned) refuse(why string) {
	if e.Refused == "" {
		e.Refused = why
	}
}

func (p *planner) edge(g Graph, e graph.Edge) {
	out := planned{Edge: Edge{ID: edgeID(g.Name, e), Graph: g.Name, From: e.Src, To: e.Tgt}}
	from, to := p.here[e.Src.Node], p.here[e.Tgt.Node]
	if p.in.Settings != nil {
		out.settings = p.in.Settings(e.Src, e.Tgt)
	}
	defer func() {
		out.ownWarning = out.Warning
		p.edges = append(p.edges, out)
	}()
	switch {
	case from != nil && to != nil:
		out.Relay = from.component
		out.Refused = fmt.Sprintf("%s and %s only route: put a participant between them, or draw the edges of one at the other", e.Src.Node, e.Tgt.Node)
		return
	case from != nil:
		out.Relay = from.component
		out.Refused = from.out(len(p.edges), &out)
	case to != nil:
		out.Relay = to.component
		out.Refused = to.in(len(p.edges), &out)
	}
	var missing, missing2 string
	if from == nil {
		out.source, missing = p.port(e.Src, false)
		out.Source = Place{out.source.Broker, out.source.Address}
	}
	if to == nil {
		out.sink, missing2 = p.port(e.Tgt, true)
		out.Sink = Place{out.sink.Broker, out.sink.Address}
	}
	out.missing = join(missing, missing2)
	if out.Pending = out.missing; out.Pending != "" {
		out.Source, out.Sink = Place{}, Place{}
		return
	}
	out.deadLetter()
	if out.Relay == "" {
		p.check(&out)
	}
}

// deadLetter looks at where an edge's dead letters shall go.
func (e *planned) deadLetter() {
	s := e.settings
	if s.DeadLetter == (Place{}) || s.DeadLetterTraits.Confirms {
		return
	}
	weak := join(fmt.Sprintf("a dead letter at %s on %s can be lost, because nobody confirms it there: give it what it needs with dead_letter_options, or another broker with dead_letter_broker",
		s.DeadLetter.Address, s.DeadLetter.Broker), s.DeadLetterTraits.Weakness)
	if AtLeastOnce.rank() <= s.Require.rank() && e.Refused == "" {
		e.Refused = fmt.Sprintf("%s is required, and %s", s.Require, weak)
	} else {
		e.Warning = weak
	}
}

// check looks at an edge between participants.
func (p *planner) check(e *planned) {
	e.Guarantee, e.Weakness = Guarantees(e.source.Traits, e.sink.Traits)
	e.SamePlace = samePlace(e.source, e.sink)
	if !e.SamePlace {
		e.require()
	}
	p.checkTypes(e.source, e)
	if e.settings.Routing != Broker || e.SamePlace || e.Refused != "" {
		return
	}
	if why := join(natively(e.source, e.sink, e.To.String()), e.gatewayOnly()); why != "" {
		e.refuse(`routing = "broker" is not possible: ` + why)
		return
	}
	e.native = []*planned{e}
}

// require refuses an edge that guarantees less than it has to.
func (e *planned) require() {
	if want := e.settings.Require; e.Guarantee.rank() < want.rank() {
		why := fmt.Sprintf("%s is required, and the edge is %s", want, e.Guarantee)
		if e.Weakness != "" || e.Relay == "" {
			why += ": " + e.Weakness
		}
		e.Refused = why
	}
}

// checkTypes looks whether what comes from a source is what an edge's sink takes.
func (p *planner) checkTypes(source Port, e *planned) {
	if m := mismatch(source, e.sink); m != "" && p.in.StrictTypes {
		e.refuse(m)
	} else if m != "" {
		e.Warning = join(e.Warning, m)
	}
}

func (p *planner) initial(g Graph, iip graph.Initial) {
	out := Initial{Graph: g.Name, To: iip.Tgt, Body: iip.Data}
	port, missing := p.port(iip.Tgt, true)
	if r := p.here[iip.Tgt.Node]; r != nil {
		missing = fmt.Sprintf("%s is a %s, which takes no initial packets", r.id, r.component)
	}
	to, played := p.in.Participants[iip.Tgt.Node]
	out.Pending = missing
	if missing == "" {
		out.Pending = to.Waiting
	}
	out.Broker = port.Broker
	life := fmt.Sprintf("%s: %s -> %s %s", g.Name, iip.Data, iip.Tgt, to.Incarnation)
	p.alike[life]++
	if n := p.alike[life]; n > 1 {
		// Told apart by their number among those that are alike, and not in the graph: another that goes must not send it again.
		life += fmt.Sprintf(" (%d)", n)
	}
	if played {
		out.Life = life
	}
	out.ID = fmt.Sprintf("%s at %s %s", life, port.Broker, port.Address)
	out.Sink = transport.Sink{Name: "initial " + iip.Tgt.String(), Address: port.Address, Options: port.Options}
	p.iips = append(p.iips, out)
}

// port finds the binding of an endpoint, or says in words why there is none.
func (p *planner) port(at graph.Endpoint, in bool) (Port, string) {
	participant, ok := p.in.Participants[at.Node]
	if !ok {
		return Port{}, fmt.Sprintf("no participant %s", at.Node)
	}
	kind, ports := "outport", participant.Outports
	if in {
		kind, ports = "inport", participant.Inports
	}
	// A place of an array port may have a binding of its own; else the port's is for all of them.
	for _, name := range []string{strings.TrimPrefix(at.String(), at.Node+"."), at.Port} {
		for id, port := range ports {
			if strings.EqualFold(id, name) {
				switch {
				case port.Broker == "" || port.Address == "":
					return Port{}, fmt.Sprintf("%s %s has no address", kind, at)
				case port.Problem != "":
					return Port{}, fmt.Sprintf("%s %s: %s", kind, at, port.Problem)
				}
				return port, ""
			}
		}
	}
	if participant.Waiting != "" {
		return Port{}, participant.Waiting
	}
	return Port{}, fmt.Sprintf("participant %s has no %s %s", at.Node, kind, at.Port)
}

func join(reasons ...string) string {
	return strings.Join(slices.Compact(slices.DeleteFunc(reasons, func(s string) bool { return s == "" })), "; ")
}

func edgeID(graphName string, e graph.Edge) string {
	if graphName == "main" || graphName == "" {
		return e.String()
	}
	return graphName + ": " + e.String()
}

// place is what makes two ports of one broker the same.
func place(p Port) string {
	if p.Traits.Place != "" {
		return p.Traits.Place
	}
	return p.Address
}

// feedKey names the feed of a source. It becomes a name under which the broker keeps state, so it must stay the same when a
// node is renamed, and whatever other edges there are.
func feedKey(source Port) string {
	key := source.Broker + " " + place(source)
	if s := source.Traits.Subscription; s != "" {
		key += " " + s
	}
	return key
}
