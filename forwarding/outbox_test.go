package forwarding

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func take(t *testing.T, o *Outbox) ([]string, uint64) {
	t.Helper()
	frames, lost, err := o.Take(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return texts(frames), lost
}

func texts(frames [][]byte) []string {
	var s []string
	for _, f := range frames {
		s = append(s, string(f))
	}
	return s
}

// wantTaken asserts what is taken next.
func wantTaken(t *testing.T, o *Outbox, lost uint64, frames ...string) {
	t.Helper()
	got, n := take(t, o)
	if diff := cmp.Diff(frames, got); diff != "" || n != lost {
		t.Errorf("after %d lost, want %d: %s", n, lost, diff)
	}
}

func push(t *testing.T, o *Outbox, frame string) {
	t.Helper()
	if err := o.Push([]byte(frame)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatMayBeDroppedGoesFirstAndOldestFirst(t *testing.T) {
	o := NewOutbox(4, 100)
	o.Offer([]byte("data 1"))
	push(t, o, "answer 1")
	o.Offer([]byte("data 2"))
	o.Offer([]byte("data 3"))
	push(t, o, "answer 2") // there is no room: data 1 goes
	o.Offer([]byte("data 4"))
	wantTaken(t, o, 2, "answer 1", "data 3", "answer 2", "data 4")
	push(t, o, "answer 3")
	wantTaken(t, o, 0, "answer 3") // the loss is told once
	if n := o.Dropped(); n != 2 {
		t.Errorf("%d dropped, want 2", n)
	}
}

func TestBytesBoundAsWell(t *testing.T) {
	o := NewOutbox(100, 10)
	o.Offer([]byte("12345"))
	o.Offer([]byte("67890"))
	if !o.Offer([]byte("abcdef")) { // takes the place of both
		t.Error("a frame that fits was refused")
	}
	if o.Offer([]byte("longer than ten bytes")) {
		t.Error("a frame larger than the bound was taken")
	}
	wantTaken(t, o, 3, "abcdef")
}

func TestWhatMustArriveEndsTheClientRatherThanBeDropped(t *testing.T) {
	for name, o := range map[string]*Outbox{"messages": NewOutbox(3, 1000), "bytes": NewOutbox(1000, 30)} {
		t.Run(name, func(t *testing.T) {
			frame := []byte("0123456789")
			for range 3 {
				if err := o.Push(frame); err != nil {
					t.Fatal(err)
				}
			}
			if o.Offer(frame) {
				t.Error("something took the place of what must arrive")
			}
			if err := o.Push(frame); !errors.Is(err, ErrBehind) {
				t.Errorf("push: %v, want %v", err, ErrBehind)
			}
			if _, _, err := o.Take(t.Context(), nil); !errors.Is(err, ErrBehind) {
				t.Errorf("take: %v, want %v", err, ErrBehind)
			}
			if n, bytes := o.Len(); n != 0 || bytes != 0 {
				t.Errorf("%d messages of %d bytes are kept for nobody", n, bytes)
			}
		})
	}
}

func TestLoneFrameLargerThanTheBoundArrives(t *testing.T) {
	o := NewOutbox(10, 10)
	push(t, o, "a graph of many nodes")
	wantTaken(t, o, 0, "a graph of many nodes")
}

func TestFramesAreNotCopied(t *testing.T) {
	frame := []byte("shared")
	for _, put := range []func(*Outbox){
		func(o *Outbox) { o.Offer(frame) },
		func(o *Outbox) { _ = o.Push(frame) },
	} {
		o := NewOutbox(1, 100)
		put(o)
		got, _, err := o.Take(t.Context(), nil)
		if err != nil || &got[0][0] != &frame[0] {
			t.Errorf("another frame came out, %v", err)
		}
	}
}

func TestTakeTakesWhatIsSentAtOnceAndNoMore(t *testing.T) {
	o := NewOutbox(0, 0)
	for range batchMessages + 1 {
		push(t, o, "x")
	}
	into := [][]byte{[]byte("kept")}
	frames, _, err := o.Take(t.Context(), into)
	if err != nil || len(frames) != 1+batchMessages || string(frames[0]) != "kept" {
		t.Errorf("%d frames, %v", len(frames), err)
	}
	wantTaken(t, o, 0, "x")
	half := string(make([]byte, batchBytes/2))
	for _, frame := range []string{half, half, "x", half + half + half, "y"} {
		push(t, o, frame)
	}
	wantTaken(t, o, 0, half, half)
	wantTaken(t, o, 0, "x")
	wantTaken(t, o, 0, half+half+half)
	wantTaken(t, o, 0, "y")
}

func TestTakeWaits(t *testing.T) {
	t.Run("for a frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := NewOutbox(0, 0)
			for _, put := range []func(){
				func() { push(t, o, "x") },
				func() { o.Offer([]byte("x")) },
			} {
				got := make(chan string, 1)
				go func() {
					frames, _, err := o.Take(t.Context(), nil)
					got <- fmt.Sprint(texts(frames), err)
				}()
				synctest.Wait()
				put()
				if s := <-got; s != "[x] <nil>" {
					t.Errorf("got %s", s)
				}
			}
		})
	})
	t.Run("until its context ends, and no frame is lost by it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := NewOutbox(0, 0)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, _, err := o.Take(ctx, nil)
				done <- err
			}()
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			push(t, o, "later")
			wantTaken(t, o, 0, "later")
		})
	})
	t.Run("until the outbox is closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := NewOutbox(0, 0)
			gone := errors.New("gone")
			done := make(chan error, 1)
			go func() {
				_, _, err := o.Take(t.Context(), nil)
				done <- err
			}()
			synctest.Wait()
			o.Close(gone)
			o.Close(errors.New("too late"))
			if err := <-done; !errors.Is(err, gone) {
				t.Error(err)
			}
			if err := o.Push(nil); !errors.Is(err, gone) {
				t.Error(err)
			}
			if o.Offer(nil) {
				t.Error("offered to nobody, and taken")
			}
		})
	})
}

