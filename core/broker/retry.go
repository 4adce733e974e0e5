package broker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Retry waits between attempts to use an address of a broker that is connected: half to whole of a time that doubles from
// 10 ms to 1 s, and 5 s after an error that is permanent. Whether the broker is connected at all is [Broker]'s affair. The zero
// value is ready. A Retry is for one goroutine.
type Retry struct {
	last time.Duration
}

// A broker that is connected bears being asked once a second, and a person who has mended something does not like to wait.
// What is permanent is asked seldom: it takes a person.
const (
	minRetry       = 10 * time.Millisecond
	maxRetry       = time.Second
	permanentRetry = 5 * time.Second
)

// Reset begins anew with the shortest wait: there was progress.
func (r *Retry) Reset() { r.last = 0 }

// Next returns the next wait after err.
func (r *Retry) Next(err error) time.Duration {
	r.last = min(max(2*r.last, minRetry), maxRetry)
	if transport.IsPermanent(err) {
		r.last = permanentRetry
	}
	return r.last/2 + rand.N(r.last/2+1)
}

// Wait blocks for the next wait after err, or until ctx ends.
func (r *Retry) Wait(ctx context.Context, err error) { Rest(ctx, r.Next(err)) }

// Rest blocks for d, or until ctx ends.
func Rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
