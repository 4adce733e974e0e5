package discovery

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrFull is the error of an announcement for which there is no room.
var ErrFull = errors.New("no room for more participants")

// Config is what a Registry needs. All of it has defaults.
type Config struct {
	// Limit is after how long a silence a participant is gone that has no heartbeat, on brokers that have no limit of
	// their own. The default is DefaultLimit; a negative one is for ever.
	Limit time.Duration
	// Max is how many participants there can be; one on two brokers counts twice. The default is 10,000.
	Max int
	// MaxBytes is about how much memory the definitions may take. The default is 64 MiB.
	MaxBytes int
	Log      *slog.Logger
	// Changed is called after every change that a Listener or Run has made. It must not block, and may be called
	// concurrently. What has changed is in the Snapshot.
	Changed func()
}

// DefaultLimit is MsgFlo's word for how long a participant that is alive may be silent.
const DefaultLimit = 600 * time.Second

// A participant is gone after heartbeats of its own, and not before least: a short heartbeat must not make a stumbling
// network look like a restart.
const (
	heartbeats = 3
	least      = 10 * time.Second
)

// Place is an address on a broker at which participants announce themselves.
type Place struct {
	Broker, Address string
}

// Participant is somebody who has announced itself and is not gone. One that uses the same id and role on several brokers
// is one participant.
type Participant struct {
	// Definition is that of the broker on which the participant was seen first.
	Definition Definition
	// Incarnation is different for each life of a participant: for each id in a role, and each time that it comes back
	// after it was gone. Later ones are greater.
	Incarnation uint64
	// First and Last are when the participant was heard of, on any broker.
	First, Last time.Time
	// On says where it is seen, the first one first. It is never empty.
	On []Presence
}

// Presence is a participant on one broker.
type Presence struct {
	// Place is where it was heard of last.
	Place
	// Definition is what it says of itself on this broker: addresses may differ from those on others.
	Definition  Definition
	First, Last time.Time
	// Limit is after how long a silence it is gone from here; 0 is never.
	Limit time.Duration
}

// Change is what has become of a participant.
type Change struct {
	Kind Kind
	// Participant is as it is now, or as it was before it left.
	Participant Participant
	// Reason says why a participant has left or changed, in words.
	Reason string
}

// Kind is a kind of Change.
type Kind string

// The kinds.
const (
	// Appeared: there is a new incarnation.
	Appeared Kind = "appeared"
	// Changed: its definition is another, or it is seen on more or fewer brokers than before.
	Changed Kind = "changed"
	// Left: it is gone from everywhere.
	Left Kind = "left"
)

// Counts are of announcements that came over one broker.
type Counts struct {
	// Messages are all of them.
	Messages uint64
	// Repeated said letter for letter what was known.
	Repeated uint64
	// Malformed were refused by Parse.
	Malformed uint64
	// Dropped were fine, but there was no room for them.
	Dropped uint64
}

// Registry knows who is there. It does no I/O; but for Run, it is given the time. Its methods may be called concurrently,
// and do not block. Nobody changes what is in a Participant that it has returned.
type Registry struct {
	cfg   Config
	seed  maphash.Seed
	lines *rate.Limiter // of changes, for the log

	mu           sync.Mutex
	here         map[identity]*presence
	bodies       map[bodyKey]*presence
	participants map[player]*participant
	places       map[Place]listening
	limits       map[string]time.Duration
	counts       map[string]*Counts
	next         time.Time // nobody is gone before it
	incarnations uint64
	bytes        int
	unlogged     int
}

// identity is unique: on one broker an id is one participant.
type identity struct{ broker, id string }

// player is a participant, wherever it is seen.
type player struct{ id, role string }

// bodyKey stands for an announcement. The sum is seeded anew in each process, so nobody can make two that are alike.
type bodyKey struct {
	broker string
	sum    uint64
}

type presence struct {
	Presence
	sum   uint64 // of the last announcement; 0 if it is not known
	bytes int
	of    *participant
}

