package discovery

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRestoredRegistryKnowsWhoWasThere(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old := NewRegistry(Config{})
	see := func(r *Registry, broker, id string, at time.Time) []Change {
		t.Helper()
		def := Definition{
			ID: id, Role: "r", Component: "c", Heartbeat: 20 * time.Second,
			Inports:  []Port{{ID: "in", Type: "int", Queue: id + ".IN", Description: "numbers"}},
			Outports: []Port{}, Extra: map[string]json.RawMessage{"x-more": json.RawMessage(`{"a":1}`)},
		}
		changes, err := r.Seen(Place{broker, "fbp"}, def, at)
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	see(old, "mqtt.x", "one", start)
	see(old, "amqp.y", "one", start.Add(time.Second))
	see(old, "mqtt.x", "two", start.Add(2*time.Second))
	old.Remove("two")
	see(old, "mqtt.x", "three", start.Add(3*time.Second))
	text, err := old.Save()
	if err != nil {
		t.Fatal(err)
	}

	r := NewRegistry(Config{})
	if err := r.Restore(text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(old.Snapshot(), r.Snapshot()); diff != "" {
		t.Error(diff)
	}
	// A week later nobody is missed before somebody listens, and has listened for the whole time.
	week := start.Add(7 * 24 * time.Hour)
	if gone := r.Expire(week); len(gone) > 0 {
		t.Errorf("gone before anybody listens: %v", gone)
	}
	for _, broker := range []string{"mqtt.x", "amqp.y"} {
		r.Listening(Place{broker, "fbp"}, true, week)
	}
	if gone := r.Expire(week.Add(59 * time.Second)); len(gone) > 0 {
		t.Errorf("gone before their time: %v", gone)
	}
	// Who is heard of again is the same, who comes is somebody new.
	if changes := see(r, "mqtt.x", "one", week.Add(59*time.Second)); len(changes) > 0 {
		t.Errorf("one that repeats itself has changed: %v", changes)
	}
	if changes := see(r, "mqtt.x", "four", week.Add(59*time.Second)); len(changes) != 1 || changes[0].Participant.Incarnation != 4 {
		t.Errorf("one that comes is %v", changes)
	}
	var left []string
	for _, c := range r.Expire(week.Add(61 * time.Second)) {
		left = append(left, string(c.Kind)+" "+c.Participant.Definition.ID)
	}
	if diff := cmp.Diff([]string{"changed one", "left three"}, left); diff != "" {
		t.Error(diff)
	}
}

func TestWhatCannotBeRestoredHarmsNobody(t *testing.T) {
	r := NewRegistry(Config{Max: 1})
	for _, text := range []string{"", "nonsense", `{"version":2}`, `[]`} {
		if err := r.Restore([]byte(text)); err == nil {
			t.Errorf("%q is restored", text)
		}
	}
	text := `{"version":1,"incarnations":7,"present":[
		{"broker":"b","address":"fbp","incarnation":1,"definition":{"id":"x"}},
		{"broker":"b","address":"fbp","incarnation":2,"definition":{"id":"y","role":"r","component":"c","inports":[],"outports":[]}},
		{"broker":"b","address":"fbp","incarnation":3,"definition":{"id":"z","role":"r","component":"c","inports":[],"outports":[]}}]}`
	if err := r.Restore([]byte(text)); err == nil {
		t.Error("what is too much and what is none are no errors")
	}
	if all := r.Snapshot(); len(all) != 1 || all[0].Definition.ID != "y" || all[0].Incarnation != 2 {
		t.Errorf("restored are %v", all)
	}
}
