package config

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSiteFilesAreReportedAsInTheirGoldenFiles loads every site file in testdata and compares all that is said about it,
// and the site if there is one.
func TestSiteFilesAreReportedAsInTheirGoldenFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no site files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hcl"), func(t *testing.T) {
			golden(t, strings.TrimSuffix(file, ".hcl")+".golden", report(t, file))
		})
	}
}

// report returns everything that can be seen of a load.
func report(t *testing.T, file string) string {
	t.Helper()
	site, diags := Load(context.Background(), file, fakes())
	if (site == nil) != diags.HasErrors() {
		t.Errorf("site %v, and errors %v", site, diags.HasErrors())
	}
	var b bytes.Buffer
	if err := diags.Write(&b, false); err != nil {
		t.Fatal(err)
	}
	if site == nil {
		return b.String()
	}
	text, err := json.MarshalIndent(site, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%s\n", bytes.ReplaceAll(text, []byte(here), []byte("…")))
	for _, broker := range site.Brokers {
		fmt.Fprintf(&b, "%s %s\n", broker.ID(), broker.Config.Reveal())
	}
	for _, p := range site.Participants {
		for _, port := range append(p.Inports, p.Outports...) {
			fmt.Fprintf(&b, "%s.%s %s\n", p.Role, port.Name, port.Options.Reveal())
		}
	}
	return b.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

func TestSecretsAreInNothingThatIsPrinted(t *testing.T) {
	if said := report(t, "testdata/secrets.hcl"); strings.Contains(said, "hunter2") {
		t.Errorf("the diagnostics have a secret in them:\n%s", said)
	}
	site, diags := Load(context.Background(), "testdata/good.hcl", fakes())
	if site == nil {
		t.Fatal(report(t, "testdata/good.hcl"))
	}
	if !strings.Contains(site.Broker("mqtt.house").Config.Reveal(), "hunter2") {
		t.Fatal("the site does not have the secret: this test would show nothing")
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded", "site", site, "value", *site, "broker", site.Brokers[0], "diags", diags)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("loaded", "site", site, "value", *site, "broker", site.Brokers[0], "diags", diags)
	text, err := json.Marshal(site)
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct {
		site   *Site
		value  Site
		secret Secret
	}
	h := hidden{site, *site, site.Brokers[0].Config}
	seen := []string{log.String(), string(text)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%T", "%p", "%t"} {
		seen = append(seen, fmt.Sprintf(verb, site), fmt.Sprintf(verb, *site), fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h),
			fmt.Sprintf(verb, site.Brokers[0].Config), fmt.Sprintf(verb, &site.Brokers[0].Config))
	}
	for _, text := range seen {
		for _, secret := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), "Opens the hatch\\n"} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%q is in what is printed: …%s", secret, text[max(0, i-100):i+len(secret)])
			}
		}
	}
}

func TestEqualFilesGiveEqualSites(t *testing.T) {
	one, _ := Load(context.Background(), "testdata/good.hcl", fakes())
	two, _ := Load(context.Background(), "testdata/good.hcl", fakes())
	if diff := cmp.Diff(one, two, cmp.Comparer(Graph.Equal)); diff != "" {
		t.Errorf("two loads of one file differ:\n%s", diff)
	}
	if one.Brokers[0] != two.Brokers[0] {
		t.Error("equal brokers are not ==")
	}
	opts := fakes()
	opts.LookupEnv = func(name string) (string, bool) { return "3570", true }
	three, diags := Load(context.Background(), "testdata/good.hcl", opts)
	if three == nil {
		t.Fatal(diags.List)
	}
	if one.Brokers[0] == three.Brokers[0] {
		t.Error("brokers with different passwords are ==")
	}
	if one.Participants[1].Equal(three.Participants[1]) {
		t.Error("participants with different environments are equal")
	}
	if !one.Participants[0].Equal(three.Participants[0]) || one.Brokers[1] != three.Brokers[1] {
		t.Error("what did not change is not equal")
	}
}

