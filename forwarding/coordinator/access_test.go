package coordinator_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/coordinator"
	"github.com/flogate/flogate/forwarding/fbp"
)

// guarded is a site with secrets, and with two graphs.
func guarded(t testing.TB) *site {
	s := newSite(t)
	grant := func(secret string, graphs []string, may ...fbp.Capability) forwarding.Grant {
		return forwarding.Grant{
			Secret: fbp.NewSecret(secret), Access: forwarding.Access{Name: secret + "er", Capabilities: may, Graphs: graphs},
		}
	}
	s.policy = forwarding.Policy{Grants: []forwarding.Grant{
		grant("look", nil, fbp.CapGraphReadonly, fbp.CapNetworkStatus, fbp.CapComponentGetSource),
		grant("all", nil, fbp.AllCapabilities()...),
		grant("some", []string{"open/*"}, fbp.AllCapabilities()...),
	}}
	s.h.main = "shut/main"
	s.h.open("open/one", graph.New(""), false)
	s.h.open("shut/main", graph.New(""), false)
	return s.run()
}

// busy lets everything happen that clients can be told of, and returns when it is over.
func (s *site) busy() {
	all := s.dial("all")
	all.open()
	src := graph.Endpoint{Node: "a", Port: "out"}
	for _, id := range []string{"shut/main", "open/one"} {
		all.ask(fbp.AddNode{ID: "a", Component: "core/Drop", Graph: id}, "")
		all.skipTo(fbp.GraphAddNode)
		all.ask(fbp.AddInport{Public: "in", Node: "a", Port: "in", Graph: id}, "")
		all.ask(fbp.StartNetwork{Graph: id}, "")
		all.skipTo(fbp.NetworkStarted)
		all.ask(fbp.Debug{Graph: id, Enable: true}, "")
		all.ask(fbp.StartTrace{Graph: id}, "")
		all.skipTo(fbp.TraceStart)
		s.h.flow(id, coordinator.Packet{Src: &src, Tgt: graph.Endpoint{Node: "b", Port: "in"}, Body: []byte("1")})
		all.skipTo(fbp.NetworkData)
		s.c.ProcessError(id, "a", "broken")
		s.c.Icon(id, "a", "cog")
		s.c.PacketOut(id, "out", []byte("1"))
		s.c.NetworkError(id, "broken")
		all.skipTo(fbp.NetworkError)
	}
	s.c.ComponentChanged(fbp.Component{Name: "x/Y"})
	s.c.Printed("", "hello")
	all.skipTo(fbp.NetworkOutput)
}

func TestReaderIsToldWhatItMayKnowAndChangesNothing(t *testing.T) {
	s := guarded(t)
	c := s.dial("look")
	is := c.open()
	if want := []fbp.Capability{fbp.CapGraphReadonly, fbp.CapNetworkStatus, fbp.CapComponentGetSource}; !slices.Equal(is.Capabilities, want) {
		t.Errorf("the capabilities are %v", is.Capabilities)
	}
	if len(is.AllCapabilities) != len(fbp.AllCapabilities()) {
		t.Errorf("all capabilities are %v", is.AllCapabilities)
	}
	s.busy()
	for _, p := range []fbp.Payload{
		fbp.AddNode{ID: "x", Component: "core/Drop", Graph: "open/one"},
		fbp.StartNetwork{Graph: "open/one"},
		fbp.ListComponents{},
		fbp.Source{Name: "x", Code: "x", Language: "x"},
		fbp.Packet{Graph: "open/one", Port: "in", Event: "data"},
		fbp.Persist{},
		fbp.StartTrace{Graph: "open/one"},
		fbp.SelectEdges{Graph: "open/one"},
	} {
		c.ask(p, "refused")
	}
	c.ask(fbp.GetStatus{Graph: "open/one"}, "last")
	may := fbp.Capabilities(is.Capabilities)
	refused := 0
	told := map[fbp.Kind]int{}
	for last := false; !last; {
		out := c.next()
		last = out.ResponseTo == "last"
		switch told[out.Kind]++; {
		case out.ResponseTo == "refused":
			refused++
			if !out.Kind.IsError() || !strings.HasSuffix(string(out.Payload), `is not permitted"}`) {
				t.Errorf("got %s %s", out.Kind, out.Payload)
			}
		case !may.MayReceive(out.Kind):
			t.Errorf("it was told %s %s", out.Kind, out.Payload)
		}
	}
	if refused != 8 || told[fbp.GraphAddNode] != 2 || told[fbp.NetworkStarted] != 2 {
		t.Errorf("%d requests were refused, and it was told %v", refused, told)
	}
}

