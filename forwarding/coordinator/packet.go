package coordinator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

// maxBody is how much of a packet's body is shown, in bytes.
const maxBody = 16 << 10

// retap opens and closes taps, after somebody has come or gone who looks at packets. It is called under the lock.
func (c *Coordinator) retap() {
	for _, r := range c.graphs {
		var viewers int64
		for l := range c.links {
			if l.views && l.access.Sees(r.id) {
				viewers++
			}
		}
		r.viewers.Store(viewers)
		switch wanted := !c.closed && (viewers > 0 || r.tracing.Load()); {
		case wanted && r.tap == nil:
			tap, err := c.cfg.Networks.Tap(r.id)
			if err != nil {
				c.cfg.Log.Warn("the packets of a graph cannot be shown", "graph", r.id, "err", err)
				continue
			}
			closed := make(chan struct{})
			r.tap, r.untapped = tap, closed
			c.taps.Go(func() { c.watch(r, tap, closed) })
		case !wanted:
			c.close(r)
		}
	}
}

func (c *Coordinator) close(r *record) {
	if r.tap != nil {
		r.tap.Close()
		close(r.untapped)
		r.tap = nil
	}
}

// seen is a packet on its way to clients, or to a trace alone.
type seen struct {
	forwarding.Message
	edge  edgeKey
	time  time.Time
	shown bool
}

// pause returns how long the next packets are left in the tap if so many look. To wake up for a packet and for a client, and
// to call the system, is what it costs to be watched, whatever is written then. It comes to 2,000 times a second for all
// clients. A packet that comes after a pause is shown at once.
func pause(viewers int) time.Duration {
	return min(max(10*time.Millisecond, time.Duration(viewers)*time.Second/2000), 250*time.Millisecond)
}

// watch shows what comes out of a tap until that is closed.
func (c *Coordinator) watch(r *record, tap Tap, closed <-chan struct{}) {
	var quota quota
	var waiting []seen
	for {
		packets, err := tap.Next(context.Background())
		if err != nil {
			c.gone(r, tap)
			return
		}
		now := time.Now()
		for _, p := range packets {
			if one, ok := c.look(r, p, &quota, now); ok {
				waiting = append(waiting, one)
			}
		}
		if len(waiting) > 0 {
			c.show(r, waiting)
			clear(waiting)
			waiting = waiting[:0]
		}
		select {
		case <-time.After(pause(int(r.viewers.Load()))):
		case <-closed:
		}
	}
}

// look decides whether a packet is shown.
func (c *Coordinator) look(r *record, p Packet, quota *quota, now time.Time) (seen, bool) {
	viewers := int(r.viewers.Load())
	shown := viewers > 0 && quota.takes(p, c.rate(viewers), now)
	if viewers > 0 && !shown {
		c.unshown.Add(1)
	}
	if !shown && !r.tracing.Load() {
		return seen{}, false
	}
	m, err := c.packet(r.id, p)
	if err != nil {
		c.logged(err)
		return seen{}, false
	}
	if p.Time.IsZero() {
		p.Time = now
	}
	return seen{m, keyOf(p), p.Time, shown}, true
}

func keyOf(p Packet) edgeKey {
	key := edgeKey{tgt: p.Tgt, subgraph: strings.Join(p.Subgraph, "/")}
	if p.Src != nil {
		key.src = *p.Src
	}
	return key
}

// show records packets and gives them to those who look.
func (c *Coordinator) show(r *record, packets []seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := make([]forwarding.Message, 0, len(packets))
	for _, p := range packets {
		if r.tracing.Load() && r.trace != nil {
			r.trace.add(p.Message, p.time)
		}
		if p.shown {
			messages = append(messages, p.Message)
		}
	}
	c.shown.Add(uint64(len(messages)))
	for l := range c.links {
		selected := l.selected[r.id]
		switch {
		case !l.views || !l.access.Sees(r.id):
		case selected == nil:
			l.put(messages...)
		default:
			for _, p := range packets {
				if p.shown && selected[p.edge] {
					l.put(p.Message)
				}
			}
		}
	}
}

// gone lets another tap be opened in the place of one that has ended by itself.
func (c *Coordinator) gone(r *record, tap Tap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.tap == tap {
		c.close(r)
	}
}

