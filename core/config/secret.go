package config

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// redacted is what is seen of a secret, wherever it is printed.
const redacted = "(sensitive)"

// Secret is text that cannot be printed by accident: with every verb of fmt, in JSON and in logs it is "(sensitive)".
// Only Reveal and JSON give it away. Secrets are comparable, and == says whether the texts are equal.
//
// The zero value is the absence of a secret, which is not the same as an empty one.
type Secret struct {
	// A handle and not a string: fmt reaches the unexported fields of other people's structs without asking their methods,
	// and then prints an address.
	handle unique.Handle[string]
}

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret { return Secret{unique.Make(text)} }

// IsZero says that there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// Reveal returns the text; empty for the zero value.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.handle.Value()
}

// JSON returns the text for where JSON is wanted; nil for the zero value. The caller may change what it gets.
func (s Secret) JSON() json.RawMessage {
	if s.IsZero() {
		return nil
	}
	return json.RawMessage(s.handle.Value())
}

// Equal is ==, for go-cmp.
func (s Secret) Equal(t Secret) bool { return s == t }

// String never returns the text.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format prints the same for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue never returns the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText never returns the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
