package fbptest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/forwarding/fbp"
)

// testCase is one of fbp-test's, after the first, which is the connection itself.
type testCase struct {
	name  string
	steps []step
}

type step func(context.Context, *player) error

// cases are fbp-test's, in its order. One name is one sentence that a runtime keeps.
func cases(collection string) []testCase {
	to := func(k fbp.Kind, payload string) step {
		payload = strings.ReplaceAll(payload, "core/", collection+"/")
		return func(ctx context.Context, p *player) error { return p.send(ctx, k, json.RawMessage(payload)) }
	}
	from := func(k fbp.Kind, payload string) step {
		payload = strings.ReplaceAll(payload, "core/", collection+"/")
		return func(ctx context.Context, p *player) error { return p.expect(ctx, k, json.RawMessage(payload)) }
	}
	// echoed is answered with itself.
	echoed := func(k fbp.Kind, payload string) []step { return []step{to(k, payload), from(k, payload)} }
	const (
		repeat1 = `{"id":"Repeat1","component":"core/Repeat","metadata":{"hello":"World"},"graph":"foo"}`
		drop1   = `{"id":"Drop1","component":"core/Drop","metadata":{},"graph":"foo"}`
		drop    = `{"id":"Drop1","metadata":%s,"graph":"foo"}`
	)
	changed := func(change, merged string) []step {
		return []step{to(fbp.GraphChangeNode, fmt.Sprintf(drop, change)), from(fbp.GraphChangeNode, fmt.Sprintf(drop, merged))}
	}
	return []testCase{
		{"the first answer is what the runtime is", []step{to(fbp.RuntimeGetRuntime, `{}`), introduced}},
		{"a graph and its nodes come back in order, without unknown keys", []step{
			to(fbp.GraphClear, `{"baseDir":"/somewhere","id":"foo","main":true,"name":"Foo graph"}`),
			from(fbp.GraphClear, `{"id":"foo","main":true,"name":"Foo graph"}`),
			to(fbp.GraphAddNode, repeat1), to(fbp.GraphAddNode, drop1),
			from(fbp.GraphAddNode, repeat1), from(fbp.GraphAddNode, drop1),
		}},
		{"an edge comes back with its metadata", echoed(fbp.GraphAddEdge,
			`{"src":{"node":"Repeat1","port":"out"},"tgt":{"node":"Drop1","port":"in"},"metadata":{"route":5},"graph":"foo"}`)},
		{"metadata is added to a node that has none", changed(`{"sort":1}`, `{"sort":1}`)},
		{"metadata is merged into what a node has", changed(`{"tag":"awesome"}`, `{"sort":1,"tag":"awesome"}`)},
		{"no metadata changes nothing", changed(`{}`, `{"sort":1,"tag":"awesome"}`)},
		{"null removes metadata", changed(`{"sort":null,"tag":null}`, `{}`)},
		{"an initial packet comes back with its data", echoed(fbp.GraphAddInitial,
			`{"src":{"data":"Hello, world!"},"tgt":{"node":"Repeat1","port":"in"},"metadata":{},"graph":"foo"}`)},
		{"a removed node takes its edges along, and they go first", []step{
			to(fbp.GraphRemoveNode, `{"id":"Drop1","graph":"foo"}`),
			from(fbp.GraphRemoveEdge, `{"src":{"node":"Repeat1","port":"out"},"tgt":{"node":"Drop1","port":"in"},"graph":"foo"}`),
			from(fbp.GraphRemoveNode, `{"id":"Drop1","graph":"foo"}`),
		}},
		{"a removed initial packet comes back with its data", []step{
			to(fbp.GraphRemoveInitial, `{"tgt":{"node":"Repeat1","port":"in"},"graph":"foo"}`),
			from(fbp.GraphRemoveInitial, `{"src":{"data":"Hello, world!"},"tgt":{"node":"Repeat1","port":"in"},"graph":"foo"}`),
		}},
		{"a node is renamed", echoed(fbp.GraphRenameNode, `{"from":"Repeat1","to":"RepeatRenamed","graph":"foo"}`)},
		{"a graph that there is none of is an error", []step{
			to(fbp.GraphAddNode, `{"id":"Repeat1","component":"core/Repeat","graph":"another-graph"}`),
			from(fbp.GraphError, `{"message":"Requested graph not found"}`),
		}},
		{"no graph is an error", []step{
			to(fbp.GraphAddNode, `{"id":"Repeat1","component":"core/Repeat"}`),
			from(fbp.GraphError, `{"message":"No graph specified"}`),
		}},
		{"an inport is exported", echoed(fbp.GraphAddInport, `{"public":"in","node":"RepeatRenamed","port":"in","graph":"foo"}`)},
		{"an outport is exported", echoed(fbp.GraphAddOutport, `{"public":"out","node":"RepeatRenamed","port":"out","graph":"foo"}`)},
		{"an exported outport is taken back", echoed(fbp.GraphRemoveOutport, `{"public":"out","graph":"foo"}`)},
		{"a started network shows its packets, without having been asked to", []step{
			to(fbp.GraphClear, `{"baseDir":"/somewhere","id":"bar","main":true}`),
			to(fbp.GraphAddNode, `{"id":"Hello","component":"core/Repeat","metadata":{},"graph":"bar"}`),
			to(fbp.GraphAddNode, `{"id":"World","component":"core/Drop","metadata":{},"graph":"bar"}`),
			to(fbp.GraphAddEdge, `{"src":{"node":"Hello","port":"out"},"tgt":{"node":"World","port":"in"},"graph":"bar"}`),
			to(fbp.GraphAddInitial, `{"src":{"data":"Hello, world!"},"tgt":{"node":"Hello","port":"in"},"graph":"bar"}`),
			fiveMessages,
			to(fbp.NetworkStart, `{"graph":"bar"}`),
			from(fbp.NetworkStarted, `{"graph":"bar","started":true}`),
			from(fbp.NetworkData, `{"id":"DATA -> IN Hello()","graph":"bar","tgt":{"node":"Hello","port":"in"},"data":"Hello, world!"}`),
			from(fbp.NetworkData, `{"id":"Hello() OUT -> IN World()","graph":"bar","src":{"node":"Hello","port":"out"},"tgt":{"node":"World","port":"in"},"data":"Hello, world!"}`),
		}},
		{"an idle network is started and not running", []step{
			to(fbp.NetworkGetStatus, `{"graph":"bar"}`), from(fbp.NetworkStatus, `{"graph":"bar","running":false,"started":true}`),
		}},
		{"a network is stopped", []step{
			to(fbp.NetworkStop, `{"graph":"bar"}`), from(fbp.NetworkStopped, `{"graph":"bar","running":false,"started":false}`),
		}},
		{"a stopped network is neither started nor running", []step{
			to(fbp.NetworkGetStatus, `{"graph":"bar"}`), from(fbp.NetworkStatus, `{"graph":"bar","running":false,"started":false}`),
		}},
		{"the list of components has what the suite is made of", []step{to(fbp.ComponentList, `{}`), listed(collection + "/Repeat")}},
	}
}

