package graph

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that a change wraps, for callers that must tell them apart.
var (
	ErrExists   = errors.New("already in the graph")
	ErrNotFound = errors.New("not in the graph")
	// ErrUnknownCommand: the FBP protocol has no such command that changes a graph.
	ErrUnknownCommand = errors.New("not a command that changes a graph")
)

// Error is one thing that is wrong with the text of a graph, and where.
type Error struct {
	File    string
	Line    int // from 1
	Column  int // from 1, in characters
	Message string
}

// Error returns "file:line:column: message".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Errors is everything that is wrong with the text of a graph, in the order of the text. It is what ParseFBP and
// ParseJSON return as their error: errors.AsType[Errors] gets at the positions.
type Errors []*Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns each of them.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}
