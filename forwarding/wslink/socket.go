package wslink

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// socket is the connection under the WebSocket library, which bounds its writes, knows when the peer was last heard, and can
// be closed without its peer's help.
//
// The library bounds what it does by contexts, which costs a timer for each frame, and closes a connection the moment one
// ends. Deadlines here are cheaper, and leave the time to close properly.
type socket struct {
	net.Conn
	stall time.Duration
	start time.Time
	heard atomic.Int64 // nanoseconds from start to the last byte that was read

	writing sync.Mutex // is held while something is written, and protects:
	corked  int
	held    []byte // to be written when nobody corks

	mu  sync.Mutex
	end time.Time // no deadline is later; zero: none
	err error     // the first error of reading: without one, what the library complains about is the peer's fault
}

func newSocket(c net.Conn, stall time.Duration) *socket {
	return &socket{Conn: c, stall: stall, start: time.Now()}
}

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.heard.Store(int64(time.Since(s.start)))
		return n, nil // TLS says at once that nothing follows; what has come is whole all the same, and the error comes again
	}
	if err != nil {
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		s.mu.Unlock()
	}
	return n, err
}

// heardSince says whether anything has come from the peer since t.
func (s *socket) heardSince(t time.Time) bool {
	return time.Duration(s.heard.Load()) > t.Sub(s.start)
}

func (s *socket) readError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// piece is how much of a frame has to get out within the stall time. A slow peer may take long for a large frame, as long as
// it takes something.
const piece = 64 << 10

func (s *socket) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.corked == 0 {
		return s.write(p)
	}
	if len(s.held)+len(p) > piece {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= piece {
		return s.write(p)
	}
	s.held = append(s.held, p...)
	return len(p), nil
}

// cork holds what is written back until uncork, or until it is a piece: many small frames cost one system call then.
func (s *socket) cork() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.corked++
}

func (s *socket) uncork() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.corked--
	return s.flush()
}

func (s *socket) flush() error {
	if len(s.held) == 0 {
		return nil
	}
	_, err := s.write(s.held)
	s.held = s.held[:0]
	return err
}

func (s *socket) write(p []byte) (int, error) {
	written := 0
	for {
		n := min(piece, len(p)-written)
		if err := s.bound(time.Now().Add(s.stall)); err != nil {
			return written, err
		}
		n, err := s.Conn.Write(p[written : written+n])
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

func (s *socket) bound(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end.IsZero() && s.end.Before(t) {
		t = s.end
	}
	return s.SetWriteDeadline(t)
}

// endBy makes everything fail that is not done by t, also what is under way.
func (s *socket) endBy(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = t
	_ = s.SetDeadline(t) // a connection that has no deadlines any more is gone already
}

// Close closes at once. Over TLS that says good-bye first, for which a peer that takes nothing gets no time.
func (s *socket) Close() error {
	if t, ok := s.Conn.(*tls.Conn); ok {
		timer := time.AfterFunc(time.Second, func() { _ = t.NetConn().Close() })
		defer timer.Stop()
	}
	return s.Conn.Close()
}
