package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/library"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/transport"
)

// setup is what `flogate setup` was asked for.
type setup struct {
	quick
	participants, discover, forever bool
	remove                          bool
	only                            []string
	timeout                         seconds
	shell                           string
	asJSON                          bool
}

func (a *app) setupCommand() *cobra.Command {
	s := setup{timeout: seconds(30 * time.Second)}
	cmd := &cobra.Command{
		Use:   "setup GRAPH.FBP --broker URL",
		Short: "Connect the participants of a graph, and start them",
		Long: `Connects the participants of a graph, whose addresses are <role>.<PORT> as MsgFlo's
libraries have it, or with --discover those that they announce themselves. With
--participants those whose components are in the library (package.json) are started.

A broker that can route by itself (AMQP) keeps what was set up, and setup ends when
everything is. Elsewhere (MQTT, NATS), and between brokers, edges flow only while flogate
runs: with --forever it stays and carries messages, like 'flogate --graph', and without it
says so and fails. Participants that it has started end when it ends.

An edge is carried by its broker or by flogate; if both do, messages come twice. Before
'flogate' runs a graph that MsgFlo has bound on RabbitMQ, --remove takes that back.`,
		Example: `  flogate setup graphs/main.fbp --broker amqp://localhost --discover
  flogate setup graphs/main.fbp --broker mqtt://localhost --participants --forever
  flogate setup graphs/main.fbp --participants --only web,worker --forever
  flogate setup graphs/main.fbp --broker amqp://localhost --remove`,
		Args: exactArgs("GRAPH.FBP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.graphs = args
			return a.setup(cmd, s)
		},
		ValidArgsFunction: graphFiles,
	}
	s.brokerFlags(cmd)
	s.components.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&s.participants, "participants", false, "start participants too, those whose components have commands")
	roleFlag(cmd, &s.only, "only", "start participants for these roles alone")
	roleFlag(cmd, &s.ignore, "ignore", "start no participants for these roles")
	f.BoolVar(&s.discover, "discover", false, "take the addresses that participants announce")
	f.Var(&s.timeout, "timeout", "without --forever, how many seconds to wait for brokers and participants")
	f.BoolVar(&s.forever, "forever", false, "stay, and carry messages until SIGTERM or Ctrl-C")
	f.StringVar(&s.admin, "admin", "", "with --forever, where status and metrics are answered, as HOST:PORT")
	f.BoolVar(&s.remove, "remove", false, "take back what a broker keeps of the graph, whoever has bound it")
	f.BoolVar(&s.asJSON, "json", false, "without --forever, print what was set up as JSON, a line for each edge")
	f.StringVar(&s.shell, "shell", "", "")
	_ = f.MarkHidden("shell") // the flag exists; it is refused
	pastFlag(cmd, "forward")
	for _, name := range []string{"timeout", "admin"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // the flag exists
	}
	return cmd
}

func (a *app) setup(cmd *cobra.Command, s setup) error {
	g, err := loadGraph(s.graphs[0])
	if err != nil {
		return err
	}
	nodes, err := library.Nodes(g)
	if err != nil {
		return err
	}
	a.sayPast(cmd)
	switch {
	case s.remove && (s.participants || s.discover || s.forever):
		return usagef("--remove goes by addresses as MsgFlo's libraries have them, and does nothing else")
	case s.shell != "":
		return usagef("--shell: commands never go through a shell here; one that needs it says so itself, with sh -c '…' in the library")
	case s.participants && !s.forever:
		return usagef("--participants is of no use without --forever: participants end with what has started them")
	case len(s.only) > 0 && !s.participants:
		return usagef("--only says which participants are started, and --participants is missing")
	case len(s.brokers) > 1 && !s.discover:
		return usagef("--discover is missing: only participants themselves can say which of %d brokers they are on", len(s.brokers))
	case s.forever && s.asJSON:
		return usagef("--json prints what was set up in the end, and --forever has none")
	case s.forever && cmd.Flags().Changed("timeout"):
		return usagef("--timeout is of no use with --forever: edges go live when their participants appear, however late")
	}
	for _, role := range s.only {
		if !slices.ContainsFunc(nodes, func(n library.Node) bool { return n.Role == role }) {
			return usagef("--only: the graph has no participant %q", role)
		}
	}
	a.sayUnknown("--ignore", s.ignore, nodes)
	if err := s.check(); err != nil {
		return err
	}
	if _, err := s.identify(); err != nil {
		return err
	}
	switch {
	case s.remove:
		return a.remove(cmd.Context(), s)
	case s.forever:
		return a.runSite(cmd.Context(), s.source())
	}
	return a.bind(cmd.Context(), s)
}