type participant struct {
	incarnation uint64
	first       time.Time
	on          []*presence // the one seen first is first
}

// listening says whether we could have heard somebody at a place, and since when.
type listening struct {
	deaf  bool
	since time.Time
}

// NewRegistry returns a registry of nobody.
func NewRegistry(cfg Config) *Registry {
	if cfg.Limit == 0 {
		cfg.Limit = DefaultLimit
	}
	if cfg.Max <= 0 {
		cfg.Max = 10_000
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 64 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	return &Registry{
		cfg:  cfg,
		seed: maphash.MakeSeed(),
		// A site that starts puts each of its participants into the log; one that makes up participants does not fill it.
		lines:        rate.NewLimiter(10, 500),
		here:         make(map[identity]*presence),
		bodies:       make(map[bodyKey]*presence),
		participants: make(map[player]*participant),
		places:       make(map[Place]listening),
		limits:       make(map[string]time.Duration),
		counts:       make(map[string]*Counts),
	}
}

// SetLimit sets the limit for participants of a broker that have no heartbeat, also for those that are there. 0 is
// Config's, a negative one is for ever.
func (r *Registry) SetLimit(broker string, limit time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits[broker] = limit
	r.next = time.Time{}
}

// Take takes an announcement as it was received, and returns what has changed by it: nothing, mostly. One that repeats
// letter for letter what was said before is recognised without being parsed. The error is Parse's, or ErrFull.
func (r *Registry) Take(at Place, body []byte, now time.Time) ([]Change, error) {
	sum := maphash.Bytes(r.seed, body)
	r.mu.Lock()
	counts := r.count(at.Broker)
	counts.Messages++
	p := r.bodies[bodyKey{at.Broker, sum}]
	if p != nil {
		counts.Repeated++
		r.heard(p, at, now)
	}
	r.mu.Unlock()
	if p != nil {
		return nil, nil
	}
	def, err := Parse(body) // by far the longest part, and outside the lock
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.count(at.Broker).Malformed++
		return nil, err
	}
	return r.seen(at, def, sum, now)
}

// Seen is Take for an announcement that is parsed already. It does not count as a message.
func (r *Registry) Seen(at Place, def Definition, now time.Time) ([]Change, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen(at, def, 0, now)
}

func (r *Registry) seen(at Place, def Definition, sum uint64, now time.Time) ([]Change, error) {
	key := identity{at.Broker, def.ID}
	p := r.here[key]
	if p != nil && p.Definition.Role == def.Role {
		r.heard(p, at, now)
		if reflect.DeepEqual(p.Definition, def) {
			r.index(p, sum)
			return nil, nil
		}
	}
	bytes, before := def.bytes(), 0
	if p != nil {
		before = p.bytes
	}
	if p == nil && len(r.here) >= r.cfg.Max || r.bytes-before+bytes > r.cfg.MaxBytes {
		r.count(at.Broker).Dropped++
		return nil, ErrFull
	}
	var changes []Change
	if p != nil {
		if p.Definition.Role == def.Role {
			r.bytes += bytes - p.bytes
			p.Definition, p.bytes = def, bytes
			r.dueAt(p)
			r.index(p, sum)
			return []Change{{Changed, r.view(p.of), "another definition"}}, nil
		}
		changes = append(changes, r.leave(p, "plays another role"))
	}
	p = &presence{Presence: Presence{Place: at, Definition: def, First: now, Last: now}, bytes: bytes}
	r.here[key] = p
	r.bytes += bytes
	r.index(p, sum)
	who := player{def.ID, def.Role}
	change := Change{Kind: Changed, Reason: "seen on " + at.Broker + " too"}
	if p.of = r.participants[who]; p.of == nil {
		r.incarnations++
		p.of = &participant{incarnation: r.incarnations, first: now}
		r.participants[who] = p.of
		change = Change{Kind: Appeared}
	}
	p.of.on = append(p.of.on, p)
	r.dueAt(p)
	change.Participant = r.view(p.of)
	return append(changes, change), nil
}

