package amqp

import (
	"cmp"
	"encoding/json"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

func TestPrefetchFollowsWhatFits(t *testing.T) {
	const mb = 1 << 20
	for _, test := range []struct {
		name    string
		limit   int
		got     int
		size    int64
		waiting transport.Credit
		want    int
	}{
		{"small, and all have come", 4, 4, 1024, transport.Credit{}, 8},
		{"small, and some wait", 4, 4, 1024, transport.Credit{Messages: 4, Bytes: 4096}, 8},
		{"empty", 4, 4, 0, transport.Credit{Messages: 4}, 8},
		{"more may come", 4, 3, 1024, transport.Credit{}, 4},
		{"no more than asked for", 512, 1000, 1024, transport.Credit{}, 512},
		{"the last step is shorter", 400, 400, 1024, transport.Credit{}, 512},
		{"half of the window waits", 8, 8, mb / 2, transport.Credit{Messages: 10, Bytes: 5 * mb}, 8},
		{"no more than fit, though none waits", 8, 100, mb, transport.Credit{}, 8},
		{"larger than they were, though none waits", 512, 1000, mb, transport.Credit{}, 8},
		{"more waits than fits", 512, 512, 1024, transport.Credit{Messages: 9, Bytes: 9 * mb}, 8},
		{"nearly as much as fits", 12, 12, mb, transport.Credit{Messages: 12, Bytes: 12 * mb}, 12},
		{"not one fits", 4, 1, 16 * mb, transport.Credit{Messages: 1, Bytes: 16 * mb}, leastPrefetch},
		{"the least stays", leastPrefetch, 2, 16 * mb, transport.Credit{Messages: 2, Bytes: 32 * mb}, leastPrefetch},
		{"the least may grow", leastPrefetch, 2, 1024, transport.Credit{}, 4},
	} {
		p := prefetch{limit: test.limit, most: 512, window: 8 * mb, got: test.got, size: test.size}
		if got := p.next(test.waiting); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	p := prefetch{limit: 100, got: 100}
	if got := p.next(transport.Credit{Messages: 100, Bytes: 1 << 40}); got != 100 {
		t.Errorf("a limit that is fixed has become %d", got)
	}
}

// TestPrefetchComesToRest: whatever the sizes, the limit does not go up and down for ever.
func TestPrefetchComesToRest(t *testing.T) {
	for size := int64(1); size <= 64<<20; size = size*3/2 + 1 {
		p := prefetch{limit: firstPrefetch, most: 512, window: 8 << 20}
		changes := 0
		for range 5000 {
			p.count(size)
			if n := p.next(transport.Credit{Messages: 1, Bytes: size}); n != p.limit {
				p.limit, p.got = n, 0
				changes++
			}
		}
		if want := max(firstPrefetch, min(512, 8<<20/size)); changes > 8 || int64(p.limit) > want {
			t.Errorf("bodies of %d bytes: the limit is %d after %d changes, want %d at most", size, p.limit, changes, want)
		}
		if size <= 16<<10 && p.limit != 512 {
			t.Errorf("bodies of %d bytes: the limit is %d, want all of the window", size, p.limit)
		}
	}
}

// fillOwn puts n messages into the queue that the helper subscribe gets at an exchange, and returns its name.
func fillOwn(t *testing.T, c transport.Conn, ch *amqp091.Channel, exchange string, n int, body func(i int) []byte) {
	t.Helper()
	must(t, subscribe(t, c, exchange, `{"declare":true}`).Close(deadline(t, patience)))
	must(t, ch.Confirm(false))
	var last *amqp091.DeferredConfirmation
	for i := range n {
		var err error
		last, err = ch.PublishWithDeferredConfirm(exchange, "", false, false, amqp091.Publishing{Body: body(i)})
		must(t, err)
	}
	_, err := last.WaitContext(deadline(t, patience))
	must(t, err)
}

// TestLargeBodiesWaitAtTheBroker has far more in the queue than the window in bytes, and grants nothing at first.
func TestLargeBodiesWaitAtTheBroker(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	const size, n, window = 1 << 20, 96, 8 << 20
	fillOwn(t, c, ch, "x", n, func(i int) []byte { return append(strconv.AppendInt(nil, int64(i), 10), make([]byte, size)...) })
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	s, err := c.Subscribe(deadline(t, patience), transport.Source{
		Name: "feed", Address: "x", Window: transport.Credit{Messages: 512, Bytes: window}, Options: json.RawMessage(`{"declare":true}`),
	})
	must(t, err)
	waiting := s.(*subscription).inbox.Waiting
	for last, since := int64(-1), time.Now(); time.Since(since) < time.Second; time.Sleep(10 * time.Millisecond) {
		if w := waiting(); w.Bytes != last {
			last, since = w.Bytes, time.Now()
		}
	}
	if w := waiting(); w.Bytes == 0 || w.Bytes > 2*window {
		t.Errorf("%d messages of together %d MiB wait here; the window is %d MiB", w.Messages, w.Bytes>>20, window>>20)
	}
	if got := held() - before; got > 4*window {
		t.Errorf("the heap has grown by %d MiB; the window is %d MiB", got>>20, window>>20)
	}

	// A receiver that holds the whole window, and settles in bursts, gets everything.
	must(t, s.Grant(transport.Credit{Messages: 512, Bytes: window + size}))
	for got := 0; got < n; {
		ds := receive(t, s, 1)
		var bytes int64
		for _, d := range ds {
			if want := strconv.Itoa(got); string(d.Body[:len(want)]) != want || d.Redelivered {
				t.Fatalf("message %d begins with %q, redelivered %v", got, d.Body[:4], d.Redelivered)
			}
			got++
			bytes += int64(len(d.Body))
			if w := waiting(); w.Bytes > 3*window {
				t.Fatalf("%d MiB wait here", w.Bytes>>20)
			}
		}
		settle(t, s, transport.Ack, ds[0].Seq, ds[len(ds)-1].Seq)
		must(t, s.Grant(transport.Credit{Messages: int64(len(ds)), Bytes: bytes}))
	}
}

// TestSmallMessagesGetTheWholeWindow receives without settling: the broker has to send as many as asked for, in order, on
// however many consumers.
func TestSmallMessagesGetTheWholeWindow(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			url := brokers.RabbitMQ(t).URL()
			c, ch := connect(t, url), peer(t, url)
			_, err := ch.QueueDeclare(ownQueue("site/"+t.Name(), "feed"), true, false, false, false, amqp091.Table{"x-queue-type": kind})
			must(t, err)
			const n = 1500
			var want []string
			for i := range n {
				want = append(want, strconv.Itoa(i))
			}
			fillOwn(t, c, ch, "x", n, func(i int) []byte { return []byte(want[i]) })
			s := subscribe(t, c, "x", `{"declare":true}`) // with credit for 1000
			first := receive(t, s, 1000)
			if got := bodies(first); !slices.Equal(got, want[:1000]) {
				t.Errorf("out of order: %q", got)
			}
			// What the consumers before the last were sent is settled like the rest.
			settle(t, s, transport.Ack, 1, 1000)
			must(t, s.Grant(transport.Credit{Messages: 1000, Bytes: 1 << 24}))
			rest := receive(t, s, n-1000)
			if got := bodies(rest); !slices.Equal(got, want[1000:]) {
				t.Errorf("out of order: %q", got)
			}
			for _, d := range slices.Concat(first, rest) {
				// A quorum queue takes back what is on the way to a consumer that is cancelled, and says so of it.
				if d.Redelivered && kind == "classic" {
					t.Fatalf("message %q is redelivered", d.Body)
				}
			}
		})
	}
}

