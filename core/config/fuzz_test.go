package config

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sound checks what is true of all diagnostics, and returns how they are printed.
func sound(t *testing.T, diags *Diagnostics) string {
	t.Helper()
	for _, d := range diags.List {
		if d.Summary == "" || d.Severity != Error && d.Severity != Warning {
			t.Errorf("diagnostic without words: %+v", d)
		}
		if d.Where.File == "" {
			continue
		}
		src, ok := diags.sources[d.Where.File]
		if lines := bytes.Count(src, []byte("\n")) + 1; ok && (d.Where.Start.Line > lines || d.Where.Start.Line < 0) {
			t.Errorf("line %d of %d: %+v", d.Where.Start.Line, lines, d)
		}
	}
	var b bytes.Buffer
	if err := diags.Write(&b, true); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func FuzzSite(f *testing.F) {
	for _, pattern := range []string{"testdata/*.hcl", "../../configs/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	const secret = "hunter2-from-env"
	opts := fakes()
	opts.LookupEnv = func(string) (string, bool) { return secret, true }
	f.Fuzz(func(t *testing.T, src []byte) {
		l := newLoader(opts)
		l.site.Dir = t.TempDir()
		site, diags := l.load(context.Background(), "site.hcl", src)
		if (site == nil) != diags.HasErrors() {
			t.Errorf("site %v, errors %v", site, diags.HasErrors())
		}
		said := sound(t, diags)
		if site != nil {
			text, err := json.Marshal(site)
			if err != nil {
				t.Error(err)
			}
			said += string(text)
			for _, b := range site.Brokers {
				if !json.Valid(b.Config.JSON()) {
					t.Errorf("%s: no JSON: %s", b.ID(), b.Config.Reveal())
				}
			}
		}
		if strings.Contains(said, secret) && !bytes.Contains(src, []byte("nonsensitive")) && !bytes.Contains(src, []byte("hunter2")) {
			t.Errorf("the secret is in what is printed:\n%s", said)
		}
	})
}

func FuzzParticipantYAML(f *testing.F) {
	for _, pattern := range []string{"testdata/participants/*.yml", "../../configs/participants/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			src, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(src))
		}
	}
	for _, seed := range []string{
		"a: &a [*a]\ncomponent: b", "component: !!str x\ninports: &p {a: {queue: x, options: {b: [*p, *p]}}}\noutports: *p",
		"component: |\n  x\n  y\n", "? [a]\n: b\n", "---\ncomponent: a\n---\ncomponent: b\n", "component: .inf\nlabel: 0x1f\n", "{", "- -", "\x00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, diags := ParseParticipant("participant.yml", []byte(src), "role")
		sound(t, diags)
		if diags.HasErrors() {
			return
		}
		if p.Component == "" || p.Role == "" {
			t.Errorf("participant without component or role: %+v", p)
		}
		for _, port := range append(p.Inports, p.Outports...) {
			if port.Name == "" {
				t.Errorf("port without name: %+v", p)
			}
			if !port.Options.IsZero() && !json.Valid(port.Options.JSON()) {
				t.Errorf("%s: no JSON: %s", port.Name, port.Options.Reveal())
			}
		}
	})
}
