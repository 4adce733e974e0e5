package config

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatIsWrongInAGraphIsShownThere(t *testing.T) {
	const participants = `
broker "mqtt" "a" {
  url = "mqtt://h"
}
participant "a" {
  component = "x/A"
  outport "out" { address = "out" }
}
participant "b" {
  component = "x/B"
  inport "in" { address = "in" }
}
`
	for _, tc := range []struct{ name, graph, want string }{
		{"an outport", "# a OTU -> IN b\na(x/A) OTU -> IN b(x/B)\n", "2 OTU"},
		{"an inport", "a(x/A) OUT -> NI b(x/B)\n", "1 NI"},
		{"in a chain", "a(x/A) OUT -> IN b(x/B) OUT -> IN c(x/C)\n", "1 OUT"},
		{"the first of several, with a comma", "a(x/A) OUT -> IN b(x/B), a OTU -> IN b\na OTU -> IN b", "1 OTU"},
		{"an initial packet with a comment's sign", "'#' -> IN b(x/B)\n'x' -> NI b\n", "2 NI"},
		{"a place in an array port", "a(x/A) OTU[1] -> IN b(x/B)\n", "1 OTU[1]"},
		{"characters that are several bytes", "'ü€' -> IN b(x/B), 'ü€' -> NI b\n", "1 NI"},
	} {
		for _, inline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", tc.name, inline), func(t *testing.T) {
				dir := t.TempDir()
				src := participants + "graph \"main\" {\n  file = \"main.fbp\"\n}\n"
				if inline {
					src = participants + "graph \"main\" {\n  text = <<EOT\n" + tc.graph + "\nEOT\n}\n"
				}
				write(t, filepath.Join(dir, "main.fbp"), tc.graph)
				write(t, filepath.Join(dir, "site.hcl"), src)
				_, diags := Load(context.Background(), filepath.Join(dir, "site.hcl"), fakes())
				if len(diags.List) != 1 {
					t.Fatal(sound(t, diags))
				}
				at := diags.List[0].Where
				line, _, _, _ := diags.line(at)
				got := fmt.Sprint(at.Start.Line, " ", string([]rune(line)[at.Start.Column-1:at.End.Column-1]))
				want := tc.want
				if inline {
					number, text, _ := strings.Cut(want, " ")
					want = fmt.Sprint(strings.Count(participants, "\n")+2+int(number[0]-'0'), " ", text)
				}
				if got != want {
					t.Errorf("%q is pointed at, not %q:\n%s", got, want, sound(t, diags))
				}
			})
		}
	}
}

// TestManyMistakesInAGraphTakeNoLongerThanTheirNumber shows that the text is not searched for each of them.
func TestManyMistakesInAGraphTakeNoLongerThanTheirNumber(t *testing.T) {
	var b strings.Builder
	b.WriteString("broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n}\nparticipant \"a\" {\n  component = \"x/A\"\n}\ngraph \"main\" {\n  text = <<EOT\n")
	const n = 4000
	for i := range n {
		fmt.Fprintf(&b, "a OUT%d -> IN%d a\n", i, i)
	}
	b.WriteString("EOT\n}\n")
	file := filepath.Join(t.TempDir(), "site.hcl")
	write(t, file, b.String())
	start := time.Now()
	_, diags := Load(context.Background(), file, fakes())
	if len(diags.List) < 2*n {
		t.Errorf("%d mistakes, and %d were expected", len(diags.List), 2*n)
	}
	// Far more than it takes, and far less than a search of the text for each.
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}
