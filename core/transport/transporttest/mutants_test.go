package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// A mutant is a driver with one thing wrong. What is nil is as it should be.
type mutant struct {
	transport.Driver
	describe func(context.Context, transport.Driver) (transport.Description, error)
	validate func(context.Context, transport.Driver, transport.ValidateRequest) (transport.ValidateResult, error)
	connect  func(context.Context, transport.Driver, transport.ConnectRequest) (transport.Conn, error)

	next      func(context.Context, transport.Conn) (transport.Condition, error)
	closeConn func(context.Context, transport.Conn) error
	declare   func(context.Context, transport.Topology, transport.Place) error
	unbind    func(context.Context, transport.Topology, transport.Binding) error
	source    func(*transport.Source)
	sink      func(*transport.Sink)

	sub func(*mutantSub)
	pub func(*mutantPub)
}

// mutantSub and mutantPub have one method each that is not the inner one's, or several.
type mutantSub struct {
	transport.Subscription
	conn    transport.Conn
	src     transport.Source
	receive func(context.Context) ([]transport.Delivery, error)
	grant   func(transport.Credit) error
	settle  func(context.Context, []transport.Settlement) error
	close   func(context.Context) error
	remove  func(context.Context) error
}

type mutantPub struct {
	transport.Publisher
	conn     transport.Conn
	publish  func(context.Context, []transport.Message) error
	confirms func(context.Context) ([]transport.Confirm, error)
	close    func(context.Context) error
}

func (m *mutant) Describe(ctx context.Context) (transport.Description, error) {
	if m.describe != nil {
		return m.describe(ctx, m.Driver)
	}
	return m.Driver.Describe(ctx)
}

func (m *mutant) Validate(ctx context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	if m.validate != nil {
		return m.validate(ctx, m.Driver, req)
	}
	return m.Driver.Validate(ctx, req)
}

