package fbp

import (
	"encoding/json"
	"fmt"
)

// Parse returns what the message says, as one of the payload types of requests. Keys that the protocol has none of are
// dropped, at every level that it defines, and null stands for a key that is not there, but in metadata that is changed.
// Values without a type of the protocol's are kept as they are spelled.
//
// The error is an [Error] for [Input.Fail]. For a request without a graph its message is [NoGraph]; for one that there is
// none of, [NotPermitted]'s.
func (in Input) Parse() (Payload, error) {
	s, ok := inputShape(in.Kind)
	if !ok {
		return nil, NotPermitted(in.Kind)
	}
	clean, f := read(s, in.Payload)
	if f != nil && f.noGraph {
		return nil, Error{Protocol: in.Kind.Protocol(), Message: NoGraph}
	}
	if f != nil {
		return nil, in.bad(f)
	}
	p, err := parseInput(in.Kind, clean)
	if err != nil {
		return nil, in.bad(err)
	}
	return p, nil
}

// Parse returns what the message says, as one of the payload types of runtimes. It is as lenient as [Input.Parse], because
// runtimes send more than they should; an error means that the message is of no use.
func (out Output) Parse() (Payload, error) {
	s, ok := outputShape(out.Kind)
	if !ok {
		return nil, fmt.Errorf("%s: there is no such message", name(out.Kind))
	}
	clean, f := read(s, out.Payload)
	if f != nil {
		return nil, fmt.Errorf("%s: %w", out.Kind, f)
	}
	p, err := parseOutput(out.Kind, clean)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", out.Kind, err)
	}
	return p, nil
}

// read returns the payload in its shape. It may be one that was not decoded, and then be anything.
func read(s shape, payload json.RawMessage) ([]byte, *fault) {
	if err := checkText(payload); err != nil {
		return nil, wrong("payload", "is %v", err)
	}
	return s.shaped(make([]byte, 0, len(payload)), trim(payload), "payload", reading)
}

func parseInput(k Kind, payload []byte) (Payload, error) {
	switch k {
	case RuntimeGetRuntime:
		return GetRuntime{}, nil
	case ComponentList:
		return ListComponents{}, nil
	case ComponentGetSource:
		return parse[GetSource](payload)
	case NetworkStart:
		return parse[StartNetwork](payload)
	case NetworkStop:
		return parse[StopNetwork](payload)
	case NetworkGetStatus:
		return parse[GetStatus](payload)
	case TraceDump:
		return parse[DumpTrace](payload)
	}
	return parseBoth(k, payload)
}

func parseOutput(k Kind, payload []byte) (Payload, error) {
	switch k {
	case RuntimeError, GraphError, ComponentError, NetworkError, TraceError:
		return parseError(k, payload)
	case RuntimeRuntime:
		return parse[Runtime](payload)
	case RuntimePorts:
		return parse[Ports](payload)
	case RuntimePacketSent:
		return parse[PacketSent](payload)
	case ComponentComponent:
		return parse[Component](payload)
	case ComponentComponentsReady:
		return parse[ComponentsReady](payload)
	case NetworkStarted:
		return parse[Started](payload)
	case NetworkStopped:
		return parse[Stopped](payload)
	case NetworkStatus:
		return parse[Status](payload)
	case NetworkOutput:
		return parse[Printed](payload)
	case NetworkProcessError:
		return parse[ProcessError](payload)
	case NetworkIcon:
		return parse[Icon](payload)
	case NetworkConnect:
		return parse[Connect](payload)
	case NetworkBeginGroup:
		return parse[BeginGroup](payload)
	case NetworkData:
		return parse[Data](payload)
	case NetworkEndGroup:
		return parse[EndGroup](payload)
	case NetworkDisconnect:
		return parse[Disconnect](payload)
	case TraceDump:
		return parse[Flowtrace](payload)
	}
	return parseBoth(k, payload)
}

func parseBoth(k Kind, payload []byte) (Payload, error) {
	switch k {
	case RuntimePacket:
		return parse[Packet](payload)
	case GraphClear:
		return parse[ClearGraph](payload)
	case GraphAddNode:
		return parse[AddNode](payload)
	case GraphRemoveNode:
		return parse[RemoveNode](payload)
	case GraphRenameNode:
		return parse[RenameNode](payload)
	case GraphChangeNode:
		return parse[ChangeNode](payload)
	case GraphAddEdge:
		return parse[AddEdge](payload)
	case GraphRemoveEdge:
		return parse[RemoveEdge](payload)
	case GraphChangeEdge:
		return parse[ChangeEdge](payload)
	case GraphAddInitial:
		return parse[AddInitial](payload)
	case GraphRemoveInitial:
		return parse[RemoveInitial](payload)
	case GraphAddInport:
		return parse[AddInport](payload)
	case GraphRemoveInport:
		return parse[RemoveInport](payload)
	case GraphRenameInport:
		return parse[RenameInport](payload)
	case GraphAddOutport:
		return parse[AddOutport](payload)
	case GraphRemoveOutport:
		return parse[RemoveOutport](payload)
	case GraphRenameOutport:
		return parse[RenameOutport](payload)
	case GraphAddGroup:
		return parse[AddGroup](payload)
	case GraphRemoveGroup:
		return parse[RemoveGroup](payload)
	case GraphRenameGroup:
		return parse[RenameGroup](payload)
	case GraphChangeGroup:
		return parse[ChangeGroup](payload)
	case ComponentSource:
		return parse[Source](payload)
	case NetworkPersist:
		return Persist{}, nil
	case NetworkDebug:
		return parse[Debug](payload)
	case NetworkEdges:
		return parse[SelectEdges](payload)
	case TraceStart:
		return parse[StartTrace](payload)
	case TraceStop:
		return parse[StopTrace](payload)
	case TraceClear:
		return parse[ClearTrace](payload)
	}
	return nil, fmt.Errorf("%s has no payload", name(k))
}

func parse[T Payload](payload []byte) (Payload, error) {
	var p T
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	return p, nil
}

// parseError reads what every sub-protocol's error has; the rest is free, so that a stack may be anything.
func parseError(k Kind, payload []byte) (Payload, error) {
	all, err := members(payload)
	if err != nil {
		return nil, err
	}
	e := Error{Protocol: k.Protocol()}
	for _, one := range all {
		value, _ := textOf(one)
		switch one.key {
		case "message":
			e.Message = value
		case "stack":
			e.Stack = value
		case "graph":
			e.Graph = value
		}
	}
	return e, nil
}