// source is the graph as a site.
func (s setup) source() siteSource { return siteSource{name: "the command line", load: s.load} }

func (s setup) load(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
	q := s.quick
	q.ignore = s.idle()
	q.start = s.discover && s.participants // else nobody is started, or the site says of each how
	site, diags, err := q.load(ctx, log)
	if err == nil && !s.discover {
		err = s.cast(ctx, site, log)
	}
	if err != nil {
		return nil, diags, err
	}
	if !s.forever {
		leave(site)
	}
	return site, diags, nil
}

// leave makes the site one that is left to its brokers: they carry every edge by themselves, or nobody does. Whoever is gone in
// a moment cannot know to whom initial packets have been sent.
func leave(site *config.Site) {
	for i := range site.Graphs {
		g := site.Graphs[i].Graph.Clone()
		g.Initials = nil
		site.Graphs[i].Graph = g
		for _, e := range g.Edges {
			site.Edges = append(site.Edges, config.Edge{
				From: e.Src.Node, FromPort: portOf(e.Src), To: e.Tgt.Node, ToPort: portOf(e.Tgt), Routing: config.RoutingBroker,
			})
		}
	}
}

// portOf is the port of an endpoint as a site file names it.
func portOf(e graph.Endpoint) string { return strings.TrimPrefix(e.String(), e.Node+".") }

// idle returns the roles for which nothing is started.
func (s setup) idle() []string {
	g, err := graph.Load(s.graphs[0])
	if err != nil || len(s.only) == 0 {
		return s.ignore // a graph that cannot be read is reported with its lines
	}
	idle := slices.Clone(s.ignore)
	for _, n := range g.Nodes {
		if !slices.Contains(s.only, n.ID) {
			idle = append(idle, n.ID)
		}
	}
	return idle
}

// cast puts the roles of the graph into the site, with the addresses that MsgFlo's libraries give to ports without one. Nobody
// is asked, and nobody is told.
func (s setup) cast(ctx context.Context, site *config.Site, log *slog.Logger) error {
	if len(site.Graphs) == 0 || len(site.Brokers) == 0 {
		return nil
	}
	site.Discovery = nil
	for _, b := range site.Brokers {
		site.Discovery = append(site.Discovery, config.Discovery{Broker: b.ID(), Addresses: []string{}})
	}
	nodes, err := library.Nodes(site.Graphs[0].Graph)
	if err != nil {
		return err
	}
	var lib *library.Library
	if s.participants {
		if lib, err = s.components.load(); err != nil {
			return err
		}
		site.Dir = lib.Dir() // where its commands run
	}
	idle := s.idle()
	for _, n := range nodes {
		p := conventional(site.Graphs[0].Graph, n)
		p.Broker = site.Brokers[0].ID()
		if lib != nil {
			if err := described(&p, lib, n); err != nil {
				return &exitError{exitConfig, err}
			}
			if !slices.Contains(idle, n.Role) {
				p.Command, err = lib.Command(n.Component, n.Role, n.IIPs)
				if err != nil && !errors.Is(err, library.ErrUnknown) && !errors.Is(err, library.ErrNoCommand) {
					return &exitError{exitConfig, err}
				}
				p.Env = s.secrets()
			}
		}
		site.Participants = append(site.Participants, p)
	}
	return promised(ctx, site, log)
}

