package desk_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/desk"
	"github.com/flogate/flogate/core/graph"
)

func TestUndoTakesBackOneChangeAndKeepsWhatCameAfter(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	first := change(t, d, "main", graph.RemoveNode{ID: "motor"})
	change(t, d, "main", fan)
	r, err := d.Undo("main", "bob", first.Revision)
	must(t, err)
	same(t, "nodes", []string{"button", "lamp", "fan", "motor"}, nodes(get(t, d, "main").Graph))
	same(t, "edges", 2, len(get(t, d, "main").Graph.Edges))
	// It can be taken back itself, by its revision.
	_, err = d.Undo("main", "bob", r.Revision)
	must(t, err)
	same(t, "nodes", []string{"button", "lamp", "fan"}, nodes(get(t, d, "main").Graph))
	history, err := d.History("main")
	must(t, err)
	var said []string
	for _, r := range history {
		said = append(said, fmt.Sprint(r.Revision, " ", r.Who, " ", r.Undid))
	}
	same(t, "history", []string{"1 ann 0", "2 ann 0", "3 bob 1", "4 bob 3"}, said)
	must(t, d.Close())
}

func TestUndoWithoutARevisionGoesBackStepByStep(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan)
	change(t, d, "main", graph.ChangeNode{ID: "fan", Metadata: graph.Metadata{"x": 1.0}})
	change(t, d, "main", graph.RenameNode{From: "fan", To: "ventilator"})
	for range 3 {
		_, err := d.Undo("main", "ann", 0)
		must(t, err)
	}
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "main").Graph))
	if _, err := d.Undo("main", "ann", 0); err == nil || !strings.Contains(err.Error(), "all that can be taken back has been") {
		t.Errorf("got %v", err)
	}
	must(t, d.Close())
	same(t, "file", motor, s.read())
}

func TestUndoSaysWhatStandsInTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		first graph.Change
		then  []graph.Change
		says  string
	}{
		"node that was connected since": {
			fan,
			[]graph.Change{graph.AddEdge{Src: end("button.out"), Tgt: end("fan.on")}},
			`removenode: node "fan" has got the edge button.out -> fan.on`,
		},
		"value that was changed since": {
			graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": 1.0}},
			[]graph.Change{graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": 2.0}}},
			`changenode: node "lamp": "x" is 2 now`,
		},
		"place that was taken since": {
			graph.RemoveNode{ID: "lamp"},
			[]graph.Change{graph.AddNode{ID: "lamp", Component: "other/Lamp"}},
			`addnode: node "lamp": already in the graph`,
		},
		"end that is gone since": {
			graph.RemoveEdge{Src: end("motor.running"), Tgt: end("lamp.red")},
			[]graph.Change{graph.RemoveNode{ID: "lamp"}},
			`addedge: edge motor.running -> lamp.red: node "lamp": not in the graph`,
		},
		"nothing left": {
			fan, []graph.Change{graph.RemoveNode{ID: "fan"}}, "nothing is left of revision 1",
		},
		"unknown": {fan, nil, "revision 1 has been taken back already"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "hall.fbp", motor)
			d := s.open()
			change(t, d, "main", c.first)
			if c.then == nil {
				_, err := d.Undo("main", "ann", 1)
				must(t, err)
			} else {
				change(t, d, "main", c.then...)
			}
			before := get(t, d, "main")
			_, err := d.Undo("main", "bob", 1)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %s", err, c.says)
			}
			if after := get(t, d, "main"); after.Revision != before.Revision || !after.Graph.Equal(before.Graph) {
				t.Error("something has changed")
			}
			if _, err := d.Undo("main", "bob", 77); err == nil {
				t.Error("what has not been can be taken back")
			}
			must(t, d.Close())
		})
	}
}

// TestAllThatWasDoneCanBeTakenBack also over a restart in the middle.
func TestAllThatWasDoneCanBeTakenBack(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	r := rand.New(rand.NewPCG(1, 2))
	done := 0
	for done < 250 {
		if _, err := d.Change("main", "ann", randomChange(r, get(t, d, "main").Graph)); err == nil {
			done++
		}
		if done%100 == 50 && r.IntN(3) == 0 {
			must(t, d.Close())
			d = s.open()
		}
	}
	want, err := graph.ParseFBP("", []byte(motor))
	must(t, err)
	must(t, d.Close())
	d = s.open()
	for {
		if _, err := d.Undo("main", "ann", 0); err != nil {
			if !strings.Contains(err.Error(), "nothing is left") && !strings.Contains(err.Error(), "has been") {
				t.Fatal(err)
			}
			break
		}
	}
	if got := get(t, d, "main").Graph; !graph.Same(want, got) {
		t.Errorf("left: %v", graph.Diff(want, got))
	}
	must(t, d.Close())
}

func TestLostEditsCanBeMadeAgainFromTheLog(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", graph.AddEdge{Src: end("button.out"), Tgt: end("lamp.in")})
	s.write(strings.Replace(motor, "motor RUNNING -> RED lamp(demo/Light)\n", "", 1))
	must(t, d.Load(s.source()))
	change(t, d, "main", graph.AddNode{ID: "lamp", Component: "demo/Light"})
	_, err := desk.ReadLog(s.data(""), func(r desk.Record) bool {
		if len(r.Lost) > 0 {
			change(t, d, "main", r.Lost...)
		}
		return true
	})
	must(t, err)
	if _, ok := get(t, d, "main").Graph.Edge(end("button.out"), end("lamp.in")); !ok {
		t.Error("it is not made again")
	}
	must(t, d.Close())
}
