package discovery_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flogate/flogate/core/discovery"
)

// messages returns what participants send, by the name of the file.
func messages(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/messages/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("testdata/messages: %d files, %v", len(files), err)
	}
	all := make(map[string][]byte)
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = body
	}
	return all
}

func parse(t testing.TB, body []byte) discovery.Definition {
	t.Helper()
	def, err := discovery.Parse(body)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return def
}

func TestParticipantsOfAllLibrariesAreUnderstood(t *testing.T) {
	type D = discovery.Definition
	type P = []discovery.Port
	in := discovery.Port{ID: "in", Type: "any", Queue: "repeat.IN"}
	out := discovery.Port{ID: "out", Type: "any", Queue: "repeat.OUT"}
	want := map[string]D{
		"msgflo-nodejs-repeat": {
			ID: "repeat-30ef1af1-e692-4fd6-a330-0a1875f2add0", Role: "repeat", Component: "Repeat", Icon: "file-word-o",
			Label: "Repeats in data without changes", Inports: P{in}, Outports: P{out},
		},
		"msgflo-nodejs-sensor": {
			ID: "hall-35a35382-9240-4cb4-bcc7-1c0302b7a74b", Role: "hall", Component: "demo/Sensor", Label: "Measures",
			Outports: P{{
				ID: "temperature", Type: "number", Queue: "sensors/hall/temperature", Description: "Degrees",
				Schema: "https://example.org/temperature.json",
			}},
		},
		"noflo-runtime-msgflo-repeat": {
			ID: "repeater-e549fe2a-e669-4ce4-98b8-a443793cfcf3", Role: "repeater", Component: "core/Repeat", Icon: "forward",
			Label:   "Forwards packets and metadata in the same way it receives them",
			Inports: P{{ID: "in", Type: "all", Queue: "repeater.IN"}}, Outports: P{{ID: "out", Type: "all", Queue: "repeater.OUT"}},
		},
		"msgflo-python-repeat": {
			ID: "repeat51423", Role: "repeat", Component: "PythonRepeat", Icon: "file-word-o",
			Label: "Repeat input data without change", Inports: P{in}, Outports: P{out},
		},
		"msgflo-cpp-amqp-repeat": {
			ID: "repeat1804289383", Role: "repeat", Component: "C++Repeat", Icon: "file-word-o",
			Label: "Repeats input on outport unchanged", Inports: P{in}, Outports: P{out},
		},
		"msgflo-rust-repeat": {ID: "repeat-x7Kd2", Role: "repeat", Component: "rust/Repeat", Inports: P{in}, Outports: P{out}},
		"msgflo-arduino-door": {
			ID: "boxy4", Role: "boxy4", Component: "dlock13/DoorLock", Icon: "lightbulb-o", Label: "Open the door",
			Inports:  P{{ID: "open", Type: "object", Queue: "/bitraf/door/boxy4/open"}},
			Outports: P{{ID: "opened", Type: "boolean", Queue: "/bitraf/door/boxy4/opened"}},
		},
		"nested-runtime": {
			ID: "enrich-1", Role: "enrich", Component: "main",
			Inports:   P{{ID: "in", Type: "all", Queue: "enrich.IN"}},
			Outports:  P{{ID: "out", Type: "all", Queue: "enrich.OUT"}, {ID: "stats", Type: "all", Hidden: true}},
			Heartbeat: time.Minute, Type: "noflo-nodejs", Version: "0.7",
			InQueue: ".fbp.enrich-1.receive", OutQueue: ".fbp.enrich-1.send", Address: "ws://127.0.0.1:3570/",
			Extra: map[string]json.RawMessage{
				"repository": json.RawMessage(`"https://example.org/enrich.git"`), "namespace": json.RawMessage(`"demo"`),
			},
		},
	}
	got := make(map[string]D)
	for name, body := range messages(t) {
		got[name] = parse(t, body)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("definitions (-want +got):\n%s", diff)
	}
}

