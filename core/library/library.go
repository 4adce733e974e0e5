package library

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrUnknown says that a library has no such component.
	ErrUnknown = errors.New("no such component")
	// ErrNoCommand says that a component is known, but not how to start it: somebody else does.
	ErrNoCommand = errors.New("the component has no command")
	// ErrNoSource says that a component has no file in the component folder.
	ErrNoSource = errors.New("the component has no source")
)

// Component is something of which participants can be made.
type Component struct {
	Name string // "namespace/basename", or as it is configured
	// File is relative to the library's folder, or absolute if it is not in there; empty for a component that is a command
	// and nothing else.
	File     string
	Language string // as the FBP protocol calls it: "javascript", "python", "yaml" …; empty if nobody knows
	// Command is the template of its command, with the library's variables in it; empty if nobody knows it.
	Command string
	// Foreign says that File describes a participant that is started by others. The gateway announces it; Command does so
	// too, for those who run it without a gateway.
	Foreign     bool
	Description string
}

// Library is a set of components. Its methods may be called concurrently.
type Library struct {
	dir    string // absolute
	file   string // the JSON file, absolute; empty if there is none
	shown  string // as the caller calls it
	needed bool   // the file was asked for by name
	folder string // the component folder that the caller wants; empty if the definition has the say
	given  Definition

	changing sync.Mutex // held by who makes the next state; readers never wait for a disk
	now      atomic.Pointer[state]
}

// state is a library as it was read at one time. It does not change.
type state struct {
	definition Definition
	places     places
	folder     string // the component folder, absolute
	components map[string]entry
	ignored    []error
}

type entry struct {
	Component
	template template
	// size and changed tell one content of the file from another.
	size    int64
	changed time.Time
}

// Load reads a library from a package.json or another JSON file, or from a folder: then from the package.json there, if
// there is one. componentDir, if not empty, takes the place of the component folder that the file names; it is relative to
// the file's folder. The error joins an [*Error] for each thing that is wrong.
func Load(name, componentDir string) (*Library, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("library %s: %w", name, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("library: %w", err)
	}
	l := &Library{dir: filepath.Dir(abs), file: abs, shown: name, needed: true, folder: componentDir}
	if info.IsDir() {
		l.dir, l.file, l.shown, l.needed = abs, filepath.Join(abs, "package.json"), filepath.Join(name, "package.json"), false
	}
	return l.loaded()
}

// New makes a library of a definition. An empty Dir is the working directory.
func New(d Definition) (*Library, error) {
	dir, err := filepath.Abs(d.Dir)
	if err != nil {
		return nil, fmt.Errorf("library %s: %w", d.Dir, err)
	}
	return (&Library{dir: dir, given: d}).loaded()
}

func (l *Library) loaded() (*Library, error) {
	if err := l.reload(); err != nil {
		return nil, err
	}
	return l, nil
}

// reload reads everything again. What was there stays when something is wrong.
func (l *Library) reload() error {
	l.changing.Lock()
	defer l.changing.Unlock()
	d, p := l.given, places{}
	if l.file != "" {
		var err error
		d, p, err = readFile(l.file, l.shown)
		if err != nil && (l.needed || !errors.Is(err, fs.ErrNotExist)) {
			return l.named(err)
		}
		if l.folder != "" {
			d.ComponentDir = l.folder
		}
	}
	s, err := l.build(d, p)
	if err != nil {
		return l.named(err)
	}
	l.now.Store(s)
	return nil
}

// named says which library an error is about, if it does not say so itself.
func (l *Library) named(err error) error {
	if one, ok := errors.AsType[*Error](err); ok && one.File != "" {
		return err
	}
	return fmt.Errorf("library %s: %w", l.name(), err)
}

func (l *Library) name() string {
	if l.shown != "" {
		return l.shown
	}
	return l.dir
}

// build makes a state of a definition and of what is in the component folder.
func (l *Library) build(d Definition, p places) (*state, error) {
	s := &state{definition: d, places: p, components: map[string]entry{}, folder: l.componentDir(d)}
	var errs []error
	fail := func(key string, err error) { errs = append(errs, p.error(key, err)) }
	if err := checkNamespace(d.Namespace); err != nil {
		fail("namespace", err)
	}
	variables := map[string]string{}
	for name, v := range d.Variables {
		key, upper := "variables: "+name, strings.ToUpper(name)
		_, twice := variables[upper]
		switch {
		case name == "":
			fail(key, errors.New("a variable needs a name"))
		case slices.Contains(markers(), upper):
			fail(key, fmt.Errorf("#%s stands for something else", upper))
		case twice:
			fail(key, fmt.Errorf("#%s is there twice", upper))
		}
		variables[upper] = v
	}
	handlers := map[string]template{}
	for ending, command := range handlersOf(d) {
		if command == "" {
			continue
		}
		t, err := parseTemplate(command, variables)
		if err != nil {
			fail("handlers: "+ending, err)
			continue
		}
		if !strings.HasPrefix(ending, ".") {
			ending = "." + ending
		}
		handlers[ending] = t
	}
	if err := s.scan(l.dir, handlers); err != nil {
		errs = append(errs, err)
	}
	for name, c := range d.Components {
		key := "components: " + name
		if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
			fail(key, errors.New("a component needs a name without control characters"))
			continue
		}
		// A file of the same name is the component's source.
		e := s.components[name]
		e.Name, e.Description, e.Foreign, e.template, e.Command = name, c.Description, false, template{}, ""
		if c.Language != "" {
			e.Language = c.Language
		}
		if strings.TrimSpace(c.Command) != "" {
			t, err := parseTemplate(c.Command, variables)
			if err != nil {
				fail(key, err)
				continue
			}
			e.template, e.Command = t, t.String()
		}
		s.components[name] = e
	}
	return s, sorted(errs)
}

