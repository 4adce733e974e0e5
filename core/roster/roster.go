// Package roster knows who plays in a site. It puts together what the site says of participants, what they say of themselves
// and what runs for them, and makes of it what package route wires, and what people are shown.
//
// The rules:
//
//   - What the site says of a port wins; what is announced adds to it.
//   - Of several participants in a role, the one that came last says where a port is: the others are workers at the same
//     places, or what is left of an earlier life.
//   - A participant that is seen on several brokers is wired on the one where it was seen first.
//   - Each life of a role gets its initial packets once: whoever comes is another life, whoever goes leaves no other one
//     behind. One that the gateway has started is given a moment to announce itself before it is sent any: until then nobody
//     may listen.
//   - A role that nobody plays is missing, and what is wired to it waits.
//
// It does no I/O but asking drivers about ports, and remembers only what they have answered, and who has come to a role that
// is still played. It is not for carrying anything.
package roster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// Grace is how long a participant that the gateway has started may take to announce itself. One that never does gets its
// initial packets then.
const Grace = 10 * time.Second

// Declared is a participant of which the site knows by itself.
type Declared struct {
	Role, Component, Label, Icon string
	Inports, Outports            []Port
	// Run says how the program is doing that the gateway has started for it; nil if it starts none.
	Run *Run
	// From says where the participant is declared: "site" or "library".
	From string
}

// Run is a program that plays a role.
type Run struct {
	// State is running, waiting or failed.
	State  string
	Reason string
	// Since is when it came into its State. Of one that is running it tells this life of the program from all others.
	Since time.Time
}

// Port is a port of a participant.
type Port struct {
	Name        string
	Type        string
	Schema      string
	Description string
	Broker      string
	Address     string
	Options     json.RawMessage
	Hidden      bool
	// Traits are the driver's word about the port, nil where it has not been asked.
	Traits *transport.Traits
}

// Node is a node of a graph.
type Node struct {
	Role, Component string
}

// Input is all that is known.
type Input struct {
	Declared []Declared
	// Announced are those who have announced themselves, without those whom the gateway announces: they are declared.
	Announced []discovery.Participant
	// Nodes are those of all graphs.
	Nodes []Node
	// Now is when all this is true.
	Now time.Time
}

// Cast is who plays.
type Cast struct {
	// Participants are what can be wired, by role.
	Participants map[string]route.Participant
	// Members are all roles, sorted: also those that nobody plays, and those that are in no graph.
	Members []Member
	// Again is when the same input would give another cast; the zero time is never.
	Again time.Time
}

// Member is a role as people see it.
type Member struct {
	Role, Component, Label, Icon string
	// InGraph: a node of a graph has this role.
	InGraph bool
	State   State
	// Reason in words; empty where there is nothing to say.
	Reason string
	// Warning says what looks wrong; empty if nothing does.
	Warning string
	// From says who has told of the participant: site, library, announced or graph, which only names it.
	From string
	// Announced are those who have announced that they play the role, the earliest first.
	Announced         []discovery.Participant
	Inports, Outports []Port
}

// State says whether somebody plays a role.
type State string

// The states.
const (
	// Present: somebody has announced it, or the site says so.
	Present State = "present"
	// Absent: a graph has the role, and nobody plays it.
	Absent State = "absent"
	// Starting: the gateway has started a program for it, which has not announced itself yet.
	Starting State = "starting"
	// Running: the gateway has started a program for it, which has not announced itself in Grace, and need not.
	Running State = "running"
	// Failed: the gateway starts a program for it, which does not run.
	Failed State = "failed"
)

// Roster asks drivers about ports, and remembers the answers. It is used by one goroutine at a time.
type Roster struct {
	// Validate asks the driver of a broker. It may block; ctx bounds it.
	validate func(ctx context.Context, broker string, req transport.ValidateRequest) (transport.ValidateResult, error)
	known    map[asked]answer
	mute     map[string]silence // by broker
	came     map[string]uint64  // the greatest incarnation of those who have come to a role that is played
}

// asked is what is asked about a port.
type asked struct {
	broker, address, options string
	in                       bool
}

