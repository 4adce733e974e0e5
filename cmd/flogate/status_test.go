package main

import (
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
)

func TestWhatABrokerSaysCannotDriveATerminal(t *testing.T) {
	var out strings.Builder
	s := admin.Status{
		Edges:   []admin.Edge{{ID: "a.out -> b.in", State: "broken", Reason: "\x1b[2Jgone\nb.out -> c.in  flowing"}},
		Brokers: []admin.Broker{{ID: "mqtt.b", State: "connecting", Reason: "\x1b]0;title\x07", Product: "x\x9by"}},
	}
	if err := printStatus(&out, s, time.Now()); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b") || strings.Contains(out.String(), "\nb.out") {
		t.Errorf("printed %q", out.String())
	}
}
