package mqtt

import (
	"strconv"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
)

// With take, a message in the middle of a session can be acknowledged while those before it stay.
func TestTakenMessagesAreGoneFromTheSession(t *testing.T) {
	c := connect(t, "site", "url", startMosquitto(t).URL())
	s := subscribe(t, c, "reader", "letters", `{"take": true}`)
	grant(t, s, 10)
	publish(t, c, "letters", `{}`, 1, 5)
	ds := receive(t, s, 5)
	settle(t, s, transport.Ack, ds[1:2])
	settle(t, s, transport.Ack, ds[3:4])
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	s = subscribe(t, c, "reader", "letters", `{"take": true}`)
	grant(t, s, 10)
	for i, d := range receive(t, s, 3) {
		if want := strconv.Itoa(2*i + 1); string(d.Body) != want {
			t.Errorf("left is %q; want %q", d.Body, want)
		}
	}
	nothing(t, s, 200*time.Millisecond)
}
