package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/flogate/flogate/core/coalesce"
	"github.com/flogate/flogate/core/transport"
)

const (
	// brokerKeepAlive is what we tell the broker: how long it lets us be silent (times 1.5). It is for our pauses and has
	// nothing to do with how soon we notice the broker's: a busy machine must not cost us the connection.
	brokerKeepAlive = 60 * time.Second
	// handTime bounds one attempt to hand a message to the library's writer, which may be waiting for the network.
	handTime = 500 * time.Millisecond
	// goodbyeTime is for the last acknowledgements and for the broker to hang up, stopTime for the end of the library's
	// goroutines after that.
	goodbyeTime = 1500 * time.Millisecond
	stopTime    = 5 * time.Second
)

// packet is what it takes to acknowledge a message.
type packet struct {
	id  uint16
	qos byte
}

// session says as whom a client connects.
type session struct {
	id string
	// clean: the broker shall forget what it has kept for this id, and keep nothing.
	clean bool
}

// client is one life of one MQTT client.
type client struct {
	paho  paho.Client
	link  *link
	ping  time.Duration
	lost  chan error    // has an element when the library has given up
	quit  chan struct{} // closed by stop
	work  chan struct{} // has an element when there are acknowledgements
	ended chan struct{} // closed when no goroutine of the library is left
	// resumed: the broker had a session of this id. Set by open.
	resumed bool

	mu   sync.Mutex
	acks []byte      // packets to be written
	why  error       // given to stop, or why the connection was lost
	bye  *time.Timer // set by stop: ends the link if peace takes too long

	spare []byte // run's alone: a buffer to be used again
}

// open connects. handle is called for each message, possibly before open returns, and must not block. The caller must
// call run for the client that is returned.
func open(ctx context.Context, s settings, as session, handle func(*client, paho.Message)) (*client, error) {
	l, err := dial(ctx, s)
	if err != nil {
		return nil, err
	}
	c := &client{
		link:  l,
		ping:  s.keepAlive,
		lost:  make(chan error, 1),
		quit:  make(chan struct{}),
		ended: make(chan struct{}),
		work:  make(chan struct{}, 1),
	}
	opts := paho.NewClientOptions()
	opts.Servers = []*url.URL{{Scheme: "tcp", Host: s.address}} // for the library's eyes only
	opts.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return c.link, nil })
	opts.SetClientID(as.id).SetCleanSession(as.clean).SetProtocolVersion(4)
	opts.SetUsername(s.username).SetPassword(s.password)
	// Only so do publish tokens tell the truth: with reconnecting, or a session, the library completes tokens of messages
	// that the broker never saw, or never completes them.
	opts.SetAutoReconnect(false).SetConnectRetry(false)
	opts.SetStore(noStore{})
	opts.SetOrderMatters(true).SetAutoAckDisabled(true)
	// The link pings, and watches over the answers.
	opts.SetKeepAlive(brokerKeepAlive).SetPingTimeout(1<<63 - 1)
	opts.SetConnectTimeout(handshakeTime).SetWriteTimeout(handTime)
	opts.SetConnectionLostHandler(func(_ paho.Client, err error) { c.lost <- err })
	opts.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		if handle != nil {
			handle(c, m)
		}
	})
	c.paho = paho.NewClient(opts)

	release := context.AfterFunc(ctx, func() { _ = c.link.fail(context.Cause(ctx)) })
	tok := c.paho.Connect()
	<-tok.Done() // bounded by the link's deadline, and by ctx
	if release(); ctx.Err() != nil && tok.Error() == nil {
		c.stop(nil)
		_ = c.run()
		return nil, ctx.Err()
	}
	if err := tok.Error(); err != nil {
		return nil, c.refusal(err)
	}
	c.resumed = tok.(*paho.ConnectToken).SessionPresent()
	return c, nil
}

// dial opens the connection under the client.
func dial(ctx context.Context, s settings) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	tcp, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := tcp
	if s.tls != nil {
		secure := tls.Client(tcp, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = tcp.Close() // the first error is the one to tell
			return nil, fmt.Errorf("connect to %s: %w", s.address, classifyTLS(err))
		}
		conn = secure
	}
	// The link reads much at a time by itself. Some brokers leave Nagle's algorithm on.
	conn = coalesce.Wrap(conn, coalesce.Options{ReadBuffer: 1, QuickAck: true})
	l := newLink(conn, tcp, 2*s.keepAlive)
	if err := conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, l.fail(err)
	}
	return l, nil
}

