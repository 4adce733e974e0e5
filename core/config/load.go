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
//	site, diags := config.Load(ctx, "site.hcl", config.Options{Driver: drivers})
//	if err := diags.Write(os.Stderr, false); err != nil { … }
//	if diags.HasErrors() { … }
//
// [Assemble] does the same for a command line in place of a file. Who is in a site announces itself, is in the site file, or
// in a component library; [Site.Input] is what the site knows of a plan.
//
// This package is the only one that knows HCL; what it hands out is plain Go.
package config

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

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
	// Library says what is wrong with a component library: its file, its templates. It may be nil. Errors that are joined are
	// said one by one.
	Library func(l Library) error
	// LookupEnv is os.LookupEnv if nil.
	LookupEnv func(name string) (string, bool)
}

// Load reads a site file and the files that it names. It returns no Site when there are errors among the Diagnostics,
// which are never nil. It blocks for as long as reading files and asking drivers takes; ctx bounds the latter. Loads may
// run concurrently.
func Load(ctx context.Context, path string, opts Options) (*Site, *Diagnostics) {
	l := newLoader(opts)
	l.site.File = path
	src, err := l.open(path)
	if l.folder.root != nil {
		defer func() { _ = l.folder.root.Close() }()
	}
	if err != nil {
		l.diags.add(Error, hcl.Range{Filename: path}, "Cannot read the site file", "%s", sentence(err.Error()))
		return nil, l.diags
	}
	return l.load(ctx, path, src)
}

// loader is one load.
type loader struct {
	opts   Options
	site   *Site
	diags  *Diagnostics
	folder folder
	eval   *hcl.EvalContext
	// shown are texts that the author of the file has declared to be no secrets.
	shown map[string]bool
	// file is the name of the site file in ranges.
	file string
	// sheet is the site file, where the user has none. See Assemble.
	sheet *sheet

	drivers map[string]*driver
	brokers map[string]*brokerAt
	// What was declared, with where, in the order of site.Brokers, site.Participants and so on.
	brokerOrder  []*brokerAt
	participants []*participantAt
	graphs       []*graphAt
	edges        []*edgeAt
	listeners    []listenerAt
	// brokenGraph: there are more graphs than could be read.
	brokenGraph bool
}

// driver is a transport as far as it could be asked.
type driver struct {
	driver      transport.Driver
	description transport.Description
}

func newLoader(opts Options) *loader {
	l := &loader{
		opts:    opts,
		site:    &Site{Drain: DefaultDrain},
		diags:   newDiagnostics(),
		shown:   map[string]bool{},
		drivers: map[string]*driver{},
		brokers: map[string]*brokerAt{},
	}
	l.folder.read = func(path string) {
		if !slices.Contains(l.diags.Files, path) {
			l.diags.Files = append(l.diags.Files, path)
		}
	}
	l.eval = &hcl.EvalContext{Functions: l.functions()}
	return l
}

func (l *loader) lookupEnv(name string) (string, bool) {
	if l.opts.LookupEnv != nil {
		return l.opts.LookupEnv(name)
	}
	return os.LookupEnv(name)
}

// open opens the folder of the site file and reads the site file. The site file itself may be a symbolic link to
// anywhere: it is the one that the user has named.
func (l *loader) open(path string) ([]byte, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	l.site.Dir = filepath.Dir(abs)
	l.folder.dir, l.folder.shown = l.site.Dir, filepath.Dir(path)
	l.folder.read(abs)
	info, err := os.Stat(path)
	if err != nil {
		return nil, explain(err, path)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", path)
	}
	if info.Size() > maxSiteFile {
		return nil, fmt.Errorf("%q is larger than %d KiB", path, maxSiteFile>>10)
	}
	if l.folder.root, err = os.OpenRoot(l.site.Dir); err != nil {
		return nil, explain(err, l.folder.shown)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, explain(err, path)
	}
	return src, nil
}

