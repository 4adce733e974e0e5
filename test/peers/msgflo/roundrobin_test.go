//go:build peers

package msgflo

import (
	"slices"
	"strconv"
	"testing"

	"github.com/flogate/flogate/test/gateway"
)

// TestWorkersShareWhatARoundRobinGives: each message goes to one of the workers of a role, what they reject goes to the dead
// letters, and RabbitMQ does it by itself: also when the gateway is killed.
func TestWorkersShareWhatARoundRobinGives(t *testing.T) {
	h := open(t, "amqp")
	g := gateway.Open(t, site(`
jobs(Repeat) OUT -> IN share(msgflo/RoundRobin)
share OUT -> IN work(Choosy)
share DEADLETTER -> IN failed(Repeat)
`, h.block("house")))
	pending(t, g)
	out, failed := h.hear(t, "work.OUT"), h.hear(t, "failed.OUT")
	nodejs(t, h.URL(), "jobs", repeat)
	nodejs(t, h.URL(), "failed", repeat)
	workers := []*worker{nodejs(t, h.URL(), "work", "participants/Choosy.js"), nodejs(t, h.URL(), "work", "participants/Choosy.js")}
	g.AwaitFlowing()
	announced(t, g, "work", len(workers), 1)

	first := 0
	pour := func(when string, n int) {
		t.Helper()
		for i := first; i < first+n; i++ {
			h.send(t, "jobs.IN", strconv.Itoa(i))
		}
		h.send(t, "jobs.IN", `"bad"`)
		within(t, when+": all to come out", func() bool { return len(out.all()) >= first+n })
		came := slices.Sorted(slices.Values(out.all()))
		if len(came) != first+n || len(slices.Compact(came)) != first+n {
			t.Errorf("%s: of %d messages came out %v", when, first+n, came)
		}
		first += n
	}
	pour("with the gateway", 50)
	within(t, "the rejected one", func() bool { return failed.count(`"bad"`) == 1 })
	g.Kill()
	pour("without it", 50)
	within(t, "the rejected one", func() bool { return failed.count(`"bad"`) == 2 })

	workers[0].kill()
	pour("with one worker", 20)

	// The gateway that comes back finds everything as it was.
	g.Start()
	g.AwaitFlowing()
	pour("with the gateway again", 20)
}

// TestRolesShareWhatARoundRobinGives: of several roles each message goes to one, also where the broker knows no queues.
func TestRolesShareWhatARoundRobinGives(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			g := gateway.Open(t, site(`
jobs(Repeat) OUT -> IN share(msgflo/RoundRobin)
share OUT -> IN one(Repeat)
share OUT -> IN two(core/Repeat)
`, h.block("house")))
			pending(t, g)
			one, two := h.hear(t, "one.OUT"), h.hear(t, "two.OUT")
			nodejs(t, h.URL(), "jobs", repeat)
			nodejs(t, h.URL(), "one", repeat)
			noflo(t, h.URL(), "two", "core/Repeat")
			g.AwaitFlowing()
			const n = 50
			for i := range n {
				h.send(t, "jobs.IN", strconv.Itoa(i+1))
			}
			within(t, "all to come out", func() bool { return len(one.all())+len(two.all()) >= n })
			came := append(slices.Clone(one.all()), two.all()...)
			slices.Sort(came)
			if len(came) != n || len(slices.Compact(came)) != n {
				t.Errorf("of %d messages came out %v", n, came)
			}
			if len(one.all()) == 0 || len(two.all()) == 0 {
				t.Errorf("%d came to one and %d to the other", len(one.all()), len(two.all()))
			}
		})
	}
}