func TestFilesOutsideOfTheFolderAreNotRead(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "site")
	write(t, filepath.Join(top, "outside.pem"), "outside")
	write(t, filepath.Join(dir, "inside.pem"), "inside")
	if err := os.Symlink("../outside.pem", filepath.Join(dir, "link.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("inside.pem", filepath.Join(dir, "fine.pem")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		read bool
	}{
		{"inside.pem", true},
		{"fine.pem", true},
		{"./sub/../inside.pem", false}, // sub is not there
		{"../outside.pem", false},
		{"link.pem", false},
		{filepath.Join(top, "outside.pem"), false},
		{"", false},
		{".", false},
	} {
		file := filepath.Join(dir, "site.hcl")
		write(t, file, fmt.Sprintf("broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n  password = file(%q)\n}\n", tc.path))
		site, diags := Load(context.Background(), file, fakes())
		if read := site != nil; read != tc.read {
			t.Errorf("file(%q): read is %v, want %v: %v", tc.path, read, tc.read, diags.List)
		}
	}
}

func TestPipesAndLargeFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	pipe(t, filepath.Join(dir, "pipe.yml"))
	write(t, filepath.Join(dir, "large.yml"), "component: "+strings.Repeat("x", maxParticipant))
	write(t, filepath.Join(dir, "binary.pem"), "\xff\xfe")
	file := filepath.Join(dir, "site.hcl")
	write(t, file, `
broker "mqtt" "a" {
  url      = "mqtt://h"
  password = file("binary.pem")
}
participant "pipe" {
  file = "pipe.yml"
}
participant "large" {
  file = "large.yml"
}
`)
	_, diags := Load(context.Background(), file, fakes())
	if diags.Count(Error) != 3 {
		t.Errorf("3 errors were expected: %v", diags.List)
	}
	pipe(t, filepath.Join(dir, "site2.hcl"))
	if site, diags := Load(context.Background(), filepath.Join(dir, "site2.hcl"), fakes()); site != nil || diags.Count(Error) != 1 {
		t.Errorf("a pipe was read as a site file: %v", diags.List)
	}
}

func TestMissingSiteFileIsADiagnosticThatNamesWhatToWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.hcl")
	site, diags := Load(context.Background(), file, fakes())
	if site != nil || diags.Count(Error) != 1 || len(diags.Files) != 1 || diags.Files[0] != file {
		t.Errorf("site %v, diagnostics %+v", site, diags)
	}
}

func TestFilesThatAreNamedAreToBeWatched(t *testing.T) {
	_, diags := Load(context.Background(), "testdata/graphs.hcl", fakes())
	names := map[string]bool{}
	for _, file := range diags.Files {
		if !filepath.IsAbs(file) {
			t.Errorf("%q is not absolute", file)
		}
		names[filepath.Base(file)] = true
	}
	for _, want := range []string{"graphs.hcl", "bad.fbp", "missing.fbp"} {
		if !names[want] {
			t.Errorf("%s is not in %v", want, diags.Files)
		}
	}
}

