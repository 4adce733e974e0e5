package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Driver returns a driver whose connections lead to m. Its name and scheme are "memory". Its configuration is:
// max_body (bytes), password (any but "wrong" is right), strict = true (an address that nobody has declared or subscribed to
// is refused).
func (m *Memory) Driver() transport.Driver { return &memoryDriver{m: m} }

type memoryDriver struct{ m *Memory }

type memoryConfig struct {
	MaxBody  int64  `json:"max_body"`
	Password string `json:"password"`
	Strict   bool   `json:"strict"`
}

type memoryEndpoint struct {
	Queue       bool  `json:"queue"`
	Acks        *bool `json:"acks"`
	Confirms    *bool `json:"confirms"`
	Deduplicate bool  `json:"deduplicate"`
}

func on(option *bool) bool { return option == nil || *option }

func (*memoryDriver) Describe(context.Context) (transport.Description, error) {
	queueOption := transport.Attribute{Name: "queue", Type: transport.Bool, Default: "false", Doc: "Whether the address is a queue."}
	return transport.Description{
		Name: "memory", Version: "1", Summary: "A broker in memory, for tests.",
		Schemes:      []string{"memory"},
		Capabilities: []string{transport.CapTopology, transport.CapFilters},
		Config: transport.Schema{Attributes: []transport.Attribute{
			{Name: "max_body", Type: transport.Number, Default: "16777216", Doc: "The largest body, in bytes."},
			{Name: "password", Type: transport.String, Secret: true, Doc: `Any but "wrong" is right.`},
			{Name: "strict", Type: transport.Bool, Default: "false", Doc: "Whether unknown addresses are refused."},
		}},
		Source: transport.Schema{Attributes: []transport.Attribute{
			queueOption,
			{Name: "acks", Type: transport.Bool, Default: "true", Doc: "Whether the broker waits for acknowledgements."},
		}},
		Sink: transport.Schema{Attributes: []transport.Attribute{
			queueOption,
			{Name: "confirms", Type: transport.Bool, Default: "true", Doc: "Whether the broker confirms."},
			{Name: "deduplicate", Type: transport.Bool, Default: "false", Doc: "Whether the broker drops messages whose id it knows."},
		}},
	}, nil
}

func (d *memoryDriver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var res transport.ValidateResult
	problem := func(where transport.Part, index int, err error) {
		if err != nil {
			p := transport.Problem{Where: where, Index: index, Message: err.Error()}
			if at, ok := errors.AsType[*attributeError](err); ok {
				p.Path = []string{at.name}
			}
			res.Problems = append(res.Problems, p)
		}
	}
	if req.Config != nil {
		_, err := parseConfig(req.Config)
		problem(transport.InConfig, 0, err)
	}
	for i, src := range req.Sources {
		opts, err := parseSource(src)
		problem(transport.InSource, i, err)
		t := transport.Traits{Acks: on(opts.Acks), Identifies: true, Place: d.place(src.Address, opts)}
		if !t.Acks {
			t.Weakness = "the source does not wait for acknowledgements: set acks = true"
		}
		res.Sources = append(res.Sources, t)
	}
	for i, sink := range req.Sinks {
		opts, err := parseSink(sink)
		problem(transport.InSink, i, err)
		t := transport.Traits{Confirms: on(opts.Confirms), Deduplicates: opts.Deduplicate, Place: d.place(sink.Address, opts)}
		if !t.Confirms {
			t.Weakness = "the sink does not confirm: set confirms = true"
		}
		res.Sinks = append(res.Sinks, t)
	}
	return res, nil
}

func (*memoryDriver) place(address string, opts memoryEndpoint) string {
	if opts.Queue || strings.HasPrefix(address, "queue/") {
		return "queue:" + address
	}
	return "topic:" + address
}

