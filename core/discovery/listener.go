package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/transport"
)

// Listener takes the announcements on one broker.
type Listener struct {
	// Broker is how the registry and the log call the broker.
	Broker string
	// Open returns a connection. It blocks until the broker is connected; ctx bounds the wait. A connection is not closed
	// by the Listener: others use it too.
	Open func(ctx context.Context) (transport.Conn, error)
	// Addresses are where participants announce themselves; none means DefaultAddresses.
	Addresses []Address
	Registry  *Registry
	Log       *slog.Logger
}

// window bounds what is on the way. Announcements are handled at once, so a few hundred let any source run at its full
// speed, and the bytes bound the memory if they are large.
func window() transport.Credit { return transport.Credit{Messages: 256, Bytes: 1 << 20} }

// steady is how long something has to have lasted for its end to count as the first failure.
const steady = 5 * time.Second

// Run listens until ctx ends, then closes its subscriptions and returns nil. It is called once. What cannot be opened or is
// lost is opened again; one address does not wait for another. Every message is acknowledged, whatever is in it: it would
// be no better if it came again. What is refused is logged, each cause once, and counted by the registry.
func (l Listener) Run(ctx context.Context) error {
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	l.Log = l.Log.With("broker", l.Broker)
	addresses := l.Addresses
	if len(addresses) == 0 {
		addresses = DefaultAddresses()
	}
	sieve := newSieve()
	var wg sync.WaitGroup
	for _, a := range addresses {
		l.Registry.Listening(Place{l.Broker, a.Address}, false, time.Now())
	}
	for _, a := range addresses {
		wg.Go(func() { l.listen(ctx, a, sieve) })
	}
	wg.Wait()
	return nil
}

func (l Listener) listen(ctx context.Context, a Address, sieve *sieve) {
	at := Place{l.Broker, a.Address}
	l.Registry.Listening(at, false, time.Now())
	// When nobody speaks of the place any more, those who were there may be gone some day.
	defer func() { l.Registry.Listening(at, true, time.Now()) }()
	var retry broker.Retry
	for ctx.Err() == nil {
		opened := time.Now()
		n, err := l.receive(ctx, at, a.Options, sieve)
		l.Registry.Listening(at, false, time.Now())
		if ctx.Err() != nil {
			return
		}
		if n > 0 || time.Since(opened) > steady {
			retry.Reset()
		}
		switch unlogged, is := sieve.pass(at.Address + " " + err.Error()); {
		case errors.Is(err, transport.ErrClosed) || !is:
			// That a connection is lost says who keeps it.
			l.Log.Debug("discovery address not open", "address", at.Address, "error", err)
		default:
			l.Log.Warn("discovery address not open", "address", at.Address, "error", err, "not_logged", unlogged)
		}
		retry.Wait(ctx, err)
	}
}

// receive opens a subscription and takes what comes until it ends. It returns how many messages that were, and why no more.
func (l Listener) receive(ctx context.Context, at Place, options json.RawMessage, sieve *sieve) (n int, err error) {
	conn, err := l.Open(ctx)
	if err != nil {
		return 0, err
	}
	sub, err := conn.Subscribe(ctx, transport.Source{
		Name:    "discovery " + at.Address,
		Address: at.Address,
		Window:  window(),
		Options: options,
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = sub.Close(closing) // what is left of it dies with its connection
	}()
	if err := sub.Grant(window()); err != nil {
		return 0, err
	}
	l.Registry.Listening(at, true, time.Now())
	for {
		ds, err := sub.Receive(ctx)
		if err != nil {
			return n, err
		}
		if len(ds) == 0 {
			continue // no driver should, and none shall end the gateway
		}
		n += len(ds)
		var credit transport.Credit
		now := time.Now()
		for _, d := range ds {
			l.take(at, d.Body, now, sieve)
			credit.Messages++
			credit.Bytes += int64(len(d.Body))
		}
		done := transport.Settlement{First: ds[0].Seq, Last: ds[len(ds)-1].Seq, Outcome: transport.Ack}
		if err := sub.Settle(ctx, []transport.Settlement{done}); err != nil {
			return n, err
		}
		if err := sub.Grant(credit); err != nil {
			return n, err
		}
	}
}

// closeTimeout bounds closing what may not answer.
const closeTimeout = 3 * time.Second

func (l Listener) take(at Place, body []byte, now time.Time, sieve *sieve) {
	changes, err := l.Registry.Take(at, body, now)
	l.Registry.report(changes)
	if err == nil {
		return
	}
	if unlogged, is := sieve.pass(at.Address + " " + err.Error()); is {
		l.Log.Warn("discovery message refused", "address", at.Address, "error", err, "bytes", len(body), "not_logged", unlogged)
	}
}
