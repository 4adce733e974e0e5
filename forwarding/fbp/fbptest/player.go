package fbptest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/flogate/flogate/forwarding/fbp"
)

// player plays the client's part.
type player struct {
	conn         Conn
	opts         Options
	capabilities fbp.Capabilities // as the runtime has announced them last
}

// received is a runtime's message as fbp-test looks at it: decoded, and not judged.
type received struct {
	kind    fbp.Kind
	payload any
	text    []byte
}

func (r received) String() string { return string(r.text) }

func (p *player) send(ctx context.Context, k fbp.Kind, payload json.RawMessage) error {
	in := fbp.Input{Kind: k, Payload: payload, Secret: fbp.NewSecret(p.opts.Secret)}
	if err := p.conn.Send(ctx, in.Append(nil)); err != nil {
		return fmt.Errorf("send %s: %w", k, because(ctx, err))
	}
	return nil
}

// because returns why ctx ended, where that is what err is about.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// next returns the next message. It is an error if no client could make anything of it, or a strict one not.
func (p *player) next(ctx context.Context) (received, error) {
	text, err := p.conn.Receive(ctx)
	if err != nil {
		return received{}, because(ctx, err)
	}
	got, err := read(text)
	if err != nil {
		return got, fmt.Errorf("got %s: %w", text, err)
	}
	if got.kind == fbp.RuntimeRuntime {
		p.introduce(got)
	}
	if p.opts.Strict {
		if err := p.strictly(got); err != nil {
			return got, fmt.Errorf("got %s: %w", got, err)
		}
	}
	return got, nil
}

func read(text []byte) (received, error) {
	got := received{text: text}
	var message map[string]any
	if err := json.Unmarshal(text, &message); err != nil {
		return got, err
	}
	protocol, _ := message["protocol"].(string)
	command, _ := message["command"].(string)
	if protocol == "" || command == "" || message["payload"] == nil {
		return got, errors.New("protocol, command and payload are not all there")
	}
	if _, there := message["secret"]; there {
		return got, errors.New("a secret is in it")
	}
	got.kind, got.payload = fbp.KindOf(protocol, command), message["payload"]
	if payload, ok := got.payload.(map[string]any); ok {
		delete(payload, "secret") // as the suite does
	}
	return got, nil
}

func (p *player) introduce(got received) {
	var message struct {
		Payload struct{ Capabilities fbp.Capabilities }
	}
	if json.Unmarshal(got.text, &message) == nil {
		p.capabilities = message.Payload.Capabilities
	}
}

// strictly is what fbp-test would mind if it found its schemas, and clients that do.
func (p *player) strictly(got received) error {
	var top, payload map[string]json.RawMessage
	if err := json.Unmarshal(got.text, &top); err != nil {
		return err
	}
	for key := range top {
		if !slices.Contains([]string{"protocol", "command", "payload", "responseTo"}, key) {
			return fmt.Errorf("%q is no key of a message", key)
		}
	}
	if json.Unmarshal(top["payload"], &payload) == nil && payload["secret"] != nil {
		return errors.New("a secret is in its payload")
	}
	out, err := fbp.DecodeOutput(got.text)
	if err != nil {
		return err
	}
	if err := out.Validate(); err != nil {
		return err
	}
	if !got.kind.IsError() && !p.capabilities.MayReceive(got.kind) {
		return fmt.Errorf("the client may not receive %s", got.kind)
	}
	return nil
}

// expect waits for a message of kind k and compares it. Others are passed over, whatever graph they are of; errors are not.
func (p *player) expect(ctx context.Context, k fbp.Kind, payload json.RawMessage) error {
	for {
		got, err := p.next(ctx)
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", k, err)
		}
		switch {
		case got.kind == k:
			return p.compare(got, payload)
		case got.kind.IsError() && !k.IsError(), p.opts.Exact:
			return fmt.Errorf("waiting for %s: got %s", k, got)
		}
	}
}

func (p *player) compare(got received, payload json.RawMessage) error {
	var want any
	if err := json.Unmarshal(payload, &want); err != nil {
		return fmt.Errorf("expected payload %s: %w", payload, err)
	}
	ignored := append(ignored(got.kind), p.opts.Ignore[got.kind]...)
	for _, one := range []any{got.payload, want} {
		if object, ok := one.(map[string]any); ok {
			for _, key := range append(ignored, "secret") {
				delete(object, key)
			}
		}
	}
	if !reflect.DeepEqual(got.payload, want) {
		return fmt.Errorf("%s\n got %s\nwant %s", got.kind, spell(got.payload), spell(want))
	}
	return nil
}

// ignored are the keys that fbp-test does not compare.
func ignored(k fbp.Kind) []string {
	switch {
	case k == fbp.NetworkStarted:
		return []string{"time", "running"}
	case k == fbp.NetworkStopped:
		return []string{"time", "uptime"}
	case k.IsError():
		return []string{"stack"}
	}
	return nil
}

func spell(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
