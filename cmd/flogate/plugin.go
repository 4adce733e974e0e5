package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/plugin"
	"github.com/flogate/flogate/core/pluginmain"
	"github.com/flogate/flogate/core/transport"
)

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "List and describe transports, or serve one of flogate's own",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, name := range builtinNames() {
		cmd.AddCommand(&cobra.Command{
			Use:   name,
			Short: fmt.Sprintf("Serve the transport %s to the gateway that starts this", name),
			Args:  noArgs,
			RunE: func(*cobra.Command, []string) error {
				if code := pluginmain.Serve(builtins()[name]); code != exitOK {
					return &exitError{code, errReported}
				}
				return nil
			},
		})
	}
	cmd.AddCommand(a.pluginListCommand(), a.pluginDescribeCommand())
	return cmd
}

func (a *app) pluginListCommand() *cobra.Command {
	var directory string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the transports that a site could use",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			found, err := executables(directory)
			if err != nil {
				return err
			}
			return a.listPlugins(found, asJSON)
		},
	}
	cmd.Flags().StringVar(&directory, "directory", "", "the plugin folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) listPlugins(found []plugin.Executable, asJSON bool) error {
	type row struct {
		Transport string `json:"transport"`
		Path      string `json:"path"`
		BuiltIn   bool   `json:"built_in"`
		Problem   string `json:"problem,omitempty"`
	}
	rows := []row{}
	for _, e := range found {
		r := row{Transport: e.Type, Path: e.Path, BuiltIn: e.BuiltIn}
		if e.Problem != nil {
			r.Problem = e.Problem.Error()
		}
		rows = append(rows, r)
	}
	if asJSON {
		return a.printJSON(rows)
	}
	t := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TRANSPORT\tFROM\tPROBLEM")
	for _, r := range rows {
		from := r.Path
		if r.BuiltIn {
			from = "flogate itself"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Transport, from, r.Problem)
	}
	return t.Flush()
}

func (a *app) pluginDescribeCommand() *cobra.Command {
	var directory string
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "describe TRANSPORT",
		Short:             "Print what a transport can do, and its settings",
		Example:           "  flogate plugin describe mqtt",
		Args:              exactArgs("TRANSPORT"),
		ValidArgsFunction: cobra.FixedCompletions(builtinNames(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			d, err := describe(cmd.Context(), newGuests(log), directory, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(describeJSON(d))
			}
			return printDescription(a.stdout, d)
		},
	}
	cmd.Flags().StringVar(&directory, "directory", "", "the plugin folder")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func describe(ctx context.Context, g *guests, directory, name string) (transport.Description, error) {
	defer g.close()
	driver, err := g.driver(ctx, directory, name)
	if err != nil {
		return transport.Description{}, err
	}
	return driver.Describe(ctx)
}

func printDescription(w io.Writer, d transport.Description) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s %s: %s\n", d.Name, d.Version, d.Summary)
	fmt.Fprintf(t, "schemes: %s\n", strings.Join(d.Schemes, ", "))
	if len(d.Capabilities) > 0 {
		fmt.Fprintf(t, "can do: %s\n", strings.Join(d.Capabilities, ", "))
	}
	for _, part := range []struct {
		title  string
		schema transport.Schema
	}{
		{"settings of the broker block", d.Config},
		{"options of an outport (source)", d.Source},
		{"options of an inport (sink)", d.Sink},
	} {
		if len(part.schema.Attributes)+len(part.schema.Blocks) > 0 {
			fmt.Fprintf(t, "\n%s\n", part.title)
			printSchema(t, part.schema, "  ")
		}
	}
	return t.Flush()
}

func printSchema(w io.Writer, s transport.Schema, indent string) {
	for _, at := range s.Attributes {
		var notes []string
		if at.Required {
			notes = append(notes, "required")
		}
		if at.Default != "" {
			notes = append(notes, "default "+at.Default)
		}
		if len(at.OneOf) > 0 {
			notes = append(notes, "one of "+strings.Join(at.OneOf, ", "))
		}
		fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\n", indent, at.Name, at.Type, strings.Join(notes, "; "), at.Doc)
	}
	for _, b := range s.Blocks {
		fmt.Fprintf(w, "%s%s {}\tblock\t\t%s\n", indent, b.Name, b.Doc)
		printSchema(w, b.Schema, indent+"  ")
	}
}

// schemaJSON is a schema as --json prints it.
type schemaJSON struct {
	Attributes []attributeJSON       `json:"attributes,omitempty"`
	Blocks     map[string]schemaJSON `json:"blocks,omitempty"`
}

type attributeJSON struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Required bool     `json:"required,omitempty"`
	Secret   bool     `json:"secret,omitempty"`
	Default  string   `json:"default,omitempty"`
	OneOf    []string `json:"one_of,omitempty"`
	Doc      string   `json:"doc,omitempty"`
}

func toSchemaJSON(s transport.Schema) schemaJSON {
	var out schemaJSON
	for _, at := range s.Attributes {
		out.Attributes = append(out.Attributes, attributeJSON{
			at.Name, string(at.Type), at.Required, at.Secret, at.Default, at.OneOf, at.Doc,
		})
	}
	for _, b := range s.Blocks {
		if out.Blocks == nil {
			out.Blocks = make(map[string]schemaJSON)
		}
		out.Blocks[b.Name] = toSchemaJSON(b.Schema)
	}
	return out
}

func describeJSON(d transport.Description) any {
	return struct {
		Name         string     `json:"name"`
		Version      string     `json:"version"`
		Summary      string     `json:"summary"`
		Schemes      []string   `json:"schemes"`
		Capabilities []string   `json:"capabilities"`
		Config       schemaJSON `json:"config"`
		Source       schemaJSON `json:"source"`
		Sink         schemaJSON `json:"sink"`
	}{d.Name, d.Version, d.Summary, d.Schemes, d.Capabilities, toSchemaJSON(d.Config), toSchemaJSON(d.Source), toSchemaJSON(d.Sink)}
}
