package transporttest

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/flogate/flogate/core/transport"
)

func describeCases() []testCase {
	return []testCase{
		{name: "Describe describes", run: describes},
		{name: "Validate finds nothing wrong with what the suite uses, and its promises are true", run: validates},
		{name: "Validate takes nonsense", run: validateNonsense},
		{name: "Validate does not tell secrets", run: validateSecrets},
		{name: "Connect refuses nonsense for good", run: connectNonsense},
		{name: "Subscribe and Publish refuse nonsense", run: endpointNonsense},
	}
}

// soon bounds what does no I/O. The contract says 2 seconds.
func (s *scene) soon(what string, f func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
	defer cancel()
	start := time.Now()
	f(ctx)
	if took := time.Since(start); took > 2*time.Second {
		s.Errorf("%s took %v; want at most 2 s", what, took)
	}
}

func describes(s *scene) {
	var d, again transport.Description
	s.soon("Describe", func(ctx context.Context) {
		var err error
		if d, err = s.driver.Describe(ctx); err != nil {
			s.Fatalf("describe: %v", err)
		}
		if again, err = s.driver.Describe(ctx); err != nil {
			s.Fatalf("describe: %v", err)
		}
	})
	if !reflect.DeepEqual(d, again) {
		s.Errorf("two answers differ: %+v and %+v", d, again)
	}
	if d.Name == "" || strings.Trim(d.Name, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		s.Errorf("Name is %q; want a word of lower-case letters", d.Name)
	}
	if d.Version == "" || d.Summary == "" || len(d.Schemes) == 0 {
		s.Errorf("Version %q, Summary %q, Schemes %q; want something in each", d.Version, d.Summary, d.Schemes)
	}
	has := func(capability string) bool { return slices.Contains(d.Capabilities, capability) }
	if has(transport.CapFilters) != (s.target.Filtered != nil) {
		s.Errorf("capability %q is %t, and the target has Filtered: %t", transport.CapFilters, has(transport.CapFilters), s.target.Filtered != nil)
	}
	if has(transport.CapTopology) != (s.target.Place != nil) {
		s.Errorf("capability %q is %t, and the target has Place: %t", transport.CapTopology, has(transport.CapTopology), s.target.Place != nil)
	}
	s.schema("config", d.Config)
	s.schema("source", d.Source)
	s.schema("sink", d.Sink)
}

func (s *scene) schema(path string, schema transport.Schema) {
	names := map[string]bool{}
	name := func(n string) {
		if n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			s.Errorf("%s: %q is no name for HCL; want lower-case letters, digits and _", path, n)
		}
		if names[n] {
			s.Errorf("%s: %q is there twice", path, n)
		}
		names[n] = true
	}
	for _, a := range schema.Attributes {
		name(a.Name)
		types := []transport.Type{transport.String, transport.Number, transport.Bool, transport.Duration, transport.StringList, transport.StringMap}
		if !slices.Contains(types, a.Type) {
			s.Errorf("%s.%s: there is no type %q", path, a.Name, a.Type)
		}
		if a.OneOf != nil && a.Type != transport.String {
			s.Errorf("%s.%s: OneOf is for strings", path, a.Name)
		}
		if a.Doc == "" {
			s.Errorf("%s.%s: Doc is empty", path, a.Name)
		}
		if a.Required && a.Default != "" {
			s.Errorf("%s.%s: what is required has no default", path, a.Name)
		}
	}
	for _, b := range schema.Blocks {
		name(b.Name)
		s.schema(path+"."+b.Name, b.Schema)
	}
}

