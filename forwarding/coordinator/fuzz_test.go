package coordinator_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding/fbp"
)

// FuzzSession: whatever a client sends, line by line, each line is answered once, before the next one is, by a message of its
// sub-protocol that has its id and is valid; and what the client is told makes of a graph what the runtime has.
func FuzzSession(f *testing.F) {
	seeds := []string{
		`{"protocol":"runtime","command":"getruntime","payload":{"secret":"x"},"requestId":"1"}`,
		`{"protocol":"graph","command":"clear","payload":{"id":"g","main":true}}` + "\n" +
			`{"protocol":"graph","command":"addnode","payload":{"id":"a","component":"core/Repeat","graph":"g"},"requestId":"é\n"}` + "\n" +
			`{"protocol":"graph","command":"addedge","payload":{"src":{"node":"a","port":"out"},"tgt":{"node":"a","port":"in","index":"1"},"graph":"g"}}` + "\n" +
			`{"protocol":"graph","command":"addinport","payload":{"public":"in","node":"a","port":"in","graph":"g"}}` + "\n" +
			`{"protocol":"network","command":"start","payload":{"graph":"g"}}` + "\n" +
			`{"protocol":"runtime","command":"packet","payload":{"graph":"g","port":"in","event":"data","payload":null}}` + "\n" +
			`{"protocol":"graph","command":"removenode","payload":{"id":"a","graph":"g"},"requestId":"7"}`,
		`{"protocol":"component","command":"list","payload":{}}` + "\n" + `{"protocol":"component","command":"getsource","payload":{"name":"core/Drop"}}`,
		`{"protocol":"component","command":"source","payload":{"name":"g","language":"fbp","code":"'x' -> IN a(core/Drop)"},"requestId":"s"}`,
		`{"protocol":"component","command":"source","payload":{"name":"g","library":"l","language":"json","code":"{\"processes\":{\"a\":{\"component\":\"c\",\"metadata\":{\"x\":null}}},\"connections\":[{\"data\":1,\"tgt\":{\"process\":\"a\",\"port\":\"in\"}}]}"}}`,
		`{"protocol":"trace","command":"start","payload":{"graph":"there","buffersize":-1}}` + "\n" +
			`{"protocol":"trace","command":"dump","payload":{"graph":"there","type":"flowtrace.json"}}`,
		`{"protocol":"network","command":"edges","payload":{"graph":"there","edges":[{"src":{"node":"","port":""},"tgt":{"node":"","port":"","index":1e9}}]}}`,
		"\n{\n\xff", `{"protocol":"x","command":"error","payload":{}}`, `[]`, `{"protocol":"graph","command":"addnode","payload":{}}`,
		`{"protocol":"graph","command":"changenode","payload":{"id":"n","metadata":{"a":null,"x":1.5},"graph":"flogate/there"}}`,
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		s := newSite(t)
		g := graph.New("")
		addAll(t, g, graph.AddNode{ID: "n", Component: "core/Drop"})
		s.h.open("there", g, true)
		c := s.run().dial("")
		c.open()
		m := newMirror()
		addAll(t, m.graph, graph.AddNode{ID: "n", Component: "core/Drop"})
		for line := range bytes.SplitSeq(lines, []byte("\n")) {
			if err := c.Send(t.Context(), line); err != nil {
				t.Fatal(err)
			}
			in, _ := fbp.DecodeInput(line)
			answers := 0
			c.ask(fbp.GetRuntime{}, "after")
			for {
				out := c.next() // is valid
				if out.ResponseTo == "after" && (in.ID != "after" || answers > 0) {
					break
				}
				if strings.Contains(string(out.Payload), `"there"`) {
					if err := m.take(out); err != nil {
						t.Fatal(err)
					}
				}
				if in.ID == "" && (out.Kind.IsError() || out.Kind == in.Kind.Answer()) || in.ID != "" && out.ResponseTo == in.ID {
					answers++
				}
			}
			// Without an id an answer looks like an event: more of that kind may come.
			if answers == 0 || in.ID != "" && answers > 1 {
				t.Fatalf("%q has %d answers", line, answers)
			}
		}
		if now, err := s.h.Graph("there"); err != nil || !graph.Same(m.graph, now.Graph) {
			t.Errorf("the client has %v, the runtime %v (%v)", m.graph, now.Graph, err)
		}
	})
}
