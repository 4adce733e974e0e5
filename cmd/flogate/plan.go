package main

import (
	"fmt"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
)

// makePlan turns a site into a plan. Graphs have been checked when the site was loaded.
func makePlan(site *config.Site) (route.Plan, error) {
	in := route.Input{Participants: make(map[string]route.Participant)}
	for _, g := range site.Graphs {
		name := g.File
		if name == "" {
			name = g.Name + "." + g.Format
		}
		parse := graph.ParseFBP
		if g.Format == "json" {
			parse = graph.ParseJSON
		}
		parsed, err := parse(name, []byte(g.Source))
		if err != nil {
			return route.Plan{}, err
		}
		in.Graphs = append(in.Graphs, route.Graph{Name: g.Name, Graph: parsed})
	}
	for _, p := range site.Participants {
		in.Participants[p.Role] = route.Participant{Inports: ports(p, p.Inports), Outports: ports(p, p.Outports)}
	}
	in.Settings = func(from, to graph.Endpoint) route.Settings {
		e := site.Edge(from.Node, from.Port, to.Node, to.Port)
		return route.Settings{
			Require:    route.Guarantee(e.Require),
			DeadLetter: route.Place(e.DeadLetter),
			Window:     e.Window,
		}
	}
	return route.Make(in), nil
}

func ports(p config.Participant, list []config.Port) map[string]route.Port {
	m := make(map[string]route.Port, len(list))
	for _, port := range list {
		m[port.Name] = route.Port{
			Broker: p.Broker, Address: port.Address, Type: port.Type, Options: port.Options.JSON(), Traits: port.Traits,
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