// componentDir returns the component folder. It need not be there.
func (l *Library) componentDir(d Definition) string {
	name := d.ComponentDir
	if name == "" {
		name = "participants"
		if info, err := os.Stat(filepath.Join(l.dir, name)); err != nil || !info.IsDir() {
			name = "components"
		}
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(l.dir, name)
}

func handlersOf(d Definition) map[string]string {
	all := DefaultHandlers()
	for ending, command := range d.Handlers {
		if !strings.HasPrefix(ending, ".") {
			ending = "." + ending
		}
		all[ending] = command
	}
	return all
}

// checkNamespace refuses what could not be the beginning of a component's name.
func checkNamespace(namespace string) error {
	if strings.ContainsFunc(namespace, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) ||
		strings.HasSuffix(namespace, "/") {
		return fmt.Errorf("%q is no namespace", namespace)
	}
	return nil
}

// scan adds the files of the component folder.
func (s *state) scan(dir string, handlers map[string]template) error {
	files, err := os.ReadDir(s.folder)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return err // not a library without files, but none at all
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		base, ending := splitName(f.Name())
		t, ok := handlers[ending]
		if !ok || strings.HasPrefix(f.Name(), ".") {
			continue // what an editor or a version control system keeps there
		}
		shown := relative(dir, filepath.Join(s.folder, f.Name()))
		if err := checkBase(base); err != nil {
			s.ignored = append(s.ignored, fmt.Errorf("%q is no component: %w", shown, err))
			continue
		}
		// Not from the entry: a component may be a link to a file of another package.
		info, err := os.Stat(filepath.Join(s.folder, f.Name()))
		if err != nil || !info.Mode().IsRegular() {
			if err == nil {
				err = errors.New("it is no file")
			}
			s.ignored = append(s.ignored, fmt.Errorf("%q is no component: %w", shown, err))
			continue
		}
		e := entry{template: t, size: info.Size(), changed: info.ModTime(), Component: Component{
			Name: base, File: shown, Language: languageOf(ending), Command: t.String(), Foreign: isForeign(t),
		}}
		if s.definition.Namespace != "" {
			e.Name = s.definition.Namespace + "/" + base
		}
		if other, ok := s.components[e.Name]; ok {
			s.ignored = append(s.ignored, fmt.Errorf("%q is no component: %q is of the same name", other.File, shown))
		}
		s.components[e.Name] = e
	}
	return nil
}

// splitName returns a file's name without its ending, and the ending.
func splitName(file string) (base, ending string) {
	ending = path.Ext(file)
	return strings.TrimSuffix(file, ending), ending
}

// relative returns the path of a file as commands are given it. It begins with no dash.
func relative(dir, file string) string {
	rel, err := filepath.Rel(dir, file)
	switch {
	case err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)):
		return file
	case strings.HasPrefix(rel, "-"):
		return "./" + rel
	}
	return rel
}