type answer struct {
	traits  transport.Traits
	problem string
	missing bool // the driver has not answered: it is no answer to be remembered
}

// silence is when a driver that has not answered is asked again. One that hangs would hold up everybody each time.
type silence struct {
	until  time.Time
	wait   time.Duration // it was
	reason string
}

// A driver that does not answer is left alone for leastRest, and longer each time, up to mostRest.
const leastRest, mostRest = time.Second, 30 * time.Second

// New returns a roster that asks validate about ports. It is transport.Driver's Validate for the driver of a broker, and is
// called for several brokers at once.
func New(validate func(ctx context.Context, broker string, req transport.ValidateRequest) (transport.ValidateResult, error)) *Roster {
	return &Roster{validate: validate, known: make(map[asked]answer), mute: make(map[string]silence)}
}

// Forget forgets what drivers have answered, and that some have not: brokers are other ones.
func (r *Roster) Forget() {
	clear(r.known)
	clear(r.mute)
}

// Cast returns who plays. It blocks while drivers are asked about ports that are new, all of them at the same time; ctx bounds
// that. A port about which there was no answer cannot be wired, with the reason, until another call gets one: Again is when
// the driver will be asked again, and until then nobody waits for it.
func (r *Roster) Cast(ctx context.Context, in Input) Cast {
	members := make(map[string]*member)
	of := func(role string) *member {
		m := members[role]
		if m == nil {
			m = &member{Member: Member{Role: role, From: "graph", State: Absent}}
			members[role] = m
		}
		return m
	}
	for _, n := range in.Nodes {
		m := of(n.Role)
		m.InGraph = true
		m.Component = cmp.Or(m.Component, n.Component)
	}
	for _, d := range in.Declared {
		of(d.Role).declare(d)
	}
	for _, p := range in.Announced {
		m := of(p.Definition.Role)
		m.Announced = append(m.Announced, p)
	}
	cast := Cast{Participants: make(map[string]route.Participant, len(members))}
	came := make(map[string]uint64)
	for _, role := range slices.Sorted(maps.Keys(members)) {
		m := members[role]
		m.came = r.came[role]
		m.settle(in.Now, &cast.Again)
		if m.State != Absent {
			came[role] = m.came
		}
		cast.Members = append(cast.Members, m.Member)
	}
	r.came = came
	verdicts := r.ask(ctx, cast.Members, in.Now, &cast.Again)
	for _, m := range cast.Members {
		if p := members[m.Role]; p.State != Absent {
			bound := route.Participant{
				Inports: bind(m.Inports, true, verdicts), Outports: bind(m.Outports, false, verdicts),
				Incarnation: p.incarnation, Waiting: p.waiting,
			}
			for name, port := range bound.Inports {
				// A topic keeps nothing for a program that has only been started, or is going to be: the source does.
				if p.waiting != "" && port.Problem == "" {
					port.Problem = p.waiting
					bound.Inports[name] = port
				}
			}
			cast.Participants[m.Role] = bound
		}
	}
	return cast
}

// member is a role while the cast is made.
type member struct {
	Member
	declared             *Declared
	came                 uint64 // the greatest incarnation of those who have come
	incarnation, waiting string
}

func (m *member) declare(d Declared) {
	if m.declared != nil {
		return // the site has said it before the library
	}
	m.declared = &d
	m.From = d.From
	m.Component, m.Label, m.Icon = cmp.Or(d.Component, m.Component), d.Label, d.Icon
	m.Inports, m.Outports = slices.Clone(d.Inports), slices.Clone(d.Outports)
}

