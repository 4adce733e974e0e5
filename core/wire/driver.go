package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// Driver is a driver in another process: the half of the wire that is in the gateway.
type Driver struct {
	client pb.TransportServiceClient
}

// NewDriver returns the driver that is served at the other end of cc, which was made with [DialOptions]. It does not block.
// cc has to live as long as the driver and its connections.
func NewDriver(cc grpc.ClientConnInterface) *Driver {
	return &Driver{client: pb.NewTransportServiceClient(cc)}
}

var _ transport.Driver = (*Driver)(nil)

// Describe implements [transport.Driver].
func (d *Driver) Describe(ctx context.Context) (transport.Description, error) {
	resp, err := d.client.Describe(ctx, &pb.DescribeRequest{})
	if err != nil {
		return transport.Description{}, callError(ctx, err)
	}
	return descriptionFromProto(resp)
}

// Validate implements [transport.Driver].
func (d *Driver) Validate(ctx context.Context, req transport.ValidateRequest) (transport.ValidateResult, error) {
	resp, err := d.client.Validate(ctx, validateRequestToProto(req))
	if err != nil {
		return transport.ValidateResult{}, callError(ctx, err)
	}
	return validateResultFromProto(resp, req)
}

// Health asks whether the other process answers at all. It blocks until it does, or ctx ends.
func (d *Driver) Health(ctx context.Context) error {
	_, err := d.client.Health(ctx, &pb.HealthRequest{})
	return callError(ctx, err)
}

// Connect implements [transport.Driver]. The connection is also a [transport.Topology] if the one in the plugin is.
func (d *Driver) Connect(ctx context.Context, req transport.ConnectRequest) (transport.Conn, error) {
	// The stream is the life of the connection, which ctx does not bound. Its deadline must not get into the stream.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opening := context.AfterFunc(ctx, cancel)
	resp, stream, err := d.open(life, req)
	if !opening() {
		// ctx has ended, and with it the stream.
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	c := &conn{
		client: d.client, id: resp.GetConnectionId(), info: connInfoFromProto(resp), cancel: cancel, news: make(chan struct{}, 1),
		open: map[closer]struct{}{},
	}
	c.tasks.Go(func() {
		defer cancel()
		c.watch(stream)
	})
	if resp.GetTopology() {
		return &topologyConn{c}, nil
	}
	return c, nil
}

func (d *Driver) open(life context.Context, req transport.ConnectRequest) (
	*pb.Connected, grpc.ServerStreamingClient[pb.ConnectResponse], error,
) {
	stream, err := d.client.Connect(life, &pb.ConnectRequest{Name: valid(req.Name), Config: req.Config})
	if err != nil {
		return nil, nil, fromStatus(err)
	}
	resp, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil, errors.New("the plugin ended Connect without a response")
	case err != nil:
		return nil, nil, fromStatus(err)
	case resp.GetConnected() == nil:
		return nil, nil, errors.New("the plugin's first response to Connect was not connected")
	}
	return resp.GetConnected(), stream, nil
}

// conn is one life of a connection in a plugin.
type conn struct {
	client pb.TransportServiceClient
	id     string
	info   transport.ConnInfo
	cancel context.CancelFunc // ends the Connect stream
	tasks  sync.WaitGroup     // the goroutine that watches the Connect stream

	mu        sync.Mutex
	condition transport.Condition
	changed   bool  // since Next returned a condition
	err       error // why the connection has ended
	open      map[closer]struct{}
	news      chan struct{} // has an element when Next should look again
}

// closer is a stream of a connection.
type closer interface {
	// finish asks for the end of the stream, after what there is to send. It does not block.
	finish()
	// ended is closed when the stream has ended.
	ended() <-chan struct{}
	// abort ends the stream at once and returns when no goroutine of it is left.
	abort()
}

var _ transport.Conn = (*conn)(nil)

