package fbp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// MaxSize is the largest message, in bytes: as large as a graph's text may be. Links may set less.
	MaxSize = 16 << 20
	// MaxDepth is how deep objects and arrays may stand in each other.
	MaxDepth = 200

	// maxKeys bounds the objects that the protocol defines: none has more than ten keys, but metadata is free.
	maxKeys = 1024
)

// checkText reports what keeps text from being one JSON value that is safe to look into.
func checkText(text []byte) error {
	if len(text) > MaxSize {
		return fmt.Errorf("larger than %d bytes", MaxSize)
	}
	if !utf8.Valid(text) {
		return errors.New("not valid UTF-8")
	}
	if deep(text) {
		return fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	if !json.Valid(text) {
		return errors.New("not valid JSON")
	}
	return nil
}

// deep reports whether text has too many levels. It need not be valid.
func deep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// The functions below take text that is known to be valid.

// trim returns text without the space around it.
func trim(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n') {
		i++
	}
	return i
}

// valueEnd returns where the value that starts at i ends.
func valueEnd(text []byte, i int) int {
	switch text[i] {
	case '"':
		for i++; text[i] != '"'; i++ {
			if text[i] == '\\' {
				i++
			}
		}
		return i + 1
	case '{', '[':
		for depth := 0; ; i++ {
			switch text[i] {
			case '"':
				i = valueEnd(text, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for ; i < len(text); i++ {
		switch text[i] {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			return i
		}
	}
	return i
}

// member is one key of an object with its value, as they are spelled.
type member struct {
	key   string
	name  []byte // the key with its quotes
	value []byte
}

var errTwice = errors.New("has a key twice")

// members returns the members of an object. With errTwice come those before the key that is there twice.
func members(object []byte) ([]member, error) {
	const few = 16 // as long as looking through them is faster than a map
	var all []member
	var seen map[string]bool
	for i := skipSpace(object, 1); object[i] != '}'; {
		end := valueEnd(object, i)
		name := object[i:end]
		i = skipSpace(object, end)
		i = skipSpace(object, i+1)
		end = valueEnd(object, i)
		m := member{key: unquote(name), name: name, value: object[i:end]}
		if len(all) < few && slices.ContainsFunc(all, func(old member) bool { return old.key == m.key }) || seen[m.key] {
			return all, errTwice
		}
		if len(all) == maxKeys {
			return all, fmt.Errorf("has more than %d keys", maxKeys)
		}
		all = append(all, m)
		switch {
		case len(all) == few:
			seen = make(map[string]bool, 2*few)
			for _, old := range all {
				seen[old.key] = true
			}
		case len(all) > few:
			seen[m.key] = true
		}
		i = skipSpace(object, end)
		if object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
	return all, nil
}

// unquote returns the text of a string. Half surrogate pairs become U+FFFD; see broken.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic("fbp: invalid text went unnoticed: " + err.Error())
	}
	return s
}

// broken reports whether a string escapes half a surrogate pair: no text at all, and everything of that kind would read as
// the same.
func broken(quoted []byte) bool {
	for i := 0; i+1 < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		i++
		if quoted[i] != 'u' {
			continue
		}
		r := escaped(quoted[i+1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if len(quoted) < i+7 || quoted[i+1] != '\\' || quoted[i+2] != 'u' ||
			utf16.DecodeRune(r, escaped(quoted[i+3:])) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

// escaped returns the rune of the four digits at the start.
func escaped(digits []byte) rune {
	r, _ := strconv.ParseUint(string(digits[:4]), 16, 16)
	return rune(r)
}

// encode returns v's JSON. Raw messages in it stay as they are, but for the space between tokens.
func encode(v any) (json.RawMessage, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// appendQuoted appends text as a string.
func appendQuoted(b []byte, text string) []byte {
	if !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return append(append(append(b, '"'), text...), '"')
	}
	quoted, err := encode(text)
	if err != nil {
		panic("fbp: a string that is none: " + err.Error())
	}
	return append(b, quoted...)
}
