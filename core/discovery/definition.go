// Package discovery knows who is there: it reads the messages with which MsgFlo participants announce themselves, keeps a
// register of them, and announces those that cannot do it themselves.
//
// A [Definition] is what a participant says of itself; [Parse] and [Definition.Marshal] are the protocol, which
// docs/discovery.md describes and docs/discovery.schema.json pins down. A [Registry] holds the state: who is there, since
// when, on which brokers, and who has left because nothing was heard. It does no I/O and is given the time. A [Listener]
// feeds it from one broker, and an [Announcer] keeps a foreign participant announced.
//
// It is not for what participants mean in a graph, and not for the messages of their ports.
//
// Announcements come from anybody who may publish to a broker. So everything here is bounded: the size of a message, the
// number of participants and the memory for them, the lines in the log. A bad message harms nobody but its sender.
//
//	reg := discovery.NewRegistry(discovery.Config{Log: log, Changed: replan})
//	go reg.Run(ctx)
//	go discovery.Listener{Broker: "mqtt.hall", Open: b.Conn, Registry: reg, Log: log}.Run(ctx)
//	for _, p := range reg.Snapshot() { … }
package discovery

import (
	"encoding/json"
	"time"
)

// Definition is what a participant says of itself. What Parse returns obeys all bounds of the protocol, and shares no
// memory with the message.
type Definition struct {
	// ID is unique among the participants of a broker, in this life of the participant.
	ID string
	// Role is the name of the node in graphs. Several participants may share one.
	Role      string
	Component string
	Label     string
	// Icon is a name of Font Awesome's.
	Icon              string
	Inports, Outports []Port
	// Heartbeat is the participant's own period: it promises to be heard of at least once in each. 0: it has not said.
	Heartbeat time.Duration

	// Type says what kind of FBP runtime is inside ("noflo-nodejs"), Version is that of the FBP protocol it speaks.
	Type, Version string
	// InQueue and OutQueue are the addresses, on the participant's broker, at which the runtime inside takes and gives
	// messages of the FBP protocol.
	InQueue, OutQueue string
	// Address is the WebSocket URL of the runtime inside.
	Address string

	// Extra is what the protocol does not know, by key.
	Extra map[string]json.RawMessage
}

// Port is an inport or an outport.
type Port struct {
	ID string
	// Type is one of MsgFlo's words for what the messages are; AnyType where the participant has not said.
	Type string
	// Queue is the address on the participant's broker. A port without one cannot be wired.
	Queue       string
	Description string
	// Schema is the URL of a JSON schema of the messages.
	Schema string
	// Options are for the broker: a JSON object, or nil.
	Options json.RawMessage
	// Hidden ports are not to be shown.
	Hidden bool
	// Extra is what the protocol does not know, by key.
	Extra map[string]json.RawMessage
}

// AnyType is the type of a port that does not say.
const AnyType = "any"

// The bounds of a message. They are far above what real participants need, and low enough for 10,000 of them.
const (
	// MaxBody is the size of a message in bytes.
	MaxBody = 64 << 10
	// MaxDepth is how deep objects and arrays are nested.
	MaxDepth = 32
	// MaxPorts is how many inports there are, and how many outports.
	MaxPorts = 512
	// MaxName bounds ids, roles, components, types, versions and icons, in characters.
	MaxName = 1024
	// MaxAddress bounds queues and URLs, in characters.
	MaxAddress = 4096
	// MaxText bounds labels and descriptions, in characters.
	MaxText = 16384
	// MinHeartbeat and MaxHeartbeat bound the period. The longest is for devices that sleep on a battery.
	MinHeartbeat, MaxHeartbeat = time.Millisecond, 31 * 24 * time.Hour
)

// DefaultPeriod is how often participants that do not say announce themselves at least; MsgFlo's own default.
const DefaultPeriod = 60 * time.Second
