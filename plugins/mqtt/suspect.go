package mqtt

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// MQTT 3.1.1 gives a broker no way to refuse a message: it closes the connection. What is unconfirmed is then sent again, by
// rights, and closes the next connection too, for ever, with everything else that is on it. So a driver has to find out that
// it is the message. It must not take the broker's own troubles for the message's, because a message that is refused may be
// gone: a broker that restarts closes connections, and nats-server closes them as long as its disk is full.
const (
	// strikes is how many connections in a row a broker has to close while the same message is the only one on its way.
	strikes = 3
	// promptly is how soon after the message a broker that means the message hangs up.
	promptly = 5 * time.Second
	// shortLife is how long a connection lives at most that counts as lost for the same reason as the one before.
	shortLife = 30 * time.Second
	// carefulTime is how long only one message at a time is on its way, once two such connections were lost in a row.
	carefulTime = 10 * time.Second
	// yieldTime is how long a message that is suspected lets others go first on a new connection: whether the broker takes
	// those is what decides.
	yieldTime = time.Second
	yieldStep = 10 * time.Millisecond
	// verdictTime is for how long the same message is refused without another try.
	verdictTime = 10 * time.Minute
	// plainlyLarge is a packet whose size may be what a broker dislikes.
	plainlyLarge = 4 << 10
)

// suspicion is what is remembered of a broker from one connection to the next.
type suspicion struct {
	mu sync.Mutex
	// losses counts connections in a row that the broker has closed while something was on its way.
	losses int
	// alone counts those at whose end the message of digest was all that was on its way.
	alone  int
	digest digest
	size   int
	at     time.Time // when alone grew
	// others: the broker has confirmed another message since alone became 1. So it works.
	others bool
	// largest is the size of the largest message that the broker has ever confirmed.
	largest int
}

type digest [sha256.Size]byte

func digestOf(topic string, body []byte) (d digest) {
	h := sha256.New()
	_, _ = io.WriteString(h, topic)
	_, _ = h.Write([]byte{0}) // no topic has it
	_, _ = h.Write(body)
	h.Sum(d[:0])
	return d
}

// careful reports whether the next connection should try one message at a time.
func (s *suspicion) careful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.losses > 1
}

// confirmed clears a message.
func (s *suspicion) confirmed(topic string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.largest = max(s.largest, messageSize(topic, body))
	if s.alone == 0 {
		return
	}
	if messageSize(topic, body) == s.size && digestOf(topic, body) == s.digest {
		s.alone = 0
		return
	}
	s.others = true
}

// unclear reports whether the message is suspected, and no other has been confirmed since.
func (s *suspicion) unclear(topic string, body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alone > 0 && !s.others && messageSize(topic, body) == s.size && digestOf(topic, body) == s.digest
}

// guilty reports whether the broker closes the connection over the message. There has to be a sign that it would take
// another: that it has, or that this one is larger than every one that it ever took.
func (s *suspicion) guilty(topic string, body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone < strikes || time.Since(s.at) > verdictTime || messageSize(topic, body) != s.size || digestOf(topic, body) != s.digest {
		return false
	}
	return s.others || s.size >= plainlyLarge && s.largest > 0 && s.size > s.largest
}

// lost records the end of a connection: hungUp when the broker has closed it, n messages being on their way, and the only
// one of them, if it was sent just before.
func (s *suspicion) lost(hungUp bool, lived time.Duration, n int, only *flight) (alone int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !hungUp || n == 0 {
		s.losses, s.alone = 0, 0
		return 0
	}
	if lived > shortLife {
		s.losses, s.alone = 0, 0
	}
	s.losses++
	if only == nil {
		s.alone = 0
		return 0
	}
	if d := digestOf(only.topic, only.body); s.alone == 0 || d != s.digest {
		s.alone, s.digest, s.size, s.others = 0, d, messageSize(only.topic, only.body), false
	}
	s.alone++
	s.at = time.Now()
	return s.alone
}

// isHangUp reports whether a connection has ended because the broker has closed it.
func isHangUp(err error) bool {
	return errors.Is(err, errHungUp) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// flight is a message on its way.
type flight struct {
	topic string
	body  []byte
	since time.Time
}

// flights are the messages on their way over one connection, with QoS 1 and 2.
type flights struct {
	mu      sync.Mutex
	began   time.Time
	careful time.Time // until then there is one at a time
	n       int
	first   flight    // the one with which n became 1
	mixed   bool      // there was another since then
	blind   time.Time // when a message with QoS 0 was sent: nobody knows what becomes of those
	room    chan struct{}
}

func newFlights(careful bool) *flights {
	f := &flights{began: time.Now(), room: make(chan struct{}, 1)}
	if careful {
		f.careful = f.began.Add(carefulTime)
	}
	return f
}

// yield waits while others should go first.
func (f *flights) yield(ctx context.Context, p *publisher, topic string, body []byte) error {
	for time.Since(f.began) < yieldTime && p.conn.suspect.unclear(topic, body) {
		select {
		case <-time.After(yieldStep):
		case <-p.conn.ended:
			return p.conn.failed()
		case <-p.quit:
			return transport.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// begin waits until a message may be sent, and counts it.
func (f *flights) begin(ctx context.Context, p *publisher, topic string, body []byte) error {
	if err := f.yield(ctx, p, topic, body); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		careful := !f.careful.IsZero() && time.Now().Before(f.careful)
		switch {
		case p.left:
			f.mu.Unlock()
			f.wake() // it may have been meant for another
			return transport.ErrClosed
		case p.qos == 0:
			f.blind = time.Now()
			f.mu.Unlock()
			return nil
		case !careful || f.n == 0:
			if f.n == 0 {
				f.first, f.mixed = flight{topic: topic, body: body, since: time.Now()}, false
			} else {
				f.mixed = true
			}
			f.n++
			p.flying++
			waiting := !careful && !f.careful.IsZero()
			f.mu.Unlock()
			if waiting {
				f.wake()
			}
			return nil
		}
		f.mu.Unlock()
		select {
		case <-f.room:
		case <-p.conn.ended:
			return p.conn.failed()
		case <-p.quit:
			return transport.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *flights) wake() {
	select {
	case f.room <- struct{}{}:
	default:
	}
}

// end takes n messages of p off: they are confirmed, or forgotten with it.
func (f *flights) end(p *publisher, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.flying -= n
	if f.n -= n; f.n == 0 {
		f.first = flight{} // its body is the caller's again
		f.wake()
	}
}

// leave forgets what a publisher has on its way that is closed while the connection goes on.
func (f *flights) leave(p *publisher) {
	f.mu.Lock()
	p.left = true
	n := p.flying
	if n > 0 {
		f.blind = time.Now() // the broker may still be reading it
	}
	f.mu.Unlock()
	f.end(p, n)
}

// last returns how many messages are on their way at the end, and the only one if the broker can have meant it.
func (f *flights) last() (n int, only *flight, lived time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.n == 1 && !f.mixed && now.Sub(f.first.since) < promptly && (f.blind.IsZero() || now.Sub(f.blind) > promptly) {
		first := f.first
		only = &first
	}
	return f.n, only, now.Sub(f.began)
}