// settle decides who plays the role, where its ports are, and which life this is.
func (m *member) settle(now time.Time, again *time.Time) {
	slices.SortFunc(m.Announced, func(p, q discovery.Participant) int { return cmp.Compare(p.Incarnation, q.Incarnation) })
	var last time.Time // when somebody in the role was heard of
	inports, outports := placesOf(m.Inports), placesOf(m.Outports)
	for _, p := range slices.Backward(m.Announced) {
		def := p.On[0].Definition
		if m.From == "graph" {
			m.From = "announced"
			m.Component = cmp.Or(def.Component, m.Component)
		}
		m.Label, m.Icon = cmp.Or(m.Label, def.Label), cmp.Or(m.Icon, def.Icon)
		m.add(&m.Inports, inports, "inport", p.On[0].Broker, def.Inports)
		m.add(&m.Outports, outports, "outport", p.On[0].Broker, def.Outports)
		if p.Last.After(last) {
			last = p.Last
		}
	}
	if n := len(m.Announced); n > 0 {
		m.came = max(m.came, m.Announced[n-1].Incarnation)
		m.State = Present
	}
	if m.came > 0 {
		m.incarnation = fmt.Sprint(m.came)
	}
	switch {
	case m.declared == nil && m.State == Absent:
		m.Reason = "nobody has announced that it plays this role"
	case m.declared == nil:
	case m.declared.Run == nil:
		m.State = Present
	default:
		m.run(*m.declared.Run, last, now, again)
	}
}

// run settles a role for which the gateway has started a program. last is when somebody has announced itself in the role.
func (m *member) run(r Run, last, now time.Time, again *time.Time) {
	m.incarnation += fmt.Sprintf("/%d", r.Since.UnixNano())
	m.Reason = r.Reason
	until := r.Since.Add(Grace)
	switch {
	case last.After(r.Since):
		m.State = Present // it is not necessarily ours who is
	case r.State != "running":
		m.State = Failed
		m.waiting = m.Role + " does not run"
	case now.Before(until):
		m.State = Starting
		m.waiting = m.Role + " has not announced itself yet"
		earlier(again, until)
	default:
		m.State = Running
		if len(m.Inports)+len(m.Outports) == 0 {
			m.waiting = m.Role + " has not said which ports it has"
		}
	}
}

// earlier makes again the time at, if that is earlier.
func earlier(again *time.Time, at time.Time) {
	if again.IsZero() || at.Before(*again) {
		*again = at
	}
}

// placesOf says where in a list the port with a name is. Thousands may say that they play one role, each with ports of its
// own: to look through all of them for each would take minutes.
func placesOf(ports []Port) map[string]int {
	places := make(map[string]int, len(ports))
	for i, p := range ports {
		places[fold(p.Name)] = i
	}
	return places
}

// fold is the same for names that differ in case only.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// add adds what a participant says of its ports. places are those of ports.
func (m *member) add(ports *[]Port, places map[string]int, what, broker string, announced []discovery.Port) {
	for _, a := range announced {
		p := Port{
			Name: a.ID, Type: a.Type, Schema: a.Schema, Description: a.Description, Broker: broker, Address: a.Queue, Hidden: a.Hidden,
		}
		i, is := places[fold(p.Name)]
		if !is {
			places[fold(p.Name)] = len(*ports)
			*ports = append(*ports, p)
			continue
		}
		if q := (*ports)[i]; (q.Address != p.Address || q.Broker != p.Broker) && p.Address != "" && m.Warning == "" {
			m.Warning = fmt.Sprintf("%s %s is at %s on %s, and somebody else in this role says %s on %s",
				what, q.Name, q.Address, q.Broker, p.Address, p.Broker)
		}
	}
}

