package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// Library is a component library: which components there are, and how participants of them are started. It is either a File
// of its own, or what stands in the site file. What is in the file, in the component folder and in the templates of commands
// has not been looked at.
type Library struct {
	Name string
	// File is the absolute path of a package.json, of another JSON file, or of the folder that a package.json may be in.
	// Empty for a library that stands in the site file.
	File string
	// Dir is the absolute path of the folder in which the commands of a library without a File run.
	Dir string
	// ComponentDir is the absolute path of the folder whose files are components. Empty: the library's own choice.
	ComponentDir string

	// Namespace, Repository, Variables, Handlers and Components are those of a library without a File. An empty Namespace
	// is none, an empty handler switches a default one off.
	Namespace  string
	Repository string
	Variables  map[string]string
	Handlers   map[string]string
	Components map[string]LibraryComponent

	// Broker is the ID of the broker that the library's participants are told to use.
	Broker string
	// Env is added to the environment of the library's participants.
	Env map[string]Secret
	// Start says that participants of graphs whose component is in the library are started.
	Start bool
	// Ignore are the roles that are not started all the same.
	Ignore []string
}

// Equal says whether two libraries are the same, as far as the site file says what they are.
func (l Library) Equal(m Library) bool { return reflect.DeepEqual(l, m) }

// LibraryComponent is a component that stands in the site file.
type LibraryComponent struct {
	// Command is the template of its command; empty if others start it.
	Command     string
	Description string
	Language    string
}

// Library returns the library with a name, or nil.
func (s *Site) Library(name string) *Library {
	for i := range s.Libraries {
		if s.Libraries[i].Name == name {
			return &s.Libraries[i]
		}
	}
	return nil
}

func (l *loader) decodeLibraries(blocks hcl.Blocks) {
	for b, where := range l.named(blocks, "library") {
		name := b.Labels[0]
		before := l.diags.Count(Error)
		lib := l.decodeLibrary(b, name)
		l.site.Libraries = append(l.site.Libraries, lib)
		if l.opts.Library != nil && l.diags.Count(Error) == before {
			for _, err := range each(l.opts.Library(lib)) {
				l.diags.add(Error, where, "Library not usable", "%s", sentence(err.Error()))
			}
		}
	}
}

// each returns the errors that were joined.
func each(err error) []error {
	if joined, is := err.(interface{ Unwrap() []error }); is {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func (l *loader) decodeLibrary(b *hcl.Block, name string) Library {
	schema := attributes("file", "directory", "componentdir", "namespace", "repository", "variables", "handlers",
		"broker", "env", "start", "ignore")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "component", LabelNames: []string{"name"}}}
	content, v := l.content(b, schema)
	lib := Library{Name: name, Start: true}
	if at := l.brokerOf(v, b, "library"); at != nil {
		lib.Broker = at.ID()
	}
	lib.Env = v.secrets("env")
	if _, ok := v.attrs["start"]; ok {
		lib.Start = v.bool("start")
	}
	var where hcl.Range
	lib.Ignore, where, _ = v.list("ignore")
	for _, role := range lib.Ignore {
		if !usable(role) {
			l.diags.add(Error, where, "Wrong value", `"ignore" is a list of roles, each of them a word.`)
		}
	}

	if v.attrs["file"] != nil {
		l.ofFile(&lib, v, content)
		return lib
	}
	lib.Dir = l.site.Dir
	if dir, ok := v.path("directory"); ok {
		lib.Dir = dir
		l.isThere(dir, v.attrs["directory"].Expr.Range(), true)
	}
	lib.ComponentDir = v.componentDir(lib.Dir)
	lib.Namespace = name
	if text, where, ok := v.text("namespace"); ok {
		lib.Namespace = text
		if text != "" && !usable(text) {
			l.diags.add(Error, where, "Wrong value", "A namespace is what the names of components begin with: a word, or nothing.")
		}
	}
	lib.Repository, _, _ = v.text("repository")
	lib.Variables = v.texts("variables")
	lib.Handlers = v.texts("handlers")
	for ending, command := range lib.Handlers {
		// In package.json it is false that switches a handler off. As a program it would be of no use.
		if command == "false" {
			lib.Handlers[ending] = ""
		}
	}
	lib.Components = l.decodeComponents(content.Blocks)
	return lib
}

