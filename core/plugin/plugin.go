// Package plugin runs the processes that serve transports: it finds and verifies their executables, launches what is asked
// for, watches, restarts and ends them.
//
//	h, err := plugin.New(plugin.Config{RunDir: dir, Log: log})
//	go h.Run(ctx)
//	p := h.Use(executable, "")
//	defer p.Release()
//	conn, err := p.Connect(ctx, request) // a Process is a transport.Driver
//
// Its rules:
//
//   - One process serves all connections of its type, unless a broker asks for one of its own with a key.
//   - A process that ends is started again, with backoff. After five crashes in a minute it is [Failed], which everybody can
//     see, and is tried again every half minute. Other processes do not notice.
//   - A process that does not answer three health calls in a row is killed.
//   - A plugin gets no environment but what it needs to start, and no secrets but those in its Connect calls.
//   - What a plugin prints is untrusted text. It becomes log lines of bounded length and number, with nothing in them that a
//     terminal would act on.
//   - When this process ends, however it ends, so do the plugins.
//
// The package knows no broker and no configuration. Reconnecting is core/broker's.
package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/flogate/flogate/core/supervise"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/wire"
)

// Config is what a [Host] needs to know.
type Config struct {
	// RunDir is the folder of the sockets, this host's alone. It is made with mode 0700, and emptied at the start. The path of
	// a unix socket has at most 107 bytes, of which sockets need 45: a short path, such as one below $XDG_RUNTIME_DIR or /run.
	RunDir string
	// Log gets what happens and what plugins say.
	Log *slog.Logger
	// LogLevel is the lowest level that plugins are asked to log.
	LogLevel slog.Level
	// Procs is how many CPUs a plugin uses at a time; 0 means its own default, which is 1.
	Procs int
	// OnChange hears of every change of a process, in its order, on a goroutine of the host, which waits for it. May be nil.
	OnChange func(State)

	// restart is for tests: the policy of restarts.
	restart supervise.Policy
	// health is for tests: how often and how long processes are asked whether they live.
	health healthPolicy
}

// maxRunDir is what is left of a socket's path for the folder.
const maxRunDir = 62

// Phase is what a process is doing.
type Phase string

// The phases of a process.
const (
	Starting Phase = "starting" // launched, not yet ready
	Ready    Phase = "ready"    // serves
	Waiting  Phase = "waiting"  // has ended and will be started again soon
	Failed   Phase = "failed"   // has ended too often, or cannot be started; is tried again now and then
	Stopped  Phase = "stopped"  // nobody uses it any more
)

// State is what can be seen of a process.
type State struct {
	// Type and Key name it: the transport, and the key of a broker that has a process of its own.
	Type, Key string
	// Path is its executable.
	Path  string
	Phase Phase
	// Pid is its process id, 0 while there is none.
	Pid int
	// Version is what the driver says of itself, "" before it was ready for the first time.
	Version string
	// Reason says why it has ended last; it stays until it is ready again.
	Reason string
	// Restarts is how often it was started again.
	Restarts int
	// Since is when Phase has begun.
	Since time.Time
}

// Host runs plugin processes.
type Host struct {
	config Config
	lock   *os.File // of the run folder
	spawn  *spawner

	mu        sync.Mutex
	processes map[string]*Process
	queue     []*Process    // to be started by Run
	ended     bool          // Run has
	work      chan struct{} // has an element when Run should look at queue
}

// New makes a host and its run folder. Nothing is launched before Run.
func New(config Config) (*Host, error) {
	dir, err := filepath.Abs(config.RunDir)
	if err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	if len(dir) > maxRunDir {
		return nil, fmt.Errorf("run folder %s: the path has %d bytes; sockets in it can be reached with %d at most", dir, len(dir), maxRunDir)
	}
	config.RunDir = dir
	lock, err := makeRunDir(dir)
	if err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	config.health = config.health.withDefaults()
	return &Host{
		config: config, lock: lock, spawn: newSpawner(), processes: map[string]*Process{}, work: make(chan struct{}, 1),
	}, nil
}

// makeRunDir makes the folder, private, locks it, and removes what a host that was killed has left in it. The lock is held
// until the file that it returns is closed.
func makeRunDir(dir string) (lock *os.File, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	f, info, err := lockRunDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := f.Chmod(0o700); err != nil {
		return nil, err
	}
	if err := trusted(dir, chmodded{info}); err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), socketDirPrefix) {
			return nil, fmt.Errorf("%s holds %s, which is none of ours: give the gateway a folder of its own", dir, e.Name())
		}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// lockRunDir makes and locks the folder.
