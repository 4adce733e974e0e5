package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flogate/flogate/core/desk"
	"github.com/flogate/flogate/core/graph"
)

// randomChange changes something that is probably in the graph: others change it too.
func randomChange(r *rand.Rand, g *graph.Graph) graph.Change {
	node := func() string {
		if len(g.Nodes) > 0 && r.IntN(3) > 0 {
			return g.Nodes[r.IntN(len(g.Nodes))].ID
		}
		return fmt.Sprint("n", r.IntN(40))
	}
	at := func(port string) graph.Endpoint { return graph.Endpoint{Node: node(), Port: port} }
	edge := graph.Edge{Src: at("out"), Tgt: at("in")}
	if len(g.Edges) > 0 && r.IntN(2) == 0 {
		edge = g.Edges[r.IntN(len(g.Edges))]
	}
	data := graph.Packet{Data: json.RawMessage(fmt.Sprint(r.IntN(3)))}
	name := fmt.Sprint("x", r.IntN(5))
	meta := graph.Metadata{name: float64(r.IntN(5))}
	if r.IntN(3) == 0 {
		meta[name] = nil
	}
	switch r.IntN(16) {
	case 0, 1, 2:
		return graph.AddNode{ID: fmt.Sprint("n", r.IntN(40)), Component: "C", Metadata: meta}
	case 3:
		return graph.RemoveNode{ID: node()}
	case 4:
		return graph.RenameNode{From: node(), To: fmt.Sprint("n", r.IntN(40))}
	case 5, 6:
		return graph.ChangeNode{ID: node(), Metadata: meta}
	case 7, 8:
		return graph.AddEdge(edge)
	case 9:
		return graph.RemoveEdge{Src: edge.Src, Tgt: edge.Tgt}
	case 10:
		return graph.ChangeEdge{Src: edge.Src, Tgt: edge.Tgt, Metadata: meta}
	case 11:
		return graph.AddInitial{Src: data, Tgt: at("in")}
	case 12:
		return graph.RemoveInitial{Tgt: at("in")}
	case 13:
		return graph.AddInport{Public: name, Node: node(), Port: "in"}
	case 14:
		return graph.AddGroup{Name: name, Nodes: []string{node()}}
	default:
		return graph.RemoveGroup{Name: name}
	}
}

// follow keeps a copy of a graph by events alone, until it is at a revision.
func follow(ctx context.Context, d *desk.Desk, sub *desk.Subscription, name string, until func() uint64) (*graph.Graph, error) {
	var copied *graph.Graph
	var revision uint64
	anew := func() error {
		snap, err := d.Graph(name)
		if err != nil {
			return err
		}
		copied, revision = snap.Graph.Clone(), snap.Revision
		return nil
	}
	if err := anew(); err != nil {
		return nil, err
	}
	for revision != until() {
		e, err := sub.Next(ctx)
		switch {
		case err != nil:
			return nil, err
		case e.Kind == desk.Missed:
			if err := anew(); err != nil {
				return nil, err
			}
		case e.Kind != desk.Changed || e.Revision <= revision:
		case e.Revision != revision+1:
			return nil, fmt.Errorf("revision %d after %d", e.Revision, revision)
		default:
			for _, c := range e.Effects {
				if err := graph.Replay(copied, c); err != nil {
					return nil, err
				}
			}
			revision = e.Revision
		}
	}
	return copied, nil
}

