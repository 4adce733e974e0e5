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
	for i, e := range p.edges {
		if !e.runs() {
			continue
		}
		hops = append(hops, hop{i, e.ID, source(e), sink(e)})
		if dead := e.settings.DeadLetter; dead != (Place{}) {
			hops = append(hops, hop{i, "the dead letters of " + e.ID, source(e), spot{
				dead.Broker, place(Port{Address: dead.Address, Traits: e.settings.DeadLetterTraits}),
			}})
		}
	}
	for _, first := range hops {
		e := &p.edges[first.edge]
		if e.Refused != "" {
			continue // its dead letters go round too, and once is enough to say
		}
		if way := way(hops, first.to, first.from); way != nil {
			e.Refused = fmt.Sprintf("it would carry messages in a circle: %s",
				strings.Join(append([]string{first.name}, way...), ", then "))
		}
	}
}

// runs says whether an edge has to be carried.
func (e *planned) runs() bool { return e.Pending == "" && e.Refused == "" && !e.SamePlace }

// hop is a way from one spot to another, which an edge takes.
type hop struct {
	edge     int // its index among the planned
	name     string
	from, to spot
}

// refuseConflicts refuses an edge whose source another edge subscribes to with other options: the broker keeps one thing for
// both, so that they would change it under each other.
func (p *planner) refuseConflicts() {
	first := make(map[string]*planned)
	for i := range p.edges {
		e := &p.edges[i]
		if !e.runs() {
			continue
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

// way returns the names of a shortest way from one spot to another, which is empty where they are one, or nil if there is
// none.
func way(hops []hop, from, to spot) []string {
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