func lockRunDir(dir string) (f *os.File, info os.FileInfo, err error) {
	const tries = 100 // whoever fails as often stands against somebody who does nothing else
	for range tries {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, nil, err
		}
		// A link could lead us to empty somebody else's folder.
		f, err = os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, nil, fmt.Errorf("%s is in use by another gateway (%w)", dir, err)
		}
		// A host that ended in between has removed the folder that we have the lock of.
		info, err = f.Stat()
		if now, gone := os.Lstat(dir); err == nil && gone == nil && os.SameFile(info, now) {
			return f, info, nil
		}
		_ = f.Close()
	}
	return nil, nil, fmt.Errorf("%s is removed again and again: %w", dir, cmp.Or(err, os.ErrNotExist))
}

// socketDirPrefix is what go-plugin's folders for sockets begin with.
const socketDirPrefix = "plugin-dir"

// chmodded is the information of a file after it was made private.
type chmodded struct{ os.FileInfo }

// Mode implements [os.FileInfo].
func (c chmodded) Mode() os.FileMode { return c.FileInfo.Mode() &^ 0o077 }

// Run launches and supervises what is used until ctx ends; then it ends all processes and returns when none is left, after 4
// seconds at most. It is called once.
func (h *Host) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	spawning, stopSpawning := context.WithCancel(context.Background())
	tasks.Go(func() { h.spawn.run(spawning) })
	var processes sync.WaitGroup
	for {
		h.mu.Lock()
		queue := h.queue
		h.queue = nil
		h.mu.Unlock()
		for _, p := range queue {
			processes.Go(func() { p.run(ctx) })
		}
		select {
		case <-h.work:
			continue
		case <-ctx.Done():
		}
		break
	}
	h.mu.Lock()
	h.ended = true
	queue := h.queue
	h.queue = nil
	h.mu.Unlock()
	for _, p := range queue {
		p.stopped()
	}
	processes.Wait()
	// The thread of the spawner is the parent of the processes as far as the kernel is concerned: it goes last.
	stopSpawning()
	tasks.Wait()
	defer func() { _ = h.lock.Close() }()
	if err := os.Remove(h.config.RunDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the run folder: %w", err)
	}
	return nil
}

// Use returns the process that serves e, and launches it if nobody uses it yet. With a key that is not empty the process is
// shared only with those who give the same key. A file that has taken the place of another is another e. It does not block;
// whoever calls it calls Release in the end.
func (h *Host) Use(e Executable, key string) *Process {
	id := strings.Join(e.Args, "\x00")
	id = fmt.Sprint(e.Type, "\x00", e.Path, "\x00", key, "\x00", e.Size, "\x00", e.Modified.UnixNano(), "\x00", id)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.processes[id]
	if p == nil {
		p = newProcess(h, id, e, key)
		h.processes[id] = p
		if h.ended {
			p.state.Phase = Stopped
		} else {
			h.queue = append(h.queue, p)
			select {
			case h.work <- struct{}{}:
			default:
			}
		}
	}
	p.users++
	return p
}

// States returns the state of every process, sorted by type and key. There may be two of one name for as long as the users of
// a file that was replaced hold on to it.
func (h *Host) States() []State {
	h.mu.Lock()
	states := make([]State, 0, len(h.processes))
	for _, p := range h.processes {
		states = append(states, p.State())
	}
	h.mu.Unlock()
	slices.SortFunc(states, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Path, b.Path), a.Since.Compare(b.Since))
	})
	return states
}

// release counts one user less, and forgets a process without any.
func (h *Host) release(p *Process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.users--
	if p.users == 0 {
		delete(h.processes, p.id)
		close(p.unused)
	}
}

// Process is one process that serves a transport, over all its lives. It is a [transport.Driver]: each call goes to the
// present life and waits until there is one. All methods may be called concurrently.
type Process struct {
	host   *Host
	id     string
	exe    Executable
	log    *slog.Logger
	users  int           // guarded by host.mu
	unused chan struct{} // closed when there are no users left

	mu      sync.Mutex
	state   State
	driver  *wire.Driver  // of the present life, nil while there is none
	changed chan struct{} // closed and replaced when driver or state change
	tls     bool          // it can only do TCP, which goes with TLS
}

