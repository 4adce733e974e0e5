package fbp

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Input is a message of a client to a runtime.
type Input struct {
	Kind    Kind
	Payload json.RawMessage // an object without the secret, otherwise as it was sent
	Secret  Secret          // zero if there was none
	ID      string          // requestId; "" if there was none, as from all clients before 0.8
}

// Output is a message of a runtime to a client: the answer to a request, or word of an event.
type Output struct {
	Kind       Kind
	Payload    json.RawMessage // an object, but for [ComponentsReady]
	ResponseTo string          // the ID of the request that it answers; "" for events, and where the request had none
}

// Payload is what one of the messages says: a value of this package's types.
type Payload interface {
	Kind() Kind
}

// DecodeInput reads a client's message. It takes the secret from the top level, or else from the payload, where clients
// before 0.8 put it, and drops keys of the top level that there are none of. What the payload says is for [Input.Parse].
//
// The Input shares memory with message. With an error, which is an [Error], it holds what could be read, so that
// [Input.Fail] answers on the right sub-protocol and to the right request. DecodeInput may be called concurrently.
func DecodeInput(message []byte) (Input, error) {
	var in Input
	top, payload, err := decode(message, func(key, value string) {
		switch key {
		case "secret":
			in.Secret = NewSecret(value)
		case "requestId":
			in.ID = value
		}
	}, "secret", "requestId")
	in.Kind = top
	if err != nil {
		return in, in.bad(err)
	}
	if payload[0] != '{' {
		return in, in.bad(errors.New("payload must be an object"))
	}
	rest, secret, err := withoutSecret(payload)
	if err != nil {
		return in, in.bad(err)
	}
	in.Payload = rest
	if in.Secret.IsZero() {
		in.Secret = secret
	}
	return in, nil
}

// DecodeOutput reads a runtime's message. Secrets that it has sent back are dropped, as are keys of the top level that
// there are none of. The Output shares memory with message. With an error, which is an [Error], it holds what could be
// read. DecodeOutput may be called concurrently.
func DecodeOutput(message []byte) (Output, error) {
	var out Output
	top, payload, err := decode(message, func(_, value string) { out.ResponseTo = value }, "responseTo")
	out.Kind = top
	if err == nil {
		switch {
		case payload[0] == '{':
			out.Payload, _, err = withoutSecret(payload)
		case top == ComponentComponentsReady:
			out.Payload = payload
		default:
			err = errors.New("payload must be an object")
		}
	}
	if err != nil {
		return out, Error{Protocol: answering(top.Protocol()), Message: fmt.Sprintf("%s: %v", name(top), err)}
	}
	return out, nil
}

// decode reads a message's envelope: its kind, its payload and the other texts that it may have. The kind is there with an
// error too, if it could be read.
func decode(message []byte, set func(key, value string), others ...string) (k Kind, payload []byte, err error) {
	if err := checkText(message); err != nil {
		return "", nil, err
	}
	message = trim(message)
	if message[0] != '{' {
		return "", nil, errors.New("must be an object")
	}
	all, err := members(message)
	var protocol, command string
	for _, one := range all {
		value, f := textOf(one)
		switch {
		case one.key == "payload":
			payload = one.value
		case one.key == "protocol" && f == nil:
			protocol = value
		case one.key == "command" && f == nil:
			command = value
		case slices.Contains(others, one.key) && f == nil:
			set(one.key, value)
		case one.key == "protocol", one.key == "command", slices.Contains(others, one.key) && one.value[0] != 'n':
			err = cmp.Or(err, f)
		}
	}
	if protocol != "" {
		k = KindOf(protocol, command) // without a command too, because it says where to answer
	}
	if err == nil && (protocol == "" || command == "") {
		err = errors.New("protocol and command must be there")
	}
	if err == nil && payload == nil {
		err = errors.New("payload is missing")
	}
	return k, payload, err
}

func textOf(one member) (string, error) {
	if f := (shape{kind: text}).scalar(one.value, one.key); f != nil {
		return "", f
	}
	return unquote(one.value), nil
}

// withoutSecret returns an object without its secret, and that. What has none stays as it is spelled.
func withoutSecret(payload []byte) (rest []byte, secret Secret, err error) {
	all, err := members(payload)
	if err != nil {
		return nil, secret, fmt.Errorf("payload %w", err)
	}
	i := slices.IndexFunc(all, func(one member) bool { return one.key == "secret" })
	if i < 0 {
		return payload, secret, nil
	}
	value, err := textOf(all[i])
	if err != nil && all[i].value[0] != 'n' {
		return nil, secret, fmt.Errorf("payload.%w", err)
	}
	rest = make([]byte, 0, len(payload))
	rest = append(rest, '{')
	for j, one := range slices.Delete(all, i, i+1) {
		if j > 0 {
			rest = append(rest, ',')
		}
		rest = append(append(append(rest, one.name...), ':'), one.value...)
	}
	return append(rest, '}'), NewSecret(value), nil
}

