package coordinator

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

const (
	// defaultTrace is how much is recorded of a graph, in bytes, and maxTrace the most that a client can ask for. What is
	// dumped has to fit into one message.
	defaultTrace = 1 << 20
	maxTrace     = 8 << 20
)

// trace is what has been recorded of a graph: the newest events, as long as there is room.
type trace struct {
	limit  int
	bytes  int
	events []json.RawMessage
	start  time.Time
	end    time.Time // zero while it goes on
}

func newTrace(size int64) *trace {
	if size <= 0 {
		size = defaultTrace
	}
	return &trace{limit: int(min(size, maxTrace)), start: time.Now().UTC()}
}

// add records a message as flowtrace files have it.
func (t *trace) add(m forwarding.Message, at time.Time) {
	event, err := encode(struct {
		Protocol string          `json:"protocol"`
		Command  string          `json:"command"`
		Payload  json.RawMessage `json:"payload"`
		Graph    string          `json:"graph"`
		Time     time.Time       `json:"time"`
	}{m.Kind.Protocol(), m.Kind.Command(), m.Payload, m.Graph, at.UTC()})
	if err != nil {
		return
	}
	t.events = append(t.events, event)
	t.bytes += len(event)
	for t.bytes > t.limit && len(t.events) > 0 {
		t.bytes -= len(t.events[0])
		t.events[0] = nil
		t.events = t.events[1:]
	}
}

func (t *trace) clear() { t.events, t.bytes = nil, 0 }

// dump returns a flowtrace file.
func (t *trace) dump(id, label, kind, text string) (string, error) {
	end := t.end
	if end.IsZero() {
		end = time.Now().UTC()
	}
	type metadata struct {
		Label string    `json:"label,omitempty"`
		Type  string    `json:"type,omitempty"`
		Start time.Time `json:"start"`
		End   time.Time `json:"end"`
	}
	type header struct {
		Metadata metadata                   `json:"metadata"`
		Graphs   map[string]json.RawMessage `json:"graphs"`
		Main     string                     `json:"main"`
	}
	events := t.events
	if events == nil {
		events = []json.RawMessage{}
	}
	var compacted bytes.Buffer
	if err := json.Compact(&compacted, []byte(text)); err != nil {
		return "", err
	}
	file, err := encode(struct {
		Header header            `json:"header"`
		Events []json.RawMessage `json:"events"`
	}{header{metadata{label, kind, t.start, end}, map[string]json.RawMessage{id: compacted.Bytes()}, id}, events})
	return string(file), err
}

func (c *Coordinator) startTrace(l *link, in forwarding.Request, p fbp.StartTrace) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	if r.trace == nil || !r.tracing.Load() {
		r.trace = newTrace(p.BufferSize)
	}
	r.tracing.Store(true)
	c.retap()
	return c.tell(r.id, fbp.StartTrace{Graph: r.id, BufferSize: p.BufferSize}, l)
}

func (c *Coordinator) stopTrace(l *link, in forwarding.Request, p fbp.StopTrace) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	if r.trace != nil && r.tracing.Load() {
		r.trace.end = time.Now().UTC()
	}
	r.tracing.Store(false)
	c.retap()
	return c.tell(r.id, fbp.StopTrace{Graph: r.id}, l)
}

func (c *Coordinator) clearTrace(l *link, in forwarding.Request, p fbp.ClearTrace) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	if r.trace != nil {
		r.trace.clear()
	}
	return c.tell(r.id, fbp.ClearTrace{Graph: r.id}, l)
}

// dumpTrace answers with what was recorded. A trace that has not been started is an empty one that nobody meant.
func (c *Coordinator) dumpTrace(l *link, in forwarding.Request, p fbp.DumpTrace) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.find(p.Graph, in.Access)
	if err != nil {
		return err
	}
	if r.trace == nil {
		return errNoTrace
	}
	now, err := c.cfg.Graphs.Graph(r.id)
	if err != nil {
		return c.known(err)
	}
	text, err := c.text(now)
	if err != nil {
		return err
	}
	file, err := r.trace.dump(r.id, c.cfg.Runtime.Label, c.cfg.Runtime.Type, text)
	if err != nil {
		return err
	}
	return l.reply(fbp.Flowtrace{Graph: r.id, Type: fbp.FlowtraceJSON, Trace: file})
}
