package mqtt

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/flogate/flogate/core/transport"
)

const (
	defaultQoS = 1
	// defaultWindow keeps a broker on the same machine busy; more gained nothing.
	defaultWindow = 64
	// maxWindow lets a few dozen publishers share the 65,535 packet ids of a client.
	maxWindow = 1024
)

func sourceSchema() transport.Schema {
	return transport.Schema{Attributes: []transport.Attribute{{
		Name: "qos", Type: transport.Number, Default: strconv.Itoa(defaultQoS),
		Doc: "0: at most once, the broker keeps nothing. 1: at least once, from a persistent session. 2: as 1, for the " +
			"broker's own sake; the edge stays at-least-once.",
	}, {
		Name: transport.OptionTake, Type: transport.Bool, Default: "false",
		Doc: "Acknowledge each message when it is settled, and not after all that came before it, as MQTT wants it: for taking " +
			"single messages out of a session. Brokers allow it.",
	}}}
}

func sinkSchema() transport.Schema {
	return transport.Schema{Attributes: []transport.Attribute{
		{
			Name: "qos", Type: transport.Number, Default: strconv.Itoa(defaultQoS),
			Doc: "0: the broker never says that it has a message, so the edge is at-most-once. 1 and 2: it does.",
		},
		{
			Name: "retain", Type: transport.Bool,
			Doc: "Whether the broker shall keep each message as the topic's last value. Not given: as the message says " +
				"that came in.",
		},
		{
			Name: "window", Type: transport.Number, Default: strconv.Itoa(defaultWindow),
			Doc: "The most messages that are on the way without the broker's confirmation.",
		},
	}}
}

type sourceOptions struct {
	qos  byte
	take bool
}

type sinkOptions struct {
	qos    byte
	retain *bool
	window int
}

func parseSource(src transport.Source) (sourceOptions, problems) {
	var o struct {
		QoS  *int `json:"qos"`
		Take bool `json:"take"`
	}
	ps := decode(src.Options, &o)
	qos := parseQoS(o.QoS, &ps)
	if err := validateFilter(src.Address); err != nil {
		ps.add(err.Error(), "address")
	}
	return sourceOptions{qos: qos, take: o.Take}, ps
}

func parseSink(sink transport.Sink) (sinkOptions, problems) {
	var o struct {
		QoS    *int  `json:"qos"`
		Retain *bool `json:"retain"`
		Window *int  `json:"window"`
	}
	ps := decode(sink.Options, &o)
	opts := sinkOptions{qos: parseQoS(o.QoS, &ps), retain: o.Retain, window: defaultWindow}
	if o.Window != nil {
		if opts.window = *o.Window; opts.window < 1 || opts.window > maxWindow {
			ps.add(fmt.Sprintf("must be from 1 to %d", maxWindow), "window")
		}
	}
	if sink.Address != "" {
		if err := validateTopic(sink.Address); err != nil {
			ps.add(err.Error(), "address")
		}
	}
	return opts, ps
}

func parseQoS(qos *int, ps *problems) byte {
	switch {
	case qos == nil:
		return defaultQoS
	case *qos < 0 || *qos > 2:
		ps.add("must be 0, 1 or 2", "qos")
		return defaultQoS
	}
	return byte(*qos)
}

// persistent reports whether the broker keeps a session for the subscription. A member of a shared subscription must not
// have one: brokers go on giving an absent member its part of the messages, and nobody ever gets those.
func (o sourceOptions) persistent(filter string) bool { return o.qos > 0 && !isShared(filter) }

func (o sourceOptions) traits(filter string) transport.Traits {
	t := transport.Traits{Acks: o.persistent(filter), Place: "topic:" + filter, Headerless: true}
	switch {
	case o.qos == 0:
		t.Weakness = "QoS 0 has no acknowledgement: set qos = 1"
	case !t.Acks:
		t.Weakness = "a shared subscription has no session that outlives its connection: what is not acknowledged by then " +
			"is lost; subscribe to " + strconv.Quote(plainFilter(filter)) + " instead"
	}
	return t
}

func (o sinkOptions) traits(topic string) transport.Traits {
	t := transport.Traits{Confirms: o.qos > 0, Headerless: true, Fleeting: true}
	if topic != "" {
		t.Place = "topic:" + topic
	}
	if !t.Confirms {
		t.Weakness = "QoS 0 is never confirmed: set qos = 1"
	}
	return t
}

const sharePrefix = "$share/"

func isShared(filter string) bool { return strings.HasPrefix(filter, sharePrefix) }

// plainFilter returns the filter without the group of a shared subscription.
func plainFilter(filter string) string {
	if !isShared(filter) {
		return filter
	}
	_, plain, _ := strings.Cut(filter[len(sharePrefix):], "/")
	return plain
}
