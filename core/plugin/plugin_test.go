package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flogate/flogate/core/plugin"
	"github.com/flogate/flogate/core/pluginmain"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"
)

// The test's own program is also the plugins, and a host to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" {
		os.Exit(beAPlugin(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == "host" {
		os.Exit(beAHost(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

func beAPlugin(how string) int {
	switch how {
	case "foreign-unix", "foreign-tcp", "foreign-far", "foreign-elsewhere":
		return beForeign(how)
	case "noise":
		fmt.Println("hello, I am a plugin \x1b[31mof sorts")
	case "crash":
		return 3
	case "panic":
		panic("a very bad day")
	case "silent":
		time.Sleep(time.Minute)
	case "hostile-log":
		fmt.Fprintln(os.Stderr, `{"@message": 1, "@level": {}}`)
		fmt.Fprintln(os.Stderr, `{"@message": "\u001b[2Jcleared", "@level": "error", "level": "FATAL", "n": {"a": [1, 2]}}`)
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 1<<20))
		for i := range 3000 {
			fmt.Fprintln(os.Stderr, "line", i)
		}
	}
	return pluginmain.Serve(func(log *slog.Logger) transport.Driver {
		log.Info("starting", "how", how)
		return &named{Driver: transporttest.NewMemory().Driver(), name: strings.TrimPrefix(how, "wrong-"), env: os.Environ()}
	})
}

// named is a driver of another name, whose summary is its environment.
type named struct {
	transport.Driver
	name string
	env  []string
}

func (n *named) Describe(ctx context.Context) (transport.Description, error) {
	d, err := n.Driver.Describe(ctx)
	d.Name, d.Schemes = n.name, n.env
	return d, err
}

// beAHost runs a host with one plugin until it is killed, and prints the plugin's process id.
func beAHost(dir string) int {
	h, err := plugin.New(plugin.Config{RunDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() { _ = h.Run(context.Background()) }()
	p := h.Use(own("memory"), "")
	if _, err := p.Driver(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(p.State().Pid)
	select {}
}

// own returns the test's program as a plugin.
func own(how string) plugin.Executable {
	return plugin.Executable{Type: how, Path: os.Args[0], Args: []string{"plugin", how}, BuiltIn: true}
}

// bed is a host under test.
type bed struct {
	*plugin.Host
	dir    string
	log    *syncBuffer
	cancel context.CancelFunc
	ended  chan struct{}
}

func newBed(t *testing.T, options ...plugin.Option) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "fg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bed{dir: filepath.Join(dir, "run"), log: &syncBuffer{}, ended: make(chan struct{})}
	config := plugin.Config{RunDir: b.dir, Log: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, o := range options {
		o(&config)
	}
	b.Host, err = plugin.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() {
		defer close(b.ended)
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Log(clipped(b.log.String()))
		}
	})
	return b
}

func clipped(s string) string { return s[max(0, len(s)-8000):] }

// stop ends the host and waits for it.
func (b *bed) stop() {
	b.cancel()
	<-b.ended
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}

func running(pid int) bool {
	// A process that nobody has waited for yet is a zombie: it is not running.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return len(after) > 0 && after[0] != 'Z'
}

func TestPluginSIGKILLRestart(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("memory"), "")
	defer p.Release()
	other := b.Use(own("other"), "")
	defer other.Release()
	ctx := bounded(t)
	conn, err := p.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	otherConn, err := other.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	before := p.State().Pid
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Next(ctx); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Next: %v; want ErrClosed", err)
	}
	if err := conn.Close(ctx); err != nil {
		t.Errorf("close a connection whose plugin is gone: %v", err)
	}
	eventually(t, "another process", func() bool {
		s := p.State()
		return s.Phase == plugin.Ready && s.Pid != before && s.Restarts == 1
	})
	again, err := p.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []transport.Conn{again, otherConn} {
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if s := other.State(); s.Restarts != 0 {
		t.Errorf("the other process was restarted: %+v", s)
	}
}

func TestHostSIGKILLNoOrphan(t *testing.T) {
	dir, err := os.MkdirTemp("", "fg")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	run := filepath.Join(dir, "run")
	for range 2 { // the second finds what the first has left
		cmd := exec.Command(os.Args[0], "host", run)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(out, &pid); err != nil {
			t.Fatal(err)
		}
		if !running(pid) {
			t.Fatal("the plugin does not run")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		eventually(t, "the plugin is gone", func() bool { return !running(pid) })
	}
	h, err := plugin.New(plugin.Config{RunDir: run, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(run)
	if err != nil || len(left) > 0 {
		t.Errorf("run folder of the next host: %v, %v", left, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestPluginSIGSTOPKilled(t *testing.T) {
	b := newBed(t, plugin.WithHealth(100*time.Millisecond, 200*time.Millisecond))
	p := b.Use(own("memory"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	pid := p.State().Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() bool {
		s := p.State()
		return s.Phase == plugin.Ready && s.Pid != pid
	})
	if running(pid) {
		t.Error("the frozen process still runs")
	}
	if !strings.Contains(b.log.String(), "did not answer 3 health calls") {
		t.Error("the log does not say why")
	}
}

func TestFrozenPluginDoesNotHoldUpTheEnd(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("memory"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.State().Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	b.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the host ended after %v", took)
	}
}

func TestEnvNotLeaked(t *testing.T) {
	t.Setenv("FLOGATE_AMQP_PASSWORD", "hunter2")
	b := newBed(t)
	p := b.Use(own("memory"), "")
	defer p.Release()
	d, err := p.Describe(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(d.Schemes, "\n")
	if strings.Contains(all, "hunter2") || !strings.Contains(all, "FLOGATE_PLUGIN=") {
		t.Errorf("the plugin's environment is\n%s", all)
	}
}

func TestLargeMessageBothWays(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("memory"), "")
	defer p.Release()
	ctx := bounded(t)
	conn, err := p.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	const size = 16 << 20
	sub, err := conn.Subscribe(ctx, transport.Source{Name: "s", Address: "a", Window: transport.Credit{Messages: 1, Bytes: size}})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := conn.Publish(ctx, transport.Sink{Name: "p", Address: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Grant(transport.Credit{Messages: 1, Bytes: size}); err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	if err := pub.Publish(ctx, []transport.Message{{Body: body}}); err != nil {
		t.Fatal(err)
	}
	ds, err := sub.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(ds) != 1 || !bytes.Equal(ds[0].Body, body) {
		t.Errorf("%d deliveries, the first of %d bytes", len(ds), len(ds[0].Body))
	}
}

func TestRunDirClean(t *testing.T) {
	b := newBed(t)
	for range 3 {
		p := b.Use(own("memory"), "")
		if _, err := p.Driver(bounded(t)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(b.dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("run folder: %v, %v", info, err)
		}
		p.Release()
		eventually(t, "it has stopped", func() bool { return p.State().Phase == plugin.Stopped })
		if left, err := os.ReadDir(b.dir); err != nil || len(left) > 0 {
			t.Fatalf("left in the run folder: %v, %v", left, err)
		}
	}
	p := b.Use(own("memory"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	pid := p.State().Pid
	if _, err := plugin.New(plugin.Config{RunDir: b.dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("two hosts have the same run folder")
	}
	b.stop()
	if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run folder is still there: %v", err)
	}
	if running(pid) {
		t.Error("a plugin still runs")
	}
}

func TestRunDirOfSomebodyElseIsNotEmptied(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.New(plugin.Config{RunDir: dir, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestCrashLoopBecomesFailed(t *testing.T) {
	var mu sync.Mutex
	var seen []plugin.Phase
	b := newBed(t, plugin.WithRestarts(time.Millisecond, 10*time.Millisecond), func(c *plugin.Config) {
		c.OnChange = func(s plugin.State) {
			mu.Lock()
			defer mu.Unlock()
			if s.Type == "crash" {
				seen = append(seen, s.Phase)
			}
		}
	})
	healthy := b.Use(own("memory"), "")
	defer healthy.Release()
	p := b.Use(own("crash"), "")
	defer p.Release()
	eventually(t, "failed", func() bool { return p.State().Phase == plugin.Failed })
	s := p.State()
	if s.Restarts != 4 || !strings.Contains(s.Reason, "exit status 3") {
		t.Errorf("state is %+v", s)
	}
	if _, err := p.Driver(bounded(t)); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Driver: %v", err)
	}
	if _, err := healthy.Driver(bounded(t)); err != nil {
		t.Errorf("the other process: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 || seen[len(seen)-1] != plugin.Failed {
		t.Errorf("phases seen are %v", seen)
	}
	if got := len(b.States()); got != 2 {
		t.Errorf("%d states", got)
	}
}

func TestPanicIsTheReason(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("panic"), "")
	defer p.Release()
	eventually(t, "a reason", func() bool { return p.State().Reason != "" })
	if r := p.State().Reason; !strings.Contains(r, "a very bad day") {
		t.Errorf("reason is %q", r)
	}
}

func TestStdoutNoiseBeforeHandshake(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("noise"), "")
	defer p.Release()
	eventually(t, "a reason", func() bool { return p.State().Reason != "" })
	r := p.State().Reason
	if !strings.Contains(r, "hello, I am a plugin") || !strings.Contains(r, "standard output") || strings.Contains(r, "\x1b") {
		t.Errorf("reason is %q", r)
	}
}

func TestWrongTransportIsFailedAtOnce(t *testing.T) {
	b := newBed(t)
	e := own("wrong-mqtt")
	p := b.Use(e, "")
	defer p.Release()
	eventually(t, "failed", func() bool { return p.State().Phase == plugin.Failed })
	if s := p.State(); !strings.Contains(s.Reason, `serves the transport "mqtt"`) {
		t.Errorf("state is %+v", s)
	}
}

func TestMissingExecutableSaysSo(t *testing.T) {
	b := newBed(t)
	p := b.Use(plugin.Executable{Type: "x", Path: filepath.Join(t.TempDir(), "flogate-transport-x")}, "")
	defer p.Release()
	eventually(t, "failed", func() bool { return p.State().Phase == plugin.Failed })
	if s := p.State(); !strings.Contains(s.Reason, "no such file") {
		t.Errorf("state is %+v", s)
	}
}

func TestNoProgramSaysSo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "flogate-transport-x")
	if err := os.WriteFile(path, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	p := b.Use(plugin.Executable{Type: "x", Path: path}, "")
	defer p.Release()
	eventually(t, "a reason", func() bool { return p.State().Reason != "" })
	if s := p.State(); !strings.Contains(s.Reason, "cannot launch "+path) {
		t.Errorf("state is %+v", s)
	}
}

func TestKeyHasAProcessOfItsOwn(t *testing.T) {
	b := newBed(t)
	one, same, other := b.Use(own("memory"), ""), b.Use(own("memory"), ""), b.Use(own("memory"), "k")
	for _, p := range []*plugin.Process{one, same, other} {
		if _, err := p.Driver(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
	if one.State().Pid != same.State().Pid || one.State().Pid == other.State().Pid {
		t.Errorf("process ids are %d, %d, and with a key %d", one.State().Pid, same.State().Pid, other.State().Pid)
	}
	one.Release()
	if _, err := same.Driver(bounded(t)); err != nil {
		t.Errorf("one of two users has left: %v", err)
	}
	same.Release()
	other.Release()
}

func TestReplacedFileIsLaunchedAndTheOldOneEnds(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	install := func(version string) {
		script := fmt.Sprintf("#!/bin/sh\n# %s\nexec '%s' plugin memory\n", version, os.Args[0])
		fresh := filepath.Join(dir, "fresh")
		if err := os.WriteFile(fresh, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(dir, plugin.Prefix+"memory")); err != nil {
			t.Fatal(err)
		}
	}
	use := func() (p *plugin.Process, pid int) {
		p = b.Use(find(t, dir, "memory"), "")
		if _, err := p.Driver(bounded(t)); err != nil {
			t.Fatal(err)
		}
		return p, p.State().Pid
	}
	install("one")
	first, pid := use()
	same, samePid := use()
	same.Release()
	if samePid != pid {
		t.Error("the same file was launched twice")
	}
	install("two")
	second, secondPid := use()
	defer second.Release()
	if secondPid == pid {
		t.Fatal("the new file was not launched")
	}
	first.Release()
	eventually(t, "the process of the old file has ended", func() bool { return !running(pid) })
	if !running(secondPid) {
		t.Error("the process of the new file has ended")
	}
}

func TestHostThatEndsLeavesTheRunDirToTheNext(t *testing.T) {
	parent, err := os.MkdirTemp("", "fg") // a short one
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	dir := filepath.Join(parent, "run")
	ended, end := context.WithCancel(context.Background())
	end()
	var hosts sync.WaitGroup
	for range 4 {
		hosts.Go(func() {
			for range 200 {
				h, err := plugin.New(plugin.Config{RunDir: dir, Log: slog.New(slog.DiscardHandler)})
				if errors.Is(err, syscall.EWOULDBLOCK) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(dir); err != nil {
					t.Error("a host has no run folder: ", err)
				}
				if err := h.Run(ended); err != nil {
					t.Error(err)
				}
			}
		})
	}
	hosts.Wait()
}

func TestHostileLogIsBounded(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("hostile-log"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	b.stop()
	log := b.log.String()
	if strings.Contains(log, "\x1b") || strings.Contains(log, `\u001b`) {
		t.Error("an escape character is in the log")
	}
	if !strings.Contains(log, `\\x1b[2Jcleared`) || !strings.Contains(log, `"plugin.level":"FATAL"`) {
		t.Error("the line with the escape character is not in the log as text")
	}
	for l := range strings.Lines(log) {
		if len(l) > 4<<10 {
			t.Errorf("a log line has %d bytes", len(l))
		}
	}
	if n := strings.Count(log, `"plugin log"`); n > 1500 {
		t.Errorf("%d lines", n)
	}
	if !strings.Contains(log, "plugin log lines dropped") {
		t.Error("nothing is said of lines that were dropped")
	}
}

func TestPluginLogKeepsLevelAndAttributes(t *testing.T) {
	b := newBed(t)
	p := b.Use(own("memory"), "")
	defer p.Release()
	if _, err := p.Driver(bounded(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin's line", func() bool {
		for l := range strings.Lines(b.log.String()) {
			if strings.Contains(l, `"text":"starting"`) {
				return strings.Contains(l, `"level":"INFO"`) && strings.Contains(l, `"plugin.how":"memory"`) && strings.Contains(l, `"plugin":"memory"`)
			}
		}
		return false
	})
}

func TestStartedByHandExplainsItself(t *testing.T) {
	cmd := exec.Command(os.Args[0], "plugin", "memory")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("ended with %v; want exit status 2", err)
	}
	if !strings.Contains(string(out), "is a plugin of flogate") || !strings.Contains(string(out), `broker "memory"`) {
		t.Errorf("it says\n%s", out)
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
