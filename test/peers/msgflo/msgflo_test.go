//go:build peers

// Package msgflo tests with participants that their users have today, and compares with MsgFlo's own tools: msgflo-nodejs,
// noflo-runtime-msgflo and msgflo, as npm has them, in the versions of package-lock.json, not a line changed. This folder is a
// project of a user's: package.json, participants, graphs. The tests need node and npm, and fail without them.
//
//	go test -tags peers ./test/peers/msgflo
//	go test -tags peers ./test/peers/msgflo -update   record what they announce anew
package msgflo

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/process"
	"github.com/flogate/flogate/test/gateway"
	"github.com/flogate/flogate/test/peers/npm"
)

func TestMain(m *testing.M) { os.Exit(gateway.Main(m)) }

// worker is a running participant, which a test may kill and start again.
type worker struct {
	t      testing.TB
	broker string // its URL
	args   []string
	env    []string
	output lines

	pid   int
	ended chan struct{}
	stop  context.CancelFunc
}

// nodejs starts a participant of msgflo-nodejs: the module in file, which may be one of this folder.
func nodejs(t testing.TB, brokerURL, role, file string) *worker {
	t.Helper()
	return start(t, brokerURL, nil, "node_modules/msgflo-nodejs/bin/msgflo-nodejs", "--name", role, file)
}

// repeat is the Repeat of msgflo-nodejs.
const repeat = "node_modules/msgflo-nodejs/examples/Repeat.coffee"

// noflo starts a participant of noflo-runtime-msgflo: a component, or a graph.
func noflo(t testing.TB, brokerURL, role, component string, env ...string) *worker {
	t.Helper()
	// New Relic's client complains in many lines that nobody wants it.
	env = append(env, "NEW_RELIC_NO_CONFIG_FILE=true", "NEW_RELIC_ENABLED=false", "NEW_RELIC_LOG_ENABLED=false")
	return start(t, brokerURL, env, "node_modules/noflo-runtime-msgflo/bin/noflo-runtime-msgflo",
		"--name", role, "--graph", component, "--basedir", ".")
}

// Tests of this package run in parallel, and installing is for one at a time.
var installing sync.Mutex

func install(t testing.TB) {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	npm.Install(t, ".")
}

func start(t testing.TB, brokerURL string, env []string, args ...string) *worker {
	t.Helper()
	install(t)
	w := &worker{t: t, broker: brokerURL, args: args, env: env}
	w.start()
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			t.Logf("%q printed:\n%s", args, w.output.String())
		}
	})
	return w
}

func (w *worker) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", w.args...)
	// Announced about each second, so that whoever comes later need not wait for half a minute.
	cmd.Env = append(append(os.Environ(), "MSGFLO_BROKER="+w.broker, "MSGFLO_DISCOVERY_PERIOD=2"), w.env...)
	cmd.Stdout, cmd.Stderr = &w.output, &w.output
	w.stop, w.ended = cancel, make(chan struct{})
	started := make(chan int, 1)
	failed := make(chan error, 1)
	go func() {
		defer close(w.ended)
		if err := process.Run(cmd, 5*time.Second, func(pid int) { started <- pid }); err != nil {
			failed <- err
		}
	}()
	select {
	case w.pid = <-started:
	case err := <-failed:
		w.t.Fatalf("node %q: %v", w.args, err)
	}
}

// kill ends the participant with SIGKILL, if it runs.
func (w *worker) kill() {
	if w.running() {
		_ = syscall.Kill(-w.pid, syscall.SIGKILL) // it may just have ended
	}
	<-w.ended
	w.stop()
}

func (w *worker) running() bool {
	select {
	case <-w.ended:
		return false
	default:
		return true
	}
}

// lines keeps the end of what is written to it.
type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	const most = 16 << 10
	if len(l.text) > most {
		l.text = l.text[len(l.text)-most/2:]
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// within polls until done, and fails the test after a minute.
func within(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
