package config

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// listenerAt is an address that the gateway, or a child of it, will listen on.
type listenerAt struct {
	host, port string
	where      hcl.Range
}

// listener reads host:port. A port of 0, which is any that is free, is for what needs no fixed one.
func (l *loader) listener(v values, name string, zero bool) string {
	text, where, ok := v.text(name)
	if !ok {
		return ""
	}
	const form = `An address to listen on is host:port, like "127.0.0.1:3569", or ":3569" for all interfaces.`
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsFunc(host, func(c rune) bool { return c == '/' || c <= ' ' }) {
		l.diags.add(Error, where, "Wrong address", "%s", form)
		return ""
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		l.diags.add(Error, where, "Wrong address", "%q is no port: it is a number up to 65535. %s", port, form)
		return ""
	}
	if n == 0 {
		if !zero {
			l.diags.add(Error, where, "Wrong address", "An embedded broker needs a port that others can know: 0 is a different one at each start.")
			return ""
		}
		return text
	}
	l.listeners = append(l.listeners, listenerAt{host, strconv.FormatUint(n, 10), where})
	return text
}

// checkListeners finds those that cannot listen at the same time.
func (l *loader) checkListeners() {
	for i, a := range l.listeners {
		for _, b := range l.listeners[:i] {
			if a.port == b.port && (a.host == b.host || everywhere(a.host) || everywhere(b.host)) {
				l.diags.add(Error, a.where, "Port taken twice", "Port %s is already used %s.", a.port, l.on(b.where))
				break
			}
		}
	}
}

func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || (ip != nil && ip.IsUnspecified())
}

// portText is a port as an edge block writes it, with its index.
func portText(p graph.Endpoint) string { return strings.TrimPrefix(p.String(), p.Node+".") }

// checkEdges finds the edge of each edge block in the graphs, and gives it the graph's spelling.
func (l *loader) checkEdges() {
	var there []Edge
	for _, g := range l.graphs {
		if g.Graph.Graph == nil {
			// It has been reported, and nobody knows what would have been in it.
			return
		}
		for _, e := range g.Graph.Graph.Edges {
			there = append(there, Edge{From: e.Src.Node, FromPort: portText(e.Src), To: e.Tgt.Node, ToPort: portText(e.Tgt)})
		}
	}
	if l.brokenGraph {
		return
	}
	for _, e := range l.edges {
		i := slices.IndexFunc(there, e.same)
		if i < 0 {
			l.diags.add(Error, hcl.RangeBetween(e.labels[0], e.labels[1]), "Unknown edge", "%s", unknownEdge(e.Edge, there))
			continue
		}
		e.FromPort, e.ToPort = there[i].FromPort, there[i].ToPort
	}
}

// unknownEdge says that there is no such edge, and which one could have been meant.
func unknownEdge(e Edge, there []Edge) string {
	show := func(e Edge) string { return fmt.Sprintf("%q %q", e.From+"."+e.FromPort, e.To+"."+e.ToPort) }
	flat := func(e Edge) string {
		return strings.ToLower(e.From + "." + e.FromPort + " " + e.To + "." + e.ToPort)
	}
	detail := fmt.Sprintf("No graph has an edge %s.", show(e))
	best, distance := -1, 4
	for i, other := range there {
		if n := editDistance(flat(e), flat(other)); n < distance {
			best, distance = i, n
		}
		if other.same(Edge{From: e.To, FromPort: e.ToPort, To: e.From, ToPort: e.FromPort}) {
			return detail + " There is one in the other direction: the port that messages come from is the first label."
		}
	}
	if best >= 0 {
		return detail + fmt.Sprintf(" Did you mean %s?", show(there[best]))
	}
	return detail
}

func (l *loader) participant(role string) *participantAt {
	for _, p := range l.participants {
		if p.Role == role {
			return p
		}
	}
	return nil
}

// checkPorts warns of what graphs want of participants and these do not have. It is no error: a participant may announce
// more than the site file says, and until then the edge is pending.
func (l *loader) checkPorts() {
	for _, g := range l.graphs {
		if g.Graph.Graph == nil {
			continue
		}
		for _, n := range g.Graph.Graph.Nodes {
			if route.IsRelay(n.Component) {
				continue // it is no participant
			}
			if guess := l.misspelt(g.Graph.Graph, n.ID); guess != "" {
				l.diags.add(Warning, g.whereNode(n.ID), "Missing participant",
					"The graph %q has a node %q, and there is no participant of this role: its edges will be pending.%s",
					g.Name, n.ID, guess)
			}
			if p := l.participant(n.ID); p != nil && p.Component != "" && n.Component != "" && p.Component != n.Component {
				l.diags.add(Warning, p.label, "Another component",
					"The graph %q has %q as a %s, and here it is a %s.", g.Name, n.ID, n.Component, p.Component)
			}
		}
		var seen []string
		want := func(e graph.Endpoint, in bool) {
			p := l.participant(e.Node)
			if p == nil {
				return
			}
			what, ports := "outport", p.outports
			if in {
				what, ports = "inport", p.inports
			}
			known := make([]string, 0, len(ports))
			for _, port := range ports {
				if strings.EqualFold(port.Name, e.Port) {
					return
				}
				known = append(known, port.Name)
			}
			if key := what + " " + e.Node + "." + strings.ToLower(e.Port); !slices.Contains(seen, key) {
				seen = append(seen, key)
				l.diags.add(Warning, g.wherePort(e, in), "Missing "+what,
					"The graph %q uses the %s %q of %q, which has none of this name: the edge will be pending.%s",
					g.Name, what, e.Port, e.Node, didYouMean(e.Port, known))
			}
		}
		for _, e := range g.Graph.Graph.Edges {
			want(e.Src, false)
			want(e.Tgt, true)
		}
		for _, i := range g.Graph.Graph.Initials {
			want(i.Tgt, true)
		}
	}
}

