package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/flogate/flogate/core/graph"
)

const (
	// A graph that changes all the time is written after so many times the delay.
	maxDelays = 5
	// What cannot be written is tried again after firstRetry, and twice as long each time up to maxRetry.
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	// Who changes a file so many times while it is being written waits for the next try.
	maxRaces = 3
)

// flags are what outlives the gateway of a graph besides the graph itself.
type flags struct {
	Main    bool `json:"main,omitempty"`
	Running bool `json:"running"`
}

const flagsName = "graphs.json"

// schedule has a graph written soon.
func (d *Desk) schedule(e *entry) {
	now := time.Now()
	if e.first.IsZero() {
		e.first = now
	}
	if e.failure != nil && !e.due.IsZero() {
		return // it is tried again when it is time
	}
	delay := max(d.cfg.Delay, 4*e.took)
	e.due = now.Add(delay)
	if latest := e.first.Add(maxDelays * d.cfg.Delay); e.due.After(latest) {
		e.due = latest
	}
	if soonest := e.first.Add(4 * e.took); e.due.Before(soonest) {
		e.due = soonest
	}
	d.nudge()
}

func (d *Desk) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run writes graphs a moment after they change, until ctx ends; then it writes what is left and returns nil. It is called
// once.
func (d *Desk) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			d.saveAll(true)
			return nil
		case <-d.wake:
		case <-timer.C:
		}
		if next := d.saveAll(false); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// Persist writes at once what is not written, and what could not be. It blocks until that is done. The error says what still
