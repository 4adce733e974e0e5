package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Bounds on what is read, far above what anybody writes by hand: the parsers are recursive, and a file that was named by
// mistake shall not be read into memory whole.
const (
	maxSiteFile = 1 << 20
	maxFile     = 8 << 20
)

// folder reads files in the folder of a site file, and nowhere else: neither "..", nor an absolute path, nor a symbolic
// link leads out of it, unless it is told otherwise.
type folder struct {
	root *os.Root
	// dir is the folder's absolute path, shown is how it is called in messages.
	dir, shown string
	// anywhere lets it read files wherever they are.
	anywhere bool
	// read gets the absolute path of each file that is asked for.
	read func(path string)
}

func (f *folder) file(name string, limit int64) ([]byte, error) {
	if name == "" {
		return nil, errors.New("the name of the file is empty")
	}
	f.read(f.abs(name))
	if f.anywhere {
		return readFile(disk{}, name, limit)
	}
	if f.root == nil {
		return nil, errors.New("there is no folder to read from")
	}
	if _, err := f.root.Stat(name); err != nil && !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is outside of the folder of the site file, and only files in it are read", name)
	}
	return readFile(f.root, name, limit)
}

// abs returns the absolute path of a file.
func (f *folder) abs(name string) string { return absolute(f.dir, name) }

// called returns how a file is called in messages.
func (f *folder) called(name string) string { return absolute(f.shown, name) }

// absolute returns a path that may be relative to a folder.
func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// tree is where files are: an *os.Root, or disk.
type tree interface {
	Stat(name string) (fs.FileInfo, error)
	Open(name string) (*os.File, error)
}

// disk is every file there is.
type disk struct{}

func (disk) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }
func (disk) Open(name string) (*os.File, error)    { return os.Open(name) }

func readFile(root tree, name string, limit int64) ([]byte, error) {
	// Asked before opening: a named pipe would hold us until somebody writes to it.
	info, err := root.Stat(name)
	if err != nil {
		return nil, explain(err, name)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%q is a folder", name)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", name)
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, explain(err, name)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, explain(err, name)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%q is larger than %d KiB", name, limit>>10)
	}
	return data, nil
}

// explain says it without the name of a system call.
func explain(err error, name string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %q", name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to read %q", name)
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return fmt.Errorf("%q cannot be read: %w", name, err)
}
