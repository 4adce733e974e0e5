package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/transport"
)

// Site is the content of a site file with everything that it names: files are read, relative paths are made absolute,
// defaults are filled in. It is a value that nobody changes: a reload makes another one, and the difference of the two
// is what has to be done. Secrets in it are [Secret], so that it may be printed, logged and marshalled as it is.
type Site struct {
	// Name is the label of the site block, or the name of the file without its extension.
	Name string
	// File is the path of the site file, as given to Load. Empty for a site that was not made from a file.
	File string
	// Dir is the absolute path of the folder that the site file is in. What runs for the site runs there.
	Dir string
	// DataDir is the absolute path of the folder for what has to outlive the gateway. It need not exist.
	DataDir string
	// Drain is how long a gateway that shuts down waits for what is in flight.
	Drain time.Duration
	// StrictTypes refuses edges whose ends do not go together by their types.
	StrictTypes bool

	Listen       Listen
	Plugins      Plugins
	Embedded     []Embedded
	Brokers      []Broker
	Discovery    []Discovery // one for each broker, in their order
	Libraries    []Library
	Graphs       []Graph
	Participants []Participant
	Edges        []Edge
}

// DefaultDrain is the Drain of a site that says nothing of it.
const DefaultDrain = 10 * time.Second

// Listen says where the gateway listens, each as host:port. Empty: it does not.
type Listen struct {
	FBP   string
	Admin string
}

// Plugins says where plugins are.
type Plugins struct {
	// Directory is an absolute path, or empty for none.
	Directory string
}

// Embedded is a broker of the gateway's own, as a child process. MQTT and NATS are host:port; an empty one is off.
type Embedded struct {
	Name string
	MQTT string
	NATS string
	// DataDir is the absolute path of its own folder in the site's DataDir.
	DataDir string
}

// Isolation says where the driver of a broker runs.
type Isolation string

// The isolations.
const (
	// IsolationProcess: in a plugin process.
	IsolationProcess Isolation = "process"
	// IsolationNone: in the gateway's own process. Built-in transports only.
	IsolationNone Isolation = "none"
)

// Broker is one configured broker. Brokers are comparable: two that are equal need no new connection.
type Broker struct {
	// Type is the transport, the first label.
	Type string
	// Name is the second label.
	Name string
	// Config is the body as the driver wants it: a JSON object for transport.ConnectRequest.
	Config Secret
	// Isolation is never empty.
	Isolation Isolation
	// Isolate gives the broker a plugin process of its own, where Isolation is IsolationProcess.
	Isolate bool
}

// ID returns how everything else refers to the broker: "mqtt.house".
func (b Broker) ID() string { return b.Type + "." + b.Name }

// Graph is a graph of the site. The first one that is named "main", or else the first, is the main graph.
type Graph struct {
	Name string
	// File is the absolute path of the graph file, empty where the graph stands in the site file.
	File string
	// Format is "fbp" or "json".
	Format string
	// Source is the text of the graph.
	Source string
	// Graph is what Source says. Nobody changes it: work on a Clone.
	Graph *graph.Graph `json:"-"`
}

// Equal says whether two graphs are the same text in the same place.
func (g Graph) Equal(h Graph) bool {
	return g.Name == h.Name && g.File == h.File && g.Format == h.Format && g.Source == h.Source
}

// Participant is a node that lives outside, and does not announce itself: the site file does it in its place.
type Participant struct {
	// Role is the name of the node in graphs.
	Role      string
	Component string
	Label     string
	Icon      string
	// Broker is the ID of the broker that the participant's ports are on.
	Broker string
	// Command, if any, is the program that the gateway starts, with its arguments. It runs in the site's Dir. The word
	// "flogate" as the program means the gateway's own executable.
	Command []string
	// Env is added to the environment of Command.
	Env map[string]Secret
	// Inports and Outports are in the order in which they are written.
	Inports  []Port
	Outports []Port
}

