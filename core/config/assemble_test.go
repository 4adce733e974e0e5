package config

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
)

// house is a folder with everything that a command line could name.
func house(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "house.fbp"), "siri(c-base/siri) OPENED -> IN lamp(lights/Lamp)\n")
	write(t, filepath.Join(dir, "my house.fbp"), "siri(c-base/siri) OPENED -> IN lamp(lights/Lamp)\n")
	write(t, filepath.Join(dir, "more", "my house.fbp"), "other(a/B) OUT -> IN lamp(lights/Lamp)\n")
	write(t, filepath.Join(dir, "siri.yml"), "component: c-base/siri\noutports:\n  opened: {queue: '#ROLE/opened'}\n")
	write(t, filepath.Join(dir, "package.json"), "{}")
	return dir
}

func TestAssembledSiteIsThatOfTheSiteFileThatSaysTheSame(t *testing.T) {
	dir := house(t)
	t.Chdir(dir)
	const token = "${env(\"SECRET\")} %{if} \"\\\n"
	assembled, diags := Assemble(context.Background(), Assembly{
		Graphs:       []string{"house.fbp", "my house.fbp", filepath.Join(dir, "more", "my house.fbp")},
		Brokers:      []string{"mqtt://user:hunter2@127.0.0.1", "amqp://127.0.0.1", "mqtt://user:hunter2@127.0.0.1", "mqtt://10.0.0.1"},
		Library:      "package.json",
		ComponentDir: "parts",
		Ignore:       []string{"lamp"},
		Env:          map[string]string{"TOKEN": token, "A.B": ""},
		Participants: map[string]string{"siri": "siri.yml"},
		FBP:          "127.0.0.1:3569",
		Admin:        "127.0.0.1:0",
		Plugins:      "plugins",
		StrictTypes:  true,
	}, fakes())
	if len(diags.List) > 0 || assembled == nil {
		t.Fatal(sound(t, diags))
	}
	write(t, filepath.Join(dir, "site.hcl"), `
site "house" {
  types = "strict"
}
listen {
  fbp   = "127.0.0.1:3569"
  admin = "127.0.0.1:0"
}
plugins {
  directory = "plugins"
}
broker "mqtt" "broker" {
  url = "mqtt://user:hunter2@127.0.0.1"
}
broker "amqp" "broker" {
  url = "amqp://127.0.0.1"
}
broker "mqtt" "broker2" {
  url = "mqtt://10.0.0.1"
}
graph "main" {
  file = "house.fbp"
}
graph "my_house" {
  file = "my house.fbp"
}
graph "my_house2" {
  file = "more/my house.fbp"
}
library "library" {
  file         = "package.json"
  componentdir = "parts"
  broker       = broker.mqtt.broker
  ignore       = ["lamp"]
  env          = { TOKEN = "$${env(\"SECRET\")} %%{if} \"\\\n", "A.B" = "" }
}
participant "siri" {
  file   = "siri.yml"
  broker = broker.mqtt.broker
}
`)
	loaded, diags := Load(context.Background(), "site.hcl", fakes())
	if loaded == nil {
		t.Fatal(sound(t, diags))
	}
	if assembled.File != "" {
		t.Errorf("the file is %q, and there is none", assembled.File)
	}
	loaded.File = ""
	if diff := cmp.Diff(loaded, assembled, cmp.Comparer(Graph.Equal)); diff != "" {
		t.Errorf("(-file +command line):\n%s", diff)
	}
	if got := assembled.Libraries[0].Env["TOKEN"].Reveal(); got != token {
		t.Errorf("the environment has %q, and %q was given", got, token)
	}
	if got := assembled.Graphs[2].Graph; got == nil || len(got.Edges) != 1 {
		t.Errorf("the third graph is %v", got)
	}
}

func TestAssembledSiteNeedsOnlyABroker(t *testing.T) {
	t.Chdir(house(t))
	site, diags := Assemble(context.Background(), Assembly{Brokers: []string{"mqtt://h"}}, fakes())
	if site == nil || site.Name != "flogate" || len(site.Brokers) != 1 || len(site.Libraries) != 0 {
		t.Errorf("%+v\n%s", site, sound(t, diags))
	}
	site, diags = Assemble(context.Background(), Assembly{Brokers: []string{"mqtts://h"}, ComponentDir: "participants"}, Options{
		Transports: func(string) []string { return []string{"broken", "mqtt"} },
		Driver:     fakes().Driver,
	})
	if site != nil || diags.Count(Error) != 1 {
		t.Errorf("the fake takes no mqtts, so this shows nothing: %s", sound(t, diags))
	}
}

