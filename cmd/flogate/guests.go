package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flogate/flogate/core/plugin"
	"github.com/flogate/flogate/core/transport"
)

// guests are drivers for as long as something is asked of them: what a site file means, what a plugin says of itself.
// flogate's own are asked in this process; those of a plugin folder are launched, and ended by close.
type guests struct {
	log  *slog.Logger
	host *plugin.Host // launched for the first that needs it
	stop func()
}

func newGuests(log *slog.Logger) *guests { return &guests{log: log, stop: func() {}} }

// close ends the processes that were launched. It blocks until they are gone.
func (g *guests) close() { g.stop() }

// executables returns what serves each transport, with a folder of plugins or without.
func executables(directory string) ([]plugin.Executable, error) {
	own, err := plugin.BuiltIns(builtinNames()...)
	if err != nil {
		return nil, err
	}
	return plugin.Find(directory, own)
}

// types returns the transports that there are. A folder that cannot be read has none.
func (g *guests) types(directory string) []string {
	found, err := executables(directory)
	if err != nil {
		return builtinNames()
	}
	var names []string
	for _, e := range found {
		names = append(names, e.Type)
	}
	return names
}

// driver returns the driver of a transport.
func (g *guests) driver(_ context.Context, directory, transportType string) (transport.Driver, error) {
	found, err := executables(directory)
	if err != nil {
		return nil, err
	}
	for _, e := range found {
		if e.Type == transportType {
			return g.open(e)
		}
	}
	return nil, usagef("there is no transport %q; there are %s", transportType, strings.Join(g.types(directory), ", "))
}

func (g *guests) open(e plugin.Executable) (transport.Driver, error) {
	switch {
	case e.Problem != nil:
		return nil, e.Problem
	case e.BuiltIn:
		return builtins()[e.Type](g.log), nil
	}
	if g.host == nil {
		if err := g.launch(); err != nil {
			return nil, err
		}
	}
	return g.host.Use(e, ""), nil
}

func (g *guests) launch() error {
	host, err := newGuestHost(g.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := host.Run(ctx); err != nil {
			g.log.Warn("plugins did not end cleanly", "error", err)
		}
	})
	g.host = host
	g.stop = func() {
		cancel()
		running.Wait()
	}
	return nil
}

// newGuestHost takes the first run folder of guests that is free. There are few of them and they have names, so that what
// a killed command has left is wiped by a later one.
func newGuestHost(log *slog.Logger) (*plugin.Host, error) {
	const most = 64 // commands at a time
	var failed error
	for n := range most {
		dir := filepath.Join(socketDir(), fmt.Sprintf("flogate-guest%d-%d", n, os.Getuid()))
		host, err := plugin.New(plugin.Config{RunDir: dir, Log: log})
		if err == nil {
			return host, nil
		}
		failed = cmp.Or(failed, err) // the first may be somebody else's, who shall not keep us from working
	}
	return nil, failed
}
