package desk_test

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/desk"
	"github.com/flogate/flogate/core/graph"
)

// TestKilledAtAnyMomentOfWriting puts files together as they are between any two steps of writing a graph.
func TestKilledAtAnyMomentOfWriting(t *testing.T) {
	all := []graph.Change{
		fan,
		graph.AddInitial{Src: graph.Packet{Data: json.RawMessage("1")}, Tgt: end("fan.speed")},
		graph.AddInitial{Src: graph.Packet{Data: json.RawMessage("1")}, Tgt: end("fan.speed")},
		graph.RemoveNode{ID: "lamp"},
		graph.ChangeEdge{Src: end("button.pressed"), Tgt: end("motor.start"), Metadata: graph.Metadata{"route": 3.0}},
		graph.AddGroup{Name: "g", Nodes: []string{"fan"}},
	}
	for n := range all { // the first ones can all be said in .fbp, and the last too if what it cannot say is gone again
		killedAtAnyMoment(t, all[:n+1])
	}
	killedAtAnyMoment(t, append(all, graph.RemoveGroup{Name: "g"}, graph.RemoveNode{ID: "button"}))
}

func killedAtAnyMoment(t *testing.T, edits []graph.Change) {
	var want *graph.Graph
	// Everything that is there after each edit was made, and after it was written.
	type files struct{ graph, layer, log string }
	s := newSite(t, "hall.fbp", motor)
	look := func() files {
		layer, _ := os.ReadFile(s.data("graphs/main.layer"))
		log, _ := os.ReadFile(s.data("graphs.log"))
		return files{s.read(), string(layer), string(log)}
	}
	for _, half := range []int{0, len(edits) / 2, len(edits) - 1} {
		s = newSite(t, "hall.fbp", motor)
		d := s.open()
		for _, c := range edits[:half] {
			change(t, d, "main", c)
		}
		must(t, d.Close())
		d = s.open()
		for _, c := range edits[half:] {
			change(t, d, "main", c)
		}
		want = get(t, d, "main").Graph
		before := look()
		must(t, d.Close())
		after := look()

		lines := strings.SplitAfter(strings.TrimPrefix(after.log, before.log), "\n")
		saving := ""
		for _, line := range lines {
			if strings.Contains(line, `"saving":`) {
				saving += line
			}
		}
		between := before.layer
		if after.layer != "" {
			var layer map[string]any
			must(t, json.Unmarshal([]byte(after.layer), &layer))
			layer["base"] = before.graph
			text, err := json.Marshal(layer)
			must(t, err)
			between = string(text)
		}
		for name, at := range map[string]files{
			"before all":      before,
			"file announced":  {before.graph, before.layer, before.log + saving},
			"layer written":   {before.graph, between, before.log + saving},
			"file written":    {after.graph, between, before.log + saving},
			"layer settled":   {after.graph, after.layer, before.log + saving},
			"after all":       after,
			"layer, log torn": {after.graph, after.layer, after.log + `{"time":"20`},
		} {
			s = newSite(t, "hall.fbp", at.graph)
			must(t, os.MkdirAll(s.data("graphs"), 0o700), os.WriteFile(s.data("graphs.log"), []byte(at.log), 0o600))
			if at.layer != "" {
				must(t, os.WriteFile(s.data("graphs/main.layer"), []byte(at.layer), 0o600))
			}
			d := s.open()
			got := get(t, d, "main")
			if !graph.Same(want, got.Graph) {
				t.Errorf("%d edits, %s: %v\n%s", half, name, spelled(t, graph.Diff(got.Graph, want)), s.log.String())
			}
			if got.Revision != uint64(len(edits)) {
				t.Errorf("%d edits, %s: revision %d", half, name, got.Revision)
			}
			if strings.Contains(s.log.String(), "lost") {
				t.Errorf("%d edits, %s: %s", half, name, s.log.String())
			}
			d = s.open()
			if again := get(t, d, "main"); !graph.Same(want, again.Graph) {
				t.Errorf("%d edits, %s, twice: %v", half, name, spelled(t, graph.Diff(again.Graph, want)))
			}
			for range edits {
				if _, err := d.Undo("main", "ann", 0); err != nil {
					t.Fatalf("%d edits, %s: %v", half, name, err)
				}
			}
			must(t, d.Close())
			file, err := graph.ParseFBP("", []byte(motor))
			must(t, err)
			if got := get(t, d, "main").Graph; !graph.Same(file, got) {
				t.Errorf("%d edits, %s, taken back: %v", half, name, spelled(t, graph.Diff(got, file)))
			}
		}
	}
}

func spelled(t testing.TB, all []graph.Change) (lines []string) {
	t.Helper()
	for _, c := range all {
		payload, err := graph.Payload(c)
		must(t, err)
		lines = append(lines, c.Command()+" "+string(payload))
	}
	return lines
}

// TestLogThatCannotBeWrittenIsMadeUpFor when it can be again.
func TestLogThatCannotBeWrittenIsMadeUpFor(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	small := func(c *desk.Config) { c.LogSize = 1 } // each line begins a new log
	d := s.open(small)
	must(t, os.RemoveAll(s.data("graphs.log")), os.MkdirAll(s.data("graphs.log/in the way"), 0o700))
	change(t, d, "main", fan)
	change(t, d, "main", graph.RenameNode{From: "fan", To: "f"})
	if !strings.Contains(s.log.String(), "the log of the graphs cannot be written") {
		t.Error(s.log.String())
	}
	must(t, os.RemoveAll(s.data("graphs.log")))
	if runtime.GOOS == "linux" { // a disk without space
		must(t, os.Symlink("/dev/full", s.data("graphs.log")))
		change(t, d, "main", graph.RenameNode{From: "f", To: "full"})
		change(t, d, "main", graph.RenameNode{From: "full", To: "f"})
		must(t, os.Remove(s.data("graphs.log")))
	}
	change(t, d, "main", graph.RenameNode{From: "f", To: "g"})
	if !strings.Contains(s.log.String(), "the log of the graphs can be written again") {
		t.Error(s.log.String())
	}
	must(t, d.Close())
}
