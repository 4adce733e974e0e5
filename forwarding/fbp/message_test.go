package fbp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/forwarding/fbp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	file = "testdata/" + file
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestEveryRequestIsSpelledAsBefore has the golden file that test/peers/fbp shows to the real schemas.
func TestEveryRequestIsSpelledAsBefore(t *testing.T) {
	var text []byte
	missing := fbp.Inputs()
	eachInput(t, func(p fbp.Payload, in fbp.Input) {
		text = append(in.Append(text), '\n')
		missing = slices.DeleteFunc(missing, func(k fbp.Kind) bool { return k == in.Kind })
		if err := in.Validate(); err != nil && !strings.Contains(string(in.Payload), "null") {
			t.Error(err)
		}
		back, err := fbp.DecodeInput(in.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := back.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s there and back (-want +got):\n%s", in.Kind, diff)
		}
	})
	if len(missing) > 0 {
		t.Errorf("no example of %v", missing)
	}
	golden(t, "inputs.jsonl", text)
}

// TestEveryAnswerAndEventIsSpelledAsBefore has the golden file that test/peers/fbp shows to the real schemas.
func TestEveryAnswerAndEventIsSpelledAsBefore(t *testing.T) {
	var text []byte
	missing := fbp.Outputs()
	eachOutput(t, func(p fbp.Payload, out fbp.Output) {
		text = append(out.Append(text), '\n')
		missing = slices.DeleteFunc(missing, func(k fbp.Kind) bool { return k == out.Kind })
		if err := out.Validate(); err != nil {
			t.Error(err)
		}
		back, err := fbp.DecodeOutput(out.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		got, err := back.Parse()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s there and back (-want +got):\n%s", out.Kind, diff)
		}
	})
	if len(missing) > 0 {
		t.Errorf("no example of %v", missing)
	}
	golden(t, "outputs.jsonl", text)
}

func TestSecretIsTakenFromTheTopLevelFirst(t *testing.T) {
	for _, c := range []struct{ message, want, payload string }{
		{`{"protocol":"graph","command":"clear","payload":{"id":"a","secret":"old"},"secret":"new"}`, "new", `{"id":"a"}`},
		{`{"secret":"new","protocol":"graph","command":"clear","payload":{"secret":"old","id":"a"}}`, "new", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"secret":"old"}}`, "old", `{}`},
		{`{"protocol":"graph","command":"clear","payload":{"secret":"old","id":"a"},"secret":""}`, "old", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"secret":"old","id":"a"},"secret":null}`, "old", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"secret":null,"id":"a"}}`, "", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"secret":"","id":"a"}}`, "", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"\u0073ecret":"old","id":"a"}}`, "old", `{"id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"Secret":"mine","id":"a"}}`, "", `{"Secret":"mine","id":"a"}`},
		{`{"protocol":"graph","command":"clear","payload":{"id":"a","data":{"secret":"mine"}}}`, "", `{"id":"a","data":{"secret":"mine"}}`},
	} {
		in, err := fbp.DecodeInput([]byte(c.message))
		if err != nil {
			t.Fatalf("%s: %v", c.message, err)
		}
		if got := in.Secret.Reveal(); got != c.want || string(in.Payload) != c.payload {
			t.Errorf("%s: secret %q and payload %s", c.message, got, in.Payload)
		}
	}
}

func TestSecretIsInBothPlacesOfWhatIsSent(t *testing.T) {
	for _, p := range []fbp.Payload{fbp.GetRuntime{}, fbp.ClearGraph{ID: "a"}} {
		in, err := fbp.NewInput(p)
		if err != nil {
			t.Fatal(err)
		}
		in.Secret, in.ID = fbp.NewSecret(`a "quoted" one`), "7"
		var top struct {
			Payload           struct{ Secret string }
			Secret, RequestID string
		}
		if err := json.Unmarshal(in.Append(nil), &top); err != nil {
			t.Fatal(err)
		}
		if top.Secret != in.Secret.Reveal() || top.Payload.Secret != in.Secret.Reveal() || top.RequestID != "7" {
			t.Errorf("sent %s", in.Append(nil))
		}
	}
}

