package route_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/route"
	"github.com/flogate/flogate/core/transport"
)

var update = flag.Bool("update", false, "write the golden files anew")

// input reads testdata/NAME.txt: lines that bind ports, then a graph. A binding is
//
//	node.port in|out broker address [key=value …]
//
// with the keys acks, confirms, dedup (true or false; acks and confirms are true unless said otherwise), place, options,
// and for an edge
//
//	edge a.b c.d [require=…] [dead=broker:address] [window=n]
func input(t *testing.T, src string) route.Input {
	t.Helper()
	head, fbp, ok := strings.Cut(src, "\n---\n")
	if !ok {
		t.Fatal("no line ---")
	}
	in := route.Input{Participants: map[string]route.Participant{}}
	settings := map[string]route.Settings{}
	in.Settings = func(from, to graph.Endpoint) route.Settings { return settings[from.String()+" "+to.String()] }
	for line := range strings.Lines(head) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[0] == "strict" {
			in.StrictTypes = true
			continue
		}
		if f[0] == "edge" {
			settings[f[1]+" "+f[2]] = parseSettings(t, f[3:])
			continue
		}
		node, port, _ := strings.Cut(f[0], ".")
		p := in.Participants[node]
		if p.Inports == nil {
			p = route.Participant{Inports: map[string]route.Port{}, Outports: map[string]route.Port{}}
		}
		if f[1] != "none" {
			map[string]map[string]route.Port{"in": p.Inports, "out": p.Outports}[f[1]][port] = parsePort(t, f[2], f[3], f[4:])
		}
		in.Participants[node] = p
	}
	for i, text := range strings.Split(fbp, "\n---\n") {
		g, err := graph.ParseFBP("test.fbp", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		in.Graphs = append(in.Graphs, route.Graph{Name: []string{"main", "second"}[i], Graph: g})
	}
	return in
}

func parsePort(t *testing.T, broker, address string, rest []string) route.Port {
	p := route.Port{Broker: broker, Address: strings.Trim(address, `"`), Traits: transport.Traits{Acks: true, Confirms: true}}
	for _, kv := range rest {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "acks":
			p.Traits.Acks = v == "true"
		case "confirms":
			p.Traits.Confirms = v == "true"
		case "names":
			p.Traits.Identifies = v == "true"
		case "dedup":
			p.Traits.Deduplicates = v == "true"
		case "type":
			p.Type = v
		case "subscription":
			p.Traits.Subscription = v
		case "place":
			p.Traits.Place = v
		case "why":
			p.Traits.Weakness = v
		case "kind":
			p.Traits.Kind = map[string]transport.PlaceKind{"queue": transport.Queue, "fanout": transport.Fanout}[v]
		case "options":
			p.Options = json.RawMessage(v)
		default:
			t.Fatalf("no key %s", k)
		}
	}
	return p
}

