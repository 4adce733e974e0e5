//go:build peers

// Package fbp shows the messages of forwarding/fbp to the protocol's own schemas, in the versions of package-lock.json. It
// needs node and npm, and fails without them.
package fbp

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/test/peers/npm"
)

const testdata = "../../../forwarding/fbp/testdata/"

const (
	input  = "input"
	output = "output"
)

type message struct {
	Direction string          `json:"direction"`
	Message   json.RawMessage `json:"message"`
}

type verdict struct{ Ajv, Tv4 string }

type schemas struct {
	Verdicts      []verdict
	Input, Output []fbp.Kind
	Capabilities  []struct {
		Name            fbp.Capability
		Inputs, Outputs []fbp.Kind
	}
}

func ask(t *testing.T, messages []message) (said schemas) {
	t.Helper()
	text, err := json.Marshal(map[string][]message{"messages": messages})
	if err != nil {
		t.Fatal(err)
	}
	npm.Install(t, ".")
	if err := json.Unmarshal(npm.Run(t, ".", text, "node", "schemas.js"), &said); err != nil {
		t.Fatal(err)
	}
	if len(said.Verdicts) != len(messages) {
		t.Fatalf("%d verdicts of %d messages", len(said.Verdicts), len(messages))
	}
	return said
}

// golden returns every message that forwarding/fbp has written, as its own tests have it.
func golden(t *testing.T) (all []message) {
	t.Helper()
	for direction, file := range map[string]string{input: "inputs.jsonl", output: "outputs.jsonl"} {
		text, err := os.ReadFile(testdata + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			all = append(all, message{direction, json.RawMessage(line)})
		}
	}
	return all
}

// schemaless are the messages that the schemas have forgotten; see the Answer of these requests.
func schemaless(k fbp.Kind) bool { return k == fbp.NetworkPersist || k == fbp.NetworkDebug }

// answers reports whether a message of kind k answers a request.
func answers(k fbp.Kind) bool {
	return slices.ContainsFunc(fbp.Inputs(), func(in fbp.Kind) bool { return in.Answer() == k })
}

func kindOf(t *testing.T, m message) fbp.Kind {
	t.Helper()
	var head struct{ Protocol, Command string }
	if err := json.Unmarshal(m.Message, &head); err != nil {
		t.Fatal(err)
	}
	return fbp.KindOf(head.Protocol, head.Command)
}

func TestEverythingWrittenIsValid(t *testing.T) {
	messages := golden(t)
	for _, m := range golden(t) { // and as requests with an id, or answers to such
		if k := kindOf(t, m); m.Direction == output && !k.IsError() && !answers(k) {
			continue
		}
		var envelope map[string]json.RawMessage
		if err := json.Unmarshal(m.Message, &envelope); err != nil {
			t.Fatal(err)
		}
		if m.Direction == input {
			envelope["secret"], envelope["requestId"] = json.RawMessage(`"s"`), json.RawMessage(`"7"`)
		} else {
			envelope["responseTo"] = json.RawMessage(`"7"`)
		}
		text, err := json.Marshal(envelope)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, message{m.Direction, text})
	}
	for i, v := range ask(t, messages).Verdicts {
		m, want := messages[i], "valid"
		switch k := kindOf(t, m); {
		case m.Direction == output && schemaless(k):
			want = "no schema"
		case m.Direction == output && k == fbp.NetworkEdges && strings.Contains(string(m.Message), `"responseTo"`):
			// The schema of the answer is that of the request, and forbids what version 0.8 wants of answers.
			if v.Ajv == "valid" {
				t.Errorf("the schemas now know of responseTo: %s", m.Message)
			}
			continue
		}
		if v.Ajv != want || v.Tv4 != want {
			t.Errorf("%s %s\najv: %s\ntv4: %s", m.Direction, m.Message, v.Ajv, v.Tv4)
		}
	}
}

