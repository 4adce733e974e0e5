package nats

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// shown is a consumer of which nothing is known but what it shows.
type shown struct {
	jetstream.Consumer
	info func(ctx context.Context) (*jetstream.ConsumerInfo, error)
}

func (s shown) Info(ctx context.Context) (*jetstream.ConsumerInfo, error) { return s.info(ctx) }

func (s shown) CachedInfo() *jetstream.ConsumerInfo { return &jetstream.ConsumerInfo{Name: "k"} }

// Whenever the time is up, also while the server is asked: why nobody could subscribe is what has to be said.
func TestConsumerInUseIsSaidOnASlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conn{done: make(chan struct{})}
		k := shown{info: func(ctx context.Context) (*jetstream.ConsumerInfo, error) {
			select {
			case <-time.After(time.Second):
				return &jetstream.ConsumerInfo{NumWaiting: 1}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		_, err := c.alone(t.Context(), k)
		if err == nil || !strings.Contains(err.Error(), "in use") || transport.IsPermanent(err) {
			t.Errorf("got %v", err)
		}
	})
}

// Between two of its pulls a client has none waiting. That does not make the consumer free.
func TestConsumerIsNotTakenBetweenTwoPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conn{done: make(chan struct{})}
		looks := 0
		k := shown{info: func(context.Context) (*jetstream.ConsumerInfo, error) {
			looks++
			if looks == 3 {
				return &jetstream.ConsumerInfo{}, nil
			}
			return &jetstream.ConsumerInfo{NumWaiting: 1}, nil
		}}
		if _, err := c.alone(t.Context(), k); err == nil {
			t.Error("the consumer was taken from another client")
		}
		looks = 0
		k.info = func(context.Context) (*jetstream.ConsumerInfo, error) {
			looks++
			return &jetstream.ConsumerInfo{NumWaiting: max(0, 3-looks)}, nil
		}
		if _, err := c.alone(t.Context(), k); err != nil {
			t.Errorf("the consumer of a client that has gone: %v", err)
		}
	})
}