func TestNoPayloadIsAnEmptyOne(t *testing.T) {
	in := fbp.Input{Kind: fbp.RuntimeGetRuntime, Secret: fbp.NewSecret("s")}
	if got, want := string(in.Append(nil)), `{"protocol":"runtime","command":"getruntime","payload":{"secret":"s"},"secret":"s"}`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	out := fbp.Output{Kind: fbp.NetworkPersist}
	if got, want := string(out.Append(nil)), `{"protocol":"network","command":"persist","payload":{}}`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const canary = "c4n4ry"
	in, err := fbp.DecodeInput([]byte(`{"protocol":"graph","command":"addnode","payload":{"id":1},"secret":"` + canary + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct{ in fbp.Input }
	encoded, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	_, bad := in.Parse()
	if bad == nil {
		t.Fatal("a node without a graph was taken")
	}
	for _, printed := range []string{
		fmt.Sprint(in), fmt.Sprintf("%+v %#v %s %q %x", in, in, in, in.Secret, in.Secret), fmt.Sprintf("%+v", hidden{in}),
		string(encoded), string(in.Fail(bad).Append(nil)), bad.Error(), fmt.Sprintf("%#v", hidden{in}),
	} {
		if strings.Contains(printed, canary) || strings.Contains(printed, fmt.Sprintf("%x", canary)) {
			t.Errorf("printed %s", printed)
		}
	}
	if !strings.Contains(fmt.Sprint(in), "(sensitive)") {
		t.Errorf("nothing says that there is a secret: %v", in)
	}
}

func TestSecretsAreEqualByText(t *testing.T) {
	a, b, none := fbp.NewSecret("a"), fbp.NewSecret("a"), fbp.NewSecret("")
	if !a.Equal(b) || a.Equal(none) || !none.Equal(fbp.Secret{}) || a.Equal(fbp.NewSecret("ab")) || !none.IsZero() || a.IsZero() {
		t.Error("secrets are not what they seem")
	}
}

// TestBadMessageIsAnsweredOnItsProtocol: whatever comes, there is an error that can be sent back.
func TestBadMessageIsAnsweredOnItsProtocol(t *testing.T) {
	deep := strings.Repeat("[", fbp.MaxDepth) + strings.Repeat("]", fbp.MaxDepth)
	const noKind = "this request: protocol and command must be there"
	for _, c := range []struct{ message, want string }{
		{``, "runtime:error this request: not valid JSON"},
		{`hello`, "runtime:error this request: not valid JSON"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"s3cr3t}`, "runtime:error this request: not valid JSON"},
		{`{"protocol":"graph"} {}`, "runtime:error this request: not valid JSON"},
		{"\xef\xbb\xbf{}", "runtime:error this request: not valid JSON"},
		{"{\"protocol\":\"gr\xffaph\"}", "runtime:error this request: not valid UTF-8"},
		{`[]`, "runtime:error this request: must be an object"},
		{`null`, "runtime:error this request: must be an object"},
		{`{}`, "runtime:error " + noKind},
		{`{"protocol":"graph","payload":{}}`, "graph:error " + noKind},
		{`{"protocol":"","command":"clear","payload":{}}`, "runtime:error " + noKind},
		{`{"Protocol":"graph","Command":"clear","Payload":{}}`, "runtime:error " + noKind},
		{`{"protocol":1,"command":"clear","payload":{}}`, "runtime:error this request: protocol must be a string"},
		{`{"protocol":"graph","command":["clear"],"payload":{}}`, "graph:error this request: command must be a string"},
		{`{"protocol":"graph","command":"clear","requestId":"7"}`, "graph:error 7 graph:clear: payload is missing"},
		{`{"protocol":"graph","command":"clear","payload":null,"requestId":"7"}`, "graph:error 7 graph:clear: payload must be an object"},
		{`{"protocol":"network","command":"start","payload":"foo"}`, "network:error network:start: payload must be an object"},
		{`{"protocol":"trace","command":"start","payload":[]}`, "trace:error trace:start: payload must be an object"},
		{`{"protocol":"graph","command":"clear","payload":{},"requestId":7}`, "graph:error graph:clear: requestId must be a string"},
		{`{"protocol":"graph","command":"clear","payload":{},"secret":{}}`, "graph:error graph:clear: secret must be a string"},
		{`{"protocol":"graph","command":"clear","payload":{"secret":12}}`, "graph:error graph:clear: payload.secret must be a string"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"a"},"payload":{"id":"b"}}`, "graph:error graph:clear: has a key twice"},
		{`{"protocol":"graph","protocol":"network","command":"clear","payload":{}}`, "graph:error this request: has a key twice"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"a","\u0069d":"b"}}`, "graph:error graph:clear: payload has a key twice"},
		{`{"protocol":"graph","command":"clear","payload":{"id":` + deep + `}}`, "runtime:error this request: nested deeper than 200 levels"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"\ud800"}}`, "graph:error graph:clear: payload.id has half a surrogate pair"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"\ude00\ud83d"}}`, "graph:error graph:clear: payload.id has half a surrogate pair"},
		{`{"protocol":"graph","command":"clear","payload":{"ID":"a"}}`, "graph:error graph:clear: payload.id is missing"},
		{`{"protocol":"graph","command":"clear","payload":{"id":null}}`, "graph:error graph:clear: payload.id is missing"},
		{`{"protocol":"graph","command":"clear","payload":{"id":1e999}}`, "graph:error graph:clear: payload.id must be a string"},
		{`{"protocol":"graph","command":"clear","payload":{"id":"a","main":"yes"}}`, "graph:error graph:clear: payload.main must be true or false"},
		{`{"protocol":"graph","command":"list","payload":{}}`, "graph:error graph:list is not permitted"},
		{`{"protocol":"graph","command":"error","payload":{"message":"a"}}`, "graph:error graph:error is not permitted"},
		{`{"protocol":"network","command":"started","payload":{"graph":"a"}}`, "network:error network:started is not permitted"},
		{`{"protocol":"other","command":"start","payload":{"graph":"a"}}`, "runtime:error other:start is not permitted"},
		{`{"protocol":"graph:clear","command":"x","payload":{"id":"a"}}`, "graph:error graph:clear:x is not permitted"},
		{`{"protocol":"graph","command":"<script>","payload":{}}`, "graph:error this request is not permitted"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c"}}`, "graph:error No graph specified"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","graph":""}}`, "graph:error No graph specified"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","graph":null}}`, "graph:error No graph specified"},
		{`{"protocol":"network","command":"start","payload":{}}`, "network:error No graph specified"},
		{`{"protocol":"trace","command":"stop","payload":{}}`, "trace:error No graph specified"},
		{`{"protocol":"runtime","command":"packet","payload":{"port":"in","event":"data"}}`, "runtime:error No graph specified"},
		{`{"protocol":"runtime","command":"packet","payload":{"port":"in","event":"dada","graph":"a"}}`, "runtime:error runtime:packet: payload.event must be one of connect, begingroup, data, endgroup, disconnect"},
		{`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a"},"tgt":{"node":"b","port":"in"},"graph":"g"}}`, "graph:error graph:addedge: payload.src.port is missing"},
		{`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a","port":"out","index":true},"tgt":{"node":"b","port":"in"},"graph":"g"}}`, "graph:error graph:addedge: payload.src.index must be a string or a number"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":[],"graph":"g"}}`, "graph:error graph:addnode: payload.metadata must be an object"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{"x":"1"},"graph":"g"}}`, "graph:error graph:addnode: payload.metadata.x must be an integer"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{"x":1e999},"graph":"g"}}`, "graph:error graph:addnode: payload.metadata.x is out of range"},
		{`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{"x":1,"x":2},"graph":"g"}}`, "graph:error graph:addnode: payload.metadata has a key twice"},
		{`{"protocol":"graph","command":"addgroup","payload":{"name":"a","nodes":["b",1],"graph":"g"}}`, "graph:error graph:addgroup: payload.nodes[1] must be a string"},
		{`{"protocol":"graph","command":"addgroup","payload":{"name":"a","nodes":"b","graph":"g"}}`, "graph:error graph:addgroup: payload.nodes must be an array"},
		{`{"protocol":"graph","command":"addinitial","payload":{"src":{},"tgt":{"node":"b","port":"in"},"graph":"g"}}`, "graph:error graph:addinitial: payload.src.data is missing"},
		{`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"},"metadata":{"schema":"no uri"},"graph":"g"}}`, "graph:error graph:addedge: payload.metadata.schema must be a URI"},
		{`{"protocol":"trace","command":"start","payload":{"graph":"g","buffersize":1.5}}`, "trace:error trace:start: payload.buffersize must be an integer"},
		{`{"protocol":"trace","command":"dump","payload":{"graph":"g","type":"pcap"}}`, "trace:error trace:dump: payload.type must be one of flowtrace.json"},
	} {
		in, err := fbp.DecodeInput([]byte(c.message))
		if err == nil {
			_, err = in.Parse()
		}
		if err == nil {
			t.Errorf("%s was taken", c.message)
			continue
		}
		if _, ok := errors.AsType[fbp.Error](err); !ok {
			t.Errorf("%s: a %T", c.message, err)
		}
		out := in.Fail(err)
		if err := out.Validate(); err != nil {
			t.Errorf("%s: %v", c.message, err)
		}
		p, err := out.Parse()
		if err != nil {
			t.Fatal(err)
		}
		got := []string{string(out.Kind), out.ResponseTo, p.(fbp.Error).Message}
		if got := strings.Join(slices.DeleteFunc(got, func(s string) bool { return s == "" }), " "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.message, got, c.want)
		}
	}
}

