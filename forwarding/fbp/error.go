package fbp

import "strings"

// Texts of errors that clients look for. They must be sent as they are, with nothing around them.
const (
	NoGraph       = "No graph specified"        // a request without a graph
	GraphNotFound = "Requested graph not found" // noflo-ui then sends the whole graph
)

// maxErrorText bounds the message and the stack of an error that is sent, in bytes.
const maxErrorText = 64 << 10

// Error is a sub-protocol's error message. It is a Payload, and the error of a message that cannot be understood.
type Error struct {
	Protocol string `json:"-"`
	Message  string `json:"message"`
	Stack    string `json:"stack,omitempty"`
	Graph    string `json:"graph,omitempty"` // of a network
}

// Error returns the message.
func (e Error) Error() string { return e.Message }

// Kind returns the error message of e's sub-protocol; of runtime if e has none that there is.
func (e Error) Kind() Kind { return KindOf(answering(e.Protocol), "error") }

// NotPermitted returns the error of a request that the client may not make, or that nobody can.
func NotPermitted(k Kind) Error {
	return Error{Protocol: answering(k.Protocol()), Message: name(k) + " is not permitted"}
}

// answering returns the sub-protocol that answers for protocol.
func answering(protocol string) string {
	switch protocol {
	case protocolRuntime, protocolGraph, protocolComponent, protocolNetwork, protocolTrace:
		return protocol
	}
	return protocolRuntime
}

// name returns k as errors name it: what does not look like one may be anything, and stays out.
func name(k Kind) string {
	const longest = 48
	if len(k) > longest || k.Command() == "" || strings.Trim(string(k), "abcdefghijklmnopqrstuvwxyz:") != "" {
		return "this request"
	}
	return string(k)
}
