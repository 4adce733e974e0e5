package network

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/roundrobin"
	"github.com/flogate/flogate/core/route"
)

// State says how an edge is doing.
type State string

// The states.
const (
	// Pending: something that the edge needs is not there yet.
	Pending State = "pending"
	// Flowing: both ends are open, and what comes is carried.
	Flowing State = "flowing"
	// Blocked: both ends are open, and the sink takes nothing for now; the source is held back.
	Blocked State = "blocked"
	// Broken: an end cannot be opened, or the edge must not run.
	Broken State = "broken"
	// Draining: the edge takes no more, and finishes what is in flight.
	Draining State = "draining"
)

// confirmPatience is how long a sink may owe a confirm before its edge counts as blocked: long enough for a slow disk,
// short enough for a person who looks.
const confirmPatience = 5 * time.Second

// Status is how everything is doing.
type Status struct {
	Edges   []EdgeStatus
	Brokers []BrokerStatus
}

// EdgeStatus is how an edge is doing.
type EdgeStatus struct {
	route.Edge
	State State
	// Reason in words; empty while it flows.
	Reason string
	Since  time.Time
	// Messages and Bytes are what the sink has confirmed, Rate is messages a second over the last seconds.
	Messages, Bytes uint64
	Rate            float64
	InFlight        uint64
	// OldestAge is how long the oldest message in flight has been there; 0 if there is none.
	OldestAge   time.Duration
	Redelivered uint64
	DeadLetters uint64
	Rejected    uint64
}

// BrokerStatus is how a broker is doing.
type BrokerStatus struct {
	ID string
	broker.State
}

// edgeState is what is remembered of an edge between two looks.
type edgeState struct {
	state  State
	reason string
	since  time.Time
	warned string // what was said to look wrong

	messages uint64 // at the time of the last look
	looked   time.Time
	rate     float64
}

// Status returns how everything is doing, in the order of the plan. It does not block.
func (n *Network) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status(time.Now())
}

func (n *Network) status(now time.Time) Status {
	var s Status
	for _, id := range slices.Sorted(maps.Keys(n.brokers)) {
		s.Brokers = append(s.Brokers, BrokerStatus{ID: id, State: n.brokers[id].broker.State()})
	}
	feeds := make(map[string]bridge.Status, len(n.feeds))
	for key, run := range n.feeds {
		feeds[key] = run.feed.Status()
	}
	for _, e := range n.wanted.Plan.Edges {
		s.Edges = append(s.Edges, n.edge(e, feeds, now))
	}
	return s
}

func (n *Network) edge(e route.Edge, feeds map[string]bridge.Status, now time.Time) EdgeStatus {
	out := EdgeStatus{Edge: e}
	var parts []part
	for _, c := range e.Carriers {
		parts = append(parts, n.carried(&out, c, feeds, now))
	}
	for _, id := range e.Natives {
		state, reason := n.native(id)
		parts = append(parts, part{state, reason})
	}
	switch {
	case e.Pending != "":
		out.State, out.Reason = Pending, e.Pending
	case e.Refused != "":
		out.State, out.Reason = Broken, e.Refused
	case e.SamePlace:
		at := cmp.Or(e.Source, e.Sink)
		out.State, out.Reason = Flowing, fmt.Sprintf("both ends are %s on %s: there is nothing to carry", at.Address, at.Broker)
	case len(parts) == 0:
		out.State, out.Reason = Pending, "being started"
	default:
		out.State, out.Reason = worst(parts)
	}
	out.Since = now
	if st := n.states[e.ID]; st != nil && st.state == out.State {
		out.Since, out.Rate = st.since, st.rate
	}
	return out
}

// part is how one of the ways over an edge is doing.
type part struct {
	state  State
	reason string
}

// worst is how an edge is doing that has several ways over it.
func worst(parts []part) (State, string) {
	for _, state := range []State{Broken, Blocked, Pending, Draining} {
		for _, p := range parts {
			if p.state == state {
				return p.state, p.reason
			}
		}
	}
	// What the broker carries by itself is worth saying even where all is well.
	for _, p := range parts {
		if p.reason != "" {
			return Flowing, p.reason
		}
	}
	return Flowing, ""
}

