package transporttest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// plenty is credit that no case uses up.
var plenty = transport.Credit{Messages: 100_000, Bytes: 1 << 30}

// A scene is what a case has to work with: the methods fail the case when something goes wrong that has to go right.
type scene struct {
	testing.TB
	ctx    context.Context
	target Target
	driver transport.Driver
	names  int
}

// quiet is how long to wait to see that something does not happen.
func (s *scene) quiet() time.Duration {
	if s.target.Quiet == 0 {
		return 300 * time.Millisecond
	}
	return s.target.Quiet
}

// name returns a name that nobody has used before, on this broker or another.
func (s *scene) name(kind string) string {
	s.names++
	return "conformance-" + kind + strconv.Itoa(s.names) + "-" + rand.Text()[:8]
}

// connect opens a connection under a name of its own.
func (s *scene) connect() *link { return s.connectAs(s.name("conn")) }

// connectAs opens a connection that goes on where an earlier one of the same name has stopped. A broker that has just been
// restarted, or has not yet noticed that the earlier connection is gone, is given a little time.
func (s *scene) connectAs(name string) *link {
	var conn transport.Conn
	var err error
	for range 20 {
		conn, err = s.driver.Connect(s.ctx, transport.ConnectRequest{Name: name, Config: s.target.Config(s)})
		if err == nil || transport.IsPermanent(err) || s.ctx.Err() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		s.Fatalf("connect: %v", err)
	}
	l := &link{s: s, Conn: conn, name: name}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := conn.Close(ctx); err != nil && !errors.Is(err, transport.ErrClosed) {
			s.Errorf("close the connection: %v", err)
		}
	})
	return l
}

// pair returns a fresh pair whose source has the given window.
func (s *scene) pair(window transport.Credit) (transport.Source, transport.Sink) {
	src, sink := s.target.Pair(s)
	return s.dress(src, window), sink
}

func (s *scene) dress(src transport.Source, window transport.Credit) transport.Source {
	if src.Name == "" {
		src.Name = s.name("src")
	}
	src.Window = window
	return src
}

// link is a connection of a scene.
type link struct {
	transport.Conn
	s    *scene
	name string
}

// close closes the connection in peace.
func (l *link) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.s.ctx), 5*time.Second) // the case may be over
	defer cancel()
	if err := l.Close(ctx); err != nil {
		l.s.Fatalf("close the connection: %v", err)
	}
}

// ended waits until the connection has ended and returns the reason.
func (l *link) ended(within time.Duration) error {
	ctx, cancel := context.WithTimeout(l.s.ctx, within)
	defer cancel()
	for {
		if _, err := l.Next(ctx); err != nil {
			if !errors.Is(err, transport.ErrClosed) {
				l.s.Fatalf("Next returned %v; want an error that is ErrClosed within %v", err, within)
			}
			return err
		}
	}
}

// subscribe opens a subscription without granting any credit. What the broker keeps for it is removed after the case.
func (l *link) subscribe(src transport.Source) *stream {
	sub, err := l.Subscribe(l.s.ctx, src)
	if err != nil {
		l.s.Fatalf("subscribe to %q: %v", src.Address, err)
	}
	st := &stream{s: l.s, Subscription: sub, src: src}
	l.s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// On a connection that is gone this is an error, and there is nothing better to do than to try.
		_ = sub.Remove(ctx)
	})
	return st
}

// stream is a subscription of a scene. It checks what has to be true of every stream of deliveries.
type stream struct {
	transport.Subscription
	s   *scene
	src transport.Source

	last      uint64           // sequence number of the last delivery
	granted   transport.Credit // total
	delivered transport.Credit // total
	extra     []transport.Delivery
}

// grant gives credit.
func (st *stream) grant(messages, bytes int64) {
	st.granted.Messages += messages
	st.granted.Bytes += bytes
	if err := st.Grant(transport.Credit{Messages: messages, Bytes: bytes}); err != nil {
		st.s.Fatalf("grant: %v", err)
	}
}

