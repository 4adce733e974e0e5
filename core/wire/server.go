package wire

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flogate/flogate/core/transport"
	pb "github.com/flogate/flogate/proto/flogate/transport/v1"
)

// Server serves a driver: the half of the wire that is in the plugin.
type Server struct {
	pb.UnimplementedTransportServiceServer
	driver transport.Driver
	nextID atomic.Uint64
	tasks  sync.WaitGroup // goroutines of streams that outlive their handlers

	mu       sync.Mutex
	conns    map[string]*serverConn
	handlers int  // RPCs that hold something of the driver
	closing  bool // no more of them
	idle     chan struct{}
}

// serverConn is a connection of the driver.
type serverConn struct {
	transport.Conn
	once sync.Once
	err  error // of Close
}

// Register adds d to a gRPC server that was made with [ServerOptions]. When the gateway goes, gRPC ends its streams, and with
// them the connections; Wait says when the last is closed.
func Register(r grpc.ServiceRegistrar, d transport.Driver) *Server {
	s := &Server{driver: d, conns: map[string]*serverConn{}, idle: make(chan struct{})}
	pb.RegisterTransportServiceServer(r, s)
	return s
}

// Wait blocks until every connection of the driver is closed and no goroutine of the Server is left, or ctx ends. Calls that
// come after it fail. The gRPC server has to be stopped before, so that the streams end.
func (s *Server) Wait(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	if first && s.handlers == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
		s.tasks.Wait()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close connections: %w", ctx.Err())
	}
}

// enter counts a handler that Wait has to wait for.
func (s *Server) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, status.Error(codes.Unavailable, "the plugin is about to end")
	}
	s.handlers++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.handlers--
		if s.closing && s.handlers == 0 {
			close(s.idle)
		}
	}, nil
}

// Describe serves the RPC of this name.
func (s *Server) Describe(ctx context.Context, _ *pb.DescribeRequest) (*pb.DescribeResponse, error) {
	d, err := s.driver.Describe(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return descriptionToProto(d), nil
}

// Validate serves the RPC of this name.
func (s *Server) Validate(ctx context.Context, req *pb.ValidateRequest) (*pb.ValidateResponse, error) {
	r, err := s.driver.Validate(ctx, validateRequestFromProto(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return validateResultToProto(r), nil
}

// Health serves the RPC of this name.
func (s *Server) Health(context.Context, *pb.HealthRequest) (*pb.HealthResponse, error) {
	return &pb.HealthResponse{}, nil
}

// Connect serves the RPC of this name: it holds the connection for as long as the stream lives.
func (s *Server) Connect(req *pb.ConnectRequest, stream grpc.ServerStreamingServer[pb.ConnectResponse]) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx := stream.Context()
	opened, err := s.driver.Connect(ctx, transport.ConnectRequest{Name: req.GetName(), Config: rawJSON(req.GetConfig())})
	if err != nil {
		return toStatus(err)
	}
	id := strconv.FormatUint(s.nextID.Add(1), 10)
	c := &serverConn{Conn: opened}
	// It can be found by Disconnect for as long as it is not closed.
	s.mu.Lock()
	s.conns[id] = c
	s.mu.Unlock()
	defer func() {
		_ = c.close(ctx) // whoever asked for it, in Disconnect, hears the error
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, id)
	}()
	_, topology := opened.(transport.Topology)
	connected := &pb.ConnectResponse_Connected{Connected: connectedToProto(id, opened.Info(), topology)}
	if err := stream.Send(&pb.ConnectResponse{Kind: connected}); err != nil {
		return err
	}
	for {
		condition, err := opened.Next(ctx)
		if err != nil {
			return toStatus(err)
		}
		changed := &pb.ConnectResponse_Condition{Condition: conditionToProto(condition)}
		if err := stream.Send(&pb.ConnectResponse{Kind: changed}); err != nil {
			return err
		}
	}
}

// close closes the connection once, and returns when that is done. The end of ctx does not cut it short, closeTimeout does.
func (c *serverConn) close(ctx context.Context) error {
	c.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		c.err = c.Conn.Close(ctx)
	})
	return c.err
}

// Disconnect serves the RPC of this name.
func (s *Server) Disconnect(ctx context.Context, req *pb.DisconnectRequest) (*pb.DisconnectResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	c, err := s.conn(req.GetConnectionId())
	if err != nil {
		return &pb.DisconnectResponse{}, nil //nolint:nilerr // it is closed
	}
	if err := c.close(ctx); err != nil && !errors.Is(err, transport.ErrClosed) {
		return nil, toStatus(err)
	}
	return &pb.DisconnectResponse{}, nil
}

func (s *Server) conn(id string) (*serverConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.conns[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.Unavailable, "there is no connection %q", text(id))
}

func (s *Server) topology(id string) (transport.Topology, error) {
	c, err := s.conn(id)
	if err != nil {
		return nil, err
	}
	t, ok := c.Conn.(transport.Topology)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the broker cannot route by itself")
	}
	return t, nil
}

// Declare serves the RPC of this name.
func (s *Server) Declare(ctx context.Context, req *pb.DeclareRequest) (*pb.DeclareResponse, error) {
	t, err := s.topology(req.GetConnectionId())
	if err != nil {
		return nil, err
	}
	if err := t.Declare(ctx, placeFromProto(req.GetPlace())); err != nil {
		return nil, toStatus(err)
	}
	return &pb.DeclareResponse{}, nil
}

// Bind serves the RPC of this name.
func (s *Server) Bind(ctx context.Context, req *pb.BindRequest) (*pb.BindResponse, error) {
	t, err := s.topology(req.GetConnectionId())
	if err != nil {
		return nil, err
	}
	if err := t.Bind(ctx, bindingFromProto(req.GetBinding())); err != nil {
		return nil, toStatus(err)
	}
	return &pb.BindResponse{}, nil
}

// Unbind serves the RPC of this name.
func (s *Server) Unbind(ctx context.Context, req *pb.UnbindRequest) (*pb.UnbindResponse, error) {
	t, err := s.topology(req.GetConnectionId())
	if err != nil {
		return nil, err
	}
	if err := t.Unbind(ctx, bindingFromProto(req.GetBinding())); err != nil {
		return nil, toStatus(err)
	}
	return &pb.UnbindResponse{}, nil
}
