package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// subscription is a Receive stream, seen from the gateway. It has two goroutines: read takes deliveries from the stream,
// write sends settlements and credit.
type subscription struct {
	conn   *conn
	stream grpc.BidiStreamingClient[pb.ReceiveRequest, pb.ReceiveResponse]
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu          sync.Mutex
	queue       []transport.Delivery // received, not handed out
	last        uint64               // number of the newest delivery received
	credit      transport.Credit     // granted and not used
	unsettled   int64
	settlements []transport.Settlement // not sent
	settled     int                    // deliveries in settlements
	grant       transport.Credit       // not sent
	closing     *pb.ReceiveClose       // asked for; nothing is sent after it
	err         error

	news chan struct{} // has an element when Receive should look again
	work chan struct{} // has an element when write should look again
	full chan struct{} // has an element when write need not pause
	gone chan struct{} // closed when the stream has ended
}

var _ transport.Subscription = (*subscription)(nil)

// maxUnsent bounds the settlements that wait to be sent. They merge, so that more mean a frozen plugin.
const maxUnsent = 1 << 16

// Subscribe implements [transport.Conn].
func (c *conn) Subscribe(ctx context.Context, src transport.Source) (transport.Subscription, error) {
	if err := c.ended(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opening := context.AfterFunc(ctx, cancel)
	stream, err := c.openReceive(life, src)
	if !opening() {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	s := &subscription{
		conn: c, stream: stream, cancel: cancel,
		news: make(chan struct{}, 1), work: make(chan struct{}, 1), full: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	s.tasks.Go(s.read)
	s.tasks.Go(s.write)
	if err := c.add(s); err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

func (c *conn) openReceive(life context.Context, src transport.Source) (
	grpc.BidiStreamingClient[pb.ReceiveRequest, pb.ReceiveResponse], error,
) {
	stream, err := c.client.Receive(life)
	if err != nil {
		return nil, fromStatus(err)
	}
	open := &pb.ReceiveOpen{ConnectionId: c.id, Source: sourceToProto(src)}
	// The error of Send is io.EOF when the stream has ended; Recv has the reason.
	if err := stream.Send(&pb.ReceiveRequest{Kind: &pb.ReceiveRequest_Open{Open: open}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, fromStatus(err)
	}
	resp, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the plugin ended Receive without a response")
	case err != nil:
		return nil, fromStatus(err)
	case resp.GetOpened() == nil:
		return nil, errors.New("the plugin's first response to Receive was not opened")
	}
	return stream, nil
}

func (s *subscription) read() {
	defer close(s.gone)
	defer s.cancel()
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			s.end(err)
			return
		}
		if p := resp.GetDeliveries(); p != nil {
			if err := s.take(p); err != nil {
				s.fail(err)
				s.conn.abandon(err)
				return
			}
		}
	}
}

// take puts deliveries into the queue, if the plugin was allowed to send them.
func (s *subscription) take(p *pb.Deliveries) error {
	n := len(p.GetMessages())
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	if p.GetFirst() != s.last+1 {
		s.mu.Unlock()
		return violation("delivery %d follows %d", p.GetFirst(), s.last)
	}
	if int64(n) > s.credit.Messages {
		s.mu.Unlock()
		return violation("%d deliveries for a credit of %d", n, s.credit.Messages)
	}
	for _, m := range p.GetMessages() {
		size := int64(len(m.GetBody()))
		if size > s.credit.Bytes && s.unsettled > 0 {
			s.mu.Unlock()
			return violation("a body of %d bytes for a credit of %d", size, s.credit.Bytes)
		}
		s.credit.Messages--
		s.credit.Bytes -= size
		s.unsettled++
	}
	s.last += uint64(n)
	s.mu.Unlock()

	// The numbers are reserved: nobody else appends, so that converting needs no lock.
	ds := make([]transport.Delivery, n)
	for i, m := range p.GetMessages() {
		ds[i].Seq = p.GetFirst() + uint64(i)
		messageFromProto(m, &ds[i].Message)
		if n := m.GetOversize(); n > 0 {
			ds[i].TooLarge = int64(min(n, math.MaxInt64))
		}
	}
	s.mu.Lock()
	if len(s.queue) == 0 {
		s.queue = ds
	} else {
		s.queue = append(s.queue, ds...)
	}
	s.mu.Unlock()
	wake(s.news)
	return nil
}

// end notes the end of the stream; the first reason counts.
func (s *subscription) end(err error) {
	s.mu.Lock()
	closing := s.closing != nil
	s.mu.Unlock()
	if closing && errors.Is(err, io.EOF) {
		err = transport.ErrClosed
	} else {
		err = ended(err)
	}
	s.fail(err)
}

func (s *subscription) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.queue = nil
	wake(s.news)
}

func (s *subscription) Receive(ctx context.Context) ([]transport.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		ds, err := s.queue, s.err
		if err == nil && s.closing != nil {
			err = transport.ErrClosed
		}
		if err == nil {
			s.queue = nil
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if len(ds) > 0 {
			return ds, nil
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *subscription) Grant(credit transport.Credit) error {
	if credit.Messages < 0 || credit.Bytes < 0 {
		return fmt.Errorf("grant: a credit of %d messages and %d bytes", credit.Messages, credit.Bytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	s.credit.Messages += credit.Messages
	s.credit.Bytes += credit.Bytes
	s.grant.Messages += credit.Messages
	s.grant.Bytes += credit.Bytes
	wake(s.work)
	return nil
}

func (s *subscription) usable() error {
	if s.err == nil && s.closing != nil {
		return transport.ErrClosed
	}
	return s.err
}

// Settle only notes the settlements; write sends them. It blocks when too many wait, which only a plugin that does not read
// can bring about.
func (s *subscription) Settle(ctx context.Context, settlements []transport.Settlement) error {
	for {
		s.mu.Lock()
		if err := s.usable(); err != nil {
			s.mu.Unlock()
			return err
		}
		if len(s.settlements) < maxUnsent {
			break
		}
		s.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		sleep(linger, s.gone)
	}
	defer s.mu.Unlock()
	for _, st := range settlements {
		if st.Outcome < transport.Ack || st.Outcome > transport.Reject {
			return fmt.Errorf("settle %d-%d: %s", st.First, st.Last, st.Outcome)
		}
		if st.First < 1 || st.Last < st.First || st.Last > s.last {
			return fmt.Errorf("settle %d-%d: deliveries are 1 to %d", st.First, st.Last, s.last)
		}
		n := int64(st.Last-st.First) + 1
		s.unsettled -= n
		s.settled += int(n)
		if k := len(s.settlements); k > 0 && s.settlements[k-1].Last+1 == st.First && s.settlements[k-1].Outcome == st.Outcome {
			s.settlements[k-1].Last = st.Last
		} else {
			s.settlements = append(s.settlements, st)
		}
	}
	wake(s.work)
	if s.settled >= frameMessages {
		wake(s.full)
	}
	return nil
}

func (s *subscription) write() {
	var pace pace
	for {
		select {
		case <-s.work:
		case <-s.gone:
			return
		}
		settlements, settled, grant, closing := s.unsent()
		if len(settlements) > 0 || grant != (transport.Credit{}) {
			if s.stream.Send(progress(settlements, grant)) != nil {
				return // read has the reason
			}
		}
		if closing != nil {
			_ = s.stream.Send(&pb.ReceiveRequest{Kind: &pb.ReceiveRequest_Close{Close: closing}})
			_ = s.stream.CloseSend()
			return
		}
		if d := pace.sent(settled, time.Now()); d > 0 {
			pause(d, s.full, s.gone)
		}
	}
}

// pause waits for d, or until there is a full frame, or until the stream has ended.
func pause(d time.Duration, full, gone <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-full:
	case <-gone:
	}
}

func (s *subscription) unsent() (settlements []transport.Settlement, settled int, grant transport.Credit, closing *pb.ReceiveClose) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settlements, settled, grant, closing = s.settlements, s.settled, s.grant, s.closing
	s.settlements, s.settled, s.grant = nil, 0, transport.Credit{}
	return settlements, settled, grant, closing
}

// progress returns the request for settlements, which it merges, and credit.
func progress(settlements []transport.Settlement, grant transport.Credit) *pb.ReceiveRequest {
	p := &pb.ReceiveProgress{}
	slices.SortStableFunc(settlements, func(a, b transport.Settlement) int { return cmp.Compare(a.First, b.First) })
	var last *pb.Settlement
	for _, st := range settlements {
		outcome := outcomeToProto(st.Outcome)
		if last != nil && last.Last+1 == st.First && last.Outcome == outcome {
			last.Last = st.Last
			continue
		}
		last = &pb.Settlement{First: st.First, Last: st.Last, Outcome: outcome}
		p.Settlements = append(p.Settlements, last)
	}
	if grant != (transport.Credit{}) {
		p.Grant = creditToProto(grant)
	}
	return &pb.ReceiveRequest{Kind: &pb.ReceiveRequest_Progress{Progress: p}}
}

// Close sends what was settled, and waits until the plugin has closed the subscription.
func (s *subscription) Close(ctx context.Context) error {
	return s.close(ctx, &pb.ReceiveClose{})
}

// Remove is Close, and removes what the broker keeps.
func (s *subscription) Remove(ctx context.Context) error {
	return s.close(ctx, &pb.ReceiveClose{Remove: true})
}

func (s *subscription) close(ctx context.Context, how *pb.ReceiveClose) error {
	ended := s.ask(how)
	var err error
	select {
	case <-s.gone:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.abort()
	switch {
	case err != nil:
		return err
	case ended && how.GetRemove():
		// It could not be asked for any more.
		return s.reason()
	case ended:
		return nil
	}
	if err := s.reason(); err != transport.ErrClosed { //nolint:errorlint // exactly that one means that all went well
		return err
	}
	return nil
}

// ask has write send a close, if there was none, and reports whether the stream has ended before.
func (s *subscription) ask(how *pb.ReceiveClose) (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing == nil {
		s.closing = how
	}
	s.queue = nil
	wake(s.work)
	wake(s.full)
	wake(s.news)
	return s.err != nil
}

func (s *subscription) finish() { s.ask(&pb.ReceiveClose{}) }

func (s *subscription) ended() <-chan struct{} { return s.gone }

func (s *subscription) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *subscription) abort() {
	s.cancel()
	s.tasks.Wait()
	s.conn.remove(s)
}
