package graph_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/graph"
)

func TestUntouchedGraphIsWrittenByteForByte(t *testing.T) {
	for _, file := range append(glob(t, "testdata/fbp/*.fbp", 50), glob(t, "testdata/json/*.json", 10)...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, opts := range [][]graph.Option{nil, {graph.CaseSensitive()}} {
				g := load(t, file, opts...)
				write := g.FBP
				if filepath.Ext(file) == ".json" {
					write = g.JSON
				}
				out, err := write()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(src), string(out)); diff != "" {
					t.Errorf("(-read +written):\n%s", diff)
				}
			}
		})
	}
}

// TestEveryGraphGoesThroughTheOtherFormat reads each text, writes it in the other format and reads that.
func TestEveryGraphGoesThroughTheOtherFormat(t *testing.T) {
	for _, file := range append(glob(t, "testdata/fbp/*.fbp", 50), glob(t, "testdata/json/*.json", 10)...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			g := load(t, file)
			if filepath.Ext(file) == ".json" {
				out, err := g.FBP()
				if hasOddNames := map[string]bool{"full.json": true, "escapes.json": true}; hasOddNames[filepath.Base(file)] {
					if err == nil {
						t.Errorf("written as\n%s", out)
					}
					return
				}
				must(t, err)
				again, err := graph.ParseFBP(file, out)
				if err != nil {
					t.Fatalf("%v in\n%s", err, out)
				}
				if len(again.Nodes) != len(g.Nodes) || len(again.Edges) != len(g.Edges) || len(again.Initials) != len(g.Initials) {
					t.Errorf("something is missing in\n%s", out)
				}
				if len(g.LostInFBP()) == 0 {
					sameGraph(t, g, again)
				}
				return
			}
			out, err := g.JSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := graph.ParseJSON(file, out)
			if err != nil {
				t.Fatalf("%v in\n%s", err, out)
			}
			sameGraph(t, g, again)
		})
	}
}

func TestNewGraphIsWrittenLikeThis(t *testing.T) {
	g := motorControl(t)
	out, err := g.FBP()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/write/new.fbp", out)
	if out, err = g.JSON(); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/write/new.json", out)
}

// motorControl builds a graph by changes, with something of everything.
func motorControl(t testing.TB) *graph.Graph {
	t.Helper()
	g := graph.New("motorcontrol")
	g.Properties = graph.Metadata{"environment": map[string]any{"type": "msgflo"}, "description": "one motor, one button"}
	button, motor, lamp := graph.Endpoint{Node: "button", Port: "pressed"}, graph.Endpoint{Node: "motor", Port: "start"}, graph.Endpoint{Node: "lamp", Port: "red"}
	must(t,
		g.AddNode(graph.Node{ID: "button", Component: "demo/Button", Metadata: graph.Metadata{"x": 36.0, "y": 72.0}}),
		g.AddNode(graph.Node{ID: "spare", Component: "demo/Spare"}),
		g.AddNode(graph.Node{ID: "motor", Component: "demo/Motor"}),
		g.AddNode(graph.Node{ID: "lamp", Component: "demo/Light", Metadata: graph.Metadata{"routes": "main"}}),
		g.AddEdge(graph.Edge{Src: button, Tgt: motor, Metadata: graph.Metadata{"route": 3.0}}),
		g.AddEdge(graph.Edge{Src: graph.Endpoint{Node: "motor", Port: "running", Index: graph.At(0)}, Tgt: lamp}),
		g.AddInitial(graph.Initial{Data: json.RawMessage(`{ "rpm": 1500 }`), Tgt: graph.Endpoint{Node: "motor", Port: "config"}}),
		g.AddInitial(graph.Initial{Data: json.RawMessage(`"it's on"`), Tgt: graph.Endpoint{Node: "lamp", Port: "text"}}),
		g.AddInitial(graph.Initial{Data: json.RawMessage(`true`), Tgt: graph.Endpoint{Node: "lamp", Port: "text"}}),
		g.AddInport(graph.Exported{Public: "start", Node: "motor", Port: "start"}),
		g.AddOutport(graph.Exported{Public: "running", Node: "motor", Port: "running"}),
		g.AddGroup(graph.Group{Name: "signals", Nodes: []string{"button", "lamp"}, Metadata: graph.Metadata{"description": "what people touch"}}),
	)
	return g
}

