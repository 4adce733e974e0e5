package transport

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// impatient is a context that ends as soon as somebody would wait on it: what there is at once is returned, and nothing is
// left to the clock.
type impatient struct {
	context.Context
	asked atomic.Int32
}

func now() *impatient { return &impatient{Context: context.Background()} }

func (c *impatient) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func (c *impatient) Err() error {
	if c.asked.Add(1) == 1 {
		return nil
	}
	return context.Canceled
}

// receiveNow returns the numbers of what can be received without waiting.
func receiveNow(t testing.TB, b *Inbox[int]) []uint64 {
	t.Helper()
	ds, err := b.Receive(now())
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("receive: %v", err)
	}
	var seqs []uint64
	for _, d := range ds {
		seqs = append(seqs, d.Seq)
	}
	return seqs
}

// inboxOf returns an Inbox with messages of the given sizes, whose tokens count from 1, and with credit.
func inboxOf(t testing.TB, inOrder bool, credit Credit, sizes ...int) *Inbox[int] {
	t.Helper()
	b := NewInbox[int](inOrder)
	for i, size := range sizes {
		b.Put(Message{Body: make([]byte, size)}, i+1)
	}
	if err := b.Grant(credit); err != nil {
		t.Fatalf("grant: %v", err)
	}
	return b
}

