package transporttest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Memory is a broker in memory. All methods may be called concurrently. It has no goroutine of its own.
//
// An address is a queue, whose messages its consumers share, when it begins with "queue/", when it was declared as one, or
// when an endpoint has the option queue = true. Any other address is a topic, which every subscription gets its copy of; a
// source's address may then be a filter with the wildcards of MQTT, + and #. A subscription to a topic is durable when its
// Source has a Name: what comes while it is closed is kept for the next one of the same name.
//
// An endpoint promises less with the options acks = false (source) and confirms = false (sink), and more with
// deduplicate = true (sink).
type Memory struct {
	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, at every change that somebody may wait for

	seq       uint64
	queues    map[string]*queue // by key: see queueKey and topicKey
	places    map[string]transport.Place
	bindings  []transport.Binding
	retained  map[string]transport.Message
	seen      map[string]bool // address and id, for deduplication
	published []transport.Message
	conns     map[*memoryConn]struct{}
	lives     int // how many connections there ever were

	blocked     bool
	blockReason string
	refusals    map[string]error
	unreachable error
	stalled     bool
	held        []func() // confirms that wait for Resume
	delay       time.Duration
	dark        bool
}

// A queue holds what a queue or one subscription to a topic has not yet had acknowledged.
type queue struct {
	key        string
	address    string // of the queue, or the filter of the subscription
	topic      bool
	durable    bool
	deadLetter string
	ready      []*entry // in the order of seq
	consumers  []*memorySub
	next       int // index of the consumer whose turn it is
}

type entry struct {
	seq      uint64
	msg      transport.Message
	expires  time.Time
	attempts uint32
}

// defaultMaxBody is the largest body that a Memory takes unless it is configured otherwise.
const defaultMaxBody = 16 << 20

// noticeAfter is how long a connection lives on when the broker has become silent: a keep-alive that has run out.
const noticeAfter = time.Second

// NewMemory returns an empty broker.
func NewMemory() *Memory {
	return &Memory{
		changed:  make(chan struct{}),
		queues:   map[string]*queue{},
		places:   map[string]transport.Place{},
		retained: map[string]transport.Message{},
		seen:     map[string]bool{},
		refusals: map[string]error{},
		conns:    map[*memoryConn]struct{}{},
	}
}

// Send publishes messages to an address as somebody else would: neither a block nor a refusal stops them.
func (m *Memory) Send(address string, msgs ...transport.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range msgs {
		m.route(address, msg, false)
	}
	m.notify()
}

// Published returns all messages that the broker has taken from publishers, in order. Address is where each went.
func (m *Memory) Published() []transport.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.published)
}

// PublishedTo returns those of Published that went to an address.
func (m *Memory) PublishedTo(address string) []transport.Message {
	var msgs []transport.Message
	for _, msg := range m.Published() {
		if msg.Address == address {
			msgs = append(msgs, msg)
		}
	}
	return msgs
}

// Unsettled returns how many deliveries from an address (of a queue, or the filter of a source) are out and unsettled. What a
// driver holds and has not yet handed out is among them.
func (m *Memory) Unsettled(address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, q := range m.queues {
		if q.address == address {
			for _, c := range q.consumers {
				n += len(c.out)
			}
		}
	}
	return n
}

// Held returns how many messages from an address are not acknowledged, out or not.
func (m *Memory) Held(address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, q := range m.queues {
		if q.address == address {
			n += len(q.ready)
			for _, c := range q.consumers {
				n += len(c.out)
			}
		}
	}
	return n
}

// Subscribers returns how many subscriptions to an address (of a queue, or the filter of a source) are open.
func (m *Memory) Subscribers(address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, q := range m.queues {
		if q.address == address {
			n += len(q.consumers)
		}
	}
	return n
}

// Connections returns how many connections are open.
func (m *Memory) Connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns)
}

// Lives returns how many connections there ever were.
func (m *Memory) Lives() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lives
}