func (m *mutant) Connect(ctx context.Context, req transport.ConnectRequest) (conn transport.Conn, err error) {
	if m.connect != nil {
		conn, err = m.connect(ctx, m.Driver, req)
	} else {
		conn, err = m.Driver.Connect(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	return &mutantConn{Conn: conn, m: m}, nil
}

type mutantConn struct {
	transport.Conn
	m *mutant
}

func (c *mutantConn) Next(ctx context.Context) (transport.Condition, error) {
	if c.m.next != nil {
		return c.m.next(ctx, c.Conn)
	}
	return c.Conn.Next(ctx)
}

func (c *mutantConn) Close(ctx context.Context) error {
	if c.m.closeConn != nil {
		return c.m.closeConn(ctx, c.Conn)
	}
	return c.Conn.Close(ctx)
}

func (c *mutantConn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	if c.m.source != nil {
		c.m.source(&src)
	}
	inner, err := c.Conn.Subscribe(ctx, src)
	if err != nil {
		return nil, err
	}
	s := &mutantSub{
		Subscription: inner, conn: c.Conn, src: src,
		receive: inner.Receive, grant: inner.Grant, settle: inner.Settle, close: inner.Close, remove: inner.Remove,
	}
	if c.m.sub != nil {
		c.m.sub(s)
	}
	return s, nil
}

func (c *mutantConn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	if c.m.sink != nil {
		c.m.sink(&sink)
	}
	inner, err := c.Conn.Publish(ctx, sink)
	if err != nil {
		return nil, err
	}
	p := &mutantPub{Publisher: inner, conn: c.Conn, publish: inner.Publish, confirms: inner.Confirms, close: inner.Close}
	if c.m.pub != nil {
		c.m.pub(p)
	}
	return p, nil
}

func (c *mutantConn) Declare(ctx context.Context, place transport.Place) error {
	if c.m.declare != nil {
		return c.m.declare(ctx, c.Conn.(transport.Topology), place)
	}
	return c.Conn.(transport.Topology).Declare(ctx, place)
}

func (c *mutantConn) Bind(ctx context.Context, b transport.Binding) error {
	return c.Conn.(transport.Topology).Bind(ctx, b)
}

func (c *mutantConn) Unbind(ctx context.Context, b transport.Binding) error {
	if c.m.unbind != nil {
		return c.m.unbind(ctx, c.Conn.(transport.Topology), b)
	}
	return c.Conn.(transport.Topology).Unbind(ctx, b)
}

func (s *mutantSub) Receive(ctx context.Context) ([]transport.Delivery, error) { return s.receive(ctx) }

func (s *mutantSub) Grant(credit transport.Credit) error { return s.grant(credit) }

func (s *mutantSub) Settle(ctx context.Context, settlements []transport.Settlement) error {
	return s.settle(ctx, settlements)
}
func (s *mutantSub) Close(ctx context.Context) error  { return s.close(ctx) }
func (s *mutantSub) Remove(ctx context.Context) error { return s.remove(ctx) }

func (p *mutantPub) Publish(ctx context.Context, msgs []transport.Message) error {
	return p.publish(ctx, msgs)
}

func (p *mutantPub) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.confirms(ctx)
}
func (p *mutantPub) Close(ctx context.Context) error { return p.close(ctx) }

// eachMessage changes messages on their way out.
func eachMessage(change func(m *transport.Message)) func(*mutantPub) {
	return func(p *mutantPub) {
		p.publish = func(ctx context.Context, msgs []transport.Message) error {
			msgs = slices.Clone(msgs)
			for i := range msgs {
				change(&msgs[i])
			}
			return p.Publisher.Publish(ctx, msgs)
		}
	}
}

// eachDelivery changes messages on their way in.
func eachDelivery(change func(s *mutantSub, d *transport.Delivery)) func(*mutantSub) {
	return func(s *mutantSub) {
		s.receive = func(ctx context.Context) ([]transport.Delivery, error) {
			ds, err := s.Subscription.Receive(ctx)
			for i := range ds {
				change(s, &ds[i])
			}
			return ds, err
		}
	}
}

// eachSettlement changes settlements.
func eachSettlement(change func(s *transport.Settlement)) func(*mutantSub) {
	return func(s *mutantSub) {
		s.settle = func(ctx context.Context, settlements []transport.Settlement) error {
			settlements = slices.Clone(settlements)
			for i := range settlements {
				change(&settlements[i])
			}
			return s.Subscription.Settle(ctx, settlements)
		}
	}
}

// confirmsEarly confirms what was handed over, and loses every nth message; 0 is none.
func confirmsEarly(nth uint64) func(*mutantPub) {
	return func(p *mutantPub) {
		outbox := transport.NewOutbox(1000)
		p.publish = func(ctx context.Context, msgs []transport.Message) error {
			for i := range msgs {
				n, err := outbox.Reserve(ctx)
				if err != nil {
					return err
				}
				if nth == 0 || n%nth != 0 {
					if err := p.Publisher.Publish(ctx, msgs[i:i+1]); err != nil {
						outbox.Fail(err)
						return err
					}
				}
				outbox.Done(n, n, nil)
			}
			return nil
		}
		p.confirms = outbox.Confirms
	}
}

func acksEarly(s *mutantSub) {
	s.receive = func(ctx context.Context) ([]transport.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx)
		if len(ds) > 0 {
			_ = s.Subscription.Settle(ctx, ranges(transport.Ack, ds))
		}
		return ds, err
	}
	s.settle = func(context.Context, []transport.Settlement) error { return nil }
}

func grantsItself(s *mutantSub) { _ = s.Subscription.Grant(plenty) }

func nothingHappens(context.Context) error { return nil }

