package network

import (
	"context"
	"fmt"

	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// letterBox is how a target opens its dead letter. Where a place keeps nothing by itself, the broker first hears of a
// subscription for which it has to keep what comes: that of whoever reads dead letters. It is made again on each connection,
// because a broker that restarts may have forgotten it, but not more often: it would push out a reader who is just there.
func (n *Network) letterBox(t route.Target, sink transport.Sink) func(context.Context) (transport.Publisher, error) {
	open := n.opener(t.DeadLetter.Broker, sink)
	if !t.DeadLetterTraits.Fleeting {
		return open
	}
	reader := deadletter.Reader(t.DeadLetter.Address, t.DeadLetterReader)
	key := t.DeadLetter.Broker + " " + reader.Name + " " + string(reader.Options)
	return func(ctx context.Context) (transport.Publisher, error) {
		conn, err := n.Conn(ctx, t.DeadLetter.Broker)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		kept := n.kept[key] == conn
		n.mu.Unlock()
		if !kept {
			if err := deadletter.Keep(ctx, conn, reader); err != nil {
				return nil, fmt.Errorf("have dead letters kept at %s: %w", t.DeadLetter.Address, err)
			}
			n.mu.Lock()
			n.kept[key] = conn
			n.mu.Unlock()
		}
		return conn.Publish(ctx, sink)
	}
}