// load decodes a site file. The order is that of need: the plugin folder before the drivers, the brokers before what
// stands on them, the graphs before what is said about their edges.
func (l *loader) load(ctx context.Context, name string, src []byte) (*Site, *Diagnostics) {
	defer func() {
		l.diags.words = slices.DeleteFunc(l.diags.words, func(w string) bool { return l.shown[w] })
		l.diags.finish()
	}()
	l.file = name
	l.diags.source(name, src)
	if deep := nesting(src, name); deep != nil {
		l.diags.add(Error, *deep, "Too deeply nested", "Nothing in a site file needs more than %d levels.", maxNesting)
		return nil, l.diags
	}
	file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		// What follows a syntax error is guesswork, and would bury it. One quote that is missing is reported again for every
		// line after it: the same words are said once.
		said := map[string]bool{}
		l.diags.addHCL(slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool {
			again := said[d.Summary+d.Detail]
			said[d.Summary+d.Detail] = true
			return again
		}))
		return nil, l.diags
	}
	l.diags.addHCL(diags)
	content, diags := file.Body.Content(outline())
	l.diags.addHCL(diags)
	blocks := content.Blocks.ByType()

	l.site.Name = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	l.site.DataDir = filepath.Join(l.site.Dir, "data")
	l.decodeSite(blocks["site"])
	l.decodeListen(blocks["listen"])
	l.decodePlugins(blocks["plugins"])
	l.decodeEmbedded(blocks["embedded"])
	l.decodeBrokers(ctx, blocks["broker"])
	l.decodeLibraries(blocks["library"])
	l.decodeGraphs(blocks["graph"])
	l.decodeParticipants(blocks["participant"])
	l.decodeEdges(blocks["edge"])
	l.checkListeners()
	l.checkEdges()
	l.checkPorts()
	l.validate(ctx)
	l.checkRequirements()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	for _, b := range l.brokerOrder {
		l.site.Brokers = append(l.site.Brokers, b.Broker)
		l.site.Discovery = append(l.site.Discovery, b.discovery)
	}
	for _, g := range l.graphs {
		l.site.Graphs = append(l.site.Graphs, g.Graph)
	}
	for _, p := range l.participants {
		l.site.Participants = append(l.site.Participants, p.participant())
	}
	for _, e := range l.edges {
		l.site.Edges = append(l.site.Edges, e.Edge)
	}
	l.checkPlan()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	return l.site, l.diags
}

// options returns the schema of the options of ports.
func (d *driver) options(out bool) transport.Schema {
	if out {
		return d.description.Source
	}
	return d.description.Sink
}

// driver returns the driver of a transport, or nil after having said why there is none.
func (l *loader) driver(ctx context.Context, transportType string, where hcl.Range) *driver {
	if d, ok := l.drivers[transportType]; ok {
		return d
	}
	// Remembered also if it fails, so that it is said once.
	l.drivers[transportType] = nil
	var known []string
	if l.opts.Transports != nil {
		known = l.opts.Transports(l.site.Plugins.Directory)
	}
	if l.opts.Driver == nil || (known != nil && !slices.Contains(known, transportType)) {
		detail := fmt.Sprintf("There is no transport %q.%s", transportType, didYouMean(transportType, known))
		if len(known) > 0 {
			detail += fmt.Sprintf(" There are %s.", strings.Join(slices.Sorted(slices.Values(known)), ", "))
		}
		l.diags.add(Error, where, "Unknown transport", "%s", detail)
		return nil
	}
	drv, err := l.opts.Driver(ctx, l.site.Plugins.Directory, transportType)
	if err != nil {
		l.diags.add(Error, where, "Transport not usable", "The transport %q cannot be used: %s", transportType, ended(err.Error()))
		return nil
	}
	description, err := drv.Describe(ctx)
	if err != nil {
		l.diags.add(Error, where, "Transport not usable", "The transport %q does not describe itself: %s", transportType, ended(err.Error()))
		return nil
	}
	d := &driver{drv, description}
	l.drivers[transportType] = d
	return d
}

// Bounds on the depth of brackets and of operators in a row, and on conditionals, which nest without brackets: HCL's
// parser is recursive, and a stack that is used up ends the process.
const (
	maxNesting      = 200
	maxConditionals = 5000
)

// nesting returns where a file is too deep for the parser, or nil.
func nesting(src []byte, name string) *hcl.Range {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, operators, conditionals := 0, 0, 0
	for _, t := range tokens {
		operators++
		switch t.Type {
		case hclsyntax.TokenMinus, hclsyntax.TokenBang:
		default:
			operators = 0
		}
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth--
		case hclsyntax.TokenQuestion:
			conditionals++
		}
		if depth > maxNesting || operators > maxNesting || conditionals > maxConditionals {
			return &t.Range
		}
	}
	return nil
}

// names returns the sorted keys of a map.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
