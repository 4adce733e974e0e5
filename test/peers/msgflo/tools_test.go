//go:build peers

package msgflo

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/test/gateway"
	"github.com/flogate/flogate/test/peers/npm"
)

// msgflo runs one of MsgFlo's tools in this folder and returns what it has printed.
func msgflo(t testing.TB, tool string, args ...string) string {
	t.Helper()
	install(t)
	return string(npm.Run(t, ".", nil, "node", append([]string{"node_modules/.bin/" + tool}, args...)...))
}

func TestProcfilesAreTheSame(t *testing.T) {
	// MsgFlo's own fails for a node that only routes, unless it is told to ignore it.
	want := msgflo(t, "msgflo-procfile", "graphs/work.fbp", "--ignore", "share", "--include", "web: node web.js")
	got := gateway.Run(t, "procfile", "graphs/work.fbp", "--include", "web: node web.js")
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); diff != "" {
		t.Errorf("(-msgflo-procfile +flogate procfile):\n%s", diff)
	}
}

func TestForeignParticipantIsAnnouncedTheSame(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			announced := h.read(t, "fbp")
			heard := func(n int) discovery.Definition {
				t.Helper()
				within(t, "the announcement", func() bool { return len(announced.all()) >= n })
				def, err := discovery.Parse([]byte(announced.all()[n-1]))
				if err != nil {
					t.Fatal(err)
				}
				return def
			}
			theirs := start(t, h.URL(), nil, "node_modules/.bin/msgflo-register", "--role", "lamp:lamp.yml")
			want := heard(1)
			theirs.kill()
			n := len(announced.all())
			gateway.Run(t, "register", "--forever=false", "--broker", h.URL(), "--role", "lamp:lamp.yml")
			got := heard(n + 1)
			got.Heartbeat = want.Heartbeat // which only ours announces
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-msgflo-register +flogate register):\n%s", diff)
			}
		})
	}
}

// TestSetupsBindTheSame compares what msgflo-setup and flogate setup make on RabbitMQ; and after either, what is bound works, the
// other has nothing to add, and ours takes all of it back.
func TestSetupsBindTheSame(t *testing.T) {
	tools := map[string]func(t *testing.T, brokerURL string){
		"msgflo-setup": func(t *testing.T, brokerURL string) {
			msgflo(t, "msgflo-setup", "graphs/work.fbp", "--broker", brokerURL)
		},
		"flogate setup": func(t *testing.T, brokerURL string) {
			gateway.Run(t, "setup", "graphs/work.fbp", "--broker", brokerURL, "--data-dir", t.TempDir())
		},
	}
	topologies := map[string][]string{}
	for name, setup := range tools {
		t.Run(name, func(t *testing.T) {
			h := open(t, "amqp")
			announced := h.read(t, "fbp")
			noflo(t, h.URL(), "env", "core/ReadEnv", "GREETING=hello")
			for _, role := range []string{"jobs", "failed", "done"} {
				nodejs(t, h.URL(), role, repeat)
			}
			nodejs(t, h.URL(), "work", "participants/Choosy.js")
			within(t, "all to be there", func() bool { return lives(t, announced) == 5 })
			before := topology(h)
			setup(t, h.URL())
			made := topology(h)
			if slices.Equal(made, before) {
				t.Error("nothing was bound")
			}
			topologies[name] = made
			for other, again := range tools {
				again(t, h.URL())
				if diff := cmp.Diff(made, topology(h)); diff != "" {
					t.Errorf("%s after it (-before +after):\n%s", other, diff)
				}
			}

			done, failed := h.hear(t, "done.OUT"), h.hear(t, "failed.OUT")
			h.send(t, "env.KEY", `"GREETING"`)
			done.await(t, `"hello"`)
			failed.await(t, `"hello"`)
			h.send(t, "jobs.IN", `"bad"`)
			failed.await(t, `"bad"`)
			if n := done.count(`"hello"`) + done.count(`"bad"`); n != 1 {
				t.Errorf("%d messages came out", n)
			}

			gateway.Run(t, "setup", "graphs/work.fbp", "--broker", h.URL(), "--remove", "--data-dir", t.TempDir())
			for _, line := range topology(h) {
				if strings.HasPrefix(line, "bound") && !slices.Contains(before, line) && !strings.Contains(line, "amq.gen-") {
					t.Errorf("left after --remove: %s", line)
				}
			}
		})
	}
	if diff := cmp.Diff(topologies["msgflo-setup"], topologies["flogate setup"]); diff != "" {
		t.Errorf("(-msgflo-setup +flogate setup):\n%s", diff)
	}
}

// topology is what RabbitMQ has: queues, exchanges and bindings, with their properties, and without the ids of lives.
func topology(h house) []string {
	u, err := url.Parse(h.URL())
	if err != nil {
		return []string{err.Error()}
	}
	vhost := strings.TrimPrefix(u.Path, "/")
	lives := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)
	var all []string
	for what, columns := range map[string][]string{
		"queue":    {"list_queues", "name", "durable", "auto_delete", "arguments"},
		"exchange": {"list_exchanges", "name", "type", "durable", "auto_delete", "arguments"},
		"bound":    {"list_bindings", "source_name", "destination_name", "destination_kind", "routing_key", "arguments"},
	} {
		out := h.Ctl(append([]string{columns[0], "--vhost", vhost, "--no-table-headers"}, columns[1:]...)...)
		for line := range strings.Lines(out) {
			all = append(all, what+" "+lives.ReplaceAllString(strings.TrimRight(line, "\n"), "life"))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestDumpPrintsWhatIsSent reads with MsgFlo's tool what ours has sent. The other way cannot be shown: msgflo-send-message of
// MsgFlo 0.12.3 looks for a file that the package does not have.
func TestDumpPrintsWhatIsSent(t *testing.T) {
	const body = `{"a":[1,"x",null]}`
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			send := func() { gateway.Run(t, "send", "--broker", h.URL(), "--queue", "tools.IN", "--json", body) }
			if kind == "amqp" {
				send() // a queue that is not there cannot be dumped
			}
			dump := start(t, h.URL(), nil, "node_modules/.bin/msgflo-dump-message", "--queue", "tools.IN", "--amount", "1")
			for deadline := time.Now().Add(time.Minute); !strings.Contains(dump.output.String(), body); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("msgflo-dump-message prints nothing")
				}
				if kind == "mqtt" {
					send() // nobody keeps what came before it
				}
			}
		})
	}
}
