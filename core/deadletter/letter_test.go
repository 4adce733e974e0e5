package deadletter_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
)

func sample(body string) deadletter.Letter {
	return deadletter.Letter{
		Message: transport.Message{
			Body: []byte(body), Address: "sensors/hall", ContentType: "text/plain", ContentEncoding: "identity", ID: "id-1",
			CorrelationID: "\x00\xff", ReplyTo: "answers", Created: time.Unix(1700000000, 0).UTC(), TTL: time.Hour, Priority: 3, Retain: true,
			Durable: true, SourceID: "s:1",
			Headers: []transport.Header{{Name: "k", Value: "<v>"}, {Name: "k", Value: "w"}, {Name: "b", Value: "\x00\xff", Binary: true}},
		},
		Cause: "too <large>", Edge: "a.out -> b.in", Broker: "mqtt.hall", Time: time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC), Attempts: 2,
	}
}

func TestLetterIsTheSameAfterBrokersWithAndWithoutHeaders(t *testing.T) {
	for _, body := range []string{"", "hello", `{"a": 1}`, "\x00\xff\xfe", "Ünïcødé <&>  "} {
		for _, headerless := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q headerless=%v", body, headerless), func(t *testing.T) {
				want := sample(body)
				packed := want.Pack(headerless)
				if packed.ID != "" || packed.TTL != 0 || packed.Retain || !packed.Durable {
					t.Errorf("a letter has to live for ever, durable and without id: %+v", packed)
				}
				if headerless {
					if !json.Valid(packed.Body) {
						t.Errorf("the envelope is no JSON: %s", packed.Body)
					}
					// Nothing but the body gets through, to another address.
					packed = transport.Message{Body: packed.Body, Address: "dead", SourceID: want.Message.SourceID}
				} else {
					packed.Address = "dead"
				}
				got, ok := deadletter.Open(packed)
				if !ok {
					t.Fatal("not recognised as a dead letter")
				}
				if len(got.Message.Body) == 0 {
					got.Message.Body = []byte{}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		}
	}
}

func TestASecondDeathReplacesTheFirst(t *testing.T) {
	first := sample("x").Pack(false)
	second := deadletter.Letter{Message: first, Cause: "again", Edge: "c.out -> d.in", Time: time.Unix(1, 0).UTC()}
	for _, headerless := range []bool{false, true} {
		got, _ := deadletter.Open(second.Pack(headerless))
		if got.Cause != "again" || got.Edge != "c.out -> d.in" || len(got.Message.Headers) != 3 {
			t.Errorf("headerless=%v: %+v", headerless, got)
		}
	}
}

// What was a dead letter on MQTT and died again on its way from there is the message that was on that way.
func TestLetterAboutALetterIsOpenedOnce(t *testing.T) {
	inner := sample("x").Pack(true)
	outer := deadletter.Letter{Message: inner, Cause: "full", Edge: "dead.out -> archive.in", Time: time.Unix(1, 0).UTC(), Attempts: 1}
	for _, headerless := range []bool{false, true} {
		got, ok := deadletter.Open(outer.Pack(headerless))
		if !ok || got.Edge != outer.Edge || got.Cause != "full" || string(got.Message.Body) != string(inner.Body) {
			t.Errorf("headerless=%v: opened as %+v", headerless, got)
		}
	}
}

func TestOtherMessagesAreNoDeadLetters(t *testing.T) {
	for _, m := range []transport.Message{
		{},
		{Body: []byte("{")},
		{Body: []byte(`{"flogate-dead-letter": 2, "cause": "later"}`)},
		{Body: []byte(`{"flogate-dead-letter": "1"}`)},
		{Body: []byte(`{"cause": "x"}`), Headers: []transport.Header{{Name: "flogate-dead-time", Value: "never"}, {Name: "k", Value: "v"}}},
	} {
		l, ok := deadletter.Open(m)
		if ok {
			t.Errorf("%+v was taken for a dead letter", m)
		}
		if diff := cmp.Diff(m, l.Message); diff != "" {
			t.Errorf("it was changed (-want +got)\n%s", diff)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("x"), "v")
	f.Add(sample("y").Pack(true).Body, "2026-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, body []byte, value string) {
		m := transport.Message{Body: body, Headers: []transport.Header{
			{Name: deadletter.HeaderTime, Value: value},
			{Name: deadletter.HeaderAttempts, Value: value},
			{Name: deadletter.HeaderTTL, Value: value},
			{Name: deadletter.HeaderCause, Value: value},
		}}
		l, ok := deadletter.Open(m)
		if !ok {
			t.Fatal("it has a cause")
		}
		if again, ok := deadletter.Open(l.Pack(true)); !ok || again.Cause != l.Cause && utf8.ValidString(l.Cause) {
			t.Errorf("packed again it is %+v; want %+v", again, l)
		}
	})
}
