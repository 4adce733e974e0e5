package main

import (
	"context"
	"log/slog"

	"github.com/flogate/flogate/core/config"
)

// siteSource is where a site comes from: a site file, or a command line. It is asked again each time that one of the files
// in the diagnostics has changed.
type siteSource struct {
	// name is how messages call it: the file, or "the command line".
	name string
	// load returns what loadSite returns.
	load func(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error)
}

// siteFile is a site that is in a file.
func siteFile(path string) siteSource {
	return siteSource{path, func(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
		return loadSite(ctx, path, log)
	}}
}
