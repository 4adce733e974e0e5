package graph

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// source is a text under the parser, and what was found wrong with it.
type source struct {
	file string
	src  []byte
	errs []fault
}

type fault struct {
	at      int
	message string
}

// newSource refuses what no parser should look at: too much, or not UTF-8.
func newSource(file string, src []byte) (*source, error) {
	s := &source{file: file, src: src}
	if len(src) > MaxSize {
		s.src = nil
		s.fail(0, "the text is larger than %d MiB", MaxSize>>20)
		return s, s.err()
	}
	for at := 0; at < len(src); {
		r, size := utf8.DecodeRune(src[at:])
		if r == utf8.RuneError && size == 1 {
			s.fail(at, "byte %#02x: the text is not UTF-8", src[at])
			return s, s.err()
		}
		at += size
	}
	return s, nil
}

func (s *source) fail(at int, format string, args ...any) {
	s.errs = append(s.errs, fault{at, fmt.Sprintf(format, args...)})
}

// err returns all faults in the order of the text, or nil if there is none.
func (s *source) err() error {
	if len(s.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(s.errs, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	var all Errors
	line, column, at := 1, 1, 0
	for _, f := range s.errs {
		for at < f.at {
			if n := newline(s.src, at); n > 0 {
				at += n
				line, column = line+1, 1
				continue
			}
			_, n := utf8.DecodeRune(s.src[at:])
			at += n
			column++
		}
		all = append(all, &Error{File: s.file, Line: line, Column: column, Message: f.message})
	}
	return all
}

// newline returns how many bytes long the line end at this place is: 0 if there is none. Besides the usual ones the .fbp
// language has the two of Unicode.
func newline(src []byte, at int) int {
	switch rest := src[at:]; {
	case bytes.HasPrefix(rest, []byte("\r\n")):
		return 2
	case len(rest) > 0 && (rest[0] == '\n' || rest[0] == '\r'):
		return 1
	case bytes.HasPrefix(rest, []byte("\u2028")), bytes.HasPrefix(rest, []byte("\u2029")):
		return 3
	}
	return 0
}

// jsonValue reads the JSON value that starts at this place and returns where it ends.
func (s *source) jsonValue(at int) (raw json.RawMessage, end int, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(s.src[at:]))
	if err := dec.Decode(&raw); err != nil {
		s.jsonFail(at, err)
		return nil, at, false
	}
	return raw, at + int(dec.InputOffset()), true
}

// jsonFail reports an error of a JSON decoder that began at this place.
func (s *source) jsonFail(at int, err error) {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.fail(len(s.src), "the text ends in the middle of a JSON value")
	case errors.As(err, &syntax):
		s.fail(max(at, at+int(syntax.Offset)-1), "JSON: %v", syntax)
	default:
		s.fail(at, "JSON: %v", err)
	}
}

// compact returns a JSON value, known to be valid, without the space between its tokens.
func compact(raw json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return raw
	}
	return out.Bytes()
}

// encode returns v as compact JSON that a person can read: no escapes for the sake of HTML.
func encode(v any) (json.RawMessage, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