func (r *Registry) heard(p *presence, at Place, now time.Time) {
	if p.Place != at {
		p.Place = at
		r.next = time.Time{} // nobody may have listened where it was
	}
	if now.After(p.Last) {
		p.Last = now
	}
}

// index makes the announcement with a sum that of p.
func (r *Registry) index(p *presence, sum uint64) {
	key := bodyKey{p.Broker, p.sum}
	if p.sum != 0 && r.bodies[key] == p {
		delete(r.bodies, key)
	}
	p.sum = sum
	if sum != 0 {
		r.bodies[bodyKey{p.Broker, sum}] = p
	}
}

// leave takes a presence away, and returns what that means for the participant.
func (r *Registry) leave(p *presence, why string) Change {
	change := Change{Left, r.view(p.of), why}
	r.index(p, 0)
	delete(r.here, identity{p.Broker, p.Definition.ID})
	r.bytes -= p.bytes
	p.of.on = slices.DeleteFunc(p.of.on, func(q *presence) bool { return q == p })
	if len(p.of.on) == 0 {
		delete(r.participants, player{p.Definition.ID, p.Definition.Role})
		return change
	}
	return Change{Changed, r.view(p.of), "on " + p.Broker + ": " + why}
}

// Expire removes who has not been heard of for too long, and returns what has changed by it, by role and id. A time in
// which nobody listened at a participant's place is no silence: it has its whole limit again when somebody does.
func (r *Registry) Expire(now time.Time) []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		return nil
	}
	r.next = now.Add(100 * 365 * 24 * time.Hour)
	return r.drop("not heard of for too long", func(p *presence) bool {
		due, ok := r.dueAt(p)
		return ok && !now.Before(due)
	})
}

// dueAt returns when p will be gone if nothing is heard of it, or false if it never will; and Expire looks no later.
func (r *Registry) dueAt(p *presence) (time.Time, bool) {
	limit, at := r.limit(p), r.places[p.Place]
	if limit == 0 || at.deaf {
		return time.Time{}, false
	}
	from := p.Last
	if at.since.After(from) {
		from = at.since
	}
	due := from.Add(limit)
	if due.Before(r.next) {
		r.next = due
	}
	return due, true
}

// Remove forgets all participants with an id, and returns what has changed by it. Who is alive will announce itself again,
// and be a new incarnation.
func (r *Registry) Remove(id string) []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drop("removed", func(p *presence) bool { return p.Definition.ID == id })
}

// RemoveBroker forgets everything about a broker that is no longer listened to, and returns what has changed by it.
func (r *Registry) RemoveBroker(broker string) []Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := r.drop("nobody listens there any more", func(p *presence) bool { return p.Broker == broker })
	delete(r.counts, broker)
	delete(r.limits, broker)
	for at := range r.places {
		if at.Broker == broker {
			delete(r.places, at)
		}
	}
	return changes
}

func (r *Registry) drop(why string, gone func(*presence) bool) []Change {
	var leaving []*presence
	for _, p := range r.here {
		if gone(p) {
			leaving = append(leaving, p)
		}
	}
	slices.SortFunc(leaving, func(p, q *presence) int {
		return cmp.Or(
			strings.Compare(p.Definition.Role, q.Definition.Role),
			strings.Compare(p.Definition.ID, q.Definition.ID),
			strings.Compare(p.Broker, q.Broker),
		)
	})
	var changes []Change
	for _, p := range leaving {
		changes = append(changes, r.leave(p, why))
	}
	return changes
}

// Listening says whether announcements at a place can be heard. From the moment on in which they cannot, nobody there is
// gone because of silence. Listeners say it; places that nobody speaks of are listened to.
func (r *Registry) Listening(at Place, yes bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places[at] = listening{deaf: !yes, since: now}
	r.next = time.Time{}
}

