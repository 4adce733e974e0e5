package fbp

import (
	"encoding/json"
	"strings"
	"time"
)

// StartNetwork starts a graph's network.
type StartNetwork struct {
	Graph string `json:"graph"`
}

// StopNetwork stops it.
type StopNetwork struct {
	Graph string `json:"graph"`
}

// GetStatus asks whether it runs.
type GetStatus struct {
	Graph string `json:"graph"`
}

// Persist asks the runtime to keep its graphs and components over restarts. The answer is the same.
type Persist struct{}

// Debug switches a network's debug mode. The specification has no answer; it is the same.
type Debug struct {
	Enable bool   `json:"enable"`
	Graph  string `json:"graph"`
}

// SelectEdges says which edges of a graph a client wants to see packets of. The answer is the same.
type SelectEdges struct {
	Graph string     `json:"graph"`
	Edges []EdgeEnds `json:"edges"`
}

// EdgeEnds is an edge without anything else.
type EdgeEnds struct {
	Src Endpoint `json:"src"`
	Tgt Endpoint `json:"tgt"`
}

// Started says that a network has been started.
type Started struct {
	Graph   string    `json:"graph"`
	Time    time.Time `json:"time,omitzero"`
	Started bool      `json:"started"`
	Running bool      `json:"running"` // is at work just now
	Debug   bool      `json:"debug,omitempty"`
}

// Stopped says that a network has been stopped.
type Stopped struct {
	Graph   string    `json:"graph"`
	Time    time.Time `json:"time,omitzero"`
	Uptime  float64   `json:"uptime,omitempty"` // seconds; NoFlo's are milliseconds
	Started bool      `json:"started"`
	Running bool      `json:"running"`
	Debug   bool      `json:"debug,omitempty"`
}

// Status says whether a network runs.
type Status struct {
	Graph   string  `json:"graph"`
	Uptime  float64 `json:"uptime,omitempty"` // seconds
	Started bool    `json:"started"`
	Running bool    `json:"running"` // is at work just now
	Debug   bool    `json:"debug,omitempty"`
}

// Printed is what a network has printed, or a picture that it shows.
type Printed struct {
	Message string `json:"message"`
	Type    string `json:"type,omitempty"` // "message" or "previewurl"
	URL     string `json:"url,omitempty"`  // see [IsURI]
}

// ProcessError says what went wrong in a node.
type ProcessError struct {
	ID    string `json:"id"` // of the node
	Error string `json:"error"`
	Graph string `json:"graph"`
}

// Icon says that a node has another icon.
type Icon struct {
	ID    string `json:"id"` // of the node
	Icon  string `json:"icon"`
	Graph string `json:"graph"`
}

// Connect says that a transmission begins on an edge.
type Connect struct {
	ID       string    `json:"id"`            // see [EdgeLine]
	Src      *Endpoint `json:"src,omitempty"` // nil for an initial packet
	Tgt      Endpoint  `json:"tgt"`
	Graph    string    `json:"graph"`
	Subgraph []string  `json:"subgraph,omitempty"` // the ids of the nodes that lead to it from Graph
}

// Disconnect says that a transmission ends.
type Disconnect Connect

// Data is a packet on an edge.
type Data struct {
	ID       string          `json:"id"`            // see [EdgeLine]
	Src      *Endpoint       `json:"src,omitempty"` // nil for an initial packet
	Tgt      Endpoint        `json:"tgt"`
	Graph    string          `json:"graph"`
	Subgraph []string        `json:"subgraph,omitempty"` // the ids of the nodes that lead to it from Graph
	Data     json.RawMessage `json:"data"`               // nil is null
}

// BeginGroup says that a group of packets begins on an edge.
type BeginGroup struct {
	ID       string    `json:"id"`            // see [EdgeLine]
	Src      *Endpoint `json:"src,omitempty"` // nil for an initial packet
	Tgt      Endpoint  `json:"tgt"`
	Graph    string    `json:"graph"`
	Subgraph []string  `json:"subgraph,omitempty"` // the ids of the nodes that lead to it from Graph
	Group    string    `json:"group"`
}

// EndGroup says that it ends.
type EndGroup BeginGroup

// EdgeLine returns the id that packets on an edge have: "Hello() OUT -> IN World()", and without a src, for initial
// packets, "DATA -> IN Hello()".
func EdgeLine(src *Endpoint, tgt Endpoint) string {
	from := "DATA"
	if src != nil {
		from = src.Node + "() " + src.line()
	}
	return from + " -> " + tgt.line() + " " + tgt.Node + "()"
}

// line returns the port as it stands in an EdgeLine.
func (e Endpoint) line() string {
	if e.Index == "" {
		return strings.ToUpper(e.Port)
	}
	return strings.ToUpper(e.Port) + "[" + strings.Trim(string(e.Index), `"`) + "]"
}

// Kind returns NetworkStart.
func (StartNetwork) Kind() Kind { return NetworkStart }

// Kind returns NetworkStop.
func (StopNetwork) Kind() Kind { return NetworkStop }

// Kind returns NetworkGetStatus.
func (GetStatus) Kind() Kind { return NetworkGetStatus }

// Kind returns NetworkPersist.
func (Persist) Kind() Kind { return NetworkPersist }

// Kind returns NetworkDebug.
func (Debug) Kind() Kind { return NetworkDebug }

// Kind returns NetworkEdges.
func (SelectEdges) Kind() Kind { return NetworkEdges }

// Kind returns NetworkStarted.
func (Started) Kind() Kind { return NetworkStarted }

// Kind returns NetworkStopped.
func (Stopped) Kind() Kind { return NetworkStopped }

// Kind returns NetworkStatus.
func (Status) Kind() Kind { return NetworkStatus }

// Kind returns NetworkOutput.
func (Printed) Kind() Kind { return NetworkOutput }

// Kind returns NetworkProcessError.
func (ProcessError) Kind() Kind { return NetworkProcessError }

// Kind returns NetworkIcon.
func (Icon) Kind() Kind { return NetworkIcon }

// Kind returns NetworkConnect.
func (Connect) Kind() Kind { return NetworkConnect }

// Kind returns NetworkDisconnect.
func (Disconnect) Kind() Kind { return NetworkDisconnect }

// Kind returns NetworkData.
func (Data) Kind() Kind { return NetworkData }

// Kind returns NetworkBeginGroup.
func (BeginGroup) Kind() Kind { return NetworkBeginGroup }

// Kind returns NetworkEndGroup.
func (EndGroup) Kind() Kind { return NetworkEndGroup }