// rate returns how many packets a second are shown if so many look.
func (c *Coordinator) rate(viewers int) int {
	const alone = 10 // the part of the budget that one client may have
	return max(1, min(c.cfg.Packets/alone, c.cfg.Packets/viewers))
}

func (c *Coordinator) packet(id string, p Packet) (forwarding.Message, error) {
	tgt := said(p.Tgt)
	var src *fbp.Endpoint
	if p.Src != nil {
		from := said(*p.Src)
		src = &from
	}
	m, err := message(p.Body, func(data json.RawMessage) fbp.Payload {
		return fbp.Data{ID: fbp.EdgeLine(src, tgt), Src: src, Tgt: tgt, Graph: id, Subgraph: p.Subgraph, Data: data}
	})
	m.Graph, m.Lossy = id, true
	return m, err
}

func said(e graph.Endpoint) fbp.Endpoint {
	is := fbp.Endpoint{Node: e.Node, Port: e.Port}
	if i, ok := e.Index.Value(); ok {
		is.Index = fbp.At(i)
	}
	return is
}

// body shows a body to whoever may see such messages.
func (c *Coordinator) body(id string, kind fbp.Kind, says func(json.RawMessage) fbp.Payload, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	somebody := false
	for l := range c.links {
		somebody = somebody || l.access.Capabilities.MayReceive(kind) && l.access.Sees(id)
	}
	if !somebody {
		return
	}
	m, err := message(body, says)
	m.Graph, m.Lossy = id, true
	if c.logged(err); err == nil {
		c.tellAll(m)
	}
}

// message returns the message that shows a body: as JSON if it is, or else as a string.
func message(body []byte, says func(json.RawMessage) fbp.Payload) (forwarding.Message, error) {
	if len(body) <= maxBody && json.Valid(body) {
		if m, err := forwarding.NewMessage(says(body)); err == nil { // it may be nested too deep to be sent
			return m, nil
		}
	}
	text, err := encode(asText(body))
	if err != nil {
		return forwarding.Message{}, err
	}
	return forwarding.NewMessage(says(text))
}

// asText returns a body that is no JSON, or too long, as a string.
func asText(body []byte) string {
	whole := len(body)
	cut := body[:min(whole, maxBody)]
	for i := 0; len(cut) < whole && i < utf8.UTFMax && !utf8.Valid(cut); i++ {
		cut = cut[:len(cut)-1] // in the middle of a character
	}
	if !utf8.Valid(cut) {
		cut = body[:min(whole, maxBody)]
		return "data:;base64," + base64.StdEncoding.EncodeToString(cut) + more(whole, len(cut))
	}
	return string(cut) + more(whole, len(cut))
}

func more(whole, shown int) string {
	if whole == shown {
		return ""
	}
	return fmt.Sprintf("… (%d bytes)", whole)
}

// quota says which packets are shown when there are too many, so much for each tenth of a second. An edge may take as much
// of that as would be fair between those that had packets in the one before, so that a quiet edge is seen beside a busy one.
type quota struct {
	began  time.Time
	left   int
	share  int
	taken  map[edgeKey]int
	before int // edges
}

const window = 100 * time.Millisecond

// takes reports whether a packet is shown. rate is in packets a second. The cost of one grows with its size.
func (q *quota) takes(p Packet, rate int, now time.Time) bool {
	if q.taken == nil || now.Sub(q.began) >= window {
		windows := 1
		if q.taken != nil {
			windows = min(10, int(now.Sub(q.began)/window))
		}
		budget := max(1, rate*windows/int(time.Second/window))
		if q.taken == nil {
			budget = max(rate, 1) // a network that has just begun: its first packets are what people look for
		}
		q.before = len(q.taken)
		q.began, q.left, q.share = now, budget, max(1, budget/max(1, q.before))
		q.taken = make(map[edgeKey]int, q.before)
	}
	key := keyOf(p)
	const unit = 1 << 10
	cost := 1 + min(len(p.Body), maxBody)/unit
	taken := q.taken[key]
	if taken > 0 && taken+cost > q.share || q.left <= 0 {
		q.taken[key] = taken
		return false
	}
	q.taken[key] = taken + cost
	q.left -= cost
	return true
}
