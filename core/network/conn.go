package network

import (
	"context"

	"github.com/flogate/flogate/core/transport"
)

// Conn returns the connection to a broker, for what is not a feed: announcements of participants. It blocks until the broker
// is wanted and connected; ctx ends the wait. It is nobody's to close.
func (n *Network) Conn(ctx context.Context, id string) (transport.Conn, error) {
	return n.conn(ctx, id)
}
