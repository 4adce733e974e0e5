package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/library"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/roster"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// stage is who plays, and what runs for them.
type stage struct {
	registry *discovery.Registry
	roster   *roster.Roster
	shelves  []*shelf
	// drivers answer questions about ports, by broker.
	drivers map[string]func(ctx context.Context) (transport.Driver, error)
	// poked has an element when somebody has come, gone or changed.
	poked  chan struct{}
	memory *memory
	// heard are the brokers on which announcements are listened to.
	heard map[string]bool

	// warnings bounds what is logged of participants that look wrong: somebody may look wrong in another way each time. All of
	// it is in the status.
	warnings *rate.Limiter

	// For the status, under runner.mu.
	members []roster.Member
	since   map[string]time.Time // since when a role is in its state
}

// newStage returns a stage on which those are who were there when a file was written, which need not exist.
func newStage(cfg discovery.Config, file string) *stage {
	s := &stage{
		poked: make(chan struct{}, 1), since: make(map[string]time.Time), warnings: rate.NewLimiter(rate.Every(10*time.Second), 100),
		memory: &memory{path: file, log: cfg.Log, changed: make(chan struct{}, 1)},
	}
	cfg.Changed = func() {
		s.memory.note()
		s.poke()
	}
	s.registry = discovery.NewRegistry(cfg)
	s.roster = roster.New(s.validate)
	s.memory.registry = s.registry
	s.memory.restore()
	return s
}

func (s *stage) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// earTime bounds waiting for a broker before a participant on it is started. It is longer than connecting takes.
const earTime = 3 * time.Second

