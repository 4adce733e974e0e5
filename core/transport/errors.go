package transport

import (
	"errors"
	"fmt"
)

// ErrClosed is the error of everything that has ended: a connection, a subscription, a publisher. Open another.
var ErrClosed = errors.New("closed")

// Closed returns an error that is ErrClosed and whose text is reason. With nil it returns ErrClosed itself.
func Closed(reason error) error {
	if reason == nil || errors.Is(reason, ErrClosed) {
		if reason != nil {
			return reason
		}
		return ErrClosed
	}
	return &classError{class: ErrClosed, err: reason}
}

// errPermanent is the class of Permanent errors.
var errPermanent = errors.New("permanent")

// Permanent marks an error that will not go away by trying again. It returns nil for nil.
func Permanent(err error) error {
	if err == nil || IsPermanent(err) {
		return err
	}
	return &classError{class: errPermanent, err: err}
}

// Permanentf is Permanent(fmt.Errorf(format, args...)).
func Permanentf(format string, args ...any) error {
	return Permanent(fmt.Errorf(format, args...))
}

// IsPermanent reports whether trying again is of no use.
func IsPermanent(err error) bool { return errors.Is(err, errPermanent) }

// classError is an error of a class, with the text and the chain of another.
type classError struct {
	class error
	err   error
}

func (e *classError) Error() string        { return e.err.Error() }
func (e *classError) Unwrap() error        { return e.err }
func (e *classError) Is(target error) bool { return target == e.class }
