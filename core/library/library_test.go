package library_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/flogate/flogate/core/library"
)

// project writes files into a folder and returns it.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, dir string) *library.Library {
	t.Helper()
	l, err := library.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func names(l *library.Library) []string {
	var names []string
	for _, c := range l.Components() {
		names = append(names, c.Name)
	}
	return names
}

func TestProjectOfMsgFloIsReadAsItIs(t *testing.T) {
	dir := project(t, map[string]string{
		"package.json": `{
			"name": "lights",
			"version": "1.0.0",
			"repository": {"type": "git", "url": "git://example.org/lights.git"},
			"msgflo": {
				"variables": {"one": "--prefetch 1", "NOFLO": "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT", "N": 7},
				"handlers": {".coffee": "coffee #FILENAME #ROLE", ".rs": "run-rust '#FILENAME'", ".fbp": "", ".json": false},
				"components": {
					"api/Web": "node web.js",
					"api/Worker": "#NOFLO #ONE -n=#N",
					"api/Known": {"command": "node #COMPONENTNAME.js", "description": "Does it.", "language": "javascript", "icon": "bolt"},
					"api/Theirs": {"description": "Runs elsewhere."}
				}
			}
		}`,
		"participants/Dimmer.coffee": "", "participants/Fade.py": "", "participants/Lamp.js": "", "participants/Scene.fbp": "",
		"participants/siri.yml": "", "participants/door.yaml": "", "participants/Fast.rs": "",
		"participants/graph.json": "{}", "participants/README.md": "", "participants/.Lamp.js.swp": "", "participants/.#Lamp.js": "",
		"components/NotThis.js": "",
	})
	l := load(t, dir)
	noflo := "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT"
	want := []library.Component{
		{Name: "api/Known", Command: "node #COMPONENTNAME.js", Language: "javascript", Description: "Does it."},
		{Name: "api/Theirs", Description: "Runs elsewhere."},
		{Name: "api/Web", Command: "node web.js"},
		{Name: "api/Worker", Command: noflo + " --prefetch 1 -n=7"},
		{Name: "lights/Dimmer", File: "participants/Dimmer.coffee", Language: "coffeescript", Command: "coffee #FILENAME #ROLE"},
		{Name: "lights/Fade", File: "participants/Fade.py", Language: "python", Command: "msgflo-python #FILENAME #ROLE"},
		{Name: "lights/Fast", File: "participants/Fast.rs", Language: "rust", Command: "run-rust '#FILENAME'"},
		{Name: "lights/Lamp", File: "participants/Lamp.js", Language: "javascript", Command: "msgflo-nodejs --name #ROLE #FILENAME"},
		{Name: "lights/Scene", File: "participants/Scene.fbp", Language: "fbp", Command: noflo + " --iips #IIPS"},
		{Name: "lights/door", File: "participants/door.yaml", Language: "yaml", Command: "flogate register --role #ROLE:#FILENAME", Foreign: true},
		{Name: "lights/siri", File: "participants/siri.yml", Language: "yaml", Command: "flogate register --role #ROLE:#FILENAME", Foreign: true},
	}
	if diff := cmp.Diff(want, l.Components()); diff != "" {
		t.Error(diff)
	}
	if got := l.Definition().Repository; got != "git://example.org/lights.git" {
		t.Errorf("repository %q", got)
	}
	for _, c := range []struct {
		component string
		iips      string
		want      []string
	}{
		{"api/Worker", "", []string{"noflo-runtime-msgflo", "--name", "hall", "--graph", "api/Worker", "--prefetch", "1", "-n=7"}},
		{"api/Known", "", []string{"node", "Known.js"}},
		// NoFlo finds the graph of a file by its bare name.
		{"lights/Scene", `{ "b": "it's", "a": [1, 2] }`, []string{
			"noflo-runtime-msgflo", "--name", "hall", "--graph", "Scene", "--iips", `{"a":[1,2],"b":"it's"}`,
		}},
		{"Scene", "", []string{"noflo-runtime-msgflo", "--name", "hall", "--graph", "Scene", "--iips", "{}"}},
		{"lights/siri", "null", []string{"flogate", "register", "--role", "hall:participants/siri.yml"}},
	} {
		got, err := l.Command(c.component, "hall", json.RawMessage(c.iips))
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", c.component, err, diff)
		}
	}
}

