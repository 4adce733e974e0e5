package mqtt

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/transport"
)

func validate(t *testing.T, req transport.ValidateRequest) transport.ValidateResult {
	t.Helper()
	res, err := New(slog.New(slog.DiscardHandler)).Validate(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestWrongConfigIsReportedAllAtOnceWithoutSecrets(t *testing.T) {
	for _, tt := range []struct {
		config string
		want   []string
	}{
		{`{"url":"mqtt://h"}`, nil},
		{`{"url":"mqtts://u:p@h:1","client_id":"gw","keep_alive":"5s","max_message":1,"tls":{}}`, nil},
		{`{"url":"mqtt://[::1]:1883/"}`, nil},
		{`{}`, []string{"url: is required"}},
		{`[]`, []string{": is not a JSON object"}},
		{`{"url":1}`, []string{"url: must be a string"}},
		{`{"url":"mqtt://h","tls":{"insecure_skip_verify":"yes"}}`, []string{"tls.insecure_skip_verify: must be true or false"}},
		{`{"url":"mqtt://u:s3cr3t%@h"}`, []string{"url: is not a URL"}},
		{`{"url":"mqtt://u:s3cr3t/x@h:1"}`, []string{"url: "}},
		{`{"url":"http://u:s3cr3t@h"}`, []string{"url: must begin with mqtt://"}},
		{`{"url":"mqtt://:1883"}`, []string{"url: has no host"}},
		{`{"url":"mqtt://h:0"}`, []string{"url: has a port"}},
		{`{"url":"mqtt://h/topic"}`, []string{"url: must end after the port"}},
		{`{"url":"mqtt://u:s3cr3t@h","username":"v"}`, []string{"username: is given twice"}},
		{`{"url":"mqtt://h","password":"s3cr3t"}`, []string{"password: needs a username"}},
		{
			`{"url":"mqtt://h","keep_alive":"1","max_message":0,"client_id":"\u0000","tls":{"ca":"x","cert":"s3cr3t"}}`,
			[]string{"client_id: must be", "keep_alive: must be a duration", "max_message: must be", "tls: is for mqtts://", "tls.ca: has no", "tls.key: is needed"},
		},
		{`{"url":"mqtts://h","tls":{"cert":"s3cr3t","key":"s3cr3t"}}`, []string{"tls.cert: with key is not a pair"}},
		{`{"url":"mqtts://h","tls":{"key":"s3cr3t"}}`, []string{"tls.cert: is needed"}},
	} {
		res := validate(t, transport.ValidateRequest{Config: json.RawMessage(tt.config)})
		if len(res.Problems) != len(tt.want) {
			t.Errorf("%s: %d problems: %v; want %d", tt.config, len(res.Problems), res.Problems, len(tt.want))
			continue
		}
		for i, p := range res.Problems {
			if got := strings.Join(p.Path, ".") + ": " + p.Message; !strings.HasPrefix(got, tt.want[i]) {
				t.Errorf("%s: problem %d is %q; want %q", tt.config, i, got, tt.want[i])
			}
			if strings.Contains(p.Message, "s3cr3t") {
				t.Errorf("%s: the problem has the secret: %s", tt.config, p.Message)
			}
		}
		_, err := New(slog.New(slog.DiscardHandler)).Connect(t.Context(), transport.ConnectRequest{Config: json.RawMessage(tt.config)})
		if len(tt.want) > 0 && !transport.IsPermanent(err) {
			t.Errorf("%s: Connect: %v; want a Permanent error", tt.config, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error has the secret: %v", tt.config, err)
		}
	}
}

func TestTraitsSayWhatAnEndpointPromises(t *testing.T) {
	res := validate(t, transport.ValidateRequest{
		Sources: []transport.Source{
			{Address: "a/+"},
			{Address: "a", Options: []byte(`{"qos":0}`)},
			{Address: "a", Options: []byte(`{"qos":2}`)},
			{Address: "$share/g/a/#"},
			{Address: "a#", Options: []byte(`{"qos":3}`)},
		},
		Sinks: []transport.Sink{
			{Address: "a"},
			{Address: "a", Options: []byte(`{"qos":0,"retain":true}`)},
			{},
			{Address: "+", Options: []byte(`{"window":0,"qos":7}`)},
		},
	})
	for i := range res.Sources {
		res.Sources[i].Weakness, _, _ = strings.Cut(res.Sources[i].Weakness, ":")
	}
	for i := range res.Sinks {
		res.Sinks[i].Weakness, _, _ = strings.Cut(res.Sinks[i].Weakness, ":")
	}
	wantSources := []transport.Traits{
		{Acks: true, Place: "topic:a/+", Headerless: true},
		{Place: "topic:a", Headerless: true, Weakness: "QoS 0 has no acknowledgement"},
		{Acks: true, Place: "topic:a", Headerless: true},
		{Place: "topic:$share/g/a/#", Headerless: true, Weakness: "a shared subscription has no session that outlives its connection"},
		{Acks: true, Place: "topic:a#", Headerless: true},
	}
	wantSinks := []transport.Traits{
		{Confirms: true, Place: "topic:a", Headerless: true, Fleeting: true},
		{Place: "topic:a", Headerless: true, Fleeting: true, Weakness: "QoS 0 is never confirmed"},
		{Confirms: true, Headerless: true, Fleeting: true},
		{Confirms: true, Place: "topic:+", Headerless: true, Fleeting: true},
	}
	if diff := cmp.Diff(wantSources, res.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantSinks, res.Sinks); diff != "" {
		t.Errorf("sinks (-want +got):\n%s", diff)
	}
	var where []string
	for _, p := range res.Problems {
		where = append(where, fmt.Sprint(p.Where, p.Index, p.Path))
	}
	want := []string{
		fmt.Sprint(transport.InSource, 4, []string{"qos"}), fmt.Sprint(transport.InSource, 4, []string{"address"}),
		fmt.Sprint(transport.InSink, 3, []string{"qos"}), fmt.Sprint(transport.InSink, 3, []string{"window"}), fmt.Sprint(transport.InSink, 3, []string{"address"}),
	}
	if diff := cmp.Diff(want, where); diff != "" {
		t.Errorf("places of problems (-want +got):\n%s", diff)
	}
}

// The schema is what a site file may say, and the parsers are what it means: neither may know more than the other.
func TestSchemaNamesWhatIsUnderstood(t *testing.T) {
	d, err := New(slog.New(slog.DiscardHandler)).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(d.Source.Attributes, d.Sink.Attributes...) {
		wrong := json.RawMessage(fmt.Sprintf(`{%q:{"of":"the wrong type"}}`, a.Name))
		res := validate(t, transport.ValidateRequest{
			Sources: []transport.Source{{Address: "a", Options: wrong}}, Sinks: []transport.Sink{{Address: "a", Options: wrong}},
		})
		if len(res.Problems) == 0 {
			t.Errorf("option %s is in the schema and not understood", a.Name)
		}
	}
	for _, a := range d.Config.Attributes {
		wrong := json.RawMessage(fmt.Sprintf(`{%q:{"of":"the wrong type"}}`, a.Name))
		if res := validate(t, transport.ValidateRequest{Config: wrong}); len(res.Problems) == 0 || res.Problems[0].Path[0] != a.Name {
			t.Errorf("setting %s is in the schema and not understood", a.Name)
		}
	}
	for _, a := range d.Config.Blocks[0].Schema.Attributes {
		wrong := json.RawMessage(fmt.Sprintf(`{"url":"mqtts://h","tls":{%q:["wrong"]}}`, a.Name))
		if res := validate(t, transport.ValidateRequest{Config: wrong}); len(res.Problems) == 0 || res.Problems[0].Path[1] != a.Name {
			t.Errorf("setting tls.%s is in the schema and not understood", a.Name)
		}
	}
}