func validates(s *scene) {
	src, sink := s.pair(plenty)
	other, _ := s.pair(plenty)
	req := transport.ValidateRequest{
		Config: s.target.Config(s), Sources: []transport.Source{src, other, src}, Sinks: []transport.Sink{sink},
	}
	var res transport.ValidateResult
	s.soon("Validate", func(ctx context.Context) {
		var err error
		if res, err = s.driver.Validate(ctx, req); err != nil {
			s.Fatalf("validate: %v", err)
		}
		if r, err := s.driver.Validate(ctx, transport.ValidateRequest{}); err != nil || len(r.Problems) > 0 {
			s.Errorf("validate nothing: %v, %v; want no problem", r.Problems, err)
		}
	})
	for _, p := range res.Problems {
		s.Errorf("problem at %v: %s", p.Path, p.Message)
	}
	if len(res.Sources) != 3 || len(res.Sinks) != 1 {
		s.Fatalf("traits of %d sources and %d sinks; want 3 and 1", len(res.Sources), len(res.Sinks))
	}
	in, out, has := res.Sources[0], res.Sinks[0], s.target.Has
	if in.Acks != has.Acks || out.Confirms != has.Confirms || out.Deduplicates != has.Deduplicates {
		s.Errorf("the driver says Acks %t, Confirms %t, Deduplicates %t; the target %t, %t, %t",
			in.Acks, out.Confirms, out.Deduplicates, has.Acks, has.Confirms, has.Deduplicates)
	}
	if !in.Acks && in.Weakness == "" || !out.Confirms && out.Weakness == "" {
		s.Errorf("weaknesses are %q and %q; want a reason where Acks or Confirms is false", in.Weakness, out.Weakness)
	}
	if carried := s.target.Carries&FieldHeaders != 0; out.Headerless == carried {
		s.Errorf("the driver says Headerless %t, and headers are carried: %t", out.Headerless, carried)
	}
	if in.Place == "" || in.Place != res.Sources[2].Place || in.Place == res.Sources[1].Place {
		s.Errorf("places are %q, %q and again %q; want the first and the last to be equal and the second to differ", in.Place, res.Sources[1].Place, res.Sources[2].Place)
	}
}

// nonsense returns configurations that no driver can want.
func nonsense() []json.RawMessage {
	r := rand.New(rand.NewPCG(1, 2))
	out := []json.RawMessage{
		json.RawMessage(`[]`), json.RawMessage(`"text"`), json.RawMessage(`17`), json.RawMessage(`{`),
		json.RawMessage(`{"no_such_attribute_in_any_driver": 1}`), json.RawMessage(`{"url": {"a": [1]}}`),
		json.RawMessage(strings.Repeat("[", 20_000)), json.RawMessage("\x00"), json.RawMessage(`{"url": "\u0000:// :"}`),
		json.RawMessage(`{"url": "http://[::1"}`), json.RawMessage(`{"url": "nosuchscheme://x"}`),
	}
	for range 200 {
		b := make([]byte, r.IntN(60))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		// An object now and then, so that some get past the parser's first look.
		if len(b)%2 == 1 {
			b = slices.Concat([]byte(`{"url":"`), b, []byte(`"}`))
		}
		out = append(out, b)
	}
	return out
}

func oddNames() []string {
	return []string{"", "\x00", "#/#", "+#", "a/#/b", ">", "a.>.b", "*.*", " ", "\xff\xfe", "/", ".", "$SYS/#", "$JS.API.>", strings.Repeat("x", 1<<17)}
}

func validateNonsense(s *scene) {
	good := s.target.Config(s)
	s.soon("Validate of nonsense", func(ctx context.Context) {
		for _, junk := range nonsense() {
			req := transport.ValidateRequest{
				Config:  junk,
				Sources: []transport.Source{{Name: "n", Address: "a", Options: junk}},
				Sinks:   []transport.Sink{{Name: "n", Address: "a", Options: junk}},
			}
			s.validate(ctx, req)
			req.Config = good
			res := s.validate(ctx, req)
			if len(junk) > 0 && !json.Valid(junk) && len(res.Problems) == 0 {
				s.Errorf("Validate finds nothing wrong with the options %.60q", junk)
			}
		}
		for _, name := range oddNames() {
			for _, window := range []transport.Credit{{}, {Messages: -1, Bytes: -1}, {Messages: 1 << 62, Bytes: 1 << 62}} {
				s.validate(ctx, transport.ValidateRequest{
					Sources: []transport.Source{{Name: name, Address: name, Window: window}},
					Sinks:   []transport.Sink{{Name: name, Address: name}},
				})
			}
		}
		res := s.validate(ctx, transport.ValidateRequest{Config: json.RawMessage(`{"no_such_attribute_in_any_driver": 1}`)})
		if len(res.Problems) == 0 {
			s.Error("Validate finds nothing wrong with an attribute that there is not")
		}
	})
}