// One slow reader, many who put in: what comes out is in the order of each of them, nothing that must arrive is missing, and
// every other frame has either come or been counted.
func TestNothingIsLostUncounted(t *testing.T) {
	const writers, each = 8, 2000
	o := NewOutbox(writers*each+10, 1<<20) // bytes are what is short, and only what may be dropped takes them
	offer := make([]byte, 4096)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				frame := binary.BigEndian.AppendUint32(nil, uint32(w<<24|n))
				if n%2 == 0 {
					if err := o.Push(frame); err != nil {
						t.Error(err)
						return
					}
				} else {
					o.Offer(append(frame, offer...))
				}
			}
		})
	}
	var came, lost uint64
	must := map[int]int{}
	last := map[int]int{}
	end := make(chan struct{})
	go func() {
		defer close(end)
		for {
			frames, n, err := o.Take(t.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			lost += n
			for _, frame := range frames {
				if len(frame) == 0 {
					return
				}
				came++
				id := int(binary.BigEndian.Uint32(frame))
				w, number := id>>24, id&0xffffff
				if before, ok := last[w]; ok && before >= number {
					t.Errorf("writer %d: %d came after %d", w, number, before)
				}
				last[w] = number
				if number%2 == 0 {
					must[w]++
				}
			}
		}
	}()
	all.Wait()
	if err := o.Push(nil); err != nil {
		t.Fatal(err)
	}
	<-end
	for w := range writers {
		if must[w] != each/2 {
			t.Errorf("writer %d: %d of %d that must arrive", w, must[w], each/2)
		}
	}
	if came+lost != writers*each || lost != o.Dropped() {
		t.Errorf("%d came, %d told lost, %d counted, of %d", came, lost, o.Dropped(), writers*each)
	}
}