func (d *memoryDriver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	cfg, err := parseConfig(req.Config)
	if err != nil {
		return nil, transport.Permanentf("memory: configuration: %w", err)
	}
	if cfg.Password == "wrong" {
		return nil, transport.Permanentf("memory: access refused")
	}
	m := d.m
	if err := m.reach(ctx, nil); err != nil {
		return nil, fmt.Errorf("memory: connect: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unreachable != nil {
		return nil, fmt.Errorf("memory: connect: %w", m.unreachable)
	}
	c := &memoryConn{m: m, name: req.Name, cfg: cfg, subs: map[*memorySub]struct{}{}, pubs: map[*memoryPub]struct{}{}}
	m.conns[c] = struct{}{}
	m.lives++
	m.notify()
	return c, nil
}

// reach blocks while nothing reaches the broker. It returns the error of ctx, or of the connection when that ends first.
func (m *Memory) reach(ctx context.Context, c *memoryConn) error {
	var err error
	wait := m.Await(ctx, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if c != nil && c.err != nil {
			err = c.err
		}
		return err != nil || !m.dark
	})
	return errors.Join(wait, err)
}

// attributeError is something wrong with one attribute.
type attributeError struct{ name, text string }

func (e *attributeError) Error() string { return e.text }

func parse(data json.RawMessage, into any) error {
	if len(data) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &attributeError{name: kind.Field, text: fmt.Sprintf("%s cannot be a %s", kind.Field, kind.Value)}
	}
	if err != nil {
		// The text of other errors may quote the input, in which there may be secrets.
		return errors.New("not an object of the attributes that there are")
	}
	if dec.More() {
		return errors.New("something follows the object")
	}
	return nil
}

func parseConfig(data json.RawMessage) (memoryConfig, error) {
	cfg := memoryConfig{MaxBody: defaultMaxBody}
	if err := parse(data, &cfg); err != nil {
		return cfg, err
	}
	if cfg.MaxBody < 1 {
		return cfg, &attributeError{name: "max_body", text: "max_body must be at least 1"}
	}
	return cfg, nil
}

func parseSource(src transport.Source) (memoryEndpoint, error) {
	var opts memoryEndpoint
	if err := parse(src.Options, &opts); err != nil {
		return opts, err
	}
	if src.Address == "" {
		return opts, &attributeError{name: "address", text: "a source needs an address"}
	}
	if i := strings.Index(src.Address, "#"); i >= 0 && i != len(src.Address)-1 && !opts.Queue {
		return opts, &attributeError{name: "address", text: "# may only stand at the end of a filter"}
	}
	return opts, nil
}

func parseSink(sink transport.Sink) (memoryEndpoint, error) {
	var opts memoryEndpoint
	if err := parse(sink.Options, &opts); err != nil {
		return opts, err
	}
	for word := range strings.SplitSeq(sink.Address, "/") {
		if word == "+" || word == "#" {
			return opts, &attributeError{name: "address", text: "a sink's address may not be a filter"}
		}
	}
	return opts, nil
}

// memoryConn is one life of a connection. Its fields are guarded by m.mu.
type memoryConn struct {
	m    *Memory
	name string
	cfg  memoryConfig
	subs map[*memorySub]struct{}
	pubs map[*memoryPub]struct{}
	told transport.Condition // what Next has reported last
	err  error               // why the connection has ended
}

func (c *memoryConn) Info() transport.ConnInfo {
	return transport.ConnInfo{Product: "transporttest.Memory", MaxBody: c.cfg.MaxBody}
}

func (c *memoryConn) Next(ctx context.Context) (transport.Condition, error) {
	m := c.m
	var err error
	wait := m.Await(ctx, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if c.err != nil {
			err = c.err
			return true
		}
		now := transport.Condition{Blocked: m.blocked, Reason: m.blockReason}
		if m.dark || now == c.told {
			return false
		}
		c.told = now
		return true
	})
	if wait != nil {
		return transport.Condition{}, wait
	}
	return c.told, err
}

