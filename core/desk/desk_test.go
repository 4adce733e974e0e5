package desk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/desk"
	"github.com/flogate/flogate/core/graph"
)

const motor = `# @runtime msgflo

# The button starts the motor.
button(demo/Button) PRESSED -> START motor(demo/Motor) # by hand
motor RUNNING -> RED lamp(demo/Light)
`

// A site is a folder with a graph file and a data folder, and desks that are opened on it one after another.
type site struct {
	t    testing.TB
	dir  string
	file string
	log  lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newSite(t testing.TB, name, text string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.file = filepath.Join(s.dir, name)
	s.write(text)
	return s
}

func (s *site) write(text string) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.file, []byte(text), 0o640))
}

func (s *site) read() string {
	s.t.Helper()
	text, err := os.ReadFile(s.file)
	must(s.t, err)
	return string(text)
}

func (s *site) data(name string) string { return filepath.Join(s.dir, "data", name) }

func (s *site) source() desk.Source {
	return desk.Source{Name: "main", File: s.file, Format: strings.TrimPrefix(filepath.Ext(s.file), "."), Main: true}
}

// open opens a desk with the site's graph. Nobody writes until it is closed, or Run is called. A desk that is not closed is one
// that was killed.
func (s *site) open(opts ...func(*desk.Config)) *desk.Desk {
	s.t.Helper()
	cfg := desk.Config{Dir: filepath.Join(s.dir, "data"), Log: slog.New(slog.NewTextHandler(&s.log, nil))}
	for _, o := range opts {
		o(&cfg)
	}
	d, err := desk.Open(cfg)
	must(s.t, err)
	must(s.t, d.Load(s.source()))
	return d
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func change(t testing.TB, d *desk.Desk, name string, changes ...graph.Change) desk.Result {
	t.Helper()
	r, err := d.Change(name, "ann", changes...)
	must(t, err)
	return r
}

func get(t testing.TB, d *desk.Desk, name string) desk.Snapshot {
	t.Helper()
	s, err := d.Graph(name)
	must(t, err)
	return s
}

func end(s string) graph.Endpoint {
	node, port, _ := strings.Cut(s, ".")
	return graph.Endpoint{Node: node, Port: port}
}

func nodes(g *graph.Graph) (ids []string) {
	for _, n := range g.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

func same[T any](t testing.TB, what string, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var fan = graph.AddNode{ID: "fan", Component: "demo/Fan"}

func TestEditIsWrittenBackIntoWhatTheUserWrote(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	r := change(t, d, "main", fan, graph.AddEdge{Src: end("button.PRESSED"), Tgt: end("fan.on")}, graph.RenameNode{From: "motor", To: "engine"})
	if r.Revision != 1 || len(r.Effects) != 3 {
		t.Errorf("got %+v", r)
	}
	must(t, d.Close())
	same(t, "file", `# @runtime msgflo

# The button starts the motor.
button(demo/Button) PRESSED -> START engine(demo/Motor) # by hand
engine RUNNING -> RED lamp(demo/Light)
button PRESSED -> ON fan(demo/Fan)
`, s.read())
	info, err := os.Stat(s.file)
	must(t, err)
	same(t, "mode", os.FileMode(0o640), info.Mode().Perm())
	left, err := filepath.Glob(filepath.Join(s.dir, ".*"))
	must(t, err)
	same(t, "files left", nil, left)
	if snap := get(t, d, "main"); snap.Saved != 1 || snap.Unsaved != nil || snap.Kept != desk.InFile || !snap.Main || !snap.Running {
		t.Errorf("got %+v", snap)
	}
}

func TestPersistWritesAtOnceOrSaysWhatItCannot(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan)
	must(t, d.Persist())
	same(t, "file", motor+"fan(demo/Fan)\n", s.read())
	blocked := filepath.Join(s.dir, ".hall.fbp.flogate", "full")
	must(t, os.MkdirAll(blocked, 0o700))
	change(t, d, "main", graph.RemoveNode{ID: "fan"})
	if err := d.Persist(); err == nil || !strings.Contains(err.Error(), `graph "main"`) {
		t.Errorf("got %v", err)
	}
	must(t, os.RemoveAll(filepath.Dir(blocked)), d.Persist())
	same(t, "file", motor, s.read())
	must(t, d.Close())
}

func TestEveryRevisionHasAnEvent(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	sub := d.Subscribe()
	defer sub.Close()
	_, err := d.Create("new", "ann", graph.Clear{Name: "new"})
	must(t, err)
	change(t, d, "new", fan, graph.AddEdge{Src: end("fan.out"), Tgt: end("fan.in")})
	must(t, d.SetRunning("new", true))
	_, err = d.Undo("new", "bob", 0)
	must(t, err)
	must(t, d.Remove("new", "ann"))
	s.write(motor + "fan(demo/Fan)\n")
	must(t, d.Load(s.source()))
	d.Drop("main")
	must(t, d.Load(s.source()))
	var got []string
	for range 9 {
		e, err := sub.Next(t.Context())
		must(t, err)
		line := fmt.Sprint(e.Graph, " ", e.Kind, " ", e.Revision, " ", e.Who)
		for _, c := range e.Effects {
			line += " " + c.Command()
		}
		got = append(got, line)
	}
	same(t, "events", []string{
		"new opened 0 ann",
		"new changed 1 ann clear",
		"new changed 2 ann addnode addedge",
		"new stated 2 ",
		"new changed 3 bob removeedge removenode",
		"new removed 4 ann",
		"main changed 1 (file) addnode",
		"main removed 1 (file)",
		"main opened 1 ",
	}, got)
	must(t, d.Close())
}

func TestRefusedChangesChangeNothing(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	before := get(t, d, "main")
	if _, err := d.Change("main", "ann", fan, graph.RemoveNode{ID: "ghost"}); !errors.Is(err, graph.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := d.Change("ghost", "ann", fan); !errors.Is(err, desk.ErrNoGraph) {
		t.Errorf("got %v", err)
	}
	after := get(t, d, "main")
	if after.Revision != before.Revision || !after.Graph.Equal(before.Graph) {
		t.Errorf("got %+v", after)
	}
	must(t, d.Close())
	same(t, "file", motor, s.read())
}

func TestSnapshotsStayAsTheyWere(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	snap := get(t, d, "main")
	before := snap.Graph.Clone()
	change(t, d, "main", graph.RemoveNode{ID: "motor"})
	change(t, d, "main", graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": 1.0}})
	if !snap.Graph.Equal(before) {
		t.Error("a change has got into a snapshot")
	}
	must(t, d.Close())
}

func TestWhatTheFileCannotSayIsKeptBesideIt(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan,
		graph.ChangeEdge{Src: end("button.pressed"), Tgt: end("motor.start"), Metadata: graph.Metadata{"route": 5.0}},
		graph.AddGroup{Name: "signals", Nodes: []string{"button", "lamp"}})
	want := get(t, d, "main").Graph
	must(t, d.Close())
	if !strings.Contains(s.read(), "fan(demo/Fan)") {
		t.Error(s.read())
	}
	d = s.open()
	if got := get(t, d, "main"); !graph.Same(want, got.Graph) {
		t.Errorf("lost: %v", graph.Diff(got.Graph, want))
	}
	// It outlives what people do to the file, but for what it hung on.
	must(t, d.Close())
	s.write(strings.Replace(s.read(), "motor RUNNING -> RED lamp(demo/Light)", "lamp(demo/Lamp)", 1))
	d = s.open()
	got := get(t, d, "main").Graph
	e, _ := got.Edge(end("button.pressed"), end("motor.start"))
	if e.Metadata["route"] != 5.0 || len(got.Groups) != 1 || len(got.Edges) != 1 {
		t.Errorf("got %+v", got)
	}
	// And goes when there is no need for it any more.
	change(t, d, "main", graph.RemoveGroup{Name: "signals"}, graph.RemoveNode{ID: "button"})
	must(t, d.Close())
	if left, _ := filepath.Glob(s.data("graphs/*")); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestGraphThatTheLanguageCannotSayIsKeptAsAWhole(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	odd := graph.AddNode{ID: "core/Repeat_1x", Component: "core/Repeat"} // as noflo-ui names them
	change(t, d, "main", odd, graph.AddEdge{Src: end("button.pressed"), Tgt: end("core/Repeat_1x.in")})
	err := d.Close()
	if err == nil || !strings.Contains(err.Error(), `node "core/Repeat_1x" has characters that the language does not allow`) {
		t.Errorf("got %v", err)
	}
	same(t, "file", motor, s.read())
	d = s.open()
	same(t, "nodes", []string{"button", "motor", "lamp", odd.ID}, nodes(get(t, d, "main").Graph))
	change(t, d, "main", graph.RenameNode{From: odd.ID, To: "repeat"})
	must(t, d.Close())
	same(t, "file", motor+"button PRESSED -> IN repeat(core/Repeat)\n", s.read())
}

func TestTextInTheSiteFileIsNeverWritten(t *testing.T) {
	s := newSite(t, "unused", "")
	source := desk.Source{Name: "in line", Text: motor, Format: "fbp"}
	reopen := func(text string) *desk.Desk {
		d, err := desk.Open(desk.Config{Dir: s.data(""), Log: slog.New(slog.NewTextHandler(&s.log, nil))})
		must(t, err)
		source.Text = text
		must(t, d.Load(source))
		return d
	}
	d := reopen(motor)
	if snap := get(t, d, "in line"); snap.Kept != desk.InSiteFile || !strings.Contains(snap.Kept.String(), "data folder only") {
		t.Errorf("got %v", snap.Kept)
	}
	change(t, d, "in line", fan)
	must(t, d.Close())
	d = reopen(motor)
	same(t, "nodes", []string{"button", "motor", "lamp", "fan"}, nodes(get(t, d, "in line").Graph))
	must(t, d.Close())
	// The site file is changed: edits are fitted to it.
	d = reopen(strings.Replace(motor, "lamp", "light", 1))
	same(t, "nodes", []string{"button", "motor", "light", "fan"}, nodes(get(t, d, "in line").Graph))
	// Also while the gateway runs.
	source.Text = motor
	must(t, d.Load(source))
	same(t, "nodes", []string{"button", "motor", "lamp", "fan"}, nodes(get(t, d, "in line").Graph))
	change(t, d, "in line", graph.RemoveNode{ID: "fan"})
	must(t, d.Close())
	d = reopen(motor)
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "in line").Graph))
	must(t, d.Close())
}

func TestCreatedGraphsOutliveTheGateway(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	for _, name := range []string{"Foo graph", "foo graph", "../../etc/passwd", "a/b", "%41", "ü"} {
		if _, err := d.Create(name, "ann", graph.Clear{Name: name, Main: name == "a/b"}); err != nil {
			t.Fatal(err)
		}
		change(t, d, name, fan)
	}
	must(t, d.SetRunning("ü", true), d.SetRunning("main", false), d.Close())
	var inside []string
	must(t, filepath.WalkDir(s.dir, func(path string, f os.DirEntry, err error) error {
		if err == nil && !f.IsDir() && filepath.Dir(path) != filepath.Dir(s.data("x")) && path != s.file {
			inside = append(inside, filepath.Dir(path))
		}
		return err
	}))
	for _, dir := range inside {
		same(t, "folder", s.data("graphs"), dir)
	}
	same(t, "files", 6, len(inside))
	d = s.open()
	got := map[string]string{}
	for _, g := range d.Graphs() {
		got[g.Name] = fmt.Sprint(nodes(g.Graph), " ", g.Graph.Name, " ", g.Main, " ", g.Running, " ", g.Kept == desk.InData)
	}
	same(t, "graphs", map[string]string{
		"Foo graph": "[fan] Foo graph false false true", "foo graph": "[fan] foo graph false false true",
		"../../etc/passwd": "[fan] ../../etc/passwd false false true", "a/b": "[fan] a/b true false true",
		"%41": "[fan] %41 false false true", "ü": "[fan] ü false true true",
		"main": "[button motor lamp]  true false false",
	}, got)
	for _, name := range []string{"", "a\x00b", "\xff", strings.Repeat("long", 100)} {
		if _, err := d.Create(name, "ann", graph.Clear{}); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	if err := d.Remove("main", "ann"); err == nil {
		t.Error("a graph of the site is removed")
	}
	must(t, d.Remove("a/b", "ann"), d.Close())
	d = s.open()
	if _, err := d.Graph("a/b"); !errors.Is(err, desk.ErrNoGraph) {
		t.Errorf("got %v", err)
	}
	r, err := d.Create("a/b", "ann", graph.Clear{})
	must(t, err)
	if r.Revision <= 3 {
		t.Errorf("revision %d has been there before", r.Revision)
	}
	must(t, d.Close())
}

func TestClearOfAGraphThatIsThereEmptiesIt(t *testing.T) {
	s := newSite(t, "hall.json", `{"properties":{"name":"hall","environment":{"type":"msgflo"}},"processes":{"a":{"component":"A"}}}`)
	d := s.open()
	r, err := d.Create("main", "ann", graph.Clear{Name: "new"})
	must(t, err)
	if len(r.Effects) != 1 || r.Effects[0].Command() != "clear" {
		t.Errorf("got %v", r.Effects)
	}
	_, err = d.Undo("main", "ann", 0)
	must(t, err)
	same(t, "nodes", []string{"a"}, nodes(get(t, d, "main").Graph))
	must(t, d.Close())
}

func TestChangedFileIsTakenOver(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	sub := d.Subscribe()
	defer sub.Close()
	copied := get(t, d, "main").Graph.Clone()
	s.write(strings.Replace(motor, "lamp", "light", 1))
	must(t, d.Load(s.source()))
	snap := get(t, d, "main")
	same(t, "nodes", []string{"button", "motor", "light"}, nodes(snap.Graph))
	e, err := sub.Next(t.Context())
	must(t, err)
	if e.Kind != desk.Changed || e.Who != desk.ByFile || e.Revision != snap.Revision {
		t.Errorf("got %+v", e)
	}
	for _, c := range e.Effects {
		must(t, graph.Replay(copied, c))
	}
	if !graph.Same(copied, snap.Graph) {
		t.Errorf("the subscriber has something else: %v", graph.Diff(copied, snap.Graph))
	}
	must(t, d.Load(s.source()))
	if again := get(t, d, "main"); again.Revision != snap.Revision {
		t.Error("the same file is another revision")
	}
	// A comment is no change of the graph, and stays.
	s.write(s.read() + "# the end\n")
	must(t, d.Load(s.source()))
	change(t, d, "main", fan)
	must(t, d.Close())
	same(t, "file", strings.Replace(motor, "lamp", "light", 1)+"# the end\nfan(demo/Fan)\n", s.read())
}

func TestOwnWriteIsNobodyElsesChange(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	for i := range 20 {
		change(t, d, "main", graph.AddNode{ID: fmt.Sprint("n", i), Component: "C"})
		must(t, d.Load(s.source())) // as somebody does who watches the file
	}
	cancel()
	running.Wait()
	if snap := get(t, d, "main"); snap.Revision != 20 || len(snap.Graph.Nodes) != 23 {
		t.Errorf("got revision %d, %v", snap.Revision, nodes(snap.Graph))
	}
	must(t, d.Close())
}

func TestEditsAndAChangedFileAreMerged(t *testing.T) {
	for name, c := range map[string]struct {
		edit graph.Change
		file string
		want string
		lost []string
	}{
		"apart": {
			edit: fan, file: strings.Replace(motor, "lamp", "light", 1),
			want: strings.Replace(motor, "lamp", "light", 1) + "fan(demo/Fan)\n",
		},
		"both the same": {
			edit: graph.AddNode{ID: "fan", Component: "demo/Fan"}, file: "fan(demo/Fan)\n" + motor, want: "fan(demo/Fan)\n" + motor,
		},
		"clash": {
			edit: graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": 1.0}},
			file: strings.Replace(motor, "demo/Light", "demo/Light:x=2", 1),
			want: strings.Replace(motor, "demo/Light", "demo/Light:x=2", 1),
			lost: []string{"changenode"},
		},
		"removed here, used there": {
			edit: graph.RemoveNode{ID: "lamp"}, file: motor + "button PRESSED -> ON lamp\n",
			want: strings.Replace(motor, "motor RUNNING -> RED lamp(demo/Light)", "lamp(demo/Light)", 1) + "button PRESSED -> ON lamp\n",
			lost: []string{"removenode"},
		},
	} {
		for _, how := range []string{"told", "noticed when writing"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				s := newSite(t, "hall.fbp", motor)
				d := s.open()
				change(t, d, "main", c.edit)
				s.write(c.file)
				if how == "told" {
					must(t, d.Load(s.source()))
				}
				must(t, d.Close())
				if name != "removed here, used there" {
					same(t, "file", c.want, s.read())
				}
				var lost []string
				_, err := desk.ReadLog(s.data(""), func(r desk.Record) bool {
					for _, c := range r.Lost {
						lost = append(lost, c.Command())
					}
					return true
				})
				must(t, err)
				same(t, "lost", c.lost, lost)
				if len(lost) > 0 && !strings.Contains(s.log.String(), "are lost: they are in the log") {
					t.Error(s.log.String())
				}
				d = s.open()
				file, err := graph.Load(s.file)
				must(t, err)
				if got := get(t, d, "main"); !graph.Same(got.Graph, file) {
					t.Errorf("opened again: %v", graph.Diff(file, got.Graph))
				}
				must(t, d.Close())
			})
		}
	}
}

