package graph_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/graph"
)

func command(t testing.TB, name, payload string) graph.Change {
	t.Helper()
	c, err := graph.ParseChange(name, []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// spelled returns changes as lines of command and payload.
func spelled(t testing.TB, all []graph.Change) (lines []string) {
	t.Helper()
	for _, c := range all {
		payload, err := graph.Payload(c)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, c.Command()+" "+string(payload))
	}
	return lines
}

func TestEffectsAreWhatTheProtocolAnswers(t *testing.T) {
	for _, c := range []struct {
		command, payload string
		want             []string
	}{
		{"addnode", `{"id":"n","component":"C","graph":"g","secret":"s"}`, []string{`addnode {"id":"n","component":"C","metadata":{}}`}},
		{
			"addnode", `{"metadata":{"x":1,"gone":null},"component":"C","id":"n"}`,
			[]string{`addnode {"id":"n","component":"C","metadata":{"x":1}}`},
		},
		{"removenode", `{"id":"motor"}`, []string{
			`removeedge {"src":{"node":"button","port":"pressed"},"tgt":{"node":"motor","port":"start"}}`,
			`removeedge {"src":{"node":"motor","port":"running","index":0},"tgt":{"node":"lamp","port":"red"}}`,
			`removeinitial {"src":{"data":{"rpm":1500}},"tgt":{"node":"motor","port":"config"}}`,
			`removeinport {"public":"start"}`,
			`removeoutport {"public":"running"}`,
			`removenode {"id":"motor"}`,
		}},
		{"renamenode", `{"from":"motor","to":"engine"}`, []string{`renamenode {"from":"motor","to":"engine"}`}},
		{"changenode", `{"id":"button","metadata":{"x":null,"sort":1}}`, []string{`changenode {"id":"button","metadata":{"sort":1,"y":72}}`}},
		{"changenode", `{"id":"motor","metadata":{}}`, []string{`changenode {"id":"motor","metadata":{}}`}},
		{
			"addedge", `{"src":{"node":"button","port":"OUT"},"tgt":{"node":"lamp","port":"in","index":"2"},"metadata":{"route":5}}`,
			[]string{`addedge {"src":{"node":"button","port":"out"},"tgt":{"node":"lamp","port":"in","index":2},"metadata":{"route":5}}`},
		},
		{
			"removeedge", `{"src":{"node":"motor","port":"running"},"tgt":{"node":"lamp","port":"red"},"metadata":{}}`,
			[]string{`removeedge {"src":{"node":"motor","port":"running","index":0},"tgt":{"node":"lamp","port":"red"}}`},
		},
		{
			"changeedge", `{"src":{"node":"button","port":"pressed"},"tgt":{"node":"motor","port":"start"},"metadata":{"route":null}}`,
			[]string{`changeedge {"src":{"node":"button","port":"pressed"},"tgt":{"node":"motor","port":"start"},"metadata":{}}`},
		},
		{
			"addinitial", `{"metadata":{},"src":{"data":null},"tgt":{"node":"lamp","port":"in"}}`,
			[]string{`addinitial {"src":{"data":null},"tgt":{"node":"lamp","port":"in"},"metadata":{}}`},
		},
		{"removeinitial", `{"tgt":{"node":"lamp","port":"text"}}`, []string{
			`removeinitial {"src":{"data":"it's on"},"tgt":{"node":"lamp","port":"text"}}`,
			`removeinitial {"src":{"data":true},"tgt":{"node":"lamp","port":"text"}}`,
		}},
		{
			"removeinitial", `{"src":{"data":true},"tgt":{"node":"lamp","port":"text"}}`,
			[]string{`removeinitial {"src":{"data":true},"tgt":{"node":"lamp","port":"text"}}`},
		},
		{
			"addinport", `{"public":"IN","node":"lamp","port":"Red"}`,
			[]string{`addinport {"public":"in","node":"lamp","port":"red"}`},
		},
		{"removeoutport", `{"public":"running"}`, []string{`removeoutport {"public":"running"}`}},
		{"renameinport", `{"from":"start","to":"go"}`, []string{`renameinport {"from":"start","to":"go"}`}},
		{"addgroup", `{"name":"empty"}`, []string{`addgroup {"name":"empty","nodes":[]}`}},
		{"renamegroup", `{"from":"signals","to":"s"}`, []string{`renamegroup {"from":"signals","to":"s"}`}},
		{
			"changegroup", `{"name":"signals","metadata":{"description":"d"}}`,
			[]string{`changegroup {"name":"signals","metadata":{"description":"d"}}`},
		},
		{"removegroup", `{"name":"signals"}`, []string{`removegroup {"name":"signals"}`}},
		{
			"clear", `{"id":"foo","main":true,"name":"Foo graph","baseDir":"/x"}`,
			[]string{`clear {"name":"Foo graph","main":true}`},
		},
	} {
		t.Run(c.command, func(t *testing.T) {
			g := motorControl(t)
			effects, _, err := graph.Apply(g, command(t, c.command, c.payload))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "effects", c.want, spelled(t, effects))
		})
	}
}