// awaitEars blocks until announcements on a broker are heard, or time is up: what a participant says of itself when it starts
// it says again after half a minute only.
func (s *stage) awaitEars(ctx context.Context, broker string) {
	ctx, cancel := context.WithTimeout(ctx, earTime)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !s.registry.Listens(broker) {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// askTime bounds asking a driver about ports: one of a plugin is launched for it.
const askTime = 5 * time.Second

func (s *stage) validate(ctx context.Context, broker string, req transport.ValidateRequest) (transport.ValidateResult, error) {
	open := s.drivers[broker]
	if open == nil {
		return transport.ValidateResult{}, errors.New("the site has no such broker")
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	driver, err := open(ctx)
	if err != nil {
		return transport.ValidateResult{}, err
	}
	return driver.Validate(ctx, req)
}

// player is a participant that the site knows of by itself: it is written in the site file, or of a component in a library.
type player struct {
	config.Participant
	from string
	// dir, env and edition belong to the command of one that is started.
	dir     string
	env     []string
	hide    []string
	edition int
	// heard: announcements on its broker are listened to.
	heard bool
	// problem says why it cannot be started.
	problem error
}

// played is how a program is doing that was started for a role.
type played struct {
	library.Status
	version string // of the player
	// ending says whether it is not wanted any more.
	ending func() bool
}

// started says whether there is a program that plays the role.
func (p player) started() bool { return len(p.Command) > 0 || p.problem != nil }

// version changes when the program has to be started anew.
func (p player) version() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d", p.dir, p.Command, p.env, p.edition)
	return hex.EncodeToString(h.Sum(nil))
}

// players returns who is in the site file, and then those whom the libraries bring about for nodes of the graphs.
func (r *runner) players(site *config.Site, nodes []roster.Node) []player {
	var all []player
	taken := make(map[string]bool)
	for _, p := range site.Participants {
		taken[p.Role] = true
		all = append(all, player{Participant: p, from: "site", dir: site.Dir})
	}
	for _, n := range nodes {
		if taken[n.Role] {
			continue
		}
		if p, ok := r.fromLibrary(n); ok {
			taken[n.Role] = true
			all = append(all, p)
		}
	}
	for i := range all {
		p := &all[i]
		p.heard = len(discoveryOn(site, p.Broker)) > 0
		p.env, p.hide = participantEnv(site, p.Broker, p.Env), hidden(site, p.Broker, p.Env)
	}
	return all
}

// nodesOf returns the nodes of all graphs that somebody has to play.
func nodesOf(site *config.Site) []roster.Node {
	var nodes []roster.Node
	for _, g := range site.Graphs {
		for _, n := range g.Graph.Nodes {
			if !route.IsRelay(n.Component) {
				nodes = append(nodes, roster.Node{Role: n.ID, Component: n.Component})
			}
		}
	}
	return nodes
}

// fromLibrary makes a player of a node whose component is in a library.
func (r *runner) fromLibrary(n roster.Node) (player, bool) {
	for _, s := range r.stage.shelves {
		c, ok := s.has(n.Component, n.Role)
		if !ok {
			continue
		}
		p := player{from: "library", dir: s.lib.Dir(), edition: s.edition(c.Name)}
		if c.Foreign {
			p.Participant, p.problem = s.announced(c, n.Role)
		} else {
			p.Command, p.problem = s.lib.Command(n.Component, n.Role, nil) // what #IIPS stands for is sent as messages
		}
		p.Role, p.Component, p.Broker, p.Env = n.Role, n.Component, s.spec.Broker, s.spec.Env
		return p, true
	}
	return player{}, false
}

// declared returns a player for the roster.
func (r *runner) declared(p player, now time.Time) roster.Declared {
	d := roster.Declared{
		Role: p.Role, Component: p.Component, Label: p.Label, Icon: p.Icon, From: p.from,
		Inports: declaredPorts(p, p.Inports), Outports: declaredPorts(p, p.Outports),
	}
	switch s, runs := r.participants[p.Role]; {
	case p.problem != nil:
		d.Run = &roster.Run{State: "failed", Reason: p.problem.Error(), Since: now}
	case !p.started():
	case !runs || s.ending() || s.version != p.version():
		d.Run = &roster.Run{State: "running", Since: now} // it is about to
	default:
		d.Run = &roster.Run{State: s.State, Reason: s.Reason, Since: s.Since}
	}
	return d
}

func declaredPorts(p player, ports []config.Port) []roster.Port {
	var out []roster.Port
	for _, port := range ports {
		q := roster.Port{
			Name: port.Name, Type: port.Type, Schema: port.Schema, Description: port.Description, Broker: p.Broker,
			Address: port.Address, Options: port.Options.JSON(), Hidden: port.Hidden,
		}
		if p.from == "site" {
			q.Traits = &port.Traits // the driver was asked when the file was read
		}
		out = append(out, q)
	}
	return out
}

// announcementID is what a foreign participant is called in announcements: the same in every run, so that it is one life. No
// site's name has a slash in it, so that "hall" knows what is its own from what "hall-2" announces.
func announcementID(site *config.Site, role string) string {
	return "flogate/" + site.Name + "/" + role
}

// others leaves those who have announced themselves. What we announce ourselves comes back to us, and we know better who that
// is: one that we have ceased to announce is not there for another ten minutes.
func others(site *config.Site, announced []discovery.Participant) []discovery.Participant {
	ours := announcementID(site, "")
	return slices.DeleteFunc(announced, func(p discovery.Participant) bool {
		return strings.HasPrefix(p.Definition.ID, ours)
	})
}

// plan makes what runs what is wanted, now that it is as it is. It returns when it should be called again although nobody
// pokes; the zero time is never.
func (r *runner) plan(ctx context.Context) time.Time {
	now := time.Now()
	in := roster.Input{Announced: others(r.site, r.stage.registry.Snapshot()), Nodes: nodesOf(r.site), Now: now}
	players := r.players(r.site, in.Nodes)
	r.mu.Lock()
	for _, p := range players {
		in.Declared = append(in.Declared, r.declared(p, now))
	}
	r.mu.Unlock()
	cast := r.stage.roster.Cast(ctx, in)
	r.remember(cast.Members, now)
	wanted := r.site.Input()
	wanted.Participants = cast.Participants
	r.net.Apply(network.Wanted{Brokers: r.brokers, Plan: route.Make(wanted)})
	r.tasks.apply(ctx, r.wanted(r.site, players))
	r.attend()
	return cast.Again
}

// attend tells the registry which brokers are listened to: who was heard of on another is not there any more.
func (r *runner) attend() {
	heard := make(map[string]bool)
	for _, b := range r.site.Brokers {
		if len(discoveryOn(r.site, b.ID())) > 0 {
			heard[b.ID()] = true
			r.stage.registry.SetLimit(b.ID(), r.site.DiscoveryOn(b.ID()).Silence)
		}
	}
	for id := range r.stage.heard {
		if !heard[id] && len(r.stage.registry.RemoveBroker(id)) > 0 {
			r.stage.poke()
		}
	}
	r.stage.heard = heard
}

// leave forgets who is on a server to which a broker does not lead any more.
func (s *stage) leave(before, now *config.Site) {
	for _, b := range before.Brokers {
		if c := now.Broker(b.ID()); c != nil && serverOf(b) != serverOf(*c) {
			s.registry.RemoveBroker(b.ID())
		}
	}
}

// serverOf is what of a broker's URL says which server it is: neither who we are there nor how we ask.
func serverOf(b config.Broker) string {
	u, err := url.Parse(brokerURL(b.Config.JSON()))
	if err != nil {
		return ""
	}
	return u.Host + u.Path
}

// expel removes those of an earlier run who are on brokers of which nobody hears now. Those who were heard of at an address
// that is not listened to any more are gone after the usual time, or they would never be.
func (r *runner) expel(site *config.Site, now time.Time) {
	for _, p := range r.stage.registry.Snapshot() {
		for _, on := range p.On {
			switch addresses := discoveryOn(site, on.Broker); {
			case len(addresses) == 0:
				r.stage.registry.RemoveBroker(on.Broker)
			case !slices.ContainsFunc(addresses, func(a discovery.Address) bool { return a.Address == on.Address }):
				r.stage.registry.Listening(on.Place, true, now)
			}
		}
	}
}

// remember keeps who plays, for the status, and says what looks wrong with them.
func (r *runner) remember(members []roster.Member, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := make(map[string]roster.Member, len(r.stage.members))
	for _, m := range r.stage.members {
		before[m.Role] = m
	}
	since := make(map[string]time.Time, len(members))
	for _, m := range members {
		old, was := before[m.Role]
		since[m.Role] = now
		if was && old.State == m.State {
			since[m.Role] = r.stage.since[m.Role]
		}
		if m.Warning != "" && m.Warning != old.Warning && m.InGraph && r.stage.warnings.Allow() {
			r.log.Warn("participant looks wrong", "role", m.Role, "warning", m.Warning)
		}
		if _, runs := r.participants[m.Role]; !runs && m.State == roster.Failed && m.State != old.State {
			// Of one that has run is said how it has ended.
			r.log.Warn("participant does not run", "role", m.Role, "component", m.Component, "reason", m.Reason)
		}
	}
	r.stage.members, r.stage.since = members, since
}

// wanted are the tasks beside the network.
func (r *runner) wanted(site *config.Site, players []player) map[string]task {
	wanted := r.housekeeping(site)
	for _, p := range players {
		switch {
		case p.problem != nil:
		case p.started():
			wanted["participant "+p.Role] = task{
				version: p.version(), alone: true,
				run: func(ctx context.Context) error { return r.play(ctx, p) },
			}
		default:
			if t, ok := r.announcing(site, p); ok {
				wanted["announce "+p.Role] = t
			}
		}
	}
	for _, s := range r.stage.shelves {
		wanted["library "+s.spec.Name] = task{
			version: fmt.Sprintf("%p", s), // another library is another shelf
			run:     func(ctx context.Context) error { return s.watch(ctx, r.stage.poke) },
		}
	}
	for _, b := range site.Brokers {
		addresses := discoveryOn(site, b.ID())
		if len(addresses) == 0 {
			continue
		}
		wanted["discovery "+b.ID()] = task{version: fmt.Sprint(addresses), run: func(ctx context.Context) error {
			return discovery.Listener{
				Broker: b.ID(), Addresses: addresses, Registry: r.stage.registry, Log: r.log,
				Open: func(ctx context.Context) (transport.Conn, error) { return r.net.Conn(ctx, b.ID()) },
			}.Run(ctx)
		}}
	}
	return wanted
}

// discoveryOn returns where participants announce themselves on a broker; none if nobody shall listen, or the site has no such
// broker.
func discoveryOn(site *config.Site, broker string) []discovery.Address {
	b := site.Broker(broker)
	if b == nil {
		return nil
	}
	return discovery.AddressesOn(b.Type, site.DiscoveryOn(broker).Addresses)
}

// announcing announces a foreign participant, if there is where.
func (r *runner) announcing(site *config.Site, p player) (task, bool) {
	addresses := discoveryOn(site, p.Broker)
	if len(addresses) == 0 {
		return task{}, false
	}
	def := announcement(p.Participant)
	def.ID = announcementID(site, p.Role)
	text, err := json.Marshal(def)
	if err != nil {
		text = []byte(err.Error()) // which the announcer says too
	}
	id, kind, address := p.Broker, site.Broker(p.Broker).Type, addresses[0].Address
	return task{version: fmt.Sprintf("%s %s %s", id, address, text), run: func(ctx context.Context) error {
		return discovery.Announcer{
			Definition: def, Log: r.log.With("broker", id),
			Open: func(ctx context.Context) (transport.Publisher, error) {
				conn, err := r.net.Conn(ctx, id)
				if err != nil {
					return nil, err
				}
				return discovery.OpenPublisher(ctx, conn, kind, address)
			},
		}.Run(ctx)
	}}, true
}

// showMembers puts who plays into the status. r.mu is held.
func (r *runner) showMembers(out *admin.Status) {
	// Nothing is planned anew when somebody repeats what is known: when that was, the registry knows.
	heard := make(map[uint64]discovery.Participant)
	for _, p := range r.stage.registry.Snapshot() {
		heard[p.Incarnation] = p
	}
	for _, m := range r.stage.members {
		p := admin.Participant{
			Role: m.Role, Component: m.Component, Label: m.Label, Icon: m.Icon, From: m.From, InGraph: m.InGraph,
			State: string(m.State), Reason: m.Reason, Warning: m.Warning, Since: r.stage.since[m.Role],
			Inports: showPorts(m.Inports), Outports: showPorts(m.Outports), Announced: []admin.Announced{},
		}
		if s, ok := r.participants[m.Role]; ok {
			p.PID, p.Restarts, p.Started = s.PID, s.Restarts, true
		}
		for _, a := range m.Announced {
			if p, is := heard[a.Incarnation]; is {
				a = p
			}
			shown := admin.Announced{
				ID: a.Definition.ID, Incarnation: a.Incarnation, First: a.First, Last: a.Last,
				Type: a.Definition.Type, Version: a.Definition.Version, On: []admin.Presence{},
			}
			for _, on := range a.On {
				shown.On = append(shown.On, admin.Presence{
					Broker: on.Broker, Address: on.Address, First: on.First, Last: on.Last, LimitSeconds: on.Limit.Seconds(),
				})
			}
			p.Announced = append(p.Announced, shown)
		}
		out.Participants = append(out.Participants, p)
	}
	counts := r.stage.registry.Counts()
	for _, broker := range slices.Sorted(maps.Keys(counts)) {
		c := counts[broker]
		out.Discovery = append(out.Discovery, admin.Discovery{
			Broker: broker, Messages: c.Messages, Repeated: c.Repeated, Malformed: c.Malformed, Dropped: c.Dropped,
		})
	}
}

func showPorts(ports []roster.Port) []admin.Port {
	out := []admin.Port{}
	for _, p := range ports {
		out = append(out, admin.Port{
			Name: p.Name, Type: p.Type, Schema: p.Schema, Description: p.Description, Hidden: p.Hidden,
			Place: admin.Place{Broker: p.Broker, Address: p.Address},
		})
	}
	return out
}
