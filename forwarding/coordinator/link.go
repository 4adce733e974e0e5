package coordinator

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/fbp"
)

const (
	// maxWaiting is how many messages a session may be behind. It only hands them on to its outbox, which is smaller; so one
	// that is behind that much does not run any more. What opening a large graph comes to is far below.
	maxWaiting = 1 << 16
	// maxLossy is how many may wait before packets are not even put there.
	maxLossy = 1024
	// maxKept is how many places are kept to be used again.
	maxKept = 1024
)

// link is one session's link. What is put in is taken out in the same order.
type link struct {
	c      *Coordinator
	access forwarding.Access
	views  bool // may be shown packets

	// Of the coordinator, under its lock.
	selected map[string]map[edgeKey]bool // by graph; an edge that was selected is true

	mu    sync.Mutex
	queue []forwarding.Message
	err   error
	news  chan struct{}

	taken []forwarding.Message // of the goroutine that receives
}

func newLink(c *Coordinator, access forwarding.Access) *link {
	return &link{
		c: c, access: access, views: access.Capabilities.MayReceive(fbp.NetworkData),
		selected: map[string]map[edgeKey]bool{}, news: make(chan struct{}, 1),
	}
}

// Send implements [forwarding.Link]. It returns when the answer is there to be received.
func (l *link) Send(ctx context.Context, r forwarding.Request) error {
	if err := l.ending(); err != nil {
		return err
	}
	err := l.c.handle(ctx, l, r)
	switch {
	case err == nil:
	case errors.Is(err, errHidden):
		l.fail(r.Input, fbp.NotPermitted(r.Kind))
	default:
		l.fail(r.Input, err)
	}
	return l.ending()
}

func (l *link) ending() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Receive implements [forwarding.Link].
func (l *link) Receive(ctx context.Context) ([]forwarding.Message, error) {
	clear(l.taken)
	if cap(l.taken) > maxKept {
		l.taken = nil
	}
	for {
		l.mu.Lock()
		err := l.err
		if err == nil {
			l.taken, l.queue = l.queue, l.taken[:0]
		}
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if len(l.taken) > 0 {
			return l.taken, nil
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close implements [forwarding.Link].
func (l *link) Close() {
	l.end(forwarding.ErrClosed)
	l.c.leave(l)
}

func (l *link) end(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err, l.queue = err, nil
	}
	l.mu.Unlock()
	l.wake()
}

// put never blocks.
func (l *link) put(messages ...forwarding.Message) {
	l.mu.Lock()
	for _, m := range messages {
		switch {
		case l.err != nil, m.Lossy && len(l.queue) >= maxLossy:
		case len(l.queue) >= maxWaiting:
			l.err, l.queue = forwarding.ErrBehind, nil
		default:
			l.queue = append(l.queue, m)
		}
	}
	l.mu.Unlock()
	l.wake()
}

func (l *link) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// answer puts the only message of an answer, or the last.
func (l *link) answer(m forwarding.Message) {
	m.Answers, m.Last = true, true
	l.put(m)
}

// reply answers with what nobody else is told.
func (l *link) reply(p fbp.Payload) error {
	m, err := forwarding.NewMessage(p)
	if err == nil {
		l.answer(m)
	}
	return err
}

func (l *link) fail(in fbp.Input, err error) {
	l.answer(forwarding.Message{Output: in.Fail(err)})
}

// base returns what stands behind the slash of an id or a component's name, and library what stands before it.
func base(name string) string {
	_, after, ok := strings.Cut(name, "/")
	if !ok {
		return name
	}
	return after
}
