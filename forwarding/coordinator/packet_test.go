package coordinator_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
)

// between returns a packet on the edge from a to a node.
func between(tgt, body string) coordinator.Packet {
	src := graph.Endpoint{Node: "a", Port: "out"}
	return coordinator.Packet{Src: &src, Tgt: graph.Endpoint{Node: tgt, Port: "in"}, Body: []byte(body)}
}

func watched(t testing.TB) (*site, *client) {
	s := newSite(t)
	g := graph.New("g")
	addAll(t, g, graph.AddNode{ID: "a", Component: "core/Repeat"}, graph.AddNode{ID: "b", Component: "core/Drop"},
		graph.AddNode{ID: "c", Component: "core/Drop"},
		graph.AddEdge{Src: graph.Endpoint{Node: "a", Port: "out"}, Tgt: graph.Endpoint{Node: "b", Port: "in", Index: graph.At(1)}},
		graph.AddEdge{Src: graph.Endpoint{Node: "a", Port: "out"}, Tgt: graph.Endpoint{Node: "c", Port: "in"}})
	s.h.open("g", g, true)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	c := s.run().dial("")
	c.open()
	return s, c
}

func TestBodiesAreShownAsJSONOrAsStrings(t *testing.T) {
	s, c := watched(t)
	long := strings.Repeat("ä", 9000)
	for body, want := range map[string]string{
		`{"b":1.50,"a":12345678901234567890}`: `{"b":1.50,"a":12345678901234567890}`,
		`null`:                                `null`,
		`"text"`:                              `"text"`,
		`plain <text>`:                        `"plain <text>"`,
		``:                                    `""`,
		"\xff\x00":                            `"data:;base64,/wA="`,
		long:                                  `"` + strings.Repeat("ä", 8192) + `… (18000 bytes)"`,
		`"` + long + `"`:                      `"\"` + strings.Repeat("ä", 8191) + `… (18002 bytes)"`,
		strings.Repeat("[", 300) + strings.Repeat("]", 300): `"` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `"`,
		`{"half":"\ud800"}`: `{"half":"\ud800"}`,
		"\"\xff\"":          `"data:;base64,Iv8i"`,
	} {
		s.h.flow("g", between("c", body))
		got := c.want(fbp.NetworkData, "")
		var data struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(got.Payload, &data); err != nil || string(data.Data) != want {
			t.Errorf("%.40q is shown as %.60s, want %.60s", body, data.Data, want)
		}
	}
	s.h.flow("g", coordinator.Packet{Tgt: graph.Endpoint{Node: "b", Port: "in", Index: graph.At(1)}, Body: []byte("1")})
	c.want(fbp.NetworkData, `{"id":"DATA -> IN[1] b()","tgt":{"node":"b","port":"in","index":1},"graph":"g","data":1}`)
	inside := between("c", "2")
	inside.Subgraph = []string{"part", "of"}
	s.h.flow("g", inside)
	contains(t, c.want(fbp.NetworkData, "").Payload, `"graph":"g","subgraph":["part","of"]`)
}

func TestClientSeesTheEdgesThatItHasSelected(t *testing.T) {
	s, c := watched(t)
	other := s.dial("")
	other.open()
	a := fbp.Endpoint{Node: "a", Port: "OUT"}
	c.ask(fbp.SelectEdges{Graph: "g", Edges: []fbp.EdgeEnds{{Src: a, Tgt: fbp.Endpoint{Node: "b", Port: "IN"}}}}, "")
	c.want(fbp.NetworkEdges, "")
	toB := between("b", "2")
	toB.Tgt.Index = graph.At(1)
	s.h.flow("g", between("c", "1"))
	s.h.flow("g", coordinator.Packet{Tgt: graph.Endpoint{Node: "a", Port: "in"}, Body: []byte("0")})
	s.h.flow("g", toB)
	contains(t, c.want(fbp.NetworkData, "").Payload, `"data":2`)
	for _, want := range []string{"1", "0", "2"} {
		contains(t, other.want(fbp.NetworkData, "").Payload, `"data":`+want)
	}
	c.ask(fbp.SelectEdges{Graph: "g"}, "")
	c.want(fbp.NetworkEdges, `{"graph":"g","edges":[]}`)
	s.h.flow("g", between("c", "3"))
	contains(t, c.want(fbp.NetworkData, "").Payload, `"data":3`)
}

