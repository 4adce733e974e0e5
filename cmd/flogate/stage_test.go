package main

import (
	"testing"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
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
