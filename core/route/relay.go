package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/transport"
)

// Routing says who carries the messages of an edge.
type Routing string

// The routings. Empty is the default: the gateway, but for round robins, which a broker carries where it can.
const (
	// Gateway: we do, with guarantees, counters and dead letters.
	Gateway Routing = "gateway"
	// Broker: the broker at both ends does, by bindings that last when the gateway ends.
	Broker Routing = "broker"
)

// What a component makes of a node that is no participant: it has no places of its own, and routes what comes.
const (
	roundRobin = "msgflo/roundrobin" // each message goes to one of the targets
	pubSub     = "msgflo/pubsub"     // each message goes to every target
)

// IsRelay says whether a component is no participant but a way of routing: msgflo/RoundRobin and msgflo/PubSub, in any case.
func IsRelay(component string) bool {
	c := strings.ToLower(component)
	return c == roundRobin || c == pubSub
}

// relay is a node that routes.
type relay struct {
	id, component string
	shares        bool  // round robin
	ins, outs     []int // of the planner's edges
	dead          []int // out of DEADLETTER
}

// in takes an edge that goes into the relay, or says why it cannot.
func (r *relay) in(i int, e *planned) string {
	if e.To.Port != "" && !strings.EqualFold(e.To.Port, "in") {
		return fmt.Sprintf("%s is a %s, which has no inport but IN", r.id, r.component)
	}
	r.ins = append(r.ins, i)
	return ""
}

// out takes an edge that comes out of the relay, or says why it cannot.
func (r *relay) out(i int, e *planned) string {
	switch {
	case strings.EqualFold(e.From.Port, "out"):
		r.outs = append(r.outs, i)
	case strings.EqualFold(e.From.Port, "deadletter") && r.shares && len(r.dead) > 0:
		return fmt.Sprintf("%s has another edge out of DEADLETTER: a dead letter goes to one place", r.id)
	case strings.EqualFold(e.From.Port, "deadletter") && r.shares:
		r.dead = append(r.dead, i)
	case r.shares:
		return fmt.Sprintf("%s is a %s, which has no outports but OUT and DEADLETTER", r.id, r.component)
	default:
		return fmt.Sprintf("%s is a %s, which has no outport but OUT", r.id, r.component)
	}
	return ""
}

// live returns the edges among some of which nothing is wrong by themselves.
func (p *planner) live(edges []int) []*planned {
	var out []*planned
	for _, i := range edges {
		if e := &p.edges[i]; e.missing == "" && e.Refused == "" {
			out = append(out, e)
		}
	}
	return out
}

// settle works out what becomes of edges at relays, which depends on each other: an edge that is refused is none for those on
// the other side. Nothing that is refused is taken back, so that it ends.
func (p *planner) settle() {
	for again := true; again; {
		again = false
		for _, r := range p.relays {
			before := p.refusals(r)
			p.settleRelay(r)
			again = again || p.refusals(r) > before
		}
	}
	for _, r := range p.relays {
		p.wait(r)
	}
}

func (p *planner) refusals(r *relay) int {
	n := 0
	for _, i := range slices.Concat(r.ins, r.outs, r.dead) {
		if p.edges[i].Refused != "" {
			n++
		}
	}
	return n
}