// receive returns the next n deliveries.
func (st *stream) receive(n int) []transport.Delivery {
	ds := st.extra
	for len(ds) < n {
		got, err := st.Receive(st.s.ctx)
		if err != nil {
			st.s.Fatalf("receive: %v, after %d of %d deliveries", err, len(ds), n)
		}
		st.check(got)
		ds = append(ds, got...)
	}
	st.extra = ds[n:]
	return ds[:n:n]
}

// acknowledge returns the next n deliveries and acknowledges them as they come, so that few are unsettled at a time.
func (st *stream) acknowledge(n int) []transport.Delivery {
	var ds []transport.Delivery
	for len(ds) < n {
		next := st.receive(1)
		next = append(next, st.receive(min(len(st.extra), n-len(ds)-1))...)
		st.settle(transport.Ack, next)
		ds = append(ds, next...)
	}
	return ds
}

// check fails the case when deliveries break a rule that is true of all.
func (st *stream) check(ds []transport.Delivery) {
	if len(ds) == 0 {
		st.s.Fatal("Receive returned no delivery and no error")
	}
	for _, d := range ds {
		st.last++
		if d.Seq != st.last {
			st.s.Fatalf("delivery has number %d; want %d: numbers start at 1 and have no gaps", d.Seq, st.last)
		}
		st.delivered.Messages++
		st.delivered.Bytes += int64(len(d.Body))
	}
	if st.delivered.Messages > st.granted.Messages {
		st.s.Fatalf("%d deliveries with credit for %d", st.delivered.Messages, st.granted.Messages)
	}
}

// nothing fails the case when a delivery comes within d.
func (st *stream) nothing(d time.Duration, why string) {
	if len(st.extra) > 0 {
		st.s.Fatalf("%s, but delivery %d has come", why, st.extra[0].Seq)
	}
	ctx, cancel := context.WithTimeout(st.s.ctx, d)
	defer cancel()
	ds, err := st.Receive(ctx)
	switch {
	case err == nil:
		st.s.Fatalf("%s, but %d deliveries have come, the first %s", why, len(ds), describe(ds[0].Message))
	case !errors.Is(err, context.DeadlineExceeded):
		st.s.Fatalf("receive: %v; want the error of the context", err)
	}
}

// settle gives deliveries an outcome, each run of numbers as a range.
func (st *stream) settle(outcome transport.Outcome, ds []transport.Delivery) {
	if err := st.Settle(st.s.ctx, ranges(outcome, ds)); err != nil {
		st.s.Fatalf("settle: %v", err)
	}
}

// close closes the subscription in peace.
func (st *stream) close() {
	if err := st.Close(st.s.ctx); err != nil {
		st.s.Fatalf("close the subscription: %v", err)
	}
}

func ranges(outcome transport.Outcome, ds []transport.Delivery) []transport.Settlement {
	var out []transport.Settlement
	for _, d := range ds {
		if n := len(out); n > 0 && out[n-1].Last+1 == d.Seq {
			out[n-1].Last = d.Seq
		} else {
			out = append(out, transport.Settlement{First: d.Seq, Last: d.Seq, Outcome: outcome})
		}
	}
	return out
}

// publisher opens a publisher.
func (l *link) publisher(sink transport.Sink) *outlet {
	pub, err := l.Publish(l.s.ctx, sink)
	if err != nil {
		l.s.Fatalf("publish to %q: %v", sink.Address, err)
	}
	return &outlet{s: l.s, Publisher: pub, refused: map[uint64]error{}}
}

// outlet is a publisher of a scene. It checks what has to be true of every stream of confirms.
type outlet struct {
	transport.Publisher
	s *scene

	sent      uint64 // how many were given to Publish
	confirmed uint64 // number of the last message with news
	refused   map[uint64]error
}

// publish sends messages and waits for news of each.
func (o *outlet) publish(msgs ...transport.Message) {
	o.s.Helper()
	ctx, cancel := context.WithCancel(o.s.ctx)
	defer cancel()
	o.sent += uint64(len(msgs))
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		if failed = o.Publish(ctx, msgs); failed != nil {
			cancel()
		}
	})
	err := o.await(ctx, o.sent)
	if err != nil {
		cancel()
	}
	wg.Wait()
	if failed != nil && (err == nil || !errors.Is(failed, context.Canceled)) {
		o.s.Fatalf("publish: %v", failed)
	}
	if err != nil {
		o.s.Fatalf("confirms: %v, after %d of %d messages", err, o.confirmed, o.sent)
	}
}

