package fbp_test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/flogate/flogate/forwarding/fbp"
)

func raw(text string) json.RawMessage { return json.RawMessage(text) }

func end(node, port string) fbp.Endpoint { return fbp.Endpoint{Node: node, Port: port} }

func at(node, port string, index fbp.Index) fbp.Endpoint {
	return fbp.Endpoint{Node: node, Port: port, Index: index}
}

// examples are payloads of every kind that goes both ways, with as much and as little in them as there may be.
func examples() []fbp.Payload {
	src, tgt := end("Repeat", "out"), end("Drop", "in")
	third := at("Mux", "in", fbp.At(2))
	named := at("Mux", "in", `"left"`)
	return []fbp.Payload{
		fbp.Packet{Graph: "main", Port: "in", Event: fbp.EventData, Type: "object", Schema: "https://example.net/a.json", Payload: raw(`{"z":1.0,"a":[1e400,null]}`)},
		fbp.Packet{Graph: "main", Port: "in", Event: fbp.EventData, Payload: raw(`null`)},
		fbp.Packet{Graph: "main", Port: "in", Event: fbp.EventConnect},
		fbp.ClearGraph{ID: "foo"},
		fbp.ClearGraph{ID: "foo", Name: "Foo graph", Library: "flogate", Main: true, Icon: "cog", Description: "all of it <&>"},
		fbp.AddNode{ID: "Repeat", Component: "core/Repeat", Metadata: fbp.Metadata(`{}`), Graph: "foo"},
		fbp.AddNode{ID: "Repeat", Component: "core/Repeat", Metadata: fbp.Metadata(`{"y":-36,"x":72,"label":"é \u2028","icon":null}`), Graph: "foo"},
		fbp.RemoveNode{ID: "Repeat", Graph: "foo"},
		fbp.RenameNode{From: "Repeat", To: "Again", Graph: "foo"},
		fbp.ChangeNode{ID: "Repeat", Metadata: fbp.Metadata(`{"sort":1,"tag":null}`), Graph: "foo"},
		fbp.ChangeNode{ID: "Repeat", Metadata: fbp.Metadata(`{}`), Graph: "foo"},
		fbp.AddEdge{Src: src, Tgt: tgt, Graph: "foo"},
		fbp.AddEdge{Src: named, Tgt: third, Metadata: fbp.Metadata(`{"route":5,"schema":"https://example.net/b","secure":true}`), Graph: "foo"},
		fbp.RemoveEdge{Src: src, Tgt: third, Graph: "foo"},
		fbp.ChangeEdge{Src: src, Tgt: tgt, Metadata: fbp.Metadata(`{"route":5}`), Graph: "foo"},
		fbp.AddInitial{Src: fbp.Initial{Data: raw(`"Hello, world!"`)}, Tgt: tgt, Metadata: fbp.Metadata(`{}`), Graph: "foo"},
		fbp.AddInitial{Src: fbp.Initial{Data: raw(`null`)}, Tgt: third, Metadata: fbp.Metadata(`{"route":1}`), Graph: "foo"},
		fbp.AddInitial{Src: fbp.Initial{Data: raw(`{"b":12345678901234567890.10,"a":"<\u0041>"}`)}, Tgt: tgt, Graph: "foo"},
		fbp.RemoveInitial{Tgt: tgt, Graph: "foo"},
		fbp.RemoveInitial{Src: &fbp.Initial{Data: raw(`[1,2]`)}, Tgt: third, Graph: "foo"},
		fbp.AddInport{Public: "in", Node: "Repeat", Port: "in", Graph: "foo"},
		fbp.AddInport{Public: "in", Node: "Repeat", Port: "in", Metadata: fbp.Metadata(`{"x":0,"y":0}`), Graph: "foo"},
		fbp.RemoveInport{Public: "in", Graph: "foo"},
		fbp.RenameInport{From: "in", To: "input", Graph: "foo"},
		fbp.AddOutport{Public: "out", Node: "Repeat", Port: "out", Graph: "foo"},
		fbp.RemoveOutport{Public: "out", Graph: "foo"},
		fbp.RenameOutport{From: "out", To: "output", Graph: "foo"},
		fbp.AddGroup{Name: "both", Nodes: []string{"Repeat", "Drop"}, Metadata: fbp.Metadata(`{"description":"two"}`), Graph: "foo"},
		fbp.AddGroup{Name: "none", Nodes: []string{}, Graph: "foo"},
		fbp.RemoveGroup{Name: "both", Graph: "foo"},
		fbp.RenameGroup{From: "both", To: "pair", Graph: "foo"},
		fbp.ChangeGroup{Name: "both", Metadata: fbp.Metadata(`{"description":"the two"}`), Graph: "foo"},
		fbp.Source{Name: "Repeat", Language: "javascript", Library: "core", Code: "exports.x = '<';\n", Tests: "it()"},
		fbp.Source{Name: "main", Language: "json"},
		fbp.Persist{},
		fbp.Debug{Enable: true, Graph: "foo"},
		fbp.SelectEdges{Graph: "foo", Edges: []fbp.EdgeEnds{{Src: src, Tgt: third}, {Src: named, Tgt: tgt}}},
		fbp.SelectEdges{Graph: "foo", Edges: []fbp.EdgeEnds{}},
		fbp.StartTrace{Graph: "foo"},
		fbp.StartTrace{Graph: "foo", BufferSize: 1 << 20},
		fbp.StopTrace{Graph: "foo"},
		fbp.ClearTrace{Graph: "foo"},
	}
}

