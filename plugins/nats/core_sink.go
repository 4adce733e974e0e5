package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/flogate/flogate/core/transport"
)

// corePublisher publishes to core subjects. What it reports as confirmed has been read by the server, which a flush tells;
// whether anybody listened nobody knows.
type corePublisher struct {
	conn    *conn
	address string
	window  int
	outbox  *transport.Outbox
	sent    chan uint64 // the last number that was sent; has one element at most
	stop    context.CancelFunc
	ended   chan struct{}

	mu     sync.Mutex
	denied map[string]error // subjects that the server forbids, of those that were used
}

func (c *conn) publishCore(_ context.Context, sink transport.Sink, o sinkOptions) (transport.Publisher, error) {
	p := &corePublisher{
		conn:    c,
		address: sink.Address,
		window:  o.window(),
		outbox:  transport.NewOutbox(o.window()),
		sent:    make(chan uint64, 1),
		ended:   make(chan struct{}),
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	err := c.add(p, func() {
		defer close(p.ended)
		p.confirm(ctx)
	})
	if err != nil {
		stop()
		return nil, err
	}
	return p, nil
}

func (o sinkOptions) window() int {
	if o.Window > 0 {
		return o.Window
	}
	return defaultWindow
}

func (p *corePublisher) Publish(ctx context.Context, msgs []transport.Message) error {
	var last uint64
	defer func() {
		if last > 0 {
			p.flushTo(last)
		}
	}()
	for i := range msgs {
		m := &msgs[i]
		if last > 0 && p.outbox.Unconfirmed() >= p.window {
			// Reserve waits for room, which only a flush of what is sent here makes.
			p.flushTo(last)
		}
		n, err := p.outbox.Reserve(ctx)
		if err != nil {
			return err
		}
		msg, err := p.message(m)
		if err == nil {
			err = transport.Permanent(p.deniedTo(msg.Subject))
		}
		if err == nil {
			err = p.conn.nc.PublishMsg(msg)
		}
		if err != nil {
			if refused := refusal(err); refused != nil {
				p.outbox.Done(n, n, refused)
				continue
			}
			err = p.conn.failure(err)
			p.outbox.Fail(err)
			return err
		}
		last = n
	}
	return nil
}

func (p *corePublisher) message(m *transport.Message) (*nats.Msg, error) {
	subject, err := subjectOf(p.address, m)
	if err != nil {
		return nil, err
	}
	native := validSubject(m.ReplyTo)
	msg := &nats.Msg{Subject: subject, Data: m.Body, Header: encode(m, !native)}
	if native {
		msg.Reply = m.ReplyTo
	}
	return msg, nil
}

// subjectOf is where a message goes: to the address of the sink, or to its own.
func subjectOf(address string, m *transport.Message) (string, error) {
	if address != "" {
		return address, nil
	}
	if err := checkSubject(m.Address, false); err != nil {
		return "", transport.Permanent(err)
	}
	return m.Address, nil
}

// refusal is err when sending the message again is of no use, and nothing else is wrong.
func refusal(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("larger than the server takes: %w", err)
	}
	if errors.Is(err, nats.ErrBadSubject) || errors.Is(err, nats.ErrHeadersNotSupported) || transport.IsPermanent(err) {
		return err
	}
	return nil
}

// flushTo wakes confirm.
func (p *corePublisher) flushTo(n uint64) {
	select {
	case <-p.sent: // an older number
	default:
	}
	p.sent <- n // only Publish sends: there is room
}

// confirm flushes what was sent, and reports it, until ctx ends. While one flush is under way more is sent for the next.
func (p *corePublisher) confirm(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-p.sent:
			if err := p.conn.flush(ctx); err != nil {
				p.outbox.Fail(err)
				return
			}
			p.outbox.Done(1, n, p.deniedTo(p.address))
		}
	}
}

func (p *corePublisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	return p.outbox.Confirms(ctx)
}

func (p *corePublisher) fail(reason error) {
	p.outbox.Fail(reason)
	p.stop()
}

// maxDenied bounds the subjects that are remembered as forbidden.
const maxDenied = 1024

// forbidden remembers the subject. Where each message goes to its own, the server may have said that to another publisher;
// then it is as true for this one.
func (p *corePublisher) forbidden(err error) {
	subject, ok := forbiddenSubject(err)
	if !ok || p.address != "" && p.address != subject {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.denied == nil || len(p.denied) >= maxDenied {
		p.denied = make(map[string]error)
	}
	p.denied[subject] = err
}

// deniedTo returns the server's word on a subject that it forbids.
func (p *corePublisher) deniedTo(subject string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.denied[subject]
}

func (p *corePublisher) Close(ctx context.Context) error {
	p.fail(nil)
	p.conn.remove(p)
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