// TestUnsettledOfEarlierConsumersComeAgain closes a subscription that has had several consumers, with nothing but the middle
// settled and a part of the rest released.
func TestUnsettledOfEarlierConsumersComeAgain(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			url := brokers.RabbitMQ(t).URL()
			c, ch := connect(t, url), peer(t, url)
			_, err := ch.QueueDeclare(ownQueue("site/"+t.Name(), "feed"), true, false, false, false, amqp091.Table{"x-queue-type": kind})
			must(t, err)
			const n = 300
			fillOwn(t, c, ch, "x", n, func(i int) []byte { return []byte(strconv.Itoa(i)) })
			s := subscribe(t, c, "x", `{"declare":true}`)
			receive(t, s, n)
			settle(t, s, transport.Ack, 101, 200)
			settle(t, s, transport.Release, 3, 3)
			if d := receive(t, s, 1)[0]; string(d.Body) != "2" || !d.Redelivered {
				t.Errorf("after its release, %q has come, redelivered %v", d.Body, d.Redelivered)
			}
			must(t, s.Close(deadline(t, patience)))
			got := bodies(receive(t, subscribe(t, c, "x", `{"declare":true}`), n-100))
			slices.SortFunc(got, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
			var want []string
			for i := range n {
				if i < 100 || i >= 200 {
					want = append(want, strconv.Itoa(i))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d have come again: %q", len(got), got)
			}
		})
	}
}

// TestQueuesOfOthersKeepTheirConsumer: an auto-delete queue is deleted, with what is in it, when its consumer is cancelled.
func TestQueuesOfOthersKeepTheirConsumer(t *testing.T) {
	url := brokers.RabbitMQ(t).URL()
	c, ch := connect(t, url), peer(t, url)
	const name = "theirs"
	_, err := ch.QueueDeclare(name, true, true, false, false, nil)
	must(t, err)
	const n = 600
	for i := range n {
		must(t, ch.PublishWithContext(t.Context(), "", name, false, false, amqp091.Publishing{Body: []byte(strconv.Itoa(i))}))
	}
	s := subscribe(t, c, name, "")
	for got := 0; got < n; {
		ds := receive(t, s, 1)
		for _, d := range ds {
			if string(d.Body) != strconv.Itoa(got) {
				t.Fatalf("%q instead of %d", d.Body, got)
			}
			got++
		}
		settle(t, s, transport.Ack, ds[0].Seq, ds[len(ds)-1].Seq)
	}
}
