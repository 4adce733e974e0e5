package graph_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/flogate/flogate/core/graph"
)

func TestRefusedChangeSaysWhyAndLeavesTheGraphUntouched(t *testing.T) {
	ghost, one := end("ghost.out"), json.RawMessage("1")
	for name, c := range map[string]struct {
		change func(g *graph.Graph) error
		is     error
		says   string
	}{
		"name that is no string": {
			func(g *graph.Graph) error { return g.SetProperty("name", 1) }, nil, "the name of a graph must be a string, not int",
		},
		"node without id": {
			func(g *graph.Graph) error { return g.AddNode(graph.Node{Component: "X"}) }, nil, "node without an id",
		},
		"node without component": {
			func(g *graph.Graph) error { return g.AddNode(graph.Node{ID: "x"}) }, nil, `node "x" has no component`,
		},
		"node twice": {
			func(g *graph.Graph) error { return g.AddNode(graph.Node{ID: "motor", Component: "X"}) },
			graph.ErrExists, `node "motor": already in the graph`,
		},
		"remove no node": {
			func(g *graph.Graph) error { return g.RemoveNode("ghost") }, graph.ErrNotFound, `node "ghost": not in the graph`,
		},
		"rename no node": {
			func(g *graph.Graph) error { return g.RenameNode("ghost", "x") }, graph.ErrNotFound, `node "ghost": not in the graph`,
		},
		"rename to a node that is there": {
			func(g *graph.Graph) error { return g.RenameNode("lamp", "motor") }, graph.ErrExists, `node "motor": already in the graph`,
		},
		"rename to nothing": {
			func(g *graph.Graph) error { return g.RenameNode("lamp", "") }, nil, `node "lamp" cannot be renamed to nothing`,
		},
		"change no node": {
			func(g *graph.Graph) error { return g.ChangeNode("ghost", nil) }, graph.ErrNotFound, `node "ghost": not in the graph`,
		},
		"edge from no node": {
			func(g *graph.Graph) error { return g.AddEdge(graph.Edge{Src: ghost, Tgt: end("lamp.red")}) },
			graph.ErrNotFound, `edge ghost.out -> lamp.red: node "ghost": not in the graph`,
		},
		"edge to no node": {
			func(g *graph.Graph) error { return g.AddEdge(graph.Edge{Src: end("lamp.red"), Tgt: ghost}) },
			graph.ErrNotFound, `edge lamp.red -> ghost.out: node "ghost": not in the graph`,
		},
		"edge to no port": {
			func(g *graph.Graph) error { return g.AddEdge(graph.Edge{Src: end("lamp.red"), Tgt: end("lamp.")}) },
			nil, `edge lamp.red -> lamp.: node "lamp": port without a name`,
		},
		"edge twice, in other case": {
			func(g *graph.Graph) error {
				return g.AddEdge(graph.Edge{Src: end("button.PRESSED"), Tgt: end("motor.Start")})
			},
			graph.ErrExists, "edge button.pressed -> motor.start: already in the graph",
		},
		"remove no edge": {
			func(g *graph.Graph) error { return g.RemoveEdge(end("button.pressed"), end("lamp.red")) },
			graph.ErrNotFound, "edge button.pressed -> lamp.red: not in the graph",
		},
		"remove an edge at another place": {
			func(g *graph.Graph) error {
				return g.RemoveEdge(graph.Endpoint{Node: "motor", Port: "running", Index: graph.At(1)}, end("lamp.red"))
			},
			graph.ErrNotFound, "edge motor.running[1] -> lamp.red: not in the graph",
		},
		"change no edge": {
			func(g *graph.Graph) error { return g.ChangeEdge(ghost, ghost, nil) },
			graph.ErrNotFound, "edge ghost.out -> ghost.out: not in the graph",
		},
		"packet to no node": {
			func(g *graph.Graph) error { return g.AddInitial(graph.Initial{Data: one, Tgt: ghost}) },
			graph.ErrNotFound, `initial packet for ghost.out: node "ghost": not in the graph`,
		},
		"packet that is not JSON": {
			func(g *graph.Graph) error {
				return g.AddInitial(graph.Initial{Data: json.RawMessage("{"), Tgt: end("lamp.red")})
			},
			nil, "initial packet for lamp.red: unexpected end of JSON input",
		},
		"remove no packet": {
			func(g *graph.Graph) error { _, err := g.RemoveInitial(end("lamp.red")); return err },
			graph.ErrNotFound, "initial packet for lamp.red: not in the graph",
		},
		"export of no node": {
			func(g *graph.Graph) error { return g.AddInport(graph.Exported{Public: "x", Node: "ghost", Port: "in"}) },
			graph.ErrNotFound, `exported inport "x": node "ghost": not in the graph`,
		},
		"export without a name": {
			func(g *graph.Graph) error { return g.AddOutport(graph.Exported{Node: "lamp", Port: "in"}) },
			nil, "exported outport without a name",
		},
		"export twice": {
			func(g *graph.Graph) error {
				return g.AddInport(graph.Exported{Public: "START", Node: "lamp", Port: "red"})
			},
			graph.ErrExists, `exported inport "start": already in the graph`,
		},
		"remove no export": {
			func(g *graph.Graph) error { return g.RemoveOutport("start") },
			graph.ErrNotFound, `exported outport "start": not in the graph`,
		},
		"rename no export": {
			func(g *graph.Graph) error { return g.RenameInport("ghost", "x") },
			graph.ErrNotFound, `exported inport "ghost": not in the graph`,
		},
		"rename an export to nothing": {
			func(g *graph.Graph) error { return g.RenameOutport("running", "") },
			nil, `exported outport "running" cannot be renamed to nothing`,
		},
		"group without a name": {
			func(g *graph.Graph) error { return g.AddGroup(graph.Group{}) }, nil, "group without a name",
		},
		"group of no node": {
			func(g *graph.Graph) error {
				return g.AddGroup(graph.Group{Name: "x", Nodes: []string{"lamp", "ghost"}})
			},
			graph.ErrNotFound, `group "x": node "ghost": not in the graph`,
		},
		"group twice": {
			func(g *graph.Graph) error { return g.AddGroup(graph.Group{Name: "signals"}) },
			graph.ErrExists, `group "signals": already in the graph`,
		},
		"remove no group": {
			func(g *graph.Graph) error { return g.RemoveGroup("ghost") }, graph.ErrNotFound, `group "ghost": not in the graph`,
		},
		"rename no group": {
			func(g *graph.Graph) error { return g.RenameGroup("ghost", "x") }, graph.ErrNotFound, `group "ghost": not in the graph`,
		},
		"change no group": {
			func(g *graph.Graph) error { return g.ChangeGroup("ghost", nil) }, graph.ErrNotFound, `group "ghost": not in the graph`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := motorControl(t)
			before := g.Clone()
			err := c.change(g)
			if err == nil || err.Error() != c.says || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %s", err, c.says)
			}
			sameGraph(t, before, g)
		})
	}
}

