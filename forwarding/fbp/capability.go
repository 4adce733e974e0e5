package fbp

import "slices"

// Capability is what a runtime can do, or one of its clients may.
type Capability string

// All capabilities of the protocol.
const (
	// ProtocolNetwork is NetworkStatus, NetworkControl and NetworkData in one, from before 0.6. Runtimes announce it beside
	// them, because fbp-test asks for it.
	CapProtocolNetwork    Capability = "protocol:network"
	CapNetworkPersist     Capability = "network:persist"
	CapNetworkStatus      Capability = "network:status"
	CapNetworkData        Capability = "network:data"
	CapNetworkControl     Capability = "network:control"
	CapProtocolComponent  Capability = "protocol:component"
	CapComponentGetSource Capability = "component:getsource"
	CapComponentSetSource Capability = "component:setsource"
	CapProtocolRuntime    Capability = "protocol:runtime"
	CapGraphReadonly      Capability = "graph:readonly"
	CapProtocolGraph      Capability = "protocol:graph"
	CapProtocolTrace      Capability = "protocol:trace"
)

// Capabilities is a set of them, in the order in which it is announced.
type Capabilities []Capability

// AllCapabilities returns every one of the protocol, the deprecated one included.
func AllCapabilities() Capabilities {
	return Capabilities{
		CapProtocolNetwork, CapNetworkPersist, CapNetworkStatus, CapNetworkData, CapNetworkControl,
		CapProtocolComponent, CapComponentGetSource, CapComponentSetSource,
		CapProtocolRuntime, CapGraphReadonly, CapProtocolGraph, CapProtocolTrace,
	}
}

// MaySend reports whether a client with these capabilities may send such a message. Everybody may ask for the runtime;
// nobody may send what is no request.
func (c Capabilities) MaySend(k Kind) bool {
	return k == RuntimeGetRuntime || slices.ContainsFunc(c, func(one Capability) bool { return slices.Contains(one.sends(), k) })
}

// MayReceive reports whether such a message may be sent to a client with these capabilities: fbp-client drops the request
// that it has under way when a message comes that is outside of them. Only runtime:runtime is for everybody.
//
// An error that answers a request goes to whoever asked, whatever this says: the specification wants it so, and a client
// that is not answered waits.
func (c Capabilities) MayReceive(k Kind) bool {
	return k == RuntimeRuntime || slices.ContainsFunc(c, func(one Capability) bool { return slices.Contains(one.receives(), k) })
}

func (c Capability) sends() []Kind {
	switch c {
	case CapProtocolNetwork:
		return []Kind{NetworkStart, NetworkGetStatus, NetworkStop, NetworkDebug, NetworkEdges}
	case CapNetworkPersist:
		return []Kind{NetworkPersist}
	case CapNetworkStatus:
		return []Kind{NetworkGetStatus}
	case CapNetworkData:
		return []Kind{NetworkEdges}
	case CapNetworkControl:
		return []Kind{NetworkStart, NetworkStop, NetworkGetStatus, NetworkDebug}
	case CapProtocolComponent:
		return []Kind{ComponentList}
	case CapComponentGetSource:
		return []Kind{ComponentGetSource}
	case CapComponentSetSource:
		return []Kind{ComponentSource}
	case CapProtocolRuntime:
		return []Kind{RuntimePacket}
	case CapProtocolGraph:
		return graphCommands()
	case CapProtocolTrace:
		return []Kind{TraceStart, TraceStop, TraceClear, TraceDump}
	}
	return nil
}

// receives has network:debug, which the specification forgot, for those who may send it.
func (c Capability) receives() []Kind {
	switch c {
	case CapProtocolNetwork:
		return []Kind{
			NetworkStopped, NetworkStarted, NetworkStatus, NetworkOutput, NetworkError, NetworkProcessError, NetworkIcon,
			NetworkConnect, NetworkBeginGroup, NetworkData, NetworkEndGroup, NetworkDisconnect, NetworkEdges, NetworkDebug,
		}
	case CapNetworkPersist:
		return []Kind{NetworkPersist, NetworkError}
	case CapNetworkStatus:
		return []Kind{NetworkStatus, NetworkStarted, NetworkStopped, NetworkError}
	case CapNetworkData:
		return []Kind{
			NetworkEdges, NetworkOutput, NetworkError, NetworkProcessError, NetworkIcon,
			NetworkData, NetworkBeginGroup, NetworkEndGroup, NetworkConnect, NetworkDisconnect,
		}
	case CapNetworkControl:
		return []Kind{NetworkStarted, NetworkStopped, NetworkStatus, NetworkError, NetworkDebug}
	case CapProtocolComponent:
		return []Kind{ComponentComponent, ComponentComponentsReady, ComponentError}
	case CapComponentGetSource:
		return []Kind{ComponentSource, ComponentError}
	case CapComponentSetSource:
		return []Kind{ComponentComponent, ComponentError}
	case CapProtocolRuntime:
		return []Kind{RuntimePorts, RuntimePacketSent, RuntimePacket, RuntimeError}
	case CapGraphReadonly:
		return graphCommands()
	case CapProtocolGraph:
		return append(graphCommands(), GraphError)
	case CapProtocolTrace:
		return []Kind{TraceStart, TraceStop, TraceClear, TraceDump, TraceError}
	}
	return nil
}
