package coordinator_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

const runtimeID = "7e8a4f8e-3f0a-4b52-9d6c-0d5b3a1c2f4e"

// site is a coordinator that runs, with what is behind it and who may do what.
type site struct {
	t       testing.TB
	h       *host
	c       *coordinator.Coordinator
	policy  forwarding.Policy
	without fbp.Capabilities
	stop    context.CancelFunc
	all     sync.WaitGroup
}

func newSite(t testing.TB) *site {
	s := &site{t: t, h: newHost()}
	s.policy.Anonymous.Capabilities = fbp.AllCapabilities()
	return s
}

// run runs the site until the test ends.
func (s *site) run() *site {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.c = coordinator.New(coordinator.Config{
		Runtime: fbp.Runtime{ID: runtimeID, Type: "flogate", Label: "hall", Namespace: "flogate"},
		Graphs:  s.h, Networks: s.h, Components: s.h, Without: s.without, Log: slog.New(slog.DiscardHandler),
	})
	s.all.Go(func() {
		if err := s.c.Run(ctx); err != nil {
			s.t.Errorf("run: %v", err)
		}
	})
	s.t.Cleanup(func() {
		stop()
		s.all.Wait()
	})
	return s
}

// pipe is a Conn of the runtime's end of a pipe.
type pipe struct{ *fbptest.End }

func (p pipe) Read(ctx context.Context) ([]byte, error) { return p.Receive(ctx) }

func (p pipe) Write(ctx context.Context, frames ...[]byte) error {
	for _, f := range frames {
		if err := p.Send(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

func (p pipe) Close(error) { _ = p.End.Close() }

// client is a client's end.
type client struct {
	*fbptest.End
	t       testing.TB
	secret  fbp.Secret
	session *forwarding.Session
	ended   chan error
}

// dial connects a client.
func (s *site) dial(secret string) *client {
	end, runtime := fbptest.Pipe()
	return s.serve(end, pipe{runtime}, secret, forwarding.SessionConfig{})
}

func (s *site) serve(end *fbptest.End, conn forwarding.Conn, secret string, cfg forwarding.SessionConfig) *client {
	cfg.Runtime, cfg.Access, cfg.Client = s.c, s.policy.Access, "192.0.2.1:4000"
	c := &client{End: end, t: s.t, secret: fbp.NewSecret(secret), ended: make(chan error, 1)}
	c.session = forwarding.NewSession(conn, cfg)
	s.all.Go(func() { c.ended <- c.session.Run(context.Background()) })
	s.t.Cleanup(func() { _ = c.End.Close() })
	return c
}

func (c *client) ask(p fbp.Payload, id string) {
	c.t.Helper()
	in, err := fbp.NewInput(p)
	if err != nil {
		c.t.Fatal(err)
	}
	in.Secret, in.ID = c.secret, id
	c.write(string(in.Append(nil)))
}

func (c *client) write(frame string) {
	c.t.Helper()
	if err := c.Send(c.t.Context(), []byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message, which has to come soon.
func (c *client) next() fbp.Output {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	frame, err := c.Receive(ctx)
	if err != nil {
		c.t.Fatalf("nothing comes: %v", err)
	}
	out, err := fbp.DecodeOutput(frame)
	if err == nil {
		err = out.Validate()
	}
	if err != nil {
		c.t.Fatalf("%s: %v", frame, err)
	}
	return out
}

// want waits for a message of a kind, with that payload unless it is empty.
func (c *client) want(k fbp.Kind, payload string) fbp.Output {
	c.t.Helper()
	got := c.next()
	if got.Kind != k || payload != "" && !same(got.Payload, payload) {
		c.t.Fatalf("got %s %s\nwant %s %s", got.Kind, got.Payload, k, payload)
	}
	return got
}

// skipTo returns the next message of a kind.
func (c *client) skipTo(k fbp.Kind) fbp.Output {
	c.t.Helper()
	for {
		if got := c.next(); got.Kind == k {
			return got
		}
	}
}

// none wants nothing to be there that has not been read: the answer to a question comes next.
func (c *client) none() {
	c.t.Helper()
	c.ask(fbp.GetRuntime{}, "none")
	if got := c.next(); got.ResponseTo != "none" {
		c.t.Fatalf("got %s %s", got.Kind, got.Payload)
	}
}

// open introduces the client and reads what it is told.
func (c *client) open() fbp.Runtime {
	c.t.Helper()
	c.ask(fbp.GetRuntime{}, "")
	p, err := c.want(fbp.RuntimeRuntime, "").Parse()
	if err != nil {
		c.t.Fatal(err)
	}
	return p.(fbp.Runtime)
}

func same(a []byte, b string) bool {
	x, errX := normal(a)
	y, errY := normal([]byte(b))
	return errX == nil && errY == nil && x == y
}

func normal(text []byte) (string, error) {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return "", err
	}
	out, err := json.Marshal(v)
	return string(out), err
}

// eventually waits until what holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never was so that %s", what)
		}
	}
}

func contains(t testing.TB, text []byte, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(string(text), part) {
			t.Errorf("%s\nhas no %s", text, part)
		}
	}
}
