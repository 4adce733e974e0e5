package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module writes a module with the given test file and returns its folder.
func module(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26.0\n", "m_test.go": file} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEveryEndIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		file, counts, shown string
		code                int
	}{
		"pass": {
			file:   "func TestA(t *testing.T) { t.Run(`b`, func(*testing.T) {}) }\nfunc TestS(t *testing.T) { t.Skip() }",
			counts: "2 passed, 0 failed, 1 skipped", shown: "skip m TestS", code: 0,
		},
		"fail":        {file: "func TestA(t *testing.T) { t.Error(`why`) }", counts: "0 passed, 1 failed, 0 skipped", shown: "why", code: 1},
		"panic":       {file: "func TestA(t *testing.T) { panic(`why`) }", counts: "0 passed, 1 failed, 0 skipped", shown: "why", code: 1},
		"exit":        {file: "func TestA(t *testing.T) { os.Exit(3) }", counts: "0 passed, 1 failed, 0 skipped", shown: "TestA", code: 1},
		"no build":    {file: "func TestA(t *testing.T) { why }", counts: "0 passed, 1 failed, 0 skipped", shown: "why", code: 1},
		"in TestMain": {file: "func TestMain(m *testing.M) { m.Run(); println(`why`); os.Exit(1) }\nfunc TestA(*testing.T) {}", counts: "1 passed, 1 failed, 0 skipped", shown: "why", code: 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "counts")
			t.Setenv(envCounts, file)
			dir := module(t, "package m\n\nimport (\"os\"; \"testing\")\n\nvar _ = os.Exit\n\n"+c.file+"\n")
			var stdout, stderr strings.Builder
			if code := run([]string{"-in", dir, "--", "-count=1", "./..."}, &stdout, &stderr); code != c.code {
				t.Errorf("exit code %d", code)
			}
			if !strings.HasSuffix(stdout.String(), "\n"+c.counts+"\n") {
				t.Errorf("does not end with %q:\n%s", c.counts, stdout.String())
			}
			if !strings.Contains(stdout.String(), c.shown) {
				t.Errorf("does not show %q:\n%s", c.shown, stdout.String())
			}
			numbers, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.NewReplacer(" passed", "", " failed", "", " skipped", "", ",", "").Replace(c.counts)
			if strings.TrimSpace(string(numbers)) != want {
				t.Errorf("counts file has %q, want %q", numbers, want)
			}
		})
	}
}

func TestFolderWithoutModuleIsAnError(t *testing.T) {
	var stdout, stderr strings.Builder
	if code := run([]string{"-in", t.TempDir(), "./..."}, &stdout, &stderr); code != 1 {
		t.Errorf("exit code %d", code)
	}
}
