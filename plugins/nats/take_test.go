package nats

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// What is taken out of the middle does not come again, whatever the retention of the stream.
func TestTakenMessagesAreGoneFromTheStream(t *testing.T) {
	for _, retention := range []jetstream.RetentionPolicy{jetstream.LimitsPolicy, jetstream.WorkQueuePolicy, jetstream.InterestPolicy} {
		t.Run(retention.String(), func(t *testing.T) {
			b := server(t)
			_, js := peer(t, b.URL())
			makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Retention: retention})
			c := connect(t, b.URL(), "site/bus")
			src := source("in", "s", 10, obj(t, map[string]any{"stream": "S", "take": true}))
			s := subscribe(t, c, src)
			fill(t, js, "s", 1, 5)
			receive(t, s, 5)
			settle(t, s, 2, 2, transport.Ack)
			settle(t, s, 4, 4, transport.Ack)
			closeNow(t, s)

			s = subscribe(t, c, src)
			if diff := cmp.Diff([]string{"1", "3", "5"}, bodies(receive(t, s, 3))); diff != "" {
				t.Error(diff)
			}
			nothing(t, s, 300*time.Millisecond)
		})
	}
}

// A stream that lets nobody delete says so, before anything is acknowledged.
func TestTakingFromAStreamThatDeniesItFails(t *testing.T) {
	b := server(t)
	_, js := peer(t, b.URL())
	makeStream(t, js, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, DenyDelete: true})
	c := connect(t, b.URL(), "site/bus")
	s := subscribe(t, c, source("in", "s", 10, obj(t, map[string]any{"stream": "S", "take": true})))
	fill(t, js, "s", 1, 1)
	receive(t, s, 1)
	err := s.Settle(t.Context(), []transport.Settlement{{First: 1, Last: 1, Outcome: transport.Ack}})
	if err == nil || errors.Is(err, transport.ErrClosed) {
		t.Errorf("settled with %v", err)
	}
	if info := consumerInfo(t, js, "S", consumerName("site/bus", "in")); info.NumAckPending != 1 {
		t.Errorf("%d are unsettled; want 1", info.NumAckPending)
	}
}
