package config

import (
	"strings"
	"testing"
)

func TestTheLineIsShownWithItsPartPointedAt(t *testing.T) {
	long := strings.Repeat("x", 500)
	for _, tc := range []struct {
		name, src  string
		start, end int
		want       string
	}{
		{"plain", "a = b", 5, 6, "1 | a = b\n  |     ^\n"},
		{"tabs stay tabs", "\ta\t= b", 5, 6, "1 | \ta\t= b\n  | \t \t ^\n"},
		{"characters, not bytes", "äöü = b", 7, 8, "1 | äöü = b\n  |       ^\n"},
		{"nothing", "a", 2, 2, "1 | a\n  |  ^\n"},
		{"beyond the end", "a", 9, 12, "1 | a\n  |  ^\n"},
		{"the password of a URL", `u = "a://b:secret@c"`, 5, 21, "1 | u = \"a://b:(sensitive)@c\"\n  |     ^^^^^^^^^^^^^^^^^^^^^\n"},
		{"what sounds like a secret", `my_token = "secret"`, 12, 20, "1 | my_token = (sensitive)\n  |            ^^^^^^^^^^^\n"},
		{"where a secret comes from", `token = env("X")`, 13, 16, "1 | token = env(\"X\")\n  |             ^^^\n"},
		{"control characters", "a\x1b[2J = b\r", 8, 9, "1 | a?[2J = b\n  |        ^\n"},
		{"no UTF-8", "a\xff = b", 6, 7, "1 | a? = b\n  |      ^\n"},
		{"the beginning of a long line", long, 1, 2, "1 | " + strings.Repeat("x", longest) + "…\n  | ^\n"},
		{"the middle of a long line", long[:200] + "y" + long[:200], 201, 202, "1 | …" + strings.Repeat("x", 79) + "y" + strings.Repeat("x", 79) + "…\n  | " + strings.Repeat(" ", 80) + "^\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDiagnostics()
			d.source("f", []byte(tc.src))
			d.List = []Diagnostic{{Severity: Error, Summary: "s", Where: Range{"f", Position{1, tc.start}, Position{1, tc.end}}}}
			var b strings.Builder
			if err := d.Write(&b, false); err != nil {
				t.Fatal(err)
			}
			_, got, _ := strings.Cut(b.String(), "error: s\n")
			if got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestNamesAreSuggestedOnlyIfTheyAreNear(t *testing.T) {
	names := []string{"mqtt", "amqp", "nats", "warninglight"}
	for given, want := range map[string]string{
		"mqt": "mqtt", "qmtt": "mqtt", "amqpp": "amqp", "warninglihgt": "warninglight", "kafka": "", "x": "", "": "", "na": "",
	} {
		got := didYouMean(given, names)
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestDiagnosticsWithoutAFileArePrinted(t *testing.T) {
	d := &Diagnostics{List: []Diagnostic{{Severity: Warning, Summary: "s\x1b", Detail: "d"}}}
	var b strings.Builder
	if err := d.Write(&b, false); err != nil {
		t.Fatal(err)
	}
	if b.String() != "warning: s?\nd\n" {
		t.Errorf("%q", b.String())
	}
}