// carried says how a carrier of an edge is doing, and adds what it has carried.
func (n *Network) carried(out *EdgeStatus, c route.Carrier, feeds map[string]bridge.Status, now time.Time) part {
	feed, running := feeds[c.Feed]
	target := find(feed.Targets, c.Target)
	if !running || target == nil {
		return part{Pending, "being started"}
	}
	run := n.feeds[c.Feed]
	i := slices.IndexFunc(run.spec.Targets, func(t route.Target) bool { return t.ID == c.Target })
	if i < 0 {
		return part{Pending, "being started"}
	}
	spec := run.spec.Targets[i]
	var members []roundrobin.MemberStatus
	if g := run.groups[targetVersion(spec)]; g != nil {
		members = g.Status()
	}
	j := slices.IndexFunc(members, func(m roundrobin.MemberStatus) bool { return m.ID == c.Member })
	switch {
	case c.Dead:
		out.Messages += target.Dead
	case c.Member != "" && j >= 0:
		m := members[j]
		out.Messages, out.Bytes = out.Messages+m.Messages, out.Bytes+m.Bytes
		out.InFlight += m.InFlight
		out.Redelivered += m.Moved
	case c.Member == "":
		out.Messages, out.Bytes = out.Messages+target.Passed.Messages, out.Bytes+target.Passed.Bytes
		out.InFlight += target.InFlight
		if !target.Oldest.IsZero() {
			out.OldestAge = max(out.OldestAge, now.Sub(target.Oldest))
		}
		out.Redelivered += target.Redelivered
		out.DeadLetters += target.Dead
		out.Rejected += target.Rejected
	}
	if feed.Draining {
		return part{Draining, "finishing what is in flight"}
	}
	if s, r := n.end(run.spec.Broker, feed.Source); s != Flowing {
		return part{s, r}
	}
	switch {
	case c.Dead:
		return n.letters(spec, target)
	case c.Member != "" && j >= 0:
		return n.member(spec.Members[j], members[j], now)
	case len(members) > 0:
		return n.shared(spec, members, feed, target, now)
	}
	s, r := n.condition(spec.Broker, feed, target, now)
	return part{s, r}
}

// letters says how the way of a target's dead letters is doing.
func (n *Network) letters(spec route.Target, target *bridge.TargetStatus) part {
	if s, r := n.broker(spec.DeadLetter.Broker); s != Flowing {
		return part{s, r}
	}
	if r := target.DeadLetter.Reason; r != "" {
		return part{Blocked, r}
	}
	return part{state: Flowing}
}

// member says how one of the sinks is doing that share a target.
func (n *Network) member(m route.Member, status roundrobin.MemberStatus, now time.Time) part {
	s, r := n.end(m.Broker, bridge.Condition{Up: status.Up, Reason: status.Reason})
	if s == Flowing && !status.Awaited.IsZero() && now.Sub(status.Awaited) > confirmPatience {
		s, r = Blocked, fmt.Sprintf("%s has not confirmed since %s", m.Broker, status.Awaited.Format(time.TimeOnly))
	}
	return part{s, r}
}

// shared says how a target is doing whose sinks share: as well as the one of them that is doing best.
func (n *Network) shared(spec route.Target, members []roundrobin.MemberStatus, feed bridge.Status, target *bridge.TargetStatus, now time.Time) part {
	if r := target.DeadLetter.Reason; r != "" {
		return part{Blocked, r}
	}
	var best part
	for i, m := range spec.Members {
		p := n.member(m, members[i], now)
		if p.state == Flowing {
			if by := sibling(feed, target); by != "" {
				return part{Blocked, "held up by " + by + ", which has the same source"}
			}
			return p
		}
		if best.state == "" || p.state == Blocked {
			best = p
		}
	}
	return best
}

// condition looks at the sink of a target, whose source is well.
func (n *Network) condition(sink string, feed bridge.Status, target *bridge.TargetStatus, now time.Time) (State, string) {
	s, r := n.end(sink, target.Sink)
	switch {
	case s != Flowing:
		return s, r
	case target.DeadLetter.Reason != "":
		return Blocked, target.DeadLetter.Reason
	case !target.Awaited.IsZero() && now.Sub(target.Awaited) > confirmPatience:
		return Blocked, fmt.Sprintf("%s has not confirmed since %s", sink, target.Awaited.Format(time.TimeOnly))
	}
	if by := sibling(feed, target); by != "" {
		return Blocked, "held up by " + by + ", which has the same source"
	}
	return Flowing, ""
}