func TestOwnFileHasTheSameKeys(t *testing.T) {
	dir := project(t, map[string]string{
		"msgflo.json":    `{"namespace": "house", "repository": "https://example.org", "componentdir": "src/parts", "components": {"Bare": "run"}}`,
		"src/parts/A.py": "", "participants/B.py": "", "other/C.py": "",
	})
	l, err := library.Load(filepath.Join(dir, "msgflo.json"), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Bare", "house/A"}, names(l)); diff != "" {
		t.Error(diff)
	}
	if c, ok := l.Component("any/Bare"); !ok || c.Name != "Bare" {
		t.Errorf("any/Bare is %v %v: a component without namespace is found with any", c, ok)
	}
	l, err = library.Load(filepath.Join(dir, "msgflo.json"), "other")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Bare", "house/C"}, names(l)); diff != "" {
		t.Errorf("the caller's folder: %s", diff)
	}
}

func TestNamespace(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{`{}`, "A"},
		{`{"name": "p"}`, "p/A"},
		{`{"name": "@scope/p"}`, "@scope/p/A"},
		{`{"name": "p", "msgflo": {}}`, "p/A"},
		{`{"name": "p", "msgflo": null}`, "p/A"},
		{`{"name": "p", "namespace": "n"}`, "n/A"},
		{`{"name": "p", "msgflo": {"namespace": "n"}}`, "n/A"},
		{`{"name": "p", "msgflo": {"namespace": null}}`, "p/A"},
		{`{"name": "p", "msgflo": {"namespace": ""}}`, "A"},
	} {
		dir := project(t, map[string]string{"package.json": c.file, "components/A.js": ""})
		if diff := cmp.Diff([]string{c.want}, names(load(t, dir))); diff != "" {
			t.Errorf("%s: %s", c.file, diff)
		}
	}
}

