package participant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/plugins/amqp"
	"github.com/flogate/flogate/plugins/mqtt"
	"github.com/flogate/flogate/plugins/nats"
)

// site is where a participant runs: a broker, and the places of its ports there.
type site struct {
	name      string // of the broker, for the log
	transport string
	driver    transport.Driver
	request   transport.ConnectRequest
	inports   []*inport
	sinks     map[string]transport.Sink
}

func (p *Participant) find(ctx context.Context, brokerURL string) (*site, error) {
	driver, desc, err := p.driver(ctx, brokerURL)
	if err != nil {
		return nil, err
	}
	settings := Options{}
	maps.Copy(settings, p.cfg.Settings)
	if brokerURL != "" {
		settings["url"] = brokerURL
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, transport.Permanentf("settings: %w", err)
	}
	s := &site{name: redacted(brokerURL), transport: desc.Name, driver: driver, sinks: make(map[string]transport.Sink)}
	if s.name == "" {
		s.name = desc.Name
	}
	// The broker keeps what it keeps for the participant under this name.
	s.request = transport.ConnectRequest{Name: "participant/" + p.def.Role, Config: config}
	if p.cfg.Instance != "" {
		s.request.Name += "/" + p.cfg.Instance
	}
	if err := p.wire(s, desc.Name); err != nil {
		return nil, err
	}
	return s, p.check(ctx, s)
}

// driver chooses by the scheme of the URL.
func (p *Participant) driver(ctx context.Context, brokerURL string) (transport.Driver, transport.Description, error) {
	none := transport.Description{}
	if p.cfg.Driver != nil {
		desc, err := p.cfg.Driver.Describe(ctx)
		return p.cfg.Driver, desc, err
	}
	if brokerURL == "" {
		return nil, none, transport.Permanentf("there is no broker: give its URL, or set MSGFLO_BROKER")
	}
	u, err := url.Parse(brokerURL)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return nil, none, transport.Permanentf("the broker's URL is one like mqtt://127.0.0.1")
	}
	var schemes []string
	for _, open := range []func(*slog.Logger) transport.Driver{mqtt.New, amqp.New, nats.New} {
		driver := open(p.cfg.Log)
		desc, err := driver.Describe(ctx)
		if err != nil {
			return nil, none, err
		}
		if slices.Contains(desc.Schemes, u.Scheme) {
			return driver, desc, nil
		}
		schemes = append(schemes, desc.Schemes...)
	}
	return nil, none, transport.Permanentf("no transport for %s://; there are %s", u.Scheme, strings.Join(schemes, ", "))
}

// wire gives the ports their places on the broker.
func (p *Participant) wire(s *site, transportName string) error {
	raw := func(port Port, options Options) (json.RawMessage, error) {
		if len(options) == 0 {
			return nil, nil
		}
		text, err := json.Marshal(options)
		if err != nil {
			return nil, transport.Permanentf("port %q: options: %w", port.ID, err)
		}
		return text, nil
	}
	for _, port := range p.def.Inports {
		options, made := port.Options[transportName], Options(nil)
		if s.transport == "amqp" {
			options, made = amqpInport(options)
		}
		in := newInport(port, p.handlers[port.ID], p.cfg.Log)
		in.source.Address = p.address(port)
		var err error
		if in.source.Options, err = raw(port, options); err != nil {
			return err
		}
		if made != nil {
			in.made = &transport.Sink{Name: "declare " + port.ID, Address: in.source.Address}
			if in.made.Options, err = raw(port, made); err != nil {
				return err
			}
		}
		s.inports = append(s.inports, in)
	}
	for _, port := range p.def.Outports {
		options := port.Options[transportName]
		if s.transport == "amqp" {
			options = with(options, "kind", "exchange")
		}
		text, err := raw(port, options)
		if err != nil {
			return err
		}
		s.sinks[port.ID] = transport.Sink{Name: "out " + port.ID, Address: p.address(port), Options: text}
	}
	return nil
}

// amqpInport returns the options of an inport as a source, and as the sink that makes it. MsgFlo's inport is a queue with a
// fanout exchange of its name and dead letters to another; the driver makes all of that for a sink, with the arguments that
// every other participant and gateway uses. What exists is used as it is. There is no sink if nothing is to be made.
func amqpInport(options Options) (source, made Options) {
	source = with(options, "kind", "queue")
	if source["kind"] != "queue" {
		return with(source, "declare", true), nil // an exchange, with a queue of our own: the source makes both
	}
	if source["declare"] == false {
		return source, nil
	}
	made = Options{"kind": "queue"}
	for _, name := range []string{
		"queue_type", "dead_letter_exchange", "delivery_limit", "max_length", "overflow", "expires",
	} {
		if value, is := source[name]; is {
			made[name] = value
		}
	}
	return source, made
}

// with returns the options with a value for name, unless they have one.
func with(options Options, name string, value any) Options {
	if _, is := options[name]; is {
		return options
	}
	options = maps.Clone(options)
	if options == nil {
		options = Options{}
	}
	options[name] = value
	return options
}

// check asks the driver what is wrong, and what may be lost.
func (p *Participant) check(ctx context.Context, s *site) error {
	req := transport.ValidateRequest{Config: s.request.Config}
	for _, in := range s.inports {
		req.Sources = append(req.Sources, in.source)
	}
	for _, port := range p.def.Outports {
		req.Sinks = append(req.Sinks, s.sinks[port.ID])
	}
	res, err := s.driver.Validate(ctx, req)
	if err != nil {
		return err
	}
	var errs []error
	for _, problem := range res.Problems {
		part := "broker"
		switch problem.Where {
		case transport.InSource:
			part = fmt.Sprintf("inport %q", p.def.Inports[problem.Index].ID)
		case transport.InSink:
			part = fmt.Sprintf("outport %q", p.def.Outports[problem.Index].ID)
		}
		if len(problem.Path) > 0 {
			part += ": " + strings.Join(problem.Path, ".")
		}
		errs = append(errs, fmt.Errorf("%s: %s", part, problem.Message))
	}
	if errs != nil {
		return transport.Permanent(errors.Join(errs...))
	}
	for i, in := range s.inports {
		in.acks = res.Sources[i].Acks
		if !in.acks {
			p.cfg.Log.Info("messages may be lost", "inport", in.port.ID, "reason", res.Sources[i].Weakness)
		}
	}
	for i, port := range p.def.Outports {
		if !res.Sinks[i].Confirms {
			p.cfg.Log.Info("messages may be lost", "outport", port.ID, "reason", res.Sinks[i].Weakness)
		}
	}
	return nil
}

// announcer announces a participant on a broker.
type announcer struct {
	definition discovery.Definition
	transport  string // the name of the broker's
	address    string
	log        *slog.Logger
}

// run announces the participant until ctx ends.
func (a announcer) run(ctx context.Context, conn connect) {
	_ = discovery.Announcer{
		Definition: a.definition,
		Log:        a.log,
		Open: func(ctx context.Context) (transport.Publisher, error) {
			c, err := conn(ctx)
			if err != nil {
				return nil, err
			}
			return discovery.OpenPublisher(ctx, c, a.transport, a.address)
		},
	}.Run(ctx) // only a bad definition is an error, and it was checked
}
