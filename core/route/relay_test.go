package route_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// Whatever the graph: an edge that may run is carried by something that is in the plan, and one that may not by nothing.
func TestEveryEdgeIsCarriedOrSaysWhyNot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := graph.New("main")
		in := route.Input{Participants: map[string]route.Participant{}, StrictTypes: rapid.Bool().Draw(t, "strict")}
		var nodes []string
		for i := range rapid.IntRange(2, 7).Draw(t, "nodes") {
			id := fmt.Sprintf("n%d", i)
			component := rapid.SampledFrom([]string{"x", "x", "msgflo/RoundRobin", "msgflo/PubSub"}).Draw(t, "component")
			nodes = append(nodes, id)
			g.Nodes = append(g.Nodes, graph.Node{ID: id, Component: component})
			if component != "x" || rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
				continue
			}
			port := func(kind transport.PlaceKind) map[string]route.Port {
				broker := rapid.SampledFrom([]string{"amqp.q", "amqp.q", "mqtt.m"}).Draw(t, "broker")
				if broker == "mqtt.m" {
					kind = 0
				}
				return map[string]route.Port{"p": {
					Broker: broker, Address: rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "address"),
					Type: rapid.SampledFrom([]string{"", "", "string", "int"}).Draw(t, "type"),
					Traits: transport.Traits{
						Acks: rapid.Bool().Draw(t, "acks"), Confirms: rapid.Bool().Draw(t, "confirms"), Kind: kind,
					},
				}}
			}
			in.Participants[id] = route.Participant{Outports: port(transport.Fanout), Inports: port(transport.Queue)}
		}
		relay := func(id string) bool {
			n, _ := g.Node(id)
			return route.IsRelay(n.Component)
		}
		settings := map[string]route.Settings{}
		for range rapid.IntRange(1, 12).Draw(t, "edges") {
			e := graph.Edge{
				Src: graph.Endpoint{Node: rapid.SampledFrom(nodes).Draw(t, "from"), Port: "p"},
				Tgt: graph.Endpoint{Node: rapid.SampledFrom(nodes).Draw(t, "to"), Port: "p"},
			}
			if relay(e.Src.Node) {
				e.Src.Port = rapid.SampledFrom([]string{"out", "out", "deadletter", "other"}).Draw(t, "outport")
			}
			if relay(e.Tgt.Node) {
				e.Tgt.Port = "in"
			}
			if slices.ContainsFunc(g.Edges, func(o graph.Edge) bool { return o.Src == e.Src && o.Tgt == e.Tgt }) {
				continue
			}
			g.Edges = append(g.Edges, e)
			settings[e.Src.String()+e.Tgt.String()] = route.Settings{
				Routing: rapid.SampledFrom([]route.Routing{"", "", route.Gateway, route.Broker}).Draw(t, "routing"),
				Require: rapid.SampledFrom([]route.Guarantee{"", "", route.AtLeastOnce}).Draw(t, "require"),
			}
		}
		in.Settings = func(from, to graph.Endpoint) route.Settings { return settings[from.String()+to.String()] }
		in.Graphs = []route.Graph{{Name: "main", Graph: g}}
		plan := route.Make(in)
		if len(plan.Edges) != len(g.Edges) {
			t.Fatalf("%d edges in the graph, %d in the plan", len(g.Edges), len(plan.Edges))
		}
		carried := map[string]bool{} // targets that an edge names
		for _, e := range plan.Edges {
			runs := e.Pending == "" && e.Refused == "" && !e.SamePlace
			if has := len(e.Carriers)+len(e.Natives) > 0; has && !runs {
				t.Fatalf("%s does not run, and is carried: %+v", e.ID, e)
			}
			if runs && len(e.Carriers)+len(e.Natives) == 0 {
				t.Fatalf("%s runs, and nothing carries it: %+v", e.ID, e)
			}
			for _, c := range e.Carriers {
				i := slices.IndexFunc(plan.Feeds, func(f route.Feed) bool { return f.Key == c.Feed })
				if i < 0 {
					t.Fatalf("%s is carried by no feed %s", e.ID, c.Feed)
				}
				j := slices.IndexFunc(plan.Feeds[i].Targets, func(target route.Target) bool { return target.ID == c.Target })
				if j < 0 {
					t.Fatalf("%s is carried by no target %s", e.ID, c.Target)
				}
				target := plan.Feeds[i].Targets[j]
				carried[target.ID] = true
				if c.Member != "" && !slices.ContainsFunc(target.Members, func(m route.Member) bool { return m.ID == c.Member }) {
					t.Fatalf("%s is carried by no member %s", e.ID, c.Member)
				}
				if !slices.Contains(target.Edges, e.ID) {
					t.Fatalf("target %s does not know that it carries %s", target.ID, e.ID)
				}
			}
			for _, id := range e.Natives {
				if !slices.ContainsFunc(plan.Natives, func(n route.Native) bool { return n.ID == id }) {
					t.Fatalf("%s is carried by no binding %s", e.ID, id)
				}
			}
			if want := settings[e.From.String()+e.To.String()].Require; want != "" && runs && len(e.Natives) > 0 && len(e.Carriers) == 0 && relay(e.To.Node) {
				t.Fatalf("%s requires %s, and the broker carries it", e.ID, want)
			}
		}
		for _, f := range plan.Feeds {
			seen := map[string]bool{}
			for _, target := range f.Targets {
				if seen[target.ID] || !carried[target.ID] {
					t.Fatalf("target %s is there twice, or for no edge", target.ID)
				}
				seen[target.ID] = true
			}
		}
	})
}

// An edge that the broker carries to one, and we to another, subscribes: with other options at the same place it cannot.
func TestConflictOfOptionsIsSeenBehindARelay(t *testing.T) {
	g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN all(msgflo/PubSub)\nall OUT -> IN b(x)\nall OUT -> IN c(x)\na2(x) OUT -> IN d(x)"))
	if err != nil {
		t.Fatal(err)
	}
	out := func(options string) route.Participant {
		return route.Participant{Outports: map[string]route.Port{"out": {
			Broker: "q", Address: "a", Options: []byte(options), Traits: transport.Traits{Acks: true, Kind: transport.Fanout},
		}}}
	}
	in := func(address string) route.Participant {
		return route.Participant{Inports: map[string]route.Port{"in": {
			Broker: "q", Address: address, Traits: transport.Traits{Confirms: true, Kind: transport.Queue},
		}}}
	}
	plan := route.Make(route.Input{
		Graphs:       []route.Graph{{Name: "main", Graph: g}},
		Participants: map[string]route.Participant{"a": out(`{"x":1}`), "a2": out(`{"x":2}`), "b": in("b"), "c": in("c"), "d": in("d")},
		Settings: func(_, to graph.Endpoint) route.Settings {
			if to.Node == "b" {
				return route.Settings{Routing: route.Broker}
			}
			return route.Settings{}
		},
	})
	last := plan.Edges[len(plan.Edges)-1]
	if !strings.Contains(last.Refused, "one place with different options") {
		t.Errorf("%s is refused because of %q; want that the options differ", last.ID, last.Refused)
	}
	if len(plan.Natives) != 1 || len(plan.Feeds) != 1 {
		t.Errorf("%d ways of the broker's and %d feeds; want one of each", len(plan.Natives), len(plan.Feeds))
	}
}