func TestGroupThatARemovedNodeLeavesEmptyIsTold(t *testing.T) {
	g := motorControl(t)
	must(t, g.AddGroup(graph.Group{Name: "alone", Nodes: []string{"spare"}}))
	before := g.Clone()
	effects, undo, err := graph.Apply(g, graph.RemoveNode{ID: "spare"})
	must(t, err)
	same(t, "effects", []string{`removegroup {"name":"alone"}`, `removenode {"id":"spare"}`}, spelled(t, effects))
	for _, c := range undo {
		_, _, err := graph.Apply(g, c)
		must(t, err)
	}
	sameThings(t, before, g)
}

func TestClearKeepsWhatItCannotSay(t *testing.T) {
	g := motorControl(t)
	_, undo, err := graph.Apply(g, graph.Clear{Name: "n", Icon: "cogs"})
	must(t, err)
	want := graph.New("n")
	want.Properties = graph.Metadata{"environment": map[string]any{"type": "msgflo"}, "icon": "cogs"}
	sameGraph(t, want, g)
	for _, c := range undo {
		_, _, err := graph.Apply(g, c)
		must(t, err)
	}
	sameGraph(t, motorControl(t), g)
}

func TestRemovedPacketComesBackToItsPlaceAmongThoseOfThePort(t *testing.T) {
	g := motorControl(t)
	must(t, g.AddInitial(graph.Initial{Data: json.RawMessage(`3`), Tgt: end("lamp.text")}))
	before := g.Clone()
	effects, undo, err := graph.Apply(g, command(t, "removeinitial", `{"src":{"data": true},"tgt":{"node":"lamp","port":"text"}}`))
	must(t, err)
	if len(effects) != 1 || len(g.Initials) != 3 {
		t.Errorf("effects %v", spelled(t, effects))
	}
	for _, c := range undo {
		_, _, err := graph.Apply(g, c)
		must(t, err)
	}
	sameThings(t, before, g)
}

func TestWrongPayloadIsExplained(t *testing.T) {
	for _, c := range []struct{ command, payload, says string }{
		{"addnode", `{"id":1,"component":"C"}`, "addnode: id must be a string, not number"},
		{"addnode", `[]`, "addnode: the payload must be an object, not array"},
		{"addedge", `{"src":{"node":[]}}`, "addedge: src.node must be a string, not array"},
		{"addgroup", `{"nodes":"x"}`, "addgroup: nodes must be an array, not string"},
		{"changenode", `{"metadata":1}`, "changenode: metadata must be an object, not number"},
		{"clear", `{"main":1}`, "clear: main must be true or false, not number"},
		{"addedge", `{"src":{"index":1.5}}`, "addedge: index must be a whole number from 0, not 1.5"},
		{"addedge", `{"src":{"index":"x"}}`, `addedge: index must be a whole number from 0, not "x"`},
	} {
		_, err := graph.ParseChange(c.command, []byte(c.payload))
		if err == nil || err.Error() != c.says {
			t.Errorf("got %v, want %s", err, c.says)
		}
	}
	if _, err := graph.ParseChange("getgraph", []byte("{}")); !errors.Is(err, graph.ErrUnknownCommand) {
		t.Errorf("got %v", err)
	}
	g := motorControl(t)
	for payload, says := range map[string]string{
		`{"tgt":{"node":"lamp","port":"red"}}`: "initial packet for lamp.red without data",
		`{"src":{"data":1}}`:                   `initial packet for .: node "": not in the graph`,
	} {
		if _, _, err := graph.Apply(g, command(t, "addinitial", payload)); err == nil || err.Error() != says {
			t.Errorf("got %v, want %s", err, says)
		}
	}
}

