package library_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flogate/flogate/core/library"
)

// heard is what Watch has said, one line for each time.
type heard struct {
	mu     sync.Mutex
	said   []string
	passed []string
}

func (h *heard) changed(names []string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.said = append(h.said, err.Error())
		return
	}
	h.said = append(h.said, strings.Join(names, " "))
}

// next waits until something with want in it is said. What was said before that is in passed.
func (h *heard) next(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		for i, s := range h.said {
			if strings.Contains(s, want) {
				h.passed, h.said = h.said[:i], h.said[i+1:]
				h.mu.Unlock()
				return
			}
		}
		h.mu.Unlock()
	}
	t.Fatalf("%q was not said, but %q", want, h.said)
}

// watch watches l until the test ends.
func watch(t *testing.T, l *library.Library) *heard {
	t.Helper()
	h := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Watch(ctx, h.changed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestComponentsComeChangeAndGo(t *testing.T) {
	dir := project(t, map[string]string{"package.json": `{"name": "n"}`, "participants/Old.js": ""})
	l := load(t, dir)
	in := func(name string) string { return filepath.Join(dir, "participants", name) }
	write(t, in("Before.js"), "") // the watch does not see it, and it is found
	h := watch(t, l)
	h.next(t, "n/Before")
	write(t, in("A.js"), "1")
	h.next(t, "n/A")
	write(t, in("A.js"), "12")
	h.next(t, "n/A")
	// As editors save: a new file, renamed over the old one.
	write(t, in(".A.js.swp"), "123")
	must(t, os.Rename(in(".A.js.swp"), in("A.js")))
	h.next(t, "n/A")
	// And as others do: the old one put away first.
	must(t, os.Rename(in("A.js"), in("A.js~")))
	write(t, in("A.js"), "1234")
	h.next(t, "n/A")
	must(t, os.Rename(in("A.js"), in("B.js")))
	h.next(t, "n/A n/B")
	must(t, os.Remove(in("Old.js")))
	h.next(t, "n/Old")
	must(t, l.SetSource("n/C", "javascript", "x"))
	h.next(t, "n/C")
	if got := fmt.Sprint(names(l)); got != "[n/B n/Before n/C]" {
		t.Error(got)
	}
}

func TestBrokenFileChangesNothingUntilItIsMended(t *testing.T) {
	dir := project(t, map[string]string{"package.json": `{"components": {"A": "one"}}`})
	l := load(t, dir)
	h := watch(t, l)
	path := filepath.Join(dir, "package.json")
	write(t, path, "{\n\"components\": {\"A\": \"two'\"}}")
	h.next(t, "package.json:2:16: components: A: a ' is not closed")
	if got, err := l.Command("A", "r", nil); err != nil || got[0] != "one" {
		t.Errorf("the command is %q %v", got, err)
	}
	write(t, path, `{"components": {"A": "two"}}`)
	h.next(t, "A")
	if got, err := l.Command("A", "r", nil); err != nil || got[0] != "two" {
		t.Errorf("the command is %q %v", got, err)
	}
	must(t, os.Remove(path))
	h.next(t, "A") // a folder needs no package.json
}

func TestNamedFileThatIsGoneChangesNothing(t *testing.T) {
	path := filepath.Join(project(t, map[string]string{"own.json": `{"components": {"A": "one"}}`}), "own.json")
	l, err := library.Load(path, "")
	must(t, err)
	h := watch(t, l)
	must(t, os.Remove(path))
	h.next(t, "no such file")
	if _, ok := l.Component("A"); !ok {
		t.Error("the component is gone")
	}
	write(t, path, `{"components": {"B": "one"}}`)
	h.next(t, "A B")
}

func TestComponentFolderComesGoesAndIsReplaced(t *testing.T) {
	dir := project(t, map[string]string{"own.json": `{"componentdir": "src/deep/parts"}`})
	l, err := library.Load(filepath.Join(dir, "own.json"), "")
	must(t, err)
	h := watch(t, l)
	write(t, filepath.Join(dir, "src/deep/parts/A.js"), "")
	h.next(t, "A")
	write(t, filepath.Join(dir, "src/deep/parts/B.js"), "")
	h.next(t, "B")
	must(t, os.Rename(filepath.Join(dir, "src/deep"), filepath.Join(dir, "src/away")))
	h.next(t, "A B")
	write(t, filepath.Join(dir, "src/deep/parts/C.js"), "")
	h.next(t, "C")
	write(t, filepath.Join(dir, "src/away/parts/Not.js"), "")
	must(t, os.RemoveAll(filepath.Join(dir, "src")))
	h.next(t, "C")
	write(t, filepath.Join(dir, "other/D.js"), "")
	write(t, filepath.Join(dir, "own.json"), `{"componentdir": "other"}`)
	h.next(t, "D")
	write(t, filepath.Join(dir, "other/E.js"), "")
	h.next(t, "E")
}

func TestWhatIsNoComponentIsPassedOver(t *testing.T) {
	dir := project(t, map[string]string{"package.json": `{"name": "n"}`, "components/A.js": ""})
	h := watch(t, load(t, dir))
	for _, name := range []string{"flogate.log", "components/notes.txt", "components/.A.js.swp", "components/A.js~", "graphs/g.json"} {
		write(t, filepath.Join(dir, name), "x")
	}
	must(t, os.Chmod(filepath.Join(dir, "components/A.js"), 0o600))
	write(t, filepath.Join(dir, "components/B.js"), "")
	h.next(t, "n/B")
	if len(h.passed) > 0 {
		t.Errorf("%q was said as well", h.passed)
	}
}

func TestFolderBehindALinkIsFollowed(t *testing.T) {
	dir := project(t, map[string]string{"one/A.js": "", "two/B.js": "", "two/A.js": "x", "package.json": "{}"})
	link := filepath.Join(dir, "components")
	must(t, os.Symlink("one", link))
	h := watch(t, load(t, dir))
	write(t, filepath.Join(dir, "one/C.js"), "")
	h.next(t, "C")
	must(t, os.Symlink("two", link+".new"))
	must(t, os.Rename(link+".new", link))
	h.next(t, "A B C")
	write(t, filepath.Join(dir, "two/D.js"), "")
	h.next(t, "D")
}

func TestEndlessChangesDoNotHoldOffTheReading(t *testing.T) {
	dir := project(t, map[string]string{"components/A.js": ""})
	h := watch(t, load(t, dir))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			write(t, filepath.Join(dir, "components/notes.txt"), fmt.Sprint(i))
			time.Sleep(2 * time.Millisecond)
		}
	})
	write(t, filepath.Join(dir, "components/B.js"), "")
	h.next(t, "B")
	cancel()
	wg.Wait()
}