func TestInvalidFileIsLeftAlone(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	s.write("half a li -> ")
	if _, ok := errors.AsType[graph.Errors](d.Load(s.source())); !ok {
		t.Error("it is valid")
	}
	change(t, d, "main", fan)
	if err := d.Close(); err == nil || !strings.Contains(err.Error(), "somebody has changed the file, which is not valid now") {
		t.Errorf("got %v", err)
	}
	same(t, "file", "half a li -> ", s.read())
	s.write(motor + "other(demo/Other)\n")
	d = s.open()
	same(t, "nodes", []string{"button", "motor", "lamp", "other", "fan"}, nodes(get(t, d, "main").Graph))
	must(t, d.Close())
}

func TestEditsOfAFileThatCannotBeWrittenAreKept(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	sub := d.Subscribe()
	defer sub.Close()
	// The place of the next text is taken, by what cannot be removed: this stands for all that can go wrong.
	blocked := filepath.Join(s.dir, ".hall.fbp.flogate")
	must(t, os.MkdirAll(filepath.Join(blocked, "full"), 0o700))
	change(t, d, "main", fan)
	if err := d.Close(); err == nil {
		t.Error("it was written")
	}
	snap := get(t, d, "main")
	if snap.Unsaved == nil || snap.Saved == snap.Revision {
		t.Errorf("got %+v", snap)
	}
	var kinds []string
	for range 2 {
		e, err := sub.Next(t.Context())
		must(t, err)
		kinds = append(kinds, e.Kind.String())
	}
	same(t, "told", []string{"changed", "stated"}, kinds)
	d = s.open()
	same(t, "nodes", []string{"button", "motor", "lamp", "fan"}, nodes(get(t, d, "main").Graph))
	must(t, os.RemoveAll(blocked), d.Close())
	same(t, "file", motor+"fan(demo/Fan)\n", s.read())
}