// mutants returns drivers of which each breaks the rules that are named with it. release ends what they have left over.
func mutants(m *Memory, release <-chan struct{}) map[*mutant][]string {
	type ctx = context.Context
	var firstGranted sync.Once
	granted := make(chan struct{})
	subs := 0
	return map[*mutant][]string{
		{describe: func(c ctx, d transport.Driver) (transport.Description, error) {
			desc, err := d.Describe(c)
			desc.Config.Attributes = append(desc.Config.Attributes, transport.Attribute{Name: "max_body", Type: "integer"})
			return desc, err
		}}: {"Describe describes"},
		{validate: func(c ctx, d transport.Driver, req transport.ValidateRequest) (transport.ValidateResult, error) {
			res, err := d.Validate(c, req)
			for i := range res.Sinks {
				res.Sinks[i].Confirms = false
			}
			return res, err
		}}: {"Validate finds nothing wrong with what the suite uses, and its promises are true"},
		{validate: func(c ctx, d transport.Driver, req transport.ValidateRequest) (transport.ValidateResult, error) {
			var cfg any
			if err := json.Unmarshal(req.Config, &cfg); err != nil && req.Config != nil {
				panic(err)
			}
			return d.Validate(c, req)
		}}: {"Validate takes nonsense"},
		{validate: func(c ctx, d transport.Driver, req transport.ValidateRequest) (transport.ValidateResult, error) {
			res, err := d.Validate(c, req)
			for i := range res.Sinks {
				res.Sinks[i].Headerless = true
			}
			return res, err
		}}: {"Validate finds nothing wrong with what the suite uses, and its promises are true"},
		{validate: func(c ctx, d transport.Driver, req transport.ValidateRequest) (transport.ValidateResult, error) {
			res, err := d.Validate(c, req)
			for i := range res.Problems {
				res.Problems[i].Message += " in " + string(req.Config)
			}
			return res, err
		}}: {"Validate does not tell secrets"},
		{validate: func(c ctx, d transport.Driver, req transport.ValidateRequest) (transport.ValidateResult, error) {
			if err := m.reach(c, nil); err != nil {
				return transport.ValidateResult{}, err
			}
			return d.Validate(c, req)
		}}: {"Describe and Validate need no broker"},
		{connect: func(c ctx, d transport.Driver, req transport.ConnectRequest) (transport.Conn, error) {
			if !json.Valid(req.Config) {
				req.Config = nil
			}
			return d.Connect(c, req)
		}}: {"Connect refuses nonsense for good"},
		{connect: func(c ctx, d transport.Driver, req transport.ConnectRequest) (transport.Conn, error) {
			conn, err := d.Connect(c, req)
			if err == nil {
				context.AfterFunc(c, func() { _ = conn.Close(context.Background()) })
			}
			return conn, err
		}}: {"the end of the context of Connect does not end the connection"},
		{connect: func(c ctx, d transport.Driver, req transport.ConnectRequest) (transport.Conn, error) {
			conn, err := d.Connect(c, req)
			if err == nil {
				err = c.Err()
			}
			return conn, transport.Permanent(err)
		}}: {"a cancelled Connect leaves nothing", "Connect returns with its context while the broker is silent"},
		{connect: func(c ctx, d transport.Driver, req transport.ConnectRequest) (transport.Conn, error) {
			go func() { <-release }()
			return d.Connect(c, req)
		}}: {"closing with everything in flight leaves nothing"},
		{source: func(s *transport.Source) { s.Options = nil }, sink: func(s *transport.Sink) { s.Options = nil }}: {"Subscribe and Publish refuse nonsense"},
		{source: func(s *transport.Source) { s.Address = strings.TrimSpace(s.Address) }}:                           {"any address survives"},
		{next: func(c ctx, conn transport.Conn) (transport.Condition, error) {
			for {
				if _, err := conn.Next(c); err != nil {
					return transport.Condition{}, err
				}
			}
		}}: {"a blocked broker is back-pressure"},
		{next: func(c ctx, conn transport.Conn) (transport.Condition, error) {
			<-c.Done()
			return transport.Condition{}, c.Err()
		}}: {"a silent broker is noticed within 5 seconds"},
		{next: func(c ctx, conn transport.Conn) (transport.Condition, error) {
			condition, err := conn.Next(c)
			if errors.Is(err, transport.ErrClosed) {
				err = transport.ErrClosed
			}
			return condition, err
		}}: {"a lost connection ends with its reason and everything on it"},
		{closeConn: func(c ctx, conn transport.Conn) error { return nil }}: {"closing a connection ends everything on it"},
		{closeConn: func(c ctx, conn transport.Conn) error {
			m.KillConnections("closed")
			return nil
		}}: {"two connections do not disturb one another"},
		{closeConn: func(c ctx, conn transport.Conn) error {
			time.Sleep(4100 * time.Millisecond)
			return conn.Close(c)
		}}: {"Close returns while the broker is silent"},
		{declare: func(c ctx, t transport.Topology, p transport.Place) error {
			_ = t.Declare(c, p)
			return nil
		}}: {"a place is declared once and not changed"},
		{unbind: func(ctx, transport.Topology, transport.Binding) error { return nil }}: {"the broker carries what is bound until it is unbound"},

		{sub: grantsItself}: {
			"no delivery before credit", "never more unsettled than credit in messages",
			"never more unsettled than credit in bytes", "a message larger than the byte credit passes alone",
		},
		{sub: acksEarly}: {"nothing is acknowledged before Settle", "nothing is acknowledged before Settle when the connection is lost"},
		{sub: func(s *mutantSub) {
			s.receive = func(c ctx) ([]transport.Delivery, error) {
				var all []transport.Delivery
				till, cancel := context.WithTimeout(c, 3500*time.Millisecond)
				defer cancel()
				for len(all) < 2 {
					ds, err := s.Subscription.Receive(till)
					if err != nil && (len(all) == 0 || c.Err() != nil) {
						return nil, err
					}
					if err != nil {
						break
					}
					all = append(all, ds...)
				}
				return all, nil
			}
		}}: {"Receive returns what is there without waiting for more"},
		{sub: func(s *mutantSub) {
			s.receive = func(c ctx) ([]transport.Delivery, error) {
				ds, err := s.Subscription.Receive(c)
				time.Sleep(100 * time.Microsecond)
				if c.Err() != nil {
					return nil, c.Err()
				}
				return ds, err
			}
		}}: {"a cancelled Receive loses nothing"},
		{sub: func(s *mutantSub) {
			subs++
			if subs == 1 {
				s.grant = func(credit transport.Credit) error {
					firstGranted.Do(func() { close(granted) })
					return s.Subscription.Grant(credit)
				}
				return
			}
			s.receive = func(c ctx) ([]transport.Delivery, error) {
				select {
				case <-granted:
				case <-c.Done():
					return nil, c.Err()
				}
				return s.Subscription.Receive(c)
			}
		}}: {"a subscription without credit does not hold another up"},
		{sub: func(s *mutantSub) {
			s.settle = func(context.Context, []transport.Settlement) error { return nil }
		}}: {"an acknowledged delivery does not come again"},
		{sub: eachSettlement(func(s *transport.Settlement) {
			if s.Outcome == transport.Release {
				s.Outcome = transport.Ack
			}
		})}: {"a released delivery comes again"},
		{sub: eachSettlement(func(s *transport.Settlement) {
			if s.Outcome == transport.Reject {
				s.Outcome = transport.Release
			}
		})}: {"a rejected delivery does not come again"},
		{sub: eachSettlement(func(s *transport.Settlement) { s.Last = s.First })}: {"settlements come in any order and in ranges"},
		{sub: func(s *mutantSub) {
			s.settle = func(c ctx, settlements []transport.Settlement) error {
				err := s.Subscription.Settle(c, settlements)
				if err != nil {
					_ = s.conn.Close(c)
				}
				return err
			}
		}}: {"a wrong settlement takes nothing else down"},
		{sub: eachDelivery(func(s *mutantSub, d *transport.Delivery) { d.Address = s.src.Address })}:               {"a filter gets what it matches, with the real address"},
		{sub: func(s *mutantSub) { s.close = s.Subscription.Remove }}:                                              {"a closed subscription goes on where it stopped"},
		{sub: func(s *mutantSub) { s.close = nothingHappens }}:                                                     {"a closed subscription is closed and its connection goes on"},
		{sub: func(s *mutantSub) { s.remove = s.Subscription.Close }}:                                              {"Remove removes what the broker keeps"},
		{sub: eachDelivery(func(_ *mutantSub, d *transport.Delivery) { d.Body = bytes.ToValidUTF8(d.Body, nil) })}: {"any body survives"},

		{pub: func(p *mutantPub) {
			p.publish = func(c ctx, msgs []transport.Message) error {
				for _, msg := range msgs {
					if err := p.Publisher.Publish(c, []transport.Message{msg, msg}); err != nil {
						return err
					}
				}
				return nil
			}
		}}: {"what is published arrives"},
		{pub: func(p *mutantPub) {
			p.publish = func(c ctx, msgs []transport.Message) error {
				msgs = slices.Clone(msgs)
				slices.Reverse(msgs)
				return p.Publisher.Publish(c, msgs)
			}
		}}: {"order is kept from publisher to subscription", "everything may be used concurrently"},
		{pub: func(p *mutantPub) {
			var before []transport.Confirm
			p.confirms = func(c ctx) ([]transport.Confirm, error) {
				cs, err := p.Publisher.Confirms(c)
				cs, before = append(before, cs...), cs
				return cs, err
			}
		}}: {"confirms ascend without gaps while many messages are in flight"},
		{pub: confirmsEarly(10)}: {"a confirmed message is with the broker", "a message is lost by no number of lost connections"},
		{pub: confirmsEarly(0)}:  {"no confirm without the broker's word"},
		{pub: func(p *mutantPub) {
			p.confirms = func(c ctx) ([]transport.Confirm, error) {
				cs, err := p.Publisher.Confirms(c)
				for i := range cs {
					cs[i].Refused = nil
				}
				return cs, err
			}
		}}: {"a refused message is refused and the others pass"},
		{pub: eachMessage(func(m *transport.Message) { m.Body = m.Body[:min(len(m.Body), 1<<20)] })}: {"the largest message passes"},
		{pub: func(p *mutantPub) {
			p.publish = func(c ctx, msgs []transport.Message) error {
				for _, msg := range msgs {
					if len(msg.Body) > defaultMaxBody {
						_ = p.conn.Close(c)
					}
				}
				return p.Publisher.Publish(c, msgs)
			}
		}}: {"a message that is too large is refused and takes nothing down"},
		{pub: func(p *mutantPub) {
			var queued [][]transport.Message
			first := true
			p.publish = func(c ctx, msgs []transport.Message) error {
				if first {
					first = false
					return p.Publisher.Publish(c, msgs)
				}
				queued = append(queued, msgs)
				return nil
			}
		}}: {"a cancelled Publish returns"},
		{pub: eachMessage(func(m *transport.Message) { m.ID += time.Now().String() })}: {"what has the id of an earlier message is confirmed and dropped"},
		{pub: func(p *mutantPub) { p.close = nothingHappens }}:                         {"a closed publisher is closed and its connection goes on"},
		{pub: func(p *mutantPub) {
			outbox := transport.NewOutbox(1000)
			var kept []transport.Message
			p.publish = func(c ctx, msgs []transport.Message) error {
				err := p.Publisher.Publish(c, kept)
				kept = msgs
				for range msgs {
					n, _ := outbox.Reserve(c)
					outbox.Done(n, n, nil)
				}
				return err
			}
			p.confirms = outbox.Confirms
		}}: {"the publisher keeps nothing of a message that is confirmed"},
		{pub: eachMessage(func(m *transport.Message) { m.Headers = append(m.Headers, transport.Header{Name: "via", Value: "x"}) })}: {"a message without anything arrives without anything"},
		{pub: eachMessage(func(m *transport.Message) { m.Retain = false })}:                                                         {"a retained message comes to later subscriptions"},
		{pub: eachMessage(func(m *transport.Message) { m.Durable = false })}:                                                        {"a restarted broker has what it has confirmed", "every field that is carried survives"},
	}
}

