package roster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/core/roster"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// driver answers as a driver does, and counts how often it was asked.
type driver struct {
	mu    sync.Mutex
	asked int
	err   error
	// hangs, if not nil, says whether it does not answer at all until ctx ends.
	hangs func(broker string, asked int) bool
}

func (d *driver) validate(ctx context.Context, broker string, req transport.ValidateRequest) (transport.ValidateResult, error) {
	d.mu.Lock()
	d.asked++
	hangs := d.hangs != nil && d.hangs(broker, d.asked)
	d.mu.Unlock()
	if hangs {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		<-ctx.Done()
		return transport.ValidateResult{}, ctx.Err()
	}
	if d.err != nil {
		return transport.ValidateResult{}, d.err
	}
	var res transport.ValidateResult
	for i, s := range req.Sinks {
		if strings.Contains(s.Address, "#") {
			res.Problems = append(res.Problems, transport.Problem{Where: transport.InSink, Index: i, Message: "a sink is no filter"})
		}
	}
	if res.Problems != nil {
		return res, nil
	}
	for _, s := range req.Sources {
		res.Sources = append(res.Sources, transport.Traits{Acks: true, Place: "source:" + s.Address})
	}
	for _, s := range req.Sinks {
		res.Sinks = append(res.Sinks, transport.Traits{Confirms: true, Place: "sink:" + s.Address})
	}
	return res, nil
}

// scene is a site in which participants come and go.
type scene struct {
	t   *testing.T
	reg *discovery.Registry
	drv *driver
	*roster.Roster
	in roster.Input
}

func newScene(t *testing.T, nodes ...string) *scene {
	s := &scene{t: t, reg: discovery.NewRegistry(discovery.Config{}), drv: &driver{}}
	s.Roster = roster.New(s.drv.validate)
	s.in.Now = start
	for _, n := range nodes {
		s.in.Nodes = append(s.in.Nodes, roster.Node{Role: n, Component: "lib/" + n})
	}
	return s
}

// announce announces a participant; in and out are the addresses of ports with these names.
func (s *scene) announce(broker, id, role, in, out string) {
	s.t.Helper()
	def := discovery.Definition{ID: id, Role: role, Component: "real/" + role}
	if in != "" {
		def.Inports = []discovery.Port{{ID: "in", Type: "any", Queue: in}}
	}
	if out != "" {
		def.Outports = []discovery.Port{{ID: "out", Type: "any", Queue: out}}
	}
	if _, err := s.reg.Seen(discovery.Place{Broker: broker, Address: "fbp"}, def, s.in.Now); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) cast() roster.Cast {
	s.in.Announced = s.reg.Snapshot()
	return s.Cast(s.t.Context(), s.in)
}

func member(t *testing.T, c roster.Cast, role string) roster.Member {
	t.Helper()
	for _, m := range c.Members {
		if m.Role == role {
			return m
		}
	}
	t.Fatalf("no member %s", role)
	return roster.Member{}
}

func TestRoleIsThereWhileSomebodyPlaysIt(t *testing.T) {
	s := newScene(t, "a", "b")
	if c := s.cast(); len(c.Participants) != 0 || member(t, c, "a").State != roster.Absent || member(t, c, "a").Component != "lib/a" {
		t.Errorf("before anybody has come: %+v", c)
	}
	s.announce("mqtt.x", "a1", "a", "", "a/out")
	s.announce("mqtt.x", "z1", "z", "z/in", "")
	c := s.cast()
	want := map[string]route.Participant{
		"a": {
			Inports:     map[string]route.Port{},
			Outports:    map[string]route.Port{"out": {Broker: "mqtt.x", Address: "a/out", Type: "any", Traits: transport.Traits{Acks: true, Place: "source:a/out"}}},
			Incarnation: "1",
		},
		// Nobody has put it into a graph, and no driver was asked about it.
		"z": {
			Inports:     map[string]route.Port{"in": {Broker: "mqtt.x", Address: "z/in", Type: "any"}},
			Outports:    map[string]route.Port{},
			Incarnation: "2",
		},
	}
	if diff := cmp.Diff(want, c.Participants); diff != "" {
		t.Error(diff)
	}
	if z := member(t, c, "z"); z.InGraph || z.State != roster.Present || z.From != "announced" || z.Component != "real/z" {
		t.Errorf("one that is in no graph: %+v", z)
	}
	s.reg.Remove("a1")
	if c := s.cast(); len(c.Participants) != 1 || member(t, c, "a").State != roster.Absent {
		t.Errorf("after it has left: %+v", c)
	}
}

