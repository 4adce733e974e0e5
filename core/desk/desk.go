package desk

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/flogate/flogate/core/graph"
)

const (
	// maxGraphs bounds the graphs that clients create.
	maxGraphs = 1000
	// maxUndo is how many changes of a graph can be taken back.
	maxUndo = 512
	// maxFileName is the longest name of a file that every file system takes, with room for what stands around it.
	maxFileName = 200
)

var (
	// ErrNoGraph: there is no graph of this name.
	ErrNoGraph = errors.New("no such graph")
	// ErrClosed: the subscription is closed.
	ErrClosed = errors.New("closed")
)

// Config is what a desk needs to know.
type Config struct {
	// Dir is the site's data folder.
	Dir string
	Log *slog.Logger
	// Delay is how long after a change its graph is written, unless others come: zero is 200 ms. It is written after five
	// times Delay even if changes go on. A large graph is put off longer, so that writing takes a fifth of a core at most.
	Delay time.Duration
	// LogSize is the size in bytes at which a new log is begun: zero is 8 MiB. There are never more than two.
	LogSize int64
}

// Desk holds the graphs of a site. Its methods may be called concurrently; only those that say so block on a disk for
// longer than it takes to hand a line of the log to the operating system.
type Desk struct {
	cfg  Config
	disk sync.Mutex // held while files of graphs are read and written; before mu
	wake chan struct{}

	mu            sync.Mutex
	entries       map[string]*entry
	past          map[string]past
	journal       journal
	logFailed     bool
	flags         map[string]flags // of the graphs that have other ones than they would have by themselves
	flagsChanged  bool
	subscriptions map[*Subscription]struct{}
}

// entry is one graph.
type entry struct {
	name     string
	kept     Kept
	path     string // of its file, empty if the text stands in the site file
	format   string
	main     bool
	running  bool
	graph    *graph.Graph
	shared   bool // somebody may be reading graph: it is copied before it is changed
	revision uint64
	history  []Record // the last changes, which lead to graph without a gap

	// common is the text that the site or the file has, as it was last read or written: what both sides have come from.
	common  string
	layer   mark      // which revision is in the layer, over which text; under the lock of the disk
	saved   uint64    // the revision that is kept
	due     time.Time // when it is to be written; zero if it need not be
	first   time.Time // of the changes that are not written
	failure error     // of writing
	retry   time.Duration
	took    time.Duration // to write it
}

// past is what the log says of a graph.
type past struct {
	records  []Record // changes
	revision uint64
	saved    mark   // the last text that is known to have been there
	saving   []mark // those that may have come after it
	created  bool   // by a client
}

// mark says which revision a text, or the text with this sum, has.
type mark struct {
	revision uint64
	sum      string
}

// Kept says where a graph is kept.
type Kept int

// Where a graph is kept.
const (
	InFile     Kept = iota // in a file of its own
	InSiteFile             // its text stands in the site file: edits are in the data folder only
	InData                 // in the data folder, by clients that have created it
)

// String says it in words.
func (k Kept) String() string {
	return [...]string{"in its file", "in the site file; edits are kept in the data folder only", "in the data folder"}[k]
}

// Snapshot is a graph at one moment.
type Snapshot struct {
	Name string
	// Graph is shared by all who ask. Nobody changes it: work on a Clone.
	Graph    *graph.Graph
	Revision uint64
	// Main: it is the site's main graph, or was created as one: it is no component.
	Main bool
	// Running is what is wanted. It outlives the gateway. A graph of the site runs until somebody stops it, a graph that was
	// created does not until somebody starts it.
	Running bool
	Kept    Kept
	// Path is the file that it is kept in, or empty if its text stands in the site file.
	Path string
	// Saved is the last revision that is kept where it belongs.
	Saved uint64
	// Unsaved is why later ones are not, if that has been tried.
	Unsaved error
}

// Result is what a change has led to.
type Result struct {
	Revision uint64
	// Effects are what clients have to be told, see graph.Apply.
	Effects []graph.Change
}

// Open reads the log and the graphs in the data folder; those of the site are loaded one by one, see Load. It blocks until
// that is read. What cannot be read there is logged and left alone.
func Open(cfg Config) (*Desk, error) {
	cfg.Delay = cmp.Or(cfg.Delay, 200*time.Millisecond)
	cfg.LogSize = cmp.Or(cfg.LogSize, 8<<20)
	d := &Desk{
		cfg: cfg, wake: make(chan struct{}, 1), entries: map[string]*entry{}, past: map[string]past{},
		flags: map[string]flags{}, subscriptions: map[*Subscription]struct{}{},
		journal: journal{path: filepath.Join(cfg.Dir, logName), limit: cfg.LogSize},
	}
	skipped, err := ReadLog(cfg.Dir, func(r Record) bool {
		p := d.past[r.Graph]
		p.add(r)
		d.past[r.Graph] = p
		return true
	})
	if err != nil {
		return nil, err
	}
	if skipped > 0 {
		cfg.Log.Warn("lines of the log of the graphs are torn", "lines", skipped)
	}
	if err := d.readFlags(); err != nil {
		cfg.Log.Error("which graphs run cannot be read", "err", err)
		if err := setAside(filepath.Join(cfg.Dir, flagsName)); err != nil {
			return nil, fmt.Errorf("keep which graphs run: %w", err)
		}
	}
	return d, d.openCreated()
}