// mutantLimit bounds a case that is about to fail: nothing in memory takes so long.
const mutantLimit = time.Second

// deduplicating returns the Target of m with sinks that deduplicate.
func deduplicating(m *Memory) Target {
	target := m.Target()
	pair := target.Pair
	target.Pair = func(t testing.TB) (transport.Source, transport.Sink) {
		src, sink := pair(t)
		sink.Options = json.RawMessage(`{"deduplicate": true}`)
		return src, sink
	}
	target.Has.Deduplicates = true
	return target
}

func TestEveryCaseFailsForADriverThatBreaksItsRule(t *testing.T) {
	byName := map[string]testCase{}
	for _, c := range cases() {
		byName[c.name] = c
	}
	caught := map[string]bool{}
	release := make(chan struct{})
	defer close(release)
	names := [][]string{}
	for _, ns := range mutants(NewMemory(), release) {
		names = append(names, ns)
	}
	for _, ns := range names {
		for _, name := range ns {
			caught[name] = true
			t.Run(name, func(t *testing.T) {
				c, ok := byName[name]
				if !ok {
					t.Fatal("there is no such case")
				}
				m := NewMemory()
				target := deduplicating(m)
				if why := c.without(target); why != "" {
					t.Fatalf("the case does not apply: %s", why)
				}
				for mutant, broken := range mutants(m, release) {
					if !slices.Contains(broken, name) {
						continue
					}
					mutant.Driver = m.Driver()
					target.New = func(testing.TB) transport.Driver { return mutant }
					limit := mutantLimit
					if strings.Contains(name, "without waiting for more") {
						limit = 10 * time.Second // the rule is about seconds
					}
					result := c.examine(t, target, limit)
					if !result.Failed() {
						t.Error("the case passes")
						continue
					}
					for _, line := range result.lines[:min(3, len(result.lines))] {
						first, _, _ := strings.Cut(line, "\n")
						t.Logf("found: %.200s", first)
					}
				}
			})
		}
	}
	for name := range byName {
		if !caught[name] {
			t.Errorf("no driver breaks the rule %q", name)
		}
	}
}