// TestEffectsMakeTheSameOfEveryCopy makes random changes, takes each back, and has a copy follow by effects alone.
func TestEffectsMakeTheSameOfEveryCopy(t *testing.T) {
	graphs := testGraphs(t)
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SampledFrom(graphs).Draw(t, "graph").Clone()
		follower := g.Clone()
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			c := drawCommand(t, g)
			before := g.Clone()
			effects, undo, err := graph.Apply(g, c)
			if err != nil {
				if !g.Equal(before) || effects != nil || undo != nil {
					t.Fatalf("%s failed (%v) and left something behind", c.Command(), err)
				}
				continue
			}
			for _, e := range throughJSON(t, effects) {
				if err := graph.Replay(follower, e); err != nil {
					t.Fatalf("effect %s: %v", e.Command(), err)
				}
			}
			if !follower.Equal(g) {
				t.Fatalf("after %s (-graph +copy):\n%s", c.Command(), difference(g, follower))
			}
			back := g.Clone()
			for _, c := range throughJSON(t, undo) {
				if _, _, err := graph.Apply(back, c); err != nil {
					t.Fatalf("take back: %s: %v", c.Command(), err)
				}
			}
			if !things(before).Equal(things(back)) {
				t.Fatalf("%s taken back (-before +after):\n%s", c.Command(), difference(things(before), things(back)))
			}
		}
	})
}

// TestDiffTurnsAnyGraphIntoAnyOther also when the one has come from the other.
func TestDiffTurnsAnyGraphIntoAnyOther(t *testing.T) {
	graphs := testGraphs(t)
	rapid.Check(t, func(t *rapid.T) {
		old := rapid.SampledFrom(graphs).Draw(t, "old").Clone()
		now := old.Clone()
		if rapid.Bool().Draw(t, "another") {
			now = rapid.SampledFrom(graphs).Draw(t, "new").Clone()
		}
		for range rapid.IntRange(0, 8).Draw(t, "changes") {
			_, _, _ = graph.Apply(now, drawCommand(t, now))
		}
		follower, got := old.Clone(), old.Clone()
		for _, c := range throughJSON(t, graph.Diff(old, now)) {
			effects, _, err := graph.Apply(got, c)
			if err != nil {
				t.Fatalf("%s: %v", c.Command(), err)
			}
			for _, e := range effects {
				if err := graph.Replay(follower, e); err != nil {
					t.Fatalf("effect %s: %v", e.Command(), err)
				}
			}
		}
		if !things(now).Equal(things(got)) {
			t.Fatalf("(-want +got):\n%s", difference(things(now), things(got)))
		}
		if !follower.Equal(got) {
			t.Fatalf("(-graph +copy):\n%s", difference(got, follower))
		}
		if !graph.Same(got, now) {
			t.Fatal("there is still a difference")
		}
	})
}