func TestLossInFBPIsNamed(t *testing.T) {
	g := motorControl(t)
	want := []string{
		`property "description"`,
		`button.pressed -> motor.start: metadata`,
		`group "signals"`,
	}
	same(t, "lost", want, g.LostInFBP())
}

func TestWhatFBPCannotSayIsAnError(t *testing.T) {
	for _, change := range map[string]func(g *graph.Graph) error{
		"node":      func(g *graph.Graph) error { return g.AddNode(graph.Node{ID: "core/Repeat_1", Component: "X"}) },
		"component": func(g *graph.Graph) error { return g.AddNode(graph.Node{ID: "a", Component: "my component"}) },
		"port": func(g *graph.Graph) error {
			return g.AddInitial(graph.Initial{Data: json.RawMessage("1"), Tgt: graph.Endpoint{Node: "lamp", Port: "1st"}})
		},
	} {
		g := motorControl(t)
		must(t, change(g))
		if out, err := g.FBP(); err == nil {
			t.Errorf("written as\n%s", out)
		}
	}
}

func TestPortsThatKeepTheirCaseSaySoInFBP(t *testing.T) {
	g := graph.New("")
	g.CaseSensitive = true
	must(t,
		g.AddNode(graph.Node{ID: "a", Component: "A"}),
		g.AddEdge(graph.Edge{Src: graph.Endpoint{Node: "a", Port: "dataOut"}, Tgt: graph.Endpoint{Node: "a", Port: "dataIn"}}),
	)
	out, err := g.FBP()
	if err != nil {
		t.Fatal(err)
	}
	if want := "# @caseSensitive true\n\na(A) dataOut -> dataIn a\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	again, err := graph.ParseFBP("again.fbp", out)
	if err != nil {
		t.Fatal(err)
	}
	sameGraph(t, g, again)
}

// TestChangesLeaveTheRestOfTheText applies changes to texts with all kinds of formatting and compares the whole result.
func TestChangesLeaveTheRestOfTheText(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, g *graph.Graph){
		"add": func(t *testing.T, g *graph.Graph) {
			must(t,
				g.AddNode(graph.Node{ID: "horn", Component: "demo/Horn", Metadata: graph.Metadata{"x": 1.0}}),
				g.AddNode(graph.Node{ID: "idle", Component: "demo/Idle"}),
				g.AddEdge(graph.Edge{Src: end("motor.running"), Tgt: end("horn.blow")}),
				g.AddInitial(graph.Initial{Data: json.RawMessage(`"loud"`), Tgt: end("horn.how")}),
				g.AddInport(graph.Exported{Public: "blow", Node: "horn", Port: "blow"}),
				g.AddOutport(graph.Exported{Public: "blown", Node: "horn", Port: "done"}),
			)
			g.Properties["icon"] = "cogs"
		},
		"remove-edge": func(t *testing.T, g *graph.Graph) {
			must(t, g.RemoveEdge(end("button.pressed"), end("motor.start")))
		},
		"remove-middle-edge": func(t *testing.T, g *graph.Graph) {
			must(t, g.RemoveEdge(end("motor.running"), end("warninglight.red")))
		},
		"remove-node": func(t *testing.T, g *graph.Graph) {
			must(t, g.RemoveNode("motor"))
		},
		"remove-and-add-edge": func(t *testing.T, g *graph.Graph) {
			must(t,
				g.RemoveEdge(end("button.pressed"), end("motor.start")),
				g.AddEdge(graph.Edge{Src: end("button.pressed"), Tgt: end("motor.start")}),
			)
		},
		"remove-and-add-node": func(t *testing.T, g *graph.Graph) {
			must(t, g.RemoveNode("button"), g.AddNode(graph.Node{ID: "button", Component: "demo/Button"}))
		},
		"rename": func(t *testing.T, g *graph.Graph) {
			must(t, g.RenameNode("motor", "engine"), g.RenameInport("go", "begin"), g.RenameOutport("runs", "turning"))
		},
		"metadata": func(t *testing.T, g *graph.Graph) {
			must(t,
				g.ChangeNode("motor", graph.Metadata{"x": 100.0, "y": 20.0, "routes": nil}),
				g.ChangeNode("warninglight", graph.Metadata{"label": "lamp"}),
			)
		},
		"properties": func(t *testing.T, g *graph.Graph) {
			g.Name = "renamed"
			delete(g.Properties, "description")
			g.Properties["environment"] = map[string]any{"type": "noflo-nodejs"}
		},
		"remove-exports": func(t *testing.T, g *graph.Graph) {
			must(t, g.RemoveInport("go"), g.RemoveOutport("runs"))
		},
		"remove-packets": func(t *testing.T, g *graph.Graph) {
			_, err := g.RemoveInitial(end("motor.config"))
			must(t, err)
		},
		"remove-all": func(t *testing.T, g *graph.Graph) {
			for _, n := range slices.Clone(g.Nodes) {
				must(t, g.RemoveNode(n.ID))
			}
		},
	} {
		for _, from := range glob(t, "testdata/write/from*", 4) {
			t.Run(name+"/"+filepath.Base(from), func(t *testing.T) {
				g := load(t, from)
				before := g.Clone()
				change(t, g)
				write, parse := g.FBP, graph.ParseFBP
				if filepath.Ext(from) == ".json" {
					write, parse = g.JSON, graph.ParseJSON
				}
				out, err := write()
				if err != nil {
					t.Fatal(err)
				}
				again, err := parse("again", out)
				if err != nil {
					t.Fatalf("%v in\n%s", err, out)
				}
				sameGraph(t, g, again)
				stem, ext := strings.TrimSuffix(filepath.Base(from), filepath.Ext(from)), filepath.Ext(from)
				golden(t, "testdata/write/"+strings.TrimPrefix(stem, "from-")+"."+name+ext, out)
				sameGraph(t, load(t, from), before)
			})
		}
	}
}

