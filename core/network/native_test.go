package network

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// farBroker takes its time for each binding.
type farBroker struct {
	transport.Conn
	took  time.Duration
	bound []string
}

func (b *farBroker) Declare(context.Context, transport.Place) error { return nil }

func (b *farBroker) Bind(_ context.Context, binding transport.Binding) error {
	time.Sleep(b.took)
	b.bound = append(b.bound, binding.To.Address)
	return nil
}

func (b *farBroker) Unbind(context.Context, transport.Binding) error { return nil }

// Bindings that are there are made again from time to time, a thousand of them at a broker that is far away for a minute. What
// is new does not wait for them.
func TestNewBindingDoesNotWaitForThoseThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(Config{})
		far := &farBroker{took: 50 * time.Millisecond}
		for i := range 1000 {
			id := fmt.Sprintf("old %d", i)
			n.natives[id] = &nativeRun{conn: far, at: time.Now(), since: time.Now(), spec: route.Native{
				ID: id, Broker: "m", Bindings: []transport.Binding{{To: transport.Place{Kind: transport.Queue, Address: id}}},
			}}
		}
		time.Sleep(assertEvery + time.Second)
		n.bindDue(t.Context(), "m", far)
		n.natives["new"] = &nativeRun{spec: route.Native{
			ID: "new", Broker: "m", Bindings: []transport.Binding{{To: transport.Place{Kind: transport.Queue, Address: "new"}}},
		}}
		start := time.Now()
		for n.natives["new"].conn == nil {
			n.bindDue(t.Context(), "m", far)
		}
		if took := time.Since(start); took > time.Second || len(far.bound) > 50 {
			t.Errorf("it was there after %v and %d others", took, len(far.bound)-1)
		}
		for range 1000 {
			n.bindDue(t.Context(), "m", far)
		}
		seen := make(map[string]bool)
		for _, address := range far.bound {
			seen[address] = true
		}
		if len(seen) != 1001 {
			t.Errorf("%d of 1001 were made again", len(seen))
		}
	})
}
