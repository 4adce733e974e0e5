package route

import (
	"fmt"
	"strings"
)

// spot is a place on a broker, as a vertex of what carries messages where.
type spot struct{ broker, place string }

// refuseCircles refuses every edge that is part of a circle of places: what goes in there would go round for ever, at
// full speed. Only equal places are seen; what a filter matches is known to its broker alone.
func (p *planner) refuseCircles() {
	next := make(map[spot][]int) // edges by the spot that they leave
	for i, e := range p.edges {
		if e.Pending == "" && e.Refused == "" && !e.SamePlace {
			next[source(e)] = append(next[source(e)], i)
		}
	}
	for i := range p.edges {
		e := &p.edges[i]
		if e.Pending != "" || e.Refused != "" || e.SamePlace {
			continue
		}
		if way := p.way(next, sink(*e), source(*e)); way != nil {
			names := []string{e.ID}
			for _, j := range way {
				names = append(names, p.edges[j].ID)
			}
			e.Refused = fmt.Sprintf("it would carry messages in a circle: %s", strings.Join(names, ", then "))
		}
	}
}

func source(e planned) spot { return spot{e.source.Broker, place(e.source)} }
func sink(e planned) spot   { return spot{e.sink.Broker, place(e.sink)} }

// way returns the edges of a shortest way from one spot to another, or nil if there is none. Edges that were refused in
// the meantime still count, so that all edges of a circle are refused and not all but the last.
func (p *planner) way(next map[spot][]int, from, to spot) []int {
	came := map[spot]int{} // the edge by which a spot was reached
	queue := []spot{from}
	seen := map[spot]bool{from: true}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, i := range next[at] {
			s := sink(p.edges[i])
			if seen[s] {
				continue
			}
			seen[s], came[s] = true, i
			if s != to {
				queue = append(queue, s)
				continue
			}
			var way []int
			for s != from {
				way = append([]int{came[s]}, way...)
				s = source(p.edges[came[s]])
			}
			return way
		}
	}
	return nil
}
