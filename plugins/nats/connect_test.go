package nats

import (
	"context"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/transport"
)

// lateContext ends at the moment in which nobody is told of its end any more.
type lateContext struct {
	context.Context
	done chan struct{}
	seen atomic.Bool // somebody wants to be told
	over atomic.Bool
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	if c.over.Load() {
		return context.Canceled
	}
	return nil
}

// AfterFunc is what package context uses.
func (c *lateContext) AfterFunc(func()) (stop func() bool) {
	first := !c.seen.Swap(true)
	return func() bool {
		if first {
			c.over.Store(true)
		}
		return true
	}
}

// A context that ends when the connection is just there leaves none behind that nobody has.
func TestConnectThatIsCancelledAtTheLastMomentLeavesNothing(t *testing.T) {
	b := server(t)
	before := goleak.IgnoreCurrent()
	d, _ := testDriver(t)
	ctx := &lateContext{Context: context.Background(), done: make(chan struct{})}
	c, err := d.Connect(ctx, transport.ConnectRequest{Name: "site/bus", Config: obj(t, map[string]any{"url": b.URL()})})
	if !ctx.over.Load() {
		t.Fatal("the context has not ended")
	}
	if err == nil {
		closeNow(t, c)
	}
	goleak.VerifyNone(t, before)
}