func TestTapsAreOpenWhileSomebodyLooks(t *testing.T) {
	s := newSite(t)
	s.h.open("g", graph.New("g"), true)
	s.run()
	if n := s.h.tapped("g"); n != 0 {
		t.Errorf("%d taps for nobody", n)
	}
	one, two := s.dial(""), s.dial("")
	one.open()
	two.open()
	one.skipTo(fbp.RuntimePorts)
	if n := s.h.tapped("g"); n != 1 {
		t.Errorf("%d taps for two", n)
	}
	one.ask(fbp.ClearGraph{ID: "new", Main: true}, "")
	one.want(fbp.GraphClear, "")
	if n := s.h.tapped("new"); n != 1 {
		t.Errorf("%d taps of a new graph", n)
	}
	_ = one.End.Close()
	<-one.ended //nolint:errcheck // how does not matter
	if n := s.h.tapped("g"); n != 1 {
		t.Errorf("%d taps for one", n)
	}
	_ = two.End.Close()
	<-two.ended //nolint:errcheck // how does not matter
	if n := s.h.tapped("g") + s.h.tapped("new"); n != 0 {
		t.Errorf("%d taps when everybody has gone", n)
	}
}

func TestQuietEdgeIsSeenBesideABusyOne(t *testing.T) {
	s, c := watched(t)
	const packets, every = 20_000, 500
	var wrote int
	for i := range packets {
		s.h.flow("g", between("c", "0"))
		if i%every == 0 {
			s.h.flow("g", between("b", fmt.Sprint(i)))
			wrote++
		}
		if i%400 == 0 { // as fast as it can be taken out of the tap
			eventually(t, "the tap is empty", func() bool { return s.h.waiting("g") == 0 })
		}
	}
	eventually(t, "all is looked at", func() bool {
		is := s.c.Stats()
		return is.Shown+is.Unshown == uint64(packets+wrote)
	})
	is := s.c.Stats()
	if is.Unshown < packets/2 {
		t.Errorf("%d of %d packets were shown", is.Shown, packets)
	}
	quiet, busy := 0, 0
	for range is.Shown {
		if out := c.next(); strings.Contains(string(out.Payload), `"node":"b"`) {
			quiet++
		} else {
			busy++
		}
	}
	if quiet < wrote/4 || busy == 0 {
		t.Errorf("%d of %d packets of the quiet edge were shown, and %d of the busy one", quiet, wrote, busy)
	}
}

func TestTraceHasWhatHasPassed(t *testing.T) {
	s, c := watched(t)
	s.h.flow("g", between("b", "0")) // before it is asked for
	c.want(fbp.NetworkData, "")
	c.ask(fbp.StartTrace{Graph: "g", BufferSize: 2000}, "")
	c.want(fbp.TraceStart, "")
	for i := range 100 {
		s.h.flow("g", between("c", fmt.Sprint(i)))
	}
	for range 100 {
		c.want(fbp.NetworkData, "")
	}
	c.ask(fbp.StopTrace{Graph: "g"}, "")
	c.want(fbp.TraceStop, "")
	s.h.flow("g", between("b", "0"))
	c.want(fbp.NetworkData, "")
	dump := func() (file struct {
		Header struct {
			Metadata struct{ Label, Start, End string }
			Graphs   map[string]json.RawMessage
			Main     string
		}
		Events []struct {
			Protocol, Command, Graph, Time string
			Payload                        struct {
				Src, Tgt map[string]string
				Data     int
			}
		}
	},
	) {
		c.ask(fbp.DumpTrace{Graph: "g", Type: fbp.FlowtraceJSON}, "")
		p, err := c.want(fbp.TraceDump, "").Parse()
		if err == nil {
			err = json.Unmarshal([]byte(p.(fbp.Flowtrace).Trace), &file)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := dump()
	if file.Header.Main != "g" || file.Header.Graphs["g"] == nil || file.Header.Metadata.Start == "" || file.Header.Metadata.End == "" {
		t.Errorf("the header is %+v", file.Header)
	}
	n := len(file.Events)
	if n < 3 || n > 20 {
		t.Fatalf("%d events in 2000 bytes", n)
	}
	for i, e := range file.Events {
		if e.Protocol != "network" || e.Command != "data" || e.Graph != "g" || e.Time == "" || e.Payload.Tgt["node"] != "c" ||
			e.Payload.Src["port"] != "out" || e.Payload.Data != 100-n+i {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	c.ask(fbp.ClearTrace{Graph: "g"}, "")
	c.want(fbp.TraceClear, "")
	if left := dump().Events; len(left) != 0 {
		t.Errorf("%d events after it was cleared", len(left))
	}
	c.none()
}