// publishAll is publish, and fails the case when one is refused.
func (o *outlet) publishAll(msgs ...transport.Message) {
	o.publish(msgs...)
	for n, err := range o.refused {
		o.s.Fatalf("message %d is refused: %v", n, err)
	}
}

// await waits for news of the messages up to number n.
func (o *outlet) await(ctx context.Context, n uint64) error {
	for o.confirmed < n {
		cs, err := o.Confirms(ctx)
		if err != nil {
			return err
		}
		o.check(cs)
	}
	return nil
}

// check fails the case when confirms break a rule that is true of all.
func (o *outlet) check(cs []transport.Confirm) {
	if len(cs) == 0 {
		o.s.Fatal("Confirms returned nothing and no error")
	}
	for _, c := range cs {
		if c.First != o.confirmed+1 || c.Last < c.First {
			o.s.Fatalf("confirm of %d-%d after %d: confirms ascend without gaps and without overlap", c.First, c.Last, o.confirmed)
		}
		if c.Last > o.sent {
			o.s.Fatalf("confirm of %d-%d when %d were published", c.First, c.Last, o.sent)
		}
		o.confirmed = c.Last
		if c.Refused != nil {
			if !transport.IsPermanent(c.Refused) {
				o.s.Errorf("message %d is refused with an error that is not Permanent: %v", c.First, c.Refused)
			}
			for n := c.First; n <= c.Last; n++ {
				o.refused[n] = c.Refused
			}
		}
	}
}

// message returns a durable message with a body that says which it is.
func message(i int) transport.Message {
	return transport.Message{Body: []byte(strconv.Itoa(i)), Durable: true}
}

// messages returns the messages first to last.
func messages(first, last int) []transport.Message {
	var msgs []transport.Message
	for i := first; i <= last; i++ {
		msgs = append(msgs, message(i))
	}
	return msgs
}

// sized returns a durable message of size bytes, of which the first and the last are i.
func sized(i byte, size int) transport.Message {
	body := make([]byte, size)
	body[0], body[size-1] = i, i
	return transport.Message{Body: body, Durable: true}
}

// inOrder fails the case when ds are not the messages first to last.
func (s *scene) inOrder(ds []transport.Delivery, first, last int) {
	if len(ds) != last-first+1 {
		s.Fatalf("%d deliveries; want %d", len(ds), last-first+1)
	}
	for i, d := range ds {
		if want := strconv.Itoa(first + i); string(d.Body) != want {
			s.Fatalf("delivery %d is message %.40q; want %s: order is kept", d.Seq, d.Body, want)
		}
	}
}

// numbers returns the numbers of messages in the order of delivery.
func (s *scene) numbers(ds []transport.Delivery) []int {
	var ns []int
	for _, d := range ds {
		n, err := strconv.Atoi(string(d.Body))
		if err != nil {
			s.Fatalf("delivery %d has the body %.40q, which nobody has published", d.Seq, d.Body)
		}
		ns = append(ns, n)
	}
	return ns
}

// describe names a message in a failure.
func describe(m transport.Message) string {
	return fmt.Sprintf("%.40q (%d bytes, address %q, redelivered %t)", m.Body, len(m.Body), m.Address, m.Redelivered)
}

// noticed is how long a driver may take to notice that its broker is gone: 5 seconds, and what a loaded machine adds.
const noticed = 6 * time.Second

// apart runs f in a goroutine of its own, and returns a function that waits for it. A failure in f ends the case.
func (s *scene) apart(f func()) (wait func()) {
	finished := false
	var wg sync.WaitGroup
	wg.Go(func() {
		f()
		finished = true
	})
	return func() {
		wg.Wait()
		if !finished {
			s.Fatal("see above")
		}
	}
}
