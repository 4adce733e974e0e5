package library

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quietTime is how long nothing must have happened before files are read: editors write in several steps.
	quietTime = 100 * time.Millisecond
	// patience is how long the reading waits for that.
	patience = time.Second
)

// Watch keeps the library as its files are, until ctx ends; then it returns nil. It returns an error if files cannot be
// watched. changed hears, on the goroutine of Watch, of components that are new, gone, or of another command or content, by
// SetSource too; or of what is wrong with the files, and then the library stays as it was. One Watch at a time.
func (l *Library) Watch(ctx context.Context, changed func(names []string, err error)) error {
	watcher, err := l.follow()
	if err != nil {
		return l.named(fmt.Errorf("watch: %w", err))
	}
	defer func() { _ = watcher.Close() }()
	told := l.state()
	// Once more now that the folders are watched, for what happened before.
	due := time.NewTimer(0)
	defer due.Stop()
	var first time.Time // of the events that wait; zero if none does
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watcher.Events:
			if !l.concerns(e) {
				continue
			}
		case err := <-watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				changed(nil, l.named(fmt.Errorf("watch: %w", err)))
			}
		case <-due.C:
			first = time.Time{}
			next, err := l.follow()
			if err != nil {
				return l.named(fmt.Errorf("watch: %w", err))
			}
			_ = watcher.Close()
			watcher = next
			before := l.state().folder
			err = l.reload()
			now := l.state()
			if names := differences(told, now); len(names) > 0 {
				changed(names, nil)
			}
			if err != nil {
				changed(nil, err)
			}
			told = now
			if now.folder != before {
				due.Reset(0) // it is not watched yet
			}
			continue
		}
		if first.IsZero() {
			first = time.Now()
		}
		due.Reset(min(quietTime, max(0, patience-time.Since(first))))
	}
}

// concerns reports whether an event can mean another library. A folder with the files of a project may be a busy one.
func (l *Library) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	dir, base := filepath.Split(e.Name)
	dir = filepath.Clean(dir)
	folder := l.state().folder
	for _, f := range []string{l.file, l.dir, folder, filepath.Join(l.dir, "participants")} {
		if e.Name == f || strings.HasPrefix(f, e.Name+string(filepath.Separator)) {
			return true
		}
	}
	// Kubernetes changes the files of a volume by putting another link "..data" there.
	return strings.HasPrefix(base, "..") || dir == folder && !strings.HasPrefix(base, ".")
}

// follow watches the folders that there are: of those that are not there, the one in which they, or what they are in, would
// be made. It is a new watcher each time, because other folders of the same names may have taken the places of those that
// the old one watches.
func (l *Library) follow() (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	folder := l.state().folder
	dirs := []string{folder, filepath.Dir(folder), l.dir}
	if rel, err := filepath.Rel(l.dir, folder); err == nil && filepath.IsLocal(rel) {
		// A folder does not hear of it when one that it is in goes.
		for dirs = []string{folder}; folder != l.dir; dirs = append(dirs, folder) {
			folder = filepath.Dir(folder)
		}
	}
	for _, dir := range dirs {
		for {
			there := standing(dir)
			err := watcher.Add(there)
			now := standing(dir)
			if err != nil && now == there {
				return nil, errors.Join(err, watcher.Close())
			}
			if now == there {
				break
			}
			// It has come or gone in between.
		}
	}
	return watcher, nil
}

// standing returns dir, or the nearest folder above it that there is.
func standing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// differences returns the names of the components that are not the same in both.
func differences(a, b *state) []string {
	var names []string
	for name, e := range a.components {
		if o, ok := b.components[name]; !ok || e.Component != o.Component || e.size != o.size || !e.changed.Equal(o.changed) {
			names = append(names, name)
		}
	}
	for name := range b.components {
		if _, ok := a.components[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
