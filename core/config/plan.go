package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
)

// Plan returns what has to run for the site, with nobody there but who is in it.
func (s *Site) Plan() route.Plan { return route.Make(s.Input()) }

// Input returns what the site says of its plan: graphs, settings of edges, and its participants as they are written. The
// caller may add others to Participants, or replace them. Settings may be called concurrently.
func (s *Site) Input() route.Input {
	in := route.Input{StrictTypes: s.StrictTypes, Participants: make(map[string]route.Participant)}
	for _, g := range s.Graphs {
		in.Graphs = append(in.Graphs, route.Graph{Name: g.Name, Graph: g.Graph})
	}
	for _, p := range s.Participants {
		in.Participants[p.Role] = p.Route()
	}
	in.Settings = func(from, to graph.Endpoint) route.Settings {
		e := s.Edge(from.Node, portOf(from), to.Node, portOf(to))
		return route.Settings{
			Require:           route.Guarantee(e.Require),
			DeadLetter:        route.Place(e.DeadLetter),
			DeadLetterTraits:  e.DeadLetterTraits,
			DeadLetterOptions: e.DeadLetterOptions.JSON(),
			DeadLetterReader:  e.DeadLetterReader.JSON(),
			Window:            e.Window,
			Routing:           route.Routing(e.Routing),
		}
	}
	return in
}

// Route returns the participant as a plan sees it: its ports at their places, with what the driver promised for them when
// the site was loaded. Those of a participant that no site has (see ParseParticipant) promise nothing.
func (p Participant) Route() route.Participant {
	return route.Participant{Inports: bindings(p, p.Inports), Outports: bindings(p, p.Outports)}
}

// portOf is the port of an endpoint as a site file names it, with the place of an array port: "in[2]".
func portOf(e graph.Endpoint) string { return strings.TrimPrefix(e.String(), e.Node+".") }

func bindings(p Participant, ports []Port) map[string]route.Port {
	m := make(map[string]route.Port, len(ports))
	for _, port := range ports {
		m[port.Name] = route.Port{
			Broker: p.Broker, Address: port.Address, Type: port.Type, Schema: port.Schema, Options: port.Options.JSON(), Traits: port.Traits,
		}
	}
	return m
}

// checkPlan reports what is wrong with edges only in sight of all of them: circles, ports that cannot share a source, dead
// letters that can be lost, types that do not go together.
func (l *loader) checkPlan() {
	for _, e := range l.site.Plan().Edges {
		where := l.whereEdge(e)
		if e.Refused != "" {
			l.diags.add(Error, where, "Edge refused", "%s: %s", e.ID, ended(e.Refused))
		}
		if e.Warning != "" {
			l.diags.add(Warning, where, "Edge looks wrong", "%s: %s", e.ID, ended(e.Warning))
		}
	}
}

// whereEdge is where an edge has its settings, or else where it is in its graph.
func (l *loader) whereEdge(e route.Edge) hcl.Range {
	want := Edge{From: e.From.Node, FromPort: portOf(e.From), To: e.To.Node, ToPort: portOf(e.To)}
	for _, at := range l.edges {
		if at.same(want) {
			return hcl.RangeBetween(at.labels[0], at.labels[1])
		}
	}
	for _, g := range l.graphs {
		if g.Name == e.Graph {
			return g.whereEdge(e.From, e.To)
		}
	}
	return hcl.Range{Filename: l.file}
}
