package amqp

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/transport"
)

// arrived is what a consumer gets of a publishing.
func arrived(p amqp091.Publishing) *amqp091.Delivery {
	return &amqp091.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding, DeliveryMode: p.DeliveryMode,
		Priority: p.Priority, CorrelationId: p.CorrelationId, ReplyTo: p.ReplyTo, Expiration: p.Expiration,
		MessageId: p.MessageId, Timestamp: p.Timestamp, RoutingKey: "q", Body: p.Body,
	}
}

// TestMessageSurvives: what AMQP can carry comes back, headers in the order of their names.
func TestMessageSurvives(t *testing.T) {
	short := rapid.StringN(-1, -1, maxShort)
	rapid.Check(t, func(t *rapid.T) {
		header := rapid.Custom(func(t *rapid.T) transport.Header {
			return transport.Header{
				Name:   rapid.SampledFrom([]string{"a", "b", "c", "", "ü"}).Draw(t, "name"),
				Value:  string(rapid.SliceOf(rapid.Byte()).Draw(t, "value")),
				Binary: rapid.Bool().Draw(t, "binary"),
			}
		})
		want := transport.Message{
			Body: rapid.SliceOf(rapid.Byte()).Draw(t, "body"), Address: "q",
			ContentType: short.Draw(t, "type"), ContentEncoding: short.Draw(t, "encoding"), ID: short.Draw(t, "id"),
			CorrelationID: short.Draw(t, "correlation"), ReplyTo: short.Draw(t, "reply"),
			TTL:      time.Duration(rapid.Int64Range(0, 1<<31).Draw(t, "ttl")) * time.Millisecond,
			Created:  time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "created"), 0),
			Priority: rapid.Uint8().Draw(t, "priority"), Durable: rapid.Bool().Draw(t, "durable"), Retain: rapid.Bool().Draw(t, "retain"),
			Headers: rapid.SliceOf(header).Draw(t, "headers"),
		}
		p, dropped, err := toPublishing(&want, false, defaultMaxMessage, 1<<20)
		if err != nil || dropped != "" {
			t.Fatal(err, dropped)
		}
		got := toMessage(arrived(p), "q", true)
		slices.SortStableFunc(want.Headers, func(a, b transport.Header) int { return strings.Compare(a.Name, b.Name) })
		if len(want.Headers) == 0 {
			want.Headers = nil
		}
		if want.ID != "" {
			want.SourceID = "q/" + want.ID
		}
		want.Attempt = 1
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// TestHeadersThatDoNotFitAreSeen: the broker ends the whole connection when a header frame is larger than agreed.
func TestHeadersThatDoNotFitAreSeen(t *testing.T) {
	for size := 3800; size < 4100; size++ {
		m := transport.Message{Headers: []transport.Header{{Name: "n", Value: strings.Repeat("x", size)}}, TTL: time.Hour, Created: time.Now()}
		p, _, err := toPublishing(&m, true, defaultMaxMessage, minFrameSize)
		// 7 before and 1 after the payload, 14 in front of the properties; table, mode, expiration, time, app id.
		need := 8 + 14 + (4 + 2 + 5 + size) + 1 + (1 + len(p.Expiration)) + 8 + 21
		if need > minFrameSize && err == nil {
			t.Fatalf("a header frame of %d bytes is not refused", need)
		}
		if need < minFrameSize-100 && err != nil {
			t.Fatalf("a header frame of %d bytes: %v", need, err)
		}
	}
}

func TestOtherTypesBecomeText(t *testing.T) {
	got := toHeaders(amqp091.Table{
		"array": []any{int32(1), "two"}, "bool": true, "byte": byte(7), "decimal": amqp091.Decimal{Scale: 2, Value: -5},
		"double": 1.5, "float": float32(0.1), "int": int32(-3), "long": int64(1) << 40, "nil": nil,
		"table": amqp091.Table{"b": "x", "a": time.Unix(0, 0)}, "time": time.Unix(1e9, 0),
		"whole": amqp091.Decimal{Value: 12},
	})
	want := []transport.Header{
		{Name: "array", Value: `[1,"two"]`},
		{Name: "bool", Value: "true"},
		{Name: "byte", Value: "7"},
		{Name: "decimal", Value: "-0.05"},
		{Name: "double", Value: "1.5"},
		{Name: "float", Value: "0.1"},
		{Name: "int", Value: "-3"},
		{Name: "long", Value: "1099511627776"},
		{Name: "nil"},
		{Name: "table", Value: `{"a":"1970-01-01T00:00:00Z","b":"x"}`},
		{Name: "time", Value: "2001-09-09T01:46:40Z"},
		{Name: "whole", Value: "12"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAttemptsAreCountedFromWhatTheBrokerSays(t *testing.T) {
	deaths := []any{
		amqp091.Table{"queue": "q", "reason": "rejected", "count": int64(2)},
		amqp091.Table{"queue": "retry", "reason": "expired", "count": int64(2)},
	}
	for _, test := range []struct {
		name  string
		given amqp091.Delivery
		want  uint32
	}{
		{"first", amqp091.Delivery{}, 1},
		{"classic queue, redelivered", amqp091.Delivery{Redelivered: true}, 0},
		{"quorum queue", amqp091.Delivery{Redelivered: true, Headers: amqp091.Table{"x-delivery-count": int64(3)}}, 4},
		{"back from a retry queue", amqp091.Delivery{Headers: amqp091.Table{"x-death": deaths}}, 3},
		{"nonsense", amqp091.Delivery{Headers: amqp091.Table{"x-death": "x", "x-delivery-count": int64(-9)}}, 1},
	} {
		if got := attempt(&test.given, "q"); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestMultipleCoversOnlyWhatIsSettled settles in any order and follows what a broker makes of it.
func TestMultipleCoversOnlyWhatIsSettled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "deliveries")
		settled := make([]bool, n+1)
		heard := make([]bool, n+1)
		p := prefix{next: 1}
		for {
			var free []int
			for tag := 1; tag <= n; tag++ {
				if !settled[tag] {
					free = append(free, tag)
				}
			}
			if len(free) == 0 {
				break
			}
			first := rapid.SampledFrom(free).Draw(t, "first")
			last := first
			for last < n && !settled[last+1] && rapid.Bool().Draw(t, "longer") {
				last++
			}
			for tag := first; tag <= last; tag++ {
				settled[tag] = true
			}
			from := first
			if p.add(uint64(first), uint64(last)) {
				from = 1
			}
			for tag := from; tag <= last; tag++ {
				heard[tag] = true
			}
			if !slices.Equal(settled, heard) {
				t.Fatalf("after %d to %d the broker takes %v for settled, which is %v", first, last, heard, settled)
			}
		}
		if p.next != uint64(n)+1 || len(p.beyond) != 0 {
			t.Fatalf("everything is settled, and next is %d with %d beyond", p.next, len(p.beyond))
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("name", []byte("value"))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		m := transport.Message{Headers: []transport.Header{{Name: name, Value: string(value), Binary: true}}}
		p, dropped, err := toPublishing(&m, true, 1<<20, 1<<20)
		if err != nil || dropped != "" {
			return
		}
		hs := toMessage(arrived(p), "q", false).Headers
		if len(hs) != 1 || hs[0].Name != name || !bytes.Equal([]byte(hs[0].Value), value) {
			t.Fatalf("%q with %q became %v", name, value, hs)
		}
	})
}
