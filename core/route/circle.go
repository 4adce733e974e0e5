package route

import (
	"fmt"
	"slices"
	"strings"
)

// spot is a place on a broker, as a vertex of what carries messages where.
type spot struct{ broker, place string }

// refuseCircles refuses every edge that is part of a circle of places: what goes in there would go round for ever, at
// full speed. Only equal places are seen; what a filter matches is known to its broker alone.
func (p *planner) refuseCircles() {
	var hops []hop
	ways, dead := p.ways()
	for _, w := range ways {
		hops = append(hops, hop{w, w.name(), source(*w.in), sink(*w.out)})
		for _, e := range slices.Compact([]*planned{w.in, w.out}) {
			if dead := e.settings.DeadLetter; dead != (Place{}) {
				hops = append(hops, hop{w, "the dead letters of " + e.ID, source(*w.in), spot{
					dead.Broker, place(Port{Address: dead.Address, Traits: e.settings.DeadLetterTraits}),
				}})
			}
		}
	}
	for _, w := range dead {
		hops = append(hops, hop{w, w.name(), source(*w.in), sink(*w.out)})
	}
	for _, first := range hops {
		if first.in.Refused != "" && first.out.Refused != "" {
			continue // its dead letters go round too, and once is enough to say
		}
		if way := names(hops, first.to, first.from); way != nil {
			why := fmt.Sprintf("it would carry messages in a circle: %s", strings.Join(append([]string{first.name}, way...), ", then "))
			first.in.refuse(why)
			first.out.refuse(why)
		}
	}
}

func (w way) name() string {
	if w.in == w.out {
		return w.in.ID
	}
	return w.in.ID + ", then " + w.out.ID
}

// runs says whether an edge has to be carried.
func (e *planned) runs() bool { return e.Pending == "" && e.Refused == "" && !e.SamePlace }

// hop is a way from one spot to another.
type hop struct {
	way
	name     string
	from, to spot
}

// refuseConflicts refuses an edge whose source another edge subscribes to with other options: the broker keeps one thing for
// both, so that they would change it under each other.
func (p *planner) refuseConflicts() {
	first := make(map[string]*planned)
	for i := range p.edges {
		e := &p.edges[i]
		if !e.runs() || e.source.Address == "" || e.native != nil && !e.subscribes {
			continue // nothing subscribes for it
		}
		key := feedKey(e.source)
		other := first[key]
		switch {
		case other == nil:
			first[key] = e
		case string(other.source.Options) != string(e.source.Options):
			e.Refused = fmt.Sprintf("%s and %s are one place with different options: give both the same", other.From, e.From)
		}
	}
}

func source(e planned) spot { return spot{e.source.Broker, place(e.source)} }
func sink(e planned) spot   { return spot{e.sink.Broker, place(e.sink)} }

// names returns the names of a shortest way from one spot to another, which is empty where they are one, or nil if there is
// none.
func names(hops []hop, from, to spot) []string {
	type step struct {
		at    spot
		names []string
	}
	queue := []step{{at: from, names: []string{}}}
	seen := map[spot]bool{}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		if s.at == to {
			return s.names
		}
		if seen[s.at] {
			continue
		}
		seen[s.at] = true
		for _, h := range hops {
			if h.from == s.at {
				queue = append(queue, step{h.to, append(slices.Clip(s.names), h.name)})
			}
		}
	}
	return nil
}
