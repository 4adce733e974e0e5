package forwarding_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
	"github.com/flogate/flogate/forwarding/fbp/fbptest"
)

// runtime answers what is asked of it, and says what it is told to say.
type runtime struct {
	mu     sync.Mutex
	links  []*fakeLink
	answer func(l *fakeLink, r forwarding.Request)
	failed error // of dialling
}

type fakeLink struct {
	access forwarding.Access
	out    chan forwarding.Message
	done   chan struct{}
	close  func()
	asked  []forwarding.Request
	failed error // of sending
	rt     *runtime
}

func (rt *runtime) Dial(_ context.Context, access forwarding.Access) (forwarding.Link, error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.failed != nil {
		return nil, rt.failed
	}
	l := &fakeLink{access: access, out: make(chan forwarding.Message, 1<<14), done: make(chan struct{}), rt: rt}
	l.close = sync.OnceFunc(func() { close(l.done) })
	rt.links = append(rt.links, l)
	return l, nil
}

func (l *fakeLink) Send(_ context.Context, r forwarding.Request) error {
	if l.failed != nil {
		return l.failed
	}
	l.rt.mu.Lock()
	l.asked = append(l.asked, r)
	answer := l.rt.answer
	l.rt.mu.Unlock()
	if answer != nil {
		answer(l, r)
		return nil
	}
	l.say(fbp.Debug{Graph: "answer to " + string(r.Kind)}, func(m *forwarding.Message) { m.Answers, m.Last = true, true })
	return nil
}

func (l *fakeLink) say(p fbp.Payload, with func(*forwarding.Message)) {
	m, err := forwarding.NewMessage(p)
	if err != nil {
		panic(err)
	}
	if with != nil {
		with(&m)
	}
	l.out <- m
}

func (l *fakeLink) Receive(ctx context.Context) ([]forwarding.Message, error) {
	select {
	case <-l.done:
		return nil, forwarding.ErrClosed
	default:
	}
	var all []forwarding.Message
	select {
	case m := <-l.out:
		all = append(all, m)
	case <-l.done:
		return nil, forwarding.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for len(l.out) > 0 {
		all = append(all, <-l.out)
	}
	if all[len(all)-1].Kind == "" {
		return nil, errGone
	}
	return all, nil
}

func (l *fakeLink) Close() { l.close() }

// gone ends the link by itself.
func (l *fakeLink) gone() { l.out <- forwarding.Message{} }

var errGone = errors.New("the runtime is gone")

// link returns the link that was dialled last, and how many were.
func (rt *runtime) link() (*fakeLink, int) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.links[len(rt.links)-1], len(rt.links)
}

// conn is the runtime's end of a pipe. It remembers why it was closed.
type conn struct {
	*fbptest.End
	takes  int // frames, before it takes nothing more; zero: all
	closed chan struct{}
	mu     sync.Mutex
	causes []error
}

func (c *conn) Read(ctx context.Context) ([]byte, error) { return c.Receive(ctx) }

func (c *conn) Write(ctx context.Context, frames ...[]byte) error {
	for _, f := range frames {
		if err := c.Send(ctx, f); err != nil {
			return err
		}
		if c.takes--; c.takes == 0 {
			<-c.closed
			return io.ErrClosedPipe
		}
	}
	return nil
}

func (c *conn) Close(cause error) {
	c.mu.Lock()
	if c.causes = append(c.causes, cause); len(c.causes) == 1 {
		close(c.closed)
	}
	c.mu.Unlock()
	_ = c.End.Close()
}

type client struct {
	*fbptest.End
	t     *testing.T
	conn  *conn
	ended chan error
	stop  context.CancelFunc
}

var policy = forwarding.Policy{Grants: []forwarding.Grant{
	{Secret: fbp.NewSecret("all"), Access: forwarding.Access{Name: "boss", Capabilities: fbp.AllCapabilities()}},
	{Secret: fbp.NewSecret("graphs"), Access: forwarding.Access{
		Name: "reader", Capabilities: fbp.Capabilities{fbp.CapGraphReadonly}, Graphs: []string{"open*"},
	}},
}}

func serve(t *testing.T, rt *runtime, cfg forwarding.SessionConfig) *client {
	return serveSome(t, rt, cfg, 0)
}

// serveSome serves a client that takes only so many frames.
func serveSome(t *testing.T, rt *runtime, cfg forwarding.SessionConfig, takes int) *client {
	end, other := fbptest.Pipe()
	c := &client{End: end, t: t, conn: &conn{End: other, takes: takes, closed: make(chan struct{})}, ended: make(chan error, 1)}
	cfg.Runtime, cfg.Access, cfg.Client = rt, policy.Access, "192.0.2.9:1"
	session := forwarding.NewSession(c.conn, cfg)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go func() { c.ended <- session.Run(ctx) }()
	t.Cleanup(func() {
		_ = end.Close()
		stop()
		select {
		case err := <-c.ended:
			c.ended <- err
		case <-time.After(5 * time.Second):
			t.Error("the session does not end")
		}
	})
	return c
}

