package mqtt

import (
	"context"
	"log/slog"
	"runtime/debug"

	"github.com/flogate/flogate/core/transport"
)

// driver has nothing but the log: everything else belongs to a connection.
type driver struct{ log *slog.Logger }

// New returns the driver for MQTT 3.1.1. It logs what an operator should know and is nobody's error: messages of an earlier
// address that a session still brings, a quality of service that is lower than asked for.
func New(log *slog.Logger) transport.Driver { return &driver{log: log} }

func (d *driver) Describe(context.Context) (transport.Description, error) {
	return transport.Description{
		Name:         "mqtt",
		Version:      version(),
		Summary:      "MQTT 3.1.1 brokers: mosquitto, nats-server, RabbitMQ and others.",
		Schemes:      []string{"mqtt", "mqtts", "tcp", "ssl"},
		Capabilities: []string{transport.CapFilters},
		Config:       configSchema(),
		Source:       sourceSchema(),
		Sink:         sinkSchema(),
	}, nil
}

// version is that of the module, as the program was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

func (d *driver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var res transport.ValidateResult
	report := func(where transport.Part, index int, problems []problem) {
		for _, p := range problems {
			res.Problems = append(res.Problems, transport.Problem{Where: where, Index: index, Path: p.path, Message: p.message})
		}
	}
	if req.Config != nil {
		_, problems := parseConfig(req.Config)
		report(transport.InConfig, 0, problems)
	}
	for i, src := range req.Sources {
		o, problems := parseSource(src)
		report(transport.InSource, i, problems)
		res.Sources = append(res.Sources, o.traits(src.Address))
	}
	for i, sink := range req.Sinks {
		o, problems := parseSink(sink)
		report(transport.InSink, i, problems)
		res.Sinks = append(res.Sinks, o.traits(sink.Address))
	}
	return res, nil
}