func (p *planner) settleRelay(r *relay) {
	ins, outs, dead := p.live(r.ins), p.live(r.outs), p.live(r.dead)
	for _, e := range slices.Concat(ins, outs, dead) {
		e.Guarantee, e.Weakness, e.Warning, e.SamePlace = "", "", e.ownWarning, false
	}
	for _, in := range ins {
		in.native = nil
		in.SamePlace = len(outs) > 0
		for _, out := range outs {
			in.weaken(in, out)
			out.weaken(in, out)
			in.SamePlace = in.SamePlace && samePlace(in.source, out.sink)
			p.checkTypes(in.source, out)
		}
		if r.shares && len(outs) > 1 && in.Guarantee == EffectOnce {
			in.Guarantee = AtLeastOnce // what comes twice may go to two sinks
		}
	}
	for _, out := range outs {
		out.SamePlace = len(ins) > 0
		for _, in := range ins {
			out.SamePlace = out.SamePlace && samePlace(in.source, out.sink)
		}
		if r.shares && len(outs) > 1 && out.Guarantee == EffectOnce {
			out.Guarantee = AtLeastOnce
		}
		if r.shares && out.settings.DeadLetter != (Place{}) {
			out.Warning = join(out.Warning, fmt.Sprintf("dead_letter has no effect here: it belongs to the edges into %s, or draw an edge out of its DEADLETTER", r.id))
		}
	}
	for _, e := range slices.Concat(ins, outs) {
		if e.Guarantee != "" && !e.SamePlace {
			e.require()
		}
	}
	for _, in := range ins {
		if in.settings.DeadLetter != (Place{}) && len(r.dead) > 0 {
			in.Warning = join(in.Warning, fmt.Sprintf("dead_letter has no effect: dead letters go out of %s.deadletter", r.id))
		}
		for _, d := range dead {
			if !d.sink.Traits.Confirms && AtLeastOnce.rank() <= in.settings.Require.rank() {
				in.refuse(fmt.Sprintf("%s is required, and what goes to %s can be lost: nobody confirms it there", in.settings.Require, d.To))
			}
		}
	}
	for _, d := range dead {
		if !d.sink.Traits.Confirms {
			d.Warning = join(d.Warning, "a dead letter can be lost there, because nobody confirms it", d.sink.Traits.Weakness)
		}
	}
	p.settleRouting(r, ins, outs, dead)
}

// weaken makes e's guarantee that of the way over both edges, if it is less.
func (e *planned) weaken(in, out *planned) {
	if samePlace(in.source, out.sink) {
		return
	}
	g, why := Guarantees(in.source.Traits, out.sink.Traits)
	if e.Guarantee == "" || g.rank() < e.Guarantee.rank() {
		e.Guarantee, e.Weakness = g, why
		if why != "" && e == in {
			e.Weakness = fmt.Sprintf("over %s: %s", out.ID, why)
		} else if why != "" {
			e.Weakness = fmt.Sprintf("from %s: %s", in.From, why)
		}
	}
}

// settleRouting decides who carries what.
func (p *planner) settleRouting(r *relay, ins, outs, dead []*planned) {
	for _, in := range ins {
		if in.Refused != "" || in.SamePlace {
			continue
		}
		if r.shares {
			p.routeShared(r, in, outs, dead)
			continue
		}
		in.subscribes = false
		for _, out := range outs {
			if out.Refused == "" && !samePlace(in.source, out.sink) {
				p.routePair(in, out)
				in.subscribes = in.subscribes || !slices.Contains(in.native, out)
			}
		}
	}
	for _, d := range dead {
		if d.settings.Routing == Broker && !slices.ContainsFunc(outs, func(out *planned) bool { return deadNatively(out, d) }) {
			d.refuse(fmt.Sprintf(`routing = "broker" is not possible: no sink of %s is a queue on %s`, r.id, d.sink.Broker))
		}
	}
}

// routeShared decides who carries from one source to sinks that share.
func (p *planner) routeShared(r *relay, in *planned, outs, dead []*planned) {
	want, by := in.wants(outs...)
	if want == "" && by != nil {
		in.refuse(fmt.Sprintf("routing is %q here, and %q at %s", in.settings.Routing, by.settings.Routing, by.ID))
		return
	}
	why := ""
	for _, out := range outs {
		why = join(why, natively(in.source, out.sink, out.To.String()))
		if place(outs[0].sink) != place(out.sink) {
			why = join(why, fmt.Sprintf("%s and %s are two places, and a binding would give each message to both", outs[0].To, out.To))
		}
		if out.settings.Require != "" {
			why = join(why, ours("require"))
		}
	}
	for _, d := range dead {
		if d.sink.Broker != in.source.Broker || d.sink.Traits.Kind != transport.Queue {
			why = join(why, fmt.Sprintf("dead letters go to %s on %s", d.sink.Address, d.sink.Broker))
		}
		if d.settings.Routing == Gateway {
			why = join(why, fmt.Sprintf(`%s has routing = "gateway"`, d.ID))
		}
	}
	for _, i := range r.outs {
		if p.edges[i].missing != "" && want == "" {
			why = join(why, p.edges[i].missing) // who knows where it will be
		}
	}
	why = join(why, in.gatewayOnly())
	switch {
	case want == Broker && why != "":
		by.refuse(`routing = "broker" is not possible: ` + why)
	case want != Gateway && why == "" && len(outs) > 0:
		in.native = outs
	}
}

