//go:build peers

// Package graph compares what core/graph expects of a graph's text with the reference implementations, run live: npm fbp
// and fbp-graph, in the versions of package-lock.json. It needs node and npm, and fails without them.
//
//	go test -tags peers ./test/peers/graph           compare
//	go test -tags peers ./test/peers/graph -update   write the expectations anew
package graph

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/test/peers/npm"
)

var update = flag.Bool("update", false, "write the expectations of core/graph from what the reference implementations say")

const testdata = "../../../core/graph/testdata"

// TestExpectationsAreWhatTheReferencesSay compares the committed expectations.
func TestExpectationsAreWhatTheReferencesSay(t *testing.T) {
	for name, got := range readings(t, "fbp/*.fbp", "json/*.json") {
		t.Run(name, func(t *testing.T) {
			for reading, said := range got {
				if reason, refused := said["error"]; refused {
					t.Fatalf("%s refuses it: %v", reading, reason)
				}
			}
			golden := filepath.Join(testdata, name+".want")
			if *update {
				write(t, golden, got)
				return
			}
			var want map[string]map[string]any
			read(t, golden, &want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the references no longer say what %s has (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// TestStricterThanTheReferencesIsDeliberate lists which of the refused texts the references take: each loses something
// there without a word.
func TestStricterThanTheReferencesIsDeliberate(t *testing.T) {
	got := map[string]string{}
	for name, said := range readings(t, "refused/*.fbp", "refused/*.json") {
		got[name] = "taken"
		if _, refused := said["graph"]["error"]; refused {
			got[name] = "refused"
		}
	}
	golden := filepath.Join(testdata, "refused", "references.want")
	if *update {
		write(t, golden, got)
		return
	}
	var want map[string]string
	read(t, golden, &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the references now take other texts (-want +got):\n%s", diff)
	}
}

// readings returns what each reference makes of the texts in the files, by name and by reference.
func readings(t *testing.T, patterns ...string) map[string]map[string]map[string]any {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(testdata, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no texts in %s: %v", pattern, err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file)] = string(src)
		}
	}
	return ask(t, texts)
}

// ask returns what each reference makes of the texts, by name and by reference.
func ask(t *testing.T, texts map[string]string) (all map[string]map[string]map[string]any) {
	t.Helper()
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	npm.Install(t, ".")
	if err := json.Unmarshal(npm.Run(t, ".", in, "node", "oracle.js"), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, file string, v any) {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(src, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