// introduced wants the very next message to be runtime:runtime, and the capabilities that the suite needs in it.
func introduced(ctx context.Context, p *player) error {
	got, err := p.next(ctx)
	if err != nil {
		return err
	}
	if got.kind != fbp.RuntimeRuntime {
		return fmt.Errorf("the first message is %s", got.kind)
	}
	for _, one := range []fbp.Capability{fbp.CapProtocolGraph, fbp.CapProtocolNetwork, fbp.CapProtocolComponent} {
		if !slices.Contains(p.capabilities, one) {
			err = errors.Join(err, fmt.Errorf("%s is not among the capabilities", one))
		}
	}
	return err
}

// fiveMessages is how the suite waits for a graph to be there: whatever they are.
func fiveMessages(ctx context.Context, p *player) error {
	for range 5 {
		if _, err := p.next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// listed wants a component of this name.
func listed(name string) step {
	return func(ctx context.Context, p *player) error {
		for {
			got, err := p.next(ctx)
			if err != nil {
				return fmt.Errorf("waiting for the component %s: %w", name, err)
			}
			if got.kind.IsError() {
				return fmt.Errorf("got %s", got)
			}
			if payload, ok := got.payload.(map[string]any); ok && got.kind == fbp.ComponentComponent && payload["name"] == name {
				return nil
			}
		}
	}
}
