package mqtt

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/flogate/flogate/core/transport"
)

// driver remembers of earlier connections only what no single one can know.
type driver struct {
	log *slog.Logger

	mu         sync.Mutex
	suspicions map[string]*suspicion // by the name of the broker
	sessions   map[string]struct{}   // client ids under which this process has subscribed, and which the broker has to know
}

// maxRemembered bounds both: a driver that serves for years sees many names.
const maxRemembered = 4096

// New returns the driver for MQTT 3.1.1. It logs what an operator should know and is nobody's error: messages of an earlier
// address that a session still brings, a quality of service that is lower than asked for, a session that the broker has
// forgotten.
func New(log *slog.Logger) transport.Driver {
	return &driver{log: log, suspicions: make(map[string]*suspicion), sessions: make(map[string]struct{})}
}

// suspicion returns what is remembered of a broker.
func (d *driver) suspicion(name string) *suspicion {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.suspicions[name]
	if s == nil {
		if len(d.suspicions) >= maxRemembered {
			clear(d.suspicions)
		}
		s = &suspicion{}
		d.suspicions[name] = s
	}
	return s
}

// subscribed remembers that the broker has a session of this id.
func (d *driver) subscribed(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) >= maxRemembered {
		clear(d.sessions)
	}
	d.sessions[id] = struct{}{}
}

// removed remembers that it has none.
func (d *driver) removed(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, id)
}

// knows reports whether the broker should have a session of this id.
func (d *driver) knows(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.sessions[id]
	return known
}

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
