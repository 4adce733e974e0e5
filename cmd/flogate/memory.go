package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/flogate/flogate/core/atomicfile"
	"github.com/flogate/flogate/core/discovery"
)

// memory keeps who is there in a file: a gateway that is started again knows everybody at once.
type memory struct {
	path     string
	registry *discovery.Registry
	log      *slog.Logger
	changed  chan struct{} // has an element when somebody has come, gone or changed
	failing  bool          // the last time it could not be written
}

// rememberTime is how long changes are collected at least before they are written: what a killed gateway forgets.
const rememberTime = time.Second

// restore takes over who was there in an earlier run. A file that cannot be read is of no use, and no harm.
func (m *memory) restore() {
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = m.registry.Restore(text)
	}
	if err != nil {
		m.log.Warn("not everybody is known who was there in the last run: they have to announce themselves", "file", m.path, "error", err)
	}
}

// note says that something has changed. It does not block.
func (m *memory) note() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// run writes what changes until ctx ends, and once more then.
func (m *memory) run(ctx context.Context) error {
	var took time.Duration // writing, the last time: a crowd that changes all the time does not wear the disk out
	for {
		select {
		case <-m.changed:
		case <-ctx.Done():
			m.save()
			return nil
		}
		select {
		case <-time.After(max(rememberTime, 10*took)):
		case <-ctx.Done():
		}
		began := time.Now()
		m.save()
		took = time.Since(began)
	}
}

func (m *memory) save() {
	text, err := m.registry.Save()
	if err == nil {
		err = atomicfile.Write(m.path, text)
	}
	if err != nil && !m.failing { // it is said once, and not each second while the disk is full
		m.log.Warn("who is there is not noted: after a restart everybody has to announce themselves again", "error", err)
	}
	m.failing = err != nil
}
