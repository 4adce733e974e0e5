package participant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/flogate/flogate/core/transport"
)

// Reject marks an error of a handler: the message never comes again. The broker may keep it as a dead letter, if it has
// been told to; AMQP does (exchange "dead-<queue>"), MQTT cannot. It returns nil for nil.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return &rejection{err}
}

type rejection struct{ err error }

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// outcome is what becomes of a message whose handler has returned err.
func outcome(err error) transport.Outcome {
	if err == nil {
		return transport.Ack
	}
	if _, is := errors.AsType[*rejection](err); is {
		return transport.Reject
	}
	return transport.Release
}

// JSON returns a handler that decodes the body first. What is no JSON, or no T, is rejected.
func JSON[T any](handle func(ctx context.Context, value T) error) Handler {
	return func(ctx context.Context, msg Message) error {
		var value T
		if err := json.Unmarshal(msg.Body, &value); err != nil {
			return Reject(fmt.Errorf("body is no JSON for %T: %w", value, err))
		}
		return handle(ctx, value)
	}
}

// SendJSON is Send with the value as JSON.
func (p *Participant) SendJSON(ctx context.Context, outport string, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return transport.Permanentf("participant %q: outport %q: %w", p.def.Role, outport, err)
	}
	return p.Send(ctx, outport, Message{Body: body, ContentType: "application/json", Durable: true})
}
