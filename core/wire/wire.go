// Package wire carries the contract of package transport over gRPC: [Driver] is the half in the gateway, [Server] the half
// in the plugin. Between the two stands proto/flogate/transport/v1/transport.proto, and no other package knows its types.
//
// Each subscription and each publisher is one bidirectional stream. Deliveries, settlements, publishes and confirms go in
// frames of up to 64 messages or 256 KiB; settlements and confirms are ranges. A frame is sent as soon as there is
// something to send; only while messages keep coming does up to a millisecond pass between two frames, so that the two
// processes do not wake each other for every message. A lone message never waits.
//
// The gateway does not trust a plugin: a peer that breaks the contract (more deliveries than credit, numbers with gaps,
// confirms of what was not published) loses that connection, with an error that says what it did, and nothing else happens.
//
// Bodies larger than [MaxBody] do not pass. A publisher reports them as refused, without sending them. A delivery comes
// without its body, and with the size of it: the gateway decides what becomes of the message. Either way the stream goes on.
package wire

import (
	"time"

	"google.golang.org/grpc"
)

const (
	// MaxBody is the largest body that passes, in bytes.
	MaxBody = 16 << 20
	// maxMeta bounds everything of a message that is not its body.
	maxMeta = 512 << 10
	// maxFrame is the largest frame: a largest message, and room for what is around it.
	maxFrame = MaxBody + 1<<20

	// A frame is full with this many messages or this many bytes. More messages gain nothing; more bytes would be copied
	// in buffers that nobody has ready. One larger message goes alone.
	frameMessages = 64
	frameBytes    = 256 << 10

	// HTTP/2 windows are fixed: windows that grow by themselves let streams that nobody reads buffer gigabytes.
	streamWindow = 64 << 10
	connWindow   = 1 << 20

	// maxText bounds reasons and other texts for people.
	maxText = 4 << 10
	// maxHeaderList bounds what a peer may put in HTTP/2 headers, where status messages are.
	maxHeaderList = 64 << 10
	// closeTimeout bounds how long a plugin waits for its driver to close something after the gateway has gone.
	closeTimeout = 5 * time.Second
)

// ServerOptions are the options of a gRPC server that a [Server] is registered on. There is no keepalive: on a unix socket
// it finds nothing that the end of the socket does not say, and servers answer too many pings by closing.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxFrame),
		grpc.MaxSendMsgSize(maxFrame),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.MaxHeaderListSize(maxHeaderList),
		grpc.ForceServerCodecV2(&codec{}),
	}
}

// DialOptions are the options of the connection that [NewDriver] is given. The connection never becomes idle: a plugin
// takes the loss of its last connection for the end of the gateway.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxFrame), grpc.MaxCallSendMsgSize(maxFrame), grpc.ForceCodecV2(&codec{})),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithMaxHeaderListSize(maxHeaderList),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
	}
}
