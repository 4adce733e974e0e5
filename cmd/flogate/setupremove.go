package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

// remove takes back what brokers carry of a graph by themselves, whoever has set it up: what MsgFlo has bound goes on on
// RabbitMQ for ever, and whoever carries the same edge as well doubles its messages.
func (a *app) remove(ctx context.Context, s setup) error {
	site, log, err := a.routed(ctx, s, "there is nothing to take back")
	if err != nil {
		return err
	}
	natives := site.Plan().Natives
	for _, b := range site.Brokers {
		of := slices.DeleteFunc(slices.Clone(natives), func(n route.Native) bool { return n.Broker != b.ID() })
		if len(of) == 0 {
			continue
		}
		if err := a.unbind(ctx, s, site, b, of, log); err != nil {
			return fmt.Errorf("%s: %w", b.ID(), err)
		}
	}
	return nil
}

func (a *app) unbind(ctx context.Context, s setup, site *config.Site, b config.Broker, natives []route.Native, log *slog.Logger) error {
	guests := newGuests(log)
	defer guests.close()
	driver, err := guests.driver(ctx, site.Plugins.Directory, b.Type)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.timeout))
	defer cancel()
	conn, err := driver.Connect(ctx, transport.ConnectRequest{Name: site.Name + "/" + b.ID() + "/cli", Config: b.Config.JSON()})
	if err != nil {
		code := exitUnreachable
		if transport.IsPermanent(err) {
			code = exitFailed
		}
		return &exitError{code, err}
	}
	defer closeConn(ctx, conn)
	topology, is := conn.(transport.Topology)
	if !is {
		return errors.New("the broker cannot route by itself")
	}
	for _, n := range natives {
		// From the source on, so that nothing is on its way to nowhere.
		for _, binding := range slices.Backward(n.Bindings) {
			if err := topology.Unbind(ctx, binding); err != nil {
				return err
			}
			if s.asJSON {
				err = a.printJSON(unbound{Broker: b.ID(), From: binding.From.Address, To: binding.To.Address})
			} else {
				_, err = fmt.Fprintf(a.stdout, "not bound  %s -> %s on %s\n", binding.From.Address, binding.To.Address, b.ID())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// unbound is a binding that is not there any more, as --json prints it.
type unbound struct {
	Broker string `json:"broker"`
	From   string `json:"from"`
	To     string `json:"to"`
}
