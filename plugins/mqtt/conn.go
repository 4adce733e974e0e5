package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/flogate/flogate/core/transport"
)

// conn is one life of the publishing client, and whatever has been opened beside it.
type conn struct {
	driver   *driver
	log      *slog.Logger
	settings settings
	name     string
	client   *client
	suspect  *suspicion
	flights  *flights
	exact    chan struct{} // has an element for each message on the way with QoS 2

	mu    sync.Mutex
	parts map[*client]struct{} // of the subscriptions
	err   error                // why it has ended, or will when Close is done
	wg    sync.WaitGroup       // subscriptions and publishers; Add with mu held, and err nil
	ended chan struct{}        // closed when the publishing client is gone
	gone  chan struct{}        // closed when everything is gone
}

func (d *driver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	s, problems := parseConfig(req.Config)
	if err := problems.err(); err != nil {
		return nil, err
	}
	cl, err := open(ctx, s, session{id: publisherID(s.clientID, req.Name), clean: true}, nil)
	if err != nil {
		return nil, err
	}
	suspect := d.suspicion(req.Name)
	c := &conn{
		driver: d, log: d.log, suspect: suspect, flights: newFlights(suspect.careful()), settings: s, name: req.Name, client: cl,
		parts: make(map[*client]struct{}), exact: make(chan struct{}, exactWindow), ended: make(chan struct{}), gone: make(chan struct{}),
	}
	go c.run()
	return c, nil
}

// run ends everything with the publishing client. Close waits for it.
func (c *conn) run() {
	defer close(c.gone)
	why := c.client.run()
	c.mu.Lock()
	c.err = transport.Closed(why)
	for part := range c.parts {
		part.stop(c.err)
	}
	c.mu.Unlock()
	close(c.ended)
	c.wg.Wait()
	// Now what was confirmed has been counted.
	n, only, lived := c.flights.last()
	if alone := c.suspect.lost(isHangUp(why), lived, n, only); alone == strikes {
		c.log.Warn("the broker closes the connection over the same message again and again; if it is too large for the broker, "+
			"set max_message to the broker's limit", "broker", c.name, "topic", only.topic, "bytes", len(only.body))
	}
}

// start runs f as a part of the connection, unless that has ended.
func (c *conn) start(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.wg.Go(f)
	return nil
}

// serve runs the client of a subscription as a part of the connection and calls after with the reason of its end. When the
// connection has ended it ends the client and returns why.
func (c *conn) serve(cl *client, after func(why error)) error {
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		cl.stop(err)
		return cl.run()
	}
	defer c.mu.Unlock()
	c.parts[cl] = struct{}{}
	c.wg.Go(func() {
		why := cl.run()
		c.mu.Lock()
		delete(c.parts, cl)
		c.mu.Unlock()
		after(why)
	})
	return nil
}

// failed returns why the connection has ended, or nil.
func (c *conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *conn) Info() transport.ConnInfo {
	return transport.ConnInfo{
		MaxBody:  int64(max(1, c.settings.maxMessage-messageHeaders-1)),
		Features: []string{"MQTT 3.1.1", "QoS 2", "retained messages", "persistent sessions"},
		Warnings: []string{
			"An MQTT 3.1.1 broker does not say how much it keeps for a session: mosquitto drops messages beyond " +
				"max_queued_messages (1000 by default, 0 for no limit), also those that it has confirmed.",
		},
	}
}

func (c *conn) Next(ctx context.Context) (transport.Condition, error) {
	select {
	case <-c.ended:
		return transport.Condition{}, c.failed()
	case <-ctx.Done():
		return transport.Condition{}, ctx.Err()
	}
}

func (c *conn) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.err == nil {
		c.err = transport.ErrClosed
	}
	for part := range c.parts {
		part.stop(transport.ErrClosed)
	}
	c.mu.Unlock()
	c.client.stop(transport.ErrClosed)
	return wait(ctx, c.gone)
}

// wait waits for done, and longer than ctx allows for nothing.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// forget makes the broker forget the session of id: a clean one with the same id takes its place and ends.
func (c *conn) forget(ctx context.Context, id string) error {
	cl, err := open(ctx, c.settings, session{id: id, clean: true}, nil)
	if err != nil {
		return fmt.Errorf("remove session %q: %w", id, err)
	}
	cl.stop(nil)
	if why := cl.run(); !errors.Is(why, transport.ErrClosed) {
		return fmt.Errorf("remove session %q: %w", id, why)
	}
	return nil
}