func TestWrongSecretIsAnsweredAndToldNothing(t *testing.T) {
	s := guarded(t)
	for _, secret := range []string{"", "wrong", "looker"} {
		c := s.dial(secret)
		if is := c.open(); len(is.Capabilities) != 0 || is.Type != "flogate" {
			t.Errorf("%q: the runtime is %+v", secret, is)
		}
		s.busyOnce(t)
		c.ask(fbp.GetStatus{Graph: "open/one"}, "1")
		c.want(fbp.NetworkError, `{"message":"network:getstatus is not permitted"}`)
		c.write(`{"protocol":"nothing","command":"known","payload":{}}`)
		c.want(fbp.RuntimeError, `{"message":"nothing:known is not permitted"}`)
		c.none()
	}
}

// busyOnce is busy for as many clients as there are: the second time there is nothing new to add.
func (s *site) busyOnce(t *testing.T) {
	t.Helper()
	s.c.ComponentChanged(fbp.Component{Name: "x/Y"})
	if _, err := s.h.Change("open/one", "file", graph.ChangeProperties{}, graph.Clear{}); err != nil {
		t.Fatal(err)
	}
	all := s.dial("all")
	all.open()
	all.ask(fbp.StopNetwork{Graph: "open/one"}, "")
	all.skipTo(fbp.NetworkStopped)
}

func TestGraphsThatASecretDoesNotNameAreNotThere(t *testing.T) {
	s := guarded(t)
	c := s.dial("some")
	is := c.open()
	if is.Graph != "" {
		t.Errorf("the main graph is told: %q", is.Graph)
	}
	s.busy()
	c.ask(fbp.GetSource{Name: "shut/main"}, "1")
	c.ask(fbp.RemoveNode{ID: "a", Graph: "shut/main"}, "2")
	c.ask(fbp.ClearGraph{ID: "shut/main"}, "3")
	c.ask(fbp.ClearGraph{ID: "shut/new"}, "4")
	c.ask(fbp.GetStatus{Graph: "main"}, "5")
	c.ask(fbp.Source{Name: "main", Library: "shut", Language: "json", Code: "{}"}, "6")
	c.ask(fbp.DumpTrace{Graph: "shut/main", Type: fbp.FlowtraceJSON}, "7")
	c.ask(fbp.ListComponents{}, "8")
	c.ask(fbp.GetSource{Name: "core/Repeat"}, "9")
	c.ask(fbp.GetSource{Name: "open/one"}, "last")
	answers := map[string]fbp.Kind{}
	for answers["last"] == "" {
		out := c.next()
		if out.ResponseTo != "" {
			answers[out.ResponseTo] = out.Kind
		}
		if strings.Contains(string(out.Payload), "shut") && !out.Kind.IsError() {
			t.Errorf("it was told %s %s", out.Kind, out.Payload)
		}
	}
	for _, id := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		if !answers[id].IsError() {
			t.Errorf("request %s was answered with %s", id, answers[id])
		}
	}
	if answers["8"] != fbp.ComponentComponentsReady || answers["9"] != fbp.ComponentSource || answers["last"] != fbp.ComponentSource {
		t.Errorf("the answers are %v", answers)
	}
	if now, _ := s.h.Graph("shut/main"); len(now.Graph.Nodes) != 1 {
		t.Error("a hidden graph was changed")
	}
}

func TestChangesAreLoggedWithWhoMadeThem(t *testing.T) {
	s := guarded(t)
	c := s.dial("all")
	c.ask(fbp.AddNode{ID: "a", Component: "core/Drop", Graph: "open/one"}, "")
	c.want(fbp.GraphAddNode, "")
	if want := "aller from 192.0.2.1:4000"; len(s.h.who) != 1 || s.h.who[0] != want {
		t.Errorf("made by %q, want %q", s.h.who, want)
	}
}

func TestWhatThereIsNothingBehindCannotBeHad(t *testing.T) {
	s := newSite(t)
	s.without = fbp.Capabilities{fbp.CapNetworkPersist, fbp.CapProtocolTrace}
	c := s.run().dial("")
	if is := c.open(); slices.Contains(is.Capabilities, fbp.CapProtocolTrace) || len(is.AllCapabilities) != len(fbp.AllCapabilities())-2 {
		t.Errorf("the runtime is %+v", is)
	}
	c.ask(fbp.Persist{}, "")
	c.want(fbp.NetworkError, `{"message":"network:persist is not permitted"}`)
}
