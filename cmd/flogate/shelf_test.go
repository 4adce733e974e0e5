package main

import (
	"log/slog"
	"testing"

	"github.com/flogate/flogate/core/config"
)

func TestLibraryThatIsReadAnewStartsNobodyAnew(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	spec := config.Library{Name: "demo", Dir: t.TempDir(), Start: true}
	open := func(before []*shelf) []*shelf {
		t.Helper()
		shelves, err := openShelves([]config.Library{spec}, before, log)
		if err != nil {
			t.Fatal(err)
		}
		return shelves
	}
	first := open(nil)
	first[0].editions["demo/Motor"] = 2
	if same := open(first); same[0] != first[0] {
		t.Error("a library that has not changed is another one")
	}
	spec.Ignore = []string{"somebody"}
	second := open(first)
	if second[0] == first[0] {
		t.Fatal("a library that has changed is the same")
	}
	if n := second[0].edition("demo/Motor"); n != 2 {
		t.Errorf("its component is of edition %d: whoever plays it is started anew", n)
	}
}
