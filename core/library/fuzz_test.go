package library_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/library"
)

// FuzzLibrary: no JSON file ends the process; what is taken has components that can be started or say why not, and faults
// are within the file.
func FuzzLibrary(f *testing.F) {
	for _, src := range []string{
		`{"name": "n", "repository": {"url": "u"}, "msgflo": {"variables": {"A": "1", "B": "#A"}, "components": {"a/B": "x #B #ROLE"}}}`,
		`{"namespace": "n", "componentdir": ".", "handlers": {".js": "node #FILENAME", "py": "", ".fbp": false}, "components": {"A": {"command": "x '#IIPS'"}}}`,
		`{"components": {"A": "sh -c 'x' - #ROLE", "B": {}, "C": "\"\\\"#COMPONENTNAME\""}, "variables": {"A": "#B", "B": "#A"}}`,
		"\n{\"msgflo\": [1]}", `{"a\u00e4": {`, "",
	} {
		f.Add([]byte(src))
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "File.js"), nil, 0o600); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "msgflo.json")
	f.Fuzz(func(t *testing.T, src []byte) {
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := library.Load(path, ".")
		if err != nil {
			checkFault(t, err, strings.Count(string(src), "\n")+1)
			return
		}
		for _, c := range l.Components() {
			if found, ok := l.Component(c.Name); !ok || found != c {
				t.Fatalf("%q is found as %v %v", c.Name, found, ok)
			}
			words, err := l.Command(c.Name, "r", nil)
			if err == nil && (len(words) == 0 || words[0] == "") {
				t.Fatalf("%q is started by %q", c.Name, words)
			}
			_, _, _ = l.Procfile([]library.Node{{Role: "r", Component: c.Name}})
		}
	})
}

func checkFault(t *testing.T, err error, lines int) {
	t.Helper()
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			checkFault(t, e, lines)
		}
		return
	}
	if one, ok := errors.AsType[*library.Error](err); ok && (one.Line > lines || one.Line > 0 && one.Column < 1) {
		t.Fatalf("line %d, column %d, of %d lines: %v", one.Line, one.Column, lines, err)
	}
}

// FuzzCommand: a value never becomes two words, or changes another word, whatever the template is.
func FuzzCommand(f *testing.F) {
	for _, command := range []string{
		`a #ROLE '#IIPS' "#COMPONENT"`, `a\ b "c\"#ROLE" '\'`, "x #V#V '#V\" ' #ROLE", `sh -c 'x "$1"' - #ROLE`, "a && b", `""`, `\`, "a\\\nb",
	} {
		f.Add(command, "a b", `it's "x" #ROLE $y`)
	}
	f.Fuzz(func(t *testing.T, command, variable, value string) {
		l, err := library.New(library.Definition{
			Variables:  map[string]string{"V": variable},
			Components: map[string]library.Configured{"A": {Command: command}},
		})
		if err != nil {
			return
		}
		iips, err := json.Marshal(map[string]string{"p": value})
		if err != nil {
			t.Fatal(err)
		}
		// Roles are refused if they are empty, begin with a dash or have control characters.
		role := "r" + strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return ' '
			}
			return r
		}, value)
		plain, err := l.Command("A", "r", nil)
		if err != nil {
			return
		}
		words, err := l.Command("A", role, iips)
		if err != nil {
			if len(value) > 10000 {
				return
			}
			t.Fatal(err)
		}
		if len(words) != len(plain) {
			t.Fatalf("%q has become %q", plain, words)
		}
		for i, w := range words {
			if !strings.Contains(w, role) && !strings.Contains(w, string(iips)) && w != plain[i] {
				t.Fatalf("word %d was %q, and is %q", i, plain[i], w)
			}
		}
		if strings.Contains(command, "\n") || strings.Contains(variable, "\n") || strings.Contains(command+variable, "\r") {
			return
		}
		text, without, err := l.Procfile([]library.Node{{Role: "r", Component: "A", IIPs: iips}})
		if err != nil || len(without) > 0 || strings.Count(text, "\n") != 1 {
			t.Fatalf("%q %v %v", text, without, err)
		}
	})
}