func TestKilledGatewayLosesNoEdit(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan)
	change(t, d, "main", graph.RenameNode{From: "fan", To: "ventilator"})
	change(t, d, "main", graph.AddInitial{Src: graph.Packet{Data: json.RawMessage("1")}, Tgt: end("lamp.in")})
	_, err := d.Create("new", "ann", graph.Clear{Name: "new"})
	must(t, err)
	change(t, d, "new", fan)
	// Killed. Something was being written, too.
	must(t, os.WriteFile(filepath.Join(s.dir, ".hall.fbp.flogate"), []byte("half"), 0o600))
	log, err := os.OpenFile(s.data("graphs.log"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = log.WriteString(`{"time":"2026-01-01T00:00:00Z","graph":"main","revi`)
	must(t, err, log.Close())

	d = s.open()
	snap := get(t, d, "main")
	same(t, "nodes", []string{"button", "motor", "lamp", "ventilator"}, nodes(snap.Graph))
	same(t, "revision", 3, snap.Revision)
	same(t, "nodes", []string{"fan"}, nodes(get(t, d, "new").Graph))
	if !strings.Contains(s.log.String(), "lines of the log of the graphs are torn") {
		t.Error(s.log.String())
	}
	change(t, d, "main", graph.RemoveNode{ID: "lamp"})
	d = s.open() // killed again
	same(t, "nodes", []string{"button", "motor", "ventilator"}, nodes(get(t, d, "main").Graph))
	must(t, d.Close())
	same(t, "file", "# @runtime msgflo\n\n# The button starts the motor.\nbutton(demo/Button) PRESSED -> START motor(demo/Motor) # by hand\nventilator(demo/Fan)\n", s.read())
	d = s.open()
	same(t, "revision", 4, get(t, d, "main").Revision)
	for range 4 { // what was taken back is in the log too
		_, err := d.Undo("main", "ann", 0)
		must(t, err)
	}
	file, err := graph.ParseFBP("", []byte(motor))
	must(t, err)
	if got := get(t, d, "main").Graph; !graph.Same(file, got) {
		t.Errorf("got %v", graph.Diff(file, got))
	}
	must(t, d.Close())
}

func TestFileThatIsRestoredWhileNobodyRunsIsRight(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan)
	must(t, d.Close())
	s.write(motor)
	d = s.open()
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "main").Graph))
	if _, err := d.Undo("main", "ann", 0); err == nil {
		t.Error("what is not there can be taken back")
	}
	change(t, d, "main", fan)
	must(t, d.Close())
	d = s.open()
	if _, err := d.Undo("main", "ann", 1); err == nil {
		t.Error("what was before can be taken back")
	}
	_, err := d.Undo("main", "ann", 0)
	must(t, err)
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "main").Graph))
	must(t, d.Close())
}