// ofFile decodes a library that is a file. What it is stands there.
func (l *loader) ofFile(lib *Library, v values, content *hcl.BodyContent) {
	const detail = `A library has a "file", which says what is in it, or says so here.`
	for _, name := range []string{"directory", "namespace", "repository", "variables", "handlers"} {
		if attr := v.attrs[name]; attr != nil {
			l.diags.add(Error, attr.NameRange, "Contradiction", detail)
		}
	}
	for _, block := range content.Blocks {
		l.diags.add(Error, block.DefRange, "Contradiction", detail)
	}
	file, ok := v.path("file")
	if !ok {
		return
	}
	lib.File = file
	dir := filepath.Dir(file)
	if l.isThere(file, v.attrs["file"].Expr.Range(), false) {
		dir = file
	}
	lib.ComponentDir = v.componentDir(dir)
}

// isThere reports a path that is not there, and returns whether it is a folder. A library may be outside of the site file's
// folder: it is a project of its own, and nothing of it is read here.
func (l *loader) isThere(path string, where hcl.Range, folder bool) bool {
	info, err := os.Stat(path)
	shown := path
	if rel, err := filepath.Rel(l.site.Dir, path); err == nil && filepath.IsLocal(rel) {
		shown = rel
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.folder.read(path) // when it comes, the site is another
		what := "file or folder"
		if folder {
			what = "folder"
		}
		l.diags.add(Error, where, "Library not found", "There is no %s %q.", what, shown)
	case err != nil:
		l.diags.add(Error, where, "Library not found", "%s", sentence(explain(err, shown).Error()))
	case folder && !info.IsDir():
		l.diags.add(Error, where, "Library not found", "%q is no folder.", shown)
	case !info.IsDir() && !info.Mode().IsRegular():
		l.diags.add(Error, where, "Library not found", "%q is neither a file nor a folder.", shown)
	default:
		return info.IsDir()
	}
	return false
}

func (l *loader) decodeComponents(blocks hcl.Blocks) map[string]LibraryComponent {
	var components map[string]LibraryComponent
	first := map[string]hcl.Range{}
	for _, b := range blocks {
		name, where := b.Labels[0], b.LabelRanges[0]
		_, v := l.content(b, attributes("command", "description", "language"))
		if !usable(name) {
			l.diags.add(Error, where, "Unusable name", `A component is a name like "demo/Motor".`)
			continue
		}
		if at, ok := first[name]; ok {
			l.duplicate(where, "component", name, at)
			continue
		}
		first[name] = where
		var c LibraryComponent
		c.Command, _, _ = v.text("command")
		c.Description, _, _ = v.text("description")
		c.Language, _, _ = v.text("language")
		if components == nil {
			components = make(map[string]LibraryComponent)
		}
		components[name] = c
	}
	return components
}

// componentDir reads the component folder, which is relative to the library's, as in package.json. It need not be there.
func (v values) componentDir(dir string) string {
	text, where, ok := v.text("componentdir")
	if !ok {
		return ""
	}
	if text == "" || strings.Contains(text, "\x00") {
		v.l.diags.add(Error, where, "Wrong value", `"componentdir" has to be the path of a folder.`)
		return ""
	}
	return absolute(dir, text)
}

// texts reads a map of texts that anybody may see.
func (v values) texts(name string) map[string]string {
	value, _, ok := v.read(name, cty.Map(cty.String))
	if !ok || value.LengthInt() == 0 {
		return nil
	}
	texts := make(map[string]string)
	for it := value.ElementIterator(); it.Next(); {
		key, text := it.Element()
		texts[key.AsString()] = text.AsString()
	}
	return texts
}
