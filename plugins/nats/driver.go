// Package nats is the transport for NATS: core subjects and JetStream streams.
//
// A core subject carries messages to whoever listens at the moment: at most once, and both its sources and its sinks say so
// in their traits. A stream holds messages until they are acknowledged, and says when it has taken one: with the option
// `stream` a source is a durable pull consumer, and a sink waits for the stream's word.
//
// Three things are done here by hand that the client library also offers, each because order depends on it:
//
//   - Pulling. The server delivers exactly what there is credit for, in messages and in bytes, so that nothing waits in a
//     buffer while its acknowledgement runs out.
//   - Publishing with replies. The library retries a message by itself, after those that followed it.
//   - Reconnecting. There is none: a Conn is one life, core/broker opens the next.
//
// What a durable consumer had out when its gateway died would come again only after the acknowledgement wait, behind newer
// messages. Subscribe therefore puts the consumer back to its acknowledgement floor first; see consumer.go.
package nats

import (
	"context"
	"log/slog"

	"github.com/flogate/flogate/core/transport"
)

// Version is the version of the driver.
const Version = "0.1.0"

// New returns the driver. log gets what happens outside of any call: dropped messages, errors that the server reports by
// itself.
func New(log *slog.Logger) transport.Driver { return &driver{log: log} }

type driver struct {
	log *slog.Logger
}

func (d *driver) Describe(context.Context) (transport.Description, error) {
	return transport.Description{
		Name:         "nats",
		Version:      Version,
		Summary:      "NATS subjects and JetStream streams.",
		Schemes:      []string{"nats", "tls"},
		Capabilities: []string{transport.CapFilters},
		Config:       configSchema(),
		Source:       sourceSchema(),
		Sink:         sinkSchema(),
	}, nil
}

func (d *driver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var res transport.ValidateResult
	if req.Config != nil {
		_, problems := parseConfig(req.Config)
		res.Problems = append(res.Problems, problems...)
	}
	for i, src := range req.Sources {
		o, problems := parseSource(src)
		res.Problems = append(res.Problems, at(problems, transport.InSource, i)...)
		res.Sources = append(res.Sources, sourceTraits(src, o))
	}
	for i, sink := range req.Sinks {
		o, problems := parseSink(sink)
		res.Problems = append(res.Problems, at(problems, transport.InSink, i)...)
		res.Sinks = append(res.Sinks, sinkTraits(sink, o))
	}
	return res, nil
}

func at(problems []transport.Problem, part transport.Part, index int) []transport.Problem {
	for i := range problems {
		problems[i].Where, problems[i].Index = part, index
	}
	return problems
}

func sourceTraits(src transport.Source, o sourceOptions) transport.Traits {
	if o.Stream == "" {
		return transport.Traits{
			Place: "subject:" + src.Address,
			Weakness: "a core NATS subject keeps nothing for a subscriber that is away or slow: " +
				"set stream = \"NAME\" to consume from a JetStream stream",
		}
	}
	return transport.Traits{Acks: true, Identifies: true, Place: "stream:" + o.Stream + "/" + src.Address, Subscription: o.Consumer}
}

func sinkTraits(sink transport.Sink, o sinkOptions) transport.Traits {
	if o.Stream == "" {
		t := transport.Traits{
			Weakness: "a core NATS subject does not say whether anybody took a message: " +
				"set stream = \"NAME\" to publish to a JetStream stream",
		}
		if sink.Address != "" {
			t.Place = "subject:" + sink.Address
		}
		return t
	}
	// With dedup = "id" a message without an id is doubled like anywhere else, and nobody knows beforehand which have one.
	t := transport.Traits{
		Confirms: true, Deduplicates: o.Dedup == "" || o.Dedup == dedupSource,
		Fleeting: o.CreateStream != nil && o.CreateStream.Retention == "interest",
	}
	if sink.Address != "" {
		t.Place = "stream:" + o.Stream + "/" + sink.Address
	}
	return t
}
