package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/flogate/flogate/core/pluginmain"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/wire"
)

const (
	// startTimeout bounds the time from the launch of a process to its first answers.
	startTimeout = 10 * time.Second
	// stopTimeout bounds how long go-plugin may take to end a process; it waits 2 s for one that has heard of it.
	stopTimeout = 3 * time.Second
)

// healthPolicy says how a process is watched. The zero value of a field means its default.
type healthPolicy struct {
	every    time.Duration // between an answer and the next question
	deadline time.Duration // of a question
	misses   int           // in a row, until the process is killed
}

func (h healthPolicy) withDefaults() healthPolicy {
	if h.every <= 0 {
		h.every = time.Second
	}
	if h.deadline <= 0 {
		h.deadline = time.Second
	}
	if h.misses <= 0 {
		h.misses = 3
	}
	return h
}

// errNeedsTLS is the answer to a plugin that serves TCP without TLS.
var errNeedsTLS = errors.New("the plugin serves TCP, which needs TLS")

// live is one life of the process: from its launch until it has ended, whichever way. It returns why it has ended.
func (p *Process) live(ctx context.Context) error {
	err := p.liveOnce(ctx)
	if errors.Is(err, errNeedsTLS) && !p.usesTLS() {
		p.mu.Lock()
		p.tls = true
		p.mu.Unlock()
		err = p.liveOnce(ctx)
	}
	if transport.IsPermanent(err) {
		p.change(func(s *State) { s.Phase, s.Reason = Failed, err.Error() })
	}
	return err
}

func (p *Process) usesTLS() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tls
}

func (p *Process) liveOnce(ctx context.Context) error {
	path, err := p.executable()
	if err != nil {
		return transport.Permanent(err)
	}
	out := newLines(p.log)
	defer out.flush()
	r := &process{spawn: p.host.spawn, lines: out, tls: p.usesTLS(), exited: make(chan struct{})}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion: wire.ProtocolVersion, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
		},
		Plugins: plugin.PluginSet{wire.PluginName: &plugin.NetRPCUnsupportedPlugin{}},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, tmpDir string) (runner.Runner, error) {
			r.prepare(path, p.exe, p.environment(cmd.Env), tmpDir)
			return r, nil
		},
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		StartTimeout:     startTimeout,
		SyncStdout:       out.writer("stdout"),
		SyncStderr:       out.writer("stderr"),
		Logger:           newHCLog(p.log),
		AutoMTLS:         r.tls,
		GRPCDialOptions:  append(wire.DialOptions(), grpc.WithStreamInterceptor(r.noteConn)),
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.host.config.RunDir},
	})
	defer r.cleanUp()
	defer p.end(client, r)

	driver, description, err := p.start(ctx, client, r)
	if err != nil {
		return err
	}
	p.log.Info("plugin ready", "pid", r.pid(), "version", description.Version)
	p.mu.Lock()
	p.driver = driver
	p.mu.Unlock()
	p.change(func(s *State) { s.Phase, s.Version, s.Reason = Ready, description.Version, "" })
	defer func() {
		p.mu.Lock()
		p.driver = nil
		p.mu.Unlock()
	}()
	return p.watch(ctx, driver, r)
}

// executable returns the path to launch, after another look at it.
func (p *Process) executable() (string, error) {
	if p.exe.Problem != nil {
		return "", p.exe.Problem
	}
	if p.exe.BuiltIn && selfPath != "" {
		// Another file in its place would be another version, with which this one has never been tried.
		if _, err := os.Stat(selfPath); err == nil {
			return selfPath, nil
		}
	}
	if _, err := os.Stat(p.exe.Path); err != nil {
		return "", err
	}
	if !p.exe.BuiltIn {
		return p.exe.Path, verify(p.exe.Path, p.exe.Type)
	}
	return p.exe.Path, nil
}

