package fbp

import "slices"

// inputShape returns what the payload of a client's message looks like, and false if there is no such message.
func inputShape(k Kind) (shape, bool) {
	graph := need("graph", shape{kind: text})
	switch k {
	case RuntimeGetRuntime, ComponentList:
		return open(), true
	case ComponentGetSource:
		return closed(need("name", shape{kind: text})), true
	case NetworkStart, NetworkGetStatus, NetworkStop, TraceStop, TraceClear:
		return closed(graph), true
	case NetworkPersist:
		return closed(), true
	case TraceDump:
		return closed(graph, need("type", traceType())), true
	case RuntimePacket, ComponentSource, NetworkDebug, NetworkEdges, TraceStart:
		return bothShape(k, changes)
	}
	if k.Protocol() == protocolGraph && k != GraphError {
		return bothShape(k, changes)
	}
	return shape{}, false
}

// outputShape returns what the payload of a runtime's message looks like, and false if there is no such message.
func outputShape(k Kind) (shape, bool) {
	var (
		str   = shape{kind: text}
		yesNo = shape{kind: truth}
		graph = need("graph", str)
	)
	switch k {
	case RuntimeError, GraphError, ComponentError, TraceError:
		return open(need("message", str), may("stack", shape{}), may("graph", shape{})), true
	case NetworkError:
		return closed(need("message", str), may("stack", str), may("graph", str)), true
	case RuntimePorts:
		return closed(need("inPorts", ports()), need("outPorts", ports()), graph), true
	case RuntimeRuntime:
		return closed(may("id", str), may("label", str), need("version", str), may("allCapabilities", listOf(str)),
			need("capabilities", listOf(str)), may("graph", str), need("type", str), may("namespace", str),
			may("repository", str), may("repositoryVersion", str)), true
	case ComponentComponent:
		return closed(need("name", str), may("description", str), may("icon", str), need("subgraph", yesNo),
			need("inPorts", ports()), need("outPorts", ports())), true
	case ComponentComponentsReady:
		return shape{kind: integer}, true
	case NetworkStopped:
		return closed(may("time", shape{kind: dateTime}), may("uptime", shape{kind: number}), graph,
			may("running", yesNo), may("started", yesNo), may("debug", yesNo)), true
	case NetworkStarted:
		return closed(may("time", shape{kind: dateTime}), graph,
			may("started", yesNo), may("running", yesNo), may("debug", yesNo)), true
	case NetworkStatus:
		return closed(graph, may("uptime", shape{kind: number}),
			may("started", yesNo), need("running", yesNo), may("debug", yesNo)), true
	case NetworkOutput:
		return closed(need("message", str), may("type", shape{kind: text, enum: []string{"message", "previewurl"}}),
			link("url")), true
	case NetworkProcessError:
		return closed(need("id", str), need("error", str), graph), true
	case NetworkIcon:
		return closed(need("id", str), need("icon", str), graph), true
	case NetworkConnect, NetworkDisconnect:
		return closed(event()...), true
	case NetworkBeginGroup, NetworkEndGroup:
		return closed(append(event(), need("group", str))...), true
	case NetworkData:
		// The schema describes type and schema too, and then forbids them.
		return closed(append(event(), need("data", shape{}))...), true
	case NetworkPersist:
		return closed(), true
	case TraceStop, TraceClear:
		return closed(graph), true
	case TraceDump:
		return closed(graph, need("type", traceType()), need("flowtrace", shape{kind: text, spells: true})), true
	case RuntimePacket, RuntimePacketSent, ComponentSource, NetworkDebug, NetworkEdges, TraceStart:
		return bothShape(k, open)
	}
	if k.Protocol() == protocolGraph {
		return bothShape(k, open)
	}
	return shape{}, false
}