func TestDiffIsSmall(t *testing.T) {
	old := motorControl(t)
	for name, c := range map[string]struct {
		change func(g *graph.Graph) error
		want   []string
	}{
		"nothing": {func(*graph.Graph) error { return nil }, nil},
		"order": {func(g *graph.Graph) error {
			slices.Reverse(g.Nodes)
			slices.Reverse(g.Edges)
			return nil
		}, nil},
		"metadata": {
			func(g *graph.Graph) error { return g.ChangeNode("button", graph.Metadata{"x": 1.0, "y": nil}) },
			[]string{`changenode {"id":"button","metadata":{"x":1,"y":null}}`},
		},
		"another component": {
			func(g *graph.Graph) error { g.Nodes[1].Component = "demo/Other"; return nil },
			[]string{`removenode {"id":"spare"}`, `addnode {"id":"spare","component":"demo/Other","metadata":{}}`},
		},
		"another packet": {
			func(g *graph.Graph) error { g.Initials[0].Data = json.RawMessage("1"); return nil },
			[]string{
				`removeinitial {"src":{"data":{"rpm":1500}},"tgt":{"node":"motor","port":"config"}}`,
				`addinitial {"src":{"data":1},"tgt":{"node":"motor","port":"config"}}`,
			},
		},
		"removed node": {
			func(g *graph.Graph) error { return g.RemoveNode("motor") },
			[]string{
				`removeinport {"public":"start"}`, `removeoutport {"public":"running"}`, `removenode {"id":"motor"}`,
			},
		},
		"name": {
			func(g *graph.Graph) error { g.Name = "other"; return nil },
			[]string{`changeproperties {"properties":{"name":"other"}}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			now := old.Clone()
			must(t, c.change(now))
			same(t, "changes", c.want, spelled(t, graph.Diff(old, now)))
		})
	}
}

func TestNoGraphDiffersFromItself(t *testing.T) {
	for _, file := range append(glob(t, "testdata/fbp/*.fbp", 50), glob(t, "testdata/json/*.json", 10)...) {
		if changes := graph.Diff(load(t, file), load(t, file)); len(changes) > 0 {
			t.Errorf("%s: %v", file, spelled(t, changes))
		}
	}
}

func TestRebaseFitsWhatDoesNotClash(t *testing.T) {
	base := motorControl(t)
	for name, c := range map[string]struct {
		ours, theirs []string // command payload
		want         []string
		conflict     string
	}{
		"apart": {
			ours:   []string{`changenode {"id":"button","metadata":{"x":1}}`, `addnode {"id":"n","component":"C"}`},
			theirs: []string{`changenode {"id":"button","metadata":{"y":1}}`, `removenode {"id":"lamp"}`},
			want:   []string{`changenode {"id":"button","metadata":{"x":1}}`, `addnode {"id":"n","component":"C","metadata":{}}`},
		},
		"both the same": {
			ours: []string{
				`removenode {"id":"lamp"}`, `addnode {"id":"n","component":"C"}`,
				`addinitial {"src":{"data":1},"tgt":{"node":"motor","port":"in"}}`,
			},
			theirs: []string{
				`removenode {"id":"lamp"}`, `addnode {"id":"n","component":"C"}`,
				`addinitial {"src":{"data":1},"tgt":{"node":"motor","port":"in"}}`,
			},
			want: nil,
		},
		"two values": {
			ours:     []string{`changenode {"id":"button","metadata":{"x":1}}`},
			theirs:   []string{`changenode {"id":"button","metadata":{"x":2}}`},
			conflict: `changenode: node "button": "x" is 2 now`,
		},
		"changed here, gone there": {
			ours:     []string{`changenode {"id":"button","metadata":{"x":1}}`},
			theirs:   []string{`removenode {"id":"button"}`},
			conflict: `changenode: node "button": not in the graph`,
		},
		"removed here, connected there": {
			ours:     []string{`removenode {"id":"spare"}`},
			theirs:   []string{`addedge {"src":{"node":"spare","port":"out"},"tgt":{"node":"lamp","port":"red"}}`},
			conflict: `removenode: node "spare" has got the edge spare.out -> lamp.red`,
		},
		"removed here, something else there": {
			ours:     []string{`removenode {"id":"spare"}`},
			theirs:   []string{`removenode {"id":"spare"}`, `addnode {"id":"spare","component":"demo/Other"}`},
			conflict: `removenode: node "spare" is a demo/Other now`,
		},
		"two nodes of one name": {
			ours:     []string{`addnode {"id":"n","component":"C"}`},
			theirs:   []string{`addnode {"id":"n","component":"D"}`},
			conflict: `addnode: node "n": already in the graph`,
		},
		"cleared here, changed there": {
			ours:     []string{`clear {"name":"x"}`},
			theirs:   []string{`removenode {"id":"spare"}`},
			conflict: `clear: the graph has been changed`,
		},
		"exported port moved": {
			ours:     []string{`removeinport {"public":"start"}`},
			theirs:   []string{`removeinport {"public":"start"}`, `addinport {"public":"start","node":"lamp","port":"red"}`},
			conflict: `removeinport: exported inport "start" is lamp.red now`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			parse := func(lines []string) (all []graph.Change) {
				for _, line := range lines {
					name, payload, _ := strings.Cut(line, " ")
					all = append(all, command(t, name, payload))
				}
				return all
			}
			onto := base.Clone()
			for _, c := range parse(c.theirs) {
				_, _, err := graph.Apply(onto, c)
				must(t, err)
			}
			untouched := onto.Clone()
			got, conflicts := graph.Rebase(base, onto, throughJSON(t, parse(c.ours)))
			sameGraph(t, untouched, onto)
			sameGraph(t, motorControl(t), base)
			if c.conflict != "" {
				if len(conflicts) != 1 || conflicts[0].Error() != c.conflict {
					t.Errorf("got %v", conflicts)
				}
				return
			}
			if len(conflicts) > 0 {
				t.Error(conflicts)
			}
			same(t, "changes", c.want, spelled(t, got))
		})
	}
}

type failer interface {
	Helper()
	Fatal(args ...any)
}

// throughJSON writes changes as a log has them and reads them again.
func throughJSON(t failer, all []graph.Change) []graph.Change {
	t.Helper()
	raw, err := graph.Changes(all).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var again graph.Changes
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatal(err)
	}
	twice, err := again.MarshalJSON()
	if err != nil || string(twice) != string(raw) {
		t.Fatal("read again, it is another change", err, string(raw), string(twice))
	}
	return again
}

func testGraphs(t *testing.T) (all []*graph.Graph) {
	t.Helper()
	for _, file := range append(glob(t, "testdata/fbp/*.fbp", 50), glob(t, "testdata/json/*.json", 10)...) {
		g := load(t, file)
		names := map[string]bool{}
		g.Groups = slices.DeleteFunc(g.Groups, func(p graph.Group) bool {
			defer func() { names[p.Name] = true }()
			return names[p.Name]
		})
		all = append(all, g)
	}
	upper := graph.New("upper")
	upper.CaseSensitive = true
	must(t, upper.AddNode(graph.Node{ID: "A", Component: "A"}),
		upper.AddEdge(graph.Edge{Src: end("A.Out"), Tgt: end("A.In")}))
	return append(all, graph.New("new"), upper, motorControl(t))
}

// things returns the graph with everything that nothing depends on in one order.
func things(g *graph.Graph) *graph.Graph {
	g = g.Clone()
	ids := map[string]bool{}
	bare := func(m *graph.Metadata) { *m = noNil(maps.Clone(*m)) }
	for i := range g.Nodes {
		ids[g.Nodes[i].ID] = true
		bare(&g.Nodes[i].Metadata)
	}
	bare(&g.Properties)
	for i := range g.Edges {
		bare(&g.Edges[i].Metadata)
	}
	for i := range g.Groups {
		bare(&g.Groups[i].Metadata)
		g.Groups[i].Nodes = slices.DeleteFunc(g.Groups[i].Nodes, func(id string) bool { return !ids[id] })
	}
	byString := func(a, b graph.Edge) int { return cmp.Compare(a.String(), b.String()) }
	byPublic := func(a, b graph.Exported) int { return cmp.Compare(a.Public, b.Public) }
	slices.SortFunc(g.Nodes, func(a, b graph.Node) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(g.Edges, byString)
	slices.SortStableFunc(g.Initials, func(a, b graph.Initial) int { return cmp.Compare(a.Tgt.String(), b.Tgt.String()) })
	slices.SortFunc(g.Inports, byPublic)
	slices.SortFunc(g.Outports, byPublic)
	slices.SortFunc(g.Groups, func(a, b graph.Group) int { return cmp.Compare(a.Name, b.Name) })
	return g
}

func sameThings(t *testing.T, want, got *graph.Graph) {
	t.Helper()
	sameGraph(t, things(want), things(got))
}

// drawCommand returns a random change, mostly of something that is in the graph.
func drawCommand(t *rapid.T, g *graph.Graph) graph.Change {
	names := []string{"a", "b", "new", "x y"}
	for _, n := range g.Nodes {
		names = append(names, n.ID)
	}
	name := func(what string) string { return rapid.SampledFrom(names).Draw(t, what) }
	port := func() string { return rapid.SampledFrom([]string{"in", "OUT", "x.1"}).Draw(t, "port") }
	meta := func() graph.Metadata {
		m := graph.Metadata{}
		for range rapid.IntRange(0, 2).Draw(t, "keys") {
			m[rapid.SampledFrom([]string{"x", "label", "route"}).Draw(t, "key")] = rapid.SampledFrom([]any{
				nil, 1.0, "text", map[string]any{"deep": []any{1.0}},
			}).Draw(t, "value")
		}
		if len(m) == 0 && rapid.Bool().Draw(t, "none") {
			return nil
		}
		return m
	}
	place := func() graph.Endpoint {
		return graph.Endpoint{Node: name("node"), Port: port(), Index: graph.At(rapid.IntRange(-3, 1).Draw(t, "index"))}
	}
	edge := func() graph.Edge {
		e := graph.Edge{Src: place(), Tgt: place(), Metadata: meta()}
		if len(g.Edges) > 0 && rapid.Bool().Draw(t, "there") {
			there := rapid.SampledFrom(g.Edges).Draw(t, "edge")
			e.Src, e.Tgt = there.Src, there.Tgt
			if rapid.Bool().Draw(t, "without index") {
				e.Src.Index = 0
			}
		}
		return e
	}
	data := func() graph.Packet {
		return graph.Packet{Data: json.RawMessage(rapid.SampledFrom([]string{"1", "null", `"a<b"`, `{"b":1,"a":[]}`}).Draw(t, "data"))}
	}
	tgt := func() (graph.Endpoint, graph.Packet) {
		if len(g.Initials) > 0 && rapid.Bool().Draw(t, "there") {
			i := rapid.SampledFrom(g.Initials).Draw(t, "packet")
			return i.Tgt, graph.Packet{Data: i.Data}
		}
		return place(), data()
	}
	public := func(what string) string {
		return rapid.SampledFrom([]string{"p", "Q", "in", "out"}).Draw(t, what)
	}
	group := func(what string) string {
		of := []string{"g", "h", "signals"}
		for _, p := range g.Groups {
			of = append(of, p.Name)
		}
		return rapid.SampledFrom(of).Draw(t, what)
	}
	return rapid.OneOf(
		rapid.Custom(func(*rapid.T) graph.Change {
			return graph.AddNode{ID: name("id"), Component: rapid.SampledFrom([]string{"A", "B"}).Draw(t, "component"), Metadata: meta()}
		}),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RemoveNode{ID: name("id")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RenameNode{From: name("from"), To: name("to")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.ChangeNode{ID: name("id"), Metadata: meta()} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.AddEdge(edge()) }),
		rapid.Custom(func(*rapid.T) graph.Change { e := edge(); return graph.RemoveEdge{Src: e.Src, Tgt: e.Tgt} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.ChangeEdge(edge()) }),
		rapid.Custom(func(*rapid.T) graph.Change {
			to, d := tgt()
			return graph.AddInitial{Src: d, Tgt: to, Metadata: meta()}
		}),
		rapid.Custom(func(*rapid.T) graph.Change {
			to, d := tgt()
			if rapid.Bool().Draw(t, "all") {
				return graph.RemoveInitial{Tgt: to}
			}
			return graph.RemoveInitial{Src: &d, Tgt: to}
		}),
		rapid.Custom(func(*rapid.T) graph.Change {
			return graph.AddInport{Public: public("public"), Node: name("node"), Port: port(), Metadata: meta()}
		}),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RemoveInport{Public: public("public")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RenameInport{From: public("from"), To: public("to")} }),
		rapid.Custom(func(*rapid.T) graph.Change {
			return graph.AddOutport{Public: public("public"), Node: name("node"), Port: port(), Metadata: meta()}
		}),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RemoveOutport{Public: public("public")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RenameOutport{From: public("from"), To: public("to")} }),
		rapid.Custom(func(*rapid.T) graph.Change {
			return graph.AddGroup{Name: group("name"), Nodes: []string{name("node"), name("node")}, Metadata: meta()}
		}),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RemoveGroup{Name: group("name")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.RenameGroup{From: group("from"), To: group("to")} }),
		rapid.Custom(func(*rapid.T) graph.Change { return graph.ChangeGroup{Name: group("name"), Metadata: meta()} }),
		rapid.Custom(func(*rapid.T) graph.Change {
			c := graph.ChangeProperties{Properties: meta()}
			if rapid.Bool().Draw(t, "case") {
				sensitive := rapid.Bool().Draw(t, "sensitive")
				c.CaseSensitive = &sensitive
			}
			return c
		}),
		rapid.Custom(func(*rapid.T) graph.Change {
			return graph.Clear{Name: rapid.SampledFrom([]string{"", "n"}).Draw(t, "name"), Icon: "i", Main: rapid.Bool().Draw(t, "main")}
		}),
	).Draw(t, "command")
}
