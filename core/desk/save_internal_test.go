package desk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFileThatHasChangedSinceItWasReadIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hall.fbp")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a(A)\n")
	_, was, err := readText(path)
	if err != nil {
		t.Fatal(err)
	}
	write("a(A), b(B)\n")
	if err := replaceFile(path, []byte("c(C)\n"), was, false); !errors.Is(err, errChangedAgain) {
		t.Errorf("got %v", err)
	}
	text, was, err := readText(path)
	if err != nil || text != "a(A), b(B)\n" {
		t.Errorf("it is %q, %v", text, err)
	}
	if err := replaceFile(path, []byte("c(C)\n"), was, false); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestEachGraphHasAFileOfItsOwn(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"main", "Main", "a/b", "a%2fb", "..", ".", "con.txt", "ä", "a b", "-", "_"} {
		file, err := fileName(name)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := files[file]; ok {
			t.Errorf("%q and %q are both %q", name, other, file)
		}
		files[file] = name
		if again, err := graphName(file); err != nil || again != name {
			t.Errorf("%q is %q is %q, %v", name, file, again, err)
		}
	}
	for _, file := range []string{"Main", "%", "%4", "%zz", "%6d", "a.b", ""} {
		if name, err := graphName(file); err == nil {
			t.Errorf("%q is the file of %q", file, name)
		}
	}
}