func TestFolderAloneIsALibrary(t *testing.T) {
	l := load(t, project(t, map[string]string{"components/A.js": "", "x.js": ""}))
	if diff := cmp.Diff([]string{"A"}, names(l)); diff != "" {
		t.Error(diff)
	}
	if _, err := library.Load(filepath.Join(t.TempDir(), "gone"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := library.Load(filepath.Join(t.TempDir(), "package.json"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := library.New(library.Definition{Dir: filepath.Join(t.TempDir(), "gone")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder of a definition: %v", err)
	}
}

// The page for users shows a library that is one.
func TestLibraryInTheDocsIsOne(t *testing.T) {
	page, err := os.ReadFile("../../docs/components.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "<!-- library: -->\n```json\n")
	src, _, ends := strings.Cut(rest, "```")
	if !ok || !ends {
		t.Fatal("there is none")
	}
	l := load(t, project(t, map[string]string{
		"package.json": src, "participants/Dimmer.coffee": "", "participants/g.json": "", "participants/siri.yml": "",
	}))
	if diff := cmp.Diff([]string{"api/Mail", "api/Web", "api/Worker", "lights/Dimmer", "lights/siri"}, names(l)); diff != "" {
		t.Error(diff)
	}
	handlers := ""
	for ending, command := range library.DefaultHandlers() {
		if !strings.Contains(string(page), "`"+ending+"`") || !strings.Contains(string(page), "`"+command+"`") {
			handlers += " " + ending
		}
	}
	if handlers != "" {
		t.Errorf("the page lacks handlers:%s", handlers)
	}
}

func TestDefinitionInGoIsTheSame(t *testing.T) {
	dir := project(t, map[string]string{"parts/A.js": "", "parts/-b.js": "", "-c.js": ""})
	l, err := library.New(library.Definition{
		Dir: dir, Namespace: "n", ComponentDir: "parts",
		Variables:  map[string]string{"V": "a b"},
		Handlers:   map[string]string{"js": "node #V #FILENAME"},
		Components: map[string]library.Configured{"n/X": {Command: "x '#V'"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"n/A", "n/X"}, names(l)); diff != "" {
		t.Error(diff)
	}
	for component, want := range map[string][]string{"A": {"node", "a", "b", "parts/A.js"}, "X": {"x", "a b"}} {
		if got, err := l.Command(component, "r", nil); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %q %v", component, got, err)
		}
	}
	if ignored := l.Ignored(); len(ignored) != 1 || !strings.Contains(ignored[0].Error(), `"parts/-b.js" is no component`) {
		t.Errorf("ignored %v", ignored)
	}
}

func TestFileIsNoOption(t *testing.T) {
	dir := project(t, map[string]string{"-parts/A.js": ""})
	l, err := library.Load(dir, "-parts")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Command("A", "r", nil); err != nil || got[3] != "./-parts/A.js" {
		t.Errorf("%q %v", got, err)
	}
	l, err = library.Load(dir, filepath.Join(dir, "-parts"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A"}, names(l)); diff != "" {
		t.Error(diff)
	}
}

func TestConfiguredComponentRunsItsFile(t *testing.T) {
	l := load(t, project(t, map[string]string{
		"package.json":      `{"name": "n", "msgflo": {"components": {"n/A": "special #FILENAME", "n/B": "special #FILENAME"}}}`,
		"participants/A.js": "the source",
	}))
	got, err := l.Command("n/A", "r", nil)
	if want := []string{"special", "participants/A.js"}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
	if language, code, err := l.Source("n/A"); language != "javascript" || code != "the source" || err != nil {
		t.Errorf("%s %q %v", language, code, err)
	}
	if _, err := l.Command("n/B", "r", nil); err == nil || !strings.Contains(err.Error(), "has no file") {
		t.Errorf("#FILENAME without a file: %v", err)
	}
}

func TestWhatIsNoComponentIsSaid(t *testing.T) {
	dir := project(t, map[string]string{
		"participants/A.js": "", "participants/A.py": "", "participants/B.js/x": "", "participants/new\nline.js": "",
		"elsewhere/C.js": "", "participants/notes.txt": "",
	})
	for from, to := range map[string]string{"../elsewhere/C.js": "C.js", "gone": "D.js"} {
		if err := os.Symlink(from, filepath.Join(dir, "participants", to)); err != nil {
			t.Fatal(err)
		}
	}
	l := load(t, dir)
	if diff := cmp.Diff([]string{"A", "C"}, names(l)); diff != "" {
		t.Error(diff)
	}
	if c, _ := l.Component("A"); c.File != "participants/A.py" {
		t.Errorf("of two files of one name %s was taken, and MsgFlo takes the last", c.File)
	}
	var said []string
	for _, err := range l.Ignored() {
		said = append(said, err.Error())
	}
	want := []string{
		`"participants/A.js" is no component: "participants/A.py" is of the same name`,
		`"participants/B.js" is no component: it is no file`,
		`"participants/D.js" is no component: stat ` + dir + `/participants/D.js: no such file or directory`,
		`"participants/new\nline.js" is no component: a name has no control characters`,
	}
	if diff := cmp.Diff(want, said, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownComponentIsGuessed(t *testing.T) {
	l := load(t, project(t, map[string]string{
		"package.json": `{"name": "n", "components": {"n/Dimmer": "x", "api/Theirs": {}}}`,
	}))
	for given, guess := range map[string]string{
		"n/Dimer": `"n/Dimmer"`, "m/Dimmer": `"n/Dimmer"`, "dimmer": "", "n/Something": "", "n/Dimmers": `"n/Dimmer"`,
	} {
		_, err := l.Command(given, "r", nil)
		if !errors.Is(err, library.ErrUnknown) {
			t.Fatalf("%s: %v", given, err)
		}
		if guess == "" == strings.Contains(err.Error(), "Did you mean") || !strings.Contains(err.Error(), guess) {
			t.Errorf("%v, want %s", err, guess)
		}
	}
	if _, err := l.Command("api/Theirs", "r", nil); !errors.Is(err, library.ErrNoCommand) {
		t.Errorf("a component without command: %v", err)
	}
}

func TestValuesThatNoProgramCanBeGivenAreRefused(t *testing.T) {
	l := load(t, project(t, map[string]string{"package.json": `{"components": {"A": "x #ROLE #IIPS", "B": "\"\" x"}}`}))
	for _, role := range []string{"", "-rf", "--eval=1", "a\x00b", "a\nb"} {
		if _, err := l.Command("A", role, nil); err == nil {
			t.Errorf("role %q was taken", role)
		}
	}
	for _, iips := range []string{"[]", "1", "{", `{"a":}`, `{"a":"` + strings.Repeat("x", 128<<10) + `"}`} {
		if _, err := l.Command("A", "r", json.RawMessage(iips)); err == nil {
			t.Errorf("initial packets %.20s were taken", iips)
		}
	}
	if _, err := l.Command("B", "r", nil); err == nil {
		t.Error("a program without a name was taken")
	}
}

func TestProgramOfNpmIsFound(t *testing.T) {
	dir := project(t, map[string]string{
		"package.json":                    `{"components": {"A": "msgflo-nodejs #ROLE", "B": "./msgflo-nodejs", "C": "node"}}`,
		"node_modules/.bin/msgflo-nodejs": "",
	})
	l := load(t, dir)
	for component, want := range map[string]string{
		"A": filepath.Join(dir, "node_modules/.bin/msgflo-nodejs"), "B": "./msgflo-nodejs", "C": "node",
	} {
		if got, err := l.Command(component, "r", nil); err != nil || got[0] != want {
			t.Errorf("%s: %q %v", component, got, err)
		}
	}
}

func TestFaultsHaveTheirPlaces(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"{\n  \"msgflo\": {,}\n}", `msgflo.json:2:14: invalid character ',' looking for beginning of object key string`},
		{"", `msgflo.json:1:1: unexpected end of JSON input`},
		{"[]", `msgflo.json: it must be an object`},
		{"{\n\"msgflo\": 1}", `msgflo.json:2:1: msgflo: it must be an object`},
		{"{\n  \"components\": {\n    \"a/B\": \"x 'y\"\n  }\n}", `msgflo.json:3:5: components: a/B: a ' is not closed`},
		{`{"components": {"a/B": ""}}`, `msgflo.json:1:17: components: a/B: the command is empty`},
		{`{"components": {"a/B": 1}}`, `msgflo.json:1:17: components: a/B: it must be a command, or an object with a command`},
		{`{"components": {"a/B": {"command": 1}}}`, `msgflo.json:1:25: components: a/B: command: it must be a string`},
		{`{"components": {"": "x"}}`, `msgflo.json:1:17: components: : a component needs a name without control characters`},
		{`{"components": {"a/B": "x #A"}, "variables": {"A": "1 #B", "B": "#A"}}`, `msgflo.json:1:17: components: a/B: its variables go in a circle: #A → #B → #A`},
		{`{"components": {"a/B": "sh -c 'node #ROLE'"}}`, `msgflo.json:1:17: components: a/B: #ROLE in a script would be run as code: write "$1" there, and #ROLE behind it, as in sh -c 'echo "$1"' - #ROLE`},
		{`{"components": {"a/B": "x \\"}}`, `msgflo.json:1:17: components: a/B: nothing follows its last backslash`},
		{`{"variables": {"role": "x"}}`, `msgflo.json:1:16: variables: role: #ROLE stands for something else`},
		{`{"variables": {"a": ["x"]}}`, `msgflo.json:1:16: variables: a: it must be a string`},
		{`{"variables": {"a": null}}`, `msgflo.json:1:16: variables: a: it must be a string`},
		{`{"handlers": {".js": "node \"#FILENAME"}}`, `msgflo.json:1:15: handlers: .js: a " is not closed`},
		{`{"namespace": "a b"}`, `msgflo.json:1:2: namespace: "a b" is no namespace`},
		{`{"name": {}, "repository": 1}`, "msgflo.json:1:2: name: it must be a string\nmsgflo.json:1:14: repository: it must be a string"},
	} {
		dir := project(t, map[string]string{"msgflo.json": c.file})
		t.Chdir(dir)
		_, err := library.Load("msgflo.json", "")
		if err == nil {
			t.Errorf("%s was taken", c.file)
			continue
		}
		if diff := cmp.Diff(c.want, err.Error()); diff != "" {
			t.Errorf("%s: %s", c.file, diff)
		}
		if one, ok := errors.AsType[*library.Error](err); !ok || one.File != "msgflo.json" {
			t.Errorf("%s: %v is no Error", c.file, err)
		}
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	dir := project(t, map[string]string{"package.json": `{"a":"` + strings.Repeat("x", 1<<20) + `"}`})
	if _, err := library.Load(dir, ""); err == nil || !strings.Contains(err.Error(), "more than 1024 KiB") {
		t.Error(err)
	}
	// Each of twenty variables is ten of the next one.
	variables := map[string]string{"A": strings.Repeat("x ", 10)}
	for c := 'B'; c <= 'T'; c++ {
		variables[string(c)] = strings.Repeat("#"+string(c-1), 10)
	}
	_, err := library.New(library.Definition{
		Dir: dir, Variables: variables, Components: map[string]library.Configured{"A": {Command: "#T"}},
	})
	if err == nil || !strings.Contains(err.Error(), "more than 64 KiB") {
		t.Error(err)
	}
}