func inputExamples() []fbp.Payload {
	return append(examples(),
		fbp.GetRuntime{},
		fbp.ListComponents{},
		fbp.GetSource{Name: "core/Repeat"},
		fbp.StartNetwork{Graph: "foo"},
		fbp.StopNetwork{Graph: "foo"},
		fbp.GetStatus{Graph: "foo"},
		fbp.DumpTrace{Graph: "foo", Type: fbp.FlowtraceJSON},
	)
}

func outputExamples() []fbp.Payload {
	src, tgt := end("Hello", "out"), at("World", "in", fbp.At(0))
	noon := time.Date(2026, 11, 22, 12, 0, 0, 230e6, time.UTC)
	ports := []fbp.Port{
		{ID: "in", Type: "all"},
		{
			ID: "mode", Type: "string", Schema: "https://example.net/mode.json", Required: true, Addressable: true,
			Description: "how", Values: []json.RawMessage{raw(`"a"`), raw(`1.0`)}, Default: raw(`"a"`),
		},
		{ID: "none", Type: "object", Values: []json.RawMessage{}, Default: raw(`null`)},
	}
	return append(examples(),
		fbp.Error{Protocol: "runtime", Message: "no"},
		fbp.Error{Protocol: "graph", Message: fbp.GraphNotFound, Stack: "at x"},
		fbp.Error{Protocol: "component", Message: "no"},
		fbp.Error{Protocol: "network", Message: "no", Stack: "at x", Graph: "foo"},
		fbp.Error{Protocol: "trace", Message: "no"},
		fbp.Runtime{Type: "flogate", Version: fbp.Version, Capabilities: fbp.Capabilities{}},
		fbp.Runtime{
			Type: "flogate", Version: fbp.Version, ID: "f18a4924-9d4f-414d-a37c-cd24b39bba10", Label: "the hall",
			Namespace: "flogate", Graph: "flogate/main", AllCapabilities: fbp.AllCapabilities(),
			Capabilities: fbp.Capabilities{fbp.CapGraphReadonly}, Repository: "https://example.net/hall.git", RepositoryVersion: "1-g90edcfc",
		},
		fbp.Ports{Graph: "foo", InPorts: []fbp.Port{}, OutPorts: ports},
		fbp.PacketSent{Graph: "main", Port: "in", Event: fbp.EventBeginGroup, Payload: raw(`"outer"`)},
		fbp.Component{Name: "core/Repeat", InPorts: ports, OutPorts: []fbp.Port{}},
		fbp.Component{Name: "flogate/main", Description: "all\nof it", Icon: "cog", Subgraph: true, InPorts: []fbp.Port{}, OutPorts: ports},
		fbp.ComponentsReady(0),
		fbp.ComponentsReady(18),
		fbp.Started{Graph: "foo", Time: noon, Started: true, Running: true, Debug: true},
		fbp.Started{Graph: "foo", Started: true},
		fbp.Stopped{Graph: "foo", Time: noon, Uptime: 11.5},
		fbp.Stopped{Graph: "foo"},
		fbp.Status{Graph: "foo", Started: true},
		fbp.Status{Graph: "foo", Started: true, Running: true, Uptime: 3, Debug: true},
		fbp.Printed{Message: "a line"},
		fbp.Printed{Message: "a picture", Type: "previewurl", URL: "https://example.net/a.png"},
		fbp.ProcessError{ID: "Hello", Error: "it is gone", Graph: "foo"},
		fbp.Icon{ID: "Hello", Icon: "cog", Graph: "foo"},
		fbp.Connect{ID: fbp.EdgeLine(&src, tgt), Src: &src, Tgt: tgt, Graph: "foo"},
		fbp.BeginGroup{ID: fbp.EdgeLine(&src, tgt), Src: &src, Tgt: tgt, Graph: "foo", Subgraph: []string{"a", "b"}, Group: "g"},
		fbp.Data{ID: fbp.EdgeLine(&src, tgt), Src: &src, Tgt: tgt, Graph: "foo", Subgraph: []string{"a"}, Data: raw(`{"b":1.50,"a":"</script>"}`)},
		fbp.Data{ID: fbp.EdgeLine(nil, tgt), Tgt: tgt, Graph: "foo", Data: raw(`null`)},
		fbp.EndGroup{ID: fbp.EdgeLine(nil, tgt), Tgt: tgt, Graph: "foo", Group: "g"},
		fbp.Disconnect{ID: fbp.EdgeLine(&src, tgt), Src: &src, Tgt: tgt, Graph: "foo"},
		fbp.Flowtrace{Graph: "foo", Type: fbp.FlowtraceJSON, Trace: `{"header":{}}`},
	)
}

// each calls check with every example and the message that it makes.
func eachInput(t interface{ Fatal(...any) }, check func(fbp.Payload, fbp.Input)) {
	for _, p := range inputExamples() {
		in, err := fbp.NewInput(p)
		if err != nil {
			t.Fatal(err)
		}
		check(p, in)
	}
}

func eachOutput(t interface{ Fatal(...any) }, check func(fbp.Payload, fbp.Output)) {
	for _, p := range outputExamples() {
		out, err := fbp.NewOutput(p)
		if err != nil {
			t.Fatal(err)
		}
		check(p, out)
	}
}

func lines(text []byte) []string { return strings.Split(strings.TrimSpace(string(text)), "\n") }
