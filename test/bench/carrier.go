package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/flogate/flogate/core/process"
)

// endTime is how long a variant may take to end before it is killed.
const endTime = 5 * time.Second

// carrier is a variant at work: a process that carries messages from one place to another.
type carrier struct {
	pid    int
	began  time.Time
	cancel context.CancelFunc
	ended  chan struct{}
	output tail
}

// tail keeps the last of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
	all int64 // bytes
}

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	t.all += int64(len(p))
	if n := t.buf.Len(); n > 2*tailBytes {
		t.buf.Next(n - tailBytes)
	}
	return len(p), nil
}

// total is how much was written.
func (t *tail) total() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// start starts a variant. It carries nothing yet when start returns. The child ends with ctx, with stop, and with this process.
func start(ctx context.Context, v variant, program, dir string, from, to place) (*carrier, error) {
	switch v {
	case hand, coalesced:
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return launch(ctx, func(ctx context.Context) *exec.Cmd {
			return exec.CommandContext(ctx, self, bridgeArgs(from, to, v == coalesced)...)
		})
	default:
		path := filepath.Join(dir, from.address+".hcl")
		if err := os.WriteFile(path, []byte(site(v, from, to)), 0o600); err != nil {
			return nil, err
		}
		return launch(ctx, func(ctx context.Context) *exec.Cmd {
			return exec.CommandContext(ctx, program, "--config", path, "--log-level", "warn")
		})
	}
}

// launch is start for any program.
func launch(ctx context.Context, command func(context.Context) *exec.Cmd) (*carrier, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &carrier{cancel: cancel, ended: make(chan struct{})}
	cmd := command(ctx)
	cmd.Stdout, cmd.Stderr = &c.output, &c.output
	started := make(chan int, 1)
	failed := make(chan error, 1)
	c.began = time.Now()
	go func() {
		defer close(c.ended)
		failed <- process.Run(cmd, endTime, func(pid int) { started <- pid })
	}()
	select {
	case c.pid = <-started:
		return c, nil
	case err := <-failed:
		cancel()
		return nil, err
	}
}

// stop ends the carrier and waits until it has ended.
func (c *carrier) stop() {
	c.cancel()
	<-c.ended
}

// running returns an error with the carrier's last words when it has ended.
func (c *carrier) running() error {
	select {
	case <-c.ended:
		return fmt.Errorf("it has ended: %s", strings.TrimSpace(c.output.String()))
	default:
		return nil
	}
}

// site is a site file for one edge. Two places on one broker share its block, as they would in a site.
func site(v variant, from, to place) string {
	var b strings.Builder
	fmt.Fprintf(&b, "site %q {\n  data_dir = %q\n}\n", from.address, from.address+".data")
	isolation := "process"
	if v == none {
		isolation = "none"
	}
	broker := func(p place, name string) string {
		fmt.Fprintf(&b, "broker %q %q {\n  url       = %q\n  isolation = %q\n}\n", p.transport(), name, p.url, isolation)
		return "broker." + p.transport() + "." + name
	}
	source := broker(from, "source")
	sink := source
	if from.url != to.url {
		sink = broker(to, "sink")
	}
	port := func(role, broker, dir, name string, p place) {
		fmt.Fprintf(&b, "participant %q {\n  component = \"bench/%s\"\n  broker    = %s\n  %s %q {\n    address = %q\n", role, role, broker, dir, name, p.address)
		switch p.kind {
		case mqtt0, mqtt1:
			fmt.Fprintf(&b, "    qos     = %d\n", p.qos())
		case jetStream:
			fmt.Fprintf(&b, "    stream  = %q\n", stream(p.address))
		case amqpQueue:
			fmt.Fprintf(&b, "    kind    = \"queue\"\n")
		}
		b.WriteString("  }\n}\n")
	}
	port("a", source, "outport", "out", from)
	port("b", sink, "inport", "in", to)
	b.WriteString("graph \"main\" {\n  text = \"a(bench/a) OUT -> IN b(bench/b)\"\n}\n")
	return b.String()
}

func (p place) transport() string {
	switch p.kind {
	case mqtt0, mqtt1:
		return "mqtt"
	case amqpQueue:
		return "amqp"
	}
	return "nats"
}

// errNotReady is what a carrier is that carries nothing within readyTime.
var errNotReady = errors.New("it carries nothing")

const readyTime = 20 * time.Second

// await sends probes until one has arrived.
func (c *carrier) await(ctx context.Context, f feeder, m *meter) error {
	deadline := time.After(readyTime)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !m.probed() {
		if err := f.publish(body(headBytes, 0, 0)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("%w: %s", errNotReady, c.output.String())
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.running(); err != nil {
			return err
		}
	}
	return nil
}