func TestEditorsThatRaceEndUpWithTheSameGraph(t *testing.T) {
	s := newSite(t, "hall.json", `{"processes":{}}`)
	d := s.open(func(c *desk.Config) { c.Delay = 5 * time.Millisecond })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var writing sync.WaitGroup
	stop, stopped := context.WithCancel(t.Context())
	writing.Go(func() { _ = d.Run(stop) })

	var done sync.WaitGroup // the editors
	var mu sync.Mutex
	last := uint64(1 << 60)
	until := func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
	type copied struct {
		graph *graph.Graph
		err   error
	}
	copies := make([]copied, 3)
	var following sync.WaitGroup
	for i := range copies {
		sub := d.Subscribe()
		following.Go(func() {
			defer sub.Close()
			copies[i].graph, copies[i].err = follow(ctx, d, sub, "main", until)
		})
	}
	accepted := make([]int, 2)
	for i := range accepted {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		done.Go(func() {
			for range 1000 {
				snap, err := d.Graph("main")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = d.Change("main", fmt.Sprint("editor ", i), randomChange(r, snap.Graph))
				switch {
				case err == nil:
					accepted[i]++
				case !errors.Is(err, graph.ErrExists) && !errors.Is(err, graph.ErrNotFound):
					t.Error(err)
				}
				if r.IntN(20) == 0 {
					_, _ = d.Undo("main", fmt.Sprint("editor ", i), 0)
				}
			}
		})
	}
	done.Wait()
	mu.Lock()
	last = get(t, d, "main").Revision + 1
	mu.Unlock()
	change(t, d, "main", graph.ChangeProperties{Properties: graph.Metadata{"last": true}})
	following.Wait()
	cancel()
	stopped()
	writing.Wait()
	must(t, d.Close())
	want := get(t, d, "main")
	for i, c := range copies {
		must(t, c.err)
		if !c.graph.Equal(want.Graph) {
			t.Errorf("copy %d differs: %v", i, graph.Diff(want.Graph, c.graph))
		}
	}
	file, err := graph.Load(s.file)
	must(t, err)
	if !graph.Same(file, want.Graph) {
		t.Errorf("the file differs: %v", graph.Diff(want.Graph, file))
	}
	if accepted[0] < 200 || accepted[1] < 200 {
		t.Errorf("accepted %v: the changes do not fit", accepted)
	}
}

// TestFileThatIsChangedWhileOthersEdit goes on changing its file under two editors.
func TestFileThatIsChangedWhileOthersEdit(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sub := d.Subscribe()
	defer sub.Close()
	var editing sync.WaitGroup
	for i := range 2 {
		r := rand.New(rand.NewPCG(uint64(i), 11))
		editing.Go(func() {
			for range 300 {
				snap, err := d.Graph("main")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = d.Change("main", fmt.Sprint("editor ", i), randomChange(r, snap.Graph))
			}
		})
	}
	editing.Go(func() {
		for i := range 30 {
			s.write(s.read() + fmt.Sprintf("n%d(demo/P) OUT -> IN p%d(demo/Q)\n", i, i))
			if err := d.Load(s.source()); err != nil {
				t.Error(err)
			}
		}
	})
	began := get(t, d, "main")
	copied, revision := began.Graph.Clone(), began.Revision
	editing.Wait()
	for last := get(t, d, "main").Revision; revision < last; {
		e, err := sub.Next(ctx)
		must(t, err)
		if e.Kind != desk.Changed || e.Revision <= revision {
			continue
		}
		for _, c := range e.Effects {
			must(t, graph.Replay(copied, c))
		}
		revision = e.Revision
	}
	want := get(t, d, "main").Graph
	if !graph.Same(copied, want) {
		t.Errorf("the copy differs: %v", graph.Diff(want, copied))
	}
	must(t, d.Close())
	d = s.open()
	if got := get(t, d, "main").Graph; !graph.Same(want, got) {
		t.Errorf("opened again: %v", graph.Diff(want, got))
	}
	must(t, d.Close())
}

