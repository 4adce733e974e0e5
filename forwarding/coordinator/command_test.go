package coordinator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// asked is one request and all that comes of it, in that order. The first word of a line is the kind.
type exchange struct {
	ask     string
	answers []string
}

// play plays exchanges, with and without an id: the last message that answers has it, and only that.
func (c *client) play(exchanges ...exchange) {
	c.t.Helper()
	for _, e := range exchanges {
		kind, payload, _ := strings.Cut(e.ask, " ")
		in := fbp.Input{Kind: fbp.Kind(kind), Payload: []byte(payload), Secret: c.secret, ID: "id of " + kind}
		c.write(string(in.Append(nil)))
		answered := false
		for _, want := range e.answers {
			wanted, payload, _ := strings.Cut(want, " ")
			final := strings.HasPrefix(wanted, "*")
			got := c.next()
			if got.Kind != fbp.Kind(strings.TrimPrefix(wanted, "*")) || payload != "" && !same(got.Payload, payload) {
				c.t.Fatalf("%s\n got %s %s\nwant %s", e.ask, got.Kind, got.Payload, want)
			}
			if answers := got.ResponseTo == in.ID; answers != final {
				c.t.Errorf("%s: %s has responseTo %q", e.ask, want, got.ResponseTo)
			}
			answered = answered || final
		}
		if !answered {
			c.t.Fatalf("%s: the test has no answer to it", e.ask)
		}
	}
	c.none()
}

