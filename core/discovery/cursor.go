package discovery

import (
	"bytes"
	"encoding/json"
)

// blanks are what JSON allows between its parts.
const blanks = " \t\r\n"

// cursor walks over the elements of an array or the keys and values of an object. The text is known to be JSON, so it looks
// for no mistakes.
type cursor struct {
	rest []byte
}

// enter returns a cursor before the first element.
func enter(raw []byte) cursor { return cursor{bytes.TrimLeft(raw, blanks)[1:]} }

// more goes to the next element, and says whether there is one.
func (c *cursor) more() bool {
	c.rest = bytes.TrimLeft(c.rest, blanks+",")
	return c.rest[0] != ']' && c.rest[0] != '}'
}

// colon goes from a key to its value.
func (c *cursor) colon() { c.rest = bytes.TrimLeft(c.rest, blanks+":") }

// value returns the value at the cursor and goes behind it.
func (c *cursor) value() []byte {
	end := length(c.rest)
	value := c.rest[:end]
	c.rest = c.rest[end:]
	return value
}

// length returns the length of the value with which text begins.
func length(text []byte) int {
	switch text[0] {
	case '"':
		return quoted(text)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch text[i] {
			case '"':
				i += quoted(text[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	if end := bytes.IndexAny(text, blanks+",:]}"); end >= 0 {
		return end
	}
	return len(text)
}

// quoted returns the length of the string with which text begins.
func quoted(text []byte) int {
	for i := 1; ; i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// text returns what a JSON string says.
func text(raw []byte) string {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it is a JSON string
	return s
}
