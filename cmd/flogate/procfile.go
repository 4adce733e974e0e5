package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/library"
)

// components says where the components of a graph are.
type components struct {
	library string // the file, or the folder that it is in
	folder  string
}

func (c *components) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.library, "library", "", "the file that says which components there are (default: package.json)")
	cmd.Flags().StringVar(&c.folder, "componentdir", "", "the folder whose files are components (default: the library's)")
	// The flags exist.
	_ = cmd.MarkFlagFilename("library", "json")
	_ = cmd.MarkFlagDirname("componentdir")
}

// load reads the library. Without a name it is in the working directory, where there need not be anything.
func (c *components) load() (*library.Library, error) {
	name, folder, err := c.places()
	if err != nil {
		return nil, err
	}
	l, err := library.Load(cmp.Or(name, "."), folder)
	if err != nil {
		return nil, &exitError{exitConfig, err}
	}
	return l, nil
}

// places returns the library, which is empty if there is none, and its component folder as an absolute path: to the flag's user
// it is relative to the working directory.
func (c *components) places() (name, folder string, err error) {
	if c.folder != "" {
		if folder, err = filepath.Abs(c.folder); err != nil {
			return "", "", err
		}
		if info, err := os.Stat(folder); err != nil {
			return "", "", usagef("--componentdir: %w", err)
		} else if !info.IsDir() {
			return "", "", usagef("--componentdir: %s is no folder", c.folder)
		}
	}
	if c.library != "" {
		return c.library, folder, nil
	}
	// As in MsgFlo, a project's own is meant.
	for _, is := range []string{"package.json", "participants", "components"} {
		if _, err := os.Stat(is); err == nil {
			return ".", folder, nil
		}
	}
	return "", folder, nil
}

func (a *app) procfileCommand() *cobra.Command {
	var c components
	var ignore, include []string
	cmd := &cobra.Command{
		Use:   "procfile GRAPH.FBP",
		Short: "Print a Procfile that starts the participants of a graph",
		Long: `Prints a line "role: command" for each role of a graph that can be started here, for
foreman, Heroku and their like. The commands are those of the component library, with
the roles and the initial packets of the graph. Roles whose component has no command
are left out, and named on standard error.`,
		Example: `  flogate procfile graphs/main.fbp >Procfile
  flogate procfile graphs/main.fbp --ignore button --include 'web: node web.js'`,
		Args: exactArgs("GRAPH.FBP"),
		RunE: func(_ *cobra.Command, args []string) error {
			g, err := loadGraph(args[0])
			if err != nil {
				return err
			}
			l, err := c.load()
			if err != nil {
				return err
			}
			nodes, err := library.Nodes(g)
			if err != nil {
				return err
			}
			a.sayUnknown("--ignore", ignore, nodes)
			nodes = slices.DeleteFunc(nodes, func(n library.Node) bool { return slices.Contains(ignore, n.Role) })
			text, without, err := l.Procfile(nodes)
			if err != nil {
				return &exitError{exitConfig, err}
			}
			if len(without) > 0 {
				fmt.Fprintf(a.stderr, "flogate: left out, because their components have no command: %s\n", strings.Join(without, ", "))
			}
			for _, line := range include {
				text += line + "\n"
			}
			_, err = fmt.Fprint(a.stdout, text)
			return err
		},
		ValidArgsFunction: graphFiles,
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&c.folder, "components", "", "the same as --componentdir")
	_ = cmd.Flags().MarkHidden("components") // the flag exists; MsgFlo's command calls it so
	roleFlag(cmd, &ignore, "ignore", "leave out these roles")
	cmd.Flags().StringArrayVar(&include, "include", nil, "put this line in as it is; may be repeated")
	return cmd
}

// loadGraph reads a graph for a command.
func loadGraph(path string) (*graph.Graph, error) {
	g, err := graph.Load(path)
	if err != nil {
		return nil, &exitError{exitConfig, err}
	}
	return g, nil
}

// sayUnknown says which roles a flag names that the graph does not have. It is no error: one list may serve several graphs.
func (a *app) sayUnknown(flag string, roles []string, nodes []library.Node) {
	for _, role := range roles {
		if !slices.ContainsFunc(nodes, func(n library.Node) bool { return n.Role == role }) {
			fmt.Fprintf(a.stderr, "flogate: %s: the graph has no participant %q\n", flag, role)
		}
	}
}

// roleFlag is a flag for roles, a list with commas or repeated, completed from the graph that is the command's argument.
func roleFlag(cmd *cobra.Command, roles *[]string, name, usage string) {
	cmd.Flags().StringSliceVar(roles, name, nil, usage+", with commas between them; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc(name, completeRoles) // the flag exists
}

// completeRoles completes the roles of the graph that is the command's argument, or in --graph.
func completeRoles(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	path := ""
	if graphs, err := cmd.Flags().GetStringArray("graph"); err == nil && len(graphs) > 0 {
		path = graphs[0]
	}
	if len(args) > 0 {
		path = args[0]
	}
	given := word[:strings.LastIndex(word, ",")+1]
	g, err := graph.Load(path)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	nodes, err := library.Nodes(g)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, n := range nodes {
		if r := given + n.Role; strings.HasPrefix(r, word) && !slices.Contains(strings.Split(given, ","), n.Role) {
			found = append(found, r)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// graphFiles completes the one argument of a command with graphs.
func graphFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"fbp", "json"}, cobra.ShellCompDirectiveFilterFileExt
}