func (p *past) add(r Record) {
	if r.Revision < p.revision {
		return // not of our making
	}
	p.revision = r.Revision
	switch {
	case r.Removed:
		*p = past{revision: r.Revision}
	case r.edits():
		p.created = p.created || r.Created
		if n := len(p.records); n > 0 && p.records[n-1].Revision+1 != r.Revision {
			p.records = nil
		}
		p.records = append(p.records, r)
		if len(p.records) > maxUndo {
			p.records = p.records[1:]
		}
	case r.Saving != "":
		p.saving = append(p.saving, mark{r.Revision, r.Saving})
	case r.Saved != "":
		p.saved, p.saving = mark{r.Revision, r.Saved}, nil
	}
}

// knows reports whether a text is as the gateway has left it: that it last wrote or, if it was killed, was about to.
func (p past) knows(sum string) (revision uint64, ok bool) {
	for _, m := range append([]mark{p.saved}, p.saving...) {
		if m.sum == sum {
			revision, ok = m.revision, true
		}
	}
	return revision, ok
}

// last returns the last revision that has been written, or may have been.
func (p past) last() uint64 {
	last := p.saved.revision
	for _, m := range p.saving {
		last = max(last, m.revision)
	}
	return last
}

// Graph returns a graph as it is now.
func (d *Desk) Graph(name string) (Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	if !ok {
		return Snapshot{}, fmt.Errorf("%q: %w", name, ErrNoGraph)
	}
	return e.snapshot(), nil
}

