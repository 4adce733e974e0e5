package fbp

import "encoding/json"

// Version is the version of the protocol that these messages are of. Clients read it as a number, and 1.0 is refused.
const Version = "0.8"

// What a Packet is about.
const (
	EventConnect    = "connect"
	EventBeginGroup = "begingroup"
	EventData       = "data"
	EventEndGroup   = "endgroup"
	EventDisconnect = "disconnect"
)

// GetRuntime asks what the runtime is and what the client may do there. Everybody may.
type GetRuntime struct{}

// Runtime says what the runtime is and what the client may do there.
type Runtime struct {
	Type              string       `json:"type"`
	Version           string       `json:"version"`
	ID                string       `json:"id,omitempty"` // a UUID
	Label             string       `json:"label,omitempty"`
	Namespace         string       `json:"namespace,omitempty"`
	Graph             string       `json:"graph,omitempty"` // the main graph
	AllCapabilities   Capabilities `json:"allCapabilities,omitempty"`
	Capabilities      Capabilities `json:"capabilities"` // of this client
	Repository        string       `json:"repository,omitempty"`
	RepositoryVersion string       `json:"repositoryVersion,omitempty"`
}

// Ports says which ports a graph exports.
type Ports struct {
	Graph    string `json:"graph"`
	InPorts  []Port `json:"inPorts"`
	OutPorts []Port `json:"outPorts"`
}

// Port is a port of a component, or one that a graph exports.
type Port struct {
	ID          string            `json:"id"`
	Type        string            `json:"type"`
	Schema      string            `json:"schema,omitempty"` // a URI, see [IsURI]
	Required    bool              `json:"required,omitempty"`
	Addressable bool              `json:"addressable,omitempty"` // an array port
	Description string            `json:"description,omitempty"`
	Values      []json.RawMessage `json:"values,omitzero"`
	Default     json.RawMessage   `json:"default,omitempty"`
}

// Packet goes to an exported inport of a graph, or comes from an exported outport.
type Packet struct {
	Graph   string          `json:"graph"`
	Port    string          `json:"port"`
	Event   string          `json:"event"`
	Type    string          `json:"type,omitempty"`
	Schema  string          `json:"schema,omitempty"`  // a URI, see [IsURI]
	Payload json.RawMessage `json:"payload,omitempty"` // the data, or the name of a group
}

// PacketSent says that a client's packet has been sent.
type PacketSent Packet

// Kind returns RuntimeGetRuntime.
func (GetRuntime) Kind() Kind { return RuntimeGetRuntime }

// Kind returns RuntimeRuntime.
func (Runtime) Kind() Kind { return RuntimeRuntime }

// Kind returns RuntimePorts.
func (Ports) Kind() Kind { return RuntimePorts }

// Kind returns RuntimePacket.
func (Packet) Kind() Kind { return RuntimePacket }

// Kind returns RuntimePacketSent.
func (PacketSent) Kind() Kind { return RuntimePacketSent }
