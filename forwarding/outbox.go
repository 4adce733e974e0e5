package forwarding

import (
	"context"
	"errors"
	"sync"
)

// ErrBehind is why an [Outbox] ends: what must arrive alone is more than it may hold, so the client cannot follow.
var ErrBehind = errors.New("client does not follow: what must reach it exceeds the bound")

// What an [Outbox] holds if nothing else is said. A graph of 1,000 nodes opens with some 2,000 messages of about 300 bytes,
// and a client that reads them late must not be given up for it.
const (
	DefaultOutboxMessages = 8192
	DefaultOutboxBytes    = 16 << 20
)

// Outbox is what one client has still to be sent, oldest first. It is bounded in messages and in bytes, and whoever puts
// something in never waits: a client that reads slowly must not slow an edge down, nor another client.
//
// Messages are of two kinds. Answers, and events of graphs, components and states, must arrive ([Outbox.Push]): a client that
// has missed one shows something false from then on. Packets and output may be dropped ([Outbox.Offer]): they go first when
// there is no room, the oldest before the newer, and are counted, so that the client can be told. When what must arrive does
// not fit by itself, the outbox ends with [ErrBehind]: better to have a client connect anew than to lie to it.
//
// A frame is kept as it is, not copied, so one encoded frame can be put into many outboxes; nobody may change it from then
// on. Outbox has no goroutine. All methods may be called concurrently, except that Take is called by one goroutine at a time.
type Outbox struct {
	messages, bytes int // the bound

	mu      sync.Mutex
	next    uint64 // number of the next frame: the order among the two queues
	must    queue
	may     queue
	lost    uint64 // dropped since the last Take
	dropped uint64 // dropped at all
	err     error
	waiting bool          // Take waits for news
	news    chan struct{} // has an element when Take should look again
}

// NewOutbox returns an Outbox that holds at most so many messages, and so many bytes of frames. A bound below 1 is taken for
// the default.
func NewOutbox(messages, bytes int) *Outbox {
	if messages < 1 {
		messages = DefaultOutboxMessages
	}
	if bytes < 1 {
		bytes = DefaultOutboxBytes
	}
	return &Outbox{messages: messages, bytes: bytes, news: make(chan struct{}, 1)}
}

// Push adds a frame that must arrive, and drops others for it if it has to. It returns [ErrBehind] when there is no room for
// it, after which the outbox has ended, or why it had ended before. It never blocks.
func (o *Outbox) Push(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	// The lone frame always fits: a source that is larger than the bound has to reach its client, too.
	if o.must.len() > 0 && (o.must.len()+1 > o.messages || o.must.bytes+len(frame) > o.bytes) {
		o.end(ErrBehind)
		return ErrBehind
	}
	o.makeRoom(len(frame))
	o.add(&o.must, frame)
	return nil
}

// Offer adds frames that may be dropped, now or later, and says whether all have been taken. Those that are offered together
// are there together for Take. It never blocks.
func (o *Outbox) Offer(frames ...[]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return false
	}
	all := true
	for _, frame := range frames {
		if o.must.len()+1 > o.messages || o.must.bytes+len(frame) > o.bytes {
			o.drop(1) // not even the place of all others would be enough
			all = false
			continue
		}
		o.makeRoom(len(frame))
		o.add(&o.may, frame)
	}
	return all
}

// makeRoom drops the oldest of those that may be, until one more frame of that size fits or none is left.
func (o *Outbox) makeRoom(size int) {
	for o.may.len() > 0 && (o.must.len()+o.may.len()+1 > o.messages || o.must.bytes+o.may.bytes+size > o.bytes) {
		o.may.pop()
		o.drop(1)
	}
}

func (o *Outbox) drop(n int) {
	o.lost += uint64(n)
	o.dropped += uint64(n)
}

func (o *Outbox) add(q *queue, frame []byte) {
	q.push(entry{o.next, frame})
	o.next++
	o.wake()
}

// wake costs a wake-up only when somebody sleeps: ten thousand frames a second for each of 200 clients go through here.
func (o *Outbox) wake() {
	if !o.waiting {
		return
	}
	o.waiting = false
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// Take appends the oldest frames to into, oldest first, and returns that, with how many others have been dropped since the
// last call, which may have been older than these or newer. It blocks until there is a frame or ctx ends, and never waits for
// more; it takes what a connection sends at once, 64 messages or 64 KiB, because what has been taken cannot be
// dropped any more. When the outbox has ended it returns why, and nothing that was left in it: a client that is told half is
// told something false.
func (o *Outbox) Take(ctx context.Context, into [][]byte) (frames [][]byte, lost uint64, err error) {
	for {
		frames, lost, err = o.poll(into)
		if err != nil || len(frames) > len(into) {
			return frames, lost, err
		}
		select {
		case <-o.news:
		case <-ctx.Done():
			return into, 0, ctx.Err()
		}
	}
}

const (
	batchMessages = 64
	batchBytes    = 64 << 10
)

func (o *Outbox) poll(into [][]byte) (frames [][]byte, lost uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return into, o.lost, o.err
	}
	if o.must.len()+o.may.len() == 0 {
		o.waiting = true
		return into, 0, nil
	}
	lost, o.lost = o.lost, 0
	for n, bytes := 0, 0; n < batchMessages && o.must.len()+o.may.len() > 0; n++ {
		q := o.oldest()
		bytes += len(q.first().frame)
		if n > 0 && bytes > batchBytes {
			break
		}
		into = append(into, q.pop())
	}
	return into, lost, nil
}

// oldest returns the queue with the oldest frame. There must be one.
func (o *Outbox) oldest() *queue {
	if o.may.len() == 0 || o.must.len() > 0 && o.must.first().number < o.may.first().number {
		return &o.must
	}
	return &o.may
}

// Close ends the outbox: from now on Push and Take return err, which must not be nil, and what is held is let go. Only the
// first call counts, and it does not if the outbox has ended by itself.
func (o *Outbox) Close(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.end(err)
	}
}

func (o *Outbox) end(err error) {
	o.err = err
	o.must, o.may = queue{}, queue{}
	o.wake()
}

// Len returns how many messages are held, and how many bytes their frames have.
func (o *Outbox) Len() (messages, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.must.len() + o.may.len(), o.must.bytes + o.may.bytes
}

// Dropped returns how many messages have been dropped since the outbox was made.
func (o *Outbox) Dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

type entry struct {
	number uint64
	frame  []byte
}

// queue is a ring that grows, and is given back when it is empty and large: most clients are never behind.
type queue struct {
	ring  []entry // its length is a power of two
	head  int
	n     int
	bytes int
}

const (
	firstRing = 16
	keptRing  = 1024 // entries, 32 KiB
)

func (q *queue) len() int      { return q.n }
func (q *queue) first() *entry { return &q.ring[q.head] }

func (q *queue) push(e entry) {
	if q.n == len(q.ring) {
		larger := make([]entry, max(firstRing, 2*len(q.ring)))
		n := copy(larger, q.ring[q.head:])
		copy(larger[n:], q.ring[:q.head])
		q.ring, q.head = larger, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = e
	q.n++
	q.bytes += len(e.frame)
}

func (q *queue) pop() []byte {
	e := &q.ring[q.head]
	frame := e.frame
	e.frame = nil // the frame may be large, and others may be done with it
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	q.bytes -= len(frame)
	if q.n == 0 && len(q.ring) > keptRing {
		*q = queue{}
	}
	return frame
}
