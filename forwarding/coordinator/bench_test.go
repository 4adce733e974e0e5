package coordinator_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
)

// sink is a connection that reads what it is given and counts what is written.
type sink struct {
	frames chan []byte
	wrote  atomic.Int64
	seen   func(frame []byte)
	done   chan struct{}
	once   sync.Once
}

func (c *sink) Read(ctx context.Context) ([]byte, error) {
	select {
	case f := <-c.frames:
		return f, nil
	case <-c.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *sink) Write(_ context.Context, frames ...[]byte) error {
	for _, f := range frames {
		c.wrote.Add(1)
		if c.seen != nil {
			c.seen(f)
		}
	}
	return nil
}

func (c *sink) Close(error) { c.once.Do(func() { close(c.done) }) }

// sinks connects clients that only count.
func (s *site) sinks(n int) []*sink {
	all := make([]*sink, n)
	for i := range all {
		c := &sink{frames: make(chan []byte, 1), done: make(chan struct{})}
		session := forwarding.NewSession(c, forwarding.SessionConfig{Runtime: s.c, Access: s.policy.Access})
		s.all.Go(func() { _ = session.Run(context.Background()) })
		s.t.Cleanup(func() { c.Close(nil) })
		c.frames <- []byte(`{"protocol":"runtime","command":"getruntime","payload":{}}`)
		eventually(s.t, "it is introduced", func() bool { return c.wrote.Load() > 0 })
		all[i] = c
	}
	return all
}

// large returns a graph of so many nodes in a chain.
func large(t testing.TB, n int) *graph.Graph {
	g := graph.New("g")
	for i := range n {
		g.Nodes = append(g.Nodes, graph.Node{
			ID: fmt.Sprintf("node%d", i), Component: "core/Repeat", Metadata: graph.Metadata{"x": float64(i), "y": 1.0, "label": "a node"},
		})
		if i > 0 {
			g.Edges = append(g.Edges, graph.Edge{
				Src: graph.Endpoint{Node: fmt.Sprintf("node%d", i-1), Port: "out"}, Tgt: graph.Endpoint{Node: fmt.Sprintf("node%d", i), Port: "in"},
			})
		}
	}
	return g
}

// BenchmarkAddNode: how long it takes until a change to a graph of 1,000 nodes is answered, with 50 clients who are told.
func BenchmarkAddNode(b *testing.B) {
	s := newSite(b)
	s.h.open("g", large(b, 1000), true)
	s.run().sinks(50)
	c := s.dial("")
	c.open()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		c.ask(fbp.AddNode{ID: fmt.Sprint(i), Component: "core/Drop", Graph: "g"}, "")
		c.skipTo(fbp.GraphAddNode)
		took = append(took, time.Since(began))
		c.ask(fbp.RemoveNode{ID: fmt.Sprint(i), Graph: "g"}, "")
		c.skipTo(fbp.GraphRemoveNode)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkOpen: what a client asks for when it opens a graph of 1,000 nodes of 200 components.
func BenchmarkOpen(b *testing.B) {
	s := newSite(b)
	text, err := large(b, 1000).JSON()
	if err != nil {
		b.Fatal(err)
	}
	g, err := graph.ParseJSON("", text)
	if err != nil {
		b.Fatal(err)
	}
	s.h.open("g", g, true)
	for i := range 200 {
		s.h.components = append(s.h.components, fbp.Component{Name: fmt.Sprintf("c/C%d", i), InPorts: []fbp.Port{{ID: "in", Type: "all"}}})
	}
	s.run()
	for b.Loop() {
		c := s.dial("")
		c.open()
		c.ask(fbp.GetSource{Name: "g"}, "")
		c.skipTo(fbp.ComponentSource)
		c.ask(fbp.ListComponents{}, "")
		c.skipTo(fbp.ComponentComponentsReady)
		_ = c.End.Close()
		<-c.ended //nolint:errcheck // how does not matter
	}
}

// BenchmarkWatch: what one packet of 100 bytes costs when 10,000 pass in a second, with and without 200 clients who look.
// It runs in real time; the processor's part is what counts, and ns/op says nothing.
func BenchmarkWatch(b *testing.B) {
	for _, clients := range []int{0, 1, 200} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := newSite(b)
			s.h.open("g", large(b, 3), true)
			all := s.run().sinks(clients)
			p := coordinator.Packet{
				Src: &graph.Endpoint{Node: "node0", Port: "out"}, Tgt: graph.Endpoint{Node: "node1", Port: "in"},
				Body: []byte(`{"value":21.5,"unit":"C","text":"` + strings.Repeat("x", 60) + `"}`),
			}
			began, cpu := time.Now(), processTime(b)
			for i := 0; b.Loop(); i++ {
				if i%10 == 0 {
					time.Sleep(time.Until(began.Add(time.Duration(i) * 100 * time.Microsecond)))
				}
				s.h.flow("g", p)
			}
			b.ReportMetric(100*float64(processTime(b)-cpu)/float64(time.Since(began)), "cpu-%")
			var wrote int64
			for _, c := range all {
				wrote += c.wrote.Load()
			}
			b.ReportMetric(float64(wrote)/time.Since(began).Seconds(), "frames/s")
			is := s.c.Stats()
			b.ReportMetric(float64(is.Shown)/time.Since(began).Seconds(), "shown/s")
		})
	}
}

// processTime returns how long this process has kept processors busy.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