// checkBase refuses what cannot be the name of a component that is a file.
func checkBase(base string) error {
	switch {
	case base == "" || len(base) > 128:
		return errors.New("a name has 1 to 128 bytes")
	case !utf8.ValidString(base) || strings.ContainsFunc(base, unicode.IsControl):
		return errors.New("a name has no control characters")
	case base[0] == '.' || base[0] == '-' || strings.ContainsAny(base, `/\`):
		return errors.New(`a name begins with neither "." nor "-", and has no slashes`)
	}
	return nil
}

// isForeign reports whether a handler only announces what is in the file, which the gateway does by itself.
func isForeign(t template) bool {
	return slices.Contains([]string{
		registers,
		"msgflo-register --role #ROLE:#FILENAME",
		"msgflo-register-foreign --role #ROLE #FILENAME",
	}, t.String())
}

// Dir returns the folder in which the library's commands run. It is absolute.
func (l *Library) Dir() string { return l.dir }

// Definition returns what the library was made from, when it was read last. Do not change it.
func (l *Library) Definition() Definition { return l.state().definition }

func (l *Library) state() *state { return l.now.Load() }

// Components returns all components, sorted by name.
func (l *Library) Components() []Component {
	s := l.state()
	list := make([]Component, 0, len(s.components))
	for _, name := range slices.Sorted(maps.Keys(s.components)) {
		list = append(list, s.components[name].Component)
	}
	return list
}

// Ignored says which files of the component folder look like components and are none, and why.
func (l *Library) Ignored() []error { return l.state().ignored }

// Component returns a component by its name. As in MsgFlo, the library's namespace may be left out, and a component that
// was configured without one is found with any.
func (l *Library) Component(name string) (Component, bool) {
	e, ok := l.state().find(name)
	return e.Component, ok
}

func (s *state) find(name string) (entry, bool) {
	for _, try := range []string{name, s.definition.Namespace + "/" + name, path.Base(name)} {
		if e, ok := s.components[try]; ok {
			return e, true
		}
	}
	return entry{}, false
}

// need is find with an error that helps.
func (l *Library) need(s *state, name string) (entry, error) {
	if e, ok := s.find(name); ok {
		return e, nil
	}
	return entry{}, fmt.Errorf("component %q: %w in library %s%s", name, ErrUnknown, l.name(), didYouMean(name, slices.Sorted(maps.Keys(s.components))))
}

// Command returns the program and the arguments that start a component in a role; it runs in Dir. iips are the initial
// packets that the component gets with its command if its template has #IIPS: a JSON object by port, or nil. The error is
// ErrUnknown, ErrNoCommand, or says what is wrong with the template or a value. A program that npm has installed for the
// library's folder is found there.
func (l *Library) Command(component, role string, iips json.RawMessage) ([]string, error) {
	e, values, err := l.instance(component, role, iips)
	if err != nil {
		return nil, err
	}
	command, err := e.template.command(values)
	if err != nil {
		return nil, fmt.Errorf("component %q: command %q: %w", e.Name, e.Command, err)
	}
	if !strings.Contains(command[0], "/") {
		// npm itself puts this folder first when it runs a project's scripts.
		local := filepath.Join(l.dir, "node_modules", ".bin", command[0])
		if info, err := os.Stat(local); err == nil && info.Mode().IsRegular() {
			command[0] = local
		}
	}
	return command, nil
}

// instance returns what is needed to start a component in a role.
func (l *Library) instance(component, role string, iips json.RawMessage) (entry, map[string]string, error) {
	s := l.state()
	e, err := l.need(s, component)
	if err != nil {
		return entry{}, nil, err
	}
	if e.Command == "" {
		return entry{}, nil, fmt.Errorf("component %q: %w", e.Name, ErrNoCommand)
	}
	if role == "" || role[0] == '-' || strings.ContainsFunc(role, unicode.IsControl) {
		// A program would take a role that begins with a dash for an option.
		return entry{}, nil, fmt.Errorf("component %q: %q cannot be a role on a command line", e.Name, role)
	}
	values := map[string]string{
		markRole: role, markFile: e.File, markComponent: e.Name, markName: path.Base(e.Name), markIIPs: "{}",
	}
	if e.File == "" && e.template.uses(markFile) {
		return entry{}, nil, fmt.Errorf("component %q: command %q wants #%s, and the component has no file", e.Name, e.Command, markFile)
	}
	if _, configured := s.definition.Components[e.Name]; !configured {
		// MsgFlo gives programs the name of a file without the namespace, and NoFlo, for one, looks for it so.
		values[markComponent] = path.Base(e.Name)
	}
	if len(iips) > 0 {
		var byPort map[string]json.RawMessage
		if err := json.Unmarshal(iips, &byPort); err != nil {
			return entry{}, nil, fmt.Errorf("component %q: initial packets of role %q: %w", e.Name, role, err)
		}
		if byPort != nil {
			text, err := json.Marshal(byPort) // compact, and in an order that does not change
			if err != nil {
				return entry{}, nil, fmt.Errorf("component %q: initial packets of role %q: %w", e.Name, role, err)
			}
			values[markIIPs] = string(text)
		}
	}
	return e, values, nil
}

// didYouMean returns a question about the name that was probably meant, with what separates it, or nothing.
func didYouMean(given string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if path.Base(name) == path.Base(given) {
			best = name
			break
		}
		if n := editDistance(given, name); n < distance && n < len(given) {
			best, distance = name, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(". Did you mean %q?", best)
}

// editDistance counts the letters to change, add or leave out between two words.
func editDistance(a, b string) int {
	from, to := []rune(a), []rune(b)
	if d := len(from) - len(to); d > 3 || d < -3 {
		return 3 // more than anybody asks for
	}
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range from {
		corner := row[0]
		row[0] = i + 1
		for j, y := range to {
			cost := 1
			if x == y {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, corner+cost)
		}
	}
	return row[len(to)]
}