func TestWhatIsWrongOnACommandLineIsSaidOfItsFlag(t *testing.T) {
	home, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := house(t)
	t.Chdir(filepath.Join(dir, "more"))
	write(t, filepath.Join(dir, "bad.fbp"), "a OUT ->\n")
	good := []string{"mqtt://h"}
	for name, a := range map[string]Assembly{
		"nothing":    {},
		"no-url":     {Brokers: []string{"127.0.0.1", "user:hunter2@h", "", "mqtt://h"}, Library: "nowhere"},
		"scheme":     {Brokers: []string{"mqt://user:hunter2@h/x?token=hunter2", "broken://h"}},
		"refused":    {Brokers: []string{"amqps://user:hunter2@h/vhost"}},
		"graphs":     {Brokers: good, Graphs: []string{"nowhere.fbp", "../bad.fbp", filepath.Join(dir, "siri.yml"), "..", ""}},
		"library":    {Brokers: good, Library: "../nowhere.json", Ignore: []string{"two words"}, Env: map[string]string{"A=B": "hunter2"}},
		"folder":     {Brokers: good, ComponentDir: "a\x00b"},
		"roles":      {Brokers: good, Participants: map[string]string{"two words": "../siri.yml", "siri": "siri.yml", "": "", "lamp": "../bad.fbp"}},
		"listen":     {Brokers: good, FBP: "127.0.0.1:3569", Admin: ":3569", Name: "two words"},
		"listen-bad": {Brokers: good, FBP: "\x1b[31m${3569}", Plugins: "\x00"},
		"misspelt":   {Brokers: good, Graphs: []string{"../house.fbp"}, Participants: map[string]string{"sirl": "../siri.yml"}},
	} {
		t.Run(name, func(t *testing.T) {
			site, diags := Assemble(context.Background(), a, fakes())
			if (site == nil) != diags.HasErrors() {
				t.Errorf("site %v, and errors %v", site, diags.HasErrors())
			}
			var b bytes.Buffer
			if err := diags.Write(&b, false); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(diags.List)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String()+string(text), "hunter2") {
				t.Errorf("a secret is in what is said:\n%s", b.String())
			}
			if strings.Contains(b.String(), commandLine) {
				t.Errorf("a file is named that nobody has:\n%s", b.String())
			}
			got := strings.ReplaceAll(b.String(), dir, "…")
			golden(t, filepath.Join(home, "testdata", "assemble", name+".golden"), got)
		})
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add("house", "house.fbp", "mqtt://h", "package.json", "siri", "A", "b")
	f.Add("${x}", "%{if}", "mqtt://u:p@h/?x=${y}", "\"", "\\", "a\nb", "\x00\xff")
	f.Add("", "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, name, graph, broker, library, role, key, value string) {
		site, diags := Assemble(context.Background(), Assembly{
			Name: name, Graphs: []string{graph, graph}, Brokers: []string{broker, "mqtt://h"}, Library: library, ComponentDir: value,
			Ignore: []string{role}, Env: map[string]string{key: value}, Participants: map[string]string{role: value},
			FBP: value, Admin: role, Plugins: value,
		}, fakes())
		if (site == nil) != diags.HasErrors() {
			t.Errorf("site %v, errors %v", site, diags.HasErrors())
		}
		sound(t, diags)
		for _, d := range diags.List {
			// What HCL says of its syntax would be about what we have written, not about what the user has.
			if d.Where.File == commandLine || strings.HasPrefix(d.Summary, "Invalid ") || strings.HasPrefix(d.Summary, "Unsupported ") {
				t.Errorf("%+v", d)
			}
		}
	})
}

// TestTextsComeOutOfTheSheetAsTheyWere is the rule that quoting has to keep.
func TestTextsComeOutOfTheSheetAsTheyWere(t *testing.T) {
	t.Chdir(house(t))
	for _, text := range []string{
		"", "${env(\"SECRET\")}", "$${x}", "%{ if true }x%{ endif }", "%%{", "\"", "\\\"", "a\nb\r\n\tc", "\u0085\u2028", "ü€😀", "$", "%", "\x01\x7f", "<<EOT", "/* */ # //",
	} {
		site, diags := Assemble(context.Background(), Assembly{
			Brokers: []string{"mqtt://h"}, Library: "package.json", Env: map[string]string{"X": text},
		}, fakes())
		if site == nil {
			t.Errorf("%q: %s", text, sound(t, diags))
			continue
		}
		if got := site.Libraries[0].Env["X"].Reveal(); got != cty.StringVal(text).AsString() {
			t.Errorf("%q became %q", text, got)
		}
	}
}
