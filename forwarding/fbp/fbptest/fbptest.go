// Package fbptest says whether a runtime speaks the FBP protocol as clients expect it, and plays and records exchanges.
// It is not for carrying messages over a network: a runtime is a [Conn] here, and [Pipe] makes one in memory.
//
//   - [Run] and [Examine] have the 22 cases of the fbp-protocol project's own suite, fbp-test, and compare as it does. With
//     Strict they also mind what that suite means to and does not: schemas, capabilities, secrets.
//   - [Play] plays the client's part of a [Transcript] and compares what the runtime says; [PlayRuntime] plays the other
//     part, for what is itself a client. [Record] writes one.
//
// Nothing in the program uses it yet. The test of a runtime will look like this:
//
//	func TestRuntimePassesTheSuite(t *testing.T) {
//		for _, strict := range []bool{false, true} {
//			fbptest.Run(t, func(t testing.TB) fbptest.Conn { return dial(t) }, fbptest.Options{Strict: strict})
//		}
//	}
package fbptest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/flogate/flogate/forwarding/fbp"
)

// Conn is a client's connection to a runtime, or a runtime's to a client: whole messages, in order. Both methods block
// until ctx is done. Send may be called while Receive blocks.
type Conn interface {
	Send(ctx context.Context, message []byte) error
	Receive(ctx context.Context) ([]byte, error)
}

// Options say how a runtime is spoken to and what is expected of it. The zero Options are fbp-test's.
type Options struct {
	// Secret goes with every request, in both places. A Transcript's own are not sent.
	Secret string
	// Collection is the library of the components Repeat and Drop; "" is "core".
	Collection string
	// Timeout bounds each case and each message of a transcript; 0 is two seconds, as in fbp-test for most cases.
	Timeout time.Duration
	// Strict wants every message to be valid by the schemas, within the capabilities that the runtime has announced, and
	// without a secret.
	Strict bool
	// Exact wants a transcript's messages and no others. Without it, messages in between are passed over, but for errors.
	Exact bool
	// Ignore has keys of payloads that are not compared, beside the ones that fbp-test ignores: an id, a version.
	Ignore map[fbp.Kind][]string
}

func (o Options) withDefaults() Options {
	if o.Collection == "" {
		o.Collection = "core"
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	return o
}

// Verdict is what became of a case. Err is nil if the runtime has passed.
type Verdict struct {
	Case string
	Err  error
}

// Run examines a runtime, each case a subtest. open connects to a runtime that has just been started; it is called once.
func Run(t *testing.T, open func(testing.TB) Conn, opts Options) {
	t.Helper()
	for _, v := range Examine(t.Context(), func(context.Context) (Conn, error) { return open(t), nil }, opts) {
		t.Run(v.Case, func(t *testing.T) {
			if v.Err != nil {
				t.Error(v.Err)
			}
		})
	}
}

// Examine plays all cases on one connection and returns the verdict on each. Later cases build on what earlier ones have
// left, and are played whatever became of those. It blocks until the last one is done; ctx ends it early, with verdicts
// that say so. It is not for concurrent use on one connection.
func Examine(ctx context.Context, open func(context.Context) (Conn, error), opts Options) []Verdict {
	opts = opts.withDefaults()
	const connecting = "a client can connect"
	conn, err := open(ctx)
	all := []Verdict{{Case: connecting, Err: err}}
	p := &player{conn: conn, opts: opts}
	for _, c := range cases(opts.Collection) {
		verdict := Verdict{Case: c.name, Err: errors.New("there is no connection")}
		if err == nil {
			verdict.Err = p.examine(ctx, c)
		}
		all = append(all, verdict)
	}
	return all
}

func (p *player) examine(ctx context.Context, c testCase) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.opts.Timeout, fmt.Errorf("nothing more came for %v", p.opts.Timeout))
	defer cancel()
	for _, step := range c.steps {
		if err := step(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