func TestLastOneInARoleSaysWhereItsPortsAre(t *testing.T) {
	s := newScene(t, "a")
	s.announce("mqtt.x", "a1", "a", "old", "")
	s.announce("mqtt.x", "a2", "a", "new", "")
	c := s.cast()
	if p := c.Participants["a"]; p.Inports["in"].Address != "new" || p.Incarnation != "2" {
		t.Errorf("it is %+v", p)
	}
	if w := member(t, c, "a").Warning; !strings.Contains(w, "old") || !strings.Contains(w, "new") {
		t.Errorf("the warning is %q", w)
	}
}

func TestParticipantOnTwoBrokersIsWiredWhereItWasSeenFirst(t *testing.T) {
	s := newScene(t, "a")
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	s.announce("amqp.y", "a1", "a", "a.IN", "")
	if p := s.cast().Participants["a"].Inports["in"]; p.Broker != "mqtt.x" || p.Address != "a/in" {
		t.Errorf("it is wired at %+v", p)
	}
	s.reg.RemoveBroker("mqtt.x")
	if p := s.cast().Participants["a"].Inports["in"]; p.Broker != "amqp.y" || p.Address != "a.IN" {
		t.Errorf("after the first broker has gone it is wired at %+v", p)
	}
}

func TestWhatTheSiteSaysWins(t *testing.T) {
	s := newScene(t, "a")
	traits := transport.Traits{Confirms: true, Place: "the site's"}
	s.in.Declared = []roster.Declared{{
		Role: "a", From: "site", Component: "site/A",
		Inports: []roster.Port{{Name: "IN", Broker: "amqp.y", Address: "site.IN", Traits: &traits}},
	}}
	if p := s.cast().Participants["a"]; p.Incarnation != "" || len(p.Outports) != 0 {
		t.Errorf("before anybody else says something it is %+v", p)
	}
	s.announce("mqtt.x", "a1", "a", "a/in", "a/out")
	c := s.cast()
	want := route.Participant{
		Inports: map[string]route.Port{"IN": {Broker: "amqp.y", Address: "site.IN", Traits: traits}},
		Outports: map[string]route.Port{"out": {
			Broker: "mqtt.x", Address: "a/out", Type: "any", Traits: transport.Traits{Acks: true, Place: "source:a/out"},
		}},
		Incarnation: "1",
	}
	if diff := cmp.Diff(want, c.Participants["a"]); diff != "" {
		t.Error(diff)
	}
	if m := member(t, c, "a"); m.Component != "site/A" || m.From != "site" || m.Warning == "" {
		t.Errorf("it is %+v", m)
	}
}

func TestStartedParticipantGetsNothingBeforeItListens(t *testing.T) {
	s := newScene(t, "a")
	run := &roster.Run{State: "running", Since: start}
	traits := transport.Traits{Confirms: true}
	s.in.Declared = []roster.Declared{{
		Role: "a", From: "site", Run: run, Inports: []roster.Port{{Name: "in", Broker: "mqtt.x", Address: "a/in", Traits: &traits}},
	}}
	type life struct {
		state       roster.State
		incarnation string
		waits       bool
	}
	check := func(when string, want life) {
		t.Helper()
		c := s.cast()
		p := c.Participants["a"]
		if got := (life{member(t, c, "a").State, p.Incarnation, p.Waiting != ""}); got != want {
			t.Errorf("%s it is %+v, not %+v", when, got, want)
		}
		if held := p.Inports["in"].Problem != ""; held != want.waits {
			t.Errorf("%s its edges wait: %v", when, held)
		}
		if again := want.state == roster.Starting; again != !c.Again.IsZero() {
			t.Errorf("%s: to be looked at again at %v", when, c.Again)
		}
	}
	first := fmt.Sprint("/", start.UnixNano())
	check("at the start", life{roster.Starting, first, true})
	s.in.Now = start.Add(roster.Grace)
	check("when it has been silent", life{roster.Running, first, false})
	s.in.Now = start.Add(roster.Grace + time.Second)
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	check("when it has announced itself", life{roster.Present, "1" + first, false})
	s.in.Now = s.in.Now.Add(time.Second)
	run.State, run.Reason, run.Since = "waiting", "exit status 1", s.in.Now
	check("when it has crashed", life{roster.Failed, fmt.Sprint("1/", s.in.Now.UnixNano()), true})
	s.in.Now = s.in.Now.Add(time.Second)
	run.State, run.Reason, run.Since = "running", "", s.in.Now
	second := fmt.Sprint("/", s.in.Now.UnixNano())
	check("when it runs again", life{roster.Starting, "1" + second, true})
	s.in.Now = s.in.Now.Add(time.Second)
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	check("when it has announced itself under the same id", life{roster.Present, "1" + second, false})
	s.reg.Remove("a1")
	s.in.Now = s.in.Now.Add(roster.Grace)
	check("when what it has announced is forgotten", life{roster.Running, "1" + second, false})
	// Somebody else plays the role too, and is not held up by ours.
	run.State, run.Since = "waiting", s.in.Now
	s.in.Now = s.in.Now.Add(time.Second)
	s.announce("mqtt.x", "elsewhere", "a", "a/in", "")
	check("when ours has crashed and another is there", life{roster.Present, fmt.Sprint("2/", run.Since.UnixNano()), false})
}

