package fbptest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"

	"github.com/flogate/flogate/forwarding/fbp"
)

// Direction is who said a Line.
type Direction string

// The two directions, as they stand in files.
const (
	ToRuntime Direction = "->"
	ToClient  Direction = "<-"
)

// Line is one message of a Transcript. In a file it is {"dir": "->", "msg": {…}} on a line of its own.
type Line struct {
	Direction Direction       `json:"dir"`
	Message   json.RawMessage `json:"msg"`
}

// Transcript is what a client and a runtime have said to each other, in the order in which the client saw it.
type Transcript []Line

// Load reads a transcript from a file.
func Load(path string) (Transcript, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := Read(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Read reads a transcript.
func Read(r io.Reader) (t Transcript, err error) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 2*fbp.MaxSize)
	for n := 1; scanner.Scan(); n++ {
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		var l Line
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if l.Direction != ToRuntime && l.Direction != ToClient || l.Message == nil {
			return nil, fmt.Errorf("line %d: no direction, or no message", n)
		}
		t = append(t, l)
	}
	return t, scanner.Err()
}

// Write writes the transcript, as Read reads it.
func (t Transcript) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, l := range t {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// Play plays the client's part of a transcript: it sends what the client has sent, with opts.Secret, and waits for what
// the runtime has said, comparing as fbp-test does. It blocks until the transcript is through or something is wrong, which
// the error names by its line, from 1; ctx ends it early. Messages after the last line are not received.
func Play(ctx context.Context, conn Conn, t Transcript, opts Options) error {
	opts = opts.withDefaults()
	p := &player{conn: conn, opts: opts}
	for i, l := range t {
		if err := p.play(ctx, l); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

func (p *player) play(ctx context.Context, l Line) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.opts.Timeout, fmt.Errorf("nothing more came for %v", p.opts.Timeout))
	defer cancel()
	if l.Direction == ToClient {
		out, err := fbp.DecodeOutput(l.Message)
		if err != nil {
			return err
		}
		return p.expect(ctx, out.Kind, out.Payload)
	}
	in, err := fbp.DecodeInput(l.Message)
	if err != nil {
		return err
	}
	in.Secret = fbp.NewSecret(p.opts.Secret)
	if err := p.conn.Send(ctx, in.Append(nil)); err != nil {
		return because(ctx, err)
	}
	return nil
}

// PlayRuntime plays the runtime's part: it waits for each of the client's requests, wants it to be as it was, but for the
// secret and the id, and says what the runtime has said. It blocks until the transcript is through or something is wrong,
// which the error names by its line, from 1; ctx ends it early.
func PlayRuntime(ctx context.Context, conn Conn, t Transcript) error {
	for i, l := range t {
		if err := playRuntime(ctx, conn, l); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}

func playRuntime(ctx context.Context, conn Conn, l Line) error {
	if l.Direction == ToClient {
		return conn.Send(ctx, l.Message)
	}
	text, err := conn.Receive(ctx)
	if err != nil {
		return err
	}
	got, err := fbp.DecodeInput(text)
	if err != nil {
		return err
	}
	want, err := fbp.DecodeInput(l.Message)
	if err != nil {
		return err
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(got.Payload, &a), json.Unmarshal(want.Payload, &b)); err != nil {
		return err
	}
	if got.Kind != want.Kind || !reflect.DeepEqual(a, b) {
		return fmt.Errorf("asked %s %s\nwant  %s %s", got.Kind, got.Payload, want.Kind, want.Payload)
	}
	return nil
}

// Recorder is a client's Conn that writes down what passes.
type Recorder struct {
	conn Conn
	mu   sync.Mutex
	said Transcript
}

// Record returns a Recorder of what passes through a client's connection.
func Record(conn Conn) *Recorder { return &Recorder{conn: conn} }

// Transcript returns what has passed until now, without secrets.
func (r *Recorder) Transcript() Transcript {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(Transcript(nil), r.said...)
}

// Send sends and writes down.
func (r *Recorder) Send(ctx context.Context, message []byte) error {
	if in, err := fbp.DecodeInput(message); err == nil {
		in.Secret = fbp.Secret{}
		r.write(ToRuntime, in.Append(nil))
	}
	return r.conn.Send(ctx, message)
}

// Receive receives and writes down.
func (r *Recorder) Receive(ctx context.Context) ([]byte, error) {
	message, err := r.conn.Receive(ctx)
	if err == nil {
		r.write(ToClient, bytes.Clone(message))
	}
	return message, err
}

func (r *Recorder) write(d Direction, message []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, Line{Direction: d, Message: message})
}