// ask asks drivers about the ports of roles that are in a graph, as far as nobody has before.
func (r *Roster) ask(ctx context.Context, members []Member, now time.Time, again *time.Time) map[asked]answer {
	verdicts := make(map[asked]answer)
	fresh := make(map[string][]asked)
	look := func(p Port, in bool) {
		if p.Traits != nil || p.Address == "" || p.Broker == "" {
			return
		}
		k := key(p, in)
		if _, is := verdicts[k]; is {
			return
		}
		a, is := r.known[k]
		if s, muted := r.mute[p.Broker]; !is && muted && now.Before(s.until) {
			a, is = unanswered(p.Broker, p.Address, s.reason), true
			earlier(again, s.until)
		}
		verdicts[k] = a
		if !is {
			fresh[p.Broker] = append(fresh[p.Broker], k)
		}
	}
	for _, m := range members {
		if !m.InGraph {
			continue
		}
		for _, p := range m.Inports {
			look(p, true)
		}
		for _, p := range m.Outports {
			look(p, false)
		}
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for broker, ports := range fresh {
		asking.Go(func() {
			began := time.Now()
			answers := r.verdicts(ctx, broker, ports)
			mu.Lock()
			defer mu.Unlock()
			r.learn(broker, ports, answers, now.Add(time.Since(began)), again)
			for i, a := range answers {
				verdicts[ports[i]] = a
			}
		})
	}
	asking.Wait()
	return verdicts
}

// learn remembers what a driver has answered by now, or that it has not.
func (r *Roster) learn(broker string, ports []asked, answers []answer, now time.Time, again *time.Time) {
	if i := slices.IndexFunc(answers, func(a answer) bool { return a.missing }); i >= 0 {
		wait := min(max(leastRest, 2*r.mute[broker].wait), mostRest)
		r.mute[broker] = silence{until: now.Add(wait), wait: wait, reason: answers[i].problem}
		earlier(again, now.Add(wait))
	} else {
		delete(r.mute, broker)
	}
	if len(r.known) > most {
		clear(r.known)
	}
	for i, p := range ports {
		if a := &answers[i]; a.missing {
			*a = unanswered(broker, p.address, a.problem)
		} else {
			r.known[p] = *a
		}
	}
}

// unanswered is what is known of a port about which the driver has not answered.
func unanswered(broker, address, reason string) answer {
	return answer{missing: true, problem: fmt.Sprintf("%s could not be asked about %s: %s", broker, address, reason)}
}

func key(p Port, in bool) asked { return asked{p.Broker, p.Address, string(p.Options), in} }

// verdicts asks the driver of a broker about ports. What it finds wrong with one port it may say instead of answering about
// the others: then it is asked about each, as long as it answers. The problem of an answer that is missing is why.
func (r *Roster) verdicts(ctx context.Context, broker string, ports []asked) []answer {
	var req transport.ValidateRequest
	for _, p := range ports {
		name, options := "announced "+p.address, json.RawMessage(p.options)
		if p.in {
			req.Sinks = append(req.Sinks, transport.Sink{Name: name, Address: p.address, Options: options})
		} else {
			req.Sources = append(req.Sources, transport.Source{Name: name, Address: p.address, Options: options})
		}
	}
	out := make([]answer, len(ports))
	res, err := r.validate(ctx, broker, req)
	if err == nil && len(res.Problems) == 0 && (len(res.Sources) != len(req.Sources) || len(res.Sinks) != len(req.Sinks)) {
		err = fmt.Errorf("the driver was asked about %d ports and answered about %d", len(ports), len(res.Sources)+len(res.Sinks))
	}
	switch {
	case err != nil:
		for i := range out {
			out[i] = answer{missing: true, problem: err.Error()}
		}
	case len(res.Problems) > 0 && len(ports) > 1:
		for i := range ports {
			if i > 0 && out[i-1].missing {
				out[i] = out[i-1] // the others would be waited for as long
				continue
			}
			out[i] = r.verdicts(ctx, broker, ports[i:i+1])[0]
		}
	case len(res.Problems) > 0:
		out[0].problem = fmt.Sprintf("%s on %s: %s", ports[0].address, broker, res.Problems[0].Message)
	default:
		for i, p := range ports {
			if p.in {
				out[i].traits, res.Sinks = res.Sinks[0], res.Sinks[1:]
			} else {
				out[i].traits, res.Sources = res.Sources[0], res.Sources[1:]
			}
		}
	}
	return out
}

// most is how many answers are remembered: a participant that makes up addresses shall not fill the memory.
const most = 100_000

// bind makes the bindings of ports.
func bind(ports []Port, in bool, verdicts map[asked]answer) map[string]route.Port {
	bound := make(map[string]route.Port, len(ports))
	for _, p := range ports {
		b := route.Port{Broker: p.Broker, Address: p.Address, Type: p.Type, Schema: p.Schema, Options: p.Options}
		if p.Traits != nil {
			b.Traits = *p.Traits
		} else {
			a := verdicts[key(p, in)]
			b.Traits, b.Problem = a.traits, a.problem
		}
		bound[p.Name] = b
	}
	return bound
}
