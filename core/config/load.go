// Package config turns a site file into a [Site].
//
// A site file is HCL. The gateway knows the outline (brokers, graphs, participants, edges); what stands inside a broker
// block, and the options of a port, belong to the transport, which sends a schema for it. Both are decoded here, so that
// a misspelt setting of a plugin is reported like one of ours, with file, line, column and a guess at what was meant.
//
// Loading does no I/O but reading files in the folder of the site file. It finds everything that is wrong at once, and
// gives no Site as long as anything is. No value that env() or file() returned, and no attribute that a schema calls
// secret, is ever in a diagnostic or in the printed form of a Site.
//
// This package is the only one that knows HCL; what it hands out is plain Go.
package config

import (
	"context"

	"github.com/flogate/flogate/core/transport"
)

// Options are what loading needs of the outside.
type Options struct {
	// Driver returns the driver of a transport, to ask it for its description and to validate what it shall get. It is
	// called once per type in a load. directory is the site's plugin folder, absolute, or empty. The driver is not used
	// after Load has returned; ending a process that it runs in is up to the caller.
	Driver func(ctx context.Context, directory, transportType string) (transport.Driver, error)
	// Transports returns the types that Driver knows, to guess what was meant by another one. It may be nil.
	Transports func(directory string) []string
	// LookupEnv is os.LookupEnv if nil.
	LookupEnv func(name string) (string, bool)
}

// Load reads a site file and the files that it names. It returns no Site when there are errors among the Diagnostics,
// which are never nil. It blocks for as long as reading files and asking drivers takes; ctx bounds the latter.
func Load(ctx context.Context, path string, opts Options) (*Site, *Diagnostics) {
	return nil, &Diagnostics{}
}
