// Package wslink carries messages of the FBP protocol over WebSocket: [Server] takes clients such as Flowhub, [Dial] reaches
// runtimes. Both give a [Conn], which carries one JSON text a frame and knows nothing of what is in it.
//
// It is for connections: handshakes, origins, limits, silent and slow peers, closing. It is not for sessions, secrets or
// capabilities, nor for queues: what a client has still to be sent is in a forwarding.Outbox, from where one goroutine takes
// frames and calls [Conn.Write], while another calls [Conn.Read] all the time.
//
//	server, err := wslink.NewServer(wslink.ServerOptions{ID: id, Origins: site.Origins}, log,
//		func(ctx context.Context, conn *wslink.Conn, client wslink.Client) {
//			for {
//				frame, err := conn.Read(ctx)
//				…
//			}
//		})
//	err = server.Serve(ctx, listener)
//
// Nothing in the program uses it yet.
package wslink

import (
	"fmt"
	"time"
)

// subprotocol is what clients offer and servers echo. Neither has to.
const subprotocol = "noflo"

// Limits are what a peer is held to. Zeros stand for the defaults.
type Limits struct {
	// Message is the largest message that is read, in bytes: 4 MiB, and never less than 1 MiB, because the source of a graph
	// is one message.
	Message int64
	// Ping is how often a peer is asked whether it is there, 20 s: less than the 30 s after which the most impatient proxies
	// forget a connection that nobody uses.
	Ping time.Duration
	// Pong is how long it may take to say anything after that, 10 s.
	Pong time.Duration
	// Stall is how long a peer may take nothing (64 KiB of a frame, or all that is left of it) when something is written to
	// it, 10 s.
	Stall time.Duration
	// Close is how long closing may take, 3 s: the rest of a frame that is being written, and the peer's answer.
	Close time.Duration
}

const leastMessage = 1 << 20

func (l Limits) withDefaults() Limits {
	if l.Message == 0 {
		l.Message = 4 << 20
	}
	l.Message = max(l.Message, leastMessage)
	for _, d := range []struct {
		value *time.Duration
		byDef time.Duration
	}{
		{&l.Ping, 20 * time.Second},
		{&l.Pong, 10 * time.Second},
		{&l.Stall, 10 * time.Second},
		{&l.Close, 3 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.byDef
		}
	}
	return l
}

// Status is why a connection is closed, as WebSocket says it (RFC 6455, section 7.4.1).
type Status int

const (
	Normal      Status = 1000
	GoingAway   Status = 1001 // the one who says so ends
	Malformed   Status = 1002 // what came is no WebSocket
	Unsupported Status = 1003 // a binary frame
	NoStatus    Status = 1005 // the peer gave none; cannot be sent
	Invalid     Status = 1007 // text that is not UTF-8
	Policy      Status = 1008
	TooLarge    Status = 1009
	Failed      Status = 1011 // something is wrong with the one who says so, or the peer is silent
	TryLater    Status = 1013 // the client does not follow, or there are too many
)

// ClosedError says who has closed a connection, and why. It is what reading from and writing to a connection return once it is
// closed, unless it was lost, or the caller's context has ended.
type ClosedError struct {
	Status Status
	Reason string
	ByPeer bool
}

func (e *ClosedError) Error() string {
	who := "closed"
	if e.ByPeer {
		who = "closed by the peer"
	}
	if e.Reason == "" {
		return fmt.Sprintf("%s (%d)", who, e.Status)
	}
	return fmt.Sprintf("%s: %s (%d)", who, e.Reason, e.Status)
}
