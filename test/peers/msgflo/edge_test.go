//go:build peers

package msgflo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/gateway"
)

// site is a site file with brokers and a graph, and not a word about participants.
func site(graph string, blocks ...string) string {
	return fmt.Sprintf("site \"peers\" {}\n%sgraph \"main\" {\n  text = <<EOT\n%s\nEOT\n}\n", strings.Join(blocks, ""), graph)
}

// pending waits until every edge says that it waits for somebody.
func pending(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	g.Await("all edges to be pending, with the reason", func(s admin.Status) bool {
		for _, e := range s.Edges {
			if e.State != "pending" || e.Reason == "" {
				return false
			}
		}
		return len(s.Edges) > 0
	})
}

// libraries start a Repeat.
var libraries = map[string]func(t testing.TB, brokerURL, role string) *worker{
	"nodejs": func(t testing.TB, brokerURL, role string) *worker { return nodejs(t, brokerURL, role, repeat) },
	"noflo":  func(t testing.TB, brokerURL, role string) *worker { return noflo(t, brokerURL, role, "core/Repeat") },
}

// each runs a test for each library on each transport.
func each(t *testing.T, f func(t *testing.T, kind string, repeater func(t testing.TB, brokerURL, role string) *worker)) {
	for name, repeater := range libraries {
		for _, kind := range kinds {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				f(t, kind, repeater)
			})
		}
	}
}

func TestMessageComesOutThroughAnEdge(t *testing.T) {
	each(t, func(t *testing.T, kind string, repeater func(t testing.TB, brokerURL, role string) *worker) {
		h := open(t, kind)
		g := gateway.Open(t, site("first(Repeat) OUT -> IN second(Repeat)", h.block("house")))
		pending(t, g)
		out := h.hear(t, "second.OUT")
		first := repeater(t, h.URL(), "first")
		repeater(t, h.URL(), "second")
		g.AwaitFlowing()
		for _, body := range []string{`{"a":[1,"x",null]}`, `"text"`, `21.5`} {
			h.send(t, "first.IN", body)
			out.await(t, body)
		}

		var listed []admin.Participant
		if err := json.Unmarshal([]byte(gateway.Run(t, "participants", "--config", g.Site(), "--json")), &listed); err != nil {
			t.Fatal(err)
		}
		for _, role := range []string{"first", "second"} {
			i := slices.IndexFunc(listed, func(p admin.Participant) bool { return p.Role == role })
			if i < 0 {
				t.Fatalf("%s is not listed: %+v", role, listed)
			}
			p := listed[i]
			if p.State != "present" || p.From != "announced" || !p.InGraph || len(p.Announced) != 1 ||
				p.Announced[0].On[0].Broker != kind+".house" || p.Announced[0].First.IsZero() {
				t.Errorf("%s is listed as %+v", role, p)
			}
		}

		// A gateway that is gone and comes back finds everybody again.
		g.Kill()
		g.Start()
		g.AwaitFlowing()
		h.send(t, "first.IN", `"again"`)
		out.await(t, `"again"`)
		if !first.running() {
			t.Error("the participant has ended")
		}
	})
}

// The graph that MsgFlo's front page has.
const frontPage = `
# FILE: myservice.fbp
readenv(core/ReadEnv) OUT -> IN repeater(Repeat)
`

func TestGraphOfTheFrontPageRuns(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			noflo(t, h.URL(), "readenv", "core/ReadEnv", "GREETING=hello")
			nodejs(t, h.URL(), "repeater", repeat)
			g := gateway.Open(t, site(frontPage, h.block("house")))
			out := h.hear(t, "repeater.OUT")
			g.AwaitFlowing()
			h.send(t, "readenv.KEY", `"GREETING"`)
			out.await(t, `"hello"`)
		})
	}
}

func TestBrokersAreJoined(t *testing.T) {
	for from, to := range map[string]string{"mqtt": "amqp", "amqp": "mqtt"} {
		t.Run(from+" to "+to, func(t *testing.T) {
			t.Parallel()
			source, sink := open(t, from), open(t, to)
			g := gateway.Open(t, site("measure(Repeat) OUT -> IN store(core/Repeat)", source.block("field"), sink.block("office")))
			pending(t, g)
			out := sink.hear(t, "store.OUT")
			nodejs(t, source.URL(), "measure", repeat)
			noflo(t, sink.URL(), "store", "core/Repeat")
			g.AwaitFlowing()
			for i := range 100 {
				source.send(t, "measure.IN", strconv.Itoa(i+1))
			}
			for i := range 100 {
				out.await(t, strconv.Itoa(i+1))
			}
		})
	}
}

