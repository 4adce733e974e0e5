package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/embedded"
	"github.com/flogate/flogate/core/library"
	"github.com/flogate/flogate/core/network"
	"github.com/flogate/flogate/core/plugin"
	"github.com/flogate/flogate/core/pluginmain"
	"github.com/flogate/flogate/core/process"
	"github.com/flogate/flogate/core/transport"
)

func (a *app) runCommand() *cobra.Command {
	var site string
	var q quick
	cmd := &cobra.Command{
		Use:   "run --config SITE.HCL",
		Short: "Run a site",
		Long: `Runs a site until SIGTERM or Ctrl-C; then it takes no more messages, settles what is
in flight, and ends. A second signal ends it at once.

SIGHUP, and any change of the site file or of a file that it names, loads the site
again: the difference is applied, and what has not changed is not touched. A site that
is not valid changes nothing, and is said.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && site == "" {
				site = args[0]
			} else if len(args) > 0 || site == "" && q.given(cmd) == "" {
				return usagef("run wants one site file: --config site.hcl")
			}
			return a.runAsked(cmd, site, q)
		},
	}
	cmd.Flags().StringVarP(&site, "config", "c", "", "the site file")
	_ = cmd.MarkFlagFilename("config", "hcl") // the flag exists
	q.flags(cmd)
	return cmd
}

// runner runs a site: it turns what the site file says into what runs, each time that it changes.
type runner struct {
	app     *app
	log     *slog.Logger
	source  siteSource
	started time.Time
	host    *plugin.Host
	net     *network.Network
	tasks   *tasks
	guard   func() *process.Guard // starts it for the first participant
	played  atomic.Bool           // there was one
	hup     <-chan os.Signal
	changed <-chan struct{} // has an element when the state of an edge has changed

	mu           sync.Mutex
	site         *config.Site
	files        []string // what a change of which means that the site has to be loaded again
	reload       string   // why the last change was not taken over
	processes    map[string]*plugin.Process
	own          map[string]admin.Plugin // the embedded brokers
	participants map[string]played       // the programs that were started, by role
	listening    *adminListener

	// What follows belongs to the goroutine that plans.
	brokers []network.Broker
	stage   *stage
}

// adminListener is where operators are answered.
type adminListener struct {
	address string
	net.Listener
}

// runSite runs a site until ctx ends. The order of the end is the reverse of the way of a message: the network settles what
// is in flight while brokers and plugins are still there.
func (a *app) runSite(ctx context.Context, from siteSource) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	// A second signal shall find nobody who listens to it, and end the process.
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })

	// From the first moment on, or a signal that comes early would be the end. They are never given back: a SIGHUP during the
	// drain means nothing any more. A reader of our output that goes away (SIGPIPE) is no reason to stop carrying.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	site, diags, err := from.load(ctx, log)
	if err != nil {
		return &exitError{exitConfig, errors.Join(diags.Write(a.stderr, isTerminal(a.stderr)), err)}
	}
	a.say(log, diags)
	unlock, err := lockData(site.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	host, err := plugin.New(plugin.Config{RunDir: runDir(site), Log: log, LogLevel: a.logLevel.Level()})
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	r := &runner{
		app: a, log: log, source: from, started: time.Now(), host: host, tasks: newTasks(log),
		net: network.New(network.Config{
			Drain: site.Drain, Log: log, Changed: poke, Bindings: filepath.Join(site.DataDir, "bindings.json"), Initials: filepath.Join(site.DataDir, "initials.json"),
		}),
		processes:    make(map[string]*plugin.Process),
		own:          make(map[string]admin.Plugin),
		participants: make(map[string]played),
		stage:        newStage(discovery.Config{Log: log}, filepath.Join(site.DataDir, "participants.json")),
		files:        diags.Files,
		hup:          hup,
		changed:      changed,
	}
	r.guard = sync.OnceValue(func() *process.Guard {
		guard, err := startGuard()
		if err != nil {
			log.Warn("what participants start would outlive a gateway that is killed", "error", err)
		}
		return guard
	})
	useHalf()
	room := make([]byte, pluginmain.HeapRoom)
	defer runtime.KeepAlive(room)
	return r.run(ctx, site)
}

// useHalf leaves half of the CPUs to plugins and brokers, unless GOMAXPROCS is set. Where messages come one by one, what
// costs most is to wake another thread for each; on two CPUs, where one is left, the gateway then needs a third less.
func useHalf() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

func (r *runner) run(ctx context.Context, site *config.Site) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var hosting sync.WaitGroup
	hosting.Go(func() {
		if err := r.host.Run(life); err != nil {
			r.log.Warn("plugins did not end cleanly", "error", err)
		}
	})
	defer hosting.Wait()
	defer end() // before the wait
	working, stop := context.WithCancel(life)
	defer func() {
		r.tasks.wait()
		r.endGuard()
	}()
	defer stop() // before that wait

	if err := r.apply(working, site); err != nil {
		return err
	}
	r.announce()
	if site.Listen.FBP != "" {
		r.log.Info("fbp address is not served by this version", "address", site.Listen.FBP)
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { r.watch(ctx, working) })
	watching.Go(func() { r.show(ctx) })
	if r.source.watch != nil {
		watching.Go(func() { r.source.watch(ctx, r) })
	}
	err := r.net.Run(ctx)
	r.log.Info("stopped carrying messages")
	return err
}

// apply makes what runs what a site says. When it fails nothing has changed.
func (r *runner) apply(ctx context.Context, site *config.Site) error {
	brokers, drivers, processes, err := r.connectors(site)
	if err != nil {
		return err
	}
	shelves, err := openShelves(site.Libraries, r.stage.shelves, r.log)
	if err == nil {
		err = r.listen(site.Listen.Admin)
	}
	if err != nil {
		release(processes)
		return err
	}
	r.mu.Lock()
	unused, before := r.processes, r.site
	first := before == nil
	r.processes, r.site = processes, site
	r.mu.Unlock()
	if !first {
		r.stage.leave(before, site)
	}
	r.brokers, r.stage.drivers, r.stage.shelves = brokers, drivers, shelves
	r.stage.roster.Forget()
	if first {
		r.expel(site, time.Now())
		// A broker of our own is waited for a moment, or the first thing that a person reads is that it is not there.
		r.tasks.apply(ctx, r.housekeeping(site))
		if err := r.awaitEmbedded(ctx, len(site.Embedded)); err != nil {
			return err
		}
	}
	r.plan(ctx)
	r.stage.poke() // whoever watches is told when to look again
	// Released after the network knows better: a process that goes on being used must not end in between.
	release(unused)
	return nil
}

// embeddedTime bounds how long a start waits for brokers of our own: they need a tenth of it where nothing is wrong.
const embeddedTime = 2 * time.Second

// awaitEmbedded blocks until so many brokers of our own are ready, or time is up. One that cannot start is an error: where its
// address is taken, everything would go to whoever has it.
func (r *runner) awaitEmbedded(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, embeddedTime)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		ready, failed := 0, error(nil)
		r.mu.Lock()
		for _, p := range r.own {
			if p.Up {
				ready++
			}
			if p.Reason != "" {
				failed = fmt.Errorf("%s does not start: %s", p.Name, p.Reason)
			}
		}
		r.mu.Unlock()
		if ready >= n || failed != nil {
			return failed
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil // it is slow, and nothing is wrong yet
		}
	}
}

func release(processes map[string]*plugin.Process) {
	for _, p := range processes {
		p.Release()
	}
}

// connectors returns the brokers of a site, drivers that can be asked about ports there, and the processes that serve them,
// one handle for each.
func (r *runner) connectors(site *config.Site) (
	brokers []network.Broker, drivers map[string]func(context.Context) (transport.Driver, error),
	processes map[string]*plugin.Process, err error,
) {
	found, err := executables(site.Plugins.Directory)
	if err != nil {
		return nil, nil, nil, err
	}
	drivers = make(map[string]func(context.Context) (transport.Driver, error))
	processes = make(map[string]*plugin.Process)
	used := processes
	defer func() {
		if err != nil {
			release(used)
		}
	}()
	for _, b := range site.Brokers {
		i := slices.IndexFunc(found, func(e plugin.Executable) bool { return e.Type == b.Type })
		if i < 0 {
			return nil, nil, nil, fmt.Errorf("broker %s: there is no transport %q", b.ID(), b.Type)
		}
		nb := network.Broker{
			ID:      b.ID(),
			Version: brokerVersion(b, found[i]),
			Request: transport.ConnectRequest{Name: site.Name + "/" + b.ID(), Config: b.Config.JSON()},
		}
		switch {
		case found[i].Problem != nil:
			return nil, nil, nil, fmt.Errorf("broker %s: %w", b.ID(), found[i].Problem)
		case b.Isolation == config.IsolationNone && !found[i].BuiltIn:
			return nil, nil, nil, fmt.Errorf("broker %s: isolation = \"none\" is for flogate's own transports, and %s is served by %s",
				b.ID(), b.Type, found[i].Path)
		case b.Isolation == config.IsolationNone:
			driver := builtins()[b.Type](r.log.With("broker", b.ID()))
			nb.Driver = func(context.Context) (transport.Driver, error) { return driver, nil }
		default:
			key := ""
			if b.Isolate {
				key = b.ID()
			}
			p := r.host.Use(found[i], key)
			processes[b.ID()] = p
			nb.Driver = p.Driver
			nb.Trouble = func() string { return troubleOf(p.State()) }
		}
		brokers = append(brokers, nb)
		drivers[b.ID()] = nb.Driver
		if open := builtins()[b.Type]; open != nil && found[i].BuiltIn {
			// What it says of a port is the same in every process, and here nobody has to wait for one.
			drivers[b.ID()] = func(context.Context) (transport.Driver, error) { return open(r.log), nil }
		}
	}
	return brokers, drivers, processes, nil
}

// troubleOf says what is wrong with a plugin that does not serve; empty if nothing is, or it has only not started yet.
func troubleOf(s plugin.State) string {
	if s.Phase == plugin.Ready || s.Reason == "" {
		return ""
	}
	return fmt.Sprintf("plugin %s is %s: %s", s.Type, s.Phase, s.Reason)
}

// brokerVersion changes when a broker has to be connected anew. It is a hash because the configuration holds secrets.
func brokerVersion(b config.Broker, e plugin.Executable) string {
	h := sha256.New()
	// An upgraded plugin is another one.
	fmt.Fprintln(h, b.Config.Reveal(), b.Isolation, b.Isolate, e.Path, e.Args, e.Size, e.Modified.UnixNano())
	return hex.EncodeToString(h.Sum(nil))
}

// housekeeping are the tasks that have nothing to do with participants.
func (r *runner) housekeeping(site *config.Site) map[string]task {
	wanted := map[string]task{"registry": {run: r.stage.registry.Run}, "memory": {run: r.stage.memory.run}}
	for _, e := range site.Embedded {
		wanted["embedded "+e.Name] = task{version: fmt.Sprint(e), run: func(ctx context.Context) error { return r.embed(ctx, e) }}
	}
	if l := r.listening; l != nil {
		wanted["admin"] = task{
			version: l.address,
			run:     func(ctx context.Context) error { return admin.Serve(ctx, l, admin.Handler(r.status), r.log) },
		}
	}
	return wanted
}

func (r *runner) embed(ctx context.Context, e config.Embedded) error {
	name := "embedded." + e.Name
	child := embedded.Child{
		// The server has no MQTT without NATS: nobody is told of the port that it then takes.
		NATS: cmp.Or(e.NATS, "127.0.0.1:0"), MQTT: e.MQTT, DataDir: e.DataDir, Log: r.log.With("embedded", e.Name),
		Changed: func(s embedded.Status) {
			p := admin.Plugin{
				Name: name, State: string(s.State), Since: s.Since, PID: s.PID, Restarts: s.Restarts, Up: s.State == embedded.Ready,
			}
			if s.Err != nil {
				p.Reason = s.Err.Error()
			}
			if s.Wait > 0 {
				r.log.Error("embedded broker does not run", "embedded", e.Name, "error", s.Err, "retry_in", s.Wait)
			}
			r.mu.Lock()
			r.own[name] = p
			r.mu.Unlock()
		},
	}
	defer func() {
		r.mu.Lock()
		delete(r.own, name)
		r.mu.Unlock()
	}()
	return child.Run(ctx)
}

func (r *runner) endGuard() {
	if !r.played.Load() {
		return // there is none, and none shall be started
	}
	if err := r.guard().Close(); err != nil {
		r.log.Debug("guard did not end cleanly", "error", err)
	}
}

func (r *runner) play(ctx context.Context, p player) error {
	r.played.Store(true)
	defer r.stage.poke()
	defer func() {
		r.mu.Lock()
		delete(r.participants, p.Role)
		r.mu.Unlock()
	}()
	if p.heard {
		r.stage.awaitEars(ctx, p.Broker)
	}
	version, ending := p.version(), func() bool { return ctx.Err() != nil }
	return library.Participant{
		Role: p.Role, Command: p.Command, Dir: p.dir, Env: p.env, Hide: p.hide, Log: r.log, Guard: r.guard(),
		Changed: func(s library.Status) {
			r.mu.Lock()
			r.participants[p.Role] = played{s, version, ending}
			r.mu.Unlock()
			r.stage.poke()
		},
	}.Run(ctx)
}

// hidden are the secrets that a participant is given with its environment: many print the URL of their broker, with the password.
func hidden(site *config.Site, broker string, more map[string]config.Secret) []string {
	const short = 4 // what is shorter stands in too many words
	var hide []string
	if b := site.Broker(broker); b != nil {
		if u, err := url.Parse(brokerURL(b.Config.JSON())); err == nil && u.User != nil {
			hide = append(hide, u.User.String()+"@")
			if password, ok := u.User.Password(); ok && len(password) > short {
				hide = append(hide, password)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		if secret := more[name].Reveal(); len(secret) > short {
			hide = append(hide, secret)
		}
	}
	return hide
}

// participantEnv tells a participant its broker, as MsgFlo's coordinator does.
func participantEnv(site *config.Site, broker string, more map[string]config.Secret) []string {
	var env []string
	if b := site.Broker(broker); b != nil {
		if broker := brokerURL(b.Config.JSON()); broker != "" {
			env = append(env, "MSGFLO_BROKER="+broker)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		env = append(env, name+"="+more[name].Reveal())
	}
	return env
}

// listen opens the admin address, if it is another one than before.
func (r *runner) listen(address string) error {
	if r.listening != nil && r.listening.address == address || r.listening == nil && address == "" {
		return nil
	}
	if address == "" {
		r.listening = nil
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		if r.listening != nil {
			_, old, _ := net.SplitHostPort(r.listening.address)
			if _, port, _ := net.SplitHostPort(address); port == old {
				return fmt.Errorf("listen.admin: the gateway itself listens at %s: restart it to change the address and keep the port",
					r.listening.address)
			}
		}
		return fmt.Errorf("listen.admin: %s is taken by another program: end it, or choose another address", address)
	}
	if err != nil {
		return fmt.Errorf("listen.admin: %w", err)
	}
	r.listening = &adminListener{address: address, Listener: l}
	return nil
}

// announce prints what a person can open.
func (r *runner) announce() {
	out := r.app.stdout
	fmt.Fprintf(out, "site %s runs: %s, %s\n", r.site.Name, count(len(r.site.Brokers), "broker"), count(len(r.site.Graphs), "graph"))
	if l := r.listening; l != nil {
		fmt.Fprintf(out, "  status   http://%s/status   (or: flogate status --admin %[1]s)\n", l.Addr())
		fmt.Fprintf(out, "  metrics  http://%s/metrics\n", l.Addr())
	}
	for _, e := range r.site.Embedded {
		for _, l := range []struct{ scheme, address string }{{"mqtt", e.MQTT}, {"nats", e.NATS}} {
			if l.address != "" {
				fmt.Fprintf(out, "  broker   %s://%s   (%s)\n", l.scheme, l.address, e.Name)
			}
		}
	}
}

// status is what operators see.
func (r *runner) status() admin.Status {
	s := r.net.Status()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := admin.Status{
		Site: r.site.Name, Version: version(), Started: r.started, Reload: r.reload,
		Edges: []admin.Edge{}, Brokers: []admin.Broker{}, Plugins: []admin.Plugin{}, Participants: []admin.Participant{},
		Discovery: []admin.Discovery{},
	}
	for _, e := range s.Edges {
		out.Edges = append(out.Edges, admin.Edge{
			ID: e.ID, Graph: e.Graph, State: string(e.State), Reason: e.Reason, Since: e.Since,
			Source: admin.Place(e.Source), Sink: admin.Place(e.Sink),
			Guarantee: string(e.Guarantee), Weakness: e.Weakness, Warning: e.Warning,
			Messages: e.Messages, Bytes: e.Bytes, Rate: e.Rate, InFlight: e.InFlight, OldestSeconds: e.OldestAge.Seconds(),
			Redelivered: e.Redelivered, DeadLetters: e.DeadLetters, Rejected: e.Rejected,
		})
	}
	for _, b := range s.Brokers {
		out.Brokers = append(out.Brokers, admin.Broker{
			ID: b.ID, State: string(b.Phase), Reason: b.Reason, Since: b.Since, Connects: b.Connects,
			Product: b.Info.Product, Warnings: b.Info.Warnings,
		})
	}
	for _, p := range r.host.States() {
		name := p.Type
		if p.Key != "" {
			name = p.Key
		}
		out.Plugins = append(out.Plugins, admin.Plugin{
			Name: name, State: string(p.Phase), Reason: p.Reason, Since: p.Since, PID: p.Pid, Restarts: p.Restarts,
			Up: p.Phase == plugin.Ready,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(r.own)) {
		out.Plugins = append(out.Plugins, r.own[name])
	}
	nameApart(out.Plugins)
	r.showMembers(&out)
	return out
}

// nameApart numbers the processes of one name: there are two while a plugin's file is replaced, and each has its series of
// metrics.
func nameApart(plugins []admin.Plugin) {
	seen := make(map[string]int)
	for i := range plugins {
		name := plugins[i].Name
		seen[name]++
		if n := seen[name]; n > 1 {
			plugins[i].Name = fmt.Sprintf("%s (%d)", name, n)
		}
	}
}

// show prints a line for an edge when something has changed on it: its state at once, its rate now and then.
func (r *runner) show(ctx context.Context) {
	const (
		look  = time.Second
		pace  = 5 * time.Second       // between two lines of one edge that only carries
		quiet = 50 * time.Millisecond // after a change: an edge that opens passes through several states at once
	)
	type line struct {
		state, reason string
		messages      uint64
		at            time.Time
	}
	shown := make(map[string]line)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.changed:
			select {
			case <-time.After(quiet):
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return
		}
		for _, e := range r.net.Status().Edges {
			old, now := shown[e.ID], time.Now()
			moved := e.Messages != old.messages && now.Sub(old.at) >= pace
			if old.state == string(e.State) && old.reason == e.Reason && !moved {
				continue
			}
			shown[e.ID] = line{string(e.State), e.Reason, e.Messages, now}
			text := fmt.Sprintf("%-40s  %-8s  %8.1f/s  %10d messages", clean(e.ID), e.State, e.Rate, e.Messages)
			if e.Reason != "" {
				text += "  " + clean(e.Reason)
			}
			fmt.Fprintln(r.app.stdout, strings.TrimRight(text, " "))
		}
	}
}

// runDir is the folder for the sockets of a site's plugins: the same for every run of a site, so that what a killed gateway
// has left is wiped by the next. The user belongs to the name, because the temporary folder is everybody's.
func runDir(site *config.Site) string {
	sum := sha256.Sum256([]byte(site.DataDir))
	return filepath.Join(socketDir(), fmt.Sprintf("flogate-%s-%d", hex.EncodeToString(sum[:4]), os.Getuid()))
}

// socketDir is where folders for sockets are made. Of the 62 bytes that package plugin has for such a folder, our names
// take up to 28, and a long TMPDIR would eat up the rest.
func socketDir() string {
	const longest = 34
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir()} {
		if dir != "" && len(dir) <= longest {
			return dir
		}
	}
	return "/tmp"
}
