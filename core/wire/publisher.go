package wire

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// publisher is a Publish stream, seen from the gateway. It has two goroutines: write sends messages, read takes confirms.
type publisher struct {
	conn   *conn
	stream grpc.BidiStreamingClient[pb.PublishRequest, pb.PublishResponse]
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu        sync.Mutex
	unsent    []outgoing
	bytes     int       // of unsent
	given     uint64    // messages that Publish has taken
	accepted  uint64    // of these, those that go over the wire
	sent      uint64    // of these, those that were given to the stream
	confirmed uint64    // of these, those that the plugin has spoken of
	numbers   numbering // given ↔ accepted
	refused   []refusal // not yet reported, ascending; what is not sent
	confirms  []transport.Confirm
	closing   bool
	err       error

	news chan struct{} // has an element when Confirms should look again
	room chan struct{} // has an element when Publish should look again
	work chan struct{} // has an element when write should look again
	full chan struct{} // has an element when write need not pause
	gone chan struct{} // closed when the stream has ended
}

var _ transport.Publisher = (*publisher)(nil)

// outgoing is a message with its size on the wire, or a little more.
type outgoing struct {
	message *pb.Message
	size    int
}

// refusal is a message that is not sent.
type refusal struct {
	number   uint64 // as given
	accepted uint64 // how many messages before it go over the wire
	cause    error
}

// What Publish takes before it blocks: enough to make a frame of while another is being sent.
const (
	maxUnsentMessages = 2 * frameMessages
	maxUnsentBytes    = 2 * frameBytes
)

