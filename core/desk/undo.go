package desk

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flogate/flogate/core/graph"
)

// History returns the last changes of a graph that can be taken back, oldest first. ReadLog has older ones too.
func (d *Desk) History(name string) ([]Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	if !ok {
		return nil, fmt.Errorf("%q: %w", name, ErrNoGraph)
	}
	return append([]Record(nil), e.history...), nil
}

// Undo takes back the change that led to a revision, or with 0 the last one that is not taken back. What has changed since
// stays. If something of that stands in the way nothing is done, and the error says what. What comes back stands at the
// end of the graph. Taking back is a change itself, which can be taken back by its revision.
func (d *Desk) Undo(name, who string, revision uint64) (Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[name]
	if !ok {
		return Result{}, fmt.Errorf("%q: %w", name, ErrNoGraph)
	}
	at, err := e.toUndo(revision)
	if err != nil {
		return Result{}, fmt.Errorf("graph %q: %w", name, err)
	}
	r := e.history[at]
	// The graph as the change left it: it is compared with what is there now.
	then := e.graph.Clone()
	for i := len(e.history) - 1; i > at; i-- {
		if _, _, err := applyAll(then, e.history[i].Undo); err != nil {
			return Result{}, fmt.Errorf("graph %q: go back to revision %d: %w", name, r.Revision, err)
		}
	}
	left, conflicts := graph.Rebase(then, e.graph, r.Undo)
	if len(conflicts) > 0 {
		var reasons []string
		for _, c := range conflicts {
			reasons = append(reasons, c.Error())
		}
		return Result{}, fmt.Errorf("graph %q: revision %d of %s cannot be taken back: %s",
			name, r.Revision, r.Who, strings.Join(reasons[:min(3, len(reasons))], "; "))
	}
	if len(left) == 0 {
		return Result{}, fmt.Errorf("graph %q: nothing is left of revision %d", name, r.Revision)
	}
	return d.edit(e, Record{Who: who, Changes: left, Undid: r.Revision})
}

// toUndo returns the place of a change in the history.
func (e *entry) toUndo(revision uint64) (at int, err error) {
	undone := map[uint64]bool{}
	for i, r := range slices.Backward(e.history) {
		switch {
		case revision == r.Revision && undone[revision]:
			return 0, fmt.Errorf("revision %d has been taken back already", revision)
		case revision == r.Revision, revision == 0 && r.Undid == 0 && !undone[r.Revision]:
			return i, nil
		}
		if r.Undid != 0 && !undone[r.Revision] {
			undone[r.Undid] = true
		}
	}
	switch {
	case len(e.history) == 0:
		return 0, fmt.Errorf("there is nothing that can be taken back")
	case revision == 0:
		return 0, fmt.Errorf("all that can be taken back has been")
	}
	return 0, fmt.Errorf("revision %d is not among those that can be taken back: %d to %d",
		revision, e.history[0].Revision, e.history[len(e.history)-1].Revision)
}
