package network

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/flogate/flogate/core/bridge"
	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// initialPatience is how long an initial packet waits for edges that do not get open: what is sent then is lost on them, and
// what is never sent helps nobody.
const initialPatience = 5 * time.Second

// initialRun is an initial packet that waits for its time, or is being or has been sent.
type initialRun struct {
	id    string // of what is sent
	since time.Time
	stop  context.CancelFunc // nil while it waits
	done  bool               // its broker has it, or has refused it
}

func (r *initialRun) end() {
	if r.stop != nil {
		r.stop()
	}
}

// reconcileInitials sends the initial packets that are wanted and were not sent in this life of their participants. One that
// goes away and comes back is sent again: somebody has put it there again. One that is pending for a while has gone nowhere.
func (n *Network) reconcileInitials(ctx context.Context, wg *sync.WaitGroup) {
	if !n.applied {
		return // nobody has said yet what is not wanted any more
	}
	wanted := make(map[string]route.Initial, len(n.wanted.Plan.Initials))
	for _, i := range n.wanted.Plan.Initials {
		wanted[i.Life] = i
	}
	delete(wanted, "") // nobody is there
	for life, run := range n.iips {
		w, ok := wanted[life]
		if ok && (w.Pending != "" && run.done || w.Pending == "" && w.ID == run.id) {
			continue
		}
		run.end()
		delete(n.iips, life)
	}
	now := time.Now()
	var opening map[string]bool // looked up when the first packet is due
	for life, w := range wanted {
		if w.Pending != "" {
			continue
		}
		run := n.iips[life]
		if run == nil {
			run = &initialRun{id: w.ID, since: now}
			n.iips[life] = run
		}
		if run.stop != nil {
			continue
		}
		if opening == nil {
			opening = n.opening(now)
		}
		if opening[w.To.Node] && now.Sub(run.since) < initialPatience {
			continue // an edge that gets open wakes Run, and so does each second
		}
		var ictx context.Context
		ictx, run.stop = context.WithCancel(ctx)
		wg.Go(func() {
			defer run.end()
			n.sendInitial(ictx, w)
			n.mu.Lock()
			run.done = ictx.Err() == nil
			n.mu.Unlock()
			n.poke() // it is to be noted
		})
	}
}

// opening returns the nodes behind which an edge is not open yet that will be: next to them, or further on. What they answer to
// an initial packet would be lost there, on a topic or at an exchange where nobody listens.
func (n *Network) opening(now time.Time) map[string]bool {
	feeds := make(map[string]bridge.Status, len(n.feeds))
	for key, run := range n.feeds {
		feeds[key] = run.feed.Status()
	}
	before := make(map[string][]string) // nodes from which edges lead to a node
	opening := make(map[string]bool)
	var next []string
	for _, e := range n.wanted.Plan.Edges {
		if e.Pending != "" || e.Refused != "" {
			continue
		}
		before[e.To.Node] = append(before[e.To.Node], e.From.Node)
		if s := n.edge(e, feeds, now).State; s == Pending || s == Broken {
			next = append(next, e.From.Node)
		}
	}
	for len(next) > 0 {
		node := next[len(next)-1]
		next = next[:len(next)-1]
		if !opening[node] {
			opening[node] = true
			next = append(next, before[node]...)
		}
	}
	return opening
}

// sendInitial tries until the broker has the packet, or refuses it, or ctx ends.
func (n *Network) sendInitial(ctx context.Context, w route.Initial) {
	for {
		err := n.publishOne(ctx, w)
		switch {
		case ctx.Err() != nil, err == nil:
			return
		case transport.IsPermanent(err):
			n.cfg.Log.Error("initial packet refused", "port", w.To.String(), "error", err)
			return
		}
		n.cfg.Log.Debug("initial packet not sent", "port", w.To.String(), "error", err)
		broker.Rest(ctx, time.Second)
	}
}

func (n *Network) publishOne(ctx context.Context, w route.Initial) error {
	pub, err := n.opener(w.Broker, w.Sink)(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = pub.Close(ctx) }() // what is confirmed is confirmed
	if err := pub.Publish(ctx, []transport.Message{{Body: w.Body, Durable: true}}); err != nil {
		return err
	}
	confirms, err := pub.Confirms(ctx)
	if err != nil {
		return err
	}
	return confirms[len(confirms)-1].Refused
}

// initialNote is an initial packet that has been sent, as the file has it.
type initialNote struct {
	Life string `json:"life"`
	ID   string `json:"id"`
}

// loadInitials reads which initial packets were sent in an earlier run, to participants that go on living.
func (n *Network) loadInitials() {
	if n.cfg.Initials == "" {
		return
	}
	var notes []initialNote
	text, err := os.ReadFile(n.cfg.Initials)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(text, &notes)
	}
	if err != nil {
		n.cfg.Log.Error("initial packets that were sent in an earlier run are not known, and are sent again", "file", n.cfg.Initials, "error", err)
		return
	}
	n.noted = notes
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, note := range notes {
		n.iips[note.Life] = &initialRun{id: note.ID, stop: func() {}, done: true}
	}
}

// noteInitials keeps which initial packets have been sent. It is Run's. Sending comes first: a gateway that is killed in
// between sends one twice, and none never.
func (n *Network) noteInitials() {
	n.mu.Lock()
	applied := n.applied
	var notes []initialNote
	for _, life := range slices.Sorted(maps.Keys(n.iips)) {
		if run := n.iips[life]; run.done {
			notes = append(notes, initialNote{life, run.id})
		}
	}
	n.mu.Unlock()
	if n.cfg.Initials == "" || !applied || slices.Equal(notes, n.noted) {
		return
	}
	err := keep(n.cfg.Initials, notes)
	if err != nil && !n.unnoted { // it is said once, and tried each second
		n.cfg.Log.Error("initial packets not noted, they are sent again after a restart", "error", err)
	}
	if n.unnoted = err != nil; err == nil {
		n.noted = notes
	}
}
