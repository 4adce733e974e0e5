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
