package library_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/library"
)

// files returns what is in a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range list {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[f.Name()] = string(text)
	}
	return found
}

func TestSourceIsWrittenAndReadBack(t *testing.T) {
	dir := project(t, map[string]string{"package.json": `{"name": "n"}`})
	l := load(t, dir)
	for _, c := range []struct {
		component, language, code string
		name                      string
		files                     map[string]string
	}{
		{"n/A", "javascript", "one", "n/A", map[string]string{"A.js": "one"}}, // in a folder that was not there
		{"A", "JavaScript", "two", "n/A", map[string]string{"A.js": "two"}},
		{"B", "yaml", "component: x", "n/B", map[string]string{"A.js": "two", "B.yml": "component: x"}},
		{"n/A", "python", "three", "n/A", map[string]string{"A.py": "three", "B.yml": "component: x"}},
		{"n/a.b c", "fbp", "", "n/a.b c", map[string]string{"A.py": "three", "B.yml": "component: x", "a.b c.fbp": ""}},
	} {
		if err := l.SetSource(c.component, c.language, c.code); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.files, files(t, filepath.Join(dir, "components"))); diff != "" {
			t.Errorf("%s: %s", c.component, diff)
		}
		language, code, err := l.Source(c.name)
		if language != strings.ToLower(c.language) || code != c.code || err != nil {
			t.Errorf("%s: %s %q %v", c.name, language, code, err)
		}
		if _, err := l.Command(c.name, "r", nil); err != nil {
			t.Error(err)
		}
	}
}

func TestSourceKeepsItsFile(t *testing.T) {
	dir := project(t, map[string]string{"components/A.yaml": "old"})
	if err := os.Chmod(filepath.Join(dir, "components/A.yaml"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := load(t, dir).SetSource("A", "yaml", "new"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"A.yaml": "new"}, files(t, filepath.Join(dir, "components"))); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(filepath.Join(dir, "components/A.yaml")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the mode is now %v %v", info.Mode(), err)
	}
}

func TestSourceThatCannotBeIsRefused(t *testing.T) {
	dir := project(t, map[string]string{
		"package.json":    `{"name": "n", "components": {"n/Own": "x", "Bare": "x"}, "handlers": {".py": false}}`,
		"components/A.js": "the old one", "components/D.js/x": "", "outside.js": "mine",
	})
	if err := os.Symlink("../outside.js", filepath.Join(dir, "components", "Link.js")); err != nil {
		t.Fatal(err)
	}
	l := load(t, dir)
	for _, c := range []struct{ component, language, code, want string }{
		{"other/A", "javascript", "", `the namespace of library`},
		{"n/../A", "javascript", "", `the namespace of library`},
		{"../A", "javascript", "", `the namespace of library`},
		{"n/..", "javascript", "", `begins with neither`},
		{"n/", "javascript", "", `1 to 128 bytes`},
		{"-A", "javascript", "", `begins with neither`},
		{".A", "javascript", "", `begins with neither`},
		{`A\B`, "javascript", "", `no slashes`},
		{"A\x00", "javascript", "", `control characters`},
		{strings.Repeat("A", 129), "javascript", "", `1 to 128 bytes`},
		{"A", "brainfuck", "", `nothing runs "brainfuck" here: there are handlers for .coffee, .fbp, .js, .json, .yaml, .yml`},
		{"A", "python", "", `nothing runs "python"`},
		{"A", "", "", `nothing runs ""`},
		{"A", "/../js", "", `nothing runs`},
		{"n/Own", "javascript", "", library.ErrNoSource.Error()},
		{"D", "javascript", "", `is a folder`},
		{"A", "javascript", strings.Repeat("x", library.MaxSource+1), `1024 KiB`},
	} {
		err := l.SetSource(c.component, c.language, c.code)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %s: %v, want %s", c.component, c.language, err, c.want)
		}
	}
	if _, _, err := l.Source("n/Link"); err == nil {
		t.Error("a link led out of the folder")
	}
	if _, _, err := l.Source("Bare"); !errors.Is(err, library.ErrNoSource) {
		t.Error(err)
	}
	if _, _, err := l.Source("n/Gone"); !errors.Is(err, library.ErrUnknown) {
		t.Error(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "components", "D.js")); err != nil {
		t.Fatal(err)
	}
	// A link is replaced, and what it leads to is not touched.
	if err := l.SetSource("Link", "javascript", "new"); err != nil {
		t.Error(err)
	}
	want := map[string]string{"A.js": "the old one", "Link.js": "new"}
	if diff := cmp.Diff(want, files(t, filepath.Join(dir, "components"))); diff != "" {
		t.Error(diff)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "outside.js")); string(text) != "mine" {
		t.Errorf("outside of the folder there is now %q %v", text, err)
	}
}

func TestPipeAsSourceBlocksNobody(t *testing.T) {
	dir := project(t, map[string]string{"components/A.js": ""})
	l := load(t, dir)
	path := filepath.Join(dir, "components", "A.js")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Source("A"); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Error(err)
	}
}

func TestSourceIsNeverHalfThere(t *testing.T) {
	dir := project(t, map[string]string{"components/A.js": strings.Repeat("0", 10000)})
	l := load(t, dir)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range 50 {
			if err := l.SetSource("A", "javascript", strings.Repeat(string(rune('0'+i%10)), 10000)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 500 {
		text, err := os.ReadFile(filepath.Join(dir, "components/A.js"))
		if err != nil || len(text) != 10000 || strings.Trim(string(text), string(text[:1])) != "" {
			t.Fatalf("there are %d bytes %v", len(text), err)
		}
		if _, ok := l.Component("A"); !ok {
			t.Fatal("the component is gone")
		}
	}
}
