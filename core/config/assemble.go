package config

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/flogate/flogate/core/transport"
)

// Assembly is what a command line says in place of a site file. Paths are relative to the working directory, and lead
// anywhere: the user has named them. Each field is called by the flag that fills it when it is wrong.
type Assembly struct {
	// Name is the site's name, --name. Without one it is called like its first graph.
	Name string
	// Graphs are files, --graph. The first one is the main graph.
	Graphs []string
	// Brokers are URLs, --broker. What serves one is the transport with the URL's scheme. There has to be one; what the
	// Library and the Participants are told to use is the first.
	Brokers []string
	// Library is a package.json, another JSON file, or a folder, --library. Empty with a ComponentDir is the working directory;
	// without one there is no library.
	Library string
	// ComponentDir is the component folder, --componentdir, relative to that of the Library.
	ComponentDir string
	// Ignore are roles that are not started, --ignore.
	Ignore []string
	// Env is added to the environment of what is started, --env.
	Env map[string]string
	// Participants are files of foreign participants by their roles, --role.
	Participants map[string]string
	// FBP and Admin are addresses to listen on, --port (with --host) and --admin.
	FBP, Admin string
	// Plugins is the plugin folder, --plugins.
	Plugins string
	// StrictTypes refuses edges whose ends do not go together by their types.
	StrictTypes bool
}

// commandLine is what stands in ranges for the name of the site file. No diagnostic is given with it.
const commandLine = "command line"

// Assemble makes the Site that a site file would give that says the same. What is wrong is reported as Load does it, with
// the flag for the place. Like Load, it blocks for as long as reading files and asking drivers takes; ctx bounds the
// latter. It may be called concurrently.
func Assemble(ctx context.Context, a Assembly, opts Options) (*Site, *Diagnostics) {
	l := newLoader(opts)
	l.file = commandLine
	l.folder.anywhere, l.folder.shown = true, "."
	dir, err := filepath.Abs(".")
	if err != nil {
		l.diags.add(Error, hcl.Range{}, "No working directory", "%s", sentence(err.Error()))
		return nil, l.diags
	}
	l.site.Dir, l.folder.dir = dir, dir
	l.sheet = &sheet{}
	l.write(ctx, a)
	site, diags := l.load(ctx, commandLine, []byte(l.sheet.text.String()))
	diags.unname(commandLine, l.sheet)
	return site, diags
}

// sheet is a site file that nobody sees: one way to say a thing is understood, and another one would differ some day.
type sheet struct {
	text strings.Builder
	// flags say for each line of the text what on the command line it came from.
	flags []string
}

// line writes a line. What the user has said comes as arguments, which are quoted: nothing in them is an expression.
func (s *sheet) line(flag, format string, args ...any) {
	for i, arg := range args {
		if value, ok := arg.(cty.Value); ok {
			args[i] = hclwrite.TokensForValue(value).Bytes()
		}
	}
	fmt.Fprintf(&s.text, format+"\n", args...)
	s.flags = append(s.flags, flag)
}

// flag is what a line came from.
func (s *sheet) flag(line int) string { return s.flags[min(max(line, 1), len(s.flags))-1] }

// here is where the next line will be.
func (s *sheet) here() hcl.Range {
	r := point(commandLine, len(s.flags)+1, 1)
	r.End = r.Start
	return r
}

// said is a flag with its value, as it is shown.
func said(flag, value string) string {
	if value == "" {
		return flag
	}
	return flag + " " + value
}

// tuple returns a list of texts.
func tuple(list []string) cty.Value {
	if len(list) == 0 {
		return cty.EmptyTupleVal
	}
	values := make([]cty.Value, len(list))
	for i, text := range list {
		values[i] = cty.StringVal(text)
	}
	return cty.TupleVal(values)
}

// write writes the sheet. What cannot be written is reported.
func (l *loader) write(ctx context.Context, a Assembly) {
	s := l.sheet
	s.line(said("--name", a.Name), "site %s {", cty.StringVal(cmp.Or(a.Name, nameOf(a.Graphs))))
	if a.StrictTypes {
		s.line("--types", "  types = %s", cty.StringVal(typesStrict))
	}
	s.line("", "}")
	s.line("", "listen {")
	if a.FBP != "" {
		s.line(said("--port", a.FBP), "  fbp = %s", cty.StringVal(a.FBP))
	}
	if a.Admin != "" {
		s.line(said("--admin", a.Admin), "  admin = %s", cty.StringVal(a.Admin))
	}
	s.line("", "}")
	if a.Plugins != "" {
		flag := said("--plugins", a.Plugins)
		s.line(flag, "plugins {")
		s.line(flag, "  directory = %s", cty.StringVal(a.Plugins))
		s.line(flag, "}")
	}
	first := l.writeBrokers(ctx, a)
	for i, path := range a.Graphs {
		flag := said("--graph", path)
		s.line(flag, "graph %s {", cty.StringVal(graphName(a.Graphs[:i], path)))
		s.line(flag, "  file = %s", cty.StringVal(path))
		s.line(flag, "}")
	}
	if first == "" {
		return // Nothing else can be without a broker, and that has been said.
	}
	if a.Library != "" || a.ComponentDir != "" {
		l.writeLibrary(a, first)
	}
	for _, role := range names(a.Participants) {
		flag := said("--role", role+":"+a.Participants[role])
		s.line(flag, "participant %s {", cty.StringVal(role))
		s.line(flag, "  broker = broker.%s", first)
		s.line(flag, "  file = %s", cty.StringVal(a.Participants[role]))
		s.line(flag, "}")
	}
}

