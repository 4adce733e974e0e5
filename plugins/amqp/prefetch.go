package amqp

import "github.com/flogate/flogate/core/transport"

// A broker counts messages and not bytes: with bodies of a megabyte, a prefetch that keeps small messages flowing is half a
// gigabyte that waits here. So a consumer begins with few, and gets more as long as they fit into the window in bytes.
//
// RabbitMQ can change the limit of a running consumer only by a limit on the whole channel, which it ends the connection
// over for quorum queues, and in newer releases for all. What every release and queue takes is to cancel the consumer and
// to begin another, on the same channel: what was delivered stays settleable, and the order stays. But it is not harmless
// everywhere: an auto-delete queue is deleted with its messages when its last consumer is cancelled, and with a single
// active consumer another one takes over. No client can see whether a queue is one of these, so that this is done to queues
// of our own alone.
const (
	// firstPrefetch is doubled as soon as it is seen to be too few, seven times up to a window of 512.
	firstPrefetch = 4
	// leastPrefetch lets one message come while another is on its way, also where each is larger than the window.
	leastPrefetch = 2
)

// prefetch is how many messages one consumer may have unsettled. It is the pump's own.
type prefetch struct {
	limit  int
	most   int
	window int64 // bytes, 0 for a limit that stays as it is

	got  int   // messages that this consumer has been sent
	size int64 // of a body: a moving average, in bytes
}

// fixed reports whether the limit never changes.
func (p *prefetch) fixed() bool { return p.window <= 0 }

// count notes a message.
func (p *prefetch) count(size int64) {
	if p.size == 0 {
		p.size = size
	}
	p.size += (size - p.size) / 16
	p.got++
}

// next is the limit that suits what has come and what of it waits here to be handed out. More are asked for before it is
// known that they are needed: whether the broker waits for us or for the next message cannot be seen from here.
func (p *prefetch) next(waiting transport.Credit) int {
	if p.fixed() {
		return p.limit
	}
	fit := func(bytes, messages int64) int {
		return int(max(leastPrefetch, min(int64(p.most), p.window*messages/max(bytes, 1))))
	}
	switch {
	case waiting.Bytes > p.window:
		// The next consumer's come on top of these, and as soon as they are settled no more of the old one's.
		if n := fit(waiting.Bytes, waiting.Messages); n <= p.limit/2 {
			return n
		}
	case waiting.Bytes <= p.window/2:
		switch n := fit(p.size, 1); {
		case n <= p.limit/2:
			return n
		case n > p.limit && p.got >= p.limit:
			return min(2*p.limit, n)
		}
	}
	return p.limit
}