// misspelt guesses at the participant that a node without one was meant to be: one that the graph does not use. Without a guess
// there is nothing to say: participants may come later.
func (l *loader) misspelt(g *graph.Graph, node string) string {
	if l.participant(node) != nil {
		return ""
	}
	var idle []string
	for _, p := range l.participants {
		if _, used := g.Node(p.Role); !used {
			idle = append(idle, p.Role)
		}
	}
	return didYouMean(node, idle)
}

// validate lets each broker's driver check the broker and everything on it.
func (l *loader) validate(ctx context.Context) {
	for _, b := range l.brokerOrder {
		if b.driver == nil {
			continue
		}
		var req transport.ValidateRequest
		if b.valid {
			req.Config = b.Config.JSON()
		}
		var sources, sinks []*portAt
		letters := make(map[*portAt]*edgeAt)
		for _, p := range l.participants {
			if p.broker != b {
				continue
			}
			for _, port := range p.outports {
				if port.valid && port.Address != "" {
					sources = append(sources, port)
					req.Sources = append(req.Sources, transport.Source{
						Name: p.Role + "." + port.Name, Address: port.Address, Options: port.Options.JSON(),
					})
				}
			}
			for _, port := range p.inports {
				if port.valid && port.Address != "" {
					sinks = append(sinks, port)
					req.Sinks = append(req.Sinks, transport.Sink{
						Name: p.Role + "." + port.Name, Address: port.Address, Options: port.Options.JSON(),
					})
				}
			}
		}
		for _, address := range b.discovery.Addresses {
			sources = append(sources, &portAt{place: newPlace(b.announced)})
			req.Sources = append(req.Sources, transport.Source{Name: "discovery", Address: address})
		}
		for _, e := range l.edges {
			if e.DeadLetter.Address == "" || e.deadLetterBroker != b || e.lettersWrong {
				continue
			}
			port := &portAt{place: e.letterPlace}
			letters[port] = e
			sinks = append(sinks, port)
			req.Sinks = append(req.Sinks, transport.Sink{
				Name: e.From + "." + e.FromPort, Address: e.DeadLetter.Address, Options: e.DeadLetterOptions.JSON(),
			})
		}
		result, err := b.driver.driver.Validate(ctx, req)
		if err != nil {
			l.diags.add(Error, b.label, "Transport not usable", "The transport %q could not check the broker: %s", b.Type, ended(err.Error()))
			continue
		}
		for _, problem := range result.Problems {
			l.problem(b, sources, sinks, problem)
		}
		if len(result.Sources) != len(sources) || len(result.Sinks) != len(sinks) {
			if len(result.Problems) == 0 {
				l.diags.add(Error, b.label, "Transport not usable",
					"The transport %q was asked about %d ports and answered about %d.", b.Type, len(sources)+len(sinks), len(result.Sources)+len(result.Sinks))
			}
			continue
		}
		for i, port := range sources {
			port.Traits = result.Sources[i]
		}
		for i, port := range sinks {
			port.Traits = result.Sinks[i]
			if e := letters[port]; e != nil {
				e.DeadLetterTraits = port.Traits
			}
		}
	}
}

// problem reports what a driver has found, where it is written.
func (l *loader) problem(b *brokerAt, sources, sinks []*portAt, p transport.Problem) {
	at, ports := b.place, []*portAt(nil)
	switch p.Where {
	case transport.InSource:
		ports = sources
	case transport.InSink:
		ports = sinks
	}
	if p.Index >= 0 && p.Index < len(ports) {
		at = ports[p.Index].place
		ports[p.Index].valid = false
	}
	l.diags.add(Error, at.find(p.Path), fmt.Sprintf("Refused by the transport %q", b.Type), "%s", explained(p))
}

// explained is the message of a driver as a sentence. Many begin with what is said of the attribute, without its name.
func explained(p transport.Problem) string {
	first, _ := utf8.DecodeRuneInString(p.Message)
	if len(p.Path) == 0 || !unicode.IsLower(first) || strings.HasPrefix(p.Message, p.Path[len(p.Path)-1]) {
		return sentence(p.Message)
	}
	return fmt.Sprintf("%s: %s", strings.Join(p.Path, "."), ended(p.Message))
}

// checkRequirements refuses edges that cannot give what is required of them, as far as both ends are in the site file.
func (l *loader) checkRequirements() {
	for _, e := range l.edges {
		if e.Require != RequireAtLeastOnce && e.Require != RequireEffectOnce {
			continue
		}
		source, sink := l.port(e.From, e.FromPort, false), l.port(e.To, e.ToPort, true)
		if source == nil || sink == nil {
			continue
		}
		from, to := l.participant(e.From), l.participant(e.To)
		if from.broker == to.broker && source.Traits.Place != "" && source.Traits.Place == sink.Traits.Place {
			continue // One place: there is nothing to carry.
		}
		has, why := route.Guarantees(source.Traits, sink.Traits)
		if has == route.EffectOnce || string(has) == string(e.Require) {
			continue
		}
		if why == "" {
			why = "the sink does not drop what comes twice"
		}
		l.diags.add(Error, e.require, "Requirement not met", "%s is required, but the edge is %s: %s", e.Require, has, ended(why))
	}
}

// port returns a port that is known to be right.
func (l *loader) port(role, name string, in bool) *portAt {
	p := l.participant(role)
	if p == nil {
		return nil
	}
	ports := p.outports
	if in {
		ports = p.inports
	}
	name, _, _ = strings.Cut(name, "[")
	for _, port := range ports {
		if port.valid && port.Address != "" && strings.EqualFold(port.Name, name) {
			return port
		}
	}
	return nil
}