func TestEveryFieldThatIsLostIsNoticed(t *testing.T) {
	var fields testCase
	for _, c := range cases() {
		if c.name == "every field that is carried survives" {
			fields = c
		}
	}
	headers := func(keep func(transport.Header) (transport.Header, bool)) func(*transport.Message) {
		return func(m *transport.Message) {
			var kept []transport.Header
			for _, h := range m.Headers {
				if h, ok := keep(h); ok {
					kept = append(kept, h)
				}
			}
			m.Headers = kept
		}
	}
	for name, lose := range map[string]func(m *transport.Message){
		"ContentType":     func(m *transport.Message) { m.ContentType = "" },
		"ContentEncoding": func(m *transport.Message) { m.ContentEncoding = "" },
		"ID":              func(m *transport.Message) { m.ID = "" },
		"CorrelationID":   func(m *transport.Message) { m.CorrelationID = strings.ToValidUTF8(m.CorrelationID, "?") },
		"ReplyTo":         func(m *transport.Message) { m.ReplyTo = "" },
		"Created":         func(m *transport.Message) { m.Created = time.Now() },
		"TTL":             func(m *transport.Message) { m.TTL *= 1000 },
		"Priority":        func(m *transport.Message) { m.Priority = 0 },
		"Durable":         func(m *transport.Message) { m.Durable = !m.Durable },
		"Retain":          func(m *transport.Message) { m.Retain = true },
		"Body":            func(m *transport.Message) { m.Body = bytes.TrimSpace(append(m.Body, ' ')); m.Body = m.Body[1:] },
		"all headers":     func(m *transport.Message) { m.Headers = nil },
		"binary marks":    headers(func(h transport.Header) (transport.Header, bool) { h.Binary = false; return h, true }),
		"names in lower case": headers(func(h transport.Header) (transport.Header, bool) {
			h.Name = strings.ToLower(h.Name)
			return h, true
		}),
		"spaces": headers(func(h transport.Header) (transport.Header, bool) {
			h.Value = strings.TrimSpace(h.Value)
			return h, true
		}),
		"empty values": headers(func(h transport.Header) (transport.Header, bool) { return h, h.Value != "" }),
		"order":        func(m *transport.Message) { m.Headers = byName(m.Headers) },
		"repeats": func(m *transport.Message) {
			seen := map[string]bool{}
			headers(func(h transport.Header) (transport.Header, bool) {
				first := !seen[h.Name]
				seen[h.Name] = true
				return h, first
			})(m)
		},
		"Attempt":  func(m *transport.Message) { m.Attempt = 0 },
		"SourceID": func(m *transport.Message) { m.SourceID = "always the same" },
		"Address":  func(m *transport.Message) { m.Address = "" },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMemory()
			target := m.Target()
			target.New = func(testing.TB) transport.Driver {
				return &mutant{Driver: m.Driver(), sub: eachDelivery(func(_ *mutantSub, d *transport.Delivery) { lose(&d.Message) })}
			}
			if !fields.examine(t, target, mutantLimit).Failed() {
				t.Error("the case passes")
			}
		})
	}
}

