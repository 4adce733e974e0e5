package route

import "testing"

func TestTypesThatGoTogether(t *testing.T) {
	for _, c := range []struct {
		from, to Port
		fits     bool
	}{
		{Port{Type: "string"}, Port{Type: "string"}, true},
		{Port{Type: "any"}, Port{Type: "object"}, true},
		{Port{Type: "object"}, Port{Type: "all"}, true},
		{Port{}, Port{Type: "object"}, true},
		{Port{Type: "int"}, Port{Type: "number"}, true},
		{Port{Type: "integer"}, Port{Type: "number"}, true},
		{Port{Type: "number"}, Port{Type: "int"}, false},
		{Port{Type: "Boolean"}, Port{Type: "bool"}, true},
		{Port{Type: "buffer"}, Port{Type: "bang"}, true},
		{Port{Type: "string"}, Port{Type: "object"}, false},
		{Port{Type: "x/y"}, Port{Type: "x/y"}, true},
		{Port{Schema: "a"}, Port{Schema: "a"}, true},
		{Port{Schema: "a"}, Port{Schema: "b"}, false},
		{Port{Schema: "a"}, Port{}, true},
	} {
		if got := mismatch(c.from, c.to); (got == "") != c.fits {
			t.Errorf("from %q %q to %q %q: %q", c.from.Type, c.from.Schema, c.to.Type, c.to.Schema, got)
		}
	}
}
