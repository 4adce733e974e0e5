package fbptest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial serves one client by r for as long as the test runs.
func dial(t testing.TB, r *reference) fbptest.Conn {
	client, runtime := fbptest.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { r.serve(ctx, runtime) })
	t.Cleanup(func() {
		cancel()
		served.Wait()
	})
	return client
}

func TestReferencePassesTheSuite(t *testing.T) {
	for _, opts := range []fbptest.Options{{}, {Strict: true}, {Strict: true, Secret: "s"}} {
		fbptest.Run(t, func(t testing.TB) fbptest.Conn {
			r := newReference()
			r.secret = fbp.NewSecret(opts.Secret)
			return dial(t, r)
		}, opts)
	}
}

// TestRecordedNoFloPassesTheSuite: the cases send what fbp-test has sent, and take what it has taken.
func TestRecordedNoFloPassesTheSuite(t *testing.T) {
	recorded, err := fbptest.Load("testdata/noflo-nodejs.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	// noflo-nodejs sends what its capabilities do not allow: nothing, as this shows.
	for _, strict := range []bool{false, true} {
		client, runtime := fbptest.Pipe()
		var served sync.WaitGroup
		var failed error
		served.Go(func() { failed = fbptest.PlayRuntime(t.Context(), runtime, recorded) })
		fbptest.Run(t, func(testing.TB) fbptest.Conn { return client }, fbptest.Options{Secret: "noflo", Strict: strict})
		served.Wait()
		if failed != nil {
			t.Error(failed)
		}
	}
}

// cases as they are numbered by those who count the connection.
const (
	introduction = 2
	firstGraph   = 3
	edge         = 4
	addMetadata  = 5
	merging      = 6
	noChange     = 7
	nulls        = 8
	initial      = 9
	removeNode   = 10
	noInitial    = 11
	rename       = 12
	otherGraph   = 13
	noGraph      = 14
	inport       = 15
	outport      = 16
	noOutport    = 17
	start        = 18
	idle         = 19
	stop         = 20
	stopped      = 21
	list         = 22
)

// TestMutantsFailTheSuite: each does one thing wrong, and the case that is there for it is the first to say so.
func TestMutantsFailTheSuite(t *testing.T) {
	reorder := func(_ fbp.Input, answers [][]byte) [][]byte {
		slices.Reverse(answers)
		return answers
	}
	var held [][]byte
	mutants := map[string]struct {
		stock, strict int // the first case that fails of each suite; 0 is none
		faults        faults
	}{
		"says which ports it has before what it is": {introduction, introduction, faults{rewrite: reorder}},
		"does not know the deprecated capability":   {introduction, introduction, faults{rewrite: with(fbp.RuntimeRuntime, "capabilities", []string{"protocol:graph", "protocol:component", "network:status"})}},
		"says nothing":                                 {introduction, introduction, faults{rewrite: func(fbp.Input, [][]byte) [][]byte { return nil }}},
		"sends no JSON":                                {introduction, introduction, faults{rewrite: func(fbp.Input, [][]byte) [][]byte { return [][]byte{[]byte("no")} }}},
		"sends secrets back":                           {introduction, introduction, faults{rewrite: edit(fbp.RuntimeRuntime, func(m, _ map[string]any) map[string]any { m["secret"] = "s"; return m })}},
		"echoes unknown keys":                          {firstGraph, firstGraph, faults{rewrite: with(fbp.GraphClear, "baseDir", "/somewhere")}},
		"gives a graph another name":                   {firstGraph, firstGraph, faults{rewrite: with(fbp.GraphClear, "name", "foo")}},
		"loses metadata":                               {firstGraph, firstGraph, faults{rewrite: with(fbp.GraphAddNode, "metadata", map[string]any{})}},
		"leaves empty metadata out":                    {firstGraph, firstGraph, faults{rewrite: with(fbp.GraphAddNode, "metadata", nil)}},
		"answers twice, first with an error":           {firstGraph, firstGraph, faults{rewrite: failToo}},
		"forgets metadata of edges":                    {edge, edge, faults{parse: func(p fbp.Payload) fbp.Payload { return editAddEdge(p) }}},
		"does not change metadata":                     {addMetadata, addMetadata, faults{rewrite: with(fbp.GraphChangeNode, "metadata", map[string]any{})}},
		"replaces metadata":                            {merging, merging, faults{noMerge: true}},
		"keeps nulls":                                  {merging, merging, faults{keepsNull: true}},
		"does not answer a change of nothing":          {noChange, noChange, faults{rewrite: edit(fbp.GraphChangeNode, dropUnchanged())}},
		"does not remove metadata":                     {nulls, nulls, faults{parse: ignoreNulls}},
		"spells data its own way":                      {initial, initial, faults{rewrite: with(fbp.GraphAddInitial, "src", map[string]any{"data": `"Hello, world!"`})}},
		"removes edges without a word":                 {removeNode, removeNode, faults{rewrite: without(fbp.GraphRemoveEdge)}},
		"removes edges after their node":               {removeNode, removeNode, faults{rewrite: func(in fbp.Input, a [][]byte) [][]byte { return when(in, fbp.GraphRemoveNode, a, reorder) }}},
		"removes edges with metadata":                  {removeNode, removeNode, faults{rewrite: with(fbp.GraphRemoveEdge, "metadata", map[string]any{"route": 5})}},
		"removes initial packets without data":         {noInitial, noInitial, faults{rewrite: with(fbp.GraphRemoveInitial, "src", nil)}},
		"does not rename":                              {rename, rename, faults{rewrite: without(fbp.GraphRenameNode)}},
		"adds to any graph":                            {otherGraph, otherGraph, faults{anyGraph: true}},
		"says graph not found in its own words":        {otherGraph, otherGraph, faults{rewrite: with(fbp.GraphError, "message", "graph not found")}},
		"adds without a graph":                         {noGraph, noGraph, faults{rewrite: changeError(fbp.NoGraph, "")}},
		"says no graph in its own words":               {noGraph, noGraph, faults{rewrite: changeError(fbp.NoGraph, "payload.graph is missing")}},
		"makes up metadata of inports":                 {inport, inport, faults{rewrite: with(fbp.GraphAddInport, "metadata", map[string]any{})}},
		"makes up metadata of outports":                {outport, outport, faults{rewrite: with(fbp.GraphAddOutport, "metadata", map[string]any{})}},
		"does not take ports back":                     {noOutport, noOutport, faults{rewrite: without(fbp.GraphRemoveOutport)}},
		"shows packets only of selected edges":         {start, start, faults{selectFirst: true}},
		"says of what type data is":                    {start, start, faults{rewrite: with(fbp.NetworkData, "type", "string")}},
		"has its own ids for edges":                    {start, start, faults{rewrite: with(fbp.NetworkData, "id", "Hello OUT -> IN World")}},
		"has a source for initial packets":             {start, start, faults{rewrite: with(fbp.NetworkData, "src", map[string]any{"node": "Hello", "port": "out"})}},
		"does not say that it has started":             {start, start, faults{rewrite: without(fbp.NetworkStarted)}},
		"starts, and says it has not":                  {start, start, faults{rewrite: with(fbp.NetworkStarted, "started", false)}},
		"is always at work":                            {idle, idle, faults{staysBusy: true}},
		"tells its uptime where nobody asked":          {idle, idle, faults{rewrite: with(fbp.NetworkStatus, "uptime", 1)}},
		"stops without a word":                         {stop, stop, faults{rewrite: without(fbp.NetworkStopped)}},
		"stops, and says it has not":                   {stop, stop, faults{rewrite: with(fbp.NetworkStopped, "started", true)}},
		"stays started":                                {stopped, stopped, faults{staysStarted: true}},
		"has other components":                         {list, list, faults{rewrite: with(fbp.ComponentComponent, "name", "flogate/Repeat")}},
		"has none":                                     {list, list, faults{rewrite: without(fbp.ComponentComponent)}},
		"fails to list":                                {list, list, faults{rewrite: func(in fbp.Input, a [][]byte) [][]byte { return fail(in, fbp.ComponentList, a) }}},
		"lets a node's answer overtake the one before": {firstGraph, firstGraph, faults{rewrite: overtake(&held)}},
		"hides a secret in payloads":                   {0, introduction, faults{rewrite: with(fbp.RuntimeRuntime, "secret", "s")}},
		"has keys of its own":                          {0, introduction, faults{rewrite: edit(fbp.RuntimeRuntime, func(m, _ map[string]any) map[string]any { m["id"] = 1; return m })}},
		"sends what the client may not have":           {0, firstGraph, faults{rewrite: with(fbp.RuntimeRuntime, "capabilities", []string{"protocol:graph", "protocol:network", "protocol:component"})}},
		"has ports without a type":                     {0, list, faults{rewrite: with(fbp.ComponentComponent, "inPorts", []any{map[string]any{"id": "in"}})}},
		"says the time as it likes":                    {0, start, faults{rewrite: with(fbp.NetworkStarted, "time", "5a.m.")}},
	}
	for name, mutant := range mutants {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // mutants are silent for hours altogether
				for _, strict := range []bool{false, true} {
					held = nil
					r := newReference()
					r.faults = mutant.faults
					open := func(context.Context) (fbptest.Conn, error) { return dial(t, r), nil }
					first := 0
					for i, v := range fbptest.Examine(t.Context(), open, fbptest.Options{Strict: strict}) {
						if v.Err != nil {
							first = i + 1
							t.Logf("%d. %s: %v", first, v.Case, v.Err)
							break
						}
					}
					want := mutant.stock
					if strict {
						want = mutant.strict
					}
					if first != want {
						t.Errorf("strict %t: case %d is the first to fail, want %d", strict, first, want)
					}
				}
			})
		})
	}
}

