package graph_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/graph"
)

var update = flag.Bool("update", false, "write the golden files anew")

// readings are what the reference implementations make of a text; test/peers/graph writes and checks them.
type readings struct {
	FBP              map[string]any `json:"fbp"`
	FBPCaseSensitive map[string]any `json:"fbpCaseSensitive"`
	Graph            map[string]any `json:"graph"`
	Order            struct {
		Processes, Inports, Outports []string
	} `json:"order"`
}

func TestReadsFBPAsTheReferencesDo(t *testing.T) {
	for _, file := range glob(t, "testdata/fbp/*.fbp", 50) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want := wanted(t, file)
			g := load(t, file)
			same(t, "fbp", asFBP(want.FBP), asFBP(decoded(t, g)))
			same(t, "fbp-graph", asFBPGraph(want.Graph), asFBPGraph(decoded(t, g)))
			ordered(t, want, g)
			g = load(t, file, graph.CaseSensitive())
			same(t, "fbp, case-sensitive", asFBP(want.FBPCaseSensitive), asFBP(decoded(t, g)))
		})
	}
}

func TestReadsJSONAsTheReferenceDoes(t *testing.T) {
	for _, file := range glob(t, "testdata/json/*.json", 10) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want := wanted(t, file)
			g := load(t, file)
			same(t, "fbp-graph", asFBPGraph(want.Graph), asFBPGraph(decoded(t, rebuilt(g))))
			ordered(t, want, g)
		})
	}
}

// TestRefusesWithPosition compares every error of every refused text with its golden file.
func TestRefusesWithPosition(t *testing.T) {
	files := append(glob(t, "testdata/refused/*.fbp", 30), glob(t, "testdata/refused/*.json", 5)...)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			g, err := graph.Parse(filepath.Base(file), src)
			if err == nil {
				out, _ := g.JSON()
				t.Fatalf("it is taken, as %s", out)
			}
			golden(t, file+".errors", []byte(err.Error()+"\n"))
		})
	}
}

// asFBP and asFBPGraph take out of a graph in JSON what is written by one implementation and left away by another, and
// bring its connections into the order that the reference has.
func asFBP(g map[string]any) map[string]any {
	g = withoutEmpty(g)
	// fbp keeps an edge that is said twice, and nothing can come of it.
	if all, ok := g["connections"].([]any); ok {
		var once []any
		for _, c := range all {
			_, isPacket := c.(map[string]any)["data"]
			if isPacket || !slices.ContainsFunc(once, func(o any) bool { return cmp.Equal(o, c) }) {
				once = append(once, c)
			}
		}
		g["connections"] = once
	}
	return g
}

func asFBPGraph(g map[string]any) map[string]any {
	g = withoutEmpty(g)
	if all, ok := g["connections"].([]any); ok {
		slices.SortStableFunc(all, func(a, b any) int { return isPacket(a) - isPacket(b) })
	}
	return g
}

func isPacket(c any) int {
	if _, ok := c.(map[string]any)["data"]; ok {
		return 1
	}
	return 0
}

func withoutEmpty(g map[string]any) map[string]any {
	out := map[string]any{}
	for key, v := range g {
		if key == "data" {
			out[key] = v
			continue
		}
		switch v := v.(type) {
		case map[string]any:
			if v = withoutEmpty(v); len(v) > 0 || key == "processes" {
				out[key] = v
			}
		case []any:
			for i := range v {
				if m, ok := v[i].(map[string]any); ok {
					v[i] = withoutEmpty(m)
				}
			}
			if len(v) > 0 || key == "nodes" {
				out[key] = v
			}
		case bool:
			if v || key != "caseSensitive" {
				out[key] = v
			}
		case string:
			if v != "" || key != "name" {
				out[key] = v
			}
		default:
			out[key] = v
		}
	}
	return out
}

// rebuilt returns the graph without the text it came from, so that its JSON is all its own.
func rebuilt(g *graph.Graph) *graph.Graph {
	return &graph.Graph{
		Name: g.Name, CaseSensitive: g.CaseSensitive, Properties: g.Properties, Nodes: g.Nodes, Edges: g.Edges,
		Initials: g.Initials, Inports: g.Inports, Outports: g.Outports, Groups: g.Groups,
	}
}

func ordered(t *testing.T, want readings, g *graph.Graph) {
	t.Helper()
	var nodes, inports, outports []string
	for _, n := range g.Nodes {
		nodes = append(nodes, n.ID)
	}
	for _, x := range g.Inports {
		inports = append(inports, x.Public)
	}
	for _, x := range g.Outports {
		outports = append(outports, x.Public)
	}
	same(t, "order of nodes", want.Order.Processes, nodes)
	same(t, "order of inports", want.Order.Inports, inports)
	same(t, "order of outports", want.Order.Outports, outports)
}

func same[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	empty := cmp.FilterValues(func(a, b []string) bool { return len(a)+len(b) == 0 }, cmp.Ignore())
	if diff := cmp.Diff(want, got, empty); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func glob(t testing.TB, pattern string, atLeast int) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < atLeast {
		t.Fatalf("%s: %d files, want at least %d (%v)", pattern, len(files), atLeast, err)
	}
	return files
}

func load(t *testing.T, file string, opts ...graph.Option) *graph.Graph {
	t.Helper()
	g, err := graph.Load(file, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func wanted(t *testing.T, file string) (r readings) {
	t.Helper()
	src, err := os.ReadFile(file + ".want")
	if err != nil {
		t.Fatalf("%v: write it with go test -tags peers ./test/peers/graph -update", err)
	}
	if err := json.Unmarshal(src, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func decoded(t *testing.T, g *graph.Graph) (v map[string]any) {
	t.Helper()
	src, err := g.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(src, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s (-want +got):\n%s", file, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

// TestGraphsInTheDocsAreTaken reads each block of the page about graph files.
func TestGraphsInTheDocsAreTaken(t *testing.T) {
	page, err := os.ReadFile("../../docs/graphs.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```fbp\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("the page has no graph")
	}
	for i, block := range blocks {
		src, _, _ := strings.Cut(block, "```")
		g, err := graph.ParseFBP("graphs.md", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			continue // the first has something of everything
		}
		if len(g.Nodes) != 4 || len(g.Edges) != 4 || len(g.Initials) != 2 || len(g.Inports) != 1 || len(g.Outports) != 1 {
			t.Errorf("got %+v", g)
		}
	}
}
