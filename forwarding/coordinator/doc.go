// Package coordinator makes the gateway's own graphs an FBP runtime: it is dialled like any other.
//
//	c := coordinator.New(coordinator.Config{Runtime: fbp.Runtime{ID: id, Type: "flogate"}, Graphs: g, Networks: n, Components: l, Log: log})
//	go c.Run(ctx)
//	link, err := c.Dial(ctx, access)
//
// It knows what each command means and in which order clients are told; it holds no graph, runs no network and starts no
// component. Those are behind the interfaces [Graphs], [Networks] and [Components].
//
// # Order
//
// A change is accepted by [Graphs], which numbers it. What clients are told of it is what a subscription to Graphs says, to
// all of them in the order of revisions; who has asked for the change gets the same messages, marked as the answer. So two
// clients that edit at once see the same, whoever was first, and changes that nobody asked for (a file that was edited, a
// participant) need no other way. The source of a graph is given between two revisions: as all that was told before has left
// it, and without anything that will be told after it.
//
// # Locks
//
// What is behind the interfaces is asked under the lock that makes the order. So what tells the coordinator of something
// ([Coordinator.NetworkChanged] and its like) must not hold a lock that those methods wait for.
//
// # Packets
//
// Clients are shown the packets of all edges until they select some (network:edges), and again when they select none. What
// is shown is a sample: a budget of messages a second, shared by all clients, and in it each edge has its part, so that a
// busy one hides no other. It is shown at once after a pause, and otherwise together with what has passed in some hundredths
// of a second, which are more the more clients look. A packet's data is its body if that is JSON; otherwise a string of its
// text; if it is no text, a data URL ("data:;base64,…"). Bodies over 16 KiB are cut off, and always strings then.
//
// # Where the specification leaves a choice
//
//   - A graph's id is what Graphs calls it; one without the namespace, or with it where Graphs has none, is found too.
//   - network:started says that it runs, network:status whether it is at work just now.
//   - network:status has no uptime, because fbp-test wants it so; network:stopped does.
//   - network:debug is kept and told, and changes nothing.
//   - Groups, connects and disconnects sent with runtime:packet are acknowledged: brokers have nothing of the kind.
//   - A graph that is removed is stopped and not told of any more; the protocol has no word for it.
package coordinator