func editAddEdge(p fbp.Payload) fbp.Payload {
	if e, ok := p.(fbp.AddEdge); ok {
		e.Metadata = nil
		return e
	}
	return p
}

func ignoreNulls(p fbp.Payload) fbp.Payload {
	if c, ok := p.(fbp.ChangeNode); ok && bytes.Contains(c.Metadata, []byte("null")) {
		c.Metadata = nil
		return c
	}
	return p
}

func dropUnchanged() func(_, _ map[string]any) map[string]any {
	last := ""
	return func(message, payload map[string]any) map[string]any {
		text, _ := json.Marshal(payload)
		if last == string(text) {
			return nil
		}
		last = string(text)
		return message
	}
}

// when applies a rewrite to the answers of one kind of request.
func when(in fbp.Input, k fbp.Kind, answers [][]byte, rewrite func(fbp.Input, [][]byte) [][]byte) [][]byte {
	if in.Kind == k {
		return rewrite(in, answers)
	}
	return answers
}

func fail(in fbp.Input, k fbp.Kind, answers [][]byte) [][]byte {
	if in.Kind == k {
		return [][]byte{in.Fail(errors.New("no")).Append(nil)}
	}
	return answers
}

// failToo fails a clear before it does it.
func failToo(in fbp.Input, answers [][]byte) [][]byte {
	if in.Kind == fbp.GraphClear {
		return append([][]byte{in.Fail(io.EOF).Append(nil)}, answers...)
	}
	return answers
}

