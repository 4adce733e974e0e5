package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/transport"
)

// relaysOf finds the nodes of a graph that only route.
func (p *planner) relaysOf(g Graph) {
	p.here = make(map[string]*relay)
	for _, n := range g.Nodes {
		if !IsRelay(n.Component) {
			continue
		}
		r := &relay{id: n.ID, component: n.Component, shares: strings.EqualFold(n.Component, roundRobin)}
		p.here[n.ID] = r
		p.relays = append(p.relays, r)
	}
}

// way is what goes from one place to another: over an edge between participants, or over one into a relay and one out of it.
type way struct {
	in, out *planned // one and the same where there is no relay
}

// ways returns all ways that run. Those of dead letters are apart.
func (p *planner) ways() (ways, dead []way) {
	for i := range p.edges {
		if e := &p.edges[i]; e.Relay == "" && e.runs() {
			ways = append(ways, way{e, e})
		}
	}
	for _, r := range p.relays {
		for _, in := range p.live(r.ins) {
			for _, out := range p.live(r.outs) {
				if !samePlace(in.source, out.sink) || r.shares && len(p.live(r.outs)) > 1 {
					ways = append(ways, way{in, out})
				}
			}
			for _, d := range p.live(r.dead) {
				if len(p.live(r.outs)) > 0 {
					dead = append(dead, way{in, d})
				}
			}
		}
	}
	return ways, dead
}

// plan makes feeds and natives of the edges that may run.
func (p *planner) plan() Plan {
	b := builder{feeds: make(map[string]*Feed), natives: make(map[string]*Native)}
	of := make(map[*planned]*relay)
	for _, r := range p.relays {
		for _, in := range p.live(r.ins) {
			of[in] = r
		}
	}
	for i := range p.edges {
		e := &p.edges[i]
		switch r := of[e]; {
		case !e.runs() || e.Relay != "" && r == nil: // edges out of a relay come with those into it
		case r == nil && e.native != nil:
			b.native([]*planned{e}, []string{e.ID}, binding(e.source, e.sink))
		case r == nil:
			b.plain(e)
		case r.shares:
			p.share(&b, r, e)
		default:
			p.spread(&b, r, e)
		}
	}
	for _, r := range p.relays {
		for _, d := range p.live(r.dead) {
			for _, out := range p.live(r.outs) {
				if d.Pending == "" && deadNatively(out, d) {
					b.native([]*planned{d}, []string{out.ID, d.ID}, deadBinding(out.sink, d.sink))
				}
			}
		}
	}
	plan := Plan{Initials: p.iips}
	for i := range p.edges {
		e := &p.edges[i]
		if len(e.Carriers) > 0 && !e.Carriers[0].Dead {
			e.Feed, e.Target = e.Carriers[0].Feed, e.Carriers[0].Target
		}
		if len(e.Carriers) == 0 && len(e.Natives) > 0 {
			e.Guarantee, e.Weakness = "", "" // the broker's own
		}
		if e.runs() && len(e.Carriers)+len(e.Natives) == 0 {
			e.Pending = "nothing goes over it: what it would carry is in its place already"
		}
		plan.Edges = append(plan.Edges, e.Edge)
	}
	for _, key := range b.feedOrder {
		plan.Feeds = append(plan.Feeds, *b.feeds[key])
	}
	for _, id := range b.nativeOrder {
		plan.Natives = append(plan.Natives, *b.natives[id])
	}
	return plan
}

// share carries what comes into a round robin.
func (p *planner) share(b *builder, r *relay, in *planned) {
	outs := p.live(r.outs)
	if in.native != nil {
		for _, out := range in.native {
			b.native([]*planned{in, out}, []string{in.ID, out.ID}, sharedBinding(in.source, out.sink))
		}
		return
	}
	f := b.feed(in)
	t := Target{ID: in.ID, Edges: []string{in.ID}}
	t.letter(in.settings)
	for _, out := range outs {
		t.Members = append(t.Members, Member{ID: out.ID, Broker: out.sink.Broker, Sink: out.to(f.Key + " -> " + in.ID + " -> " + out.ID)})
		t.Edges = append(t.Edges, out.ID)
		f.Source.Window.Messages = max(f.Source.Window.Messages, out.settings.Window)
		out.Carriers = append(out.Carriers, Carrier{Feed: f.Key, Target: t.ID, Member: out.ID})
	}
	if len(t.Members) == 1 {
		// Nobody to share with: it is a target like any other.
		t.Broker, t.Sink, t.Members = t.Members[0].Broker, t.Members[0].Sink, nil
		out := outs[0]
		out.Carriers[len(out.Carriers)-1].Member = ""
	}
	if t.DeadLetter.Broker == "" && t.DeadLetter.Address != "" {
		t.DeadLetter.Broker = outs[0].sink.Broker
	}
	for _, i := range r.dead {
		switch d := &p.edges[i]; {
		case d.Refused != "":
		case d.missing != "":
			t.DeadLetter, t.DeadLetterPending = Place{}, d.missing
		default:
			traits := d.sink.Traits
			// Whoever is at the end of the edge takes messages as they are, and sees to it that they are kept for it.
			traits.Headerless, traits.Fleeting = false, false
			t.letter(Settings{DeadLetter: d.Sink, DeadLetterTraits: traits, DeadLetterOptions: d.sink.Options})
			t.Edges = append(t.Edges, d.ID)
			d.Carriers = append(d.Carriers, Carrier{Feed: f.Key, Target: t.ID, Dead: true})
		}
	}
	in.Carriers = []Carrier{{Feed: f.Key, Target: t.ID}}
	f.Targets = append(f.Targets, t)
}