// TestValidateSaysWhatTheSchemasSay changes every golden message in every place, and wants the same word of both.
func TestValidateSaysWhatTheSchemasSay(t *testing.T) {
	var messages []message
	for _, m := range golden(t) {
		if m.Direction == output && schemaless(kindOf(t, m)) {
			continue
		}
		var envelope map[string]any
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(m.Message), "1e400", "1")), &envelope); err != nil {
			t.Fatal(err)
		}
		for _, payload := range variants(envelope["payload"]) {
			changed := maps.Clone(envelope)
			changed["payload"] = payload
			text, err := json.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, message{m.Direction, text})
		}
	}
	said := map[string]int{}
	for i, v := range ask(t, messages).Verdicts {
		ours, theirs := validate(messages[i]), v.Ajv
		said[cmpWord(ours)+" "+cmpWord(theirs)]++
		if cmpWord(ours) != cmpWord(theirs) {
			t.Errorf("%s %s\nours: %s\najv:  %s", messages[i].Direction, messages[i].Message, ours, theirs)
		}
	}
	if said["valid valid"] < 500 || said["invalid invalid"] < 2000 {
		t.Errorf("too few to say anything: %v", said)
	}
	t.Log(said)
}

func cmpWord(verdict string) string {
	if verdict == "valid" {
		return verdict
	}
	return "invalid"
}

func validate(m message) string {
	var err error
	if m.Direction == input {
		var in fbp.Input
		if in, err = fbp.DecodeInput(m.Message); err == nil {
			err = in.Validate()
		}
	} else {
		var out fbp.Output
		if out, err = fbp.DecodeOutput(m.Message); err == nil {
			err = out.Validate()
		}
	}
	if err != nil {
		return err.Error()
	}
	return "valid"
}

// variants returns values that differ from v in one place each.
func variants(v any) (all []any) {
	all = []any{nil, true, 1, 1.5, "text", "https://example.net/", []any{}, []any{"text"}, map[string]any{}}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			less := maps.Clone(v)
			delete(less, k)
			all = append(all, less)
			for _, value := range variants(v[k]) {
				changed := maps.Clone(v)
				changed[k] = value
				all = append(all, changed)
			}
		}
		for _, k := range []string{"extra", "type", "schema", "metadata", "index", "graph", "x"} {
			if _, there := v[k]; !there {
				for _, value := range []any{1, "text"} {
					more := maps.Clone(v)
					more[k] = value
					all = append(all, more)
				}
			}
		}
	case []any:
		for i := range v {
			for _, value := range variants(v[i]) {
				changed := slices.Clone(v)
				changed[i] = value
				all = append(all, changed)
			}
		}
	}
	return all
}

func TestKindsAreThoseOfTheSchemas(t *testing.T) {
	said := ask(t, nil)
	sorted := func(kinds []fbp.Kind) []fbp.Kind { return slices.Sorted(slices.Values(kinds)) }
	if diff := cmp.Diff(sorted(said.Input), sorted(fbp.Inputs())); diff != "" {
		t.Errorf("requests (-schemas +ours):\n%s", diff)
	}
	ours := slices.DeleteFunc(fbp.Outputs(), schemaless)
	if diff := cmp.Diff(sorted(said.Output), sorted(ours)); diff != "" {
		t.Errorf("answers and events (-schemas +ours):\n%s", diff)
	}
}

func TestCapabilitiesAreThoseOfTheSpecification(t *testing.T) {
	var want, got []string
	for _, c := range ask(t, nil).Capabilities {
		for _, k := range c.Inputs {
			want = append(want, fmt.Sprintf("%s sends %s", c.Name, k))
		}
		for _, k := range c.Outputs {
			want = append(want, fmt.Sprintf("%s receives %s", c.Name, k))
		}
	}
	text, err := os.ReadFile(testdata + "capabilities.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		// An answer that the specification has forgotten.
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, " receives network:debug") {
			got = append(got, line)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Compact(want), got); diff != "" {
		t.Errorf("capabilities (-specification +ours):\n%s", diff)
	}
}