// sibling returns the target that keeps a feed's window full while this one has done its part; empty if none does.
func sibling(feed bridge.Status, target *bridge.TargetStatus) string {
	if !feed.Full || target.InFlight > 0 {
		return ""
	}
	var most bridge.TargetStatus
	for _, t := range feed.Targets {
		if t.InFlight > most.InFlight {
			most = t
		}
	}
	return most.ID
}

// end looks at one end. What is wrong with the broker explains more than what is wrong at the end.
func (n *Network) end(id string, c bridge.Condition) (State, string) {
	run := n.brokers[id]
	if run == nil {
		return Broken, id + " is being replaced"
	}
	b := run.broker.State()
	trouble := ""
	if run.spec.Trouble != nil {
		trouble = run.spec.Trouble()
	}
	switch {
	case b.Phase == broker.Connecting && trouble != "":
		return Broken, trouble
	case b.Phase == broker.Connecting && b.Reason == "":
		return Pending, id + " is being connected"
	case b.Phase == broker.Connecting:
		return Broken, fmt.Sprintf("%s is not connected: %s", id, b.Reason)
	case b.Phase == broker.Stopped:
		return Broken, id + " is being replaced"
	case !c.Up && c.Reason == "not started":
		return Pending, "being opened"
	case !c.Up:
		return Broken, fmt.Sprintf("%s: %s", id, strings.TrimPrefix(c.Reason, id+": "))
	case b.Phase == broker.Blocked:
		return Blocked, fmt.Sprintf("%s takes no messages for now: %s", id, b.Reason)
	}
	return Flowing, ""
}

// broker looks at a broker alone.
func (n *Network) broker(id string) (State, string) { return n.end(id, bridge.Condition{Up: true}) }

func find(targets []bridge.TargetStatus, id string) *bridge.TargetStatus {
	for i := range targets {
		if targets[i].ID == id {
			return &targets[i]
		}
	}
	return nil
}

// observe looks at all edges, remembers since when they are as they are, and logs what has changed.
func (n *Network) observe() {
	n.mu.Lock()
	now := time.Now()
	s := n.status(now)
	old := n.states
	n.states = make(map[string]*edgeState, len(s.Edges))
	var changed, wrong []EdgeStatus
	for _, e := range s.Edges {
		st := old[e.ID]
		if st == nil {
			st = &edgeState{looked: now, messages: e.Messages}
		}
		if st.state != e.State {
			st.since = now
		}
		if st.state != e.State || st.reason != e.Reason {
			changed = append(changed, e)
		}
		// When it flows for the first time, and again when other participants, or other definitions of theirs, make it another.
		if e.Warning != st.warned && e.State == Flowing {
			st.warned = e.Warning
			if e.Warning != "" {
				wrong = append(wrong, e)
			}
		}
		st.state, st.reason = e.State, e.Reason
		st.look(now, e.Messages)
		n.states[e.ID] = st
	}
	n.mu.Unlock()
	for _, e := range changed {
		n.report(e)
	}
	for _, e := range wrong {
		if !n.wrongs.Allow() {
			break
		}
		n.cfg.Log.Warn("edge looks wrong", "edge", e.ID, "warning", e.Warning)
	}
	if len(changed) > 0 {
		n.cfg.Changed()
	}
}

// look updates the rate. It is smoothed over some seconds, so that it can be read.
func (st *edgeState) look(now time.Time, messages uint64) {
	span := now.Sub(st.looked)
	if span < 500*time.Millisecond {
		return // too short to say anything
	}
	if messages < st.messages {
		st.messages = 0 // another feed carries the edge now
	}
	rate := float64(messages-st.messages) / span.Seconds()
	const share = 0.5
	st.rate += share * (rate - st.rate)
	if st.rate < 0.01 {
		st.rate = 0
	}
	st.messages, st.looked = messages, now
}

func (n *Network) report(e EdgeStatus) {
	log := n.cfg.Log.Info
	if e.State == Broken || e.State == Blocked {
		log = n.cfg.Log.Warn
	}
	log("edge state changed", "edge", e.ID, "state", e.State, "reason", e.Reason)
}
