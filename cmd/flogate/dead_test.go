package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/deadletter"
	"github.com/flogate/flogate/core/transport"
)

func TestLettersAreSelectedByNumbersAndRanges(t *testing.T) {
	for _, c := range []struct {
		args    string
		edge    string
		has     []int
		hasNot  []int
		missing string // of those, where there are three
		wrong   bool
	}{
		{args: "a.out -> b.in 1 3-4", edge: "a.out -> b.in", has: []int{1, 3, 4}, hasNot: []int{2, 5}, missing: "4"},
		{args: "a.out b.in 2-9", edge: "a.out b.in", has: []int{2, 9}, hasNot: []int{1, 10}, missing: "4-9"},
		{args: "5", has: []int{5}, hasNot: []int{1}, missing: "5"},
		{args: "0", wrong: true},
		{args: "4-2", wrong: true},
		{args: "1-2-3", wrong: true},
		{args: "1 a.out b.in", wrong: true},
		{args: "99999999999999999999", wrong: true},
		{args: "1-60000", has: []int{60000}, hasNot: []int{60001}, missing: "4-60000"},
		{args: "60001", wrong: true}, // no broker hands out as many
	} {
		s, err := parseSelection(strings.Fields(c.args), false)
		if (err != nil) != c.wrong {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if c.wrong {
			continue
		}
		if s.edge != c.edge {
			t.Errorf("%q: edge %q", c.args, s.edge)
		}
		for _, n := range c.has {
			if !s.has(n) {
				t.Errorf("%q has no %d", c.args, n)
			}
		}
		for _, n := range c.hasNot {
			if s.has(n) {
				t.Errorf("%q has %d", c.args, n)
			}
		}
		if got := strings.Join(s.missing(3), " "); got != c.missing {
			t.Errorf("%q: missing %q", c.args, got)
		}
	}
}

func TestEdgesAreNamedAsEverywhere(t *testing.T) {
	e := deadEdge{id: "side: a.OUT -> b.in[2]", from: "a.OUT", to: "b.in[2]"}
	for name, want := range map[string]bool{
		"side: a.OUT -> b.in[2]": true, "a.OUT -> b.in[2]": true, "a.out b.IN[2]": true, "a.out->b.in[2]": true,
		"": false, "a.out": false, "a.out b.in": false, "b.in[2] a.out": false,
	} {
		if got := e.is(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestADeadLetterCannotDriveATerminal(t *testing.T) {
	var out strings.Builder
	a := &app{stdout: &out}
	b := &letterBox{broker: "mqtt.b", Place: deadletter.Place{Address: "dead"}}
	item := deadletter.Item{N: 1, Letter: deadletter.Letter{
		Message: transport.Message{
			Body: []byte("one\x1b[2J\ntwo\tx"), Address: "in\x07", ContentType: "\x9b",
			Headers: []transport.Header{{Name: "h", Value: "\x1b]0;title\x07"}},
		},
		Cause: "c\x1b[2J", Edge: "e\x1b[2J",
	}}
	if err := a.printLetters(b, []listedLetter{listed(b, item)}, false); err != nil {
		t.Fatal(err)
	}
	if err := a.printLetter(b, item, false); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b") || !strings.Contains(out.String(), "two    x") {
		t.Errorf("printed %q", out.String())
	}
}

func TestBeginningsAreCutBetweenCharacters(t *testing.T) {
	for body, want := range map[string]string{
		"":                             "",
		strings.Repeat("x", 50):        strings.Repeat("x", 40),
		strings.Repeat("x", 39) + "é…": strings.Repeat("x", 39),
		"\xff\x00":                     "ff00",
	} {
		if got := begins([]byte(body)); got != want {
			t.Errorf("%q begins %q", body, got)
		}
	}
}

func TestLettersOfAWayThatIsSharedGoToItsSinksInTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.hcl")
	text := `
broker "mqtt" "m" {
  url = "mqtt://127.0.0.1:1"
}
graph "main" {
  text = <<-EOT
    a(x) OUT -> IN share(msgflo/RoundRobin)
    share OUT -> IN b(x)
    share OUT -> IN c(x)
    a OUT -> IN d(x)
    a OUT -> IN later(x)
  EOT
}
edge "a.out" "share.in" { dead_letter = "dead/share" }
edge "a.out" "d.in" { dead_letter = "dead/share" }
edge "a.out" "later.in" { dead_letter = "dead/later" }
participant "a" {
  component = "x"
  outport "out" { address = "a/out" }
}
`
	for _, role := range []string{"b", "c", "d"} {
		text += fmt.Sprintf("participant %q {\n  component = \"x\"\n  inport \"in\" { address = \"%s/in\" }\n}\n", role, role)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	site, diags, err := loadSite(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("%v %v", err, diags.List)
	}
	boxes := letterBoxes(site)
	if len(boxes) != 2 || boxes[0].Address != "dead/share" || boxes[1].Address != "dead/later" {
		t.Fatalf("boxes %+v", boxes)
	}
	d := &deadSite{site: site, flags: &deadFlags{}}
	sinks := func(b *letterBox, edge string) (list []string) {
		for range 3 {
			at, err := d.sinkOf(t.Context(), b, edge)
			if err != nil {
				return append(list, "unknown")
			}
			list = append(list, at.Address)
		}
		return list
	}
	if got := sinks(boxes[0], "a.out -> share.in"); !slices.Equal(got, []string{"b/in", "c/in", "b/in"}) {
		t.Errorf("shared letters go to %v", got)
	}
	if got := sinks(boxes[0], "a.out -> d.in"); !slices.Equal(got, []string{"d/in", "d/in", "d/in"}) {
		t.Errorf("others go to %v", got)
	}
	if got := sinks(boxes[1], "a.out -> later.in"); !slices.Equal(got, []string{"unknown"}) {
		t.Errorf("those of nobody go to %v", got)
	}
	item := func(edge string) deadletter.Item { return deadletter.Item{Letter: deadletter.Letter{Edge: edge}} }
	b, id, err := chooseBox("site.hcl", boxes, "a.out share.in")
	if err != nil || b != boxes[0] || !b.belongs(item(id), id) || b.belongs(item("a.out -> d.in"), id) || !b.belongs(item("gone"), id) {
		t.Errorf("%v %q %v", b, id, err)
	}
}