func (c *client) ask(kind fbp.Kind, payload, secret, id string) {
	c.t.Helper()
	in := fbp.Input{Kind: kind, Payload: []byte(payload), Secret: fbp.NewSecret(secret), ID: id}
	if err := c.Send(c.t.Context(), in.Append(nil)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(frame string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	got, err := c.Receive(ctx)
	if err != nil {
		c.t.Fatalf("want %s: %v", frame, err)
	}
	if string(got) != frame {
		c.t.Fatalf("\n got %s\nwant %s", got, frame)
	}
}

func (c *client) end() error {
	c.t.Helper()
	select {
	case err := <-c.ended:
		c.ended <- err
		return err
	case <-time.After(5 * time.Second):
		c.t.Fatal("the session does not end")
		return nil
	}
}

func debug(graph, id string) string {
	if id != "" {
		id = `,"responseTo":"` + id + `"`
	}
	return `{"protocol":"network","command":"debug","payload":{"enable":false,"graph":"` + graph + `"}` + id + `}`
}

func refused(protocol, text, id string) string {
	if id != "" {
		id = `,"responseTo":"` + id + `"`
	}
	return `{"protocol":"` + protocol + `","command":"error","payload":{"message":"` + text + `"}` + id + `}`
}

func TestRequestsAreAnsweredInTheirOrderWhoeverAnswers(t *testing.T) {
	rt := &runtime{}
	rt.answer = func(l *fakeLink, r forwarding.Request) {
		go func() { // it takes a moment, and what follows must wait
			time.Sleep(time.Millisecond)
			l.say(fbp.Debug{Graph: "part"}, func(m *forwarding.Message) { m.Answers = true })
			l.say(fbp.Debug{Graph: r.ID}, func(m *forwarding.Message) { m.Answers, m.Last = true, true })
		}()
	}
	c := serve(t, rt, forwarding.SessionConfig{})
	for i := range 20 {
		id := fmt.Sprint(i)
		c.ask(fbp.NetworkPersist, `{}`, "all", id)
		c.ask(fbp.NetworkPersist, `{}`, "wrong", "no"+id)
		if err := c.Send(t.Context(), []byte(`{"protocol":"graph","requestId":"bad`+id+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		id := fmt.Sprint(i)
		c.want(debug("part", ""))
		c.want(debug(id, id))
		c.want(refused("network", "network:persist is not permitted", "no"+id))
		c.want(refused("graph", "this request: protocol and command must be there", "bad"+id))
	}
}

func TestRuntimeIsGivenWhoAsksAndNoSecret(t *testing.T) {
	rt := &runtime{}
	c := serve(t, rt, forwarding.SessionConfig{})
	c.ask(fbp.GraphAddNode, `{"id":"a","component":"c","graph":"g"}`, "all", "")
	c.want(debug("answer to graph:addnode", ""))
	l, _ := rt.link()
	asked := l.asked[0]
	if !asked.Secret.IsZero() || bytes.Contains(asked.Payload, []byte("all")) {
		t.Errorf("the request has a secret: %s", asked.Payload)
	}
	if who := asked.Access.Who(); who != "boss from 192.0.2.9:1" {
		t.Errorf("%q asks", who)
	}
	if p, ok := asked.Says.(fbp.AddNode); !ok || p.ID != "a" {
		t.Errorf("it says %#v", asked.Says)
	}
}

func TestNothingGetsOutThatTheClientMayNotHave(t *testing.T) {
	rt := &runtime{}
	c := serve(t, rt, forwarding.SessionConfig{})
	c.ask(fbp.RuntimeGetRuntime, `{}`, "graphs", "")
	c.want(debug("answer to runtime:getruntime", ""))
	l, _ := rt.link()
	of := func(graph string) func(*forwarding.Message) {
		return func(m *forwarding.Message) { m.Graph = graph }
	}
	l.say(fbp.RemoveNode{ID: "a", Graph: "shut"}, of("shut"))
	l.say(fbp.Started{Graph: "open"}, of("open"))
	l.say(fbp.Error{Protocol: "graph", Message: "no"}, nil)
	l.say(fbp.Data{Graph: "open"}, func(m *forwarding.Message) { m.Graph, m.Lossy = "open", true })
	l.say(fbp.RemoveNode{ID: "b", Graph: "open"}, of("open"))
	c.want(`{"protocol":"graph","command":"removenode","payload":{"id":"b","graph":"open"}}`)
}

func TestEventsBeginAfterTheFirstAnswer(t *testing.T) {
	rt := &runtime{}
	rt.answer = func(l *fakeLink, _ forwarding.Request) {
		l.say(fbp.RemoveNode{ID: "early", Graph: "g"}, nil)
		l.say(fbp.Runtime{Type: "t", Version: "0.8"}, func(m *forwarding.Message) { m.Answers, m.Last = true, true })
		l.say(fbp.RemoveNode{ID: "late", Graph: "g"}, nil)
	}
	c := serve(t, rt, forwarding.SessionConfig{})
	c.ask(fbp.RuntimeGetRuntime, `{}`, "all", "")
	c.want(`{"protocol":"runtime","command":"runtime","payload":{"type":"t","version":"0.8","capabilities":[]}}`)
	c.want(`{"protocol":"graph","command":"removenode","payload":{"id":"late","graph":"g"}}`)
}

func TestClientIsKnownByTheSecretWithWhichItAskedForTheRuntime(t *testing.T) {
	rt := &runtime{}
	c := serve(t, rt, forwarding.SessionConfig{})
	links := func(want int, name string) {
		t.Helper()
		if l, n := rt.link(); n != want || l.access.Name != name {
			t.Errorf("%d links, the last one of %q; want %d, of %q", n, l.access.Name, want, name)
		}
	}
	ask := func(kind fbp.Kind, secret string) {
		t.Helper()
		c.ask(kind, `{}`, secret, "")
		c.want(debug("answer to "+string(kind), ""))
	}
	ask(fbp.RuntimeGetRuntime, "wrong")
	links(1, "")
	ask(fbp.NetworkPersist, "all") // permitted, but it has been told that nothing is
	links(1, "")
	l, _ := rt.link()
	if got := l.asked[1].Access.Name; got != "boss" {
		t.Errorf("%q asked", got)
	}
	ask(fbp.RuntimeGetRuntime, "all")
	links(2, "boss")
	c.ask(fbp.NetworkPersist, `{}`, "", "1")
	c.want(refused("network", "network:persist is not permitted", "1"))
	ask(fbp.RuntimeGetRuntime, "all")
	links(2, "boss")

	early := serve(t, rt, forwarding.SessionConfig{})
	early.ask(fbp.NetworkPersist, `{}`, "all", "")
	early.want(debug("answer to network:persist", ""))
	links(3, "boss")
}

func TestSlowClientLosesPacketsAndThenTheConnection(t *testing.T) {
	rt := &runtime{}
	c := serveSome(t, rt, forwarding.SessionConfig{Messages: 50}, 1)
	c.ask(fbp.RuntimeGetRuntime, `{}`, "all", "")
	c.want(debug("answer to runtime:getruntime", ""))
	l, _ := rt.link()
	for range 500 {
		l.say(fbp.Data{Graph: "g"}, func(m *forwarding.Message) { m.Lossy = true })
	}
	select {
	case err := <-c.ended:
		t.Fatalf("the session ended: %v", err)
	case <-time.After(20 * time.Millisecond): // it must not happen
	}
	for range 60 {
		l.say(fbp.RemoveNode{Graph: "g"}, nil)
	}
	if err := c.end(); !errors.Is(err, forwarding.ErrBehind) {
		t.Errorf("the session ended with %v", err)
	}
	if len(c.conn.causes) != 1 || !errors.Is(c.conn.causes[0], forwarding.ErrBehind) {
		t.Errorf("the connection was closed for %v", c.conn.causes)
	}
}

func TestSessionEndsAndSaysWhy(t *testing.T) {
	started := func(t *testing.T) (*runtime, *client) {
		rt := &runtime{}
		c := serve(t, rt, forwarding.SessionConfig{})
		c.ask(fbp.RuntimeGetRuntime, `{}`, "all", "")
		c.want(debug("answer to runtime:getruntime", ""))
		return rt, c
	}
	for name, tt := range map[string]struct {
		do   func(rt *runtime, c *client)
		want error
	}{
		"the client goes":    {func(_ *runtime, c *client) { _ = c.Close() }, io.EOF},
		"the gateway closes": {func(_ *runtime, c *client) { c.stop() }, context.Canceled},
		"the runtime goes": {func(rt *runtime, _ *client) {
			l, _ := rt.link()
			l.gone()
		}, errGone},
		"the runtime goes while it is asked": {func(rt *runtime, c *client) {
			l, _ := rt.link()
			rt.mu.Lock()
			rt.answer = func(*fakeLink, forwarding.Request) { l.gone() }
			rt.mu.Unlock()
			c.ask(fbp.NetworkPersist, `{}`, "all", "")
		}, errGone},
		"the runtime takes no request": {func(rt *runtime, c *client) {
			l, _ := rt.link()
			l.failed = errGone
			c.ask(fbp.NetworkPersist, `{}`, "all", "")
		}, errGone},
		"the runtime cannot be dialled": {func(rt *runtime, c *client) {
			rt.mu.Lock()
			rt.failed = errGone
			rt.mu.Unlock()
			c.ask(fbp.RuntimeGetRuntime, `{}`, "graphs", "")
		}, errGone},
	} {
		t.Run(name, func(t *testing.T) {
			rt, c := started(t)
			tt.do(rt, c)
			if err := c.end(); !errors.Is(err, tt.want) {
				t.Errorf("the session ended with %v", err)
			}
			if len(c.conn.causes) != 1 {
				t.Errorf("the connection was closed for %v", c.conn.causes)
			}
			if l, _ := rt.link(); l != nil {
				select {
				case <-l.done:
				default:
					t.Error("the link is open")
				}
			}
		})
	}
}

func TestAnswerThatNobodyAskedForEndsTheSession(t *testing.T) {
	rt := &runtime{}
	c := serve(t, rt, forwarding.SessionConfig{})
	c.ask(fbp.RuntimeGetRuntime, `{}`, "all", "")
	c.want(debug("answer to runtime:getruntime", ""))
	l, _ := rt.link()
	l.say(fbp.Persist{}, func(m *forwarding.Message) { m.Answers, m.Last = true, true })
	if err := c.end(); err == nil || !strings.Contains(err.Error(), "was not asked") {
		t.Errorf("the session ended with %v", err)
	}
}

func TestSecretsGiveWhatTheyAreFor(t *testing.T) {
	for secret, want := range map[string]string{"all": "boss", "graphs": "reader", "": "", "al": "", "all ": "", "ALL": ""} {
		if got := policy.Access(fbp.NewSecret(secret)); got.Name != want {
			t.Errorf("%q is %q, want %q", secret, got.Name, want)
		}
	}
	open := forwarding.Policy{
		Grants:    []forwarding.Grant{{Access: forwarding.Access{Name: "nobody"}}}, // a secret that somebody forgot to set
		Anonymous: forwarding.Access{Name: "guest"},
	}
	for _, secret := range []string{"", "x"} {
		if got := open.Access(fbp.NewSecret(secret)); got.Name != "guest" {
			t.Errorf("%q is %q", secret, got.Name)
		}
	}
}

func TestPatternsSayWhichGraphsAreSeen(t *testing.T) {
	for _, tt := range []struct {
		patterns []string
		graph    string
		want     bool
	}{
		{nil, "any/thing", true},
		{[]string{"a/main"}, "a/main", true},
		{[]string{"a/main"}, "main", false},
		{[]string{"main"}, "a/main", false},
		{[]string{"a/*"}, "a/b", true},
		{[]string{"*"}, "a/b", false},
		{[]string{"x", "b?r"}, "bar", true},
		{[]string{"[", ""}, "[", false},
		{[]string{}, "all", true},
	} {
		if got := (forwarding.Access{Graphs: tt.patterns}).Sees(tt.graph); got != tt.want {
			t.Errorf("%q sees %q: %v", tt.patterns, tt.graph, got)
		}
	}
}

func TestLevelsGiveCapabilities(t *testing.T) {
	all, err := forwarding.Capabilities(forwarding.Levels()...)
	if err != nil || len(all) != len(fbp.AllCapabilities()) {
		t.Errorf("all levels give %v (%v)", all, err)
	}
	may := map[string][]fbp.Kind{
		"read-only": {},
		"edit":      {fbp.GraphAddNode, fbp.NetworkPersist},
		"control":   {fbp.NetworkStart, fbp.RuntimePacket, fbp.TraceStart},
		"source":    {fbp.ComponentSource},
	}
	for level := range may {
		given, err := forwarding.Capabilities(level)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []fbp.Kind{fbp.ComponentList, fbp.ComponentGetSource, fbp.NetworkGetStatus, fbp.NetworkEdges} {
			if !given.MaySend(k) {
				t.Errorf("%s: %s is not permitted", level, k)
			}
		}
		for _, k := range []fbp.Kind{fbp.GraphAddNode, fbp.NetworkData, fbp.NetworkStarted, fbp.ComponentComponent} {
			if !given.MayReceive(k) {
				t.Errorf("%s: %s is not told", level, k)
			}
		}
		for other, kinds := range may {
			for _, k := range kinds {
				if want := other == level; given.MaySend(k) != want {
					t.Errorf("%s: %s is permitted: %v", level, k, !want)
				}
			}
		}
	}
	if none, err := forwarding.Capabilities(); err != nil || len(none) != 0 {
		t.Errorf("no level gives %v (%v)", none, err)
	}
	if _, err := forwarding.Capabilities("edit", "admin"); err == nil {
		t.Error("a level that there is none of is taken")
	}
}
