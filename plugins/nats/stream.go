package nats

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// stream returns the stream of that name. It makes it when there is none and create is not nil.
func (c *conn) stream(ctx context.Context, name string, create *streamOptions, address string) (jetstream.Stream, error) {
	s, err := c.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if create == nil {
			return nil, transport.Permanentf("there is no stream %q: make it, or add a create_stream block", name)
		}
		conf := create.config(name, address)
		conf.AllowMsgTTL = c.serverAtLeast(2, 11)
		s, err = c.js.CreateStream(ctx, conf)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody was faster
			s, err = c.js.Stream(ctx, name)
		}
	}
	return s, c.failure(err)
}

// serverAtLeast compares the version of the server.
func (c *conn) serverAtLeast(major, minor int) bool {
	parts := strings.SplitN(c.version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	have, err := strconv.Atoi(parts[0])
	if err != nil || have != major {
		return err == nil && have > major
	}
	have, err = strconv.Atoi(parts[1])
	return err == nil && have >= minor
}

// gone reports whether what was asked for does not exist.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}