func TestProgramWithoutPortsIsSaidToHaveNone(t *testing.T) {
	s := newScene(t, "a")
	s.in.Declared = []roster.Declared{{Role: "a", From: "library", Run: &roster.Run{State: "running", Since: start}}}
	s.in.Now = start.Add(roster.Grace)
	if p := s.cast().Participants["a"]; !strings.Contains(p.Waiting, "has not said which ports it has") {
		t.Errorf("it is waited for because of %q", p.Waiting)
	}
}

func TestProgramThatIsStartedAnewIsAnotherLife(t *testing.T) {
	s := newScene(t, "a")
	run := &roster.Run{State: "running", Since: start}
	s.in.Declared = []roster.Declared{{Role: "a", From: "library", Run: run}}
	var lives []string
	for range 2 {
		// Its id is the same in each life, and it has announced itself before anybody has looked.
		s.in.Now = run.Since.Add(time.Second)
		s.announce("mqtt.x", "a1", "a", "a/in", "")
		p := s.cast().Participants["a"]
		if p.Waiting != "" {
			t.Fatalf("it is waited for: %s", p.Waiting)
		}
		lives = append(lives, p.Incarnation)
		run.Since = s.in.Now.Add(time.Second) // another task, whose restarts are none again
	}
	if lives[0] == lives[1] {
		t.Errorf("both lives are %s: the second would get no initial packets", lives[0])
	}
}

func TestWhoGoesLeavesNobodyAnotherLife(t *testing.T) {
	s := newScene(t, "a")
	life := func() string { return s.cast().Participants["a"].Incarnation }
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	first := life()
	s.announce("mqtt.x", "a2", "a", "a/in", "")
	second := life()
	if first == second {
		t.Errorf("two workers are one life, %s", first)
	}
	s.reg.Remove("a2")
	if got := life(); got != second {
		t.Errorf("when the second has left, life %s has begun: the first would get its initial packets again", got)
	}
	s.announce("mqtt.x", "a2", "a", "a/in", "")
	if got := life(); got == first || got == second {
		t.Errorf("the one that has come back lives life %s", got)
	}
	s.reg.Remove("a1")
	s.reg.Remove("a2")
	s.cast()
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	if got := life(); got == first || got == second {
		t.Errorf("after everybody has left, the one that comes back lives life %s", got)
	}
}

func TestWhomTheSiteDeclaresDoesNotBeginAnewWhenItIsSilent(t *testing.T) {
	s := newScene(t, "a")
	s.in.Declared = []roster.Declared{{Role: "a", From: "site", Inports: []roster.Port{{Name: "in", Broker: "mqtt.x", Address: "a/in"}}}}
	s.announce("mqtt.x", "a1", "a", "", "")
	before := s.cast().Participants["a"].Incarnation
	s.reg.Remove("a1")
	if after := s.cast().Participants["a"].Incarnation; after != before {
		t.Errorf("life %q has become life %q", before, after)
	}
}

func TestDriversAreAskedOnce(t *testing.T) {
	s := newScene(t, "a", "b")
	s.announce("mqtt.x", "a1", "a", "a/in", "a/out")
	s.announce("mqtt.x", "b1", "b", "b/in", "b/out")
	for range 3 {
		s.cast()
	}
	if s.drv.asked != 1 {
		t.Errorf("asked %d times", s.drv.asked)
	}
	s.Forget()
	s.cast()
	if s.drv.asked != 2 {
		t.Errorf("asked %d times after brokers have changed", s.drv.asked)
	}
}

