package library

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxFile bounds the JSON file of a library, in bytes.
const maxFile = 1 << 20

// Definition is a library as somebody wrote it: where its components are, and how they are started. See docs/components.md.
type Definition struct {
	// Dir is the folder that the other paths are relative to, and in which commands run.
	Dir string
	// Namespace is what the names of the components that are files begin with; empty means that they have none.
	Namespace  string
	Repository string
	// ComponentDir is the folder whose files are components. Empty means "participants", or "components" if there is no
	// folder "participants".
	ComponentDir string
	// Variables are put into commands for "#NAME", in capitals; they are part of the command, and may be several words.
	Variables map[string]string
	// Handlers are the commands for files by their endings, such as ".js". They are taken before [DefaultHandlers]; one that
	// is empty means that such files are no components.
	Handlers map[string]string
	// Components are commands by the names of components.
	Components map[string]Configured
}

// Configured is a component that has been given a command of its own.
type Configured struct {
	// Command is empty if nobody here knows how to start it.
	Command     string
	Description string
	Language    string
}

// registers is the command of foreign participants.
const registers = "flogate register --role #ROLE:#FILENAME"

// DefaultHandlers returns the commands for files by their endings.
func DefaultHandlers() map[string]string {
	return map[string]string{
		".js":     "msgflo-nodejs --name #ROLE #FILENAME",
		".coffee": "msgflo-nodejs --name #ROLE #FILENAME",
		".py":     "msgflo-python #FILENAME #ROLE",
		".json":   "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT --iips #IIPS",
		".fbp":    "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT --iips #IIPS",
		".yml":    registers,
		".yaml":   registers,
	}
}

// Error is one thing that is wrong with a library.
type Error struct {
	File string // empty if the library did not come from a file
	// Line and Column, counted from 1, are 0 if there is nothing to point at. Column counts bytes.
	Line, Column int
	// Key is what it is about, such as "components: api/Foo".
	Key string
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
		if e.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
		}
		b.WriteByte(' ')
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// places says where in a file the parts of a definition are.
type places struct {
	file string
	src  []byte
	at   map[string]int // offsets by key
}

// error returns an Error about the part of the definition with this key.
func (p places) error(key string, err error) error {
	e := &Error{File: p.file, Key: key, Err: err}
	if at, ok := p.at[key]; ok {
		before := p.src[:min(at, len(p.src))]
		e.Line = 1 + bytes.Count(before, []byte("\n"))
		e.Column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	return e
}

// readFile reads the JSON file of a library.
func readFile(path, shown string) (Definition, places, error) {
	f, err := os.Open(path)
	if err != nil {
		return Definition{}, places{}, err
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Definition{}, places{}, err
	}
	if len(src) > maxFile {
		return Definition{}, places{}, fmt.Errorf("%s has more than %d KiB", shown, maxFile>>10)
	}
	return parseFile(shown, src)
}

// jsonFile is a JSON file of a library while it is read.
type jsonFile struct {
	places
	errs []error
}

// value is a part of the file.
type value struct {
	key string
	raw json.RawMessage
	at  int
}

// parseFile reads a package.json with a key "msgflo", or an object with the same keys as are in there.
func parseFile(name string, src []byte) (Definition, places, error) {
	f := &jsonFile{places: places{file: name, src: src, at: map[string]int{}}}
	var whole json.RawMessage
	if err := json.Unmarshal(src, &whole); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			f.at[""] = max(int(syntax.Offset)-1, 0)
		}
		return Definition{}, f.places, f.error("", err)
	}
	top := f.object(value{raw: src})
	keys, own := top, top["msgflo"]
	if !isNull(own.raw) {
		keys = f.object(own)
	}
	d := Definition{
		Repository: f.repository(keys["repository"]),
		Variables:  map[string]string{},
		Handlers:   map[string]string{},
		Components: map[string]Configured{},
	}
	if d.Repository == "" && !isNull(own.raw) {
		d.Repository = f.repository(top["repository"])
	}
	d.Namespace = f.text(top["name"])
	if own := keys["namespace"]; !isNull(own.raw) {
		d.Namespace = f.text(own)
	}
	d.ComponentDir = f.text(keys["componentdir"])
	for name, v := range f.object(keys["variables"]) {
		d.Variables[name] = f.scalar(v)
	}
	for ending, v := range f.object(keys["handlers"]) {
		switch {
		case string(v.raw) == "false":
			d.Handlers[ending] = ""
		case !isNull(v.raw):
			// MsgFlo takes its own handler where there is an empty one.
			if command := f.text(v); command != "" {
				d.Handlers[ending] = command
			}
		}
	}
	for name, v := range f.object(keys["components"]) {
		d.Components[name] = f.component(v)
	}
	return d, f.places, sorted(f.errs)
}

// sorted joins errors in the order of the file, or of their keys.
func sorted(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int {
		var x, y *Error
		if !errors.As(a, &x) || !errors.As(b, &y) {
			return 0
		}
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column), cmp.Compare(x.Key, y.Key))
	})
	return errors.Join(errs...)
}

func isNull(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }

func (f *jsonFile) fail(v value, format string, args ...any) {
	f.errs = append(f.errs, f.error(v.key, fmt.Errorf(format, args...)))
}

// object returns the members of an object; of several with one key the last, as other readers of JSON do. No value, or
// null, has no members.
func (f *jsonFile) object(v value) map[string]value {
	if isNull(v.raw) {
		return nil
	}
	// The text is known to be valid, so that no token can fail.
	d := json.NewDecoder(bytes.NewReader(v.raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		f.fail(v, "it must be an object")
		return nil
	}
	members := map[string]value{}
	for d.More() {
		key, _ := d.Token()
		name := key.(string)
		after := v.at + int(d.InputOffset())
		m := value{key: name}
		if err := d.Decode(&m.raw); err != nil {
			f.fail(v, "%w", err)
			return members
		}
		m.at = v.at + int(d.InputOffset()) - len(m.raw)
		if v.key != "" && v.key != "msgflo" {
			m.key = v.key + ": " + name
		}
		// A key's place is where it begins; what was escaped in it moves it by some columns.
		f.at[m.key] = max(after-len(name)-2, v.at)
		members[name] = m
	}
	return members
}

// text returns a string; null, or no value, is an empty one.
func (f *jsonFile) text(v value) string {
	if isNull(v.raw) {
		return ""
	}
	var s string
	if json.Unmarshal(v.raw, &s) != nil {
		f.fail(v, "it must be a string")
	}
	return s
}

// scalar returns a string, a number or a boolean as text.
func (f *jsonFile) scalar(v value) string {
	switch c := v.raw[0]; c {
	case '{', '[', 'n':
		f.fail(v, "it must be a string")
		return ""
	case '"':
		return f.text(v)
	}
	return string(v.raw)
}

// repository returns a URL, or the url of an object, as in package.json.
func (f *jsonFile) repository(v value) string {
	if !isNull(v.raw) && v.raw[0] == '{' {
		return f.text(f.object(v)["url"])
	}
	return f.text(v)
}

// component returns a command, or an object that has one.
func (f *jsonFile) component(v value) Configured {
	if v.raw[0] != '{' {
		if v.raw[0] != '"' {
			f.fail(v, "it must be a command, or an object with a command")
			return Configured{}
		}
		c := Configured{Command: f.text(v)}
		if strings.TrimSpace(c.Command) == "" {
			f.fail(v, "the command is empty")
		}
		return c
	}
	keys := f.object(v)
	return Configured{
		Command:     f.text(keys["command"]),
		Description: f.text(keys["description"]),
		Language:    f.text(keys["language"]),
	}
}
