// Package forwarding is for sessions with clients of the FBP protocol: what is the same for every one of them, whatever
// carries their messages and whatever answers them.
//
//	session := forwarding.NewSession(conn, forwarding.SessionConfig{Runtime: coordinator, Access: policy.Access, Client: addr})
//	err := session.Run(ctx)
//
// A [Session] has one client's connection, a [Conn], on one side and a [Runtime] on the other. It reads what the client asks
// for, decides by its secret what it may ask for, passes requests on one at a time, and sends back answers and events through
// an [Outbox], which is what keeps a slow client from slowing down anybody else.
//
// It is not for what a request means: that is the runtime's. The gateway's own graphs are one, in package coordinator.
// Nothing in the program uses it yet.
package forwarding
