package wire

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// publish is a Publish stream, seen from the plugin. The handler sends confirms; a goroutine takes messages.
type publish struct {
	pub    transport.Publisher
	stream grpc.BidiStreamingServer[pb.PublishRequest, pb.PublishResponse]
}

// Publish serves the RPC of this name.
func (s *Server) Publish(stream grpc.BidiStreamingServer[pb.PublishRequest, pb.PublishResponse]) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return status.Error(codes.InvalidArgument, "the first request of Publish is not open")
	}
	c, err := s.conn(open.GetConnectionId())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	pub, err := c.Publish(ctx, sinkFromProto(open.GetSink()))
	if err != nil {
		return toStatus(err)
	}
	p := &publish{pub: pub, stream: stream}
	opened := &pb.PublishResponse{Kind: &pb.PublishResponse_Opened{Opened: &pb.PublishOpened{}}}
	err = stream.Send(opened)
	if err == nil {
		s.tasks.Go(func() { p.take(ctx, cancel) })
		err = p.confirm(ctx)
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil && stream.Context().Err() == nil {
			err = cause // why take has stopped
		}
	}
	closing, stop := context.WithTimeout(context.WithoutCancel(stream.Context()), closeTimeout)
	defer stop()
	closeErr := pub.Close(closing)
	switch {
	case errors.Is(err, io.EOF):
		if closeErr != nil && !errors.Is(closeErr, transport.ErrClosed) {
			return toStatus(closeErr)
		}
		return nil
	default:
		return toStatus(err)
	}
}

// lastConfirms is how long a publisher that has failed in Publish may take to report what was confirmed before.
const lastConfirms = time.Second

// take publishes what the gateway sends until the stream ends; then it ends ctx with the reason as its cause, io.EOF if the
// gateway has closed its side. While the driver takes no more it does not read, which is what holds the gateway back.
func (p *publish) take(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		req, err := p.stream.Recv()
		if err != nil {
			cancel(err)
			return
		}
		batch := req.GetBatch().GetMessages()
		if len(batch) == 0 {
			continue
		}
		msgs := make([]transport.Message, len(batch))
		for i, m := range batch {
			messageFromProto(m, &msgs[i])
		}
		if err := p.pub.Publish(ctx, msgs); err != nil {
			// Confirms ends by itself with the same reason, after what was confirmed before.
			sleep(lastConfirms, ctx.Done())
			cancel(err)
			return
		}
	}
}

// confirm sends what the publisher confirms until that or ctx ends.
func (p *publish) confirm(ctx context.Context) error {
	var pace pace
	for {
		cs, err := p.pub.Confirms(ctx)
		if err != nil {
			return err
		}
		frame := make([]*pb.Confirm, 0, len(cs))
		n := 0
		for _, c := range cs {
			n += int(c.Last-c.First) + 1
			if k := len(frame); k > 0 && c.Refused == nil && frame[k-1].GetRefused() == nil && frame[k-1].GetLast()+1 == c.First {
				frame[k-1].Last = c.Last
				continue
			}
			pc := &pb.Confirm{First: c.First, Last: c.Last}
			if c.Refused != nil {
				pc.Refused = &pb.Refusal{Cause: text(c.Refused.Error())}
			}
			frame = append(frame, pc)
		}
		for len(frame) > 0 {
			k := min(len(frame), maxConfirms)
			confirms := &pb.PublishResponse_Confirms{Confirms: &pb.Confirms{Confirms: frame[:k]}}
			if err := p.stream.Send(&pb.PublishResponse{Kind: confirms}); err != nil {
				return err
			}
			frame = frame[k:]
		}
		if d := pace.sent(n, time.Now()); d > 0 {
			sleep(d, ctx.Done())
		}
	}
}

// maxConfirms bounds the ranges of a frame, so that one of long causes stays below the size of a frame.
const maxConfirms = 1024