// TestInitialPacketIsSentToEachLifeOnce also shows that it comes when the participant does, and not before.
func TestInitialPacketIsSentToEachLifeOnce(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			g := gateway.Open(t, site("'GREETING' -> KEY readenv(core/ReadEnv) OUT -> IN repeater(Repeat)", h.block("house")))
			pending(t, g)
			out := h.hear(t, "repeater.OUT")
			nodejs(t, h.URL(), "repeater", repeat)
			readenv := noflo(t, h.URL(), "readenv", "core/ReadEnv", "GREETING=hello", "MARK=mark")
			for life := 1; life <= 3; life++ {
				within(t, fmt.Sprintf("initial packet %d", life), func() bool { return out.count(`"hello"`) >= life })
				announced(t, g, "readenv", life, 3)
				h.send(t, "readenv.KEY", `"MARK"`)
				within(t, "the mark", func() bool { return out.count(`"mark"`) == life })
				if n := out.count(`"hello"`); n != life {
					t.Errorf("life %d: %d initial packets have come", life, n)
				}
				readenv.kill()
				readenv.start()
			}
		})
	}
}

// announced waits until the latest of several lives of a participant has been heard of so many times more.
func announced(t *testing.T, g *gateway.Gateway, role string, lives, times int) {
	t.Helper()
	var last time.Time
	for range times {
		g.Await(role+" to announce itself again", func(s admin.Status) bool {
			for _, p := range s.Participants {
				if p.Role == role && len(p.Announced) == lives && p.Announced[lives-1].Last.After(last) {
					last = p.Announced[lives-1].Last
					return true
				}
			}
			return false
		})
	}
}

func TestEdgeWaitsForWhoHasLeft(t *testing.T) {
	each(t, func(t *testing.T, kind string, repeater func(t testing.TB, brokerURL, role string) *worker) {
		h := open(t, kind)
		quick := strings.Replace(h.block("house"), "}\n", "  silence = \"4s\"\n}\n", 1)
		g := gateway.Open(t, site("first(Repeat) OUT -> IN second(Repeat)", quick))
		out := h.hear(t, "second.OUT")
		repeater(t, h.URL(), "first")
		second := repeater(t, h.URL(), "second")
		g.AwaitFlowing()
		second.kill()
		g.Await("the edge to wait for second", func(s admin.Status) bool {
			return s.Edges[0].State == "pending" && strings.Contains(s.Edges[0].Reason, "second")
		})
		second.start()
		g.AwaitFlowing()
		h.send(t, "first.IN", "1")
		out.await(t, "1")
	})
}

// TestParticipantIsKilledAgainAndAgain kills one end of an edge ten times while messages flow. The edge recovers by itself; and
// on AMQP, where inports are acknowledged, nothing is lost.
func TestParticipantIsKilledAgainAndAgain(t *testing.T) {
	const kills = 10
	for _, end := range []string{"first", "second"} {
		for _, kind := range kinds {
			t.Run(kind+"/"+end, func(t *testing.T) {
				t.Parallel()
				h := open(t, kind)
				g := gateway.Open(t, site("first(Repeat) OUT -> IN second(Repeat)", h.block("house")))
				out := h.hear(t, "second.OUT")
				workers := map[string]*worker{"first": nodejs(t, h.URL(), "first", repeat), "second": nodejs(t, h.URL(), "second", repeat)}
				g.AwaitFlowing()

				ctx, stop := context.WithTimeout(t.Context(), 4*time.Minute)
				defer stop()
				sent := make(chan int, 1)
				go func() { sent <- flow(ctx, t, h, "first.IN") }()
				for range kills {
					before := len(out.all())
					within(t, "messages to flow", func() bool { return len(out.all()) > before+10 })
					workers[end].kill()
					workers[end].start()
				}
				before := len(out.all())
				within(t, "messages to flow again", func() bool { return len(out.all()) > before+10 })
				stop()
				n := <-sent
				if kind == "mqtt" {
					return // the library subscribes with QoS 0, and nobody keeps anything for one who is gone
				}
				arrived := func() (missing []int) {
					came := map[string]bool{}
					for _, body := range out.all() {
						came[body] = true
					}
					for i := range n {
						if !came[strconv.Itoa(i)] {
							missing = append(missing, i)
						}
					}
					return missing
				}
				for deadline := time.Now().Add(time.Minute); len(arrived()) > 0 && time.Now().Before(deadline); {
					time.Sleep(50 * time.Millisecond)
				}
				if missing := arrived(); len(missing) > 0 {
					t.Errorf("%d of %d messages are lost: %v", len(missing), n, missing[:min(20, len(missing))])
				}
				t.Logf("%d messages, %d kills, %d came twice", n, kills, len(out.all())-n)
			})
		}
	}
}

// flow sends numbers until ctx ends, and returns how many. They come a little faster than msgflo-nodejs passes them on, which
// holds two at a time and sends with Nagle's algorithm: so some are on the way at every kill.
func flow(ctx context.Context, t *testing.T, h house, queue string) int {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n
		}
		// What is begun is ended: a message that may be there or not cannot be counted.
		if err := h.publish(context.WithoutCancel(ctx), queue, strconv.Itoa(n)); err != nil {
			t.Errorf("message %d: %v", n, err)
			return n
		}
	}
}
