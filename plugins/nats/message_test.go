package nats

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/transport"
)

// Whatever a message says survives the way through NATS headers, except the order of different names.
func TestHeadersRoundTrip(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 4, -1), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	name := rapid.OneOf(text, rapid.SampledFrom([]string{"a", "Nats-Rollup", "nats-ttl", "Status", "Content-Type", "reply-to", "Flogate-Header", "x y", "ü", "a:b"}))
	rapid.Check(t, func(t *rapid.T) {
		m := transport.Message{
			ContentType: text.Draw(t, "content type"), ContentEncoding: text.Draw(t, "content encoding"),
			ID: text.Draw(t, "id"), CorrelationID: text.Draw(t, "correlation id"), ReplyTo: text.Draw(t, "reply to"),
			Priority: rapid.Uint8().Draw(t, "priority"), Retain: rapid.Bool().Draw(t, "retain"),
		}
		if s := rapid.Int64Range(0, 1<<40).Draw(t, "created"); s > 0 {
			m.Created = time.Unix(0, s).UTC()
		}
		for range rapid.IntRange(0, 6).Draw(t, "headers") {
			m.Headers = append(m.Headers, transport.Header{
				Name: name.Draw(t, "name"), Value: text.Draw(t, "value"), Binary: rapid.Bool().Draw(t, "binary"),
			})
		}
		sent := nats.Msg{Subject: "s", Header: encode(&m, true)}
		got, ttl := decode(throughHeaderLines(t, sent.Header))
		if ttl != 0 {
			t.Errorf("ttl is %v", ttl)
		}
		byName := func(hs []transport.Header) []transport.Header {
			hs = slices.Clone(hs)
			slices.SortStableFunc(hs, func(a, b transport.Header) int {
				// The coded ones of a name come after the plain ones.
				return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(coded(a), coded(b)))
			})
			return hs
		}
		m.Headers, got.Headers = byName(m.Headers), byName(got.Headers)
		if diff := gocmp.Diff(m, got); diff != "" {
			t.Error(diff)
		}
	})
}

func coded(h transport.Header) int {
	if h.Binary || !plainName(h.Name) || !plainText(h.Value) {
		return 1
	}
	return 0
}

// throughHeaderLines does to headers what the library does to them.
func throughHeaderLines(t *rapid.T, h nats.Header) nats.Header {
	if h == nil {
		return nil
	}
	var b strings.Builder
	b.WriteString("NATS/1.0\r\n")
	for name, values := range h {
		for _, v := range values {
			b.WriteString(name + ": " + strings.NewReplacer("\r", " ", "\n", " ").Replace(strings.Trim(v, " \t")) + "\r\n")
		}
	}
	b.WriteString("\r\n")
	got, err := nats.DecodeHeadersMsg([]byte(b.String()))
	if err != nil {
		t.Fatalf("%q: %v", b.String(), err)
	}
	return got
}

// Ids made here do not reach anybody as the publisher's.
func TestDedupIDIsNoMessageID(t *testing.T) {
	id := dedupIDOf("site/bus", "out", "Q:1")
	if m, _ := decode(nats.Header{natsMsgID: {id}}); m.ID != "" {
		t.Errorf("id is %q", m.ID)
	}
	if m, _ := decode(nats.Header{natsMsgID: {id}, messageID: {"theirs"}}); m.ID != "theirs" {
		t.Errorf("id is %q; want theirs", m.ID)
	}
	for _, other := range [][3]string{{"site/bu", "sout", "Q:1"}, {"site/bus", "outQ", ":1"}, {"site/bus", "out", "Q:2"}} {
		if dedupIDOf(other[0], other[1], other[2]) == id {
			t.Errorf("%q has the same id", other)
		}
	}
}

func TestTTLIsWholeSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Nanosecond: "1s", time.Second: "1s", 1500 * time.Millisecond: "2s", time.Hour: "3600s"} {
		got := formatTTL(d)
		if got != want {
			t.Errorf("%v is %q; want %q", d, got, want)
		}
		if back := parseTTL(got); back < d {
			t.Errorf("%v comes back as %v", d, back)
		}
	}
	for _, v := range []string{"never", "", "x", "-3"} {
		if d := parseTTL(v); d != 0 {
			t.Errorf("%q is %v", v, d)
		}
	}
}

// The clocks of this machine and the server differ by hours; what is left of a message's time is none of their business.
func TestAgeIsTakenFromTheServersClock(t *testing.T) {
	heard := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, skew := range []time.Duration{0, -5 * time.Hour, 5 * time.Hour} {
		server := heard.Add(skew)
		k := consumer{clock: server, heard: heard}
		for _, tt := range []struct {
			name        string
			stored, now time.Duration // since heard, each on its own clock
			want        time.Duration
		}{
			{"just stored", 0, 0, time.Minute},
			{"a while ago", -20 * time.Second, 0, 40 * time.Second},
			{"a while before and after", -20 * time.Second, 10 * time.Second, 30 * time.Second},
			{"stored after that", 10 * time.Second, 15 * time.Second, 55 * time.Second},
			{"in the future, by a leader whose clock is ahead", time.Hour, 0, time.Minute},
			{"about to end", -time.Minute, 0, minTTL},
			{"overdue and alive", -time.Hour, 0, minTTL},
		} {
			if got := k.left(time.Minute, server.Add(tt.stored), heard.Add(tt.now)); got != tt.want {
				t.Errorf("skew %v, %s: %v is left; want %v", skew, tt.name, got, tt.want)
			}
		}
	}
	if got := (&consumer{}).left(time.Minute, heard.Add(-time.Hour), heard); got != time.Minute {
		t.Errorf("with a server that does not tell its time %v is left; want all of it", got)
	}
	if got := (&consumer{clock: heard, heard: heard}).left(time.Millisecond, heard, heard); got != time.Millisecond {
		t.Errorf("%v is left; want no more than there was", got)
	}
}

// Names that differ have different consumers, and every name can be one.
func TestConsumerNames(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range [][2]string{{"site/bus", "in"}, {"site/bus-in", ""}, {"site", "bus/in"}, {"site.bus", "in"}, {"", ""}, {strings.Repeat("ü", 300), "*>\\ "}} {
		name := consumerName(n[0], n[1])
		if seen[name] {
			t.Errorf("%q has the name of another: %s", n, name)
		}
		seen[name] = true
		if err := checkName("consumer", name); err != nil || len(name) > 100 {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("Flogate-Header", "binary n=AA==")
	f.Add("Flogate-Field", "Correlation-Id=AA==")
	f.Add("Nats-TTL", "-9223372036854775808ns")
	f.Fuzz(func(_ *testing.T, name, value string) {
		decode(nats.Header{name: {value}})
	})
}