func TestCommandsAreAnsweredAsTheProtocolWantsThem(t *testing.T) {
	s := newSite(t)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime) // so that ports do not come in between
	s.run()
	s.dial("").play(
		exchange{`graph:clear {"id":"g","name":"G","main":true,"library":"l","icon":"i","description":"d","baseDir":"/x"}`, []string{
			`*graph:clear {"id":"g","name":"G","main":true,"library":"l","icon":"i","description":"d"}`,
		}},
		exchange{`graph:addnode {"id":"a","component":"core/Repeat","graph":"g"}`, []string{
			`*graph:addnode {"id":"a","component":"core/Repeat","metadata":{},"graph":"g"}`,
		}},
		exchange{`graph:addnode {"id":"b","component":"not/There","metadata":{"x":1.4},"graph":"flogate/g"}`, []string{
			`*graph:addnode {"id":"b","component":"not/There","metadata":{"x":1},"graph":"g"}`,
		}},
		exchange{`graph:addnode {"id":"b","component":"core/Drop","graph":"g"}`, []string{
			`*graph:error {"message":"node \"b\": already in the graph"}`,
		}},
		exchange{`graph:changenode {"id":"b","metadata":{"label":"B","x":null},"graph":"g"}`, []string{
			`*graph:changenode {"id":"b","metadata":{"label":"B"},"graph":"g"}`,
		}},
		exchange{`graph:changenode {"id":"b","metadata":{},"graph":"g"}`, []string{
			`*graph:changenode {"id":"b","metadata":{"label":"B"},"graph":"g"}`,
		}},
		exchange{`graph:addedge {"src":{"node":"a","port":"OUT"},"tgt":{"node":"b","port":"in","index":0},"graph":"g"}`, []string{
			`*graph:addedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":0},"graph":"g"}`,
		}},
		exchange{`graph:addedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":1},"metadata":{},"graph":"g"}`, []string{
			`*graph:addedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":1},"metadata":{},"graph":"g"}`,
		}},
		exchange{`graph:changeedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"},"metadata":{"route":3},"graph":"g"}`, []string{
			`graph:changeedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":0},"metadata":{"route":3},"graph":"g"}`,
			`*graph:changeedge {"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in","index":1},"metadata":{"route":3},"graph":"g"}`,
		}},
		exchange{`graph:addinitial {"src":{"data":{"a":"<1>","n":12345678901234567890}},"tgt":{"node":"b","port":"in"},"graph":"g"}`, []string{
			`*graph:addinitial {"src":{"data":{"a":"<1>","n":12345678901234567890}},"tgt":{"node":"b","port":"in"},"graph":"g"}`,
		}},
		exchange{`graph:addinport {"public":"in","node":"a","port":"in","graph":"g"}`, []string{
			`*graph:addinport {"public":"in","node":"a","port":"in","graph":"g"}`,
		}},
		exchange{`graph:addoutport {"public":"out","node":"b","port":"out","metadata":{"x":1},"graph":"g"}`, []string{
			`*graph:addoutport {"public":"out","node":"b","port":"out","metadata":{"x":1},"graph":"g"}`,
		}},
		exchange{`graph:renameoutport {"from":"out","to":"result","graph":"g"}`, []string{
			`*graph:renameoutport {"from":"out","to":"result","graph":"g"}`,
		}},
		exchange{`graph:addgroup {"name":"both","nodes":["a","b"],"metadata":{"description":"d"},"graph":"g"}`, []string{
			`*graph:addgroup {"name":"both","nodes":["a","b"],"metadata":{"description":"d"},"graph":"g"}`,
		}},
		exchange{`graph:changegroup {"name":"both","metadata":{"description":null,"k":1},"graph":"g"}`, []string{
			`*graph:changegroup {"name":"both","metadata":{"k":1},"graph":"g"}`,
		}},
		exchange{`graph:renamegroup {"from":"both","to":"pair","graph":"g"}`, []string{
			`*graph:renamegroup {"from":"both","to":"pair","graph":"g"}`,
		}},
		exchange{`graph:removeinitial {"tgt":{"node":"b","port":"in"},"graph":"g"}`, []string{
			`*graph:removeinitial {"src":{"data":{"a":"<1>","n":12345678901234567890}},"tgt":{"node":"b","port":"in"},"graph":"g"}`,
		}},
		exchange{`graph:removeinitial {"tgt":{"node":"b","port":"in"},"graph":"g"}`, []string{
			`*graph:error {"message":"initial packet for b.in: not in the graph"}`,
		}},
		exchange{`graph:renamenode {"from":"b","to":"c","graph":"g"}`, []string{
			`*graph:renamenode {"from":"b","to":"c","graph":"g"}`,
		}},
		exchange{`graph:addinitial {"src":{"data":null},"tgt":{"node":"c","port":"in"},"metadata":{},"graph":"g"}`, []string{
			`*graph:addinitial {"src":{"data":null},"tgt":{"node":"c","port":"in"},"metadata":{},"graph":"g"}`,
		}},
		exchange{`graph:removenode {"id":"c","graph":"g"}`, []string{
			`graph:removeedge {"src":{"node":"a","port":"out"},"tgt":{"node":"c","port":"in","index":0},"graph":"g"}`,
			`graph:removeedge {"src":{"node":"a","port":"out"},"tgt":{"node":"c","port":"in","index":1},"graph":"g"}`,
			`graph:removeinitial {"src":{"data":null},"tgt":{"node":"c","port":"in"},"graph":"g"}`,
			`graph:removeoutport {"public":"result","graph":"g"}`,
			`*graph:removenode {"id":"c","graph":"g"}`,
		}},
		exchange{`graph:removegroup {"name":"pair","graph":"g"}`, []string{`*graph:removegroup {"name":"pair","graph":"g"}`}},
		exchange{`graph:renameinport {"from":"in","to":"input","graph":"g"}`, []string{
			`*graph:renameinport {"from":"in","to":"input","graph":"g"}`,
		}},
		exchange{`graph:removeinport {"public":"input","graph":"g"}`, []string{`*graph:removeinport {"public":"input","graph":"g"}`}},
		exchange{`graph:removenode {"id":"a"}`, []string{`*graph:error {"message":"No graph specified"}`}},
		exchange{`graph:removenode {"id":"a","graph":""}`, []string{`*graph:error {"message":"No graph specified"}`}},
		exchange{`graph:removenode {"id":"a","graph":"nope"}`, []string{`*graph:error {"message":"Requested graph not found"}`}},
		exchange{`graph:list {}`, []string{`*graph:error {"message":"graph:list is not permitted"}`}},
		exchange{`graph:addnode {"id":1}`, []string{`*graph:error`}},
		exchange{`network:start {"graph":"g"}`, []string{`*network:started`}},
		exchange{`network:start {"graph":"g"}`, []string{`*network:started`}},
		exchange{`network:getstatus {"graph":"g"}`, []string{`*network:status {"graph":"g","started":true,"running":false}`}},
		exchange{`network:debug {"graph":"g","enable":true}`, []string{`*network:debug {"graph":"g","enable":true}`}},
		exchange{`network:getstatus {"graph":"g"}`, []string{`*network:status {"graph":"g","started":true,"running":false,"debug":true}`}},
		exchange{`network:stop {"graph":"g"}`, []string{`*network:stopped`}},
		exchange{`network:stop {"graph":"g"}`, []string{`*network:stopped`}},
		exchange{`network:start {"graph":"nope"}`, []string{`*network:error {"message":"Requested graph not found"}`}},
		exchange{`network:edges {"graph":"g","edges":[{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"}}],"secret":"x"}`, []string{
			`*network:edges {"graph":"g","edges":[{"src":{"node":"a","port":"out"},"tgt":{"node":"b","port":"in"}}]}`,
		}},
		exchange{`network:edges {"graph":"g","edges":[]}`, []string{`*network:edges {"graph":"g","edges":[]}`}},
		exchange{`network:persist {}`, []string{`*network:persist {}`}},
		exchange{`trace:dump {"graph":"g","type":"flowtrace.json"}`, []string{`*trace:error`}},
		exchange{`trace:start {"graph":"g","buffersize":100000}`, []string{`*trace:start {"graph":"g","buffersize":100000}`}},
		exchange{`trace:clear {"graph":"g"}`, []string{`*trace:clear {"graph":"g"}`}},
		exchange{`trace:stop {"graph":"g"}`, []string{`*trace:stop {"graph":"g"}`}},
		exchange{`component:list {}`, []string{
			`component:component`, `component:component`, `*component:componentsready 2`,
		}},
		exchange{`component:getsource {"name":"not/There"}`, []string{
			`*component:error {"message":"\"not/There\": there is no such component"}`,
		}},
		exchange{`component:source {"name":"New","library":"core","language":"python","code":"pass"}`, []string{
			`*component:component {"name":"core/New","subgraph":false,"inPorts":[{"id":"in","type":"all"}],"outPorts":[]}`,
		}},
		exchange{`component:getsource {"name":"core/New"}`, []string{
			`*component:source {"name":"New","library":"core","language":"python","code":"pass"}`,
		}},
	)
}