// Await blocks until done returns true, and asks it again after everything that happens to the broker. It returns the error
// of ctx when that ends first. done may call the methods of m.
func (m *Memory) Await(ctx context.Context, done func() bool) error {
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AwaitPublished blocks until at least n messages were published to an address, and returns them all.
func (m *Memory) AwaitPublished(ctx context.Context, address string, n int) ([]transport.Message, error) {
	var msgs []transport.Message
	err := m.Await(ctx, func() bool {
		msgs = m.PublishedTo(address)
		return len(msgs) >= n
	})
	if err != nil {
		return msgs, fmt.Errorf("%d of %d messages published to %q: %w", len(msgs), n, address, err)
	}
	return msgs, nil
}

// KillConnections ends all connections, as a broker does that is stopped.
func (m *Memory) KillConnections(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killAll(errors.New(reason))
}

// RefuseConnections makes Connect return err, until it is called with nil. Connections that are open stay.
func (m *Memory) RefuseConnections(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreachable = err
	m.notify()
}

// Block raises an alarm: all connections are blocked until Unblock. What comes from a publisher meanwhile waits in its call.
func (m *Memory) Block(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocked, m.blockReason = true, reason
	m.notify()
}

// Unblock ends what Block has begun.
func (m *Memory) Unblock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocked, m.blockReason = false, ""
	m.notify()
}

// Refuse makes the broker refuse what is published to an address for good, until it is called with nil.
func (m *Memory) Refuse(address string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.refusals, address)
	} else {
		m.refusals[address] = err
	}
}

// Stall makes the broker take messages without confirming them, until Resume.
func (m *Memory) Stall() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stalled = true
}

// Resume ends what Stall has begun: what was not confirmed is confirmed now.
func (m *Memory) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stalled = false
	for _, confirm := range m.held {
		confirm()
	}
	m.held = nil
}

// ConfirmAfter makes the broker confirm each message d after it has taken it; 0 is at once.
func (m *Memory) ConfirmAfter(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// Blackhole makes the broker silent: nothing reaches it and nothing comes from it, until restore is called. The connections
// notice after a second, and end. New ones do not come about.
func (m *Memory) Blackhole() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dark = true
	conns := make([]*memoryConn, 0, len(m.conns))
	for c := range m.conns {
		conns = append(conns, c)
	}
	timer := time.AfterFunc(noticeAfter, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, c := range conns {
			m.end(c, fmt.Errorf("no answer for %v", noticeAfter))
		}
	})
	return func() {
		timer.Stop()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.dark = false
		// What was swallowed does not come back, so the connections cannot go on.
		for _, c := range conns {
			m.end(c, errors.New("packets were lost"))
		}
		m.notify()
	}
}

// Restart ends all connections, and forgets what a broker forgets that is restarted: messages that are not durable, and
// subscriptions without a name.
func (m *Memory) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killAll(errors.New("the broker is restarting"))
	for _, q := range m.queues {
		q.ready = slices.DeleteFunc(q.ready, func(e *entry) bool { return !e.msg.Durable })
	}
	m.notify()
}

