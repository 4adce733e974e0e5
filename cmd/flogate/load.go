package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/plugins/amqp"
	"github.com/flogate/flogate/plugins/mqtt"
	"github.com/flogate/flogate/plugins/nats"
)

// builtins are the transports that are in this program.
func builtins() map[string]func(*slog.Logger) transport.Driver {
	return map[string]func(*slog.Logger) transport.Driver{"amqp": amqp.New, "mqtt": mqtt.New, "nats": nats.New}
}

func builtinNames() []string { return slices.Sorted(maps.Keys(builtins())) }

// load loads a site file, and shows what is wrong with it. Its error has been shown.
func (a *app) load(ctx context.Context, path string) (*config.Site, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	site, diags, err := loadSite(ctx, path, log)
	if diags != nil {
		if werr := diags.Write(a.stderr, isTerminal(a.stderr)); werr != nil {
			return nil, werr
		}
	}
	if err != nil {
		return nil, &exitError{exitConfig, err}
	}
	return site, nil
}

// look loads a site file for a command that only wants to know something from it: it is silent unless the file is wrong.
func (a *app) look(ctx context.Context, path string) (*config.Site, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	site, diags, err := loadSite(ctx, path, log)
	if err == nil {
		return site, nil
	}
	return nil, &exitError{exitConfig, errors.Join(diags.Write(a.stderr, isTerminal(a.stderr)), err)}
}

// say shows diagnostics beside a log: as they are on a terminal, else as records, because what reads the log may take
// nothing else.
func (a *app) say(log *slog.Logger, diags *config.Diagnostics) {
	if isTerminal(a.stderr) {
		_ = diags.Write(a.stderr, true) // there is nobody else to tell
		return
	}
	for _, d := range diags.List {
		at := fmt.Sprintf("%s:%d:%d", d.Where.File, d.Where.Start.Line, d.Where.Start.Column)
		log.Warn("site file", "severity", d.Severity, "at", at, "summary", d.Summary, "detail", d.Detail)
	}
}

// loadSite loads a site file, and checks what can be checked before anything runs. The diagnostics are never nil. With
// errors among them the error is errReported.
func loadSite(ctx context.Context, path string, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
	guests := newGuests(log)
	defer guests.close()
	site, diags := config.Load(ctx, path, config.Options{Driver: guests.driver, Transports: guests.types, Library: usable})
	if diags.HasErrors() {
		return nil, diags, errReported
	}
	return site, diags, nil
}

// siteFlag gives a command its --config.
func siteFlag(cmd *cobra.Command, site *string, usage string) {
	cmd.Flags().StringVarP(site, "config", "c", "", usage)
	_ = cmd.MarkFlagFilename("config", "hcl") // the flag exists
}

// oneSite returns the one site file that a command is about, which may be given with --config or without.
func oneSite(cmd *cobra.Command, args []string, flag string) (string, error) {
	switch {
	case len(args) == 0 && flag != "":
		return flag, nil
	case len(args) == 1 && flag == "":
		return args[0], nil
	}
	return "", usagef("%s wants one site file: %[1]s site.hcl", cmd.CommandPath())
}

func (a *app) validateCommand() *cobra.Command {
	var site string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "validate SITE.HCL",
		Short: "Check a site file without any broker",
		Long: `Checks a site file with everything that it names: graphs, participants, the settings
of each transport. It says everything that is wrong at once, and connects to nothing.
Exit code 3 means that something is wrong.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := oneSite(cmd, args, site)
			if err != nil {
				return err
			}
			if asJSON {
				return a.validateJSON(cmd.Context(), path)
			}
			s, err := a.load(cmd.Context(), path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s is valid: %s, %s, %s\n", path, count(len(s.Brokers), "broker"),
				count(len(s.Graphs), "graph"), count(len(s.Participants), "participant"))
			return err
		},
	}
	siteFlag(cmd, &site, "the site file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) validateJSON(ctx context.Context, path string) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	_, diags, loadErr := loadSite(ctx, path, log)
	out := struct {
		Valid       bool                `json:"valid"`
		Diagnostics []config.Diagnostic `json:"diagnostics"`
	}{loadErr == nil, append([]config.Diagnostic{}, diags.List...)}
	if err := a.printJSON(out); err != nil {
		return err
	}
	if loadErr != nil {
		return &exitError{exitConfig, errReported}
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// driverFor finds the driver and the configuration of the broker that a command names. It fills in the name of a site's only
// broker.
func (a *app) driverFor(ctx context.Context, w *where, log *slog.Logger) (transport.Driver, transport.ConnectRequest, error) {
	none := transport.ConnectRequest{}
	if w.site != "" {
		site, err := a.look(ctx, w.site)
		if err != nil {
			return nil, none, err
		}
		if w.broker == "" && len(site.Brokers) == 1 {
			w.broker = site.Brokers[0].ID()
		}
		b := site.Broker(w.broker)
		if b == nil {
			var names []string
			for _, b := range site.Brokers {
				names = append(names, b.ID())
			}
			has := cmp.Or(strings.Join(names, ", "), "none")
			if w.broker == "" {
				return nil, none, usagef("--broker is missing: the name of one that %s has (%s)", w.site, has)
			}
			return nil, none, usagef("%s has no broker %q; it has %s", w.site, redactURL(w.broker), has)
		}
		open := builtins()[b.Type]
		if open == nil {
			return nil, none, fmt.Errorf("%s is no transport of flogate's own: this command works only with these (%s)",
				b.Type, strings.Join(builtinNames(), ", "))
		}
		return open(log), transport.ConnectRequest{Name: site.Name + "/" + b.ID() + "/cli", Config: b.Config.JSON()}, nil
	}
	u, err := url.Parse(w.broker)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return nil, none, usagef("--broker is %q: it is a URL like mqtt://127.0.0.1, or with --config a name like mqtt.house",
			redactURL(w.broker))
	}
	var schemes []string
	for _, name := range builtinNames() {
		driver := builtins()[name](log)
		d, err := driver.Describe(ctx)
		if err != nil {
			return nil, none, err
		}
		if slices.Contains(d.Schemes, u.Scheme) {
			config, err := json.Marshal(map[string]string{"url": w.broker})
			return driver, transport.ConnectRequest{Name: "cli", Config: config}, err
		}
		schemes = append(schemes, d.Schemes...)
	}
	return nil, none, usagef("no transport for %s://; there are %s", u.Scheme, strings.Join(schemes, ", "))
}