// spread carries what comes into a pubsub relay.
func (p *planner) spread(b *builder, r *relay, in *planned) {
	for _, out := range p.live(r.outs) {
		switch {
		case samePlace(in.source, out.sink):
			continue
		case slices.Contains(in.native, out):
			b.native([]*planned{in, out}, []string{in.ID, out.ID}, binding(in.source, out.sink))
			continue
		}
		f := b.feed(in)
		f.Source.Window.Messages = max(f.Source.Window.Messages, out.settings.Window)
		id := in.ID + " -> " + out.To.String()
		c := Carrier{Feed: f.Key, Target: id}
		in.Carriers = append(in.Carriers, c)
		out.Carriers = append(out.Carriers, c)
		if i := slices.IndexFunc(f.Targets, func(t Target) bool { return t.ID == id }); i >= 0 {
			f.Targets[i].Edges = append(f.Targets[i].Edges, out.ID) // it was drawn twice
			continue
		}
		t := Target{ID: id, Broker: out.sink.Broker, Sink: out.to(f.Key + " -> " + id), Edges: []string{in.ID, out.ID}}
		t.letter(in.settings)
		if out.settings.DeadLetter != (Place{}) {
			t.letter(out.settings)
		}
		if t.DeadLetter.Broker == "" && t.DeadLetter.Address != "" {
			t.DeadLetter.Broker = out.sink.Broker
		}
		f.Targets = append(f.Targets, t)
	}
}

// letter says where a target's dead letters go.
func (t *Target) letter(s Settings) {
	t.DeadLetter, t.DeadLetterTraits = s.DeadLetter, s.DeadLetterTraits
	t.DeadLetterOptions, t.DeadLetterReader = s.DeadLetterOptions, s.DeadLetterReader
}

// to is the sink of an edge. The source belongs into its name, because it is the seed of deduplication: two sources number their
// messages alike.
func (e *planned) to(name string) transport.Sink {
	return transport.Sink{Name: name, Address: e.sink.Address, Options: e.sink.Options}
}

// builder collects feeds and natives, in the order in which edges want them.
type builder struct {
	feeds                  map[string]*Feed
	natives                map[string]*Native
	feedOrder, nativeOrder []string
}

// plain adds an edge between participants to the feed of its source.
func (b *builder) plain(e *planned) {
	f := b.feed(e)
	t := Target{ID: e.ID, Broker: e.sink.Broker, Sink: e.to(f.Key + " -> " + e.ID), Edges: []string{e.ID}}
	t.letter(e.settings)
	f.Targets = append(f.Targets, t)
	e.Carriers = []Carrier{{Feed: f.Key, Target: e.ID}}
}

// feed returns the feed of an edge's source.
func (b *builder) feed(e *planned) *Feed {
	key := feedKey(e.source)
	f := b.feeds[key]
	if f == nil {
		f = &Feed{
			Key:    key,
			Broker: e.source.Broker,
			Acks:   e.source.Traits.Acks,
			Source: transport.Source{
				Name:    strings.TrimPrefix(key, e.source.Broker+" "),
				Address: e.source.Address,
				Options: e.source.Options,
			},
		}
		b.feeds[key] = f
		b.feedOrder = append(b.feedOrder, key)
	}
	f.Source.Window.Messages = max(f.Source.Window.Messages, e.settings.Window)
	if port := e.From.String(); !slices.Contains(f.Ports, port) {
		f.Ports = append(f.Ports, port)
	}
	return f
}

// native adds a way that the broker carries for some edges. It is wanted as long as all edges of way are there.
func (b *builder) native(edges []*planned, way []string, n Native) {
	have := b.natives[n.ID]
	if have == nil {
		have = &n
		b.natives[n.ID] = have
		b.nativeOrder = append(b.nativeOrder, n.ID)
	}
	have.Ways = append(have.Ways, way)
	for _, e := range edges {
		if !slices.Contains(e.Natives, n.ID) {
			e.Natives = append(e.Natives, n.ID)
		}
	}
}

// binding is the broker's own way from one place to another.
func binding(source, sink Port) Native {
	from, to := at(source), at(sink)
	return Native{
		ID:       fmt.Sprintf("%s: %s => %s", source.Broker, source.Address, sink.Address),
		Broker:   source.Broker,
		Bindings: []transport.Binding{{From: from, To: to}},
		Needs:    []transport.Place{from},
	}
}

// sharedBinding is the way of a round robin, with the names that MsgFlo gives: a queue shares its messages by itself. The way
// into the queue comes first, so that nothing goes nowhere.
func sharedBinding(source, sink Port) Native {
	from, to := at(source), at(sink)
	out := transport.Place{Kind: transport.Direct, Address: "out-" + source.Address}
	return Native{
		ID:       fmt.Sprintf("%s: %s => %s => %s", source.Broker, source.Address, out.Address, sink.Address),
		Broker:   source.Broker,
		Makes:    []transport.Place{out},
		Bindings: []transport.Binding{{From: out, To: to}, {From: from, To: out}},
		Needs:    []transport.Place{from},
	}
}

// deadBinding is the way of what consumers reject: a queue of MsgFlo's gives that to an exchange of this name.
func deadBinding(sink, dead Port) Native {
	from, to := transport.Place{Kind: transport.Fanout, Address: "dead-" + sink.Address}, at(dead)
	return Native{
		ID:       fmt.Sprintf("%s: %s => %s", sink.Broker, from.Address, dead.Address),
		Broker:   sink.Broker,
		Makes:    []transport.Place{from},
		Bindings: []transport.Binding{{From: from, To: to}},
	}
}

func at(p Port) transport.Place { return transport.Place{Kind: p.Traits.Kind, Address: p.Address} }
