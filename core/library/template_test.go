package library_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flogate/flogate/core/library"
)

func one(t interface {
	Helper()
	Fatal(args ...any)
}, command string,
) *library.Library {
	t.Helper()
	l, err := library.New(library.Definition{
		Variables:  map[string]string{"PREFETCH": "--prefetch 1", "PRE": "pre", "QUOTED": `"#ROLE b"`},
		Components: map[string]library.Configured{"api/A": {Command: command}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestCommandIsSplitAsAShellWould(t *testing.T) {
	for _, c := range []struct {
		command string
		want    []string
	}{
		{"  a\tb\r\n c ", []string{"a", "b", "c"}},
		{`a 'b c' "d e" f\ g`, []string{"a", "b c", "d e", "f g"}},
		{`a ''"" '' "" b''c`, []string{"a", "", "", "", "bc"}},
		{`a '\' "\"\\\$\a" \'`, []string{"a", `\`, `"\$\a`, `'`}},
		{"a b\\\nc \"d\\\ne\"", []string{"a", "bc", "de"}},
		{`a #ROLE '#ROLE' "#ROLE" x#ROLE:#ROLEy`, []string{"a", "r s", "r s", "r s", "xr s:r sy"}},
		{`a \#ROLE "\#ROLE" # #fff`, []string{"a", "#ROLE", "#ROLE", "#", "#fff"}},
		{`a #role #Role`, []string{"a", "#role", "#Role"}},
		{`a #COMPONENTNAME #COMPONENT.js #COMPONENT/NAME`, []string{"a", "A", "api/A.js", "api/A/NAME"}},
		{`a #PREFETCH #PRE "#PREFETCH" #PREFIX`, []string{"a", "--prefetch", "1", "pre", "--prefetch 1", "preFIX"}},
		{`a #QUOTED`, []string{"a", "r s b"}},
		{`a --iips #IIPS --iips='#IIPS'`, []string{"a", "--iips", `{"p":"'\" $x"}`, `--iips={"p":"'\" $x"}`}},
		{`a 'b && c' "|" \; \$HOME '$HOME' 5$ http://h/?a=b&c=d x=y`, []string{
			"a", "b && c", "|", ";", "$HOME", "$HOME", "5$", "http://h/?a=b&c=d", "x=y",
		}},
		{`sh -c 'exec a "$1"' - #ROLE`, []string{"sh", "-c", `exec a "$1"`, "-", "r s"}},
		{`sh script.sh -c #ROLE`, []string{"sh", "script.sh", "-c", "r s"}},
		{`tool -c #ROLE.conf`, []string{"tool", "-c", "r s.conf"}},
		{"ä ö\\ü", []string{"ä", "öü"}},
	} {
		got, err := one(t, c.command).Command("api/A", "r s", json.RawMessage(`{"p":"'\" $x"}`))
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", c.command, err, diff)
		}
	}
}

func TestWhatNeedsAShellIsNotHandedToAProgram(t *testing.T) {
	for _, command := range []string{
		"a $HOME", `a "x${HOME}"`, "a `b`", "a $(b)", "a && b", "a | b", "a; b", "a > b", "a 2>&1", "a <b", "a &", "X=1 a", `a 'b';`, `a >"b"`, `X="1 2" a`,
	} {
		l := one(t, command)
		if got, err := l.Command("api/A", "r", nil); err == nil || !strings.Contains(err.Error(), "for a shell") {
			t.Errorf("%s became %q %v", command, got, err)
		}
		text, _, err := l.Procfile([]library.Node{{Role: "r", Component: "api/A"}})
		if err != nil || text != "r: "+command+"\n" {
			t.Errorf("%s in a Procfile is %q %v", command, text, err)
		}
	}
}

func TestValuesAreNoPartOfAScript(t *testing.T) {
	for _, command := range []string{
		"sh -c #ROLE", `/bin/bash -ec "x #ROLE"`, "sh -x -c 'x #IIPS'", "env A=b sh -c 'x #QUOTED'", `bash --norc -lc x#COMPONENT`,
	} {
		_, err := library.New(library.Definition{
			Variables:  map[string]string{"QUOTED": "#ROLE"},
			Components: map[string]library.Configured{"A": {Command: command}},
		})
		if err == nil || !strings.Contains(err.Error(), "would be run as code") {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// A shell that reads a line of a Procfile must come to the words that Command makes, whatever the values are.
func TestShellReadsInAProcfileWhatCommandSays(t *testing.T) {
	quotes := []string{"%s", "x%s", "'%s'", "'a %s b'", `"%s"`, `"a\"%s b"`, `a\ %s`, `''%s`, `\#%s"\#"`, "#x%s"}
	rapid.Check(t, func(t *rapid.T) {
		command := `printf %s\\n`
		for _, q := range rapid.SliceOfN(rapid.SampledFrom(quotes), 1, 4).Draw(t, "quotes") {
			command += " " + strings.ReplaceAll(q, "%s", rapid.SampledFrom([]string{"#ROLE", "#IIPS", "#COMPONENT"}).Draw(t, "marker"))
		}
		value := rapid.StringOf(rapid.RuneFrom([]rune("a '\"\\$`#;&|*~!(){}é"))).Draw(t, "value")
		iips, err := json.Marshal(map[string]string{"p": value})
		if err != nil {
			t.Fatal(err)
		}
		l := one(t, command)
		words, err := l.Command("api/A", "r", iips)
		if err != nil {
			t.Fatal(err)
		}
		line, _, err := l.Procfile([]library.Node{{Role: "r", Component: "api/A", IIPs: iips}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", strings.TrimPrefix(line, "r: ")).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v %s", line, err, out)
		}
		if diff := cmp.Diff(strings.Join(words[2:], "\n")+"\n", string(out)); diff != "" {
			t.Fatalf("%s%s", line, diff)
		}
	})
}
