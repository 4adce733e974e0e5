// Package broker keeps one configured broker connected.
//
// A [transport.Conn] is one life of a connection; a [Broker] outlives them: it asks for a driver, connects, watches, and
// after a loss connects again with one back-off policy for all transports. It knows nothing of messages: who carries them
// asks for the present connection with Conn, and for another when that one has ended.
//
// It is not for retrying what is done on a connection, and it holds no state that a restart would lose.
//
//	b := broker.New(broker.Config{Name: "mqtt.house", Request: req, Driver: driver, Log: log})
//	go b.Run(ctx)
//	conn, err := b.Conn(ctx) // blocks until there is one
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// Config is what a Broker needs. All but Name, Request and Driver have defaults.
type Config struct {
	// Name is how people know the broker: "mqtt.house".
	Name    string
	Request transport.ConnectRequest
	// Driver returns the driver to connect with. It may block while a plugin starts; ctx bounds the wait. It is asked
	// again before every attempt, because a plugin that was restarted has another one.
	Driver func(ctx context.Context) (transport.Driver, error)
	Log    *slog.Logger
	// Changed is called after every change of State, from Run's goroutine. It must not block.
	Changed func()

	// MinWait and MaxWait bound the wait between attempts: full jitter between half of and a whole wait that doubles from
	// MinWait to MaxWait. The defaults are 100 ms, at which a restarted broker is missed for an unnoticed moment, and 5 s,
	// at which a hundred gateways do not keep a broker busy that comes back.
	MinWait, MaxWait time.Duration
	// ConnectTimeout bounds one attempt. The default is 10 s.
	ConnectTimeout time.Duration
}

// Phase says what a Broker is doing.
type Phase string

// The phases.
const (
	// Connecting: there is no connection; Reason says why, from the second attempt on.
	Connecting Phase = "connecting"
	// Connected: messages can be carried.
	Connected Phase = "connected"
	// Blocked: connected, and the broker takes no messages for now.
	Blocked Phase = "blocked"
	// Stopped: Run has returned.
	Stopped Phase = "stopped"
)

// State is what a Broker is doing, since when and why.
type State struct {
	Phase  Phase
	Reason string
	Since  time.Time
	// Connects counts the connections since Run was called.
	Connects int
	// Info of the present connection.
	Info transport.ConnInfo
}

// Broker keeps one broker connected. Its methods may be called concurrently.
type Broker struct {
	cfg Config

	mu    sync.Mutex
	state State
	conn  transport.Conn // nil while there is none
	ready chan struct{}  // closed when conn is set; replaced when it is lost
	done  bool
}

// New returns a Broker that does nothing until Run is called.
func New(cfg Config) *Broker {
	if cfg.MinWait <= 0 {
		cfg.MinWait = 100 * time.Millisecond
	}
	if cfg.MaxWait < cfg.MinWait {
		cfg.MaxWait = max(cfg.MinWait, 5*time.Second)
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Broker{
		cfg:   cfg,
		state: State{Phase: Connecting, Since: time.Now()},
		ready: make(chan struct{}),
	}
}

// Name returns the configured name.
func (b *Broker) Name() string { return b.cfg.Name }

// State returns what the broker is doing. It does not block.
func (b *Broker) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// Conn blocks until there is a connection and returns it. The error is ctx's, or ErrClosed once Run has returned. A
// connection that is returned may be lost at any moment; its methods then say so.
func (b *Broker) Conn(ctx context.Context) (transport.Conn, error) {
	for {
		b.mu.Lock()
		conn, ready, done := b.conn, b.ready, b.done
		b.mu.Unlock()
		switch {
		case conn != nil:
			return conn, nil
		case done:
			return nil, fmt.Errorf("%s: %w", b.cfg.Name, transport.ErrClosed)
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Run keeps the broker connected until ctx ends, then closes the connection and returns nil. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	defer b.stop()
	for wait := b.cfg.MinWait; ; wait = min(2*wait, b.cfg.MaxWait) {
		conn, err := b.connect(ctx)
		if err == nil {
			up := time.Now()
			err = b.watch(ctx, conn)
			b.lose(ctx, conn, err)
			// A connection that lasted starts the back-off anew; one that is lost at once, over and over, does not.
			if time.Since(up) > b.cfg.MaxWait {
				wait = b.cfg.MinWait
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if transport.IsPermanent(err) {
			// Somebody has to mend it, here or at the broker: look again, but seldom.
			wait = b.cfg.MaxWait
		}
		b.set(Connecting, err.Error())
		b.cfg.Log.Warn("broker not connected", "broker", b.cfg.Name, "error", err, "retry_in", wait)
		select {
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Broker) connect(ctx context.Context) (transport.Conn, error) {
	// Waiting for a plugin is not part of the attempt: a plugin that is being restarted has its own back-off.
	driver, err := b.cfg.Driver(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.ConnectTimeout)
	defer cancel()
	conn, err := driver.Connect(ctx, b.cfg.Request)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer within %s", b.cfg.ConnectTimeout)
	}
	return conn, err
}

// watch follows the connection until it ends, and returns why.
func (b *Broker) watch(ctx context.Context, conn transport.Conn) error {
	info := conn.Info()
	b.mu.Lock()
	b.conn = conn
	close(b.ready)
	b.state = State{Phase: Connected, Since: time.Now(), Connects: b.state.Connects + 1, Info: info}
	b.mu.Unlock()
	b.cfg.Log.Info("broker connected", "broker", b.cfg.Name, "product", info.Product)
	for _, w := range info.Warnings {
		b.cfg.Log.Warn("broker may lose messages", "broker", b.cfg.Name, "warning", w)
	}
	b.cfg.Changed()
	for {
		cond, err := conn.Next(ctx)
		if err != nil {
			return err
		}
		if cond.Blocked {
			b.set(Blocked, cond.Reason)
			b.cfg.Log.Warn("broker takes no messages for now", "broker", b.cfg.Name, "reason", cond.Reason)
		} else {
			b.set(Connected, "")
			b.cfg.Log.Info("broker takes messages again", "broker", b.cfg.Name)
		}
	}
}

// lose takes the connection away from those who ask, then closes it.
func (b *Broker) lose(ctx context.Context, conn transport.Conn, reason error) {
	b.mu.Lock()
	b.conn = nil
	b.ready = make(chan struct{})
	b.mu.Unlock()
	if ctx.Err() == nil {
		b.set(Connecting, reason.Error())
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := conn.Close(closing); err != nil {
		b.cfg.Log.Debug("connection did not close cleanly", "broker", b.cfg.Name, "error", err)
	}
}

// closeTimeout bounds how long a connection that does not answer holds up the next one.
const closeTimeout = 2 * time.Second

func (b *Broker) set(phase Phase, reason string) {
	b.mu.Lock()
	same := b.state.Phase == phase && b.state.Reason == reason
	if b.state.Phase != phase {
		b.state.Since = time.Now()
	}
	b.state.Phase, b.state.Reason = phase, reason
	b.mu.Unlock()
	if !same {
		b.cfg.Changed()
	}
}

func (b *Broker) stop() {
	b.mu.Lock()
	b.done = true
	ready := b.ready
	b.mu.Unlock()
	b.set(Stopped, "")
	close(ready) // after lose, or before any connection: never closed yet
}