func TestReceiveStaysWithinCredit(t *testing.T) {
	tests := []struct {
		name   string
		credit Credit
		sizes  []int
		want   []uint64
	}{
		{"no credit", Credit{}, []int{1}, nil},
		{"no credit for bytes", Credit{Messages: 1}, []int{1}, nil},
		{"no credit for messages", Credit{Bytes: 1}, []int{1}, nil},
		{"an empty body needs no credit for bytes", Credit{Messages: 2}, []int{0, 0}, []uint64{1, 2}},
		{"credit for two messages", Credit{Messages: 2, Bytes: 100}, []int{1, 1, 1}, []uint64{1, 2}},
		{"credit for two bodies", Credit{Messages: 9, Bytes: 20}, []int{10, 10, 1}, []uint64{1, 2}},
		{"too large beside another", Credit{Messages: 9, Bytes: 20}, []int{10, 11}, []uint64{1}},
		{"too large and alone", Credit{Messages: 9, Bytes: 20}, []int{1000, 0}, []uint64{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := inboxOf(t, false, tt.credit, tt.sizes...)
			if diff := cmp.Diff(tt.want, receiveNow(t, b)); diff != "" {
				t.Errorf("deliveries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLargeMessagePassesWhenNothingElseIsUnsettled(t *testing.T) {
	b := inboxOf(t, false, Credit{Messages: 9, Bytes: 20}, 10, 1000, 1)
	receiveNow(t, b)
	if _, err := b.Settle([]Settlement{{1, 1, Ack}}); err != nil {
		t.Fatal(err)
	}
	if got := receiveNow(t, b); !slices.Equal(got, []uint64{2}) {
		t.Errorf("after the first is settled: %v; want the large one alone", got)
	}
	if _, err := b.Settle([]Settlement{{2, 2, Ack}}); err != nil {
		t.Fatal(err)
	}
	if got := receiveNow(t, b); got != nil {
		t.Errorf("%v while what the large one took has not been granted again", got)
	}
	if err := b.Grant(Credit{Bytes: 1000}); err != nil {
		t.Fatal(err)
	}
	if got := receiveNow(t, b); !slices.Equal(got, []uint64{3}) {
		t.Errorf("%v; want 3", got)
	}
}

func TestSettleInOrderHoldsBackWhatIsBehindAnUnsettled(t *testing.T) {
	b := inboxOf(t, true, Credit{Messages: 9, Bytes: 9}, 1, 1, 1, 1, 1)
	receiveNow(t, b)
	steps := []struct {
		settle []Settlement
		want   []Settled[int]
	}{
		{[]Settlement{{3, 4, Release}}, nil},
		{[]Settlement{{1, 1, Ack}}, []Settled[int]{{1, Ack}}},
		{[]Settlement{{2, 2, Reject}}, []Settled[int]{{2, Reject}, {3, Release}, {4, Release}}},
		{[]Settlement{{5, 5, Ack}}, []Settled[int]{{5, Ack}}},
	}
	for _, step := range steps {
		got, err := b.Settle(step.settle)
		if err != nil {
			t.Fatalf("settle %v: %v", step.settle, err)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("settle %v (-want +got):\n%s", step.settle, diff)
		}
	}
}

func TestWrongSettlementRecordsNothing(t *testing.T) {
	for _, wrong := range []Settlement{
		{0, 0, Ack}, {0, 1, Ack}, {2, 1, Ack}, {3, 4, Ack}, {4, 4, Ack}, {1, 1 << 63, Ack}, {1, 1, 0}, {1, 1, Reject + 1}, {1, 2, Ack},
	} {
		b := inboxOf(t, false, Credit{Messages: 9, Bytes: 9}, 1, 1, 1, 1)
		b.credit.Messages = 3
		receiveNow(t, b)
		if _, err := b.Settle([]Settlement{{2, 2, Ack}}); err != nil {
			t.Fatal(err)
		}
		if done, err := b.Settle([]Settlement{{3, 3, Ack}, wrong}); err == nil || len(done) != 1 {
			t.Errorf("settle %v: %v, %v; want what came before it, and an error", wrong, done, err)
		}
		if done, err := b.Settle([]Settlement{{1, 1, Release}}); err != nil || len(done) != 1 {
			t.Errorf("settle 1 after %v: %v, %v; want it to be unsettled still", wrong, done, err)
		}
	}
}

func TestReceiveWakesUp(t *testing.T) {
	wakers := map[string]func(b *Inbox[int]) error{
		"Put":    func(b *Inbox[int]) error { b.Put(Message{}, 1); return nil },
		"Grant":  func(b *Inbox[int]) error { return b.Grant(Credit{Messages: 1, Bytes: 1}) },
		"Settle": func(b *Inbox[int]) error { _, err := b.Settle([]Settlement{{1, 1, Ack}}); return err },
		"Fail":   func(b *Inbox[int]) error { b.Fail(nil); return nil },
	}
	setups := map[string]func() *Inbox[int]{
		"Put":   func() *Inbox[int] { return inboxOf(t, false, Credit{Messages: 1, Bytes: 1}) },
		"Grant": func() *Inbox[int] { return inboxOf(t, false, Credit{}, 1) },
		"Settle": func() *Inbox[int] {
			b := inboxOf(t, false, Credit{Messages: 9, Bytes: 20}, 10, 1000)
			receiveNow(t, b)
			return b
		},
		"Fail": func() *Inbox[int] { return inboxOf(t, false, Credit{}) },
	}
	for name, wake := range wakers {
		t.Run(name, func(t *testing.T) {
			b := setups[name]()
			var wg sync.WaitGroup
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				ds, err := b.Receive(ctx)
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					t.Error("Receive goes on waiting")
				case name == "Fail" && !errors.Is(err, ErrClosed), name != "Fail" && len(ds) != 1:
					t.Errorf("Receive returned %v, %v", ds, err)
				}
			})
			if err := wake(b); err != nil {
				t.Error(err)
			}
			wg.Wait()
		})
	}
}

// countingContext counts how often it is looked at.
type countingContext struct {
	context.Context
	looks atomic.Int64
}

func (c *countingContext) Err() error {
	c.looks.Add(1)
	return c.Context.Err()
}

func TestReceiveSleepsWhileMessagesWaitForCredit(t *testing.T) {
	b := inboxOf(t, false, Credit{Messages: 1, Bytes: 10}, 1, 1, 1)
	if got := receiveNow(t, b); len(got) != 1 {
		t.Fatalf("received %v; want one", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	counting := &countingContext{Context: ctx}
	if _, err := b.Receive(counting); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("receive: %v; want the error of the context", err)
	}
	if n := counting.looks.Load(); n > 5 {
		t.Errorf("Receive looked %d times in 50 ms in which nothing happened: it does not sleep", n)
	}
}

func TestCancelledReceiveLosesNothing(t *testing.T) {
	b := inboxOf(t, false, Credit{Messages: 9, Bytes: 9}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ds, err := b.Receive(ctx); !errors.Is(err, context.Canceled) || ds != nil {
		t.Fatalf("receive: %v, %v; want the error of the context", ds, err)
	}
	if got := receiveNow(t, b); !slices.Equal(got, []uint64{1}) {
		t.Errorf("%v; want 1", got)
	}
}

func TestFailedInboxSaysWhy(t *testing.T) {
	b := inboxOf(t, false, Credit{Messages: 1, Bytes: 9}, 1, 1, 1)
	receiveNow(t, b)
	reason := errors.New("the broker is gone")
	if dropped := b.Fail(reason); !slices.Equal(dropped, []int{2, 3}) {
		t.Errorf("dropped %v; want what was not handed out, 2 and 3", dropped)
	}
	if dropped := b.Fail(errors.New("another")); dropped != nil {
		t.Errorf("a second Fail dropped %v", dropped)
	}
	_, receive := b.Receive(t.Context())
	_, settle := b.Settle([]Settlement{{1, 1, Ack}})
	for name, err := range map[string]error{"Receive": receive, "Settle": settle, "Grant": b.Grant(Credit{})} {
		if !errors.Is(err, ErrClosed) || !errors.Is(err, reason) || !strings.Contains(err.Error(), reason.Error()) {
			t.Errorf("%s: %v; want ErrClosed with the first reason", name, err)
		}
	}
	if waiting := b.Put(Message{}, 4); waiting != (Credit{}) {
		t.Errorf("Put after Fail: %v wait", waiting)
	}
	if waiting := b.Waiting(); waiting != (Credit{}) {
		t.Errorf("after Fail %v wait", waiting)
	}
}

func TestUnsettledAreThoseWithoutOutcome(t *testing.T) {
	b := inboxOf(t, true, Credit{Messages: 3, Bytes: 9}, 1, 1, 1, 1)
	receiveNow(t, b)
	if _, err := b.Settle([]Settlement{{2, 2, Ack}}); err != nil {
		t.Fatal(err)
	}
	var got []int
	b.Unsettled(func(token int) bool { got = append(got, token); return true })
	if !slices.Equal(got, []int{1, 3}) {
		t.Errorf("unsettled %v; want 1 and 3", got)
	}
	got = nil
	b.Unsettled(func(token int) bool { got = append(got, token); return false })
	if !slices.Equal(got, []int{1}) {
		t.Errorf("unsettled up to the first: %v; want 1", got)
	}
}

func TestOneReceiveIsBounded(t *testing.T) {
	b := inboxOf(t, false, Credit{Messages: 1000, Bytes: 1000}, make([]int, 600)...)
	for _, want := range []int{maxBatch, maxBatch, 600 - 2*maxBatch} {
		if got := receiveNow(t, b); len(got) != want {
			t.Errorf("one Receive returned %d; want %d", len(got), want)
		}
	}
}

// TestInboxModel compares an Inbox with the plainest thing that does the same.
func TestInboxModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inOrder := rapid.Bool().Draw(t, "in order")
		b := NewInbox[int](inOrder)
		var (
			sizes   []int64                // of all messages; token and sequence number are index + 1
			out     int                    // how many were handed out
			outcome = map[uint64]Outcome{} // of what is settled
			told    = map[uint64]bool{}    // what Settle has returned
			credit  Credit                 // left
			failed  bool
		)
		pending := func() int { return out - len(outcome) }
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				size := rapid.Int64Range(0, 30).Draw(t, "size")
				b.Put(Message{Body: make([]byte, size)}, len(sizes)+1)
				if !failed {
					sizes = append(sizes, size)
				}
			},
			"grant": func(t *rapid.T) {
				c := Credit{rapid.Int64Range(0, 5).Draw(t, "messages"), rapid.Int64Range(0, 40).Draw(t, "bytes")}
				if err := b.Grant(c); (err != nil) != failed {
					t.Fatalf("grant: %v", err)
				}
				credit.Messages += c.Messages
				credit.Bytes += c.Bytes
			},
			"receive": func(t *rapid.T) {
				ds, err := b.Receive(now())
				if failed {
					if !errors.Is(err, ErrClosed) {
						t.Fatalf("receive after Fail: %v", err)
					}
					return
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Fatalf("receive: %v", err)
				}
				for _, d := range ds {
					size := int64(len(d.Body))
					if d.Seq != uint64(out+1) || size != sizes[out] {
						t.Fatalf("delivery %d of %d bytes; want %d of %d", d.Seq, size, out+1, sizes[out])
					}
					alone := pending() == 0 && credit.Bytes > 0
					if credit.Messages < 1 || size > credit.Bytes && !alone {
						t.Fatalf("delivery %d of %d bytes with credit for %+v and %d unsettled", d.Seq, size, credit, pending())
					}
					out++
					credit.Messages--
					credit.Bytes -= size
				}
				if out < len(sizes) && credit.Messages > 0 && len(ds) < maxBatch &&
					(sizes[out] <= credit.Bytes || pending() == 0 && credit.Bytes > 0) {
					t.Fatalf("message %d of %d bytes was held back with credit for %+v and %d unsettled", out+1, sizes[out], credit, pending())
				}
			},
			"settle": func(t *rapid.T) {
				first := rapid.Uint64Range(0, uint64(out+1)).Draw(t, "first")
				last := first + rapid.Uint64Range(0, 4).Draw(t, "more")
				o := Outcome(rapid.IntRange(0, 4).Draw(t, "outcome"))
				valid := !failed && o >= Ack && o <= Reject && first >= 1 && last <= uint64(out)
				for n := first; n <= last; n++ {
					valid = valid && outcome[n] == 0
				}
				done, err := b.Settle([]Settlement{{first, last, o}})
				if (err == nil) != valid {
					t.Fatalf("settle %d-%d %s: %v; valid is %t", first, last, o, err, valid)
				}
				if !valid {
					if len(done) > 0 {
						t.Fatalf("a wrong settlement told %v", done)
					}
					return
				}
				for n := first; n <= last; n++ {
					outcome[n] = o
				}
				var want []Settled[int]
				for n := uint64(1); n <= uint64(out); n++ {
					if outcome[n] == 0 && inOrder {
						break
					}
					if outcome[n] != 0 && !told[n] {
						want = append(want, Settled[int]{int(n), outcome[n]})
						told[n] = true
					}
				}
				if diff := cmp.Diff(want, done); diff != "" {
					t.Fatalf("settle %d-%d (-want +got):\n%s", first, last, diff)
				}
			},
			"fail": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "whether") > 0 {
					return
				}
				if n := len(b.Fail(errors.New("over"))); !failed && n != len(sizes)-out {
					t.Fatalf("%d were dropped; want %d", n, len(sizes)-out)
				}
				failed = true
			},
			"": func(t *rapid.T) {
				if failed {
					return
				}
				var bytes int64
				for _, size := range sizes[out:] {
					bytes += size
				}
				if diff := cmp.Diff(Credit{int64(len(sizes) - out), bytes}, b.Waiting()); diff != "" {
					t.Fatalf("waiting (-want +got):\n%s", diff)
				}
			},
		})
	})
}

func TestInboxTakesConcurrentUse(t *testing.T) {
	const n = 5000
	b := NewInbox[int](true)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			b.Put(Message{Body: make([]byte, i%7)}, i)
		}
	})
	settle := make(chan Delivery, n)
	var told atomic.Int64
	for range 2 {
		wg.Go(func() {
			for d := range settle {
				done, err := b.Settle([]Settlement{{d.Seq, d.Seq, Ack}})
				told.Add(int64(len(done)))
				if err == nil {
					err = b.Grant(Credit{1, int64(len(d.Body))})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := b.Grant(Credit{50, 100}); err != nil {
		t.Fatal(err)
	}
	for next := uint64(1); next <= n; {
		ds, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			if d.Seq != next {
				t.Fatalf("delivery %d; want %d", d.Seq, next)
			}
			next++
			settle <- d
		}
	}
	close(settle)
	wg.Wait()
	if told.Load() != n {
		t.Errorf("the broker was told of %d; want %d", told.Load(), n)
	}
}
