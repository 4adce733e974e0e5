package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/config"
)

// siteSource is where a site comes from: a site file, or a command line. It is asked again each time that one of the files
// in the diagnostics has changed.
type siteSource struct {
	// name is how messages call it: the file, or "the command line".
	name string
	// load returns what loadSite returns.
	load func(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error)
	// watch, if not nil, is called when the site runs, and ends when ctx does.
	watch func(ctx context.Context, r *runner)
}

// siteFile is a site that is in a file.
func siteFile(path string) siteSource {
	return siteSource{name: path, load: func(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
		return loadSite(ctx, path, log)
	}}
}

// quick is what a command line says in place of a site file, as MsgFlo's does.
type quick struct {
	graphs, brokers, ignore, env, roles []string
	components
	name, types, plugins, dataDir string
	admin                         string
	host                          string
	port                          uint16
	fbp                           bool // listen at host and port
	start                         bool // start participants of the library
	runtimeID                     string
	ping                          ping
	autoSave                      bool
}

// adminDefault is where a gateway without a site file answers operators: where they ask.
const adminDefault = "127.0.0.1:3570"

// flags gives a command the flags for a site without a file.
func (q *quick) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&q.graphs, "graph", nil, "without a site file: the graph to run; may be repeated")
	q.brokerFlags(cmd)
	q.components.flags(cmd)
	f.BoolVar(&q.start, "participants", true, "start participants whose components have commands in the library")
	roleFlag(cmd, &q.ignore, "ignore", "start no participants for these roles")
	f.StringArrayVar(&q.roles, "role", nil, "ROLE:FILE.YML, a participant to announce because it cannot do so itself; may be repeated")
	f.StringVar(&q.admin, "admin", adminDefault, "where status and metrics are answered, as HOST:PORT; empty for nowhere")
	f.StringVar(&q.host, "host", "127.0.0.1", "where the FBP protocol is spoken")
	f.Uint16Var(&q.port, "port", 3569, "the port for that")
	f.BoolVar(&q.autoSave, "auto-save", false, "keep changes of the graph in its file")
	f.StringVar(&q.runtimeID, "runtime-id", "", "what tells this gateway apart from others with a graph of the same name (default: $MSGFLO_RUNTIME_ID)")
	q.ping.flags(cmd)
	// The flags exist.
	_ = f.MarkHidden("auto-save") // it is refused
	_ = cmd.MarkFlagFilename("graph", "fbp", "json")
	_ = cmd.RegisterFlagCompletionFunc("role", completeRoleFile)
	for _, name := range []string{"admin", "host", "port", "auto-save", "runtime-id"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	for _, p := range pastFlags() {
		pastFlag(cmd, p.name)
	}
}

// pastFlag gives a command one of the pastFlags.
func pastFlag(cmd *cobra.Command, name string) {
	cmd.Flags().String(name, "", "")
	_ = cmd.Flags().MarkHidden(name) // the flag exists
}

// pastFlags are flags of MsgFlo's that mean nothing any more, with the reason. They are taken, and that is said.
func pastFlags() []struct{ name, why string } {
	return []struct{ name, why string }{
		{"ide", "this version has nothing for an IDE"},
		{"wait-timeout", "nobody is waited for: edges go live when their participants appear"},
		{"forward", "what participants print is in the log, with their role and the stream"},
	}
}

func (a *app) sayPast(cmd *cobra.Command) {
	for _, p := range pastFlags() {
		if cmd.Flags().Changed(p.name) {
			fmt.Fprintf(a.stderr, "flogate: --%s means nothing: %s\n", p.name, p.why)
		}
	}
}

