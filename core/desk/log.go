package desk

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/flogate/flogate/core/graph"
)

// maxUnwritten bounds the lines, in bytes, that wait for a log that cannot be written. What is older is given up.
const maxUnwritten = 8 << 20

// Record is one line of the log.
type Record struct {
	Time  time.Time `json:"time"`
	Graph string    `json:"graph"`
	// Revision is that of the graph after the change.
	Revision uint64 `json:"revision"`
	// Who made the change: what Desk.Change was told, or ByFile.
	Who     string        `json:"who,omitempty"`
	Changes graph.Changes `json:"changes,omitempty"`
	// Undo takes the changes back, in this order, on the graph as they left it.
	Undo graph.Changes `json:"undo,omitempty"`
	// Undid is the revision that the change took back.
	Undid uint64 `json:"undid,omitempty"`
	// Created: the graph itself is new.
	Created bool `json:"created,omitempty"`
	// Removed: the graph itself is gone.
	Removed bool `json:"removed,omitempty"`
	// Lost are edits that did not fit a file that somebody else has changed. They are not in the graph.
	Lost graph.Changes `json:"lost,omitempty"`
	// Saving is the SHA-256 of the text that is about to be written for this revision, Saved that of the text that is there.
	Saving string `json:"saving,omitempty"`
	Saved  string `json:"saved,omitempty"`
}

// ByFile is who makes changes by changing the file of a graph.
const ByFile = "(file)"

// edits says that the record is of a change to a graph.
func (r Record) edits() bool { return len(r.Changes) > 0 }

// ReadLog calls f for each record of the log in a data folder, oldest first, until f returns false. It may be called while a
// gateway writes there. skipped counts lines that are no records: torn ones. A log that is not there is empty.
func ReadLog(dir string, f func(Record) bool) (skipped int, err error) {
	for _, name := range []string{logName + ".1", logName} {
		more, n, err := readLog(filepath.Join(dir, name), f)
		skipped += n
		if err != nil || !more {
			return skipped, err
		}
	}
	return skipped, nil
}

func readLog(path string, f func(Record) bool) (more bool, skipped int, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("read the log of the graphs: %w", err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		var r Record
		switch {
		case len(bytes.TrimSpace(line)) == 0:
		case json.Unmarshal(line, &r) != nil || r.Graph == "":
			skipped++
		case !f(r):
			return false, skipped, nil
		}
		if errors.Is(err, io.EOF) {
			return true, skipped, nil
		}
		if err != nil {
			return false, skipped, fmt.Errorf("read the log of the graphs: %w", err)
		}
	}
}

const logName = "graphs.log"

// journal appends to the log. It is used under the lock of the desk, but for sync.
type journal struct {
	path  string
	limit int64
	file  *os.File
	size  int64
	torn  bool     // the file does not end with a line
	queue [][]byte // lines that could not be written
	bytes int      // in queue
}

// append writes a line. What cannot be written waits for the next append or flush.
func (j *journal) append(r Record) error {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return err
	}
	j.queue, j.bytes = append(j.queue, line.Bytes()), j.bytes+line.Len()
	err := j.flush()
	for j.bytes > maxUnwritten {
		j.bytes -= len(j.queue[0])
		j.queue = j.queue[1:]
	}
	return err
}

// flush writes what waits.
func (j *journal) flush() error {
	for len(j.queue) > 0 {
		if err := j.open(); err != nil {
			return err
		}
		line := j.queue[0]
		if j.torn {
			line = append([]byte{'\n'}, line...)
		}
		n, err := j.file.Write(line)
		if err != nil { // opened again it says how much of the line is there
			return errors.Join(err, j.close())
		}
		j.size += int64(n)
		j.torn = false
		j.queue, j.bytes = j.queue[1:], j.bytes-len(j.queue[0])
	}
	if j.size < j.limit || j.file == nil {
		return nil
	}
	if err := errors.Join(j.file.Sync(), os.Rename(j.path, j.path+".1")); err != nil {
		return err
	}
	return j.close()
}

func (j *journal) open() error {
	if j.file != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	end, err := file.Seek(0, io.SeekEnd)
	last := []byte{'\n'}
	if err == nil && end > 0 {
		_, err = file.ReadAt(last, end-1)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	j.file, j.size, j.torn = file, end, last[0] != '\n'
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