// environment returns the variables of the plugin's process: what go-plugin wants, what pluginmain wants, and what programs
// cannot do without. Nothing else of ours: there may be secrets in it.
func (p *Process) environment(env []string) []string {
	env = slices.Clone(env)
	for _, name := range []string{"PATH", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	env = append(env, pluginmain.ParentEnv+"="+strconv.Itoa(os.Getpid()), pluginmain.LogEnv+"="+p.host.config.LogLevel.String())
	if n := p.host.config.Procs; n > 0 {
		env = append(env, pluginmain.ProcsEnv+"="+strconv.Itoa(n))
	}
	return env
}

// start launches the process and returns when it has answered, or has not: it is then still to be ended.
func (p *Process) start(ctx context.Context, client *plugin.Client, r *process) (*wire.Driver, transport.Description, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	fail := func(err error) (*wire.Driver, transport.Description, error) {
		if outer.Err() != nil {
			return nil, transport.Description{}, outer.Err()
		}
		return nil, transport.Description{}, p.startError(ctx, err, r)
	}
	// go-plugin takes no context. What ends its waiting is the end of the process.
	stop := context.AfterFunc(ctx, r.kill)
	defer stop()
	if _, err := client.Start(); err != nil {
		return fail(err)
	}
	protocol, err := client.Client()
	if err != nil {
		return fail(err)
	}
	conn, ok := protocol.(*plugin.GRPCClient)
	if !ok {
		return nil, transport.Description{}, transport.Permanentf("the plugin does not speak gRPC")
	}
	p.change(func(s *State) { s.Pid = r.pid() })
	driver := wire.NewDriver(conn.Conn)
	if err := driver.Health(ctx); err != nil {
		return fail(fmt.Errorf("first health call: %w", err))
	}
	d, err := driver.Describe(ctx)
	if err != nil {
		return fail(fmt.Errorf("describe: %w", err))
	}
	if d.Name != p.exe.Type {
		return nil, d, transport.Permanentf("%s serves the transport %q, and is named as one for %q", p.exe.Path, d.Name, p.exe.Type)
	}
	return driver, d, nil
}

// startError makes of an error something that a person can act on.
func (p *Process) startError(ctx context.Context, err error, r *process) error {
	if errors.Is(err, errNeedsTLS) || errors.Is(r.refused(), errNeedsTLS) {
		return errNeedsTLS
	}
	if refused := r.refused(); refused != nil {
		return fmt.Errorf("start %s: %w", p.exe.Path, refused)
	}
	if noise := r.noise(); noise != "" {
		return fmt.Errorf("start %s: it printed %q on standard output, where the handshake has to be the first line", p.exe.Path, noise)
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("start %s: not ready after %v", p.exe.Path, startTimeout)
	}
	// What a process that has ended did last says more than what was seen of it through a socket.
	select {
	case <-r.exited:
		return fmt.Errorf("start %s: %w", p.exe.Path, r.exitError())
	case <-time.After(100 * time.Millisecond):
	}
	return fmt.Errorf("start %s: %w", p.exe.Path, err)
}

// watch returns when the process has ended, does not answer any more, or ctx has ended.
func (p *Process) watch(ctx context.Context, driver *wire.Driver, r *process) error {
	policy := p.host.config.health
	tick := time.NewTimer(policy.every)
	defer tick.Stop()
	for missed := 0; ; {
		select {
		case <-r.exited:
			return r.exitError()
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, policy.deadline)
		err := driver.Health(asking)
		cancel()
		switch {
		case err == nil:
			missed = 0
			tick.Reset(policy.every)
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			missed++
			if missed >= policy.misses {
				r.kill()
				return fmt.Errorf("it did not answer %d health calls in a row and was killed", missed)
			}
			// An answer that is an error comes at once.
			tick.Reset(policy.deadline / 4)
		}
	}
}

// end ends the process and returns when it has ended and go-plugin is done with it.
func (p *Process) end(client *plugin.Client, r *process) {
	// go-plugin asks the process to end, and waits for the answer for as long as it takes.
	patience := time.AfterFunc(stopTimeout, r.kill)
	defer patience.Stop()
	client.Kill()
	r.closeConn()
}

// cannotRun says what is wrong with a file that the kernel does not launch.
func cannotRun(path string, err error) error {
	return fmt.Errorf("cannot launch %s on %s/%s: %w", path, runtime.GOOS, runtime.GOARCH, err)
}
