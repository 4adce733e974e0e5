package transport

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// outboxOf returns an Outbox with n messages in flight.
func outboxOf(t testing.TB, n int) *Outbox {
	t.Helper()
	o := NewOutbox(max(1, n))
	for range n {
		if _, err := o.Reserve(t.Context()); err != nil {
			t.Fatalf("reserve: %v", err)
		}
	}
	return o
}

func TestReserveNumbersFromOneUpToTheLimit(t *testing.T) {
	o := NewOutbox(3)
	for want := uint64(1); want <= 3; want++ {
		if n, err := o.Reserve(now()); n != want || err != nil {
			t.Fatalf("reserve: %d, %v; want %d", n, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := o.Reserve(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("reserve beyond the limit: %d, %v; want the error of the context", n, err)
	}
	// Done alone makes no room: an Outbox that nobody asks for confirms would grow without end.
	o.Done(1, 1, nil)
	if n, err := o.Reserve(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("reserve before the confirm is reported: %d, %v; want the error of the context", n, err)
	}
	if _, err := o.Confirms(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := o.Reserve(t.Context()); n != 4 || err != nil {
		t.Fatalf("reserve: %d, %v; want 4", n, err)
	}
}

func TestConfirmsAscendWithoutGaps(t *testing.T) {
	no := Permanentf("no")
	type done struct {
		first, last uint64
		refused     error
	}
	tests := []struct {
		name string
		done []done
		want []Confirm
	}{
		{"nothing", nil, nil},
		{"a gap at the start", []done{{2, 5, nil}}, nil},
		{"one range", []done{{1, 3, nil}}, []Confirm{{1, 3, nil}}},
		{"ranges that meet are one", []done{{2, 3, nil}, {1, 1, nil}}, []Confirm{{1, 3, nil}}},
		{"up to the gap", []done{{4, 5, nil}, {1, 2, nil}}, []Confirm{{1, 2, nil}}},
		{"a later refusal changes nothing", []done{{1, 5, nil}, {2, 2, no}}, []Confirm{{1, 5, nil}}},
		{"the first word counts", []done{{2, 2, no}, {1, 5, nil}}, []Confirm{{1, 1, nil}, {2, 2, no}, {3, 5, nil}}},
		{"each refusal for itself", []done{{1, 2, no}}, []Confirm{{1, 1, no}, {2, 2, no}}},
		{"numbers that are not outstanding", []done{{0, 0, nil}, {6, 99, nil}, {3, 2, nil}, {1, math.MaxUint64, nil}}, []Confirm{{1, 5, nil}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := outboxOf(t, 5)
			for _, d := range tt.done {
				o.Done(d.first, d.last, d.refused)
			}
			got, err := o.Confirms(now())
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("confirms (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusalsAreAlwaysPermanent(t *testing.T) {
	o := outboxOf(t, 1)
	o.Done(1, 1, errors.New("too large"))
	cs, err := o.Confirms(t.Context())
	if err != nil || len(cs) != 1 || !IsPermanent(cs[0].Refused) || cs[0].Refused.Error() != "too large" {
		t.Errorf("confirms: %v, %v; want one Permanent refusal with its reason", cs, err)
	}
}

func TestFailedOutboxReportsWhatWasConfirmedBefore(t *testing.T) {
	o := outboxOf(t, 5)
	o.Done(1, 2, nil)
	o.Done(4, 4, nil)
	reason := errors.New("the broker is gone")
	o.Fail(reason)
	o.Fail(errors.New("another"))
	o.Done(3, 5, nil) // too late: the connection was gone by then
	cs, err := o.Confirms(t.Context())
	if diff := cmp.Diff([]Confirm{{1, 2, nil}}, cs); err != nil || diff != "" {
		t.Errorf("confirms: %v (-want +got):\n%s", err, diff)
	}
	_, confirms := o.Confirms(t.Context())
	_, reserve := o.Reserve(t.Context())
	for name, err := range map[string]error{"Confirms": confirms, "Reserve": reserve} {
		if !errors.Is(err, ErrClosed) || !errors.Is(err, reason) {
			t.Errorf("%s: %v; want ErrClosed with the first reason", name, err)
		}
	}
	if n := o.Unconfirmed(); n != 3 {
		t.Errorf("%d unconfirmed; want 3", n)
	}
}

func TestOutboxWakesUp(t *testing.T) {
	tests := []struct {
		name string
		wait func(ctx context.Context, o *Outbox) error
		wake func(o *Outbox)
		want error
	}{
		{"Confirms by Done", func(ctx context.Context, o *Outbox) error { _, err := o.Confirms(ctx); return err }, func(o *Outbox) { o.Done(1, 1, nil) }, nil},
		{"Confirms by Fail", func(ctx context.Context, o *Outbox) error { _, err := o.Confirms(ctx); return err }, func(o *Outbox) { o.Fail(nil) }, ErrClosed},
		{"Reserve by Confirms", func(ctx context.Context, o *Outbox) error { _, err := o.Reserve(ctx); return err }, func(o *Outbox) { o.Done(1, 1, nil); _, _ = o.Confirms(now()) }, nil},
		{"Reserve by Fail", func(ctx context.Context, o *Outbox) error { _, err := o.Reserve(ctx); return err }, func(o *Outbox) { o.Fail(nil) }, ErrClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := outboxOf(t, 1)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var err error
			var wg sync.WaitGroup
			wg.Go(func() { err = tt.wait(ctx, o) })
			tt.wake(o)
			wg.Wait()
			if !errors.Is(err, tt.want) {
				t.Errorf("returned %v; want %v", err, tt.want)
			}
		})
	}
}

// TestOutboxModel compares an Outbox with the plainest thing that does the same.
func TestOutboxModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 12).Draw(t, "limit")
		o := NewOutbox(limit)
		type word struct {
			said    bool
			refused bool
		}
		var words []word // of message index + 1
		reported := 0
		failed := false
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				n, err := o.Reserve(ctx)
				switch room := len(words)-reported < limit; {
				case failed && !errors.Is(err, ErrClosed), !failed && !room && !errors.Is(err, context.Canceled):
					t.Fatalf("reserve: %d, %v with %d of %d in flight, failed %t", n, err, len(words)-reported, limit, failed)
				case !failed && room:
					if err != nil || n != uint64(len(words)+1) {
						t.Fatalf("reserve: %d, %v; want %d", n, err, len(words)+1)
					}
					words = append(words, word{})
				}
			},
			"done": func(t *rapid.T) {
				first := rapid.Uint64Range(0, uint64(len(words)+2)).Draw(t, "first")
				last := rapid.Uint64Range(0, uint64(len(words)+2)).Draw(t, "last")
				var refused error
				if rapid.Bool().Draw(t, "refused") {
					refused = errors.New("no")
				}
				o.Done(first, last, refused)
				if failed {
					return
				}
				for n := max(1, first); n <= last && n <= uint64(len(words)); n++ {
					if w := &words[n-1]; !w.said {
						*w = word{said: true, refused: refused != nil}
					}
				}
			},
			"confirms": func(t *rapid.T) {
				cs, err := o.Confirms(now())
				for _, c := range cs {
					if c.First != uint64(reported+1) || c.Last < c.First || c.Last > uint64(len(words)) {
						t.Fatalf("confirm %d-%d after %d", c.First, c.Last, reported)
					}
					for ; reported < int(c.Last); reported++ {
						if w := words[reported]; !w.said || w.refused != (c.Refused != nil) {
							t.Fatalf("confirm %+v; the word of %d was %+v", c, reported+1, w)
						}
					}
				}
				if reported < len(words) && words[reported].said {
					t.Fatalf("message %d was held back", reported+1)
				}
				if len(cs) == 0 && errors.Is(err, ErrClosed) != failed {
					t.Fatalf("confirms: %v, failed %t", err, failed)
				}
			},
			"fail": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "whether") == 0 {
					o.Fail(nil)
					failed = true
				}
			},
			"": func(t *rapid.T) {
				if n := o.Unconfirmed(); n != len(words)-reported {
					t.Fatalf("%d unconfirmed; want %d", n, len(words)-reported)
				}
			},
		})
	})
}

func TestOutboxTakesConcurrentUse(t *testing.T) {
	const n = 5000
	o := NewOutbox(64)
	flight := make(chan uint64, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(flight)
		for range n {
			number, err := o.Reserve(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			flight <- number
		}
	})
	wg.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		var some []uint64
		say := func() {
			r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
			for _, number := range some {
				o.Done(number, number, nil)
			}
			some = some[:0]
		}
		for number := range flight {
			if some = append(some, number); len(some) >= 8 {
				say()
			}
		}
		say()
	})
	var last uint64
	for last < n {
		cs, err := o.Confirms(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			if c.First != last+1 {
				t.Fatalf("confirm %d-%d after %d", c.First, c.Last, last)
			}
			last = c.Last
		}
	}
	wg.Wait()
	if left := o.Unconfirmed(); left != 0 {
		t.Errorf("%d unconfirmed at the end", left)
	}
}