// classifyTLS marks what only another configuration can mend. An expired certificate of the broker is none of it.
func classifyTLS(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		record    tls.RecordHeaderError
		op        *net.OpError
	)
	switch {
	case errors.As(err, &authority), errors.As(err, &name):
		return transport.Permanent(err)
	case errors.As(err, &record):
		return transport.Permanentf("the broker does not speak TLS on this port: %w", err)
	case errors.As(err, &op) && op.Op == "remote error": // an alert, whose type the library keeps to itself
		return transport.Permanentf("the broker refused the TLS connection, perhaps for our certificate: %w", err)
	}
	return err
}

// refusal says why Connect failed. The library hides the reason of the network's end.
func (c *client) refusal(err error) error {
	switch {
	case errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return errors.New("the broker is not available at the moment")
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		return transport.Permanentf("the broker does not admit us (%w): check username, password and client_id", err)
	case errors.Is(err, packets.ErrorRefusedBadProtocolVersion), errors.Is(err, packets.ErrorRefusedIDRejected):
		return transport.Permanentf("the broker refused the connection: %w", err)
	}
	// The link knows why it ended; without a reason of its own this keeps the library's.
	return fmt.Errorf("connect: %w", classifyTLS(c.link.fail(err)))
}

// run serves the client until it is stopped or lost, and returns why, after the last goroutine of the library has ended.
func (c *client) run() error {
	defer close(c.ended)
	pings := time.NewTicker(c.ping)
	defer pings.Stop()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.bye != nil {
			c.bye.Stop()
		}
	}()
	for {
		select {
		case <-pings.C:
			_, _ = c.link.Write([]byte{typePingreq, 0}) // a failure ends the link
		case <-c.work:
			c.flush()
		case <-c.link.down:
			return c.because(c.gone())
		case <-c.quit:
			c.flush()
			c.link.leave()
			_ = c.gone() // we know why
			return c.because(transport.ErrClosed)
		}
	}
}

// because keeps the first reason for the end and returns it.
func (c *client) because(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		c.why = err
	}
	return c.why
}

// stop makes run end with a reason, after the acknowledgements that are due if they can be written within goodbyeTime. It
// does not block. Only the first counts.
func (c *client) stop(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bye != nil {
		return
	}
	c.bye = time.AfterFunc(goodbyeTime, func() { _ = c.link.fail(errGone) }) // also when run waits for a write
	if c.why == nil {
		c.why = why
	}
	close(c.quit)
}

// gone waits until nothing of the library is left, and returns why the link has ended. The library reports the end of a
// link as a loss. Should it not, its Disconnect, which returns early, has to be called twice: the second call waits for the
// first to be done.
func (c *client) gone() error {
	patience := time.NewTimer(goodbyeTime + stopTime)
	defer patience.Stop()
	select {
	case err := <-c.lost:
		if why := c.link.fail(err); !errors.Is(why, net.ErrClosed) {
			return why
		}
		return err // the library has closed the link, and this is why
	case <-patience.C:
		c.paho.Disconnect(0)
		c.paho.Disconnect(uint(stopTime / time.Millisecond))
		return c.link.fail(errGone)
	}
}

// ack makes run acknowledge packets soon, in this order. Those that come together leave in one write, past the library,
// which would take each through three goroutines and a system call.
func (c *client) ack(ps ...packet) {
	c.mu.Lock()
	for _, p := range ps {
		c.acks = appendAck(c.acks, p)
	}
	due := len(c.acks) > 0
	c.mu.Unlock()
	if due {
		select {
		case c.work <- struct{}{}:
		default:
		}
	}
}

func (c *client) flush() {
	c.mu.Lock()
	acks := c.acks
	c.acks = c.spare[:0]
	c.mu.Unlock()
	if len(acks) > 0 {
		_, _ = c.link.Write(acks) // a failure ends the link
	}
	c.spare = acks
}

// noStore keeps nothing: a client has one life, and what it did not get through is sent again by the caller.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