// TestAnyChangesReadBackTheSame makes random changes to the graphs of the test data, and writes and reads them after each.
func TestAnyChangesReadBackTheSame(t *testing.T) {
	var graphs []*graph.Graph
	for _, file := range append(glob(t, "testdata/fbp/*.fbp", 50), glob(t, "testdata/json/*.json", 10)...) {
		graphs = append(graphs, load(t, file))
	}
	graphs = append(graphs, graph.New("new"))
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(graphs).Draw(t, "graph").Clone()
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			before := g.Clone()
			if err := drawChange(t, g); err != nil {
				if !g.Equal(before) {
					t.Fatalf("a change failed (%v) and left something behind", err)
				}
				continue
			}
			readBack(t, g)
		}
	})
}

func readBack(t *rapid.T, g *graph.Graph) {
	before := g.Clone()
	out, err := g.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := graph.ParseJSON("again.json", out)
	if err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if !again.Equal(g) {
		t.Fatalf("JSON reads back as something else (-want +got):\n%s\n%s", difference(g, again), out)
	}
	if out, err = g.FBP(); err == nil {
		again, err = graph.ParseFBP("again.fbp", out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if len(g.LostInFBP()) == 0 && !again.Equal(g) {
			t.Fatalf(".fbp reads back as something else (-want +got):\n%s\n%s", difference(g, again), out)
		}
		twice, err := again.FBP()
		if err != nil || string(twice) != string(out) {
			t.Fatalf("written twice it differs: %v\n%s", err, cmp.Diff(string(out), string(twice)))
		}
	}
	if !g.Equal(before) {
		t.Fatal("writing changed the graph")
	}
}

// drawChange makes one random change, which may fail.
func drawChange(t *rapid.T, g *graph.Graph) error {
	names := []string{"a", "b", "c", "_B_1", "new", "x-1"}
	for _, n := range g.Nodes {
		names = append(names, n.ID)
	}
	node := rapid.SampledFrom(names)
	port := rapid.SampledFrom([]string{"in", "OUT", "opt", "x.1", "Y_2"})
	component := rapid.SampledFrom([]string{"A", "B", "core/Repeat", "a-b/c"})
	public := rapid.SampledFrom([]string{"p", "q", "FileName", "x", "x.y", "out"})
	meta := rapid.Custom(func(t *rapid.T) graph.Metadata {
		m := graph.Metadata{}
		for range rapid.IntRange(0, 2).Draw(t, "keys") {
			key := rapid.SampledFrom([]string{"x", "y", "label", "routes", "with space"}).Draw(t, "key")
			switch {
			case rapid.IntRange(0, 4).Draw(t, "remove") == 0:
				m[key] = nil
			case key == "x" || key == "y":
				m[key] = float64(rapid.IntRange(-2, 500).Draw(t, "number"))
			default:
				m[key] = rapid.SampledFrom([]string{"main", "a/b", "two words", ""}).Draw(t, "text")
			}
		}
		return m
	})
	place := rapid.Custom(func(t *rapid.T) graph.Endpoint {
		return graph.Endpoint{
			Node: node.Draw(t, "node"), Port: port.Draw(t, "port"),
			Index: graph.At(rapid.IntRange(-3, 2).Draw(t, "index")),
		}
	})
	edge := func() graph.Edge {
		if len(g.Edges) > 0 && rapid.Bool().Draw(t, "an edge that is there") {
			return rapid.SampledFrom(g.Edges).Draw(t, "edge")
		}
		return graph.Edge{Src: place.Draw(t, "src"), Tgt: place.Draw(t, "tgt")}
	}
	data := rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) json.RawMessage { raw, _ := json.Marshal(s); return raw }),
		rapid.SampledFrom([]json.RawMessage{
			json.RawMessage(`true`), json.RawMessage(`null`), json.RawMessage(`-1.50`), json.RawMessage(`{ "b": [1], "a": {} }`),
			json.RawMessage(`"it's \\'"`), json.RawMessage(`"ends with \\"`), json.RawMessage(`"two\nlines"`), json.RawMessage(`"\ud800"`),
		}),
	)
	switch rapid.IntRange(0, 17).Draw(t, "change") {
	case 0:
		return g.AddNode(graph.Node{ID: node.Draw(t, "id"), Component: component.Draw(t, "component"), Metadata: noNil(meta.Draw(t, "metadata"))})
	case 1:
		return g.RemoveNode(node.Draw(t, "id"))
	case 2:
		return g.RenameNode(node.Draw(t, "from"), node.Draw(t, "to"))
	case 3:
		return g.ChangeNode(node.Draw(t, "id"), meta.Draw(t, "metadata"))
	case 4, 5, 6:
		return g.AddEdge(edge())
	case 7:
		e := edge()
		return g.RemoveEdge(e.Src, e.Tgt)
	case 8:
		e := edge()
		return g.ChangeEdge(e.Src, e.Tgt, meta.Draw(t, "metadata"))
	case 9, 10:
		return g.AddInitial(graph.Initial{Data: data.Draw(t, "data"), Tgt: place.Draw(t, "tgt")})
	case 11:
		_, err := g.RemoveInitial(place.Draw(t, "tgt"))
		return err
	case 12:
		return g.AddInport(graph.Exported{Public: public.Draw(t, "public"), Node: node.Draw(t, "node"), Port: port.Draw(t, "port")})
	case 13:
		return g.AddOutport(graph.Exported{Public: public.Draw(t, "public"), Node: node.Draw(t, "node"), Port: port.Draw(t, "port")})
	case 14:
		return errors.Join(g.RenameInport(public.Draw(t, "from"), public.Draw(t, "to")))
	case 15:
		return g.RemoveOutport(public.Draw(t, "public"))
	case 16:
		return g.AddGroup(graph.Group{Name: public.Draw(t, "name"), Nodes: []string{node.Draw(t, "node")}})
	default:
		g.Name = rapid.SampledFrom([]string{"", "name", "Two words", "odd: name"}).Draw(t, "name")
		return nil
	}
}

func noNil(m graph.Metadata) graph.Metadata {
	for k, v := range m {
		if v == nil {
			delete(m, k)
		}
	}
	return m
}

func end(s string) graph.Endpoint {
	node, port, _ := strings.Cut(s, ".")
	return graph.Endpoint{Node: node, Port: port}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func sameGraph(t testing.TB, want, got *graph.Graph) {
	t.Helper()
	if !want.Equal(got) {
		t.Errorf("(-want +got):\n%s", difference(want, got))
	}
}

// difference shows the fields, which cmp would otherwise compare by Equal alone.
func difference(want, got *graph.Graph) string {
	type plain struct {
		Name              string
		CaseSensitive     bool
		Properties        map[string]any
		Nodes             []graph.Node
		Edges             []graph.Edge
		Initials          []graph.Initial
		Inports, Outports []graph.Exported
		Groups            []graph.Group
	}
	of := func(g *graph.Graph) plain {
		return plain{g.Name, g.CaseSensitive, g.Properties, g.Nodes, g.Edges, g.Initials, g.Inports, g.Outports, g.Groups}
	}
	return cmp.Diff(of(want), of(got))
}