// without returns all capabilities but some.
func without(those ...fbp.Capability) (left fbp.Capabilities) {
	for _, one := range fbp.AllCapabilities() {
		if !slices.Contains(those, one) {
			left = append(left, one)
		}
	}
	return left
}

func TestPersistFailsWithItsReason(t *testing.T) {
	s := newSite(t).run()
	s.h.persistErr = errors.New("no space left")
	s.dial("").play(exchange{`network:persist {}`, []string{`*network:error {"message":"no space left"}`}})
}

func TestRuntimeSaysWhatItIsAndWhichPortsItExports(t *testing.T) {
	s := newSite(t)
	g := graph.New("")
	addAll(t, g, graph.AddNode{ID: "r", Component: "core/Repeat"}, graph.AddInport{Public: "in", Node: "r", Port: "in"},
		graph.AddOutport{Public: "what", Node: "r", Port: "ever"})
	s.h.main = "flogate/main"
	s.h.open("flogate/main", g, true)
	s.h.open("flogate/other", graph.New(""), false)
	c := s.run().dial("")
	is := c.open()
	if is.ID != runtimeID || is.Type != "flogate" || is.Version != "0.8" || is.Namespace != "flogate" || is.Graph != "flogate/main" ||
		is.Label != "hall" || len(is.Capabilities) != len(is.AllCapabilities) {
		t.Errorf("the runtime is %+v", is)
	}
	c.want(fbp.RuntimePorts, `{"graph":"flogate/main","inPorts":[{"id":"in","type":"string","description":"what it ins"}],`+
		`"outPorts":[{"id":"what","type":"all"}]}`)
	c.want(fbp.RuntimePorts, `{"graph":"flogate/other","inPorts":[],"outPorts":[]}`)

	c.ask(fbp.AddOutport{Public: "out", Node: "r", Port: "out", Graph: "flogate/other"}, "1")
	c.want(fbp.GraphError, "")
	c.ask(fbp.AddNode{ID: "r", Component: "core/Repeat", Graph: "flogate/other"}, "2")
	c.want(fbp.GraphAddNode, "")
	c.ask(fbp.AddOutport{Public: "out", Node: "r", Port: "out", Graph: "flogate/other"}, "3")
	c.want(fbp.GraphAddOutport, "")
	c.want(fbp.RuntimePorts, `{"graph":"flogate/other","inPorts":[],"outPorts":[{"id":"out","type":"string","description":"what it outs"}]}`)
	c.want(fbp.ComponentComponent, `{"name":"flogate/other","subgraph":true,"inPorts":[],`+
		`"outPorts":[{"id":"out","type":"string","description":"what it outs"}]}`)
}

