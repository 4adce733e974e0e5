package filetransport_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/core/transport/transporttest"

	"github.com/flogate/flogate/examples/transport-file/filetransport"
)

func open() transport.Driver { return filetransport.New(slog.New(slog.DiscardHandler)) }

func TestFileKeepsTheContract(t *testing.T) {
	dir := t.TempDir()
	n := 0
	pair := func(testing.TB) (transport.Source, transport.Sink) {
		n++
		name := "f" + strconv.Itoa(n)
		return transport.Source{Address: name}, transport.Sink{Address: name}
	}
	transporttest.Run(t, transporttest.Target{
		New: func(testing.TB) transport.Driver { return open() },
		Config: func(testing.TB) json.RawMessage {
			return json.RawMessage(`{"directory":` + strconv.Quote(dir) + `,"format":"json"}`)
		},
		Pair:    pair,
		Has:     transporttest.Capabilities{Acks: true, Confirms: true, Durable: true, ReleaseAtOnce: true},
		Carries: transporttest.AllFields &^ transporttest.FieldRedelivered &^ transporttest.FieldAttempt,
		Refused: func(t testing.TB) (transport.Source, transport.Sink, transport.Message, transport.Message) {
			src, sink := pair(t)
			good, bad := transport.Message{Body: []byte("1"), Address: sink.Address}, transport.Message{Body: []byte("2"), Address: "../outside"}
			return src, transport.Sink{}, good, bad
		},
		Odd: func(t testing.TB) []transporttest.Pair {
			var pairs []transporttest.Pair
			for _, name := range []string{" a b ", "é☃", "%2e%2e", strings.Repeat("long", 20)} {
				pairs = append(pairs, transporttest.Pair{Source: transport.Source{Address: name}, Sink: transport.Sink{Address: name}})
			}
			return pairs
		},
		Lacks: map[string]string{
			"TooLarge":  "a line may have any length",
			"Cut":       "a folder has no connection",
			"Blackhole": "a folder has no connection",
			"Restart":   "a folder has no server",
			"Block":     "a folder does not ask anybody to wait",
			"Filtered":  "addresses are files, not filters",
			"Place":     "files copy nothing to one another",
		},
	})
}

func TestTextIsPlainLines(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("one\n\ntwo\nhalf"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := open().Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{"directory":` + strconv.Quote(dir) + `}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	sub, err := conn.Subscribe(ctx, transport.Source{Name: "s", Address: "in", Window: transport.Credit{Messages: 10, Bytes: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Grant(transport.Credit{Messages: 10, Bytes: 1000}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 3 {
		ds, err := sub.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			got = append(got, string(d.Body))
		}
	}
	if s := strings.Join(got, "|"); s != "one||two" {
		t.Errorf("lines are %s", s)
	}

	// What somebody has left unfinished is cut off, and nothing else.
	if err := os.WriteFile(filepath.Join(dir, "out"), []byte("old\nhal"), 0o600); err != nil {
		t.Fatal(err)
	}
	pub, err := conn.Publish(ctx, transport.Sink{Name: "p", Address: "out"})
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(ctx, []transport.Message{{Body: []byte("new")}, {Body: []byte("line\nbreak")}, {Body: []byte("newer")}}); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for next := uint64(1); next <= 3; {
		cs, err := pub.Confirms(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			if c.Refused != nil {
				refused++
			}
			next = c.Last + 1
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != "old\nnew\nnewer\n" || refused != 1 {
		t.Errorf("the file holds %q, and %d messages were refused", b, refused)
	}
}

func TestAddressesStayInTheFolder(t *testing.T) {
	d := open()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := d.Connect(ctx, transport.ConnectRequest{Name: "n", Config: json.RawMessage(`{"directory":` + strconv.Quote(t.TempDir()) + `}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, address := range []string{"../x", "/etc/passwd", ".flogate/x", ".flogate"} {
		if _, err := conn.Subscribe(ctx, transport.Source{Address: address}); !transport.IsPermanent(err) {
			t.Errorf("subscribe %s: %v", address, err)
		}
		if _, err := conn.Publish(ctx, transport.Sink{Address: address}); !transport.IsPermanent(err) {
			t.Errorf("publish to %s: %v", address, err)
		}
		r, err := d.Validate(ctx, transport.ValidateRequest{Sources: []transport.Source{{Address: address}}})
		if err != nil || len(r.Problems) != 1 || len(r.Sources) != 1 {
			t.Errorf("validate %s: %+v, %v", address, r, err)
		}
	}
}