// Graphs returns all graphs as they are now, by name.
func (d *Desk) Graphs() []Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Snapshot, 0, len(d.entries))
	for _, e := range d.entries {
		all = append(all, e.snapshot())
	}
	slices.SortFunc(all, func(a, b Snapshot) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (e *entry) snapshot() Snapshot {
	e.shared = true
	return Snapshot{
		Name: e.name, Graph: e.graph, Revision: e.revision, Main: e.main, Running: e.running, Kept: e.kept, Path: e.path,
		Saved: e.saved, Unsaved: e.failure,
	}
}

// Change makes changes to a graph, all or none. who is for the log and for subscribers.
func (d *Desk) Change(name, who string, changes ...graph.Change) (Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	if !ok {
		return Result{}, fmt.Errorf("%q: %w", name, ErrNoGraph)
	}
	return d.edit(e, Record{Who: who, Changes: changes})
}

// edit makes the changes of a record, which it completes and logs.
func (d *Desk) edit(e *entry, r Record) (Result, error) {
	if len(r.Changes) == 0 {
		return Result{Revision: e.revision}, nil
	}
	now := e.graph
	if e.shared || len(r.Changes) > 1 {
		now = now.Clone()
	}
	effects, undo, err := applyAll(now, r.Changes)
	if err != nil {
		return Result{}, err
	}
	r.Undo = undo
	d.accept(e, now, r, effects)
	if clear, ok := r.Changes[0].(graph.Clear); ok && e.kept == InData {
		d.state(e, clear.Main, e.running)
	}
	return Result{Revision: e.revision, Effects: effects}, nil
}

// applyAll makes changes to g one after another. If one fails, g is left in between.
func applyAll(g *graph.Graph, changes []graph.Change) (effects, undo []graph.Change, err error) {
	for _, c := range changes {
		effect, back, err := graph.Apply(g, c)
		if err != nil {
			return nil, nil, err
		}
		effects, undo = append(effects, effect...), append(slices.Clip(back), undo...)
	}
	return effects, undo, nil
}

// accept takes over a graph that a record has led to, and has it written.
func (d *Desk) accept(e *entry, now *graph.Graph, r Record, effects []graph.Change) {
	e.graph, e.shared = now, false
	e.revision++
	r.Time, r.Graph, r.Revision = time.Now().UTC(), e.name, e.revision
	d.record(r)
	e.history = append(e.history, r)
	if len(e.history) > maxUndo {
		e.history = e.history[1:]
	}
	d.publish(Event{Kind: Changed, Graph: e.name, Revision: e.revision, Who: r.Who, Effects: effects})
	d.schedule(e)
}

// record writes a line of the log. A log that cannot be written holds nobody up.
func (d *Desk) record(r Record) {
	err := d.journal.append(r)
	if failed := err != nil; failed != d.logFailed {
		d.logFailed = failed
		if failed {
			d.cfg.Log.Error("the log of the graphs cannot be written", "err", err)
		} else {
			d.cfg.Log.Info("the log of the graphs can be written again")
		}
	}
}

// Create creates an empty graph, in the data folder, or empties one that is there. A graph that is new does not run.
func (d *Desk) Create(name, who string, c graph.Clear) (Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.entries[name]; ok {
		return d.edit(e, Record{Who: who, Changes: []graph.Change{c}})
	}
	file, err := fileName(name)
	if err != nil {
		return Result{}, err
	}
	if len(d.entries) >= maxGraphs {
		return Result{}, fmt.Errorf("graph %q: there are %d graphs already", name, maxGraphs)
	}
	e := &entry{
		name: name, kept: InData, path: filepath.Join(d.cfg.Dir, folderName, file+".json"), format: "json",
		graph: graph.New(""), main: c.Main, revision: d.past[name].revision, common: emptyText,
	}
	if err := setAside(e.path); err != nil {
		d.cfg.Log.Error("an old file of the graph stays", "graph", name, "err", err)
	}
	d.entries[name] = e
	d.publish(Event{Kind: Opened, Graph: name, Revision: e.revision, Who: who})
	d.state(e, c.Main, false)
	return d.edit(e, Record{Who: who, Changes: []graph.Change{c}, Created: true})
}

// Remove removes a graph that clients have created, with its file. The log keeps what was in it. It blocks while files are
// written.
func (d *Desk) Remove(name, who string) error {
	d.disk.Lock()
	defer d.disk.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	switch {
	case !ok:
		return fmt.Errorf("%q: %w", name, ErrNoGraph)
	case e.kept != InData:
		return fmt.Errorf("graph %q stands in the site file: remove it there", name)
	}
	if err := removeFile(e.path); err != nil {
		return fmt.Errorf("remove graph %q: %w", name, err)
	}
	cleared := graph.Clear{}
	_, undo, err := graph.Apply(e.graph.Clone(), cleared)
	if err != nil {
		return fmt.Errorf("remove graph %q: %w", name, err)
	}
	d.record(Record{
		Time: time.Now().UTC(), Graph: name, Revision: e.revision + 1, Who: who,
		Changes: []graph.Change{cleared}, Undo: undo, Removed: true,
	})
	delete(d.entries, name)
	d.past[name] = past{revision: e.revision + 1}
	delete(d.flags, name)
	d.flagsChanged = true
	d.publish(Event{Kind: Removed, Graph: name, Revision: e.revision + 1, Who: who})
	d.nudge()
	return nil
}

// SetRunning says whether a graph is wanted to run.
func (d *Desk) SetRunning(name string, running bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	if !ok {
		return fmt.Errorf("%q: %w", name, ErrNoGraph)
	}
	d.state(e, e.main, running)
	return nil
}

// state takes over what outlives the gateway besides the graph itself.
func (d *Desk) state(e *entry, isMain, running bool) {
	f := flags{Running: running}
	if e.kept == InData {
		f.Main = isMain
	}
	if f != d.flagsOf(e.name, e.kept) {
		d.flags[e.name] = f
		d.flagsChanged = true
		d.nudge()
	}
	if e.main != isMain || e.running != running {
		e.main, e.running = isMain, running
		d.publish(Event{Kind: Stated, Graph: e.name, Revision: e.revision})
	}
}

// flagsOf returns what is kept of a graph, or what holds for it by itself.
func (d *Desk) flagsOf(name string, kept Kept) flags {
	if f, ok := d.flags[name]; ok {
		return f
	}
	return flags{Running: kept != InData}
}

// fileName returns the name of a graph as a file is called: unlike that of any other graph, also where case does not count.
func fileName(name string) (string, error) {
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return "", fmt.Errorf("%q cannot be the name of a graph", name)
	}
	var out strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02x", c)
		}
	}
	if out.Len() > maxFileName {
		return "", fmt.Errorf("the name of graph %q is too long", name)
	}
	return out.String(), nil
}

// graphName is the inverse of fileName.
func graphName(file string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(file); i++ {
		if file[i] != '%' {
			out.WriteByte(file[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(file[i:min(i+3, len(file))], "%%%02x", &c); err != nil {
			return "", fmt.Errorf("%q is not the file of a graph", file)
		}
		out.WriteByte(c)
		i += 2
	}
	if again, err := fileName(out.String()); err != nil || again != file {
		return "", fmt.Errorf("%q is not the file of a graph", file)
	}
	return out.String(), nil
}

func setAside(path string) error {
	err := os.Rename(path, path+".old")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