// Target returns a Target for the driver of m, for the tests of what wraps drivers.
func (m *Memory) Target() Target {
	n := 0
	fresh := func() string {
		n++
		return "t" + strconv.Itoa(n)
	}
	return Target{
		New:    func(testing.TB) transport.Driver { return m.Driver() },
		Config: func(testing.TB) json.RawMessage { return json.RawMessage(`{}`) },
		Pair: func(testing.TB) (transport.Source, transport.Sink) {
			a := fresh()
			return transport.Source{Address: a}, transport.Sink{Address: a}
		},
		Has:       Capabilities{Acks: true, Confirms: true, Durable: true, ReleaseAtOnce: true, RemoveForgets: true, Retains: true},
		Carries:   AllFields,
		Quiet:     50 * time.Millisecond,
		TooLarge:  defaultMaxBody + 1,
		Cut:       func(testing.TB) { m.KillConnections("cut") },
		Blackhole: func(testing.TB) func() { return m.Blackhole() },
		Restart:   func(testing.TB) { m.Restart() },
		Block: func(testing.TB) func() {
			m.Block("low on memory")
			return m.Unblock
		},
		Refused: func(testing.TB) (transport.Source, transport.Sink, transport.Message, transport.Message) {
			a := fresh()
			m.Refuse(a+"/forbidden", errors.New("forbidden"))
			good, bad := message(1), message(2)
			good.Address, bad.Address = a, a+"/forbidden"
			return transport.Source{Address: a}, transport.Sink{}, good, bad
		},
		Filtered: func(testing.TB) (transport.Source, transport.Sink, []string, []string) {
			a := fresh()
			return transport.Source{Address: a + "/+/x"}, transport.Sink{}, []string{a + "/1/x", a + "/2/x"}, []string{a + "/x", a + "/1/y"}
		},
		Odd: func(testing.TB) []Pair {
			var pairs []Pair
			for _, odd := range []string{" a b ", "é/ü/☃", "$x", "a//b/", "0", strings.Repeat("long", 5000)} {
				a := fresh() + odd
				pairs = append(pairs, Pair{transport.Source{Address: a}, transport.Sink{Address: a}})
			}
			return pairs
		},
		Place: func(_ testing.TB, kind transport.PlaceKind) (transport.Place, transport.Source, transport.Sink) {
			a := fresh()
			return transport.Place{Kind: kind, Address: a}, transport.Source{Address: a}, transport.Sink{Address: a}
		},
	}
}

// notify wakes everybody who waits for a change. The caller holds m.mu, as for everything below that has no lock of its own.
func (m *Memory) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func queueKey(address string) string { return "queue " + address }

func topicKey(conn, name string) string { return "topic " + conn + "\x00" + name }

func (m *Memory) isQueue(address string) bool {
	return strings.HasPrefix(address, "queue/") || m.queues[queueKey(address)] != nil
}

func (m *Memory) openQueue(address string) *queue {
	key := queueKey(address)
	q := m.queues[key]
	if q == nil {
		q = &queue{key: key, address: address, durable: true}
		m.queues[key] = q
	}
	return q
}

// exists reports whether somebody has declared the address or subscribed to it.
func (m *Memory) exists(address string) bool {
	if _, declared := m.places[address]; declared {
		return true
	}
	for _, q := range m.queues {
		if q.address == address || q.topic && matches(q.address, address, "/", "+") {
			return true
		}
	}
	return false
}

// route takes a message from a publisher, and copies it to where it belongs.
func (m *Memory) route(address string, msg transport.Message, deduplicate bool) {
	if deduplicate && msg.ID != "" {
		key := address + "\x00" + msg.ID
		if m.seen[key] {
			return
		}
		m.seen[key] = true
	}
	key := msg.Address // the routing key, where address is that of an exchange
	msg = clone(msg)
	msg.Address = address
	msg.Redelivered, msg.Attempt, msg.SourceID = false, 0, ""
	m.published = append(m.published, msg)
	if msg.Retain {
		if len(msg.Body) == 0 {
			delete(m.retained, address)
		} else {
			m.retained[address] = msg
		}
		msg.Retain = false // as MQTT has it: only what was kept bears the mark
	}
	m.copyTo(address, key, msg, map[string]bool{})
}

func (m *Memory) copyTo(address, key string, msg transport.Message, been map[string]bool) {
	if been[address] {
		return // bindings in a circle
	}
	been[address] = true
	m.seq++
	if m.isQueue(address) {
		m.push(m.openQueue(address), msg)
	} else {
		for _, q := range m.queues {
			if q.topic && matches(q.address, address, "/", "+") {
				m.push(q, msg)
			}
		}
	}
	for _, b := range m.bindings {
		if b.From.Address == address && (b.From.Kind == transport.Fanout ||
			b.From.Kind == transport.Direct && b.Key == key ||
			b.From.Kind == transport.Topic && matches(b.Key, key, ".", "*")) {
			m.copyTo(b.To.Address, key, msg, been)
		}
	}
}

