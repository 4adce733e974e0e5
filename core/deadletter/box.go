package deadletter

import (
	"context"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// closeTime bounds how long the end of a subscription may take.
const closeTime = 5 * time.Second

// Keep has the broker keep from now on what comes to the place of the reader, for a Box that is opened later: it opens the
// reader's subscription and closes it again, without taking anything.
func Keep(ctx context.Context, conn transport.Conn, reader transport.Source) error {
	reader.Window = transport.Credit{Messages: 1, Bytes: 1}
	sub, err := conn.Subscribe(ctx, reader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	return sub.Close(ctx)
}
