package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// letterBox is a place for dead letters, with the edges whose they are.
type letterBox struct {
	broker string
	deadletter.Place
	// fleeting: the broker may have more than it hands out at a time.
	fleeting bool
	edges    []deadEdge
	// targets are what the letters are of, as far as the site file alone tells, by the name that is in the letters.
	targets map[string]*deadTarget
}

// deadEdge is an edge that has dead letters.
type deadEdge struct {
	id       string
	from, to string
}

// deadTarget is what carries one edge, or several that meet at a node of flogate's own.
type deadTarget struct {
	edges []string
	// sinks are where its messages go: to one, or in turn.
	sinks []sinkAt
	turn  int
}

// sinkAt is a place to publish to.
type sinkAt struct {
	broker string
	transport.Sink
}

// letterBoxes returns the places for dead letters of a site, in the order of its edges.
func letterBoxes(site *config.Site) []*letterBox {
	settings, plan := site.Input().Settings, site.Plan()
	var boxes []*letterBox
	for _, e := range plan.Edges {
		s := settings(e.From, e.To)
		if s.DeadLetter == (route.Place{}) {
			continue
		}
		i := slices.IndexFunc(boxes, func(b *letterBox) bool {
			return b.broker == s.DeadLetter.Broker && b.Address == s.DeadLetter.Address && string(b.Reader) == string(s.DeadLetterReader)
		})
		if i < 0 {
			i = len(boxes)
			boxes = append(boxes, &letterBox{
				broker: s.DeadLetter.Broker, fleeting: s.DeadLetterTraits.Fleeting, targets: make(map[string]*deadTarget),
				Place: deadletter.Place{
					Address: s.DeadLetter.Address, Options: s.DeadLetterOptions, Reader: s.DeadLetterReader, Headerless: s.DeadLetterTraits.Headerless,
				},
			})
		}
		boxes[i].edges = append(boxes[i].edges, deadEdge{e.ID, e.From.String(), e.To.String()})
	}
	for _, f := range plan.Feeds {
		for _, t := range f.Targets {
			for _, b := range boxes {
				if t.DeadLetter == (route.Place{Broker: b.broker, Address: b.Address}) {
					b.targets[t.ID] = newDeadTarget(t)
				}
			}
		}
	}
	return boxes
}

func newDeadTarget(t route.Target) *deadTarget {
	d := &deadTarget{edges: append([]string{t.ID}, t.Edges...)}
	for _, m := range t.Members {
		d.sinks = append(d.sinks, sinkAt{m.Broker, m.Sink})
	}
	if len(t.Members) == 0 {
		d.sinks = []sinkAt{{t.Broker, t.Sink}}
	}
	return d
}

// next returns the sink for the next letter.
func (d *deadTarget) next() sinkAt {
	at := d.sinks[d.turn%len(d.sinks)]
	d.turn++
	return at
}

// knows says whether letters of this name belong there.
func (b *letterBox) knows(edge string) bool { return b.targets[edge] != nil || b.edge(edge) != nil }

// edge returns the edge of the box with an ID, or nil.
func (b *letterBox) edge(id string) *deadEdge {
	if i := slices.IndexFunc(b.edges, func(e deadEdge) bool { return e.id == id }); i >= 0 {
		return &b.edges[i]
	}
	return nil
}

// chooseBox returns the box of the edge that is named, and its ID. Without a name it is the only box there is, and the ID is
// empty: all edges of it.
func chooseBox(file string, boxes []*letterBox, name string) (*letterBox, string, error) {
	if len(boxes) == 0 {
		return nil, "", fmt.Errorf("%s has no edge with a dead_letter", file)
	}
	var known []string
	for _, b := range boxes {
		for _, e := range b.edges {
			if e.is(name) {
				return b, e.id, nil
			}
			known = append(known, fmt.Sprintf("%q", e.id))
		}
	}
	switch {
	case name != "":
		return nil, "", usagef("%s has no edge %q with a dead_letter; it has %s", file, name, strings.Join(known, ", "))
	case len(boxes) > 1:
		return nil, "", usagef("%s has %s: say whose with EDGE, one of %s", file, count(len(boxes), "place")+" for dead letters", strings.Join(known, ", "))
	}
	return boxes[0], "", nil
}

// is says whether the edge is called by a name: its ID, or its ends with or without an arrow. The case of ports does not
// count, as in graphs.
func (e deadEdge) is(name string) bool {
	fields := strings.Fields(strings.ReplaceAll(name, "->", " "))
	return e.id == name || len(fields) == 2 && strings.EqualFold(fields[0], e.from) && strings.EqualFold(fields[1], e.to)
}

// deadSite is a site whose dead letters are worked on: its connections, each opened when it is needed. It is not for
// concurrent use.
type deadSite struct {
	app    *app
	file   string
	site   *config.Site
	guests *guests
	flags  *deadFlags

	conns map[string]transport.Conn
	pubs  map[string]transport.Publisher
	live  map[string]sinkAt // sinks by edge, as the running gateway says
	asked bool              // live has been asked for
}

func (a *app) openDeadSite(ctx context.Context, f *deadFlags) (*deadSite, error) {
	if f.site == "" {
		return nil, usagef("--config is missing: the site file whose dead letters it is about")
	}
	site, err := a.look(ctx, f.site)
	if err != nil {
		return nil, err
	}
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	return &deadSite{
		app: a, file: f.site, site: site, guests: newGuests(log), flags: f,
		conns: make(map[string]transport.Conn), pubs: make(map[string]transport.Publisher),
	}, nil
}