func (c *memoryConn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	opts, err := parseSource(src)
	if err != nil {
		return nil, transport.Permanentf("memory: subscribe to %q: %w", src.Address, err)
	}
	m := c.m
	if err := m.reach(ctx, c); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.cfg.Strict && !m.exists(src.Address) {
		return nil, transport.Permanentf("memory: subscribe to %q: there is no such address", src.Address)
	}
	s := &memorySub{
		conn: c, acks: on(opts.Acks), prefetch: math.MaxInt64,
		inbox: transport.NewInbox[*entry](false), out: map[*entry]struct{}{},
	}
	if src.Window.Messages > 0 {
		s.prefetch = src.Window.Messages
	}
	fresh := false
	if opts.Queue || m.isQueue(src.Address) {
		s.queue = m.openQueue(src.Address)
	} else {
		key := topicKey(c.name, src.Name)
		if src.Name == "" {
			m.seq++
			key = fmt.Sprintf("anonymous %d", m.seq)
		}
		s.queue = m.queues[key]
		if s.queue == nil {
			s.queue = &queue{key: key, topic: true, durable: src.Name != ""}
			m.queues[key] = s.queue
			fresh = true
		}
		s.queue.address = src.Address
	}
	s.queue.consumers = append(s.queue.consumers, s)
	c.subs[s] = struct{}{}
	if fresh {
		for address, msg := range m.retained {
			if matches(src.Address, address, "/", "+") {
				m.seq++
				m.push(s.queue, msg)
			}
		}
	}
	m.dispatch(s.queue)
	m.notify()
	return s, nil
}

func (c *memoryConn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	opts, err := parseSink(sink)
	if err != nil {
		return nil, transport.Permanentf("memory: publish to %q: %w", sink.Address, err)
	}
	m := c.m
	if err := m.reach(ctx, c); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if opts.Queue && sink.Address != "" {
		m.openQueue(sink.Address)
	}
	if c.cfg.Strict && sink.Address != "" && !m.exists(sink.Address) {
		return nil, transport.Permanentf("memory: publish to %q: there is no such address", sink.Address)
	}
	p := &memoryPub{conn: c, sink: sink, opts: opts, outbox: transport.NewOutbox(maxUnconfirmed)}
	c.pubs[p] = struct{}{}
	return p, nil
}

// maxUnconfirmed bounds what a publisher has in flight.
const maxUnconfirmed = 1024

func (c *memoryConn) Close(context.Context) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.end(c, nil)
	return nil
}

// Declare, Bind and Unbind make a memoryConn a transport.Topology.
func (c *memoryConn) Declare(ctx context.Context, place transport.Place) error {
	m := c.m
	if err := m.reach(ctx, c); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if was, ok := m.places[place.Address]; ok && was != place {
		return transport.Permanentf("memory: declare %q: it exists with other properties", place.Address)
	}
	if place.Address == "" || place.Kind < transport.Queue || place.Kind > transport.Topic || place.Kind != transport.Queue && place.DeadLetter != "" {
		return transport.Permanentf("memory: declare %q: no such place can be", place.Address)
	}
	m.places[place.Address] = place
	if place.Kind == transport.Queue {
		m.openQueue(place.Address).deadLetter = place.DeadLetter
	}
	m.notify()
	return nil
}

func (c *memoryConn) Bind(ctx context.Context, b transport.Binding) error {
	return c.rebind(ctx, b, true)
}

func (c *memoryConn) Unbind(ctx context.Context, b transport.Binding) error {
	return c.rebind(ctx, b, false)
}

func (c *memoryConn) rebind(ctx context.Context, b transport.Binding, bound bool) error {
	m := c.m
	if err := m.reach(ctx, c); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if bound && (m.places[b.From.Address] != b.From || m.places[b.To.Address] != b.To || b.From.Kind == transport.Queue) {
		return transport.Permanentf("memory: bind %q to %q: no such way can be", b.From.Address, b.To.Address)
	}
	kept := m.bindings[:0:0]
	for _, old := range m.bindings {
		if old != b {
			kept = append(kept, old)
		}
	}
	if bound {
		kept = append(kept, b)
	}
	m.bindings = kept
	m.notify()
	return nil
}