func TestRemovedFileIsWrittenAnew(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	must(t, os.Remove(s.file))
	change(t, d, "main", fan)
	must(t, d.Close())
	same(t, "file", motor+"fan(demo/Fan)\n", s.read())
}

func TestWhatCannotBeReadInTheDataFolderIsLeftAlone(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	_, err := d.Create("new", "ann", graph.Clear{Name: "new"})
	must(t, err)
	change(t, d, "main", graph.AddGroup{Name: "g", Nodes: []string{"lamp"}})
	must(t, d.SetRunning("new", true), d.Close())
	for _, name := range []string{"graphs/new.json", "graphs/main.layer", "graphs.json", "graphs/Foreign.json", "graphs/note.txt"} {
		must(t, os.WriteFile(s.data(name), []byte("{ broken"), 0o600))
	}
	d = s.open()
	if _, err := d.Graph("new"); !errors.Is(err, desk.ErrNoGraph) {
		t.Errorf("got %v", err)
	}
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "main").Graph))
	for _, said := range []string{"new.json", "main.layer", `\"Foreign\"`, "which graphs run cannot be read"} {
		if !strings.Contains(s.log.String(), said) {
			t.Errorf("nothing is said of %s:\n%s", said, s.log.String())
		}
	}
	_, err = d.Create("new", "ann", graph.Clear{Name: "new"})
	must(t, err, d.Close())
	for _, name := range []string{"graphs/new.json.old", "graphs/main.layer.old", "graphs.json.old", "graphs/Foreign.json", "graphs/note.txt"} {
		if text, err := os.ReadFile(s.data(name)); err != nil || string(text) != "{ broken" {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
	if _, err := desk.Open(desk.Config{Dir: s.file, Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a file is a data folder")
	}
	d = s.open()
	source := s.source()
	source.Name, source.File = "missing", filepath.Join(s.dir, "missing.fbp")
	if err := d.Load(source); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	source.File = s.dir
	if err := d.Load(source); err == nil {
		t.Error("a folder is a graph")
	}
	must(t, d.Close())
}

func TestLinkToAFileStaysALink(t *testing.T) {
	s := newSite(t, "real.fbp", motor)
	real := s.file
	s.file = filepath.Join(s.dir, "hall.fbp")
	must(t, os.Symlink("real.fbp", s.file))
	d := s.open()
	change(t, d, "main", fan)
	must(t, d.Close())
	text, err := os.ReadFile(real)
	must(t, err)
	same(t, "file", motor+"fan(demo/Fan)\n", string(text))
	if info, err := os.Lstat(s.file); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link is gone")
	}
}

func TestUnwritableDataFolderHoldsNobodyUp(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	must(t, os.RemoveAll(s.data("")), os.WriteFile(s.data(""), nil, 0o600)) // a file where the folder was
	change(t, d, "main", fan)
	_, err := d.Create("new", "ann", graph.Clear{})
	must(t, err)
	change(t, d, "new", fan)
	if err := d.Close(); err == nil {
		t.Error("everything was written")
	}
	same(t, "file", motor+"fan(demo/Fan)\n", s.read())
	if snap := get(t, d, "new"); snap.Unsaved == nil {
		t.Errorf("got %+v", snap)
	}
}

func TestDroppedGraphComesBackWithItsEdits(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open()
	change(t, d, "main", fan)
	d.Drop("main")
	if _, err := d.Graph("main"); !errors.Is(err, desk.ErrNoGraph) {
		t.Errorf("got %v", err)
	}
	same(t, "file", motor+"fan(demo/Fan)\n", s.read())
	must(t, d.Load(s.source()))
	if snap := get(t, d, "main"); snap.Revision != 1 || len(snap.Graph.Nodes) != 4 {
		t.Errorf("got %+v", snap)
	}
	_, err := d.Undo("main", "ann", 0)
	must(t, err, d.Close())
	same(t, "file", motor, s.read())
}

func TestGraphThatTheSiteHasToReplacesACreatedOne(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d, err := desk.Open(desk.Config{Dir: s.data(""), Log: slog.New(slog.NewTextHandler(&s.log, nil))})
	must(t, err)
	_, err = d.Create("main", "ann", graph.Clear{Name: "main"})
	must(t, err)
	change(t, d, "main", fan)
	must(t, d.Load(s.source()))
	snap := get(t, d, "main")
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(snap.Graph))
	if snap.Kept != desk.InFile || !snap.Running || !snap.Main {
		t.Errorf("got %+v", snap)
	}
	must(t, d.Close())
	same(t, "file", motor, s.read())
	d = s.open()
	same(t, "graphs", 1, len(d.Graphs()))
	same(t, "nodes", []string{"button", "motor", "lamp"}, nodes(get(t, d, "main").Graph))
	must(t, d.Close())
}

