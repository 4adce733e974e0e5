// Package amqp is the transport for AMQP 0-9-1 brokers, RabbitMQ above all.
//
// A connection of the contract is two AMQP connections: one that consumes, and one that publishes, which is opened when
// the first publisher is. A broker under a memory or disk alarm stops reading from connections that publish; the
// acknowledgements of the consumers must not wait with them. The loss of either is the loss of both.
//
// Each subscription and each publisher has an AMQP channel of its own, for its whole life: delivery tags and confirm
// numbers belong to a channel, so that none can meet the wrong life of it. The client library's own recovery is off.
//
// Whether a place exists is asked passively, on a channel that is thrown away, because asking in vain closes it. What
// exists is used as it is and never declared again with other arguments.
//
// What this package is not for: declaring a company's topology. It makes what MsgFlo participants would make, what
// [transport.Topology] asks for, and the queues of its own subscriptions.
package amqp

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/flogate/flogate/core/transport"
)

const version = "0.1.0"

// New returns the driver. It logs only what no return value can say.
func New(log *slog.Logger) transport.Driver { return &driver{log: log} }

type driver struct{ log *slog.Logger }

func (*driver) Describe(context.Context) (transport.Description, error) {
	return transport.Description{
		Name:         "amqp",
		Version:      version,
		Summary:      "AMQP 0-9-1 brokers such as RabbitMQ: queues and exchanges, with publisher confirms.",
		Schemes:      []string{"amqp", "amqps"},
		Capabilities: []string{transport.CapTopology},
		Config:       configSchema(),
		Source:       sourceSchema(),
		Sink:         sinkSchema(),
	}, nil
}

func (*driver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var res transport.ValidateResult
	report := func(where transport.Part, index int, problems problems) {
		for _, p := range problems {
			res.Problems = append(res.Problems, transport.Problem{Where: where, Index: index, Path: p.path, Message: p.message})
		}
	}
	if req.Config != nil {
		_, problems := parseConfig(req.Config)
		report(transport.InConfig, 0, problems)
	}
	for i, src := range req.Sources {
		s, problems := parseSource("", src)
		report(transport.InSource, i, problems)
		res.Sources = append(res.Sources, s.traits())
	}
	for i, sink := range req.Sinks {
		s, problems := parseSink(sink)
		report(transport.InSink, i, problems)
		res.Sinks = append(res.Sinks, s.traits())
	}
	return res, nil
}

func (d *driver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	s, problems := parseConfig(req.Config)
	if err := problems.err(); err != nil {
		return nil, transport.Permanent(err)
	}
	return open(ctx, d.log, req.Name, s)
}

// optional is raw, or an empty object where there is none.
func optional(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}
