package main

import (
	"fmt"
	"strings"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
)

// makePlan turns a site into a plan.
func makePlan(site *config.Site) route.Plan {
	in := route.Input{StrictTypes: site.StrictTypes, Participants: make(map[string]route.Participant)}
	for _, g := range site.Graphs {
		in.Graphs = append(in.Graphs, route.Graph{Name: g.Name, Graph: g.Graph})
	}
	for _, p := range site.Participants {
		in.Participants[p.Role] = route.Participant{Inports: ports(p, p.Inports), Outports: ports(p, p.Outports)}
	}
	in.Settings = func(from, to graph.Endpoint) route.Settings {
		e := site.Edge(from.Node, portOf(from), to.Node, portOf(to))
		return route.Settings{
			Require:          route.Guarantee(e.Require),
			DeadLetter:       route.Place(e.DeadLetter),
			DeadLetterTraits: e.DeadLetterTraits,
			Window:           e.Window,
		}
	}
	return route.Make(in)
}

// portOf is the port of an endpoint as a site file names it, with the place of an array port: "in[2]".
func portOf(e graph.Endpoint) string { return strings.TrimPrefix(e.String(), e.Node+".") }

func ports(p config.Participant, list []config.Port) map[string]route.Port {
	m := make(map[string]route.Port, len(list))
	for _, port := range list {
		m[port.Name] = route.Port{
			Broker: p.Broker, Address: port.Address, Type: port.Type, Schema: port.Schema, Options: port.Options.JSON(), Traits: port.Traits,
		}
	}
	return m
}

// refusals are the edges that a site must not be started with: what it requires cannot be had.
func refusals(plan route.Plan) []error {
	var errs []error
	for _, e := range plan.Edges {
		if e.Refused != "" {
			errs = append(errs, fmt.Errorf("edge %s: %s", e.ID, e.Refused))
		}
	}
	return errs
}