// routePair decides who carries from one source to one sink behind a pubsub relay.
func (p *planner) routePair(in, out *planned) {
	want, by := in.wants(out)
	switch {
	case want == "" && by != nil:
		in.refuse(fmt.Sprintf("routing is %q here, and %q at %s", in.settings.Routing, by.settings.Routing, by.ID))
	case want == Broker:
		why := join(natively(in.source, out.sink, out.To.String()), in.gatewayOnly(), out.gatewayOnly())
		if why != "" {
			by.refuse(`routing = "broker" is not possible: ` + why)
			return
		}
		in.native = append(in.native, out)
	}
}

// wants returns the routing that is asked for, and the edge that asks; no routing and the other edge where two contradict.
func (e *planned) wants(others ...*planned) (Routing, *planned) {
	want, by := e.settings.Routing, e
	for _, o := range others {
		switch {
		case o.settings.Routing == "" || o.settings.Routing == want:
		case want == "":
			want, by = o.settings.Routing, o
		default:
			return "", o
		}
	}
	if want == "" {
		return "", nil
	}
	return want, by
}

// gatewayOnly says in words what is asked of an edge that a broker's binding does not give.
func (e *planned) gatewayOnly() string {
	switch {
	case e.settings.Require != "":
		return ours("require")
	case e.settings.DeadLetter != (Place{}):
		return ours("dead_letter")
	}
	return ""
}

func ours(setting string) string {
	return setting + " is kept by the gateway, and not by the broker"
}

// natively says in words why a broker cannot carry between two places by itself; empty if it can.
func natively(source, sink Port, name string) string {
	switch {
	case source.Broker != sink.Broker:
		return fmt.Sprintf("%s is on %s, and what goes there comes from %s", name, sink.Broker, source.Broker)
	case source.Traits.Kind == 0 || source.Traits.Kind == transport.Queue:
		return fmt.Sprintf("%s cannot bind from %s by itself", source.Broker, source.Address)
	case sink.Traits.Kind == 0:
		return fmt.Sprintf("%s cannot bind to %s by itself", sink.Broker, sink.Address)
	}
	return ""
}

// deadNatively says whether what consumers reject at a sink goes to the dead letter by the broker itself: in the way of MsgFlo,
// whose queues have an exchange for that.
func deadNatively(out, dead *planned) bool {
	return out.sink.Broker == dead.sink.Broker && out.sink.Traits.Kind == transport.Queue && dead.sink.Traits.Kind == transport.Queue &&
		dead.settings.Routing != Gateway && place(out.sink) != place(dead.sink)
}

func samePlace(source, sink Port) bool {
	return source.Broker == sink.Broker && place(source) == place(sink)
}

// wait makes edges wait for what is missing on the other side of a relay.
func (p *planner) wait(r *relay) {
	to, from := p.lacks(r.outs, r.id+" has no edge out of OUT"), p.lacks(r.ins, r.id+" has no edge into IN")
	for _, side := range []struct {
		edges []int
		lacks string
	}{{r.ins, to}, {r.outs, from}, {r.dead, join(from, to)}} {
		for _, i := range side.edges {
			e := &p.edges[i]
			if e.Pending = e.missing; e.Pending == "" && e.Refused == "" {
				e.Pending = side.lacks
			}
		}
	}
}

// lacks says in words why no edge of one side of a relay can carry; empty if one can.
func (p *planner) lacks(edges []int, none string) string {
	if len(edges) == 0 {
		return none
	}
	var why []string
	for _, i := range edges {
		switch e := &p.edges[i]; {
		case e.missing == "" && e.Refused == "":
			return ""
		case e.Refused != "":
			why = append(why, e.ID+" is refused")
		default:
			why = append(why, e.missing)
		}
	}
	return join(why...)
}
