package plugin

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Prefix is what the names of plugin files begin with; the transport's name follows.
const Prefix = "flogate-transport-"

// Executable is a program that serves one transport.
type Executable struct {
	// Type is the transport's name: mqtt.
	Type string
	// Path is the file; Args follow the program's name.
	Path string
	Args []string
	// BuiltIn: the file is this program itself.
	BuiltIn bool
	// Size in bytes and Modified tell the file in a plugin folder from another that has taken its place. A built-in has
	// neither: this program's own file goes on being the one that runs, whatever is put in its place.
	Size     int64
	Modified time.Time
	// Problem says why it must not be launched; nil if it may.
	Problem error
}

// BuiltIns returns the transports that this program serves itself, as "<program> plugin <type>".
func BuiltIns(types ...string) ([]Executable, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	var all []Executable
	for _, t := range types {
		all = append(all, Executable{Type: t, Path: path, Args: []string{"plugin", t}, BuiltIn: true})
	}
	return all, nil
}

// Find returns the built-ins and the executables in a folder, sorted by type. A file in the folder wins over a built-in of
// the same type, also when it has a Problem: what somebody has replaced is not used behind their back. A folder that does
// not exist, or "", is an empty one.
func Find(dir string, builtIns []Executable) ([]Executable, error) {
	found := map[string]Executable{}
	for _, e := range builtIns {
		found[e.Type] = e
	}
	if dir != "" {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the plugin folder: %w", err)
		}
		for _, entry := range entries {
			t, ok := strings.CutPrefix(entry.Name(), Prefix)
			if !ok {
				continue
			}
			path, err := filepath.Abs(filepath.Join(dir, entry.Name()))
			if err != nil {
				return nil, fmt.Errorf("find the plugin folder: %w", err)
			}
			e := Executable{Type: t, Path: path, Problem: verify(path, t)}
			if info, err := os.Stat(path); err == nil { // else it has a Problem
				e.Size, e.Modified = info.Size(), info.ModTime()
			}
			found[t] = e
		}
	}
	all := make([]Executable, 0, len(found))
	for _, e := range found {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Executable) int { return cmp.Compare(a.Type, b.Type) })
	return all, nil
}

// verify returns why a file in a plugin folder must not be launched. Whoever may write to it, or put another in its place,
// can do everything that this program can.
func verify(path, transportType string) error {
	if !regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`).MatchString(transportType) {
		return fmt.Errorf("%s: %q is no name of a transport: want lower-case letters, digits, - and _", path, transportType)
	}
	// A link is as good as what it leads to, and who may write where it leads.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, folder := range []string{filepath.Dir(path), filepath.Dir(real)} {
		info, err := os.Stat(folder)
		if err != nil {
			return err
		}
		if err := trusted(folder, info); err != nil {
			return err
		}
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not executable: chmod +x it", path)
	}
	return trusted(path, info)
}

// trusted returns an error if somebody other than this user and root could have written to a file or a folder.
func trusted(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by others (%s): chmod go-w it", path, info.Mode())
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the owner cannot be found out", path)
	}
	if uid := os.Geteuid(); owner.Uid != 0 && int64(owner.Uid) != int64(uid) {
		return fmt.Errorf("%s belongs to user %d: it has to belong to user %d, as whom flogate runs, or to root", path, owner.Uid, uid)
	}
	return nil
}
