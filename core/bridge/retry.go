package bridge

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// retry waits between attempts: half to whole of a time that doubles from minWait to maxWait. Whether a broker is
// connected at all is core/broker's affair; this bounds only how often an address is tried on a broker that is.
type retry struct {
	last time.Duration
}

// A broker that is connected bears being asked once a second, and a person who has mended something does not like to wait.
// What is permanent is asked seldom: it takes a person.
const (
	minWait       = 10 * time.Millisecond
	maxWait       = time.Second
	permanentWait = 5 * time.Second
)

func (r *retry) reset() { r.last = 0 }

// wait blocks for the next wait, or until ctx ends. What is permanent waits longest from the first time on.
func (r *retry) wait(ctx context.Context, err error) {
	r.last = min(max(2*r.last, minWait), maxWait)
	if transport.IsPermanent(err) {
		r.last = permanentWait
	}
	timer := time.NewTimer(r.last/2 + rand.N(r.last/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