func TestDriverThatHeedsNoContextIsLeftBehind(t *testing.T) {
	release := make(chan struct{})
	target := NewMemory().Target()
	inner := target.New(t)
	target.New = func(testing.TB) transport.Driver {
		return &mutant{Driver: inner, sub: func(s *mutantSub) {
			s.receive = func(context.Context) ([]transport.Delivery, error) {
				<-release
				return nil, transport.ErrClosed
			}
		}}
	}
	c := testCase{name: "what is published arrives", run: arrives}
	result := c.examine(t, target, 100*time.Millisecond)
	if !result.Failed() || !result.hung() || !strings.Contains(strings.Join(result.lines, "\n"), "does not heed its context") {
		t.Errorf("failed %t, hung %t: %.300q", result.Failed(), result.hung(), result.lines)
	}
	close(release)
}

func TestTargetSaysWhatItLacks(t *testing.T) {
	whole := NewMemory().Target()
	if err := whole.check(); err != nil {
		t.Errorf("a whole target: %v", err)
	}
	silent := whole
	silent.Cut = nil
	if err := silent.check(); err == nil || !strings.Contains(err.Error(), "Cut") {
		t.Errorf("a target without Cut that does not say so: %v", err)
	}
	excused := silent
	excused.Lacks = map[string]string{"Cut": "no hands"}
	if err := excused.check(); err != nil {
		t.Errorf("a target without Cut that says so: %v", err)
	}
	both := whole
	both.Lacks = map[string]string{"Cut": "no hands", "Nose": "cold"}
	if err := both.check(); err == nil || !strings.Contains(err.Error(), "Nose") {
		t.Errorf("a target that lacks what it has, and what there is not: %v", err)
	}
	for _, c := range cases() {
		for _, need := range c.needs {
			if !slices.Contains(excusable(), need) {
				t.Errorf("case %q needs %q, which no target can lack", c.name, need)
			}
		}
	}
}
