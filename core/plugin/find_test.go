package plugin_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/plugin"
)

func file(t *testing.T, dir, name string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// find returns what Find finds for one type.
func find(t *testing.T, dir, transportType string, builtIns ...plugin.Executable) plugin.Executable {
	t.Helper()
	all, err := plugin.Find(dir, builtIns)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Type == transportType {
			return e
		}
	}
	t.Fatalf("no %s among %v", transportType, all)
	return plugin.Executable{}
}

func TestFileWinsOverBuiltIn(t *testing.T) {
	dir := t.TempDir()
	path := file(t, dir, "flogate-transport-mqtt", 0o755)
	file(t, dir, "README", 0o644)
	builtIns, err := plugin.BuiltIns("mqtt", "amqp")
	if err != nil {
		t.Fatal(err)
	}
	all, err := plugin.Find(dir, builtIns)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Type != "amqp" || !all[0].BuiltIn || all[1].Path != path || all[1].BuiltIn || all[1].Problem != nil {
		t.Errorf("found %+v", all)
	}
}

func TestExecutableTellsAFileFromItsReplacement(t *testing.T) {
	dir := t.TempDir()
	path := file(t, dir, "flogate-transport-mqtt", 0o755)
	before := find(t, dir, "mqtt")
	if again := find(t, dir, "mqtt"); again.Size != before.Size || !again.Modified.Equal(before.Modified) {
		t.Errorf("the same file is %+v and %+v", before, again)
	}
	if err := os.Chtimes(path, time.Time{}, before.Modified.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if after := find(t, dir, "mqtt"); after.Modified.Equal(before.Modified) {
		t.Errorf("a newer file is %+v as well", after)
	}
	builtIns, err := plugin.BuiltIns("mqtt")
	if err != nil {
		t.Fatal(err)
	}
	if b := builtIns[0]; b.Size != 0 || !b.Modified.IsZero() {
		t.Errorf("a built-in is told by its file: %+v", b)
	}
}

func TestNoFolderIsAnEmptyOne(t *testing.T) {
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "none")} {
		if all, err := plugin.Find(dir, nil); err != nil || len(all) != 0 {
			t.Errorf("%q: %v, %v", dir, all, err)
		}
	}
}

func TestWritableByOthersRefused(t *testing.T) {
	for _, c := range []struct {
		name      string
		file, dir os.FileMode
		want      string
	}{
		{"file by all", 0o757, 0o755, "written by others"},
		{"file by the group", 0o775, 0o755, "written by others"},
		{"folder by all", 0o755, 0o777, "written by others"},
		{"folder by the group", 0o755, 0o775, "written by others"},
		{"not executable", 0o644, 0o755, "chmod +x"},
		{"all is well", 0o755, 0o755, ""},
		{"set-user-id is no harm", 0o755 | os.ModeSetuid, 0o755, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := file(t, dir, "flogate-transport-x", c.file)
			if err := os.Chmod(dir, c.dir); err != nil {
				t.Fatal(err)
			}
			err := find(t, dir, "x", plugin.Executable{Type: "x", BuiltIn: true}).Problem
			switch {
			case c.want == "" && err != nil:
				t.Errorf("problem: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), filepath.Dir(path))):
				t.Errorf("problem: %v; want one that says %q", err, c.want)
			}
		})
	}
}

func TestProblemIsFailedAtOnce(t *testing.T) {
	dir := t.TempDir()
	file(t, dir, "flogate-transport-x", 0o777)
	b := newBed(t)
	p := b.Use(find(t, dir, "x"), "")
	defer p.Release()
	eventually(t, "failed", func() bool { return p.State().Phase == plugin.Failed })
	if s := p.State(); s.Restarts != 0 || !strings.Contains(s.Reason, "written by others") {
		t.Errorf("state is %+v", s)
	}
}

func TestFileThatBecomesWritableIsNotLaunched(t *testing.T) {
	dir := t.TempDir()
	path := file(t, dir, "flogate-transport-x", 0o755)
	e := find(t, dir, "x")
	if e.Problem != nil {
		t.Fatal(e.Problem)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	b := newBed(t)
	p := b.Use(e, "")
	defer p.Release()
	eventually(t, "failed", func() bool { return p.State().Phase == plugin.Failed })
	if s := p.State(); !strings.Contains(s.Reason, "written by others") {
		t.Errorf("state is %+v", s)
	}
}

func TestOddFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "flogate-transport-folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "flogate-transport-pipe"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "flogate-transport-broken")); err != nil {
		t.Fatal(err)
	}
	file(t, dir, "flogate-transport-UPPER", 0o755)
	elsewhere := t.TempDir()
	if err := os.Chmod(elsewhere, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file(t, elsewhere, "target", 0o755), filepath.Join(dir, "flogate-transport-link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"folder", "pipe", "broken", "UPPER", "link"} {
		if e := find(t, dir, name); e.Problem == nil {
			t.Errorf("%s has no problem", name)
		}
	}
}

func TestOwnerOtherThanUserAndRootIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	path := file(t, dir, "flogate-transport-x", 0o755)
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if err := find(t, dir, "x").Problem; err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("problem: %v", err)
	}
}
