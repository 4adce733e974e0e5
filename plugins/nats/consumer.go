package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/flogate/flogate/core/transport"
)

// ownerKey is the metadata of a consumer that was made here.
const ownerKey = "flogate"

// consumer is what Subscribe found or made on the server.
type consumer struct {
	stream, name string
	// mine: made here, so it may be changed and removed.
	mine bool
	// seen: messages up to this sequence number may have been delivered before.
	seen    uint64
	ackWait time.Duration
	// maxBatch bounds a pull, 0 for no bound.
	maxBatch int
	// clock is what the server's clock showed at the time of heard, or zero.
	clock, heard time.Time
}

// minTTL is what is left at least of a message that has been delivered: the server has just found it to be alive, and
// counts in seconds.
const minTTL = time.Second

// left returns what is left of the time to live of a message that was stored at the given time of the server's clock. Ours
// may differ from that by any amount. Where the server does not tell its own, nothing is taken off: a message that lives
// too long can be dealt with, one that is gone cannot.
func (k *consumer) left(ttl time.Duration, stored, now time.Time) time.Duration {
	if k.clock.IsZero() {
		return ttl
	}
	age := k.clock.Add(now.Sub(k.heard)).Sub(stored)
	return min(ttl, max(minTTL, ttl-max(0, age)))
}

// consumer finds or makes the durable consumer of a source, and puts it back to its acknowledgement floor: what a client
// that is gone had unsettled comes first, at once, and in order.
func (c *conn) consumer(ctx context.Context, src transport.Source, o sourceOptions) (consumer, error) {
	if _, err := c.stream(ctx, o.Stream, o.CreateStream, src.Address); err != nil {
		return consumer{}, err
	}
	owner := c.name + "/" + src.Name
	name := o.Consumer
	if name == "" {
		name = consumerName(c.name, src.Name)
	}
	k := consumer{stream: o.Stream, name: name}
	found, err := c.js.Consumer(ctx, o.Stream, name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		conf, err := newConsumer(name, owner, src, o)
		if err != nil {
			return k, err
		}
		if found, err = c.js.CreateConsumer(ctx, o.Stream, conf); err != nil {
			return k, c.failure(err)
		}
		k.mine = true
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return k, transport.Permanentf("consumer %q of stream %q is a push consumer: give another name", name, o.Stream)
	case err != nil:
		return k, c.failure(err)
	default:
		conf := found.CachedInfo().Config
		// Servers before 2.10 keep no metadata; a name that was made here is proof enough.
		k.mine = o.Consumer == "" || conf.Metadata[ownerKey] == owner
		if conf.AckPolicy != jetstream.AckExplicitPolicy {
			return k, transport.Permanentf("consumer %q of stream %q has ack policy %s: it has to be explicit", name, o.Stream, conf.AckPolicy)
		}
		wanted := conf
		wanted.MaxAckPending, wanted.AckWait, wanted.FilterSubject = maxAckPending(src), o.ackWait(), src.Address
		if k.mine && (wanted.MaxAckPending != conf.MaxAckPending || wanted.AckWait != conf.AckWait || wanted.FilterSubject != conf.FilterSubject) {
			if found, err = c.js.UpdateConsumer(ctx, o.Stream, wanted); err != nil {
				return k, c.failure(err)
			}
		}
	}
	info := found.CachedInfo()
	k.clock, k.heard = info.TimeStamp, time.Now()
	k.ackWait, k.maxBatch = info.Config.AckWait, info.Config.MaxRequestBatch
	for _, wait := range info.Config.BackOff {
		k.ackWait = min(k.ackWait, wait)
	}
	if o.Shared {
		return k, nil
	}
	if info, err = c.alone(ctx, found); err != nil {
		return k, err
	}
	k.clock, k.heard = info.TimeStamp, time.Now()
	if info.NumAckPending > 0 {
		k.seen = info.Delivered.Stream
		return k, c.rewind(ctx, k, info.Config)
	}
	return k, nil
}

