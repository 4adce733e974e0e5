package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/flogate/flogate/core/plugin"
)

// shortDir is a folder in which sockets can be.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// guestHost is a host of guests that ends with the test.
func guestHost(t *testing.T) *plugin.Host {
	t.Helper()
	host, err := newGuestHost(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, end := context.WithCancel(context.Background())
		end()
		if err := host.Run(ended); err != nil {
			t.Error(err)
		}
	})
	return host
}

func TestWhatAKilledCommandHasLeftIsWipedByTheNext(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Run("command", func(t *testing.T) { guestHost(t) })
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Fatalf("left by a command that has ended: %v, %v", left, err)
	}

	name := filepath.Join(dir, "flogate-guest0-"+strconv.Itoa(os.Getuid()))
	left := filepath.Join(name, "plugin-dir1")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	guestHost(t)
	if _, err := os.Stat(left); err == nil {
		t.Error("sockets of a killed command are still there")
	}
	guestHost(t) // beside the other
	if dirs, err := os.ReadDir(dir); err != nil || len(dirs) != 2 {
		t.Errorf("two commands have the folders %v, %v", dirs, err)
	}
}

func TestFolderOfSomebodyElseDoesNotStopACommand(t *testing.T) {
	dir := shortDir(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	precious := filepath.Join(dir, "flogate-guest0-"+strconv.Itoa(os.Getuid()), "precious")
	if err := os.MkdirAll(precious, 0o700); err != nil {
		t.Fatal(err)
	}
	guestHost(t)
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestFolderForSocketsIsTheUsersOwnWhereverItIs(t *testing.T) {
	short, long := shortDir(t), "/tmp/"+strings.Repeat("x", 60)
	for _, c := range []struct{ runtime, temp, want string }{
		{short, "", short},
		{"", short, short},
		{long, short, short},
		{long, long, "/tmp"},
		{"", "", "/tmp"},
	} {
		t.Setenv("XDG_RUNTIME_DIR", c.runtime)
		t.Setenv("TMPDIR", c.temp)
		got := runDir(site("/data"))
		if filepath.Dir(got) != c.want || !strings.HasSuffix(got, "-"+strconv.Itoa(os.Getuid())) {
			t.Errorf("XDG_RUNTIME_DIR=%s TMPDIR=%s: %s", c.runtime, c.temp, got)
		}
		if runDir(site("/other")) == got {
			t.Errorf("two sites have %s", got)
		}
	}
}