func TestBadPortHarmsNoOther(t *testing.T) {
	s := newScene(t, "a", "b")
	s.announce("mqtt.x", "a1", "a", "a/#", "a/out")
	s.announce("mqtt.x", "b1", "b", "b/in", "")
	c := s.cast()
	if p := c.Participants["a"].Inports["in"].Problem; !strings.Contains(p, "a sink is no filter") {
		t.Errorf("the problem is %q", p)
	}
	for what, p := range map[string]route.Port{"a.out": c.Participants["a"].Outports["out"], "b.in": c.Participants["b"].Inports["in"]} {
		if p.Problem != "" || p.Traits == (transport.Traits{}) {
			t.Errorf("%s is %+v", what, p)
		}
	}
}

func TestDriverThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	s := newScene(t, "a")
	s.drv.err = errors.New("no plugin")
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	for range 2 {
		c := s.cast()
		if p := c.Participants["a"].Inports["in"].Problem; !strings.Contains(p, "no plugin") {
			t.Errorf("the problem is %q", p)
		}
		if c.Again.Before(start.Add(time.Second)) || c.Again.After(start.Add(10*time.Second)) {
			t.Errorf("it is asked again at %s", c.Again)
		}
	}
	if s.drv.asked != 1 {
		t.Errorf("asked %d times in one moment", s.drv.asked)
	}
	s.in.Now = s.cast().Again
	s.drv.err = nil
	c := s.cast()
	if p := c.Participants["a"].Inports["in"]; p.Problem != "" || !p.Traits.Confirms {
		t.Errorf("it is %+v", p)
	}
	if !c.Again.IsZero() {
		t.Errorf("to be looked at again at %v", c.Again)
	}
}

func TestDriverThatDoesNotAnswerIsAskedLessAndLess(t *testing.T) {
	s := newScene(t, "a")
	s.drv.err = errors.New("no plugin")
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	for end := start.Add(10 * time.Minute); s.in.Now.Before(end); {
		again := s.cast().Again
		if !again.After(s.in.Now) {
			t.Fatalf("at %s it is to be asked again at %s", s.in.Now, again)
		}
		s.in.Now = again
	}
	if s.drv.asked < 20 || s.drv.asked > 30 {
		t.Errorf("asked %d times in 10 minutes", s.drv.asked)
	}
}

func TestHungDriversAreWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.in.Now = time.Now()
		s.drv.hangs = func(broker string, asked int) bool { return broker != "mqtt.good" && asked > 3 }
		for _, broker := range []string{"mqtt.good", "mqtt.x", "mqtt.y"} {
			for i := range 4 {
				role := fmt.Sprint(broker, i)
				s.in.Nodes = append(s.in.Nodes, roster.Node{Role: role})
				s.announce(broker, role, role, "a/#", "") // so that it is asked about each
			}
		}
		began := time.Now()
		c := s.cast()
		// It may hang when it is asked about all, and when about the first.
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the gateway was held up for %s", took)
		}
		for _, m := range c.Members {
			if p := c.Participants[m.Role].Inports["in"].Problem; p == "" {
				t.Errorf("nothing is wrong with %s", m.Role)
			}
		}
	})
}

func TestThousandsInOneRoleHoldUpNobody(t *testing.T) {
	s := newScene(t, "a")
	const many, ports = 300, 512
	for i := range many {
		def := discovery.Definition{ID: fmt.Sprint(i), Role: "a", Component: "c"}
		for j := range ports {
			def.Inports = append(def.Inports, discovery.Port{ID: fmt.Sprintf("p%06d", i*ports+j), Queue: "q"})
		}
		if _, err := s.reg.Seen(discovery.Place{Broker: "mqtt.x", Address: "fbp"}, def, start); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if n := len(s.cast().Participants["a"].Inports); n != many*ports {
		t.Errorf("it has %d ports", n)
	}
	// A tenth of a second; minutes if each port is looked for among all others.
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestMembersCanBeShown(t *testing.T) {
	s := newScene(t, "b", "a")
	s.announce("mqtt.x", "c1", "c", "c/in", "")
	var roles []string
	for _, m := range s.cast().Members {
		roles = append(roles, m.Role)
		if _, err := json.Marshal(m); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(roles); got != "[a b c]" {
		t.Errorf("members are %s", got)
	}
}
