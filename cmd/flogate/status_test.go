package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
)

func TestWhatABrokerSaysCannotDriveATerminal(t *testing.T) {
	const evil = "\x1b]0;title\x07\u009b\u202e\nb.out -> c.in  flowing"
	s := admin.Status{
		Reload: "a.fbp: " + evil,
		Edges:  []admin.Edge{{ID: "a.out -> b.in" + evil, State: "broken", Reason: evil, Warning: "a.out is " + evil}},
		Brokers: []admin.Broker{
			{ID: "mqtt.b", State: "connecting", Reason: evil, Product: "x\x9by", Warnings: []string{evil}},
		},
		Participants: []admin.Participant{{
			Role: "a" + evil, Component: evil, Label: evil, Icon: evil, State: "present", Reason: evil, Warning: evil, InGraph: true,
			Announced: []admin.Announced{{ID: evil, On: []admin.Presence{{Broker: "mqtt.b", Address: evil}}}},
			Inports:   []admin.Port{{Name: evil, Type: evil, Description: evil}},
		}},
	}
	for what, print := range map[string]func(io.Writer, admin.Status, time.Time) error{
		"status": printStatus, "participants": printParticipants,
	} {
		var out strings.Builder
		if err := print(&out, s, time.Now()); err != nil {
			t.Fatal(err)
		}
		// What is wrong with a site file is several lines, which may be like that.
		text := strings.Replace(out.String(), cleanText(s.Reload), "", 1)
		if strings.ContainsAny(text, "\x1b\x07\u009b\u202e") || strings.Contains(text, "\nb.out") {
			t.Errorf("%s prints %q", what, text)
		}
	}
}
