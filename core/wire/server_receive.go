package wire

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// receive is a Receive stream, seen from the plugin. The handler sends deliveries; a goroutine takes what the gateway sends.
type receive struct {
	sub    transport.Subscription
	stream grpc.BidiStreamingServer[pb.ReceiveRequest, pb.ReceiveResponse]

	mu   sync.Mutex
	sent uint64           // deliveries that went over the wire
	cut  map[uint64]int64 // body bytes of deliveries that went without, and are unsettled
	end  end
}

// end is why a stream shall end.
type end struct {
	noted  bool
	close  bool // the gateway has asked for it
	remove bool
	err    error
}

// Receive serves the RPC of this name.
func (s *Server) Receive(stream grpc.BidiStreamingServer[pb.ReceiveRequest, pb.ReceiveResponse]) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return status.Error(codes.InvalidArgument, "the first request of Receive is not open")
	}
	c, err := s.conn(open.GetConnectionId())
	if err != nil {
		return err
	}
	sub, err := c.Subscribe(ctx, sourceFromProto(open.GetSource()))
	if err != nil {
		return toStatus(err)
	}
	r := &receive{sub: sub, stream: stream}
	opened := &pb.ReceiveResponse{Kind: &pb.ReceiveResponse_Opened{Opened: &pb.ReceiveOpened{}}}
	if err := stream.Send(opened); err != nil {
		r.note(end{err: err})
	} else {
		s.tasks.Go(func() {
			defer cancel()
			r.note(r.listen(ctx))
		})
		r.note(end{err: r.deliver(ctx)})
	}
	return r.close(stream.Context())
}

// note notes why the stream shall end; the first reason counts.
func (r *receive) note(e end) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.end.noted {
		r.end = e
		r.end.noted = true
	}
}

// listen takes settlements and credit until the stream ends.
func (r *receive) listen(ctx context.Context) end {
	for {
		req, err := r.stream.Recv()
		if err != nil {
			// The gateway has closed its side, or has gone: both are a close.
			return end{close: true, err: ignoreEOF(err)}
		}
		switch k := req.GetKind().(type) {
		case *pb.ReceiveRequest_Progress:
			if err := r.progress(ctx, k.Progress); err != nil {
				return end{err: err}
			}
		case *pb.ReceiveRequest_Close:
			return end{close: true, remove: k.Close.GetRemove()}
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// progress passes on settlements and then credit.
func (r *receive) progress(ctx context.Context, p *pb.ReceiveProgress) error {
	c := creditFromProto(p.GetGrant())
	if n := len(p.GetSettlements()); n > 0 {
		settlements := make([]transport.Settlement, 0, n)
		r.mu.Lock()
		for _, s := range p.GetSettlements() {
			st := settlementFromProto(s)
			if st.First < 1 || st.Last < st.First || st.Last > r.sent {
				r.mu.Unlock()
				return transport.Permanentf("settle %d-%d: deliveries are 1 to %d", st.First, st.Last, r.sent)
			}
			settlements = append(settlements, st)
			// The driver has counted a body that the gateway has not seen, and does not give credit for.
			for number, size := range r.cut {
				if st.First <= number && number <= st.Last {
					c.Bytes += size
					delete(r.cut, number)
				}
			}
		}
		r.mu.Unlock()
		if err := r.sub.Settle(ctx, settlements); err != nil {
			return err
		}
	}
	if c != (transport.Credit{}) {
		if c.Messages < 0 || c.Bytes < 0 {
			return transport.Permanentf("a credit of %d messages and %d bytes", c.Messages, c.Bytes)
		}
		return r.sub.Grant(c)
	}
	return nil
}

// deliver sends what the subscription has until that or ctx ends.
func (r *receive) deliver(ctx context.Context) error {
	var pace pace
	for {
		ds, err := r.sub.Receive(ctx)
		if err != nil {
			return err
		}
		n := len(ds)
		for len(ds) > 0 {
			var frame *pb.ReceiveResponse
			frame, ds = r.frame(ds)
			if err := r.stream.Send(frame); err != nil {
				return err
			}
		}
		if d := pace.sent(n, time.Now()); d > 0 {
			sleep(d, ctx.Done())
		}
	}
}

// frame makes a frame of the first deliveries of ds, as many as fit, and returns the others. What is too large for the wire
// goes without: to reject it here would be to lose it where nobody sees it, and to release it would have the broker send it
// again for ever.
func (r *receive) frame(ds []transport.Delivery) (*pb.ReceiveResponse, []transport.Delivery) {
	n, bytes := 0, 0
	for n < len(ds) && n < frameMessages {
		m := &ds[n].Message
		if tooLarge(m) != nil {
			r.strip(&ds[n])
		}
		size := len(m.Body) + metaSize(m)
		if n > 0 && bytes+size > frameBytes {
			break
		}
		bytes += size
		n++
	}
	r.mu.Lock()
	first := r.sent + 1
	r.sent += uint64(n)
	r.mu.Unlock()
	messages := messagesToProto(n, func(i int) *transport.Message { return &ds[i].Message })
	for i, m := range messages {
		m.Oversize = uint64(ds[i].TooLarge)
	}
	frame := &pb.ReceiveResponse_Deliveries{Deliveries: &pb.Deliveries{First: first, Messages: messages}}
	return &pb.ReceiveResponse{Kind: frame}, ds[n:]
}

// strip is cut, and notes what the driver has counted for the body.
func (r *receive) strip(d *transport.Delivery) {
	size := int64(len(d.Body))
	cut(d)
	if size -= int64(len(d.Body)); size == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut == nil {
		r.cut = make(map[uint64]int64)
	}
	r.cut[d.Seq] = size
}

// close closes the subscription and returns the status of the stream.
func (r *receive) close(ctx context.Context) error {
	r.mu.Lock()
	e := r.end
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var err error
	if e.remove {
		err = r.sub.Remove(ctx)
	} else {
		err = r.sub.Close(ctx)
	}
	switch {
	case !e.close:
		return toStatus(e.err)
	case err != nil && !errors.Is(err, transport.ErrClosed):
		return toStatus(err)
	}
	return nil
}
