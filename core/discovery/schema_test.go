package discovery_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/flogate/flogate/core/discovery"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../../docs/discovery.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	const id = "https://flogate.github.io/schema/discovery-1.json" // of version 1, for ever
	c := jsonschema.NewCompiler()
	if err := c.AddResource(id, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, body string) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v\n%.200s", err, body)
	}
	return s.Validate(doc)
}

func TestSchemaAllowsWhatParticipantsSend(t *testing.T) {
	s := schema(t)
	for name, body := range messages(t) {
		if err := validate(t, s, string(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		ours, err := parse(t, body).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, s, string(ours)); err != nil {
			t.Errorf("%s, written by us: %v", name, err)
		}
	}
}

func TestSchemaAndParseAgree(t *testing.T) {
	s := schema(t)
	for _, c := range verdicts() {
		err := validate(t, s, c.body)
		if _, parsed := discovery.Parse([]byte(c.body)); (err == nil) != (parsed == nil) {
			t.Errorf("%.200s\nschema: %v\n parse: %v", c.body, err, parsed)
		}
	}
}

func TestExamplesOfTheDocumentationAreAllowed(t *testing.T) {
	page, err := os.ReadFile("../../docs/discovery.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(examples) < 2 {
		t.Fatalf("%d examples found", len(examples))
	}
	s := schema(t)
	for _, example := range examples {
		if err := validate(t, s, example[1]); err != nil {
			t.Errorf("%s\n%v", example[1], err)
		}
		parse(t, []byte(example[1]))
	}
}
