package fbp_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/forwarding/fbp"
)

// TestRecordedExchangeIsUnderstood reads what fbp-test and noflo-nodejs have said to each other, and says it again: nothing
// is lost but what the schemas do not know and what says no more than its absence.
func TestRecordedExchangeIsUnderstood(t *testing.T) {
	text, err := os.ReadFile("fbptest/testdata/noflo-nodejs.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(text) {
		var one struct {
			Dir string
			Msg json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		var again []byte
		switch one.Dir {
		case "->":
			in, err := fbp.DecodeInput(one.Msg)
			if err != nil {
				t.Fatal(err)
			}
			if got := in.Secret.Reveal(); got != "noflo" {
				t.Errorf("secret %q in %s", got, one.Msg)
			}
			p, err := in.Parse()
			if err != nil {
				if err.Error() != fbp.NoGraph || !strings.Contains(line, `"addnode"`) {
					t.Errorf("%s: %v", one.Msg, err)
				}
				continue
			}
			back, err := fbp.NewInput(p)
			if err != nil {
				t.Fatal(err)
			}
			back.Secret = in.Secret
			again = back.Append(nil)
		case "<-":
			out, err := fbp.DecodeOutput(one.Msg)
			if err != nil {
				t.Fatal(err)
			}
			if err := out.Validate(); err != nil {
				t.Error(err)
			}
			p, err := out.Parse()
			if err != nil {
				t.Fatal(err)
			}
			back, err := fbp.NewOutput(p)
			if err != nil {
				t.Fatal(err)
			}
			again = back.Append(nil)
		default:
			t.Fatalf("direction %q", one.Dir)
		}
		if diff := cmp.Diff(essence(t, one.Msg), essence(t, again)); diff != "" {
			t.Errorf("%s (-said +said again):\n%s", one.Msg, diff)
		}
	}
}

// essence returns a message without what is dropped on purpose.
func essence(t *testing.T, message []byte) any {
	var v map[string]any
	if err := json.Unmarshal(message, &v); err != nil {
		t.Fatal(err)
	}
	if payload, ok := v["payload"].(map[string]any); ok {
		delete(payload, "baseDir")
		if v["command"] == "addnode" && payload["metadata"] == nil {
			payload["metadata"] = map[string]any{}
		}
		if v["protocol"] != "network" { // where false is always said
			strip(payload)
		}
	}
	return v
}

func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, one := range v {
			if k != "subgraph" && (one == false || one == "") {
				delete(v, k)
				continue
			}
			strip(one)
		}
	case []any:
		for _, one := range v {
			strip(one)
		}
	}
}
