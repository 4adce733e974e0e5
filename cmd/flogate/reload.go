package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/flogate/flogate/core/config"
)

// settleTime is how long a file must have been left alone before it is read: editors write in several steps.
const settleTime = 200 * time.Millisecond

// watch loads the site again when somebody says so or changes a file, until ctx ends. working is the life of what it starts.
func (r *runner) watch(ctx, working context.Context) {
	var events <-chan fsnotify.Event
	var failures <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		// SIGHUP still works, and carrying messages does not need it.
		r.log.Warn("changes of the site file are not noticed by themselves", "error", err)
	} else {
		defer func() { _ = watcher.Close() }()
		events, failures = watcher.Events, watcher.Errors
	}
	watched := r.follow(watcher, nil)
	settled, look := stopped(), stopped()
	var due time.Time      // when to look at who is there; zero if nobody has come or gone
	var took time.Duration // looking, the last time
	lookAt := func(at time.Time) {
		if due.IsZero() || at.Before(due) {
			due = at
			look.Reset(time.Until(at))
		}
	}
	defer settled.Stop()
	defer look.Stop()
	// Loading asks plugins, and those who come meanwhile are not to wait for one that does not answer.
	loads := make(chan loaded, 1)
	loading, behind := false, false // and the site has changed since it began
	var reading sync.WaitGroup
	defer reading.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hup:
		case e := <-events:
			if slices.Contains(r.files, e.Name) && !e.Has(fsnotify.Chmod) {
				settled.Reset(settleTime)
			}
			continue
		case err := <-failures:
			r.log.Warn("changes of the site file may not be noticed", "error", err)
			continue
		case <-r.stage.poked:
			// A crowd that comes is let in soon, and is never what the gateway spends most of its time on.
			lookAt(time.Now().Add(min(max(lookTime, 10*took), longestLook)))
			continue
		case <-look.C:
			due = time.Time{}
			began := time.Now()
			again := r.plan(working)
			took = time.Since(began)
			if !again.IsZero() {
				lookAt(again)
			}
			continue
		case <-settled.C:
		case l := <-loads:
			if ctx.Err() != nil {
				return // that is why, whatever it says
			}
			loading = false
			r.takeOver(working, l)
			watched = r.follow(watcher, watched)
			if !behind {
				continue
			}
		}
		behind = loading
		if !loading {
			loading = true
			reading.Go(func() { loads <- r.again(ctx) })
		}
	}
}

const (
	// lookTime is how long participants may go on coming before it is looked at who is there.
	lookTime = 20 * time.Millisecond
	// longestLook bounds it where looking takes long: that may have been a plugin which did not answer.
	longestLook = 5 * time.Second
	// loadTime bounds loading the site again: plugins are launched and asked.
	loadTime = time.Minute
)

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// follow watches the folders of the site's files: a file that an editor replaces is another file of the same name.
func (r *runner) follow(watcher *fsnotify.Watcher, watched []string) []string {
	if watcher == nil {
		return nil
	}
	for _, f := range r.files {
		dir := filepath.Dir(f)
		if slices.Contains(watched, dir) {
			continue
		}
		if err := watcher.Add(dir); err != nil {
			r.log.Warn("changes are not noticed by themselves", "folder", dir, "error", err)
		}
		watched = append(watched, dir)
	}
	return watched
}

// loaded is what a siteSource returns.
type loaded struct {
	site  *config.Site
	diags *config.Diagnostics
	err   error
}

// again loads the site. It blocks while files are read and plugins are asked, and not for ever.
func (r *runner) again(ctx context.Context) loaded {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	site, diags, err := r.source.load(ctx, r.log)
	return loaded{site, diags, err}
}

// takeOver applies what is different in a site that was loaded. What goes wrong is said, and the old state goes on.
func (r *runner) takeOver(working context.Context, l loaded) {
	site, diags, err := l.site, l.diags, l.err
	r.files = diags.Files
	var said strings.Builder
	_ = diags.Write(&said, false) // a builder takes everything
	r.app.say(r.log, diags)
	if err == nil {
		err = fixed(r.site, site)
	}
	if err == nil {
		err = r.apply(working, site)
	}
	r.mu.Lock()
	r.reload = ""
	if err != nil {
		r.reload = strings.TrimSpace(said.String())
		if !errors.Is(err, errReported) {
			r.reload = err.Error()
		}
	}
	r.mu.Unlock()
	if err != nil {
		r.log.Error("site file not taken over, the old one stays in force", "file", r.source.name, "error", err)
		return
	}
	r.log.Info("site file taken over", "file", r.source.name)
}

// fixed refuses what cannot be changed while the gateway runs.
func fixed(old, site *config.Site) error {
	if old.DataDir != site.DataDir {
		return errors.New("data_dir cannot be changed while the gateway runs: restart it")
	}
	if old.Drain != site.Drain {
		return errors.New("drain cannot be changed while the gateway runs: restart it")
	}
	if old.Name != site.Name {
		return errors.New("the site's name cannot be changed while the gateway runs, because brokers keep state under it: restart it")
	}
	return nil
}

// lockData makes the data folder and locks it: two gateways of one site would take each other's sessions.
func lockData(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	path := filepath.Join(dir, "flogate.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fmt.Errorf("data_dir %s is in use by another flogate (process %s): end it, or give this site a data_dir of its own",
			dir, strings.TrimSpace(string(holder)))
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks; the file stays, or a third would lock another one
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// brokerURL returns the url setting of a broker, which most transports have.
func brokerURL(config json.RawMessage) string {
	var c struct {
		URL string `json:"url"`
	}
	_ = json.Unmarshal(config, &c) // a configuration without one has none
	return c.URL
}
