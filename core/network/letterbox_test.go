package network_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

func TestDeadLettersAtATopicAreKeptForWhoeverReadsThem(t *testing.T) {
	s := newSite(t)
	s.q.Refuse("queue/b.in", errors.New("too large"))
	g, err := graph.ParseFBP("test.fbp", []byte("a(x) OUT -> IN b(x)"))
	if err != nil {
		t.Fatal(err)
	}
	traits := transport.Traits{Acks: true, Confirms: true}
	in := route.Input{
		Graphs: []route.Graph{{Name: "main", Graph: g}},
		Participants: map[string]route.Participant{
			"a": {Outports: map[string]route.Port{"out": {Broker: "m", Address: "queue/a.out", Traits: traits}}},
			"b": {Inports: map[string]route.Port{"in": {Broker: "q", Address: "queue/b.in", Traits: traits}}},
		},
		Settings: func(graph.Endpoint, graph.Endpoint) route.Settings {
			return route.Settings{
				DeadLetter:       route.Place{Broker: "m", Address: "dead"},
				DeadLetterTraits: transport.Traits{Confirms: true, Fleeting: true, Headerless: true},
			}
		},
	}
	s.net.Apply(network.Wanted{Plan: route.Make(in), Brokers: []network.Broker{s.broker("m", s.m), s.broker("q", s.q)}})

	// Over the loss of connections, too: nobody reads meanwhile.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i := range 3 {
		s.send("a", i, i+1)
		if _, err := s.m.AwaitPublished(ctx, "dead", i+1); err != nil {
			t.Fatal(err)
		}
		for s.m.Held("queue/a.out") > 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		s.m.KillConnections("killed by the test")
	}

	conn, err := s.m.Driver().Connect(ctx, transport.ConnectRequest{Name: "test/m", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	box, err := deadletter.OpenBox(ctx, conn, deadletter.Place{Address: "dead"}, 10)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		items, err := box.Next(ctx, 200*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			break
		}
		for _, item := range items {
			if item.Foreign || string(item.Message.Body) != strconv.Itoa(n) || item.Cause != "too large" || item.Broker != "m" ||
				item.Edge != "a.out -> b.in" || item.Message.Address != "queue/a.out" {
				t.Errorf("dead letter %d is %+v", n, item)
			}
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d dead letters were kept", n)
	}
}
