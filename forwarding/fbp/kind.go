package fbp

import (
	"slices"
	"strings"
)

// Kind says what a message is: its sub-protocol and its command, as in "graph:addnode". A Kind that is none of the
// constants is of a message that this package has no payload for.
type Kind string

// The sub-protocol runtime.
const (
	RuntimeGetRuntime Kind = "runtime:getruntime"
	RuntimePacket     Kind = "runtime:packet" // both ways
	RuntimeError      Kind = "runtime:error"
	RuntimePorts      Kind = "runtime:ports"
	RuntimeRuntime    Kind = "runtime:runtime"
	RuntimePacketSent Kind = "runtime:packetsent"
)

// The sub-protocol graph. All but the error go both ways.
const (
	GraphClear         Kind = "graph:clear"
	GraphAddNode       Kind = "graph:addnode"
	GraphRemoveNode    Kind = "graph:removenode"
	GraphRenameNode    Kind = "graph:renamenode"
	GraphChangeNode    Kind = "graph:changenode"
	GraphAddEdge       Kind = "graph:addedge"
	GraphRemoveEdge    Kind = "graph:removeedge"
	GraphChangeEdge    Kind = "graph:changeedge"
	GraphAddInitial    Kind = "graph:addinitial"
	GraphRemoveInitial Kind = "graph:removeinitial"
	GraphAddInport     Kind = "graph:addinport"
	GraphRemoveInport  Kind = "graph:removeinport"
	GraphRenameInport  Kind = "graph:renameinport"
	GraphAddOutport    Kind = "graph:addoutport"
	GraphRemoveOutport Kind = "graph:removeoutport"
	GraphRenameOutport Kind = "graph:renameoutport"
	GraphAddGroup      Kind = "graph:addgroup"
	GraphRemoveGroup   Kind = "graph:removegroup"
	GraphRenameGroup   Kind = "graph:renamegroup"
	GraphChangeGroup   Kind = "graph:changegroup"
	GraphError         Kind = "graph:error"
)

// The sub-protocol component.
const (
	ComponentList            Kind = "component:list"
	ComponentGetSource       Kind = "component:getsource"
	ComponentSource          Kind = "component:source" // both ways
	ComponentError           Kind = "component:error"
	ComponentComponent       Kind = "component:component"
	ComponentComponentsReady Kind = "component:componentsready"
)

// The sub-protocol network.
const (
	NetworkStart        Kind = "network:start"
	NetworkGetStatus    Kind = "network:getstatus"
	NetworkStop         Kind = "network:stop"
	NetworkPersist      Kind = "network:persist" // both ways
	NetworkDebug        Kind = "network:debug"   // both ways
	NetworkEdges        Kind = "network:edges"   // both ways
	NetworkStopped      Kind = "network:stopped"
	NetworkStarted      Kind = "network:started"
	NetworkStatus       Kind = "network:status"
	NetworkOutput       Kind = "network:output"
	NetworkError        Kind = "network:error"
	NetworkProcessError Kind = "network:processerror"
	NetworkIcon         Kind = "network:icon"
	NetworkConnect      Kind = "network:connect"
	NetworkBeginGroup   Kind = "network:begingroup"
	NetworkData         Kind = "network:data"
	NetworkEndGroup     Kind = "network:endgroup"
	NetworkDisconnect   Kind = "network:disconnect"
)

// The sub-protocol trace. All but the error go both ways.
const (
	TraceStart Kind = "trace:start"
	TraceStop  Kind = "trace:stop"
	TraceDump  Kind = "trace:dump"
	TraceClear Kind = "trace:clear"
	TraceError Kind = "trace:error"
)

// The five sub-protocols.
const (
	protocolRuntime   = "runtime"
	protocolGraph     = "graph"
	protocolComponent = "component"
	protocolNetwork   = "network"
	protocolTrace     = "trace"
)

// KindOf returns the Kind of a sub-protocol's command.
func KindOf(protocol, command string) Kind { return Kind(protocol + ":" + command) }

// Protocol returns the sub-protocol.
func (k Kind) Protocol() string {
	protocol, _, _ := strings.Cut(string(k), ":")
	return protocol
}

// Command returns the command.
func (k Kind) Command() string {
	_, command, _ := strings.Cut(string(k), ":")
	return command
}

// IsError reports whether it is the error message of a sub-protocol.
func (k Kind) IsError() bool { return k.Command() == "error" }

// Answer returns the kind of the message that tells a client that its request is done: the last one where there are
// several. A failed request is answered with its sub-protocol's error instead. For what is no request it returns "".
func (k Kind) Answer() Kind {
	switch k {
	case RuntimeGetRuntime:
		return RuntimeRuntime
	case RuntimePacket:
		return RuntimePacketSent
	case ComponentList:
		return ComponentComponentsReady
	case ComponentGetSource:
		return ComponentSource
	case ComponentSource:
		return ComponentComponent
	case NetworkStart:
		return NetworkStarted
	case NetworkStop:
		return NetworkStopped
	case NetworkGetStatus:
		return NetworkStatus
	}
	if slices.Contains(Inputs(), k) {
		return k // the echo
	}
	return ""
}

// changesGraph reports whether k is a command that changes a graph, or its echo.
func (k Kind) changesGraph() bool { return slices.Contains(graphCommands(), k) }

// graphCommands are the commands that change a graph, and their echoes.
func graphCommands() []Kind {
	return []Kind{
		GraphClear, GraphAddNode, GraphRemoveNode, GraphRenameNode, GraphChangeNode,
		GraphAddEdge, GraphRemoveEdge, GraphChangeEdge, GraphAddInitial, GraphRemoveInitial,
		GraphAddInport, GraphRemoveInport, GraphRenameInport, GraphAddOutport, GraphRemoveOutport, GraphRenameOutport,
		GraphAddGroup, GraphRemoveGroup, GraphRenameGroup, GraphChangeGroup,
	}
}

// Inputs returns the kinds of what clients send.
func Inputs() []Kind {
	return slices.Concat(
		[]Kind{RuntimeGetRuntime, RuntimePacket},
		graphCommands(),
		[]Kind{ComponentList, ComponentGetSource, ComponentSource},
		[]Kind{NetworkStart, NetworkGetStatus, NetworkStop, NetworkPersist, NetworkDebug, NetworkEdges},
		[]Kind{TraceStart, TraceStop, TraceDump, TraceClear},
	)
}

// Outputs returns the kinds of what runtimes send.
func Outputs() []Kind {
	return slices.Concat(
		[]Kind{RuntimeError, RuntimePorts, RuntimeRuntime, RuntimePacketSent, RuntimePacket},
		graphCommands(), []Kind{GraphError},
		[]Kind{ComponentError, ComponentComponent, ComponentComponentsReady, ComponentSource},
		[]Kind{
			NetworkStopped, NetworkStarted, NetworkStatus, NetworkOutput, NetworkError, NetworkProcessError, NetworkIcon,
			NetworkConnect, NetworkBeginGroup, NetworkData, NetworkEndGroup, NetworkDisconnect,
			NetworkEdges, NetworkPersist, NetworkDebug,
		},
		[]Kind{TraceStart, TraceStop, TraceDump, TraceClear, TraceError},
	)
}