func addAll(t testing.TB, g *graph.Graph, changes ...graph.Change) {
	t.Helper()
	for _, change := range changes {
		if _, _, err := graph.Apply(g, change); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPacketsGoInAndOutByExportedPorts(t *testing.T) {
	s := newSite(t)
	g := graph.New("")
	addAll(t, g, graph.AddNode{ID: "r", Component: "core/Repeat"}, graph.AddInport{Public: "in", Node: "r", Port: "in"})
	s.h.open("g", g, true)
	c := s.run().dial("")
	c.open()
	c.skipTo(fbp.RuntimePorts)
	c.play(
		exchange{`runtime:packet {"graph":"g","port":"IN","event":"data","payload":{"b":1,"a":"<"},"type":"object"}`, []string{
			`*runtime:packetsent {"graph":"g","port":"IN","event":"data","payload":{"b":1,"a":"<"}}`,
		}},
	)
	c.skipTo(fbp.RuntimePorts) // none asks for the runtime
	c.ask(fbp.Packet{Graph: "g", Port: "nope", Event: "data"}, "")
	c.want(fbp.RuntimeError, `{"message":"the graph exports no inport \"nope\""}`)
	c.ask(fbp.Packet{Graph: "g", Port: "in", Event: "begingroup", Payload: []byte(`"x"`)}, "")
	c.want(fbp.RuntimePacketSent, "")
	if want := `g in {"b":1,"a":"<"}`; len(s.h.sent) != 1 || s.h.sent[0] != want {
		t.Errorf("sent %q, want %q", s.h.sent, want)
	}
	s.c.PacketOut("g", "out", []byte("plain"))
	c.want(fbp.RuntimePacket, `{"graph":"g","port":"out","event":"data","payload":"plain"}`)
}

func TestSourceOfAGraphIsAsEditorsNeedIt(t *testing.T) {
	s := newSite(t)
	g, err := graph.ParseFBP("main.fbp", []byte("# @runtime msgflo\n'1' -> IN r(core/Repeat) OUT -> IN d(core/Drop)\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.h.open("flogate/main", g, true)
	s.h.open("bare", graph.New("a name"), false)
	c := s.run().dial("")
	for name, answered := range map[string][2]string{
		"flogate/main": {"main", "flogate/main"}, "main": {"main", "flogate/main"}, "bare": {"bare", "bare"}, "flogate/bare": {"bare", "bare"},
	} {
		c.ask(fbp.GetSource{Name: name}, "")
		p, err := c.want(fbp.ComponentSource, "").Parse()
		if err != nil {
			t.Fatal(err)
		}
		source := p.(fbp.Source)
		if source.Name != answered[0] || source.Library != "flogate" || source.Language != "json" {
			t.Errorf("%s: source of %s/%s in %s", name, source.Library, source.Name, source.Language)
		}
		back, err := graph.ParseJSON("", []byte(source.Code))
		if err != nil {
			t.Fatal(err)
		}
		if back.Name != answered[0] || back.Properties["runtimeName"] != answered[1] || back.Runtime() != "flogate" {
			t.Errorf("%s: name %q, properties %v", name, back.Name, back.Properties)
		}
		if answered[0] == "main" && (len(back.Nodes) != 2 || len(back.Edges) != 1 || len(back.Initials) != 1) {
			t.Errorf("%s: graph of %d nodes", name, len(back.Nodes))
		}
	}
	if now, _ := s.h.Graph("flogate/main"); now.Graph.Runtime() != "msgflo" {
		t.Error("the graph itself was changed")
	}
}

func TestEveryListedComponentHasASource(t *testing.T) {
	s := newSite(t)
	s.h.open("flogate/part", graph.New(""), false)
	s.h.open("flogate/main", graph.New(""), true)
	c := s.run().dial("")
	c.ask(fbp.ListComponents{}, "")
	var names []string
	for {
		p, err := c.next().Parse()
		if err != nil {
			t.Fatal(err)
		}
		if ready, ok := p.(fbp.ComponentsReady); ok {
			if int(ready) != len(names) {
				t.Errorf("%d components are ready, and %d were told", ready, len(names))
			}
			break
		}
		names = append(names, p.(fbp.Component).Name)
	}
	if got := strings.Join(names, " "); got != "core/Drop core/Repeat flogate/part" {
		t.Errorf("the components are %s", got)
	}
	for _, name := range names {
		c.ask(fbp.GetSource{Name: name}, "")
		source := c.want(fbp.ComponentSource, "")
		if name == "core/Repeat" {
			contains(t, source.Payload, `"language":"discovery"`, `"name":"Repeat"`, `"library":"core"`,
				`component: \"core/Repeat\"\n`, `label: \"repeats: \\\"it\\\"\"\n`, `inports:\n  - id: \"in\"\n    type: \"string\"\n`)
		}
	}
}

func TestSourceOfAGraphReplacesIt(t *testing.T) {
	s := newSite(t)
	g := graph.New("G")
	addAll(t, g, graph.AddNode{ID: "old", Component: "core/Drop"}, graph.AddNode{ID: "stays", Component: "core/Drop"})
	s.h.open("flogate/g", g, false)
	s.policy.Anonymous.Capabilities = without(fbp.CapProtocolRuntime)
	s.run()
	watcher := s.dial("")
	watcher.open()
	c := s.dial("")
	c.open()
	code := `{"properties":{"name":"g","runtimeName":"flogate/g","environment":{"type":"flogate"},"description":"new"},` +
		`"processes":{"stays":{"component":"core/Drop"},"new":{"component":"core/Drop"}}}`
	c.ask(fbp.Source{Name: "g", Library: "flogate", Language: "json", Code: code}, "1")
	c.want(fbp.GraphRemoveNode, `{"id":"old","graph":"flogate/g"}`)
	c.want(fbp.GraphAddNode, `{"id":"new","component":"core/Drop","metadata":{},"graph":"flogate/g"}`)
	if got := c.want(fbp.ComponentComponent, ""); got.ResponseTo != "1" {
		t.Errorf("the answer has responseTo %q", got.ResponseTo)
	}
	watcher.want(fbp.GraphRemoveNode, "")
	watcher.want(fbp.GraphAddNode, "")
	now, _ := s.h.Graph("flogate/g")
	if now.Graph.Name != "G" || now.Graph.Properties["description"] != "new" || len(now.Graph.Properties) != 1 {
		t.Errorf("the graph is %q with %v", now.Graph.Name, now.Graph.Properties)
	}

	c.ask(fbp.Source{Name: "fresh", Library: "flogate", Language: "fbp", Code: "a(core/Drop)"}, "2")
	c.want(fbp.GraphClear, `{"id":"flogate/fresh"}`)
	c.want(fbp.ComponentComponent, "")
	c.want(fbp.GraphAddNode, "")
	if got := c.want(fbp.ComponentComponent, ""); got.ResponseTo != "2" {
		t.Errorf("the answer has responseTo %q", got.ResponseTo)
	}
	c.ask(fbp.Source{Name: "fresh", Library: "flogate", Language: "fbp", Code: "a(core/Drop"}, "3")
	c.want(fbp.ComponentError, "")
	c.ask(fbp.Source{Name: "fresh", Library: "flogate", Language: "python", Code: "pass"}, "4")
	c.want(fbp.ComponentError, "")
	c.none()
}

func TestSourcesOfGraphsNeedLeaveToEditThem(t *testing.T) {
	s := newSite(t)
	s.policy.Anonymous = forwarding.Access{Capabilities: fbp.Capabilities{fbp.CapComponentSetSource}}
	c := s.run().dial("")
	c.ask(fbp.Source{Name: "g", Language: "json", Code: "{}"}, "")
	c.want(fbp.ComponentError, `{"message":"component:source is not permitted"}`)
}