func TestTooLargeIsRefusedBeforeItIsLookedInto(t *testing.T) {
	message := bytes.Repeat([]byte(" "), fbp.MaxSize+1)
	if _, err := fbp.DecodeInput(message); err == nil || !strings.Contains(err.Error(), "larger than 16777216 bytes") {
		t.Error(err)
	}
	if _, err := fbp.NewOutput(fbp.Source{Code: string(message)}); err == nil {
		t.Error("too large to read, and written")
	}
	in := fbp.Input{Kind: fbp.GraphClear}
	if out := in.Fail(errors.New(string(message))); len(out.Payload) > 1<<20 {
		t.Errorf("an error of %d bytes", len(out.Payload))
	}
}

// TestFreeMetadataIsBoundedAndHasNoKeyTwice, wherever the second one stands.
func TestFreeMetadataIsBoundedAndHasNoKeyTwice(t *testing.T) {
	for _, n := range []int{1, 2, 15, 16, 17, 18, 100, 1024, 1025} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf(`"k%d":%d`, i, i))
		}
		metadata := fbp.Metadata("{" + strings.Join(keys, ",") + "}")
		if got, err := fbp.Merge(metadata, nil); (err == nil) != (n <= 1024) || err == nil && string(got) != string(metadata) {
			t.Errorf("%d keys: %v", n, err)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			twice := "{" + strings.Join(append(slices.Clone(keys), keys[again]), ",") + "}"
			if _, err := fbp.Merge(fbp.Metadata(twice), nil); err == nil {
				t.Errorf("%d keys, and key %d twice, were taken", n, again)
			}
		}
	}
}