// NewInput returns the message that says p.
func NewInput(p Payload) (Input, error) {
	payload, err := write(p, inputShape)
	return Input{Kind: p.Kind(), Payload: payload}, err
}

// NewOutput returns the message that says p. It always passes [Output.Validate]: what the schemas do not know is left out,
// as are nulls; x and y are rounded. An error means that raw JSON in p is none, or not what it has to be.
func NewOutput(p Payload) (Output, error) {
	payload, err := write(p, outputShape)
	return Output{Kind: p.Kind(), Payload: payload}, err
}

func write(p Payload, shapeOf func(Kind) (shape, bool)) (json.RawMessage, error) {
	k := p.Kind()
	s, ok := shapeOf(k)
	if !ok {
		return nil, fmt.Errorf("%s does not go this way", k)
	}
	encoded, err := encode(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k, err)
	}
	if err := checkText(encoded); err != nil {
		return nil, fmt.Errorf("%s: payload: %w", k, err)
	}
	payload, f := s.shaped(make([]byte, 0, len(encoded)), encoded, "payload", writing)
	if f != nil {
		return nil, fmt.Errorf("%s: %w", k, f)
	}
	return payload, nil
}

// Answer returns the message that answers the request with p. It is also what the other clients get, without ResponseTo.
func (in Input) Answer(p Payload) (Output, error) {
	out, err := NewOutput(p)
	out.ResponseTo = in.ID
	return out, err
}

// Fail returns the message that answers the request with an error, on the request's sub-protocol; on runtime if it has none
// that there is. If err is an [Error], or wraps one, exactly its message is sent, because clients compare it.
func (in Input) Fail(err error) Output {
	answer := Error{Message: err.Error()}
	if known, ok := errors.AsType[Error](err); ok {
		answer = known
	}
	answer.Protocol = in.Kind.Protocol()
	answer.Message, answer.Stack = shortened(answer.Message), shortened(answer.Stack)
	out, err := in.Answer(answer)
	if err != nil {
		panic("fbp: an error that has no message: " + err.Error()) // it is made of texts
	}
	return out
}

// shortened bounds what others have put into an error.
func shortened(text string) string { return text[:min(len(text), maxErrorText)] }

func (in Input) bad(err error) Error {
	return Error{Protocol: answering(in.Kind.Protocol()), Message: fmt.Sprintf("%s: %v", name(in.Kind), err)}
}

// Append appends the message to b as it is sent. The secret goes to both places, for runtimes of all versions.
func (in Input) Append(b []byte) []byte {
	b = appendKind(b, in.Kind)
	payload := trim(orEmpty(in.Payload))
	if in.Secret.IsZero() {
		b = append(b, payload...)
	} else {
		b = append(b, payload[:len(payload)-1]...)
		if payload[skipSpace(payload, 1)] != '}' {
			b = append(b, ',')
		}
		b = appendQuoted(append(b, `"secret":`...), in.Secret.Reveal())
		b = appendQuoted(append(b, `},"secret":`...), in.Secret.Reveal())
	}
	if in.ID != "" {
		b = appendQuoted(append(b, `,"requestId":`...), in.ID)
	}
	return append(b, '}')
}

// Append appends the message to b as it is sent. It does not look into the payload, so that one payload is encoded once for
// many clients.
func (out Output) Append(b []byte) []byte {
	b = append(appendKind(b, out.Kind), orEmpty(out.Payload)...)
	if out.ResponseTo != "" {
		b = appendQuoted(append(b, `,"responseTo":`...), out.ResponseTo)
	}
	return append(b, '}')
}

// orEmpty returns what stands for no payload at all.
func orEmpty(payload json.RawMessage) json.RawMessage {
	if payload == nil {
		return json.RawMessage("{}")
	}
	return payload
}

func appendKind(b []byte, k Kind) []byte {
	b = appendQuoted(append(b, `{"protocol":`...), k.Protocol())
	b = appendQuoted(append(b, `,"command":`...), k.Command())
	return append(b, `,"payload":`...)
}

// Validate reports what the protocol's schema says against the message, which is more than [Input.Parse] minds.
func (in Input) Validate() error { return validate(in.Kind, in.Payload, inputShape) }

// Validate reports what the protocol's schema says against the message. For network:debug and network:persist there is
// none; they are as their requests.
func (out Output) Validate() error { return validate(out.Kind, out.Payload, outputShape) }

func validate(k Kind, payload json.RawMessage, shapeOf func(Kind) (shape, bool)) error {
	s, ok := shapeOf(k)
	if !ok {
		return fmt.Errorf("%s: there is no such message", name(k))
	}
	if err := checkText(payload); err != nil {
		return fmt.Errorf("%s: payload: %w", k, err)
	}
	if _, f := s.shaped(nil, trim(payload), "payload", exact); f != nil {
		return fmt.Errorf("%s: %w", k, f)
	}
	return nil
}