// conventional returns a role with the ports that the graph has of it.
func conventional(g *graph.Graph, n library.Node) config.Participant {
	p := config.Participant{Role: n.Role, Component: n.Component}
	add := func(to *[]config.Port, at graph.Endpoint) {
		named := func(port config.Port) bool { return strings.EqualFold(port.Name, at.Port) }
		if at.Node == n.Role && !slices.ContainsFunc(*to, named) {
			*to = append(*to, config.Port{Name: at.Port, Type: "any", Address: n.Role + "." + strings.ToUpper(at.Port)})
		}
	}
	for _, e := range g.Edges {
		add(&p.Outports, e.Src)
		add(&p.Inports, e.Tgt)
	}
	for _, i := range g.Initials {
		add(&p.Inports, i.Tgt)
	}
	return p
}

// described replaces ports by what the file of a foreign participant says of them.
func described(p *config.Participant, lib *library.Library, n library.Node) error {
	c, ok := lib.Component(n.Component)
	if !ok || !c.Foreign {
		return nil
	}
	file := c.File
	if !filepath.IsAbs(file) {
		file = filepath.Join(lib.Dir(), file)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, diags := config.ParseParticipant(c.File, src, n.Role)
	if diags.HasErrors() {
		var said strings.Builder
		_ = diags.Write(&said, false) // a builder takes everything
		return errors.New(strings.TrimSpace(said.String()))
	}
	for _, side := range []struct {
		own  []config.Port
		said []config.Port
	}{{p.Inports, f.Inports}, {p.Outports, f.Outports}} {
		for i := range side.own {
			for _, port := range side.said {
				if strings.EqualFold(port.Name, side.own[i].Name) {
					side.own[i] = port
				}
			}
		}
	}
	return nil
}

func (s setup) secrets() map[string]config.Secret {
	env := make(map[string]config.Secret)
	for name, value := range s.environment() {
		env[name] = config.NewSecret(value)
	}
	return env
}

// promised asks the driver what it promises for the ports of the site's participants, as it is asked for a site file.
func promised(ctx context.Context, site *config.Site, log *slog.Logger) error {
	guests := newGuests(log)
	defer guests.close()
	b := site.Brokers[0]
	driver, err := guests.driver(ctx, site.Plugins.Directory, b.Type)
	if err != nil {
		return err
	}
	req := transport.ValidateRequest{Config: b.Config.JSON()}
	each := func(source, sink func(*config.Port)) {
		for i := range site.Participants {
			p := &site.Participants[i]
			for j := range p.Outports {
				source(&p.Outports[j])
			}
			for j := range p.Inports {
				sink(&p.Inports[j])
			}
		}
	}
	each(func(p *config.Port) {
		req.Sources = append(req.Sources, transport.Source{Name: p.Name, Address: p.Address, Options: p.Options.JSON()})
	}, func(p *config.Port) {
		req.Sinks = append(req.Sinks, transport.Sink{Name: p.Name, Address: p.Address, Options: p.Options.JSON()})
	})
	res, err := driver.Validate(ctx, req)
	if err != nil {
		return err
	}
	var wrong []error
	for _, p := range res.Problems {
		at := ""
		switch p.Where {
		case transport.InSource:
			at = req.Sources[p.Index].Address + ": "
		case transport.InSink:
			at = req.Sinks[p.Index].Address + ": "
		}
		wrong = append(wrong, fmt.Errorf("%s%s", at, p.Message))
	}
	if wrong != nil {
		return &exitError{exitConfig, errors.Join(wrong...)}
	}
	i, j := 0, 0
	each(func(p *config.Port) { p.Traits = res.Sources[i]; i++ }, func(p *config.Port) { p.Traits = res.Sinks[j]; j++ })
	return nil
}

// bind sets up what brokers keep by themselves, and ends.
func (a *app) bind(ctx context.Context, s setup) error {
	if _, _, err := a.routed(ctx, s, "edges flow only while flogate runs (--forever)"); err != nil {
		return err
	}
	// What runs for a moment prints nothing: what has become of it is printed in the end.
	quiet := &app{stdin: a.stdin, stdout: io.Discard, stderr: a.stderr, logFormat: a.logFormat}
	quiet.logLevel.Set(a.logLevel.Level())
	running, stop := context.WithCancel(ctx)
	defer stop()
	var last network.Status
	source := s.source()
	source.watch = func(ctx context.Context, r *runner) {
		last = s.await(ctx, r)
		stop()
	}
	if err := quiet.runSite(running, source); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.New("interrupted: not all edges are set up")
	}
	return a.report(s, last)
}

