package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// InUseError says that another broker has the data folder. Two would both
// accept messages and lose half of them: the server itself has no lock.
type InUseError struct {
	Dir string
	PID int // of the holder; 0 if unknown
}

// Error names the folder and its holder.
func (e *InUseError) Error() string {
	by := "another process"
	if e.PID != 0 {
		by = processName(e.PID)
	}
	return fmt.Sprintf("embedded broker: data folder %s is in use by %s", e.Dir, by)
}

// lock makes the folder ours until unlock. The kernel lets go of it when the
// process ends, however it ends; the file stays, with the last holder's id.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	unlock = func() { _ = f.Close() }
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer unlock()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("embedded broker: lock %s: %w", f.Name(), err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, 20)) // empty names nobody
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &InUseError{Dir: dir, PID: pid}
	}
	if err := writePID(f); err != nil {
		unlock()
		return nil, fmt.Errorf("embedded broker: %w", err)
	}
	return unlock, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}
