package transport

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestErrorsKeepTheirClassTextAndChain(t *testing.T) {
	tests := []struct {
		name              string
		err               error
		closed, permanent bool
		eof               bool
		text              string
	}{
		{"closed for no reason", Closed(nil), true, false, false, "closed"},
		{"closed for a reason", Closed(fmt.Errorf("read: %w", io.EOF)), true, false, true, "read: EOF"},
		{"closed once", Closed(Closed(io.EOF)), true, false, true, "EOF"},
		{"closed and wrapped", fmt.Errorf("mqtt: %w", Closed(io.EOF)), true, false, true, "mqtt: EOF"},
		{"permanent", Permanent(io.EOF), false, true, true, "EOF"},
		{"permanent once", Permanent(Permanent(io.EOF)), false, true, true, "EOF"},
		{"permanent and wrapped", fmt.Errorf("mqtt: %w", Permanent(io.EOF)), false, true, true, "mqtt: EOF"},
		{"permanent with a format", Permanentf("read %d: %w", 7, io.EOF), false, true, true, "read 7: EOF"},
		{"closed for good", Closed(Permanent(io.EOF)), true, true, true, "EOF"},
		{"refused because closed", Permanent(Closed(io.EOF)), true, true, true, "EOF"},
		{"neither", io.EOF, false, false, true, "EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := errors.Is(tt.err, ErrClosed); got != tt.closed {
				t.Errorf("is ErrClosed: %t; want %t", got, tt.closed)
			}
			if got := IsPermanent(tt.err); got != tt.permanent {
				t.Errorf("is Permanent: %t; want %t", got, tt.permanent)
			}
			if got := errors.Is(tt.err, io.EOF); got != tt.eof {
				t.Errorf("is io.EOF: %t; want %t", got, tt.eof)
			}
			if got := tt.err.Error(); got != tt.text {
				t.Errorf("text is %q; want %q", got, tt.text)
			}
		})
	}
}

func TestNoErrorHasNoClass(t *testing.T) {
	if err := Permanent(nil); err != nil {
		t.Errorf("Permanent(nil) is %v; want nil", err)
	}
	if IsPermanent(nil) || errors.Is(nil, ErrClosed) {
		t.Error("nil has a class")
	}
	if err := Closed(ErrClosed); err != ErrClosed { //nolint:errorlint // the very same
		t.Errorf("Closed(ErrClosed) is %v; want ErrClosed itself", err)
	}
}

func TestOutcomesHaveNames(t *testing.T) {
	for o, want := range map[Outcome]string{Ack: "ack", Release: "release", Reject: "reject", 0: "unknown outcome", 9: "unknown outcome"} {
		if got := o.String(); got != want {
			t.Errorf("Outcome(%d) is %q; want %q", o, got, want)
		}
	}
}
