package fbp_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/flogate/flogate/forwarding/fbp"
)

func seeds(f *testing.F, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range lines(text) {
		f.Add([]byte(line))
	}
	f.Add([]byte(`{"protocol":"graph","command":"changenode","payload":{"id":"\ud83d\ude00","metadata":{"x":null,"y":1.5},"graph":"g","secret":"s"},"secret":"t","requestId":"7","more":[1,{}]}`))
	f.Add([]byte(`{"protocol":"a:b","command":"c:d","payload":{}}`))
	f.Add([]byte(`{"protocol":"component","command":"componentsready","payload":1e2}`))
}

// FuzzInput: whatever a client sends can be answered, and what is taken is the same when it is sent on.
func FuzzInput(f *testing.F) {
	seeds(f, "testdata/inputs.jsonl")
	f.Fuzz(func(t *testing.T, message []byte) {
		original := bytes.Clone(message)
		in, err := fbp.DecodeInput(message)
		checkInput(t, in, err)
		if !bytes.Equal(message, original) {
			t.Fatal("the message was changed")
		}
	})
}

func checkInput(t interface{ Fatalf(string, ...any) }, in fbp.Input, err error) {
	var p fbp.Payload
	if err == nil {
		again := in.Append(nil)
		back, err := fbp.DecodeInput(again)
		if err != nil || !bytes.Equal(back.Append(nil), again) || back.Kind != in.Kind || back.ID != in.ID || !back.Secret.Equal(in.Secret) {
			t.Fatalf("sent on (%v): %s", err, again)
		}
		if p, err = in.Parse(); err == nil {
			if !strings.Contains(string(in.Payload), "null") {
				checkEcho(t, in, p)
			}
			return
		}
	}
	failed := in.Fail(firstOf(err, fbp.Error{Message: "no"}))
	if err := failed.Validate(); err != nil {
		t.Fatalf("failed with %s: %v", failed.Payload, err)
	}
}

func firstOf(errs ...error) error {
	return errs[slices.IndexFunc(errs, func(err error) bool { return err != nil })]
}

// checkEcho wants the request as our own to be valid and to say the same, and as an echo to be valid.
func checkEcho(t interface{ Fatalf(string, ...any) }, in fbp.Input, p fbp.Payload) {
	on, err := fbp.NewInput(p)
	if err != nil {
		t.Fatalf("%s was taken, and cannot be sent on: %v", in.Payload, err)
	}
	if err := on.Validate(); err != nil {
		t.Fatalf("%s became %s: %v", in.Payload, on.Payload, err)
	}
	again, err := on.Parse()
	if err != nil || !reflect.DeepEqual(compacted(p), compacted(again)) {
		t.Fatalf("%s (%v): first %#v, then %#v", in.Payload, err, p, again)
	}
	if in.Kind.Answer() != in.Kind || in.Kind == fbp.TraceDump {
		return
	}
	out, err := in.Answer(p)
	if err != nil {
		t.Fatalf("%s was taken, and cannot be echoed: %v", in.Payload, err)
	}
	if err := out.Validate(); err != nil {
		t.Fatalf("%s was echoed as %s: %v", in.Payload, out.Payload, err)
	}
}

// compacted returns p as it is sent.
func compacted(p fbp.Payload) string {
	in, err := fbp.NewInput(p)
	if err != nil {
		return err.Error()
	}
	return string(in.Payload)
}

// FuzzOutput: whatever a runtime sends is refused or understood, and what is understood can be sent to our clients.
func FuzzOutput(f *testing.F) {
	seeds(f, "testdata/outputs.jsonl")
	f.Fuzz(func(t *testing.T, message []byte) {
		out, err := fbp.DecodeOutput(message)
		if err != nil {
			return
		}
		checkOutput(t, out)
	})
}

func checkOutput(t interface{ Fatalf(string, ...any) }, out fbp.Output) {
	again := out.Append(nil)
	back, err := fbp.DecodeOutput(again)
	if err != nil || !bytes.Equal(back.Append(nil), again) || back.Kind != out.Kind || back.ResponseTo != out.ResponseTo {
		t.Fatalf("sent on (%v): %s", err, again)
	}
	p, err := out.Parse()
	if err != nil {
		return
	}
	ours, err := fbp.NewOutput(p)
	if err != nil {
		t.Fatalf("%s was understood, and cannot be sent: %v", out.Payload, err)
	}
	if err := ours.Validate(); err != nil {
		t.Fatalf("%s became %s: %v", out.Payload, ours.Payload, err)
	}
}