// Listens says whether announcements can be heard at all addresses of a broker, as far as listeners have spoken of them.
func (r *Registry) Listens(broker string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	any := false
	for at, l := range r.places {
		if at.Broker == broker {
			if l.deaf {
				return false
			}
			any = true
		}
	}
	return any
}

// Snapshot returns who is there, by role and then by incarnation.
func (r *Registry) Snapshot() []Participant {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Participant, 0, len(r.participants))
	for _, p := range r.participants {
		all = append(all, r.view(p))
	}
	slices.SortFunc(all, func(p, q Participant) int {
		return cmp.Or(strings.Compare(p.Definition.Role, q.Definition.Role), cmp.Compare(p.Incarnation, q.Incarnation))
	})
	return all
}

// Counts returns the counts by broker.
func (r *Registry) Counts() map[string]Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[string]Counts, len(r.counts))
	for broker, c := range r.counts {
		counts[broker] = *c
	}
	return counts
}

// Run removes who is gone, once a second, until ctx ends; then it returns nil.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.report(r.Expire(time.Now()))
		}
	}
}

// report tells everybody of changes.
func (r *Registry) report(changes []Change) {
	if len(changes) == 0 {
		return
	}
	for _, c := range changes {
		r.log(c)
	}
	r.cfg.Changed()
}

func (r *Registry) log(c Change) {
	r.mu.Lock()
	if !r.lines.Allow() {
		r.unlogged++
		r.mu.Unlock()
		return
	}
	unlogged := r.unlogged
	r.unlogged = 0
	r.mu.Unlock()
	log := r.cfg.Log
	if unlogged > 0 {
		log.Warn("too many changes of participants for the log", "not_logged", unlogged)
	}
	p := c.Participant
	log = log.With("role", p.Definition.Role, "id", p.Definition.ID, "broker", p.On[0].Broker)
	switch c.Kind {
	case Appeared:
		log.Info("participant appeared", "component", p.Definition.Component)
	case Changed:
		log.Info("participant changed", "reason", c.Reason)
	case Left:
		log.Info("participant left", "reason", c.Reason)
	}
}

func (r *Registry) count(broker string) *Counts {
	c := r.counts[broker]
	if c == nil {
		c = new(Counts)
		r.counts[broker] = c
	}
	return c
}

// limit is after how long a silence p is gone; 0 is never.
func (r *Registry) limit(p *presence) time.Duration {
	if beat := p.Definition.Heartbeat; beat > 0 {
		return max(heartbeats*beat, least)
	}
	return max(cmp.Or(r.limits[p.Broker], r.cfg.Limit), 0)
}

// view returns what others may see of a participant.
func (r *Registry) view(p *participant) Participant {
	v := Participant{
		Definition:  p.on[0].Definition,
		Incarnation: p.incarnation,
		First:       p.first,
		On:          make([]Presence, len(p.on)),
	}
	for i, q := range p.on {
		v.On[i] = q.Presence
		v.On[i].Limit = r.limit(q)
		if q.Last.After(v.Last) {
			v.Last = q.Last
		}
	}
	return v
}

// bytes is about how much memory a definition takes.
func (d *Definition) bytes() int {
	n := int(reflect.TypeFor[presence]().Size()) + len(d.ID) + len(d.Role) + len(d.Component) + len(d.Label) + len(d.Icon) +
		len(d.Type) + len(d.Version) + len(d.InQueue) + len(d.OutQueue) + len(d.Address)
	// What a key and a value cost in a map that is small.
	const entry = 64
	for key, raw := range d.Extra {
		n += entry + len(key) + len(raw)
	}
	for _, ports := range [][]Port{d.Inports, d.Outports} {
		for _, p := range ports {
			n += int(reflect.TypeFor[Port]().Size()) + len(p.ID) + len(p.Type) + len(p.Queue) + len(p.Description) +
				len(p.Schema) + len(p.Options)
			for key, raw := range p.Extra {
				n += entry + len(key) + len(raw)
			}
		}
	}
	return n
}