// The outbox against the plainest list that does the same.
func TestOutboxAgainstModel(t *testing.T) {
	type held struct {
		frame string
		must  bool
	}
	rapid.Check(t, func(t *rapid.T) {
		messages, bytes := rapid.IntRange(1, 8).Draw(t, "messages"), rapid.IntRange(1, 60).Draw(t, "bytes")
		o := NewOutbox(messages, bytes)
		var model []held
		var lost uint64
		ended := false
		size := func(only bool) (n, b int) {
			for _, h := range model {
				if h.must || !only {
					n, b = n+1, b+len(h.frame)
				}
			}
			return n, b
		}
		room := func(frame string) {
			for i := 0; i < len(model); {
				n, b := size(false)
				if n < messages && b+len(frame) <= bytes {
					return
				}
				if model[i].must {
					i++
					continue
				}
				model = append(model[:i:i], model[i+1:]...)
				lost++
			}
		}
		frames := rapid.StringMatching(`[a-z]{0,20}`)
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				frame := frames.Draw(t, "frame")
				n, b := size(true)
				err := o.Push([]byte(frame))
				switch {
				case ended || n > 0 && (n+1 > messages || b+len(frame) > bytes):
					ended, model = true, nil
					if !errors.Is(err, ErrBehind) {
						t.Fatalf("push: %v, want %v", err, ErrBehind)
					}
				case err != nil:
					t.Fatal(err)
				default:
					room(frame)
					model = append(model, held{frame, true})
				}
			},
			"offer": func(t *rapid.T) {
				frame := frames.Draw(t, "frame")
				n, b := size(true)
				fits := n+1 <= messages && b+len(frame) <= bytes
				switch {
				case ended:
					fits = false
				case fits:
					room(frame)
					model = append(model, held{frame, false})
				default:
					lost++
				}
				if taken := o.Offer([]byte(frame)); taken != fits {
					t.Fatalf("taken: %v, want %v", taken, fits)
				}
			},
			"take": func(t *rapid.T) {
				if ended || len(model) == 0 {
					t.Skip("would wait, or has ended")
				}
				frames, n, err := o.Take(context.Background(), nil)
				if err != nil || n != lost || len(frames) != len(model) {
					t.Fatalf("%q after %d, %v; want %v after %d", frames, n, err, model, lost)
				}
				for i, h := range model {
					if string(frames[i]) != h.frame {
						t.Fatalf("%q, want %v", frames, model)
					}
				}
				model, lost = nil, 0
			},
			"": func(t *rapid.T) {
				wantN, wantB := size(false)
				if n, b := o.Len(); n != wantN || b != wantB {
					t.Fatalf("%d messages of %d bytes, want %d of %d", n, b, wantN, wantB)
				}
			},
		})
	})
}

// What one message on an edge costs when 200 clients watch it: one encoded frame into 200 outboxes. At 10,000 messages a
// second the result must stay far below 100 µs, which is all the time there is. "stuck" clients read nothing.
func BenchmarkOfferTo200Clients(b *testing.B) {
	frame := make([]byte, 400)
	for _, c := range []struct {
		name string
		read int // every how many messages a client takes what it has
	}{{"reading", 1}, {"slow", 1000}, {"stuck", 0}} {
		b.Run(c.name, func(b *testing.B) {
			outboxes := make([]*Outbox, 200)
			for i := range outboxes {
				outboxes[i] = NewOutbox(1024, 1<<20)
			}
			ctx := context.Background()
			var into [][]byte
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				for _, o := range outboxes {
					o.Offer(frame)
				}
				if c.read == 0 || n%c.read != 0 {
					continue
				}
				for _, o := range outboxes {
					for held, _ := o.Len(); held > 0; held, _ = o.Len() {
						var err error
						if into, _, err = o.Take(ctx, into[:0]); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
	}
}

func TestWhatIsOfferedTogetherIsTakenTogether(t *testing.T) {
	o := NewOutbox(4, 0)
	taken := make(chan [][]byte)
	go func() {
		frames, _, err := o.Take(t.Context(), nil)
		if err != nil {
			t.Error(err)
		}
		taken <- frames
	}()
	if !o.Offer([]byte("1"), []byte("2"), []byte("3")) {
		t.Error("they have not been taken")
	}
	if frames := <-taken; len(frames) != 3 {
		t.Errorf("%d frames were taken", len(frames))
	}
	if err := o.Push([]byte("must")); err != nil {
		t.Fatal(err)
	}
	o.Offer([]byte("1"), []byte("2"), []byte("3"), []byte("4"))
	if n, _ := o.Len(); n != 4 || o.Dropped() != 1 {
		t.Errorf("%d frames are held, %d dropped", n, o.Dropped())
	}
}
