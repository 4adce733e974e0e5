package fbp

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Secret is what a client shows to be let in. It never comes out where things are printed, logged or encoded, not even
// from within an unexported field; only Reveal gives it away. The zero Secret is none.
type Secret struct{ text *string } // fmt and reflection see an address

// NewSecret returns text as a Secret. An empty text is none: it is what clients send who have none.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{text: &text}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is none.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal reports whether both are the same, in a time that does not depend on where they differ.
func (s Secret) Equal(o Secret) bool {
	a, b := sha256.Sum256([]byte(s.Reveal())), sha256.Sum256([]byte(o.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String returns "(sensitive)", or "" if there is none.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return "(sensitive)"
}

// Format prints what String returns, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
