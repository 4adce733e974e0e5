package roster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
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
	asked int
	err   error
}

func (d *driver) validate(_ context.Context, _ string, req transport.ValidateRequest) (transport.ValidateResult, error) {
	d.asked++
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
	s.in.Declared = []roster.Declared{{Role: "a", From: "library", Run: run}}
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
		if again := want.state == roster.Starting; again != !c.Again.IsZero() {
			t.Errorf("%s: to be looked at again at %v", when, c.Again)
		}
	}
	check("at the start", life{roster.Starting, "/0", true})
	s.in.Now = start.Add(roster.Grace)
	check("when it has been silent", life{roster.Running, "/0", false})
	s.in.Now = start.Add(roster.Grace + time.Second)
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	check("when it has announced itself", life{roster.Present, "1/0", false})
	run.State, run.Reason = "waiting", "exit status 1"
	check("when it has crashed", life{roster.Failed, "1/0", true})
	s.in.Now = s.in.Now.Add(time.Second)
	run.State, run.Reason, run.Restarts, run.Since = "running", "", 1, s.in.Now
	check("when it runs again", life{roster.Starting, "1/1", true})
	s.in.Now = s.in.Now.Add(time.Second)
	s.announce("mqtt.x", "a1", "a", "a/in", "")
	check("when it has announced itself under the same id", life{roster.Present, "1/1", false})
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
	if p := s.cast().Participants["a"].Inports["in"].Problem; !strings.Contains(p, "no plugin") {
		t.Errorf("the problem is %q", p)
	}
	s.drv.err = nil
	if p := s.cast().Participants["a"].Inports["in"]; p.Problem != "" || !p.Traits.Confirms {
		t.Errorf("it is %+v", p)
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