func TestRemovedNodeTakesAlongWhatHangsOnIt(t *testing.T) {
	g := motorControl(t)
	must(t, g.AddGroup(graph.Group{Name: "alone", Nodes: []string{"motor"}}), g.RemoveNode("motor"), g.RemoveNode("button"))
	want := graph.New("motorcontrol")
	want.Properties = g.Properties
	must(t,
		want.AddNode(graph.Node{ID: "spare", Component: "demo/Spare"}),
		want.AddNode(graph.Node{ID: "lamp", Component: "demo/Light", Metadata: graph.Metadata{"routes": "main"}}),
		want.AddInitial(graph.Initial{Data: json.RawMessage(`"it's on"`), Tgt: end("lamp.text")}),
		want.AddInitial(graph.Initial{Data: json.RawMessage(`true`), Tgt: end("lamp.text")}),
		want.AddGroup(graph.Group{Name: "signals", Nodes: []string{"lamp"}, Metadata: graph.Metadata{"description": "what people touch"}}),
	)
	sameGraph(t, want, g)
}

func TestRenamedNodeKeepsWhatHangsOnIt(t *testing.T) {
	g := motorControl(t)
	before := g.Clone()
	must(t, g.RenameNode("motor", "engine"))
	for _, e := range g.Edges {
		if e.Src.Node == "motor" || e.Tgt.Node == "motor" {
			t.Errorf("edge %v", e)
		}
	}
	if g.Initials[0].Tgt != end("engine.config") || g.Inports[0].Node != "engine" || g.Outports[0].Node != "engine" {
		t.Errorf("got %+v", g)
	}
	must(t, g.RenameNode("engine", "motor"))
	sameGraph(t, before, g)
}