func (l *loader) writeLibrary(a Assembly, broker string) {
	s := l.sheet
	flag := said("--library", a.Library)
	if a.Library == "" {
		flag = said("--componentdir", a.ComponentDir)
	}
	s.line(flag, "library %s {", cty.StringVal("library"))
	s.line(flag, "  broker = broker.%s", broker)
	s.line(flag, "  file = %s", cty.StringVal(cmp.Or(a.Library, ".")))
	if a.ComponentDir != "" {
		s.line(said("--componentdir", a.ComponentDir), "  componentdir = %s", cty.StringVal(a.ComponentDir))
	}
	s.line(said("--ignore", strings.Join(a.Ignore, ",")), "  ignore = %s", tuple(a.Ignore))
	s.line("--env", "  env = {")
	for _, key := range names(a.Env) {
		s.line(said("--env", key), "    (%s) = %s", cty.StringVal(key), cty.StringVal(a.Env[key]))
	}
	s.line("--env", "  }")
	s.line(flag, "}")
}

// writeBrokers writes the broker blocks, and returns how the first broker is referred to; nothing if there is none, or any
// of them is wrong.
func (l *loader) writeBrokers(ctx context.Context, a Assembly) (first string) {
	s := l.sheet
	if len(a.Brokers) == 0 {
		l.diags.add(Error, s.here(), "Missing broker", `Say which broker to use, by its URL, as in --broker mqtt://127.0.0.1:1883.`)
		s.line("--broker", "")
		return ""
	}
	plugins := a.Plugins
	if plugins != "" {
		plugins = l.folder.abs(plugins)
	}
	count := map[string]int{}
	wrong := false
	for i, address := range a.Brokers {
		flag := said("--broker", shownURL(address))
		if slices.Contains(a.Brokers[:i], address) {
			continue // One broker, however often it is named.
		}
		kind := l.transportFor(ctx, plugins, address)
		if kind == "" {
			wrong = true
			s.line(flag, "")
			continue
		}
		count[kind]++
		name := "broker"
		if n := count[kind]; n > 1 {
			name = fmt.Sprintf("broker%d", n)
		}
		s.line(flag, "broker %s %s {", cty.StringVal(kind), cty.StringVal(name))
		s.line(flag, "  url = %s", cty.StringVal(address))
		s.line(flag, "}")
		if first == "" {
			first = kind + "." + name
		}
	}
	if wrong {
		return ""
	}
	return first
}

// transportFor returns the transport that serves the scheme of a URL; nothing after having said that there is none.
func (l *loader) transportFor(ctx context.Context, plugins, address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" || u.Host == "" {
		l.diags.add(Error, l.sheet.here(), "Wrong address", "A broker is named by its URL, like mqtt://127.0.0.1:1883.")
		return ""
	}
	if l.opts.Transports == nil || l.opts.Driver == nil {
		l.diags.add(Error, l.sheet.here(), "Unknown transport", "There are no transports.")
		return ""
	}
	types := slices.Sorted(slices.Values(l.opts.Transports(plugins)))
	// A plugin may be a process to launch: the one that is called like the scheme is asked first.
	slices.SortStableFunc(types, func(s, t string) int {
		return cmp.Compare(editDistance(s, u.Scheme), editDistance(t, u.Scheme))
	})
	var known []string
	var silent strings.Builder
	for _, kind := range types {
		d := l.drivers[kind]
		if d == nil {
			drv, err := l.opts.Driver(ctx, plugins, kind)
			var description transport.Description
			if err == nil {
				description, err = drv.Describe(ctx)
			}
			if err != nil {
				fmt.Fprintf(&silent, " The transport %q cannot be used: %s", kind, ended(err.Error()))
				continue
			}
			d = &driver{drv, description}
			l.drivers[kind] = d
		}
		if slices.Contains(d.description.Schemes, u.Scheme) {
			return kind
		}
		known = append(known, d.description.Schemes...)
	}
	slices.Sort(known)
	detail := fmt.Sprintf("There is no transport for %s://.%s", u.Scheme, didYouMean(u.Scheme, known))
	if len(known) > 0 {
		detail += fmt.Sprintf(" There are %s.", strings.Join(known, ", "))
	}
	l.diags.add(Error, l.sheet.here(), "Unknown transport", "%s%s", detail, silent.String())
	return ""
}

// shownURL is a URL without what may be secret in it.
func shownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" || u.Host == "" {
		if strings.ContainsAny(address, "@?") {
			return ""
		}
		return address
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

var unnameable = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// nameOf makes a name of that of the first graph's file.
func nameOf(graphs []string) string {
	if len(graphs) == 0 {
		return "flogate"
	}
	base := filepath.Base(graphs[0])
	text := unnameable.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "_")
	if !name.MatchString(text) {
		text = "graph_" + text
	}
	return text[:min(len(text), 64)]
}

// graphName returns a name for a graph that none of those before it has.
func graphName(before []string, path string) string {
	if len(before) == 0 {
		return MainGraph
	}
	taken := make([]string, len(before))
	for i := range before {
		taken[i] = graphName(before[:i], before[i])
	}
	text, unique := nameOf([]string{path}), ""
	for n := 2; slices.Contains(taken, text+unique); n++ {
		unique = fmt.Sprint(n)
		text = text[:min(len(text), 64-len(unique))]
	}
	return text + unique
}

// unname gives what was found in a file that nobody sees the flag for its place.
func (d *Diagnostics) unname(file string, s *sheet) {
	for i := range d.List {
		where := &d.List[i].Where
		if where.File != file {
			continue
		}
		*where = Range{File: s.flag(where.Start.Line)}
	}
	delete(d.sources, file)
}
