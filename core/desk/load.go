package desk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/flogate/flogate/core/graph"
)

// folderName is the folder in the data folder for graphs that clients have created, and for layers.
const folderName = "graphs"

// emptyText is what the file of a graph that was just created has, as it were.
const emptyText = "{}"

// Source is a graph of the site.
type Source struct {
	Name string
	// File is the absolute path of its file. If it is empty, Text stands in the site file.
	File string
	Text string
	// Format is "fbp" or "json".
	Format string
	Main   bool
}

// layer is what is kept over a text that cannot be written, or cannot say all.
type layer struct {
	Revision uint64          `json:"revision"`
	Base     string          `json:"base"`
	Graph    json.RawMessage `json:"graph"`

	base, ours *graph.Graph
}

// Load takes a graph of the site, or looks again at one that it has: it is to be called when the gateway starts, and when the
// site or the file has changed. A file is read here, whatever Text says. What the desk itself has written changes nothing.
// Somebody else's changes are made to the graph, and told to subscribers, as ByFile. If the text is not valid the graph
// stays as it is, and an error is returned: graph.Errors if it is about the text. Load blocks while files are read and
// written.
func (d *Desk) Load(s Source) error {
	d.disk.Lock()
	defer d.disk.Unlock()
	text := s.Text
	if s.File != "" {
		var err error
		if text, _, err = readText(s.File); err != nil {
			return fmt.Errorf("load graph %q: %w", s.Name, err)
		}
	}
	theirs, err := parse(s.File, s.Format, text)
	if err != nil {
		return err
	}
	kept := InFile
	if s.File == "" {
		kept = InSiteFile
	}
	d.mu.Lock()
	e, ok := d.entries[s.Name]
	d.mu.Unlock()
	if !ok {
		e = &entry{name: s.Name, kept: kept, path: s.File, format: s.Format, main: s.Main, common: text}
		return d.open(e, theirs)
	}

	base, err := parse("", e.format, e.common)
	if err != nil {
		return fmt.Errorf("load graph %q: %w", s.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	moved := e.kept != kept || e.path != s.File || e.format != s.Format
	if !moved && text == e.common {
		d.state(e, s.Main, e.running)
		return nil
	}
	if e.kept == InData { // the site has a graph of this name now: that is the one
		base = e.graph
		if err := setAside(e.path); err != nil {
			d.cfg.Log.Error("the file of a graph that is in the site now stays", "graph", e.name, "err", err)
		}
		delete(d.flags, e.name)
		d.flagsChanged = true
		e.running = true
	}
	e.kept, e.path, e.format = kept, s.File, s.Format
	d.takeOver(e, base, theirs, text)
	d.state(e, s.Main, e.running)
	if moved {
		d.schedule(e)
	}
	return nil
}

// takeOver makes what somebody has changed in a text to the graph. base is what the text was before.
func (d *Desk) takeOver(e *entry, base, theirs *graph.Graph, text string) {
	now, conflicts := d.over(base, e.graph, theirs)
	changes := graph.Diff(e.graph, now)
	effects, undo, err := applyAll(e.graph.Clone(), changes)
	if err != nil { // cannot be: they are made for it
		d.cfg.Log.Error("a changed graph is told incompletely", "graph", e.name, "err", err)
	}
	e.common = text
	if len(changes) == 0 {
		e.graph, e.shared = now, false // the same, with the text it is to be written over
	} else {
		d.accept(e, now, Record{Who: ByFile, Changes: changes, Undo: undo}, effects)
		d.cfg.Log.Info("graph changed by its file", "graph", e.name, "revision", e.revision, "changes", len(changes))
	}
	d.lose(e, conflicts)
	if graph.Same(theirs, now) {
		d.mark(e, text)
	} else {
		d.schedule(e)
	}
}

// over returns theirs with what has been made of base in ours, as far as it fits.
func (d *Desk) over(base, ours, theirs *graph.Graph) (*graph.Graph, []*graph.Conflict) {
	left, conflicts := graph.Rebase(base, theirs, graph.Diff(base, ours))
	now := theirs.Clone()
	if _, _, err := applyAll(now, left); err != nil { // cannot be: they fit
		d.cfg.Log.Error("edits of a graph do not fit", "err", err)
	}
	return now, conflicts
}

// lose says and logs what did not fit.
func (d *Desk) lose(e *entry, conflicts []*graph.Conflict) {
	if len(conflicts) == 0 {
		return
	}
	var lost []graph.Change
	var reasons []string
	for _, c := range conflicts {
		lost = append(lost, c.Change)
		reasons = append(reasons, c.Error())
	}
	d.cfg.Log.Warn("edits do not fit the graph's file, which somebody has changed, and are lost: they are in the log",
		"graph", e.name, "edits", len(lost), "reasons", strings.Join(reasons[:min(10, len(reasons))], "; "))
	d.record(Record{Time: time.Now().UTC(), Graph: e.name, Revision: e.revision, Who: ByFile, Lost: lost})
}

// mark logs that a text, which is there, says the same as the graph.
func (d *Desk) mark(e *entry, text string) {
	e.saved = e.revision
	d.record(Record{Time: time.Now().UTC(), Graph: e.name, Revision: e.revision, Saved: sum(text)})
}

// open opens a graph of which theirs is the text: with the edits that are in its layer and, if the gateway was killed, in the
// log only.
func (d *Desk) open(e *entry, theirs *graph.Graph) error {
	over, err := d.readLayer(e)
	if err != nil { // not by us: a layer is replaced as a whole
		d.cfg.Log.Error("edits of a graph cannot be read, and are set aside", "graph", e.name, "err", err)
		if err := setAside(d.layerPath(e)); err != nil {
			return fmt.Errorf("load graph %q: %w", e.name, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.past[e.name]
	e.revision = p.revision
	since, known := p.knows(sum(e.common))
	// Without a mark nothing was ever written: all there is has been edited since.
	known = known || over != nil && over.Base == e.common || over == nil && p.saved.sum == ""
	now := theirs.Clone()
	var conflicts []*graph.Conflict
	if over != nil {
		since = over.Revision
		e.revision = max(e.revision, over.Revision)
		if known {
			now = over.ours
		} else {
			now, conflicts = d.over(over.base, over.ours, theirs)
		}
	}
	if !known { // somebody has changed the text meanwhile: it has what was written, and is right
		since = max(since, p.last())
	}
	for _, r := range p.records {
		if r.Revision <= since || !known && r.Who == ByFile {
			continue
		}
		left, clashes := graph.Rebase(now, now, r.Changes)
		conflicts = append(conflicts, clashes...)
		if _, _, err := applyAll(now, left); err != nil {
			return fmt.Errorf("load graph %q: revision %d of the log: %w", e.name, r.Revision, err)
		}
	}
	switch n := len(p.records); {
	case !known:
		e.revision++ // which leaves a gap that no taking back goes over
	case len(conflicts) == 0 && n > 0 && p.records[n-1].Revision == e.revision:
		e.history = p.records
	}
	e.graph = theirs
	if _, _, err := applyAll(e.graph, graph.Diff(theirs.Clone(), now)); err != nil {
		return fmt.Errorf("load graph %q: %w", e.name, err)
	}
	e.running = d.flagsOf(e.name, e.kept).Running
	if e.kept == InData {
		e.main = d.flagsOf(e.name, e.kept).Main
	}
	d.entries[e.name] = e
	delete(d.past, e.name)
	d.publish(Event{Kind: Opened, Graph: e.name, Revision: e.revision})
	d.lose(e, conflicts)
	switch text, err := parse("", e.format, e.common); {
	case err == nil && graph.Same(text, e.graph) && (e.kept != InData || p.saved.sum != ""):
		e.saved = e.revision
		if p.saved != (mark{e.revision, sum(e.common)}) || len(p.saving) > 0 {
			d.mark(e, e.common)
		}
		if over != nil {
			d.schedule(e) // it is in the way
		}
	default:
		d.schedule(e)
	}
	return nil
}

// Drop closes a graph that the site does not have any more. What is not written is written first; nothing is removed, and a
// graph that comes back has its edits. It blocks while files are written.
func (d *Desk) Drop(name string) {
	d.mu.Lock()
	e, ok := d.entries[name]
	if ok && e.kept != InData && e.saved < e.revision {
		e.due = time.Now()
	}
	d.mu.Unlock()
	if !ok || e.kept == InData {
		return
	}
	d.save(e)
	d.disk.Lock()
	defer d.disk.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries[name] != e {
		return
	}
	delete(d.entries, name)
	d.past[name] = past{records: e.history, revision: e.revision, saved: mark{e.saved, sum(e.common)}}
	d.publish(Event{Kind: Removed, Graph: name, Revision: e.revision, Who: ByFile})
}

// openCreated opens the graphs that clients have created.
func (d *Desk) openCreated() error {
	folder := filepath.Join(d.cfg.Dir, folderName)
	files, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the graphs in the data folder: %w", err)
	}
	for _, f := range files {
		if err := d.openFile(filepath.Join(folder, f.Name())); err != nil {
			d.cfg.Log.Error("a graph in the data folder cannot be read, and is left alone", "err", err)
		}
	}
	for name, p := range d.past { // created, and never written
		file, err := fileName(name)
		if _, ok := d.entries[name]; ok || !p.created || p.saved.sum != "" || err != nil {
			continue
		}
		empty, err := parse("", "json", emptyText)
		if err == nil {
			err = d.open(&entry{
				name: name, kept: InData, path: filepath.Join(folder, file+".json"), format: "json", common: emptyText,
			}, empty)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Desk) openFile(path string) error {
	file, isJSON := strings.CutSuffix(filepath.Base(path), ".json")
	if !isJSON {
		return nil
	}
	name, err := graphName(file)
	if err != nil {
		return err
	}
	text, _, err := readText(path)
	if err != nil {
		return err
	}
	g, err := parse(path, "json", text)
	if err != nil {
		return err
	}
	return d.open(&entry{name: name, kept: InData, path: path, format: "json", common: text}, g)
}

func (d *Desk) layerPath(e *entry) string {
	file, err := fileName(e.name)
	if err != nil { // too long, or odd: a sum is as good
		file = sum(e.name)
	}
	return filepath.Join(d.cfg.Dir, folderName, file+".layer")
}

// readLayer returns what is kept over the text of a graph, nil if there is nothing.
func (d *Desk) readLayer(e *entry) (*layer, error) {
	if e.kept == InData {
		return nil, nil
	}
	text, err := os.ReadFile(d.layerPath(e))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var over layer
	if err == nil {
		err = json.Unmarshal(text, &over)
	}
	if err == nil {
		over.base, err = parse(d.layerPath(e), e.format, over.Base)
	}
	if err == nil {
		over.ours, err = parse(d.layerPath(e), "json", string(over.Graph))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.layerPath(e), err)
	}
	return &over, nil
}

func parse(file, format, text string) (*graph.Graph, error) {
	if format == "json" {
		return graph.ParseJSON(file, []byte(text))
	}
	return graph.ParseFBP(file, []byte(text))
}

// readText reads a text, and what the file was then.
func readText(path string) (text string, was fs.FileInfo, err error) {
	// Asked before opening: a named pipe would hold us until somebody writes to it.
	if was, err = os.Stat(path); err == nil && !was.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return "", nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = file.Close() }()
	all, err := io.ReadAll(io.LimitReader(file, graph.MaxSize+1))
	if err != nil {
		return "", nil, err
	}
	return string(all), was, nil
}

func sum(text string) string {
	s := sha256.Sum256([]byte(text))
	return hex.EncodeToString(s[:])
}