func TestEndWithoutIndexMeansEveryPlaceOfAnArrayPort(t *testing.T) {
	g := motorControl(t)
	must(t, g.ChangeEdge(end("motor.running"), end("lamp.red"), graph.Metadata{"route": 1.0}))
	if e, ok := g.Edge(graph.Endpoint{Node: "motor", Port: "RUNNING", Index: graph.At(0)}, end("lamp.red")); !ok || e.Metadata["route"] != 1.0 {
		t.Errorf("got %+v", e)
	}
	must(t, g.RemoveEdge(end("motor.running"), end("lamp.red")))
	if len(g.Edges) != 1 {
		t.Errorf("got %v", g.Edges)
	}
	// But where there is an edge without an index, only that is meant.
	plain := graph.Edge{Src: end("motor.running"), Tgt: end("lamp.red")}
	indexed := plain
	indexed.Src.Index = graph.At(3)
	must(t, g.AddEdge(indexed), g.AddEdge(plain), g.RemoveEdge(plain.Src, plain.Tgt))
	if _, ok := g.Edge(indexed.Src, indexed.Tgt); !ok || len(g.Edges) != 2 {
		t.Errorf("got %v", g.Edges)
	}
}

func TestRemovedPacketsAreReturned(t *testing.T) {
	g := motorControl(t)
	removed, err := g.RemoveInitial(end("lamp.TEXT"))
	must(t, err)
	if len(removed) != 2 || string(removed[0].Data) != `"it's on"` || string(removed[1].Data) != "true" || len(g.Initials) != 1 {
		t.Errorf("removed %v, left %v", removed, g.Initials)
	}
}

func TestMetadataIsMergedAndNilRemoves(t *testing.T) {
	g := motorControl(t)
	must(t,
		g.ChangeNode("button", graph.Metadata{"x": nil, "y": 1.0, "label": "b"}),
		g.ChangeGroup("signals", graph.Metadata{"description": nil}),
	)
	if n, _ := g.Node("button"); !n.Metadata.Equal(graph.Metadata{"y": 1.0, "label": "b"}) {
		t.Errorf("got %v", n.Metadata)
	}
	if len(g.Groups[0].Metadata) != 0 {
		t.Errorf("got %v", g.Groups[0].Metadata)
	}
}

func TestPropertiesAreSetAndNilRemoves(t *testing.T) {
	g := graph.New("")
	must(t,
		g.SetProperty("name", "n"), g.SetProperty("icon", "cogs"), g.SetProperty("description", "d"),
		g.SetProperty("environment", map[string]any{"type": "msgflo"}), g.SetProperty("icon", nil),
	)
	if g.Name != "n" || g.Runtime() != "msgflo" || len(g.Properties) != 2 {
		t.Errorf("got %+v", g)
	}
}

// TestCloneSharesNothing makes every kind of change to a clone.
func TestCloneSharesNothing(t *testing.T) {
	for _, file := range []string{"testdata/write/from-lines.fbp", "testdata/write/from-saved.json"} {
		g := load(t, file)
		c := g.Clone()
		must(t,
			c.ChangeNode("button", graph.Metadata{"x": 5.0}),
			c.RenameNode("motor", "engine"),
			c.RenameInport("go", "begin"),
			c.RemoveEdge(end("button.pressed"), end("engine.start")),
			c.AddGroup(graph.Group{Name: "new", Nodes: []string{"engine"}}),
			c.RemoveNode("warninglight"),
		)
		c.Properties["icon"] = "x"
		sameGraph(t, load(t, file), g)
		must(t, g.RenameNode("motor", "machine")) // the names in the text are not shared either
		out, err := g.Clone().JSON()
		must(t, err)
		if again, err := graph.ParseJSON("again", out); err != nil || !again.Equal(g) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func TestIndexZeroIsAPlaceAndNoIndexIsNone(t *testing.T) {
	if i, ok := graph.At(0).Value(); i != 0 || !ok {
		t.Error("place 0 is lost")
	}
	if _, ok := graph.Index(0).Value(); ok {
		t.Error("the zero Index is a place")
	}
	if graph.At(-1) != graph.Index(0) {
		t.Error("a negative place is one")
	}
}