// cannot be written.
func (d *Desk) Persist() error {
	d.saveAll(true)
	d.sync()
	d.disk.Lock() // what Run was writing is written now, too
	defer d.disk.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.journal.flush()}
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		if err := d.entries[name].failure; err != nil {
			errs = append(errs, fmt.Errorf("graph %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Close does what Persist does and closes the log. Nothing may be called after it, nor may Run run meanwhile.
func (d *Desk) Close() error {
	err := d.Persist()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.journal.close())
}

// saveAll writes what is due, or everything, and returns when the next is due.
func (d *Desk) saveAll(all bool) (next time.Time) {
	now := time.Now()
	var due []*entry
	d.mu.Lock()
	for _, e := range d.entries {
		if !e.due.IsZero() && (all || !e.due.After(now)) {
			due = append(due, e)
		}
	}
	d.mu.Unlock()
	d.sync() // before any graph is, so that what the log lacks is in no graph
	for _, e := range due {
		d.save(e)
	}
	d.saveFlags()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries {
		if !e.due.IsZero() && (next.IsZero() || e.due.Before(next)) {
			next = e.due
		}
	}
	if retry := now.Add(firstRetry); (d.logFailed || d.flagsChanged) && (next.IsZero() || retry.Before(next)) {
		next = retry
	}
	return next
}

// sync has the disk take the log.
func (d *Desk) sync() {
	d.mu.Lock()
	err := d.journal.flush()
	if err == nil && d.logFailed {
		d.logFailed = false
		d.cfg.Log.Info("the log of the graphs can be written again")
	}
	file := d.journal.file
	d.mu.Unlock()
	if file == nil {
		return
	}
	// Meanwhile it may have been rotated, which syncs it too.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		d.cfg.Log.Error("the log of the graphs is not on the disk", "err", err)
	}
}

// save writes a graph to where it is kept.
func (d *Desk) save(e *entry) {
	d.disk.Lock()
	defer d.disk.Unlock()
	began := time.Now()
	d.mu.Lock()
	gone := d.entries[e.name] != e || e.due.IsZero()
	e.due, e.first = time.Time{}, time.Time{}
	d.mu.Unlock()
	if gone {
		return
	}
	var revision uint64
	var err error
	switch e.kept {
	case InFile:
		revision, err = d.saveFile(e)
		for range maxRaces {
			if errors.Is(err, errChangedAgain) {
				revision, err = d.saveFile(e)
			}
		}
		if err != nil {
			if _, also := d.saveLayer(e); also != nil {
				err = errors.Join(err, also)
			}
		}
	case InSiteFile:
		revision, err = d.saveLayer(e)
	case InData:
		revision, err = d.saveFile(e)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e.took = time.Since(began)
	told := fmt.Sprint(e.failure) == fmt.Sprint(err)
	switch e.failure = err; {
	case err != nil:
		e.retry = min(max(2*e.retry, firstRetry), maxRetry)
		if e.due = time.Now().Add(e.retry); errors.Is(err, errUnwritable) {
			e.due = time.Time{}
		}
		if !told {
			d.cfg.Log.Error("a graph cannot be written to where it is kept", "graph", e.name, "kept", e.kept.String(), "err", err)
		}
	default:
		e.saved, e.retry = revision, 0
		if e.revision > revision && e.due.IsZero() {
			d.schedule(e)
		}
		if !told {
			d.cfg.Log.Info("the graph can be written again", "graph", e.name)
		}
	}
	if !told {
		d.publish(Event{Kind: Stated, Graph: e.name, Revision: e.revision})
	}
}

func (d *Desk) snapshotOf(e *entry) Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return e.snapshot()
}

// saveFile writes a graph to its file, after taking over what somebody else has written there.
func (d *Desk) saveFile(e *entry) (revision uint64, err error) {
	text, was, err := readText(e.path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return 0, err
	}
	if !missing && text != e.common {
		theirs, err := parse(e.path, e.format, text)
		if err != nil {
			return 0, fmt.Errorf("somebody has changed the file, which is not valid now: %w", err)
		}
		base, err := parse("", e.format, e.common)
		if err != nil {
			return 0, err
		}
		d.mu.Lock()
		d.takeOver(e, base, theirs, text)
		e.due, e.first = time.Time{}, time.Time{}
		d.mu.Unlock()
	}
	now := d.snapshotOf(e)
	whole := true
	write := now.Graph.JSON
	if e.format != "json" {
		whole, write = len(now.Graph.LostInFBP()) == 0, now.Graph.FBP
	}
	out, err := write()
	if err == nil && len(out) > graph.MaxSize {
		err = fmt.Errorf("the text of the graph is larger than %d MiB", graph.MaxSize>>20)
	}
	if err != nil {
		return 0, errors.Join(errUnwritable, err)
	}
	if missing || text != string(out) {
		d.mu.Lock()
		d.record(Record{Time: time.Now().UTC(), Graph: e.name, Revision: now.Revision, Saving: sum(string(out))})
		d.mu.Unlock()
		d.sync()
		if !whole { // it has what the file will lack, whichever text is there when the gateway is killed now
			if _, err := d.writeLayer(e, now); err != nil {
				return 0, err
			}
		}
		if err := replaceFile(e.path, out, was, e.kept == InData); err != nil {
			return 0, err
		}
	}
	d.mu.Lock()
	e.common = string(out)
	d.mu.Unlock()
	switch {
	case e.kept == InData:
	case whole:
		err = d.removeLayer(e)
	default:
		_, err = d.writeLayer(e, now)
	}
	if err != nil {
		return 0, err
	}
	// Last: the log may be forgotten before this revision.
	d.mu.Lock()
	defer d.mu.Unlock()
	d.record(Record{Time: time.Now().UTC(), Graph: e.name, Revision: now.Revision, Saved: sum(e.common)})
	return now.Revision, nil
}

// saveLayer keeps the edits of a graph over a text that is not written.
func (d *Desk) saveLayer(e *entry) (revision uint64, err error) {
	now := d.snapshotOf(e)
	text, err := parse("", e.format, e.common)
	if err != nil {
		return 0, err
	}
	if !graph.Same(text, now.Graph) {
		return d.writeLayer(e, now)
	}
	d.mu.Lock()
	d.record(Record{Time: time.Now().UTC(), Graph: e.name, Revision: now.Revision, Saved: sum(e.common)})
	d.mu.Unlock()
	d.sync()
	return now.Revision, d.removeLayer(e)
}

func (d *Desk) writeLayer(e *entry, now Snapshot) (revision uint64, err error) {
	if e.layer == (mark{now.Revision, e.common}) {
		return now.Revision, nil
	}
	text, err := now.Graph.JSON()
	if err != nil {
		return 0, err
	}
	out, err := json.Marshal(layer{Revision: now.Revision, Base: e.common, Graph: text})
	if err != nil {
		return 0, err
	}
	if err := replaceFile(d.layerPath(e), out, nil, true); err != nil {
		return 0, err
	}
	e.layer = mark{now.Revision, e.common}
	return now.Revision, nil
}

func (d *Desk) removeLayer(e *entry) error {
	e.layer = mark{}
	return removeFile(d.layerPath(e))
}

func (d *Desk) readFlags() error {
	text, err := os.ReadFile(filepath.Join(d.cfg.Dir, flagsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &d.flags)
}

func (d *Desk) saveFlags() {
	d.mu.Lock()
	changed := d.flagsChanged
	d.flagsChanged = false
	text, err := json.MarshalIndent(d.flags, "", "  ")
	d.mu.Unlock()
	if !changed {
		return
	}
	if err == nil {
		err = replaceFile(filepath.Join(d.cfg.Dir, flagsName), append(text, '\n'), nil, true)
	}
	if err != nil {
		d.cfg.Log.Error("which graphs run cannot be kept", "err", err)
		d.mu.Lock()
		d.flagsChanged = true
		d.mu.Unlock()
	}
}

// errUnwritable: the graph as it is has no text in its format. To try again would help only when it has changed.
var errUnwritable = errors.New("the graph cannot be said in the format of its file")

// errChangedAgain: somebody has changed the file while it was about to be replaced.
var errChangedAgain = errors.New("the file has been changed")

// replaceFile replaces a file as a whole, with the permissions that it has, if it is still what it was, where that is given.
// If it is ours, its folder is made and others may not read it. A link is followed.
func replaceFile(path string, text []byte, was fs.FileInfo, ours bool) error {
	mode := fs.FileMode(0o644)
	if ours {
		mode = 0o600
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		// A file that may not be written is not replaced either, though its folder would let us.
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	// One name, so that what a killed gateway leaves is used again.
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".flogate")
	if err := removeFile(next); err != nil {
		return err
	}
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil && was != nil {
		is, now := os.Stat(path)
		if now == nil && (!os.SameFile(was, is) || !was.ModTime().Equal(is.ModTime()) || was.Size() != is.Size()) {
			err = errChangedAgain
		}
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, removeFile(next))
	}
	// So that the new name outlives a loss of power. Not every file system can do that.
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}
