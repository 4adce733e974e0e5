//go:build peers

package graph

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/graph"
)

// TestRandomTextsReadTheSame makes texts of the language's words, breaks some of them, and compares what comes out with
// the references: whatever core/graph takes, they take and read the same.
func TestRandomTextsReadTheSame(t *testing.T) {
	texts := map[string]string{}
	for i := range 1000 {
		src := text(rand.New(rand.NewPCG(1, uint64(i))))
		texts[fmt.Sprintf("%04d.fbp", i)] = spaceAtEnd.ReplaceAllString(src, "$1")
	}
	// What was read is handed to fbp-graph as JSON, which must make the same of it as of the text.
	asJSON := map[string]string{}
	taken := 0
	for name, src := range texts {
		g, err := graph.ParseFBP(name, []byte(src))
		if err != nil {
			continue
		}
		out, err := g.JSON()
		if err != nil {
			t.Fatal(err)
		}
		taken++
		asJSON[strings.Replace(name, ".fbp", ".json", 1)] = string(out)
	}
	if taken < len(texts)/4 {
		t.Fatalf("only %d of %d texts are taken: they say nothing", taken, len(texts))
	}
	want, got := ask(t, texts), ask(t, asJSON)
	for name := range asJSON {
		from := strings.Replace(name, ".json", ".fbp", 1)
		if diff := cmp.Diff(want[from]["graph"], got[name]["graph"]); diff != "" {
			t.Errorf("(-fbp-graph +core/graph):\n%s\nof %q", diff, texts[from])
		}
	}
}

// The references take no space between a node that ends a chain without a port and what follows; core/graph does.
var spaceAtEnd = regexp.MustCompile(` +([\r\n,#]|$)`)

// text returns some lines of the language. Half of them have a character too much or too little.
func text(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	node := func() string {
		name := pick("a", "b", "c", "d-1", "_e", "IN")
		return pick(name, name, name, name+"()", name+"(A)", name+"(x/B:x=1)", name+"(C:main,k=v)", "(A)", "(x/y-z)")
	}
	port := func() string { return pick("IN", "out", "x.y", "P_1", "OUT[0]", "in[12]") }
	packet := func() string {
		return pick("'x'", "''", `'it\'s'`, "'a -> b'", "5", "-1.5e3", `"s"`, `{"a": [1, null]}`, "[]", "[\n1\n]", "{}")
	}
	spaces := func() string { return pick(" ", " ", "  ") }
	chain := func() string {
		s := pick(packet(), node()+spaces()+port(), node(), port()+spaces()+node()+spaces()+port())
		for range r.IntN(3) {
			s += spaces() + "->" + pick("", " ") + port() + spaces() + node() + spaces() + port()
		}
		return s + spaces() + "->" + spaces() + pick(node(), port()+spaces()+node())
	}
	var lines []string
	for range 1 + r.IntN(5) {
		switch r.IntN(12) {
		case 0:
			lines = append(lines, pick("# comment", "#", "  # @name no", "# @name n", "# @runtime msgflo", "# @k-1 v 2.0"))
		case 1:
			lines = append(lines, pick("INPORT=", "OUTPORT=")+pick("a", "b(B)", "c")+"."+pick("IN", "x.y")+":"+pick("P", "q", "R_1"))
		case 2:
			lines = append(lines, pick("DEFAULT_INPORT=", "DEFAULT_OUTPORT=")+pick("X", "in"))
		case 3:
			lines = append(lines, node())
		default:
			lines = append(lines, chain()+pick("", "", "", ", "+chain(), " # tail", ","))
		}
	}
	// Most texts declare all their nodes.
	s := "a(A), b(B), c(C), d-1(D), _e(E), IN(I)\n" + strings.Join(lines, pick("\n", "\n", "\r\n", "\n\n"))
	if r.IntN(2) == 0 {
		at := r.IntN(len(s))
		s = s[:at] + pick("", " ", "\n", "(", ")", "'", "-", ">", ".", ",", "#", "x", "0", "=", "[", "\t", `"`, "{") + s[at+r.IntN(2):]
	}
	return s
}
