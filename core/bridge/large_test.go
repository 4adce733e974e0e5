package bridge_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
)

// cutter delivers every seventh message without its body, as if that was too large to pass.
type cutter struct{ transport.Subscription }

const cutSize = 16<<20 + 1

func isCut(body string) bool {
	n, err := strconv.Atoi(body)
	return err == nil && n%7 == 3
}

func (c cutter) Receive(ctx context.Context) ([]transport.Delivery, error) {
	ds, err := c.Subscription.Receive(ctx)
	for i := range ds {
		if body := string(ds[i].Body); isCut(body) {
			ds[i].ID = body
			ds[i].Body, ds[i].TooLarge = nil, cutSize
		}
	}
	return ds, err
}

// cutFeed is feed with a cutter.
func cutFeed(t *testing.T, from side, targets ...bridge.Target) *bridge.Feed {
	t.Helper()
	open := from.subscribe("queue/in", window)
	f := bridge.New(bridge.Config{
		Name: t.Name(), Acks: true, Drain: 5 * time.Second, Window: transport.Credit{Messages: window, Bytes: 1 << 20},
		Open: func(ctx context.Context) (transport.Subscription, error) {
			sub, err := open(ctx)
			if err != nil {
				return nil, err
			}
			return cutter{sub}, nil
		},
	}, targets)
	background(t, f.Run)
	return f
}

// wholeAndCut returns the bodies 0 to n-1 that pass, and those that do not.
func wholeAndCut(n int) (whole, cut []string) {
	for i := range n {
		if body := strconv.Itoa(i); isCut(body) {
			cut = append(cut, body)
		} else {
			whole = append(whole, body)
		}
	}
	return whole, cut
}

func TestMessageThatIsTooLargeToPassIsRefusedByEveryTarget(t *testing.T) {
	from, to, other, dead := newSide(t), newSide(t), newSide(t), newSide(t)
	f := cutFeed(t, from,
		bridge.Target{ID: "a.out -> b.in", Open: to.publish("queue/out"), OpenDeadLetter: dead.publish("queue/dead")},
		bridge.Target{ID: "a.out -> c.in", Open: other.publish("queue/out"), OpenDeadLetter: other.publish("queue/dead")},
	)
	const messages = 100
	from.Send("queue/in", numbers(0, messages)...)
	await(t, "everything to be settled", func() bool { return from.Held("queue/in") == 0 })
	whole, cut := wholeAndCut(messages)
	for _, s := range []side{to, other} {
		if got := bodies(s.PublishedTo("queue/out")); !slices.Equal(got, whole) {
			t.Errorf("arrived %v; want %v", got, whole)
		}
	}
	letters := dead.PublishedTo("queue/dead")
	if len(letters) != len(cut) {
		t.Fatalf("%d dead letters; want %d", len(letters), len(cut))
	}
	for i, letter := range letters {
		cause := letter.Headers[0]
		got, _ := deadletter.Open(letter)
		if got.Message.ID != cut[i] || len(letter.Body) > 0 || cause.Name != deadletter.HeaderCause ||
			cause.Value != "a body of 16777217 bytes is larger than 16 MiB" {
			t.Errorf("dead letter %d is %+v; want message %s", i, letter, cut[i])
		}
	}
	for _, s := range f.Status().Targets {
		if s.Dead != uint64(len(cut)) || s.Passed.Messages != uint64(len(whole)) {
			t.Errorf("status %+v", s)
		}
	}
}

func TestMessageThatIsTooLargeToPassIsRejectedWithoutDeadLetter(t *testing.T) {
	from, to := newSide(t), newSide(t)
	f := cutFeed(t, from, bridge.Target{ID: "t", Open: to.publish("queue/out")})
	from.Send("queue/in", numbers(3, 4)...) // alone: nothing comes after it that would push it on
	await(t, "the rejection", func() bool { return f.Status().Targets[0].Rejected == 1 && from.Held("queue/in") == 0 })
	if got := to.PublishedTo("queue/out"); len(got) > 0 {
		t.Errorf("the sink has got %+v", got)
	}
}

func TestLostConnectionsLoseNothingBesideWhatIsTooLarge(t *testing.T) {
	from, to, dead := newSide(t), newSide(t), newSide(t)
	cutFeed(t, from, bridge.Target{ID: "t", Open: to.publish("queue/out"), OpenDeadLetter: dead.publish("queue/dead")})
	const messages = 500
	for i := range messages {
		from.Send("queue/in", numbers(i, i+1)...)
		if rand.IntN(20) == 0 {
			[]side{from, to, dead}[rand.IntN(3)].KillConnections("killed by the test")
		}
	}
	await(t, "everything to be settled", func() bool { return from.Held("queue/in") == 0 })
	whole, cut := wholeAndCut(messages)
	firsts := func(all []string) (once []string) {
		for _, s := range all {
			if !slices.Contains(once, s) {
				once = append(once, s)
			}
		}
		return once
	}
	if got := firsts(bodies(to.PublishedTo("queue/out"))); !slices.Equal(got, whole) {
		t.Errorf("arrived %v", got)
	}
	var letters []string
	for _, m := range dead.PublishedTo("queue/dead") {
		letter, _ := deadletter.Open(m)
		letters = append(letters, letter.Message.ID)
	}
	if got := firsts(letters); !slices.Equal(got, cut) {
		t.Errorf("dead letters of %v; want %v", got, cut)
	}
}
