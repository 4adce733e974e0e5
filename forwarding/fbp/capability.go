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
	return k == RuntimeGetRuntime || slices.ContainsFunc(c, func(one Capability) bool { return one.sends(k) })
}

// MayReceive reports whether such a message may be sent to a client with these capabilities: fbp-client drops the request
// that it has under way when a message comes that is outside of them. Only runtime:runtime is for everybody.
//
// An error that answers a request goes to whoever asked, whatever this says: the specification wants it so, and a client
// that is not answered waits.
func (c Capabilities) MayReceive(k Kind) bool {
	return k == RuntimeRuntime || slices.ContainsFunc(c, func(one Capability) bool { return one.receives(k) })
}

func (c Capability) sends(k Kind) bool {
	switch c {
	case CapProtocolNetwork:
		return CapNetworkStatus.sends(k) || CapNetworkControl.sends(k) || CapNetworkData.sends(k)
	case CapNetworkPersist:
		return k == NetworkPersist
	case CapNetworkStatus:
		return k == NetworkGetStatus
	case CapNetworkData:
		return k == NetworkEdges
	case CapNetworkControl:
		return k == NetworkStart || k == NetworkStop || k == NetworkGetStatus || k == NetworkDebug
	case CapProtocolComponent:
		return k == ComponentList
	case CapComponentGetSource:
		return k == ComponentGetSource
	case CapComponentSetSource:
		return k == ComponentSource
	case CapProtocolRuntime:
		return k == RuntimePacket
	case CapProtocolGraph:
		return k.changesGraph()
	case CapProtocolTrace:
		return k == TraceStart || k == TraceStop || k == TraceClear || k == TraceDump
	}
	return false
}

// receives has network:debug, which the specification forgot, for those who may send it.
func (c Capability) receives(k Kind) bool {
	switch c {
	case CapProtocolNetwork:
		return CapNetworkStatus.receives(k) || CapNetworkControl.receives(k) || CapNetworkData.receives(k)
	case CapNetworkPersist:
		return k == NetworkPersist || k == NetworkError
	case CapNetworkStatus:
		return k == NetworkStatus || k == NetworkStarted || k == NetworkStopped || k == NetworkError
	case CapNetworkControl:
		return CapNetworkStatus.receives(k) || k == NetworkDebug
	case CapNetworkData:
		switch k {
		case NetworkEdges, NetworkOutput, NetworkError, NetworkProcessError, NetworkIcon,
			NetworkConnect, NetworkBeginGroup, NetworkData, NetworkEndGroup, NetworkDisconnect:
			return true
		}
	case CapProtocolComponent:
		return k == ComponentComponent || k == ComponentComponentsReady || k == ComponentError
	case CapComponentGetSource:
		return k == ComponentSource || k == ComponentError
	case CapComponentSetSource:
		return k == ComponentComponent || k == ComponentError
	case CapProtocolRuntime:
		return k == RuntimePorts || k == RuntimePacketSent || k == RuntimePacket || k == RuntimeError
	case CapGraphReadonly:
		return k.changesGraph()
	case CapProtocolGraph:
		return k.changesGraph() || k == GraphError
	case CapProtocolTrace:
		return CapProtocolTrace.sends(k) || k == TraceError
	}
	return false
}