func (m *Memory) push(q *queue, msg transport.Message) {
	e := &entry{seq: m.seq, msg: msg}
	if msg.TTL > 0 {
		e.expires = time.Now().Add(msg.TTL)
	}
	q.ready = append(q.ready, e)
	m.dispatch(q)
}

// dispatch hands what is ready to the consumers that have room, in turns.
func (m *Memory) dispatch(q *queue) {
	for !m.dark && len(q.ready) > 0 {
		e := q.ready[0]
		if !e.expires.IsZero() && !time.Now().Before(e.expires) {
			q.ready = q.ready[1:]
			continue
		}
		c := q.turn()
		if c == nil {
			return
		}
		q.ready = q.ready[1:]
		e.attempts++
		msg := e.msg
		msg.Attempt, msg.Redelivered = e.attempts, e.attempts > 1
		msg.SourceID = strconv.FormatUint(e.seq, 10)
		if !e.expires.IsZero() {
			msg.TTL = time.Until(e.expires)
		}
		if c.acks {
			c.out[e] = struct{}{}
		}
		c.inbox.Put(msg, e)
	}
}

// turn returns the next consumer that has room, or nil.
func (q *queue) turn() *memorySub {
	for range q.consumers {
		q.next++
		if c := q.consumers[q.next%len(q.consumers)]; int64(len(c.out)) < c.prefetch {
			return c
		}
	}
	return nil
}

// giveBack makes entries ready again, in their old places.
func (m *Memory) giveBack(q *queue, entries []*entry) {
	q.ready = append(q.ready, entries...)
	slices.SortFunc(q.ready, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	m.dispatch(q)
}

// detach takes a consumer from its queue. What it has not settled is ready again.
func (m *Memory) detach(s *memorySub, reason error) {
	i := slices.Index(s.queue.consumers, s)
	if i < 0 {
		return
	}
	s.inbox.Fail(reason)
	s.queue.consumers = slices.Delete(s.queue.consumers, i, i+1)
	delete(s.conn.subs, s)
	var back []*entry
	for e := range s.out {
		back = append(back, e)
	}
	s.out = nil
	m.giveBack(s.queue, back)
	if s.queue.topic && !s.queue.durable && len(s.queue.consumers) == 0 {
		delete(m.queues, s.queue.key)
	}
}

// end ends a connection with everything on it.
func (m *Memory) end(c *memoryConn, reason error) {
	if c.err != nil {
		return
	}
	c.err = transport.Closed(reason)
	delete(m.conns, c)
	for s := range c.subs {
		m.detach(s, reason)
	}
	for p := range c.pubs {
		p.outbox.Fail(reason)
	}
	c.pubs = nil
	m.notify()
}

func (m *Memory) killAll(reason error) {
	for c := range m.conns {
		m.end(c, reason)
	}
}

// matches reports whether address, whose words are separated by sep, matches filter: one stands for one word, # at the end
// (with MQTT) or anywhere (with AMQP) for any number of words.
func matches(filter, address, sep, one string) bool {
	return matchWords(strings.Split(filter, sep), strings.Split(address, sep), one)
}

func matchWords(filter, words []string, one string) bool {
	for i, f := range filter {
		if f == "#" {
			for j := i; j <= len(words); j++ {
				if matchWords(filter[i+1:], words[j:], one) {
					return true
				}
			}
			return false
		}
		if i >= len(words) || f != one && f != words[i] {
			return false
		}
	}
	return len(filter) == len(words)
}

// clone returns a copy that shares nothing with msg that its publisher could change.
func clone(msg transport.Message) transport.Message {
	msg.Body = bytes.Clone(msg.Body)
	msg.Headers = slices.Clone(msg.Headers)
	return msg
}