// memorySub is a subscription. Its fields are guarded by m.mu, except for the inbox.
type memorySub struct {
	conn     *memoryConn
	queue    *queue
	inbox    *transport.Inbox[*entry]
	acks     bool
	prefetch int64               // most messages that may be out
	out      map[*entry]struct{} // given to the inbox and not settled
}

func (s *memorySub) Receive(ctx context.Context) ([]transport.Delivery, error) {
	return s.inbox.Receive(ctx)
}

func (s *memorySub) Grant(credit transport.Credit) error { return s.inbox.Grant(credit) }

func (s *memorySub) Settle(_ context.Context, settlements []transport.Settlement) error {
	done, err := s.inbox.Settle(settlements)
	m := s.conn.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dark || s.out == nil {
		return err // it does not reach the broker: what is unsettled comes again
	}
	var back []*entry
	for _, d := range done {
		delete(s.out, d.Token)
		switch {
		case d.Outcome == transport.Release && s.acks:
			back = append(back, d.Token)
		case d.Outcome == transport.Reject && s.queue.deadLetter != "":
			dead := d.Token.msg
			m.copyTo(s.queue.deadLetter, dead.Address, dead, map[string]bool{})
		}
	}
	m.giveBack(s.queue, back)
	m.notify()
	return err
}

func (s *memorySub) Close(context.Context) error {
	m := s.conn.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.detach(s, nil)
	m.notify()
	return nil
}

func (s *memorySub) Remove(ctx context.Context) error {
	m := s.conn.m
	if err := m.reach(ctx, s.conn); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.detach(s, nil)
	if s.queue.topic && len(s.queue.consumers) == 0 {
		delete(m.queues, s.queue.key)
	}
	m.notify()
	return nil
}

type memoryPub struct {
	conn   *memoryConn
	sink   transport.Sink
	opts   memoryEndpoint
	outbox *transport.Outbox
}

func (p *memoryPub) Publish(ctx context.Context, msgs []transport.Message) error {
	for _, msg := range msgs {
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		if err := p.publish(ctx, n, msg); err != nil {
			return err
		}
	}
	return nil
}

// publish waits while the broker is blocked, and hands it one message.
func (p *memoryPub) publish(ctx context.Context, n uint64, msg transport.Message) error {
	m := p.conn.m
	var err error
	wait := m.Await(ctx, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		err = p.conn.err
		return err != nil || !m.blocked
	})
	if wait != nil || err != nil {
		return errors.Join(wait, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.conn.err != nil {
		return p.conn.err
	}
	if m.dark {
		if !on(p.opts.Confirms) {
			p.outbox.Done(n, n, nil)
		}
		return nil
	}
	address := p.sink.Address
	if address == "" {
		address = msg.Address
	}
	refused := p.refuses(address, msg)
	if refused == nil {
		m.route(address, msg, p.opts.Deduplicate)
		m.notify()
	}
	confirm := func() { p.outbox.Done(n, n, refused) }
	switch {
	case !on(p.opts.Confirms):
		confirm()
	case m.stalled:
		m.held = append(m.held, confirm)
	case m.delay > 0:
		time.AfterFunc(m.delay, confirm)
	default:
		confirm()
	}
	return nil
}

func (p *memoryPub) refuses(address string, msg transport.Message) error {
	m := p.conn.m
	switch size := int64(len(msg.Body)); {
	case address == "":
		return transport.Permanentf("the message has no address")
	case size > p.conn.cfg.MaxBody:
		return transport.Permanentf("a body of %d bytes is larger than the broker's maximum of %d", size, p.conn.cfg.MaxBody)
	case p.conn.cfg.Strict && !m.exists(address):
		return transport.Permanentf("there is no address %q", address)
	}
	return m.refusals[address]
}

func (p *memoryPub) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *memoryPub) Close(context.Context) error {
	m := p.conn.m
	m.mu.Lock()
	defer m.mu.Unlock()
	p.outbox.Fail(nil)
	delete(p.conn.pubs, p)
	return nil
}
