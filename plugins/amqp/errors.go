package amqp

import (
	"errors"
	"fmt"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

// brokerError is what the broker says, without the library's wrapping.
type brokerError struct{ cause *amqp091.Error }

func (e *brokerError) Error() string { return fmt.Sprintf("%s (%d)", e.cause.Reason, e.cause.Code) }
func (e *brokerError) Unwrap() error { return e.cause }

// said returns err in the words of the broker, and Permanent where the broker will say the same next time: what is
// forbidden, what exists with other properties, what it does not know.
func said(err error) error {
	e, ok := errors.AsType[*amqp091.Error](err)
	if !ok {
		return err
	}
	err = &brokerError{e}
	if !e.Server {
		return err
	}
	switch e.Code {
	case amqp091.AccessRefused, amqp091.PreconditionFailed, amqp091.NotImplemented:
		return transport.Permanent(err)
	}
	return err
}

// code is the broker's reply code, 0 where the error is not the broker's.
func code(err error) int {
	if e, ok := errors.AsType[*amqp091.Error](err); ok && e.Server {
		return e.Code
	}
	return 0
}