func TestFailSendsTheExactTextOfAWrappedError(t *testing.T) {
	in := fbp.Input{Kind: fbp.NetworkStart, ID: "7"}
	err := fmt.Errorf("graph %q: %w", "a", fbp.Error{Message: fbp.GraphNotFound, Stack: "at x"})
	got := string(in.Fail(err).Append(nil))
	want := `{"protocol":"network","command":"error","payload":{"message":"Requested graph not found","stack":"at x"},"responseTo":"7"}`
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	got = string(in.Fail(errors.New("a \xff <b>")).Append(nil))
	want = `{"protocol":"network","command":"error","payload":{"message":"a \ufffd <b>"},"responseTo":"7"}`
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// TestWhatTheProtocolDoesNotKnowIsDropped: an echo has nothing that the schemas forbid.
func TestWhatTheProtocolDoesNotKnowIsDropped(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{
			`{"protocol":"graph","command":"clear","payload":{"baseDir":"/somewhere","id":"foo","main":true,"name":"Foo graph","secret":"s"},"secret":"s","colour":1}`,
			`{"protocol":"graph","command":"clear","payload":{"id":"foo","name":"Foo graph","main":true}}`,
		},
		{
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","graph":"g","x":1}}`,
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{},"graph":"g"}}`,
		},
		{
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","graph":"g","metadata":null},"requestId":"é\n"}`,
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{},"graph":"g"},"responseTo":"é\n"}`,
		},
		{
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","graph":"g","metadata": { "x" : 35.6, "y": 3.6e1, "x ": 35.60, "z" : null } } }`,
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"c","metadata":{"x":36,"y":36,"x ":35.60,"z":null},"graph":"g"}}`,
		},
		{
			`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a","port":"out","index":null,"id":1},"tgt":{"node":"b","port":"in","index":0},"graph":"g"}}`,
			`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":0},"graph":"g"}}`,
		},
		{
			`{"protocol":"graph","command":"addinport","payload":{"public":"in","node":"a","port":"in","graph":"g","metadata":null}}`,
			`{"protocol":"graph","command":"addinport","payload":{"public":"in","node":"a","port":"in","graph":"g"}}`,
		},
		{
			`{"protocol":"graph","command":"renamegroup","payload":{"from":"a","to":"b","graph":"g","colour":1}}`,
			`{"protocol":"graph","command":"renamegroup","payload":{"from":"a","to":"b","graph":"g"}}`,
		},
		{
			`{"protocol":"network","command":"persist","payload":{"graph":"g"}}`,
			`{"protocol":"network","command":"persist","payload":{}}`,
		},
		{
			`{"protocol":"network","command":"edges","payload":{"edges":[{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"},"data":1}],"graph":"g"}}`,
			`{"protocol":"network","command":"edges","payload":{"graph":"g","edges":[{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"}}]}}`,
		},
	} {
		in, err := fbp.DecodeInput([]byte(c.message))
		if err != nil {
			t.Fatal(err)
		}
		p, err := in.Parse()
		if err != nil {
			t.Fatal(err)
		}
		out, err := in.Answer(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Validate(); err != nil {
			t.Error(err)
		}
		if got := string(out.Append(nil)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.message, got, c.want)
		}
	}
}