func TestLogIsBounded(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	small := func(c *desk.Config) { c.LogSize = 4096 }
	d := s.open(small)
	for i := range 200 {
		change(t, d, "main", graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": float64(i)}})
	}
	for _, name := range []string{"graphs.log", "graphs.log.1"} {
		if info, err := os.Stat(s.data(name)); err == nil && info.Size() > 5000 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
	}
	var last uint64
	skipped, err := desk.ReadLog(s.data(""), func(r desk.Record) bool {
		if r.Revision < last {
			t.Errorf("revision %d after %d", r.Revision, last)
		}
		last = r.Revision
		return true
	})
	must(t, err)
	if last != 200 || skipped != 0 {
		t.Errorf("the last is %d, %d skipped", last, skipped)
	}
	must(t, d.Close())
	d = s.open(small)
	same(t, "revision", 200, get(t, d, "main").Revision)
	must(t, d.Close())
}

func TestGraphIsWrittenSoonAndNotForEachChange(t *testing.T) {
	s := newSite(t, "hall.fbp", motor)
	d := s.open(func(c *desk.Config) { c.Delay = 20 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	for i := range 500 {
		change(t, d, "main", graph.ChangeNode{ID: "lamp", Metadata: graph.Metadata{"x": float64(i)}})
	}
	for deadline := time.Now().Add(10 * time.Second); get(t, d, "main").Saved != 500; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not written")
		}
	}
	if want := strings.Replace(motor, "demo/Light", "demo/Light:x=499", 1); s.read() != want {
		t.Error(s.read())
	}
	writes := 0
	_, err := desk.ReadLog(s.data(""), func(r desk.Record) bool {
		if r.Saving != "" {
			writes++
		}
		return true
	})
	must(t, err)
	if writes > 250 {
		t.Errorf("written %d times", writes)
	}
	cancel()
	running.Wait()
	must(t, d.Close())
}