// bothShape has the payloads that look the same both ways, but for changed metadata: a client's has null for what shall go,
// a runtime's is what has become of it.
func bothShape(k Kind, changed func(...field) shape) (shape, bool) {
	var (
		str     = shape{kind: text}
		graph   = need("graph", str)
		node    = []field{may("x", shape{kind: integer, rounds: true}), may("y", shape{kind: integer, rounds: true})}
		edge    = []field{may("route", shape{kind: integer, rounds: true}), may("schema", shape{kind: uri}), may("secure", shape{kind: truth})}
		group   = []field{may("description", str)}
		iip     = closed(need("data", shape{}))
		src     = need("src", endpoint())
		tgt     = need("tgt", endpoint())
		renames = closed(need("from", str), need("to", str), graph)
	)
	switch k {
	case RuntimePacket, RuntimePacketSent:
		return closed(need("port", str), need("event", shape{kind: text, enum: []string{
			EventConnect, EventBeginGroup, EventData, EventEndGroup, EventDisconnect,
		}}), may("type", str), link("schema"), may("payload", shape{}), graph), true
	case GraphClear:
		return closed(need("id", str), may("name", str), may("library", str), may("main", shape{kind: truth}),
			may("icon", str), may("description", str)), true
	case GraphAddNode:
		return closed(need("id", str), need("component", str), may("metadata", open(node...)), graph), true
	case GraphRemoveNode:
		return closed(need("id", str), graph), true
	case GraphRenameNode, GraphRenameInport, GraphRenameOutport:
		return renames, true
	case GraphRenameGroup:
		renames.open = true // in the schema; nothing is meant by it
		return renames, true
	case GraphChangeNode:
		return closed(need("id", str), need("metadata", changed(node...)), graph), true
	case GraphAddEdge:
		return closed(src, tgt, may("metadata", open(edge...)), graph), true
	case GraphRemoveEdge:
		return closed(src, tgt, graph), true
	case GraphChangeEdge:
		return closed(may("metadata", changed(edge...)), src, tgt, graph), true
	case GraphAddInitial:
		return closed(may("metadata", open(edge...)), need("src", iip), tgt, graph), true
	case GraphRemoveInitial:
		return closed(may("src", iip), tgt, graph), true
	case GraphAddInport, GraphAddOutport:
		return closed(need("public", str), need("node", str), need("port", str), may("metadata", open(node...)), graph), true
	case GraphRemoveInport, GraphRemoveOutport:
		return closed(need("public", str), graph), true
	case GraphAddGroup:
		return closed(need("name", str), need("nodes", listOf(str)), may("metadata", open(group...)), graph), true
	case GraphRemoveGroup:
		return closed(need("name", str), graph), true
	case GraphChangeGroup:
		return closed(need("name", str), need("metadata", changed(group...)), graph), true
	case ComponentSource:
		return closed(need("name", str), need("language", str), may("library", str), need("code", str), may("tests", str)), true
	case NetworkDebug:
		return closed(need("enable", shape{kind: truth}), graph), true
	case NetworkEdges:
		return closed(need("edges", listOf(closed(src, tgt))), graph), true
	case TraceStart:
		return closed(graph, may("buffersize", shape{kind: integer})), true
	}
	return shape{}, false
}

// changes returns metadata in which null takes a key away, those of the protocol too.
func changes(fields ...field) shape {
	s := open(slices.Clone(fields)...)
	for i := range s.fields {
		s.fields[i].keepNull = true
	}
	return s
}

// link is a key that says where more is to be found; what is no URI is left out.
func link(name string) field { return field{name: name, optional: true, shape: shape{kind: uri}} }

func endpoint() shape {
	return closed(need("node", shape{kind: text}), need("port", shape{kind: text}), may("index", shape{kind: index}))
}

// event returns what all packets on an edge have.
func event() []field {
	str := shape{kind: text}
	return []field{need("id", str), may("src", endpoint()), need("tgt", endpoint()), need("graph", str), may("subgraph", listOf(str))}
}

func ports() shape {
	str, yesNo := shape{kind: text}, shape{kind: truth}
	return listOf(closed(need("id", str), need("type", str), link("schema"),
		may("required", yesNo), may("addressable", yesNo), may("description", str),
		may("values", listOf(shape{})), may("default", shape{})))
}

func traceType() shape { return shape{kind: text, enum: []string{"flowtrace.json"}} }
