//go:build peers

package msgflo

import (
	"context"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/broker"
	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/transport"
	"github.com/flogate/flogate/plugins/amqp"
	"github.com/flogate/flogate/plugins/mqtt"
)

var update = flag.Bool("update", false, "record what participants announce into core/discovery/testdata")

// recorded are the announcements of participants in the folder of core/discovery, by role.
var recorded = map[string]string{
	"repeat":   "msgflo-nodejs-repeat.json",
	"hall":     "msgflo-nodejs-sensor.json",
	"repeater": "noflo-runtime-msgflo-repeat.json",
}

const messages = "../../../core/discovery/testdata/messages"

// Each life of a participant has another id.
var life = regexp.MustCompile(`-[0-9a-f]{8}-[0-9a-f-]{27}"`)

// TestAnnouncementsAreAsRecorded compares what participants say with what the tests of core/discovery take it to be, letter
// for letter, and has core/discovery hear them.
func TestAnnouncementsAreAsRecorded(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := open(t, kind)
			nodejs(t, h.URL(), "repeat", repeat)
			nodejs(t, h.URL(), "hall", "participants/Sensor.js")
			noflo(t, h.URL(), "repeater", "core/Repeat")
			if !*update {
				registered(t, h)
			}
			compare(t, h.read(t, "fbp")) // on AMQP one reads what the other does not
		})
	}
}

func compare(t *testing.T, announced *heard) {
	t.Helper()
	for role, file := range recorded {
		var body string
		within(t, "the announcement of "+role, func() bool {
			for _, b := range announced.all() {
				if strings.Contains(b, `"role":"`+role+`"`) {
					body = b
				}
			}
			return body != ""
		})
		path := filepath.Join(messages, file)
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if *update { // all but the life
			want = []byte(life.ReplaceAllLiteralString(body, life.FindString(string(want))) + "\n")
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		same := func(s string) string { return life.ReplaceAllString(strings.TrimSpace(s), `-life"`) }
		if diff := cmp.Diff(same(string(want)), same(body)); diff != "" {
			t.Errorf("%s no longer says what %s has (-recorded +said):\n%s", role, file, diff)
		}
	}
}

// registered waits until a Registry knows everybody, and compares what it knows.
func registered(t *testing.T, h house) {
	t.Helper()
	driver, name := mqtt.New(slog.New(slog.DiscardHandler)), "mqtt"
	if strings.HasPrefix(h.URL(), "amqp") {
		driver, name = amqp.New(slog.New(slog.DiscardHandler)), "amqp"
	}
	settings, err := json.Marshal(map[string]string{"url": h.URL()})
	if err != nil {
		t.Fatal(err)
	}
	b := broker.New(broker.Config{
		Name:    name,
		Request: transport.ConnectRequest{Name: "test", Config: settings},
		Driver:  func(context.Context) (transport.Driver, error) { return driver, nil },
	})
	registry := discovery.NewRegistry(discovery.Config{})
	l := discovery.Listener{Broker: name, Open: b.Conn, Addresses: discovery.AddressesOn(name, nil), Registry: registry}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- l.Run(ctx) }()
	brokerCtx, cancelBroker := context.WithCancel(t.Context())
	go func() { ended <- b.Run(brokerCtx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		cancelBroker()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	within(t, "everybody to be registered", func() bool { return len(registry.Snapshot()) == len(recorded) })
	for _, p := range registry.Snapshot() {
		body, err := os.ReadFile(filepath.Join(messages, recorded[p.Definition.Role]))
		if err != nil {
			t.Fatal(err)
		}
		want, err := discovery.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		want.ID = p.Definition.ID
		if diff := cmp.Diff(want, p.Definition); diff != "" {
			t.Errorf("%s (-recorded +heard):\n%s", p.Definition.Role, diff)
		}
	}
	if n := registry.Counts()[name]; n.Malformed+n.Dropped > 0 {
		t.Errorf("refused: %+v", n)
	}
}
