package route

import (
	"fmt"
	"slices"
	"strings"
)

// mismatch says in words why what a port sends is not what another one takes; empty if it is, as far as their types tell.
//
// The words are MsgFlo's and NoFlo's. A port that says nothing, or "any" or "all", goes with every other. Every int is a
// number. An event ("bang") has a body that nobody looks at. What else a word may mean is not ours to know: words that are
// not equal do not go together.
func mismatch(from, to Port) string {
	a, b := kind(from.Type), kind(to.Type)
	switch {
	case a == "" || b == "" || b == "bang":
	case a == "int" && b == "number":
	case a != b:
		return fmt.Sprintf("it sends %s, and %s is expected", a, b)
	}
	if from.Schema != "" && to.Schema != "" && from.Schema != to.Schema {
		return fmt.Sprintf("it sends what %s describes, and what %s describes is expected", from.Schema, to.Schema)
	}
	return ""
}

// kind folds the words for one type into one.
func kind(word string) string {
	word = strings.ToLower(strings.TrimSpace(word))
	for _, same := range [][]string{
		{"", "any", "all"},
		{"int", "integer"},
		{"number", "float", "double"},
		{"boolean", "bool"},
	} {
		if slices.Contains(same, word) {
			return same[0]
		}
	}
	return word
}