func TestSlowSubscriberHoldsNobodyUpAndLooksAnew(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	slow, sub := d.Subscribe(), d.Subscribe()
	defer slow.Close()
	const n = 10_000
	for i := range n {
		change(t, d, "main", graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": float64(i)}})
	}
	e, err := slow.Next(t.Context())
	must(t, err)
	if e.Kind != desk.Missed {
		t.Fatalf("got %v", e.Kind)
	}
	copied, err := follow(t.Context(), d, slow, "main", func() uint64 { return n })
	must(t, err)
	if !copied.Equal(get(t, d, "main").Graph) {
		t.Error("the copy differs")
	}
	sub.Close()
	if _, err := sub.Next(t.Context()); !errors.Is(err, desk.ErrClosed) {
		t.Errorf("got %v", err)
	}
	must(t, d.Close())
}

func TestNextEndsWithItsContextAndWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "hall.fbp", motor)
		d := s.open()
		sub := d.Subscribe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sub.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := sub.Next(t.Context()); !errors.Is(err, desk.ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		sub.Close()
		waiting.Wait()
		must(t, d.Close())
	})
}

// TestWritingIsPutOffAndTriedAgain in virtual time.
func TestWritingIsPutOffAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "hall.fbp", motor)
		d := s.open()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = d.Run(ctx) })
		synctest.Wait()
		saved := func() uint64 {
			synctest.Wait()
			return get(t, d, "main").Saved
		}
		edit := func(x int) {
			change(t, d, "main", graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": float64(x)}})
		}
		edit(1)
		time.Sleep(150 * time.Millisecond)
		if saved() != 0 {
			t.Error("it was not put off")
		}
		edit(2)
		time.Sleep(150 * time.Millisecond)
		if saved() != 0 {
			t.Error("it was not put off again")
		}
		time.Sleep(60 * time.Millisecond)
		same(t, "saved", 2, saved())
		for i := range 12 { // 1.2 s without a pause
			edit(i)
			time.Sleep(100 * time.Millisecond)
		}
		if saved() < 10 {
			t.Errorf("saved %d: who never pauses is never written", saved())
		}

		blocked := s.dir + "/.hall.fbp.flogate"
		time.Sleep(time.Second)
		must(t, os.MkdirAll(blocked+"/full", 0o700))
		edit(99)
		time.Sleep(time.Second)
		if get(t, d, "main").Unsaved == nil || strings.Contains(s.read(), "99") {
			t.Error("it was written")
		}
		time.Sleep(time.Minute)
		must(t, os.RemoveAll(blocked))
		time.Sleep(31 * time.Second)
		if snap := get(t, d, "main"); snap.Unsaved != nil || snap.Saved != snap.Revision || !strings.Contains(s.read(), "99") {
			t.Errorf("not tried again: %v\n%s", snap.Unsaved, s.read())
		}
		if n := strings.Count(s.log.String(), "cannot be written to where it is kept"); n != 1 {
			t.Errorf("said %d times", n)
		}
		cancel()
		running.Wait()
		must(t, d.Close())
	})
}

func big(t testing.TB) *graph.Graph {
	t.Helper()
	g := graph.New("big")
	for i := range 1000 {
		must(t, g.AddNode(graph.Node{ID: fmt.Sprint("n", i), Component: "lib/Component", Metadata: graph.Metadata{"x": float64(i), "y": 72.0}}))
	}
	for i := range 2000 {
		must(t, g.AddEdge(graph.Edge{
			Src: graph.Endpoint{Node: fmt.Sprint("n", i%1000), Port: fmt.Sprint("out", i/1000)},
			Tgt: graph.Endpoint{Node: fmt.Sprint("n", (i*7+1)%1000), Port: "in"},
		}))
	}
	return g
}

// BenchmarkChange of a graph of 1,000 nodes and 2,000 edges; with a reader that asks for it after each change, it is copied
// each time.
func BenchmarkChange(b *testing.B) {
	text, err := big(b).JSON()
	must(b, err)
	for _, reader := range []bool{false, true} {
		b.Run(fmt.Sprintf("reader=%v", reader), func(b *testing.B) {
			s := newSite(b, "big.json", string(text))
			d := s.open()
			i := 0
			for b.Loop() {
				change(b, d, "main", graph.ChangeNode{ID: "n500", Metadata: graph.Metadata{"x": float64(i)}})
				if i++; reader {
					get(b, d, "main")
				}
			}
			must(b, d.Close())
		})
	}
}