// changeError changes an error's message, or leaves it out.
func changeError(from, to string) func(fbp.Input, [][]byte) [][]byte {
	return edit(fbp.GraphError, func(message, payload map[string]any) map[string]any {
		if payload["message"] != from {
			return message
		}
		if to == "" {
			return nil
		}
		payload["message"] = to
		return message
	})
}

// overtake holds the first answer to an addnode back until the second one is out.
func overtake(held *[][]byte) func(fbp.Input, [][]byte) [][]byte {
	return func(in fbp.Input, answers [][]byte) [][]byte {
		if in.Kind != fbp.GraphAddNode {
			return answers
		}
		if *held == nil {
			*held = answers
			return nil
		}
		answers, *held = append(answers, *held...), nil
		return answers
	}
}

func TestSilentRuntimeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := fbptest.Pipe()
		began := time.Now()
		verdicts := fbptest.Examine(t.Context(), func(context.Context) (fbptest.Conn, error) { return client, nil }, fbptest.Options{})
		if len(verdicts) != 22 || verdicts[0].Err != nil || verdicts[21].Err == nil {
			t.Errorf("verdicts %v", verdicts)
		}
		if took := time.Since(began); took != 21*2*time.Second {
			t.Errorf("took %v", took)
		}
		if err := verdicts[1].Err; !strings.Contains(err.Error(), "nothing more came for 2s") {
			t.Error(err)
		}
	})
}

func TestNoConnectionFailsEveryCase(t *testing.T) {
	open := func(context.Context) (fbptest.Conn, error) { return nil, errors.New("refused") }
	for _, v := range fbptest.Examine(t.Context(), open, fbptest.Options{}) {
		if v.Err == nil {
			t.Errorf("%s without a connection", v.Case)
		}
	}
}

// TestRecordedExchangePlaysAgain: record the suite, write it, read it, and play it exactly.
func TestRecordedExchangePlaysAgain(t *testing.T) {
	var text bytes.Buffer
	r := newReference()
	r.secret = fbp.NewSecret("c4n4ry")
	recorder := fbptest.Record(dial(t, r))
	opts := fbptest.Options{Secret: "c4n4ry"}
	fbptest.Run(t, func(testing.TB) fbptest.Conn { return recorder }, opts)
	if err := recorder.Transcript().Write(&text); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "c4n4ry") {
		t.Errorf("the secret was written down:\n%s", text.String())
	}
	transcript, err := fbptest.Read(&text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recorder.Transcript(), transcript); diff != "" {
		t.Error(diff)
	}
	again := newReference()
	again.secret = r.secret
	opts.Exact = true
	if err := fbptest.Play(t.Context(), dial(t, again), transcript, opts); err != nil {
		t.Error(err)
	}
}

