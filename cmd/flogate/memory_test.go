package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/discovery"
)

func TestFullDiskIsSaidOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "data", "participants.json")
	var lines strings.Builder
	m := &memory{
		path: path, registry: discovery.NewRegistry(discovery.Config{}), log: slog.New(slog.NewTextHandler(&lines, nil)),
	}
	said := func(times int) {
		t.Helper()
		for range 3 {
			m.save()
		}
		if n := strings.Count(lines.String(), "not noted"); n != times {
			t.Errorf("said %d times, not %d", n, times)
		}
	}
	fail := func(is bool) {
		t.Helper()
		err := os.RemoveAll(filepath.Dir(path))
		if err == nil && is {
			err = os.WriteFile(filepath.Dir(path), nil, 0o600) // no folder
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	said(0)
	fail(true)
	said(1)
	fail(false)
	said(1)
	fail(true)
	said(2)
}