// bare returns a definition with these fields besides, or instead of, the mandatory ones. One that is empty is left out.
func bare(fields ...string) string {
	object := map[string]json.RawMessage{
		"id": json.RawMessage(`"a-1"`), "role": json.RawMessage(`"a"`), "component": json.RawMessage(`"A"`),
		"inports": json.RawMessage(`[]`), "outports": json.RawMessage(`[]`),
	}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, ":")
		if value == "" {
			delete(object, key)
			continue
		}
		object[key] = json.RawMessage(value)
	}
	body, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return string(body)
}

func port(fields string) string { return bare(`inports:[{"id":"in"},{` + fields + `}]`) }

// verdicts are messages with what is wrong with them; nothing, if they are fine.
func verdicts() []struct{ body, want string } {
	long := func(n int) string { return `"` + strings.Repeat("ä", n) + `"` }
	ports := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"id":"%d"}`, i))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	return []struct{ body, want string }{
		{bare(), ""},
		{bare(`id:`), `id is missing`},
		{bare(`id:null`), `id is empty`},
		{bare(`id:""`), `id is empty`},
		{bare(`id:7`), `id: a string is expected, not a number`},
		{bare(`id:"a\u0007b"`), `id: control characters in "a\ab"`},
		{bare(`id:"a\u009bb"`), `id: control characters in "a\u009bb"`},
		{bare(`id:` + long(1024)), ""},
		{bare(`id:` + long(1025)), `id: 1025 characters, and at most 1024 are taken`},
		{bare(`id:`, `ID:"a-1"`), `id is missing`},
		{bare(`role:`), `role is missing`},
		{bare(`component:[]`), `component: a string is expected, not an array`},
		{bare(`label:null`, `icon:null`, `heartbeat:null`, `type:null`, `address:null`), ""},
		{bare(`label:"two\nlines"`), ""},
		{bare(`label:` + long(16385)), `label: 16385 characters, and at most 16384 are taken`},
		{bare(`icon:false`), `icon: a string is expected, not true or false`},
		{bare(`inports:`), `inports is missing`},
		{bare(`outports:null`), `outports is missing`},
		{bare(`outports:{"out":{"queue":"A.OUT"}}`), `outports: an array is expected, not an object`},
		{bare(`outports:["out"]`), `outports[0]: an object is expected, not a string`},
		{bare(`outports:[null]`), `outports[0]: an object is expected, not null`},
		{bare(`outports:` + ports(512)), ""},
		{bare(`outports:` + ports(513)), `outports: 513 ports, and at most 512 are taken`},
		{bare(`heartbeat:0.5`), ""},
		{bare(`heartbeat:0`), `heartbeat: 0 seconds, and 0.001 to 2.6784e+06 are taken`},
		{bare(`heartbeat:-1`), `heartbeat: -1 seconds, and 0.001 to 2.6784e+06 are taken`},
		{bare(`heartbeat:1e9`), `heartbeat: 1e+09 seconds, and 0.001 to 2.6784e+06 are taken`},
		{bare(`heartbeat:"60"`), `heartbeat: a number is expected, not a string`},
		{bare(`version:7`), `version: a string is expected, not a number`},
		{bare(`inqueue:"a\n"`), `inqueue: control characters in "a\n"`},
		{bare(`outqueue:` + long(4097)), `outqueue: 4097 characters, and at most 4096 are taken`},
		{bare(`address:""`), ""},
		{bare(`address:"wss://runtime.example.org/fbp?x=1"`), ""},
		{bare(`address:"http://runtime.example.org"`), `address: a URL ws://… or wss://… is expected, not "http://runtime.example.org"`},
		{bare(`address:"ws://"`), `address: a URL ws://… or wss://… is expected, not "ws://"`},
		{bare(`payload:null`), `protocol is missing`},
		{bare(`protocol:"websocket"`, `command:1`), ""},
		{port(`"id":"IN","queue":null,"type":null,"hidden":null,"options":null`), ""},
		{port(`"id":"x","queue":"","default":{"a":[1]}`), ""},
		{port(`"queue":"a"`), `inports[1]: id is missing`},
		{port(`"id":"x","queue":1`), `inports[1]: queue: a string is expected, not a number`},
		{port(`"id":"x","type":{}`), `inports[1]: type: a string is expected, not an object`},
		{port(`"id":"x","options":[]`), `inports[1]: options: an object is expected, not an array`},
		{port(`"id":"x","hidden":"yes"`), `inports[1]: hidden: true or false is expected, not a string`},
		{`{"protocol":"discovery","command":"participant","payload":` + bare() + `,"more":1}`, ""},
		{`{"protocol":"discovery","command":"participant","payload":` + bare(`role:`) + `}`, `payload: role is missing`},
		{`{"protocol":"discovery","command":"participant","payload":` + port(`"id":7`) + `}`, `payload: inports[1]: id: a string is expected, not a number`},
		{`{"protocol":"discovery","command":"participant","payload":[]}`, `payload: an object is expected, not an array`},
		{`{"protocol":"discovery","command":"participant"}`, `id is missing`},
		{`{"protocol":"runtime","command":"participant","payload":` + bare() + `}`, `protocol is "runtime", not "discovery"`},
		{`{"protocol":"discovery","command":"leave","payload":` + bare() + `}`, `command is "leave", not "participant"`},
		{`{"protocol":"discovery","payload":` + bare() + `}`, `command is missing`},
		{`{"protocol":1,"command":"participant","payload":` + bare() + `}`, `protocol: a string is expected, not a number`},
		{`null`, `an object is expected, not null`},
		{` "text"`, `an object is expected, not a string`},
		{`[]`, `an object is expected, not an array`},
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	more := []struct{ body, want string }{
		{``, `no JSON: unexpected end of JSON input at byte 0`},
		{`{"id":`, `no JSON: unexpected end of JSON input at byte 6`},
		{`{"id": x}`, `no JSON: invalid character 'x' looking for beginning of value at byte 8`},
		{"{\"id\":\"\xff\"}", `not UTF-8`},
		{port(`"id":"in"`), `inports[1]: id "in" is there twice`},
		{bare(`protocol:"`+strings.Repeat("ä", 50)+`"`, `payload:1`), `protocol is "` + strings.Repeat("ä", 20) + `"…, not "discovery"`},
		{bare(`more:` + strings.Repeat("[", 31) + strings.Repeat("]", 31)), ""},
		{bare(`more:` + strings.Repeat("[", 32) + strings.Repeat("]", 32)), `nested deeper than 32 levels`},
		{bare(`more:"` + strings.Repeat(`[\"`, 100) + `"`), ""},
		{strings.Repeat("[", 60_000), `nested deeper than 32 levels`},
		{bare() + strings.Repeat(" ", discovery.MaxBody-len(bare())), ""},
		{bare() + strings.Repeat(" ", discovery.MaxBody-len(bare())+1), `too large: 65537 bytes, and at most 65536 are taken`},
	}
	for _, c := range append(verdicts(), more...) {
		_, err := discovery.Parse([]byte(c.body))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.200s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

func TestWhatIsNotKnownIsKept(t *testing.T) {
	def := parse(t, []byte(`{"id":"a-1","role":"a","component":"A","inports":[{"id":"in","default":"<x>","schema":null,"options":{ "x-max": 1 }}],
		"outports":[],"ID":{"b": [ 1, 2 ]},"nothing":null,"":""}`))
	want := discovery.Definition{
		ID: "a-1", Role: "a", Component: "A", Outports: []discovery.Port{},
		Inports: []discovery.Port{{
			ID: "in", Type: "any", Options: json.RawMessage(`{"x-max":1}`),
			Extra: map[string]json.RawMessage{"default": json.RawMessage(`"<x>"`)},
		}},
		Extra: map[string]json.RawMessage{"ID": json.RawMessage(`{"b":[1,2]}`), "nothing": json.RawMessage(`null`), "": json.RawMessage(`""`)},
	}
	if diff := cmp.Diff(want, def); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
	body, err := def.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"protocol":"discovery","command":"participant","payload":{"id":"a-1","role":"a","component":"A",` +
		`"inports":[{"id":"in","type":"any","options":{"x-max":1},"default":"<x>"}],"outports":[],"":"","ID":{"b":[1,2]},"nothing":null}}`
	if diff := cmp.Diff(text, string(body)); diff != "" {
		t.Errorf("announcement (-want +got):\n%s", diff)
	}
}

func TestMarshalledDefinitionsAreParsedAlike(t *testing.T) {
	for name, body := range messages(t) {
		roundTrip(t, name, parse(t, body))
	}
	def := discovery.Definition{ID: "a", Role: "a", Component: "A", Heartbeat: 2*time.Hour + time.Microsecond}
	body, err := def.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(def, parse(t, body), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("heartbeat (-want +got):\n%s", diff)
	}
}

func roundTrip(t *testing.T, name string, def discovery.Definition) {
	t.Helper()
	body, err := def.Marshal()
	if err != nil {
		// The envelope, and types that were not given, can make what just fitted too large.
		if len(body) == 0 && strings.Contains(err.Error(), "too large") {
			return
		}
		t.Fatalf("%s: %v", name, err)
	}
	if diff := cmp.Diff(def, parse(t, body)); diff != "" {
		t.Fatalf("%s: parsed, written and parsed again (-want +got):\n%s", name, diff)
	}
	bare, err := def.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(def, parse(t, bare)); diff != "" {
		t.Fatalf("%s: without the envelope (-want +got):\n%s", name, diff)
	}
}

func TestMarshalRefusesWhatNobodyWouldTake(t *testing.T) {
	good := parse(t, []byte(bare()))
	for want, spoil := range map[string]func(*discovery.Definition){
		`participant "a-1": payload: role is empty`:                              func(d *discovery.Definition) { d.Role = "" },
		`participant "a-1": id is a key of the protocol, and no extra one`:       func(d *discovery.Definition) { d.Extra = map[string]json.RawMessage{"id": []byte(`1`)} },
		`participant "a-1": payload: inports[1]: id "in" is there twice`:         func(d *discovery.Definition) { d.Inports = []discovery.Port{{ID: "in"}, {ID: "in"}} },
		`participant "a-1": too large: 70135 bytes, and at most 65536 are taken`: func(d *discovery.Definition) { d.Icon = strings.Repeat("x", 70_000) },
	} {
		def := good
		spoil(&def)
		if _, err := def.Marshal(); err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	good.Extra = map[string]json.RawMessage{"x": []byte(`{`)}
	if _, err := good.Marshal(); err == nil {
		t.Error("an extra value that is no JSON was written")
	}
}

// FuzzParse: nothing ends the process, what is taken keeps to the bounds, and it is written and read back the same.
func FuzzParse(f *testing.F) {
	for _, body := range messages(f) {
		f.Add(body)
	}
	for _, c := range verdicts() {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		def, err := discovery.Parse(body)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Fatalf("%d bytes of error: %v", len(err.Error()), err)
			}
			return
		}
		if def.ID == "" || def.Role == "" || def.Component == "" || def.Inports == nil || def.Outports == nil {
			t.Fatalf("incomplete: %+v", def)
		}
		roundTrip(t, "fuzzed", def)
		// The decoder is our own: it has to read what the library reads.
		var reference map[string]json.RawMessage
		if err := json.Unmarshal(body, &reference); err != nil {
			t.Fatal(err)
		}
		if payload, ok := reference["payload"]; ok {
			reference = nil
			if err := json.Unmarshal(payload, &reference); err != nil {
				t.Fatal(err)
			}
		}
		var id, label string
		var inports, outports []map[string]any
		for key, into := range map[string]any{"id": &id, "label": &label, "inports": &inports, "outports": &outports} {
			if raw := reference[key]; raw != nil {
				if err := json.Unmarshal(raw, into); err != nil {
					t.Fatalf("%s: %v", key, err)
				}
			}
		}
		if id != def.ID || label != def.Label || len(inports) != len(def.Inports) || len(outports) != len(def.Outports) {
			t.Fatalf("read as %+v", def)
		}
		for i, p := range inports {
			if p["id"] != def.Inports[i].ID {
				t.Fatalf("inport %d read as %+v", i, def.Inports[i])
			}
		}
		for key, raw := range def.Extra {
			if want := new(bytes.Buffer); json.Compact(want, reference[key]) != nil || want.String() != string(raw) {
				t.Fatalf("extra %q read as %s", key, raw)
			}
		}
	})
}
