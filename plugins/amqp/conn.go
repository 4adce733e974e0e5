package amqp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
)

// conn is a transport.Conn and a transport.Topology.
type conn struct {
	log      *slog.Logger
	settings settings
	name     string
	info     transport.ConnInfo
	consume  *link

	dialing chan struct{} // held while the second link is opened

	mu       sync.Mutex
	publish  *link
	err      error // set by the end
	cond     transport.Condition
	told     transport.Condition // what Next has returned last
	flowing  chan struct{}       // closed while publishers may write
	members  map[member]struct{}
	news     chan struct{} // has an element when Next should look again
	done     chan struct{} // closed by the end
	running  sync.WaitGroup
	blocked  atomic.Bool  // cond.Blocked, for the publishers' way of every message
	maxBody  atomic.Int64 // the largest body that the broker takes, as far as known
	maxProps int          // the largest header frame's payload
}

// member is a subscription or a publisher.
type member interface{ fail(reason error) }

func open(ctx context.Context, log *slog.Logger, name string, s settings) (*conn, error) {
	l, err := dial(ctx, s, name+" (consumer)")
	if err != nil {
		return nil, err
	}
	c := &conn{
		log: log, settings: s, name: name, consume: l,
		dialing: make(chan struct{}, 1),
		flowing: make(chan struct{}),
		members: make(map[member]struct{}),
		news:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	close(c.flowing)
	c.maxBody.Store(s.maxMessage)
	c.maxProps = s.frameSize
	if n := l.conn.Config.FrameSize; n > 0 {
		c.maxProps = n
	}
	c.info = learn(l.conn, s)
	if confirms, _ := capability(l.conn, "publisher_confirms"); !confirms {
		c.info.Warnings = append(c.info.Warnings, "The broker does not announce publisher confirms: publishing to it will fail.")
	}
	c.running.Go(func() { c.end(l.watch(func(amqp091.Blocking) {})) })
	return c, nil
}

// learn makes ConnInfo of what the broker said in its greeting.
func learn(conn *amqp091.Connection, s settings) transport.ConnInfo {
	product, _ := conn.Properties["product"].(string)
	release, _ := conn.Properties["version"].(string)
	info := transport.ConnInfo{MaxBody: s.maxMessage}
	if product != "" {
		info.Product = product + " " + release
	}
	capabilities, _ := conn.Properties["capabilities"].(amqp091.Table)
	for _, name := range slices.Sorted(maps.Keys(capabilities)) {
		if has, _ := capabilities[name].(bool); has {
			info.Features = append(info.Features, name)
		}
	}
	return info
}

func capability(conn *amqp091.Connection, name string) (has, known bool) {
	capabilities, _ := conn.Properties["capabilities"].(amqp091.Table)
	has, known = capabilities[name].(bool)
	return has, known
}

func (c *conn) Info() transport.ConnInfo { return c.info }

func (c *conn) Next(ctx context.Context) (transport.Condition, error) {
	for {
		c.mu.Lock()
		cond, err := c.cond, c.err
		changed := cond != c.told
		c.told = cond
		c.mu.Unlock()
		if err != nil {
			return transport.Condition{}, err
		}
		if changed {
			return cond, nil
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			return transport.Condition{}, ctx.Err()
		}
	}
}

func (c *conn) Close(ctx context.Context) error {
	c.end(nil)
	return c.wait(ctx, &c.running)
}

// wait waits until group is done or ctx has ended.
func (*conn) wait(ctx context.Context, group *sync.WaitGroup) error {
	idle := make(chan struct{})
	go func() { // ends with the group, which ends with the connection
		group.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends everything once, and says goodbye in the background.
func (c *conn) end(reason error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = transport.Closed(reason)
	members := slices.Collect(maps.Keys(c.members))
	for _, l := range []*link{c.consume, c.publish} {
		if l != nil {
			c.running.Go(l.close)
		}
	}
	close(c.done)
	c.mu.Unlock()
	for _, m := range members {
		m.fail(c.err)
	}
	wake(c.news)
}

// ended is the reason of the end, nil before.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// spawn runs f in a goroutine that Close waits for, unless the connection has ended.
func (c *conn) spawn(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.running.Go(f)
	return nil
}

// join makes m end with the connection, or returns why it has ended already.
func (c *conn) join(m member) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.members[m] = struct{}{}
	return nil
}

func (c *conn) leave(m member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, m)
}

// setBlocked is told by the publishing link.
func (c *conn) setBlocked(b amqp091.Blocking) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.Active && !c.cond.Blocked:
		c.flowing = make(chan struct{})
	case !b.Active && c.cond.Blocked:
		close(c.flowing)
	}
	c.cond = transport.Condition{Blocked: b.Active, Reason: b.Reason}
	c.blocked.Store(b.Active)
	wake(c.news)
}

// clear returns a channel that is closed while the broker lets us publish.
func (c *conn) clear() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flowing
}

// publishing returns the link for publishing, and opens it for the first that asks.
func (c *conn) publishing(ctx context.Context) (*link, error) {
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-c.done:
		return nil, c.ended()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	l, err := c.publish, c.err
	c.mu.Unlock()
	if l != nil || err != nil {
		return l, err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.spawn(func() {
		select {
		case <-c.done:
			cancel()
		case <-ctx.Done():
		}
	}); err != nil {
		return nil, err
	}
	l, err = dial(ctx, c.settings, c.name+" (publisher)")
	if err != nil {
		return nil, errors.Join(c.ended(), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		c.mu.Unlock()
		l.close()
		c.mu.Lock()
		return nil, c.err
	}
	c.publish = l
	c.running.Go(func() { c.end(l.watch(c.setBlocked)) })
	return l, nil
}

// await runs f, which waits for the broker and ends with the connection, until ctx ends. A result that nobody waits for
// any more is given to undo.
func await[T any](ctx context.Context, c *conn, f func() (T, error), undo func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	results := make(chan result)
	if err := c.spawn(func() {
		v, err := f()
		select {
		case results <- result{v, err}:
		case <-ctx.Done():
			if err == nil {
				undo(v)
			}
		}
	}); err != nil {
		return none, err
	}
	select {
	case r := <-results:
		if r.err != nil {
			if err := c.ended(); err != nil {
				return none, err
			}
			return none, said(r.err)
		}
		return r.value, nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// try runs f on a channel of its own on the consuming link, which no alarm blocks. A question that is answered with no
// closes the channel.
func (c *conn) try(ctx context.Context, f func(ch *amqp091.Channel) error) error {
	type nothing struct{}
	_, err := await(ctx, c, func() (nothing, error) {
		ch, err := c.consume.conn.Channel()
		if err != nil {
			return nothing{}, err
		}
		defer ch.Close()
		return nothing{}, f(ch)
	}, func(nothing) {})
	return err
}

// exists asks whether something is there; ask is a passive declaration.
func (c *conn) exists(ctx context.Context, ask func(ch *amqp091.Channel) error) (bool, error) {
	switch err := c.try(ctx, ask); {
	case err == nil:
		return true, nil
	case code(err) == amqp091.NotFound:
		return false, nil
	case code(err) == amqp091.ResourceLocked:
		// An exclusive queue of another connection: it is there, and not for us.
		return false, fmt.Errorf("in use by another connection only: %w", err)
	default:
		return false, err
	}
}

func (c *conn) queueExists(ctx context.Context, name string) (bool, error) {
	return c.exists(ctx, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
}

func (c *conn) exchangeExists(ctx context.Context, name string) (bool, error) {
	return c.exists(ctx, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp091.ExchangeFanout, true, false, false, false, nil)
	})
}

func wake(news chan struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}