// brokerFlags are those that have to do with brokers, and with how they know the gateway.
func (q *quick) brokerFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&q.brokers, "broker", nil, "a broker's URL; may be repeated (default: $MSGFLO_BROKER, $CLOUDAMQP_URL or "+defaultBroker+")")
	f.StringVar(&q.name, "name", "", "what brokers and logs call the gateway (default: the graph's name)")
	f.StringArrayVar(&q.env, "env", nil, "NAME=VALUE for the participants that are started, or NAME to hand on; may be repeated")
	f.StringVar(&q.types, "types", "warn", "what to do about ends of an edge that do not go together: warn or strict")
	f.StringVar(&q.plugins, "plugins", "", "the folder of plugins")
	f.StringVar(&q.dataDir, "data-dir", "", "the folder for what has to outlive the gateway (default: one in the user's own)")
	// The flags exist.
	_ = cmd.RegisterFlagCompletionFunc("types", words("warn", "strict"))
	_ = cmd.MarkFlagDirname("plugins")
	_ = cmd.MarkFlagDirname("data-dir")
	for _, name := range []string{"broker", "name", "env"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// given returns the first flag that says something of a site without a file; empty if none does.
func (q *quick) given(cmd *cobra.Command) string {
	for _, name := range []string{
		"graph", "broker", "library", "componentdir", "participants", "ignore", "role", "env", "name", "types", "plugins", "data-dir",
		"admin", "host", "port", "runtime-id", "auto-save", "ping-url", "ping-interval", "ping-method",
	} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// runAsked runs a site file, or what the command line says in its place.
func (a *app) runAsked(cmd *cobra.Command, site string, q quick) error {
	switch flag := q.given(cmd); {
	case site == "":
		return a.runQuick(cmd.Context(), cmd, q)
	case flag != "":
		return usagef("--%s is for a site without a file: %s says such things itself", flag, site)
	}
	return a.runSite(cmd.Context(), siteFile(site))
}

// runQuick runs a site without a file until ctx ends.
func (a *app) runQuick(ctx context.Context, cmd *cobra.Command, q quick) error {
	a.sayPast(cmd)
	q.fbp = cmd.Flags().Changed("host") || cmd.Flags().Changed("port")
	if len(q.graphs) == 0 && !cmd.Flags().Changed("broker") {
		return usagef("--graph is missing: the graph to run")
	}
	if err := q.check(); err != nil {
		return err
	}
	if q.autoSave {
		return usagef("--auto-save is of no use: nothing but its file changes the graph in this version, and that is followed")
	}
	id, err := q.identify()
	if err != nil {
		return err
	}
	pinging, err := q.ping.complete(id)
	if err != nil {
		return err
	}
	log, err := a.logger()
	if err != nil {
		return err
	}
	var working sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	if pinging {
		working.Go(func() { q.ping.run(ctx, log) })
	}
	err = a.runSite(ctx, q.source())
	stop()
	working.Wait()
	return err
}

// check completes what the flags say, and refuses what cannot be meant.
func (q *quick) check() error {
	if len(q.brokers) == 0 {
		q.brokers = []string{brokerFromEnvironment()}
	}
	if q.types != "warn" && q.types != "strict" {
		return usagef("--types is %q: it is warn or strict", q.types)
	}
	given := make(map[string]bool)
	for _, text := range q.roles {
		role, file, ok := strings.Cut(text, ":")
		if !ok || role == "" || file == "" {
			return usagef("--role is %q: it is ROLE:FILE.YML", text)
		}
		if given[role] {
			return usagef("the role %q is given twice: who plays it is described by one file", role)
		}
		given[role] = true
	}
	for _, text := range q.env {
		name, _, has := strings.Cut(text, "=")
		if _, set := os.LookupEnv(name); name == "" || !has && !set {
			return usagef("--env is %q: it is NAME=VALUE, or the name of a variable that is set", text)
		}
	}
	_, _, err := q.places()
	return err
}

// identify returns the id that tells this gateway apart; empty if it has none.
func (q *quick) identify() (string, error) {
	if q.runtimeID = cmp.Or(q.runtimeID, os.Getenv("MSGFLO_RUNTIME_ID")); q.runtimeID == "" {
		return "", nil
	}
	if ok := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`).MatchString(q.runtimeID); !ok {
		return "", usagef("--runtime-id is %q: it has letters, digits, - and _, as a UUID does", q.runtimeID)
	}
	return q.runtimeID, nil
}

// source returns the site of the command line. Its graph is followed, as a site file's is.
func (q quick) source() siteSource {
	return siteSource{name: "the command line", load: q.load}
}

// load assembles the site.
func (q quick) load(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
	guests := newGuests(log)
	defer guests.close()
	a, err := q.assembly()
	if err != nil {
		return nil, &config.Diagnostics{}, err
	}
	site, diags := config.Assemble(ctx, a, config.Options{Driver: guests.driver, Transports: guests.types, Library: usable})
	if diags.HasErrors() {
		return nil, diags, errReported
	}
	// Brokers keep state under the name, so that it has to be another one for each gateway, and the same in each run.
	if q.name == "" && q.runtimeID != "" {
		site.Name += "-" + q.runtimeID
	}
	if site.DataDir, err = q.stateDir(site.Name); err != nil {
		return nil, diags, err
	}
	return site, diags, nil
}

func (q quick) assembly() (config.Assembly, error) {
	a := config.Assembly{
		Name: q.name, Graphs: q.graphs, Brokers: q.brokers, Ignore: q.ignore, Plugins: q.plugins, Admin: q.admin,
		StrictTypes: q.types == "strict",
	}
	if q.fbp {
		a.FBP = net.JoinHostPort(q.host, strconv.Itoa(int(q.port)))
	}
	if q.start {
		var err error
		if a.Library, a.ComponentDir, err = q.components.places(); err != nil {
			return a, err
		}
		a.Env = q.environment()
	}
	for _, text := range q.roles {
		role, file, _ := strings.Cut(text, ":")
		if a.Participants == nil {
			a.Participants = make(map[string]string)
		}
		a.Participants[role] = file
	}
	return a, nil
}

// environment returns what participants that are started get beside what they always do.
func (q quick) environment() map[string]string {
	env := make(map[string]string)
	for _, text := range q.env {
		name, value, has := strings.Cut(text, "=")
		if !has {
			value = os.Getenv(name)
		}
		env[name] = value
	}
	return env
}

// stateDir returns the folder for what has to outlive the gateway. It is the same for everything of one name on the same
// brokers: two gateways like that would take each other's sessions there, and the second finds the folder locked.
func (q quick) stateDir(name string) (string, error) {
	if q.dataDir != "" {
		return filepath.Abs(q.dataDir)
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("there is no folder for the gateway's state (--data-dir): %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	var brokers []string
	for _, b := range q.brokers {
		brokers = append(brokers, redactURL(b)) // who gets a new password is still the same
	}
	slices.Sort(brokers)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(brokers), "\n")))
	return filepath.Join(state, "flogate", name+"-"+hex.EncodeToString(sum[:4])), nil
}