func (s *scene) validate(ctx context.Context, req transport.ValidateRequest) transport.ValidateResult {
	res, err := s.driver.Validate(ctx, req)
	if err != nil {
		s.Fatalf("Validate could not be asked: %v; want problems for what is wrong", err)
	}
	if len(res.Sources) != len(req.Sources) || len(res.Sinks) != len(req.Sinks) {
		s.Fatalf("traits of %d sources and %d sinks; want %d and %d", len(res.Sources), len(res.Sinks), len(req.Sources), len(req.Sinks))
	}
	for _, p := range res.Problems {
		n := map[transport.Part]int{transport.InConfig: 1, transport.InSource: len(req.Sources), transport.InSink: len(req.Sinks)}[p.Where]
		if p.Index < 0 || p.Index >= n || p.Message == "" {
			s.Fatalf("problem %+v: want a part and an index of the request, and a message", p)
		}
	}
	return res
}

func validateSecrets(s *scene) {
	const secret = "s3cr3t-0f-the-su1te"
	d, err := s.driver.Describe(s.ctx)
	if err != nil {
		s.Fatalf("describe: %v", err)
	}
	told := func(attributes []transport.Attribute, wrap func(map[string]any) map[string]any) {
		for _, a := range attributes {
			if !a.Secret {
				continue
			}
			for _, value := range []any{secret, []any{secret}, map[string]any{secret: secret}, secret + "\x00://" + secret + "@"} {
				cfg, err := json.Marshal(wrap(map[string]any{a.Name: value}))
				if err != nil {
					s.Fatal(err)
				}
				for _, p := range s.validate(s.ctx, transport.ValidateRequest{Config: cfg}).Problems {
					if strings.Contains(p.Message, secret) {
						s.Errorf("a problem tells the value of %s: %s", a.Name, p.Message)
					}
				}
			}
		}
	}
	told(d.Config.Attributes, func(m map[string]any) map[string]any { return m })
	for _, b := range d.Config.Blocks {
		told(b.Schema.Attributes, func(m map[string]any) map[string]any { return map[string]any{b.Name: m} })
	}
}

func connectNonsense(s *scene) {
	for i, junk := range nonsense() {
		if json.Valid(junk) && i > 10 || len(junk) == 0 {
			continue // it may mean something by chance
		}
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		conn, err := s.driver.Connect(ctx, transport.ConnectRequest{Name: s.name("conn"), Config: junk})
		cancel()
		if err == nil {
			(&link{s: s, Conn: conn}).close()
			if !json.Valid(junk) {
				s.Fatalf("Connect takes the configuration %.60q", junk)
			}
		} else if !json.Valid(junk) && !transport.IsPermanent(err) {
			s.Fatalf("Connect with the configuration %.60q: %v; want a Permanent error", junk, err)
		}
	}
}

func endpointNonsense(s *scene) {
	l := s.connect()
	for _, name := range oddNames() {
		ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		if sub, err := l.Subscribe(ctx, transport.Source{Name: s.name("src"), Address: name, Window: transport.Credit{Messages: 1, Bytes: 1}}); err == nil {
			_ = sub.Remove(ctx)
		} else if ctx.Err() != nil {
			s.Errorf("Subscribe to %.40q does not come back: %v", name, err)
		}
		if pub, err := l.Publish(ctx, transport.Sink{Address: name}); err == nil {
			_ = pub.Close(ctx)
		} else if ctx.Err() != nil {
			s.Errorf("Publish to %.40q does not come back: %v", name, err)
		}
		cancel()
	}
	junk := json.RawMessage(`{"no_such`)
	src, sink := s.pair(plenty)
	src.Options, sink.Options = junk, junk
	if _, err := l.Subscribe(s.ctx, src); !transport.IsPermanent(err) {
		s.Errorf("Subscribe with options that are no JSON: %v; want a Permanent error", err)
	}
	if _, err := l.Publish(s.ctx, sink); !transport.IsPermanent(err) {
		s.Errorf("Publish with options that are no JSON: %v; want a Permanent error", err)
	}

	// The connection has come to no harm, or is gone and another does.
	l = s.connect()
	src, sink = s.pair(plenty)
	st := l.subscribe(src)
	st.grant(1, 1<<10)
	l.publisher(sink).publishAll(message(1))
	s.inOrder(st.receive(1), 1, 1)
}