// Publish implements [transport.Conn].
func (c *conn) Publish(ctx context.Context, sink transport.Sink) (transport.Publisher, error) {
	if err := c.ended(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opening := context.AfterFunc(ctx, cancel)
	stream, err := c.openPublish(life, sink)
	if !opening() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	p := &publisher{
		conn: c, stream: stream, cancel: cancel,
		news: make(chan struct{}, 1), room: make(chan struct{}, 1), work: make(chan struct{}, 1), full: make(chan struct{}, 1),
		gone: make(chan struct{}),
	}
	p.tasks.Go(p.read)
	p.tasks.Go(p.write)
	if err := c.add(p); err != nil {
		p.abort()
		return nil, err
	}
	return p, nil
}

func (c *conn) openPublish(life context.Context, sink transport.Sink) (
	grpc.BidiStreamingClient[pb.PublishRequest, pb.PublishResponse], error,
) {
	stream, err := c.client.Publish(life)
	if err != nil {
		return nil, fromStatus(err)
	}
	open := &pb.PublishOpen{ConnectionId: c.id, Sink: sinkToProto(sink)}
	if err := stream.Send(&pb.PublishRequest{Kind: &pb.PublishRequest_Open{Open: open}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, fromStatus(err)
	}
	resp, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the plugin ended Publish without a response")
	case err != nil:
		return nil, fromStatus(err)
	case resp.GetOpened() == nil:
		return nil, errors.New("the plugin's first response to Publish was not opened")
	}
	return stream, nil
}

// Publish implements [transport.Publisher]. A message that is too large for the wire is reported as refused in its turn.
func (p *publisher) Publish(ctx context.Context, msgs []transport.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for len(msgs) > 0 {
		n := min(len(msgs), frameMessages)
		if err := p.give(ctx, msgs[:n]); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// give hands a frame's worth of messages at most to write. Converting them here keeps that off the goroutine that sends.
func (p *publisher) give(ctx context.Context, msgs []transport.Message) error {
	var causes map[int]error
	for i := range msgs {
		if err := tooLarge(&msgs[i]); err != nil {
			if causes == nil {
				causes = map[int]error{}
			}
			causes[i] = err
		}
	}
	batch := messagesToProto(len(msgs), func(i int) *transport.Message { return &msgs[i] })
	for i, m := range batch {
		if err := p.makeRoom(ctx); err != nil {
			return err
		}
		p.given++
		if cause := causes[i]; cause != nil {
			p.numbers.skip(p.given)
			p.refused = append(p.refused, refusal{number: p.given, accepted: p.accepted, cause: cause})
			p.report()
		} else {
			p.accepted++
			o := outgoing{message: m, size: len(m.GetBody()) + metaSize(&msgs[i])}
			p.unsent = append(p.unsent, o)
			p.bytes += o.size
		}
		p.mu.Unlock()
	}
	wake(p.work)
	return nil
}

// makeRoom returns with the lock held when there is room for one more message.
func (p *publisher) makeRoom(ctx context.Context) error {
	for {
		p.mu.Lock()
		switch {
		case p.err != nil:
			defer p.mu.Unlock()
			return p.err
		case p.closing:
			p.mu.Unlock()
			return transport.ErrClosed
		case len(p.unsent) < maxUnsentMessages && p.bytes < maxUnsentBytes:
			return nil
		}
		p.mu.Unlock()
		wake(p.work)
		wake(p.full)
		select {
		case <-p.room:
		case <-p.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *publisher) write() {
	var pace pace
	for {
		select {
		case <-p.work:
		case <-p.gone:
			return
		}
		sent := 0
		for {
			batch := p.frame()
			if len(batch) == 0 {
				break
			}
			sent += len(batch)
			if p.stream.Send(&pb.PublishRequest{Kind: &pb.PublishRequest_Batch{Batch: &pb.MessageBatch{Messages: batch}}}) != nil {
				return // read has the reason
			}
		}
		if p.isClosing() {
			_ = p.stream.CloseSend()
			return
		}
		if sent == 0 {
			continue
		}
		if d := pace.sent(sent, time.Now()); d > 0 {
			pause(d, p.full, p.gone)
		}
	}
}

func (p *publisher) isClosing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

// frame takes the messages of the next frame.
func (p *publisher) frame() []*pb.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, bytes := 0, 0
	for n < len(p.unsent) && n < frameMessages {
		size := p.unsent[n].size
		if n > 0 && bytes+size > frameBytes {
			break
		}
		bytes += size
		n++
	}
	if n == 0 {
		p.unsent = nil
		return nil
	}
	batch := make([]*pb.Message, n)
	for i := range batch {
		batch[i] = p.unsent[i].message
		p.unsent[i] = outgoing{} // what is sent need not be kept
	}
	p.unsent = p.unsent[n:]
	p.bytes -= bytes
	p.sent += uint64(n)
	wake(p.room)
	return batch
}

func (p *publisher) read() {
	defer close(p.gone)
	defer p.cancel()
	for {
		resp, err := p.stream.Recv()
		if err != nil {
			p.fail(ended(err))
			return
		}
		if cs := resp.GetConfirms(); cs != nil {
			if err := p.take(cs); err != nil {
				p.fail(err)
				p.conn.abandon(err)
				return
			}
		}
	}
}

// take notes the confirms, as far as they are about what was sent.
func (p *publisher) take(cs *pb.Confirms) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cs.GetConfirms() {
		if c.GetFirst() != p.confirmed+1 || c.GetLast() < c.GetFirst() || c.GetLast() > p.sent {
			return violation("confirm of %d-%d where %d-%d are out", c.GetFirst(), c.GetLast(), p.confirmed+1, p.sent)
		}
		var refused error
		if r := c.GetRefused(); r != nil {
			refused = transport.Permanent(errors.New(text(cmp.Or(r.GetCause(), "refused by the broker"))))
		}
		// What is not sent is reported in its turn, between the ranges around it.
		first := c.GetFirst()
		for len(p.refused) > 0 && p.refused[0].accepted < c.GetLast() {
			p.confirmed = p.refused[0].accepted
			if first <= p.confirmed {
				p.confirm(first, p.confirmed, refused)
				first = p.confirmed + 1
			}
			p.report()
		}
		p.confirmed = c.GetLast()
		p.confirm(first, c.GetLast(), refused)
	}
	p.report()
	wake(p.news)
	return nil
}

// confirm notes news of a range of numbers on the wire that stands for a range without gaps here.
func (p *publisher) confirm(first, last uint64, refused error) {
	c := transport.Confirm{First: p.numbers.local(first), Last: p.numbers.local(last), Refused: refused}
	if n := len(p.confirms); n > 0 && refused == nil && p.confirms[n-1].Refused == nil {
		p.confirms[n-1].Last = c.Last
		return
	}
	p.confirms = append(p.confirms, c)
}

// report notes the refusals whose turn has come: everything before them has been spoken of.
func (p *publisher) report() {
	for len(p.refused) > 0 && p.refused[0].accepted <= p.confirmed {
		r := p.refused[0]
		p.refused = p.refused[1:]
		p.confirms = append(p.confirms, transport.Confirm{First: r.number, Last: r.number, Refused: r.cause})
		wake(p.news)
	}
}

// fail notes why the publisher has ended; the first reason counts.
func (p *publisher) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	wake(p.news)
	wake(p.room)
}

// Confirms implements [transport.Publisher].
func (p *publisher) Confirms(ctx context.Context) ([]transport.Confirm, error) {
	for {
		p.mu.Lock()
		cs, err := p.confirms, p.err
		p.confirms = nil
		if err == nil && p.closing {
			err = transport.ErrClosed
		}
		p.mu.Unlock()
		if len(cs) > 0 {
			return cs, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-p.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// closeGrace is how long Close waits for a plugin to close its publisher by itself. A driver that blocks because its broker
// takes no more does not see the end of the stream before it; it sees the cancellation.
const closeGrace = time.Second

// Close ends the stream and waits until the plugin has closed its publisher, closeGrace at most.
func (p *publisher) Close(ctx context.Context) error {
	p.finish()
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	var err error
	select {
	case <-p.gone:
	case <-grace.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.abort()
	return err
}

// finish forgets what is not sent, and has write end the stream.
func (p *publisher) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.unsent, p.bytes = nil, 0
	wake(p.news)
	wake(p.room)
	wake(p.work)
	wake(p.full)
}

func (p *publisher) ended() <-chan struct{} { return p.gone }

func (p *publisher) abort() {
	p.cancel()
	p.tasks.Wait()
	p.conn.remove(p)
}