// watch reads the Connect stream to its end.
func (c *conn) watch(stream grpc.ServerStreamingClient[pb.ConnectResponse]) {
	for {
		resp, err := stream.Recv()
		if err != nil {
			c.end(ended(err))
			return
		}
		if p := resp.GetCondition(); p != nil {
			c.mu.Lock()
			if condition := conditionFromProto(p); condition != c.condition {
				c.condition, c.changed = condition, true
			}
			c.mu.Unlock()
			wake(c.news)
		}
	}
}

// end notes why the connection has ended; the first reason counts.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	wake(c.news)
}

// abandon ends the connection because the plugin does not keep to the contract on it.
func (c *conn) abandon(err error) {
	c.end(err)
	c.cancel()
}

func (c *conn) Info() transport.ConnInfo { return c.info }

func (c *conn) Next(ctx context.Context) (transport.Condition, error) {
	for {
		c.mu.Lock()
		condition, changed, err := c.condition, c.changed, c.err
		c.changed = false
		c.mu.Unlock()
		switch {
		case err != nil:
			return transport.Condition{}, err
		case changed:
			return condition, nil
		}
		select {
		case <-c.news:
		case <-ctx.Done():
			return transport.Condition{}, ctx.Err()
		}
	}
}

// ended returns why the connection has ended, or nil.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// add notes a stream that Close has to end. It returns an error when the connection has ended.
func (c *conn) add(s closer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.open[s] = struct{}{}
	return nil
}

func (c *conn) remove(s closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, s)
}

// Close asks the plugin to close the connection, so that the broker has heard of everything that was settled, and of the
// end, when Close returns. After that nothing is left of it here, whether or not the plugin has answered.
func (c *conn) Close(ctx context.Context) error {
	alive := c.ended() == nil
	c.end(transport.ErrClosed)
	open := c.streams()
	if alive {
		// Settlements go another way than Disconnect, which would overtake them.
		c.finish(ctx, open)
	}
	_, err := c.client.Disconnect(ctx, &pb.DisconnectRequest{ConnectionId: c.id})
	err = callError(ctx, err)
	if errors.Is(err, transport.ErrClosed) {
		err = nil // the plugin is gone, and the connection with it
	}
	c.cancel()
	c.tasks.Wait()
	for _, s := range open {
		s.abort()
	}
	return err
}

// finish lets the streams end in peace, for a while.
func (c *conn) finish(ctx context.Context, open []closer) {
	ctx, cancel := context.WithTimeout(ctx, 2*closeGrace)
	defer cancel()
	for _, s := range open {
		s.finish()
	}
	for _, s := range open {
		select {
		case <-s.ended():
		case <-ctx.Done():
			return
		}
	}
}

func (c *conn) streams() []closer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.open))
}

// topologyConn is a conn whose broker can route by itself.
type topologyConn struct{ *conn }

var _ transport.Topology = (*topologyConn)(nil)

func (c *topologyConn) Declare(ctx context.Context, place transport.Place) error {
	if err := c.ended(); err != nil {
		return err
	}
	_, err := c.client.Declare(ctx, &pb.DeclareRequest{ConnectionId: c.id, Place: placeToProto(place)})
	return callError(ctx, err)
}

func (c *topologyConn) Bind(ctx context.Context, b transport.Binding) error {
	if err := c.ended(); err != nil {
		return err
	}
	_, err := c.client.Bind(ctx, &pb.BindRequest{ConnectionId: c.id, Binding: bindingToProto(b)})
	return callError(ctx, err)
}

func (c *topologyConn) Unbind(ctx context.Context, b transport.Binding) error {
	if err := c.ended(); err != nil {
		return err
	}
	_, err := c.client.Unbind(ctx, &pb.UnbindRequest{ConnectionId: c.id, Binding: bindingToProto(b)})
	return callError(ctx, err)
}

// violation is the error of a connection on which the plugin has broken the contract.
func violation(format string, args ...any) error {
	return transport.Closed(fmt.Errorf("the plugin has broken the contract: "+format, args...))
}

// wake puts an element into c if there is none.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