var _ transport.Driver = (*Process)(nil)

func newProcess(h *Host, id string, e Executable, key string) *Process {
	log := h.config.Log.With("plugin", e.Type)
	if key != "" {
		log = log.With("key", key)
	}
	return &Process{
		host: h, id: id, exe: e, log: log, unused: make(chan struct{}), changed: make(chan struct{}),
		state: State{Type: e.Type, Key: key, Path: e.Path, Phase: Starting, Since: time.Now()},
	}
}

// Release says that the caller does not use the process any more. It does not block. The last one ends the process.
func (p *Process) Release() { p.host.release(p) }

// State returns what can be seen of the process.
func (p *Process) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Driver returns the driver of the present life of the process. It blocks until there is one, the process has failed, or ctx
// ends. What comes from the driver is ErrClosed once that life has ended.
func (p *Process) Driver(ctx context.Context) (transport.Driver, error) {
	for {
		p.mu.Lock()
		driver, state, changed := p.driver, p.state, p.changed
		p.mu.Unlock()
		switch {
		case driver != nil:
			return driver, nil
		case state.Phase == Failed:
			return nil, fmt.Errorf("plugin %s: %s", state.Type, state.Reason)
		case state.Phase == Stopped:
			return nil, transport.Closed(fmt.Errorf("plugin %s: stopped", state.Type))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if state.Reason != "" {
				return nil, fmt.Errorf("plugin %s: %s: %w", state.Type, state.Reason, ctx.Err())
			}
			return nil, fmt.Errorf("plugin %s: not ready: %w", state.Type, ctx.Err())
		}
	}
}

// Describe implements [transport.Driver].
func (p *Process) Describe(ctx context.Context) (transport.Description, error) {
	d, err := p.Driver(ctx)
	if err != nil {
		return transport.Description{}, err
	}
	return d.Describe(ctx)
}

// Validate implements [transport.Driver].
func (p *Process) Validate(ctx context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	d, err := p.Driver(ctx)
	if err != nil {
		return transport.ValidateResult{}, err
	}
	return d.Validate(ctx, req)
}

// Connect implements [transport.Driver].
func (p *Process) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	d, err := p.Driver(ctx)
	if err != nil {
		return nil, err
	}
	return d.Connect(ctx, req)
}

// change changes the state, and tells everybody.
func (p *Process) change(f func(s *State)) {
	p.mu.Lock()
	before := p.state
	f(&p.state)
	if p.state.Phase != before.Phase {
		p.state.Since = time.Now()
	}
	state := p.state
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if p.host.config.OnChange != nil && state != before {
		p.host.config.OnChange(state)
	}
}

func (p *Process) stopped() {
	p.change(func(s *State) { s.Phase, s.Pid = Stopped, 0 })
}

// run supervises the process until nobody uses it or ctx ends.
func (p *Process) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() {
		select {
		case <-p.unused:
			cancel()
		case <-ctx.Done():
		}
	})
	defer cancel() // before waiting
	policy := p.host.config.restart
	if policy.Rest == 0 {
		policy.Rest = 30 * time.Second
	}
	policy.OnChange = p.superviseChanged
	if err := supervise.Run(ctx, "plugin "+p.exe.Type, policy, p.live); err != nil {
		p.log.Error("plugin did not end cleanly", "error", err)
	}
	p.stopped()
}

func (p *Process) superviseChanged(s supervise.Status) {
	switch s.State {
	case supervise.Running:
		p.change(func(state *State) {
			state.Restarts = s.Restarts
			if state.Phase != Failed { // until it is ready it is still what it was
				state.Phase = Starting
			}
		})
	case supervise.Waiting:
		p.log.Warn("plugin ended", "error", s.Err, "restart_in", s.Wait.Round(time.Millisecond))
		p.change(func(state *State) {
			state.Pid, state.Reason = 0, reason(s.Err)
			if state.Phase != Failed {
				state.Phase = Waiting
			}
		})
	case supervise.Failed:
		p.log.Error("plugin failed", "error", s.Err, "next_try_in", s.Wait)
		p.change(func(state *State) { state.Pid, state.Reason, state.Phase = 0, reason(s.Err), Failed })
	}
}

// reason returns the text of an error without what supervise has put before it.
func reason(err error) string {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return err.Error()
}
