// Package npm installs other people's programs of npm for tests, in the versions of a package-lock.json. Tests need node and
// npm, and fail without them.
package npm

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Install brings a folder's node_modules to what its package-lock.json says, unless it is that already. It is for one test
// at a time.
func Install(t testing.TB, folder string) {
	t.Helper()
	lock, err := os.Stat(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.Stat(filepath.Join(folder, "node_modules", ".package-lock.json"))
	if err == nil && installed.ModTime().After(lock.ModTime()) {
		return
	}
	Run(t, folder, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
}

// Run runs a program in a folder and returns what it has printed to its standard output. The test fails if the program does,
// or takes more than five minutes.
func Run(t testing.TB, folder string, in []byte, program string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = folder, bytes.NewReader(in), &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes()
}
