package library

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// MaxSource bounds the source of a component, in bytes.
const MaxSource = 1 << 20

// languages are endings by the names that the FBP protocol has for languages, where these differ.
func languages() map[string]string {
	return map[string]string{
		"c++":          ".cpp",
		"coffeescript": ".coffee",
		"javascript":   ".js",
		"python":       ".py",
		"rust":         ".rs",
		"typescript":   ".ts",
		"yaml":         ".yml",
	}
}

// languageOf returns the language of files with an ending.
func languageOf(ending string) string {
	for language, e := range languages() {
		if e == ending {
			return language
		}
	}
	return strings.TrimPrefix(ending, ".")
}

// endingOf returns the ending of files in a language.
func endingOf(language string) string {
	language = strings.ToLower(language)
	if ending, ok := languages()[language]; ok {
		return ending
	}
	return "." + language
}

// Source returns the source of a component that is a file in the component folder. Links that lead out of the folder are
// not followed. The error is ErrUnknown, ErrNoSource, or of the file system.
func (l *Library) Source(component string) (language, code string, err error) {
	s := l.state()
	e, err := l.need(s, component)
	if err != nil {
		return "", "", err
	}
	if e.File == "" {
		return "", "", fmt.Errorf("component %q: %w", e.Name, ErrNoSource)
	}
	src, err := readSource(s.folder, filepath.Base(e.File))
	if err != nil {
		return "", "", fmt.Errorf("component %q: %w", e.Name, err)
	}
	return e.Language, string(src), nil
}

func readSource(folder, file string) ([]byte, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	// To open a pipe would otherwise wait for somebody to write to it.
	f, err := root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no file", file))
	}
	src, err := io.ReadAll(io.LimitReader(f, MaxSource+1))
	if err == nil && len(src) > MaxSource {
		err = fmt.Errorf("%s has more than %d KiB", file, MaxSource>>10)
	}
	return src, err
}

// SetSource makes a component, or gives one another source: its file in the component folder is replaced at once and as a
// whole, and nothing outside of the folder is touched. In another language than before it is another file, and the old one
// goes. The component's namespace, if it has one, must be the library's.
//
// Whoever may call this may run code on this machine.
func (l *Library) SetSource(component, language, code string) error {
	if len(code) > MaxSource {
		return fmt.Errorf("component %q: a source has at most %d KiB", component, MaxSource>>10)
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	s := l.state()
	base, namespace := component, s.definition.Namespace
	if dir, last := path.Split(component); dir != "" {
		if base = last; strings.TrimSuffix(dir, "/") != namespace {
			return fmt.Errorf("component %q: the namespace of library %s is %q", component, l.name(), namespace)
		}
	}
	if err := checkBase(base); err != nil {
		return fmt.Errorf("component %q: %w", component, err)
	}
	full := base
	if namespace != "" {
		full = namespace + "/" + base
	}
	before, there := s.components[full]
	ending := endingOf(language)
	if there && before.File != "" && strings.EqualFold(before.Language, language) {
		_, ending = splitName(before.File)
	} else if there && before.File == "" {
		return fmt.Errorf("component %q: %w, but a command of its own", full, ErrNoSource)
	}
	if all := handlersOf(s.definition); all[ending] == "" {
		maps.DeleteFunc(all, func(_, command string) bool { return command == "" })
		return fmt.Errorf("component %q: nothing runs %q here: there are handlers for %s", full, language, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	if err := writeSource(s.folder, base+ending, code); err != nil {
		return fmt.Errorf("component %q: %w", full, err)
	}
	if there && filepath.Base(before.File) != base+ending {
		if err := removeSource(s.folder, filepath.Base(before.File)); err != nil {
			return fmt.Errorf("component %q: its old source: %w", full, err)
		}
	}
	next, err := l.build(s.definition, s.places)
	if err != nil {
		return l.named(err)
	}
	l.now.Store(next)
	return nil
}

// writeSource writes a file so that at no time there is half of it.
func writeSource(folder, file, code string) (err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	mode := fs.FileMode(0o644)
	switch info, err := root.Lstat(file); {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a folder", file)
	case err == nil && info.Mode().IsRegular():
		mode = info.Mode().Perm() // a script may be one that can be run
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// With a dot in front it is no component meanwhile, nor if we are killed.
	temp := "." + file + "." + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	_, err = io.WriteString(f, code)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return root.Rename(temp, file)
}

func removeSource(folder, file string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
