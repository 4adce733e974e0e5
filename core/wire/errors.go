package wire

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flogate/flogate/core/transport"
)

// toStatus returns err as the error of an RPC: its class becomes the code, its text the message. fromStatus is its inverse.
func toStatus(err error) error {
	var code codes.Code
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case transport.IsPermanent(err):
		code = codes.FailedPrecondition
	case errors.Is(err, transport.ErrClosed):
		code = codes.Unavailable
	default:
		code = codes.Aborted
	}
	return status.Error(code, text(err.Error()))
}

// fromStatus returns the error of an RPC as the other side meant it: the class from the code, the text without gRPC's
// own words around it. A plugin that is gone is Unavailable, or Canceled when this side has noticed first and has closed its
// connection: ErrClosed, both. What the caller has cancelled is told from that by its context, in callError.
func fromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	if s.Code() == codes.OK {
		return nil
	}
	e := errors.New(text(s.Message()))
	switch s.Code() {
	case codes.Unavailable, codes.Canceled:
		return transport.Closed(e)
	case codes.FailedPrecondition, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.OutOfRange, codes.Unimplemented:
		return transport.Permanent(e)
	case codes.DeadlineExceeded:
		return &deadlineError{e} // the other side has noticed first
	}
	return e
}

// ended returns the error of a stream that has ended with err: it is ErrClosed whatever the reason.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return transport.Closed(errors.New("the plugin has ended the stream"))
	}
	return transport.Closed(fromStatus(err))
}

// callError returns the error of an RPC that ctx bounds: that of ctx if it was the reason.
func callError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return fromStatus(err)
}

// deadlineError is context.DeadlineExceeded of the other side, with its text.
type deadlineError struct{ error }

func (e *deadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// text returns s as it may be sent, or shown: valid UTF-8 of bounded length.
func text(s string) string {
	if len(s) > maxText {
		cut := maxText
		for cut > maxText-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return valid(s)
}

// valid returns s with everything that is not UTF-8 replaced: protobuf refuses to send or take anything else.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