// routed loads the site. That none of its brokers can route by itself is an error, with what that means.
func (a *app) routed(ctx context.Context, s setup, meaning string) (*config.Site, *slog.Logger, error) {
	log, err := a.logger()
	if err != nil {
		return nil, nil, err
	}
	site, diags, err := s.load(ctx, log)
	if err != nil {
		return nil, nil, &exitError{exitConfig, errors.Join(diags.Write(a.stderr, isTerminal(a.stderr)), err)}
	}
	able, err := routers(ctx, site, log)
	if err == nil && len(able) == 0 {
		err = fmt.Errorf("%s cannot route by itself: %s", brokerNames(site), meaning)
	}
	return site, log, err
}

// routers returns the brokers that can route by themselves.
func routers(ctx context.Context, site *config.Site, log *slog.Logger) ([]string, error) {
	guests := newGuests(log)
	defer guests.close()
	var able []string
	for _, b := range site.Brokers {
		driver, err := guests.driver(ctx, site.Plugins.Directory, b.Type)
		if err != nil {
			return nil, err
		}
		d, err := driver.Describe(ctx)
		if err != nil {
			return nil, err
		}
		if slices.Contains(d.Capabilities, transport.CapTopology) {
			able = append(able, b.ID())
		}
	}
	return able, nil
}

func brokerNames(site *config.Site) string {
	var names []string
	for _, b := range site.Brokers {
		names = append(names, b.ID())
	}
	return strings.Join(names, ", ")
}

// await blocks until every edge is set up, or must not be, or time is up, and returns how they are then.
func (s setup) await(ctx context.Context, r *runner) network.Status {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.timeout))
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		status := r.net.Status()
		if !slices.ContainsFunc(status.Edges, func(e network.EdgeStatus) bool { return e.State != network.Flowing && e.Refused == "" }) {
			return status
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return status
		}
	}
}

// kept says whether the broker goes on with an edge when nobody else does.
func kept(e network.EdgeStatus) bool {
	return e.State == network.Flowing && len(e.Carriers) == 0 && (e.SamePlace || len(e.Natives) > 0)
}

// report prints what has become of each edge. It is an error if there is one that no broker keeps.
func (a *app) report(s setup, status network.Status) error {
	var lost, missing int
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, e := range status.Edges {
		word, reason := "not bound", cmp.Or(e.Reason, "it flows only while flogate runs")
		switch {
		case kept(e):
			word, reason = "bound", ""
		case e.Refused != "" || e.State == network.Flowing:
			lost++
		default:
			missing++
		}
		if s.asJSON {
			err := a.printJSON(bound{
				Edge: e.ID, Bound: kept(e), Reason: reason,
				Source: place{e.Source.Broker, e.Source.Address}, Sink: place{e.Sink.Broker, e.Sink.Address},
			})
			if err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s\t%s\t%s", word, e.ID, clean(reason)), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, b := range status.Brokers {
		if b.Phase == broker.Connecting {
			return &exitError{exitUnreachable, fmt.Errorf("%s: %s", b.ID, b.Reason)}
		}
	}
	switch {
	case missing > 0:
		return fmt.Errorf("%s of %d not set up within %s s (--timeout)", count(missing, "edge"), len(status.Edges), &s.timeout)
	case lost > 0:
		return fmt.Errorf("%s of %d cannot be left to a broker: that takes flogate running (--forever)",
			count(lost, "edge"), len(status.Edges))
	}
	return nil
}

// bound is what has become of an edge, as --json prints it.
type bound struct {
	Edge   string `json:"edge"`
	Bound  bool   `json:"bound"`
	Reason string `json:"reason,omitempty"`
	Source place  `json:"source"`
	Sink   place  `json:"sink"`
}

// place is a place as --json prints it.
type place struct {
	Broker  string `json:"broker"`
	Address string `json:"address"`
}