func parseSettings(t *testing.T, rest []string) route.Settings {
	var s route.Settings
	for _, kv := range rest {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "require":
			s.Require = route.Guarantee(v)
		case "dead":
			s.DeadLetter.Broker, s.DeadLetter.Address, _ = strings.Cut(v, ":")
			s.DeadLetterTraits.Confirms = true
		case "routing":
			s.Routing = route.Routing(v)
		case "forgetful":
			s.DeadLetterTraits = transport.Traits{Weakness: v}
		case "window":
			if _, err := fmt.Sscan(v, &s.Window); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func TestPlans(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := print(route.Make(input(t, string(src))))
			golden := strings.TrimSuffix(file, ".txt") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// print writes a plan for people who review it.
func print(p route.Plan) string {
	var b strings.Builder
	for _, e := range p.Edges {
		fmt.Fprintf(&b, "edge %s\n", e.ID)
		line := func(what, text string) {
			if text != "" {
				fmt.Fprintf(&b, "  %s: %s\n", what, text)
			}
		}
		line("pending", e.Pending)
		line("refused", e.Refused)
		line("warning", e.Warning)
		line("guarantee", string(e.Guarantee))
		line("weakness", e.Weakness)
		if e.SamePlace {
			line("same place", e.Source.Broker+" "+e.Source.Address)
		}
		if len(e.Carriers) < 2 {
			line("feed", e.Feed)
		}
		for _, c := range e.Carriers {
			if len(e.Carriers) == 1 && c.Target == e.ID {
				continue
			}
			line("carrier", strings.TrimSpace(fmt.Sprintf("%s: %s %s", c.Target, c.Member, map[bool]string{true: "(dead letters)"}[c.Dead])))
		}
		line("broker's own", strings.Join(e.Natives, "; "))
	}
	for _, f := range p.Feeds {
		fmt.Fprintf(&b, "feed %s\n  source: %s %q named %q", f.Key, f.Broker, f.Source.Address, f.Source.Name)
		if f.Source.Options != nil {
			fmt.Fprintf(&b, " options %s", f.Source.Options)
		}
		if f.Source.Window.Messages > 0 {
			fmt.Fprintf(&b, " window %d", f.Source.Window.Messages)
		}
		fmt.Fprintf(&b, " acks %t\n", f.Acks)
		for _, t := range f.Targets {
			if len(t.Members) == 0 {
				fmt.Fprintf(&b, "  target: %s %q named %q", t.Broker, t.Sink.Address, t.Sink.Name)
			} else {
				fmt.Fprintf(&b, "  target: %s shares", t.ID)
			}
			if t.DeadLetterPending != "" {
				fmt.Fprintf(&b, " dead letters wait: %s", t.DeadLetterPending)
			}
			if t.DeadLetter != (route.Place{}) {
				fmt.Fprintf(&b, " dead letter %s %q", t.DeadLetter.Broker, t.DeadLetter.Address)
			}
			b.WriteString("\n")
			for _, m := range t.Members {
				fmt.Fprintf(&b, "    %s: %s %q named %q\n", m.ID, m.Broker, m.Sink.Address, m.Sink.Name)
			}
		}
	}
	for _, n := range p.Natives {
		fmt.Fprintf(&b, "broker's own %s\n", n.ID)
		for _, m := range n.Makes {
			fmt.Fprintf(&b, "  makes %d %s\n", m.Kind, m.Address)
		}
		for _, bi := range n.Bindings {
			fmt.Fprintf(&b, "  binds %s to %s\n", bi.To.Address, bi.From.Address)
		}
		for _, m := range n.Needs {
			fmt.Fprintf(&b, "  needs %d %s\n", m.Kind, m.Address)
		}
		for _, w := range n.Ways {
			fmt.Fprintf(&b, "  for %s\n", strings.Join(w, ", "))
		}
	}
	for _, i := range p.Initials {
		fmt.Fprintf(&b, "initial %s -> %s: %s %q %s\n", i.Body, i.To, i.Broker, i.Sink.Address, i.Pending)
	}
	return b.String()
}

func TestSameInputGivesSamePlan(t *testing.T) {
	src, err := os.ReadFile("testdata/fanout.txt")
	if err != nil {
		t.Fatal(err)
	}
	first := print(route.Make(input(t, string(src))))
	for range 50 {
		if d := cmp.Diff(first, print(route.Make(input(t, string(src))))); d != "" {
			t.Fatal(d)
		}
	}
}

func TestInitialPacketsAreToldApartByLives(t *testing.T) {
	make := func(fbp, incarnation, waiting string) map[string]string {
		g, err := graph.ParseFBP("test.fbp", []byte(fbp))
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]string{}
		for _, i := range route.Make(route.Input{
			Graphs: []route.Graph{{Name: "main", Graph: g}},
			Participants: map[string]route.Participant{"a": {
				Inports:     map[string]route.Port{"in": {Broker: "mqtt.b", Address: "a/in"}},
				Incarnation: incarnation, Waiting: waiting,
			}},
		}).Initials {
			ids[i.ID] = i.Pending
		}
		return ids
	}
	first := make("'x' -> IN a(A)\n'y' -> IN a\n'x' -> IN a", "1", "")
	if len(first) != 3 {
		t.Fatalf("three packets have %d ids: %v", len(first), first)
	}
	for id := range make("'y' -> IN a(A)\n'x' -> IN a", "1", "") {
		if _, ok := first[id]; !ok {
			t.Errorf("%s is another one since one before it has gone", id)
		}
	}
	for id := range make("'x' -> IN a(A)", "2", "") {
		if _, ok := first[id]; ok {
			t.Errorf("%s is the same in another life", id)
		}
	}
	for id, pending := range make("'x' -> IN a(A)", "1", "not there yet") {
		if pending != "not there yet" {
			t.Errorf("%s is not waiting", id)
		}
	}
}