// close ends what was opened.
func (d *deadSite) close(ctx context.Context) {
	for _, conn := range d.conns {
		closeConn(ctx, conn)
	}
	d.guests.close()
}

// driver returns the driver of a broker of the site.
func (d *deadSite) driver(ctx context.Context, id string) (transport.Driver, *config.Broker, error) {
	b := d.site.Broker(id)
	if b == nil {
		var names []string
		for _, b := range d.site.Brokers {
			names = append(names, b.ID())
		}
		return nil, nil, usagef("%s has no broker %q; it has %s", d.file, id, strings.Join(names, ", "))
	}
	driver, err := d.guests.driver(ctx, d.site.Plugins.Directory, b.Type)
	return driver, b, err
}

// conn returns the connection to a broker of the site. Its name is that of the gateway's own, because what the broker keeps
// for whoever reads dead letters is kept under it.
func (d *deadSite) conn(ctx context.Context, id string) (transport.Conn, error) {
	if conn := d.conns[id]; conn != nil {
		return conn, nil
	}
	driver, b, err := d.driver(ctx, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.flags.timeout)
	defer cancel()
	conn, err := driver.Connect(ctx, transport.ConnectRequest{Name: d.site.Name + "/" + id, Config: b.Config.JSON()})
	switch {
	case err == nil:
		d.conns[id] = conn
		return conn, nil
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("nobody answers within %s (--timeout)", d.flags.timeout)
	}
	code := exitUnreachable
	if transport.IsPermanent(err) {
		code = exitFailed
	}
	return nil, &exitError{code, fmt.Errorf("%s: %w", id, err)}
}

// publisher returns the publisher to a place. Those that are the same are one, so that letters stay in order.
func (d *deadSite) publisher(ctx context.Context, at sinkAt) (transport.Publisher, error) {
	key := at.broker + " " + at.Name + " " + at.Address
	if pub := d.pubs[key]; pub != nil {
		return pub, nil
	}
	conn, err := d.conn(ctx, at.broker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.flags.timeout)
	defer cancel()
	pub, err := conn.Publish(ctx, at.Sink)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", at.broker, at.Address, err)
	}
	d.pubs[key] = pub
	return pub, nil
}

// open opens a box to look at most letters in it.
func (d *deadSite) open(ctx context.Context, b *letterBox, most int) (*deadletter.Box, error) {
	conn, err := d.conn(ctx, b.broker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.flags.timeout)
	defer cancel()
	box, err := deadletter.OpenBox(ctx, conn, b.Place, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.broker, err)
	}
	return box, nil
}

// sinkOf returns where the letters of an edge are to be redriven: what --to says, the sink in the site file, or else what
// the running gateway knows of it. The error says what to do where nobody knows.
func (d *deadSite) sinkOf(ctx context.Context, b *letterBox, edge string) (sinkAt, error) {
	if d.flags.to != "" {
		return d.flags.toSink(edge)
	}
	if t := b.targets[edge]; t != nil {
		at := t.next()
		// Another name than the gateway's: a sink that drops what it has seen must not take a letter for its message.
		at.Name = "redrive " + at.Name
		return at, nil
	}
	if !d.asked && d.site.Listen.Admin != "" {
		d.asked = true
		status, err := liveStatus(ctx, d.site.Listen.Admin)
		if err != nil {
			return sinkAt{}, fmt.Errorf("the site file does not say where the messages of %q go, and the gateway cannot be asked: %w; "+
				"start it, or say where with --to \"BROKER ADDRESS\"", edge, err)
		}
		d.live = make(map[string]sinkAt)
		for _, e := range status.Edges {
			if e.Sink.Broker != "" {
				d.live[e.ID] = sinkAt{e.Sink.Broker, transport.Sink{Name: "redrive " + e.ID, Address: e.Sink.Address}}
			}
		}
	}
	if at, ok := d.live[edge]; ok {
		return at, nil
	}
	return sinkAt{}, fmt.Errorf("nobody knows where the messages of %q go: say it with --to \"BROKER ADDRESS\"", edge)
}

// confirms says whether a sink says that it has a message, and if not, why.
func (d *deadSite) confirms(ctx context.Context, at sinkAt) (bool, string, error) {
	driver, _, err := d.driver(ctx, at.broker)
	if err != nil {
		return false, "", err
	}
	r, err := driver.Validate(ctx, transport.ValidateRequest{Sinks: []transport.Sink{at.Sink}})
	switch {
	case err != nil:
		return false, "", err
	case len(r.Problems) > 0:
		return false, "", fmt.Errorf("%s %s: %s", at.broker, at.Address, r.Problems[0].Message)
	case len(r.Sinks) != 1:
		return false, "", fmt.Errorf("%s: the driver says nothing of %s", at.broker, at.Address)
	}
	return r.Sinks[0].Confirms, r.Sinks[0].Weakness, nil
}

// toSink is what --to says.
func (f *deadFlags) toSink(edge string) (sinkAt, error) {
	broker, address, ok := strings.Cut(f.to, " ")
	if !ok || broker == "" || address == "" {
		return sinkAt{}, usagef("--to is %q: it is a broker of the site file and an address, in quotes: --to \"amqp.work orders\"", f.to)
	}
	if f.options != "" && !json.Valid([]byte(f.options)) {
		return sinkAt{}, usagef("--options is not JSON: %s", f.options)
	}
	return sinkAt{broker, transport.Sink{Name: "redrive " + edge, Address: address, Options: rawJSON(f.options)}}, nil
}
