package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
)

// registration is what `flogate register` was asked for.
type registration struct {
	where    where
	roles    []string // "role:file"
	files    []string // that say their role themselves
	interval seconds
	forever  bool
	asJSON   bool
}

// announcementAddress is where MsgFlo's participants announce themselves, on every broker.
const announcementAddress = "fbp"

func (a *app) registerCommand() *cobra.Command {
	r := registration{interval: discoveryPeriod()}
	cmd := &cobra.Command{
		Use:   "register --role ROLE:FILE.YML [--role ROLE:FILE.YML ...]",
		Short: "Announce participants that cannot announce themselves",
		Long: `Announces foreign participants, which are described in YAML files, on a broker, and
keeps them announced until it is ended. #ROLE in a file stands for the role; a file
that has a role of its own may be given without --role. A participant's id is its
role. A broker that is away is waited for, and one that was lost is connected again.

A site file has participant blocks for the same: the gateway announces them itself.`,
		Example: `  flogate register --broker mqtt://127.0.0.1 --role siri:infodisplay.yml
  flogate register --role hall:lamp.yml --role stairs:lamp.yml --interval 300
  flogate register --config site.hcl --broker mqtt.house siri.yml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.files = args
			if len(r.roles)+len(args) == 0 {
				return usagef("--role is missing: who is announced, and the file that describes it, as --role siri:infodisplay.yml")
			}
			return a.register(cmd.Context(), r)
		},
		ValidArgsFunction: yamlFiles,
	}
	r.flags(cmd, true)
	// Not a slice, whose values are split at commas.
	cmd.Flags().StringArrayVar(&r.roles, "role", nil, "ROLE:FILE.YML, a role and the file that describes who plays it; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("role", completeRoleFile) // the flag exists
	return cmd
}

// registerForeignCommand is MsgFlo's older command of the kind: one file, and announced once unless told otherwise.
func (a *app) registerForeignCommand() *cobra.Command {
	r := registration{interval: discoveryPeriod()}
	var role string
	cmd := &cobra.Command{
		Use:    "register-foreign FILE.YML --role ROLE",
		Short:  "Announce a participant that cannot announce itself, once",
		Long:   "Does what MsgFlo's command of this name does. Use 'flogate register'.",
		Hidden: true,
		Args:   exactArgs("FILE.YML"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.files = args; role != "" {
				r.files, r.roles = nil, []string{role + ":" + args[0]}
			}
			return a.register(cmd.Context(), r)
		},
		ValidArgsFunction: yamlFiles,
	}
	r.flags(cmd, false)
	cmd.Flags().StringVar(&role, "role", "", "the role (default: the one in the file)")
	return cmd
}

func (r *registration) flags(cmd *cobra.Command, forever bool) {
	r.where.brokerFlags(cmd)
	cmd.Flags().Var(&r.interval, "interval", "how often, in seconds, participants promise to be heard of")
	cmd.Flags().BoolVar(&r.forever, "forever", forever, "keep them announced; false ends it when each was announced once")
	cmd.Flags().DurationVar(&r.where.timeout, "timeout", 10*time.Second, "with --forever=false, how long to wait for the broker")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "print what was announced as JSON, a line each")
}

// seconds is a flag for a time: a number of seconds, as MsgFlo's tools have it, or as Go writes durations.
type seconds time.Duration

func (s *seconds) String() string {
	return strconv.FormatFloat(time.Duration(*s).Seconds(), 'g', -1, 64)
}
func (s *seconds) Type() string { return "seconds" }

func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, nerr := strconv.ParseFloat(text, 64); nerr == nil {
		// Compared before it is converted: what does not fit would be any number.
		if n > discovery.MaxHeartbeat.Seconds() {
			n = discovery.MaxHeartbeat.Seconds() + 1
		}
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil {
		return errors.New("a number of seconds is expected, such as 60 or 0.5")
	}
	if d < 0 || d > discovery.MaxHeartbeat {
		return fmt.Errorf("0 to %.0f seconds are possible", discovery.MaxHeartbeat.Seconds())
	}
	*s = seconds(d)
	return nil
}

// discoveryPeriod is the period that participants of MsgFlo's libraries have, which the environment can change.
func discoveryPeriod() seconds {
	var period seconds
	if period.Set(os.Getenv("MSGFLO_DISCOVERY_PERIOD")) != nil || period == 0 {
		return seconds(discovery.DefaultPeriod) // what is no time counts as little as in those
	}
	return period
}

// register announces participants until ctx ends, or until each was announced once.
func (a *app) register(ctx context.Context, r registration) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	if time.Duration(r.interval) < discovery.MinHeartbeat {
		return usagef("--interval is %s: it is more than 0", &r.interval)
	}
	definitions, err := a.foreigners(r)
	if err != nil {
		return err
	}
	r.where.fill()
	driver, req, err := a.driverFor(ctx, &r.where, log)
	if err != nil {
		return err
	}
	described, err := driver.Describe(ctx)
	if err != nil {
		return err
	}
	shown := redactURL(r.where.broker)
	b := broker.New(broker.Config{
		Name: shown, Request: req, Log: log,
		Driver: func(context.Context) (transport.Driver, error) { return driver, nil },
	})
	if !r.forever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.where.timeout)
		defer cancel()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	report := reporter{app: a, registration: r, broker: shown, left: len(definitions), all: stop}
	var working sync.WaitGroup
	for _, d := range definitions {
		working.Go(func() {
			// Only a bad definition is an error, and it was checked.
			_ = discovery.Announcer{
				Definition: d, Every: time.Duration(float64(r.interval) / 2.2), Log: log,
				Open: func(ctx context.Context) (transport.Publisher, error) {
					conn, err := b.Conn(ctx)
					if err != nil {
						return nil, err
					}
					pub, err := discovery.OpenPublisher(ctx, conn, described.Name, announcementAddress)
					if err != nil {
						return nil, err
					}
					return &announced{Publisher: pub, first: func() { report.say(d) }}, nil
				},
			}.Run(ctx)
		})
	}
	connection, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	var connected error
	var keeping sync.WaitGroup
	keeping.Go(func() { connected = b.Run(connection) })
	working.Wait() // while there is a connection, on which publishers end well
	state := b.State()
	disconnect()
	keeping.Wait()
	if connected != nil || r.forever {
		return connected
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason := cmp.Or(state.Reason, "it has not confirmed an announcement")
		return &exitError{exitUnreachable, fmt.Errorf("%s: not announced within %s (--timeout): %s", shown, r.where.timeout, reason)}
	}
	return report.err()
}

// foreigners reads the files of the participants. What is wrong with them has been shown, all of it at once.
func (a *app) foreigners(r registration) ([]discovery.Definition, error) {
	type one struct{ role, file string }
	var asked []one
	for _, text := range r.roles {
		role, file, ok := strings.Cut(text, ":")
		if !ok || role == "" || file == "" {
			return nil, usagef("--role is %q: it is ROLE:FILE.YML", text)
		}
		asked = append(asked, one{role, file})
	}
	for _, file := range r.files {
		asked = append(asked, one{"", file})
	}
	var definitions []discovery.Definition
	var wrong error
	for _, o := range asked {
		src, err := os.ReadFile(o.file)
		if err != nil {
			return nil, err
		}
		p, diags := config.ParseParticipant(o.file, src, o.role)
		if err := diags.Write(a.stderr, isTerminal(a.stderr)); err != nil {
			return nil, err
		}
		if diags.HasErrors() {
			wrong = &exitError{exitConfig, errReported}
			continue
		}
		d := announcement(p)
		d.Heartbeat = time.Duration(r.interval)
		if _, err := d.Marshal(); err != nil {
			return nil, &exitError{exitConfig, fmt.Errorf("%s: %w", o.file, err)}
		}
		if slices.ContainsFunc(definitions, func(other discovery.Definition) bool { return other.Role == d.Role }) {
			return nil, usagef("the role %q is given twice: who plays it is described by one file", d.Role)
		}
		definitions = append(definitions, d)
	}
	return definitions, wrong
}

// announcement returns what a participant that was read from a file would say of itself. Its id is its role, the same in
// each life: there is nothing in the participant that lives and dies.
func announcement(p config.Participant) discovery.Definition {
	ports := func(own []config.Port) []discovery.Port {
		list := make([]discovery.Port, 0, len(own))
		for _, port := range own {
			options := port.Options.JSON()
			if port.Private {
				options = nil // who listens is anybody
			}
			list = append(list, discovery.Port{
				ID: port.Name, Type: port.Type, Queue: port.Address, Description: port.Description, Schema: port.Schema,
				Options: options, Hidden: port.Hidden,
			})
		}
		return list
	}
	return discovery.Definition{
		ID: p.Role, Role: p.Role, Component: p.Component, Label: p.Label, Icon: p.Icon,
		Inports: ports(p.Inports), Outports: ports(p.Outports),
	}
}

// announced is a publisher of announcements that says when the broker has taken the first.
type announced struct {
	transport.Publisher
	first func() // called once, from Confirms
}

func (p *announced) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	confirms, err := p.Publisher.Confirms(ctx)
	if p.first != nil && slices.ContainsFunc(confirms, func(c transport.Confirm) bool { return c.Refused == nil }) {
		p.first()
		p.first = nil
	}
	return confirms, err
}

// reporter prints each participant when it is announced for the first time.
type reporter struct {
	*app
	registration registration
	broker       string
	all          func() // called when all are announced, if that is all that is wanted

	mu     sync.Mutex
	said   []string // roles
	left   int
	failed error
}

func (r *reporter) say(d discovery.Definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.said, d.Role) {
		return // the connection was lost, and is another one now
	}
	r.said = append(r.said, d.Role)
	if err := r.print(d); err != nil && r.failed == nil {
		r.failed = err
	}
	if r.left--; r.left == 0 && !r.registration.forever {
		r.all()
	}
}

func (r *reporter) print(d discovery.Definition) error {
	if r.registration.asJSON {
		return r.printJSON(d)
	}
	w := tabwriter.NewWriter(r.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "announced %s (%s) on %s\n", clean(d.Role), clean(d.Component), r.broker)
	for _, side := range []struct {
		what  string
		ports []discovery.Port
	}{{"inport", d.Inports}, {"outport", d.Outports}} {
		for _, p := range side.ports {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", side.what, clean(p.ID), clean(p.Type), clean(cmp.Or(p.Queue, "(no queue: it cannot be wired)")))
		}
	}
	return w.Flush()
}

func (r *reporter) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// yamlFiles completes arguments with the files of participants.
func yamlFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yml", "yaml"}, cobra.ShellCompDirectiveFilterFileExt
}

// completeRoleFile completes "role:" with the files of participants. Shells complete words, of which the role is a part.
func completeRoleFile(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	role, path, ok := strings.Cut(word, ":")
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	dir := path[:strings.LastIndex(path, "/")+1]
	files, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cobra.ShellCompDirectiveError
	}
	var found []string
	for _, f := range files {
		switch name := f.Name(); {
		case !strings.HasPrefix(dir+name, path):
		case f.IsDir():
			found = append(found, role+":"+dir+name+"/")
		case strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".yaml"):
			found = append(found, role+":"+dir+name)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