// Equal says whether two participants are the same. Those that are need not be started again.
func (p Participant) Equal(q Participant) bool { return reflect.DeepEqual(p, q) }

// Port is an inport or an outport of a participant. Ports are comparable.
type Port struct {
	Name string
	// Type is one of MsgFlo's words for what the messages are, "any" where none is given.
	Type string
	// Address on the participant's broker. Empty for a port that cannot be wired.
	Address     string
	Description string
	// Schema is the URL of a JSON schema of the messages.
	Schema string
	// Hidden ports are wired but not shown.
	Hidden bool
	// Options are for the driver, as it wants them: a JSON object for transport.Source or transport.Sink, or nothing.
	Options Secret
	// Private says that there is a secret in Options: they are for the driver, and not for an announcement.
	Private bool
	// Traits are what the driver promised for the port when the site was loaded.
	Traits transport.Traits
}

// Requirement is the least that an edge has to guarantee.
type Requirement string

// The requirements.
const (
	// RequireNothing: the edge gives what its ends can give.
	RequireNothing     Requirement = ""
	RequireAtLeastOnce Requirement = "at-least-once"
	RequireAtMostOnce  Requirement = "at-most-once"
	RequireEffectOnce  Requirement = "effect-once"
)

// Routing says who carries the messages of an edge.
type Routing string

// The routings.
const (
	// RoutingDefault: a broker carries round robins where it can, the gateway all else.
	RoutingDefault Routing = ""
	RoutingGateway Routing = "gateway"
	RoutingBroker  Routing = "broker"
)

// Edge holds the settings of an edge that a graph has. It applies in every graph that has the edge. Edges are comparable.
type Edge struct {
	From, FromPort string
	To, ToPort     string
	Require        Requirement
	// DeadLetter is where messages go that the sink has refused for good. The zero value: there is none.
	DeadLetter Address
	// DeadLetterTraits are what the driver promised for the dead letter when the site was loaded.
	DeadLetterTraits transport.Traits
	// DeadLetterOptions are for the driver's sink there, DeadLetterReader for a source that reads what it has put there: JSON
	// objects, or nothing.
	DeadLetterOptions, DeadLetterReader Secret
	// Window is how many messages may be in flight; 0 is the gateway's default.
	Window int64
	// Routing says who carries the messages.
	Routing Routing
}

// Address is a place on a broker.
type Address struct {
	// Broker is the ID of the broker.
	Broker  string
	Address string
}

// Main returns the main graph, or nil where there is none.
func (s *Site) Main() *Graph {
	for i := range s.Graphs {
		if s.Graphs[i].Name == MainGraph {
			return &s.Graphs[i]
		}
	}
	if len(s.Graphs) > 0 {
		return &s.Graphs[0]
	}
	return nil
}

// MainGraph is the name of the graph that is the main one by its name.
const MainGraph = "main"

// Broker returns the broker with an ID, or nil.
func (s *Site) Broker(id string) *Broker {
	for i := range s.Brokers {
		if s.Brokers[i].ID() == id {
			return &s.Brokers[i]
		}
	}
	return nil
}

// Participant returns the participant with a role, or nil.
func (s *Site) Participant(role string) *Participant {
	for i := range s.Participants {
		if s.Participants[i].Role == role {
			return &s.Participants[i]
		}
	}
	return nil
}

// Edge returns the settings of an edge; the zero settings where the site file has none. A place of an array port is written
// as part of the port: "in[2]". The case of ports does not count.
func (s *Site) Edge(from, fromPort, to, toPort string) Edge {
	want := Edge{From: from, FromPort: fromPort, To: to, ToPort: toPort}
	for _, e := range s.Edges {
		if e.same(want) {
			return e
		}
	}
	return want
}

func (e Edge) same(f Edge) bool {
	return e.From == f.From && e.To == f.To &&
		strings.EqualFold(e.FromPort, f.FromPort) && strings.EqualFold(e.ToPort, f.ToPort)
}