// alone waits until nobody else has a pull waiting at the consumer: the server may not know yet that the previous
// connection is gone, and what it delivered there would be out for as long as ack_wait. Somebody who pulls again and again has
// none for a moment in between: who was seen once is gone when two looks in a row do not find him.
func (c *conn) alone(ctx context.Context, k jetstream.Consumer) (*jetstream.ConsumerInfo, error) {
	waiting, cancel := context.WithTimeout(ctx, pullExpires+2*time.Second)
	defer cancel()
	doubt := 0 // how many looks in a row have to find nobody
	for {
		info, err := k.Info(waiting)
		switch {
		case err != nil && doubt > 0 && waiting.Err() != nil && ctx.Err() == nil:
			return nil, inUse(k) // the time was up while it was asked about
		case err != nil:
			return nil, c.failure(err)
		case info.NumWaiting > 0:
			doubt = 2
		case doubt <= 1:
			return info, nil
		default:
			doubt--
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-c.done:
			return nil, c.reason()
		case <-waiting.Done():
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, inUse(k)
		}
	}
}

func inUse(k jetstream.Consumer) error {
	return fmt.Errorf("consumer %q is in use by another client: end that one, or set shared = true", k.CachedInfo().Name)
}

// rewind makes the server deliver everything above the acknowledgement floor again, in order and before anything else.
// What was acknowledged above the floor comes again too where the stream still has it: within the window.
func (c *conn) rewind(ctx context.Context, k consumer, conf jetstream.ConsumerConfig) error {
	if c.serverAtLeast(2, 14) {
		_, err := c.js.ResetConsumer(ctx, k.stream, k.name)
		if err == nil || ctx.Err() != nil || c.reason() != nil {
			return c.failure(err)
		}
		c.log.Debug("consumer cannot be reset", "consumer", k.name, "err", err)
	}
	if !k.mine {
		c.log.Warn("what a previous client had unsettled comes only after ack_wait, and out of order", "consumer", k.name)
		return nil
	}
	return c.expire(ctx, k, conf)
}

// expiry is long enough for the server to run the timer that a change of ack_wait sets: it does after 100 ms.
const expiry = 500 * time.Millisecond

// expire is rewind for servers that have no reset: it lets everything unsettled run out now. Removing the consumer and
// making it again would lose its place when that is cut short, and the messages themselves in an interest stream.
func (c *conn) expire(ctx context.Context, k consumer, conf jetstream.ConsumerConfig) error {
	short := conf
	short.AckWait = 10 * time.Millisecond
	if _, err := c.js.UpdateConsumer(ctx, k.stream, short); err != nil {
		return c.failure(err)
	}
	select {
	case <-time.After(expiry):
	case <-c.done:
	case <-ctx.Done():
		// The next Subscribe puts ack_wait right.
	}
	_, err := c.js.UpdateConsumer(ctx, k.stream, conf)
	return c.failure(err)
}

func newConsumer(name, owner string, src transport.Source, o sourceOptions) (jetstream.ConsumerConfig, error) {
	conf := jetstream.ConsumerConfig{
		Name:          name,
		Durable:       name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       o.ackWait(),
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending(src),
		FilterSubject: src.Address,
		Metadata:      map[string]string{ownerKey: owner},
	}
	switch o.Deliver {
	case deliverNew:
		conf.DeliverPolicy = jetstream.DeliverNewPolicy
	case deliverLast:
		conf.DeliverPolicy = jetstream.DeliverLastPolicy
	case deliverLastPerSubject:
		conf.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	default:
		conf.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	if o.StartSequence > 0 {
		conf.DeliverPolicy, conf.OptStartSeq = jetstream.DeliverByStartSequencePolicy, o.StartSequence
	}
	if o.StartTime != "" {
		t, err := time.Parse(time.RFC3339Nano, o.StartTime)
		if err != nil {
			return conf, transport.Permanent(err)
		}
		conf.DeliverPolicy, conf.OptStartTime = jetstream.DeliverByStartTimePolicy, &t
	}
	return conf, nil
}

func (o sourceOptions) ackWait() time.Duration {
	if o.AckWait > 0 {
		return time.Duration(o.AckWait)
	}
	return defaultAckWait
}

func maxAckPending(src transport.Source) int {
	return int(min(max(src.Window.Messages, 1), 1<<20))
}

// consumerName is readable as far as the server allows, and different for different names.
func consumerName(connName, srcName string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, connName+"-"+srcName)
	sum := sha256.Sum256([]byte(connName + "\x00" + srcName))
	return fmt.Sprintf("flogate-%.64s-%s", readable, hex.EncodeToString(sum[:6]))
}
