package config

import (
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Discovery is how participants are found on a broker. It is no part of [Broker]: another one is no reason to connect anew.
type Discovery struct {
	// Broker is the ID of the broker.
	Broker string
	// Addresses are where participants announce themselves. Nil: where participants of the transport do it; empty and not
	// nil: nobody listens.
	Addresses []string
	// Silence is after how long a participant without a heartbeat of its own is gone. 0: MsgFlo's 600 seconds; negative: never.
	Silence time.Duration
}

// Equal says whether two are the same. No addresses are something else than an empty list of them.
func (d Discovery) Equal(e Discovery) bool {
	return d.Broker == e.Broker && d.Silence == e.Silence && (d.Addresses == nil) == (e.Addresses == nil) &&
		slices.Equal(d.Addresses, e.Addresses)
}

// DiscoveryOn returns how participants are found on a broker.
func (s *Site) DiscoveryOn(broker string) Discovery {
	for _, d := range s.Discovery {
		if d.Broker == broker {
			return d
		}
	}
	return Discovery{Broker: broker}
}

// decodeDiscovery decodes what a broker block says of discovery.
func (l *loader) decodeDiscovery(at *brokerAt, v values) {
	at.discovery.Broker = at.ID()
	if addresses, where, ok := v.list("discovery"); ok && l.checkAddresses(addresses, where) {
		at.announced, at.discovery.Addresses = where, append([]string{}, addresses...)
	}
	if text, where, ok := v.text("silence"); ok {
		at.discovery.Silence = l.silence(text, where)
	}
}

func (l *loader) checkAddresses(addresses []string, where hcl.Range) bool {
	for i, address := range addresses {
		switch {
		case address == "" || strings.ContainsFunc(address, func(c rune) bool { return !visible(c) }):
			l.diags.add(Error, where, "Wrong value",
				`"discovery" are addresses on the broker: topics, queues, subjects. [] is for none.`)
			return false
		case slices.Contains(addresses[:i], address):
			l.diags.add(Error, where, "Wrong value", "The address %q is there twice.", address)
			return false
		}
	}
	return true
}

func (l *loader) silence(text string, where hcl.Range) time.Duration {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil || d < 0 || d > 0 && d < time.Second:
		l.diags.add(Error, where, "Wrong value",
			`"silence" is after how long a participant without a heartbeat is gone, with units and from one second on, like "10m"; "0s" is never.`)
		return 0
	case d == 0:
		return -1
	}
	return d
}
