package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// letter is a line of flogate dead list --json.
type letter struct {
	N        int       `json:"n"`
	Time     time.Time `json:"time"`
	Edge     string    `json:"edge"`
	Cause    string    `json:"cause"`
	Attempts int       `json:"attempts"`
	Size     int       `json:"size"`
	Begins   string    `json:"begins"`
	From     struct {
		Broker  string `json:"broker"`
		Address string `json:"address"`
	} `json:"from"`
}

// name is how the test's messages begin.
func (l letter) name() string { return strings.TrimRight(l.Begins, ".") }

func names(letters []letter) (list []string) {
	for _, l := range letters {
		list = append(list, l.name())
	}
	return list
}

// flogate runs a command of which the test knows that it fails.
func flogate(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, gateway.Program(t), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return code, string(text)
}

func deadList(t *testing.T, g *gateway.Gateway, args ...string) (list []letter) {
	t.Helper()
	out := gateway.Run(t, append([]string{"dead", "list", "-c", g.Site(), "--json", "--wait", "3s"}, args...)...)
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var l letter
		if err := dec.Decode(&l); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		list = append(list, l)
	}
	return list
}

func TestDeadLettersAreKeptListedRedrivenAndDropped(t *testing.T) {
	const edge = "a.out -> b.in"
	for name, where := range map[string]struct {
		start   func(t *testing.T) *brokers.Broker
		block   string
		options string
	}{
		"mqtt": {
			// Without it mosquitto shows twenty at a time.
			func(t *testing.T) *brokers.Broker {
				return brokers.Mosquitto(t, brokers.Config("max_inflight_messages 0"))
			},
			"broker \"mqtt\" \"dead\" {\n  url = %q\n}\n", "",
		},
		"amqp queue": {
			func(t *testing.T) *brokers.Broker { return brokers.RabbitMQ(t) },
			"broker \"amqp\" \"dead\" {\n  url = %q\n}\n", "",
		},
		"amqp exchange": {
			func(t *testing.T) *brokers.Broker { return brokers.RabbitMQ(t) },
			"broker \"amqp\" \"dead\" {\n  url = %q\n}\n", "dead_letter_options {\n    kind = \"exchange\"\n  }\n",
		},
		"jetstream": {
			func(t *testing.T) *brokers.Broker { return brokers.NATS(t) },
			"broker \"nats\" \"dead\" {\n  url = %q\n}\n", "dead_letter_options {\n    stream = \"DEAD\"\n    create_stream {}\n  }\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			house, dead := brokers.Mosquitto(t), where.start(t)
			kind, _, _ := strings.Cut(name, " ")
			if kind == "jetstream" {
				kind = "nats"
			}
			site := func(limit string) string {
				return fmt.Sprintf("site \"e2e\" {}\nbroker \"mqtt\" \"house\" {\n  url = %q\n}\nbroker \"mqtt\" \"small\" {\n  url = %q\n  %s\n}\n"+where.block,
					house.URL(), house.URL(), limit, dead.URL()) + fmt.Sprintf(`
graph "main" {
  text = "a(e2e/A) OUT -> IN b(e2e/B)"
}
participant "a" {
  component = "e2e/A"
  broker    = broker.mqtt.house
  outport "out" { address = "in" }
}
participant "b" {
  component = "e2e/B"
  broker    = broker.mqtt.small
  inport "in" { address = "out" }
}
edge "a.out" "b.in" {
  require            = "at-least-once"
  dead_letter        = "letters"
  dead_letter_broker = broker.%s.dead
  %s
}
`, kind, where.options)
			}
			var mu sync.Mutex
			var arrived []string
			sink, err := mqttSide{}.connect(house.URL(), "sink", true, func(_ mqtt.Client, m mqtt.Message) {
				mu.Lock()
				defer mu.Unlock()
				arrived = append(arrived, strings.TrimRight(string(m.Payload()), "."))
			})
			if err != nil {
				t.Fatal(err)
			}
			defer sink.Disconnect(0)
			if token := sink.Subscribe("out", 1, nil); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
				t.Fatal(token.Error())
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(arrived)
			}

			g := gateway.Open(t, site("max_message = 500"))
			g.AwaitFlowing()
			if got := deadList(t, g); len(got) != 0 {
				t.Fatalf("dead letters of nothing: %v", got)
			}
			const large = 30
			var want []string
			for i := range large {
				name := fmt.Sprintf("large%02d", i)
				want = append(want, name)
				if token := sink.Publish("in", 1, false, name+strings.Repeat(".", 1000)); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
					t.Fatal(token.Error())
				}
				sink.Publish("in", 1, false, fmt.Sprintf("small%02d", i)).WaitTimeout(10 * time.Second)
			}
			g.Await("the dead letters", func(s admin.Status) bool { return len(s.Edges) == 1 && s.Edges[0].DeadLetters == large })

			// Everything is there, with all that is known of it, and stays there.
			for range 2 {
				got := deadList(t, g, edge)
				if !slices.Equal(names(got), want) {
					t.Fatalf("listed %v", names(got))
				}
				for i, l := range got {
					if l.N != i+1 || l.Edge != edge || !strings.Contains(l.Cause, "max_message") || l.From.Address != "in" || l.From.Broker != "mqtt.house" ||
						l.Size != 1007 || time.Since(l.Time) > time.Hour || l.Attempts != 1 {
						t.Errorf("letter %d is %+v", i+1, l)
					}
				}
			}
			if got := gateway.Run(t, "dead", "show", "-c", g.Site(), "a.out", "b.in", "3", "--raw", "--wait", "3s"); got != "large02"+strings.Repeat(".", 1000) {
				t.Errorf("shown: %q", got)
			}
			if got := gateway.Run(t, "dead", "show", "-c", g.Site(), "3", "--wait", "3s"); !strings.Contains(got, "mqtt.house in") || !strings.Contains(got, "large02..") {
				t.Errorf("shown: %s", got)
			}

			// What is dropped is gone, and only that.
			if code, out := flogate(t, "dead", "drop", "-c", g.Site(), edge, "2"); code != 2 || !strings.Contains(out, "--yes") {
				t.Errorf("dropped without being asked: %d %s", code, out)
			}
			gateway.Run(t, "dead", "drop", "-c", g.Site(), edge, "2", "5-6", "--yes", "--wait", "3s")
			want = slices.Concat(want[:1], want[2:4], want[6:])
			if got := names(deadList(t, g)); !slices.Equal(got, want) {
				t.Fatalf("after dropping three: %v", got)
			}

			// What is refused again stays, with the new time and behind the others.
			code, out := flogate(t, "dead", "redrive", "-c", g.Site(), edge, "1", "--wait", "3s")
			if code != 1 || !strings.Contains(out, "refused again") {
				t.Errorf("redriven without a mend: %d %s", code, out)
			}
			want = append(want[1:], want[0])
			got := deadList(t, g)
			if !slices.Equal(names(got), want) || got[len(got)-1].Attempts != 2 || !got[len(got)-1].Time.After(got[len(got)-2].Time) {
				t.Fatalf("after a redrive without a mend: %v, the last is %+v", names(got), got[len(got)-1])
			}

			// The site is mended. The command is killed in the middle, with the gateway.
			g.Write(site(""))
			g.Kill()
			before := count()
			cmd := exec.Command(gateway.Program(t), "dead", "redrive", "-c", g.Site(), "--all", "--wait", "3s")
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(30 * time.Second); count() < before+3 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			_ = cmd.Process.Kill() // it may have been faster
			_ = cmd.Wait()
			// The broker of the letters may need a moment to see that it is gone.
			for deadline := time.Now().Add(30 * time.Second); ; {
				code, out := flogate(t, "dead", "redrive", "-c", g.Site(), "--all", "--wait", "3s")
				if left := deadList(t, g); code == 0 && len(left) == 0 {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("left are %v: %s; the first said %s", names(left), out, &said)
				}
			}
			mu.Lock()
			redriven := slices.Clone(arrived[before:])
			mu.Unlock()
			if got := slices.Compact(slices.Clone(redriven)); len(redriven) > len(want)+1 || !slices.Equal(got, want) {
				t.Errorf("redriven %v;\nwant %v", redriven, want)
			}
		})
	}
}
