package config

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/flogate/flogate/core/transport"
)

// fakeDriver is a driver with one attribute of every kind. Only Describe and Validate can be called.
type fakeDriver struct {
	transport.Driver
	kind string
}

func (d fakeDriver) Describe(context.Context) (transport.Description, error) {
	tls := transport.Schema{Attributes: []transport.Attribute{
		{Name: "ca", Type: transport.String, Secret: true},
		{Name: "server_name", Type: transport.String},
		{Name: "key", Type: transport.String, Secret: true, Required: true},
	}}
	return transport.Description{
		Name:    "fake",
		Schemes: []string{d.kind, d.kind + "s"},
		Config: transport.Schema{
			Attributes: []transport.Attribute{
				{Name: "url", Type: transport.String, Required: true, Secret: true},
				{Name: "username", Type: transport.String},
				{Name: "password", Type: transport.String, Secret: true},
				{Name: "keep_alive", Type: transport.Duration},
				{Name: "max_unsettled", Type: transport.Number},
				{Name: "clean", Type: transport.Bool},
				{Name: "version", Type: transport.String, OneOf: []string{"3.1.1", "5"}},
				{Name: "servers", Type: transport.StringList},
				{Name: "properties", Type: transport.StringMap},
				{Name: "later", Type: "a type of tomorrow"},
			},
			Blocks: []transport.Block{{Name: "tls", Schema: tls}},
		},
		Source: transport.Schema{Attributes: []transport.Attribute{
			{Name: "qos", Type: transport.Number}, {Name: "durable", Type: transport.Bool},
		}},
		Sink: transport.Schema{Attributes: []transport.Attribute{
			{Name: "qos", Type: transport.Number}, {Name: "retain", Type: transport.Bool},
		}},
	}, nil
}

func (d fakeDriver) Validate(_ context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	var result transport.ValidateResult
	problem := func(where transport.Part, i int, message string, path ...string) {
		result.Problems = append(result.Problems, transport.Problem{Where: where, Index: i, Path: path, Message: message})
	}
	var config struct {
		URL string `json:"url"`
		TLS *struct {
			ServerName string `json:"server_name"`
		} `json:"tls"`
		Password string `json:"password"`
	}
	if req.Config != nil {
		if err := json.Unmarshal(req.Config, &config); err != nil {
			return result, err
		}
		if scheme, _, _ := strings.Cut(config.URL, "://"); scheme != "fake" && scheme != "mqtt" && scheme != d.kind {
			problem(transport.InConfig, 0, "The URL "+config.URL+" has an unknown scheme.", "url")
		}
		if config.TLS != nil && config.TLS.ServerName == "bad" {
			problem(transport.InConfig, 0, "This server name is bad.", "tls", "server_name")
		}
		if strings.HasPrefix(config.Password, "leak") {
			problem(transport.InConfig, 0, "The password "+config.Password+" is bad.", "password")
		}
	}
	traits := func(options json.RawMessage, address string) transport.Traits {
		var o struct {
			QoS int `json:"qos"`
		}
		_ = json.Unmarshal(options, &o)
		if o.QoS == 0 && !strings.HasPrefix(address, "dead") { // dead letters have no options to ask for QoS 1
			return transport.Traits{Place: address, Weakness: "QoS 0 has no acknowledgement: set qos = 1."}
		}
		return transport.Traits{Place: address, Acks: true, Confirms: true}
	}
	for i, s := range req.Sources {
		result.Sources = append(result.Sources, traits(s.Options, s.Address))
		if strings.Contains(s.Address, "bad") {
			problem(transport.InSource, i, "This topic is bad.", "address")
		}
	}
	for i, s := range req.Sinks {
		result.Sinks = append(result.Sinks, traits(s.Options, s.Address))
		if strings.ContainsAny(s.Address, "+#") {
			problem(transport.InSink, i, "Nobody can publish to a filter.", "address")
		}
		if strings.Contains(string(s.Options), `"qos":7`) {
			problem(transport.InSink, i, "must be 0, 1 or 2", "qos")
		}
	}
	return result, nil
}

// fakes are options with three transports: two that work, and one whose plugin does not.
func fakes() Options {
	return Options{
		Driver: func(_ context.Context, _, transportType string) (transport.Driver, error) {
			if transportType == "broken" {
				return nil, errors.New("plugin exited with status 1")
			}
			return fakeDriver{kind: transportType}, nil
		},
		Transports: func(string) []string { return []string{"amqp", "broken", "mqtt"} },
		LookupEnv: func(name string) (string, bool) {
			switch name {
			case "SECRET":
				return "hunter2-from-env", true
			case "PORT":
				return "3569", true
			case "EMPTY":
				return "", true
			}
			return "", false
		},
	}
}
