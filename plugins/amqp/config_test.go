package amqp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/test/brokers"
)

func TestConfigIsRead(t *testing.T) {
	got, ps := parseConfig(json.RawMessage(`{"url":"amqps://u:p%40ss@[::1]/a%2Fb","password":"other","heartbeat":"5s","frame_size":8192,
		"max_message_size":1000,"tls":{"server_name":"rabbit"}}`))
	if err := ps.err(); err != nil {
		t.Fatal(err)
	}
	want := settings{
		addr: "[::1]:5671", user: "u", password: "other", vhost: "a/b", heartbeat: 5 * time.Second, frameSize: 8192,
		maxMessage: 1000, tls: &tlsSettings{ServerName: "rabbit"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(settings{})); d != "" {
		t.Error(d)
	}
	got, _ = parseConfig(json.RawMessage(`{"url":"amqp://"}`))
	if got.addr != "localhost:5672" || got.user != "guest" || got.vhost != "/" {
		t.Errorf("the defaults are %+v", got)
	}
}

// TestProblemsSayWhere lists mistakes by the attribute at which they are found, all at once.
func TestProblemsSayWhere(t *testing.T) {
	for _, test := range []struct {
		where transport.Part
		given string
		want  []string
	}{
		{transport.InConfig, `{}`, []string{"url"}},
		{transport.InConfig, `{"url":"http://x","auth":"kerberos","heartbeat":"1500ms","frame_size":1,"max_message_size":0}`, []string{"url", "auth", "heartbeat", "frame_size", "max_message_size"}},
		{transport.InConfig, `{"url":"amqp://x?heartbeat=5","tls":{}}`, []string{"url", "tls"}},
		{transport.InConfig, `{"url":"amqps://x","auth":"external"}`, []string{"auth"}},
		{transport.InConfig, `{"url":"amqps://x","tls":{"ca":"ca.pem","cert":"/etc/cert.pem","key":"key.pem"}}`, []string{"tls.ca", "tls.cert", "tls.key"}},
		{transport.InSource, `{"kind":"topic","routing_key":"a","prefetch":0,"expires":"soon","delivery_limit":3}`, []string{"kind", "prefetch", "delivery_limit", "expires"}},
		{transport.InSource, `{"kind":"queue","routing_key":"a","queue":"b"}`, []string{"routing_key", "queue"}},
		{transport.InSink, `{"routing_key":"a","window":0,"max_length":0,"queue_type":"stream","overflow":"x","exchange_type":"y"}`, []string{"routing_key", "window", "queue_type", "overflow", "exchange_type", "max_length"}},
		{transport.InSink, `{"kind":"exchange"}`, []string{"address"}},
		{transport.InSink, `{"no_such_option":1}`, []string{""}},
	} {
		var req transport.ValidateRequest
		raw := json.RawMessage(test.given)
		switch test.where {
		case transport.InConfig:
			req.Config = raw
		case transport.InSource:
			req.Sources = []transport.Source{{Address: "a", Options: raw}}
		case transport.InSink:
			req.Sinks = []transport.Sink{{Options: raw}}
		}
		res, err := New(slog.New(slog.DiscardHandler)).Validate(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range res.Problems {
			got = append(got, strings.Join(p.Path, "."))
			if p.Where != test.where {
				t.Errorf("%s: problem %+v is in another part", test.given, p)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: problems at %q, want %q", test.given, got, test.want)
		}
	}
}

// TestPathInPlaceOfPEMIsNeverOpened gives the path of a good file: the driver reads no files, and says who does.
func TestPathInPlaceOfPEMIsNeverOpened(t *testing.T) {
	authority := brokers.NewAuthority(t)
	cert, key := authority.Client("flogate")
	config := fmt.Appendf(nil, `{"url":"amqps://127.0.0.1:1","tls":{"ca":%q,"cert":%q,"key":%q}}`, authority.CAFile(), cert, key)
	d := New(slog.New(slog.DiscardHandler))
	res, err := d.Validate(t.Context(), transport.ValidateRequest{Config: config})
	must(t, err)
	if len(res.Problems) != 3 {
		t.Fatalf("problems are %+v, want one for each path", res.Problems)
	}
	for _, p := range res.Problems {
		if name := p.Path[len(p.Path)-1]; !strings.Contains(p.Message, name+` = file("`) || strings.Contains(p.Message, ".pem") {
			t.Errorf("%s: %q; want the advice, and not the value, which may be a secret", name, p.Message)
		}
	}
	if _, err := d.Connect(t.Context(), transport.ConnectRequest{Config: config}); !transport.IsPermanent(err) || !strings.Contains(err.Error(), "tls.key") {
		t.Errorf("connect: %v; want the same, before anything is dialled", err)
	}
}

func TestNoProblemTellsThePassword(t *testing.T) {
	for _, url := range []string{
		"amqp://user:hunter2/secret@host", "amqp://user:hunter2%zz@host", "amqp://user:hunter2 x@host", "amqp:user:hunter2@host",
		"://user:hunter2@host", "http://user:hunter2@host", "amqp://user:hunter2@host?x=1", "amqp://user:hunter2@host:port",
	} {
		raw, err := json.Marshal(map[string]string{"url": url})
		if err != nil {
			t.Fatal(err)
		}
		_, ps := parseConfig(raw)
		if len(ps) == 0 {
			t.Errorf("%s: nothing is wrong with it", url)
		}
		if err := ps.err(); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOwnQueueFitsAndDiffers(t *testing.T) {
	long := strings.Repeat("x", 300)
	a, b := ownQueue("site/broker", long+"a"), ownQueue("site/broker", long+"b")
	if len(a) > maxShort || len(b) > maxShort || a == b {
		t.Errorf("names are %q and %q", a, b)
	}
	if got := ownQueue("site/work", "feed"); got != "flogate.site/work.feed" {
		t.Errorf("the name is %q", got)
	}
}

// TestPlaces: a feed whose ends are one place has nothing to carry.
func TestPlaces(t *testing.T) {
	place := func(src, sink string) (string, string) {
		s, _ := parseSource("", transport.Source{Address: "a", Options: json.RawMessage(src)})
		d, _ := parseSink(transport.Sink{Address: "a", Options: json.RawMessage(sink)})
		return s.traits().Place, d.traits().Place
	}
	for _, test := range []struct {
		src, sink string
		one       bool
	}{
		{`{}`, `{}`, true},
		{`{"kind":"queue"}`, `{}`, true},
		{`{"kind":"exchange"}`, `{"kind":"exchange"}`, true},
		{`{"kind":"exchange"}`, `{}`, false},
		{`{"kind":"queue"}`, `{"kind":"exchange"}`, false},
	} {
		if src, sink := place(test.src, test.sink); (src == sink) != test.one {
			t.Errorf("%s and %s are %q and %q", test.src, test.sink, src, sink)
		}
	}
}

func TestOnlyWhatMeansTheSameIsBoundByTheBroker(t *testing.T) {
	for options, want := range map[string]transport.PlaceKind{
		`{}`:                             transport.Fanout,
		`{"kind":"exchange"}`:            transport.Fanout,
		`{"kind":"queue"}`:               0,
		`{"routing_key":"a.#"}`:          0,
		`{"queue":"mine"}`:               0,
		`{"exchange_type":"topic"}`:      0,
		`{"declare":true,"prefetch":10}`: transport.Fanout,
	} {
		s, _ := parseSource("", transport.Source{Address: "a", Options: json.RawMessage(options)})
		if got := s.traits().Kind; got != want {
			t.Errorf("source %s: kind %d", options, got)
		}
	}
	for _, test := range []struct {
		address, options string
		want             transport.PlaceKind
	}{
		{"a", `{}`, transport.Queue},
		{"a", `{"kind":"exchange"}`, 0},
		{"", `{}`, 0},
	} {
		s, _ := parseSink(transport.Sink{Address: test.address, Options: json.RawMessage(test.options)})
		if got := s.traits().Kind; got != test.want {
			t.Errorf("sink %q %s: kind %d", test.address, test.options, got)
		}
	}
}
