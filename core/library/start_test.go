package library_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/library"
)

// printed collects what participants print.
type printed struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// lines waits for n lines.
func (p *printed) lines(t *testing.T, n int) []string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		log := p.log.String()
		p.mu.Unlock()
		var lines []string
		for record := range strings.Lines(log) {
			var r struct{ Msg, Text string }
			if err := json.Unmarshal([]byte(record), &r); err != nil {
				t.Fatal(err)
			}
			if r.Msg == "participant printed" {
				lines = append(lines, r.Text)
			}
		}
		if len(lines) >= n {
			return lines
		}
	}
	t.Fatalf("there are no %d lines in %s", n, p.log.String())
	return nil
}

func TestComponentIsStartedWithItsValuesAsTheyAre(t *testing.T) {
	l := load(t, project(t, map[string]string{
		"package.json": `{"name": "n", "msgflo": {
			"variables": {"RUN": "sh #FILENAME"},
			"handlers": {".sh": "#RUN #ROLE --role=#ROLE '#IIPS' \"#COMPONENT #COMPONENTNAME\""}
		}}`,
		"participants/Show it;.sh": "basename \"$PWD\" >/dev/null\nfor word; do echo \"<$word>\"; done\nexec sleep 60\n",
	}))
	role := `$(touch hacked); 'a' "b" #FILENAME \`
	command, err := l.Command("n/Show it;", role, json.RawMessage(`{"in": "'; exit #ROLE"}`))
	if err != nil {
		t.Fatal(err)
	}
	out := &printed{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- library.Participant{
			Role: role, Command: command, Dir: l.Dir(), Log: slog.New(slog.NewJSONHandler(out, nil)),
		}.Run(ctx)
	}()
	want := []string{
		"<" + role + ">",
		"<--role=" + role + ">",
		`<{"in":"'; exit #ROLE"}>`,
		"<Show it; Show it;>",
	}
	if diff := cmp.Diff(want, out.lines(t, len(want))); diff != "" {
		t.Error(diff)
	}
	cancel()
	must(t, <-done)
}

// A component is edited while it runs: what the watch says is enough to start the new one.
func TestChangedComponentIsStartedAnew(t *testing.T) {
	dir := project(t, map[string]string{
		"msgflo.json":       `{"handlers": {".sh": "sh #FILENAME"}}`,
		"components/Say.sh": "echo one; exec sleep 60\n",
	})
	l, err := library.Load(dir+"/msgflo.json", "")
	must(t, err)
	h := watch(t, l)
	out := &printed{}
	run := func() (end func()) {
		command, err := l.Command("Say", "r", nil)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- library.Participant{Role: "r", Command: command, Dir: l.Dir(), Log: slog.New(slog.NewJSONHandler(out, nil))}.Run(ctx)
		}()
		return func() { cancel(); must(t, <-done) }
	}
	end := run()
	out.lines(t, 1)
	must(t, l.SetSource("Say", "sh", "echo two; exec sleep 60\n"))
	h.next(t, "Say")
	end()
	end = run()
	defer end()
	if diff := cmp.Diff([]string{"one", "two"}, out.lines(t, 2)); diff != "" {
		t.Error(diff)
	}
}
