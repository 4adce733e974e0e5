package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/library"
)

// shelf is a component library of the site while it is in use.
type shelf struct {
	spec config.Library
	lib  *library.Library
	log  *slog.Logger

	mu       sync.Mutex
	editions map[string]int // how often each component has changed
	foreign  map[string]foreign
}

// foreign is what was read of a foreign component for a role.
type foreign struct {
	config.Participant
	edition int // of the component
}

// openShelves reads the libraries of a site. Those that are open and have not changed are kept.
func openShelves(specs []config.Library, open []*shelf, log *slog.Logger) ([]*shelf, error) {
	var shelves []*shelf
	for _, spec := range specs {
		if i := slices.IndexFunc(open, func(s *shelf) bool { return s.spec.Equal(spec) }); i >= 0 {
			shelves = append(shelves, open[i])
			continue
		}
		lib, err := openLibrary(spec)
		if err != nil {
			return nil, fmt.Errorf("library %s: %w", spec.Name, err)
		}
		s := &shelf{
			spec: spec, lib: lib, log: log.With("library", spec.Name),
			editions: make(map[string]int), foreign: make(map[string]foreign),
		}
		for _, before := range open {
			if before.spec.Name == spec.Name {
				s.editions = before.copyEditions() // whoever plays a component that is the same goes on
			}
		}
		for _, err := range lib.Ignored() {
			s.log.Warn("not a component", "error", err)
		}
		shelves = append(shelves, s)
	}
	return shelves, nil
}

func openLibrary(spec config.Library) (*library.Library, error) {
	if spec.File != "" {
		return library.Load(spec.File, spec.ComponentDir)
	}
	d := library.Definition{
		Dir: spec.Dir, Namespace: spec.Namespace, Repository: spec.Repository, ComponentDir: spec.ComponentDir,
		Variables: spec.Variables, Handlers: spec.Handlers, Components: make(map[string]library.Configured),
	}
	for name, c := range spec.Components {
		d.Components[name] = library.Configured(c)
	}
	return library.New(d)
}

// watch keeps the library as its files are, until ctx ends, and calls changed when it is another.
func (s *shelf) watch(ctx context.Context, changed func()) error {
	err := s.lib.Watch(ctx, func(names []string, err error) {
		if err != nil {
			s.log.Error("library not taken over, the old one stays in force", "error", err)
		}
		if len(names) == 0 {
			return
		}
		s.log.Info("components changed", "components", names)
		s.mu.Lock()
		for _, name := range names {
			s.editions[name]++
		}
		s.mu.Unlock()
		changed()
	})
	if err != nil {
		// Carrying messages does not need it.
		s.log.Warn("changes of the library are not noticed by themselves", "error", err)
	}
	return nil
}

// edition changes when a component does: whoever plays it has to be started anew.
func (s *shelf) edition(component string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.editions[component]
}

func (s *shelf) copyEditions() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.editions)
}

// has returns a component that this library knows how to bring about for a role.
func (s *shelf) has(component, role string) (library.Component, bool) {
	c, ok := s.lib.Component(component)
	return c, ok && (c.Foreign || s.spec.Start && c.Command != "" && !slices.Contains(s.spec.Ignore, role))
}

// announced returns the participant that the file of a foreign component describes. A file that is not valid any more changes
// nothing, and is said.
func (s *shelf) announced(c library.Component, role string) (config.Participant, error) {
	key := role + "\x00" + c.Name
	s.mu.Lock()
	defer s.mu.Unlock()
	known, is := s.foreign[key]
	if is && known.edition == s.editions[c.Name] {
		return known.Participant, nil
	}
	p, err := s.read(c, role)
	switch {
	case err != nil && !is:
		return config.Participant{}, err
	case err != nil:
		s.log.Error("participant not taken over, the old one stays in force", "role", role, "error", err)
		p = known.Participant
	}
	s.foreign[key] = foreign{p, s.editions[c.Name]}
	return p, nil
}

func (s *shelf) read(c library.Component, role string) (config.Participant, error) {
	path := c.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.lib.Dir(), path)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return config.Participant{}, err
	}
	p, diags := config.ParseParticipant(c.File, src, role)
	for _, d := range diags.List {
		if d.Severity == config.Error {
			return config.Participant{}, fmt.Errorf("%s:%d:%d: %s", c.File, d.Where.Start.Line, d.Where.Start.Column, cmp.Or(d.Detail, d.Summary))
		}
	}
	p.Component, p.Broker = cmp.Or(c.Name, p.Component), s.spec.Broker
	return p, nil
}

// usable says what is wrong with a library, with the commands of its components too.
func usable(spec config.Library) error {
	lib, err := openLibrary(spec)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range lib.Components() {
		if c.Command == "" {
			continue
		}
		if _, err := lib.Command(c.Name, "role", nil); err != nil {
			errs = append(errs, fmt.Errorf("component %s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}
