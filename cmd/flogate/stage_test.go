package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/roster"
)

func TestSiteHearsAnotherWhoseNameBeginsAlike(t *testing.T) {
	hall, hall2 := &config.Site{Name: "hall"}, &config.Site{Name: "hall-2"}
	var announced []discovery.Participant
	for _, id := range []string{announcementID(hall, "2-lamp"), announcementID(hall2, "lamp"), "lamp"} {
		announced = append(announced, discovery.Participant{Definition: discovery.Definition{ID: id, Role: "lamp"}})
	}
	heard := others(hall, announced)
	if len(heard) != 2 || heard[0].Definition.ID != announcementID(hall2, "lamp") || heard[1].Definition.ID != "lamp" {
		t.Errorf("hall hears %v", heard)
	}
	if announcementID(hall, "2-lamp") == announcementID(hall2, "lamp") {
		t.Error("participants of two sites have one id")
	}
}

func TestParticipantThatIsWrongInAnotherWayEachTimeDoesNotFillTheLog(t *testing.T) {
	var lines strings.Builder
	r := &runner{stage: newStage(discovery.Config{}, ""), log: slog.New(slog.NewTextHandler(&lines, nil))}
	for i := range 1000 {
		r.remember([]roster.Member{{Role: "a", InGraph: true, Warning: fmt.Sprint("it is at ", i)}}, time.Now())
	}
	if n := strings.Count(lines.String(), "\n"); n < 1 || n > 200 {
		t.Errorf("%d lines", n)
	}
	if w := r.stage.members[0].Warning; w != "it is at 999" {
		t.Errorf("the status says %q", w)
	}
}

func TestThoseOfAnEarlierRunAreMissedWhereNobodyListensNow(t *testing.T) {
	now := time.Now()
	before := discovery.NewRegistry(discovery.Config{})
	for id, at := range map[string]discovery.Place{
		"same":          {Broker: "mqtt.x", Address: "fbp"},
		"other address": {Broker: "mqtt.x", Address: "old"},
		"other broker":  {Broker: "mqtt.old", Address: "fbp"},
	} {
		if _, err := before.Seen(at, discovery.Definition{ID: id, Role: id, Component: "c"}, now); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "participants.json")
	text, err := before.Save()
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{stage: newStage(discovery.Config{Log: slog.New(slog.DiscardHandler)}, file)}
	there := func() string {
		var ids []string
		for _, p := range r.stage.registry.Snapshot() {
			ids = append(ids, p.Definition.ID)
		}
		return strings.Join(ids, ", ")
	}
	r.expel(&config.Site{
		Brokers:   []config.Broker{{Type: "mqtt", Name: "x"}},
		Discovery: []config.Discovery{{Broker: "mqtt.x", Addresses: []string{"fbp"}}},
	}, now)
	if got := there(); got != "other address, same" {
		t.Errorf("at once there are %s", got)
	}
	// Nobody has listened at the address that is the same, yet.
	r.stage.registry.Expire(now.Add(discovery.DefaultLimit))
	if got := there(); got != "same" {
		t.Errorf("after the usual time there are %s", got)
	}
}
