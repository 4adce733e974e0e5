package discovery

import (
	"context"
	"encoding/json"

	"github.com/flogate/flogate/core/transport"
)

// Address is an address for announcements, with the options that the broker's driver needs for it.
type Address struct {
	Address string
	// Options are for transport.Source: a JSON object, or nil.
	Options json.RawMessage
}

// DefaultAddresses are those that participants use: that of MsgFlo's libraries, and that of its description.
func DefaultAddresses() []Address { return []Address{{Address: "fbp"}, {Address: "msgflo/discover"}} }

// AddressesOn returns the addresses with these names on a broker of a transport, with what its driver needs to know; nil
// means those that participants of the transport use. See docs/discovery.md.
func AddressesOn(transportType string, names []string) []Address {
	var options json.RawMessage
	switch transportType {
	case "amqp":
		// A durable queue without arguments, which whoever comes first declares.
		options = json.RawMessage(`{"kind":"queue","declare":true}`)
	case "mqtt":
		// An announcement is repeated: nothing has to be kept for us while we are away.
		options = json.RawMessage(`{"qos":0}`)
	}
	if names == nil {
		names = []string{"fbp"}
		if transportType == "mqtt" {
			names = append(names, "msgflo/discover")
		}
	}
	var addresses []Address
	for _, name := range names {
		addresses = append(addresses, Address{Address: name, Options: options})
	}
	return addresses
}

// OpenPublisher opens a publisher of announcements to an address on a broker of a transport. It blocks as Conn.Publish does.
// Where the address is a queue that is not there yet, it makes it in the way in which every participant does.
func OpenPublisher(ctx context.Context, conn transport.Conn, transportType, address string) (transport.Publisher, error) {
	sink := transport.Sink{Name: "discovery", Address: address}
	topology, is := conn.(transport.Topology)
	if transportType != "amqp" || !is {
		return conn.Publish(ctx, sink)
	}
	// Not as an inport is made: every participant declares this queue without any arguments, and would be refused.
	sink.Options = json.RawMessage(`{"declare":false}`)
	pub, err := conn.Publish(ctx, sink)
	if !transport.IsPermanent(err) {
		return pub, err
	}
	if err := topology.Declare(ctx, transport.Place{Kind: transport.Queue, Address: address}); err != nil {
		return nil, err
	}
	return conn.Publish(ctx, sink)
}
