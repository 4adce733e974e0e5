package graph_test

import (
	"os"
	"testing"

	"github.com/flogate/flogate/core/graph"
)

// FuzzFBP: no text ends the process, and what is taken is written back as it was, also by way of JSON, and reads back the
// same after changes.
func FuzzFBP(f *testing.F) {
	seed(f, "testdata/fbp/*.fbp", "testdata/refused/*.fbp", "testdata/write/*.fbp")
	f.Fuzz(func(t *testing.T, src []byte) {
		g, err := graph.ParseFBP("fuzz.fbp", src)
		if err != nil {
			return
		}
		out, err := g.FBP()
		if err != nil || string(out) != string(src) {
			t.Fatalf("written untouched (%v): %q", err, out)
		}
		json, err := g.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := graph.ParseJSON("fuzz.json", json)
		if err != nil || !again.Equal(g) {
			t.Fatalf("by way of JSON (%v):\n%s", err, json)
		}
		for _, change := range changes {
			if !change(g) {
				continue
			}
			out, err := g.FBP()
			if err != nil {
				t.Fatal(err)
			}
			again, err := graph.ParseFBP("again.fbp", out)
			if err != nil || !again.Equal(g) {
				t.Fatalf("after a change (%v):\n%s", err, out)
			}
		}
	})
}

// FuzzJSON: as FuzzFBP, for FBP JSON.
func FuzzJSON(f *testing.F) {
	seed(f, "testdata/json/*.json", "testdata/refused/*.json", "testdata/write/*.json")
	f.Fuzz(func(t *testing.T, src []byte) {
		g, err := graph.ParseJSON("fuzz.json", src)
		if err != nil {
			return
		}
		out, err := g.JSON()
		if err != nil || string(out) != string(src) {
			t.Fatalf("written untouched (%v): %q", err, out)
		}
		if out, err := g.FBP(); err == nil {
			if _, err := graph.ParseFBP("fuzz.fbp", out); err != nil {
				t.Fatalf("by way of .fbp: %v\n%s", err, out)
			}
		}
		for _, change := range changes {
			if !change(g) {
				continue
			}
			out, err := g.JSON()
			if err != nil {
				t.Fatal(err)
			}
			again, err := graph.ParseJSON("again.json", out)
			if err != nil || !again.Equal(g) {
				t.Fatalf("after a change (%v):\n%s", err, out)
			}
		}
	})
}

// FuzzChange: no command of a client ends the process, a refused one changes nothing, and what was made can be taken back and
// makes the same of a copy.
func FuzzChange(f *testing.F) {
	for _, c := range [][2]string{
		{"clear", `{"id":"x","name":"n"}`},
		{"changeproperties", `{"properties":{"icon":"i"},"caseSensitive":true}`},
		{"addnode", `{"id":"x","component":"C","metadata":{"x":1}}`},
		{"removenode", `{"id":"motor"}`},
		{"renamenode", `{"from":"motor","to":"m"}`},
		{"changenode", `{"id":"lamp","metadata":{"routes":null}}`},
		{"addedge", `{"src":{"node":"lamp","port":"OUT","index":"1"},"tgt":{"node":"motor","port":"in","index":2}}`},
		{"removeedge", `{"src":{"node":"motor","port":"running"},"tgt":{"node":"lamp","port":"red"}}`},
		{"changeedge", `{"src":{"node":"motor","port":"running"},"tgt":{"node":"lamp","port":"red"},"metadata":{"route":1}}`},
		{"addinitial", `{"src":{"data":[1]},"tgt":{"node":"lamp","port":"text"}}`},
		{"removeinitial", `{"src":{"data":true},"tgt":{"node":"lamp","port":"text"}}`},
		{"removeinitial", `{"tgt":{"node":"lamp","port":"text"}}`},
		{"addinport", `{"public":"p","node":"lamp","port":"in"}`},
		{"renameoutport", `{"from":"running","to":"r"}`},
		{"addgroup", `{"name":"g","nodes":["lamp"]}`},
		{"changegroup", `{"name":"signals","metadata":{"description":null}}`},
	} {
		f.Add(c[0], []byte(c[1]))
	}
	f.Fuzz(func(t *testing.T, name string, payload []byte) {
		c, err := graph.ParseChange(name, payload)
		if err != nil {
			return
		}
		g := motorControl(t)
		before, copied := g.Clone(), g.Clone()
		effects, undo, err := graph.Apply(g, c)
		if err != nil {
			sameGraph(t, before, g)
			return
		}
		for _, e := range throughJSON(t, effects) {
			must(t, graph.Replay(copied, e))
		}
		if !graph.Same(copied, g) {
			t.Errorf("the copy differs: %v", spelled(t, graph.Diff(g, copied)))
		}
		for _, c := range throughJSON(t, undo) {
			_, _, err := graph.Apply(g, c)
			must(t, err)
		}
		if !graph.Same(before, g) {
			t.Errorf("taken back it differs: %v", spelled(t, graph.Diff(before, g)))
		}
	})
}

// changes report whether they could be made.
var changes = []func(g *graph.Graph) bool{
	func(g *graph.Graph) bool { return len(g.Nodes) > 0 && g.RenameNode(g.Nodes[0].ID, "renamed") == nil },
	func(g *graph.Graph) bool {
		return len(g.Edges) > 0 && g.RemoveEdge(g.Edges[len(g.Edges)/2].Src, g.Edges[len(g.Edges)/2].Tgt) == nil
	},
	func(g *graph.Graph) bool { return g.AddNode(graph.Node{ID: "added", Component: "Added"}) == nil },
	func(g *graph.Graph) bool {
		return len(g.Nodes) > 0 && g.ChangeNode(g.Nodes[0].ID, graph.Metadata{"x": 1.0, "label": "l"}) == nil
	},
	func(g *graph.Graph) bool {
		return len(g.Nodes) > 0 && g.AddEdge(graph.Edge{
			Src: graph.Endpoint{Node: g.Nodes[0].ID, Port: "out"}, Tgt: graph.Endpoint{Node: "added", Port: "in"},
		}) == nil
	},
	func(g *graph.Graph) bool { return len(g.Inports) > 0 && g.RemoveInport(g.Inports[0].Public) == nil },
	func(g *graph.Graph) bool {
		return len(g.Outports) > 0 && g.RenameOutport(g.Outports[0].Public, "q") == nil
	},
	func(g *graph.Graph) bool {
		if len(g.Initials) == 0 {
			return false
		}
		_, err := g.RemoveInitial(g.Initials[0].Tgt)
		return err == nil
	},
	func(g *graph.Graph) bool { return len(g.Nodes) > 1 && g.RemoveNode(g.Nodes[len(g.Nodes)/2].ID) == nil },
	func(g *graph.Graph) bool { g.Name = "named"; return true },
}

func seed(f *testing.F, patterns ...string) {
	f.Helper()
	for _, pattern := range patterns {
		for _, file := range glob(f, pattern, 1) {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
}