func TestDeepNestingIsRefusedBeforeItIsParsed(t *testing.T) {
	for _, tc := range []struct{ open, close string }{
		{"(", ")"}, {"[", "]"}, {"{a=", "}"}, {"!", ""}, {"-", ""}, {`"${`, `}"`}, {"a ? a : ", ""}, {"a[", "]"}, {"env(", ")"},
	} {
		n := maxSiteFile / 8 / (len(tc.open) + len(tc.close))
		file := filepath.Join(t.TempDir(), "site.hcl")
		write(t, file, "graph \"main\" {\n  text = "+strings.Repeat(tc.open, n)+"1"+strings.Repeat(tc.close, n)+"\n}\n")
		site, diags := Load(context.Background(), file, fakes())
		if site != nil || diags.List[0].Summary != "Too deeply nested" {
			t.Errorf("%s: %v", tc.open, diags.List[0])
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsWithASecretInThemAreMarkedAsPrivate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "site.hcl")
	write(t, file, `
broker "mqtt" "a" {
  url = "mqtt://h"
}
participant "p" {
  component = "x/P"
  outport "plain" {
    address = "plain"
    qos     = 1
  }
  outport "none" { address = "none" }
  outport "secret" {
    address = "secret"
    qos     = env("NOT_SET", "1")
  }
}
`)
	site, diags := Load(context.Background(), file, fakes())
	if site == nil {
		t.Fatal(sound(t, diags))
	}
	for i, want := range []bool{false, false, true} {
		if p := site.Participants[0].Outports[i]; p.Private != want {
			t.Errorf("%s: private is %v", p.Name, p.Private)
		}
	}
}

func TestSettingsOfAnEdgeAreFoundByItsEnds(t *testing.T) {
	site, diags := Load(context.Background(), "testdata/array.hcl", fakes())
	if site == nil {
		t.Fatal(sound(t, diags))
	}
	for _, tc := range []struct {
		fromPort, toPort string
		want             int64
	}{
		{"out[0]", "in[2]", 5},
		{"OUT[1]", "in", 6},
		{"out", "in", 0},
		{"out[0]", "in", 0},
	} {
		if got := site.Edge("a", tc.fromPort, "b", tc.toPort).Window; got != tc.want {
			t.Errorf("%s -> %s: window %d, want %d", tc.fromPort, tc.toPort, got, tc.want)
		}
	}
	if got := site.Edges[0]; got.FromPort != "out[0]" || got.ToPort != "in[2]" {
		t.Errorf("not the graph's spelling: %+v", got)
	}
}

// TestDiscoveryAndLibrariesChangeNoBroker shows that neither is a reason to connect anew.
func TestDiscoveryAndLibrariesChangeNoBroker(t *testing.T) {
	const before = "broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n}\n"
	const after = "broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n  discovery = []\n  silence = \"1m\"\n}\nlibrary \"l\" {}\n"
	load := func(src string) *Site {
		file := filepath.Join(t.TempDir(), "site.hcl")
		write(t, file, src)
		site, diags := Load(context.Background(), file, fakes())
		if site == nil {
			t.Fatal(sound(t, diags))
		}
		return site
	}
	one, two, same := load(before), load(after), load(after)
	if one.Brokers[0] != two.Brokers[0] {
		t.Error("the broker is another one")
	}
	if d, e := one.DiscoveryOn("mqtt.a"), two.DiscoveryOn("mqtt.a"); d.Equal(e) || d.Addresses != nil || e.Addresses == nil {
		t.Errorf("no addresses are the same as an empty list of them: %+v, %+v", d, e)
	}
	if !two.DiscoveryOn("mqtt.a").Equal(same.DiscoveryOn("mqtt.a")) {
		t.Error("equal settings of discovery are not equal")
	}
	if two.Library("l") == nil || one.Library("l") != nil || two.Library("l").Equal(Library{Name: "l"}) || !two.Library("l").Equal(*two.Library("l")) {
		t.Error("libraries are not what they are")
	}
}

func TestLibraryThatIsNotThereIsToBeWatched(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "site.hcl")
	write(t, file, "broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n}\nlibrary \"l\" {\n  file = \"lib/package.json\"\n}\n")
	_, diags := Load(context.Background(), file, fakes())
	if want := filepath.Join(dir, "lib", "package.json"); !diags.HasErrors() || !slices.Contains(diags.Files, want) {
		t.Errorf("%s is not in %v", want, diags.Files)
	}
	write(t, filepath.Join(dir, "lib", "package.json"), "{}")
	if site, diags := Load(context.Background(), file, fakes()); site == nil || len(diags.Files) != 1 {
		t.Errorf("a library that is there is core/library's to watch: %v, %v", diags.Files, diags.List)
	}
	// A pipe is neither: reading it would hold the gateway until somebody writes.
	pipe(t, filepath.Join(dir, "pipe"))
	write(t, file, "broker \"mqtt\" \"a\" {\n  url = \"mqtt://h\"\n}\nlibrary \"l\" {\n  file = \"pipe\"\n}\n")
	if site, _ := Load(context.Background(), file, fakes()); site != nil {
		t.Error("a pipe was taken for a library")
	}
}
