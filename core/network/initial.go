package network

import (
	"context"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// reconcileInitials sends the initial packets that are wanted and were not sent. One that goes away and comes back is sent
// again: somebody has put it there again.
func (n *Network) reconcileInitials(ctx context.Context, wg *sync.WaitGroup) {
	wanted := make(map[string]route.Initial, len(n.wanted.Plan.Initials))
	for _, i := range n.wanted.Plan.Initials {
		if i.Pending == "" {
			wanted[i.ID] = i
		}
	}
	for id, stop := range n.iips {
		if _, ok := wanted[id]; !ok {
			stop()
			delete(n.iips, id)
		}
	}
	for id, w := range wanted {
		if n.iips[id] != nil {
			continue
		}
		ictx, stop := context.WithCancel(ctx)
		n.iips[id] = stop
		wg.Go(func() {
			defer stop()
			n.sendInitial(ictx, w)
		})
	}
}

// sendInitial tries until the broker has the packet, or refuses it, or ctx ends.
func (n *Network) sendInitial(ctx context.Context, w route.Initial) {
	for {
		err := n.publishOne(ctx, w)
		switch {
		case ctx.Err() != nil, err == nil:
			return
		case transport.IsPermanent(err):
			n.cfg.Log.Error("initial packet refused", "port", w.To.String(), "error", err)
			return
		}
		n.cfg.Log.Debug("initial packet not sent", "port", w.To.String(), "error", err)
		broker.Rest(ctx, time.Second)
	}
}

func (n *Network) publishOne(ctx context.Context, w route.Initial) error {
	pub, err := n.opener(w.Broker, w.Sink)(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = pub.Close(ctx) }() // what is confirmed is confirmed
	if err := pub.Publish(ctx, []transport.Message{{Body: w.Body, Durable: true}}); err != nil {
		return err
	}
	confirms, err := pub.Confirms(ctx)
	if err != nil {
		return err
	}
	return confirms[len(confirms)-1].Refused
}
