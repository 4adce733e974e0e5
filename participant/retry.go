package participant

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// retry waits between attempts: half to whole of a time that doubles from minWait to maxWait. Whether a broker is
// connected at all is core/broker's affair.
type retry struct{ last time.Duration }

const (
	minWait = 10 * time.Millisecond
	maxWait = 5 * time.Second
)

func (r *retry) reset() { r.last = 0 }

// wait blocks for the next wait, or until ctx ends. What is permanent waits longest from the first time on.
func (r *retry) wait(ctx context.Context, err error) {
	r.last = min(max(2*r.last, minWait), maxWait)
	if transport.IsPermanent(err) {
		r.last = maxWait
	}
	timer := time.NewTimer(r.last/2 + rand.N(r.last/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// closeTimeout bounds closing what may not answer.
const closeTimeout = 2 * time.Second

// closeIt closes a subscription or a publisher. What cannot be closed dies with its connection.
func closeIt(ctx context.Context, end func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = end(ctx)
}

// flag is set once. The zero value is of no use: see newFlag.
type flag struct {
	once sync.Once
	ch   chan struct{}
}

func newFlag() *flag                  { return &flag{ch: make(chan struct{})} }
func (f *flag) set()                  { f.once.Do(func() { close(f.ch) }) }
func (f *flag) done() <-chan struct{} { return f.ch }