// TestNullInChangedMetadataIsKept, because it takes a key away, those that the protocol defines too.
func TestNullInChangedMetadataIsKept(t *testing.T) {
	in, err := fbp.DecodeInput([]byte(`{"protocol":"graph","command":"changenode","payload":{"id":"a","metadata":{"x":null,"tag":null,"y":1},"graph":"g"}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := in.Parse()
	if err != nil {
		t.Fatal(err)
	}
	change := p.(fbp.ChangeNode)
	if got, want := string(change.Metadata), `{"x":null,"tag":null,"y":1}`; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	on, err := fbp.NewInput(change)
	if err != nil || !strings.Contains(string(on.Payload), `"x":null`) {
		t.Errorf("on to another runtime (%v): %s", err, on.Payload)
	}
	// A runtime says what has become of it, and there is no null in that.
	out, err := in.Answer(change)
	if err != nil || out.Validate() != nil || strings.Contains(string(out.Payload), `"x"`) {
		t.Errorf("echo (%v): %s", err, out.Payload)
	}
}

func TestMergeKeepsOrderAndSpelling(t *testing.T) {
	for _, c := range []struct{ metadata, change, want string }{
		{``, ``, `{}`},
		{`{}`, `{"sort":1}`, `{"sort":1}`},
		{`{"sort":1}`, `{"tag":"awesome"}`, `{"sort":1,"tag":"awesome"}`},
		{`{"sort":1,"tag":"awesome"}`, `{}`, `{"sort":1,"tag":"awesome"}`},
		{`{"sort":1,"tag":"awesome"}`, `{"sort":null,"tag":null}`, `{}`},
		{` { "z" : 1.0 , "a" : { "b" : 1 } } `, `{"a":{"b":2},"gone":null,"n":1e400}`, `{"z":1.0,"a":{"b":2},"n":1e400}`},
		{`{"a":null}`, `{"\u0061":1}`, `{"a":1}`},
	} {
		var metadata, change fbp.Metadata
		if c.metadata != "" {
			metadata = fbp.Metadata(c.metadata)
		}
		if c.change != "" {
			change = fbp.Metadata(c.change)
		}
		got, err := fbp.Merge(metadata, change)
		if err != nil || string(got) != c.want {
			t.Errorf("%s with %s: %s (%v), want %s", c.metadata, c.change, got, err, c.want)
		}
	}
	for _, bad := range []string{`[]`, ``, `{`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}"} {
		if got, err := fbp.Merge(fbp.Metadata(bad), nil); err == nil {
			t.Errorf("%q merged into %s", bad, got)
		}
		if got, err := fbp.Merge(nil, fbp.Metadata(bad)); err == nil {
			t.Errorf("%q merged into %s", bad, got)
		}
	}
}

// TestUserDataIsNeverEncodedAnew: order of keys, spelling of numbers and of texts, keys that are there twice.
func TestUserDataIsNeverEncodedAnew(t *testing.T) {
	for _, data := range []string{
		`{"z":1,"a":2,"z":3}`, `1.0`, `-0`, `1E+2`, `123456789012345678901234567890`, `1e999999`,
		`"\u0041\/<>& é"`, `"\ud800"`, `null`, `[]`, `{}`, `{"secret":"mine"}`, `"` + "\u2028" + `"`,
	} {
		message := `{"protocol":"graph","command":"addinitial","payload":{"src":{"data":` + data + `},"tgt":{"node":"a","port":"in"},"graph":"g"}}`
		in, err := fbp.DecodeInput([]byte(message))
		if err != nil {
			t.Fatal(err)
		}
		p, err := in.Parse()
		if err != nil {
			t.Fatal(err)
		}
		out, err := in.Answer(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out.Append(nil)); got != message {
			t.Errorf("\n got %s\nwant %s", got, message)
		}
	}
}

func TestRawJSONThatIsNoneIsNotSent(t *testing.T) {
	for _, data := range []string{``, `{`, `1 2`, "\"\xff\"", strings.Repeat("[", 300) + strings.Repeat("]", 300)} {
		if out, err := fbp.NewOutput(fbp.Data{Data: raw(data)}); err == nil {
			t.Errorf("%.20q was sent: %.100s", data, out.Payload)
		}
	}
	for _, p := range []fbp.Payload{
		fbp.AddNode{Metadata: fbp.Metadata(`[]`)},
		fbp.AddNode{Metadata: fbp.Metadata(`{"x":"1"}`)},
		fbp.AddEdge{Src: fbp.Endpoint{Index: "1,2"}},
		fbp.AddEdge{Src: fbp.Endpoint{Index: "true"}},
		fbp.Packet{Event: "dada"},
		fbp.AddEdge{Metadata: fbp.Metadata(`{"schema":"not a uri"}`)},
		fbp.GetRuntime{},
	} {
		if _, err := fbp.NewOutput(p); err == nil {
			t.Errorf("%#v was sent", p)
		}
	}
	if _, err := fbp.NewInput(fbp.Started{Graph: "a"}); err == nil {
		t.Error("a client has started a network by saying so")
	}
}

// TestNothingIsAnEmptyList where a list must be.
func TestNothingIsAnEmptyList(t *testing.T) {
	for _, c := range []struct {
		p    fbp.Payload
		want string
	}{
		{fbp.Ports{Graph: "g"}, `{"graph":"g","inPorts":[],"outPorts":[]}`},
		{fbp.Component{Name: "c"}, `{"name":"c","subgraph":false,"inPorts":[],"outPorts":[]}`},
		{fbp.SelectEdges{Graph: "g"}, `{"graph":"g","edges":[]}`},
		{fbp.AddGroup{Name: "a", Graph: "g"}, `{"name":"a","nodes":[],"graph":"g"}`},
		{fbp.Runtime{Type: "t", Version: "0.8"}, `{"type":"t","version":"0.8","capabilities":[]}`},
		{fbp.ChangeNode{ID: "a", Graph: "g"}, `{"id":"a","metadata":{},"graph":"g"}`},
		{fbp.Data{ID: "d", Tgt: end("a", "in"), Graph: "g"}, `{"id":"d","tgt":{"node":"a","port":"in"},"graph":"g","data":null}`},
	} {
		out, err := fbp.NewOutput(c.p)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out.Payload); got != c.want || out.Validate() != nil {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

func TestRuntimesMayEchoSecretsAndMore(t *testing.T) {
	out, err := fbp.DecodeOutput([]byte(`{"protocol":"graph","command":"clear","payload":{"id":"a","secret":"s3cr3t","baseDir":"/x"},"secret":"s3cr3t","id":4,"responseTo":"7"}`))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(fmt.Sprintf("%s%v", out.Append(nil), out), "s3cr3t") {
		t.Errorf("the secret is still in %s", out.Payload)
	}
	p, err := out.Parse()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fbp.Payload(fbp.ClearGraph{ID: "a"}), p); diff != "" || out.ResponseTo != "7" {
		t.Error(diff, out.ResponseTo)
	}
	for _, bad := range []string{
		``, `1`, `{"protocol":"graph","command":"clear"}`, `{"protocol":"graph","command":"clear","payload":4}`,
		`{"protocol":"component","command":"componentsready","payload":{}}`, `{"protocol":"component","command":"componentsready","payload":1.5}`,
		`{"protocol":"network","command":"stopped","payload":{"graph":"g","uptime":1e999}}`,
		`{"protocol":"network","command":"stopped","payload":{"graph":"g","time":"5a.m."}}`,
		`{"protocol":"graph","command":"graph","payload":{}}`,
	} {
		out, err := fbp.DecodeOutput([]byte(bad))
		if err == nil {
			_, err = out.Parse()
		}
		if err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestErrorsOfRuntimesMayHoldAnything but a message that is none.
func TestErrorsOfRuntimesMayHoldAnything(t *testing.T) {
	out, err := fbp.DecodeOutput([]byte(`{"protocol":"graph","command":"error","payload":{"message":"m","Message":"n","stack":{"a":1},"graph":4,"code":5}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := out.Parse()
	if diff := cmp.Diff(fbp.Payload(fbp.Error{Protocol: "graph", Message: "m"}), p); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

// TestWhatIsNotWorthLosingAMessageOverIsLeftOut: links that are none, and NoFlo's way with traces.
func TestWhatIsNotWorthLosingAMessageOverIsLeftOut(t *testing.T) {
	for _, c := range []struct{ message, want string }{
		{
			`{"protocol":"component","command":"component","payload":{"name":"c","subgraph":false,"icon":null,"inPorts":[{"id":"in","type":"all","schema":"text/plain","required":null}],"outPorts":[]}}`,
			`{"name":"c","subgraph":false,"inPorts":[{"id":"in","type":"all"}],"outPorts":[]}`,
		},
		{
			`{"protocol":"network","command":"output","payload":{"message":"m","url":4}}`,
			`{"message":"m"}`,
		},
		{
			`{"protocol":"runtime","command":"packet","payload":{"graph":"g","port":"out","event":"data","schema":"none at all","payload":1.0}}`,
			`{"graph":"g","port":"out","event":"data","payload":1.0}`,
		},
		{
			`{"protocol":"trace","command":"dump","payload":{"graph":"g","type":"flowtrace.json","flowtrace":{"header":{"a":1.0}}}}`,
			`{"graph":"g","type":"flowtrace.json","flowtrace":"{\"header\":{\"a\":1.0}}"}`,
		},
	} {
		out, err := fbp.DecodeOutput([]byte(c.message))
		if err != nil {
			t.Fatal(err)
		}
		p, err := out.Parse()
		if err != nil {
			t.Fatal(err)
		}
		ours, err := fbp.NewOutput(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(ours.Payload); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.message, got, c.want)
		}
	}
	port := fbp.Port{ID: "in", Type: "all", Schema: "not a uri"}
	if out, err := fbp.NewOutput(fbp.Ports{Graph: "g", InPorts: []fbp.Port{port}}); err != nil || out.Validate() != nil {
		t.Errorf("%s, %v", out.Payload, err)
	}
}

func TestEdgeLineIsWhatNoFloSays(t *testing.T) {
	src, tgt := end("Hello", "out"), end("World", "in")
	for _, c := range []struct{ got, want string }{
		{fbp.EdgeLine(nil, end("Hello", "in")), "DATA -> IN Hello()"},
		{fbp.EdgeLine(&src, tgt), "Hello() OUT -> IN World()"},
		{fbp.EdgeLine(&src, at("World", "in", fbp.At(3))), "Hello() OUT -> IN[3] World()"},
		{fbp.EdgeLine(&src, at("World", "in", `"a"`)), "Hello() OUT -> IN[a] World()"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

func TestIndexIsAWholeNumberOrNone(t *testing.T) {
	for text, want := range map[fbp.Index]int{
		"0": 0, "7": 7, "7.0": 7, "7e0": 7, `"7"`: 7, fbp.At(12): 12,
		"": -1, "-1": -1, "1.5": -1, "1e99": -1, "1e999": -1, `"a"`: -1, `""`: -1, `"+1"`: -1, `"1e1"`: -1,
	} {
		got, ok := text.Value()
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("index %s is %d, want %d", text, got, want)
		}
	}
}