// TestMessagesThatAreNearlyRight changes examples a little: reaches what a fuzzer rarely does.
func TestMessagesThatAreNearlyRight(t *testing.T) {
	var inputs, outputs []string
	eachInput(t, func(_ fbp.Payload, in fbp.Input) { inputs = append(inputs, string(in.Append(nil))) })
	eachOutput(t, func(_ fbp.Payload, out fbp.Output) { outputs = append(outputs, string(out.Append(nil))) })
	rapid.Check(t, func(t *rapid.T) {
		if rapid.Bool().Draw(t, "input") {
			const canary = "c4n4ry"
			in, err := fbp.DecodeInput([]byte(mutated(t, rapid.SampledFrom(inputs).Draw(t, "message"))))
			if err == nil {
				in.Secret = fbp.NewSecret(canary)
				in, err = fbp.DecodeInput(in.Append(nil))
			}
			checkInput(t, in, err)
			if p, err := in.Parse(); err != nil && strings.Contains(string(in.Fail(err).Append(nil)), canary) ||
				err == nil && strings.Contains(compacted(p), canary) {
				t.Fatalf("%s gives a secret away", in.Payload)
			}
			return
		}
		if out, err := fbp.DecodeOutput([]byte(mutated(t, rapid.SampledFrom(outputs).Draw(t, "message")))); err == nil {
			checkOutput(t, out)
		}
	})
}

// mutated replaces, adds or takes away something, at any level.
func mutated(t *rapid.T, message string) string {
	var v any
	decoder := json.NewDecoder(strings.NewReader(message))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", message, err)
	}
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		v = mutate(t, v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(text)
}

func mutate(t *rapid.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0:
			v[rapid.SampledFrom([]string{"x", "graph", "secret", "metadata", "é", "index"}).Draw(t, "key")] = anything(t)
		case 1:
			if len(keys) > 0 {
				delete(v, rapid.SampledFrom(keys).Draw(t, "key"))
			}
		default:
			if len(keys) > 0 {
				k := rapid.SampledFrom(keys).Draw(t, "key")
				v[k] = mutate(t, v[k])
			}
		}
		return v
	case []any:
		if len(v) > 0 && rapid.Bool().Draw(t, "inside") {
			i := rapid.IntRange(0, len(v)-1).Draw(t, "i")
			v[i] = mutate(t, v[i])
			return v
		}
	}
	return anything(t)
}

func anything(t *rapid.T) any {
	return rapid.SampledFrom([]any{
		nil, true, false, "", "text", "https://example.net", "<&>\u2028", json.Number("0"), json.Number("-1.5"), json.Number("36.0"),
		json.Number("1e3"), json.Number("9007199254740993"), json.Number("1e999"),
		[]any{},
		[]any{"a"},
		map[string]any{},
		map[string]any{"node": "a", "port": "b"},
		map[string]any{"x": nil, "y": json.Number("2.5")},
	}).Draw(t, "anything")
}

// TestMergeIsThatOfMaps whatever the order.
func TestMergeIsThatOfMaps(t *testing.T) {
	objects := rapid.MapOf(rapid.StringN(0, 2, -1), rapid.SampledFrom([]string{"null", "1", `"a"`, "{}"}))
	rapid.Check(t, func(t *rapid.T) {
		was, change := objects.Draw(t, "metadata"), objects.Draw(t, "change")
		want := maps.Clone(was)
		for k, v := range change {
			if want[k] = v; v == "null" {
				delete(want, k)
			}
		}
		merged, err := fbp.Merge(spelled(t, was), spelled(t, change))
		if err != nil {
			t.Fatalf("%v", err)
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(merged, &got); err != nil {
			t.Fatalf("%s: %v", merged, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s, want %v", merged, want)
		}
		for k, v := range want {
			if string(got[k]) != v {
				t.Fatalf("%s, want %v", merged, want)
			}
		}
	})
}

func spelled(t *rapid.T, object map[string]string) fbp.Metadata {
	values := map[string]json.RawMessage{}
	for k, v := range object {
		values[k] = json.RawMessage(v)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return text
}

// BenchmarkData is what a watched packet costs once, and then for each client.
func BenchmarkData(b *testing.B) {
	src := end("Hello", "out")
	p := fbp.Data{ID: "Hello() OUT -> IN World()", Src: &src, Tgt: end("World", "in"), Graph: "main", Data: raw(`{"celsius":21.5,"at":"hall"}`)}
	b.Run("once", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := fbp.NewOutput(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	out, err := fbp.NewOutput(p)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("each", func(b *testing.B) {
		b.ReportAllocs()
		var buffer []byte
		for b.Loop() {
			buffer = out.Append(buffer[:0])
		}
	})
}

// BenchmarkMayReceive is what each message costs for each client, beside sending it.
func BenchmarkMayReceive(b *testing.B) {
	b.ReportAllocs()
	all := fbp.AllCapabilities()
	for b.Loop() {
		if !all.MayReceive(fbp.TraceError) || !all.MayReceive(fbp.NetworkData) {
			b.Fatal("it may")
		}
	}
}

// BenchmarkInput is what a client's request costs.
func BenchmarkInput(b *testing.B) {
	message := []byte(`{"protocol":"graph","command":"addnode","payload":{"id":"Repeat","component":"core/Repeat","metadata":{"x":36,"y":72},"graph":"foo","secret":"s"},"secret":"s","requestId":"7"}`)
	b.ReportAllocs()
	for b.Loop() {
		in, err := fbp.DecodeInput(message)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := in.Parse(); err != nil {
			b.Fatal(err)
		}
	}
}