func TestPlayNamesTheLineThatIsWrong(t *testing.T) {
	transcript := func(lines ...string) fbptest.Transcript {
		all, err := fbptest.Read(strings.NewReader(strings.Join(lines, "\n")))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	const (
		clear   = `{"dir":"->","msg":{"protocol":"graph","command":"clear","payload":{"id":"a"}}}`
		cleared = `{"dir":"<-","msg":{"protocol":"graph","command":"clear","payload":{"id":"a"}}}`
		named   = `{"dir":"<-","msg":{"protocol":"graph","command":"clear","payload":{"id":"a","name":"b"}}}`
		ports   = `{"dir":"<-","msg":{"protocol":"runtime","command":"ports","payload":{"graph":"a","inPorts":[],"outPorts":[]}}}`
		start   = `{"dir":"->","msg":{"protocol":"network","command":"start","payload":{"graph":"a"}}}`
		started = `{"dir":"<-","msg":{"protocol":"network","command":"started","payload":{"graph":"a","started":true,"time":"noon","running":false}}}`
		nowhere = `{"dir":"->","msg":{"protocol":"network","command":"start","payload":{"graph":"b"}}}`
	)
	for _, c := range []struct {
		transcript fbptest.Transcript
		opts       fbptest.Options
		want       string // in the error
	}{
		{transcript(clear, cleared, ports), fbptest.Options{Exact: true}, ""},
		{transcript(clear, cleared, start, started), fbptest.Options{}, ""},
		{transcript(clear, cleared, start, started), fbptest.Options{Exact: true}, "line 4: waiting for network:started: got "},
		{transcript(clear, named), fbptest.Options{}, "line 2: graph:clear\n got "},
		{transcript(clear, named), fbptest.Options{Ignore: map[fbp.Kind][]string{fbp.GraphClear: {"name"}}}, ""},
		{transcript(clear, cleared, nowhere, started), fbptest.Options{}, "line 4: waiting for network:started: got "},
		{transcript(clear, cleared, cleared), fbptest.Options{}, "line 3: waiting for graph:clear: nothing more came"},
	} {
		synctest.Test(t, func(t *testing.T) {
			err := fbptest.Play(t.Context(), dial(t, newReference()), c.transcript, c.opts)
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPlayRuntimeWantsWhatWasAsked(t *testing.T) {
	transcript := fbptest.Transcript{
		{Direction: fbptest.ToRuntime, Message: json.RawMessage(`{"protocol":"graph","command":"clear","payload":{"id":"a","main":true}}`)},
		{Direction: fbptest.ToClient, Message: json.RawMessage(`{"protocol":"graph","command":"clear","payload":{"id":"a","main":true}}`)},
	}
	for request, want := range map[string]string{
		`{"protocol":"graph","command":"clear","payload":{"main":true,"id":"a","secret":"s"},"secret":"s","requestId":"7"}`: "",
		`{"protocol":"graph","command":"clear","payload":{"id":"b","main":true}}`:                                           "line 1: asked graph:clear ",
		`{"protocol":"graph","command":"removenode","payload":{"id":"a","main":true}}`:                                      "line 1: asked graph:removenode ",
		`no`: "line 1: this request: not valid JSON",
	} {
		client, runtime := fbptest.Pipe()
		if err := client.Send(t.Context(), []byte(request)); err != nil {
			t.Fatal(err)
		}
		err := fbptest.PlayRuntime(t.Context(), runtime, transcript)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", request, err, want)
		}
	}
}

func TestTranscriptsThatAreNoneAreRefused(t *testing.T) {
	for _, text := range []string{"no", `{"dir":"up","msg":{}}`, `{"dir":"->"}`, `[]`} {
		if got, err := fbptest.Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s was read as %v", text, got)
		}
	}
	if _, err := fbptest.Load("testdata/none"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestPipeIsReadToItsEnd(t *testing.T) {
	client, runtime := fbptest.Pipe()
	message := []byte("first")
	if err := client.Send(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	message[0] = 'F' // the sender's own
	if err := runtime.Close(); err != nil {
		t.Fatal(err)
	}
	if err := client.Send(t.Context(), message); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if got, err := runtime.Receive(t.Context()); err != nil || string(got) != "first" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := runtime.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

func TestFullPipeWaitsForTheOtherEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, runtime := fbptest.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sent := 0
		for client.Send(ctx, nil) == nil {
			sent++
		}
		if sent != 1024 || ctx.Err() == nil {
			t.Errorf("%d messages", sent)
		}
		if _, err := client.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		var blocked sync.WaitGroup
		blocked.Go(func() {
			if err := client.Send(t.Context(), nil); !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
		})
		synctest.Wait()
		_ = runtime.Close()
		blocked.Wait()
	})
}
