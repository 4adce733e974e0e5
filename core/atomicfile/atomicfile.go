// Package atomicfile replaces files as a whole. It is for what a program keeps for its own next run, and not for files of
// people, whose links and owners have to be kept.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write gives the file at path the content data, and makes its folder if there is none; both are readable for the user only.
// Whoever is killed meanwhile leaves the old file or the new one, and perhaps one beside it that nobody reads. It blocks until
// the content is on the disk.
func Write(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
