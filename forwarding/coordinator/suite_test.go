package coordinator_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

func TestCoordinatorPassesTheSuite(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			s := newSite(t)
			s.policy = forwarding.Policy{Grants: []forwarding.Grant{
				{Secret: fbp.NewSecret("open"), Access: forwarding.Access{Capabilities: fbp.AllCapabilities()}},
			}}
			s.run()
			open := func(testing.TB) fbptest.Conn { return s.dial("open") }
			fbptest.Run(t, open, fbptest.Options{Strict: strict, Secret: "open"})
		})
	}
}

var update = flag.Bool("update", false, "write testdata anew")

// The exchange of the suite, message by message. What differs from run to run is put out of it.
func TestExchangeOfTheSuiteIsAsRecorded(t *testing.T) {
	s := newSite(t).run()
	r := fbptest.Record(s.dial(""))
	fbptest.Run(t, func(testing.TB) fbptest.Conn { return r }, fbptest.Options{})
	var got bytes.Buffer
	if err := r.Transcript().Write(&got); err != nil {
		t.Fatal(err)
	}
	changing := regexp.MustCompile(`"(time|uptime)": ?("[^"]*"|[0-9.e-]+)`)
	text := changing.ReplaceAllStringFunc(got.String(), func(pair string) string {
		if strings.HasPrefix(pair, `"time`) {
			return `"time":"2026-01-02T03:04:05Z"`
		}
		return `"uptime":1`
	})
	const path = "testdata/suite.jsonl"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(text, "\n")); diff != "" {
		t.Errorf("run with -update if it is to be so (-recorded +now):\n%s", diff)
	}
}
