package discovery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// Announcer keeps a participant announced that does not do it itself.
type Announcer struct {
	Definition Definition
	// Every is how often it is announced. The default is the definition's heartbeat, or else DefaultPeriod, divided by
	// 2.2: two announcements reach whoever waits for one a period.
	Every time.Duration
	// Open opens a publisher to the address for announcements. It may block until the broker is connected; ctx bounds the
	// wait. The Announcer closes it.
	Open func(ctx context.Context) (transport.Publisher, error)
	Log  *slog.Logger
}

// Run announces the participant at once, then again and again, and whenever the publisher had to be opened anew, until ctx
// ends; then it returns nil. A definition that others would refuse is an error, at once. It is called once.
func (a Announcer) Run(ctx context.Context) error {
	body, err := a.Definition.Marshal()
	if err != nil {
		return err
	}
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	a.Log = a.Log.With("role", a.Definition.Role, "id", a.Definition.ID)
	period := a.Definition.Heartbeat
	if period == 0 {
		period = DefaultPeriod
	}
	if a.Every <= 0 {
		a.Every = time.Duration(float64(period) / 2.2)
	}
	msg := transport.Message{
		Body:        body,
		ContentType: "application/json",
		// Where nobody listens, announcements shall not pile up in a queue.
		TTL: max(heartbeats*max(period, a.Every), least),
	}
	a.keep(ctx, msg)
	return nil
}

// keep announces the participant on one publisher after the other, until ctx ends.
func (a Announcer) keep(ctx context.Context, msg transport.Message) {
	var retry broker.Retry
	sieve := newSieve()
	for {
		opened := time.Now()
		err := a.announce(ctx, msg, sieve)
		if ctx.Err() != nil {
			return
		}
		if time.Since(opened) > steady {
			retry.Reset()
		}
		switch unlogged, is := sieve.pass(err.Error()); {
		case errors.Is(err, transport.ErrClosed) || !is:
			// That a connection is lost says who keeps it.
			a.Log.Debug("publisher of announcements lost", "error", err)
		default:
			a.Log.Warn("participant not announced", "error", err, "not_logged", unlogged)
		}
		retry.Wait(ctx, err)
	}
}

// announce opens a publisher and announces the participant on it until one of them ends. It returns why.
func (a Announcer) announce(ctx context.Context, msg transport.Message, sieve *sieve) error {
	pub, err := a.Open(ctx)
	if err != nil {
		return err
	}
	// Confirms says at once that the publisher is lost, while the next announcement may be due in an hour.
	ctx, lose := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lose(a.confirms(ctx, pub, sieve))
	}()
	defer func() {
		lose(nil)
		<-done
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = pub.Close(closing) // what was announced last will be announced again, or never
	}()
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for {
		if err := pub.Publish(ctx, []transport.Message{msg}); err != nil {
			return cmp.Or(context.Cause(ctx), err) // what Confirms said is nearer to the cause
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// confirms takes confirms until the publisher is lost or ctx ends, and returns why.
func (a Announcer) confirms(ctx context.Context, pub transport.Publisher, sieve *sieve) error {
	for {
		confirms, err := pub.Confirms(ctx)
		if err != nil {
			return err
		}
		for _, c := range confirms {
			if c.Refused == nil {
				continue
			}
			if unlogged, is := sieve.pass(c.Refused.Error()); is {
				a.Log.Warn("announcement refused", "error", c.Refused, "not_logged", unlogged)
			}
		}
	}
}
