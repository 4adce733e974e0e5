package network_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/transport/transporttest"
)

// runOnce is one life of a gateway: it applies a graph, waits until it is done, and ends.
func runOnce(t *testing.T, file string, q *transporttest.Memory, fbp string, done func(s *site)) {
	t.Helper()
	s := &site{
		t: t, m: transporttest.NewMemory(), q: q, missing: map[string]bool{}, version: "1",
		net: network.New(network.Config{Drain: time.Second, Initials: file}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.net.Run(ctx) }()
	s.apply(fbp)
	done(s)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRestartSendsNoInitialPacketAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data", "initials.json")
	q := transporttest.NewMemory()
	const fbp = "'hello' -> IN b(x)\na(x) OUT -> IN b"
	flowing := func(n int) func(s *site) {
		return func(s *site) {
			s.await("a.out -> b.in", network.Flowing, "")
			s.arrived("b", n)
			time.Sleep(1500 * time.Millisecond) // a second is how often one is tried that was not sent
			if got := len(q.PublishedTo("queue/b.in")); got != n {
				t.Errorf("%d initial packets were sent, not %d", got, n)
			}
		}
	}
	runOnce(t, file, q, fbp, flowing(1))
	runOnce(t, file, q, fbp, flowing(1))
	runOnce(t, file, q, "'good bye' -> IN b(x)\na(x) OUT -> IN b", flowing(2))
	// It was taken out meanwhile, and is there again: that is another one.
	runOnce(t, file, q, fbp, flowing(3))
}
